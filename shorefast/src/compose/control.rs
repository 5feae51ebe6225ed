//! What a command can ask of this node, done on its parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use csv_fs::volume::{DiskSource, Leaves, NewVolume, Volume};

use super::node::{Keeping, NodeParts, node_id};
use super::records::Record;
use super::shown;
use super::told::{Known, Words};
use crate::api::{
    CheckAnswer, CreateVolume, DiskFault, Node, NodeControl, NodeInfo, Pending, Progress, SCHEMA, Status, VolumeNode,
    VolumeStatus,
};
use crate::clock::WallTime;
use crate::disk_url::{self, Disk};
use crate::events::{Code, Draft, EventLog};
use crate::exit::{Exit, Failure};
use crate::san;

/// How long a command waits for a volume to be mounted, moved or unmounted before it says that it still goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long `volume create` waits for the other nodes; mounting takes a fraction of a second.
const ELSEWHERE_WITHIN: Duration = Duration::from_secs(5);
/// How often a command that waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long other nodes may take to tell of their volumes; a status must not wait for a dead node.
const WORDS_WITHIN: Duration = Duration::from_millis(300);

/// The API's view of a node.
pub(super) struct Control(pub(super) Arc<NodeParts>);

impl NodeControl for Control {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async move { Ok(self.whole_status().await) })
    }

    fn nodes(&self) -> Pending<'_, Vec<NodeInfo>> {
        Box::pin(async move {
            // Asking everybody measures the round trips.
            let _ = self.0.words_of_others(WORDS_WITHIN).await;
            Ok(self.node_list())
        })
    }

    fn volumes(&self) -> Pending<'_, Vec<VolumeStatus>> {
        Box::pin(async move { Ok(self.volume_list().await) })
    }

    fn volume_create(&self, ask: CreateVolume, progress: Progress) -> Pending<'_, VolumeStatus> {
        Box::pin(async move { self.create(ask, &progress).await })
    }

    fn volume_mount(&self, name: String) -> Pending<'_, VolumeStatus> {
        Box::pin(async move {
            let record = self.0.record(&name)?;
            if self.0.running(&name).is_err() {
                self.0.in_service(&format!("it does not mount {name}"))?;
            }
            self.unmounted(&record.id, false).await?;
            let seen = self.0.tries(&record.id).unwrap_or_default().begun;
            let stands = |k: &Keeping| !matches!(k, Keeping::Unmounted { .. } | Keeping::Over { .. });
            self.0.keeping.lock().retain(|id, k| *id != record.id || stands(k));
            self.0.keep(&Record { wanted: true, ..record });
            self.0.ring();
            self.until_mounted(&name, seen).await
        })
    }

    fn volume_unmount(&self, name: String, force: bool) -> Pending<'_, ()> {
        Box::pin(async move { self.unmount(&name, force).await })
    }

    fn volume_move(&self, name: String, to: Node, progress: Progress) -> Pending<'_, VolumeStatus> {
        Box::pin(async move { self.move_office(&name, to, &progress).await })
    }

    fn volume_redirect(&self, name: String, on: bool, node: Option<Node>) -> Pending<'_, ()> {
        Box::pin(async move { self.0.redirect(name, on, node.unwrap_or(self.0.bundle.node)).await })
    }

    fn volume_check(&self, name: String, repair: bool, progress: Progress) -> Pending<'_, CheckAnswer> {
        Box::pin(async move { self.0.check(&name, repair, &progress).await })
    }

    fn node_drain(&self, node: Option<Node>, on: bool, progress: Progress) -> Pending<'_, ()> {
        Box::pin(async move { self.0.drain(node.unwrap_or(self.0.bundle.node), on, &progress).await })
    }

    fn node_remove(&self, node: Node, progress: Progress) -> Pending<'_, ()> {
        Box::pin(async move { self.0.remove(node, &progress).await })
    }

    fn stop(&self) -> Pending<'_, ()> {
        Box::pin(async move { self.stop_all().await })
    }

    fn leave(&self) -> Pending<'_, ()> {
        Box::pin(async move { self.leave_all().await })
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.0.events)
    }

    fn debug_disk(&self, fault: DiskFault) -> Pending<'_, ()> {
        Box::pin(async move { self.set_fault(fault) })
    }

    fn debug_evict(&self, name: String, node: Node) -> Pending<'_, ()> {
        Box::pin(async move { self.evict(&name, node) })
    }
}

