//! The table itself: who is in it with which card, and what is asked of it.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::Now;

use super::{Health, Membership, MembershipOutput, View, below, sign};
use crate::card::Card;
use crate::directory::Slot;
use crate::limits::MEMBERS_MAX;
use crate::placement::Placement;

impl Membership {
    /// What is thought of this member.
    pub fn health(&self, slot: Slot) -> Health {
        self.views.get(slot.index()).map_or(Health::Unknown, |view| view.health)
    }

    /// Members that count, oneself included.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The dead that are still probed.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// The smoothed round trip to it, if one was measured.
    pub fn rtt(&self, slot: Slot) -> Option<Duration> {
        let tenths = self.views.get(slot.index())?.rtt;
        (tenths != 0).then(|| Duration::from_micros(u64::from(tenths) * 100))
    }

    /// What a round trip usually takes here, once any was measured.
    pub fn usual_rtt(&self) -> Option<Duration> {
        self.usual_rtt
    }

    /// The card that is in the table for this member, whatever is thought of it.
    pub fn slot_of(&self, node: NodeId) -> Option<Slot> {
        self.directory.slots_of(node).into_iter().find(|slot| self.health(*slot) != Health::Unknown)
    }

    /// Whose card this is.
    pub fn node_of(&self, slot: Slot) -> Option<NodeId> {
        self.directory.member(slot).map(|member| member.node)
    }

    /// Where its datagrams go.
    pub fn addr_of(&self, slot: Slot) -> Option<SocketAddr> {
        self.directory.card(slot).and_then(|card| card.addr())
    }

    /// The holders of a key, nearest first.
    pub fn holders(&self, key: &[u8; 16]) -> Vec<Slot> {
        let mut placement = Placement::default();
        self.directory.walk(key, |slot, member| {
            if self.health(slot).counts() { placement.offer(slot, member) } else { ControlFlow::Continue(()) }
        });
        placement.holders()
    }

    /// Everybody who counts, by ascending slot.
    pub fn counted(&self) -> impl Iterator<Item = Slot> {
        (0_u32..).zip(&self.views).filter(|(_, view)| view.health.counts()).map(|(slot, _)| Slot(slot))
    }

    /// Everybody in the table, whatever is thought of them, by ascending slot.
    pub fn known(&self) -> impl Iterator<Item = (Slot, Health)> {
        let all = (0_u32..).zip(&self.views).map(|(slot, view)| (Slot(slot), view.health));
        all.filter(|(_, health)| *health != Health::Unknown)
    }

    /// A member that counts and is not oneself, at random.
    pub fn random(&mut self) -> Option<Slot> {
        self.random_where(|_, health| health.counts())
    }

    /// Changes whenever who counts changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The print of the table: equal tables have equal prints.
    pub fn print(&self) -> u32 {
        self.print
    }

    pub(super) fn random_where(&mut self, mut fits: impl FnMut(Slot, Health) -> bool) -> Option<Slot> {
        let views = &self.views;
        let start = below(&mut self.rng, views.len());
        let (before, after) = views.split_at_checked(start)?;
        let from = |start: usize, views: &[View]| -> Vec<(Slot, Health)> {
            views.iter().enumerate().map(|(i, view)| (Slot((start + i) as u32), view.health)).collect()
        };
        // Mostly the first look finds one; only a sparse table is gone through.
        for _ in 0..16 {
            let slot = Slot(below(&mut self.rng, views.len()) as u32);
            let health = views.get(slot.index()).map_or(Health::Unknown, |view| view.health);
            if slot != self.me && fits(slot, health) {
                return Some(slot);
            }
        }
        from(start, after)
            .into_iter()
            .chain(from(0, before))
            .find(|(slot, health)| *slot != self.me && fits(*slot, *health))
            .map(|(slot, _)| slot)
    }

