//! A message of every kind, for tests of what comes off the wire.

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};
use serde::Serialize;

use super::*;

fn client() -> ClientId {
    ClientId { node: NodeId::new(2).expect("a node"), incarnation: Incarnation(7) }
}

fn extent() -> Extent {
    let (file, disk, len) = (FileBlock(3), DiskBlock(70_000), BlockCount(5));
    Extent { file, disk, len, state: ExtentState::Unwritten, shared: false }
}

fn attr() -> Attr {
    let t = Timestamp { secs: -1, nanos: 999_999_999 };
    let (ino, blocks) = (InodeNo(300), BlockCount(2));
    Attr {
        ino,
        mode: 0o100_644,
        nlink: 1,
        uid: 0,
        gid: 9,
        rdev: 0,
        size: 5000,
        blocks,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
    }
}

fn lock() -> OwnLock {
    let range = ByteRange { start: 100, end: 200 };
    OwnLock { owner: 300, handle: HandleId(7), pid: 9, range, mode: LockMode::Write }
}

fn hint() -> Option<CoordinatorHint> {
    Some(CoordinatorHint { epoch: Epoch(6), node: NodeId::new(3).expect("a node") })
}

fn lock_requests() -> Vec<LockRequest> {
    let (ino, space, lock, owner) = (InodeNo(300), LockSpace::Record, lock(), 300);
    let range = lock.range;
    let placed = PlacedLock { ino, space: LockSpace::Whole, lock };
    vec![
        LockRequest::Take { ino, space, lock, wait: Some(WaitId(4)), weaken: true },
        LockRequest::Test { ino, space, lock },
        LockRequest::Drop { ino, space, owner, range },
        LockRequest::Restore { ino, space, owner, range, held: vec![lock] },
        LockRequest::Forget { wait: WaitId(4) },
        LockRequest::Held { bind: Bind(1), locks: vec![placed, placed], last: true },
    ]
}

fn names() -> Vec<Request> {
    let (parent, name, ino) = (InodeNo::ROOT, b"name".to_vec(), InodeNo(300));
    let open = OpenRequest { handle: HandleId(7), flags: 2 };
    vec![
        Request::Lookup { parent, name: name.clone() },
        Request::Getattr { ino },
        Request::Readlink { ino },
        Request::Readdir { dir: parent, after: 2, max_bytes: 4096, plus: true },
        Request::Statfs,
        Request::Create {
            parent,
            name: name.clone(),
            mode: 0o100_644,
            umask: 0o22,
            rdev: 0,
            uid: 1,
            gid: 2,
            exclusive: true,
            open: Some(open),
        },
        Request::Symlink { parent, name: name.clone(), target: b"there".to_vec(), uid: 0, gid: 0 },
        Request::Link { ino, parent, name: name.clone() },
        Request::Unlink { parent, name: name.clone() },
        Request::Rmdir { parent, name: name.clone() },
        Request::Rename { parent, name, new_parent: parent, new_name: b"new".to_vec(), flags: 1 },
        Request::Open { ino, open },
        Request::Release { ino, handle: HandleId(7) },
    ]
}

/// Every kind of request.
pub(crate) fn requests() -> Vec<Request> {
    let ino = InodeNo(300);
    let (range, time) = (BlockRange::new(3, 200), Timestamp { secs: 5, nanos: 6 });
    let set =
        SetAttr { mode: Some(0o644), size: Some(100), mtime: Some(time), kill_capability: true, ..SetAttr::default() };
    let commit = CommitBody { extents: vec![extent()], size: Some(40_000), mtime: Some(time), sync: 2 };
    let ranges = vec![DiskRange { start: DiskBlock(70_000), len: BlockCount(3) }];
    let name = b"user.a".to_vec();
    let hints = Hints { extent_size: 4096, project: 3 };
    let mut all = names();
    all.extend([
        Request::Setattr { ino, set },
        Request::Fallocate { ino, offset: 100, len: 9000, keep_size: true },
        Request::LayoutGet { ino, range, want: Want::Exclusive },
        Request::Commit { ino, commit, give_back: vec![LayoutId(9)] },
        Request::Times { changes: vec![(ino, time)] },
        Request::Grant { blocks: BlockCount(100) },
        Request::PathLost { nothing_in_flight: true },
        Request::PathBack { fence_gen: FenceGen(4) },
        Request::Goodbye,
        Request::GrantReturn { ranges },
        Request::Clear(Clear { ino, range, into: ClearInto::Hole }),
        Request::Xattr(XattrCall::Get { ino, name: name.clone() }),
        Request::Xattr(XattrCall::List { ino }),
        Request::Xattr(XattrCall::Set { ino, name: name.clone(), value: vec![9; 3], flags: 1, kill_sgid: true }),
        Request::Xattr(XattrCall::Remove { ino, name }),
        Request::Hints(HintsCall::Get { ino }),
        Request::Hints(HintsCall::Set { ino, hints }),
    ]);
    all.extend(lock_requests().into_iter().map(Request::Locks));
    all
}

