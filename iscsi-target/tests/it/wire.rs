//! A small initiator that speaks PDU by PDU, so that a test can say exactly what it sends and sees exactly what comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use iscsi::chap::Entropy;
use iscsi::ids::{CmdSn, Isid, Itt};
use iscsi::keys::params::Offer;
use iscsi::login::{Kind, Login, LoginConfig, LoginError, Step};
use iscsi::pdu::raw::{DataIn, DataOut, LoginResponse, LogoutRequest, R2t, ScsiCommand, ScsiResponse, TaskRequest};
use iscsi::pdu::{BHS_LEN, Bhs, FINAL, IMMEDIATE, Opcode, padding};
use scsi::cdb::Cdb;
use scsi::{Sense, Status};

use crate::rig::TARGET;

/// No answer comes within this: something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session.
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) cmd_sn: u32,
    exp_stat_sn: u32,
    next_itt: u32,
}

/// A PDU of the target.
#[derive(Clone, Debug)]
pub(crate) struct Pdu {
    pub(crate) bhs: Bhs,
    pub(crate) data: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) sense: Option<Sense>,
    pub(crate) data: Vec<u8>,
    /// Positive: overflow.
    pub(crate) residual: i64,
}

impl Answer {
    /// Sense key, ASC and ASCQ.
    pub(crate) fn code(&self) -> Option<(u8, u8, u8)> {
        self.sense.map(|s| (s.key.bits(), s.code.asc, s.code.ascq))
    }

    pub(crate) fn good(self) -> Vec<u8> {
        assert_eq!(self.status, Status::Good, "{self:?}");
        self.data
    }
}

pub(crate) fn config(host: &str, slot: u16) -> LoginConfig {
    let kind = Kind::Normal { target: TARGET.into() };
    let mut config = LoginConfig::new(host, Isid::from_number(7, slot), kind);
    config.offer = Offer { max_recv_segment: 65536, ..Offer::default() };
    config
}

impl Wire {
    /// A session of a host.
    pub(crate) fn login(at: SocketAddr, host: &str) -> Wire {
        Wire::login_with(at, config(host, 1)).expect("it is let in")
    }

    pub(crate) fn login_with(at: SocketAddr, config: LoginConfig) -> Result<Wire, LoginError> {
        let mut wire = Wire::connect(at);
        let entropy = Entropy { identifier: 3, challenge: [9; 16] };
        let (mut login, mut request) = Login::begin(config, Itt(0x10), CmdSn(100), entropy);
        loop {
            wire.send(&request.bhs.bhs(), &request.text);
            let answer = wire.receive();
            match login.answer(&LoginResponse::of(&answer.bhs), &answer.data)? {
                Step::Send(next, more) => (login, request) = (*next, more),
                Step::Done(done) => {
                    wire.exp_stat_sn = done.exp_stat_sn.0;
                    return Ok(wire);
                }
                Step::Redirected { .. } => panic!("redirected"),
            }
        }
    }

    /// A connection without a login.
    pub(crate) fn connect(at: SocketAddr) -> Wire {
        let stream = TcpStream::connect(at).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Wire { stream, cmd_sn: 100, exp_stat_sn: 0, next_itt: 1 }
    }

    /// Reads unit attentions away.
    pub(crate) fn quiet(mut self) -> Wire {
        while self.command(&scsi::cdb::TestUnitReady.cdb(), 0, &[]).status != Status::Good {}
        self
    }

