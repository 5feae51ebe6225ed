//! The thin shell around an office core: reads, compare-and-writes and locks of the simulated disk, questions over the
//! simulated network. It decides nothing.

use std::time::Duration;

use block::shared::{Epoch, NodeId};

use super::disk::{Req, Res};
use super::net::DEAD_PEER;
use super::oracle::Invariant;
use super::world::{Core, MS, World, micros};
use crate::core::client as client_core;
use crate::core::office::{
    AliveAnswer, Ask, AskId, CawResult, Config, Effect, Event, FenceStep, KillOutcome, Office, Purpose, ScsiResult,
    Sight, Tell, Ticket,
};
use crate::core::{coord, office};
use crate::proto::{CoordinatorHint, PeerAnswer};
use crate::types::ClientId;

/// What a question was about, until its answer comes.
enum Asked {
    Alive { node: NodeId, epoch: Epoch },
    Fence(ClientId, block::shared::FenceGen),
}

/// An office and what its shell keeps.
pub(super) struct OfficeShell {
    pub(super) core: Office,
    last_ask: u64,
    asked: std::collections::BTreeMap<AskId, (NodeId, Asked)>,
    /// Questions of peers under way here: (their number, who).
    asking: std::collections::BTreeMap<AskId, (NodeId, AskId)>,
    hint: Option<CoordinatorHint>,
    fences: std::collections::BTreeMap<Ticket, (ClientId, coord::FencePurpose)>,
    last_ticket: u64,
    /// A new life of the client is to begin under this office.
    pub(super) reborn: Option<Vec<crate::types::HandleId>>,
    /// Tells this office from the one before it in the same process.
    generation: u64,
}

impl OfficeShell {
    pub(super) fn new(w: &mut World, n: NodeId) -> OfficeShell {
        let nonce = w.rng.next() << 20;
        let process = w.nodes[&n].process;
        let config = Config {
            node: n,
            nodes: w.node_set(),
            boot: 77,
            pid: u32::from(n.get()) * 1000 + u32::try_from(process).unwrap_or(0),
            pid_start: w.now,
            address: format!("127.0.0.{n}:1"),
            nonce_base: nonce,
            timing: w.timing,
            kind: w.kind(),
            nexuses: if w.setup.scsi { w.setup.nexuses } else { 1 },
            silence: Duration::from_millis(DEAD_PEER / MS),
            resumes: w.resumes(n),
        };
        OfficeShell {
            core: Office::new(config, w.setup.rules),
            last_ask: 0,
            asked: Default::default(),
            asking: Default::default(),
            hint: None,
            fences: Default::default(),
            last_ticket: 0,
            reborn: None,
            generation: nonce,
        }
    }
}

impl World {
    pub(super) fn office_begins(&mut self, n: NodeId) {
        self.at_node(n, 0, move |w| {
            w.office(n, Event::Tick);
            if w.setup.scsi {
                for nexus in 0..w.setup.nexuses {
                    w.at_node(n, 2 * MS, move |w| w.nexus_logs_in(n, nexus));
                }
            }
        });
    }

    /// One event for a node's office.
    pub(super) fn office(&mut self, n: NodeId, event: Event) {
        let now = self.clock(n);
        self.events += 1;
        self.coverage.variant("office event", &event);
        let Some(proc) = self.proc(n) else { return };
        let was = proc.office.core.in_office().map(|p| p.epoch());
        let mut out = Vec::new();
        proc.office.core.handle(now, event, &mut out);
        let deadline = proc.office.core.next_deadline();
        let is = proc.office.core.in_office().map(|p| p.epoch());
        if was != is {
            self.trace(|| format!("{n}: in office {was:?} -> {is:?}"));
        }
        for effect in out {
            self.coverage.variant("office effect", &effect);
            self.office_effect(n, effect);
        }
        self.arm(n, Core::Office, deadline);
        self.pass_on_hint(n);
    }

    fn pass_on_hint(&mut self, n: NodeId) {
        let Some(proc) = self.proc(n) else { return };
        let hint = proc.office.core.hint();
        if hint != proc.office.hint {
            proc.office.hint = hint.clone();
            if let Some(hint) = hint {
                self.at_node(n, 50, move |w| w.client(n, client_core::Event::Hint(hint)));
            }
        }
    }

