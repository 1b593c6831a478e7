//! What only the caller does: reading records, one INVITE for each device, choosing the winner.

use yodel_identity::account::AccountRecord;
use yodel_identity::keys::SealingPublic;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::record::ContactEntry;
use yodel_overlay::verify::{LookupResult, verify_entry};
use yodel_sip::dialog::Dialog;
use yodel_sip::envelope::ReturnReason;
use yodel_sip::message::Response;
use yodel_sip::method::{Method as SipMethod, Status};
use yodel_sip::transaction::Way;
use yodel_wire::time::{Instant, Now};

use crate::boxes::Sealed;
use crate::cause::Cause;
use crate::device::{Device, HELLO_TYPE, Peer};
use crate::event::{CallsOutput, DialOptions, Direction, State, Target, echo_nonce};
use crate::handshake::{Callee, HandshakeError, Initiator};
use crate::leg::{Leg, LegState};
use crate::life::{Asked, Call, Phase};
use crate::limits::{ACKNOWLEDGE_WITHIN, ALERT_WITHIN, LEGS_MAX, LOOKUP_WITHIN, RING_TIMEOUT};
use crate::plane::Plane;
use crate::statement::{Kind, Mismatch, Parties, Party};
use crate::terms::Terms;
use crate::timeline::{Method, Refusal, Step};

impl Call {
    /// Begins an outgoing call.
    pub(crate) fn dial(
        now: Now,
        device: &mut Device,
        realm: &Realm,
        target: &Target,
        options: DialOptions,
    ) -> Call {
        let mut call = Call::begin(now, device, realm, target);
        call.audio = Some(options.audio);
        call.relay_only = options.relay_only;
        call.max = options.max;
        call.ring_timeout = options.ring_timeout.unwrap_or(RING_TIMEOUT);
        if realm.check_alive(&device.identity.credential, now.unix).is_err() {
            call.end(now, device, Cause::SigninExpired, "this device's credential is not valid any more");
        } else if call.peer.is_echo() {
            call.verified = true;
            call.dial_echo(now, device);
        } else {
            call.ask(now, device, false);
        }
        call
    }

    /// An outgoing call of which nothing is known but its peer.
    pub(crate) fn begin(now: Now, device: &mut Device, realm: &Realm, target: &Target) -> Call {
        let base = device.ids.call_id();
        let peer = match target {
            Target::Account(aor) => aor.clone(),
            Target::Echo => Aor::echo(realm.name().clone()),
        };
        let call = Call::new(now, &base, Direction::Out, peer);
        call.emit(device, now, State::Resolving);
        call
    }

    fn ask(&mut self, now: Now, device: &mut Device, past_cache: bool) {
        let id = device.lookup_id();
        self.asked = Some(Asked { id, until: now.mono + LOOKUP_WITHIN.min(self.ring_timeout) });
        self.reread |= past_cache;
        self.note(now, None, Step::LookupAsked(past_cache));
        device.out.push_back(CallsOutput::Lookup { id, aor: self.peer.clone(), past_cache });
    }

    /// Echo is not looked up: a home answers under its own credential. The next one is tried when one does not.
    fn dial_echo(&mut self, now: Now, device: &mut Device) {
        let tried = |node: NodeId| self.legs.iter().any(|leg| leg.peer.node == node);
        let home = device.homes.iter().map(|home| home.credential.clone()).find(|home| !tried(home.node));
        let Some(credential) = home else {
            if self.legs.is_empty() {
                self.end(now, device, Cause::LookupOverlayUnreachable, "not attached to any home");
            } else {
                self.settle(now, device);
            }
            return;
        };
        let peer = Peer { node: credential.node, homes: vec![credential.node] };
        let party = Party { account: self.peer.clone(), root: None, device: credential.key };
        let callee = Callee {
            sealing: credential.sealing,
            credential_hash: credential.hash(),
            nonce: echo_nonce(&credential),
        };
        self.invite(now, device, peer, party, &callee, 0);
    }

