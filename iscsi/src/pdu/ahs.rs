//! Additional header segments (RFC 7143, 11.2.2): the rest of a long CDB, or the read length of a bidirectional
//! command. Reading one never fails loudly: what is no segment ends the list.

use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The two lengths that bytes 2 and 3 of a type leave: the type byte and one more are part of the header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AhsHeader {
    length: U16,
    kind: u8,
    first: u8,
}

const _: () = assert!(size_of::<AhsHeader>() == 4);

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahs<'a> {
    /// Bytes 16 and on of a CDB that is longer than 16.
    ExtendedCdb(&'a [u8]),
    /// How much a bidirectional command expects to read.
    BidiReadLength(u32),
    /// Another type.
    Unknown(u8),
}

/// The segments in `bytes`, which the framer has read whole.
pub fn segments(mut bytes: &[u8]) -> impl Iterator<Item = Ahs<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = AhsHeader::read_from_prefix(bytes).ok()?;
        // The length counts what follows the type byte.
        let len = usize::from(header.length.get()).checked_sub(1)?;
        let specific = rest.get(..len)?;
        let end = len + crate::pdu::padding(len);
        bytes = rest.get(end..).unwrap_or_default();
        Some(match header.kind {
            1 => Ahs::ExtendedCdb(specific),
            2 => specific.first_chunk().map_or(Ahs::Unknown(2), |b| Ahs::BidiReadLength(u32::from_be_bytes(*b))),
            other => Ahs::Unknown(other),
        })
    })
}

/// The segment that carries the CDB's bytes from 16 on.
pub fn extended_cdb(cdb: &[u8]) -> Option<Vec<u8>> {
    let rest = cdb.get(16..).filter(|r| !r.is_empty())?;
    let length = u16::try_from(rest.len() + 1).ok()?;
    let header = AhsHeader { length: U16::new(length), kind: 1, first: 0 };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(rest);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cdb_travels_in_a_segment() {
        let cdb: Vec<u8> = (0..32).collect();
        let bytes = extended_cdb(&cdb).expect("longer than 16");
        assert_eq!(bytes[..4], [0, 17, 1, 0]);
        let found: Vec<_> = segments(&bytes).collect();
        assert_eq!(found, [Ahs::ExtendedCdb(&cdb[16..])]);
        assert_eq!(extended_cdb(&cdb[..16]), None);
    }

    #[test]
    fn segments_that_end_early_end_the_list() {
        for junk in [&[0, 0, 1, 0][..], &[0, 9, 1, 0, 1, 2], &[0xff, 0xff, 2, 0], &[0, 5]] {
            assert_eq!(segments(junk).count(), 0, "{junk:?}");
        }
        let two = [0, 5, 2, 0, 0, 0, 2, 0, 0, 1, 9, 0];
        assert_eq!(segments(&two).collect::<Vec<_>>(), [Ahs::BidiReadLength(512), Ahs::Unknown(9)]);
    }
}
