//! Growing: the disks of all nodes have become larger, and a volume becomes so with them. One that is added grows from nothing.
//!
//! ```text
//!   primary                            each peer
//!   Room ─────────────────────────────► looks at its disk ── HasRoom ──┐
//!   looks at its own disk                                              │
//!   size = what is asked for, or the least that all have room for ◄────┘
//!   Resize ───────────────────────────► writes it down ──── Resized ──┐
//!   writes it down when all have ◄─────────────────────────────────────┘
//!   meets its peers again, one after the other: what is new has bits, and is synchronised
//! ```
//! **It goes forward.** Nobody writes the new size down before all are known to have room for it. Once one has, it is the size: who meets a
//! peer that is larger becomes as large (*grow on meeting*), whoever crashed in between. So a crash at any moment leaves each node with
//! the old size or the new one, and all with one when they have met. It never shrinks.
//!
//! A size travels as the address behind a volume's last sector, and so says which volume it is of.
//!
//! **Invariant.** Nothing is written behind what a peer with the stream has: the primary writes the new size down last, and requests wait
//! that reach behind the smallest of those it streams to. A connection comes up only between two of one size, and not while either is
//! growing: what is new holds the metadata as they lay before, and their superblocks are taken away first.
//!
//! What is new is used when the peers have been met again: who is equal until then lacks it. They are met one at a time, each when the one before is back: else a primary of three would be without a majority for a moment, and
//! requests fail for that.

use std::collections::BTreeMap;

use super::Node;
use super::connect::State;
use super::disk::Waiter;
use super::event::{ConnId, Effect, Hello, Message, Now, Report, ResizeRefusal};
use super::rules::Rule;
use crate::ids::{Generation, NodeId, NodeSet, Sizes, Span, Volume};
use crate::meta::layout::Devices;

/// What the primary has been asked for.
#[derive(Debug)]
pub(super) struct Resize {
    volume: Volume,
    want: Option<u64>,
    clean: bool,
    since: Now,
    /// The most sectors each node has room for.
    rooms: BTreeMap<NodeId, u64>,
    /// What the peers were told to become, and who is.
    told: Option<u64>,
    done: NodeSet,
}

/// This node grows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    volume: Volume,
    to: u64,
    clean: bool,
    devices: Devices,
    begun: bool,
    then: Then,
    /// Of a volume that is added because a peer has it: its life there.
    life: Option<u32>,
}

/// What comes after it.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The primary that asked for it is told.
    Answer(NodeId, ConnId),
    /// Everybody is met again.
    Meet,
}

/// All that has to do with the size.
#[derive(Debug)]
pub(super) struct Growing {
    /// Sectors of the volumes, as they can be used here: durable, and of what was there before nothing is left to be taken away.
    sizes: Sizes,
    asked: Option<Resize>,
    growth: Option<Growth>,
    measures: Vec<Measure>,
    /// What they were before: what is new is not used before the peers have been met again.
    before: Sizes,
    /// Peers that are to be met again, and the last that was.
    meet: NodeSet,
    met: Option<(NodeId, Now)>,
}

impl Growing {
    pub(super) fn new(sizes: Sizes) -> Growing {
        let (asked, growth, measures) = (None, None, Vec::new());
        Growing { sizes, asked, growth, measures, before: sizes, meet: NodeSet::EMPTY, met: None }
    }

    /// It is being written down.
    pub(super) fn is_under_way(&self) -> bool {
        self.growth.is_some()
    }

    /// It was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// A volume is not there any more.
    pub(super) fn gone(&mut self, volume: Volume) {
        self.sizes = self.sizes.with(volume, 0);
        // Nothing is new, so nothing has to wait for the peers to be met.
        self.before = self.sizes;
    }

    /// Peers are to be met again.
    pub(super) fn meets(&mut self, peers: NodeSet) {
        self.meet = self.meet.or(peers);
    }

    /// The disk is left.
    pub(super) fn detached(&mut self) {
        self.growth = None;
        self.measures.clear();
    }
}

/// Why the disk is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// The primary wants to know how large a volume may become.
    Own(Volume),
    /// So does a peer's.
    Room(NodeId, ConnId, Volume),
    /// It is to become so large, as a primary says.
    Told(NodeId, ConnId, Volume, u64, bool),
    /// So large is that of a peer that was met.
    Met(NodeId, ConnId, Volume, u64),
    /// So large are those of all others, as this primary has told them.
    Last(Volume, u64),
}

impl Measure {
    fn volume(&self) -> Volume {
        match self {
            Measure::Own(v) | Measure::Room(_, _, v) | Measure::Last(v, _) => *v,
            Measure::Told(_, _, v, ..) | Measure::Met(_, _, v, _) => *v,
        }
    }
}

