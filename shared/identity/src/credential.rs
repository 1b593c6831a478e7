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
///
/// # Errors
/// `Missing`, `Malformed`, `OutOfBounds`.
pub fn seconds(map: &mut MapReader<'_>, key: i64) -> Result<UnixTime, DecodeError> {
    match map.uint(key)? {
        secs if secs < 1 << 40 => Ok(UnixTime::from_secs(secs)),
        _ => Err(DecodeError::OutOfBounds(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::BadSignature;
    use crate::realm::CredentialError;
    use crate::sample::*;
    use crate::signed::SignedError;

    #[test]
    fn golden_device_and_supernode() {
        golden("credential-device", device(0).bytes());
        golden("credential-supernode", supernode(1).bytes());
        assert_eq!(Credential::decode_unverified(device(0).bytes()).unwrap().fields(), &device_fields(0));
        assert_eq!(
            Credential::decode_unverified(supernode(1).bytes()).unwrap().fields(),
            &supernode_fields(1)
        );
    }

    #[test]
    fn the_longest_credential_stays_within_its_bound() {
        let label = "a".repeat(47);
        let fields = CredentialFields {
            realm: RealmName::parse(&format!("{label}.{label}a")).unwrap(),
            subject: Subject::Device {
                account: AccountName::parse(&"a".repeat(ACCOUNT_NAME_BYTES_MAX)).unwrap(),
                root: account_root().public(),
            },
            serial: u64::from(u32::MAX),
            roles: Roles(0xffff & !Roles::SUPERNODE.0),
            ..device_fields(0)
        };
        assert_eq!(fields.realm.as_str().len(), REALM_NAME_BYTES_MAX);
        let credential = Credential::issue(&issuer(), fields).unwrap();
        assert!(credential.bytes().len() <= CREDENTIAL_BYTES_MAX, "{}", credential.bytes().len());
    }

    /// One forgery per field: each is another credential under the old signature.
    #[test]
    fn every_field_stands_under_the_signature() {
        let fields = device_fields(0);
        let with_subject = |account: &str, root| CredentialFields {
            subject: Subject::Device { account: AccountName::parse(account).unwrap(), root },
            ..fields.clone()
        };
        let forgeries = [
            with_subject("mallory", account_root().public()),
            with_subject("alice", issuer().public()),
            CredentialFields { key: issuer().public(), ..fields.clone() },
            CredentialFields { sealing: SealingPublic([9; 32]), ..fields.clone() },
            CredentialFields { node: NodeId([0; 16]), ..fields.clone() },
            CredentialFields { roles: Roles::USER.with(Roles::GATEWAY), ..fields.clone() },
            CredentialFields { not_before: T0 - secs(1), ..fields.clone() },
            CredentialFields { not_after: fields.not_after + days(365), ..fields.clone() },
            CredentialFields { serial: 2, ..fields.clone() },
            CredentialFields {
                subject: supernode_fields(1).subject,
                roles: Roles::SUPERNODE,
                ..fields.clone()
            },
        ];
        let signature = CredentialError::Signed(SignedError::Signature(BadSignature));
        for forgery in forgeries {
            let bytes = forge(&device(0), &forgery);
            assert_eq!(realm().verify_credential(&bytes, T0), Err(signature), "{forgery:?}");
        }
        let owner = CredentialFields {
            subject: Subject::Supernode { owner: OwnerTag([0; 16]) },
            ..supernode_fields(1)
        };
        assert_eq!(realm().verify_credential(&forge(&supernode(1), &owner), T0), Err(signature));

        // Realm and issuer are looked at before the signature, and stand under it too.
        let moved = CredentialFields { realm: RealmName::parse("example.org").unwrap(), ..fields.clone() };
        let moved = forge(&device(0), &moved);
        assert_eq!(realm().verify_credential(&moved, T0), Err(CredentialError::WrongRealm));
        assert!(Credential::verify(&moved, &issuer().public()).is_err());
        let disowned = CredentialFields { issuer: IssuerId([0; 8]), ..fields };
        let disowned = forge(&device(0), &disowned);
        assert_eq!(realm().verify_credential(&disowned, T0), Err(CredentialError::UnknownIssuer));
        assert!(Credential::verify(&disowned, &issuer().public()).is_err());
    }

    #[test]
    fn no_bit_can_be_turned() {
        let good = device(0);
        for bit in 0..good.bytes().len() * 8 {
            let mut bytes = good.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(realm().verify_credential(&bytes, T0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_no_issuer_signs() {
        let issue = |fields| Credential::issue(&issuer(), fields).map(|_| ());
        let fields = device_fields(0);
        let echo = Subject::Device { account: AccountName::parse("echo").unwrap(), root: issuer().public() };
        let reserved = CredentialFields { subject: echo, ..fields.clone() };
        assert_eq!(issue(reserved), Err(DecodeError::OutOfBounds(3)));
        let dates = CredentialFields { not_after: fields.not_before, ..fields.clone() };
        assert_eq!(issue(dates), Err(DecodeError::OutOfBounds(11)));
        let roles = CredentialFields { roles: Roles::SUPERNODE, ..fields };
        assert_eq!(issue(roles), Err(DecodeError::OutOfBounds(9)));
        let roles = CredentialFields { roles: Roles::USER, ..supernode_fields(1) };
        assert_eq!(issue(roles), Err(DecodeError::OutOfBounds(9)));
    }

    #[test]
    fn later_fields_are_skipped_and_critical_ones_refused() {
        let body = device_fields(0).encode();
        let with = |key: u8| {
            let mut body = body.clone();
            body[0] += 1;
            // 24..55 and -24..-1 take two bytes and one.
            body.extend_from_slice(if key == 0 { &[0x18, 99, 1] } else { &[0x20, 1] });
            CredentialFields::decode(&body)
        };
        assert_eq!(with(0).as_ref(), Ok(&device_fields(0)));
        assert_eq!(with(1), Err(DecodeError::MustUnderstand(-1)));
    }
}
