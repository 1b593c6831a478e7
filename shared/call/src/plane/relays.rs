//! The relay sessions of one leg: opened at our homes by the caller, joined by the callee, replaced when one dies.

use yodel_identity::node::NodeId;
use yodel_nat::{RelayKind, RelayRef, Route};
use yodel_relay::control::{LegKind, Reason, Token};
use yodel_relay::leg::{Leg as RelayLeg, LegConfig, LegOutput};
use yodel_wire::frame::Frame;
use yodel_wire::time::{Instant, Now};

use std::net::SocketAddr;

use super::{Plane, PlaneEvent};
use crate::device::Device;
use crate::event::{CallsOutput, RelayLink};
use crate::limits::{RELAY_JOIN_PAUSE, RELAY_JOINS_MAX, RELAY_LEAVE, RELAYS_MAX};

pub(super) struct RelaySession {
    pub(super) node: NodeId,
    pub(super) token: Token,
    pub(super) by_us: bool,
    pub(super) told: bool,
    pub(super) joins: u32,
    pub(super) retry_at: Option<Instant>,
    /// It drains: closed then, if nothing goes over it any more.
    pub(super) leave_at: Option<Instant>,
    pub(super) way: RelayWay,
}

pub(super) enum RelayWay {
    /// A link is being opened.
    Waiting,
    Leg(Box<RelayLeg>),
    Down,
}

impl Plane {
    /// The caller's: opens a session at the first home that has none yet and was not tried.
    pub(crate) fn open_relay(&mut self, now: Now, device: &mut Device) {
        if self.relays.len() >= RELAYS_MAX || self.closed || self.leaving {
            return;
        }
        let tried = |node: NodeId| self.relays.values().any(|relay| relay.node == node);
        let Some((node, link)) =
            device.homes.iter().map(|home| (home.credential.node, home.link)).find(|(node, _)| !tried(*node))
        else {
            return;
        };
        let token = Token(device.tag().0);
        let mut leg = RelayLeg::open(now, config(link), token, self.callee);
        // The request must be on the link before the INVITE that names the session: whoever answers at once, as an
        // echo does, would find none.
        drain_relay(node, &mut leg, device, |_| ());
        self.insert_relay(node, token, true, RelayWay::Leg(Box::new(leg)));
    }

    pub(super) fn join(&mut self, now: Now, device: &mut Device, node: NodeId, token: Token) {
        let known = self.relays.values().any(|relay| relay.token == token);
        if known || self.relays.len() >= RELAYS_MAX || self.closed || self.leaving {
            return;
        }
        // The address comes from the bulletin or a verified card, never from the peer.
        let way = if let Some(link) = device.relay_link(node) {
            RelayWay::Leg(Box::new(RelayLeg::join(now, config(link), token)))
        } else {
            device.out.push_back(CallsOutput::RelayLinkWanted(node));
            RelayWay::Waiting
        };
        self.insert_relay(node, token, false, way);
    }

    fn insert_relay(&mut self, node: NodeId, token: Token, by_us: bool, way: RelayWay) {
        let (retry_at, leave_at) = (None, None);
        let relay = RelaySession { node, token, by_us, told: false, joins: 1, retry_at, leave_at, way };
        self.relays.insert(RelayRef(self.next_relay), relay);
        self.next_relay += 1;
        self.events.push_back(PlaneEvent::RelayAsked(node));
    }

    /// The link to a supernode is up, or gone. True when a session there waits for a new one.
    pub(crate) fn relay_link(&mut self, now: Now, node: NodeId, link: Option<RelayLink>) -> bool {
        let mut waits = false;
        for relay in self.relays.values_mut().filter(|relay| relay.node == node) {
            match (&mut relay.way, link) {
                (RelayWay::Waiting, Some(link)) => {
                    relay.way = RelayWay::Leg(Box::new(RelayLeg::join(now, config(link), relay.token)));
                }
                (RelayWay::Leg(leg), Some(link)) => leg.link_up(now, &link.exporter, link.transport),
                (RelayWay::Leg(leg), None) => waits |= leg.link_down(now),
                (RelayWay::Waiting, None) => {
                    relay.way = RelayWay::Down;
                    self.events.push_back(PlaneEvent::RelayDown("the supernode cannot be reached"));
                }
                (RelayWay::Down, _) => {}
            }
        }
        waits
    }

    /// A home that may carry a session of ours is gone: another is opened before the packets stop.
    pub(crate) fn home_gone(&mut self, now: Now, device: &mut Device, node: NodeId) {
        let ours =
            |relay: &RelaySession| relay.by_us && relay.node == node && !matches!(relay.way, RelayWay::Down);
        if self.relays.values().any(ours) {
            self.move_relay(now, device);
        }
    }

    /// The path is deaf: another relay session is opened, if the path is one.
    pub(crate) fn relay_deaf(&mut self, now: Now, device: &mut Device) {
        if self.path.is_some_and(|path| path.kind.is_relay()) {
            self.move_relay(now, device);
        }
    }

    pub(crate) fn uses_relay(&self, node: NodeId) -> bool {
        self.relays
            .values()
            .any(|relay| relay.node == node && matches!(relay.way, RelayWay::Waiting | RelayWay::Leg(_)))
    }

