//! From the greeting to the transmission phase ("Fixed newstyle negotiation", "TLS support", "Option types").
//!
//! ```text
//!   ClientFlags ──► Options ──► Enter      by GO, or EXPORT_NAME
//!                    │   ▲
//!                    │   └─ after_tls      every option before it but STARTTLS and ABORT is refused, where TLS is asked for
//!                    └────► Close          ABORT, a violation, too many options
//! ```
//! Every option but EXPORT_NAME is answered, whatever it is. What ends the connection is listed in [`Closing`]: only what
//! the specification lets a server end it for.
//!
//! Rules, and what each prevents:
//! - STARTTLS forgets what was agreed before it, and bytes behind it that came before its answer end the connection: no
//!   bytes from outside the encryption are taken for bytes from inside.
//! - SET_META_CONTEXT forgets the earlier choice even when it fails; the choice holds for the export it named only.

pub(in crate::nbd::core) mod options;
#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, IntoBytes};

use super::facts::{Facts, Style};
use super::wire::{
    Greeting, NBD_MAGIC, OPTION_MAGIC, OptionHeader, OptionReply, REPLY_MAGIC, handshake_flags, option, reply,
};
use crate::nbd::limits::{MAX_OPTION, MAX_OPTIONS, MAX_SKIPPED_OPTION};

/// The exports of a server, as the handshake asks for them.
pub trait Catalogue {
    /// Names and descriptions, in order.
    fn list(&self) -> Vec<(String, String)>;

    /// What is served under a name, as it is now; the empty name may stand for one of them.
    fn find(&self, name: &str) -> Option<Facts>;
}

/// Whether this connection may or must be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// There is none ("NOTLS mode").
    Never,
    /// Nothing goes without it ("FORCEDTLS mode").
    Required,
    /// It is there.
    Done,
}

/// What was agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The export.
    pub facts: Facts,
    /// How replies look.
    pub style: Style,
    /// Whether `base:allocation` was chosen.
    pub status: bool,
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for more bytes.
    More,
    /// Send what is there to be sent, then begin TLS, then [`Handshake::after_tls`].
    StartTls,
    /// Send what is there to be sent; the transmission phase has begun.
    Enter(Box<Agreed>),
    /// Send what is there to be sent, and end the connection.
    Close(Closing),
}

/// Why a connection ends in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closing {
    /// The client asked for it.
    #[error("the client gave up")]
    Aborted,
    /// Flags that were not offered.
    #[error("client flags {0:#x} were not offered")]
    ClientFlags(u32),
    /// Bytes that are no option.
    #[error("no option: magic {0:#x}")]
    Magic(u64),
    /// EXPORT_NAME cannot be answered with an error.
    #[error("no such export, or not without TLS, or not with extended headers")]
    ExportName,
    /// An option too long to be passed over.
    #[error("an option of {0} bytes")]
    TooLong(u32),
    /// Too many options.
    #[error("{MAX_OPTIONS} options and no export chosen")]
    TooMany,
    /// A client that does not speak fixed newstyle sent another option than EXPORT_NAME.
    #[error("option {0} from a client that does not speak fixed newstyle")]
    NotFixed(u32),
    /// Plain bytes behind STARTTLS.
    #[error("unencrypted bytes behind STARTTLS")]
    BytesBehindStartTls,
}

/// The server's side of one handshake.
#[derive(Debug)]
pub struct Handshake {
    tls: Tls,
    flags: Option<ClientFlags>,
    style: Style,
    /// The export for which `base:allocation` was chosen.
    context: Option<String>,
    options: u32,
    /// Bytes of an option that is passed over, and that option.
    skip: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct ClientFlags {
    fixed: bool,
    no_zeroes: bool,
}

/// What one option came to.
enum Outcome {
    /// Answered.
    Answered,
    /// The handshake goes another way.
    Turn(Step),
}

impl Handshake {
    /// A handshake and what is said first.
    pub fn new(tls: Tls, out: &mut Vec<u8>) -> Handshake {
        let greeting = Greeting {
            magic: NBD_MAGIC.into(),
            option_magic: OPTION_MAGIC.into(),
            flags: (handshake_flags::FIXED_NEWSTYLE | handshake_flags::NO_ZEROES).into(),
        };
        out.extend_from_slice(greeting.as_bytes());
        Handshake { tls, flags: None, style: Style::Simple, context: None, options: 0, skip: None }
    }

