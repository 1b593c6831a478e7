//! What a reader believes of an answer. Homes and holders may lie: everything is checked by whoever uses it.

use std::time::Duration;

use yodel_identity::account::AccountRecord;
use yodel_identity::limits::CLOCK_TOLERANCE;
use yodel_identity::realm::Realm;
use yodel_wire::time::UnixTime;

use crate::record::{Answer, ContactEntry, ContactRecord, Standing};

/// The believed part of one answer, or of several merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The account's record.
    pub account: Option<AccountRecord>,
    /// The contact entries of devices on it, withdrawals among them.
    pub contact: ContactRecord,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The account exists.
    Found {
        /// Its record.
        account: Box<AccountRecord>,
        /// The live entries of its devices; none when it is offline.
        entries: Vec<ContactEntry>,
        /// Whether nothing follows. A second result may bring newer entries and further devices.
        settled: bool,
    },
    /// Enough holders say that there is no such account.
    NoSuchAccount,
    /// Too few holders could be reached to say anything.
    Unreachable,
}

impl LookupResult {
    /// What an answer to a walk tells, as far as it can be believed. What is claimed and does not verify counts as not
    /// received.
    pub fn from_answer(realm: &Realm, key: &[u8; 16], answer: &Answer, now: UnixTime) -> LookupResult {
        let verified = Verified::of(realm, key, answer, now);
        match (verified.account, answer.standing) {
            (Some(account), _) => LookupResult::Found {
                account: Box::new(account),
                entries: live(&verified.contact, realm.trusted_now(now)),
                settled: answer.settled,
            },
            (None, Standing::None) => LookupResult::NoSuchAccount,
            (None, Standing::Held | Standing::NotYet | Standing::Unreachable) => LookupResult::Unreachable,
        }
    }
}

impl Verified {
    /// Believes what can be believed of an answer, and drops the rest.
    pub fn of(realm: &Realm, key: &[u8; 16], answer: &Answer, now: UnixTime) -> Verified {
        Verified::of_known(realm, key, answer, now, &Verified::default())
    }

    /// The same, when `known` was believed just now: what is in it, byte for byte, is not verified once more.
    pub fn of_known(
        realm: &Realm,
        key: &[u8; 16],
        answer: &Answer,
        now: UnixTime,
        known: &Verified,
    ) -> Verified {
        let mut verified = Verified::default();
        let same =
            known.account.as_ref().filter(|account| Some(account.bytes()) == answer.account.as_deref());
        let account = match (same, answer.account.as_deref()) {
            (Some(same), _) => Some(same.clone()),
            (None, Some(bytes)) => verify_account(realm, key, bytes, now),
            (None, None) => None,
        };
        let Some(account) = account else { return verified };
        for bytes in &answer.entries {
            let same = known.contact.entries().iter().find(|entry| entry.bytes() == bytes);
            let listed = same.filter(|entry| account.device(entry.device).is_some()).cloned();
            if let Some(entry) = listed.or_else(|| verify_entry(realm, &account, bytes, now)) {
                verified.contact.merge(entry);
            }
        }
        verified.account = Some(account);
        verified
    }

    /// Takes in another verified answer: the higher version of the account record, the higher sequence of each entry.
    /// Returns whether anything changed. Entries of devices that a newer account record no longer lists go.
    pub fn merge(&mut self, other: Verified) -> bool {
        let mut changed = false;
        if let Some(account) = other.account
            && self.account.as_ref().is_none_or(|known| known.version < account.version)
        {
            self.account = Some(account);
            changed = true;
        }
        for entry in other.contact.entries() {
            changed |= self.contact.merge(entry.clone()) == crate::record::Merged::Taken;
        }
        if let Some(account) = &self.account {
            self.contact.retain(|entry| account.device(entry.device).is_some());
        }
        changed
    }

    /// The entries by which devices can be reached now.
    pub fn live(&self, now: UnixTime) -> Vec<ContactEntry> {
        live(&self.contact, now)
    }
}

/// Entries that are neither withdrawn nor expired.
fn live(contact: &ContactRecord, now: UnixTime) -> Vec<ContactEntry> {
    contact
        .entries()
        .iter()
        .filter(|entry| !entry.withdrawn && entry.is_current(now, CLOCK_TOLERANCE))
        .cloned()
        .collect()
}

