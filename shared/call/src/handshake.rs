//! The handshake of a leg, from INVITE (or MESSAGE) to the call's own keys. `docs/handshake.md` writes it down for who
//! wants to speak it; the vectors in `handshake/tests.rs` fix the bytes.
//!
//! ```text
//!   caller (device key A, ephemeral a, KEM pair k)            callee (device key B, sealing key S)
//!
//!   INVITE: a, id of S, {offer}offer, {credential, record, statement A}caller  ───────▶
//!              leg keys = HKDF(a × S)                         leg keys = HKDF(a × S)
//!   ◀─────────────────────────── 180, finals: boxes, phase 0 ──────────────────────────
//!   ◀── 200: {statement B (ephemeral b, ciphertext of k), answer}, phase 0 ────────────
//!              call keys = HKDF(a × b ‖ KEM, transcript)      the same
//!   ACK, BYE, candidates: boxes, phase 1 ◀────────────────────────────────────────────▶
//! ```

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use ml_kem::kem::{Decapsulate, Encapsulate};
use ml_kem::{EncodedSizeUser, KemCore, MlKem768};
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use yodel_identity::keys::{Context, PublicKey, SealingKey, SealingPublic, Shared, SigningKey};
use yodel_media::MediaKeys;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use zeroize::Zeroizing;

use crate::boxes::{Boxes, PhaseKeys};
use crate::limits::{ACCOUNT_RECORD_BYTES_MAX, CREDENTIAL_BYTES_MAX, SEALED_SDP_BYTES_MAX};
use crate::statement::{AnswerStatement, Kind, Mismatch, OfferStatement, Parties, SUITE, VERSION};

type KemSecret = <MlKem768 as KemCore>::DecapsulationKey;
type KemPublic = <MlKem768 as KemCore>::EncapsulationKey;

const TAG_BYTES: usize = 16;
const CALLER_BYTES_MAX: usize = 8_192;

/// Why a handshake ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not the bytes of a handshake.
    #[error("malformed handshake: {0}")]
    Malformed(#[from] DecodeError),
    /// It is sealed for a key that is not, or no longer, held.
    #[error("sealed for another key")]
    OtherKey,
    /// It does not open: forged or altered.
    #[error("does not open")]
    Forged,
    /// The signature does not hold.
    #[error("wrong signature")]
    Signature,
    /// The signature holds, for something else.
    #[error("signed for {0}")]
    Mismatch(#[from] Mismatch),
}

/// What the caller says in the INVITE about itself, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerProof {
    /// Its credential, as issued.
    pub credential: Vec<u8>,
    /// Its account record, as signed.
    pub record: Vec<u8>,
}

/// Who the caller calls.
#[derive(Clone, Debug)]
pub struct Callee {
    /// The device's sealing key, from its credential.
    pub sealing: SealingPublic,
    /// SHA-256 of that credential: tells the device which of its sealing keys this is.
    pub credential_hash: [u8; 32],
    /// The nonce of its contact entry.
    pub nonce: [u8; 16],
}

/// The caller's side of a leg, until the answer.
pub struct Initiator {
    ephemeral: SealingKey,
    kem: Option<Box<KemSecret>>,
    parties: Parties,
    call_id: String,
    offer_hash: [u8; 32],
}

/// Keys of the call itself.
pub struct CallKeys {
    /// For boxes of phase 1.
    pub boxes: PhaseKeys,
    /// For the media session.
    pub media: MediaKeys,
}

impl std::fmt::Debug for CallKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallKeys(..)")
    }
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Initiator({})", self.call_id)
    }
}

