use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::{ALIGN, AlignedBuf, BufPool};

#[test]
fn fresh_buffers_are_aligned_and_zeroed_ones_are_zero_even_when_recycled() {
    for len in [0, 1, 511, 4096, 4097, 65536, 1 << 20, (2 << 20) + 1] {
        let mut buf = AlignedBuf::zeroed(len);
        assert_eq!(buf.len(), len);
        assert!(buf.is_aligned_to(ALIGN));
        buf.fill(0xaa);
        drop(buf);
        assert!(AlignedBuf::zeroed(len).iter().all(|&b| b == 0), "{len}");
    }
}

/// The addresses of so many buffers that are there at once.
fn addresses(count: usize, len: usize) -> Vec<usize> {
    let bufs: Vec<_> = (0..count).map(|_| AlignedBuf::with_capacity(len)).collect();
    let mut all: Vec<usize> = bufs.iter().map(|b| b.as_ptr() as usize).collect();
    all.sort_unstable();
    all
}

/// No other test of this process has buffers of these two sizes.
#[test]
fn large_buffers_lie_in_slabs_and_a_load_of_eight_gets_its_own_back() {
    let small = addresses(16, 128 << 10);
    assert!(small.windows(2).all(|w| w[1] - w[0] == 128 << 10), "one behind the other");
    assert!(small[0].is_multiple_of(2 << 20), "from the beginning of one slab");
    let large = addresses(8, (1 << 20) + 4096);
    assert!(large.iter().all(|a| a.is_multiple_of(2 << 20)));
    assert_eq!(addresses(8, (1 << 20) + 4096), large, "nothing is mapped anew");
}

#[test]
fn split_windows_live_on_different_threads_and_join_again() {
    let mut tail = AlignedBuf::zeroed(8192);
    let mut head = tail.split_to(4096);
    thread::scope(|scope| {
        scope.spawn(|| head.fill(1));
        scope.spawn(|| tail.fill(2));
    });
    assert!(head.try_unsplit(tail).is_ok());
    assert!(head[..4096].iter().all(|&b| b == 1) && head[4096..].iter().all(|&b| b == 2));
}

#[test]
fn windows_of_other_regions_or_places_do_not_join() {
    let mut a = AlignedBuf::zeroed(4096);
    let b = AlignedBuf::zeroed(4096);
    let b = a.try_unsplit(b).expect_err("another region");
    let mut back = a.split_to(1024);
    let front = back.split_to(512);
    let front = back.try_unsplit(front).expect_err("it lies in front, not behind");
    assert_eq!((front.len(), back.len(), a.len(), b.len()), (512, 512, 3072, 4096));
}

#[test]
fn pool_gets_a_buffer_back_when_its_last_window_goes() {
    let pool = BufPool::new(8192, 2);
    let mut buf = pool.get();
    let address = buf.as_ptr();
    let window = buf.split_to(100).freeze();
    drop(buf);
    assert_eq!(pool.idle(), 0, "a frozen window still holds the region");
    drop(window);
    assert_eq!(pool.idle(), 1);
    assert_eq!(pool.get().as_ptr(), address);
}

#[test]
fn shared_bytes_are_a_buffer_without_a_copy_and_are_copied_before_they_change() {
    let bytes = AlignedBuf::from_slice(&[7; 8192]).freeze();
    let mut whole = AlignedBuf::of_bytes(bytes.clone());
    let mut page = AlignedBuf::of_bytes(bytes.slice(4096..));
    assert_eq!((whole.as_ptr(), page.as_ptr()), (bytes.as_ptr(), bytes[4096..].as_ptr()));
    assert_eq!(AlignedBuf::of_bytes(bytes.clone()).freeze().as_ptr(), bytes.as_ptr());
    page.truncate(100);
    page.advance(50);
    assert_eq!((page.len(), page.is_aligned_to(2), page.is_aligned_to(4096)), (50, true, false));
    whole[0] = 1;
    let front = whole.split_to(1);
    assert_eq!((front[0], whole.len(), bytes[0]), (1, 8191, 7));
    assert!(whole.try_unsplit(page).is_err(), "they are no neighbours");
    let crooked = AlignedBuf::of_bytes(bytes.slice(1..));
    assert!(crooked.is_aligned_to(ALIGN) && crooked.as_ptr() != bytes[1..].as_ptr());
}