    /// What the records say. May come again with more.
    pub(crate) fn handle_lookup(&mut self, now: Now, device: &mut Device, result: LookupResult) {
        match result {
            LookupResult::Found { account, entries, settled } => {
                if settled {
                    self.asked = None;
                }
                self.note(now, None, Step::LookupAnswered(entries.len()));
                self.found(now, device, &account, &entries);
                self.settle(now, device);
            }
            LookupResult::NoSuchAccount => {
                self.asked = None;
                if self.legs.is_empty() {
                    self.end(now, device, Cause::LookupNoUser, "");
                } else {
                    self.settle(now, device);
                }
            }
            LookupResult::Unreachable => {
                self.asked = None;
                if self.legs.is_empty() {
                    self.end(now, device, Cause::LookupOverlayUnreachable, "no holder answered");
                } else {
                    self.settle(now, device);
                }
            }
        }
    }

    fn found(&mut self, now: Now, device: &mut Device, account: &AccountRecord, entries: &[ContactEntry]) {
        let pinned = device.contact(&self.peer).and_then(|contact| contact.root);
        if pinned.is_some_and(|pinned| pinned != account.root) || account.account != self.peer {
            self.refuse(now, None, Refusal::KeyChanged);
            self.end(now, device, Cause::TrustKeyChanged, "compare safety words before you call again");
            return;
        }
        self.root = Some(account.root);
        self.account = Some(Box::new(account.clone()));
        self.verified = pinned.is_some();
        for entry in entries {
            let Some(credential) = account.device(entry.device) else { continue };
            if entry.device == device.node() || !self.wants(now, device, entry) {
                continue;
            }
            let peer = Peer { node: entry.device, homes: entry.homes.clone() };
            let party =
                Party { account: self.peer.clone(), root: Some(account.root), device: credential.key };
            let callee = Callee {
                sealing: SealingPublic(credential.sealing.0),
                credential_hash: credential.hash(),
                nonce: entry.nonce,
            };
            self.invite(now, device, peer, party, &callee, entry.sequence);
        }
    }

    /// Whether an entry is worth a new leg. A newer entry of a device that is being invited moves that leg.
    fn wants(&mut self, now: Now, device: &mut Device, entry: &ContactEntry) -> bool {
        let mut old = false;
        let mut again = true;
        for leg in self.legs.iter_mut().filter(|leg| leg.peer.node == entry.device) {
            let (nonce, sequence) = leg.entry;
            if entry.sequence < sequence {
                old = true;
                again = false;
            } else if nonce == entry.nonce && !leg.is_over() {
                again = false;
                if leg.peer.homes != entry.homes {
                    leg.peer.homes.clone_from(&entry.homes);
                    device.send_request(Way::First, &leg.peer, &leg.invite);
                }
            } else if entry.sequence == sequence {
                again = false;
            } else if !leg.is_over() {
                // It started anew: what we sent is not for it any more.
                leg.cancel(now, device, Cause::LocalHangup, None);
                leg.plane.close(now, device);
                leg.state = LegState::Over;
            } else if leg.outcome.is_some_and(|outcome| outcome != Cause::PeerOffline) {
                again = false;
            }
        }
        if old {
            self.refuse(now, None, Refusal::OldEntry);
        }
        again
    }

