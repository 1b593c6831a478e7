//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Most remote candidates of one call over all its legs (D§6). Eight devices with four addresses each; a peer that
/// names more wants us to knock on other people's doors. The first ones stay, later ones are dropped.
pub const REMOTE_CANDIDATES_MAX: u32 = 32;

/// Most checks of one call, over all its legs, to addresses that have not answered yet (D§6): with the next bound, what
/// an unwilling third party can get from us. Those beyond are not sent.
pub const CHECKS_MAX: u32 = 100;

/// Most checks to one address that never answered, over all legs of a call (D§6).
pub const CHECKS_PER_SILENT_ADDRESS_MAX: u32 = 5;

/// Most relay sessions one agent knows: the caller's and the callee's, each with a spare.
pub const RELAYS_MAX: usize = 4;

/// Most local candidates kept: the interfaces of a host with several networks, both families. Later ones are dropped.
pub const LOCAL_CANDIDATES_MAX: usize = 32;

/// Checks awaiting their answer. Each lives [`PENDING_LIFE`]; the oldest is forgotten first.
pub const PENDING_MAX: usize = 128;

/// How long an answer to a check still counts: longer than any path one could speak over.
pub const PENDING_LIFE: Duration = Duration::from_secs(5);

/// Pause between the first checks of two routes (Ta, RFC 8445 §14.2: not below 5 ms). Ours are 130 bytes, so that 32 of
/// them in 0.64 s stay below the rate of the voice that follows.
pub const PACE: Duration = Duration::from_millis(20);

/// Pause after the first unanswered check of a route; it doubles. Five checks so last 1.5 s, which bridges the skew
/// between two ends that learn each other's candidates through signalling.
pub const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Longest pause between checks over a relay that the peer has not joined yet.
pub const RELAY_RETRY_MAX: Duration = Duration::from_secs(1);

/// Pause between checks of a working route, ±20 % (RFC 7675 §5.1 asks for 5 s at most; half of it also keeps the second
/// route warm and its round trip known).
pub const CONSENT_INTERVAL: Duration = Duration::from_millis(2_500);

/// Without an answer for this long nothing is sent to a direct address any more (RFC 7675 §5.1).
pub const CONSENT_EXPIRY: Duration = Duration::from_secs(30);

/// Silence on the chosen route, while media is expected, that starts probing: ten 20 ms frames (D§6).
pub const SILENCE: Duration = Duration::from_millis(200);

/// The same when the peer's media arrives over another route meanwhile: it has moved, and may know why.
pub const SILENCE_PEER_MOVED: Duration = Duration::from_millis(60);

/// Shortest time a probe of the chosen route gets before the route is in doubt: a loaded machine may sleep this long.
pub const GRACE_MIN: Duration = Duration::from_millis(60);

/// How long a route that was left because it fell silent is not gone back to while another works, so that a bad one
/// does not make the sound jump.
pub const SHUN: Duration = Duration::from_secs(3);

/// How long a route that answers checks and carries no sound is not gone back to while another works: a firewall that
/// tells the two apart will not change its mind within a call, and every try costs a second of silence.
pub const SHUN_UNHEARD: Duration = Duration::from_secs(600);

/// A relay that said it goes away is not gone back to while another route works. It does not come back within a call.
pub const SHUN_LEAVING: Duration = Duration::from_secs(24 * 60 * 60);

/// A wanted path that no route has provided for this long after the last news (a candidate, a relay) has failed. Five
/// checks and their answers over the slowest path one could speak over are through by then.
pub const FAILED_AFTER: Duration = Duration::from_secs(8);

/// A path is lost when nothing at all was heard over any route for this long: longer than a change of networks takes,
/// shorter than a person waits in silence.
pub const LOST_AFTER: Duration = Duration::from_secs(15);

/// STUN servers one gatherer asks: two warm homes and the cold one.
pub const SERVERS_MAX: usize = 3;

/// Requests to one server before it counts as silent: 0, 250, 750, 1,750 ms.
pub const GATHER_TRIES_MAX: u32 = 4;

/// First pause between two of them; it doubles.
pub const GATHER_RETRY: Duration = Duration::from_millis(250);

/// Pause between two looks at one's own address: below the 30 s after which the shortest-lived NATs forget a mapping.
pub const GATHER_REFRESH: Duration = Duration::from_secs(25);

/// Longest STUN message read. Ours are below 200 bytes; nothing larger reaches a parser.
pub const STUN_BYTES_MAX: usize = 548;

/// Longest user-name attribute read: two fragments of ours and a colon are 17 bytes; RFC 8839 allows 513.
pub const USERNAME_BYTES_MAX: usize = 513;
