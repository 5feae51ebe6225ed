//! Values of keys: numbers, booleans, binary strings, lists (RFC 7143, 6.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest binary value: challenges and responses have at most 1024 bytes.
pub const MAX_BINARY: usize = 1024;

/// A decimal or hexadecimal number.
pub fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// `Yes` or `No`.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// The word for a boolean.
pub fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// A binary value in hexadecimal (`0x`) or base64 (`0b`), at most [`MAX_BINARY`] bytes.
pub fn binary(text: &str) -> Option<Vec<u8>> {
    let (form, digits) = text.split_at_checked(2)?;
    let bytes = match form {
        "0x" | "0X" => hex(digits.as_bytes())?,
        "0b" | "0B" => STANDARD.decode(digits).ok()?,
        _ => return None,
    };
    (bytes.len() <= MAX_BINARY).then_some(bytes)
}

/// An odd number of digits has a zero before the first.
fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if digits.is_empty() {
        return None;
    }
    let odd = digits.len() % 2;
    let mut bytes = Vec::with_capacity(digits.len() / 2 + odd);
    if odd == 1 {
        bytes.push(digit(digits[0])?);
    }
    for pair in digits[odd..].chunks_exact(2) {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

/// A binary value in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for b in bytes {
        let _ = write!(text, "{b:02x}");
    }
    text
}

/// The words of a list.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("8192"), Some(8192));
        assert_eq!(number("0x2000"), Some(8192));
        for junk in ["", "0x", "-1", "+1", " 1", "4294967296", "0x1g", "1.0"] {
            assert_eq!(number(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn binary_is_hexadecimal_or_base64() {
        assert_eq!(binary("0x0aFf"), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0xaff"), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0bCv8="), Some(vec![0x0a, 0xff]));
        assert_eq!(binary(&to_hex(&[1, 2, 0xfe])), Some(vec![1, 2, 0xfe]));
        for junk in ["", "0", "0x", "0xg0", "0b*", "aabb", "é0"] {
            assert_eq!(binary(junk), None, "{junk:?}");
        }
        assert!(binary(&to_hex(&[0; 1024])).is_some() && binary(&to_hex(&[0; 1025])).is_none());
    }
}
