//! Every bound of the daemon's surface, with its reason and what is dropped first.

use std::time::Duration;

/// Connections to the daemon's socket at once. A person has a handful; the newest is refused.
pub const CONNECTIONS_MAX: usize = 64;

/// Longest line a connection may send, bytes. The longest request is a SPEC with two paths; the connection is closed.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Lines waiting for one connection. Stats come once a second per call; who lets this many wait does not read, and is
/// disconnected.
pub const LINES_WAITING_MAX: usize = 256;

/// Commands waiting for the machine. Each connection has one under way; the rest is room for what the daemon itself
/// says.
pub const COMMANDS_WAITING_MAX: usize = 256;

/// Events kept per call, so that who subscribes late sees it from the start. Stats are not kept, and above this number
/// no further changes of path; every state comes at most once.
pub const CALL_EVENTS_KEPT_MAX: usize = 64;

/// Ended calls whose events are kept; the oldest goes first.
pub const CALLS_KEPT_MAX: usize = 32;

/// How long the machine may take to say goodbye before the daemon ends without it.
pub const STOP_WITHIN: Duration = Duration::from_secs(3);

/// How often the host's addresses are compared with what they were.
pub const ADDRESSES_EVERY: Duration = Duration::from_secs(2);

/// How long a connection that sends nothing more may take to read what is queued for it.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// How often the login server's name is resolved again; renewal has two days.
pub const RESOLVE_AGAIN: Duration = Duration::from_secs(3_600);

/// The same while it does not resolve, as right after the network came up.
pub const RESOLVE_RETRY: Duration = Duration::from_secs(30);
