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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::CredentialFields;
    use crate::keys::BadSignature;
    use crate::realm::RealmError;
    use crate::sample::*;
    use crate::signed::SignedError;

    const SIGNATURE: RealmError = RealmError::Signed(SignedError::Signature(BadSignature));

    #[test]
    fn golden_certificate_and_record() {
        let record = account_record(vec![device(1), device(0)]).unwrap();
        golden("account-certificate", certificate().bytes());
        golden("account-record", record.bytes());
        let read = realm().verify_account_record(record.bytes(), T0).unwrap();
        assert_eq!(read.fields(), record.fields());
        assert_eq!(read.account, alice());
        assert!(read.lists(&device(0)));
        assert!(!read.lists(&device(2)));
        assert_eq!(read.device(device(1).node), Some(&device(1)));
        assert!(read.devices[0].node < read.devices[1].node, "in order, whatever the order given");
    }

    #[test]
    fn every_field_stands_under_the_roots_signature() {
        let record = account_record(vec![device(0)]).unwrap();
        let fields = record.fields().clone();
        let later = AccountCertificate::issue(
            &issuer(),
            AccountCertificateFields { not_after: T0 + days(90), ..certificate_fields() },
        );
        let forgeries = [
            AccountRecordFields { certificate: later.unwrap(), ..fields.clone() },
            AccountRecordFields { version: 2, ..fields.clone() },
            AccountRecordFields { issued: T0 + secs(1), ..fields.clone() },
            AccountRecordFields { expires: fields.expires - secs(1), ..fields.clone() },
            AccountRecordFields { devices: vec![], ..fields.clone() },
            AccountRecordFields { devices: vec![device(1)], ..fields.clone() },
        ];
        for forgery in forgeries {
            let bytes = forge(&record, &forgery);
            assert_eq!(realm().verify_account_record(&bytes, T0), Err(SIGNATURE), "{forgery:?}");
        }
    }

    #[test]
    fn every_field_of_the_certificate_stands_under_the_issuers_signature() {
        let fields = certificate_fields();
        let forgeries = [
            AccountCertificateFields { account: Aor::parse("bob@example.net").unwrap(), ..fields.clone() },
            AccountCertificateFields { root: issuer().public(), ..fields.clone() },
            AccountCertificateFields { not_before: T0 - secs(1), ..fields.clone() },
            AccountCertificateFields { not_after: T0 + days(1), ..fields.clone() },
        ];
        for forgery in forgeries {
            let bytes = forge(&certificate(), &forgery);
            assert_eq!(realm().verify_account_certificate(&bytes, T0), Err(SIGNATURE), "{forgery:?}");
        }
        let disowned = AccountCertificateFields { issuer: IssuerId([0; 8]), ..fields };
        let bytes = forge(&certificate(), &disowned);
        assert_eq!(realm().verify_account_certificate(&bytes, T0), Err(RealmError::UnknownIssuer));
    }

    /// A stolen login server makes credentials and certificates as it likes, but has no account's root key.
    #[test]
    fn a_stolen_login_server_cannot_add_a_device() {
        let thief = SigningKey::from_seed([9; 32]);
        assert!(AccountRecord::issue(&thief, certificate(), 2, T0, vec![device(7)]).is_err());
        let genuine = account_record(vec![device(0)]).unwrap();
        let with_more =
            AccountRecordFields { devices: vec![device(7)], version: 2, ..genuine.fields().clone() };
        let body = with_more.encode();
        let forged = crate::signed::envelope(&body, &thief.sign(Context::AccountRecord, &body));
        assert_eq!(realm().verify_account_record(&forged, T0), Err(SIGNATURE));
    }

    #[test]
    fn devices_that_do_not_belong_there_are_refused() {
        let refused = Err(DecodeError::OutOfBounds(6));
        let list = |devices| account_record(devices).map(|_| ());
        assert_eq!(list(vec![device(0), device(0)]), refused, "twice");
        assert_eq!(list(vec![supernode(1)]), refused, "a supernode");
        assert_eq!(list((0..9).map(device).collect()), refused, "nine");
        assert_eq!(list((0..8).map(device).collect()), Ok(()));
        let other = CredentialFields {
            subject: Subject::Device { account: alice().user, root: issuer().public() },
            ..device_fields(0)
        };
        let other = Credential::issue(&issuer(), other).unwrap();
        assert_eq!(list(vec![other]), refused, "under another root key");
        let same_key = CredentialFields { key: device(0).key, ..device_fields(1) };
        let same_key = Credential::issue(&issuer(), same_key).unwrap();
        assert_eq!(list(vec![device(0), same_key]), refused, "one key under two ids");
        let uncertified = Credential::issue(&SigningKey::from_seed([9; 32]), device_fields(0)).unwrap();
        let record = account_record(vec![uncertified]).unwrap();
        assert_eq!(realm().verify_account_record(record.bytes(), T0), Err(RealmError::UnknownIssuer));
    }

    #[test]
    fn a_record_of_eight_long_names_fits() {
        let label = "b".repeat(47);
        let aor = Aor::parse(&format!("{}@{label}.{label}b", "a".repeat(64))).unwrap();
        let certificate = AccountCertificate::issue(
            &issuer(),
            AccountCertificateFields { account: aor.clone(), ..certificate_fields() },
        );
        let devices = (0..8)
            .map(|slot| {
                let subject = Subject::Device { account: aor.user.clone(), root: account_root().public() };
                let fields = CredentialFields { realm: aor.realm.clone(), subject, ..device_fields(slot) };
                Credential::issue(&issuer(), fields).unwrap()
            })
            .collect();
        let record = AccountRecord::issue(&account_root(), certificate.unwrap(), 1, T0, devices).unwrap();
        assert!(record.bytes().len() <= ACCOUNT_RECORD_BYTES_MAX);
    }

    #[test]
    fn a_record_lives_thirty_days_and_outlives_its_devices_credentials() {
        let mut realm = realm();
        let record = account_record(vec![device(0)]).unwrap();
        let tolerance = secs(5 * 60);
        let end = T0 + days(30) + tolerance;
        assert_eq!(realm.accept_bulletin(bulletin(1, T0 + days(29), &revoked(&[])).bytes(), T0), Ok(true));
        let now = T0 + days(29);
        let read = realm.verify_account_record(record.bytes(), now).unwrap();
        assert_eq!(realm.live_devices(&read, now).count(), 0, "its device did not renew");
        assert_eq!(realm.accept_bulletin(bulletin(2, end, &revoked(&[])).bytes(), end), Ok(true));
        assert!(realm.verify_account_record(record.bytes(), end).is_ok());
        let late = realm.verify_account_record(record.bytes(), end + secs(1));
        assert_eq!(late, Err(RealmError::Expired));
        let future = AccountRecord::issue(&account_root(), certificate(), 1, T0 + days(1), vec![]).unwrap();
        assert_eq!(
            crate::sample::realm().verify_account_record(future.bytes(), T0),
            Err(RealmError::NotYetValid)
        );
    }
}