    pub(crate) fn send(&mut self, bhs: &Bhs, data: &[u8]) {
        let mut bytes = bhs.bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + padding(data.len()), 0);
        self.stream.write_all(&bytes).expect("it reads");
    }

    /// Bytes that are no PDU.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// The next PDU; none if the target closed.
    pub(crate) fn try_receive(&mut self) -> Option<Pdu> {
        let mut head = [0; BHS_LEN];
        self.stream.read_exact(&mut head).ok()?;
        let bhs = Bhs::from_bytes(head);
        let len = bhs.data_segment() as usize;
        let mut data = vec![0; len + padding(len)];
        self.stream.read_exact(&mut data).ok()?;
        data.truncate(len);
        Some(Pdu { bhs, data })
    }

    pub(crate) fn receive(&mut self) -> Pdu {
        self.try_receive().expect("an answer, not the end of the connection")
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
        let mut one = [0; 1];
        let silent = self.stream.peek(&mut one).is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        silent
    }

    /// Says that nothing more will be sent.
    pub(crate) fn hang_up(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    }

    /// Whether the target has closed, as far as is known after a moment.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let closed = self.stream.peek(&mut [0; 1]).is_ok_and(|n| n == 0);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        closed
    }

    /// Sends a command with immediate data, and returns its tag.
    pub(crate) fn start(&mut self, cdb: &Cdb, read: u32, data: &[u8]) -> u32 {
        self.start_on(0, cdb, read, data)
    }

    pub(crate) fn start_on(&mut self, lun: u8, cdb: &Cdb, read: u32, data: &[u8]) -> u32 {
        let itt = self.next_itt;
        self.next_itt += 1;
        let immediate = &data[..data.len().min(65536)];
        let direction = match (read > 0, data.is_empty()) {
            (true, _) => ScsiCommand::READ,
            (_, false) => ScsiCommand::WRITE,
            _ => 0,
        };
        let expected = if read > 0 { read } else { u32::try_from(data.len()).expect("short") };
        let c = ScsiCommand {
            flags: FINAL | direction | ScsiCommand::SIMPLE,
            lun: [0, lun, 0, 0, 0, 0, 0, 0],
            itt: itt.into(),
            expected_len: expected.into(),
            cmd_sn: self.cmd_sn.into(),
            exp_stat_sn: self.exp_stat_sn.into(),
            cdb: *cdb.head(),
            ..ScsiCommand::default()
        };
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.send(&c.with_data(immediate.len()).bhs(), immediate);
        itt
    }

    /// Sends a write without any of its data, and returns its tag.
    pub(crate) fn announce(&mut self, cdb: &Cdb, expected: u32) -> u32 {
        let itt = self.next_itt;
        self.next_itt += 1;
        let c = ScsiCommand {
            flags: FINAL | ScsiCommand::WRITE | ScsiCommand::SIMPLE,
            itt: itt.into(),
            expected_len: expected.into(),
            cmd_sn: self.cmd_sn.into(),
            cdb: *cdb.head(),
            ..ScsiCommand::default()
        };
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.send(&c.bhs(), &[]);
        itt
    }

    /// Carries a command out.
    pub(crate) fn command(&mut self, cdb: &Cdb, read: u32, data: &[u8]) -> Answer {
        let itt = self.start(cdb, read, data);
        self.finish(itt, data)
    }

    /// Waits for the end of a command; R2Ts are answered from `data`.
    pub(crate) fn finish(&mut self, itt: u32, data: &[u8]) -> Answer {
        let mut got = Vec::new();
        loop {
            let pdu = self.receive();
            assert_eq!(pdu.bhs.itt.get(), itt, "an answer to another task: {pdu:?}");
            match pdu.bhs.kind() {
                Some(Opcode::DataIn) => {
                    let d = DataIn::of(&pdu.bhs);
                    assert_eq!(d.buffer_offset.get() as usize, got.len());
                    got.extend_from_slice(&pdu.data);
                    if d.flags & DataIn::STATUS != 0 {
                        let residual = residual(d.flags, d.residual.get());
                        return Answer { status: Status::from_byte(d.status), sense: None, data: got, residual };
                    }
                }
                Some(Opcode::R2t) => self.answer(&R2t::of(&pdu.bhs), data),
                Some(Opcode::ScsiResponse) => {
                    let r = ScsiResponse::of(&pdu.bhs);
                    let sense = pdu.data.get(2..).filter(|s| !s.is_empty()).map(|s| Sense::parse(s).expect("sense"));
                    let residual = residual(r.flags, r.residual.get());
                    return Answer { status: Status::from_byte(r.status), sense, data: got, residual };
                }
                other => panic!("{other:?} in answer to a command"),
            }
        }
    }

    /// The data that an R2T asks for, in pieces.
    pub(crate) fn answer(&mut self, r: &R2t, data: &[u8]) {
        let (from, len) = (r.buffer_offset.get() as usize, r.desired_len.get() as usize);
        let pieces: Vec<&[u8]> = data[from..from + len].chunks(16 << 10).collect();
        let mut at = from;
        for (n, piece) in pieces.iter().enumerate() {
            let d = DataOut {
                flags: if n + 1 == pieces.len() { FINAL } else { 0 },
                itt: r.itt,
                ttt: r.ttt,
                data_sn: u32::try_from(n).expect("few").into(),
                buffer_offset: u32::try_from(at).expect("short").into(),
                ..DataOut::default()
            };
            self.send(&d.with_data(piece.len()).bhs(), piece);
            at += piece.len();
        }
    }

    /// Sends a task management request.
    pub(crate) fn manage(&mut self, function: u8, about: u32) -> u32 {
        let itt = self.next_itt;
        self.next_itt += 1;
        let r = TaskRequest {
            flags: FINAL | function,
            itt: itt.into(),
            ref_task: about.into(),
            cmd_sn: self.cmd_sn.into(),
            ..TaskRequest::default()
        };
        self.send(&r.bhs(), &[]);
        itt
    }

    /// Sends a logout request.
    pub(crate) fn logout(&mut self) {
        let r =
            LogoutRequest { flags: FINAL, itt: 0x77.into(), cmd_sn: self.cmd_sn.into(), ..LogoutRequest::default() };
        self.send(&r.bhs(), &[]);
    }

    /// An immediate command with its own number; for what must not be in the window.
    pub(crate) fn immediate(&mut self, mut c: ScsiCommand) -> Bhs {
        c.opcode |= IMMEDIATE;
        c.cmd_sn = self.cmd_sn.into();
        c.bhs()
    }
}

fn residual(flags: u8, bytes: u32) -> i64 {
    match flags & (DataIn::OVERFLOW | DataIn::UNDERFLOW) {
        DataIn::OVERFLOW => i64::from(bytes),
        DataIn::UNDERFLOW => -i64::from(bytes),
        _ => 0,
    }
}
