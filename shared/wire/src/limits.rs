//! Every bound of this crate, with its reason.

/// Largest UDP payload we ever send, bytes: fits the IPv6 minimum MTU (RFC 8200 §5) with room for tunnels.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// Largest body of a frame, bytes. An account record of eight devices with an INVITE around it stays below half
/// of it; a peer that claims more is refused before anything is allocated.
pub const FRAME_BODY_BYTES_MAX: usize = 16_384;

/// Most entries in one CBOR map or array. No format of ours has more fields; page lists are split below it.
pub const CBOR_ENTRIES_MAX: usize = 1_024;

/// Deepest nesting of CBOR items. Our formats nest four deep; one spare for a later field.
pub const CBOR_DEPTH_MAX: usize = 8;
