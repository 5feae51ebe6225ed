//! A login from the target's side (RFC 7143, clause 6).
//!
//! ```text
//!             AuthMethod=None, or CHAP proved, T                     T
//!   Security ──────────────────────────────────► Operational ─────────────► Entering ─ the shell finds a place ─► accept
//!       └────────────────────────── T to the full feature phase ────────────────┘                       └─► refuse
//! ```
//! Each step consumes the login and gives the next. Every refusal is a response with the status that says why (11.13.5);
//! the connection ends behind it. An initiator is admitted by its name first, and proves itself second.
//!
//! What it refuses: another target's name; an initiator that is not on the list; a login without CHAP where accounts are
//! set up, whatever stage it begins in; a key twice, in the wrong place or with an impossible value; more than
//! [`MAX_ROUNDS`] requests.

mod chap;
#[cfg(test)]
mod tests;

use iscsi::discovery::Portal;
use iscsi::framer::End;
use iscsi::ids::{CmdSn, StatSn};
use iscsi::keys::negotiate::Negotiation;
use iscsi::keys::params::{Offer, Params};
use iscsi::pdu::raw::{CONTINUE, LoginRequest, LoginResponse, TRANSIT};
use iscsi::text::{self, Assembler, MAX_LOGIN_TEXT, Pair};
use scsi::reservations::Isid;

use super::session::{Begin, WINDOW};
pub(crate) use chap::{ChapPolicy, Entropy};

/// Requests of one login; the longest honest one takes twelve.
pub(crate) const MAX_ROUNDS: u32 = 32;
/// Bytes of a login response.
const MAX_RESPONSE: usize = 8192;

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// Status class and detail of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal(pub(crate) u8, pub(crate) u8);

impl Refusal {
    pub(crate) const INITIATOR: Refusal = Refusal(2, 0);
    pub(crate) const AUTHENTICATION: Refusal = Refusal(2, 1);
    pub(crate) const FORBIDDEN: Refusal = Refusal(2, 2);
    pub(crate) const NOT_FOUND: Refusal = Refusal(2, 3);
    pub(crate) const VERSION: Refusal = Refusal(2, 5);
    pub(crate) const TOO_MANY: Refusal = Refusal(2, 6);
    pub(crate) const MISSING: Refusal = Refusal(2, 7);
    pub(crate) const SESSION_TYPE: Refusal = Refusal(2, 9);
    pub(crate) const NO_SESSION: Refusal = Refusal(2, 0x0a);
    pub(crate) const UNAVAILABLE: Refusal = Refusal(3, 1);
    pub(crate) const NO_RESOURCES: Refusal = Refusal(3, 2);

    /// In words, for the log.
    pub(crate) fn why(self) -> &'static str {
        match (self.0, self.1) {
            (1, _) => "sent to another portal",
            (2, 1) => "it did not prove itself",
            (2, 2) => "its name is not on the list",
            (2, 3) => "it asked for a target that is not here",
            (2, 5) => "it speaks another version",
            (2, 6) => "a session has one connection",
            (2, 7) => "it did not say its name, or whom it wants",
            (2, 9) => "it wants a session of an unknown type",
            (2, 0x0a) => "it names a session that is not there",
            (3, 1) => "the target is being stopped",
            (3, 2) => "there are too many sessions",
            _ => "its login is not as the protocol has it",
        }
    }
}

/// Who is let in, and how.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The target's name.
    pub(crate) target: String,
    /// Names of initiators; none: all.
    pub(crate) initiators: Option<Vec<String>>,
    /// How they prove themselves; none: not at all.
    pub(crate) chap: Option<ChapPolicy>,
    /// Where to go instead, and whether for ever.
    pub(crate) redirect: Option<(Portal, bool)>,
    pub(crate) offer: Offer,
}

impl Policy {
    /// Whether an initiator of this name may log in, and hear of the target.
    pub(crate) fn admits(&self, initiator: &str) -> bool {
        self.initiators.as_ref().is_none_or(|list| list.iter().any(|name| name == initiator))
    }
}

/// A response with its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Response {
    pub(crate) bhs: LoginResponse,
    pub(crate) text: Vec<u8>,
}

/// What a request leads to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this; the next request follows.
    Reply(Box<Login>, Response),
    /// Send this, then close.
    Refuse(Response, Refusal),
    /// The initiator wants in, and may.
    Enter(Box<Entering>),
}

/// Who asks for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    pub(crate) initiator: String,
    pub(crate) discovery: bool,
}

