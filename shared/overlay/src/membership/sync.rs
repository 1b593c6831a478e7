//! Comparing tables, and fetching the cards that turn out to be missing.

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::{Health, Membership, spread};
use crate::card::Card;
use crate::directory::Slot;
use crate::limits::{
    BUCKET_MEMBERS, BUCKETS_AT_ONCE, DIGEST_BUSY, DIGEST_QUIET, HAND_OUT_MAX, NEWS_IN_GOSSIP, WANTS_MAX,
    WANTS_PER_MEMBER,
};
use crate::message::{BUCKET_ENTRIES_MAX, BUCKETS_MAX, Message, News, Sight};

/// A card that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    of: Slot,
    pub(super) at: Instant,
}

impl Membership {
    /// Another member's table has another print.
    pub(super) fn print_differs(&mut self, now: Instant, from: Slot) {
        // While news are under way, tables differ anyway and soon will not.
        let due = if self.rumours.is_empty() { self.next_digest } else { self.next_digest + DIGEST_BUSY };
        if now < due || self.health(from) != Health::Alive {
            return;
        }
        self.next_digest = now + DIGEST_QUIET / 2 + spread(&mut self.rng, DIGEST_QUIET);
        self.counters.digests += 1;
        let buckets = (self.count / BUCKET_MEMBERS).next_power_of_two().min(BUCKETS_MAX);
        let prints = self.prints(buckets);
        self.send(from, Message::Digest(prints));
    }

    fn prints(&self, buckets: usize) -> Vec<u32> {
        let mut prints = vec![0; buckets];
        self.directory.each(self.counted(), |_, member, print| {
            if let Some(bucket) = prints.get_mut(bucket_of(member.node, buckets)) {
                *bucket ^= print;
            }
        });
        prints
    }

    fn bucket(&self, index: usize, buckets: usize) -> Vec<Slot> {
        let mut slots = Vec::new();
        self.directory.each(self.counted(), |slot, member, _| {
            if bucket_of(member.node, buckets) == index {
                slots.push(slot);
            }
        });
        slots
    }

    /// A member shows the prints of its buckets: it gets ours where they differ.
    pub(super) fn compare(&mut self, from: Slot, theirs: &[u32]) {
        let buckets = theirs.len();
        let ours = self.prints(buckets);
        let differing: Vec<usize> = ours
            .iter()
            .zip(theirs)
            .enumerate()
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(index, _)| index)
            .take(BUCKETS_AT_ONCE)
            .collect();
        for index in differing {
            let slots = self.bucket(index, buckets);
            let entries =
                slots.into_iter().filter_map(|slot| self.sight(slot)).take(BUCKET_ENTRIES_MAX).collect();
            self.send(from, Message::Bucket { index: index as u16, buckets: buckets as u16, entries });
        }
    }

    /// What a member has in one bucket: we fetch what we lack, look at what we hold dead, and tell what it lacks.
    pub(super) fn compare_bucket(
        &mut self,
        now: Now,
        from: Slot,
        index: u16,
        buckets: u16,
        theirs: &[Sight],
    ) {
        let mut tell = Vec::new();
        let mut news = News::default();
        for sight in theirs {
            let Some(slot) = self.slot_of(sight.node) else {
                self.want(now.mono, from, sight.node);
                continue;
            };
            let Some(ours) = self.sight(slot) else { continue };
            if ours.incarnation < sight.incarnation {
                self.want(now.mono, from, sight.node);
            } else if ours.incarnation > sight.incarnation {
                tell.push(slot);
            } else if self.health(slot) == Health::Dead {
                // One of us is wrong: both look.
                self.look_at(now, slot, None);
                news.deaths.push(ours);
            }
        }
        if theirs.len() < BUCKET_ENTRIES_MAX {
            for slot in self.bucket(index.into(), buckets.into()) {
                if self.node_of(slot).is_some_and(|node| theirs.iter().all(|sight| sight.node != node)) {
                    tell.push(slot);
                    // It lacks what we have, or holds it dead: that is hearsay like any other.
                    if let Some(sight) = self.sight(slot) {
                        self.told(now, from, sight);
                    }
                }
            }
        }
        let mut left = NEWS_IN_GOSSIP;
        for card in tell.into_iter().filter_map(|slot| self.directory.card(slot)) {
            let bytes = card.announcement().bytes().to_vec();
            if bytes.len() + 3 > left || news.announcements.len() >= 6 {
                break;
            }
            left -= bytes.len() + 3;
            news.announcements.push(bytes);
        }
        if !news.is_empty() {
            self.send(from, Message::Gossip(news));
        }
    }

    /// Asks for a card that we lack.
    pub(super) fn want(&mut self, now: Instant, of: Slot, node: NodeId) {
        let asked = self.wants.values().filter(|want| want.of == of).count();
        if self.wants.contains_key(&node) || self.wants.len() >= WANTS_MAX || asked >= WANTS_PER_MEMBER {
            return;
        }
        self.wants.insert(node, Want { of, at: now });
        self.send(of, Message::CardsWanted(vec![node]));
    }

    /// A member lacks these.
    pub(super) fn hand_out(&mut self, to: Slot, nodes: &[NodeId]) {
        let cards: Vec<Vec<u8>> = nodes
            .iter()
            .take(HAND_OUT_MAX)
            .filter_map(|node| self.slot_of(*node))
            .filter_map(|slot| self.directory.card(slot))
            .map(|card| card.encode())
            .collect();
        for two in cards.chunks(2) {
            let message = Message::Cards(two.to_vec());
            if message.encode().is_some() {
                self.send(to, message);
            } else {
                for card in two {
                    self.send(to, Message::Cards(vec![card.clone()]));
                }
            }
        }
    }

    /// Cards came; those that were asked for are taken in.
    pub(super) fn take_cards(&mut self, now: Now, realm: &Realm, from: Slot, cards: &[Vec<u8>]) {
        for card in cards {
            let wanted = Card::split(card)
                .ok()
                .and_then(|(_, announcement)| crate::card::Announcement::decode_unverified(announcement).ok())
                .and_then(|announcement| self.wants.get(&announcement.node));
            if wanted.is_some_and(|want| want.of == from) {
                self.learn(now, realm, card);
            }
        }
    }
}

fn bucket_of(node: NodeId, buckets: usize) -> usize {
    let [first, ..] = node.0;
    usize::from(first) * buckets / 256
}
