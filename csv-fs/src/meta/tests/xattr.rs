//! Extended attributes and access control lists.

use rustix::io::Errno;

use super::*;
use crate::proto::{SetAttr, xattr_flags};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

fn set(ops: &mut Ops<'_>, ino: InodeNo, name: &[u8], value: &[u8]) -> Result<()> {
    ops.set_xattr(ino, name, value, 0, false)
}

/// user::, user:5:, group::, mask::, other::.
fn list(perms: [u8; 5]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, perm) in [1_u8, 2, 4, 0x10, 0x20].into_iter().zip(perms) {
        let id = if tag == 2 { 5 } else { u32::MAX };
        bytes.extend([tag, 0, perm, 0]);
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn attributes_are_there_after_a_crash_and_go_with_their_inode() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run_at(LATER, |ops| set(ops, a, b"user.colour", b"blue"));
    f.run(|ops| set(ops, a, b"trusted.x", b""));
    f.run(|ops| set(ops, a, b"user.gone", b"1"));
    f.run_at(LATER, |ops| ops.remove_xattr(a, b"user.gone"));
    assert_eq!(f.attr(a).ctime, LATER);
    let f = f.killed();
    assert_eq!(f.view().xattr(a, b"user.colour").expect("there"), b"blue");
    assert_eq!(f.view().xattrs(a).expect("readable"), b"trusted.x\0user.colour\0");
    f.run(|ops| ops.unlink(InodeNo::ROOT, b"a", &never));
    assert_eq!(f.view().xattrs(a).map_err(|e| e.errno()), Err(Some(errno(Errno::NOENT))));
    f.must_be_clean();
}

#[test]
fn names_values_and_flags_are_refused_with_their_errno() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run(|ops| set(ops, a, b"user.there", b"1"));
    let long = [&b"user."[..], &[b'x'; 251]].concat();
    let bad: [(&[u8], &[u8], u32, Errno); 10] = [
        (b"", b"", 0, Errno::RANGE),
        (&long, b"", 0, Errno::RANGE),
        (b"user.", b"", 0, Errno::INVAL),
        (b"users.x", b"", 0, Errno::OPNOTSUPP),
        (b"system.x", b"", 0, Errno::OPNOTSUPP),
        (b"user.big", &[0; 65_537], 0, Errno::TOOBIG),
        (b"user.there", b"", xattr_flags::CREATE, Errno::EXIST),
        (b"user.other", b"", xattr_flags::REPLACE, Errno::NODATA),
        (b"user.there", b"", 4, Errno::INVAL),
        (DEFAULT, &list([7, 7, 7, 7, 7]), 0, Errno::ACCESS),
    ];
    for (name, value, flags, expected) in bad {
        assert_eq!(f.errno(|ops| ops.set_xattr(a, name, value, flags, false)), errno(expected), "{name:?}");
    }
    assert_eq!(f.errno(|ops| ops.remove_xattr(a, b"user.other")), errno(Errno::NODATA));
    assert_eq!(f.view().xattr(a, b"user.other").map_err(|e| e.errno()), Err(Some(errno(Errno::NODATA))));
    f.run(|ops| ops.set_xattr(a, b"user.big", &[1; 65_536], xattr_flags::CREATE, false));
    f.run(|ops| ops.set_xattr(a, b"user.big", b"2", xattr_flags::REPLACE, false));
    assert_eq!(f.view().xattr(a, b"user.big").expect("there"), b"2");
}

