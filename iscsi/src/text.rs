//! Text of login and text PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143, 6.1).
//!
//! A text may be split over PDUs by the C bit; [`Assembler`] joins it, up to a bound. Reading is strict where a
//! mistake would be a mistake of ours (a pair without `=`, a key that is no key, no end) and judges no value: that is
//! negotiation's part.

pub mod value;

#[cfg(test)]
mod tests;

/// The longest key (RFC 7143, 6.1).
pub const MAX_KEY: usize = 63;

/// The longest value: binary values may be longer than 255 bytes; a CHAP challenge of 1024 bytes in hexadecimal is 2050.
pub const MAX_VALUE: usize = 2100;

/// Pairs in one text. A login has some thirty; SendTargets has its own bound in bytes, from which this follows: the
/// shortest useful line there is about 30 bytes.
pub const MAX_PAIRS: usize = 1 << 16;

/// Bytes of one side's text in one exchange of a login: sixteen data segments. A text that takes more is no login.
pub const MAX_LOGIN_TEXT: usize = 128 << 10;

/// Bytes of an answer to SendTargets: about 15 000 targets with two addresses each.
pub const MAX_DISCOVERY_TEXT: usize = 2 << 20;

/// Why a text is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A pair without `=`.
    #[error("text without `=`: {0:?}")]
    NoValue(String),
    /// A name that is no key.
    #[error("{0:?} is no key")]
    Key(String),
    /// A value that is too long or no UTF-8.
    #[error("the value of {0} is longer than {MAX_VALUE} bytes or no text")]
    Value(String),
    /// The last pair has no zero byte at its end.
    #[error("the text does not end")]
    NoEnd,
    /// More pairs or bytes than one text may have.
    #[error("the text is longer than {0} bytes or has too many keys")]
    TooLong(usize),
}

/// One pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// The pairs of a whole text.
pub fn pairs(text: &[u8]) -> Result<Vec<Pair>, TextError> {
    let Some(body) = text.strip_suffix(&[0]) else {
        return if text.is_empty() { Ok(Vec::new()) } else { Err(TextError::NoEnd) };
    };
    let mut found = Vec::new();
    // Zero bytes in a row are padding that some targets count as data.
    for line in body.split(|b| *b == 0).filter(|l| !l.is_empty()) {
        if found.len() == MAX_PAIRS {
            return Err(TextError::TooLong(text.len()));
        }
        found.push(pair(line)?);
    }
    Ok(found)
}

fn pair(line: &[u8]) -> Result<Pair, TextError> {
    let shown = || String::from_utf8_lossy(&line[..line.len().min(MAX_KEY)]).into_owned();
    let Some(at) = line.iter().position(|b| *b == b'=') else { return Err(TextError::NoValue(shown())) };
    let (key, value) = (&line[..at], &line[at + 1..]);
    let label = |b: &u8| b.is_ascii_alphanumeric() || b".-+@_#".contains(b);
    let is_key = (1..=MAX_KEY).contains(&at) && key[0].is_ascii_alphabetic() && key.iter().all(label);
    if !is_key {
        return Err(TextError::Key(shown()));
    }
    let key = String::from_utf8_lossy(key).into_owned();
    match std::str::from_utf8(value) {
        Ok(value) if value.len() <= MAX_VALUE => Ok(Pair { key, value: value.to_owned() }),
        _ => Err(TextError::Value(key)),
    }
}

/// Appends a pair.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// Joins a text that comes in several PDUs.
#[derive(Debug)]
pub struct Assembler {
    bytes: Vec<u8>,
    longest: usize,
}

impl Assembler {
    /// For texts of at most `longest` bytes.
    pub fn new(longest: usize) -> Assembler {
        Assembler { bytes: Vec::new(), longest }
    }

    /// One PDU's data. The pairs, if the text ends with it.
    pub fn take(&mut self, data: &[u8], goes_on: bool) -> Result<Option<Vec<Pair>>, TextError> {
        if self.bytes.len() + data.len() > self.longest {
            return Err(TextError::TooLong(self.longest));
        }
        self.bytes.extend_from_slice(data);
        if goes_on {
            return Ok(None);
        }
        pairs(&std::mem::take(&mut self.bytes)).map(Some)
    }

    /// Whether a text has begun and not ended.
    pub fn is_open(&self) -> bool {
        !self.bytes.is_empty()
    }
}
