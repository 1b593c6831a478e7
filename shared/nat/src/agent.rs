//! ICE (RFC 8445, trickle RFC 8838, consent RFC 7675) between us and one device of the peer, as one small machine.
//!
//! # Contract
//!
//! Feed it: what the signalling learned ([`set_remote_credentials`](Agent::set_remote_credentials),
//! [`add_local`](Agent::add_local), [`add_remote`](Agent::add_remote), [`add_relay`](Agent::add_relay)); every STUN
//! datagram that may be the peer's ([`handle_stun`](Agent::handle_stun)); a note for every other authentic packet
//! ([`heard`](Agent::heard)); time ([`handle_timeout`](Agent::handle_timeout)). After each, drain
//! [`poll_output`](Agent::poll_output) until `None`, then sleep until [`deadline`](Agent::deadline).
//!
//! It starts checking a route as soon as it knows it and the peer's credentials. It tells the path media should take
//! ([`AgentOutput::Path`]) when there is one and whenever it changes; until the next word, all packets go there. It
//! never sends to an address before [`add_remote`](Agent::add_remote) named it or an authentic packet came from it, never
//! more than the call's [`Budget`] allows, and never anything but STUN. When to give it the peer's addresses, and the
//! peer our credentials, is the caller's decision: consent (D§5) is settled before.
//!
//! Differences from RFC 8445, all possible because both ends are ours: one socket, so a route is its far end; the
//! choice may change at any time ([`crate::choice`]); roles are fixed by who called and signed, so there is no role
//! conflict; the last four bytes of a check's transaction count up, which orders nominations that overtake each other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_wire::time::{Instant, Now};

use crate::budget::Budget;
use crate::candidate::{Candidate, CandidateKind, CandidateRefused, canonical};
use crate::check::{Checks, Far};
use crate::choice::{PathKind, RelayKind, RelayRef, Route, Standing};
use crate::limits::{
    FAILED_AFTER, LOCAL_CANDIDATES_MAX, LOST_AFTER, RELAYS_MAX, SHUN_LEAVING, SHUN_UNHEARD, SILENCE,
};
use crate::stun::{self, Class, Transaction};

mod exchange;
mod step;

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The caller: it nominates.
    Controlling,
    /// The callee: it follows.
    Controlled,
}

/// What an agent is told once.
#[derive(Clone, Debug, Default)]
pub struct AgentConfig {
    /// Loopback addresses of the peer may be tried, if we have one ourselves: a realm that lives on one machine.
    pub allow_loopback: bool,
    /// No direct address is tried, answered or told: `--relay-only`.
    pub relay_only: bool,
    /// The call's allowance: a clone of the same one for every leg.
    pub budget: Budget,
}

/// ICE credentials (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    ufrag: String,
    password: String,
}

impl Credentials {
    /// What a peer sent. `None` unless of the form RFC 8839 §5.4 wants: 4 to 256 and 22 to 256 ICE characters.
    pub fn new(ufrag: &str, password: &str) -> Option<Credentials> {
        let ice = |text: &str, min: usize| {
            (min..=256).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        };
        (ice(ufrag, 4) && ice(password, 22))
            .then(|| Credentials { ufrag: ufrag.to_owned(), password: password.to_owned() })
    }

    fn generate(rng: &mut ChaCha20Rng) -> Credentials {
        Credentials { ufrag: ice_chars(rng, 8), password: ice_chars(rng, 24) }
    }

    /// The user-name fragment.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.ufrag)
    }
}

/// The path media takes from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// Where to send.
    pub route: Route,
    /// What kind it is.
    pub kind: PathKind,
    /// Its round trip, when a check has measured it.
    pub rtt: Option<Duration>,
}

/// What an agent wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentOutput {
    /// Send this STUN message over this route, from the one socket or inside a relay's data.
    Send {
        /// The way.
        route: Route,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Media goes here from now on.
    Path(PathChange),
    /// A path was wanted and none came ([`Agent::want_path`]). One may still come; `Path` then follows.
    Failed,
    /// Nothing at all was heard for so long that the path is gone. One may still come back; `Path` then follows.
    Lost,
}

#[derive(Debug)]
struct Pending {
    route: Route,
    sent: Instant,
}

