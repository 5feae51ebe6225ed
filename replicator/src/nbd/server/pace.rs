//! How much of the answers the kernel is to keep for a client that reads slower than it is answered.
//!
//! The kernel tells a server on a Unix socket that it may write, and wakes it for that, each time the client has read
//! something while at most a quarter of the send buffer is in use. With a large buffer and small answers that is after every
//! one of them. With a small buffer the rest of the answers wait here until the client has few left, and then many go in
//! one call; the client, which has still some, does not wait for it. Large answers want the opposite: a small buffer cuts them
//! to pieces, each with a call and a wake-up of its own.
//!
//! ```text
//!   as it comes ── a row of small answers ──► SMALL ◄──── a row of small answers ──┐
//!        └──────── a large answer ──────────► LARGE ◄──── a large answer ──────────┘
//! ```

/// For small answers: some 25 of 4 KiB. (The kernel doubles what it is told, for its own bookkeeping.)
const SMALL: usize = 64 << 10;
/// For large ones: what the kernel allows without privileges.
const LARGE: usize = 208 << 10;
/// Longer answers are large.
const LARGE_ANSWER: usize = 16 << 10;
/// Small answers in a row before they are the rule: a queue's length.
const ROW: u32 = 32;

/// What the answers of one connection are like.
#[derive(Debug, Default)]
pub(super) struct Pace {
    row: u32,
    set: Option<usize>,
}

impl Pace {
    /// An answer of so many bytes is about to be sent; the send buffer that is to be set, if it is to change.
    pub(super) fn answers(&mut self, len: usize) -> Option<usize> {
        self.row = if len > LARGE_ANSWER { 0 } else { self.row.saturating_add(1) };
        let wanted = match self.row {
            0 => LARGE,
            ROW.. => SMALL,
            _ => return None,
        };
        (self.set != Some(wanted)).then(|| *self.set.insert(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes that these answers lead to, with the number of the answer.
    fn changes(answers: impl IntoIterator<Item = usize>) -> Vec<(usize, usize)> {
        let mut pace = Pace::default();
        answers.into_iter().enumerate().filter_map(|(n, len)| Some((n, pace.answers(len)?))).collect()
    }

    #[test]
    fn buffer_follows_the_answers_and_is_set_only_when_it_changes() {
        assert_eq!(changes([4096; 100]), [(31, SMALL)]);
        assert_eq!(changes([131_072; 100]), [(0, LARGE)]);
        let phases = [vec![4096; 40], vec![131_072; 3], vec![16; 40]].concat();
        assert_eq!(changes(phases), [(31, SMALL), (40, LARGE), (74, SMALL)]);
    }

    #[test]
    fn a_large_answer_now_and_then_keeps_the_buffer_large() {
        let mixed = (0..1000).map(|n| if n % 20 == 0 { 131_072 } else { 4096 });
        assert_eq!(changes(mixed), [(0, LARGE)]);
    }
}
