//! What carries the sound of one leg: candidates and checks ([`Agent`]), relay sessions, the media session.
//!
//! Consent (D§5) lives here: before [`Plane::consent`] nothing of this device's own addresses is put into a description,
//! addresses of the peer are kept and not used, and checks that come directly are not answered.

mod relays;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_media::{Ends, MediaEvent, MediaKeys, Session, SessionConfig, SessionOutput, Stats};
use yodel_nat::agent::Role as IceRole;
use yodel_nat::agent::{Agent, AgentConfig, AgentOutput, Credentials, PathChange};
use yodel_nat::{Budget, Candidate, CandidateKind, RelayRef, Route};
use yodel_relay::control::{Reason, Token};
use yodel_relay::leg::Leg as RelayLeg;
use yodel_sip::sdp;
use yodel_wire::time::{Instant, Now};

use crate::device::Device;
use crate::event::CallsOutput;

/// What a plane tells its call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PlaneEvent {
    Path(PathChange),
    Failed,
    Lost,
    FirstPacket,
    /// The probe opened media of the caller: it has our answer.
    PeerHasAnswer,
    Stats(Stats),
    Hearing {
        hears_us: bool,
        we_hear: bool,
        reported: bool,
    },
    MicSilent {
        ours: bool,
        peers: bool,
    },
    PeerBye(u8),
    RelayAsked(NodeId),
    RelayUp,
    RelayDown(&'static str),
    /// Something the peer must learn: a new relay session.
    News,
    /// An address that no candidate may have was named.
    BadAddress,
}

pub(crate) use self::relays::reason_text;
use self::relays::{RelaySession, RelayWay, config, drain_relay};

pub(crate) struct Plane {
    agent: Agent,
    caller: bool,
    relay_only: bool,
    consented: bool,
    told: Vec<Candidate>,
    deferred: Vec<Candidate>,
    relays: BTreeMap<RelayRef, RelaySession>,
    next_relay: u32,
    /// Whom our relay sessions admit.
    callee: NodeId,
    session_id: u64,
    probe: Option<Session>,
    session: Option<Session>,
    path: Option<PathChange>,
    pub(crate) refused: Option<Reason>,
    /// Whether sound of the peer came, by what was last known: a call that falls silent is not one that was heard.
    pub(crate) heard: bool,
    /// Whether the peer said that ours came, likewise.
    pub(crate) was_heard: bool,
    /// When a sealed packet of the peer was last opened.
    opened_at: Option<Instant>,
    pub(crate) mic_silent: bool,
    /// The peer's microphone gives nothing, as it says.
    pub(crate) peer_mic_silent: bool,
    closed: bool,
    /// The call is over: what is there carries the BYE, nothing new is opened.
    leaving: bool,
    events: VecDeque<PlaneEvent>,
}

impl Plane {
    pub(crate) fn new(
        device: &mut Device,
        caller: bool,
        callee: NodeId,
        relay_only: bool,
        budget: Budget,
    ) -> Plane {
        let role = if caller { IceRole::Controlling } else { IceRole::Controlled };
        let config = AgentConfig { allow_loopback: device.config.allow_loopback, relay_only, budget };
        let mut agent = Agent::new(role, config, device.seed());
        if !relay_only {
            for candidate in device.candidates() {
                agent.add_local(candidate);
            }
        }
        let [a, b, c, d, e, f, g, h, ..] = device.seed();
        Plane {
            agent,
            caller,
            relay_only,
            consented: false,
            told: Vec::new(),
            deferred: Vec::new(),
            relays: BTreeMap::new(),
            next_relay: 0,
            callee,
            session_id: u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1,
            probe: None,
            session: None,
            path: None,
            refused: None,
            heard: false,
            was_heard: false,
            opened_at: None,
            mic_silent: false,
            peer_mic_silent: false,
            closed: false,
            leaving: false,
            events: VecDeque::new(),
        }
    }

    // Descriptions.

    pub(crate) fn description(&mut self) -> Vec<u8> {
        let ice = self.ice();
        let mut description = sdp::Description::new(self.session_id, ice);
        description.candidates = self.untold();
        description.relays = self.untold_relays();
        description.encode()
    }

