//! What a holder does: it answers reads, keeps writes, and says so only after they are on stable storage.

use std::collections::{BTreeMap, BTreeSet};

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::Now;

use super::{From, Ring, RingOutput};
use crate::directory::Slot;
use crate::holder::{Held, Key};
use crate::limits::COMMITS_MAX;
use crate::message::{Message, RequestId};
use crate::record::{Answer, ReadRequest, Scope, Standing, WriteRequest, WriteStatus, Written};

/// Who waits for a commit.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    /// A member that wrote in a datagram.
    Datagram { node: NodeId, id: RequestId, written: Written },
    /// A member that wrote over a link.
    Link { node: NodeId, written: Written },
    /// A write that we spread ourselves.
    Publish { op: u64, written: Written },
}

/// Commits under way.
#[derive(Debug, Default)]
pub(super) struct Commits {
    open: BTreeMap<u64, (Key, Vec<Waiter>)>,
    /// The newest commit of each key: who writes the same again waits for it too.
    newest: BTreeMap<Key, u64>,
    /// What is kept under these is not on stable storage, because a commit failed.
    failed: BTreeSet<Key>,
    waiting: usize,
}

impl Ring {
    pub(super) fn serve_read(&mut self, node: NodeId, slot: Slot, id: RequestId, key: &Key) {
        self.counters.served += 1;
        let Answer { standing, account, entries, .. } = self.own_answer(key);
        if self.transmit(slot, &Message::Answer { id, standing, account, entries }).is_none() {
            self.counters.moved_to_link += 1;
            let slot = self.membership.slot_of(node).unwrap_or(slot);
            self.transmit(slot, &Message::Answer { id, standing, account: None, entries: Vec::new() });
        }
    }

    pub(super) fn serve_write(
        &mut self,
        now: Now,
        node: NodeId,
        id: RequestId,
        request: &WriteRequest,
        realm: &Realm,
    ) {
        self.counters.served += 1;
        let (written, changed) = self.keep(now, request, realm);
        self.after_commit(now, request.key, changed, Some(Waiter::Datagram { node, id, written }));
    }

    pub(super) fn frame_write(&mut self, now: Now, from: From, request: WriteRequest, realm: &Realm) {
        match (from, request.scope) {
            (From::Member(node), Scope::Holder) => {
                self.counters.served += 1;
                let (written, changed) = self.keep(now, &request, realm);
                let written = Written { id: request.id, ..written };
                self.after_commit(now, request.key, changed, Some(Waiter::Link { node, written }));
            }
            (From::Device(node), Scope::Holder | Scope::Walk) => self.walk_write(now, node, &request, realm),
            (From::Member(_), Scope::Walk) => {
                self.send(from, Written::new(request.id, WriteStatus::Refused).encode());
            }
        }
    }

    pub(super) fn frame_read(&mut self, now: Now, realm: &Realm, from: From, request: ReadRequest) {
        match (from, request.scope) {
            (From::Member(_), Scope::Holder) => {
                self.counters.served += 1;
                let answer = self.own_answer(&request.key);
                self.send(from, Answer { id: request.id, ..answer }.encode());
            }
            (From::Device(node), Scope::Holder | Scope::Walk) => {
                let asker = super::read::Asker::Device { node, id: request.id };
                self.walk_read(now, realm, Some(asker), request.key, request.past_cache);
            }
            (From::Member(_), Scope::Walk) => {
                self.send(from, Answer::empty(request.id, Standing::Unreachable).encode());
            }
        }
    }

    pub(super) fn own_answer(&self, key: &Key) -> Answer {
        self.holder.answer(key, self.is_standby())
    }

    /// Writes as a holder. The second value says whether what is kept changed.
    pub(super) fn keep(&mut self, now: Now, request: &WriteRequest, realm: &Realm) -> (Written, bool) {
        let (account, entry) = (request.account.as_deref(), request.entry.as_deref());
        let (written, changed) = self.holder.write(realm, request.key, account, entry, now.unix);
        if changed {
            // A holder that hears of something newer must not go on telling what it once fetched.
            self.cache.remove(&request.key);
            self.placed_by_write(request.key);
            self.leave_also(request.key);
        }
        (written, changed)
    }

    /// Commits what is kept under a key if it changed, and answers after that, or after the commit that holds it already.
    pub(super) fn after_commit(&mut self, now: Now, key: Key, changed: bool, waiter: Option<Waiter>) {
        let is_open = self.commits.newest.get(&key).copied();
        if !changed && !self.commits.failed.contains(&key) {
            let Some(waiter) = waiter else { return };
            match is_open.and_then(|number| self.commits.open.get_mut(&number)) {
                Some((_, waiters)) if self.commits.waiting < COMMITS_MAX => {
                    self.commits.waiting += 1;
                    waiters.push(waiter);
                }
                // Too many wait: this one is repeated.
                Some(_) => {}
                None => self.acknowledge(now, waiter, true),
            }
            return;
        }
        let value = self.holder.get(&key).map(Held::encode);
        self.commits.failed.remove(&key);
        let number = self.take_id();
        self.commits.waiting += usize::from(waiter.is_some());
        self.commits.open.insert(number, (key, waiter.into_iter().collect()));
        self.commits.newest.insert(key, number);
        self.outputs.push_back(RingOutput::Commit { number, key, value });
    }

    pub(super) fn committed(&mut self, now: Now, number: u64, stored: bool) {
        let Some((key, waiters)) = self.commits.open.remove(&number) else { return };
        self.commits.waiting -= waiters.len();
        if self.commits.newest.get(&key) == Some(&number) {
            self.commits.newest.remove(&key);
        }
        if !stored {
            self.commits.failed.insert(key);
        }
        for waiter in waiters {
            self.acknowledge(now, waiter, stored);
        }
    }

    fn acknowledge(&mut self, now: Now, waiter: Waiter, stored: bool) {
        let settle = |written: Written| {
            if stored { written } else { Written::new(written.id, WriteStatus::Full) }
        };
        match waiter {
            Waiter::Datagram { node, id, written } => {
                let Some(slot) = self.membership.slot_of(node) else { return };
                let Written { status, newest_entry, newest_account, .. } = settle(written);
                self.transmit(slot, &Message::Written { id, status, newest_entry, newest_account });
            }
            Waiter::Link { node, written } => self.send(From::Member(node), settle(written).encode()),
            Waiter::Publish { op, written } => self.publish_written(now, op, self.me, &settle(written)),
        }
    }
}
