//! Every bound of this crate, with its reason and what is dropped first.

use std::time::Duration;

/// Devices attached at once by default; further ones are told where to go instead.
pub const CLIENTS_MAX: usize = 8_000;

/// Links in all, those without a first frame among them; further ones are sent elsewhere at once.
pub const LINKS_MAX: usize = 12_000;

/// Links that have not said who they are. A first frame takes one round trip, so this is room for a thousand attachments
/// a second over 250 ms; above it the oldest is sent elsewhere, or the newcomer when that one is still young.
pub const HALF_OPEN_MAX: usize = 256;

/// A link that has been silent for so long is no longer young: an honest first frame takes one round trip.
pub const HALF_OPEN_YOUNG: Duration = Duration::from_secs(1);

/// Cards of other members that a device gets when it attaches: as many as it probes at once.
pub const CARDS_AT_ATTACH: usize = 8;

/// A link whose first frame does not come for so long is closed.
pub const FIRST_FRAME: Duration = Duration::from_secs(5);

/// A device that says nothing for so long is gone: three of its idle pings.
pub const DEVICE_SILENT: Duration = Duration::from_secs(100);

/// Links one device may have here: tries over QUIC and TLS run side by side, and a phone that changed networks comes
/// back before its old link is known to be dead. The oldest is closed first.
pub const LINKS_PER_DEVICE: usize = 3;

/// Frames a device may send per second, relayed packets aside, and how many it may save up. The rest is dropped.
pub const DEVICE_FRAMES_PER_S: u64 = 100;
/// See [`DEVICE_FRAMES_PER_S`].
pub const DEVICE_FRAMES_BURST: u64 = 400;

/// Pages of the revoked set handed to a device in one go: 12,288 entries, and below what may wait on one link.
pub const PAGES_AT_ONCE: usize = 24;

/// INVITEs one device may send per second, toward anybody: nobody dials faster. A phone forks to 8 devices over two
/// ways each, twice at once.
pub const INVITES_PER_S: u64 = 2;
/// See [`INVITES_PER_S`].
pub const INVITES_BURST: u64 = 40;

/// MESSAGEs one device may send per second, toward anybody. A phone that has four contact requests to deliver tries
/// up to eight devices by two ways each, every 20 s.
pub const MESSAGES_PER_S: u64 = 5;
/// See [`MESSAGES_PER_S`].
pub const MESSAGES_BURST: u64 = 100;

/// Senders of INVITEs and MESSAGEs that are counted at once; forgotten when their buckets are full again.
pub const SENDERS_MAX: usize = 16_384;

/// When a device that was sent elsewhere may come back, at the earliest; at the latest after twice as long, so that those
/// who came together do not return together.
pub const COME_BACK: Duration = Duration::from_secs(30);

/// Draining tells the attached devices to go elsewhere within this time, one after the other, so that the others do not
/// get them all at once.
pub const DRAIN_SPREAD: Duration = Duration::from_secs(30);

/// How long relayed calls may go on while draining, when the operator says nothing; they are asked to move at once.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

/// The longest deadline for draining.
pub const DRAIN_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often draining tells some.
pub const DRAIN_STEP: Duration = Duration::from_millis(100);

/// How often a member's link is pinged while it is used: a killed member is found out long before QUIC does.
pub const MEMBER_PING: Duration = Duration::from_secs(1);

/// How often it is pinged while it is not.
pub const MEMBER_PING_IDLE: Duration = Duration::from_secs(15);

/// A link is in use so long after it was written to.
pub const MEMBER_ACTIVE: Duration = Duration::from_secs(10);

/// A link that nobody wrote to for so long is closed.
pub const MEMBER_IDLE: Duration = Duration::from_secs(120);

/// A member that does not answer a ping for so long has no link.
pub const MEMBER_SILENT: Duration = Duration::from_secs(3);

/// A member that is being dialled and has not welcomed us for so long is not there.
pub const MEMBER_DIAL: Duration = Duration::from_secs(4);

/// How long one that stops takes to hand its records over; whoever stops it waits a second longer.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long one that left stays to tell it.
pub const FAREWELL: Duration = Duration::from_millis(300);

/// When a member is dialled over TLS too, if QUIC has not brought a link, or the other way round: as phones do.
pub const SECOND_DIAL_AFTER: Duration = Duration::from_millis(300);

/// Links with one member: both may open one at the same time. The oldest is closed first.
pub const LINKS_PER_MEMBER: usize = 3;

/// Members linked with at once; what is for further ones goes back.
pub const MEMBER_LINKS_MAX: usize = 1_024;

/// Frames that wait for one link to open; further ones go back.
pub const MEMBER_WAITING_MAX: usize = 64;

/// Pause after the first try to link with members that the bulletin names and the table lacks; doubles to
/// [`JOIN_EVERY_MAX`].
pub const JOIN_EVERY: Duration = Duration::from_millis(500);
/// See [`JOIN_EVERY`].
pub const JOIN_EVERY_MAX: Duration = Duration::from_secs(10);

/// How often a newer bulletin is fetched from a member: one that only says so shall not keep us busy.
pub const BEHIND_EVERY: Duration = Duration::from_secs(2);

/// How often changed cards are stored, and how many at once.
pub const STORE_MEMBERS_EVERY: Duration = Duration::from_secs(30);
/// See [`STORE_MEMBERS_EVERY`].
pub const MEMBERS_STORED_AT_ONCE: usize = 512;

/// Pause after the first failed link to the login server, doubling to [`LOGIN_BACKOFF_MAX`], with full jitter.
pub const LOGIN_BACKOFF: Duration = Duration::from_secs(1);
/// See [`LOGIN_BACKOFF`].
pub const LOGIN_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How often the link to the login server is pinged, so that a bulletin never waits for a dead link for long.
pub const LOGIN_PING: Duration = Duration::from_secs(15);

/// A login server that does not answer for so long has no link.
pub const LOGIN_SILENT: Duration = Duration::from_secs(10);

/// Errands for devices that cannot reach the login server, at once; one more is told to come back.
pub const ERRANDS_MAX: usize = 32;
/// How long an errand may take: three frames there and back, and a login server that is busy.
pub const ERRAND: Duration = Duration::from_secs(15);
/// How often renewal is asked for when it failed.
pub const RENEW_RETRY: Duration = Duration::from_secs(600);

/// Forwarded messages whose return is still of interest; the oldest is forgotten first.
pub const FORWARDS_MAX: usize = 8_192;

/// How long the return of a forwarded message is awaited.
pub const FORWARD: Duration = Duration::from_secs(5);

/// Sealing keys kept: the present one and those of the last ten days, with room for extra renewals.
pub const SEALING_KEYS_MAX: usize = 16;