    fn invite(
        &mut self,
        now: Now,
        device: &mut Device,
        peer: Peer,
        callee_party: Party,
        callee: &Callee,
        sequence: u64,
    ) {
        let (Some(aor), root) =
            (device.identity.credential.aor(), device.identity.credential.root().copied())
        else {
            return;
        };
        if self.legs.len() >= LEGS_MAX {
            self.refuse(now, None, Refusal::TooMany);
            return;
        }
        let caller = Party { account: aor, root, device: device.identity.credential.key };
        let call_id = format!("{}-{}", self.base, self.legs.len());
        let mut plane = Plane::new(device, true, peer.node, self.relay_only, self.budget.clone());
        if device.contact(&self.peer).is_some_and(crate::contacts::Contact::is_mutual) {
            plane.consent(now);
        }
        plane.open_relay(now, device);
        let offer = device.terms(plane.description(), &self.peer).encode();
        let proof = device.proof();
        let parties = Parties { caller, callee: callee_party };
        let started = Initiator::start(
            &mut device.rng,
            Kind::Invite,
            &device.identity.signing,
            &proof,
            parties,
            callee,
            &call_id,
            &offer,
        );
        let Ok((initiator, body, boxes)) = started else {
            self.refuse(now, None, Refusal::Credential);
            return;
        };
        let request =
            device.first_request(SipMethod::Invite, peer.node, &call_id).with_body(HELLO_TYPE, body);
        let Ok(key) = device.tx.request(now.mono, peer.node, request.clone(), true) else { return };
        let told = plane.told();
        let mut leg = Leg::new(now, peer, &call_id, true, request, key, boxes, plane);
        leg.initiator = Some(initiator);
        leg.entry = (callee.nonce, sequence);
        self.legs.push(leg);
        let at = self.legs.len() - 1;
        self.note(now, Some(at), Step::Sent(Method::Invite));
        self.note(now, Some(at), Step::CandidatesSent(told));
        if self.phase == Phase::Resolving {
            self.phase = Phase::Contacting;
            self.alert_until = Some(now.mono + ALERT_WITHIN.min(self.ring_timeout));
            self.emit(device, now, State::Contacting);
        }
    }

    // Answers.

    /// An opened answer to the INVITE of this leg.
    pub(crate) fn handle_answer(
        &mut self,
        now: Now,
        device: &mut Device,
        realm: &Realm,
        at: usize,
        response: &Response,
        sealed: &Sealed,
    ) {
        let status = response.status;
        self.note(now, Some(at), Step::Answered(Method::Invite, status.code()));
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.acknowledged = true;
        if status == Status::TRYING {
            return;
        }
        if leg.dialog.is_none() && (status.is_provisional() || status.is_success()) {
            leg.dialog = Dialog::of_caller(leg.peer.node, &leg.invite, response);
        }
        if status.is_provisional() {
            self.ringing(now, device, at, sealed);
        } else if status.is_success() {
            self.answered(now, device, at, sealed);
        } else {
            self.failed(now, device, realm, at, status, sealed);
        }
    }

