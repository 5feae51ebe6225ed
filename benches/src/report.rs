//! What a run leaves: tables for people, one JSON object for programs.

use serde::Serialize;

use crate::Effort;
use crate::machine::Machine;
use crate::memory::{self, Resident};
use crate::meta::{self, Scale};
use crate::pairs::{self, Table};
use crate::survive::{self, Survived};
use crate::takeover::{self, Takeover};

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// On what.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// How much of it.
    pub effort: Effort,
    /// Pairs.
    pub tables: Vec<Table>,
    /// Kills; absent if that section was not asked for.
    pub takeover: Option<Takeover>,
    /// Takeovers, moves and routes; absent if that section was not asked for.
    pub survived: Option<Survived>,
    /// A million files; absent if that section was not asked for.
    pub scale: Option<Scale>,
    /// Memory of daemons.
    pub memory: Vec<Resident>,
    /// Why the run ended early, if it did.
    pub failure: Option<String>,
}

impl Report {
    /// An empty one.
    pub fn new(machine: Machine, effort: Effort) -> Report {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let (tables, memory) = (Vec::new(), Vec::new());
        Report {
            schema: 1,
            machine,
            command,
            effort,
            tables,
            takeover: None,
            survived: None,
            scale: None,
            memory,
            failure: None,
        }
    }

    /// All tables.
    pub fn text(&self) -> String {
        let m = &self.machine;
        let mut text = format!(
            "commit {}, {}\nLinux {}, {} x {}, {} MiB, {}\n{}, load {}\n{} pairs of {} s\n",
            m.commit,
            m.date,
            m.kernel,
            m.cpus,
            m.cpu,
            m.memory_mib,
            m.file_system,
            m.fio,
            m.load,
            self.effort.pairs,
            self.effort.seconds
        );
        self.tables.iter().for_each(|t| text += &pairs::table(t));
        self.takeover.iter().for_each(|t| text += &takeover::table(t));
        self.survived.iter().for_each(|s| text += &survive::table(s));
        self.scale.iter().for_each(|s| text += &meta::million_table(s));
        if !self.memory.is_empty() {
            text += &memory::table(&self.memory);
        }
        if let Some(why) = &self.failure {
            text += &format!("\nended early: {why}\n");
        }
        text
    }
}
