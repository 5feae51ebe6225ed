//! Page 80h (SPC-4 7.8.18): the serial number.

use super::{PageCode, body, page};
use crate::error::ParseError;

/// The serial number of a unit, of which only the vendor promises that it is unique.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnitSerialNumber(String);

impl UnitSerialNumber {
    /// The longest serial number that is read; longer ones are not found in the field.
    pub const MAX: usize = 252;

    /// A serial number, or `None` unless it is 1 to 252 printable ASCII characters.
    pub fn new(text: &str) -> Option<UnitSerialNumber> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        (printable && (1..=UnitSerialNumber::MAX).contains(&text.len())).then(|| UnitSerialNumber(text.to_owned()))
    }

    /// Reads the page. Blanks and zeroes around the number go; `None` where nothing is left (the unit has none).
    pub fn parse(bytes: &[u8]) -> Result<Option<UnitSerialNumber>, ParseError> {
        const WHAT: &str = "VPD page 80h";
        let body = body(WHAT, PageCode::SERIAL, bytes)?;
        if body.len() > UnitSerialNumber::MAX {
            return Err(ParseError::TooMany { what: WHAT, max: UnitSerialNumber::MAX });
        }
        let text = text(body);
        Ok((!text.is_empty()).then_some(UnitSerialNumber(text)))
    }

    /// The number.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        page(PageCode::SERIAL, self.0.as_bytes())
    }
}

/// ASCII data (SPC-4 4.3.1) as text: padding goes, what is not printable becomes a dot.
pub(crate) fn text(bytes: &[u8]) -> String {
    let printable = |b: &u8| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' };
    let is_padding = |b: &u8| *b == b' ' || *b == 0;
    let start = bytes.iter().position(|b| !is_padding(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !is_padding(b)).map_or(start, |last| last + 1);
    bytes[start..end].iter().map(printable).collect()
}
