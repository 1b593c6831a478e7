//! The supernode's side: joins two authenticated sessions.
//!
//! Contract: feed [`Server::handle_frame`] with every relay frame of an attached link (the link's facts beside it),
//! [`Server::handle_datagram`] with datagrams of first byte 21 and 22, [`Server::link_closed`] when a link ends,
//! [`Server::revoke`] when a node may no longer be served, [`Server::handle_timeout`] at [`Server::deadline`]. Drain
//! [`Server::poll_output`] after each. It never sends to an address that did not echo a challenge, never sends more than
//! it received, and holds nothing without a bound.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use subtle::ConstantTimeEq;
use yodel_identity::node::NodeId;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkId, Transport};
use yodel_wire::time::{Instant, Now};

use crate::bucket::Bucket;
use crate::control::{
    BindKey, Binding, BindingKind, Channel, Control, LegKind, Reason, Token, data, hmac_sha256, parse_data,
};
use crate::limits::{
    BURST_BYTES, HALF_OPEN, HALF_OPEN_PER_NODE, IDLE, LINK_LOST, QUEUE_MAX, RATE_BYTES_PER_S, SESSIONS_MAX,
    SESSIONS_PER_NODE,
};

/// How often expired sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What a server grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Bytes per second that one credential may have relayed; 0 refuses every session.
    pub rate_bytes_per_s: u64,
    /// Bytes that one credential may have relayed at once.
    pub burst_bytes: u64,
    /// Sessions in all; 0 refuses every one.
    pub sessions_max: usize,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            rate_bytes_per_s: RATE_BYTES_PER_S,
            burst_bytes: BURST_BYTES,
            sessions_max: SESSIONS_MAX,
        }
    }
}

/// The link a frame came on: who is at its other end, proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The link.
    pub link: LinkId,
    /// The attached node.
    pub node: NodeId,
    /// The link's keying material.
    pub exporter: [u8; 32],
    /// What carries it.
    pub transport: Transport,
}

/// What a server wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayOutput {
    /// Write this frame to the link.
    Frame(LinkId, Frame),
    /// Send this datagram.
    Datagram {
        /// An address that a leg has bound, or that asks to be bound.
        to: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions refused.
    pub refused: u64,
    /// Packets passed on.
    pub packets: u64,
    /// Bytes passed on, without headers.
    pub bytes: u64,
    /// Packets dropped by quota or by a full queue.
    pub dropped: u64,
    /// Datagrams that named no channel, came from an address not bound, or were forged.
    pub stray: u64,
}

#[derive(Debug)]
struct Side {
    node: NodeId,
    link: Option<LinkId>,
    link_lost: Option<Instant>,
    transport: Transport,
    key: BindKey,
    channel: Channel,
    bound: Option<SocketAddr>,
    /// Of the last confirmed binding.
    sequence: u64,
}

impl Side {
    fn kind(&self) -> LegKind {
        if self.bound.is_some() { LegKind::Udp } else { LegKind::of_link(self.transport) }
    }
}

#[derive(Debug)]
struct Session {
    allow: NodeId,
    opened: Instant,
    active: Instant,
    opener: Side,
    /// Boxed, so that a session that still waits stays small.
    joiner: Option<Box<Side>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Opener,
    Joiner,
}

impl Session {
    fn side(&mut self, end: End) -> Option<&mut Side> {
        match end {
            End::Opener => Some(&mut self.opener),
            End::Joiner => self.joiner.as_deref_mut(),
        }
    }

    fn other(&mut self, end: End) -> Option<&mut Side> {
        self.side(match end {
            End::Opener => End::Joiner,
            End::Joiner => End::Opener,
        })
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.opener).chain(self.joiner.as_deref())
    }
}

/// The relay; see the module's text.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    rng: ChaCha20Rng,
    cookie_key: [u8; 32],
    sessions: BTreeMap<Token, Session>,
    channels: BTreeMap<Channel, (Token, End)>,
    buckets: BTreeMap<NodeId, Bucket>,
    draining: bool,
    swept: Instant,
    control: VecDeque<RelayOutput>,
    data: VecDeque<RelayOutput>,
    counters: Counters,
}

