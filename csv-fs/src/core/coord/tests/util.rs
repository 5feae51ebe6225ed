//! A coordinator with clients that say what a test wants them to say, and a store that answers at once when asked to.

use std::time::Duration;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use crate::core::coord::*;
use crate::core::rules::Rules;
use crate::core::time::Now;
use crate::proto::*;

/// The file most tests are about.
pub(super) const INO: InodeNo = InodeNo(100);
/// The volume.
pub(super) const VOLUME: VolumeId = VolumeId(1);
/// The generation sessions start with.
pub(super) const GEN: FenceGen = FenceGen(3);

pub(super) const LIMITS: Limits = Limits {
    recall: Duration::from_secs(5),
    grace: Duration::from_secs(10),
    path_timeout: Duration::from_secs(3),
    fence: Duration::from_secs(10),
};

pub(super) fn client(node: u8) -> ClientId {
    ClientId { node: NodeId::new(node).unwrap(), incarnation: Incarnation(7) }
}

pub(super) fn ordinary(index: u8) -> SlotRef {
    SlotRef { table: SlotTable::Ordinary, index }
}

pub(super) fn returns(index: u8) -> SlotRef {
    SlotRef { table: SlotTable::Return, index }
}

pub(super) fn attr(ino: InodeNo, size: u64) -> Attr {
    let t = Timestamp::default();
    let blocks = BlockCount(size.div_ceil(FS_BLOCK));
    Attr {
        ino,
        mode: 0o100644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        blocks,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
    }
}

pub(super) fn live(c: ClientId) -> DurableSession {
    DurableSession {
        client: c,
        fence_gen: GEN,
        state: DurableState::Live,
        answers: Vec::new(),
        slot: Some(SlotSeen { incarnation: c.incarnation, fence_gen: GEN }),
        fate: Fate::Unknown,
        reason: String::new(),
    }
}

/// A coordinator under test.
pub(super) struct World {
    pub(super) coord: Coord,
    pub(super) now: Now,
    tags: u64,
    seqs: std::collections::BTreeMap<(ClientId, SlotRef), u64>,
    binds: std::collections::BTreeMap<ClientId, Bind>,
}

impl World {
    /// A new volume, served at once.
    pub(super) fn new() -> World {
        World::without(Rules::all())
    }

    pub(super) fn without(rules: Rules) -> World {
        let (world, effects) = World::inherit(Inherited::default(), rules);
        assert_eq!(
            effects,
            [Effect::Report(Report::GraceBegan { waiting_for: 0 }), Effect::Report(Report::GraceEnded)]
        );
        world
    }

    /// A takeover.
    pub(super) fn inherit(inherited: Inherited, rules: Rules) -> (World, Vec<Effect>) {
        let epoch = Epoch(5);
        let verifier = Verifier { epoch, boot: 9, generation: 0 };
        let coord = Coord::new(CoordConfig { epoch, verifier, limits: LIMITS }, rules);
        let mut world = World { coord, now: Now(1000), tags: 0, seqs: Default::default(), binds: Default::default() };
        let effects = world.event(Event::Start(inherited));
        (world, effects)
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.coord.handle(self.now, event, &mut out);
        out
    }

    /// Lets time pass and ticks.
    pub(super) fn pass(&mut self, d: Duration) -> Vec<Effect> {
        let end = self.now + d;
        let mut effects = Vec::new();
        while let Some(due) = self.coord.next_deadline().filter(|due| *due < end) {
            assert!(due > self.now || effects.is_empty(), "it is called for what it has just looked at");
            self.now = self.now.max(due);
            effects.extend(self.event(Event::Tick));
        }
        self.now = end;
        effects.extend(self.event(Event::Tick));
        effects
    }

    /// The node does not run for a while; its clock is the first that goes on.
    pub(super) fn stand_still(&mut self, d: Duration) -> Vec<Effect> {
        self.now = self.now + d;
        self.event(Event::Tick)
    }

