//! News: what was learned lately is told on, a bounded number of times, and less when others know it already.

use std::collections::BTreeMap;

use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::{Health, Membership, spread};
use crate::card::Announcement;
use crate::directory::Slot;
use crate::limits::{NEWS_DELAY, NEWS_FANOUT, NEWS_IN_GOSSIP, NEWS_MANY, NEWS_MAX, NEWS_ON_PING, NEWS_TOLD};
use crate::message::{Message, News};

/// Gossips of one push: more news than fit wait for the next.
const GOSSIPS_MAX: usize = 4;

/// Bytes of a piece of hearsay in a message.
const SIGHT_BYTES: usize = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Announcement,
    Suspicion,
    Death,
}

#[derive(Clone, Copy, Debug)]
struct Rumour {
    kind: Kind,
    told: u32,
}

/// What is told on: the newest about each member.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    rumours: BTreeMap<Slot, Rumour>,
    fresh: bool,
    next_push: Option<Instant>,
}

impl Rumours {
    pub(super) fn announce(&mut self, slot: Slot) {
        self.add(slot, Kind::Announcement);
    }

    pub(super) fn suspect(&mut self, slot: Slot) {
        self.add(slot, Kind::Suspicion);
    }

    pub(super) fn die(&mut self, slot: Slot) {
        self.add(slot, Kind::Death);
    }

    fn add(&mut self, slot: Slot, kind: Kind) {
        if self.rumours.len() >= NEWS_MAX
            && !self.rumours.contains_key(&slot)
            && let Some(most) =
                self.rumours.iter().max_by_key(|(_, rumour)| rumour.told).map(|(slot, _)| *slot)
        {
            self.rumours.remove(&most);
        }
        self.rumours.insert(slot, Rumour { kind, told: 0 });
        self.fresh = true;
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.rumours.remove(&slot);
    }

    /// Another member told the same: it need not be told so often.
    pub(super) fn heard_again(&mut self, slot: Slot) {
        if let Some(rumour) = self.rumours.get_mut(&slot) {
            rumour.told += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rumours.is_empty()
    }

    /// So many that they would keep each other from being told soon.
    fn are_many(&self) -> bool {
        self.rumours.len() > NEWS_MANY
    }

    pub(super) fn push_due(&self, now: Instant) -> bool {
        self.next_push.is_some_and(|at| now >= at)
    }

    pub(super) fn next_push(&self) -> Option<Instant> {
        self.next_push
    }
}

impl Membership {
    /// Something is fresh: it leaves soon, together with what comes in between.
    pub(super) fn plan_push(&mut self, now: Instant) {
        if self.rumours.fresh && self.rumours.next_push.is_none() {
            self.rumours.next_push = Some(now + NEWS_DELAY / 5 + spread(&mut self.rng, NEWS_DELAY));
        }
    }

    /// Tells what is fresh to a few at once.
    pub(super) fn push_news(&mut self) {
        self.rumours.next_push = None;
        self.rumours.fresh = false;
        for _ in 0..GOSSIPS_MAX {
            let news = self.gather(NEWS_IN_GOSSIP, 1);
            if news.is_empty() {
                return;
            }
            for _ in 0..NEWS_FANOUT {
                if let Some(to) = self.random_where(|_, health| health == Health::Alive) {
                    self.send(to, Message::Gossip(news.clone()));
                }
            }
        }
        self.rumours.fresh = self.rumours.rumours.values().any(|rumour| rumour.told == 0);
    }

    /// What goes along on a ping or its answer.
    pub(super) fn ride_along(&mut self) -> News {
        let room = if self.rumours.are_many() { NEWS_IN_GOSSIP } else { NEWS_ON_PING };
        self.gather(room, u32::MAX)
    }

