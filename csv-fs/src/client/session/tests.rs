//! Timing and order, with a coordinator that does what a test says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use block::fault::FaultDevice;
use block::mem::MemDevice;
use block::shared::{AbortOwn, BoxFuture, Epoch, FenceGen, Incarnation, NodeId};
use block::units::{BlockSize, ByteLen};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::*;
use crate::client::data::DataPath;
use crate::client::link::{CallDone, ClientEvent, LinkLost, NoWitnesses, RedirectDone};
use crate::proto::{Answer, BindAnswer, BindRequest, Call, LayoutGrant, Redirect, Want};

/// One link after the other; each call is handed to the test, which answers it or lets it break.
struct Scripted {
    calls: mpsc::UnboundedSender<(Call, oneshot::Sender<Answer>)>,
    binds: AtomicU64,
    /// Who waits for the end of a link now.
    watchers: AtomicU64,
}

/// One of them.
struct Watcher(Arc<Scripted>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

struct ScriptedLink(Arc<Scripted>);

impl CoordinatorLink for ScriptedLink {
    fn bind(&self, _: Epoch, _: BindRequest) -> BoxFuture<'_, Result<BindAnswer, LinkLost>> {
        let n = self.0.binds.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            // The first attempt never reaches anybody.
            if n == 0 {
                return Err(LinkLost);
            }
            let verifier = crate::proto::Verifier { epoch: Epoch(5), boot: 1, generation: 0 };
            Ok(BindAnswer::Bound {
                epoch: Epoch(5),
                grace: false,
                grants: Vec::new(),
                refused: Vec::new(),
                fence_gen: FenceGen(1),
                verifier,
            })
        })
    }

    fn call(&self, _: Epoch, call: Call, done: CallDone) -> Option<BoxFuture<'static, ()>> {
        let (to, answer) = oneshot::channel();
        // A test that has ended listens to nobody; then `to` is gone with it.
        let _ = self.0.calls.send((call, to));
        Some(Box::pin(async move { done.tell(answer.await.map_err(|_| LinkLost)) }))
    }

    fn redirect(&self, _: Epoch, _: Redirect, _: Option<Bytes>, done: RedirectDone) -> Option<BoxFuture<'static, ()>> {
        done.tell(Err(LinkLost));
        None
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        self.0.watchers.fetch_add(1, Ordering::SeqCst);
        let watcher = Watcher(Arc::clone(&self.0));
        Box::pin(async move {
            let _watcher = watcher;
            std::future::pending().await
        })
    }
}

struct Links(Arc<Scripted>);

impl Coordinators for Links {
    fn link(&self, _: &CoordinatorHint) -> Option<Arc<dyn CoordinatorLink>> {
        Some(Arc::new(ScriptedLink(Arc::clone(&self.0))))
    }

    fn ask_who(&self) -> BoxFuture<'_, Vec<CoordinatorHint>> {
        Box::pin(async { vec![CoordinatorHint { epoch: Epoch(5), node: NodeId::new(1).unwrap() }] })
    }
}

struct NoSlot;

impl OwnSlot for NoSlot {
    fn fence_gen(&self) -> BoxFuture<'_, Option<FenceGen>> {
        Box::pin(async { None })
    }
}

type Calls = mpsc::UnboundedReceiver<(Call, oneshot::Sender<Answer>)>;
type Events = Arc<Mutex<Vec<ClientEvent>>>;

fn start() -> (Arc<DataPath>, Calls, Events) {
    let (path, calls, events, _) = start_watched();
    (path, calls, events)
}

