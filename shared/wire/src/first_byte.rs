//! Who owns a datagram, by its first byte (RFC 7983, RFC 9443). Decided before anything is parsed or decrypted.
//!
//! ```text
//!   0..=3    STUN (RFC 8489)          64..=127   QUIC, short header
//!   20       overlay, sealed          128..=191  media: sealed RTP
//!   21       relay data               192..=255  QUIC, long header
//!   22       relay control            everything else: reserved, dropped
//!   23       path probe
//! ```
//! After 20, 22 and 23 the second byte is the version.

/// Version written after the first byte of overlay, relay control and path probe datagrams.
pub const DATAGRAM_VERSION: u8 = 1;

/// First byte of a sealed overlay datagram.
pub const OVERLAY: u8 = 20;
/// First byte of relayed data.
pub const RELAY_DATA: u8 = 21;
/// First byte of relay control.
pub const RELAY_CONTROL: u8 = 22;
/// First byte of a path probe.
pub const PATH_PROBE: u8 = 23;

/// The protocol a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatagramKind {
    /// Connectivity checks, reflexive addresses, consent.
    Stun,
    /// Sealed exchange between supernodes.
    Overlay,
    /// A channel in front of a packet that a relay passes on.
    RelayData,
    /// Binding of a UDP address to a relay session.
    RelayControl,
    /// Probe of a path that carries no media yet.
    PathProbe,
    /// Links.
    Quic,
    /// Sealed RTP and RTCP.
    Media,
    /// Nobody's: drop it.
    Reserved,
}

impl DatagramKind {
    /// Looks at the first byte alone. An empty datagram is `Reserved`.
    pub fn of(datagram: &[u8]) -> DatagramKind {
        match datagram.first() {
            Some(0..=3) => DatagramKind::Stun,
            Some(&OVERLAY) => DatagramKind::Overlay,
            Some(&RELAY_DATA) => DatagramKind::RelayData,
            Some(&RELAY_CONTROL) => DatagramKind::RelayControl,
            Some(&PATH_PROBE) => DatagramKind::PathProbe,
            Some(64..=127 | 192..=255) => DatagramKind::Quic,
            Some(128..=191) => DatagramKind::Media,
            Some(_) | None => DatagramKind::Reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_one_owner() {
        let owned = |kind| (0..=255u8).filter(|b| DatagramKind::of(&[*b]) == kind).collect::<Vec<_>>();
        assert_eq!(owned(DatagramKind::Stun), (0..=3).collect::<Vec<_>>());
        assert_eq!(owned(DatagramKind::Overlay), [20]);
        assert_eq!(owned(DatagramKind::RelayData), [21]);
        assert_eq!(owned(DatagramKind::RelayControl), [22]);
        assert_eq!(owned(DatagramKind::PathProbe), [23]);
        assert_eq!(owned(DatagramKind::Quic), (64..=127).chain(192..=255).collect::<Vec<_>>());
        assert_eq!(owned(DatagramKind::Media), (128..=191).collect::<Vec<_>>());
        assert_eq!(owned(DatagramKind::Reserved), (4..=19).chain(24..=63).collect::<Vec<_>>());
        assert_eq!(DatagramKind::of(&[]), DatagramKind::Reserved);
    }
}
