//! The tie-breaker: a vote without a disk of data. It persists what it promised and granted before it says so.
//!
//! It refuses a candidate while it hears the primary of the newest grant: a reign ends by death or farewell, not by
//! whoever asks first.

use std::collections::BTreeMap;

use super::event::{ConnId, Message, Now};
use super::rules::{Rule, Rules};
use crate::ids::{Ballot, Grant, NodeId};

/// What is on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// Nothing of a lower ballot is accepted.
    pub promised: Ballot,
    /// The newest grant.
    pub grant: Grant,
}

/// What it is told.
#[derive(Clone, Debug)]
pub enum WitnessEvent {
    /// A connection is up.
    Connected(NodeId, ConnId),
    /// It is gone.
    Lost(NodeId, ConnId),
    /// Something came.
    Received(NodeId, ConnId, Message),
    /// The vote of this number is durable.
    Persisted(u64),
    /// Time has passed.
    Tick,
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum WitnessEffect {
    /// Send it.
    Send(NodeId, ConnId, Message),
    /// End the connection; a new one is made.
    Close(NodeId, ConnId),
    /// Make this durable and say so with its number; never an older one over a newer.
    Persist(u64, Vote),
}

/// The tie-breaker.
#[derive(Clone, Debug)]
pub struct Witness {
    vote: Vote,
    rules: Rules,
    dead_ms: u64,
    conns: BTreeMap<NodeId, (ConnId, Now)>,
    /// The primary that lives, as far as its connection says.
    reigning: Option<NodeId>,
    waiting: BTreeMap<u64, (NodeId, ConnId, Message)>,
    next: u64,
}

impl Witness {
    /// With what its disk says. A connection on which nothing came for `dead_ms` is dead.
    pub fn new(vote: Vote, dead_ms: u64, rules: Rules) -> Witness {
        let (conns, waiting) = (BTreeMap::new(), BTreeMap::new());
        Witness { vote, rules, dead_ms, conns, reigning: None, waiting, next: 0 }
    }

    /// What it voted.
    pub fn vote(&self) -> Vote {
        self.vote
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, event: WitnessEvent, fx: &mut Vec<WitnessEffect>) {
        match event {
            WitnessEvent::Connected(node, conn) => {
                self.conns.insert(node, (conn, now));
            }
            WitnessEvent::Lost(node, conn) => self.gone(node, conn),
            WitnessEvent::Received(node, conn, message) => {
                if self.conns.get(&node).is_some_and(|(c, _)| *c == conn) {
                    self.conns.insert(node, (conn, now));
                    self.received(node, conn, message, fx);
                }
            }
            WitnessEvent::Persisted(number) => {
                if let Some((node, conn, answer)) = self.waiting.remove(&number) {
                    fx.push(WitnessEffect::Send(node, conn, answer));
                }
            }
            WitnessEvent::Tick => {
                let dead = |at: &Now| now.0.saturating_sub(at.0) > self.dead_ms;
                let late: Vec<_> =
                    self.conns.iter().filter(|(_, (_, at))| dead(at)).map(|(n, (c, _))| (*n, *c)).collect();
                for (node, conn) in late {
                    self.gone(node, conn);
                    fx.push(WitnessEffect::Close(node, conn));
                }
            }
        }
    }

    fn gone(&mut self, node: NodeId, conn: ConnId) {
        if self.conns.get(&node).is_some_and(|(c, _)| *c == conn) {
            self.conns.remove(&node);
            if self.reigning == Some(node) {
                self.reigning = None;
            }
        }
    }

    fn received(&mut self, node: NodeId, conn: ConnId, message: Message, fx: &mut Vec<WitnessEffect>) {
        match message {
            Message::Ping => fx.push(WitnessEffect::Send(node, conn, Message::Pong)),
            Message::Farewell if self.reigning == Some(node) => self.reigning = None,
            Message::Hello(hello) if hello.reigns.is_some_and(|b| b >= self.vote.promised) => {
                self.reigning = Some(node);
            }
            Message::Prepare(ballot) => {
                let other = self.reigning.is_some_and(|n| n != node);
                if other || (ballot <= self.vote.promised && self.rules.has(Rule::LowerBallotRefused)) {
                    return fx.push(WitnessEffect::Send(node, conn, Message::Reject(ballot, self.vote.promised)));
                }
                self.vote.promised = ballot;
                let answer = Message::Promise(ballot, self.vote.grant, false);
                self.persist(node, conn, answer, fx);
            }
            Message::Accept { grant, .. } => {
                if grant.ballot < self.vote.promised && self.rules.has(Rule::LowerBallotRefused) {
                    let answer = Message::Reject(grant.ballot, self.vote.promised);
                    return fx.push(WitnessEffect::Send(node, conn, answer));
                }
                self.vote.promised = grant.ballot;
                if grant.number() > self.vote.grant.number() {
                    self.vote.grant = grant;
                }
                self.reigning = Some(node);
                self.persist(node, conn, Message::Accepted(grant.ballot, grant.version), fx);
            }
            _ => {}
        }
    }

    /// The answer waits until the vote is durable.
    fn persist(&mut self, node: NodeId, conn: ConnId, answer: Message, fx: &mut Vec<WitnessEffect>) {
        self.next += 1;
        fx.push(WitnessEffect::Persist(self.next, self.vote));
        if self.rules.has(Rule::VoteIsDurable) {
            self.waiting.insert(self.next, (node, conn, answer));
        } else {
            fx.push(WitnessEffect::Send(node, conn, answer));
        }
    }
}
