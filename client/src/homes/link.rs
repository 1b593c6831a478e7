//! One attachment after the other: opening links, the first frames, and what a home says about going elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::attach::{Hello, LinkRole, Ping, Pong, Refuse, RefuseReason, VERSION, Welcome};
use yodel_overlay::card::decode_cards;
use yodel_relay::bucket::Bucket;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkEvent, LinkId, LinkPeer, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now, UnixTime};

use super::{Homes, HomesOutput, LinkIds};
use crate::limits::{BACKOFF_MAX, CARDS_BURST, CARDS_PER_S, REDIRECTS_MAX, TLS_AFTER};

#[derive(Debug)]
pub(super) enum Stage {
    Opening,
    Greeted,
    Warm,
}

#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) node: NodeId,
    pub(super) transport: Transport,
    pub(super) target: SocketAddr,
    pub(super) stage: Stage,
    pub(super) exporter: [u8; 32],
    pub(super) began: Instant,
    pub(super) rtt: Duration,
    pub(super) ping: Option<(u64, Instant)>,
    pub(super) next_ping: Instant,
    /// Counts up with every home that got warm: the first one carries signalling.
    pub(super) seniority: u64,
    /// What the home's clock said in its welcome, and when that was.
    pub(super) clock: Option<(UnixTime, Instant)>,
}

/// An attempt's next transport: TLS, to the supernode's n-th TCP address.
#[derive(Debug)]
pub(super) struct Fallback {
    pub(super) node: NodeId,
    pub(super) at: Instant,
    tcp: usize,
}

impl Homes {
    pub(super) fn hello(&self) -> Hello {
        Hello {
            credential: self.credential.clone(),
            role: LinkRole::Device,
            versions: (VERSION, VERSION),
            epoch: self.epoch,
            boot: self.boot,
            announcement: None,
        }
    }

    /// Something happened on a link that [`owns`](Self::owns) claims.
    pub fn handle_link(
        &mut self,
        now: Now,
        realm: &Realm,
        link: LinkId,
        event: LinkEvent,
        links: &mut LinkIds,
    ) {
        match event {
            LinkEvent::Opened(peer) => self.opened(now, link, &peer),
            LinkEvent::Frame(frame) => self.frame(now, realm, link, frame, links),
            LinkEvent::Closed(_) => self.drop_link(now, link, false),
        }
        self.fill(now, links);
    }

    fn opened(&mut self, now: Now, link: LinkId, peer: &LinkPeer) {
        let hello = self.hello();
        let Some(attachment) = self.attachments.get_mut(&link) else { return };
        attachment.stage = Stage::Greeted;
        attachment.exporter = peer.exporter;
        attachment.rtt = now.mono.since(attachment.began);
        self.outputs.push_back(HomesOutput::Link(link, LinkAction::Write(hello.encode())));
    }

    fn frame(&mut self, now: Now, realm: &Realm, link: LinkId, frame: Frame, links: &mut LinkIds) {
        let Some(attachment) = self.attachments.get_mut(&link) else { return };
        let node = attachment.node;
        match (frame.kind, &attachment.stage) {
            (FrameKind::Welcome, Stage::Greeted) => match Welcome::decode(&frame.body) {
                Ok(welcome) => self.welcomed(now, link, &welcome),
                Err(_) => self.drop_link(now, link, true),
            },
            (FrameKind::Refuse | FrameKind::Goodbye, Stage::Greeted | Stage::Warm) => {
                match Refuse::decode(&frame.body) {
                    Ok(refuse) => self.refused(now, realm, link, frame.kind, &refuse, links),
                    Err(_) => self.drop_link(now, link, true),
                }
            }
            (FrameKind::Ping, Stage::Warm) => {
                if let Ok(ping) = Ping::decode(&frame.body) {
                    let pong = Pong { nonce: ping.nonce, observed: attachment.target };
                    self.outputs.push_back(HomesOutput::Link(link, LinkAction::Write(pong.encode())));
                }
            }
            (FrameKind::Pong, Stage::Warm) => {
                let Ok(pong) = Pong::decode(&frame.body) else { return };
                if let Some((nonce, sent)) = attachment.ping
                    && nonce == pong.nonce
                {
                    attachment.ping = None;
                    attachment.rtt = now.mono.since(sent);
                }
                let transport = attachment.transport;
                self.observe(transport, Some(pong.observed));
            }
            (FrameKind::Cards, Stage::Warm) => self.learn(now, realm, &frame.body, links),
            (_, Stage::Warm) => self.outputs.push_back(HomesOutput::Frame(node, frame)),
            // Nothing counts before the welcome.
            (_, Stage::Opening | Stage::Greeted) => {}
        }
    }

