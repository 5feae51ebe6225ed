//! What becomes of the second volume: it is taken away, or gets another disk.

use super::*;
use crate::meta::replica::Swap;

impl World {
    /// In a fifth of the seeds with two volumes the second one is taken away; not where it grows, or its disk is replaced.
    pub(super) fn takes_away(&self) -> bool {
        let swaps = self.plan.rates.swap + self.plan.rates.replace > 0;
        self.has_two() && !self.grows() && !swaps && (self.plan.leaves || self.plan.seed % 5 == 2)
    }

    /// It is to be taken away, and is there yet somewhere.
    pub(super) fn waits_for_the_end_of_second(&self) -> bool {
        let has = |h: &Host| h.node.as_ref().is_none_or(|n| n.sizes().of(second()) > 0 || n.leaves());
        self.takes_away() && self.hosts.values().any(has)
    }

    /// An administrator takes it away, also where somebody is not there; again, until it is gone everywhere.
    pub(super) fn ask_to_take_away(&mut self, primaries: &[NodeId]) {
        if !self.takes_away() || self.now < 900 || !self.waits_for_the_end_of_second() || !self.rng.permille(300) {
            return;
        }
        for node in primaries {
            let force = self.rng.permille(500);
            self.event(*node, Event::TakeAway { volume: second(), force });
        }
    }

    /// The disk of the second volume of one node is replaced by one on which lies what nobody wrote.
    pub(super) fn swap_a_disk(&mut self) {
        let rate = self.plan.rates.swap;
        let may = self.has_two() && !self.grows() && self.may_replace();
        if rate == 0 || !may || !self.chance("disk of a volume swapped", rate) {
            return;
        }
        let node = self.victim();
        self.crash(node);
        self.oracle.replaced(node, self.now);
        let swap = Swap {
            volume: second(),
            number: 1000 + self.events,
            len: self.second_sectors() * SECTOR,
            marks: self.plan.rules.has(Rule::SwappedIsMarked),
        };
        let whose = swap.number * 1000;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.disk.swap(&mut self.rng);
        fill(&mut host.disk, second().span(SECOND[0] * BLOCK), whose);
        let known = host.disk.meta_len();
        match Replica::swap(&host.disk, known, &[], swap) {
            Ok(write) => {
                host.disk.format(&write.first);
                host.disk.format(&write.then);
                host.swapped = true;
            }
            Err(e) => self.oracle.object("I4 Covered", format!("{node} cannot give a volume another disk: {e}")),
        }
    }
}
