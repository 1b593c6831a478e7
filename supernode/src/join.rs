//! How a supernode comes into the ring and learns who is in it.
//!
//! Nobody opens a sealed datagram of somebody unknown. So a newcomer links with members that the bulletin names and that
//! its own table lacks, one after the other: each `Hello` carries its announcement, each `Welcome` theirs, and then it is
//! sent the whole table. Those members tell the others. A bulletin that is newer than ours is fetched from whoever's ping
//! says so.

use std::collections::BTreeSet;
use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::node::NodeId;
use yodel_overlay::card::CardsWanted;
use yodel_overlay::membership::Health;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkId, Write};
use yodel_wire::time::{Instant, Now};

use crate::limits::{BEHIND_EVERY, JOIN_EVERY, JOIN_EVERY_MAX, MEMBERS_STORED_AT_ONCE, STORE_MEMBERS_EVERY};
use crate::node::{MEMBERS, Supernode};

/// What is under way.
#[derive(Debug)]
pub(crate) struct Join {
    next: Instant,
    pause: Duration,
    behind: Instant,
    /// Members whose stored card is no longer the one in the table.
    unstored: BTreeSet<NodeId>,
    next_store: Instant,
}

impl Join {
    pub(crate) fn new(now: Instant) -> Join {
        Join {
            next: now,
            pause: JOIN_EVERY,
            behind: now,
            unstored: BTreeSet::new(),
            next_store: now + STORE_MEMBERS_EVERY,
        }
    }
}

impl Supernode {
    /// Links with the next member that the bulletin names and the table lacks.
    pub(crate) fn join_if_due(&mut self, now: Now) {
        if now.mono < self.join.next || self.stopping {
            return;
        }
        let strangers = self.strangers();
        if strangers.is_empty() {
            self.join.pause = JOIN_EVERY;
            self.join.next = now.mono + JOIN_EVERY_MAX;
            return;
        }
        let draw = self.rng.next_u32() as usize % strangers.len();
        if let Some(node) = strangers.get(draw).copied()
            && self.dial(node)
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.wants_table = true;
        }
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        self.join.next = now.mono + self.join.pause.mul_f64(0.5 + share / 2.0);
        self.join.pause = (self.join.pause * 2).min(JOIN_EVERY_MAX);
    }

    /// A bulletin came: whoever is new in it is linked with soon.
    pub(crate) fn join_soon(&mut self, now: Now) {
        self.join.pause = JOIN_EVERY;
        self.join.next = self.join.next.min(now.mono);
    }

    /// Members that the bulletin names, that the table lacks and that no link is being opened to.
    fn strangers(&self) -> Vec<NodeId> {
        let Some(bulletin) = self.realm.bulletin() else { return Vec::new() };
        let membership = self.ring.membership();
        let nodes = bulletin.supernodes.iter().map(|entry| entry.credential.node);
        nodes
            .filter(|node| *node != self.me && membership.slot_of(*node).is_none())
            .filter(|node| {
                self.peers.get(node).is_none_or(|peer| peer.dialing.is_empty() && peer.links.is_empty())
            })
            .collect()
    }

    /// When the next member is to be linked with, or the table stored.
    pub(crate) fn join_deadline(&self) -> Option<Instant> {
        let store = (!self.join.unstored.is_empty()).then_some(self.join.next_store);
        let join = self.realm.bulletin().filter(|_| !self.stopping).map(|_| self.join.next);
        store.into_iter().chain(join).min()
    }

    /// Asks a member for its whole table.
    pub(crate) fn ask_for_table(&mut self, id: LinkId) {
        self.write(id, CardsWanted::default().encode());
    }

    /// A member's ping says that it holds a newer bulletin.
    pub(crate) fn fetch_bulletin(&mut self, now: Now, node: NodeId) {
        if now.mono < self.join.behind {
            return;
        }
        self.join.behind = now.mono + BEHIND_EVERY;
        let wanted =
            BulletinWanted { have_epoch: self.realm.epoch(), pages_of: self.realm.revoked_pages_wanted() };
        self.write_member(node, Frame::new(FrameKind::BulletinWanted, wanted.encode()));
    }

    /// What is thought of a member has changed: the next run shall know it.
    pub(crate) fn member_changed(&mut self, now: Now, node: NodeId, to: Health) {
        if matches!(to, Health::Dead | Health::Left | Health::Unknown) {
            let links = self.peers.get(&node).map(|peer| peer.links.clone()).unwrap_or_default();
            for id in links {
                self.close(now, id);
            }
        }
        if node != self.me && to != Health::Suspect && to != Health::Dead {
            if self.join.unstored.is_empty() {
                self.join.next_store = now.mono + STORE_MEMBERS_EVERY;
            }
            self.join.unstored.insert(node);
        }
    }

    /// Brings cards that changed to stable storage, so that the next run finds the others without a login server.
    pub(crate) fn store_members(&mut self, now: Now) {
        if self.join.unstored.is_empty() || now.mono < self.join.next_store {
            return;
        }
        self.join.next_store = now.mono + STORE_MEMBERS_EVERY;
        let mut writes = Vec::new();
        while writes.len() < MEMBERS_STORED_AT_ONCE
            && let Some(node) = self.join.unstored.pop_first()
        {
            let membership = self.ring.membership();
            let card = membership
                .slot_of(node)
                .filter(|slot| membership.health(*slot) != Health::Left)
                .and_then(|slot| membership.directory().card(slot));
            let value = card.map(|card| card.encode());
            writes.push(Write { tree: MEMBERS, key: node.0.to_vec(), value, journaled: false });
        }
        self.commit_all(0, writes);
    }
}
