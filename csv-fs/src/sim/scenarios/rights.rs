//! Layouts, recalls, request slots and their answers.

use super::Scenario;
use super::script::{node, route};
use crate::core::client::{Event, Route};
use crate::core::rules::Rule;
use crate::sim::app::{Op, file};
use crate::sim::oracle::Invariant;
use crate::sim::world::MS;
use crate::types::ORDINARY_SLOTS;

const SCRIPT: Scenario = Scenario { name: "", rule: None, nodes: 3, scsi: false, nexuses: 1, script: |_| {} };

/// Two nodes fill all their ordinary slots with requests for what the other holds.
pub(super) const RING_OF_RECALLS: Scenario = Scenario {
    name: "a ring of recalls that eats all request slots",
    rule: Some(Rule::ReturnsHaveOwnSlots),
    script: |s| {
        s.begin(1);
        s.does(2, Op::Append(file(2)));
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.does(3, Op::WriteHalf(file(1), 1, 0));
        let mut ops = Vec::new();
        for _ in 0..u16::from(ORDINARY_SLOTS) + 8 {
            ops.push(s.op(2, Op::Read(file(1), 1)));
            ops.push(s.op(3, Op::Read(file(0), 1)));
        }
        for op in &ops {
            s.ends(op, 20_000, "a read of what the other held ends");
        }
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A layout is recalled from a node whose requests hang: its route drains for longer than a recall may take.
pub(super) const HUNG_PATH: Scenario = Scenario {
    name: "a recall meeting a hung path",
    rule: Some(Rule::DrainingCountsAsProgress),
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        let two = s.who(2);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(5000 * MS);
            w.disk.stick_data.insert(node(2), 1);
        });
        let stuck = s.op(2, Op::Write(file(0), 1));
        s.until(2000, "the write is on its way", |w| w.disk.writes_flying(node(2)));
        s.run(700);
        let other = s.op(3, Op::WriteHalf(file(0), 1, 1));
        s.ends(&other, 30_000, "the other node's write ends");
        s.ends(&stuck, 30_000, "the stuck write ends");
        s.not_evicted(2, two);
        s.heals(&[Op::Read(file(0), 1)]);
    },
    ..SCRIPT
};

/// A node holds a lock, another waits for it, and the coordinator dies. The one that waits is the first to ask the next one.
pub(super) const LOCK_NOT_NAMED_YET: Scenario = Scenario {
    name: "the lock whose holder has not named it yet",
    rule: Some(Rule::GraceWaitsForLocks),
    script: |s| {
        s.begin(1);
        s.does(2, Op::HoldsAll(file(0)));
        let waits = s.op(3, Op::HoldsAll(file(0)));
        s.run(500);
        s.fault("kill coordinator", |w| w.kill(node(1)));
        s.run(15_000);
        s.heals(&[Op::Read(file(0), 1)]);
        if waits.get() {
            s.world(|w| w.oracle.fail(Invariant::OneHolder, "both hold the whole file".to_owned()));
        }
    },
    ..SCRIPT
};

/// A coordinator that does not reach node 2 gives it a lock, and is asked for the same by node 3; then it is killed, and whoever asks
/// next is on node 3.
pub(super) const REFUSED_FOR_NOTHING: Scenario = Scenario {
    name: "the lock whose holder never had it and for which others were refused",
    rule: Some(Rule::RefusedByRecord),
    nodes: 4,
    script: |s| {
        s.begin(1);
        s.does(2, Op::Stat(file(0)));
        let gift = s.op(2, Op::TriesAll(file(0)));
        s.until(5000, "the lock is given", |w| w.locks_given(node(1)) > 0);
        s.fault("one-way cut", |w| {
            w.net.cut.insert((node(1), node(2)));
        });
        let first = s.op(3, Op::TriesAll(file(0)));
        s.run(700);
        s.fault("cut node", |w| {
            for other in [1, 3, 4] {
                w.net.cut.insert((node(2), node(other)));
                w.net.cut.insert((node(other), node(2)));
            }
        });
        s.fault("kill coordinator", |w| w.kill(node(1)));
        s.until(30_000, "another takes office", |w| w.in_office(node(3)) || w.in_office(node(4)));
        let second = s.op(3, Op::TriesAll(file(0)));
        s.run(300);
        s.heals(&[Op::Read(file(0), 1)]);
        for (op, what) in [(&gift, "the first try"), (&first, "the second"), (&second, "the third")] {
            s.ends(op, 30_000, what);
        }
    },
    ..SCRIPT
};

