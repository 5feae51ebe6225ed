//! What all phases of a login share: numbers, negotiation, the text that is being assembled.

use std::fmt;

use super::{Established, Kind, LoginConfig, LoginError, Request};
use crate::chap::Entropy;
use crate::framer::{End, LOGIN_SEGMENT};
use crate::ids::{CmdSn, Itt, PortalGroup, StatSn, Tsih};
use crate::keys::negotiate::Negotiation;
use crate::keys::params::{DigestWish, Params};
use crate::pdu::raw::{self, LoginRequest, LoginResponse};
use crate::text::{self, Assembler, MAX_LOGIN_TEXT, Pair};

/// A request as a phase wants it.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) csg: u8,
    pub(super) nsg: u8,
    pub(super) transit: bool,
    pub(super) pairs: Vec<Pair>,
}

/// What a response said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Keys of authentication.
    pub(super) auth: Vec<Pair>,
    /// What is to be answered.
    pub(super) answers: Vec<Pair>,
}

impl Heard {
    pub(super) fn auth(&self, key: &'static str) -> Option<&str> {
        self.auth.iter().find(|p| p.key == key).map(|p| p.value.as_str())
    }
}

pub(super) struct Common {
    pub(super) config: LoginConfig,
    pub(super) negotiation: Negotiation,
    pub(super) assembler: Assembler,
    pub(super) entropy: Entropy,
    pub(super) rounds: u32,
    /// Whether the last request asked for the transit.
    pub(super) asked_transit: bool,
    tag: Itt,
    cmd_sn: CmdSn,
    /// None before the first response, which begins the sequence.
    exp_stat_sn: Option<StatSn>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("config", &self.config).field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

impl Common {
    pub(super) fn new(config: LoginConfig, tag: Itt, cmd_sn: CmdSn, entropy: Entropy) -> Common {
        let discovery = config.kind == Kind::Discovery;
        Common {
            negotiation: Negotiation::new(End::Initiator, discovery),
            assembler: Assembler::new(MAX_LOGIN_TEXT),
            entropy,
            rounds: 0,
            asked_transit: false,
            tag,
            cmd_sn,
            exp_stat_sn: None,
            config,
        }
    }

    /// The request for what a phase wants.
    pub(super) fn request(&mut self, out: &Out) -> Request {
        self.rounds += 1;
        self.asked_transit = out.transit;
        let mut body = Vec::new();
        out.pairs.iter().for_each(|p| text::push(&mut body, &p.key, &p.value));
        // What this end says fits by the bounds on names, keys and challenges.
        debug_assert!(body.len() <= LOGIN_SEGMENT as usize, "a login request of {} bytes", body.len());
        let mut bhs = LoginRequest::default().with_data(body.len());
        bhs.flags = out.csg << 2 | out.nsg | if out.transit { raw::TRANSIT } else { 0 };
        bhs.isid = self.config.isid.0;
        bhs.itt = self.tag.0.into();
        bhs.cmd_sn = self.cmd_sn.0.into();
        bhs.exp_stat_sn = self.exp_stat_sn.unwrap_or_default().0.into();
        Request { bhs, text: body }
    }

    /// Checks what every response must have.
    pub(super) fn take_header(&mut self, r: &LoginResponse) -> Result<(), LoginError> {
        if r.itt.get() != self.tag.0 {
            return Err(LoginError::Protocol("a response with another task tag"));
        }
        // A refusal may come from a front end that knows no numbers.
        if r.status_class != 0 {
            return Ok(());
        }
        if r.version_active != 0 {
            return Err(LoginError::Protocol("a version that was not offered"));
        }
        let stat_sn = StatSn(r.stat_sn.get());
        if self.exp_stat_sn.is_some_and(|exp| exp != stat_sn) {
            return Err(LoginError::Protocol("a StatSN out of sequence"));
        }
        self.exp_stat_sn = Some(stat_sn.next());
        Ok(())
    }

    /// Negotiates what is the table's, keeps what is authentication's.
    pub(super) fn sort(&mut self, pairs: Vec<Pair>) -> Result<Heard, LoginError> {
        let mut heard = Heard::default();
        for pair in pairs {
            let is_auth = pair.key == "AuthMethod" || pair.key.starts_with("CHAP_");
            if is_auth {
                if heard.auth.iter().any(|p| p.key == pair.key) {
                    return Err(LoginError::Protocol("a key of authentication twice in one answer"));
                }
                heard.auth.push(pair);
            } else if pair.key != "TargetAddress" {
                heard.answers.extend(self.negotiation.receive(&pair, &self.config.offer)?);
            }
        }
        Ok(heard)
    }

    /// Checks what was agreed as a whole.
    pub(super) fn established(self, r: &LoginResponse) -> Result<Established, LoginError> {
        let params = Params::of(&self.negotiation, &self.config.offer);
        if self.config.offer.header_digest == DigestWish::Always && !params.digests.header {
            return Err(LoginError::Unusable("HeaderDigest"));
        }
        if self.config.offer.data_digest == DigestWish::Always && !params.digests.data {
            return Err(LoginError::Unusable("DataDigest"));
        }
        if params.recovery_level != 0 {
            return Err(LoginError::Unusable("ErrorRecoveryLevel"));
        }
        let group = self.negotiation.theirs("TargetPortalGroupTag").and_then(text::value::number);
        let group = group.and_then(|g| u16::try_from(g).ok()).map(PortalGroup);
        if let (Some(expected), Some(got)) = (self.config.group, group)
            && expected != got
        {
            return Err(LoginError::Group { expected, got });
        }
        let tsih = Tsih(r.tsih.get());
        if tsih == Tsih(0) && self.config.kind != Kind::Discovery {
            return Err(LoginError::Protocol("a session without a number (TSIH 0)"));
        }
        Ok(Established {
            tsih,
            group,
            params,
            exp_stat_sn: self.exp_stat_sn.unwrap_or_default(),
            exp_cmd_sn: CmdSn(r.exp_cmd_sn.get()),
            max_cmd_sn: CmdSn(r.max_cmd_sn.get()),
            alias: self.negotiation.theirs("TargetAlias").map(str::to_owned),
        })
    }
}
