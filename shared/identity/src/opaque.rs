//! Sign-in by password without the server ever seeing it: OPAQUE-3DH (RFC 9807) with ristretto255, SHA-512 and
//! Argon2id. Only this file names the library; everybody else passes bytes.
//!
//! The client's identity is the address of record, the server's the realm's name, and the context of a login is the
//! exporter key of the link it runs on, so that a login cannot be carried over to another link.

use opaque_ke::argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::ciphersuite::CipherSuite;
use opaque_ke::errors::InternalError;
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::ksf::Ksf;
use opaque_ke::{
    ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters,
    CredentialFinalization, CredentialRequest, CredentialResponse, Identifiers, RegistrationRequest,
    RegistrationResponse, RegistrationUpload, Ristretto255, ServerLogin, ServerLoginParameters,
    ServerRegistration, ServerSetup, TripleDh,
};
use rand_core::{CryptoRng, RngCore};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::keys::SigningKey;
use crate::name::Aor;
use crate::seal::{BOX_NONCE_BYTES, BOX_TAG_BYTES, hkdf32, open_with_nonce, seal_with_nonce};

/// Memory of the password hash, KiB; with three passes and four lanes RFC 9106 §4's second recommended choice. Final:
/// another value is another password.
pub const ARGON2_MEMORY_KIB: u32 = 65_536;
/// Passes of the password hash.
pub const ARGON2_PASSES: u32 = 3;
/// Lanes of the password hash.
pub const ARGON2_LANES: u32 = 4;

/// Bytes of a sealed account root key.
pub const SEALED_ROOT_BYTES: usize = BOX_NONCE_BYTES + 32 + BOX_TAG_BYTES;

/// Bytes of the messages and of a stored record in this suite (RFC 9807 §6, §5). The library reads over what follows
/// them; we do not.
const REQUEST_BYTES: usize = 32;
const RESPONSE_BYTES: usize = 64;
const UPLOAD_BYTES: usize = 192;
const KE1_BYTES: usize = 96;
const KE2_BYTES: usize = 320;
const KE3_BYTES: usize = 64;

fn exactly<const N: usize>(message: &[u8]) -> Result<&[u8; N], OpaqueError> {
    message.try_into().map_err(|_| OpaqueError::Malformed)
}

/// The cipher suite of this project. Final.
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Stretch;
}

/// Argon2id (RFC 9106) with the parameters above and, as RFC 9807 §7 prescribes, a salt of zeros.
#[derive(Default)]
struct Stretch;

impl Ksf for Stretch {
    fn hash<L: ArrayLength<u8>>(
        &self,
        input: GenericArray<u8, L>,
    ) -> Result<GenericArray<u8, L>, InternalError> {
        let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, Some(L::USIZE))
            .map_err(|_| InternalError::KsfError)?;
        let mut output = GenericArray::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&input, &[0; 16], &mut output)
            .map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

/// Why a step of OPAQUE failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueError {
    /// The message is none, or the peer reflects ours.
    #[error("the sign-in message is malformed")]
    Malformed,
    /// Wrong password or unknown account; nobody can tell which.
    #[error("wrong password or unknown account")]
    Refused,
    /// The password hash could not be computed: not enough memory.
    #[error("not enough memory for the password hash")]
    Stretch,
}

impl<T> From<opaque_ke::errors::ProtocolError<T>> for OpaqueError {
    fn from(error: opaque_ke::errors::ProtocolError<T>) -> OpaqueError {
        use opaque_ke::errors::ProtocolError as E;
        match error {
            E::InvalidLoginError => OpaqueError::Refused,
            E::LibraryError(InternalError::KsfError) => OpaqueError::Stretch,
            E::LibraryError(_)
            | E::SerializationError
            | E::SizeError { .. }
            | E::ReflectedValueError
            | E::Custom(_) => OpaqueError::Malformed,
        }
    }
}

/// What only somebody with the password can derive, the same at registration and at every login. It seals the
/// account's root key.
pub struct ExportKey(Zeroizing<Vec<u8>>);

