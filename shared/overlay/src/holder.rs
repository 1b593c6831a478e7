//! The records one member keeps. It believes nothing that does not verify, and keeps what outranks.
//!
//! The value stored under a key is a CBOR map: 1 account record, 2 contact entries.

use std::collections::BTreeMap;

use yodel_identity::account::AccountRecord;
use yodel_identity::limits::{ACCOUNT_RECORD_BYTES_MAX, CLOCK_TOLERANCE};
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;

use crate::limits::{CONTACT_ENTRIES_MAX, RECORDS_MAX};
use crate::record::{Answer, ContactEntry, ContactRecord, Merged, Standing, WriteStatus, Written};
use crate::verify::{Verified, verify_account, verify_entry};

/// Key of a record, `Aor::key`.
pub type Key = [u8; 16];

/// What is kept under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    account: AccountRecord,
    contact: ContactRecord,
}

impl Held {
    /// The account record.
    pub fn account(&self) -> &AccountRecord {
        &self.account
    }

    /// The contact entries.
    pub fn contact(&self) -> &ContactRecord {
        &self.contact
    }

    /// For the store.
    pub fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, self.account.bytes())
            .byte_items(2, self.contact.entries().iter().map(|entry| entry.bytes()))
            .finish()
    }
}

/// The records; see the module's text.
#[derive(Debug)]
pub struct Holder {
    records: BTreeMap<Key, Held>,
    /// Under which key a device's entry is kept; perhaps no longer.
    devices: BTreeMap<NodeId, Key>,
    records_max: usize,
}

impl Default for Holder {
    fn default() -> Holder {
        Holder { records: BTreeMap::new(), devices: BTreeMap::new(), records_max: RECORDS_MAX }
    }
}

impl Holder {
    /// Nothing is kept yet.
    pub fn new() -> Holder {
        Holder::default()
    }

    /// As [`Holder::new`], for at most `records_max` accounts.
    pub fn with_records_max(records_max: usize) -> Holder {
        Holder { records_max, ..Holder::default() }
    }

    /// Accounts kept.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is kept under `key`.
    pub fn get(&self, key: &Key) -> Option<&Held> {
        self.records.get(key)
    }

