//! What a host remembers of a replica: one TOML file, written once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use replicator::core::config::{DiskPolicy, OnIoError, OnNoQuorum, Protocol};
use replicator::ids::Volume;
use replicator::runtime::{PeerAddress, Quorum, WitnessAddress};
use serde::{Deserialize, Serialize};

use super::make::node_id;
use crate::api::Node;
use crate::cli::{ReplicaOnIoError, ReplicaOnNoQuorum, ReplicaQuorum};
use crate::exit::{Exit, Failure};
use crate::init::dns_name;
use crate::metrics;

/// Seconds that a disk may be given. Less would take a busy one for one that hangs.
const DISK_TIMEOUTS: std::ops::RangeInclusive<u64> = 2..=3600;

/// A replica's configuration on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// 1: first.
    pub(super) schema: u32,
    pub(super) name: String,
    pub(super) node: Node,
    /// An absolute path.
    pub(super) disk: PathBuf,
    pub(super) protocol: char,
    /// Without it: `majority` with a tie-breaker or three replicas at C, else `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quorum: Option<ReplicaQuorum>,
    #[serde(default)]
    pub(super) on_no_quorum: ReplicaOnNoQuorum,
    /// Seconds after which a disk that does not answer is left. Without it: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk_timeout_s: Option<u64>,
    #[serde(default)]
    pub(super) on_io_error: ReplicaOnIoError,
    pub(super) listen: SocketAddr,
    pub(super) bundle: PathBuf,
    /// Where metrics are served: `ADDR:PORT` or `off`. Without it 127.0.0.1:9943, if no other process serves there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metrics: Option<String>,
    // Tables come last in the file.
    /// HOST:PORT by node.
    pub(super) peers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) witness: Option<WitnessRecord>,
    /// The volumes besides the first, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) volumes: BTreeMap<String, VolumeRecord>,
}

/// A volume besides the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeRecord {
    /// An absolute path.
    pub(super) disk: PathBuf,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricsAt {
    /// Nowhere.
    Off,
    /// There, or the replica does not start.
    Told(SocketAddr),
    /// Nobody said: there, unless it is taken.
    Default(SocketAddr),
}

/// The tie-breaker, as `witness create` told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WitnessRecord {
    pub(super) node: Node,
    /// HOST:PORT.
    pub(super) address: String,
    /// 16 hexadecimal digits.
    pub(super) identity: String,
}

impl WitnessRecord {
    /// `NODE=HOST:PORT/ID`.
    pub(super) fn parse(text: &str) -> Result<WitnessRecord, String> {
        let (node, rest) = text.split_once('=').ok_or("there is no `=`")?;
        let (address, identity) = rest.rsplit_once('/').ok_or("there is no `/` before the identity")?;
        let witness = WitnessRecord { node: node.parse()?, address: address.to_owned(), identity: identity.to_owned() };
        witness.identity()?;
        Ok(witness)
    }

    fn identity(&self) -> Result<u64, String> {
        let wrong = |_| format!("{:?} is no identity of 16 hexadecimal digits", self.identity);
        match self.identity.len() {
            16 => u64::from_str_radix(&self.identity, 16).map_err(wrong),
            _ => Err(format!("{:?} is no identity of 16 hexadecimal digits", self.identity)),
        }
    }
}

/// Names are parts of paths, of NBD's URLs and of the resource's identity.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(good) && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{name:?} is no name for a replica."),
        "Use up to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit.",
    ))
}

impl Record {
    /// The file of a replica.
    pub(super) fn path(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.toml"))
    }

    /// The socket that commands use.
    pub(super) fn control(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.sock"))
    }

    /// The socket that NBD's clients use.
    pub(super) fn nbd(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.nbd"))
    }

    /// What tells that its disk has failed since it was opened last.
    pub(super) fn failed(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.disk-failed"))
    }

    /// What tells by which ends of its disk its metadata may be found.
    pub(super) fn ends(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.disk-ends"))
    }

