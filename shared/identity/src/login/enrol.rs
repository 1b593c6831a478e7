//! A device comes into being: registration of an account with its first device, sign-in of a further one, and what
//! the login server hands to both.

use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::FrameKind;
use yodel_wire::limits::FRAME_BODY_BYTES_MAX;

use super::{Body, blob, credential_blob, opt_blob};
use crate::keys::{BadSignature, Context, PublicKey, SealingPublic, SigningKey};
use crate::limits::{
    ACCOUNT_CERTIFICATE_BYTES_MAX, ACCOUNT_NAME_BYTES_MAX, ACCOUNT_RECORD_BYTES_MAX, BULLETIN_BYTES_MAX,
    OPAQUE_MESSAGE_BYTES_MAX, STATEMENT_BYTES_MAX,
};
use crate::name::{AccountName, Aor};
use crate::opaque::SEALED_ROOT_BYTES;

/// Opens an account. Keys: 1 invitation's secret, 2 account, 3 OPAQUE registration request.
#[derive(Clone, PartialEq, Eq)]
pub struct RegisterStart {
    /// The invitation's secret.
    pub secret: [u8; 16],
    /// The account to open.
    pub user: AccountName,
    /// From [`crate::opaque::Registering::start`].
    pub opaque: Vec<u8>,
}

impl Body for RegisterStart {
    const KIND: FrameKind = FrameKind::RegisterStart;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.secret).text(2, self.user.as_str()).bytes(3, &self.opaque).finish()
    }

    fn decode(body: &[u8]) -> Result<RegisterStart, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let secret = map.array(1)?;
        let user = user(&mut map, 2)?;
        let opaque = blob(&mut map, 3, OPAQUE_MESSAGE_BYTES_MAX)?;
        map.finish()?;
        Ok(RegisterStart { secret, user, opaque })
    }
}

/// The server's answer. Key: 1 OPAQUE registration response.
#[derive(Clone, PartialEq, Eq)]
pub struct RegisterResponse {
    /// From [`crate::opaque::OpaqueServer::register`].
    pub opaque: Vec<u8>,
}

impl Body for RegisterResponse {
    const KIND: FrameKind = FrameKind::RegisterResponse;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.opaque).finish()
    }

    fn decode(body: &[u8]) -> Result<RegisterResponse, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let opaque = blob(&mut map, 1, OPAQUE_MESSAGE_BYTES_MAX)?;
        map.finish()?;
        Ok(RegisterResponse { opaque })
    }
}

/// Ends a registration. The device's own key is the link's. Keys: 1 OPAQUE upload, 2 account root key, 3 sealed root
/// key, 4 device's sealing key, 5 proof.
#[derive(Clone, PartialEq, Eq)]
pub struct RegisterFinish {
    /// From [`crate::opaque::Registering::finish`].
    pub opaque: Vec<u8>,
    /// The account's root key.
    pub root: PublicKey,
    /// Its secret, from [`crate::opaque::ExportKey::seal_root`].
    pub sealed_root: Vec<u8>,
    /// The device's X25519 key.
    pub sealing: SealingPublic,
    /// The root key's signature over [`possession_message`].
    pub proof: [u8; 64],
}

impl RegisterFinish {
    /// Makes the proof that the device holds the account's root key.
    pub fn prove(root: &SigningKey, aor: &Aor, device: &PublicKey, sealing: &SealingPublic) -> [u8; 64] {
        root.sign(Context::AccountRootPossession, &possession_message(aor, device, sealing))
    }

    /// Checks the proof, for the device whose key the link proved.
    ///
    /// # Errors
    /// When it is not one.
    pub fn check_proof(&self, aor: &Aor, device: &PublicKey) -> Result<(), BadSignature> {
        let message = possession_message(aor, device, &self.sealing);
        self.root.verify(Context::AccountRootPossession, &message, &self.proof)
    }
}

/// What an account's root key signs to prove possession. Keys: 1 address of record, 2 device key, 3 sealing key.
pub fn possession_message(aor: &Aor, device: &PublicKey, sealing: &SealingPublic) -> Vec<u8> {
    MapWriter::new().text(1, &aor.to_string()).bytes(2, &device.0).bytes(3, &sealing.0).finish()
}

impl Body for RegisterFinish {
    const KIND: FrameKind = FrameKind::RegisterFinish;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, &self.opaque)
            .bytes(2, &self.root.0)
            .bytes(3, &self.sealed_root)
            .bytes(4, &self.sealing.0)
            .bytes(5, &self.proof)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<RegisterFinish, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let opaque = blob(&mut map, 1, OPAQUE_MESSAGE_BYTES_MAX)?;
        let root = PublicKey(map.array(2)?);
        let sealed_root = blob(&mut map, 3, SEALED_ROOT_BYTES)?;
        let sealing = SealingPublic(map.array(4)?);
        let proof = map.array(5)?;
        map.finish()?;
        Ok(RegisterFinish { opaque, root, sealed_root, sealing, proof })
    }
}

