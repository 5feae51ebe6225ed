//! Writes that are still on their way when something is given away.

use super::Scenario;
use super::script::{Script, is_bound, node, route};
use crate::core::client::{Event, Route};
use crate::core::rules::Rule;
use crate::sim::app::{Op, file};
use crate::sim::disk::Path;
use crate::sim::world::{MS, World};

/// The coordinator resigns in favour of another while a page write of its own sticks in the fabric.
pub(super) const RESIGNATION: Scenario = Scenario {
    name: "the resignation with a page write in the fabric",
    rule: Some(Rule::DrainBeforeResign),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        s.fault("pages stick", |w| {
            w.disk.stick_for = Some(2500 * MS);
            w.disk.stick_pages.insert(node(1), 1);
        });
        let made = s.op(2, Op::Private { unlink: false });
        s.until(2000, "the page is on its way", |w| w.disk.pages_flying(node(1)));
        s.run(5);
        s.fault("move", |w| w.resign(node(1), Some(node(3))));
        s.ends(&made, 30_000, "the creation is acknowledged");
        s.run(4000);
        s.heals(&[]);
    },
};

/// A direct write times out and sticks; its twin is executed by redirection, a newer write follows; the old one lands.
pub(super) const STUCK_WRITE: Scenario = Scenario {
    name: "the stuck write that lands on top of newer redirected ones",
    rule: Some(Rule::AbortBeforeRedirect),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        let block = Op::Write(file(0), 1);
        s.does(2, block);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(4000 * MS);
            w.disk.stick_data.insert(node(2), 1);
        });
        let first = s.op(2, block);
        s.ends(&first, 30_000, "the stuck write is acknowledged");
        s.does(2, block);
        s.run(5000);
        s.heals(&[Op::Read(file(0), 1)]);
    },
};

/// A redirected write waits at the coordinator's disk when the client's connection breaks; it binds anew and resends.
pub(super) const BROKEN_CONNECTION: Scenario = Scenario {
    name: "the redirected write queued on a broken connection",
    rule: Some(Rule::BindCancelsOlder),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        let block = Op::Write(file(0), 1);
        s.does(2, block);
        redirect(s, true);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(400 * MS);
            w.disk.stick_data.insert(node(1), 1);
        });
        let first = s.op(2, block);
        s.until(2000, "the write is on its way", |w| w.disk.writes_flying(node(1)));
        s.fault("connection reset", |w| {
            let of_two = |c: &u64| w.net.conn(*c).is_some_and(|c| c.client == node(2));
            if let Some(conn) = w.net.open().into_iter().find(of_two) {
                w.break_conn(conn, 5 * MS);
            }
        });
        s.ends(&first, 20_000, "the redirected write is acknowledged");
        s.does(2, block);
        s.run(1000);
        redirect(s, false);
        s.heals(&[Op::Read(file(0), 1)]);
    },
};

fn redirect(s: &mut Script<'_>, on: bool) {
    redirect_node(s, 2, on);
}

fn redirect_node(s: &mut Script<'_>, n: u8, on: bool) {
    s.world(|w| w.client(node(n), Event::Forced { redirect: on }));
    if on {
        let redirected = move |w: &World| route(w, node(n)) == Some(Route::BlockRedirected);
        s.until(10_000, "the node is redirected", redirected);
    }
}

/// A layout is recalled while a write under it is on its way.
pub(super) const RETURN_UNDER_A_WRITE: Scenario = Scenario {
    name: "the recall that meets a write on its way",
    rule: Some(Rule::DrainBeforeReturn),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        s.does(2, Op::WriteHalf(file(0), 1, 0));
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(300 * MS);
            w.disk.stick_data.insert(node(2), 1);
        });
        let slow = s.op(2, Op::Write(file(0), 1));
        s.until(2000, "the write is on its way", |w| w.disk.writes_flying(node(2)));
        let other = s.op(3, Op::WriteHalf(file(0), 1, 1));
        s.ends(&slow, 20_000, "the slow write ends");
        s.ends(&other, 20_000, "the other node's write ends");
        s.run(500);
        s.heals(&[Op::Read(file(0), 1)]);
    },
};

/// A redirected write is kept; the disk is reset; the answer of a newer write of the same block tells of it.
pub(super) const REPEATED_WRITE: Scenario = Scenario {
    name: "the repeated write that lands on top of a newer one",
    rule: Some(Rule::RepeatInOrder),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        let half = Op::WriteHalf(file(0), 1, 0);
        s.does(2, half);
        redirect(s, true);
        s.does(2, half);
        s.fault("device reset", |w| w.reset_disk());
        s.does(2, Op::Write(file(0), 1));
        s.run(1000);
        redirect(s, false);
        s.heals(&[Op::Read(file(0), 1)]);
    },
};

