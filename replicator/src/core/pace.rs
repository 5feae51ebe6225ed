//! How much a synchronisation may have under way, so that applications do not feel it and an idle link is used.
//!
//! ```text
//!              nobody asks for anything          worse than HURTS times calm
//!   twice as much, up to the most ◄──┐       ┌──► half, down to the least
//!                                    │ room  │
//!        a little more ◄─────────────┴───────┴──► held: between the two
//!          as good as calm
//! ```
//! The source decides, because the applications are there; it tells the target with each answer. A step is a tenth of a
//! second, in which requests of applications are counted and their times summed up. *Calm* is what they take while nothing is
//! synchronised. A synchronisation that begins on an idle link has the most at once; the first request that comes to an idle link
//! leaves it an eighth of that, before the step is over. Every [`PROBE_AFTER`] steps the synchronisation holds back for [`PROBE`] of them and calm is
//! measured anew: otherwise a load that has become slower by itself would be taken for hurt, and the synchronisation
//! would creep; or, the other way round, its own hurt for calm.

/// Requests of applications in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Reads.
    pub reads: Times,
    /// Writes and flushes.
    pub writes: Times,
}

/// Of requests of one kind: how many ended, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Requests that ended.
    pub count: u32,
    /// Their times, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// One more.
    pub fn add(&mut self, us: u64) {
        self.count += 1;
        self.sum_us += us;
    }

    fn mean(self) -> Option<u64> {
        (self.count > 0).then(|| self.sum_us / u64::from(self.count))
    }
}

/// Steps without a request after which a link counts as idle: a second, so that who writes now and then is not overrun.
const QUIET: u32 = 10;
/// Requests that take so many percent of calm are hurt; under the other they are not.
const HURTS: u64 = 150;
const CALM: u64 = 120;
/// What is too little to speak of hurt, in microseconds.
const SLACK: u64 = 100;
/// Steps from one look at calm to the next.
const PROBE_AFTER: u32 = 100;
/// Steps of a look: what was under way ends in the first, the last is counted.
const PROBE: u32 = 3;

/// The controller.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    least: u64,
    most: u64,
    room: u64,
    quiet: u32,
    reads: Gauge,
    writes: Gauge,
    /// Steps until the next look at calm.
    due: u32,
    /// Steps of a look that are left, and what is gone back to.
    probing: Option<(u32, u64)>,
}

/// What calm is for requests of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    calm: Option<u64>,
}

impl Gauge {
    /// Nothing is synchronised: slowly to what is seen.
    fn learn(&mut self, seen: Option<u64>) {
        if let Some(seen) = seen {
            self.calm = Some(self.calm.map_or(seen, |calm| (calm * 7 + seen) / 8));
        }
    }

    /// In percent of calm.
    fn hurt(self, seen: Option<u64>) -> u64 {
        match (self.calm, seen) {
            (Some(calm), Some(seen)) if seen > calm + SLACK => seen * 100 / calm.max(1),
            _ => 100,
        }
    }
}

impl Pace {
    /// Between these bytes.
    pub(super) fn new(least: u64, most: u64) -> Pace {
        let (reads, writes) = (Gauge::default(), Gauge::default());
        Pace { least, most, room: least, quiet: 0, reads, writes, due: PROBE_AFTER, probing: None }
    }

    /// Bytes that may be under way now.
    pub(super) fn room(&self) -> u64 {
        if self.probing.is_some() { self.least } else { self.room }
    }

    /// An application asks for something.
    pub(super) fn asked(&mut self) {
        if self.quiet >= QUIET {
            self.quiet = 0;
            self.room = (self.room / 8).max(self.least);
        }
    }

    /// A step is over.
    pub(super) fn step(&mut self, load: &Load, synchronising: bool) {
        let (reads, writes) = (load.reads.mean(), load.writes.mean());
        let busy = reads.is_some() || writes.is_some();
        self.quiet = if busy { 0 } else { self.quiet.saturating_add(1) };
        if !synchronising {
            self.reads.learn(reads);
            self.writes.learn(writes);
            let room = if self.quiet >= QUIET { self.most } else { self.least };
            (self.room, self.probing, self.due) = (room, None, PROBE_AFTER);
            return;
        }
        if !busy {
            if self.quiet >= QUIET {
                (self.room, self.probing) = ((self.room * 2).min(self.most), None);
            }
            return;
        }
        let unknown =
            (reads.is_some() && self.reads.calm.is_none()) || (writes.is_some() && self.writes.calm.is_none());
        match self.probing {
            Some((left, back)) if left <= 1 => self.looked(reads, writes, back),
            Some((left, back)) => self.probing = Some((left - 1, back)),
            None if self.due == 0 || unknown => self.probing = Some((PROBE, self.room)),
            None => self.adjust(self.reads.hurt(reads).max(self.writes.hurt(writes))),
        }
    }

    /// Calm was measured.
    fn looked(&mut self, reads: Option<u64>, writes: Option<u64>, back: u64) {
        self.reads.calm = reads.or(self.reads.calm);
        self.writes.calm = writes.or(self.writes.calm);
        (self.room, self.probing, self.due) = (back, None, PROBE_AFTER);
    }

