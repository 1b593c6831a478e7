//! Vectors of the handshake: the bytes of one, and for each signed field one handshake in which only that field is
//! wrong, signed with the right key. `docs/handshake.md` names them.

use std::fmt::Write as _;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use yodel_identity::name::Aor;

use super::*;
use crate::boxes::{Opened, Sealed};
use crate::statement::Party;
use crate::timeline::Method;

const CALL_ID: &str = "000102030405060708090a0b0c0d0e0f-0";

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn alice() -> SigningKey {
    SigningKey::from_seed([0xa1; 32])
}

fn bob() -> SigningKey {
    SigningKey::from_seed([0xb0; 32])
}

fn sealing() -> SealingKey {
    SealingKey::from_bytes([0xb5; 32])
}

fn parties() -> Parties {
    let party = |name: &str, root: u8, device: &SigningKey| Party {
        account: Aor::parse(&format!("{name}@example.net")).unwrap(),
        root: Some(SigningKey::from_seed([root; 32]).public()),
        device: device.public(),
    };
    Parties { caller: party("alice", 0xaa, &alice()), callee: party("bob", 0xbb, &bob()) }
}

fn callee() -> Callee {
    Callee { sealing: sealing().public(), credential_hash: [0xcc; 32], nonce: [0x77; 16] }
}

fn proof() -> CallerProof {
    CallerProof { credential: b"credential".to_vec(), record: b"record".to_vec() }
}

fn start(kind: Kind) -> (Initiator, Vec<u8>, Boxes) {
    let (rng, key) = (&mut rng(1), alice());
    Initiator::start(rng, kind, &key, &proof(), parties(), &callee(), CALL_ID, b"offer").unwrap()
}