    pub(super) fn next_tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    pub(super) fn bind_request(&mut self, c: ClientId, reassert: Vec<Reassert>) -> BindRequest {
        let bind = self.binds.entry(c).or_default();
        bind.0 += 1;
        BindRequest { volume: VOLUME, client: c, bind: *bind, fence_gen: GEN, has_path: true, reassert }
    }

    /// Sends a bind over connection `1000 + node`; the effects as they come, nothing answered by the store.
    pub(super) fn send_bind(&mut self, c: ClientId, reassert: Vec<Reassert>) -> (Tag, Vec<Effect>) {
        let request = self.bind_request(c, reassert);
        let tag = self.next_tag();
        let conn = ConnId(1000 + u64::from(c.node.get()));
        let effects = self.event(Event::Bind { tag, conn, request });
        (tag, effects)
    }

    /// Binds, the store agreeing, and returns everything after the store's answer.
    pub(super) fn bind_with(&mut self, c: ClientId, reassert: Vec<Reassert>) -> Vec<Effect> {
        let (_, effects) = self.send_bind(c, reassert);
        let [Effect::Store { op, ask: StoreAsk::Session { .. } }] = effects[..] else { panic!("{effects:?}") };
        self.event(Event::StoreDone { op, done: StoreDone::Session { grants: vec![], outside: None } })
    }

    pub(super) fn bind(&mut self, c: ClientId) {
        let effects = self.bind_with(c, vec![]);
        let answer = effects.iter().find(|e| matches!(e, Effect::AnswerBind { .. }));
        assert!(matches!(answer, Some(Effect::AnswerBind { answer: BindAnswer::Bound { .. }, .. })), "{effects:?}");
    }

    /// Sends a call in a slot with its next sequence.
    pub(super) fn call_in(&mut self, c: ClientId, slot: SlotRef, request: Request) -> (Tag, Vec<Effect>) {
        let seq = self.seqs.entry((c, slot)).or_default();
        *seq += 1;
        let seq = *seq;
        self.call_as(c, slot, seq, request)
    }

    pub(super) fn call_as(&mut self, c: ClientId, slot: SlotRef, seq: u64, request: Request) -> (Tag, Vec<Effect>) {
        let bind = self.binds[&c];
        let tag = self.next_tag();
        let call = Call { volume: VOLUME, client: c, bind, slot, seq, request };
        (tag, self.event(Event::Call { tag, call }))
    }

    /// Sends a call in slot 0 of its table.
    pub(super) fn call(&mut self, c: ClientId, request: Request) -> (Tag, Vec<Effect>) {
        let slot = SlotRef { table: request.table(), index: 0 };
        self.call_in(c, slot, request)
    }

    /// Gets a layout over `range` of [`INO`], the store showing `extents` and `size`; nobody in the way.
    pub(super) fn layout(&mut self, c: ClientId, range: BlockRange, want: Want, size: u64) -> LayoutGrant {
        let (tag, mut effects) = self.call(c, Request::LayoutGet { ino: INO, range, want });
        loop {
            let [Effect::Read { op, ask: ReadAsk::Layout { range, .. } }] = effects[..] else { panic!("{effects:?}") };
            let written = Extent {
                file: FileBlock(0),
                disk: DiskBlock(5000),
                len: BlockCount(size / FS_BLOCK),
                state: ExtentState::Written,
                shared: false,
            };
            let extents = if written.len.0 > 0 { vec![written] } else { vec![] };
            let facts = LayoutFacts { extents, told_to: range.end, size, kill_privilege: false };
            effects = self.event(Event::ReadDone { op, done: ReadDone::Layout(facts) });
            if let [Effect::Answer { tag: t, answer: Answer::Ok(Reply::Layout(grant)) }] = &effects[..] {
                assert_eq!(*t, tag);
                return grant.clone();
            }
        }
    }

    /// Gives layouts back, without a body.
    pub(super) fn give_back(&mut self, c: ClientId, layouts: &[LayoutId]) -> (Tag, Vec<Effect>) {
        self.call(c, Request::Commit { ino: INO, commit: CommitBody::default(), give_back: layouts.to_vec() })
    }