    /// Reads it.
    pub(super) fn load(dir: &Path, name: &str) -> Result<Record, Failure> {
        check_name(name)?;
        let path = Record::path(dir, name);
        let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Failure::new(
                Exit::NotFound,
                format!("There is no replica {name} here: {} does not exist.", path.display()),
                "Make one with `shorefast replica create`, or name its folder with --dir.",
            ),
            _ => Failure::failed(format!("{} cannot be read: {e}.", path.display()), "See who may read it."),
        })?;
        let broken = |said: &str| {
            Failure::usage(format!("{}: {said}.", path.display()), "Correct that file; `replica create` wrote it.")
        };
        let record: Record = toml::from_str(&text).map_err(|e| broken(e.message()))?;
        if record.schema != 1 {
            return Err(broken(&format!("its schema is {}, this program knows 1", record.schema)));
        }
        if record.name != name || record.protocol().is_none() {
            return Err(broken("its name or its protocol is wrong"));
        }
        record.fits().map_err(|said| broken(&said))?;
        Ok(record)
    }

    /// Whether a majority decides who is primary.
    pub(super) fn has_quorum(&self) -> bool {
        let many = self.peers.len() >= 2 && self.protocol == 'C';
        self.quorum.map_or(self.witness.is_some() || many, |q| q == ReplicaQuorum::Majority)
    }

    /// What quorum and tie-breaker have to do with the rest.
    pub(super) fn fits(&self) -> Result<(), String> {
        self.metrics()?;
        self.volumes()?;
        if self.disk_timeout_s.is_some_and(|s| !DISK_TIMEOUTS.contains(&s)) {
            return Err(
                "disk_timeout_s is a number of seconds from 2 to 3600; leave it out for a disk to be waited for"
                    .to_owned(),
            );
        }
        let Some(witness) = &self.witness else { return Ok(()) };
        witness.identity()?;
        if !self.has_quorum() {
            return Err("a tie-breaker is of no use with quorum off".to_owned());
        }
        if self.peers.len().is_multiple_of(2) {
            let replicas = self.peers.len() + 1;
            return Err(format!("{replicas} replicas have a majority without a tie-breaker: leave it out"));
        }
        let nodes = self.peers.keys().filter_map(|n| n.parse::<Node>().ok());
        if nodes.chain([self.node]).any(|n| n == witness.node) {
            return Err(format!("the tie-breaker {} has a replica itself", witness.node));
        }
        Ok(())
    }

    fn volumes(&self) -> Result<Vec<(Volume, PathBuf)>, String> {
        let volume = |(number, volume): (&String, &VolumeRecord)| {
            let found = number.parse::<u8>().ok().and_then(Volume::new).filter(|v| *v != Volume::FIRST);
            let found = found.filter(|v| v.get().to_string() == *number);
            let wrong =
                || format!("volumes.{number}: a volume besides the first has a number from 1 to {}", Volume::MOST - 1);
            Ok((found.ok_or_else(wrong)?, volume.disk.clone()))
        };
        let all: Vec<(Volume, PathBuf)> = self.volumes.iter().map(volume).collect::<Result<_, String>>()?;
        let mut disks: Vec<&PathBuf> = all.iter().map(|(_, disk)| disk).chain([&self.disk]).collect();
        disks.sort_unstable();
        match disks.windows(2).find(|w| w[0] == w[1]) {
            Some(twice) => Err(format!("{} is the disk of two volumes", twice[0].display())),
            None => Ok(all),
        }
    }

    /// The disks of the volumes besides the first.
    pub(super) fn further(&self) -> Result<Vec<(Volume, PathBuf)>, Failure> {
        let mut all =
            self.volumes().map_err(|said| Failure::usage(format!("{said}."), "Correct the replica's file."))?;
        all.sort();
        Ok(all)
    }

    /// Where its metrics are served.
    pub(super) fn metrics(&self) -> Result<MetricsAt, String> {
        let address = |text: &str| text.parse().map_err(|_| format!("metrics: {text:?} is no ADDR:PORT, and not off"));
        match self.metrics.as_deref() {
            Some("off") => Ok(MetricsAt::Off),
            Some(text) => address(text).map(MetricsAt::Told),
            None => address(metrics::DEFAULT).map(MetricsAt::Default),
        }
    }

    /// How it runs with quorum.
    pub(super) fn quorum(&self, cluster_id: &str) -> Result<Option<Quorum>, Failure> {
        if !self.has_quorum() {
            return Ok(None);
        }
        let address = |w: &WitnessRecord| {
            let wrong = |said: String| {
                Failure::usage(
                    format!("The tie-breaker {}={} cannot be used: {said}.", w.node, w.address),
                    "Give NODE=HOST:PORT/ID, as `shorefast witness create` told it.",
                )
            };
            let identity = w.identity().map_err(wrong)?;
            let mut found = w.address.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
            let address = found.next().ok_or_else(|| wrong("it has no address".to_owned()))?;
            let at = PeerAddress { subject: dns_name(cluster_id, w.node), address };
            Ok(WitnessAddress { node: node_id(w.node), identity, at })
        };
        let witness = self.witness.as_ref().map(address).transpose()?;
        Ok(Some(Quorum { on_loss: self.on_no_quorum(), witness }))
    }

    /// What becomes of requests without a majority.
    pub(super) fn on_no_quorum(&self) -> OnNoQuorum {
        match self.on_no_quorum {
            ReplicaOnNoQuorum::SuspendIo => OnNoQuorum::SuspendIo,
            ReplicaOnNoQuorum::IoError => OnNoQuorum::IoError,
        }
    }

    /// How far the local disk is trusted.
    pub(super) fn disk_policy(&self) -> DiskPolicy {
        let on_io_error = match self.on_io_error {
            ReplicaOnIoError::Detach => OnIoError::Detach,
            ReplicaOnIoError::PassOn => OnIoError::PassOn,
        };
        DiskPolicy { timeout: self.disk_timeout_s.map(|s| s * 1000), on_io_error }
    }

    /// Writes it, whole or not at all.
    pub(super) fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = Record::path(dir, &self.name);
        let write = || -> io::Result<()> {
            let text = toml::to_string(self).map_err(io::Error::other)?;
            let aside = path.with_extension("new");
            let mut file = fs::File::create(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|e| {
            Failure::failed(format!("{} cannot be written: {e}.", path.display()), "See who may write there.")
        })
    }

    /// Its protocol.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self.protocol {
            'A' => Some(Protocol::A),
            'B' => Some(Protocol::B),
            'C' => Some(Protocol::C),
            _ => None,
        }
    }

    /// Its peers, each with an address.
    pub(super) fn peers(&self) -> Result<Vec<(Node, SocketAddr)>, Failure> {
        let address = |(node, at): (&String, &String)| {
            let wrong = |said: String| {
                Failure::usage(format!("The peer {node}={at} cannot be used: {said}."), "Give NODE=HOST:PORT.")
            };
            let node: Node = node.parse().map_err(wrong)?;
            let mut found = at.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
            Ok((node, found.next().ok_or_else(|| wrong("it has no address".to_owned()))?))
        };
        self.peers.iter().map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            schema: 1,
            name: "r0".to_owned(),
            node: Node::new(1).expect("a node"),
            disk: "/dev/vg/r0".into(),
            protocol: 'C',
            quorum: None,
            on_no_quorum: ReplicaOnNoQuorum::SuspendIo,
            disk_timeout_s: None,
            on_io_error: ReplicaOnIoError::Detach,
            listen: ([127, 0, 0, 1], 7790).into(),
            bundle: "/etc/shorefast/node.bundle".into(),
            metrics: None,
            peers: BTreeMap::from([("node-2".to_owned(), "127.0.0.2:7790".to_owned())]),
            witness: None,
            volumes: BTreeMap::new(),
        }
    }

    #[test]
    fn volumes_have_numbers_and_disks_of_their_own() {
        let with = |rows: &[(&str, &str)]| {
            let row = |(n, disk): &(&str, &str)| ((*n).to_owned(), VolumeRecord { disk: disk.into() });
            Record { volumes: rows.iter().map(row).collect(), ..record() }
        };
        let numbers = |r: Record| r.further().map(|all| all.into_iter().map(|(v, _)| v.get()).collect::<Vec<_>>());
        assert_eq!(numbers(with(&[("10", "/dev/b"), ("2", "/dev/c")])), Ok(vec![2, 10]));
        for wrong in [("0", "/dev/b"), ("16", "/dev/b"), ("01", "/dev/b"), ("x", "/dev/b"), ("1", "/dev/vg/r0")] {
            assert!(with(&[wrong]).fits().is_err(), "{wrong:?}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        let several = with(&[("1", "/dev/b"), ("3", "/dev/c")]);
        several.save(dir.path()).expect("saved");
        assert_eq!(Record::load(dir.path(), "r0"), Ok(several));
    }

    #[test]
    fn quorum_is_on_where_a_majority_can_be_and_refused_where_it_cannot() {
        let witness = || Some(WitnessRecord::parse("3=127.0.0.3:7791/00000000000000ff").expect("a tie-breaker"));
        let three = || {
            let mut record = record();
            record.peers.insert("node-3".to_owned(), "127.0.0.3:7790".to_owned());
            record
        };
        assert!(!record().has_quorum() && three().has_quorum());
        assert!(Record { witness: witness(), ..record() }.has_quorum());
        assert!(!Record { protocol: 'A', ..three() }.has_quorum());
        assert!(!Record { quorum: Some(ReplicaQuorum::Off), ..three() }.has_quorum());
        let wrong = |record: Record, word: &str| assert!(record.fits().expect_err("refused").contains(word), "{word}");
        let weak = Record { protocol: 'B', witness: witness(), ..record() };
        assert!(weak.fits() == Ok(()) && weak.has_quorum(), "one primary, whatever the protocol");
        wrong(Record { quorum: Some(ReplicaQuorum::Off), witness: witness(), ..record() }, "of no use");
        wrong(Record { witness: witness(), ..three() }, "leave it out");
        wrong(Record { node: Node::new(3).expect("a node"), witness: witness(), ..record() }, "has a replica");
        for text in
            ["3", "3=127.0.0.3:1", "3=127.0.0.3:1/ff", "99=127.0.0.3:1/00000000000000ff", "3=a:1/00000000000000fg"]
        {
            assert!(WitnessRecord::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let witness = Some(WitnessRecord::parse("3=127.0.0.3:7791/00000000000000ff").expect("a tie-breaker"));
        let disk = Record { disk_timeout_s: Some(30), on_io_error: ReplicaOnIoError::PassOn, ..record() };
        for record in [record(), disk, Record { quorum: Some(ReplicaQuorum::Majority), witness, ..record() }] {
            record.save(dir.path()).expect("saved");
            assert_eq!(Record::load(dir.path(), "r0"), Ok(record));
        }
        assert_eq!(Record::load(dir.path(), "r1").expect_err("none").kind, Exit::NotFound);
        let at = |text: &str| Record { metrics: Some(text.to_owned()), ..record() };
        assert_eq!(at("off").metrics(), Ok(MetricsAt::Off));
        assert_eq!(at("10.0.0.1:9000").metrics(), Ok(MetricsAt::Told(([10, 0, 0, 1], 9000).into())));
        assert_eq!(record().metrics(), Ok(MetricsAt::Default(([127, 0, 0, 1], 9943).into())));
        let hasty = Record { disk_timeout_s: Some(1), ..record() };
        for wrong in [Record { schema: 2, ..record() }, Record { protocol: 'X', ..record() }, at("9943"), hasty] {
            wrong.save(dir.path()).expect("saved");
            assert_eq!(Record::load(dir.path(), "r0").expect_err("refused").kind, Exit::Usage);
        }
    }

    #[test]
    fn names_that_are_no_part_of_a_path_are_refused() {
        for name in ["", "..", "a/b", "-x", "a b", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("vm-1.root_A").is_ok());
    }
}
