//! One end's side of a relay session.
//!
//! Contract: create with [`Leg::open`] (the caller) or [`Leg::join`] (the callee) while the link to the relay is up.
//! Feed [`Leg::handle_frame`] with relay frames of that link whose token is [`Leg::token`] or whose channel is
//! [`Leg::channel`], [`Leg::handle_datagram`] with datagrams of first byte 21 and 22 from [`Leg::relay`],
//! [`Leg::link_up`] and [`Leg::link_down`] with that link's fate, [`Leg::handle_timeout`] at [`Leg::deadline`]. Drain
//! [`Leg::poll_output`] after each. Packets go out by [`Leg::send`], which drops them silently before
//! [`LegOutput::Up`]: whoever sends by relay expects loss.
//!
//! Packets travel as datagrams once the relay has confirmed this end's address. Until then, and whenever a confirmed
//! address stays silent, they travel as frames on the link; the leg keeps trying to bind. It never opens a link itself,
//! and never sends a datagram elsewhere than to the one relay address it was given.

use std::collections::VecDeque;
use std::net::SocketAddr;

use yodel_identity::node::NodeId;
use yodel_wire::frame::Frame;
use yodel_wire::machine::Transport;
use yodel_wire::time::{Instant, Now};

use crate::control::{
    BindKey, Binding, BindingKind, Channel, Control, LegKind, Reason, Token, data, parse_data,
};
use crate::limits::{BIND_EVERY, BIND_LOST, BIND_QUICK, BIND_RETRY, BIND_RETRY_SLOW, LINK_LOST, REQUEST};

/// How to reach the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegConfig {
    /// The relay's UDP address from the bulletin. `None` never binds one and stays on the link.
    pub relay: Option<SocketAddr>,
    /// The link's keying material (`LinkPeer::exporter`).
    pub exporter: [u8; 32],
    /// What carries the link.
    pub transport: Transport,
}

/// What a leg wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegOutput {
    /// Write this frame to the link with the relay.
    Frame(Frame),
    /// Send this datagram.
    Datagram {
        /// The relay's address.
        to: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Both ends are there; packets pass. `Tcp` when either leg is.
    Up {
        /// What carries the worse of the two legs.
        kind: LegKind,
    },
    /// The kind is another one now.
    Changed {
        /// What carries the worse of the two legs.
        kind: LegKind,
    },
    /// The relay asks both ends to move elsewhere; it still carries packets.
    Draining,
    /// It is over; nothing follows.
    Down(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Open { allow: NodeId },
    Join,
}

/// An attempt to bind our address: one sequence number until it is confirmed.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    begun: Instant,
    next_send: Instant,
    sent: u32,
}

/// One end of a relay session; see the module's text.
#[derive(Debug)]
pub struct Leg {
    token: Token,
    role: Role,
    relay: Option<SocketAddr>,
    transport: Transport,
    key: BindKey,
    /// Since when the link is away.
    link_lost: Option<Instant>,
    /// When the pending request was sent.
    requested: Option<Instant>,
    /// Our channel, once granted.
    granted: Option<Channel>,
    far: Option<LegKind>,
    draining: bool,
    sequence: u64,
    attempt: Option<Attempt>,
    /// When the address was last confirmed; `None` while packets take the link.
    confirmed: Option<Instant>,
    announced: Option<LegKind>,
    ended: bool,
    outputs: VecDeque<LegOutput>,
}

impl Leg {
    /// Opens a session that `allow` may join. The token must be fresh and random.
    pub fn open(now: Now, config: LegConfig, token: Token, allow: NodeId) -> Leg {
        Leg::new(now, config, token, Role::Open { allow })
    }

    /// Joins the session that the peer opened under `token`.
    pub fn join(now: Now, config: LegConfig, token: Token) -> Leg {
        Leg::new(now, config, token, Role::Join)
    }

    fn new(now: Now, config: LegConfig, token: Token, role: Role) -> Leg {
        let mut leg = Leg {
            token,
            role,
            relay: config.relay,
            transport: config.transport,
            key: BindKey::derive(&config.exporter, token),
            link_lost: None,
            requested: None,
            granted: None,
            far: None,
            draining: false,
            sequence: 0,
            attempt: None,
            confirmed: None,
            announced: None,
            ended: false,
            outputs: VecDeque::new(),
        };
        leg.request(now.mono);
        leg
    }

