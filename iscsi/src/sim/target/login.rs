//! The target's side of a login: no authentication; reinstatement as tgt does it, only if the security stage was passed.

use super::*;
use crate::text::value::{boolean, number};

impl Target {
    pub(super) fn login(&mut self, id: ConnId, pdu: &Pdu, a: &mut Around<'_>) {
        let r = LoginRequest::of(&pdu.bhs);
        let (csg, transit) = (r.flags >> 2 & 3, r.flags & TRANSIT != 0);
        if a.fault("login unanswered", a.rates.login_silence) {
            return;
        }
        if a.fault("login refused", a.rates.login_refused) {
            return self.login_answer(id, &r, 0, Vec::new(), Some((3, 1)), a);
        }
        if csg == 0 && a.fault("redirect", a.rates.redirect) {
            let mut body = Vec::new();
            let portal = a.rng.pick(&["portal-0", "portal-1"]);
            text::push(&mut body, "TargetAddress", portal);
            return self.login_answer(id, &r, 0, body, Some((1, 1)), a);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut body = Vec::new();
        let mut first = false;
        for pair in text::pairs(&pdu.data).unwrap_or_default() {
            first |= pair.key == "InitiatorName";
            if pair.key == "AuthMethod" {
                text::push(&mut body, "AuthMethod", "None");
                continue;
            }
            match conn.negotiation.receive(&pair, &self.offer) {
                Ok(Some(answer)) => text::push(&mut body, &answer.key, &answer.value),
                Ok(None) => {}
                Err(e) => return a.disk.object("Wire", format!("a login that cannot be: {e}")),
            }
        }
        if first {
            conn.exp_cmd_sn = CmdSn(r.cmd_sn.get());
            conn.max_cmd_sn = conn.exp_cmd_sn;
            conn.skipped = csg != 0;
            text::push(&mut body, "TargetPortalGroupTag", &(conn.portal + 1).to_string());
        }
        // Now and then it has more to say first.
        let more = csg == 1 && transit && conn.negotiation.theirs("TargetAlias").is_none() && a.rng.permille(200);
        if csg == 1 {
            let own = conn.negotiation.offer(&["MaxRecvDataSegmentLength"], &self.offer);
            // Declared once: a second answer in the same stage must not repeat it.
            if first_operational(&pdu.data) {
                own.iter().for_each(|p| text::push(&mut body, &p.key, &p.value));
            }
        }
        let flags = match (csg, transit && !more) {
            (0, true) => TRANSIT | 1,
            (1, true) => TRANSIT | 1 << 2 | 3,
            (csg, _) => csg << 2,
        };
        if flags == TRANSIT | 1 << 2 | 3 {
            self.serve(id, &r);
        }
        self.login_answer(id, &r, flags, body, None, a);
    }

    fn login_answer(
        &mut self,
        id: ConnId,
        r: &LoginRequest,
        flags: u8,
        body: Vec<u8>,
        status: Option<(u8, u8)>,
        a: &mut Around<'_>,
    ) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (status_class, status_detail) = status.unwrap_or_default();
        let tsih = u16::try_from(conn.nexus & 0xffff).unwrap_or(0);
        let answer = LoginResponse {
            flags,
            isid: r.isid,
            tsih: if flags & 3 == 3 { tsih.max(1).into() } else { 0.into() },
            itt: r.itt,
            status_class,
            status_detail,
            ..LoginResponse::default()
        };
        // A login's answers are never lost by themselves: silence has its own fault.
        let rates = std::mem::take(&mut a.rates);
        self.send(id, answer.with_data(body.len()).bhs(), body, true, a);
        a.rates = rates;
    }

    /// The full feature phase: an older session of the same name at the same portal group ends, if the login passed
    /// the security stage.
    fn serve(&mut self, id: ConnId, r: &LoginRequest) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let n = &conn.negotiation;
        let num = |key: &str| number(n.result(key)).unwrap_or_default();
        conn.keys = Keys {
            initial_r2t: boolean(n.result("InitialR2T")).unwrap_or(true),
            immediate: boolean(n.result("ImmediateData")).unwrap_or(true),
            first_burst: num("FirstBurstLength").min(num("MaxBurstLength")),
            max_burst: num("MaxBurstLength"),
            segment: n.theirs("MaxRecvDataSegmentLength").and_then(number).unwrap_or(8192),
        };
        self.last += 1;
        let (nexus, group, skipped) = (self.last, conn.portal + 1, conn.skipped);
        conn.stage = Stage::Full;
        conn.nexus = nexus;
        if !skipped {
            let dead: Vec<(u64, ConnId)> = self
                .nexuses
                .iter()
                .filter(|(_, n)| n.isid == r.isid && n.group == group)
                .map(|(no, n)| (*no, n.conn))
                .collect();
            for (no, conn) in dead {
                self.nexuses.remove(&no);
                self.tasks.retain(|_, t| t.nexus != no);
                self.conns.remove(&conn);
            }
        }
        self.nexuses.insert(nexus, Nexus { isid: r.isid, group, conn: id, registered: false });
    }
}

fn first_operational(data: &[u8]) -> bool {
    text::pairs(data).unwrap_or_default().iter().any(|p| p.key == "MaxRecvDataSegmentLength")
}
