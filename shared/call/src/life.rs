//! A call: its state, its legs, its end. What only the caller or only the callee does is in their files.

use std::time::Duration;

use yodel_identity::account::AccountRecord;
use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_media::{AudioEnd, Ends};
use yodel_nat::Budget;
use yodel_sip::message::Request;
use yodel_sip::method::Status;
use yodel_wire::time::{Instant, Now};

use crate::boxes::Sealed;
use crate::cause::Cause;
use crate::contacts::{Incoming, Word};
use crate::device::Device;
use crate::event::{
    CallEvent, CallId, CallInfo, CallsOutput, Direction, EncryptedTo, Ended, LookupId, Role, State,
};
use crate::leg::{Leg, LegState};
use crate::limits::{JUDGED_AFTER, LEAVE_WITHIN, LINGER, PATH_WITHIN, PLANE_LINGER};
use crate::plane::PlaneEvent;
use crate::terms::Terms;
use crate::timeline::{Method, Refusal, Step, Timeline};

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Resolving,
    Contacting,
    Alerted,
    Answered,
    Media,
    Over,
}

/// A lookup that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) id: LookupId,
    pub(crate) until: Instant,
}

pub(crate) struct Call {
    pub(crate) id: CallId,
    /// What all Call-IDs of its legs begin with.
    pub(crate) base: String,
    pub(crate) direction: Direction,
    pub(crate) peer: Aor,
    pub(crate) root: Option<PublicKey>,
    /// Caller: the peer's record as read.
    pub(crate) account: Option<Box<AccountRecord>>,
    pub(crate) verified: bool,
    pub(crate) phase: Phase,
    pub(crate) timeline: Timeline,
    pub(crate) legs: Vec<Leg>,
    /// The leg that came in, or was answered.
    pub(crate) current: Option<usize>,
    pub(crate) audio: Option<Box<dyn AudioEnd>>,
    pub(crate) relay_only: bool,
    pub(crate) max: Option<Duration>,
    pub(crate) ring_timeout: Duration,
    pub(crate) budget: Budget,
    pub(crate) asked: Option<Asked>,
    /// The records were read past the cache already.
    pub(crate) reread: bool,
    /// Caller: a device must ring until then. Callee: the ring ends then.
    pub(crate) ring_until: Option<Instant>,
    pub(crate) alert_until: Option<Instant>,
    pub(crate) hang_at: Option<Instant>,
    /// Answered: some path must be there by then.
    path_until: Option<Instant>,
    pub(crate) answered_at: Option<Instant>,
    probed_at: Option<Instant>,
    pub(crate) ended: Option<Ended>,
    pub(crate) gone_at: Option<Instant>,
    /// Shows nothing to the user but its end: it never rang.
    pub(crate) silent: bool,
    /// The user hung up between its answer and the caller's word that it came.
    leaving: bool,
}

impl Call {
    pub(crate) fn new(now: Now, base: &str, direction: Direction, peer: Aor) -> Call {
        Call {
            id: id_of(base),
            base: base.to_owned(),
            direction,
            peer,
            root: None,
            account: None,
            verified: false,
            phase: Phase::Resolving,
            timeline: Timeline::new(now.mono),
            legs: Vec::new(),
            current: None,
            audio: None,
            relay_only: false,
            max: None,
            ring_timeout: crate::limits::RING_TIMEOUT,
            budget: Budget::new(),
            asked: None,
            reread: false,
            ring_until: None,
            alert_until: None,
            hang_at: None,
            path_until: None,
            answered_at: None,
            probed_at: None,
            ended: None,
            gone_at: None,
            silent: false,
            leaving: false,
        }
    }

    pub(crate) fn emit(&self, device: &mut Device, now: Now, state: State) {
        if self.silent && !matches!(state, State::Ended(_)) {
            return;
        }
        device.out.push_back(CallsOutput::Event(CallEvent {
            call: self.id,
            direction: self.direction,
            peer: self.peer.clone(),
            device: self.current.and_then(|at| self.legs.get(at)).map(|leg| leg.peer.node),
            t: now.mono.since(self.timeline.started()),
            state,
        }));
    }

