//! A small array in this process, for what neither tgt nor istgt can do: two ports in two port groups, COMPARE AND WRITE,
//! PREEMPT AND ABORT, changes of size, identity and state, and writes that stay in the fabric until they are let go.
//!
//! It keeps to the rules a target must keep: a session that is begun anew ends the older one of the same name at its port,
//! and the writes of that; an abort ends the writes it is for; so does a preemption. Data are immediate only.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use iscsi::framer::End;
use iscsi::keys::negotiate::Negotiation;
use iscsi::keys::params::Offer;
use iscsi::pdu::raw::{
    DataIn, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, NopIn, NopOut, ScsiCommand, ScsiResponse,
    TRANSIT, TaskRequest, TaskResponse,
};
use iscsi::pdu::{BHS_LEN, Bhs, FINAL, Opcode};
use iscsi::text;
use parking_lot::Mutex;
use scsi::alua::AccessState;

use crate::commands::Answer;
use crate::tgt::TARGET;

/// Ports of the array.
pub(crate) const PORTS: usize = 2;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;

/// The array; gone at the end.
pub(crate) struct Array {
    pub(crate) ports: [u16; PORTS],
    pub(crate) state: Arc<Mutex<State>>,
}

/// An initiator port at a target port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    pub(crate) isid: [u8; 6],
    pub(crate) port: usize,
}

/// A write that stays in the fabric.
pub(crate) struct Held {
    pub(crate) of: Name,
    pub(crate) itt: u32,
    pub(crate) at: usize,
    pub(crate) data: Vec<u8>,
}

/// What the array is.
pub(crate) struct State {
    pub(crate) disk: Vec<u8>,
    pub(crate) blocks: u64,
    pub(crate) unit: u8,
    pub(crate) write_protected: bool,
    /// WCE and DPOFUA.
    pub(crate) write_cache: bool,
    pub(crate) fua: bool,
    /// A write that was acknowledged is found to be lost: the next command brings the news, as a deferred error.
    pub(crate) deferred: bool,
    /// Commands that came with FUA, and SYNCHRONIZE CACHEs.
    pub(crate) forced: u32,
    pub(crate) synced: u32,
    pub(crate) groups: [AccessState; PORTS],
    /// It counts the extended header of its list of groups wrongly, as LIO does.
    pub(crate) miscounts: bool,
    /// Unit attentions for each nexus: additional sense code and qualifier.
    pub(crate) attentions: BTreeMap<Name, VecDeque<(u8, u8)>>,
    pub(crate) keys: BTreeMap<Name, u64>,
    pub(crate) held: Option<scsi::reservations::ReservationType>,
    /// Writes over this port stay in the fabric.
    pub(crate) holds: [bool; PORTS],
    pub(crate) fabric: Vec<Held>,
    /// Sense key and code with which reads and writes through this port fail, and how many came to each.
    pub(crate) faults: [Option<(u8, u8, u8)>; PORTS],
    pub(crate) asked: [u32; PORTS],
    /// Refuses logins at this port.
    pub(crate) closed: [bool; PORTS],
    streams: BTreeMap<Name, TcpStream>,
    over: bool,
}

