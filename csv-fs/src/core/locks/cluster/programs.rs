//! Programs, and what they were told.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::*;
use crate::core::client::{CallFailure, LockOp};
use crate::core::locks::{Lock, Owner};

/// Bytes of a file that programs lock.
const SPAN: u64 = 5;
const FILES: u64 = 2;

/// What a program does just now.
#[derive(Clone, PartialEq, Debug)]
enum Doing {
    Nothing,
    Opening,
    /// A lock, with what it had there when it asked.
    Taking {
        op: LockOp,
        had: Vec<(u64, LockMode)>,
    },
    Dropping {
        range: ByteRange,
    },
    /// Killed: its FLUSH, then its RELEASE.
    Flushing,
    Releasing,
}

/// A program with one file open: a process with records, one with records of an open file, one with flock.
#[derive(Clone, Debug)]
pub(super) struct Program {
    number: u64,
    life: u64,
    ino: InodeNo,
    open: bool,
    poisoned: bool,
    doing: Doing,
    ticket: u64,
    killed: bool,
    /// Its flock was interrupted on the way to another kind: whether it still has what it had nobody has told it.
    unsure: bool,
}

impl Program {
    pub(super) fn new(number: u64) -> Program {
        let ino = InodeNo(100 + number % FILES);
        let (doing, ticket) = (Doing::Nothing, 0);
        Program { number, life: 0, ino, open: false, poisoned: false, doing, ticket, killed: false, unsure: false }
    }

    fn owner(&self) -> u64 {
        self.life * 10 + self.number
    }

    fn handle(&self) -> HandleId {
        HandleId(self.owner() + 1000)
    }

    fn space(&self) -> LockSpace {
        if self.number == 2 { LockSpace::Whole } else { LockSpace::Record }
    }

    pub(super) fn is_done(&self) -> bool {
        self.doing == Doing::Nothing && !self.killed
    }

    fn reborn(&mut self) {
        *self = Program { life: self.life + 1, ..Program::new(self.number) };
    }
}

/// A byte of a file, in a space.
type Byte = (LockSpace, InodeNo, u64);
/// Who holds a byte, and for what, through which handle.
type Holders = BTreeMap<(ClientId, u64), (LockMode, HandleId)>;

/// What programs of living incarnations were told that they hold.
#[derive(Default)]
pub(super) struct Truth {
    held: BTreeMap<Byte, Holders>,
    pub(super) gone: BTreeSet<ClientId>,
    /// Of those, whose locks are in nobody's way any more.
    pub(super) buried: BTreeSet<ClientId>,
    pub(super) broken: Option<String>,
}

impl Truth {
    /// It cannot reach the disk any more.
    pub(super) fn gone(&mut self, client: ClientId) {
        self.gone.insert(client);
        self.held.values_mut().for_each(|of| of.retain(|(c, _), _| *c != client));
    }

    pub(super) fn lost(&mut self, client: ClientId, handles: &[HandleId]) {
        self.held.values_mut().for_each(|of| of.retain(|(c, _), (_, h)| *c != client || !handles.contains(h)));
    }

    fn let_go(&mut self, client: ClientId, owner: u64) {
        self.held.values_mut().for_each(|of| of.retain(|who, _| *who != (client, owner)));
    }

    fn has(&mut self, byte: Byte, who: (ClientId, u64)) -> Option<LockMode> {
        self.held.get(&byte)?.get(&who).map(|(mode, _)| *mode)
    }

    fn set(&mut self, byte: Byte, who: (ClientId, u64), mode: LockMode, handle: HandleId) {
        if self.gone.contains(&who.0) {
            return;
        }
        let of = self.held.entry(byte).or_default();
        of.insert(who, (mode, handle));
        let alone = of.values().any(|(mode, _)| *mode == LockMode::Write);
        if alone && of.len() > 1 {
            self.broken.get_or_insert(format!("{byte:?} is held by {of:?}"));
        }
    }
}

