//! A realm for this crate's tests.

use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use yodel_identity::account::{AccountCertificate, AccountCertificateFields, AccountRecord};
use yodel_identity::bulletin::{Bulletin, BulletinFields, RevokedSet, revoked_hash};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::{Aor, RealmName};
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::{IssuerKey, Realm, RootStatement, RootStatementFields};
use yodel_wire::time::UnixTime;

use crate::card::{Card, Service};
use crate::record::{ContactEntry, ContactEntryFields};

const DAY: Duration = Duration::from_secs(86_400);

/// A realm with a fresh bulletin.
pub(crate) struct RealmFixture {
    pub(crate) realm: Realm,
    pub(crate) now: UnixTime,
    issuer: SigningKey,
    revoked: RevokedSet,
}

/// A supernode.
pub(crate) struct MemberFixture {
    pub(crate) credential: Credential,
    pub(crate) key: SigningKey,
    pub(crate) sealing: SealingKey,
    pub(crate) addr: SocketAddr,
}

impl MemberFixture {
    pub(crate) fn card(&self, incarnation: u64, service: Service) -> Card {
        let (udp, tcp) = (vec![self.addr], vec![self.addr]);
        Card::sign(&self.key, self.credential.clone(), incarnation, service, udp, tcp).unwrap()
    }
}

/// A device, alone in its account.
pub(crate) struct DeviceFixture {
    pub(crate) credential: Credential,
    pub(crate) account: AccountRecord,
    key: SigningKey,
    root: SigningKey,
}

impl RealmFixture {
    pub(crate) fn new() -> RealmFixture {
        let now = UnixTime::from_secs(1_800_000_000);
        let root = SigningKey::from_seed([1; 32]);
        let issuer = SigningKey::from_seed([2; 32]);
        let name = RealmName::parse("example.net").unwrap();
        let mut realm = Realm::new(name.clone(), root.public());
        let statement = RootStatement::issue(
            &root,
            &RootStatementFields {
                realm: name,
                issued: now - DAY,
                issuers: vec![IssuerKey {
                    key: issuer.public(),
                    not_before: now - DAY,
                    not_after: now + 365 * DAY,
                }],
                tls_keys: vec![SigningKey::from_seed([3; 32]).public()],
                servers: vec!["login.example.net:443".to_owned()],
            },
        )
        .unwrap();
        realm.accept_statement(statement.bytes(), now).unwrap();
        let mut fixture = RealmFixture { realm, now, issuer, revoked: RevokedSet::new() };
        fixture.bulletin();
        fixture
    }

    fn bulletin(&mut self) {
        let fields = BulletinFields {
            realm: self.realm.name().clone(),
            epoch: self.realm.epoch() + 1,
            issued: self.now,
            supernodes: vec![],
            oldest_version: 1,
            newest_version: 1,
            revoked_hash: revoked_hash(&self.revoked),
            revoked_pages: 0,
            revoked_newest: self.revoked.clone(),
            issuer: IssuerId::default(),
        };
        let bulletin = Bulletin::issue(&self.issuer, fields).unwrap();
        assert_eq!(self.realm.accept_bulletin(bulletin.bytes(), self.now), Ok(true));
    }

    pub(crate) fn revoke(&mut self, node: NodeId) {
        self.revoked.insert(node, self.now + 10 * DAY);
        self.bulletin();
    }

    /// The same with its next credential and sealing key.
    pub(crate) fn renewed(&self, member: &MemberFixture) -> MemberFixture {
        let sealing = SealingKey::from_bytes(Sha256::digest(*member.sealing.to_bytes()).into());
        let mut fields = member.credential.fields().clone();
        (fields.serial, fields.sealing) = (fields.serial + 1, sealing.public());
        let credential = Credential::issue(&self.issuer, fields).unwrap();
        let key = SigningKey::from_seed(*member.key.seed());
        MemberFixture { credential, key, sealing, addr: member.addr }
    }

