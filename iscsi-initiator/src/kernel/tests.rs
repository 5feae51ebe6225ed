//! Exact effects of the core; then the same core under any order of events; then what commands and error numbers are translated to.

use std::collections::BTreeSet;

use block::device::Op;
use block::error::IoError;
use block::kernel_disk::{GivenUp, Passed};
use block::units::{ByteLen, ByteOffset};
use iscsi::session::{Answer, Cause, Class, FenceGen, Outcome};
use scsi::cdb::{CompareAndWrite, Read, SynchronizeCache, Write};
use scsi::{BlockCount, BlockLen, BlockRange, Lba, Sense, SenseKey, Status};

use super::core::{Core, Effect, Event, Number, Told};
use super::translate::{block_request, of_block_layer, of_sg};

const GONE: Cause = Cause::Disk("gone");
const W: Class = Class::Write(FenceGen(3));

fn answer(status: Status) -> Answer {
    Answer { status, sense: Vec::new(), moved: 0, overflow: 0 }
}

fn good() -> Told {
    Told::Answered(answer(Status::Good))
}

fn tell(core: &mut Core, event: Event) -> Vec<Effect> {
    let mut fx = Vec::new();
    core.handle(event, &mut fx);
    fx
}

/// A nexus stands, proved to be of generation 3.
fn up() -> Core {
    let mut core = Core::new();
    assert_eq!(tell(&mut core, Event::Open), [Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(true)), [Effect::Up(1)]);
    assert!(tell(&mut core, Event::Proved(1, FenceGen(3))).is_empty());
    core
}

fn sent(core: &mut Core, number: u64, class: Class) {
    assert_eq!(tell(core, Event::Submit(Number(number), class)), [Effect::Issue(Number(number))]);
}

#[test]
fn nothing_is_sent_before_the_device_has_answered_and_a_write_only_over_a_nexus_of_its_generation() {
    let mut core = Core::new();
    assert_eq!(tell(&mut core, Event::Open), [Effect::Probe]);
    for (number, class) in [(1, Class::Control), (2, Class::Read), (3, W), (4, Class::Write(FenceGen(2)))] {
        assert!(tell(&mut core, Event::Submit(Number(number), class)).is_empty());
    }
    assert_eq!(tell(&mut core, Event::Probed(false)), [Effect::ProbeLater]);
    assert_eq!(tell(&mut core, Event::Tick), [Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(true)), [Effect::Up(1), Effect::Issue(Number(1))]);
    assert!(tell(&mut core, Event::Proved(0, FenceGen(3))).is_empty(), "a proof of another nexus");
    let proved = tell(&mut core, Event::Proved(1, FenceGen(3)));
    let stale = Effect::Done(Number(4), Outcome::Fenced);
    assert_eq!(proved, [Effect::Issue(Number(2)), Effect::Issue(Number(3)), stale]);
}

/// The path was gone, and the write may be complete in the array.
#[test]
fn a_write_that_the_kernel_gave_up_is_answered_once_the_device_answers_over_the_same_nexus() {
    let mut core = up();
    sent(&mut core, 1, W);
    sent(&mut core, 2, Class::Read);
    sent(&mut core, 3, Class::Control);
    let given_up = |core: &mut Core, number| tell(core, Event::Ended(Number(number), Told::GivenUp(GONE)));
    assert_eq!(given_up(&mut core, 1), [Effect::Down(GONE)]);
    assert!(tell(&mut core, Event::Submit(Number(4), W)).is_empty(), "nothing is sent any more");
    assert_eq!(given_up(&mut core, 2), [Effect::Done(Number(2), Outcome::Lost(GONE))]);
    assert_eq!(given_up(&mut core, 3), [Effect::Done(Number(3), Outcome::Unknown(GONE)), Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(false)), [Effect::ProbeLater]);
    assert_eq!(tell(&mut core, Event::Tick), [Effect::Probe]);
    let next = tell(&mut core, Event::Probed(true));
    assert_eq!(next, [Effect::Done(Number(1), Outcome::Lost(GONE)), Effect::Up(2)]);
    assert_eq!(tell(&mut core, Event::Proved(2, FenceGen(3))), [Effect::Issue(Number(4))]);
}

