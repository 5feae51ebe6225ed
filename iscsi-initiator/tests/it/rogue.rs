//! A target that breaks the protocol, one deed at a time, over a real connection. Each deed comes with the first command of the
//! first connection; every later connection is served as it should be. So each deed must end in what is right: the command's
//! data, with the connection kept or, after the reason that is expected, a new login.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use block::buf::AlignedBuf;
use iscsi::digest::{of_data, of_header};
use iscsi::discovery::Portal;
use iscsi::framer::End;
use iscsi::ids::Isid;
use iscsi::keys::negotiate::Negotiation;
use iscsi::keys::params::{DigestWish, Offer};
use iscsi::login::{Kind, LoginConfig};
use iscsi::pdu::raw::{
    Async, CONTINUE, DataIn, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, NopIn, NopOut, R2t, Reject,
    ScsiCommand, ScsiResponse, TRANSIT, TextResponse,
};
use iscsi::pdu::{BHS_LEN, Bhs, FINAL, IMMEDIATE, Opcode};
use iscsi::session::{Class, Config, Outcome};
use iscsi::text;
use iscsi_initiator::{Ownership, Session, SessionState};
use scsi::cdb::Read as ReadCommand;
use scsi::{BlockCount, BlockLen, BlockRange, Lba, LunAddress, Status};

use crate::tgt::{HOST, TARGET, run, workers};

/// Bytes that each command reads.
const LEN: usize = 1024;
/// What is read.
const BYTE: u8 = 0x5e;
/// The longest data segment that the initiator takes.
const LONGEST: u32 = 4096;

/// How a connection goes on after the deed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// As if nothing had happened.
    GoesOn,
    /// Everything is read and nothing answered.
    Mute,
    /// It is closed.
    Closes,
}
use Then::{Closes, GoesOn, Mute};

/// What is done to a request.
type Does<Request> = Arc<dyn Fn(&mut Wire, &Request) -> Then + Send + Sync>;
/// A PDU for a command, and whether it takes a StatSN.
type Answer = fn(&ScsiCommand) -> (Bhs, bool);

/// What is done instead of an answer.
#[derive(Clone)]
enum Deed {
    /// To a command.
    Command(Does<ScsiCommand>),
    /// To a login request of this stage.
    Login(u8, Does<LoginRequest>),
}

fn at_command(deed: impl Fn(&mut Wire, &ScsiCommand) -> Then + Send + Sync + 'static) -> Deed {
    Deed::Command(Arc::new(deed))
}

fn at_login(stage: u8, deed: impl Fn(&mut Wire, &LoginRequest) -> Then + Send + Sync + 'static) -> Deed {
    Deed::Login(stage, Arc::new(deed))
}

/// The target.
struct Rogue {
    port: u16,
    logins: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Rogue {
    fn start(deed: Deed, digests: bool) -> Rogue {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (logins, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&logins), Arc::clone(&over));
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                count.fetch_add(1, Ordering::AcqRel);
                let deed = (n == 0).then(|| deed.clone());
                std::thread::spawn(move || Wire::new(stream, deed, digests).serve());
            }
        });
        Rogue { port, logins, over }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// A connection.
struct Wire {
    stream: TcpStream,
    deed: Option<Deed>,
    /// What was agreed, and whether it is in force.
    digests: bool,
    digested: bool,
    negotiation: Negotiation,
    stat_sn: u32,
    exp_cmd_sn: u32,
    mute: bool,
}

impl Wire {
    fn new(stream: TcpStream, deed: Option<Deed>, digests: bool) -> Wire {
        drop(stream.set_nodelay(true));
        let negotiation = Negotiation::new(End::Target, false);
        Wire { stream, deed, digests, digested: false, negotiation, stat_sn: 1, exp_cmd_sn: 0, mute: false }
    }