impl ExportKey {
    /// Seals the account's root key, for the login server to keep.
    pub fn seal_root<R: RngCore + CryptoRng>(&self, rng: &mut R, aor: &Aor, root: &SigningKey) -> Vec<u8> {
        let mut nonce = [0; BOX_NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        seal_with_nonce(&self.key(), &nonce, aor.to_string().as_bytes(), &*root.seed())
    }

    /// Opens the account's root key.
    ///
    /// # Errors
    /// `Refused` when it is another account's or was touched.
    pub fn open_root(&self, aor: &Aor, sealed: &[u8]) -> Result<SigningKey, OpaqueError> {
        let seed = open_with_nonce(&self.key(), aor.to_string().as_bytes(), sealed)
            .map_err(|_| OpaqueError::Refused)?;
        let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| OpaqueError::Malformed)?;
        Ok(SigningKey::from_seed(seed))
    }

    fn key(&self) -> Zeroizing<[u8; 32]> {
        hkdf32(b"", &self.0, b"yodel/sealed-account-root/v1")
    }
}

/// The client's side of a registration, between its two messages.
pub struct Registering {
    state: ClientRegistration<Suite>,
    password: Zeroizing<Vec<u8>>,
}

impl Registering {
    /// Begins; the bytes go into `RegisterStart`.
    ///
    /// # Errors
    /// `Malformed` when the library refuses the password: empty or beyond 65,535 bytes.
    pub fn start<R: RngCore + CryptoRng>(
        rng: &mut R,
        password: &str,
    ) -> Result<(Registering, Vec<u8>), OpaqueError> {
        let started = ClientRegistration::<Suite>::start(rng, password.as_bytes())?;
        let password = Zeroizing::new(password.as_bytes().to_vec());
        Ok((Registering { state: started.state, password }, started.message.serialize().to_vec()))
    }

    /// Ends with the server's answer; the bytes go into `RegisterFinish`.
    ///
    /// # Errors
    /// `Malformed`, `Stretch`.
    pub fn finish<R: RngCore + CryptoRng>(
        self,
        rng: &mut R,
        aor: &Aor,
        response: &[u8],
    ) -> Result<(Vec<u8>, ExportKey), OpaqueError> {
        let names = Names::of(aor);
        let finished = self.state.finish(
            rng,
            &self.password,
            RegistrationResponse::deserialize(exactly::<RESPONSE_BYTES>(response)?)?,
            ClientRegistrationFinishParameters::new(names.identifiers(), None),
        )?;
        let export = ExportKey(Zeroizing::new(finished.export_key.to_vec()));
        Ok((finished.message.serialize().to_vec(), export))
    }
}

/// The client's side of a login, between its two messages.
pub struct SigningIn {
    state: ClientLogin<Suite>,
    password: Zeroizing<Vec<u8>>,
}

impl SigningIn {
    /// Begins; the bytes (KE1) go into `LoginStart`.
    ///
    /// # Errors
    /// `Malformed` when the library refuses the password: empty or beyond 65,535 bytes.
    pub fn start<R: RngCore + CryptoRng>(
        rng: &mut R,
        password: &str,
    ) -> Result<(SigningIn, Vec<u8>), OpaqueError> {
        let started = ClientLogin::<Suite>::start(rng, password.as_bytes())?;
        let password = Zeroizing::new(password.as_bytes().to_vec());
        Ok((SigningIn { state: started.state, password }, started.message.serialize().to_vec()))
    }

    /// Ends with the server's answer (KE2); the bytes (KE3) go into `LoginFinish`.
    ///
    /// # Errors
    /// `Refused` when the password is wrong or there is no such account, `Malformed`, `Stretch`.
    pub fn finish<R: RngCore + CryptoRng>(
        self,
        rng: &mut R,
        aor: &Aor,
        exporter: &[u8; 32],
        response: &[u8],
    ) -> Result<(Vec<u8>, ExportKey), OpaqueError> {
        let names = Names::of(aor);
        let finished = self.state.finish(
            rng,
            &self.password,
            CredentialResponse::deserialize(exactly::<KE2_BYTES>(response)?)?,
            ClientLoginFinishParameters::new(Some(exporter), names.identifiers(), None),
        )?;
        let export = ExportKey(Zeroizing::new(finished.export_key.to_vec()));
        Ok((finished.message.serialize().to_vec(), export))
    }
}