/// Signs a further device in. Keys: 1 account, 2 OPAQUE KE1.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginStart {
    /// The account.
    pub user: AccountName,
    /// From [`crate::opaque::SigningIn::start`].
    pub opaque: Vec<u8>,
}

impl Body for LoginStart {
    const KIND: FrameKind = FrameKind::LoginStart;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().text(1, self.user.as_str()).bytes(2, &self.opaque).finish()
    }

    fn decode(body: &[u8]) -> Result<LoginStart, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let user = user(&mut map, 1)?;
        let opaque = blob(&mut map, 2, OPAQUE_MESSAGE_BYTES_MAX)?;
        map.finish()?;
        Ok(LoginStart { user, opaque })
    }
}

/// The server's answer. Key: 1 OPAQUE KE2.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginResponse {
    /// From [`crate::opaque::OpaqueServer::login`].
    pub opaque: Vec<u8>,
}

impl Body for LoginResponse {
    const KIND: FrameKind = FrameKind::LoginResponse;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.opaque).finish()
    }

    fn decode(body: &[u8]) -> Result<LoginResponse, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let opaque = blob(&mut map, 1, OPAQUE_MESSAGE_BYTES_MAX)?;
        map.finish()?;
        Ok(LoginResponse { opaque })
    }
}

/// Ends a sign-in. The device's own key is the link's. Keys: 1 OPAQUE KE3, 2 device's sealing key.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginFinish {
    /// From [`crate::opaque::SigningIn::finish`].
    pub opaque: Vec<u8>,
    /// The device's X25519 key.
    pub sealing: SealingPublic,
}

impl Body for LoginFinish {
    const KIND: FrameKind = FrameKind::LoginFinish;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.opaque).bytes(2, &self.sealing.0).finish()
    }

    fn decode(body: &[u8]) -> Result<LoginFinish, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let opaque = blob(&mut map, 1, OPAQUE_MESSAGE_BYTES_MAX)?;
        let sealing = SealingPublic(map.array(2)?);
        map.finish()?;
        Ok(LoginFinish { opaque, sealing })
    }
}

/// What a device gets: at registration, at sign-in and at each renewal. All parts are signed and judged by
/// [`crate::realm::Realm`]. Keys: 1 credential, 2 account certificate, 3 statement, 4 bulletin, 5 sealed root key,
/// 6 account record.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The device's credential.
    pub credential: Vec<u8>,
    /// The login server's certificate of the account's root key.
    pub certificate: Vec<u8>,
    /// The root statement.
    pub statement: Vec<u8>,
    /// The newest bulletin. Encoding leaves it out when the frame would get too long; `BulletinWanted` brings it.
    pub bulletin: Option<Vec<u8>>,
    /// The account's root key under the password's export key: only for a device that just proved the password.
    pub sealed_root: Option<Vec<u8>>,
    /// The newest account record, to which the device adds itself.
    pub account_record: Option<Vec<u8>>,
}

impl Body for Enrolled {
    const KIND: FrameKind = FrameKind::Enrolled;

    fn encode(&self) -> Vec<u8> {
        let map = |bulletin: Option<&[u8]>| {
            MapWriter::new()
                .bytes(1, &self.credential)
                .bytes(2, &self.certificate)
                .bytes(3, &self.statement)
                .opt_bytes(4, bulletin)
                .opt_bytes(5, self.sealed_root.as_deref())
                .opt_bytes(6, self.account_record.as_deref())
                .finish()
        };
        let whole = map(self.bulletin.as_deref());
        if whole.len() <= FRAME_BODY_BYTES_MAX { whole } else { map(None) }
    }

    fn decode(body: &[u8]) -> Result<Enrolled, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let credential = credential_blob(&mut map, 1)?;
        let certificate = blob(&mut map, 2, ACCOUNT_CERTIFICATE_BYTES_MAX)?;
        let statement = blob(&mut map, 3, STATEMENT_BYTES_MAX)?;
        let bulletin = opt_blob(&mut map, 4, BULLETIN_BYTES_MAX)?;
        let sealed_root = opt_blob(&mut map, 5, SEALED_ROOT_BYTES)?;
        let account_record = opt_blob(&mut map, 6, ACCOUNT_RECORD_BYTES_MAX)?;
        map.finish()?;
        Ok(Enrolled { credential, certificate, statement, bulletin, sealed_root, account_record })
    }
}

/// A device hands in the account record it signed. Key: 1 record.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRecordOffer {
    /// The record's exact bytes.
    pub record: Vec<u8>,
}

impl Body for AccountRecordOffer {
    const KIND: FrameKind = FrameKind::AccountRecord;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.record).finish()
    }

    fn decode(body: &[u8]) -> Result<AccountRecordOffer, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let record = blob(&mut map, 1, ACCOUNT_RECORD_BYTES_MAX)?;
        map.finish()?;
        Ok(AccountRecordOffer { record })
    }
}

/// The record is kept. Key: 1 its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRecordKept {
    /// The record's version.
    pub version: u64,
}

