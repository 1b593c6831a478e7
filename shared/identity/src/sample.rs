//! A realm for this crate's tests: every key from a fixed seed, every date around [`T0`].

use std::path::Path;
use std::time::Duration;

use yodel_wire::codec::DecodeError;
use yodel_wire::time::UnixTime;

use crate::account::{AccountCertificate, AccountCertificateFields, AccountRecord};
use crate::bulletin::{Bulletin, BulletinFields, RevokedSet, SupernodeEntry, revoked_hash};
use crate::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use crate::keys::{SealingKey, SigningKey};
use crate::limits::{ACCOUNT_CERTIFICATE_LIFE, DEVICE_CREDENTIAL_LIFE, SUPERNODE_CREDENTIAL_LIFE};
use crate::name::{Aor, RealmName};
use crate::node::{NodeId, OwnerTag, hex};
use crate::realm::{IssuerKey, Realm, RootStatement, RootStatementFields};
use crate::signed::{Record, Signed, envelope, open};

/// 2026-01-01T00:00:00Z.
pub(crate) const T0: UnixTime = UnixTime::from_secs(1_767_225_600);
pub(crate) const SECRET: [u8; 32] = [0x5e; 32];

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn days(days: u64) -> Duration {
    secs(days * 24 * 60 * 60)
}

pub(crate) fn root() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

pub(crate) fn issuer() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

pub(crate) fn account_root() -> SigningKey {
    SigningKey::from_seed([3; 32])
}

pub(crate) fn example_net() -> RealmName {
    RealmName::parse("example.net").unwrap()
}

pub(crate) fn alice() -> Aor {
    Aor::parse("alice@example.net").unwrap()
}

pub(crate) fn statement_fields() -> RootStatementFields {
    RootStatementFields {
        realm: example_net(),
        issued: T0,
        issuers: vec![IssuerKey { key: issuer().public(), not_before: T0, not_after: T0 + days(365) }],
        tls_keys: vec![SigningKey::from_seed([4; 32]).public()],
        servers: vec!["198.51.100.1:4433".to_owned()],
    }
}

pub(crate) fn statement() -> RootStatement {
    RootStatement::issue(&root(), &statement_fields()).unwrap()
}

/// A realm that knows its statement and no bulletin.
pub(crate) fn realm() -> Realm {
    let mut realm = Realm::new(example_net(), root().public());
    assert_eq!(realm.accept_statement(statement().bytes(), T0), Ok(true));
    realm
}

pub(crate) fn device_fields(slot: u32) -> CredentialFields {
    let seed = 0x20 + u8::try_from(slot).unwrap();
    CredentialFields {
        realm: example_net(),
        subject: Subject::Device { account: alice().user, root: account_root().public() },
        key: SigningKey::from_seed([seed; 32]).public(),
        sealing: SealingKey::from_bytes([seed; 32]).public(),
        node: NodeId::derive(&SECRET, OwnerTag::of_account(&SECRET, &alice().user), slot),
        roles: Roles::USER,
        not_before: T0,
        not_after: T0 + DEVICE_CREDENTIAL_LIFE,
        serial: 1,
        issuer: IssuerId::of(&issuer().public()),
    }
}

pub(crate) fn device(slot: u32) -> Credential {
    Credential::issue(&issuer(), device_fields(slot)).unwrap()
}

pub(crate) fn supernode_fields(number: u8) -> CredentialFields {
    let owner = OwnerTag::of_number(&SECRET, number.into());
    CredentialFields {
        subject: Subject::Supernode { owner },
        key: SigningKey::from_seed([0x40 + number; 32]).public(),
        sealing: SealingKey::from_bytes([0x40 + number; 32]).public(),
        node: NodeId::derive(&SECRET, owner, 0),
        roles: Roles::SUPERNODE,
        not_after: T0 + SUPERNODE_CREDENTIAL_LIFE,
        ..device_fields(0)
    }
}

pub(crate) fn supernode(number: u8) -> Credential {
    Credential::issue(&issuer(), supernode_fields(number)).unwrap()
}

pub(crate) fn certificate_fields() -> AccountCertificateFields {
    AccountCertificateFields {
        account: alice(),
        root: account_root().public(),
        not_before: T0,
        not_after: T0 + ACCOUNT_CERTIFICATE_LIFE,
        issuer: IssuerId::of(&issuer().public()),
    }
}

pub(crate) fn certificate() -> AccountCertificate {
    AccountCertificate::issue(&issuer(), certificate_fields()).unwrap()
}

pub(crate) fn account_record(devices: Vec<Credential>) -> Result<AccountRecord, DecodeError> {
    AccountRecord::issue(&account_root(), certificate(), 1, T0, devices)
}

pub(crate) fn bulletin_fields(epoch: u64, issued: UnixTime, revoked: &RevokedSet) -> BulletinFields {
    BulletinFields {
        realm: example_net(),
        epoch,
        issued,
        supernodes: vec![SupernodeEntry {
            credential: supernode(1),
            udp: vec!["203.0.113.1:5060".parse().unwrap(), "[2001:db8::1]:5060".parse().unwrap()],
            tcp: vec!["203.0.113.1:80".parse().unwrap()],
        }],
        oldest_version: 1,
        newest_version: 1,
        revoked_hash: revoked_hash(revoked),
        revoked_pages: 0,
        revoked_newest: revoked.clone(),
        issuer: IssuerId::of(&issuer().public()),
    }
}

pub(crate) fn bulletin(epoch: u64, issued: UnixTime, revoked: &RevokedSet) -> Bulletin {
    Bulletin::issue(&issuer(), bulletin_fields(epoch, issued, revoked)).unwrap()
}

pub(crate) fn revoked(nodes: &[NodeId]) -> RevokedSet {
    nodes.iter().map(|node| (*node, T0 + days(10))).collect()
}

/// What somebody without the key can make of a record: other fields under the old signature.
pub(crate) fn forge<T: Record>(signed: &Signed<T>, other: &T) -> Vec<u8> {
    let (body, signature) = open(signed.bytes()).unwrap();
    let forged = other.encode();
    assert_ne!(body, forged, "the field must stand under the signature");
    envelope(&forged, &signature)
}

/// Compares with `vectors/NAME.hex`, which is final. Set `YODEL_WRITE_VECTORS` to write a vector that is not there yet.
pub(crate) fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.hex"));
    if std::env::var_os("YODEL_WRITE_VECTORS").is_some() && !path.exists() {
        std::fs::write(&path, hex(bytes) + "\n").unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(hex(bytes), expected.trim(), "{name}");
}