/// The machine; see the module's text.
#[derive(Debug)]
pub struct Agent {
    role: Role,
    config: AgentConfig,
    rng: ChaCha20Rng,
    tie_breaker: u64,
    /// Counts checks; written into their transactions.
    count: u32,
    local: Credentials,
    remote: Option<Credentials>,
    own: Vec<Candidate>,
    routes: BTreeMap<Route, Checks>,
    pending: BTreeMap<Transaction, Pending>,
    /// When the next unproven address may be checked.
    paced_until: Instant,
    selected: Option<PathChange>,
    /// The peer's newest mark and its number.
    nominated: Option<(Route, u32)>,
    /// Sound arrives on the selected route, so its absence means something.
    sounding: bool,
    /// It is absent.
    silent: bool,
    wanted: bool,
    failed: bool,
    lost: bool,
    /// When something last changed that could make a path.
    news_at: Instant,
    /// When anything authentic was last heard.
    heard_at: Instant,
    /// Up to when everything due has been done.
    stepped_at: Instant,
    had_path: bool,
    outputs: VecDeque<AgentOutput>,
}

impl Agent {
    /// An agent without routes.
    pub fn new(role: Role, config: AgentConfig, seed: [u8; 32]) -> Agent {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let local = Credentials::generate(&mut rng);
        Agent {
            role,
            config,
            tie_breaker: rng.next_u64(),
            rng,
            count: 0,
            local,
            remote: None,
            own: Vec::new(),
            routes: BTreeMap::new(),
            pending: BTreeMap::new(),
            paced_until: Instant::ORIGIN,
            selected: None,
            nominated: None,
            sounding: false,
            silent: false,
            wanted: false,
            failed: false,
            lost: false,
            news_at: Instant::ORIGIN,
            heard_at: Instant::ORIGIN,
            stepped_at: Instant::ORIGIN,
            had_path: false,
            outputs: VecDeque::new(),
        }
    }

    /// What the peer must know to check with us.
    pub fn local_credentials(&self) -> &Credentials {
        &self.local
    }

    /// What we must know to check with the peer.
    pub fn set_remote_credentials(&mut self, now: Now, credentials: Credentials) {
        if self.remote.as_ref() != Some(&credentials) {
            self.remote = Some(credentials);
            self.news(now);
            self.step(now.mono);
        }
    }

    /// An address of our own: not checked, but it tells a LAN path from others, and keeps us from talking to ourselves.
    pub fn add_local(&mut self, candidate: Candidate) {
        let candidate = Candidate { addr: canonical(candidate.addr), ..candidate };
        if self.own.len() < LOCAL_CANDIDATES_MAX && !self.own.contains(&candidate) {
            self.own.push(candidate);
        }
    }

    /// Our addresses so far.
    pub fn local_candidates(&self) -> &[Candidate] {
        &self.own
    }

    /// An address of the peer. Doubles and addresses beyond the limits are dropped in silence.
    ///
    /// # Errors
    /// When it is one that nobody may have us send to.
    pub fn add_remote(&mut self, now: Now, candidate: Candidate) -> Result<(), CandidateRefused> {
        let candidate = Candidate { addr: canonical(candidate.addr), ..candidate };
        self.admissible(candidate.addr)?;
        if self.config.relay_only
            || candidate.kind == CandidateKind::Relayed
            || self.own.iter().any(|own| own.kind == CandidateKind::Host && own.addr == candidate.addr)
        {
            return Ok(());
        }
        let route = Route::Direct(candidate.addr);
        match self.routes.get_mut(&route) {
            Some(checks) => {
                // A check may overtake the signalling; what the peer says of its own address is then better known.
                if let Far::Peer(known) = checks.far
                    && known.kind == CandidateKind::PeerReflexive
                {
                    checks.far = Far::Peer(candidate);
                }
            }
            None if self.config.budget.admit(candidate.addr) => {
                self.routes.insert(route, Checks::new(Far::Peer(candidate), now.mono));
                self.news(now);
            }
            None => {}
        }
        self.step(now.mono);
        Ok(())
    }

    /// A relay session is open on our side, or stands better than before: checks over it begin, or begin anew. Call it
    /// again when the peer joined, and when a leg's transport changed.
    pub fn add_relay(&mut self, now: Now, relay: RelayRef, kind: RelayKind) {
        let route = Route::Relay(relay);
        let relays = self.routes.values().filter(|checks| checks.is_relay()).count();
        match self.routes.get_mut(&route) {
            Some(checks) => {
                checks.far = Far::Relay(kind);
                checks.renew(now.mono);
            }
            None if relays < RELAYS_MAX => {
                self.routes.insert(route, Checks::new(Far::Relay(kind), now.mono));
            }
            None => {}
        }
        self.news(now);
        self.step(now.mono);
    }

    /// A relay is about to go away: any other route that works is taken instead, now or as soon as one does. Until then
    /// it carries on.
    pub fn leave_relay(&mut self, now: Now, relay: RelayRef) {
        if let Some(checks) = self.routes.get_mut(&Route::Relay(relay)) {
            checks.shunned_until = Some(now.mono + SHUN_LEAVING);
        }
        self.step(now.mono);
    }

