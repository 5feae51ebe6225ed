//! The simulated LUN and the ways to it.
//!
//! A request flies for a while, lands (is executed), and its answer flies back. On the way it may be held by a path
//! that hangs, stick in the fabric for seconds, be refused, or lose its answer.
//!
//! **File kind**: a request that a hanging path holds lies in the node's own fault device: an abort drops it, and so
//! does the death of the process. One that flies is in the kernel: it lands in any case, and the LIVE lock of its
//! process is free only then. **SCSI kind**: a request flies on a session of its nexus. It is executed only if that
//! session lives and, once a reservation is held, the nexus is registered. A session ends when the nexus logs in
//! anew, which purges what of it still flies; the death of a process ends nothing: what it sent may land seconds
//! later. A write may also be stuck *behind* the target: taken from its nexus, with the disk, and executed whatever becomes of
//! the nexus' key, unless it is aborted before; see `tasks`.
//!
//! Data blocks have a volatile cache: what was written is lost at a reset unless a flush came in between.

mod lun;
mod scsi;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use block::shared::{Epoch, NodeId};

use super::oracle::{Value, WriteId};
use super::store::{Note, State};
use super::world::{Act, MS, World};
use crate::core::office::{CawResult, FenceStep, LeaseView, ScsiResult, Sight, SlotView};
use crate::core::rules::Rule;

pub(super) use lun::Lun;
pub(super) use scsi::{Nexus, NexusState};

/// A nexus that has not answered for so long is proved dead over another.
const PREEMPTS_AFTER: u64 = 60 * MS;

/// A block: two halves.
pub(super) type Block = [Value; 2];

pub(super) use super::oracle::Claim;

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Req {
    /// Lease and slots.
    Cells,
    CawSlot {
        node: NodeId,
        expect: SlotView,
        new: SlotView,
    },
    CawLease {
        expect: LeaseView,
        new: LeaseView,
    },
    /// The own slot; over that nexus if one is named.
    OwnSlot {
        via: Option<u16>,
    },
    Read {
        block: u64,
    },
    Write(Box<Write>),
    Flush,
    MetaOpen {
        epoch: Epoch,
    },
    MetaCommit {
        epoch: Epoch,
        state: Rc<State>,
        notes: Vec<Note>,
    },
    Scsi(FenceStep),
}

/// Data on its way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) block: u64,
    pub(super) data: Block,
    /// Which of its halves are new.
    pub(super) new: Vec<WriteId>,
    pub(super) claim: Claim,
    /// A repetition after the history changed.
    pub(super) again: bool,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(super) enum Res {
    Cells(Box<Sight>),
    Slot(CawResult<SlotView>),
    Lease(CawResult<LeaseView>),
    OwnSlot(SlotView),
    Data(Block),
    Done,
    Store(Rc<State>),
    Scsi(ScsiResult),
    /// No path: not executed, or nobody knows (`Lost`).
    NoPath,
    Lost,
    /// Withdrawn by an abort: not executed and will not be.
    Aborted,
    /// RESERVATION CONFLICT: not executed.
    Conflict,
}

impl Req {
    fn is_data(&self) -> bool {
        matches!(self, Req::Read { .. } | Req::Write(_) | Req::Flush | Req::MetaOpen { .. } | Req::MetaCommit { .. })
    }

    fn is_caw(&self) -> bool {
        matches!(self, Req::CawSlot { .. } | Req::CawLease { .. })
    }
}

/// A node's way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Path {
    #[default]
    Good,
    /// Requests and answers stay where they are.
    Hangs,
    /// Requests are refused.
    Fails,
    /// Each takes so many microseconds longer.
    Slow(u64),
}

type Answer = Box<dyn FnOnce(&mut World, Res)>;

enum Stage {
    /// In the node's fault device (file kind), or waiting for a nexus that may carry it: it goes out once there is one, whatever
    /// was granted meanwhile, unless it is taken back before.
    Held,
    /// On its way.
    Flying,
    /// With the disk (SCSI kind): the target has looked at the reservation, and looks at it no more.
    Taken,
    /// Executed, or refused; the answer is on its way.
    Returning,
    /// The answer is held by a hanging path.
    Answered(Res),
}

