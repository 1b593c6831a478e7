//! Leaving in order: what we keep is handed over to who takes our place, then the others are told.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::{Ring, RingOutput};
use crate::card::Service;
use crate::holder::Key;
use crate::limits::{HAND_OVERS_MAX, REPAIR_BATCH, REPAIR_PAUSE};
use crate::placement::Placement;

/// A leave under way.
#[derive(Debug)]
pub(super) struct Leaving {
    until: Instant,
    next: Instant,
    /// Keys up to here were gone through.
    cursor: Option<Key>,
    /// Keys written since they were.
    again: BTreeSet<Key>,
    done: bool,
}

impl Leaving {
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.done).then_some(self.next.min(self.until))
    }
}

impl Ring {
    /// We are about to go: every record is handed over to the member that takes our place. [`RingOutput::Left`] follows
    /// when that is done, or after `patience`; by then the others are being told, and reads and writes of theirs are
    /// still answered.
    pub fn leave(&mut self, now: Now, patience: Duration) {
        if self.leaving.is_some() {
            return;
        }
        let until = now.mono + patience;
        let again = BTreeSet::new();
        self.leaving = Some(Leaving { until, next: now.mono, cursor: None, again, done: false });
    }

    /// Whether [`Ring::leave`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// A record was written while we leave.
    pub(super) fn leave_also(&mut self, key: Key) {
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.done) {
            leaving.again.insert(key);
        }
    }

    pub(super) fn leave_go(&mut self, now: Now, realm: &Realm) {
        let Some(leaving) = self.leaving.as_ref() else { return };
        if leaving.deadline().is_none_or(|at| now.mono < at) {
            return;
        }
        let is_late = now.mono >= leaving.until;
        let mut budget = REPAIR_BATCH;
        let mut is_through = false;
        while !is_late && !is_through && budget > 0 && self.repair.flying() < HAND_OVERS_MAX {
            budget -= 1;
            match self.next_to_leave() {
                Some(key) => self.leave_record(now, key, realm),
                None => is_through = true,
            }
        }
        let is_done = is_late || (is_through && self.repair.flying() == 0);
        let Some(leaving) = self.leaving.as_mut() else { return };
        leaving.next = now.mono + REPAIR_PAUSE;
        if is_done {
            leaving.done = true;
            self.membership.set_service(now, Service::Left);
            self.pump(now);
            self.outputs.push_back(RingOutput::Left);
        }
    }

    fn next_to_leave(&mut self) -> Option<Key> {
        let leaving = self.leaving.as_mut()?;
        if let Some(key) = self.holder.keys_after(leaving.cursor).next() {
            leaving.cursor = Some(*key);
            return Some(*key);
        }
        leaving.again.pop_first()
    }

    fn leave_record(&mut self, now: Now, key: Key, realm: &Realm) {
        for node in self.holders_without_us(&key) {
            if self.place(&key).is_none_or(|place| !place.nodes.contains(&node)) {
                self.hand_over(now, key, node, realm);
            }
        }
    }

    fn holders_without_us(&self, key: &Key) -> Vec<NodeId> {
        let mut placement = Placement::default();
        self.membership.directory().walk(key, |slot, member| {
            if member.node != self.me && self.membership.health(slot).counts() {
                placement.offer(member.node, member)
            } else {
                ControlFlow::Continue(())
            }
        });
        placement.holders()
    }
}
