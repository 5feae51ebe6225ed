//! The kernel's table of mounts (/proc/self/mountinfo), read without touching any mount.
//!
//! Touching is what must be avoided: stat(2) on a mount whose daemon is frozen does not return.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Minor device number: for FUSE the connection's number in /sys/fs/fuse/connections.
    pub(crate) minor: u32,
    pub(crate) mountpoint: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
}

/// The mount that `path` leads into, if something is mounted exactly there: the topmost one.
pub(crate) fn at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(all()?.into_iter().rev().find(|entry| entry.mountpoint == path))
}

/// How many mounts lie on top of one another exactly there.
pub(crate) fn depth(path: &Path) -> io::Result<usize> {
    Ok(all()?.into_iter().filter(|entry| entry.mountpoint == path).count())
}

/// Every mount of this namespace, in the order they were made.
pub(crate) fn all() -> io::Result<Vec<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// One line: `36 35 98:0 /root /point options [tags] - type source super-options`.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let mountpoint = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| OsStr::from_bytes(&unescape(field)).to_string_lossy().into_owned();
    Some(MountEntry { minor, mountpoint, fs_type: text(fields.next()?), source: text(fields.next()?) })
}

/// Undoes the table's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_with_escapes_and_tags_is_read() {
        let line = br"48 29 0:43 / /mnt/with\040space\134x rw,nosuid shared:7 master:1 - fuse.shorefast shorefast:a\040b rw,user_id=0";
        assert_eq!(
            parse(line),
            Some(MountEntry {
                minor: 43,
                mountpoint: PathBuf::from(r"/mnt/with space\x"),
                fs_type: "fuse.shorefast".into(),
                source: "shorefast:a b".into(),
            })
        );
    }

    #[test]
    fn damaged_lines_are_skipped() {
        for line in [&b""[..], b"1 2 0:43 / /mnt rw fuse x", b"1 2 043 / /mnt rw - fuse x rw", b"\\"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn the_root_is_in_the_table() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