    /// The session's name.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Our channel, once granted.
    pub fn channel(&self) -> Option<Channel> {
        self.granted
    }

    /// The relay's UDP address.
    pub fn relay(&self) -> Option<SocketAddr> {
        self.relay
    }

    /// Whether packets pass now, and over what.
    pub fn kind(&self) -> Option<LegKind> {
        self.announced.filter(|_| !self.ended)
    }

    /// Whether it is over.
    pub fn is_down(&self) -> bool {
        self.ended
    }

    /// A relay frame of ours arrived; a packet in it is returned. A frame that cannot be read is ignored: the owner of
    /// the link judges peers that write nonsense.
    pub fn handle_frame(&mut self, now: Now, frame: &Frame) -> Option<Vec<u8>> {
        let control = Control::decode(frame).ok().flatten()?;
        if self.ended {
            return None;
        }
        match control {
            Control::Opened { token, channel } | Control::Joined { token, channel } => {
                if token == self.token && self.requested.take().is_some() {
                    self.granted = Some(channel);
                    self.begin_attempt(now.mono);
                }
            }
            Control::State { token, near: _, far, draining } => {
                if token == self.token {
                    self.far = far;
                    if draining && !std::mem::replace(&mut self.draining, true) {
                        self.outputs.push_back(LegOutput::Draining);
                    }
                }
            }
            Control::Data { channel, packet } => {
                return (Some(channel) == self.channel()).then_some(packet);
            }
            Control::Close { token, reason } | Control::Refused { token, reason } => {
                if token == self.token {
                    self.end(reason);
                }
            }
            Control::Open { .. } | Control::Join { .. } => {}
        }
        self.announce();
        None
    }

