//! The options that carry data: which export, what about it, which metadata contexts.

use zerocopy::IntoBytes;

use super::{Agreed, Catalogue, ClientFlags, Closing, Handshake, Step, answer, answer_error};
use crate::nbd::core::facts::Style;
use crate::nbd::core::wire::{ExportAnswer, info, option, reply};
use crate::nbd::limits::{MAX_NAME, MAX_QUERIES};

/// The one metadata context there is ("`base:allocation` metadata context").
const ALLOCATION: &str = "base:allocation";
/// What asks for all contexts of its namespace, in a list only.
const WILDCARD: &[u8] = b"base:";
/// The number of the context, in replies to BLOCK_STATUS.
pub(in crate::nbd::core) const ALLOCATION_ID: u32 = 1;
/// Zeroes behind the answer to EXPORT_NAME.
const PADDING: usize = 124;

/// Why an option's data are not what they must be.
struct Malformed(&'static str);

/// Takes an option's data apart.
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(n).ok_or(Malformed("the option ends too early"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("the option ends too early"))?;
        self.0 = rest;
        Ok(*front)
    }

    /// A length and so many bytes.
    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let n = u32::from_be_bytes(self.array()?) as usize;
        if n > MAX_NAME { Err(Malformed("a string longer than 4096 bytes")) } else { self.bytes(n) }
    }

    fn name(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.string()?).map_err(|_| Malformed("a name that is not UTF-8"))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes behind the option's end")) }
    }
}

/// The data of INFO and GO.
struct InfoRequest<'a> {
    name: &'a str,
    /// Bounded by the option's length.
    wanted: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    fn parse(data: &'a [u8]) -> Result<InfoRequest<'a>, Malformed> {
        let mut data = Data(data);
        let name = data.name()?;
        let count = u16::from_be_bytes(data.array()?);
        let wanted = (0..count).map(|_| data.array().map(u16::from_be_bytes)).collect::<Result<_, _>>()?;
        data.end()?;
        Ok(InfoRequest { name, wanted })
    }

    fn wants(&self, kind: u16) -> bool {
        self.wanted.contains(&kind)
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
struct Queries<'a> {
    name: &'a str,
    count: u32,
    /// Whether one asks for what there is, by name.
    named: bool,
    /// Whether one asks for all.
    wildcard: bool,
}

impl<'a> Queries<'a> {
    fn parse(data: &'a [u8]) -> Result<Queries<'a>, Malformed> {
        let mut data = Data(data);
        let name = data.name()?;
        let count = u32::from_be_bytes(data.array()?);
        let mut queries = Queries { name, count, named: false, wildcard: false };
        for _ in 0..count {
            let query = data.string()?;
            // What is of another namespace, or of none, is passed over.
            queries.named |= query == ALLOCATION.as_bytes();
            queries.wildcard |= query == WILDCARD;
        }
        data.end()?;
        Ok(queries)
    }
}

/// LIST.
pub(super) fn list(data: &[u8], catalogue: &dyn Catalogue, out: &mut Vec<u8>) {
    if !data.is_empty() {
        return answer_error(out, option::LIST, reply::ERR_INVALID, "LIST takes no data");
    }
    for (name, description) in catalogue.list() {
        // Lossless: names are at most 4096 bytes long.
        let length = (name.len() as u32).to_be_bytes();
        answer(out, option::LIST, reply::SERVER, &[&length[..], name.as_bytes(), description.as_bytes()].concat());
    }
    answer(out, option::LIST, reply::ACK, &[]);
}

impl Handshake {
    /// EXPORT_NAME: the only answers are yes, and the end.
    pub(super) fn export_name(
        &self,
        data: &[u8],
        flags: ClientFlags,
        catalogue: &dyn Catalogue,
        out: &mut Vec<u8>,
    ) -> Step {
        let name = str::from_utf8(data).ok().filter(|name| name.len() <= MAX_NAME);
        let Some(facts) = name.filter(|_| self.style != Style::Extended).and_then(|name| catalogue.find(name)) else {
            return Step::Close(Closing::ExportName);
        };
        let agreed = self.agreed(facts);
        let told = agreed.facts.flags(agreed.style, agreed.status);
        out.extend_from_slice(ExportAnswer { size: agreed.facts.size.into(), flags: told.into() }.as_bytes());
        if !flags.no_zeroes {
            out.extend_from_slice(&[0; PADDING]);
        }
        Step::Enter(agreed)
    }

    /// INFO and GO; what GO agreed upon.
    pub(super) fn info(
        &self,
        number: u32,
        data: &[u8],
        catalogue: &dyn Catalogue,
        out: &mut Vec<u8>,
    ) -> Option<Box<Agreed>> {
        let request = match InfoRequest::parse(data) {
            Ok(request) => request,
            Err(Malformed(why)) => {
                answer_error(out, number, reply::ERR_INVALID, why);
                return None;
            }
        };
        let Some(facts) = catalogue.find(request.name) else {
            answer_error(out, number, reply::ERR_UNKNOWN, "there is no such export");
            return None;
        };
        let agreed = self.agreed(facts);
        let facts = &agreed.facts;
        let mut tell = |kind: u16, data: &[u8]| {
            answer(out, number, reply::INFO, &[&kind.to_be_bytes()[..], data].concat());
        };
        let told = facts.flags(agreed.style, agreed.status);
        tell(info::EXPORT, ExportAnswer { size: facts.size.into(), flags: told.into() }.as_bytes());
        if request.wants(info::NAME) {
            tell(info::NAME, facts.name.as_bytes());
        }
        if request.wants(info::DESCRIPTION) && !facts.description.is_empty() {
            tell(info::DESCRIPTION, facts.description.as_bytes());
        }
        if request.wants(info::BLOCK_SIZE) {
            let sizes = [facts.block, facts.preferred, facts.max_payload()].map(u32::to_be_bytes);
            tell(info::BLOCK_SIZE, sizes.as_flattened());
        }
        answer(out, number, reply::ACK, &[]);
        (number == option::GO).then_some(agreed)
    }

    /// LIST_META_CONTEXT and SET_META_CONTEXT.
    pub(super) fn contexts(&mut self, number: u32, data: &[u8], catalogue: &dyn Catalogue, out: &mut Vec<u8>) {
        let sets = number == option::SET_META_CONTEXT;
        if sets {
            self.context = None;
        }
        if self.style == Style::Simple {
            return answer_error(out, number, reply::ERR_INVALID, "structured replies must be agreed upon first");
        }
        let queries = match Queries::parse(data) {
            Ok(queries) => queries,
            Err(Malformed(why)) => return answer_error(out, number, reply::ERR_INVALID, why),
        };
        if queries.count > MAX_QUERIES {
            return answer_error(out, number, reply::ERR_TOO_BIG, "too many queries");
        }
        let Some(facts) = catalogue.find(queries.name) else {
            return answer_error(out, number, reply::ERR_UNKNOWN, "there is no such export");
        };
        let listed = !sets && (queries.count == 0 || queries.wildcard);
        if queries.named || listed {
            let id = if sets { ALLOCATION_ID } else { 0 };
            answer(out, number, reply::META_CONTEXT, &[&id.to_be_bytes()[..], ALLOCATION.as_bytes()].concat());
        }
        if sets && queries.named {
            self.context = Some(facts.name);
        }
        answer(out, number, reply::ACK, &[]);
    }
}
