//! Which targets a portal has. A portal may tell of itself only: whoever wants every path asks every portal.

use block::worker::Handle;
use iscsi::chap::Chap;
use iscsi::discovery::{AddressError, Found, Portal, targets};
use iscsi::ids::Isid;
use iscsi::login::{Kind, LoginConfig};
use iscsi::session::{Cause, Config};

use crate::driver::{Ownership, Session};

/// Why a portal's targets are not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The session.
    #[error("{portal}: {cause}")]
    Session {
        /// Which portal.
        portal: Portal,
        /// Why.
        cause: Cause,
    },
    /// The answer.
    #[error(transparent)]
    Answer(#[from] AddressError),
}

/// Asks a portal for its targets, in a session of its own.
///
/// # Cancel safety
/// A dropped future leaves the session to end with its worker.
pub async fn discover(
    workers: &Handle,
    initiator: &str,
    portal: &Portal,
    chap: Option<Chap>,
) -> Result<Vec<Found>, DiscoveryError> {
    let failed = |cause| DiscoveryError::Session { portal: portal.clone(), cause };
    let mut login = LoginConfig::new(initiator, Isid::from_number(std::process::id(), u16::MAX), Kind::Discovery);
    login.chap = chap;
    let session = Session::start(workers, 0, Config::new(login, portal.clone()), Ownership::Alone);
    let answer = match first_word(&session).await {
        Ok(()) => session.text(b"SendTargets=All\0".to_vec()).await,
        Err(cause) => Err(cause),
    };
    session.close().await;
    Ok(targets(&answer.map_err(failed)?)?)
}

/// Waits for the nexus, or for the first failure: somebody waits for the answer, so that it is not tried again and again.
pub(crate) async fn first_word(session: &Session) -> Result<(), Cause> {
    use crate::driver::SessionState;
    let mut state = session.state();
    loop {
        match &*state.borrow_and_update() {
            SessionState::Up { .. } => return Ok(()),
            SessionState::Ended(cause) | SessionState::Down(Some(cause)) => return Err(cause.clone()),
            SessionState::Down(None) => {}
        }
        if state.changed().await.is_err() {
            return Err(Cause::ClosedHere);
        }
    }
}