    fn office_generation(&mut self, n: NodeId) -> u64 {
        self.proc(n).map_or(0, |p| p.office.generation)
    }

    /// An event for the very office that asked for it.
    fn office_of(&mut self, n: NodeId, of: u64, event: Event) {
        if self.office_generation(n) == of {
            self.office(n, event);
        }
    }

    fn office_effect(&mut self, n: NodeId, effect: Effect) {
        let of = self.office_generation(n);
        match effect {
            Effect::Read { seq } => self.submit(n, Req::Cells, move |w, res| {
                let sight: Option<Sight> = if let Res::Cells(sight) = res { Some(*sight) } else { None };
                w.office_of(n, of, Event::Read { seq, sight });
            }),
            Effect::CawSlot { tag, node, expect, new, .. } => {
                if node != n && new.fence_gen > expect.fence_gen {
                    self.fence_is_meant(n, ClientId { node, incarnation: expect.incarnation });
                }
                self.trace(|| {
                    format!(
                        "{n}: CAW slot of {node} gen {} -> {} counter {} inc {}",
                        expect.fence_gen.0, new.fence_gen.0, new.counter, new.incarnation.0
                    )
                });
                self.submit(n, Req::CawSlot { node, expect, new }, move |w, res| {
                    let result = if let Res::Slot(result) = res { result } else { CawResult::Lost };
                    w.office_of(n, of, Event::SlotCaw { tag, result });
                });
            }
            Effect::CawLease { tag, expect, new, .. } => {
                self.submit(n, Req::CawLease { expect, new }, move |w, res| {
                    let result = if let Res::Lease(result) = res { result } else { CawResult::Lost };
                    w.office_of(n, of, Event::LeaseCaw { tag, result });
                })
            }
            Effect::TryLiveLock { node } => {
                let acquired = self.try_live(n, node);
                self.at_node(n, 20, move |w| w.office_of(n, of, Event::LiveLock { node, acquired }));
            }
            Effect::ReleaseLiveLock { node } => self.release_live(n, node),
            Effect::Kill { node, pid, .. } => self.kill_process(n, node, pid),
            Effect::AskAlive { node, epoch } => self.ask(n, node, Ask::Alive { epoch }, Asked::Alive { node, epoch }),
            Effect::AskFence { client, fence_gen } => {
                self.ask(n, client.node, Ask::Fence { client, fence_gen }, Asked::Fence(client, fence_gen));
            }
            Effect::Answer { id, answer } => self.answer_peer(n, id, answer),
            Effect::Tell { to, what } => self.tell(n, to, &what),
            other => self.office_decided(n, other),
        }
    }

