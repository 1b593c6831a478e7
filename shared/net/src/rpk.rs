//! Raw public keys in TLS 1.3 (RFC 7250): the certificate is the 44-byte Ed25519 SubjectPublicKeyInfo (RFC 8410 §4),
//! both sides send one, and the verifier compares it with the key that was asked for. No authority, no names, no SNI,
//! no resumption, no early data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
};

/// The only protocol spoken on links (RFC 7301).
pub(crate) const ALPN: &[u8] = b"yodel/1";

/// Label of the keying material both ends of a link share (RFC 8446 §7.5).
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-yodel-link";

/// In front of the 32 key bytes of an Ed25519 SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// In front of the 32 seed bytes of an Ed25519 PKCS #8 v1 key (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The Ed25519 public key that belongs to a seed, as a peer will see it in the handshake.
///
/// # Errors
/// The cryptography library refused the seed; none is known that it does refuse.
pub fn public_key(identity_seed: &[u8; 32]) -> std::io::Result<[u8; 32]> {
    let pair = Ed25519KeyPair::from_seed_unchecked(identity_seed)
        .map_err(|_| std::io::Error::other("not an Ed25519 seed"))?;
    <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(std::io::Error::other)
}

/// The key in a peer's "certificate".
pub(crate) fn peer_key(chain: &[CertificateDer<'_>]) -> Option<[u8; 32]> {
    let [only] = chain else { return None };
    let (prefix, key) = only.split_first_chunk::<12>()?;
    (*prefix == SPKI_PREFIX).then(|| key.try_into().ok())?
}

/// One's own key, ready for handshakes in both directions.
#[derive(Clone, Debug)]
pub(crate) struct TlsIdentity {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl TlsIdentity {
    pub(crate) fn new(identity_seed: &[u8; 32]) -> std::io::Result<TlsIdentity> {
        let mut pkcs8 = zeroize::Zeroizing::new(Vec::with_capacity(48));
        pkcs8.extend_from_slice(&PKCS8_PREFIX);
        pkcs8.extend_from_slice(identity_seed);
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .map_err(std::io::Error::other)?;
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(&public_key(identity_seed)?);
        Ok(TlsIdentity {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            certified: Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key)),
        })
    }

    /// A client's side toward `expected`, and the flag that is set when somebody proved, or claimed, another key.
    pub(crate) fn client(&self, expected: Option<[u8; 32]>) -> std::io::Result<(ClientConfig, WrongKey)> {
        let wrong_key = WrongKey::default();
        let verifier = Verifier { provider: self.provider.clone(), expected, wrong_key: wrong_key.clone() };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.certified.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_early_data = false;
        Ok((config, wrong_key))
    }

    /// A server's side: any key, but proved.
    pub(crate) fn server(&self) -> std::io::Result<ServerConfig> {
        let verifier =
            Verifier { provider: self.provider.clone(), expected: None, wrong_key: WrongKey::default() };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(std::io::Error::other)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// Set by the verifier when the peer's key is not the one asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct WrongKey(Arc<AtomicBool>);

impl WrongKey {
    pub(crate) fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Accepts one well-formed Ed25519 key, the expected one when there is one; rustls then has the possession proved.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    expected: Option<[u8; 32]>,
    wrong_key: WrongKey,
}

impl Verifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        let key = peer_key(std::slice::from_ref(end_entity))
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.expected.is_some_and(|expected| expected != key) {
            self.wrong_key.0.store(true, Ordering::Relaxed);
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn check_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, test 1.
    #[test]
    fn public_key_of_the_rfc_seed() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = public_key(&seed).unwrap();
        assert_eq!(key[..4], [0xd7, 0x5a, 0x98, 0x01]);
        let identity = TlsIdentity::new(&seed).unwrap();
        assert_eq!(identity.certified.cert[0].len(), 44);
        assert_eq!(peer_key(&identity.certified.cert), Some(key));
    }

    #[test]
    fn only_one_well_formed_key_passes() {
        let good = TlsIdentity::new(&[7; 32]).unwrap().certified.cert[0].clone();
        assert!(peer_key(std::slice::from_ref(&good)).is_some());
        assert!(peer_key(&[]).is_none());
        assert!(peer_key(&[good.clone(), good.clone()]).is_none());
        assert!(peer_key(&[CertificateDer::from(good[..43].to_vec())]).is_none());
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(peer_key(&[CertificateDer::from(longer)]).is_none());
        let mut other = good.to_vec();
        other[8] = 0x71;
        assert!(peer_key(&[CertificateDer::from(other)]).is_none());
    }
}
