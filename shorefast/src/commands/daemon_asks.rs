//! `node list`, `events`, `debug`: one question, one table.

use crate::api::{DiskFault, Node, Reply, Request};
use crate::cli::{EventsArgs, Global, NodeCommand};
use crate::commands::{client, print, print_json, wrong_reply};
use crate::exit::{Exit, Failure};
use crate::render;

/// `node list`
pub(super) fn node(command: &NodeCommand, global: &Global) -> Result<Exit, Failure> {
    let NodeCommand::List = command;
    let Reply::Nodes(nodes) = client(global).call(Request::Nodes, |_| ())? else { return Err(wrong_reply()) };
    if global.json {
        print_json("nodes", &nodes)?
    } else {
        print(&render::nodes(&nodes))?
    }
    Ok(Exit::Ok)
}

/// `events`: JSON is one object a line, so that it can be followed.
pub(super) fn events(args: &EventsArgs, global: &Global) -> Result<Exit, Failure> {
    let mut shown = Ok(());
    client(global).events(args.follow, 0, |event| {
        shown = if global.json { print_json("event", &event) } else { print(&render::event(&event)) };
        shown.is_ok()
    })?;
    shown.map(|()| Exit::Ok)
}

/// `debug evict`
pub(super) fn debug_evict(name: &str, node: Node, global: &Global) -> Result<Exit, Failure> {
    client(global).call(Request::DebugEvict { name: name.to_owned(), node }, |_| ())?;
    if global.json {
        print_json("evicted", &node)?;
    } else if !global.quiet {
        print(&format!("The session of {node} on {name} is being ended.\n"))?;
    }
    Ok(Exit::Ok)
}

/// `debug disk`
pub(super) fn debug_disk(fault: DiskFault, global: &Global) -> Result<Exit, Failure> {
    client(global).call(Request::DebugDisk { fault }, |_| ())?;
    if global.json {
        print_json("fault", &fault)?;
    } else if !global.quiet {
        print(&format!("This node's disks: {fault}.\n"))?;
    }
    Ok(Exit::Ok)
}