impl Run {
    /// A program does something, or goes on with its end.
    pub(super) fn act(&mut self, node: usize, number: usize) {
        self.moment += 1;
        let evicted = matches!(self.nodes[node].core.binding(), Binding::Evicted { .. });
        let program = self.nodes[node].programs[number].clone();
        match program.doing {
            _ if evicted => {}
            Doing::Taking { .. } if !self.closing && self.rng.one_in(6) => {
                self.nodes[node].programs[number].killed |= self.rng.one_in(2);
                self.count("interrupted");
                self.client_event(node, Hears::Cancel { ticket: Ticket(program.ticket) });
            }
            Doing::Nothing if program.killed || (program.poisoned && program.open) => self.ends(node, number),
            Doing::Nothing if !program.open => {
                if self.closing {
                    return;
                }
                let open = OpenRequest { handle: program.handle(), flags: 2 };
                let request = Request::Open { ino: program.ino, open };
                self.begin(node, number, Doing::Opening, |ticket| Hears::Submit { ticket, request });
            }
            Doing::Nothing if self.closing => {
                self.drop_range(node, number, ByteRange::ALL, Doing::Dropping { range: ByteRange::ALL })
            }
            Doing::Nothing => match self.rng.below(20) {
                0 => {
                    self.count("killed");
                    self.nodes[node].programs[number].killed = true;
                    self.ends(node, number);
                }
                1..5 => {
                    let range = self.range(&program);
                    self.drop_range(node, number, range, Doing::Dropping { range });
                }
                _ => self.takes(node, number),
            },
            _ => {}
        }
    }

    fn range(&mut self, program: &Program) -> ByteRange {
        let start = self.rng.below(SPAN);
        match program.space() {
            LockSpace::Whole => ByteRange::ALL,
            LockSpace::Record => ByteRange { start, end: start + 1 + self.rng.below(SPAN - start) },
        }
    }

    fn begin(&mut self, node: usize, number: usize, doing: Doing, event: impl FnOnce(Ticket) -> Hears) {
        self.last_tag += 1;
        let program = &mut self.nodes[node].programs[number];
        program.ticket = self.last_tag;
        program.doing = doing;
        let event = event(Ticket(program.ticket));
        self.client_event(node, event);
    }

    /// A lock of its own may become weaker by it from now on; a flock lets go first.
    fn takes(&mut self, node: usize, number: usize) {
        let program = self.nodes[node].programs[number].clone();
        let (client, ino, space) = (self.nodes[node].core.client(), program.ino, program.space());
        let mode = if self.rng.one_in(2) { LockMode::Read } else { LockMode::Write };
        let (owner, handle, range) = (program.owner(), program.handle(), self.range(&program));
        let lock = OwnLock { owner, handle, pid: 1, range, mode };
        let op = LockOp::Take { ino, space, lock, wait: self.rng.one_in(2) };
        let mut had = Vec::new();
        for at in range.start..range.end.min(SPAN) {
            let byte = (space, ino, at);
            let Some(before) = self.truth.has(byte, (client, owner)) else { continue };
            if space == LockSpace::Record {
                had.push((at, before));
                if mode == LockMode::Read {
                    self.truth.set(byte, (client, owner), LockMode::Read, handle);
                }
            } else if before != mode {
                self.truth.let_go(client, owner);
            }
        }
        self.refusals.asks(self.moment, ino, space, Lock::of(client, lock));
        self.begin(node, number, Doing::Taking { op, had }, |ticket| Hears::Lock { ticket, op });
    }

    fn drop_range(&mut self, node: usize, number: usize, range: ByteRange, doing: Doing) {
        let program = &self.nodes[node].programs[number];
        let (client, ino, space, owner) =
            (self.nodes[node].core.client(), program.ino, program.space(), program.owner());
        for at in range.start..range.end.min(SPAN) {
            if let Some(of) = self.truth.held.get_mut(&(space, ino, at)) {
                of.remove(&(client, owner));
            }
        }
        let op = LockOp::Drop { ino, space, owner, range };
        self.begin(node, number, doing, |ticket| Hears::Lock { ticket, op });
    }

    /// A process' FLUSH ends its records; whatever is of an open file ends by RELEASE alone.
    fn ends(&mut self, node: usize, number: usize) {
        let program = self.nodes[node].programs[number].clone();
        self.truth.let_go(self.nodes[node].core.client(), program.owner());
        match program.number {
            0 if program.doing != Doing::Flushing => self.drop_range(node, number, ByteRange::ALL, Doing::Flushing),
            _ => {
                let request = Request::Release { ino: program.ino, handle: program.handle() };
                self.begin(node, number, Doing::Releasing, |ticket| Hears::Submit { ticket, request });
            }
        }
    }

