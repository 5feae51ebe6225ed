//! One request: who asks, for what, and the token to answer it with.

use crate::op::Operation;
use crate::reply::Reply;

/// A request as the handler gets it.
#[derive(Debug)]
pub struct Request {
    /// The kernel's number for it; INTERRUPT names it.
    pub unique: u64,
    /// A process before has read it and not answered it: it may have been executed already. It has the number that it had.
    pub resent: bool,
    /// The inode it is about; for operations on names, their directory.
    pub nodeid: u64,
    /// User of the caller.
    pub uid: u32,
    /// Group of the caller.
    pub gid: u32,
    /// Process of the caller, 0 where that is not known in our namespace.
    pub pid: u32,
    /// What is asked.
    pub op: Operation,
    /// The one answer.
    pub reply: Reply,
}
