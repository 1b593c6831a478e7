//! What becomes of a SIP message that came: whose it is, whether its box opens, and what it then moves.

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_nat::Budget;
use yodel_sip::envelope::{Envelope, ReturnReason};
use yodel_sip::message::{Message, Request, Response};
use yodel_sip::method::{Method as SipMethod, Status};
use yodel_sip::transaction::{Arrival, ClientOutput, Key, ServerOutput, Way};
use yodel_wire::time::Now;

use crate::boxes::{Boxes, Opened};
use crate::call::Calls;
use crate::callee::{Believed, Teller, believe};
use crate::cause::Cause;
use crate::contacts::{Admission, ContactMessage, Incoming, Word, admission};
use crate::device::{BOX_TYPE, Peer};
use crate::event::{CallId, CallsOutput, Role};
use crate::leg::{LegState, method_of, named};
use crate::life::{Call, Phase, base_of, id_of};
use crate::limits::{
    ABANDONED_AFTER, ANSWERING_MAX, CALLS_KEPT_MAX, CALLS_MAX_ECHO, CALLS_MAX_PHONE, EARLY_MESSAGES_MAX,
};
use crate::message::sealed_answer;
use crate::statement::Kind;
use crate::terms::Terms;
use crate::timeline::{Method, Refusal, Step};

/// Where the answer to a MESSAGE goes.
pub(crate) struct Answering {
    peer: Peer,
    came_by: (NodeId, NodeId),
}

impl Calls {
    pub(crate) fn inbound(&mut self, now: Now, realm: &Realm, via: NodeId, envelope: &Envelope) {
        let Ok(message) = Message::parse(&envelope.message) else {
            self.refuse(now, None, Refusal::Malformed);
            return;
        };
        let came_by = (via, envelope.from_home);
        match message {
            Message::Response(response) if envelope.by_home => self.home_answer(now, via, &response),
            Message::Request(_) if envelope.by_home => self.refuse(now, None, Refusal::Unboxed),
            Message::Request(request) => self.inbound_request(now, realm, came_by, envelope.from, request),
            Message::Response(response) => self.inbound_response(now, realm, came_by, response),
        }
    }

    fn refuse(&mut self, now: Now, leg: Option<(CallId, usize)>, refusal: Refusal) {
        match leg.and_then(|(id, at)| Some((self.calls.get_mut(&id)?, at))) {
            Some((call, at)) => call.refuse(now, Some(at), refusal),
            None => self.stray.add(now.mono, None, Step::Refused(refusal)),
        }
    }

    /// A home's own 100, 408, 480 or 503: a word about that way, never about the peer.
    fn home_answer(&mut self, now: Now, via: NodeId, response: &Response) {
        let Some((id, at)) = self.leg_of(&response.call_id()) else { return };
        let first = self.device.home_ids().first() == Some(&via);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.note(now, Some(at), Step::HomeAnswered(response.status.code()));
        let reason = match response.status {
            Status::TEMPORARILY_UNAVAILABLE => ReturnReason::NotAttached,
            Status::REQUEST_TIMEOUT => ReturnReason::Undelivered,
            Status::SERVICE_UNAVAILABLE => ReturnReason::NoRoute,
            _ => return,
        };
        let (Some(leg), Some(cseq)) = (call.legs.get(at), response.cseq()) else { return };
        let key = Key { number: cseq.number, method: cseq.method, ..leg.key.clone() };
        let way = if first { Way::First } else { Way::Second };
        self.device.tx.handle_return(now.mono, &key, way, reason);
    }

    // Requests.

