//! Layouts, recalls, request slots and their answers.

use super::Scenario;
use super::script::node;
use crate::core::client::Event;
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
