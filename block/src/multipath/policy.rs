//! Which path a request takes.
//!
//! First the group: only paths of the best port groups that can be reached are candidates. Of these, a path of the
//! request's own worker comes first: it needs no other thread. Among what is left the policy decides.

use super::config::{Config, Failback, MAX_PATHS, Policy};
use super::event::PathId;
use super::path::Path;
use super::rules::Rule;

/// Some of the paths.
#[derive(Clone, Copy, Debug, Default)]
struct Set(u32);

const _: () = assert!(MAX_PATHS == 32, "a set has as many bits");

impl Set {
    fn add(&mut self, n: usize) {
        self.0 |= 1 << n;
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_PATHS).filter(move |n| self.0 >> n & 1 == 1)
    }
}

/// What the choice remembers.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The last path that was taken.
    last: usize,
    /// The rank in use, and the path in use; where failback is manual they are kept.
    rank: Option<u8>,
    path: Option<usize>,
}

impl Choice {
    /// The path in use is not kept any more.
    pub(super) fn release(&mut self) {
        (self.rank, self.path) = (None, None);
    }

    /// The path for a request of `len` bytes from this worker, not the one that it avoids; none if no path can take it.
    pub(super) fn choose(
        &mut self,
        paths: &[Path],
        config: &Config,
        (len, worker, avoid): (u64, Option<usize>, Option<PathId>),
    ) -> Option<PathId> {
        let avoids = |n: usize| avoid.is_some_and(|a| usize::from(a.0) == n);
        let rank_of = |n: usize| paths.get(n).filter(|_| !avoids(n)).and_then(|p| p.rank(config.rules));
        let count = paths.len().min(MAX_PATHS);
        let best = (0..count).filter_map(rank_of).max()?;
        let manual = config.failback == Failback::Manual;
        let kept = self.rank.filter(|r| manual && (0..count).any(|n| rank_of(n) == Some(*r)));
        let rank = kept.unwrap_or(best);
        let (mut group, mut near) = (Set::default(), Set::default());
        for (n, path) in paths.iter().enumerate().take(count) {
            let usable = rank_of(n);
            if usable == Some(rank) || usable.is_some() && !config.rules.has(Rule::BestGroupOnly) {
                group.add(n);
                if worker.is_some() && path.worker == worker {
                    near.add(n);
                }
            }
        }
        let candidates = if near.is_empty() { group } else { near };
        let chosen = self.among(candidates, paths, config, len)?;
        (self.last, self.rank, self.path) = (chosen, Some(rank), Some(chosen));
        u16::try_from(chosen).ok().map(PathId)
    }

    fn among(&self, candidates: Set, paths: &[Path], config: &Config, len: u64) -> Option<usize> {
        // Equals are taken in turn, so that an idle device uses all of them.
        let turn = |n: usize| (n + paths.len() - (self.last + 1) % paths.len()) % paths.len();
        let mut in_turn = candidates.iter();
        match config.policy {
            Policy::RoundRobin => in_turn.min_by_key(|n| turn(*n)),
            Policy::LeastQueue => in_turn.min_by_key(|n| (paths.get(*n).map(|p| p.in_flight), turn(*n))),
            Policy::ServiceTime => in_turn.min_by_key(|n| {
                let micros = paths.get(*n).map(|p| (p.bytes + len).saturating_mul(1_000_000) / p.speed.max(1));
                (micros, turn(*n))
            }),
            Policy::Failover => {
                let kept =
                    self.path.filter(|p| config.failback == Failback::Manual && candidates.iter().any(|n| n == *p));
                kept.or_else(|| in_turn.next())
            }
        }
    }
}