    fn serve(mut self) {
        while self.turn().is_some() {}
        drop(self.stream.shutdown(Shutdown::Both));
    }

    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// One PDU; none at the connection's end.
    fn turn(&mut self) -> Option<()> {
        let head: [u8; BHS_LEN] = self.take(BHS_LEN)?.try_into().ok()?;
        let bhs = Bhs::from_bytes(head);
        let len = bhs.data_segment() as usize;
        let digest = if self.digested { 4 } else { 0 };
        self.take(digest)?;
        let data = self.take(len.next_multiple_of(4) + if len > 0 { digest } else { 0 })?;
        if self.mute {
            return Some(());
        }
        match bhs.kind()? {
            Opcode::LoginRequest => self.login(&LoginRequest::of(&bhs), &data[..len]),
            Opcode::ScsiCommand => self.command(&ScsiCommand::of(&bhs)),
            Opcode::NopOut if NopOut::of(&bhs).itt.get() != u32::MAX => {
                let answer = NopIn { itt: NopOut::of(&bhs).itt, ttt: u32::MAX.into(), ..NopIn::default() };
                self.send(answer.bhs(), &[], true)
            }
            Opcode::LogoutRequest => {
                let answer = LogoutResponse { itt: LogoutRequest::of(&bhs).itt, ..LogoutResponse::default() };
                self.send(answer.bhs(), &[], true)?;
                None
            }
            _ => Some(()),
        }
    }

    fn then(&mut self, then: Then) -> Option<()> {
        self.mute = then == Mute;
        (then != Closes).then_some(())
    }

    /// With the numbers that every answer of a target has in the same places.
    fn numbered(&self, bhs: &Bhs) -> [u8; BHS_LEN] {
        let mut bytes = *bhs.bytes();
        bytes[24..28].copy_from_slice(&self.stat_sn.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.exp_cmd_sn.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.exp_cmd_sn.wrapping_add(31).to_be_bytes());
        bytes
    }

    /// The bytes of a PDU; `status` if it takes a StatSN.
    fn pdu(&mut self, bhs: Bhs, data: &[u8], status: bool) -> Vec<u8> {
        let head = self.numbered(&bhs);
        self.stat_sn = self.stat_sn.wrapping_add(u32::from(status));
        let mut bytes = head.to_vec();
        if self.digested {
            bytes.extend(of_header(&head, &[]));
        }
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + (data.len().wrapping_neg() & 3), 0);
        if self.digested && !data.is_empty() {
            bytes.extend(of_data(data));
        }
        bytes
    }

    fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    fn send(&mut self, bhs: Bhs, data: &[u8], status: bool) -> Option<()> {
        let bytes = self.pdu(bhs, data, status);
        self.raw(&bytes)
    }

    fn login(&mut self, r: &LoginRequest, data: &[u8]) -> Option<()> {
        let (stage, transit) = (r.flags >> 2 & 3, r.flags & TRANSIT != 0);
        self.exp_cmd_sn = r.cmd_sn.get();
        if matches!(&self.deed, Some(Deed::Login(at, _)) if *at == stage)
            && let Some(Deed::Login(_, deed)) = self.deed.take()
        {
            let then = deed(self, r);
            if then != GoesOn {
                return self.then(then);
            }
        }
        let wish = if self.digests { DigestWish::Always } else { DigestWish::Never };
        let offer = Offer { header_digest: wish, data_digest: wish, ..Offer::default() };
        let mut body = Vec::new();
        for pair in text::pairs(data).ok()? {
            match pair.key.as_str() {
                "AuthMethod" => text::push(&mut body, "AuthMethod", "None"),
                "InitiatorName" => text::push(&mut body, "TargetPortalGroupTag", "1"),
                _ => {}
            }
            if pair.key != "AuthMethod"
                && let Some(answer) = self.negotiation.receive(&pair, &offer).ok()?
            {
                text::push(&mut body, &answer.key, &answer.value);
            }
        }
        let flags = match (stage, transit) {
            (0, true) => TRANSIT | 1,
            (1, true) => TRANSIT | 1 << 2 | 3,
            (stage, _) => stage << 2,
        };
        let full = flags & 3 == 3;
        let tsih = u16::from(full).into();
        let answer = LoginResponse { flags, isid: r.isid, tsih, itt: r.itt, ..LoginResponse::default() };
        self.send(answer.with_data(body.len()).bhs(), &body, true)?;
        self.digested = full && self.digests;
        Some(())
    }

    fn command(&mut self, c: &ScsiCommand) -> Option<()> {
        if c.opcode & IMMEDIATE == 0 {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        if let Some(Deed::Command(deed)) = self.deed.take() {
            let then = deed(self, c);
            return self.then(then);
        }
        self.answer(c)
    }

    /// The next PDU, where nothing but commands comes.
    fn next_command(&mut self) -> Option<ScsiCommand> {
        let head: [u8; BHS_LEN] = self.take(BHS_LEN)?.try_into().ok()?;
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        Some(ScsiCommand::of(&Bhs::from_bytes(head)))
    }

    /// As it should be.
    fn answer(&mut self, c: &ScsiCommand) -> Option<()> {
        let bytes = self.good(c);
        self.raw(&bytes)
    }

    fn good(&mut self, c: &ScsiCommand) -> Vec<u8> {
        let data = [BYTE; LEN];
        self.pdu(data_in(c).with_data(LEN).bhs(), &data, true)
    }
}

