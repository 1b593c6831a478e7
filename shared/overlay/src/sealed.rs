//! One sealed datagram between two members, without a handshake: keys come from what the login server certified.
//!
//! ```text
//!   0        1         2           18            20             22        30         38
//!   +--------+---------+-----------+-------------+--------------+---------+----------+---------------+
//!   | 20     | version | sender    | sender's    | receiver's   | boot    | counter  | box           |
//!   |        | 1       | node id   | key id      | key id       | prefix  |          | ... + 16      |
//!   +--------+---------+-----------+-------------+--------------+---------+----------+---------------+
//! ```
//! A key id is the first two bytes of the SHA-256 of an X25519 public key. The box is XChaCha20-Poly1305 over the
//! plaintext with the 38 bytes in front as associated data; its nonce is the boot prefix, the counter and eight zero
//! bytes. Each pair of keys has one key per direction:
//!
//! ```text
//!   HKDF-SHA-256(salt "yodel/overlay/v1", X25519(own secret, peer's public),
//!                sender's public ‖ receiver's public ‖ sender's node id ‖ receiver's node id)
//! ```
//! A member that renewed its key is spoken to under the new one as soon as its new credential is known, and speaks under
//! the one before until it sees that the other knows: nobody is cut off because news travel.
//!
//! The boot prefix is drawn anew at each start, so that a counter that begins at 0 again repeats no nonce.
//!
//! Contract: [`Exchange::set_own`] with one's keys, [`Exchange::forget`] when a member renewed its key or left; then
//! [`Exchange::seal`] and [`Exchange::open`] with the sealing key that a *verified* credential names for the other side.
//! Only a known member that names both keys rightly ever costs an agreement, only its first datagram under a key, and
//! all of them together no more than [`AGREEMENTS_PER_S`]: junk costs a look at a map. [`Exchange::derive`] computes a
//! pair before anybody asks. There is no replay window: requests are idempotent, answers echo an id, and an answer goes
//! to the member's listed address whatever source a datagram came from.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use sha2::{Digest, Sha256};
use yodel_identity::keys::{SealingKey, SealingPublic};
use yodel_identity::node::NodeId;
use yodel_identity::seal::{BOX_NONCE_BYTES, BOX_TAG_BYTES, hkdf32, open, seal};
use yodel_wire::first_byte::{DATAGRAM_VERSION, OVERLAY};
use yodel_wire::time::Instant;
use zeroize::Zeroizing;

use crate::limits::{AGREEMENTS_PER_S, OWN_KEY_FRESH, OWN_SEALING_KEYS_MAX};

/// Bytes in front of the box.
pub const HEADER_BYTES: usize = 38;

/// Bytes that sealing adds.
pub const SEALED_OVERHEAD_BYTES: usize = HEADER_BYTES + BOX_TAG_BYTES;

const SALT: &[u8] = b"yodel/overlay/v1";

/// Names one of a member's sealing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 2]);

impl KeyId {
    /// The id of this key.
    pub fn of(key: &SealingPublic) -> KeyId {
        let [first, second, ..] = <[u8; 32]>::from(Sha256::digest(key.0));
        KeyId([first, second])
    }
}

/// Why a datagram was not opened. Nothing is ever answered to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It is too short, or not of this kind.
    #[error("not a sealed overlay datagram")]
    Malformed,
    /// A version that is not spoken here.
    #[error("another version")]
    Version(u8),
    /// The sender is no verified member.
    #[error("from nobody known")]
    Stranger(NodeId),
    /// The sender names a key of its own that is not the one known: it has renewed its credential, or somebody lies.
    #[error("under a key of the sender that is not known")]
    SenderKey(NodeId),
    /// The sender uses a key of ours that we no longer have, or never had.
    #[error("for a key that is not ours")]
    ReceiverKey(NodeId),
    /// Too many first datagrams at once; the sender repeats it.
    #[error("too many key agreements at once")]
    Busy(NodeId),
    /// The box does not open: forged or damaged.
    #[error("forged or damaged")]
    Forged(NodeId),
}

