//! Lets the nexuses of one way in: each that comes up, and each that is to be judged anew.
//!
//! A nexus that has just logged in is registered whatever it had been before. One that stands already and is to enter anew changes
//! the key that it has; if that is gone, or data may be under way on it, it is given up instead: the next login ends what is on it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use block::shared::{Entrance, HELD_TYPE, Incarnation, NexusKey, NexusNumber, ReserveError};

use super::Core;
use super::way::Way;
use crate::driver::SessionState;

/// Before an entrance that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until the unit is left, or its session is over.
pub(super) async fn keep_letting_in(core: Weak<Core>, way: Arc<Way>) {
    let mut state = way.session().state();
    let mut said = None;
    loop {
        let nexus = match &*state.borrow_and_update() {
            SessionState::Up { nexus, .. } => Some(*nexus),
            SessionState::Down(_) => None,
            SessionState::Ended(_) => return,
        };
        let Some(core) = core.upgrade().filter(|core| !core.is_left()) else { return };
        match nexus {
            None => way.door.lock().leaves(),
            Some(nexus) if way.door.lock().is_to_enter(nexus) => {
                let entering = core.entering.read().await;
                if core.is_left() {
                    return;
                }
                if let Err(e) = enter(&core, &way, nexus).await {
                    let why = e.to_string();
                    if said.as_ref() != Some(&why) {
                        tracing::warn!("{} is not let in: {why}", way.path.device().session().place());
                        said = Some(why);
                    }
                    drop(entering);
                    drop(core);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                said = None;
                continue;
            }
            Some(_) => {}
        }
        drop(core);
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = way.knock.notified() => {}
        }
    }
}

async fn enter(core: &Arc<Core>, way: &Way, nexus: u64) -> Result<(), ReserveError> {
    let (known, carries) = {
        let door = way.door.lock();
        (door.knows(nexus), door.carries())
    };
    if carries {
        // The multipath device is told by the loss of the session.
        way.door.lock().leaves();
        way.closed.notify_one();
    }
    let number = core.next_number();
    let key = NexusKey::new(core.volume, core.node, Incarnation(0), number).key();
    let entered = match (known, carries) {
        (_, true) => Err(ReserveError::NotRegistered),
        (true, false) => way.path.change_key(key, HELD_TYPE).await,
        (false, false) => way.path.enter(key, HELD_TYPE).await,
    };
    if entered.is_err() && known {
        way.session().unregistered(nexus);
        // The loss of the session is heard; there is nothing to say to people.
        return until_gone(way, nexus).await;
    }
    entered?;
    if way.session().nexus() == Some(nexus) {
        let instead_of = way.door.lock().enters(nexus, number);
        core.announce(Entrance { number, instead_of });
    }
    Ok(())
}

/// The nexus is being given up; a session does that at once.
async fn until_gone(way: &Way, nexus: u64) -> Result<(), ReserveError> {
    let mut state = way.session().state();
    let gone = |state: &SessionState| !matches!(state, SessionState::Up { nexus: n, .. } if *n == nexus);
    let waited = tokio::time::timeout(RETRY * 4, state.wait_for(gone)).await;
    match waited {
        Ok(_) => Ok(()),
        Err(_) => Err(ReserveError::Unknown("a nexus that is to be given up still stands".to_owned())),
    }
}

/// The number behind this one.
pub(super) fn next(number: NexusNumber) -> NexusNumber {
    NexusNumber(number.0.checked_add(1).unwrap_or(1))
}
