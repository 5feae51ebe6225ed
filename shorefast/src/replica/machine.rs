//! Which life of this machine, and of a disk in it, this is: what completed on the disk is there while it lasts. A process that was killed
//! and is started again in the same life has lost nothing that it acknowledged.
//!
//! A machine's life is its boot. A disk's begins when it is plugged in, which the kernel counts (`diskseq`, since Linux 5.15); a
//! file has that of the disk that its file system is on. What cannot be told proves nothing. Not noticed is a disk that loses its cache
//! alone, while its machine runs and the kernel keeps it; no more is that while a replica runs. A disk that failed is remembered in a
//! file: it may work again after a restart, without what it had acknowledged.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use replicator::runtime::{Life, life};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// That of the disks of a replica's volumes; unknown if one has failed since they were opened last. A volume that is added makes it another
/// one, which proves nothing until the next start.
pub(super) fn life_of(disks: &[&Path], failed: &Path) -> Life {
    let boot = fs::read_to_string(BOOT).unwrap_or_default();
    let known: Option<Vec<String>> = disks.iter().map(|disk| identity(disk)).collect();
    match (boot.trim(), known) {
        ("", _) | (_, None) => Life::UNKNOWN,
        _ if failed.exists() => Life::UNKNOWN,
        (boot, Some(disks)) => life(boot, &disks.join(" + ")),
    }
}

fn identity(disk: &Path) -> Option<String> {
    let found = fs::metadata(disk).ok()?;
    if found.file_type().is_block_device() {
        return Some(format!("disk {} {}", number(found.rdev()), sequence(found.rdev())?));
    }
    // A file system without a disk of its own (in memory, over others) has no sequence.
    let below = sequence(found.dev()).unwrap_or_default();
    Some(format!("file {} {} {below}", number(found.dev()), found.ino()))
}

fn number(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// Of a disk, also of one of its partitions.
fn sequence(device: u64) -> Option<String> {
    let place = PathBuf::from(format!("/sys/dev/block/{}", number(device)));
    let read = |name: &str| fs::read_to_string(place.join(name)).ok();
    let text = read("diskseq").or_else(|| read("../diskseq"))?;
    Some(text.trim().to_owned())
}

/// The disk has failed.
pub(super) fn remember_failure(failed: &Path) -> io::Result<()> {
    File::create(failed)?.sync_all()?;
    failed.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// The replica was opened, and what its superblock says of its life is durable: the file is needed no more.
pub(super) fn forget_failure(failed: &Path) -> io::Result<()> {
    match fs::remove_file(failed) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_one_life_until_it_is_another_one_or_has_failed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (disk, other, failed) = (dir.path().join("disk"), dir.path().join("other"), dir.path().join("failed"));
        fs::write(&disk, [0; 512]).expect("written");
        fs::write(&other, [0; 512]).expect("written");
        let life_of = |disk: &Path, failed: &Path| super::life_of(&[disk], failed);
        let first = life_of(&disk, &failed);
        assert!(first != Life::UNKNOWN && first.goes_on(life_of(&disk, &failed)));
        assert!(!first.goes_on(life_of(&other, &failed)));
        let two = super::life_of(&[&disk, &other], &failed);
        assert!(two.goes_on(super::life_of(&[&disk, &other], &failed)) && !two.goes_on(first));
        assert!(!two.goes_on(super::life_of(&[&other, &disk], &failed)), "they were exchanged");
        remember_failure(&failed).expect("remembered");
        assert_eq!(life_of(&disk, &failed), Life::UNKNOWN);
        forget_failure(&failed).expect("forgotten");
        forget_failure(&failed).expect("nothing to forget");
        assert_eq!(life_of(&disk, &failed), first);
        assert_eq!(life_of(&dir.path().join("none"), &failed), Life::UNKNOWN);
    }
}
