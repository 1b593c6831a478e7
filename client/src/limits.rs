//! Every bound of the phone, with its reason.

use std::time::Duration;

/// Homes kept warm: one may die without a call noticing (DESIGN §4, Attachment).
pub const HOMES_WARM: usize = 2;

/// TLS starts this long after QUIC, so that it is only opened where UDP is slow or shut.
pub const TLS_AFTER: Duration = Duration::from_millis(300);

/// From opening the first link to the home's welcome; then the attempt has failed.
pub const ATTACH: Duration = Duration::from_secs(6);

/// First and longest pause before the same supernode is tried again; full jitter below it.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(4);
/// The pause doubles up to this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Keep-alive on an idle link; below the 30 s that the shortest-lived NATs give UDP (RFC 4787 REQ-5 asks for 2 min).
pub const PING_IDLE: Duration = Duration::from_secs(15);
/// While a call is set up or up: QUIC notices a killed home late, this notices it soon.
pub const PING_ACTIVE: Duration = Duration::from_secs(1);
/// A ping unanswered for this long, on an idle link, means the home is gone.
pub const PONG_IDLE: Duration = Duration::from_secs(5);
/// The same while a call is set up or up.
pub const PONG_ACTIVE: Duration = Duration::from_secs(2);

/// A record asked for at the first home is asked for at the second after this.
pub const LOOKUP_SECOND_WAY: Duration = Duration::from_millis(300);
/// A lookup without any answer for this long is `lookup.overlay-unreachable`.
pub const LOOKUP: Duration = Duration::from_secs(4);
/// Lookups in flight; a call makes one or two.
pub const LOOKUPS_MAX: usize = 32;

/// Life of a contact entry; DESIGN §4 allows two hours.
pub const ENTRY_LIFE: Duration = Duration::from_secs(90 * 60);
/// It is written again this long after the last time, so that two failures in a row are still in time.
pub const ENTRY_REFRESH: Duration = Duration::from_secs(30 * 60);
/// A write unacknowledged for this long is written again, through the other home.
pub const WRITE_RETRY: Duration = Duration::from_secs(1);
/// What one home acknowledged is read back through the other after this: by then every holder has it.
pub const CHECK_AFTER: Duration = Duration::from_secs(2);
/// Writes of one entry that could not be read back, until the next refresh: the other home may be the one that lies.
pub const DOUBTS_MAX: u32 = 3;
/// Pause after a write that was refused.
pub const WRITE_REFUSED: Duration = Duration::from_secs(5);
/// The account record is read back and re-sent this often; it lives for 30 days.
pub const ACCOUNT_REFRESH: Duration = Duration::from_secs(6 * 60 * 60);

/// Contacts of one account. A person's address book has hundreds.
pub const CONTACTS_MAX: usize = 2_000;
/// Requests of strangers that are kept; the oldest goes first.
pub const REQUESTS_MAX: usize = 100;
/// Pause between attempts to hand a contact request or a tag to somebody who was not reached.
pub const DELIVERY_RETRY: Duration = Duration::from_secs(20);
/// Deliveries of contact requests in flight at once.
pub const DELIVERIES_MAX: usize = 4;

/// Links to relays that are not homes; one a call and leg.
pub const RELAY_LINKS_MAX: usize = 16;
/// An unused link to a relay is closed after this.
pub const RELAY_LINK_IDLE: Duration = Duration::from_secs(30);

/// Commands that wait for something (an answer, a delivery) at once.
pub const PENDING_MAX: usize = 256;
/// Ended calls kept for `calls` and `why`.
pub const HISTORY_MAX: usize = 100;

/// A login server that does not answer a renewal for this long is tried again later.
pub const RENEWAL_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between tries to renew, with up to a minute of jitter; 48 hours hold hundreds.
pub const RENEWAL_RETRY: Duration = Duration::from_secs(5 * 60);

/// From the command to stop to the end: time for hang-ups and the withdrawal to reach the homes.
pub const FAREWELL: Duration = Duration::from_millis(300);

/// Without a home for this long, the login server is asked for the bulletin: after both transports of the first
/// attempts failed.
pub const REFETCH_AFTER: Duration = Duration::from_secs(8);
/// The login server must say its hello within this, or another address is tried.
pub const REFETCH_ANSWER: Duration = Duration::from_secs(10);

/// Supernodes whose cards are remembered. Of thousands, these are the way back in when the bulletin's are gone; those
/// that failed most often go first.
pub const HOSTS_MAX: usize = 200;
/// Addresses kept of one supernode, of each kind: those of its card and those of the bulletin.
pub const HOST_ADDRESSES_MAX: usize = 8;
/// Cards whose signatures a phone checks per second and at once: what homes hand over at attachment, and no flood.
pub const CARDS_PER_S: u64 = 1;
/// See [`CARDS_PER_S`].
pub const CARDS_BURST: u64 = 100;

/// Supernodes probed in one round (DESIGN §4, Nearness), and addresses of each.
pub const PROBES_MAX: usize = 8;
/// See [`PROBES_MAX`].
pub const PROBE_ADDRESSES: usize = 2;
/// Who is silent for so long is asked once more.
pub const PROBE_AGAIN: Duration = Duration::from_millis(200);
/// A round of probes delays an attachment by no more than this.
pub const PROBE_DECIDE: Duration = Duration::from_millis(400);
/// Later answers do not count.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// An answer this old says nothing of who is alive: whoever wants a home asks again first.
pub const PROBE_FRESH: Duration = Duration::from_secs(20);
/// Between two rounds for want of a home.
pub const PROBE_PAUSE: Duration = Duration::from_secs(5);
/// Between two rounds of a phone that has its homes; up to a quarter more.
pub const PROBE_EVERY: Duration = Duration::from_secs(10 * 60);
/// After cards of unknown supernodes came, the next round is no further away than this; up to twice.
pub const PROBE_NEWS: Duration = Duration::from_secs(30);
/// Round trips that differ by no more than a quarter and this are the same: scheduling and queues make as much.
pub const NEAR_ALIKE: Duration = Duration::from_millis(5);
/// A home is left for another only if that one is nearer by this and by 30 %.
pub const SWITCH_GAIN: Duration = Duration::from_millis(20);

/// Redirects followed without having attached anywhere since; then the own choice counts again.
pub const REDIRECTS_MAX: u32 = 4;

/// A home is asked for a relay's card, after [`LOOKUP_SECOND_WAY`] the other; then the relay counts as unreachable.
pub const CARD_WANTED: Duration = Duration::from_secs(2);
/// A home's credential that ends so soon is asked for anew.
pub const CREDENTIAL_RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