#[derive(Debug)]
struct Own {
    id: KeyId,
    key: SealingKey,
    public: SealingPublic,
}

/// Both directions' keys under one of our own keys and one of the peer's.
#[derive(Debug)]
struct Pair {
    /// The peer has sent something under it: it knows our key.
    heard: bool,
    /// The peer has a newer key: it is opened with this until it uses that.
    retired: bool,
    /// The peer's key: two keys may share an id.
    public: SealingPublic,
    send: Zeroizing<[u8; 32]>,
    receive: Zeroizing<[u8; 32]>,
    /// Number of the datagram that last used it; wraps after four thousand million, and then only evicts badly.
    used: u32,
}

/// What the header says.
struct Header<'a> {
    sender: NodeId,
    sender_key: KeyId,
    receiver_key: KeyId,
    nonce: [u8; BOX_NONCE_BYTES],
    associated: &'a [u8],
    sealed: &'a [u8],
}

/// Seals and opens datagrams of one member; see the module's text.
#[derive(Debug)]
pub struct Exchange {
    me: NodeId,
    own: Vec<Own>,
    /// By peer, our key and the peer's.
    pairs: BTreeMap<(NodeId, KeyId, KeyId), Pair>,
    pairs_max: usize,
    boot: [u8; 8],
    counter: u64,
    used: u32,
    agreements: u64,
    /// Agreements that strangers to the map may still cause, and as of when.
    budget: u32,
    refilled: Instant,
    /// Until then our newest key may be unknown to others, who are spoken to under the one before.
    fresh_until: Instant,
    /// When something was last opened: as late as it needs to be known here.
    opened_at: Instant,
}

impl Exchange {
    /// An exchange that has no keys yet. `boot` is drawn at random at each start. Of more pairs than `pairs_max` the one
    /// unused for longest goes and is computed again when needed.
    pub fn new(me: NodeId, boot: [u8; 8], pairs_max: usize) -> Exchange {
        Exchange {
            me,
            own: Vec::new(),
            pairs: BTreeMap::new(),
            pairs_max,
            boot,
            counter: 0,
            used: 0,
            agreements: 0,
            budget: AGREEMENTS_PER_S,
            refilled: Instant::ORIGIN,
            fresh_until: Instant::ORIGIN,
            opened_at: Instant::ORIGIN,
        }
    }

    /// These are our keys, the newest first; those beyond [`OWN_SEALING_KEYS_MAX`] are not used. Pairs under keys that
    /// are gone go with them. A newest key that was not there before is unknown to others at first: for
    /// [`OWN_KEY_FRESH`] they are spoken to under the one before, unless they show that they know it.
    pub fn set_own(&mut self, now: Instant, keys: &[SealingKey]) {
        let before = self.own.first().map(|own| own.id);
        self.own = keys
            .iter()
            .take(OWN_SEALING_KEYS_MAX)
            .map(|key| {
                let public = key.public();
                Own { id: KeyId::of(&public), key: key.clone(), public }
            })
            .collect();
        if before.is_some() && before != self.own.first().map(|own| own.id) {
            self.fresh_until = now + OWN_KEY_FRESH;
            self.opened_at = self.opened_at.max(now);
        }
        let own = &self.own;
        self.pairs.retain(|(_, id, _), _| own.iter().any(|key| key.id == *id));
    }

    /// This member is no longer spoken to.
    pub fn forget(&mut self, node: NodeId) {
        self.drop_pairs(node, |_| true);
    }

    /// A member has announced itself anew: what it gets is sealed under this key from now on. What it seals under the
    /// one before is opened until it uses this.
    pub fn renewed(&mut self, node: NodeId, public: &SealingPublic) {
        for (_, pair) in self.pairs.range_mut(all_of(node)) {
            pair.retired = pair.public != *public;
        }
    }

    fn drop_pairs(&mut self, node: NodeId, gone: impl Fn(&Pair) -> bool) {
        let pairs = self.pairs.range(all_of(node)).filter(|(_, pair)| gone(pair));
        let ids: Vec<_> = pairs.map(|(id, _)| *id).collect();
        for id in ids {
            self.pairs.remove(&id);
        }
    }

