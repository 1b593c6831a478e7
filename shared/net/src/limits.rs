//! Every bound of this crate, with its reason and what is dropped first.

use std::time::Duration;

/// Frames waiting on one link to be written. A peer that lets this many pile up does not drain; the link is closed
/// with `Overload`.
pub const LINK_QUEUE_FRAMES_MAX: usize = 512;

/// Bytes waiting on one link, whatever the number of frames. Thirty of the largest frames.
pub const LINK_QUEUE_BYTES_MAX: usize = 512 * 1024;

/// Relayed packets waiting on one link: half a second of voice. Older audio is worth nothing, so the oldest goes.
pub const LINK_QUEUE_RELAY_MAX: usize = 25;

/// Frames read from all links and not yet fed to the machine. Readers wait then, and flow control stops the peers.
pub const LINK_EVENTS_MAX: usize = 256;

/// Bytes a link reads or writes at once. One frame of the largest size fits.
pub const LINK_BUFFER_BYTES: usize = 16 * 1024 + 64;

/// Handshakes under way above which QUIC answers Retry (a round trip proves the address before a key exchange is
/// spent on it).
pub const HALF_OPEN_BEFORE_RETRY: usize = 100;

/// Handshakes under way above which newcomers are refused, QUIC and TCP alike.
pub const HALF_OPEN_MAX: usize = 1_000;

/// From the connection to the end of the handshake, and from there to the first frame of an accepted link. Three lost
/// packets fit.
pub const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);

/// How long an opened link may take to connect and shake hands.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a closing link may take to hand over what was queued.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A QUIC link without any packet for this long is lost.
pub const QUIC_IDLE: Duration = Duration::from_secs(30);

/// Keep-alive of QUIC links: below the 30 s after which common NATs forget a mapping (RFC 4787 REQ-5 asks for 2 min,
/// many give 30 s), with one lost packet to spare.
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// QUIC send and receive windows, bytes per link. Signalling is small; this bounds what a slow peer can pin here.
pub const QUIC_WINDOW_BYTES: u32 = 128 * 1024;

/// QUIC datagrams received and not yet taken by quinn. The newest is dropped, QUIC repeats it.
pub const QUIC_INBOX_MAX: usize = 1_024;

/// Receive and send buffer asked of the kernel for the UDP socket, bytes. 1,000 small datagrams take about 768 kB of
/// accounting; the default of 208 kB lost three quarters of them.
pub const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Buffers per receive call, each large enough for what GRO joins (64 kB).
pub const UDP_RECEIVE_BUFFERS: usize = 8;

/// Datagrams waiting for the socket to become writable. The oldest is dropped.
pub const UDP_SEND_QUEUE_MAX: usize = 512;

/// How long the driver goes on serving its sockets so that closing links can finish.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_millis(1_500);

/// Longest path of a unix socket, bytes: `sun_path` has 108 with its end (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest request on an admin socket, bytes. A longer one ends its connection.
pub const ADMIN_LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest answer that is read from an admin socket, bytes: a list of a million accounts.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 1 << 28;

/// Operators connected at once; further ones wait to be accepted.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// How long an operator's connection may stay silent.
pub const ADMIN_IDLE: Duration = Duration::from_secs(60);