/// A login under way.
#[derive(Debug)]
pub(crate) struct Login {
    /// The portal's group.
    group: u16,
    entropy: Entropy,
    negotiation: Negotiation,
    assembler: Assembler,
    rounds: u32,
    stat_sn: StatSn,
    first: Option<LoginRequest>,
    names: Option<Names>,
    stage: u8,
    chap: chap::State,
    declared: bool,
}

/// A login that is done but for a place among the sessions.
#[derive(Debug)]
pub(crate) struct Entering {
    login: Login,
    pub(crate) names: Names,
    pub(crate) isid: Isid,
    /// The session that it wants to join; 0 for a new one.
    pub(crate) tsih: u16,
    params: Params,
    response: Response,
}

impl Login {
    /// At a portal of this group.
    pub(crate) fn new(group: u16, entropy: Entropy) -> Login {
        Login {
            group,
            entropy,
            negotiation: Negotiation::new(End::Target, false),
            assembler: Assembler::new(MAX_LOGIN_TEXT),
            rounds: 0,
            stat_sn: StatSn(1),
            first: None,
            names: None,
            stage: SECURITY,
            chap: chap::State::default(),
            declared: false,
        }
    }

    /// The next request, with its text.
    pub(crate) fn answer(mut self, request: &LoginRequest, text: &[u8], policy: &Policy) -> Step {
        match self.step(request, text, policy) {
            Ok(Some((response, true))) => self.enter(request, response, policy),
            Ok(Some((response, false))) => Step::Reply(Box::new(self), response),
            Ok(None) => {
                let response = self.response(request, self.stage << 2, Vec::new());
                Step::Reply(Box::new(self), response)
            }
            Err(refusal) => self.refuse(request, refusal, policy),
        }
    }

    fn refuse(&mut self, request: &LoginRequest, refusal: Refusal, policy: &Policy) -> Step {
        let mut body = Vec::new();
        if let (1, Some((portal, _))) = (refusal.0, &policy.redirect) {
            text::push(&mut body, "TargetAddress", &portal.to_string());
        }
        let mut response = self.response(request, 0, body);
        (response.bhs.status_class, response.bhs.status_detail) = (refusal.0, refusal.1);
        Step::Refuse(response, refusal)
    }

    /// The response and whether the full feature phase begins behind it; none if the text goes on.
    fn step(&mut self, r: &LoginRequest, text: &[u8], policy: &Policy) -> Result<Option<(Response, bool)>, Refusal> {
        self.rounds += 1;
        let (csg, nsg) = (r.flags >> 2 & 3, r.flags & 3);
        let (transit, goes_on) = (r.flags & TRANSIT != 0, r.flags & CONTINUE != 0);
        if self.rounds > MAX_ROUNDS || (transit && goes_on) {
            return Err(Refusal::INITIATOR);
        }
        self.same_login(r, csg)?;
        let Some(pairs) = self.assembler.take(text, goes_on).map_err(|_| Refusal::INITIATOR)? else {
            return Ok(None);
        };
        let mut body = Vec::new();
        let auth = self.negotiate(pairs, policy, &mut body)?;
        if self.names.is_none() {
            self.names = Some(self.introduce(policy)?);
            if policy.chap.is_some() && csg != SECURITY {
                return Err(Refusal::AUTHENTICATION);
            }
            if self.names.as_ref().is_some_and(|n| !n.discovery) {
                text::push(&mut body, "TargetPortalGroupTag", &self.group.to_string());
            }
        }
        let proved = match csg {
            SECURITY => self.chap.answer(policy.chap.as_ref(), &auth, &self.entropy, &mut body)?,
            _ if !auth.is_empty() => return Err(Refusal::INITIATOR),
            _ => true,
        };
        let goes = transit && proved;
        if goes && !(nsg == FULL_FEATURE || (nsg == OPERATIONAL && csg == SECURITY)) {
            return Err(Refusal::INITIATOR);
        }
        let operational = csg == OPERATIONAL || (goes && nsg == FULL_FEATURE);
        if operational && !std::mem::replace(&mut self.declared, true) {
            let own = self.negotiation.offer(&["MaxRecvDataSegmentLength"], &policy.offer);
            own.iter().for_each(|p| text::push(&mut body, &p.key, &p.value));
        }
        if body.len() > MAX_RESPONSE {
            return Err(Refusal::INITIATOR);
        }
        self.stage = if goes { nsg } else { csg };
        let flags = csg << 2 | if goes { TRANSIT | nsg } else { 0 };
        Ok(Some((self.response(r, flags, body), goes && nsg == FULL_FEATURE)))
    }

