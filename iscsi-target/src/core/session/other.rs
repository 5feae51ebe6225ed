//! NOP, text, logout.

use bytes::Bytes;
use iscsi::ids::Itt;
use iscsi::pdu::raw::{CONTINUE, LogoutRequest, NopIn, NopOut, TextRequest, TextResponse};
use iscsi::pdu::{Bhs, FINAL};
use iscsi::text::{self, Pair, value::number};

use super::{Fx, LongText, Session};

/// "The request does not continue an answer."
const NO_TTT: u32 = u32::MAX;

impl Session {
    pub(super) fn nop_out(&mut self, bhs: &Bhs, inline: &[u8], fx: &mut Vec<Fx>) {
        if bhs.task() == Itt::NONE {
            // The answer to a ping, or a mere acknowledgement.
            return;
        }
        let nop = NopOut::of(bhs);
        if nop.ttt.get() != NO_TTT {
            return self.reject(bhs, 0x09, fx);
        }
        let echo = &inline[..inline.len().min(self.params.max_send_segment as usize)];
        let answer = NopIn { flags: FINAL, itt: nop.itt, ttt: NO_TTT.into(), lun: [0; 8], ..NopIn::default() };
        self.send(answer.with_data(echo.len()).bhs(), Bytes::copy_from_slice(echo), true, fx);
    }

    pub(super) fn text_request(&mut self, bhs: &Bhs, inline: &[u8], fx: &mut Vec<Fx>) {
        let request = TextRequest::of(bhs);
        let itt = bhs.task();
        if request.ttt.get() != NO_TTT {
            // It asks for the rest of an answer, or goes on with a request of which a part is here.
            match self.long.take() {
                Some(long) if long.ttt == request.ttt.get() && inline.is_empty() => {
                    return self.text_answer(itt, long.rest, fx);
                }
                _ if self.text.is_open() => {}
                _ => return self.reject(bhs, 0x09, fx),
            }
        } else {
            self.long = None;
        }
        let goes_on = request.flags & CONTINUE != 0;
        match self.text.take(inline, goes_on) {
            Ok(None) => {
                self.last_ttt = self.last_ttt.wrapping_add(1) & 0x7fff_ffff;
                let answer = TextResponse { itt: itt.0.into(), ttt: self.last_ttt.into(), ..TextResponse::default() };
                self.send(answer.bhs(), Bytes::new(), true, fx);
            }
            Ok(Some(pairs)) => self.text_pairs(itt, &pairs, fx),
            Err(_) => self.reject(bhs, 0x04, fx),
        }
    }

    fn text_pairs(&mut self, itt: Itt, pairs: &[Pair], fx: &mut Vec<Fx>) {
        let mut answer = Vec::new();
        for pair in pairs {
            match pair.key.as_str() {
                "SendTargets" if pairs.len() == 1 => {
                    return fx.push(Fx::SendTargets { itt, value: pair.value.clone() });
                }
                // The one key of a connection that may change now (13.12); it is a declaration and has no answer.
                "MaxRecvDataSegmentLength" => {
                    match number(&pair.value).filter(|n| (512..=iscsi::pdu::MAX_DATA_SEGMENT).contains(n)) {
                        Some(n) => self.params.max_send_segment = n,
                        None => text::push(&mut answer, &pair.key, "Reject"),
                    }
                }
                "InitiatorAlias" => {}
                key if iscsi::keys::find(key).is_some() => text::push(&mut answer, key, "Reject"),
                key => text::push(&mut answer, key, "NotUnderstood"),
            }
        }
        self.text_answer(itt, Bytes::from(answer), fx);
    }

    /// A text answer, in as many pieces as the initiator fetches.
    pub(crate) fn text_answer(&mut self, itt: Itt, answer: Bytes, fx: &mut Vec<Fx>) {
        let most = self.params.max_send_segment as usize;
        let piece = answer.slice(..answer.len().min(most));
        let rest = answer.slice(piece.len()..);
        let mut response = TextResponse { itt: itt.0.into(), ttt: NO_TTT.into(), ..TextResponse::default() };
        if rest.is_empty() {
            response.flags = FINAL;
        } else {
            self.last_ttt = self.last_ttt.wrapping_add(1) & 0x7fff_ffff;
            response.flags = CONTINUE;
            response.ttt = self.last_ttt.into();
            self.long = Some(LongText { ttt: self.last_ttt, rest });
        }
        self.send(response.with_data(piece.len()).bhs(), piece, true, fx);
    }

    /// Whether this is a discovery session.
    pub(crate) fn is_discovery(&self) -> bool {
        self.discovery
    }

    pub(super) fn logout(&mut self, request: &LogoutRequest, fx: &mut Vec<Fx>) {
        match request.flags & 0x7f {
            // The session, or this connection, which is all of it.
            0 => {}
            1 if request.cid.get() == self.cid => {}
            1 => return self.logged_out(request.itt.get(), 1, fx),
            // There is no recovery of connections at level 0.
            _ => return self.logged_out(request.itt.get(), 2, fx),
        }
        self.over = true;
        fx.push(Fx::Logout(*request));
    }
}
