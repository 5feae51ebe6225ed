//! What MODE SENSE answers and MODE SELECT sends: header, block descriptor, pages (SPC-4 7.5.4 to 7.5.7).

use zerocopy::IntoBytes;

use super::{BlockDescriptor, Caching, Control, PageId};
use crate::cdb::{Form, ModeSelect, ModeSense};
use crate::error::{ListError, ParseError};
use crate::wire::{U16, bit, flag, wire};

wire!(
    /// SPC-4 table 436: mode parameter header (6).
    WireHead6 [4] { len: u8, medium: u8, device: u8, descriptors: u8 }
);
wire!(
    /// SPC-4 table 437: mode parameter header (10).
    WireHead10 [8] { len: U16, medium: u8, device: u8, flags: u8, reserved: u8, descriptors: U16 }
);

/// A page that this crate keeps as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPage {
    /// Its code.
    pub id: PageId,
    /// What is behind its header.
    pub body: Vec<u8>,
}

/// A mode page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Page {
    /// 08h.
    Caching(Caching),
    /// 0Ah.
    Control(Control),
    /// Any other, or one of the above that is too short.
    Raw(RawPage),
}

/// Mode parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModeData {
    /// WP: the medium is write-protected. Reserved in MODE SELECT.
    pub write_protected: bool,
    /// DPOFUA: DPO and FUA are looked at. Reserved in MODE SELECT.
    pub dpo_fua: bool,
    /// The block descriptor, if there is one.
    pub block: Option<BlockDescriptor>,
    /// The pages, in order.
    pub pages: Vec<Page>,
}

const WHAT: &str = "mode parameter data";
/// PS of a page's first byte: it can be saved. SPF: it has a subpage code.
const SAVEABLE: u8 = 0x80;
const SUBPAGE: u8 = 6;

/// Header fields in the form of both.
struct Head {
    /// Bytes of the header.
    len: usize,
    /// Bytes of header and all that follows, as it states.
    all: usize,
    device: u8,
    long: bool,
    descriptors: usize,
}

impl Head {
    fn read(form: Form, bytes: &[u8]) -> Result<Head, ParseError> {
        if form == Form::Six {
            let (wire, _) = crate::wire::head::<WireHead6>(WHAT, bytes)?;
            let (all, descriptors) = (usize::from(wire.len) + 1, usize::from(wire.descriptors));
            return Ok(Head { len: 4, all, device: wire.device, long: false, descriptors });
        }
        let (wire, _) = crate::wire::head::<WireHead10>(WHAT, bytes)?;
        let (all, descriptors) = (usize::from(wire.len.get()) + 2, usize::from(wire.descriptors.get()));
        Ok(Head { len: 8, all, device: wire.device, long: bit(wire.flags, 0), descriptors })
    }
}

impl ModeData {
    /// The most pages that are read: every code once, with some subpages.
    pub const MAX_PAGES: usize = 128;

    /// Reads the answer to `command`, all of it, or says how many bytes it has.
    pub fn parse(command: &ModeSense, bytes: &[u8]) -> Result<ModeData, ParseError> {
        let head = Head::read(command.form, bytes)?;
        if bytes.len() < head.all {
            return Err(ParseError::Truncated { what: WHAT, need: head.all, have: bytes.len() });
        }
        let end = head.all.max(head.len);
        let (block, pages) = ModeData::rest(&head, bytes.get(head.len..end).unwrap_or_default())?;
        let (write_protected, dpo_fua) = (bit(head.device, 7), bit(head.device, 4));
        Ok(ModeData { write_protected, dpo_fua, block, pages })
    }

    /// A target reads the list of a command that it has parsed. The length in the header is reserved there.
    pub fn parse_select(command: &ModeSelect, list: &[u8]) -> Result<ModeData, ListError> {
        if list.is_empty() {
            return Ok(ModeData::default());
        }
        let head = Head::read(command.form, list).map_err(|_| ListError::Length)?;
        let rest = list.get(head.len..).unwrap_or_default();
        let (block, pages) = ModeData::rest(&head, rest).map_err(|_| ListError::Length)?;
        Ok(ModeData { write_protected: false, dpo_fua: false, block, pages })
    }

