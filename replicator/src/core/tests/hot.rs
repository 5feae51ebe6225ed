//! What a change of the log waits for.

use super::*;

/// Every change waited for a flush of all that was written, also one on which nothing of that has any bearing: a write to an extent that was
/// cold took two flushes.
#[test]
fn only_a_change_that_relies_on_data_waits_for_them() {
    let mut bench = Bench::new(&[id(2)]);
    let (_, fx) = bench.meets(1, A, Generation::NONE);
    bench.metadata(fx);
    let mut only_hot = |n: u64| {
        let (span, data) = (Span::new(n * 32, 8), Bytes::from(vec![1; 64]));
        let write = Message::Write { seq: Seq(n + 1), epoch: 1, span, data, fua: false, receipt: false };
        let mut fx = bench.says(write);
        let told = |f: &Effect| if let Effect::Meta(_, w) = f { Some(w.only_hot) } else { None };
        let change = fx.iter().find_map(told);
        for effect in bench.metadata(std::mem::take(&mut fx)) {
            if let Effect::Write(io, ..) = effect {
                bench.tell(Event::Done(io, Ok(Bytes::new())));
            }
        }
        change
    };
    assert_eq!(only_hot(0), Some(false), "it takes back that the disk was at rest");
    assert_eq!(only_hot(1), Some(true));
}
