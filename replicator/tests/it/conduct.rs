//! What the server does for a client that keeps to the protocol.

use block::{BlockSize, ByteLen, MemDevice};
use replicator::nbd::core::wire::{command, command_flags as flag};
use std::sync::Arc;

use super::client::{Client, Style};
use super::rig::{Served, exported, memory, pattern};

const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];
const SIZE: u64 = 64 << 20;

#[test]
fn what_was_written_is_read_in_every_style_and_size() {
    let device = memory(SIZE);
    let served = Served::new([exported(&device)]);
    for style in STYLES {
        let mut client = Client::enter(served.connect(), "disk", style);
        for (n, len) in [512, 4096, 5 * 512, 65536, 1 << 20, 8 << 20].into_iter().enumerate() {
            let data = pattern(len, n as u64);
            assert_eq!(client.write(0, 4096, &data), 0);
            assert!(client.read(4096, len as u64) == data, "{style:?} {len}");
        }
        client.send(0, command::DISC, 0, 0);
        assert_eq!(client.rest(), b"");
    }
}

/// Writes of one length are read each to its guessed place; others come between them and break the guess.
#[test]
fn pipelined_writes_land_where_they_belong_whatever_comes_between_them() {
    let device = memory(SIZE);
    let served = Served::new([exported(&device)]);
    for style in STYLES {
        let mut client = Client::enter(served.connect(), "disk", style);
        let mut expected = vec![0; 4 << 20];
        let (mut bytes, mut reads) = (Vec::new(), Vec::new());
        let mut at = 0;
        for n in 0..120_u64 {
            // Rows of equal writes, and after each row something else.
            let len = if n % 23 == 22 {
                12_800
            } else if n / 23 % 2 == 0 {
                4096
            } else {
                16_384
            };
            let data = pattern(len, n + 1);
            expected[at..at + len].copy_from_slice(&data);
            bytes.extend(client.header(0, command::WRITE, at as u64, len as u64));
            bytes.extend(data);
            if n % 17 == 16 {
                bytes.extend(client.header(0, command::CACHE, 0, 512));
                reads.push(n);
            }
            at += len;
        }
        let mut writer = client.stream.try_clone().expect("a clone");
        // In odd pieces, so that headers and payloads are cut anywhere.
        let sender = std::thread::spawn(move || {
            for piece in bytes.chunks(10_007) {
                std::io::Write::write_all(&mut writer, piece).expect("sent");
            }
        });
        for _ in 0..120 + reads.len() {
            assert_eq!(client.receive(0).error, 0);
        }
        sender.join().expect("sent");
        let mut found = Vec::new();
        for part in 0..4 {
            found.extend(client.read(part << 20, 1 << 20));
        }
        assert!(found == expected, "{style:?}");
    }
}

#[test]
fn flush_on_one_connection_makes_stable_what_others_were_told() {
    let device = Arc::new(MemDevice::with_volatile_cache(ByteLen(SIZE), BlockSize::B512));
    let served = Served::new([exported(&device)]);
    let mut one = Client::enter(served.connect(), "disk", Style::Structured);
    let mut two = Client::enter(served.connect(), "disk", Style::Simple);
    let data = pattern(65536, 7);
    assert_eq!(one.write(0, 0, &data), 0);
    assert_eq!(one.write(0, 1 << 20, &data), 0);
    assert_eq!(two.ask(0, command::FLUSH, 0, 0).error, 0);
    assert_eq!(one.write(0, 2 << 20, &data), 0);
    device.crash();
    assert!(two.read(0, 65536) == data && two.read(1 << 20, 65536) == data);
    assert!(two.read(2 << 20, 65536) == vec![0; 65536], "never flushed: or this test could not fail");
}

#[test]
fn fua_makes_writes_trims_and_zeroes_stable_before_the_answer() {
    let device = Arc::new(MemDevice::with_volatile_cache(ByteLen(SIZE), BlockSize::B512));
    let served = Served::new([exported(&device)]);
    let mut client = Client::enter(served.connect(), "disk", Style::Structured);
    let data = pattern(4096, 1);
    assert_eq!(client.write(flag::FUA, 0, &data), 0);
    device.crash();
    assert!(client.read(0, 4096) == data);
    for (kind, flags) in [(command::TRIM, 0), (command::WRITE_ZEROES, 0), (command::WRITE_ZEROES, flag::NO_HOLE)] {
        assert_eq!(client.write(flag::FUA, 0, &data), 0);
        assert_eq!(client.ask(flags, kind, 0, 4096).error, 0);
        device.crash();
        assert!(client.read(0, 4096) == data, "without FUA it may be lost");
        assert_eq!(client.ask(flags | flag::FUA, kind, 0, 4096).error, 0);
        device.crash();
        assert!(client.read(0, 4096) == [0; 4096], "command {kind} with FUA");
    }
}