    /// Key agreements computed so far: at most one for each member's key and each of ours, unless pairs had to go.
    pub fn agreements(&self) -> u64 {
        self.agreements
    }

    /// Pairs kept.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Computes the pair with a member under our newest key, if it is not there. Returns whether it was computed.
    pub fn derive(&mut self, node: NodeId, public: &SealingPublic) -> bool {
        let Some(newest) = self.own.first().map(|own| own.id) else { return false };
        if self.pairs.contains_key(&(node, newest, KeyId::of(public))) {
            return false;
        }
        self.agree(node, newest, public);
        true
    }

    /// Seals `plaintext` for a member, under its newest key and the newest of ours that it knows. `key_of` is asked for
    /// the member's only when no pair is kept. `None` when there is none, or it is worthless, and when we have no key.
    pub fn seal(
        &mut self,
        to: NodeId,
        key_of: impl FnOnce() -> Option<SealingPublic>,
        plaintext: &[u8],
    ) -> Option<Vec<u8>> {
        let own = self.spoken(to)?;
        let of_own = (to, own, KeyId([0; 2]))..=(to, own, KeyId([0xff; 2]));
        let kept = self.pairs.range(of_own).find(|(_, pair)| !pair.retired).map(|(id, _)| *id);
        let id = match kept {
            Some(id) => id,
            None => self.agree(to, own, &key_of()?)?,
        };
        self.counter += 1;
        self.used = self.used.wrapping_add(1);
        let pair = self.pairs.get_mut(&id)?;
        pair.used = self.used;
        let mut datagram = Vec::with_capacity(SEALED_OVERHEAD_BYTES + plaintext.len());
        datagram.extend_from_slice(&[OVERLAY, DATAGRAM_VERSION]);
        datagram.extend_from_slice(&self.me.0);
        datagram.extend_from_slice(&own.0);
        datagram.extend_from_slice(&id.2.0);
        datagram.extend_from_slice(&self.boot);
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        let nonce = nonce(&self.boot, self.counter);
        let sealed = seal(&pair.send, &nonce, &datagram, plaintext);
        datagram.extend_from_slice(&sealed);
        Some(datagram)
    }

    /// The key of ours that a member is spoken to under: the newest it used, else the newest that it can know by now.
    fn spoken(&self, to: NodeId) -> Option<KeyId> {
        let is_used = |own: &KeyId| {
            let of_own = (to, *own, KeyId([0; 2]))..=(to, *own, KeyId([0xff; 2]));
            self.pairs.range(of_own).any(|(_, pair)| pair.heard)
        };
        let used = self.own.iter().map(|own| own.id).find(is_used);
        let before = self.own.get(1).filter(|_| self.opened_at < self.fresh_until).map(|own| own.id);
        used.or(before).or(self.own.first().map(|own| own.id))
    }

