//! [`crate::proto`] in frames: bodies are postcard, the frame's opcode says which type, its epoch is the sender's.
//!
//! A body that does not parse is an error of the peer, answered as such; it never panics and never allocates more
//! than the frame it came in (postcard reads lengths against what is there).

use block::shared::Epoch;
use net::{Message, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proto::Opcode;

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No such opcode in this version.
    #[error("opcode {0} is unknown to this version")]
    Opcode(u16),
    /// The body is not what the opcode says.
    #[error("the body of a message with opcode {opcode} does not parse: {source}")]
    Body {
        /// The opcode.
        opcode: u16,
        /// What postcard says.
        source: postcard::Error,
    },
}

/// Makes a frame of a value.
pub fn pack<T: Serialize>(opcode: Opcode, epoch: Epoch, value: &T, payload: Payload) -> Result<Message, WireError> {
    let opcode = opcode as u16;
    let body = postcard::to_stdvec(value).map_err(|source| WireError::Body { opcode, source })?;
    Ok(Message::new(opcode, epoch.0, body).with_payload(payload))
}

/// Reads the value of a frame.
pub fn unpack<T: DeserializeOwned>(message: &Message) -> Result<T, WireError> {
    postcard::from_bytes(&message.body).map_err(|source| WireError::Body { opcode: message.opcode, source })
}

/// The opcode of a frame.
pub fn opcode(message: &Message) -> Result<Opcode, WireError> {
    Opcode::from_wire(message.opcode).ok_or(WireError::Opcode(message.opcode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PeerAsk;
    use crate::types::VolumeId;

    #[test]
    fn a_value_comes_back_as_it_was_sent() {
        let ask = PeerAsk::Who { volume: VolumeId(7) };
        let message = pack(Opcode::Peer, Epoch(3), &ask, Payload::None).unwrap();
        assert_eq!(opcode(&message).unwrap(), Opcode::Peer);
        assert_eq!(message.epoch, 3);
        assert_eq!(unpack::<PeerAsk>(&message).unwrap(), ask);
    }

    #[test]
    fn a_body_of_another_shape_is_refused_not_guessed() {
        let message = Message::new(Opcode::Peer as u16, 0, vec![0xff; 9]);
        assert!(unpack::<PeerAsk>(&message).is_err());
        assert!(opcode(&Message::new(999, 0, vec![])).is_err());
    }
}
