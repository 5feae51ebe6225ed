//! Clients: sessions, and what belongs to them: grants and the stored answers of their request slots.

use std::collections::BTreeMap;

use super::Checker;
use super::finding::{Kind, Repair};
use crate::meta::error::Result;
use crate::meta::session::SessionState;
use crate::types::{ORDINARY_SLOTS, RETURN_SLOTS};

const PART: &str = "clients";

/// Slots of a table as stored; none of a table that there is not.
fn slots(table: u8) -> u8 {
    match table {
        0 => ORDINARY_SLOTS,
        1 => RETURN_SLOTS,
        _ => 0,
    }
}

pub(super) fn check(c: &mut Checker<'_>) -> Result<()> {
    c.begin(PART)?;
    let known = sessions(c)?;
    for row in c.source.grants()? {
        let g = row?;
        if known.get(&(g.node, g.life)).is_none_or(|keeps| !keeps) {
            let what = format!(
                "{} blocks from {} are granted to node {} incarnation {}, which has no session or an ended one",
                g.len, g.start, g.node, g.life
            );
            let repair = Repair::TakeGrant { node: g.node, life: g.life, start: g.start, len: g.len };
            c.found(Kind::GrantOwner, what, repair);
        }
    }
    for row in c.source.answers()? {
        let a = row?;
        c.row(PART)?;
        let repair = Repair::RemoveAnswer { node: a.node, life: a.life, table: a.table, slot: a.slot };
        let of = format!("of node {} incarnation {}, slot {} of table {}", a.node, a.life, a.slot, a.table);
        if !a.decodes || a.slot >= slots(a.table) {
            let why = if a.decodes { "lies in a slot that there is not" } else { "cannot be read" };
            c.found(Kind::Answer, format!("the answer {of} {why}"), repair);
        } else if known.get(&(a.node, a.life)).is_none_or(|keeps| !keeps) {
            let what = format!("the answer {of} belongs to no session, or to an ended one");
            c.found(Kind::AnswerOwner, what, repair);
        }
    }
    Ok(())
}

/// The sessions, and whether each may have grants and answers: an ended one has neither.
fn sessions(c: &mut Checker<'_>) -> Result<BTreeMap<(u8, u64), bool>> {
    let mut known = BTreeMap::new();
    for row in c.source.sessions()? {
        let row = row?;
        let key = (row.node, row.life);
        let own = row.session.filter(|s| (s.client.node.get(), s.client.incarnation.0) == key);
        // What belongs to a session that cannot be read is not said to belong to nobody.
        known.insert(key, own.as_ref().is_none_or(|s| !matches!(s.state, SessionState::Evicted { .. })));
        if own.is_none() {
            let what =
                format!("the session of node {} incarnation {} cannot be read, or is another's", row.node, row.life);
            c.found(Kind::Session, what, Repair::RemoveSession { node: row.node, life: row.life });
        }
    }
    Ok(known)
}