impl Initiator {
    /// Begins a leg: the body of the INVITE or MESSAGE, and the boxes for what follows.
    ///
    /// # Errors
    /// `OtherKey` when the callee's sealing key contributes nothing.
    #[expect(clippy::too_many_arguments, reason = "each is signed, and none belongs to another")]
    pub fn start<R: RngCore + CryptoRng>(
        rng: &mut R,
        kind: Kind,
        key: &SigningKey,
        proof: &CallerProof,
        parties: Parties,
        callee: &Callee,
        call_id: &str,
        offer: &[u8],
    ) -> Result<(Initiator, Vec<u8>, Boxes), HandshakeError> {
        let ephemeral = SealingKey::generate(rng);
        let (kem, kem_public) = match kind {
            Kind::Invite => {
                let (secret, public) = MlKem768::generate(rng);
                (Some(Box::new(secret)), public.as_bytes().to_vec())
            }
            Kind::Message => (None, Vec::new()),
        };
        let shared = ephemeral.agree(&callee.sealing).map_err(|_| HandshakeError::OtherKey)?;
        let leg =
            LegKeys::derive(&shared, &ephemeral.public(), &callee.sealing, &parties.callee.device, call_id);
        let offer = leg.seal(b"offer", offer);
        let statement = OfferStatement {
            kind,
            versions: vec![VERSION],
            suites: vec![SUITE],
            parties: parties.clone(),
            call_id: call_id.to_owned(),
            ephemeral: ephemeral.public().0,
            kem: kem_public,
            offer_hash: sha256(&[&offer]),
            nonce: callee.nonce,
        }
        .encode();
        let signature = key.sign(offer_context(kind), &statement);
        let caller = MapWriter::new()
            .bytes(1, &proof.credential)
            .bytes(2, &proof.record)
            .bytes(3, &statement)
            .bytes(4, &signature)
            .finish();
        let body = MapWriter::new()
            .uint(1, u64::from(VERSION))
            .bytes(2, &ephemeral.public().0)
            .bytes(3, first_16(&callee.credential_hash))
            .bytes(4, &offer)
            .bytes(5, &leg.seal(b"caller", &caller))
            .finish();
        let boxes = Boxes::new(call_id, leg.boxes(true));
        let offer_hash = sha256(&[&statement, &signature]);
        Ok((Initiator { ephemeral, kem, parties, call_id: call_id.to_owned(), offer_hash }, body, boxes))
    }

    /// Takes the body of an opened 200: the answer, and the call's keys.
    ///
    /// # Errors
    /// Any; the leg is then not answered.
    pub fn finish(&self, body: &[u8]) -> Result<(Vec<u8>, CallKeys), HandshakeError> {
        let mut map = MapReader::parse(body)?;
        let statement = map.bytes(1, CALLER_BYTES_MAX)?;
        let signature = map.array::<64>(2)?;
        let answer = map.bytes(3, SEALED_SDP_BYTES_MAX)?;
        map.finish()?;
        self.parties
            .callee
            .device
            .verify(Context::CallAnswer, statement, &signature)
            .map_err(|_| HandshakeError::Signature)?;
        let signed = AnswerStatement::decode(statement)?;
        signed.check(&self.parties, &self.call_id, &self.offer_hash, &sha256(&[answer]))?;
        let secret = self.kem.as_ref().ok_or(Mismatch::Kem)?;
        let ciphertext = signed.kem.as_slice().try_into().map_err(|_| Mismatch::Kem)?;
        let kem = Zeroizing::new(secret.decapsulate(&ciphertext).map_err(|()| Mismatch::Kem)?.0);
        let shared =
            self.ephemeral.agree(&SealingPublic(signed.ephemeral)).map_err(|_| Mismatch::Ephemeral)?;
        let answer_hash = sha256(&[statement, &signature]);
        Ok((answer.to_vec(), call_keys(&shared, &*kem, &self.offer_hash, &answer_hash, true)))
    }
}

/// An INVITE or MESSAGE as it came, before it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'b> {
    ephemeral: [u8; 32],
    /// The first half of the hash of the credential it is sealed for.
    pub sealed_for: [u8; 16],
    offer: &'b [u8],
    caller: &'b [u8],
}

