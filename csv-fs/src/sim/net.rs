//! The simulated network: directed cuts, delay, reordering, connections that break on one side first.
//!
//! A message takes its own time, so any two may arrive in either order. A cut holds what belongs to a connection (as
//! TCP would) until the cut heals or the connection is given up, and swallows what does not. A message that has
//! reached its machine is taken up even if its connection breaks afterwards: it waits in a queue of that process, for
//! as long as the process is paused if need be.

use std::collections::{BTreeMap, BTreeSet};

use block::shared::NodeId;

use super::world::{Act, MS, World};
use crate::core::office::{self, PeerLoss};
use crate::core::{client, coord};
use crate::types::{Bind, ClientId};

/// A peer that answers nothing for so long is lost, and its connections with it.
pub(super) const DEAD_PEER: u64 = 1000 * MS;
/// How often links are looked at.
const LOOK: u64 = 100 * MS;

/// A connection of a client to a coordinator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    pub(super) client: NodeId,
    pub(super) who: ClientId,
    pub(super) server: NodeId,
    pub(super) bind: Bind,
    client_process: u64,
    server_process: u64,
    client_open: bool,
    server_open: bool,
}

/// Links and connections.
#[derive(Default)]
pub(super) struct Net {
    /// (from, to) that do not get through.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) slow: BTreeMap<(NodeId, NodeId), u64>,
    conns: BTreeMap<u64, Conn>,
    last: u64,
    /// Pairs (lower id first) that hear each other.
    heard: BTreeSet<(NodeId, NodeId)>,
    /// Since when a pair that is heard gets nothing through.
    silent: BTreeMap<(NodeId, NodeId), u64>,
    watching: bool,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(super) fn conn(&self, id: u64) -> Option<Conn> {
        self.conns.get(&id).copied()
    }

    pub(super) fn hear(&self, a: NodeId, b: NodeId) -> bool {
        self.heard.contains(&pair(a, b))
    }

    /// The open connections.
    pub(super) fn open(&self) -> Vec<u64> {
        self.conns
            .iter()
            .filter(|(_, c)| c.client_open && c.server_open && c.client != c.server)
            .map(|(id, _)| *id)
            .collect()
    }
}

impl World {
    fn gets_through(&self, a: NodeId, b: NodeId) -> bool {
        !self.net.cut.contains(&(a, b))
    }

    fn flies(&mut self, from: NodeId, to: NodeId) -> u64 {
        if from == to {
            return self.rng.range(5, 40);
        }
        let late = if self.rng.permille(20) { self.rng.below(8 * MS) } else { 0 };
        self.rng.range(60, 500) + late + self.net.slow.get(&(from, to)).copied().unwrap_or(0)
    }

    // ---- between daemons

    /// A message that belongs to no connection of a client.
    pub(super) fn message(&mut self, from: NodeId, to: NodeId, act: impl FnOnce(&mut World) + 'static) {
        let flies = self.flies(from, to);
        self.after(flies, move |w| {
            if w.gets_through(from, to) && w.is_up(to) {
                w.at_node(to, 0, act);
            }
        });
    }

    // ---- connections

    /// A client dials. `None`: the port refuses.
    pub(super) fn dial(&mut self, n: NodeId, who: ClientId, to: NodeId, bind: Bind) -> Option<u64> {
        if !self.is_up(to) || (n != to && !self.net.hear(n, to)) {
            return None;
        }
        self.net.last += 1;
        let (client_process, server_process) = (self.nodes[&n].process, self.nodes[&to].process);
        let conn = Conn {
            client: n,
            who,
            server: to,
            bind,
            client_process,
            server_process,
            client_open: true,
            server_open: true,
        };
        self.net.conns.insert(self.net.last, conn);
        Some(self.net.last)
    }

    pub(super) fn towards_server(&mut self, conn: u64, act: impl FnOnce(&mut World) + 'static) {
        let Some(c) = self.net.conn(conn) else { return };
        let flies = self.flies(c.client, c.server);
        self.after(flies, move |w| w.arrive(conn, true, Box::new(act)));
    }

    pub(super) fn towards_client(&mut self, conn: u64, act: impl FnOnce(&mut World) + 'static) {
        let Some(c) = self.net.conn(conn) else { return };
        let flies = self.flies(c.server, c.client);
        self.after(flies, move |w| w.arrive(conn, false, Box::new(act)));
    }

    fn arrive(&mut self, conn: u64, at_server: bool, act: Act) {
        let Some(c) = self.net.conn(conn) else { return };
        let (from, to, process, open) = match at_server {
            true => (c.client, c.server, c.server_process, c.server_open),
            false => (c.server, c.client, c.client_process, c.client_open),
        };
        if !open || self.nodes[&to].process != process || !self.is_up(to) {
            return;
        }
        if !self.gets_through(from, to) {
            return self.after(20 * MS, move |w| w.arrive(conn, at_server, act));
        }
        self.at_node(to, 0, act);
    }

    /// A connection breaks: the client hears of it after one while, the server after another.
    pub(super) fn break_conn(&mut self, conn: u64, server_later: u64) {
        let Some(c) = self.net.conn(conn) else { return };
        let soon = self.rng.below(3 * MS);
        self.after(soon, move |w| w.client_side_closes(conn));
        self.after(server_later, move |w| w.server_side_closes(conn));
        self.trace(|| format!("connection {conn} of {} to node {} breaks", c.who, c.server));
    }

