use std::future::poll_fn;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;

/// A request as these tests know it: the length of its payload in the first bytes of its header.
fn header(len: u32, header_len: usize) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.resize(header_len, 0xee);
    bytes
}

fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + seed * 31 + (n >> 8)) as u8).collect()
}

/// Takes what has come: whole payloads, and the length of the one that has begun.
fn take(incoming: &mut Incoming, open: &mut Option<u32>, taken: &mut Vec<AlignedBuf>) {
    loop {
        match *open {
            Some(0) => *open = None,
            Some(_) => match incoming.payload() {
                Some(buf) => {
                    taken.push(buf);
                    *open = None;
                }
                None => return,
            },
            None => {
                let Some(header) = incoming.header() else { return };
                let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
                match len {
                    0 => incoming.no_payload(),
                    len => incoming.begin_payload(len),
                }
                *open = Some(len);
            }
        }
    }
}

/// Sends these pieces, each whole before the next is read for, and returns the payloads.
async fn through(header_len: usize, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut client, server) = UnixStream::pair().expect("a pair");
    let mut socket = Socket::Unix(server);
    let mut incoming = Incoming::new(header_len, &[]);
    let (mut open, mut taken) = (None, Vec::new());
    for piece in pieces.iter().filter(|p| !p.is_empty()) {
        client.write_all(piece).await.expect("sent");
        let mut left = piece.len();
        while left > 0 {
            left -= poll_fn(|cx| incoming.poll_read(cx, &mut socket)).await.expect("read");
            take(&mut incoming, &mut open, &mut taken);
        }
    }
    taken.iter().map(|buf| buf.to_vec()).collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Any requests, cut anywhere: each payload comes out as it went in.
#[test]
fn payloads_come_out_as_they_went_in_however_they_are_cut() {
    bolero::check!().with_iterations(400).with_type::<(bool, Vec<(u8, u8)>, Vec<u16>)>().for_each(
        |(extended, requests, cuts)| {
            let header_len = if *extended { 32 } else { 28 };
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (seed, (length, row)) in requests.iter().take(24).enumerate() {
                // Rows of one length, so that it is guessed; others, and none, between them.
                let len = [0, 1, 512, 4096, 4096, 20_000][usize::from(*length) % 6];
                for n in 0..1 + usize::from(row % 6) {
                    bytes.extend(header(len as u32, header_len));
                    if len > 0 {
                        expected.push(payload(len, seed * 8 + n));
                        bytes.extend(payload(len, seed * 8 + n));
                    }
                }
            }
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().map(|c| usize::from(*c)).chain(std::iter::repeat(60_000)) {
                let (piece, behind) = rest.split_at(cut.clamp(1, 60_000).min(rest.len()));
                pieces.push(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            assert!(run(through(header_len, &pieces)) == expected);
        },
    );
}

/// What the module promises: from the third write of one length on, the device gets the very memory that was read into.
#[test]
fn guessed_payloads_are_taken_as_they_are() {
    run(async {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let mut socket = Socket::Unix(server);
        let mut incoming = Incoming::new(28, &[]);
        let (mut open, mut taken) = (None, Vec::new());
        for n in 0..4 {
            client.write_all(&[header(4096, 28), payload(4096, n)].concat()).await.expect("sent");
            poll_fn(|cx| incoming.poll_read(cx, &mut socket)).await.expect("read");
            take(&mut incoming, &mut open, &mut taken);
        }
        let many: Vec<u8> = (4..14).flat_map(|n| [header(4096, 28), payload(4096, n)].concat()).collect();
        client.write_all(&many).await.expect("sent");
        let read = poll_fn(|cx| incoming.poll_read(cx, &mut socket)).await.expect("read");
        assert_eq!(read, many.len(), "ten writes in one call");
        let large = |piece: &Piece| match &piece.memory {
            Memory::Large(buf) => Some(buf.as_ptr()),
            Memory::Small(_) => None,
        };
        let read_into: Vec<_> = incoming.pieces.iter().filter_map(large).collect();
        taken.clear();
        take(&mut incoming, &mut open, &mut taken);
        assert_eq!(taken.iter().map(|buf| buf.as_ptr()).collect::<Vec<_>>(), read_into);
        assert!(taken.iter().enumerate().all(|(n, buf)| buf[..] == payload(4096, n + 4)));
    });
}
