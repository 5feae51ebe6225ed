//! Paths failing, being proved dead, being checked, coming back.

use super::config::Now;
use super::core::{Core, State};
use super::event::{Access, Effect, Found, PathId, PathState, Reason};
use super::path::Path;
use super::rules::Rule;
use scsi::alua::AccessState;

impl Core {
    /// A path is not used any more. Reads go elsewhere at once; changes when they are dead.
    pub(super) fn fail(&mut self, now: Now, id: PathId, reason: Reason, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        let was_up = path.is_up();
        if was_up {
            path.state = PathState::Failed(reason);
        }
        (path.good, path.changing) = (0, None);
        path.outdated = path.checking;
        if was_up && !path.checking {
            path.next_check(now, id, &self.config);
        }
        self.take_back(id, fx);
        self.prove(id, fx);
        if was_up && let Some(path) = self.paths.get(usize::from(id.0)) {
            fx.push(Effect::Changed(id, path.state.clone()));
        }
    }

    /// What may go elsewhere at once leaves the path.
    fn take_back(&mut self, id: PathId, fx: &mut Vec<Effect>) {
        for io in self.ids() {
            let Some(Some(request)) = self.requests.get(io.0 as usize) else { continue };
            let State::Out { path, .. } = request.state else { continue };
            let rules = self.config.rules;
            let goes =
                if self.is_free(io) { rules.has(Rule::ReadsGoAround) } else { !rules.has(Rule::DeadBeforeReissue) };
            if path == id && goes {
                self.abandon(io);
                self.again(io, fx);
            }
        }
    }

    /// Asks for the proof that a path is dead, if something on it may land and nobody has asked.
    fn prove(&mut self, id: PathId, fx: &mut Vec<Effect>) {
        if !self.may_land(id) {
            return;
        }
        let through = self.sent_so_far();
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        if let PathState::Failed(reason) = &path.state {
            path.state = PathState::Proving(reason.clone());
        }
        if path.proving.is_none() && path.prove_at.is_none() {
            path.proving = Some(through);
            fx.push(Effect::Prove(id));
        }
    }

    pub(super) fn proved(&mut self, now: Now, id: PathId, dead: bool, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        let Some(through) = path.proving.take() else { return };
        if !dead {
            path.prove_at = Some(now + self.config.check_failed);
            return;
        }
        for io in self.ids() {
            let Some(Some(request)) = self.requests.get_mut(io.0 as usize) else { continue };
            match &mut request.state {
                State::Doubt { path, attempt } if *path == id && *attempt <= through => {
                    self.again(io, fx);
                }
                State::Out { path, attempt, dead, .. } if *path == id && *attempt <= through => {
                    // The path still has its memory and gives it back.
                    *dead = true;
                }
                _ => {}
            }
        }
        self.prove(id, fx);
        let may_land = self.may_land(id);
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        if let PathState::Proving(reason) = &path.state
            && !may_land
        {
            path.state = PathState::Failed(reason.clone());
            path.check_at = now;
            fx.push(Effect::Changed(id, path.state.clone()));
            self.look(now, fx);
        }
    }

    pub(super) fn checked(&mut self, now: Now, id: PathId, result: Result<Found, Reason>, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        path.checking = false;
        if std::mem::take(&mut path.outdated) {
            path.check_at = now;
            return self.look(now, fx);
        }
        let found = match result {
            Ok(found) if found.same_disk || !self.config.rules.has(Rule::SameDiskOnly) => found,
            Ok(_) => return self.check_failed(now, id, Reason::OtherDisk, fx),
            Err(reason) => return self.check_failed(now, id, reason, fx),
        };
        if path.is_up() && path.standing != found.standing {
            // What it carries is of the standing before.
            return self.fail(now, id, Reason::Lost("its nexus was let in anew".to_owned()), fx);
        }
        path.good = path.good.saturating_add(1);
        (path.access, path.standing) = (found.access, found.standing);
        if found.access.state != AccessState::Transitioning {
            path.changing = None;
        } else {
            path.changing.get_or_insert(now);
        }
        let ready = matches!(path.state, PathState::Failed(_)) && path.good >= path.checks_needed(&self.config);
        if ready {
            path.state = PathState::Up;
            fx.push(Effect::Changed(id, PathState::Up));
        }
        path.next_check(now, id, &self.config);
    }

    fn check_failed(&mut self, now: Now, id: PathId, reason: Reason, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        path.good = 0;
        if path.is_up() {
            return self.fail(now, id, reason, fx);
        }
        if let PathState::Failed(old) | PathState::Proving(old) = &mut path.state
            && *old != reason
            && *old != Reason::Fenced
        {
            *old = reason;
            fx.push(Effect::Changed(id, path.state.clone()));
        }
        path.next_check(now, id, &self.config);
    }

    /// The disk is not reached through this port now: nothing goes there before a check has said how it is.
    pub(super) fn not_accessible(&mut self, now: Now, id: PathId, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        path.access = Access { state: AccessState::Transitioning, ..path.access };
        path.changing.get_or_insert(now);
        path.check_at = now;
        self.look(now, fx);
    }

    /// There is a reason to look at it before its time.
    pub(super) fn look_at(&mut self, now: Now, id: PathId, fx: &mut Vec<Effect>) {
        let Some(path) = self.paths.get_mut(usize::from(id.0)) else { return };
        path.check_at = now;
        // What a check finds that is under way is of before.
        path.outdated |= path.checking;
        self.look(now, fx);
    }

    /// Does what is due on each path: silence, proofs, checks.
    pub(super) fn look(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for id in self.path_ids() {
            let Some(path) = self.paths.get_mut(usize::from(id.0)) else { continue };
            let limit = self.config.path_timeout;
            let silent = path.sent.front().is_some_and(|(_, _, at)| now.since(*at) >= limit);
            if silent && path.is_up() && self.config.rules.has(Rule::SilenceFails) {
                self.fail(now, id, Reason::Silent, fx);
            }
            let Some(path) = self.paths.get_mut(usize::from(id.0)) else { continue };
            if path.prove_at.is_some_and(|at| at <= now) {
                path.prove_at = None;
                self.prove(id, fx);
            }
            let Some(path) = self.paths.get_mut(usize::from(id.0)) else { continue };
            // One that is being proved dead is checked afterwards: a check would say nothing about that.
            if path.check_at <= now && !path.checking && !matches!(path.state, PathState::Proving(_)) {
                path.checking = true;
                fx.push(Effect::Check(id));
            }
        }
    }

    /// When something is due on a path.
    pub(super) fn path_due(&self, path: &Path) -> Option<Now> {
        let proving = matches!(path.state, PathState::Proving(_));
        let check = (!path.checking && !proving).then_some(path.check_at);
        let fails = path.is_up() && self.config.rules.has(Rule::SilenceFails);
        let silence = path.sent.front().filter(|_| fails).map(|(_, _, at)| *at + self.config.path_timeout);
        [check, silence, path.prove_at].into_iter().flatten().min()
    }
}
