//! Random operations on one file by two nodes, one at a time and side by side, against a vector of bytes.

use std::sync::Arc;

use super::rig::*;
use crate::client::data::Seek;

/// A small generator, so that a seed says everything.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// An offset or length: often aligned to a block, a sector, or not at all.
    fn place(&mut self, max: u64) -> u64 {
        let at = self.below(max);
        match self.below(3) {
            0 => at / 4096 * 4096,
            1 => at / 512 * 512,
            _ => at,
        }
    }
}

const MAX: u64 = 200_000;

/// Data is where there is any, and a hole is all zeroes.
fn check_seek(model: &[u8], at: usize, data: Option<u64>, hole: Option<u64>, context: &str) {
    if at >= model.len() {
        return assert_eq!((data, hole), (None, None), "{context}: {at} of {}", model.len());
    }
    let data = data.map_or(model.len(), |d| d as usize);
    assert!(model[at..data].iter().all(|b| *b == 0), "{context}: data at {at} was passed over, told {data}");
    let hole = hole.expect("the end is one") as usize;
    assert!(hole >= at && hole <= model.len(), "{context}: a hole at {hole}");
    let block = hole..((hole / 4096 + 1) * 4096).min(model.len()).max(hole);
    assert!(model[block].iter().all(|b| *b == 0), "{context}: no hole at {hole}");
}

// long: one seed is one story, read from top to bottom: set-up, steps, comparison.
async fn run(seed: u64, nodes: u8, steps: u64, faults: bool) {
    let cluster = Cluster::new().await;
    let nodes: Vec<Node> = (1..=nodes).map(|n| cluster.node(n)).collect();
    let first = nodes[0].create("f").await;
    let mut files = vec![first];
    for node in &nodes[1..] {
        files.push(node.open(files[0].ino()).await);
    }
    let appenders = {
        let mut all = Vec::new();
        for node in &nodes {
            all.push(node.open_to_append(files[0].ino()).await);
        }
        all
    };
    let mut rng = Rng(seed * 2 + 1);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..steps {
        let n = rng.below(nodes.len() as u64) as usize;
        let (node, file) = (&nodes[n], &files[n]);
        let what = rng.below(100);
        let context = format!("seed {seed} step {step} node {n} what {what}");
        match what {
            0..40 => {
                let (at, len) = (rng.place(MAX), rng.place(40_000).max(1));
                let data = pattern(len as usize, step as u8);
                node.write(file, at, &data).await;
                let end = (at + len) as usize;
                if model.len() < end {
                    model.resize(end, 0);
                }
                model[at as usize..end].copy_from_slice(&data);
            }
            40..50 => {
                let data = pattern(rng.place(9000).max(1) as usize, step as u8);
                node.write(&appenders[n], 0, &data).await;
                model.extend(&data);
            }
            50..80 => {
                let (at, len) = (rng.place(MAX + 10_000) as usize, rng.place(60_000).max(1) as usize);
                let expected = &model[at.min(model.len())..(at + len).min(model.len()).max(at.min(model.len()))];
                let got = node.read(file, at as u64, len as u32).await;
                assert_eq!(got.len(), expected.len(), "{context}: {len} at {at} of {}", model.len());
                let first_wrong = got.iter().zip(expected).position(|(a, b)| a != b);
                assert_eq!(first_wrong, None, "{context}: {len} at {at}");
            }
            80..83 => {
                let (at, len) = (rng.place(MAX), rng.place(60_000).max(1));
                match rng.below(3) {
                    0 => node.zero_range(file.ino(), at, len, rng.below(2) == 0 || at + len > model.len() as u64).await,
                    _ => node.punch(file.ino(), at, len).await,
                }
                let end = model.len().min((at + len) as usize);
                model[end.min(at as usize)..end].fill(0);
            }
            83..86 => {
                let size = rng.place(MAX);
                node.truncate(file.ino(), size).await;
                model.resize(size as usize, 0);
            }
            86..90 => {
                let (at, len) = (rng.place(MAX), rng.place(30_000).max(1));
                node.fallocate(file.ino(), at, len).await;
                model.resize(model.len().max((at + len) as usize), 0);
            }
            90..92 => {
                let at = rng.place(MAX);
                let (data, hole) = (node.seek(file, at, Seek::Data).await, node.seek(file, at, Seek::Hole).await);
                check_seek(&model, at as usize, data, hole, &context);
            }
            92..95 => node.fsync(file).await,
            95..97 if faults => {
                node.fault.hang();
                node.read(file, 0, 1).await;
            }
            97 if faults => node.fault.heal(),
            _ => assert_eq!(node.attr(file.ino()).await.size, model.len() as u64, "{context}"),
        }
    }
    let reader = cluster.node(3);
    let file = reader.open(files[0].ino()).await;
    let mut got = Vec::new();
    while got.len() < model.len() {
        let part = reader.read(&file, got.len() as u64, 1 << 20).await;
        assert!(!part.is_empty(), "seed {seed}: the file ends at {} of {}", got.len(), model.len());
        got.extend(part);
    }
    assert_eq!(got.iter().zip(&model).position(|(a, b)| a != b), None, "seed {seed}");
    cluster.must_be_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d40_one_node_behaves_as_a_vector_of_bytes() {
    for seed in 1..=6 {
        run(seed, 1, 250, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d41_two_nodes_behave_as_one_vector_of_bytes() {
    for seed in 11..=16 {
        run(seed, 2, 200, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d42_two_nodes_whose_paths_hang_and_heal_behave_as_one_vector_of_bytes() {
    for seed in 21..=23 {
        run(seed, 2, 120, true).await;
    }
}

/// Side by side: each worker owns some slots of one file, of odd length, and must always read back its own last
/// write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d43_writers_side_by_side_keep_their_own_bytes() {
    let cluster = Cluster::new().await;
    let nodes = [Arc::new(cluster.node(1)), Arc::new(cluster.node(2))];
    let ino = nodes[0].create("f").await.ino();
    const SLOT: u64 = 3000;
    let workers = (0..6u64).map(|w| {
        let node = Arc::clone(&nodes[(w % 2) as usize]);
        tokio::spawn(async move {
            let file = node.open(ino).await;
            for i in 0..30u64 {
                let at = (i % 5 * 6 + w) * SLOT;
                let data = pattern(SLOT as usize, (i * 7 + w) as u8);
                node.write(&file, at, &data).await;
                let got = node.read(&file, at, SLOT as u32).await;
                if let Some(wrong) = got.iter().zip(&data).position(|(a, b)| a != b) {
                    let again = node.read(&file, at, SLOT as u32).await == data;
                    let (state, core) = (file.inode.state.lock(), node.session.shown());
                    panic!("worker {w} step {i}: wrong from {wrong}, right later: {again}\n{state:#?}\n{core}");
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    cluster.must_be_clean().await;
}
