//! Who an account is. The **account certificate** is the login server's word that an account has a root key; the
//! **account record** is the root key's word on the account's devices. Contacts pin the root key, so a login server
//! can invent devices but not put them into an account that somebody already knows.

use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;

use crate::credential::{Credential, IssuerId, Subject, seconds};
use crate::keys::{Context, PublicKey, SigningKey};
use crate::limits::{
    ACCOUNT_CERTIFICATE_BYTES_MAX, ACCOUNT_NAME_BYTES_MAX, ACCOUNT_RECORD_BYTES_MAX, ACCOUNT_RECORD_LIFE,
    CREDENTIAL_BYTES_MAX, DEVICES_MAX, REALM_NAME_BYTES_MAX,
};
use crate::name::{Aor, RealmName};
use crate::node::NodeId;
use crate::signed::{Record, Signed};

/// A signed account certificate with its exact bytes.
pub type AccountCertificate = Signed<AccountCertificateFields>;

/// What an account certificate says. Keys: 1 version, 2 address, 3 root key, 4 not before, 5 not after, 6 issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountCertificateFields {
    /// The account.
    pub account: Aor,
    /// Its root key.
    pub root: PublicKey,
    /// Start of its life, whole seconds.
    pub not_before: UnixTime,
    /// End of its life, whole seconds.
    pub not_after: UnixTime,
    /// Which issuer key signed it. [`AccountCertificate::issue`] fills it in.
    pub issuer: IssuerId,
}

impl AccountCertificate {
    /// Signs a certificate with an issuer's key.
    ///
    /// # Errors
    /// When a field breaks its bounds.
    pub fn issue(
        issuer: &SigningKey,
        mut fields: AccountCertificateFields,
    ) -> Result<AccountCertificate, DecodeError> {
        fields.issuer = IssuerId::of(&issuer.public());
        Signed::sign(issuer, &fields)
    }
}

impl Record for AccountCertificateFields {
    const CONTEXT: Context = Context::AccountCertificate;
    const BYTES_MAX: usize = ACCOUNT_CERTIFICATE_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, 1)
            .text(2, &self.account.to_string())
            .bytes(3, &self.root.0)
            .uint(4, self.not_before.as_secs())
            .uint(5, self.not_after.as_secs())
            .bytes(6, &self.issuer.0)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<AccountCertificateFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let account = account_address(&mut map, 2)?;
        let root = PublicKey(map.array(3)?);
        let not_before = seconds(&mut map, 4)?;
        let not_after = seconds(&mut map, 5)?;
        if not_after <= not_before {
            return Err(DecodeError::OutOfBounds(5));
        }
        let issuer = IssuerId(map.array(6)?);
        map.finish()?;
        Ok(AccountCertificateFields { account, root, not_before, not_after, issuer })
    }
}

/// A signed account record with its exact bytes. Only [`crate::realm::Realm::verify_account_record`] says whether to
/// believe it.
pub type AccountRecord = Signed<AccountRecordFields>;

/// What an account record says. Keys: 1 format version, 2 certificate, 3 version, 4 issued, 5 expires, 6 devices'
/// credentials. Account and root key stand in the certificate.
///
/// The credentials of devices that were away may have run out; whether one is alive is asked of the realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecordFields {
    /// The account; the certificate's.
    pub account: Aor,
    /// The account's root key, which signs this; the certificate's.
    pub root: PublicKey,
    /// The login server's certificate of both.
    pub certificate: AccountCertificate,
    /// Grows with every change.
    pub version: u64,
    /// When it was signed, whole seconds.
    pub issued: UnixTime,
    /// End of its life, at most 30 days after `issued`.
    pub expires: UnixTime,
    /// The account's devices, at most [`DEVICES_MAX`], by ascending node id.
    pub devices: Vec<Credential>,
}

