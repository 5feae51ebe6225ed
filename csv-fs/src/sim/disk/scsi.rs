//! Nexuses of the SCSI kind: sessions, registrations, and which requests may pass.
//!
//! Not modelled: the order of commands inside one session (but for registrations), and unit attentions. A nexus that has no registered
//! incarnation yet (its node has not read its slot) registers a key of incarnation 0 at login, so that lease and slots
//! can be read while a reservation is held; data never goes over it.
//!
//! What waits for a nexus goes out over the first that may carry it. A nexus that is lost (its session broke, or it does not
//! answer) leaves what it carried *in doubt*: it goes again, over another, only once it is proved that it cannot land: the nexus
//! has logged in anew, or its key was preempted over another nexus while a reservation is held. What was taken back is
//! answered then, and never goes again.

use std::collections::BTreeSet;

use block::shared::{Incarnation, NodeId};

use super::{Disk, Req, Res, Stage};
use crate::core::office::{self, Key};
use crate::core::rules::Rule;
use crate::sim::world::{MS, World};
use crate::types::ClientId;

/// How far a nexus is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum NexusState {
    /// No session.
    Down,
    /// Logged in, its registration on the way.
    Registering,
    /// Registered; it may not carry data.
    Up,
    /// It may carry data.
    Good,
}

/// One way to the disk.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Nexus {
    pub(in crate::sim) session: u64,
    pub(in crate::sim) state: NexusState,
}

impl Disk {
    pub(in crate::sim) fn process_started(&mut self, n: NodeId, nexuses: u16) {
        if !self.scsi {
            return;
        }
        for nexus in 0..nexuses {
            let session = self.nexuses.get(&(n, nexus)).map_or(0, |x| x.session);
            self.nexuses.insert((n, nexus), Nexus { session, state: NexusState::Down });
        }
    }
}

impl World {
    pub(super) fn nexus_numbers(&self, n: NodeId) -> Vec<u16> {
        self.disk.nexuses.keys().filter(|(node, _)| *node == n).map(|(_, x)| *x).collect()
    }

    /// Gives a request a session; false if none may carry it now: then it is held.
    pub(super) fn choose_nexus(&mut self, id: u64) -> bool {
        let Some(flight) = self.disk.flights.get(&id) else { return false };
        let (n, data, avoids) = (flight.node, flight.req.is_data(), flight.avoids);
        let named = match &flight.req {
            Req::OwnSlot { via } => *via,
            Req::Scsi(office::FenceStep::Register { nexus, .. }) => Some(*nexus),
            _ => None,
        };
        let fits = |x: &u16| {
            let state = self.disk.nexuses[&(n, *x)].state;
            let up = state == NexusState::Good || !data && state == NexusState::Up;
            let registers = named == Some(*x) && state != NexusState::Down;
            named.is_none_or(|w| w == *x) && avoids != Some(*x) && (up || registers)
        };
        // They take turns.
        let (mut numbers, turn) = (self.nexus_numbers(n), id as usize);
        let by = turn % numbers.len().max(1);
        numbers.rotate_left(by);
        let Some(nexus) = numbers.into_iter().find(fits) else { return false };
        let session = self.disk.nexuses[&(n, nexus)].session;
        if let Some(flight) = self.disk.flights.get_mut(&id) {
            flight.session = Some((nexus, session));
        }
        true
    }

    /// Whether a request that reached the disk is executed; else its answer.
    pub(super) fn may_pass(&mut self, id: u64) -> Option<Res> {
        let flight = self.disk.flights.get(&id)?;
        let (nexus, session) = flight.session?;
        let (n, register) = (flight.node, matches!(flight.req, Req::Scsi(office::FenceStep::Register { .. })));
        if self.disk.nexuses[&(n, nexus)].session != session {
            return Some(Res::Aborted);
        }
        if self.disk.lun.reserved && !register && !self.disk.lun.keys.contains_key(&(n, nexus)) {
            self.coverage.count("disk", "conflict");
            self.after(MS, move |w| w.nexus_conflicted(n, nexus));
            return Some(Res::Conflict);
        }
        None
    }

    /// Commands of one session are delivered in order (CmdSN); it matters for a registration, which must not overtake
    /// what was sent before it: a write that a fence made impossible would land under the new key.
    pub(super) fn waits_its_turn(&self, id: u64) -> bool {
        let Some(flight) = self.disk.flights.get(&id) else { return false };
        let register = matches!(flight.req, Req::Scsi(office::FenceStep::Register { .. }));
        let before = |f: &super::Flight| {
            f.node == flight.node && f.session == flight.session && matches!(f.stage, Stage::Flying)
        };
        register && self.disk.flights.range(..id).any(|(_, f)| before(f))
    }

