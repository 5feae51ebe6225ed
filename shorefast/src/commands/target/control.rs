//! What a target that runs is asked and told, over the socket of its process: `target sessions` and `target alua`.
//!
//! ```text
//!   command ── one line, an Ask as JSON ──► target        a command of before there were several sends none, and wants the sessions
//!           ◄── one value as JSON, the end ──
//! ```
//! Refused for safety: to take a unit's last portal group away from everybody, unless that is said to be meant.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use iscsi_target::{GroupInfo, Server, SessionInfo};
use scsi::alua::AccessState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream as Stream;

use crate::api::Server as Socket;
use crate::cli::{Global, GroupState, TargetAluaArgs, TargetControl};
use crate::commands::{print, print_json};
use crate::exit::{Exit, Failure};
use crate::render::plain_table;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a question may take; a command that sends none waits for as long.
const ASKS_WITHIN: Duration = Duration::from_secs(1);
/// The longest question.
const MAX_ASK: u64 = 4096;
/// The longest list of sessions: as many as a target has, with names as long as they may be.
const MAX_ANSWER: u64 = 4 << 20;

/// A question, or an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ask {
    /// Who is logged in.
    #[default]
    Sessions,
    /// The states of the portal groups.
    Groups,
    /// One of them for every unit; `last` also if nothing is left through which a unit can be read and written.
    SetGroup { group: u16, state: GroupState, last: bool },
}

/// The answer to what is about portal groups.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Groups {
    /// They are like that now.
    Are(Vec<Group>),
    /// There is no such group, but these.
    Unknown(Vec<u16>),
    /// Nothing was changed: these units can be read and written through that group alone.
    Last(Vec<u64>),
}

/// Units that are reached in the same way through a portal group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Group {
    group: u16,
    portals: Vec<String>,
    luns: Vec<u64>,
    /// In the words of `--state`, or what else an initiator has set.
    state: String,
    /// Whether reads and writes are executed.
    takes_io: bool,
    /// `target`, or `initiator` (SET TARGET PORT GROUPS).
    set_by: String,
}