    /// What the peer was not told yet; empty when there is nothing.
    pub(crate) fn fragment(&mut self) -> Vec<u8> {
        let (candidates, relays) = (self.untold(), self.untold_relays());
        if candidates.is_empty() && relays.is_empty() {
            return Vec::new();
        }
        sdp::Fragment { ice: self.ice(), candidates, end_of_candidates: false, relays }.encode()
    }

    /// How many candidates the peer was told.
    pub(crate) fn told(&self) -> usize {
        self.told.len()
    }

    fn ice(&self) -> sdp::IceCredentials {
        let own = self.agent.local_credentials();
        sdp::IceCredentials { ufrag: own.ufrag().to_owned(), pwd: own.password().to_owned() }
    }

    fn untold(&mut self) -> Vec<sdp::Candidate> {
        if !self.consented || self.relay_only {
            return Vec::new();
        }
        let fresh: Vec<Candidate> = self
            .agent
            .local_candidates()
            .iter()
            .filter(|candidate| !self.told.contains(candidate))
            .copied()
            .collect();
        self.told.extend(&fresh);
        fresh.into_iter().map(written).collect()
    }

    fn untold_relays(&mut self) -> Vec<sdp::Relay> {
        let mut relays = Vec::new();
        for relay in self.relays.values_mut().filter(|relay| relay.by_us && !relay.told) {
            relay.told = true;
            relays.push(sdp::Relay { node: relay.node, token: relay.token.0, addrs: Vec::new() });
        }
        relays
    }

