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
//! The boot prefix is drawn anew at each start, so that a counter that begins at 0 again repeats no nonce.
//!
//! Contract: [`Exchange::set_own`] with one's keys, [`Exchange::know`] with each *verified* member's sealing key and
//! [`Exchange::forget`] when it leaves the table; then [`Exchange::seal`] and [`Exchange::open`]. Only a known member
//! that names both keys rightly ever costs an agreement, and only its first datagram under a key: junk costs a look at
//! a map. There is no replay window: requests are idempotent, answers echo an id, and an answer goes to the member's
//! listed address whatever source a datagram came from.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use yodel_identity::keys::{SealingKey, SealingPublic};
use yodel_identity::node::NodeId;
use yodel_identity::seal::{BOX_NONCE_BYTES, BOX_TAG_BYTES, hkdf32, open, seal};
use yodel_wire::first_byte::{DATAGRAM_VERSION, OVERLAY};
use zeroize::Zeroizing;

use crate::limits::OWN_SEALING_KEYS_MAX;

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

/// Both directions' keys under one of our own keys.
#[derive(Debug)]
struct Pair {
    own: KeyId,
    send: Zeroizing<[u8; 32]>,
    receive: Zeroizing<[u8; 32]>,
}

#[derive(Debug)]
struct Peer {
    id: KeyId,
    public: SealingPublic,
    /// At most one for each key of ours.
    pairs: Vec<Pair>,
}

/// Seals and opens datagrams of one member; see the module's text.
#[derive(Debug)]
pub struct Exchange {
    me: NodeId,
    own: Vec<Own>,
    peers: BTreeMap<NodeId, Peer>,
    boot: [u8; 8],
    counter: u64,
    agreements: u64,
}

impl Exchange {
    /// An exchange that has no keys yet. `boot` is drawn at random at each start.
    pub fn new(me: NodeId, boot: [u8; 8]) -> Exchange {
        Exchange { me, own: Vec::new(), peers: BTreeMap::new(), boot, counter: 0, agreements: 0 }
    }

    /// These are our keys, the newest first; those beyond [`OWN_SEALING_KEYS_MAX`] are not used. Pairs under keys that
    /// are gone go with them.
    pub fn set_own(&mut self, keys: &[SealingKey]) {
        self.own = keys
            .iter()
            .take(OWN_SEALING_KEYS_MAX)
            .map(|key| {
                let public = key.public();
                Own { id: KeyId::of(&public), key: key.clone(), public }
            })
            .collect();
        for peer in self.peers.values_mut() {
            peer.pairs.retain(|pair| self.own.iter().any(|own| own.id == pair.own));
        }
    }

    /// A verified credential names this key for this member. Costs nothing until the first datagram.
    pub fn know(&mut self, node: NodeId, public: SealingPublic) {
        if self.peers.get(&node).is_none_or(|known| known.public != public) {
            self.peers.insert(node, Peer { id: KeyId::of(&public), public, pairs: Vec::new() });
        }
    }

    /// This member is no longer in the table.
    pub fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// Key agreements computed so far: at most one for each member's key and each of ours.
    pub fn agreements(&self) -> u64 {
        self.agreements
    }

    /// Seals `plaintext` for a member, under both newest keys. `None` when it is not known or its key is worthless, and
    /// when we have no key.
    pub fn seal(&mut self, to: NodeId, plaintext: &[u8]) -> Option<Vec<u8>> {
        let newest = self.own.first()?.id;
        let receiver = self.peers.get(&to)?.id;
        self.counter += 1;
        let counter = self.counter;
        let mut datagram = Vec::with_capacity(SEALED_OVERHEAD_BYTES + plaintext.len());
        datagram.extend_from_slice(&[OVERLAY, DATAGRAM_VERSION]);
        datagram.extend_from_slice(&self.me.0);
        datagram.extend_from_slice(&newest.0);
        datagram.extend_from_slice(&receiver.0);
        datagram.extend_from_slice(&self.boot);
        datagram.extend_from_slice(&counter.to_be_bytes());
        let nonce = nonce(&self.boot, counter);
        let pair = self.pair(to, newest)?;
        let sealed = seal(&pair.send, &nonce, &datagram, plaintext);
        datagram.extend_from_slice(&sealed);
        Some(datagram)
    }

    /// Opens a datagram: who sent it, and what.
    ///
    /// # Errors
    /// What is wrong with it. Only [`NotOpened::SenderKey`] and [`NotOpened::ReceiverKey`] may ask for something to be
    /// done, rarely: whoever sends them is not proved.
    pub fn open(&mut self, datagram: &[u8]) -> Result<(NodeId, Zeroizing<Vec<u8>>), NotOpened> {
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
        let sender = NodeId(*sender);
        let peer = self.peers.get(&sender).ok_or(NotOpened::Stranger(sender))?;
        if peer.id != KeyId(*sender_key) {
            return Err(NotOpened::SenderKey(sender));
        }
        let own = KeyId(*receiver_key);
        if !self.own.iter().any(|key| key.id == own) {
            return Err(NotOpened::ReceiverKey(sender));
        }
        let nonce = nonce(boot, counter);
        let pair = self.pair(sender, own).ok_or(NotOpened::Forged(sender))?;
        match open(&pair.receive, &nonce, header, sealed) {
            Ok(plaintext) => Ok((sender, plaintext)),
            Err(_) => Err(NotOpened::Forged(sender)),
        }
    }