/// An account record that belongs under `key`, if it can be believed.
pub fn verify_account(realm: &Realm, key: &[u8; 16], bytes: &[u8], now: UnixTime) -> Option<AccountRecord> {
    let account = realm.verify_account_record(bytes, now).ok()?;
    (account.account.key() == *key).then_some(account)
}

/// A contact entry of a living device on `account`, if it can be believed: the device's signature, its dates within five
/// minutes of our clock.
pub fn verify_entry(
    realm: &Realm,
    account: &AccountRecord,
    bytes: &[u8],
    now: UnixTime,
) -> Option<ContactEntry> {
    let entry = ContactEntry::decode_unverified(bytes).ok()?;
    let device = account.device(entry.device)?;
    realm.check_alive(device, now).ok()?;
    if !entry.is_current(realm.trusted_now(now), CLOCK_TOLERANCE) {
        return None;
    }
    entry.verify_with(&device.key).ok()?;
    Some(entry)
}

/// Whether nobody honest can hold this beside that account record: no entry at all, or one that its device did not sign.
/// An entry that ended, or whose device was revoked or removed, is no forgery; holders may hear of that later.
pub fn is_forged(account: &AccountRecord, bytes: &[u8]) -> bool {
    match ContactEntry::decode_unverified(bytes) {
        Ok(entry) => {
            account.device(entry.device).is_some_and(|device| entry.verify_with(&device.key).is_err())
        }
        Err(_) => true,
    }
}

/// How long an answer may be kept at most: the life of its shortest-lived entry.
pub fn shortest_life(verified: &Verified, now: UnixTime) -> Option<Duration> {
    verified.contact.entries().iter().map(|entry| entry.expires.since(now)).min()
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::NodeId;
    use yodel_identity::signed::{Record, envelope, open};

    use super::*;
    use crate::record::ContactEntryFields;
    use crate::testing::RealmFixture;

    /// One forgery per field: each is another entry under the old signature.
    #[test]
    fn every_field_of_an_entry_stands_under_the_devices_signature() {
        let net = RealmFixture::new();
        let device = net.device("bob", 2);
        let entry = device.entry(5, net.now);
        assert!(verify_entry(&net.realm, &device.account, entry.bytes(), net.now).is_some());
        let fields = entry.fields();
        let second = Duration::from_secs(1);
        let forgeries = [
            ContactEntryFields { sequence: 6, ..fields.clone() },
            ContactEntryFields { issued: fields.issued + second, ..fields.clone() },
            ContactEntryFields { expires: fields.expires - second, ..fields.clone() },
            ContactEntryFields { homes: vec![NodeId([1; 16]), NodeId([3; 16])], ..fields.clone() },
            ContactEntryFields { homes: vec![NodeId([2; 16]), NodeId([1; 16])], ..fields.clone() },
            ContactEntryFields { capabilities: 3, ..fields.clone() },
            ContactEntryFields { nonce: [8; 16], ..fields.clone() },
            ContactEntryFields { credential: [8; 32], ..fields.clone() },
            ContactEntryFields { withdrawn: true, homes: vec![], ..fields.clone() },
        ];
        let (_, signature) = open(entry.bytes()).unwrap();
        for forgery in forgeries {
            let forged = envelope(&forgery.encode(), &signature);
            assert!(ContactEntry::decode_unverified(&forged).is_ok(), "well-formed: {forgery:?}");
            assert_eq!(verify_entry(&net.realm, &device.account, &forged, net.now), None, "{forgery:?}");
        }
    }

    #[test]
    fn an_entry_speaks_for_its_own_device_alone() {
        let mut net = RealmFixture::new();
        let (bob, carol) = (net.device("bob", 2), net.device("carol", 3));
        let entry = carol.entry(5, net.now);
        assert_eq!(verify_entry(&net.realm, &bob.account, entry.bytes(), net.now), None, "not listed");
        let posing = ContactEntryFields { device: bob.credential.node, ..entry.fields().clone() };
        let (_, signature) = open(entry.bytes()).unwrap();
        let forged = envelope(&posing.encode(), &signature);
        assert_eq!(verify_entry(&net.realm, &bob.account, &forged, net.now), None, "another's key");
        net.revoke(carol.credential.node);
        assert_eq!(verify_entry(&net.realm, &carol.account, entry.bytes(), net.now), None, "revoked");
    }
}
