//! The answers of `iscsi ...` as tables or JSON.

use block::buf::AlignedBuf;
use iscsi::discovery::Found;
use iscsi::session::{Class, Outcome};
use iscsi_initiator::{Identity, Session, Url};
use scsi::cdb::PersistentReserveIn;
use scsi::reservations::{Held, InAction, Keys, Reservation};
use scsi::{LunAddress, ShortByteCount, Status};
use serde_json::json;

use super::parse;
use crate::cli::{Global, Size};
use crate::commands::{print, print_json};
use crate::exit::Failure;
use crate::render::{bytes, plain_table};

pub(super) fn targets(found: &[Found], url: &Url, global: &Global) -> Result<(), Failure> {
    let portals = |f: &Found| {
        if f.portals.is_empty() {
            return vec![(url.portal.to_string(), String::new())];
        }
        f.portals.iter().map(|(p, g)| (p.to_string(), g.map_or_else(String::new, |g| g.0.to_string()))).collect()
    };
    let rows: Vec<(String, String, String)> =
        found.iter().flat_map(|f| portals(f).into_iter().map(|(p, g)| (f.name.clone(), p, g))).collect();
    if global.json {
        let rows: Vec<_> = rows.iter().map(|(t, p, g)| json!({"target": t, "portal": p, "group": g})).collect();
        return print_json("targets", &rows);
    }
    print(&plain_table(["TARGET", "PORTAL", "GROUP"], rows.into_iter().map(|(t, p, g)| [t, p, g])))
}

pub(in crate::commands) fn inquiry(i: &Identity, global: &Global) -> Result<(), Failure> {
    let name =
        i.identification.as_ref().and_then(|d| d.unit_name()).map_or_else(|| "-".to_owned(), ToString::to_string);
    let caw = i.limits.max_compare_and_write;
    if global.json {
        let unit = json!({
            "vendor": i.inquiry.vendor, "product": i.inquiry.product, "revision": i.inquiry.revision,
            "name": name, "read_only": i.read_only, "max_compare_and_write_blocks": caw,
            "unmap": i.limits.max_unmap_blocks.is_some(),
        });
        return print_json("unit", &unit);
    }
    let yes_no = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let rows = [
        ["vendor".to_owned(), i.inquiry.vendor.clone()],
        ["product".to_owned(), format!("{} {}", i.inquiry.product, i.inquiry.revision)],
        ["name".to_owned(), name],
        ["read only".to_owned(), yes_no(i.read_only)],
        [
            "compare and write".to_owned(),
            if caw == 0 { "no".to_owned() } else { format!("up to {caw} blocks, it says") },
        ],
        ["unmap".to_owned(), yes_no(i.limits.max_unmap_blocks.is_some())],
    ];
    print(&plain_table(["WHAT", "IS"], rows))
}

pub(in crate::commands) fn capacity(i: &Identity, global: &Global) -> Result<(), Failure> {
    let blocks = i.capacity.blocks().map_or(0, |b| b.0);
    let (logical, physical) = (i.geometry.logical_block.bytes(), i.geometry.physical_block.bytes());
    if global.json {
        let capacity =
            json!({"bytes": i.geometry.len.0, "blocks": blocks, "block": logical, "physical_block": physical});
        return print_json("capacity", &capacity);
    }
    print(&format!("{}: {blocks} blocks of {logical} bytes ({physical} physical)\n", bytes(i.geometry.len.0)))
}

/// How much was written and is flushed.
pub(super) fn written(count: u64, at: Size, url: &str, global: &Global) -> Result<(), Failure> {
    let url = parse(url)?;
    match (global.json, global.quiet) {
        (true, _) => print_json("written", &json!({"at": at.0, "bytes": count})),
        (false, true) => Ok(()),
        (false, false) => print(&format!("{count} bytes from byte {} on are written to {url} and flushed.\n", at.0)),
    }
}

/// A unit was reset.
pub(in crate::commands) fn reset(url: &str, global: &Global) -> Result<(), Failure> {
    match (global.json, global.quiet) {
        (true, _) => print_json("reset", &json!({"unit": url})),
        (false, true) => Ok(()),
        (false, false) => print(&format!("{url} was reset: what it had been given has ended.\n")),
    }
}

pub(in crate::commands) async fn reservations(
    session: &Session,
    lun: LunAddress,
    global: &Global,
) -> Result<(), Failure> {
    let keys = ask(session, lun, InAction::ReadKeys).await?;
    let held = ask(session, lun, InAction::ReadReservation).await?;
    let unread = |e| Failure::failed(format!("The unit's answer cannot be read: {e}."), "That is the target's defect.");
    let keys = Keys::parse(&keys).map_err(unread)?;
    let held = Held::parse(&held).map_err(unread)?;
    let shown: Vec<String> = keys.keys.iter().map(ToString::to_string).collect();
    let reservation = held.reservation.map_or_else(|| "none".to_owned(), |r| in_words(&r));
    if global.json {
        return print_json(
            "reservations",
            &json!({"generation": keys.generation.0, "keys": shown, "reservation": reservation}),
        );
    }
    let keys_line = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    print(&format!("generation   {}\nkeys         {keys_line}\nreservation  {reservation}\n", keys.generation.0))
}

/// A reservation: its type by name and number, and who holds it.
fn in_words(held: &Reservation) -> String {
    let holder = match held.kind.all_registrants() {
        true => String::new(),
        false => format!(", held by {}", held.key),
    };
    format!("{} (type {}){holder}", held.kind, held.kind.code())
}

pub(crate) async fn ask(session: &Session, lun: LunAddress, action: InAction) -> Result<Vec<u8>, Failure> {
    // A unit attention on the way takes one try each.
    for _ in 0..scsi::action::ATTENTION_TRIES {
        let cdb = PersistentReserveIn { action, alloc: ShortByteCount(8192) }.cdb();
        let memory = Some(AlignedBuf::zeroed(8192));
        let ended = session.carry_out(lun, cdb, Class::Control, memory).await;
        if let (Outcome::Answered(a), Some(memory)) = (&ended.outcome, &ended.memory)
            && a.status == Status::Good
        {
            return Ok(memory.iter().copied().take(a.moved as usize).collect());
        }
    }
    Err(Failure::failed("The unit does not tell its reservations.", "It may have no persistent reservations."))
}

#[cfg(test)]
mod tests {
    use scsi::ReservationKey;
    use scsi::reservations::ReservationType::{ExclusiveAccessAllRegistrants, WriteExclusive};

    use super::*;

    #[test]
    fn a_reservation_is_told_by_the_name_and_number_of_its_type_and_its_holder() {
        let held = |kind, key| in_words(&Reservation { key: ReservationKey(key), kind });
        assert_eq!(held(ExclusiveAccessAllRegistrants, 0), "exclusive access, all registrants (type 8)");
        assert_eq!(held(WriteExclusive, 0xabc), "write exclusive (type 1), held by 0x0000000000000abc");
    }
}