/// The last Data-In of a command, with its status.
fn data_in(c: &ScsiCommand) -> DataIn {
    DataIn { flags: FINAL | DataIn::STATUS, itt: c.itt, ttt: u32::MAX.into(), ..DataIn::default() }
}

fn config(port: u16, digests: bool) -> Config {
    let ms = Duration::from_millis;
    let mut login = LoginConfig::new(HOST, Isid::from_number(6, 1), Kind::Normal { target: TARGET.into() });
    let wish = if digests { DigestWish::Always } else { DigestWish::Never };
    login.offer = Offer { header_digest: wish, data_digest: wish, max_recv_segment: LONGEST, ..Offer::default() };
    let mut config = Config::new(login, Portal { host: "127.0.0.1".into(), port });
    config.timing.login = ms(400);
    (config.timing.ping_after, config.timing.ping_timeout) = (ms(200), ms(200));
    (config.timing.back_off, config.timing.back_off_max) = (ms(20), ms(20));
    config
}

/// Reads once from a target that does this; the reasons for which the connection was given up, and how many logins there were.
fn read_from(deed: Deed, digests: bool) -> (Vec<String>, usize) {
    let workers = workers();
    let rogue = Rogue::start(deed, digests);
    let session = Session::start(&workers.handle(), 0, config(rogue.port, digests), Ownership::Alone);
    let causes = run(&workers, move || async move {
        let range = BlockRange::new(Lba(0), BlockCount(LEN as u64 / 512));
        let cdb = ReadCommand::new(range).cdb(BlockLen::B512).expect("fits");
        let memory = Some(AlignedBuf::zeroed(LEN));
        let mut read = Box::pin(session.carry_out(LunAddress::ZERO, cdb, Class::Read, memory));
        let (mut state, mut causes) = (session.state(), Vec::new());
        let ended = loop {
            tokio::select! {
                ended = &mut read => break ended,
                changed = state.changed() => {
                    changed.expect("the session goes on");
                    if let SessionState::Down(Some(cause)) | SessionState::Ended(cause) = &*state.borrow_and_update() {
                        causes.push(cause.to_string());
                    }
                }
            }
        };
        let good =
            matches!(&ended.outcome, Outcome::Answered(a) if a.status == Status::Good && a.moved as usize == LEN);
        assert!(good, "{:?} after {causes:?}", ended.outcome);
        assert!(ended.memory.expect("comes back")[..] == [BYTE; LEN], "the right data, whatever came before");
        session.close().await;
        causes
    });
    let logins = rogue.logins.load(Ordering::Acquire);
    (causes, logins)
}