fn start_watched() -> (Arc<DataPath>, Calls, Events, Arc<Scripted>) {
    let (sender, calls) = mpsc::unbounded_channel();
    let scripted = Arc::new(Scripted { calls: sender, binds: AtomicU64::new(0), watchers: AtomicU64::new(0) });
    let disk = FaultDevice::new(Arc::new(MemDevice::new(ByteLen(1 << 20), BlockSize::B512)));
    let events: Events = Arc::default();
    let sink = Arc::clone(&events);
    let parts = SessionParts {
        config: ClientConfig {
            volume: VolumeId(1),
            client: ClientId { node: NodeId::new(2).unwrap(), incarnation: Incarnation(3) },
            fence_gen: FenceGen(1),
            probe_every: Duration::from_millis(50),
            kept_limit: 1 << 20,
            rides_out: Duration::ZERO,
        },
        coordinators: Arc::new(Links(Arc::clone(&scripted))),
        abort: Arc::clone(&disk) as Arc<dyn AbortOwn>,
        slot: Arc::new(NoSlot),
        witnesses: Arc::new(NoWitnesses),
        events: Arc::new(move |e| sink.lock().push(e)),
        path_timeout: Duration::from_secs(1),
        io_timeout: Duration::ZERO,
        control: tokio::runtime::Handle::current(),
    };
    let path = DataPath::new(Session::new(parts, Rules::all()), disk, 0);
    tokio::spawn(ticks(Arc::downgrade(&path)));
    (path, calls, events, scripted)
}

async fn ticks(path: Weak<DataPath>) {
    while let Some(path) = path.upgrade() {
        path.session().tick();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn next(calls: &mut Calls) -> (Call, oneshot::Sender<Answer>) {
    tokio::time::timeout(Duration::from_secs(20), calls.recv()).await.expect("in time").expect("a call")
}

fn ask(path: &Arc<DataPath>, request: Request) -> tokio::task::JoinHandle<Result<Answered, Errno>> {
    let session = Arc::clone(path.session());
    tokio::spawn(async move { session.ask(&Caller::patient(), request).await })
}

#[tokio::test]
async fn a_call_that_breaks_with_its_link_is_sent_again_in_its_slot_and_answered_once() {
    let (path, mut calls, events) = start();
    let asked = ask(&path, Request::Statfs);
    let (first, broken) = next(&mut calls).await;
    drop(broken);
    let (second, answer) = next(&mut calls).await;
    assert_eq!((second.slot, second.seq), (first.slot, first.seq));
    assert!(second.bind > first.bind);
    answer.send(Answer::Errno(28)).unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err(), Errno(28));
    assert!(events.lock().contains(&ClientEvent::Unbound));
}

/// The recall of a layout is handled while its grant is being answered; the caller must still get to use it once.
#[tokio::test]
async fn a_layout_recalled_with_its_grant_comes_with_a_guard() {
    let (path, mut calls, _) = start();
    let ino = InodeNo(9);
    let asked = ask(&path, Request::LayoutGet { ino, range: BlockRange::ALL, want: Want::Read });
    let (call, answer) = next(&mut calls).await;
    let recall = CallbackAsk::Recall { layout: LayoutId(7), ino };
    assert_eq!(path.session().callback(call.client, recall).await, CallbackAnswer::Accepted);
    let grant = LayoutGrant {
        id: LayoutId(7),
        ino,
        range: BlockRange::ALL,
        mode: LayoutMode::Shared,
        extents: Vec::new(),
        size: 0,
        kill_privilege: false,
        beside: Vec::new(),
    };
    answer.send(Answer::Ok(Reply::Layout(grant))).unwrap();
    let answered = asked.await.unwrap().unwrap();
    let guard = answered.guard.expect("its first guard");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), calls.recv()).await.is_err(),
        "not returned while it is used"
    );
    drop(guard);
    let (call, _answer) = next(&mut calls).await;
    assert!(matches!(call.request, Request::Commit { give_back, .. } if give_back == [LayoutId(7)]));
}

#[tokio::test]
async fn a_caller_interrupted_while_a_coordinator_works_for_it_gets_the_answer() {
    let (path, mut calls, _) = start();
    let caller = Caller::interruptible();
    let (his, session) = (caller.clone(), Arc::clone(path.session()));
    let asked = tokio::spawn(async move { session.call(&his, Request::Statfs).await });
    let (_, answer) = next(&mut calls).await;
    caller.interrupt(path.session());
    answer.send(Answer::Errno(5)).unwrap();
    assert_eq!(asked.await.unwrap(), Err(Errno(5)));
}

