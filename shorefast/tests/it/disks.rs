//! Disks that are refused, or not what they should be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Cluster, Ended, can_mount, path, until};

const GIB: u64 = 1 << 30;

fn one_node() -> Cluster {
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    cluster
}

fn create(cluster: &Cluster, disk: &Path, more: &[&str]) -> Ended {
    let mut args = vec!["volume", "create", "v", "--timing", "fast", "--disk", path(disk)];
    args.extend(more);
    cluster.ask(1, &args)
}

/// Runs a program of the system; false, and said, if it is not there.
fn system(program: &str, args: &[&str]) -> bool {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|d| PathBuf::from(d).join(program));
    let Some(found) = places.iter().find(|p| p.exists()) else {
        println!("skipped: {program} is not installed (./setup installs it)");
        return false;
    };
    let output = Command::new(found).args(args).output().expect("it runs");
    assert!(output.status.success(), "{program}: {output:?}");
    true
}

/// A disk that carries something is refused by name with 4, and not a byte of it is changed.
fn refused_by_name(cluster: &Cluster, disk: &Path, name: &str) -> Ended {
    let head = |at: u64| {
        let mut bytes = vec![0; 1 << 20];
        File::open(disk).and_then(|f| f.read_exact_at(&mut bytes, at)).expect("reads");
        bytes
    };
    let before = (head(0), head(512 << 20));
    let ended = create(cluster, disk, &[]);
    ended.expect(4, &[name, "--wipe", "Examining"]);
    assert_eq!(ended.err.matches("--wipe").count(), 1, "the way out is told once: {ended:?}");
    assert!(!ended.err.contains("Format"), "nothing was formatted: {ended:?}");
    assert!(before == (head(0), head(512 << 20)), "the refused disk was changed");
    ended
}

