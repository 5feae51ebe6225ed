//! `init --cluster`: authority, certificates, bundles, all into one folder.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::authority::Authority;
use super::bundle::{Bundle, BundleNode};
use crate::api::Node;
use crate::exit::{Exit, Failure};

/// A node as `--node` has it: `1=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Its number.
    pub node: Node,
    /// HOST:PORT.
    pub address: String,
}

impl FromStr for NodeAddress {
    type Err = String;
    fn from_str(s: &str) -> Result<NodeAddress, String> {
        let shape = || format!("`{s}` is not ID=HOST:PORT");
        let (id, address) = s.split_once('=').ok_or_else(shape)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(shape)?;
        let port_ok = port.parse::<u16>().is_ok_and(|p| p != 0);
        if host.is_empty() || host.contains(['/', ' ', '"']) || !port_ok {
            return Err(shape());
        }
        Ok(NodeAddress { node: id.parse()?, address: address.to_owned() })
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The cluster's identity.
    pub cluster_id: String,
    /// The authority's key.
    pub ca_key: PathBuf,
    /// One bundle a node, in the order given.
    pub bundles: Vec<(Node, PathBuf)>,
}

/// Makes a cluster's certificates in a folder; refuses to overwrite anything.
pub fn make(cluster: &str, nodes: &[NodeAddress], out: &Path) -> Result<Made, Failure> {
    check(cluster, nodes)?;
    let cluster_id =
        new_cluster_id().map_err(|e| Failure::failed(format!("No random numbers: {e}."), "See the system's log."))?;
    let crypto =
        |e: rcgen::Error| Failure::failed(format!("A certificate could not be made: {e}."), "That is a defect.");
    let authority = Authority::new(cluster, &cluster_id).map_err(crypto)?;
    let ca_key = out.join("ca.key");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(|e| cannot_write(out, &e))?;
    write_secret(&ca_key, authority.key_pem())?;
    write_secret(&out.join("ca.crt"), &authority.certificate_pem())?;
    let list: Vec<BundleNode> = nodes.iter().map(|n| BundleNode { id: n.node, address: n.address.clone() }).collect();
    let mut bundles = Vec::new();
    for NodeAddress { node, .. } in nodes {
        let pems = authority.issue(*node).map_err(crypto)?;
        let bundle = Bundle::new(cluster, &cluster_id, *node, list.clone(), pems);
        let text = bundle
            .to_text()
            .map_err(|e| Failure::failed(format!("A bundle could not be written: {e}."), "That is a defect."))?;
        let path = out.join(format!("{node}.bundle"));
        write_secret(&path, &text)?;
        bundles.push((*node, path));
    }
    Ok(Made { cluster_id, ca_key, bundles })
}

fn check(cluster: &str, nodes: &[NodeAddress]) -> Result<(), Failure> {
    let name_ok = (1..=32).contains(&cluster.len())
        && cluster.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !name_ok {
        return Err(Failure::usage(
            format!("`{cluster}` cannot be a cluster's name."),
            "Use 1 to 32 letters, digits, `-` and `_`.",
        ));
    }
    let numbers: BTreeSet<Node> = nodes.iter().map(|n| n.node).collect();
    let addresses: BTreeSet<&str> = nodes.iter().map(|n| n.address.as_str()).collect();
    if numbers.len() != nodes.len() || addresses.len() != nodes.len() {
        return Err(Failure::usage("Two nodes have the same number or the same address.", "Give each its own."));
    }
    Ok(())
}

/// Writes a file that only its owner may read, and that must not be there yet.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| cannot_write(path, &e))
}

pub(super) fn cannot_write(path: &Path, e: &io::Error) -> Failure {
    let shown = path.display();
    match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Refused,
            format!("{shown} is there already and is not overwritten: it may be a running cluster's."),
            "Name another folder, or move that file away.",
        ),
        _ => Failure::failed(format!("Cannot write {shown}: {e}."), "Name a folder you may write to."),
    }
}

/// 128 random bits as hexadecimal digits.
fn new_cluster_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests;
