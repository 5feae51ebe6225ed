//! Additional sense codes with their names (SPC-4 table 56 and annex F.2): those of block devices.

use std::fmt;

/// An additional sense code and its qualifier (ASC/ASCQ).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdditionalCode {
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

macro_rules! codes {
    ($($asc:literal $ascq:literal $name:ident $text:literal)*) => {
        impl AdditionalCode {
            $(
                #[doc = $text]
                pub const $name: AdditionalCode = AdditionalCode { asc: $asc, ascq: $ascq };
            )*

            /// The standard's name in small letters; `None` where this crate does not know the code.
            pub fn name(self) -> Option<&'static str> {
                match (self.asc, self.ascq) {
                    $(($asc, $ascq) => Some($text),)*
                    _ => None,
                }
            }

            /// Every code that has a name, in the order of the standard.
            pub const ALL: &'static [AdditionalCode] = &[$(AdditionalCode::$name),*];
        }
    };
}

codes! {
    0x00 0x00 NONE "no additional sense information"
    0x00 0x16 OPERATION_IN_PROGRESS "operation in progress"
    0x03 0x00 PERIPHERAL_WRITE_FAULT "peripheral device write fault"
    0x04 0x00 NOT_READY "logical unit not ready, cause not reportable"
    0x04 0x01 BECOMING_READY "logical unit is in process of becoming ready"
    0x04 0x02 START_REQUIRED "logical unit not ready, initializing command required"
    0x04 0x03 MANUAL_INTERVENTION "logical unit not ready, manual intervention required"
    0x04 0x04 FORMAT_IN_PROGRESS "logical unit not ready, format in progress"
    0x04 0x05 REBUILD_IN_PROGRESS "logical unit not ready, rebuild in progress"
    0x04 0x06 RECALCULATION_IN_PROGRESS "logical unit not ready, recalculation in progress"
    0x04 0x07 NOT_READY_OPERATION_IN_PROGRESS "logical unit not ready, operation in progress"
    0x04 0x09 SELF_TEST_IN_PROGRESS "logical unit not ready, self-test in progress"
    0x04 0x0a ACCESS_STATE_TRANSITION "logical unit not accessible, asymmetric access state transition"
    0x04 0x0b STANDBY "logical unit not accessible, target port in standby state"
    0x04 0x0c UNAVAILABLE "logical unit not accessible, target port in unavailable state"
    0x04 0x0e SECURITY_SESSION_IN_PROGRESS "logical unit not ready, security session in progress"
    0x04 0x11 NOTIFY_REQUIRED "logical unit not ready, notify (enable spinup) required"
    0x04 0x12 OFFLINE "logical unit not ready, offline"
    0x04 0x14 SPACE_ALLOCATION_IN_PROGRESS "logical unit not ready, space allocation in progress"
    0x04 0x1b SANITIZE_IN_PROGRESS "logical unit not ready, sanitize in progress"
    0x04 0x1c ADDITIONAL_POWER_NOT_GRANTED "logical unit not ready, additional power use not yet granted"
    0x04 0x1d CONFIGURATION_IN_PROGRESS "logical unit not ready, configuration in progress"
    0x04 0x1e MICROCODE_ACTIVATION_REQUIRED "logical unit not ready, microcode activation required"
    0x05 0x00 DOES_NOT_RESPOND "logical unit does not respond to selection"
    0x08 0x00 COMMUNICATION_FAILURE "logical unit communication failure"
    0x08 0x01 COMMUNICATION_TIMEOUT "logical unit communication time-out"
    0x0b 0x00 WARNING "warning"
    0x0b 0x01 TEMPERATURE_WARNING "warning - specified temperature exceeded"
    0x0c 0x00 WRITE_ERROR "write error"
    0x0c 0x02 WRITE_ERROR_REALLOCATION_FAILED "write error - auto reallocation failed"
    0x0c 0x03 WRITE_ERROR_RECOMMEND_REASSIGNMENT "write error - recommend reassignment"
    0x0c 0x0c UNEXPECTED_UNSOLICITED_DATA "write error - unexpected unsolicited data"
    0x0c 0x0d NOT_ENOUGH_UNSOLICITED_DATA "write error - not enough unsolicited data"
    0x0d 0x00 THIRD_PARTY_ERROR "error detected by third party temporary initiator"
    0x10 0x00 PROTECTION_CRC_ERROR "ID CRC or ECC error"
    0x10 0x01 GUARD_CHECK_FAILED "logical block guard check failed"
    0x10 0x02 APPLICATION_TAG_CHECK_FAILED "logical block application tag check failed"
    0x10 0x03 REFERENCE_TAG_CHECK_FAILED "logical block reference tag check failed"
    0x11 0x00 UNRECOVERED_READ_ERROR "unrecovered read error"
    0x11 0x01 READ_RETRIES_EXHAUSTED "read retries exhausted"
    0x11 0x04 READ_ERROR_REALLOCATION_FAILED "unrecovered read error - auto reallocate failed"
    0x11 0x0b READ_ERROR_RECOMMEND_REASSIGNMENT "unrecovered read error - recommend reassignment"
    0x11 0x14 READ_ERROR_MARKED_BAD "read error - LBA marked bad by application client"
    0x14 0x00 RECORDED_ENTITY_NOT_FOUND "recorded entity not found"
    0x15 0x00 RANDOM_POSITIONING_ERROR "random positioning error"
    0x17 0x00 RECOVERED_WITHOUT_CORRECTION "recovered data with no error correction applied"
    0x18 0x00 RECOVERED_WITH_CORRECTION "recovered data with error correction applied"
    0x1a 0x00 PARAMETER_LIST_LENGTH_ERROR "parameter list length error"
    0x1d 0x00 MISCOMPARE "miscompare during verify operation"
    0x1d 0x01 MISCOMPARE_OF_UNMAPPED_LBA "miscompare verify of unmapped LBA"
    0x20 0x00 INVALID_OPERATION_CODE "invalid command operation code"
    0x20 0x02 ACCESS_DENIED_NO_RIGHTS "access denied - no access rights"
    0x21 0x00 LBA_OUT_OF_RANGE "logical block address out of range"
    0x22 0x00 ILLEGAL_FUNCTION "illegal function"
    0x24 0x00 INVALID_FIELD_IN_CDB "invalid field in CDB"
    0x25 0x00 LOGICAL_UNIT_NOT_SUPPORTED "logical unit not supported"
    0x26 0x00 INVALID_FIELD_IN_PARAMETER_LIST "invalid field in parameter list"
    0x26 0x01 PARAMETER_NOT_SUPPORTED "parameter not supported"
    0x26 0x02 PARAMETER_VALUE_INVALID "parameter value invalid"
    0x26 0x04 INVALID_RELEASE "invalid release of persistent reservation"
    0x26 0x06 TOO_MANY_TARGET_DESCRIPTORS "too many target descriptors"
    0x26 0x07 UNSUPPORTED_TARGET_DESCRIPTOR "unsupported target descriptor type code"
    0x26 0x08 TOO_MANY_SEGMENTS "too many segment descriptors"
    0x26 0x09 UNSUPPORTED_SEGMENT_DESCRIPTOR "unsupported segment descriptor type code"
    0x27 0x00 WRITE_PROTECTED "write protected"
    0x27 0x01 HARDWARE_WRITE_PROTECTED "hardware write protected"
    0x27 0x02 SOFTWARE_WRITE_PROTECTED "logical unit software write protected"
    0x27 0x07 SPACE_ALLOCATION_FAILED "space allocation failed write protect"
    0x28 0x00 MEDIUM_MAY_HAVE_CHANGED "not ready to ready change, medium may have changed"
    0x29 0x00 POWER_ON_OR_RESET "power on, reset, or bus device reset occurred"
    0x29 0x01 POWER_ON "power on occurred"
    0x29 0x02 SCSI_BUS_RESET "SCSI bus reset occurred"
    0x29 0x03 BUS_DEVICE_RESET "bus device reset function occurred"
    0x29 0x04 INTERNAL_RESET "device internal reset"
    0x29 0x07 NEXUS_LOSS "I_T nexus loss occurred"
    0x2a 0x00 PARAMETERS_CHANGED "parameters changed"
    0x2a 0x01 MODE_PARAMETERS_CHANGED "mode parameters changed"
    0x2a 0x02 LOG_PARAMETERS_CHANGED "log parameters changed"
    0x2a 0x03 RESERVATIONS_PREEMPTED "reservations preempted"
    0x2a 0x04 RESERVATIONS_RELEASED "reservations released"
    0x2a 0x05 REGISTRATIONS_PREEMPTED "registrations preempted"
    0x2a 0x06 ACCESS_STATE_CHANGED "asymmetric access state changed"
    0x2a 0x07 IMPLICIT_TRANSITION_FAILED "implicit asymmetric access state transition failed"
    0x2a 0x08 PRIORITY_CHANGED "priority changed"
    0x2a 0x09 CAPACITY_CHANGED "capacity data has changed"
    0x2a 0x0a ERROR_HISTORY_NEXUS_CLEARED "error history I_T nexus cleared"
    0x2a 0x0b ERROR_HISTORY_SNAPSHOT_RELEASED "error history snapshot released"
    0x2a 0x10 TIMESTAMP_CHANGED "timestamp changed"
    0x2c 0x00 COMMAND_SEQUENCE_ERROR "command sequence error"
    0x2c 0x07 PREVIOUS_BUSY "previous busy status"
    0x2c 0x08 PREVIOUS_TASK_SET_FULL "previous task set full status"
    0x2c 0x09 PREVIOUS_RESERVATION_CONFLICT "previous reservation conflict status"
    0x2c 0x0b NOT_RESERVED "not reserved"
    0x2e 0x00 INSUFFICIENT_TIME "insufficient time for operation"
    0x2f 0x00 COMMANDS_CLEARED "commands cleared by another initiator"
    0x2f 0x01 COMMANDS_CLEARED_BY_POWER_LOSS "commands cleared by power loss notification"
    0x2f 0x02 COMMANDS_CLEARED_BY_SERVER "commands cleared by device server"
    0x30 0x00 INCOMPATIBLE_MEDIUM "incompatible medium installed"
    0x31 0x00 MEDIUM_FORMAT_CORRUPTED "medium format corrupted"
    0x31 0x01 FORMAT_COMMAND_FAILED "format command failed"
    0x31 0x03 SANITIZE_COMMAND_FAILED "sanitize command failed"
    0x32 0x00 NO_DEFECT_SPARE "no defect spare location available"
    0x37 0x00 ROUNDED_PARAMETER "rounded parameter"
    0x38 0x07 THIN_PROVISIONING_THRESHOLD "thin provisioning soft threshold reached"
    0x39 0x00 SAVING_PARAMETERS_NOT_SUPPORTED "saving parameters not supported"
    0x3a 0x00 MEDIUM_NOT_PRESENT "medium not present"
    0x3a 0x01 MEDIUM_NOT_PRESENT_TRAY_CLOSED "medium not present - tray closed"
    0x3a 0x02 MEDIUM_NOT_PRESENT_TRAY_OPEN "medium not present - tray open"
    0x3e 0x00 NOT_SELF_CONFIGURED "logical unit has not self-configured yet"
    0x3e 0x01 LOGICAL_UNIT_FAILURE "logical unit failure"
    0x3e 0x02 LOGICAL_UNIT_TIMEOUT "timeout on logical unit"
    0x3e 0x03 SELF_TEST_FAILED "logical unit failed self-test"
    0x3f 0x00 OPERATING_CONDITIONS_CHANGED "target operating conditions have changed"
    0x3f 0x01 MICROCODE_CHANGED "microcode has been changed"
    0x3f 0x02 OPERATING_DEFINITION_CHANGED "changed operating definition"
    0x3f 0x03 INQUIRY_DATA_CHANGED "inquiry data has changed"
    0x3f 0x05 DEVICE_IDENTIFIER_CHANGED "device identifier changed"
    0x3f 0x0a VOLUME_SET_CREATED_OR_MODIFIED "volume set created or modified"
    0x3f 0x0e LUNS_CHANGED "reported LUNs data has changed"
    0x3f 0x0f ECHO_BUFFER_OVERWRITTEN "echo buffer overwritten"
    0x40 0x00 RAM_FAILURE "RAM failure"
    0x44 0x00 INTERNAL_TARGET_FAILURE "internal target failure"
    0x47 0x00 PARITY_ERROR "SCSI parity error"
    0x47 0x01 DATA_PHASE_CRC_ERROR "data phase CRC error detected"
    0x47 0x03 INFORMATION_UNIT_CRC_ERROR "information unit iuCRC error detected"
    0x47 0x05 PROTOCOL_SERVICE_CRC_ERROR "protocol service CRC error"
    0x47 0x7f SOME_COMMANDS_CLEARED "some commands cleared by iSCSI protocol event"
    0x4a 0x00 COMMAND_PHASE_ERROR "command phase error"
    0x4b 0x00 DATA_PHASE_ERROR "data phase error"
    0x4b 0x01 INVALID_TARGET_PORT_TRANSFER_TAG "invalid target port transfer tag received"
    0x4b 0x02 TOO_MUCH_WRITE_DATA "too much write data"
    0x4b 0x03 ACK_NAK_TIMEOUT "ACK/NAK timeout"
    0x4b 0x05 DATA_OFFSET_ERROR "data offset error"
    0x4b 0x06 INITIATOR_RESPONSE_TIMEOUT "initiator response timeout"
    0x4b 0x07 CONNECTION_LOST "connection lost"
    0x4e 0x00 OVERLAPPED_COMMANDS "overlapped commands attempted"
    0x53 0x02 MEDIUM_REMOVAL_PREVENTED "medium removal prevented"
    0x55 0x01 SYSTEM_BUFFER_FULL "system buffer full"
    0x55 0x02 INSUFFICIENT_RESERVATION_RESOURCES "insufficient reservation resources"
    0x55 0x03 INSUFFICIENT_RESOURCES "insufficient resources"
    0x55 0x04 INSUFFICIENT_REGISTRATION_RESOURCES "insufficient registration resources"
    0x5a 0x00 OPERATOR_REQUEST "operator request or state change input"
    0x5a 0x02 OPERATOR_WRITE_PROTECT "operator selected write protect"
    0x5d 0x00 FAILURE_PREDICTED "failure prediction threshold exceeded"
    0x5d 0xff FAILURE_PREDICTED_FALSE "failure prediction threshold exceeded (false)"
    0x65 0x00 VOLTAGE_FAULT "voltage fault"
    0x68 0x00 NOT_CONFIGURED "logical unit not configured"
}

impl AdditionalCode {
    /// A code by its two bytes.
    pub const fn new(asc: u8, ascq: u8) -> AdditionalCode {
        AdditionalCode { asc, ascq }
    }
}

impl fmt::Display for AdditionalCode {
    /// The name and both numbers, as in `write protected (27/00)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("unnamed condition");
        write!(f, "{name} ({:02x}/{:02x})", self.asc, self.ascq)
    }
}

impl fmt::Debug for AdditionalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdditionalCode({:02x}/{:02x})", self.asc, self.ascq)
    }
}