/// A truncation waited for ever for a layout that it had given back itself: while it put that in, another thread read the
/// core, and then left without a look into the inbox.
#[tokio::test]
async fn what_is_put_in_while_somebody_reads_the_core_is_taken() {
    let (path, mut calls, _) = start();
    let first = ask(&path, Request::Statfs);
    next(&mut calls).await.1.send(Answer::Errno(28)).unwrap();
    assert_eq!(first.await.unwrap().unwrap_err(), Errno(28), "bound, and nothing is due");
    let session = path.session();
    let (waiter, _answer) = oneshot::channel();
    let asker = Asker { waiter: Waiter::Task(waiter), since: None };
    session.look(|_| {
        let put = || {
            session.put(Input::Call {
                ticket: Ticket(1 << 32),
                request: Request::Statfs,
                life: None,
                origin: None,
                asker,
            });
        };
        std::thread::scope(|scope| scope.spawn(put).join()).expect("it waits for nobody");
    });
    assert_eq!(next(&mut calls).await.0.request, Request::Statfs);
}

#[tokio::test]
async fn a_call_without_a_task_is_told_once_also_if_its_link_breaks_or_the_session_ends() {
    let (path, mut calls, _) = start();
    let (told, mut heard) = mpsc::unbounded_channel();
    let ask = || {
        let told = told.clone();
        path.session().call_then(&Caller::patient(), Request::Statfs, move |result| told.send(result).unwrap());
    };
    ask();
    drop(next(&mut calls).await.1);
    next(&mut calls).await.1.send(Answer::Errno(28)).unwrap();
    assert_eq!(heard.recv().await, Some(Err(Errno(28))));
    ask();
    let _unanswered = next(&mut calls).await;
    path.session().over("the end of the test");
    assert_eq!(heard.recv().await, Some(Err(Errno(EIO))));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_call_without_a_task_can_be_interrupted_before_and_after_it_was_made() {
    for early in [true, false] {
        let (path, mut calls, _) = start();
        let caller = Caller::interruptible();
        let (told, heard) = oneshot::channel();
        if early {
            caller.interrupt(path.session());
        }
        path.session().call_then(&caller, Request::Statfs, move |result| told.send(result).unwrap());
        if !early {
            // While a coordinator works for it, it is not let go; when that is gone, it is.
            let (_, broken) = next(&mut calls).await;
            caller.interrupt(path.session());
            drop(broken);
        }
        let result = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("in time").unwrap();
        assert_eq!(result, Err(Errno(EINTR)), "early: {early}");
    }
}

/// A client that was sent away again and again, over a connection that lived on, left a task behind each time.
#[tokio::test]
async fn a_bind_that_is_given_up_leaves_no_task_behind() {
    let (path, mut calls, _, scripted) = start_watched();
    let asked = ask(&path, Request::Statfs);
    for _ in 0..8 {
        next(&mut calls).await.1.send(Answer::StaleBind).unwrap();
    }
    let (_, answer) = next(&mut calls).await;
    let watchers = || scripted.watchers.load(Ordering::SeqCst);
    crate::client::data::tests::rig::until(|| watchers() == 1).await;
    answer.send(Answer::Errno(28)).unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err(), Errno(28));
    drop(path);
    crate::client::data::tests::rig::until(|| watchers() == 0).await;
}

/// A fence was answered while a direct write could still be let in: somebody else was at the core, and the gate was closed only
/// when he let go.
#[tokio::test]
async fn a_fence_that_is_asked_while_somebody_is_at_the_core_has_closed_the_gate_when_it_returns() {
    let (path, _calls, _) = start();
    let session = Arc::clone(path.session());
    assert!(path.enter_direct().is_some());
    let asking = session.look(|_| {
        let (done, is_done) = std::sync::mpsc::channel();
        let asking = std::thread::spawn(move || {
            drop(path.session().fence_asked(FenceGen(9)));
            let closed = path.enter_direct().is_none();
            let _ = done.send(());
            closed
        });
        // Long enough for one that does not wait for the core.
        let _ = is_done.recv_timeout(Duration::from_millis(300));
        asking
    });
    assert!(asking.join().unwrap(), "closed");
}

/// Another order of the same: a worker had passed the gate and was not with the device yet.
#[tokio::test]
async fn a_fence_is_answered_after_whoever_was_let_in_is_with_the_device() {
    let (path, _calls, _) = start();
    let inside = path.enter_direct().unwrap();
    let stopped = path.session().fence_asked(FenceGen(9));
    tokio::pin!(stopped);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut stopped).await.is_err(), "not with the device");
    drop(inside);
    tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("in time");
}
