//! What lies on a disk outside the metadata store, in words: for a support bundle. Pure: whoever calls reads.
//!
//! It judges nothing and refuses nothing: a structure that cannot be decoded is shown as bytes, and one that cannot be
//! read with the reason.

use std::fmt::Write as _;

use block::shared::NodeId;
use block::units::ByteOffset;

use super::{CAW_BYTES, CELL, LEASE, LeaseBlock, SLOT_COUNT, SLOTS, SUPERBLOCKS, Slot, Superblock, choose, slot_at};
use crate::types::VolumeId;

/// Reads so many bytes from there on; a sentence if it cannot.
pub type ReadAt<'a> = dyn FnMut(ByteOffset, usize) -> Result<Vec<u8>, String> + 'a;

/// Superblocks, lease and slots.
pub fn describe(read: &mut ReadAt<'_>) -> String {
    let mut text = String::new();
    let cell = CELL as usize;
    let copies = SUPERBLOCKS.map(|at| read(at, cell));
    for (at, copy) in SUPERBLOCKS.iter().zip(&copies) {
        superblock(&mut text, *at, copy);
    }
    let [a, b, c] = &copies;
    let bytes = |copy: &Result<Vec<u8>, String>| copy.as_ref().ok().cloned();
    let (a, b, c) = (bytes(a), bytes(b), bytes(c));
    let volume = match choose([a.as_deref(), b.as_deref(), c.as_deref()]) {
        Ok(chosen) => {
            for remark in chosen.remarks() {
                line(&mut text, &remark);
            }
            chosen.superblock.volume
        }
        Err(e) => {
            line(&mut text, &format!("no superblock can be used: {e}"));
            // Lease and slots are shown as bytes.
            VolumeId(0)
        }
    };
    match read(LEASE, cell) {
        Ok(bytes) => lease(&mut text, &bytes, volume),
        Err(e) => line(&mut text, &format!("lease block at {}: cannot be read: {e}", LEASE.0)),
    }
    match read(SLOTS, cell * usize::from(SLOT_COUNT)) {
        Ok(bytes) => slots(&mut text, &bytes, volume),
        Err(e) => line(&mut text, &format!("slots at {}: cannot be read: {e}", SLOTS.0)),
    }
    text
}

fn superblock(text: &mut String, at: ByteOffset, copy: &Result<Vec<u8>, String>) {
    match copy.as_ref().map(|bytes| (bytes, Superblock::decode(bytes))) {
        Err(e) => line(text, &format!("superblock at {}: cannot be read: {e}", at.0)),
        Ok((bytes, Err(e))) => {
            line(text, &format!("superblock at {}: {e}", at.0));
            hex(text, bytes);
        }
        Ok((_, Ok(s))) => {
            let (f, t) = (s.features, s.timing);
            let _ = writeln!(
                text,
                "superblock at {}: generation {}, volume {} \"{}\", {} bytes, blocks of {}, {} nodes, made at {}, features \
                 compat {:#x} ro {:#x} incompat {:#x}\n  timing in ms: renew {}, suspend after {}, challenge after {}, path \
                 timeout {}, recall {}, grace {}\n  metadata: {} bytes in ranges {:?}, reserved {:?}",
                at.0,
                s.generation,
                s.volume,
                s.name,
                s.volume_len,
                s.logical_block.get(),
                s.nodes,
                s.created_secs,
                f.compat,
                f.ro_compat,
                f.incompat,
                t.renew,
                t.suspend_after,
                t.challenge_after,
                t.path_timeout,
                t.recall,
                t.grace,
                s.meta_len,
                s.ranges,
                s.next
            );
        }
    }
}

fn lease(text: &mut String, bytes: &[u8], volume: VolumeId) {
    match LeaseBlock::decode(bytes, volume) {
        Ok(l) => {
            let holder =
                l.node.map_or_else(|| "nobody yet".to_owned(), |n| format!("{n}, incarnation {}", l.incarnation.0));
            let resigned = l.resigned.map_or_else(String::new, |r| {
                let to = r.in_favour.map_or_else(|| "nobody".to_owned(), |n| n.to_string());
                format!(", resigned in favour of {to}")
            });
            line(
                text,
                &format!(
                    "lease block: epoch {}, {holder}{resigned}, counter {}, nonce {:016x}",
                    l.epoch.0, l.counter, l.nonce
                ),
            );
        }
        Err(e) => {
            line(text, &format!("lease block: {e}"));
            hex(text, bytes);
        }
    }
}

