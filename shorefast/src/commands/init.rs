//! `init`: makes a cluster's certificates or installs a bundle. Needs no daemon.

use std::path::Path;

use serde_json::json;

use crate::cli::{Global, InitArgs};
use crate::commands::{print, print_json};
use crate::exit::{Exit, Failure};
use crate::init::{NodeAddress, install, make};

/// `init`
pub(super) fn run(args: &InitArgs, global: &Global) -> Result<Exit, Failure> {
    match (&args.cluster, &args.out, &args.bundle) {
        (Some(cluster), Some(out), _) => new_cluster(cluster, &args.node, out, global),
        (_, _, Some(bundle)) => install_bundle(bundle, &args.etc, global),
        _ => Err(Failure::usage(
            "`shorefast init` needs to know what to do: make a new cluster, or install one node's bundle.",
            "Write `shorefast init --cluster NAME --node ID=HOST:PORT ... --out DIR`, or `shorefast init --bundle FILE`.",
        )),
    }
}

fn new_cluster(cluster: &str, nodes: &[String], out: &Path, global: &Global) -> Result<Exit, Failure> {
    let nodes: Vec<NodeAddress> = nodes
        .iter()
        .map(|n| {
            n.parse().map_err(|said: String| {
                Failure::usage(format!("--node: {said}."), "Write for example --node 1=192.0.2.1:7440.")
            })
        })
        .collect::<Result<_, _>>()?;
    let made = make(cluster, &nodes, out)?;
    if global.json {
        let bundles: Vec<_> = made.bundles.iter().map(|(node, path)| json!({ "node": node, "file": path })).collect();
        print_json("init", &json!({ "cluster_id": made.cluster_id, "ca_key": made.ca_key, "bundles": bundles }))?;
    } else if !global.quiet {
        let mut text = format!(
            "Cluster {cluster}, {}.\nKeep {} safe: whoever has it can make nodes of this cluster (this version has no command \
             that adds one).\n",
            made.cluster_id,
            made.ca_key.display()
        );
        text +=
            "On one host, name each bundle in the configuration of its daemon (key `bundle`). Else, one host a node:\n";
        for (node, path) in &made.bundles {
            let path = path.display();
            text += &format!(
                "{node}: copy {path} there, then `shorefast init --bundle {node}.bundle` and start `shorefast daemon`.\n"
            );
        }
        print(&text)?;
    }
    Ok(Exit::Ok)
}

fn install_bundle(file: &Path, etc: &Path, global: &Global) -> Result<Exit, Failure> {
    let (bundle, written) = install(file, etc)?;
    if global.json {
        print_json("installed", &json!({ "cluster": bundle.cluster, "node": bundle.node, "files": written }))?;
    } else if !global.quiet {
        let mut text = format!("This machine is {} of cluster {}.\n", bundle.node, bundle.cluster);
        for path in &written {
            text += &format!("Wrote {}.\n", path.display());
        }
        text += &format!("Now start it: shorefast daemon --config {}\n", etc.join("shorefast.toml").display());
        print(&text)?;
    }
    Ok(Exit::Ok)
}
