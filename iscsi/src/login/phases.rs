//! The phases: each takes itself and a response, and gives the next.

use super::common::{Common, Heard, Out};
use super::{Kind, LoginError};
use crate::chap::{Challenge, Proof};
use crate::text::Pair;
use crate::text::value::{binary, number, to_hex};

/// Stage numbers on the wire.
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// What is negotiated in the operational stage, in this order.
const OPERATIONAL_KEYS: [&str; 14] = [
    "HeaderDigest",
    "DataDigest",
    "MaxRecvDataSegmentLength",
    "InitialR2T",
    "ImmediateData",
    "MaxBurstLength",
    "FirstBurstLength",
    "MaxOutstandingR2T",
    "MaxConnections",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "ErrorRecoveryLevel",
];

/// Where a response leads.
#[derive(Debug)]
pub(super) enum Next {
    Send(Phase, Out),
    Done,
}

/// Names were sent with the method that is wanted.
#[derive(Debug)]
pub(super) struct Security;

/// Algorithms were offered.
#[derive(Debug)]
pub(super) struct ChapOffered;

/// The challenge was answered; `proof` is what the target owes.
#[derive(Debug)]
pub(super) struct ChapAnswered {
    proof: Option<Proof>,
}

/// Keys of the session were offered.
#[derive(Debug)]
pub(super) struct Operational;

/// The phase of a login.
#[derive(Debug)]
pub(super) enum Phase {
    Security(Security),
    ChapOffered(ChapOffered),
    ChapAnswered(ChapAnswered),
    Operational(Operational),
}

fn pair(key: &str, value: impl Into<String>) -> Pair {
    Pair { key: key.to_owned(), value: value.into() }
}

fn security(transit: bool, pairs: Vec<Pair>) -> Out {
    Out { csg: SECURITY, nsg: OPERATIONAL, transit, pairs }
}

/// Names: the first thing that a connection says.
fn names(common: &Common) -> Vec<Pair> {
    let mut pairs = vec![pair("InitiatorName", common.config.initiator.clone())];
    match &common.config.kind {
        Kind::Discovery => pairs.push(pair("SessionType", "Discovery")),
        Kind::Normal { target } => {
            pairs.push(pair("SessionType", "Normal"));
            pairs.push(pair("TargetName", target.clone()));
        }
    }
    pairs
}

impl Phase {
    /// The first request.
    pub(super) fn first(common: &mut Common) -> (Phase, Out) {
        let mut pairs = names(common);
        if !common.config.passes_security() {
            let (phase, mut out) = Operational::begin(common, Vec::new());
            out.pairs.splice(0..0, pairs);
            return (phase, out);
        }
        // CHAP is never offered beside None: a target, or whoever sits between, would choose.
        let method = if common.config.chap.is_some() { "CHAP" } else { "None" };
        pairs.push(pair("AuthMethod", method));
        (Phase::Security(Security), security(common.config.chap.is_none(), pairs))
    }

    /// An empty request for the rest of a text that goes on.
    pub(super) fn wait_for_more(&self) -> Out {
        let (csg, nsg) = self.stages();
        Out { csg, nsg, transit: false, pairs: Vec::new() }
    }

    /// The stage it is in and the one it wants.
    pub(super) fn stages(&self) -> (u8, u8) {
        match self {
            Phase::Operational(_) => (OPERATIONAL, FULL_FEATURE),
            _ => (SECURITY, OPERATIONAL),
        }
    }

    pub(super) fn is_security(&self) -> bool {
        !matches!(self, Phase::Operational(_))
    }

    pub(super) fn answer(self, common: &mut Common, heard: Heard, transit: bool) -> Result<Next, LoginError> {
        match self {
            Phase::Security(phase) => phase.answer(common, heard, transit),
            Phase::ChapOffered(phase) => phase.answer(common, heard, transit),
            Phase::ChapAnswered(phase) => phase.answer(common, heard, transit),
            Phase::Operational(phase) => phase.answer(heard, transit),
        }
    }
}