    fn rest(head: &Head, bytes: &[u8]) -> Result<(Option<BlockDescriptor>, Vec<Page>), ParseError> {
        let (descriptors, mut list) = crate::wire::take(WHAT, bytes, head.descriptors)?;
        let block = BlockDescriptor::parse(head.long, descriptors);
        let mut pages = Vec::new();
        while !list.is_empty() {
            if pages.len() == ModeData::MAX_PAGES {
                return Err(ParseError::TooMany { what: WHAT, max: ModeData::MAX_PAGES });
            }
            let (page, rest) = Page::parse(list)?;
            pages.push(page);
            list = rest;
        }
        Ok((block, pages))
    }

    /// The bytes with a header of `form` (6 or 10); as an answer, or, with the reserved fields zero, as a list for MODE
    /// SELECT.
    pub fn to_bytes(&self, form: Form, select: bool) -> Vec<u8> {
        let (six, long) = (form == Form::Six, false);
        let block = self.block.map_or(Vec::new(), |block| block.to_bytes(long));
        let pages: Vec<u8> = self.pages.iter().flat_map(|page| page.to_bytes(select)).collect();
        let following = block.len() + pages.len();
        let device = if select { 0 } else { flag(self.write_protected, 7) | flag(self.dpo_fua, 4) };
        let mut bytes = if six {
            let len = if select { 0 } else { u8::try_from(following + 3).unwrap_or(u8::MAX) };
            let descriptors = u8::try_from(block.len()).unwrap_or(0);
            WireHead6 { len, medium: 0, device, descriptors }.as_bytes().to_vec()
        } else {
            let len = if select { 0 } else { u16::try_from(following + 6).unwrap_or(u16::MAX) };
            let descriptors = U16::new(u16::try_from(block.len()).unwrap_or(0));
            let flags = flag(long, 0);
            let len = U16::new(len);
            WireHead10 { len, medium: 0, device, flags, reserved: 0, descriptors }.as_bytes().to_vec()
        };
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&pages);
        bytes
    }

    /// The caching page, if it is there.
    pub fn caching(&self) -> Option<&Caching> {
        self.pages.iter().find_map(|page| if let Page::Caching(caching) = page { Some(caching) } else { None })
    }

    /// The control page, if it is there.
    pub fn control(&self) -> Option<&Control> {
        self.pages.iter().find_map(|page| if let Page::Control(control) = page { Some(control) } else { None })
    }
}

impl Page {
    /// Its code.
    pub fn id(&self) -> PageId {
        match self {
            Page::Caching(_) => PageId::CACHING,
            Page::Control(_) => PageId::CONTROL,
            Page::Raw(raw) => raw.id,
        }
    }

    /// Reads one page at the start of `bytes`; what follows it is returned too.
    fn parse(bytes: &[u8]) -> Result<(Page, &[u8]), ParseError> {
        let first = bytes.first().copied().unwrap_or(0);
        let head = if bit(first, SUBPAGE) { 4 } else { 2 };
        let (front, rest) = crate::wire::take("mode page", bytes, head)?;
        let (subpage, len) = match front {
            [_, subpage, high, low] => (*subpage, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => (0, usize::from(front[1])),
        };
        let (body, rest) = crate::wire::take("mode page", rest, len)?;
        let id = PageId { page: first & 0x3f, subpage };
        let known = match id {
            PageId::CACHING => Caching::parse(body).map(Page::Caching),
            PageId::CONTROL => Control::parse(body).map(Page::Control),
            _ => None,
        };
        Ok((known.unwrap_or_else(|| Page::Raw(RawPage { id, body: body.to_vec() })), rest))
    }

    fn to_bytes(&self, select: bool) -> Vec<u8> {
        let body = match self {
            Page::Caching(caching) => caching.to_bytes().to_vec(),
            Page::Control(control) => control.to_bytes().to_vec(),
            Page::Raw(raw) => raw.body.clone(),
        };
        let id = self.id();
        let first = id.page & 0x3f | if select { 0 } else { SAVEABLE };
        let mut bytes = if id.subpage != 0 {
            let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
            vec![first | 1 << SUBPAGE, id.subpage, high, low]
        } else {
            vec![first, u8::try_from(body.len()).unwrap_or(u8::MAX)]
        };
        bytes.extend_from_slice(&body);
        bytes
    }
}