impl Node {
    /// Sectors of the volumes, as far as they can be used on this node.
    pub fn sizes(&self) -> Sizes {
        self.growing.sizes
    }

    /// Whether a request may reach there yet.
    pub(super) fn may_reach(&self, span: Span) -> bool {
        let streaming = self.streaming();
        let theirs = self.links.iter().filter(|(n, _)| streaming.has(**n)).map(|(_, l)| l.sizes);
        let own = if self.growing.meet.is_empty() { self.growing.sizes } else { self.growing.before };
        // Who has no disk says no size.
        let usable = theirs.filter(|s| s.of(Volume::FIRST) > 0).fold(own, |least, s| least.smaller(&s));
        span.end() <= usable.end_of(span.at)
    }

    /// Whether it is growing, or has, and there are peers that it has not met since.
    pub fn grows(&self) -> bool {
        self.growing.growth.is_some() || !self.growing.meet.is_empty()
    }

    fn measure(&mut self, why: Measure) {
        if self.growing.measures.is_empty() {
            self.fx.push(Effect::Measure);
        }
        self.growing.measures.push(why);
    }

    /// A volume becomes as large as is said, or as all have room for.
    pub(super) fn resize(&mut self, volume: Volume, want: Option<u64>, clean: bool) {
        let equal = self.linked(|s| matches!(s, State::Equal));
        let away = self.peers().minus(equal).or(self.links.iter().filter(|(_, l)| l.ahead).map(|(n, _)| *n).collect());
        let growing = &self.growing;
        let grows = growing.asked.is_some() || growing.growth.is_some() || !growing.meet.is_empty();
        let busy = grows || self.leaving.is_busy();
        let refusal = match away.iter().next() {
            _ if !self.is_primary() => Some(ResizeRefusal::NotPrimary),
            _ if self.replica.is_none() => Some(ResizeRefusal::NoDisk),
            _ if busy => Some(ResizeRefusal::Busy),
            _ if want.is_some_and(|w| w < self.growing.sizes.of(volume)) => Some(ResizeRefusal::Shrinks),
            Some(node) => Some(ResizeRefusal::Away(node)),
            None => None,
        };
        if let Some(why) = refusal {
            return self.tell(Report::NotResized(why));
        }
        let (rooms, done) = (BTreeMap::new(), NodeSet::EMPTY);
        self.growing.asked = Some(Resize { volume, want, clean, since: self.now, rooms, told: None, done });
        self.measure(Measure::Own(volume));
        // Programs that know of one volume only are asked as they know it.
        let ask = if volume == Volume::FIRST { Message::Room } else { Message::RoomOf(volume.get()) };
        for node in self.peers().iter() {
            self.send(node, ask.clone());
        }
    }

    /// The primary asks how large a volume may become here.
    pub(super) fn room_asked(&mut self, node: NodeId, volume: u8) {
        let conn = self.conn(node).filter(|_| self.follows() == Some(node));
        if let (Some(conn), Some(volume)) = (conn, Volume::new(volume)) {
            self.measure(Measure::Room(node, conn, volume));
        }
    }

    /// The primary says where a volume is to end.
    pub(super) fn resize_told(&mut self, node: NodeId, end: u64, clean: bool) {
        let conn = self.conn(node).filter(|_| self.follows() == Some(node));
        let (Some(conn), Some(volume)) = (conn, Volume::of(end)) else { return };
        let (to, size) = (Volume::local(end), self.growing.sizes.of(volume));
        if size >= to && self.growing.growth.is_none() {
            return self.send(node, Message::Resized(volume.base() + size));
        }
        self.measure(Measure::Told(node, conn, volume, to, clean));
    }

    /// A peer is of another size. It is as large as this node, or this node as it, before they are anything to one another.
    pub(super) fn met_other_size(&mut self, node: NodeId, theirs: &Hello, sizes: &Sizes) {
        let Some(conn) = self.conn(node) else { return };
        let own = self.replica.as_ref().map_or(Generation::NONE, |r| r.superblock().current);
        let mine = self.growing.sizes;
        for volume in Volume::all().filter(|v| mine.of(*v) != sizes.of(*v)) {
            let larger = sizes.of(volume) > mine.of(volume);
            let (new, old) = if larger { (theirs.side.current, own) } else { (own, theirs.side.current) };
            // What was just made says nothing of how large a device is that has data.
            let meaningless = new == Generation::JUST_CREATED && old != Generation::JUST_CREATED;
            if meaningless || self.tentative {
                self.tell(Report::OtherSize(node, volume, sizes.of(volume)));
                return self.link_close(node, false);
            }
        }
        // One after the other: when the first has grown the two meet anew.
        let larger = Volume::all().find(|v| sizes.of(*v) > mine.of(*v));
        if let Some(volume) = larger.filter(|_| self.growing.growth.is_none()) {
            self.measure(Measure::Met(node, conn, volume, sizes.of(volume)));
        }
    }

