//! Puts the libraries together into one running node: the only place where block, net, fuse and csv-fs meet.

mod checking;
mod control;
mod drain;
mod members;
mod minors;
mod moving;
mod net_thread;
mod node;
mod peers;
mod records;
mod redirect;
mod report;
mod retry;
mod saving;
mod service;
mod shown;
mod talk;
mod teller;
mod told;
mod transport;
mod units;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use block::shared::NodeId;
use block::worker::Workers;
use net::{DialTarget, Net, NetConfig, NetError, Security, TlsMaterial};
use parking_lot::{Mutex, RwLock};

use crate::api::NodeControl;
use crate::clock::WallTime;
use crate::config::Config;
use crate::events::EventLog;
use crate::exit::{Exit, Failure};
use crate::holder::held::Held;
use crate::init::{Bundle, dns_name};

use drain::Drain;
use members::List;
use minors::Minors;
use net_thread::NetThread;
use node::{NodeParts, node_id};
use peers::{Greeting, Peers};
use records::Records;
use saving::Saving;
use service::NodeService;

/// Starts a node: network, volumes that are wanted here, mounts. Returns once the node can be asked; volumes that
/// cannot be mounted yet are `pending` and tried again.
pub(crate) async fn start(
    config: Arc<Config>,
    bundle: Bundle,
    events: Arc<EventLog>,
    compat: bool,
    held: Option<Arc<Held>>,
) -> Result<Arc<dyn NodeControl>, Failure> {
    let records = Records::load(&config.state_dir)?;
    let drain = Drain::load(&config.state_dir)?;
    let minors = Minors::own(compat);
    let workers = start_workers(&config)?;
    let peers = Arc::new(Peers::new(&bundle));
    let service = Arc::new(NodeService::new(Greeting::of(&bundle, minors, held.is_some())));
    let listen = listen_address(&config, &bundle)?;
    let net_config = NetConfig::new(listen, security(&config, &bundle)?);
    let (net_thread, net) = start_net(net_config, Arc::clone(&service) as Arc<dyn net::Service>).await?;
    let wanted = records.live();
    let list = List { version: bundle.list_version, nodes: bundle.nodes.clone() };
    if let Some(held) = &held {
        let mounted = wanted.iter().filter(|record| record.wanted && !records.is_unmounted(&record.id));
        held.only(&mounted.map(|record| record.id.clone()).collect::<Vec<_>>());
    }
    let node = Arc::new(NodeParts {
        config,
        bundle,
        events,
        held,
        started: WallTime::now(),
        io: workers.handle(),
        workers: Mutex::new(Some(workers)),
        peers,
        directory: Arc::default(),
        records,
        saving: Saving::default(),
        keeping: Mutex::new(BTreeMap::new()),
        news: tokio::sync::watch::Sender::new(0),
        to_tell: tokio::sync::watch::Sender::new(0),
        net: tokio::sync::Mutex::new(None),
        _net_thread: net_thread,
        jobs: checking::Jobs::default(),
        drain,
        list: RwLock::new(list),
        minors,
        service: Arc::clone(&service),
    });
    service.serve(&node);
    node.peers.dial(&net, targets(&node, listen)?);
    *node.net.lock().await = Some(net);
    for peer in node.peers.addresses().keys() {
        tokio::spawn(Arc::clone(&node).watch_link(*peer));
        tokio::spawn(Arc::clone(&node).keep_told(*peer));
    }
    for record in &wanted {
        node.keep(record);
    }
    Ok(Arc::new(control::Control(node)))
}

async fn start_net(config: NetConfig, service: Arc<dyn net::Service>) -> Result<(NetThread, Net), Failure> {
    let no_thread = |why: &dyn std::fmt::Display| {
        Failure::failed(format!("The network's thread cannot be started: {why}."), "See the limits of the system.")
    };
    let thread = NetThread::start().map_err(|e| no_thread(&e))?;
    let started = thread.run(Net::start(config, service)).await.ok_or_else(|| no_thread(&"it ended at once"))?;
    Ok((thread, started.map_err(|e| net_failure(&e))?))
}

fn start_workers(config: &Config) -> Result<Workers, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Workers::start(config.workers.unwrap_or(cores), "io").map_err(|e| {
        Failure::failed(
            format!("The I/O workers cannot be started: {e}."),
            "See the limits of the system (threads, locked memory, io_uring).",
        )
    })
}

fn security(config: &Config, bundle: &Bundle) -> Result<Security, Failure> {
    if config.plain_network {
        return Ok(Security::Plain { subject: dns_name(&bundle.cluster_id, bundle.node) });
    }
    TlsMaterial::from_pem(&bundle.ca_certificate, &bundle.certificate, &bundle.key).map(Security::Tls).map_err(|e| {
        Failure::usage(
            format!("The certificates of the bundle {} cannot be used: {e}.", config.bundle.display()),
            "Install the bundle anew with `shorefast init --bundle FILE`.",
        )
    })
}

fn listen_address(config: &Config, bundle: &Bundle) -> Result<SocketAddr, Failure> {
    match config.listen {
        Some(address) => Ok(address),
        None => resolve(bundle.own_address().unwrap_or_default()),
    }
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let unknown = |why: String| {
        Failure::usage(
            format!("The address {address} in the bundle cannot be used: {why}."),
            "Use HOST:PORT with a host that this node can resolve, or set `listen`.",
        )
    };
    address.to_socket_addrs().map_err(|e| unknown(e.to_string()))?.next().ok_or_else(|| unknown("no address".into()))
}

/// Where the others are. We call from the address on which we listen, so that a host with several keeps to one.
fn targets(node: &NodeParts, listen: SocketAddr) -> Result<Vec<(NodeId, DialTarget)>, Failure> {
    let bind = (!listen.ip().is_unspecified()).then_some(listen.ip());
    let others = node.bundle.nodes.iter().filter(|n| n.id != node.bundle.node);
    others
        .map(|n| {
            let subject = dns_name(&node.bundle.cluster_id, n.id);
            Ok((node_id(n.id), DialTarget { bind, ..DialTarget::new(resolve(&n.address)?, subject) }))
        })
        .collect()
}

fn net_failure(e: &NetError) -> Failure {
    let busy = matches!(e, NetError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse);
    if busy {
        Failure::new(
            Exit::Refused,
            format!("{e}."),
            "Another program, perhaps another daemon, has that port: stop it, or set another `listen`.",
        )
    } else {
        Failure::failed(format!("{e}."), "Set `listen` to an address of this host.")
    }
}
