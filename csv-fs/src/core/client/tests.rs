//! Exact effects of the core: what goes out for what comes in, in order.

mod binding;
mod expiry;
mod hand_on;
mod layouts;
mod recover;
mod redirect;
mod route;

use std::time::Duration;

use block::shared::{Epoch, FenceGen, Incarnation, NodeId};

use super::*;
use crate::proto::{Answer, Call, CoordinatorHint, LayoutGrant, OpenRequest, RedirectOp, Reply, Verifier};

pub(super) const INO: InodeNo = InodeNo(7);

/// As in the default timing.
pub(super) const RIDES_OUT: Duration = Duration::from_secs(5);

/// A core and a clock.
pub(super) struct Rig {
    pub(super) core: Client,
    pub(super) now: Now,
}

pub(super) fn me() -> ClientId {
    ClientId { node: NodeId::new(2).expect("a node id"), incarnation: Incarnation(9) }
}

pub(super) fn hint(epoch: u64, node: u8) -> CoordinatorHint {
    CoordinatorHint { epoch: Epoch(epoch), node: NodeId::new(node).expect("a node id") }
}

pub(super) fn verifier(epoch: u64) -> Verifier {
    Verifier { epoch: Epoch(epoch), boot: epoch, generation: 0 }
}

pub(super) fn bound_answer(epoch: u64, refused: Vec<LayoutId>) -> BindAnswer {
    BindAnswer::Bound {
        epoch: Epoch(epoch),
        grace: false,
        grants: Vec::new(),
        refused,
        fence_gen: FenceGen(3),
        verifier: verifier(epoch),
    }
}

pub(super) fn grant(id: u64, range: BlockRange, mode: LayoutMode) -> LayoutGrant {
    LayoutGrant {
        id: LayoutId(id),
        ino: INO,
        range,
        mode,
        extents: Vec::new(),
        size: 0,
        kill_privilege: false,
        beside: Vec::new(),
    }
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig::with(Rules::all())
    }

    pub(super) fn with(rules: Rules) -> Rig {
        let config = ClientConfig {
            volume: VolumeId(1),
            client: me(),
            fence_gen: FenceGen(3),
            probe_every: Duration::from_millis(250),
            kept_limit: 8192,
            rides_out: RIDES_OUT,
        };
        Rig { core: Client::new(config, rules, Now(0)), now: Now(0) }
    }

    /// Bound to node 1 in epoch 5 under bind 1.
    pub(super) fn bound() -> Rig {
        let mut rig = Rig::new();
        rig.bind_to(5, 1);
        rig
    }

    /// Bound to the coordinator of its own node.
    pub(super) fn at_home() -> Rig {
        let mut rig = Rig::new();
        rig.bind_to(5, me().node.get());
        rig
    }

    pub(super) fn bind_to(&mut self, epoch: u64, node: u8) {
        self.event(Event::Hint(hint(epoch, node)));
        let bind = self.core.binder.last;
        let out = self.event(Event::BindAnswered { bind, answer: bound_answer(epoch, Vec::new()) });
        assert!(matches!(out[0], Effect::Bound { .. }), "{out:?}");
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.core.handle(self.now, event, &mut out);
        out
    }

    pub(super) fn after(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now + Duration::from_millis(ms);
        self.event(Event::Tick)
    }

    pub(super) fn submit(&mut self, ticket: u64, request: Request) -> Vec<Effect> {
        self.event(Event::Submit { ticket: Ticket(ticket), request })
    }

    /// Answers the call that an effect carries.
    pub(super) fn answer(&mut self, call: &Call, answer: Answer) -> Vec<Effect> {
        self.event(Event::Answered { bind: call.bind, slot: call.slot, seq: call.seq, answer })
    }

    /// Holds a layout that was asked for by ticket 1.
    pub(super) fn hold(&mut self, layout: LayoutGrant) {
        let out = self.submit(1, Request::LayoutGet { ino: layout.ino, range: layout.range, want: Want::Write });
        let call = sent_call(&out);
        let out = self.answer(&call, Answer::Ok(Reply::Layout(layout)));
        assert!(matches!(out[0], Effect::Granted { .. }), "{out:?}");
    }

    pub(super) fn recall(&mut self, layout: u64) -> Vec<Effect> {
        self.event(Event::Asked {
            client: me(),
            ask: CallbackAsk::Recall { layout: LayoutId(layout), ino: INO },
            dirty: false,
        })
    }

    /// The proof that was asked for last.
    pub(super) fn proved(&mut self) -> Vec<Effect> {
        let number = self.core.router.aborts;
        self.event(Event::NothingInFlight { number })
    }

    /// Off the direct route, up to the path fence.
    pub(super) fn redirected(&mut self) {
        self.event(Event::PathSuspect { reason: Reason::IoTimedOut });
        let call = sent_call(&self.proved());
        self.answer(&call, Answer::Ok(Reply::PathFenced { fence_gen: FenceGen(4) }));
        assert_eq!(self.core.route().route, Route::BlockRedirected);
    }

    pub(super) fn io(&mut self, io: u64, op: RedirectOp) -> Vec<Effect> {
        self.event(Event::Redirect { io: IoId(io), layout: LayoutId(70), op, at: 4096 * io, len: 4096, once: false })
    }

    pub(super) fn io_done(&mut self, io: u64, epoch: u64) -> Vec<Effect> {
        let bind = self.core.binder.last;
        self.event(Event::RedirectAnswered {
            io: IoId(io),
            bind,
            answer: RedirectAnswer::Done { verifier: verifier(epoch) },
        })
    }
}

pub(super) use crate::proto::Want;

/// The only call among the effects.
pub(super) fn sent_call(out: &[Effect]) -> Call {
    let calls: Vec<&Call> =
        out.iter().filter_map(|e| if let Effect::SendCall { call } = e { Some(&**call) } else { None }).collect();
    assert_eq!(calls.len(), 1, "{out:?}");
    calls[0].clone()
}

/// Which redirected requests go out, in order.
pub(super) fn sent_io(out: &[Effect]) -> Vec<u64> {
    out.iter().filter_map(|e| if let Effect::SendRedirect { io, .. } = e { Some(io.0) } else { None }).collect()
}

pub(super) fn open(handle: u64) -> Request {
    Request::Open { ino: INO, open: OpenRequest { handle: HandleId(handle), flags: 2 } }
}
