//! Keys and what each signature is for. Ed25519 (RFC 8032, verified strictly) and X25519 (RFC 7748, contributory).

use std::fmt;

use ed25519_dalek::Signer;
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::seen;

macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a signature is for. The text and a zero byte stand in front of the message that is signed, so that no
        /// signature of one kind can pass for another.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Context { $($(#[$doc])* $name,)* }

        impl Context {
            /// All of them.
            pub const ALL: &'static [Context] = &[$(Context::$name,)*];

            /// The text that is signed in front of the message.
            pub fn as_str(self) -> &'static str {
                match self { $(Context::$name => $text,)* }
            }
        }
    };
}

contexts! {
    /// The realm's root key over the root statement.
    RootStatement = "yodel/root-statement/v1",
    /// An issuer key over a credential.
    Credential = "yodel/credential/v1",
    /// An issuer key over the bulletin.
    Bulletin = "yodel/bulletin/v1",
    /// An issuer key over a page of the revoked set.
    RevokedPage = "yodel/revoked-page/v1",
    /// An issuer key over the bond of an account and its root key.
    AccountCertificate = "yodel/account-certificate/v1",
    /// An account's root key over its record.
    AccountRecord = "yodel/account-record/v1",
    /// An account's root key: proof that the device which names it to the login server holds it.
    AccountRootPossession = "yodel/account-root-possession/v1",
    /// A device's or supernode's key over the request for its next credential.
    Renewal = "yodel/renewal/v1",
    /// A device's key over its contact entry.
    ContactEntry = "yodel/contact-entry/v1",
    /// A caller's device key over its offer.
    CallOffer = "yodel/call-offer/v1",
    /// A callee's device key over its answer.
    CallAnswer = "yodel/call-answer/v1",
    /// A device's key over a message outside of calls (contact requests, tags).
    DeviceMessage = "yodel/device-message/v1",
    /// A supernode's key over where it is and whether it serves.
    Announcement = "yodel/announcement/v1",
}

/// A signature does not fit key, context and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// An Ed25519 public key, as bytes. Whether they are a point shows when something is verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Checks a signature over context, a zero byte and `message`, strictly (RFC 8032 §5.1.7 without cofactor; keys of
    /// small order are refused).
    ///
    /// # Errors
    /// When it does not fit.
    pub fn verify(&self, context: Context, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let message = with_context(context, message);
        seen::checked((&self.0, &message, signature), || self.verify_raw(&message, signature))
    }

    /// Checks a signature over bare bytes: for published test vectors and nothing else of ours.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn verify_raw(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        key.verify_strict(message, &signature).map_err(|_| BadSignature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::node::hex(self.0.get(..4).unwrap_or_default()))
    }
}

/// An Ed25519 signing key; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that this secret stands for (RFC 8032 §5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> SigningKey {
        let seed = Zeroizing::new(seed);
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// A new key.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> SigningKey {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The secret, to be stored or to make a TLS identity.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs context, a zero byte and `message`.
    pub fn sign(&self, context: Context, message: &[u8]) -> [u8; 64] {
        self.0.sign(&with_context(context, message)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {:?})", self.public())
    }
}

/// The two keys agree on nothing that depends on both: the peer's is of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's key contributes nothing to the agreement")]
pub struct NotContributory;

/// An X25519 public key, as bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealingPublic(pub [u8; 32]);

impl fmt::Debug for SealingPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublic({})", crate::node::hex(self.0.get(..4).unwrap_or_default()))
    }
}

/// What two X25519 keys agree on. Feed it to a KDF, never use it as it is.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Shared([u8; 32]);

impl Shared {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

/// An X25519 secret key; wiped when dropped.
#[derive(Clone)]
pub struct SealingKey(x25519_dalek::StaticSecret);

impl SealingKey {
    /// The key made of these bytes (RFC 7748 §5).
    pub fn from_bytes(bytes: [u8; 32]) -> SealingKey {
        SealingKey(x25519_dalek::StaticSecret::from(bytes))
    }

    /// A new key.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> SealingKey {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        SealingKey::from_bytes(*bytes)
    }

    /// The secret, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> SealingPublic {
        SealingPublic(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// What this key and the peer's agree on (RFC 7748 §6.1).
    ///
    /// # Errors
    /// When the result would be all zero, whatever our key is.
    pub fn agree(&self, peer: &SealingPublic) -> Result<Shared, NotContributory> {
        let shared = self.0.diffie_hellman(&x25519_dalek::PublicKey::from(peer.0));
        if shared.was_contributory() { Ok(Shared(shared.to_bytes())) } else { Err(NotContributory) }
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey(of {:?})", self.public())
    }
}

fn with_context(context: Context, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(context.as_str().len() + 1 + message.len());
    out.extend_from_slice(context.as_str().as_bytes());
    out.push(0);
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_distinct_and_without_zero_bytes() {
        for (i, a) in Context::ALL.iter().enumerate() {
            assert!(!a.as_str().contains('\0'));
            for b in Context::ALL.iter().skip(i + 1) {
                assert_ne!(a.as_str(), b.as_str());
            }
        }
    }

    #[test]
    fn a_signature_fits_its_key_context_and_message_alone() {
        let key = SigningKey::from_seed([1; 32]);
        let signature = key.sign(Context::Credential, b"hello");
        assert_eq!(key.public().verify(Context::Credential, b"hello", &signature), Ok(()));
        for context in Context::ALL {
            let fits = key.public().verify(*context, b"hello", &signature).is_ok();
            assert_eq!(fits, *context == Context::Credential);
        }
        assert!(key.public().verify(Context::Credential, b"hellp", &signature).is_err());
        let other = SigningKey::from_seed([2; 32]).public();
        assert!(other.verify(Context::Credential, b"hello", &signature).is_err());
        for bit in 0..512 {
            let mut forged = signature;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(key.public().verify(Context::Credential, b"hello", &forged).is_err());
        }
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(PublicKey(identity).verify_raw(b"anything", &signature).is_err());
    }

    #[test]
    fn agreement_is_mutual_and_contributory() {
        let (a, b) = (SealingKey::from_bytes([3; 32]), SealingKey::from_bytes([4; 32]));
        let ab = a.agree(&b.public()).unwrap();
        assert_eq!(ab.as_bytes(), b.agree(&a.public()).unwrap().as_bytes());
        assert_eq!(a.agree(&SealingPublic([0; 32])).unwrap_err(), NotContributory);
    }

    #[test]
    fn secrets_do_not_print() {
        let text = format!("{:?} {:?}", SigningKey::from_seed([7; 32]), SealingKey::from_bytes([7; 32]));
        assert!(!text.contains("0707"), "{text}");
    }
}