    fn ringing(&mut self, now: Now, device: &mut Device, at: usize, sealed: &Sealed) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        if leg.state != LegState::Inviting {
            return;
        }
        leg.state = LegState::Alerted;
        self.take_terms(now, device, at, &sealed.body);
        if self.phase < Phase::Alerted {
            self.phase = Phase::Alerted;
            self.alert_until = None;
            self.ring_until = Some(now.mono + self.ring_timeout);
            self.current.get_or_insert(at);
            self.note(now, Some(at), Step::Alerted);
            self.emit(device, now, State::Alerted);
        }
    }

    fn answered(&mut self, now: Now, device: &mut Device, at: usize, sealed: &Sealed) {
        let winner = self.current.filter(|_| self.answered_at.is_some());
        let winner = winner.and_then(|at| self.legs.get(at)).map(|leg| leg.peer.node);
        let lost = self.is_over() || self.phase >= Phase::Answered;
        let Some(leg) = self.legs.get_mut(at) else { return };
        let finished = leg.initiator.as_ref().map(|initiator| initiator.finish(&sealed.body));
        let (answer, keys) = match finished {
            Some(Ok(finished)) => finished,
            Some(Err(error)) => {
                leg.state = LegState::Over;
                leg.plane.close(now, device);
                let (refusal, cause) = match error {
                    HandshakeError::Mismatch(Mismatch::Version | Mismatch::Suite) => {
                        (Refusal::Downgrade, Cause::TrustDowngrade)
                    }
                    _ => (Refusal::Signature, Cause::TrustKeyChanged),
                };
                leg.outcome = Some(cause);
                self.refuse(now, Some(at), refusal);
                self.settle(now, device);
                return;
            }
            None => return,
        };
        leg.initiator = None;
        leg.boxes.rekey(keys.boxes);
        if lost || leg.is_over() {
            // A second answer, or one that crossed our CANCEL: it is acknowledged, and told who has the call.
            let (cause, named) = leg.refusal.unwrap_or((Cause::PeerAnsweredElsewhere, winner));
            let cause = if winner.is_some() { Cause::PeerAnsweredElsewhere } else { cause };
            let body = named.or(winner).map(|node| node.0.to_vec()).unwrap_or_default();
            leg.acknowledge(device, Some(cause), Vec::new());
            leg.request(now, device, Method::Bye, Some(cause), body);
            leg.state = LegState::Over;
            leg.close_at = Some(now.mono);
            return;
        }
        leg.media_keys = Some(keys.media);
        leg.plane.consent(now);
        self.take_terms(now, device, at, &answer);
        self.current = Some(at);
        let terms = device.terms(Vec::new(), &self.peer);
        let mut winner = None;
        if let Some(leg) = self.legs.get_mut(at) {
            let terms = Terms { sdp: leg.plane.fragment(), ..terms };
            leg.acknowledge(device, None, terms.encode());
            winner = Some(leg.peer.node);
        }
        for (other, leg) in self.legs.iter_mut().enumerate() {
            if other != at && !leg.is_over() {
                leg.cancel(now, device, Cause::PeerAnsweredElsewhere, winner);
                leg.plane.close(now, device);
                leg.state = LegState::Over;
            }
        }
        self.asked = None;
        self.note(now, Some(at), Step::Sent(Method::Ack));
        self.up(now, device, at);
    }

    fn failed(
        &mut self,
        now: Now,
        device: &mut Device,
        realm: &Realm,
        at: usize,
        status: Status,
        sealed: &Sealed,
    ) {
        let told = sealed.cause.map(Cause::from_peer);
        let Some(leg) = self.legs.get_mut(at) else { return };
        if leg.is_over() {
            return;
        }
        if status == Status::REQUEST_PENDING {
            // Both dialled; theirs lives, and its INVITE is on its way to us.
            leg.state = LegState::Yielded;
            leg.plane.close(now, device);
            self.note(now, Some(at), Step::Glare(false));
            return;
        }
        leg.state = LegState::Over;
        leg.plane.close(now, device);
        let cause = match status {
            Status::BUSY_HERE => Cause::PeerBusy,
            Status::DECLINE => told.unwrap_or(Cause::PeerDeclined),
            Status::NOT_ACCEPTABLE_HERE => Cause::TrustDowngrade,
            // Our entry was old: the device says which is not, or the records are read anew.
            Status::TEMPORARILY_UNAVAILABLE if sealed.cause.is_none() => Cause::PeerOffline,
            Status::FORBIDDEN => Cause::PolicyUnknownCaller,
            _ => told.filter(|cause| !cause.is_hangup()).unwrap_or(Cause::PeerNoAnswer),
        };
        leg.outcome = Some(cause);
        if cause == Cause::PeerOffline {
            self.take_entry(now, device, realm, at, &sealed.body);
        }
        match cause {
            Cause::PeerDeclined | Cause::PolicyUnknownCaller => self.end(now, device, cause, ""),
            _ => self.settle(now, device),
        }
    }

    /// The contact entry with which a device refused an invitation to an earlier start of it: dialled at once, since a
    /// home that gave the old one would give it again.
    fn take_entry(&mut self, now: Now, device: &mut Device, realm: &Realm, at: usize, bytes: &[u8]) {
        let Some(account) = self.account.clone().filter(|_| !bytes.is_empty()) else { return };
        let node = self.legs.get(at).map(|leg| leg.peer.node);
        match verify_entry(realm, &account, bytes, now.unix) {
            Some(entry) if node == Some(entry.device) => self.found(now, device, &account, &[entry]),
            Some(_) | None => self.refuse(now, Some(at), Refusal::Malformed),
        }
    }

    /// Nothing came back for this INVITE; `Some`: every way returned it.
    pub(crate) fn undelivered(
        &mut self,
        now: Now,
        device: &mut Device,
        at: usize,
        reason: Option<ReturnReason>,
    ) {
        let text = match reason {
            Some(ReturnReason::NotAttached) => "the device is not attached there",
            Some(ReturnReason::Undelivered) => "the device did not take it",
            Some(ReturnReason::NoRoute) => "no way to its home",
            Some(ReturnReason::RateLimited) => "too many at once",
            None => "no sign of life",
        };
        self.note(now, Some(at), Step::Returned(text));
        let Some(leg) = self.legs.get_mut(at) else { return };
        if leg.state != LegState::Inviting {
            return;
        }
        if reason.is_none() {
            // Both ways are silent: perhaps one end of each is dead. The crossed ways share neither.
            leg.peer.homes.reverse();
            device.send_request(Way::First, &leg.peer, &leg.invite);
            device.send_request(Way::Second, &leg.peer, &leg.invite);
        } else {
            leg.outcome = Some(Cause::PeerOffline);
            leg.state = LegState::Over;
            leg.plane.close(now, device);
        }
        if self.peer.is_echo() {
            self.dial_echo(now, device);
        } else if !self.reread && self.asked.is_none() {
            self.ask(now, device, true);
        } else {
            self.settle(now, device);
        }
    }

    // Ends of what cannot go on.

    /// Ends the call when nothing more can come of it.
    pub(crate) fn settle(&mut self, now: Now, device: &mut Device) {
        let live = self.legs.iter().any(|leg| !leg.is_over());
        if self.is_over() || self.phase >= Phase::Answered || live || self.asked.is_some() {
            return;
        }
        let missed = |leg: &Leg| leg.outcome.is_none_or(|outcome| outcome == Cause::PeerOffline);
        if !self.reread && !self.peer.is_echo() && self.legs.iter().all(missed) {
            self.ask(now, device, true);
            return;
        }
        let rank = |cause: &Cause| match cause {
            Cause::TrustKeyChanged | Cause::TrustDowngrade => 0,
            Cause::SigninExpired => 1,
            Cause::PeerBusy => 2,
            Cause::PeerNoAnswer => 3,
            Cause::PeerNoAlert => 4,
            _ => 5,
        };
        let cause = self.legs.iter().filter_map(|leg| leg.outcome).min_by_key(rank);
        self.end(now, device, cause.unwrap_or(Cause::PeerOffline), "");
    }

    /// No device says that it rings.
    pub(crate) fn not_alerted(&mut self, now: Now, device: &mut Device) {
        let reached = self.legs.iter().any(|leg| leg.acknowledged);
        let cause = if reached { Cause::PeerNoAlert } else { Cause::PeerOffline };
        self.end(now, device, cause, "");
    }

    pub(crate) fn caller_timeout(&mut self, now: Now, device: &mut Device) {
        if self.asked.is_some_and(|asked| asked.until <= now.mono) {
            self.asked = None;
            if self.legs.is_empty() {
                self.end(now, device, Cause::LookupOverlayUnreachable, "no answer in time");
            } else {
                self.settle(now, device);
            }
            return;
        }
        let mut silent = false;
        for leg in &mut self.legs {
            if silence_until(leg).is_some_and(|at| at <= now.mono) {
                leg.outcome = Some(Cause::PeerOffline);
                leg.cancel(now, device, Cause::PeerOffline, None);
                leg.plane.close(now, device);
                leg.state = LegState::Over;
                silent = true;
            }
        }
        if silent {
            self.settle(now, device);
        }
    }

    pub(crate) fn caller_deadline(&self) -> Option<Instant> {
        self.legs.iter().filter_map(silence_until).min()
    }
}

fn silence_until(leg: &Leg) -> Option<Instant> {
    let waiting = leg.caller && leg.state == LegState::Inviting && !leg.acknowledged;
    waiting.then_some(leg.invited_at + ACKNOWLEDGE_WITHIN)
}
