//! One seed: a safety phase under faults, then the faults end and everything must heal.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use super::app::{FILES, IN_PLACE, Op, file};
use super::coverage::Coverage;
use super::files::Ctx;
use super::oracle::{Invariant, Violation};
use super::rng::Rng;
use super::store::State;
use super::world::{MS, Setup, Sim, World};
use crate::core::client::{Binding, Route};
use crate::core::rules::Rules;
use crate::types::FS_BLOCK;

/// The safety phase in virtual milliseconds.
const SAFETY: u64 = 25_000;
/// By so much it is longer, again and again, if chance made too few faults.
const MORE: u64 = 5_000;
/// Within so many virtual milliseconds everything must be whole again.
const HEALS: u64 = 60_000;
/// Fewer events or faults than these do not make a seed.
pub const EVENTS: u64 = 1000;
/// See [`EVENTS`].
pub const FAULTS: u64 = 10;

/// How a run ended.
#[derive(Debug)]
pub enum Verdict {
    /// Every oracle was content.
    Good,
    /// An oracle was not.
    Violated(Violation),
    /// An assertion failed inside a core (or in the simulation): not a find of an oracle.
    Panicked(String),
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What happened how often.
    pub coverage: Coverage,
    /// Events given to cores.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Reads that were compared with what was written.
    pub reads: u64,
    /// Incarnations that were evicted.
    pub evictions: usize,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

/// The setup of a seed.
pub fn setup_of(seed: u64, rules: Rules) -> Setup {
    let mut rng = Rng::new(seed ^ 0x5e7);
    let nodes = [2, 3, 3, 3, 4, 5, 7][rng.below(7) as usize];
    let scsi = rng.permille(350);
    let nexuses = 1 + rng.below(2) as u16;
    // Of its own, so that seeds are what they were without it.
    let mut patience = Rng::new(seed ^ 0x10e0);
    let io_timeout = if patience.permille(350) { patience.range(1200, 8000) } else { 0 };
    Setup { seed, nodes, scsi, nexuses, rules, blocks: 60 + 12 * u64::from(nodes), io_timeout, loud: false }
}

/// Runs a seed.
pub fn run_seed(setup: Setup) -> Outcome {
    guarded(setup, |sim| {
        let mut rng = Rng::new(setup.seed ^ 0xfa17);
        sim.world.borrow_mut().busy = true;
        start_all(sim);
        sim.run_for(2500);
        let mean = rng.range(250, 1500);
        {
            let mut w = sim.world.borrow_mut();
            let end = w.now + SAFETY * MS;
            w.faults_until(end, mean);
        }
        sim.run_for(SAFETY);
        while sim.world.borrow().faults < FAULTS && sim.world.borrow().oracle.violation.is_none() {
            let mut w = sim.world.borrow_mut();
            let end = w.now + MORE * MS;
            w.faults_until(end, mean / 2);
            drop(w);
            sim.run_for(MORE);
        }
        {
            let mut w = sim.world.borrow_mut();
            w.heal_all();
            w.ops_done.clear();
        }
        sim.run_for(6500);
        sim.world.borrow_mut().heal_all();
        heals(sim);
    })
}

/// Starts every node.
pub(super) fn start_all(sim: &Sim) {
    let mut w = sim.world.borrow_mut();
    for n in w.all() {
        w.start(n);
    }
}

fn whole(w: &World) -> Result<(), String> {
    if w.coordinators().len() != 1 {
        return Err(format!("nodes in office: {:?}; lease {:?}", w.coordinators(), w.disk.lun.lease));
    }
    for (n, node) in &w.nodes {
        let Some(client) = node.proc.as_ref().and_then(|p| p.client.as_ref()) else {
            return Err(format!("{n} has no client"));
        };
        if !matches!(client.core.binding(), Binding::Bound { .. }) {
            return Err(format!("{n}: {:?}", client.core.binding()));
        }
        if client.core.route().route != Route::Direct {
            return Err(format!("{n}: {:?}", client.core.route()));
        }
        if w.ops_done.get(n).copied().unwrap_or(0) < 5 {
            return Err(format!("applications of {n} do not get on: {:?} operations", w.ops_done.get(n)));
        }
    }
    Ok(())
}

/// What applications that do not end are at, and what their client waits for.
fn stuck(w: &World) -> String {
    let mut text = format!("applications that do not end: {:?}", w.doing);
    for n in w.doing.keys().map(|(n, _)| *n) {
        let Some(shell) = w.nodes[&n].proc.as_ref().and_then(|p| p.client.as_ref()) else { continue };
        let busy = shell.files.iter().filter(|(_, f)| f.committing || f.appending || !f.locked.is_empty());
        let busy: Vec<_> = busy.map(|(i, f)| (i.0, f.committing, f.appending, &f.locked)).collect();
        text += &format!(
            "; {}: load {:?}, files {busy:?}, free {}",
            shell.core.client(),
            shell.core.load(),
            w.disk.lun.store.free.len()
        );
    }
    text
}

/// Faults are off: a coordinator, everybody bound and direct, applications at work; then they end, and every block is
/// read everywhere.
fn heals(sim: &mut Sim) {
    if !sim.run_until(HEALS, |w| whole(w).is_ok()) {
        return not_healed(sim, |w| whole(w).err().unwrap_or_default());
    }
    sim.world.borrow_mut().closing = true;
    if !sim.run_until(HEALS, |w| w.apps.values().all(|n| *n == 0)) {
        return not_healed(sim, stuck);
    }
    // What an interrupted program was given after all is still on its way back.
    if !sim.run_until(HEALS, |w| w.locks_left().is_empty()) {
        return not_healed(sim, |w| format!("locks, or waiters for them, are left: {:?}", w.locks_left()));
    }
    let left = Rc::new(Cell::new(0));
    {
        let mut w = sim.world.borrow_mut();
        for n in w.all() {
            let Some(who) = w.client_is(n) else { continue };
            let ctx = Ctx::new(&w, n, who);
            left.set(left.get() + 1);
            let left = Rc::clone(&left);
            w.spawn_at(n, async move {
                for block in 0..IN_PLACE {
                    for op in [Op::Read(file(0), block), Op::Read(file(1), block), Op::Read(file(2), block)] {
                        let done = ctx.run(op).await;
                        let _ = ctx.with(|w| w.op_ended(n, who, op, done));
                    }
                }
                let done = ctx.run(Op::Stat(file(2))).await;
                let _ = ctx.with(|w| w.op_ended(n, who, Op::Stat(file(2)), done));
                left.set(left.get() - 1);
            });
        }
    }
    sim.settle();
    if !sim.run_until(HEALS, |_| left.get() == 0) {
        return not_healed(sim, |_| "the last reads do not end".to_owned());
    }
    let mut w = sim.world.borrow_mut();
    let store = Rc::clone(&w.disk.lun.store);
    w.oracle.names_are(|name| store.names.contains_key(name));
    w.oracle.evictions_were_real();
}

fn not_healed(sim: &Sim, why: impl Fn(&World) -> String) {
    let mut w = sim.world.borrow_mut();
    let why = why(&w);
    w.oracle.fail(Invariant::Heals, why);
}

/// A world for a setup, with its files.
pub(super) fn world_of(setup: Setup) -> Rc<RefCell<World>> {
    let world = World::new(setup, State::format(setup.blocks, &FILES));
    {
        let mut w = world.borrow_mut();
        for (n, (_, written, reserved)) in (0..).zip(FILES) {
            w.oracle.starts_with(file(n), (written + reserved) * FS_BLOCK);
        }
    }
    world
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static WHERE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of a run are its outcome, and are not printed as they happen.
fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.with(Cell::get) {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                WHERE.with(|w| w.replace(place));
            } else {
                before(info);
            }
        }));
    });
}

/// Builds a world, has `script` run it, and tells what came of it.
pub(super) fn guarded(setup: Setup, script: impl FnOnce(&mut Sim)) -> Outcome {
    quiet_panics();
    let world = world_of(setup);
    let inside = Rc::clone(&world);
    QUIET.with(|q| q.set(!setup.loud));
    let result = catch_unwind(AssertUnwindSafe(move || {
        let mut sim = Sim::new(inside);
        script(&mut sim);
    }));
    QUIET.with(|q| q.set(false));
    let w = world.borrow_mut();
    let verdict = match (result, &w.oracle.violation) {
        (_, Some(violation)) => Verdict::Violated(violation.clone()),
        (Ok(()), None) => Verdict::Good,
        (Err(panic), None) => Verdict::Panicked(format!("{} at {}", text_of(&*panic), WHERE.with(RefCell::take))),
    };
    Outcome {
        verdict,
        coverage: w.coverage.clone(),
        events: w.events,
        faults: w.faults,
        reads: w.oracle.reads_checked,
        evictions: w.oracle.evictions(),
        trace: w.lines(),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without a text".to_owned(),
    }
}
