//! Requests about open files and directories.

use super::Malformed;
use super::body::Body;
use crate::abi::{self, opcode};
use crate::op::{
    CopyFileRange, Create, Fallocate, FileHandle, Ioctl, Lock, LockKind, LockOwner, LockRequest, Lseek, Operation,
    Read, ReadDir, Release, Tmpfile, Whence, Write, WriteFlags,
};
use block::buf::AlignedBuf;
use block::units::{ByteLen, ByteOffset};

/// The operation, or `None` if the code is not one of these.
pub(super) fn parse(code: u32, body: &mut Body<'_>) -> Result<Option<Operation>, Malformed> {
    Ok(Some(match code {
        opcode::OPEN => {
            let arg: abi::OpenIn = body.take()?;
            Operation::Open { flags: arg.flags.cast_signed(), kill_suidgid: kill(arg.open_flags) }
        }
        opcode::OPENDIR => Operation::Opendir { flags: body.take::<abi::OpenIn>()?.flags.cast_signed() },
        opcode::CREATE => Operation::Create(create(body)?),
        opcode::TMPFILE => Operation::Tmpfile(tmpfile(&body.take()?)),
        opcode::FLUSH => {
            let arg: abi::FlushIn = body.take()?;
            Operation::Flush { fh: FileHandle(arg.fh), lock_owner: LockOwner(arg.lock_owner) }
        }
        opcode::RELEASE => Operation::Release(release(&body.take()?)),
        opcode::RELEASEDIR => Operation::Releasedir(release(&body.take()?)),
        opcode::FSYNC => {
            let (fh, datasync) = fsync(&body.take()?);
            Operation::Fsync { fh, datasync }
        }
        opcode::FSYNCDIR => {
            let (fh, datasync) = fsync(&body.take()?);
            Operation::Fsyncdir { fh, datasync }
        }
        opcode::READDIR => Operation::Readdir(readdir(&body.take()?)),
        opcode::READDIRPLUS => Operation::Readdirplus(readdir(&body.take()?)),
        opcode::GETLK => Operation::Getlk(lock(&body.take()?)?),
        opcode::SETLK => Operation::Setlk(lock(&body.take()?)?),
        opcode::SETLKW => Operation::Setlkw(lock(&body.take()?)?),
        opcode::INTERRUPT => Operation::Interrupt { unique: body.take::<abi::InterruptIn>()?.unique & !abi::RESENT },
        opcode::IOCTL => ioctl(body)?,
        opcode::FALLOCATE => fallocate(&body.take()?),
        opcode::LSEEK => lseek(&body.take()?),
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => copy_file_range(&body.take()?),
        opcode::SYNCFS => Operation::Syncfs,
        opcode::DESTROY => Operation::Destroy,
        _ => return Ok(None),
    }))
}

pub(super) fn read(body: &mut Body<'_>) -> Result<Operation, Malformed> {
    let arg: abi::ReadIn = body.take()?;
    Ok(Operation::Read(Read {
        fh: FileHandle(arg.fh),
        offset: ByteOffset(arg.offset),
        size: arg.size,
        flags: arg.flags.cast_signed(),
        lock_owner: (arg.read_flags & abi::READ_LOCKOWNER != 0).then_some(LockOwner(arg.lock_owner)),
    }))
}

pub(super) fn write(body: &mut Body<'_>, data: AlignedBuf) -> Result<Operation, Malformed> {
    let arg: abi::WriteIn = body.take()?;
    if usize::try_from(arg.size) != Ok(data.len()) {
        return Err(Malformed::Count);
    }
    Ok(Operation::Write(Write {
        fh: FileHandle(arg.fh),
        offset: ByteOffset(arg.offset),
        data,
        write_flags: WriteFlags {
            cache: arg.write_flags & abi::WRITE_CACHE != 0,
            kill_suidgid: arg.write_flags & abi::WRITE_KILL_SUIDGID != 0,
        },
        flags: arg.flags.cast_signed(),
        lock_owner: (arg.write_flags & abi::WRITE_LOCKOWNER != 0).then_some(LockOwner(arg.lock_owner)),
    }))
}