/// The deed ends the connection for a reason with these words; the next login brings the data.
#[track_caller]
fn breaks(name: &str, words: &str, digests: bool, deed: Deed) {
    let (causes, logins) = read_from(deed, digests);
    assert!(causes.len() == 1 && causes[0].contains(words), "{name}: {causes:?} has not {words:?}");
    assert_eq!(logins, 2, "{name}");
}

/// The deed does no harm.
#[track_caller]
fn passes(name: &str, deed: Deed) {
    assert_eq!(read_from(deed, false), (Vec::new(), 1), "{name}");
}

#[test]
fn digests_that_are_wrong_end_the_connection() {
    let damaged = |at: usize| {
        at_command(move |w, c| {
            let mut bytes = w.good(c);
            bytes[at] ^= 1;
            w.raw(&bytes);
            GoesOn
        })
    };
    breaks("a bit of the header", "header digest", true, damaged(20));
    breaks("a bit of its digest", "header digest", true, damaged(BHS_LEN));
    breaks("a bit of the data", "data digest", true, damaged(BHS_LEN + 4 + 100));
    breaks("a bit of the data's digest", "data digest", true, damaged(BHS_LEN + 4 + LEN));
}

#[test]
fn bytes_that_are_no_pdus_end_the_connection() {
    let header = |change: fn(&mut [u8])| {
        at_command(move |w, c| {
            let mut bytes = w.good(c);
            change(&mut bytes);
            w.raw(&bytes);
            GoesOn
        })
    };
    breaks("an unknown opcode", "unknown opcode", false, header(|b| b[0] = 0x3c));
    breaks("an initiator's opcode", "wrong end", false, header(|b| b[0] = 0x01));
    breaks(
        "more data than declared",
        "is the most that was declared",
        false,
        header(|b| b[5..8].copy_from_slice(&[0, 0x10, 4])),
    );
    breaks("16 MiB of data", "is the most that was declared", false, header(|b| b[5..8].copy_from_slice(&[0xff; 3])));
    // Nobody says what additional header segments of an answer are for. They are counted and passed over.
    passes(
        "additional header segments",
        at_command(|w, c| {
            let mut bytes = w.good(c);
            bytes[4] = 255;
            bytes.splice(BHS_LEN..BHS_LEN, [0xaa; 1020]);
            w.raw(&bytes);
            GoesOn
        }),
    );
}

#[test]
fn a_pdu_that_ends_in_the_middle_ends_the_connection_wherever_that_is() {
    for cut in (0..BHS_LEN + LEN).step_by(67).chain([BHS_LEN - 1, BHS_LEN, BHS_LEN + 1, BHS_LEN + LEN - 1]) {
        let deed = |then| {
            at_command(move |w, c| {
                let bytes = w.good(c);
                w.raw(&bytes[..cut]);
                then
            })
        };
        breaks(&format!("closed after {cut} bytes"), "closed the connection", false, deed(Closes));
        if cut % 4 == 0 {
            breaks(&format!("silent after {cut} bytes"), "does not answer any more", false, deed(Mute));
        }
    }
}

