//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Most calls at once on a phone, in any state. A person has two or three; more incoming ones are answered busy.
pub const CALLS_MAX_PHONE: usize = 8;

/// Most calls at once on a supernode's echo. It costs a session each; more are answered busy.
pub const CALLS_MAX_ECHO: usize = 64;

/// Most devices one call forks to: an account has up to 8.
pub const LEGS_MAX: usize = 8;

/// Ended calls whose timeline is kept for `why`. The oldest goes first.
pub const REPORTS_MAX: usize = 32;

/// What came this long before a call or after it and belonged to none is told with it: a copy of its INVITE, say, that
/// somebody kept for a while.
pub const STRAY_AROUND: Duration = Duration::from_secs(10);

/// Steps in one timeline. A call of an hour with many path changes has fewer; the middle is dropped.
pub const TIMELINE_ENTRIES_MAX: usize = 256;

/// Call-IDs of contacts remembered under one contact nonce, so that a replayed INVITE does not ring; and as many of
/// strangers, apart, so that no stranger makes us forget a contact's. The oldest goes first: by then 4,096 further
/// invitations of contacts came, each of which cost one of their devices a signature.
pub const CALL_IDS_SEEN_MAX: usize = 4_096;

/// Messages kept that came before the keys that open them (a BYE by the faster way). Later ones are dropped; the
/// sender repeats.
pub const EARLY_MESSAGES_MAX: usize = 2;

/// Numbers behind the highest one within which a box is still taken: two ways reorder little.
pub const BOX_WINDOW: u64 = 64;

/// Boxed messages sent in parallel outside calls. More wait with the caller, who gets an error.
pub const MESSAGES_MAX: usize = 32;

/// Longest body of a MESSAGE, bytes: a text and what is around it.
pub const MESSAGE_BODY_BYTES_MAX: usize = 1_100;

/// Longest sealed offer or answer, bytes: 32 candidates of 80 bytes and some room.
pub const SEALED_SDP_BYTES_MAX: usize = 4_096;

/// Longest account record inside an INVITE, bytes: whatever its own room admits can call.
pub const ACCOUNT_RECORD_BYTES_MAX: usize = yodel_identity::limits::ACCOUNT_RECORD_BYTES_MAX;

/// Longest credential, bytes.
pub const CREDENTIAL_BYTES_MAX: usize = yodel_identity::limits::CREDENTIAL_BYTES_MAX;

/// A device that was reached must say that it rings within this time, or the call ends with `peer.no-alert`. A person
/// waits about that long in silence.
pub const ALERT_WITHIN: Duration = Duration::from_secs(10);

/// An INVITE that no device acknowledged within this time by any way is undelivered: the records are read anew, and
/// if they name nothing newer, the device is offline.
pub const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(3);

/// How long a phone rings when the caller says nothing else.
pub const RING_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest a callee's device rings, whatever the caller does: a lost CANCEL must not ring for ever.
pub const RING_TIMEOUT_CALLEE: Duration = Duration::from_secs(180);

/// A lookup must have answered within this time.
pub const LOOKUP_WITHIN: Duration = Duration::from_secs(5);

/// After the answer, some path must carry packets within this time, or the call ends with `path.all-failed`.
pub const PATH_WITHIN: Duration = Duration::from_secs(10);

/// A BYE, CANCEL or MESSAGE is given up after this time: both ways had several chances.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// An ended leg lingers this long to answer copies and to acknowledge late answers (RFC 3261 timer D, shortened since
/// links are reliable; a 200 that crosses our CANCEL comes within a round trip).
pub const LINGER: Duration = Duration::from_secs(10);

/// Longest Call-ID taken, bytes; ours have 32 characters.
pub const CALL_ID_BYTES_MAX: usize = 64;

/// Longest text or note in a message, bytes.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// Homes of a device that are used: two are warm (D§4).
pub const HOMES_MAX: usize = 2;

/// Longest sealed media report, bytes: fits any datagram of ours.
pub const REPORT_BYTES_MAX: usize = 1_200;

/// Envelopes sent and not yet returned that are remembered, to know which way failed. The oldest is forgotten first;
/// its request then waits for its timer.
pub const ENVELOPES_MAX: usize = 512;

/// Relay sessions of one leg: one, and one more when the first died.
pub const RELAYS_MAX: usize = 3;

/// How often joining a relay session is tried: the caller's request may take another way and come later.
pub const RELAY_JOINS_MAX: u32 = 6;

/// Pause between tries to join a relay session.
pub const RELAY_JOIN_PAUSE: Duration = Duration::from_millis(400);

/// A relay that drains is looked at after this whether the packets have left it; then its session is closed.
pub const RELAY_LEAVE: Duration = Duration::from_secs(3);

/// Who hangs up before the caller's ACK waits for it this long: four round trips of a slow network.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// After the end, a leg's plane lives this long, so that BYE and its repeats still go over the media path.
pub const PLANE_LINGER: Duration = Duration::from_millis(250);

/// A call that was answered for less than this is not judged by what was heard: both ends know after 2 s (D§8).
pub const JUDGED_AFTER: Duration = Duration::from_millis(1_500);

/// A call whose peer was silent for this long and whose device calls anew is over for it. Longer than any change of
/// paths takes; shorter than a daemon and its user take to call again.
pub const ABANDONED_AFTER: Duration = Duration::from_millis(500);

/// Calls kept in all, ended ones that linger among them. When full, the oldest ended one goes; when none has ended, an
/// incoming INVITE is not answered.
pub const CALLS_KEPT_MAX: usize = 128;

/// MESSAGEs being answered, until their transactions end. When full, a new one is not answered.
pub const ANSWERING_MAX: usize = 64;
