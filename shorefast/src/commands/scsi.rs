//! `scsi ...`: one question to the unit of a SCSI disk of this host, beside whoever uses it. No daemon is asked.

use block::worker::{Handle, Workers};

use super::iscsi::{self, shown};
use crate::cli::{Global, ScsiCommand};
use crate::exit::{Exit, Failure};
use crate::san::Unit;
use crate::san::local::look_at;

/// Runs a command.
pub(super) fn run(command: &ScsiCommand, global: &Global) -> Result<Exit, Failure> {
    let (command, global) = (command.clone(), global.clone());
    let workers = Workers::start(1, "scsi")
        .map_err(|e| Failure::failed(format!("Cannot start a worker: {e}."), "See what the kernel log says."))?;
    let handle = workers.handle();
    let task = workers.spawn(0, move || async move { carry_out(&handle, &command, &global).await });
    task.wait().map_err(|_| Failure::failed("The command was lost.", "That is a defect."))?
}

async fn carry_out(workers: &Handle, command: &ScsiCommand, global: &Global) -> Result<Exit, Failure> {
    let (ScsiCommand::Inquiry { disk }
    | ScsiCommand::Capacity { disk }
    | ScsiCommand::Reservations { disk }
    | ScsiCommand::Reset { disk, .. }) = command;
    if let ScsiCommand::Reset { yes, .. } = command {
        iscsi::may_reset(*yes, disk)?;
    }
    let unit = look_at(workers, disk).await?;
    let done = answer(command, disk, &unit, global).await;
    unit.session.close().await;
    done.map(|()| Exit::Ok)
}

async fn answer(command: &ScsiCommand, disk: &str, unit: &Unit, global: &Global) -> Result<(), Failure> {
    match command {
        ScsiCommand::Inquiry { .. } => shown::inquiry(&unit.identity, global),
        ScsiCommand::Capacity { .. } => shown::capacity(&unit.identity, global),
        ScsiCommand::Reservations { .. } => shown::reservations(&unit.session, unit.identity.lun, global).await,
        ScsiCommand::Reset { .. } => {
            iscsi::reset(unit).await?;
            shown::reset(disk, global)
        }
    }
}
