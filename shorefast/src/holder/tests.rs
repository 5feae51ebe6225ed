use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use csv_fs::volume::Keeper;
use rustix::process::Signal;

use super::core::*;
use super::held::{Held, Wish};
use super::shelf::{self, Shelf};
use super::wire::{self, FromDaemon, ToDaemon};

const KILLED: How = How::Killed(9);

fn started(at_s: u64) -> Machine {
    let mut machine = Machine::new();
    machine.started(Duration::from_secs(at_s));
    machine
}

fn ended(machine: &mut Machine, at_s: u64, how: How, keeps: bool) -> Option<Effect> {
    machine.handle(Duration::from_secs(at_s), Event::Ended { how, keeps })
}

fn after(ms: u64) -> Option<Effect> {
    Some(Effect::Start { after: Duration::from_millis(ms) })
}

#[test]
fn a_daemon_that_dies_is_started_again_at_once_then_ever_later_and_is_given_up() {
    let mut machine = started(0);
    for wait in [0, 100, 200, 400, 800, 1600, 3200] {
        assert_eq!(ended(&mut machine, 1, KILLED, true), after(wait));
        machine.started(Duration::from_secs(1));
    }
    assert_eq!(ended(&mut machine, 1, KILLED, true), Some(Effect::GiveUp { deaths: DEATHS, last: KILLED }));
}

#[test]
fn deaths_of_a_daemon_that_was_well_are_not_in_a_row() {
    let mut machine = started(0);
    for n in 1..100 {
        let at = n * STEADY.as_secs();
        assert_eq!(ended(&mut machine, at, KILLED, true), after(0));
        machine.started(Duration::from_secs(at));
    }
}

#[test]
fn an_end_that_was_asked_for_ends_the_holder_with_the_daemons_code() {
    for (how, code) in [(How::Exited(0), 0), (How::Exited(1), 1), (KILLED, 1)] {
        let mut machine = started(0);
        let passed = machine.handle(Duration::ZERO, Event::Stop(Signal::INT));
        assert_eq!(passed, Some(Effect::Pass(Signal::INT)));
        assert_eq!(machine.handle(Duration::ZERO, Event::Restart), None, "it is to end");
        assert_eq!(ended(&mut machine, 1, how, true), Some(Effect::End(code)));
    }
    let mut nothing_runs = started(0);
    assert_eq!(ended(&mut nothing_runs, 0, KILLED, true), after(0));
    assert_eq!(nothing_runs.handle(Duration::ZERO, Event::Stop(Signal::TERM)), Some(Effect::End(0)));
}

#[test]
fn a_daemon_that_refuses_to_start_is_believed_unless_somebody_waits_for_it() {
    assert_eq!(ended(&mut started(0), 0, How::Exited(2), false), Some(Effect::End(2)));
    assert_eq!(ended(&mut started(0), 0, How::Exited(2), true), after(0));
    assert_eq!(ended(&mut started(0), 0, How::Exited(101), false), after(0), "a panic is a death");
    assert_eq!(ended(&mut started(0), 0, How::Exited(0), true), Some(Effect::End(0)));
}

#[test]
fn a_planned_restart_is_no_death() {
    let mut machine = started(0);
    for _ in 0..20 {
        assert_eq!(machine.handle(Duration::ZERO, Event::Restart), Some(Effect::AskToLeave));
        assert_eq!(machine.handle(Duration::ZERO, Event::Leaving), None);
        assert_eq!(ended(&mut machine, 0, How::Exited(0), true), after(0));
        machine.started(Duration::ZERO);
    }
    // Whoever dies on the way out has died, and what it said does not hold for the next.
    machine.handle(Duration::ZERO, Event::Leaving);
    assert_eq!(ended(&mut machine, 0, KILLED, true), after(0));
    machine.started(Duration::ZERO);
    assert_eq!(ended(&mut machine, 0, How::Exited(0), true), Some(Effect::End(0)));
}

