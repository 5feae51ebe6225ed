//! The reader threads: questions that change nothing, each batch in one committed state of the store that was looked
//! up after the questions had come.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::actor::{Inner, ReadItem};
use crate::core::coord::{Event, LayoutFacts, ReadAsk, ReadDone};
use crate::meta::{MetaError, Reader, Reads, View};
use crate::proto::{Answer, HintsCall, Reply, Request, XattrCall};
use crate::types::*;

/// How many there are: one may wait for the disk while the other answers from the cache.
const READERS: usize = 2;

/// Questions answered from one view. Small, so that both threads get their share.
const BATCH: usize = 16;

/// Extents told with one layout: about 100 KiB on the wire. A file with more gets its layout in pieces.
const MAX_EXTENTS: usize = 4096;

/// Starts the threads; they end when the queue is closed.
pub(super) fn start(inner: &Arc<Inner>, reader: &Reader) -> Vec<JoinHandle<()>> {
    let spawn = |n: usize| {
        let (inner, reader) = (Arc::clone(inner), reader.clone());
        thread::Builder::new().name(format!("csv-reader-{n}")).spawn(move || run(&inner, &reader))
    };
    let started = (0..READERS).map(spawn);
    started.filter_map(|thread| thread.inspect_err(|e| tracing::error!("no reader thread: {e}")).ok()).collect()
}

fn run(inner: &Arc<Inner>, reader: &Reader) {
    let _tasks = inner.runtime.enter();
    while let Some(batch) = inner.reads.take(BATCH) {
        match answer_all(inner, reader, batch) {
            Ok(events) => inner.events(events),
            Err(e) => inner.store_failed("read", &e),
        }
    }
}

fn answer_all(inner: &Inner, reader: &Reader, batch: Vec<ReadItem>) -> Result<Vec<Event>, MetaError> {
    let view = reader.view()?;
    inner.metrics.reads.add(1);
    let answered = batch.into_iter().map(|ReadItem { op, ask }| {
        let done = answer(&view, &ask)?;
        note(reader, &view, &ask, &done);
        Ok(Event::ReadDone { op, done })
    });
    answered.collect()
}

/// What the next one who asks need not ask a thread for.
fn note(reader: &Reader, view: &View, ask: &ReadAsk, done: &ReadDone) {
    let (ReadAsk::Request(request), ReadDone::Answer(Answer::Ok(Reply::Attr(attr)))) = (ask, done) else { return };
    match request {
        Request::Lookup { parent, name } => reader.note(view, Some((*parent, name)), attr),
        Request::Getattr { .. } => reader.note(view, None, attr),
        _ => {}
    }
}

fn answer(view: &View, ask: &ReadAsk) -> Result<ReadDone, MetaError> {
    let found = match ask {
        ReadAsk::Request(request) => reply(view, request).map(|reply| ReadDone::Answer(Answer::Ok(reply))),
        ReadAsk::Layout { ino, range } => layout(view, *ino, *range).map(ReadDone::Layout),
    };
    match found {
        Err(e) => match e.errno() {
            Some(n) => Ok(ReadDone::Answer(Answer::Errno(n))),
            None => Err(e),
        },
        found => found,
    }
}

fn reply(view: &View, request: &Request) -> Result<Reply, MetaError> {
    match request {
        Request::Lookup { parent, name } => view.lookup(*parent, name).map(Reply::Attr),
        Request::Getattr { ino } => view.getattr(*ino).map(Reply::Attr),
        Request::Readlink { ino } => view.readlink(*ino).map(Reply::Target),
        Request::Readdir { dir, after, max_bytes, plus } => {
            let listing = view.readdir(*dir, *after, *max_bytes, *plus)?;
            Ok(Reply::Entries { entries: listing.entries, end: listing.end })
        }
        Request::Statfs => view.statfs().map(Reply::Space),
        Request::Hints(HintsCall::Get { ino }) => {
            view.hints(*ino).map(|(hints, extents)| Reply::Hints { hints, extents })
        }
        Request::Xattr(XattrCall::Get { ino, name }) => view.xattr(*ino, name).map(Reply::Bytes),
        Request::Xattr(XattrCall::List { ino }) => view.xattrs(*ino).map(Reply::Bytes),
        _ => Err(rustix::io::Errno::INVAL.into()),
    }
}

fn layout(view: &View, ino: InodeNo, range: BlockRange) -> Result<LayoutFacts, MetaError> {
    const SUID: u32 = 0o4000;
    const SGID_EXEC: u32 = 0o2010;
    let attr = view.getattr(ino)?;
    if rustix::fs::FileType::from_raw_mode(attr.mode) != rustix::fs::FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let mut extents = view.extents(ino, range)?;
    let told_to = match extents.get(MAX_EXTENTS) {
        Some(first_left_out) => first_left_out.file,
        None => range.end,
    };
    extents.truncate(MAX_EXTENTS);
    let kill_privilege = attr.mode & SUID != 0 || attr.mode & SGID_EXEC == SGID_EXEC || view.has_capability(ino)?;
    Ok(LayoutFacts { extents, told_to, size: attr.size, kill_privilege })
}
