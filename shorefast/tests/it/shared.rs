//! One cluster of three nodes for all facts that leave it as it was and run at the same time. Each has a folder of its
//! own on the volume, seen through every node. It goes with the last of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::fixture::{Cluster, can_mount, within};

static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// A folder of a test's own, through three nodes. Node 1 is the coordinator.
pub(crate) struct Folder {
    pub(crate) cluster: Arc<Cluster>,
    name: String,
}

/// Pairs of nodes, the coordinator on either side and on none.
pub(crate) const PAIRS: [(usize, usize); 4] = [(1, 1), (1, 2), (2, 1), (2, 3)];

impl Folder {
    /// Makes a folder; none where nothing can be mounted.
    pub(crate) fn new(name: &str) -> Option<Folder> {
        if !can_mount() {
            return None;
        }
        let cluster = {
            let mut shared = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let cluster = Arc::new(Cluster::with_volume(3));
                *shared = Arc::downgrade(&cluster);
                cluster
            })
        };
        let folder = Folder { cluster, name: name.to_owned() };
        folder.through(1, |dir| fs::create_dir(dir)).expect("a folder of its own");
        Some(folder)
    }

    /// The folder as a node has it. Not to be touched but by what has a time limit.
    pub(crate) fn path(&self, n: usize) -> PathBuf {
        self.cluster.mount(n, "v").join(&self.name)
    }

    /// Does something there through a node, with a time limit.
    pub(crate) fn through<T: Send + 'static>(&self, n: usize, f: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let dir = self.path(n);
        within(&format!("a call through node {n}"), move || f(&dir))
    }
}

impl Drop for Folder {
    /// The last of all tests that used the cluster has the volume checked.
    fn drop(&mut self) {
        if Arc::strong_count(&self.cluster) == 1 && !std::thread::panicking() {
            self.cluster.checks_clean(2);
        }
    }
}
