//! Handing records over when members come and go, and forgetting what has ended.

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::{CommitWaiter, From, Pending, Purpose, REPAIR_JOBS_MAX, RepairJob, Ring, RingOutput};
use crate::holder::Key;
use crate::limits::{REPAIR_BATCH, REPAIR_DELAY, REPAIR_PAUSE};
use crate::placement::{Member, holders};
use crate::record::{Scope, WriteRequest};

impl Ring {
    pub(super) fn push_repair(&mut self, now: Instant, before: Vec<Member>, after: Vec<Member>) {
        if self.repairs.len() >= REPAIR_JOBS_MAX {
            self.repairs.pop_front();
        }
        self.repairs.push_back(RepairJob { before, after, cursor: None, next: now + REPAIR_DELAY });
    }

    /// Hands records to members that hold them now and did not before, if we are the nearest that did.
    pub(super) fn repair(&mut self, now: Instant) {
        let Some(job) = self.repairs.front().filter(|job| now >= job.next).cloned() else { return };
        let keys: Vec<Key> = self.holder.keys_after(job.cursor).take(REPAIR_BATCH).copied().collect();
        for key in &keys {
            let old = holders(&job.before, key);
            let new = holders(&job.after, key);
            if new.iter().find(|node| old.contains(node)) != Some(&self.me) {
                continue;
            }
            for node in new.iter().filter(|node| !old.contains(node)) {
                self.hand_over(now, *node, *key);
            }
        }
        match keys.last() {
            Some(last) if keys.len() == REPAIR_BATCH => {
                if let Some(job) = self.repairs.front_mut() {
                    job.cursor = Some(*last);
                    job.next = now + REPAIR_PAUSE;
                }
            }
            Some(_) | None => {
                self.repairs.pop_front();
            }
        }
    }

    fn hand_over(&mut self, now: Instant, node: NodeId, key: Key) {
        let Some(held) = self.holder.get(&key).filter(|_| self.members.is_up(node)) else { return };
        let mut writes = vec![(Some(held.account().bytes().to_vec()), None)];
        for entry in held.contact().entries() {
            match writes.last_mut() {
                Some((Some(_), first @ None)) => *first = Some(entry.bytes().to_vec()),
                Some(_) | None => writes.push((None, Some(entry.bytes().to_vec()))),
            }
        }
        self.counters.handed_over += 1;
        for (account, entry) in writes {
            let id = self.take_id();
            self.pending.insert(id, Pending { to: node, purpose: Purpose::Repair, sent: now });
            let write = WriteRequest { id, key, scope: Scope::Holder, account, entry };
            self.send(From::Member(node), write.encode());
        }
    }

    pub(super) fn sweep(&mut self, now: Now, realm: &Realm) {
        self.swept = now.mono;
        for key in self.holder.sweep(realm, now.unix) {
            let value = self.holder.get(&key).map(crate::holder::Held::encode);
            let number = self.take_id();
            self.commits.insert(number, CommitWaiter::Nobody);
            self.outputs.push_back(RingOutput::Commit { number, key, value });
        }
        self.cache.retain(|_, cached| now.mono < cached.until);
    }
}
