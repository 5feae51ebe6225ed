//! Tasks of virtual time: applications and those parts of the client's shell that wait. No thread, no runtime; a task
//! is polled when what it waits for has come, in the order in which that came. A process that dies takes its tasks
//! with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use block::shared::NodeId;

/// A task's body.
pub(super) type Body = Pin<Box<dyn Future<Output = ()>>>;

/// Whose task it is: a node and the number of its process. `None`: the script's own.
pub(super) type Owner = Option<(NodeId, u64)>;

type Ready = Arc<Mutex<VecDeque<u64>>>;

struct Bell {
    task: u64,
    ready: Ready,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

/// All tasks of a run.
#[derive(Default)]
pub(super) struct Tasks {
    ready: Ready,
    tasks: BTreeMap<u64, (Owner, Body)>,
    last: u64,
}

impl Tasks {
    pub(super) fn spawn(&mut self, owner: Owner, body: Body) {
        self.last += 1;
        self.tasks.insert(self.last, (owner, body));
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.last);
    }

    pub(super) fn kill(&mut self, node: NodeId, process: u64) {
        self.tasks.retain(|_, (owner, _)| *owner != Some((node, process)));
    }

    /// Tasks of a process are of the next one now.
    pub(super) fn pass_on(&mut self, node: NodeId, from: u64, to: u64) {
        for (owner, _) in self.tasks.values_mut().filter(|(owner, _)| *owner == Some((node, from))) {
            *owner = Some((node, to));
        }
    }

    /// Polls one task that can go on; false if none can.
    pub(super) fn poll_one(&mut self) -> bool {
        let Some(task) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return false };
        let Some((_, body)) = self.tasks.get_mut(&task) else { return true };
        let waker = Waker::from(Arc::new(Bell { task, ready: Arc::clone(&self.ready) }));
        if body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks.remove(&task);
        }
        true
    }
}

struct Cell<T> {
    value: Option<T>,
    waker: Option<Waker>,
    over: bool,
}

/// The end that gives.
pub(super) struct Sender<T>(Rc<RefCell<Cell<T>>>);

/// The end that waits; `None` if the other end was dropped.
pub(super) struct Receiver<T>(Rc<RefCell<Cell<T>>>);

/// One value, later.
pub(super) fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let cell = Rc::new(RefCell::new(Cell { value: None, waker: None, over: false }));
    (Sender(Rc::clone(&cell)), Receiver(cell))
}

impl<T> Sender<T> {
    pub(super) fn send(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut cell = self.0.borrow_mut();
        cell.over = true;
        if let Some(waker) = cell.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut cell = self.0.borrow_mut();
        match cell.value.take() {
            Some(value) => Poll::Ready(Some(value)),
            None if cell.over => Poll::Ready(None),
            None => {
                cell.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