    fn adjust(&mut self, hurt: u64) {
        self.due -= 1;
        self.room = if hurt > HURTS {
            self.room / 2
        } else if hurt < CALM {
            self.room + (self.room / 8).max(self.least)
        } else {
            self.room
        }
        .clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 64 << 10;
    const MOST: u64 = 8 << 20;

    /// A link and its disks, in virtual time: a request takes `calm` alone, and longer by what a synchronisation has under way.
    struct Link {
        pace: Pace,
        calm: u64,
    }

    impl Link {
        fn new(calm: u64) -> Link {
            Link { pace: Pace::new(LEAST, MOST), calm }
        }

        /// What a request takes now: 1 MiB under way is a millisecond of queue.
        fn takes(&self, synchronising: bool) -> u64 {
            self.calm + if synchronising { self.pace.room() / 1049 } else { 0 }
        }

        fn step(&mut self, requests: u32, synchronising: bool) {
            let sum_us = u64::from(requests) * self.takes(synchronising);
            let load = Load { writes: Times { count: requests, sum_us }, ..Load::default() };
            self.pace.step(&load, synchronising);
        }

        fn steps(&mut self, count: u32, requests: u32, synchronising: bool) {
            (0..count).for_each(|_| self.step(requests, synchronising));
        }
    }

    #[test]
    fn an_idle_link_is_used_in_full_within_two_seconds() {
        let mut link = Link::new(300);
        link.steps(20, 0, true);
        assert_eq!(link.pace.room(), MOST);
    }

    #[test]
    fn a_synchronisation_that_begins_on_an_idle_link_has_all_of_it_and_on_a_busy_one_the_least() {
        let mut link = Link::new(300);
        link.steps(QUIET, 0, false);
        assert_eq!(link.pace.room(), MOST);
        link.steps(1, 100, false);
        link.steps(QUIET - 1, 0, false);
        assert_eq!(link.pace.room(), LEAST);
    }

    #[test]
    fn the_first_request_that_comes_to_an_idle_link_holds_a_synchronisation_back_at_once() {
        let mut link = Link::new(300);
        link.steps(QUIET, 0, false);
        link.steps(QUIET, 0, true);
        link.pace.asked();
        assert_eq!(link.pace.room(), MOST / 8);
        link.pace.asked();
        assert_eq!(link.pace.room(), MOST / 8, "once");
        link.steps(QUIET + 3, 0, true);
        assert_eq!(link.pace.room(), MOST);
    }

    #[test]
    fn applications_that_come_are_hurt_for_less_than_a_second_and_then_hardly() {
        let mut link = Link::new(300);
        link.steps(50, 100, false);
        link.steps(30, 0, true);
        assert_eq!(link.pace.room(), MOST, "nobody asked for anything");
        link.steps(9, 100, true);
        // Over minutes: never worse than half as much again, but for a step after a look at calm.
        let worse = (0..2000).filter(|_| {
            link.step(100, true);
            link.takes(true) > link.calm * 3 / 2 + SLACK
        });
        assert!(worse.count() < 2000 / 50, "{:?}", link.pace);
        let room = link.pace.room();
        assert!(room > LEAST && room < MOST / 8, "{room}");
    }

    #[test]
    fn when_they_are_gone_the_link_is_used_in_full_again() {
        let mut link = Link::new(300);
        link.steps(50, 100, false);
        link.steps(100, 100, true);
        assert!(link.pace.room() < MOST / 8);
        link.steps(QUIET + 8, 0, true);
        assert_eq!(link.pace.room(), MOST);
    }

    #[test]
    fn who_asks_now_and_then_is_not_taken_for_idle() {
        let mut link = Link::new(300);
        link.steps(50, 100, false);
        link.steps(60, 100, true);
        let room = link.pace.room();
        for _ in 0..20 {
            link.steps(1, 1, true);
            link.steps(QUIET - 1, 0, true);
        }
        assert!(link.pace.room() <= room * 4, "{} after {room}", link.pace.room());
    }

    /// An application that itself begins to write slower is no reason to creep for ever.
    #[test]
    fn a_load_that_is_slower_by_itself_is_not_taken_for_hurt_for_long() {
        let mut link = Link::new(300);
        link.steps(50, 100, false);
        link.steps(50, 100, true);
        link.calm = 20_000;
        link.steps(10, 100, true);
        assert_eq!(link.pace.room(), LEAST, "it could have been the synchronisation");
        link.steps(2 * PROBE_AFTER, 100, true);
        assert!(link.pace.room() > MOST / 4, "{:?}", link.pace);
    }

    #[test]
    fn calm_is_measured_first_if_it_was_never_seen() {
        let mut link = Link::new(300);
        link.steps(20, 0, true);
        link.step(100, true);
        assert_eq!(link.pace.room(), LEAST, "a look at calm");
        link.steps(PROBE, 100, true);
        assert_eq!(link.pace.writes.calm, Some(link.calm + LEAST / 1049));
    }
}
