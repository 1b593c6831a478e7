//! Cards of members, for members and devices that ask over a link.

use yodel_identity::node::NodeId;
use yodel_wire::frame::Frame;
use yodel_wire::time::Now;

use super::{From, Ring};
use crate::card::{CardsWanted, cards_frames};
use crate::directory::Slot;
use crate::limits::CARDS_FOR_DEVICE;

impl Ring {
    /// Our own card.
    pub fn own_card(&self) -> Option<Vec<u8>> {
        self.encoded(self.membership.me())
    }

    /// Some other members that serve, for a device to try: frames of kind `Cards`.
    pub fn cards_for_device(&mut self) -> Vec<Frame> {
        let mut cards = Vec::new();
        for _ in 0..CARDS_FOR_DEVICE * 2 {
            let other = self.membership.random().filter(|other| !cards.contains(other));
            cards.extend(other.filter(|_| cards.len() < CARDS_FOR_DEVICE));
        }
        cards_frames(&cards.into_iter().filter_map(|slot| self.encoded(slot)).collect::<Vec<_>>())
    }

    /// All members that count, ourselves among them, for a newcomer: frames of kind `Cards`.
    pub fn cards_for_member(&self) -> Vec<Frame> {
        cards_frames(&self.membership.counted().filter_map(|slot| self.encoded(slot)).collect::<Vec<_>>())
    }

    pub(super) fn cards_wanted(&mut self, now: Now, from: From, wanted: &CardsWanted) {
        let frames = match from {
            _ if !wanted.nodes.is_empty() => self.named(&wanted.nodes),
            From::Device(_) => self.cards_for_device(),
            // Thousands of cards are megabytes: once in a while is enough.
            From::Member(node) if self.listed.contains_key(&node) => Vec::new(),
            From::Member(node) => {
                self.listed.insert(node, now.mono);
                self.cards_for_member()
            }
        };
        for frame in frames {
            self.send(from, frame);
        }
    }

    fn named(&self, nodes: &[NodeId]) -> Vec<Frame> {
        let slots = nodes.iter().filter_map(|node| self.membership.slot_of(*node));
        cards_frames(&slots.filter_map(|slot| self.encoded(slot)).collect::<Vec<_>>())
    }

    fn encoded(&self, slot: Slot) -> Option<Vec<u8>> {
        self.membership.directory().card(slot).map(|card| card.encode())
    }
}