    /// A program has its answer.
    pub(super) fn told(&mut self, node: usize, ticket: Ticket, result: Result<Reply, CallFailure>) {
        let client = self.nodes[node].core.client();
        let found = self.nodes[node].programs.iter().position(|p| p.ticket == ticket.0 && p.doing != Doing::Nothing);
        let Some(number) = found else { return };
        let program = &mut self.nodes[node].programs[number];
        let doing = std::mem::replace(&mut program.doing, Doing::Nothing);
        let (owner, handle, ino, space) = (program.owner(), program.handle(), program.ino, program.space());
        let (me, now) = (Owner { client, id: owner }, self.moment);
        match (doing, result) {
            (Doing::Opening, result) => program.open = result.is_ok(),
            (Doing::Taking { op: LockOp::Take { ino, space, lock, wait }, .. }, Ok(_)) => {
                program.unsure = false;
                self.refusals.given(now, me);
                self.count(if wait { "given after a wait" } else { "given" });
                for at in lock.range.start..lock.range.end.min(SPAN) {
                    self.truth.set((space, ino, at), (client, owner), lock.mode, handle);
                }
            }
            (Doing::Taking { op: LockOp::Take { ino, space, .. }, had }, Err(failure)) => {
                program.unsure = space == LockSpace::Whole && failure == CallFailure::Interrupted;
                for (at, mode) in had {
                    self.truth.set((space, ino, at), (client, owner), mode, handle);
                }
                if failure == CallFailure::Errno(Errno::AGAIN.raw_os_error()) {
                    let unexplained = self.refusals.refused(now, me);
                    self.truth.broken = self.truth.broken.take().or(unexplained);
                } else {
                    self.refusals.failed(now, me);
                }
                match failure {
                    CallFailure::Errno(e) if e == Errno::AGAIN.raw_os_error() => self.count("refused"),
                    CallFailure::Errno(e) if e == Errno::DEADLK.raw_os_error() => self.count("deadlock"),
                    CallFailure::Errno(e) => {
                        self.truth.broken.get_or_insert(format!("{client}: errno {e} for a lock"));
                    }
                    CallFailure::Interrupted | CallFailure::Expired | CallFailure::Evicted => {}
                }
            }
            (Doing::Dropping { range }, Ok(_)) => self.refusals.dropped(now, ino, space, me, range),
            (Doing::Flushing, Ok(_)) => {
                self.refusals.dropped(now, ino, LockSpace::Record, me, ByteRange::ALL);
                self.nodes[node].programs[number].doing = Doing::Flushing;
                self.ends(node, number);
            }
            (Doing::Releasing, Ok(_)) => {
                program.reborn();
                for space in [LockSpace::Record, LockSpace::Whole] {
                    self.refusals.dropped(now, ino, space, me, ByteRange::ALL);
                }
            }
            _ => {}
        }
    }

    /// A lock of the coordinator that its program was not told of, or the other way. Programs that are about something, or do
    /// not know, are left out.
    pub(super) fn disagreement(&self) -> Option<String> {
        let mut there: BTreeMap<Byte, BTreeMap<(ClientId, u64), LockMode>> = BTreeMap::new();
        for node in &self.nodes {
            let client = node.core.client();
            for PlacedLock { ino, space, lock } in self.coord.locks_of(client) {
                for at in lock.range.start..lock.range.end.min(SPAN) {
                    there.entry((space, ino, at)).or_default().insert((client, lock.owner), lock.mode);
                }
            }
        }
        let knows = |who: &(ClientId, u64)| {
            let node = self.nodes.iter().find(|n| n.core.client() == who.0);
            let program = node.and_then(|n| n.programs.iter().find(|p| p.owner() == who.1));
            program.is_none_or(|p| p.doing == Doing::Nothing && !p.unsure)
        };
        let bytes = there.keys().chain(self.truth.held.keys());
        bytes.copied().collect::<BTreeSet<Byte>>().into_iter().find_map(|byte| {
            let has = there.get(&byte).into_iter().flatten().map(|(who, mode)| (*who, *mode));
            let told = self.truth.held.get(&byte).into_iter().flatten().map(|(who, (mode, _))| (*who, *mode));
            let (has, told): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (has.filter(|(who, _)| knows(who)).collect(), told.filter(|(who, _)| knows(who)).collect());
            (has != told).then(|| format!("{byte:?}: the coordinator has {has:?}, told was {told:?}"))
        })
    }

    /// The incarnation of a node is over: handles that had a lock fail, others go on in the next.
    pub(super) fn poison(&mut self, node: usize, locked: &[HandleId]) {
        for program in self.nodes[node].programs.iter_mut().filter(|p| locked.contains(&p.handle())) {
            program.poisoned = true;
        }
    }
}
