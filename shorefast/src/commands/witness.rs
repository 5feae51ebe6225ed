//! `witness`: the tie-breaker of replicated devices: its votes made, run, shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use net::{Security, TlsMaterial};
use replicator::ids::{Ballot, Grant, NodeSet};
use replicator::meta::vote::Ledger;
use replicator::runtime::resource_id;
use replicator::runtime::witness::{self as tie_breaker, VoteFile, Witness, WitnessConfig, WitnessError};
use tracing_subscriber::EnvFilter;

use super::{print, print_json};
use crate::api::Node;
use crate::cli::{Global, WitnessCommand, WitnessPlace};
use crate::daemon::{Signals, log_to_stderr};
use crate::exit::{Exit, Failure};
use crate::init::{Bundle, dns_name};
use crate::replica::make::node_id;
use crate::replica::record::check_name;

/// Runs a command.
pub(super) fn run(command: &WitnessCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        WitnessCommand::Create { name, replica, place } => create(name, replica, place, global),
        WitnessCommand::Up { listen, place } => up(*listen, place, global),
        WitnessCommand::Status(place) => status(place, global),
    }
}

fn create(name: &str, replicas: &[Node], place: &WitnessPlace, global: &Global) -> Result<Exit, Failure> {
    check_name(name)?;
    let bundle = Bundle::load(&place.bundle)?;
    let nodes: NodeSet = replicas.iter().map(|n| node_id(*n)).collect();
    let wrong = |said: String| Failure::usage(format!("{said}."), "Give --replica NODE for each node with a replica.");
    if nodes.len() != replicas.len() || !replicas.len().is_multiple_of(2) {
        return Err(wrong(format!("A tie-breaker is for an even number of replicas; {replicas:?} were named")));
    }
    if replicas.contains(&bundle.node) {
        return Err(wrong(format!("{} is this node itself: a tie-breaker has no replica", bundle.node)));
    }
    if let Some(unknown) = replicas.iter().find(|n| bundle.address_of(**n).is_none()) {
        return Err(wrong(format!("The cluster has no {unknown}")));
    }
    let new = Ledger {
        identity: 0,
        resource: resource_id(&bundle.cluster_id, name),
        node: node_id(bundle.node),
        replicas: nodes,
        promised: Ballot::default(),
        grant: Grant::default(),
    };
    if place.dir.join(format!("{name}.vote")).exists() {
        return Err(Failure::new(
            Exit::Refused,
            format!("There is a vote for {name} already in {}.", place.dir.display()),
            "It is not made anew: it would forget what it granted. See `shorefast witness status`.",
        ));
    }
    let made = tie_breaker::create(&place.dir, name, &new).map_err(failed)?;
    let option = format!("{}=HOST:PORT/{:016x}", bundle.node.number(), made.identity);
    if global.json {
        print_json("witness", &serde_json::json!({ "name": name, "identity": format!("{:016x}", made.identity) }))?;
    } else if !global.quiet {
        print(&format!(
            "The vote for {name} is made. Make its replicas with --witness {option}, HOST:PORT being where `shorefast witness up` listens.\n"
        ))?;
    }
    Ok(Exit::Ok)
}

fn failed(e: WitnessError) -> Failure {
    let kind = if matches!(e, WitnessError::InUse(_)) { Exit::Refused } else { Exit::Failed };
    Failure::new(
        kind,
        format!("{e}."),
        "Put that right; a vote that is lost is made anew under a new identity, while all replicas are connected and up to date.",
    )
}

fn up(listen: SocketAddr, place: &WitnessPlace, global: &Global) -> Result<Exit, Failure> {
    log_to_stderr(EnvFilter::new(["info", "debug", "trace"][usize::from(global.verbose).min(2)]));
    let bundle = Bundle::load(&place.bundle)?;
    let tls = TlsMaterial::from_pem(&bundle.ca_certificate, &bundle.certificate, &bundle.key)
        .map_err(|e| Failure::usage(format!("The bundle's certificates cannot be used: {e}."), "Install it again."))?;
    let nodes: BTreeMap<_, _> =
        bundle.nodes.iter().map(|n| (dns_name(&bundle.cluster_id, n.id), node_id(n.id))).collect();
    let config = WitnessConfig {
        folder: place.dir.clone(),
        node: node_id(bundle.node),
        listen,
        security: Security::Tls(tls),
        nodes,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("Cannot start: {e}."), "See the limits of the system."))?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut witness = Witness::start(config).await.map_err(failed)?;
        let address = witness.listens();
        if global.json {
            print_json("witness", &serde_json::json!({ "listen": address.to_string() }))?;
        } else if !global.quiet {
            print(&format!("ready: {address}\n"))?;
        }
        tokio::select! {
            ended = witness.ended() => return ended.map(|()| Exit::Ok).map_err(failed),
            () = signals.next() => {}
        }
        witness.stop().await;
        Ok(Exit::Ok)
    })
}

fn status(place: &WitnessPlace, global: &Global) -> Result<Exit, Failure> {
    let votes = tie_breaker::scan(&place.dir).map_err(failed)?;
    if global.json {
        print_json("votes", &votes.iter().map(as_json).collect::<Vec<_>>())?;
    } else {
        print(&votes.iter().map(shown).collect::<String>())?;
    }
    Ok(Exit::Ok)
}

fn nodes(set: NodeSet) -> Vec<String> {
    set.iter().map(|n| format!("node-{}", n.get())).collect()
}

fn as_json(vote: &VoteFile) -> serde_json::Value {
    let Ledger { identity, replicas, promised, grant, .. } = vote.ledger;
    serde_json::json!({
        "name": vote.name,
        "identity": format!("{identity:016x}"),
        "replicas": nodes(replicas),
        "promised": { "round": promised.round, "node": promised.node },
        "granted": { "round": grant.ballot.round, "node": grant.ballot.node, "change": grant.version, "members": nodes(grant.members) },
    })
}

fn shown(vote: &VoteFile) -> String {
    let Ledger { identity, replicas, promised, grant, .. } = vote.ledger;
    let granted = match grant.members.is_empty() {
        true => "nothing granted".to_owned(),
        false => format!("granted:{}.{} to {}", grant.ballot.round, grant.version, nodes(grant.members).join(",")),
    };
    format!(
        "{} identity:{identity:016x} replicas:{} promised:{} {granted}\n",
        vote.name,
        nodes(replicas).join(","),
        promised.round
    )
}
