//! What devices learn of the other members: cards to remember, and where to go instead of here.
//!
//! Who is sent elsewhere must cost next to nothing, for it happens when half of the realm comes at once: no signature is
//! checked, nothing is remembered. Phones that probe before they attach hear it without even a handshake. Each is sent to
//! another member, drawn at random, and comes back at a time of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::credential::Credential;
use yodel_identity::node::NodeId;
use yodel_overlay::attach::{Hello, LinkRole, Refuse, RefuseReason};
use yodel_overlay::card::{CardsWanted, cards_frames};
use yodel_wire::codec::DecodeError;
use yodel_wire::machine::{LinkAction, LinkId, LinkPeer};
use yodel_wire::time::Now;

use crate::limits::{CARDS_AT_ATTACH, COME_BACK, HALF_OPEN_MAX, HALF_OPEN_YOUNG, LINKS_MAX};
use crate::node::Supernode;

impl Supernode {
    /// Encoded cards of this many live members other than this one, drawn at random.
    fn some_cards(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut nodes = BTreeSet::new();
        // In a small realm the same are drawn again and again.
        for _ in 0..count * 2 {
            if nodes.len() < count {
                nodes.extend(self.ring.random_member());
            }
        }
        nodes.into_iter().filter_map(|node| self.card_of(node)).collect()
    }

    /// The encoded card of a member, if it is known.
    fn card_of(&self, node: NodeId) -> Option<Vec<u8>> {
        let membership = self.ring.membership();
        let slot = membership.slot_of(node)?;
        membership.directory().card(slot).map(|card| card.encode())
    }

    /// A device attached: some members that it may need when this one is gone.
    pub(crate) fn send_cards(&mut self, id: LinkId) {
        let cards = self.some_cards(CARDS_AT_ATTACH);
        for frame in cards_frames(&cards) {
            self.write(id, frame);
        }
    }

    /// A device asks for cards. Every card counts as a frame; who asked for too many gets none.
    pub(crate) fn cards_wanted(
        &mut self,
        now: Now,
        id: LinkId,
        node: NodeId,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let wanted = CardsWanted::decode(body)?;
        let count = if wanted.nodes.is_empty() { CARDS_AT_ATTACH } else { wanted.nodes.len() };
        let granted =
            self.devices.get_mut(&node).is_some_and(|device| device.bucket.take(now.mono, count as u64));
        if !granted {
            self.counters.frames_dropped += 1;
            return Ok(());
        }
        let cards = if wanted.nodes.is_empty() {
            self.some_cards(count)
        } else {
            wanted.nodes.iter().filter_map(|wanted| self.card_of(*wanted)).collect()
        };
        for frame in cards_frames(&cards) {
            self.write(id, frame);
        }
        Ok(())
    }

    /// Why a device that says hello is sent elsewhere, if it is. What it says of itself is not verified; that it is
    /// attached already is, by its key.
    pub(crate) fn sends_away(&self, hello: &Hello, peer: &LinkPeer) -> Option<RefuseReason> {
        if hello.role != LinkRole::Device {
            return None;
        }
        if self.is_leaving() {
            return Some(RefuseReason::Draining);
        }
        let is_attached = || {
            Credential::decode_unverified(&hello.credential)
                .ok()
                .and_then(|said| self.devices.get(&said.node))
                .is_some_and(|device| device.credential.key.0 == peer.key)
        };
        (self.devices.len() >= self.config.clients_max && !is_attached()).then_some(RefuseReason::Full)
    }

    /// What a probe hears: for how long to stay away, zero while there is room.
    pub(crate) fn stay_away(&mut self) -> Duration {
        let has_room = self.devices.len() < self.config.clients_max && self.waiting.len() < HALF_OPEN_MAX;
        if has_room && !self.is_leaving() { Duration::ZERO } else { self.come_back() }
    }

    fn come_back(&mut self) -> Duration {
        let jitter = u64::from(self.rng.next_u32()) % COME_BACK.as_secs().max(1);
        COME_BACK + Duration::from_secs(jitter)
    }

    /// "Not here": where to go, and when to come back.
    pub(crate) fn elsewhere(&mut self, reason: RefuseReason) -> Refuse {
        let redirect = self.ring.random_member();
        Refuse {
            reason,
            come_back: self.come_back(),
            redirect,
            card: redirect.and_then(|node| self.card_of(node)),
        }
    }

    /// Refuses a link that was not granted, whether or not it is remembered, and names another member.
    pub(crate) fn send_away(&mut self, id: LinkId, reason: RefuseReason) {
        self.counters.sent_away += 1;
        let refuse = self.elsewhere(reason);
        self.waiting.remove(&id);
        self.links.remove(&id);
        self.act(id, LinkAction::Write(refuse.encode_refuse()));
        self.act(id, LinkAction::Close);
    }

    /// Whether there is room for a link that somebody opens; if not, it was sent elsewhere.
    pub(crate) fn has_room(&mut self, now: Now, id: LinkId) -> bool {
        if self.links.len() >= LINKS_MAX {
            self.send_away(id, RefuseReason::Full);
            return false;
        }
        if self.waiting.len() < HALF_OPEN_MAX {
            return true;
        }
        let oldest = self.waiting.first().copied();
        let old = |id: &LinkId| {
            self.links.get(id).is_some_and(|link| now.mono.since(link.opened) >= HALF_OPEN_YOUNG)
        };
        match oldest.filter(old) {
            Some(oldest) => {
                self.send_away(oldest, RefuseReason::Full);
                true
            }
            None => {
                self.send_away(id, RefuseReason::Full);
                false
            }
        }
    }

    /// Tells an attached device to go elsewhere, on all its links.
    pub(crate) fn send_off(&mut self, now: Now, node: NodeId) {
        let farewell = self.elsewhere(RefuseReason::Draining).encode_goodbye();
        let links = self.devices.get(&node).map(|device| device.links.clone()).unwrap_or_default();
        for id in links {
            self.write(id, farewell.clone());
            self.close(now, id);
        }
    }
}
