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

use crate::node::Installation;

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
        let copy = |key: &SealingKey| SealingKey::from_bytes(*key.to_bytes());
        Ok(Installation {
            realm: self.realm(now)?,
            aor: self.aor.clone(),
            device: SigningKey::from_seed(*self.device.seed()),
            root: SigningKey::from_seed(*self.root.seed()),
            sealing: self.sealing.iter().map(|kept| (copy(&kept.key), kept.credential)).collect(),
            credential: self.credential.clone(),
            record: self.record.clone(),
        })
    }

    /// Takes in the next credential with its sealing key and the record that lists it. Sealing keys whose successor
    /// came more than [`SEALING_KEY_KEPT`] ago are dropped.
    pub fn renewed(
        &mut self,
        now: UnixTime,
        credential: Credential,
        sealing: SealingKey,
        record: AccountRecord,
    ) {
        for kept in &mut self.sealing {
            kept.replaced.get_or_insert(now);
        }
        self.sealing.retain(|kept| kept.replaced.is_none_or(|at| now.since(at) <= SEALING_KEY_KEPT));
        let newest = KeptSealing { key: sealing, credential: credential.hash(), replaced: None };
        self.sealing.insert(0, newest);
        self.sealing.truncate(SEALING_KEYS_MAX);
        self.credential = credential;
        self.record = record;
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
            .bytes(11, self.record.bytes());
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
        map.finish()?;
        if credential.key != device.public() || record.root != root.public() {
            return Err(DecodeError::OutOfBounds(7));
        }
        Ok(Keys { aor, pin, servers, statement, bulletin, device, root, sealing, credential, record })
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("node", &self.credential.node).finish_non_exhaustive()
    }
}