/// 1. This node is fenced: its keys are gone. A write of it is in the kernel, which has not had an answer.
/// 2. The nexus is registered again, for the node's next life.
/// 3. The kernel sends the write once more: it comes from a nexus that is registered.
#[test]
fn a_nexus_without_its_registration_is_followed_by_the_next_only_when_the_kernel_has_nothing_left() {
    let mut core = up();
    sent(&mut core, 1, W);
    sent(&mut core, 2, W);
    assert!(tell(&mut core, Event::Unregistered(7)).is_empty(), "of another nexus");
    assert_eq!(tell(&mut core, Event::Unregistered(1)), [Effect::Down(Cause::Unregistered)]);
    assert!(tell(&mut core, Event::Probed(true)).is_empty(), "nobody has asked");
    let refused = answer(Status::ReservationConflict);
    let ended = tell(&mut core, Event::Ended(Number(1), Told::Answered(refused.clone())));
    assert_eq!(ended, [Effect::Done(Number(1), Outcome::Answered(refused))]);
    let ended = tell(&mut core, Event::Ended(Number(2), good()));
    assert_eq!(ended, [Effect::Done(Number(2), Outcome::Answered(answer(Status::Good))), Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(true)), [Effect::Up(2)]);
}

#[test]
fn a_nexus_that_was_killed_over_another_path_leaves_nothing_in_doubt() {
    let mut core = up();
    for number in 1..=3 {
        sent(&mut core, number, W);
    }
    tell(&mut core, Event::Ended(Number(1), Told::GivenUp(GONE)));
    assert_eq!(tell(&mut core, Event::Preempted), [Effect::Done(Number(1), Outcome::Lost(GONE))]);
    // The kernel has tried one of the others again; the unit knows the nexus no more.
    let refused = Told::Answered(answer(Status::ReservationConflict));
    let dead = Effect::Done(Number(2), Outcome::Lost(Cause::Unregistered));
    assert_eq!(tell(&mut core, Event::Ended(Number(2), refused)), [dead]);
    let ended = tell(&mut core, Event::Ended(Number(3), Told::GivenUp(GONE)));
    assert_eq!(ended, [Effect::Done(Number(3), Outcome::Lost(GONE)), Effect::Probe]);
}

#[test]
fn what_is_taken_back_is_aborted_if_it_was_not_sent_and_waited_for_if_it_was() {
    let mut core = up();
    assert!(tell(&mut core, Event::GiveUp).is_empty(), "nothing is there: the nexus goes on");
    sent(&mut core, 1, W);
    assert!(tell(&mut core, Event::Submit(Number(2), Class::Write(FenceGen(4)))).is_empty());
    let taken = tell(&mut core, Event::GiveUp);
    assert_eq!(taken, [Effect::Done(Number(2), Outcome::Aborted), Effect::Down(Cause::GivenUp)]);
    assert_eq!(tell(&mut core, Event::Ended(Number(1), Told::GivenUp(GONE))), [Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(true)), [Effect::Done(Number(1), Outcome::Aborted), Effect::Up(2)]);
}

#[test]
fn after_a_fence_nothing_of_before_is_sent_and_what_was_given_up_is_told_as_fenced() {
    let mut core = up();
    sent(&mut core, 1, W);
    assert!(tell(&mut core, Event::Submit(Number(2), Class::Write(FenceGen(4)))).is_empty());
    assert_eq!(tell(&mut core, Event::Fenced(FenceGen(4))), [Effect::Down(Cause::Unregistered)]);
    let fenced = |number| Effect::Done(Number(number), Outcome::Fenced);
    assert_eq!(tell(&mut core, Event::Submit(Number(3), W)), [fenced(3)]);
    assert_eq!(tell(&mut core, Event::Ended(Number(1), Told::GivenUp(GONE))), [Effect::Probe]);
    assert_eq!(tell(&mut core, Event::Probed(true)), [fenced(1), Effect::Up(2)]);
    assert!(tell(&mut core, Event::Proved(2, FenceGen(3))).is_empty(), "a proof that the fence has overtaken");
    assert_eq!(tell(&mut core, Event::Proved(2, FenceGen(4))), [Effect::Issue(Number(2))]);
}

