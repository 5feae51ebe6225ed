//! Daemons that make room for the next: what they must not leave behind, and what becomes of them while nobody runs.

use super::Scenario;
use super::script::{Script, is_bound, node};
use crate::core::coord;
use crate::core::rules::Rule;
use crate::sim::app::{Op, file};
use crate::sim::world::MS;

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

/// The coordinator's daemon makes room for the next on a unit, with a page write on a nexus that does not answer any more. The next one
/// reaches the unit over its other nexus. Nobody else is there who would fence it meanwhile.
pub(super) const LEFT_UNPROVED: Scenario = Scenario {
    name: "the daemon that makes room with a page write on a nexus that hangs",
    rule: Some(Rule::EndedBeforeHandedOn),
    nodes: 2,
    scsi: true,
    nexuses: 2,
    script: |s| {
        s.begin(1);
        s.fault("pages stick", |w| {
            w.disk.stick_for = Some(14_000 * MS);
            w.disk.stick_pages.insert(node(1), 1);
        });
        drop(s.op(2, Op::Private { unlink: false }));
        s.until(2000, "the page is on its way", |w| w.disk.pages_flying(node(1)));
        s.fault("kill", |w| w.kill(node(2)));
        s.fault("nexus hangs", |w| {
            if let Some(nexus) = w.disk.pages_fly_over(node(1)) {
                w.nexus_hangs(node(1), nexus, true);
                w.session_breaks(node(1), nexus, 60_000);
            }
        });
        s.fault("planned restart", |w| {
            w.restart(node(1));
        });
        goes_on(s, 1);
        s.run(8000);
        s.world(|w| w.start(node(2)));
        s.heals(&[]);
    },
};

/// Restarts in order of the daemons of a volume on a unit, one after the other, with a lock and something uncommitted in each.
pub(super) const RESTARTED_ON_A_UNIT: Scenario = Scenario {
    name: "daemons on a unit that make room one after the other under programs that hold locks",
    scsi: true,
    nexuses: 2,
    script: |s| {
        s.begin(1);
        for (n, locked) in [(2, file(0)), (1, file(1)), (3, file(2))] {
            s.does(n, Op::Append(file(2)));
            s.does(n, Op::HoldsAll(locked));
            let who = s.who(n);
            let waits = s.op(if n == 3 { 2 } else { 3 }, Op::TriesAll(locked));
            s.fault("planned restart", |w| {
                w.restart(node(n));
            });
            goes_on(s, n);
            s.ends(&waits, 30_000, "a program is refused the lock");
            s.not_evicted(n, who);
            s.same_life(n, who);
            s.does(n, Op::Append(file(2)));
        }
        s.heals(&[Op::Read(file(2), 1)]);
    },
    ..SCRIPT
};

/// The same as on a file: its node is evicted while no daemon runs, or just when the next one comes.
pub(super) const EVICTED_BETWEEN_ON_A_UNIT: Scenario = Scenario {
    name: "the node that is evicted between two of its daemons on a unit",
    scsi: true,
    nexuses: 2,
    ..EVICTED_BETWEEN
};

/// A program makes a file that nobody else makes, and its daemon is killed while it does; `after` the kill it goes on.
fn killed_at_work(s: &mut Script<'_>, op: Op) {
    s.begin(1);
    let two = s.who(2);
    let ended = s.op(2, op);
    let wait = s.world(|w| w.rng.below(60));
    s.run(wait);
    s.fault("kill under a holder", |w| {
        w.kill_held(node(2));
    });
    goes_on(s, 2);
    s.not_evicted(2, two);
    s.ends(&ended, 30_000, "what a program asked before the kill is answered");
    s.heals(&[Op::Read(file(0), 1)]);
}

/// Its call was sent, and its daemon is killed before it has the answer.
pub(super) const KILLED_WITH_A_CALL: Scenario = Scenario {
    name: "the daemon that is killed with a call on its way",
    rule: Some(Rule::NotedBeforeSent),
    script: |s| killed_at_work(s, Op::Private { unlink: true }),
    ..SCRIPT
};

/// The same: the kernel sends its request again.
pub(super) const COMES_AGAIN: Scenario = Scenario {
    name: "the request that comes again to the next daemon",
    rule: Some(Rule::ClaimedOnce),
    script: |s| killed_at_work(s, Op::Private { unlink: true }),
    ..SCRIPT
};

