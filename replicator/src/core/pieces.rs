//! What is compared and carried in a run of blocks: digests, and what of it is the same, zero or data.
//!
//! Pure functions over bytes; whoever runs the core calls them where they hold nobody up.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::Span;

/// Sectors that one digest stands for: the smallest bit.
pub const UNIT: u64 = crate::meta::layout::BIT_MIN;

/// What stands for the bytes of a unit: two that differ have different ones, for all that is known (SHA-256).
pub type Digest = [u8; 32];

/// What is to be done with some units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing: both have the same.
    Same,
    /// They are zero; nothing need be allocated for them.
    Zero,
    /// Their bytes travel.
    Data,
}

/// Units in a row of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Of this kind.
    pub kind: Kind,
    /// So many; never 0.
    pub units: u32,
}

/// What the source found in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The whole run, in order.
    pub pieces: Vec<Piece>,
    /// The bytes of what travels, in order.
    pub data: Bytes,
}

/// The digests of bytes, one for each unit of `unit` bytes; the last unit may be shorter.
pub fn digests(bytes: &[u8], unit: usize) -> Vec<Digest> {
    bytes.chunks(unit.max(1)).map(digest).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// What the other side, of which these are the digests, lacks of bytes. Without digests that is all of it.
pub fn compare(bytes: &Bytes, unit: usize, theirs: &[Digest]) -> Compared {
    let mut pieces: Vec<Piece> = Vec::new();
    for (n, chunk) in bytes.chunks(unit.max(1)).enumerate() {
        let kind = match theirs.get(n) {
            Some(theirs) if *theirs == digest(chunk) => Kind::Same,
            _ if is_zero(chunk) => Kind::Zero,
            _ => Kind::Data,
        };
        match pieces.last_mut().filter(|p| p.kind == kind) {
            Some(last) => last.units += 1,
            None => pieces.push(Piece { kind, units: 1 }),
        }
    }
    let data = gather(bytes, unit, &pieces);
    Compared { pieces, data }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Whole words: a compiler makes wide instructions of it.
    let (head, words, tail) = (bytes.len() % 8, bytes.chunks_exact(8), bytes.chunks_exact(8).remainder());
    debug_assert_eq!(tail.len(), head);
    words.into_iter().all(|w| w == [0; 8]) && tail.iter().all(|b| *b == 0)
}

/// The bytes of the pieces that travel; without a copy if they lie together.
fn gather(bytes: &Bytes, unit: usize, pieces: &[Piece]) -> Bytes {
    let ranges: Vec<_> = ranges(bytes.len(), unit, pieces).filter(|(k, _)| *k == Kind::Data).map(|(_, r)| r).collect();
    match ranges.as_slice() {
        [] => Bytes::new(),
        [one] => bytes.slice(one.clone()),
        many => {
            let mut data = BytesMut::with_capacity(many.iter().map(std::ops::Range::len).sum());
            many.iter().for_each(|r| data.extend_from_slice(&bytes[r.clone()]));
            data.freeze()
        }
    }
}

/// The pieces as ranges of `len` bytes.
fn ranges(len: usize, unit: usize, pieces: &[Piece]) -> impl Iterator<Item = (Kind, std::ops::Range<usize>)> {
    let mut at = 0;
    pieces.iter().map(move |piece| {
        let end = at + unit.saturating_mul(piece.units as usize);
        let range = at.min(len)..end.min(len);
        at = end.min(len);
        (piece.kind, range)
    })
}

/// The pieces of a run as spans, and the bytes of those that travel; none if they do not fit one another. `end`: the address at which
/// the volume ends, `sector`: bytes of a sector.
pub fn spread(run: Span, pieces: &[Piece], data: &Bytes, end: u64, sector: usize) -> Option<Vec<(Span, Kind, Bytes)>> {
    let run = Span::new(run.at, run.end().min(end).checked_sub(run.at)?);
    let (mut at, mut from, mut out) = (run.at, 0, Vec::with_capacity(pieces.len()));
    for piece in pieces {
        let len = (u64::from(piece.units) * UNIT).min(run.end() - at);
        if piece.units == 0 || len == 0 {
            return None;
        }
        let span = Span::new(at, len);
        at += len;
        let bytes = if piece.kind == Kind::Data {
            let end = from + usize::try_from(len).ok()?.checked_mul(sector)?;
            let part = (end <= data.len()).then(|| data.slice(from..end))?;
            from = end;
            part
        } else {
            Bytes::new()
        };
        out.push((span, piece.kind, bytes));
    }
    (at == run.end() && from == data.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: usize = 64;

    fn bytes(units: &[u8]) -> Bytes {
        units.iter().flat_map(|u| [*u; U]).collect()
    }

    fn pieces(all: &[(Kind, u32)]) -> Vec<Piece> {
        all.iter().map(|(kind, units)| Piece { kind: *kind, units: *units }).collect()
    }

    #[test]
    fn only_what_differs_travels_and_zeroes_travel_as_zeroes() {
        let theirs = digests(&bytes(&[1, 2, 0, 4, 5, 9]), U);
        let mine = bytes(&[1, 3, 0, 0, 6, 7]);
        let found = compare(&mine, U, &theirs);
        let expected = [(Kind::Same, 1), (Kind::Data, 1), (Kind::Same, 1), (Kind::Zero, 1), (Kind::Data, 2)];
        assert_eq!((found.pieces, &found.data), (pieces(&expected), &bytes(&[3, 6, 7])));
        let all = compare(&mine, U, &[]);
        assert_eq!(all.pieces, pieces(&[(Kind::Data, 2), (Kind::Zero, 2), (Kind::Data, 2)]));
    }

    #[test]
    fn a_run_that_ends_with_the_device_has_a_short_last_unit() {
        let short = Bytes::from(vec![7; U + U / 2]);
        assert_eq!(digests(&short, U).len(), 2);
        assert_eq!(compare(&short, U, &digests(&short, U)).pieces, pieces(&[(Kind::Same, 2)]));
        let found = compare(&short, U, &[]);
        // Sectors of 8 bytes, a device of 12: a run of 16 ends with it.
        let spread = spread(Span::new(0, 16), &found.pieces, &found.data, 12, 8).expect("fits");
        assert_eq!(spread, [(Span::new(0, 12), Kind::Data, short)]);
    }

    #[test]
    fn pieces_that_do_not_fit_their_run_or_their_data_are_refused() {
        let run = Span::new(8, 16);
        let data = bytes(&[1]);
        let good = pieces(&[(Kind::Zero, 1), (Kind::Data, 1)]);
        assert_eq!(spread(run, &good, &data, 1000, 8).map(|s| s.len()), Some(2));
        for (wrong, data) in [
            (pieces(&[(Kind::Data, 1)]), &data),
            (pieces(&[(Kind::Zero, 1), (Kind::Data, 2)]), &bytes(&[1, 1])),
            (pieces(&[(Kind::Zero, 2)]), &data),
            (pieces(&[(Kind::Data, 2)]), &data),
            (pieces(&[(Kind::Zero, 2), (Kind::Same, 1)]), &Bytes::new()),
            (pieces(&[(Kind::Zero, 0), (Kind::Zero, 2)]), &Bytes::new()),
            (Vec::new(), &Bytes::new()),
        ] {
            assert_eq!(spread(run, &wrong, data, 1000, 8), None, "{wrong:?}");
        }
    }
}
