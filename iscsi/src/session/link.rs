//! The life of a session's connections: connecting, login, redirects, pauses, logout, the end.

use std::time::Duration;

use scsi::LunAddress;

use super::config::{MAX_HOPS, MAX_SHORT_LIVES};
use super::event::{Body, Cause, ConnId, Effect, Outcome, Report};
use super::rules::Rule;
use super::tasks::{Out, State};
use super::window::Window;
use super::{Now, Session};
use crate::chap::Entropy;
use crate::discovery::Portal;
use crate::ids::{Cid, CmdSn, Isid, Itt, PortalGroup, StatSn, Ttt};
use crate::keys::params::Params;
use crate::login::{Advice, Established, Kind, Login, LoginError, Request, Step};
use crate::pdu::raw::{LoginResponse, LogoutRequest, NopOut, TextRequest};
use crate::pdu::{Bhs, FINAL};
use crate::text::{Assembler, MAX_DISCOVERY_TEXT};

/// Where the session is.
#[derive(Debug)]
pub(super) enum Link {
    /// Not opened.
    Idle,
    /// Until it connects again.
    Waiting { until: Now },
    /// Until the connection stands.
    Connecting { conn: ConnId, due: Now },
    /// Until the login is done. The login is taken out only while it is being answered.
    Login { conn: ConnId, due: Now, login: Option<Box<Login>> },
    /// A nexus.
    Full(Box<Full>),
    /// The logout was sent; then end, or log in again.
    LoggingOut(Box<Full>, Leaving),
    /// Over.
    Ended(Cause),
}

/// Why a session logs out.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) due: Now,
    pub(super) tag: Itt,
    /// Log in again afterwards.
    pub(super) again: bool,
}

/// A connection in the full feature phase.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) conn: ConnId,
    pub(super) params: Params,
    pub(super) group: Option<PortalGroup>,
    pub(super) window: Window,
    pub(super) exp_stat_sn: StatSn,
    pub(super) began: Now,
    pub(super) last_heard: Now,
    pub(super) ping: Option<Ping>,
    pub(super) tmf: Option<Tmf>,
    /// The target asked for a logout by then.
    pub(super) out_by: Option<Now>,
    /// Since when commands wait for a closed window while nothing is with the target.
    pub(super) closed_since: Option<Now>,
    /// Data that wait behind commands; empty unless a rule is missing.
    pub(super) held_back: Vec<Out>,
}

/// A ping that is not answered.
#[derive(Debug)]
pub(super) struct Ping {
    pub(super) tag: Itt,
    pub(super) sent: Now,
}

/// A task management request that is not answered.
#[derive(Debug)]
pub(super) struct Tmf {
    pub(super) tag: Itt,
    /// The task to be aborted; none: all of the unit.
    pub(super) abort: Option<Itt>,
    /// The owner wants it, and is told.
    pub(super) wanted: bool,
    pub(super) lun: LunAddress,
    /// The number of the next command when it was sent: it says nothing of that one and later ones.
    pub(super) before: CmdSn,
    pub(super) due: Now,
}

/// A text exchange.
#[derive(Debug)]
pub(super) struct TextWork {
    pub(super) body: Vec<u8>,
    /// None before it was sent.
    pub(super) tag: Option<Itt>,
    pub(super) assembler: Assembler,
    pub(super) due: Now,
}

