//! What only the callee does: whom to believe, whom to let ring, answering.

use yodel_identity::credential::Credential;
use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_media::AudioEnd;
use yodel_nat::Budget;
use yodel_sip::dialog::Dialog;
use yodel_sip::message::Request;
use yodel_sip::method::Status;
use yodel_sip::transaction::Arrival;
use yodel_wire::time::Now;

use crate::boxes::{Boxes, Sealed};
use crate::cause::Cause;
use crate::device::{Device, Peer};
use crate::event::{Direction, Role, State, echo_nonce};
use crate::handshake::{HandshakeError, Hello, Responder};
use crate::leg::{Leg, LegState};
use crate::life::{Call, Phase, winner_in};
use crate::limits::RING_TIMEOUT_CALLEE;
use crate::plane::Plane;
use crate::statement::{Kind, Parties, Party};
use crate::terms::Terms;
use crate::timeline::{Method, Refusal, Step};

/// An INVITE or MESSAGE that is the work of the device whose credential it holds.
pub(crate) struct Believed {
    pub(crate) credential: Credential,
    pub(crate) aor: Aor,
    pub(crate) root: PublicKey,
    pub(crate) responder: Responder,
}

/// Who is to be told why his INVITE or MESSAGE is not taken.
pub(crate) struct Teller {
    pub(crate) node: NodeId,
    pub(crate) aor: Aor,
    pub(crate) boxes: Boxes,
}

/// Why an INVITE or MESSAGE is not believed, and whom to tell.
type Disbelief = (Refusal, Option<Box<Teller>>);

/// Opens and verifies an INVITE or MESSAGE.
///
/// # Errors
/// Why it is not to be believed; with boxes when its sender can be told.
pub(crate) fn believe(
    now: Now,
    device: &Device,
    realm: &Realm,
    kind: Kind,
    request: &Request,
) -> Result<(Believed, Boxes), Disbelief> {
    let call_id = request.call_id();
    let own = &device.identity.credential;
    let mute = |refusal| (refusal, None);
    let hello = Hello::parse(&request.body).map_err(|_| mute(Refusal::Unboxed))?;
    let sealing = device.identity.sealing.iter().find(|(_, hash)| hash.starts_with(&hello.sealed_for));
    let (sealing, _) = sealing.ok_or(mute(Refusal::Forged))?;
    let (responder, boxes) = hello.open(sealing, &own.key, &call_id).map_err(|_| mute(Refusal::Forged))?;
    // Who opened it can be told; nothing else is known of him before his credential is.
    let credential = realm.verify_credential(&responder.proof.credential, now.unix);
    let Ok(credential) = credential else { return Err(mute(Refusal::Credential)) };
    let (Some(aor), Some(root)) = (credential.aor(), credential.root().copied()) else {
        return Err(mute(Refusal::Credential));
    };
    let told =
        |refusal, boxes| (refusal, Some(Box::new(Teller { node: credential.node, aor: aor.clone(), boxes })));
    let record = realm.verify_account_record(&responder.proof.record, now.unix);
    let listed =
        record.is_ok_and(|record| record.account == aor && record.root == root && record.lists(&credential));
    if !listed {
        return Err(mute(Refusal::NotListed));
    }
    let parties = Parties {
        caller: Party { account: aor.clone(), root: Some(root), device: credential.key },
        callee: Party {
            account: own.aor().unwrap_or_else(|| Aor::echo(own.realm.clone())),
            root: own.root().copied(),
            device: own.key,
        },
    };
    match responder.check(kind, &parties, &call_id) {
        Ok(()) => {}
        Err(HandshakeError::Mismatch(
            crate::statement::Mismatch::Version | crate::statement::Mismatch::Suite,
        )) => return Err(told(Refusal::Downgrade, boxes)),
        Err(_) => return Err(mute(Refusal::Signature)),
    }
    let nonce = match device.config.role {
        Role::Phone => device.identity.nonce,
        Role::Echo => echo_nonce(own),
    };
    if responder.statement.nonce != nonce {
        return Err(told(Refusal::StaleNonce, boxes));
    }
    Ok((Believed { credential, aor, root, responder }, boxes))
}

impl Call {
    /// A leg for an INVITE that was believed, with its first answer. `None` when there is no room.
    pub(crate) fn incoming_leg(
        now: Now,
        device: &mut Device,
        request: Request,
        peer: Peer,
        boxes: Boxes,
        came_by: (NodeId, NodeId),
        budget: Budget,
    ) -> Option<Leg> {
        let node = peer.node;
        let Arrival::New(key) = device.tx.handle_request(now.mono, node, request.clone()) else {
            return None;
        };
        let plane = Plane::new(device, false, node, false, budget);
        let call_id = request.call_id();
        let tag = device.ids.tag();
        let dialog = Dialog::of_callee(node, &request, &tag);
        let mut leg = Leg::new(now, peer, &call_id, false, request, key, boxes, plane);
        leg.dialog = dialog;
        leg.tag = tag;
        leg.came_by = Some(came_by);
        // Sealed, so that the caller knows that it came to us and not only to a home.
        leg.respond(now, device, Status::TRYING, None, Vec::new());
        Some(leg)
    }

    /// An incoming call that is refused at once, without a ring.
    pub(crate) fn rejected(now: Now, base: &str, peer: Aor, leg: Leg) -> Call {
        let mut call = Call::new(now, base, Direction::In, peer);
        call.silent = true;
        call.phase = Phase::Contacting;
        call.legs.push(leg);
        call.current = Some(0);
        call.note(now, Some(0), Step::Received(Method::Invite));
        call
    }