    /// Takes in a card that is verified and held once for us.
    pub(super) fn accept(&mut self, now: Now, realm: &Realm, slot: Slot) -> Option<Slot> {
        let card = self.directory.card(slot)?;
        let node = card.node();
        let current = self.slot_of(node);
        self.wants.remove(&node);
        if current == Some(slot) {
            self.directory.release(slot);
            return current;
        }
        if self.directory.member(self.me).is_some_and(|me| me.node == node) {
            self.found_oneself(&card);
            self.directory.release(slot);
            return Some(self.me);
        }
        let alive = realm.check_alive(card.credential(), now.unix).is_ok();
        let newer =
            current.and_then(|slot| self.directory.card(slot)).is_none_or(|known| card.outranks(&known));
        let room = current.is_some() || self.count + self.dead.len() < MEMBERS_MAX;
        if !alive || !newer || !room {
            self.directory.release(slot);
            return current;
        }
        let health = Health::from(card.announcement().service);
        match current {
            None => self.set_health(slot, health),
            Some(old) => self.replace(now, old, slot, health),
        }
        self.rumours.announce(slot);
        self.plan_push(now.mono);
        Some(slot)
    }

    pub(super) fn replace(&mut self, now: Now, old: Slot, new: Slot, health: Health) {
        let before = self.views.get(old.index()).copied().unwrap_or_default();
        // A newer word from a member that does not answer is no answer: ask it.
        let health = match (before.health, health) {
            (Health::Dead, Health::Alive | Health::Standby) => Health::Dead,
            (_, health) => health,
        };
        self.end_check(old);
        self.rumours.forget(old);
        let was_dead = self.dead.remove(&old);
        self.set_quietly(old, Health::Unknown);
        self.set_quietly(new, health);
        if let Some(view) = self.views.get_mut(new.index()) {
            (view.rtt, view.answered) = (before.rtt, before.answered);
        }
        self.outputs.push_back(MembershipOutput::Replaced { old, new });
        if before.health != health
            && let Some(node) = self.node_of(new)
        {
            self.outputs.push_back(MembershipOutput::Changed {
                slot: new,
                node,
                from: before.health,
                to: health,
            });
        }
        self.directory.release(old);
        if was_dead && health == Health::Dead {
            self.dead.insert(new);
            self.look_at(now, new, None);
        }
    }

    /// Somebody holds a newer announcement of ours than we do: of a run whose memory was lost.
    pub(super) fn found_oneself(&mut self, card: &Card) {
        let theirs = card.announcement().incarnation;
        if theirs >= self.own.incarnation {
            self.own.incarnation = theirs;
            self.announce_anew();
        }
    }

    pub(super) fn announce_anew(&mut self) {
        self.own.incarnation += 1;
        let Ok(card) = sign(&self.own) else { return };
        let (old, new) = (self.me, self.directory.insert(card));
        self.rumours.forget(old);
        self.set_quietly(old, Health::Unknown);
        self.me = new;
        self.set_quietly(new, self.own.service.into());
        self.directory.release(old);
        self.outputs.push_back(MembershipOutput::Replaced { old, new });
        self.outputs.push_back(MembershipOutput::Incarnation(self.own.incarnation));
        self.rumours.announce(new);
        self.generation += 1;
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.end_check(slot);
        self.dead.remove(&slot);
        self.rumours.forget(slot);
        self.set_health(slot, Health::Unknown);
        self.directory.release(slot);
    }

    pub(super) fn set_health(&mut self, slot: Slot, to: Health) {
        let from = self.set_quietly(slot, to);
        if from != to
            && let Some(node) = self.node_of(slot)
        {
            self.outputs.push_back(MembershipOutput::Changed { slot, node, from, to });
        }
    }

    pub(super) fn set_quietly(&mut self, slot: Slot, to: Health) -> Health {
        if self.views.len() <= slot.index() {
            self.views.resize(slot.index() + 1, View::default());
        }
        let Some(view) = self.views.get_mut(slot.index()) else { return to };
        let from = std::mem::replace(&mut view.health, to);
        if to == Health::Unknown {
            *view = View::default();
        }
        if from.counts() != to.counts() {
            self.print ^= self.directory.print(slot);
            self.generation += 1;
            if to.counts() { self.count += 1 } else { self.count -= 1 }
        }
        from
    }
}
