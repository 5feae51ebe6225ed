//! What happens: messages and disks, applications, administrators, faults.

use super::*;

/// Milliseconds in which a node that was told to end comes to rest, whatever its disk does.
const RESTS_WITHIN: u64 = 3_000;

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver(from, to, conn, message) => self.deliver(from, to, conn, message),
            Happening::Hangup(from, to, conn) => self.heard_hangup(from, to, conn),
            Happening::Dial(a, b) => self.dial(a, b),
            Happening::Io(node, life, io) => self.io_done(node, life, io),
            Happening::MetaStep(node, life, io, step) => self.meta_step(node, life, io, step),
            Happening::Voted(life, number) => self.voted(life, number),
            Happening::Tick => {
                for node in self.disks.iter() {
                    let load = self.hosts.get_mut(&node).map(|h| std::mem::take(&mut h.load)).unwrap_or_default();
                    self.event(node, Event::Load(load));
                    self.event(node, Event::Tick);
                }
                self.witness_event(WitnessEvent::Tick);
                self.later(10, Happening::Tick);
            }
            Happening::App(node) => self.application(node),
            Happening::Asks(node) => self.ask_to_promote(node),
            Happening::Admin => self.administrator(),
            Happening::Fault => self.fault(),
            Happening::Restart(node) => {
                if self.tie_breaker == Some(node) {
                    self.start_witness();
                } else {
                    self.start(node);
                }
            }
            Happening::Turn(node, life) => {
                if self.hosts[&node].life == life {
                    self.turn(node);
                }
            }
            Happening::Rest(node, life) => {
                if self.hosts[&node].life == life && self.is_up(node) {
                    self.later(RESTS_WITHIN, Happening::Ends(node, life, None));
                    self.event(node, Event::Rest);
                }
            }
            Happening::Ends(node, life, rests) => self.ends(node, life, rests),
            Happening::Mend(a, b) => {
                self.cut.remove(&pair(a, b));
                self.delay.remove(&pair(a, b));
                if self.conns.get(&pair(a, b)).is_some_and(|(c, _)| self.torn.contains(c)) {
                    self.reset(a, b);
                }
            }
            Happening::Quicken(node) => {
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.slow = 0;
                }
            }
            Happening::Answers(node) => self.answers(node),
            Happening::Longer(node, volume, sectors) => self.longer(node, volume, sectors),
            Happening::Measured(node, life) => self.measured(node, life),
            Happening::Lands(node, io) => self.lands(node, io),
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, conn: ConnId, message: Message) {
        let key = pair(from, to);
        let open = self.conns.get(&key).is_some_and(|(c, ends)| *c == conn && ends.has(to));
        if self.is_cut(key, conn) || !open {
            return;
        }
        if let Message::Write { data, .. } = &message {
            let value = data.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            self.oracle.streamed(to, value);
        }
        if let Message::Pulled { run, pieces, data, .. } = &message {
            let end = Volume::of(run.at).map_or(0, Volume::base) + MOST;
            let parts = spread(*run, pieces, data, end, VALUE).unwrap_or_default();
            for (span, _, data) in parts.into_iter().filter(|(_, kind, _)| *kind != Kind::Same) {
                for (n, sector) in (span.at..span.end()).enumerate() {
                    let new = data.chunks(VALUE).nth(n).and_then(|b| b.first_chunk());
                    let old = self.hosts[&to].disk.values(sector).0;
                    self.oracle.overwrites(to, from, sector, old, new.map_or(0, |b| u64::from_le_bytes(*b)));
                }
            }
        }
        let copy = message.clone();
        self.tell(to, Event::Received(from, conn, message), |n| WitnessEvent::Received(n, conn, copy.clone()), from);
    }

    fn heard_hangup(&mut self, from: NodeId, to: NodeId, conn: ConnId) {
        let key = pair(from, to);
        if self.is_cut(key, conn) {
            return;
        }
        if self.conns.get(&key).is_some_and(|(c, ends)| *c == conn && ends.has(to)) {
            self.conns.remove(&key);
            self.oracle.stream_over(to);
            self.tell(to, Event::Lost(from, conn), |n| WitnessEvent::Lost(n, conn), from);
            let wait = 5 + self.rng.below(40);
            self.later(wait, Happening::Dial(from, to));
        }
    }

    pub(super) fn effect(&mut self, at: NodeId, effect: Effect) {
        if self.plan.loud {
            println!("         {at} -> {effect:?}");
        }
        let wait = 1 + self.rng.below(5) + self.hosts[&at].slow;
        let life = self.hosts[&at].life;
        match effect {
            Effect::Send(to, conn, message) => {
                let name = format!("{message:?}");
                let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
                self.count(format!("message: {}", &name[..end]));
                self.transmit(at, to, conn, message);
            }
            Effect::Close(to, conn, again) => {
                self.oracle.stream_over(at);
                self.hang_up(at, to, conn, again);
            }
            Effect::Read(io, span) => {
                self.work(at, io, Work::Read(span));
                self.later(wait, Happening::Io(at, life, io));
            }
            Effect::Digest(io, span) => {
                self.work(at, io, Work::Digest(span));
                self.later(wait, Happening::Io(at, life, io));
            }
            Effect::Compare(io, span, digests) => {
                self.work(at, io, Work::Compare(span, digests));
                self.later(wait, Happening::Io(at, life, io));
            }
            Effect::Write(io, span, data, fua) => self.begin_write(at, io, span, data, fua, wait),
            Effect::Zero(io, span, _) => {
                let zeroes = vec![0; span.len as usize * VALUE].into();
                self.begin_write(at, io, span, zeroes, false, wait);
            }
            Effect::Flush(io) => {
                let disk = &self.hosts[&at].disk;
                let of_all = self.plan.rules.has(Rule::FlushIsOfAllDisks);
                let snapshot = if of_all { disk.snapshot() } else { disk.snapshot_of_first() };
                self.work(at, io, Work::Flush(snapshot));
                self.later(wait, Happening::Io(at, life, io));
            }
            Effect::Meta(io, write) => {
                let snapshot = self.hosts[&at].disk.snapshot();
                self.work(at, io, Work::Meta(write, snapshot));
                self.later(wait, Happening::MetaStep(at, life, io, 0));
            }
            Effect::Measure => self.later(wait, Happening::Measured(at, life)),
            Effect::Complete(req, result) => self.completed(at, req, result),
            Effect::Told(report) => self.reported(at, &report),
        }
    }

    fn work(&mut self, at: NodeId, io: IoId, work: Work) {
        if let Some(host) = self.hosts.get_mut(&at) {
            host.work.insert(io, work);
        }
    }

    fn begin_write(&mut self, at: NodeId, io: IoId, span: Span, data: Bytes, fua: bool, wait: u64) {
        let value = data.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let Some(host) = self.hosts.get_mut(&at) else { return };
        self.oracle.starts(at, value, &host.disk);
        let life = host.life;
        host.disk.fly_data(flight(life, io), span, &data);
        host.work.insert(io, Work::Write(span, data, fua));
        self.later(wait, Happening::Io(at, life, io));
    }

    fn io_done(&mut self, node: NodeId, life: u64, io: IoId) {
        let passes_on = self.disk_policy().on_io_error == OnIoError::PassOn;
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.life == life) else { return };
        if host.hung {
            return host.held.push(Happening::Io(node, life, io));
        }
        let Some(work) = host.work.remove(&io) else { return };
        if host.breaks {
            host.breaks = false;
            host.disk.tear(flight(life, io), &mut self.rng);
            // If the disk is left after all, that is told.
            if !passes_on {
                self.oracle.crashed(node, self.now);
            }
            return self.event(node, Event::Done(io, Err(DiskError)));
        }
        // Of the last bit what lies on the device, as it is.
        let sizes = host.node.as_ref().map(Node::sizes);
        let within = |s: Span| sizes.map_or(s, |sizes| sizes.within(s));
        let result = match work {
            Work::Read(span) => host.disk.read(within(span)),
            Work::Digest(span) => {
                let digests = digests(&host.disk.read(within(span)), UNIT as usize * VALUE);
                return self.event(node, Event::Digested(io, digests));
            }
            Work::Compare(span, theirs) => {
                let found = compare(&host.disk.read(within(span)), UNIT as usize * VALUE, &theirs);
                return self.event(node, Event::Compared(io, found));
            }
            Work::Write(span, data, fua) => {
                host.disk.land(flight(life, io), fua);
                for (sector, bytes) in (span.at..).zip(data.chunks(8)) {
                    let value = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
                    self.oracle.landed(node, sector, value);
                }
                Bytes::new()
            }
            Work::Flush(snapshot) => {
                host.disk.flush(&snapshot);
                Bytes::new()
            }
            Work::Meta(..) => return,
        };
        self.event(node, Event::Done(io, Ok(result)));
    }

    /// A change of metadata: flush, the first part, flush, the second, flush.
    fn meta_step(&mut self, node: NodeId, life: u64, io: IoId, step: u8) {
        let wait = 1 + self.rng.below(3);
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.life == life) else { return };
        if host.hung {
            return host.held.push(Happening::MetaStep(node, life, io, step));
        }
        let key = flight(life, io);
        let Some(Work::Meta(write, snapshot)) = host.work.get_mut(&io) else { return };
        if host.breaks {
            host.breaks = false;
            host.work.remove(&io);
            host.disk.tear(key, &mut self.rng);
            self.oracle.crashed(node, self.now);
            return self.event(node, Event::Done(io, Err(DiskError)));
        }
        host.disk.land(key, false);
        let now = if step == 0 { snapshot.clone() } else { host.disk.snapshot() };
        host.disk.flush(&now);
        match step {
            0 => host.disk.fly_meta(key, &write.first),
            1 => host.disk.fly_meta(key, &write.then),
            _ => {
                host.work.remove(&io);
                return self.event(node, Event::Done(io, Ok(Bytes::new())));
            }
        }
        self.later(wait, Happening::MetaStep(node, life, io, step + 1));
    }

    fn voted(&mut self, life: u64, number: u64) {
        let vote = self.votes.remove(&(life, number));
        if let Some(vote) = vote.filter(|_| life == self.witness_life) {
            // A later one that got there first contains it.
            if number > self.voted {
                (self.vote, self.voted) = (vote, number);
            }
            self.witness_event(WitnessEvent::Persisted(number));
        }
    }

    fn application(&mut self, node: NodeId) {
        let pause = if self.hurts() { 2 + self.rng.below(12) } else { 60 };
        self.later(pause, Happening::App(node));
        let host = &self.hosts[&node];
        let (primary, busy) = (host.node.as_ref().is_some_and(Node::is_primary), host.jobs.len());
        if !primary || busy >= BUSY {
            return;
        }
        let sizes = host.node.as_ref().map_or(Sizes::default(), Node::sizes);
        let in_second = sizes.of(second()) > 0 && self.rng.permille(450);
        let volume = if in_second { second() } else { Volume::FIRST };
        let blocks = sizes.of(volume) / BLOCK;
        let at = self.rng.below(blocks) * BLOCK;
        // Few blocks are written often, so that requests overlap.
        let at = if self.rng.permille(400) { at % (4 * BLOCK) } else { at };
        let len = if self.rng.permille(250) && at + 2 * BLOCK <= blocks * BLOCK { 2 * BLOCK } else { BLOCK };
        let (at, len) = if self.rng.permille(150) { (at + 2, 4) } else { (at, len) };
        let at = volume.base() + at;
        let (ballot, start) = (self.hosts[&node].ballot, self.now);
        let (ask, value) = match self.rng.below(100) {
            0..=29 => (Ask::Read(Span::new(at, len)), 0),
            30..=39 => {
                let value = self.oracle.begin(node, ballot, at..at + len, true, start);
                (Ask::Zero(Span::new(at, len), self.rng.permille(500)), value)
            }
            40..=89 => {
                let value = self.oracle.begin(node, ballot, at..at + len, false, start);
                let data: Bytes = value.to_le_bytes().repeat(len as usize).into();
                (Ask::Write(Span::new(at, len), data, self.rng.permille(100)), value)
            }
            _ => (Ask::Flush, 0),
        };
        self.req += 1;
        let req = ReqId(self.req);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.jobs.insert(req, Job { ask: ask.clone(), value, start });
        }
        self.event(node, Event::Submit(req, ask));
    }

    /// Somebody is to be primary; now and then another.
    fn administrator(&mut self) {
        self.later(60, Happening::Admin);
        let up: Vec<NodeId> = self.disks.iter().filter(|n| self.is_up(*n)).collect();
        let primaries: Vec<NodeId> =
            up.iter().copied().filter(|n| self.hosts[n].node.as_ref().is_some_and(Node::is_primary)).collect();
        if primaries.is_empty() && !self.quorum && up.len() > 1 && self.rng.permille(500) {
            self.ask_all_to_promote(&up);
        } else if primaries.is_empty() && !up.is_empty() {
            let node = self.rng.pick(&up);
            self.ask_to_promote(node);
        } else if self.hurts() && !up.is_empty() && self.rng.permille(if self.quorum { 200 } else { 25 }) {
            // An impatient one, who takes a primary for dead that it cannot see.
            let node = self.rng.pick(&up);
            self.ask_to_promote(node);
        }
        if self.hurts() && self.rng.permille(self.plan.rates.demote) {
            for node in primaries.clone() {
                self.count("fault: demote".into());
                self.event(node, Event::Demote);
            }
        }
        let asks = self.grows() && (self.now < HURT + 1_000 || self.waits_for_second());
        if asks && self.rng.permille(if self.has_two() { 400 } else { 150 }) {
            let clean = self.is_clean();
            let volume = if self.has_two() && self.rng.permille(500) { second() } else { Volume::FIRST };
            primaries.iter().for_each(|n| self.event(*n, Event::Resize { volume, size: None, clean }));
        }
        self.ask_to_take_away(&primaries);
        if self.plan.seed % 9 == 4 {
            let asked: Vec<NodeId> =
                up.into_iter().filter(|n| (self.events + u64::from(n.get())).is_multiple_of(3)).collect();
            asked.into_iter().for_each(|n| self.event(n, Event::Verify));
        }
        if !self.hurts() {
            self.settle_split_brains(&primaries);
        }
    }

    /// After the faults: of nodes that split off one keeps its data, the others are told to give theirs up.
    fn settle_split_brains(&mut self, primaries: &[NodeId]) {
        let alone = self.hosts.values().any(|h| !h.alone.is_empty());
        if !alone || self.now < HURT + 1_000 {
            return;
        }
        let keep = primaries.first().copied().unwrap_or(id(1));
        for node in primaries.iter().skip(1) {
            self.event(*node, Event::Demote);
        }
        for node in self.disks.iter() {
            if let Some(host) = self.hosts.get_mut(&node) {
                host.alone = NodeSet::EMPTY;
            }
            if node != keep && !primaries.contains(&node) {
                self.event(node, Event::DiscardMyData);
            }
            self.dial_all(node);
        }
    }

    pub(super) fn chance(&mut self, name: &str, permille: u64) -> bool {
        let is = self.rng.permille(permille);
        if is {
            self.faults += 1;
            self.count(format!("fault: {name}"));
        }
        is
    }

    fn fault(&mut self) {
        if !self.hurts() {
            return self.heal();
        }
        self.later(LOOK, Happening::Fault);
        let rates = self.plan.rates;
        let all: Vec<NodeId> = self.disks.iter().collect();
        let node = self.rng.pick(&all);
        let everybody = self.everybody();
        let other = self.rng.pick(&everybody);
        if self.chance("crash", rates.crash) {
            self.crash(node);
        }
        if self.chance("crash of all", rates.crash_all) {
            all.iter().for_each(|n| self.crash(*n));
        }
        if self.chance("disk error", rates.disk)
            && let Some(host) = self.hosts.get_mut(&node)
        {
            host.breaks = true;
        }
        if self.chance("disk stall", rates.stall) {
            let wait = 100 + self.rng.below(600);
            self.later(wait, Happening::Quicken(node));
            let by = self.rng.below(300);
            if let Some(host) = self.hosts.get_mut(&node) {
                host.slow = by;
            }
        }
        if other != node && self.chance("cut", rates.cut) {
            self.cut.insert(pair(node, other), true);
            let wait = 100 + self.rng.below(900);
            self.later(wait, Happening::Mend(node, other));
        }
        if self.chance("isolated", rates.isolate) {
            for peer in everybody.into_iter().filter(|p| *p != node) {
                let wait = 200 + self.rng.below(900);
                self.cut.insert(pair(node, peer), true);
                self.later(wait, Happening::Mend(node, peer));
            }
        }
        if other != node && self.chance("slow link", rates.slow) {
            let by = self.rng.below(80);
            self.delay.insert(pair(node, other), by);
            let wait = 100 + self.rng.below(900);
            self.later(wait, Happening::Mend(node, other));
        }
        if rates.hang > 0 && self.chance("disk hang", rates.hang) {
            self.hang(node);
        }
        self.replace_a_disk();
        self.swap_a_disk();
        if rates.kill > 0 && self.chance("killed", rates.kill) {
            self.kill(node);
        }
        if rates.rest > 0 && self.chance("told to end", rates.rest) {
            let (life, wait) = (self.hosts[&node].life, self.rng.below(120));
            self.event(node, Event::Demote);
            self.later(wait, Happening::Rest(node, life));
        }
        let due = rates.reset > 0 && self.now + 4 * LOOK * FAULTS.saturating_sub(self.faults) >= HURT;
        let reset = if due && self.faults < FAULTS { 1000 } else { rates.reset };
        if other != node && self.chance("reset", reset) {
            self.reset(node, other);
        }
        if self.tie_breaker.is_some() && self.chance("crash of the tie-breaker", rates.witness) {
            self.crash_witness();
        }
    }

    fn replace_a_disk(&mut self) {
        let rate = self.plan.rates.replace;
        if rate > 0 && self.may_replace() && self.chance("disk replaced", rate) {
            let node = self.victim();
            self.crash(node);
            self.oracle.replaced(node, self.now);
            let (sb, keeps) = (self.made(node, 1000 + self.events), self.rng.permille(500));
            let new = self.formatted(sb.clone());
            let (_, write) = Replica::format(sb);
            match self.hosts.get_mut(&node) {
                // Made anew of the same disk: its data are still there.
                Some(host) if keeps => {
                    host.disk.format(&write.first);
                    host.disk.format(&write.then);
                }
                Some(host) => host.disk = new,
                None => {}
            }
        }
    }

    /// Whose disk is replaced.
    pub(super) fn victim(&self) -> NodeId {
        self.disks.iter().last().unwrap_or(id(1))
    }

    /// It is replaced only while another node has everything: that of the newest reign, which is never replaced.
    pub(super) fn may_replace(&self) -> bool {
        let Some((_, primary)) = self.oracle.highest.filter(|(_, n)| *n != self.victim()) else { return false };
        let node = self.hosts[&primary].node.as_ref();
        node.is_some_and(|n| n.is_primary() && n.present().has(primary) && n.disk() == DiskState::UpToDate)
    }

    /// A disk answers nothing any more, for longer than it is waited for, or not.
    fn hang(&mut self, node: NodeId) {
        let wait = 100 + self.rng.below(1_500);
        if let Some(host) = self.hosts.get_mut(&node).filter(|h| !h.hung) {
            host.hung = true;
            self.later(wait, Happening::Answers(node));
        }
    }

    /// A disk answers again: what was asked ends now. What a process that has ended left there lands when it does.
    fn answers(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.hung) else { return };
        host.hung = false;
        let (held, stuck) = (std::mem::take(&mut host.held), host.stuck.clone());
        for happening in held {
            let wait = self.rng.below(5);
            self.later(wait, happening);
        }
        for io in stuck {
            let wait = self.rng.below(400);
            self.later(wait, Happening::Lands(node, io));
        }
    }

    fn lands(&mut self, node: NodeId, io: u64) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if let Some(at) = host.stuck.iter().position(|s| *s == io) {
            host.stuck.remove(at);
            host.disk.tear(io, &mut self.rng);
        }
    }

    fn longer(&mut self, node: NodeId, volume: Volume, sectors: u64) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.sectors = host.sectors.with(volume, host.sectors.of(volume).max(sectors));
        }
    }

    fn measured(&mut self, node: NodeId, life: u64) {
        let host = &self.hosts[&node];
        if host.life == life {
            let further = Sizes::default().with(second(), host.sectors.of(second()) * SECTOR);
            let data = host.sectors.of(Volume::FIRST) * SECTOR;
            let devices = Devices { data, meta: host.disk.meta_len(), further };
            self.event(node, Event::Measured(Some(devices)));
        }
    }

    /// Both ends lose the connection; what was under way is gone.
    fn reset(&mut self, a: NodeId, b: NodeId) {
        let Some((conn, ends)) = self.conns.remove(&pair(a, b)) else { return };
        for (at, other) in [(a, b), (b, a)] {
            if ends.has(at) {
                self.oracle.stream_over(at);
                self.tell(at, Event::Lost(other, conn), |n| WitnessEvent::Lost(n, conn), other);
            }
        }
        let wait = 5 + self.rng.below(60);
        self.later(wait, Happening::Dial(a, b));
    }

    /// Power fails: the cache is lost.
    pub(super) fn crash(&mut self, node: NodeId) {
        if self.is_up(node) {
            self.power_off(node);
            self.oracle.crashed(node, self.now);
            self.end_process(node);
        }
    }

    /// Only the process ends.
    fn kill(&mut self, node: NodeId) {
        if self.is_up(node) {
            let mut hung = false;
            match self.hosts.get_mut(&node) {
                Some(host) if host.hung => {
                    (host.stuck, hung) = (host.disk.flying(), true);
                    host.held.clear();
                }
                Some(host) => host.disk.abandoned(&mut self.rng),
                None => {}
            }
            if hung {
                self.count("fault: killed while its disk hangs".into());
            }
            self.oracle.stream_over(node);
            self.end_process(node);
        }
    }

    fn power_off(&mut self, node: NodeId) {
        let life = self.events;
        if let Some(host) = self.hosts.get_mut(&node) {
            host.disk.crash(&mut self.rng);
            host.hung = false;
            host.held.clear();
            host.stuck.clear();
            host.machine = Life([life.to_le_bytes(); 2].concat().try_into().unwrap_or_default());
        }
    }

    fn end_process(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.node = None;
        host.life += 1;
        host.work.clear();
        host.jobs.clear();
        host.pending.clear();
        host.slow = 0;
        self.disconnected(node);
        let wait = 60 + self.rng.below(700);
        self.later(wait, Happening::Restart(node));
    }

    /// A node that was told to end has come to rest, or cannot, or has not for long. At rest it loses nothing when its machine is
    /// switched off.
    fn ends(&mut self, node: NodeId, life: u64, rests: Option<bool>) {
        if self.hosts[&node].life != life || !self.is_up(node) {
            return;
        }
        if rests.is_none() && self.hosts[&node].hung {
            return self.later(RESTS_WITHIN, Happening::Ends(node, life, None));
        }
        let off = self.rng.permille(500);
        match rests {
            Some(true) if off => {
                self.power_off(node);
                self.kill(node);
            }
            Some(_) => self.kill(node),
            None => self.oracle.object("I7 Heals", format!("{node} was told to end and does not come to rest")),
        }
    }

    fn crash_witness(&mut self) {
        let Some(t) = self.tie_breaker.filter(|_| self.witness.is_some()) else { return };
        self.witness = None;
        self.witness_life += 1;
        self.voted = 0;
        self.disconnected(t);
        let wait = 60 + self.rng.below(500);
        self.later(wait, Happening::Restart(t));
    }

    /// Whoever talked to a host that died hears of it, unless the link is cut.
    fn disconnected(&mut self, node: NodeId) {
        let keys: Vec<(NodeId, NodeId)> =
            self.conns.keys().copied().filter(|(a, b)| *a == node || *b == node).collect();
        for (a, b) in keys {
            let other = if a == node { b } else { a };
            let Some((conn, ends)) = self.conns.get_mut(&pair(a, b)) else { continue };
            *ends = ends.without(node);
            let (conn, empty) = (*conn, ends.is_empty());
            if empty {
                self.conns.remove(&pair(a, b));
            } else {
                let wait = 1 + self.rng.below(30);
                self.later(wait, Happening::Hangup(node, other, conn));
            }
        }
    }

    /// Faults off: whatever is broken is whole, whoever is down comes up, disks that were left are replaced by themselves.
    fn heal(&mut self) {
        self.cut.clear();
        self.delay.clear();
        for node in self.disks.iter() {
            self.answers(node);
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            host.slow = 0;
            host.breaks = false;
            if host.node.as_ref().is_some_and(|n| n.disk() == DiskState::Diskless) {
                self.crash(node);
            }
        }
        if self.now < HURT + 500 {
            self.later(100, Happening::Fault);
        }
        let keys: Vec<(NodeId, NodeId)> = self.conns.keys().copied().collect();
        for (a, b) in keys {
            if self.conns.get(&(a, b)).is_some_and(|(c, ends)| ends.len() < 2 || self.torn.contains(c)) {
                self.reset(a, b);
            }
        }
    }
}