/// An INVITE or MESSAGE that opened. Its credential and record are yet to be verified, then [`Responder::check`]ed.
pub struct Responder {
    /// What the caller shows of itself.
    pub proof: CallerProof,
    /// What the caller signed; nothing in it counts before [`Responder::check`].
    pub statement: OfferStatement,
    /// The offer; nothing in it counts before [`Responder::check`].
    pub offer: Vec<u8>,
    ephemeral: [u8; 32],
    sealed_offer_hash: [u8; 32],
    signed: Vec<u8>,
    signature: [u8; 64],
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Responder({})", self.statement.call_id)
    }
}

impl<'b> Hello<'b> {
    /// Reads the body of an INVITE or MESSAGE.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(body: &'b [u8]) -> Result<Hello<'b>, HandshakeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != u64::from(VERSION) {
            return Err(Mismatch::Version.into());
        }
        let hello = Hello {
            ephemeral: map.array(2)?,
            sealed_for: map.array(3)?,
            offer: map.bytes(4, SEALED_SDP_BYTES_MAX + TAG_BYTES)?,
            caller: map.bytes(5, CALLER_BYTES_MAX + TAG_BYTES)?,
        };
        map.finish()?;
        Ok(hello)
    }

    /// Opens it with the sealing key of the credential it names.
    ///
    /// # Errors
    /// `OtherKey`, `Forged`, `Malformed`.
    pub fn open(
        &self,
        sealing: &SealingKey,
        device: &PublicKey,
        call_id: &str,
    ) -> Result<(Responder, Boxes), HandshakeError> {
        let ephemeral = SealingPublic(self.ephemeral);
        let shared = sealing.agree(&ephemeral).map_err(|_| HandshakeError::Forged)?;
        let leg = LegKeys::derive(&shared, &ephemeral, &sealing.public(), device, call_id);
        let caller = leg.open(b"caller", self.caller)?;
        let offer = leg.open(b"offer", self.offer)?;
        let mut map = MapReader::parse(&caller)?;
        let proof = CallerProof {
            credential: map.bytes(1, CREDENTIAL_BYTES_MAX)?.to_vec(),
            record: map.bytes(2, ACCOUNT_RECORD_BYTES_MAX)?.to_vec(),
        };
        let signed = map.bytes(3, CALLER_BYTES_MAX)?.to_vec();
        let signature = map.array(4)?;
        map.finish()?;
        let responder = Responder {
            proof,
            statement: OfferStatement::decode(&signed)?,
            offer: offer.to_vec(),
            ephemeral: self.ephemeral,
            sealed_offer_hash: sha256(&[self.offer]),
            signed,
            signature,
        };
        Ok((responder, Boxes::new(call_id, leg.boxes(false))))
    }
}

impl Responder {
    /// Checks the caller's signature and every field of its statement but the nonce. `parties.caller` must come from
    /// the verified credential.
    ///
    /// # Errors
    /// `Signature`, `Mismatch`.
    pub fn check(&self, kind: Kind, parties: &Parties, call_id: &str) -> Result<(), HandshakeError> {
        parties
            .caller
            .device
            .verify(offer_context(kind), &self.signed, &self.signature)
            .map_err(|_| HandshakeError::Signature)?;
        Ok(self.statement.check(kind, parties, call_id, &self.ephemeral, &self.sealed_offer_hash)?)
    }

    /// Answers: the body of the 200, and the call's keys.
    ///
    /// # Errors
    /// `Mismatch` when one of the caller's ephemeral keys is none.
    pub fn answer<R: RngCore + CryptoRng>(
        &self,
        rng: &mut R,
        key: &SigningKey,
        answer: &[u8],
    ) -> Result<(Vec<u8>, CallKeys), HandshakeError> {
        let ephemeral = SealingKey::generate(rng);
        let shared = ephemeral.agree(&SealingPublic(self.ephemeral)).map_err(|_| Mismatch::Ephemeral)?;
        let encoded = self.statement.kem.as_slice().try_into().map_err(|_| Mismatch::Kem)?;
        let public = KemPublic::from_bytes(&encoded);
        // FIPS 203 §7.2: a key whose coefficients are not reduced is none.
        if public.as_bytes() != encoded {
            return Err(Mismatch::Kem.into());
        }
        let (ciphertext, kem) = public.encapsulate(rng).map_err(|()| Mismatch::Kem)?;
        let kem = Zeroizing::new(kem.0);
        let offer_hash = sha256(&[&self.signed, &self.signature]);
        let statement = AnswerStatement {
            version: VERSION,
            suite: SUITE,
            offer_hash,
            parties: self.statement.parties.clone(),
            call_id: self.statement.call_id.clone(),
            ephemeral: ephemeral.public().0,
            kem: ciphertext.to_vec(),
            answer_hash: sha256(&[answer]),
        }
        .encode();
        let signature = key.sign(Context::CallAnswer, &statement);
        let body = MapWriter::new().bytes(1, &statement).bytes(2, &signature).bytes(3, answer).finish();
        let answer_hash = sha256(&[&statement, &signature]);
        Ok((body, call_keys(&shared, &*kem, &offer_hash, &answer_hash, false)))
    }
}

