//! Page 83h (SPC-4 7.8.6): what a unit, its port and its target are called; whether two paths lead to one unit.

use super::designator::{Association, Designator, Identifier, Strength};
use super::{PageCode, UnitSerialNumber, body, page};
use crate::alua::{PortGroup, RelativePort};
use crate::error::ParseError;

/// The designators of a unit, as seen through one target port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceIdentification {
    /// The designators, in the target's order.
    pub designators: Vec<Designator>,
}

/// Whether two paths lead to one logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// A name that is unique in the world is the same, and none differs.
    Same,
    /// A name differs that both have in one kind.
    Different,
    /// No name proves it: they have none in common, or only names that another target may use too. Nobody may merge
    /// such paths.
    Unproved,
}

const WHAT: &str = "VPD page 83h";

impl DeviceIdentification {
    /// The most designators that are read; arrays have about ten.
    pub const MAX: usize = 128;

    /// Reads the page.
    pub fn parse(bytes: &[u8]) -> Result<DeviceIdentification, ParseError> {
        let mut list = body(WHAT, PageCode::IDENTIFICATION, bytes)?;
        let mut designators = Vec::new();
        while !list.is_empty() {
            if designators.len() == DeviceIdentification::MAX {
                return Err(ParseError::TooMany { what: WHAT, max: DeviceIdentification::MAX });
            }
            let (designator, rest) = Designator::parse(list)?;
            designators.push(designator);
            list = rest;
        }
        Ok(DeviceIdentification { designators })
    }

    /// The page's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let list: Vec<u8> = self.designators.iter().flat_map(Designator::to_bytes).collect();
        page(PageCode::IDENTIFICATION, &list)
    }

    /// The name of the unit that is best to tell people: the first of the strongest. NAA before EUI-64 before others, as
    /// their tools do.
    pub fn unit_name(&self) -> Option<&Identifier> {
        let rank = |id: &&Identifier| match id {
            Identifier::Naa(_) => 0,
            Identifier::Eui64(_) => 1,
            Identifier::Uuid(_) => 2,
            Identifier::Name(_) => 3,
            _ => 4,
        };
        let names = || self.unit_names().filter(|id| id.strength() != Strength::None);
        let strongest = names().map(Identifier::strength).max()?;
        names().filter(|id| id.strength() == strongest).min_by_key(rank)
    }

    /// The port through which the page was read.
    pub fn port(&self) -> Option<RelativePort> {
        self.designators.iter().find_map(|d| match d.identifier {
            Identifier::Port(port) if d.association == Association::Port => Some(port),
            _ => None,
        })
    }

    /// The group of that port.
    pub fn port_group(&self) -> Option<PortGroup> {
        self.designators.iter().find_map(|d| match d.identifier {
            Identifier::PortGroup(group) if d.association == Association::Port => Some(group),
            _ => None,
        })
    }

    /// Whether this page and `other`, read over another path, are of one unit.
    ///
    /// A set of names of one kind that have nothing in common proves two units. A common name of the world proves one.
    /// Local names alone prove one only together with serial numbers that are the same, *and* only within one target:
    /// two targets of one make may number alike, so across targets they prove nothing.
    pub fn same_unit(
        &self,
        other: &DeviceIdentification,
        serials: (Option<&UnitSerialNumber>, Option<&UnitSerialNumber>),
        one_target: bool,
    ) -> Sameness {
        let kinds = |strength: Strength| {
            let ours: Vec<&Identifier> = self.unit_names().filter(|id| id.strength() == strength).collect();
            let theirs: Vec<&Identifier> = other.unit_names().filter(|id| id.strength() == strength).collect();
            compare(&ours, &theirs)
        };
        let serial = match serials {
            (Some(ours), Some(theirs)) if ours != theirs => return Sameness::Different,
            (Some(_), Some(_)) => true,
            _ => false,
        };
        match (kinds(Strength::Global), kinds(Strength::Local)) {
            (Sameness::Different, _) | (_, Sameness::Different) => Sameness::Different,
            (Sameness::Same, _) => Sameness::Same,
            (_, Sameness::Same) if serial && one_target => Sameness::Same,
            _ => Sameness::Unproved,
        }
    }

    fn unit_names(&self) -> impl Iterator<Item = &Identifier> {
        self.designators.iter().filter(|d| d.association == Association::Unit).map(|d| &d.identifier)
    }
}

/// Compares names kind by kind.
fn compare(ours: &[&Identifier], theirs: &[&Identifier]) -> Sameness {
    let kind = |id: &Identifier| std::mem::discriminant(id);
    let mut found = Sameness::Unproved;
    for id in ours {
        let mut of_kind = theirs.iter().filter(|other| kind(other) == kind(id)).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        let of_ours = ours.iter().filter(|other| kind(other) == kind(id));
        let common = of_ours.into_iter().any(|one| theirs.contains(one));
        if !common {
            return Sameness::Different;
        }
        found = Sameness::Same;
    }
    found
}