impl Control {
    async fn create(&self, ask: CreateVolume, progress: &Progress) -> Result<VolumeStatus, Failure> {
        let node = &self.0;
        check_name(&ask.name)?;
        node.in_service("it makes no volume")?;
        if node.records.named(&ask.name).is_some() {
            return Err(Failure::new(
                Exit::Refused,
                format!("There is a volume `{}` already.", ask.name),
                "Choose another name.",
            ));
        }
        let disks = san::local::resolved(&ask.disks)?;
        let disk = disk_url::disk(&disks)?;
        let shown = disk.to_string();
        progress.say(format!("Examining {shown}."));
        let source = match &disk {
            Disk::File(_) => DiskSource::File(disk_url::shareable(&disks[0])?),
            Disk::Scsi(unit) => {
                san::local::examine(&node.io, unit, &node.config.scsi_disks).await?;
                node.source(&disk, &ask.name)
            }
            Disk::Unit(portals) => {
                if san::examine(&node.io, portals, &node.caller()).await?.write_back {
                    progress.say(san::CACHES);
                }
                node.source(&disk, &ask.name)
            }
        };
        let new = NewVolume {
            name: ask.name.clone(),
            disk: source,
            node: node.me(),
            nodes: u8::try_from(node.list().nodes.len()).unwrap_or(u8::MAX),
            fast_timing: ask.timing == crate::api::Timing::Fast,
            wipe: ask.wipe.clone(),
        };
        node.can_be_mounted(&ask.name).await?;
        node.saves(|node, turn| node.records.writable(turn)).await?;
        node.keep_secrets(&disk, progress).await?;
        let id = csv_fs::volume::create(new, node.io.clone()).await.map_err(|e| create_failure(&e))?;
        node.events.record(Draft::volume(Code::VolumeCreated, &ask.name, format!("on {shown}, {id}")));
        progress.say("Formatted. Taking office and mounting.");
        let record = Record {
            id: id.to_string(),
            name: ask.name.clone(),
            disks: disk.references(&disks),
            wanted: true,
            version: 1,
            deleted: false,
        };
        let untold = node.take_own_record(record).await?;
        self.until_mounted(&ask.name, 0).await?;
        let status = self.until_coordinated(&ask.name).await;
        progress.say("Telling the other nodes.");
        drop(untold);
        self.until_begun_elsewhere(&ask.name).await;
        status
    }

