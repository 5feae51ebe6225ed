//! Facts about the contents of files: sizes, mappings, grants, space.

use rustix::io::Errno;

use super::*;
use crate::proto::{Clear, ClearInto, CommitBody, SetAttr};

const ROOT: InodeNo = InodeNo::ROOT;

fn size(n: u64) -> SetAttr {
    SetAttr { size: Some(n), ..SetAttr::default() }
}

fn written(file: u64, disk: u64, len: u64) -> Extent {
    Extent {
        file: FileBlock(file),
        disk: DiskBlock(disk),
        len: BlockCount(len),
        state: ExtentState::Written,
        shared: false,
    }
}

fn commit(extents: &[Extent], size: Option<u64>) -> CommitBody {
    CommitBody { extents: extents.to_vec(), size, mtime: Some(LATER), ..CommitBody::default() }
}

fn grant(f: &Fixture, who: ClientId, blocks: u64) -> DiskRange {
    f.session(who);
    let ranges = f.run(|ops| ops.grant(who, BlockCount(blocks)));
    assert_eq!(ranges.len(), 1, "an empty volume has long runs");
    ranges[0]
}

#[test]
fn committed_mapping_is_there_after_a_crash() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 100).start.0;
    let attr = f.run_at(LATER, |ops| {
        ops.commit_mappings(who, a, &commit(&[written(0, run, 8), written(16, run + 8, 2)], Some(70_000)))
    });
    assert_eq!((attr.size, attr.blocks, attr.mtime, attr.ctime), (70_000, BlockCount(10), LATER, LATER));
    let f = f.killed();
    let extents = f.view().extents(a, BlockRange::ALL).expect("readable");
    assert_eq!(extents, [written(0, run, 8), written(16, run + 8, 2)]);
    assert_eq!(
        f.view().extents(a, BlockRange::new(4, 17)).expect("readable"),
        [written(4, run + 4, 4), written(16, run + 8, 1)]
    );
    assert_eq!(f.view().grants(who).expect("readable")[0].len, BlockCount(90));
    f.must_be_clean();
}

#[test]
fn repeated_commit_changes_nothing_more() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 100).start.0;
    let body = commit(&[written(0, run, 8)], Some(5));
    f.run(|ops| ops.commit_mappings(who, a, &body));
    let before = f.attr(a);
    f.run_at(LATER, |ops| ops.commit_mappings(who, a, &body));
    f.run_at(LATER, |ops| ops.commit_mappings(who, a, &CommitBody::default()));
    assert_eq!(f.attr(a), before);
    f.must_be_clean();
}

#[test]
fn neighbours_are_joined_up_to_a_gigabyte() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 200).start.0;
    for i in [0, 2, 1, 3] {
        f.run(|ops| ops.commit_mappings(who, a, &commit(&[written(i, run + i, 1)], None)));
    }
    assert_eq!(f.view().extents(a, BlockRange::ALL).expect("readable"), [written(0, run, 4)]);
    assert_eq!(f.must_be_clean().extents, 1);
}

#[test]
fn claims_outside_the_grant_are_contradictions() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 100).start.0;
    let other = grant(&f, client(2), 100).start.0;
    f.run(|ops| ops.commit_mappings(who, a, &commit(&[written(0, run, 4)], None)));
    let bad = [
        vec![written(10, other, 1)],
        vec![written(10, run + 99, 2)],
        vec![written(0, run + 10, 1)],
        vec![written(10, run + 1, 1)],
        vec![written(10, run + 10, 2), written(11, run + 20, 1)],
        vec![written(10, run + 10, 2), written(20, run + 11, 1)],
        vec![written(10, run + 10, 0)],
        vec![written(u64::MAX, run + 10, 1)],
        vec![written(10, u64::MAX, 1)],
    ];
    for extents in bad {
        let e = f.fails(|ops| ops.commit_mappings(who, a, &commit(&extents, Some(1 << 30))));
        assert!(matches!(e, MetaError::Contradiction(_)), "{extents:?}: {e}");
    }
    assert_eq!(f.attr(a).size, 0);
    f.must_be_clean();
}

