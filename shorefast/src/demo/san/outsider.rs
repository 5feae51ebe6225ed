//! Somebody with access to the unit who is no node: what an administrator's tool, or another cluster, may do to a volume's
//! reservations and to the array's ports. A child of the demo and of tests (hidden subcommand `demo-outsider`), since it has to be on the target's network.

use std::fmt;

use block::buf::AlignedBuf;
use block::shared::{HELD_TYPE, NexusKey};
use block::worker::{Handle, Workers};
use iscsi::ids::Isid;
use iscsi::session::{Class, Outcome};
use scsi::ReservationKey;
use scsi::alua::{AccessState, PortGroup, SetStates};
use scsi::cdb::Cdb;
use scsi::reservations::{Change, InAction, Keys, Registration};

use crate::commands::reservations_of;
use crate::exit::{Exit, Failure};
use crate::san::Unit;

/// The outsider's own key: no node's, its volume tag is 0.
const OWN: ReservationKey = ReservationKey(0x0bad_cafe);
/// In its ISID.
const OUTSIDERS_PORT: u32 = 0x0bad_cafe;
/// A unit attention on the way takes one try each.
const TRIES: usize = 8;

/// Arguments of `demo-outsider`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OutsiderArgs {
    /// The unit
    #[arg(long)]
    pub(crate) url: String,
    /// What it does
    #[arg(long = "do")]
    pub(crate) act: Act,
    /// To which node
    #[arg(long)]
    pub(crate) node: Option<u8>,
    /// To which portal group
    #[arg(long, default_value_t = 1)]
    pub(crate) group: u16,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Act {
    /// Releases the reservation; every registration stays.
    Release,
    /// Takes away every registration, and the reservation with them.
    Clear,
    /// Takes away every key of a node.
    Take,
    /// Registers, and stays registered.
    Register,
    /// Goes again.
    Leave,
    /// Resets the unit.
    Reset,
    /// Has the array serve nothing through a portal group.
    Standby,
    /// Has it serve through that again.
    Active,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::Release => "release",
            Act::Clear => "clear",
            Act::Take => "take",
            Act::Register => "register",
            Act::Leave => "leave",
            Act::Reset => "reset",
            Act::Standby => "standby",
            Act::Active => "active",
        })
    }
}

/// Does it, and ends.
pub(crate) fn run(args: &OutsiderArgs) -> Result<Exit, Failure> {
    let workers = Workers::start(1, "outsider")
        .map_err(|e| Failure::failed(format!("Cannot start a worker: {e}."), "See what the kernel log says."))?;
    let (handle, args) = (workers.handle(), args.clone());
    let task = workers.spawn(0, move || async move { act(&handle, &args).await });
    task.wait().map_err(|_| Failure::failed("The command was lost.", "That is a defect."))?
}

async fn act(workers: &Handle, args: &OutsiderArgs) -> Result<Exit, Failure> {
    // The same port each time: what one registers another takes away.
    let unit = Unit::attach_at(workers, &args.url, Isid::from_number(OUTSIDERS_PORT, 1)).await?;
    let done = steps(&unit, args).await;
    unit.session.close().await;
    done.map(|()| Exit::Ok)
}

async fn steps(unit: &Unit, args: &OutsiderArgs) -> Result<(), Failure> {
    // With APTPL, as the nodes': the last registration decides for the whole unit.
    let register = Change::RegisterAndIgnore { to: Registration { persist: true, ..Registration::persistent(OWN) } };
    let leave = Change::RegisterAndIgnore { to: Registration { persist: true, ..Registration::default() } };
    match args.act {
        Act::Leave => return change(unit, &leave).await,
        // Whoever is logged in may do that: no registration is asked for.
        Act::Reset => return crate::commands::reset_unit(unit).await,
        _ => {}
    }
    change(unit, &register).await?;
    match args.act {
        Act::Register => return Ok(()),
        // The outsider's registration goes with the others.
        Act::Clear => return change(unit, &Change::Clear { key: OWN }).await,
        Act::Release => change(unit, &Change::Release { key: OWN, kind: HELD_TYPE }).await?,
        Act::Take => {
            for victim in keys_of(unit, args.node).await? {
                change(unit, &Change::Preempt { key: OWN, victim, kind: HELD_TYPE, abort: false }).await?;
            }
        }
        Act::Standby => set_group(unit, args.group, AccessState::Standby).await?,
        Act::Active => set_group(unit, args.group, AccessState::ActiveOptimized).await?,
        Act::Leave | Act::Reset => {}
    }
    change(unit, &leave).await
}

/// The keys of a node that are registered.
async fn keys_of(unit: &Unit, node: Option<u8>) -> Result<Vec<ReservationKey>, Failure> {
    let text = reservations_of(&unit.session, unit.identity.lun, InAction::ReadKeys).await?;
    let keys = Keys::parse(&text).map_err(|e| failed(&e.to_string()))?;
    let is_its = |key: &ReservationKey| NexusKey::parse(*key).is_some_and(|k| Some(k.node.get()) == node);
    let mut found: Vec<ReservationKey> = keys.keys.into_iter().filter(is_its).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(failed("that node has no key")) } else { Ok(found) }
}

async fn change(unit: &Unit, change: &Change) -> Result<(), Failure> {
    send(unit, || change.command()).await
}

async fn set_group(unit: &Unit, group: u16, state: AccessState) -> Result<(), Failure> {
    send(unit, || SetStates { groups: vec![(PortGroup(group), state)] }.command()).await
}

async fn send(unit: &Unit, command: impl Fn() -> (Cdb, Vec<u8>)) -> Result<(), Failure> {
    let mut said = String::new();
    for _ in 0..TRIES {
        let (cdb, list) = command();
        let memory = Some(AlignedBuf::from_slice(&list));
        let ended = unit.session.carry_out(unit.identity.lun, cdb, Class::Control, memory).await;
        match ended.outcome {
            Outcome::Answered(answer) if answer.status == scsi::Status::Good => return Ok(()),
            Outcome::Answered(answer) if answer.status != scsi::Status::CheckCondition => {
                return Err(failed(&format!("{:?}", answer.status)));
            }
            other => said = format!("{other:?}"),
        }
    }
    Err(failed(&said))
}

fn failed(why: &str) -> Failure {
    Failure::failed(format!("The unit was not changed: {why}."), "See `shorefast iscsi reservations`.")
}