    /// Every request of a login is of the same one, and of the stage that was reached.
    fn same_login(&mut self, r: &LoginRequest, csg: u8) -> Result<(), Refusal> {
        let Some(first) = &self.first else {
            if r.version_min > 0 {
                return Err(Refusal::VERSION);
            }
            if csg != SECURITY && csg != OPERATIONAL {
                return Err(Refusal::INITIATOR);
            }
            self.stage = csg;
            self.first = Some(*r);
            return Ok(());
        };
        let same = (first.isid, first.tsih, first.itt, first.cid) == (r.isid, r.tsih, r.itt, r.cid);
        if same && csg == self.stage { Ok(()) } else { Err(Refusal::INITIATOR) }
    }

    /// Works through the keys; those of authentication are given back.
    fn negotiate(&mut self, pairs: Vec<Pair>, policy: &Policy, body: &mut Vec<u8>) -> Result<Vec<Pair>, Refusal> {
        let mut auth: Vec<Pair> = Vec::new();
        let discovery = pairs.iter().any(|p| p.key == "SessionType" && p.value == "Discovery");
        if discovery && self.names.is_none() {
            self.negotiation = Negotiation::new(End::Target, true);
        }
        for pair in pairs {
            if pair.key == "AuthMethod" || pair.key.starts_with("CHAP_") {
                if auth.iter().any(|p| p.key == pair.key) {
                    return Err(Refusal::INITIATOR);
                }
                auth.push(pair);
                continue;
            }
            match self.negotiation.receive(&pair, &policy.offer) {
                Ok(Some(answer)) => text::push(body, &answer.key, &answer.value),
                Ok(None) => {}
                Err(_) => return Err(Refusal::INITIATOR),
            }
        }
        Ok(auth)
    }

    /// Who it is and whom it wants, and whether it may.
    fn introduce(&self, policy: &Policy) -> Result<Names, Refusal> {
        let initiator = self.negotiation.theirs("InitiatorName").filter(|n| !n.is_empty()).ok_or(Refusal::MISSING)?;
        let initiator = initiator.to_owned();
        let discovery = match self.negotiation.theirs("SessionType") {
            Some("Discovery") => true,
            Some("Normal") | None => false,
            Some(_) => return Err(Refusal::SESSION_TYPE),
        };
        if !discovery {
            match self.negotiation.theirs("TargetName") {
                None => return Err(Refusal::MISSING),
                Some(name) if name != policy.target => return Err(Refusal::NOT_FOUND),
                Some(_) => {}
            }
            if !policy.admits(&initiator) {
                return Err(Refusal::FORBIDDEN);
            }
            if let Some((_, for_ever)) = &policy.redirect {
                return Err(Refusal(1, if *for_ever { 2 } else { 1 }));
            }
        }
        Ok(Names { initiator, discovery })
    }

    fn response(&mut self, r: &LoginRequest, flags: u8, text: Vec<u8>) -> Response {
        let bhs = LoginResponse {
            flags,
            isid: r.isid,
            tsih: r.tsih,
            itt: r.itt,
            stat_sn: self.stat_sn.0.into(),
            exp_cmd_sn: r.cmd_sn,
            max_cmd_sn: CmdSn(r.cmd_sn.get()).plus(WINDOW - 1).0.into(),
            ..LoginResponse::default()
        };
        self.stat_sn = self.stat_sn.next();
        Response { bhs: bhs.with_data(text.len()), text }
    }

    fn enter(mut self, request: &LoginRequest, response: Response, policy: &Policy) -> Step {
        let params = Params::of(&self.negotiation, &policy.offer);
        match self.names.take() {
            Some(names) => Step::Enter(Box::new(Entering {
                login: self,
                names,
                isid: Isid(request.isid),
                tsih: request.tsih.get(),
                params,
                response,
            })),
            None => self.refuse(request, Refusal::MISSING, policy),
        }
    }
}

impl Entering {
    /// It has a place, under this number.
    pub(crate) fn accept(mut self, tsih: u16) -> (Response, Begin) {
        self.response.bhs.tsih = tsih.into();
        let begin = Begin {
            params: self.params,
            cid: self.login.first.map_or(0, |r| r.cid.get()),
            discovery: self.names.discovery,
            cmd_sn: CmdSn(self.response.bhs.exp_cmd_sn.get()),
            stat_sn: self.login.stat_sn,
        };
        (self.response, begin)
    }

    /// It has none.
    pub(crate) fn refuse(mut self, refusal: Refusal) -> Response {
        self.response.text.clear();
        let mut bhs = self.response.bhs.with_data(0);
        bhs.flags = 0;
        (bhs.status_class, bhs.status_detail) = (refusal.0, refusal.1);
        Response { bhs, text: self.response.text }
    }
}