#[test]
fn numbers_that_are_wrong_end_the_connection() {
    breaks(
        "a StatSN is left out",
        "StatSN",
        false,
        at_command(|w, c| {
            w.stat_sn += 1;
            w.answer(c);
            GoesOn
        }),
    );
    breaks(
        "a StatSN twice",
        "StatSN",
        false,
        at_command(|w, c| {
            w.stat_sn -= 1;
            w.answer(c);
            GoesOn
        }),
    );
    let data = |data_sn: u32, offset: u32, len: usize| {
        at_command(move |w, c| {
            let d = DataIn { data_sn: data_sn.into(), buffer_offset: offset.into(), ..data_in(c) };
            w.send(d.with_data(len).bhs(), &vec![1; len], true);
            GoesOn
        })
    };
    breaks("a DataSN is left out", "out of order", false, data(1, 0, LEN));
    breaks("data are left out", "out of order", false, data(0, 512, 512));
    breaks("data behind the end", "beyond what was asked for", false, data(0, 512, LEN));
    breaks("data at the end of the world", "beyond what was asked for", false, data(0, u32::MAX, 4));
    breaks("fewer data, and no residual", "not all of its data", false, data(0, 0, 512));
    let response = |flags: u8, residual: u32, exp_data_sn: u32| {
        at_command(move |w, c| {
            w.send(DataIn { flags: FINAL, ..data_in(c) }.with_data(LEN).bhs(), &[1; LEN], false);
            let r = ScsiResponse {
                flags: FINAL | flags,
                itt: c.itt,
                residual: residual.into(),
                exp_data_sn: exp_data_sn.into(),
                ..ScsiResponse::default()
            };
            w.send(r.bhs(), &[], true);
            GoesOn
        })
    };
    breaks("a residual of what came", "not all of its data", false, response(ScsiResponse::UNDERFLOW, 512, 1));
    breaks("a residual of more than there was", "residual larger", false, response(ScsiResponse::UNDERFLOW, 9999, 1));
    breaks("more data were sent than came", "fewer data came", false, response(0, 0, 2));
}

#[test]
fn answers_to_what_was_not_asked_end_the_connection() {
    let and = |second: fn(&mut Wire, &ScsiCommand)| {
        at_command(move |w, c| {
            let bhs = DataIn { flags: FINAL, ..data_in(c) }.with_data(LEN).bhs();
            w.send(bhs, &[1; LEN], false);
            second(w, c);
            GoesOn
        })
    };
    breaks(
        "an R2T for a read",
        "writes nothing",
        false,
        and(|w, c| {
            let r2t = R2t { itt: c.itt, ttt: 1.into(), desired_len: 512.into(), ..R2t::default() };
            w.send(r2t.bhs(), &[], false);
        }),
    );
    let nobodys = |bhs: fn(u32) -> Bhs, status: bool| {
        at_command(move |w, c| {
            w.send(bhs(c.itt.get() ^ 0x0010_0000), &[], status);
            GoesOn
        })
    };
    breaks(
        "a response to no task",
        "no task",
        false,
        nobodys(|itt| ScsiResponse { itt: itt.into(), ..ScsiResponse::default() }.bhs(), true),
    );
    breaks(
        "an R2T for no task",
        "no task",
        false,
        nobodys(|itt| R2t { itt: itt.into(), ttt: 1.into(), desired_len: 4.into(), ..R2t::default() }.bhs(), false),
    );
    breaks(
        "data for no task",
        "no task",
        false,
        nobodys(|itt| DataIn { itt: itt.into(), ..DataIn::default() }.bhs(), false),
    );
    breaks(
        "an answer to no ping",
        "no ping",
        false,
        nobodys(|itt| NopIn { itt: itt.into(), ..NopIn::default() }.bhs(), true),
    );
    breaks(
        "an answer to no text",
        "no text",
        false,
        nobodys(|itt| TextResponse { itt: itt.into(), ..TextResponse::default() }.bhs(), true),
    );
    breaks(
        "an answer to no logout",
        "no logout",
        false,
        nobodys(|itt| LogoutResponse { itt: itt.into(), ..LogoutResponse::default() }.bhs(), true),
    );
    breaks(
        "a login response",
        "full feature phase",
        false,
        nobodys(|itt| LoginResponse { itt: itt.into(), ..LoginResponse::default() }.bhs(), true),
    );
}