impl Security {
    fn answer(self, common: &mut Common, heard: Heard, transit: bool) -> Result<Next, LoginError> {
        let asked = if common.config.chap.is_some() { "CHAP" } else { "None" };
        match heard.auth("AuthMethod") {
            Some(answer) if answer == asked => {}
            // Without authentication a target need not mention it.
            None if asked == "None" => {}
            answer => {
                return Err(LoginError::Method {
                    asked,
                    answer: answer.unwrap_or("nothing").chars().take(40).collect(),
                });
            }
        }
        let Some(chap) = &common.config.chap else {
            return Ok(to_operational(Phase::Security(self), common, heard, transit));
        };
        if transit {
            return Err(LoginError::Method { asked, answer: "with the end of authentication".to_owned() });
        }
        let mut pairs = heard.answers;
        pairs.push(pair("CHAP_A", chap.offer()));
        Ok(Next::Send(Phase::ChapOffered(ChapOffered), security(false, pairs)))
    }
}

impl ChapOffered {
    fn answer(self, common: &mut Common, heard: Heard, transit: bool) -> Result<Next, LoginError> {
        let Some(chap) = &common.config.chap else { return Err(LoginError::Missing("AuthMethod")) };
        if transit {
            return Err(LoginError::Protocol("authentication that ends before it was done"));
        }
        let need = |key: &'static str| heard.auth(key).ok_or(LoginError::Missing(key));
        let algorithm = number(need("CHAP_A")?).ok_or(LoginError::Missing("CHAP_A"))?;
        let identifier = number(need("CHAP_I")?).and_then(|n| u8::try_from(n).ok());
        let identifier = identifier.ok_or(LoginError::Missing("CHAP_I"))?;
        let challenge = binary(need("CHAP_C")?).ok_or(LoginError::Missing("CHAP_C"))?;
        let asked = Challenge { algorithm, identifier, challenge: &challenge };
        let (answer, proof) = chap.answer(asked, &common.entropy)?;
        let mut pairs = heard.answers;
        pairs.push(pair("CHAP_N", answer.name));
        pairs.push(pair("CHAP_R", to_hex(&answer.response)));
        if let Some((identifier, challenge)) = answer.challenge {
            pairs.push(pair("CHAP_I", identifier.to_string()));
            pairs.push(pair("CHAP_C", to_hex(&challenge)));
        }
        Ok(Next::Send(Phase::ChapAnswered(ChapAnswered { proof }), security(true, pairs)))
    }
}

impl ChapAnswered {
    fn answer(mut self, common: &mut Common, heard: Heard, transit: bool) -> Result<Next, LoginError> {
        if let (Some(proof), Some(response)) = (&self.proof, heard.auth("CHAP_R")) {
            let response = binary(response).ok_or(LoginError::Missing("CHAP_R"))?;
            proof.check(heard.auth("CHAP_N").unwrap_or_default(), &response)?;
            self.proof = None;
        }
        // The login must not go on, whatever the target says, before it has proved itself.
        if transit && self.proof.is_some() {
            return Err(crate::chap::ChapError::TargetUnproved.into());
        }
        Ok(to_operational(Phase::ChapAnswered(self), common, heard, transit))
    }
}

/// Leaves the security stage if the target does; else answers and asks again.
fn to_operational(phase: Phase, common: &mut Common, heard: Heard, transit: bool) -> Next {
    if !transit {
        return Next::Send(phase, security(true, heard.answers));
    }
    let (phase, out) = Operational::begin(common, heard.answers);
    Next::Send(phase, out)
}

impl Operational {
    fn begin(common: &mut Common, mut pairs: Vec<Pair>) -> (Phase, Out) {
        pairs.extend(common.negotiation.offer(&OPERATIONAL_KEYS, &common.config.offer));
        let out = Out { csg: OPERATIONAL, nsg: FULL_FEATURE, transit: true, pairs };
        (Phase::Operational(Operational), out)
    }

    fn answer(self, heard: Heard, transit: bool) -> Result<Next, LoginError> {
        if transit {
            // Whoever ends the login may not ask in the same breath: the answer could not be sent any more.
            return if heard.answers.is_empty() {
                Ok(Next::Done)
            } else {
                Err(LoginError::Protocol("the login ends with a question"))
            };
        }
        let out = Out { csg: OPERATIONAL, nsg: FULL_FEATURE, transit: true, pairs: heard.answers };
        Ok(Next::Send(Phase::Operational(self), out))
    }
}
