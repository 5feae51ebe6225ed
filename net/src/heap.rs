//! Freed memory that stays with the process.
//!
//! The TLS library takes fresh memory for each record of 16 KiB, in both directions, and frees it when the record is written or read. A writer
//! has up to [`TLS_BUFFER`](crate::limits::TLS_BUFFER) of that at a time; glibc gives what is freed at the end of a heap back to the kernel
//! from 128 KiB on, and gets it again, page by page, for the next write: a seventh of all that a sender of large messages did.
//!
//! glibc learns from what a program frees: once a block with a mapping of its own was freed, it takes blocks up to that length from the heap, and
//! keeps twice as much at the end of each (mallopt(3), M_MMAP_THRESHOLD). So one is freed. Another allocator takes no notice.

use std::hint::black_box;
use std::sync::Once;

/// Twice this is kept at the end of each thread's heap at most: several writers' buffers, and no more than what a thread's other
/// memory comes to.
const LEARNT: usize = 2 << 20;

/// From now on heaps keep what is freed at their ends, up to a bound.
pub(crate) fn keep_freed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LEARNT))));
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Pages that this thread had to be given so far.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    /// What a writer of large messages does, so many times.
    fn write_records(times: usize) {
        for _ in 0..times {
            let records: Vec<Vec<u8>> = (0..16).map(|n| black_box(vec![n; 16 << 10])).collect();
            drop(records);
        }
    }

    /// Each write of 256 KiB was some 60 page faults and a system call (a profile of a replica's primary, 1 MiB writes).
    #[test]
    fn memory_of_records_is_not_had_from_the_kernel_for_each_write() {
        keep_freed();
        let faults = std::thread::spawn(|| {
            write_records(4);
            let before = faults();
            write_records(100);
            faults() - before
        });
        let faults = faults.join().unwrap();
        assert!(faults < 600, "{faults} page faults in 100 writes");
    }
}
