//! Every verified card this process knows, each kept once.
//!
//! A member is named by a [`Slot`]: an index that costs four bytes where a card costs six hundred. A card that was
//! verified is not verified again while anybody holds its slot; who needs it no longer releases it. A newer card of a
//! member gets a slot of its own, so that whoever does not know it yet goes on with the older.
//!
//! A process needs one directory for its realm. Nodes that live in one process may share one: they then share the
//! memory and the work, never the knowledge, because a directory says nothing of who is in whose table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;

use crate::card::{Card, CardError};
use crate::placement::Member;

/// Names a card in a [`Directory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index into one's own table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Interned {
    card: Arc<Card>,
    member: Member,
    hash: [u8; 32],
    print: u32,
    holders: u32,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Vec<Option<Interned>>,
    free: Vec<u32>,
    by_hash: BTreeMap<[u8; 32], u32>,
    /// By ascending id, then slot.
    order: Vec<(NodeId, u32)>,
}

/// The cards of one realm; see the module's text. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<Mutex<Inner>>);

impl Directory {
    /// An empty directory.
    pub fn new() -> Directory {
        Directory::default()
    }

    /// Takes a card in, verifying it unless the very same is here, and holds it once more.
    ///
    /// # Errors
    /// See [`CardError`].
    pub fn intern(&self, realm: &Realm, credential: &[u8], announcement: &[u8]) -> Result<Slot, CardError> {
        let hash = hash(credential, announcement);
        if let Some(slot) = self.lock().hold(&hash) {
            return Ok(slot);
        }
        let card = Card::verify(realm, credential, announcement)?;
        Ok(self.lock().put(hash, card))
    }

    /// Takes in a card that is verified, and holds it once more.
    pub fn insert(&self, card: Card) -> Slot {
        let hash = hash(card.credential().bytes(), card.announcement().bytes());
        let mut inner = self.lock();
        inner.hold(&hash).unwrap_or_else(|| inner.put(hash, card))
    }

    /// The slot of this very announcement under this very credential, held once more, if it is here.
    pub fn known(&self, credential: &[u8], announcement: &[u8]) -> Option<Slot> {
        self.lock().hold(&hash(credential, announcement))
    }

    /// Holds these once more.
    pub fn hold_all(&self, slots: &[Slot]) {
        let mut inner = self.lock();
        for slot in slots {
            if let Some(Some(interned)) = inner.slots.get_mut(slot.index()) {
                interned.holders += 1;
            }
        }
    }

    /// Holds it no longer; the last one to do so frees it.
    pub fn release(&self, slot: Slot) {
        self.lock().release(slot);
    }

    /// The card. `None` only for a slot that is not held.
    pub fn card(&self, slot: Slot) -> Option<Arc<Card>> {
        self.lock().get(slot).map(|interned| Arc::clone(&interned.card))
    }

    /// What placement looks at.
    pub fn member(&self, slot: Slot) -> Option<Member> {
        self.lock().get(slot).map(|interned| interned.member)
    }

    /// Its part of a table's print (`message.rs`).
    pub fn print(&self, slot: Slot) -> u32 {
        self.lock().get(slot).map_or(0, |interned| interned.print)
    }

    /// Shows these, as far as they are held, with their part of a table's print.
    pub fn each(&self, slots: impl IntoIterator<Item = Slot>, mut visit: impl FnMut(Slot, &Member, u32)) {
        let inner = self.lock();
        for slot in slots {
            if let Some(interned) = inner.get(slot) {
                visit(slot, &interned.member, interned.print);
            }
        }
    }

    /// All cards of this member, whoever holds them.
    pub fn slots_of(&self, node: NodeId) -> Vec<Slot> {
        let inner = self.lock();
        let from = inner.order.partition_point(|(id, _)| *id < node);
        inner.order.iter().skip(from).take_while(|(id, _)| *id == node).map(|(_, slot)| Slot(*slot)).collect()
    }

    /// Shows all cards, the nearest to `key` first (exclusive or of the ids), until told to stop.
    pub fn walk(&self, key: &[u8; 16], mut visit: impl FnMut(Slot, &Member) -> ControlFlow<()>) {
        let inner = self.lock();
        let mut ranges = vec![inner.order.as_slice()];
        while let Some(range) = ranges.pop() {
            let (Some((first, _)), Some((last, _))) = (range.first(), range.last()) else { continue };
            if first == last {
                // One id; the cards of one member are equally far.
                for (_, slot) in range {
                    if let Some(interned) = inner.get(Slot(*slot))
                        && visit(Slot(*slot), &interned.member).is_break()
                    {
                        return;
                    }
                }
                continue;
            }
            // Split where the ids first differ; the half that agrees with the key there is nearer, whole.
            let bit = (u128::from_be_bytes(first.0) ^ u128::from_be_bytes(last.0)).leading_zeros();
            let mask = 1_u128 << (127 - bit);
            let at = range.partition_point(|(id, _)| u128::from_be_bytes(id.0) & mask == 0);
            let (zeros, ones) = range.split_at(at);
            let (near, far) =
                if u128::from_be_bytes(*key) & mask == 0 { (zeros, ones) } else { (ones, zeros) };
            ranges.push(far);
            ranges.push(near);
        }
    }