fn kill(open_flags: u32) -> bool {
    open_flags & abi::OPEN_KILL_SUIDGID != 0
}

fn create(body: &mut Body<'_>) -> Result<Create, Malformed> {
    let arg: abi::CreateIn = body.take()?;
    Ok(Create {
        name: body.name()?,
        flags: arg.flags.cast_signed(),
        mode: arg.mode,
        umask: arg.umask,
        kill_suidgid: kill(arg.open_flags),
    })
}

fn tmpfile(arg: &abi::CreateIn) -> Tmpfile {
    Tmpfile { flags: arg.flags.cast_signed(), mode: arg.mode, umask: arg.umask }
}

fn release(arg: &abi::ReleaseIn) -> Release {
    let has = |bit: u32| arg.release_flags & bit != 0;
    Release {
        fh: FileHandle(arg.fh),
        flags: arg.flags.cast_signed(),
        flock_owner: has(abi::RELEASE_FLOCK_UNLOCK).then_some(LockOwner(arg.lock_owner)),
        flush: has(abi::RELEASE_FLUSH),
    }
}

fn fsync(arg: &abi::FsyncIn) -> (FileHandle, bool) {
    (FileHandle(arg.fh), arg.fsync_flags & abi::FSYNC_FDATASYNC != 0)
}

fn readdir(arg: &abi::ReadIn) -> ReadDir {
    ReadDir { fh: FileHandle(arg.fh), cookie: arg.offset, size: arg.size }
}

fn lock(arg: &abi::LkIn) -> Result<LockRequest, Malformed> {
    let kind = match i32::try_from(arg.lk.kind) {
        Ok(libc::F_RDLCK) => LockKind::Read,
        Ok(libc::F_WRLCK) => LockKind::Write,
        Ok(libc::F_UNLCK) => LockKind::Unlock,
        _ => return Err(Malformed::Lock),
    };
    Ok(LockRequest {
        fh: FileHandle(arg.fh),
        owner: LockOwner(arg.owner),
        lock: Lock { kind, start: arg.lk.start, end: arg.lk.end, pid: arg.lk.pid },
        flock: arg.lk_flags & abi::LK_FLOCK != 0,
    })
}

fn ioctl(body: &mut Body<'_>) -> Result<Operation, Malformed> {
    let arg: abi::IoctlIn = body.take()?;
    Ok(Operation::Ioctl(Ioctl {
        fh: FileHandle(arg.fh),
        flags: arg.flags,
        cmd: arg.cmd,
        arg: arg.arg,
        input: body.bytes(arg.in_size)?.to_vec(),
        out_size: arg.out_size,
    }))
}

fn fallocate(arg: &abi::FallocateIn) -> Operation {
    Operation::Fallocate(Fallocate {
        fh: FileHandle(arg.fh),
        offset: ByteOffset(arg.offset),
        length: ByteLen(arg.length),
        mode: arg.mode.cast_signed(),
    })
}

fn lseek(arg: &abi::LseekIn) -> Operation {
    let whence = match i32::try_from(arg.whence) {
        Ok(libc::SEEK_DATA) => Whence::Data,
        Ok(libc::SEEK_HOLE) => Whence::Hole,
        _ => Whence::Other(arg.whence),
    };
    Operation::Lseek(Lseek { fh: FileHandle(arg.fh), offset: ByteOffset(arg.offset), whence })
}

fn copy_file_range(arg: &abi::CopyFileRangeIn) -> Operation {
    Operation::CopyFileRange(CopyFileRange {
        fh_in: FileHandle(arg.fh_in),
        offset_in: ByteOffset(arg.off_in),
        nodeid_out: arg.nodeid_out,
        fh_out: FileHandle(arg.fh_out),
        offset_out: ByteOffset(arg.off_out),
        length: ByteLen(arg.len),
        flags: arg.flags,
    })
}
