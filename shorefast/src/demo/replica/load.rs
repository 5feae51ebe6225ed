//! The load: threads that write slots of the device over NBD, each its own, and read some back to verify them.
//!
//! Acknowledged means that the device answered the write. A write whose answer never came may be there or not; nothing else
//! may. A thread whose connection broke waits until it is told where the device is now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::pattern::{self, BLOCK, Mismatch, Stamp};
use super::nbd::Client;
use super::sites::{DEVICE, NAME};
use crate::exit::Failure;

/// Blocks of a slot.
const SLOT_BLOCKS: u64 = 2;
/// Bytes of a slot.
pub(super) const SLOT: u64 = SLOT_BLOCKS * BLOCK as u64;
/// Slots of the device: all of it is written now and then.
const SLOTS: u64 = DEVICE / SLOT;
/// Threads, each with a connection of its own.
const THREADS: u64 = 4;
/// Between two writes of a thread: a load that leaves the machine to others too.
const PAUSE: Duration = Duration::from_millis(2);
/// One write in so many is read back, or another slot.
const READ_BACK: u64 = 4;

/// A slot as the load knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotState {
    /// The last acknowledged version; 0: none.
    acked: u64,
    /// A newer one whose answer never came.
    in_doubt: Option<u64>,
}

impl SlotState {
    /// Whether a version may be there.
    fn allows(self, version: u64) -> bool {
        version == self.acked || (self.acked..=self.in_doubt.unwrap_or(0)).contains(&version)
    }
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Writes acknowledged and reads verified.
    pub(super) ops: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// Microseconds of each write since this was last taken.
    pub(super) latencies_us: Vec<u64>,
    /// Calls that failed, in words.
    pub(super) failures: Vec<String>,
    /// What was read and is wrong, in words.
    pub(super) wrong: Vec<String>,
    /// The longest time between two acknowledged writes, in milliseconds.
    pub(super) gap_ms: u64,
}

#[derive(Default)]
struct Shared {
    /// Where the device is; none: nowhere now.
    at: Mutex<Option<PathBuf>>,
    /// Raised when it moves.
    moves: AtomicU64,
    stop: AtomicBool,
    /// Threads that have seen that there is no device.
    resting: AtomicUsize,
    tally: Mutex<Tally>,
    slots: Mutex<BTreeMap<u64, SlotState>>,
    /// Slots that were written, or may have been, since this was last emptied.
    written: Mutex<BTreeSet<u64>>,
    last_ack: Mutex<Option<Instant>>,
}

