//! The address book: contacts, requests of strangers, and the tags by which accounts admit each other.
//!
//! Contract: [`Book::add`], [`Book::accept`], [`Book::reject`], [`Book::remove`], [`Book::block`], [`Book::unblock`]
//! (the user), [`Book::handle_incoming`] (what arrived authenticated), [`Book::due`] while the phone is online, with [`Book::delivered`] for each; every change
//! leaves writes in [`Book::take_writes`] that must be stored.
//!
//! Adding somebody is accepting them: two accounts that added each other have accepted each other. An addition is told
//! to the other side, with a tag, as soon as both are online; until then it is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_call::contacts::{Contact, ContactMessage, Incoming, Tag, Word};
use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::machine::Write;
use yodel_wire::time::{Instant, Now, UnixTime};

use crate::limits::{CONTACTS_MAX, DELIVERIES_MAX, DELIVERY_RETRY, REQUESTS_MAX};

/// Store tree of contacts, by address.
pub const CONTACTS: &str = "contacts";
/// Store tree of requests, by address.
pub const REQUESTS: &str = "requests";

/// A stranger who asked or called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangerRequest {
    /// The account's root key, as its record proved.
    pub root: PublicKey,
    /// When it last came.
    pub at: UnixTime,
    /// It was a call; otherwise a request.
    pub called: bool,
    /// The tag that came with a request.
    pub tag: Option<Tag>,
    /// The note that came with it.
    pub note: String,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The book is full.
    #[error("the address book is full")]
    Full,
    /// There is no such request.
    #[error("there is no request from that account")]
    NoRequest,
    /// There is no such contact.
    #[error("there is no such contact")]
    NoContact,
    /// Nobody of this name is blocked.
    #[error("that account is not blocked")]
    NotBlocked,
    /// An account cannot be its own contact.
    #[error("that is your own account")]
    Own,
}

/// What changed about somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookNews {
    /// A stranger asks.
    Requested,
    /// A stranger called.
    StrangerCalled,
    /// Both accepted now.
    Accepted,
    /// Nothing of theirs gets here any more.
    Blocked,
    /// Not blocked any more.
    Unblocked,
    /// Nothing a user would notice.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// The tag given reached the other side.
    told: bool,
    next_try: Option<Instant>,
    in_flight: bool,
}

/// See the module's text.
pub struct Book {
    own: Aor,
    entries: BTreeMap<Aor, Entry>,
    requests: BTreeMap<Aor, StrangerRequest>,
    writes: Vec<Write>,
    rng: ChaCha20Rng,
}

impl Book {
    /// An empty book of this account.
    pub fn new(own: Aor, seed: [u8; 32]) -> Book {
        Book {
            own,
            entries: BTreeMap::new(),
            requests: BTreeMap::new(),
            writes: Vec::new(),
            rng: ChaCha20Rng::from_seed(seed),
        }
    }

    /// Takes in what the store held. Rows that cannot be read are left in the store and out of the book.
    pub fn load(&mut self, tree: &str, key: &[u8], value: &[u8]) {
        let Some(aor) = std::str::from_utf8(key).ok().and_then(|text| Aor::parse(text).ok()) else { return };
        if tree == CONTACTS {
            if let Ok(entry) = decode_contact(aor.clone(), value) {
                self.entries.insert(aor, entry);
            }
        } else if tree == REQUESTS
            && let Ok(request) = decode_request(value)
        {
            self.requests.insert(aor, request);
        }
    }

    /// All contacts, by address.
    pub fn contacts(&self) -> Vec<Contact> {
        self.entries.values().map(|entry| entry.contact.clone()).collect()
    }

    /// All requests, by address.
    pub fn requests(&self) -> impl Iterator<Item = (&Aor, &StrangerRequest)> {
        self.requests.iter()
    }