    /// Keys in order, after `after`.
    pub fn keys_after(&self, after: Option<Key>) -> impl Iterator<Item = &Key> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.records.range((from, Unbounded)).map(|(key, _)| key)
    }

    /// Somebody wants this kept. The second value says whether what is kept changed. The account record is taken first,
    /// so that it may vouch for the entry; a stale one does not hinder the entry.
    pub fn write(
        &mut self,
        realm: &Realm,
        key: Key,
        account: Option<&[u8]>,
        entry: Option<&[u8]>,
        now: UnixTime,
    ) -> (Written, bool) {
        let mut written = Written::new(0, WriteStatus::Stored);
        let mut changed = false;
        if let Some(bytes) = account {
            match self.write_account(realm, key, bytes, now) {
                Ok(taken) => changed = taken,
                Err(WriteStatus::Stale) => {
                    written.newest_account = self.records.get(&key).map(|held| held.account.version);
                    written.status = WriteStatus::Stale;
                }
                Err(status) => {
                    written.status = status;
                    return (written, false);
                }
            }
        }
        if let Some(bytes) = entry {
            let (status, taken) = self.write_entry(realm, key, bytes, now, &mut written);
            written.status = status;
            changed |= taken;
        }
        (written, changed)
    }

    fn write_account(
        &mut self,
        realm: &Realm,
        key: Key,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<bool, WriteStatus> {
        if let Some(held) = self.records.get(&key)
            && held.account.bytes() == bytes
        {
            return Ok(false);
        }
        let account = verify_account(realm, &key, bytes, now).ok_or(WriteStatus::Refused)?;
        let full = self.records.len() >= self.records_max;
        match self.records.get_mut(&key) {
            Some(held) if held.account.version >= account.version => Err(WriteStatus::Stale),
            Some(held) => {
                held.contact.retain(|entry| account.device(entry.device).is_some());
                held.account = account;
                Ok(true)
            }
            None if full => Err(WriteStatus::Full),
            None => {
                self.records.insert(key, Held { account, contact: ContactRecord::new() });
                Ok(true)
            }
        }
    }

    fn write_entry(
        &mut self,
        realm: &Realm,
        key: Key,
        bytes: &[u8],
        now: UnixTime,
        written: &mut Written,
    ) -> (WriteStatus, bool) {
        let Some(held) = self.records.get_mut(&key) else { return (WriteStatus::NeedAccount, false) };
        if held.contact.entries().iter().any(|known| known.bytes() == bytes) {
            return (WriteStatus::Stored, false);
        }
        let Some(entry) = verify_entry(realm, &held.account, bytes, now) else {
            let listed = ContactEntry::decode_unverified(bytes)
                .is_ok_and(|entry| held.account.device(entry.device).is_some());
            let status = if listed { WriteStatus::Refused } else { WriteStatus::NeedAccount };
            return (status, false);
        };
        let device = entry.device;
        match held.contact.merge(entry) {
            Merged::Taken => {
                self.devices.insert(device, key);
                (WriteStatus::Stored, true)
            }
            Merged::Known => (WriteStatus::Stored, false),
            Merged::Full => (WriteStatus::Full, false),
            Merged::Older => {
                written.newest_entry = held.contact.device(device).map(|entry| entry.bytes().to_vec());
                (WriteStatus::Stale, false)
            }
        }
    }

    /// Others keep it.
    pub fn remove(&mut self, key: &Key) {
        self.records.remove(key);
        self.devices.retain(|_, known| known != key);
    }

    /// What is kept under `key`, as an answer with request id 0.
    pub fn answer(&self, key: &Key, standby: bool) -> Answer {
        match self.records.get(key) {
            Some(held) => Answer {
                id: 0,
                standing: Standing::Held,
                account: Some(held.account.bytes().to_vec()),
                entries: held.contact.entries().iter().map(|entry| entry.bytes().to_vec()).collect(),
                settled: true,
                holders: 1,
            },
            None => Answer::empty(0, if standby { Standing::NotYet } else { Standing::None }),
        }
    }

    /// What is kept under `key`, believed when it was written.
    pub fn verified(&self, key: &Key) -> Option<Verified> {
        self.records
            .get(key)
            .map(|held| Verified { account: Some(held.account.clone()), contact: held.contact.clone() })
    }

    /// This device's newest entry, whatever its account.
    pub fn entry_of(&self, device: NodeId) -> Option<&ContactEntry> {
        self.records.get(self.devices.get(&device)?)?.contact.device(device)
    }

    /// Drops what has ended, and entries of devices that may no longer be served. Returns the keys that changed.
    pub fn sweep(&mut self, realm: &Realm, now: UnixTime) -> Vec<Key> {
        let now = realm.trusted_now(now);
        let mut changed = Vec::new();
        self.records.retain(|key, held| {
            let before = held.contact.entries().len();
            held.contact
                .retain(|entry| entry.is_current(now, CLOCK_TOLERANCE) && !realm.is_revoked(entry.device));
            let keep = now < held.account.expires + CLOCK_TOLERANCE;
            if !keep || held.contact.entries().len() != before {
                changed.push(*key);
            }
            keep
        });
        let records = &self.records;
        self.devices.retain(|device, key| {
            records.get(key).is_some_and(|held| held.contact.device(*device).is_some())
        });
        changed
    }

    /// Takes in what an earlier run stored; it is verified as if somebody wrote it. Returns whether it was kept.
    pub fn load(&mut self, realm: &Realm, key: Key, value: &[u8], now: UnixTime) -> bool {
        let Ok((account, entries)) = decode_stored(value) else { return false };
        let (written, _) = self.write(realm, key, Some(account), None, now);
        for entry in entries {
            self.write(realm, key, None, Some(entry), now);
        }
        written.status == WriteStatus::Stored
    }
}