struct Flight {
    node: NodeId,
    process: u64,
    req: Req,
    stage: Stage,
    /// The reign of its node that it is of, if it is of one: pages, and what is done for redirected clients.
    reign: Option<Epoch>,
    /// The session of the nexus it went over (SCSI kind).
    session: Option<(u16, u64)>,
    /// A nexus that it does not go over: the same question is out over that one.
    avoids: Option<u16>,
    /// Taken back when it was on its way: never sent again, and answered once it is proved that it cannot land (SCSI kind).
    withdrawn: bool,
    /// Its node knows that it cannot land any more, and waits for no answer (SCSI kind).
    ended: bool,
    /// It was executed, and its answer was lost with its session: it goes again, and what it tells is told already.
    executed: bool,
    answer: Option<Answer>,
}

impl Flight {
    /// Whether it may still be executed: sent, and neither executed nor refused.
    fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Flying | Stage::Taken)
    }
}

/// Somebody waits until of what a process has sent nothing can land any more.
struct Proof {
    node: NodeId,
    process: u64,
    flights: BTreeSet<u64>,
    then: Act,
}

/// The LUN and everything on its way to it.
pub(super) struct Disk {
    pub(super) lun: Lun,
    flights: BTreeMap<u64, Flight>,
    last: u64,
    paths: BTreeMap<NodeId, Path>,
    /// Nexuses whose own way to the disk hangs, beside what is wrong with all ways of their node (SCSI kind).
    pub(super) hung: BTreeSet<(NodeId, u16)>,
    /// Whose LIVE lock is held by which process.
    pub(super) live: BTreeMap<NodeId, (NodeId, u64)>,
    dead: BTreeSet<(NodeId, u64)>,
    /// The next so many writes (data or pages) of a node stick in the fabric.
    pub(super) stick_data: BTreeMap<NodeId, u32>,
    pub(super) stick_pages: BTreeMap<NodeId, u32>,
    /// The next so many commits of a node stall between the latch and the disk.
    pub(super) stall_commits: BTreeMap<NodeId, u32>,
    /// The next so many writes (data or pages) of a node stick in the disk behind the target (SCSI kind).
    pub(super) stick_behind: BTreeMap<NodeId, u32>,
    /// For how long, in microseconds; by chance if not set.
    pub(super) stick_for: Option<u64>,
    /// The next so many compare-and-writes of a node lose their answer; `true`: before they are executed.
    pub(super) lose_caw: BTreeMap<NodeId, Vec<bool>>,
    /// The same for the lease alone.
    pub(super) lose_lease: BTreeMap<NodeId, Vec<bool>>,
    proofs: Vec<Proof>,
    pub(super) nexuses: BTreeMap<(NodeId, u16), Nexus>,
    pub(super) scsi: bool,
    /// Resets of the disk so far.
    pub(super) resets: u64,
}

impl Disk {
    pub(super) fn new(all: &[NodeId], scsi: bool, state: State) -> Disk {
        Disk {
            lun: Lun::new(all, state),
            flights: BTreeMap::new(),
            last: 0,
            paths: BTreeMap::new(),
            hung: BTreeSet::new(),
            live: BTreeMap::new(),
            dead: BTreeSet::new(),
            stick_data: BTreeMap::new(),
            stick_pages: BTreeMap::new(),
            stall_commits: BTreeMap::new(),
            stick_behind: BTreeMap::new(),
            stick_for: None,
            lose_caw: BTreeMap::new(),
            lose_lease: BTreeMap::new(),
            proofs: Vec::new(),
            nexuses: BTreeMap::new(),
            scsi,
            resets: 0,
        }
    }

    pub(super) fn path(&self, n: NodeId) -> Path {
        self.paths.get(&n).copied().unwrap_or_default()
    }

