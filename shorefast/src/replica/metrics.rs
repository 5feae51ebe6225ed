//! A replica's metrics, as Prometheus reads them. The names are part of the contract.

use replicator::ids::NodeId;
use replicator::runtime::metrics::{BOUNDS_US, Histogram, Metrics, PeerMetrics};
use replicator::runtime::status::PeerStatus;

use crate::metrics::{Text, seconds};

/// The exposition of one replica.
pub(super) fn shown(metrics: &Metrics) -> String {
    let mut text = Text::default();
    let name = metrics.status.name.clone();
    own(&mut text, metrics, &name);
    requests(&mut text, metrics, &name);
    peers(&mut text, metrics, &name);
    text.into_string()
}

fn own(text: &mut Text, metrics: &Metrics, name: &str) {
    let (status, of) = (&metrics.status, [("name", name)]);
    let mut gauge = |metric: &str, help: &str, labels: &[(&str, &str)], value: u64| {
        text.begin(metric, "gauge", help);
        text.sample(metric, labels, value);
    };
    let state = [("name", name), ("state", &status.disk)];
    gauge("shorefast_replica_primary", "1 if this node is primary.", &of, u64::from(status.role == "Primary"));
    gauge("shorefast_replica_disk", "1 for the state of the local disk.", &state, 1);
    gauge("shorefast_replica_size_bytes", "Bytes of the device.", &of, status.size_bytes);
    gauge("shorefast_replica_waiting", "Requests that are not answered.", &of, status.waiting as u64);
    gauge("shorefast_replica_suspended", "1 if requests wait, or fail, for want of a majority.", &of, {
        u64::from(status.suspended)
    });
    if status.quorum != "off" {
        let heard = u64::from(status.quorum == "yes");
        gauge("shorefast_replica_quorum", "1 if a majority can be heard; not there without quorum.", &of, heard);
    }
    if let Some(witness) = &status.witness {
        let heard = u64::from(witness.connection == "Connected");
        gauge("shorefast_replica_tie_breaker", "1 if the tie-breaker can be heard.", &of, heard);
    }
    let lost = u64::from(status.lost_cache);
    gauge("shorefast_replica_lost_cache", "1 if what was acknowledged last may be missing here.", &of, lost);
    if status.volumes.len() > 1 {
        let metric = "shorefast_replica_volume_size_bytes";
        text.begin(metric, "gauge", "Bytes of a volume; not there with one.");
        for volume in &status.volumes {
            text.sample(metric, &[("name", name), ("volume", &volume.volume.to_string())], volume.size_bytes);
        }
    }
}

fn requests(text: &mut Text, metrics: &Metrics, name: &str) {
    let (of, done) = ([("name", name)], &metrics.requests);
    let mut counter = |metric: &str, help: &str, value: u64| {
        text.begin(metric, "counter", help);
        text.sample(metric, &of, value);
    };
    counter("shorefast_replica_read_bytes_total", "Bytes that applications have read.", done.read_bytes);
    counter("shorefast_replica_written_bytes_total", "Bytes that applications have written.", done.written_bytes);
    counter("shorefast_replica_metadata_writes_total", "Changes of the metadata.", metrics.metadata_writes);
    let metric = "shorefast_replica_request_seconds";
    text.begin(metric, "histogram", "From when a request of an application came to its answer.");
    for (op, times) in [("read", &done.reads), ("write", &done.writes), ("flush", &done.flushes)] {
        histogram(text, metric, &[("name", name), ("op", op)], times);
    }
}

/// One metric of all peers.
type Of<'a> = (&'a str, &'a str, &'a str, fn(&PeerStatus, &PeerMetrics) -> Option<String>);

const PEERS: &[Of<'static>] = &[
    ("out_of_sync_bytes", "gauge", "Bytes that may differ there, as this node has marked them.", |s, _| {
        Some(s.out_of_sync_bytes.to_string())
    }),
    ("lag_seconds", "gauge", "Since the oldest write was sent that it has not written.", |_, m| {
        Some(seconds(m.lag_us))
    }),
    ("lag_bytes", "gauge", "Bytes that were sent and that it has not written.", |_, m| Some(m.lag_bytes.to_string())),
    ("sent_bytes_total", "counter", "Bytes of messages to it.", |_, m| Some(m.sent_bytes.to_string())),
    ("received_bytes_total", "counter", "Bytes of messages from it.", |_, m| Some(m.received_bytes.to_string())),
    ("split_brains_total", "counter", "Meetings at which both had written apart.", |_, m| {
        Some(m.split_brains.to_string())
    }),
    ("resync_left_bytes", "gauge", "What a synchronisation has still to do; not there without one.", |s, _| {
        s.resync.map(|r| r.total_bytes.saturating_sub(r.done_bytes).to_string())
    }),
    ("resync_bytes_per_second", "gauge", "Its rate over the last ten seconds.", |s, _| {
        s.resync.map(|r| r.bytes_per_s.to_string())
    }),
    ("resync_eta_seconds", "gauge", "Its end at this rate; not there while nothing moves.", |s, _| {
        s.resync.and_then(|r| r.eta_s).map(|s| s.to_string())
    }),
];

fn peers(text: &mut Text, metrics: &Metrics, name: &str) {
    let number = |node: NodeId| node.get().to_string();
    let all: Vec<_> = metrics.status.peers.iter().filter_map(|s| Some((s, metrics.peers.get(&s.node)?))).collect();
    text.begin("shorefast_replica_peer_connection", "gauge", "1 for the state of the connection with a peer.");
    for (status, _) in &all {
        let node = number(status.node);
        let labels = [("name", name), ("peer", &node), ("state", &status.connection), ("role", &status.role)];
        text.sample("shorefast_replica_peer_connection", &labels, 1);
    }
    for (metric, kind, help, value) in PEERS {
        let metric = format!("shorefast_replica_peer_{metric}");
        text.begin(&metric, kind, help);
        for (status, measured) in &all {
            let node = number(status.node);
            if let Some(value) = value(status, measured) {
                text.sample(&metric, &[("name", name), ("peer", &node)], value);
            }
        }
    }
    let metric = "shorefast_replica_peer_acknowledgement_seconds";
    text.begin(metric, "histogram", "From when a write was sent until the peer had written it.");
    for (status, measured) in &all {
        histogram(text, metric, &[("name", name), ("peer", &number(status.node))], &measured.acknowledgements);
    }
}

fn histogram(text: &mut Text, metric: &str, labels: &[(&str, &str)], times: &Histogram) {
    let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_owned()]);
    let mut sum = 0;
    for (bound, count) in bounds.zip(times.classes) {
        sum += count;
        let labels = [labels, &[("le", bound.as_str())]].concat();
        text.sample(&format!("{metric}_bucket"), &labels, sum);
    }
    text.sample(&format!("{metric}_sum"), labels, seconds(times.sum_us));
    text.sample(&format!("{metric}_count"), labels, sum);
}
