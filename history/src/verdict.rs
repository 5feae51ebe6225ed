//! A whole history: each object by itself, and what is counted.

use core::fmt;
use std::collections::BTreeMap;

use crate::event::{Event, Excuse, History, Op, Outcome, Violation, Wrong};
use crate::{append, mutex, names, register};

/// What a history came to.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Verdict {
    /// Calls that were made.
    pub calls: u64,
    /// Of which acknowledged writes, appends and changes of names.
    pub acknowledged: u64,
    /// Calls that their node's death left unanswered, or failed.
    pub died: u64,
    /// Calls that failed on handles of an evicted node.
    pub evicted: u64,
    /// Calls that failed for no reason that a program has to accept.
    pub application_errors: Vec<Event>,
    /// Objects that were looked at: files, and blocks of files.
    pub objects: u64,
    /// What no volume could have answered, one for each object at most.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Whether everything is as it must be.
    pub fn is_right(&self) -> bool {
        self.violations.is_empty() && self.application_errors.is_empty()
    }

    /// Objects with something wrong of a kind.
    pub fn count(&self, wrong: Wrong) -> usize {
        self.violations.iter().filter(|v| v.wrong == wrong).count()
    }

    /// Of two parts of a run.
    pub fn and(mut self, other: Verdict) -> Verdict {
        self.calls += other.calls;
        self.acknowledged += other.acknowledged;
        self.died += other.died;
        self.evicted += other.evicted;
        self.objects += other.objects;
        self.application_errors.extend(other.application_errors);
        self.violations.extend(other.violations);
        self
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} calls on {} objects, {} changes acknowledged", self.calls, self.objects, self.acknowledged)?;
        writeln!(f, "acknowledged and lost: {}", self.count(Wrong::Lost))?;
        writeln!(f, "executed after failure: {}", self.count(Wrong::ExecutedAfterFailure))?;
        writeln!(f, "never asked for, or out of order: {}", self.count(Wrong::Invented))?;
        writeln!(f, "torn: {}", self.count(Wrong::Torn))?;
        writeln!(f, "application errors: {}", self.application_errors.len())?;
        writeln!(
            f,
            "apart from these: {} calls of killed nodes, {} on handles of evicted ones",
            self.died, self.evicted
        )?;
        self.application_errors.iter().take(20).try_for_each(|e| writeln!(f, "error: {e}"))?;
        self.violations.iter().try_for_each(|v| write!(f, "{v}"))
    }
}

/// What is checked by itself.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block(u64),
    Records,
    Names,
    Lock,
}

/// Which object a call is about; none if it changes and tells nothing, or is about a whole file.
fn kind(op: &Op) -> Option<Kind> {
    Some(match op {
        Op::Write { block, .. } | Op::Read { block } => Kind::Block(*block),
        Op::Append { .. } | Op::Scan { .. } => Kind::Records,
        Op::Create { .. } | Op::Unlink { .. } | Op::Rename { .. } | Op::Stat { .. } => Kind::Names,
        Op::Lock | Op::Unlock => Kind::Lock,
        Op::Fsync | Op::Open => return None,
    })
}

fn is_acknowledged_change(event: &Event) -> bool {
    let changes = match event.op {
        Op::Write { .. } | Op::Append { .. } | Op::Unlink { .. } | Op::Rename { .. } => true,
        Op::Create { .. } => matches!(event.outcome, Outcome::Inode(_)),
        _ => return false,
    };
    changes && event.must() && !matches!(event.outcome, Outcome::Absent | Outcome::Taken)
}