    /// Whether the way of a request to the disk and back hangs: that of its node, or that of its nexus.
    fn hangs(&self, flight: &Flight) -> bool {
        let nexus = flight.session.map(|(nexus, _)| (flight.node, nexus));
        self.path(flight.node) == Path::Hangs || nexus.is_some_and(|x| self.hung.contains(&x))
    }

    /// Whether a nexus reaches the disk, and hears it.
    fn heard(&self, n: NodeId, nexus: u16) -> bool {
        matches!(self.path(n), Path::Good | Path::Slow(_)) && !self.hung.contains(&(n, nexus))
    }

    /// Whether a write of pages of this node may still land.
    pub(super) fn pages_flying(&self, n: NodeId) -> bool {
        self.flights.values().any(|f| {
            f.node == n
                && matches!(f.req, Req::MetaCommit { .. })
                && !matches!(f.stage, Stage::Returning | Stage::Answered(_))
        })
    }

    /// The nexus over which a page write of this node is on its way.
    pub(super) fn pages_fly_over(&self, n: NodeId) -> Option<u16> {
        let flies = |f: &&Flight| f.node == n && matches!(f.req, Req::MetaCommit { .. }) && f.is_under_way();
        self.flights.values().find(flies).and_then(|f| f.session).map(|(nexus, _)| nexus)
    }

    /// Whether a data write of this node may still land.
    pub(super) fn writes_flying(&self, n: NodeId) -> bool {
        self.flights.values().any(|f| {
            f.node == n && matches!(f.req, Req::Write(_)) && !matches!(f.stage, Stage::Returning | Stage::Answered(_))
        })
    }

    /// Over which nexus a data write of this node flies.
    pub(super) fn writes_fly_over(&self, n: NodeId) -> Option<u16> {
        let flies = |f: &&Flight| f.node == n && matches!(f.req, Req::Write(_)) && f.is_under_way();
        self.flights.values().find(flies).and_then(|f| f.session).map(|(nexus, _)| nexus)
    }
}

impl World {
    /// Submits a request of a node's present process. The answer comes to that process, or never.
    pub(super) fn submit(&mut self, n: NodeId, req: Req, answer: impl FnOnce(&mut World, Res) + 'static) {
        self.submit_for(n, None, req, answer);
    }

    /// The same, for a reign of that node: it can be taken back when the reign ends.
    pub(super) fn submit_for(
        &mut self,
        n: NodeId,
        reign: Option<Epoch>,
        req: Req,
        answer: impl FnOnce(&mut World, Res) + 'static,
    ) {
        self.submit_but_over(n, (reign, None), req, answer);
    }

    /// The same, over another nexus than `avoids`, if there is one.
    fn submit_but_over(
        &mut self,
        n: NodeId,
        (reign, avoids): (Option<Epoch>, Option<u16>),
        req: Req,
        answer: impl FnOnce(&mut World, Res) + 'static,
    ) {
        self.disk.last += 1;
        let id = self.disk.last;
        let flight = Flight {
            node: n,
            process: self.nodes[&n].process,
            req,
            stage: Stage::Held,
            reign,
            session: None,
            avoids,
            withdrawn: false,
            ended: false,
            executed: false,
            answer: Some(Box::new(answer)),
        };
        self.disk.flights.insert(id, flight);
        self.send_off(id);
    }

