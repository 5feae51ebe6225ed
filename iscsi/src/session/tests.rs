//! A session against a target that a test plays by hand: what it sends, PDU by PDU, and what each breach leads to.

use scsi::{LunAddress, Status};

use super::rules::Rules;
use super::*;
use crate::chap::{Account, CHALLENGE_LEN, Chap, Entropy, Secret};
use crate::framer::End;
use crate::ids::Isid;
use crate::keys::negotiate::Negotiation;
use crate::keys::params::Offer;
use crate::login::{Kind, LoginConfig, LoginError};
use crate::pdu::raw::*;
use crate::pdu::{FINAL, IMMEDIATE};
use crate::text;

/// A session and the numbers of its target.
struct Play {
    session: Session,
    now: Now,
    conn: ConnId,
    stat_sn: u32,
    /// Commands the target has room for.
    room: u32,
    cmd_sn: u32,
    seen: Vec<Effect>,
}

fn login_config() -> LoginConfig {
    let kind = Kind::Normal { target: "iqn.2026-01.test:t1".into() };
    LoginConfig::new("iqn.2026-01.test:host", Isid::from_number(1, 1), kind)
}

fn lun() -> LunAddress {
    LunAddress::new(1).expect("in range")
}

fn command(task: u16, transfer: Transfer, class: Class) -> Command {
    Command { task: TaskId(task), lun: lun(), cdb: [0x88; 16], transfer, class }
}

fn read(task: u16) -> Command {
    command(task, Transfer::In(1024), Class::Read)
}

fn write(task: u16, len: u32) -> Command {
    command(task, Transfer::Out(len), Class::Write(FenceGen(1)))
}

impl Play {
    fn open(config: Config) -> Play {
        let mut play = Play {
            session: Session::new(config),
            now: Now(1000),
            conn: ConnId(1),
            stat_sn: 500,
            room: 32,
            cmd_sn: 1,
            seen: Vec::new(),
        };
        play.tell(Event::Open);
        play
    }

    fn tell(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut fx = Vec::new();
        self.session.handle(self.now, event, &mut fx);
        self.seen.extend(fx.iter().cloned());
        fx
    }

    /// Time passes, with every tick that is due.
    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let until = Now(self.now.0 + ms);
        let mut fx = Vec::new();
        while let Some(at) = self.session.next_tick().filter(|t| *t <= until) {
            self.now = self.now.max(at);
            fx.extend(self.tell(Event::Tick));
        }
        self.now = until;
        fx
    }

    /// A PDU of the target, with its numbers.
    fn hear(&mut self, bhs: Bhs, data: &[u8], status: bool) -> Vec<Effect> {
        let mut n = NopIn::of(&bhs);
        n.stat_sn = self.stat_sn.into();
        n.exp_cmd_sn = self.cmd_sn.into();
        n.max_cmd_sn = (self.cmd_sn + self.room - 1).into();
        if status {
            self.stat_sn += 1;
        }
        let (conn, bhs) = (self.conn, n.bhs());
        self.tell(Event::Pdu { conn, bhs, data, intact: true })
    }

    /// Connects and logs in, with these keys as the target's wish.
    fn log_in(&mut self, target: &Offer) -> Vec<Effect> {
        let Some(Effect::Connect { conn, .. }) = self.seen.iter().rev().find(|e| matches!(e, Effect::Connect { .. }))
        else {
            panic!("connects: {:?}", self.seen)
        };
        self.conn = *conn;
        let entropy = Entropy { identifier: 1, challenge: [7; CHALLENGE_LEN] };
        let mut fx = self.tell(Event::Connected { conn: self.conn, entropy });
        let mut negotiation = Negotiation::new(End::Target, false);
        for _ in 0..4 {
            let Some(request) = sent(&fx).into_iter().find(|b| b.kind() == Some(Opcode::LoginRequest)) else { break };
            let r = LoginRequest::of(&request);
            let mut body = Vec::new();
            for pair in text::pairs(&inline(&fx)).expect("own text").iter().filter(|p| p.key != "AuthMethod") {
                if let Some(p) = negotiation.receive(pair, target).expect("possible") {
                    text::push(&mut body, &p.key, &p.value);
                }
            }
            if r.flags >> 2 & 3 == 0 {
                text::push(&mut body, "TargetPortalGroupTag", "1");
            } else {
                text::push(&mut body, "MaxRecvDataSegmentLength", &target.max_recv_segment.to_string());
            }
            let answer = LoginResponse { flags: r.flags, itt: r.itt, tsih: 1.into(), ..LoginResponse::default() };
            self.cmd_sn = r.cmd_sn.get();
            fx = self.hear(answer.with_data(body.len()).bhs(), &body, true);
        }
        fx
    }

    /// A proved nexus.
    fn up() -> Play {
        Play::up_with(Config::new(login_config(), portal()), &Offer::default())
    }

    fn up_with(config: Config, target: &Offer) -> Play {
        let mut play = Play::open(config);
        let fx = play.log_in(target);
        assert!(fx.iter().any(|e| matches!(e, Effect::Up { nexus: 1, .. })), "{fx:?}");
        play.tell(Event::Proved { nexus: 1, generation: FenceGen(1) });
        play
    }

    /// Submits a command; its header as it was sent.
    fn submit(&mut self, command: Command) -> ScsiCommand {
        let fx = self.tell(Event::Submit(command));
        let found = sent(&fx).into_iter().find(|b| b.kind() == Some(Opcode::ScsiCommand));
        self.cmd_sn += 1;
        ScsiCommand::of(&found.unwrap_or_else(|| panic!("is sent: {fx:?}")))
    }

    fn done(&mut self, itt: u32, status: Status) -> Vec<Effect> {
        let r = ScsiResponse { itt: itt.into(), status: status.to_byte(), ..ScsiResponse::default() };
        self.hear(r.bhs(), &[], true)
    }
}