/// The command has ended and its tag is free: what still comes under it is an answer to no task.
#[test]
fn what_comes_after_the_end_of_a_task_is_for_no_task() {
    let late: [Answer; 3] = [
        |c| (ScsiResponse { itt: c.itt, ..ScsiResponse::default() }.bhs(), true),
        |c| (R2t { itt: c.itt, ttt: 1.into(), desired_len: 512.into(), ..R2t::default() }.bhs(), false),
        |c| (DataIn { itt: c.itt, ..DataIn::default() }.bhs(), false),
    ];
    for second in late {
        let workers = workers();
        let deed = at_command(move |w, c| {
            w.answer(c);
            let (bhs, status) = second(c);
            w.send(bhs, &[], status);
            GoesOn
        });
        let rogue = Rogue::start(deed, false);
        let session = Session::start(&workers.handle(), 0, config(rogue.port, false), Ownership::Alone);
        run(&workers, move || async move {
            let read = ReadCommand::new(BlockRange::new(Lba(0), BlockCount(LEN as u64 / 512))).cdb(BlockLen::B512);
            let memory = Some(AlignedBuf::zeroed(LEN));
            let read = session.carry_out(LunAddress::ZERO, read.expect("fits"), Class::Read, memory).await;
            assert!(matches!(read.outcome, Outcome::Answered(_)), "{:?}", read.outcome);
            let mut state = session.state();
            let down = state.wait_for(|s| matches!(s, SessionState::Down(Some(_)))).await.expect("goes on").clone();
            assert!(
                matches!(&down, SessionState::Down(Some(cause)) if cause.to_string().contains("no task")),
                "{down:?}"
            );
            session.close().await;
        });
    }
}

#[test]
fn a_reject_is_recovered_from_or_ends_the_connection() {
    let reject = |reason: u8, whole: bool| {
        at_command(move |w, c| {
            let refused = *c.bhs().bytes();
            let refused = if whole { &refused[..] } else { &refused[..20] };
            let r = Reject { reason, itt: u32::MAX.into(), ..Reject::default() }.with_data(refused.len());
            w.send(r.bhs(), refused, true);
            GoesOn
        })
    };
    for reason in [0, 1, 2, 3, 4, 5, 7, 8, 9, 0x0b, 0x0d, 0xff] {
        breaks(&format!("reason {reason:#x}"), "refused a PDU", false, reject(reason, true));
    }
    for reason in [6, 0x0a] {
        passes(&format!("no room: reason {reason:#x}"), reject(reason, true));
    }
    breaks("waiting for a logout", "asked for a new login", false, reject(0x0c, true));
    breaks("without the header that it is about", "refused a PDU", false, reject(4, false));
}

#[test]
fn what_a_target_says_on_its_own_is_heeded() {
    let event = |event: u8| {
        at_command(move |w, c| {
            let a = Async { itt: u32::MAX.into(), event, parameter3: 1.into(), ..Async::default() };
            w.send(a.bhs(), &[], true);
            // Event 1 asks for a logout, and an answered command would end the test.
            if event == 1 { GoesOn } else { w.answer(c).map_or(Closes, |()| GoesOn) }
        })
    };
    for n in [1, 2, 3, 4] {
        breaks(&format!("event {n}"), "asked for a new login", false, event(n));
    }
    passes("sense on its own", event(0));
    passes("a vendor's event", event(255));
    passes(
        "a storm of pings",
        at_command(|w, c| {
            for n in 0..2000_u32 {
                let ping = NopIn { itt: u32::MAX.into(), ttt: n.into(), ..NopIn::default() };
                w.send(ping.with_data(8).bhs(), &[7; 8], false);
            }
            w.answer(c);
            GoesOn
        }),
    );
    passes(
        "a window that shrinks, and one that makes no sense",
        at_command(|w, c| {
            let before = w.exp_cmd_sn;
            for exp in [before.wrapping_sub(9), before.wrapping_add(1 << 31)] {
                w.exp_cmd_sn = exp;
                w.send(NopIn { itt: u32::MAX.into(), ttt: u32::MAX.into(), ..NopIn::default() }.bhs(), &[], false);
            }
            w.exp_cmd_sn = before;
            w.answer(c);
            GoesOn
        }),
    );
}

