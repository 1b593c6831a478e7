//! A realm made of seeds: supernodes and phones with real credentials.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::account::{AccountCertificate, AccountCertificateFields, AccountRecord};
use yodel_identity::bulletin::{Bulletin, BulletinFields, RevokedSet, SupernodeEntry, revoked_hash};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::{Aor, RealmName};
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::{IssuerKey, Realm, RootStatement, RootStatementFields};
use yodel_overlay::record::{ContactEntry, ContactEntryFields};
use yodel_wire::time::UnixTime;

use crate::event::Identity;

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn start() -> UnixTime {
    UnixTime::from_secs(1_800_000_000)
}

pub(super) fn issuer() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

pub(super) fn name() -> RealmName {
    RealmName::parse("example.net").unwrap()
}

pub(super) fn supernode(number: u8) -> Credential {
    let fields = CredentialFields {
        realm: name(),
        subject: Subject::Supernode { owner: OwnerTag([number; 16]) },
        key: SigningKey::from_seed([0x20 | number; 32]).public(),
        sealing: SealingKey::from_bytes([0x20 | number; 32]).public(),
        node: NodeId([number; 16]),
        roles: Roles::SUPERNODE,
        not_before: start() - DAY,
        not_after: start() + 6 * DAY,
        serial: 1,
        issuer: IssuerId::default(),
    };
    Credential::issue(&issuer(), fields).unwrap()
}

pub(super) fn supernode_addr(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 5000))
}

pub(super) fn supernode_identity(number: u8) -> Identity {
    let credential = supernode(number);
    Identity {
        sealing: vec![(SealingKey::from_bytes([0x20 | number; 32]), credential.hash())],
        credential,
        signing: SigningKey::from_seed([0x20 | number; 32]),
        record: Vec::new(),
        nonce: [0; 16],
        entry: Vec::new(),
    }
}

/// The realm as everybody knows it, with supernodes 1 to `count`, and these nodes revoked.
pub(super) fn realm(count: u8, revoked: &[NodeId]) -> Realm {
    let root = SigningKey::from_seed([1; 32]);
    let mut realm = Realm::new(name(), root.public());
    let statement = RootStatement::issue(
        &root,
        &RootStatementFields {
            realm: name(),
            issued: start() - DAY,
            issuers: vec![IssuerKey {
                key: issuer().public(),
                not_before: start() - DAY,
                not_after: start() + 365 * DAY,
            }],
            tls_keys: vec![SigningKey::from_seed([3; 32]).public()],
            servers: vec!["login.example.net:443".to_owned()],
        },
    )
    .unwrap();
    realm.accept_statement(statement.bytes(), start()).unwrap();
    let revoked: RevokedSet = revoked.iter().map(|node| (*node, start() + 10 * DAY)).collect();
    let entry = |number| SupernodeEntry {
        credential: supernode(number),
        udp: vec![supernode_addr(number)],
        tcp: vec![supernode_addr(number)],
    };
    let fields = BulletinFields {
        realm: name(),
        epoch: 1,
        issued: start(),
        supernodes: (1..=count).map(entry).collect(),
        oldest_version: 1,
        newest_version: 1,
        revoked_hash: revoked_hash(&revoked),
        revoked_pages: 0,
        revoked_newest: revoked,
        issuer: IssuerId::default(),
    };
    let bulletin = Bulletin::issue(&issuer(), fields).unwrap();
    assert_eq!(realm.accept_bulletin(bulletin.bytes(), start()), Ok(true));
    realm
}

/// The keys of one device.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) aor: Aor,
    pub(super) credential: Credential,
    pub(super) number: u8,
    pub(super) nonce: [u8; 16],
    root: u8,
}

pub(super) fn account_root(root: u8) -> SigningKey {
    SigningKey::from_seed([0x80 | root; 32])
}

impl Keys {
    /// Device `number` (1 to 15) of the account with root `root`.
    pub(super) fn new(user: &str, root: u8, number: u8) -> Keys {
        let aor = Aor::parse(&format!("{user}@example.net")).unwrap();
        let fields = CredentialFields {
            realm: name(),
            subject: Subject::Device { account: aor.user.clone(), root: account_root(root).public() },
            key: Keys::signing(number).public(),
            sealing: Keys::sealing(number).public(),
            node: NodeId([0xd0 | number; 16]),
            roles: Roles::USER,
            not_before: start() - DAY,
            not_after: start() + 2 * DAY,
            serial: 1,
            issuer: IssuerId::default(),
        };
        let credential = Credential::issue(&issuer(), fields).unwrap();
        Keys { aor, credential, number, nonce: [number; 16], root }
    }

    pub(super) fn signing(number: u8) -> SigningKey {
        SigningKey::from_seed([0x40 | number; 32])
    }

    fn sealing(number: u8) -> SealingKey {
        SealingKey::from_bytes([0x60 | number; 32])
    }

    pub(super) fn node(&self) -> NodeId {
        self.credential.node
    }

    /// The account's record with these devices.
    pub(super) fn record(&self, devices: &[&Keys]) -> AccountRecord {
        let certificate = AccountCertificate::issue(
            &issuer(),
            AccountCertificateFields {
                account: self.aor.clone(),
                root: account_root(self.root).public(),
                not_before: start() - DAY,
                not_after: start() + 59 * DAY,
                issuer: IssuerId::default(),
            },
        )
        .unwrap();
        let devices = devices.iter().map(|keys| keys.credential.clone()).collect();
        AccountRecord::issue(&account_root(self.root), certificate, 1, start(), devices).unwrap()
    }

    pub(super) fn entry(&self, sequence: u64, homes: Vec<NodeId>) -> ContactEntry {
        let fields = ContactEntryFields {
            device: self.node(),
            sequence,
            issued: start(),
            expires: start() + Duration::from_secs(7_200),
            homes,
            capabilities: 1,
            nonce: self.nonce,
            credential: self.credential.hash(),
            withdrawn: false,
        };
        ContactEntry::sign(&Keys::signing(self.number), &fields).unwrap()
    }

    pub(super) fn identity(&self, record: &AccountRecord) -> Identity {
        Identity {
            credential: self.credential.clone(),
            signing: Keys::signing(self.number),
            sealing: vec![(Keys::sealing(self.number), self.credential.hash())],
            record: record.bytes().to_vec(),
            nonce: self.nonce,
            entry: Vec::new(),
        }
    }
}
