//! Fences, takeovers, and who comes back from them.

use block::shared::NodeId;

use super::Scenario;
use super::script::{Script, is_bound, node, route};
use crate::core::client::{Event, Route};
use crate::core::coord::{self, DurableState};
use crate::core::rules::Rule;
use crate::sim::app::{Op, file};
use crate::sim::disk::Path;
use crate::sim::world::{MS, World};

const SCRIPT: Scenario = Scenario { name: "", rule: None, nodes: 3, scsi: false, nexuses: 1, script: |_| {} };

/// A coordinator is paused with a page write in the fabric; the others must not take over before that has landed.
pub(super) const PAUSED_COORDINATOR: Scenario = Scenario {
    name: "the paused coordinator with a page write in the fabric",
    rule: Some(Rule::FenceBeforeLease),
    script: |s| {
        s.begin(1);
        s.fault("pages stick", |w| {
            w.disk.stick_for = Some(9000 * MS);
            w.disk.stick_pages.insert(node(1), 1);
        });
        let made = s.op(2, Op::Private { unlink: false });
        s.until(2000, "the page is on its way", |w| w.disk.pages_flying(node(1)));
        s.fault("pause", |w| w.pause(node(1), false));
        s.ends(&made, 40_000, "the creation is acknowledged");
        s.until(20_000, "the page has landed", |w| !w.disk.pages_flying(node(1)));
        s.heals(&[]);
    },
    ..SCRIPT
};