/// A file is cut while another node holds a layout on it.
pub(super) const FREED_TOO_SOON: Scenario = Scenario {
    name: "a truncation under another node's layout",
    rule: Some(Rule::FreeAfterReturn),
    script: |s| {
        s.begin(1);
        for _ in 0..3 {
            s.does(2, Op::Append(file(2)));
        }
        s.does(2, Op::Fsync(file(2)));
        s.does(3, Op::Truncate(file(2), 0));
        s.does(3, Op::Private { unlink: false });
        s.heals(&[Op::Read(file(2), 1), Op::Stat(file(2))]);
    },
    ..SCRIPT
};

/// A creation is executed and its answer lost.
pub(super) const ANSWER_LOST: Scenario = Scenario {
    name: "the answer of a creation that is lost with its connection",
    rule: Some(Rule::StoredAnswers),
    script: |s| {
        s.begin(1);
        let there = s.world(|w| w.disk.lun.store.names.len());
        let made = s.op(2, Op::Private { unlink: false });
        s.until(5000, "the name is there", move |w| w.disk.lun.store.names.len() > there);
        s.fault("connection reset", |w| {
            let of_two = |c: &u64| w.net.conn(*c).is_some_and(|c| c.client == node(2));
            if let Some(conn) = w.net.open().into_iter().find(of_two) {
                w.cut_off(conn);
            }
        });
        s.ends(&made, 20_000, "the creation is acknowledged");
        s.heals(&[]);
    },
    ..SCRIPT
};

/// A connection breaks with a request on its way; the next bind takes its time.
pub(super) const RESENT_TOO_SOON: Scenario = Scenario {
    name: "the request that is resent with the BIND and overtakes it",
    rule: Some(Rule::ResendAfterBind),
    script: |s| {
        s.begin(1);
        s.world(|w| w.client(node(2), Event::Tick));
        let asked = s.op(2, Op::Stat(file(2)));
        s.fault("connection reset", |w| {
            let of_two = |c: &u64| w.net.conn(*c).is_some_and(|c| c.client == node(2));
            if let Some(conn) = w.net.open().into_iter().find(of_two) {
                w.cut_off(conn);
            }
        });
        s.ends(&asked, 20_000, "the request is answered");
        s.heals(&[]);
    },
    ..SCRIPT
};

/// A redirected node is cut off; a write of it waits for longer than programs wait. Then it is heard again.
pub(super) const GIVEN_UP_WRITE: Scenario = Scenario {
    name: "the redirected write that got EIO and finds a coordinator",
    rule: Some(Rule::ExpiredIsWithdrawn),
    script: |s| {
        s.world(|w| w.setup.io_timeout = 1500);
        s.begin(1);
        s.does(2, Op::Write(file(0), 1));
        s.world(|w| w.client(node(2), Event::Forced { redirect: true }));
        s.until(5000, "node 2 is redirected", |w| route(w, node(2)) == Some(Route::BlockRedirected));
        s.fault("cut node", |w| {
            for other in [1, 3] {
                w.net.cut.insert((node(2), node(other)));
                w.net.cut.insert((node(other), node(2)));
            }
        });
        let waits = s.op(2, Op::Write(file(0), 1));
        s.run(6000);
        s.world(|w| w.client(node(2), Event::Forced { redirect: false }));
        s.heals(&[Op::Read(file(0), 1)]);
        s.ends(&waits, 30_000, "the write ends");
    },
    ..SCRIPT
};

/// A coordinator stops with a removal in its socket, for longer than programs wait, and is succeeded.
pub(super) const GIVEN_UP_CALL: Scenario = Scenario {
    name: "the change that got EIO and is sent to the next coordinator",
    rule: Some(Rule::ExpiredIsWithdrawn),
    script: |s| {
        s.world(|w| w.setup.io_timeout = 1500);
        s.begin(1);
        s.fault("pause coordinator", |w| w.pause(node(1), false));
        let waits = s.op(2, Op::Private { unlink: true });
        s.until(30_000, "another takes office", |w| w.in_office(node(2)) || w.in_office(node(3)));
        s.ends(&waits, 30_000, "the creation ends");
        s.run(3000);
        s.heals(&[]);
    },
    ..SCRIPT
};
