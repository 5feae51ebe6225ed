//! `volume check`: of a mounted volume under load, of one that nobody has mounted, of a damaged one, and its repair.

#[path = "check/forge.rs"]
mod forge;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::{Background, Cluster, background, can_mount, path, run, until, within};

/// Makes, grows, renames and removes files until it is told to stop; how often it went round.
fn load(dir: PathBuf, stop: &Arc<AtomicBool>) -> Background<u32> {
    let stop = Arc::clone(stop);
    background(move || {
        fs::create_dir(&dir).expect("makes");
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let (a, b) = (dir.join("a"), dir.join(format!("b{}", rounds % 7)));
            let mut file = fs::File::create(&a).expect("creates");
            file.write_all(&vec![7; 70_000]).expect("writes");
            file.sync_all().expect("syncs");
            fs::rename(&a, &b).expect("renames");
            // Open without a name: an orphan.
            fs::remove_file(&b).expect("removes");
            file.write_all(&[8; 5000]).expect("writes");
            fs::write(&b, b"there again").expect("writes");
            rounds += 1;
        }
        rounds
    })
}

#[test]
fn a_mounted_volume_under_load_is_checked_at_its_coordinator_whichever_node_is_asked() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (1..=2).map(|n| load(cluster.mount(n, "v").join(format!("load-{n}")), &stop)).collect();
    for _ in 0..4 {
        for n in 1..=2 {
            let checked = cluster.ask(n, &["volume", "check", "v"]);
            checked.expect(0, &["Nothing is wrong", "at its coordinator node-1"]);
        }
    }
    let json = cluster.ask(2, &["--json", "volume", "check", "v"]);
    let check = &json.json()["check"];
    assert_eq!((json.code, &check["clean"], &check["count"]), (0, &true.into(), &0.into()), "{json:?}");
    assert_eq!(check["checked"]["coordinator"]["node"], 1, "{json:?}");
    assert!(check["inodes"].as_u64().is_some_and(|n| n > 2) && check["findings"] == serde_json::json!([]), "{json:?}");
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        assert!(load.ended("the load") > 0);
    }
    cluster.ask(1, &["volume", "check", "v", "--repair"]).expect(4, &["is mounted", "volume unmount v"]);
    cluster.ask(1, &["volume", "check", "v", "--repair", "--dry-run"]).expect(0, &["Nothing is wrong"]);
    cluster.ask(1, &["volume", "check", "nothing"]).expect(3, &["nothing"]);
    let disk = cluster.dir.join("v.img");
    run(&["volume", "check", "--disk", path(&disk)]).expect(4, &["node 1 has the volume", "open"]);
}

/// The checksum of the first 256 MiB of a disk: everything of the format but superblock C, and some data.
fn sum(disk: &Path) -> u32 {
    let file = fs::File::open(disk).expect("opens");
    let mut piece = vec![0; 1 << 20];
    (0..256).fold(0, |sum, n| {
        file.read_exact_at(&mut piece, n << 20).expect("readable");
        crc32c::crc32c_append(sum, &piece)
    })
}

#[test]
fn a_volume_that_no_node_has_mounted_is_checked_on_its_disk() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let file = cluster.mount(1, "v").join("f");
    within("writing", move || fs::write(file, vec![1; 300_000])).expect("writes");
    cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    let there = cluster.ask(1, &["volume", "check", "v"]);
    there.expect(0, &["Nothing is wrong", "at its coordinator node-2"]);
    cluster.ask(2, &["volume", "unmount", "v"]).expect(0, &[]);
    let disk = cluster.dir.join("v.img");
    let before = sum(&disk);
    cluster.ask(1, &["volume", "check", "v"]).expect(0, &["Nothing is wrong", "not mounted", "1 names"]);
    run(&["volume", "check", "--disk", path(&disk), "--repair"]).expect(0, &["Nothing is wrong"]);
    assert_eq!(before, sum(&disk), "a check changes nothing");
    cluster.ask(2, &["volume", "mount", "v"]).expect(0, &[]);
    let file = cluster.mount(2, "v").join("f");
    assert_eq!(within("reading", move || fs::read(file)).expect("there"), vec![1; 300_000]);
}