    /// Takes what has come, whole pieces only; `input` keeps what is not a whole one yet, at most
    /// [`MAX_OPTION`] and a header. What is to be sent is added to `out`.
    pub fn handle(&mut self, input: &mut &[u8], catalogue: &dyn Catalogue, out: &mut Vec<u8>) -> Step {
        loop {
            let step = match (self.skip, self.flags) {
                (Some((option, left)), _) => self.pass_over(input, option, left, out),
                (None, None) => self.client_flags(input),
                (None, Some(flags)) => self.option(input, flags, catalogue, out),
            };
            match step {
                Some(Step::StartTls) if !input.is_empty() => return Step::Close(Closing::BytesBehindStartTls),
                Some(step) => return step,
                None => {}
            }
        }
    }

    /// Goes on under TLS; what was agreed without it is forgotten (NBD_OPT_STARTTLS).
    pub fn after_tls(self) -> Handshake {
        Handshake { tls: Tls::Done, style: Style::Simple, context: None, ..self }
    }

    fn client_flags(&mut self, input: &mut &[u8]) -> Option<Step> {
        let Some((bytes, rest)) = input.split_first_chunk::<4>() else { return Some(Step::More) };
        *input = rest;
        let flags = u32::from_be_bytes(*bytes);
        let (fixed, no_zeroes) = (u32::from(handshake_flags::FIXED_NEWSTYLE), u32::from(handshake_flags::NO_ZEROES));
        if flags & !(fixed | no_zeroes) != 0 {
            return Some(Step::Close(Closing::ClientFlags(flags)));
        }
        self.flags = Some(ClientFlags { fixed: flags & fixed != 0, no_zeroes: flags & no_zeroes != 0 });
        None
    }

    fn pass_over(&mut self, input: &mut &[u8], option: u32, left: u32, out: &mut Vec<u8>) -> Option<Step> {
        let n = input.len().min(left as usize);
        *input = &input[n..];
        // Lossless: n is at most `left`.
        let left = left - n as u32;
        if left > 0 {
            self.skip = Some((option, left));
            return Some(Step::More);
        }
        self.skip = None;
        answer_error(out, option, reply::ERR_TOO_BIG, "the option is too long");
        None
    }

    /// One option, if all of it is there.
    fn option(
        &mut self,
        input: &mut &[u8],
        flags: ClientFlags,
        catalogue: &dyn Catalogue,
        out: &mut Vec<u8>,
    ) -> Option<Step> {
        let Ok((header, rest)) = OptionHeader::ref_from_prefix(input) else { return Some(Step::More) };
        let (number, length) = (header.option.get(), header.length.get());
        if header.magic.get() != OPTION_MAGIC {
            return Some(Step::Close(Closing::Magic(header.magic.get())));
        }
        if length > MAX_SKIPPED_OPTION {
            return Some(Step::Close(Closing::TooLong(length)));
        }
        if length <= MAX_OPTION && rest.len() < length as usize {
            return Some(Step::More);
        }
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Some(Step::Close(Closing::TooMany));
        }
        if !flags.fixed && number != option::EXPORT_NAME {
            return Some(Step::Close(Closing::NotFixed(number)));
        }
        if length > MAX_OPTION {
            *input = rest;
            if number == option::EXPORT_NAME {
                return Some(Step::Close(Closing::ExportName));
            }
            self.skip = Some((number, length));
            return None;
        }
        let (data, rest) = rest.split_at(length as usize);
        *input = rest;
        match self.answer(number, data, flags, catalogue, out) {
            Outcome::Answered => None,
            Outcome::Turn(step) => Some(step),
        }
    }