/// What the refusal says that `--wipe` wants.
fn identity(refused: &Ended) -> String {
    let id = refused.err.split("--wipe ").nth(1).and_then(|s| s.split_whitespace().next()).expect("an identity");
    assert!(id.ends_with(|c: char| c.is_ascii_alphanumeric()), "something would be copied along: {id}");
    id.to_owned()
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_4() {
    let cluster = one_node();
    let disk = cluster.disk("small.img", GIB / 2);
    create(&cluster, &disk, &[]).expect(4, &["1 GiB"]);
}

#[test]
fn a_disk_that_is_not_there_is_said_to_be_missing_with_3() {
    let cluster = one_node();
    create(&cluster, &cluster.dir.join("none.img"), &[]).expect(3, &["There is no disk", "none.img", "truncate"]);
}

#[test]
fn a_lun_is_refused_with_4_and_a_plain_sentence() {
    let cluster = one_node();
    let ended = create(&cluster, Path::new("iscsi://192.0.2.1/iqn.2026-01.example:disk"), &[]);
    ended.expect(4, &["this version knows only files", "iscsi://", "come later"]);
    assert!(!ended.err.contains("COMPARE"), "{ended:?}");
}

#[test]
fn a_disk_with_ext4_is_refused_until_its_identity_is_given() {
    let cluster = one_node();
    let disk = cluster.disk("ext4.img", 2 * GIB);
    if !can_mount() || !system("mkfs.ext4", &["-q", "-F", path(&disk)]) {
        return;
    }
    let refused = refused_by_name(&cluster, &disk, "ext4");
    let id = identity(&refused);
    create(&cluster, &disk, &["--wipe", "another"]).expect(4, &["`another` is not its identity", &id]);
    create(&cluster, &disk, &["--wipe", &id]).expect(0, &[]);
}

#[test]
fn a_disk_with_swap_is_refused_by_name() {
    let cluster = one_node();
    let disk = cluster.disk("swap.img", 2 * GIB);
    if system("mkswap", &[path(&disk)]) {
        refused_by_name(&cluster, &disk, "swap");
    }
}

#[test]
fn a_disk_with_a_partition_table_is_refused_by_name() {
    let cluster = one_node();
    let disk = cluster.disk("parted.img", 2 * GIB);
    let file = File::options().write(true).open(&disk).expect("opens");
    // One Linux partition from sector 2048 on, and the boot signature.
    file.write_all_at(&[0, 0x20, 0x21, 0, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 0, 0x20, 0], 446).expect("writes");
    file.write_all_at(&[0x55, 0xaa], 510).expect("writes");
    refused_by_name(&cluster, &disk, "dos-partition-table");
}

#[test]
fn a_disk_of_lvm_is_refused_by_name() {
    let cluster = one_node();
    let disk = cluster.disk("lvm.img", 2 * GIB);
    let file = File::options().write(true).open(&disk).expect("opens");
    // The label of a physical volume lies in the second sector.
    let mut label = [0_u8; 32];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[24..].copy_from_slice(b"LVM2 001");
    file.write_all_at(&label, 512).expect("writes");
    let refused = refused_by_name(&cluster, &disk, "lvm2");
    if can_mount() {
        create(&cluster, &disk, &["--wipe", &identity(&refused)]).expect(0, &[]);
    }
}

#[test]
fn a_disk_of_another_volume_is_refused_by_name() {
    if !can_mount() {
        return;
    }
    let cluster = one_node();
    let disk = cluster.create_volume("first");
    let ended = create(&cluster, &disk, &[]);
    ended.expect(4, &["first"]);
}

/// A volume that was made, unmounted and whose daemon ended; its disk.
fn made_and_stopped(cluster: &mut Cluster) -> PathBuf {
    let disk = cluster.create_volume("v");
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    disk
}

/// Behind the magic, so that it can be told from a disk that never was a volume.
fn damage(disk: &Path, at: u64) {
    let file = File::options().write(true).open(disk).expect("opens");
    file.write_all_at(&[0x5a; 512], at + 64).expect("writes");
}

/// Where the three superblocks lie.
const SUPERBLOCKS: [u64; 3] = [0, 64 << 10, 512 << 20];

#[test]
fn with_its_first_superblock_damaged_a_volume_mounts_by_the_second_and_says_so() {
    if !can_mount() {
        return;
    }
    let mut cluster = one_node();
    let disk = made_and_stopped(&mut cluster);
    damage(&disk, SUPERBLOCKS[0]);
    cluster.start(1);
    until("the mount", || cluster.volume(1, "v").is_some_and(|v| v["mount"].is_string()));
    let said = cluster.events(1);
    assert!(said.iter().any(|(code, _)| code == "superblock-damaged"), "{said:?}");
}

#[test]
fn with_all_superblocks_damaged_a_volume_stays_pending_and_the_reason_is_said() {
    if !can_mount() {
        return;
    }
    let mut cluster = one_node();
    let disk = made_and_stopped(&mut cluster);
    for at in SUPERBLOCKS {
        damage(&disk, at);
    }
    cluster.start(1);
    cluster.until_event(1, "volume-pending", "superblock");
    until("the state", || cluster.volume(1, "v").is_some_and(|v| v["health"] == "pending"));
    cluster.ask(1, &["status", "--check"]).expect(5, &["PROBLEM"]);
}

/// Where a superblock has its version, checksum and the features that older programs must not ignore.
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const INCOMPAT_AT: usize = 40;

/// Changes every superblock, with a good checksum, as a newer program would have written them.
fn rewrite_superblocks(disk: &Path, change: impl Fn(&mut [u8])) {
    let file = File::options().read(true).write(true).open(disk).expect("opens");
    for at in SUPERBLOCKS {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, at).expect("reads");
        change(&mut bytes);
        bytes[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, at).expect("writes");
    }
}

#[test]
fn a_volume_of_a_newer_format_or_with_an_unknown_feature_is_not_mounted_and_the_reason_is_said() {
    if !can_mount() {
        return;
    }
    let mut cluster = one_node();
    let disk = made_and_stopped(&mut cluster);
    rewrite_superblocks(&disk, |bytes| bytes[INCOMPAT_AT] = 0x10);
    cluster.start(1);
    cluster.until_event(1, "volume-pending", "incompat bits 0x10");
    assert_eq!(cluster.stop(1), 0, "{}", cluster.log(1));
    rewrite_superblocks(&disk, |bytes| {
        bytes[INCOMPAT_AT] = 0;
        bytes[VERSION_AT] = 2;
    });
    cluster.start(1);
    cluster.until_event(1, "volume-pending", "version 2");
    assert!(!cluster.is_mounted(1));
}

#[test]
fn a_disk_that_became_something_else_is_not_mounted_and_the_reason_is_said() {
    if !can_mount() {
        return;
    }
    let mut cluster = one_node();
    let disk = made_and_stopped(&mut cluster);
    fs::remove_file(&disk).expect("removes");
    File::create(&disk).and_then(|f| f.set_len(2 * GIB)).expect("another disk");
    cluster.start(1);
    cluster.until_event(1, "volume-pending", "volume");
    assert!(cluster.volume(1, "v").is_some_and(|v| v["mount"].is_null()));
}
