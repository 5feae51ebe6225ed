//! The lock-free parts in every interleaving of a few threads, by loom, which also ends a model in which somebody waits for ever.

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::{Mutex, Notify};
use loom::thread;

use counts::Counts;
use gate::{Entered, Gate};
use sync::Ordering;

/// The same code over loom's atomics.
#[path = "counts.rs"]
#[allow(clippy::duplicate_mod, reason = "that is the point")]
mod counts;
/// The same code over loom's atomics.
#[path = "gate.rs"]
#[allow(clippy::duplicate_mod, reason = "that is the point")]
#[allow(dead_code, reason = "not every call is part of a model")]
mod gate;
/// Loom takes a sequentially consistent access for a weaker one, and knows sequentially consistent fences: with one on either side
/// each access is what the code asks for.
mod sync {
    use loom::sync::atomic::fence;

    pub(super) use loom::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($name:ident = $int:ty),*) => {$(
            #[derive(Debug, Default)]
            pub(super) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "not every type needs every access")]
            impl $name {
                pub(super) fn load(&self, how: Ordering) -> $int {
                    between(how, || self.0.load(how))
                }

                pub(super) fn store(&self, value: $int, how: Ordering) {
                    between(how, || self.0.store(value, how));
                }

                pub(super) fn fetch_add(&self, value: $int, how: Ordering) -> $int {
                    between(how, || self.0.fetch_add(value, how))
                }

                pub(super) fn fetch_sub(&self, value: $int, how: Ordering) -> $int {
                    between(how, || self.0.fetch_sub(value, how))
                }

                pub(super) fn fetch_or(&self, value: $int, how: Ordering) -> $int {
                    between(how, || self.0.fetch_or(value, how))
                }

                pub(super) fn fetch_and(&self, value: $int, how: Ordering) -> $int {
                    between(how, || self.0.fetch_and(value, how))
                }
            }
        )*};
    }
    atomics!(AtomicU64 = u64, AtomicUsize = usize);

    fn between<T>(how: Ordering, access: impl FnOnce() -> T) -> T {
        if how != Ordering::SeqCst {
            return access();
        }
        fence(how);
        let result = access();
        fence(how);
        result
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A layout is withdrawn while operations come: the one who is told that nobody is inside is told once at least, and nobody
/// is or comes inside after.
#[test]
fn whoever_closes_a_gate_is_told_when_nobody_is_inside_any_more() {
    check(|| {
        let gate = Arc::new(Gate::default());
        let empty = Arc::new(AtomicBool::new(false));
        let visit = || {
            let (gate, empty) = (Arc::clone(&gate), Arc::clone(&empty));
            thread::spawn(move || {
                let told = match gate.enter() {
                    Entered::Inside => {
                        assert!(!empty.load(Ordering::SeqCst), "inside although it was said to be empty");
                        gate.leave()
                    }
                    Entered::Closed => false,
                    Entered::ClosedAndEmpty => true,
                };
                if told {
                    empty.store(true, Ordering::SeqCst);
                }
            })
        };
        let visitors = [visit(), visit()];
        if gate.close() {
            empty.store(true, Ordering::SeqCst);
        }
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert!(empty.load(Ordering::SeqCst), "nobody was told");
        assert_eq!(gate.inside(), 0);
    });
}

/// What [`super::writes::Writes`] does with the counts, its waiting done by a thread.
#[derive(Default)]
struct Writes {
    counts: Counts,
    turn: Mutex<()>,
}

impl Writes {
    fn end(&self, at: usize, ended: &Notify) {
        if self.counts.end(at) {
            ended.notify();
        }
    }

    fn quiet(&self, ended: &Notify) {
        if self.counts.are_empty() {
            return;
        }
        let _turn = self.turn.lock().unwrap();
        let old = self.counts.current();
        self.empty(1 - old, ended);
        self.counts.use_from_now(1 - old);
        self.empty(old, ended);
    }

    fn empty(&self, at: usize, ended: &Notify) {
        while !self.counts.is_empty(at) {
            ended.wait();
        }
    }
}

/// An unlock waits for the writes that were accepted before it; one that comes beside it is in the way of neither.
#[test]
fn quiet_comes_after_every_write_that_was_accepted_before_it_and_it_comes() {
    check(|| {
        let (writes, ended) = (Arc::new(Writes::default()), Arc::new(Notify::new()));
        let write = || {
            let (writes, ended) = (Arc::clone(&writes), Arc::clone(&ended));
            let (accepted, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let seen = (Arc::clone(&accepted), Arc::clone(&over));
            let thread = thread::spawn(move || {
                let at = writes.counts.begin(|at| writes.end(at, &ended));
                accepted.store(true, Ordering::SeqCst);
                over.store(true, Ordering::SeqCst);
                writes.end(at, &ended);
            });
            (thread, seen)
        };
        let (one, two) = (write(), write());
        for _ in 0..2 {
            let before = [&one.1, &two.1].map(|(accepted, _)| accepted.load(Ordering::SeqCst));
            writes.quiet(&ended);
            let over = [&one.1, &two.1].map(|(_, over)| over.load(Ordering::SeqCst));
            assert!(before.iter().zip(over).all(|(before, over)| !before || over), "{before:?} {over:?}");
        }
        one.0.join().unwrap();
        two.0.join().unwrap();
        assert!(writes.counts.are_empty());
    });
}