fn portal() -> Portal {
    Portal { host: "san".into(), port: 3260 }
}

/// The headers that were sent.
fn sent(fx: &[Effect]) -> Vec<Bhs> {
    fx.iter().filter_map(|e| if let Effect::Send { bhs, .. } = e { Some(*bhs) } else { None }).collect()
}

fn inline(fx: &[Effect]) -> Vec<u8> {
    let body = |e: &Effect| if let Effect::Send { body: Body::Inline(b), .. } = e { Some(b.clone()) } else { None };
    fx.iter().find_map(body).unwrap_or_default()
}

fn down(fx: &[Effect]) -> Option<Cause> {
    fx.iter().find_map(|e| if let Effect::Down(c) = e { Some(c.clone()) } else { None })
}

fn outcome(fx: &[Effect], task: u16) -> Option<Outcome> {
    fx.iter().find_map(|e| match e {
        Effect::Done(t, o) if t.0 == task => Some(o.clone()),
        _ => None,
    })
}

#[test]
fn a_read_is_placed_in_memory_and_ends_with_the_status_in_its_data() {
    let mut play = Play::up();
    let c = play.submit(read(5));
    assert_eq!((c.flags, c.expected_len.get(), c.cmd_sn.get()), (0xc1, 1024, 1));
    let first = DataIn { itt: c.itt, ..DataIn::default() }.with_data(512);
    assert_eq!(play.session.place(&first.bhs()), Place::Task { task: TaskId(5), offset: 0 });
    assert!(play.hear(first.bhs(), &[], false).is_empty());
    let last = DataIn {
        flags: FINAL | DataIn::STATUS,
        itt: c.itt,
        data_sn: 1.into(),
        buffer_offset: 512.into(),
        ..DataIn::default()
    };
    let fx = play.hear(last.with_data(512).bhs(), &[], true);
    let answer = Answer { status: Status::Good, sense: vec![], moved: 1024, overflow: 0 };
    assert_eq!(outcome(&fx, 5), Some(Outcome::Answered(answer)));
}

#[test]
fn a_short_read_says_how_much_was_moved_and_sense_is_handed_on() {
    let mut play = Play::up();
    let c = play.submit(read(0));
    play.hear(DataIn { flags: FINAL, itt: c.itt, ..DataIn::default() }.with_data(512).bhs(), &[], false);
    let r =
        ScsiResponse { flags: FINAL | ScsiResponse::UNDERFLOW, itt: c.itt, residual: 512.into(), ..Default::default() };
    let fx = play.hear(r.bhs(), &[], true);
    assert!(matches!(outcome(&fx, 0), Some(Outcome::Answered(Answer { moved: 512, .. }))), "{fx:?}");
    let c = play.submit(read(0));
    let r = ScsiResponse { itt: c.itt, status: 2, ..ScsiResponse::default() }.with_data(6);
    let fx = play.hear(r.bhs(), &[0, 4, 0x70, 0, 5, 0], true);
    let Some(Outcome::Answered(answer)) = outcome(&fx, 0) else { panic!("{fx:?}") };
    assert_eq!((answer.status, answer.sense), (Status::CheckCondition, vec![0x70, 0, 5, 0]));
}

