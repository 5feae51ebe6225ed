//! The store's own record of its last checkpoint: two counters, changed by the commit that is the next one.

use redb::ReadableTable;
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::{Fatal, Result};
use super::redo::Checkpoint;
use super::tables::Logged;

const GENERATION: &str = "checkpoint";
const CHANCE: &str = "checkpoint_chance";

impl Checkpoint {
    /// The one that a committed state is. `None` if the store never had one: it is new, or older than the redo log.
    pub(super) fn load(counters: &impl ReadableTable<&'static str, u64>) -> Result<Option<Checkpoint>> {
        let get = |name| Ok::<_, super::MetaError>(counters.get(name)?.map(|v| v.value()));
        let both = (get(GENERATION)?, get(CHANCE)?);
        Ok(both.0.zip(both.1).map(|(generation, chance)| Checkpoint { generation, chance }))
    }

    /// The one after this.
    pub(super) fn next(self) -> Result<Checkpoint> {
        let mut chance = [0; 8];
        getrandom(&mut chance, GetRandomFlags::empty()).map_err(Fatal::Random)?;
        Ok(Checkpoint { generation: self.generation + 1, chance: u64::from_le_bytes(chance) })
    }

    /// Makes the transaction under way this one.
    pub(super) fn save(self, counters: &mut Logged<'_, &'static str, u64>) -> Result<()> {
        counters.insert(GENERATION, self.generation)?;
        counters.insert(CHANCE, self.chance)?;
        Ok(())
    }
}
