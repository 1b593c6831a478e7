//! What a supernode must keep, and keep secret: its key, its credential, its sealing keys. One 0600 file, written
//! temp–fsync–rename by whoever drives the machine.
//!
//! A CBOR map: 1 version, 2 Ed25519 seed, 3 realm, 4 pin, 5 root statement, 6 credential, 7 sealing keys (32 bytes
//! secret, 32 bytes hash of the credential it stands in, 8 bytes seconds at which it was retired or 0), 8 the request
//! for renewal under way, 9 its sealing secret.

use yodel_identity::credential::Credential;
use yodel_identity::keys::{PublicKey, SealingKey, SigningKey};
use yodel_identity::limits::{
    CREDENTIAL_BYTES_MAX, REALM_NAME_BYTES_MAX, SEALING_KEY_KEPT, STATEMENT_BYTES_MAX,
};
use yodel_identity::name::RealmName;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;
use zeroize::{Zeroize, Zeroizing};

use crate::limits::SEALING_KEYS_MAX;

/// Longest request for renewal that is kept, bytes.
const REQUEST_BYTES_MAX: usize = 1_024;

/// A sealing key and the credential it stands in.
#[derive(Clone)]
pub struct KeptSealing {
    /// The key.
    pub key: SealingKey,
    /// Hash of the credential.
    pub credential: [u8; 32],
    /// When its successor was certified; the epoch while it is the present one.
    pub retired: UnixTime,
}

/// A renewal that was asked for and not answered yet.
#[derive(Clone)]
pub struct PendingRenewal {
    /// The signed request: the same bytes are sent again until they are answered.
    pub request: Vec<u8>,
    /// The key it asks to have certified.
    pub sealing: SealingKey,
}

/// See the module's text.
#[derive(Clone)]
pub struct NodeKeys {
    /// The Ed25519 key of the node and of its links.
    pub signing: SigningKey,
    /// The realm.
    pub realm: RealmName,
    /// The realm's root key.
    pub pin: PublicKey,
    /// The newest root statement.
    pub statement: Vec<u8>,
    /// The newest credential.
    pub credential: Credential,
    /// Sealing keys, the present one first.
    pub sealing: Vec<KeptSealing>,
    /// The renewal under way.
    pub pending: Option<PendingRenewal>,
}

impl NodeKeys {
    /// The file's content.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut sealing: Vec<Vec<u8>> = self
            .sealing
            .iter()
            .map(|kept| {
                let mut out = kept.key.to_bytes().to_vec();
                out.extend_from_slice(&kept.credential);
                out.extend_from_slice(&kept.retired.as_secs().to_be_bytes());
                out
            })
            .collect();
        let mut map = MapWriter::new()
            .uint(1, 1)
            .bytes(2, self.signing.seed().as_slice())
            .text(3, self.realm.as_str())
            .bytes(4, &self.pin.0)
            .bytes(5, &self.statement)
            .bytes(6, self.credential.bytes())
            .byte_items(7, &sealing);
        if let Some(pending) = &self.pending {
            map = map.bytes(8, &pending.request).bytes(9, pending.sealing.to_bytes().as_slice());
        }
        for secret in &mut sealing {
            secret.zeroize();
        }
        Zeroizing::new(map.finish())
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the file is damaged or another program's.
    pub fn decode(bytes: &[u8]) -> Result<NodeKeys, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let signing = SigningKey::from_seed(map.array(2)?);
        let realm =
            RealmName::exact(map.text(3, REALM_NAME_BYTES_MAX)?).map_err(|_| DecodeError::OutOfBounds(3))?;
        let pin = PublicKey(map.array(4)?);
        let statement = map.bytes(5, STATEMENT_BYTES_MAX)?.to_vec();
        let credential = Credential::decode_unverified(map.bytes(6, CREDENTIAL_BYTES_MAX)?)?;
        let mut sealing = Vec::new();
        for item in map.items(7, SEALING_KEYS_MAX)? {
            let item: &[u8; 72] = item_bytes(item)?.try_into().map_err(|_| DecodeError::OutOfBounds(7))?;
            let (secret, rest) = item.split_first_chunk::<32>().ok_or(DecodeError::Malformed)?;
            let (hash, retired) = rest.split_first_chunk::<32>().ok_or(DecodeError::Malformed)?;
            let retired = retired.try_into().map_err(|_| DecodeError::Malformed)?;
            sealing.push(KeptSealing {
                key: SealingKey::from_bytes(*secret),
                credential: *hash,
                retired: UnixTime::from_secs(u64::from_be_bytes(retired)),
            });
        }
        let request = map.opt_bytes(8, REQUEST_BYTES_MAX)?;
        let pending = match (request, map.opt_array(9)?) {
            (Some(request), Some(secret)) => {
                Some(PendingRenewal { request: request.to_vec(), sealing: SealingKey::from_bytes(secret) })
            }
            _ => None,
        };
        map.finish()?;
        if sealing.is_empty() || credential.key != signing.public() {
            return Err(DecodeError::OutOfBounds(7));
        }
        Ok(NodeKeys { signing, realm, pin, statement, credential, sealing, pending })
    }

    /// The sealing keys, the newest first.
    pub fn sealing_keys(&self) -> Vec<SealingKey> {
        self.sealing.iter().map(|kept| kept.key.clone()).collect()
    }

    /// A new credential for the pending sealing key came; what is old enough is wiped.
    pub fn renewed(&mut self, credential: Credential, now: UnixTime) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(present) = self.sealing.first_mut() {
            present.retired = now;
        }
        self.sealing
            .insert(0, KeptSealing { key: pending.sealing, credential: credential.hash(), retired: now });
        self.wipe_old(now);
        self.sealing.truncate(SEALING_KEYS_MAX);
        self.credential = credential;
    }

    /// Drops the sealing keys that were retired [`SEALING_KEY_KEPT`] ago; whether there were any. The first is in use.
    pub fn wipe_old(&mut self, now: UnixTime) -> bool {
        let before = self.sealing.len();
        let mut first = true;
        self.sealing.retain(|kept| std::mem::take(&mut first) || now.since(kept.retired) < SEALING_KEY_KEPT);
        self.sealing.len() != before
    }
}