impl Body for AccountRecordKept {
    const KIND: FrameKind = FrameKind::AccountRecordKept;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().uint(1, self.version).finish()
    }

    fn decode(body: &[u8]) -> Result<AccountRecordKept, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let version = map.uint(1)?;
        map.finish()?;
        Ok(AccountRecordKept { version })
    }
}

fn user(map: &mut MapReader<'_>, key: i64) -> Result<AccountName, DecodeError> {
    AccountName::exact(map.text(key, ACCOUNT_NAME_BYTES_MAX)?).map_err(|_| DecodeError::OutOfBounds(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::*;

    fn start() -> RegisterStart {
        RegisterStart { secret: [9; 16], user: alice().user, opaque: vec![7; 32] }
    }

    fn finish() -> RegisterFinish {
        let sealing = SealingPublic([6; 32]);
        let proof = RegisterFinish::prove(&account_root(), &alice(), &device(0).key, &sealing);
        RegisterFinish {
            opaque: vec![7; 192],
            root: account_root().public(),
            sealed_root: vec![8; SEALED_ROOT_BYTES],
            sealing,
            proof,
        }
    }

    fn enrolled() -> Enrolled {
        Enrolled {
            credential: device(0).bytes().to_vec(),
            certificate: certificate().bytes().to_vec(),
            statement: statement().bytes().to_vec(),
            bulletin: Some(bulletin(1, T0, &revoked(&[])).bytes().to_vec()),
            sealed_root: Some(vec![8; SEALED_ROOT_BYTES]),
            account_record: Some(account_record(vec![device(0)]).unwrap().bytes().to_vec()),
        }
    }

    fn round_trip<B: Body + PartialEq + std::fmt::Debug>(name: &str, body: &B) {
        golden(&format!("frame-{name}"), &body.encode());
        let frame = body.frame();
        assert_eq!(frame.kind, B::KIND);
        assert_eq!(B::decode(&frame.body).as_ref(), Ok(body), "{name}");
        for cut in 0..frame.body.len() {
            assert!(B::decode(&frame.body[..cut]).is_err(), "{name} cut at {cut}");
        }
    }

    #[test]
    fn golden_bodies() {
        round_trip("register-start", &start());
        round_trip("register-response", &RegisterResponse { opaque: vec![7; 64] });
        round_trip("register-finish", &finish());
        round_trip("login-start", &LoginStart { user: alice().user, opaque: vec![7; 96] });
        round_trip("login-response", &LoginResponse { opaque: vec![7; 320] });
        round_trip("login-finish", &LoginFinish { opaque: vec![7; 64], sealing: SealingPublic([6; 32]) });
        round_trip("enrolled", &enrolled());
        round_trip("account-record", &AccountRecordOffer { record: vec![1; 40] });
        round_trip("account-record-kept", &AccountRecordKept { version: 3 });
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let bare = Enrolled { bulletin: None, sealed_root: None, account_record: None, ..enrolled() };
        assert!(Enrolled::decode(&bare.encode()).unwrap() == bare);
    }

    #[test]
    fn a_bulletin_too_large_for_the_frame_is_left_out() {
        let crowded = Enrolled { bulletin: Some(vec![0; BULLETIN_BYTES_MAX]), ..enrolled() };
        let body = crowded.encode();
        assert!(body.len() <= FRAME_BODY_BYTES_MAX);
        assert!(Enrolled::decode(&body).unwrap() == Enrolled { bulletin: None, ..enrolled() });
    }

    /// One forgery per field under the root key's proof.
    #[test]
    fn the_proof_is_for_one_account_device_and_sealing_key() {
        let finish = finish();
        let device_key = device(0).key;
        assert_eq!(finish.check_proof(&alice(), &device_key), Ok(()));
        let bob = Aor::parse("bob@example.net").unwrap();
        let other_realm = Aor::parse("alice@example.org").unwrap();
        assert_eq!(finish.check_proof(&bob, &device_key), Err(BadSignature));
        assert_eq!(finish.check_proof(&other_realm, &device_key), Err(BadSignature));
        assert_eq!(finish.check_proof(&alice(), &device(1).key), Err(BadSignature));
        let other = RegisterFinish { sealing: SealingPublic([5; 32]), ..finish.clone() };
        assert_eq!(other.check_proof(&alice(), &device_key), Err(BadSignature));
        let other = RegisterFinish { root: issuer().public(), ..finish };
        assert_eq!(other.check_proof(&alice(), &device_key), Err(BadSignature));
    }

    #[test]
    fn names_come_in_their_one_form_and_messages_within_bounds() {
        let body = |user: &str, length| {
            MapWriter::new().bytes(1, &[9; 16]).text(2, user).bytes(3, &vec![7; length]).finish()
        };
        assert!(RegisterStart::decode(&body("alice", OPAQUE_MESSAGE_BYTES_MAX)).is_ok());
        assert_eq!(RegisterStart::decode(&body("Alice", 32)).err(), Some(DecodeError::OutOfBounds(2)));
        let long = RegisterStart::decode(&body("alice", OPAQUE_MESSAGE_BYTES_MAX + 1));
        assert_eq!(long.err(), Some(DecodeError::OutOfBounds(3)));
    }
}
