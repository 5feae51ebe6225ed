//! Planned restarts: a daemon makes room for the next one under programs that know nothing of it. Their requests wait meanwhile, as
//! they would in the kernel; whoever waits for a lock asks the next daemon again.
//!
//! The shell is the one of `volume/leave`: the office goes, nothing is taken in, everything is given back and flushed, the core
//! leaves; what does not come to rest in time is a kill. Where the core says that it may leave is its own decision.

use std::cell::Cell;
use std::rc::Rc;

use block::shared::NodeId;

use super::exec::{Sender, oneshot};
use super::files::{Ctx, Fail};
use super::world::{MS, World};
use crate::core::client::{Event, Known, Standing};
use crate::core::office::{self, Resumes};
use crate::types::*;

/// What has not come to rest after so many virtual milliseconds does not any more.
const RESTS: u64 = 8000;
/// So many are given to another node to take the office.
const MOVES: u64 = 2500;
/// Between two looks.
const LOOK: u64 = 20;

/// A daemon that makes room, from the closing of its intake until the next one goes on.
pub(super) struct Leaving {
    began: u64,
    /// Something is being flushed.
    flushing: bool,
    /// It takes an office again, since nobody else did.
    unbarred: bool,
    /// What it knew at its end.
    pub(super) known: Option<Box<Known>>,
    /// Files whose next fsync fails.
    lost: Vec<InodeNo>,
}

