//! A node that is drained: it coordinates nothing and will not, mounts no further volume, and serves what it has mounted as
//! before. So its host can be worked on: what an application has open there stays open until somebody moves it away.
//!
//! ```text
//! (in service) ── drain: marked on disk, barred from office, every office moved ──► drained ── resume ──► (in service)
//!      ▲                         │ one office cannot be moved: all of it is taken back
//!      └─────────────────────────┘
//! ```
//! The mark is this node's own file, `STATE/drained.toml`, so that it holds over restarts. It lists volumes that were made
//! elsewhere meanwhile and are held back. A volume that was mounted before is mounted again after a restart: a daemon that
//! is started anew under its mount must not leave the programs there without it.
//!
//! The order is mark, bar, move: an office that comes back in between finds the node barred. A crash in between leaves it
//! drained with offices, which the next `drain` moves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::minors::{self, OPERATORS};
use super::node::{Keeping, NodeParts, node_id};
use super::saving::Turn;
use super::talk::NodeTalk;
use super::told::Words;
use crate::api::{Node, Progress, Route};
use crate::clock::WallTime;
use crate::events::{Code, Draft};
use crate::exit::{Exit, Failure};

/// How long the move of one office may take.
const MOVE_WITHIN: Duration = Duration::from_secs(30);
/// How long another node may take to drain: it moves all its offices.
const THERE_WITHIN: Duration = Duration::from_secs(110);
/// How long other nodes may take to tell what they coordinate.
const WORDS_WITHIN: Duration = Duration::from_secs(2);

/// The mark, as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// Since when, in milliseconds since 1970.
    since_ms: u64,
    /// Volumes, by identity, that are not mounted before `resume`.
    #[serde(default)]
    held_back: Vec<String>,
}

/// Whether this node is drained.
#[derive(Debug)]
pub(super) struct Drain {
    path: PathBuf,
    /// Locked for moments, never while the disk is written.
    mark: Mutex<Option<Mark>>,
}

impl Drain {
    /// Reads the mark.
    pub(super) fn load(state_dir: &Path) -> Result<Drain, Failure> {
        let path = state_dir.join("drained.toml");
        let refuse = |said: String| {
            Failure::failed(
                format!("{}: {said}.", path.display()),
                "Remove the file if this node is to take office again.",
            )
        };
        let mark = match fs::read_to_string(&path) {
            Ok(text) => Some(toml::from_str(&text).map_err(|e: toml::de::Error| refuse(e.message().to_owned()))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(refuse(e.to_string())),
        };
        Ok(Drain { path, mark: Mutex::new(mark) })
    }

    /// Whether it is.
    pub(super) fn is_on(&self) -> bool {
        self.mark.lock().is_some()
    }

    /// Whether a volume waits for the node to be resumed.
    pub(super) fn holds_back(&self, id: &str) -> bool {
        self.mark.lock().as_ref().is_some_and(|m| m.held_back.iter().any(|held| held == id))
    }

    /// A volume is new here: if the node is drained it is held back.
    pub(super) fn hold_back(&self, _: &Turn, id: &str) -> Result<(), Failure> {
        let Some(mut mark) = self.mark.lock().clone() else { return Ok(()) };
        if mark.held_back.iter().any(|held| held == id) {
            return Ok(());
        }
        mark.held_back.push(id.to_owned());
        self.write(mark)
    }

    fn begin(&self, _: &Turn) -> Result<(), Failure> {
        if self.is_on() {
            return Ok(());
        }
        self.write(Mark { since_ms: WallTime::now().0, held_back: Vec::new() })
    }

    /// Ends it; the volumes that were held back.
    fn end(&self, _: &Turn) -> Result<Vec<String>, Failure> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unwritten(&e)),
            _ => Ok(self.mark.lock().take().map(|m| m.held_back).unwrap_or_default()),
        }
    }

    fn write(&self, mark: Mark) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let text = toml::to_string(&mark).map_err(io::Error::other)?;
            let aside = self.path.with_extension("new");
            let mut file = File::create(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        write().map_err(|e| self.unwritten(&e))?;
        *self.mark.lock() = Some(mark);
        Ok(())
    }

    fn unwritten(&self, e: &io::Error) -> Failure {
        Failure::failed(
            format!("{} cannot be changed: {e}.", self.path.display()),
            "Free space or mend the permissions there, then repeat the command.",
        )
    }
}