fn open(body: &[u8]) -> Result<(Responder, Boxes), HandshakeError> {
    Hello::parse(body)?.open(&sealing(), &bob().public(), CALL_ID)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn digest(bytes: &[u8]) -> String {
    hex(&sha256(&[bytes]))
}

#[test]
fn both_sides_come_to_the_same_keys() {
    let (initiator, invite, mut caller) = start(Kind::Invite);
    let (responder, mut callee) = open(&invite).unwrap();
    responder.check(Kind::Invite, &parties(), CALL_ID).unwrap();
    assert_eq!(responder.offer, b"offer");
    assert_eq!(responder.statement.nonce, [0x77; 16]);
    assert_eq!(responder.proof, proof());

    let ringing = callee.seal(&Sealed::answer(Method::Invite, 1, 180));
    assert!(matches!(caller.open(Method::Invite, 180, &ringing), Opened::Fresh(_)));

    let (body, theirs) = responder.answer(&mut rng(2), &bob(), b"answer").unwrap();
    let (answer, ours) = initiator.finish(&body).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(ours.media.send, theirs.media.receive);
    assert_eq!(ours.media.receive, theirs.media.send);
    assert_ne!(ours.media.send, ours.media.receive);
    caller.rekey(ours.boxes);
    callee.rekey(theirs.boxes);
    let ack = caller.seal(&Sealed::request(Method::Ack, 1));
    assert!(matches!(callee.open(Method::Ack, 0, &ack), Opened::Fresh(_)));
}

#[test]
fn golden_handshake() {
    let (initiator, invite, mut boxes) = start(Kind::Invite);
    let (responder, _) = open(&invite).unwrap();
    let ringing = boxes.seal(&Sealed::request(Method::Cancel, 1));
    let (answer, keys) = responder.answer(&mut rng(2), &bob(), b"answer").unwrap();
    let (_, ours) = initiator.finish(&answer).unwrap();
    let all = [
        ("INVITE", digest(&invite)),
        ("offer statement", digest(&responder.signed)),
        ("offer signature", hex(&responder.signature)),
        ("leg box 0 to callee", hex(&ringing)),
        ("200", digest(&answer)),
        ("media to callee", hex(&ours.media.send)),
        ("media to caller", hex(&keys.media.send)),
        ("box to callee", hex(&ours.boxes.send)),
        ("box to caller", hex(&ours.boxes.receive)),
    ];
    let text: String = all.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    assert_eq!(text, include_str!("golden.txt"), "docs/handshake.md shows the same");
    let documented = include_str!("../../../../docs/handshake.md");
    for (name, value) in &all {
        assert!(documented.contains(value.as_str()), "docs/handshake.md does not show {name}");
    }
}

#[test]
fn a_message_has_no_kem_key_and_no_answer() {
    let (initiator, body, _) = start(Kind::Message);
    let (responder, _) = open(&body).unwrap();
    responder.check(Kind::Message, &parties(), CALL_ID).unwrap();
    assert!(responder.statement.kem.is_empty());
    assert_eq!(
        responder.check(Kind::Invite, &parties(), CALL_ID),
        Err(HandshakeError::Signature),
        "another context"
    );
    assert!(responder.answer(&mut rng(2), &bob(), b"").is_err());
    drop(initiator);
}

/// An INVITE whose statement was changed and signed anew by the right key.
fn resigned(change: impl FnOnce(&mut OfferStatement)) -> Responder {
    let (_, invite, _) = start(Kind::Invite);
    let (mut responder, _) = open(&invite).unwrap();
    change(&mut responder.statement);
    responder.signed = responder.statement.encode();
    responder.signature = alice().sign(Context::CallOffer, &responder.signed);
    responder
}

type OfferChange = fn(&mut OfferStatement);

#[test]
fn one_wrong_field_of_the_offer_each() {
    let cases: [(OfferChange, Mismatch); 13] = [
        (|s| s.kind = Kind::Message, Mismatch::Kind),
        (|s| s.versions = vec![9], Mismatch::Version),
        (|s| s.suites = vec![9], Mismatch::Suite),
        (|s| s.parties.caller.account = Aor::parse("eve@example.net").unwrap(), Mismatch::CallerAccount),
        (|s| s.parties.caller.root = Some(PublicKey([1; 32])), Mismatch::CallerRoot),
        (|s| s.parties.caller.device = PublicKey([1; 32]), Mismatch::CallerDevice),
        (|s| s.parties.callee.account = Aor::parse("eve@example.net").unwrap(), Mismatch::CalleeAccount),
        (|s| s.parties.callee.root = None, Mismatch::CalleeRoot),
        (|s| s.parties.callee.device = PublicKey([1; 32]), Mismatch::CalleeDevice),
        (|s| s.call_id = "000102030405060708090a0b0c0d0e0f-1".to_owned(), Mismatch::CallId),
        (|s| s.ephemeral = [1; 32], Mismatch::Ephemeral),
        (|s| s.kem.truncate(1_183), Mismatch::Kem),
        (|s| s.offer_hash = [1; 32], Mismatch::Offer),
    ];
    for (change, mismatch) in cases {
        let responder = resigned(change);
        let result = responder.check(Kind::Invite, &parties(), CALL_ID);
        assert_eq!(result, Err(HandshakeError::Mismatch(mismatch)));
    }
    // The realm is one for both; the checker's is another.
    let mut elsewhere = parties();
    for party in [&mut elsewhere.caller, &mut elsewhere.callee] {
        party.account = Aor::parse(&format!("{}@example.org", party.account.user)).unwrap();
    }
    let result = resigned(|_| ()).check(Kind::Invite, &elsewhere, CALL_ID);
    assert_eq!(result, Err(HandshakeError::Mismatch(Mismatch::Realm)));
    // The nonce is the callee's to compare: an old one has an answer of its own.
    assert_eq!(resigned(|s| s.nonce = [1; 16]).statement.nonce, [1; 16]);
}

#[test]
fn no_field_of_the_offer_changes_without_the_key() {
    let (_, invite, _) = start(Kind::Invite);
    let (mut responder, _) = open(&invite).unwrap();
    let right = responder.signed.clone();
    // Every 7th byte keeps the test quick and touches every field; the signature covers all alike.
    for at in (0..right.len()).step_by(7) {
        responder.signed = right.clone();
        responder.signed[at] ^= 1;
        let result = responder.check(Kind::Invite, &parties(), CALL_ID);
        assert_eq!(result, Err(HandshakeError::Signature), "byte {at}");
    }
}

/// A 200 whose statement was changed and signed anew by the right key.
fn answered(change: impl FnOnce(&mut AnswerStatement), answer: &[u8]) -> Result<(), HandshakeError> {
    let (initiator, invite, _) = start(Kind::Invite);
    let (responder, _) = open(&invite).unwrap();
    let (body, _) = responder.answer(&mut rng(2), &bob(), b"answer").unwrap();
    let mut map = MapReader::parse(&body).unwrap();
    let mut statement = AnswerStatement::decode(map.bytes(1, 4_096).unwrap()).unwrap();
    change(&mut statement);
    let statement = statement.encode();
    let signature = bob().sign(Context::CallAnswer, &statement);
    let body = MapWriter::new().bytes(1, &statement).bytes(2, &signature).bytes(3, answer).finish();
    initiator.finish(&body).map(|_| ())
}

type AnswerChange = fn(&mut AnswerStatement);

#[test]
fn one_wrong_field_of_the_answer_each() {
    let cases: [(AnswerChange, Mismatch); 11] = [
        (|s| s.version = 9, Mismatch::Version),
        (|s| s.suite = 9, Mismatch::Suite),
        (|s| s.offer_hash = [1; 32], Mismatch::Offer),
        (|s| s.parties.caller.account = Aor::parse("eve@example.net").unwrap(), Mismatch::CallerAccount),
        (|s| s.parties.caller.root = None, Mismatch::CallerRoot),
        (|s| s.parties.caller.device = PublicKey([1; 32]), Mismatch::CallerDevice),
        (|s| s.parties.callee.account = Aor::parse("eve@example.net").unwrap(), Mismatch::CalleeAccount),
        (|s| s.parties.callee.root = Some(PublicKey([1; 32])), Mismatch::CalleeRoot),
        (|s| s.parties.callee.device = PublicKey([1; 32]), Mismatch::CalleeDevice),
        (|s| s.call_id.push('1'), Mismatch::CallId),
        (|s| s.kem.truncate(1_087), Mismatch::Kem),
    ];
    for (change, mismatch) in cases {
        assert_eq!(answered(change, b"answer"), Err(HandshakeError::Mismatch(mismatch)));
    }
    assert_eq!(answered(|_| (), b"answer"), Ok(()));
    assert_eq!(answered(|_| (), b"another"), Err(HandshakeError::Mismatch(Mismatch::Answer)));
    let weak: AnswerChange = |s| s.ephemeral = [0; 32];
    assert_eq!(answered(weak, b"answer"), Err(HandshakeError::Mismatch(Mismatch::Ephemeral)));
}

#[test]
fn another_ephemeral_or_ciphertext_gives_other_keys() {
    // Both are signed, so only the callee itself can exchange them; the keys then differ, and nothing opens.
    let (initiator, invite, _) = start(Kind::Invite);
    let (responder, _) = open(&invite).unwrap();
    let (_, first) = responder.answer(&mut rng(2), &bob(), b"answer").unwrap();
    let (body, second) = responder.answer(&mut rng(3), &bob(), b"answer").unwrap();
    let (_, ours) = initiator.finish(&body).unwrap();
    assert_eq!(ours.media.send, second.media.receive);
    assert_ne!(ours.media.send, first.media.receive);
}

#[test]
fn the_wrong_sealing_key_call_or_device_opens_nothing() {
    let (_, invite, _) = start(Kind::Invite);
    let hello = Hello::parse(&invite).unwrap();
    let refused = |sealing: &SealingKey, device: &SigningKey, call_id: &str| {
        matches!(hello.open(sealing, &device.public(), call_id), Err(HandshakeError::Forged))
    };
    assert!(refused(&SealingKey::from_bytes([1; 32]), &bob(), CALL_ID));
    assert!(refused(&sealing(), &alice(), CALL_ID));
    assert!(refused(&sealing(), &bob(), "000102030405060708090a0b0c0d0e0f-1"));
    assert_eq!(hello.sealed_for, [0xcc; 16]);
}

#[test]
fn a_changed_invite_is_refused_wherever_it_was_changed() {
    let (_, invite, _) = start(Kind::Invite);
    for at in (0..invite.len()).step_by(3) {
        let mut forged = invite.clone();
        forged[at] ^= 0x10;
        let passes = open(&forged)
            .is_ok_and(|(responder, _)| responder.check(Kind::Invite, &parties(), CALL_ID).is_ok());
        // The hash that picks the sealing key is not sealed: a wrong one picks none.
        let names_the_key = Hello::parse(&forged).is_ok_and(|hello| hello.sealed_for != [0xcc; 16]);
        assert!(!passes || names_the_key, "byte {at}");
    }
    for cut in (0..invite.len()).step_by(5) {
        assert!(open(&invite[..cut]).is_err());
    }
}

#[test]
fn an_ephemeral_of_small_order_is_refused() {
    let (_, invite, _) = start(Kind::Invite);
    let mut map = MapReader::parse(&invite).unwrap();
    let (offer, caller) = (map.bytes(4, 9_000).unwrap(), map.bytes(5, 9_000).unwrap());
    let forged = MapWriter::new()
        .uint(1, 1)
        .bytes(2, &[0; 32])
        .bytes(3, &[0xcc; 16])
        .bytes(4, offer)
        .bytes(5, caller)
        .finish();
    assert!(matches!(open(&forged), Err(HandshakeError::Forged)));
}