#[test]
fn what_is_no_volume_or_no_disk_is_said_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = dir.path().join("blank.img");
    fs::File::create_new(&disk).and_then(|f| f.set_len(1 << 30)).expect("a sparse file");
    run(&["volume", "check", "--disk", path(&disk)]).expect(1, &["no shorefast volume"]);
    run(&["volume", "check", "--disk", "/nonexistent/disk.img"]).expect(3, &["There is no disk"]);
    run(&["volume", "check", "--disk", "nvme://192.0.2.1/x"]).expect(4, &["cannot be a shared disk"]);
    run(&["volume", "check", "--disk", "iscsi://192.0.2.1"]).expect(2, &["names no unit"]);
    run(&["volume", "check"]).expect(2, &["NAME"]);
    run(&["volume", "check", "v", "--dry-run"]).expect(2, &["--repair"]);
}

/// What lies below a folder, by name and contents.
fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a folder") {
            let at = entry.expect("an entry").path();
            if at.is_dir() {
                dirs.push(at);
            } else {
                let name = at.strip_prefix(root).expect("below").to_owned();
                found.push((name, fs::read(&at).expect("readable")));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_volume_is_told_repaired_and_has_all_its_data() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::with_volume(1);
    let mount = cluster.mount(1, "v");
    let made = within("writing", move || {
        fs::create_dir(mount.join("d")).expect("makes");
        for (name, byte) in [("d/kept", 1), ("d/lost-name", 2), ("top", 3)] {
            let mut file = fs::File::create(mount.join(name)).expect("creates");
            file.write_all(&vec![byte; 100_000]).expect("writes");
            file.sync_all().expect("syncs");
        }
        tree(&mount)
    });
    cluster.kill(1);
    let disk = cluster.dir.join("v.img");
    let check = |more: &[&str]| run(&[&["volume", "check", "--disk", path(&disk)], more].concat());
    // The dead process's lock is free once its last write has landed.
    until("the lock of the killed node", || check(&[]).code != 4);
    check(&[]).expect(0, &["Nothing is wrong"]);

    let image = fs::File::options().read(true).write(true).open(&disk).expect("opens");
    forge::remove_name(&image, b"lost-name");
    image.write_all_at(&[0x5a; 4096], 512 << 20).expect("writes");
    let told = check(&[]);
    told.expect(5, &["[superblock-copy]", "[unreachable]", "[listing]", "repair: give ino", "things are wrong"]);
    let json = check(&["--json"]);
    assert_eq!(json.code, 5);
    let kinds: Vec<String> = json.json()["check"]["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["kind"].as_str().expect("a word").to_owned())
        .collect();
    assert!(kinds.contains(&"unreachable".to_owned()) && kinds.contains(&"superblock-copy".to_owned()), "{kinds:?}");
    check(&["--repair", "--dry-run"]).expect(5, &["repair: give ino"]);
    assert!(!check(&["--repair", "--dry-run"]).out.contains("Repair:"));
    check(&["--repair"]).expect(0, &["Repair: give ino", "Repair: write the damaged copies", "Nothing is wrong"]);
    check(&[]).expect(0, &["Nothing is wrong"]);

    cluster.start(1);
    until("the mount", || cluster.is_mounted(1));
    until("a coordinator", || cluster.coordinator(1) == 1);
    let mount = cluster.mount(1, "v");
    let mut left = within("reading", move || tree(&mount));
    let found = left.iter_mut().find(|(name, _)| name.starts_with("lost+found")).expect("reconnected");
    found.0 = PathBuf::from("d/lost-name");
    left.sort();
    assert!(left == made, "every file is there with its data");
    cluster.ask(1, &["volume", "check", "v"]).expect(0, &["Nothing is wrong"]);
}
