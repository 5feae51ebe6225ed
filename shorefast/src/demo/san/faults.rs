//! What is done to the nodes' way to the disk array, one thing after the other, and what must come of each.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::time::Duration;

use super::super::cluster::{Member, VOLUME};
use super::super::outcome::Moment;
use super::super::runner::own_route;
use super::array::Array;
use super::networks::{ARRAY, Net, Networks};
use super::outsider::Act;
use super::run::{LONG, Run, Seen};
use crate::api::{Metadata, Node, Request, Route};
use crate::events::Code;
use crate::exit::Failure;

/// So long a route must stay direct: clearly longer than it takes to notice a dead path and to go redirected for that (3 s).
const UNMOVED: Duration = Duration::from_secs(8);
/// So long nothing of a node that is shut out may be let in: longer than the array takes to be asked again.
const SHUT_OUT: Duration = Duration::from_secs(5);
/// What was let go would have landed by then.
const LANDS: Duration = Duration::from_millis(700);

const ONE_CUT: &str = "one way cut";
const BOTH_CUT: &str = "both ways cut";
const COORDINATOR_CUT: &str = "coordinator cut off";
const ALL_CUT: &str = "array cut off";
const UNHEARD: &str = "heartbeat cut";
const COORDINATOR_UNHEARD: &str = "coordinator unheard";
const KILLED: &str = "array killed";
const RESET: &str = "unit reset";
const RELEASED: &str = "reservation gone";
const TAKEN: &str = "keys taken";
const STANDBY: &str = "ports standby";
const GROWN: &str = "unit grown";
const STUCK: &str = "stuck write";

/// What the array says of a write that it holds up.
const HELD: &str = "is held up";
const ABORTED: &str = "was held up was aborted";
const BEGAN: &str = "was held up begins";

/// What the unit grows by while it is used.
const MORE: u64 = 64 << 20;

impl Run {
    pub(super) fn faults(&mut self) -> Result<(), Failure> {
        self.fault("steady", "nothing", |run, seen| {
            let unmoved = run.throughout(UNMOVED, Run::all_direct)?;
            seen.was(
                "every node writes directly, over two paths",
                unmoved && run.nodes().all(|n| run.paths(n) == (2, 2)),
            );
            Ok(())
        })?;
        let two = self.another(0);
        let on = |node: Node, what: &str| format!("{what} {node}");
        self.fault(ONE_CUT, &on(two, "one storage network cut for"), |run, seen| run.one_way(two, seen))?;
        let two = self.another(0);
        self.fault(BOTH_CUT, &on(two, "both storage networks cut for"), |run, seen| run.both_ways(two, seen))?;
        let holder = self.holder();
        self.fault(COORDINATOR_CUT, &on(holder, "both cut for the coordinator,"), |run, seen| {
            run.coordinator_cut(holder, seen)
        })?;
        self.fault(ALL_CUT, "the array cut off from all nodes", Run::all_ways)?;
        if let Some(node) = self.array.slowed() {
            self.coordinates_no_more(node)?;
            self.fault(STUCK, &on(node, "the array holds up one write, and lets it go later, of"), |run, seen| {
                run.stuck_write(node, seen)
            })?;
        }
        let node = self.another(1);
        self.fault(UNHEARD, &on(node, "heartbeat network cut for"), |run, seen| run.unheard(node, UNHEARD, seen))?;
        let holder = self.holder();
        self.fault(COORDINATOR_UNHEARD, &on(holder, "heartbeat network cut for the coordinator,"), |run, seen| {
            run.unheard(holder, COORDINATOR_UNHEARD, seen)
        })?;
        self.fault(KILLED, "the array killed and started again", Run::array_killed)?;
        self.fault(RESET, "the unit reset by an outsider", Run::unit_reset)?;
        self.fault(RELEASED, "the reservation released by an outsider", Run::released)?;
        let node = self.another(0);
        self.fault(TAKEN, &on(node, "every key taken by an outsider from"), |run, seen| run.keys_taken(node, seen))?;
        self.fault(STANDBY, "one port group of the array put into standby, and back", Run::standby)?;
        self.fault(GROWN, "the unit grown", Run::grown)
    }

    /// Who coordinates, as most say.
    fn holder(&self) -> Node {
        let said = self.nodes().filter_map(|node| self.volume(node)?.coordinator);
        let mut said: Vec<Node> = said.collect();
        said.sort_unstable();
        said.get(said.len() / 2).copied().unwrap_or(self.cluster.members[0].node)
    }