    /// A supernode with an owner and a /24 of its own.
    pub(crate) fn member(&self, number: u16) -> MemberFixture {
        let [high, low] = number.to_be_bytes();
        let mut seed = [0x20; 32];
        [seed[0], seed[1]] = [high, low];
        let (key, sealing) = (SigningKey::from_seed(seed), SealingKey::from_bytes(seed));
        let mut id: [u8; 32] = Sha256::digest(seed).into();
        id[15] = low;
        let fields = CredentialFields {
            realm: self.realm.name().clone(),
            subject: Subject::Supernode { owner: OwnerTag(*id.last_chunk().unwrap()) },
            key: key.public(),
            sealing: sealing.public(),
            node: NodeId(*id.first_chunk().unwrap()),
            roles: Roles::SUPERNODE,
            not_before: self.now - DAY,
            not_after: self.now + 6 * DAY,
            serial: 1,
            issuer: IssuerId::default(),
        };
        let credential = Credential::issue(&self.issuer, fields).unwrap();
        let addr = SocketAddr::from(([20, high, low, 1], 4433));
        MemberFixture { credential, key, sealing, addr }
    }

    pub(crate) fn device(&self, user: &str, number: u8) -> DeviceFixture {
        self.device_beside(user, number, 0)
    }

    /// A device in an account with so many others.
    pub(crate) fn device_beside(&self, user: &str, number: u8, others: u8) -> DeviceFixture {
        let aor = Aor::parse(&format!("{user}@example.net")).unwrap();
        let key = SigningKey::from_seed([0x40 | number; 32]);
        let root = SigningKey::from_seed([0x80 | number; 32]);
        let fields = CredentialFields {
            realm: aor.realm.clone(),
            subject: Subject::Device { account: aor.user.clone(), root: root.public() },
            key: key.public(),
            sealing: SealingKey::from_bytes([number; 32]).public(),
            node: NodeId([0xd0 | number; 16]),
            roles: Roles::USER,
            not_before: self.now - DAY,
            not_after: self.now + 2 * DAY,
            serial: 1,
            issuer: IssuerId::default(),
        };
        let other = |other: u8| {
            let key = SigningKey::from_seed([0xa0 | other; 32]).public();
            let fields = CredentialFields { node: NodeId([0xa0 | other; 16]), key, ..fields.clone() };
            Credential::issue(&self.issuer, fields).unwrap()
        };
        let mut devices: Vec<Credential> = (0..others).map(other).collect();
        let credential = Credential::issue(&self.issuer, fields).unwrap();
        devices.push(credential.clone());
        let certificate = AccountCertificate::issue(
            &self.issuer,
            AccountCertificateFields {
                account: aor,
                root: root.public(),
                not_before: self.now - DAY,
                not_after: self.now + 59 * DAY,
                issuer: IssuerId::default(),
            },
        )
        .unwrap();
        let account = AccountRecord::issue(&root, certificate, 1, self.now, devices).unwrap();
        DeviceFixture { credential, account, key, root }
    }
}

impl DeviceFixture {
    pub(crate) fn key(&self) -> [u8; 16] {
        self.account.account.key()
    }

    pub(crate) fn entry(&self, sequence: u64, issued: UnixTime) -> ContactEntry {
        self.sign(sequence, issued, false)
    }

    pub(crate) fn withdrawal(&self, sequence: u64, issued: UnixTime) -> ContactEntry {
        self.sign(sequence, issued, true)
    }

    fn sign(&self, sequence: u64, issued: UnixTime, withdrawn: bool) -> ContactEntry {
        let fields = ContactEntryFields {
            device: self.credential.node,
            sequence,
            issued,
            expires: issued + crate::limits::CONTACT_ENTRY_LIFE,
            homes: if withdrawn { vec![] } else { vec![NodeId([1; 16]), NodeId([2; 16])] },
            capabilities: 1,
            nonce: [7; 16],
            credential: self.credential.hash(),
            withdrawn,
        };
        ContactEntry::sign(&self.key, &fields).unwrap()
    }

    pub(crate) fn account_without_devices(&self, version: u64, now: UnixTime) -> AccountRecord {
        AccountRecord::issue(&self.root, self.account.certificate.clone(), version, now, vec![]).unwrap()
    }
}