#[test]
fn no_space_is_said_when_names_or_values_of_one_inode_are_too_many() {
    let f = Fixture::new();
    let a = f.file("a");
    let name = |i: usize| format!("user.{i:0>245}").into_bytes();
    f.run(|ops| {
        for i in 0..260 {
            set(ops, a, &name(i), b"")?;
        }
        Ok(())
    });
    assert_eq!(f.errno(|ops| (0..2).try_for_each(|i| set(ops, a, &name(900 + i), b""))), errno(Errno::NOSPC));
    let b = f.file("b");
    f.run(|ops| (0..15).try_for_each(|i| set(ops, b, format!("user.{i}").as_bytes(), &[1; 65_536])));
    assert_eq!(f.errno(|ops| set(ops, b, b"user.more", &[1; 65_536])), errno(Errno::NOSPC));
    f.run(|ops| set(ops, b, b"user.0", b"shorter"));
    f.run(|ops| set(ops, b, b"user.more", &[1; 65_536]));
}

#[test]
fn an_access_list_and_the_mode_say_the_same() {
    let f = Fixture::new();
    let a = f.file("a");
    f.run(|ops| set(ops, a, ACCESS, &list([7, 6, 5, 6, 1])));
    assert_eq!(f.attr(a).mode, 0o100_761);
    f.run(|ops| ops.setattr(a, &SetAttr { mode: Some(0o640), ..SetAttr::default() }));
    assert_eq!(f.view().xattr(a, ACCESS).expect("there"), list([6, 6, 5, 4, 0]));
    assert_eq!(f.errno(|ops| set(ops, a, ACCESS, b"nonsense")), errno(Errno::INVAL));
    // One that says no more than the mode becomes the mode.
    let plain = [
        &[2, 0, 0, 0][..],
        &list([7, 0, 5, 0, 4])[4..12],
        &list([7, 0, 5, 0, 4])[20..28],
        &list([7, 0, 5, 0, 4])[36..],
    ];
    f.run(|ops| set(ops, a, ACCESS, &plain.concat()));
    assert_eq!((f.attr(a).mode, f.view().xattrs(a).expect("readable")), (0o100_754, vec![]));
}

#[test]
fn what_is_made_in_a_directory_with_a_default_list_inherits_it_and_no_umask() {
    let f = Fixture::new();
    let d = f.dir(InodeNo::ROOT, "d");
    let make = |parent, name: &'static [u8], mode| {
        f.run(|ops| ops.create(&NewNode { umask: 0o077, ..node(parent, name, mode) }, true)).attr
    };
    assert_eq!(make(d, b"before", 0o100_666).mode, 0o100_600);
    f.run(|ops| set(ops, d, DEFAULT, &list([7, 6, 5, 7, 4])));
    let file = make(d, b"file", 0o100_666);
    assert_eq!((file.mode, f.view().xattr(file.ino, ACCESS).expect("there")), (0o100_664, list([6, 6, 5, 6, 4])));
    let sub = make(d, b"sub", 0o040_777);
    assert_eq!((sub.mode, f.view().xattr(sub.ino, DEFAULT).expect("there")), (0o040_774, list([7, 6, 5, 7, 4])));
    assert_eq!(make(sub.ino, b"deeper", 0o100_600).mode, 0o100_600);
}

#[test]
fn capabilities_and_set_user_id_go_when_a_file_changes_hands_or_contents() {
    let f = Fixture::new();
    let a = f.file("a");
    let changes = [
        SetAttr { uid: Some(7), ..SetAttr::default() },
        SetAttr { size: Some(10), ..SetAttr::default() },
        SetAttr { kill_capability: true, ..SetAttr::default() },
        SetAttr { kill_suid_sgid: true, ..SetAttr::default() },
    ];
    for change in changes {
        f.run(|ops| set(ops, a, b"security.capability", b"all"));
        f.run(|ops| ops.setattr(a, &SetAttr { mode: Some(0o6755), ..SetAttr::default() }));
        assert!(f.view().has_capability(a).expect("readable"), "chmod leaves it");
        let mode = f.run(|ops| ops.setattr(a, &change)).mode & 0o7777;
        assert!(!f.view().has_capability(a).expect("readable"), "{change:?}");
        let clears = change.uid.is_some() || change.kill_suid_sgid;
        assert_eq!(mode, if clears { 0o755 } else { 0o6755 }, "{change:?}");
    }
}
