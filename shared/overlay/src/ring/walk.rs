//! Walks to the holders for devices: reads that start with the first valid answer, writes that enough must keep.

use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::Now;

use super::{Asker, Cached, CommitWaiter, From, LookupOp, PublishOp, Purpose, Ring, RingOutput};
use crate::holder::Key;
use crate::limits::{ASKERS_MAX, CACHE, CACHE_MAX, OPERATIONS_MAX};
use crate::lookup::{Lookup, Step};
use crate::publish::Publish;
use crate::record::{Answer, ReadRequest, Scope, Standing, WriteRequest, WriteStatus, Written};
use crate::verify::{LookupResult, Verified, shortest_life};

impl Ring {
    pub(super) fn walk_write(&mut self, now: Now, device: NodeId, request: WriteRequest, realm: &Realm) {
        self.counters.publishes += 1;
        self.cache.remove(&request.key);
        let holders = self.holders_of(&request.key);
        if self.publishes.len() >= OPERATIONS_MAX {
            self.send(From::Device(device), Written::new(request.id, WriteStatus::Unreachable).encode());
            return;
        }
        let op = self.take_id();
        let publish = Publish::new(now.mono, &holders);
        self.publishes.insert(op, PublishOp { key: request.key, publish, device, id: request.id });
        let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.judge());
        if let Some(outcome) = outcome {
            self.publish_done(op, outcome);
            return;
        }
        for node in holders {
            if node == self.me {
                let (written, value) = self.keep(now, &request, realm);
                self.after_commit(request.key, value, CommitWaiter::Publish { op, written });
            } else {
                let ask = |id| WriteRequest { id, scope: Scope::Holder, ..request.clone() }.encode();
                self.ask(now, node, Purpose::Publish(op), ask);
            }
        }
    }

    pub(super) fn publish_written(&mut self, op: u64, node: NodeId, written: &Written) {
        let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.handle_written(node, written));
        if let Some(outcome) = outcome {
            self.publish_done(op, outcome);
        }
    }

    pub(super) fn publish_done(&mut self, op: u64, outcome: Written) {
        if let Some(op) = self.publishes.remove(&op) {
            self.cache.remove(&op.key);
            self.send(From::Device(op.device), Written { id: op.id, ..outcome }.encode());
        }
    }

    pub(super) fn walk_read(&mut self, now: Now, asker: Asker, key: Key, past_cache: bool) {
        if !past_cache
            && let Some(cached) = self.cache.get(&key)
            && now.mono < cached.until
        {
            self.counters.cached += 1;
            let verified = cached.verified.clone();
            self.tell(now, asker, Standing::Held, &verified, true, 0);
            return;
        }
        // One fetch in flight per key; who comes later hears what was found so far.
        if let Some(op) = self.lookups.values_mut().find(|op| op.key == key) {
            if op.askers.len() >= ASKERS_MAX {
                self.tell(now, asker, Standing::Unreachable, &Verified::default(), true, 0);
                return;
            }
            op.askers.push(asker);
            if op.lookup.has_first() {
                let (found, holders) = (op.lookup.found().clone(), op.lookup.answered());
                self.tell(now, asker, Standing::Held, &found, false, holders);
            }
            return;
        }
        if self.lookups.len() >= OPERATIONS_MAX {
            self.tell(now, asker, Standing::Unreachable, &Verified::default(), true, 0);
            return;
        }
        self.counters.lookups += 1;
        let mut order = self.holders_of(&key);
        // Ourselves first: that answer costs nothing.
        order.sort_by_key(|node| *node != self.me);
        let lookup = Lookup::new(
            now.mono,
            order.into_iter().map(|node| {
                let rtt = if node == self.me { Some(Duration::ZERO) } else { self.rtts.get(&node).copied() };
                (node, rtt)
            }),
        );
        let op = self.take_id();
        self.lookups.insert(op, LookupOp { key, lookup, askers: vec![asker] });
        self.drive_lookup(now, op);
    }

    pub(super) fn lookup_answered(
        &mut self,
        now: Now,
        op: u64,
        node: NodeId,
        answer: &Answer,
        realm: &Realm,
    ) {
        let Some(lookup) = self.lookups.get_mut(&op) else { return };
        let verified = match answer.standing {
            Standing::Held => Verified::of(realm, &lookup.key, answer, now.unix),
            Standing::None | Standing::NotYet | Standing::Unreachable => Verified::default(),
        };
        if answer.standing == Standing::Held
            && (verified.account.is_none() || verified.contact.entries().len() < answer.entries.len())
        {
            self.counters.disbelieved += 1;
        }
        lookup.lookup.handle_answer(now.mono, node, answer.standing, verified);
        self.drive_lookup(now, op);
    }

    /// Carries out what a lookup wants.
    pub(super) fn drive_lookup(&mut self, now: Now, op: u64) {
        while let Some(lookup) = self.lookups.get_mut(&op)
            && let Some(step) = lookup.lookup.poll()
        {
            let key = lookup.key;
            match step {
                Step::Ask(node) if node == self.me => {
                    let standing = self.own_answer(now.mono, &key).standing;
                    let verified = self.holder.verified(&key).unwrap_or_default();
                    if let Some(lookup) = self.lookups.get_mut(&op) {
                        lookup.lookup.handle_answer(now.mono, node, standing, verified);
                    }
                }
                Step::Ask(node) => {
                    let request =
                        |id| ReadRequest { id, key, scope: Scope::Holder, past_cache: true }.encode();
                    self.ask(now, node, Purpose::Lookup(op), request);
                }
                Step::First => {
                    let (found, holders) = (lookup.lookup.found().clone(), lookup.lookup.answered());
                    for asker in lookup.askers.clone() {
                        self.tell(now, asker, Standing::Held, &found, false, holders);
                    }
                }
                Step::Done(standing) => {
                    let Some(op) = self.lookups.remove(&op) else { return };
                    let (found, holders) = (op.lookup.found().clone(), op.lookup.answered());
                    if standing == Standing::Held {
                        self.remember(now, key, &found);
                    }
                    for asker in op.askers {
                        self.tell(now, asker, standing, &found, true, holders);
                    }
                    return;
                }
            }
        }
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

    fn tell(
        &mut self,
        now: Now,
        asker: Asker,
        standing: Standing,
        found: &Verified,
        settled: bool,
        holders: usize,
    ) {
        match asker {
            Asker::Device { node, id } => {
                let answer = Answer {
                    id,
                    standing,
                    account: found.account.as_ref().map(|account| account.bytes().to_vec()),
                    entries: found.contact.entries().iter().map(|e| e.bytes().to_vec()).collect(),
                    settled,
                    holders: holders as u64,
                };
                self.send(From::Device(node), answer.encode());
            }
            Asker::Own { id } => {
                let result = match (&found.account, standing) {
                    (Some(account), _) => LookupResult::Found {
                        account: Box::new(account.clone()),
                        entries: found.live(now.unix),
                        settled,
                    },
                    (None, Standing::None) => LookupResult::NoSuchAccount,
                    (None, Standing::Held | Standing::NotYet | Standing::Unreachable) => {
                        LookupResult::Unreachable
                    }
                };
                self.outputs.push_back(RingOutput::Looked { id, result });
            }
        }
    }
}
