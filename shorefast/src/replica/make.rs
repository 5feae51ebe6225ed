//! `replica create`: a disk becomes a replica.
//!
//! Refused for safety, and nothing changed: a disk that carries anything known, unless `--wipe` names it; one that another process
//! has open; a name that is taken here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::shared::NodeId;
use block::sync::{Memory, run_batch};
use block::worker::Workers;
use block::{BlockDevice, ByteLen, ByteOffset, Op};
use csv_fs::format::{REPLICA, SCAN_HEAD, SCAN_TAIL, SUPERBLOCKS};
use replicator::ids::Sizes;
use replicator::runtime::{self, NewReplica, NewVolume};

use super::record::{Record, VolumeRecord, WitnessRecord, check_name};
use super::{ends, open_alone};
use crate::api::Node;
use crate::cli::ReplicaCreateArgs;
use crate::disk_url;
use crate::exit::{Exit, Failure};
use crate::init::Bundle;

/// A disk for this process alone, on which there is nothing any more.
fn open_empty(path: &Path, workers: &Workers, wipe: &[String]) -> Result<Arc<dyn BlockDevice>, Failure> {
    let device = open_alone(path, &workers.handle())?.device();
    carries_nothing(path, &device, wipe)?;
    Ok(device)
}

/// Makes it; the sectors of its volumes.
pub(crate) fn create(args: &ReplicaCreateArgs) -> Result<Sizes, Failure> {
    let (name, dir) = (&args.replica.name, &args.replica.dir);
    check_name(name)?;
    let bundle = Bundle::load(&args.bundle)?;
    let record = record(args, &bundle)?;
    let known = record.peers()?;
    if Record::path(dir, name).exists() {
        return Err(Failure::new(
            Exit::Refused,
            format!("There is a replica {name} here already: {}.", Record::path(dir, name).display()),
            "Choose another name, or remove that file if the replica is not wanted any more.",
        ));
    }
    fs::create_dir_all(dir)
        .map_err(|e| Failure::failed(format!("{} cannot be made: {e}.", dir.display()), "Name another --dir."))?;
    let workers = Workers::start(1, "replica")
        .map_err(|e| Failure::failed(format!("Cannot start the workers: {e}."), "See the limits of the system."))?;
    let device = open_empty(&record.disk, &workers, &args.wipe)?;
    let mut further = Vec::new();
    for ((volume, path), size) in
        record.further()?.into_iter().zip(args.size.iter().skip(1).map(Some).chain(std::iter::repeat(None)))
    {
        let device = open_empty(&path, &workers, &args.wipe)?;
        further.push(NewVolume { volume, device, size: size.map(|s| s.0) });
    }
    let new = NewReplica {
        resource: runtime::resource_id(&bundle.cluster_id, name),
        node: node_id(record.node),
        peers: known.iter().map(|(n, _)| node_id(*n)).collect(),
        size: args.size.first().map(|s| s.0),
    };
    let len = device.geometry().len.0;
    let made = runtime::create_volumes(&new, device, &further).map_err(|e| {
        let disks =
            further.iter().map(|f| format!(" and {}", record.volumes[&f.volume.get().to_string()].disk.display()));
        Failure::failed(
            format!("No replica can be made of {}{}: {e}.", record.disk.display(), disks.collect::<String>()),
            "Use a larger disk, or a smaller --size of whole blocks of 4096 bytes.",
        )
    })?;
    let ends = Record::ends(dir, name);
    ends::save(&ends, &[len / 4096 * 4096]).map_err(|e| ends::not_written(&ends, &e))?;
    record.save(dir)?;
    Ok(made)
}

/// A node as `block` knows it.
pub(crate) fn node_id(node: Node) -> NodeId {
    NodeId::new(node.number()).unwrap_or_else(|| unreachable!("both kinds of node number are 1 to 64: {node}"))
}

