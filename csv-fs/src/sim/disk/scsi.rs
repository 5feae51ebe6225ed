//! Nexuses of the SCSI kind: sessions, registrations, and which requests may pass.
//!
//! Not modelled: the order of commands inside one session (but for registrations), and unit attentions. A nexus that has no registered
//! incarnation yet (its node has not read its slot) registers a key of incarnation 0 at login, so that lease and slots
//! can be read while a reservation is held; data never goes over it.

use std::collections::BTreeSet;

use block::shared::{Incarnation, NodeId};

use super::{Disk, Req, Res, Stage};
use crate::core::office::{self, Key};
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
    fn nexus_numbers(&self, n: NodeId) -> Vec<u16> {
        self.disk.nexuses.keys().filter(|(node, _)| *node == n).map(|(_, x)| *x).collect()
    }

    /// Gives a request a session; false if none may carry it now: then it is held.
    pub(super) fn choose_nexus(&mut self, id: u64) -> bool {
        let Some(flight) = self.disk.flights.get(&id) else { return false };
        let (n, data) = (flight.node, flight.req.is_data());
        let named = match &flight.req {
            Req::OwnSlot { via } => *via,
            Req::Scsi(office::FenceStep::Register { nexus, .. }) => Some(*nexus),
            _ => None,
        };
        let fits = |x: &u16| {
            let state = self.disk.nexuses[&(n, *x)].state;
            let up = state == NexusState::Good || !data && state == NexusState::Up;
            let registers = named == Some(*x) && state != NexusState::Down;
            named.is_none_or(|w| w == *x) && (up || registers)
        };
        let Some(nexus) = self.nexus_numbers(n).into_iter().find(fits) else { return false };
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
    fn nexus_conflicted(&mut self, n: NodeId, nexus: u16) {
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
        if !matches!(self.disk.path(n), super::Path::Good | super::Path::Slow(_)) {
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

    /// What flew on earlier sessions of a nexus is proved dead: data goes again, other requests are answered `Lost`.
    fn purge(&mut self, n: NodeId, nexus: u16) {
        let session = self.disk.nexuses[&(n, nexus)].session;
        let old = |f: &super::Flight| {
            f.node == n
                && matches!(f.stage, Stage::Flying)
                && f.session.is_some_and(|(x, s)| x == nexus && s != session)
        };
        let ids: Vec<u64> = self.disk.flights.iter().filter(|(_, f)| old(f)).map(|(id, _)| *id).collect();
        let process = self.nodes[&n].process;
        for id in ids {
            let Some(flight) = self.disk.flights.remove(&id) else { continue };
            if flight.process != process || flight.answer.is_none() {
                continue;
            }
            self.coverage.count("disk", "purged");
            match flight.req.is_data() {
                true if flight.withdrawn => {
                    if let Some(answer) = flight.answer {
                        self.deliver_answer(n, process, answer, Res::Aborted);
                    }
                }
                true => {
                    self.disk.last += 1;
                    let id = self.disk.last;
                    self.disk.flights.insert(id, super::Flight { stage: Stage::Held, session: None, ..flight });
                    self.send_off(id);
                }
                false => {
                    if let Some(answer) = flight.answer {
                        self.deliver_answer(n, process, answer, Res::Lost);
                    }
                }
            }
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

    /// A generation was granted: nexuses that were refused before register anew.
    pub(in crate::sim) fn nexuses_try_again(&mut self, n: NodeId) {
        for nexus in self.nexus_numbers(n) {
            if self.disk.nexuses[&(n, nexus)].state == NexusState::Up {
                self.at_node(n, MS, move |w| w.nexus_logs_in(n, nexus));
            }
        }
    }

    /// A node gives up all its sessions, so that what it sent can land no more. If its path is gone the disk does not
    /// hear of it: then only the next login proves that, or a fence by somebody else, and until then nobody is answered.
    /// Prevents: a write that may still land is answered as withdrawn, its program gets EIO for its age, and it lands.
    pub(super) fn log_out(&mut self, n: NodeId, below: &BTreeSet<u64>) {
        let heard = matches!(self.disk.path(n), super::Path::Good | super::Path::Slow(_));
        for id in below {
            let Some(flight) = self.disk.flights.get_mut(id) else { continue };
            if !heard {
                flight.withdrawn = true;
                continue;
            }
            let (answer, process) = (flight.answer.take(), flight.process);
            self.disk.flights.remove(id);
            if let Some(answer) = answer {
                self.deliver_answer(n, process, answer, Res::Aborted);
            }
        }
        for nexus in self.nexus_numbers(n) {
            let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) else { continue };
            x.state = NexusState::Down;
            self.at_node(n, 20 * MS, move |w| w.nexus_logs_in(n, nexus));
        }
    }

    /// The keys of this node were preempted, which ended its tasks: what it has taken back comes back now.
    pub(in crate::sim) fn tasks_ended(&mut self, n: NodeId) {
        let process = self.nodes[&n].process;
        let mine = |f: &&mut super::Flight| f.node == n && f.process == process && f.withdrawn;
        let back: Vec<_> = self.disk.flights.values_mut().filter(mine).filter_map(|f| f.answer.take()).collect();
        for answer in back {
            self.deliver_answer(n, process, answer, Res::Aborted);
        }
    }
}