    /// The office goes to another node, if it is this one's: whoever coordinates is not redirected.
    fn coordinates_no_more(&mut self, node: Node) -> Result<(), Failure> {
        if self.holder() != node {
            return Ok(());
        }
        let to = self.another(0);
        self.timeline
            .done(None, format!("the coordinator is moved to {to}, away from the node whose write will be held up"));
        let ask = Request::VolumeMove { name: VOLUME.to_owned(), to };
        if let Some(member) = self.cluster.member(node)
            && let Err(failure) = member.client().call_within(ask, LONG, |_| ())
        {
            self.timeline.say(&format!("{failure}"));
        }
        self.until_long(|run| run.holder() != node).map(drop)
    }

    /// One of those that do not coordinate.
    fn another(&self, which: usize) -> Node {
        let holder = self.holder();
        self.nodes().filter(|node| *node != holder).nth(which).unwrap_or(holder)
    }

    fn route(&self, node: Node) -> Option<Route> {
        own_route(&self.volume(node)?, node)
    }

    fn is_direct(&self, node: Node) -> bool {
        self.route(node) == Some(Route::Direct)
    }

    fn all_direct(&self) -> bool {
        self.nodes().all(|node| self.is_direct(node))
    }

    /// How many of a node's paths work, of how many.
    fn paths(&self, node: Node) -> (usize, usize) {
        let paths = self.volume(node).and_then(|v| v.nodes.into_iter().find(|n| n.node == node)).map(|n| n.paths);
        let paths = paths.unwrap_or_default();
        (paths.iter().filter(|p| p.ok).count(), paths.len())
    }

    fn networks(&self, change: impl FnOnce(&Networks) -> io::Result<()>) -> Result<(), Failure> {
        let Some(networks) = &self.cluster.networks else { return Ok(()) };
        change(networks)
            .map_err(|e| Failure::failed(format!("The demo's networks are not changed: {e}."), "See the message."))
    }

    fn cut(&self, node: Node, nets: &[Net]) -> Result<(), Failure> {
        let names: Vec<String> = nets.iter().map(|net| format!("{net:?}")).collect();
        self.timeline.done(Some(node), format!("its packets are dropped on {}", names.join(" and ")));
        self.networks(|networks| networks.cut(usize::from(node.number()), nets))
    }

    fn mend(&self) -> Result<(), Failure> {
        self.timeline.done(None, "the networks are whole again");
        self.networks(Networks::mend)
    }

    /// Every way is whole: until every node goes it, and everything is served.
    fn well_again(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let well = |run: &Run| {
            let served = |node| run.volume(node).is_some_and(|v| v.metadata == Metadata::Ok && v.coordinator.is_some());
            run.all_direct() && run.nodes().all(|node| served(node) && run.paths(node) == (2, 2))
        };
        let took = self.until_long(well)?;
        seen.came("then every node direct again, over both paths,", took);
        Ok(())
    }

    fn one_way(&mut self, node: Node, seen: &mut Seen) -> Result<(), Failure> {
        self.cut(node, &[Net::StorageA])?;
        let took = self.until(|run| run.paths(node) == (1, 2))?;
        seen.came("one path told to be lost", took);
        self.get_on(&[node], seen, ONE_CUT)?;
        self.throughout(UNMOVED, |_| true)?;
        let moved = self.told(node, Code::RouteChanged, seen.since);
        seen.was("its route stayed direct", self.is_direct(node) && moved.is_empty());
        self.mend()?;
        self.well_again(seen)
    }

    fn both_ways(&mut self, node: Node, seen: &mut Seen) -> Result<(), Failure> {
        self.cut(node, &Net::STORAGE)?;
        let took = self.until(|run| run.route(node) == Some(Route::BlockRedirected))?;
        seen.came("block-redirected over the heartbeat network", took);
        self.get_on(&[node], seen, BOTH_CUT)?;
        self.mend()?;
        self.well_again(seen)
    }

    fn coordinator_cut(&mut self, holder: Node, seen: &mut Seen) -> Result<(), Failure> {
        self.cut(holder, &Net::STORAGE)?;
        let took = self.until_long(|run| run.is_succeeded(holder))?;
        seen.came("another node coordinates", took);
        let took = self.until(|run| run.route(holder) == Some(Route::BlockRedirected))?;
        seen.came("the old one block-redirected", took);
        let nodes: Vec<Node> = self.nodes().collect();
        self.get_on(&nodes, seen, COORDINATOR_CUT)?;
        self.mend()?;
        self.well_again(seen)
    }

