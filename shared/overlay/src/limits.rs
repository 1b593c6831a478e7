//! Every bound of this crate, with its reason and what is dropped first.

use std::time::Duration;

/// Longest contact entry, bytes, as signed: eight of them and an account record stay far below one frame.
pub const CONTACT_ENTRY_BYTES_MAX: usize = 300;

/// Most contact entries in a record: one per device.
pub const CONTACT_ENTRIES_MAX: usize = yodel_identity::limits::DEVICES_MAX;

/// Longest life of a contact entry. A device that vanished without withdrawal is believed reachable no longer.
pub const CONTACT_ENTRY_LIFE: Duration = Duration::from_secs(2 * 60 * 60);

/// Homes a contact entry names: the two warm ones.
pub const ENTRY_HOMES_MAX: usize = 2;

/// Members that hold a record.
pub const HOLDERS_MAX: usize = 8;

/// Members that placement looks at for one key: a realm where one owner has nearly all must not make every lookup walk
/// through thousands.
pub const WALK_MAX: usize = 256;

/// Holders asked at once.
pub const READ_AT_ONCE: usize = 2;

/// Holders that must say "none" before an account is said not to exist; fewer when there are fewer.
pub const NONE_QUORUM: usize = 3;

/// A lookup that has one valid answer waits so long for a second, then it is settled.
pub const SETTLE: Duration = Duration::from_millis(300);

/// A holder that has not answered for 1.5 of its round trips gets company; at least after this, so that a fast network
/// does not ask everybody.
pub const HEDGE_MIN: Duration = Duration::from_millis(50);

/// The same when no round trip was measured yet, and at most.
pub const HEDGE_MAX: Duration = Duration::from_millis(400);

/// A holder that has not answered for so long does not answer.
pub const REQUEST: Duration = Duration::from_secs(2);

/// A lookup or a write that is not done by then fails.
pub const OPERATION: Duration = Duration::from_secs(5);

/// A member whose link has been down for so long does not count.
pub const LINK_DOWN: Duration = Duration::from_secs(5);

/// Members below which nobody starts on standby: there would be nobody to answer instead.
pub const STANDBY_MEMBERS: usize = 4;

/// How long a newcomer answers "not yet" while the others hand records over.
pub const STANDBY: Duration = Duration::from_secs(5);

/// How long a change of members is awaited to be followed by another before records are handed over.
pub const REPAIR_DELAY: Duration = Duration::from_millis(500);

/// Records handed over in one go; the next follow after [`REPAIR_PAUSE`].
pub const REPAIR_BATCH: usize = 64;

/// Pause between two goes.
pub const REPAIR_PAUSE: Duration = Duration::from_millis(50);

/// Records one member keeps. At 2 KiB each it is 200 MiB; further new accounts are refused, none is thrown out.
pub const RECORDS_MAX: usize = 100_000;

/// Answers a home keeps for repeated reads; the oldest goes first.
pub const CACHE_MAX: usize = 4_096;

/// How long a home answers from its cache.
pub const CACHE: Duration = Duration::from_secs(60);

/// Reads and writes of devices under way at one home; further ones are answered "unreachable" at once.
pub const OPERATIONS_MAX: usize = 4_096;
/// Who waits for one walk: a popular account's callers. One more is told that nothing was reached, and asks again.
pub const ASKERS_MAX: usize = 1_024;

/// Longest announcement, bytes, as signed: four addresses of each kind, half of them IPv6.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 320;

/// Longest card, bytes: a credential, an announcement and the map around them.
pub const CARD_BYTES_MAX: usize = yodel_identity::limits::CREDENTIAL_BYTES_MAX + ANNOUNCEMENT_BYTES_MAX + 16;

/// Cards in one frame: as many of the longest as fit its body.
pub const CARDS_PER_FRAME: usize = 20;

/// Members asked for by name in one frame.
pub const CARDS_WANTED_MAX: usize = 32;

/// How often expired records are looked for.
pub const SWEEP: Duration = Duration::from_secs(10);

/// Most members a ring counts: what one bulletin names.
pub const MEMBERS_MAX: usize = yodel_identity::limits::BULLETIN_SUPERNODES_MAX;

/// Sealing keys of our own that still open datagrams: what ten days of renewals leave.
pub const OWN_SEALING_KEYS_MAX: usize = 16;
