//! A file is a shared disk among the processes of one host only: its locks and the proof that a dead process writes no
//! more are the kernel's. So a volume on a file that another host uses is refused.
//!
//! A slot carries the boot id of its node's host. One with another boot id is either left from before this host was
//! started again, and stands still, or belongs to a node of another host, and its counter goes on: it is watched for as
//! long as a living node needs to renew it three times. The host that was there first is not disturbed.

use std::collections::BTreeMap;
use std::time::Duration;

use block::device::DeviceExt;
use block::error::IoError;
use block::shared::{NodeId, SharedDisk};
use block::units::ByteLen;

use crate::format::{CELL, SLOT_COUNT, SLOTS, Slot};
use crate::types::VolumeId;

/// Periods in which a living node certainly renews its slot.
const PERIODS: u32 = 3;

/// Why a file cannot be this node's shared disk.
#[derive(Debug, thiserror::Error)]
pub enum NotOneHost {
    /// Somebody else's.
    #[error(
        "{0} uses it from another host: a file is a shared disk among nodes of one host only (across hosts it lacks COMPARE AND WRITE and fencing)"
    )]
    OtherHost(NodeId),
    /// The slots cannot be read.
    #[error("its slots cannot be read: {0}")]
    Io(#[from] IoError),
}

/// Fails if a node of another boot than `boot` renews its slot.
///
/// # Cancel safety
/// Safe: it only reads.
pub(super) async fn only_this_host(
    disk: &SharedDisk,
    volume: VolumeId,
    boot: u128,
    renew: Duration,
) -> Result<(), NotOneHost> {
    let first = foreign(disk, volume, boot).await?;
    if first.is_empty() {
        return Ok(());
    }
    for _ in 0..PERIODS {
        tokio::time::sleep(renew).await;
        let now = foreign(disk, volume, boot).await?;
        if let Some((node, _)) = now.iter().find(|(node, counter)| first.get(node).is_some_and(|c| c != *counter)) {
            return Err(NotOneHost::OtherHost(*node));
        }
    }
    Ok(())
}

/// Counters of slots that were last changed under another boot. A slot that cannot be decoded is the office's matter.
async fn foreign(disk: &SharedDisk, volume: VolumeId, boot: u128) -> Result<BTreeMap<NodeId, u64>, IoError> {
    let cell = CELL as usize;
    let all = disk.data.read(SLOTS, cell * usize::from(SLOT_COUNT)).await?;
    debug_assert_eq!(ByteLen::from_usize(all.len()).0, CELL * u64::from(SLOT_COUNT), "a read is whole");
    let slots = (1..=SLOT_COUNT).filter_map(NodeId::new).zip(all.chunks_exact(cell));
    let decoded = slots.filter_map(|(node, bytes)| Some((node, Slot::decode(bytes, volume, node).ok()?)));
    let others = decoded.filter(|(_, slot)| slot.incarnation.0 > 0 && u128::from_be_bytes(slot.boot_id) != boot);
    Ok(others.map(|(node, slot)| (node, slot.counter)).collect())
}

#[cfg(test)]
mod tests {
    use block::Workers;
    use block::file::OpenOptions;
    use block::shared::Incarnation;
    use block::units::ByteOffset;

    use super::*;
    use crate::format::slot_at;

    const VOLUME: VolumeId = VolumeId(0x5f0e);
    const HERE: u128 = 1;
    const ELSEWHERE: u128 = 2;

    struct Disk {
        shared: SharedDisk,
        workers: Option<Workers>,
        _file: tempfile::NamedTempFile,
    }

    impl Disk {
        fn new() -> Disk {
            let file = tempfile::NamedTempFile::new().expect("a file");
            file.as_file().set_len(1 << 20).expect("a sparse file");
            let workers = Workers::start(1, "one-host").expect("a worker");
            let shared = SharedDisk::open_file(file.path(), OpenOptions::default(), workers.handle(), false);
            Disk { shared: shared.expect("opens"), workers: Some(workers), _file: file }
        }

        async fn put(&self, n: u8, boot: u128, counter: u64) {
            let node = NodeId::new(n).expect("a node id");
            let slot = Slot { incarnation: Incarnation(1), boot_id: boot.to_be_bytes(), counter, ..Slot::empty(node) };
            let mut cell = block::buf::AlignedBuf::zeroed(CELL as usize);
            let bytes = slot.encode(VOLUME);
            cell[..bytes.len()].copy_from_slice(&bytes);
            let at: ByteOffset = slot_at(node);
            self.shared.data.write(at, cell).await.0.expect("writes");
        }

        async fn judged(&self) -> Result<(), NotOneHost> {
            only_this_host(&self.shared, VOLUME, HERE, Duration::from_millis(20)).await
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            if let Some(workers) = self.workers.take() {
                workers.shutdown().expect("workers end");
            }
        }
    }

    #[tokio::test]
    async fn slots_of_this_boot_and_those_that_stand_still_do_no_harm() {
        let disk = Disk::new();
        disk.put(1, HERE, 5).await;
        disk.put(2, ELSEWHERE, 9).await;
        disk.judged().await.expect("nobody else uses it");
    }

    #[tokio::test]
    async fn a_slot_that_another_host_renews_is_refused_by_name() {
        let disk = Disk::new();
        disk.put(3, ELSEWHERE, 1).await;
        let renewing = async {
            for counter in 2.. {
                disk.put(3, ELSEWHERE, counter).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let judged = tokio::select! {
            judged = disk.judged() => judged,
            () = renewing => Ok(()),
        };
        let refused = judged.expect_err("another host is there").to_string();
        assert!(refused.contains("node 3") && refused.contains("another host"), "{refused}");
    }
}
