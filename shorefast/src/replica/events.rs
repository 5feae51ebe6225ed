//! `replica events`: what there is, an object a line, and then what changes.
//!
//! The lines are those of `drbdsetup events2` in shape: `exists` for each object, `exists` of nothing at the end of them, then
//! `change` for each object of which something but its counters is different.

use replicator::runtime::Resource;
use replicator::runtime::status::Status;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Tells of a replica until whoever listens has gone, or it stops.
pub(super) async fn tell(resource: &Resource, follow: bool, to: &mut (impl AsyncWrite + Unpin)) {
    let mut watch = resource.watch();
    let Ok(mut known) = resource.status().await else { return };
    let mut lines: Vec<String> = objects(&known).into_iter().map(|o| line("exists", &o)).collect();
    lines.push(line("exists", &json!({ "object": "-" })));
    while to.write_all((lines.join("\n") + "\n").as_bytes()).await.is_ok() && follow {
        lines.clear();
        while lines.is_empty() {
            if watch.changed().await.is_err() {
                return;
            }
            let Some(now) = watch.borrow_and_update().clone() else { continue };
            lines = changes(&known, &now);
            known = (*now).clone();
        }
    }
}

/// The objects of a status: the resource, its peers, its tie-breaker.
fn objects(status: &Status) -> Vec<Value> {
    let status = status.without_counters();
    let mut whole = json!(status);
    let taken = |whole: &mut Value, key: &str| whole.as_object_mut().and_then(|o| o.remove(key)).unwrap_or(Value::Null);
    let (peers, witness) = (taken(&mut whole, "peers"), taken(&mut whole, "witness"));
    taken(&mut whole, "waiting");
    let named = |kind: &str, mut value: Value| {
        if let Some(object) = value.as_object_mut() {
            object.remove("out_of_sync_bytes");
            object.insert("object".to_owned(), kind.into());
            object.insert("name".to_owned(), status.name.clone().into());
        }
        value
    };
    let mut objects = vec![named("resource", whole)];
    objects.extend(peers.as_array().into_iter().flatten().map(|p| named("peer", p.clone())));
    objects.extend((!witness.is_null()).then(|| named("witness", witness)));
    objects
}

fn changes(before: &Status, now: &Status) -> Vec<String> {
    let old = objects(before);
    objects(now).iter().filter(|o| !old.contains(o)).map(|o| line("change", o)).collect()
}

fn line(kind: &str, object: &Value) -> String {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    json!({ "schema": crate::api::SCHEMA, "at": at, "event": kind, "of": object }).to_string()
}
