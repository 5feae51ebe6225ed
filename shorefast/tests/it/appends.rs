//! Several nodes that write one file at once.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Barrier};

use crate::fixture::background;
use crate::shared::Folder;

#[test]
fn records_appended_through_three_nodes_at_once_are_all_there_and_whole() {
    const RECORDS: usize = 60;
    const LEN: usize = 150;
    let Some(folder) = Folder::new("appends") else { return };
    folder.through(1, |dir| File::create(dir.join("log")).map(drop).expect("creates"));
    let start = Arc::new(Barrier::new(3));
    let record = |n: usize, i: usize| {
        let mut bytes = format!("{n}:{i}:").into_bytes();
        bytes.resize(LEN - 1, b'0' + n as u8);
        bytes.push(b'\n');
        bytes
    };
    let writers: Vec<_> = (1..=3)
        .map(|n| {
            let (path, start) = (folder.path(n).join("log"), Arc::clone(&start));
            background(move || {
                let mut file = File::options().append(true).open(path).expect("opens");
                start.wait();
                for i in 0..RECORDS {
                    file.write_all(&record(n, i)).expect("appends");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.ended("an appending writer");
    }
    for n in 1..=3 {
        let log = folder.through(n, |dir| fs::read(dir.join("log")).expect("reads"));
        assert_eq!(log.len(), 3 * RECORDS * LEN, "through node {n}");
        let mut next = [0; 3];
        for found in log.chunks(LEN) {
            let writer = (1..=3).find(|w| found.starts_with(format!("{w}:").as_bytes())).expect("a writer's record");
            // Each writer's own stay in order.
            assert_eq!(found, record(writer, next[writer - 1]), "through node {n}");
            next[writer - 1] += 1;
        }
    }
}

#[test]
fn unaligned_writes_of_three_nodes_side_by_side_in_the_same_blocks_undo_nothing() {
    const PIECE: usize = 700;
    const PIECES: usize = 90;
    let Some(folder) = Folder::new("interleaved") else { return };
    folder.through(1, |dir| {
        let file = File::create(dir.join("file")).expect("creates");
        // Half is written, the rest is a hole or beyond the end.
        file.write_all_at(&vec![0xee; PIECE * PIECES / 2], 0).expect("writes");
    });
    let start = Arc::new(Barrier::new(3));
    let writers: Vec<_> = (1..=3)
        .map(|n| {
            let (path, start) = (folder.path(n).join("file"), Arc::clone(&start));
            background(move || {
                let file = File::options().write(true).open(path).expect("opens");
                start.wait();
                for round in 0..2 {
                    for piece in (n - 1..PIECES).step_by(3) {
                        let bytes = [(piece * 2 + round) as u8; PIECE];
                        file.write_all_at(&bytes, (piece * PIECE) as u64).expect("writes");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.ended("a writer");
    }
    for n in 1..=3 {
        let found = folder.through(n, |dir| fs::read(dir.join("file")).expect("reads"));
        assert_eq!(found.len(), PIECE * PIECES, "through node {n}");
        for (piece, bytes) in found.chunks(PIECE).enumerate() {
            assert!(bytes.iter().all(|b| *b == (piece * 2 + 1) as u8), "piece {piece} through node {n}");
        }
    }
}
