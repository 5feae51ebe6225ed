//! A check of a million files: what it takes. The check runs in a process of its own, so that its memory can be told.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use block::Workers;
use block::file::{FileDevice, OpenOptions};

use super::*;

/// Names the image to whoever runs this test again as the process that checks.
const IMAGE: &str = "SHOREFAST_CHECK_IMAGE";
/// Says how: `mounted` or `unmounted`.
const HOW: &str = "SHOREFAST_CHECK_HOW";
const NAME: &str = "meta::tests::check_scale::a_million_files_are_checked_within_500_mib";

const DIRS: u64 = 1000;
const FILES: u64 = 1000;
/// What a check may take, the database's cache and the program included.
const LIMIT_KIB: u64 = 500 << 10;

fn device(path: &Path, workers: &Workers) -> Arc<dyn BlockDevice> {
    Arc::new(FileDevice::open(path, OpenOptions::default(), workers.handle()).expect("opens"))
}

/// A volume with a million files of one block each, in a thousand directories; every tenth has an attribute.
fn fill(dev: &Arc<dyn BlockDevice>) {
    let superblock = Store::format(dev, &options()).expect("formats");
    let store = Store::open_unfenced(Arc::clone(dev), &superblock, Arc::new(Latch::new())).expect("opens");
    for d in 0..DIRS {
        let mut txn = store.write().expect("begins");
        let made = txn.run(NOW, |ops| {
            let dir = ops.create(&node(InodeNo::ROOT, format!("dir-{d}").as_bytes(), 0o040_755), true)?.attr.ino;
            for n in 0..FILES {
                let name = format!("a file with a name of some length {d}-{n}");
                let ino = ops.create(&node(dir, name.as_bytes(), 0o100_644), true)?.attr.ino;
                ops.fallocate(ino, 0, FS_BLOCK, false)?;
                if n % 10 == 0 {
                    ops.set_xattr(ino, b"user.origin", b"somewhere", 0, false)?;
                }
            }
            Ok::<(), MetaError>(())
        });
        made.expect("runs").expect("makes");
        txn.commit().expect("commits");
    }
    store.close().expect("closes");
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("there");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// The process that checks.
fn check_as(how: &str, image: &Path) {
    let workers = Workers::start(1, "check").expect("workers");
    let dev = device(image, &workers);
    let before = peak_kib();
    let begun = Instant::now();
    let mut go_on = |_| ControlFlow::Continue(());
    let report = match how {
        "mounted" => {
            let superblock = read_superblock(&dev).expect("a volume").superblock;
            let store = Store::open_unfenced(Arc::clone(&dev), &superblock, Arc::new(Latch::new())).expect("opens");
            store.reader().check(check::Limits::DEFAULT, &mut go_on).expect("readable")
        }
        _ => {
            Store::check_unmounted(&dev, &Unmounted::in_memory(), check::Limits::DEFAULT, &mut go_on).expect("readable")
        }
    };
    let took = begun.elapsed();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.inodes, 1 + DIRS + DIRS * FILES);
    let peak = peak_kib();
    println!(
        "{how}: {} inodes, {} names, {} extents in {:.1} s; peak {} MiB, {} MiB before",
        report.inodes,
        report.entries,
        report.extents,
        took.as_secs_f64(),
        peak >> 10,
        before >> 10
    );
    assert!(peak <= LIMIT_KIB, "{peak} KiB");
    drop(dev);
    workers.shutdown().expect("ends");
}

#[test]
#[ignore = "long: makes a million files, and checks them twice"]
fn a_million_files_are_checked_within_500_mib() {
    if let Some(image) = std::env::var_os(IMAGE) {
        let how = std::env::var(HOW).expect("both are given");
        return check_as(&how, Path::new(&image));
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(16 << 30).expect("a sparse file");
    let workers = Workers::start(1, "fill").expect("workers");
    fill(&device(image.path(), &workers));
    workers.shutdown().expect("ends");
    for how in ["unmounted", "mounted"] {
        let this = std::env::current_exe().expect("a program");
        let mut child = Command::new(this);
        child.args(["--exact", NAME, "--include-ignored", "--nocapture"]);
        let done = child.env(IMAGE, image.path()).env(HOW, how).output().expect("runs");
        let said = String::from_utf8_lossy(&done.stdout);
        print!("{}", said.lines().find(|l| l.starts_with(how)).map_or_else(String::new, |l| format!("{l}\n")));
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    }
}
