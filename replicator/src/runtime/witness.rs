//! The tie-breaker at work: one process's votes for any number of resources, each with its core and its file.
//!
//! ```text
//!   replicas ◄── net ──► task: one input, one event of a core, its effects ──► writer: file aside, flush, rename, flush
//!                          ▲                                                      │ saved
//!                          └──────────────────────────────────────────────────────┘
//! ```
//! The core decides ([`crate::core::witness`]); an answer waits until the vote behind it is on the disk. A vote that cannot be
//! written ends the whole: a tie-breaker that answers without remembering is worse than none.
//!
//! **Files.** `FOLDER/NAME.vote` ([`crate::meta::vote`]), made by [`create`], never by whoever connects: a folder that was lost
//! does not come back as one that granted nothing. New files are found once a second, so that a resource is added without
//! a restart. `FOLDER/lock` is locked while it runs: two over one folder would forget each other's promises.
//!
//! Refuses: nodes that are not of the resource, another version, messages that only replicas send.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use net::{
    CloseReason, Conn, Message as Frame, Net, NetConfig, NetError, PeerHello, Refusal, ReplyTo, Security, Service,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

mod files;

pub use files::{VoteFile, create, scan};

use super::actor::Clock;
use super::links::{Greeting, WitnessGreeting, version_of};
use super::{wire, words};
use crate::core::event::ConnId;
use crate::core::rules::Rules;
use crate::core::witness::{Vote, Witness as Core, WitnessEffect, WitnessEvent};
use crate::ids::{NodeId, Sizes};
use crate::meta::vote::Ledger;

/// A replica from which nothing came so long is dead, in milliseconds; `net` notices one that is cut off within 3 s.
const DEAD: u64 = 10_000;
/// How often time is looked at, and the folder.
const TICK: Duration = Duration::from_secs(1);
/// Spans are of no concern here; this only has to be larger than every device.
const SECTORS: u64 = 1 << 39;

/// How a tie-breaker runs.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// Where the votes are.
    pub folder: PathBuf,
    /// This node: that of the votes.
    pub node: NodeId,
    /// Where to listen for the replicas.
    pub listen: SocketAddr,
    /// Who this node is to them.
    pub security: Security,
    /// The cluster's nodes by the names that their certificates prove.
    pub nodes: BTreeMap<String, NodeId>,
}

/// Why a tie-breaker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The endpoint does not.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Another one runs over the folder.
    #[error("another tie-breaker runs over {}", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read, or is no vote.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Made for another node than the one that is to run it.
    #[error("{} is the vote of {found}", path.display())]
    OtherNode {
        /// Which file.
        path: PathBuf,
        /// Whose.
        found: NodeId,
    },
}

enum Input {
    Opened(Arc<Conn>),
    Came(u64, Frame),
    Closed(u64),
    Saved([u8; 16], u64, io::Result<()>),
    Stop(oneshot::Sender<()>),
}

/// What is to be written: in the order in which it comes.
struct Save {
    number: u64,
    path: PathBuf,
    ledger: Ledger,
}

/// A tie-breaker that runs. Dropped, it stops.
pub struct Witness {
    input: mpsc::UnboundedSender<Input>,
    listens: SocketAddr,
    ended: oneshot::Receiver<Result<(), WitnessError>>,
}

impl Witness {
    /// Starts: reads the votes, locks the folder, listens. Called in a runtime, which runs all of it. Reads files: called
    /// before anything else has to be done.
    ///
    /// # Errors
    /// A folder that is in use, a file that is no vote of this node, an address that is taken.
    ///
    /// # Cancel safety
    /// Safe to drop: what has begun ends.
    pub async fn start(config: WitnessConfig) -> Result<Witness, WitnessError> {
        let lock = files::lock(&config.folder)?;
        let mut votes = BTreeMap::new();
        load_new(&config.folder, config.node, &mut votes)?;
        let known: Known = Arc::new(Mutex::new(votes.values().map(|v| (v.ledger.resource, v.ledger)).collect()));
        // Bounded by who sends: a replica waits for each answer, and pings once a second.
        let (input, inputs) = mpsc::unbounded_channel();
        let service =
            Arc::new(Links { node: config.node, nodes: config.nodes, known: Arc::clone(&known), input: input.clone() });
        let net = Net::start(NetConfig::new(config.listen, config.security), service).await?;
        let listens = net.local_addr();
        let (save, saves) = std::sync::mpsc::channel();
        let told = input.clone();
        let written = std::thread::Builder::new().name("votes".to_owned()).spawn(move || write(&saves, &told));
        written.map_err(|e| WitnessError::File { path: config.folder.clone(), why: e.to_string() })?;
        let (end, ended) = oneshot::channel();
        let task = Task {
            folder: config.folder,
            node: config.node,
            clock: Clock::start(),
            votes,
            known,
            lines: BTreeMap::new(),
            save,
            _lock: lock,
        };
        tokio::spawn(async move {
            let result = task.run(inputs).await;
            net.shutdown().await;
            // Nobody may wait for it.
            drop(end.send(result));
        });
        Ok(Witness { input, listens, ended })
    }