    pub(super) fn redirect(
        &mut self,
        c: ClientId,
        layout: LayoutId,
        op: RedirectOp,
    ) -> Result<GuardId, RedirectAnswer> {
        let bind = self.binds[&c];
        self.coord.redirect_begin(&Redirect { volume: VOLUME, client: c, bind, layout, op, at: 0, len: 4096 })
    }

    /// Has a client's path fenced.
    pub(super) fn fence_path(&mut self, c: ClientId) {
        let (tag, effects) = self.call(c, Request::PathLost { nothing_in_flight: true });
        assert_eq!(effects, [Effect::Fence { client: c, purpose: FencePurpose::Path }]);
        let fence_gen = FenceGen(GEN.0 + 1);
        let effects = self.event(Event::FenceDone { client: c, purpose: FencePurpose::Path, result: Ok(fence_gen) });
        let [Effect::Store { op, ask: StoreAsk::PathFenced { .. } }] = effects[..] else { panic!("{effects:?}") };
        let effects = self.event(Event::StoreDone { op, done: StoreDone::Done });
        assert_eq!(
            effects,
            [Effect::Report(Report::PathFenced { client: c }), ok(tag, Reply::PathFenced { fence_gen })]
        );
    }

    /// Runs an eviction that was just begun with `effects` to its end; what its end brought about.
    pub(super) fn finish_eviction(&mut self, c: ClientId, why: EvictReason, effects: &[Effect]) -> Vec<Effect> {
        let op = effects.iter().find_map(|e| match e {
            Effect::Store { op, ask: StoreAsk::Evicting { client, why: w } } if *client == c && *w == why => Some(*op),
            _ => None,
        });
        let op = op.unwrap_or_else(|| panic!("no eviction of {c}: {effects:?}"));
        let effects = self.event(Event::StoreDone { op, done: StoreDone::Done });
        assert_eq!(effects, [Effect::Fence { client: c, purpose: FencePurpose::Eviction }]);
        self.fenced(c, why)
    }

    /// The eviction's fence succeeds, and the store commits.
    pub(super) fn fenced(&mut self, client: ClientId, why: EvictReason) -> Vec<Effect> {
        let fence_gen = FenceGen(8);
        let purpose = FencePurpose::Eviction;
        let effects = self.event(Event::FenceDone { client, purpose, result: Ok(fence_gen) });
        let [Effect::Store { op, ref ask }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(*ask, StoreAsk::Evicted { client, fence_gen, why });
        self.event(Event::StoreDone { op, done: StoreDone::Done })
    }
}

pub(super) fn ok(tag: Tag, reply: Reply) -> Effect {
    Effect::Answer { tag, answer: Answer::Ok(reply) }
}

pub(super) fn done(tag: Tag) -> Effect {
    ok(tag, Reply::Done)
}

pub(super) fn failed(tag: Tag, e: rustix::io::Errno) -> Effect {
    Effect::Answer { tag, answer: Answer::Errno(e.raw_os_error()) }
}

pub(super) fn store_op(effects: &[Effect]) -> OpId {
    let found = effects.iter().find_map(|e| match e {
        Effect::Store { op, .. } => Some(*op),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no change of the store in {effects:?}"))
}

pub(super) fn read_op(effects: &[Effect]) -> OpId {
    let found = effects.iter().find_map(|e| match e {
        Effect::Read { op, .. } => Some(*op),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no read of the store in {effects:?}"))
}

pub(super) fn stored(answer: Answer) -> StoreDone {
    StoreDone::Request { answer, orphaned: vec![], truncated: None }
}

pub(super) fn callback(effects: &[Effect]) -> (CallbackId, ClientId, CallbackAsk) {
    let found = effects.iter().find_map(|e| match e {
        Effect::Callback { id, client, ask, .. } => Some((*id, *client, ask.clone())),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no callback in {effects:?}"))
}

pub(super) fn mkdir(name: &str) -> Request {
    Request::Create {
        parent: InodeNo::ROOT,
        name: name.into(),
        mode: 0o040755,
        umask: 0,
        rdev: 0,
        uid: 0,
        gid: 0,
        exclusive: true,
        open: None,
    }
}