/// A request of a program that a daemon is at.
pub(super) struct Inside(Rc<Cell<u32>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Ctx {
    /// A system call begins: it waits while nothing is taken in.
    pub(super) async fn enters(&self) -> Result<Inside, Fail> {
        loop {
            if let Some(inside) = self.with(|w| w.enters(self.n))? {
                return Ok(inside);
            }
            self.naps(2 * MS).await?;
        }
    }

    /// A program sleeps, whoever serves it.
    pub(super) async fn naps(&self, micros: u64) -> Result<(), Fail> {
        let (sender, receiver) = oneshot();
        self.with(|w| w.wake_program(self.n, micros, sender))?;
        self.wait(receiver).await
    }
}

impl World {
    fn enters(&mut self, n: NodeId) -> Option<Inside> {
        if self.leaving.contains_key(&n) {
            return None;
        }
        let count = Rc::clone(self.inside.entry(n).or_default());
        count.set(count.get() + 1);
        Some(Inside(count))
    }

    pub(super) fn wake_program(&mut self, n: NodeId, delay: u64, sender: Sender<()>) {
        self.after(delay, move |w| match w.nodes[&n].paused {
            true => w.wake_program(n, MS, sender),
            false => sender.send(()),
        });
    }

    /// The incarnation whose daemon has ended, and is to go on in the next.
    pub(super) fn is_between(&self, n: NodeId) -> Option<ClientId> {
        self.leaving.get(&n)?.known.as_ref().map(|known| known.client)
    }

    /// What the next process of a node goes on with.
    pub(super) fn resumes(&self, n: NodeId) -> Option<Resumes> {
        let known = self.leaving.get(&n)?.known.as_ref()?;
        Some(Resumes { incarnation: known.client.incarnation, fence_gen: known.fence_gen })
    }

    /// SIGHUP.
    pub(super) fn restart(&mut self, n: NodeId) -> bool {
        if self.setup.scsi || !self.is_running(n) || self.client_is(n).is_none() || self.leaving.contains_key(&n) {
            return false;
        }
        let leaving = Leaving { began: self.now, flushing: false, unbarred: false, known: None, lost: Vec::new() };
        self.leaving.insert(n, leaving);
        self.at_node(n, 0, move |w| {
            w.office(n, office::Event::Barred { barred: true });
            if w.in_office(n) {
                let others: Vec<NodeId> = w.all().into_iter().filter(|m| *m != n && w.is_running(*m)).collect();
                let to = w.rng.pick(&others);
                w.resign(n, to);
            }
        });
        self.at_node(n, LOOK * MS, move |w| w.leaves(n));
        true
    }

    fn leaves(&mut self, n: NodeId) {
        let Some(leaving) = self.leaving.get(&n) else { return };
        let since = (self.now - leaving.began) / MS;
        if leaving.known.is_some() {
            return self.ends_in_order(n, since);
        }
        if since > RESTS {
            self.coverage.count("restart", "does not come to rest");
            self.kill(n);
            return self.next_daemon(n);
        }
        if since > MOVES
            && let Some(leaving) = self.leaving.get_mut(&n)
            && !std::mem::replace(&mut leaving.unbarred, true)
        {
            self.office(n, office::Event::Barred { barred: false });
        }
        let inside = self.inside.get(&n).map_or(0, |count| count.get() as usize);
        let asks = self.shell(n).map_or(0, |shell| shell.core.lock_callers());
        let flushing = self.leaving.get(&n).is_some_and(|l| l.flushing);
        if inside <= asks && !flushing {
            self.flushes_and_asks(n);
        }
        self.at_node(n, LOOK * MS, move |w| w.leaves(n));
    }

    /// A flush, and then the question.
    fn flushes_and_asks(&mut self, n: NodeId) {
        let (Some(who), Some(leaving)) = (self.client_is(n), self.leaving.get_mut(&n)) else { return };
        leaving.flushing = true;
        let ctx = Ctx::own(self, n, who);
        self.spawn_at(n, async move {
            let flushed = ctx.flush().await.is_ok();
            let _ = ctx.with(|w| {
                if let Some(leaving) = w.leaving.get_mut(&n) {
                    leaving.flushing = false;
                    if flushed {
                        w.client(n, Event::Leave);
                    }
                }
            });
        });
    }

    /// The core says whether it has left.
    pub(super) fn has_left(&mut self, n: NodeId, known: Option<Box<Known>>) {
        let Some(shell) = self.shell(n) else { return };
        let held: Vec<LayoutId> =
            shell.core.layouts().filter(|(_, l)| l.standing == Standing::Held).map(|(id, _)| id).collect();
        let lost = shell.files.iter().filter(|(_, f)| f.lost).map(|(ino, _)| *ino).collect();
        if known.is_none() {
            for layout in held {
                self.at_node(n, 0, move |w| w.client(n, Event::GiveBack { layout }));
            }
            return;
        }
        self.trace(|| format!("{n}: its client has left: {known:?}"));
        let in_office = self.in_office(n);
        if let Some(leaving) = self.leaving.get_mut(&n) {
            (leaving.known, leaving.lost) = (known, lost);
        }
        if in_office {
            self.resign(n, Some(n));
        }
    }

    fn ends_in_order(&mut self, n: NodeId, since: u64) {
        let reigns = self.in_office(n) || self.proc(n).is_some_and(|p| p.reign.as_ref().is_some_and(|r| !r.is_over()));
        if reigns && since < RESTS {
            return self.at_node(n, LOOK * MS, move |w| w.leaves(n));
        }
        self.coverage.count("restart", if reigns { "with an office" } else { "in order" });
        self.ends(n);
        self.next_daemon(n);
    }

    fn next_daemon(&mut self, n: NodeId) {
        let soon = MS * self.rng.range(10, 600);
        // Now and then something keeps it from starting, for long enough to be evicted for a lock that others want.
        let wait = if self.busy && self.rng.permille(100) { MS * self.rng.range(1000, 9000) } else { soon };
        self.after(wait, move |w| {
            if !w.is_up(n) {
                w.start(n);
            }
        });
    }

    /// A life is registered: what it goes on with, if it is the one that was to go on.
    pub(super) fn goes_on(&mut self, n: NodeId, client: ClientId) -> Option<(Box<Known>, Vec<InodeNo>)> {
        let Leaving { known, lost, .. } = self.leaving.remove(&n)?;
        let known = known?;
        let same = known.client == client;
        if !same && self.disk.lun.slots[&n].fence_gen > known.fence_gen {
            self.oracle.fenced_between_lives(known.client);
        }
        self.coverage.count("restart", if same { "goes on" } else { "was fenced meanwhile" });
        same.then_some((known, lost))
    }
}