/// What a leg's first shared secret gives.
struct LegKeys(Hkdf<Sha256>);

impl LegKeys {
    fn derive(
        shared: &Shared,
        ephemeral: &SealingPublic,
        sealing: &SealingPublic,
        callee: &PublicKey,
        call_id: &str,
    ) -> LegKeys {
        let salt = sha256(&[b"yodel/leg/v1\0", &ephemeral.0, &sealing.0, &callee.0, call_id.as_bytes()]);
        LegKeys(Hkdf::new(Some(&salt), shared.as_bytes()))
    }

    fn boxes(&self, caller: bool) -> PhaseKeys {
        let (to_callee, to_caller) = (expand(&self.0, b"to callee"), expand(&self.0, b"to caller"));
        if caller {
            PhaseKeys { send: *to_callee, receive: *to_caller }
        } else {
            PhaseKeys { send: *to_caller, receive: *to_callee }
        }
    }

    /// Each key seals once, so the nonce is zero.
    fn seal(&self, label: &[u8], plain: &[u8]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new((&*expand(&self.0, label)).into());
        // Sealing fails only above 256 GiB, and what is empty opens nowhere.
        cipher.encrypt(&XNonce::default(), Payload { msg: plain, aad: label }).unwrap_or_default()
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HandshakeError> {
        let cipher = XChaCha20Poly1305::new((&*expand(&self.0, label)).into());
        cipher
            .decrypt(&XNonce::default(), Payload { msg: sealed, aad: label })
            .map(Zeroizing::new)
            .map_err(|_| HandshakeError::Forged)
    }
}

fn call_keys(
    shared: &Shared,
    kem: &[u8],
    offer_hash: &[u8; 32],
    answer_hash: &[u8; 32],
    caller: bool,
) -> CallKeys {
    let transcript = sha256(&[b"yodel/call/v1\0", offer_hash, answer_hash]);
    let secret = Zeroizing::new([shared.as_bytes().as_slice(), kem].concat());
    let hkdf = Hkdf::new(Some(&transcript), &secret);
    let key = |label| *expand(&hkdf, label);
    let (box_out, box_in) = (key(b"box to callee"), key(b"box to caller"));
    let (media_out, media_in) = (key(b"media to callee"), key(b"media to caller"));
    if caller {
        CallKeys {
            boxes: PhaseKeys { send: box_out, receive: box_in },
            media: MediaKeys { send: media_out, receive: media_in },
        }
    } else {
        CallKeys {
            boxes: PhaseKeys { send: box_in, receive: box_out },
            media: MediaKeys { send: media_in, receive: media_out },
        }
    }
}

fn offer_context(kind: Kind) -> Context {
    match kind {
        Kind::Invite => Context::CallOffer,
        Kind::Message => Context::DeviceMessage,
    }
}

fn expand(hkdf: &Hkdf<Sha256>, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let fits = hkdf.expand(label, &mut *key).is_ok();
    debug_assert!(fits, "32 bytes are less than HKDF's limit");
    key
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn first_16(hash: &[u8; 32]) -> &[u8] {
    hash.first_chunk::<16>().map_or(&[], |half| &half[..])
}

#[cfg(test)]
mod tests;
