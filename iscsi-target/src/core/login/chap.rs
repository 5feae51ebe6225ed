//! CHAP as the target asks for it (RFC 7143, 12.1.3): one-way, and mutual where the initiator wants a proof, too.
//!
//! ```text
//!   Wanted ── AuthMethod ──► Chosen ── CHAP_A ──► Asked ── CHAP_N, CHAP_R (CHAP_I, CHAP_C) ──► Proved
//! ```
//! What it refuses, always with "authentication failure", which says no more than that: no CHAP where it is asked for, no
//! algorithm in common, an unknown name, a wrong response, a challenge that is this target's own, a proof of the target
//! where none is set up.

use iscsi::chap::{Account, Algorithm, CHALLENGE_LEN};
use iscsi::text::value::{binary, list, number, to_hex};
use iscsi::text::{self, Pair};
use subtle::ConstantTimeEq;

use super::Refusal;

/// Who may log in, and how the target proves itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChapPolicy {
    /// Of initiators.
    pub(crate) accounts: Vec<Account>,
    /// The target's own.
    pub(crate) own: Option<Account>,
}

/// What a login needs of chance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entropy {
    /// CHAP_I.
    pub(crate) identifier: u8,
    /// CHAP_C.
    pub(crate) challenge: [u8; CHALLENGE_LEN],
}

/// How far authentication is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum State {
    #[default]
    Wanted,
    Chosen,
    Asked(Algorithm),
    Proved,
}

impl State {
    /// The keys of one request. True when nothing more is to be proved.
    pub(super) fn answer(
        &mut self,
        policy: Option<&ChapPolicy>,
        keys: &[Pair],
        entropy: &Entropy,
        body: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let get = |key: &str| keys.iter().find(|p| p.key == key).map(|p| p.value.as_str());
        if let Some(methods) = get("AuthMethod") {
            let wanted = if policy.is_some() { "CHAP" } else { "None" };
            if *self != State::Wanted || !list(methods).any(|m| m == wanted) {
                return Err(Refusal::AUTHENTICATION);
            }
            *self = State::Chosen;
            text::push(body, "AuthMethod", wanted);
        }
        let Some(policy) = policy else { return Ok(true) };
        match *self {
            State::Chosen => {
                if let Some(offered) = get("CHAP_A") {
                    let known = list(offered).filter_map(number).find_map(Algorithm::from_number);
                    let algorithm = known.ok_or(Refusal::AUTHENTICATION)?;
                    *self = State::Asked(algorithm);
                    text::push(body, "CHAP_A", &(algorithm as u8).to_string());
                    text::push(body, "CHAP_I", &entropy.identifier.to_string());
                    text::push(body, "CHAP_C", &to_hex(&entropy.challenge));
                }
                Ok(false)
            }
            State::Asked(algorithm) => {
                let (Some(name), Some(response)) = (get("CHAP_N"), get("CHAP_R").and_then(binary)) else {
                    return Err(Refusal::AUTHENTICATION);
                };
                if !policy.proves(name, &response, algorithm, entropy) {
                    return Err(Refusal::AUTHENTICATION);
                }
                if let (Some(identifier), Some(challenge)) = (get("CHAP_I"), get("CHAP_C")) {
                    policy.prove(algorithm, (identifier, challenge), entropy, body)?;
                }
                *self = State::Proved;
                Ok(true)
            }
            State::Proved => Ok(true),
            // It asks for nothing yet; whoever wants to leave the stage without a proof is not let go.
            State::Wanted => Ok(false),
        }
    }
}

impl ChapPolicy {
    /// Whether one of the accounts gives this response. Every account is looked at, so that time tells nothing of names.
    fn proves(&self, name: &str, response: &[u8], algorithm: Algorithm, entropy: &Entropy) -> bool {
        let mut proved = false;
        for account in &self.accounts {
            let expected = algorithm.respond(entropy.identifier, &account.secret, &entropy.challenge);
            let same: bool = expected.ct_eq(response).into();
            proved |= same && account.name == name;
        }
        proved
    }

    /// The target's own proof.
    fn prove(
        &self,
        algorithm: Algorithm,
        (identifier, challenge): (&str, &str),
        entropy: &Entropy,
        body: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let own = self.own.as_ref().ok_or(Refusal::AUTHENTICATION)?;
        let identifier = number(identifier).and_then(|n| u8::try_from(n).ok()).ok_or(Refusal::AUTHENTICATION)?;
        let challenge = binary(challenge).filter(|c| !c.is_empty()).ok_or(Refusal::AUTHENTICATION)?;
        // The answer to this target's own challenge is what the initiator owes.
        if challenge == entropy.challenge {
            return Err(Refusal::AUTHENTICATION);
        }
        text::push(body, "CHAP_N", &own.name);
        text::push(body, "CHAP_R", &to_hex(&algorithm.respond(identifier, &own.secret, &challenge)));
        Ok(())
    }
}
