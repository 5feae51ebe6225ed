//! Tables for people. Pure: values in, text out.

mod check;
mod status;
mod table;

pub(crate) use check::check_report;
pub(crate) use status::{check, nodes, status, volume, volumes};
pub(crate) use table::{bytes, grouped, plain_table};

use crate::events::{Event, Severity};

/// An event's line; what to do next follows on its own line where somebody should do something.
pub(crate) fn event(event: &Event) -> String {
    match event.severity {
        Severity::Info => format!("{event}\n"),
        Severity::Warning | Severity::Error => format!("{event}\n                 → {}\n", event.next),
    }
}
