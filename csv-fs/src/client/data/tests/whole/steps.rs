//! Steps of a run. What a step does to which file follows from its numbers and from what there is; so any part of a list of
//! steps is a list of steps.

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Create,
    Nameless,
    Mkdir,
    Symlink,
    Link,
    Unlink,
    Rmdir,
    Rename,
    Open,
    Close,
    Write,
    Append,
    /// Many small pieces with holes between them: a file of hundreds of extents.
    Scatter,
    Read,
    Truncate,
    Allocate,
    Punch,
    Zero,
    Copy,
    Seek,
    Fsync,
    SyncAll,
    Stat,
    List,
    Lookup,
    Chmod,
    SetXattr,
    RemoveXattr,
    Xattrs,
    Redirect,
    Takeover,
    /// The next step is taken while the office changes hands.
    TakeoverBeside,
    /// The answer of the next step that changes something is lost with its connection.
    LoseAnswer,
    /// The same, and the coordinator dies with it.
    LoseCoordinator,
    Evict,
    EvictUnsynced,
    /// The reference forgets a name: to see that a difference is found.
    Forget,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) what: What,
    pub(super) node: usize,
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) c: u64,
}

/// How often each is drawn, of 1000.
const WEIGHTS: [(What, u64); 36] = [
    (What::Create, 70),
    (What::Nameless, 8),
    (What::Mkdir, 30),
    (What::Symlink, 15),
    (What::Link, 25),
    (What::Unlink, 60),
    (What::Rmdir, 20),
    (What::Rename, 60),
    (What::Open, 50),
    (What::Close, 60),
    (What::Write, 130),
    (What::Append, 40),
    (What::Scatter, 8),
    (What::Read, 102),
    (What::Truncate, 30),
    (What::Allocate, 15),
    (What::Punch, 20),
    (What::Zero, 10),
    (What::Copy, 10),
    (What::Seek, 10),
    (What::Fsync, 30),
    (What::SyncAll, 3),
    (What::Stat, 60),
    (What::List, 20),
    (What::Lookup, 30),
    (What::Chmod, 12),
    (What::SetXattr, 30),
    (What::RemoveXattr, 10),
    (What::Xattrs, 15),
    (What::Redirect, 6),
    (What::Takeover, 2),
    (What::TakeoverBeside, 4),
    (What::LoseAnswer, 8),
    (What::LoseCoordinator, 4),
    (What::Evict, 1),
    (What::EvictUnsynced, 2),
];

/// Splitmix64: the same seed, the same steps.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn draw(random: &mut Random) -> Step {
    let all: u64 = WEIGHTS.iter().map(|(_, w)| w).sum();
    let mut at = random.next() % all;
    let what = WEIGHTS.iter().find(|(_, weight)| {
        let hit = at < *weight;
        at = at.wrapping_sub(*weight);
        hit
    });
    let node = (random.next() % 2) as usize;
    let mut next = || random.next() >> 16;
    Step { what: what.map_or(What::Stat, |(what, _)| *what), node, a: next(), b: next(), c: next() }
}

/// The steps of a seed.
pub(super) fn of_seed(seed: u64, count: u64) -> Vec<Step> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    (0..count).map(|_| draw(&mut random)).collect()
}

impl Step {
    /// A name of few.
    pub(super) fn name(&self) -> Vec<u8> {
        format!("n{}", self.b % 7).into_bytes()
    }

    /// Another one.
    pub(super) fn other_name(&self) -> Vec<u8> {
        format!("n{}", self.c % 7).into_bytes()
    }

    /// A place in a file of that length: near its beginning, its end, or anywhere; often at a block, a sector, or at neither.
    pub(super) fn offset(&self, len: u64) -> u64 {
        match self.b % 5 {
            0 => len.saturating_sub(place(self.b / 5, 10_000)),
            1 => place(self.b / 5, len + 1),
            _ => place(self.b / 5, 60_000),
        }
    }

    /// Pieces of a scattered write, one in every second block: where, and how long.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (first, of, count) = (self.b % 40, self.c, 70 + self.c % 250);
        (0..count).map(move |i| {
            let within = (of.wrapping_mul(i + 1) >> 5) % 1000;
            ((first + 2 * i) * 4096 + within, 1 + (of.wrapping_add(i * 977)) % (4096 - within))
        })
    }

    /// A length, never 0.
    pub(super) fn len(&self) -> u64 {
        place(self.c, 20_000).max(1)
    }

    /// Bytes that tell the step.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes_of(0, self.len())
    }

    /// Bytes that tell the step and the piece.
    pub(super) fn bytes_of(&self, piece: u64, len: u64) -> Vec<u8> {
        (0..len).map(|i| (self.a ^ (i * 31) ^ (i >> 8) ^ (piece * 6)) as u8 | 1).collect()
    }
}

fn place(number: u64, max: u64) -> u64 {
    let at = (number >> 2) % max;
    match number % 3 {
        0 => at / 4096 * 4096,
        1 => at / 512 * 512,
        _ => at,
    }
}
