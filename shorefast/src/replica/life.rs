//! `replica up`: one replica in a process of its own, until SIGTERM, SIGINT or `replica down`.
//!
//! Each volume is an export of its own: `NAME`, and `NAME/1` and so on for the further ones. All of them are served, or none.
//!
//! The way up: the record, the disks for this process alone, their metadata, the control socket, the endpoint, NBD. The way down: the
//! export is withdrawn (what clients have under way is answered), a primary becomes secondary (everything is settled with the
//! peers), the disk comes to rest, which is written down, the resource stops. A primary that cannot come to rest in time is stopped like one that crashed, which is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use block::worker::{Handle, Workers};
use net::{Security, TlsMaterial};
use replicator::core::event::Refusal;
use replicator::ids::Volume;
use replicator::meta::superblock::Superblock;
use replicator::nbd::{Exports, Listen, Server as Nbd};
use replicator::runtime::status::{self, PeerStatus, Resync, Status};
use replicator::runtime::{Local, PeerAddress, Resource, ResourceConfig, Stopped, resource_id, worker_of_resources};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

mod volumes;

use super::ends::Ends;
use super::make::node_id;
use super::record::{MetricsAt, Record};
use super::talk::{Answer, Ask, MAX_LINE};
use super::{ends, events, machine, open_alone};
use crate::api::{Server as Socket, ServerError};
use crate::cli::{Global, ReplicaName};
use crate::daemon::{Signals, log_to_stderr};
use crate::exit::{Exit, Failure};
use crate::init::{Bundle, dns_name};
use crate::metrics;
use volumes::{is_free, part, was_of};

/// How long a primary may take to settle with its peers on the way down.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// How long a peer may take to be met tentatively.
const MEET_WITHIN: Duration = Duration::from_secs(5);
/// A command writes its line at once.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// What is told once it runs.
#[derive(serde::Serialize)]
pub(crate) struct Ready {
    name: String,
    bytes: u64,
    listen: String,
    uri: String,
}

impl Ready {
    /// As text.
    pub(crate) fn line(&self) -> String {
        format!("ready: {} (served while it is primary)\n", self.uri)
    }
}

