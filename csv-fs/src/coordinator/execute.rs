//! One change of the store: from what the core asks to the operations of a transaction, and back.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::verify;
use super::writer::Outcome;
use crate::core::coord::{StoreAsk, StoreDone};
use crate::meta::{Gone, MetaError, NewNode, Ops, Reads, Reaped, Rename, Session, SessionState, Store};
use crate::proto::{Answer, HintsCall, Reply, Request, XattrCall};
use crate::types::*;

/// Runs one. Only fatal errors come back as such.
pub(super) fn run(store: &Store, ops: &mut Ops<'_>, ask: StoreAsk) -> Outcome {
    match ask {
        StoreAsk::Request { client, slot, seq, request } => answer(ops, client, slot, seq, &request),
        StoreAsk::Session { client, fence_gen, create, verify } => {
            if create {
                forget_earlier_lives(store, ops, client)?;
                ops.put_session(&Session { client, fence_gen, state: SessionState::Live, has_path: true })?;
            }
            let grants = ops.grants(client)?;
            let outside = verify::outside(ops, &grants, &verify)?;
            Ok((StoreDone::Session { grants, outside }, create))
        }
        StoreAsk::Evicting { client, why } => done(ops.begin_eviction(client, &why.to_string())),
        StoreAsk::Evicted { client, fence_gen, why } => {
            done(ops.begin_eviction(client, &why.to_string()))?;
            done(ops.finish_eviction(client, fence_gen))
        }
        StoreAsk::PathFenced { client, fence_gen } => {
            if let Some(session) = ops.session(client)? {
                ops.put_session(&Session { fence_gen, has_path: false, ..session })?;
            }
            Ok((StoreDone::Done, true))
        }
        StoreAsk::EndSession { client } => done(ops.end_session(client)),
        StoreAsk::Reap { ino } => reaped(ops.reap(ino)?),
        StoreAsk::ReapTail { ino } => reaped(ops.reap_tail(ino)?),
    }
}

/// A session that is not there has nothing to change: it was never committed.
fn done(result: Result<(), MetaError>) -> Outcome {
    match result {
        Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => Ok((StoreDone::Done, false)),
        other => other.map(|()| (StoreDone::Done, true)),
    }
}

fn reaped(reaped: Reaped) -> Outcome {
    Ok((StoreDone::Reaped { more: reaped == Reaped::More }, true))
}

fn forget_earlier_lives(store: &Store, ops: &mut Ops<'_>, client: ClientId) -> Result<(), MetaError> {
    for session in store.view()?.sessions()? {
        if session.client.node == client.node && session.client.incarnation < client.incarnation {
            ops.end_session(session.client)?;
        }
    }
    Ok(())
}

/// What a request left besides its reply.
#[derive(Default)]
struct Left {
    orphaned: Vec<InodeNo>,
    truncated: Option<InodeNo>,
}

/// Runs a request and stores its answer beside its change.
fn answer(ops: &mut Ops<'_>, client: ClientId, slot: SlotRef, seq: u64, request: &Request) -> Outcome {
    let mut left = Left::default();
    match perform(ops, client, request, &mut left) {
        Ok(reply) => {
            let answer = Answer::Ok(reply);
            ops.put_answer(client, slot, seq, &answer)?;
            let Left { orphaned, truncated } = left;
            Ok((StoreDone::Request { answer, orphaned, truncated }, true))
        }
        Err(MetaError::Errno(n)) => {
            let answer = Answer::Errno(n);
            Ok((StoreDone::Request { answer, orphaned: Vec::new(), truncated: None }, false))
        }
        Err(MetaError::Contradiction(why)) => Ok((StoreDone::Contradiction { why: why.to_owned() }, false)),
        Err(fatal) => Err(fatal),
    }
}

