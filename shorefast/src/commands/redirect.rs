//! `volume redirect`: one request; `off` then waits until the data has gone back to the disk, since a status that still
//! shows it redirected, and advises the very command just given, confuses.

use std::time::{Duration, Instant};

use crate::api::{Client, Node, Request, Route, Status, VolumeNode};
use crate::cli::{Global, OnOff};
use crate::commands::{client, print, print_json};
use crate::exit::{Exit, Failure};

/// The way back is tried twice before it is taken, a second apart; then the path is known to be good or bad. Longer only
/// on a machine that is very busy.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// How often a command that waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The reason that a route has which was asked for.
const ASKED_FOR: &str = "administrator";

/// `volume redirect`
pub(super) fn run(name: &str, state: OnOff, node: Option<Node>, global: &Global) -> Result<Exit, Failure> {
    let client = client(global);
    let before = client.status()?;
    let whose = node.unwrap_or(before.node);
    let was = of(&before, name, whose);
    let ask = Request::VolumeRedirect { name: name.to_owned(), on: state == OnOff::On, node };
    client.call(ask, |_| ())?;
    let said = match state {
        OnOff::On => on(name, whose),
        OnOff::Off if was.as_ref().is_some_and(is_otherwise) => nothing_changed(name, whose, was.as_ref()),
        OnOff::Off => off(name, whose, back(&client, name, whose)?.as_ref()),
    };
    match (global.json, global.quiet) {
        (true, _) => print_json("done", &true)?,
        (false, true) => (),
        (false, false) => print(&said)?,
    }
    Ok(Exit::Ok)
}

/// A node's route on a volume, if it is told.
fn of(status: &Status, name: &str, node: Node) -> Option<VolumeNode> {
    status.volume(name)?.nodes.iter().find(|n| n.node == node).cloned()
}

/// Whether it surely was not redirected on request. A route that is draining or paused has another reason, and hides that one.
fn is_otherwise(n: &VolumeNode) -> bool {
    matches!(n.route, Route::Direct | Route::BlockRedirected) && n.reason.as_deref() != Some(ASKED_FOR)
}

/// Waits until the route is not one that was asked for; the route then, or as it was last.
fn back(client: &Client, name: &str, node: Node) -> Result<Option<VolumeNode>, Failure> {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        let now = of(&client.status()?, name, node);
        if now.as_ref().is_none_or(is_otherwise) || Instant::now() > deadline {
            return Ok(now);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn on(name: &str, whose: Node) -> String {
    format!(
        "The data of {whose} on {name} goes through the coordinator, until `shorefast volume redirect {name} off --node {}`.\n",
        whose.number()
    )
}

fn nothing_changed(name: &str, whose: Node, was: Option<&VolumeNode>) -> String {
    format!("Nobody had redirected the data of {whose} on {name}; it goes on as before: {}.\n", route(was))
}

fn off(name: &str, whose: Node, now: Option<&VolumeNode>) -> String {
    match now {
        Some(n) if n.route == Route::Direct => {
            format!("The data of {whose} on {name} goes straight to the disk again.\n")
        }
        now => format!(
            "The data of {whose} on {name} is not redirected on request any more; it goes straight to the disk as soon as \
             its path allows. Now it is {}; see `shorefast status`.\n",
            route(now)
        ),
    }
}

fn route(n: Option<&VolumeNode>) -> String {
    n.map_or_else(
        || "unknown".to_owned(),
        |n| n.reason.as_ref().map_or_else(|| n.route.to_string(), |reason| format!("{} ({reason})", n.route)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    fn node() -> Node {
        "2".parse().expect("a node")
    }

    fn at(route: Route, reason: Option<&str>) -> VolumeNode {
        let reason = reason.map(str::to_owned);
        VolumeNode { node: node(), route, reason, since: WallTime(0), paths: Vec::new(), wanted: true, next: None }
    }

    #[test]
    fn redirecting_says_whose_data_goes_where_and_how_to_end_it() {
        let said = on("vm1", node());
        assert!(said.contains("node-2 on vm1") && said.contains("redirect vm1 off --node 2"), "{said}");
        let said = off("vm1", node(), Some(&at(Route::Direct, None)));
        assert!(said.contains("node-2 on vm1") && said.contains("straight to the disk again"), "{said}");
    }

    #[test]
    fn a_path_that_is_bad_is_not_said_to_be_direct() {
        let said = off("vm1", node(), Some(&at(Route::BlockRedirected, Some("io-failed"))));
        assert!(said.contains("block-redirected (io-failed)") && !said.contains("again"), "{said}");
    }

    #[test]
    fn only_a_route_that_shows_its_reason_tells_that_nobody_had_redirected_it() {
        for (n, otherwise) in [
            (at(Route::Direct, None), true),
            (at(Route::BlockRedirected, Some("io-failed")), true),
            (at(Route::BlockRedirected, Some(ASKED_FOR)), false),
            (at(Route::Draining, Some(ASKED_FOR)), false),
            (at(Route::Paused, Some("no-coordinator")), false),
        ] {
            assert_eq!(is_otherwise(&n), otherwise, "{n:?}");
        }
    }
}
