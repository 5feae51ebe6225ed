//! The stuck write: it timed out, newer data went to the same block by another way, and then its path heals. It must
//! not land any more. The proof of that is the withdrawal of what is outstanding; with the withdrawal switched off the
//! same steps show the old write landing, so the test can see what it looks for.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use block::buf::AlignedBuf;

use crate::fixture::{Background, Cluster, background, can_mount, until, within};

const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();
const BLOCK: usize = 4096;

const OLD: u8 = 0x0d;
const NEWER: u8 = 0x9e;

/// Opens a file as a virtual machine has its image open.
pub(crate) fn direct(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(O_DIRECT)
        .open(path)
        .expect("opens")
}

/// A block of one value.
pub(crate) fn block(value: u8) -> AlignedBuf {
    AlignedBuf::from_slice(&[value; BLOCK])
}

/// What the block holds as a node reads it.
pub(crate) fn read(cluster: &Cluster, n: usize) -> u8 {
    let path = cluster.mount(n, "v").join("file");
    within("reading the block", move || {
        let mut found = AlignedBuf::zeroed(BLOCK);
        direct(&path).read_exact_at(&mut found, 0).expect("reads");
        assert!(found.iter().all(|b| *b == found[0]), "the block is torn");
        found[0]
    })
}

/// A write in place is outstanding on node 2, whose disk hangs, and its data is block-redirected now.
/// The file is shared, not duplicated: closing a duplicate sends FLUSH, and that waits for the stuck write.
fn stuck(cluster: &Cluster) -> (Arc<File>, Background<std::io::Result<()>>) {
    let path = cluster.mount(1, "v").join("file");
    within("making the file", move || {
        let file = direct(&path);
        file.write_all_at(&AlignedBuf::zeroed(16 * BLOCK), 0).expect("writes");
        file.sync_all().expect("makes stable");
    });
    let path = cluster.mount(2, "v").join("file");
    let file = within("writing in place", move || {
        let file = direct(&path);
        file.write_all_at(&block(1), 0).expect("writes");
        Arc::new(file)
    });
    assert_eq!(read(cluster, 1), 1);
    // The reader may have taken the layout back. With it here again the next write goes straight to the disk; one that
    // first waited for its layout would hold its block range too, and keep newer ones out by that.
    let handle = Arc::clone(&file);
    within("writing in place again", move || handle.write_all_at(&block(2), 0)).expect("writes");
    cluster.ask(2, &["debug", "disk", "hang"]).expect(0, &[]);
    let handle = Arc::clone(&file);
    let old = background(move || handle.write_all_at(&block(OLD), 0));
    cluster.until_route(2, "block-redirected");
    (file, old)
}

/// Newer data through node 2, as node 1 reads it.
fn overwrite(cluster: &Cluster, file: &Arc<File>) {
    let handle = Arc::clone(file);
    within("the newer write", move || handle.write_all_at(&block(NEWER), 0)).expect("the newer write fails");
    assert_eq!(read(cluster, 1), NEWER);
}

fn heal(cluster: &Cluster) {
    cluster.ask(2, &["debug", "disk", "heal"]).expect(0, &[]);
    cluster.until_route(2, "direct");
}

#[test]
fn a_stuck_write_does_not_land_on_newer_redirected_data_when_its_path_heals() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let (file, old) = stuck(&cluster);
    // It was withdrawn and went the other way, as if nothing had happened.
    old.ended("the write that was stuck").expect("no call may fail");
    assert_eq!(read(&cluster, 1), OLD);
    overwrite(&cluster, &file);
    heal(&cluster);
    // What was held has been let go by now; whatever could land has time to.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((read(&cluster, 1), read(&cluster, 2)), (NEWER, NEWER), "the old write has landed");
    }
    cluster.checks_clean(2);
}

/// Each command of the fixture is a child that closes duplicates of what is open here. For a time every close waited for
/// the stuck write, in case a record lock went with it, and so did this test, for ever.
#[test]
fn without_the_withdrawal_the_old_write_lands_on_newer_data() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    cluster.ask(2, &["debug", "disk", "ignore-aborts"]).expect(0, &[]);
    let (file, old) = stuck(&cluster);
    overwrite(&cluster, &file);
    assert!(!old.is_done(), "the old write was withdrawn after all");
    heal(&cluster);
    // Acknowledged newer data is gone: what the withdrawal is for.
    until("the old write's landing", || read(&cluster, 1) == OLD);
    old.ended("the write that was stuck").expect("it has landed");
}
