//! Requests that await an answer. Only the member that was asked may answer, and it must know the id.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::limits::OPERATION;
use crate::message::RequestId;

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A read.
    Lookup(u64),
    /// One part of a record on its way.
    Delivery {
        /// Which delivery.
        op: u64,
        /// Which part.
        part: usize,
    },
}

/// Requests over links are numbered, those in datagrams have random names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Link(u64),
    Datagram(RequestId),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    to: NodeId,
    purpose: Purpose,
    sent: Instant,
}

/// All requests that await an answer.
#[derive(Debug, Default)]
pub(super) struct Pendings {
    open: BTreeMap<Name, Pending>,
    order: VecDeque<(Instant, Name)>,
}

impl Pendings {
    /// A datagram was sent.
    pub(super) fn asked(&mut self, now: Instant, id: RequestId, to: NodeId, purpose: Purpose) {
        self.insert(now, Name::Datagram(id), to, purpose);
    }

    /// A frame was sent.
    pub(super) fn asked_linked(&mut self, now: Instant, id: u64, to: NodeId, purpose: Purpose) {
        self.insert(now, Name::Link(id), to, purpose);
    }

    fn insert(&mut self, now: Instant, name: Name, to: NodeId, purpose: Purpose) {
        self.expire(now);
        self.open.insert(name, Pending { to, purpose, sent: now });
        self.order.push_back((now + OPERATION, name));
    }

    /// A datagram answers: what for, and after how long.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        from: NodeId,
        id: RequestId,
    ) -> Option<(Purpose, Duration)> {
        let pending = self.take(Name::Datagram(id), from)?;
        Some((pending.purpose, now.since(pending.sent)))
    }

    /// A frame answers.
    pub(super) fn answered_linked(&mut self, from: NodeId, id: u64) -> Option<Purpose> {
        self.take(Name::Link(id), from).map(|pending| pending.purpose)
    }

    /// The link with this member is gone.
    pub(super) fn take_linked(&mut self, node: NodeId) -> Vec<Purpose> {
        let is_lost = |name: &Name, pending: &Pending| matches!(name, Name::Link(_)) && pending.to == node;
        let lost = self.open.iter().filter(|(name, pending)| is_lost(name, pending));
        let purposes = lost.map(|(_, pending)| pending.purpose).collect();
        self.open.retain(|name, pending| !is_lost(name, pending));
        purposes
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, name)) = self.order.front().filter(|(at, _)| *at <= now) {
            self.open.remove(name);
            self.order.pop_front();
        }
    }

    fn take(&mut self, name: Name, from: NodeId) -> Option<Pending> {
        if self.open.get(&name)?.to != from {
            return None;
        }
        self.open.remove(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_and_only_once() {
        let (one, two) = (NodeId([1; 16]), NodeId([2; 16]));
        let mut pendings = Pendings::default();
        let start = Instant::from_micros(5);
        pendings.asked(start, [7; 16], one, Purpose::Lookup(3));
        let later = start + Duration::from_millis(50);
        assert_eq!(pendings.answered(later, two, [7; 16]), None);
        let expected = Some((Purpose::Lookup(3), Duration::from_millis(50)));
        assert_eq!(pendings.answered(later, one, [7; 16]), expected);
        assert_eq!(pendings.answered(later, one, [7; 16]), None);
        pendings.asked_linked(start, 8, one, Purpose::Lookup(4));
        pendings.asked(start, [8; 16], one, Purpose::Lookup(5));
        assert_eq!(pendings.take_linked(two), []);
        assert_eq!(pendings.take_linked(one), [Purpose::Lookup(4)]);
        pendings.expire(start + OPERATION);
        assert_eq!(pendings.answered(later, one, [8; 16]), None);
        assert!(pendings.open.is_empty() && pendings.order.is_empty());
    }
}
