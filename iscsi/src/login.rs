//! The initiator's login (RFC 7143, clause 6) as phases that consume one another. Pure: requests out, responses in.
//!
//! ```text
//!                    None                                    T answered
//! Security ─────────────────────────────► Operational ───────────────────► established
//!    │ CHAP                                   ▲
//!    ▼                                        │ T answered, target proved where asked for
//! ChapOffered ── A, I, C ──► ChapAnswered ────┘        any ── status class 1 ──► redirected
//! ```
//! It always begins in the security stage, also without authentication: some targets look for an older session of the
//! same name only if a login passes it, and then the older one's tasks would live on. A target that has more to say
//! answers the transit bit with 0; the login answers and asks for the transit again, up to [`MAX_ROUNDS`].
//!
//! What it refuses: a weaker method than was asked for, an answer to nothing, a stage that was not asked for, a
//! StatSN out of sequence, a redirect after the security stage, a foreign portal group.

mod common;
mod error;
mod phases;

#[cfg(test)]
mod tests;

use common::Common;
pub use error::{Advice, LoginError};
use phases::{Next, Phase};

use crate::chap::{Chap, Entropy};
use crate::discovery::Portal;
use crate::ids::{CmdSn, Isid, Itt, PortalGroup, StatSn, Tsih};
use crate::keys::params::{Offer, Params};
use crate::pdu::raw::{self, LoginRequest, LoginResponse};

/// Requests of one login. The longest honest one (mutual CHAP, both ends' keys, a long text in pieces) takes twelve.
pub const MAX_ROUNDS: u32 = 32;

/// What a session is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To ask for targets.
    Discovery,
    /// To use one target.
    Normal {
        /// Its name.
        target: String,
    },
}

/// What a login needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginConfig {
    /// This host's name.
    pub initiator: String,
    /// This session's name on this host.
    pub isid: Isid,
    /// What for.
    pub kind: Kind,
    /// How to authenticate; none: `AuthMethod=None`. CHAP is never offered together with None.
    pub chap: Option<Chap>,
    /// What to offer.
    pub offer: Offer,
    /// The portal group that discovery told of, if any.
    pub group: Option<PortalGroup>,
    /// Whether the login passes the security stage. Only the simulation says no, to show what that costs.
    #[cfg(any(test, feature = "simulation"))]
    pub skip_security: bool,
}

impl LoginConfig {
    /// A login for a session of this kind, with default keys.
    pub fn new(initiator: impl Into<String>, isid: Isid, kind: Kind) -> LoginConfig {
        LoginConfig {
            initiator: initiator.into(),
            isid,
            kind,
            chap: None,
            offer: Offer::default(),
            group: None,
            #[cfg(any(test, feature = "simulation"))]
            skip_security: false,
        }
    }

    fn passes_security(&self) -> bool {
        #[cfg(any(test, feature = "simulation"))]
        return !self.skip_security;
        #[cfg(not(any(test, feature = "simulation")))]
        true
    }
}

/// A request to be sent: header (with its length set) and text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The header.
    pub bhs: LoginRequest,
    /// The data segment.
    pub text: Vec<u8>,
}

/// What a login came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Established {
    /// The target's part of the session's name.
    pub tsih: Tsih,
    /// The target port: with the ISID, the nexus. None where the target did not say.
    pub group: Option<PortalGroup>,
    /// What was agreed.
    pub params: Params,
    /// The next status expected.
    pub exp_stat_sn: StatSn,
    /// The next command.
    pub exp_cmd_sn: CmdSn,
    /// The last command that may be sent.
    pub max_cmd_sn: CmdSn,
    /// What the target calls itself.
    pub alias: Option<String>,
}

/// What a response leads to.
#[derive(Debug)]
pub enum Step {
    /// Send this, then wait for the next response.
    Send(Box<Login>, Request),
    /// The full feature phase.
    Done(Box<Established>),
    /// The target is elsewhere.
    Redirected {
        /// There.
        portal: Portal,
        /// For ever, or for now.
        permanent: bool,
    },
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    common: Common,
    phase: Phase,
}

impl Login {
    /// Begins. `cmd_sn` is the session's first command number.
    pub fn begin(config: LoginConfig, tag: Itt, cmd_sn: CmdSn, entropy: Entropy) -> (Login, Request) {
        let mut common = Common::new(config, tag, cmd_sn, entropy);
        let (phase, out) = Phase::first(&mut common);
        let request = common.request(&out);
        (Login { common, phase }, request)
    }

    /// The next response, with its text.
    pub fn answer(mut self, response: &LoginResponse, text: &[u8]) -> Result<Step, LoginError> {
        self.common.take_header(response)?;
        if response.status_class != 0 {
            return self.refused(response, text);
        }
        let goes_on = response.flags & raw::CONTINUE != 0;
        let transit = self.transit(response)?;
        if goes_on && transit {
            return Err(LoginError::Protocol("a response with both the continue and the transit bit"));
        }
        if self.common.rounds >= MAX_ROUNDS {
            return Err(LoginError::Endless);
        }
        let Some(pairs) = self.common.assembler.take(text, goes_on)? else {
            let request = self.common.request(&self.phase.wait_for_more());
            return Ok(Step::Send(Box::new(self), request));
        };
        let heard = self.common.sort(pairs)?;
        match self.phase.answer(&mut self.common, heard, transit)? {
            Next::Send(phase, out) => {
                let request = self.common.request(&out);
                Ok(Step::Send(Box::new(Login { common: self.common, phase }), request))
            }
            Next::Done => self.common.established(response).map(|e| Step::Done(Box::new(e))),
        }
    }

    /// Whether the response makes the transit that was asked for.
    fn transit(&self, response: &LoginResponse) -> Result<bool, LoginError> {
        let (csg, nsg) = (response.flags >> 2 & 3, response.flags & 3);
        let (asked_csg, asked_nsg) = self.phase.stages();
        if csg != asked_csg {
            return Err(LoginError::Stage { asked: asked_csg, got: csg });
        }
        let transit = response.flags & raw::TRANSIT != 0;
        if transit && !self.common.asked_transit {
            return Err(LoginError::Protocol("a transit that was not asked for"));
        }
        if transit && nsg != asked_nsg {
            return Err(LoginError::Stage { asked: asked_nsg, got: nsg });
        }
        Ok(transit)
    }

    fn refused(mut self, response: &LoginResponse, text: &[u8]) -> Result<Step, LoginError> {
        if response.status_class != 1 {
            return Err(LoginError::Refused { class: response.status_class, detail: response.status_detail });
        }
        if !self.phase.is_security() {
            return Err(LoginError::Protocol("a redirect after the security stage"));
        }
        let pairs = self.common.assembler.take(text, false)?.unwrap_or_default();
        let address = pairs.iter().find(|p| p.key == "TargetAddress").ok_or(LoginError::NoAddress)?;
        let (portal, _) = Portal::parse_with_group(&address.value)?;
        Ok(Step::Redirected { portal, permanent: response.status_detail == 2 })
    }
}
