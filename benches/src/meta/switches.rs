//! How often the threads of processes slept and were woken again: what most of a round trip's time is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::arms::Arm;

/// Seconds that are counted; a thread that only ticks shows as next to nothing.
const SECONDS: f64 = 1.0;

/// A process whose threads are counted, and what to call it.
pub(super) type Watched = (&'static str, u32);

/// Runs an arm, and says for each process how often its threads switched by themselves per operation.
pub(super) fn count(job: &str, arm: &mut dyn Arm, processes: &[Watched]) -> Result<(), Failure> {
    arm.prepare()?;
    let look = || processes.iter().map(|(_, pid)| of(*pid)).collect::<Result<Vec<_>, _>>();
    let before = look()?;
    let ops = arm.measure(SECONDS)?.ops.max(1);
    let after = look()?;
    arm.tidy()?;
    let mut line = format!("  {job}: switches of threads per request");
    for (((name, _), before), after) in processes.iter().zip(&before).zip(&after) {
        let each = after.iter().map(|(thread, n)| (thread, n.saturating_sub(*before.get(thread).unwrap_or(&0))));
        let mut each: Vec<(&String, f64)> = each.map(|(thread, n)| (thread, n as f64 / ops as f64)).collect();
        each.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = each.iter().map(|(_, n)| n).sum();
        let most = each.iter().filter(|(_, n)| *n >= 0.05).map(|(thread, n)| format!("{thread} {n:.2}"));
        let most: Vec<String> = most.collect();
        // Writing to a string cannot fail.
        let _ = write!(line, "; {name} {total:.2} ({})", most.join(", "));
    }
    eprintln!("{line}");
    Ok(())
}

/// Voluntary switches of a process so far, by the names of its threads.
fn of(pid: u32) -> Result<BTreeMap<String, u64>, Failure> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut switches = BTreeMap::new();
    for task in fs::read_dir(&tasks).map_err(|e| Failure::at(&tasks, e))? {
        let task = task.map_err(|e| Failure::at(&tasks, e))?.path();
        // A thread may end while it is looked at.
        let read = |file| fs::read_to_string(task.join(file)).unwrap_or_default();
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        let count = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        *switches.entry(name).or_default() += count.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(switches)
}

#[cfg(test)]
mod tests {
    /// Looks at its own thread only: another one that ends meanwhile takes its count along.
    #[test]
    fn the_switches_of_a_thread_are_counted() {
        let me = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        let mine = || super::of(std::process::id()).unwrap()[me.trim()];
        let before = mine();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(mine() > before);
    }
}
