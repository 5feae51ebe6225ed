//! How often each thing happened. A run over seeds fails if something that should happen never did.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name, in groups: `office event`, `coord effect`, `fault`, ...
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), u64>,
}

impl Coverage {
    pub(super) fn count(&mut self, group: &'static str, name: &str) {
        if let Some(n) = self.counts.get_mut(&(group, name.to_owned())) {
            *n += 1;
        } else {
            self.counts.insert((group, name.to_owned()), 1);
        }
    }

    /// Counts a value by the name of its variant, which is where its `Debug` output begins.
    pub(super) fn variant(&mut self, group: &'static str, value: &impl fmt::Debug) {
        let mut name = Head::default();
        // Ends with an error as soon as the name is complete: the rest is never formatted.
        let _ = fmt::write(&mut name, format_args!("{value:?}"));
        self.count(group, &name.0);
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &Coverage) {
        for (key, n) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += n;
        }
    }

    /// How often it happened.
    pub fn of(&self, group: &str, name: &str) -> u64 {
        self.counts.iter().find(|((g, n), _)| *g == group && n == name).map_or(0, |(_, n)| *n)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((group, name), n) in &self.counts {
            if *group != last {
                write!(f, "\n  {group}:")?;
                last = group;
            }
            write!(f, " {name}={n}")?;
        }
        Ok(())
    }
}

/// The letters that a `Debug` output begins with.
#[derive(Default)]
struct Head(String);

impl fmt::Write for Head {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = s.find(|c: char| !c.is_alphanumeric()).unwrap_or(s.len());
        self.0.push_str(&s[..end]);
        if end < s.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