    /// News that were told fewer than `told_below` times, the least told first, as many as fit.
    fn gather(&mut self, room: usize, told_below: u32) -> News {
        let mut news = News::default();
        if self.rumours.is_empty() {
            return news;
        }
        let mut order: Vec<(u32, Slot)> = self
            .rumours
            .rumours
            .iter()
            .filter(|(_, rumour)| rumour.told < told_below)
            .map(|(slot, rumour)| (rumour.told, *slot))
            .collect();
        order.sort_unstable();
        let often = match self.rumours.are_many() {
            true => NEWS_TOLD,
            false => NEWS_TOLD + usize::BITS - self.count.leading_zeros(),
        };
        let mut left = room;
        for (_, slot) in order {
            if left < SIGHT_BYTES {
                break;
            }
            let Some(rumour) = self.rumours.rumours.get_mut(&slot) else { continue };
            let kind = rumour.kind;
            let (card, health) =
                (self.directory.card(slot), self.views.get(slot.index()).map(|view| view.health));
            let stale = match (kind, health) {
                (Kind::Suspicion, Some(health)) => health != Health::Suspect,
                (Kind::Death, Some(health)) => health != Health::Dead,
                (Kind::Announcement, Some(health)) => health == Health::Unknown,
                (_, None) => true,
            };
            let Some(card) = card.filter(|_| !stale) else {
                self.rumours.rumours.remove(&slot);
                continue;
            };
            let size = match kind {
                Kind::Announcement => card.announcement().bytes().len() + 3,
                Kind::Suspicion | Kind::Death => SIGHT_BYTES,
            };
            if size > left {
                continue;
            }
            left -= size;
            rumour.told = rumour.told.saturating_add(1);
            if rumour.told >= often {
                self.rumours.rumours.remove(&slot);
            }
            match (kind, self.sight(slot)) {
                (Kind::Announcement, _) if news.announcements.len() < 6 => {
                    news.announcements.push(card.announcement().bytes().to_vec());
                }
                (Kind::Suspicion, Some(sight)) if news.suspicions.len() < 40 => news.suspicions.push(sight),
                (Kind::Death, Some(sight)) if news.deaths.len() < 40 => news.deaths.push(sight),
                (Kind::Announcement | Kind::Suspicion | Kind::Death, _) => {}
            }
        }
        news
    }

    /// News that another member tells.
    pub(super) fn hear(&mut self, now: Now, realm: &Realm, from: Slot, news: News) {
        for announcement in &news.announcements {
            self.hear_announcement(now, realm, from, announcement);
        }
        for sight in news.suspicions.into_iter().chain(news.deaths) {
            self.told(now, from, sight);
        }
        self.plan_push(now.mono);
    }

    fn hear_announcement(&mut self, now: Now, realm: &Realm, from: Slot, bytes: &[u8]) {
        let Ok(announced) = Announcement::decode_unverified(bytes) else {
            self.counters.disbelieved += 1;
            return;
        };
        let known = self.slot_of(announced.node).and_then(|slot| Some((slot, self.directory.card(slot)?)));
        let Some((slot, card)) = known else {
            return self.want(now.mono, from, announced.node);
        };
        if announced.incarnation <= card.announcement().incarnation {
            if announced.bytes() == card.announcement().bytes() {
                self.rumours.heard_again(slot);
                // Somebody says of one of the dead that it is there: look, unless it was looked at just now.
                if self.health(slot) == Health::Dead && from != slot {
                    self.look_at(now, slot, None);
                }
            }
            return;
        }
        if announced.serial != card.credential().serial {
            return self.want(now.mono, from, announced.node);
        }
        let credential = card.credential().clone();
        if let Some(known) = self.directory.known(credential.bytes(), bytes) {
            self.accept(now, realm, known);
            return;
        }
        match crate::card::Card::announced(credential, bytes) {
            Ok(card) => {
                let slot = self.directory.insert(card);
                self.accept(now, realm, slot);
            }
            Err(_) => self.counters.disbelieved += 1,
        }
    }
}