    /// Takes a description or fragment of the peer; returns how many candidates were in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn take(
        &mut self,
        now: Now,
        device: &mut Device,
        bytes: &[u8],
    ) -> Result<usize, sdp::SdpError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let (ice, candidates, relays) = if bytes.starts_with(b"v=") {
            let description = sdp::Description::parse(bytes)?;
            (description.ice, description.candidates, description.relays)
        } else {
            let fragment = sdp::Fragment::parse(bytes)?;
            (fragment.ice, fragment.candidates, fragment.relays)
        };
        let credentials = Credentials::new(&ice.ufrag, &ice.pwd).ok_or(sdp::SdpError::NoCredentials)?;
        self.agent.set_remote_credentials(now, credentials);
        let count = candidates.len();
        for candidate in candidates.iter().filter_map(read) {
            if self.consented {
                self.add_remote(now, candidate);
            } else if self.deferred.len() < sdp_candidates_max() {
                self.deferred.push(candidate);
            }
        }
        if !self.caller {
            for relay in relays {
                self.join(now, device, relay.node, Token(relay.token));
            }
        }
        Ok(count)
    }

    fn add_remote(&mut self, now: Now, candidate: Candidate) {
        if self.agent.add_remote(now, candidate).is_err() {
            self.events.push_back(PlaneEvent::BadAddress);
        }
    }

    /// Addresses may be told and used from now on.
    pub(crate) fn consent(&mut self, now: Now) {
        if !std::mem::replace(&mut self.consented, true) {
            for candidate in std::mem::take(&mut self.deferred) {
                self.add_remote(now, candidate);
            }
        }
    }

    /// This device's addresses changed.
    pub(crate) fn set_candidates(&mut self, now: Now, candidates: &[Candidate]) {
        if self.relay_only || self.closed {
            return;
        }
        for candidate in candidates {
            self.agent.add_local(*candidate);
        }
        self.agent.network_changed(now);
    }

    // Packets.

    /// Something came over `route`: a check or media. True when it was this plane's.
    pub(crate) fn handle_packet(&mut self, now: Now, route: Route, packet: &[u8]) -> bool {
        match packet.first() {
            Some(0..=3) => self.handle_stun(now, route, packet),
            Some(128..=191) => self.handle_media(now, route, packet),
            Some(_) | None => false,
        }
    }

    fn handle_stun(&mut self, now: Now, route: Route, packet: &[u8]) -> bool {
        let direct = matches!(route, Route::Direct(_));
        if self.closed || direct && (!self.consented || self.relay_only) {
            return false;
        }
        self.agent.handle_stun(now, route, packet)
    }

    fn handle_media(&mut self, now: Now, route: Route, packet: &[u8]) -> bool {
        let Some(session) = self.session.as_mut().or(self.probe.as_mut()) else { return false };
        if Session::ssrc_of(packet) != Some(session.receive_ssrc()) {
            return false;
        }
        if session.handle_packet(now, packet).authentic() {
            self.opened_at = Some(now.mono);
            if !(self.relay_only && matches!(route, Route::Direct(_))) {
                self.agent.heard(now, route);
            }
            if self.session.is_none() {
                self.events.push_back(PlaneEvent::PeerHasAnswer);
            }
        }
        true
    }

    // Media.

    /// The callee's, from its answer on: opens the caller's first media, and does nothing else.
    pub(crate) fn expect(&mut self, now: Now, keys: MediaKeys, seed: [u8; 32]) {
        let mut probe = Session::new(now, SessionConfig { keys, audio: Ends::Echo }, seed);
        probe.set_sending(false);
        self.probe = Some(probe);
    }

    /// The call is answered on both sides: sound flows as soon as there is a path.
    pub(crate) fn start(&mut self, now: Now, keys: MediaKeys, ends: Ends, seed: [u8; 32]) {
        self.probe = None;
        self.session = Some(Session::new(now, SessionConfig { keys, audio: ends }, seed));
        self.agent.want_path(now);
        if let Some(path) = self.path
            && let Some(session) = &mut self.session
        {
            session.set_path(now, path.rtt);
        }
    }

    pub(crate) fn mute(&mut self, muted: bool) {
        if let Some(session) = &mut self.session {
            session.set_muted(muted);
        }
    }

    /// Ends the audio and tells the peer over the media path too.
    pub(crate) fn bye(&mut self, now: Now, reason: u8) {
        self.leaving = true;
        self.probe = None;
        if let Some(session) = &mut self.session {
            session.send_bye(now, reason);
        }
    }

    pub(crate) fn sealed_report(&mut self, now: Now) -> Vec<u8> {
        self.session.as_mut().and_then(|session| session.sealed_report(now)).unwrap_or_default()
    }

    /// A report that came inside signalling.
    pub(crate) fn take_report(&mut self, now: Now, report: &[u8]) {
        if let Some(session) = &mut self.session
            && !report.is_empty()
        {
            session.handle_packet(now, report);
        }
    }

    /// Something is wrong: check every way again.
    pub(crate) fn probe_paths(&mut self, now: Now) {
        self.agent.network_changed(now);
    }

    /// The peer says that it does not hear us.
    pub(crate) fn unheard(&mut self, now: Now) {
        self.agent.unheard(now);
    }

    /// Whether nothing of the peer was opened for this long, though it once was.
    pub(crate) fn silent_for(&self, now: Now, time: Duration) -> bool {
        self.opened_at.is_some_and(|at| now.mono.since(at) >= time)
    }

    pub(crate) fn path(&self) -> Option<PathChange> {
        self.path
    }

    /// Sends nothing more, and ends the relay sessions.
    pub(crate) fn close(&mut self, now: Now, device: &mut Device) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.session = None;
        self.probe = None;
        for relay in self.relays.values_mut() {
            match &mut relay.way {
                RelayWay::Leg(leg) => {
                    leg.close(now);
                    drain_relay(relay.node, leg, device, |_| ());
                }
                RelayWay::Waiting | RelayWay::Down => {}
            }
            relay.way = RelayWay::Down;
        }
        self.events.clear();
    }

    // Driving.

    pub(crate) fn handle_timeout(&mut self, now: Now, device: &Device) {
        if self.closed {
            return;
        }
        self.agent.handle_timeout(now);
        self.leave_relays(now);
        for session in self.session.iter_mut().chain(&mut self.probe) {
            session.handle_timeout(now);
        }
        for relay in self.relays.values_mut() {
            if let RelayWay::Leg(leg) = &mut relay.way {
                leg.handle_timeout(now);
            }
            if relay.retry_at.take_if(|at| *at <= now.mono).is_some() {
                relay.joins += 1;
                if let Some(link) = device.relay_link(relay.node) {
                    relay.way = RelayWay::Leg(Box::new(RelayLeg::join(now, config(link), relay.token)));
                }
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let relays = self.relays.values().flat_map(|relay| {
            let leg = match &relay.way {
                RelayWay::Leg(leg) => leg.deadline(),
                RelayWay::Waiting | RelayWay::Down => None,
            };
            [leg, relay.retry_at, relay.leave_at]
        });
        let session = self.session.as_ref().or(self.probe.as_ref()).and_then(Session::deadline);
        relays.chain([self.agent.deadline(), session]).flatten().min()
    }

    /// Carries out what the parts want, and returns the next thing the call must know.
    pub(crate) fn poll(&mut self, now: Now, device: &mut Device) -> Option<PlaneEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.closed || !self.step(now, device) {
                return self.events.pop_front();
            }
        }
    }

    fn step(&mut self, now: Now, device: &mut Device) -> bool {
        let mut moved = false;
        while let Some(output) = self.agent.poll_output() {
            moved = true;
            match output {
                AgentOutput::Send { route, bytes } => self.send(route, bytes, device),
                AgentOutput::Path(path) => {
                    self.path = Some(path);
                    if let Some(session) = &mut self.session {
                        session.set_path(now, path.rtt);
                    }
                    self.events.push_back(PlaneEvent::Path(path));
                }
                AgentOutput::Failed => self.events.push_back(PlaneEvent::Failed),
                AgentOutput::Lost => self.events.push_back(PlaneEvent::Lost),
            }
        }
        if let Some(probe) = &mut self.probe {
            while probe.poll_output().is_some() {}
        }
        while let Some(output) = self.session.as_mut().and_then(Session::poll_output) {
            moved = true;
            match output {
                SessionOutput::Packet(bytes) => {
                    if let Some(path) = self.path {
                        self.send(path.route, bytes, device);
                    }
                }
                SessionOutput::Event(event) => self.media_event(event),
            }
        }
        moved | self.step_relays(now, device)
    }

    fn media_event(&mut self, event: MediaEvent) {
        let event = match event {
            MediaEvent::FirstPacket => {
                self.heard = true;
                PlaneEvent::FirstPacket
            }
            MediaEvent::Stats(stats) => PlaneEvent::Stats(stats),
            MediaEvent::BothWays => {
                (self.heard, self.was_heard) = (true, true);
                PlaneEvent::Hearing { hears_us: true, we_hear: true, reported: true }
            }
            MediaEvent::OneWay { hears_us, we_hear, reported } => {
                self.heard = we_hear;
                if reported {
                    self.was_heard = hears_us;
                }
                PlaneEvent::Hearing { hears_us, we_hear, reported }
            }
            MediaEvent::MicSilent { ours, peers } => {
                self.mic_silent = ours;
                self.peer_mic_silent = peers;
                PlaneEvent::MicSilent { ours, peers }
            }
            MediaEvent::PeerBye { reason } => PlaneEvent::PeerBye(reason),
        };
        self.events.push_back(event);
    }

    fn send(&mut self, route: Route, bytes: Vec<u8>, device: &mut Device) {
        match route {
            Route::Direct(to) => device.out.push_back(CallsOutput::Datagram { to, bytes }),
            Route::Relay(at) => {
                let Some(relay) = self.relays.get_mut(&at) else { return };
                match &mut relay.way {
                    RelayWay::Leg(leg) => leg.send(&bytes),
                    RelayWay::Waiting | RelayWay::Down => {}
                }
            }
        }
    }

    /// The smoothed round trip of the path in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.agent.rtt()
    }
}