    fn answer(
        &mut self,
        number: u32,
        data: &[u8],
        flags: ClientFlags,
        catalogue: &dyn Catalogue,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if self.tls == Tls::Required && !matches!(number, option::STARTTLS | option::ABORT) {
            if number == option::EXPORT_NAME {
                return Outcome::Turn(Step::Close(Closing::ExportName));
            }
            answer_error(out, number, reply::ERR_TLS_REQD, "this server speaks TLS only");
            return Outcome::Answered;
        }
        match number {
            option::EXPORT_NAME => return Outcome::Turn(self.export_name(data, flags, catalogue, out)),
            option::ABORT => {
                answer(out, number, reply::ACK, &[]);
                return Outcome::Turn(Step::Close(Closing::Aborted));
            }
            option::STARTTLS => return self.starttls(data, out),
            option::LIST => options::list(data, catalogue, out),
            option::INFO | option::GO => {
                if let Some(agreed) = self.info(number, data, catalogue, out) {
                    return Outcome::Turn(Step::Enter(agreed));
                }
            }
            option::STRUCTURED_REPLY => self.structured_reply(data, out),
            option::EXTENDED_HEADERS => self.extended_headers(data, out),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(number, data, catalogue, out),
            _ => answer_error(out, number, reply::ERR_UNSUP, "the option is not known here"),
        }
        Outcome::Answered
    }

    fn starttls(&mut self, data: &[u8], out: &mut Vec<u8>) -> Outcome {
        let refused = match self.tls {
            _ if !data.is_empty() => Some((reply::ERR_INVALID, "STARTTLS takes no data")),
            Tls::Never => Some((reply::ERR_POLICY, "there is no TLS on this socket")),
            Tls::Done => Some((reply::ERR_INVALID, "TLS is there already")),
            Tls::Required => None,
        };
        if let Some((kind, why)) = refused {
            answer_error(out, option::STARTTLS, kind, why);
            return Outcome::Answered;
        }
        answer(out, option::STARTTLS, reply::ACK, &[]);
        Outcome::Turn(Step::StartTls)
    }

    fn structured_reply(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let number = option::STRUCTURED_REPLY;
        if !data.is_empty() {
            return answer_error(out, number, reply::ERR_INVALID, "the option takes no data");
        }
        if self.style == Style::Extended {
            return answer_error(out, number, reply::ERR_EXT_HEADER_REQD, "extended headers were chosen already");
        }
        self.style = Style::Structured;
        answer(out, number, reply::ACK, &[]);
    }

    fn extended_headers(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let number = option::EXTENDED_HEADERS;
        if !data.is_empty() {
            return answer_error(out, number, reply::ERR_INVALID, "the option takes no data");
        }
        self.style = Style::Extended;
        answer(out, number, reply::ACK, &[]);
    }

    fn has_context(&self, facts: &Facts) -> bool {
        self.style != Style::Simple && self.context.as_ref().is_some_and(|name| *name == facts.name)
    }

    fn agreed(&self, facts: Facts) -> Box<Agreed> {
        Box::new(Agreed { status: self.has_context(&facts), style: self.style, facts })
    }
}

/// Adds a reply to an option.
fn answer(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    // Lossless: what is answered is at most a name and some words long.
    let length = data.len() as u32;
    let header =
        OptionReply { magic: REPLY_MAGIC.into(), option: option.into(), kind: kind.into(), length: length.into() };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
}

/// Adds a refusal, with its reason for people.
fn answer_error(out: &mut Vec<u8>, option: u32, kind: u32, why: &str) {
    answer(out, option, kind, why.as_bytes());
}
