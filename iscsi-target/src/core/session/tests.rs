//! A connection, PDU by PDU; and under any PDUs at all.

use std::collections::BTreeSet;

use iscsi::digest::Digests;
use iscsi::pdu::raw::{DataIn, DataOut, NopIn, R2t, ScsiCommand, ScsiResponse};
use iscsi::pdu::{FINAL, IMMEDIATE};
use scsi::{AdditionalCode, SenseKey, Status};

use super::*;

fn params() -> Params {
    Params {
        digests: Digests::default(),
        max_send_segment: 1024,
        max_recv_segment: 4096,
        max_burst: 2048,
        first_burst: 1024,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 2,
        time2wait: 0,
        time2retain: 0,
        recovery_level: 0,
    }
}

fn session() -> Session {
    Session::new(Begin { params: params(), cid: 0, discovery: false, cmd_sn: CmdSn(1), stat_sn: StatSn(10) })
}

fn command(itt: u32, sn: u32, flags: u8, expected: u32, immediate: u32) -> Bhs {
    let c = ScsiCommand {
        flags,
        itt: itt.into(),
        expected_len: expected.into(),
        cmd_sn: sn.into(),
        cdb: [0; 16],
        ..ScsiCommand::default()
    };
    c.with_data(immediate as usize).bhs()
}

fn data_out(itt: u32, ttt: u32, data_sn: u32, at: u32, len: u32, last: bool) -> Bhs {
    let d = DataOut {
        flags: if last { FINAL } else { 0 },
        itt: itt.into(),
        ttt: ttt.into(),
        data_sn: data_sn.into(),
        buffer_offset: at.into(),
        ..DataOut::default()
    };
    d.with_data(len as usize).bhs()
}

/// What the PDU leads to.
fn take(session: &mut Session, bhs: &Bhs) -> Vec<Fx> {
    let mut fx = Vec::new();
    session.take(bhs, &[], &[], true, &mut fx);
    fx
}

fn r2ts(fx: &[Fx]) -> Vec<(u32, u32, u32)> {
    let of = |f: &Fx| match f {
        Fx::Send(bhs, _) if bhs.kind() == Some(Opcode::R2t) => {
            let r = R2t::of(bhs);
            Some((r.ttt.get(), r.buffer_offset.get(), r.desired_len.get()))
        }
        _ => None,
    };
    fx.iter().filter_map(of).collect()
}

/// The status and sense of the response among these.
fn response(fx: &[Fx]) -> Option<(Status, Option<(SenseKey, AdditionalCode)>)> {
    fx.iter().find_map(|f| match f {
        Fx::Send(bhs, body) if bhs.kind() == Some(Opcode::ScsiResponse) => {
            let sense = body.get(2..).and_then(|s| scsi::Sense::parse(s).ok()).map(|s| (s.key, s.code));
            Some((Status::from_byte(ScsiResponse::of(bhs).status), sense))
        }
        _ => None,
    })
}

const WRITE: u8 = ScsiCommand::WRITE;

#[test]
fn a_write_goes_from_immediate_data_over_unsolicited_ones_to_r2ts() {
    let mut s = session();
    let fx = take(&mut s, &command(5, 1, WRITE, 6000, 512));
    assert!(matches!(&fx[..], [Fx::Command { announced: 6000, .. }]), "{fx:?}");
    let mut fx = Vec::new();
    s.expect(Itt(5), 6000, &mut fx).expect("it is a write");
    assert!(fx.is_empty(), "unsolicited data are still to come");
    let more = data_out(5, u32::MAX, 0, 512, 512, true);
    assert_eq!(s.place(&more), Place::Task { itt: Itt(5), offset: 512, room: 6000 });
    assert!(matches!(&take(&mut s, &more)[..], [Fx::Solicit(Itt(5))]));
    let mut fx = Vec::new();
    s.solicit(Itt(5), &mut fx);
    let asked = r2ts(&fx);
    assert_eq!(asked.iter().map(|(_, at, len)| (*at, *len)).collect::<Vec<_>>(), [(1024, 2048), (3072, 2048)]);
    take(&mut s, &data_out(5, asked[0].0, 0, 1024, 1024, false));
    let fx = take(&mut s, &data_out(5, asked[0].0, 1, 2048, 1024, true));
    let third = r2ts(&fx);
    assert_eq!(third.iter().map(|(_, at, len)| (*at, *len)).collect::<Vec<_>>(), [(5120, 880)]);
    take(&mut s, &data_out(5, asked[1].0, 0, 3072, 2048, true));
    let fx = take(&mut s, &data_out(5, third[0].0, 0, 5120, 880, true));
    assert!(matches!(&fx[..], [Fx::Ready(Itt(5), 6000)]), "{fx:?}");
}

