//! What the kernel tells of its disks in /sys: which are SCSI disks, what each is called (page 83h), what else a device may be. Read only;
//! nothing of it waits for a disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use scsi::vpd::DeviceIdentification;

/// Of direct-access devices (SPC-4 6.6.2).
const DISK_TYPE: &str = "0";
/// Before the name of a map of dm-multipath.
const MULTIPATH: &str = "mpath-";

/// The kernel's tree.
#[derive(Clone, Debug)]
pub struct Sysfs {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Sysfs {
        Sysfs { sys: "/sys".into(), dev: "/dev".into() }
    }
}

/// A SCSI disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiDisk {
    /// The kernel's own path: `/dev/sdX`.
    pub path: PathBuf,
    /// The unit's name, the same over every path to it; `None` if page 83h has none that tells it from others.
    pub unit: Option<String>,
    /// Where the kernel has it: host, channel, target, unit.
    pub address: String,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A SCSI disk.
    Disk(ScsiDisk),
    /// A map of dm-multipath over these paths.
    Multipath(Vec<PathBuf>),
    /// Another device, or a file.
    Other,
}

impl Sysfs {
    /// A tree elsewhere.
    #[cfg(test)]
    fn at(root: &Path) -> Sysfs {
        Sysfs { sys: root.join("sys"), dev: "/dev".into() }
    }

    /// What a path leads to; links are followed.
    pub fn look(&self, path: &Path) -> io::Result<Found> {
        let meta = fs::metadata(path)?;
        let kind = rustix::fs::FileType::from_raw_mode(meta.mode());
        if kind != rustix::fs::FileType::BlockDevice {
            return Ok(Found::Other);
        }
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        Ok(self.device(&self.sys.join(format!("dev/block/{major}:{minor}"))))
    }

    fn device(&self, link: &Path) -> Found {
        let Ok(folder) = fs::canonicalize(link) else { return Found::Other };
        let map = fs::read_to_string(folder.join("dm/uuid")).unwrap_or_default();
        if map.starts_with(MULTIPATH) {
            let mut paths = names(&folder.join("slaves"));
            paths.sort();
            return Found::Multipath(paths.into_iter().map(|name| self.dev.join(name)).collect());
        }
        self.disk(&folder).map_or(Found::Other, Found::Disk)
    }

    fn disk(&self, folder: &Path) -> Option<ScsiDisk> {
        let device = fs::canonicalize(folder.join("device")).ok()?;
        let is_disk = fs::read_to_string(device.join("type")).is_ok_and(|kind| kind.trim() == DISK_TYPE);
        // Only devices of the SCSI layer have it.
        if !is_disk || !device.join("scsi_device").exists() {
            return None;
        }
        let unit = fs::read(device.join("vpd_pg83")).ok().and_then(|page| DeviceIdentification::parse(&page).ok());
        let unit = unit.as_ref().and_then(DeviceIdentification::unit_name).map(ToString::to_string);
        let address = device.file_name()?.to_str()?.to_owned();
        Some(ScsiDisk { path: self.dev.join(folder.file_name()?), unit, address })
    }

    /// Every SCSI disk that leads to the unit of this name, in the order of their addresses.
    pub fn disks_of(&self, unit: &str) -> Vec<ScsiDisk> {
        let folder = self.sys.join("block");
        let all = names(&folder).into_iter().filter_map(|name| match self.device(&folder.join(name)) {
            Found::Disk(disk) => Some(disk),
            _ => None,
        });
        let mut found: Vec<ScsiDisk> = all.filter(|disk| disk.unit.as_deref() == Some(unit)).collect();
        found.sort_by_key(|disk| address_key(&disk.address));
        found
    }

    /// What has a disk exclusively: maps and arrays over it, as far as the kernel names them.
    pub fn holders(&self, disk: &ScsiDisk) -> Vec<String> {
        let name = disk.path.file_name().unwrap_or_default();
        let mut holders: Vec<String> = names(&self.sys.join("block").join(name).join("holders"));
        holders.sort();
        holders
    }
}