impl NodeParts {
    /// Refuses what a drained node does not do.
    pub(super) fn in_service(&self, what: &str) -> Result<(), Failure> {
        if !self.drain.is_on() {
            return Ok(());
        }
        let me = self.bundle.node;
        Err(Failure::new(
            Exit::Refused,
            format!("{me} is drained: {what}."),
            format!(
                "`shorefast node resume {}` puts it back into service; or give the command on another node.",
                me.number()
            ),
        ))
    }

    /// Drains a node, or puts it back into service.
    pub(super) async fn drain(self: &Arc<Self>, node: Node, on: bool, progress: &Progress) -> Result<(), Failure> {
        self.is_a_node(node)?;
        if node == self.bundle.node {
            return if on { self.drain_here(progress).await } else { self.resume_here().await };
        }
        if self.peers.minor(node_id(node)).is_some_and(|minor| minor < OPERATORS) {
            return Err(Failure::new(
                Exit::Refused,
                format!("{node} runs an older version, which cannot be drained: it speaks {}.", minors::shown(0)),
                format!("Upgrade {node}, or move its offices with `shorefast volume move`."),
            ));
        }
        match self.talk(node_id(node), &NodeTalk::Drain { on }, THERE_WITHIN).await {
            Some(NodeTalk::Done(done)) => done,
            _ => Err(Failure::failed(
                format!("{node} did not answer."),
                "See `shorefast node list`; or give the command on that node.",
            )),
        }
    }

    /// Drains this node.
    pub(super) async fn drain_here(self: &Arc<Self>, progress: &Progress) -> Result<(), Failure> {
        let was = self.drain.is_on();
        self.saves(|node, turn| node.drain.begin(turn)).await?;
        self.bar(true);
        if let Err(e) = self.move_all_offices(progress).await {
            // Whoever was drained before stays so.
            if !was {
                self.bar(false);
                self.saves(|node, turn| node.drain.end(turn)).await?;
            }
            return Err(e);
        }
        if !was {
            let me = self.bundle.node;
            self.events
                .record(Draft::node(Code::NodeDrained, format!("{me} coordinates nothing, and takes no office")));
        }
        Ok(())
    }

    /// Puts this node back into service.
    pub(super) async fn resume_here(self: &Arc<Self>) -> Result<(), Failure> {
        let was = self.drain.is_on();
        let held = self.saves(|node, turn| node.drain.end(turn)).await?;
        self.bar(false);
        self.keeping.lock().retain(|_, k| !matches!(k, Keeping::HeldBack { .. }));
        for record in self.records.live().iter().filter(|r| held.contains(&r.id)) {
            self.keep(record);
        }
        if was {
            let me = self.bundle.node;
            self.events.record(Draft::node(Code::NodeResumed, format!("{me} may coordinate again")));
        }
        Ok(())
    }

    fn bar(&self, barred: bool) {
        for volume in self.directory.all() {
            volume.bar(barred);
        }
    }

    /// Moves every office that this node holds to the node that coordinates the fewest volumes.
    async fn move_all_offices(self: &Arc<Self>, progress: &Progress) -> Result<(), Failure> {
        let words = self.words_of_others(WORDS_WITHIN).await;
        let mut load = load(&words);
        for volume in self.directory.all() {
            if volume.office().coordinator != Some(self.me()) {
                continue;
            }
            let name = volume.name();
            let mut last = None;
            for to in candidates(name, &words, &load) {
                progress.say(format!("Moving the coordinator of {name} to {to}."));
                match self.move_office(&volume, to, MOVE_WITHIN).await {
                    Ok(_) => {
                        *load.entry(to).or_default() += 1;
                        last = None;
                        break;
                    }
                    Err(e) => last = Some(e),
                }
            }
            if volume.office().coordinator == Some(self.me()) {
                let why =
                    last.map_or_else(|| "no other node has it mounted and may coordinate it".to_owned(), |e| e.message);
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{} was not drained: the coordinator of {name} cannot move: {why}", self.bundle.node),
                    "It goes on as before. See `shorefast status` for the other nodes, and try again.",
                ));
            }
        }
        Ok(())
    }
}