    /// A relay session ended.
    pub fn remove_relay(&mut self, now: Now, relay: RelayRef) {
        let route = Route::Relay(relay);
        if self.routes.remove(&route).is_some() {
            self.pending.retain(|_, pending| pending.route != route);
            self.probe_all(now.mono);
        }
        self.step(now.mono);
    }

    /// A path is wanted from now on: [`AgentOutput::Failed`] comes when none is found in time. Without this call the
    /// agent only prepares.
    pub fn want_path(&mut self, now: Now) {
        if !self.wanted {
            self.wanted = true;
            self.news(now);
            self.heard_at = self.heard_at.max(now.mono);
            self.step(now.mono);
        }
    }

    /// The device's own network changed: every route is checked at once.
    pub fn network_changed(&mut self, now: Now) {
        self.probe_all(now.mono);
        self.news(now);
        self.step(now.mono);
    }

    /// The peer says that it hears nothing of us, though checks of the direct path in use are answered: something lets
    /// those through and not the sound. Another way is taken, where one works.
    pub fn unheard(&mut self, now: Now) {
        let current = self.selected.map(|selected| selected.route);
        let works = |checks: &Checks| checks.standing(now.mono, false) == Standing::Working;
        let elsewhere = self.routes.iter().any(|(route, checks)| Some(*route) != current && works(checks));
        if let Some(route @ Route::Direct(_)) = current
            && elsewhere
            && let Some(checks) = self.routes.get_mut(&route)
            && works(checks)
        {
            checks.shunned_until = Some(now.mono + SHUN_UNHEARD);
        }
        self.step(now.mono);
    }

    /// A STUN datagram came over `route`. True when it was this agent's, whether or not it moved anything; false when
    /// another agent may be meant.
    pub fn handle_stun(&mut self, now: Now, route: Route, bytes: &[u8]) -> bool {
        let route = canonical_route(route);
        let Some(peek) = stun::peek(bytes).filter(|peek| peek.fingerprint) else { return false };
        let mine = match peek.class {
            Class::Request => self.request(now.mono, route, bytes, &peek),
            Class::Success => self.success(now.mono, route, bytes, &peek),
            // 487 cannot happen, other errors say nothing a missing answer does not; consent is kept by requests.
            Class::Error | Class::Indication => false,
        };
        if mine {
            self.step(now.mono);
        }
        mine
    }

    /// Sound, or anything else that only the peer could have made, came over `route`: a path's best heartbeat.
    pub fn heard(&mut self, now: Now, route: Route) {
        let route = canonical_route(route);
        let now = now.mono;
        self.heard_at = now;
        if let Route::Direct(addr) = route
            && !self.routes.contains_key(&route)
        {
            self.learn(now, addr, 0);
        }
        let Some(checks) = self.routes.get_mut(&route) else { return };
        checks.media(now);
        if self.selected.is_some_and(|selected| selected.route == route) {
            self.sounding = true;
            self.silent = false;
        }
        self.step(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.step(now.mono);
    }

    /// The next thing to do; `None` when drained.
    pub fn poll_output(&mut self) -> Option<AgentOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let checks = self.routes.values().filter_map(|checks| {
            let next = self.remote.as_ref().and(checks.next)?;
            Some(if self.is_paced(checks) { next.max(self.paced_until) } else { next })
        });
        let here = self.selected.and_then(|selected| self.routes.get(&selected.route));
        let silence = here.filter(|_| self.sounding && !self.silent).and_then(Checks::last_media);
        let doubt = here.and_then(Checks::standing_deadline).filter(|at| *at > self.stepped_at);
        let shun = self.routes.values().filter_map(|checks| checks.shunned_until);
        let failed = (self.wanted && !self.failed && !self.had_path).then(|| self.news_at + FAILED_AFTER);
        let lost = (self.wanted && !self.lost && self.had_path).then(|| self.heard_at + LOST_AFTER);
        checks.chain(silence.map(|at| at + SILENCE)).chain(doubt).chain(shun).chain(failed).chain(lost).min()
    }

    /// The path in use.
    pub fn path(&self) -> Option<PathChange> {
        self.selected.map(|selected| PathChange { rtt: self.rtt(), ..selected })
    }

    /// The smoothed round trip of the path in use.
    pub fn rtt(&self) -> Option<Duration> {
        self.selected.and_then(|selected| self.routes.get(&selected.route)).and_then(|checks| checks.rtt)
    }
}

fn canonical_route(route: Route) -> Route {
    match route {
        Route::Direct(addr) => Route::Direct(canonical(addr)),
        Route::Relay(relay) => Route::Relay(relay),
    }
}

fn ice_chars(rng: &mut ChaCha20Rng, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..length)
        .filter_map(|_| ALPHABET.get((rng.next_u32() % 64) as usize))
        .map(|byte| char::from(*byte))
        .collect()
}
