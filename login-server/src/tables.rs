//! What is kept in the store, one record type per tree. Every tree is journaled: a realm must not lose an account to a
//! power cut.
//!
//! | tree | key | record |
//! |---|---|---|
//! | `accounts` | name | [`Account`] |
//! | `invitations` | first 16 bytes of the secret's hash | [`InvitationEntry`] |
//! | `supernodes` | node id | [`Supernode`] |
//! | `revoked` | node id | seconds until which it matters |
//! | `counters` | name of the counter | number |

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use yodel_identity::account::AccountRecord;
use yodel_identity::credential::Credential;
use yodel_identity::invitation::InvitationRole;
use yodel_identity::keys::PublicKey;
use yodel_identity::limits::{
    ACCOUNT_NAME_BYTES_MAX, ACCOUNT_RECORD_BYTES_MAX, CREDENTIAL_BYTES_MAX, DEVICES_MAX,
    SUPERNODE_ADDRESSES_MAX,
};
use yodel_identity::name::AccountName;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;

pub(crate) const ACCOUNTS: &str = "accounts";
pub(crate) const INVITATIONS: &str = "invitations";
pub(crate) const SUPERNODES: &str = "supernodes";
pub(crate) const REVOKED: &str = "revoked";
pub(crate) const COUNTERS: &str = "counters";

const OPAQUE_RECORD_BYTES_MAX: usize = 512;
const SEALED_ROOT_BYTES_MAX: usize = 256;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// What OPAQUE checks the password with.
    pub(crate) opaque: Vec<u8>,
    /// The account's root key.
    pub(crate) root: PublicKey,
    /// Its secret, sealed under OPAQUE's export key.
    pub(crate) sealed_root: Vec<u8>,
    /// When the account was opened.
    pub(crate) created: UnixTime,
    /// Whether it lost its right to sign in and to renew.
    pub(crate) suspended: bool,
    /// The devices, by node id.
    pub(crate) devices: BTreeMap<NodeId, Issued>,
    /// The newest account record that a device left here.
    pub(crate) record: Option<AccountRecord>,
}

impl Account {
    pub(crate) fn device_of_key(&self, key: &PublicKey) -> Option<&Issued> {
        self.devices.values().find(|device| device.credential.key == *key)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, &self.opaque)
            .bytes(2, &self.root.0)
            .bytes(3, &self.sealed_root)
            .uint(4, self.created.as_secs())
            .bool(5, self.suspended)
            .byte_items(6, self.devices.values().map(Issued::encode))
            .opt_bytes(7, self.record.as_ref().map(AccountRecord::bytes))
            .finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Account, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let opaque = map.bytes(1, OPAQUE_RECORD_BYTES_MAX)?.to_vec();
        let root = PublicKey(map.array(2)?);
        let sealed_root = map.bytes(3, SEALED_ROOT_BYTES_MAX)?.to_vec();
        let created = UnixTime::from_secs(map.uint(4)?);
        let suspended = map.opt_bool(5)?.unwrap_or(false);
        let mut devices = BTreeMap::new();
        for raw in map.items(6, DEVICES_MAX)? {
            let device = Issued::decode(item_bytes(raw)?)?;
            devices.insert(device.credential.node, device);
        }
        let record =
            map.opt_bytes(7, ACCOUNT_RECORD_BYTES_MAX)?.map(AccountRecord::decode_unverified).transpose()?;
        map.finish()?;
        Ok(Account { opaque, root, sealed_root, created, suspended, devices, record })
    }
}

/// The newest credential issued to a node, and the request it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) credential: Credential,
    /// When the node asked for it, by its own clock; 0 for the first.
    pub(crate) asked: UnixTime,
    /// SHA-256 of the request for renewal that it answered; zeros for the first.
    pub(crate) request: [u8; 32],
}

impl Issued {
    /// A node's first credential.
    pub(crate) fn first(credential: Credential) -> Issued {
        Issued { credential, asked: UnixTime::default(), request: [0; 32] }
    }

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.credential.bytes())
            .uint(2, self.asked.as_secs())
            .bytes(3, &self.request)
            .finish()
    }

    fn decode(bytes: &[u8]) -> Result<Issued, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let issued = Issued {
            credential: Credential::decode_unverified(map.bytes(1, CREDENTIAL_BYTES_MAX)?)?,
            asked: UnixTime::from_secs(map.uint(2)?),
            request: map.array(3)?,
        };
        map.finish()?;
        Ok(issued)
    }
}

/// The key of an invitation: its secret is not kept, so that who steals the store cannot open accounts.
pub(crate) fn invitation_key(secret: &[u8; 16]) -> [u8; 16] {
    let hash: [u8; 32] =
        Sha256::new().chain_update(b"yodel/invitation/v1\0").chain_update(secret).finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// An invitation that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvitationEntry {
    pub(crate) user: Option<AccountName>,
    pub(crate) role: InvitationRole,
    pub(crate) uses_left: u64,
    pub(crate) expires: UnixTime,
    pub(crate) created: UnixTime,
    /// Whose supernodes it lets in.
    pub(crate) owner: Option<OwnerTag>,
}

impl InvitationEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .uint(2, self.role as u64)
            .uint(3, self.uses_left)
            .uint(4, self.expires.as_secs())
            .uint(5, self.created.as_secs())
            .opt_bytes(6, self.owner.as_ref().map(|owner| owner.0.as_slice()));
        match &self.user {
            Some(user) => map.text(1, user.as_str()),
            None => map,
        }
        .finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<InvitationEntry, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let user = map
            .opt_text(1, ACCOUNT_NAME_BYTES_MAX)?
            .map(|name| AccountName::exact(name).map_err(|_| DecodeError::OutOfBounds(1)))
            .transpose()?;
        let entry = InvitationEntry {
            user,
            role: InvitationRole::from_u64(map.uint(2)?).ok_or(DecodeError::OutOfBounds(2))?,
            uses_left: map.uint(3)?,
            expires: UnixTime::from_secs(map.uint(4)?),
            created: UnixTime::from_secs(map.uint(5)?),
            owner: map.opt_array(6)?.map(OwnerTag),
        };
        map.finish()?;
        Ok(entry)
    }
}

/// A supernode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Supernode {
    pub(crate) issued: Issued,
    /// The invitation it came with, so that who answers no twice is not let in twice.
    pub(crate) invitation: [u8; 16],
    /// Whether it said that it serves, and not yet that it leaves.
    pub(crate) serving: bool,
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) tcp: Vec<SocketAddr>,
}

impl Supernode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, &self.issued.encode())
            .bytes(2, &self.invitation)
            .bool(3, self.serving)
            .addresses(4, &self.udp)
            .addresses(5, &self.tcp)
            .finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Supernode, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let supernode = Supernode {
            issued: Issued::decode(map.bytes(1, 2 * CREDENTIAL_BYTES_MAX)?)?,
            invitation: map.array(2)?,
            serving: map.opt_bool(3)?.unwrap_or(false),
            udp: map.addresses(4, SUPERNODE_ADDRESSES_MAX)?,
            tcp: map.addresses(5, SUPERNODE_ADDRESSES_MAX)?,
        };
        map.finish()?;
        Ok(supernode)
    }
}