#[test]
fn fallocated_space_is_unwritten_until_committed() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    f.session(who);
    let attr = f.run_at(LATER, |ops| ops.fallocate(a, 4096, 10 * 4096, false));
    assert_eq!((attr.size, attr.blocks, attr.mtime), (11 * 4096, BlockCount(10), LATER));
    let extents = f.view().extents(a, BlockRange::ALL).expect("readable");
    assert_eq!((extents.len(), extents[0].state, extents[0].file), (1, ExtentState::Unwritten, FileBlock(1)));
    let disk = extents[0].disk.0;
    f.run(|ops| ops.commit_mappings(who, a, &commit(&[written(3, disk + 2, 2)], None)));
    let states: Vec<_> =
        f.view().extents(a, BlockRange::ALL).expect("readable").iter().map(|e| (e.file.0, e.len.0, e.state)).collect();
    assert_eq!(states, [(1, 2, ExtentState::Unwritten), (3, 2, ExtentState::Written), (5, 6, ExtentState::Unwritten)]);
    // Unwritten never comes back over written.
    f.run(|ops| {
        ops.commit_mappings(
            who,
            a,
            &commit(&[Extent { state: ExtentState::Unwritten, ..written(3, disk + 2, 2) }], None),
        )
    });
    assert_eq!(f.view().extents(a, BlockRange::new(3, 5)).expect("readable")[0].state, ExtentState::Written);
    f.run(|ops| ops.fallocate(a, 0, 20 * 4096, true));
    assert_eq!((f.attr(a).size, f.attr(a).blocks), (11 * 4096, BlockCount(20)));
    f.must_be_clean();
}

#[test]
fn no_space_is_said_exactly() {
    let f = Fixture::new();
    let (a, b) = (f.file("a"), f.file("b"));
    let free = f.view().statfs().expect("readable").free;
    assert_eq!(f.errno(|ops| ops.fallocate(a, 0, (free + 1) * FS_BLOCK, false)), errno(Errno::NOSPC));
    assert_eq!(f.attr(a).blocks, BlockCount(0));
    f.run(|ops| ops.fallocate(a, 0, (free - 5) * FS_BLOCK, false));
    f.run(|ops| ops.fallocate(b, 0, 5 * FS_BLOCK, false));
    assert_eq!(f.view().statfs().expect("readable").free, 0);
    assert_eq!(f.errno(|ops| ops.fallocate(b, 5 * FS_BLOCK, 1, false)), errno(Errno::NOSPC));
    f.session(client(1));
    assert_eq!(f.errno(|ops| ops.grant(client(1), BlockCount(1))), errno(Errno::NOSPC));
    f.must_be_clean();
    f.run(|ops| ops.unlink(ROOT, b"b", &never));
    assert_eq!(f.run(|ops| ops.grant(client(1), BlockCount(100)))[0].len, BlockCount(5));
    f.must_be_clean();
}

#[test]
fn wrong_fallocates_are_refused() {
    let f = Fixture::new();
    let a = f.file("a");
    assert_eq!(f.errno(|ops| ops.fallocate(a, 0, 0, false)), errno(Errno::INVAL));
    assert_eq!(f.errno(|ops| ops.fallocate(a, u64::MAX, 2, false)), errno(Errno::FBIG));
    assert_eq!(f.errno(|ops| ops.fallocate(a, 1 << 62, 1 << 62, false)), errno(Errno::FBIG));
    assert_eq!(f.errno(|ops| ops.fallocate(ROOT, 0, 1, false)), errno(Errno::ISDIR));
}

#[test]
fn shorter_file_frees_its_blocks() {
    let f = Fixture::new();
    let a = f.file("a");
    let free = f.view().statfs().expect("readable").free;
    f.run(|ops| ops.fallocate(a, 0, 100 * FS_BLOCK, false));
    let attr = f.run_at(LATER, |ops| ops.setattr(a, &size(4097)));
    assert_eq!((attr.size, attr.blocks, attr.mtime, attr.ctime), (4097, BlockCount(2), LATER, LATER));
    assert_eq!(f.view().statfs().expect("readable").free, free - 2);
    f.run(|ops| ops.setattr(a, &size(1 << 40)));
    assert_eq!(f.attr(a).blocks, BlockCount(2));
    assert_eq!(f.errno(|ops| ops.setattr(a, &size(u64::MAX))), errno(Errno::FBIG));
    assert_eq!(f.errno(|ops| ops.setattr(ROOT, &size(0))), errno(Errno::ISDIR));
    f.must_be_clean();
}

#[test]
fn rest_of_the_last_block_is_named_for_zeroing() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 100).start;
    assert_eq!(f.view().tail(a).expect("readable"), None);
    f.run(|ops| ops.commit_mappings(who, a, &commit(&[written(0, run.0, 1)], Some(100))));
    assert_eq!(f.view().tail(a).expect("readable"), Some(Tail { disk: run, from: 100 }));
    f.run(|ops| ops.setattr(a, &size(8192)));
    assert_eq!(f.view().tail(a).expect("readable"), None);
}