/// Runs it; `ready` is called once.
pub(crate) fn run(
    which: &ReplicaName,
    global: &Global,
    ready: impl FnOnce(&Ready) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    log_to_stderr(EnvFilter::new(["info", "debug", "trace"][usize::from(global.verbose).min(2)]));
    let record = Record::load(&which.dir, &which.name)?;
    let bundle = Bundle::load(&record.bundle)?;
    let limits = |e: std::io::Error| Failure::failed(format!("Cannot start: {e}."), "See the limits of the system.");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = Workers::start(cores, "replica").map_err(limits)?;
    let local = open(&record, &bundle, &workers, &which.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(limits)?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let socket = Socket::bind(&Record::control(&which.dir, &which.name)).map_err(|e| taken(&which.name, &e))?;
        let up = Arc::new(Up::start(&record, &bundle, local, &workers, &which.dir).await?);
        let metrics = metrics_listener(&record).await?;
        ready(&up.ready(&record))?;
        tokio::select! {
            () = serve(&socket, Arc::clone(&up)) => {}
            () = serve_metrics(metrics, Arc::clone(&up)) => {}
            () = up.remember_failure() => {}
            () = up.withdraw_when_deposed() => {}
            () = up.down.notified() => {}
            () = signals.next() => {}
        }
        drop(socket);
        tokio::select! {
            () = up.stop() => Ok(up.resource.hangs()),
            () = signals.next() => Err(Failure::failed("Ended by a second signal.", "The peers see a crash.")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if !matches!(ended, Ok(false)) {
        // Their end would wait for a disk that hangs. The kernel keeps the disk's lock until the last request there has landed.
        std::mem::forget(workers);
    }
    ended.map(|_| Exit::Ok)
}

/// Where metrics are asked for. Of several replicas of a host the first one has the place that nobody said.
async fn metrics_listener(record: &Record) -> Result<Option<TcpListener>, Failure> {
    let at = record.metrics().map_err(|said| Failure::usage(format!("{said}."), "Correct the replica's file."))?;
    match at {
        MetricsAt::Off => Ok(None),
        MetricsAt::Told(at) => metrics::listen(at).await.map(Some).map_err(|e| {
            Failure::failed(
                format!("Metrics cannot be served at {at}: {e}."),
                "Set `metrics` in the replica's file to another place, or to \"off\".",
            )
        }),
        MetricsAt::Default(at) => match metrics::listen(at).await {
            Ok(listener) => Ok(Some(listener)),
            Err(e) => {
                tracing::warn!("no metrics: {at}: {e}; set `metrics` in the replica's file to another place");
                Ok(None)
            }
        },
    }
}

async fn serve_metrics(listener: Option<TcpListener>, up: Arc<Up>) {
    let Some(listener) = listener else { return std::future::pending().await };
    metrics::serve(listener, move || {
        let up = Arc::clone(&up);
        async move { up.resource.metrics().await.ok().map(|m| super::metrics::shown(&m)) }
    })
    .await;
}

/// The disks, if they carry this replica.
fn open(record: &Record, bundle: &Bundle, workers: &Workers, dir: &Path) -> Result<Local, Failure> {
    let shown = record.disk.display();
    let further = record.further()?;
    let mut disks = vec![(Volume::FIRST, open_alone(&record.disk, &workers.handle())?)];
    for (volume, path) in &further {
        disks.push((*volume, open_alone(path, &workers.handle())?));
    }
    let failed = Record::failed(dir, &record.name);
    let paths: Vec<&Path> =
        [&record.disk].into_iter().chain(further.iter().map(|(_, p)| p)).map(PathBuf::as_path).collect();
    let life = machine::life_of(&paths, &failed);
    let ends = Record::ends(dir, &record.name);
    let known = ends::load(&ends)?;
    let local = Local::open_parts(disks.iter().map(|(v, disk)| (*v, part(disk))), life, &known).map_err(|e| {
        Failure::failed(
            format!("{shown} cannot be used as the replica {}: {e}.", record.name),
            "See whether the disks in the replica's file are the right ones.",
        )
    })?;
    let sb = local.superblock();
    let ours = sb.resource == resource_id(&bundle.cluster_id, &record.name) && sb.node == node_id(record.node);
    if !ours || bundle.node != record.node {
        return Err(Failure::new(
            Exit::Refused,
            format!("{shown} carries a replica of {} that is not {} of this node.", sb.node, record.name),
            "See whether disk and bundle in the replica's file are the right ones.",
        ));
    }
    for (volume, path) in further.iter().filter(|(v, _)| local.sizes().of(*v) == 0) {
        // It is taken for the volume as soon as a peer has that.
        let device = disks.iter().find(|(v, _)| v == volume).map(|(_, disk)| disk.device());
        if sb.lives().of(*volume) > 0 && device.as_ref().is_some_and(|device| was_of(device, *volume, sb)) {
            tracing::warn!("{}/{} was taken away: take it out of the replica's file", record.name, volume.get());
            local.leave_out(*volume);
            continue;
        }
        device.map_or(Ok(()), |device| is_free(path, &device, sb))?;
    }
    machine::forget_failure(&failed).map_err(|e| {
        Failure::failed(format!("{} cannot be removed: {e}.", failed.display()), "See who may write there.")
    })?;
    let known = Ends::found(ends.clone(), local.found_by()).map_err(|e| ends::not_written(&ends, &e))?;
    let local = local.remembered(Box::new(move |end| known.add(end)));
    tracing::info!(
        "what was acknowledged here is {}",
        if local.has_kept() { "all there" } else { "not known to be all there" }
    );
    Ok(local)
}

fn taken(name: &str, e: &ServerError) -> Failure {
    match e {
        ServerError::InUse(_) => Failure::new(
            Exit::Refused,
            format!("The replica {name} runs already."),
            format!("See `shorefast replica status {name}`."),
        ),
        _ => Failure::failed(format!("{e}."), "See who may write there."),
    }
}

/// A replica that runs.
struct Up {
    name: String,
    dir: PathBuf,
    /// What it was started with, and what was changed since.
    record: parking_lot::Mutex<Record>,
    resource: Resource,
    exports: Arc<Exports>,
    nbd: tokio::sync::Mutex<Option<Nbd>>,
    nbd_path: PathBuf,
    workers: Handle,
    /// What the replica said of itself when it was started.
    own: Superblock,
    /// Roles change one at a time.
    role: tokio::sync::Mutex<()>,
    down: Notify,
}

impl Up {
    async fn start(
        record: &Record,
        bundle: &Bundle,
        local: Local,
        workers: &Workers,
        dir: &Path,
    ) -> Result<Up, Failure> {
        let tls = TlsMaterial::from_pem(&bundle.ca_certificate, &bundle.certificate, &bundle.key).map_err(|e| {
            Failure::usage(format!("The bundle's certificates cannot be used: {e}."), "Install it again.")
        })?;
        let address =
            |(node, address)| (node_id(node), PeerAddress { subject: dns_name(&bundle.cluster_id, node), address });
        let Some(protocol) = record.protocol() else { unreachable!("checked when it was read") };
        let config = ResourceConfig {
            name: record.name.clone(),
            protocol,
            disk: record.disk_policy(),
            quorum: record.quorum(&bundle.cluster_id)?,
            peers: record.peers()?.into_iter().map(address).collect(),
            listen: record.listen,
            security: Security::Tls(tls),
        };
        let (exports, nbd_path) = (Arc::new(Exports::default()), Record::nbd(dir, &record.name));
        let failed =
            |e: String| Failure::failed(format!("The replica {} cannot start: {e}.", record.name), "Put that right.");
        let listen = [Listen::Unix(nbd_path.clone())];
        let served_on = worker_of_resources(&workers.handle());
        let nbd = Nbd::start(served_on, Arc::clone(&exports), &listen).await.map_err(|e| failed(e.to_string()))?;
        let own = local.superblock().clone();
        let resource = Resource::start(config, local, &workers.handle()).await.map_err(|e| failed(e.to_string()))?;
        Ok(Up {
            name: record.name.clone(),
            dir: dir.to_owned(),
            record: parking_lot::Mutex::new(record.clone()),
            resource,
            exports,
            nbd: tokio::sync::Mutex::new(Some(nbd)),
            nbd_path,
            workers: workers.handle(),
            own,
            role: tokio::sync::Mutex::default(),
            down: Notify::new(),
        })
    }

    fn ready(&self, record: &Record) -> Ready {
        Ready {
            name: record.name.clone(),
            bytes: self.resource.device().geometry().len.0,
            listen: self.resource.listens().to_string(),
            uri: format!("nbd+unix:///{}?socket={}", self.name, self.nbd_path.display()),
        }
    }

    async fn carry_out(&self, ask: Ask) -> Answer {
        let done = match ask {
            Ask::Status => Ok(()),
            Ask::Down => {
                let last = self.status().await;
                self.stop().await;
                return last;
            }
            Ask::Primary { force } => self.primary(force).await?,
            Ask::Secondary => self.secondary().await,
            Ask::Connect { discard } => self.connect(discard).await?,
            Ask::Disconnect => self.resource.disconnect().await,
            Ask::Verify => self.verify().await?,
            Ask::Repair { from } => self.repair(from).await?,
            Ask::Tentative => self.connect_tentatively().await?,
            Ask::Events { .. } => Ok(()),
            Ask::Adjust => self.adjust().await?,
            Ask::Resize { volume, size, clean } => self.resize(volume, size, clean).await?,
            Ask::RemoveVolume { volume, force } => self.remove_volume(volume, force).await?,
        };
        done.map_err(|e| self.stopped(e))?;
        self.status().await
    }

    async fn status(&self) -> Answer {
        self.resource.status().await.map_err(|e| self.stopped(e))
    }

    fn stopped(&self, _: Stopped) -> Failure {
        Failure::failed(format!("The replica {} is stopping.", self.name), "Start it again.")
    }

    /// Primary, and served.
    async fn primary(&self, force: bool) -> Result<Result<(), Stopped>, Failure> {
        let _one = self.role.lock().await;
        match self.resource.promote(force).await {
            Err(stopped) => return Ok(Err(stopped)),
            Ok(Err(why)) => return Err(self.not_promoted(why)),
            Ok(Ok(())) => {}
        }
        self.serve_volumes();
        Ok(Ok(()))
    }

    /// Why it does not become primary, and what may be done about it.
    fn not_promoted(&self, why: Refusal) -> Failure {
        let said = format!("{} does not become primary here: {}.", self.name, status::refusal(why));
        match why {
            Refusal::NoMajority => Failure::new(
                Exit::NoQuorum,
                said,
                format!(
                    "See in `replica status {0}` who cannot be heard. --force does not help: if the others are gone for good, \
                     stop it, set `quorum = \"off\"` in {1}, take the tie-breaker out of it, and start it again.",
                    self.name,
                    Record::path(&self.dir, &self.name).display()
                ),
            ),
            Refusal::LostCache => Failure::new(
                Exit::Refused,
                said,
                "Start the other replicas, or make one of them primary; --force does without what only they have, and says what \
                 that may be.",
            ),
            Refusal::OtherPrimary => Failure::new(
                Exit::Refused,
                said,
                format!(
                    "Run `shorefast replica secondary {}` on that node first; --force does not help while it is heard.",
                    self.name
                ),
            ),
            Refusal::Overtaken(node) => Failure::new(
                Exit::Refused,
                said,
                format!(
                    "Nothing was changed here. See in `replica status {0}` whether node-{1} is primary: if this one is to be, run \
                     `shorefast replica secondary {0}` there first. If it has gone, try again: within ten seconds it is not waited for any more.",
                    self.name,
                    node.get()
                ),
            ),
            Refusal::OwnDisk => Failure::new(
                Exit::Refused,
                said,
                "See the log for what the disk does; with `--disk-timeout` a disk that hangs is left.",
            ),
            _ => Failure::new(
                Exit::Refused,
                said,
                "See `replica status`; connect with who has the newest data. Where nothing was ever written, give --force on the node where \
                 the data to begin with are; else --force may lose what others wrote.",
            ),
        }
    }

    /// A primary that another took the reign from serves nobody: its clients are told, and leave. Never ends.
    async fn withdraw_when_deposed(&self) {
        let mut primary = self.resource.primary();
        while primary.changed().await.is_ok() {
            if !*primary.borrow_and_update() {
                self.withdraw();
            }
        }
        std::future::pending::<()>().await;
    }

    /// A disk that fails is remembered beside the record: when it works again it may lack what it acknowledged. Never ends.
    async fn remember_failure(&self) {
        let mut failed = self.resource.failed();
        if failed.wait_for(|failed| *failed).await.is_ok() {
            let file = Record::failed(&self.dir, &self.name);
            if let Err(e) = machine::remember_failure(&file) {
                tracing::error!("{} cannot be written: {e}", file.display());
            }
        }
        std::future::pending::<()>().await;
    }

    /// What differs in the file and can be changed while it runs.
    async fn adjust(&self) -> Result<Result<(), Stopped>, Failure> {
        let wanted = Record::load(&self.dir, &self.name)?;
        let running = self.record.lock().clone();
        let reachable = Record {
            on_no_quorum: wanted.on_no_quorum,
            disk_timeout_s: wanted.disk_timeout_s,
            on_io_error: wanted.on_io_error,
            volumes: wanted.volumes.clone(),
            ..running.clone()
        };
        let there = |(number, volume): (&String, _)| wanted.volumes.get(number).is_none_or(|w| w == volume);
        let kept = running.volumes.iter().all(there);
        if wanted != reachable || !kept {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} differs from what runs in more than on_no_quorum, disk_timeout_s, on_io_error and volumes that are new or are taken away.",
                    Record::path(&self.dir, &self.name).display()
                ),
                format!("The rest changes with a restart: `shorefast replica down {0}`, then `up {0}`.", self.name),
            ));
        }
        let mut done = self.resource.on_no_quorum(wanted.on_no_quorum()).await;
        if done.is_ok() {
            done = self.resource.disk_policy(wanted.disk_policy()).await;
        }
        let further = wanted.further()?;
        self.remove_volumes(&running.further()?, &further).await?;
        for (volume, path) in further.iter().filter(|(v, _)| !self.resource.has_disk(*v)) {
            self.add_disk(*volume, path).await?;
        }
        *self.record.lock() = wanted;
        match done {
            Ok(()) if self.status().await?.role == "Primary" => self.make_volumes(&further).await,
            done => Ok(done),
        }
    }

    async fn secondary(&self) -> Result<(), Stopped> {
        let _one = self.role.lock().await;
        self.withdraw();
        self.resource.demote().await
    }

    async fn connect(&self, discard: bool) -> Result<Result<(), Stopped>, Failure> {
        let status = self.status().await?;
        if discard && status.role == "Primary" {
            return Err(Failure::new(
                Exit::Refused,
                format!("{} is primary here: the data in use cannot be given up.", self.name),
                format!("First `shorefast replica secondary {}`.", self.name),
            ));
        }
        Ok(self.resource.connect(discard).await)
    }

    async fn verify(&self) -> Result<Result<(), Stopped>, Failure> {
        match self.resource.verify().await {
            Ok(false) => Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} cannot be compared now: that takes an equal peer that is connected, and no primary but one of the two.",
                    self.name
                ),
                "See `replica status`; wait until a peer is Established, or run it on the primary.",
            )),
            begun => Ok(begun.map(|_| ())),
        }
    }

    async fn repair(&self, from: u8) -> Result<Result<(), Stopped>, Failure> {
        let refused = || {
            Failure::new(
                Exit::Refused,
                format!("{} cannot be repaired here from node-{from}.", self.name),
                "Run it on the primary, and name that node or an equal peer that is connected.",
            )
        };
        let Some(from) = replicator::ids::NodeId::new(from) else { return Err(refused()) };
        match self.resource.repair(from).await {
            Ok(false) => Err(refused()),
            begun => Ok(begun.map(|_| ())),
        }
    }

    /// Meets the peers once, and waits until each has been met or is not to be heard.
    async fn connect_tentatively(&self) -> Result<Result<(), Stopped>, Failure> {
        let status = self.status().await?;
        if let Some(peer) = status.peers.iter().find(|p| p.connection != "StandAlone") {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} is {} with node-{}: that is no preview any more.",
                    self.name,
                    peer.connection,
                    peer.node.get()
                ),
                format!("First `shorefast replica disconnect {}`.", self.name),
            ));
        }
        if let Err(stopped) = self.resource.connect_tentatively().await {
            return Ok(Err(stopped));
        }
        let deadline = tokio::time::Instant::now() + MEET_WITHIN;
        while self.status().await?.peers.iter().any(|p| p.preview.is_none()) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(self.resource.disconnect().await)
    }

    /// The way down.
    async fn stop(&self) {
        self.withdraw();
        if tokio::time::timeout(SETTLE_WITHIN, self.resource.demote()).await.is_err() {
            tracing::error!("{} did not come to rest as a primary, and is stopped as if it had crashed", self.name);
        }
        match tokio::time::timeout(SETTLE_WITHIN, self.resource.rest()).await {
            Ok(Ok(true)) | Ok(Err(Stopped)) => {}
            _ => tracing::error!("{} is stopped without having come to rest", self.name),
        }
        // Before NBD: it answers what clients wait for.
        self.resource.stop().await;
        if let Some(nbd) = self.nbd.lock().await.take() {
            nbd.stop().await;
        }
    }
}

