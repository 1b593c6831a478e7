//! Signalling with one device of the peer: boxes, the INVITE and its dialog, requests inside it.

use yodel_identity::node::NodeId;
use yodel_media::MediaKeys;
use yodel_sip::dialog::Dialog;
use yodel_sip::message::{Message, Request, Response};
use yodel_sip::method::{Method as SipMethod, Status};
use yodel_sip::transaction::{ClientOutput, Key, ServerOutput, Way};
use yodel_wire::time::{Instant, Now};

use crate::boxes::{Boxes, Opened, Sealed};
use crate::cause::Cause;
use crate::device::{BOX_TYPE, Device, Peer};
use crate::handshake::{Initiator, Responder};
use crate::plane::Plane;
use crate::timeline::{Method, Refusal};

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LegState {
    /// Caller: the INVITE is out.
    Inviting,
    /// Caller: it rings there.
    Alerted,
    /// Caller: the peer dialled us at the same time, and its attempt lives; it is on its way.
    Yielded,
    /// Callee: the INVITE was believed.
    Incoming,
    /// Callee: the ring is shown.
    Ringing,
    /// Callee: accepted here; the caller's ACK or first media is waited for.
    Accepted,
    /// Answered, as both know.
    Up,
    /// Ended; copies are still answered.
    Over,
}

pub(crate) struct Leg {
    pub(crate) peer: Peer,
    /// The peer's contact entry this leg was dialled from: its nonce and sequence.
    pub(crate) entry: ([u8; 16], u64),
    pub(crate) call_id: String,
    pub(crate) caller: bool,
    pub(crate) state: LegState,
    pub(crate) boxes: Boxes,
    pub(crate) initiator: Option<Initiator>,
    pub(crate) responder: Option<Responder>,
    pub(crate) invite: Request,
    pub(crate) key: Key,
    pub(crate) dialog: Option<Dialog>,
    /// Our tag in answers, callee.
    pub(crate) tag: String,
    /// The way the newest copy of the INVITE came by: our home, the peer's.
    pub(crate) came_by: Option<(NodeId, NodeId)>,
    pub(crate) early: Vec<(NodeId, NodeId, Message)>,
    /// What was just opened, for the transaction's word on it.
    pub(crate) opened: Option<Sealed>,
    /// Caller: what a 200 that still comes is told, and who has the call.
    pub(crate) refusal: Option<(Cause, Option<NodeId>)>,
    pub(crate) plane: Plane,
    pub(crate) media_keys: Option<MediaKeys>,
    ack: Option<Request>,
    /// Caller: why this device will not answer.
    pub(crate) outcome: Option<Cause>,
    /// An authenticated answer to the INVITE came.
    pub(crate) acknowledged: bool,
    pub(crate) invited_at: Instant,
    pub(crate) close_at: Option<Instant>,
}

