//! Who may do what: reservations, unit attentions and the state of the port group, each against every command
//! (SPC-4 tables 66 and 49, SBC-3 table 13, SPC-4 5.15.2).

use scsi::alua::AccessState;
use scsi::cdb::Command;
use scsi::reservations::Access;
use scsi::{AdditionalCode, SenseKey, Status};

use super::{NexusId, Outcome, Plan, Unit};

/// What a reservation has to do with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Nothing.
    Free,
    /// It reads the medium, or what is as good as that.
    Read,
    /// It changes the medium, or the unit for everybody.
    Write,
}

/// The class of a command.
pub(crate) fn class(command: &Command) -> Class {
    match command {
        Command::TestUnitReady(_)
        | Command::RequestSense(_)
        | Command::Inquiry(_)
        | Command::ReportLuns(_)
        | Command::ReadCapacity10(_)
        | Command::ReadCapacity16(_)
        | Command::PersistentReserveIn(_)
        // Registrants only, by rules of its own.
        | Command::PersistentReserveOut(_)
        | Command::ReportTargetPortGroups(_)
        | Command::ReportOpCodes(_)
        | Command::ReportTaskManagement(_)
        | Command::LogSense(_)
        | Command::Reserve6(_)
        | Command::Release6(_) => Class::Free,
        Command::StartStopUnit(start) if start.start && start.power_condition == 0 => Class::Free,
        Command::PreventAllow(prevent) if !prevent.prevent => Class::Free,
        Command::Read(_)
        | Command::Verify(_)
        | Command::PreFetch(_)
        | Command::GetLbaStatus(_)
        | Command::ModeSense(_) => Class::Read,
        _ => Class::Write,
    }
}

/// The class of what a plan does.
fn class_of_plan(plan: &Plan) -> Class {
    match plan {
        Plan::Answer(command) => class(command),
        Plan::Media(media) if media.kind.writes() => Class::Write,
        Plan::Media(_) => Class::Read,
        Plan::ReserveOut(_) => Class::Free,
        Plan::Select(_) | Plan::SetGroups(_) => Class::Write,
    }
}

fn conflict() -> Outcome {
    Outcome::status(Status::ReservationConflict)
}

impl Unit {
    /// Reservations, when a command arrives.
    pub(super) fn may(&self, nexus: NexusId, command: &Command) -> Result<(), Outcome> {
        self.no_legacy_conflict(nexus, command)?;
        self.permits(nexus, class(command))
    }

    /// The same when it is about to run.
    pub(super) fn still_may(&self, nexus: NexusId, plan: &Plan) -> Result<(), Outcome> {
        let class = class_of_plan(plan);
        if class != Class::Free && self.reserved6.is_some_and(|holder| holder != nexus) {
            return Err(conflict());
        }
        self.permits(nexus, class)
    }

    fn permits(&self, nexus: NexusId, class: Class) -> Result<(), Outcome> {
        let Some(seat) = self.seats.get(&nexus) else { return Err(conflict()) };
        let access = match class {
            Class::Free => return Ok(()),
            Class::Read => Access::Read,
            Class::Write => Access::Write,
        };
        if self.reservations.permits(&seat.name, access) { Ok(()) } else { Err(conflict()) }
    }

    /// RESERVE(6) (SPC-2 5.5.1), and its quarrel with persistent reservations (SPC-4 5.13.3): whichever is there refuses
    /// the other.
    fn no_legacy_conflict(&self, nexus: NexusId, command: &Command) -> Result<(), Outcome> {
        let legacy = matches!(command, Command::Reserve6(_) | Command::Release6(_));
        if legacy && !self.reservations.registered.is_empty() {
            return Err(conflict());
        }
        let through = match command {
            Command::Inquiry(_) | Command::RequestSense(_) | Command::ReportLuns(_) | Command::Release6(_) => true,
            Command::PreventAllow(prevent) => !prevent.prevent,
            _ => false,
        };
        match self.reserved6 {
            Some(holder) if holder != nexus && !through => Err(conflict()),
            _ => Ok(()),
        }
    }

    /// A pending unit attention ends a command, but for the three that must not be ended by it (SPC-4 4.5.6).
    pub(super) fn told(&mut self, nexus: NexusId, command: &Command) -> Result<(), Outcome> {
        if matches!(command, Command::Inquiry(_) | Command::ReportLuns(_) | Command::RequestSense(_)) {
            return Ok(());
        }
        self.take_attention(nexus).map_or(Ok(()), |sense| Err(Outcome::sense(sense)))
    }

    /// Through this port, in the state of its group.
    pub(super) fn reached(&self, nexus: NexusId, command: &Command) -> Result<(), Outcome> {
        let Some(port) = self.seats.get(&nexus).map(|seat| seat.name.port) else { return Ok(()) };
        let state = self.groups.get(&port).map_or(AccessState::ActiveOptimized, |(state, _)| *state);
        let code = match state {
            AccessState::Standby => AdditionalCode::STANDBY,
            AccessState::Unavailable | AccessState::Offline => AdditionalCode::UNAVAILABLE,
            AccessState::Transitioning => AdditionalCode::ACCESS_STATE_TRANSITION,
            _ => return Ok(()),
        };
        let always = matches!(
            command,
            Command::Inquiry(_)
                | Command::ReportLuns(_)
                | Command::RequestSense(_)
                | Command::ReportTargetPortGroups(_)
                | Command::SetTargetPortGroups(_)
        );
        let in_standby = matches!(
            command,
            Command::PersistentReserveIn(_)
                | Command::PersistentReserveOut(_)
                | Command::ModeSense(_)
                | Command::ModeSelect(_)
                | Command::LogSense(_)
                | Command::ReportOpCodes(_)
                | Command::ReportTaskManagement(_)
        );
        if always || (in_standby && state == AccessState::Standby) {
            return Ok(());
        }
        Err(Outcome::check(SenseKey::NotReady, code))
    }
}