impl Array {
    pub(crate) fn start() -> Array {
        let state = State {
            disk: vec![0; 1 << 20],
            blocks: 2048,
            unit: 1,
            write_protected: false,
            write_cache: true,
            fua: true,
            deferred: false,
            forced: 0,
            synced: 0,
            groups: [AccessState::ActiveOptimized; PORTS],
            miscounts: false,
            attentions: BTreeMap::new(),
            keys: BTreeMap::new(),
            held: None,
            holds: [false; PORTS],
            fabric: Vec::new(),
            faults: [None; PORTS],
            asked: [0; PORTS],
            closed: [false; PORTS],
            streams: BTreeMap::new(),
            over: false,
        };
        let state = Arc::new(Mutex::new(state));
        let ports = std::array::from_fn(|port| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let number = listener.local_addr().expect("bound").port();
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if state.lock().over {
                        return;
                    }
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || Conn::new(stream, port, state).serve());
                }
            });
            number
        });
        Array { ports, state }
    }

    /// What is in the fabric arrives at the disk.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        for held in std::mem::take(&mut state.fabric) {
            state.disk[held.at..held.at + held.data.len()].copy_from_slice(&held.data);
        }
    }

    /// Every nexus is told, with its next command.
    pub(crate) fn attention(&self, asc: u8, ascq: u8) {
        self.state.lock().attention(asc, ascq);
    }

    /// Ends every connection at this port.
    pub(crate) fn cut(&self, port: usize) {
        let state = self.state.lock();
        let at_port = state.streams.iter().filter(|(name, _)| name.port == port);
        at_port.for_each(|(_, stream)| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl State {
    pub(crate) fn attention(&mut self, asc: u8, ascq: u8) {
        let names: Vec<Name> = self.streams.keys().copied().collect();
        for name in names {
            self.attentions.entry(name).or_default().push_back((asc, ascq));
        }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.over = true;
        state.streams.values().for_each(|s| drop(s.shutdown(Shutdown::Both)));
        drop(state);
        // Each port wakes up once more and sees that it is over.
        self.ports.iter().for_each(|p| drop(TcpStream::connect(("127.0.0.1", *p))));
    }
}

/// A connection.
struct Conn {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    name: Name,
    negotiation: Negotiation,
    stat_sn: u32,
    exp_cmd_sn: u32,
}

type End2 = Option<()>;

impl Conn {
    fn new(stream: TcpStream, port: usize, state: Arc<Mutex<State>>) -> Conn {
        drop(stream.set_nodelay(true));
        let negotiation = Negotiation::new(End::Target, false);
        Conn { stream, state, name: Name { isid: [0; 6], port }, negotiation, stat_sn: 1, exp_cmd_sn: 0 }
    }

    fn serve(mut self) {
        while self.turn().is_some() {}
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// One PDU; none at the connection's end.
    fn turn(&mut self) -> End2 {
        let mut head = [0; BHS_LEN];
        self.stream.read_exact(&mut head).ok()?;
        let bhs = Bhs::from_bytes(head);
        let len = bhs.data_segment() as usize;
        let mut data = vec![0; len.next_multiple_of(4)];
        self.stream.read_exact(&mut data).ok()?;
        data.truncate(len);
        match bhs.kind()? {
            Opcode::LoginRequest => self.login(&LoginRequest::of(&bhs), &data),
            Opcode::ScsiCommand => self.command(&ScsiCommand::of(&bhs), &data),
            Opcode::TaskRequest => self.manage(&TaskRequest::of(&bhs)),
            Opcode::NopOut if NopOut::of(&bhs).itt.get() != u32::MAX => {
                let answer = NopIn { itt: NopOut::of(&bhs).itt, ttt: u32::MAX.into(), ..NopIn::default() };
                self.send(answer.bhs(), &[])
            }
            Opcode::NopOut => Some(()),
            Opcode::LogoutRequest => {
                let answer = LogoutResponse { itt: LogoutRequest::of(&bhs).itt, ..LogoutResponse::default() };
                self.send(answer.bhs(), &[])?;
                None
            }
            _ => None,
        }
    }

    /// Every answer of a target has its numbers in the same places.
    fn send(&mut self, bhs: Bhs, data: &[u8]) -> End2 {
        let mut bytes = bhs.bytes().to_vec();
        bytes[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.exp_cmd_sn.wrapping_add(63).to_be_bytes());
        self.stat_sn = self.stat_sn.wrapping_add(1);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).ok()
    }

    fn login(&mut self, r: &LoginRequest, data: &[u8]) -> End2 {
        let (csg, transit) = (r.flags >> 2 & 3, r.flags & TRANSIT != 0);
        self.name.isid = r.isid;
        self.exp_cmd_sn = r.cmd_sn.get();
        if self.state.lock().closed[self.name.port] {
            return None;
        }
        let offer = Offer { initial_r2t: true, ..Offer::default() };
        let mut body = Vec::new();
        let mut pairs = text::pairs(data).ok()?;
        pairs.retain(|pair| {
            let auth = pair.key == "AuthMethod";
            if auth {
                text::push(&mut body, "AuthMethod", "None");
            }
            if pair.key == "InitiatorName" {
                text::push(&mut body, "TargetPortalGroupTag", &(self.name.port + 1).to_string());
            }
            !auth
        });
        for pair in &pairs {
            if let Some(answer) = self.negotiation.receive(pair, &offer).ok()? {
                text::push(&mut body, &answer.key, &answer.value);
            }
        }
        if csg == 1 && pairs.iter().any(|p| p.key == "MaxRecvDataSegmentLength") {
            text::push(&mut body, "MaxRecvDataSegmentLength", "262144");
        }
        let flags = match (csg, transit) {
            (0, true) => TRANSIT | 1,
            (1, true) => TRANSIT | 1 << 2 | 3,
            (csg, _) => csg << 2,
        };
        let full = flags & 3 == 3;
        if full {
            self.begin();
        }
        let tsih = u16::from(full).into();
        let answer = LoginResponse { flags, isid: r.isid, tsih, itt: r.itt, ..LoginResponse::default() };
        self.send(answer.with_data(body.len()).bhs(), &body)
    }

    /// The older session of this name at this port is over, and so are its writes.
    fn begin(&mut self) {
        let mut state = self.state.lock();
        let name = self.name;
        if let Some(old) = self.stream.try_clone().ok().and_then(|s| state.streams.insert(name, s)) {
            drop(old.shutdown(Shutdown::Both));
        }
        state.fabric.retain(|held| held.of != name);
        state.attentions.insert(name, VecDeque::from([(0x29, 0x07)]));
    }

    fn command(&mut self, c: &ScsiCommand, data: &[u8]) -> End2 {
        if c.opcode & iscsi::pdu::IMMEDIATE == 0 {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        let answer = self.state.lock().carry_out(self.name, c.itt.get(), &c.cdb, data);
        let expected = c.expected_len.get();
        match answer {
            Answer::Silence => Some(()),
            Answer::Good(bytes) if bytes.is_empty() => {
                self.send(ScsiResponse { itt: c.itt, ..ScsiResponse::default() }.bhs(), &[])
            }
            Answer::Good(mut bytes) => {
                bytes.truncate(expected as usize);
                let residual = expected - u32::try_from(bytes.len()).unwrap_or(0);
                let under = if residual > 0 { ScsiResponse::UNDERFLOW } else { 0 };
                let flags = FINAL | DataIn::STATUS | under;
                let answer =
                    DataIn { flags, itt: c.itt, ttt: u32::MAX.into(), residual: residual.into(), ..DataIn::default() };
                self.send(answer.with_data(bytes.len()).bhs(), &bytes)
            }
            Answer::Conflict => {
                self.send(ScsiResponse { itt: c.itt, status: 0x18, ..ScsiResponse::default() }.bhs(), &[])
            }
            Answer::Check(key, asc, ascq) | Answer::Deferred(key, asc, ascq) => {
                let code = if matches!(answer, Answer::Deferred(..)) { 0x71 } else { 0x70 };
                let mut body = vec![0, 18, code, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq];
                body.resize(20, 0);
                let flags = FINAL | if expected > 0 { ScsiResponse::UNDERFLOW } else { 0 };
                let answer =
                    ScsiResponse { flags, itt: c.itt, status: 2, residual: expected.into(), ..ScsiResponse::default() };
                self.send(answer.with_data(body.len()).bhs(), &body)
            }
        }
    }

    /// An abort ends its task, anything else those of the unit.
    fn manage(&mut self, r: &TaskRequest) -> End2 {
        let (name, abort, of) = (self.name, r.flags & 0x7f == 1, r.ref_task.get());
        self.state.lock().fabric.retain(|held| !(held.of == name && (!abort || held.itt == of)));
        self.send(TaskResponse { itt: r.itt, ..TaskResponse::default() }.bhs(), &[])
    }
}

/// The target's name, of which the array has one.
pub(crate) const fn target() -> &'static str {
    TARGET
}