    /// Whether the other nodes agree on another coordinator, which serves.
    fn is_succeeded(&self, holder: Node) -> bool {
        let others = self.nodes().filter(|node| *node != holder);
        let mut named = others.map(|node| self.volume(node).filter(|v| v.metadata == Metadata::Ok)?.coordinator);
        let Some(Some(first)) = named.next() else { return false };
        first != holder && named.all(|other| other == Some(first))
    }

    fn all_ways(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        self.timeline.done(None, "the array's packets are dropped on both storage networks");
        self.networks(|networks| networks.cut(ARRAY, &Net::STORAGE))?;
        self.all_wait(seen)?;
        self.mend()?;
        self.well_again(seen)
    }

    fn all_wait(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let waits = |run: &Run, node| matches!(run.route(node), Some(Route::Paused | Route::Draining));
        let took = self.until(|run| run.nodes().all(|node| waits(run, node)))?;
        seen.came("every node waits (paused)", took);
        Ok(())
    }

    /// A node that is not heard, and has its storage: evicted, fenced by the unit, and back by itself.
    fn unheard(&mut self, node: Node, phase: &'static str, seen: &mut Seen) -> Result<(), Failure> {
        let (before, life) = (self.array.refused(node), self.volume(node).map_or(0, |v| v.incarnation));
        let held = self.holder() == node;
        self.found.evicted.push(Moment { node, from_phase: phase });
        self.cut(node, &[Net::Heartbeat])?;
        if held {
            let took = self.until_long(|run| run.is_succeeded(node))?;
            seen.came("another node coordinates", took);
        }
        // Without a reason nobody is evicted: what it has nobody else wants.
        let other = self.nodes().find(|n| *n != node && Some(*n) != self.array.slowed()).unwrap_or(node);
        let want = self.want(other, node)?;
        let begun = seen.since;
        let took = self.until_long(|run| run.nodes().any(|n| !run.told(n, Code::ClientEvicted, begun).is_empty()))?;
        seen.came("evicted when another node wanted its files, its keys taken", took);
        let door = self.cluster.member(node).and_then(Member::door);
        let refuses = self.array.refuses(door, node);
        let array = self.array.clone();
        // Told while the node has a session: between two of them nothing is.
        let since = move || {
            let now = array.refused(node);
            (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
        };
        let shown = since.clone();
        let took = self.until(move |_| shown().0 > 0 && shown().1 > 0)?;
        let (reads, writes) = since();
        seen.was(&format!("the unit refused {reads} reads and {writes} writes of it"), refuses && took.took.is_some());
        self.stays_out(node, life, seen)?;
        let others: Vec<Node> = self.nodes().filter(|n| *n != node).collect();
        self.get_on(&others, seen, phase)?;
        let got = self.got(want)?;
        seen.was("the other node got the files", got);
        self.mend()?;
        let took = self.until_long(|run| run.volume(node).is_some_and(|v| v.incarnation > life))?;
        seen.came("it takes part again, in a new session,", took);
        let told = self.told(node, Code::SelfEvicted, begun);
        seen.was("it told itself that it was shut out", !told.is_empty());
        self.well_again(seen)
    }

    /// It registers again by itself, under the keys of the session that was evicted. That is no way back: it reads in its slot, over that
    /// very nexus, that it was shut out, and sends nothing over it.
    fn stays_out(&mut self, node: Node, session: u64, seen: &mut Seen) -> Result<(), Failure> {
        let again = |run: &Run| run.array.keys_of(node, session) > 0 && run.array.writes(node).is_some();
        let took = self.until(again)?;
        seen.came("it registered again by itself, as who it had been", took);
        let before = self.array.writes(node);
        self.throughout(SHUT_OUT, |_| true)?;
        self.until(again)?;
        seen.was("no write of it was let in for that", before.is_some() && self.array.writes(node) == before);
        Ok(())
    }

    fn unit_reset(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let held = self.array.reservations().map(|(_, held)| held);
        self.timeline.done(None, "an outsider resets the unit");
        self.array.outsider(Act::Reset, None)?;
        let since = seen.since;
        let took = self.until(|run| run.nodes().all(|node| !run.told(node, Code::UnitReset, since).is_empty()))?;
        seen.came("the unit told every node, and each told it as an event,", took);
        let stayed = held.is_some() && self.array.reservations().map(|(_, held)| held) == held;
        seen.was("the reservation stayed", stayed);
        self.well_again(seen)
    }

    fn array_killed(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let before = self.array.reservations();
        self.timeline.done(None, "SIGKILL to the disk array");
        Array::kill(&mut self.cluster)?;
        // Long enough that they lose their routes with it.
        self.all_wait(seen)?;
        self.start_array()?;
        self.timeline.done(None, "the disk array runs again");
        let after = self.array.reservations();
        let kept = before.is_some() && after == before;
        seen.was("every registration and the reservation outlived it", kept);
        self.well_again(seen)
    }

    fn released(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let held = |run: &Run| run.array.reservations().is_some_and(|(_, held)| held != "none");
        let was = held(self);
        self.timeline.done(None, "an outsider releases the reservation");
        self.array.outsider(Act::Release, None)?;
        let took = self.until(held)?;
        seen.was("it was held before", was);
        seen.came("noticed, and held again", took);
        let since = seen.since;
        let told = |run: &Run| run.nodes().any(|node| !run.told(node, Code::ReservationReleased, since).is_empty());
        let took = self.until(told)?;
        seen.came("told as an event", took);
        self.well_again(seen)
    }

    fn keys_taken(&mut self, node: Node, seen: &mut Seen) -> Result<(), Failure> {
        let keys = |run: &Run| run.array.reservations().map(|(keys, _)| keys).unwrap_or_default();
        let before: BTreeSet<String> = keys(self);
        self.timeline.done(Some(node), "an outsider takes its keys away");
        self.array.outsider(Act::Take, Some(node))?;
        let since = seen.since;
        let asks = |run: &Run| !run.told(node, Code::RouteChanged, since).is_empty();
        let took = self.until(asks)?;
        seen.came("it stopped using the disk, and asked the coordinator", took);
        self.well_again(seen)?;
        let again: BTreeSet<String> = keys(self).difference(&before).cloned().collect();
        seen.was("it was let in again, under new keys", !again.is_empty());
        Ok(())
    }

    fn standby(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        self.timeline.done(None, "the array serves nothing through its first portal");
        self.array.outsider(Act::Standby, None)?;
        let nodes: Vec<Node> = self.nodes().collect();
        self.get_on(&nodes, seen, STANDBY)?;
        let unmoved = self.throughout(UNMOVED, Run::all_direct)?;
        seen.was("every route stayed direct", unmoved);
        self.array.outsider(Act::Active, None)?;
        self.timeline.done(None, "the array serves through both portals again");
        self.well_again(seen)
    }

    fn grown(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        self.timeline.done(None, "the unit grows while it is used");
        let grow = || {
            let disk = File::options().write(true).open(self.cluster.disk())?;
            let len = disk.metadata()?.len();
            disk.set_len(len + MORE)
        };
        grow().map_err(|e| Failure::failed(format!("The demo's disk cannot be grown: {e}."), "See the message."))?;
        let unmoved = self.throughout(UNMOVED, Run::all_direct)?;
        seen.was("every route stayed direct", unmoved);
        self.well_again(seen)
    }

    /// The write that times out is in the array, and may land whenever it likes. It must be dead before the node goes another way,
    /// or it lands on newer data: what is read by every writer all the time would show that.
    fn stuck_write(&mut self, node: Node, seen: &mut Seen) -> Result<(), Failure> {
        let before = (self.array.said(HELD), self.array.said(ABORTED), self.array.said(BEGAN));
        self.timeline.done(Some(node), "the array holds up its next write");
        Array::hold(&self.cluster, true)?;
        let took = self.until(|run| run.array.said(HELD) > before.0)?;
        seen.came("one write held up in the array", took);
        let took = self.until(|run| run.array.said(ABORTED) > before.1)?;
        seen.came("aborted before it began", took);
        self.get_on(&[node], seen, STUCK)?;
        self.timeline.done(None, "the array lets go what it holds up");
        Array::hold(&self.cluster, false)?;
        self.throughout(LANDS, |_| true)?;
        seen.was("nothing of it is left to land", self.array.said(BEGAN) == before.2);
        self.well_again(seen)
    }
}