/// The description, and with it the disk, is held until the kernel has nothing left.
#[test]
fn a_session_that_is_closed_ends_when_the_kernel_has_nothing_left() {
    let mut core = up();
    sent(&mut core, 1, W);
    assert!(tell(&mut core, Event::Close).is_empty());
    let late = Effect::Done(Number(2), Outcome::Lost(Cause::ClosedHere));
    assert_eq!(tell(&mut core, Event::Submit(Number(2), Class::Control)), [late]);
    let ended = tell(&mut core, Event::Ended(Number(1), Told::GivenUp(GONE)));
    let (down, unknown) = (Effect::Down(GONE), Effect::Done(Number(1), Outcome::Unknown(Cause::ClosedHere)));
    assert_eq!(ended, [down, unknown, Effect::Ended(Cause::ClosedHere)]);
    let idle = tell(&mut up(), Event::Close);
    assert_eq!(idle, [Effect::Ended(Cause::ClosedHere)]);
}

/// Numbers without a source of chance: splitmix64.
fn chance(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

/// What may never be: something in the kernel when a nexus begins, a command sent over none, an answer twice or never.
struct World {
    core: Core,
    seed: u64,
    in_kernel: Vec<Number>,
    open: BTreeSet<Number>,
    nexus: u64,
    stands: bool,
    probing: bool,
    doubts: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let (in_kernel, open) = (Vec::new(), BTreeSet::new());
        World { core: Core::new(), seed, in_kernel, open, nexus: 0, stands: false, probing: false, doubts: 0 }
    }

    fn chance(&mut self, below: u64) -> u64 {
        chance(&mut self.seed, below)
    }

    fn told(&mut self) -> Told {
        match self.chance(4) {
            0 => Told::GivenUp(GONE),
            1 => Told::Answered(answer(Status::ReservationConflict)),
            2 => Told::NotSent(GONE),
            _ => good(),
        }
    }

    /// Something happens.
    fn event(&mut self, step: u64) -> Event {
        match self.chance(14) {
            0 if self.probing => Event::Probed(self.chance(3) > 0),
            1 | 2 if !self.in_kernel.is_empty() => {
                let which = self.chance(self.in_kernel.len() as u64) as usize;
                let told = self.told();
                self.doubts += u64::from(told == Told::GivenUp(GONE));
                Event::Ended(self.in_kernel.swap_remove(which), told)
            }
            4..=7 => {
                let class = match self.chance(4) {
                    0 => Class::Control,
                    1 => Class::Read,
                    n => Class::Write(FenceGen(n)),
                };
                self.open.insert(Number(step));
                Event::Submit(Number(step), class)
            }
            8 | 9 => Event::Proved(self.nexus, FenceGen(2 + self.chance(2))),
            10 => Event::Unregistered(self.nexus),
            11 => Event::Preempted,
            12 => Event::GiveUp,
            13 => Event::Fenced(FenceGen(self.chance(4))),
            _ => Event::Tick,
        }
    }

    fn tell(&mut self, event: Event) {
        self.probing &= !matches!(event, Event::Probed(_));
        for effect in tell(&mut self.core, event) {
            match effect {
                Effect::Issue(number) => {
                    assert!(self.stands && self.open.contains(&number), "{number:?} is sent over nothing");
                    self.in_kernel.push(number);
                }
                Effect::Done(number, _) => {
                    assert!(self.open.remove(&number), "{number:?} ends twice");
                    assert!(!self.in_kernel.contains(&number), "{number:?} is still in the kernel");
                }
                Effect::Probe => self.probing = true,
                Effect::Up(number) => {
                    assert!(self.in_kernel.is_empty() && number == self.nexus + 1, "{:?}", self.in_kernel);
                    (self.nexus, self.stands) = (number, true);
                }
                Effect::Down(_) => self.stands = false,
                Effect::ProbeLater | Effect::Ended(_) => {}
            }
        }
    }
}