    /// Waits until the other nodes that can be reached have mounted a new volume, or know why not: who looks at the status
    /// right after the command is to see how it is, not how it begins. What goes wrong there is not this command's failure.
    async fn until_begun_elsewhere(&self, name: &str) {
        let deadline = tokio::time::Instant::now() + ELSEWHERE_WITHIN;
        while tokio::time::Instant::now() < deadline {
            let words = self.0.words_of_others(WORDS_WITHIN).await;
            let told = words.iter().flat_map(|words| &words.told);
            let begun = told.filter(|told| told.name == name && told.has_begun()).count();
            let up = self.0.peers.addresses().keys().filter(|node| self.0.peers.conn(**node).is_some()).count();
            if begun >= up {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a volume that is mounted here has a coordinator.
    async fn until_coordinated(&self, name: &str) -> Result<VolumeStatus, Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let volume = self.0.running(name)?;
            if volume.office().metadata == csv_fs::volume::MetadataState::Ok {
                return Ok(self.running_status(name, &volume));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let message = format!("Volume {name} is mounted and has no coordinator yet.");
        Err(Failure::new(Exit::StillRunning, message, "See `shorefast status` and `shorefast events`."))
    }

    /// Waits until a volume is mounted here, or a try that began after `seen` has failed for a reason that waiting does
    /// not mend.
    async fn until_mounted(&self, name: &str, seen: u64) -> Result<VolumeStatus, Failure> {
        let id = self.0.record(name)?.id;
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.0.running(name) {
                Ok(volume) => return Ok(self.running_status(name, &volume)),
                Err(e) if self.0.tries(&id).is_some_and(|tries| tries.in_vain_since(seen)) => {
                    let next = format!(
                        "Put that right, then `shorefast volume mount {name}`; it is tried again by itself, too."
                    );
                    return Err(Failure { next, ..e });
                }
                Err(e) => last = Some(e),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(last.map_or_else(
            || {
                Failure::new(
                    Exit::StillRunning,
                    format!("Volume {name} is still being mounted."),
                    "See `shorefast status`.",
                )
            },
            |e| Failure { kind: Exit::StillRunning, ..e },
        ))
    }

    async fn unmount(&self, name: &str, force: bool) -> Result<(), Failure> {
        let record = self.0.record(name)?;
        if matches!(self.0.keeping.lock().get(&record.id), Some(Keeping::Over { .. })) {
            self.0.keeping.lock().insert(record.id.clone(), Keeping::Unmounted { since: WallTime::now() });
            return self.unmounted(&record.id, true).await;
        }
        if matches!(self.0.keeping.lock().get(&record.id), None | Some(Keeping::Unmounted { .. })) {
            // Also if that could not be remembered when it was unmounted.
            self.unmounted(&record.id, true).await?;
            return Err(Failure::failed(
                format!("Volume {name} is not mounted on {} anyway.", self.0.bundle.node),
                "Nothing is to be done.",
            ));
        }
        let volume = self.0.running(name)?;
        volume.stop(force).await.map_err(|e| {
            Failure::new(
                if e.is_busy() { Exit::Refused } else { Exit::Failed },
                format!("Volume {name} was not unmounted: {e}."),
                e.next_step(),
            )
        })?;
        self.0.directory.remove(&volume);
        self.0.keeping.lock().insert(record.id.clone(), Keeping::Unmounted { since: WallTime::now() });
        self.0.events.record(Draft::volume(Code::VolumeUnmounted, name, "somebody asked for it"));
        self.unmounted(&record.id, true).await
    }

    /// Remembers that a volume was unmounted here on request, or mounted again.
    async fn unmounted(&self, id: &str, unmounted: bool) -> Result<(), Failure> {
        let id = id.to_owned();
        self.0.saves(move |node, turn| node.records.unmounted(turn, &id, unmounted)).await
    }

    async fn move_office(&self, name: &str, to: Node, progress: &Progress) -> Result<VolumeStatus, Failure> {
        let volume = self.0.running(name)?;
        self.0.is_a_node(to)?;
        progress.say(format!("Moving the coordinator of {name} to {to}."));
        let moved = self.0.move_office(&volume, to, PATIENCE).await;
        let epoch = moved.inspect_err(|e| {
            self.0.events.record(Draft::volume(Code::MoveFailed, name, e.message.clone()).advising(e.next.clone()));
        })?;
        // This node may hear of it only now.
        let status = self.running_status(name, &volume);
        Ok(VolumeStatus { coordinator: Some(to), epoch, ..status })
    }

    fn set_fault(&self, fault: DiskFault) -> Result<(), Failure> {
        if !self.0.config.fault_device {
            return Err(Failure::new(
                Exit::Refused,
                "This daemon has no fault device under its disks.",
                "Only a daemon with `debug = true` and `fault_device = true` can be hurt.",
            ));
        }
        for volume in self.0.directory.all() {
            let Some(device) = volume.fault() else { continue };
            match fault {
                DiskFault::Fail => device.fail(),
                DiskFault::Hang => device.hang(),
                DiskFault::Delay { ms } => device.delay(Duration::from_millis(ms)),
                DiskFault::Heal => device.heal(),
                DiskFault::IgnoreAborts => device.ignore_aborts(true),
                DiskFault::HoldAborts { hold } => device.hold_aborts(hold),
            }
        }
        let code = if fault == DiskFault::Heal { Code::DiskFaultHealed } else { Code::DiskFaultSet };
        self.0.events.record(Draft::node(code, fault.to_string()));
        Ok(())
    }

    fn evict(&self, name: &str, node: Node) -> Result<(), Failure> {
        if !self.0.config.debug {
            return Err(Failure::new(
                Exit::Refused,
                "This daemon evicts nobody on request.",
                "Only a daemon with `debug = true` does; `shorefast volume unmount` ends a node's session in order.",
            ));
        }
        self.0.running(name)?.evict(node_id(node)).map_err(|why| {
            Failure::failed(
                format!("{node} was not evicted from {name}: {why}."),
                "`shorefast status` shows the coordinator; ask that node.",
            )
        })
    }

    async fn stop_all(&self) -> Result<(), Failure> {
        let volumes = self.nothing_is_kept_any_more();
        let mut first = Ok(());
        for volume in volumes {
            if let Err(e) = volume.stop(true).await {
                first = first.and(Err(Failure::failed(
                    format!("Volume {} did not stop in order: {e}.", volume.name()),
                    e.next_step(),
                )));
            }
        }
        self.end_threads().await;
        first
    }

    /// All at the same time: programs wait meanwhile, and each has its bound.
    async fn leave_all(&self) -> Result<(), Failure> {
        let leaving = self.nothing_is_kept_any_more().into_iter().map(|volume| {
            tokio::spawn(async move {
                let left = volume.leave().await;
                (volume, left)
            })
        });
        for left in leaving.collect::<Vec<_>>() {
            match left.await {
                Ok((_, Ok(Leaves::Resumable))) => {}
                Ok((volume, Ok(Leaves::MountOnly))) => {
                    tracing::error!(volume = %volume.name(), "it did not come to rest: files that are open on it will fail");
                }
                Ok((volume, Err(e))) => {
                    tracing::error!(volume = %volume.name(), "its mount was not left to the next daemon: {e}")
                }
                Err(e) => tracing::error!("a volume was not left in order: {e}"),
            }
        }
        self.end_threads().await;
        Ok(())
    }

    fn nothing_is_kept_any_more(&self) -> Vec<Arc<Volume>> {
        let volumes = self.0.directory.all();
        // A keeper that still tries ends when it sees that its volume is not wanted.
        for keeping in self.0.keeping.lock().values_mut() {
            *keeping = Keeping::Unmounted { since: WallTime::now() };
        }
        self.0.ring();
        volumes
    }

    async fn end_threads(&self) {
        if let Some(net) = self.0.net.lock().await.take() {
            net.shutdown().await;
        }
        let workers = self.0.workers.lock().take();
        let ended = tokio::task::spawn_blocking(move || workers.map_or(Ok(()), block::worker::Workers::shutdown)).await;
        if let Ok(Err(e)) = ended {
            tracing::warn!("{e}");
        }
    }

    fn node_list(&self) -> Vec<NodeInfo> {
        let own = self.0.bundle.own_address().unwrap_or_default();
        self.0.peers.list(own, self.0.minors, self.0.drain.is_on())
    }

    async fn whole_status(&self) -> Status {
        let node = &self.0;
        let volumes = self.volume_list().await;
        // After the others were asked about the volumes: that measures the round trips.
        let nodes = self.node_list();
        Status {
            schema: SCHEMA,
            cluster: node.bundle.cluster.clone(),
            cluster_id: node.bundle.cluster_id.clone(),
            list_version: node.list().version,
            node: node.bundle.node,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: node.started,
            at: WallTime::now(),
            problems: shown::problems(&nodes, &volumes),
            nodes,
            volumes,
        }
    }

    /// Every volume, with the routes of the nodes that answer.
    async fn volume_list(&self) -> Vec<VolumeStatus> {
        let mut words = self.refreshed().await;
        words.push(Words { node: self.0.bundle.node, told: self.0.own_word(), drained: self.0.drain.is_on() });
        self.0.records.live().iter().map(|record| self.listed(record, &words)).collect()
    }

    /// What the other nodes say, while every volume that runs here asks for its space anew: all at once, so that neither many
    /// volumes nor coordinators that do not answer make a status slow.
    async fn refreshed(&self) -> Vec<Words> {
        let mut space = tokio::task::JoinSet::new();
        for volume in self.0.directory.all() {
            space.spawn(async move { volume.refresh_space(WORDS_WITHIN).await });
        }
        let words = self.0.words_of_others(WORDS_WITHIN).await;
        while space.join_next().await.is_some() {}
        words
    }

    /// One volume, by what every node said of it.
    fn listed(&self, record: &Record, words: &[Words]) -> VolumeStatus {
        let mut nodes: Vec<VolumeNode> = words.iter().map(|words| words.here(&record.name)).collect();
        nodes.sort_by_key(|n| n.node);
        match self.0.running(&record.name) {
            Ok(volume) => self.status_of(&record.name, &volume, nodes),
            Err(_) => {
                let about = words.iter().flat_map(|words| &words.told).filter(|told| told.name == record.name);
                let known = Known::best(about.filter_map(|told| told.known.as_ref()));
                shown::absent(self.0.bundle.node, record, nodes, known)
            }
        }
    }

    fn running_status(&self, name: &str, volume: &Volume) -> VolumeStatus {
        let nodes = self.0.own_word().into_iter().filter(|told| told.name == name).map(|told| told.here).collect();
        self.status_of(name, volume, nodes)
    }

    fn status_of(&self, name: &str, volume: &Volume, nodes: Vec<VolumeNode>) -> VolumeStatus {
        let disks = self.0.record(name).map(|r| r.disks).unwrap_or_default();
        shown::running(name, volume, &disks, self.0.mount_point(name), nodes)
    }
}

/// A name is part of a path and of messages.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = !name.is_empty()
        && name.len() <= 32
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !name.starts_with('-');
    if fits {
        Ok(())
    } else {
        Err(Failure::usage(format!("`{name}` cannot be a volume's name."), "Use 1 to 32 letters, digits, `-` and `_`."))
    }
}

fn create_failure(e: &csv_fs::volume::CreateError) -> Failure {
    let kind = if e.is_refusal() { Exit::Refused } else { Exit::Failed };
    Failure::new(kind, format!("{e}."), e.next_step())
}
