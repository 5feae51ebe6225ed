//! What a replica is given that it must not take: a sentence says why, and nothing has changed. What the parsers refuse is tested beside them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::fixture::{PROGRAM, path, run, until};
use crate::replica::client::{holds, pattern};
use crate::replica::nodes::Nodes;
use crate::replica::sites::Sites;

/// Bytes that are no TLS, half a greeting of it, nothing at all, and a client of NBD: at the port where peers are let in.
#[test]
fn bytes_that_are_no_peers_end_their_own_connection_and_change_nothing() {
    let mut sites = Sites::equal("C");
    let mut client = sites.client(1);
    client.write(3, &pattern(3, 1), true).expect("written");
    let before = (sites.status(1)["generation"].clone(), fs::read(sites.disk(2)).expect("a disk"));
    for n in [1, 2] {
        for said in
            [&[0xff; 70_000][..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", b"NBDMAGICIHAVEOPT\0\0\0\x03"]
        {
            let mut stream = TcpStream::connect(sites.listens(n)).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a bound");
            // It may close before it has read all.
            let _ = stream.write_all(said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            assert!(heard.len() < 100, "no more than an alert is said to a stranger: {} bytes", heard.len());
        }
    }
    client.write(4, &pattern(4, 1), true).expect("it goes on");
    assert_eq!(sites.peer(1)["connection"], "Established");
    assert_eq!(sites.status(1)["generation"], before.0);
    holds(&mut client, &[(3, 1), (4, 1)]);
    drop(client);
    sites.compare_disks();
}

/// A node of the cluster with a replica of something else, at the address where the peer is expected.
#[test]
fn a_peer_of_another_resource_is_refused_with_a_sentence_and_nothing_changes() {
    let mut sites = Sites::new("C", [16 << 20; 2]);
    let other = sites.folder(2).join("other.img");
    fs::File::create(&other).and_then(|f| f.set_len(16 << 20)).expect("a disk");
    sites.create(2, "other", &other).expect(0, &[]);
    let before = fs::read(&other).expect("a disk");
    sites.up(1);
    let mut command = Command::new(PROGRAM);
    command.args(["replica", "up", "other", "--dir", path(sites.folder(2))]);
    sites.node_mut(2).start(command);
    until("the refusal", || sites.peer(1)["reason"].to_string().contains("they are not the same"));
    assert_eq!(
        (sites.peer(1)["connection"].clone(), sites.status(1)["disk"].clone()),
        ("Connecting".into(), "Inconsistent".into())
    );
    let status = run(&["replica", "status", "other", "--json", "--dir", path(sites.folder(2))]).json();
    assert_eq!(status["replica"]["disk"], "Inconsistent");
    sites.kill(2);
    let data = 8 << 20;
    assert!(fs::read(&other).expect("a disk")[..data] == before[..data], "nothing came from there");
}

/// Metadata that a newer program wrote, and a disk that is shorter than they say.
#[test]
fn newer_metadata_and_a_disk_that_was_cut_are_refused_and_left_as_they_are() {
    let mut sites = Sites::equal("C");
    sites.down(2);
    let (disk, whole) = (sites.disk(2), fs::read(sites.disk(2)).expect("a disk"));
    let superblocks = [whole.len() - 4096, whole.len() - 8192];
    for (at, value, said) in [(8, 9_u32, "version 9"), (24, 0x40, "features 0x40")] {
        let mut newer = whole.clone();
        for place in superblocks {
            let superblock = &mut newer[place..place + 4096];
            superblock[at..at + 4].copy_from_slice(&value.to_le_bytes());
            superblock[12..16].fill(0);
            let crc = crc32c::crc32c(superblock);
            superblock[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(&disk, &newer).expect("written");
        sites.tell(2, &["up", "r0"]).expect(1, &["cannot be used as the replica r0", said]);
        sites.tell(2, &["check", "r0"]).expect(5, &[said]);
        assert!(fs::read(&disk).expect("a disk") == newer, "it was not touched");
    }
    fs::write(&disk, &whole[..whole.len() - 16384]).expect("written");
    sites.tell(2, &["up", "r0"]).expect(1, &["there is no replica here"]);
    assert!(fs::read(&disk).expect("a disk") == whole[..whole.len() - 16384], "it was not touched");
    fs::write(&disk, &whole).expect("written");
    sites.up(2);
    sites.until_equal(1);
    sites.compare_disks();
}
