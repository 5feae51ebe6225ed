//! How connections end: by the server, by an export, by a client that is gone.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{FaultDevice, MemDevice};
use replicator::nbd::Export;
use replicator::nbd::core::wire::command;

use super::client::{Client, Style};
use super::rig::{Served, exported, memory, pattern, until};

const SIZE: u64 = 16 << 20;

/// A device that can hang, as the export `disk`.
fn hanging() -> (Served, Arc<FaultDevice>, Arc<MemDevice>) {
    let below = memory(SIZE);
    let fault = FaultDevice::new(below.clone());
    (Served::new([Export::new("disk", fault.clone())]), fault, below)
}

fn first_bytes(below: &Arc<MemDevice>, at: u64) -> Vec<u8> {
    let served = Served::new([exported(below)]);
    Client::enter(served.connect(), "disk", Style::Simple).read(at, 4096)
}

#[test]
fn stop_answers_what_is_under_way_and_nothing_is_left_in_the_device() {
    let (mut served, fault, below) = hanging();
    let mut client = Client::enter(served.connect(), "disk", Style::Structured);
    fault.hang();
    let first = client.send_write(0, 0, &pattern(4096, 1));
    let second = client.send_write(0, 4096, &pattern(4096, 2));
    until("the device has both", || fault.held() == 2);
    let cut = client.header(0, command::WRITE, 8192, 4096);
    client.stream.write_all(&[&cut[..], &[9; 1000]].concat()).expect("half a write");
    let stopped = Arc::new(AtomicBool::new(false));
    let (task, seen) = (served.stop(), Arc::clone(&stopped));
    let waiter = std::thread::spawn(move || {
        task.wait().expect("it stops");
        seen.store(true, Ordering::SeqCst);
    });
    until("the socket is gone", || !served.socket().exists());
    assert!(!stopped.load(Ordering::SeqCst), "the device has two requests still");
    fault.heal();
    let mut cookies = [client.receive(0), client.receive(0)].map(|reply| (reply.cookie, reply.error));
    cookies.sort_unstable();
    assert_eq!(cookies, [(first, 0), (second, 0)]);
    assert_eq!(client.rest(), b"");
    waiter.join().expect("it stops");
    assert!(first_bytes(&below, 4096) == pattern(4096, 2));
    assert!(first_bytes(&below, 8192) == vec![0; 4096], "half a write is none");
}

#[test]
fn withdrawn_export_ends_its_connections_and_no_others() {
    let (one, two) = (memory(SIZE), memory(SIZE));
    let served = Served::new([exported(&one), Export::new("other", two)]);
    let mut gone = Client::enter(served.connect(), "disk", Style::Simple);
    let mut stays = Client::enter(served.connect(), "other", Style::Simple);
    assert!(served.exports.withdraw("disk"));
    assert!(!served.exports.withdraw("disk"), "once");
    assert_eq!(gone.rest(), b"");
    assert_eq!(stays.read(0, 512), [0; 512]);
    served.exports.add(exported(&one)).expect("the name is free again");
    assert_eq!(Client::enter(served.connect(), "disk", Style::Simple).read(0, 512), [0; 512]);
}

/// A client that is killed: what it had sent whole is carried out, what it had sent in part is not, and its end waits for
/// the device.
#[test]
fn client_that_is_gone_leaves_nothing_half_done() {
    let (mut served, fault, below) = hanging();
    fault.hang();
    let mut client = Client::enter(served.connect(), "disk", Style::Extended);
    client.send_write(0, 0, &pattern(4096, 1));
    let cut = client.header(0, command::WRITE, 4096, 4096);
    client.stream.write_all(&[&cut[..], &[9; 4095]].concat()).expect("a write but one byte");
    until("the device has the first", || fault.held() == 1);
    drop(client);
    let mut other = Client::enter(served.connect(), "disk", Style::Simple);
    fault.heal();
    until("the first has landed", || other.read(0, 4096) == pattern(4096, 1));
    assert_eq!(other.read(4096, 4096), [0; 4096]);
    drop(other);
    served.stop().wait().expect("it stops");
    assert!(first_bytes(&below, 4096) == vec![0; 4096]);
}

#[test]
fn disconnect_is_answered_by_everything_that_is_due_and_the_end() {
    let device = memory(SIZE);
    let served = Served::new([exported(&device)]);
    let mut client = Client::enter(served.connect(), "disk", Style::Structured);
    let mut bytes = Vec::new();
    for n in 0..100 {
        bytes.extend(client.header(0, command::READ, n * 4096, 4096));
    }
    bytes.extend(client.header(0, command::DISC, 0, 0));
    client.stream.write_all(&bytes).expect("sent");
    for _ in 0..100 {
        assert_eq!(client.receive(0).error, 0);
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn device_errors_are_told_and_the_connection_goes_on() {
    let (served, fault, _below) = hanging();
    let mut client = Client::enter(served.connect(), "disk", Style::Structured);
    fault.fail();
    assert_eq!(client.ask(0, command::READ, 0, 512).error, 5);
    assert_eq!(client.write(0, 0, &[1; 512]), 5);
    assert_eq!(client.ask(0, command::FLUSH, 0, 0).error, 5);
    fault.heal();
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn more_clients_than_there_are_places_are_turned_away_and_others_served() {
    const PLACES: usize = replicator::nbd::limits::MAX_CONNECTIONS;
    let device = memory(SIZE);
    let served = Served::new([exported(&device)]);
    let mut clients: Vec<_> = (0..PLACES).map(|_| Client::enter(served.connect(), "disk", Style::Simple)).collect();
    let mut extra = Vec::new();
    std::io::Read::read_to_end(&mut served.connect(), &mut extra).expect("closed at once");
    assert_eq!(extra, b"");
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.write(0, n as u64 * 512, &pattern(512, n as u64)), 0);
    }
    let sum = clients[0].read(0, PLACES as u64 * 512);
    for n in 0..PLACES {
        assert!(sum[n * 512..(n + 1) * 512] == pattern(512, n as u64), "client {n}");
    }
    drop(clients);
    until("there are places again", || {
        let mut first = [0];
        std::io::Read::read_exact(&mut served.connect(), &mut first).is_ok()
    });
}