    /// A nexus was told of a conflict: it must begin anew.
    pub(super) fn nexus_conflicted(&mut self, n: NodeId, nexus: u16) {
        let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) else { return };
        if x.state != NexusState::Down {
            x.state = NexusState::Down;
            let later = 50 * MS + self.rng.below(200 * MS);
            self.at_node(n, later, move |w| w.nexus_logs_in(n, nexus));
        }
    }

    /// A session breaks; what of it flies is purged when the nexus logs in again, and then sent once more.
    pub(in crate::sim) fn session_breaks(&mut self, n: NodeId, nexus: u16, for_ms: u64) {
        self.trace(|| format!("nexus {nexus} of {n} loses its session"));
        if let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) {
            x.state = NexusState::Down;
            self.at_node(n, for_ms * MS, move |w| w.nexus_logs_in(n, nexus));
        }
    }

    /// A new session: the disk forgets the one before and whatever of it still flies.
    pub(in crate::sim) fn nexus_logs_in(&mut self, n: NodeId, nexus: u16) {
        if !self.disk.heard(n, nexus) {
            return self.at_node(n, 100 * MS, move |w| w.nexus_logs_in(n, nexus));
        }
        let client = self.proc(n).and_then(|p| p.office.core.client());
        let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) else { return };
        if x.state == NexusState::Good {
            return;
        }
        x.session += 1;
        x.state = if client.is_none() { NexusState::Up } else { NexusState::Registering };
        if client.is_none() {
            let nobody = ClientId { node: n, incarnation: Incarnation(0) };
            self.disk.lun.keys.insert((n, nexus), Key::new(9, nobody, nexus));
        }
        self.purge(n, nexus);
        self.office(n, office::Event::NexusUp { nexus });
        self.send_held(n);
    }

    /// What flew on earlier sessions of a nexus is proved dead, with the answers that were on their way.
    fn purge(&mut self, n: NodeId, nexus: u16) {
        let session = self.disk.nexuses[&(n, nexus)].session;
        let old = |f: &super::Flight| {
            f.node == n && !matches!(f.stage, Stage::Held) && f.session.is_some_and(|(x, s)| x == nexus && s != session)
        };
        let ids: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| old(f)).map(|(id, _)| *id).collect();
        for id in ids {
            self.coverage.count("disk", "purged");
            self.proved_dead(id);
            self.disk.flights.remove(&id);
        }
        self.check_proofs();
    }

    /// A request that was in doubt cannot land (again): data goes once more unless it was taken back, of others nobody knows
    /// whether they were executed.
    pub(super) fn proved_dead(&mut self, id: u64) {
        let Some(flight) = self.disk.flights.get_mut(&id) else { return };
        flight.ended = true;
        let (n, process, req) = (flight.node, flight.process, flight.req.clone());
        let Some(answer) = flight.answer.take().filter(|_| self.nodes[&n].process == process) else { return };
        match req.is_data() {
            true if flight.withdrawn => self.deliver_answer(n, process, answer, Res::Aborted),
            true => {
                let (reign, executed) = (flight.reign, flight.executed);
                self.disk.last += 1;
                let again = super::Flight {
                    node: n,
                    process,
                    req,
                    stage: Stage::Held,
                    reign,
                    session: None,
                    avoids: None,
                    withdrawn: false,
                    ended: false,
                    executed,
                    answer: Some(answer),
                };
                let id = self.disk.last;
                self.disk.flights.insert(id, again);
                self.send_off(id);
            }
            false => self.deliver_answer(n, process, answer, Res::Lost),
        }
    }

    fn send_held(&mut self, n: NodeId) {
        let held: Vec<u64> = self
            .disk
            .flights
            .iter()
            .filter(|(_, f)| f.node == n && matches!(f.stage, Stage::Held))
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            self.send_off(id);
        }
    }

    /// The office says what a nexus is worth.
    pub(in crate::sim) fn nexus_judged(&mut self, n: NodeId, nexus: u16, good: bool) {
        if let Some(x) = self.disk.nexuses.get_mut(&(n, nexus))
            && x.state != NexusState::Down
        {
            x.state = if good { NexusState::Good } else { NexusState::Up };
            self.send_held(n);
        }
    }

    pub(super) fn any_heard(&self, n: NodeId) -> bool {
        self.nexus_numbers(n).into_iter().any(|x| self.disk.heard(n, x))
    }

    /// A node gives up all its sessions, so that what it sent can land no more. If a nexus does not answer the disk does not
    /// hear of it: then only the next login proves that, or the preemption of its key, and until then nobody is answered.
    /// Prevents: a write that may still land is answered as withdrawn, its program gets EIO for its age, and it lands.
    /// Only whether a change of a block was made nobody waits to know.
    pub(super) fn log_out(&mut self, n: NodeId, below: &mut BTreeSet<u64>) {
        for id in below.clone() {
            let Some(flight) = self.disk.flights.get_mut(&id) else { continue };
            let (process, data) = (flight.process, flight.req.is_data());
            flight.withdrawn = true;
            let nexus = flight.session.map_or(0, |(nexus, _)| nexus);
            if self.disk.heard(n, nexus) {
                below.remove(&id);
                let answer = self.disk.flights.remove(&id).and_then(|f| f.answer);
                if let Some(answer) = answer {
                    self.deliver_answer(n, process, answer, Res::Aborted);
                }
            } else if !data && let Some(answer) = self.disk.flights.get_mut(&id).and_then(|f| f.answer.take()) {
                self.deliver_answer(n, process, answer, Res::Lost);
            }
        }
        for nexus in self.nexus_numbers(n) {
            let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) else { continue };
            x.state = NexusState::Down;
            self.at_node(n, 20 * MS, move |w| w.nexus_logs_in(n, nexus));
        }
    }

    /// A daemon that leaves gives its keys back, over the nexuses that answer.
    pub(in crate::sim) fn keys_given_back(&mut self, n: NodeId) {
        for nexus in self.nexus_numbers(n) {
            if self.disk.heard(n, nexus) {
                self.disk.lun.keys.remove(&(n, nexus));
            }
        }
    }

    /// The way of one nexus to the disk hangs, or no longer does.
    pub(in crate::sim) fn nexus_hangs(&mut self, n: NodeId, nexus: u16, hangs: bool) {
        self.trace(|| format!("nexus {nexus} of {n} hangs: {hangs}"));
        match hangs {
            true => drop(self.disk.hung.insert((n, nexus))),
            false => {
                self.disk.hung.remove(&(n, nexus));
                self.path_answers(n);
            }
        }
    }

    /// A node notices that a nexus does not answer: it carries nothing new, and is proved dead over another.
    pub(in crate::sim) fn nexus_given_up(&mut self, n: NodeId, nexus: u16) {
        if self.disk.heard(n, nexus) {
            return;
        }
        self.session_breaks(n, nexus, 20);
        self.proves_hung(n);
    }

    /// Nexuses that are lost, do not answer, and have left something in doubt are proved dead over one that answers, again and
    /// again until that is done or they are back.
    pub(super) fn proves_hung(&mut self, n: NodeId) {
        let process = self.nodes[&n].process;
        let doubt = |f: &super::Flight, x: u16| {
            f.node == n
                && f.process == process
                && !f.ended
                && !matches!(f.stage, Stage::Held)
                && f.session.is_some_and(|(of, _)| of == x)
        };
        let lost = |x: &u16| self.disk.nexuses[&(n, *x)].state == NexusState::Down && !self.disk.heard(n, *x);
        let left = |x: &u16| self.disk.flights.values().any(|f| doubt(f, *x));
        let hung: Vec<u16> = self.nexus_numbers(n).into_iter().filter(|x| lost(x) && left(x)).collect();
        if hung.is_empty() {
            return;
        }
        for nexus in hung {
            let session = self.disk.nexuses[&(n, nexus)].session;
            self.submit(n, Req::Scsi(office::FenceStep::Reserve), move |w, res| {
                if matches!(res, Res::Scsi(office::ScsiResult::Done)) {
                    w.preempts_own(n, nexus, session);
                }
            });
        }
        self.at_node(n, super::PREEMPTS_AFTER, move |w| w.proves_hung(n));
    }

    /// A reservation is held: once its key was preempted, and its tasks have ended, what that nexus carried can land no more.
    fn preempts_own(&mut self, n: NodeId, nexus: u16, session: u64) {
        let of_nexus = move |k: &Key| {
            let nobody = ClientId { node: n, incarnation: Incarnation(0) };
            let incarnation = 0xf_ffff << 16;
            k.0 & !incarnation == Key::new(9, nobody, nexus).0
        };
        self.submit(n, Req::Scsi(office::FenceStep::ReadKeys), move |w, res| {
            let Res::Scsi(office::ScsiResult::Keys(keys)) = res else { return };
            match keys.into_iter().find(of_nexus) {
                Some(victim) => w.submit(n, Req::Scsi(office::FenceStep::PreemptAndAbort { victim }), move |w, res| {
                    if matches!(res, Res::Scsi(office::ScsiResult::Done)) {
                        w.nexus_is_dead(n, nexus, session);
                    }
                }),
                // Somebody else has taken it away, and its tasks may still be ending.
                None if w.setup.rules.has(Rule::AnsweredPreempt) => {}
                None => w.nexus_is_dead(n, nexus, session),
            }
        });
    }

    /// A session of a nexus whose key was preempted: what it left in doubt is proved dead.
    fn nexus_is_dead(&mut self, n: NodeId, nexus: u16, session: u64) {
        let of = |f: &super::Flight| {
            f.node == n && !f.ended && !matches!(f.stage, Stage::Held) && f.session == Some((nexus, session))
        };
        let ids: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| of(f)).map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            self.coverage.count("disk", "nexus proved dead over another");
        }
        ids.into_iter().for_each(|id| self.proved_dead(id));
        self.check_proofs();
    }

    /// The keys of this node were preempted, which ended its tasks: what it has taken back comes back now.
    pub(in crate::sim) fn tasks_ended(&mut self, n: NodeId) {
        let process = self.nodes[&n].process;
        let mine = |f: &super::Flight| f.node == n && f.process == process && f.withdrawn;
        let ids: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| mine(f)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.proved_dead(id));
        self.check_proofs();
    }
}
