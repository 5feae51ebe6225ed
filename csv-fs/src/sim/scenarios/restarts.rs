//! Daemons that make room for the next: what they must not leave behind, and what becomes of them while nobody runs.

use super::Scenario;
use super::script::{Script, is_bound, node};
use crate::core::coord;
use crate::core::rules::Rule;
use crate::sim::app::{Op, file};

const SCRIPT: Scenario = Scenario { name: "", rule: None, nodes: 3, scsi: false, nexuses: 1, script: |_| {} };

fn goes_on(s: &mut Script<'_>, n: u8) {
    s.until(30_000, "the next daemon is bound", move |w| {
        !w.leaving.contains_key(&node(n)) && w.is_up(node(n)) && is_bound(w, node(n))
    });
}

/// A program has appended; its daemon makes room. What the mapping of the new block is only that daemon knows.
pub(super) const LEFT_TOO_SOON: Scenario = Scenario {
    name: "the daemon that makes room with a mapping that nobody else knows",
    rule: Some(Rule::LeavesWithEmptyHands),
    script: |s| {
        s.begin(1);
        s.does(2, Op::Append(file(2)));
        let two = s.who(2);
        s.fault("planned restart", |w| {
            w.restart(node(2));
        });
        goes_on(s, 2);
        s.not_evicted(2, two);
        s.does(2, Op::Read(file(2), 1));
        s.does(2, Op::Stat(file(2)));
        s.heals(&[Op::Read(file(2), 1)]);
    },
    ..SCRIPT
};

/// A program holds a lock; its daemon makes room, and the node is evicted while no daemon runs or just when the next one comes.
/// Another program gets the lock.
pub(super) const EVICTED_BETWEEN: Scenario = Scenario {
    name: "the node that is evicted between two of its daemons",
    script: |s| {
        s.begin(1);
        s.does(2, Op::HoldsAll(file(0)));
        let two = s.who(2);
        s.fault("planned restart", |w| {
            w.restart(node(2));
        });
        s.until(10_000, "its daemon has ended", |w| !w.is_up(node(2)));
        s.world(|w| {
            if let Some(client) = two {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        s.does(3, Op::HoldsAll(file(0)));
        goes_on(s, 2);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// The coordinator's daemon makes room while another program of its node has written; the office goes before.
pub(super) const COORDINATOR_LEAVES: Scenario = Scenario {
    name: "the coordinator's daemon that makes room under a program",
    script: |s| {
        s.begin(1);
        s.does(1, Op::Append(file(2)));
        s.does(1, Op::HoldsAll(file(0)));
        let one = s.who(1);
        let waits = s.op(3, Op::HoldsAll(file(0)));
        s.fault("planned restart", |w| {
            w.restart(node(1));
        });
        goes_on(s, 1);
        s.run(3000);
        s.not_evicted(1, one);
        s.does(1, Op::Append(file(2)));
        drop(waits);
        s.heals(&[Op::Read(file(2), 1)]);
    },
    ..SCRIPT
};
