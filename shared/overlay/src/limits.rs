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

/// Holders heard when two of them differ or one forged: of any four, one is honest when three of eight lie.
pub const READ_WARY: usize = 4;

/// How long all reads hear [`READ_WARY`] holders after that was seen in one.
pub const WARY: Duration = Duration::from_secs(60);

/// What was written so lately may honestly differ between holders.
pub const FRESH: Duration = Duration::from_secs(10);

/// Holders that must say "none" before an account is said not to exist; fewer when there are fewer.
pub const NONE_QUORUM: usize = 3;

/// A lookup that has one valid answer waits so long for a second, then it is settled.
pub const SETTLE: Duration = Duration::from_millis(300);

/// A holder that has not answered for 1.5 of its round trips gets company; at least after this, so that a fast network
/// does not ask everybody.
pub const HEDGE_MIN: Duration = Duration::from_millis(50);

/// The same when no round trip was measured yet, and at most.
pub const HEDGE_MAX: Duration = Duration::from_millis(400);

/// How often a datagram that was not answered is sent again, each time after twice as long: at 5 % loss each way one
/// request in a thousand fails.
pub const REPEATS_MAX: u32 = 2;

/// A holder that has not answered for so long does not answer.
pub const REQUEST: Duration = Duration::from_secs(2);

/// A lookup or a write that is not done by then fails.
pub const OPERATION: Duration = Duration::from_secs(5);

/// Members below which nobody starts on standby: there would be nobody to answer instead.
pub const STANDBY_MEMBERS: usize = 4;

/// How long a newcomer that knows one other member waits to hear of more before it takes the realm for a small one.
pub const FIRST_LOOK: Duration = Duration::from_millis(300);

/// How long a newcomer answers "not yet" while the others hand records over.
pub const STANDBY: Duration = Duration::from_secs(5);

/// How long a change of members is awaited to be followed by another before records are handed over.
pub const REPAIR_DELAY: Duration = Duration::from_millis(500);

/// Records whose holders are computed in one go; the next follow after [`REPAIR_PAUSE`]. A walk takes some ten
/// microseconds, so other work waits a millisecond.
pub const REPAIR_BATCH: usize = 64;

/// Records compared with the members that changed, in one go: a fraction of a microsecond each.
pub const REPAIR_SCAN: usize = 2_048;

/// Pause between two goes.
pub const REPAIR_PAUSE: Duration = Duration::from_millis(50);

/// Changed members that a record is compared with; with more, the holders of every record are computed.
pub const REPAIR_EVENTS_MAX: usize = 64;

/// Hand-overs on their way at once: 64 KiB in the network.
pub const HAND_OVERS_MAX: usize = 64;

/// A hand-over that was not acknowledged is tried again after this, as long as the member counts.
pub const REPAIR_RETRY: Duration = Duration::from_secs(5);

/// After this a record is believed to be where a nearer member was to bring it, if that member is still there.
pub const REPAIR_ASSUME: Duration = Duration::from_secs(30);

/// A record is kept so long after others became its holders, unless all of them acknowledged it to us.
pub const REPAIR_GRACE: Duration = Duration::from_secs(10 * 60);

/// Writes that wait for a commit; further ones are not answered and come again.
pub const COMMITS_MAX: usize = 16_384;

/// Records on their way to members for which reads find members behind; further ones wait for the next read.
pub const DELIVERIES_MAX: usize = 8_192;

/// What a holder's commit may take beyond the round trip before a write is repeated: one turn of a slow disk.
pub const COMMIT_SLACK: Duration = Duration::from_millis(50);

/// Records one member keeps. At 2 KiB each it is 200 MiB; further new accounts are refused, none is thrown out.
pub const RECORDS_MAX: usize = 100_000;

/// Answers a home keeps for repeated reads; the oldest goes first.
pub const CACHE_MAX: usize = 4_096;

/// How long a home answers from its cache.
pub const CACHE: Duration = Duration::from_secs(60);

/// Reads and writes of devices under way at one home; further ones are answered "unreachable" at once.
pub const OPERATIONS_MAX: usize = 4_096;
/// Homes of a called account that a link is opened to ahead of the call: of two devices.
pub const HOMES_EXPECTED_MAX: usize = 4;

/// Who waits for one walk: a popular account's callers. One more is told that nothing was reached, and asks again.
pub const ASKERS_MAX: usize = 1_024;

/// Longest announcement, bytes, as signed: four addresses of each kind, half of them IPv6.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 320;

/// Longest card, bytes: a credential, an announcement and the map around them.
pub const CARD_BYTES_MAX: usize = yodel_identity::limits::CREDENTIAL_BYTES_MAX + ANNOUNCEMENT_BYTES_MAX + 16;

/// Cards in one frame: as many of the longest as fit its body.
pub const CARDS_PER_FRAME: usize = 20;

/// Members that a device is told of when it attaches.
pub const CARDS_FOR_DEVICE: usize = 8;

