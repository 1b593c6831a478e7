//! The realm's keys and what was signed with the root key, as files.
//!
//! | file | content | |
//! |---|---|---|
//! | `realm-root.key` | the realm's root key, hexadecimal | `init` writes it, `key rotate` reads it, `run` never; to be kept offline |
//! | `server.keys` | issuer key, TLS key, realm secret, OPAQUE secrets | 0600 |
//! | `statement` | the root statement | public |

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::keys::{PublicKey, SigningKey};
use yodel_identity::name::RealmName;
use yodel_identity::node::hex;
use yodel_identity::opaque::OpaqueServer;
use yodel_identity::realm::{IssuerKey, RealmError, RootStatement, RootStatementFields};
use yodel_store::StoreError;
use yodel_store::file::{create_private_dir, read_file, write_file};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::time::UnixTime;
use zeroize::Zeroizing;

use crate::limits::{BACKDATED, ISSUER_LIFE};

/// What the running server needs. The realm's root key is not in it.
pub struct ServerKeys {
    /// The realm.
    pub realm: RealmName,
    /// The realm's root key, public half.
    pub pin: PublicKey,
    /// Signs credentials, certificates and bulletins.
    pub issuer: SigningKey,
    /// Proved on links.
    pub tls: SigningKey,
    /// What node ids and owner tags are derived from.
    pub realm_secret: Zeroizing<[u8; 32]>,
    /// OPAQUE's long-term secrets.
    pub opaque: OpaqueServer,
    /// The root statement.
    pub statement: RootStatement,
}

/// Why the keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] StoreError),
    /// There is no realm in this folder.
    #[error("there is no realm in {}; `yodel-login-server init` makes one", .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is a realm in {} already", .0.display())]
    Exists(PathBuf),
    /// A file is not what it should be.
    #[error("{} is malformed", .0.display())]
    Malformed(PathBuf),
    /// The statement is not the root key's.
    #[error("the root statement is not believed: {0}")]
    Statement(#[from] RealmError),
    /// The names or addresses given break a bound.
    #[error("realm name or addresses break a bound: {0}")]
    Bounds(#[from] DecodeError),
}

/// Where everything of an installation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The installation in `dir`.
    pub fn new(dir: &Path) -> Layout {
        Layout { dir: dir.to_owned() }
    }

    /// The realm's root key.
    pub fn root_key(&self) -> PathBuf {
        self.dir.join("realm-root.key")
    }

    /// The server's keys.
    pub fn server_keys(&self) -> PathBuf {
        self.dir.join("server.keys")
    }

    /// The root statement.
    pub fn statement(&self) -> PathBuf {
        self.dir.join("statement")
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl ServerKeys {
    /// Makes the keys of a new realm, in memory. Returns the root key too, which signs the statement and is not needed
    /// to run.
    ///
    /// # Errors
    /// `Bounds`.
    pub fn generate(
        realm: RealmName,
        servers: Vec<String>,
        now: UnixTime,
        seed: [u8; 32],
    ) -> Result<(SigningKey, ServerKeys), KeysError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let root = SigningKey::generate(&mut rng);
        let issuer = SigningKey::generate(&mut rng);
        let tls = SigningKey::generate(&mut rng);
        let mut realm_secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *realm_secret);
        let opaque = OpaqueServer::generate(&mut rng);
        let not_before = now - BACKDATED;
        let fields = RootStatementFields {
            realm: realm.clone(),
            issued: now,
            issuers: vec![IssuerKey { key: issuer.public(), not_before, not_after: now + ISSUER_LIFE }],
            tls_keys: vec![tls.public()],
            servers,
        };
        let statement = RootStatement::issue(&root, &fields)?;
        let pin = root.public();
        Ok((root, ServerKeys { realm, pin, issuer, tls, realm_secret, opaque, statement }))
    }

    /// Writes the keys of a new realm to its folder, the root key apart.
    ///
    /// # Errors
    /// `Exists`, `File`.
    pub fn save_new(&self, layout: &Layout, root: &SigningKey) -> Result<(), KeysError> {
        create_private_dir(layout.dir())?;
        for path in [layout.root_key(), layout.server_keys(), layout.statement()] {
            if path.exists() {
                return Err(KeysError::Exists(layout.dir().to_owned()));
            }
        }
        let root_text = Zeroizing::new(format!("{}\n", hex(&*root.seed())));
        write_file(&layout.root_key(), root_text.as_bytes())?;
        write_file(&layout.statement(), self.statement.bytes())?;
        // Last: its presence says that all is there.
        write_file(&layout.server_keys(), &self.encode())?;
        Ok(())
    }

    /// Reads the keys of the realm in this folder.
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `Statement`, `File`.
    pub fn load(layout: &Layout) -> Result<ServerKeys, KeysError> {
        let missing = || KeysError::Missing(layout.dir().to_owned());
        let keys = Zeroizing::new(read_file(&layout.server_keys())?.ok_or_else(missing)?);
        let statement = read_file(&layout.statement())?.ok_or_else(missing)?;
        let malformed = |_| KeysError::Malformed(layout.server_keys());
        let mut map = MapReader::parse(&keys).map_err(malformed)?;
        let pin = PublicKey(map.array(2).map_err(malformed)?);
        let statement =
            RootStatement::verify(&statement, &pin).map_err(|error| KeysError::Statement(error.into()))?;
        let keys = ServerKeys {
            realm: statement.realm.clone(),
            pin,
            issuer: SigningKey::from_seed(map.array(3).map_err(malformed)?),
            tls: SigningKey::from_seed(map.array(4).map_err(malformed)?),
            realm_secret: Zeroizing::new(map.array(5).map_err(malformed)?),
            opaque: OpaqueServer::from_bytes(map.bytes(6, 4_096).map_err(malformed)?)
                .map_err(|_| KeysError::Malformed(layout.server_keys()))?,
            statement,
        };
        map.finish().map_err(malformed)?;
        Ok(keys)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let map = MapWriter::new()
            .uint(1, 1)
            .bytes(2, &self.pin.0)
            .bytes(3, &*self.issuer.seed())
            .bytes(4, &*self.tls.seed())
            .bytes(5, &*self.realm_secret)
            .bytes(6, &self.opaque.to_bytes());
        Zeroizing::new(map.finish())
    }
}

impl std::fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerKeys").field("realm", &self.realm).finish_non_exhaustive()
    }
}