fn record(args: &ReplicaCreateArgs, bundle: &Bundle) -> Result<Record, Failure> {
    let mut peers = BTreeMap::new();
    for peer in &args.peer {
        let wrong = |said: &str| {
            Failure::usage(format!("--peer {peer}: {said}."), "Give NODE=HOST:PORT, such as --peer 2=192.0.2.2:7790.")
        };
        let (node, address) = peer.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let node: Node = node.parse().map_err(|e: String| wrong(&e))?;
        if node == bundle.node {
            return Err(wrong("that is this node itself"));
        }
        if bundle.address_of(node).is_none() {
            return Err(wrong("the cluster has no such node"));
        }
        if peers.insert(node.to_string(), address.to_owned()).is_some() {
            return Err(wrong("it was given twice"));
        }
    }
    let absolute = |p: &Path| {
        std::path::absolute(p).map_err(|e| Failure::usage(format!("{}: {e}.", p.display()), "Write the whole path."))
    };
    let mut disks = Vec::new();
    for local in &args.local {
        let url = disk_url::made_absolute(local)
            .map_err(|e| Failure::usage(format!("{local}: {e}."), "Write the whole path."))?;
        disks.push(disk_url::shareable(&url)?);
    }
    let [disk, further @ ..] = disks.as_slice() else {
        return Err(Failure::usage("There is no --local.", "Name the disk of the first volume."));
    };
    if args.size.len() > disks.len() {
        return Err(Failure::usage("There are more --size than --local.", "Give one for each disk, in their order."));
    }
    let volume = |(n, disk): (usize, &PathBuf)| ((n + 1).to_string(), VolumeRecord { disk: disk.clone() });
    let witness = args.witness.as_deref().map(|text| witness(text, bundle)).transpose()?;
    let record = Record {
        schema: 1,
        name: args.replica.name.clone(),
        node: bundle.node,
        disk: disk.clone(),
        protocol: args.protocol.letter(),
        quorum: args.quorum,
        on_no_quorum: args.on_no_quorum,
        disk_timeout_s: args.disk_timeout,
        on_io_error: args.on_io_error,
        listen: args.listen,
        bundle: absolute(&args.bundle)?,
        metrics: None,
        peers,
        witness,
        volumes: further.iter().enumerate().map(volume).collect(),
    };
    record
        .fits()
        .map_err(|said| Failure::usage(format!("{said}."), "Change --quorum, --witness, --protocol or --local."))?;
    Ok(record)
}

fn witness(text: &str, bundle: &Bundle) -> Result<WitnessRecord, Failure> {
    let wrong = |said: &str| {
        Failure::usage(
            format!("--witness {text}: {said}."),
            "Give NODE=HOST:PORT/ID, as `shorefast witness create` told it.",
        )
    };
    let witness = WitnessRecord::parse(text).map_err(|said| wrong(&said))?;
    match bundle.address_of(witness.node) {
        Some(_) => Ok(witness),
        None => Err(wrong("the cluster has no such node")),
    }
}

/// Refuses a disk on which there is something, or takes away what `wipe` names.
pub(super) fn carries_nothing(path: &Path, device: &Arc<dyn BlockDevice>, wipe: &[String]) -> Result<(), Failure> {
    let unreadable =
        |e: String| Failure::failed(format!("{} cannot be read: {e}.", path.display()), "See the kernel log.");
    let mut found: Vec<(String, String)> = Vec::new();
    match runtime::find(Arc::clone(device)) {
        Ok(None) => {}
        Ok(Some(sb)) => found.push((format!("a replica of {}", sb.node), format!("replica-{:016x}", sb.device))),
        Err(e) => found.push((format!("a replica that cannot be read ({e})"), "replica-unreadable".to_owned())),
    }
    match runtime::find_volume(Arc::clone(device)) {
        Ok(None) => {}
        Ok(Some(label)) => {
            let what = format!("volume {} of a replica of {}", label.volume, label.node);
            found.push((what, format!("replica-{:016x}-volume-{}", label.device, label.volume)));
        }
        Err(e) => found.push((format!("a volume that cannot be read ({e})"), "volume-unreadable".to_owned())),
    }
    if device.geometry().len.0 > 0 {
        let foreign = csv_fs::meta::foreign(device).map_err(|e| unreadable(e.to_string()))?;
        // A replica was looked at more closely.
        let others = foreign.into_iter().filter(|f| f.kind != REPLICA);
        found.extend(others.map(|f| (f.what, f.id)));
    }
    if found.is_empty() {
        return Ok(());
    }
    let id = found.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join("+");
    if !wipe.contains(&id) {
        let what = found.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(
            Exit::Refused,
            format!("{} carries {what}.", path.display()),
            format!("Use another disk; to destroy what is there, give --wipe {id}."),
        ));
    }
    clear(device)
        .map_err(|e| Failure::failed(format!("{} cannot be wiped: {e}.", path.display()), "See the kernel log."))
}

/// What would be recognised later: both ends, and the copies of a volume's superblock.
fn clear(device: &Arc<dyn BlockDevice>) -> Result<(), block::IoError> {
    let len = device.geometry().len.0;
    let (head, tail) = ((SCAN_HEAD as u64).min(len), (SCAN_TAIL as u64).min(len));
    let mut ranges = vec![(0, head), (len - tail, tail)];
    ranges.extend(SUPERBLOCKS.iter().map(|at| (at.0, 4096)).filter(|(at, n)| at + n <= len));
    for (at, n) in ranges {
        let zero = (Op::WriteZeroes, ByteOffset(at), Memory::Len(ByteLen(n)));
        for done in run_batch(&**device, vec![zero]) {
            done.result?;
        }
    }
    for done in run_batch(&**device, vec![(Op::Flush, ByteOffset::ZERO, Memory::Len(ByteLen::ZERO))]) {
        done.result?;
    }
    Ok(())
}
