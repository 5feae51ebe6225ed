//! What goes wrong, by chance: each fault with its end, drawn from the seed.

use block::shared::NodeId;

use super::disk::Path;
use super::world::{MS, World};
use crate::core::client::Event;

/// Kinds of fault, with their weights; `scsi`: only for that kind, `file`: only for the other.
const KINDS: [(&str, u64, Only); 27] = [
    ("kill", 6, Only::Any),
    ("kill coordinator", 6, Only::Any),
    ("pause", 5, Only::Any),
    ("pause coordinator", 4, Only::Any),
    ("virtual machine pause", 4, Only::Any),
    ("clock stop", 3, Only::Any),
    ("cut node", 4, Only::Any),
    ("cut one way", 5, Only::Any),
    ("partition", 4, Only::Any),
    ("slow link", 4, Only::Any),
    ("connection reset", 8, Only::Any),
    ("path hangs", 7, Only::Any),
    ("path fails", 5, Only::Any),
    ("path slow", 4, Only::Any),
    ("coordinator path hangs", 4, Only::Any),
    ("writes stick", 6, Only::Any),
    ("pages stick", 5, Only::Any),
    ("disk sticks", 6, Only::Scsi),
    ("commit stalls", 4, Only::Any),
    ("caw lost", 6, Only::Any),
    ("move", 6, Only::Any),
    ("administrator", 4, Only::Any),
    ("session breaks", 8, Only::Scsi),
    ("nexus hangs", 8, Only::Scsi),
    ("device reset", 2, Only::Any),
    ("planned restart", 6, Only::Any),
    ("kill under a holder", 9, Only::File),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Any,
    Scsi,
    File,
}

/// The names of all kinds that can happen.
pub fn fault_names() -> Vec<&'static str> {
    KINDS.iter().map(|(name, _, _)| *name).collect()
}

impl World {
    /// Faults, one after the other, until `end`; each is over by itself a while after.
    pub(super) fn faults_until(&mut self, end: u64, mean_ms: u64) {
        if self.now >= end {
            return;
        }
        self.one_fault();
        let pause = MS * self.rng.range(10, 2 * mean_ms);
        self.after(pause, move |w| w.faults_until(end, mean_ms));
    }