impl Server {
    /// An empty relay. `seed` makes its channels and challenges.
    pub fn new(config: ServerConfig, seed: [u8; 32]) -> Server {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut cookie_key = [0; 32];
        rng.fill_bytes(&mut cookie_key);
        Server {
            config,
            rng,
            cookie_key,
            sessions: BTreeMap::new(),
            channels: BTreeMap::new(),
            buckets: BTreeMap::new(),
            draining: false,
            swept: Instant::ORIGIN,
            control: VecDeque::new(),
            data: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Sessions with both ends joined.
    pub fn sessions(&self) -> usize {
        self.sessions.values().filter(|session| session.joiner.is_some()).count()
    }

    /// Whose sessions have both ends joined.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let joined = self.sessions.values().filter(|session| session.joiner.is_some());
        joined.flat_map(|session| session.sides().map(|side| side.node)).collect()
    }

    /// Sessions that wait for their second end.
    pub fn half_open(&self) -> usize {
        self.sessions.values().filter(|session| session.joiner.is_none()).count()
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A relay frame arrived on an attached link.
    ///
    /// # Errors
    /// The frame cannot be read: close the link.
    pub fn handle_frame(&mut self, now: Now, facts: &LinkFacts, frame: &Frame) -> Result<(), DecodeError> {
        let Some(control) = Control::decode(frame)? else { return Ok(()) };
        let now = now.mono;
        match control {
            Control::Open { token, allow } => self.open(now, facts, token, allow),
            Control::Join { token } => self.join(now, facts, token),
            Control::State { token, near: _, far: _, draining: _ } => {
                if let Some(end) = self.end_of(token, facts)
                    && let Some(session) = self.sessions.get_mut(&token)
                    && let Some(side) = session.side(end)
                {
                    side.bound = None;
                    self.tell_state(token);
                }
            }
            Control::Data { channel, packet } => {
                let Some((token, end)) = self.channels.get(&channel).copied() else {
                    self.counters.stray += 1;
                    return Ok(());
                };
                let ours = self
                    .sessions
                    .get_mut(&token)
                    .and_then(|session| session.side(end))
                    .is_some_and(|side| side.link == Some(facts.link) && side.node == facts.node);
                if ours {
                    self.pass(now, token, end, &packet);
                } else {
                    self.counters.stray += 1;
                }
            }
            Control::Close { token, reason: _ } => {
                if let Some(end) = self.end_of(token, facts) {
                    self.close(token, Reason::Finished, Some(end));
                }
            }
            // A leg never says these.
            Control::Opened { .. } | Control::Joined { .. } | Control::Refused { .. } => {}
        }
        Ok(())
    }

    /// A datagram of first byte 21 or 22 arrived.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let now = now.mono;
        if let Some((channel, packet)) = parse_data(datagram) {
            let Some((token, end)) = self.channels.get(&channel).copied() else {
                self.counters.stray += 1;
                return;
            };
            let bound = self.sessions.get_mut(&token).and_then(|s| s.side(end)).and_then(|side| side.bound);
            if bound == Some(from) {
                self.pass(now, token, end, packet);
            } else {
                self.counters.stray += 1;
            }
            return;
        }
        if self.handle_binding(now, from, datagram).is_none() {
            self.counters.stray += 1;
        }
    }

    /// A link ended. Its legs go on over a bound address for a while, so that the node can attach again.
    pub fn link_closed(&mut self, now: Now, link: LinkId) {
        for session in self.sessions.values_mut() {
            for end in [End::Opener, End::Joiner] {
                if let Some(side) = session.side(end)
                    && side.link == Some(link)
                {
                    side.link = None;
                    side.link_lost = Some(now.mono);
                }
            }
        }
    }

    /// Ends every session of this node, at either end.
    pub fn revoke(&mut self, node: NodeId) {
        let tokens: Vec<Token> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.allow == node || session.opener.node == node)
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            self.close(token, Reason::Revoked, None);
        }
        self.buckets.remove(&node);
    }

    /// Opens no further session, and asks the ends of all others to move elsewhere; or takes that back.
    pub fn set_draining(&mut self, draining: bool) {
        if self.draining != draining {
            self.draining = draining;
            let tokens: Vec<Token> = self.sessions.keys().copied().collect();
            for token in tokens {
                self.tell_state(token);
            }
        }
    }

    /// Changes what is granted from now on (SIGHUP). Buckets start anew.
    pub fn set_config(&mut self, config: ServerConfig) {
        self.config = config;
        self.buckets.clear();
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        let expired: Vec<Token> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                let waits_too_long = session.joiner.is_none() && now >= session.opened + HALF_OPEN;
                let idle = session.joiner.is_some() && now >= session.active + IDLE;
                let lost = session.sides().any(|side| side.link_lost.is_some_and(|at| now >= at + LINK_LOST));
                waits_too_long || idle || lost
            })
            .map(|(token, _)| *token)
            .collect();
        for token in expired {
            self.close(token, Reason::Expired, None);
        }
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    /// When to call [`Server::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        (!self.sessions.is_empty() || !self.buckets.is_empty()).then_some(self.swept + SWEEP)
    }

    /// The next thing to carry out; control goes before data.
    pub fn poll_output(&mut self) -> Option<RelayOutput> {
        self.control.pop_front().or_else(|| self.data.pop_front())
    }

    fn open(&mut self, now: Instant, facts: &LinkFacts, token: Token, allow: NodeId) {
        if let Some(session) = self.sessions.get_mut(&token) {
            if session.opener.node == facts.node && session.allow == allow {
                refresh(&mut session.opener, facts, token);
                let channel = session.opener.channel;
                self.write(facts.link, &Control::Opened { token, channel });
                self.tell_state(token);
            } else {
                self.refuse(facts.link, token, Reason::TokenInUse);
            }
            return;
        }
        if let Some(reason) = self.refusal(now, facts.node) {
            self.refuse(facts.link, token, reason);
            return;
        }
        let opener = self.new_side(facts, token, End::Opener);
        let channel = opener.channel;
        self.sessions.insert(token, Session { allow, opened: now, active: now, opener, joiner: None });
        self.counters.opened += 1;
        self.write(facts.link, &Control::Opened { token, channel });
        self.tell_state(token);
    }

    fn refusal(&self, now: Instant, node: NodeId) -> Option<Reason> {
        let config = &self.config;
        let own = self.sessions.values().filter(|session| session.opener.node == node);
        let half_open = own
            .clone()
            .filter(|session| session.joiner.is_none() && now < session.opened + HALF_OPEN)
            .count();
        if self.draining {
            Some(Reason::Draining)
        } else if config.rate_bytes_per_s == 0
            || self.sessions.len() >= config.sessions_max
            || half_open >= HALF_OPEN_PER_NODE
            || own.count() >= SESSIONS_PER_NODE
        {
            Some(Reason::Quota)
        } else {
            None
        }
    }

    fn join(&mut self, now: Instant, facts: &LinkFacts, token: Token) {
        let allowed = self.sessions.get(&token).is_some_and(|session| {
            session.allow == facts.node && (session.joiner.is_some() || now < session.opened + HALF_OPEN)
        });
        if !allowed {
            self.refuse(facts.link, token, Reason::NoSession);
            return;
        }
        if self.config.rate_bytes_per_s == 0 {
            self.refuse(facts.link, token, Reason::Quota);
            return;
        }
        let fresh = self.new_side(facts, token, End::Joiner);
        let Some(session) = self.sessions.get_mut(&token) else { return };
        session.active = now;
        let channel = match session.joiner.as_deref_mut() {
            Some(side) => {
                self.channels.remove(&fresh.channel);
                refresh(side, facts, token);
                side.channel
            }
            None => session.joiner.insert(Box::new(fresh)).channel,
        };
        self.write(facts.link, &Control::Joined { token, channel });
        self.tell_state(token);
    }

    fn new_side(&mut self, facts: &LinkFacts, token: Token, end: End) -> Side {
        let mut channel = Channel::new(self.rng.next_u64());
        while self.channels.contains_key(&channel) {
            channel = Channel::new(self.rng.next_u64());
        }
        self.channels.insert(channel, (token, end));
        Side {
            node: facts.node,
            link: Some(facts.link),
            link_lost: None,
            transport: facts.transport,
            key: BindKey::derive(&facts.exporter, token),
            channel,
            bound: None,
            sequence: 0,
        }
    }

    /// Which end of the session this link carries.
    fn end_of(&mut self, token: Token, facts: &LinkFacts) -> Option<End> {
        let session = self.sessions.get_mut(&token)?;
        [End::Opener, End::Joiner].into_iter().find(|end| {
            session.side(*end).is_some_and(|side| side.link == Some(facts.link) && side.node == facts.node)
        })
    }

    /// `None` when the datagram is not a leg's.
    fn handle_binding(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<()> {
        let binding = Binding::parse(datagram)?;
        let (token, end) = self.channels.get(&binding.channel).copied()?;
        let cookie = self.cookie(from, &binding);
        let session = self.sessions.get_mut(&token)?;
        let side = session.side(end)?;
        let key = side.key;
        if !Binding::check(datagram, &key) {
            return None;
        }
        let answer = match binding.kind {
            BindingKind::Bind => {
                if binding.sequence <= side.sequence {
                    return None;
                }
                Binding { kind: BindingKind::Challenge, cookie, ..binding }
            }
            BindingKind::Confirm => {
                let echoed: bool = binding.cookie.ct_eq(&cookie).into();
                let repeated = binding.sequence == side.sequence && side.bound == Some(from);
                if !echoed || (binding.sequence <= side.sequence && !repeated) {
                    return None;
                }
                let moved = side.bound != Some(from);
                side.sequence = binding.sequence;
                side.bound = Some(from);
                session.active = now;
                if moved {
                    self.tell_state(token);
                }
                Binding { kind: BindingKind::Bound, ..binding }
            }
            BindingKind::Challenge | BindingKind::Bound => return None,
        };
        self.control.push_back(RelayOutput::Datagram { to: from, bytes: answer.encode(&key) });
        Some(())
    }

    /// What only somebody who receives at `from` can echo. Nothing is kept for it.
    fn cookie(&self, from: SocketAddr, binding: &Binding) -> [u8; 16] {
        let ip = match from.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(ip) => ip.octets(),
        };
        let tag = hmac_sha256(
            &self.cookie_key,
            &[
                &ip,
                &from.port().to_be_bytes(),
                &binding.channel.get().to_be_bytes(),
                &binding.sequence.to_be_bytes(),
            ],
        );
        let mut cookie = [0; 16];
        for (to, from) in cookie.iter_mut().zip(tag) {
            *to = from;
        }
        cookie
    }

    fn pass(&mut self, now: Instant, token: Token, end: End, packet: &[u8]) {
        let Some(session) = self.sessions.get_mut(&token) else { return };
        let Some(sender) = session.side(end).map(|side| side.node) else { return };
        let config = self.config;
        let bucket = self
            .buckets
            .entry(sender)
            .or_insert_with(|| Bucket::new(now, config.rate_bytes_per_s, config.burst_bytes));
        if !bucket.take(now, packet.len() as u64) {
            self.counters.dropped += 1;
            return;
        }
        session.active = now;
        // The second end is not there yet: nothing is kept for it.
        let Some(to) = session.other(end) else { return };
        let output = match (to.bound, to.link) {
            (Some(addr), _) => RelayOutput::Datagram { to: addr, bytes: data(to.channel, packet) },
            (None, Some(link)) => RelayOutput::Frame(
                link,
                Control::Data { channel: to.channel, packet: packet.to_vec() }.encode(),
            ),
            (None, None) => return,
        };
        if self.data.len() >= QUEUE_MAX {
            self.data.pop_front();
            self.counters.dropped += 1;
        }
        self.data.push_back(output);
        self.counters.packets += 1;
        self.counters.bytes += packet.len() as u64;
    }

    fn tell_state(&mut self, token: Token) {
        let Some(session) = self.sessions.get(&token) else { return };
        let draining = self.draining;
        let opener = session.opener.kind();
        let joiner = session.joiner.as_deref().map(Side::kind);
        let to_opener = session
            .opener
            .link
            .map(|link| (link, Control::State { token, near: opener, far: joiner, draining }));
        let to_joiner = session.joiner.as_deref().and_then(|side| {
            let state = Control::State { token, near: side.kind(), far: Some(opener), draining };
            side.link.map(|link| (link, state))
        });
        for (link, state) in [to_opener, to_joiner].into_iter().flatten() {
            self.write(link, &state);
        }
    }

    fn close(&mut self, token: Token, reason: Reason, by: Option<End>) {
        let Some(mut session) = self.sessions.remove(&token) else { return };
        for end in [End::Opener, End::Joiner] {
            let Some(side) = session.side(end) else { continue };
            self.channels.remove(&side.channel);
            if let Some(link) = side.link
                && by != Some(end)
            {
                self.control.push_back(RelayOutput::Frame(link, Control::Close { token, reason }.encode()));
            }
        }
    }

    fn refuse(&mut self, link: LinkId, token: Token, reason: Reason) {
        self.counters.refused += 1;
        self.write(link, &Control::Refused { token, reason });
    }

    fn write(&mut self, link: LinkId, control: &Control) {
        self.control.push_back(RelayOutput::Frame(link, control.encode()));
    }
}

/// The node is back on another link: its address must be bound under the new key, and is kept meanwhile.
fn refresh(side: &mut Side, facts: &LinkFacts, token: Token) {
    side.link = Some(facts.link);
    side.link_lost = None;
    side.transport = facts.transport;
    side.key = BindKey::derive(&facts.exporter, token);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_session_is_small() {
        let entry = size_of::<Token>() + size_of::<Session>();
        let channel = size_of::<Channel>() + size_of::<(Token, End)>();
        assert!(entry + channel <= crate::limits::HALF_OPEN_BYTES, "{entry} + {channel} bytes");
    }
}
