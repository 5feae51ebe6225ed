//! Any command that this crate knows: what a target makes of a command descriptor block.

use super::op;
use super::report::action;
use super::*;
use crate::error::CdbError;
use crate::units::OpCode;
use crate::wire::bit;

/// NACA of the control byte: the initiator asks for an auto contingent allegiance.
const NACA: u8 = 2;

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident($ty:ty))*) => {
        /// A parsed command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Command {
            $($(#[$doc])* $name($ty)),*
        }

        $(impl From<$ty> for Command {
            fn from(command: $ty) -> Command {
                Command::$name(command)
            }
        })*
    };
}

commands! {
    /// TEST UNIT READY.
    TestUnitReady(TestUnitReady)
    /// REQUEST SENSE.
    RequestSense(RequestSense)
    /// INQUIRY.
    Inquiry(Inquiry)
    /// MODE SENSE (6) and (10).
    ModeSense(ModeSense)
    /// MODE SELECT (6) and (10).
    ModeSelect(ModeSelect)
    /// START STOP UNIT.
    StartStopUnit(StartStopUnit)
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventAllow(PreventAllow)
    /// RESERVE (6).
    Reserve6(Reserve6)
    /// RELEASE (6).
    Release6(Release6)
    /// READ CAPACITY (10).
    ReadCapacity10(ReadCapacity10)
    /// READ CAPACITY (16).
    ReadCapacity16(ReadCapacity16)
    /// GET LBA STATUS.
    GetLbaStatus(GetLbaStatus)
    /// READ (6), (10), (12) and (16).
    Read(Read)
    /// WRITE (6), (10), (12) and (16).
    Write(Write)
    /// WRITE AND VERIFY (10), (12) and (16).
    WriteAndVerify(WriteAndVerify)
    /// WRITE ATOMIC (16).
    WriteAtomic(WriteAtomic)
    /// WRITE SAME (10) and (16).
    WriteSame(WriteSame)
    /// ORWRITE (16).
    OrWrite(OrWrite)
    /// COMPARE AND WRITE.
    CompareAndWrite(CompareAndWrite)
    /// VERIFY (10), (12) and (16).
    Verify(Verify)
    /// PRE-FETCH (10) and (16).
    PreFetch(PreFetch)
    /// SYNCHRONIZE CACHE (10) and (16).
    SynchronizeCache(SynchronizeCache)
    /// UNMAP.
    Unmap(Unmap)
    /// LOG SENSE.
    LogSense(LogSense)
    /// PERSISTENT RESERVE IN.
    PersistentReserveIn(PersistentReserveIn)
    /// PERSISTENT RESERVE OUT.
    PersistentReserveOut(PersistentReserveOut)
    /// EXTENDED COPY.
    ExtendedCopy(ExtendedCopy)
    /// RECEIVE COPY RESULTS.
    ReceiveCopyResults(ReceiveCopyResults)
    /// REPORT LUNS.
    ReportLuns(ReportLuns)
    /// REPORT TARGET PORT GROUPS.
    ReportTargetPortGroups(ReportTargetPortGroups)
    /// SET TARGET PORT GROUPS.
    SetTargetPortGroups(SetTargetPortGroups)
    /// REPORT SUPPORTED OPERATION CODES.
    ReportOpCodes(ReportOpCodes)
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportTaskManagement(ReportTaskManagement)
}

impl Command {
    /// Reads a command descriptor block. Bytes behind the length of its group are not looked at (a transport's header
    /// has room for 16); neither are reserved bits, which SPC-4 4.2.2 lets a target ignore. Values that are reserved or
    /// obsolete are refused with the field's place, and so is NACA: no target of ours keeps an auto contingent
    /// allegiance.
    pub fn parse(cdb: &[u8]) -> Result<Command, CdbError> {
        let code = OpCode(cdb.first().copied().ok_or(CdbError::Truncated { need: 6, have: 0 })?);
        let need = group_len(code).ok_or(CdbError::UnknownOpCode(code))?;
        let cdb = cdb.get(..need).ok_or(CdbError::Truncated { need, have: cdb.len() })?;
        let command = Command::of(code, cdb)?;
        match u16::try_from(need - 1) {
            Ok(control) if bit(cdb[need - 1], NACA) => Err(CdbError::bit(control, NACA)),
            _ => Ok(command),
        }
    }

