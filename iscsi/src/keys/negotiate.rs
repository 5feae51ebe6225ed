//! Working through the table (RFC 7143, 6.2): what one end offers, what it answers, what holds in the end.
//!
//! ```text
//! Untouched ── offer ──► Offered ── answer ──► Settled      Untouched ── the peer's offer ──► Settled
//! ```
//! A key is negotiated at most once (6.3): a second value for a settled key ends the login. `Irrelevant`,
//! `NotUnderstood` and `Reject` in answer to an offer leave the default; they end nothing by themselves.

use std::fmt;

use super::{Form, Logic, Result2, Row, Sender, TABLE, When, find};
use crate::framer::End;
use crate::text::Pair;
use crate::text::value::{boolean, list, number, yes_no};

/// Answers that are no values.
const RESERVED: [&str; 3] = ["NotUnderstood", "Irrelevant", "Reject"];

/// Answers to keys that nobody knows are bounded: a peer that sends more of them is no iSCSI peer.
pub const MAX_UNKNOWN: usize = 64;

/// Why a negotiation cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The key was settled, or offered, before.
    #[error("{0} was negotiated twice")]
    Twice(&'static str),
    /// The value is none of this key, or no possible answer to what was offered.
    #[error("{key}={value} is not possible here")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// The key may not be sent now, or not by that end.
    #[error("{0} may not be sent by that end, or not in this phase")]
    Place(&'static str),
    /// Too many unknown keys.
    #[error("more than {MAX_UNKNOWN} keys that nobody knows")]
    Unknown,
}

/// What this end wants: its value for a key. None: the default.
pub trait Wishes {
    /// Offered (numbers, booleans, lists in order of preference) or declared.
    fn wish(&self, key: &str) -> Option<String>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Untouched,
    Offered(String),
    Settled(String),
}

/// One end's negotiation of one login.
#[derive(Clone)]
pub struct Negotiation {
    end: End,
    discovery: bool,
    states: Vec<State>,
    /// What the other end has declared of itself.
    theirs: Vec<Option<String>>,
    unknown: usize,
}

impl fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = TABLE.iter().zip(&self.states).filter(|(_, s)| **s != State::Untouched);
        f.debug_map().entries(settled.map(|(r, s)| (r.name, s))).finish()
    }
}

impl Negotiation {
    /// Nothing was said yet.
    pub fn new(end: End, discovery: bool) -> Negotiation {
        Negotiation {
            end,
            discovery,
            states: vec![State::Untouched; TABLE.len()],
            theirs: vec![None; TABLE.len()],
            unknown: 0,
        }
    }

    /// What to offer and declare for these keys; each at most once.
    pub fn offer(&mut self, keys: &[&str], wishes: &dyn Wishes) -> Vec<Pair> {
        let mut said = Vec::new();
        for (place, row) in keys.iter().filter_map(|k| find(k)) {
            let Some(value) = wishes.wish(row.name) else { continue };
            let declared = matches!(row.form, Form::DeclaredNumber { .. } | Form::DeclaredText { .. });
            if self.is_irrelevant(row) || (!declared && self.states[place] != State::Untouched) {
                continue;
            }
            if !declared {
                self.states[place] = State::Offered(value.clone());
            }
            said.push(Pair { key: row.name.to_owned(), value });
        }
        said
    }

    /// One pair of the other end. The answer to be sent, if it wants one. Keys of the form `Handled` are none of
    /// this machine's: the caller takes them out first.
    pub fn receive(&mut self, pair: &Pair, wishes: &dyn Wishes) -> Result<Option<Pair>, NegotiationError> {
        let Some((place, row)) = find(&pair.key) else { return self.unknown(pair) };
        if row.when == When::FullFeature || (row.when == When::Security && row.form != Form::Handled) {
            return Err(NegotiationError::Place(row.name));
        }
        match row.form {
            Form::DeclaredNumber { .. } | Form::DeclaredText { .. } => self.declared(place, row, &pair.value),
            Form::Handled => Err(NegotiationError::Place(row.name)),
            _ => match self.states[place].clone() {
                State::Offered(own) => {
                    let result = answered(row, &own, &pair.value)?;
                    self.states[place] = State::Settled(result);
                    Ok(None)
                }
                State::Settled(_) => Err(NegotiationError::Twice(row.name)),
                State::Untouched => self.asked(place, row, &pair.value, wishes).map(Some),
            },
        }
    }

    /// The value that holds for a key both ends come to one result for.
    pub fn result(&self, key: &str) -> &str {
        let Some((place, row)) = find(key) else { return "" };
        match &self.states[place] {
            State::Settled(value) => value,
            // An offer that was never answered leaves the default (6.2).
            State::Untouched | State::Offered(_) => row.default,
        }
    }