fn perform(ops: &mut Ops<'_>, client: ClientId, request: &Request, left: &mut Left) -> Result<Reply, MetaError> {
    // Whether an inode may be freed is the core's to say: with its last name it always becomes an orphan.
    let keep = |_| true;
    match request {
        Request::Create { parent, name, mode, umask, rdev, uid, gid, exclusive, open } => {
            let (parent, mode, umask) = (*parent, *mode, *umask);
            let new = NewNode { parent, name, mode, umask, rdev: *rdev, uid: *uid, gid: *gid };
            let attr = ops.create(&new, *exclusive)?.attr;
            if name.is_empty() {
                left.orphaned.push(attr.ino);
            }
            let regular = FileType::from_raw_mode(attr.mode) == FileType::RegularFile;
            Ok(Reply::Created { attr, opened: open.is_some() && regular })
        }
        Request::Symlink { parent, name, target, uid, gid } => {
            ops.symlink(*parent, name, target, *uid, *gid).map(Reply::Attr)
        }
        Request::Link { ino, parent, name } => ops.link(*ino, *parent, name).map(Reply::Attr),
        Request::Unlink { parent, name } => {
            left.gone(Some(ops.unlink(*parent, name, &keep)?));
            Ok(Reply::Done)
        }
        Request::Rmdir { parent, name } => {
            // Directories carry no layouts and are not opened through the coordinator.
            left.gone(Some(ops.rmdir(*parent, name, &|_| false)?));
            Ok(Reply::Done)
        }
        Request::Rename { parent, name, new_parent, new_name, flags } => {
            let what = Rename { parent: *parent, name, new_parent: *new_parent, new_name, flags: *flags };
            left.gone(ops.rename(&what, &keep)?);
            Ok(Reply::Done)
        }
        Request::Setattr { ino, set } => {
            let attr = ops.setattr(*ino, set)?;
            if set.size.is_some() && ops.is_truncating(*ino)? {
                left.truncated = Some(*ino);
            }
            Ok(Reply::Attr(attr))
        }
        Request::Fallocate { ino, offset, len, keep_size } => {
            ops.fallocate(*ino, *offset, *len, *keep_size).map(Reply::Attr)
        }
        Request::Xattr(call) => xattr(ops, call),
        Request::Hints(HintsCall::Set { ino, hints }) => {
            ops.set_hints(*ino, *hints)?;
            let (hints, extents) = ops.hints(*ino)?;
            Ok(Reply::Hints { hints, extents })
        }
        Request::Clear(clear) => ops.clear(clear).map(Reply::Cleared),
        Request::Commit { ino, commit, .. } => ops.commit_mappings(client, *ino, commit).map(|_| Reply::Done),
        Request::Times { changes } => ops.times(changes).map(|()| Reply::Done),
        Request::Grant { blocks } => ops.grant(client, *blocks).map(Reply::Granted),
        Request::GrantReturn { ranges } => ops.return_grant(client, ranges).map(|()| Reply::Done),
        Request::Lookup { .. }
        | Request::Getattr { .. }
        | Request::Readlink { .. }
        | Request::Readdir { .. }
        | Request::Statfs
        | Request::Open { .. }
        | Request::Release { .. }
        | Request::LayoutGet { .. }
        | Request::Hints(HintsCall::Get { .. })
        | Request::PathLost { .. }
        | Request::PathBack { .. }
        | Request::Locks(_)
        | Request::Goodbye => Err(Errno::INVAL.into()),
    }
}

fn xattr(ops: &mut Ops<'_>, call: &XattrCall) -> Result<Reply, MetaError> {
    match call {
        XattrCall::Set { ino, name, value, flags, kill_sgid } => {
            ops.set_xattr(*ino, name, value, *flags, *kill_sgid)?
        }
        XattrCall::Remove { ino, name } => ops.remove_xattr(*ino, name)?,
        XattrCall::Get { .. } | XattrCall::List { .. } => return Err(Errno::INVAL.into()),
    }
    Ok(Reply::Done)
}

impl Left {
    fn gone(&mut self, gone: Option<Gone>) {
        if let Some(Gone::Orphan(ino)) = gone {
            self.orphaned.push(ino);
        }
    }
}
