//! Who this device is, on disk: one file, `device.keys`, readable by its owner alone and replaced whole. Sign-in makes
//! it, a renewal replaces it. Contacts, history, sequence numbers and the host cache are in the store.
//!
//! | key | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 2 | address of record |
//! | 3 | the realm's root key: the pin |
//! | 4 | addresses of the login server, as the invitation named them |
//! | 5 | root statement |
//! | 6 | bulletin, as it was at sign-in |
//! | 7, 8 | device's key, account's root key: secrets |
//! | 9 | sealing keys: maps of 1 secret, 2 hash of its credential, 3 when its successor came |
//! | 10, 11 | credential, account record |
//! | 12 | request for the next credential and the secret in it, while it is not answered |

use std::path::{Path, PathBuf};

use yodel_identity::account::AccountRecord;
use yodel_identity::credential::Credential;
use yodel_identity::keys::{PublicKey, SealingKey, SigningKey};
use yodel_identity::limits::{
    ACCOUNT_RECORD_BYTES_MAX, BULLETIN_BYTES_MAX, CREDENTIAL_BYTES_MAX, HOST_PORT_BYTES_MAX,
    SEALING_KEY_KEPT, SERVERS_MAX, STATEMENT_BYTES_MAX,
};
use yodel_identity::name::Aor;
use yodel_identity::realm::{Realm, RealmError};
use yodel_store::StoreError;
use yodel_store::file::{create_private_dir, read_file, write_file};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;
use zeroize::Zeroizing;

use crate::command::{KeptKeys, KeysChange};
use crate::node::Installation;
use crate::renew::PENDING_BYTES_MAX;

/// Most sealing keys that are kept: a renewal a day for ten days, and one to spare for each.
const SEALING_KEYS_MAX: usize = 20;

const ADDRESS_BYTES_MAX: usize = 256;

/// What sign-in left.
pub struct Keys {
    /// Whose device this is.
    pub aor: Aor,
    /// The realm's root key.
    pub pin: PublicKey,
    /// Where the login server answers, `host:port` each.
    pub servers: Vec<String>,
    /// The root statement.
    pub statement: Vec<u8>,
    /// The bulletin at sign-in, to start from until there is a newer one in the store.
    pub bulletin: Option<Vec<u8>>,
    /// The device's key, proved by every TLS handshake.
    pub device: SigningKey,
    /// The account's root key; signs the record when a credential is renewed.
    pub root: SigningKey,
    /// Sealing keys, newest first.
    pub sealing: Vec<KeptSealing>,
    /// The newest credential.
    pub credential: Credential,
    /// The newest account record.
    pub record: AccountRecord,
    /// A request for the next credential that is not answered yet, as [`crate::renew`] wrote it.
    pub pending: Option<Zeroizing<Vec<u8>>>,
}

/// A sealing key with the credential it stands in.
pub struct KeptSealing {
    /// The key.
    pub key: SealingKey,
    /// Hash of the credential.
    pub credential: [u8; 32],
    /// When its successor came; none for the newest.
    pub replaced: Option<UnixTime>,
}

impl KeptSealing {
    /// When it has to be wiped: nobody seals for it any more, and who steals it later must read nothing old.
    pub fn ends(&self) -> Option<UnixTime> {
        self.replaced.map(|at| at + SEALING_KEY_KEPT)
    }

    /// Whether it may still be held.
    pub fn is_kept(&self, now: UnixTime) -> bool {
        self.ends().is_none_or(|ends| now < ends)
    }
}

impl Clone for KeptSealing {
    fn clone(&self) -> KeptSealing {
        let key = SealingKey::from_bytes(*self.key.to_bytes());
        KeptSealing { key, credential: self.credential, replaced: self.replaced }
    }
}

/// Why the keys cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] StoreError),
    /// The file is not what it should be.
    #[error("{} is malformed: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: DecodeError,
    },
    /// The statement in it is not the realm's.
    #[error("the realm's root statement is not believed: {0}")]
    Statement(#[from] RealmError),
}

impl Keys {
    /// The file below an installation's data folder.
    pub fn path(data: &Path) -> PathBuf {
        data.join("device.keys")
    }

    /// Whether it is certain that nobody signed in here yet.
    pub fn are_absent(data: &Path) -> bool {
        matches!(Keys::path(data).try_exists(), Ok(false))
    }

