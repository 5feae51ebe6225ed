//! The table: rules in their order, each a condition and what follows. First match wins.

use super::{Pair, Rule, Verdict};
use crate::ids::Generation;
use crate::meta::superblock::DiskState;

type Row = (Rule, fn(Pair<'_>) -> Option<Verdict>);

/// Whatever the generations are.
const ALWAYS: &[Row] = &[
    (Rule::InitialHandshakeChanged, |p| (p.me.changed || p.peer.changed).then_some(Verdict::Retry)),
    (Rule::JustCreatedBoth, |p| (fresh(p.me.current) && fresh(p.peer.current)).then_some(Verdict::NoSync)),
    (Rule::JustCreatedSelf, |p| fresh(p.me.current).then_some(Verdict::Target { full: true })),
    (Rule::JustCreatedPeer, |p| fresh(p.peer.current).then_some(Verdict::Source { full: true })),
];

/// Both are of the same generation. That does not say that they are equal.
const EQUAL: &[Row] = &[
    (Rule::SyncSourceMissedFinish, |p| {
        (p.me.bitmap.is_some() && !p.peer.bitmap.is_some() && !bereft(p)).then(|| p.unless_one_lives(p.source_if(true)))
    }),
    (Rule::SyncPeerMissedFinish, |p| {
        (p.peer.bitmap.is_some() && !p.me.bitmap.is_some() && !bereft(p))
            .then(|| p.unless_one_lives(p.source_if(false)))
    }),
    (Rule::LostCache, |p| kept_cache(p).filter(|_| !p.policy.unconfirmed)),
    (Rule::Reconnected, |p| (p.me.reconnect && p.peer.reconnect).then_some(Verdict::NoSync)),
    (Rule::CrashedPrimary, |p| {
        let one = p.me.crashed_primary != p.peer.crashed_primary;
        (p.policy.unconfirmed && one).then(|| p.source_if(p.me.crashed_primary))
    }),
    (Rule::LostQuorum, |p| {
        let one = p.me.lost_quorum != p.peer.lost_quorum;
        one.then(|| p.unless_one_lives(p.source_if(p.me.lost_quorum)))
    }),
    (Rule::LostQuorumBoth, |p| (p.me.lost_quorum && p.peer.lost_quorum).then(|| p.unless_one_lives(p.tie()))),
    (Rule::PostCrash, |p| {
        let mine = p.peer.crashed_primary && p.me.reconnect;
        let theirs = p.me.crashed_primary && p.peer.reconnect;
        (mine != theirs).then(|| p.unless_one_lives(p.source_if(mine)))
    }),
    (Rule::OneWasConnected, |p| (p.me.reconnect || p.peer.reconnect).then_some(Verdict::NoSync)),
    (Rule::BothOffCrashed, |p| {
        let one = p.me.crashed_primary != p.peer.crashed_primary;
        one.then(|| p.unless_one_lives(p.source_if(p.me.crashed_primary)))
    }),
    (Rule::BothOffTie, |p| (p.me.crashed_primary && p.peer.crashed_primary).then(|| p.unless_one_lives(p.tie()))),
    (Rule::BothOff, |_| Some(Verdict::NoSync)),
];

/// Nothing is to be done, say the generations; what do the bits say?
const RECONCILE: &[Row] = &[
    (Rule::LostCache, kept_cache),
    (Rule::ReconcileBitmap, |p| {
        let one = (p.me.dirty > 0) != (p.peer.dirty > 0);
        (lost_one(p) && one).then(|| p.unless_one_lives(p.source_if(p.me.dirty > 0)))
    }),
    (Rule::ReconcileDagtag, |p| {
        let both = p.me.dirty > 0 && p.peer.dirty > 0;
        let further = match p.me.position.cmp(&p.peer.position) {
            std::cmp::Ordering::Equal => p.tie(),
            order => p.source_if(order.is_gt()),
        };
        (lost_one(p) && both).then(|| p.unless_one_lives(further))
    }),
    (Rule::LeftoverBits, |p| p.has_bits().then(|| p.unless_one_lives(p.tie()))),
];

/// The generations differ.
const DIFFERENT: &[Row] = &[
    (Rule::BitmapPeer, |p| (went_on(p, false) && !went_on(p, true)).then(|| p.source_if(false))),
    (Rule::BitmapSelf, |p| (went_on(p, true) && !went_on(p, false)).then(|| p.source_if(true))),
    (Rule::BitmapPeerOther, |p| (from_other(p, false) && !from_other(p, true)).then(|| p.source_if(false))),
    (Rule::BitmapSelfOther, |p| (from_other(p, true) && !from_other(p, false)).then(|| p.source_if(true))),
    (Rule::HistoryPeer, |p| (was_before(p, false) && !was_before(p, true)).then_some(Verdict::Target { full: true })),
    (Rule::HistorySelf, |p| (was_before(p, true) && !was_before(p, false)).then_some(Verdict::Source { full: true })),
    (Rule::BitmapBoth, |p| (p.me.bitmap.is_some() && p.me.bitmap == p.peer.bitmap).then_some(Verdict::SplitBrain)),
    (Rule::HistoryBoth, |p| common(p).then_some(Verdict::SplitBrain)),
    (Rule::UnrelatedData, |_| Some(Verdict::Unrelated)),
];

/// Who did not lose its cache is the source, if there is anything to settle.
fn kept_cache(p: Pair<'_>) -> Option<Verdict> {
    let one = p.me.restarted != p.peer.restarted && p.has_bits();
    one.then(|| p.unless_one_lives(p.source_if(!p.me.restarted)))
}

fn fresh(generation: Generation) -> bool {
    generation == Generation::JUST_CREATED
}

/// Whether one side (me or the peer) went on from the other's generation.
fn went_on(p: Pair<'_>, me: bool) -> bool {
    let (newer, older) = if me { (p.me, p.peer) } else { (p.peer, p.me) };
    newer.bitmap == older.current
}

fn from_other(p: Pair<'_>, me: bool) -> bool {
    let (newer, older) = if me { (p.me, p.peer) } else { (p.peer, p.me) };
    newer.bitmap_others.contains(&older.current)
}

fn was_before(p: Pair<'_>, me: bool) -> bool {
    let (newer, older) = if me { (p.me, p.peer) } else { (p.peer, p.me) };
    newer.history.contains(&older.current)
}

/// Any generation that both remember or are. Each can be a former one of the other: a grant of which the newer one's
/// primary was not told before it crashed brings a replica back to the older.
fn common(p: Pair<'_>) -> bool {
    let known = |s: &super::Side| -> Vec<Generation> {
        let all = s.history.iter().chain(&s.bitmap_others).chain([&s.bitmap, &s.current]);
        all.copied().filter(|g| g.is_some()).collect()
    };
    let theirs = known(p.peer);
    known(p.me).iter().any(|g| theirs.contains(g))
}

/// Both are whole, and a primary is gone that was neither of them.
fn lost_one(p: Pair<'_>) -> bool {
    let third = |s: &super::Side, other: &super::Side| s.lost_primary.is_some_and(|n| n != other.node);
    let whole = p.me.disk.min(p.peer.disk) >= DiskState::Consistent;
    whole && (third(p.me, p.peer) || third(p.peer, p.me))
}

/// Both are whole and lost one primary, of whose generation both are: it had synchronised both, and the mark of one for the
/// other is older than that. Who is further in its stream counts.
fn bereft(p: Pair<'_>) -> bool {
    lost_one(p) && p.me.lost_primary == p.peer.lost_primary
}

/// The first rule that matches, and what it says. The last of each part always matches.
pub(super) fn first_match(pair: Pair<'_>) -> (Verdict, Vec<Rule>) {
    let find = |rows: &[Row]| rows.iter().find_map(|(rule, row)| row(pair).map(|v| (v, *rule)));
    if let Some((verdict, rule)) = find(ALWAYS) {
        return (verdict, vec![rule]);
    }
    let rows = if pair.me.current == pair.peer.current { EQUAL } else { DIFFERENT };
    let (verdict, rule) = find(rows).unwrap_or((Verdict::Unrelated, Rule::UnrelatedData));
    match find(RECONCILE).filter(|_| verdict == Verdict::NoSync) {
        Some((further, why)) => (further, vec![rule, why]),
        None => (verdict, vec![rule]),
    }
}