#[test]
fn in_any_order_of_events_a_nexus_begins_with_an_empty_kernel_and_each_command_ends_once() {
    let (mut nexuses, mut doubts) = (0, 0);
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.tell(Event::Open);
        for step in 0..300 {
            let event = world.event(step);
            world.tell(event);
        }
        world.tell(Event::Close);
        while let Some(number) = world.in_kernel.pop() {
            world.tell(Event::Ended(number, Told::GivenUp(GONE)));
        }
        assert!(world.core.has_ended() && world.open.is_empty(), "seed {seed}: {:?} have no answer", world.open);
        (nexuses, doubts) = (nexuses + world.nexus, doubts + world.doubts);
    }
    assert!(nexuses > 1000 && doubts > 1000, "{nexuses} nexuses, {doubts} commands given up: too little happened");
}

fn range(lba: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(lba), BlockCount(blocks))
}

#[test]
fn data_go_through_the_block_layer_each_write_to_the_medium_and_everything_else_by_itself() {
    let block = BlockLen::new(512).expect("a block");
    let read = Read::new(range(8, 16)).cdb(block).expect("fits");
    let write = Write::new(range(1 << 33, 2)).cdb(block).expect("fits");
    assert_eq!(block_request(&read, Class::Read, 8192), Some((Op::Read, ByteOffset(4096))));
    assert_eq!(block_request(&write, W, 1024), Some((Op::Write { fua: true }, ByteOffset(1 << 42))));
    // An office reads its slot to hear what the unit says of it.
    assert_eq!(block_request(&read, Class::Control, 8192), None);
    let swap = CompareAndWrite::new(Lba(8), 1).cdb(block).expect("fits");
    let flush = SynchronizeCache::new(range(0, 0)).cdb().expect("fits");
    assert_eq!(block_request(&swap, Class::CompareAndWrite(FenceGen(3)), 1024), None);
    assert_eq!(block_request(&flush, W, 0), None);
}

fn block_layer(errno: i32) -> Told {
    of_block_layer(Err(IoError::from_os(errno, Op::Read, ByteOffset(0), ByteLen(512))), 512)
}

/// The table of block/blk-core.c: what the unit has said, and what the kernel says of itself.
#[test]
fn an_error_number_of_the_block_layer_is_the_units_answer_or_says_nothing_of_the_command() {
    assert_eq!(of_block_layer(Ok(()), 512), Told::Answered(Answer { moved: 512, ..answer(Status::Good) }));
    assert_eq!(block_layer(52), Told::Answered(answer(Status::ReservationConflict)));
    let keys = [
        (61, SenseKey::MediumError),
        (121, SenseKey::HardwareError),
        (28, SenseKey::DataProtect),
        (95, SenseKey::IllegalRequest),
        (84, SenseKey::AbortedCommand),
    ];
    for (errno, key) in keys {
        let Told::Answered(Answer { status: Status::CheckCondition, sense, .. }) = block_layer(errno) else {
            panic!("{errno}")
        };
        assert_eq!(Sense::parse(&sense).expect("sense").key, key, "{errno}");
    }
    // EIO, ENOLINK, ETIMEDOUT, ENODEV, EAGAIN, EBUSY, and what nobody has thought of.
    for errno in [5, 67, 110, 19, 11, 16, 4711] {
        assert!(matches!(block_layer(errno), Told::GivenUp(_)), "{errno}");
    }
}

#[test]
fn what_sg_io_says_is_an_answer_a_doubt_or_that_nothing_was_sent() {
    let passed = Passed::Answered { status: Status::Busy, sense: vec![1], moved: 7 };
    let told = Told::Answered(Answer { status: Status::Busy, sense: vec![1], moved: 7, overflow: 0 });
    assert_eq!(of_sg(passed), told);
    assert!(matches!(of_sg(Passed::GivenUp(GivenUp { host: 0x0e, driver: 0 })), Told::GivenUp(_)));
    let Told::NotSent(why) = of_sg(Passed::NotSent(1)) else { panic!("EPERM") };
    assert!(why.to_string().contains("CAP_SYS_RAWIO"), "{why}");
    assert!(matches!(of_sg(Passed::NotSent(19)), Told::NotSent(_)));
}