    /// Reads the keys; `None` when nobody signed in here yet.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn load(data: &Path) -> Result<Option<Keys>, KeysError> {
        let path = Keys::path(data);
        let Some(bytes) = read_file(&path)?.map(Zeroizing::new) else { return Ok(None) };
        Keys::decode(&bytes).map(Some).map_err(|why| KeysError::Malformed { path, why })
    }

    /// Writes the keys in the place of those that are there.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stand then.
    pub fn save(&self, data: &Path) -> Result<(), KeysError> {
        create_private_dir(data)?;
        Ok(write_file(&Keys::path(data), &self.encode())?)
    }

    /// The realm's verifier with the statement and bulletin in the file.
    ///
    /// # Errors
    /// When the statement is not believed.
    pub fn realm(&self, now: UnixTime) -> Result<Realm, KeysError> {
        let mut realm = Realm::new(self.aor.realm.clone(), self.pin);
        realm.accept_statement(&self.statement, now)?;
        if let Some(bulletin) = &self.bulletin {
            // One that no longer verifies is as good as none.
            let _ = realm.accept_bulletin(bulletin, now);
        }
        Ok(realm)
    }

    /// What the phone's root machine starts with.
    ///
    /// # Errors
    /// When the statement is not believed.
    pub fn installation(&self, now: UnixTime) -> Result<Installation, KeysError> {
        Ok(Installation {
            realm: self.realm(now)?,
            aor: self.aor.clone(),
            device: SigningKey::from_seed(*self.device.seed()),
            root: SigningKey::from_seed(*self.root.seed()),
            sealing: self.sealing.clone(),
            credential: self.credential.clone(),
            record: self.record.clone(),
            renewal: self.pending.clone(),
        })
    }

    /// Takes in what the phone changed.
    pub fn change(&mut self, now: UnixTime, change: KeysChange) {
        match change {
            KeysChange::Renewed(kept) => self.renewed(now, *kept),
            KeysChange::Pending(pending) => self.pending = (!pending.is_empty()).then_some(pending),
            KeysChange::Wipe => {}
        }
        self.wipe_old(now);
    }

    /// Drops the sealing keys whose successor came [`SEALING_KEY_KEPT`] ago; whether there were any.
    pub fn wipe_old(&mut self, now: UnixTime) -> bool {
        let before = self.sealing.len();
        self.sealing.retain(|kept| kept.is_kept(now));
        self.sealing.len() != before
    }

    /// The next credential with its sealing key and the record that lists it: the answer to what was pending.
    fn renewed(&mut self, now: UnixTime, kept: KeptKeys) {
        for kept in &mut self.sealing {
            kept.replaced.get_or_insert(now);
        }
        let newest = KeptSealing { key: kept.sealing, credential: kept.credential.hash(), replaced: None };
        self.sealing.insert(0, newest);
        self.sealing.truncate(SEALING_KEYS_MAX);
        self.credential = kept.credential;
        self.record = kept.record;
        self.pending = None;
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let sealing: Vec<Vec<u8>> = self
            .sealing
            .iter()
            .map(|kept| {
                let map = MapWriter::new().bytes(1, &*kept.key.to_bytes()).bytes(2, &kept.credential);
                match kept.replaced {
                    Some(at) => map.uint(3, at.as_secs()),
                    None => map,
                }
                .finish()
            })
            .collect();
        let map = MapWriter::new()
            .uint(1, 1)
            .text(2, &self.aor.to_string())
            .bytes(3, &self.pin.0)
            .byte_items(4, self.servers.iter().map(String::as_bytes))
            .bytes(5, &self.statement)
            .opt_bytes(6, self.bulletin.as_deref())
            .bytes(7, &*self.device.seed())
            .bytes(8, &*self.root.seed())
            .raw_items(9, &sealing)
            .bytes(10, self.credential.bytes())
            .bytes(11, self.record.bytes())
            .opt_bytes(12, self.pending.as_ref().map(|pending| pending.as_slice()));
        Zeroizing::new(map.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Keys, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let aor = Aor::exact(map.text(2, ADDRESS_BYTES_MAX)?).map_err(|_| DecodeError::OutOfBounds(2))?;
        let pin = PublicKey(map.array(3)?);
        let mut servers = Vec::new();
        for raw in map.items(4, SERVERS_MAX)? {
            let server = item_bytes(raw)?;
            let text = std::str::from_utf8(server).ok().filter(|text| text.len() <= HOST_PORT_BYTES_MAX);
            servers.push(text.ok_or(DecodeError::OutOfBounds(4))?.to_owned());
        }
        let statement = map.bytes(5, STATEMENT_BYTES_MAX)?.to_vec();
        let bulletin = map.opt_bytes(6, BULLETIN_BYTES_MAX)?.map(<[u8]>::to_vec);
        let device = SigningKey::from_seed(map.array(7)?);
        let root = SigningKey::from_seed(map.array(8)?);
        let mut sealing = Vec::new();
        for raw in map.items(9, SEALING_KEYS_MAX)? {
            let mut kept = MapReader::parse(raw)?;
            sealing.push(KeptSealing {
                key: SealingKey::from_bytes(kept.array(1)?),
                credential: kept.array(2)?,
                replaced: kept.opt_uint(3)?.map(UnixTime::from_secs),
            });
            kept.finish()?;
        }
        let credential = Credential::decode_unverified(map.bytes(10, CREDENTIAL_BYTES_MAX)?)?;
        let record = AccountRecord::decode_unverified(map.bytes(11, ACCOUNT_RECORD_BYTES_MAX)?)?;
        let pending = map.opt_bytes(12, PENDING_BYTES_MAX)?.map(|bytes| Zeroizing::new(bytes.to_vec()));
        map.finish()?;
        if credential.key != device.public() || record.root != root.public() {
            return Err(DecodeError::OutOfBounds(7));
        }
        Ok(Keys {
            aor,
            pin,
            servers,
            statement,
            bulletin,
            device,
            root,
            sealing,
            credential,
            record,
            pending,
        })
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("node", &self.credential.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use yodel_identity::account::{AccountCertificate, AccountCertificateFields};
    use yodel_identity::credential::{CredentialFields, IssuerId, Roles, Subject};
    use yodel_identity::node::NodeId;

    use super::*;

    const T0: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn key(number: u8) -> SigningKey {
        SigningKey::from_seed([number; 32])
    }

    fn sealing(number: u8) -> SealingKey {
        SealingKey::from_bytes([number; 32])
    }

    fn credential(number: u8) -> Credential {
        let aor = Aor::parse("alice@example.net").unwrap();
        let fields = CredentialFields {
            realm: aor.realm.clone(),
            subject: Subject::Device { account: aor.user, root: key(4).public() },
            key: key(3).public(),
            sealing: sealing(number).public(),
            node: NodeId([3; 16]),
            roles: Roles::USER,
            not_before: T0,
            not_after: T0 + 3 * DAY,
            serial: u64::from(number),
            issuer: IssuerId::default(),
        };
        Credential::issue(&key(2), fields).unwrap()
    }

    fn record() -> AccountRecord {
        let fields = AccountCertificateFields {
            account: Aor::parse("alice@example.net").unwrap(),
            root: key(4).public(),
            not_before: T0,
            not_after: T0 + 60 * DAY,
            issuer: IssuerId::default(),
        };
        let certificate = AccountCertificate::issue(&key(2), fields).unwrap();
        AccountRecord::issue(&key(4), certificate, 1, T0, vec![credential(1)]).unwrap()
    }

    fn keys() -> Keys {
        let credential = credential(1);
        Keys {
            aor: Aor::parse("alice@example.net").unwrap(),
            pin: key(1).public(),
            servers: vec!["login.example.net:4433".to_owned()],
            statement: vec![1],
            bulletin: None,
            device: key(3),
            root: key(4),
            sealing: vec![KeptSealing { key: sealing(1), credential: credential.hash(), replaced: None }],
            credential,
            record: record(),
            pending: None,
        }
    }

    fn renewed(number: u8) -> KeysChange {
        let kept = KeptKeys { credential: credential(number), record: record(), sealing: sealing(number) };
        KeysChange::Renewed(Box::new(kept))
    }

    fn held(keys: &Keys) -> Vec<[u8; 32]> {
        keys.sealing.iter().map(|kept| *kept.key.to_bytes()).collect()
    }

    #[test]
    fn a_sealing_key_is_wiped_ten_days_after_its_successor_came() {
        let mut keys = keys();
        keys.change(T0, renewed(2));
        assert_eq!(held(&keys), [[2; 32], [1; 32]]);
        let last = T0 + SEALING_KEY_KEPT - Duration::from_secs(1);
        assert!(!keys.wipe_old(last) && held(&keys).len() == 2);
        assert!(keys.wipe_old(T0 + SEALING_KEY_KEPT), "nothing had to be renewed for it");
        assert_eq!(held(&keys), [[2; 32]], "the newest has no end");
        assert!(!keys.wipe_old(T0 + 400 * DAY));
    }

    #[test]
    fn a_pending_request_stands_among_the_keys_until_it_is_answered() {
        let mut keys = keys();
        keys.change(T0, KeysChange::Pending(Zeroizing::new(vec![7, 8])));
        let read = Keys::decode(&keys.encode()).unwrap();
        assert_eq!(read.pending.as_deref(), Some(&vec![7, 8]));
        keys.change(T0, renewed(2));
        assert_eq!(Keys::decode(&keys.encode()).unwrap().pending, None);
    }
}