/// The path is good again while a redirected write has not reached the coordinator yet.
pub(super) const WAY_BACK: Scenario = Scenario {
    name: "the way back while a redirected write is on the wire",
    rule: Some(Rule::DrainBeforePathBack),
    nodes: 3,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        let block = Op::Write(file(0), 1);
        s.does(2, block);
        redirect(s, true);
        s.fault("slow link", |w| {
            w.net.slow.insert((node(2), node(1)), 3000 * MS);
        });
        let late = s.op(2, block);
        s.run(1);
        s.world(|w| w.net.slow.clear());
        redirect(s, false);
        s.ends(&late, 20_000, "the redirected write ends");
        s.until(20_000, "node 2 is direct again", |w| is_bound(w, node(2)) && route(w, node(2)) == Some(Route::Direct));
        s.heals(&[block, Op::Read(file(0), 1)]);
    },
};

/// A coordinator's path hangs and comes back, and nobody else may take office.
pub(super) const ONLY_ONE: Scenario = Scenario {
    name: "the lost path of the only node that may take office",
    rule: Some(Rule::PathIsNotRoute),
    nodes: 1,
    scsi: false,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        let block = Op::Write(file(0), 1);
        s.does(1, block);
        s.fault("coordinator path hangs", |w| w.set_path(node(1), Path::Hangs));
        let hung = s.op(1, block);
        s.until(5000, "its office is given up", |w| !w.in_office(node(1)));
        s.run(1000);
        s.world(|w| w.set_path(node(1), Path::Good));
        s.ends(&hung, 30_000, "the write goes on");
        s.heals(&[Op::Read(file(0), 1)]);
    },
};

/// A coordinator whose client is redirected loses its only nexus with a page write on its way. It is succeeded and fenced, and
/// its client is granted the new generation by the successor. Then the nexus comes back.
pub(super) const WAITING_PAGE: Scenario = Scenario {
    name: "the page write that waits for a nexus while its office is lost",
    rule: Some(Rule::EndedBeforeAdmitted),
    nodes: 3,
    scsi: true,
    nexuses: 1,
    script: |s| {
        s.begin(1);
        redirect_node(s, 1, true);
        s.fault("pages stick", |w| {
            w.disk.stick_for = Some(60_000 * MS);
            w.disk.stick_pages.insert(node(1), 1);
        });
        let made = s.op(2, Op::Private { unlink: false });
        s.until(2000, "the page is on its way", |w| w.disk.pages_flying(node(1)));
        s.fault("session breaks", |w| w.session_breaks(node(1), 0, 8000));
        s.ends(&made, 30_000, "the successor acknowledges the creation");
        s.until(20_000, "the predecessor is bound to it", |w| !w.in_office(node(1)) && is_bound(w, node(1)));
        s.run(9000);
        redirect_node(s, 1, false);
        s.heals(&[]);
    },
};

/// At home: a write hangs with one of two nexuses. Its node goes off the direct route, and has only the other one to prove with.
pub(super) const ONE_NEXUS_HANGS: Scenario = Scenario {
    name: "the write that hangs on one nexus while its node goes on over the other",
    rule: Some(Rule::EveryNexusIsProved),
    nodes: 3,
    scsi: true,
    nexuses: 2,
    script: |s| {
        s.begin(1);
        let block = Op::Write(file(0), 1);
        s.does(1, block);
        s.fault("writes stick", |w| {
            w.disk.stick_for = Some(100 * MS);
            w.disk.stick_data.insert(node(1), 1);
        });
        let first = s.op(1, block);
        s.until(2000, "the write is on its way", |w| w.disk.writes_fly_over(node(1)).is_some());
        s.fault("nexus hangs", |w| {
            if let Some(nexus) = w.disk.writes_fly_over(node(1)) {
                w.nexus_hangs(node(1), nexus, true);
            }
        });
        redirect_node(s, 1, true);
        s.ends(&first, 20_000, "the write that hangs is executed by redirection");
        s.does(1, block);
        s.world(|w| (0..2).for_each(|nexus| w.nexus_hangs(node(1), nexus, false)));
        s.run(1000);
        redirect_node(s, 1, false);
        s.heals(&[Op::Read(file(0), 1)]);
    },
};
