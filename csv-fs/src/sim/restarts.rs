//! Planned restarts: a daemon makes room for the next one under programs that know nothing of it. Their requests wait meanwhile, as
//! they would in the kernel; whoever waits for a lock asks the next daemon again.
//!
//! Or it is killed, with whatever is under way: then what programs had asked comes again, as the kernel would send it, and the next
//! one goes on from what was noted.
//!
//! The shell is the one of `volume/leave`: the office goes, nothing is taken in, everything is given back and flushed, the core
//! leaves; what does not come to rest in time is a kill. Where the core says that it may leave is its own decision. On a SCSI disk
//! what was sent is then proved to have ended, and the keys are given back; a kill is followed by another life there.

use std::cell::Cell;
use std::rc::Rc;

use block::shared::{FenceGen, NodeId};

use super::exec::{Sender, oneshot};
use super::files::{Ctx, Fail};
use super::world::{MS, World};
use crate::core::client::{Event, Known, Ledger, Note, Standing};
use crate::core::office::{self, Resumes};
use crate::core::rules::Rule;
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
    /// What it has left, once it has ended.
    pub(super) left: Option<Left>,
    /// It has asked for the proof that nothing which it has sent can land any more.
    proving: bool,
    /// It has that proof.
    ended: bool,
    /// Files whose next fsync fails.
    lost: Vec<InodeNo>,
    /// Files with unflushed writes, after a kill. A real daemon that was killed is followed by one that goes on only where the disk is a
    /// file, which loses nothing while its host runs; the disk here may be reset.
    pub(super) unflushed: Vec<InodeNo>,
}

/// What the next daemon goes on from.
#[derive(Clone)]
pub(super) enum Left {
    InOrder(Box<Known>),
    Killed(Box<Ledger>),
}

impl Left {
    pub(super) fn client(&self) -> ClientId {
        match self {
            Left::InOrder(known) => known.client,
            Left::Killed(ledger) => ledger.client,
        }
    }

    pub(super) fn fence_gen(&self) -> FenceGen {
        match self {
            Left::InOrder(known) => known.fence_gen,
            Left::Killed(ledger) => ledger.direct.unwrap_or_default(),
        }
    }
}

/// What a life goes on with, and its files: whose next fsync fails, and which have unflushed writes.
pub(super) type GoesOn = (Left, Vec<InodeNo>, Vec<InodeNo>);

impl Leaving {
    fn new(began: u64) -> Leaving {
        Leaving {
            began,
            flushing: false,
            unbarred: false,
            left: None,
            proving: false,
            ended: false,
            lost: Vec::new(),
            unflushed: Vec::new(),
        }
    }

    /// The disk has lost something.
    pub(super) fn loses(&mut self) {
        self.lost.append(&mut self.unflushed);
    }
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

    /// A request of the kernel. If its daemon is killed, it comes again to the next one that goes on, under its number.
    pub(super) async fn served<T>(&self, request: impl AsyncFn(Ctx) -> Result<T, Fail>) -> Result<T, Fail> {
        let unique = self.with(|w| {
            w.last_name += 1;
            w.last_name
        })?;
        loop {
            let inside = self.enters().await?;
            let here = self.with(|w| self.at_daemon(w, unique))?;
            let result = match request(here.clone()).await {
                Err(Fail::Evicted) => Err(Fail::Evicted),
                // It is done, and the kernel has no answer yet.
                result => here.dawdles().await.and(result),
            };
            drop(inside);
            let gone = self.with(|w| here.is_gone(w))?;
            match result {
                Err(Fail::Evicted) if gone => self.with(|w| w.coverage.count("restart", "a request comes again"))?,
                result => {
                    self.with(|w| w.keeps_notes(self.n, &[Note::Replied(unique)]))?;
                    return result;
                }
            }
        }
    }

    async fn dawdles(&self) -> Result<(), Fail> {
        let pause = self.with(|w| if w.rng.permille(250) { w.rng.below(5 * MS) } else { 0 })?;
        if pause > 0 { self.sleep(pause).await } else { Ok(()) }
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
        self.leaving.get(&n)?.left.as_ref().map(Left::client)
    }

    /// What the next process of a node goes on with.
    pub(super) fn resumes(&self, n: NodeId) -> Option<Resumes> {
        let Leaving { left, ended, .. } = self.leaving.get(&n)?;
        let left = left.as_ref()?;
        Some(Resumes { incarnation: left.client().incarnation, fence_gen: left.fence_gen(), ended: *ended })
    }

