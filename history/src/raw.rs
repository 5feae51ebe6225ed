//! A history as text, a line an event; what a worker writes and what is kept as evidence. Read by people and by [`read`].
//!
//! ```text
//! shorefast-history 1
//! # anything                           a remark
//! n TIME TEXT                          what was done to the nodes
//! h TIME NODE ending|ended|evicted|begun   what became of a node
//! i TIME PROCESS NODE OBJECT OP        a process begins a call
//! o TIME PROCESS OUTCOME               the same process has its answer
//! ```
//! Times are nanoseconds since the run began. A process has one call at a time; one without an answer has an unknown outcome. A
//! file begins with its version.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::event::{Event, Happening, History, NEVER, Nanos, Op, Outcome, Turn};

/// The first line.
pub const VERSION: &str = "shorefast-history 1";

/// An operation, as its line has it.
pub fn op_text(op: &Op) -> String {
    match op {
        Op::Write { block, value } => format!("write {block} {value}"),
        Op::Read { block } => format!("read {block}"),
        Op::Fsync => "fsync".to_owned(),
        Op::Append { value } => format!("append {value}"),
        Op::Scan { from } => format!("scan {from}"),
        Op::Create { name } => format!("create {name}"),
        Op::Unlink { name } => format!("unlink {name}"),
        Op::Rename { from, to } => format!("rename {from} {to}"),
        Op::Stat { name } => format!("stat {name}"),
        Op::Lock => "lock".to_owned(),
        Op::Unlock => "unlock".to_owned(),
        Op::Open => "open".to_owned(),
    }
}

/// An outcome, as its line has it.
pub fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Value(value) => format!("value {value}"),
        Outcome::Torn => "torn".to_owned(),
        Outcome::Records(records) => {
            records.iter().fold("records".to_owned(), |mut text, r| {
                // Writing to a text cannot fail.
                let _ = write!(text, " {r}");
                text
            })
        }
        Outcome::Inode(number) => format!("inode {number}"),
        Outcome::Taken => "taken".to_owned(),
        Outcome::Absent => "absent".to_owned(),
        Outcome::Failed(errno) => format!("failed {errno}"),
        Outcome::Unknown => "unknown".to_owned(),
    }
}

/// The line of a call that begins.
pub fn invoked(at: Nanos, process: u32, node: u8, object: &str, op: &Op) -> String {
    format!("i {at} {process} {node} {object} {}\n", op_text(op))
}

/// The line of its answer.
pub fn answered(at: Nanos, process: u32, outcome: &Outcome) -> String {
    format!("o {at} {process} {}\n", outcome_text(outcome))
}

/// The line of something that was done to the nodes.
pub fn noted(at: Nanos, text: &str) -> String {
    format!("n {at} {}\n", text.replace('\n', " "))
}

/// The line of what became of a node.
pub fn happened(happening: Happening) -> String {
    let turn = match happening.turn {
        Turn::Ending => "ending",
        Turn::Ended => "ended",
        Turn::Evicted => "evicted",
        Turn::Begun => "begun",
    };
    format!("h {} {} {turn}\n", happening.at, happening.node)
}

/// Lines in the order of their times; of one process and moment in the order they came.
pub fn in_order(lines: &str) -> String {
    let mut all: Vec<&str> = lines.lines().filter(|l| !l.is_empty() && *l != VERSION).collect();
    let time = |line: &str| line.split(' ').nth(1).and_then(|t| t.parse::<Nanos>().ok()).unwrap_or(i64::MIN);
    all.sort_by_key(|line| time(line));
    let mut text = format!("{VERSION}\n");
    all.iter().for_each(|line| text.extend([line, "\n"]));
    text
}

/// A line that is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotRead {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl core::fmt::Display for NotRead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Words of a line.
struct Words<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "it ends too early".to_owned())
    }

    fn name(&mut self) -> Result<String, String> {
        self.word().map(str::to_owned)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("`{word}` is no number here"))
    }

    fn op(&mut self) -> Result<Op, String> {
        Ok(match self.word()? {
            "write" => Op::Write { block: self.number()?, value: self.number()? },
            "read" => Op::Read { block: self.number()? },
            "fsync" => Op::Fsync,
            "append" => Op::Append { value: self.number()? },
            "scan" => Op::Scan { from: self.number()? },
            "create" => Op::Create { name: self.name()? },
            "unlink" => Op::Unlink { name: self.name()? },
            "rename" => Op::Rename { from: self.name()?, to: self.name()? },
            "stat" => Op::Stat { name: self.name()? },
            "lock" => Op::Lock,
            "unlock" => Op::Unlock,
            "open" => Op::Open,
            other => return Err(format!("`{other}` is no operation")),
        })
    }

    fn outcome(&mut self) -> Result<Outcome, String> {
        Ok(match self.word()? {
            "done" => Outcome::Done,
            "value" => Outcome::Value(self.number()?),
            "torn" => Outcome::Torn,
            "records" => {
                let records: Result<Vec<u64>, _> = self.0.by_ref().map(str::parse).collect();
                Outcome::Records(records.map_err(|_| "a record is no number".to_owned())?)
            }
            "inode" => Outcome::Inode(self.number()?),
            "taken" => Outcome::Taken,
            "absent" => Outcome::Absent,
            "failed" => Outcome::Failed(self.number()?),
            "unknown" => Outcome::Unknown,
            other => return Err(format!("`{other}` is no outcome")),
        })
    }

    fn turn(&mut self) -> Result<Turn, String> {
        Ok(match self.word()? {
            "ending" => Turn::Ending,
            "ended" => Turn::Ended,
            "evicted" => Turn::Evicted,
            "begun" => Turn::Begun,
            other => return Err(format!("`{other}` does not happen to a node")),
        })
    }
}

