//! A target that does as little as can be: it takes writes without a look at them and answers reads with zeroes whose digest was
//! computed beforehand. tgt computes CRC32C bytewise, more than our whole request costs, so that beside it nothing can be seen of
//! what a digest costs the initiator.
//!
//! One thread for each connection; answers to all commands of one read go out in one write.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use iscsi::digest::of_data;
use iscsi::discovery::Portal;
use iscsi::framer::End;
use iscsi::keys::negotiate::Negotiation;
use iscsi::keys::params::{DigestWish, Offer};
use iscsi::pdu::raw::{
    DataIn, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, NopIn, NopOut, ScsiCommand, ScsiResponse,
    TRANSIT,
};
use iscsi::pdu::{BHS_LEN, Bhs, FINAL, IMMEDIATE, Opcode};
use iscsi::text;
use scsi::capacity::Capacity;
use scsi::cdb::Command;
use scsi::{BlockLen, Lba};

use super::tgt::SIZE;
use crate::Failure;

/// Commands in flight that it allows.
const WINDOW: u32 = 128;
/// The longest read that it answers.
const LONGEST: usize = 256 << 10;

/// The target; gone at the end.
pub(super) struct Bare {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Bare {
    pub(super) fn start() -> Result<Bare, Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("the bare target cannot listen on 127.0.0.1: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Acquire) {
                    return;
                }
                std::thread::spawn(move || Conn::new(stream).serve());
            }
        });
        Ok(Bare { port, over })
    }

    pub(super) fn portal(&self) -> Portal {
        Portal { host: "127.0.0.1".to_owned(), port: self.port }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Zeroes of one length, with what is behind them on the wire.
struct Zeroes {
    len: usize,
    digest: [u8; 4],
}

struct Conn {
    stream: TcpStream,
    negotiation: Negotiation,
    digest: bool,
    stat_sn: u32,
    exp_cmd_sn: u32,
    zeroes: Vec<u8>,
    known: Vec<Zeroes>,
    /// Heads and tails of what waits to be sent, with how many zeroes lie between.
    waiting: Vec<(Vec<u8>, usize, [u8; 4])>,
}

impl Conn {
    fn new(stream: TcpStream) -> Conn {
        drop(stream.set_nodelay(true));
        Conn {
            stream,
            negotiation: Negotiation::new(End::Target, false),
            digest: false,
            stat_sn: 1,
            exp_cmd_sn: 0,
            zeroes: vec![0; LONGEST],
            known: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn serve(mut self) {
        let mut buf = vec![0; 512 << 10];
        let (mut have, mut skip) = (0, 0);
        while let Ok(n @ 1..) = self.stream.read(&mut buf[have..]) {
            have += n;
            let mut at = 0;
            loop {
                let passed = skip.min(have - at);
                (at, skip) = (at + passed, skip - passed);
                let Some(head) = buf[at..have].first_chunk::<BHS_LEN>().copied() else { break };
                let bhs = Bhs::from_bytes(head);
                let len = bhs.data_segment() as usize;
                let digest = if self.digest && len > 0 { 4 } else { 0 };
                let login = bhs.kind() == Some(Opcode::LoginRequest);
                if login && have - at < BHS_LEN + len {
                    break;
                }
                if self.take(&bhs, if login { &buf[at + BHS_LEN..at + BHS_LEN + len] } else { &[] }).is_none() {
                    let _ = self.flush();
                    drop(self.stream.shutdown(Shutdown::Both));
                    return;
                }
                (at, skip) = (at + BHS_LEN, len.next_multiple_of(4) + digest);
            }
            buf.copy_within(at..have, 0);
            have -= at;
            if self.flush().is_none() {
                return;
            }
        }
    }

    /// Writes what waits, as much at once as there is.
    fn flush(&mut self) -> Option<()> {
        for some in self.waiting.chunks(64) {
            let mut slices = Vec::with_capacity(some.len() * 3);
            for (head, zeroes, digest) in some {
                slices.push(IoSlice::new(head));
                if *zeroes > 0 {
                    slices.push(IoSlice::new(&self.zeroes[..*zeroes]));
                    slices.extend(self.digest.then(|| IoSlice::new(digest)));
                }
            }
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                let n = self.stream.write_vectored(slices).ok().filter(|n| *n > 0)?;
                IoSlice::advance_slices(&mut slices, n);
            }
        }
        self.waiting.clear();
        Some(())
    }

    fn take(&mut self, bhs: &Bhs, data: &[u8]) -> Option<()> {
        match bhs.kind()? {
            Opcode::LoginRequest => self.login(&LoginRequest::of(bhs), data),
            Opcode::ScsiCommand => self.command(&ScsiCommand::of(bhs)),
            Opcode::NopOut => {
                let answer = NopIn { itt: NopOut::of(bhs).itt, ttt: u32::MAX.into(), ..NopIn::default() };
                self.answer(answer.bhs(), &[]);
                Some(())
            }
            Opcode::LogoutRequest => {
                self.answer(LogoutResponse { itt: LogoutRequest::of(bhs).itt, ..LogoutResponse::default() }.bhs(), &[]);
                None
            }
            // Behind a command whose data were announced.
            _ => Some(()),
        }
    }

    fn head(&mut self, bhs: Bhs) -> Vec<u8> {
        let mut bytes = bhs.bytes().to_vec();
        bytes[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.exp_cmd_sn.wrapping_add(WINDOW - 1).to_be_bytes());
        self.stat_sn = self.stat_sn.wrapping_add(1);
        bytes
    }

    fn answer(&mut self, bhs: Bhs, data: &[u8]) {
        let mut bytes = self.head(bhs);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if self.digest && !data.is_empty() {
            bytes.extend(of_data(data));
        }
        self.waiting.push((bytes, 0, [0; 4]));
    }

    fn login(&mut self, r: &LoginRequest, data: &[u8]) -> Option<()> {
        let (stage, transit) = (r.flags >> 2 & 3, r.flags & TRANSIT != 0);
        self.exp_cmd_sn = r.cmd_sn.get();
        let segment = 256 << 10;
        let offer = Offer {
            data_digest: DigestWish::Rather,
            initial_r2t: false,
            first_burst: segment,
            max_recv_segment: segment,
            ..Offer::default()
        };
        let (mut body, mut digest) = (Vec::new(), false);
        for pair in text::pairs(data).ok()? {
            match pair.key.as_str() {
                "AuthMethod" => text::push(&mut body, "AuthMethod", "None"),
                "InitiatorName" => text::push(&mut body, "TargetPortalGroupTag", "1"),
                "MaxRecvDataSegmentLength" => text::push(&mut body, &pair.key, &segment.to_string()),
                _ => {}
            }
            if pair.key != "AuthMethod"
                && let Some(answer) = self.negotiation.receive(&pair, &offer).ok()?
            {
                digest |= answer.key == "DataDigest" && answer.value == "CRC32C";
                text::push(&mut body, &answer.key, &answer.value);
            }
        }
        let flags = match (stage, transit) {
            (0, true) => TRANSIT | 1,
            (1, true) => TRANSIT | 1 << 2 | 3,
            (stage, _) => stage << 2,
        };
        let tsih = u16::from(flags & 3 == 3).into();
        let answer = LoginResponse { flags, isid: r.isid, tsih, itt: r.itt, ..LoginResponse::default() };
        self.answer(answer.with_data(body.len()).bhs(), &body);
        // From the first PDU behind this one on.
        self.flush()?;
        self.digest |= digest;
        Some(())
    }

    fn command(&mut self, c: &ScsiCommand) -> Option<()> {
        if c.opcode & IMMEDIATE == 0 {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        let expected = c.expected_len.get() as usize;
        match Command::parse(&c.cdb).ok()? {
            Command::Read(_) if expected <= LONGEST => self.read(c, expected),
            Command::Write(_) => self.answer(ScsiResponse { itt: c.itt, ..ScsiResponse::default() }.bhs(), &[]),
            Command::Inquiry(inquiry) if inquiry.page.is_none() => {
                let mut bytes = b"\x00\x00\x06\x02\x1f\x00\x00\x02BARE    A TARGET        0001".to_vec();
                bytes.truncate(expected);
                self.told(c, &bytes);
            }
            Command::ReadCapacity16(_) => {
                let capacity = Capacity::new(Lba(SIZE / 512 - 1), BlockLen::B512).to_bytes();
                self.told(c, &capacity[..expected.min(capacity.len())]);
            }
            _ => {
                // ILLEGAL REQUEST: it has no such thing.
                let mut body = vec![0, 18, 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0];
                body.resize(20, 0);
                let flags = FINAL | if expected > 0 { ScsiResponse::UNDERFLOW } else { 0 };
                let residual = c.expected_len;
                let answer = ScsiResponse { flags, itt: c.itt, status: 2, residual, ..ScsiResponse::default() };
                self.answer(answer.with_data(body.len()).bhs(), &body);
            }
        }
        Some(())
    }

    fn told(&mut self, c: &ScsiCommand, bytes: &[u8]) {
        let residual = c.expected_len.get() - bytes.len() as u32;
        let under = if residual > 0 { DataIn::UNDERFLOW } else { 0 };
        let flags = FINAL | DataIn::STATUS | under;
        let answer = DataIn { flags, itt: c.itt, ttt: u32::MAX.into(), residual: residual.into(), ..DataIn::default() };
        self.answer(answer.with_data(bytes.len()).bhs(), bytes);
    }

    fn read(&mut self, c: &ScsiCommand, len: usize) {
        let known = self.known.iter().find(|z| z.len == len).map(|z| z.digest);
        let digest = known.unwrap_or_else(|| {
            let digest = of_data(&self.zeroes[..len]);
            self.known.push(Zeroes { len, digest });
            digest
        });
        let flags = FINAL | DataIn::STATUS;
        let answer = DataIn { flags, itt: c.itt, ttt: u32::MAX.into(), ..DataIn::default() };
        let head = self.head(answer.with_data(len).bhs());
        self.waiting.push((head, len, digest));
    }
}