#[test]
fn data_that_were_not_agreed_end_the_command_with_the_sense_that_says_why() {
    use AdditionalCode as Code;
    let ends = |s: &mut Session, bhs: &Bhs| response(&take(s, bhs)).and_then(|(_, sense)| sense).map(|(_, code)| code);
    let strict = Params { immediate_data: false, initial_r2t: true, ..params() };
    let mut s = session();
    s.params = strict;
    assert_eq!(ends(&mut s, &command(1, 1, FINAL | WRITE, 512, 512)), Some(Code::UNEXPECTED_UNSOLICITED_DATA));
    // Data-Outs that come although everything waits for R2Ts: the response waits for them.
    assert_eq!(ends(&mut s, &command(2, 2, WRITE, 512, 0)), None);
    let end = data_out(2, u32::MAX, 0, 0, 512, true);
    assert_eq!(s.place(&end), Place::Nowhere);
    assert_eq!(ends(&mut s, &end), Some(Code::UNEXPECTED_UNSOLICITED_DATA));
    let mut s = session();
    assert_eq!(ends(&mut s, &command(1, 1, FINAL | WRITE, 512, 1024)), Some(Code::UNEXPECTED_UNSOLICITED_DATA));
    assert_eq!(ends(&mut s, &command(2, 2, FINAL, 512, 512)), Some(Code::UNEXPECTED_UNSOLICITED_DATA), "no write");
}

#[test]
fn data_out_of_order_end_the_command_when_their_sequence_ends() {
    use AdditionalCode as Code;
    let wrong = [
        (data_out(1, 0, 1, 0, 512, false), Code::DATA_PHASE_ERROR),
        (data_out(1, 0, 0, 512, 512, false), Code::DATA_OFFSET_ERROR),
        (data_out(1, 0, 0, 0, 2000, true), Code::TOO_MUCH_WRITE_DATA),
        (data_out(1, 0, 0, 0, 512, true), Code::DATA_PHASE_ERROR),
    ];
    for (mut bhs, code) in wrong {
        let mut s = session();
        s.params.immediate_data = false;
        take(&mut s, &command(1, 1, FINAL | WRITE, 1500, 0));
        let mut fx = Vec::new();
        s.expect(Itt(1), 1500, &mut fx).expect("it is a write");
        s.solicit(Itt(1), &mut fx);
        let ttt = r2ts(&fx)[0].0;
        let mut d = DataOut::of(&bhs);
        d.ttt = ttt.into();
        bhs = d.bhs();
        let last = d.flags & FINAL != 0;
        assert_eq!(s.place(&bhs), Place::Nowhere);
        let mut fx = take(&mut s, &bhs);
        assert!(fx.iter().any(|f| matches!(f, Fx::Failed(Itt(1)))));
        if !last {
            assert_eq!(response(&fx), None, "what was asked for is owed");
            fx = take(&mut s, &data_out(1, ttt, 9, 0, 0, true));
        }
        let expected = Some((Status::CheckCondition, Some((SenseKey::AbortedCommand, code))));
        assert_eq!(response(&fx), expected);
        assert_eq!(s.tasks(), 0);
    }
    let mut s = session();
    take(&mut s, &command(1, 1, FINAL | WRITE, 1500, 0));
    s.expect(Itt(1), 1500, &mut Vec::new()).expect("it is a write");
    let stray = data_out(1, 77, 0, 0, 100, true);
    let fx = take(&mut s, &stray);
    assert_eq!(
        response(&fx).and_then(|(_, sense)| sense),
        Some((SenseKey::AbortedCommand, Code::INVALID_TARGET_PORT_TRANSFER_TAG))
    );
}

#[test]
fn a_wrong_data_digest_is_rejected_and_ends_its_command() {
    let mut s = session();
    let mut fx = Vec::new();
    s.take(&command(1, 1, FINAL | WRITE, 512, 512), &[], &[], false, &mut fx);
    let crc = AdditionalCode::PROTOCOL_SERVICE_CRC_ERROR;
    assert_eq!(response(&fx), Some((Status::CheckCondition, Some((SenseKey::AbortedCommand, crc)))));
    take(&mut s, &command(2, 2, WRITE, 512, 0));
    let mut fx = Vec::new();
    s.expect(Itt(2), 512, &mut fx).expect("it is a write");
    s.take(&data_out(2, u32::MAX, 0, 0, 512, true), &[], &[], false, &mut fx);
    assert!(fx.iter().any(|f| matches!(f, Fx::Send(bhs, _) if bhs.kind() == Some(Opcode::Reject))));
    assert_eq!(response(&fx), Some((Status::CheckCondition, Some((SenseKey::AbortedCommand, crc)))));
}

