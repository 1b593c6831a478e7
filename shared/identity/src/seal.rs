//! Keyed functions that several rooms share: HKDF-SHA-256 (RFC 5869), HMAC-SHA-256 (RFC 2104) and a box,
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), whose nonces are long enough to be drawn at random.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes that a box adds to what it seals: the authentication tag.
pub const BOX_TAG_BYTES: usize = 16;

/// Bytes of a box's nonce.
pub const BOX_NONCE_BYTES: usize = 24;

/// The box was made under another key, nonce or associated data, or was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the box does not open")]
pub struct NotOpened;

/// 32 bytes derived from key material (RFC 5869 §2). Give every use an `info` of its own.
pub fn hkdf32(salt: &[u8], ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    hkdf(salt, ikm, info)
}

/// `N` bytes derived from key material (RFC 5869 §2), at most 8,160.
pub fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "RFC 5869 §2.3: L <= 255*HashLen") };
    let mut out = Zeroizing::new([0; N]);
    let expanded = Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut *out);
    debug_assert!(expanded.is_ok(), "only the length can be wrong");
    out
}

/// HMAC-SHA-256 of the parts, one after the other.
pub fn hmac32(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A longer key is hashed, a shorter one padded with zeros (RFC 2104 §2); so a whole block always fits.
    let mut block = Zeroizing::new([0; 64]);
    let hashed: [u8; 32];
    let key = if key.len() > block.len() {
        hashed = Sha256::digest(key).into();
        hashed.as_slice()
    } else {
        key
    };
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = <Hmac<Sha256> as Mac>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Seals `plaintext`; the result is [`BOX_TAG_BYTES`] longer. A nonce must never be used twice under one key.
pub fn seal(key: &[u8; 32], nonce: &[u8; BOX_NONCE_BYTES], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let sealed =
        XChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), Payload { msg: plaintext, aad: associated });
    debug_assert!(sealed.is_ok(), "only plaintexts beyond 256 GiB are refused");
    sealed.unwrap_or_default()
}

/// Opens what [`seal`] made.
///
/// # Errors
/// When key, nonce, associated data and box do not belong together.
pub fn open(
    key: &[u8; 32],
    nonce: &[u8; BOX_NONCE_BYTES],
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(nonce.into(), Payload { msg: sealed, aad: associated })
        .map(Zeroizing::new)
        .map_err(|_| NotOpened)
}

/// Seals with the nonce in front: [`BOX_NONCE_BYTES`] of nonce, then the box.
pub fn seal_with_nonce(
    key: &[u8; 32],
    nonce: &[u8; BOX_NONCE_BYTES],
    associated: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut out = nonce.to_vec();
    out.extend_from_slice(&seal(key, nonce, associated, plaintext));
    out
}

/// Opens what [`seal_with_nonce`] made.
///
/// # Errors
/// As [`open`], and when there is no whole nonce.
pub fn open_with_nonce(
    key: &[u8; 32],
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let (nonce, sealed) = sealed.split_first_chunk().ok_or(NotOpened)?;
    open(key, nonce, associated, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{hex, parse_hex};

    /// RFC 5869 appendix A.1, first 32 of its 42 bytes: a shorter output is a prefix of a longer.
    #[test]
    fn hkdf_of_rfc_5869() {
        let salt: [u8; 13] = parse_hex("000102030405060708090a0b0c").unwrap();
        let info: [u8; 10] = parse_hex("f0f1f2f3f4f5f6f7f8f9").unwrap();
        let okm: Zeroizing<[u8; 42]> = hkdf(&salt, &[0x0b; 22], &info);
        assert_eq!(
            hex(&*okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
        assert_eq!(hkdf32(&salt, &[0x0b; 22], &info)[..], okm[..32]);
    }

    /// RFC 4231 test cases 2 and 6 (a key longer than a block).
    #[test]
    fn hmac_of_rfc_4231() {
        assert_eq!(
            hex(&hmac32(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac32(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    /// draft-irtf-cfrg-xchacha-03 appendix A.3.1.
    #[test]
    fn box_of_the_xchacha_draft() {
        let key = parse_hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f").unwrap();
        let nonce = parse_hex("404142434445464748494a4b4c4d4e4f5051525354555657").unwrap();
        let aad: [u8; 12] = parse_hex("50515253c0c1c2c3c4c5c6c7").unwrap();
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
            future, sunscreen would be it.";
        let sealed = seal(&key, &nonce, &aad, text);
        assert_eq!(hex(&sealed[..16]), "bd6d179d3e83d43b9576579493c0e939");
        assert_eq!(hex(&sealed[sealed.len() - 16..]), "c0875924c1c7987947deafd8780acf49");
        assert_eq!(open(&key, &nonce, &aad, &sealed).unwrap().as_slice(), text);
        assert_eq!(sealed.len(), text.len() + BOX_TAG_BYTES);
    }

    #[test]
    fn a_touched_box_does_not_open() {
        let sealed = seal_with_nonce(&[1; 32], &[2; 24], b"who", b"what");
        assert_eq!(open_with_nonce(&[1; 32], b"who", &sealed).unwrap().as_slice(), b"what");
        assert_eq!(open_with_nonce(&[1; 32], b"whom", &sealed), Err(NotOpened));
        assert_eq!(open_with_nonce(&[2; 32], b"who", &sealed), Err(NotOpened));
        for at in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[at] ^= 1;
            assert_eq!(open_with_nonce(&[1; 32], b"who", &touched), Err(NotOpened), "{at}");
            assert_eq!(open_with_nonce(&[1; 32], b"who", &sealed[..at]), Err(NotOpened), "{at}");
        }
    }
}
