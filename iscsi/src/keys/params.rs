//! What an end wishes, and what was agreed: the table's strings as numbers that a session works with.

use super::negotiate::{Negotiation, Wishes};
use crate::digest::Digests;
use crate::text::value::{boolean, number, yes_no};

/// How a connection wants a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DigestWish {
    /// Only without.
    #[default]
    Never,
    /// Rather without.
    RatherNot,
    /// Rather with.
    Rather,
    /// Only with: a login that ends without it is refused.
    Always,
}

impl DigestWish {
    fn list(self) -> &'static str {
        match self {
            DigestWish::Never => "None",
            DigestWish::RatherNot => "None,CRC32C",
            DigestWish::Rather => "CRC32C,None",
            DigestWish::Always => "CRC32C",
        }
    }
}

/// What this end offers. The defaults are the ones that were fastest with tgt: few round trips for writes up to
/// 256 KiB, and several R2Ts for longer ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Header digest.
    pub header_digest: DigestWish,
    /// Data digest.
    pub data_digest: DigestWish,
    /// The longest data segment this end receives.
    pub max_recv_segment: u32,
    /// The longest sequence of data.
    pub max_burst: u32,
    /// The most data without an R2T.
    pub first_burst: u32,
    /// Whether every write waits for an R2T.
    pub initial_r2t: bool,
    /// Whether data may travel in the command.
    pub immediate_data: bool,
    /// R2Ts outstanding for one task.
    pub max_outstanding_r2t: u32,
    /// Seconds to wait before a new login.
    pub time2wait: u32,
    /// Seconds for which the target keeps tasks of a lost connection: 0, nothing is ever reassigned at recovery level 0.
    pub time2retain: u32,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer {
            header_digest: DigestWish::Never,
            data_digest: DigestWish::Never,
            max_recv_segment: 256 << 10,
            max_burst: 1 << 20,
            first_burst: 256 << 10,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 8,
            time2wait: 0,
            time2retain: 0,
        }
    }
}

impl Wishes for Offer {
    fn wish(&self, key: &str) -> Option<String> {
        Some(match key {
            "HeaderDigest" => self.header_digest.list().to_owned(),
            "DataDigest" => self.data_digest.list().to_owned(),
            "MaxConnections" | "iSCSIProtocolLevel" => "1".to_owned(),
            "InitialR2T" => yes_no(self.initial_r2t).to_owned(),
            "ImmediateData" => yes_no(self.immediate_data).to_owned(),
            "MaxRecvDataSegmentLength" => self.max_recv_segment.to_string(),
            "MaxBurstLength" => self.max_burst.to_string(),
            "FirstBurstLength" => self.first_burst.min(self.max_burst).to_string(),
            "DefaultTime2Wait" => self.time2wait.to_string(),
            "DefaultTime2Retain" => self.time2retain.to_string(),
            "MaxOutstandingR2T" => self.max_outstanding_r2t.to_string(),
            "DataPDUInOrder" | "DataSequenceInOrder" => "Yes".to_owned(),
            "ErrorRecoveryLevel" => "0".to_owned(),
            "TaskReporting" => "RFC3720".to_owned(),
            _ => return None,
        })
    }
}

/// What holds for a session and its connection. By default nothing was agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params {
    /// Digests, from the full feature phase on.
    pub digests: Digests,
    /// The longest data segment the other end receives.
    pub max_send_segment: u32,
    /// The longest data segment this end receives.
    pub max_recv_segment: u32,
    /// The longest sequence of data.
    pub max_burst: u32,
    /// The most data without an R2T.
    pub first_burst: u32,
    /// Whether every write waits for an R2T.
    pub initial_r2t: bool,
    /// Whether data may travel in the command.
    pub immediate_data: bool,
    /// R2Ts outstanding for one task.
    pub max_outstanding_r2t: u32,
    /// Seconds to wait before a new login.
    pub time2wait: u32,
    /// Seconds for which the target keeps a lost session.
    pub time2retain: u32,
    /// Recovery level; this code does 0 only.
    pub recovery_level: u32,
}

impl Params {
    /// The results of a negotiation. Every one was checked when it came; the table's defaults stand for the rest.
    pub fn of(n: &Negotiation, own: &Offer) -> Params {
        let num = |key: &str| number(n.result(key)).unwrap_or_default();
        let yes = |key: &str| boolean(n.result(key)).unwrap_or_default();
        let max_burst = num("MaxBurstLength");
        Params {
            digests: Digests { header: n.result("HeaderDigest") == "CRC32C", data: n.result("DataDigest") == "CRC32C" },
            max_send_segment: n.theirs("MaxRecvDataSegmentLength").and_then(number).unwrap_or(8192),
            max_recv_segment: own.max_recv_segment,
            max_burst,
            first_burst: num("FirstBurstLength").min(max_burst),
            initial_r2t: yes("InitialR2T"),
            immediate_data: yes("ImmediateData"),
            max_outstanding_r2t: num("MaxOutstandingR2T").max(1),
            time2wait: num("DefaultTime2Wait"),
            time2retain: num("DefaultTime2Retain"),
            recovery_level: num("ErrorRecoveryLevel"),
        }
    }
}
