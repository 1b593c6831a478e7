//! Dialogs (RFC 3261 §12 to §15): who talks with whom under which tags, the order of requests, and glare.
//!
//! A dialog holds no timers: [`crate::transaction`] repeats the 200 until its ACK. Make one from the INVITE and its
//! answer, ask it for requests ([`request`](Dialog::request), [`ack`](Dialog::ack)), show it every request that came
//! inside ([`handle_request`](Dialog::handle_request)) before acting on it, and tell it when an INVITE of either side
//! is settled. With one INVITE for each device there are no forks inside.

use std::time::Duration;

use yodel_identity::node::NodeId;

use crate::ids::Ids;
use crate::message::{Request, RequestParts, Response};
use crate::method::{Method, Status};
use crate::uri::{NameAddr, Uri};

/// How far a dialog is (RFC 3261 §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialogState {
    /// A provisional answer made it.
    Early,
    /// A 2xx did, or followed.
    Confirmed,
    /// BYE was sent or came, or the INVITE failed.
    Ended,
}

/// Two devices under one Call-ID and two tags.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialog {
    peer: NodeId,
    call_id: String,
    local: NameAddr,
    remote: NameAddr,
    target: Uri,
    local_number: u32,
    remote_number: Option<u32>,
    /// Number of our INVITE without a final answer.
    our_invite: Option<u32>,
    /// Number of theirs.
    their_invite: Option<u32>,
    owns_call_id: bool,
    state: DialogState,
}

