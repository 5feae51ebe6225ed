//! Stands between one try to start a volume and the event log: follows the volume's notices, tells them (`report` has
//! the words), and holds two things back:
//! - while the volume has not started, what an earlier try has told already (every try takes and loses the same things);
//! - what passes within [`LASTING`]: being without a coordinator during a planned move, or without permission while the
//!   nodes only begin to see one another. It is told once it has lasted, with what is known then.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use csv_fs::client::link::ClientEvent;
use csv_fs::core::client::{Reason, Route};
use csv_fs::core::office;
use csv_fs::volume::Notice;
use net::LinkState;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::node::NodeParts;
use super::peers::Peers;
use super::report;
use crate::events::{Code, Draft, EventLog};

/// What is over sooner is no news.
const LASTING: Duration = Duration::from_secs(1);

/// Tells the notices of one try to start a volume, and then of that volume's life.
pub(super) struct Teller {
    events: Arc<EventLog>,
    /// The other nodes, and whether each is heard.
    heard: Box<dyn Fn() -> Vec<(String, bool)> + Send + Sync>,
    volume: String,
    /// Told by earlier tries.
    earlier: BTreeSet<Code>,
    /// Where the waiting for what lasts runs: notices come from any thread.
    control: Handle,
    state: Mutex<State>,
}

struct State {
    started: bool,
    told: BTreeSet<Code>,
    /// The office renews its slot in time.
    office_path: bool,
    /// The client's route is not away from the disk for the disk's sake.
    client_path: bool,
    /// No coordinator, and no permission.
    unbound: Lasting,
    withheld: Lasting,
}

/// Something that is told only if it lasts. Each time has a number of its own.
#[derive(Default, Debug)]
struct Lasting {
    times: u64,
    now: bool,
}

impl Lasting {
    /// It begins: its number, unless it is going on.
    fn begins(&mut self) -> Option<u64> {
        if self.now {
            return None;
        }
        self.now = true;
        self.times += 1;
        Some(self.times)
    }

    fn ends(&mut self) {
        self.now = false;
    }

    fn lasts(&self, time: u64) -> bool {
        self.now && self.times == time
    }
}

impl Teller {
    /// For one try; `earlier` is what tries before it have told. Called on the control runtime.
    pub(super) fn new(node: &NodeParts, volume: String, earlier: BTreeSet<Code>) -> Arc<Teller> {
        let peers = Arc::clone(&node.peers);
        Teller::of(Arc::clone(&node.events), Box::new(move || heard(&peers)), volume, earlier)
    }

    fn of(
        events: Arc<EventLog>,
        heard: Box<dyn Fn() -> Vec<(String, bool)> + Send + Sync>,
        volume: String,
        earlier: BTreeSet<Code>,
    ) -> Arc<Teller> {
        let state = State {
            started: false,
            told: BTreeSet::new(),
            office_path: true,
            client_path: true,
            unbound: Lasting::default(),
            withheld: Lasting::default(),
        };
        Arc::new(Teller { events, heard, volume, earlier, control: Handle::current(), state: Mutex::new(state) })
    }

    /// Where the volume's notices go. It keeps the teller.
    pub(super) fn sink(teller: &Arc<Teller>) -> Arc<dyn Fn(Notice) + Send + Sync> {
        let teller = Arc::clone(teller);
        Arc::new(move |notice| teller.notice(notice))
    }

    /// The volume has started: from now on everything is told.
    pub(super) fn runs(&self) {
        self.state.lock().started = true;
    }

    /// What this try has told.
    pub(super) fn told(&self) -> BTreeSet<Code> {
        self.state.lock().told.clone()
    }

    fn notice(self: &Arc<Self>, notice: Notice) {
        match self.followed(&notice) {
            Some((lasting, Some(time))) => self.if_it_lasts(lasting, time),
            Some((_, None)) => {}
            None => {
                if let Some(draft) = report::draft(&self.volume, notice) {
                    self.tell(draft);
                }
            }
        }
    }

    /// Keeps up what later events are judged by. Tells what is told only if it lasts, and its number if it begins.
    fn followed(&self, notice: &Notice) -> Option<(Held, Option<u64>)> {
        let mut state = self.state.lock();
        match notice {
            Notice::Client(ClientEvent::Unbound) => return Some((Held::Unbound, state.unbound.begins())),
            Notice::Client(ClientEvent::Bound { .. }) => state.unbound.ends(),
            Notice::Client(ClientEvent::Route { to, .. }) => {
                let disks = matches!(to.reason, Reason::IoTimedOut | Reason::IoFailed | Reason::Fenced);
                state.client_path = to.route == Route::Direct || !disks;
            }
            Notice::Office(office::Report::OwnPathLost) => state.office_path = false,
            Notice::Office(office::Report::OwnPathBack) => state.office_path = true,
            Notice::Office(office::Report::NotPermitted) => return Some((Held::Withheld, state.withheld.begins())),
            Notice::Office(office::Report::Permitted { .. }) => state.withheld.ends(),
            _ => {}
        }
        None
    }

    /// A volume that stops meanwhile has nothing to tell any more.
    fn if_it_lasts(self: &Arc<Self>, held: Held, time: u64) {
        let teller = Arc::downgrade(self);
        self.control.spawn(async move {
            tokio::time::sleep(LASTING).await;
            if let Some(teller) = Weak::upgrade(&teller) {
                teller.it_has_lasted(held, time);
            }
        });
    }

    fn it_has_lasted(&self, held: Held, time: u64) {
        let (lasts, path) = {
            let state = self.state.lock();
            let lasting = match held {
                Held::Unbound => &state.unbound,
                Held::Withheld => &state.withheld,
            };
            (lasting.lasts(time), state.office_path && state.client_path)
        };
        if !lasts {
            return;
        }
        self.tell(match held {
            Held::Unbound => Draft::volume(Code::MetadataWaiting, &self.volume, "no coordinator for a second"),
            Held::Withheld => report::withheld(&self.volume, path, &(self.heard)()),
        });
    }

    fn tell(&self, draft: Draft) {
        {
            let mut state = self.state.lock();
            if !state.started && self.earlier.contains(&draft.code) {
                return;
            }
            state.told.insert(draft.code);
        }
        self.events.record(draft);
    }
}

fn heard(peers: &Peers) -> Vec<(String, bool)> {
    let up = |node| peers.link(node).is_some_and(|l| matches!(*l.borrow(), LinkState::Up(_)));
    peers.addresses().keys().map(|node| (node.to_string(), up(*node))).collect()
}

/// What is told only if it lasts.
#[derive(Clone, Copy, Debug)]
enum Held {
    Unbound,
    Withheld,
}

#[cfg(test)]
mod tests;
