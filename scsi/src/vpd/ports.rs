//! Page 88h (SPC-4 7.8.14): every port of the target, whichever it was read through.

use zerocopy::IntoBytes;

use super::designator::Designator;
use super::{PageCode, body, page};
use crate::alua::RelativePort;
use crate::error::ParseError;
use crate::wire::{U16, entry, len16, take, wire};

wire!(
    /// SPC-4 table 631, up to the initiator port's TransportID.
    WirePort [8] { reserved: U16, port: U16, more: U16, initiator_len: U16 }
);
wire!(
    /// Behind the TransportID.
    WireNames [4] { reserved: U16, len: U16 }
);

/// A port of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiPort {
    /// Its number.
    pub port: RelativePort,
    /// Its names; for iSCSI `iqn...,t,0xTAG`.
    pub names: Vec<Designator>,
}

/// The ports of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScsiPorts {
    /// The ports, in the target's order.
    pub ports: Vec<ScsiPort>,
}

const WHAT: &str = "VPD page 88h";
/// The most names of one port that are read.
const MAX_NAMES: usize = 16;

impl ScsiPorts {
    /// The most ports that are read.
    pub const MAX: usize = 1024;

    /// Reads the page. What it says of initiator ports is passed over.
    pub fn parse(bytes: &[u8]) -> Result<ScsiPorts, ParseError> {
        let mut list = body(WHAT, PageCode::PORTS, bytes)?;
        let mut ports = Vec::new();
        while !list.is_empty() {
            if ports.len() == ScsiPorts::MAX {
                return Err(ParseError::TooMany { what: WHAT, max: ScsiPorts::MAX });
            }
            let (port, rest) = parse_port(list)?;
            ports.push(port);
            list = rest;
        }
        Ok(ScsiPorts { ports })
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for port in &self.ports {
            let names: Vec<u8> = port.names.iter().flat_map(Designator::to_bytes).collect();
            let number = U16::new(port.port.0);
            let head = WirePort { reserved: U16::ZERO, port: number, more: U16::ZERO, initiator_len: U16::ZERO };
            let len = U16::new(u16::try_from(names.len()).unwrap_or(u16::MAX));
            list.extend_from_slice(head.as_bytes());
            list.extend_from_slice(WireNames { reserved: U16::ZERO, len }.as_bytes());
            list.extend_from_slice(&names);
        }
        page(PageCode::PORTS, &list)
    }
}

fn parse_port(bytes: &[u8]) -> Result<(ScsiPort, &[u8]), ParseError> {
    let (wire, rest) = entry::<WirePort>(WHAT, bytes)?;
    let (_initiator, rest) = take(WHAT, rest, len16(wire.initiator_len))?;
    let (lens, rest) = entry::<WireNames>(WHAT, rest)?;
    let (mut list, rest) = take(WHAT, rest, len16(lens.len))?;
    let mut names = Vec::new();
    while !list.is_empty() {
        if names.len() == MAX_NAMES {
            return Err(ParseError::TooMany { what: WHAT, max: MAX_NAMES });
        }
        let (name, after) = Designator::parse(list)?;
        names.push(name);
        list = after;
    }
    Ok((ScsiPort { port: RelativePort(wire.port.get()), names }, rest))
}
