//! The redo log as it lies on the disk, against its checkpoint and against what is served.

use std::collections::BTreeMap;

use super::finding::{Kind, Report};
use super::source::Exact;
use crate::meta::error::Result;
use crate::meta::redo::{self, Checkpoint};
use crate::types::VolumeId;

/// The log of a volume that nobody has open. `tables`: the store with the log's rows in it.
pub(in crate::meta) fn lying_log(
    tables: &impl Exact,
    log: &[u8],
    volume: VolumeId,
    checkpoint: Checkpoint,
    report: &mut Report,
) -> Result<()> {
    let whole = redo::records(log, volume, checkpoint).count() as u64;
    rows_are_told(tables, log, volume, checkpoint, report)?;
    let later = redo::whole_after(log, volume, checkpoint, whole);
    if later > 0 {
        // Each record is on stable storage before the next is written: no crash leaves a gap.
        let what = format!(
            "record {whole} of the redo log is damaged although {later} later ones are whole: \
             changes that were acknowledged are lost with it"
        );
        report.add(Kind::RedoGap, what, None);
    }
    Ok(())
}

/// The log under a store that is open, between two commits: `records` were written since the checkpoint.
pub(in crate::meta) fn live_log(
    tables: &impl Exact,
    log: &[u8],
    volume: VolumeId,
    (checkpoint, records): (Checkpoint, u64),
    report: &mut Report,
) -> Result<()> {
    let whole = redo::records(log, volume, checkpoint).count() as u64;
    if whole != records {
        let what = format!("{records} records were written to the redo log, but {whole} lie there");
        report.add(Kind::RedoView, what, None);
        return Ok(());
    }
    rows_are_told(tables, log, volume, checkpoint, report)
}

/// The last row that the log has under each key is the one that the tables have.
fn rows_are_told(
    tables: &impl Exact,
    log: &[u8],
    volume: VolumeId,
    checkpoint: Checkpoint,
    report: &mut Report,
) -> Result<()> {
    let mut last: BTreeMap<(u8, &[u8]), Option<&[u8]>> = BTreeMap::new();
    for (n, record) in redo::records(log, volume, checkpoint).enumerate() {
        for row in redo::rows(record) {
            let Ok(row) = row else {
                report.add(Kind::RedoRow, format!("record {n} of the redo log ends within a row"), None);
                return Ok(());
            };
            last.insert((row.table, row.key), row.value);
        }
    }
    for ((table, key), value) in last {
        match tables.exact(table, key) {
            Ok(stored) if stored.as_deref() == value => {}
            Ok(_) => {
                let what = format!("a row of table {table} is another in the redo log than in the metadata");
                report.add(Kind::RedoView, what, None);
            }
            Err(e) if e.is_damage() => {
                let what = format!("the redo log has a row for table {table} that it cannot have");
                report.add(Kind::RedoRow, what, None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
