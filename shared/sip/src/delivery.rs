//! What a home watches for its devices: an INVITE that was handed to one and that it does not acknowledge within
//! [`UNDELIVERED`] goes back, so that a device whose link is dead but not yet known to be costs its caller a second and
//! not the time to ring (D§5).
//!
//! Feed every envelope handed to a device to [`handed`](Deliveries::handed), every message a device sends to
//! [`sent`](Deliveries::sent), lost links to [`detached`](Deliveries::detached), and time; drain
//! [`poll_output`](Deliveries::poll_output).

use std::collections::{BTreeMap, VecDeque};

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::envelope::{Envelope, ReturnReason};
use crate::limits::{DELIVERIES_MAX, UNDELIVERED};
use crate::message::Message;
use crate::method::Method;

/// An envelope to return: a [`crate::envelope::Return`] with this id and reason goes back to `from` by `from_home`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Who sent it.
    pub from: NodeId,
    /// By which home.
    pub from_home: NodeId,
    /// The device that did not take it.
    pub device: NodeId,
    /// The sender's number for it.
    pub id: u64,
    /// Why.
    pub reason: ReturnReason,
}

/// The device, the Call-ID and the number of an INVITE.
type Invite = (NodeId, String, u32);

/// All INVITEs of one home that wait for an acknowledgement; see the module's text.
#[derive(Debug, Default)]
pub struct Deliveries {
    waiting: BTreeMap<Invite, (Instant, Undelivered)>,
    outputs: VecDeque<Undelivered>,
}

impl Deliveries {
    /// None yet.
    pub fn new() -> Deliveries {
        Deliveries::default()
    }

    /// This envelope was handed to the device it is for. A copy of one that waits does not start anew. When too many
    /// wait, the next one is not watched: its caller has timers of its own.
    pub fn handed(&mut self, now: Instant, envelope: &Envelope) {
        if !envelope.message.starts_with(b"INVITE ") || self.waiting.len() >= DELIVERIES_MAX {
            return;
        }
        let Ok(Message::Request(invite)) = Message::parse(&envelope.message) else { return };
        let Some(cseq) = invite.cseq() else { return };
        self.waiting.entry((envelope.to, invite.call_id(), cseq.number)).or_insert_with(|| {
            let back = Undelivered {
                from: envelope.from,
                from_home: envelope.from_home,
                device: envelope.to,
                id: envelope.id,
                reason: ReturnReason::Undelivered,
            };
            (now + UNDELIVERED, back)
        });
    }

    /// This message came from a device attached here: any answer to an INVITE acknowledges it.
    pub fn sent(&mut self, device: NodeId, message: &[u8]) {
        if self.waiting.is_empty() || !message.starts_with(b"SIP/2.0 ") {
            return;
        }
        let Ok(Message::Response(response)) = Message::parse(message) else { return };
        if let Some(cseq) = response.cseq().filter(|cseq| cseq.method == Method::Invite) {
            self.waiting.remove(&(device, response.call_id(), cseq.number));
        }
    }

    /// The device's link is gone: what waits for it goes back at once.
    pub fn detached(&mut self, device: NodeId) {
        let outputs = &mut self.outputs;
        self.waiting.retain(|(to, _, _), (_, back)| {
            if *to == device {
                outputs.push_back(Undelivered { reason: ReturnReason::NotAttached, ..back.clone() });
            }
            *to != device
        });
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let outputs = &mut self.outputs;
        self.waiting.retain(|_, (until, back)| {
            if *until <= now {
                outputs.push_back(back.clone());
            }
            *until > now
        });
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|(until, _)| *until).min()
    }

    /// The next envelope to return; `None` when drained.
    pub fn poll_output(&mut self) -> Option<Undelivered> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{Request, RequestParts, Response};
    use crate::method::Status;
    use crate::uri::{NameAddr, Uri};

    const ALICE: NodeId = NodeId([1; 16]);
    const BOB: NodeId = NodeId([2; 16]);

    fn invite(call_id: &str) -> Request {
        Request::new(&RequestParts {
            method: Method::Invite,
            uri: Uri::node(BOB, "example.net"),
            from: &NameAddr::parse("<sip:alice@example.net>;tag=a").unwrap(),
            to: &NameAddr::parse("<sip:bob@example.net>").unwrap(),
            call_id,
            cseq: 1,
            branch: "z9hG4bKx",
        })
    }

    fn envelope(request: &Request, id: u64) -> Envelope {
        Envelope {
            to: BOB,
            to_home: None,
            from: ALICE,
            from_home: NodeId([9; 16]),
            message: request.encode(),
            id,
            by_home: false,
        }
    }

    #[test]
    fn an_invite_that_is_not_acknowledged_goes_back_after_a_second() {
        let mut home = Deliveries::new();
        let invite = invite("c");
        home.handed(Instant::ORIGIN, &envelope(&invite, 5));
        home.handed(Instant::from_micros(300_000), &envelope(&invite, 6));
        let until = Instant::ORIGIN + UNDELIVERED;
        assert_eq!(home.deadline(), Some(until));
        home.handle_timeout(until - Duration::from_millis(1));
        assert_eq!(home.poll_output(), None);
        home.handle_timeout(until);
        let back = home.poll_output().unwrap();
        assert_eq!(
            (back.from, back.device, back.id, back.reason),
            (ALICE, BOB, 5, ReturnReason::Undelivered)
        );
        assert_eq!((home.poll_output(), home.deadline()), (None, None));
    }

    #[test]
    fn any_answer_of_the_device_acknowledges_it() {
        let mut home = Deliveries::new();
        let invite = invite("c");
        home.handed(Instant::ORIGIN, &envelope(&invite, 5));
        let trying = Response::to(&invite, Status::TRYING, None).encode();
        home.sent(ALICE, &trying);
        assert!(home.deadline().is_some(), "only the device's own word counts");
        home.sent(BOB, &Response::to(&invite.cancel(), Status::OK, None).encode());
        assert!(home.deadline().is_some(), "an answer to CANCEL is none to INVITE");
        home.sent(BOB, &trying);
        assert_eq!(home.deadline(), None);
    }

    #[test]
    fn other_messages_are_not_watched_and_lost_devices_answer_at_once() {
        let mut home = Deliveries::new();
        home.handed(Instant::ORIGIN, &envelope(&invite("c").cancel(), 1));
        home.handed(
            Instant::ORIGIN,
            &Envelope { message: b"INVITE rubbish".to_vec(), ..envelope(&invite("c"), 2) },
        );
        assert_eq!(home.deadline(), None);
        home.handed(Instant::ORIGIN, &envelope(&invite("c"), 3));
        home.detached(BOB);
        let back = home.poll_output().unwrap();
        assert_eq!((back.id, back.reason), (3, ReturnReason::NotAttached));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut home = Deliveries::new();
        for n in 0..=DELIVERIES_MAX as u64 {
            home.handed(Instant::from_micros(n), &envelope(&invite(&format!("c{n}")), n));
        }
        home.handle_timeout(Instant::from_micros(10_000_000));
        let back: Vec<u64> = std::iter::from_fn(|| home.poll_output()).map(|back| back.id).collect();
        assert_eq!(back.len(), DELIVERIES_MAX);
        assert!(!back.contains(&(DELIVERIES_MAX as u64)));
    }
}
