//! The RTP header (RFC 3550 §5.1) of a sealed audio packet, always these twelve bytes:
//!
//! ```text
//!  0      1      2         4             8         12
//!  | 0x80 | 0x60 | sequence | timestamp  | SSRC    | sealed frame … | tag (16) |
//! ```
//!
//! Version 2 without padding, extension or contributing sources, so that the first byte lies in 128–191 (RFC 7983);
//! payload type 96. The timestamp counts samples at 48 kHz from the start of the session, 960 a frame; it says when a
//! frame is played, the sequence number says which packet it is. Both begin at 0.

use crate::limits::PAYLOAD_BYTES_MAX;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// First byte: version 2, nothing else.
pub const FIRST_BYTE: u8 = 0x80;

/// Second byte: no marker, payload type 96.
pub const AUDIO: u8 = 96;

/// The fields that differ between packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Low 16 bits of the packet index.
    pub sequence: u16,
    /// Samples at 48 kHz since the session's start, modulo 2³².
    pub timestamp: u32,
    /// Names the leg and direction; derived from the key.
    pub ssrc: u32,
}

impl Header {
    /// The twelve bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        [FIRST_BYTE, AUDIO, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }

    /// Splits a packet into header, its bytes, and what is sealed. `None` for anything but an audio packet of ours.
    pub fn parse(packet: &[u8]) -> Option<(Header, &[u8; HEADER_BYTES], &[u8])> {
        let (bytes, sealed) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let [first, kind, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *bytes;
        if first != FIRST_BYTE || kind != AUDIO || sealed.len() > PAYLOAD_BYTES_MAX + crate::seal::TAG_BYTES {
            return None;
        }
        let header = Header {
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
        };
        Some((header, bytes, sealed))
    }
}

/// The 64-bit index nearest to `reference` whose low 16 bits are `sequence` (RFC 3711 §3.3.1).
pub fn extend_sequence(reference: u64, sequence: u16) -> u64 {
    let step = sequence.wrapping_sub(reference as u16) as i16;
    // Below zero there is nothing: the number can only lie ahead.
    reference.checked_add_signed(i64::from(step)).unwrap_or(u64::from(sequence))
}

/// The 64-bit timestamp nearest to `reference` whose low 32 bits are `timestamp`.
pub fn extend_timestamp(reference: u64, timestamp: u32) -> u64 {
    let step = timestamp.wrapping_sub(reference as u32) as i32;
    reference.checked_add_signed(i64::from(step)).unwrap_or(u64::from(timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header() {
        let header = Header { sequence: 0x1234, timestamp: 0x0001_0203, ssrc: 0xdead_beef };
        let bytes = [0x80, 0x60, 0x12, 0x34, 0, 1, 2, 3, 0xde, 0xad, 0xbe, 0xef];
        assert_eq!(header.encode(), bytes);
        let mut packet = bytes.to_vec();
        packet.extend_from_slice(&[7; 20]);
        let (parsed, raw, sealed) = Header::parse(&packet).unwrap();
        assert_eq!((parsed, raw, sealed), (header, &bytes, &[7u8; 20][..]));
    }

    #[test]
    fn refuses_what_is_not_ours() {
        let good = Header { sequence: 1, timestamp: 2, ssrc: 3 }.encode();
        for cut in 0..HEADER_BYTES {
            assert!(Header::parse(&good[..cut]).is_none());
        }
        for (at, value) in [(0, 0x90), (0, 0xa0), (0, 0x81), (0, 0x40), (1, 0xe0), (1, 97), (1, 201)] {
            let mut bytes = good;
            bytes[at] = value;
            assert!(Header::parse(&bytes).is_none(), "{at} {value:#x}");
        }
        let mut long = good.to_vec();
        long.resize(HEADER_BYTES + PAYLOAD_BYTES_MAX + 16, 0);
        assert!(Header::parse(&long).is_some());
        long.push(0);
        assert!(Header::parse(&long).is_none());
    }

    #[test]
    fn sequence_is_extended_to_the_nearest_index() {
        assert_eq!(extend_sequence(0, 0), 0);
        assert_eq!(extend_sequence(0, 40_000), 40_000);
        assert_eq!(extend_sequence(65_530, 4), 65_540);
        assert_eq!(extend_sequence(65_540, 65_530), 65_530);
        assert_eq!(extend_sequence(0, 32_767), 32_767);
        assert_eq!(extend_sequence(100_000, (100_000u64 + 32_767) as u16), 132_767);
        assert_eq!(extend_sequence(100_000, (100_000u64 - 32_768) as u16), 67_232);
        assert_eq!(extend_timestamp(u64::from(u32::MAX), 5), (1 << 32) + 5);
        assert_eq!(extend_timestamp((1 << 32) + 5, u32::MAX), u64::from(u32::MAX));
    }
}
