//! The proof on a SCSI disk: every key of the victim preempted and aborted, and the reservation still held.
//!
//! ```text
//! READ KEYS ─ one of the victim's ─► PREEMPT AND ABORT ─► READ KEYS ...
//!     └ none ─► READ RESERVATION ─ right type ─► proof;  else RESERVE ─► READ RESERVATION
//! ```
//! A RESERVATION CONFLICT proves nothing: what READ KEYS shows does. A step that failed is tried again from the start.

use std::time::Duration;

use block::shared::FenceGen;

use super::super::effect::{Effect, FenceStep};
use super::super::event::{ScsiResult, Tag};
use super::super::view::Key;
use super::super::{DiskKind, Office};
use super::{Phase, Run};
use crate::core::time::Now;

/// The pause after a step that failed.
const RETRY: Duration = Duration::from_millis(50);

impl Office {
    pub(super) fn scsi(&mut self, run: &mut Run, step: FenceStep, out: &mut Vec<Effect>) {
        let tag = self.ids.tag();
        run.phase = Phase::Scsi { tag, step };
        out.push(Effect::Scsi { tag, step });
    }

    /// The answer to a SCSI step of a fence.
    pub(in crate::core::office) fn on_scsi(&mut self, now: Now, tag: Tag, result: ScsiResult, out: &mut Vec<Effect>) {
        if let Some(nexus) = self.registers(tag) {
            return self.nexus_registered(nexus, result == ScsiResult::Done, out);
        }
        let owns = |r: &Run| matches!(r.phase, Phase::Scsi { tag: t, .. } if t == tag);
        self.with_run(owns, |office, run| office.scsi_step(now, run, result, out));
    }

    fn scsi_step(&mut self, now: Now, run: &mut Run, result: ScsiResult, out: &mut Vec<Effect>) {
        let (DiskKind::Scsi { volume_tag }, Phase::Scsi { step, .. }) = (self.config.kind, &run.phase) else { return };
        let (step, victim) = (*step, run.victim);
        if !self.may_step(run) {
            run.phase = Phase::ScsiPause { until: now };
            return;
        }
        let mine = |k: &&Key| k.belongs_to(volume_tag, victim);
        match (step, result) {
            (FenceStep::ReadKeys, ScsiResult::Keys(keys)) => match keys.iter().find(mine) {
                Some(key) => self.scsi(run, FenceStep::PreemptAndAbort { victim: *key }, out),
                None => self.scsi(run, FenceStep::ReadReservation, out),
            },
            (FenceStep::ReadReservation, ScsiResult::Reservation { right_type: true }) => {
                let fence_gen = run.raised.map(|s| s.fence_gen).unwrap_or(FenceGen(0));
                run.over(run.how, fence_gen);
            }
            (FenceStep::ReadReservation, ScsiResult::Reservation { right_type: false }) => {
                self.scsi(run, FenceStep::Reserve, out)
            }
            (FenceStep::Reserve, ScsiResult::Done) => self.scsi(run, FenceStep::ReadReservation, out),
            // A conflict, like a success, is settled by what READ KEYS shows.
            (FenceStep::PreemptAndAbort { .. }, ScsiResult::Done | ScsiResult::Conflict) => {
                self.scsi(run, FenceStep::ReadKeys, out)
            }
            _ => run.phase = Phase::ScsiPause { until: now + RETRY },
        }
    }
}