impl AccountRecord {
    /// Signs an account's record with its root key. Devices are put in order.
    ///
    /// # Errors
    /// When a field breaks its bounds, a device is another account's or there twice, or the key is not the
    /// certificate's.
    pub fn issue(
        root: &SigningKey,
        certificate: AccountCertificate,
        version: u64,
        issued: UnixTime,
        mut devices: Vec<Credential>,
    ) -> Result<AccountRecord, DecodeError> {
        if certificate.root != root.public() {
            return Err(DecodeError::OutOfBounds(2));
        }
        devices.sort_by_key(|device| device.node);
        let fields = AccountRecordFields {
            account: certificate.account.clone(),
            root: certificate.root,
            certificate,
            version,
            issued,
            expires: issued + ACCOUNT_RECORD_LIFE,
            devices,
        };
        Signed::sign(root, &fields)
    }
}

impl AccountRecordFields {
    /// The credential of the device with this node id.
    pub fn device(&self, node: NodeId) -> Option<&Credential> {
        self.devices.iter().find(|device| device.node == node)
    }

    /// Whether this device, by node id and key, is on the list. Its credential may have been renewed since.
    pub fn lists(&self, credential: &Credential) -> bool {
        self.device(credential.node).is_some_and(|listed| listed.key == credential.key)
    }
}

impl Record for AccountRecordFields {
    const CONTEXT: Context = Context::AccountRecord;
    const BYTES_MAX: usize = ACCOUNT_RECORD_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, 1)
            .bytes(2, self.certificate.bytes())
            .uint(3, self.version)
            .uint(4, self.issued.as_secs())
            .uint(5, self.expires.as_secs())
            .byte_items(6, self.devices.iter().map(Credential::bytes))
            .finish()
    }

    fn decode(body: &[u8]) -> Result<AccountRecordFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let certificate =
            AccountCertificate::decode_unverified(map.bytes(2, ACCOUNT_CERTIFICATE_BYTES_MAX)?)?;
        let version = map.uint(3)?;
        let issued = seconds(&mut map, 4)?;
        let expires = seconds(&mut map, 5)?;
        if expires <= issued || expires.since(issued) > ACCOUNT_RECORD_LIFE {
            return Err(DecodeError::OutOfBounds(5));
        }
        let mut devices: Vec<Credential> = Vec::new();
        for raw in map.items(6, DEVICES_MAX)? {
            let bytes = item_bytes(raw)?;
            if bytes.len() > CREDENTIAL_BYTES_MAX {
                return Err(DecodeError::OutOfBounds(6));
            }
            let device = Credential::decode_unverified(bytes)?;
            let ours = match &device.subject {
                Subject::Device { account, root } => {
                    *account == certificate.account.user
                        && *root == certificate.root
                        && device.realm == certificate.account.realm
                }
                Subject::Supernode { .. } => false,
            };
            let follows = devices.last().is_none_or(|last| last.node < device.node);
            if !ours || !follows || devices.iter().any(|other| other.key == device.key) {
                return Err(DecodeError::OutOfBounds(6));
            }
            devices.push(device);
        }
        map.finish()?;
        Ok(AccountRecordFields {
            account: certificate.account.clone(),
            root: certificate.root,
            certificate,
            version,
            issued,
            expires,
            devices,
        })
    }
}

/// An address of record of an account, in its one form, under `key`.
fn account_address(map: &mut MapReader<'_>, key: i64) -> Result<Aor, DecodeError> {
    Aor::exact(map.text(key, ACCOUNT_NAME_BYTES_MAX + 1 + REALM_NAME_BYTES_MAX)?)
        .ok()
        .filter(|aor| !aor.user.is_reserved())
        .ok_or(DecodeError::OutOfBounds(key))
}

/// The name of a realm, in its one form, under `key`.
pub(crate) fn realm_name(map: &mut MapReader<'_>, key: i64) -> Result<RealmName, DecodeError> {
    RealmName::exact(map.text(key, REALM_NAME_BYTES_MAX)?).map_err(|_| DecodeError::OutOfBounds(key))
}
