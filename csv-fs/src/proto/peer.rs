//! What any two nodes ask one another about a volume, outside any session.

use serde::{Deserialize, Serialize};

use block::shared::{Epoch, FenceGen};

use super::CoordinatorHint;
use crate::types::*;

/// What any node may ask another about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAsk {
    /// Who is coordinator, as far as you know?
    Who {
        /// Which volume.
        volume: VolumeId,
    },
    /// Are you alive as coordinator (perhaps with a stalled disk)?
    Alive {
        /// Which volume.
        volume: VolumeId,
        /// The reign.
        epoch: Epoch,
    },
    /// You are being fenced: let nothing more reach the disk, and say so once nothing is in flight.
    Fence {
        /// Which volume.
        volume: VolumeId,
        /// Which life of which client.
        client: ClientId,
        /// The fence generation.
        fence_gen: FenceGen,
    },
    /// A coordinator of this epoch has taken office.
    NewEpoch {
        /// Which volume.
        volume: VolumeId,
        /// The best that is known.
        hint: CoordinatorHint,
    },
    /// The coordinator's own path is gone: whoever has one, take over.
    NoPath {
        /// Which volume.
        volume: VolumeId,
        /// The reign.
        epoch: Epoch,
    },
    /// Take office: the coordinator has resigned in your favour.
    TakeOffice {
        /// Which volume.
        volume: VolumeId,
        /// The reign.
        epoch: Epoch,
    },
    /// For the node's own business (volume lists, status); opaque here.
    Node {
        /// Opaque bytes.
        body: Vec<u8>,
    },
    /// Remember when this came: what begins after it began after it was sent. Since [`MINOR_MARKS`](super::MINOR_MARKS).
    Mark {
        /// Which volume.
        volume: VolumeId,
        /// Which life of which client.
        client: ClientId,
        /// Counts up.
        number: u64,
    },
    /// Which of these bytes have your programs written by writes that began after that mark, or a later one, had come? Since
    /// [`MINOR_MARKS`](super::MINOR_MARKS).
    WrittenSince {
        /// Which volume.
        volume: VolumeId,
        /// Whose mark.
        client: ClientId,
        /// Its number.
        mark: u64,
        /// Bytes of the disk: where they begin, and how many.
        spans: Vec<(u64, u64)>,
    },
}

/// Answer to [`PeerAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// The best this node knows.
    Who {
        /// The best that is known.
        hint: Option<CoordinatorHint>,
    },
    /// In office; whether its disk stalls.
    Alive {
        /// Whether it is in office.
        in_office: bool,
        /// Whether its disk does not answer just now.
        disk_stalled: bool,
    },
    /// Nothing of that incarnation is in flight, and nothing more will be.
    Fenced,
    /// Not (yet) to be had; the reason.
    NotFenced {
        /// Why not.
        why: String,
    },
    /// Understood.
    Noted,
    /// For the node's own business.
    Node {
        /// Opaque bytes.
        body: Vec<u8>,
    },
    /// No such volume here.
    UnknownVolume,
    /// These.
    Written {
        /// Bytes of the disk: where they begin, and how many.
        spans: Vec<(u64, u64)>,
    },
}