/// A coordinator is paused, and its session with the disk breaks and comes back, while another takes over. When it goes on it
/// registers anew, and the lease may be the first to tell it that it was succeeded.
pub(super) const WAKES_SUCCEEDED: Scenario = Scenario {
    name: "the coordinator that wakes up to another's lease",
    scsi: true,
    script: |s| {
        s.begin(1);
        s.fault("pause coordinator", |w| w.pause(node(1), false));
        s.fault("session breaks", |w| w.session_breaks(node(1), 0, 100));
        s.until(30_000, "another is in office", |w| w.in_office(node(2)) || w.in_office(node(3)));
        s.run(1000);
        s.world(|w| w.resume(node(1)));
        s.until(10_000, "it knows", |w| !w.in_office(node(1)));
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A client is evicted while a redirected write of it is on the wire: the coordinator refuses that write.
pub(super) const EVICTED_ON_THE_WIRE: Scenario = Scenario {
    name: "the redirected write that meets the eviction of its client",
    script: |s| {
        s.begin(1);
        s.fault("administrator", |w| w.client(node(2), Event::Forced { redirect: true }));
        s.until(5000, "node 2 is redirected", |w| route(w, node(2)) == Some(Route::BlockRedirected));
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        let two = s.who(2);
        let refused = s.op(2, Op::WriteHalf(file(0), 1, 0));
        s.world(|w| {
            if let Some(client) = two {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        s.run(8000);
        drop(refused);
        s.world(|w| w.client(node(2), Event::Forced { redirect: false }));
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A node is granted its path back, and the answer is slow. Before it comes the node is evicted, has stopped, and has said that
/// nothing of it is in flight.
pub(super) const LATE_ANSWER: Scenario = Scenario {
    name: "the answer to the way back that a fence overtakes",
    rule: Some(Rule::FenceOutlastsAnswers),
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        let two = s.who(2);
        s.fault("administrator", |w| w.client(node(2), Event::Forced { redirect: true }));
        s.until(5000, "node 2 is redirected", |w| route(w, node(2)) == Some(Route::BlockRedirected));
        s.fault("slow link", |w| {
            w.net.slow.insert((node(1), node(2)), 300 * MS);
        });
        s.world(|w| {
            w.disk.stick_for = Some(5000 * MS);
            w.disk.stick_data.insert(node(2), 1);
            w.client(node(2), Event::Forced { redirect: false });
        });
        s.until(10_000, "it is granted its path", move |w| {
            let reign = w.nodes[&node(1)].proc.as_ref().and_then(|p| p.reign.as_ref());
            two.zip(reign).is_some_and(|(client, reign)| !reign.core.is_redirected(client))
        });
        s.world(|w| {
            if let Some(client) = two {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        let late = s.op(2, Op::WriteHalf(file(0), 1, 0));
        s.run(8000);
        drop(late);
        s.world(|w| w.net.slow.clear());
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// The eviction of a paused client has begun, and its fence may be done; then the coordinator dies.
pub(super) const HALF_EVICTED: Scenario = Scenario {
    name: "fenced but not yet evicted when the coordinator dies",
    rule: Some(Rule::FinishEvicting),
    nodes: 4,
    scsi: true,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.fault("virtual machine pause", |w| w.pause(node(2), true));
        let other = s.op(3, Op::WriteHalf(file(0), 1, 1));
        s.until(20_000, "the eviction has begun", |w| begun(w, node(2)));
        s.fault("kill coordinator", |w| w.kill(node(1)));
        s.ends(&other, 40_000, "the other node's write ends");
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

fn begun(w: &World, n: NodeId) -> bool {
    w.disk.lun.store.sessions.iter().any(|(c, row)| c.node == n && row.state == DurableState::Evicting)
}

/// A paused client is evicted, what it held is used by another and given back; it goes on and claims it.
pub(super) const REASSERTED_AFTER_EVICTION: Scenario = Scenario {
    name: "the evicted client that re-asserts what it held",
    rule: Some(Rule::ReassertBySessionTable),
    scsi: true,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.fault("virtual machine pause", |w| w.pause(node(2), true));
        s.does(3, Op::WriteHalf(file(0), 1, 1));
        let back: Vec<_> = s.world(|w| {
            let layouts = w.shell(node(3)).map(|shell| shell.layouts.keys().copied().collect()).unwrap_or_default();
            let back: Vec<crate::types::LayoutId> = layouts;
            back.iter().for_each(|l| w.client(node(3), Event::GiveBack { layout: *l }));
            back
        });
        s.until(5000, "they are back", move |w| {
            let held = &w.nodes[&node(3)].proc.as_ref().and_then(|p| p.client.as_ref()).map(|c| &c.layouts);
            held.is_some_and(|h| back.iter().all(|l| !h.contains_key(l)))
        });
        let late = s.op(2, Op::WriteHalf(file(0), 1, 0));
        s.world(|w| w.resume(node(2)));
        s.ends(&late, 30_000, "the late write ends, however it ends");
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// Two coordinators are killed, one after the other, before a client could re-assert to the first successor.
pub(super) const TWO_TAKEOVERS: Scenario = Scenario {
    name: "two takeovers in a row before a client re-asserted",
    nodes: 5,
    script: |s| {
        s.begin(1);
        s.does(5, Op::WriteHalf(file(0), 1, 0));
        s.does(5, Op::Append(file(2)));
        let five = s.who(5);
        s.fault("pause", |w| w.pause(node(5), false));
        s.fault("kill coordinator", |w| w.kill(node(1)));
        s.until(10_000, "a successor takes office", |w| w.coordinators().iter().any(|n| *n != node(1)));
        let second = s.world(|w| w.coordinators().first().copied()).unwrap_or(node(2));
        s.run(20);
        s.fault("kill coordinator", |w| w.kill(second));
        s.until(10_000, "another takes office", move |w| w.coordinators().iter().any(|n| *n != second));
        s.world(|w| w.resume(node(5)));
        s.until(10_000, "node 5 is bound", |w| is_bound(w, node(5)));
        s.does(5, Op::Append(file(2)));
        s.not_evicted(5, five);
        s.heals(&[Op::Read(file(0), 1), Op::Read(file(2), 1), Op::Stat(file(2))]);
    },
    ..SCRIPT
};

/// The answer to the lease's compare-and-write is lost, and the write itself lands much later; others want office too.
pub(super) const LOST_CAW: Scenario = Scenario {
    name: "a lost CAW reply and its hedge",
    rule: Some(Rule::LostCawIsUnsettled),
    nodes: 4,
    scsi: true,
    nexuses: 2,
    script: |s| {
        s.begin(4);
        s.fault("caw lost", |w| {
            w.disk.stick_for = Some(4000 * MS);
            for n in 1..=3 {
                w.disk.lose_lease.insert(node(n), vec![true]);
            }
        });
        s.fault("kill coordinator", |w| w.kill(node(4)));
        s.until(30_000, "somebody takes office", |w| !w.coordinators().is_empty());
        s.run(6000);
        s.world(|w| w.disk.lose_lease.clear());
        s.heals(&[Op::Write(file(0), 1)]);
    },
};

/// A fence of one life of a node arrives when its next life has registered.
pub(super) const LATE_FENCER: Scenario = Scenario {
    name: "a late fencer against a rejoined node",
    rule: Some(Rule::FenceNamesIncarnation),
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.fault("kill", |w| w.kill(node(2)));
        s.run(3);
        s.world(|w| w.start(node(2)));
        s.until(5000, "node 2 has its next life", |w| w.client_is(node(2)).is_some());
        let next = s.who(2);
        s.until(20_000, "its next life is bound", |w| is_bound(w, node(2)));
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.not_evicted(2, next);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// Two nodes fence a coordinator that was killed with a page in the disk behind the target. The first has sent PREEMPT AND ABORT, which
/// waits for the page; the second reads the keys.
pub(super) const TWO_FENCERS: Scenario = Scenario {
    name: "the keys that another fencer is just taking away",
    rule: Some(Rule::AnsweredPreempt),
    scsi: true,
    script: |s| {
        s.begin(3);
        s.fault("disk sticks", |w| {
            w.disk.stick_for = Some(12_000 * MS);
            w.disk.stick_behind.insert(node(3), 1);
        });
        let made = s.op(1, Op::Private { unlink: false });
        s.until(2000, "the page is with the disk", |w| w.disk.has_behind(node(3)));
        s.fault("kill coordinator", |w| w.kill(node(3)));
        s.ends(&made, 60_000, "the creation is acknowledged");
        s.until(20_000, "the page has ended", |w| !w.disk.has_behind(node(3)));
        s.heals(&[]);
    },
    ..SCRIPT
};

/// A coordinator fences a client that has a write in the disk behind the target. It asks over a second nexus when the first answer takes
/// long.
pub(super) const SECOND_NEXUS: Scenario = Scenario {
    name: "the fence that is asked for over a second nexus",
    rule: Some(Rule::AnsweredPreempt),
    scsi: true,
    nexuses: 2,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        stuck_behind(s, 2, 6000);
        s.run(9000);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A coordinator fences a client that has a write in the disk behind the target, and dies before it is answered. Nobody is left who
/// knows: the next one has to find out by itself.
pub(super) const FENCER_DIES: Scenario = Scenario {
    name: "the fencer that dies between its question and the answer",
    rule: Some(Rule::AnsweredPreempt),
    nodes: 4,
    scsi: true,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        stuck_behind(s, 2, 20_000);
        s.until(5000, "its key is being taken away", |w| w.disk.ends_tasks_for(node(1)));
        s.fault("kill coordinator", |w| w.kill(node(1)));
        s.until(30_000, "another takes office", |w| !w.coordinators().is_empty());
        s.run(20_000);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A write of a node sticks in the disk for so long; then its machine pauses and its eviction begins.
fn stuck_behind(s: &mut Script<'_>, n: u8, for_ms: u64) {
    let who = s.who(n);
    s.fault("disk sticks", |w| {
        w.disk.stick_for = Some(for_ms * MS);
        w.disk.stick_behind.insert(node(n), 1);
    });
    drop(s.op(n, Op::Write(file(0), 1)));
    s.until(2000, "the write is with the disk", |w| w.disk.has_behind(node(n)));
    s.fault("virtual machine pause", |w| w.pause(node(n), true));
    s.world(|w| {
        let coordinator = w.coordinators().first().copied();
        if let (Some(client), Some(coordinator)) = (who, coordinator) {
            w.coord(coordinator, coord::Event::ClientDead { client });
        }
    });
}

/// A node's nexus was down while it was evicted; it comes back, registers, and has a write in its queue.
pub(super) const REGISTERS_AGAIN: Scenario = Scenario {
    name: "the victim that registers again",
    rule: Some(Rule::RegisterThenReadSlot),
    scsi: true,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.fault("session breaks", |w| w.session_breaks(node(2), 0, 40));
        s.fault("virtual machine pause", |w| w.pause(node(2), true));
        s.does(3, Op::WriteHalf(file(0), 1, 1));
        let late = s.op(2, Op::Write(file(0), 1));
        s.world(|w| w.resume(node(2)));
        s.ends(&late, 30_000, "the late write ends, however it ends");
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// Two nodes fence a coordinator that is cut off but alive; one succeeds it. Later the fenced client is coordinator again,
/// in due form, with a page of its own in the fabric: the other's proof is of the earlier reign.
pub(super) const OLD_PROOF: Scenario = Scenario {
    name: "an old proof of a client that holds office again",
    rule: Some(Rule::ProofOfOneReign),
    script: |s| {
        s.begin(3);
        s.fault("cut node", |w| {
            for n in 1..=2 {
                w.net.cut.extend([(node(3), node(n)), (node(n), node(3))]);
            }
        });
        s.until(20_000, "another takes office", |w| w.coordinators().iter().any(|n| *n != node(3)));
        let heir = s.world(|w| w.coordinators().into_iter().find(|n| *n != node(3))).unwrap_or(node(1));
        s.run(300);
        s.world(|w| w.net.cut.clear());
        s.until(20_000, "everybody is whole again", |w| {
            w.nodes.keys().all(|n| is_bound(w, *n) && route(w, *n) == Some(Route::Direct))
        });
        s.run(1000);
        s.fault("pages stick", |w| {
            w.disk.stick_for = Some(3000 * MS);
            w.disk.stick_pages.insert(node(3), 1);
        });
        // Else node 3 would hear of another reign before its first page is out.
        s.fault("slow link", |w| {
            w.net.slow.extend((1..=2).map(|n| ((node(n), node(3)), 2000 * MS)));
        });
        s.fault("move", |w| w.resign(heir, Some(node(3))));
        s.until(20_000, "node 3 is coordinator again", |w| w.in_office(node(3)));
        s.run(6000);
        s.heals(&[]);
    },
    ..SCRIPT
};

/// A client with a write in the fabric is asked whether it has stopped.
pub(super) const ANSWERED_TOO_SOON: Scenario = Scenario {
    name: "the victim that is asked with a write in the fabric",
    rule: Some(Rule::AnswerNeedsNothingInFlight),
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        let two = s.who(2);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(4000 * MS);
            w.disk.stick_data.insert(node(2), 1);
        });
        let stuck = s.op(2, Op::Write(file(0), 1));
        s.until(2000, "the write is on its way", |w| w.disk.writes_flying(node(2)));
        s.world(|w| {
            if let Some(client) = two {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        s.run(8000);
        drop(stuck);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A coordinator's own client, fenced once and granted that generation, is evicted with a write in the fabric, and just
/// then a renewal of its slot is out.
pub(super) const OWN_RAISE: Scenario = Scenario {
    name: "the renewal that is taken for the raise of the coordinator's own client",
    rule: Some(Rule::OwnRaiseHasLanded),
    script: |s| {
        s.begin(1);
        s.fault("administrator", |w| w.client(node(1), Event::Forced { redirect: true }));
        s.until(5000, "node 1 is redirected", |w| route(w, node(1)) == Some(Route::BlockRedirected));
        s.world(|w| w.client(node(1), Event::Forced { redirect: false }));
        s.until(5000, "node 1 is direct again", |w| route(w, node(1)) == Some(Route::Direct));
        s.does(1, Op::WriteHalf(file(0), 1, 0));
        let one = s.who(1);
        // Renewals begin every 250 ms.
        let pause = s.world(|w| w.rng.below(250));
        s.run(pause);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(4000 * MS);
            w.disk.stick_data.insert(node(1), 1);
        });
        let stuck = s.op(1, Op::Write(file(0), 1));
        s.until(2000, "the write is on its way", |w| w.disk.writes_flying(node(1)));
        s.fault("path slow", |w| w.set_path(node(1), Path::Slow(60 * MS)));
        s.world(|w| {
            if let Some(client) = one {
                w.coord(node(1), coord::Event::ClientDead { client });
            }
        });
        let other = s.op(3, Op::WriteHalf(file(0), 1, 1));
        s.run(8000);
        drop((stuck, other));
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};
