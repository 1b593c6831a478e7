//! What caller and callee sign: the offer and the answer. Bytes are checked as received; every field is compared with
//! what the checker knows itself, so that nothing in them can be exchanged for another call's.

use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};

use crate::limits::CALL_ID_BYTES_MAX;

/// The version of the handshake this program speaks.
pub const VERSION: u8 = 1;

/// X25519 with ML-KEM-768, XChaCha20-Poly1305 boxes, ChaCha20-Poly1305 media.
pub const SUITE: u8 = 1;

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203).
pub const KEM_KEY_BYTES: usize = 1_184;

/// Bytes of an ML-KEM-768 ciphertext (FIPS 203).
pub const KEM_CIPHERTEXT_BYTES: usize = 1_088;

/// One of the two who speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The account; `echo` for a supernode answering under that name.
    pub account: Aor,
    /// The account's root key; a supernode has none.
    pub root: Option<PublicKey>,
    /// The device's key.
    pub device: PublicKey,
}

/// Both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// Who sent the INVITE or MESSAGE.
    pub caller: Party,
    /// Whom it was for.
    pub callee: Party,
}

/// What an offer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A call.
    Invite = 1,
    /// A message outside a call; it has no KEM key.
    Message = 2,
}

/// The offer's signed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferStatement {
    /// What it begins.
    pub kind: Kind,
    /// Versions the caller speaks.
    pub versions: Vec<u8>,
    /// Suites the caller speaks, best first.
    pub suites: Vec<u8>,
    /// Who speaks.
    pub parties: Parties,
    /// Names the leg.
    pub call_id: String,
    /// The caller's ephemeral X25519 key.
    pub ephemeral: [u8; 32],
    /// The caller's ephemeral ML-KEM-768 key; empty in a message.
    pub kem: Vec<u8>,
    /// SHA-256 of the sealed offer.
    pub offer_hash: [u8; 32],
    /// Of the callee's contact entry; the callee takes its present one alone.
    pub nonce: [u8; 16],
}

/// The answer's signed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerStatement {
    /// The version chosen.
    pub version: u8,
    /// The suite chosen.
    pub suite: u8,
    /// SHA-256 of the offer's statement and its signature.
    pub offer_hash: [u8; 32],
    /// Who speaks.
    pub parties: Parties,
    /// Names the leg.
    pub call_id: String,
    /// The callee's ephemeral X25519 key.
    pub ephemeral: [u8; 32],
    /// The ML-KEM-768 ciphertext for the caller's key.
    pub kem: Vec<u8>,
    /// SHA-256 of the answer.
    pub answer_hash: [u8; 32],
}

/// Which field of a statement is not what the checker knows. Each has its own name, so that a test can show that each
/// is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Mismatch {
    /// A call for a message, or the reverse.
    #[error("another kind of request")]
    Kind,
    /// No version in common, or one not offered was chosen.
    #[error("no version in common")]
    Version,
    /// No suite in common, or one not offered was chosen.
    #[error("no suite in common")]
    Suite,
    /// Another realm.
    #[error("another realm")]
    Realm,
    /// Another caller's account.
    #[error("another caller")]
    CallerAccount,
    /// Another root key of the caller's account.
    #[error("another root key of the caller")]
    CallerRoot,
    /// Another device of the caller.
    #[error("another device of the caller")]
    CallerDevice,
    /// Another callee's account.
    #[error("another callee")]
    CalleeAccount,
    /// Another root key of the callee's account.
    #[error("another root key of the callee")]
    CalleeRoot,
    /// Another device of the callee.
    #[error("another device of the callee")]
    CalleeDevice,
    /// Another call.
    #[error("another call")]
    CallId,
    /// Another ephemeral key than the message's.
    #[error("another ephemeral key")]
    Ephemeral,
    /// No KEM key where there must be one, one where there must be none, or one that is none.
    #[error("another key encapsulation")]
    Kem,
    /// Another offer.
    #[error("another offer")]
    Offer,
    /// Another answer.
    #[error("another answer")]
    Answer,
    /// An earlier start of the device.
    #[error("a contact entry of an earlier start")]
    Nonce,
}

const REALM: i64 = 4;
const CALL_ID: i64 = 11;
const EPHEMERAL: i64 = 12;
const KEM: i64 = 13;
const HASH: i64 = 14;

