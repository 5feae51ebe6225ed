//! A node's bundle: one TOML file with all it needs to be part of its cluster.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::Node;
use crate::exit::{Exit, Failure};

/// The version of the file. 1: first.
const BUNDLE_SCHEMA: u32 = 1;

/// What a node needs to be part of its cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The version of this file.
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Its identity: 32 hexadecimal digits, random.
    pub cluster_id: String,
    /// Raised with each change of the list of nodes; nodes with different ones refuse each other.
    pub list_version: u64,
    /// Whose bundle this is.
    pub node: Node,
    /// The authority's certificate, PEM.
    pub ca_certificate: String,
    /// This node's certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// All nodes.
    pub nodes: Vec<BundleNode>,
}

/// A node of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleNode {
    /// Its number.
    pub id: Node,
    /// HOST:PORT of its cluster network.
    pub address: String,
}

impl std::fmt::Debug for Bundle {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("cluster", &self.cluster)
            .field("cluster_id", &self.cluster_id)
            .field("node", &self.node)
            .field("list_version", &self.list_version)
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// A bundle of this version.
    pub(super) fn new(cluster: &str, cluster_id: &str, node: Node, nodes: Vec<BundleNode>, pems: Pems) -> Bundle {
        Bundle {
            schema: BUNDLE_SCHEMA,
            cluster: cluster.to_owned(),
            cluster_id: cluster_id.to_owned(),
            list_version: 1,
            node,
            ca_certificate: pems.ca_certificate,
            certificate: pems.certificate,
            key: pems.key,
            nodes,
        }
    }

    /// Reads a bundle and checks what can be checked without a network.
    pub fn load(path: &Path) -> Result<Bundle, Failure> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|e| {
            Failure::new(
                if e.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed },
                format!("The bundle {shown} cannot be read: {e}."),
                "Make one with `shorefast init --cluster`, and install it with `shorefast init --bundle FILE`.",
            )
        })?;
        Bundle::parse(&text).map_err(|said| {
            Failure::usage(
                format!("{shown} is no bundle of this version: {said}."),
                "Use a file that `shorefast init` made.",
            )
        })
    }

    /// Reads a bundle's text.
    pub fn parse(text: &str) -> Result<Bundle, String> {
        let bundle: Bundle = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if bundle.schema != BUNDLE_SCHEMA {
            return Err(format!("its schema is {}, this program knows {BUNDLE_SCHEMA}", bundle.schema));
        }
        let id_ok = bundle.cluster_id.len() == 32 && bundle.cluster_id.bytes().all(|b| b.is_ascii_hexdigit());
        if !id_ok {
            return Err("`cluster_id` is not 32 hexadecimal digits".to_owned());
        }
        if bundle.own_address().is_none() {
            return Err(format!("its list of nodes lacks {} itself", bundle.node));
        }
        Ok(bundle)
    }

    /// This node's own address.
    pub fn own_address(&self) -> Option<&str> {
        self.address_of(self.node)
    }

    /// A node's address.
    pub fn address_of(&self, node: Node) -> Option<&str> {
        self.nodes.iter().find(|n| n.id == node).map(|n| n.address.as_str())
    }

    /// The same bundle with another list of nodes.
    pub(crate) fn of_list(&self, version: u64, nodes: Vec<BundleNode>) -> Bundle {
        Bundle { list_version: version, nodes, ..self.clone() }
    }

    /// The next version of the list, without a node.
    pub(crate) fn without(&self, node: Node) -> Result<Bundle, Failure> {
        if node == self.node {
            return Err(Failure::new(
                Exit::Refused,
                format!("This is the bundle of {node} itself."),
                "Name the bundles of the nodes that stay.",
            ));
        }
        let nodes: Vec<BundleNode> = self.nodes.iter().filter(|n| n.id != node).cloned().collect();
        if nodes.len() == self.nodes.len() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("There is no {node} in version {} of the list of nodes.", self.list_version),
                "Nothing is to be done with this bundle.",
            ));
        }
        Ok(self.of_list(self.list_version + 1, nodes))
    }

    /// Writes it in the place of another, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let aside = self.put_aside(path)?;
        let done = fs::rename(&aside, path).and_then(|()| fs::File::open(folder_of(path))?.sync_all());
        done.map_err(|e| unsaved(path, &e))
    }

    /// Whether [`Bundle::save`] could; changes nothing.
    pub(crate) fn could_be_saved(&self, path: &Path) -> Result<(), Failure> {
        let aside = self.put_aside(path)?;
        fs::remove_file(&aside).map_err(|e| unsaved(path, &e))
    }

    fn put_aside(&self, path: &Path) -> Result<PathBuf, Failure> {
        let aside = path.with_extension("bundle.new");
        let text = self.to_text().map_err(|e| unsaved(path, &io::Error::other(e)))?;
        let write = || -> io::Result<()> {
            // Left by a process that died; holds nothing that this one does not have.
            let _ = fs::remove_file(&aside);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| unsaved(path, &e))?;
        Ok(aside)
    }

    /// As text.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let body = toml::to_string(self)?;
        Ok(format!(
            "# Shorefast: everything {} needs to be part of cluster {}. Holds a private key.\n{body}",
            self.node, self.cluster
        ))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unsaved(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(
        format!("The bundle {} cannot be written: {e}.", path.display()),
        "Make its folder writable for the daemon, then repeat the command.",
    )
}

/// The texts of certificates and key.
pub(super) struct Pems {
    pub(super) ca_certificate: String,
    pub(super) certificate: String,
    pub(super) key: String,
}