fn sdp_candidates_max() -> usize {
    yodel_sip::limits::CANDIDATES_MAX
}

fn written(candidate: Candidate) -> sdp::Candidate {
    sdp::Candidate {
        foundation: candidate.foundation.to_string(),
        transport: sdp::Transport::Udp,
        priority: candidate.priority,
        addr: candidate.addr,
        kind: match candidate.kind {
            CandidateKind::Host => sdp::CandidateKind::Host,
            CandidateKind::ServerReflexive => sdp::CandidateKind::ServerReflexive,
            CandidateKind::PeerReflexive => sdp::CandidateKind::PeerReflexive,
            CandidateKind::Relayed => sdp::CandidateKind::Relayed,
        },
    }
}

fn read(candidate: &sdp::Candidate) -> Option<Candidate> {
    if candidate.transport != sdp::Transport::Udp {
        return None;
    }
    Some(Candidate {
        kind: match candidate.kind {
            sdp::CandidateKind::Host => CandidateKind::Host,
            sdp::CandidateKind::ServerReflexive => CandidateKind::ServerReflexive,
            sdp::CandidateKind::PeerReflexive => CandidateKind::PeerReflexive,
            sdp::CandidateKind::Relayed => CandidateKind::Relayed,
        },
        addr: candidate.addr,
        priority: candidate.priority,
        foundation: candidate.foundation.parse().unwrap_or(0),
    })
}
