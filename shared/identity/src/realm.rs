//! The realm as everybody sees it: [`Realm`] holds the newest root statement, the newest bulletin and the revoked set,
//! and is what every signature is checked through.

use std::collections::BTreeMap;

use yodel_wire::codec::DecodeError;
use yodel_wire::time::UnixTime;

use crate::account::{AccountCertificate, AccountRecord};
use crate::bulletin::{Bulletin, RevokedPage, RevokedSet, revoked_hash};
use crate::credential::{Credential, IssuerId};
use crate::keys::PublicKey;
use crate::limits::{
    ACCOUNT_CERTIFICATE_LIFE, BULLETIN_FRESH, CLOCK_TOLERANCE, CREDENTIAL_GRACE, DEVICE_CREDENTIAL_LIFE,
    SUPERNODE_CREDENTIAL_LIFE,
};
use crate::name::RealmName;
use crate::node::NodeId;
use crate::signed::SignedError;
pub use crate::statement::{IssuerKey, RootStatement, RootStatementFields};

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

    /// Whether a credential whose signature was checked before is alive now. It lives no longer than credentials of its
    /// kind do, whatever it says: a stolen issuer key whose dates are over can still sign backdated, and must not sign
    /// for ever.
    ///
    /// # Errors
    /// `NotYetValid`, `Expired`, `Revoked`.
    pub fn check_alive(&self, credential: &Credential, now: UnixTime) -> Result<(), CredentialError> {
        if self.is_revoked(credential.node) {
            return Err(CredentialError::Revoked);
        }
        let life = if credential.is_supernode() { SUPERNODE_CREDENTIAL_LIFE } else { DEVICE_CREDENTIAL_LIFE };
        let end = credential.not_after.min(credential.not_before + life);
        match self.within(credential.not_before, end, now) {
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
        let end = certificate.not_after.min(certificate.not_before + ACCOUNT_CERTIFICATE_LIFE);
        match self.within(certificate.not_before, end, now) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountCertificateFields;
    use crate::bulletin::BulletinFields;
    use crate::credential::CredentialFields;
    use crate::keys::{BadSignature, SigningKey};
    use crate::sample::*;

    const SIGNATURE: RealmError = RealmError::Signed(SignedError::Signature(BadSignature));
    const TOLERANCE: std::time::Duration = CLOCK_TOLERANCE;

    fn accept(realm: &mut Realm, bulletin: &Bulletin) {
        assert_eq!(realm.accept_bulletin(bulletin.bytes(), T0), Ok(true));
    }

    #[test]
    fn only_the_pinned_root_is_believed_and_only_forward() {
        let mut realm = Realm::new(example_net(), issuer().public());
        assert_eq!(realm.accept_statement(statement().bytes(), T0), Err(SIGNATURE));
        let mut realm = Realm::new(RealmName::parse("example.org").unwrap(), root().public());
        assert_eq!(realm.accept_statement(statement().bytes(), T0), Err(RealmError::WrongRealm));

        let mut realm = crate::sample::realm();
        assert_eq!(realm.accept_statement(statement().bytes(), T0), Ok(false));
        assert!(realm.is_login_server(&SigningKey::from_seed([4; 32]).public().0));
        let next = SigningKey::from_seed([5; 32]);
        let later = RootStatementFields {
            issued: T0 + secs(1),
            issuers: vec![IssuerKey { key: next.public(), not_before: T0, not_after: T0 + days(1) }],
            ..statement_fields()
        };
        let later = RootStatement::issue(&root(), &later).unwrap();
        assert_eq!(realm.accept_statement(later.bytes(), T0), Ok(true));
        assert_eq!(realm.accept_statement(statement().bytes(), T0), Ok(false), "no way back");
        // The issuer that the root no longer names made nothing that is still believed.
        assert_eq!(realm.verify_credential(device(0).bytes(), T0), Err(CredentialError::UnknownIssuer));
        let record = account_record(vec![]).unwrap();
        assert_eq!(realm.verify_account_record(record.bytes(), T0), Err(RealmError::UnknownIssuer));
        let old = bulletin(1, T0, &revoked(&[]));
        assert_eq!(realm.accept_bulletin(old.bytes(), T0), Err(RealmError::UnknownIssuer));
        assert_eq!(realm.newest_signed_time(), T0 + secs(1));
    }

    #[test]
    fn without_a_statement_nothing_is_believed() {
        let realm = Realm::new(example_net(), root().public());
        assert_eq!(realm.verify_credential(device(0).bytes(), T0), Err(CredentialError::UnknownIssuer));
    }

    #[test]
    fn an_issuer_signs_within_its_dates_alone() {
        let end = T0 + days(365);
        let issued_at = |not_before: UnixTime| {
            let fields = CredentialFields { not_before, not_after: not_before + days(3), ..device_fields(0) };
            let credential = Credential::issue(&issuer(), fields).unwrap();
            realm().verify_credential_ignoring_dates(credential.bytes()).map(|_| ())
        };
        assert_eq!(issued_at(T0 - TOLERANCE), Ok(()));
        assert_eq!(issued_at(T0 - TOLERANCE - secs(1)), Err(CredentialError::UnknownIssuer));
        assert_eq!(issued_at(end + TOLERANCE), Ok(()));
        assert_eq!(issued_at(end + TOLERANCE + secs(1)), Err(CredentialError::UnknownIssuer));
    }

    #[test]
    fn a_credential_lives_from_its_start_to_its_end_give_or_take_five_minutes() {
        let start = T0 + days(10);
        let fields = CredentialFields { not_before: start, not_after: start + days(3), ..device_fields(0) };
        let credential = Credential::issue(&issuer(), fields).unwrap();
        let at = |now: UnixTime, bulletin_at: UnixTime| {
            let mut realm = realm();
            accept(&mut realm, &bulletin(1, bulletin_at, &revoked(&[])));
            realm.verify_credential(credential.bytes(), now).map(|_| ())
        };
        assert_eq!(at(start - TOLERANCE, T0), Ok(()));
        assert_eq!(at(start - TOLERANCE - secs(1), T0), Err(CredentialError::NotYetValid));
        let end = start + days(3);
        assert_eq!(at(end + TOLERANCE, end), Ok(()));
        assert_eq!(at(end + TOLERANCE + secs(1), end), Err(CredentialError::Expired));
        // Seven days of grace while the newest bulletin is an hour old or older.
        let late = end + TOLERANCE + secs(1);
        assert_eq!(at(late, late - BULLETIN_FRESH), Ok(()));
        assert_eq!(at(late, late - BULLETIN_FRESH + secs(1)), Err(CredentialError::Expired));
        assert_eq!(at(end + days(7), T0), Ok(()));
        assert_eq!(at(end + days(7) + secs(1), T0), Err(CredentialError::Expired));
    }

    #[test]
    fn nothing_lives_longer_than_its_kind_whatever_an_issuer_signs() {
        let mut realm = realm();
        let late = T0 + days(100);
        accept(&mut realm, &bulletin(1, late, &revoked(&[])));
        let year = T0 + days(364);
        let kinds =
            [(device_fields(0), DEVICE_CREDENTIAL_LIFE), (supernode_fields(1), SUPERNODE_CREDENTIAL_LIFE)];
        for (fields, life) in kinds {
            let start = late - life - TOLERANCE;
            let credential = |not_before| {
                let fields = CredentialFields { not_before, not_after: year, ..fields.clone() };
                Credential::issue(&issuer(), fields).unwrap()
            };
            let believed =
                |not_before| realm.verify_credential(credential(not_before).bytes(), late).map(|_| ());
            assert_eq!(believed(start), Ok(()));
            assert_eq!(believed(start - secs(1)), Err(CredentialError::Expired));
        }
        let start = late - ACCOUNT_CERTIFICATE_LIFE - TOLERANCE;
        let believed = |not_before| {
            let fields = AccountCertificateFields { not_before, not_after: year, ..certificate_fields() };
            let certificate = AccountCertificate::issue(&issuer(), fields).unwrap();
            realm.verify_account_certificate(certificate.bytes(), late).map(|_| ())
        };
        assert_eq!(believed(start), Ok(()));
        assert_eq!(believed(start - secs(1)), Err(RealmError::Expired));
    }

    #[test]
    fn a_clock_behind_does_not_bring_back_the_expired() {
        let mut realm = realm();
        let end = T0 + days(3);
        accept(&mut realm, &bulletin(1, end + TOLERANCE + secs(1), &revoked(&[])));
        assert_eq!(realm.verify_credential(device(0).bytes(), T0), Err(CredentialError::Expired));
        assert_eq!(realm.trusted_now(T0), end + TOLERANCE + secs(1));
        assert_eq!(realm.trusted_now(end + days(1)), end + days(1));
    }

    #[test]
    fn bulletins_only_move_forward_and_revoke() {
        let mut realm = realm();
        accept(&mut realm, &bulletin(5, T0, &revoked(&[])));
        assert!(realm.verify_credential(device(0).bytes(), T0).is_ok());
        let revoking = bulletin(6, T0 + secs(1), &revoked(&[device(0).node]));
        accept(&mut realm, &revoking);
        assert_eq!(realm.verify_credential(device(0).bytes(), T0), Err(CredentialError::Revoked));
        assert!(realm.verify_credential(device(1).bytes(), T0).is_ok());
        assert!(realm.verify_credential_ignoring_dates(device(0).bytes()).is_ok());
        let older = bulletin(5, T0 + secs(2), &revoked(&[]));
        assert_eq!(realm.accept_bulletin(older.bytes(), T0), Ok(false));
        assert_eq!(realm.accept_bulletin(revoking.bytes(), T0), Ok(false));
        assert!(realm.is_revoked(device(0).node));
        assert_eq!(realm.epoch(), 6);
        assert_eq!(realm.bulletin_bytes(), Some(revoking.bytes()));
        let thief = SigningKey::from_seed([9; 32]);
        let forged = Bulletin::issue(&thief, bulletin_fields(9, T0, &revoked(&[]))).unwrap();
        assert_eq!(realm.accept_bulletin(forged.bytes(), T0), Err(RealmError::UnknownIssuer));
        // The set is the bulletin's: an entry that ran out goes.
        accept(&mut realm, &bulletin(7, T0 + secs(3), &revoked(&[])));
        assert!(!realm.is_revoked(device(0).node));
    }

    #[test]
    fn a_large_set_comes_in_pages_and_counts_page_by_page() {
        let node = |n: u16| {
            let [hi, lo] = n.to_be_bytes();
            let mut id = [0; 16];
            id[0] = hi;
            id[1] = lo;
            NodeId(id)
        };
        let set = revoked(&(0..1_300).map(node).collect::<Vec<_>>());
        let pages = RevokedPage::split(&issuer(), &example_net(), &set).unwrap();
        assert_eq!(pages.len(), 3);
        let newest = revoked(&[node(1_299)]);
        let named = BulletinFields {
            revoked_hash: revoked_hash(&set),
            revoked_pages: 3,
            ..bulletin_fields(1, T0, &newest)
        };
        let mut realm = realm();
        accept(&mut realm, &Bulletin::issue(&issuer(), named.clone()).unwrap());
        assert_eq!(realm.revoked_pages_wanted(), Some(revoked_hash(&set)));
        assert!(realm.is_revoked(node(1_299)) && !realm.is_revoked(node(0)));
        assert_eq!(realm.accept_revoked_page(pages[2].bytes(), T0), Ok(false));
        assert_eq!(realm.accept_revoked_page(pages[0].bytes(), T0), Ok(false));
        assert!(realm.is_revoked(node(0)) && !realm.is_revoked(node(600)));
        let other = RevokedPage::split(&issuer(), &example_net(), &newest).unwrap().remove(0);
        assert_eq!(realm.accept_revoked_page(other.bytes(), T0), Err(RealmError::OtherSet));
        assert_eq!(realm.accept_revoked_page(pages[1].bytes(), T0), Ok(true));
        assert_eq!(realm.revoked_pages_wanted(), None);
        assert_eq!(realm.revoked(), &set);
        // One more is revoked: the bulletin's own entries complete what is held, no page is asked for.
        let mut larger = set.clone();
        larger.extend(revoked(&[node(1_300)]));
        let named = BulletinFields {
            revoked_hash: revoked_hash(&larger),
            revoked_pages: 3,
            ..bulletin_fields(2, T0, &revoked(&[node(1_300)]))
        };
        accept(&mut realm, &Bulletin::issue(&issuer(), named).unwrap());
        assert_eq!(realm.revoked_pages_wanted(), None);
    }
}
