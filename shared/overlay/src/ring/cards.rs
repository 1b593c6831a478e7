//! Cards of members, for members and devices that ask over a link.

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::Frame;
use yodel_wire::time::Now;

use super::{From, Ring};
use crate::card::{CardsWanted, cards_frames, decode_page, page_frames};
use crate::directory::Slot;
use crate::limits::{CARDS_FOR_DEVICE, CARDS_PER_PAGE};

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

    /// Members that count, ourselves among them, by ascending id, those after `after`: one page of frames.
    fn page(&self, after: Option<NodeId>) -> Vec<Frame> {
        let mut slots = Vec::new();
        let directory = self.membership.directory();
        directory.each(self.membership.counted(), |slot, member, _| {
            if after.is_none_or(|after| member.node > after) {
                slots.push((member.node, slot));
            }
        });
        slots.sort_unstable();
        let more = slots.len() > CARDS_PER_PAGE;
        slots.truncate(CARDS_PER_PAGE);
        let cards: Vec<Vec<u8>> = slots.into_iter().filter_map(|(_, slot)| self.encoded(slot)).collect();
        page_frames(&cards, more)
    }

    pub(super) fn cards_wanted(&mut self, now: Now, from: From, wanted: &CardsWanted) {
        let frames = match from {
            _ if !wanted.nodes.is_empty() => self.named(&wanted.nodes),
            From::Device(_) => self.cards_for_device(),
            From::Member(node) => {
                // Thousands of cards are megabytes: all of them once in a while is enough.
                let pages = self.membership.count() / CARDS_PER_PAGE + 2;
                let (_, left) = self.listed.entry(node).or_insert((now.mono, pages));
                if *left == 0 {
                    return;
                }
                *left -= 1;
                self.page(wanted.after)
            }
        };
        for frame in frames {
            self.send(from, frame);
        }
    }

    /// Cards of a member came; the next page is asked for.
    pub(super) fn take_cards(
        &mut self,
        now: Now,
        from: From,
        body: &[u8],
        realm: &Realm,
    ) -> Result<(), DecodeError> {
        let From::Member(_) = from else { return Ok(()) };
        let (cards, more) = decode_page(body)?;
        let mut last = None;
        for card in cards {
            if let Some(slot) = self.membership.learn(now, realm, card) {
                let node = self.membership.node_of(slot);
                self.derive_later(node);
                last = node.max(last);
            }
        }
        if more && last.is_some() {
            self.send(from, CardsWanted { nodes: Vec::new(), after: last }.encode());
        }
        Ok(())
    }

    fn named(&self, nodes: &[NodeId]) -> Vec<Frame> {
        let slots = nodes.iter().filter_map(|node| self.membership.slot_of(*node));
        cards_frames(&slots.filter_map(|slot| self.encoded(slot)).collect::<Vec<_>>())
    }

    fn encoded(&self, slot: Slot) -> Option<Vec<u8>> {
        self.membership.directory().card(slot).map(|card| card.encode())
    }
}
