//! Handing records over when members come and go, and forgetting what has ended or is kept by others.
//!
//! A change of members is awaited to be followed by others; then the records are gone through once for all of them, in
//! goes with pauses. A look at distances tells for most records that nothing changed. For the others the holders are
//! computed: the nearest of those believed to keep it hands it over to those that are not, and only who acknowledged
//! counts as keeping it. Everybody else looks again after [`REPAIR_ASSUME`] and believes it done if the one in charge is
//! still there. A member counts as dead only after our own probes of it failed, so no hearsay moves a record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::place::{Duty, Place};
use super::write::Why;
use super::{Ring, RingOutput};
use crate::directory::Slot;
use crate::holder::{Held, Key};
use crate::limits::{
    HAND_OVERS_MAX, HOLDERS_MAX, REPAIR_ASSUME, REPAIR_BATCH, REPAIR_DELAY, REPAIR_EVENTS_MAX, REPAIR_GRACE,
    REPAIR_PAUSE, REPAIR_RETRY, REPAIR_SCAN, STANDBY_MEMBERS, SWEEP,
};
use crate::membership::Health;
use crate::record::{WriteRequest, WriteStatus, Written};

/// A run's first incarnation is a multiple of this, so that others see a new run begin: nobody refutes so often.
const RUN: u64 = 1 << 10;

/// The first incarnation of a run after one that got as far as `incarnation`.
pub(super) fn first_of_run(incarnation: u64) -> u64 {
    incarnation.checked_next_multiple_of(RUN).unwrap_or(incarnation)
}

/// What is to be done about records whose holders changed.
#[derive(Debug, Default)]
pub(super) struct Repair {
    places: BTreeMap<Key, Place>,
    /// Members that came, went or began a new run since the last pass, and whether they may lack what they had.
    events: BTreeMap<NodeId, bool>,
    due: Option<Instant>,
    pass: Option<Pass>,
    /// Records to look at later, by when.
    later: BTreeSet<(Instant, Key)>,
    /// Who is to get what.
    queue: VecDeque<(Key, NodeId)>,
    /// Queued or on its way.
    open: BTreeSet<(Key, NodeId)>,
    flying: usize,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Pass {
    events: Vec<(NodeId, bool)>,
    cursor: Option<Key>,
}

impl Repair {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let later = self.later.first().map(|(at, _)| *at);
        let due = if self.pass.is_none() { self.due } else { None };
        self.next.or([due, later].into_iter().flatten().min())
    }

    pub(super) fn later(&mut self, at: Instant, key: Key) {
        self.later.insert((at, key));
    }

    /// Hand-overs on their way.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    fn event(&mut self, now: Instant, node: NodeId, doubt: bool) {
        *self.events.entry(node).or_default() |= doubt;
        self.due.get_or_insert(now + REPAIR_DELAY);
    }
}

impl Ring {
    pub(super) fn member_changed(&mut self, now: Now, node: NodeId, from: Health, to: Health) {
        if matches!(to, Health::Left | Health::Unknown) {
            self.exchange.forget(node);
        } else if !from.counts() && to.counts() {
            self.derive_later(Some(node));
        }
        // Who was alive and is on standby began anew, and may lack what it had.
        let restarted = to == Health::Standby && from.counts();
        if node != self.me && (from.counts() != to.counts() || restarted) {
            self.repair.event(now.mono, node, true);
        }
    }

    /// A member announced itself anew. The old slot may name another member already.
    pub(super) fn member_replaced(&mut self, now: Now, new: Slot) {
        let Some(card) = self.membership.directory().card(new) else { return };
        let node = card.node();
        if node == self.me {
            return;
        }
        self.exchange.renewed(node, &card.credential().sealing);
        self.derive_later(Some(node));
        // In a small realm nobody is on standby for long enough to be seen on it.
        let began = card.announcement().incarnation % RUN <= 1;
        let small = self.membership.count() < STANDBY_MEMBERS;
        self.repair.event(now.mono, node, began && small);
    }

    /// A record changed. A new one is believed to be at all holders: whoever wrote it wrote to all.
    pub(super) fn placed_by_write(&mut self, key: Key) {
        if !self.repair.places.contains_key(&key) {
            let (holders, reach) = self.holders_and_reach(&key);
            self.repair.places.insert(key, Place::at(holders, reach));
        }
    }