/// Cards sent for one request for all: 16 frames, less than half of what may wait on a link.
pub const CARDS_PER_PAGE: usize = 16 * CARDS_PER_FRAME;

/// Members asked for by name in one frame.
pub const CARDS_WANTED_MAX: usize = 32;

/// How often expired records are looked for.
pub const SWEEP: Duration = Duration::from_secs(10);

/// Sealing keys of our own that still open datagrams: what ten days of renewals leave.
pub const OWN_SEALING_KEYS_MAX: usize = 16;

/// Most members in a table, the dead included. Above 20,000 a realm needs another kind of ring; further ones are not
/// taken in.
pub const MEMBERS_MAX: usize = 32_768;

/// How often a member asks another whether it is there: SWIM's protocol period.
pub const PING_EVERY: Duration = Duration::from_secs(1);

/// Shortest and longest wait for an answer to a ping before it is asked again: three round trips between them.
pub const ANSWER_MIN: Duration = Duration::from_millis(150);
/// See [`ANSWER_MIN`].
pub const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Members asked to try for us.
pub const HELPERS: usize = 3;

/// How long a suspicion lasts that nobody, one, two or more others share.
pub const SUSPICION: [Duration; 4] = [
    Duration::from_millis(4_000),
    Duration::from_millis(2_000),
    Duration::from_millis(1_200),
    Duration::from_millis(800),
];

/// Others that count for one suspicion.
pub const TELLERS_MAX: usize = 3;

/// Times a teller may be wrong; its hearsay is ignored beyond. Halved every half minute or so.
pub const WRONG_MAX: u32 = 8;

/// Hearsay about a member that answered us so lately is not looked at.
pub const HEARD_LATELY: Duration = Duration::from_secs(2);

/// Closer looks at once: in a ring of thousands a quarter may die in one second. Further ones wait for their turn in the
/// round.
pub const CHECKS_MAX: usize = 1_024;

/// Pings sent for others at once.
pub const ERRANDS_MAX: usize = 256;

/// When what was asked is forgotten.
pub const PING_FORGET: Duration = Duration::from_secs(3);

/// Realms with fewer members than this look three times, a second apart, instead of suspecting.
pub const SMALL_REALM: usize = STANDBY_MEMBERS;

/// Probes without answer before a member of a small realm is dead.
pub const SMALL_PROBES: u32 = 3;

/// How often one of the dead is asked; in a small realm all of them.
pub const DEAD_EVERY: Duration = Duration::from_secs(5);

/// The dead that are asked in a tenth of a second when one came back.
pub const DEAD_BURST: usize = 8;

/// Members that news are pushed to at once.
pub const NEWS_FANOUT: usize = 2;

/// Fresh news wait so long for others to go along.
pub const NEWS_DELAY: Duration = Duration::from_millis(100);

/// How often one piece of news is told, and the logarithm of the number of members added.
pub const NEWS_TOLD: u32 = 4;

/// Bytes of news on a ping or its answer, and in one gossip.
pub const NEWS_ON_PING: usize = 480;
/// See [`NEWS_ON_PING`].
pub const NEWS_IN_GOSSIP: usize = 1_000;

/// Above so many pieces of news each is told less often, and a ping carries as many as a gossip: a quarter of a large
/// ring has died.
pub const NEWS_MANY: usize = 48;

/// Pieces of news that are told on at once; the most told goes first.
pub const NEWS_MAX: usize = 1_024;

/// Cards asked for at once, and of one member.
pub const WANTS_MAX: usize = 256;
/// See [`WANTS_MAX`].
pub const WANTS_PER_MEMBER: usize = 64;

/// Cards handed out for one request, in one datagram two.
pub const HAND_OUT_MAX: usize = 8;

/// Tables are compared so often at most while nothing is new, and so much less often while news are under way.
pub const DIGEST_QUIET: Duration = Duration::from_secs(3);
/// See [`DIGEST_QUIET`].
pub const DIGEST_BUSY: Duration = Duration::from_secs(5);

/// Buckets shown for one digest.
pub const BUCKETS_AT_ONCE: usize = 4;

/// Members per bucket, roughly: two thirds of what one message holds.
pub const BUCKET_MEMBERS: usize = 32;

/// How long our newest sealing key is taken to be unknown to who has not used it: far longer than news take to reach
/// everybody, and as long as a member may be away and still find us by the key before.
pub const OWN_KEY_FRESH: Duration = Duration::from_secs(600);

/// Key agreements per second that first datagrams of members may cause: 5 % of a core. Further ones are dropped and
/// come again.
pub const AGREEMENTS_PER_S: u32 = 1_000;

/// Agreed keys kept, unless set otherwise: more than there are members, at a hundred bytes each.
pub const PAIRS_MAX: usize = 32_768;

/// Pause between goes of deriving keys ahead of need.
pub const DERIVE_PAUSE: Duration = Duration::from_millis(100);
