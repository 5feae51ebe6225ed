//! Power fails at any moment: everything that two nodes and their coordinator wrote, data and metadata, is in one log with its
//! flushes. After any part of it, with any of the unflushed sectors lost, the store opens, is in order, shows every name
//! that was acknowledged, and in each file what an fsync covered, or something that was written there since; never what
//! the blocks held before.
//!
//! `SHOREFAST_PREFIXES=N`: so many prefixes, each with four choices of what survived.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::AlignedBuf;
use block::device::{BlockDevice, Op};
use block::mem::MemDevice;
use block::recording::{Entry, Log, Survivors};
use block::sync::{Memory, run_batch};
use block::units::{ByteLen, ByteOffset};

use super::rig::*;
use crate::client::data::OpenFile;
use crate::core::rules::Rule;
use crate::meta::Reads;
use crate::proto::rename_flags::EXCHANGE;
use crate::proto::{Request, SetAttr};
use crate::types::*;

/// Blocks of the volume that the workload has; all of them held the bytes of a file that was removed.
const LEFT: u64 = 400;
/// Those bytes.
const STALE: u8 = 0xee;

/// A file as it may be found: what the last fsync covered, and every state since.
type States = Vec<Vec<u8>>;

/// What there is after a crash: inode and contents by name.
type Found = BTreeMap<Vec<u8>, (InodeNo, Vec<u8>)>;

/// What was acknowledged: names, and what their files may hold.
#[derive(Clone, Default)]
struct Known {
    names: BTreeMap<Vec<u8>, InodeNo>,
    files: BTreeMap<InodeNo, States>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn place(&mut self, max: u64) -> u64 {
        let at = self.below(max);
        match self.below(3) {
            0 => at / 4096 * 4096,
            1 => at / 512 * 512,
            _ => at,
        }
    }
}

/// The nodes, and what they were told.
struct Workload {
    nodes: Vec<Node>,
    open: BTreeMap<InodeNo, Vec<Arc<OpenFile>>>,
    known: Known,
    random: Random,
    step: u64,
}

