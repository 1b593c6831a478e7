//! Credentials: what the login server signed about a device or a supernode. Small and deterministic; the key in it is
//! the key of the node's links. A device's lives 72 h, a supernode's 7 days.
//!
//! | key | field | |
//! |---|---|---|
//! | 1 | version | 1 |
//! | 2 | realm | text |
//! | 3, 4 | account, its root key | of a device |
//! | 5 | owner tag | of a supernode |
//! | 6, 7 | Ed25519 key, X25519 key | |
//! | 8 | node id | |
//! | 9 | roles | bits |
//! | 10, 11 | not before, not after | seconds since 1970 |
//! | 12 | serial | |
//! | 13 | issuer | first 8 bytes of the issuer's key |

use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::time::UnixTime;

use crate::keys::{Context, PublicKey, SealingPublic, SigningKey};
use crate::limits::{ACCOUNT_NAME_BYTES_MAX, CREDENTIAL_BYTES_MAX, REALM_NAME_BYTES_MAX};
use crate::name::{AccountName, Aor, RealmName};
use crate::node::{NodeId, OwnerTag};
use crate::signed::{Record, Signed};

/// A signed credential with its exact bytes. Only [`crate::realm::Realm::verify_credential`] says whether to believe it.
pub type Credential = Signed<CredentialFields>;

/// What a credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFields {
    /// The realm it belongs to.
    pub realm: RealmName,
    /// A device of an account, or a supernode.
    pub subject: Subject,
    /// The node's Ed25519 key: of its links and signatures.
    pub key: PublicKey,
    /// The node's X25519 key: new with each renewal.
    pub sealing: SealingPublic,
    /// The node's id.
    pub node: NodeId,
    /// What it may do.
    pub roles: Roles,
    /// Start of its life, whole seconds.
    pub not_before: UnixTime,
    /// End of its life, whole seconds.
    pub not_after: UnixTime,
    /// Counts the credentials that this node was issued, from 1.
    pub serial: u64,
    /// Which issuer key signed it. [`Credential::issue`] fills it in.
    pub issuer: IssuerId,
}

/// Whose credential it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A device of an account.
    Device {
        /// The account.
        account: AccountName,
        /// The account's root key.
        root: PublicKey,
    },
    /// A supernode.
    Supernode {
        /// Its owner, unnamed.
        owner: OwnerTag,
    },
}

/// The first 8 bytes of an issuer's key: which of the few keys to try. Says nothing by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuerId(pub [u8; 8]);

impl IssuerId {
    /// The id of an issuer's key.
    pub fn of(key: &PublicKey) -> IssuerId {
        IssuerId(key.0.first_chunk().copied().unwrap_or_default())
    }
}

/// What a node may do, as bits; unknown bits are kept and mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(pub u32);

impl Roles {
    /// A person's device.
    pub const USER: Roles = Roles(1);
    /// A supernode.
    pub const SUPERNODE: Roles = Roles(2);
    /// A device that lets ordinary SIP phones in.
    pub const GATEWAY: Roles = Roles(4);

    /// Whether all of `roles` are among these.
    pub fn has(self, roles: Roles) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// These and those.
    pub fn with(self, roles: Roles) -> Roles {
        Roles(self.0 | roles.0)
    }
}

impl Credential {
    /// Signs a credential with an issuer's key.
    ///
    /// # Errors
    /// When a field breaks its bounds: a reserved account name, dates the wrong way round, roles that do not fit the
    /// subject.
    pub fn issue(issuer: &SigningKey, mut fields: CredentialFields) -> Result<Credential, DecodeError> {
        fields.issuer = IssuerId::of(&issuer.public());
        Signed::sign(issuer, &fields)
    }
}

impl CredentialFields {
    /// The address of record, when it is a device's.
    pub fn aor(&self) -> Option<Aor> {
        self.account().map(|user| Aor { user: user.clone(), realm: self.realm.clone() })
    }

