//! What a host remembers of a replica: one TOML file, written once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use replicator::core::config::Protocol;
use serde::{Deserialize, Serialize};

use crate::api::Node;
use crate::exit::{Exit, Failure};

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
    pub(super) listen: SocketAddr,
    pub(super) bundle: PathBuf,
    /// HOST:PORT by node.
    pub(super) peers: BTreeMap<String, String>,
}

/// Names are parts of paths, of NBD's URLs and of the resource's identity.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
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
        Ok(record)
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
            listen: ([127, 0, 0, 1], 7790).into(),
            bundle: "/etc/shorefast/node.bundle".into(),
            peers: BTreeMap::from([("node-2".to_owned(), "127.0.0.2:7790".to_owned())]),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        record().save(dir.path()).expect("saved");
        assert_eq!(Record::load(dir.path(), "r0"), Ok(record()));
        assert_eq!(Record::load(dir.path(), "r1").expect_err("none").kind, Exit::NotFound);
        for wrong in [Record { schema: 2, ..record() }, Record { protocol: 'X', ..record() }] {
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