    /// Where replicas find it.
    pub fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// Waits until it has ended by itself: a vote could not be written.
    ///
    /// # Errors
    /// Why.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn ended(&mut self) -> Result<(), WitnessError> {
        (&mut self.ended).await.unwrap_or(Ok(()))
    }

    /// Stops. To the replicas it is a crash, and costs no more than one.
    ///
    /// # Cancel safety
    /// Dropped, it goes on.
    pub async fn stop(&self) {
        let (done, answer) = oneshot::channel();
        if self.input.send(Input::Stop(done)).is_ok() {
            // Its end is the answer.
            let _ = answer.await;
        }
    }
}

/// What was made, as the endpoint's tasks look at it.
type Known = Arc<Mutex<BTreeMap<[u8; 16], Ledger>>>;

/// A resource's vote at work.
struct Voting {
    path: PathBuf,
    ledger: Ledger,
    core: Core,
}

/// A connection.
struct Line {
    resource: [u8; 16],
    node: NodeId,
    conn: Arc<Conn>,
    sent: u64,
    came: u64,
}

struct Task {
    folder: PathBuf,
    node: NodeId,
    clock: Clock,
    votes: BTreeMap<[u8; 16], Voting>,
    known: Known,
    lines: BTreeMap<u64, Line>,
    save: std::sync::mpsc::Sender<Save>,
    /// Held until the end.
    _lock: std::fs::File,
}

/// Reads votes that are not known yet.
fn load_new(folder: &Path, node: NodeId, votes: &mut BTreeMap<[u8; 16], Voting>) -> Result<(), WitnessError> {
    let known: Vec<PathBuf> = votes.values().map(|v| v.path.clone()).collect();
    for VoteFile { path, ledger, .. } in files::scan_without(folder, &known)? {
        if ledger.node != node {
            return Err(WitnessError::OtherNode { path, found: ledger.node });
        }
        let vote = Vote { promised: ledger.promised, grant: ledger.grant };
        let core = Core::new(vote, DEAD, Rules::all());
        votes.entry(ledger.resource).or_insert(Voting { path, ledger, core });
    }
    Ok(())
}

impl Task {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) -> Result<(), WitnessError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    None => return Ok(()),
                    Some(Input::Stop(done)) => {
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        return Ok(());
                    }
                    Some(input) => self.take(input)?,
                },
                _ = ticks.tick() => {
                    let all: Vec<[u8; 16]> = self.votes.keys().copied().collect();
                    all.into_iter().for_each(|r| self.handle(r, WitnessEvent::Tick));
                    self.look_for_new();
                }
            }
        }
    }

    /// A file that is wrong is told, and keeps nobody else waiting.
    fn look_for_new(&mut self) {
        let before = self.votes.len();
        if let Err(e) = load_new(&self.folder, self.node, &mut self.votes) {
            tracing::error!("{e}");
        }
        if self.votes.len() > before {
            *self.known.lock() = self.votes.values().map(|v| (v.ledger.resource, v.ledger)).collect();
        }
    }

    fn take(&mut self, input: Input) -> Result<(), WitnessError> {
        match input {
            Input::Opened(conn) => self.opened(conn),
            Input::Came(id, frame) => self.came(id, frame),
            Input::Closed(id) => self.closed(id),
            Input::Saved(resource, number, Ok(())) => self.handle(resource, WitnessEvent::Persisted(number)),
            Input::Saved(resource, _, Err(e)) => {
                let path = self.votes.get(&resource).map_or_else(|| self.folder.clone(), |v| v.path.clone());
                return Err(WitnessError::File { path, why: format!("the vote cannot be written: {e}") });
            }
            Input::Stop(_) => {}
        }
        Ok(())
    }

    fn opened(&mut self, conn: Arc<Conn>) {
        // Both were judged at HELLO.
        let said = postcard::from_bytes::<Greeting>(&conn.hello().app).ok();
        let Some(said) = said.filter(|g| self.votes.contains_key(&g.resource)) else {
            return conn.close("no such resource");
        };
        let (id, node, resource) = (conn.id(), said.node, said.resource);
        let old: Vec<u64> =
            self.lines.iter().filter(|(_, l)| (l.node, l.resource) == (node, resource)).map(|(id, _)| *id).collect();
        for old in old {
            if let Some(line) = self.lines.remove(&old) {
                line.conn.close("another connection took its place");
                self.handle(resource, WitnessEvent::Lost(node, ConnId(old)));
            }
        }
        tracing::info!("{node} is here for {}", said.name);
        self.lines.insert(id, Line { resource, node, conn, sent: 0, came: 0 });
        self.handle(resource, WitnessEvent::Connected(node, ConnId(id)));
    }

    fn came(&mut self, id: u64, frame: Frame) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.came += 1;
        let (resource, node) = (line.resource, line.node);
        match wire::unpack(frame, line.came, &Sizes::one(SECTORS)) {
            Ok(message) if wire::is_a_candidates(&message) => {
                self.handle(resource, WitnessEvent::Received(node, ConnId(id), message));
            }
            Ok(_) => self.broke(id, "a tie-breaker has a vote and no data"),
            Err(e) => self.broke(id, &e.to_string()),
        }
    }

    fn broke(&mut self, id: u64, why: &str) {
        if let Some(line) = self.lines.get(&id) {
            tracing::error!("{} broke the protocol: {why}", line.node);
            line.conn.close(&format!("protocol: {why}"));
        }
        self.closed(id);
    }

    fn closed(&mut self, id: u64) {
        let Some(line) = self.lines.remove(&id) else { return };
        tracing::info!("the connection to {} is over", line.node);
        self.handle(line.resource, WitnessEvent::Lost(line.node, ConnId(id)));
    }

    fn handle(&mut self, resource: [u8; 16], event: WitnessEvent) {
        let Some(voting) = self.votes.get_mut(&resource) else { return };
        let mut effects = Vec::new();
        voting.core.handle(self.clock.now(), event, &mut effects);
        for effect in effects {
            match effect {
                WitnessEffect::Send(_, ConnId(id), message) => self.send(id, &message),
                WitnessEffect::Close(_, ConnId(id)) => {
                    if let Some(line) = self.lines.remove(&id) {
                        line.conn.close("nothing came for long");
                    }
                }
                WitnessEffect::Persist(number, vote) => self.persist(resource, number, vote),
            }
        }
    }

    fn persist(&mut self, resource: [u8; 16], number: u64, vote: Vote) {
        let Some(voting) = self.votes.get_mut(&resource) else { return };
        voting.ledger = Ledger { promised: vote.promised, grant: vote.grant, ..voting.ledger };
        tracing::info!("promises {}; granted: {}", words::ballot(vote.promised), words::grant(vote.grant));
        let save = Save { number, path: voting.path.clone(), ledger: voting.ledger };
        if self.save.send(save).is_err() {
            // Its answer never goes out.
            tracing::error!("the thread of the votes has ended");
        }
    }

    fn send(&mut self, id: u64, message: &crate::core::event::Message) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.sent += 1;
        let posted = wire::pack(message, line.sent).map(|p| line.conn.post(p.frame()));
        if !matches!(posted, Ok(Ok(()))) {
            // A gap in the numbers would end it anyway.
            line.conn.close("an answer could not be sent");
        }
    }
}

