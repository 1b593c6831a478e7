//! Reads over the holders for devices and for ourselves, and what they find out of date.

use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::asked::Purpose;
use super::timers::Timer;
use super::write::Why;
use super::{From, Report, Ring, RingOutput};
use crate::holder::Key;
use crate::limits::{
    ASKERS_MAX, CACHE, CACHE_MAX, DELIVERIES_MAX, FRESH, HOMES_EXPECTED_MAX, OPERATIONS_MAX, WARY,
};
use crate::lookup::{Lookup, Step};
use crate::membership::Health;
use crate::message::{Message, RequestId};
use crate::record::{Answer, ReadRequest, Scope, Standing, WriteRequest};
use crate::verify::{LookupResult, Verified, is_forged, shortest_life};

/// Who waits for a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// An attached device.
    Device { node: NodeId, id: u64 },
    /// Whoever runs this.
    Own { id: u64 },
}

/// A read under way.
#[derive(Debug)]
pub(super) struct LookupOp {
    key: Key,
    lookup: Lookup,
    askers: Vec<Asker>,
    datagrams: u32,
    bytes: u32,
}

impl LookupOp {
    /// This device's link ended.
    pub(super) fn forget_device(&mut self, device: NodeId) {
        self.askers.retain(|asker| !matches!(asker, Asker::Device { node, .. } if *node == device));
    }

    fn carried(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn report(&self, settled: Option<Instant>) -> Report {
        let begun = self.lookup.begun();
        Report {
            first: self.lookup.first_at().map(|at| at.since(begun)),
            settled: settled.map(|at| at.since(begun)),
            datagrams: self.datagrams,
            bytes: self.bytes,
            asked: self.lookup.asked() as u32,
        }
    }
}

/// What was found not long ago.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) verified: Verified,
    pub(super) until: Instant,
}

/// What an asker is told.
struct Found<'a> {
    standing: Standing,
    verified: &'a Verified,
    settled: bool,
    holders: usize,
    report: Report,
}

impl<'a> Found<'a> {
    fn at_once(standing: Standing, verified: &'a Verified) -> Found<'a> {
        let zero = Some(Duration::ZERO);
        let first = if standing == Standing::Held { zero } else { None };
        let report = Report { first, settled: zero, ..Report::default() };
        Found { standing, verified, settled: true, holders: 0, report }
    }
}

impl Ring {
    /// Reads for `asker`; without one, only to bring the holders up to date.
    pub(super) fn walk_read(
        &mut self,
        now: Now,
        realm: &Realm,
        asker: Option<Asker>,
        key: Key,
        past_cache: bool,
    ) {
        if !past_cache
            && let Some(cached) = self.cache.get(&key)
            && now.mono < cached.until
        {
            self.counters.cached += 1;
            let verified = cached.verified.clone();
            self.tell(now, asker, &Found::at_once(Standing::Held, &verified));
            return;
        }
        // One fetch in flight per key; who comes later hears what was found so far.
        if let Some(op) = self.fetches.get(&key).and_then(|op| self.lookups.get_mut(op)) {
            if op.askers.len() >= ASKERS_MAX {
                self.tell(now, asker, &Found::at_once(Standing::Unreachable, &Verified::default()));
                return;
            }
            op.askers.extend(asker);
            if op.lookup.first_at().is_some() {
                let (verified, holders) = (op.lookup.found().clone(), op.lookup.answered());
                let report = op.report(None);
                let found =
                    Found { standing: Standing::Held, verified: &verified, settled: false, holders, report };
                self.tell(now, asker, &found);
            }
            return;
        }
        if self.lookups.len() >= OPERATIONS_MAX {
            self.tell(now, asker, &Found::at_once(Standing::Unreachable, &Verified::default()));
            return;
        }
        self.counters.lookups += 1;
        let holders = self.in_order_to_ask(&key);
        let lookup = Lookup::new(now.mono, now.mono < self.wary_until, holders);
        let op = self.take_id();
        let askers = asker.into_iter().collect();
        self.lookups.insert(op, LookupOp { key, lookup, askers, datagrams: 0, bytes: 0 });
        self.fetches.insert(key, op);
        self.drive_lookup(now, op, realm);
    }

    /// Ourselves first, since that answer costs nothing; then who is well, who may be dead, and who is new and may lack
    /// it. Equals in any order: two holders that tell the same lie shall not be the first two for everybody, and the next
    /// look of the same asker, after a call that failed, shall not be at the same two.
    fn in_order_to_ask(&mut self, key: &Key) -> Vec<(NodeId, Option<Duration>)> {
        let usual = self.membership.usual_rtt();
        let mut order = Vec::new();
        for slot in self.membership.holders(key) {
            let Some(node) = self.membership.node_of(slot) else { continue };
            if node == self.me {
                order.push((0, 0, node, Some(Duration::ZERO)));
                continue;
            }
            let rank = match self.membership.health(slot) {
                Health::Alive => 1,
                Health::Suspect => 2,
                Health::Standby => 3,
                Health::Unknown | Health::Dead | Health::Left => 4,
            };
            order.push((rank, self.rng.next_u32(), node, self.membership.rtt(slot).or(usual)));
        }
        order.sort_unstable_by_key(|(rank, draw, node, _)| (*rank, *draw, *node));
        order.into_iter().map(|(_, _, node, rtt)| (node, rtt)).collect()
    }

