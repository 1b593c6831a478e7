//! Every bound of this crate, with its reason.

use std::time::Duration;

/// How often a bulletin is signed when nothing happens. Fresh is under one hour, so five in a row may be missed.
pub const BULLETIN_EVERY: Duration = Duration::from_secs(600);

/// How long a supernode whose link is down, and which did not say that it leaves, stays in the bulletin. Long enough
/// for a restart of this server and for a network that comes back (devices and members notice the death of a supernode
/// within seconds by themselves); short enough that newcomers are not sent to the dead for long. A running supernode
/// keeps a link to us, so this never touches one that works.
pub const SUPERNODE_GONE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Of the supernodes that a bulletin names, at most so many are there because they wait to be named: a crowd of
/// newcomers leaves room for some that have served for long.
pub const NAMED_WAITING_MAX: usize = 24;

/// So many at least are those whose state changed last: what the realm does not know of yet.
pub const NAMED_NEWEST: usize = 16;

/// How many supernodes are looked at for one place in a bulletin, before the place stays empty. More than are named,
/// so that a realm as small as that is always named whole.
pub const PASSED_OVER_MAX: usize = 64;

/// A bulletin that tells of nothing but supernodes is handed to all who wait for one no sooner than so long times their
/// number after the last: at 10 KiB each, 10,000 supernodes that come and go would otherwise cost 500 MB/s. Below 200
/// of them that is no wait at all; who is newly named gets it at once anyway, and all get one that takes credentials
/// back.
pub const HAND_OUT: Duration = Duration::from_millis(1);

/// Epochs reserved with one write: a restart must never repeat one that was published.
pub const EPOCHS_RESERVED: u64 = 1_000;

/// How long a revoked node stays in the set after its credential's end: the grace period of credentials.
pub const REVOKED_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Life of an issuer key made by `init`. `key rotate` makes the next one.
pub const ISSUER_LIFE: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// A signer's dates start this long before now, so that a reader whose clock is behind believes them.
pub const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// Links at once. Each holds one login under way at most, about 2 KiB.
pub const LINKS_MAX: usize = 20_000;

/// A link that is not a supernode's is closed after this long without a request.
pub const LINK_IDLE: Duration = Duration::from_secs(120);

/// How often idle links and old limits are looked for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Sign-in attempts (registrations and logins) that an address may make at once; IPv6 counts by /64. An office
/// behind one address signs in all its devices in one go; guessing is bounded by account.
pub const ATTEMPTS_PER_ADDRESS: u32 = 240;

/// How soon an address gets one more attempt.
pub const ATTEMPT_PER_ADDRESS_EVERY: Duration = Duration::from_secs(1);

/// Logins to one account name, existing or not, at once: with 20 guesses and one more per minute, a password of one in
/// a million takes a year.
pub const ATTEMPTS_PER_ACCOUNT: u32 = 20;

/// How soon an account gets one more attempt.
pub const ATTEMPT_PER_ACCOUNT_EVERY: Duration = Duration::from_secs(60);

/// Addresses and names whose attempts are counted. Those longest full again are forgotten first.
pub const LIMITED_MAX: usize = 50_000;

/// Renewals of one device at once; more come every [`RENEWAL_EVERY`].
pub const RENEWALS: u32 = 5;

/// How soon a device may renew once more.
pub const RENEWAL_EVERY: Duration = Duration::from_secs(600);

/// Invitations on the books.
pub const INVITATIONS_MAX: usize = 100_000;

/// Uses of one invitation.
pub const INVITATION_USES_MAX: u64 = 1_000_000;

/// An invitation lives this long unless told otherwise.
pub const INVITATION_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Admin requests waiting for the machine.
pub const ADMIN_QUEUE_MAX: usize = 64;

/// Requests that wait for a commit of what they are about; further ones are told to come back.
pub const DEFERRED_MAX: usize = 1_024;