    pub(crate) fn note(&mut self, now: Now, leg: Option<usize>, step: Step) {
        let device = leg.and_then(|at| self.legs.get(at)).map(|leg| leg.peer.node);
        self.timeline.add(now.mono, device, step);
    }

    pub(crate) fn refuse(&mut self, now: Now, leg: Option<usize>, refusal: Refusal) {
        self.note(now, leg, Step::Refused(refusal));
    }

    pub(crate) fn info(&self) -> CallInfo {
        CallInfo {
            call: self.id,
            direction: self.direction,
            peer: self.peer.clone(),
            state: match self.phase {
                Phase::Resolving => "resolving",
                Phase::Contacting => "contacting",
                Phase::Alerted => "alerted",
                Phase::Answered => "answered",
                Phase::Media => "media",
                Phase::Over => "ended",
            },
            path: self
                .current
                .and_then(|at| self.legs.get(at))
                .and_then(|leg| leg.plane.path())
                .map(|p| p.kind),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(crate) fn leg_of(&self, call_id: &str) -> Option<usize> {
        self.legs.iter().position(|leg| leg.call_id == call_id)
    }

    // Answered.

    /// Both sides know that this leg is answered: sound may flow.
    pub(crate) fn up(&mut self, now: Now, device: &mut Device, at: usize) {
        let ends = match device.config.role {
            Role::Echo => Some(Ends::Echo),
            Role::Phone => self
                .audio
                .take()
                .and_then(|end| device.codecs.codec().map(|codec| Ends::Audio { codec, end })),
        };
        let seed = device.seed();
        let Some(leg) = self.legs.get_mut(at) else { return };
        let Some(keys) = leg.media_keys.take() else { return };
        leg.state = LegState::Up;
        leg.plane.consent(now);
        self.current = Some(at);
        self.phase = Phase::Answered;
        self.answered_at = Some(now.mono);
        self.ring_until = None;
        self.alert_until = None;
        self.hang_at = self.max.map(|max| now.mono + max);
        self.note(now, Some(at), Step::CallAnswered);
        self.emit(device, now, State::Answered);
        if self.leaving {
            self.end(now, device, Cause::LocalHangup, "");
            return;
        }
        let Some(ends) = ends else {
            self.end(now, device, Cause::AudioNoDevice, "no audio for this call");
            return;
        };
        if let Some(leg) = self.legs.get_mut(at) {
            leg.plane.start(now, keys, ends, seed);
        }
        let path = self.legs.get(at).and_then(|leg| leg.plane.path());
        match path {
            Some(path) => self.show_path(now, device, at, path.kind, path.rtt),
            None => self.path_until = Some(now.mono + PATH_WITHIN),
        }
    }

    /// Terms that came in an opened message of this leg.
    pub(crate) fn take_terms(&mut self, now: Now, device: &mut Device, at: usize, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let Ok(terms) = Terms::decode(body) else {
            self.refuse(now, Some(at), Refusal::Malformed);
            return;
        };
        let Some(leg) = self.legs.get_mut(at) else { return };
        if !terms.homes.is_empty() {
            leg.peer.homes.clone_from(&terms.homes);
        }
        leg.plane.take_report(now, &terms.report);
        let taken = leg.plane.take(now, device, &terms.sdp);
        let node = leg.peer.node;
        match taken {
            Ok(0) => {}
            Ok(count) => self.note(now, Some(at), Step::CandidatesTaken(count)),
            Err(_) => self.refuse(now, Some(at), Refusal::Malformed),
        }
        let held = device.contact(&self.peer).filter(|contact| contact.accepted && !contact.blocked);
        if let (Some(given), Some(contact), Some(root)) = (terms.given, held, self.root)
            && contact.tag_held != Some(given)
        {
            let what = Word::TagGiven(given);
            let incoming = Incoming { from: self.peer.clone(), root, device: node, what };
            device.out.push_back(CallsOutput::Incoming(incoming));
        }
    }

    /// Tells the peer what it does not know yet of our addresses and relays.
    pub(crate) fn tell_news(&mut self, now: Now, device: &mut Device, at: usize) {
        let terms = device.terms(Vec::new(), &self.peer);
        let Some(leg) = self.legs.get_mut(at) else { return };
        if leg.state != LegState::Up && leg.dialog.is_none() {
            return;
        }
        let sdp = leg.plane.fragment();
        if !sdp.is_empty() {
            let terms = Terms { sdp, ..terms };
            leg.request(now, device, Method::Info, None, terms.encode());
        }
    }

    /// The homes changed: peers with a dialog are told.
    pub(crate) fn tell_homes(&mut self, now: Now, device: &mut Device) {
        let terms = device.terms(Vec::new(), &self.peer).encode();
        for leg in self.legs.iter_mut().filter(|leg| leg.state == LegState::Up) {
            leg.request(now, device, Method::Info, None, terms.clone());
        }
    }

    // What the plane tells.

    pub(crate) fn plane_event(&mut self, now: Now, device: &mut Device, at: usize, event: PlaneEvent) {
        let up = self.legs.get(at).is_some_and(|leg| leg.state == LegState::Up);
        match event {
            PlaneEvent::Path(path) => {
                self.path_until = None;
                self.note(now, Some(at), Step::Path(path.kind.as_str()));
                if up {
                    self.show_path(now, device, at, path.kind, path.rtt);
                }
            }
            PlaneEvent::Failed => {
                self.note(now, Some(at), Step::PathsFailed);
                if up {
                    self.no_path(now, device, at);
                }
            }
            PlaneEvent::Lost => {
                if up {
                    self.end(now, device, Cause::PathLost, "nothing was heard for long");
                }
            }
            PlaneEvent::FirstPacket => {
                self.note(now, Some(at), Step::FirstPacket);
                if up && self.phase == Phase::Answered {
                    self.phase = Phase::Media;
                    self.emit(device, now, State::Media);
                }
            }
            PlaneEvent::PeerHasAnswer => {
                if self.legs.get(at).is_some_and(|leg| leg.state == LegState::Accepted) && !self.is_over() {
                    self.up(now, device, at);
                }
            }
            PlaneEvent::Stats(stats) => {
                let path = self.legs.get(at).and_then(|leg| leg.plane.path()).map(|path| path.kind);
                self.emit(device, now, State::Stats { stats, path });
            }
            PlaneEvent::Hearing { hears_us, we_hear, reported } => {
                self.note(now, Some(at), Step::Hearing(hears_us, we_hear));
                if !(hears_us && we_hear) && up {
                    if reported
                        && !hears_us
                        && let Some(leg) = self.legs.get_mut(at)
                    {
                        leg.plane.unheard(now);
                    }
                    self.deaf(now, device, at, reported && hears_us);
                }
            }
            PlaneEvent::MicSilent { ours, peers } => {
                self.note(now, Some(at), Step::Microphones { ours: !ours, peers: !peers });
            }
            PlaneEvent::PeerBye(reason) => {
                self.note(now, Some(at), Step::Received(Method::Bye));
                let cause = Cause::from_u8(reason).unwrap_or(Cause::LocalHangup);
                self.ended_by_peer(now, device, at, cause, None);
            }
            PlaneEvent::RelayAsked(relay) => self.note(now, Some(at), Step::RelayAsked(relay)),
            PlaneEvent::RelayUp => self.note(now, Some(at), Step::RelayUp),
            PlaneEvent::RelayDown(why) => self.note(now, Some(at), Step::RelayDown(why)),
            PlaneEvent::News => self.tell_news(now, device, at),
            PlaneEvent::BadAddress => self.refuse(now, Some(at), Refusal::Address),
        }
    }

    fn show_path(
        &mut self,
        now: Now,
        device: &mut Device,
        at: usize,
        path: yodel_nat::PathKind,
        rtt: Option<Duration>,
    ) {
        let rtt = rtt.or_else(|| self.legs.get(at).and_then(|leg| leg.plane.rtt()));
        self.emit(device, now, State::Path { path, rtt });
    }

    fn no_path(&mut self, now: Now, device: &mut Device, at: usize) {
        let refused = self.legs.get(at).and_then(|leg| leg.plane.refused);
        let detail = refused.map_or("", crate::plane::reason_text);
        let cause =
            if refused.is_some() && self.relay_only { Cause::PathRelayRefused } else { Cause::PathAllFailed };
        self.end(now, device, cause, detail);
    }

    /// One direction carries nothing: check every way anew, and let the peer know by signalling what we hear.
    fn deaf(&mut self, now: Now, device: &mut Device, at: usize, reports_pass: bool) {
        let due = self.probed_at.is_none_or(|before| now.mono.since(before) >= Duration::from_secs(2));
        let terms = device.terms(Vec::new(), &self.peer);
        let Some(leg) = self.legs.get_mut(at) else { return };
        if !due {
            return;
        }
        self.probed_at = Some(now.mono);
        if leg.plane.path().is_some() {
            leg.plane.probe_paths(now);
            leg.plane.relay_deaf(now, device);
        }
        if !reports_pass {
            // Where it does not hear us, it does not hear our reports either.
            let report = leg.plane.sealed_report(now);
            leg.request(now, device, Method::Info, None, Terms { report, ..terms }.encode());
        }
    }

    // Requests of the peer inside a leg.

    /// BYE, boxed and fresh.
    pub(crate) fn handle_bye(
        &mut self,
        now: Now,
        device: &mut Device,
        at: usize,
        request: &Request,
        sealed: &Sealed,
    ) {
        if let Some(leg) = self.legs.get_mut(at) {
            leg.respond_to(now, device, request, Status::OK);
        }
        let cause = sealed.cause.unwrap_or(Cause::LocalHangup);
        self.ended_by_peer(now, device, at, cause, winner_in(&sealed.body));
    }

    /// The peer ended this leg; `winner` names the device that has the call instead.
    pub(crate) fn ended_by_peer(
        &mut self,
        now: Now,
        device: &mut Device,
        at: usize,
        cause: Cause,
        winner: Option<NodeId>,
    ) {
        let cause = cause.from_peer();
        let Some(leg) = self.legs.get_mut(at) else { return };
        let was = std::mem::replace(&mut leg.state, LegState::Over);
        leg.close_at = Some(now.mono + PLANE_LINGER);
        if was != LegState::Over && self.current == Some(at) {
            let detail = winner.map(|node| format!("answered by {node}")).unwrap_or_default();
            self.end(now, device, cause, &detail);
        }
    }

    /// The user hangs up after its answer, before the caller's ACK: the BYE waits for it (RFC 3261 §15), so that both
    /// sides agree whether there was a call. The microphone stays shut. False when there is nothing to wait for.
    pub(crate) fn leave(&mut self, now: Now) -> bool {
        let state = self.current.and_then(|at| self.legs.get(at)).map(|leg| leg.state);
        if self.leaving || state != Some(LegState::Accepted) {
            return false;
        }
        self.leaving = true;
        self.audio = None;
        self.hang_at = Some(now.mono + LEAVE_WITHIN);
        true
    }

    // The end.

    /// Ends the call: every leg is told as its state wants, and one cause is shown.
    pub(crate) fn end(&mut self, now: Now, device: &mut Device, cause: Cause, detail: &str) {
        if self.is_over() {
            return;
        }
        let cause = self.judged(now, cause);
        let answered_at = self.answered_at;
        let current = self.current.and_then(|at| self.legs.get(at));
        let winner = current.filter(|_| answered_at.is_some()).map(|leg| leg.peer.node);
        let detail = match (cause == Cause::MediaMicSilent, current) {
            (true, Some(leg)) if leg.plane.mic_silent => "the microphone here gives nothing",
            (true, _) => "the peer's microphone gives nothing",
            (false, _) => detail,
        };
        for leg in &mut self.legs {
            match leg.state {
                LegState::Inviting | LegState::Alerted | LegState::Yielded => {
                    leg.cancel(now, device, cause, winner);
                    leg.plane.close(now, device);
                }
                LegState::Incoming | LegState::Ringing => {
                    let (status, told) = match cause {
                        Cause::PeerDeclined => (Status::DECLINE, cause),
                        Cause::PeerBusy => (Status::BUSY_HERE, cause),
                        _ => (Status::TEMPORARILY_UNAVAILABLE, cause),
                    };
                    leg.respond(now, device, status, Some(told), Vec::new());
                    leg.plane.close(now, device);
                }
                LegState::Accepted | LegState::Up => {
                    leg.request(now, device, Method::Bye, Some(cause), Vec::new());
                    leg.plane.bye(now, cause as u8);
                }
                LegState::Over => leg.plane.bye(now, cause as u8),
            }
            leg.state = LegState::Over;
            leg.close_at.get_or_insert(now.mono + PLANE_LINGER);
        }
        self.phase = Phase::Over;
        self.audio = None;
        self.asked = None;
        self.gone_at = Some(now.mono + LINGER);
        self.note(now, None, Step::Ended(cause));
        let ended = Ended {
            cause,
            detail: detail.to_owned(),
            duration: answered_at.map(|at| now.mono.since(at)).unwrap_or_default(),
            answered: answered_at.is_some(),
            verified: self.verified,
            encrypted_to: EncryptedTo::Peer,
        };
        self.ended = Some(ended.clone());
        self.emit(device, now, State::Ended(ended));
    }

    /// A hang-up of a call in which somebody heard nothing says so instead.
    fn judged(&self, now: Now, cause: Cause) -> Cause {
        let Some(leg) = self.current.and_then(|at| self.legs.get(at)) else { return cause };
        let long = self.answered_at.is_some_and(|at| now.mono.since(at) >= JUDGED_AFTER);
        if !cause.is_hangup() || !long {
            return cause;
        }
        match (leg.plane.heard, leg.plane.was_heard) {
            (false, false) if leg.plane.path().is_none() => Cause::PathAllFailed,
            (false, false) => Cause::MediaTimeout,
            (false, true) => Cause::MediaOneWayIn,
            (true, false) => Cause::MediaOneWayOut,
            (true, true) if leg.plane.mic_silent || leg.plane.peer_mic_silent => Cause::MediaMicSilent,
            (true, true) => cause,
        }
    }

    // Time.

    pub(crate) fn handle_timeout(&mut self, now: Now, device: &mut Device) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        for leg in &mut self.legs {
            leg.plane.handle_timeout(now, device);
            if due(leg.close_at) {
                leg.close_at = None;
                leg.plane.close(now, device);
            }
        }
        if self.is_over() {
            return;
        }
        if due(self.hang_at) {
            self.hang_at = None;
            let detail = match self.leaving {
                true => "the caller never confirmed the answer",
                false => "the time set for the call is over",
            };
            self.end(now, device, Cause::LocalHangup, detail);
        } else if due(self.path_until) {
            self.path_until = None;
            if let Some(at) = self.current {
                self.no_path(now, device, at);
            }
        } else if due(self.ring_until) {
            self.ring_until = None;
            self.end(now, device, Cause::PeerNoAnswer, "");
        } else if due(self.alert_until) {
            self.alert_until = None;
            self.not_alerted(now, device);
        } else {
            self.caller_timeout(now, device);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let own = [
            self.hang_at,
            self.path_until,
            self.ring_until,
            self.alert_until,
            self.asked.map(|asked| asked.until),
            self.caller_deadline(),
        ];
        let own = own.into_iter().filter(|_| !self.is_over());
        let legs = self.legs.iter().flat_map(|leg| [leg.close_at, leg.plane.deadline()]);
        own.chain(legs).chain([self.gone_at]).flatten().min()
    }
}

/// The device that has the call, in the body of a BYE or CANCEL.
pub(crate) fn winner_in(body: &[u8]) -> Option<NodeId> {
    body.try_into().ok().map(NodeId)
}

/// The first half of a Call-ID's base.
pub(crate) fn id_of(base: &str) -> CallId {
    let digits = base.get(..16).unwrap_or_default();
    CallId(u64::from_str_radix(digits, 16).unwrap_or_default())
}

/// What the Call-IDs of one call's legs have in common; `None` unless of the form ours have.
pub(crate) fn base_of(call_id: &str) -> Option<&str> {
    let (base, leg) = call_id.split_once('-')?;
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let ours = base.len() == 32 && base.bytes().all(hex) && leg.len() <= 4 && leg.parse::<u16>().is_ok();
    ours.then_some(base)
}
