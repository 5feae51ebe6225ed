use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn each_worker_knows_its_number_and_other_threads_have_none() {
    let workers = Workers::start(3, "test").expect("workers start");
    assert_eq!((workers.count(), current()), (3, None));
    for n in 0..3 {
        assert_eq!(workers.spawn(n, || async { current() }).wait(), Ok(Some(n)));
    }
    assert_eq!(workers.spawn(4, || async { current() }).wait(), Ok(Some(1)), "numbers wrap");
}

#[test]
fn tasks_are_local_and_may_start_local_tasks() {
    let workers = Workers::start(1, "test").expect("workers start");
    let task = workers.spawn(0, || async {
        let shared = Rc::new(5);
        let theirs = Rc::clone(&shared);
        let inner = tokio::task::spawn_local(async move { *theirs });
        inner.await.expect("ran") + *shared
    });
    assert_eq!(task.wait(), Ok(10));
}

#[test]
fn a_task_that_panics_is_lost_and_its_worker_goes_on() {
    let workers = Workers::start(1, "test").expect("workers start");
    let task = workers.spawn(0, || async { panic!("on purpose") });
    assert_eq!(task.wait(), Err::<(), _>(TaskLost));
    assert_eq!(workers.spawn(0, || async { 1 }).wait(), Ok(1));
}

#[test]
fn a_dropped_task_goes_on_and_shutdown_ends_what_still_runs() {
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let workers = Workers::start(1, "test").expect("workers start");
    let (ended, counter) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, started) = (Count(Arc::clone(&ended)), Arc::clone(&counter));
    drop(workers.spawn(0, move || async move {
        let _running = running;
        started.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }));
    workers.spawn(0, || async {}).wait().expect("ran after it");
    assert_eq!((counter.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 0));
    let handle = workers.handle();
    workers.shutdown().expect("ends");
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(handle.spawn(0, || async {}).wait(), Err(TaskLost), "nothing starts any more");
}

#[test]
fn workers_without_rings_say_so() {
    let workers = Workers::start_without_rings(1, "test").expect("workers start");
    assert!(!workers.handle().has_rings());
}

#[test]
fn a_handle_of_one_worker_spawns_on_that_one() {
    let workers = Workers::start(3, "test").expect("workers start");
    let only = workers.handle().only(1);
    assert_eq!(only.count(), 1);
    for n in 0..4 {
        assert_eq!(only.spawn(n, || async { current() }).wait(), Ok(Some(1)));
    }
}