fn slots(text: &mut String, bytes: &[u8], volume: VolumeId) {
    let cells = (1..=SLOT_COUNT).filter_map(NodeId::new).zip(bytes.chunks_exact(CELL as usize));
    for (node, cell) in cells {
        match Slot::decode(cell, volume, node) {
            Ok(slot) if slot.incarnation.0 == 0 => {}
            Ok(slot) => self::slot(text, &slot),
            Err(e) => {
                line(text, &format!("slot of {node} at {}: {e}", slot_at(node).0));
                hex(text, cell);
            }
        }
    }
}

fn slot(text: &mut String, s: &Slot) {
    let heard: Vec<String> =
        (1..=SLOT_COUNT).filter_map(NodeId::new).filter(|n| s.hears(*n)).map(|n| n.get().to_string()).collect();
    let mark = s.mark.map_or_else(String::new, |m| {
        format!(", marked by {} for incarnation {} under generation {}", m.by, m.incarnation.0, m.fence_gen.0)
    });
    let _ = writeln!(
        text,
        "slot of {}: incarnation {}, fence generation {}, answered {}, counter {}, nonce {:016x}, process {} started at \
         {}, boot {:032x}, hears [{}]{mark}",
        s.node,
        s.incarnation.0,
        s.fence_gen.0,
        s.answer.0,
        s.counter,
        s.nonce,
        s.pid,
        s.pid_start,
        u128::from_be_bytes(s.boot_id),
        heard.join(" ")
    );
}

fn line(text: &mut String, said: &str) {
    text.push_str(said);
    text.push('\n');
}

/// The part of a cell that changes by compare-and-write; rows of zeroes are left out.
fn hex(text: &mut String, bytes: &[u8]) {
    for (n, row) in bytes.iter().take(CAW_BYTES).copied().collect::<Vec<u8>>().chunks(32).enumerate() {
        if row.iter().any(|b| *b != 0) {
            let digits: String = row.iter().map(|b| format!("{b:02x}")).collect();
            let _ = writeln!(text, "  {:4} {digits}", n * 32);
        }
    }
}

#[cfg(test)]
mod tests {
    use block::shared::{Epoch, FenceGen, Incarnation};

    use super::*;
    use crate::format::tests::geometry;
    use crate::format::{TimingMs, VolumeName};

    fn image() -> (Vec<u8>, VolumeId) {
        let volume = VolumeId(0x5f0e);
        let geometry = geometry(1 << 30);
        let name = VolumeName::new("vm1").expect("a name");
        let superblock = Superblock::new(&geometry, volume, name, 3, TimingMs::FAST, 7).expect("fits");
        let mut image = vec![0; SLOTS.0 as usize + (CELL as usize) * usize::from(SLOT_COUNT)];
        let mut put = |at: u64, bytes: &[u8]| image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        put(SUPERBLOCKS[0].0, &superblock.encode());
        let node = NodeId::new(2).expect("a node");
        let lease = LeaseBlock { epoch: Epoch(9), node: Some(node), ..LeaseBlock::empty() };
        put(LEASE.0, &lease.encode(volume).expect("fits"));
        for n in (1..=SLOT_COUNT).filter_map(NodeId::new) {
            let used = n == node;
            let slot = Slot {
                incarnation: Incarnation(u64::from(used) * 4),
                fence_gen: FenceGen(6),
                peers_heard: 0b101,
                ..Slot::empty(n)
            };
            put(slot_at(n).0, &slot.encode(volume));
        }
        (image, volume)
    }

    fn of(image: &[u8]) -> String {
        describe(&mut |at, len| {
            let at = at.0 as usize;
            image.get(at..at + len).map(<[u8]>::to_vec).ok_or_else(|| "beyond the end".to_owned())
        })
    }

    #[test]
    fn what_lies_there_is_told_and_what_cannot_be_read_with_the_reason() {
        let (image, volume) = image();
        let text = of(&image);
        assert!(text.contains(&format!("superblock at 0: generation 1, volume {volume} \"vm1\"")), "{text}");
        assert!(text.contains("superblock at 536870912: cannot be read: beyond the end"), "{text}");
        assert!(text.contains("lease block: epoch 9, node 2"), "{text}");
        assert!(
            text.contains("slot of node 2: incarnation 4, fence generation 6") && text.contains("hears [1 3]"),
            "{text}"
        );
        assert_eq!(text.matches("slot of ").count(), 1, "slots that were never used are not told");
    }

    #[test]
    fn damage_is_shown_as_bytes_and_nothing_at_all_does_no_harm() {
        let (mut image, _) = image();
        image[LEASE.0 as usize + 40] ^= 0xff;
        let text = of(&image);
        assert!(text.contains("lease block: the lease block is damaged") && text.contains("     0 "), "{text}");
        assert!(describe(&mut |_, _| Err("gone".into())).contains("no superblock can be used"));
        assert!(of(&vec![0xff; 1 << 20]).contains("slot of node 64"));
    }
}