    fn office_decided(&mut self, n: NodeId, effect: Effect) {
        let of = self.office_generation(n);
        match effect {
            Effect::Registered { client, fence_gen } => self.registered(n, client, fence_gen),
            Effect::SelfEvicted => self.trace(|| format!("{n}: its incarnation is over")),
            Effect::StopDirect { fence_gen } => {
                self.client(n, client_core::Event::FenceAsked { fence_gen });
                let begins = self.abort_begins();
                self.at_node(n, begins, move |w| {
                    w.prove_nothing_flies(n, move |w| w.office_of(n, of, Event::NothingInFlight { fence_gen }));
                });
            }
            Effect::TookOffice { proof, unheard } => self.took_office(n, proof, unheard),
            Effect::Suspend { .. } => self.suspend(n, true),
            Effect::Resume { .. } => self.suspend(n, false),
            Effect::TripLatch { epoch } => self.trip(n, epoch),
            Effect::StartDrain { epoch } => self.start_drain(n, epoch),
            Effect::LostOffice { epoch, why } => {
                self.coverage.variant("lost office", &why);
                self.trace(|| format!("{n}: office of epoch {} lost: {why:?}", epoch.0));
            }
            Effect::FenceDone { ticket, result } => {
                let Some((client, purpose)) = self.proc(n).and_then(|p| p.office.fences.remove(&ticket)) else {
                    return;
                };
                self.trace(|| format!("{n}: fence of {client} for {purpose:?}: {result:?}"));
                if let Ok(proof) = &result {
                    self.coverage.variant("fenced how", &proof.how());
                }
                let result = result.map(|p| p.fence_gen()).map_err(|e| format!("{e:?}"));
                self.at_node(n, 10, move |w| w.coord(n, coord::Event::FenceDone { client, purpose, result }));
            }
            Effect::Scsi { tag, step } => self.asks_unit(n, step, move |w, result| {
                w.office_of(n, of, Event::Scsi { tag, result: unless_register(step, result) });
            }),
            Effect::ReadOwnSlotVia { nexus } => self.submit(n, Req::OwnSlot { via: Some(nexus) }, move |w, res| {
                let slot = if let Res::OwnSlot(slot) = res { Some(slot) } else { None };
                w.office_of(n, of, Event::OwnSlotVia { nexus, slot });
            }),
            Effect::NexusGood { nexus, .. } => self.nexus_judged(n, nexus, true),
            Effect::NexusRefused { nexus } => self.nexus_judged(n, nexus, false),
            Effect::Report(report) => {
                self.coverage.variant("report", &report);
                self.trace(|| format!("{n}: {report:?}"));
                match report {
                    office::Report::Permitted { .. } => self.coord(n, coord::Event::Permitted { may: true }),
                    office::Report::NotPermitted => self.coord(n, coord::Event::Permitted { may: false }),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// An oracle: the life whose generation is raised is one that somebody wants fenced.
    fn fence_is_meant(&mut self, n: NodeId, victim: ClientId) {
        let holder = self.disk.lun.lease.holder;
        let Some(proc) = self.proc(n) else { return };
        let holders = [holder, proc.office.core.lease().and_then(|l| l.holder)];
        let asked = proc.office.fences.values().map(|(c, _)| *c);
        if !asked.chain(holders.into_iter().flatten()).any(|c| c == victim) {
            let what = format!("{n} fences {victim}, and nobody asked for that life's end");
            self.oracle.fail(Invariant::AsIfNothingHappened, what);
        }
    }

    fn kill_process(&mut self, n: NodeId, node: NodeId, pid: u32) {
        let process = self.nodes[&node].process;
        let same = self.is_up(node) && pid == u32::from(node.get()) * 1000 + u32::try_from(process).unwrap_or(0);
        self.coverage.count("office kill", if same { "killed" } else { "gone" });
        if same {
            self.after(MS, move |w| {
                w.kill(node);
                let again = 400 * MS + w.rng.below(2000 * MS);
                w.after(again, move |w| {
                    if !w.is_up(node) {
                        w.start(node);
                    }
                });
            });
        }
        let outcome = if same { KillOutcome::Killed } else { KillOutcome::Gone };
        self.at_node(n, 100, move |w| w.office(n, Event::Killed { node, outcome }));
    }

    // ---- questions

    fn ask(&mut self, n: NodeId, to: NodeId, ask: Ask, about: Asked) {
        let patience = micros(self.timing.ask);
        let Some(proc) = self.proc(n) else { return };
        proc.office.last_ask += 1;
        let id = AskId(proc.office.last_ask);
        proc.office.asked.insert(id, (to, about));
        self.at_node(n, patience, move |w| w.answered(n, id, None));
        if !self.net.hear(n, to) {
            return self.at_node(n, MS, move |w| w.answered(n, id, None));
        }
        self.message(n, to, move |w| w.asked(to, n, id, ask));
    }

    /// A peer asks this node.
    fn asked(&mut self, n: NodeId, from: NodeId, their: AskId, ask: Ask) {
        let Some(proc) = self.proc(n) else { return };
        proc.office.last_ask += 1;
        let id = AskId(proc.office.last_ask);
        proc.office.asking.insert(id, (from, their));
        if let Ask::NewEpoch(hint) = &ask {
            let hint = hint.clone();
            self.at_node(n, 0, move |w| w.client(n, client_core::Event::Hint(hint)));
        }
        self.office(n, Event::Asked { id, from, ask });
    }

    fn answer_peer(&mut self, n: NodeId, id: AskId, answer: PeerAnswer) {
        let Some((to, their)) = self.proc(n).and_then(|p| p.office.asking.remove(&id)) else { return };
        self.coverage.variant("peer answer", &answer);
        self.message(n, to, move |w| w.answered(to, their, Some(answer)));
    }

    fn answered(&mut self, n: NodeId, id: AskId, answer: Option<PeerAnswer>) {
        let Some((_, about)) = self.proc(n).and_then(|p| p.office.asked.remove(&id)) else { return };
        let event = match (about, answer) {
            (Asked::Alive { node, epoch }, Some(PeerAnswer::Alive { in_office, disk_stalled })) => {
                let answer = if in_office { AliveAnswer::InOffice { disk_stalled } } else { AliveAnswer::NotInOffice };
                Event::Alive { node, epoch, answer }
            }
            (Asked::Alive { node, epoch }, _) => Event::Alive { node, epoch, answer: AliveAnswer::Silent },
            (Asked::Fence(client, fence_gen), answer) => {
                Event::FenceAnswer { client, fence_gen, fenced: answer == Some(PeerAnswer::Fenced) }
            }
        };
        self.office(n, event);
    }

    pub(super) fn tell(&mut self, n: NodeId, to: Option<NodeId>, what: &Tell) {
        let ask = match what {
            Tell::NewEpoch(hint) => Ask::NewEpoch(hint.clone()),
            Tell::NoPath { epoch } => Ask::NoPath { epoch: *epoch },
            Tell::TakeOffice { epoch } => Ask::TakeOffice { epoch: *epoch },
        };
        for peer in self.all() {
            if peer != n && to.is_none_or(|t| t == peer) && self.net.hear(n, peer) {
                let ask = ask.clone();
                self.message(n, peer, move |w| w.asked(peer, n, AskId(0), ask));
            }
        }
    }

    /// Who coordinates, for a client of this node: every peer is asked, and the own office.
    pub(super) fn ask_who(&mut self, n: NodeId) {
        for peer in self.all() {
            if peer != n && !self.net.hear(n, peer) {
                continue;
            }
            self.message(n, peer, move |w| {
                let hint = w.proc(peer).and_then(|p| p.office.core.hint());
                if let Some(hint) = hint {
                    w.message(peer, n, move |w| w.client(n, client_core::Event::Hint(hint)));
                }
            });
        }
    }

    // ---- between coordinator and office

    /// The coordinator wants a client fenced.
    pub(super) fn want_fence(&mut self, n: NodeId, client: ClientId, purpose: coord::FencePurpose) {
        let Some(proc) = self.proc(n) else { return };
        proc.office.last_ticket += 1;
        let ticket = Ticket(proc.office.last_ticket);
        proc.office.fences.insert(ticket, (client, purpose));
        let (to_office, answered) = match purpose {
            coord::FencePurpose::Eviction => (Purpose::Eviction, false),
            coord::FencePurpose::Path => (Purpose::Path, true),
        };
        self.coverage.variant("fence asked", &purpose);
        self.at_node(n, 10, move |w| w.office(n, Event::RequestFence { ticket, client, purpose: to_office, answered }));
    }

    /// A new office in the same process: the client's next incarnation registers.
    pub(super) fn new_office(&mut self, n: NodeId, poisoned: Vec<crate::types::HandleId>) {
        self.release_all_live(n);
        let mut office = OfficeShell::new(self, n);
        office.reborn = Some(poisoned);
        let heard: Vec<NodeId> = self.all().into_iter().filter(|m| *m != n && self.net.hear(n, *m)).collect();
        if let Some(proc) = self.proc(n) {
            proc.office = office;
        }
        self.office(n, Event::Tick);
        for node in heard {
            self.office(n, Event::PeerHeard { node });
        }
        if self.setup.scsi {
            for nexus in 0..self.setup.nexuses {
                if let Some(x) = self.disk.nexuses.get_mut(&(n, nexus)) {
                    x.state = super::disk::NexusState::Down;
                }
                self.at_node(n, MS, move |w| w.nexus_logs_in(n, nexus));
            }
        }
    }

    pub(super) fn in_office(&self, n: NodeId) -> bool {
        self.nodes[&n].proc.as_ref().is_some_and(|p| p.office.core.in_office().is_some())
    }

    /// Nodes in office.
    pub(super) fn coordinators(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|n| self.in_office(*n)).collect()
    }

    pub(super) fn resign(&mut self, n: NodeId, to: Option<NodeId>) {
        self.at_node(n, 0, move |w| w.office(n, office::Event::Resign { to }));
    }
}

/// A registration that did not come through is simply not there.
fn unless_register(step: FenceStep, result: ScsiResult) -> ScsiResult {
    match step {
        FenceStep::Register { .. } if result != ScsiResult::Done => ScsiResult::Failed,
        _ => result,
    }
}
