//! The volume as a whole: its counts, its tree, its next inode number, its checkpoint.

use super::Checker;
use super::finding::{Kind, Repair};
use crate::format::Features;
use crate::meta::error::Result;
use crate::meta::ops::{INO_BATCH, MAX_INO, VALUE_BYTES};

/// The counter below which inode numbers may be in use.
pub(in crate::meta) const NEXT_INODE: &str = "inodes_reserved";

pub(super) fn check(c: &mut Checker<'_>) -> Result<()> {
    c.begin("counts")?;
    let found = [
        ("free", c.report.free),
        ("granted", c.report.granted),
        ("inodes", c.report.inodes),
        ("name_bytes", c.name_bytes),
        (VALUE_BYTES, c.value_bytes),
    ];
    for (name, found) in found {
        // Not there before the next opening of a store from before there was this count.
        let stored = c.source.counter(name)?.unwrap_or(if name == VALUE_BYTES { found } else { 0 });
        if stored != found {
            let what = format!("the count `{name}` is {stored}, but there are {found}");
            c.found(Kind::Counter, what, Repair::SetCounter { name, value: found });
        }
    }
    let (next, last) = (c.source.counter(NEXT_INODE)?.unwrap_or(0), c.source.last_ino()?);
    if next <= last || next > MAX_INO + INO_BATCH {
        let what =
            format!("the next new inode would be {next}, the last in use is {last}, the highest can be {MAX_INO}");
        c.found(Kind::NextInode, what, Repair::SetCounter { name: NEXT_INODE, value: last + 1 });
    }
    trees(c)?;
    checkpoint(c)
}

fn trees(c: &mut Checker<'_>) -> Result<()> {
    let mut own = false;
    for row in c.source.trees()? {
        let row = row?;
        own |= row == (0, 0, 0);
        if row != (0, 0, 0) {
            c.found(Kind::Tree, format!("there is a tree {}, which this version does not know", row.0), None);
        }
    }
    if !own {
        c.found(Kind::Tree, "tree 0 is not in the table of trees", Repair::PutTree);
    }
    for table in c.source.other_trees()? {
        c.found(Kind::Tree, format!("table {table} has rows of another tree than 0"), None);
    }
    Ok(())
}

/// A store that was made or opened since there is a redo log says which checkpoint it is, and the superblock that it
/// must be read together with its log.
fn checkpoint(c: &mut Checker<'_>) -> Result<()> {
    let (number, chance) = (c.source.counter("checkpoint")?, c.source.counter("checkpoint_chance")?);
    let declared = c.superblock.features.incompat & Features::REDO_LOG != 0;
    let wrong = match (number, chance) {
        (Some(_), Some(_)) if declared => return Ok(()),
        (Some(_), Some(_)) => "the superblock does not say that there is a redo log",
        // Made before there was a redo log, and not opened since.
        (None, None) if !declared => return Ok(()),
        (None, None) => {
            c.report.notes.push("the metadata are from before the redo log; the next opening completes them".into());
            return Ok(());
        }
        _ => "the metadata do not say which checkpoint they are",
    };
    c.found(Kind::Checkpoint, wrong, None);
    Ok(())
}