#[test]
fn silence_and_nonsense_in_every_phase_of_a_login_end_it() {
    for stage in [0, 1] {
        breaks(&format!("silence in stage {stage}"), "no answer to the login", false, at_login(stage, |_, _| Mute));
        breaks(&format!("closed in stage {stage}"), "closed the connection", false, at_login(stage, |_, _| Closes));
        let says = |change: fn(&mut LoginResponse, u8), body: &'static [u8]| {
            at_login(stage, move |w, r| {
                let stage = r.flags >> 2 & 3;
                let flags = TRANSIT | stage << 2 | if stage == 0 { 1 } else { 3 };
                let mut answer =
                    LoginResponse { flags, isid: r.isid, itt: r.itt, tsih: 1.into(), ..LoginResponse::default() };
                change(&mut answer, stage);
                w.send(answer.with_data(body.len()).bhs(), body, true);
                Mute
            })
        };
        breaks(
            "the text goes on and ends the stage",
            "breaks the login protocol",
            false,
            says(|r, _| r.flags |= CONTINUE, b"X-a=1\0"),
        );
        breaks(
            "half a text, and silence",
            "no answer to the login",
            false,
            says(|r, stage| r.flags = CONTINUE | stage << 2, b"X-a="),
        );
        breaks("out of resources", "no resources", false, says(|r, _| (r.status_class, r.status_detail) = (3, 2), b""));
    }
}

/// While answers come quickly the driver is woken for several at once. Then one comes alone, and all others only when it has arrived
/// at whoever waits for it: a driver that waits for its number of answers waits for ever.
#[test]
fn a_lone_answer_behind_quick_ones_is_not_kept_waiting() {
    const QUICK: usize = 4000;
    const LANES: usize = 16;
    let (ended, alone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, arrived) = (Arc::clone(&ended), Arc::clone(&alone));
    let reaches = move |n: usize| {
        let begun = Instant::now();
        while count.load(Ordering::Acquire) < n && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        count.load(Ordering::Acquire) >= n
    };
    let rogue = Rogue::start(
        at_command(move |w, first| {
            let mut command = *first;
            for _ in 0..QUICK {
                w.answer(&command);
                command = w.next_command().expect("each answer lets another come");
            }
            let others: Vec<ScsiCommand> = (1..LANES).map_while(|_| w.next_command()).collect();
            reaches(QUICK);
            w.answer(&command);
            arrived.store(reaches(QUICK + 1), Ordering::Release);
            for other in &others {
                w.answer(other);
            }
            GoesOn
        }),
        false,
    );
    let workers = workers();
    let mut config = config(rogue.port, false);
    config.timing.ping_after = Duration::from_secs(30);
    let session = Session::start(&workers.handle(), 0, config, Ownership::Alone);
    run(&workers, move || async move {
        let issued = Arc::new(AtomicUsize::new(0));
        let lanes = (0..LANES).map(|_| {
            let (session, issued, ended) = (session.clone(), Arc::clone(&issued), Arc::clone(&ended));
            tokio::task::spawn_local(async move {
                while issued.fetch_add(1, Ordering::AcqRel) < QUICK + 2 * LANES {
                    let range = BlockRange::new(Lba(0), BlockCount(LEN as u64 / 512));
                    let cdb = ReadCommand::new(range).cdb(BlockLen::B512).expect("fits");
                    let memory = Some(AlignedBuf::zeroed(LEN));
                    let read = session.carry_out(LunAddress::ZERO, cdb, Class::Read, memory).await;
                    assert!(matches!(&read.outcome, Outcome::Answered(a) if a.status == Status::Good));
                    ended.fetch_add(1, Ordering::AcqRel);
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.expect("no lane fails");
        }
        session.close().await;
    });
    assert!(alone.load(Ordering::Acquire), "it lay in the socket until the others came");
    assert_eq!(rogue.logins.load(Ordering::Acquire), 1);
}
