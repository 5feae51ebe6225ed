//! What the unit is called and what it can do: INQUIRY and its pages.
//!
//! The unit's names are made of the target's name, which is unique in the world, and its number: the same through every
//! port and after every restart.

use scsi::alua::{PortGroup, RelativePort};
use scsi::inquiry::{DeviceType, PortGroupSupport, Qualifier, StandardInquiry};
use scsi::units::BlockCount;
use scsi::vpd::{
    Association, BlockCharacteristics, BlockLimits, Designator, DeviceIdentification, ExtendedInquiry, Identifier,
    LogicalBlockProvisioning, Naa, PageCode, ProvisioningType, Rotation, ScsiPort, ScsiPorts, SupportedPages,
    UnitSerialNumber,
};
use sha2::{Digest, Sha256};

use super::answer::THRESHOLD_EXPONENT;
use super::media::{MAX_SWAP, MAX_TRANSFER, MAX_UNMAP_BLOCKS, MAX_UNMAP_RANGES};
use super::{NexusId, Shape, Unit};

const VENDOR: &str = "SHORFAST";
const PRODUCT: &str = "Shorefast LUN";
/// SAM-5, SPC-4, SBC-3 and iSCSI, without claiming a revision (SPC-4 table 175).
const VERSIONS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];
/// SPC-4.
const VERSION: u8 = 6;
/// iSCSI as a protocol identifier.
const ISCSI: u8 = 5;
/// Bytes that are moved best at once.
const OPTIMAL_TRANSFER: u32 = 1 << 20;

/// Standard INQUIRY data of a unit, or of a number that has none.
pub(crate) fn standard(is_there: bool) -> StandardInquiry {
    StandardInquiry {
        qualifier: if is_there { Qualifier::Connected } else { Qualifier::Impossible },
        device: if is_there { DeviceType::Block } else { DeviceType::Unknown },
        removable: false,
        version: VERSION,
        normal_aca: false,
        port_groups: PortGroupSupport { implicit: is_there, explicit: is_there },
        third_party_copy: false,
        protection: false,
        multi_port: true,
        queueing: true,
        vendor: VENDOR.into(),
        product: PRODUCT.into(),
        revision: "1".into(),
        versions: VERSIONS.to_vec(),
    }
}

impl Shape {
    /// Sixteen bytes that no other unit has: of a hash of target name and number.
    fn digest(&self) -> [u8; 16] {
        let hash = Sha256::digest(format!("{}\0{}", self.target, self.lun));
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        id
    }

    /// The serial number: the digest's digits.
    pub(crate) fn serial(&self) -> String {
        self.digest().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// A UUID of version 8 (RFC 9562): what this maker makes of a name.
    fn uuid(&self) -> [u8; 16] {
        let mut id = self.digest();
        id[6] = id[6] & 0x0f | 0x80;
        id[8] = id[8] & 0x3f | 0x80;
        id
    }

    fn port_name(&self, port: u16) -> Designator {
        // RFC 7143 4.2.7.1: a target port's name, padded to four bytes by the writer of the designator.
        let name = Identifier::Name(format!("{},t,0x{port:04x}", self.target));
        Designator { association: Association::Port, protocol: Some(ISCSI), identifier: name }
    }
}

impl Unit {
    /// Standard data, or a page; none if there is no such page.
    pub(super) fn inquiry(&self, nexus: NexusId, page: Option<PageCode>) -> Option<Vec<u8>> {
        Some(match page {
            None => standard(true).to_bytes(),
            Some(PageCode::SUPPORTED) => SupportedPages { pages: self.pages() }.to_bytes(),
            Some(page) if !self.pages().contains(&page) => return None,
            Some(PageCode::SERIAL) => UnitSerialNumber::new(&self.shape.serial())?.to_bytes(),
            Some(PageCode::IDENTIFICATION) => self.identification(nexus).to_bytes(),
            Some(PageCode::EXTENDED) => extended().to_bytes(),
            Some(PageCode::PORTS) => self.ports().to_bytes(),
            Some(PageCode::BLOCK_LIMITS) => self.limits().to_bytes(),
            Some(PageCode::BLOCK_CHARACTERISTICS) => {
                let rotation = Rotation::Solid;
                BlockCharacteristics { rotation, form_factor: 0, fua_bypasses: false, verify_unmapped: true }.to_bytes()
            }
            Some(PageCode::PROVISIONING) => self.provisioning().to_bytes(),
            Some(_) => return None,
        })
    }