/// `2:0:0:10` behind `2:0:0:9`.
fn address_key(address: &str) -> Vec<u64> {
    address.split(':').map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Page 83h of an LIO unit, as Linux shows it: a T10 designator, an NAA, and what is of port and group.
    const PAGE: &[u8] = &[
        0x00, 0x83, 0x00, 0x1c, 0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x5a, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
        0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0x01, 0x14, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01,
    ];
    const UNIT: &str = "naa.6001405a112233445566778899aabbcc";

    fn disk(root: &Path, name: &str, address: &str, page: Option<&[u8]>) {
        let device = root.join("sys/devices/host").join(address);
        fs::create_dir_all(device.join("scsi_device")).expect("a folder");
        fs::write(device.join("type"), "0\n").expect("a file");
        if let Some(page) = page {
            fs::write(device.join("vpd_pg83"), page).expect("a file");
        }
        let block = device.join("block").join(name);
        fs::create_dir_all(block.join("holders")).expect("a folder");
        symlink(&device, block.join("device")).expect("a link");
        fs::create_dir_all(root.join("sys/block")).expect("a folder");
        symlink(&block, root.join("sys/block").join(name)).expect("a link");
    }

    #[test]
    fn every_path_to_a_unit_is_found_by_its_name_in_the_order_of_their_addresses() {
        let root = tempfile::tempdir().expect("a folder");
        disk(root.path(), "sdb", "10:0:0:0", Some(PAGE));
        disk(root.path(), "sdc", "2:0:0:0", Some(PAGE));
        disk(root.path(), "sda", "1:0:0:0", Some(&PAGE[..8]));
        disk(root.path(), "sdd", "1:0:0:1", None);
        let sysfs = Sysfs::at(root.path());
        let found = sysfs.disks_of(UNIT);
        let paths: Vec<&str> = found.iter().filter_map(|d| d.path.to_str()).collect();
        assert_eq!(paths, ["/dev/sdc", "/dev/sdb"]);
        assert_eq!(sysfs.device(&root.path().join("sys/block/sdb")), Found::Disk(found[1].clone()));
        let Found::Disk(nameless) = sysfs.device(&root.path().join("sys/block/sdd")) else { panic!("a disk") };
        assert_eq!((nameless.unit.as_deref(), nameless.address.as_str()), (None, "1:0:0:1"));
        assert!(sysfs.holders(&nameless).is_empty());
    }

    #[test]
    fn partitions_maps_and_disks_that_are_no_scsi_disks_are_told_apart() {
        let root = tempfile::tempdir().expect("a folder");
        let block = root.path().join("sys/block");
        disk(root.path(), "sda", "1:0:0:0", Some(PAGE));
        fs::create_dir_all(block.join("sda/sda1")).expect("a folder");
        fs::write(block.join("sda/sda1/partition"), "1\n").expect("a file");
        fs::create_dir_all(block.join("dm-0/dm")).expect("a folder");
        fs::create_dir_all(block.join("dm-0/slaves/sdb")).expect("a folder");
        fs::create_dir_all(block.join("dm-0/slaves/sda")).expect("a folder");
        fs::write(block.join("dm-0/dm/uuid"), "mpath-36001405a\n").expect("a file");
        fs::create_dir_all(block.join("dm-1/dm")).expect("a folder");
        fs::write(block.join("dm-1/dm/uuid"), "LVM-x\n").expect("a file");
        fs::create_dir_all(block.join("loop0")).expect("a folder");
        let sysfs = Sysfs::at(root.path());
        let found = |name: &str| sysfs.device(&block.join(name));
        assert_eq!(found("dm-0"), Found::Multipath(vec!["/dev/sda".into(), "/dev/sdb".into()]));
        for other in ["sda/sda1", "dm-1", "loop0", "none"] {
            assert_eq!(found(other), Found::Other, "{other}");
        }
    }

    #[test]
    fn a_file_is_no_disk_of_the_kernel() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(Sysfs::default().look(file.path()).expect("it is there"), Found::Other);
        assert!(Sysfs::default().look(Path::new("/nonexistent")).is_err());
    }
}
