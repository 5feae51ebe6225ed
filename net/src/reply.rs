//! The right and the duty to answer one request.

use std::sync::Arc;

use crate::conn::{Conn, sentence_body};
use crate::frame::Kind;
use crate::message::Message;
use crate::outgoing::OutFrame;

/// Answers one request, from any thread, at any time. Linear: dropped without an answer it tells the caller
/// so ([`crate::CallError::Unanswered`]) and logs. After the connection has ended an answer is discarded.
#[must_use = "a request must be answered"]
pub struct ReplyTo {
    conn: Arc<Conn>,
    request_id: u64,
    cost: u32,
    answered: bool,
}

impl ReplyTo {
    pub(crate) fn new(conn: Arc<Conn>, request_id: u64, cost: u32) -> Self {
        Self { conn, request_id, cost, answered: false }
    }

    /// The connection that the request came on.
    pub fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// Sends the answer. Never waits. A message longer than the protocol allows is logged, and the caller is
    /// told that there is no answer.
    pub fn send(mut self, msg: Message) {
        match msg.check() {
            Ok(()) => self.finish(OutFrame::message(Kind::Reply, self.request_id, msg)),
            Err(e) => {
                tracing::error!(peer = %self.conn.peer(), opcode = msg.opcode, "answer not sent: {e}");
                self.fail_with(&e.to_string());
            }
        }
    }

    /// Tells the caller that there is no answer, with a sentence.
    pub fn fail(mut self, why: &str) {
        self.fail_with(why);
    }

    fn fail_with(&mut self, why: &str) {
        self.finish(OutFrame::control(Kind::Fail, self.request_id, sentence_body(why)));
    }

    fn finish(&mut self, frame: OutFrame) {
        self.answered = true;
        self.conn.send_answer(frame, self.cost);
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if self.conn.is_open() {
            tracing::error!(peer = %self.conn.peer(), request = self.request_id, "request dropped without an answer");
        }
        self.fail_with("the request was dropped without an answer");
    }
}