    /// Goes on with whatever is due.
    pub(super) fn repair_go(&mut self, now: Now, realm: &Realm) {
        if self.repair.deadline().is_none_or(|at| now.mono < at) {
            return;
        }
        self.repair.next = None;
        let mut budget = REPAIR_BATCH;
        self.repair_pass(now.mono, &mut budget);
        while budget > 0
            && let Some((at, key)) = self.repair.later.first().copied()
            && at <= now.mono
        {
            self.repair.later.remove(&(at, key));
            self.examine(now.mono, key, true);
            budget -= 1;
        }
        self.start_hand_overs(now, realm);
        let is_waiting = !self.repair.queue.is_empty() && self.repair.flying < HAND_OVERS_MAX;
        if self.repair.pass.is_some() || budget == 0 || is_waiting {
            self.repair.next = Some(now.mono + REPAIR_PAUSE);
        }
    }

    fn repair_pass(&mut self, now: Instant, budget: &mut usize) {
        if self.repair.pass.is_none() && self.repair.due.is_some_and(|at| at <= now) {
            self.repair.due = None;
            let events = std::mem::take(&mut self.repair.events).into_iter().collect();
            self.repair.pass = Some(Pass { events, cursor: None });
        }
        let Some(mut pass) = self.repair.pass.take() else { return };
        let keys: Vec<Key> = self.holder.keys_after(pass.cursor).take(REPAIR_SCAN).copied().collect();
        let is_last = keys.len() < REPAIR_SCAN;
        for key in keys {
            if *budget == 0 {
                self.repair.pass = Some(pass);
                return;
            }
            pass.cursor = Some(key);
            let many = pass.events.len() > REPAIR_EVENTS_MAX;
            let concerns =
                |place: &Place| many || pass.events.iter().any(|(node, _)| place.concerns(&key, *node));
            if self.repair.places.get(&key).is_none_or(concerns) {
                if let Some(place) = self.repair.places.get_mut(&key) {
                    pass.events.iter().filter(|(_, doubt)| *doubt).for_each(|(node, _)| place.doubt(*node));
                }
                self.examine(now, key, false);
                *budget -= 1;
            }
        }
        if !is_last {
            self.repair.pass = Some(pass);
        }
    }

    /// Looks at one record. `assume`: who was in charge has had time.
    fn examine(&mut self, now: Instant, key: Key, assume: bool) {
        if self.holder.get(&key).is_none() {
            return;
        }
        let (holders, reach) = self.holders_and_reach(&key);
        let (me, few) = (self.me, self.membership.count() < STANDBY_MEMBERS);
        let membership = &self.membership;
        let counts =
            |node: &NodeId| membership.slot_of(*node).is_some_and(|slot| membership.health(slot).counts());
        // After a restart the holders are believed to have it; where everybody holds everything, better safe.
        let place = self
            .repair
            .places
            .entry(key)
            .or_insert_with(|| Place::at(if few { Vec::new() } else { holders.clone() }, reach));
        place.reach = reach;
        place.nodes.retain(counts);
        let is_out = !holders.contains(&me);
        place.out_since = if is_out { Some(place.out_since.unwrap_or(now)) } else { None };
        match place.duty(&key, me, &holders) {
            Duty::Nothing => place.nodes = holders,
            Duty::Ours(missing) => {
                for node in missing {
                    if self.repair.open.insert((key, node)) {
                        self.repair.queue.push_back((key, node));
                    }
                }
            }
            Duty::Others if assume => {
                place.nodes = holders;
                place.assumed = true;
            }
            Duty::Others => self.repair.later(now + REPAIR_ASSUME, key),
        }
    }

    fn start_hand_overs(&mut self, now: Now, realm: &Realm) {
        while self.repair.flying < HAND_OVERS_MAX
            && let Some((key, node)) = self.repair.queue.pop_front()
        {
            self.repair.open.remove(&(key, node));
            self.hand_over(now, key, node, realm);
        }
    }

    /// Sends a record to a member that shall keep it.
    pub(super) fn hand_over(&mut self, now: Now, key: Key, node: NodeId, realm: &Realm) {
        let Some(held) = self.holder.get(&key) else { return };
        if !self.repair.open.insert((key, node)) {
            return;
        }
        self.repair.flying += 1;
        let account = held.account().bytes().to_vec();
        let entries: Vec<Vec<u8>> = held.contact().entries().iter().map(|e| e.bytes().to_vec()).collect();
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        self.deliver(now, node, key, Some(&account), &entries, Why::HandOver, realm);
    }