    /// Adds a contact, or accepts who asked already. Adding twice tells the other side again.
    ///
    /// # Errors
    /// `Own`, `Full`.
    pub fn add(&mut self, aor: &Aor) -> Result<BookNews, BookError> {
        if *aor == self.own {
            return Err(BookError::Own);
        }
        if self.requests.get(aor).is_some_and(|request| request.tag.is_some()) {
            return self.accept(aor);
        }
        let tag = self.draw_tag();
        if let Some(entry) = self.entries.get_mut(aor) {
            entry.contact.accepted = true;
            entry.contact.blocked = false;
            entry.contact.tag_given.get_or_insert(tag);
            entry.told = false;
            entry.next_try = None;
        } else {
            if self.entries.len() >= CONTACTS_MAX {
                return Err(BookError::Full);
            }
            // A stranger who called showed a root key; it is the one we pin.
            let root = self.requests.get(aor).map(|request| request.root);
            self.insert(aor, root, tag, None);
        }
        self.drop_request(aor);
        self.store(aor);
        Ok(BookNews::Nothing)
    }

    /// Accepts a request; our tag goes to the other side.
    ///
    /// # Errors
    /// `NoRequest`, `Full`.
    pub fn accept(&mut self, aor: &Aor) -> Result<BookNews, BookError> {
        let request = self.requests.get(aor).cloned().ok_or(BookError::NoRequest)?;
        if self.entries.len() >= CONTACTS_MAX && !self.entries.contains_key(aor) {
            return Err(BookError::Full);
        }
        let tag = self.draw_tag();
        self.insert(aor, Some(request.root), tag, request.tag);
        self.drop_request(aor);
        self.store(aor);
        Ok(if request.tag.is_some() { BookNews::Accepted } else { BookNews::Nothing })
    }

    /// Drops a request.
    ///
    /// # Errors
    /// `NoRequest`.
    pub fn reject(&mut self, aor: &Aor) -> Result<(), BookError> {
        if self.drop_request(aor) { Ok(()) } else { Err(BookError::NoRequest) }
    }

    /// Forgets a contact, and with it the tag that admitted it.
    ///
    /// # Errors
    /// `NoContact`.
    pub fn remove(&mut self, aor: &Aor) -> Result<(), BookError> {
        self.entries.remove(aor).ok_or(BookError::NoContact)?;
        self.writes.push(write(CONTACTS, aor, None));
        Ok(())
    }

    /// Blocks an account, known or not: its calls and requests come to nothing, and it is answered as a stranger.
    ///
    /// # Errors
    /// `Own`, `Full`.
    pub fn block(&mut self, aor: &Aor) -> Result<(), BookError> {
        if *aor == self.own {
            return Err(BookError::Own);
        }
        if !self.entries.contains_key(aor) {
            if self.entries.len() >= CONTACTS_MAX {
                return Err(BookError::Full);
            }
            let root = self.requests.get(aor).map(|request| request.root);
            let contact = Contact {
                aor: aor.clone(),
                root,
                accepted: false,
                blocked: true,
                tag_given: None,
                tag_held: None,
            };
            self.entries
                .insert(aor.clone(), Entry { contact, told: false, next_try: None, in_flight: false });
        }
        if let Some(entry) = self.entries.get_mut(aor) {
            entry.contact.blocked = true;
        }
        self.drop_request(aor);
        self.store(aor);
        Ok(())
    }

    /// Takes a block back: a contact is one again, a stranger a stranger.
    ///
    /// # Errors
    /// `NotBlocked`.
    pub fn unblock(&mut self, aor: &Aor) -> Result<(), BookError> {
        let entry = self.entries.get_mut(aor).filter(|entry| entry.contact.blocked);
        let entry = entry.ok_or(BookError::NotBlocked)?;
        entry.contact.blocked = false;
        if entry.contact.accepted {
            self.store(aor);
            return Ok(());
        }
        self.remove(aor)
    }

    /// Somebody called, asked or accepted; the root key is proved.
    pub fn handle_incoming(&mut self, now: Now, incoming: &Incoming) -> BookNews {
        let tag = match &incoming.what {
            Word::Called => None,
            Word::Message(ContactMessage::Request { tag, .. } | ContactMessage::Accepted { tag }) => {
                Some(*tag)
            }
            Word::Message(ContactMessage::Text(_)) => return BookNews::Nothing,
            Word::TagGiven(tag) => Some(*tag),
        };
        if self.entries.contains_key(&incoming.from) {
            // Only a pinned key speaks for a contact.
            return self.known(&incoming.from, incoming, tag).unwrap_or(BookNews::Nothing);
        }
        self.stranger(now, incoming, tag)
    }

