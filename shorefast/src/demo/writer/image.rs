//! The writer's part in the shared image: in-place writes of its own slots, reads of everybody's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use block::buf::AlignedBuf;

use super::{IMAGE, SLOT_BLOCKS, SlotState, Tally, WriterArgs};
use crate::demo::pattern::{self, BLOCK, Stamp};

const WHO: &str = "image";
const SLOT_BYTES: usize = SLOT_BLOCKS as usize * BLOCK;

/// Writes until told to stop; returns what was acknowledged.
pub(super) fn run(args: &WriterArgs, tally: &Tally) -> Vec<SlotState> {
    let mut image = Image {
        args,
        tally,
        mine: (0..args.slots)
            .filter(|i| i % u64::from(args.nodes) == u64::from(args.node - 1))
            .map(|slot| SlotState { slot, acked: 0, in_doubt: None })
            .collect(),
        buf: AlignedBuf::zeroed(SLOT_BYTES),
        turn: 0,
    };
    while !tally.stopped() {
        if image.open_and_work().is_err() {
            tally.rest(); // counted; a restarted node is tried again
        }
    }
    image.mine
}

struct Image<'a> {
    args: &'a WriterArgs,
    tally: &'a Tally,
    mine: Vec<SlotState>,
    buf: AlignedBuf,
    turn: u64,
}

impl Image<'_> {
    /// Works on one open file until a call fails or the writer stops.
    fn open_and_work(&mut self) -> io::Result<()> {
        let path = self.args.mount.join(IMAGE);
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = self
            .tally
            .call(WHO, "open", || OpenOptions::new().read(true).write(true).custom_flags(direct).open(&path))?;
        while !self.tally.stopped() {
            self.turn += 1;
            // A fixed, odd stride visits all own slots in an order that is not sequential.
            let own = usize::try_from(self.turn.wrapping_mul(7919) % self.mine.len() as u64).unwrap_or(0);
            self.write(&file, own)?;
            self.read(&file, self.mine[own].slot)?;
            self.read(&file, self.turn.wrapping_mul(104_729) % self.args.slots)?;
        }
        Ok(())
    }

    fn write(&mut self, file: &File, own: usize) -> io::Result<()> {
        let SlotState { slot, acked, in_doubt } = self.mine[own];
        let version = acked.max(in_doubt.unwrap_or(0)) + 1;
        for (i, block) in self.buf.chunks_exact_mut(BLOCK).enumerate() {
            pattern::fill(
                block,
                Stamp { node: self.args.node, file: 0, index: slot * SLOT_BLOCKS + i as u64, version },
            );
        }
        let buf = &self.buf;
        self.mine[own].in_doubt = Some(version);
        self.tally.call(WHO, "pwrite", || file.write_all_at(buf, slot * SLOT_BYTES as u64))?;
        self.mine[own] = SlotState { slot, acked: version, in_doubt: None };
        self.tally.verified(SLOT_BYTES);
        Ok(())
    }

    /// Reads a slot: one's own must be exactly what was acknowledged, another's must be whole.
    fn read(&mut self, file: &File, slot: u64) -> io::Result<()> {
        let buf = &mut self.buf;
        self.tally.call(WHO, "pread", || file.read_exact_at(buf, slot * SLOT_BYTES as u64))?;
        let own = self.mine.iter().find(|s| s.slot == slot);
        for (i, block) in self.buf.chunks_exact(BLOCK).enumerate() {
            if let Err(why) = check_block(block, slot, i as u64, own) {
                self.tally.mismatch(format!("{IMAGE} slot {slot}: {why}"));
                return Ok(());
            }
        }
        self.tally.verified(SLOT_BYTES);
        Ok(())
    }
}

/// Checks one block of a slot against what its owner knows (`own`), or for being whole.
pub(crate) fn check_block(block: &[u8], slot: u64, i: u64, own: Option<&SlotState>) -> Result<(), String> {
    let stamp = pattern::check(block).map_err(|m| m.to_string())?;
    let index = slot * SLOT_BLOCKS + i;
    if stamp.index != index || stamp.file != 0 {
        return Err(format!("block {index} holds block {} of file {}", stamp.index, stamp.file));
    }
    match own {
        Some(s) if stamp.version != s.acked && Some(stamp.version) != s.in_doubt => {
            Err(format!("block {index} has version {}, acknowledged was {}", stamp.version, s.acked))
        }
        _ => Ok(()),
    }
}
