//! The realm as everybody sees it: the **root statement**, signed by the root key that every invitation pins, names the
//! issuer keys, the login server's TLS keys and its addresses; [`Realm`] holds the newest statement, the newest
//! bulletin and the revoked set, and is what every signature is checked through.

use std::collections::BTreeMap;

use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;

use crate::account::{AccountCertificate, AccountRecord, realm_name};
use crate::bulletin::{Bulletin, RevokedPage, RevokedSet, revoked_hash};
use crate::credential::{Credential, IssuerId, seconds};
use crate::keys::{Context, PublicKey, SigningKey};
use crate::limits::{
    BULLETIN_FRESH, CLOCK_TOLERANCE, CREDENTIAL_GRACE, HOST_PORT_BYTES_MAX, ISSUERS_MAX, SERVERS_MAX,
    STATEMENT_BYTES_MAX, TLS_KEYS_MAX,
};
use crate::name::RealmName;
use crate::node::NodeId;
use crate::signed::{Record, Signed, SignedError};

/// A signed root statement with its exact bytes.
pub type RootStatement = Signed<RootStatementFields>;

/// What the realm's root key says. Keys: 1 version, 2 realm, 3 issued, 4 issuer keys (maps of 1 key, 2 not before,
/// 3 not after), 5 TLS keys, 6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootStatementFields {
    /// The realm.
    pub realm: RealmName,
    /// When it was signed, whole seconds; a later one replaces an earlier.
    pub issued: UnixTime,
    /// Keys that sign credentials and bulletins, at most [`ISSUERS_MAX`].
    pub issuers: Vec<IssuerKey>,
    /// Keys the login server may prove on its links, at most [`TLS_KEYS_MAX`].
    pub tls_keys: Vec<PublicKey>,
    /// Where the login server answers, `host:port` each, at most [`SERVERS_MAX`].
    pub servers: Vec<String>,
}

/// An issuer key and when it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The key.
    pub key: PublicKey,
    /// Start of its use, whole seconds.
    pub not_before: UnixTime,
    /// End of its use, whole seconds.
    pub not_after: UnixTime,
}

impl RootStatement {
    /// Signs a statement with the realm's root key.
    ///
    /// # Errors
    /// When a field breaks its bounds.
    pub fn issue(root: &SigningKey, fields: &RootStatementFields) -> Result<RootStatement, DecodeError> {
        Signed::sign(root, fields)
    }
}

impl Record for RootStatementFields {
    const CONTEXT: Context = Context::RootStatement;
    const BYTES_MAX: usize = STATEMENT_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let issuers: Vec<Vec<u8>> = self
            .issuers
            .iter()
            .map(|issuer| {
                MapWriter::new()
                    .bytes(1, &issuer.key.0)
                    .uint(2, issuer.not_before.as_secs())
                    .uint(3, issuer.not_after.as_secs())
                    .finish()
            })
            .collect();
        let servers: Vec<&[u8]> = self.servers.iter().map(String::as_bytes).collect();
        MapWriter::new()
            .uint(1, 1)
            .text(2, self.realm.as_str())
            .uint(3, self.issued.as_secs())
            .raw_items(4, &issuers)
            .byte_items(5, self.tls_keys.iter().map(|key| key.0))
            .byte_items(6, servers)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<RootStatementFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let realm = realm_name(&mut map, 2)?;
        let issued = seconds(&mut map, 3)?;
        let mut issuers = Vec::new();
        for raw in map.items(4, ISSUERS_MAX)? {
            let mut issuer = MapReader::parse(raw)?;
            issuers.push(IssuerKey {
                key: PublicKey(issuer.array(1)?),
                not_before: seconds(&mut issuer, 2)?,
                not_after: seconds(&mut issuer, 3)?,
            });
            issuer.finish()?;
        }
        if issuers.is_empty() {
            return Err(DecodeError::OutOfBounds(4));
        }
        let mut tls_keys = Vec::new();
        for raw in map.items(5, TLS_KEYS_MAX)? {
            let key = item_bytes(raw)?;
            tls_keys.push(PublicKey(key.try_into().map_err(|_| DecodeError::OutOfBounds(5))?));
        }
        let mut servers = Vec::new();
        for raw in map.items(6, SERVERS_MAX)? {
            servers.push(host_port(item_bytes(raw)?).ok_or(DecodeError::OutOfBounds(6))?);
        }
        map.finish()?;
        Ok(RootStatementFields { realm, issued, issuers, tls_keys, servers })
    }
}

/// A `host:port` in printable ASCII.
pub(crate) fn host_port(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    (text.len() <= HOST_PORT_BYTES_MAX && !host.is_empty() && port != 0 && printable).then(|| text.to_owned())
}