impl Leg {
    /// `caller` and `callee` make these; what is not an argument starts empty.
    #[expect(clippy::too_many_arguments, reason = "a leg is what these are")]
    pub(crate) fn new(
        now: Now,
        peer: Peer,
        call_id: &str,
        caller: bool,
        invite: Request,
        key: Key,
        boxes: Boxes,
        plane: Plane,
    ) -> Leg {
        Leg {
            peer,
            entry: ([0; 16], 0),
            call_id: call_id.to_owned(),
            caller,
            state: if caller { LegState::Inviting } else { LegState::Incoming },
            boxes,
            initiator: None,
            responder: None,
            invite,
            key,
            dialog: None,
            tag: String::new(),
            came_by: None,
            early: Vec::new(),
            opened: None,
            refusal: None,
            plane,
            media_keys: None,
            ack: None,
            outcome: None,
            acknowledged: false,
            invited_at: now.mono,
            close_at: None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == LegState::Over
    }

    /// Opens what came; a number that was used, or another CSeq inside than outside, is a refusal.
    pub(crate) fn open(&mut self, method: Method, status: u16, cseq: u32, bytes: &[u8]) -> Opened {
        match self.boxes.open(method, status, bytes) {
            Opened::Fresh(sealed) if sealed.cseq != cseq => Opened::Refused(Refusal::Swapped),
            opened => opened,
        }
    }

    // The callee's answers.

    /// Answers the INVITE. Also the final ones are sealed under the leg key: the caller has no other yet.
    pub(crate) fn respond(
        &mut self,
        now: Now,
        device: &mut Device,
        status: Status,
        cause: Option<Cause>,
        body: Vec<u8>,
    ) {
        let sealed =
            Sealed { cause, ..Sealed::answer(Method::Invite, self.key.number, status.code()).with(body) };
        let sealed = self.boxes.seal_leg(&sealed);
        let response = Response::to(&self.invite, status, Some(&self.tag)).with_body(BOX_TYPE, sealed);
        device.tx.respond(now.mono, &self.key, response);
        if status.is_success()
            && let Some(dialog) = &mut self.dialog
        {
            dialog.confirm();
        }
    }

    /// Answers a request inside the leg.
    pub(crate) fn respond_to(&mut self, now: Now, device: &mut Device, request: &Request, status: Status) {
        let Some(key) = Key::of(self.peer.node, request) else { return };
        let Some(method) = method_of(&key.method) else { return };
        let sealed = self.boxes.seal(&Sealed::answer(method, key.number, status.code()));
        let response = Response::to(request, status, None).with_body(BOX_TYPE, sealed);
        device.tx.respond(now.mono, &key, response);
    }

    // Requests.

    /// A request inside the dialog. False when there is no dialog (any more).
    pub(crate) fn request(
        &mut self,
        now: Now,
        device: &mut Device,
        method: Method,
        cause: Option<Cause>,
        body: Vec<u8>,
    ) -> bool {
        let Some(dialog) = &mut self.dialog else { return false };
        let Some(request) = dialog.request(sip_method(method), &mut device.ids) else { return false };
        let Some(cseq) = request.cseq() else { return false };
        let sealed = Sealed { cause, ..Sealed::request(method, cseq.number).with(body) };
        let request = request.with_body(BOX_TYPE, self.boxes.seal(&sealed));
        device.tx.request(now.mono, self.peer.node, request, true).is_ok()
    }

    /// The ACK for the 2xx, under the call's key: proves that we have it. By both ways when `again`.
    pub(crate) fn acknowledge(&mut self, device: &mut Device, cause: Option<Cause>, body: Vec<u8>) {
        let Some(dialog) = &self.dialog else { return };
        let ack = dialog.ack(self.key.number, &mut device.ids);
        let sealed = Sealed { cause, ..Sealed::request(Method::Ack, self.key.number).with(body) };
        let ack = ack.with_body(BOX_TYPE, self.boxes.seal(&sealed));
        device.send_request(Way::First, &self.peer, &ack);
        self.ack = Some(ack);
    }

    pub(crate) fn acknowledge_again(&self, device: &mut Device) {
        if let Some(ack) = &self.ack {
            device.send_request(Way::First, &self.peer, ack);
            device.send_request(Way::Second, &self.peer, ack);
        }
    }

    /// Takes the INVITE back. `winner` names who has the call.
    pub(crate) fn cancel(&mut self, now: Now, device: &mut Device, cause: Cause, winner: Option<NodeId>) {
        self.refusal = Some((cause, winner));
        device.tx.cancel(now.mono, &self.key);
    }

    // What the transactions want.

    /// Carries out an output of one of this leg's own requests; what the call must know is returned.
    pub(crate) fn client_output(
        &mut self,
        device: &mut Device,
        key: &Key,
        output: ClientOutput,
    ) -> Option<ClientOutput> {
        match output {
            ClientOutput::Send { way, request } => {
                let request = self.boxed(key, request);
                device.send_request(way, &self.peer, &request);
                None
            }
            // The transactions send it themselves.
            ClientOutput::CancelNow(_) | ClientOutput::Ended => None,
            ClientOutput::AckAgain(_) => {
                self.acknowledge_again(device);
                None
            }
            told @ (ClientOutput::Response(_) | ClientOutput::Undelivered(_) | ClientOutput::TimedOut) => {
                Some(told)
            }
        }
    }

    /// CANCEL and the ACK of a failure are made by the transaction, without a box.
    fn boxed(&mut self, key: &Key, request: Request) -> Request {
        let (method, cause, body) = match request.method {
            SipMethod::Cancel => {
                let (cause, winner) = match self.refusal {
                    Some((cause, winner)) => (Some(cause), winner),
                    None => (None, None),
                };
                (Method::Cancel, cause, winner.map(|node| node.0.to_vec()).unwrap_or_default())
            }
            SipMethod::Ack if request.body.is_empty() => (Method::Ack, None, Vec::new()),
            _ => return request,
        };
        let sealed = Sealed { cause, ..Sealed::request(method, key.number).with(body) };
        request.with_body(BOX_TYPE, self.boxes.seal_leg(&sealed))
    }

    /// Carries out an output of one of the peer's requests; what the call must know is returned.
    pub(crate) fn server_output(
        &mut self,
        device: &mut Device,
        key: &Key,
        output: ServerOutput,
    ) -> Option<ServerOutput> {
        match output {
            ServerOutput::Send { way, response } => {
                let response = if key.method == SipMethod::Cancel && response.body.is_empty() {
                    let sealed = Sealed::answer(Method::Cancel, key.number, response.status.code());
                    response.with_body(BOX_TYPE, self.boxes.seal_leg(&sealed))
                } else {
                    response
                };
                device.send_response(way, &self.peer, self.came_by, &response);
                None
            }
            ServerOutput::Ended => None,
            told @ (ServerOutput::Acked(_) | ServerOutput::NoAck) => Some(told),
        }
    }
}

/// The account a node id stands for in From; homes may change it, the seal says who it is.
pub(crate) fn named(request: &Request) -> Option<NodeId> {
    request.from()?.uri.node_id()
}

/// Our number for a SIP method that legs have.
pub(crate) fn method_of(method: &SipMethod) -> Option<Method> {
    match method {
        SipMethod::Invite => Some(Method::Invite),
        SipMethod::Ack => Some(Method::Ack),
        SipMethod::Bye => Some(Method::Bye),
        SipMethod::Cancel => Some(Method::Cancel),
        SipMethod::Info => Some(Method::Info),
        SipMethod::Message => Some(Method::Message),
        SipMethod::Register
        | SipMethod::Options
        | SipMethod::Prack
        | SipMethod::Update
        | SipMethod::Subscribe
        | SipMethod::Notify
        | SipMethod::Refer
        | SipMethod::Publish
        | SipMethod::Other(_) => None,
    }
}

fn sip_method(method: Method) -> SipMethod {
    match method {
        Method::Invite => SipMethod::Invite,
        Method::Ack => SipMethod::Ack,
        Method::Bye => SipMethod::Bye,
        Method::Cancel => SipMethod::Cancel,
        Method::Info => SipMethod::Info,
        Method::Message => SipMethod::Message,
    }
}