    pub(super) fn datagram_answered(
        &mut self,
        now: Now,
        node: NodeId,
        id: RequestId,
        answer: &Answer,
        bytes: usize,
        realm: &Realm,
    ) {
        let Some((Purpose::Lookup(op), rtt)) = self.pendings.answered(now.mono, node, id) else { return };
        if let Some(slot) = self.membership.slot_of(node) {
            self.membership.answered(now, slot, rtt);
        }
        let Some(lookup) = self.lookups.get_mut(&op) else { return };
        lookup.carried(bytes);
        if answer.standing == Standing::Held && answer.account.is_none() {
            lookup.lookup.handle_moved(now.mono, node);
            let key = lookup.key;
            let id = self.take_id();
            self.pendings.asked_linked(now.mono, id, node, Purpose::Lookup(op));
            let request = ReadRequest { id, key, scope: Scope::Holder, past_cache: true };
            self.send(From::Member(node), request.encode());
            self.drive_lookup(now, op, realm);
            return;
        }
        self.lookup_answered(now, op, node, answer, realm);
    }

    pub(super) fn frame_answered(&mut self, now: Now, node: NodeId, answer: &Answer, realm: &Realm) {
        if let Some(Purpose::Lookup(op)) = self.pendings.answered_linked(node, answer.id) {
            self.lookup_answered(now, op, node, answer, realm);
        }
    }

    fn lookup_answered(&mut self, now: Now, op: u64, node: NodeId, answer: &Answer, realm: &Realm) {
        let Some(lookup) = self.lookups.get_mut(&op) else { return };
        let verified = match answer.standing {
            Standing::Held => Verified::of_known(realm, &lookup.key, answer, now.unix, lookup.lookup.found()),
            Standing::None | Standing::NotYet | Standing::Unreachable => Verified::default(),
        };
        let forged = answer.standing == Standing::Held
            && match &verified.account {
                Some(_) if verified.contact.entries().len() == answer.entries.len() => false,
                Some(account) => answer.entries.iter().any(|entry| is_forged(account, entry)),
                None => true,
            };
        if forged {
            self.counters.disbelieved += 1;
            self.wary_until = now.mono + WARY;
            lookup.lookup.handle_forged(now.mono, node);
        } else {
            lookup.lookup.handle_answer(now.mono, node, answer.standing, verified);
        }
        self.drive_lookup(now, op, realm);
    }

    pub(super) fn lookup_failed(&mut self, now: Now, op: u64, node: NodeId, realm: &Realm) {
        if let Some(lookup) = self.lookups.get_mut(&op) {
            lookup.lookup.handle_failed(now.mono, node);
            self.drive_lookup(now, op, realm);
        }
    }

    pub(super) fn lookup_timeout(&mut self, now: Now, op: u64, realm: &Realm) {
        if let Some(lookup) = self.lookups.get_mut(&op) {
            lookup.lookup.handle_timeout(now.mono);
            self.drive_lookup(now, op, realm);
        }
    }

    /// Carries out what a lookup wants.
    fn drive_lookup(&mut self, now: Now, number: u64, realm: &Realm) {
        while let Some(op) = self.lookups.get_mut(&number)
            && let Some(step) = op.lookup.poll()
        {
            let key = op.key;
            match step {
                Step::Ask(node) if node == self.me => {
                    let standing = self.own_answer(&key).standing;
                    let verified = self.holder.verified(&key).unwrap_or_default();
                    if let Some(op) = self.lookups.get_mut(&number) {
                        op.lookup.handle_answer(now.mono, node, standing, verified);
                    }
                }
                Step::Ask(node) => self.ask(now, number, node, key),
                Step::Silent(node) => {
                    self.counters.repeated += 1;
                    if let Some(slot) = self.membership.slot_of(node) {
                        self.membership.check(now, slot);
                    }
                }
                Step::First => {
                    let report = op.report(None);
                    let (verified, holders) = (op.lookup.found().clone(), op.lookup.answered());
                    let standing = Standing::Held;
                    let found = Found { standing, verified: &verified, settled: false, holders, report };
                    for asker in op.askers.clone() {
                        self.tell(now, Some(asker), &found);
                    }
                }
                Step::Done(standing) => {
                    self.timers.set(Timer::Lookup(number), None);
                    self.fetches.remove(&key);
                    let Some(op) = self.lookups.remove(&number) else { return };
                    self.lookup_done(now, &op, standing, realm);
                    return;
                }
            }
        }
        let deadline = self.lookups.get(&number).and_then(|op| op.lookup.deadline());
        self.timers.set(Timer::Lookup(number), deadline);
    }