/// The threads; they end when it is dropped.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Begins; nothing is written until it is told where.
    pub(super) fn start() -> Result<Load, Failure> {
        let shared = Arc::<Shared>::default();
        let spawn = |n: u64| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("load {n}")).spawn(move || write(n, &shared))
        };
        let threads = (0..THREADS).map(spawn).collect::<Result<Vec<_>, _>>();
        let failed = |e| Failure::failed(format!("No thread for the load: {e}."), "See the limits of the system.");
        Ok(Load { threads: Mutex::new(threads.map_err(failed)?), shared })
    }

    /// The device is there, or nowhere; then it returns when nothing is written any more.
    pub(super) fn to(&self, at: Option<PathBuf>) {
        let none = at.is_none();
        *self.shared.at.lock() = at;
        self.shared.moves.fetch_add(1, Ordering::SeqCst);
        // A call that hangs ends by its time limit.
        while none && self.shared.resting.load(Ordering::SeqCst) < THREADS as usize {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What was counted since this was last asked for. Operations and bytes go on.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = self.shared.tally.lock();
        let seen = tally.clone();
        tally.latencies_us.clear();
        seen
    }

    /// From now on the longest time without an acknowledged write is counted anew.
    pub(super) fn count_gap(&self) {
        self.shared.tally.lock().gap_ms = 0;
    }

    /// Which slots were written since this was last asked for: bytes.
    pub(super) fn written_bytes(&self) -> u64 {
        self.shared.written.lock().len() as u64 * SLOT
    }

    /// Counts those anew.
    pub(super) fn forget_written(&self) {
        self.shared.written.lock().clear();
    }

    /// Reads every slot that was ever written, from a device that nobody writes: bytes that are right, and what is wrong.
    pub(super) fn verify(&self, client: &mut Client) -> std::io::Result<(u64, Vec<String>)> {
        let slots = self.shared.slots.lock().clone();
        let (mut right, mut wrong, mut buf) = (0, Vec::new(), vec![0; BLOCK * SLOT_BLOCKS as usize]);
        for (slot, state) in slots {
            client.read(slot * SLOT, &mut buf)?;
            match judge(slot, state, &buf) {
                None => right += SLOT,
                Some(what) => wrong.push(what),
            }
        }
        Ok((right, wrong))
    }

    /// Ends the threads.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.lock().drain(..) {
            // One that panicked has counted nothing more: the floors notice.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// What is wrong with what was read from a slot.
fn judge(slot: u64, state: SlotState, bytes: &[u8]) -> Option<String> {
    let mut found = Vec::new();
    for (block, index) in bytes.chunks(BLOCK).zip(slot * SLOT_BLOCKS..) {
        match pattern::check(block) {
            Ok(stamp) if stamp.index == index => found.push(stamp.version),
            Ok(stamp) => return Some(format!("block {index} holds what was written to block {}", stamp.index)),
            Err(Mismatch::Zero) if state.allows(0) => found.push(0),
            Err(what) => return Some(format!("block {index}: {what}")),
        }
    }
    // A write of two blocks is not atomic: each may be of the one in doubt.
    let foreign = found.iter().find(|v| !state.allows(**v))?;
    Some(format!("slot {slot} holds version {foreign}, not {} or {:?}", state.acked, state.in_doubt))
}

/// One thread.
fn write(me: u64, shared: &Shared) {
    let (mut client, mut moves, mut resting) = (None::<Client>, u64::MAX, false);
    let (mut seed, mut round) = (me.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0_u64);
    let mut buf = vec![0; BLOCK * SLOT_BLOCKS as usize];
    while !shared.stop.load(Ordering::SeqCst) {
        let now = shared.moves.load(Ordering::SeqCst);
        if now != moves {
            (client, moves) = (None, now);
        }
        let at = shared.at.lock().clone();
        let rests = at.is_none();
        if rests != resting {
            resting = rests;
            match rests {
                true => shared.resting.fetch_add(1, Ordering::SeqCst),
                false => shared.resting.fetch_sub(1, Ordering::SeqCst),
            };
        }
        if client.is_none() {
            client = at.and_then(|at| Client::connect(&at, NAME).ok());
        }
        let Some(connected) = &mut client else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        round += 1;
        let slot = (seed >> 8) % (SLOTS / THREADS) * THREADS + me;
        let reads = round.is_multiple_of(READ_BACK);
        let done =
            if reads { read_back(shared, connected, slot, &mut buf) } else { put(shared, connected, slot, &mut buf) };
        if let Err(e) = done {
            let what = if reads { "read" } else { "write" };
            shared.tally.lock().failures.push(format!("{what}: {e}"));
            client = None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Writes a slot's next version.
fn put(shared: &Shared, client: &mut Client, slot: u64, buf: &mut [u8]) -> std::io::Result<()> {
    let old = shared.slots.lock().get(&slot).copied().unwrap_or_default();
    let version = old.acked.max(old.in_doubt.unwrap_or(0)) + 1;
    for (block, index) in buf.chunks_mut(BLOCK).zip(slot * SLOT_BLOCKS..) {
        pattern::fill(block, Stamp { node: 1, file: 0, index, version });
    }
    shared.written.lock().insert(slot);
    let since = Instant::now();
    let done = client.write(slot * SLOT, buf);
    let state = match done {
        Ok(()) => SlotState { acked: version, in_doubt: None },
        // An older one in doubt is in doubt no more only when a newer one was acknowledged.
        Err(_) => SlotState { acked: old.acked, in_doubt: Some(version) },
    };
    shared.slots.lock().insert(slot, state);
    done?;
    let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let gap = shared.last_ack.lock().replace(Instant::now()).map_or(0, |at| at.elapsed().as_millis());
    let mut tally = shared.tally.lock();
    tally.latencies_us.push(took);
    tally.gap_ms = tally.gap_ms.max(u64::try_from(gap).unwrap_or(u64::MAX));
    tally.ops += 1;
    tally.bytes += SLOT;
    Ok(())
}

/// Reads a slot of this thread's own and verifies it.
fn read_back(shared: &Shared, client: &mut Client, slot: u64, buf: &mut [u8]) -> std::io::Result<()> {
    let state = shared.slots.lock().get(&slot).copied().unwrap_or_default();
    client.read(slot * SLOT, buf)?;
    let mut tally = shared.tally.lock();
    match judge(slot, state, buf) {
        None => {
            tally.ops += 1;
            tally.bytes += SLOT;
        }
        Some(what) => tally.wrong.push(what),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(slot: u64, versions: [u64; 2]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK * 2];
        for ((block, index), version) in bytes.chunks_mut(BLOCK).zip(slot * SLOT_BLOCKS..).zip(versions) {
            pattern::fill(block, Stamp { node: 1, file: 0, index, version });
        }
        bytes
    }

    #[test]
    fn a_slot_holds_what_was_acknowledged_or_what_is_in_doubt_and_nothing_else() {
        let state = SlotState { acked: 3, in_doubt: Some(4) };
        for versions in [[3, 3], [4, 4], [4, 3]] {
            assert_eq!(judge(7, state, &slot(7, versions)), None);
        }
        for (bytes, what) in [
            (slot(7, [2, 2]), "version 2"),
            (slot(8, [3, 3]), "was written to block 16"),
            (vec![0; 2 * BLOCK], "zeroes"),
            (slot(7, [3, 5]), "version 5"),
        ] {
            assert!(judge(7, state, &bytes).is_some_and(|w| w.contains(what)), "{what}");
        }
        assert_eq!(judge(7, SlotState::default(), &vec![0; 2 * BLOCK]), None, "never written");
        let first = SlotState { acked: 0, in_doubt: Some(2) };
        let mut half = slot(7, [2, 1]);
        assert_eq!(judge(7, first, &half), None, "two in doubt, one after the other");
        half[..BLOCK].fill(0);
        assert_eq!(judge(7, first, &half), None, "half of the first");
    }
}
