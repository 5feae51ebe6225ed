//! A cursor over a request's body.

use super::Malformed;
use crate::op::Name;
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next fixed struct.
    pub(super) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Malformed::Body)?;
        self.0 = rest;
        Ok(value)
    }

    /// The next string, without the zero byte that ends it.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed::Name)?;
        let (string, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(string)
    }

    /// The next string, as a name.
    pub(super) fn name(&mut self) -> Result<Name, Malformed> {
        Name::new(self.string()?).ok_or(Malformed::Name)
    }

    /// The next string, as the name of an attribute.
    pub(super) fn attribute(&mut self) -> Result<Name, Malformed> {
        Name::of_attribute(self.string()?).ok_or(Malformed::Name)
    }

    /// Exactly `len` bytes.
    pub(super) fn bytes(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Count)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed::Count)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}