/// The thread of the votes: one file after the other.
fn write(saves: &std::sync::mpsc::Receiver<Save>, told: &mpsc::UnboundedSender<Input>) {
    while let Ok(Save { number, path, ledger }) = saves.recv() {
        let result = files::save(&path, &ledger);
        if told.send(Input::Saved(ledger.resource, number, result)).is_err() {
            return;
        }
    }
}

/// What the endpoint calls.
struct Links {
    node: NodeId,
    nodes: BTreeMap<String, NodeId>,
    known: Known,
    input: mpsc::UnboundedSender<Input>,
}

impl Links {
    fn judge(&self, peer: &PeerHello) -> Result<Bytes, String> {
        let subject = &peer.identity.subject;
        let node = self.nodes.get(subject).copied().ok_or_else(|| format!("{subject} is no node of this cluster"))?;
        let version = version_of(&peer.app)?;
        if version != wire::VERSION {
            return Err(format!(
                "{node} speaks version {version} of these messages, the tie-breaker {}",
                wire::VERSION
            ));
        }
        let said: Greeting = postcard::from_bytes(&peer.app).map_err(|e| format!("its HELLO does not parse: {e}"))?;
        let ledger = self.known.lock().get(&said.resource).copied();
        let ledger = ledger.ok_or_else(|| {
            format!("there is no vote for {} here: `shorefast witness create {}`", said.name, said.name)
        })?;
        if node != said.node || !ledger.replicas.has(node) {
            return Err(format!("{node} has no replica of {}, as the tie-breaker was told", said.name));
        }
        if said.witness != Some((self.node, ledger.identity)) {
            return Err(format!(
                "the tie-breaker of {} is {:016x} of {}, {node} was told of another",
                said.name, ledger.identity, self.node
            ));
        }
        let (resource, identity) = (ledger.resource, ledger.identity);
        let greeting = WitnessGreeting { version: wire::VERSION, node: self.node, resource, identity };
        Ok(postcard::to_stdvec(&greeting).unwrap_or_default().into())
    }

    fn tell(&self, input: Input) {
        // One that has stopped needs to know nothing more.
        let _ = self.input.send(input);
    }
}

impl Service for Links {
    fn hello(&self, peer: &PeerHello) -> Result<Bytes, Refusal> {
        self.judge(peer).map_err(Refusal::new)
    }

    fn opened(&self, conn: &Arc<Conn>) {
        self.tell(Input::Opened(Arc::clone(conn)));
    }

    fn request(&self, _conn: &Arc<Conn>, _msg: Frame, reply: ReplyTo) {
        reply.fail("a tie-breaker is asked nothing in this way");
    }

    fn oneway(&self, conn: &Arc<Conn>, msg: Frame) {
        self.tell(Input::Came(conn.id(), msg));
    }

    fn closed(&self, conn: &Arc<Conn>, _why: &CloseReason) {
        self.tell(Input::Closed(conn.id()));
    }
}