    /// A connection breaks at once on the client's side: what was on its way to the client is gone.
    pub(super) fn cut_off(&mut self, conn: u64) {
        self.client_side_closes(conn);
        self.after(2 * MS, move |w| w.server_side_closes(conn));
    }

    fn client_side_closes(&mut self, conn: u64) {
        let Some(c) = self.net.conns.get_mut(&conn) else { return };
        if !std::mem::replace(&mut c.client_open, false) {
            return;
        }
        let (n, process, bind, who) = (c.client, c.client_process, c.bind, c.who);
        if self.is_up(n) && self.nodes[&n].process == process {
            self.at_node(n, 0, move |w| {
                if w.client_is(n) == Some(who) {
                    w.client(n, client::Event::LinkLost { bind });
                }
            });
        }
        self.forget_conn(conn);
    }

    fn server_side_closes(&mut self, conn: u64) {
        let Some(c) = self.net.conns.get_mut(&conn) else { return };
        if !std::mem::replace(&mut c.server_open, false) {
            return;
        }
        let (n, process) = (c.server, c.server_process);
        if self.is_up(n) && self.nodes[&n].process == process {
            self.at_node(n, 0, move |w| {
                w.callbacks_break(n, conn);
                w.coord(n, coord::Event::ConnLost { conn: coord::ConnId(conn) });
            });
        }
        self.forget_conn(conn);
    }

    fn forget_conn(&mut self, conn: u64) {
        if self.net.conns.get(&conn).is_some_and(|c| !c.client_open && !c.server_open) {
            self.net.conns.remove(&conn);
        }
    }

    /// The client gives a connection up.
    pub(super) fn hang_up(&mut self, conn: u64) {
        if let Some(c) = self.net.conns.get_mut(&conn) {
            c.client_open = false;
            let later = self.rng.below(5 * MS);
            self.after(later, move |w| w.server_side_closes(conn));
        }
    }

    // ---- who hears whom

    pub(super) fn net_started(&mut self, _: NodeId) {
        if !std::mem::replace(&mut self.net.watching, true) {
            self.after(5 * MS, World::look_at_links);
        }
    }

    pub(super) fn net_died(&mut self, n: NodeId) {
        for m in self.all() {
            if m == n || !self.net.heard.remove(&pair(n, m)) {
                continue;
            }
            if self.gets_through(n, m) {
                let soon = self.rng.range(MS, 5 * MS);
                self.at_node(m, soon, move |w| w.office(m, office::Event::PeerLost { node: n, how: PeerLoss::Closed }));
                self.at_node(m, soon + 60 * MS, move |w| {
                    if !w.is_up(n) && w.gets_through(m, n) {
                        w.office(m, office::Event::PeerLost { node: n, how: PeerLoss::Refused });
                        w.known_dead(m, n);
                    }
                });
            } else {
                self.after(DEAD_PEER, move |w| w.peer_silent(m, n));
            }
        }
        let conns: Vec<u64> =
            self.net.conns.iter().filter(|(_, c)| c.client == n || c.server == n).map(|(id, _)| *id).collect();
        for conn in conns {
            let later = if self.net.cut.is_empty() { MS } else { DEAD_PEER };
            self.break_conn(conn, later);
        }
    }

    fn look_at_links(&mut self) {
        let all = self.all();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                self.look_at_link(*a, *b);
            }
        }
        self.after(LOOK, World::look_at_links);
    }

    fn look_at_link(&mut self, a: NodeId, b: NodeId) {
        let key = pair(a, b);
        let good = self.gets_through(a, b) && self.gets_through(b, a) && self.is_running(a) && self.is_running(b);
        let heard = self.net.heard.contains(&key);
        if good {
            self.net.silent.remove(&key);
        }
        if good && !heard {
            self.net.heard.insert(key);
            for (x, y) in [(a, b), (b, a)] {
                let soon = self.rng.below(20 * MS);
                self.at_node(x, soon, move |w| {
                    if w.net.hear(x, y) {
                        w.office(x, office::Event::PeerHeard { node: y });
                        w.client(x, client::Event::Reachable { node: y });
                    }
                });
            }
        }
        if good || !heard {
            return;
        }
        let since = *self.net.silent.entry(key).or_insert(self.now);
        if self.now - since >= DEAD_PEER {
            self.net.heard.remove(&key);
            self.net.silent.remove(&key);
            for (x, y) in [(a, b), (b, a)] {
                self.peer_silent(x, y);
            }
            let between = |c: &Conn| pair(c.client, c.server) == key;
            let conns: Vec<u64> = self.net.conns.iter().filter(|(_, c)| between(c)).map(|(id, _)| *id).collect();
            for conn in conns {
                self.break_conn(conn, MS);
            }
        }
    }

    /// A loss is told of a peer that is lost: not of one whose next process was heard in the meantime, which nothing
    /// would ever take back.
    fn peer_silent(&mut self, at: NodeId, of: NodeId) {
        if self.is_up(at) && !self.net.heard.contains(&pair(at, of)) {
            self.at_node(at, 0, move |w| w.office(at, office::Event::PeerLost { node: of, how: PeerLoss::Silent }));
        }
    }
}