impl std::fmt::Debug for Dialog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialog").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Dialog {
    /// Of the caller, from its INVITE and an answer with a To tag, 101 to 299 (RFC 3261 §12.1.2).
    pub fn of_caller(peer: NodeId, invite: &Request, answer: &Response) -> Option<Dialog> {
        let remote = answer.to_address()?;
        remote.tag()?;
        let number = invite.cseq()?.number;
        let status = answer.status;
        if status == Status::TRYING || !(status.is_provisional() || status.is_success()) {
            return None;
        }
        Some(Dialog {
            peer,
            call_id: invite.call_id(),
            local: invite.from()?,
            target: answer.contact().map_or_else(|| invite.uri.clone(), |contact| contact.uri),
            remote,
            local_number: number,
            remote_number: None,
            our_invite: status.is_provisional().then_some(number),
            their_invite: None,
            owns_call_id: true,
            state: if status.is_success() { DialogState::Confirmed } else { DialogState::Early },
        })
    }

    /// Of the callee, from the INVITE that came and the tag of its answers (RFC 3261 §12.1.1).
    pub fn of_callee(peer: NodeId, invite: &Request, tag: &str) -> Option<Dialog> {
        let number = invite.cseq()?.number;
        let remote = invite.from()?;
        remote.tag()?;
        Some(Dialog {
            peer,
            call_id: invite.call_id(),
            local: invite.to_address()?.with_tag(tag),
            target: invite.contact().map_or_else(|| remote.uri.clone(), |contact| contact.uri),
            remote,
            local_number: 0,
            remote_number: Some(number),
            our_invite: None,
            their_invite: Some(number),
            owns_call_id: false,
            state: DialogState::Early,
        })
    }

    /// The other device.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The call.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        self.local.tag().unwrap_or_default()
    }

    /// The peer's tag.
    pub fn remote_tag(&self) -> &str {
        self.remote.tag().unwrap_or_default()
    }

    /// How far it is.
    pub fn state(&self) -> DialogState {
        self.state
    }

    /// Whether `request` is inside this dialog.
    pub fn owns_request(&self, request: &Request) -> bool {
        request.call_id() == self.call_id
            && request.from_tag().as_deref() == self.remote.tag()
            && request.to_tag().as_deref() == self.local.tag()
    }

    /// Whether `response` answers a request inside this dialog.
    pub fn owns_response(&self, response: &Response) -> bool {
        response.call_id() == self.call_id
            && response.from_tag().as_deref() == self.local.tag()
            && response.to_tag().as_deref() == self.remote.tag()
    }

    /// A 2xx was sent or came for the INVITE that made it.
    pub fn confirm(&mut self) {
        self.our_invite = None;
        self.their_invite = None;
        if self.state == DialogState::Early {
            self.state = DialogState::Confirmed;
        }
    }

    /// The INVITE failed, or the call is over without BYE.
    pub fn end(&mut self) {
        self.state = DialogState::Ended;
    }

    /// A request inside the dialog, with the next number (RFC 3261 §12.2.1.1). BYE ends it. `None` when it is over, or
    /// for an INVITE while one of either side is open (§14.1), or for ACK and CANCEL, which have no number of their
    /// own.
    pub fn request(&mut self, method: Method, ids: &mut Ids) -> Option<Request> {
        let invite_open = self.our_invite.is_some() || self.their_invite.is_some();
        if self.state == DialogState::Ended
            || matches!(method, Method::Ack | Method::Cancel)
            || (method == Method::Invite && invite_open)
            || self.local_number >= i32::MAX.unsigned_abs()
        {
            return None;
        }
        self.local_number += 1;
        match method {
            Method::Invite => self.our_invite = Some(self.local_number),
            Method::Bye => self.state = DialogState::Ended,
            _ => {}
        }
        Some(self.build(method, self.local_number, ids))
    }

    /// The ACK for the 2xx to our INVITE with this number (RFC 3261 §13.2.2.4). Also when the dialog is over: a second
    /// 200 gets its ACK before its BYE.
    pub fn ack(&self, invite_number: u32, ids: &mut Ids) -> Request {
        self.build(Method::Ack, invite_number, ids)
    }

    fn build(&self, method: Method, number: u32, ids: &mut Ids) -> Request {
        Request::new(&RequestParts {
            method,
            uri: self.target.clone(),
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq: number,
            branch: &ids.branch(),
        })
    }

    /// Whether a request that came may be acted on; else the status to answer with. BYE ends the dialog. ACK and
    /// CANCEL are not ordered by number and pass when they belong here. (Copies never get here: transactions keep
    /// them.)
    ///
    /// # Errors
    /// 481 when it does not belong here or the dialog is over, 500 when its number is out of order (§12.2.2) or the
    /// peer's earlier INVITE is open (§14.2), 491 when ours is (§14.2).
    pub fn handle_request(&mut self, request: &Request) -> Result<(), Status> {
        let belongs = match request.method {
            // A CANCEL carries the INVITE's To, which has no tag when the INVITE made the dialog (§9.1).
            Method::Cancel => {
                request.call_id() == self.call_id && request.from_tag().as_deref() == self.remote.tag()
            }
            _ => self.owns_request(request),
        };
        let Some(cseq) = request.cseq().filter(|_| belongs) else { return Err(Status::NO_SUCH_CALL) };
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        if self.state == DialogState::Ended {
            return Err(Status::NO_SUCH_CALL);
        }
        if self.remote_number.is_some_and(|last| cseq.number <= last) {
            return Err(Status::SERVER_ERROR);
        }
        self.remote_number = Some(cseq.number);
        match request.method {
            Method::Invite if self.our_invite.is_some() => return Err(Status::REQUEST_PENDING),
            Method::Invite if self.their_invite.is_some() => return Err(Status::SERVER_ERROR),
            Method::Invite => self.their_invite = Some(cseq.number),
            Method::Bye => self.state = DialogState::Ended,
            _ => {}
        }
        Ok(())
    }

    /// Our INVITE inside the dialog has its final answer: another may follow. 481 and 408 end the dialog (§14.1).
    pub fn our_invite_settled(&mut self, status: Status) {
        self.our_invite = None;
        if matches!(status, Status::NO_SUCH_CALL | Status::REQUEST_TIMEOUT) {
            self.state = DialogState::Ended;
        }
    }

    /// We gave the final answer to the peer's INVITE inside the dialog: another may follow.
    pub fn their_invite_settled(&mut self) {
        self.their_invite = None;
    }

    /// How long to wait after a 491 before the INVITE is tried again (§14.1), from a random number: 2.1 to 4 s for who
    /// made the Call-ID, 0 to 2 s for the other, in steps of 10 ms, so that both do not cross again.
    pub fn glare_wait(&self, random: u32) -> Duration {
        let steps = if self.owns_call_id { 210 + random % 191 } else { random % 201 };
        Duration::from_millis(u64::from(steps) * 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: NodeId = NodeId([1; 16]);
    const BOB: NodeId = NodeId([2; 16]);

    fn invite(ids: &mut Ids) -> Request {
        Request::new(&RequestParts {
            method: Method::Invite,
            uri: Uri::node(BOB, "example.net"),
            from: &NameAddr::parse("<sip:alice@example.net>;tag=a").unwrap(),
            to: &NameAddr::parse("<sip:bob@example.net>").unwrap(),
            call_id: "c",
            cseq: 1,
            branch: &ids.branch(),
        })
    }

    /// Alice's and Bob's side of one confirmed call.
    fn pair(ids: &mut Ids) -> (Dialog, Dialog) {
        let invite = invite(ids);
        let mut bob = Dialog::of_callee(ALICE, &invite, "b").unwrap();
        let mut alice =
            Dialog::of_caller(BOB, &invite, &Response::to(&invite, Status::RINGING, Some("b"))).unwrap();
        assert_eq!((alice.state(), bob.state()), (DialogState::Early, DialogState::Early));
        alice.confirm();
        bob.confirm();
        (alice, bob)
    }

    #[test]
    fn both_sides_agree() {
        let mut ids = Ids::new([7; 32]);
        let (mut alice, mut bob) = pair(&mut ids);
        assert_eq!((alice.local_tag(), alice.remote_tag()), (bob.remote_tag(), bob.local_tag()));
        let ack = alice.ack(1, &mut ids);
        assert_eq!(ack.cseq().unwrap().to_string(), "1 ACK");
        assert_eq!(bob.handle_request(&ack), Ok(()));
        let info = alice.request(Method::Info, &mut ids).unwrap();
        assert_eq!(info.cseq().unwrap().number, 2);
        assert_eq!(info.uri, Uri::node(BOB, "example.net"));
        assert_eq!(bob.handle_request(&info), Ok(()));
        assert!(alice.owns_response(&Response::to(&info, Status::OK, None)));
        let bye = bob.request(Method::Bye, &mut ids).unwrap();
        assert_eq!(bye.cseq().unwrap().number, 1);
        assert_eq!(bob.state(), DialogState::Ended);
        assert_eq!(alice.handle_request(&bye), Ok(()));
        assert_eq!(alice.state(), DialogState::Ended);
        assert!(alice.request(Method::Info, &mut ids).is_none());
    }

    #[test]
    fn a_100_a_refusal_and_a_missing_tag_make_no_dialog() {
        let invite = invite(&mut Ids::new([7; 32]));
        for (status, tag) in
            [(Status::TRYING, Some("b")), (Status::DECLINE, Some("b")), (Status::RINGING, None)]
        {
            assert_eq!(Dialog::of_caller(BOB, &invite, &Response::to(&invite, status, tag)), None);
        }
    }

    #[test]
    fn strangers_and_what_is_out_of_order_are_refused() {
        let mut ids = Ids::new([7; 32]);
        let (mut alice, mut bob) = pair(&mut ids);
        let first = alice.request(Method::Info, &mut ids).unwrap();
        let second = alice.request(Method::Info, &mut ids).unwrap();
        assert_eq!(bob.handle_request(&second), Ok(()));
        assert_eq!(bob.handle_request(&first), Err(Status::SERVER_ERROR));
        let mut forged = alice.request(Method::Bye, &mut ids).unwrap();
        forged.headers.set("To", "<sip:bob@example.net>;tag=other");
        assert_eq!(bob.handle_request(&forged), Err(Status::NO_SUCH_CALL));
        assert_eq!(bob.state(), DialogState::Confirmed);
    }

    #[test]
    fn invites_that_cross_are_491_on_both_sides() {
        let mut ids = Ids::new([7; 32]);
        let (mut alice, mut bob) = pair(&mut ids);
        let from_alice = alice.request(Method::Invite, &mut ids).unwrap();
        let from_bob = bob.request(Method::Invite, &mut ids).unwrap();
        assert!(alice.request(Method::Invite, &mut ids).is_none(), "one at a time");
        assert_eq!(alice.handle_request(&from_bob), Err(Status::REQUEST_PENDING));
        assert_eq!(bob.handle_request(&from_alice), Err(Status::REQUEST_PENDING));
        alice.our_invite_settled(Status::REQUEST_PENDING);
        bob.our_invite_settled(Status::REQUEST_PENDING);
        for random in 0..1_000 {
            assert!((2_100..=4_000).contains(&alice.glare_wait(random).as_millis()));
            assert!(bob.glare_wait(random).as_millis() <= 2_000);
        }
        let again = bob.request(Method::Invite, &mut ids).unwrap();
        assert_eq!(alice.handle_request(&again), Ok(()));
        assert!(alice.request(Method::Invite, &mut ids).is_none(), "theirs is open");
        alice.their_invite_settled();
        assert!(alice.request(Method::Invite, &mut ids).is_some());
    }

    #[test]
    fn a_cancel_needs_no_tag_of_ours() {
        let mut ids = Ids::new([7; 32]);
        let invite = invite(&mut ids);
        let mut bob = Dialog::of_callee(ALICE, &invite, "b").unwrap();
        assert_eq!(bob.handle_request(&invite.cancel()), Ok(()));
        let mut forged = invite.cancel();
        forged.headers.set("From", "<sip:alice@example.net>;tag=x");
        assert_eq!(bob.handle_request(&forged), Err(Status::NO_SUCH_CALL));
    }
}
