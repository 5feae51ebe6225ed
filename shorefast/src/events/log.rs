//! The event log of one daemon: the latest [`EventLog::KEPT`] events, numbered from 1, and a bell for whoever follows.
//!
//! It is memory only; each event also goes to the daemon's own log. A follower that is slower than events come misses
//! some, and sees that by their numbers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::code::{Code, Severity};
use crate::api::Node;
use crate::clock::WallTime;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number on this daemon, from 1.
    pub seq: u64,
    /// When.
    pub at: WallTime,
    /// What kind.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// The node that reports it.
    pub node: Node,
    /// The volume it is about.
    pub volume: Option<String>,
    /// What exactly, in a sentence.
    pub message: String,
    /// What to do next.
    pub next: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<7} {} ", self.at.time_of_day(), self.severity, self.node)?;
        if let Some(volume) = &self.volume {
            write!(f, "{volume}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.code)
    }
}

/// An event before it has a number and a time.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What kind; severity and general advice come from it.
    pub code: Code,
    /// The volume.
    pub volume: Option<String>,
    /// What exactly.
    pub message: String,
    /// What to do next, where the code's own advice is too general.
    pub next: Option<String>,
}

impl Draft {
    /// About this node.
    pub fn node(code: Code, message: impl Into<String>) -> Draft {
        Draft { code, volume: None, message: message.into(), next: None }
    }

    /// About a volume.
    pub fn volume(code: Code, volume: impl Into<String>, message: impl Into<String>) -> Draft {
        Draft { code, volume: Some(volume.into()), message: message.into(), next: None }
    }

    /// With advice of its own.
    pub fn advising(self, next: impl Into<String>) -> Draft {
        Draft { next: Some(next.into()), ..self }
    }
}

/// The log. Cheap to write to; never blocks for a reader.
#[derive(Debug)]
pub struct EventLog {
    node: Node,
    kept: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl EventLog {
    /// Events kept: days of a quiet cluster, minutes of a bad one, about a MiB.
    pub const KEPT: usize = 4096;

    /// An empty log of a node.
    pub fn new(node: Node) -> EventLog {
        EventLog { node, kept: Mutex::new(VecDeque::new()), newest: watch::Sender::new(0) }
    }

    /// Adds an event, writes it to the daemon's log, wakes the followers; returns its number.
    pub fn record(&self, draft: Draft) -> u64 {
        let mut kept = self.kept();
        let seq = self.newest.borrow().saturating_add(1);
        let event = Event {
            seq,
            at: WallTime::now(),
            code: draft.code,
            severity: draft.code.severity(),
            node: self.node,
            volume: draft.volume,
            message: draft.message,
            next: draft.next.unwrap_or_else(|| draft.code.next_step().to_owned()),
        };
        match event.severity {
            Severity::Info => {
                tracing::info!(code = %event.code, node = %event.node, volume = event.volume, "{}", event.message)
            }
            Severity::Warning => {
                tracing::warn!(code = %event.code, node = %event.node, volume = event.volume, "{}", event.message)
            }
            Severity::Error => {
                tracing::error!(code = %event.code, node = %event.node, volume = event.volume, "{}", event.message)
            }
        }
        if kept.len() == EventLog::KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
        self.newest.send_replace(seq);
        seq
    }

    /// The events kept with numbers above `after`, oldest first.
    pub fn after(&self, after: u64) -> Vec<Event> {
        self.kept().iter().filter(|e| e.seq > after).cloned().collect()
    }

    /// The number of the newest event, as it grows.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// A panic while the lock was held leaves whole events behind: go on with them.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> EventLog {
        EventLog::new(Node::new(1).expect("1 is a node"))
    }

    #[test]
    fn events_are_numbered_and_read_after_a_number() {
        let log = log();
        for n in 0..3 {
            log.record(Draft::node(Code::DaemonStarted, format!("{n}")));
        }
        let got: Vec<(u64, String)> = log.after(1).into_iter().map(|e| (e.seq, e.message)).collect();
        assert_eq!(got, [(2, "1".to_owned()), (3, "2".to_owned())]);
        assert_eq!(*log.newest().borrow(), 3);
    }

    #[test]
    fn the_oldest_event_goes_when_the_log_is_full() {
        let log = log();
        for _ in 0..=EventLog::KEPT {
            log.record(Draft::node(Code::PeerUp, "up"));
        }
        let kept = log.after(0);
        assert_eq!((kept.len(), kept[0].seq), (EventLog::KEPT, 2));
    }
}