    fn welcomed(&mut self, now: Now, link: LinkId, welcome: &Welcome) {
        self.seniority += 1;
        self.redirects = 0;
        let idle = self.ping_interval();
        // The second home is pinged half an interval after the first, so that one of them hears soon.
        let stagger = if self.warm().is_empty() { idle } else { idle / 2 };
        let Some(attachment) = self.attachments.get_mut(&link) else { return };
        let (node, transport) = (attachment.node, attachment.transport);
        attachment.stage = Stage::Warm;
        attachment.seniority = self.seniority;
        attachment.clock = Some((welcome.time, now.mono));
        attachment.next_ping = now.mono + stagger;
        if let Some(host) = self.hosts.get_mut(node) {
            host.failures = 0;
            host.not_before = None;
        }
        self.fallbacks.retain(|f| f.node != node);
        let losers: Vec<LinkId> = self
            .attachments
            .iter()
            .filter(|(other, a)| **other != link && a.node == node)
            .map(|(other, _)| *other)
            .collect();
        for loser in losers {
            self.attachments.remove(&loser);
            self.outputs.push_back(HomesOutput::Link(loser, LinkAction::Close));
        }
        self.observe(transport, Some(welcome.observed));
        if let Some(switch) = self.switch.filter(|switch| switch.to == node) {
            self.switch = None;
            self.leave(now, switch.from);
        }
        self.outputs.push_back(HomesOutput::Up(node));
    }

    /// Refused, or told to go: who is sent elsewhere goes there, and it is no failure.
    fn refused(
        &mut self,
        now: Now,
        realm: &Realm,
        link: LinkId,
        kind: FrameKind,
        refuse: &Refuse,
        links: &mut LinkIds,
    ) {
        let Some(node) = self.attachments.get(&link).map(|attachment| attachment.node) else { return };
        let reason = refuse.reason;
        if matches!(reason, RefuseReason::Full | RefuseReason::Draining) {
            let wanted_as_relay = self.extras.contains(&node);
            self.end_link(now, link, true, false);
            self.fallbacks.retain(|f| f.node != node);
            self.hosts.wait(now.mono, node, refuse.come_back, &mut self.rng);
            if !wanted_as_relay {
                self.redirected(now, realm, refuse, links);
            }
        } else {
            self.drop_link(now, link, true);
            self.fallbacks.retain(|f| f.node != node);
            // A home that ends what it granted is not asked again at once.
            let pause = if kind == FrameKind::Goodbye { BACKOFF_MAX } else { refuse.come_back };
            if !pause.is_zero() {
                self.hosts.wait(now.mono, node, pause, &mut self.rng);
            }
        }
        let is_ours = matches!(reason, RefuseReason::Credential | RefuseReason::Revoked);
        if kind == FrameKind::Refuse || is_ours {
            self.outputs.push_back(HomesOutput::Refused(reason));
        }
    }

    fn redirected(&mut self, now: Now, realm: &Realm, refuse: &Refuse, links: &mut LinkIds) {
        if self.redirects >= REDIRECTS_MAX {
            return;
        }
        let carded = refuse.card.as_ref().and_then(|card| self.learn_one(now, realm, card));
        let Some(to) = carded.or(refuse.redirect) else { return };
        let free = self.hosts.get(to).is_some_and(|host| host.may_be_tried(now.mono));
        if free && !self.is_busy(to) && self.wanted() > 0 && !self.stopped {
            self.redirects += 1;
            self.attempt(now, to, links);
        }
    }

    /// A home hands over cards.
    fn learn(&mut self, now: Now, realm: &Realm, body: &[u8], links: &mut LinkIds) {
        let Ok(cards) = decode_cards(body) else { return };
        let known = self.hosts.iter().count();
        let nodes: Vec<NodeId> =
            cards.into_iter().filter_map(|card| self.learn_one(now, realm, card)).collect();
        for node in nodes {
            if self.wants.remove(&node).is_some() && self.hosts.get(node).is_some() {
                self.extras.insert(node);
                self.attempt(now, node, links);
            }
        }
        let in_use = self.in_use();
        self.hosts.sweep(now.unix, realm, &in_use);
        if self.hosts.iter().count() > known {
            self.measure_soon(now);
        }
    }

    fn learn_one(&mut self, now: Now, realm: &Realm, card: &[u8]) -> Option<NodeId> {
        let budget = self.cards.get_or_insert_with(|| Bucket::new(now.mono, CARDS_PER_S, CARDS_BURST));
        self.hosts.learn(now, realm, card, || budget.take(now.mono, 1), &mut self.rng)
    }