/// A file of single-block extents, with a hole after each.
fn shredded(f: &Fixture, name: &str, extents: u64) -> InodeNo {
    let (ino, who) = (f.file(name), client(9));
    f.session(who);
    let runs = f.run(|ops| ops.grant(who, BlockCount(extents)));
    let blocks = runs.iter().flat_map(|r| r.start.0..r.start.0 + r.len.0);
    let pieces: Vec<_> = blocks.zip(0..).map(|(disk, i)| written(i * 2, disk, 1)).collect();
    assert_eq!(pieces.len() as u64, extents);
    f.run(|ops| ops.commit_mappings(who, ino, &commit(&pieces, Some(extents * 2 * FS_BLOCK))));
    ino
}

#[test]
fn huge_file_is_freed_in_steps_that_survive_crashes() {
    let f = Fixture::new();
    let ino = shredded(&f, "a", 3000);
    assert_eq!(f.run(|ops| ops.unlink(ROOT, b"a", &never)), Gone::Orphan(ino));
    let mut f = f.killed();
    let mut steps = 0;
    while f.run(|ops| ops.reap(ino)) == Reaped::More {
        steps += 1;
        f = f.killed();
        f.must_be_clean();
    }
    assert!((1..=4).contains(&steps), "{steps} steps");
    assert_eq!(f.must_be_clean().mapped, 0);
}

#[test]
fn cut_off_tail_never_shows_again() {
    let f = Fixture::new();
    let ino = shredded(&f, "a", 3000);
    f.run(|ops| ops.setattr(ino, &size(FS_BLOCK)));
    assert_eq!(f.view().orphans().expect("readable"), [(ino, OrphanKind::Truncated)]);
    assert_eq!(f.view().extents(ino, BlockRange::ALL).expect("readable").len(), 1);
    f.must_be_clean();
    let f = f.killed();
    f.run(|ops| ops.setattr(ino, &size(1 << 30)));
    assert_eq!(f.view().extents(ino, BlockRange::ALL).expect("readable").len(), 1);
    assert_eq!(f.view().orphans().expect("readable"), []);
    assert_eq!(f.must_be_clean().mapped, 1);
}

#[test]
fn cut_off_tail_of_an_unlinked_file_goes_with_it() {
    let f = Fixture::new();
    let ino = shredded(&f, "a", 3000);
    f.run(|ops| ops.unlink(ROOT, b"a", &|_| true));
    f.run(|ops| ops.setattr(ino, &size(0)));
    while f.run(|ops| ops.reap(ino)) == Reaped::More {}
    assert_eq!(f.view().orphans().expect("readable"), []);
    assert_eq!(f.must_be_clean().inodes, 1);
}

#[test]
fn grants_are_bounded_returned_and_dropped_with_the_session() {
    let f = Fixture::new();
    let who = client(1);
    f.session(who);
    let free = f.view().statfs().expect("readable").free;
    let got: u64 = f.run(|ops| ops.grant(who, BlockCount(u64::MAX / 2))).iter().map(|r| r.len.0).sum();
    assert!(got <= free / 24 + 1 && got > 1000, "{got} of {free}");
    assert_eq!(f.view().statfs().expect("readable").free, free, "granted space is still free");
    let range = f.view().grants(who).expect("readable")[0];
    let part = DiskRange { start: DiskBlock(range.start.0 + 5), len: BlockCount(10) };
    f.run(|ops| ops.return_grant(who, &[part]));
    assert!(matches!(f.fails(|ops| ops.return_grant(who, &[part])), MetaError::Contradiction(_)));
    assert!(matches!(f.fails(|ops| ops.return_grant(client(2), &[range])), MetaError::Contradiction(_)));
    f.must_be_clean();
    f.run(|ops| ops.end_session(who));
    assert_eq!(f.must_be_clean().granted, 0);
}

