//! `debug`: one question, one sentence.

use crate::api::{DiskFault, Node, Request};
use crate::cli::Global;
use crate::commands::{client, print, print_json};
use crate::exit::{Exit, Failure};

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
