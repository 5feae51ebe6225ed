//! Digests (RFC 7143, 13.1): CRC32C of header or data, its least significant byte first on the wire.
//!
//! The data digest covers the padding too. Memory that is being sent must not change between digest and send: callers
//! give owned buffers.

use crate::pdu::padding;

/// Bytes of a digest.
pub const DIGEST_LEN: usize = 4;

/// Which digests a connection carries, from the first PDU of the full feature phase on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digests {
    /// Behind header and additional header segments.
    pub header: bool,
    /// Behind the data segment and its padding.
    pub data: bool,
}

/// A digest as it is being computed over pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crc(u32);

impl Crc {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The four bytes of the wire.
    pub fn wire(self) -> [u8; DIGEST_LEN] {
        self.0.to_le_bytes()
    }
}

/// The digest behind a header.
pub fn of_header(bhs: &[u8], ahs: &[u8]) -> [u8; DIGEST_LEN] {
    let mut crc = Crc::default();
    crc.update(bhs);
    crc.update(ahs);
    crc.wire()
}

/// The digest behind a data segment of `data`, with its padding of zeroes.
pub fn of_data(data: &[u8]) -> [u8; DIGEST_LEN] {
    let mut crc = Crc::default();
    crc.update(data);
    crc.update(&[0; 3][..padding(data.len())]);
    crc.wire()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7143, appendix A.4 (RFC 3720, appendix B.4): the bytes of the CRC in the order of the wire.
    #[test]
    fn examples_of_the_standard_have_the_standards_digests() {
        assert_eq!(of_data(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(of_data(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(of_data(&up), [0x4e, 0x79, 0xdd, 0x46]);
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(of_data(&down), [0x5c, 0xdb, 0x3f, 0x11]);
        let mut read10 = [0_u8; 48];
        read10[0] = 0x01;
        read10[1] = 0xc0;
        read10[16] = 0x14;
        read10[22..24].copy_from_slice(&[0x04, 0]);
        read10[27] = 0x14;
        read10[31] = 0x18;
        read10[32] = 0x28;
        read10[40] = 0x02;
        assert_eq!(of_header(&read10, &[]), [0x56, 0x3a, 0x96, 0xd9]);
    }

    #[test]
    fn padding_is_part_of_the_data_digest() {
        assert_eq!(of_data(b"abcde"), of_data(b"abcde\0\0\0"));
        assert_ne!(of_data(b"abcde"), of_data(b"abcde\0\0\0\0"));
    }
}
