//! The descriptors that are kept, by their names.
//!
//! A name is "OWNER / THING", for example "volume 6c1f... / channel 3". What is kept under a name that was used before
//! replaces it; an owner is released whole.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// The most that is kept: 256 channels and two memories for each of 60 volumes. More is a daemon gone wrong, which must not
/// take the holder with it.
pub(super) const MOST: usize = 16_384;

/// What stands between owner and thing.
const BETWEEN: &str = " / ";

/// The descriptors.
#[derive(Default, Debug)]
pub(super) struct Shelf(BTreeMap<String, OwnedFd>);

impl Shelf {
    /// Keeps one; false if there is no room.
    pub(super) fn keep(&mut self, name: &str, fd: OwnedFd) -> bool {
        let fits = self.0.len() < MOST || self.0.contains_key(name);
        if fits {
            self.0.insert(name.to_owned(), fd);
        }
        fits
    }

    /// Forgets all of an owner's.
    pub(super) fn release(&mut self, owner: &str) {
        self.0.retain(|name, _| name.split_once(BETWEEN).is_none_or(|(of, _)| of != owner));
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.0.iter().map(|(name, fd)| (name.as_str(), fd))
    }
}

/// The name of an owner's thing.
pub(super) fn name(owner: &str, thing: &str) -> String {
    format!("{owner}{BETWEEN}{thing}")
}

/// The thing, if the name is of that owner.
pub(super) fn thing<'a>(name: &'a str, owner: &str) -> Option<&'a str> {
    name.split_once(BETWEEN).filter(|(of, _)| *of == owner).map(|(_, thing)| thing)
}

/// The owner of what has that name.
pub(super) fn owner(name: &str) -> Option<&str> {
    name.split_once(BETWEEN).map(|(of, _)| of)
}