/// Takes commands until dropped.
async fn serve(socket: &Socket, up: Arc<Up>) {
    loop {
        match socket.accept().await {
            Ok(stream) => drop(tokio::spawn(command(stream, Arc::clone(&up)))),
            Err(e) => {
                tracing::warn!("the control socket did not accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn command(stream: UnixStream, up: Arc<Up>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(MAX_LINE));
    let Ok(Ok(_)) = tokio::time::timeout(LINE_WITHIN, reader.read_line(&mut line)).await else { return };
    let asked = serde_json::from_str::<Ask>(&line);
    if let Ok(Ask::Events { follow }) = asked {
        return events::tell(&up.resource, follow, &mut writer).await;
    }
    let answer = match &asked {
        Ok(ask) => up.carry_out(*ask).await,
        Err(e) => Err(Failure::usage(format!("The replica did not understand: {e}."), "Use one version of shorefast.")),
    };
    let Ok(mut said) = serde_json::to_vec(&answer) else { return };
    said.push(b'\n');
    // Whoever asked may have gone.
    let _ = writer.write_all(&said).await;
    if let Ok(Ask::Down) = asked {
        up.down.notify_one();
    }
}

/// A status for people, in the shape of `drbdadm status`: the resource, its disk, each peer and what there is between the two.
pub(crate) fn shown(status: &Status) -> String {
    let suspended = if status.suspended { " suspended:quorum" } else { "" };
    let mut text = format!("{} role:{}{suspended}\n", status.name, status.role);
    text += &format!(
        "  disk:{} protocol:{} size:{} quorum:{} waiting:{}\n",
        status.disk, status.protocol, status.size_bytes, status.quorum, status.waiting
    );
    for volume in status.volumes.iter().filter(|_| status.volumes.len() > 1) {
        let out: Vec<String> =
            volume.out_of_sync.iter().map(|o| format!("node-{}:{}", o.node.get(), o.bytes)).collect();
        let (number, disk, size) = (volume.volume, &volume.disk, volume.size_bytes);
        text += &format!("  volume:{number} disk:{disk} size:{size} out-of-sync:{}\n", out.join(","));
    }
    status.peers.iter().for_each(|peer| text += &shown_peer(peer));
    if let Some(witness) = &status.witness {
        text += &format!("  node-{} tie-breaker connection:{}\n", witness.node.get(), witness.connection);
        text += &witness.reason.iter().map(|r| format!("    {r}\n")).collect::<String>();
    }
    text
}

fn shown_peer(peer: &PeerStatus) -> String {
    let node = peer.node.get();
    let mut text = match &*peer.connection {
        "StandAlone" | "Connecting" | "Handshake" => format!("  node-{node} connection:{}\n", peer.connection),
        _ => format!("  node-{node} role:{}\n", peer.role),
    };
    text += &match &*peer.connection {
        "StandAlone" | "Connecting" | "Handshake" => format!("    out-of-sync:{}\n", peer.out_of_sync_bytes),
        replication => {
            format!("    replication:{replication} peer-disk:{} out-of-sync:{}\n", peer.disk, peer.out_of_sync_bytes)
        }
    };
    text += &peer.reason.iter().map(|r| format!("    {r}\n")).collect::<String>();
    if let Some(found) = peer.verified.as_ref().filter(|v| !v.over) {
        let (done, total) = (crate::render::bytes(found.done_bytes), crate::render::bytes(found.total_bytes));
        text += &format!("    verified:{done} of {total}\n");
    }
    if let Some(now) = peer.resync {
        text += &format!("    {}\n", under_way(&now));
    }
    if let Some(last) = peer.synchronised {
        text += &format!(
            "    last synchronised: {} blocks sent, {} zeroed, {} compared and equal\n",
            last.sent, last.zeroed, last.equal
        );
    }
    text
}

/// A synchronisation under way, for people.
fn under_way(now: &Resync) -> String {
    let end = now.eta_s.map_or_else(|| "unknown".to_owned(), |s| format!("{s} s"));
    format!(
        "synchronised:{}.{:02}% of {} at {}/s, ends in:{end}",
        now.done() / 100,
        now.done() % 100,
        crate::render::bytes(now.total_bytes),
        crate::render::bytes(now.bytes_per_s)
    )
}

/// What a meeting with a peer would come to, for people.
pub(crate) fn previewed(peer: &PeerStatus) -> String {
    let node = peer.node.get();
    let Some(preview) = &peer.preview else {
        let why = peer.reason.clone().unwrap_or_else(|| "it was not heard".to_owned());
        return format!("node-{node}: nothing is known: {why}\n");
    };
    let (bytes, rules) = (preview.bytes, preview.rules.join(", "));
    let said = match &*preview.result {
        "equal" => "the two are equal; nothing would be sent".to_owned(),
        "source" => {
            format!("this replica would be the source: up to {bytes} bytes compared, and sent where they differ")
        }
        "target" => format!("this replica would be the target: up to {bytes} bytes here overwritten where they differ"),
        "split-brain" => format!("a split brain: the two would not connect; up to {bytes} bytes differ"),
        "unrelated" => "the data have nothing in common: the two would not connect".to_owned(),
        "primary-would-lose" => {
            format!("a primary would be overwritten: the two would not connect; up to {bytes} bytes differ")
        }
        other => format!("{other}: the two would wait for another node"),
    };
    format!("node-{node}: {said} (by {rules})\n")
}