    /// What the other end declared.
    pub fn theirs(&self, key: &str) -> Option<&str> {
        find(key).and_then(|(place, _)| self.theirs[place].as_deref())
    }

    /// Whether every offer has its answer.
    pub fn is_answered(&self) -> bool {
        !self.states.iter().any(|s| matches!(s, State::Offered(_)))
    }

    fn is_irrelevant(&self, row: &Row) -> bool {
        self.discovery && row.normal_only
    }

    fn unknown(&mut self, pair: &Pair) -> Result<Option<Pair>, NegotiationError> {
        self.unknown += 1;
        if self.unknown > MAX_UNKNOWN {
            return Err(NegotiationError::Unknown);
        }
        // An answer to something nobody asked is answered by nothing, or two ends would go on for ever.
        let silent = RESERVED.contains(&pair.value.as_str());
        Ok((!silent).then(|| Pair { key: pair.key.clone(), value: "NotUnderstood".to_owned() }))
    }

    fn declared(&mut self, place: usize, row: &'static Row, value: &str) -> Result<Option<Pair>, NegotiationError> {
        let wrong_end = match row.sender {
            Sender::Both => false,
            Sender::Initiator => self.end == End::Initiator,
            Sender::Target => self.end == End::Target,
        };
        if wrong_end {
            return Err(NegotiationError::Place(row.name));
        }
        if RESERVED.contains(&value) {
            // Declarations have no answer; a peer that gives one all the same does no harm.
            return Ok(None);
        }
        if self.theirs[place].is_some() {
            return Err(NegotiationError::Twice(row.name));
        }
        let fits = match row.form {
            Form::DeclaredNumber { min, max } => number(value).is_some_and(|n| (min..=max).contains(&n)),
            Form::DeclaredText { max } => value.len() <= max,
            _ => false,
        };
        if !fits {
            return Err(impossible(row, value));
        }
        self.theirs[place] = Some(value.to_owned());
        Ok(None)
    }

    /// The other end offers what this one has not offered.
    fn asked(
        &mut self,
        place: usize,
        row: &'static Row,
        value: &str,
        wishes: &dyn Wishes,
    ) -> Result<Pair, NegotiationError> {
        let reply = |value: &str| Pair { key: row.name.to_owned(), value: value.to_owned() };
        if self.is_irrelevant(row) {
            return Ok(reply("Irrelevant"));
        }
        if let Form::Obsolete(answer) = row.form {
            return Ok(reply(answer));
        }
        let own = wishes.wish(row.name).unwrap_or_else(|| row.default.to_owned());
        let Some(result) = combine(row, value, &own) else {
            // Of a list nothing was taken; of others the value is none.
            return match row.form {
                Form::List(_) => Ok(reply("Reject")),
                _ => Err(impossible(row, value)),
            };
        };
        self.states[place] = State::Settled(result.clone());
        Ok(reply(&result))
    }
}

fn impossible(row: &'static Row, value: &str) -> NegotiationError {
    NegotiationError::Value { key: row.name, value: value.chars().take(64).collect() }
}

/// What holds after `own` was offered and `value` came back.
fn answered(row: &'static Row, own: &str, value: &str) -> Result<String, NegotiationError> {
    if RESERVED.contains(&value) {
        return Ok(row.default.to_owned());
    }
    let result = match row.form {
        // The answer is one word, and one of those that were offered.
        Form::List(_) => list(own).find(|w| *w == value).map(str::to_owned),
        _ => combine(row, own, value),
    };
    result.ok_or_else(|| impossible(row, value))
}

/// The result function: of the offer and the other end's value; none if one of them is no value of this key.
fn combine(row: &Row, offered: &str, own: &str) -> Option<String> {
    match row.form {
        Form::Number { min, max, result } => {
            let in_range = |t: &str| number(t).filter(|n| (min..=max).contains(n));
            let (a, b) = (in_range(offered)?, in_range(own)?);
            let n = if result == Result2::Min { a.min(b) } else { a.max(b) };
            Some(n.to_string())
        }
        Form::Boolean(logic) => {
            let (a, b) = (boolean(offered)?, boolean(own)?);
            Some(yes_no(if logic == Logic::And { a && b } else { a || b }).to_owned())
        }
        // The responder takes the first of the offer that it takes at all.
        Form::List(known) => list(offered).find(|w| known.contains(w) && list(own).any(|o| o == *w)).map(str::to_owned),
        Form::DeclaredNumber { .. } | Form::DeclaredText { .. } | Form::Handled | Form::Obsolete(_) => None,
    }
}
