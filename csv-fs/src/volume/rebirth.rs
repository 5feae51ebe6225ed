//! A new life after an eviction, without a restart: the node is well, its incarnation is over.
//!
//! 1. an office held here is handed over, or its latch tripped; 2. the old office stops; 3. the proof that nothing of this
//!    node's own is in flight; 4. a new office registers the next incarnation; 5. the session takes it and binds anew.
//!
//! - 3 before 4. Prevents: the next incarnation is registered, which proves to everybody that all earlier ones have
//!   ended, and then a write of the old one lands.
//! - 1 before 4. Prevents: a coordinator of the old life still commits while its successor takes "a later incarnation
//!   has registered" for the proof that it has ended.
//! - Handles that held something that was lost stay poisoned, which the session sees to; others go on.
//!
//! A volume that stops ends this first ([`VolumeHost::no_more_lives`]), so no office starts behind its back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use block::shared::{FenceGen, SharedDisk};

use super::host::{Notice, VolumeHost};
use super::office::{Office, OfficeConfig, OfficeHandle, OwnNode, PeerLink, StartError};
use crate::client::session::Session;
use crate::core::client::UNMOUNTED;
use crate::types::ClientId;

/// An office that cannot be handed over within this time is left to the others.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);
/// What fails is tried again after this.
const RETRY: Duration = Duration::from_millis(500);

/// When it is dropped, whoever waits for the next life is told that none follows.
struct Last(Weak<Session>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(session) = self.0.upgrade() {
            session.no_life_follows();
        }
    }
}

/// Starts the office of one life.
pub(super) fn start_office(
    host: &Arc<VolumeHost>,
    disk: &SharedDisk,
    config: OfficeConfig,
) -> Result<OfficeHandle, StartError> {
    let (peers, own) = (Arc::clone(host) as Arc<dyn PeerLink>, Arc::clone(host) as Arc<dyn OwnNode>);
    Office::start(config, disk.clone(), peers, own)
}

/// Begins a new life whenever one has ended by eviction, until the volume stops.
pub(super) fn follow_lives(
    host: &Arc<VolumeHost>,
    session: &Arc<Session>,
    disk: SharedDisk,
    config: OfficeConfig,
) -> tokio::task::JoinHandle<()> {
    let (mut ended, mut stopping) = (session.ended(), host.stopping());
    let (host, session) = (Arc::downgrade(host), Arc::downgrade(session));
    let last = Last(Weak::clone(&session));
    // One that has ended already is not missed.
    ended.mark_changed();
    tokio::spawn(async move {
        // However this ends.
        let _last = last;
        let all = async move {
            while ended.changed().await.is_ok() {
                let last = ended.borrow_and_update().as_ref().map(|e| e.reason.clone());
                let Some(reason) = last.filter(|r| r != UNMOUNTED) else { continue };
                let (Some(host), Some(session)) = (host.upgrade(), session.upgrade()) else { return };
                tracing::warn!(volume = %config.volume, "evicted ({reason}): a new incarnation begins");
                let (client, fence_gen) = next_life(&host, &disk, &config).await;
                session.reborn(client, fence_gen);
                host.notice(Notice::Reborn(client));
            }
        };
        tokio::select! {
            () = all => {}
            _ = stopping.wait_for(|over| *over) => {}
        }
    })
}

async fn next_life(host: &Arc<VolumeHost>, disk: &SharedDisk, config: &OfficeConfig) -> (ClientId, FenceGen) {
    host.hand_over(HAND_OVER_WITHIN).await;
    host.office().stop().await;
    host.end_reign().await;
    while let Err(e) = disk.abort.abort_outstanding().await {
        tracing::warn!(volume = %config.volume, "the end of the old incarnation's requests is not proved yet: {e}");
        tokio::time::sleep(RETRY).await;
    }
    loop {
        match start_office(host, disk, config.clone()) {
            Ok(office) => host.attach_office(office),
            Err(e) => {
                tracing::error!(volume = %config.volume, "no new incarnation: {e}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let mut state = host.office().state();
        // A disk that does not answer is waited for; the office tries for ever.
        if let Ok(state) = state.wait_for(|s| s.client.is_some()).await
            && let Some(life) = state.client
        {
            return life;
        }
    }
}