    /// Chooses the parser. `cdb` has the length of the code's group.
    fn of(code: OpCode, cdb: &[u8]) -> Result<Command, CdbError> {
        Ok(match code {
            op::TEST_UNIT_READY => TestUnitReady.into(),
            op::REQUEST_SENSE => RequestSense::parse(cdb)?.into(),
            op::INQUIRY => Inquiry::parse(cdb)?.into(),
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => ModeSense::parse(cdb)?.into(),
            op::MODE_SELECT_6 | op::MODE_SELECT_10 => ModeSelect::parse(cdb)?.into(),
            op::START_STOP_UNIT => StartStopUnit::parse(cdb)?.into(),
            op::PREVENT_ALLOW_MEDIUM_REMOVAL => PreventAllow::parse(cdb)?.into(),
            op::RESERVE_6 => Reserve6::parse(cdb)?.into(),
            op::RELEASE_6 => Release6::parse(cdb)?.into(),
            op::READ_CAPACITY_10 => ReadCapacity10::parse(cdb)?.into(),
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => Read::parse(cdb)?.into(),
            op::WRITE_6 | op::WRITE_10 | op::WRITE_12 | op::WRITE_16 => Write::parse(cdb)?.into(),
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_12 | op::WRITE_AND_VERIFY_16 => {
                WriteAndVerify::parse(cdb)?.into()
            }
            op::WRITE_ATOMIC_16 => WriteAtomic::parse(cdb)?.into(),
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => WriteSame::parse(cdb)?.into(),
            op::ORWRITE_16 => OrWrite::parse(cdb)?.into(),
            op::COMPARE_AND_WRITE => CompareAndWrite::parse(cdb)?.into(),
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => Verify::parse(cdb)?.into(),
            op::PRE_FETCH_10 | op::PRE_FETCH_16 => PreFetch::parse(cdb)?.into(),
            op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => SynchronizeCache::parse(cdb)?.into(),
            op::UNMAP => Unmap::parse(cdb)?.into(),
            op::LOG_SENSE => LogSense::parse(cdb)?.into(),
            op::PERSISTENT_RESERVE_IN => PersistentReserveIn::parse(cdb)?.into(),
            op::PERSISTENT_RESERVE_OUT => PersistentReserveOut::parse(cdb)?.into(),
            op::EXTENDED_COPY => ExtendedCopy::parse(cdb)?.into(),
            op::RECEIVE_COPY_RESULTS => ReceiveCopyResults::parse(cdb)?.into(),
            op::REPORT_LUNS => ReportLuns::parse(cdb)?.into(),
            op::SERVICE_ACTION_IN_16 | op::MAINTENANCE_IN | op::MAINTENANCE_OUT => Command::of_action(code, cdb)?,
            _ => return Err(CdbError::UnknownOpCode(code)),
        })
    }

    /// The same for operation codes with service actions. One that is not known is an invalid field of a known
    /// command (SPC-4 4.2.2), not an unknown command.
    fn of_action(code: OpCode, cdb: &[u8]) -> Result<Command, CdbError> {
        Ok(match (code, action(cdb)) {
            (op::SERVICE_ACTION_IN_16, op::SA_READ_CAPACITY_16) => ReadCapacity16::parse(cdb)?.into(),
            (op::SERVICE_ACTION_IN_16, op::SA_GET_LBA_STATUS) => GetLbaStatus::parse(cdb)?.into(),
            (op::MAINTENANCE_IN, op::SA_REPORT_TARGET_PORT_GROUPS) => ReportTargetPortGroups::parse(cdb)?.into(),
            (op::MAINTENANCE_IN, op::SA_REPORT_SUPPORTED_OPERATION_CODES) => ReportOpCodes::parse(cdb)?.into(),
            (op::MAINTENANCE_IN, op::SA_REPORT_SUPPORTED_TASK_MANAGEMENT) => ReportTaskManagement::parse(cdb)?.into(),
            (op::MAINTENANCE_OUT, op::SA_SET_TARGET_PORT_GROUPS) => SetTargetPortGroups::parse(cdb)?.into(),
            _ => return Err(CdbError::bit(1, 4)),
        })
    }
}