impl Workload {
    fn pick(&mut self) -> Option<InodeNo> {
        let all: Vec<InodeNo> = self.known.names.values().copied().collect();
        (!all.is_empty()).then(|| all[self.random.below(all.len() as u64) as usize])
    }

    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.random.below(8)).into_bytes()
    }

    fn newest(&self, ino: InodeNo) -> Vec<u8> {
        self.known.files[&ino].last().cloned().unwrap_or_default()
    }

    /// One operation, acknowledged when it returns.
    async fn step(&mut self) {
        self.step += 1;
        let n = self.random.below(2) as usize;
        match self.random.below(100) {
            0..14 => self.create(n).await,
            14..44 => self.write(n).await,
            44..54 => self.append(n).await,
            54..70 => self.fsync(n).await,
            70..80 => self.rename(n).await,
            80..90 => self.cut(n).await,
            90..95 => self.punch(n).await,
            _ => self.unlink(n).await,
        }
    }

    async fn create(&mut self, n: usize) {
        let name = self.name();
        if self.known.names.contains_key(&name) {
            return;
        }
        let file = self.nodes[n].create(std::str::from_utf8(&name).expect("plain")).await;
        let ino = file.ino();
        let other = self.nodes[1 - n].open(ino).await;
        let both = if n == 0 { vec![file, other] } else { vec![other, file] };
        self.open.insert(ino, both);
        self.known.names.insert(name, ino);
        self.known.files.insert(ino, vec![Vec::new()]);
    }

    fn bytes(&self, len: u64) -> Vec<u8> {
        (0..len).map(|i| ((self.step * 37 + i * 11 + (i >> 9)) as u8 % 200) + 1).collect()
    }

    fn wrote(&mut self, ino: InodeNo, at: u64, bytes: &[u8]) {
        let mut data = self.newest(ino);
        data.resize(data.len().max(at as usize + bytes.len()), 0);
        data[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        self.known.files.get_mut(&ino).expect("known").push(data);
    }

    async fn write(&mut self, n: usize) {
        let Some(ino) = self.pick() else { return };
        let (at, len) = (self.random.place(60_000), self.random.place(20_000).max(1));
        let (file, bytes) = (Arc::clone(&self.open[&ino][n]), self.bytes(len));
        self.nodes[n].write(&file, at, &bytes).await;
        self.wrote(ino, at, &bytes);
    }

    async fn append(&mut self, n: usize) {
        let Some(ino) = self.pick() else { return };
        let len = self.random.place(9000).max(1);
        let (node, bytes) = (&self.nodes[n], self.bytes(len));
        let file = node.open_to_append(ino).await;
        node.write(&file, 0, &bytes).await;
        let at = self.newest(ino).len() as u64;
        self.wrote(ino, at, &bytes);
        let node = &self.nodes[n];
        node.soon(node.path.close(file.handle)).await.expect("closes");
    }

    /// By both nodes: then nothing of it is unsynced.
    async fn fsync(&mut self, n: usize) {
        let Some(ino) = self.pick() else { return };
        for n in [n, 1 - n] {
            let file = Arc::clone(&self.open[&ino][n]);
            self.nodes[n].fsync(&file).await;
        }
        let newest = self.newest(ino);
        self.known.files.insert(ino, vec![newest]);
    }

    async fn rename(&mut self, n: usize) {
        let (name, new_name) = (self.name(), self.name());
        let (Some(ino), target) = (self.known.names.get(&name).copied(), self.known.names.get(&new_name).copied())
        else {
            return;
        };
        if name == new_name {
            return;
        }
        let flags = if target.is_some() && self.random.below(2) == 0 { EXCHANGE } else { 0 };
        let (parent, new_parent) = (InodeNo::ROOT, InodeNo::ROOT);
        let request = Request::Rename { parent, name: name.clone(), new_parent, new_name: new_name.clone(), flags };
        self.nodes[n].call(request).await;
        self.known.names.insert(new_name, ino);
        match target.filter(|_| flags == EXCHANGE) {
            Some(other) => drop(self.known.names.insert(name, other)),
            None => drop(self.known.names.remove(&name)),
        }
    }

    /// Durable when it returns, for what is not synced too: whatever is found is as long, and zero behind the cut.
    async fn cut(&mut self, n: usize) {
        let Some(ino) = self.pick() else { return };
        let size = self.random.place(60_000);
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let patient = crate::client::session::Caller::patient();
        let node = &self.nodes[n];
        node.soon(node.path.set_attr(ino, set, &patient)).await.expect("cut");
        self.known.files.get_mut(&ino).expect("known").iter_mut().for_each(|s| s.resize(size as usize, 0));
    }

    async fn punch(&mut self, n: usize) {
        let Some(ino) = self.pick() else { return };
        let (at, len) = (self.random.below(12) * 4096, 4096 * (1 + self.random.below(5)));
        self.nodes[n].punch(ino, at, len).await;
        for state in self.known.files.get_mut(&ino).expect("known") {
            let (from, to) = (state.len().min(at as usize), state.len().min((at + len) as usize));
            state[from..to].fill(0);
        }
    }

    async fn unlink(&mut self, n: usize) {
        let name = self.name();
        let Some(ino) = self.known.names.get(&name).copied() else { return };
        self.nodes[n].call(Request::Unlink { parent: InodeNo::ROOT, name: name.clone() }).await;
        self.known.names.remove(&name);
        for (node, file) in self.nodes.iter().zip(self.open.remove(&ino).expect("open")) {
            // Its space is for others from here on.
            let _ = node.soon(node.path.close(file.handle)).await;
        }
    }
}