impl OfferStatement {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .uint(1, self.kind as u64)
            .bytes(2, &self.versions)
            .bytes(3, &self.suites)
            .text(CALL_ID, &self.call_id)
            .bytes(EPHEMERAL, &self.ephemeral)
            .opt_bytes(KEM, (!self.kem.is_empty()).then_some(&self.kem))
            .bytes(HASH, &self.offer_hash)
            .bytes(15, &self.nonce);
        self.parties.write(map).finish()
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<OfferStatement, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let statement = OfferStatement {
            kind: match map.uint(1)? {
                1 => Kind::Invite,
                2 => Kind::Message,
                _ => return Err(DecodeError::OutOfBounds(1)),
            },
            versions: map.bytes(2, 16)?.to_vec(),
            suites: map.bytes(3, 16)?.to_vec(),
            parties: Parties::read(&mut map)?,
            call_id: map.text(CALL_ID, CALL_ID_BYTES_MAX)?.to_owned(),
            ephemeral: map.array(EPHEMERAL)?,
            kem: map.opt_bytes(KEM, KEM_KEY_BYTES)?.unwrap_or_default().to_vec(),
            offer_hash: map.array(HASH)?,
            nonce: map.array(15)?,
        };
        map.finish()?;
        Ok(statement)
    }

    /// Compares every field but the nonce with what the callee knows (the nonce has an answer of its own).
    ///
    /// # Errors
    /// The first field that differs.
    pub fn check(
        &self,
        kind: Kind,
        parties: &Parties,
        call_id: &str,
        ephemeral: &[u8; 32],
        offer_hash: &[u8; 32],
    ) -> Result<(), Mismatch> {
        let kem_bytes = match kind {
            Kind::Invite => KEM_KEY_BYTES,
            Kind::Message => 0,
        };
        must(self.kind == kind, Mismatch::Kind)?;
        must(self.versions.contains(&VERSION), Mismatch::Version)?;
        must(self.suites.contains(&SUITE), Mismatch::Suite)?;
        self.parties.check(parties)?;
        must(self.call_id == call_id, Mismatch::CallId)?;
        must(self.ephemeral == *ephemeral, Mismatch::Ephemeral)?;
        must(self.kem.len() == kem_bytes, Mismatch::Kem)?;
        must(self.offer_hash == *offer_hash, Mismatch::Offer)
    }
}

impl AnswerStatement {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .uint(1, u64::from(self.version))
            .uint(2, u64::from(self.suite))
            .bytes(3, &self.offer_hash)
            .text(CALL_ID, &self.call_id)
            .bytes(EPHEMERAL, &self.ephemeral)
            .bytes(KEM, &self.kem)
            .bytes(HASH, &self.answer_hash);
        self.parties.write(map).finish()
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<AnswerStatement, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let statement = AnswerStatement {
            version: map.uint_as(1)?,
            suite: map.uint_as(2)?,
            offer_hash: map.array(3)?,
            parties: Parties::read(&mut map)?,
            call_id: map.text(CALL_ID, CALL_ID_BYTES_MAX)?.to_owned(),
            ephemeral: map.array(EPHEMERAL)?,
            kem: map.bytes(KEM, KEM_CIPHERTEXT_BYTES)?.to_vec(),
            answer_hash: map.array(HASH)?,
        };
        map.finish()?;
        Ok(statement)
    }

    /// Compares every field with what the caller knows.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn check(
        &self,
        parties: &Parties,
        call_id: &str,
        offer_hash: &[u8; 32],
        answer_hash: &[u8; 32],
    ) -> Result<(), Mismatch> {
        must(self.version == VERSION, Mismatch::Version)?;
        must(self.suite == SUITE, Mismatch::Suite)?;
        must(self.offer_hash == *offer_hash, Mismatch::Offer)?;
        self.parties.check(parties)?;
        must(self.call_id == call_id, Mismatch::CallId)?;
        must(self.kem.len() == KEM_CIPHERTEXT_BYTES, Mismatch::Kem)?;
        must(self.answer_hash == *answer_hash, Mismatch::Answer)
    }
}

impl Parties {
    fn write(&self, map: MapWriter) -> MapWriter {
        let root = |party: &Party| party.root.map(|key| key.0);
        map.text(REALM, self.callee.account.realm.as_str())
            .text(5, &self.caller.account.to_string())
            .opt_bytes(6, root(&self.caller).as_ref().map(|key| &key[..]))
            .text(7, &self.callee.account.to_string())
            .opt_bytes(8, root(&self.callee).as_ref().map(|key| &key[..]))
            .bytes(9, &self.caller.device.0)
            .bytes(10, &self.callee.device.0)
    }

    fn read(map: &mut MapReader<'_>) -> Result<Parties, DecodeError> {
        let realm = map.text(REALM, 255)?;
        let mut party = |account: i64, root: i64, device: i64| -> Result<Party, DecodeError> {
            Ok(Party {
                account: Aor::exact(map.text(account, 320)?)
                    .map_err(|_| DecodeError::OutOfBounds(account))?,
                root: map.opt_array(root)?.map(PublicKey),
                device: PublicKey(map.array(device)?),
            })
        };
        let parties = Parties { caller: party(5, 6, 9)?, callee: party(7, 8, 10)? };
        // Calls between realms come later; until then the realm is one.
        let one =
            parties.caller.account.realm.as_str() == realm && parties.callee.account.realm.as_str() == realm;
        if one { Ok(parties) } else { Err(DecodeError::OutOfBounds(REALM)) }
    }

    fn check(&self, known: &Parties) -> Result<(), Mismatch> {
        must(self.callee.account.realm == known.callee.account.realm, Mismatch::Realm)?;
        must(self.caller.account == known.caller.account, Mismatch::CallerAccount)?;
        must(self.caller.root == known.caller.root, Mismatch::CallerRoot)?;
        must(self.caller.device == known.caller.device, Mismatch::CallerDevice)?;
        must(self.callee.account == known.callee.account, Mismatch::CalleeAccount)?;
        must(self.callee.root == known.callee.root, Mismatch::CalleeRoot)?;
        must(self.callee.device == known.callee.device, Mismatch::CalleeDevice)
    }
}

fn must(holds: bool, otherwise: Mismatch) -> Result<(), Mismatch> {
    if holds { Ok(()) } else { Err(otherwise) }
}