    /// Opens a datagram: who sent it, and what. `key_of` tells the sealing key of a member in the table, and is asked
    /// only when no pair is kept.
    ///
    /// # Errors
    /// What is wrong with it. Only [`NotOpened::SenderKey`] and [`NotOpened::ReceiverKey`] may ask for something to be
    /// done, rarely: whoever sends them is not proved.
    pub fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        key_of: impl FnOnce(NodeId) -> Option<SealingPublic>,
    ) -> Result<(NodeId, Zeroizing<Vec<u8>>), NotOpened> {
        let header = read_header(datagram)?;
        if header.sender == self.me {
            // Nobody writes to itself, and no agreement with itself is to be had by claiming so.
            return Err(NotOpened::Stranger(header.sender));
        }
        self.opened_at = self.opened_at.max(now);
        let id = (header.sender, header.receiver_key, header.sender_key);
        if !self.pairs.contains_key(&id) {
            let newest = key_of(header.sender).ok_or(NotOpened::Stranger(header.sender))?;
            // Both may have renewed: it speaks to our newest key under the one before its newest.
            let before = || self.pairs.range(all_of(header.sender)).map(|(_, pair)| pair.public);
            let public = std::iter::once(newest)
                .chain(before())
                .find(|public| KeyId::of(public) == header.sender_key)
                .ok_or(NotOpened::SenderKey(header.sender))?;
            if !self.own.iter().any(|key| key.id == header.receiver_key) {
                return Err(NotOpened::ReceiverKey(header.sender));
            }
            if !self.may_agree(now) {
                return Err(NotOpened::Busy(header.sender));
            }
            let retired = newest != public;
            self.agree(header.sender, header.receiver_key, &public);
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.retired = retired;
            }
        }
        self.used = self.used.wrapping_add(1);
        let pair = self.pairs.get_mut(&id).ok_or(NotOpened::Forged(header.sender))?;
        match open(&pair.receive, &header.nonce, header.associated, header.sealed) {
            Ok(plaintext) => {
                pair.used = self.used;
                pair.heard = true;
                if !pair.retired {
                    self.drop_pairs(header.sender, |pair| pair.retired);
                }
                Ok((header.sender, plaintext))
            }
            Err(_) => Err(NotOpened::Forged(header.sender)),
        }
    }

    fn may_agree(&mut self, now: Instant) -> bool {
        if now.since(self.refilled) >= Duration::from_secs(1) {
            self.refilled = now;
            self.budget = AGREEMENTS_PER_S;
        }
        let may = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        may
    }

    /// Computes and keeps the pair with this member under this key of ours; nothing when either key is worthless.
    fn agree(&mut self, node: NodeId, own: KeyId, public: &SealingPublic) -> Option<(NodeId, KeyId, KeyId)> {
        let ours = self.own.iter().find(|key| key.id == own)?;
        self.agreements += 1;
        let shared = ours.key.agree(public).ok()?;
        let key = |from: &SealingPublic, to: &SealingPublic, sender: NodeId, receiver: NodeId| {
            let info = [&from.0[..], &to.0[..], &sender.0[..], &receiver.0[..]].concat();
            hkdf32(SALT, shared.as_bytes(), &info)
        };
        let pair = Pair {
            heard: false,
            retired: false,
            public: *public,
            send: key(&ours.public, public, self.me, node),
            receive: key(public, &ours.public, node, self.me),
            used: self.used,
        };
        if self.pairs.len() >= self.pairs_max
            && let Some(oldest) = self.pairs.iter().min_by_key(|(_, pair)| pair.used).map(|(id, _)| *id)
        {
            self.pairs.remove(&oldest);
        }
        let id = (node, own, KeyId::of(public));
        self.pairs.insert(id, pair);
        Some(id)
    }
}

/// Who claims to have sent a datagram, and how long a message it holds; nothing of it is proved.
///
/// # Errors
/// It is no sealed datagram.
pub fn peek(datagram: &[u8]) -> Result<(NodeId, usize), NotOpened> {
    read_header(datagram).map(|header| (header.sender, header.sealed.len() - BOX_TAG_BYTES))
}

fn read_header(datagram: &[u8]) -> Result<Header<'_>, NotOpened> {
    let (header, sealed) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(NotOpened::Malformed)?;
    let (kind, rest) = header.split_first().ok_or(NotOpened::Malformed)?;
    let (version, rest) = rest.split_first().ok_or(NotOpened::Malformed)?;
    if *kind != OVERLAY || sealed.len() < BOX_TAG_BYTES {
        return Err(NotOpened::Malformed);
    }
    if *version != DATAGRAM_VERSION {
        return Err(NotOpened::Version(*version));
    }
    let (sender, rest) = rest.split_first_chunk().ok_or(NotOpened::Malformed)?;
    let (sender_key, rest) = rest.split_first_chunk().ok_or(NotOpened::Malformed)?;
    let (receiver_key, rest) = rest.split_first_chunk().ok_or(NotOpened::Malformed)?;
    let (boot, rest) = rest.split_first_chunk().ok_or(NotOpened::Malformed)?;
    let counter = u64::from_be_bytes(*rest.first_chunk().ok_or(NotOpened::Malformed)?);
    Ok(Header {
        sender: NodeId(*sender),
        sender_key: KeyId(*sender_key),
        receiver_key: KeyId(*receiver_key),
        nonce: nonce(boot, counter),
        associated: header,
        sealed,
    })
}

