//! What peers ask of this node.

use block::shared::NodeId;

use super::effect::{Effect, LostWhy};
use super::event::{Ask, AskId};
use super::role::Role;
use super::{Event, Office, ScsiResult};
use crate::core::time::Now;
use crate::proto::{CoordinatorHint, PeerAnswer};

impl Office {
    pub(super) fn on_asked(&mut self, now: Now, id: AskId, from: NodeId, ask: Ask, out: &mut Vec<Effect>) {
        let answer = match ask {
            Ask::Fence { client, fence_gen } => return self.asked_fence(id, client, fence_gen, out),
            Ask::Who => PeerAnswer::Who { hint: self.hint() },
            Ask::Alive { epoch } => self.alive(now, epoch),
            Ask::NewEpoch(hint) => self.new_epoch(hint, out),
            Ask::NoPath { epoch } => {
                let holder = self.lease().filter(|l| l.epoch == epoch).and_then(|l| l.holder);
                if holder.is_none_or(|h| h.node == from) {
                    self.no_path = self.no_path.max(Some(epoch));
                }
                PeerAnswer::Noted
            }
            Ask::TakeOffice { epoch } => {
                self.favoured = self.favoured.max(Some(epoch));
                PeerAnswer::Noted
            }
        };
        if answer == PeerAnswer::Noted {
            self.look.want();
        }
        out.push(Effect::Answer { id, answer });
    }

    fn alive(&self, now: Now, epoch: block::shared::Epoch) -> PeerAnswer {
        match &self.role {
            Role::Reigning(r) if r.proof.epoch() == epoch => {
                PeerAnswer::Alive { in_office: true, disk_stalled: r.disk_stalled(now, self.config.timing.renew) }
            }
            _ => PeerAnswer::Alive { in_office: false, disk_stalled: false },
        }
    }

    /// A higher epoch ends a reign at once, whatever the disk says.
    fn new_epoch(&mut self, hint: CoordinatorHint, out: &mut Vec<Effect>) -> PeerAnswer {
        let higher = |known: &CoordinatorHint| hint.epoch > known.epoch;
        if self.in_office().is_some_and(|proof| hint.epoch > proof.epoch()) {
            self.leave(LostWhy::HigherEpoch, out);
        }
        if self.heard_of.as_ref().is_none_or(higher) {
            self.heard_of = Some(hint);
        }
        PeerAnswer::Noted
    }

    /// What an office that is over answers: nothing of it is in flight that could hold others up, and it lets go
    /// whatever still arrives.
    pub(super) fn refuse(&mut self, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Asked { id, ask, .. } => {
                let why = || "this incarnation is over".to_owned();
                let answer = match ask {
                    Ask::Fence { .. } => PeerAnswer::NotFenced { why: why() },
                    Ask::Alive { .. } => PeerAnswer::Alive { in_office: false, disk_stalled: false },
                    Ask::Who => PeerAnswer::Who { hint: self.hint() },
                    _ => PeerAnswer::Noted,
                };
                out.push(Effect::Answer { id, answer });
            }
            Event::RequestFence { ticket, .. } => {
                out.push(Effect::FenceDone { ticket, result: Err(super::FenceFailed::NotInOffice) });
            }
            Event::LiveLock { node, acquired: true } if node != self.config.node => {
                out.push(Effect::ReleaseLiveLock { node })
            }
            Event::Scsi { result: ScsiResult::Done, .. } | Event::Tick => {}
            _ => {}
        }
    }
}
