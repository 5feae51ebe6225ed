//! `events`: what a daemon remembers, and with `--follow` what comes, over restarts of the daemon.
//!
//! Events are numbered within one life of a daemon. When the connection ends, the follower waits for a daemon to answer and
//! asks for the event it saw last: if that is there, the same daemon goes on, and what came meanwhile follows; if not, it is
//! another life, and everything of it follows. Numbers that are left out are told: a log keeps only its newest events.

use std::time::Duration;

use serde_json::json;

use crate::api::{Client, SCHEMA};
use crate::cli::{EventsArgs, Global};
use crate::commands::{client, print_on, progress};
use crate::events::{Event, Severity};
use crate::exit::Exit;
use crate::exit::Failure;
use crate::render;

/// How often a daemon that has gone is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `events`
pub(super) fn run(args: &EventsArgs, global: &Global) -> Result<Exit, Failure> {
    let client = client(global);
    let mut follower = Follower { wish: args.clone(), last: None };
    let mut say = progress(global);
    let first = follower.once(&client, 0, global);
    if !args.follow {
        return first.map(|_| Exit::Ok);
    }
    let mut ended = first;
    loop {
        match ended {
            Ok(false) => return Ok(Exit::Ok),
            // There was never a daemon to follow.
            Err(failure) if follower.last.is_none() => return Err(failure),
            _ => say("The daemon has gone; waiting for it."),
        }
        let after = loop {
            std::thread::sleep(LOOK_EVERY);
            if let Ok(after) = follower.goes_on(&client) {
                break after;
            }
        };
        ended = follower.once(&client, after, global);
    }
}

/// What has been shown, and what is to be.
struct Follower {
    wish: EventsArgs,
    last: Option<Event>,
}

impl Follower {
    /// Shows events until the connection ends; false if nobody reads any more.
    fn once(&mut self, client: &Client, after: u64, global: &Global) -> Result<bool, Failure> {
        let mut read = Ok(true);
        client.events(self.wish.follow, after, |event| {
            read = self.show(event, global);
            matches!(read, Ok(true))
        })?;
        read
    }

    fn show(&mut self, event: Event, global: &Global) -> Result<bool, Failure> {
        let missed = self.missed(&event);
        let wanted = self.wants(&event);
        let mut text = String::new();
        if missed > 0 {
            text += &match global.json {
                true => format!("{}\n", json!({ "schema": SCHEMA, "missed": missed })),
                false => format!("... {missed} events were not kept\n"),
            };
        }
        if wanted {
            text += &match global.json {
                true => format!("{}\n", json!({ "schema": SCHEMA, "event": event })),
                false => render::event(&event),
            };
        }
        self.last = Some(event);
        if text.is_empty() { Ok(true) } else { print_on(&text) }
    }

    /// How many events of this life came between the last one and this one, and are not kept any more.
    fn missed(&self, event: &Event) -> u64 {
        match &self.last {
            // Numbers that begin anew are of another life.
            Some(last) if event.seq > last.seq && event.at >= last.at => event.seq - last.seq - 1,
            _ => 0,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let grave = event.severity >= self.wish.severity.unwrap_or(Severity::Info);
        let volume = self.wish.volume.is_none() || event.volume == self.wish.volume;
        grave && volume
    }

    /// After which number a daemon that answers is to be followed.
    fn goes_on(&self, client: &Client) -> Result<u64, Failure> {
        let Some(last) = &self.last else { return Ok(0) };
        let mut found = None;
        client.events(false, last.seq.saturating_sub(1), |event| {
            found = Some(event);
            false
        })?;
        Ok(after(last, found.as_ref()))
    }
}

/// Where to go on, by what a daemon has under the number of the last event seen.
fn after(last: &Event, found: Option<&Event>) -> u64 {
    if found == Some(last) { last.seq } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Node;
    use crate::clock::WallTime;
    use crate::events::Code;

    fn event(seq: u64, at: u64, code: Code, volume: Option<&str>) -> Event {
        Event {
            seq,
            at: WallTime(at),
            code,
            severity: code.severity(),
            node: Node::new(1).expect("a node"),
            volume: volume.map(str::to_owned),
            message: "m".into(),
            next: "n".into(),
        }
    }

    fn follower(severity: Option<Severity>, volume: Option<&str>) -> Follower {
        let wish = EventsArgs { follow: true, severity, volume: volume.map(str::to_owned) };
        Follower { wish, last: None }
    }

    #[test]
    fn a_daemon_that_lives_on_is_followed_on_and_another_life_from_its_beginning() {
        let last = event(7, 500, Code::PeerUp, None);
        assert_eq!(after(&last, Some(&last)), 7);
        assert_eq!(after(&last, Some(&event(7, 900, Code::PeerUp, None))), 0, "the seventh event of another life");
        assert_eq!(after(&last, None), 0, "another life with fewer events");
        assert_eq!(after(&last, Some(&event(9, 500, Code::PeerUp, None))), 0, "it is not kept: what is there is shown");
    }

    #[test]
    fn numbers_that_are_left_out_are_told_and_those_of_another_life_are_not() {
        let mut f = follower(None, None);
        assert_eq!(f.missed(&event(5, 1, Code::PeerUp, None)), 0, "what was before is not missed");
        f.last = Some(event(5, 1, Code::PeerUp, None));
        assert_eq!(f.missed(&event(6, 1, Code::PeerUp, None)), 0);
        assert_eq!(f.missed(&event(9, 2, Code::PeerUp, None)), 3);
        assert_eq!(f.missed(&event(1, 9, Code::DaemonStarted, None)), 0);
    }

    #[test]
    fn only_what_was_asked_for_is_shown() {
        let f = follower(Some(Severity::Warning), Some("v"));
        assert!(f.wants(&event(1, 1, Code::PathLost, Some("v"))));
        for other in [
            event(1, 1, Code::PathBack, Some("v")),
            event(1, 1, Code::PathLost, Some("w")),
            event(1, 1, Code::PeerDown, None),
        ] {
            assert!(!f.wants(&other), "{other}");
        }
    }
}
