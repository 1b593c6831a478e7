//! SIP between devices and homes. A home delivers to devices attached to it, or hands on to the one home that the
//! envelope names; it never forwards on, and never looks into a message beyond its first word.
//!
//! An INVITE that the device does not answer with anything toward its sender within a second goes back as undelivered:
//! the device's link may be dead without anybody having noticed yet.

use std::collections::BTreeMap;

use yodel_identity::node::NodeId;
use yodel_relay::bucket::Bucket;
use yodel_sip::envelope::{Envelope, Return, ReturnReason};
use yodel_sip::limits::UNDELIVERED;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::{Instant, Now};

use crate::limits::{
    FORWARD, FORWARDS_MAX, INVITES_BURST, INVITES_PER_S, MESSAGES_BURST, MESSAGES_PER_S, SENDERS_MAX,
};
use crate::node::Supernode;

/// Where an envelope came from, and where a return of it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Device(NodeId),
    Member(NodeId),
    /// The echo that lives here; it hears of nothing undelivered.
    Echo,
}

#[derive(Debug)]
struct Forwarded {
    device: NodeId,
    id: u64,
    at: Instant,
}

#[derive(Debug)]
struct Ringing {
    device: NodeId,
    sender: NodeId,
    origin: Origin,
    id: u64,
    at: Instant,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Router {
    next: u64,
    forwarded: BTreeMap<u64, Forwarded>,
    ringing: Vec<Ringing>,
    senders: BTreeMap<NodeId, Sender>,
}

/// What one sender may still send.
#[derive(Debug)]
struct Sender {
    invites: Bucket,
    messages: Bucket,
}

/// The two requests that make a device work for somebody it may not know. Homes do not see whether it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Invite,
    Message,
}

impl Counted {
    /// By the message's first word. Empty lines in front of it count for nothing (RFC 3261 §7.5), as with whoever reads
    /// the message then.
    fn of(message: &[u8]) -> Option<Counted> {
        let mut rest = message;
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        match rest.split(|byte| *byte == b' ').next()? {
            b"INVITE" => Some(Counted::Invite),
            b"MESSAGE" => Some(Counted::Message),
            _ => None,
        }
    }
}

impl Router {
    /// When something is due here.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ringing.iter().map(|r| r.at + UNDELIVERED).min()
    }

    fn may_send(&mut self, now: Instant, sender: NodeId, what: Counted) -> bool {
        if self.senders.len() >= SENDERS_MAX {
            self.senders.retain(|_, sender| !(sender.invites.is_full(now) && sender.messages.is_full(now)));
        }
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&sender) {
            return false;
        }
        let sender = self.senders.entry(sender).or_insert_with(|| Sender {
            invites: Bucket::new(now, INVITES_PER_S, INVITES_BURST),
            messages: Bucket::new(now, MESSAGES_PER_S, MESSAGES_BURST),
        });
        match what {
            Counted::Invite => sender.invites.take(now, 1),
            Counted::Message => sender.messages.take(now, 1),
        }
    }
}

impl Supernode {
    /// A device asks to have a message carried.
    pub(crate) fn sip_send(&mut self, now: Now, device: NodeId, body: &[u8]) -> Result<(), DecodeError> {
        let mut envelope = Envelope::decode(body)?;
        envelope.from = device;
        envelope.from_home = self.me;
        envelope.by_home = false;
        self.acknowledged(device, envelope.to);
        self.carry(now, Origin::Device(device), envelope);
        Ok(())
    }

    /// The echo that lives here answers.
    pub(crate) fn sip_from_echo(&mut self, now: Now, mut envelope: Envelope) {
        envelope.from = self.me;
        envelope.from_home = self.me;
        self.carry(now, Origin::Echo, envelope);
    }

    /// Another home hands a message over.
    pub(crate) fn sip_forward(&mut self, now: Now, home: NodeId, body: &[u8]) -> Result<(), DecodeError> {
        let mut envelope = Envelope::decode(body)?;
        envelope.from_home = home;
        envelope.to_home = Some(self.me);
        self.carry(now, Origin::Member(home), envelope);
        Ok(())
    }

    /// Another home could not deliver what we handed it.
    pub(crate) fn sip_return(&mut self, home: NodeId, body: &[u8]) -> Result<(), DecodeError> {
        let returned = Return::decode(body)?;
        if let Some(forwarded) = self.router.forwarded.remove(&returned.id) {
            let returned = Return { id: forwarded.id, home, ..returned };
            self.write_device(forwarded.device, Frame::new(FrameKind::SipReturn, returned.encode()));
        }
        Ok(())
    }

