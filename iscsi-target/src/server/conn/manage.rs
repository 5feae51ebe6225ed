//! Changes of reservations, task management and discovery: what a connection does besides reading and writing blocks.

use bytes::Bytes;
use iscsi::ids::Itt;
use iscsi::pdu::raw::TaskRequest;
use iscsi::text;
use scsi::{AdditionalCode, LunAddress, SenseKey};

use super::jobs::Stage;
use super::{Conn, Ended, State};
use crate::core::reserve::Changed;
use crate::core::unit::tasks::Wait;
use crate::core::unit::{Outcome, Which};
use crate::server::mailbox::Note;
use crate::store::StoreError;

/// What waits for commands to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    /// A task management request, in so many units.
    Manage(TaskRequest, usize),
    /// PREEMPT AND ABORT, the job.
    Preempt(usize),
}

/// Responses to task management (RFC 7143, 11.6.1).
const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_UNIT: u8 = 2;
const NO_REASSIGN: u8 = 4;
const NOT_SUPPORTED: u8 = 5;

impl Conn {
    /// Stores a change of reservations before it comes into force.
    pub(super) fn store(&mut self, key: usize, changed: Changed) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let Some(store) = self.shared.units[job.unit].store.clone() else { return self.reserved(key, changed) };
        let (state, mailbox) = (changed.state.clone(), std::sync::Arc::clone(&self.mailbox));
        job.stage = Stage::Storing(Some(changed));
        // Its end is told by the note.
        drop(tokio::task::spawn_blocking(move || mailbox.put(Note::Stored(key, store.save(&state)))));
    }

    pub(super) fn stored(&mut self, key: usize, result: Result<(), StoreError>) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let Stage::Storing(Some(changed)) = std::mem::replace(&mut job.stage, Stage::Waiting) else { return };
        match result {
            Ok(()) => self.reserved(key, changed),
            Err(error) => {
                // What is on the disk is not known now; the next change that is stored settles it.
                tracing::error!("{error}");
                let code = AdditionalCode::INTERNAL_TARGET_FAILURE;
                self.conclude(key, Outcome::check(SenseKey::HardwareError, code), None);
            }
        }
    }

    /// A change of reservations comes into force; it is answered when whom it preempts has nothing under way any more.
    pub(super) fn reserved(&mut self, key: usize, changed: Changed) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        self.last_wait += 1;
        let (own, wait) = ((self.nexus, job.task), Wait { nexus: self.nexus, number: self.last_wait });
        let unit = &self.shared.units[job.unit];
        if unit.with(|u, fx| u.reserved(own, changed, wait, fx)) {
            return self.conclude(key, Outcome::GOOD, None);
        }
        job.stage = Stage::Preempting;
        self.waits.insert(wait.number, Pending::Preempt(key));
        if !matches!(self.state, State::Open) {
            // Nobody is there any more to be answered.
            self.drop_jobs();
        }
    }

    /// What was waited for has ended.
    pub(super) fn over(&mut self, wait: Wait) {
        match self.waits.remove(&wait.number) {
            Some(Pending::Manage(request, left)) if left > 1 => {
                self.waits.insert(wait.number, Pending::Manage(request, left - 1));
            }
            Some(Pending::Manage(request, _)) => self.managed(&request, COMPLETE),
            Some(Pending::Preempt(key)) => self.conclude(key, Outcome::GOOD, None),
            None => {}
        }
    }

    /// A task management request (RFC 7143, 11.5). It is answered when the commands that it aborts have ended.
    pub(super) fn manage(&mut self, request: TaskRequest) {
        let lun = LunAddress::from_bytes(request.lun).number();
        let unit = lun.and_then(|n| self.shared.unit(n)).map(|(index, _)| index);
        let (which, units) = match (request.flags & 0x7f, unit) {
            (1, _) => match self.by_itt.get(&Itt(request.ref_task.get())).and_then(|key| self.jobs.get(*key)) {
                Some(job) => (Which::One(job.task), vec![job.unit]),
                None => return self.managed(&request, NO_TASK),
            },
            (2 | 4 | 5, None) => return self.managed(&request, NO_UNIT),
            (2, Some(unit)) => (Which::Own, vec![unit]),
            (4, Some(unit)) => (Which::Cleared, vec![unit]),
            (5, Some(unit)) => (Which::Reset, vec![unit]),
            (6 | 7, _) => (Which::Reset, (0..self.shared.units.len()).collect()),
            (8, _) => return self.managed(&request, NO_REASSIGN),
            _ => return self.managed(&request, NOT_SUPPORTED),
        };
        self.last_wait += 1;
        let (nexus, wait) = (self.nexus, Wait { nexus: self.nexus, number: self.last_wait });
        let busy = |index: &&usize| !self.shared.units[**index].with(|u, fx| u.abort(nexus, which, wait, fx));
        match units.iter().filter(busy).count() {
            0 => self.managed(&request, COMPLETE),
            left => {
                self.waits.insert(wait.number, Pending::Manage(request, left));
            }
        }
    }

    fn managed(&mut self, request: &TaskRequest, response: u8) {
        self.session.managed(request, response, &mut self.fx);
        if request.flags & 0x7f == 7 && response == COMPLETE {
            // TARGET COLD RESET: as after power on, nobody is logged in.
            self.shared.sessions.tell(Some(self.nexus), || Note::End("the target was reset"));
            self.mailbox.put(Note::End("the target was reset"));
            self.why.get_or_insert(Ended::Told("it has reset the target"));
        }
    }

    /// SendTargets (RFC 7143, appendix C). A target that an initiator may not use is not told.
    pub(super) fn send_targets(&mut self, itt: Itt, value: &str) {
        let policy = &self.shared.policy;
        let mut answer = Vec::new();
        let discovery = self.session.is_discovery();
        let told = match value {
            "All" if !discovery => {
                text::push(&mut answer, "SendTargets", "Reject");
                false
            }
            "All" => true,
            "" => !discovery,
            name => name == policy.target,
        };
        if told && policy.admits(&self.initiator) {
            text::push(&mut answer, "TargetName", &policy.target);
            for portal in &self.shared.portals {
                let mut address = portal.address;
                if address.ip().is_unspecified() {
                    // It listens at all addresses of the host; this is the one by which the initiator has found it.
                    address.set_ip(self.local.ip());
                }
                text::push(&mut answer, "TargetAddress", &format!("{address},{}", portal.group));
            }
        }
        self.session.text_answer(itt, Bytes::from(answer), &mut self.fx);
    }
}
