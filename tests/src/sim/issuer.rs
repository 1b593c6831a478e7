//! Who is who in a simulated realm, made with the very identity crate: what a login server would have signed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use yodel_identity::account::{AccountCertificate, AccountCertificateFields, AccountRecord};
use yodel_identity::bulletin::{Bulletin, BulletinFields, RevokedSet, SupernodeEntry, revoked_hash};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::keys::{PublicKey, SealingKey, SigningKey};
use yodel_identity::limits::{
    ACCOUNT_CERTIFICATE_LIFE, BULLETIN_SUPERNODES_MAX, DEVICE_CREDENTIAL_LIFE, SUPERNODE_CREDENTIAL_LIFE,
};
use yodel_identity::name::{AccountName, Aor, RealmName};
use yodel_identity::node::{NodeId, OwnerTag, parse_hex};
use yodel_identity::realm::{IssuerKey, Realm, RootStatement, RootStatementFields};
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_supernode::keys::{KeptSealing, NodeKeys};
use yodel_wire::time::UnixTime;

/// The realm's keys, and what was signed with them.
pub struct Issuer {
    name: RealmName,
    secret: [u8; 32],
    root: SigningKey,
    issuer: SigningKey,
    statement: RootStatement,
    supernodes: Vec<SupernodeEntry>,
    revoked: RevokedSet,
    epoch: u64,
}

/// A supernode's keys and credential.
pub struct SupernodeKeys {
    /// Its key.
    pub key: SigningKey,
    /// Its sealing key.
    pub sealing: SealingKey,
    /// What the issuer signed.
    pub credential: Credential,
}

/// An account's keys.
pub struct AccountKeys {
    /// Who.
    pub aor: Aor,
    /// The account root key.
    pub root: SigningKey,
    /// The login server's certificate of it.
    pub certificate: AccountCertificate,
    /// Its devices.
    pub devices: Vec<DeviceKeys>,
    /// The signed list of them.
    pub record: AccountRecord,
}

/// A device's keys and credential.
pub struct DeviceKeys {
    /// Its key.
    pub key: SigningKey,
    /// Its sealing key.
    pub sealing: SealingKey,
    /// What the issuer signed.
    pub credential: Credential,
}

impl Issuer {
    /// A realm whose root key signed its statement a minute before `now`.
    pub fn new(name: &str, now: UnixTime, mut seed: impl FnMut() -> [u8; 32]) -> Issuer {
        let name = RealmName::parse(name).unwrap();
        let issued = now - Duration::from_secs(60);
        let (root, issuer) = (SigningKey::from_seed(seed()), SigningKey::from_seed(seed()));
        let year = Duration::from_secs(365 * 24 * 3_600);
        let fields = RootStatementFields {
            realm: name.clone(),
            issued,
            issuers: vec![IssuerKey { key: issuer.public(), not_before: issued, not_after: issued + year }],
            tls_keys: vec![SigningKey::from_seed(seed()).public()],
            servers: vec!["20.0.0.1:4433".to_owned()],
        };
        let statement = RootStatement::issue(&root, &fields).unwrap();
        let secret = seed();
        Issuer {
            name,
            secret,
            root,
            issuer,
            statement,
            supernodes: Vec::new(),
            revoked: RevokedSet::new(),
            epoch: 0,
        }
    }

    /// The issuer of a real realm, whose login server has its files in `dir`: signs at once what a sign-in would take
    /// a second of Argon2 for.
    pub fn opened(dir: &Path) -> Issuer {
        let layout = Layout::new(dir);
        let keys = ServerKeys::load(&layout).unwrap();
        let root = std::fs::read_to_string(layout.root_key()).unwrap();
        Issuer {
            name: keys.realm,
            secret: *keys.realm_secret,
            root: SigningKey::from_seed(parse_hex(root.trim()).unwrap()),
            issuer: keys.issuer,
            statement: keys.statement,
            supernodes: Vec::new(),
            revoked: RevokedSet::new(),
            epoch: 0,
        }
    }

    /// The realm's name.
    pub fn name(&self) -> &RealmName {
        &self.name
    }

    /// The realm's root key, as invitations pin it.
    pub fn pin(&self) -> PublicKey {
        self.root.public()
    }

    /// The key of the login server's links.
    pub fn tls_key(&self) -> PublicKey {
        self.statement.tls_keys[0]
    }

    /// What a supernode's key file would hold.
    pub fn key_file(&self, keys: &SupernodeKeys) -> NodeKeys {
        let copy = SealingKey::from_bytes(*keys.sealing.to_bytes());
        let sealing =
            KeptSealing { key: copy, credential: keys.credential.hash(), retired: UnixTime::from_secs(0) };
        NodeKeys {
            signing: SigningKey::from_seed(*keys.key.seed()),
            realm: self.name.clone(),
            pin: self.pin(),
            statement: self.statement().to_vec(),
            credential: keys.credential.clone(),
            sealing: vec![sealing],
            pending: None,
        }
    }