/// Whoever connects is answered. Never ready.
pub(super) async fn answer(socket: &Socket, server: &Server, portals: &[(SocketAddr, u16)]) {
    loop {
        match socket.accept().await {
            Ok(stream) => {
                // Whoever asked may have gone, or may not read.
                drop(tokio::time::timeout(PATIENCE, answer_one(stream, server, portals)).await);
            }
            Err(e) => {
                tracing::warn!("the control socket did not accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer_one(stream: Stream, server: &Server, portals: &[(SocketAddr, u16)]) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // A command of an earlier version asks nothing.
    drop(tokio::time::timeout(ASKS_WITHIN, (&mut stream).take(MAX_ASK).read_line(&mut line)).await);
    let asked = if line.is_empty() { Ok(Ask::Sessions) } else { serde_json::from_str(&line) };
    let said = match asked {
        Ok(Ask::Sessions) => serde_json::to_vec(&server.sessions()),
        Ok(Ask::Groups) => serde_json::to_vec(&Groups::Are(groups(server, portals))),
        Ok(Ask::SetGroup { group, state, last }) => serde_json::to_vec(&set(server, portals, (group, state), last)),
        // Its asker finds no answer, and says that the versions differ.
        Err(e) => return Err(e.into()),
    };
    stream.write_all(&said?).await
}

impl GroupState {
    fn access(self) -> AccessState {
        match self {
            GroupState::ActiveOptimized => AccessState::ActiveOptimized,
            GroupState::ActiveNonOptimized => AccessState::ActiveNonOptimized,
            GroupState::Standby => AccessState::Standby,
            GroupState::Unavailable => AccessState::Unavailable,
        }
    }
}

/// A state in the words of the command line.
fn word(state: AccessState) -> String {
    state.to_string().replace(['/', ' '], "-")
}

/// The states, units that agree together.
fn groups(server: &Server, portals: &[(SocketAddr, u16)]) -> Vec<Group> {
    let mut told = server.groups();
    told.sort_by_key(|g| (g.group, g.lun));
    let mut groups: Vec<Group> = Vec::new();
    for GroupInfo { group, lun, state, explicit } in told {
        let (set_by, word) = (if explicit { "initiator" } else { "target" }, word(state));
        match groups.iter_mut().find(|g| g.group == group && g.state == word && g.set_by == set_by) {
            Some(same) => same.luns.push(lun),
            None => groups.push(Group {
                group,
                portals: portals.iter().filter(|(_, of)| *of == group).map(|(at, _)| at.to_string()).collect(),
                luns: vec![lun],
                state: word,
                takes_io: state.takes_io(),
                set_by: set_by.to_owned(),
            }),
        }
    }
    groups
}

fn set(server: &Server, portals: &[(SocketAddr, u16)], (group, state): (u16, GroupState), last: bool) -> Groups {
    let told = server.groups();
    let mut numbers: Vec<u16> = told.iter().map(|g| g.group).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if !numbers.contains(&group) {
        return Groups::Unknown(numbers);
    }
    let only = only_through(&told, group);
    if !last && !state.access().takes_io() && !only.is_empty() {
        return Groups::Last(only);
    }
    server.set_group(group, state.access());
    tracing::info!("portal group {group} is {} now, as it was told", word(state.access()));
    Groups::Are(groups(server, portals))
}

/// Units that are read and written through that group, and through no other.
fn only_through(told: &[GroupInfo], group: u16) -> Vec<u64> {
    let through = |g: &&GroupInfo| g.state.takes_io() && g.group == group;
    let other = |lun: u64| told.iter().any(|g| g.lun == lun && g.group != group && g.state.takes_io());
    told.iter().filter(through).map(|g| g.lun).filter(|lun| !other(*lun)).collect()
}

/// A session as it is shown.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    session: SessionInfo,
    /// How units are reached through its portal group: of each state one word.
    state: String,
}

pub(super) fn sessions(which: &TargetControl, global: &Global) -> Result<Exit, Failure> {
    let sessions = sessions_at(&which.control)?;
    let groups = match ask_at(&which.control, Ask::Groups)? {
        Groups::Are(groups) => groups,
        Groups::Unknown(_) | Groups::Last(_) => Vec::new(),
    };
    let shown = sessions.into_iter().map(|session| {
        let mut states: Vec<_> = groups.iter().filter(|g| g.group == session.group).map(|g| g.state.clone()).collect();
        states.dedup();
        Shown { state: states.join(", "), session }
    });
    if global.json {
        print_json("sessions", &shown.collect::<Vec<_>>())?;
    } else {
        let rows = shown.map(|Shown { session: s, state }| {
            let kind = if s.discovery { "discovery" } else { "normal" };
            let (group, commands) = (s.group.to_string(), s.commands.to_string());
            let refused = (s.refused_reads + s.refused_writes).to_string();
            let total = s.commands_total.to_string();
            [s.initiator, s.isid, s.from, group, state, kind.to_owned(), commands, total, refused]
        });
        let heads = ["INITIATOR", "ISID", "FROM", "GROUP", "STATE", "KIND", "COMMANDS", "TOTAL", "REFUSED"];
        print(&plain_table(heads, rows))?;
    }
    Ok(Exit::Ok)
}

pub(super) fn alua(args: &TargetAluaArgs, global: &Global) -> Result<Exit, Failure> {
    let order = args.group.zip(args.state);
    let ask = order.map_or(Ask::Groups, |(group, state)| Ask::SetGroup { group, state, last: args.yes });
    let groups = match ask_at(&args.control.control, ask)? {
        Groups::Are(groups) => groups,
        Groups::Unknown(numbers) => return Err(unknown(args.group, &numbers)),
        Groups::Last(luns) => return Err(last(args.group, &luns)),
    };
    if global.json {
        print_json("groups", &groups)?;
    } else if !global.quiet || order.is_none() {
        let rows = groups.iter().map(|g| {
            let luns = list(&g.luns);
            [g.group.to_string(), g.portals.join(", "), luns, g.state.clone(), g.set_by.clone()]
        });
        print(&plain_table(["GROUP", "PORTALS", "LUNS", "STATE", "SET BY"], rows))?;
    }
    let mut unreached: Vec<u64> = groups.iter().filter(|g| !g.takes_io).flat_map(|g| g.luns.clone()).collect();
    unreached.retain(|lun| !groups.iter().any(|g| g.takes_io && g.luns.contains(lun)));
    unreached.sort_unstable();
    unreached.dedup();
    if !unreached.is_empty() {
        eprintln!("Warning: no portal group is left through which LUN {} can be read and written.", list(&unreached));
    }
    Ok(Exit::Ok)
}

fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn unknown(group: Option<u16>, numbers: &[u16]) -> Failure {
    let group = group.map_or_else(String::new, |group| format!(" {group}"));
    Failure::new(
        Exit::NotFound,
        format!("The target has no portal group{group}."),
        format!("Its groups are {}; see `shorefast target alua`.", list(numbers)),
    )
}

fn last(group: Option<u16>, luns: &[u64]) -> Failure {
    let group = group.map_or_else(String::new, |group| format!(" {group}"));
    Failure::new(
        Exit::Refused,
        format!("Portal group{group} is the last through which LUN {} can be read and written.", list(luns)),
        "Make another group active first, or say --yes if every initiator is to lose its path.",
    )
}

/// The sessions of the target that is asked there.
pub(crate) fn sessions_at(control: &Path) -> Result<Vec<SessionInfo>, Failure> {
    ask_at(control, Ask::Sessions)
}

/// Asks the target that is asked there.
fn ask_at<T: DeserializeOwned>(control: &Path, ask: Ask) -> Result<T, Failure> {
    let path = control.display();
    let mut stream = UnixStream::connect(control).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::NotFound,
            format!("No target runs that is asked at {path}."),
            "Start one with `shorefast target serve`, or give its --control.",
        ),
        _ => Failure::failed(format!("{path} cannot be reached: {e}."), "Run the command as the target's user."),
    })?;
    let mut said = Vec::new();
    let asked = serde_json::to_string(&ask).map_err(io::Error::from).and_then(|line| {
        stream.set_read_timeout(Some(PATIENCE))?;
        // One of an earlier version reads no question: it tells the sessions, and is gone.
        drop(stream.write_all(format!("{line}\n").as_bytes()));
        match stream.take(MAX_ANSWER).read_to_end(&mut said) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset && !said.is_empty() => Ok(()),
            read => read.map(drop),
        }
    });
    asked.map_err(|e| Failure::failed(format!("The target at {path} did not answer: {e}."), "See its log."))?;
    serde_json::from_slice(&said).map_err(|e| {
        Failure::failed(format!("The target at {path} answered something else: {e}."), "Use one version of shorefast.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: u16, lun: u64, state: AccessState) -> GroupInfo {
        GroupInfo { group, lun, state, explicit: false }
    }

    #[test]
    fn the_last_group_of_a_unit_is_the_one_through_which_alone_it_is_read_and_written() {
        use AccessState::{ActiveNonOptimized, ActiveOptimized, Standby};
        let told = [
            group(1, 0, ActiveOptimized),
            group(2, 0, ActiveNonOptimized),
            group(1, 1, ActiveOptimized),
            group(2, 1, Standby),
        ];
        assert_eq!(only_through(&told, 1), [1]);
        assert!(only_through(&told, 2).is_empty(), "what is standby is not the last");
    }

    #[test]
    fn states_are_told_in_the_words_in_which_they_are_set() {
        for state in <GroupState as clap::ValueEnum>::value_variants() {
            let name = clap::ValueEnum::to_possible_value(state).expect("shown").get_name().to_owned();
            assert_eq!(word(state.access()), name);
        }
    }
}