    /// The final answer to the INVITE of a call that does not ring.
    pub(crate) fn reject(
        &mut self,
        now: Now,
        device: &mut Device,
        status: Status,
        cause: Option<Cause>,
        body: Vec<u8>,
    ) {
        if let Some(leg) = self.legs.first_mut() {
            leg.respond(now, device, status, cause, body);
            leg.plane.close(now, device);
            leg.state = LegState::Over;
        }
    }

    /// An incoming call that may ring.
    pub(crate) fn incoming(
        now: Now,
        device: &mut Device,
        base: &str,
        believed: Believed,
        mut leg: Leg,
        terms: &Terms,
    ) -> Call {
        let mut call = Call::new(now, base, Direction::In, believed.aor);
        call.root = Some(believed.root);
        call.verified = device.contact(&call.peer).is_some_and(|contact| contact.root.is_some());
        call.phase = Phase::Contacting;
        leg.responder = Some(believed.responder);
        call.legs.push(leg);
        call.current = Some(0);
        call.note(now, Some(0), Step::Received(Method::Invite));
        call.ring_until = Some(now.mono + RING_TIMEOUT_CALLEE);
        call.emit(device, now, State::Contacting);
        call.take_terms(now, device, 0, &terms.encode());
        call
    }

    fn ringing_leg(&self) -> Option<usize> {
        let at = self.current?;
        let state = self.legs.get(at)?.state;
        matches!(state, LegState::Incoming | LegState::Ringing).then_some(at)
    }

    pub(crate) fn rings_here(&self) -> bool {
        !self.is_over() && self.ringing_leg().is_some()
    }

    /// The ring is shown: the caller is told.
    pub(crate) fn ring_shown(&mut self, now: Now, device: &mut Device) {
        let Some(at) = self.ringing_leg().filter(|_| !self.is_over()) else { return };
        let terms = device.terms(Vec::new(), &self.peer);
        let Some(leg) = self.legs.get_mut(at) else { return };
        if leg.state != LegState::Incoming {
            return;
        }
        leg.state = LegState::Ringing;
        let terms = Terms { sdp: leg.plane.description(), ..terms };
        let told = leg.plane.told();
        leg.respond(now, device, Status::RINGING, None, terms.encode());
        self.phase = Phase::Alerted;
        self.note(now, Some(at), Step::RingShown);
        self.note(now, Some(at), Step::CandidatesSent(told));
        self.emit(device, now, State::Alerted);
    }

    /// The user accepts, or dialled the same account at the same time. Answered is the call when the caller knows.
    pub(crate) fn accept(&mut self, now: Now, device: &mut Device, audio: Option<Box<dyn AudioEnd>>) -> bool {
        let Some(at) = self.ringing_leg().filter(|_| !self.is_over()) else { return false };
        let terms = device.terms(Vec::new(), &self.peer);
        let Some(leg) = self.legs.get_mut(at) else { return false };
        leg.plane.consent(now);
        let answer = Terms { sdp: leg.plane.description(), ..terms }.encode();
        let Some(responder) = leg.responder.take() else { return false };
        let answered = responder.answer(&mut device.rng, &device.identity.signing, &answer);
        let Ok((body, keys)) = answered else {
            self.refuse(now, Some(at), Refusal::Malformed);
            self.end(now, device, Cause::TrustDowngrade, "the caller's keys are none");
            return false;
        };
        leg.respond(now, device, Status::OK, None, body);
        leg.boxes.rekey(keys.boxes);
        leg.state = LegState::Accepted;
        let seed = device.seed();
        leg.plane.expect(now, keys.media.clone(), seed);
        leg.media_keys = Some(keys.media);
        self.audio = audio;
        self.ring_until = None;
        self.note(now, Some(at), Step::Accepted);
        true
    }

    /// The caller's ACK for our answer, opened.
    pub(crate) fn acked(&mut self, now: Now, device: &mut Device, at: usize, sealed: &Sealed) {
        self.note(now, Some(at), Step::Received(Method::Ack));
        if self.legs.get(at).is_none_or(|leg| leg.state != LegState::Accepted) {
            return;
        }
        if let Some(cause) = sealed.cause {
            // Acknowledged only to end: another device has the call, or the caller gave up meanwhile.
            self.ended_by_peer(now, device, at, cause, None);
            return;
        }
        self.take_terms(now, device, at, &sealed.body);
        self.up(now, device, at);
    }

    /// We accepted, and the caller never said that it knows.
    pub(crate) fn never_acked(&mut self, now: Now, device: &mut Device, at: usize) {
        if self.legs.get(at).is_some_and(|leg| leg.state == LegState::Accepted) {
            self.end(now, device, Cause::PathLost, "the caller never confirmed the answer");
        }
    }

    /// The caller takes its INVITE back.
    pub(crate) fn cancelled(&mut self, now: Now, device: &mut Device, at: usize, sealed: &Sealed) {
        self.note(now, Some(at), Step::Received(Method::Cancel));
        let Some(leg) = self.legs.get_mut(at) else { return };
        if !matches!(leg.state, LegState::Incoming | LegState::Ringing) {
            // Our answer is under way; its ACK and BYE follow.
            return;
        }
        leg.respond(now, device, Status::REQUEST_TERMINATED, None, Vec::new());
        leg.plane.close(now, device);
        let cause = sealed.cause.unwrap_or(Cause::LocalHangup);
        self.ended_by_peer(now, device, at, cause, winner_in(&sealed.body));
    }
}