    /// The pair with this member under this key of ours, computed when it is used for the first time.
    fn pair(&mut self, node: NodeId, own: KeyId) -> Option<&Pair> {
        let ours = self.own.iter().find(|key| key.id == own)?;
        let peer = self.peers.get_mut(&node)?;
        if !peer.pairs.iter().any(|pair| pair.own == own) {
            self.agreements += 1;
            let shared = ours.key.agree(&peer.public).ok()?;
            let key = |from: &SealingPublic, to: &SealingPublic, sender: NodeId, receiver: NodeId| {
                let info = [&from.0[..], &to.0[..], &sender.0[..], &receiver.0[..]].concat();
                hkdf32(SALT, shared.as_bytes(), &info)
            };
            let pair = Pair {
                own,
                send: key(&ours.public, &peer.public, self.me, node),
                receive: key(&peer.public, &ours.public, node, self.me),
            };
            peer.pairs.push(pair);
        }
        peer.pairs.iter().find(|pair| pair.own == own)
    }
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

    fn two() -> (Exchange, Exchange) {
        let keys = [3, 4].map(|seed| SealingKey::from_bytes([seed; 32]));
        let nodes = [NodeId([1; 16]), NodeId([2; 16])];
        let mut a = Exchange::new(nodes[0], [7; 8]);
        let mut b = Exchange::new(nodes[1], [8; 8]);
        a.set_own(&keys[..1]);
        b.set_own(&keys[1..]);
        a.know(nodes[1], keys[1].public());
        b.know(nodes[0], keys[0].public());
        (a, b)
    }

    #[test]
    fn golden() {
        let (mut a, mut b) = two();
        let datagram = a.seal(NodeId([2; 16]), b"ping").unwrap();
        assert_eq!(hex(&datagram), include_str!("sealed/golden.txt").trim());
        let (sender, plaintext) = b.open(&datagram).unwrap();
        assert_eq!((sender, plaintext.as_slice()), (NodeId([1; 16]), b"ping".as_slice()));
        assert_eq!(datagram.len(), SEALED_OVERHEAD_BYTES + 4);
    }

    #[test]
    fn both_directions_differ_and_no_nonce_repeats() {
        let (mut a, mut b) = two();
        let first = a.seal(NodeId([2; 16]), b"same").unwrap();
        let second = a.seal(NodeId([2; 16]), b"same").unwrap();
        assert_ne!(first[HEADER_BYTES..], second[HEADER_BYTES..]);
        let back = b.seal(NodeId([1; 16]), b"same").unwrap();
        assert_eq!(a.open(&back).unwrap().1.as_slice(), b"same");
        // A datagram sent back to its sender under the receiver's name.
        let mut reflected = first.clone();
        reflected[2..18].copy_from_slice(&[2; 16]);
        let ids: Vec<u8> = [&first[20..22], &first[18..20]].concat();
        reflected[18..22].copy_from_slice(&ids);
        assert_eq!(a.open(&reflected), Err(NotOpened::Forged(NodeId([2; 16]))));
        assert_eq!((a.agreements(), b.agreements()), (1, 1));
    }

    #[test]
    fn every_touched_bit_is_noticed() {
        let (mut a, mut b) = two();
        let datagram = a.seal(NodeId([2; 16]), b"ping").unwrap();
        for bit in 0..datagram.len() * 8 {
            let mut touched = datagram.clone();
            touched[bit / 8] ^= 1 << (bit % 8);
            assert!(b.open(&touched).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(b.open(&datagram[..length]).is_err());
        }
    }

    #[test]
    fn strangers_and_wrong_keys_cost_no_agreement() {
        let (mut a, mut b) = two();
        let datagram = a.seal(NodeId([2; 16]), b"ping").unwrap();
        b.forget(NodeId([1; 16]));
        assert_eq!(b.open(&datagram), Err(NotOpened::Stranger(NodeId([1; 16]))));
        b.know(NodeId([1; 16]), SealingKey::from_bytes([9; 32]).public());
        assert_eq!(b.open(&datagram), Err(NotOpened::SenderKey(NodeId([1; 16]))));
        b.set_own(&[SealingKey::from_bytes([10; 32])]);
        b.know(NodeId([1; 16]), SealingKey::from_bytes([3; 32]).public());
        assert_eq!(b.open(&datagram), Err(NotOpened::ReceiverKey(NodeId([1; 16]))));
        assert_eq!(b.agreements(), 0);
    }

    #[test]
    fn an_older_key_of_ours_still_opens_and_answers_go_under_the_newest() {
        let (mut a, mut b) = two();
        let old = a.seal(NodeId([2; 16]), b"ping").unwrap();
        let newer = SealingKey::from_bytes([11; 32]);
        b.set_own(&[newer.clone(), SealingKey::from_bytes([4; 32])]);
        assert_eq!(b.open(&old).unwrap().1.as_slice(), b"ping");
        let answer = b.seal(NodeId([1; 16]), b"ack").unwrap();
        assert_eq!(a.open(&answer), Err(NotOpened::SenderKey(NodeId([2; 16]))));
        a.know(NodeId([2; 16]), newer.public());
        assert_eq!(a.open(&answer).unwrap().1.as_slice(), b"ack");
        b.set_own(&[newer]);
        assert_eq!(b.open(&old), Err(NotOpened::ReceiverKey(NodeId([1; 16]))));
    }
}