/// How many volumes each node that answers coordinates.
fn load(words: &[Words]) -> BTreeMap<Node, usize> {
    let mut load: BTreeMap<Node, usize> = words.iter().filter(|w| !w.drained).map(|w| (w.node, 0)).collect();
    for words in words.iter().filter(|w| !w.drained) {
        let holds = words.told.iter().filter(|t| t.known.as_ref().is_some_and(|k| k.coordinator == Some(words.node)));
        load.insert(words.node, holds.count());
    }
    load
}

/// Who could coordinate a volume: has it mounted and is not drained; the one with the fewest volumes first.
fn candidates(volume: &str, words: &[Words], load: &BTreeMap<Node, usize>) -> Vec<Node> {
    let has = |w: &&Words| !w.drained && w.told.iter().any(|t| t.name == volume && t.here.route != Route::Unmounted);
    let mut nodes: Vec<Node> = words.iter().filter(has).map(|w| w.node).collect();
    nodes.sort_by_key(|n| (load.get(n).copied().unwrap_or(usize::MAX), *n));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::VolumeNode;
    use crate::compose::told::{Known, Told};

    fn node(n: u8) -> Node {
        Node::new(n).expect("a node")
    }

    fn words(n: u8, drained: bool, told: &[(&str, Route, u8)]) -> Words {
        let told = told.iter().map(|(name, route, coordinator)| Told {
            name: (*name).to_owned(),
            here: VolumeNode {
                node: node(n),
                route: *route,
                reason: None,
                since: WallTime(0),
                paths: Vec::new(),
                wanted: true,
                next: None,
            },
            known: Some(Known {
                epoch: 1,
                coordinator: Node::new(*coordinator),
                metadata: crate::api::Metadata::Ok,
                size_bytes: 1,
                used_bytes: None,
                timing: "fast".into(),
            }),
        });
        Words { node: node(n), drained, told: told.collect() }
    }

    #[test]
    fn offices_go_to_nodes_that_have_the_volume_and_are_in_service_the_least_laden_first() {
        let all = [
            words(2, false, &[("a", Route::Direct, 2), ("b", Route::Direct, 1)]),
            words(3, true, &[("a", Route::Direct, 2), ("b", Route::Direct, 1)]),
            words(4, false, &[("a", Route::Direct, 2), ("b", Route::BlockRedirected, 1)]),
            words(5, false, &[("b", Route::Unmounted, 1)]),
        ];
        let load = load(&all);
        assert_eq!(candidates("b", &all, &load), [node(4), node(2)]);
        assert_eq!(candidates("c", &all, &load), []);
    }

    #[test]
    fn the_mark_and_what_is_held_back_hold_over_a_restart_until_the_node_is_resumed() {
        let dir = tempfile::tempdir().expect("a folder");
        let drain = Drain::load(dir.path()).expect("reads");
        drain.hold_back(&Turn::alone(), "early").expect("in service: nothing is held back");
        assert!(!drain.is_on() && !drain.holds_back("early"));
        drain.begin(&Turn::alone()).expect("writes");
        drain.hold_back(&Turn::alone(), "x").expect("writes");
        drain.hold_back(&Turn::alone(), "x").expect("is already");
        let again = Drain::load(dir.path()).expect("reads");
        assert!(again.is_on() && again.holds_back("x") && !again.holds_back("early"));
        assert_eq!(again.end(&Turn::alone()).expect("removes"), ["x"]);
        assert!(!Drain::load(dir.path()).expect("reads").is_on());
        std::fs::write(dir.path().join("drained.toml"), "colour = 1").expect("writes");
        let said = Drain::load(dir.path()).expect_err("refused").message;
        assert!(said.contains("drained.toml") && said.contains("colour"), "{said}");
    }
}
