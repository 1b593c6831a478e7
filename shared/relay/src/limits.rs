//! Every bound of this crate, with its reason and what is dropped first.

use std::time::Duration;

/// How long a session waits for its second end. A call rings no longer than this; the oldest go first.
pub const HALF_OPEN: Duration = Duration::from_secs(60);

/// Sessions of one credential that wait for their second end. Eight devices of a callee, twice; further ones are
/// refused.
pub const HALF_OPEN_PER_NODE: usize = 16;

/// What a waiting session may cost, bytes of memory in the table's entry.
pub const HALF_OPEN_BYTES: usize = 256;

/// Sessions that one credential may have in all, as opener. A gateway's lines stay below it.
pub const SESSIONS_PER_NODE: usize = 64;

/// Sessions a server keeps in all; further ones are refused. At 100 packets a second each it is beyond what one core
/// carries, so the quota of bytes binds first.
pub const SESSIONS_MAX: usize = 4_096;

/// A session over which nothing authentic came for so long is closed. Legs bind again every [`BIND_EVERY`].
pub const IDLE: Duration = Duration::from_secs(120);

/// How long a joined leg outlives its link: long enough to attach again with full jitter (4 s doubling).
pub const LINK_LOST: Duration = Duration::from_secs(60);

/// Packets that wait to be drained from a server; the oldest data is dropped first, control never is.
pub const QUEUE_MAX: usize = 4_096;

/// Largest packet that is passed on, bytes: what fits a datagram behind the channel.
pub const PACKET_BYTES_MAX: usize =
    yodel_wire::limits::DATAGRAM_BYTES_MAX - crate::control::DATA_HEADER_BYTES;

/// Default quota of one credential, bytes per second of data sent: eight voice calls with their redundancy.
pub const RATE_BYTES_PER_S: u64 = 128_000;

/// Default burst of one credential, bytes: two seconds' worth.
pub const BURST_BYTES: u64 = 256_000;

/// Spacing of bind requests while one is unanswered.
pub const BIND_RETRY: Duration = Duration::from_millis(150);

/// Spacing once the first [`BIND_QUICK`] requests stayed unanswered: UDP is shut, most likely for long.
pub const BIND_RETRY_SLOW: Duration = Duration::from_secs(2);

/// Unanswered requests after which the slow spacing begins.
pub const BIND_QUICK: u32 = 8;

/// A bound address is confirmed anew so often: below the shortest life of a NAT's UDP entry seen in the field (20 s),
/// and soon enough that a changed address costs a call no more than a moment.
pub const BIND_EVERY: Duration = Duration::from_secs(5);

/// A confirmed binding that is not confirmed again for so long is given up for the link.
pub const BIND_LOST: Duration = Duration::from_millis(1_200);

/// Unanswered `RelayOpen` and `RelayJoin` count as refused after so long.
pub const REQUEST: Duration = Duration::from_secs(5);
