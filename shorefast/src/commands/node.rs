//! `node ...`: each subcommand is one request; `remove --bundle` works on files, without a daemon.

use std::path::PathBuf;

use crate::api::{Node, Reply, Request};
use crate::cli::{Global, NodeCommand};
use crate::commands::{client, print, print_json, progress, wrong_reply};
use crate::exit::{Exit, Failure};
use crate::init::Bundle;
use crate::render;

/// `node ...`
pub(super) fn run(command: &NodeCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        NodeCommand::List => list(global),
        NodeCommand::Drain { node } => {
            ask(Request::NodeDrain { node: *node, on: true }, global)?;
            let said = format!(
                "{} is drained, and stays so over restarts: it coordinates nothing, takes no office and mounts nothing new. What is \
                 mounted there goes on, until `shorefast node resume`.\n",
                whose(*node)
            );
            done(&said, global)
        }
        NodeCommand::Resume { node } => {
            ask(Request::NodeDrain { node: *node, on: false }, global)?;
            done(&format!("{} is in service.\n", whose(*node)), global)
        }
        NodeCommand::Remove { node, bundle } if bundle.is_empty() => {
            ask(Request::NodeRemove { node: *node }, global)?;
            let said = format!(
                "{node} is no node of this cluster any more, and its number is not to be used again. Take its access to the disks \
                 away, too.\n"
            );
            done(&said, global)
        }
        NodeCommand::Remove { node, bundle } => remove_from(*node, bundle, global),
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let Reply::Nodes(nodes) = client(global).call(Request::Nodes, |_| ())? else { return Err(wrong_reply()) };
    match global.json {
        true => print_json("nodes", &nodes)?,
        false => print(&render::nodes(&nodes))?,
    }
    Ok(Exit::Ok)
}

fn ask(request: Request, global: &Global) -> Result<(), Failure> {
    client(global).call(request, progress(global)).map(drop)
}

fn whose(node: Option<Node>) -> String {
    node.map_or_else(|| "This node".to_owned(), |n| n.to_string())
}

fn done(said: &str, global: &Global) -> Result<Exit, Failure> {
    match (global.json, global.quiet) {
        (true, _) => print_json("done", &true)?,
        (false, true) => (),
        (false, false) => print(said)?,
    }
    Ok(Exit::Ok)
}

/// Every bundle is read and judged before the first is written.
fn remove_from(node: Node, files: &[PathBuf], global: &Global) -> Result<Exit, Failure> {
    let load = |path: &PathBuf| {
        let changed = Bundle::load(path)?.without(node);
        changed.map_err(|e| Failure { message: format!("{}: {}", path.display(), e.message), ..e })
    };
    let bundles: Vec<Bundle> = files.iter().map(load).collect::<Result<_, _>>()?;
    for (path, bundle) in files.iter().zip(&bundles) {
        bundle.save(path)?;
    }
    let mut said = String::new();
    for (path, bundle) in files.iter().zip(&bundles) {
        said += &format!("{}: version {} of the list, without {node}.\n", path.display(), bundle.list_version);
    }
    done(&format!("{said}Now start the daemons of these nodes.\n"), global)
}