    /// Sends a held request on its way, if there is one.
    fn send_off(&mut self, id: u64) {
        let Some(flight) = self.disk.flights.get(&id) else { return };
        let n = flight.node;
        let extra = match self.disk.path(n) {
            Path::Good => 0,
            Path::Slow(by) => by,
            Path::Fails => {
                let quick = self.rng.range(50, 500);
                return self.after(quick, move |w| w.complete(id, Res::NoPath));
            }
            Path::Hangs if !self.disk.scsi => return,
            Path::Hangs => 0,
        };
        if self.disk.scsi && !self.choose_nexus(id) {
            return;
        }
        let Some(flight) = self.disk.flights.get_mut(&id) else { return };
        flight.stage = Stage::Flying;
        let (write, pages) = (matches!(flight.req, Req::Write(_)), matches!(flight.req, Req::MetaCommit { .. }));
        let (caw, lease) = (flight.req.is_caw(), matches!(flight.req, Req::CawLease { .. }));
        let mut flies = self.rng.range(50, 800) + extra;
        if write && take(&mut self.disk.stick_data, n) || pages && take(&mut self.disk.stick_pages, n) {
            flies += self.disk.stick_for.unwrap_or_else(|| 300 * MS + self.rng.below(5000 * MS));
            self.coverage.count("disk", if pages { "pages stuck" } else { "write stuck" });
            self.trace(|| format!("a write of {n} sticks in the fabric for {} ms", flies / MS));
        }
        let lost = match caw {
            true if lease => self.disk.lose_lease.get_mut(&n).and_then(Vec::pop),
            _ => None,
        };
        let lost = lost.or_else(|| if caw { self.disk.lose_caw.get_mut(&n).and_then(Vec::pop) } else { None });
        if let Some(before) = lost {
            self.coverage.count("disk", if before { "caw lost, lands later" } else { "caw reply lost" });
            self.lose_answer(id, before, &mut flies);
        }
        self.after(flies, move |w| w.land(id));
    }

    /// The answer is lost: the submitter hears nothing certain. `before`: it hears so before the request lands.
    fn lose_answer(&mut self, id: u64, before: bool, flies: &mut u64) {
        let Some(flight) = self.disk.flights.get_mut(&id) else { return };
        let (n, answer) = (flight.node, flight.answer.take());
        let told = if before { 2 * MS } else { *flies + 20 * MS };
        if before {
            *flies += self.disk.stick_for.unwrap_or_else(|| 20 * MS + self.rng.below(1500 * MS));
        }
        if let Some(answer) = answer {
            self.at_node(n, told, move |w| answer(w, Res::Lost));
        }
    }

    /// For how long a commit that may begin stalls before it is sent.
    pub(super) fn commit_stalls(&mut self, n: NodeId) -> u64 {
        if !take(&mut self.disk.stall_commits, n) {
            return 0;
        }
        self.coverage.count("disk", "commit stalled");
        let stall = self.disk.stick_for.unwrap_or_else(|| 50 * MS + self.rng.below(5000 * MS));
        self.trace(|| format!("a commit of {n} stalls for {} ms", stall / MS));
        stall
    }

    /// A request reaches the disk.
    fn land(&mut self, id: u64) {
        let Some(flight) = self.disk.flights.get(&id) else { return };
        let (n, process) = (flight.node, flight.process);
        if self.disk.scsi && self.disk.hangs(flight) && !self.disk.dead.contains(&(n, process)) {
            // It hangs in the fabric until the path heals.
            return self.after(20 * MS, move |w| w.land(id));
        }
        if self.disk.scsi && self.waits_its_turn(id) {
            return self.after(MS, move |w| w.land(id));
        }
        match self.disk.scsi.then(|| self.may_pass(id)).flatten() {
            Some(refused) => self.landed(id, refused),
            None if self.disk.scsi && self.is_taken(id) => {}
            None => {
                let res = self.execute(id);
                self.landed(id, res);
            }
        }
    }

    /// A request was executed, refused or aborted: its answer goes back.
    fn landed(&mut self, id: u64, res: Res) {
        let Some(flight) = self.disk.flights.get_mut(&id) else { return };
        let (n, process) = (flight.node, flight.process);
        flight.stage = Stage::Returning;
        let back = self.rng.range(30, 400);
        if self.disk.dead.contains(&(n, process)) {
            self.disk.flights.remove(&id);
            return self.may_be_free(n, process);
        }
        self.after(back, move |w| w.complete(id, res));
    }

    fn execute(&mut self, id: u64) -> Res {
        let Some(flight) = self.disk.flights.get_mut(&id) else { return Res::Lost };
        let (n, mut req) = (flight.node, flight.req.clone());
        if let Req::MetaCommit { notes, .. } = &mut req
            && std::mem::replace(&mut flight.executed, true)
        {
            notes.clear();
        }
        self.coverage.variant("disk", &req);
        self.lun_execute(n, req)
    }

