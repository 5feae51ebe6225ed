//! The body of HELLO and WELCOME, and what two ends agree on. Pure; bytes in docs/formats/frames.md.
//!
//! Each end tells which versions it speaks, which features it has and which it cannot do without, who it is,
//! and what its application wants to say. The dialer offers a range of versions; the acceptor chooses the
//! highest that both speak and names it alone in its WELCOME. Features in use are those that both have.

use bytes::{Bytes, BytesMut};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::Version;
use crate::limits::{MAX_HELLO, MAX_SUBJECT};

/// Feature bits: what an end can do, and what it insists on. Their meaning is the application's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Can do.
    pub offered: u64,
    /// Cannot do without; a peer that lacks one is refused.
    pub required: u64,
}

/// The fixed part of the body.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct WireHello {
    oldest: u8,
    newest: u8,
    subject_len: U16,
    app_len: U32,
    offered: U64,
    required: U64,
    reserved: [u8; 8],
}

const WIRE_LEN: usize = 32;
const _: () = assert!(size_of::<WireHello>() == WIRE_LEN);

/// Longest application bytes that fit.
pub const MAX_APP: usize = MAX_HELLO - WIRE_LEN - MAX_SUBJECT;

/// What one end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest version it speaks; a WELCOME names one version twice.
    pub versions: (u8, u8),
    /// Its features.
    pub features: Features,
    /// Who it says it is. With TLS it must be what its certificate proves.
    pub subject: String,
    /// Its application's bytes.
    pub app: Bytes,
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the frames from now on.
    pub version: Version,
    /// The features that both have.
    pub features: u64,
}

/// Why a HELLO is refused; the sentence goes to the peer and into both logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// It is not one.
    #[error("malformed HELLO: {0}")]
    Malformed(&'static str),
    /// No version in common.
    #[error("no common version: one end speaks {}..{}, the other {}..{}", ours.0, ours.1, theirs.0, theirs.1)]
    NoCommonVersion {
        /// What we speak.
        ours: (u8, u8),
        /// What the peer speaks.
        theirs: (u8, u8),
    },
    /// One end cannot do without what the other lacks.
    #[error("missing features {0:#x}")]
    MissingFeatures(u64),
}

impl Hello {
    /// The versions this code speaks.
    pub const VERSIONS: (u8, u8) = (Version::OLDEST as u8, Version::NEWEST as u8);

    /// The body of a frame. `subject` and `app` are cut to what fits; configuration and service are checked
    /// before, so that this never happens to a good one.
    pub fn encode(&self) -> Bytes {
        let subject = &self.subject.as_bytes()[..self.subject.len().min(MAX_SUBJECT)];
        let app = &self.app[..self.app.len().min(MAX_APP)];
        let fixed = WireHello {
            oldest: self.versions.0,
            newest: self.versions.1,
            subject_len: U16::new(u16::try_from(subject.len()).unwrap_or(0)),
            app_len: U32::new(u32::try_from(app.len()).unwrap_or(0)),
            offered: U64::new(self.features.offered),
            required: U64::new(self.features.required),
            reserved: [0; 8],
        };
        let mut out = BytesMut::with_capacity(WIRE_LEN + subject.len() + app.len());
        out.extend_from_slice(fixed.as_bytes());
        out.extend_from_slice(subject);
        out.extend_from_slice(app);
        out.freeze()
    }

    /// Reads a body. Reserved bytes are ignored here, and only here: they are how a newer HELLO may say more.
    pub fn decode(body: &Bytes) -> Result<Self, HelloError> {
        let (fixed, rest) =
            WireHello::read_from_prefix(body).map_err(|_| HelloError::Malformed("shorter than its fixed part"))?;
        let subject_len = usize::from(fixed.subject_len.get());
        if subject_len > MAX_SUBJECT {
            return Err(HelloError::Malformed("a subject longer than a DNS name"));
        }
        if rest.len() as u64 != subject_len as u64 + u64::from(fixed.app_len.get()) {
            return Err(HelloError::Malformed("its lengths do not add up"));
        }
        let subject = std::str::from_utf8(&rest[..subject_len])
            .map_err(|_| HelloError::Malformed("a subject that is not UTF-8"))?;
        Ok(Self {
            versions: (fixed.oldest, fixed.newest),
            features: Features { offered: fixed.offered.get(), required: fixed.required.get() },
            subject: subject.to_owned(),
            app: body.slice(WIRE_LEN + subject_len..),
        })
    }
}

/// What we and a peer agree on.
pub fn agree(ours: Features, theirs: &Hello) -> Result<Agreed, HelloError> {
    let (low, high) = Hello::VERSIONS;
    let newest = high.min(theirs.versions.1);
    let no_common = HelloError::NoCommonVersion { ours: (low, high), theirs: theirs.versions };
    if newest < low.max(theirs.versions.0) {
        return Err(no_common);
    }
    let version = Version::from_number(newest).ok_or(no_common)?;
    let missing = (ours.required & !theirs.features.offered) | (theirs.features.required & !ours.offered);
    if missing != 0 {
        return Err(HelloError::MissingFeatures(missing));
    }
    Ok(Agreed { version, features: ours.offered & theirs.features.offered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: Hello::VERSIONS,
            features: Features { offered: 0b111, required: 0b001 },
            subject: "node-1.c.shorefast.internal".into(),
            app: Bytes::from_static(b"list 7"),
        }
    }

    #[test]
    fn version_1_bytes_are_frozen() {
        let mut said = hello();
        said.subject = "n.c".into();
        said.features = Features { offered: 0x0807_0605_0403_0201, required: 1 };
        let frozen =
            b"\x01\x01\x03\0\x06\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0n.clist 7";
        assert_eq!(said.encode(), frozen[..]);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn every_shorter_or_longer_body_is_malformed() {
        let whole = hello().encode();
        for n in 0..whole.len() {
            assert!(Hello::decode(&whole.slice(..n)).is_err(), "{n}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(Hello::decode(&longer.into()).is_err());
    }

    #[test]
    fn disjoint_versions_are_refused_with_both_ranges() {
        let mut theirs = hello();
        theirs.versions = (9, 11);
        let said = agree(Features { offered: 1, required: 0 }, &theirs).unwrap_err().to_string();
        assert_eq!(said, "no common version: one end speaks 1..1, the other 9..11");
        theirs.versions = (0, 0);
        assert!(agree(Features { offered: 1, required: 0 }, &theirs).is_err());
    }

    #[test]
    fn a_newer_peer_that_still_speaks_ours_is_accepted() {
        let mut theirs = hello();
        theirs.versions = (1, 200);
        let agreed = agree(Features { offered: 0b101, required: 0 }, &theirs).unwrap();
        assert_eq!(agreed, Agreed { version: Version::V1, features: 0b101 });
    }

    #[test]
    fn a_required_feature_is_required_in_both_directions() {
        let ours = |offered, required| Features { offered, required };
        assert_eq!(agree(ours(0b110, 0), &hello()), Err(HelloError::MissingFeatures(0b001)));
        assert_eq!(agree(ours(0b1001, 0b1000), &hello()), Err(HelloError::MissingFeatures(0b1000)));
    }
}