    fn known(&mut self, aor: &Aor, incoming: &Incoming, tag: Option<Tag>) -> Option<BookNews> {
        let entry = self.entries.get_mut(aor)?;
        if entry.contact.blocked || entry.contact.root.is_some_and(|root| root != incoming.root) {
            return None;
        }
        entry.contact.root = Some(incoming.root);
        let was_mutual = entry.contact.is_mutual();
        if let Some(tag) = tag {
            entry.contact.tag_held = Some(tag);
        }
        if matches!(incoming.what, Word::Message(ContactMessage::Request { .. })) {
            // Who asks does not hold our tag, or lost it.
            entry.told = false;
            entry.next_try = None;
        }
        let news =
            if !was_mutual && entry.contact.is_mutual() { BookNews::Accepted } else { BookNews::Nothing };
        self.store(aor);
        Some(news)
    }

    fn stranger(&mut self, now: Now, incoming: &Incoming, tag: Option<Tag>) -> BookNews {
        let (called, note) = match &incoming.what {
            Word::Called => (true, String::new()),
            Word::Message(ContactMessage::Request { note, .. }) => (false, note.clone()),
            // A tag of somebody we do not know: as good as a request.
            Word::Message(ContactMessage::Accepted { .. }) | Word::TagGiven(_) => (false, String::new()),
            Word::Message(ContactMessage::Text(_)) => return BookNews::Nothing,
        };
        let old = self.requests.get(&incoming.from);
        let same = old.is_some_and(|old| old.root == incoming.root);
        let request = StrangerRequest {
            root: incoming.root,
            at: now.unix,
            called,
            tag: tag.or(if same { old.and_then(|old| old.tag) } else { None }),
            note,
        };
        if old.is_none() && self.requests.len() >= REQUESTS_MAX {
            let oldest = self.requests.iter().min_by_key(|(_, r)| r.at).map(|(aor, _)| aor.clone());
            if let Some(oldest) = oldest {
                self.drop_request(&oldest);
            }
        }
        self.writes.push(write(REQUESTS, &incoming.from, Some(encode_request(&request))));
        self.requests.insert(incoming.from.clone(), request);
        if called { BookNews::StrangerCalled } else { BookNews::Requested }
    }

    /// Pins the root key of a contact that had none; false when another one is pinned.
    pub fn pin(&mut self, aor: &Aor, root: PublicKey) -> bool {
        let Some(entry) = self.entries.get_mut(aor) else { return false };
        match entry.contact.root {
            Some(pinned) => pinned == root,
            None => {
                entry.contact.root = Some(root);
                self.store(aor);
                true
            }
        }
    }

    /// What shall be told to others now, marked as on its way: call [`delivered`](Self::delivered) for each.
    pub fn due(&mut self, now: Now) -> Vec<Aor> {
        let in_flight = self.entries.values().filter(|entry| entry.in_flight).count();
        let due: Vec<Aor> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.told && !e.in_flight && e.contact.accepted && !e.contact.blocked)
            .filter(|(_, e)| e.next_try.is_none_or(|at| at <= now.mono))
            .take(DELIVERIES_MAX.saturating_sub(in_flight))
            .map(|(aor, _)| aor.clone())
            .collect();
        for aor in &due {
            if let Some(entry) = self.entries.get_mut(aor) {
                entry.in_flight = true;
            }
        }
        due
    }

    /// What to tell this contact: an acceptance when it asked, a request otherwise.
    pub fn message_for(&self, aor: &Aor) -> Option<ContactMessage> {
        let contact = &self.entries.get(aor)?.contact;
        let tag = contact.tag_given?;
        Some(match contact.tag_held {
            Some(_) => ContactMessage::Accepted { tag },
            None => ContactMessage::Request { tag, note: String::new() },
        })
    }

    /// How a delivery went.
    pub fn delivered(&mut self, now: Now, aor: &Aor, ok: bool) {
        let Some(entry) = self.entries.get_mut(aor) else { return };
        entry.in_flight = false;
        if ok {
            entry.told = true;
            self.store(aor);
        } else {
            let jitter = Duration::from_millis(self.rng.next_u64() % 5_000);
            if let Some(entry) = self.entries.get_mut(aor) {
                entry.next_try = Some(now.mono + DELIVERY_RETRY + jitter);
            }
        }
    }

    /// When [`due`](Self::due) has something.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter(|e| !e.told && !e.in_flight && e.contact.accepted && !e.contact.blocked)
            .filter_map(|e| e.next_try)
            .min()
    }

    /// The changes since the last call, to be stored.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    fn insert(&mut self, aor: &Aor, root: Option<PublicKey>, given: Tag, held: Option<Tag>) {
        let contact = Contact {
            aor: aor.clone(),
            root,
            accepted: true,
            blocked: false,
            tag_given: Some(given),
            tag_held: held,
        };
        self.entries.insert(aor.clone(), Entry { contact, told: false, next_try: None, in_flight: false });
    }

    fn draw_tag(&mut self) -> Tag {
        let mut tag = [0; 16];
        self.rng.fill_bytes(&mut tag);
        Tag(tag)
    }

    fn drop_request(&mut self, aor: &Aor) -> bool {
        let dropped = self.requests.remove(aor).is_some();
        if dropped {
            self.writes.push(write(REQUESTS, aor, None));
        }
        dropped
    }

    fn store(&mut self, aor: &Aor) {
        if let Some(entry) = self.entries.get(aor) {
            let value = encode_contact(entry);
            self.writes.push(write(CONTACTS, aor, Some(value)));
        }
    }
}