#[test]
fn messages_come_back_and_unknown_ones_are_none() {
    for message in [FromDaemon::Keep("volume 1 / channel 3"), FromDaemon::Release("volume 1"), FromDaemon::Leaving] {
        assert_eq!(FromDaemon::decode(&message.encode()), Some(message));
    }
    for message in [ToDaemon::Kept("volume 1 / record"), ToDaemon::End, ToDaemon::Leave] {
        assert_eq!(ToDaemon::decode(&message.encode()), Some(message));
    }
    for bytes in [&b""[..], b"Z", b"K\xff"] {
        assert_eq!(FromDaemon::decode(bytes), None);
        assert_eq!(ToDaemon::decode(bytes), None);
    }
}

/// A pipe of which one end is kept: whoever gets it can be told apart by what was written.
fn marked(mark: &str) -> std::os::fd::OwnedFd {
    let (reads, mut writes) = std::io::pipe().expect("a pipe");
    writes.write_all(mark.as_bytes()).expect("it takes so little");
    reads.into()
}

fn mark(fd: std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).expect("the other end is closed");
    text
}

#[test]
fn an_owner_is_released_whole_and_no_other() {
    let mut shelf = Shelf::default();
    for (owner, thing) in [("volume 1", "record"), ("volume 1", "channel 0"), ("volume 11", "record")] {
        assert!(shelf.keep(&shelf::name(owner, thing), marked("")));
    }
    shelf.release("volume 1");
    assert_eq!(shelf.all().map(|(name, _)| name).collect::<Vec<_>>(), ["volume 11 / record"]);
}

#[test]
fn what_a_daemon_gives_the_next_one_gets_also_if_it_dies_right_behind() {
    let (ours, theirs) = wire::pair().expect("a pair");
    wire::send(&ours, &ToDaemon::End.encode(), None).expect("sends");
    let held = Held::over(theirs).expect("a holder is there");
    held.keep("1", "record", marked("one").as_fd()).expect("sends");
    held.keep("1", "record", marked("two").as_fd()).expect("sends");
    held.keep("2", "record", marked("three").as_fd()).expect("sends");
    held.release("2");
    drop(held);
    let mut shelf = Shelf::default();
    // Its thread has an end, too, so the socket is not at its end.
    while let Ok(Some((message, fd))) = wire::receive(&ours, false) {
        match (FromDaemon::decode(&message).expect("known"), fd) {
            (FromDaemon::Keep(name), Some(fd)) => assert!(shelf.keep(name, fd)),
            (FromDaemon::Release(owner), None) => shelf.release(owner),
            other => panic!("{other:?}"),
        }
    }
    let (ours, theirs) = wire::pair().expect("a pair");
    for (name, fd) in shelf.all() {
        wire::send(&ours, &ToDaemon::Kept(name).encode(), Some(fd.as_fd())).expect("sends");
    }
    // Of a holder of a later version.
    wire::send(&ours, b"?", None).expect("sends");
    wire::send(&ours, &ToDaemon::End.encode(), None).expect("sends");
    let next = Held::over(theirs).expect("a holder is there");
    assert_eq!(next.owners(), ["volume 1"]);
    let mut kept = next.kept("1").expect("copies");
    assert_eq!(mark(kept.remove("record").expect("kept")), "two", "the later of one name");
    next.only(&["1".to_owned()]);
    assert_eq!(next.owners(), ["volume 1"]);
    next.only(&[]);
    assert!(next.owners().is_empty());
    assert!(kept.is_empty() && next.kept("2").expect("copies").is_empty());
}

#[tokio::test]
async fn the_holders_wish_and_its_end_are_noticed() {
    let (ours, theirs) = wire::pair().expect("a pair");
    wire::send(&ours, &ToDaemon::End.encode(), None).expect("sends");
    let held = Held::over(theirs).expect("a holder is there");
    wire::send(&ours, &ToDaemon::Leave.encode(), None).expect("sends");
    assert_eq!(held.wish().await, Wish::Leave);
    drop(ours);
    let mut wish = held.wish().await;
    while wish == Wish::Leave {
        tokio::task::yield_now().await;
        wish = held.wish().await;
    }
    assert_eq!(wish, Wish::Gone);
}
