use super::*;

fn written(file: u64, disk: u64, len: u64) -> Extent {
    Extent {
        file: FileBlock(file),
        disk: DiskBlock(disk),
        len: BlockCount(len),
        state: ExtentState::Written,
        shared: false,
    }
}

fn unwritten(file: u64, disk: u64, len: u64) -> Extent {
    Extent { state: ExtentState::Unwritten, ..written(file, disk, len) }
}

#[test]
fn pieces_cover_the_range_with_holes_between_extents() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[written(2, 100, 2), unwritten(6, 200, 1)], Some(40960), &[]);
    let kinds: Vec<(u64, u64, Kind)> =
        map.pieces(BlockRange::new(1, 8)).iter().map(|p| (p.range.start.0, p.range.end.0, p.kind)).collect();
    let at = |disk| DiskBlock(disk);
    assert_eq!(
        kinds,
        vec![
            (1, 2, Kind::Hole),
            (2, 4, Kind::Written { disk: at(100), shared: false }),
            (4, 6, Kind::Hole),
            (6, 7, Kind::Unwritten { disk: at(200), shared: false }),
            (7, 8, Kind::Hole),
        ]
    );
    assert_eq!(
        map.pieces(BlockRange::new(3, 4)),
        vec![Piece { range: BlockRange::new(3, 4), kind: Kind::Written { disk: at(101), shared: false } }]
    );
}

#[test]
fn a_grant_does_not_undo_what_was_mapped_under_an_exclusive_layout() {
    let mut map = FileMap::new();
    map.merge(BlockRange::new(0, 10), &[], Some(0), &[]);
    map.wrote(&[written(0, 500, 3)]);
    map.merge(BlockRange::ALL, &[written(20, 700, 1)], None, &[BlockRange::new(0, 10)]);
    assert_eq!(map.in_place(), vec![written(0, 500, 3), written(20, 700, 1)]);
}

#[test]
fn what_was_written_after_the_body_was_made_stays_uncommitted() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[], Some(0), &[]);
    map.wrote(&[written(0, 500, 2)]);
    map.grew(8192);
    let body = map.commit_body(1000, 0);
    assert_eq!((body.extents.clone(), body.size), (vec![written(0, 500, 2)], Some(8192)));
    map.wrote(&[written(2, 502, 1)]);
    map.grew(12288);
    map.committed(&body);
    assert_eq!(map.uncommitted(BlockRange::ALL), vec![written(2, 502, 1)]);
    assert_eq!(map.dirty_size(), Some(12288));
    let body = map.commit_body(1000, 0);
    map.committed(&body);
    assert!(!map.is_dirty());
}

/// A file with more uncommitted extents than go into one commit was looked at by another node: the first part named the
/// sync, the coordinator took it for the answer, and the file seemed as short as before.
#[test]
fn the_length_and_the_sync_go_with_the_last_part_of_a_long_commit() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[], Some(0), &[]);
    map.wrote(&[written(0, 10, 1), written(1, 20, 1), written(2, 30, 1)]);
    map.grew(12288);
    let first = map.commit_body(2, 7);
    assert_eq!((first.extents.len(), first.size, first.sync), (2, None, 0));
    map.committed(&first);
    let second = map.commit_body(2, 7);
    assert_eq!((second.extents.len(), second.size, second.sync), (1, Some(12288), 7));
}

#[test]
fn adjacent_runs_merge_and_a_rewrite_splits() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[unwritten(0, 100, 8)], Some(32768), &[]);
    map.wrote(&[written(2, 102, 1)]);
    map.wrote(&[written(3, 103, 1)]);
    assert_eq!(map.extents(), 3);
    assert_eq!(map.uncommitted(BlockRange::ALL), vec![written(2, 102, 2)]);
    assert_eq!(map.pieces(BlockRange::new(4, 5))[0].kind, Kind::Unwritten { disk: DiskBlock(104), shared: false });
}

#[test]
fn outside_the_held_ranges_nothing_is_known() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[written(0, 100, 10)], Some(40960), &[]);
    map.keep_only(&[BlockRange::new(4, 6)]);
    assert_eq!(map.in_place(), vec![written(4, 104, 2)]);
}

/// Found by the simulation: an exclusive layout of block 5 was held when a shared one of blocks 0 to 2 came, and one
/// extent reached from before both into the first. What the two ranges "share" begins after its end, and the length
/// of the slice wrapped around.
#[test]
fn a_grant_beside_an_exclusive_range_keeps_what_lies_between_apart() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[written(0, 100, 8)], Some(32768), &[]);
    map.merge(BlockRange::new(0, 2), &[written(0, 100, 2)], None, &[BlockRange::new(5, 6)]);
    assert_eq!(map.in_place(), vec![written(0, 100, 8)]);
}

#[test]
fn what_was_lost_before_a_commit_covered_it_is_no_part_of_the_file() {
    let mut map = FileMap::new();
    map.merge(BlockRange::ALL, &[written(0, 100, 2), unwritten(2, 102, 2)], Some(8192), &[]);
    map.wrote(&[written(2, 102, 1), written(4, 500, 2)]);
    map.grew(6 * 4096);
    map.forget_uncommitted();
    assert!(!map.is_dirty());
    assert_eq!((map.size(), map.new_blocks()), (8192, 0));
    assert_eq!(map.in_place(), vec![written(0, 100, 2)]);
    let kinds: Vec<Kind> = map.pieces(BlockRange::new(2, 6)).iter().map(|p| p.kind).collect();
    let reserved = |disk| Kind::Unwritten { disk: DiskBlock(disk), shared: false };
    assert!(matches!(kinds[..], [a, .., Kind::Hole] if a == reserved(102)), "{kinds:?}");
}