    /// A member answered a hand-over, or did not.
    pub(super) fn handed_over(&mut self, now: Now, node: NodeId, key: Key, written: &Written, realm: &Realm) {
        self.repair.flying = self.repair.flying.saturating_sub(1);
        self.repair.open.remove(&(key, node));
        if !self.repair.queue.is_empty() {
            self.repair.next.get_or_insert(now.mono + REPAIR_PAUSE);
        }
        match written.status {
            WriteStatus::Unreachable => {
                self.leave_also(key);
                self.repair.later(now.mono + REPAIR_RETRY, key);
            }
            WriteStatus::Stored | WriteStatus::Stale => {
                self.counters.handed_over += 1;
                if let Some(place) = self.repair.places.get_mut(&key) {
                    place.acknowledged(node);
                    place.assumed = false;
                }
            }
            // It will not have it, now or later.
            WriteStatus::NeedAccount | WriteStatus::Refused | WriteStatus::Full | WriteStatus::Other => {
                if let Some(place) = self.repair.places.get_mut(&key) {
                    place.acknowledged(node);
                    place.assumed = true;
                }
            }
        }
        if let Some(entry) = written.newest_entry.clone() {
            let request = WriteRequest::of_holder(key, None, Some(entry));
            let (_, changed) = self.keep(now, &request, realm);
            self.after_commit(now, key, changed, None);
        }
        if written.newest_account.is_some() {
            // It knows better: read, which brings all holders up to date, ourselves among them.
            self.walk_read(now, realm, None, key, true);
        }
    }

    /// The holders, and how far a member may be and still change them.
    fn holders_and_reach(&self, key: &Key) -> (Vec<NodeId>, u128) {
        let mut nodes = Vec::new();
        let (mut owners, mut networks) = (BTreeSet::<OwnerTag>::new(), BTreeSet::new());
        let mut distinct = true;
        for slot in self.membership.holders(key) {
            let Some(member) = self.membership.directory().member(slot) else { continue };
            nodes.push(member.node);
            distinct &= owners.insert(member.owner);
            let network = member.ip.map(|ip| u32::from(ip) >> 8);
            distinct &= network.is_none_or(|network| networks.insert(network));
        }
        // When the walk had to be filled up, anybody farther away may end that.
        let is_whole = distinct && nodes.len() == HOLDERS_MAX;
        let reach = nodes.last().filter(|_| is_whole).map_or(u128::MAX, |node| node.distance(key));
        (nodes, reach)
    }

    pub(super) fn place(&self, key: &Key) -> Option<&Place> {
        self.repair.places.get(key)
    }

    pub(super) fn sweep(&mut self, now: Now, realm: &Realm) {
        self.swept = now.mono;
        for key in self.holder.sweep(realm, now.unix) {
            self.commit_unasked(key);
        }
        self.cache.retain(|_, cached| now.mono < cached.until);
        self.listed.retain(|_, (since, _)| now.mono < *since + SWEEP);
        let is_done = |place: &Place| match place.out_since {
            Some(since) => {
                let is_late = now.mono >= since + REPAIR_GRACE;
                is_late || (!place.assumed && now.mono >= since + REPAIR_ASSUME)
            }
            None => false,
        };
        let done: Vec<Key> =
            self.repair.places.iter().filter(|(_, place)| is_done(place)).map(|(key, _)| *key).collect();
        for key in done {
            let (holders, reach) = self.holders_and_reach(&key);
            let Some(place) = self.repair.places.get_mut(&key) else { continue };
            if holders.contains(&self.me) {
                place.out_since = None;
                place.reach = reach;
            } else if place.duty(&key, self.me, &holders) == Duty::Nothing
                || place.out_since.is_some_and(|since| now.mono >= since + REPAIR_GRACE)
            {
                self.counters.dropped_records += 1;
                self.holder.remove(&key);
                self.commit_unasked(key);
            }
        }
        let holder = &self.holder;
        self.repair.places.retain(|key, _| holder.get(key).is_some());
    }

    /// Brings what is kept under a key, or that nothing is, to the store.
    fn commit_unasked(&mut self, key: Key) {
        let value = self.holder.get(&key).map(Held::encode);
        let number = self.take_id();
        self.outputs.push_back(RingOutput::Commit { number, key, value });
    }
}
