//! POSIX access control lists: what they make of a mode, and a mode of them. The kernel enforces them; the store keeps
//! list and mode in step, as POSIX 1003.1e draft 17 says (and `fs/posix_acl.c` of Linux does).
//!
//! As stored and as the kernel sends them: version 2 (u32), then entries of tag u16, permissions u16, id u32, all little
//! endian, in the order user::, user:ID:, group::, group:ID:, mask::, other::.
//!
//! What it refuses: a list that is not one (EINVAL). A list that says no more than the mode is not stored.

use rustix::io::Errno;

use super::error::Result;

/// The extended attribute of a list that guards its own inode.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The one of a list that is passed on to what is made in a directory.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The nine permission bits of a mode.
const RWX: u32 = 0o777;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A list that is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// The list in these bytes; `None` for one without entries.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Acl>> {
        let bad = || Errno::INVAL;
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return Err(bad().into());
        }
        let entry = |e: &[u8]| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            perm: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        };
        let acl = Acl(rest.chunks_exact(8).map(entry).collect());
        match acl.0.is_empty() {
            true => Ok(None),
            false if acl.is_valid() => Ok(Some(acl)),
            false => Err(bad().into()),
        }
    }

    /// Each of user::, group:: and other:: once, in order, a mask if anybody is named, and nobody twice.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|e| e.tag == tag).count();
        let names_somebody = count(USER) + count(GROUP) > 0;
        let known = |e: &Entry| matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && e.perm <= 7;
        let mut named: Vec<(u16, u32)> =
            self.0.iter().filter(|e| matches!(e.tag, USER | GROUP)).map(|e| (e.tag, e.id)).collect();
        named.sort_unstable();
        self.0.iter().all(known)
            && self.0.windows(2).all(|w| w[0].tag <= w[1].tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|tag| count(*tag) == 1)
            && count(MASK) <= 1
            && (!names_somebody || count(MASK) == 1)
            && named.windows(2).all(|w| w[0] != w[1])
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            bytes.extend_from_slice(&e.tag.to_le_bytes());
            bytes.extend_from_slice(&e.perm.to_le_bytes());
            bytes.extend_from_slice(&e.id.to_le_bytes());
        }
        bytes
    }

    /// `mode` with the permissions this list gives, and whether the mode alone says all of it.
    pub(super) fn mode(&self, mode: u32) -> (u32, bool) {
        let bits = |e: &Entry| u32::from(e.perm);
        let mut perm = 0;
        let mut plain = true;
        for e in &self.0 {
            match e.tag {
                USER_OBJ => perm |= bits(e) << 6,
                GROUP_OBJ if !self.has_mask() => perm |= bits(e) << 3,
                MASK => perm |= bits(e) << 3,
                OTHER => perm |= bits(e),
                _ => {}
            }
            plain &= matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER);
        }
        (mode & !RWX | perm, plain)
    }

    fn has_mask(&self) -> bool {
        self.0.iter().any(|e| e.tag == MASK)
    }

    /// What chmod makes of it: the group's bits are the mask's, if there is one.
    pub(super) fn chmod(&mut self, mode: u32) {
        let masked = self.has_mask();
        for e in &mut self.0 {
            let of = |shift: u32| ((mode >> shift) & 7) as u16;
            match e.tag {
                USER_OBJ => e.perm = of(6),
                GROUP_OBJ if !masked => e.perm = of(3),
                MASK => e.perm = of(3),
                OTHER => e.perm = of(0),
                _ => {}
            }
        }
    }

    /// A directory's default list becomes the access list of something that is made with `mode`: neither gives what the
    /// other does not. Tells the mode; the list is to be stored unless the mode says all of it.
    pub(super) fn inherit(&mut self, mode: u32) -> (u32, bool) {
        let masked = self.has_mask();
        for e in &mut self.0 {
            let of = |shift: u32| ((mode >> shift) & 7) as u16;
            match e.tag {
                USER_OBJ => e.perm &= of(6),
                GROUP_OBJ if !masked => e.perm &= of(3),
                MASK => e.perm &= of(3),
                OTHER => e.perm &= of(0),
                _ => {}
            }
        }
        self.mode(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect()).encode()
    }

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn what_is_no_list_is_refused() {
        let bad = [
            vec![],
            vec![2, 0, 0],
            vec![1, 0, 0, 0],
            [acl(&[]), vec![0]].concat(),
            acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 7, NOBODY)]),
            acl(&[(USER_OBJ, 8, NOBODY), (GROUP_OBJ, 7, NOBODY), (OTHER, 7, NOBODY)]),
            acl(&[(GROUP_OBJ, 7, NOBODY), (USER_OBJ, 7, NOBODY), (OTHER, 7, NOBODY)]),
            acl(&[(USER_OBJ, 7, NOBODY), (USER, 7, 5), (GROUP_OBJ, 7, NOBODY), (OTHER, 7, NOBODY)]),
            acl(&[
                (USER_OBJ, 7, NOBODY),
                (USER, 7, 5),
                (USER, 7, 5),
                (GROUP_OBJ, 7, NOBODY),
                (MASK, 7, NOBODY),
                (OTHER, 7, NOBODY),
            ]),
            acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 7, NOBODY), (OTHER, 7, NOBODY), (0x40, 7, NOBODY)]),
        ];
        for bytes in bad {
            assert!(Acl::parse(&bytes).is_err(), "{bytes:?}");
        }
        assert!(Acl::parse(&acl(&[])).is_ok_and(|a| a.is_none()));
    }

    #[test]
    fn a_list_and_a_mode_are_kept_in_step() {
        let plain = acl(&[(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 4, NOBODY)]);
        assert_eq!(Acl::parse(&plain).unwrap().unwrap().mode(0o104_000), (0o104_654, true));
        let named =
            acl(&[(USER_OBJ, 7, NOBODY), (USER, 6, 5), (GROUP_OBJ, 5, NOBODY), (MASK, 6, NOBODY), (OTHER, 1, NOBODY)]);
        let mut list = Acl::parse(&named).unwrap().unwrap();
        assert_eq!(list.mode(0o100_000), (0o100_761, false));
        list.chmod(0o640);
        assert_eq!(list.mode(0), (0o640, false));
        assert_eq!(list.0[2].perm, 5, "the group's own entry stays under a mask");
        let mut list = Acl::parse(&named).unwrap().unwrap();
        assert_eq!(list.inherit(0o100_644), (0o100_640, false));
        assert_eq!(Acl::parse(&list.encode()).unwrap().unwrap(), list);
    }
}