    /// The answer reaches the node, unless its path hangs.
    fn complete(&mut self, id: u64, res: Res) {
        let Some(flight) = self.disk.flights.get(&id) else { return };
        let (n, hangs) = (flight.node, self.disk.hangs(flight));
        if hangs && !matches!(res, Res::Aborted) {
            if let Some(flight) = self.disk.flights.get_mut(&id) {
                flight.stage = Stage::Answered(res);
            }
            return self.check_proofs();
        }
        let Some(flight) = self.disk.flights.remove(&id) else { return };
        if let Some(answer) = flight.answer {
            // Its session was given up, which no answer outlives.
            let res = if flight.withdrawn { Res::Aborted } else { res };
            self.deliver_answer(n, flight.process, answer, res);
        }
        self.check_proofs();
    }

    fn deliver_answer(&mut self, n: NodeId, process: u64, answer: Answer, res: Res) {
        if self.nodes[&n].process == process && self.is_up(n) {
            self.at_node(n, 0, move |w| answer(w, res));
        }
    }

    /// The way of a node to the disk changes.
    pub(super) fn set_path(&mut self, n: NodeId, path: Path) {
        self.trace(|| format!("path of {n}: {path:?}"));
        self.disk.paths.insert(n, path);
        if path != Path::Hangs {
            self.path_answers(n);
        }
    }