#[test]
fn pool_keeps_no_more_than_its_maximum_and_may_die_before_its_buffers() {
    let pool = BufPool::new(4096, 2);
    let bufs: Vec<_> = (0..5).map(|_| pool.get()).collect();
    drop(bufs);
    assert_eq!(pool.idle(), 2);
    let survivor = pool.get();
    let weak = Arc::downgrade(&pool);
    drop(pool);
    assert!(weak.upgrade().is_none());
    drop(survivor);
}

#[derive(Clone, Debug)]
enum Step {
    Split(usize, usize),
    Advance(usize, usize),
    Truncate(usize, usize),
    Join(usize, usize),
    Fill(usize, u8),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..usize::MAX;
    prop_oneof![
        (any.clone(), any.clone()).prop_map(|(w, n)| Step::Split(w, n)),
        (any.clone(), any.clone()).prop_map(|(w, n)| Step::Advance(w, n)),
        (any.clone(), any.clone()).prop_map(|(w, n)| Step::Truncate(w, n)),
        (any.clone(), any.clone()).prop_map(|(a, b)| Step::Join(a, b)),
        (any.clone(), 0..=255u8).prop_map(|(w, b)| Step::Fill(w, b)),
        any.prop_map(Step::Drop),
    ]
}

/// Applies one step to the windows and to the model (each window's range and expected bytes).
fn apply(step: Step, windows: &mut Vec<(AlignedBuf, usize, Vec<u8>)>) {
    if windows.is_empty() {
        return;
    }
    let count = windows.len();
    match step {
        Step::Split(w, n) => {
            let (buf, start, model) = &mut windows[w % count];
            let n = n % (model.len() + 1);
            let front = (buf.split_to(n), *start, model.drain(..n).collect());
            *start += n;
            windows.push(front);
        }
        Step::Advance(w, n) => {
            let (buf, start, model) = &mut windows[w % count];
            let n = n % (model.len() + 1);
            buf.advance(n);
            model.drain(..n);
            *start += n;
        }
        Step::Truncate(w, n) => {
            let (buf, _, model) = &mut windows[w % count];
            let n = n % (model.len() + 2);
            buf.truncate(n);
            model.truncate(n);
        }
        Step::Join(a, b) if a % count != b % count => {
            let (tail, tail_start, tail_model) = windows.remove(b % count);
            let at = if a % count > b % count { a % count - 1 } else { a % count };
            let (head, start, model) = &mut windows[at];
            let adjacent = *start + model.len() == tail_start;
            match head.try_unsplit(tail) {
                Ok(()) => {
                    assert!(adjacent);
                    model.extend(tail_model);
                }
                Err(tail) => {
                    assert!(!adjacent);
                    windows.push((tail, tail_start, tail_model));
                }
            }
        }
        Step::Fill(w, byte) => {
            let (buf, _, model) = &mut windows[w % count];
            buf.fill(byte);
            model.fill(byte);
        }
        Step::Drop(w) => drop(windows.remove(w % count)),
        Step::Join(..) => {}
    }
}

proptest! {
    #[test]
    fn windows_never_overlap_and_keep_their_bytes(steps in proptest::collection::vec(step(), 1..60)) {
        let mut windows = vec![(AlignedBuf::zeroed(10_000), 0, vec![0; 10_000])];
        let base = windows[0].0.as_ptr() as usize;
        for step in steps {
            apply(step, &mut windows);
            let mut ranges = BTreeMap::new();
            for (buf, start, model) in &windows {
                prop_assert_eq!(&buf[..], &model[..]);
                prop_assert_eq!(buf.as_ptr() as usize, base + start);
                if !model.is_empty() {
                    prop_assert!(ranges.insert(*start, start + model.len()).is_none());
                }
            }
            let ends: Vec<_> = ranges.into_iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        }
    }

    #[test]
    fn alignment_is_of_the_address(skip in 0usize..5000, shift in 0u32..13) {
        let mut buf = AlignedBuf::with_capacity(8192);
        buf.advance(skip);
        prop_assert_eq!(buf.is_aligned_to(1 << shift), skip.is_multiple_of(1 << shift));
        prop_assert!(!buf.is_aligned_to(0));
    }
}

/// Bytes of this process that are locked into memory.
fn locked() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn locked_buffers_are_locked_until_they_are_freed() {
    // Larger than what other tests of this process allocate meanwhile, which is locked then, too.
    const LEN: usize = 256 << 20;
    super::lock_memory();
    let before = locked();
    let buf = AlignedBuf::with_capacity(LEN);
    if before == locked() {
        println!("skipped: this user may not lock memory");
        return;
    }
    assert!(locked() >= before + LEN as u64 / 2);
    drop(buf);
    assert!(locked() < before + LEN as u64 / 2);
}