fn write(tree: &'static str, aor: &Aor, value: Option<Vec<u8>>) -> Write {
    Write { tree, key: aor.to_string().into_bytes(), value, journaled: false }
}

// Rows of the store. Keys of a contact: 1 root, 2 accepted, 3 blocked, 4 tag given, 5 tag held, 6 told. Keys of a
// request: 1 root, 2 when (ms), 3 called, 4 tag, 5 note.

fn encode_contact(entry: &Entry) -> Vec<u8> {
    let contact = &entry.contact;
    MapWriter::new()
        .opt_bytes(1, contact.root.as_ref().map(|root| root.0.as_slice()))
        .bool(2, contact.accepted)
        .bool(3, contact.blocked)
        .opt_bytes(4, contact.tag_given.as_ref().map(|tag| tag.0.as_slice()))
        .opt_bytes(5, contact.tag_held.as_ref().map(|tag| tag.0.as_slice()))
        .bool(6, entry.told)
        .finish()
}

fn decode_contact(aor: Aor, value: &[u8]) -> Result<Entry, DecodeError> {
    let mut map = MapReader::parse(value)?;
    let contact = Contact {
        aor,
        root: map.opt_array(1)?.map(PublicKey),
        accepted: map.opt_bool(2)?.unwrap_or(false),
        blocked: map.opt_bool(3)?.unwrap_or(false),
        tag_given: map.opt_array(4)?.map(Tag),
        tag_held: map.opt_array(5)?.map(Tag),
    };
    let told = map.opt_bool(6)?.unwrap_or(false);
    map.finish()?;
    Ok(Entry { contact, told, next_try: None, in_flight: false })
}

fn encode_request(request: &StrangerRequest) -> Vec<u8> {
    MapWriter::new()
        .bytes(1, &request.root.0)
        .uint(2, request.at.as_millis())
        .bool(3, request.called)
        .opt_bytes(4, request.tag.as_ref().map(|tag| tag.0.as_slice()))
        .text(5, &request.note)
        .finish()
}