    /// Only what a home saw of UDP tells where the one UDP socket is seen.
    fn observe(&mut self, transport: Transport, observed: Option<SocketAddr>) {
        if let (Transport::Quic, Some(addr)) = (transport, observed)
            && self.observed != Some(addr)
        {
            self.observed = Some(addr);
            self.outputs.push_back(HomesOutput::Observed(addr));
        }
    }

    pub(super) fn attempt(&mut self, now: Now, node: NodeId, links: &mut LinkIds) {
        let shut = self.udp_seems_shut();
        let Some(host) = self.hosts.get_mut(node) else { return };
        host.not_before = None;
        host.is_full = false;
        // A nearer home that UDP does not reach is none.
        let is_switch = self.switch.is_some_and(|switch| switch.to == node);
        let (udp, has_tcp) = (host.udp_addr(), !host.tcp.is_empty() && !is_switch);
        let at = if udp.is_some() && !shut && !host.silent { now.mono + TLS_AFTER } else { now.mono };
        if has_tcp {
            self.fallbacks.push(Fallback { node, at, tcp: 0 });
        }
        match udp {
            Some(addr) => self.open(now, node, Transport::Quic, addr, links),
            None if has_tcp => {}
            None => self.hosts.failed(now.mono, node, &mut self.rng),
        }
    }

    /// Whether all that is warm came over TLS: then TLS is tried at once, for a call may wait for a relay.
    fn udp_seems_shut(&self) -> bool {
        let mut warm = self.attachments.values().filter(|a| matches!(a.stage, Stage::Warm)).peekable();
        warm.peek().is_some() && warm.all(|a| a.transport == Transport::Tls)
    }

    /// Tries TLS beside a QUIC that did not answer yet; and the next port when this one is shut.
    pub(super) fn fall_back(&mut self, now: Now, fallback: &Fallback, links: &mut LinkIds) {
        let node = fallback.node;
        if self.attachments.values().any(|a| a.node == node && !matches!(a.stage, Stage::Opening)) {
            return;
        }
        let Some(host) = self.hosts.get(node) else { return };
        let Some(addr) = host.tcp.get(fallback.tcp).copied() else { return };
        let more = fallback.tcp + 1 < host.tcp.len();
        self.open(now, node, Transport::Tls, addr, links);
        if more {
            let at = now.mono + TLS_AFTER * 4;
            self.fallbacks.push(Fallback { node, at, tcp: fallback.tcp + 1 });
        }
    }

    fn open(&mut self, now: Now, node: NodeId, transport: Transport, addr: SocketAddr, links: &mut LinkIds) {
        let Some(host) = self.hosts.get(node) else { return };
        let link = links.draw();
        let target = LinkTarget { addr, transport, key: Some(host.credential.fields().key.0) };
        self.attachments.insert(
            link,
            Attachment {
                node,
                transport,
                target: addr,
                stage: Stage::Opening,
                exporter: [0; 32],
                began: now.mono,
                rtt: Duration::ZERO,
                ping: None,
                next_ping: now.mono,
                seniority: 0,
                clock: None,
            },
        );
        self.outputs.push_back(HomesOutput::Link(link, LinkAction::Open(target)));
    }

    /// Ends an attachment in order, for its own good reasons.
    pub(super) fn leave(&mut self, now: Now, node: NodeId) {
        self.end_all(now, node, false);
    }

    /// Ends attempts that will not succeed.
    pub(super) fn give_up(&mut self, now: Now, node: NodeId) {
        self.end_all(now, node, true);
    }

    fn end_all(&mut self, now: Now, node: NodeId, failed: bool) {
        let open: Vec<LinkId> =
            self.attachments.iter().filter(|(_, a)| a.node == node).map(|(link, _)| *link).collect();
        self.fallbacks.retain(|f| f.node != node);
        for link in open {
            self.end_link(now, link, true, failed);
        }
    }

    /// A link failed, or its home did.
    pub(super) fn drop_link(&mut self, now: Now, link: LinkId, close: bool) {
        self.end_link(now, link, close, true);
    }

    fn end_link(&mut self, now: Now, link: LinkId, close: bool, failed: bool) {
        let Some(attachment) = self.attachments.remove(&link) else { return };
        if close {
            self.outputs.push_back(HomesOutput::Link(link, LinkAction::Close));
        }
        let node = attachment.node;
        let was_warm = matches!(attachment.stage, Stage::Warm);
        let mut is_lost = was_warm;
        if !self.is_busy(node) {
            // Who waits for a relay hears that it does not come.
            is_lost |= self.extras.remove(&node);
            if self.switch.is_some_and(|switch| switch.to == node || switch.from == node) {
                self.switch = None;
            }
            if failed {
                self.alarmed |= was_warm;
                self.hosts.failed(now.mono, node, &mut self.rng);
            }
        }
        if is_lost {
            self.outputs.push_back(HomesOutput::Down(node));
        }
    }
}
