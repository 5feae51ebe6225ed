//! The sessions of a target: one for each I_T nexus (RFC 7143, 4.4.3.1). A login of a nexus that has one ends it first
//! (reinstatement, 6.3.5), and waits until nothing of it is left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use scsi::alua::AccessState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::limits::MAX_SESSIONS;
use super::mailbox::{Mailbox, Note};
use crate::core::login::Refusal;
use crate::core::name::{NexusId, NexusName};

/// What is told of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The initiator's name.
    pub initiator: String,
    /// With it, the initiator port.
    pub isid: String,
    /// Where it comes from.
    pub from: String,
    /// The portal group.
    pub group: u16,
    /// Whether it only asks for targets.
    pub discovery: bool,
    /// Commands that are there now.
    pub commands: usize,
    /// Commands that have come.
    pub commands_total: u64,
    /// Commands that were to read and met a reservation (RESERVATION CONFLICT), of all sessions of this initiator's name.
    pub refused_reads: u64,
    /// The same of those that were to write.
    pub refused_writes: u64,
    /// Writes that were let in, of all sessions of this initiator's name.
    pub writes: u64,
}

/// How a unit is reached through a port group (ALUA, SPC-4 5.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// The portal group.
    pub group: u16,
    /// The unit.
    pub lun: u64,
    /// Its state there.
    pub state: AccessState,
    /// An initiator has set it (SET TARGET PORT GROUPS), not the process that serves.
    pub explicit: bool,
}

/// Commands on blocks of one initiator's name that met a reservation, and writes that met none, over all its sessions: whoever was excluded
/// logs in anew.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) let_in: AtomicU64,
}

/// What a connection counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) now: AtomicUsize,
    pub(crate) total: AtomicU64,
    pub(crate) refused: Arc<Refused>,
}

/// Names whose refused commands are remembered; those of more names are counted for each session alone.
const MAX_NAMES: usize = MAX_SESSIONS;

struct Entry {
    name: Option<NexusName>,
    initiator: String,
    isid: String,
    group: u16,
    from: SocketAddr,
    mailbox: Arc<Mailbox>,
    counters: Arc<Counters>,
    gone: watch::Receiver<()>,
}

#[derive(Default)]
pub(crate) struct Sessions {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: BTreeMap<NexusId, Entry>,
    refused: BTreeMap<String, Arc<Refused>>,
    last: u64,
    closed: bool,
}

/// A session's place; given back when it is dropped.
pub(crate) struct Place {
    pub(crate) id: NexusId,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Arc<Counters>,
    sessions: Arc<Sessions>,
    /// Its end is what others wait for.
    gone: Option<watch::Sender<()>>,
}

/// Who wants a place. A discovery session has no name of a nexus, and ends none.
pub(crate) struct Wanted {
    pub(crate) name: Option<NexusName>,
    pub(crate) initiator: String,
    pub(crate) isid: String,
    pub(crate) group: u16,
    pub(crate) from: SocketAddr,
}

impl Sessions {
    /// A place, once the older session of this nexus is over.
    ///
    /// # Cancel safety
    /// May be dropped; the older session ends all the same.
    pub(crate) async fn enter(self: &Arc<Self>, wanted: Wanted) -> Result<Place, Refusal> {
        loop {
            let mut older = {
                let mut inside = self.inside.lock();
                if inside.closed {
                    return Err(Refusal::UNAVAILABLE);
                }
                let same = |e: &&Entry| wanted.name.is_some() && e.name == wanted.name;
                match inside.all.values().find(same) {
                    Some(entry) => {
                        entry.mailbox.put(Note::End("its initiator has logged in anew"));
                        entry.gone.clone()
                    }
                    None if inside.all.len() >= MAX_SESSIONS => return Err(Refusal::NO_RESOURCES),
                    None => return Ok(self.insert(&mut inside, wanted)),
                }
            };
            // An error is the sender's end, which is what is waited for.
            while older.changed().await.is_ok() {}
        }
    }

    fn insert(self: &Arc<Self>, inside: &mut Inside, wanted: Wanted) -> Place {
        inside.last += 1;
        let id = NexusId(inside.last);
        let (gone, receiver) = watch::channel(());
        let mailbox: Arc<Mailbox> = Arc::default();
        let Wanted { name, initiator, isid, group, from } = wanted;
        let counters = Arc::new(Counters { refused: inside.refused_of(&initiator), ..Counters::default() });
        let entry = Entry {
            name,
            initiator,
            isid,
            group,
            from,
            mailbox: Arc::clone(&mailbox),
            counters: Arc::clone(&counters),
            gone: receiver,
        };
        inside.all.insert(id, entry);
        Place { id, mailbox, counters, sessions: Arc::clone(self), gone: Some(gone) }
    }

    /// Whether a session has this number (TSIH) and name.
    pub(crate) fn has(&self, tsih: u16, name: &NexusName) -> bool {
        self.inside.lock().all.iter().any(|(id, e)| id.tsih() == tsih && e.name.as_ref() == Some(name))
    }

    /// Tells every session, or every one but this.
    pub(crate) fn tell(&self, but: Option<NexusId>, note: impl Fn() -> Note) {
        let inside = self.inside.lock();
        inside.all.iter().filter(|(id, _)| Some(**id) != but).for_each(|(_, entry)| entry.mailbox.put(note()));
    }

    /// No further session begins.
    pub(crate) fn close(&self) {
        self.inside.lock().closed = true;
    }

    pub(crate) fn list(&self) -> Vec<SessionInfo> {
        let inside = self.inside.lock();
        let info = |e: &Entry| SessionInfo {
            initiator: e.initiator.clone(),
            isid: e.isid.clone(),
            from: e.from.to_string(),
            group: e.group,
            discovery: e.name.is_none(),
            commands: e.counters.now.load(Ordering::Relaxed),
            commands_total: e.counters.total.load(Ordering::Relaxed),
            refused_reads: e.counters.refused.reads.load(Ordering::Relaxed),
            refused_writes: e.counters.refused.writes.load(Ordering::Relaxed),
            writes: e.counters.refused.let_in.load(Ordering::Relaxed),
        };
        inside.all.values().map(info).collect()
    }
}

impl Inside {
    fn refused_of(&mut self, initiator: &str) -> Arc<Refused> {
        match self.refused.get(initiator) {
            Some(refused) => Arc::clone(refused),
            None if self.refused.len() >= MAX_NAMES => Arc::default(),
            None => Arc::clone(self.refused.entry(initiator.to_owned()).or_default()),
        }
    }
}

impl NexusId {
    /// The number that the initiator is told; never 0. It may come again after 65 535 sessions, when the name differs.
    pub(crate) fn tsih(self) -> u16 {
        u16::try_from(self.0 % 0xffff).unwrap_or(0) + 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.inside.lock().all.remove(&self.id);
        drop(self.gone.take());
    }
}