/// All pairs with a member.
fn all_of(node: NodeId) -> RangeInclusive<(NodeId, KeyId, KeyId)> {
    (node, KeyId([0; 2]), KeyId([0; 2]))..=(node, KeyId([0xff; 2]), KeyId([0xff; 2]))
}

fn nonce(boot: &[u8; 8], counter: u64) -> [u8; BOX_NONCE_BYTES] {
    let mut nonce = [0; BOX_NONCE_BYTES];
    for (to, from) in nonce.iter_mut().zip(boot.iter().chain(&counter.to_be_bytes())) {
        *to = *from;
    }
    nonce
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::hex;

    use super::*;

    const NOW: Instant = Instant::ORIGIN;
    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    fn key(seed: u8) -> SealingKey {
        SealingKey::from_bytes([seed; 32])
    }

    /// A has key 3, B has key 4.
    fn two() -> (Exchange, Exchange) {
        let mut a = Exchange::new(A, [7; 8], 8);
        let mut b = Exchange::new(B, [8; 8], 8);
        a.set_own(NOW, &[key(3)]);
        b.set_own(NOW, &[key(4)]);
        (a, b)
    }

    fn to_b(a: &mut Exchange, text: &[u8]) -> Vec<u8> {
        a.seal(B, || Some(key(4).public()), text).unwrap()
    }

    fn at_b(b: &mut Exchange, datagram: &[u8]) -> Result<Vec<u8>, NotOpened> {
        b.open(NOW, datagram, |node| (node == A).then(|| key(3).public())).map(|(_, text)| text.to_vec())
    }

    #[test]
    fn golden() {
        let (mut a, mut b) = two();
        let datagram = to_b(&mut a, b"ping");
        assert_eq!(hex(&datagram), include_str!("sealed/golden.txt").trim());
        assert_eq!(at_b(&mut b, &datagram).unwrap(), b"ping");
        assert_eq!(datagram.len(), SEALED_OVERHEAD_BYTES + 4);
        assert_eq!(peek(&datagram), Ok((A, 4)));
    }

    #[test]
    fn both_directions_differ_and_no_nonce_repeats() {
        let (mut a, mut b) = two();
        let first = to_b(&mut a, b"same");
        let second = to_b(&mut a, b"same");
        assert_ne!(first[HEADER_BYTES..], second[HEADER_BYTES..]);
        let back = b.seal(A, || Some(key(3).public()), b"same").unwrap();
        let at_a = |a: &mut Exchange, datagram: &[u8]| a.open(NOW, datagram, |_| Some(key(4).public()));
        assert_eq!(at_a(&mut a, &back).unwrap().1.as_slice(), b"same");
        // A datagram sent back to its sender under the receiver's name.
        let mut reflected = first.clone();
        reflected[2..18].copy_from_slice(&[2; 16]);
        let ids: Vec<u8> = [&first[20..22], &first[18..20]].concat();
        reflected[18..22].copy_from_slice(&ids);
        assert_eq!(at_a(&mut a, &reflected), Err(NotOpened::Forged(B)));
        assert_eq!((a.agreements(), b.agreements()), (1, 1));
    }

    #[test]
    fn every_touched_bit_is_noticed() {
        let (mut a, mut b) = two();
        let datagram = to_b(&mut a, b"ping");
        for bit in 0..datagram.len() * 8 {
            let mut touched = datagram.clone();
            touched[bit / 8] ^= 1 << (bit % 8);
            assert!(at_b(&mut b, &touched).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(at_b(&mut b, &datagram[..length]).is_err());
        }
        assert_eq!(b.agreements(), 1);
    }

    #[test]
    fn strangers_and_wrong_keys_cost_no_agreement() {
        let (mut a, mut b) = two();
        let datagram = to_b(&mut a, b"ping");
        assert_eq!(b.open(NOW, &datagram, |_| None), Err(NotOpened::Stranger(A)));
        assert_eq!(b.open(NOW, &datagram, |_| Some(key(9).public())), Err(NotOpened::SenderKey(A)));
        b.set_own(NOW, &[key(10)]);
        assert_eq!(at_b(&mut b, &datagram), Err(NotOpened::ReceiverKey(A)));
        assert_eq!(b.agreements(), 0);
    }

    #[test]
    fn who_claims_to_be_oneself_costs_no_agreement() {
        let (mut a, mut b) = two();
        let mut datagram = to_b(&mut a, b"ping");
        let own = KeyId::of(&key(4).public());
        datagram[2..18].copy_from_slice(&B.0);
        datagram[18..20].copy_from_slice(&own.0);
        datagram[20..22].copy_from_slice(&own.0);
        let opened = b.open(NOW, &datagram, |_| Some(key(4).public()));
        assert_eq!(opened, Err(NotOpened::Stranger(B)));
        assert_eq!(b.agreements(), 0);
    }

    /// B renews from key 4 to key 11 while A is slow to learn of it.
    #[test]
    fn renewal_interrupts_nobody() {
        let (mut a, mut b) = two();
        let at_a = |a: &mut Exchange, known: u8, datagram: &[u8]| {
            a.open(NOW, datagram, |_| Some(key(known).public())).map(|(_, text)| text.to_vec())
        };
        let to_a = |b: &mut Exchange| b.seal(A, || Some(key(3).public()), b"news").unwrap();
        b.set_own(NOW, &[key(11), key(4)]);
        // A has not spoken yet: the key before is the one it can know.
        let early = to_a(&mut b);
        assert_eq!(at_a(&mut a, 4, &early).unwrap(), b"news");
        // It speaks under what it knows, and is answered so, however long it takes.
        let old = to_b(&mut a, b"ping");
        let late = NOW + 2 * OWN_KEY_FRESH;
        assert!(b.open(late, &old, |_| Some(key(3).public())).is_ok());
        let answer = to_a(&mut b);
        assert_eq!(at_a(&mut a, 4, &answer).unwrap(), b"news");
        // It learns of the new key: what B still seals under the old one is opened.
        a.renewed(B, &key(11).public());
        assert_eq!(at_a(&mut a, 11, &to_a(&mut b)).unwrap(), b"news");
        let new = a.seal(B, || Some(key(11).public()), b"ping").unwrap();
        assert_eq!(at_b(&mut b, &new).unwrap(), b"ping");
        let answer = to_a(&mut b);
        assert_eq!(at_a(&mut a, 11, &answer).unwrap(), b"news");
        assert_eq!(at_a(&mut a, 11, &early), Err(NotOpened::SenderKey(B)), "the old key has had its time");
        b.set_own(late, &[key(11)]);
        assert_eq!(at_b(&mut b, &old), Err(NotOpened::ReceiverKey(A)));
    }

    #[test]
    fn pairs_are_few_and_agreements_are_rare() {
        let (_, mut b) = two();
        b.pairs_max = 2;
        for number in 1..=3 {
            assert!(b.derive(NodeId([number; 16]), &key(number).public()));
        }
        assert!(!b.derive(NodeId([3; 16]), &key(3).public()));
        assert_eq!((b.pairs(), b.agreements()), (2, 3));
        // First datagrams of members, all forged but rightly addressed.
        let (mut a, mut b) = two();
        let datagram = to_b(&mut a, b"ping");
        for _ in 0..AGREEMENTS_PER_S + 5 {
            b.forget(A);
            let _ = at_b(&mut b, &datagram);
        }
        assert_eq!(b.agreements(), u64::from(AGREEMENTS_PER_S));
        assert_eq!(at_b(&mut b, &datagram), Err(NotOpened::Busy(A)));
        let later = NOW + Duration::from_secs(1);
        assert!(b.open(later, &datagram, |_| Some(key(3).public())).is_ok());
    }
}