    pub(crate) fn handle_relay_frame(&mut self, now: Now, node: NodeId, frame: &Frame) {
        let mut packets = Vec::new();
        for (at, relay) in &mut self.relays {
            if relay.node == node
                && let RelayWay::Leg(leg) = &mut relay.way
                && let Some(packet) = leg.handle_frame(now, frame)
            {
                packets.push((*at, packet));
            }
        }
        for (at, packet) in packets {
            self.handle_packet(now, Route::Relay(at), &packet);
        }
    }

    pub(crate) fn handle_relay_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> bool {
        let mut mine = false;
        let mut packet = None;
        for (at, relay) in &mut self.relays {
            if let RelayWay::Leg(leg) = &mut relay.way
                && leg.relay() == Some(from)
            {
                mine = true;
                if let Some(inner) = leg.handle_datagram(now, from, datagram) {
                    packet = Some((*at, inner.to_vec()));
                    break;
                }
            }
        }
        if let Some((at, packet)) = packet {
            self.handle_packet(now, Route::Relay(at), &packet);
        }
        mine
    }

    pub(super) fn step_relays(&mut self, now: Now, device: &mut Device) -> bool {
        let mut news = Vec::new();
        for (at, relay) in &mut self.relays {
            if let RelayWay::Leg(leg) = &mut relay.way {
                drain_relay(relay.node, leg, device, |output| news.push((*at, output)));
            }
        }
        let moved = !news.is_empty();
        for (at, output) in news {
            match output {
                LegNews::Up(kind) => {
                    self.agent.add_relay(now, at, relay_kind(kind));
                    self.events.push_back(PlaneEvent::RelayUp);
                }
                LegNews::Changed(kind) => self.agent.add_relay(now, at, relay_kind(kind)),
                LegNews::Draining => {
                    self.agent.leave_relay(now, at);
                    if let Some(relay) = self.relays.get_mut(&at).filter(|relay| relay.by_us) {
                        relay.leave_at = Some(now.mono + RELAY_LEAVE);
                    }
                    self.move_relay(now, device);
                }
                LegNews::Down(reason) => self.relay_down(now, device, at, reason),
            }
        }
        moved
    }

    fn relay_down(&mut self, now: Now, device: &mut Device, at: RelayRef, reason: Reason) {
        self.agent.remove_relay(now, at);
        let Some(relay) = self.relays.get_mut(&at) else { return };
        relay.way = RelayWay::Down;
        if !relay.by_us && reason == Reason::NoSession && relay.joins < RELAY_JOINS_MAX {
            relay.retry_at = Some(now.mono + RELAY_JOIN_PAUSE);
            return;
        }
        self.events.push_back(PlaneEvent::RelayDown(reason_text(reason)));
        if reason == Reason::Finished {
            return;
        }
        self.refused = Some(reason);
        if relay.by_us {
            self.move_relay(now, device);
        }
    }

    /// Sessions at relays that drain are closed as soon as the packets go another way.
    pub(super) fn leave_relays(&mut self, now: Now) {
        let used = self.path.map(|path| path.route);
        for (at, relay) in &mut self.relays {
            if relay.leave_at.take_if(|due| *due <= now.mono).is_none() {
                continue;
            }
            if used == Some(Route::Relay(*at)) || used.is_none() {
                relay.leave_at = Some(now.mono + RELAY_LEAVE);
            } else if let RelayWay::Leg(leg) = &mut relay.way {
                self.agent.remove_relay(now, *at);
                leg.close(now);
            }
        }
    }

    /// Another session at another home; the peer is told.
    fn move_relay(&mut self, now: Now, device: &mut Device) {
        if self.caller {
            let before = self.relays.len();
            self.open_relay(now, device);
            if self.relays.len() > before {
                self.events.push_back(PlaneEvent::News);
            }
        }
    }
}

pub(super) enum LegNews {
    Up(LegKind),
    Changed(LegKind),
    Draining,
    Down(Reason),
}

pub(super) fn drain_relay(
    node: NodeId,
    leg: &mut RelayLeg,
    device: &mut Device,
    mut news: impl FnMut(LegNews),
) {
    while let Some(output) = leg.poll_output() {
        match output {
            LegOutput::Frame(frame) => device.out.push_back(CallsOutput::RelayFrame { relay: node, frame }),
            LegOutput::Datagram { to, bytes } => device.out.push_back(CallsOutput::Datagram { to, bytes }),
            LegOutput::Up { kind } => news(LegNews::Up(kind)),
            LegOutput::Changed { kind } => news(LegNews::Changed(kind)),
            LegOutput::Draining => news(LegNews::Draining),
            LegOutput::Down(reason) => news(LegNews::Down(reason)),
        }
    }
}

pub(super) fn config(link: RelayLink) -> LegConfig {
    LegConfig { relay: link.udp, exporter: link.exporter, transport: link.transport }
}

fn relay_kind(kind: LegKind) -> RelayKind {
    match kind {
        LegKind::Udp => RelayKind::Udp,
        LegKind::Tcp => RelayKind::Tcp,
    }
}

/// Why there is no relay session, for the timeline.
pub(crate) fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Finished => "it was closed",
        Reason::Quota => "quota used up",
        Reason::NoSession => "no such session",
        Reason::Expired => "nobody came",
        Reason::Draining => "the supernode drains",
        Reason::Revoked => "a credential was revoked",
        Reason::TokenInUse => "its token was taken",
        Reason::LinkLost => "the supernode did not answer",
    }
}