    fn ask(&mut self, now: Now, number: u64, node: NodeId, key: Key) {
        let id = self.draw_id();
        let slot = self.membership.slot_of(node);
        let sent = slot.and_then(|slot| self.transmit(slot, &Message::Read { id, key }));
        let Some(op) = self.lookups.get_mut(&number) else { return };
        match sent {
            Some(bytes) => {
                op.carried(bytes);
                self.pendings.asked(now.mono, id, node, Purpose::Lookup(number));
            }
            None => op.lookup.handle_failed(now.mono, node),
        }
    }

    fn lookup_done(&mut self, now: Now, op: &LookupOp, standing: Standing, realm: &Realm) {
        let report = op.report(Some(now.mono));
        if standing == Standing::Held {
            self.latencies.first.record(report.first.unwrap_or_default());
            self.latencies.settled.record(report.settled.unwrap_or_default());
            self.remember(now, op.key, op.lookup.found());
            self.read_repair(now, op, realm);
        }
        let verified = op.lookup.found();
        let holders = op.lookup.answered();
        let found = Found { standing, verified, settled: true, holders, report };
        for asker in &op.askers {
            self.tell(now, Some(*asker), &found);
        }
    }

    /// Writes what was found to holders that had none of it, or something older. Once: whoever hides it hides it.
    fn read_repair(&mut self, now: Now, op: &LookupOp, realm: &Realm) {
        let found = op.lookup.found();
        let Some(account) = found.account.as_ref().map(|account| account.bytes()) else { return };
        let entries: Vec<&[u8]> = found.contact.entries().iter().map(|entry| entry.bytes()).collect();
        let lagging = op.lookup.lagging();
        let settled_long_ago =
            found.contact.entries().iter().all(|entry| now.unix.since(entry.issued) > FRESH);
        if !lagging.is_empty() && settled_long_ago {
            self.wary_until = now.mono + WARY;
        }
        for node in lagging {
            if self.deliveries.len() >= DELIVERIES_MAX {
                return;
            }
            self.counters.read_repairs += 1;
            if node == self.me {
                self.keep_all(now, op.key, account, &entries, realm);
            } else {
                self.deliver(now, node, op.key, Some(account), &entries, Why::ReadRepair, realm);
            }
        }
    }

    fn keep_all(&mut self, now: Now, key: Key, account: &[u8], entries: &[&[u8]], realm: &Realm) {
        let request = WriteRequest::of_holder(key, Some(account.to_vec()), None);
        let (_, mut changed) = self.keep(now, &request, realm);
        for entry in entries {
            let request = WriteRequest::of_holder(key, None, Some(entry.to_vec()));
            changed |= self.keep(now, &request, realm).1;
        }
        self.after_commit(now, key, changed, None);
    }

    fn remember(&mut self, now: Now, key: Key, found: &Verified) {
        let life = shortest_life(found, now.unix).map_or(CACHE, |life| life.min(CACHE));
        if self.cache.len() >= CACHE_MAX
            && let Some(oldest) = self.cache.iter().min_by_key(|(_, c)| c.until).map(|(key, _)| *key)
        {
            self.cache.remove(&oldest);
        }
        self.cache.insert(key, Cached { verified: found.clone(), until: now.mono + life });
    }

    fn tell(&mut self, now: Now, asker: Option<Asker>, found: &Found<'_>) {
        let verified = found.verified;
        match asker {
            Some(Asker::Device { node, id }) => {
                let answer = Answer {
                    id,
                    standing: found.standing,
                    account: verified.account.as_ref().map(|account| account.bytes().to_vec()),
                    entries: verified.contact.entries().iter().map(|e| e.bytes().to_vec()).collect(),
                    settled: found.settled,
                    holders: found.holders as u64,
                };
                self.send(From::Device(node), answer.encode());
                self.expect_call(now, node, verified);
            }
            Some(Asker::Own { id }) => {
                let result = match (&verified.account, found.standing) {
                    (Some(account), _) => LookupResult::Found {
                        account: Box::new(account.clone()),
                        entries: verified.live(now.unix),
                        settled: found.settled,
                    },
                    (None, Standing::None) => LookupResult::NoSuchAccount,
                    (None, Standing::Held | Standing::NotYet | Standing::Unreachable) => {
                        LookupResult::Unreachable
                    }
                };
                self.outputs.push_back(RingOutput::Looked { id, result, report: found.report });
            }
            None => {}
        }
    }

    /// A device that reads another account's record probably calls it next: the links to its homes may be opened while
    /// the answer travels.
    fn expect_call(&mut self, now: Now, device: NodeId, verified: &Verified) {
        if verified.contact.device(device).is_some() {
            return;
        }
        let mut homes: Vec<NodeId> =
            verified.live(now.unix).into_iter().flat_map(|entry| entry.homes.clone()).collect();
        homes.sort_unstable();
        homes.dedup();
        let homes = homes.into_iter().filter(|home| *home != self.me).take(HOMES_EXPECTED_MAX);
        self.outputs.extend(homes.map(RingOutput::Expected));
    }
}
