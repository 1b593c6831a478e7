//! The envelope of everything signed: a CBOR array of body and signature, both byte strings.
//!
//! ```text
//!   82              array of 2
//!   58/59 len body  the record, a CBOR map
//!   58 40 sig       Ed25519 over context ‖ 00 ‖ body
//! ```
//! The signature is checked over the body as received, and the bytes are kept as received: what is passed on or hashed
//! is never re-encoded. Lengths must be written shortest, so that nobody can make a second envelope, with another
//! hash, of the same body and signature.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use yodel_wire::codec::{DecodeError, array_items, item_bytes};

use crate::keys::{BadSignature, Context, PublicKey, SigningKey};
use crate::seen;

/// A record that travels signed.
pub trait Record: Sized + Send + Sync + 'static {
    /// What its signature is for.
    const CONTEXT: Context;
    /// Longest envelope, bytes.
    const BYTES_MAX: usize;

    /// The body to sign.
    fn encode(&self) -> Vec<u8>;

    /// Reads a body. Whatever this returns obeys the bounds of its fields.
    ///
    /// # Errors
    /// Why it is no such record.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;
}

/// Why bytes are not a record signed by a given key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// They are no such record.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// They are one, but the signature is not the key's.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// A record together with its exact signed bytes. Its fields are read through it and cannot be changed, so that copies
/// share one record: a node keeps the same credential in many places, a simulator in a hundred thousand nodes.
pub struct Signed<T>(Arc<Shared<T>>);

struct Shared<T> {
    fields: T,
    bytes: Box<[u8]>,
}

impl<T: Record> Signed<T> {
    /// Signs a record.
    ///
    /// # Errors
    /// When the record breaks its own bounds: nobody could read it.
    pub fn sign(key: &SigningKey, record: &T) -> Result<Signed<T>, DecodeError> {
        let body = record.encode();
        Signed::decode_unverified(&envelope(&body, &key.sign(T::CONTEXT, &body)))
    }

    /// Reads a record and checks its signature.
    ///
    /// # Errors
    /// `Malformed`, `Signature`.
    pub fn verify(bytes: &[u8], key: &PublicKey) -> Result<Signed<T>, SignedError> {
        let signed = Signed::<T>::decode_unverified(bytes)?;
        signed.verify_with(key)?;
        Ok(signed)
    }

    /// Reads a record without checking who signed it: to find out which key to check it with, or when it comes from
    /// one's own store or out of a record that was checked.
    ///
    /// # Errors
    /// Why it is no such record.
    pub fn decode_unverified(bytes: &[u8]) -> Result<Signed<T>, DecodeError> {
        if bytes.len() > T::BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let shared = seen::read(T::CONTEXT.as_str(), bytes, || {
            let (body, _) = open(bytes)?;
            Ok::<_, DecodeError>(Arc::new(Shared { fields: T::decode(body)?, bytes: bytes.into() }))
        })?;
        Ok(Signed(shared))
    }

    /// Checks the signature of a record that was read without.
    ///
    /// # Errors
    /// `Signature`.
    pub fn verify_with(&self, key: &PublicKey) -> Result<(), SignedError> {
        let (body, signature) = open(self.bytes())?;
        Ok(key.verify(T::CONTEXT, body, &signature)?)
    }

    /// The exact bytes, as signed or received.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// SHA-256 of the exact bytes.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    /// The fields.
    pub fn fields(&self) -> &T {
        &self.0.fields
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.fields
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Signed<T> {
        Signed(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Signed<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl<T> Eq for Signed<T> {}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fields.fmt(f)
    }
}

/// Body and signature as one envelope.
pub fn envelope(body: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let mut out = vec![0x82];
    push_bytes(&mut out, body);
    push_bytes(&mut out, signature);
    out
}

/// Body and signature of an envelope; nothing is checked but the form.
///
/// # Errors
/// Not an array of a byte string and one of 64 bytes, or not written shortest.
pub fn open(bytes: &[u8]) -> Result<(&[u8], [u8; 64]), DecodeError> {
    let items = array_items(bytes)?;
    let &[body, signature] = items.as_slice() else { return Err(DecodeError::Malformed) };
    let body = item_bytes(body)?;
    let signature: [u8; 64] = item_bytes(signature)?.try_into().map_err(|_| DecodeError::Malformed)?;
    // Length of the shortest writing: array head, two heads, contents.
    if bytes.len() != 1 + head_len(body.len()) + body.len() + 2 + signature.len() {
        return Err(DecodeError::NotCanonical);
    }
    Ok((body, signature))
}

fn head_len(length: usize) -> usize {
    match length {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let be = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    match (head_len(bytes.len()), be) {
        (1, [_, _, _, d]) => out.push(0x40 | d),
        (2, [_, _, _, d]) => out.extend_from_slice(&[0x58, d]),
        (3, [_, _, c, d]) => out.extend_from_slice(&[0x59, c, d]),
        (_, [a, b, c, d]) => out.extend_from_slice(&[0x5a, a, b, c, d]),
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_of_every_length_open() {
        for length in [0, 1, 23, 24, 255, 256, 65_535, 65_536] {
            let body = vec![7; length];
            let bytes = envelope(&body, &[9; 64]);
            assert_eq!(open(&bytes), Ok((body.as_slice(), [9; 64])), "{length}");
        }
    }

    #[test]
    fn one_envelope_per_body_and_signature() {
        let mut long_head = vec![0x82, 0x58, 1, 7, 0x58, 64];
        long_head.extend([9; 64]);
        assert_eq!(open(&long_head), Err(DecodeError::NotCanonical));
        let mut trailing = envelope(&[7], &[9; 64]);
        trailing.push(0);
        assert_eq!(open(&trailing), Err(DecodeError::Trailing));
        let short: Vec<u8> = envelope(&[7], &[9; 64])[..60].to_vec();
        assert!(open(&short).is_err());
    }
}
