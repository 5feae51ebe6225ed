//! Why a login failed, and whether it is worth another try (RFC 7143, 11.13.5).

use crate::chap::ChapError;
use crate::discovery::AddressError;
use crate::ids::PortalGroup;
use crate::keys::negotiate::NegotiationError;
use crate::text::TextError;

/// Why a login failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The target's status says no.
    #[error("the target refused the login: {} ({class}/{detail:x})", sentence(*class, *detail))]
    Refused {
        /// Status class.
        class: u8,
        /// Status detail.
        detail: u8,
    },
    /// CHAP failed here.
    #[error(transparent)]
    Chap(#[from] ChapError),
    /// The target wants a method that is not configured, or a weaker one than is.
    #[error("{asked} was offered as authentication and the target answers {answer}: {}", if *asked == "None" { "it wants a CHAP name and secret" } else { "refused, it would be weaker" })]
    Method {
        /// What was offered.
        asked: &'static str,
        /// The answer.
        answer: String,
    },
    /// A key that authentication needs did not come.
    #[error("the target's answer has no {0}, or no possible one")]
    Missing(&'static str),
    /// A key's value is impossible.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// A digest or recovery level that this end insists on, or cannot do, was agreed otherwise.
    #[error("{0} was agreed in a way that cannot be used here")]
    Unusable(&'static str),
    /// The text cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Another stage than the one that was asked for.
    #[error("the target is in login stage {got}, not {asked}")]
    Stage {
        /// Asked for.
        asked: u8,
        /// Answered.
        got: u8,
    },
    /// A response out of sequence or for another request.
    #[error("the target breaks the login protocol: {0}")]
    Protocol(&'static str),
    /// A redirect to nowhere.
    #[error("the target redirects and does not say where")]
    NoAddress,
    /// A redirect to what is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The login does not come to an end.
    #[error("the login takes more than {} requests", super::MAX_ROUNDS)]
    Endless,
    /// Another portal group than discovery told of.
    #[error("the portal belongs to {got}, not to {expected} as discovery told")]
    Group {
        /// Told.
        expected: PortalGroup,
        /// Found.
        got: PortalGroup,
    },
}

/// What to do about a failed login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Again, after a pause: the target is busy or the network hurt it.
    Retry,
    /// Once more, not oftener.
    RetryOnce,
    /// Another try changes nothing: a person has to.
    GiveUp,
}

impl LoginError {
    /// Whether another try makes sense.
    pub fn advice(&self) -> Advice {
        match self {
            LoginError::Refused { class: 3, .. } | LoginError::Refused { class: 2, detail: 6 | 0xa } => Advice::Retry,
            LoginError::Refused { class: 2, detail: 0 } => Advice::RetryOnce,
            LoginError::Protocol(_) | LoginError::Stage { .. } | LoginError::Text(_) | LoginError::Endless => {
                Advice::RetryOnce
            }
            _ => Advice::GiveUp,
        }
    }
}

fn sentence(class: u8, detail: u8) -> &'static str {
    match (class, detail) {
        (2, 0) => "it says the initiator made a mistake",
        (2, 1) => "authentication failed; see whether name, secret and CHAP algorithms are the target's",
        (2, 2) => "this initiator may not use the target; add its name to the target's access list",
        (2, 3) => "there is no such target at this portal",
        (2, 4) => "the target was removed",
        (2, 5) => "it does not speak this version of the protocol",
        (2, 6) => "it has too many connections",
        (2, 7) => "a parameter is missing",
        (2, 8) => "the connection cannot be part of that session",
        (2, 9) => "it has no sessions of this type",
        (2, 0xa) => "the session does not exist",
        (2, 0xb) => "the request was not possible during a login",
        (3, 1) => "the service is not available now",
        (3, 2) => "it has no resources left",
        (3, _) => "it has an error of its own",
        _ => "with an unknown status",
    }
}
