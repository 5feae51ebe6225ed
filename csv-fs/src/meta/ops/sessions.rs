//! Sessions, their fence generations, and the answers stored beside what they changed.

use redb::ReadableTable;
use rustix::io::Errno;

use super::Ops;
use crate::meta::error::{Result, damaged};
use crate::meta::reads::Reads;
use crate::meta::session::{Session, SessionState, StoredAnswer, decode, encode};
use crate::meta::store::View;
use crate::meta::tables::Access;
use crate::proto::Answer;
use crate::types::*;

impl Ops<'_> {
    /// Makes or replaces a session's row.
    pub fn put_session(&mut self, session: &Session) -> Result<()> {
        let row = encode(session)?;
        self.t.session.insert((session.client.node.get(), session.client.incarnation.0), row.as_slice())?;
        Ok(())
    }

    /// First step of an eviction; its fence comes after this is committed. ENOENT if there is no such session.
    pub fn begin_eviction(&mut self, client: ClientId, reason: &str) -> Result<()> {
        let session = session(&self.t, client)?.ok_or(Errno::NOENT)?;
        if matches!(session.state, SessionState::Evicted { .. }) {
            return Ok(());
        }
        self.put_session(&Session { state: SessionState::Evicting { reason: reason.to_owned() }, ..session })
    }

    /// Last step of an eviction, after its fence: the session keeps its row, so that the client can be told why;
    /// its grant and its stored answers go.
    pub fn finish_eviction(&mut self, client: ClientId, fence_gen: block::shared::FenceGen) -> Result<()> {
        let session = session(&self.t, client)?.ok_or(Errno::NOENT)?;
        let reason = match &session.state {
            SessionState::Live => String::new(),
            SessionState::Evicting { reason } | SessionState::Evicted { reason } => reason.clone(),
        };
        self.drop_grants(client)?;
        self.drop_answers(client)?;
        self.put_session(&Session { fence_gen, state: SessionState::Evicted { reason }, has_path: false, ..session })
    }

    /// Ends a session: nothing is left of it. Its opens and layouts are the caller's.
    pub fn end_session(&mut self, client: ClientId) -> Result<()> {
        self.drop_grants(client)?;
        self.drop_answers(client)?;
        self.t.session.remove((client.node.get(), client.incarnation.0))?;
        Ok(())
    }

    /// Stores the answer of a request beside its change; replaces the slot's earlier one.
    pub fn put_answer(&mut self, client: ClientId, slot: SlotRef, seq: u64, answer: &Answer) -> Result<()> {
        let row = encode(&(seq, answer))?;
        self.t
            .answer
            .insert((client.node.get(), client.incarnation.0, table_byte(slot.table), slot.index), row.as_slice())?;
        Ok(())
    }

    fn drop_answers(&mut self, client: ClientId) -> Result<()> {
        let (node, life) = (client.node.get(), client.incarnation.0);
        let mut keys = Vec::new();
        for row in self.t.answer.range((node, life, 0, 0)..=(node, life, u8::MAX, u8::MAX))? {
            keys.push(row?.0.value());
        }
        for key in keys {
            self.t.answer.remove(key)?;
        }
        Ok(())
    }

    /// A session's row.
    pub fn session(&self, client: ClientId) -> Result<Option<Session>> {
        session(&self.t, client)
    }
}

impl View {
    /// Every session.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        for row in self.access().session().iter()? {
            sessions.push(decode(row?.1.value())?);
        }
        Ok(sessions)
    }

    /// The stored answers of a session.
    pub fn answers(&self, client: ClientId) -> Result<Vec<StoredAnswer>> {
        let (node, life) = (client.node.get(), client.incarnation.0);
        let mut answers = Vec::new();
        for row in self.access().answer().range((node, life, 0, 0)..=(node, life, u8::MAX, u8::MAX))? {
            let (key, value) = row?;
            let (_, _, table, index) = key.value();
            let (seq, answer) = decode(value.value())?;
            answers.push(StoredAnswer { slot: SlotRef { table: table_of(table)?, index }, seq, answer });
        }
        Ok(answers)
    }

    /// What is granted to a client, in disk order.
    pub fn grants(&self, client: ClientId) -> Result<Vec<DiskRange>> {
        grants(self.access(), client)
    }
}

fn session(a: &impl Access, client: ClientId) -> Result<Option<Session>> {
    match a.session().get((client.node.get(), client.incarnation.0))? {
        Some(row) => decode(row.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn grants(a: &impl Access, client: ClientId) -> Result<Vec<DiskRange>> {
    let (node, life) = (client.node.get(), client.incarnation.0);
    let mut grants = Vec::new();
    for row in a.grant().range((node, life, 0)..=(node, life, u64::MAX))? {
        let (key, len) = row?;
        grants.push(DiskRange { start: DiskBlock(key.value().2), len: BlockCount(len.value()) });
    }
    Ok(grants)
}

fn table_byte(table: SlotTable) -> u8 {
    match table {
        SlotTable::Ordinary => 0,
        SlotTable::Return => 1,
    }
}

fn table_of(byte: u8) -> Result<SlotTable> {
    match byte {
        0 => Ok(SlotTable::Ordinary),
        1 => Ok(SlotTable::Return),
        _ => Err(damaged("an answer of an unknown slot table")),
    }
}
