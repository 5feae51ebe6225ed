use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn an_answer_goes_to_the_call_that_asked() {
    let mut calls = Calls::new(8);
    let a = calls.open("a").unwrap();
    let b = calls.open("b").unwrap();
    assert_ne!(a, b);
    assert_eq!(calls.answer(b), Ok(Answered::Deliver("b")));
    assert_eq!(calls.answer(a), Ok(Answered::Deliver("a")));
    assert_eq!(calls.taken(), 0);
}

#[test]
fn a_late_answer_never_meets_the_next_call() {
    let mut calls = Calls::new(1);
    let first = calls.open(1).unwrap();
    assert_eq!(calls.abandon(first, 77), Some(1));
    // The only slot is still taken: the answer may come yet.
    assert_eq!(calls.open(2), Err((NotOpened::Full, 2)));
    assert_eq!(calls.answer(first), Ok(Answered::Late { cost: 77 }));
    let second = calls.open(3).unwrap();
    assert_eq!(calls.answer(first), Err(UnknownRequest(first)));
    assert_eq!(calls.answer(second), Ok(Answered::Deliver(3)));
}

#[test]
fn a_second_answer_is_a_violation() {
    let mut calls = Calls::new(4);
    let id = calls.open(()).unwrap();
    calls.answer(id).unwrap();
    assert_eq!(calls.answer(id), Err(UnknownRequest(id)));
    for nonsense in [0, u64::MAX, 2, 1 << 32] {
        assert_eq!(calls.answer(nonsense), Err(UnknownRequest(nonsense)));
    }
}

#[test]
fn abandoning_after_the_answer_does_nothing() {
    let mut calls = Calls::new(1);
    let id = calls.open(1).unwrap();
    calls.answer(id).unwrap();
    let next = calls.open(2).unwrap();
    assert_eq!(calls.abandon(id, 5), None);
    assert_eq!(calls.answer(next), Ok(Answered::Deliver(2)));
}

#[test]
fn close_gives_back_every_waiter_once_and_lets_nobody_in() {
    let mut calls = Calls::new(8);
    let ids: Vec<u64> = (0..5).map(|i| calls.open(i).unwrap()).collect();
    calls.abandon(ids[1], 0);
    calls.answer(ids[3]).unwrap();
    let mut left = calls.close();
    left.sort_unstable();
    assert_eq!(left, [0, 2, 4]);
    assert_eq!(calls.open(9), Err((NotOpened::Closed, 9)));
    assert!(calls.answer(ids[0]).is_err());
    assert!(calls.close().is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Answer(prop::sample::Index),
    AnswerOld(prop::sample::Index),
    Abandon(prop::sample::Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Open),
        3 => any::<prop::sample::Index>().prop_map(Op::Answer),
        1 => any::<prop::sample::Index>().prop_map(Op::AnswerOld),
        2 => any::<prop::sample::Index>().prop_map(Op::Abandon),
    ];
    proptest::collection::vec(op, 0..300)
}

proptest! {
    /// Against a map that never reuses an id.
    #[test]
    fn the_slab_behaves_like_a_map_of_unique_ids(ops in ops()) {
        const MAX: usize = 6;
        let mut calls = Calls::new(MAX);
        let mut model: HashMap<u64, Option<u32>> = HashMap::new();
        let mut used: Vec<u64> = Vec::new();
        for (op, n) in ops.into_iter().zip(0_u32..) {
            let mut outstanding: Vec<u64> = model.keys().copied().collect();
            outstanding.sort_unstable();
            match op {
                Op::Open => match calls.open(n) {
                    Ok(id) => {
                        prop_assert!(!used.contains(&id), "id {} used twice", id);
                        used.push(id);
                        model.insert(id, Some(n));
                    }
                    Err((why, _)) => {
                        prop_assert_eq!(why, NotOpened::Full);
                        prop_assert_eq!(model.len(), MAX);
                    }
                },
                Op::Answer(at) if !outstanding.is_empty() => {
                    let id = *at.get(&outstanding);
                    let want = match model.remove(&id).unwrap() {
                        Some(w) => Answered::Deliver(w),
                        None => Answered::Late { cost: 1 },
                    };
                    prop_assert_eq!(calls.answer(id), Ok(want));
                }
                Op::AnswerOld(at) if !used.is_empty() => {
                    let id = *at.get(&used);
                    if !model.contains_key(&id) {
                        prop_assert_eq!(calls.answer(id), Err(UnknownRequest(id)));
                    }
                }
                Op::Abandon(at) if !used.is_empty() => {
                    let id = *at.get(&used);
                    let want = model.get_mut(&id).and_then(Option::take);
                    prop_assert_eq!(calls.abandon(id, 1), want);
                }
                _ => {}
            }
            prop_assert_eq!(calls.taken(), model.len());
        }
        let mut left = calls.close();
        left.sort_unstable();
        let mut waiting: Vec<u32> = model.into_values().flatten().collect();
        waiting.sort_unstable();
        prop_assert_eq!(left, waiting);
    }
}
