//! Random faults, many seeds: never two in office, and once the faults stop, exactly one.

use super::lab::{Lab, node};
use crate::core::office::*;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn node(&mut self, nodes: u8) -> u8 {
        u8::try_from(self.below(u64::from(nodes))).unwrap_or(0) + 1
    }
}

/// One fault, or the end of one.
fn disturb(lab: &mut Lab, chance: &mut Chance, nodes: u8) {
    let n = chance.node(nodes);
    let up = lab.hosts.get(&node(n)).is_some_and(|h| h.up);
    if !up {
        if !lab.locks.contains_key(&node(n)) {
            lab.start(n);
        }
        return;
    }
    match chance.below(13) {
        0 => lab.kill(n, chance.below(300)),
        1 => lab.host(n).hang = true,
        2 => lab.unhang(n),
        3 => lab.host(n).frozen = true,
        4 => lab.thaw(n),
        5 => lab.cut(n, n % nodes + 1),
        6 => lab.heal(n, n % nodes + 1),
        7 => lab.host(n).lose_lease_replies = 1,
        8 => lab.host(n).stick_lease ^= true,
        9 => drop(lab.land_stuck(n)),
        10 => drop(lab.give(n, Event::OwnPath { ok: chance.below(2) == 0 })),
        11 => drop(lab.give(n, Event::Barred { barred: chance.below(2) == 0 })),
        _ => drop(lab.give(n, Event::Resign { to: (chance.below(2) == 0).then(|| node(n % nodes + 1)) })),
    }
}

fn calm(lab: &mut Lab, nodes: u8) {
    for n in 1..=nodes {
        if lab.hosts.get(&node(n)).is_some_and(|h| h.up) {
            lab.host(n).stick_lease = false;
            lab.unhang(n);
            lab.thaw(n);
            lab.give(n, Event::OwnPath { ok: true });
            lab.give(n, Event::Barred { barred: false });
        }
    }
    lab.run_for(1000);
    for n in 1..=nodes {
        if !lab.hosts.get(&node(n)).is_some_and(|h| h.up) {
            lab.start(n);
        }
    }
    for a in 1..=nodes {
        for b in a + 1..=nodes {
            lab.heal(a, b);
        }
    }
}

fn storm(seed: u64) {
    let mut chance = Chance(seed);
    let nodes = 2 + u8::try_from(chance.below(3)).unwrap_or(0);
    let mut lab = Lab::new(&(1..=nodes).collect::<Vec<_>>());
    (1..=nodes).for_each(|n| lab.start(n));
    for _ in 0..150 {
        disturb(&mut lab, &mut chance, nodes);
        let end = lab.now.0 + chance.below(700);
        while lab.now.0 < end {
            lab.run_for(5);
            assert!(lab.coordinators().len() <= 1, "seed {seed}: {:?} at {}", lab.coordinators(), lab.now);
        }
    }
    calm(&mut lab, nodes);
    lab.run_for(20_000);
    assert_eq!(lab.coordinators().len(), 1, "seed {seed}: nobody, or two, at {}; lease {:?}", lab.now, lab.lease);
}

#[test]
fn a_storm_of_faults_never_leaves_two_in_office_and_in_the_end_one() {
    (0..120).for_each(storm);
}