impl Session {
    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        match &self.link {
            Link::Connecting { conn: c, .. } | Link::Login { conn: c, .. } => *c == conn,
            Link::Full(full) | Link::LoggingOut(full, _) => full.conn == conn,
            Link::Idle | Link::Waiting { .. } | Link::Ended(_) => false,
        }
    }

    pub(super) fn open(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if matches!(self.link, Link::Idle) {
            self.down_since = Some(now);
            self.connect(now, fx);
        }
    }

    pub(super) fn connect(&mut self, now: Now, fx: &mut Vec<Effect>) {
        self.conn += 1;
        let conn = ConnId(self.conn);
        let portal = self.elsewhere.clone().unwrap_or_else(|| self.config.portal.clone());
        let due = now + self.config.timing.connect;
        self.wake_at(due);
        self.link = Link::Connecting { conn, due };
        fx.push(Effect::Connect { conn, portal });
    }

    pub(super) fn connected(&mut self, now: Now, conn: ConnId, entropy: Entropy, fx: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Connecting { conn: c, .. } if c == conn) {
            return;
        }
        let mut config = self.config.login.clone();
        if !self.config.rules.has(Rule::SameIsid) {
            config.isid = Isid::from_number(0, u16::try_from(conn.0 & 0xffff).unwrap_or(0));
        }
        #[cfg(any(test, feature = "simulation"))]
        if !self.config.rules.has(Rule::SecurityStageFirst) {
            config.skip_security = true;
        }
        let tag = self.control_tag();
        let (login, request) = Login::begin(config, tag, self.next_cmd_sn, entropy);
        let due = now + self.config.timing.login;
        self.wake_at(due);
        self.link = Link::Login { conn, due, login: Some(Box::new(login)) };
        fx.push(send_login(conn, request));
    }

    /// A PDU before the full feature phase.
    pub(super) fn login_answer(&mut self, now: Now, bhs: &Bhs, text: &[u8], fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let Link::Login { conn, login, .. } = &mut self.link else { return Ok(()) };
        let conn = *conn;
        let Some(login) = login.take() else { return Ok(()) };
        match login.answer(&LoginResponse::of(bhs), text)? {
            Step::Send(next, request) => {
                if let Link::Login { login, .. } = &mut self.link {
                    *login = Some(next);
                }
                fx.push(send_login(conn, request));
            }
            Step::Done(established) => self.established(now, conn, &established, fx)?,
            Step::Redirected { portal, permanent } => self.redirected(now, conn, portal, permanent, fx),
        }
        Ok(())
    }

    fn redirected(&mut self, now: Now, conn: ConnId, portal: Portal, permanent: bool, fx: &mut Vec<Effect>) {
        fx.push(Effect::Disconnect(conn));
        self.hops += 1;
        if self.hops > MAX_HOPS {
            self.hops = 0;
            self.elsewhere = None;
            return self.failed(now, Cause::RedirectLoop, fx);
        }
        fx.push(Effect::Report(Report::Redirected(portal.clone())));
        if permanent {
            self.config.portal = portal;
            self.elsewhere = None;
        } else {
            self.elsewhere = Some(portal);
        }
        self.connect(now, fx);
    }

    fn established(&mut self, now: Now, conn: ConnId, e: &Established, fx: &mut Vec<Effect>) -> Result<(), Cause> {
        let normal = matches!(self.config.login.kind, Kind::Normal { .. });
        // Without it nothing ever proves that an older nexus of this session is dead.
        if normal && e.group.is_none() {
            return Err(LoginError::Missing("TargetPortalGroupTag").into());
        }
        self.nexus += 1;
        self.proved = None;
        self.elsewhere = None;
        self.hops = 0;
        self.depth = self.config.depth;
        let window = Window::new(self.next_cmd_sn, e.exp_cmd_sn, e.max_cmd_sn);
        self.link = Link::Full(Box::new(Full {
            conn,
            params: e.params,
            group: e.group,
            window,
            exp_stat_sn: e.exp_stat_sn,
            began: now,
            last_heard: now,
            ping: None,
            tmf: None,
            out_by: None,
            closed_since: None,
            held_back: Vec::new(),
        }));
        self.wake_at(now + self.config.timing.ping_after);
        fx.push(Effect::Opened { conn, digests: e.params.digests, longest: e.params.max_recv_segment });
        fx.push(Effect::Up { nexus: self.nexus, group: e.group, params: e.params });
        self.reinstated(now, e.group, fx);
        self.send_text(now, fx);
        if self.closing.is_some() {
            self.log_out(now, false, fx);
        }
        Ok(())
    }

    /// The connection is no more.
    pub(super) fn lost(&mut self, now: Now, cause: Cause, fx: &mut Vec<Effect>) {
        let link = std::mem::replace(&mut self.link, Link::Waiting { until: now });
        match link {
            Link::Connecting { conn, .. } => {
                fx.push(Effect::Disconnect(conn));
                self.short_lives = 0;
                self.elsewhere = None;
                self.failed(now, cause, fx);
            }
            Link::Login { conn, .. } => {
                fx.push(Effect::Disconnect(conn));
                self.elsewhere = None;
                self.failed(now, cause, fx);
            }
            Link::Full(full) => self.nexus_lost(now, &full, cause, fx),
            Link::LoggingOut(full, leaving) => {
                self.link = Link::Waiting { until: now };
                self.logged_out(now, &full, leaving.again, fx);
            }
            other => self.link = other,
        }
    }

    fn nexus_lost(&mut self, now: Now, full: &Full, cause: Cause, fx: &mut Vec<Effect>) {
        fx.push(Effect::Disconnect(full.conn));
        self.resets_lost(full.tmf.as_ref(), fx);
        fx.push(Effect::Down(cause.clone()));
        self.proved = None;
        self.down_since.get_or_insert(now);
        self.tasks_lost(full.group, &cause, fx);
        self.text_lost(&cause, fx);
        let lived = now.since(full.began);
        if lived >= self.config.timing.stable {
            (self.short_lives, self.failures) = (0, 0);
        } else if cause == Cause::Closed {
            self.short_lives += 1;
        }
        if self.short_lives >= MAX_SHORT_LIVES {
            return self.end(Cause::Usurped, fx);
        }
        if self.closing.is_some() {
            return self.end(Cause::ClosedHere, fx);
        }
        // A nexus that dies young is worth a pause; one that lived is sought at once.
        let pause = if lived >= self.config.timing.stable { Duration::ZERO } else { self.pause() };
        let wait = Duration::from_secs(u64::from(full.params.time2wait)).max(pause);
        self.wait(now, wait);
    }

    /// An attempt came to nothing.
    fn failed(&mut self, now: Now, cause: Cause, fx: &mut Vec<Effect>) {
        let give_up = match &cause {
            Cause::Login(e) => match e.advice() {
                Advice::GiveUp => true,
                Advice::RetryOnce => self.failures > 0,
                Advice::Retry => false,
            },
            _ => false,
        };
        if give_up || self.closing.is_some() {
            return self.end(if give_up { cause } else { Cause::ClosedHere }, fx);
        }
        fx.push(Effect::Down(cause));
        let pause = self.pause();
        self.wait(now, pause);
    }

    /// The next pause: doubles, up to its bound.
    fn pause(&mut self) -> Duration {
        let t = &self.config.timing;
        let pause = t.back_off.saturating_mul(1 << self.failures.min(16)).min(t.back_off_max);
        self.failures += 1;
        pause
    }

    pub(super) fn wait(&mut self, now: Now, pause: Duration) {
        let until = now + pause;
        self.wake_at(until);
        self.link = Link::Waiting { until };
    }

    pub(super) fn close(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let by = now + self.config.timing.logout;
        self.closing = self.closing.or(Some(by));
        match &self.link {
            Link::Full(_) if self.in_flight == 0 && self.queue.is_empty() => self.log_out(now, false, fx),
            // Drains, up to the bound; the tick looks after it.
            Link::Full(_) => self.wake_at(by),
            Link::LoggingOut(_, leaving) if !leaving.again => {}
            Link::LoggingOut(..) => {
                if let Link::LoggingOut(_, leaving) = &mut self.link {
                    leaving.again = false;
                }
            }
            _ => {
                if let Link::Connecting { conn, .. } | Link::Login { conn, .. } = &self.link {
                    fx.push(Effect::Disconnect(*conn));
                }
                self.end(Cause::ClosedHere, fx);
            }
        }
    }

    /// Sends the logout: afterwards nothing more is sent.
    pub(super) fn log_out(&mut self, now: Now, again: bool, fx: &mut Vec<Effect>) {
        let tag = self.control_tag();
        let due = now + self.config.timing.logout;
        match std::mem::replace(&mut self.link, Link::Waiting { until: now }) {
            Link::Full(full) => {
                let bhs = LogoutRequest {
                    itt: tag.0.into(),
                    cid: Cid(0).0.into(),
                    cmd_sn: full.window.next.0.into(),
                    exp_stat_sn: full.exp_stat_sn.0.into(),
                    ..LogoutRequest::default()
                };
                fx.push(Effect::Send { conn: full.conn, bhs: bhs.bhs(), body: Body::Empty });
                self.proved = None;
                self.wake_at(due);
                self.link = Link::LoggingOut(full, Leaving { due, tag, again });
            }
            other => self.link = other,
        }
    }

    /// The logout was answered, or will not be.
    pub(super) fn logged_out(&mut self, now: Now, full: &Full, again: bool, fx: &mut Vec<Effect>) {
        fx.push(Effect::Disconnect(full.conn));
        self.resets_lost(full.tmf.as_ref(), fx);
        let cause = if again { Cause::AskedByTarget } else { Cause::ClosedHere };
        fx.push(Effect::Down(cause.clone()));
        self.down_since.get_or_insert(now);
        self.tasks_lost(full.group, &cause, fx);
        if !again || self.closing.is_some() {
            return self.end(Cause::ClosedHere, fx);
        }
        self.wait(now, Duration::from_secs(u64::from(full.params.time2wait)));
    }

    /// The end: every task is told.
    pub(super) fn end(&mut self, cause: Cause, fx: &mut Vec<Effect>) {
        self.link = Link::Ended(cause.clone());
        for task in self.ids() {
            let landing = matches!(self.task(task).map(|t| &t.state), Some(State::Lost(_) | State::Settling));
            let outcome = if landing { Outcome::Unknown(cause.clone()) } else { Outcome::Lost(cause.clone()) };
            self.done(task, outcome, fx);
        }
        self.text_lost(&cause, fx);
        self.wake = None;
        fx.push(Effect::Ended(cause));
    }

    pub(super) fn text_wanted(&mut self, now: Now, body: Vec<u8>, fx: &mut Vec<Effect>) {
        if self.text.is_some() || self.closing.is_some() {
            fx.push(Effect::Text(Err(Cause::Full)));
            return;
        }
        let due = now + self.config.timing.task;
        self.text = Some(TextWork { body, tag: None, assembler: Assembler::new(MAX_DISCOVERY_TEXT), due });
        self.wake_at(due);
        self.send_text(now, fx);
    }

    /// Sends the text that waits, if there is a nexus for it.
    fn send_text(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let tag = self.control_tag();
        let due = now + self.config.timing.task;
        let Link::Full(full) = &mut self.link else { return };
        let Some(text) = self.text.as_mut().filter(|t| t.tag.is_none()) else { return };
        text.tag = Some(tag);
        text.due = due;
        let body = text.body.clone();
        fx.push(text_request(full, tag, [0; 8], Ttt::NONE, body));
        self.next_cmd_sn = full.window.next;
        self.wake_at(due);
    }

    /// The text goes on: asks for the rest.
    pub(super) fn ask_for_more(&mut self, tag: Itt, lun: [u8; 8], ttt: Ttt, fx: &mut Vec<Effect>) {
        let Link::Full(full) = &mut self.link else { return };
        fx.push(text_request(full, tag, lun, ttt, Vec::new()));
        self.next_cmd_sn = full.window.next;
    }

    pub(super) fn text_lost(&mut self, cause: &Cause, fx: &mut Vec<Effect>) {
        if self.text.as_ref().is_some_and(|t| t.tag.is_some() || matches!(self.link, Link::Ended(_))) {
            self.text = None;
            fx.push(Effect::Text(Err(cause.clone())));
        }
    }

    /// Sends a ping.
    pub(super) fn ping(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let tag = self.control_tag();
        let due = now + self.config.timing.ping_timeout;
        let Link::Full(full) = &mut self.link else { return };
        if full.ping.is_none() {
            full.ping = Some(Ping { tag, sent: now });
            let mut bhs = nop(full);
            bhs.itt = tag.0.into();
            bhs.ttt = Ttt::NONE.0.into();
            fx.push(Effect::Send { conn: full.conn, bhs: bhs.bhs(), body: Body::Empty });
            self.wake_at(due);
        }
    }

    /// A closed window with nothing outstanding: only a ping brings an answer that may open it.
    pub(super) fn ping_if_closed(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Link::Full(full) = &mut self.link else { return };
        let closed = self.in_flight == 0 && !full.window.is_open();
        if !closed {
            full.closed_since = None;
        } else {
            full.closed_since.get_or_insert(now);
            if now.since(full.last_heard) >= self.config.timing.busy {
                self.ping(now, fx);
            } else {
                self.wake_at(now + self.config.timing.busy);
            }
        }
    }
}