    /// The root statement's bytes.
    pub fn statement(&self) -> &[u8] {
        self.statement.bytes()
    }

    /// The address of record of this user.
    pub fn aor(&self, user: &str) -> Aor {
        Aor { user: AccountName::parse(user).unwrap(), realm: self.name.clone() }
    }

    /// Lets a supernode in, with an owner of its own; the next bulletin names it.
    pub fn supernode(
        &mut self,
        now: UnixTime,
        udp: Vec<SocketAddr>,
        tcp: Vec<SocketAddr>,
        mut seed: impl FnMut() -> [u8; 32],
    ) -> SupernodeKeys {
        let (key, sealing) = (SigningKey::from_seed(seed()), SealingKey::from_bytes(seed()));
        let owner = OwnerTag::of_number(&self.secret, self.supernodes.len() as u64 + 1);
        let credential = self.credential(
            now,
            Subject::Supernode { owner },
            (&key, &sealing),
            NodeId::derive(&self.secret, owner, 0),
            SUPERNODE_CREDENTIAL_LIFE,
        );
        self.supernodes.push(SupernodeEntry { credential: credential.clone(), udp, tcp });
        SupernodeKeys { key, sealing, credential }
    }

    /// Opens an account with this many devices.
    pub fn account(
        &mut self,
        now: UnixTime,
        user: &str,
        devices: u32,
        mut seed: impl FnMut() -> [u8; 32],
    ) -> AccountKeys {
        let aor = self.aor(user);
        let root = SigningKey::from_seed(seed());
        let fields = AccountCertificateFields {
            account: aor.clone(),
            root: root.public(),
            not_before: now,
            not_after: now + ACCOUNT_CERTIFICATE_LIFE,
            issuer: IssuerId::default(),
        };
        let certificate = AccountCertificate::issue(&self.issuer, fields).unwrap();
        let owner = OwnerTag::of_account(&self.secret, &aor.user);
        let devices: Vec<DeviceKeys> = (0..devices)
            .map(|slot| {
                let (key, sealing) = (SigningKey::from_seed(seed()), SealingKey::from_bytes(seed()));
                let subject = Subject::Device { account: aor.user.clone(), root: root.public() };
                let node = NodeId::derive(&self.secret, owner, slot);
                let credential =
                    self.credential(now, subject, (&key, &sealing), node, DEVICE_CREDENTIAL_LIFE);
                DeviceKeys { key, sealing, credential }
            })
            .collect();
        let listed = devices.iter().map(|device| device.credential.clone()).collect();
        let record = AccountRecord::issue(&root, certificate.clone(), 1, now, listed).unwrap();
        AccountKeys { aor, root, certificate, devices, record }
    }

    fn credential(
        &self,
        now: UnixTime,
        subject: Subject,
        (key, sealing): (&SigningKey, &SealingKey),
        node: NodeId,
        life: Duration,
    ) -> Credential {
        let roles = match subject {
            Subject::Device { .. } => Roles::USER,
            Subject::Supernode { .. } => Roles::SUPERNODE,
        };
        let fields = CredentialFields {
            realm: self.name.clone(),
            subject,
            key: key.public(),
            sealing: sealing.public(),
            node,
            roles,
            not_before: now,
            not_after: now + life,
            serial: 1,
            issuer: IssuerId::default(),
        };
        Credential::issue(&self.issuer, fields).unwrap()
    }

    /// From the next bulletin on this credential is out.
    pub fn revoke(&mut self, credential: &Credential) {
        self.revoked.insert(credential.node, credential.not_after + Duration::from_secs(7 * 24 * 3_600));
    }

    /// The next bulletin. It names as many supernodes to start from as one may, those that came last.
    pub fn bulletin(&mut self, now: UnixTime) -> Bulletin {
        self.epoch += 1;
        let unnamed = self.supernodes.len().saturating_sub(BULLETIN_SUPERNODES_MAX);
        let fields = BulletinFields {
            realm: self.name.clone(),
            epoch: self.epoch,
            issued: now,
            supernodes: self.supernodes[unnamed..].to_vec(),
            oldest_version: 1,
            newest_version: 1,
            revoked_hash: revoked_hash(&self.revoked),
            revoked_pages: 0,
            revoked_newest: self.revoked.clone(),
            issuer: IssuerId::default(),
        };
        Bulletin::issue(&self.issuer, fields).unwrap()
    }

    /// A verifier that holds the statement and this bulletin.
    pub fn realm(&self, now: UnixTime, bulletin: &Bulletin) -> Realm {
        let mut realm = Realm::new(self.name.clone(), self.root.public());
        realm.accept_statement(self.statement.bytes(), now).unwrap();
        realm.accept_bulletin(bulletin.bytes(), now).unwrap();
        realm
    }
}