/// Why a statement, bulletin, page or account record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealmError {
    /// It is not one, or its signature is not its signer's.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It belongs to another realm.
    #[error("it belongs to another realm")]
    WrongRealm,
    /// No statement of the root names its signer for its date.
    #[error("its signer is not an issuer of this realm at that time")]
    UnknownIssuer,
    /// Its time has not come, by more than the clock's tolerance.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It is a page of another set than the bulletin names.
    #[error("it is a page of another revoked set")]
    OtherSet,
}

impl From<DecodeError> for RealmError {
    fn from(error: DecodeError) -> RealmError {
        RealmError::Signed(SignedError::Malformed(error))
    }
}

/// Why a credential is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It is not one, or its signature is not the issuer's.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It belongs to another realm.
    #[error("the credential belongs to another realm")]
    WrongRealm,
    /// No statement of the root names its issuer for its date.
    #[error("the credential's issuer is not one of this realm")]
    UnknownIssuer,
    /// It starts in the future, by more than the clock's tolerance.
    #[error("the credential is not valid yet")]
    NotYetValid,
    /// It ended, and neither tolerance nor grace covers it.
    #[error("the credential has expired")]
    Expired,
    /// It was taken back.
    #[error("the credential was revoked")]
    Revoked,
}

/// The verifier everybody holds. It starts with the pin alone, believes nothing until it saw a root statement, and
/// only ever moves forward: older statements and bulletins change nothing.
#[derive(Clone, Debug)]
pub struct Realm {
    name: RealmName,
    pin: PublicKey,
    statement: Option<RootStatement>,
    bulletin: Option<Bulletin>,
    revoked: RevokedSet,
    /// Pages of the set the bulletin names, until all are there.
    pages: BTreeMap<u16, RevokedSet>,
    newest: UnixTime,
}

impl Realm {
    /// A realm of which only the name and the root key are known.
    pub fn new(name: RealmName, pin: PublicKey) -> Realm {
        Realm {
            name,
            pin,
            statement: None,
            bulletin: None,
            revoked: RevokedSet::new(),
            pages: BTreeMap::new(),
            newest: UnixTime::default(),
        }
    }

    /// The realm's name.
    pub fn name(&self) -> &RealmName {
        &self.name
    }

    /// The realm's root key.
    pub fn pin(&self) -> &PublicKey {
        &self.pin
    }

    /// Takes in a root statement; `true` when it replaced what was known.
    ///
    /// # Errors
    /// `Signed`, `WrongRealm`.
    pub fn accept_statement(&mut self, bytes: &[u8], _now: UnixTime) -> Result<bool, RealmError> {
        if self.statement.as_ref().is_some_and(|known| known.bytes() == bytes) {
            return Ok(false);
        }
        let statement = RootStatement::verify(bytes, &self.pin)?;
        if statement.realm != self.name {
            return Err(RealmError::WrongRealm);
        }
        if self.statement.as_ref().is_some_and(|known| known.issued >= statement.issued) {
            return Ok(false);
        }
        self.newest = self.newest.max(statement.issued);
        self.statement = Some(statement);
        Ok(true)
    }

    /// Takes in a bulletin; `true` when it is newer than what was known.
    ///
    /// A bulletin from the future is believed and moves [`newest_signed_time`](Self::newest_signed_time): it is the
    /// reader's clock that is behind.
    ///
    /// # Errors
    /// `Signed`, `WrongRealm`, `UnknownIssuer`.
    pub fn accept_bulletin(&mut self, bytes: &[u8], now: UnixTime) -> Result<bool, RealmError> {
        let bulletin = Bulletin::decode_unverified(bytes)?;
        if self.bulletin.as_ref().is_some_and(|known| known.epoch >= bulletin.epoch) {
            return Ok(false);
        }
        if bulletin.realm != self.name {
            return Err(RealmError::WrongRealm);
        }
        let issuer = self.issuer(bulletin.issuer, bulletin.issued).ok_or(RealmError::UnknownIssuer)?;
        bulletin.verify_with(&issuer)?;
        self.newest = self.newest.max(bulletin.issued);
        let same_set =
            self.bulletin.as_ref().is_some_and(|known| known.revoked_hash == bulletin.revoked_hash);
        if !same_set {
            self.pages.clear();
        }
        let now = self.trusted_now(now);
        if bulletin.revoked_pages == 0 && revoked_hash(&bulletin.revoked_newest) == bulletin.revoked_hash {
            self.revoked = bulletin.revoked_newest.clone();
        } else {
            self.revoked.retain(|_, until| *until > now);
            self.revoked.extend(bulletin.revoked_newest.iter().map(|(node, until)| (*node, *until)));
        }
        self.bulletin = Some(bulletin);
        Ok(true)
    }