fn decode_request(value: &[u8]) -> Result<StrangerRequest, DecodeError> {
    let mut map = MapReader::parse(value)?;
    let request = StrangerRequest {
        root: PublicKey(map.array(1)?),
        at: UnixTime::from_millis(map.uint(2)?),
        called: map.opt_bool(3)?.unwrap_or(false),
        tag: map.opt_array(4)?.map(Tag),
        note: map.opt_text(5, yodel_call::limits::TEXT_BYTES_MAX)?.unwrap_or_default().to_owned(),
    };
    map.finish()?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::NodeId;

    use super::*;

    fn aor(text: &str) -> Aor {
        Aor::parse(text).unwrap()
    }

    fn incoming(from: &str, root: u8, what: Word) -> Incoming {
        Incoming { from: aor(from), root: PublicKey([root; 32]), device: NodeId([1; 16]), what }
    }

    fn book() -> Book {
        Book::new(aor("bob@example.net"), [1; 32])
    }

    #[test]
    fn two_who_added_each_other_have_accepted_each_other() {
        let now = Now::default();
        let mut book = book();
        assert_eq!(book.add(&aor("alice@example.net")), Ok(BookNews::Nothing));
        assert_eq!(book.due(now), [aor("alice@example.net")]);
        assert!(book.due(now).is_empty(), "one delivery at a time");
        let request = ContactMessage::Request { tag: Tag([7; 16]), note: String::new() };
        let news = book.handle_incoming(now, &incoming("alice@example.net", 3, Word::Message(request)));
        assert_eq!(news, BookNews::Accepted);
        assert!(book.contacts()[0].is_mutual());
        let told = book.message_for(&aor("alice@example.net"));
        assert!(matches!(told, Some(ContactMessage::Accepted { .. })));
    }

    #[test]
    fn another_root_key_does_not_speak_for_a_contact() {
        let now = Now::default();
        let mut book = book();
        book.add(&aor("alice@example.net")).unwrap();
        assert!(book.pin(&aor("alice@example.net"), PublicKey([3; 32])));
        let accepted = ContactMessage::Accepted { tag: Tag([7; 16]) };
        let news = book.handle_incoming(now, &incoming("alice@example.net", 4, Word::Message(accepted)));
        assert_eq!(news, BookNews::Nothing);
        assert!(!book.contacts()[0].is_mutual());
        assert!(!book.pin(&aor("alice@example.net"), PublicKey([4; 32])));
    }

    #[test]
    fn strangers_wait_in_a_bounded_list_and_can_be_accepted() {
        let now = Now::default();
        let mut book = book();
        assert_eq!(
            book.handle_incoming(now, &incoming("eve@example.net", 5, Word::Called)),
            BookNews::StrangerCalled
        );
        assert_eq!(book.accept(&aor("nobody@example.net")), Err(BookError::NoRequest));
        assert_eq!(book.accept(&aor("eve@example.net")), Ok(BookNews::Nothing));
        assert_eq!(book.requests().count(), 0);
        for n in 0..REQUESTS_MAX + 5 {
            let now = Now { unix: UnixTime::from_secs(n as u64), ..now };
            book.handle_incoming(now, &incoming(&format!("s{n}@example.net"), 5, Word::Called));
        }
        assert_eq!(book.requests().count(), REQUESTS_MAX);
        assert!(book.requests().all(|(who, _)| *who != aor("s0@example.net")));
    }

    #[test]
    fn the_blocked_come_to_nothing_until_unblocked() {
        let now = Now::default();
        let (alice, eve) = (aor("alice@example.net"), aor("eve@example.net"));
        let mut book = book();
        book.add(&alice).unwrap();
        book.due(now);
        book.delivered(now, &alice, false);
        book.handle_incoming(now, &incoming("eve@example.net", 5, Word::Called));
        for who in [&alice, &eve] {
            assert_eq!(book.unblock(who), Err(BookError::NotBlocked));
            assert_eq!(book.block(who), Ok(()));
        }
        assert_eq!((book.requests().count(), book.deadline()), (0, None));
        for who in ["alice@example.net", "eve@example.net"] {
            let request = ContactMessage::Request { tag: Tag([7; 16]), note: String::new() };
            let news = book.handle_incoming(now, &incoming(who, 5, Word::Message(request)));
            assert_eq!(news, BookNews::Nothing);
        }
        assert_eq!(book.requests().count(), 0);
        assert_eq!(book.unblock(&alice), Ok(()));
        assert_eq!(book.unblock(&eve), Ok(()));
        assert!(book.deadline().is_some(), "told again");
        let left: Vec<Aor> = book.contacts().into_iter().map(|contact| contact.aor).collect();
        assert_eq!(left, [alice], "a stranger is a stranger again");
        assert_eq!(book.block(&aor("bob@example.net")), Err(BookError::Own));
    }

    #[test]
    fn what_is_stored_comes_back() {
        let now = Now::default();
        let mut one = book();
        one.add(&aor("alice@example.net")).unwrap();
        one.handle_incoming(now, &incoming("eve@example.net", 5, Word::Called));
        let mut two = book();
        for write in one.take_writes() {
            two.load(write.tree, &write.key, &write.value.unwrap());
        }
        assert_eq!(one.contacts(), two.contacts());
        assert_eq!(one.requests().collect::<Vec<_>>(), two.requests().collect::<Vec<_>>());
    }
}