/// A NOP-Out with the numbers that every one carries.
pub(super) fn nop(full: &Full) -> NopOut {
    NopOut {
        itt: Itt::NONE.0.into(),
        cmd_sn: full.window.next.0.into(),
        exp_stat_sn: full.exp_stat_sn.0.into(),
        ..NopOut::default()
    }
}

fn send_login(conn: ConnId, request: Request) -> Effect {
    let body = if request.text.is_empty() { Body::Empty } else { Body::Inline(request.text) };
    Effect::Send { conn, bhs: request.bhs.bhs(), body }
}

/// Text is sent immediate, so that it needs no place in the window.
fn text_request(full: &Full, tag: Itt, lun: [u8; 8], ttt: Ttt, body: Vec<u8>) -> Effect {
    let mut bhs = TextRequest::default().with_data(body.len());
    bhs.opcode |= crate::pdu::IMMEDIATE;
    bhs.flags = FINAL;
    bhs.lun = lun;
    bhs.itt = tag.0.into();
    bhs.ttt = ttt.0.into();
    bhs.cmd_sn = full.window.next.0.into();
    bhs.exp_stat_sn = full.exp_stat_sn.0.into();
    let body = if body.is_empty() { Body::Empty } else { Body::Inline(body) };
    Effect::Send { conn: full.conn, bhs: bhs.bhs(), body }
}