fn decode_stored(value: &[u8]) -> Result<(&[u8], Vec<&[u8]>), DecodeError> {
    let mut map = MapReader::parse(value)?;
    let account = map.bytes(1, ACCOUNT_RECORD_BYTES_MAX)?;
    let entries = map.items(2, CONTACT_ENTRIES_MAX)?;
    map.finish()?;
    Ok((account, entries.into_iter().map(item_bytes).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DeviceFixture, RealmFixture};

    fn holder_with(realm: &RealmFixture, alice: &DeviceFixture) -> Holder {
        let mut holder = Holder::new();
        let entry = alice.entry(5, realm.now);
        let (written, changed) = holder.write(
            &realm.realm,
            alice.key(),
            Some(alice.account.bytes()),
            Some(entry.bytes()),
            realm.now,
        );
        assert_eq!((written.status, changed), (WriteStatus::Stored, true));
        holder
    }

    #[test]
    fn keeps_what_outranks_and_refuses_what_does_not_verify() {
        let realm = RealmFixture::new();
        let alice = realm.device("alice", 1);
        let bob = realm.device("bob", 2);
        let mut holder = holder_with(&realm, &alice);
        let mut write = |account: Option<&[u8]>, entry: &[u8]| {
            holder.write(&realm.realm, alice.key(), account, Some(entry), realm.now)
        };
        // The same again, then older, then another of the same number, then newer.
        assert_eq!(write(None, alice.entry(5, realm.now).bytes()).0.status, WriteStatus::Stored);
        let (stale, changed) = write(None, alice.entry(4, realm.now).bytes());
        assert_eq!((stale.status, changed), (WriteStatus::Stale, false));
        assert_eq!(stale.newest_entry.as_deref(), Some(alice.entry(5, realm.now).bytes()));
        assert_eq!(write(None, alice.withdrawal(5, realm.now).bytes()).0.status, WriteStatus::Stale);
        assert_eq!(write(None, alice.withdrawal(6, realm.now).bytes()), {
            (Written::new(0, WriteStatus::Stored), true)
        });
        assert_eq!(
            write(None, alice.entry(5, realm.now).bytes()).0.status,
            WriteStatus::Stale,
            "a withdrawal is not undone by what it withdrew"
        );
        // Somebody else's entry, a forged one, an expired one, one from the future.
        assert_eq!(write(None, bob.entry(9, realm.now).bytes()).0.status, WriteStatus::NeedAccount);
        let mut forged = alice.entry(7, realm.now).bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(write(None, &forged).0.status, WriteStatus::Refused);
        let hours = |n: u64| std::time::Duration::from_secs(n * 3_600);
        assert_eq!(write(None, alice.entry(7, realm.now - hours(3)).bytes()).0.status, WriteStatus::Refused);
        assert_eq!(write(None, alice.entry(7, realm.now + hours(1)).bytes()).0.status, WriteStatus::Refused);
        // Another account's record under this key.
        let (refused, _) = write(Some(bob.account.bytes()), alice.entry(7, realm.now).bytes());
        assert_eq!(refused.status, WriteStatus::Refused);
    }

    #[test]
    fn the_device_list_decides_who_may_have_an_entry() {
        let realm = RealmFixture::new();
        let alice = realm.device("alice", 1);
        let mut holder = Holder::new();
        let entry = alice.entry(1, realm.now);
        let (written, _) = holder.write(&realm.realm, alice.key(), None, Some(entry.bytes()), realm.now);
        assert_eq!(written.status, WriteStatus::NeedAccount);
        assert_eq!(holder.answer(&alice.key(), true).standing, Standing::NotYet);
        assert_eq!(holder.answer(&alice.key(), false).standing, Standing::None);

        let mut holder = holder_with(&realm, &alice);
        let without = alice.account_without_devices(2, realm.now);
        let (written, changed) =
            holder.write(&realm.realm, alice.key(), Some(without.bytes()), None, realm.now);
        assert_eq!((written.status, changed), (WriteStatus::Stored, true));
        assert_eq!(holder.answer(&alice.key(), false).entries, Vec::<Vec<u8>>::new());
        let (stale, _) =
            holder.write(&realm.realm, alice.key(), Some(alice.account.bytes()), None, realm.now);
        assert_eq!((stale.status, stale.newest_account), (WriteStatus::Stale, Some(2)));
    }

    #[test]
    fn full_refuses_new_accounts_and_keeps_the_old() {
        let realm = RealmFixture::new();
        let (alice, bob) = (realm.device("alice", 1), realm.device("bob", 2));
        let mut holder = Holder::with_records_max(1);
        let mut write = |device: &DeviceFixture| {
            let account = Some(device.account.bytes());
            holder.write(&realm.realm, device.key(), account, None, realm.now).0.status
        };
        assert_eq!(write(&alice), WriteStatus::Stored);
        assert_eq!(write(&bob), WriteStatus::Full);
        assert_eq!(write(&alice), WriteStatus::Stored);
    }

    #[test]
    fn sweeps_what_expired_or_was_revoked() {
        let mut realm = RealmFixture::new();
        let (alice, bob) = (realm.device("alice", 1), realm.device("bob", 2));
        let mut holder = holder_with(&realm, &alice);
        let entry = bob.entry(1, realm.now);
        let account = Some(bob.account.bytes());
        holder.write(&realm.realm, bob.key(), account, Some(entry.bytes()), realm.now);
        assert_eq!(holder.sweep(&realm.realm, realm.now), Vec::<Key>::new());
        realm.revoke(bob.credential.node);
        assert_eq!(holder.sweep(&realm.realm, realm.now), [bob.key()]);
        assert!(holder.get(&bob.key()).unwrap().contact().entries().is_empty());
        let (refused, _) = holder.write(&realm.realm, bob.key(), None, Some(entry.bytes()), realm.now);
        assert_eq!(refused.status, WriteStatus::Refused);

        let later = realm.now + crate::limits::CONTACT_ENTRY_LIFE + CLOCK_TOLERANCE;
        assert_eq!(holder.sweep(&realm.realm, later), [alice.key()]);
        assert_eq!(holder.len(), 2, "the account records stay");
        let month = realm.now + yodel_identity::limits::ACCOUNT_RECORD_LIFE + CLOCK_TOLERANCE;
        assert_eq!(holder.sweep(&realm.realm, month).len(), 2);
        assert!(holder.is_empty());
    }

    #[test]
    fn what_was_stored_is_verified_when_loaded() {
        let realm = RealmFixture::new();
        let alice = realm.device("alice", 1);
        let stored = holder_with(&realm, &alice).get(&alice.key()).unwrap().encode();
        let mut holder = Holder::new();
        assert!(holder.load(&realm.realm, alice.key(), &stored, realm.now));
        assert_eq!(holder.get(&alice.key()).unwrap().encode(), stored);
        assert!(!Holder::new().load(&realm.realm, [0; 16], &stored, realm.now), "under another key");
        assert!(!Holder::new().load(&realm.realm, alice.key(), &stored[..9], realm.now));
    }
}
