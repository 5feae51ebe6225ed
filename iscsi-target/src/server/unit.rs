//! A logical unit as connections share it: the core under a lock that is held for moments, the device, and whom to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{BlockDevice, Provisioning};
use parking_lot::Mutex;
use scsi::BlockLen;

use super::mailbox::{Mailbox, Note};
use crate::core::name::NexusId;
use crate::core::unit::tasks::Effect;
use crate::core::unit::{Shape, Unit};
use crate::store::Store;
use crate::target::{Lun, LunError};

/// See the module.
pub(crate) struct LogicalUnit {
    /// Its place in the target's list.
    index: usize,
    pub(crate) number: u64,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) provisioning: Option<Arc<dyn Provisioning>>,
    pub(crate) store: Option<Store>,
    inside: Mutex<Inside>,
}

struct Inside {
    unit: Unit,
    boxes: BTreeMap<NexusId, Arc<Mailbox>>,
    fx: Vec<Effect>,
}

impl LogicalUnit {
    /// Reads what was stored of its reservations.
    pub(crate) fn open(
        index: usize,
        lun: &Lun,
        target: &str,
        ports: Vec<u16>,
        store: Option<Store>,
    ) -> Result<LogicalUnit, LunError> {
        let geometry = lun.device.geometry();
        let block = geometry.logical_block.get();
        let blocks = geometry.len.0 / u64::from(block);
        let Some(block) = BlockLen::new(block).filter(|_| blocks > 0) else {
            return Err(LunError::Empty { lun: lun.number, device: lun.device.describe() });
        };
        if scsi::LunAddress::new(lun.number).is_none_or(|_| lun.number > 0x3fff) {
            return Err(LunError::Number(lun.number));
        }
        let exponent = (geometry.physical_block.get() / block.get()).max(1).trailing_zeros();
        let read_only = lun.read_only || geometry.read_only;
        let shape = Shape {
            block,
            physical_exponent: u8::try_from(exponent).unwrap_or(0),
            blocks,
            read_only,
            write_through: lun.write_through,
            thin: (geometry.discard || read_only) && lun.provisioning.as_ref().is_some_and(|p| p.discard_zeroes()),
            lun: lun.number,
            target: target.to_owned(),
            ports,
            persists: store.is_some(),
        };
        let reservations = match &store {
            Some(store) => store.load()?,
            None => Default::default(),
        };
        let mut unit = Unit::new(shape, reservations);
        unit.tells_early = lun.tells_early;
        Ok(LogicalUnit {
            index,
            number: lun.number,
            device: Arc::clone(&lun.device),
            provisioning: lun.provisioning.clone(),
            store,
            inside: Mutex::new(Inside { unit, boxes: BTreeMap::new(), fx: Vec::new() }),
        })
    }

    /// Asks the core something; what others are to be told because of it, they are.
    pub(crate) fn with<R>(&self, ask: impl FnOnce(&mut Unit, &mut Vec<Effect>) -> R) -> R {
        let inside = &mut *self.inside.lock();
        let answer = ask(&mut inside.unit, &mut inside.fx);
        for effect in inside.fx.drain(..) {
            let (nexus, note) = match effect {
                Effect::Run(nexus, task) => (nexus, Note::Run(self.index, task)),
                Effect::Abort(nexus, task) => (nexus, Note::Abort(self.index, task)),
                Effect::Over(wait) => (wait.nexus, Note::Over(wait)),
            };
            if let Some(mailbox) = inside.boxes.get(&nexus) {
                mailbox.put(note);
            }
        }
        answer
    }

    /// A session begins.
    pub(crate) fn attach(&self, nexus: NexusId, name: crate::core::name::NexusName, mailbox: &Arc<Mailbox>) {
        self.with(|unit, _| unit.attach(nexus, name));
        self.inside.lock().boxes.insert(nexus, Arc::clone(mailbox));
    }

    /// A session is over.
    pub(crate) fn detach(&self, nexus: NexusId) {
        self.with(|unit, _| unit.detach(nexus));
        self.inside.lock().boxes.remove(&nexus);
    }
}