    /// Takes in a page of the revoked set that the bulletin names; `true` when the set is complete now. Its entries
    /// count at once.
    ///
    /// # Errors
    /// `Signed`, `WrongRealm`, `UnknownIssuer`, `OtherSet`.
    pub fn accept_revoked_page(&mut self, bytes: &[u8], _now: UnixTime) -> Result<bool, RealmError> {
        let page = RevokedPage::decode_unverified(bytes)?;
        if page.realm != self.name {
            return Err(RealmError::WrongRealm);
        }
        let bulletin = self.bulletin.as_ref().ok_or(RealmError::OtherSet)?;
        if page.set != bulletin.revoked_hash || page.pages != bulletin.revoked_pages {
            return Err(RealmError::OtherSet);
        }
        let issuer = self.issuer(page.issuer, bulletin.issued).ok_or(RealmError::UnknownIssuer)?;
        page.verify_with(&issuer)?;
        self.revoked.extend(page.entries.iter().map(|(node, until)| (*node, *until)));
        self.pages.insert(page.index, page.entries.clone());
        if self.pages.len() < usize::from(page.pages) {
            return Ok(false);
        }
        let whole: RevokedSet = std::mem::take(&mut self.pages).into_values().flatten().collect();
        if revoked_hash(&whole) != page.set {
            return Err(RealmError::OtherSet);
        }
        self.revoked = whole;
        Ok(true)
    }

    /// The set whose pages must be asked for, when what is held is not what the bulletin names.
    pub fn revoked_pages_wanted(&self) -> Option<[u8; 32]> {
        let bulletin = self.bulletin.as_ref()?;
        let wanted = bulletin.revoked_pages > 0 && revoked_hash(&self.revoked) != bulletin.revoked_hash;
        wanted.then_some(bulletin.revoked_hash)
    }

