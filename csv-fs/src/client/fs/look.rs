//! Look-ups, attributes and single extended attributes, the kernel's most frequent questions: asked by the thread that read the
//! request, and answered by the thread that read the coordinator's answer. No task waits in between.
//!
//! What has to be asked again, because this node told the coordinator something meanwhile, starts over as a task.
//!
//! Prevents: each question wakes its worker once more, to be answered; on a busy machine that costs more than the answer.

use std::sync::Arc;

use fuse::Reply;
use fuse::op::Name;

use super::attr::Form;
use super::names::bytes;
use super::{FileSystem, odd, sent, xattr};
use crate::client::session::{Caller, EINTR, EIO, Errno};
use crate::core::client::Sweep;
use crate::proto::{Reply as Answer, Request, XattrCall};
use crate::types::{Attr, InodeNo};

impl FileSystem {
    /// LOOKUP.
    pub(super) fn look_up(self: &Arc<Self>, parent: InodeNo, name: Name, reply: Reply) {
        let told = self.path.told();
        let request = Request::Lookup { parent, name: bytes(name) };
        self.look(None, request, reply, Form::Entry, move |fs, attr| fs.path.exact_now(attr, told));
    }

    /// GETATTR and STATX.
    pub(super) fn attributes(self: &Arc<Self>, ino: InodeNo, reply: Reply, form: Form) {
        let before = self.path.told_of(ino);
        self.look(Some(ino), Request::Getattr { ino }, reply, form, move |fs, attr| fs.path.exact_since(attr, &before));
    }

    /// GETXATTR.
    pub(super) fn value(self: &Arc<Self>, ino: InodeNo, name: Name, size: u32, reply: Reply) {
        let request = Request::Xattr(XattrCall::Get { ino, name: bytes(name) });
        self.ask(request, reply, move |fs, answer, reply| match answer {
            Ok(Answer::Bytes(value)) => xattr::tell(reply, Ok(value), size),
            Ok(other) => xattr::tell(reply, odd(other), size),
            Err(errno) => xattr::tell(reply, Err(fs.of_looked_up(ino, errno)), size),
        });
    }

    /// Asks for attributes, of an inode that was looked up or by name. `exact` makes them so, unless they have to be asked
    /// for again.
    fn look(
        self: &Arc<Self>,
        looked_up: Option<InodeNo>,
        request: Request,
        reply: Reply,
        form: Form,
        exact: impl FnOnce(&FileSystem, Attr) -> Option<Attr> + Send + 'static,
    ) {
        let since = self.path.session().sweep_now();
        self.ask(request, reply, move |fs, answer, reply| match answer {
            Ok(Answer::Attr(attr)) => {
                fs.folders.note(&attr);
                match exact(&fs, attr) {
                    Some(attr) => form.show(reply, Ok(attr)),
                    None => fs.look_again(attr.ino, reply, form, since),
                }
            }
            Ok(other) => form.show(reply, odd(other)),
            Err(errno) => form.show(reply, Err(looked_up.map_or(errno, |ino| fs.of_looked_up(ino, errno)))),
        });
    }

    fn look_again(self: &Arc<Self>, ino: InodeNo, reply: Reply, form: Form, since: Sweep) {
        let fs = Arc::clone(self);
        self.path.run(Some(reply.unique()), since, |caller| async move {
            let attr = fs.path.attr(ino, &caller).await;
            form.show(reply, attr.map_err(|e| fs.of_looked_up(ino, e)));
        });
    }

    /// `then` is told by whatever thread knows the answer. An INTERRUPT of the request reaches the call until then.
    fn ask(
        self: &Arc<Self>,
        request: Request,
        reply: Reply,
        then: impl FnOnce(Arc<FileSystem>, Result<Answer, Errno>, Reply) + Send + 'static,
    ) {
        let session = self.path.session();
        let (since, life) = (session.sweep_now(), self.path.life());
        if session.is_between_lives() {
            return self.ask_in_the_next_life(request, reply, since, then);
        }
        let (caller, again) = (Caller::of_program(since), request.clone());
        let asker = caller.clone();
        let (his, whose) = (caller.clone(), Arc::downgrade(session));
        let watched = self.path.interrupts.watch_then(reply.unique(), move || {
            if let Some(session) = whose.upgrade() {
                his.interrupt(&session);
            }
        });
        // The session keeps this until there is an answer: it must not keep the session.
        let me = Arc::downgrade(self);
        session.call_then(&caller, request, move |answer| {
            // Before anybody watches the same request again.
            drop(watched);
            match me.upgrade() {
                // It ended with the life in which it was asked, and has changed nothing.
                Some(fs) if answer == Err(Errno(EIO)) && fs.path.life() != life => match asker.is_interrupted() {
                    true => then(fs, Err(Errno(EINTR)), reply),
                    false => fs.ask_in_the_next_life(again, reply, since, then),
                },
                Some(fs) => then(fs, answer, reply),
                None => sent(reply.error(EIO)),
            }
        });
    }

    /// The same as a task, which waits for the next life of this node.
    fn ask_in_the_next_life(
        self: &Arc<Self>,
        request: Request,
        reply: Reply,
        since: Sweep,
        then: impl FnOnce(Arc<FileSystem>, Result<Answer, Errno>, Reply) + Send + 'static,
    ) {
        let fs = Arc::clone(self);
        self.path.run(Some(reply.unique()), since, |caller| async move {
            let answer = fs.path.session().call(&caller, request).await;
            then(Arc::clone(&fs), answer, reply);
        });
    }
}