    /// The disks were looked at.
    pub(super) fn measured(&mut self, devices: Option<Devices>) {
        for why in std::mem::take(&mut self.growing.measures) {
            let Some(replica) = &self.replica else { return };
            let volume = why.volume();
            let size = self.growing.sizes.of(volume);
            let room = devices.map_or(size, |d| replica.room(volume, &d).max(size));
            self.knows_room(why, devices, room);
        }
    }

    /// It is known how many sectors this node has room for.
    fn knows_room(&mut self, why: Measure, devices: Option<Devices>, room: u64) {
        let volume = why.volume();
        let end = |sectors: u64| volume.base() + sectors;
        match (why, devices) {
            (Measure::Own(_), _) => self.has_room_for(self.me(), end(room)),
            (Measure::Room(node, conn, _), _) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::HasRoom(end(room)));
                }
            }
            (Measure::Told(node, conn, _, to, clean), Some(devices)) if room >= to => {
                self.grow(volume, to, clean, devices, Then::Answer(node, conn));
            }
            (Measure::Told(node, conn, ..), _) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::Resized(end(self.growing.sizes.of(volume))));
                }
            }
            (Measure::Met(node, _, _, to), Some(devices)) if room >= to => {
                let life = self.links.get(&node).map(|l| l.lives().of(volume));
                self.grow(volume, to, false, devices, Then::Meet);
                self.growing.growth.as_mut().filter(|g| !g.begun).into_iter().for_each(|g| g.life = life);
            }
            (Measure::Last(_, to), Some(devices)) if room >= to => {
                let clean = self.growing.asked.as_ref().is_some_and(|a| a.clean);
                self.grow(volume, to, clean, devices, Then::Meet);
            }
            (Measure::Last(..), _) => self.resize_fails(ResizeRefusal::NoRoom(self.me(), room)),
            (Measure::Met(node, conn, _, to), _) => {
                if self.conn(node) == Some(conn) {
                    self.tell(Report::OtherSize(node, volume, to));
                    self.link_close(node, false);
                }
            }
        }
    }

    /// A node has room for a volume up to that address.
    pub(super) fn has_room_for(&mut self, node: NodeId, end: u64) {
        let all = self.config.disks;
        let Some(resize) = self.growing.asked.as_mut().filter(|r| r.told.is_none()) else { return };
        let volume = resize.volume;
        let Some(room) = end.checked_sub(volume.base()).filter(|_| Volume::of(end) == Some(volume)) else { return };
        let size = self.growing.sizes.of(volume);
        resize.rooms.insert(node, room);
        if !all.iter().all(|n| resize.rooms.contains_key(&n)) {
            return;
        }
        let least = resize.rooms.iter().min_by_key(|(_, room)| **room).map(|(n, room)| (*n, *room));
        let Some((node, most)) = least else { return };
        let to = resize.want.unwrap_or(most);
        if to > most || to <= size {
            let why = if to == size && resize.want.is_some() {
                ResizeRefusal::Same
            } else {
                ResizeRefusal::NoRoom(node, most)
            };
            self.growing.asked = None;
            return self.tell(Report::NotResized(why));
        }
        resize.told = Some(to);
        let clean = resize.clean;
        for node in self.peers().iter() {
            self.send(node, Message::Resize(volume.base() + to, clean));
        }
    }

    /// A peer's volume ends there now, or has remained so.
    pub(super) fn resized(&mut self, node: NodeId, end: u64) {
        let Some(resize) = self.growing.asked.as_mut().filter(|r| r.told.is_some()) else { return };
        let (volume, size) = (resize.volume, Volume::local(end));
        if Volume::of(end) != Some(volume) {
            return;
        }
        if resize.told != Some(size) {
            return self.resize_fails(ResizeRefusal::NoRoom(node, size));
        }
        resize.done = resize.done.with(node);
        if let Some(link) = self.links.get_mut(&node) {
            link.sizes = link.sizes.with(volume, size);
        }
    }

    /// All peers have written it down: so does the primary. Looks at its disk again, since what it was told then was a while ago.
    pub(super) fn pump_resize(&mut self) {
        let Some(resize) = &self.growing.asked else { return };
        if !self.is_primary() || self.replica.is_none() {
            return self.resize_fails(ResizeRefusal::NotPrimary);
        }
        let volume = resize.volume;
        let Some(to) = resize.told.filter(|_| self.peers().is_within(resize.done)) else { return };
        let grown = self.growing.sizes.of(volume) >= to;
        if self.growing.growth.is_none() && self.growing.measures.is_empty() && !grown {
            self.measure(Measure::Last(volume, to));
        }
    }

    /// It is given up. If any peer has grown already, it is met again, and so does this node.
    fn resize_fails(&mut self, why: ResizeRefusal) {
        let Some(resize) = self.growing.asked.take() else { return };
        self.tell(Report::NotResized(why));
        if resize.told.is_some() {
            self.growing.meet = self.peers();
        }
    }

    /// A peer is gone that was asked.
    pub(super) fn resize_lost(&mut self, node: NodeId) {
        let owed = self.growing.asked.as_ref().is_some_and(|r| !self.peers().is_within(r.done));
        if owed && self.config.disks.has(node) {
            self.resize_fails(ResizeRefusal::Lost(node));
        }
    }

    /// Time has passed.
    pub(super) fn resize_takes_long(&mut self) {
        let limit = self.config.timing.dead * 3;
        let late = self.growing.asked.as_ref().filter(|r| self.now.0.saturating_sub(r.since.0) > limit);
        let owes = late.map(|r| match r.told {
            Some(_) => self.peers().minus(r.done),
            None => self.config.disks.iter().filter(|n| !r.rooms.contains_key(n)).collect(),
        });
        if let Some(node) = owes.and_then(|o| o.iter().next()) {
            self.resize_fails(ResizeRefusal::Lost(node));
        }
    }

    fn grow(&mut self, volume: Volume, to: u64, clean: bool, devices: Devices, then: Then) {
        if self.growing.growth.is_none() && self.growing.sizes.of(volume) < to {
            self.growing.growth = Some(Growth { volume, to, clean, devices, begun: false, then, life: None });
        }
    }

    /// Writes the new size down, when nothing else of the metadata is on its way.
    pub(super) fn pump_growth(&mut self) {
        let Some(growth) = self.growing.growth.filter(|g| !g.begun && self.commit.is_none()) else { return };
        let marks = self.has(Rule::GrowthIsMarked);
        let Some(replica) = &mut self.replica else {
            self.growing.growth = None;
            return;
        };
        // Its lives before that one had ended when this node was away.
        growth.life.into_iter().for_each(|life| replica.lived(growth.volume, life.saturating_sub(1)));
        match replica.plan_growth(growth.volume, growth.to, &growth.devices, growth.clean, marks) {
            Ok(commit) => {
                self.growing.growth = Some(Growth { begun: true, ..growth });
                self.persist(Waiter::Grown);
                self.begin_commit(commit);
            }
            // The disk has become shorter meanwhile.
            Err(_) => self.growing.growth = None,
        }
    }

    /// A change that belongs to it is durable: all of them are when no superblock of the old place is left.
    pub(super) fn growth_durable(&mut self) {
        if self.replica.as_ref().is_some_and(|r| r.has_left()) {
            return self.persist(Waiter::Grown);
        }
        let Some(growth) = self.growing.growth.take() else { return };
        let (volume, to) = (growth.volume, growth.to);
        self.growing.before = self.growing.sizes;
        self.growing.sizes = self.growing.sizes.with(volume, to);
        self.tell(Report::Grown(volume, to));
        match growth.then {
            Then::Answer(node, conn) => {
                if self.conn(node) == Some(conn) {
                    self.send(node, Message::Resized(volume.base() + to));
                }
                self.growing.meet = self.peers().without(node);
            }
            Then::Meet => {
                if self.growing.asked.take().is_some() {
                    self.tell(Report::Resized(volume, to));
                }
                self.growing.meet = self.peers();
            }
        }
        self.again = true;
    }

    /// Peers are met again, one at a time: the next when the one before is back, or has been away for so long that it may be dead. Who is
    /// not there now is met as what this node is when it comes.
    pub(super) fn pump_meetings(&mut self) {
        let back = |n: NodeId| self.links.get(&n).is_some_and(|l| !matches!(l.state, State::Greeting));
        let long = |since: Now| self.now.0.saturating_sub(since.0) >= self.config.timing.dead;
        if self.growing.met.is_some_and(|(node, since)| !back(node) && !long(since)) {
            return;
        }
        let next = self.growing.meet.iter().find(|n| self.links.contains_key(n));
        self.growing.meet = next.map_or(NodeSet::EMPTY, |n| self.growing.meet.without(n));
        self.growing.met = next.map(|n| (n, self.now));
        if let Some(node) = next {
            self.link_close(node, true);
        }
    }
}
