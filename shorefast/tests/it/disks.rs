//! Disks that are refused, or not what they should be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Cluster, Ended, can_mount, path, run, until, within};
use crate::iscsi::Tgt;

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
fn a_disk_of_an_unknown_kind_is_refused_with_4_and_a_plain_sentence() {
    let cluster = one_node();
    let ended = create(&cluster, Path::new("nvme://192.0.2.1/nqn.2026-01.example:disk"), &[]);
    ended.expect(4, &["this version knows files", "units over iSCSI", "nvme://"]);
    assert!(!ended.err.contains("COMPARE"), "{ended:?}");
}

#[test]
fn a_lun_is_refused_with_4_for_what_it_lacks_and_its_secret_is_not_shown() {
    let cluster = one_node();
    create(&cluster, Path::new("iscsi://192.0.2.1/iqn.2026-01.example:disk"), &[])
        .expect(2, &["iscsi://HOST/TARGET/LUN"]);
    let nobody = Path::new("iscsi://user%secret-of-12@127.0.0.1:1/iqn.2026-01.example:disk/1");
    let ended = create(&cluster, nobody, &[]);
    ended.expect(1, &["user%***@127.0.0.1:1", "cannot connect"]);
    assert!(!ended.err.contains("secret-of-12"), "{ended:?}");
    let Some(tgt) = Tgt::start() else { return };
    let ended = create(&cluster, Path::new(&tgt.unit()), &[]);
    ended.expect(4, &["Examining", "lacks COMPARE AND WRITE"]);
    assert!(!ended.err.contains("Format"), "nothing was formatted: {ended:?}");
    cluster.ask(1, &["volume", "list"]).expect(0, &[]);
    assert!(cluster.volume(1, "v").is_none(), "no volume is left");
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

/// Its metadata lie at the end, where a volume would not be written at first: the replica would go on as if nothing had happened.
#[test]
fn a_disk_of_a_replica_is_refused_by_name_and_not_served_either() {
    let cluster = Cluster::new(2);
    let (disk, dir, bundle) = (cluster.disk("replica.img", 2 * GIB), cluster.dir.join("replicas"), cluster.bundle(1));
    let mut args = vec!["replica", "create", "r0", "--dir", path(&dir), "--local", path(&disk)];
    args.extend(["--listen", "127.0.0.1:0", "--peer", "2=127.0.0.9:9", "--bundle", path(&bundle)]);
    run(&args).expect(0, &[]);
    let mut cluster = cluster;
    cluster.start(1);
    let refused = refused_by_name(&cluster, &disk, "a replica of node 1");
    assert!(identity(&refused).starts_with("replica-"), "{refused:?}");
    let socket = dir.join("s");
    run(&["nbd", "serve", "--disk", path(&disk), "--unix", path(&socket)])
        .expect(4, &["a replica of node 1", "--read-only"]);
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
    cluster.ask(1, &["volume", "unmount", "first"]).expect(0, &[]);
    let ended = create(&cluster, &disk, &[]);
    ended.expect(4, &["first", "--wipe"]);
    create(&cluster, &disk, &["--wipe", &identity(&ended)]).expect(0, &[]);
}

/// With the identity that a refusal had named, a volume was formatted under the nodes that had it mounted: its readers
/// hung, and everything on it was gone.
#[test]
fn a_disk_whose_volume_a_node_has_mounted_is_not_formatted_whatever_identity_is_given() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let disk = cluster.dir.join("v.img");
    let (here, there) = (cluster.mount(1, "v").join("kept"), cluster.mount(2, "v").join("kept"));
    within("the write", move || fs::write(here, "kept")).expect("writes");
    let id = cluster.volume(1, "v").and_then(|v| v["id"].as_str().map(str::to_owned)).expect("an identity");
    let again = ["volume", "create", "w", "--disk", path(&disk), "--timing", "fast"];
    for more in [&[][..], &["--wipe", &id]] {
        let ended = cluster.ask(1, &[&again[..], more].concat());
        ended.expect(4, &["volume v is mounted on node-1", "unmount it everywhere first"]);
    }
    // One node that has it is enough, and it need not be the one that was asked.
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    cluster.ask(1, &[&again[..], &["--wipe", &id]].concat()).expect(4, &["volume v is mounted on node-2"]);
    assert_eq!(within("the read", move || fs::read_to_string(there)).expect("reads"), "kept");
    cluster.ask(2, &["volume", "unmount", "v"]).expect(0, &[]);
    cluster.ask(1, &["volume", "check", "v"]).expect(0, &["Nothing is wrong"]);
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

/// A disk that was formatted under its nodes made them try twice a second for ever: status said "metadata waiting", and
/// whoever wanted to read hung.
#[test]
fn a_disk_that_carries_another_volume_under_its_nodes_is_told_and_whoever_waits_gets_an_error() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let point = cluster.mount(2, "v");
    let (file, held) = within("opening", move || {
        fs::write(point.join("held"), vec![7; 100_000]).expect("writes");
        (File::open(point.join("held")).expect("opens"), point.join("held"))
    });
    let other = cluster.create_volume("w");
    for n in 1..=2 {
        until("the other mount", || cluster.volume(n, "w").is_some_and(|v| v["mount"].is_string()));
        cluster.ask(n, &["volume", "unmount", "w"]).expect(0, &[]);
    }
    // Everything that tells a volume, over that of the other; the third superblock lies apart.
    let disk = cluster.dir.join("v.img");
    let (from, to) = (File::open(&other).expect("opens"), File::options().write(true).open(&disk).expect("opens"));
    for (at, len) in [(512 << 20, 4096), (0, 1 << 20)] {
        let mut bytes = vec![0; len];
        from.read_exact_at(&mut bytes, at).and_then(|()| to.write_all_at(&bytes, at)).expect("copies");
    }
    for n in 1..=2 {
        cluster.until_event(n, "disk-replaced", "formatted again as volume w");
        cluster.ask(n, &["status"]).expect(0, &["the disk was formatted again as volume w", "Put the right disk"]);
    }
    let mut byte = [0];
    within("the read of an open file", move || file.read_exact_at(&mut byte, 0)).expect_err("it is not there any more");
    within("opening by name", move || File::open(held)).expect_err("it is not mounted any more");
    let image = |f: &Path| {
        let mut bytes = vec![0; 1 << 20];
        File::open(f).and_then(|f| f.read_exact_at(&mut bytes, 0)).expect("reads");
        bytes
    };
    assert!(image(&disk) == image(&other), "nothing more was written to what is another volume now");
    cluster.ask(1, &["volume", "check", "--disk", path(&disk)]).expect(0, &["Nothing is wrong"]);
}