/// Everything that can be re-asserted.
pub(crate) fn reasserts() -> Vec<Reassert> {
    let (ino, handle, id, mode) = (InodeNo(300), HandleId(7), LayoutId(9), LayoutMode::Exclusive);
    let (range, slot) = (BlockRange::ALL, SlotRef { table: SlotTable::Return, index: 7 });
    vec![
        Reassert::Open { ino, handle, flags: 2 },
        Reassert::Layout { id, ino, range, mode, uncommitted: vec![extent()], size: Some(9), mtime: None },
        Reassert::Releasing { id, ino, range, mode, slot, seq: 3 },
        Reassert::Creating { handle, slot, seq: 3 },
        Reassert::LocksFollow,
    ]
}

fn replies() -> Vec<Reply> {
    let entry = DirEntry { ino: InodeNo(300), kind: 0o100_000, cookie: 3, name: b"name".to_vec(), attr: Some(attr()) };
    let grant = LayoutGrant {
        id: LayoutId(9),
        ino: InodeNo(300),
        range: BlockRange::ALL,
        mode: LayoutMode::Exclusive,
        extents: vec![extent()],
        size: 5000,
        kill_privilege: false,
        beside: vec![LayoutId(8)],
    };
    let holder = LockHolder { node: client().node, pid: 9, range: ByteRange::ALL, mode: LockMode::Read };
    let placed = PlacedLock { ino: InodeNo(300), space: LockSpace::Record, lock: lock() };
    vec![
        Reply::Done,
        Reply::Attr(attr()),
        Reply::Created { attr: attr(), opened: true },
        Reply::Target(b"there".to_vec()),
        Reply::Entries { entries: vec![entry], end: true },
        Reply::Space(Space { blocks: 9, free: 8, files: 7, files_free: 6 }),
        Reply::Layout(grant),
        Reply::Granted(vec![DiskRange { start: DiskBlock(70_000), len: BlockCount(3) }]),
        Reply::PathFenced { fence_gen: FenceGen(4) },
        Reply::Locks(LockReply::Waits),
        Reply::Locks(LockReply::InTheWay(Some(holder))),
        Reply::Locks(LockReply::Refused(vec![placed])),
        Reply::Cleared(FileBlock(9)),
        Reply::Bytes(vec![1, 2]),
        Reply::Hints { hints: Hints { extent_size: 4096, project: 3 }, extents: 2 },
    ]
}

/// Every kind of answer.
pub(crate) fn answers() -> Vec<Answer> {
    let others = [
        Answer::Errno(-5),
        Answer::StaleEpoch { hint: hint() },
        Answer::StaleBind,
        Answer::Evicted { reason: "why".into() },
        Answer::BadSequence { expected: 5 },
    ];
    replies().into_iter().map(Answer::Ok).chain(others).collect()
}

fn peers() -> (Vec<PeerAsk>, Vec<PeerAnswer>) {
    let (volume, epoch) = (VolumeId(1 << 100), Epoch(6));
    let hint = hint();
    let asks = vec![
        PeerAsk::Who { volume },
        PeerAsk::Alive { volume, epoch },
        PeerAsk::Fence { volume, client: client(), fence_gen: FenceGen(4) },
        PeerAsk::NewEpoch { volume, hint: hint.clone().expect("one") },
        PeerAsk::NoPath { volume, epoch },
        PeerAsk::TakeOffice { volume, epoch },
        PeerAsk::Node { body: vec![1, 2] },
        PeerAsk::Mark { volume, client: client(), number: 9 },
        PeerAsk::WrittenSince { volume, client: client(), mark: 9, spans: vec![(8192, 4096), (1 << 40, 512)] },
    ];
    let answers = vec![
        PeerAnswer::Who { hint },
        PeerAnswer::Alive { in_office: true, disk_stalled: false },
        PeerAnswer::Fenced,
        PeerAnswer::NotFenced { why: "why".into() },
        PeerAnswer::Noted,
        PeerAnswer::Node { body: vec![1, 2] },
        PeerAnswer::UnknownVolume,
        PeerAnswer::Written { spans: vec![(8192, 100)] },
    ];
    (asks, answers)
}

