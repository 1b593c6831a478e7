//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest SIP message, bytes. An INVITE with an ML-KEM-768 key (1,184 bytes), two certificates, an account record of
/// eight devices and an offer stays below 8 KiB; what remains is room for later fields. A frame carries 16 KiB.
pub const MESSAGE_BYTES_MAX: usize = 12 * 1024;

/// Most header fields of one message. Phones send 10 to 25.
pub const HEADERS_MAX: usize = 64;

/// Longest single header field, folding included, bytes. Digest and identity headers stay below 2 KiB.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;

/// Most continuation lines of one header field; nobody needs more, and each costs a scan.
pub const FOLDS_MAX: usize = 16;

/// Most `Via` values of one message. Our own have one, a gateway's proxies add a few; RFC 4475 §3.1.1.7 has 34 and must
/// be taken.
pub const VIAS_MAX: usize = 64;

/// Longest Call-ID, tag or branch that is taken as a key in a table, bytes. Longer ones are refused, so that a peer
/// cannot make every entry of our tables large.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Largest session description, bytes. Ours are below 4 KiB with 32 candidates.
pub const SDP_BYTES_MAX: usize = 8 * 1024;

/// Most lines of a session description, before anything is stored.
pub const SDP_LINES_MAX: usize = 256;

/// Most media sections of a session description. We use one; phones offer up to four (audio, video, text, fax).
pub const SDP_MEDIA_MAX: usize = 8;

/// Most candidates of one description or fragment (D§6). What exceeds it is dropped, last first: senders list the
/// best first.
pub const CANDIDATES_MAX: usize = 32;

/// Most `a=yodel-relay` lines of one description: a caller opens one session at each of its two warm homes; two spare.
pub const RELAYS_MAX: usize = 4;

/// Most addresses of one relay: IPv4 and IPv6, each over UDP and over TCP on its own port, 443 and 80.
pub const RELAY_ADDRS_MAX: usize = 8;

/// Largest contact entry that a home hands back, bytes (D§4).
pub const CONTACT_ENTRY_BYTES_MAX: usize = 300;

/// Most client transactions at once. Eight devices per account, a handful of calls, each with an INVITE and a few
/// requests inside the dialog. Beyond it new requests are refused; running ones are never dropped.
pub const CLIENT_TRANSACTIONS_MAX: usize = 256;

/// Most server transactions kept, finished ones (which only answer copies) among them. When full, the finished one
/// that ends first makes room; when none is finished, the new request is refused.
pub const SERVER_TRANSACTIONS_MAX: usize = 256;

/// Most server transactions kept for one peer, so that one device cannot fill the table for all others.
pub const SERVER_TRANSACTIONS_PER_PEER_MAX: usize = 32;

/// T1, the round-trip estimate of RFC 3261 §17.1.1.1.
pub const T1: Duration = Duration::from_millis(500);

/// T2, the longest interval between repeats of a 200 (RFC 3261 §13.3.1.4).
pub const T2: Duration = Duration::from_secs(4);

/// 64 × T1: timers B, F, H, J, L and M (RFC 3261 §17, RFC 6026 §7).
pub const TIMEOUT: Duration = Duration::from_secs(32);

/// How long a message waits for an answer from the peer before it also goes by the other way (D§5).
pub const SECOND_WAY: Duration = Duration::from_millis(300);

/// How long a request waits for any answer from the peer before it counts as undelivered (D§5).
pub const UNDELIVERED: Duration = Duration::from_secs(1);

/// Most INVITEs a home watches at once. A home with 1,000 devices sees a few in a second; those beyond are delivered
/// unwatched.
pub const DELIVERIES_MAX: usize = 1_024;
