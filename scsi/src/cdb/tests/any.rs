//! What holds for every command.

use proptest::prelude::*;

use crate::cdb::*;
use crate::units::{BlockLen, OpCode};

/// The command without protection information, which is never built.
fn plain(command: Command) -> Command {
    match command {
        Command::Read(c) => Read { protect: 0, ..c }.into(),
        Command::Write(c) => Write { protect: 0, ..c }.into(),
        Command::WriteAndVerify(c) => WriteAndVerify { protect: 0, ..c }.into(),
        Command::WriteAtomic(c) => WriteAtomic { protect: 0, ..c }.into(),
        Command::WriteSame(c) => WriteSame { protect: 0, ..c }.into(),
        Command::OrWrite(c) => OrWrite { protect: 0, ..c }.into(),
        Command::CompareAndWrite(c) => CompareAndWrite { protect: 0, ..c }.into(),
        Command::Verify(c) => Verify { protect: 0, ..c }.into(),
        other => other,
    }
}

/// The block of a command for blocks of one byte, so that any count fits a transfer.
fn rebuilt(command: &Command) -> Cdb {
    let block = BlockLen::new(1).expect("one byte");
    let built = match command {
        Command::TestUnitReady(c) => Ok(c.cdb()),
        Command::RequestSense(c) => c.cdb(),
        Command::Inquiry(c) => Ok(c.cdb()),
        Command::ModeSense(c) => c.cdb(),
        Command::ModeSelect(c) => c.cdb(),
        Command::StartStopUnit(c) => Ok(c.cdb()),
        Command::PreventAllow(c) => Ok(c.cdb()),
        Command::Reserve6(c) => Ok(c.cdb()),
        Command::Release6(c) => Ok(c.cdb()),
        Command::ReadCapacity10(c) => Ok(c.cdb()),
        Command::ReadCapacity16(c) => Ok(c.cdb()),
        Command::GetLbaStatus(c) => Ok(c.cdb()),
        Command::Read(c) => c.cdb(block),
        Command::Write(c) => c.cdb(block),
        Command::WriteAndVerify(c) => c.cdb(block),
        Command::WriteAtomic(c) => c.cdb(block),
        Command::WriteSame(c) => c.cdb(block),
        Command::OrWrite(c) => c.cdb(block),
        Command::CompareAndWrite(c) => c.cdb(block),
        Command::Verify(c) => c.cdb(block),
        Command::PreFetch(c) => c.cdb(),
        Command::SynchronizeCache(c) => c.cdb(),
        Command::Unmap(c) => Ok(c.cdb()),
        Command::LogSense(c) => Ok(c.cdb()),
        Command::PersistentReserveIn(c) => Ok(c.cdb()),
        Command::PersistentReserveOut(c) => Ok(c.cdb()),
        Command::ExtendedCopy(c) => Ok(c.cdb()),
        Command::ReceiveCopyResults(c) => Ok(c.cdb()),
        Command::ReportLuns(c) => Ok(c.cdb()),
        Command::ReportTargetPortGroups(c) => Ok(c.cdb()),
        Command::SetTargetPortGroups(c) => Ok(c.cdb()),
        Command::ReportOpCodes(c) => Ok(c.cdb()),
        Command::ReportTaskManagement(c) => Ok(c.cdb()),
    };
    built.expect("what was parsed fits its own form")
}

/// Every operation code that has a name, with every service action where there are some.
fn known() -> Vec<(u8, u8)> {
    let named = (0..=u8::MAX).filter(|code| OpCode(*code).name().is_some());
    named.flat_map(|code| (0..32).map(move |action| (code, action))).collect()
}

#[test]
fn every_named_code_has_a_parser() {
    let mut without = Vec::new();
    for code in (0..=u8::MAX).filter(|code| OpCode(*code).name().is_some()) {
        let parsed = (0..32).any(|action| {
            let mut cdb = [0; 16];
            (cdb[0], cdb[1], cdb[9]) = (code, action, 16);
            Command::parse(&cdb).is_ok()
        });
        if !parsed {
            without.push(OpCode(code));
        }
    }
    assert_eq!(without, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What a target reads is what an initiator writes: any block that is accepted is built again to one that is read
    /// as the same command.
    #[test]
    fn any_block_is_refused_or_read_as_what_it_builds(
        (code, action) in proptest::sample::select(known()),
        bytes in proptest::array::uniform16(any::<u8>()),
        keep_action: bool,
    ) {
        let mut cdb = bytes;
        cdb[0] = code;
        if keep_action {
            cdb[1] = action;
        }
        let len = group_len(OpCode(code)).expect("a group");
        cdb[len - 1] &= !4;
        if let Ok(command) = Command::parse(&cdb) {
            let command = plain(command);
            prop_assert_eq!(Command::parse(rebuilt(&command).head()), Ok(command), "{:02x?}", cdb);
        }
    }

    #[test]
    fn any_bytes_are_a_command_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        match Command::parse(&bytes) {
            Ok(command) => { let _ = rebuilt(&plain(command)); }
            Err(error) => { let _ = (error.sense().to_fixed(), error.to_string()); }
        }
    }
}