fn redirects() -> (Vec<Redirect>, Vec<RedirectAnswer>) {
    let (volume, bind, layout) = (VolumeId(1), Bind(2), LayoutId(9));
    let ask = |op| Redirect { volume, client: client(), bind, layout, op, at: 1 << 33, len: 4096 };
    let answers = vec![
        RedirectAnswer::Done { verifier: Verifier { epoch: Epoch(6), boot: 9, generation: 1 } },
        RedirectAnswer::Errno(5),
        RedirectAnswer::StaleEpoch { hint: None },
        RedirectAnswer::StaleBind,
        RedirectAnswer::NoLayout,
        RedirectAnswer::Evicted { reason: "why".into() },
        RedirectAnswer::PathNotFenced,
    ];
    ([RedirectOp::Read, RedirectOp::Write, RedirectOp::Flush].map(ask).to_vec(), answers)
}

fn callbacks() -> (Vec<Callback>, Vec<CallbackAnswer>) {
    let (ino, layout) = (InodeNo(300), LayoutId(9));
    let asks = [
        CallbackAsk::Recall { layout, ino },
        CallbackAsk::Sync { ino, number: 4 },
        CallbackAsk::RecallGrant,
        CallbackAsk::Progress,
        CallbackAsk::LockReady { wait: WaitId(4) },
        CallbackAsk::LockHeld { ino, space: LockSpace::Record, lock: lock() },
    ];
    let answers = vec![
        CallbackAnswer::Accepted,
        CallbackAnswer::Draining,
        CallbackAnswer::NotHeld,
        CallbackAnswer::WrongIncarnation,
    ];
    (asks.map(|ask| Callback { volume: VolumeId(1), client: client(), ask }).to_vec(), answers)
}

fn binds() -> (Vec<BindRequest>, Vec<BindAnswer>) {
    let request = |reassert| {
        let (volume, bind, fence_gen) = (VolumeId(1), Bind(2), FenceGen(3));
        BindRequest { volume, client: client(), bind, fence_gen, has_path: true, reassert }
    };
    let bound = BindAnswer::Bound {
        epoch: Epoch(6),
        grace: true,
        grants: vec![DiskRange { start: DiskBlock(70_000), len: BlockCount(3) }],
        refused: vec![LayoutId(9)],
        fence_gen: FenceGen(4),
        verifier: Verifier { epoch: Epoch(6), boot: 9, generation: 1 },
    };
    let reason = "why".into();
    let others = [BindAnswer::NotCoordinator { hint: hint() }, BindAnswer::Evicted { reason }, BindAnswer::Busy];
    let asks = [vec![], reasserts()].map(request);
    (asks.to_vec(), [bound].into_iter().chain(others).collect())
}

/// Names of the kinds of message, by number.
pub(crate) const KINDS: [&str; 10] = [
    "bind",
    "bind_answer",
    "call",
    "answer",
    "redirect",
    "redirect_answer",
    "callback",
    "callback_answer",
    "peer",
    "peer_answer",
];

/// Every message: the number of its kind, and its body.
pub(crate) fn messages() -> Vec<(u8, Vec<u8>)> {
    fn bodies<T: Serialize>(kind: u8, all: &[T]) -> Vec<(u8, Vec<u8>)> {
        all.iter().map(|one| (kind, postcard::to_stdvec(one).expect("fits into memory"))).collect()
    }
    let call = |request: Request| {
        let slot = SlotRef { table: request.table(), index: 3 };
        Call { volume: VolumeId(1), client: client(), bind: Bind(2), slot, seq: 5, request }
    };
    let calls: Vec<Call> = requests().into_iter().map(call).collect();
    let ((bind, bound), (redirect, redirected)) = (binds(), redirects());
    let ((callback, called), (peer, told)) = (callbacks(), peers());
    let asked = [bodies(0, &bind), bodies(2, &calls), bodies(4, &redirect), bodies(6, &callback), bodies(8, &peer)];
    let answered =
        [bodies(1, &bound), bodies(3, &answers()), bodies(5, &redirected), bodies(7, &called), bodies(9, &told)];
    asked.into_iter().chain(answered).flatten().collect()
}