/// A volume whose free blocks hold what somebody has removed.
async fn with_stale_blocks(node: &Node) {
    let patient = crate::client::session::Caller::patient();
    let space = node.soon(node.path.statfs(&patient)).await.expect("statfs");
    let hog = node.create("hog").await;
    node.fallocate(hog.ino(), 0, (space.free - LEFT) * FS_BLOCK).await;
    let stale = node.create("stale").await;
    for at in (0..LEFT * FS_BLOCK).step_by(1 << 20) {
        let len = (1 << 20).min(LEFT * FS_BLOCK - at);
        node.write(&stale, at, &vec![STALE; len as usize]).await;
    }
    node.fsync(&stale).await;
    node.call(Request::Unlink { parent: InodeNo::ROOT, name: b"stale".to_vec() }).await;
    node.path.close(stale.handle).await.expect("closes");
    for _ in 0..3000 {
        if node.path.statfs(&patient).await.expect("statfs").free == LEFT {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the space of what was removed does not come back");
}

/// Runs so many operations; the log, the disk before it, and what was known after each. Mark 1 is after the preparations.
async fn recorded(steps: u64, seed: u64, lacking: Lacking) -> (Log, MemDevice, Vec<Known>) {
    let (mut cluster, recorder, start) = Cluster::recorded(lacking).await;
    let nodes = vec![cluster.node(1), cluster.node(2)];
    with_stale_blocks(&nodes[0]).await;
    let mut work = Workload { nodes, open: BTreeMap::new(), known: Known::default(), random: Random(seed), step: 0 };
    let mut known = vec![Known::default()];
    recorder.mark(1);
    for n in 0..steps {
        work.step().await;
        known.push(work.known.clone());
        recorder.mark(2 + n);
    }
    cluster.kill_coordinator().await;
    (recorder.log(), start, known)
}

/// Names and contents as the store of an image has them.
async fn found(image: MemDevice) -> Result<Found, String> {
    let device = Arc::new(image) as Arc<dyn BlockDevice>;
    let disk = Arc::clone(&device);
    sound(device, move |view| {
        let fail = |e: crate::meta::MetaError| e.to_string();
        let mut files = BTreeMap::new();
        let listing = view.readdir(InodeNo::ROOT, 2, 1 << 20, false).map_err(fail)?;
        for entry in listing.entries.into_iter().filter(|e| e.name != b"hog") {
            let attr = view.getattr(entry.ino).map_err(fail)?;
            let mut data = vec![0; attr.size.next_multiple_of(FS_BLOCK) as usize];
            for e in view.extents(entry.ino, BlockRange::ALL).map_err(fail)? {
                let (from, len) = ((e.file.0 * FS_BLOCK) as usize, (e.len.0 * FS_BLOCK) as usize);
                if e.state == ExtentState::Written && from < data.len() {
                    let bytes = read(&disk, e.disk, len)?;
                    let n = len.min(data.len() - from);
                    data[from..from + n].copy_from_slice(&bytes[..n]);
                }
            }
            data.truncate(attr.size as usize);
            files.insert(entry.name, (entry.ino, data));
        }
        Ok(files)
    })
    .await
}

fn read(disk: &Arc<dyn BlockDevice>, at: DiskBlock, len: usize) -> Result<AlignedBuf, String> {
    let one = vec![(Op::Read, ByteOffset(at.0 * FS_BLOCK), Memory::from(ByteLen(len as u64)))];
    let done = run_batch(&**disk, one).pop().ok_or("no answer")?;
    done.result.map_err(|e| e.to_string())?;
    done.buf.ok_or_else(|| "no bytes".into())
}

/// Whether a file is what one of its states was, byte by byte.
fn may_be(states: &[&Vec<u8>], data: &[u8]) -> Result<(), String> {
    if !states.iter().any(|s| s.len() == data.len()) {
        let lengths: Vec<usize> = states.iter().map(|s| s.len()).collect();
        return Err(format!("{} bytes long, not one of {lengths:?}", data.len()));
    }
    let was = |i: usize, b: u8| states.iter().any(|s| s.get(i).copied().unwrap_or(0) == b);
    match data.iter().enumerate().find(|(i, b)| !was(*i, **b)) {
        None => Ok(()),
        Some((i, b)) => {
            let stale = if *b == STALE { ", the bytes of a removed file" } else { "" };
            Err(format!("byte {i} is {b:#x}{stale}; it was {:x?}", states.iter().map(|s| s.get(i)).collect::<Vec<_>>()))
        }
    }
}

/// What was acknowledged is there; what was being done when power failed may be.
fn agrees(found: &Found, before: &Known, after: &Known) -> Result<(), String> {
    let names: BTreeMap<Vec<u8>, InodeNo> = found.iter().map(|(name, (ino, _))| (name.clone(), *ino)).collect();
    if names != before.names && names != after.names {
        return Err(format!("names {names:?}, not {:?} nor {:?}", before.names, after.names));
    }
    for (name, (ino, data)) in found {
        let states: Vec<&Vec<u8>> = [before, after].into_iter().filter_map(|k| k.files.get(ino)).flatten().collect();
        may_be(&states, data).map_err(|e| format!("{} (ino {ino}): {e}", String::from_utf8_lossy(name)))?;
    }
    Ok(())
}

/// A recorded workload, and moments of it.
struct Recorded {
    log: Log,
    start: MemDevice,
    known: Vec<Known>,
    seed: u64,
    random: Random,
}

impl Recorded {
    async fn new(steps: u64, seed: u64, lacking: Lacking) -> Recorded {
        let (log, start, known) = recorded(steps, seed, lacking).await;
        Recorded { log, start, known, seed, random: Random(seed ^ 0x5eed) }
    }

    /// `count` moments, evenly spread and anywhere in between: the prefix, and the number of the last step before it.
    fn moments(&mut self, count: usize) -> Vec<(usize, usize)> {
        let mark = |e: &Entry| if let Entry::Mark(n) = e { Some(*n as usize) } else { None };
        let entries = self.log.entries();
        let first = entries.iter().position(|e| mark(e) == Some(1)).expect("a mark") + 1;
        let all = entries.len() - first;
        let anywhere = (all / count).max(1) as u64;
        let moment = |n: usize| {
            let prefix = first + (all * n / count + self.random.below(anywhere) as usize).min(all);
            let last = entries[..prefix].iter().rev().find_map(mark).expect("the first mark");
            (prefix, last - 1)
        };
        (0..count).map(moment).collect()
    }

    fn agrees(&self, found: &Found, step: usize) -> Result<(), String> {
        agrees(found, &self.known[step], self.known.get(step + 1).unwrap_or(&self.known[step]))
    }
}

/// Looks at `count` prefixes of a workload, each with four choices of what had reached the disk; how many images that were.
async fn crashes(steps: u64, seed: u64, count: usize, lacking: Lacking) -> Result<usize, String> {
    let mut run = Recorded::new(steps, seed, lacking).await;
    let mut looked = 0;
    for (prefix, step) in run.moments(count) {
        let seeds = [run.random.below(1 << 30), run.random.below(1 << 30)];
        for survivors in
            [Survivors::DurableOnly, Survivors::All, Survivors::Seeded(seeds[0]), Survivors::Seeded(seeds[1])]
        {
            let context = format!("seed {}, prefix {prefix}, after step {step}, {survivors:?}", run.seed);
            let found = found(run.log.replay(&run.start, prefix, survivors)).await;
            found.and_then(|found| run.agrees(&found, step)).map_err(|e| format!("{context}: {e}"))?;
            looked += 1;
        }
    }
    Ok(looked)
}

async fn every_crash_is_survived(steps: u64, seed: u64, count: usize) {
    assert_eq!(crashes(steps, seed, count, Lacking::Nothing).await, Ok(count * 4));
}

/// All hosts start again after a power failure: everything is there, and when it is removed every block is free and can be
/// written: those of open files without a name, of grants, of what was cut and not freed yet.
async fn space_comes_back(steps: u64, seed: u64, count: usize) {
    let mut run = Recorded::new(steps, seed, Lacking::Nothing).await;
    for (prefix, step) in run.moments(count) {
        let survivors = Survivors::Seeded(run.random.below(1 << 30));
        let context = format!("seed {}, prefix {prefix}, after step {step}, {survivors:?}", run.seed);
        let cluster = Cluster::restarted(run.log.replay(&run.start, prefix, survivors)).await;
        let (a, b) = (cluster.restarted_node(1), cluster.restarted_node(2));
        let found = seen_by(&a).await;
        run.agrees(&found, step).unwrap_or_else(|e| panic!("{context}: {e}"));
        for name in found.into_keys() {
            b.call(Request::Unlink { parent: InodeNo::ROOT, name }).await;
        }
        let patient = crate::client::session::Caller::patient();
        let mut space = b.path.statfs(&patient).await.expect("statfs");
        for _ in 0..3000 {
            if (space.free, space.files) == (LEFT, 2) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            space = b.path.statfs(&patient).await.expect("statfs");
        }
        assert_eq!((space.free, space.files), (LEFT, 2), "{context}");
        let file = a.create("all-of-it").await;
        a.write(&file, 0, &pattern((LEFT * FS_BLOCK) as usize, 3)).await;
        assert_eq!(b.path.statfs(&patient).await.expect("statfs").files, 3);
    }
}

/// Names and contents as a node sees them.
async fn seen_by(node: &Node) -> Found {
    let list = Request::Readdir { dir: InodeNo::ROOT, after: 2, max_bytes: 1 << 20, plus: false };
    let crate::proto::Reply::Entries { entries, .. } = node.call(list).await else { panic!("no listing") };
    let mut files = BTreeMap::new();
    for entry in entries.into_iter().filter(|e| e.name != b"hog") {
        let file = node.open(entry.ino).await;
        files.insert(entry.name, (entry.ino, node.read(&file, 0, 1 << 20).await));
        node.path.close(file.handle).await.expect("closes");
    }
    files
}

fn prefixes() -> Option<usize> {
    std::env::var("SHOREFAST_PREFIXES").ok().map(|n| n.parse().expect("a number"))
}

/// The default budget: a workload of so many steps, and so many of its prefixes.
const STEPS: u64 = 160;
const PREFIXES: usize = 200;

/// 800 images.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d90_what_was_acknowledged_is_there_after_power_failed_at_any_moment() {
    every_crash_is_survived(STEPS, 1, prefixes().unwrap_or(PREFIXES)).await;
}

/// Workloads of the default budget's length notice that something is missing. Whether a prefix does depends on which writes
/// its flushes happen to cover: of ten workloads as many are looked at as it takes.
async fn must_be_noticed(lacking: Lacking) {
    for seed in 1..=10 {
        if let Err(noticed) = crashes(STEPS, seed, PREFIXES, lacking).await {
            return println!("{lacking:?}, workload {seed}: {}", noticed.chars().take(300).collect::<String>());
        }
    }
    panic!("{lacking:?} was not noticed");
}

/// "Mapping before flush": a file shows what its blocks held before, or lacks what an fsync covered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d90_notices_a_mapping_that_is_committed_before_its_data_is_flushed() {
    must_be_noticed(Lacking::Rule(Rule::FlushBeforeMapping)).await;
}

/// A change is acknowledged while its record is still in the disk's cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d90_notices_a_metadata_store_that_does_not_flush() {
    must_be_noticed(Lacking::Flushes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 8000 images"]
async fn d90_after_2000_prefixes_of_ten_workloads() {
    for seed in 11..=20 {
        every_crash_is_survived(250, seed, 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d91_all_space_comes_back_after_power_failed_at_any_moment() {
    space_comes_back(120, 2, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 200 restarts"]
async fn d91_after_200_prefixes_of_four_workloads() {
    for seed in 31..=34 {
        space_comes_back(250, seed, 50).await;
    }
}
