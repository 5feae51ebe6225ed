//! What scripts are written with.

use std::cell::Cell;
use std::rc::Rc;

use block::shared::NodeId;

use crate::core::client::{Binding, Route};
use crate::sim::app::Op;
use crate::sim::files::Ctx;
use crate::sim::oracle::Invariant;
use crate::sim::world::{Sim, World};
use crate::types::ClientId;

/// An operation that was begun.
pub(super) type Ended = Rc<Cell<bool>>;

/// A world, and a script at work on it.
pub(super) struct Script<'a> {
    sim: &'a mut Sim,
}

/// A node by its number.
pub(super) fn node(n: u8) -> NodeId {
    NodeId::new(n).expect("a node of the script")
}

impl<'a> Script<'a> {
    pub(super) fn new(sim: &'a mut Sim) -> Script<'a> {
        Script { sim }
    }

    /// Changes or looks at the world.
    pub(super) fn world<T>(&mut self, f: impl FnOnce(&mut World) -> T) -> T {
        let out = f(&mut self.sim.world.borrow_mut());
        self.sim.settle();
        out
    }

    /// `first` takes office, then the others come, and everybody is bound and direct.
    pub(super) fn begin(&mut self, first: u8) {
        self.world(|w| w.start(node(first)));
        self.until(20_000, "the first node takes office", |w| w.in_office(node(first)));
        self.world(|w| {
            for n in w.all() {
                if !w.is_up(n) {
                    w.start(n);
                }
            }
        });
        self.until(20_000, "everybody is bound", |w| w.nodes.keys().all(|n| is_bound(w, *n)));
        self.run(600);
    }

    pub(super) fn run(&mut self, ms: u64) {
        self.sim.run_for(ms);
    }

    /// A fault of the script.
    pub(super) fn fault(&mut self, name: &str, f: impl FnOnce(&mut World)) {
        self.world(|w| {
            w.fault(name);
            f(w);
        });
    }

    /// Runs until something is so; that it never comes is a failure of liveness.
    pub(super) fn until(&mut self, ms: u64, what: &str, done: impl Fn(&World) -> bool) {
        if !self.sim.run_until(ms, done) {
            self.world(|w| w.oracle.fail(Invariant::Heals, format!("never: {what}")));
        }
    }

    /// Begins an operation of an application of a node.
    pub(super) fn op(&mut self, n: u8, op: Op) -> Ended {
        let ended = Rc::new(Cell::new(false));
        let told = Rc::clone(&ended);
        self.world(|w| {
            let n = node(n);
            let Some(who) = w.client_is(n) else { return };
            let ctx = Ctx::new(w, n, who);
            let me = w.me.clone();
            w.spawn_at(n, async move {
                let result = ctx.run(op).await;
                told.set(true);
                if let Some(world) = me.upgrade() {
                    world.borrow_mut().op_ended(n, who, op, result);
                }
            });
        });
        ended
    }

    /// An operation must end.
    pub(super) fn ends(&mut self, ended: &Ended, ms: u64, what: &str) {
        let ended = Rc::clone(ended);
        self.until(ms, what, move |_| ended.get());
        // What comes next comes after it, also for an oracle that compares times.
        self.run(1);
    }

    /// An operation, from its beginning to its end.
    pub(super) fn does(&mut self, n: u8, op: Op) {
        let ended = self.op(n, op);
        self.ends(&ended, 30_000, "an operation ends");
    }

    pub(super) fn who(&mut self, n: u8) -> Option<ClientId> {
        self.world(|w| w.client_is(node(n)))
    }

    /// Faults are over: everybody is bound and direct in the end, and blocks read as they should.
    pub(super) fn heals(&mut self, read: &[Op]) {
        self.world(World::heal_all);
        self.until(60_000, "everybody is whole again", |w| {
            w.coordinators().len() == 1
                && w.nodes.keys().all(|n| is_bound(w, *n) && route(w, *n) == Some(Route::Direct))
        });
        let nodes: Vec<u8> = self.world(|w| w.all().iter().map(|n| n.get()).collect());
        for n in nodes {
            for op in read {
                self.does(n, *op);
            }
        }
        self.world(|w| w.oracle.evictions_were_real());
    }

    /// A life that went on in the next process.
    pub(super) fn same_life(&mut self, n: u8, who: Option<ClientId>) {
        let now = self.who(n);
        if now != who {
            self.world(|w| w.oracle.fail(Invariant::AsIfNothingHappened, format!("{who:?} went on as {now:?}")));
        }
    }

    /// An eviction that nothing called for.
    pub(super) fn not_evicted(&mut self, n: u8, who: Option<ClientId>) {
        self.world(|w| {
            if let Some(who) = who.filter(|who| w.oracle.is_evicted(*who)) {
                w.oracle.fail(Invariant::AsIfNothingHappened, format!("{who} of node {n} was evicted"));
            }
        });
    }
}

pub(super) fn is_bound(w: &World, n: NodeId) -> bool {
    let client = w.nodes[&n].proc.as_ref().and_then(|p| p.client.as_ref());
    client.is_some_and(|c| matches!(c.core.binding(), Binding::Bound { .. }))
}

pub(super) fn route(w: &World, n: NodeId) -> Option<Route> {
    w.nodes[&n].proc.as_ref().and_then(|p| p.client.as_ref()).map(|c| c.core.route().route)
}
