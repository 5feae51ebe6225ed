//! What is served: a device under a name, and the table of all of them.
//!
//! ```text
//!   add ──► served ── withdraw ──► withdrawn: no new client finds it; those there get the answers of what they have
//!                                  under way, then their connections end
//! ```
//! The empty name stands for the only export, if there is one only ("NBD_OPT_EXPORT_NAME": a default export).

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{BlockDevice, Provisioning, Rescan};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::core::facts::Facts;
use super::core::handshake::Catalogue;
use super::core::plan::Abilities;
use super::limits::{MAX_EXPORTS, MAX_NAME};

/// Why an export was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A name that cannot be sent.
    #[error("a name or description of an export is at most {MAX_NAME} bytes long and has no NUL")]
    Name,
    /// The name is taken.
    #[error("there is an export {0:?} already")]
    Taken(String),
    /// There are too many.
    #[error("{MAX_EXPORTS} exports are served already")]
    TooMany,
}

/// A device to be served.
pub struct Export {
    name: String,
    description: String,
    read_only: bool,
    device: Arc<dyn BlockDevice>,
    provisioning: Option<Arc<dyn Provisioning>>,
    resize: Option<Arc<dyn Rescan>>,
    withdrawn: watch::Sender<bool>,
}

impl Export {
    /// `device` under `name`, described by what it says of itself.
    pub fn new(name: impl Into<String>, device: Arc<dyn BlockDevice>) -> Export {
        Export {
            name: name.into(),
            description: device.describe(),
            read_only: false,
            device,
            provisioning: None,
            resize: None,
            withdrawn: watch::Sender::new(false),
        }
    }

    /// Refuses changes, whatever the device would do.
    pub fn read_only(self, read_only: bool) -> Export {
        Export { read_only, ..self }
    }

    /// Another text for people than the device's own.
    pub fn described(self, description: impl Into<String>) -> Export {
        Export { description: description.into(), ..self }
    }

    /// Where the device's data lie. Without it all is "allocated", and zeroes are written.
    pub fn provisioned(self, provisioning: Arc<dyn Provisioning>) -> Export {
        Export { provisioning: Some(provisioning), ..self }
    }

    /// The device's size is looked at again for each client that asks.
    pub fn resizable(self, resize: Arc<dyn Rescan>) -> Export {
        Export { resize: Some(resize), ..self }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    pub(super) fn provisioning(&self) -> Option<&Arc<dyn Provisioning>> {
        self.provisioning.as_ref()
    }

    pub(super) fn withdrawn(&self) -> watch::Receiver<bool> {
        self.withdrawn.subscribe()
    }

    /// What a client is told now.
    pub(super) fn facts(&self) -> Facts {
        if let Some(Err(error)) = self.resize.as_ref().map(|resize| resize.rescan()) {
            tracing::warn!(export = %self.name, "its size cannot be looked at: {error}");
        }
        let geometry = self.device.geometry();
        Facts {
            name: self.name.clone(),
            description: self.description.clone(),
            size: geometry.len.0,
            block: geometry.logical_block.get(),
            preferred: geometry.physical_block.max(geometry.logical_block).get(),
            read_only: self.read_only || geometry.read_only,
            trim: geometry.discard,
        }
    }

    pub(super) fn abilities(&self) -> Abilities {
        let of = |ability: fn(&dyn Provisioning) -> bool| self.provisioning.as_deref().is_some_and(ability);
        Abilities {
            discards: self.device.geometry().discard,
            discard_zeroes: of(|p| p.discard_zeroes()),
            zeroes_fast: of(|p| p.zeroes_fast()),
        }
    }
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Export({:?}: {})", self.name, self.device.describe())
    }
}

/// The exports of a server.
#[derive(Debug, Default)]
pub struct Exports {
    table: RwLock<BTreeMap<String, Arc<Export>>>,
}

impl Exports {
    /// Serves one more.
    ///
    /// # Errors
    /// A name that is taken or cannot be sent; too many.
    pub fn add(&self, export: Export) -> Result<(), ExportError> {
        let sendable = |text: &str| text.len() <= MAX_NAME && !text.contains('\0');
        if !sendable(&export.name) || !sendable(&export.description) {
            return Err(ExportError::Name);
        }
        let mut table = self.table.write();
        if table.contains_key(&export.name) {
            return Err(ExportError::Taken(export.name));
        }
        if table.len() >= MAX_EXPORTS {
            return Err(ExportError::TooMany);
        }
        table.insert(export.name.clone(), Arc::new(export));
        Ok(())
    }

    /// Serves it no longer: its connections end, in order. False if there is none of this name.
    pub fn withdraw(&self, name: &str) -> bool {
        let export = self.table.write().remove(name);
        export.is_some_and(|export| !export.withdrawn.send_replace(true))
    }

    /// The same unless a client uses it; how many do.
    pub fn withdraw_unused(&self, name: &str) -> usize {
        let mut table = self.table.write();
        let clients = table.get(name).map_or(0, |export| export.withdrawn.receiver_count());
        if clients == 0 {
            table.remove(name).into_iter().for_each(|export| {
                export.withdrawn.send_replace(true);
            });
        }
        clients
    }

    pub(super) fn withdraw_all(&self) {
        let all = std::mem::take(&mut *self.table.write());
        for export in all.values() {
            export.withdrawn.send_replace(true);
        }
    }

    /// The export of this name, or the only one if the name is empty.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Export>> {
        let table = self.table.read();
        let only = || table.values().next().filter(|_| name.is_empty() && table.len() == 1);
        table.get(name).or_else(only).cloned()
    }
}

impl Catalogue for Exports {
    fn list(&self) -> Vec<(String, String)> {
        self.table.read().values().map(|e| (e.name.clone(), e.description.clone())).collect()
    }

    fn find(&self, name: &str) -> Option<Facts> {
        self.get(name).map(|export| export.facts())
    }
}