#[test]
fn eviction_keeps_the_row_and_takes_the_rest() {
    let f = Fixture::new();
    let who = client(1);
    grant(&f, who, 100);
    let slot = SlotRef { table: SlotTable::Return, index: 7 };
    let answer = crate::proto::Answer::Errno(5);
    f.run(|ops| ops.put_answer(who, slot, 41, &crate::proto::Answer::StaleBind));
    f.run(|ops| ops.put_answer(who, slot, 42, &answer));
    assert_eq!(f.view().answers(who).expect("readable"), [StoredAnswer { slot, seq: 42, answer }]);
    f.run(|ops| ops.begin_eviction(who, "no answer to a recall"));
    let f = f.killed();
    assert!(
        matches!(&f.view().sessions().expect("readable")[0].state, SessionState::Evicting { reason } if reason.contains("recall"))
    );
    f.slot(who, FenceGen(4));
    f.run(|ops| ops.finish_eviction(who, FenceGen(4)));
    let row = f.view().sessions().expect("readable").remove(0);
    assert!(matches!(&row.state, SessionState::Evicted { reason } if reason.contains("recall")));
    assert_eq!((row.fence_gen, f.view().answers(who).expect("readable").len()), (FenceGen(4), 0));
    assert_eq!(f.must_be_clean().granted, 0);
}

#[test]
fn times_of_in_place_writes_only_move_forward() {
    let f = Fixture::new();
    let a = f.file("a");
    let gone = InodeNo(999);
    f.run(|ops| ops.times(&[(a, LATER), (gone, LATER)]));
    f.run(|ops| ops.times(&[(a, NOW)]));
    assert_eq!((f.attr(a).mtime, f.attr(a).ctime), (LATER, LATER));
}

#[test]
fn setattr_keeps_the_type_and_clears_privilege() {
    let f = Fixture::new();
    let a = f.create(ROOT, "a", 0o106_755);
    let attr =
        f.run(|ops| ops.setattr(a, &SetAttr { mode: Some(0o040_711 | 0o6000), uid: Some(5), ..SetAttr::default() }));
    assert_eq!((attr.mode, attr.uid), (0o106_711, 5));
    let attr = f.run(|ops| ops.setattr(a, &SetAttr { kill_suid_sgid: true, ..SetAttr::default() }));
    assert_eq!(attr.mode, 0o100_711);
}

fn clear(f: &Fixture, ino: InodeNo, range: BlockRange, into: ClearInto) -> FileBlock {
    f.run_at(LATER, |ops| ops.clear(&Clear { ino, range, into }))
}

#[test]
fn a_hole_gives_its_blocks_back_and_a_zeroed_range_keeps_them() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 100).start.0;
    f.run(|ops| ops.commit_mappings(who, a, &commit(&[written(0, run, 20)], Some(20 * FS_BLOCK))));
    let free = f.view().statfs().expect("readable").free;
    assert_eq!(clear(&f, a, BlockRange::new(4, 8), ClearInto::Hole), FileBlock(8));
    assert_eq!(clear(&f, a, BlockRange::new(10, 12), ClearInto::Unwritten), FileBlock(12));
    let unwritten = Extent { state: ExtentState::Unwritten, ..written(10, run + 10, 2) };
    let expected = [written(0, run, 4), written(8, run + 8, 2), unwritten, written(12, run + 12, 8)];
    let f = f.killed();
    assert_eq!(f.view().extents(a, BlockRange::ALL).expect("readable"), expected);
    assert_eq!(f.view().statfs().expect("readable").free, free + 4);
    let attr = f.attr(a);
    assert_eq!((attr.blocks, attr.size, attr.mtime, attr.ctime), (BlockCount(16), 20 * FS_BLOCK, LATER, LATER));
    assert_eq!(
        f.errno(|ops| ops.clear(&Clear { ino: ROOT, range: BlockRange::ALL, into: ClearInto::Hole })),
        errno(Errno::INVAL)
    );
    f.must_be_clean();
}

#[test]
fn a_hole_through_many_extents_is_made_in_bounded_steps() {
    let f = Fixture::new();
    let (a, who) = (f.file("a"), client(1));
    let run = grant(&f, who, 3000).start.0;
    // Every other block, so that no two extents join.
    let pieces: Vec<Extent> = (0..1500).map(|i| written(2 * i, run + 2 * i, 1)).collect();
    f.run(|ops| ops.commit_mappings(who, a, &commit(&pieces, Some(3000 * FS_BLOCK))));
    let range = BlockRange::ALL;
    let upto = clear(&f, a, range, ClearInto::Hole);
    assert_eq!((upto, f.attr(a).blocks), (FileBlock(2047), BlockCount(1500 - 1024)));
    let rest = BlockRange { start: upto, end: range.end };
    assert_eq!((clear(&f, a, rest, ClearInto::Hole), f.attr(a).blocks), (range.end, BlockCount(0)));
    f.must_be_clean();
}