/// The server's long-term secrets for OPAQUE. Lost, all passwords are.
pub struct OpaqueServer(ServerSetup<Suite>);

impl OpaqueServer {
    /// New secrets, for a new realm.
    pub fn generate<R: RngCore + CryptoRng>(rng: &mut R) -> OpaqueServer {
        OpaqueServer(ServerSetup::new(rng))
    }

    /// The secrets, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize().to_vec())
    }

    /// Reads stored secrets.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<OpaqueServer, OpaqueError> {
        Ok(OpaqueServer(ServerSetup::deserialize(bytes)?))
    }

    /// Answers a registration's first message.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn register(&self, aor: &Aor, request: &[u8]) -> Result<Vec<u8>, OpaqueError> {
        let request = RegistrationRequest::deserialize(exactly::<REQUEST_BYTES>(request)?)?;
        let started = ServerRegistration::start(&self.0, request, aor.to_string().as_bytes())?;
        Ok(started.message.serialize().to_vec())
    }

    /// The record to store out of a registration's last message.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn record(&self, upload: &[u8]) -> Result<Vec<u8>, OpaqueError> {
        let upload = RegistrationUpload::<Suite>::deserialize(exactly::<UPLOAD_BYTES>(upload)?)?;
        Ok(ServerRegistration::finish(upload).serialize().to_vec())
    }

    /// Answers a login's first message, alike for accounts that have a record and for those that do not.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn login<R: RngCore + CryptoRng>(
        &self,
        rng: &mut R,
        aor: &Aor,
        exporter: &[u8; 32],
        record: Option<&[u8]>,
        request: &[u8],
    ) -> Result<(LoginPending, Vec<u8>), OpaqueError> {
        let names = Names::of(aor);
        let record = record.map(ServerRegistration::deserialize).transpose()?;
        let started = ServerLogin::start(
            rng,
            &self.0,
            record,
            CredentialRequest::deserialize(exactly::<KE1_BYTES>(request)?)?,
            names.client.as_bytes(),
            ServerLoginParameters { context: Some(exporter), identifiers: names.identifiers() },
        )?;
        let pending = LoginPending { state: started.state, aor: aor.clone(), exporter: *exporter };
        Ok((pending, started.message.serialize().to_vec()))
    }
}

/// The server's side of a login, until the client's last message.
pub struct LoginPending {
    state: ServerLogin<Suite>,
    aor: Aor,
    exporter: [u8; 32],
}

impl LoginPending {
    /// The account that is being signed in to.
    pub fn aor(&self) -> &Aor {
        &self.aor
    }

    /// Checks the client's last message (KE3): whether it had the password.
    ///
    /// # Errors
    /// `Refused`, `Malformed`.
    pub fn finish(self, finalization: &[u8]) -> Result<(), OpaqueError> {
        let names = Names::of(&self.aor);
        let parameters =
            ServerLoginParameters { context: Some(&self.exporter), identifiers: names.identifiers() };
        self.state
            .finish(CredentialFinalization::deserialize(exactly::<KE3_BYTES>(finalization)?)?, parameters)?;
        Ok(())
    }
}