#[derive(Default)]
struct Reader {
    history: History,
    /// The call of each process that has no answer yet.
    pending: BTreeMap<u32, usize>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words(line.split_ascii_whitespace());
        let Ok(kind) = words.word() else { return Ok(()) };
        if kind.starts_with('#') {
            return Ok(());
        }
        let at: Nanos = words.number()?;
        match kind {
            "n" => self.history.notes.push((at, words.0.by_ref().collect::<Vec<_>>().join(" "))),
            "h" => self.history.happenings.push(Happening { at, node: words.number()?, turn: words.turn()? }),
            "i" => {
                let (process, node, object) = (words.number()?, words.number()?, words.name()?);
                let event =
                    Event { process, node, object, op: words.op()?, start: at, end: NEVER, outcome: Outcome::Unknown };
                if self.pending.insert(process, self.history.events.len()).is_some() {
                    return Err(format!("process {process} has a call already"));
                }
                self.history.events.push(event);
            }
            "o" => {
                let process: u32 = words.number()?;
                let pending = self.pending.remove(&process).and_then(|at| self.history.events.get_mut(at));
                let event = pending.ok_or_else(|| format!("process {process} has no call"))?;
                event.outcome = words.outcome()?;
                if event.outcome != Outcome::Unknown {
                    event.end = at;
                }
                if at < event.start {
                    return Err("the answer is before its call".to_owned());
                }
            }
            other => return Err(format!("no line begins with `{other}`")),
        }
        words.0.next().map_or(Ok(()), |more| Err(format!("`{more}` is too much")))
    }
}

/// Reads a history.
pub fn read(text: &str) -> Result<History, NotRead> {
    let mut reader = Reader::default();
    let mut lines = (1..).zip(text.lines());
    if lines.next().is_none_or(|(_, first)| first != VERSION) {
        return Err(NotRead { line: 1, why: format!("a history begins with `{VERSION}`") });
    }
    for (number, line) in lines {
        reader.line(line).map_err(|why| NotRead { line: number, why })?;
    }
    let mut history = reader.history;
    history.happenings.sort_by_key(|h| h.at);
    // What was not answered is over when the next life of its node has begun.
    let ends: Vec<Nanos> = history.events.iter().map(|e| history.next_life(e.node, e.start)).collect();
    for (event, end) in history.events.iter_mut().zip(ends) {
        if event.outcome == Outcome::Unknown {
            event.end = end;
        }
    }
    history.events.sort_by_key(|e| (e.start, e.process));
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ops() -> Vec<Op> {
        let (a, b) = (|| "a".to_owned(), || "b".to_owned());
        vec![
            Op::Write { block: 3, value: 4 },
            Op::Read { block: 3 },
            Op::Fsync,
            Op::Append { value: 5 },
            Op::Scan { from: 6 },
            Op::Create { name: a() },
            Op::Unlink { name: a() },
            Op::Rename { from: a(), to: b() },
            Op::Stat { name: b() },
            Op::Lock,
            Op::Unlock,
            Op::Open,
        ]
    }

    fn all_outcomes() -> Vec<Outcome> {
        let records = [vec![], vec![1, 2]].map(Outcome::Records);
        let plain =
            [Outcome::Done, Outcome::Value(1), Outcome::Torn, Outcome::Inode(2), Outcome::Taken, Outcome::Absent];
        plain.into_iter().chain(records).chain([Outcome::Failed(5)]).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut text, mut events) = (String::new(), Vec::new());
        for (n, (op, outcome)) in all_ops().into_iter().zip(all_outcomes().into_iter().cycle()).enumerate() {
            let (start, process) = (10 * n as i64, n as u32 % 3);
            text += &invoked(start, process, 2, "round-1/x", &op);
            text += &answered(start + 5, process, &outcome);
            let object = "round-1/x".to_owned();
            events.push(Event { process, node: 2, object, op, start, end: start + 5, outcome });
        }
        let happening = Happening { at: 7, node: 3, turn: Turn::Evicted };
        text += &happened(happening);
        text += &noted(8, "a disk\nhangs");
        let history = read(&in_order(&text)).expect("reads");
        assert_eq!(history.events, events);
        assert_eq!((history.happenings, history.notes), (vec![happening], vec![(8, "a disk hangs".to_owned())]));
    }

    #[test]
    fn what_was_not_answered_may_take_effect_until_the_next_life_of_its_node() {
        let text =
            "shorefast-history 1\ni 10 1 2 x fsync\nh 20 2 ended\nh 30 1 begun\nh 40 2 begun\ni 50 2 2 x fsync\n";
        let ends: Vec<Nanos> = read(text).expect("reads").events.iter().map(|e| e.end).collect();
        assert_eq!(ends, [40, NEVER]);
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_number() {
        for (line, why) in [
            ("i 1 1 1 x", "too early"),
            ("i 1 1 1 x dance", "no operation"),
            ("o 1 1 done", "has no call"),
            ("h 1 1 sleeps", "does not happen"),
            ("z 1", "no line begins"),
            ("i x 1 1 x fsync", "no number"),
            ("i 1 1 1 x fsync more", "too much"),
        ] {
            let said = read(&format!("{VERSION}\n\n{line}\n")).expect_err(line);
            assert!(said.line == 3 && said.why.contains(why), "{said}");
        }
        assert_eq!(read("something else\n").expect_err("no history").line, 1);
        assert_eq!(read("").expect_err("no history").line, 1);
        let twice = format!("{VERSION}\ni 1 1 1 x fsync\ni 2 1 1 x fsync\n");
        assert!(read(&twice).expect_err("two calls").why.contains("already"));
    }
}