    /// Cards kept.
    pub fn len(&self) -> usize {
        self.lock().order.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing that runs under the lock panics; a poisoned one is as good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&self, slot: Slot) -> Option<&Interned> {
        self.slots.get(slot.index()).and_then(Option::as_ref)
    }

    fn hold(&mut self, hash: &[u8; 32]) -> Option<Slot> {
        let slot = *self.by_hash.get(hash)?;
        let interned = self.slots.get_mut(slot as usize)?.as_mut()?;
        interned.holders += 1;
        Some(Slot(slot))
    }

    fn put(&mut self, hash: [u8; 32], card: Card) -> Slot {
        let member = card.member();
        let print = print(member.node, card.announcement().incarnation);
        let interned = Some(Interned { card: Arc::new(card), member, hash, print, holders: 1 });
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = interned;
                }
                slot
            }
            None => {
                self.slots.push(interned);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_hash.insert(hash, slot);
        let at = self.order.partition_point(|entry| *entry < (member.node, slot));
        self.order.insert(at, (member.node, slot));
        Slot(slot)
    }

    fn release(&mut self, slot: Slot) {
        let Some(place) = self.slots.get_mut(slot.index()) else { return };
        let Some(interned) = place else { return };
        interned.holders -= 1;
        if interned.holders > 0 {
            return;
        }
        let (node, hash) = (interned.member.node, interned.hash);
        *place = None;
        self.by_hash.remove(&hash);
        if let Ok(at) = self.order.binary_search(&(node, slot.0)) {
            self.order.remove(at);
        }
        self.free.push(slot.0);
    }
}

fn hash(credential: &[u8], announcement: &[u8]) -> [u8; 32] {
    // Both are envelopes, which say their own length.
    Sha256::new().chain_update(credential).chain_update(announcement).finalize().into()
}

fn print(node: NodeId, incarnation: u64) -> u32 {
    let hash = Sha256::new().chain_update(node.0).chain_update(incarnation.to_be_bytes()).finalize();
    hash.first_chunk().copied().map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Service;
    use crate::testing::RealmFixture;

    fn intern(directory: &Directory, net: &RealmFixture, card: &Card) -> Slot {
        directory.intern(&net.realm, card.credential().bytes(), card.announcement().bytes()).unwrap()
    }

    #[test]
    fn one_card_is_kept_once_and_freed_by_the_last() {
        let net = RealmFixture::new();
        let directory = Directory::new();
        let (one, two) = (net.member(1), net.member(2));
        let slot = intern(&directory, &net, &one.card(1, Service::Alive));
        assert_eq!(intern(&directory, &net, &one.card(1, Service::Alive)), slot);
        let newer = intern(&directory, &net, &one.card(2, Service::Alive));
        assert_ne!(newer, slot);
        assert_eq!(directory.slots_of(one.credential.node).len(), 2);
        directory.release(slot);
        assert!(directory.card(slot).is_some(), "held twice");
        directory.release(slot);
        assert!(directory.card(slot).is_none());
        assert_eq!(intern(&directory, &net, &two.card(1, Service::Alive)), slot, "its place is used again");
        assert_eq!(directory.len(), 2);
        let mut forged = two.card(2, Service::Alive).announcement().bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(directory.intern(&net.realm, two.credential.bytes(), &forged).is_err());
        assert_eq!(directory.len(), 2, "what does not verify gets no slot");
    }

    #[test]
    fn the_walk_is_by_distance() {
        let net = RealmFixture::new();
        let directory = Directory::new();
        for number in 0..200 {
            intern(&directory, &net, &net.member(number).card(1, Service::Alive));
        }
        for key in [[0; 16], [0xff; 16], [0x5a; 16], net.member(7).credential.node.0] {
            let mut seen = Vec::new();
            directory.walk(&key, |_, member| {
                seen.push(member.node.distance(&key));
                ControlFlow::Continue(())
            });
            assert_eq!(seen.len(), 200);
            assert!(seen.is_sorted());
        }
    }
}
