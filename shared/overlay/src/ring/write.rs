//! Writes for devices, to all holders at once, and records on their way to one member.

use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::asked::Purpose;
use super::delivery::{Act, Delivery};
use super::serve::Waiter;
use super::timers::Timer;
use super::{From, Ring};
use crate::holder::Key;
use crate::limits::OPERATIONS_MAX;
use crate::lookup::patience;
use crate::message::{Message, RequestId};
use crate::publish::Publish;
use crate::record::{Scope, WriteRequest, WriteStatus, Written};

/// A write of a device.
#[derive(Debug)]
pub(super) struct PublishOp {
    key: Key,
    publish: Publish,
    device: NodeId,
    id: u64,
    begun: Instant,
}

/// Why a record is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A device wrote it.
    Publish(u64),
    /// The member holds it from now on.
    HandOver,
    /// The member lagged behind what a read found.
    ReadRepair,
}

/// A record on its way.
#[derive(Debug)]
pub(super) struct DeliveryOp {
    to: NodeId,
    key: Key,
    delivery: Delivery,
    why: Why,
}

impl Ring {
    pub(super) fn walk_write(&mut self, now: Now, device: NodeId, request: &WriteRequest, realm: &Realm) {
        self.counters.publishes += 1;
        self.cache.remove(&request.key);
        let holders = self.holders_of(&request.key);
        if self.publishes.len() >= OPERATIONS_MAX {
            self.send(From::Device(device), Written::new(request.id, WriteStatus::Unreachable).encode());
            return;
        }
        let op = self.take_id();
        let publish = Publish::new(now.mono, &holders);
        self.timers.set(Timer::Publish(op), publish.deadline());
        let (key, id, begun) = (request.key, request.id, now.mono);
        self.publishes.insert(op, PublishOp { key, publish, device, id, begun });
        let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.judge());
        if let Some(outcome) = outcome {
            self.publish_done(now, op, outcome);
            return;
        }
        // The others first: their commits run beside ours.
        let entries: Vec<&[u8]> = request.entry.as_deref().into_iter().collect();
        let me = self.me;
        for node in holders.iter().copied().filter(|node| *node != me) {
            self.deliver(now, node, key, request.account.as_deref(), &entries, Why::Publish(op), realm);
        }
        if holders.contains(&me) {
            let (written, changed) = self.keep(now, request, realm);
            self.after_commit(now, key, changed, Some(Waiter::Publish { op, written }));
        }
    }

    pub(super) fn publish_written(&mut self, now: Now, op: u64, node: NodeId, written: &Written) {
        let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.handle_written(node, written));
        if let Some(outcome) = outcome {
            self.publish_done(now, op, outcome);
        }
    }

    pub(super) fn publish_timeout(&mut self, now: Now, op: u64) {
        let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.handle_timeout(now.mono));
        if let Some(outcome) = outcome {
            self.publish_done(now, op, outcome);
        }
    }

    fn publish_done(&mut self, now: Now, number: u64, outcome: Written) {
        let Some(op) = self.publishes.remove(&number) else { return };
        self.timers.set(Timer::Publish(number), None);
        self.cache.remove(&op.key);
        if outcome.status == WriteStatus::Stored {
            self.latencies.written.record(now.mono.since(op.begun));
        }
        self.send(From::Device(op.device), Written { id: op.id, ..outcome }.encode());
    }

    /// Sends a record to a member. What becomes of it follows from `why`.
    #[expect(clippy::too_many_arguments, reason = "what, whom to and why")]
    pub(super) fn deliver(
        &mut self,
        now: Now,
        to: NodeId,
        key: Key,
        account: Option<&[u8]>,
        entries: &[&[u8]],
        why: Why,
        realm: &Realm,
    ) {
        let number = self.take_id();
        let delivery = Delivery::new(now.mono, account, entries, patience(self.rtt_of(to)));
        self.deliveries.insert(number, DeliveryOp { to, key, delivery, why });
        self.drive_delivery(now, number, realm);
    }

    pub(super) fn datagram_written(
        &mut self,
        now: Now,
        node: NodeId,
        id: RequestId,
        written: &Written,
        realm: &Realm,
    ) {
        // How long it took says little of the network: a commit is part of it.
        if let Some((Purpose::Delivery { op, part }, _)) = self.pendings.answered(now.mono, node, id) {
            self.delivery_written(now, op, part, written, realm);
        }
    }

    pub(super) fn frame_written(&mut self, now: Now, node: NodeId, written: &Written, realm: &Realm) {
        if let Some(Purpose::Delivery { op, part }) = self.pendings.answered_linked(node, written.id) {
            self.delivery_written(now, op, part, written, realm);
        }
    }

    fn delivery_written(&mut self, now: Now, op: u64, part: usize, written: &Written, realm: &Realm) {
        if let Some(delivery) = self.deliveries.get_mut(&op) {
            delivery.delivery.handle_written(now.mono, part, written);
            self.drive_delivery(now, op, realm);
        }
    }

    pub(super) fn delivery_failed(&mut self, now: Now, op: u64, part: usize, realm: &Realm) {
        if let Some(delivery) = self.deliveries.get_mut(&op) {
            delivery.delivery.handle_failed(now.mono, part);
            self.drive_delivery(now, op, realm);
        }
    }

    pub(super) fn delivery_timeout(&mut self, now: Now, op: u64, realm: &Realm) {
        if let Some(delivery) = self.deliveries.get_mut(&op) {
            delivery.delivery.handle_timeout(now.mono);
            self.drive_delivery(now, op, realm);
        }
    }

    /// Carries out what a delivery wants.
    fn drive_delivery(&mut self, now: Now, number: u64, realm: &Realm) {
        while let Some(op) = self.deliveries.get_mut(&number)
            && let Some(act) = op.delivery.poll()
        {
            match act {
                Act::Send(part) => {
                    if !self.send_part(now, number, part)
                        && let Some(op) = self.deliveries.get_mut(&number)
                    {
                        op.delivery.handle_failed(now.mono, part);
                    }
                }
                Act::Silent => {
                    self.counters.repeated += 1;
                    if let Some(slot) = self.membership.slot_of(op.to) {
                        self.membership.check(now, slot);
                    }
                }
                Act::Done(written) => {
                    let Some(op) = self.deliveries.remove(&number) else { return };
                    self.timers.set(Timer::Delivery(number), None);
                    self.delivered(now, &op, &written, realm);
                    return;
                }
            }
        }
        let deadline = self.deliveries.get(&number).and_then(|op| op.delivery.deadline());
        self.timers.set(Timer::Delivery(number), deadline);
    }

    fn send_part(&mut self, now: Now, number: u64, index: usize) -> bool {
        let Some(op) = self.deliveries.get(&number) else { return false };
        let Some(part) = op.delivery.part(index) else { return false };
        let (to, key, linked) = (op.to, op.key, part.linked);
        let (account, entry) = (part.account.clone(), part.entry.clone());
        let purpose = Purpose::Delivery { op: number, part: index };
        if linked {
            let id = self.take_id();
            self.pendings.asked_linked(now.mono, id, to, purpose);
            let request = WriteRequest { id, key, scope: Scope::Holder, account, entry };
            self.send(From::Member(to), request.encode());
            return true;
        }
        let Some(slot) = self.membership.slot_of(to) else { return false };
        let id = self.draw_id();
        if self.transmit(slot, &Message::Write { id, key, account, entry }).is_none() {
            return false;
        }
        self.pendings.asked(now.mono, id, to, purpose);
        true
    }

    fn delivered(&mut self, now: Now, op: &DeliveryOp, written: &Written, realm: &Realm) {
        match op.why {
            Why::Publish(publish) if written.status == WriteStatus::Unreachable => {
                let outcome = self.publishes.get_mut(&publish).and_then(|p| p.publish.handle_failed(op.to));
                if let Some(outcome) = outcome {
                    self.publish_done(now, publish, outcome);
                }
            }
            Why::Publish(publish) => self.publish_written(now, publish, op.to, written),
            Why::HandOver => self.handed_over(now, op.to, op.key, written, realm),
            Why::ReadRepair => {}
        }
    }

    pub(super) fn draw_id(&mut self) -> RequestId {
        let mut id = RequestId::default();
        self.rng.fill_bytes(&mut id);
        id
    }

    /// What a round trip to this member takes, or usually takes here.
    pub(super) fn rtt_of(&self, node: NodeId) -> Option<Duration> {
        let measured = self.membership.slot_of(node).and_then(|slot| self.membership.rtt(slot));
        measured.or_else(|| self.membership.usual_rtt())
    }
}