    /// Believes a credential, or not: realm, issuer and its dates, signature, own dates with five minutes' tolerance
    /// and with seven days of grace while no fresh bulletin can be had, revoked set.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub fn verify_credential(&self, bytes: &[u8], now: UnixTime) -> Result<Credential, CredentialError> {
        let credential = self.verify_credential_ignoring_dates(bytes)?;
        self.check_alive(&credential, now)?;
        Ok(credential)
    }

    /// As [`verify_credential`](Self::verify_credential) without dates and revoked set: for renewal, and for devices on
    /// an account's list that were away.
    ///
    /// # Errors
    /// `Signed`, `WrongRealm`, `UnknownIssuer`.
    pub fn verify_credential_ignoring_dates(&self, bytes: &[u8]) -> Result<Credential, CredentialError> {
        let credential =
            Credential::decode_unverified(bytes).map_err(|e| CredentialError::Signed(e.into()))?;
        self.check_issued(&credential)?;
        Ok(credential)
    }

    /// Whether a credential whose signature was checked before is alive now.
    ///
    /// # Errors
    /// `NotYetValid`, `Expired`, `Revoked`.
    pub fn check_alive(&self, credential: &Credential, now: UnixTime) -> Result<(), CredentialError> {
        if self.is_revoked(credential.node) {
            return Err(CredentialError::Revoked);
        }
        match self.within(credential.not_before, credential.not_after, now) {
            Within::Yes => Ok(()),
            Within::Before => Err(CredentialError::NotYetValid),
            Within::After => Err(CredentialError::Expired),
        }
    }

    /// Believes an account record, or not: the certificate is an issuer's and alive, the record is the certified root
    /// key's and alive, and all devices on it were certified by an issuer. Whether a device's credential is alive is
    /// asked with [`check_alive`](Self::check_alive); [`live_devices`](Self::live_devices) does so for all.
    ///
    /// # Errors
    /// See [`RealmError`].
    pub fn verify_account_record(&self, bytes: &[u8], now: UnixTime) -> Result<AccountRecord, RealmError> {
        let record = AccountRecord::decode_unverified(bytes)?;
        self.check_account_certificate(&record.certificate, now)?;
        record.verify_with(&record.root)?;
        match self.within(record.issued, record.expires, now) {
            Within::Yes => {}
            Within::Before => return Err(RealmError::NotYetValid),
            Within::After => return Err(RealmError::Expired),
        }
        for device in &record.devices {
            self.check_issued(device).map_err(|error| match error {
                CredentialError::Signed(error) => RealmError::Signed(error),
                CredentialError::WrongRealm => RealmError::WrongRealm,
                CredentialError::UnknownIssuer => RealmError::UnknownIssuer,
                CredentialError::NotYetValid => RealmError::NotYetValid,
                CredentialError::Expired | CredentialError::Revoked => RealmError::Expired,
            })?;
        }
        Ok(record)
    }

    /// Believes an account certificate, or not.
    ///
    /// # Errors
    /// See [`RealmError`].
    pub fn verify_account_certificate(
        &self,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<AccountCertificate, RealmError> {
        let certificate = AccountCertificate::decode_unverified(bytes)?;
        self.check_account_certificate(&certificate, now)?;
        Ok(certificate)
    }

    /// The devices of a believed record whose credentials are alive now.
    pub fn live_devices<'a>(
        &'a self,
        record: &'a AccountRecord,
        now: UnixTime,
    ) -> impl Iterator<Item = &'a Credential> {
        record.devices.iter().filter(move |device| self.check_alive(device, now).is_ok())
    }

    /// The newest bulletin, fresh or not.
    pub fn bulletin(&self) -> Option<&Bulletin> {
        self.bulletin.as_ref()
    }

    /// The newest bulletin's epoch; 0 when there is none.
    pub fn epoch(&self) -> u64 {
        self.bulletin.as_ref().map_or(0, |bulletin| bulletin.epoch)
    }

    /// The newest bulletin's exact bytes.
    pub fn bulletin_bytes(&self) -> Option<&[u8]> {
        self.bulletin.as_ref().map(Bulletin::bytes)
    }

    /// Whether a bulletin is held that is under one hour old.
    pub fn has_fresh_bulletin(&self, now: UnixTime) -> bool {
        let now = self.trusted_now(now);
        self.bulletin.as_ref().is_some_and(|bulletin| now.since(bulletin.issued) < BULLETIN_FRESH)
    }

    /// The newest root statement.
    pub fn statement(&self) -> Option<&RootStatement> {
        self.statement.as_ref()
    }

    /// The newest root statement's exact bytes.
    pub fn statement_bytes(&self) -> Option<&[u8]> {
        self.statement.as_ref().map(RootStatement::bytes)
    }

    /// Whether this key is one that the login server may prove on its links.
    pub fn is_login_server(&self, key: &[u8; 32]) -> bool {
        self.statement.as_ref().is_some_and(|statement| statement.tls_keys.iter().any(|k| k.0 == *key))
    }

    /// Whether this node's credential was taken back.
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.revoked.contains_key(&node)
    }

    /// Every node whose credential was taken back.
    pub fn revoked(&self) -> &RevokedSet {
        &self.revoked
    }

    /// The newest time that the root or an issuer put under a signature.
    pub fn newest_signed_time(&self) -> UnixTime {
        self.newest
    }

    /// The time to go by: the own clock's, but never before the newest signed time.
    pub fn trusted_now(&self, now: UnixTime) -> UnixTime {
        now.max(self.newest)
    }

    fn check_issued(&self, credential: &Credential) -> Result<(), CredentialError> {
        if credential.realm != self.name {
            return Err(CredentialError::WrongRealm);
        }
        let issuer =
            self.issuer(credential.issuer, credential.not_before).ok_or(CredentialError::UnknownIssuer)?;
        Ok(credential.verify_with(&issuer)?)
    }

    fn check_account_certificate(
        &self,
        certificate: &AccountCertificate,
        now: UnixTime,
    ) -> Result<(), RealmError> {
        if certificate.account.realm != self.name {
            return Err(RealmError::WrongRealm);
        }
        let issuer =
            self.issuer(certificate.issuer, certificate.not_before).ok_or(RealmError::UnknownIssuer)?;
        certificate.verify_with(&issuer)?;
        match self.within(certificate.not_before, certificate.not_after, now) {
            Within::Yes => Ok(()),
            Within::Before => Err(RealmError::NotYetValid),
            Within::After => Err(RealmError::Expired),
        }
    }

    /// The issuer key with this id, if the root names it for this date.
    fn issuer(&self, id: IssuerId, signed_at: UnixTime) -> Option<PublicKey> {
        let statement = self.statement.as_ref()?;
        statement
            .issuers
            .iter()
            .find(|issuer| {
                IssuerId::of(&issuer.key) == id
                    && issuer.not_before <= signed_at + CLOCK_TOLERANCE
                    && signed_at <= issuer.not_after + CLOCK_TOLERANCE
            })
            .map(|issuer| issuer.key)
    }

    fn within(&self, from: UnixTime, until: UnixTime, now: UnixTime) -> Within {
        let fresh = self.has_fresh_bulletin(now);
        let now = self.trusted_now(now);
        let grace = if fresh { CLOCK_TOLERANCE } else { CREDENTIAL_GRACE };
        if now + CLOCK_TOLERANCE < from {
            Within::Before
        } else if now > until + grace {
            Within::After
        } else {
            Within::Yes
        }
    }
}

enum Within {
    Yes,
    Before,
    After,
}
