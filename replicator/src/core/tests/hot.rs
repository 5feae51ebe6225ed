//! What a change of the log waits for.

use std::collections::BTreeSet;

use super::*;

/// Every change waited for a flush of all that was written, also one on which nothing of that has any bearing: a write to an extent that was
/// cold took two flushes.
#[test]
fn only_a_change_that_relies_on_data_waits_for_them() {
    let mut bench = Bench::new(&[id(2)]);
    let mut replica = bench.node.replica().expect("a disk").clone();
    bench.meets(1, A, Generation::NONE);
    let data = Bytes::from(vec![1; 64]);
    let fx = bench.says(Message::Write { seq: Seq(1), epoch: 1, span: BLOCK, data, fua: false, receipt: false });
    let told = |f: &Effect| if let Effect::Meta(_, w) = f { Some(w.only_hot) } else { None };
    assert_eq!(fx.iter().find_map(told), Some(true), "{fx:?}");

    // The log has four slots.
    let mut only_hot = |wanted: &[u32], change: bool| {
        if change {
            replica.change(|sb| sb.flags.primary = !sb.flags.primary);
        }
        let commit = replica.plan(&BTreeSet::from_iter(wanted.iter().copied()), false).expect("a change");
        replica.committed(&commit);
        commit.write.only_hot
    };
    assert!(only_hot(&[0, 1], false));
    assert!(!only_hot(&[2], true), "the superblock says something as well");
    assert!(!only_hot(&[], true), "and here it alone");
    assert!(only_hot(&[3], false));
    assert!(!only_hot(&[4], false), "an extent becomes cold: all that was written there is stable before");
}