    /// SIGHUP.
    pub(super) fn restart(&mut self, n: NodeId) -> bool {
        if !self.is_running(n) || self.client_is(n).is_none() || self.leaving.contains_key(&n) {
            return false;
        }
        self.leaving.insert(n, Leaving::new(self.now));
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
        if leaving.left.is_some() {
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
            (leaving.left, leaving.lost) = (known.map(Left::InOrder), lost);
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
        let proved = !self.setup.scsi || self.leaving.get(&n).is_some_and(|l| l.ended);
        if !proved && self.setup.rules.has(Rule::EndedBeforeHandedOn) && since < 2 * RESTS {
            self.proves_its_end(n);
            return self.at_node(n, LOOK * MS, move |w| w.leaves(n));
        }
        if !proved {
            self.coverage.count("restart", "without a proof of its end");
        }
        self.coverage.count("restart", if reigns { "with an office" } else { "in order" });
        self.ends(n);
        self.next_daemon(n);
    }

    /// Of a unit: an office that did not end is ended, what was sent is proved to have ended, and keys are given back.
    fn proves_its_end(&mut self, n: NodeId) {
        let Some(leaving) = self.leaving.get_mut(&n) else { return };
        if std::mem::replace(&mut leaving.proving, true) {
            return;
        }
        let reigning = self.proc(n).and_then(|p| p.reign.as_ref()).filter(|r| !r.is_over()).map(|r| r.epoch);
        if let Some(epoch) = reigning {
            self.trip(n, epoch);
        }
        self.prove_nothing_flies(n, move |w| {
            if let Some(leaving) = w.leaving.get_mut(&n) {
                leaving.ended = true;
                w.coverage.count("restart", "its end is proved");
                w.keys_given_back(n);
            }
        });
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
    pub(super) fn goes_on(&mut self, n: NodeId, client: ClientId) -> Option<GoesOn> {
        let Leaving { left, lost, unflushed, .. } = self.leaving.remove(&n)?;
        let left = left?;
        let same = left.client() == client;
        let how = match (same, &left) {
            (true, Left::InOrder(_)) => "goes on",
            (true, Left::Killed(_)) => "goes on after a kill",
            (false, _) => "is another life",
        };
        self.coverage.count("restart", how);
        if self.disk.lun.slots[&n].fence_gen > left.fence_gen() {
            self.coverage.count("restart", "was fenced meanwhile");
        }
        same.then_some((left, lost, unflushed))
    }

    /// SIGKILL of a daemon that has a holder. Whoever asked it for something asks the next one.
    pub(super) fn kill_held(&mut self, n: NodeId) -> bool {
        if self.setup.scsi || !self.is_running(n) || self.leaving.contains_key(&n) {
            return false;
        }
        let Some(client) = self.client_is(n) else { return false };
        let noted = self.ledgers.get(&n).filter(|ledger| ledger.client == client && ledger.resumable().is_ok());
        let Some(ledger) = noted.cloned() else { return false };
        for (what, there) in [
            ("a call", ledger.slots.values().any(|c| c.open && c.origin.is_some())),
            ("an answer", !ledger.answers.is_empty()),
            ("an append", !ledger.appended.is_empty()),
            ("something uncommitted", !ledger.files.is_empty()),
            ("a lock", !ledger.locks().is_empty()),
            ("an office", self.in_office(n)),
        ] {
            if there {
                self.coverage.count("killed with", what);
            }
        }
        let mut leaving = Leaving::new(self.now);
        if let Some(shell) = self.shell(n) {
            leaving.lost = shell.files.iter().filter(|(_, f)| f.lost).map(|(ino, _)| *ino).collect();
            leaving.unflushed = shell.files.iter().filter(|(_, f)| f.unflushed).map(|(ino, _)| *ino).collect();
        }
        leaving.left = Some(Left::Killed(Box::new(ledger)));
        self.leaving.insert(n, leaving);
        self.ends(n);
        self.next_daemon(n);
        true
    }

    /// Keeps what the next daemon is to know.
    pub(super) fn keeps_notes(&mut self, n: NodeId, notes: &[Note]) {
        if let Some(ledger) = self.ledgers.get_mut(&n) {
            notes.iter().for_each(|note| ledger.note(note));
        }
    }
}