    fn carry(&mut self, now: Now, origin: Origin, envelope: Envelope) {
        let counted = Counted::of(&envelope.message);
        let invite = counted == Some(Counted::Invite);
        if counted.is_some_and(|what| !self.router.may_send(now.mono, envelope.from, what)) {
            self.counters.sip_limited += 1;
            return self.send_back(origin, &envelope, ReturnReason::RateLimited);
        }
        match envelope.to_home.filter(|home| *home != self.me) {
            None => self.deliver(now, origin, envelope, invite),
            Some(home) => match origin {
                Origin::Device(device) => self.hand_over(now, home, Some(device), envelope),
                Origin::Echo => self.hand_over(now, home, None, envelope),
                // It named us as the home already; never forwarded on.
                Origin::Member(_) => {}
            },
        }
    }

    fn deliver(&mut self, now: Now, origin: Origin, envelope: Envelope, invite: bool) {
        if envelope.to == self.me {
            self.counters.sip_delivered += 1;
            self.echo_sip(now, envelope);
            return;
        }
        let frame = Frame::new(FrameKind::SipDeliver, envelope.encode());
        if !self.write_device(envelope.to, frame) {
            return self.send_back(origin, &envelope, ReturnReason::NotAttached);
        }
        self.counters.sip_delivered += 1;
        if invite && origin != Origin::Echo && self.router.ringing.len() < FORWARDS_MAX {
            self.router.ringing.push(Ringing {
                device: envelope.to,
                sender: envelope.from,
                origin,
                id: envelope.id,
                at: now.mono,
            });
        }
    }

    fn hand_over(&mut self, now: Now, home: NodeId, device: Option<NodeId>, envelope: Envelope) {
        self.router.next += 1;
        let id = self.router.next;
        let frame = Frame::new(FrameKind::SipForward, Envelope { id, ..envelope.clone() }.encode());
        if !self.write_member(home, frame) {
            let origin = device.map_or(Origin::Echo, Origin::Device);
            return self.send_back(origin, &envelope, ReturnReason::NoRoute);
        }
        self.counters.sip_forwarded += 1;
        let Some(device) = device else { return };
        if self.router.forwarded.len() >= FORWARDS_MAX {
            self.router.forwarded.pop_first();
        }
        self.router.forwarded.insert(id, Forwarded { device, id: envelope.id, at: now.mono });
    }

    /// What waited for a link to this home was never written.
    pub(crate) fn not_forwarded(&mut self, home: NodeId, frame: &Frame) {
        if frame.kind != FrameKind::SipForward {
            return;
        }
        let Ok(envelope) = Envelope::decode(&frame.body) else { return };
        let Some(forwarded) = self.router.forwarded.remove(&envelope.id) else { return };
        let newest_entry = self.ring.newest_entry(envelope.to);
        self.counters.sip_returned += 1;
        let returned = Return { id: forwarded.id, reason: ReturnReason::NoRoute, newest_entry, home };
        self.write_device(forwarded.device, Frame::new(FrameKind::SipReturn, returned.encode()));
    }

    /// Tells the sender why, with the newest entry we know of the device it wanted.
    fn send_back(&mut self, origin: Origin, envelope: &Envelope, reason: ReturnReason) {
        let newest_entry = self.ring.newest_entry(envelope.to);
        self.return_to(origin, envelope.id, reason, newest_entry);
    }

    fn return_to(&mut self, origin: Origin, id: u64, reason: ReturnReason, newest_entry: Option<Vec<u8>>) {
        self.counters.sip_returned += 1;
        let returned = Return { id, reason, newest_entry, home: self.me };
        let frame = Frame::new(FrameKind::SipReturn, returned.encode());
        match origin {
            Origin::Device(device) => {
                self.write_device(device, frame);
            }
            Origin::Member(home) => {
                self.write_member(home, frame);
            }
            Origin::Echo => {}
        }
    }

    /// Anything that a device sends toward the sender of an INVITE shows that it got it.
    fn acknowledged(&mut self, device: NodeId, sender: NodeId) {
        self.router.ringing.retain(|r| r.device != device || r.sender != sender);
    }

    /// INVITEs that stayed without any answer for too long go back.
    pub(crate) fn sweep_routes(&mut self, now: Now) {
        let (late, waiting): (Vec<Ringing>, Vec<Ringing>) = std::mem::take(&mut self.router.ringing)
            .into_iter()
            .partition(|r| now.mono.since(r.at) >= UNDELIVERED);
        self.router.ringing = waiting;
        for ringing in late {
            let newest_entry = self.ring.newest_entry(ringing.device);
            self.return_to(ringing.origin, ringing.id, ReturnReason::Undelivered, newest_entry);
        }
        self.router.forwarded.retain(|_, forwarded| now.mono.since(forwarded.at) < FORWARD);
    }
}