    /// A datagram of first byte 21 or 22 arrived; a packet in it is returned.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &'d [u8],
    ) -> Option<&'d [u8]> {
        if self.ended || Some(from) != self.relay {
            return None;
        }
        if let Some((channel, packet)) = parse_data(datagram) {
            return (Some(channel) == self.channel()).then_some(packet);
        }
        let binding = Binding::parse(datagram)?;
        if Some(binding.channel) != self.channel()
            || binding.sequence != self.sequence
            || self.attempt.is_none()
            || !Binding::check(datagram, &self.key)
        {
            return None;
        }
        match binding.kind {
            BindingKind::Challenge => {
                let confirm = Binding { kind: BindingKind::Confirm, ..binding };
                self.outputs.push_back(LegOutput::Datagram { to: from, bytes: confirm.encode(&self.key) });
            }
            BindingKind::Bound => {
                self.attempt = None;
                self.confirmed = Some(now.mono);
                self.announce();
            }
            BindingKind::Bind | BindingKind::Confirm => {}
        }
        None
    }

    /// Sends a packet of at most [`crate::limits::PACKET_BYTES_MAX`] bytes to the other end.
    pub fn send(&mut self, packet: &[u8]) {
        let Some(channel) = self.granted else { return };
        if self.announced.is_none()
            || self.ended
            || packet.is_empty()
            || packet.len() > crate::limits::PACKET_BYTES_MAX
        {
            return;
        }
        match (self.confirmed, self.relay) {
            (Some(_), Some(to)) => {
                self.outputs.push_back(LegOutput::Datagram { to, bytes: data(channel, packet) });
            }
            _ if self.link_lost.is_none() => {
                let frame = Control::Data { channel, packet: packet.to_vec() }.encode();
                self.outputs.push_back(LegOutput::Frame(frame));
            }
            _ => {}
        }
    }

    /// The link to the relay is up again, with new keying material: take the session up where it was.
    pub fn link_up(&mut self, now: Now, exporter: &[u8; 32], transport: Transport) {
        if self.ended {
            return;
        }
        self.key = BindKey::derive(exporter, self.token);
        self.transport = transport;
        self.link_lost = None;
        self.request(now.mono);
        if self.confirmed.is_some() && transport == Transport::Tls {
            // Whoever comes back over TLS has most likely lost UDP.
            self.fall_back();
        }
    }

    /// The link to the relay ended. Packets go on over a confirmed address for a while. True when that is news: the
    /// session wants a new link.
    pub fn link_down(&mut self, now: Now) -> bool {
        let news = !self.ended && self.link_lost.is_none();
        if news {
            self.link_lost = Some(now.mono);
        }
        news
    }

    /// Ends the session for both ends.
    pub fn close(&mut self, _now: Now) {
        if self.ended {
            return;
        }
        if self.link_lost.is_none() {
            let close = Control::Close { token: self.token, reason: Reason::Finished };
            self.outputs.push_back(LegOutput::Frame(close.encode()));
        }
        self.end(Reason::Finished);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        if self.ended {
            return;
        }
        if self.requested.is_some_and(|at| now >= at + REQUEST)
            || self.link_lost.is_some_and(|at| now >= at + LINK_LOST)
        {
            self.end(Reason::LinkLost);
            return;
        }
        if self.attempt.is_none() && self.confirmed.is_some_and(|at| now >= at + BIND_EVERY) {
            self.begin_attempt(now);
        }
        if let Some(attempt) = self.attempt {
            if self.confirmed.is_some() && now >= attempt.begun + BIND_LOST {
                self.fall_back();
            }
            if now >= attempt.next_send {
                self.send_bind(now, attempt);
            }
        }
        self.announce();
    }

    /// When to call [`Leg::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        [
            self.requested.map(|at| at + REQUEST),
            self.link_lost.map(|at| at + LINK_LOST),
            self.attempt.map(|attempt| attempt.next_send),
            // Without a link there is nothing to fall back to, so nothing to wake up for.
            self.attempt
                .filter(|_| self.confirmed.is_some() && self.link_lost.is_none())
                .map(|attempt| attempt.begun + BIND_LOST),
            self.confirmed.filter(|_| self.attempt.is_none()).map(|at| at + BIND_EVERY),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<LegOutput> {
        self.outputs.pop_front()
    }

    fn request(&mut self, now: Instant) {
        let control = match self.role {
            Role::Open { allow } => Control::Open { token: self.token, allow },
            Role::Join => Control::Join { token: self.token },
        };
        self.requested = Some(now);
        self.outputs.push_back(LegOutput::Frame(control.encode()));
    }

    fn begin_attempt(&mut self, now: Instant) {
        if self.relay.is_none() || self.granted.is_none() {
            return;
        }
        self.sequence += 1;
        let attempt = Attempt { begun: now, next_send: now, sent: 0 };
        self.send_bind(now, attempt);
    }

    fn send_bind(&mut self, now: Instant, attempt: Attempt) {
        let (Some(channel), Some(to)) = (self.granted, self.relay) else { return };
        let bind = Binding { kind: BindingKind::Bind, channel, sequence: self.sequence, cookie: [0; 16] };
        self.outputs.push_back(LegOutput::Datagram { to, bytes: bind.encode(&self.key) });
        let sent = attempt.sent.saturating_add(1);
        let pause = if sent < BIND_QUICK { BIND_RETRY } else { BIND_RETRY_SLOW };
        self.attempt = Some(Attempt { begun: attempt.begun, next_send: now + pause, sent });
    }

    /// The confirmed address has gone silent: tell the relay to use the link. Without a link there is nothing better.
    fn fall_back(&mut self) {
        if self.link_lost.is_some() {
            return;
        }
        self.confirmed = None;
        let state = Control::State {
            token: self.token,
            near: LegKind::of_link(self.transport),
            far: None,
            draining: false,
        };
        self.outputs.push_back(LegOutput::Frame(state.encode()));
    }

    fn near(&self) -> LegKind {
        if self.confirmed.is_some() { LegKind::Udp } else { LegKind::of_link(self.transport) }
    }

    /// Packets pass as soon as both ends are granted: over the link while no address is confirmed.
    fn announce(&mut self) {
        let (Some(far), Some(_), false) = (self.far, self.granted, self.ended) else { return };
        let kind = self.near().max(far);
        match self.announced {
            None => self.outputs.push_back(LegOutput::Up { kind }),
            Some(before) if before != kind => self.outputs.push_back(LegOutput::Changed { kind }),
            Some(_) => return,
        }
        self.announced = Some(kind);
    }

    fn end(&mut self, reason: Reason) {
        self.ended = true;
        self.outputs.push_back(LegOutput::Down(reason));
    }
}
