//! A running node: its workers, its peers, its volumes, and what keeps the three together.
//!
//! Each wanted volume has a *keeper*, a task that starts it and, while it cannot be started (no disk yet, another
//! daemon still holds this node's lock), says so once per reason and tries again: ever more rarely, and at once when
//! something has changed (`news`: a peer came up, a command asks). What repeats with every try is an event once, so that
//! the cause does not scroll away. What a node remembers of volumes is exchanged with a peer whenever the link to it
//! comes up and whenever it changes here, and again if that failed, until each knows what the other knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use block::shared::{Epoch, NodeId};
use block::worker::Workers;
use csv_fs::proto::{PeerAnswer, PeerAsk};
use csv_fs::volume::{Allow, Beginning, Directory, Keeper, Over, PeerState, StartError, Volume, VolumeSetup};
use fuse::MountError;
use net::{DownReason, LinkState, Net};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::checking::Jobs;
use super::drain::Drain;
use super::members::List;
use super::minors::{Minors, OPERATORS};
use super::net_thread::NetThread;
use super::peers::Peers;
use super::records::{Record, Records};
use super::report;
use super::retry::Backoff;
use super::saving::{Saving, Turn};
use super::service::NodeService;
use super::talk::NodeTalk;
use super::teller::Teller;
use super::told::{STARTING, Words};
use crate::api::Node;
use crate::clock::WallTime;
use crate::config::Config;
use crate::events::{Code, Draft, EventLog};
use crate::exit::{Exit, Failure};
use crate::holder::held::Held;
use crate::init::Bundle;

/// How long a peer may take to say which volumes it knows.
const RECORDS_WITHIN: Duration = Duration::from_secs(2);
/// An exchange of records that failed is tried again after this, doubling ...
const EXCHANGE_FIRST: Duration = Duration::from_millis(500);
/// ... up to this: what one node lacks (room, permissions) somebody puts right there.
const EXCHANGE_LONGEST: Duration = Duration::from_secs(10);

/// What a node does about a volume that it knows.
pub(super) enum Keeping {
    /// Its keeper tries; the last reason why it is not there yet.
    Pending {
        /// Why.
        why: String,
        /// Since when it is wanted and not there.
        since: WallTime,
        /// How often it has been tried.
        tries: Tries,
    },
    /// It runs.
    Running(Arc<Volume>),
    /// It ran, and its life here ended without being asked to. It stays so until somebody asks for it.
    Over {
        /// Why.
        why: String,
        /// What to do next.
        next: String,
        /// Since when.
        since: WallTime,
    },
    /// New while this node is drained: it waits until the node is back in service.
    HeldBack {
        /// Since when.
        since: WallTime,
    },
    /// Not wanted here.
    Unmounted {
        /// Since when.
        since: WallTime,
    },
}

/// The tries of one keeper, numbered from 1.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tries {
    /// The last that began.
    pub(super) begun: u64,
    /// The last that failed.
    pub(super) failed: u64,
    /// It failed for a reason that waiting may mend.
    pub(super) passes: bool,
}

impl Tries {
    /// Whether a try that began after `seen` has failed for a reason that waiting does not mend.
    pub(super) fn in_vain_since(&self, seen: u64) -> bool {
        self.failed > seen && !self.passes
    }
}

/// The parts of a running node.
pub(super) struct NodeParts {
    pub(super) config: Arc<Config>,
    pub(super) bundle: Bundle,
    pub(super) events: Arc<EventLog>,
    /// What keeps its mounts when it is gone, if it was started by that.
    pub(super) held: Option<Arc<Held>>,
    pub(super) started: WallTime,
    /// Owned here; ended with the node.
    pub(super) workers: Mutex<Option<Workers>>,
    pub(super) io: block::worker::Handle,
    pub(super) peers: Arc<Peers>,
    pub(super) directory: Arc<Directory>,
    pub(super) records: Records,
    pub(super) saving: Saving,
    pub(super) keeping: Mutex<BTreeMap<String, Keeping>>,
    /// Raised by whatever may let a volume start that could not.
    pub(super) news: watch::Sender<u64>,
    /// Raised whenever a record may be told that was not: every peer is told.
    pub(super) to_tell: watch::Sender<u64>,
    pub(super) net: tokio::sync::Mutex<Option<Net>>,
    /// What `net` runs on.
    pub(super) _net_thread: NetThread,
    /// Checks that other nodes asked for.
    pub(super) jobs: Jobs,
    /// Whether this node is drained.
    pub(super) drain: Drain,
    /// The nodes, as the latest list has them; the bundle has those of the start.
    pub(super) list: RwLock<List>,
    /// Which messages between nodes it speaks.
    pub(super) minors: Minors,
    /// What the network calls.
    pub(super) service: Arc<NodeService>,
}