    /// The account, when it is a device's.
    pub fn account(&self) -> Option<&AccountName> {
        match &self.subject {
            Subject::Device { account, .. } => Some(account),
            Subject::Supernode { .. } => None,
        }
    }

    /// The account's root key, when it is a device's.
    pub fn root(&self) -> Option<&PublicKey> {
        match &self.subject {
            Subject::Device { root, .. } => Some(root),
            Subject::Supernode { .. } => None,
        }
    }

    /// The owner's tag, when it is a supernode's.
    pub fn owner(&self) -> Option<OwnerTag> {
        match &self.subject {
            Subject::Device { .. } => None,
            Subject::Supernode { owner } => Some(*owner),
        }
    }

    /// Whether it is a supernode's.
    pub fn is_supernode(&self) -> bool {
        self.owner().is_some()
    }
}

impl Record for CredentialFields {
    const CONTEXT: Context = Context::Credential;
    const BYTES_MAX: usize = CREDENTIAL_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .uint(1, 1)
            .text(2, self.realm.as_str())
            .bytes(6, &self.key.0)
            .bytes(7, &self.sealing.0)
            .bytes(8, &self.node.0)
            .uint(9, self.roles.0.into())
            .uint(10, self.not_before.as_secs())
            .uint(11, self.not_after.as_secs())
            .uint(12, self.serial)
            .bytes(13, &self.issuer.0);
        match &self.subject {
            Subject::Device { account, root } => map.text(3, account.as_str()).bytes(4, &root.0),
            Subject::Supernode { owner } => map.bytes(5, &owner.0),
        }
        .finish()
    }

    fn decode(body: &[u8]) -> Result<CredentialFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let realm =
            RealmName::exact(map.text(2, REALM_NAME_BYTES_MAX)?).map_err(|_| DecodeError::OutOfBounds(2))?;
        let subject = match (map.opt_text(3, ACCOUNT_NAME_BYTES_MAX)?, map.opt_array(4)?, map.opt_array(5)?) {
            (Some(account), Some(root), None) => Subject::Device {
                account: AccountName::exact(account)
                    .ok()
                    .filter(|name| !name.is_reserved())
                    .ok_or(DecodeError::OutOfBounds(3))?,
                root: PublicKey(root),
            },
            (None, None, Some(owner)) => Subject::Supernode { owner: OwnerTag(owner) },
            (None, None, None) => return Err(DecodeError::Missing(3)),
            _ => return Err(DecodeError::OutOfBounds(5)),
        };
        let key = PublicKey(map.array(6)?);
        let sealing = SealingPublic(map.array(7)?);
        let node = NodeId(map.array(8)?);
        let roles = Roles(map.uint_as(9)?);
        let supernode = matches!(subject, Subject::Supernode { .. });
        if roles.has(Roles::SUPERNODE) != supernode {
            return Err(DecodeError::OutOfBounds(9));
        }
        let not_before = seconds(&mut map, 10)?;
        let not_after = seconds(&mut map, 11)?;
        if not_after <= not_before {
            return Err(DecodeError::OutOfBounds(11));
        }
        let serial = map.uint(12)?;
        let issuer = IssuerId(map.array(13)?);
        map.finish()?;
        Ok(CredentialFields {
            realm,
            subject,
            key,
            sealing,
            node,
            roles,
            not_before,
            not_after,
            serial,
            issuer,
        })
    }
}

/// Seconds since 1970 under `key`. Beyond 2^40 (34,000 years) nothing of ours is dated, and sums cannot overflow.
pub(crate) fn seconds(map: &mut MapReader<'_>, key: i64) -> Result<UnixTime, DecodeError> {
    match map.uint(key)? {
        secs if secs < 1 << 40 => Ok(UnixTime::from_secs(secs)),
        _ => Err(DecodeError::OutOfBounds(key)),
    }
}