/// Secrets print as their type's name.
macro_rules! debug_nothing {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_nothing!(ExportKey Registering SigningIn OpaqueServer LoginPending);

struct Names {
    client: String,
    server: String,
}

impl Names {
    fn of(aor: &Aor) -> Names {
        Names { client: aor.to_string(), server: aor.realm.to_string() }
    }

    fn identifiers(&self) -> Identifiers<'_> {
        Identifiers { client: Some(self.client.as_bytes()), server: Some(self.server.as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn aor(text: &str) -> Aor {
        Aor::parse(text).unwrap()
    }

    struct Realm {
        rng: ChaCha20Rng,
        server: OpaqueServer,
    }

    impl Realm {
        fn new() -> Realm {
            let mut rng = ChaCha20Rng::from_seed([1; 32]);
            let server = OpaqueServer::generate(&mut rng);
            Realm { rng, server }
        }

        fn register(&mut self, aor: &Aor, password: &str) -> (Vec<u8>, ExportKey) {
            let (client, request) = Registering::start(&mut self.rng, password).unwrap();
            let response = self.server.register(aor, &request).unwrap();
            let (upload, export) = client.finish(&mut self.rng, aor, &response).unwrap();
            (self.server.record(&upload).unwrap(), export)
        }

        fn sign_in(
            &mut self,
            aor: &Aor,
            password: &str,
            record: Option<&[u8]>,
            exporters: [[u8; 32]; 2],
        ) -> Result<ExportKey, OpaqueError> {
            let (client, request) = SigningIn::start(&mut self.rng, password).unwrap();
            let (pending, response) =
                self.server.login(&mut self.rng, aor, &exporters[0], record, &request).unwrap();
            let (finish, export) = client.finish(&mut self.rng, aor, &exporters[1], &response)?;
            pending.finish(&finish)?;
            Ok(export)
        }
    }

    #[test]
    fn a_further_device_gets_the_root_key_by_password() {
        let mut realm = Realm::new();
        let alice = aor("alice@example.net");
        let (record, export) = realm.register(&alice, "correct horse");
        let root = SigningKey::from_seed([5; 32]);
        let sealed = export.seal_root(&mut realm.rng, &alice, &root);
        assert_eq!(sealed.len(), SEALED_ROOT_BYTES);

        // The server's secrets survive a restart.
        realm.server = OpaqueServer::from_bytes(&realm.server.to_bytes()).unwrap();
        let export = realm.sign_in(&alice, "correct horse", Some(&record), [[3; 32]; 2]).unwrap();
        assert_eq!(export.open_root(&alice, &sealed).unwrap().public(), root.public());
        assert_eq!(export.open_root(&aor("bob@example.net"), &sealed).unwrap_err(), OpaqueError::Refused);
    }

    #[test]
    fn wrong_password_unknown_user_and_another_link_are_refused_alike() {
        let mut realm = Realm::new();
        let alice = aor("alice@example.net");
        let (record, _) = realm.register(&alice, "correct horse");
        let wrong = realm.sign_in(&alice, "battery staple", Some(&record), [[3; 32]; 2]);
        assert_eq!(wrong.err(), Some(OpaqueError::Refused));
        let unknown = realm.sign_in(&aor("bob@example.net"), "x", None, [[3; 32]; 2]);
        assert_eq!(unknown.err(), Some(OpaqueError::Refused));
        let carried = realm.sign_in(&alice, "correct horse", Some(&record), [[3; 32], [4; 32]]);
        assert_eq!(carried.err(), Some(OpaqueError::Refused));
    }

    /// Found by the `login` fuzz target: the library reads over trailing bytes.
    #[test]
    fn nothing_may_follow_a_message() {
        let mut realm = Realm::new();
        let alice = aor("alice@example.net");
        let (_, mut request) = Registering::start(&mut realm.rng, "x").unwrap();
        assert!(realm.server.register(&alice, &request).is_ok());
        request.push(0);
        assert_eq!(realm.server.register(&alice, &request), Err(OpaqueError::Malformed));
        let (record, _) = realm.register(&alice, "x");
        assert!(realm.server.record(&record).is_ok());
        assert_eq!(realm.server.record(&[record, vec![0]].concat()), Err(OpaqueError::Malformed));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let mut realm = Realm::new();
        let alice = aor("alice@example.net");
        for length in [0, 1, 31, 32, 64, 96, 192, 320] {
            let junk = vec![0xff; length];
            assert_eq!(realm.server.register(&alice, &junk), Err(OpaqueError::Malformed));
            assert_eq!(realm.server.record(&junk), Err(OpaqueError::Malformed));
            let login = realm.server.login(&mut realm.rng, &alice, &[0; 32], None, &junk);
            assert_eq!(login.err(), Some(OpaqueError::Malformed));
        }
    }
}