    fn one_fault(&mut self) {
        let total: u64 = KINDS.iter().map(|(_, weight, _)| weight).sum();
        let mut at = self.rng.below(total);
        let Some((name, _, only)) = KINDS.iter().find(|(_, weight, _)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        }) else {
            return;
        };
        if *only == if self.setup.scsi { Only::File } else { Only::Scsi } {
            return;
        }
        let all = self.all();
        let Some(any) = self.rng.pick(&all) else { return };
        let coordinator = self.coordinators().first().copied();
        self.strike(name, any, coordinator);
    }

    /// Makes one fault happen; what needs a coordinator passes if there is none.
    pub(super) fn strike(&mut self, name: &str, any: NodeId, coordinator: Option<NodeId>) {
        let on_coordinator = name.contains("coordinator");
        let n = match coordinator {
            Some(c) if on_coordinator || matches!(name, "move" | "pages stick" | "commit stalls") => c,
            None if on_coordinator || matches!(name, "move" | "pages stick" | "commit stalls") => return,
            _ => any,
        };
        let done = match name {
            "kill" | "kill coordinator" => self.kill_for_a_while(n),
            "pause" | "pause coordinator" => self.pause_for_a_while(n, false),
            "virtual machine pause" => self.pause_for_a_while(n, true),
            "clock stop" => self.clock_stops(n),
            "cut node" | "cut one way" | "partition" => self.cut(n, name),
            "slow link" => self.slow_link(n),
            "connection reset" => self.reset_connection(),
            "path hangs" | "coordinator path hangs" => self.bad_path(n, Path::Hangs),
            "path fails" => self.bad_path(n, Path::Fails),
            "path slow" => {
                let by = self.rng.below(400 * MS);
                self.bad_path(n, Path::Slow(by))
            }
            "writes stick" => {
                self.disk.stick_data.insert(n, 2);
                true
            }
            "pages stick" => {
                self.disk.stick_pages.insert(n, 1);
                true
            }
            "disk sticks" => self.disk_sticks(n),
            "commit stalls" => {
                self.disk.stall_commits.insert(n, 1);
                true
            }
            "caw lost" => {
                let before = self.rng.permille(400);
                self.disk.lose_caw.entry(n).or_default().push(before);
                true
            }
            "move" => {
                let all = self.all();
                let to = self.rng.pick(&all).filter(|to| *to != n);
                self.resign(n, to);
                true
            }
            "administrator" => self.forced_for_a_while(n),
            "session breaks" => {
                let (nexus, wait) = (self.rng.below(u64::from(self.setup.nexuses)) as u16, self.rng.range(20, 900));
                self.session_breaks(n, nexus, wait);
                true
            }
            "nexus hangs" => self.nexus_hangs_for_a_while(n),
            "planned restart" => self.restart(n),
            "kill under a holder" => self.kill_held(n),
            "device reset" => {
                self.reset_disk();
                true
            }
            _ => false,
        };
        if done {
            self.fault(name);
        }
    }

    fn kill_for_a_while(&mut self, n: NodeId) -> bool {
        if !self.is_up(n) {
            return false;
        }
        self.kill(n);
        // In the middle of a planned restart it is not started twice.
        let again = MS * self.rng.range(50, 6000);
        self.after(again, move |w| {
            if !w.is_up(n) {
                w.start(n);
            }
        });
        true
    }

    fn pause_for_a_while(&mut self, n: NodeId, clock_too: bool) -> bool {
        if !self.is_running(n) {
            return false;
        }
        self.pause(n, clock_too);
        let on = MS * self.rng.range(50, 8000);
        self.after(on, move |w| w.resume(n));
        true
    }

    /// Writes of a node stick in the disk, and it may die of that, or stand still.
    fn disk_sticks(&mut self, n: NodeId) -> bool {
        self.disk.stick_behind.insert(n, 2);
        let (dies, stands, on) = (self.rng.permille(300), self.rng.permille(300), MS * self.rng.range(50, 1500));
        self.after(on, move |w| {
            if dies {
                w.kill_for_a_while(n);
            } else if stands {
                w.pause_for_a_while(n, true);
            }
        });
        true
    }

    fn clock_stops(&mut self, n: NodeId) -> bool {
        self.stop_clock(n);
        let on = MS * self.rng.range(100, 4000);
        self.after(on, move |w| {
            if !w.nodes[&n].paused {
                w.clock_goes_on(n);
            }
        });
        true
    }

    fn cut(&mut self, n: NodeId, how: &str) -> bool {
        let all = self.all();
        let side: Vec<NodeId> = match how {
            "partition" => all.iter().copied().filter(|_| self.rng.permille(500)).collect(),
            _ => vec![n],
        };
        let others: Vec<NodeId> = all.into_iter().filter(|m| !side.contains(m)).collect();
        let out = how != "cut one way" || self.rng.permille(500);
        let back = how != "cut one way" || !out;
        let cuts: Vec<(NodeId, NodeId)> = side.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))).collect();
        for (a, b) in &cuts {
            if out {
                self.net.cut.insert((*a, *b));
            }
            if back {
                self.net.cut.insert((*b, *a));
            }
        }
        let heal = MS * self.rng.range(50, 6000);
        self.after(heal, move |w| {
            for (a, b) in cuts {
                w.net.cut.remove(&(a, b));
                w.net.cut.remove(&(b, a));
            }
        });
        true
    }

    fn slow_link(&mut self, n: NodeId) -> bool {
        let all = self.all();
        let Some(m) = self.rng.pick(&all).filter(|m| *m != n) else { return false };
        let by = self.rng.below(600 * MS);
        self.net.slow.insert((n, m), by);
        let heal = MS * self.rng.range(100, 5000);
        self.after(heal, move |w| {
            w.net.slow.remove(&(n, m));
        });
        true
    }

    fn reset_connection(&mut self) -> bool {
        let open = self.net.open();
        let Some(conn) = self.rng.pick(&open) else { return false };
        let later = self.rng.below(400 * MS);
        self.break_conn(conn, later);
        true
    }

    fn bad_path(&mut self, n: NodeId, path: Path) -> bool {
        self.set_path(n, path);
        let heal = MS * self.rng.range(50, 6000);
        self.after(heal, move |w| w.set_path(n, Path::Good));
        true
    }

    /// One nexus hangs, which its node notices sooner or later.
    fn nexus_hangs_for_a_while(&mut self, n: NodeId) -> bool {
        let nexus = self.rng.below(u64::from(self.setup.nexuses)) as u16;
        self.nexus_hangs(n, nexus, true);
        let (noticed, heal) = (MS * self.rng.range(20, 1500), MS * self.rng.range(50, 6000));
        self.at_node(n, noticed, move |w| w.nexus_given_up(n, nexus));
        self.after(heal, move |w| w.nexus_hangs(n, nexus, false));
        true
    }

    fn forced_for_a_while(&mut self, n: NodeId) -> bool {
        self.at_node(n, 0, move |w| w.client(n, Event::Forced { redirect: true }));
        let heal = MS * self.rng.range(200, 3000);
        self.after(heal, move |w| {
            if w.is_up(n) {
                w.at_node(n, 0, move |w| w.client(n, Event::Forced { redirect: false }));
            }
        });
        true
    }

    /// Faults off: everything that is broken is whole again.
    pub(super) fn heal_all(&mut self) {
        self.trace(|| "faults off".to_owned());
        self.net.cut.clear();
        self.net.slow.clear();
        self.disk.stick_data.clear();
        self.disk.stick_pages.clear();
        self.disk.stick_behind.clear();
        self.disk.stall_commits.clear();
        self.disk.hung.clear();
        self.disk.lose_caw.clear();
        for n in self.all() {
            self.set_path(n, Path::Good);
            self.resume(n);
            self.clock_goes_on(n);
            if !self.is_up(n) && !self.leaving.contains_key(&n) {
                self.start(n);
            }
            self.at_node(n, 0, move |w| w.client(n, Event::Forced { redirect: false }));
        }
    }
}