#[test]
fn data_in_come_in_segments_and_bursts_with_the_status_in_the_last() {
    let mut s = session();
    take(&mut s, &command(1, 1, FINAL | ScsiCommand::READ, 5000, 0));
    let mut fx = Vec::new();
    s.expect(Itt(1), 0, &mut fx).expect("it is a read");
    assert!(matches!(&fx[..], [Fx::Ready(Itt(1), 0)]));
    let mut fx = Vec::new();
    s.finish(Itt(1), Outcome::GOOD, Some(Bytes::from(vec![7; 4500])), false, &mut fx);
    let shown: Vec<_> = fx
        .iter()
        .map(|f| match f {
            Fx::Send(bhs, body) => {
                let d = DataIn::of(bhs);
                assert_eq!(body.len(), d.data_segment() as usize);
                (d.flags, d.data_sn.get(), d.buffer_offset.get(), body.len(), d.residual.get())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let last = FINAL | DataIn::STATUS | DataIn::UNDERFLOW;
    assert_eq!(
        shown,
        [
            (0, 0, 0, 1024, 0),
            (FINAL, 1, 1024, 1024, 0),
            (0, 2, 2048, 1024, 0),
            (FINAL, 3, 3072, 1024, 0),
            (last, 4, 4096, 404, 500),
        ]
    );
}

#[test]
fn the_window_follows_the_commands_that_are_there_and_never_shrinks() {
    let mut s = session();
    let numbers = |fx: &[Fx]| match fx.last() {
        Some(Fx::Send(bhs, _)) => {
            let n = NopIn::of(bhs);
            (n.exp_cmd_sn.get(), n.max_cmd_sn.get())
        }
        other => panic!("{other:?}"),
    };
    for n in 0..WINDOW {
        take(&mut s, &command(n, 1 + n, FINAL, 0, 0));
    }
    assert!(take(&mut s, &command(999, 1 + WINDOW, FINAL, 0, 0)).is_empty(), "the window is closed");
    let mut fx = Vec::new();
    s.finish(Itt(3), Outcome::GOOD, None, false, &mut fx);
    assert_eq!(numbers(&fx), (WINDOW + 1, WINDOW + 1), "one has ended, one may come");
    assert!(!take(&mut s, &command(999, 1 + WINDOW, FINAL, 0, 0)).is_empty());
    // Immediate ones take no place in the window, and have a bound of their own.
    for n in 0..=MAX_IMMEDIATE {
        let mut bhs = command(2000 + n, 0, FINAL, 0, 0);
        bhs.opcode |= IMMEDIATE;
        let fx = take(&mut s, &bhs);
        let rejected = matches!(&fx[..], [Fx::Send(bhs, _)] if bhs.kind() == Some(Opcode::Reject));
        assert_eq!(rejected, n == MAX_IMMEDIATE);
    }
}

#[test]
fn data_for_a_command_that_was_aborted_are_passed_over() {
    let mut s = session();
    take(&mut s, &command(1, 1, FINAL | WRITE, 4096, 0));
    let mut fx = Vec::new();
    s.expect(Itt(1), 4096, &mut fx).expect("it is a write");
    s.solicit(Itt(1), &mut fx);
    let ttt = r2ts(&fx)[0].0;
    s.withdraw(Itt(1));
    let late = data_out(1, ttt, 0, 0, 2048, true);
    assert_eq!(s.place(&late), Place::Nowhere);
    assert!(take(&mut s, &late).is_empty());
    // One that nobody asked for is no such thing.
    assert!(!take(&mut s, &data_out(7, ttt, 0, 0, 2048, true)).is_empty());
}

#[test]
fn a_long_text_is_fetched_piece_by_piece() {
    let mut s = session();
    let mut fx = Vec::new();
    s.text_answer(Itt(1), Bytes::from(vec![1; 2500]), &mut fx);
    let mut whole = 0;
    for round in 0..3 {
        let Some(Fx::Send(bhs, body)) = fx.pop() else { panic!("a piece") };
        let t = iscsi::pdu::raw::TextResponse::of(&bhs);
        whole += body.len();
        assert_eq!(t.flags & FINAL != 0, round == 2);
        if round < 2 {
            let more = iscsi::pdu::raw::TextRequest {
                itt: (2 + round).into(),
                ttt: t.ttt,
                cmd_sn: s.exp_cmd_sn.0.into(),
                ..Default::default()
            };
            s.take(&more.bhs(), &[], &[], true, &mut fx);
        }
    }
    assert_eq!(whole, 2500);
}

/// A shell that does what the session says, and ends a command as the fuzzer likes.
struct Shell {
    session: Session,
    open: BTreeSet<u32>,
    ended: u64,
    begun: u64,
    stat_sn: u32,
    max_cmd_sn: CmdSn,
}

impl Shell {
    fn apply(&mut self, mut fx: Vec<Fx>, whim: u8) {
        while !fx.is_empty() {
            let mut next = Vec::new();
            for f in fx {
                match f {
                    Fx::Send(bhs, body) => self.sent(&bhs, &body),
                    Fx::Command { itt, announced, .. } => {
                        self.begun += 1;
                        self.open.insert(itt.0);
                        let len = u64::from(announced) * u64::from(whim % 3) / 2;
                        if whim & 8 != 0 {
                            self.session.finish(itt, Outcome::status(Status::Busy), None, false, &mut next);
                        } else {
                            let _ = self.session.expect(itt, len, &mut next);
                        }
                    }
                    Fx::Solicit(itt) => self.session.solicit(itt, &mut next),
                    Fx::Ready(itt, _) => {
                        let data = (whim & 16 != 0).then(|| Bytes::from(vec![0; usize::from(whim) * 30]));
                        self.session.finish(itt, Outcome::GOOD, data, false, &mut next);
                    }
                    Fx::Manage(request) => self.session.managed(&request, 0, &mut next),
                    Fx::SendTargets { itt, .. } => self.session.text_answer(itt, Bytes::from(vec![0; 3000]), &mut next),
                    Fx::Logout(request) => self.session.logged_out(request.itt.get(), 0, &mut next),
                    Fx::Failed(_) | Fx::Close(_) => {}
                }
            }
            fx = next;
        }
    }

    fn sent(&mut self, bhs: &Bhs, body: &Bytes) {
        let n = NopIn::of(bhs);
        assert_eq!(bhs.data_segment() as usize, body.len());
        assert!(body.len() <= 1024, "longer than the initiator takes: {}", body.len());
        assert_eq!(n.stat_sn.get(), self.stat_sn, "{:?}", bhs.kind());
        let counts = match bhs.kind() {
            Some(Opcode::R2t) => false,
            Some(Opcode::DataIn) => bhs.flags & DataIn::STATUS != 0,
            _ => true,
        };
        self.stat_sn = self.stat_sn.wrapping_add(u32::from(counts));
        let max = CmdSn(n.max_cmd_sn.get());
        assert!(self.max_cmd_sn.up_to(max), "the window shrinks");
        self.max_cmd_sn = max;
        let ends = bhs.kind() == Some(Opcode::ScsiResponse) || (bhs.kind() == Some(Opcode::DataIn) && counts);
        if ends {
            self.open.remove(&bhs.itt.get());
            self.ended += 1;
        }
    }
}

#[test]
fn any_pdus_lead_to_answers_in_order_and_never_to_a_panic() {
    bolero::check!().with_type::<(bool, Vec<(u8, u8, [u16; 4], u8)>)>().for_each(|(discovery, pdus)| {
        let begin = Begin { params: params(), cid: 0, discovery: *discovery, cmd_sn: CmdSn(1), stat_sn: StatSn(10) };
        let session = Session::new(begin);
        let max_cmd_sn = session.max_cmd_sn;
        let mut shell = Shell { session, open: BTreeSet::new(), ended: 0, begun: 0, stat_sn: 10, max_cmd_sn };
        for (kind, flags, fields, whim) in pdus {
            let opcode = [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x1c][usize::from(kind & 7)];
            let [a, b, c, d] = fields.map(u32::from);
            let mut bytes = [0; 48];
            (bytes[0], bytes[1]) = (opcode | (kind & 0x40), *flags);
            bytes[5..8].copy_from_slice(&(a % 4097).to_be_bytes()[1..]);
            bytes[16..20].copy_from_slice(&(b % 4).to_be_bytes());
            let third = if opcode == 5 { if c & 1 == 0 { u32::MAX } else { c % 9 } } else { c % 9000 };
            bytes[20..24].copy_from_slice(&third.to_be_bytes());
            let sn = if d & 7 == 0 { CmdSn(d) } else { shell.session.exp_cmd_sn };
            bytes[24..28].copy_from_slice(&sn.0.to_be_bytes());
            bytes[36..40].copy_from_slice(&(d % 3).to_be_bytes());
            bytes[40..44].copy_from_slice(&(c % 4 * 512).to_be_bytes());
            let bhs = Bhs::from_bytes(bytes);
            let inline = match shell.session.place(&bhs) {
                Place::Inline => vec![b'x'; bhs.data_segment() as usize],
                _ => Vec::new(),
            };
            let mut fx = Vec::new();
            shell.session.take(&bhs, &[], &inline, whim & 0x60 != 0, &mut fx);
            shell.apply(fx, *whim);
            let tasks = shell.session.tasks.values();
            let counted = tasks.filter(|t| !t.immediate).count();
            assert_eq!(counted, shell.session.counted as usize);
            assert!(shell.session.tasks.len() <= (WINDOW + MAX_IMMEDIATE) as usize);
        }
        assert!(shell.ended >= shell.begun - shell.open.len() as u64);
    });
}