impl NodeParts {
    /// This node, as the libraries name it.
    pub(super) fn me(&self) -> NodeId {
        node_id(self.bundle.node)
    }

    /// The volume that runs under a name.
    pub(super) fn running(&self, name: &str) -> Result<Arc<Volume>, Failure> {
        let record = self.record(name)?;
        let me = self.bundle.node;
        match self.keeping.lock().get(&record.id) {
            Some(Keeping::Running(volume)) => Ok(Arc::clone(volume)),
            Some(Keeping::Pending { why, .. }) => Err(Failure::failed(
                format!("Volume {name} is not mounted on {me} yet: {why}."),
                "It is tried again by itself; see `shorefast status`.",
            )),
            Some(Keeping::Over { why, next, .. }) => {
                Err(Failure::failed(format!("Volume {name} is not mounted on {me}: {why}."), next.clone()))
            }
            _ => Err(Failure::failed(
                format!("Volume {name} is not mounted on {me}."),
                format!("Mount it with `shorefast volume mount {name}`."),
            )),
        }
    }

    /// The record of a volume that exists.
    pub(super) fn record(&self, name: &str) -> Result<Record, Failure> {
        self.records.named(name).ok_or_else(|| {
            let message = format!("{} knows no volume `{name}`.", self.bundle.node);
            Failure::new(Exit::NotFound, message, "`shorefast volume list` shows those it knows.")
        })
    }

    /// What the other nodes that answer say of the volumes, all asked at once.
    pub(super) async fn words_of_others(self: &Arc<Self>, within: Duration) -> Vec<Words> {
        let mut asked = tokio::task::JoinSet::new();
        for node in self.peers.addresses().keys().copied().collect::<Vec<_>>() {
            let me = Arc::clone(self);
            asked.spawn(async move {
                let asked_at = Instant::now();
                let ask =
                    if me.peers.minor(node) >= Some(OPERATORS) { NodeTalk::AskWords } else { NodeTalk::AskRoutes };
                let answer = me.talk(node, &ask, within).await;
                me.peers.round_trip(node, answer.is_some().then(|| asked_at.elapsed()));
                let (told, drained) = match answer {
                    Some(NodeTalk::Routes(told)) => (told, false),
                    Some(NodeTalk::Words { told, drained }) => (told, drained),
                    _ => return None,
                };
                me.peers.drained(node, drained);
                Node::new(node.get()).map(|node| Words { node, told, drained })
            });
        }
        let mut words = Vec::new();
        while let Some(answer) = asked.join_next().await {
            words.extend(answer.ok().flatten());
        }
        words
    }