#[test]
fn a_write_travels_immediate_then_unasked_then_as_it_is_asked_for() {
    let target = Offer { max_recv_segment: 4096, first_burst: 8192, max_burst: 8192, ..Offer::default() };
    let mut play = Play::up_with(Config::new(login_config(), portal()), &target);
    let fx = play.tell(Event::Submit(write(3, 20_480)));
    let pdus = sent(&fx);
    let c = ScsiCommand::of(&pdus[0]);
    assert_eq!((c.flags & FINAL, c.data_segment()), (0, 4096), "immediate data, and more follows");
    let d = DataOut::of(&pdus[1]);
    assert_eq!((d.flags, d.ttt.get(), d.buffer_offset.get(), d.data_segment()), (FINAL, u32::MAX, 4096, 4096));
    let r2t = R2t { itt: c.itt, ttt: 9.into(), buffer_offset: 8192.into(), desired_len: 8192.into(), ..R2t::default() };
    let pdus = sent(&play.hear(r2t.bhs(), &[], false));
    let parts: Vec<_> =
        pdus.iter().map(DataOut::of).map(|d| (d.ttt.get(), d.data_sn.get(), d.buffer_offset.get(), d.flags)).collect();
    assert_eq!(parts, [(9, 0, 8192, 0), (9, 1, 12288, FINAL)]);
}

#[test]
fn commands_wait_for_the_window_and_data_do_not() {
    let mut play = Play::up_with(
        Config::new(login_config(), portal()),
        &Offer { initial_r2t: true, immediate_data: false, ..Offer::default() },
    );
    play.room = 0;
    play.hear(NopIn { itt: u32::MAX.into(), ttt: u32::MAX.into(), ..NopIn::default() }.bhs(), &[], false);
    let mut opened = 0;
    for task in 0..40 {
        opened += sent(&play.tell(Event::Submit(write(task, 512)))).len();
    }
    assert_eq!(opened, 32, "MaxCmdSN never falls back: 32 had been promised");
    let first = play.seen.iter().find_map(|e| match e {
        Effect::Send { bhs, .. } if bhs.kind() == Some(Opcode::ScsiCommand) => Some(ScsiCommand::of(bhs)),
        _ => None,
    });
    let first = first.expect("was sent");
    let r2t = R2t { itt: first.itt, ttt: 1.into(), desired_len: 512.into(), ..R2t::default() };
    assert_eq!(sent(&play.hear(r2t.bhs(), &[], false)).len(), 1, "data pass the closed window");
}

#[test]
fn a_window_that_stays_closed_with_nothing_outstanding_ends_the_nexus() {
    let mut play = Play::up();
    play.room = 0;
    play.cmd_sn = 1 + 32;
    play.session.next_cmd_sn = CmdSn(33);
    if let Link::Full(full) = &mut play.session.link {
        full.window.next = CmdSn(33);
    }
    assert!(sent(&play.tell(Event::Submit(read(0)))).is_empty(), "the window is closed");
    let mut pings = 0;
    for _ in 0..40 {
        let fx = play.pass(500);
        if let Some(cause) = down(&fx) {
            assert_eq!(cause, Cause::Stuck);
            assert!(pings > 3, "it was asked with pings meanwhile");
            return;
        }
        for ping in sent(&fx).iter().filter(|b| b.kind() == Some(Opcode::NopOut)) {
            pings += 1;
            play.hear(NopIn { itt: ping.itt, ttt: u32::MAX.into(), ..NopIn::default() }.bhs(), &[], true);
        }
    }
    panic!("it waits for ever");
}