/// A program has appended and was told so, and its daemon is killed before it has committed.
pub(super) const KILLED_UNCOMMITTED: Scenario = Scenario {
    name: "the daemon that is killed with a mapping that nobody else knows",
    rule: Some(Rule::WriteIsNoted),
    script: |s| {
        s.begin(1);
        s.does(2, Op::Append(file(2)));
        let two = s.who(2);
        s.fault("kill under a holder", |w| {
            w.kill_held(node(2));
        });
        goes_on(s, 2);
        s.not_evicted(2, two);
        s.does(2, Op::Read(file(2), 1));
        s.does(2, Op::Stat(file(2)));
        s.does(2, Op::Append(file(2)));
        s.heals(&[Op::Read(file(2), 1), Op::Read(file(2), 2)]);
    },
    ..SCRIPT
};

/// A program holds a lock, and its daemon is killed again and again. Others do not get it.
pub(super) const KILLED_WITH_A_LOCK: Scenario = Scenario {
    name: "the daemon that is killed again and again while a program holds a lock",
    script: |s| {
        s.begin(1);
        s.does(2, Op::HoldsAll(file(0)));
        let two = s.who(2);
        for _ in 0..3 {
            let other = s.op(3, Op::TriesAll(file(0)));
            s.fault("kill under a holder", |w| {
                w.kill_held(node(2));
            });
            goes_on(s, 2);
            s.ends(&other, 30_000, "a program is refused the lock");
            s.not_evicted(2, two);
        }
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// It is killed, and while no daemon runs its node is evicted: what it had under way is not executed.
pub(super) const KILLED_AND_EVICTED: Scenario = Scenario {
    name: "the node whose daemon is killed, and that is evicted before the next one comes",
    script: |s| {
        s.begin(1);
        s.does(2, Op::HoldsAll(file(0)));
        let two = s.who(2);
        let ended = s.op(2, Op::Private { unlink: true });
        let wait = s.world(|w| w.rng.below(40));
        s.run(wait);
        s.fault("kill under a holder", |w| {
            w.kill_held(node(2));
        });
        s.world(|w| {
            if let Some(client) = two {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        s.does(3, Op::HoldsAll(file(0)));
        goes_on(s, 2);
        s.ends(&ended, 30_000, "what a program asked before the kill is answered");
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// The only daemon that could coordinate is killed under its programs, and goes on as coordinator and client.
pub(super) const KILLED_IN_OFFICE: Scenario = Scenario {
    name: "the only daemon, killed in office under a program that holds a lock",
    nodes: 1,
    script: |s| {
        s.begin(1);
        s.does(1, Op::HoldsAll(file(0)));
        s.does(1, Op::Append(file(2)));
        let one = s.who(1);
        for _ in 0..3 {
            let ended = s.op(1, Op::Private { unlink: true });
            let wait = s.world(|w| w.rng.below(40));
            s.run(wait);
            s.fault("kill under a holder", |w| {
                w.kill_held(node(1));
            });
            goes_on(s, 1);
            s.ends(&ended, 30_000, "what a program asked before the kill is answered");
            s.not_evicted(1, one);
        }
        s.does(1, Op::Read(file(2), 1));
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// The same, and others take the office before its next daemon is there: they wait for its client, which holds a lock and something that
/// only it knows.
pub(super) const KILLED_AND_SUCCEEDED: Scenario = Scenario {
    name: "the coordinator that is killed under programs that go on under its successor",
    script: |s| {
        s.begin(1);
        s.does(1, Op::HoldsAll(file(0)));
        s.does(1, Op::Append(file(2)));
        let one = s.who(1);
        let ended = s.op(1, Op::Private { unlink: true });
        let other = s.op(3, Op::TriesAll(file(0)));
        let wait = s.world(|w| w.rng.below(40));
        s.run(wait);
        s.fault("kill under a holder", |w| {
            w.kill_held(node(1));
        });
        s.until(30_000, "another takes office", |w| w.in_office(node(2)) || w.in_office(node(3)));
        goes_on(s, 1);
        s.ends(&ended, 30_000, "what a program asked before the kill is answered");
        s.ends(&other, 30_000, "a program is refused the lock");
        s.not_evicted(1, one);
        s.does(1, Op::Append(file(2)));
        s.does(1, Op::Read(file(2), 1));
        s.heals(&[Op::Read(file(0), 1), Op::Read(file(2), 1)]);
    },
    ..SCRIPT
};
