//! The daemon's end: what it was given, what it gives, and whether it is to leave.
//!
//! The end of the holder is noticed and survived: the daemon goes on, as one without a holder does, and says so. Its mounts
//! then end with it. It does not end itself: that would turn the loss of a safety net into the fall.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use csv_fs::volume::Keeper;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::shelf;
use super::wire::{self, FromDaemon, ToDaemon};
use crate::exit::Failure;

/// What the holder wants, or that it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Nothing.
    Stay,
    /// That this daemon leaves for the next one.
    Leave,
    /// It is gone.
    Gone,
}

/// A daemon's holder.
#[derive(Debug)]
pub(crate) struct Held {
    socket: OwnedFd,
    kept: Mutex<BTreeMap<String, OwnedFd>>,
    wish: watch::Receiver<Wish>,
}

impl Held {
    /// Takes what was kept from the holder on the standard input.
    pub(crate) fn attach() -> Result<Arc<Held>, Failure> {
        let failed = |e: io::Error| {
            Failure::usage(
                format!("There is no holder on the standard input: {e}."),
                "`--held` is what a holder starts its daemon with; leave it out.",
            )
        };
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        Held::over(socket).map_err(failed)
    }

    /// Takes what was kept from the holder at the other end.
    pub(super) fn over(socket: OwnedFd) -> io::Result<Arc<Held>> {
        let mut kept = BTreeMap::new();
        loop {
            let Some((message, fd)) = wire::receive(&socket, true)? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match (ToDaemon::decode(&message), fd) {
                (Some(ToDaemon::Kept(name)), Some(fd)) => drop(kept.insert(name.to_owned(), fd)),
                (Some(ToDaemon::End), _) => break,
                _ => {}
            }
        }
        let (wishes, wish) = watch::channel(Wish::Stay);
        let listens = socket.try_clone()?;
        std::thread::Builder::new().name("holder".into()).spawn(move || listen(&listens, &wishes))?;
        Ok(Arc::new(Held { socket, kept: Mutex::new(kept), wish }))
    }

    /// Gives up what was kept of volumes that are not among these: nobody would take it over.
    pub(crate) fn only(&self, volumes: &[String]) {
        let wanted: Vec<_> = volumes.iter().map(|volume| owner(volume)).collect();
        let owners = self.owners();
        owners.iter().filter(|owner| !wanted.contains(owner)).for_each(|owner| self.release_owner(owner));
    }

    fn kept_of(&self, owner: &str) -> io::Result<BTreeMap<String, OwnedFd>> {
        let kept = self.kept.lock();
        let its = kept.iter().filter_map(|(name, fd)| Some((shelf::thing(name, owner)?, fd)));
        its.map(|(thing, fd)| Ok((thing.to_owned(), fd.try_clone()?))).collect()
    }

    /// Of whom something was kept.
    pub(super) fn owners(&self) -> Vec<String> {
        let kept = self.kept.lock();
        let mut owners: Vec<_> = kept.keys().filter_map(|name| shelf::owner(name)).map(str::to_owned).collect();
        owners.dedup();
        owners
    }

    fn keep_for(&self, owner: &str, thing: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let name = shelf::name(owner, thing);
        Ok(wire::send(&self.socket, &FromDaemon::Keep(&name).encode(), Some(fd))?)
    }

    /// Nothing of this owner is to be kept any more, here or there.
    fn release_owner(&self, owner: &str) {
        self.kept.lock().retain(|name, _| shelf::thing(name, owner).is_none());
        // A holder that is gone keeps nothing.
        let _ = wire::send(&self.socket, &FromDaemon::Release(owner).encode(), None);
    }

    /// This process ends next, so that another takes its place.
    pub(crate) fn leaving(&self) -> io::Result<()> {
        Ok(wire::send(&self.socket, &FromDaemon::Leaving.encode(), None)?)
    }

    /// Resolves when the holder wants something else, or is gone.
    ///
    /// # Cancel safety
    /// Safe: what it resolves with stays.
    pub(crate) async fn wish(&self) -> Wish {
        let mut wish = self.wish.clone();
        wish.wait_for(|wish| *wish != Wish::Stay).await.map_or(Wish::Gone, |wish| *wish)
    }
}

impl Keeper for Held {
    fn keep(&self, volume: &str, thing: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.keep_for(&owner(volume), thing, fd)
    }

    fn kept(&self, volume: &str) -> io::Result<BTreeMap<String, OwnedFd>> {
        self.kept_of(&owner(volume))
    }

    fn release(&self, volume: &str) {
        self.release_owner(&owner(volume));
    }
}

/// What a volume's things are kept under.
fn owner(volume: &str) -> String {
    format!("volume {volume}")
}

fn listen(socket: &OwnedFd, wishes: &watch::Sender<Wish>) {
    loop {
        match wire::receive(socket, true) {
            Ok(Some((message, _))) if ToDaemon::decode(&message) == Some(ToDaemon::Leave) => {
                wishes.send_replace(Wish::Leave);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                wishes.send_replace(Wish::Gone);
                return;
            }
        }
    }
}