    /// Something has changed that may let a volume start that could not: keepers try again at once.
    pub(super) fn ring(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    /// Where a volume is mounted here.
    pub(super) fn mount_point(&self, name: &str) -> PathBuf {
        self.config.mount_root.join(name)
    }

    /// Does what writes into this node's own folder, when its turn has come.
    ///
    /// # Cancel safety
    /// What has begun goes on to its end.
    pub(super) async fn saves<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Arc<NodeParts>, &Turn) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let node = Arc::clone(self);
        self.saving.run(move |turn| job(&node, turn)).await
    }

    /// Takes records from elsewhere or from a command, starts keepers, and tells the peers if any was new.
    ///
    /// # Cancel safety
    /// What has begun goes on to its end: a record that is taken is kept.
    pub(super) async fn take_records(self: &Arc<Self>, records: Vec<Record>) -> Result<(), Failure> {
        // Whoever has no news waits for nobody's turn, nor for the disk.
        let records: Vec<Record> = records.into_iter().filter(|record| self.records.is_news(record)).collect();
        if records.is_empty() {
            return Ok(());
        }
        self.saves(move |node, turn| node.take_news(turn, records)).await
    }

    fn take_news(self: &Arc<Self>, turn: &Turn, records: Vec<Record>) -> Result<(), Failure> {
        let mut news = Vec::new();
        let mut taken = Ok(());
        for record in records {
            taken = self.take_one(turn, &record).map(|is_news| news.extend(is_news.then_some(record)));
            if taken.is_err() {
                break;
            }
        }
        // Also if one of them could not be written. Prevents: those before it are known, so that nobody brings them again, and not kept.
        for record in &news {
            self.keep(record);
        }
        if !news.is_empty() {
            self.tell_records();
        }
        taken
    }

    fn take_one(&self, turn: &Turn, record: &Record) -> Result<bool, Failure> {
        if !self.records.knows(&record.id) {
            self.drain.hold_back(turn, &record.id)?;
        }
        self.records.take(turn, record.clone())
    }

    /// Takes the record of a volume that was just made here. Until what is returned is dropped nobody is told of it,
    /// whatever records are exchanged meanwhile: this node is to be its first coordinator.
    pub(super) async fn take_own_record(self: &Arc<Self>, record: Record) -> Result<Untold, Failure> {
        let untold = Untold { node: Arc::clone(self), id: record.id.clone() };
        let taken = record.clone();
        self.saves(move |node, turn| node.records.take_untold(turn, taken)).await?;
        self.keep(&record);
        Ok(untold)
    }

    /// Begins to keep a volume that is wanted here and not kept yet.
    pub(super) fn keep(self: &Arc<Self>, record: &Record) {
        if record.deleted || !record.wanted {
            return;
        }
        let unmounted = self.records.is_unmounted(&record.id);
        {
            let mut keeping = self.keeping.lock();
            if keeping.contains_key(&record.id) {
                return;
            }
            if self.drain.holds_back(&record.id) {
                keeping.insert(record.id.clone(), Keeping::HeldBack { since: WallTime::now() });
                return;
            }
            if unmounted {
                keeping.insert(record.id.clone(), Keeping::Unmounted { since: self.started });
                return;
            }
            let (why, since) = (STARTING.into(), WallTime::now());
            keeping.insert(record.id.clone(), Keeping::Pending { why, since, tries: Tries::default() });
        }
        let (node, record) = (Arc::clone(self), record.clone());
        tokio::spawn(async move { node.keeper(record).await });
    }

    /// The tries to start a volume so far, while it does not run.
    pub(super) fn tries(&self, id: &str) -> Option<Tries> {
        match self.keeping.lock().get(id) {
            Some(Keeping::Pending { tries, .. }) => Some(*tries),
            _ => None,
        }
    }

    /// A try begins; false if the volume is not wanted any more.
    fn begins(&self, id: &str) -> bool {
        let mut keeping = self.keeping.lock();
        let Some(Keeping::Pending { tries, .. }) = keeping.get_mut(id) else { return false };
        tries.begun += 1;
        true
    }

    /// Tries until the volume runs or is not wanted any more.
    async fn keeper(self: Arc<Self>, record: Record) {
        let mut news = self.news.subscribe();
        let mut backoff = Backoff::new();
        let (mut said, mut told) = (String::new(), BTreeSet::new());
        loop {
            // In this order: what rings after the try began makes another.
            news.borrow_and_update();
            if !self.begins(&record.id) {
                return;
            }
            let teller = Teller::new(&self, record.name.clone(), told.clone());
            let beginning = record.id.parse().ok().map(|id| self.directory.begins(id));
            let (why, passes) = match Volume::start(self.setup(&record, &teller)).await {
                Ok(volume) => {
                    teller.runs();
                    return self.runs(&record, volume, beginning).await;
                }
                Err(e) => (why_not(&e), e.passes_by_itself()),
            };
            drop(beginning);
            told.extend(teller.told());
            if why != said {
                self.events.record(Draft::volume(Code::VolumePending, &record.name, why.clone()));
                said.clone_from(&why);
            }
            if let Some(Keeping::Pending { why: shown, tries, .. }) = self.keeping.lock().get_mut(&record.id) {
                *shown = why;
                *tries = Tries { failed: tries.begun, passes, ..*tries };
            }
            backoff.wait(&mut news).await;
        }
    }

    /// A volume has started: publish it, unless it was unmounted meanwhile.
    async fn runs(self: Arc<Self>, record: &Record, volume: Arc<Volume>, beginning: Option<Beginning>) {
        self.publish(&volume);
        drop(beginning);
        let over = volume.over();
        let wanted = {
            let mut keeping = self.keeping.lock();
            let wanted = matches!(keeping.get(&record.id), Some(Keeping::Pending { .. }));
            if wanted {
                keeping.insert(record.id.clone(), Keeping::Running(Arc::clone(&volume)));
            }
            wanted
        };
        if wanted {
            let at = self.mount_point(&record.name);
            self.events.record(Draft::volume(Code::VolumeMounted, &record.name, format!("at {}", at.display())));
            let volume = Arc::downgrade(&volume);
            tokio::spawn(Arc::clone(&self).follow_life(record.clone(), volume, over));
        } else if let Err(e) = volume.stop(true).await {
            self.events.record(Draft::volume(Code::MountFailed, &record.name, e.to_string()));
        }
    }

    /// Waits until a volume that runs is over without being asked to, and gives back what it holds.
    async fn follow_life(
        self: Arc<Self>,
        record: Record,
        volume: Weak<Volume>,
        mut over: watch::Receiver<Option<Over>>,
    ) {
        let how = match over.wait_for(Option::is_some).await {
            Ok(how) => how.clone(),
            // It was stopped.
            Err(_) => None,
        };
        let (Some(how), Some(volume)) = (how, volume.upgrade()) else { return };
        {
            let mut keeping = self.keeping.lock();
            let this = matches!(keeping.get(&record.id), Some(Keeping::Running(v)) if Arc::ptr_eq(v, &volume));
            if !this {
                return;
            }
            let over =
                Keeping::Over { why: how.to_string(), next: report::after(&record.name, &how), since: WallTime::now() };
            keeping.insert(record.id, over);
        }
        self.events.record(report::over(&record.name, &how));
        if let Err(e) = volume.stop(true).await {
            tracing::error!(volume = %record.name, "what it holds was not given back in order: {e}");
        }
        self.directory.remove(&volume);
    }

    /// Before a disk is formatted for it: whether a volume of that name can be mounted here.
    pub(super) async fn can_be_mounted(&self, name: &str) -> Result<(), Failure> {
        let point = self.mount_point(name);
        csv_fs::volume::mountable(&point, name, self.allow()).await.map_err(|e| {
            Failure::new(
                Exit::Refused,
                format!("A volume {name} could not be mounted on {}: {}.", self.bundle.node, why_not(&e)),
                "Nothing was written to the disk; put that right, or choose another name.",
            )
        })
    }

    fn allow(&self) -> Allow {
        let other = self.config.allow_other.unwrap_or_else(|| rustix::process::geteuid().is_root());
        Allow { other, suid: self.config.allow_suid, devices: self.config.allow_devices }
    }

    fn setup(&self, record: &Record, teller: &Arc<Teller>) -> VolumeSetup {
        VolumeSetup {
            id: record.id.clone(),
            name: record.name.clone(),
            disk: self.disk_of(record),
            mount: self.mount_point(&record.name),
            allow: self.allow(),
            node: self.me(),
            peers: self.peers.addresses().keys().copied().collect(),
            barred: self.drain.is_on(),
            without: self.config.kernel_without.clone(),
            io_timeout: self.config.io_timeout,
            rules: self.config.rules,
            workers: self.io.clone(),
            fault_device: self.config.fault_device,
            transport: Arc::new(super::transport::Transport(Arc::clone(&self.peers))),
            keeper: self.held.clone().map(|held| held as Arc<dyn Keeper>),
            notices: Teller::sink(teller),
        }
    }

    /// From now on messages for this volume reach it, and it knows who is heard.
    fn publish(&self, volume: &Arc<Volume>) {
        self.directory.insert(volume);
        // It may have been drained, or resumed, since the volume began to start.
        volume.bar(self.drain.is_on());
        for node in self.peers.addresses().keys() {
            if let Some(link) = self.peers.link(*node) {
                volume.peer(*node, &peer_state(&link.borrow()));
            }
        }
    }

    /// Tells every peer what is remembered here.
    pub(super) fn tell_records(&self) {
        self.to_tell.send_modify(|n| *n += 1);
    }

    /// Keeps a peer told for the life of the node: whenever the link to it comes up and whenever something is to be told,
    /// records are exchanged, again and again until that has succeeded or the peer has gone.
    pub(super) async fn keep_told(self: Arc<Self>, node: NodeId) {
        let Some(mut link) = self.peers.link(node) else { return };
        let mut changed = self.to_tell.subscribe();
        let mut again = EXCHANGE_FIRST;
        loop {
            changed.borrow_and_update();
            link.borrow_and_update();
            let settled = self.peers.conn(node).is_none() || self.exchange(node).await;
            let wait = again;
            again = if settled { EXCHANGE_FIRST } else { (again * 2).min(EXCHANGE_LONGEST) };
            let more = tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                changed = link.changed() => changed.is_ok(),
                () = tokio::time::sleep(wait), if !settled => true,
            };
            if !more {
                return;
            }
        }
    }

    /// Exchanges records with one peer; true if both know now what the other knows.
    pub(super) async fn exchange(self: &Arc<Self>, node: NodeId) -> bool {
        let talk = NodeTalk::Exchange(self.records.to_tell());
        match self.talk(node, &talk, RECORDS_WITHIN).await {
            Some(NodeTalk::Records(theirs)) => {
                let taken = self.take_records(theirs).await;
                if let Err(e) = &taken {
                    tracing::error!(%node, "records of volumes not taken: {e}");
                }
                taken.is_ok()
            }
            Some(NodeTalk::Done(Err(e))) => {
                tracing::warn!(%node, "it has not taken the records of volumes: {e}");
                false
            }
            _ => false,
        }
    }

    /// Says something to a peer and waits for its answer.
    pub(super) async fn talk(&self, node: NodeId, talk: &NodeTalk, within: Duration) -> Option<NodeTalk> {
        let body = serde_json::to_vec(talk).ok()?;
        match self.peers.ask(node, Epoch(0), &PeerAsk::Node { body }, within).await? {
            PeerAnswer::Node { body } => serde_json::from_slice(&body).ok(),
            _ => None,
        }
    }

    /// Follows the link to one peer for the life of the node.
    pub(super) async fn watch_link(self: Arc<Self>, node: NodeId) {
        let Some(mut link) = self.peers.link(node) else { return };
        let mut was_up = false;
        let mut refused = String::new();
        loop {
            let state = link.borrow_and_update().clone();
            for volume in self.directory.all() {
                volume.peer(node, &peer_state(&state));
            }
            match &state {
                LinkState::Up(_) if !was_up => {
                    was_up = true;
                    self.events.record(Draft::node(Code::PeerUp, format!("{node} can be reached")));
                    self.ring();
                }
                LinkState::Down { why, .. } => {
                    if was_up {
                        self.events.record(Draft::node(Code::PeerDown, format!("{node}: {why}")));
                    }
                    self.refusal(node, why, &mut refused);
                    was_up = false;
                }
                _ => {}
            }
            if link.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reports a refusal once per sentence.
    fn refusal(&self, node: NodeId, why: &DownReason, said: &mut String) {
        let (code, sentence) = match why {
            DownReason::HelloRefused(s) if s.contains("list of nodes") => (Code::ListDiffers, s.clone()),
            DownReason::HelloRefused(s) | DownReason::Tls(s) => (Code::PeerRefused, s.clone()),
            _ => return,
        };
        if *said != sentence {
            self.events.record(Draft::node(code, format!("{node}: {sentence}")));
            *said = sentence;
        }
    }
}

/// A volume of which other nodes are not told before this is dropped.
pub(super) struct Untold {
    node: Arc<NodeParts>,
    id: String,
}

/// However the making ended. Prevents: the maker cannot mount it, and nobody else ever hears of it.
impl Drop for Untold {
    fn drop(&mut self) {
        self.node.records.may_be_told(&self.id);
        self.node.tell_records();
    }
}

/// Why a volume has not started; with the key of the configuration where that helps.
fn why_not(e: &StartError) -> String {
    match e {
        StartError::Mount(
            MountError::NotEmpty(_) | MountError::NotADirectory(_) | MountError::AlreadyMounted { .. },
        ) => format!("{e} (key `mount_root` of the configuration)"),
        e => e.to_string(),
    }
}

/// A link's state as volumes want to know it.
fn peer_state(state: &LinkState) -> PeerState {
    match state {
        LinkState::Up(_) => PeerState::Up,
        LinkState::Connecting => PeerState::Unknown,
        LinkState::Down { why: DownReason::Refused, .. } => PeerState::Refused,
        LinkState::Down { why: DownReason::Reset | DownReason::ClosedByPeer(_), .. } => PeerState::Closed,
        LinkState::Down { .. } => PeerState::Silent,
    }
}

/// The libraries' name of a node.
pub(super) fn node_id(node: Node) -> NodeId {
    NodeId::new(node.number()).unwrap_or_else(|| unreachable!("both kinds of node number are 1 to 64: {node}"))
}
