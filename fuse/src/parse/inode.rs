//! Requests about inodes and names.

use super::body::Body;
use super::{Dialect, Malformed};
use crate::abi::{self, fattr, opcode};
use crate::op::{
    FileHandle, ForgetOne, LockOwner, Mkdir, Mknod, Operation, Rename, SetTime, SetattrIn, Setxattr, Statx, Time,
};
use block::units::ByteLen;

/// The operation, or `None` if the code is not one of these.
pub(super) fn parse(code: u32, body: &mut Body<'_>, dialect: Dialect) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match code {
        opcode::LOOKUP => Operation::Lookup { name: body.name()? },
        opcode::FORGET => Operation::Forget { nlookup: body.take::<abi::ForgetIn>()?.nlookup },
        opcode::BATCH_FORGET => batch_forget(body)?,
        opcode::GETATTR => {
            let arg: abi::GetattrIn = body.take()?;
            Operation::Getattr { fh: handle(arg.getattr_flags, arg.fh) }
        }
        opcode::SETATTR => Operation::Setattr(setattr(&body.take()?)?),
        opcode::STATX => {
            let arg: abi::StatxIn = body.take()?;
            let fh = handle(arg.getattr_flags, arg.fh);
            Operation::Statx(Statx { fh, flags: arg.sx_flags, mask: arg.sx_mask })
        }
        opcode::READLINK => Operation::Readlink,
        opcode::SYMLINK => {
            let name = body.name()?;
            Operation::Symlink { name, target: body.string()?.to_vec() }
        }
        opcode::MKNOD => {
            let arg: abi::MknodIn = body.take()?;
            let name = body.name()?;
            Operation::Mknod(Mknod { name, mode: arg.mode, rdev: arg.rdev, umask: arg.umask })
        }
        opcode::MKDIR => {
            let arg: abi::MkdirIn = body.take()?;
            Operation::Mkdir(Mkdir { name: body.name()?, mode: arg.mode, umask: arg.umask })
        }
        opcode::UNLINK => Operation::Unlink { name: body.name()? },
        opcode::RMDIR => Operation::Rmdir { name: body.name()? },
        opcode::RENAME => {
            let arg: abi::RenameIn = body.take()?;
            rename(arg.newdir, 0, body)?
        }
        opcode::RENAME2 => {
            let arg: abi::Rename2In = body.take()?;
            rename(arg.newdir, arg.flags, body)?
        }
        opcode::LINK => {
            let arg: abi::LinkIn = body.take()?;
            Operation::Link { inode: arg.oldnodeid, name: body.name()? }
        }
        opcode::ACCESS => Operation::Access { mask: body.take::<abi::AccessIn>()?.mask.cast_signed() },
        opcode::STATFS => Operation::Statfs,
        opcode::SETXATTR => setxattr(body, dialect)?,
        opcode::GETXATTR => {
            let arg: abi::GetxattrIn = body.take()?;
            Operation::Getxattr { name: body.attribute()?, size: arg.size }
        }
        opcode::LISTXATTR => Operation::Listxattr { size: body.take::<abi::GetxattrIn>()?.size },
        opcode::REMOVEXATTR => Operation::Removexattr { name: body.attribute()? },
        _ => return Ok(None),
    }))
}

fn handle(getattr_flags: u32, fh: u64) -> Option<FileHandle> {
    (getattr_flags & abi::GETATTR_FH != 0).then_some(FileHandle(fh))
}

fn batch_forget(body: &mut Body<'_>) -> Result<Operation, Malformed> {
    let count = usize::try_from(body.take::<abi::BatchForgetIn>()?.count).map_err(|_| Malformed::Count)?;
    // Checked before anything is reserved: the count is only a claim.
    if count > body.left() / size_of::<abi::ForgetOne>() {
        return Err(Malformed::Count);
    }
    let mut forgets = Vec::with_capacity(count);
    for _ in 0..count {
        let one: abi::ForgetOne = body.take()?;
        forgets.push(ForgetOne { nodeid: one.nodeid, nlookup: one.nlookup });
    }
    Ok(Operation::BatchForget { forgets })
}

fn rename(new_parent: u64, flags: u32, body: &mut Body<'_>) -> Result<Operation, Malformed> {
    let name = body.name()?;
    Ok(Operation::Rename(Rename { name, new_parent, new_name: body.name()?, flags }))
}

fn setxattr(body: &mut Body<'_>, dialect: Dialect) -> Result<Operation, Malformed> {
    let arg: abi::SetxattrIn = body.take()?;
    let kill_sgid = dialect.setxattr_ext && body.take::<abi::SetxattrExt>()?.setxattr_flags & 1 != 0;
    let name = body.attribute()?;
    let value = body.bytes(arg.size)?.to_vec();
    Ok(Operation::Setxattr(Setxattr { name, value, flags: arg.flags, kill_sgid }))
}

fn setattr(arg: &abi::SetattrIn) -> Result<SetattrIn, Malformed> {
    let has = |bit: u32| arg.valid & bit != 0;
    let settable = |bit: u32, now: u32, seconds: u64, nanos: u32| match (has(now), has(bit)) {
        (true, _) => Ok(Some(SetTime::Now)),
        (false, true) => Ok(Some(SetTime::At(time(seconds, nanos)?))),
        (false, false) => Ok(None),
    };
    Ok(SetattrIn {
        fh: has(fattr::FH).then_some(FileHandle(arg.fh)),
        mode: has(fattr::MODE).then_some(arg.mode),
        uid: has(fattr::UID).then_some(arg.uid),
        gid: has(fattr::GID).then_some(arg.gid),
        size: has(fattr::SIZE).then_some(ByteLen(arg.size)),
        atime: settable(fattr::ATIME, fattr::ATIME_NOW, arg.atime, arg.atimensec)?,
        mtime: settable(fattr::MTIME, fattr::MTIME_NOW, arg.mtime, arg.mtimensec)?,
        ctime: has(fattr::CTIME).then(|| time(arg.ctime, arg.ctimensec)).transpose()?,
        lock_owner: has(fattr::LOCKOWNER).then_some(LockOwner(arg.lock_owner)),
        kill_suidgid: has(fattr::KILL_SUIDGID),
    })
}

fn time(seconds: u64, nanos: u32) -> Result<Time, Malformed> {
    match nanos {
        0..1_000_000_000 => Ok(Time { seconds: seconds.cast_signed(), nanos }),
        _ => Err(Malformed::Time),
    }
}