    fn pages(&self) -> Vec<PageCode> {
        let mut pages = vec![
            PageCode::SUPPORTED,
            PageCode::SERIAL,
            PageCode::IDENTIFICATION,
            PageCode::EXTENDED,
            PageCode::PORTS,
            PageCode::BLOCK_LIMITS,
            PageCode::BLOCK_CHARACTERISTICS,
        ];
        if self.shape.thin {
            pages.push(PageCode::PROVISIONING);
        }
        pages
    }

    fn identification(&self, nexus: NexusId) -> DeviceIdentification {
        let digest = self.shape.digest();
        let mut naa = [0; 8];
        naa.copy_from_slice(&digest[..8]);
        // NAA 3h: locally assigned.
        naa[0] = naa[0] & 0x0f | 0x30;
        let mut designators = vec![
            Designator::unit(Identifier::Uuid(self.shape.uuid())),
            Designator::unit(Identifier::Naa(Naa::Short(naa))),
            Designator::unit(Identifier::T10(format!("{VENDOR}{}", self.shape.serial()))),
        ];
        if let Some(port) = self.seats.get(&nexus).map(|seat| seat.name.port) {
            let of_port = |identifier| Designator { association: Association::Port, protocol: Some(ISCSI), identifier };
            designators.push(of_port(Identifier::Port(RelativePort(port))));
            designators.push(of_port(Identifier::PortGroup(PortGroup(port))));
            designators.push(self.shape.port_name(port));
        }
        designators.push(Designator {
            association: Association::Target,
            protocol: Some(ISCSI),
            identifier: Identifier::Name(self.shape.target.clone()),
        });
        DeviceIdentification { designators }
    }

    fn ports(&self) -> ScsiPorts {
        let ports = self
            .shape
            .ports
            .iter()
            .map(|port| ScsiPort { port: RelativePort(*port), names: vec![self.shape.port_name(*port)] });
        ScsiPorts { ports: ports.collect() }
    }

    fn limits(&self) -> BlockLimits {
        let block = self.shape.block.get();
        let blocks = |bytes: u32| Some(BlockCount(u64::from(bytes / block)));
        let granularity = BlockCount(1 << self.shape.physical_exponent);
        let thin = self.shape.thin;
        BlockLimits {
            write_same_needs_count: false,
            max_compare_and_write: MAX_SWAP,
            granularity: Some(granularity),
            max_transfer: blocks(MAX_TRANSFER),
            optimal_transfer: blocks(OPTIMAL_TRANSFER),
            max_prefetch: None,
            max_unmap_blocks: thin.then_some(BlockCount(u64::from(MAX_UNMAP_BLOCKS))),
            max_unmap_ranges: thin.then_some(MAX_UNMAP_RANGES),
            unmap_granularity: thin.then_some(granularity),
            unmap_alignment: None,
            max_write_same: blocks(MAX_TRANSFER),
            max_atomic: None,
            atomic_alignment: None,
            atomic_granularity: None,
            max_atomic_bounded: None,
            max_atomic_boundary: None,
        }
    }

    fn provisioning(&self) -> LogicalBlockProvisioning {
        LogicalBlockProvisioning {
            threshold_exponent: THRESHOLD_EXPONENT,
            unmap: true,
            write_same_16: true,
            write_same_10: true,
            // 001b: zeroes.
            read_as: 1,
            anchor: false,
            kind: ProvisioningType::Thin,
            threshold_percent: 0,
        }
    }
}

fn extended() -> ExtendedInquiry {
    ExtendedInquiry {
        protection_checks: 0,
        protection_types: 0,
        groups: false,
        priorities: false,
        head_of_queue: true,
        ordered: true,
        simple: true,
        non_volatile_cache: false,
        volatile_cache: true,
        nexus_unit_attention_clear: false,
        referrals: false,
        max_sense: 0,
    }
}