    fn inbound_request(
        &mut self,
        now: Now,
        realm: &Realm,
        came_by: (NodeId, NodeId),
        from: NodeId,
        request: Request,
    ) {
        let call_id = request.call_id();
        let (Some(method), Some(cseq)) = (method_of(&request.method), request.cseq()) else { return };
        let Some(found) = self.leg_of(&call_id) else {
            match method {
                Method::Invite => self.invited(now, realm, came_by, from, request),
                Method::Message => self.messaged(now, realm, came_by, request),
                Method::Ack | Method::Bye | Method::Cancel | Method::Info => {
                    self.refuse(now, None, Refusal::Unboxed);
                }
            }
            return;
        };
        let Some((call, at)) = self.calls.get_mut(&found.0).map(|call| (call, found.1)) else { return };
        let Some(leg) = call.legs.get_mut(at) else { return };
        if method == Method::Invite && !leg.caller && cseq.number == leg.key.number {
            // A copy: by the second way, or replayed. It is answered as before and moves nothing.
            leg.came_by = Some(came_by);
            self.device.tx.handle_request(now.mono, leg.peer.node, request);
            call.refuse(now, Some(at), Refusal::Replayed);
            return;
        }
        match leg.open(method, 0, cseq.number, &request.body) {
            Opened::Fresh(sealed) => {
                leg.came_by = Some(came_by);
                leg.opened = Some(sealed);
                self.opened_request(now, found, method, request);
            }
            Opened::TooEarly => {
                if leg.early.len() < EARLY_MESSAGES_MAX {
                    leg.early.push((came_by.0, came_by.1, Message::Request(request)));
                }
            }
            Opened::Refused(refusal) => {
                if refusal == Refusal::Replayed && method != Method::Ack {
                    // A copy of what opened before wants its answer again.
                    leg.came_by = Some(came_by);
                    self.device.tx.handle_request(now.mono, leg.peer.node, request);
                }
                call.refuse(now, Some(at), refusal);
            }
        }
    }

