//! A client that is bound and asks what no client asks: numbers at their ends, blocks of others, files that are none. It may
//! hurt itself; the coordinator goes on, and the volume stays whole.

use std::sync::Arc;

use super::cluster::*;
use crate::coordinator::*;
use crate::format::{CELL, Slot, slot_at};
use crate::proto::fuzz::changed;
use crate::proto::samples::{reasserts, requests};
use crate::proto::*;
use crate::types::*;
use block::AlignedBuf;
use block::device::DeviceExt;
use block::shared::{BoxFuture, Incarnation};

/// Holds nothing, whatever it is asked for.
struct Forgetful;

impl ClientLink for Forgetful {
    fn id(&self) -> u64 {
        99
    }

    /// Of its locks it says what is true: one that denies for ever what it was given keeps its own tries waiting.
    fn callback(&self, callback: Callback) -> BoxFuture<'_, Option<CallbackAnswer>> {
        let answer = match callback.ask {
            CallbackAsk::LockHeld { .. } => CallbackAnswer::Accepted,
            _ => CallbackAnswer::NotHeld,
        };
        Box::pin(async move { Some(answer) })
    }
}

/// Binds, in its next life if this one was ended.
async fn bind(client: &mut Client, reassert: Vec<Reassert>) -> BindAnswer {
    client.bind.0 += 1;
    let (volume, bind) = (VolumeId(0x5110), client.bind);
    let request = BindRequest { volume, client: client.id, bind, fence_gen: GEN, has_path: true, reassert };
    tokio::time::timeout(SOON, client.coordinator.bind(Arc::new(Forgetful), request)).await.expect("answered")
}

/// Its slot says which life it is in.
async fn register(volume: &Volume, life: u64) {
    let node = client_id(1).node;
    let slot = Slot { incarnation: Incarnation(life), fence_gen: GEN, ..Slot::empty(node) };
    let mut cell = AlignedBuf::zeroed(CELL as usize);
    let bytes = slot.encode(volume.superblock.volume);
    cell[..bytes.len()].copy_from_slice(&bytes);
    volume.device.write(slot_at(node), cell).await.0.expect("written");
}

/// A client that is bound, with a file of its own open, a layout on it and some space; it is 300 where samples say so.
async fn ready(life: u64, coordinator: &Arc<Coordinator>) -> (Client, InodeNo) {
    let mut client = Client::new(1, coordinator);
    client.id.incarnation = Incarnation(life);
    for _ in 0..1000 {
        match bind(&mut client, vec![]).await {
            BindAnswer::Bound { .. } => break,
            // Its last life is being ended.
            _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
    let attr = client.create_open(&format!("f{life}"), 7).await;
    client.layout(attr.ino, BlockRange::new(0, 8), Want::Exclusive).await;
    client.granted(64).await;
    (client, attr.ino)
}

/// The same about a file that is there.
fn about<T: serde::Serialize + serde::de::DeserializeOwned>(what: &T, ino: InodeNo) -> Vec<u8> {
    let bytes = postcard::to_stdvec(what).expect("fits");
    let (from, to) = (postcard::to_stdvec(&InodeNo(300)).expect("fits"), postcard::to_stdvec(&ino).expect("fits"));
    match bytes.windows(from.len()).position(|w| w == from) {
        Some(at) => [&bytes[..at], &to, &bytes[at + from.len()..]].concat(),
        None => bytes,
    }
}

/// Every sample with each byte in turn made the largest number, the smallest, and another.
fn changes_of(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let one = |at: usize| [0xff, 0, 0x7f].map(|byte| changed(bytes, &[(at as u16, byte)]));
    let two = |at: usize| [changed(bytes, &[(at as u16 + 1, 0xff), (at as u16, 0x7f)])];
    (0..bytes.len()).flat_map(move |at| one(at).into_iter().chain(two(at))).collect::<Vec<_>>().into_iter()
}

#[tokio::test]
async fn a_client_that_asks_nonsense_hurts_itself_alone() {
    let mut volume = Volume::new().await;
    let (coordinator, _latch) = volume.first().await;
    let other = Client::bound(2, &coordinator).await;
    let kept = other.create("kept").await;
    let mut life = 10;
    let (mut client, mut ino) = ready(life, &coordinator).await;
    let (mut asked, mut lives) = (0, 0);
    for request in requests() {
        for bytes in changes_of(&about(&request, ino)) {
            let Ok(request) = postcard::from_bytes::<Request>(&bytes) else { continue };
            asked += 1;
            match client.call_in(1, request).await {
                Answer::Ok(_) | Answer::Errno(_) => {}
                Answer::StaleBind | Answer::Evicted { .. } => {
                    (life, lives) = (life + 1, lives + 1);
                    (client, ino) = ready(life, &coordinator).await;
                }
                answer => panic!("{answer:?}"),
            }
        }
    }
    assert!(asked > 500 && lives > 3, "{asked} questions in {lives} lives");
    assert_eq!(other.lookup("kept").await, Answer::Ok(Reply::Attr(kept)));
    register(&volume, life).await;
    let report = coordinator.check(|_| ()).await.expect("checked");
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn a_client_that_claims_nonsense_hurts_itself_alone() {
    let mut volume = Volume::new().await;
    let (coordinator, _latch) = volume.first().await;
    let other = Client::bound(2, &coordinator).await;
    let kept = other.create("kept").await;
    let mut life = 10;
    let (mut client, mut ino) = ready(life, &coordinator).await;
    let mut claimed = 0;
    for claim in reasserts() {
        for bytes in changes_of(&about(&claim, ino)) {
            let Ok(claim) = postcard::from_bytes::<Reassert>(&bytes) else { continue };
            claimed += 1;
            if !matches!(bind(&mut client, vec![claim]).await, BindAnswer::Bound { .. }) {
                life += 1;
                (client, ino) = ready(life, &coordinator).await;
            }
        }
    }
    assert!(claimed > 70, "{claimed} claims");
    assert_eq!(other.lookup("kept").await, Answer::Ok(Reply::Attr(kept)));
    register(&volume, life).await;
    let report = coordinator.check(|_| ()).await.expect("checked");
    assert!(report.is_clean(), "{report}");
}