/// Checks a history.
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict { calls: history.events.len() as u64, ..Verdict::default() };
    let mut objects: BTreeMap<(&str, Kind), Vec<&Event>> = BTreeMap::new();
    let mut syncs: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        verdict.acknowledged += u64::from(is_acknowledged_change(event));
        if !event.outcome.is_answer() {
            match history.excuse(event) {
                Excuse::Died => verdict.died += 1,
                Excuse::Evicted => verdict.evicted += 1,
                Excuse::None => verdict.application_errors.push(event.clone()),
            }
        }
        match kind(&event.op) {
            Some(kind) => objects.entry((&event.object, kind)).or_default().push(event),
            None => syncs.entry(&event.object).or_default().push(event),
        }
    }
    verdict.objects = objects.len() as u64;
    for ((object, kind), mut events) in objects {
        let checked = match kind {
            Kind::Block(_) => register::check(&events),
            Kind::Records => {
                events.extend(syncs.get(object).into_iter().flatten());
                append::check(&events, history)
            }
            Kind::Names => names::check(&events),
            Kind::Lock => mutex::check(&events, history),
        };
        verdict.violations.extend(checked.err());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw;

    fn judged(lines: &str) -> Verdict {
        judge(&raw::read(&raw::in_order(lines)).expect("a history"))
    }

    #[test]
    fn objects_are_told_apart_and_each_kind_is_checked() {
        let good = "i 1 1 1 reg write 0 5\no 2 1 done\ni 3 2 2 reg read 1\no 4 2 value 0\ni 5 1 1 log append 9\no 6 1 done\n\
                    i 7 2 2 log scan 0\no 8 2 records 9\ni 9 1 1 dir create a\no 10 1 inode 3\ni 11 2 2 dir stat a\n\
                    o 12 2 inode 3\ni 13 1 1 lock lock\no 14 1 done\n";
        let found = judged(good);
        assert!(found.is_right(), "{found}");
        assert_eq!((found.calls, found.objects, found.acknowledged), (7, 5, 3));
        for (from, to) in [
            ("reg read 1\no 4 2 value 0", "reg read 0\no 4 2 value 0"),
            ("records 9", "records"),
            ("o 12 2 inode 3", "o 12 2 absent"),
        ] {
            let found = judged(&good.replace(from, to));
            assert_eq!(found.count(Wrong::Lost), 1, "{to}: {found}");
        }
        let both = format!("{good}i 15 2 2 lock lock\no 16 2 done\n");
        assert_eq!(judged(&both).violations.len(), 1);
    }

    #[test]
    fn errors_are_excused_only_by_what_happened_to_their_node() {
        let failed = |at: i64, node: u8, errno: i32| {
            let process = 100 * i64::from(node) + at + i64::from(errno);
            format!("i {at} {process} {node} reg read 0\no {} {process} failed {errno}\n", at + 1)
        };
        let evicted = "h 10 2 ending\nh 20 2 evicted\n";
        let killed = "h 10 2 ending\nh 12 2 ended\nh 20 2 begun\n";
        let counts = |text: String| {
            let found = judged(&text);
            (found.application_errors.len(), found.died, found.evicted)
        };
        assert_eq!(counts(failed(5, 2, 5)), (1, 0, 0));
        assert_eq!(counts(format!("{evicted}{}{}", failed(15, 2, 5), failed(90, 2, 5))), (0, 0, 2));
        assert_eq!(counts(format!("{evicted}{}{}{}", failed(5, 2, 5), failed(30, 1, 5), failed(30, 2, 28))), (3, 0, 0));
        assert_eq!(counts(format!("{killed}{}{}", failed(15, 2, 107), failed(30, 2, 107))), (1, 1, 0));
    }

    /// docs/evidence/README.md says of each file what the checker says of it.
    #[test]
    fn kept_histories_are_judged_as_their_page_says() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/evidence");
        let (mut right, mut wrong) = (0, 0);
        for entry in std::fs::read_dir(folder).expect("the evidence").map_while(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".txt.gz") {
                continue;
            }
            let text = std::process::Command::new("zcat").arg(entry.path()).output().expect("zcat runs").stdout;
            let found = judge(&raw::read(&String::from_utf8(text).expect("text")).expect("a history"));
            assert!(found.calls > 500, "{name}: {found}");
            match name.starts_with("passing") {
                true => assert!(found.is_right(), "{name}: {found}"),
                false => assert!(!found.violations.is_empty(), "{name}: {found}"),
            }
            *(if found.is_right() { &mut right } else { &mut wrong }) += 1;
        }
        assert!(right > 0 && wrong > 0, "{right} right, {wrong} wrong");
    }
}