/// Each breach of the protocol: a typed cause, the connection ends, the next login begins.
#[test]
fn every_breach_of_the_protocol_ends_the_connection_with_its_reason() {
    let r2t = |c: &ScsiCommand| R2t { itt: c.itt, ttt: 1.into(), desired_len: 512.into(), ..R2t::default() };
    type Breach = (&'static str, fn(&ScsiCommand, R2t) -> (Bhs, bool), u32);
    let breaches: [Breach; 12] = [
        ("StatSN", |c, _| (ScsiResponse { itt: c.itt, ..Default::default() }.bhs(), true), 1),
        ("answer to no task", |_, _| (ScsiResponse { itt: 0x1234.into(), ..Default::default() }.bhs(), true), 0),
        ("beyond", |c, _| (DataIn { itt: c.itt, ..DataIn::default() }.with_data(2000).bhs(), false), 0),
        (
            "out of order",
            |c, _| (DataIn { itt: c.itt, data_sn: 1.into(), ..DataIn::default() }.with_data(4).bhs(), false),
            0,
        ),
        (
            "out of order",
            |c, _| (DataIn { itt: c.itt, buffer_offset: 4.into(), ..DataIn::default() }.with_data(4).bhs(), false),
            0,
        ),
        (
            "before the last",
            |c, _| (DataIn { flags: DataIn::STATUS, itt: c.itt, ..DataIn::default() }.with_data(4).bhs(), true),
            0,
        ),
        ("not all of its data", |c, _| (ScsiResponse { itt: c.itt, ..Default::default() }.bhs(), true), 0),
        (
            "residual larger",
            |c, _| (ScsiResponse { flags: 0x82, itt: c.itt, residual: 9999.into(), ..Default::default() }.bhs(), true),
            0,
        ),
        ("writes nothing", |_, r| (r.bhs(), false), 0),
        ("answer to no ping", |_, _| (NopIn { itt: 7.into(), ..NopIn::default() }.bhs(), true), 0),
        ("no task management", |_, _| (TaskResponse { itt: 7.into(), ..Default::default() }.bhs(), true), 0),
        ("may not come", |_, _| (LoginResponse::default().bhs(), true), 0),
    ];
    for (reason, breach, skip) in breaches {
        let mut play = Play::up();
        let c = play.submit(read(0));
        play.stat_sn += skip;
        let (bhs, status) = breach(&c, r2t(&c));
        let fx = play.hear(bhs, &[], status);
        let cause = down(&fx).unwrap_or_else(|| panic!("{reason}: {fx:?}"));
        assert!(matches!(cause, Cause::Protocol(_)) && cause.to_string().contains(reason), "{reason}: {cause}");
        assert!(fx.iter().any(|e| matches!(e, Effect::Disconnect(_))), "{fx:?}");
        assert!(play.pass(1000).iter().any(|e| matches!(e, Effect::Connect { .. })), "logs in again");
    }
}

#[test]
fn an_r2t_for_other_data_than_the_next_ends_the_connection() {
    let target = Offer { initial_r2t: true, immediate_data: false, max_burst: 4096, ..Offer::default() };
    for (offset, len, sn) in [(0, 0, 0), (512, 512, 0), (0, 8192, 0), (0, 4097, 0), (u32::MAX, 2, 0), (0, 512, 1)] {
        let mut play = Play::up_with(Config::new(login_config(), portal()), &target);
        let c = play.submit(write(0, 8192));
        let r = R2t {
            itt: c.itt,
            ttt: 1.into(),
            r2t_sn: sn.into(),
            buffer_offset: offset.into(),
            desired_len: len.into(),
            ..R2t::default()
        };
        let fx = play.hear(r.bhs(), &[], false);
        assert!(matches!(down(&fx), Some(Cause::Protocol(_))), "{offset} {len} {sn}: {fx:?}");
    }
}

#[test]
fn every_reject_reason_is_answered_by_recovery_or_a_new_login() {
    for reason in 0..=0x0c {
        let mut play = Play::up();
        let c = play.submit(read(0));
        let refused = ScsiCommand { itt: c.itt, ..ScsiCommand::default() }.bhs();
        let r = Reject { reason, itt: u32::MAX.into(), ..Reject::default() }.with_data(48);
        let fx = play.hear(r.bhs(), refused.bytes(), true);
        match reason {
            // No room: the command is sent once more, a moment later.
            6 | 0x0a => assert_eq!(sent(&play.pass(100)).len(), 1, "reason {reason}"),
            0x0c => assert!(
                play.pass(1000)
                    .iter()
                    .any(|e| sent(std::slice::from_ref(e)).iter().any(|b| b.kind() == Some(Opcode::LogoutRequest)))
            ),
            _ => assert_eq!(down(&fx), Some(Cause::Rejected(reason)), "reason {reason}"),
        }
    }
}

#[test]
fn pings_are_answered_with_their_own_tag_and_unit_and_data() {
    let mut play = Play::up();
    let ping = NopIn { lun: [0, 7, 0, 0, 0, 0, 0, 0], itt: u32::MAX.into(), ttt: 0x55.into(), ..NopIn::default() };
    let fx = play.hear(ping.with_data(4).bhs(), b"echo", false);
    let answer = NopOut::of(&sent(&fx)[0]);
    assert_eq!((answer.ttt.get(), answer.itt.get(), answer.lun), (0x55, u32::MAX, ping.lun));
    assert_eq!((inline(&fx), answer.opcode & IMMEDIATE), (b"echo".to_vec(), IMMEDIATE));
}

#[test]
fn silence_is_pinged_and_ends_the_nexus_and_data_are_a_sign_of_life() {
    let mut play = Play::up();
    let fx = play.pass(5_000);
    assert_eq!(sent(&fx)[0].kind(), Some(Opcode::NopOut));
    let alive = NopIn { itt: u32::MAX.into(), ttt: u32::MAX.into(), ..NopIn::default() };
    play.pass(4_000);
    play.hear(alive.bhs(), &[], false);
    assert_eq!(down(&play.pass(4_000)), None, "whatever comes is a sign of life");
    assert_eq!(down(&play.pass(2_000)), Some(Cause::Silent));
}

#[test]
fn silence_in_any_phase_of_a_login_ends_it_in_time() {
    let mut play = Play::open(Config::new(login_config(), portal()));
    assert_eq!(down(&play.pass(5_000)), Some(Cause::Connect));
    play.pass(1_000);
    let Some(Effect::Connect { conn, .. }) = play.seen.iter().rev().find(|e| matches!(e, Effect::Connect { .. }))
    else {
        panic!("tries again")
    };
    let entropy = Entropy { identifier: 1, challenge: [7; CHALLENGE_LEN] };
    let conn = *conn;
    play.tell(Event::Connected { conn, entropy });
    assert_eq!(down(&play.pass(10_000)), Some(Cause::LoginTimeout));
}

/// The time is that of the whole login: a target that says a word now and then gains nothing.
#[test]
fn silence_after_any_word_of_a_login_ends_it_in_time() {
    let account = Account { name: "in".into(), secret: Secret::new("secret-of-12").expect("12") };
    let chap = Chap::new(account, None, vec![]).expect("one secret");
    let (plain, secret) = (login_config(), LoginConfig { chap: Some(chap), ..login_config() });
    let go = TRANSIT | 1;
    let words: [(&LoginConfig, &[(u8, &str)]); 6] = [
        (&plain, &[(CONTINUE, "TargetPortal")]),
        (&plain, &[(go, "TargetPortalGroupTag=1\0AuthMethod=None\0")]),
        (&plain, &[(go, "TargetPortalGroupTag=1\0"), (1 << 2, "MaxRecvDataSegmentLength=8192\0")]),
        (&secret, &[(0, "AuthMethod=CHAP\0")]),
        (&secret, &[(0, "AuthMethod=CHAP\0"), (0, "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x01020304\0")]),
        (&secret, &[(0, "AuthMethod=CHAP\0"), (0, "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x01020304\0"), (go, "")]),
    ];
    for (config, answers) in words {
        let mut play = Play::open(Config::new(config.clone(), portal()));
        let entropy = Entropy { identifier: 1, challenge: [7; CHALLENGE_LEN] };
        let mut fx = play.tell(Event::Connected { conn: ConnId(1), entropy });
        for (flags, body) in answers {
            assert_eq!(down(&play.pass(3_000)), None, "{answers:?}");
            let itt = sent(&fx)[0].itt;
            let r = LoginResponse { flags: *flags, itt, ..LoginResponse::default() }.with_data(body.len());
            fx = play.hear(r.bhs(), body.as_bytes(), true);
            assert!(!sent(&fx).is_empty(), "{answers:?}: {fx:?}");
        }
        let left = 10_000 - 3_000 * answers.len() as u64;
        assert_eq!(down(&play.pass(left - 1)), None, "{answers:?}");
        assert_eq!(down(&play.pass(1)), Some(Cause::LoginTimeout), "{answers:?}");
    }
}

#[test]
fn a_task_that_takes_too_long_is_aborted_then_the_unit_reset_then_the_nexus_given_up() {
    let mut play = Play::up();
    let c = play.submit(write(0, 512));
    let alive = NopIn { itt: u32::MAX.into(), ttt: u32::MAX.into(), ..NopIn::default() };
    let mut seen = Vec::new();
    for _ in 0..40 {
        let fx = play.pass(1_000);
        seen.extend(
            sent(&fx).into_iter().filter(|b| b.kind() == Some(Opcode::TaskRequest)).map(|b| TaskRequest::of(&b)),
        );
        if let Some(cause) = down(&fx) {
            assert_eq!(cause, Cause::Stuck);
            let functions: Vec<u8> = seen.iter().map(|r| r.flags & 0x7f).collect();
            assert_eq!(functions, [1, 5], "abort task, reset of the unit");
            assert_eq!((seen[0].ref_task.get(), seen[0].ref_cmd_sn), (c.itt.get(), c.cmd_sn));
            assert_eq!(outcome(&play.seen, 0), None, "nobody knows what became of the write: it is not ended");
            return;
        }
        play.hear(alive.bhs(), &[], false);
    }
    panic!("never given up");
}

#[test]
fn a_write_without_an_answer_is_sent_again_only_after_reinstatement_and_proof() {
    let mut play = Play::up();
    play.submit(write(0, 512));
    let conn = play.conn;
    play.tell(Event::Lost { conn, cause: Cause::Closed });
    play.pass(1_000);
    let fx = play.log_in(&Offer::default());
    assert!(fx.iter().any(|e| matches!(e, Effect::Up { nexus: 2, .. })));
    let is_command = |b: &Bhs| b.kind() == Some(Opcode::ScsiCommand);
    assert!(!sent(&fx).iter().any(is_command), "not before the proof");
    let stale = play.tell(Event::Proved { nexus: 1, generation: FenceGen(1) });
    assert!(sent(&stale).is_empty(), "a proof of the older nexus proves nothing");
    let fx = play.tell(Event::Proved { nexus: 2, generation: FenceGen(1) });
    assert!(sent(&fx).iter().any(is_command), "{fx:?}");
}

/// Loses the nexus and proves the next one.
fn lose_and_prove(play: &mut Play, nexus: u64) -> Vec<Effect> {
    let conn = play.conn;
    let mut fx = play.tell(Event::Lost { conn, cause: Cause::Silent });
    while !play.pass(100).iter().any(|e| matches!(e, Effect::Connect { .. })) {}
    fx.extend(play.log_in(&Offer::default()));
    fx.extend(play.tell(Event::Proved { nexus, generation: FenceGen(1) }));
    fx
}

#[test]
fn a_read_without_an_answer_is_sent_again_up_to_its_bound() {
    let mut play = Play::up();
    play.submit(read(0));
    for nexus in 2..=u64::from(MAX_ATTEMPTS) {
        let fx = lose_and_prove(&mut play, nexus);
        assert_eq!(sent(&fx).iter().filter(|b| b.kind() == Some(Opcode::ScsiCommand)).count(), 1, "nexus {nexus}");
    }
    let fx = lose_and_prove(&mut play, u64::from(MAX_ATTEMPTS) + 1);
    assert_eq!(outcome(&fx, 0), Some(Outcome::Lost(Cause::Silent)));
}

#[test]
fn control_commands_are_never_sent_again() {
    let mut play = Play::up();
    play.submit(command(0, Transfer::Out(24), Class::Control));
    let fx = lose_and_prove(&mut play, 2);
    assert_eq!(outcome(&fx, 0), Some(Outcome::Lost(Cause::Silent)));
    assert!(!sent(&fx).iter().any(|b| b.kind() == Some(Opcode::ScsiCommand)));
}

#[test]
fn a_reservation_conflict_is_an_answer_and_never_retried() {
    let mut play = Play::up();
    let c = play.submit(write(0, 512));
    let fx = play.done(c.itt.get(), Status::ReservationConflict);
    assert!(matches!(outcome(&fx, 0), Some(Outcome::Answered(a)) if a.status == Status::ReservationConflict));
    assert!(sent(&fx).is_empty() && sent(&play.pass(1_000)).is_empty());
}

#[test]
fn what_was_submitted_before_a_fence_is_never_sent_after_it() {
    let mut play = Play::up();
    play.submit(write(0, 512));
    let conn = play.conn;
    play.tell(Event::Lost { conn, cause: Cause::Closed });
    play.tell(Event::Submit(write(1, 512)));
    play.pass(1_000);
    let fx = play.log_in(&Offer::default());
    assert!(sent(&fx).iter().all(|b| b.kind() != Some(Opcode::ScsiCommand)));
    let fx = play.tell(Event::Proved { nexus: 2, generation: FenceGen(2) });
    assert_eq!((outcome(&fx, 0), outcome(&fx, 1)), (Some(Outcome::Fenced), Some(Outcome::Fenced)));
    assert!(sent(&fx).is_empty());
    let fx = play.tell(Event::Submit(write(2, 512)));
    assert_eq!(outcome(&fx, 2), Some(Outcome::Fenced), "a late one of the old generation");
}

#[test]
fn a_compare_and_write_without_an_answer_is_settled_by_its_block() {
    for (found, again) in [(Found::Own, false), (Found::Other, false), (Found::Old, true)] {
        let mut play = Play::up();
        play.submit(command(0, Transfer::Out(1024), Class::CompareAndWrite(FenceGen(1))));
        let conn = play.conn;
        let fx = play.tell(Event::Lost { conn, cause: Cause::Closed });
        assert!(!fx.contains(&Effect::Settle(TaskId(0))), "it may still land: the old value would settle nothing");
        play.pass(1_000);
        assert!(play.log_in(&Offer::default()).contains(&Effect::Settle(TaskId(0))));
        play.tell(Event::Proved { nexus: 2, generation: FenceGen(1) });
        let fx = play.tell(Event::Settled { task: TaskId(0), found });
        assert_eq!(sent(&fx).len(), usize::from(again), "{found:?}: {fx:?}");
        let status = outcome(&fx, 0).map(|o| if let Outcome::Answered(a) = o { a.status } else { Status::Busy });
        let expected = match found {
            Found::Own => Some(Status::Good),
            Found::Other => Some(Status::CheckCondition),
            Found::Old => None,
        };
        assert_eq!(status, expected);
    }
}

#[test]
fn a_nexus_that_lost_its_registration_is_given_up() {
    let mut play = Play::up();
    play.submit(write(0, 512));
    let fx = play.tell(Event::Unregistered { nexus: 1 });
    assert_eq!(down(&fx), Some(Cause::Unregistered));
    assert!(fx.iter().any(|e| matches!(e, Effect::Disconnect(_))));
}

#[test]
fn a_full_queue_lowers_the_depth_and_the_command_goes_again() {
    let mut play = Play::up();
    let first = play.submit(read(0));
    let second = play.submit(read(1));
    let fx = play.done(second.itt.get(), Status::TaskSetFull);
    assert!(fx.contains(&Effect::Report(Report::Depth(1))), "{fx:?}");
    assert!(sent(&play.pass(100)).is_empty(), "one at a time now");
    play.hear(DataIn { flags: FINAL, itt: first.itt, ..DataIn::default() }.with_data(1024).bhs(), &[], false);
    assert_eq!(sent(&play.done(first.itt.get(), Status::Good)).len(), 1);
}

#[test]
fn another_host_with_the_same_name_is_told_and_not_fought() {
    let mut play = Play::up();
    let mut ended = None;
    for _ in 0..MAX_SHORT_LIVES {
        let conn = play.conn;
        let fx = play.tell(Event::Lost { conn, cause: Cause::Closed });
        ended = fx.iter().find_map(|e| if let Effect::Ended(c) = e { Some(c.clone()) } else { None });
        play.pass(1_000);
        if ended.is_none() {
            play.log_in(&Offer::default());
        }
    }
    assert_eq!(ended, Some(Cause::Usurped));
    let fx = play.tell(Event::Submit(read(0)));
    assert_eq!(outcome(&fx, 0), Some(Outcome::Lost(Cause::Usurped)), "nobody waits for it");
}

#[test]
fn a_session_ends_cleanly_after_its_tasks_are_drained() {
    let mut play = Play::up();
    let c = play.submit(read(0));
    assert!(play.tell(Event::Close).is_empty(), "drains first");
    play.hear(DataIn { flags: FINAL, itt: c.itt, ..DataIn::default() }.with_data(1024).bhs(), &[], false);
    let fx = play.done(c.itt.get(), Status::Good);
    let logout = LogoutRequest::of(&sent(&fx)[0]);
    assert_eq!(logout.bhs().kind(), Some(Opcode::LogoutRequest));
    let ping = NopIn { itt: u32::MAX.into(), ttt: 1.into(), ..NopIn::default() };
    assert!(sent(&play.hear(ping.bhs(), &[], false)).is_empty(), "nothing is sent after the logout request");
    let fx = play.hear(LogoutResponse { itt: logout.itt, ..LogoutResponse::default() }.bhs(), &[], true);
    assert_eq!(fx.last(), Some(&Effect::Ended(Cause::ClosedHere)));
}

#[test]
fn a_login_that_makes_no_sense_ends_the_session_and_its_tasks() {
    let mut play = Play::open(Config::new(login_config(), portal()));
    play.tell(Event::Submit(read(0)));
    let entropy = Entropy { identifier: 1, challenge: [7; CHALLENGE_LEN] };
    let fx = play.tell(Event::Connected { conn: ConnId(1), entropy });
    let itt = sent(&fx)[0].itt;
    let r = LoginResponse { itt, status_class: 2, status_detail: 1, ..LoginResponse::default() };
    let fx = play.hear(r.bhs(), &[], true);
    let cause = Cause::Login(LoginError::Refused { class: 2, detail: 1 });
    assert_eq!(outcome(&fx, 0), Some(Outcome::Lost(cause.clone())));
    assert_eq!(fx.last(), Some(&Effect::Ended(cause)));
}

#[test]
fn redirects_are_followed_and_a_circle_is_left() {
    let mut play = Play::open(Config::new(login_config(), portal()));
    let entropy = Entropy { identifier: 1, challenge: [7; CHALLENGE_LEN] };
    for hop in 1..=u64::from(MAX_HOPS) + 1 {
        let fx = play.tell(Event::Connected { conn: ConnId(hop), entropy });
        play.conn = ConnId(hop);
        let r = LoginResponse { itt: sent(&fx)[0].itt, status_class: 1, status_detail: 1, ..LoginResponse::default() };
        let body = b"TargetAddress=127.0.0.2:3261\0";
        let fx = play.hear(r.with_data(body.len()).bhs(), body, true);
        if hop <= u64::from(MAX_HOPS) {
            let there = Portal { host: "127.0.0.2".into(), port: 3261 };
            assert!(fx.contains(&Effect::Connect { conn: ConnId(hop + 1), portal: there }), "{fx:?}");
        } else {
            assert_eq!(down(&fx), Some(Cause::RedirectLoop));
        }
    }
}

#[test]
fn text_that_goes_on_is_asked_for_with_its_tag() {
    let mut play = Play::up();
    let fx = play.tell(Event::Text(b"SendTargets=All\0".to_vec()));
    let request = TextRequest::of(&sent(&fx)[0]);
    let part = TextResponse { itt: request.itt, ttt: 5.into(), ..TextResponse::default() };
    let fx = play.hear(part.with_data(11).bhs(), b"TargetName=", true);
    assert_eq!(TextRequest::of(&sent(&fx)[0]).ttt.get(), 5);
    let rest = TextResponse { flags: FINAL, itt: request.itt, ttt: u32::MAX.into(), ..TextResponse::default() };
    let fx = play.hear(rest.with_data(2).bhs(), b"x\0", true);
    assert!(matches!(&fx[0], Effect::Text(Ok(pairs)) if pairs[0].value == "x"), "{fx:?}");
}

#[test]
fn rules_are_all_in_force_where_nobody_takes_one_out() {
    assert_eq!(Config::new(login_config(), portal()).rules, Rules::all());
}

/// Task management requests that were sent.
fn managements(fx: &[Effect]) -> Vec<TaskRequest> {
    sent(fx).iter().filter(|b| b.kind() == Some(Opcode::TaskRequest)).map(TaskRequest::of).collect()
}

#[test]
fn a_reset_that_the_owner_wants_is_told_once_it_is_answered_and_one_whose_nexus_is_lost_is_not_done() {
    let mut play = Play::up();
    let fx = play.tell(Event::ResetUnit(lun()));
    let reset = managements(&fx)[0];
    assert_eq!(reset.flags & 0x7f, 5);
    assert!(managements(&play.tell(Event::ResetUnit(lun()))).is_empty(), "one after the other");
    let answer = |r: &TaskRequest, response| TaskResponse { itt: r.itt, response, ..TaskResponse::default() }.bhs();
    let fx = play.hear(answer(&reset, 0), &[], true);
    let told = |fx: &[Effect]| -> Vec<bool> {
        fx.iter().filter_map(|e| if let Effect::UnitReset(_, done) = e { Some(*done) } else { None }).collect()
    };
    assert_eq!(told(&fx), [true]);
    let second = managements(&fx)[0];
    let fx = play.hear(answer(&second, 5), &[], true);
    assert_eq!((told(&fx), down(&fx)), (vec![false], None), "refused, and the nexus stands");
    play.tell(Event::ResetUnit(lun()));
    let conn = play.conn;
    let fx = play.tell(Event::Lost { conn, cause: Cause::Closed });
    assert_eq!(told(&fx), [false]);
    assert_eq!(told(&play.tell(Event::ResetUnit(lun()))), [false], "without a nexus nothing is reset");
}