    fn opened_request(&mut self, now: Now, (id, at): (CallId, usize), method: Method, request: Request) {
        let Calls { device, calls, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        let Some(leg) = call.legs.get_mut(at) else { return };
        let arrival = device.tx.handle_request(now.mono, leg.peer.node, request.clone());
        if method == Method::Ack {
            // The transaction says whether it is the first.
            return;
        }
        let Some(sealed) = leg.opened.take() else { return };
        match (method, arrival) {
            (Method::Cancel, Arrival::Cancel(_)) => call.cancelled(now, device, at, &sealed),
            (Method::Bye, Arrival::New(_)) => {
                call.note(now, Some(at), Step::Received(Method::Bye));
                call.handle_bye(now, device, at, &request, &sealed);
            }
            (Method::Info, Arrival::New(_)) => {
                call.note(now, Some(at), Step::Received(Method::Info));
                if let Some(leg) = call.legs.get_mut(at) {
                    leg.respond_to(now, device, &request, Status::OK);
                }
                call.take_terms(now, device, at, &sealed.body);
            }
            (Method::Invite, Arrival::New(_)) => {
                // Offers inside a call come later; until then 491 while one is open, else 488.
                let status = match leg.dialog.as_mut().map(|dialog| dialog.handle_request(&request)) {
                    Some(Err(status)) => status,
                    Some(Ok(())) | None => Status::NOT_ACCEPTABLE_HERE,
                };
                leg.respond_to(now, device, &request, status);
                if let Some(dialog) = &mut leg.dialog {
                    dialog.their_invite_settled();
                }
            }
            (Method::Message, Arrival::New(_)) => {
                leg.respond_to(now, device, &request, Status::METHOD_NOT_ALLOWED);
            }
            (_, _) => {}
        }
    }

    /// An INVITE with a Call-ID that no leg has.
    fn invited(
        &mut self,
        now: Now,
        realm: &Realm,
        came_by: (NodeId, NodeId),
        from: NodeId,
        request: Request,
    ) {
        let call_id = request.call_id();
        let Some(base) = base_of(&call_id).map(str::to_owned) else {
            self.refuse(now, None, Refusal::Malformed);
            return;
        };
        let id = id_of(&base);
        if self.calls.get(&id).is_some_and(|call| call.silent && call.is_over()) {
            // Refused before, for an old entry perhaps; this is another leg of the same call.
            self.drop_call(id);
        }
        if self.device.seen.contains(&call_id) || self.calls.contains_key(&id) {
            self.refuse(now, None, Refusal::CallIdSeen);
            return;
        }
        let live = self.calls.values().filter(|call| !call.is_over()).count();
        if self.calls.len() >= CALLS_KEPT_MAX && live == self.calls.len() {
            self.refuse(now, None, Refusal::TooMany);
            return;
        }
        let name = named(&request);
        let (believed, boxes) = match believe(now, &self.device, realm, Kind::Invite, &request) {
            Ok(believed) => believed,
            Err((refusal, teller)) => {
                self.refuse(now, None, refusal);
                if let Some(teller) = teller {
                    self.tell_why(now, came_by, *teller, &base, request, refusal);
                }
                return;
            }
        };
        let verdict = match self.device.config.role {
            Role::Echo => Admission::Accepted,
            Role::Phone => admission(&self.device.contacts, &believed.aor, &believed.root),
        };
        if !self.device.seen.take(&call_id, verdict) {
            return;
        }
        let node = believed.credential.node;
        let misnamed = name != Some(node) || from != node;
        let terms = Terms::decode(&believed.responder.offer);
        let Ok(terms) = terms else {
            self.refuse(now, None, Refusal::Malformed);
            return;
        };
        let homes = terms.homes.clone();
        self.end_abandoned(now, node);
        let dialling = self.dialling(&believed.aor).map(|call| (call.base.clone(), call.budget.clone()));
        // Should both have dialled, it is one call, with one allowance.
        let (own_base, budget) =
            dialling.map_or((None, Budget::new()), |(base, budget)| (Some(base), budget));
        let busy = self.is_busy(own_base.as_deref());
        let peer = Peer { node, homes };
        let leg = Call::incoming_leg(now, &mut self.device, request, peer, boxes, came_by, budget);
        let Some(mut leg) = leg else {
            self.refuse(now, None, Refusal::TooMany);
            return;
        };
        let device = &mut self.device;
        let (aor, root) = (believed.aor.clone(), believed.root);
        let refused = match verdict {
            Admission::Stranger => Some((Cause::PolicyUnknownCaller, Cause::PolicyUnknownCaller)),
            Admission::Blocked => Some((Cause::PolicyUnknownCaller, Cause::PolicyBlocked)),
            Admission::KeyChanged => Some((Cause::PolicyUnknownCaller, Cause::TrustKeyChanged)),
            Admission::Mutual | Admission::Accepted if busy => Some((Cause::PeerBusy, Cause::PeerBusy)),
            Admission::Mutual | Admission::Accepted => None,
        };
        if let Some((told, cause)) = refused {
            let mut call = Call::rejected(now, &base, aor.clone(), leg);
            call.root = Some(root);
            let status = if told == Cause::PeerBusy { Status::BUSY_HERE } else { Status::DECLINE };
            call.reject(now, device, status, Some(told), Vec::new());
            call.end(now, device, cause, "");
            if misnamed {
                call.refuse(now, Some(0), Refusal::WrongName);
            }
            self.keep(call);
            if verdict == Admission::Stranger {
                let incoming = Incoming { from: aor, root, device: node, what: Word::Called };
                self.device.out.push_back(CallsOutput::Incoming(incoming));
            }
            return;
        }
        if let Some(own_base) = own_base {
            self.glare(now, &own_base, &base, believed, leg, &terms);
            return;
        }
        if verdict == Admission::Mutual {
            leg.plane.consent(now);
        }
        let mut call = Call::incoming(now, device, &base, believed, leg, &terms);
        if misnamed {
            call.refuse(now, Some(0), Refusal::WrongName);
        }
        if device.config.role == Role::Echo {
            call.ring_shown(now, device);
            call.accept(now, device, None);
        }
        self.keep(call);
    }

    /// A device that calls anew while it has been silent in a call with us has lost that one: its daemon was killed,
    /// most likely. Without this it would hear that we are busy, with itself.
    fn end_abandoned(&mut self, now: Now, node: NodeId) {
        for call in self.calls.values_mut().filter(|call| call.answered_at.is_some() && !call.is_over()) {
            let leg = call.current.and_then(|at| call.legs.get(at));
            let abandoned =
                leg.is_some_and(|leg| leg.peer.node == node && leg.plane.silent_for(now, ABANDONED_AFTER));
            if abandoned {
                call.end(now, &mut self.device, Cause::PathLost, "their device calls anew");
            }
        }
    }

    fn is_busy(&self, dialling: Option<&str>) -> bool {
        let live = || self.calls.values().filter(|call| !call.is_over() && !call.silent);
        match self.device.config.role {
            Role::Echo => live().count() >= CALLS_MAX_ECHO,
            // Several may ring; one that is dialled or answered fills the phone.
            Role::Phone => {
                live().count() >= CALLS_MAX_PHONE
                    || live().any(|call| !call.rings_here() && Some(call.base.as_str()) != dialling)
            }
        }
    }

    /// Both dialled. The lower Call-ID lives; the other side's attempt, if it lives, is accepted as ours.
    fn glare(
        &mut self,
        now: Now,
        ours: &str,
        theirs: &str,
        believed: Believed,
        mut leg: crate::leg::Leg,
        terms: &Terms,
    ) {
        let Calls { device, calls, .. } = self;
        let Some(call) = calls.get_mut(&id_of(ours)) else { return };
        if ours < theirs {
            call.note(now, None, Step::Glare(true));
            let mut other = Call::rejected(now, theirs, believed.aor, leg);
            other.reject(now, device, Status::REQUEST_PENDING, None, Vec::new());
            other.phase = Phase::Over;
            other.gone_at = Some(now.mono + crate::limits::LINGER);
            self.keep(other);
            return;
        }
        call.note(now, None, Step::Glare(false));
        for leg in call.legs.iter_mut().filter(|leg| !leg.is_over()) {
            leg.cancel(now, device, Cause::LocalHangup, None);
            leg.plane.close(now, device);
            leg.state = LegState::Over;
        }
        call.asked = None;
        call.alert_until = None;
        call.root = Some(believed.root);
        leg.responder = Some(believed.responder);
        call.legs.push(leg);
        let at = call.legs.len() - 1;
        call.current = Some(at);
        if call.phase < Phase::Contacting {
            call.phase = Phase::Contacting;
        }
        call.ring_until = Some(now.mono + call.ring_timeout);
        call.take_terms(now, device, at, &terms.encode());
        let audio = call.audio.take();
        call.accept(now, device, audio);
    }

    /// Tells a device that is who it says why its INVITE is not taken.
    fn tell_why(
        &mut self,
        now: Now,
        came_by: (NodeId, NodeId),
        teller: Teller,
        base: &str,
        request: Request,
        refusal: Refusal,
    ) {
        let Teller { node, aor, boxes } = teller;
        let homes = vec![came_by.1];
        let device = &mut self.device;
        let peer = Peer { node, homes };
        let Some(leg) = Call::incoming_leg(now, device, request, peer, boxes, came_by, Budget::new()) else {
            return;
        };
        let mut call = Call::rejected(now, base, aor, leg);
        let (status, body) = match refusal {
            Refusal::StaleNonce => (Status::TEMPORARILY_UNAVAILABLE, device.identity.entry.clone()),
            _ => (Status::NOT_ACCEPTABLE_HERE, Vec::new()),
        };
        call.reject(now, device, status, None, body);
        call.phase = Phase::Over;
        call.gone_at = Some(now.mono + crate::limits::LINGER);
        call.refuse(now, Some(0), refusal);
        self.keep(call);
    }

    /// A MESSAGE.
    fn messaged(&mut self, now: Now, realm: &Realm, came_by: (NodeId, NodeId), request: Request) {
        let call_id = request.call_id();
        if self.device.seen.contains(&call_id) {
            // A copy is answered again; anything else with this Call-ID opens nothing.
            let answered = self.answering.iter_mut().find(|(key, _)| key.call_id == call_id);
            if let Some((key, answering)) = answered {
                answering.came_by = came_by;
                let node = key.peer;
                self.device.tx.handle_request(now.mono, node, request);
            }
            self.refuse(now, None, Refusal::Replayed);
            return;
        }
        if self.answering.len() >= ANSWERING_MAX {
            self.refuse(now, None, Refusal::TooMany);
            return;
        }
        let (believed, mut boxes) = match believe(now, &self.device, realm, Kind::Message, &request) {
            Ok(believed) => believed,
            Err((refusal, teller)) => {
                self.refuse(now, None, refusal);
                if let Some(teller) = teller {
                    let Teller { node, mut boxes, .. } = *teller;
                    let status = Status::TEMPORARILY_UNAVAILABLE;
                    self.answer_message(now, came_by, node, &mut boxes, Vec::new(), &request, status, None);
                }
                return;
            }
        };
        let verdict = admission(&self.device.contacts, &believed.aor, &believed.root);
        self.device.seen.take(&call_id, verdict);
        let node = believed.credential.node;
        let terms = Terms::decode(&believed.responder.offer);
        let word = terms.and_then(|terms| Ok((ContactMessage::decode(&terms.message)?, terms.homes)));
        let Ok((message, homes)) = word else {
            self.refuse(now, None, Refusal::Malformed);
            return;
        };
        // Who was asked may accept; a stranger may only ask.
        let asked = self.device.contact(&believed.aor).is_some_and(|contact| !contact.blocked);
        let admitted = match (verdict, &message) {
            (Admission::Mutual | Admission::Accepted, _) => true,
            (Admission::Stranger, ContactMessage::Request { .. }) => true,
            (Admission::Stranger, ContactMessage::Accepted { .. }) => asked,
            (Admission::Stranger, ContactMessage::Text(_)) => false,
            (Admission::Blocked | Admission::KeyChanged, _) => false,
        };
        let (status, cause) =
            if admitted { (Status::OK, None) } else { (Status::DECLINE, Some(Cause::PolicyUnknownCaller)) };
        self.answer_message(now, came_by, node, &mut boxes, homes, &request, status, cause);
        if admitted {
            let what = Word::Message(message);
            let incoming = Incoming { from: believed.aor, root: believed.root, device: node, what };
            self.device.out.push_back(CallsOutput::Incoming(incoming));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the MESSAGE, where it came from, and the answer")]
    fn answer_message(
        &mut self,
        now: Now,
        came_by: (NodeId, NodeId),
        node: NodeId,
        boxes: &mut Boxes,
        homes: Vec<NodeId>,
        request: &Request,
        status: Status,
        cause: Option<Cause>,
    ) {
        let Arrival::New(key) = self.device.tx.handle_request(now.mono, node, request.clone()) else {
            return;
        };
        let sealed = boxes.seal(&sealed_answer(status.code(), cause));
        let homes = if homes.is_empty() { vec![came_by.1] } else { homes };
        self.answering.insert(key.clone(), Answering { peer: Peer { node, homes }, came_by });
        let response = Response::to(request, status, None).with_body(BOX_TYPE, sealed);
        self.device.tx.respond(now.mono, &key, response);
    }

    // Responses.

    fn inbound_response(&mut self, now: Now, realm: &Realm, _came_by: (NodeId, NodeId), response: Response) {
        let call_id = response.call_id();
        let status = response.status.code();
        let Some(cseq) = response.cseq() else { return };
        let Some(found) = self.leg_of(&call_id) else {
            let Calls { device, messages, .. } = self;
            if !messages.handle_answer(now, device, &call_id, status, &response.body, &response) {
                self.refuse(now, None, Refusal::Unboxed);
            }
            return;
        };
        let Some(method) = method_of(&cseq.method) else { return };
        let Calls { device, calls, .. } = self;
        let Some(call) = calls.get_mut(&found.0) else { return };
        let Some(leg) = call.legs.get_mut(found.1) else { return };
        // The 100 that a device gives its home at once; the sealed one follows.
        if response.status == Status::TRYING && response.body.is_empty() {
            return;
        }
        match leg.open(method, status, cseq.number, &response.body) {
            Opened::Fresh(sealed) => {
                leg.opened = Some(sealed);
                device.tx.handle_response(now.mono, leg.peer.node, &response);
                self.pump(now, Some(realm));
                self.early(now, realm, found);
            }
            Opened::TooEarly => call.refuse(now, Some(found.1), Refusal::Malformed),
            Opened::Refused(refusal) => {
                if refusal == Refusal::Replayed && response.status.is_final() {
                    // A repeated final answer wants its ACK again.
                    device.tx.handle_response(now.mono, leg.peer.node, &response);
                }
                call.refuse(now, Some(found.1), refusal);
            }
        }
    }

    /// What waited for the call's key.
    fn early(&mut self, now: Now, realm: &Realm, (id, at): (CallId, usize)) {
        let waiting = self.calls.get_mut(&id).and_then(|call| call.legs.get_mut(at));
        let Some(waiting) = waiting.map(|leg| std::mem::take(&mut leg.early)) else { return };
        for (via, from_home, message) in waiting {
            if let Message::Request(request) = message {
                let node = NodeId([0; 16]);
                self.inbound_request(now, realm, (via, from_home), node, request);
            }
        }
    }

    // What the transactions want.

    pub(crate) fn client_output(&mut self, now: Now, realm: Option<&Realm>, key: &Key, output: ClientOutput) {
        let Some((id, at)) = self.leg_of(&key.call_id) else {
            self.messages.client_output(now, &mut self.device, key, &output);
            return;
        };
        let Calls { device, calls, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        let second = matches!(&output, ClientOutput::Send { way: Way::Second, .. });
        if second && let Some(method) = method_of(&key.method) {
            call.note(now, Some(at), Step::SecondWay(method));
        }
        let Some(leg) = call.legs.get_mut(at) else { return };
        let told = leg.client_output(device, key, output);
        let invite = key.method == SipMethod::Invite && leg.caller && leg.key == *key;
        match told {
            Some(ClientOutput::Response(response)) => {
                let Some(sealed) = leg.opened.take() else { return };
                if invite && let Some(realm) = realm {
                    call.handle_answer(now, device, realm, at, &response, &sealed);
                }
            }
            Some(ClientOutput::Undelivered(reason)) if invite => call.undelivered(now, device, at, reason),
            Some(ClientOutput::TimedOut) if invite && !leg.is_over() => {
                leg.state = LegState::Over;
                leg.outcome = Some(Cause::PeerNoAnswer);
                leg.plane.close(now, device);
                call.settle(now, device);
            }
            Some(_) | None => {}
        }
    }

    pub(crate) fn server_output(&mut self, now: Now, key: &Key, output: ServerOutput) {
        let Some((id, at)) = self.leg_of(&key.call_id) else {
            match output {
                ServerOutput::Send { way, response } => {
                    if let Some(answering) = self.answering.get(key) {
                        let Answering { peer, came_by } = answering;
                        self.device.send_response(way, peer, Some(*came_by), &response);
                    }
                }
                ServerOutput::Ended => {
                    self.answering.remove(key);
                }
                ServerOutput::Acked(_) | ServerOutput::NoAck => {}
            }
            return;
        };
        let Calls { device, calls, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        let Some(leg) = call.legs.get_mut(at) else { return };
        match leg.server_output(device, key, output) {
            Some(ServerOutput::Acked(_)) => {
                if let Some(sealed) = leg.opened.take() {
                    call.acked(now, device, at, &sealed);
                }
            }
            Some(ServerOutput::NoAck) => call.never_acked(now, device, at),
            Some(ServerOutput::Send { .. } | ServerOutput::Ended) | None => {}
        }
    }
}