fn extents(data: &[u8], style: Style) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    assert_eq!(number(&data[..4]), 1, "the context");
    let (from, half) = if style == Style::Extended { (8, 8) } else { (4, 4) };
    data[from..].chunks_exact(2 * half).map(|e| (number(&e[..half]), number(&e[half..]))).collect()
}

#[test]
fn block_status_tells_holes_and_data_and_one_if_one_is_asked_for() {
    let device = memory(SIZE);
    let blind = replicator::nbd::Export::new("blind", device.clone());
    let served = Served::new([exported(&device), blind]);
    for style in [Style::Structured, Style::Extended] {
        let mut client = Client::enter(served.connect(), "disk", style);
        assert_eq!(client.write(0, 1 << 20, &pattern(8192, 3)), 0);
        let all = client.ask(0, command::BLOCK_STATUS, 0, SIZE);
        assert_eq!(extents(&all.data, style), [(1 << 20, 3), (8192, 0), (SIZE - (1 << 20) - 8192, 3)], "{style:?}");
        let one = client.ask(flag::REQ_ONE, command::BLOCK_STATUS, 512, 1024);
        assert_eq!(extents(&one.data, style), [(1024, 3)]);
        let mut client = Client::enter(served.connect(), "blind", style);
        let all = client.ask(0, command::BLOCK_STATUS, 0, SIZE);
        assert_eq!(extents(&all.data, style), [(SIZE, 0)], "a device that cannot tell has it all");
        assert_eq!(client.ask(flag::FAST_ZERO, command::WRITE_ZEROES, 0, 512).error, 95, "nor is it fast");
    }
}

#[test]
fn block_status_with_a_payload_is_answered() {
    let served = Served::new([exported(&memory(SIZE))]);
    let mut client = Client::enter(served.connect(), "disk", Style::Extended);
    for (context, error) in [(1_u32, 0), (2, 22)] {
        let header = client.header(flag::PAYLOAD_LEN, command::BLOCK_STATUS, 0, 12);
        let payload = [&(1_u64 << 20).to_be_bytes()[..], &context.to_be_bytes()].concat();
        std::io::Write::write_all(&mut client.stream, &[header, payload].concat()).expect("sent");
        let reply = client.receive(0);
        assert_eq!(reply.error, error);
        if error == 0 {
            assert_eq!(extents(&reply.data, Style::Extended), [(1 << 20, 3)]);
        }
    }
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn refused_requests_are_answered_and_the_connection_goes_on() {
    let device = memory(SIZE);
    let served = Served::new([exported(&device), replicator::nbd::Export::new("ro", device.clone()).read_only(true)]);
    for style in STYLES {
        let mut client = Client::enter(served.connect(), "disk", style);
        assert_eq!(client.write(0, SIZE - 512, &[1; 4096]), 28, "a write beyond the end");
        assert_eq!(client.ask(0, command::READ, SIZE, 512).error, 22);
        assert_eq!(client.write(0, 1, &[1; 512]), 22, "misaligned");
        assert_eq!(client.ask(0, 99, 0, 0).error, 22);
        assert!(client.read(SIZE - 512, 512) == [0; 512], "nothing of it was written");
        let mut client = Client::enter(served.connect(), "ro", style);
        assert_eq!(client.write(0, 0, &[1; 65536]), 1);
        assert_eq!(client.ask(0, command::TRIM, 0, 512).error, 1);
        assert_eq!(client.ask(0, command::WRITE_ZEROES, 0, 512).error, 1);
        assert!(client.read(0, 512) == [0; 512]);
    }
}

/// The reader stops, and goes on when there is room: nothing is lost, and nothing hangs.
#[test]
fn more_requests_and_bytes_than_are_kept_are_all_answered() {
    let device = memory(SIZE);
    let served = Served::new([exported(&device)]);
    let mut client = Client::enter(served.connect(), "disk", Style::Structured);
    let mut bytes = Vec::new();
    for n in 0..1000 {
        bytes.extend(client.header(0, command::READ, n % 64 * 512, 512));
    }
    for _ in 0..6 {
        bytes.extend(client.header(0, command::READ, 0, 12 << 20));
    }
    for _ in 0..1000 {
        bytes.extend(client.header(0, 99, 0, 0));
    }
    let mut writer = client.stream.try_clone().expect("a clone");
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes).expect("sent"));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2006 {
        let reply = client.receive(0);
        let expected = match reply.cookie {
            1..=1000 => (0, 512),
            1001..=1006 => (0, 12 << 20),
            _ => (22, 0),
        };
        assert_eq!((reply.error, reply.data.len()), expected, "reply to {}", reply.cookie);
        assert!(seen.insert(reply.cookie), "{} is answered once", reply.cookie);
    }
    sender.join().expect("sent");
}