    /// What waited for a path goes on, and so do answers that hung in it.
    pub(super) fn path_answers(&mut self, n: NodeId) {
        let of_node: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| f.node == n).map(|(id, _)| *id).collect();
        for id in of_node {
            let Some(flight) = self.disk.flights.get_mut(&id) else { continue };
            match &mut flight.stage {
                Stage::Held => self.send_off(id),
                Stage::Answered(_) => {
                    if let Stage::Answered(res) = std::mem::replace(&mut flight.stage, Stage::Returning) {
                        self.after(100, move |w| w.complete(id, res));
                    }
                }
                Stage::Flying | Stage::Taken | Stage::Returning => {}
            }
        }
    }

    /// When a task that was told to take everything back begins to. Until then what waits may go out.
    pub(super) fn abort_begins(&mut self) -> u64 {
        let at_most = if self.rng.permille(100) { 300 * MS } else { 2 * MS };
        self.rng.below(at_most)
    }

    /// A client ends its own requests: nothing is sent any more, and what was sent is taken back. **File kind**: `then` once
    /// nothing of it can land. **SCSI kind**: `then` at once; what may still land is ended by the fence that follows, away by the
    /// preemption of all keys, at home by the office's [proof](World::prove_nothing_flies).
    pub(super) fn stop_all(&mut self, n: NodeId, then: impl FnOnce(&mut World) + 'static) {
        self.coverage.count("disk", "abort");
        let below = self.take_back_all(n);
        let below = if self.disk.scsi { BTreeSet::new() } else { below };
        self.proved_once(n, below, Box::new(then));
    }

    /// The same, and `then` only once nothing of it can land any more, whatever the kind. **SCSI kind**: each nexus has logged in
    /// anew, or the key of one that does not answer was preempted over another, or the node was told that its keys were.
    pub(super) fn prove_nothing_flies(&mut self, n: NodeId, then: impl FnOnce(&mut World) + 'static) {
        self.coverage.count("disk", "proof");
        let mut below = self.take_back_all(n);
        if self.disk.scsi {
            match self.setup.rules.has(Rule::EveryNexusIsProved) {
                true => self.at_node(n, PREEMPTS_AFTER, move |w| w.proves_hung(n)),
                // One nexus that has begun anew is taken for all of them.
                false if self.any_heard(n) => below.clear(),
                false => {}
            }
        }
        self.proved_once(n, below, Box::new(then));
    }

    /// Takes everything of a node's present process back; what may still land then.
    fn take_back_all(&mut self, n: NodeId) -> BTreeSet<u64> {
        let process = self.nodes[&n].process;
        let mine = |f: &Flight| f.node == n && f.process == process && !f.ended;
        let of_node: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| mine(f)).map(|(id, _)| *id).collect();
        let mut below = BTreeSet::new();
        for id in of_node {
            match self.disk.flights.get(&id).map(|f| &f.stage) {
                Some(Stage::Held) => self.complete(id, Res::Aborted),
                Some(Stage::Flying | Stage::Taken) => {
                    below.insert(id);
                }
                Some(Stage::Returning | Stage::Answered(_)) => {
                    if let Some(flight) = self.disk.flights.get_mut(&id).filter(|_| self.disk.scsi) {
                        flight.withdrawn = true;
                    }
                }
                None => {}
            }
        }
        if self.disk.scsi {
            self.log_out(n, &mut below);
        }
        below
    }

    /// What a reign of a node has waiting for a path is taken back.
    pub(super) fn take_back_waiting(&mut self, n: NodeId, reign: Epoch) {
        let process = self.nodes[&n].process;
        let waits = |f: &Flight| {
            f.node == n && f.process == process && f.reign == Some(reign) && matches!(f.stage, Stage::Held)
        };
        let ids: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| waits(f)).map(|(id, _)| *id).collect();
        for id in ids {
            self.coverage.count("disk", "taken back");
            self.complete(id, Res::Aborted);
        }
    }

    fn proved_once(&mut self, node: NodeId, flights: BTreeSet<u64>, then: Act) {
        let process = self.nodes[&node].process;
        self.disk.proofs.push(Proof { node, process, flights, then });
        self.after(0, |w| w.check_proofs());
    }

    fn check_proofs(&mut self) {
        let flights = &self.disk.flights;
        let flies = |id: &u64| flights.get(id).is_some_and(|f| f.is_under_way() && !f.ended);
        let (over, rest): (Vec<Proof>, Vec<Proof>) =
            std::mem::take(&mut self.disk.proofs).into_iter().partition(|p| !p.flights.iter().any(flies));
        self.disk.proofs = rest;
        for Proof { node, process, then, .. } in over {
            if self.nodes[&node].process == process && self.is_up(node) {
                self.at_node(node, 0, then);
            }
        }
    }

    /// A process died: what it held is gone, what flies lands.
    pub(super) fn disk_process_died(&mut self, n: NodeId, process: u64) {
        self.disk.dead.insert((n, process));
        let mine = |f: &Flight| f.node == n && f.process == process;
        self.disk.flights.retain(|_, f| !mine(f) || f.is_under_way());
        for flight in self.disk.flights.values_mut().filter(|f| mine(f)) {
            flight.answer = None;
        }
        self.after(200, move |w| w.may_be_free(n, process));
    }

    /// The locks of a dead process are free once its last request has landed.
    fn may_be_free(&mut self, n: NodeId, process: u64) {
        let flies = self.disk.flights.values().any(|f| f.node == n && f.process == process);
        if !flies {
            self.disk.live.retain(|_, holder| *holder != (n, process));
        }
    }

    /// Tries a LIVE lock once, without waiting.
    pub(super) fn try_live(&mut self, n: NodeId, whose: NodeId) -> bool {
        let me = (n, self.nodes[&n].process);
        *self.disk.live.entry(whose).or_insert(me) == me
    }

    /// An office that ends drops the LIVE locks of others that it holds, those of which it has not heard yet among them.
    /// Without this a node stayed away for as long as the process lived that was just proving it dead when it was evicted itself.
    pub(super) fn release_all_live(&mut self, n: NodeId) {
        let me = (n, self.nodes[&n].process);
        self.disk.live.retain(|whose, holder| *whose == n || *holder != me);
    }

    pub(super) fn release_live(&mut self, n: NodeId, whose: NodeId) {
        if self.disk.live.get(&whose) == Some(&(n, self.nodes[&n].process)) && n != whose {
            self.disk.live.remove(&whose);
        }
    }
}

fn take(counts: &mut BTreeMap<NodeId, u32>, n: NodeId) -> bool {
    match counts.get_mut(&n) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
