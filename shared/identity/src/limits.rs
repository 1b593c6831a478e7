//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Longest account name, bytes of UTF-8: RFC 5321's bound for the part before `@`, and a credential carries it.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 64;

/// Longest text that is tried as an account name before mapping, bytes. Mapping shortens at most threefold.
pub const ACCOUNT_NAME_INPUT_BYTES_MAX: usize = 192;

/// Longest realm name, bytes. A domain may have 253, but every credential carries it and stays within
/// [`CREDENTIAL_BYTES_MAX`].
pub const REALM_NAME_BYTES_MAX: usize = 96;

/// Longest credential, bytes, as signed: it is the first frame of every link and part of every INVITE.
pub const CREDENTIAL_BYTES_MAX: usize = 400;

/// Most devices of one account: what a caller is willing to fork to, and what keeps an account record in one frame.
pub const DEVICES_MAX: usize = 8;

/// Longest account certificate, bytes.
pub const ACCOUNT_CERTIFICATE_BYTES_MAX: usize = 400;

/// Longest account record, bytes: eight credentials, one account certificate and room for later fields.
pub const ACCOUNT_RECORD_BYTES_MAX: usize = 5_120;

/// Longest root statement, bytes: it travels beside an account record in one frame.
pub const STATEMENT_BYTES_MAX: usize = 2_048;

/// Most issuer keys in force: the present one, the next, and two that are being retired.
pub const ISSUERS_MAX: usize = 4;

/// Most TLS keys of the login server named at once, for the same reason.
pub const TLS_KEYS_MAX: usize = 4;

/// Most addresses of the login server.
pub const SERVERS_MAX: usize = 8;

/// Longest `host:port`, bytes: a domain of 253 and a port.
pub const HOST_PORT_BYTES_MAX: usize = 259;

/// Longest bulletin, bytes: one frame body.
pub const BULLETIN_BYTES_MAX: usize = 16_384;

/// Most supernodes that one bulletin names to start from.
pub const BULLETIN_SUPERNODES_MAX: usize = 32;

/// Most addresses per supernode and transport: IPv4 and IPv6, the own port and 80 or 443.
pub const SUPERNODE_ADDRESSES_MAX: usize = 4;

/// Most revoked entries a bulletin carries itself; the newest. A realm with fewer needs no pages.
pub const BULLETIN_REVOKED_MAX: usize = 64;

/// Most entries on one revoked page: 512 × 24 bytes stay within a frame.
pub const REVOKED_PAGE_ENTRIES_MAX: usize = 512;

/// Longest revoked page, bytes: one frame body.
pub const REVOKED_PAGE_BYTES_MAX: usize = 16_384;

/// Most pages of the revoked set: 32,768 revoked devices within ten days. A bulletin that claims more is refused.
pub const REVOKED_PAGES_MAX: usize = 64;

/// How far a clock may be off.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Age below which a bulletin is fresh. It is signed every ten minutes, so five in a row may be missed.
pub const BULLETIN_FRESH: Duration = Duration::from_secs(60 * 60);

/// How long credentials outlive their end while no fresh bulletin can be had: a login server may be gone for days.
pub const CREDENTIAL_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Life of a device's credential.
pub const DEVICE_CREDENTIAL_LIFE: Duration = Duration::from_secs(72 * 60 * 60);

/// Life of a supernode's credential.
pub const SUPERNODE_CREDENTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Age at which a device starts to renew its credential.
pub const CREDENTIAL_RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest life of an account record: a lost device list must not haunt an account for ever.
pub const ACCOUNT_RECORD_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Life of an account certificate: a record of 30 days signed on the last day of a login server's absence still ends
/// before it. Renewed with every credential.
pub const ACCOUNT_CERTIFICATE_LIFE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// How long a sealing key is kept after its successor was certified: longer than any credential that names it is
/// honoured (72 h and 7 days of grace).
pub const SEALING_KEY_KEPT: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Most addresses in an invitation: it is typed and read aloud at worst.
pub const INVITATION_SERVERS_MAX: usize = 4;

/// Longest invitation as text, bytes: everything in it at its longest, in base64.
pub const INVITATION_TEXT_BYTES_MAX: usize = 2_048;

/// Longest OPAQUE message, bytes. The longest of this suite has 320.
pub const OPAQUE_MESSAGE_BYTES_MAX: usize = 512;

/// Longest request for renewal, bytes: a credential, a key, a signature.
pub const RENEWAL_BYTES_MAX: usize = 640;
