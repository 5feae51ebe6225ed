//! Every key of RFC 7143, clauses 12 and 13, as a row: scope, when it may be sent, by whom, its default, and how two
//! ends come to one result. [`negotiate`] works through these rows for either end and knows no key by name.
//!
//! Keys with a state of their own are `Handled`: authentication (`chap`, `login`) and what names sessions.

pub mod negotiate;
pub mod params;

#[cfg(test)]
mod tests;

/// Of what a value holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The whole session.
    Session,
    /// One connection.
    Connection,
}

/// When a key may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Security stage of a login only.
    Security,
    /// Login of any connection.
    Login,
    /// Login of a session's first connection only.
    Leading,
    /// Full feature phase only.
    FullFeature,
    /// Any time.
    Any,
}

/// Who may send it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// Either.
    Both,
    /// Initiators only.
    Initiator,
    /// Targets only.
    Target,
}

/// How two numbers become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Result2 {
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

/// How two booleans become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logic {
    /// Yes if both say so.
    And,
    /// Yes if one says so.
    Or,
}

/// The form of a value and its result function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A number of a range; both ends' numbers become one.
    Number {
        /// Lowest.
        min: u32,
        /// Highest.
        max: u32,
        /// How.
        result: Result2,
    },
    /// A boolean; both ends' become one.
    Boolean(Logic),
    /// A list of words in order of preference; the answer is the first that the other end takes.
    List(&'static [&'static str]),
    /// A number that an end says about itself; never answered.
    DeclaredNumber {
        /// Lowest.
        min: u32,
        /// Highest.
        max: u32,
    },
    /// Text that an end says about itself; never answered.
    DeclaredText {
        /// Most bytes.
        max: usize,
    },
    /// Has a state machine of its own.
    Handled,
    /// No longer used; always answered like this.
    Obsolete(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Of what it holds.
    pub scope: Scope,
    /// When.
    pub when: When,
    /// By whom.
    pub sender: Sender,
    /// How.
    pub form: Form,
    /// What holds if nobody says anything; "" where there is nothing then.
    pub default: &'static str,
    /// Answered `Irrelevant` in discovery sessions.
    pub normal_only: bool,
}

const fn row(name: &'static str, scope: Scope, when: When, sender: Sender, form: Form, default: &'static str) -> Row {
    Row { name, scope, when, sender, form, default, normal_only: false }
}

/// A key that says how data move: irrelevant where none do.
const fn data(name: &'static str, form: Form, default: &'static str) -> Row {
    Row { name, scope: Scope::Session, when: When::Leading, sender: Sender::Both, form, default, normal_only: true }
}

/// Most bytes of an iSCSI name (RFC 7143, 4.2.7.1).
pub const MAX_NAME: usize = 223;

/// Whether a text is an iSCSI name: of one of the three kinds, in the letters that stay what they are (RFC 7143, 4.2.7).
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:".contains(&b);
    let kind = ["iqn.", "eui.", "naa."].iter().any(|kind| text.starts_with(kind));
    kind && text.len() <= MAX_NAME && text.bytes().all(fits)
}

const LEN: Form = Form::Number { min: 512, max: (1 << 24) - 1, result: Result2::Min };
const SECONDS_MIN: Form = Form::Number { min: 0, max: 3600, result: Result2::Min };
const SECONDS_MAX: Form = Form::Number { min: 0, max: 3600, result: Result2::Max };
const COUNT: Form = Form::Number { min: 1, max: 65535, result: Result2::Min };
const DIGEST: Form = Form::List(&["None", "CRC32C"]);
const NAME: Form = Form::DeclaredText { max: MAX_NAME };
const ALIAS: Form = Form::DeclaredText { max: 255 };

use Scope::{Connection, Session};
use Sender::{Both, Initiator, Target};
use When::{Any, FullFeature, Leading, Login, Security};

/// The rows. Clause numbers of RFC 7143.
pub static TABLE: &[Row] = &[
    // 12.1 authentication
    row("AuthMethod", Connection, Security, Both, Form::Handled, "None"),
    row("CHAP_A", Connection, Security, Both, Form::Handled, ""),
    row("CHAP_I", Connection, Security, Both, Form::Handled, ""),
    row("CHAP_C", Connection, Security, Both, Form::Handled, ""),
    row("CHAP_N", Connection, Security, Both, Form::Handled, ""),
    row("CHAP_R", Connection, Security, Both, Form::Handled, ""),
    // 13.1 to 13.9
    row("HeaderDigest", Connection, Login, Both, DIGEST, "None"),
    row("DataDigest", Connection, Login, Both, DIGEST, "None"),
    data("MaxConnections", COUNT, "1"),
    row("SendTargets", Session, FullFeature, Initiator, Form::Handled, ""),
    row("TargetName", Session, Login, Initiator, NAME, ""),
    row("InitiatorName", Session, Login, Initiator, NAME, ""),
    row("TargetAlias", Session, Any, Target, ALIAS, ""),
    row("InitiatorAlias", Session, Any, Initiator, ALIAS, ""),
    row("TargetAddress", Session, Any, Target, Form::Handled, ""),
    row("TargetPortalGroupTag", Session, Login, Target, Form::DeclaredNumber { min: 0, max: 65535 }, ""),
    // 13.10 to 13.20
    data("InitialR2T", Form::Boolean(Logic::Or), "Yes"),
    data("ImmediateData", Form::Boolean(Logic::And), "Yes"),
    row(
        "MaxRecvDataSegmentLength",
        Connection,
        Any,
        Both,
        Form::DeclaredNumber { min: 512, max: (1 << 24) - 1 },
        "8192",
    ),
    data("MaxBurstLength", LEN, "262144"),
    data("FirstBurstLength", LEN, "65536"),
    row("DefaultTime2Wait", Session, Leading, Both, SECONDS_MAX, "2"),
    row("DefaultTime2Retain", Session, Leading, Both, SECONDS_MIN, "20"),
    data("MaxOutstandingR2T", COUNT, "1"),
    data("DataPDUInOrder", Form::Boolean(Logic::Or), "Yes"),
    data("DataSequenceInOrder", Form::Boolean(Logic::Or), "Yes"),
    row("ErrorRecoveryLevel", Session, Leading, Both, Form::Number { min: 0, max: 2, result: Result2::Min }, "0"),
    // 13.21 to 13.23, RFC 7144
    row("SessionType", Session, Leading, Initiator, Form::DeclaredText { max: 9 }, "Normal"),
    data("TaskReporting", Form::List(&["RFC3720", "ResponseFence", "FastAbort"]), "RFC3720"),
    row("iSCSIProtocolLevel", Session, Leading, Both, Form::Number { min: 0, max: 31, result: Result2::Min }, "1"),
    // 13.25
    row("OFMarker", Connection, Login, Both, Form::Obsolete("No"), "No"),
    row("IFMarker", Connection, Login, Both, Form::Obsolete("No"), "No"),
    row("OFMarkInt", Connection, Login, Both, Form::Obsolete("Reject"), ""),
    row("IFMarkInt", Connection, Login, Both, Form::Obsolete("Reject"), ""),
];

/// The row of a key, and its place.
pub fn find(name: &str) -> Option<(usize, &'static Row)> {
    TABLE.iter().enumerate().find(|(_, r)| r.name == name)
}
