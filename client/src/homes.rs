//! The phone's homes: two attachments kept warm, found among the supernodes that the bulletin names.
//!
//! Contract: [`Homes::set_supernodes`] with every bulletin, [`Homes::handle_link`] with events of links for which
//! [`Homes::owns`] is true, [`Homes::handle_timeout`] at [`Homes::deadline`]; drain [`Homes::poll_output`] after each.
//! It opens and closes links by itself and hands every frame that is not about the attachment to the root.
//!
//! An attempt opens QUIC, and TLS 300 ms later unless QUIC was quicker; the first that is welcomed wins. A home is dead
//! when a ping stays unanswered, which is noticed long before the transport does. Attempts that fail wait with full
//! jitter, doubling, so that a thousand phones of one dead supernode do not return in step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::bulletin::SupernodeEntry;
use yodel_identity::credential::Credential;
use yodel_identity::limits::CLOCK_TOLERANCE;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_overlay::attach::{Hello, LinkRole, Ping, Pong, Refuse, RefuseReason, VERSION, Welcome};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkEvent, LinkId, LinkPeer, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now, UnixTime};

use crate::limits::{
    ATTACH, BACKOFF_FIRST, BACKOFF_MAX, HOMES_WARM, PING_ACTIVE, PING_IDLE, PONG_ACTIVE, PONG_IDLE,
    RELAY_LINKS_MAX, TLS_AFTER,
};

/// Numbers for links that this phone opens; shared by all parts of the root.
#[derive(Debug, Default)]
pub struct LinkIds(u64);

impl LinkIds {
    /// One that was not used before.
    pub fn draw(&mut self) -> LinkId {
        self.0 += 1;
        LinkId(self.0)
    }
}

/// What the homes want done or tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomesOutput {
    /// Open, write to or close a link.
    Link(LinkId, LinkAction),
    /// Attached: a home, or a relay asked for by [`Homes::want`], is warm.
    Up(NodeId),
    /// A warm home or relay is gone.
    Down(NodeId),
    /// This phone is seen at another address now.
    Observed(SocketAddr),
    /// A frame that is not about the attachment.
    Frame(NodeId, Frame),
    /// A home refused this phone, with why.
    Refused(RefuseReason),
}

/// A warm home, as others need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its node id.
    pub node: NodeId,
    /// Its credential, by the bulletin.
    pub credential: Credential,
    /// The address of its UDP socket.
    pub udp: Option<SocketAddr>,
    /// The address its link goes to.
    pub addr: SocketAddr,
    /// What carries the link.
    pub transport: Transport,
    /// Keying material of the link.
    pub exporter: [u8; 32],
    /// Round trip of the last answered ping.
    pub rtt: Duration,
}

#[derive(Debug)]
struct Supernode {
    credential: Credential,
    owner: Option<OwnerTag>,
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    failures: u32,
    not_before: Option<Instant>,
    order: u64,
}

#[derive(Debug)]
enum Stage {
    Opening,
    Greeted,
    Warm,
}

#[derive(Debug)]
struct Attachment {
    node: NodeId,
    transport: Transport,
    target: SocketAddr,
    stage: Stage,
    exporter: [u8; 32],
    began: Instant,
    rtt: Duration,
    ping: Option<(u64, Instant)>,
    next_ping: Instant,
    /// Counts up with every home that got warm: the first one carries signalling.
    seniority: u64,
    /// What the home's clock said in its welcome, and when that was.
    clock: Option<(UnixTime, Instant)>,
}

/// An attempt's next transport: TLS, to the supernode's n-th TCP address.
#[derive(Debug)]
struct Fallback {
    node: NodeId,
    at: Instant,
    tcp: usize,
}

/// See the module's text.
pub struct Homes {
    credential: Vec<u8>,
    supernodes: BTreeMap<NodeId, Supernode>,
    attachments: BTreeMap<LinkId, Attachment>,
    fallbacks: Vec<Fallback>,
    /// Supernodes attached to for a relay session only: not told to callers as homes.
    extras: BTreeSet<NodeId>,
    outputs: VecDeque<HomesOutput>,
    rng: ChaCha20Rng,
    active: bool,
    stopped: bool,
    seniority: u64,
    observed: Option<SocketAddr>,
    boot: [u8; 16],
    epoch: u64,
}

impl Homes {
    /// Without supernodes: nothing happens before [`set_supernodes`](Self::set_supernodes).
    pub fn new(credential: Vec<u8>, seed: [u8; 32]) -> Homes {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut boot = [0; 16];
        rng.fill_bytes(&mut boot);
        Homes {
            credential,
            supernodes: BTreeMap::new(),
            attachments: BTreeMap::new(),
            fallbacks: Vec::new(),
            extras: BTreeSet::new(),
            outputs: VecDeque::new(),
            rng,
            active: false,
            stopped: false,
            seniority: 0,
            observed: None,
            boot,
            epoch: 0,
        }
    }

    /// The credential shown to homes: to those that are warm at once, or they would let go when the old one ends.
    pub fn set_credential(&mut self, credential: Vec<u8>) {
        self.credential = credential;
        let hello = self.hello().encode();
        for (link, attachment) in &self.attachments {
            if matches!(attachment.stage, Stage::Warm) {
                self.outputs.push_back(HomesOutput::Link(*link, LinkAction::Write(hello.clone())));
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            credential: self.credential.clone(),
            role: LinkRole::Device,
            versions: (VERSION, VERSION),
            epoch: self.epoch,
            boot: self.boot,
        }
    }

    /// Who serves, by the newest bulletin. Homes that it no longer names are left.
    pub fn set_supernodes(&mut self, now: Now, epoch: u64, entries: &[SupernodeEntry], links: &mut LinkIds) {
        self.epoch = epoch;
        let mut next = BTreeMap::new();
        for entry in entries {
            let fields = entry.credential.fields();
            let old = self.supernodes.remove(&fields.node);
            let (failures, not_before, order) =
                old.map_or((0, None, self.rng.next_u64()), |old| (old.failures, old.not_before, old.order));
            next.insert(
                fields.node,
                Supernode {
                    credential: entry.credential.clone(),
                    owner: entry.credential.owner(),
                    udp: entry.udp.clone(),
                    tcp: entry.tcp.clone(),
                    failures,
                    not_before,
                    order,
                },
            );
        }
        self.supernodes = next;
        let gone: Vec<LinkId> = self
            .attachments
            .iter()
            .filter(|(_, a)| !self.supernodes.contains_key(&a.node))
            .map(|(link, _)| *link)
            .collect();
        for link in gone {
            self.drop_link(now, link, true);
        }
        self.fill(now, links);
    }

    /// While a call is set up or up, homes are pinged every second.
    pub fn set_active(&mut self, now: Now, active: bool) {
        if active && !self.active {
            for attachment in self.attachments.values_mut() {
                attachment.next_ping = attachment.next_ping.min(now.mono);
            }
        }
        self.active = active;
    }

    /// Leaves every home in order, and stays away.
    pub fn stop(&mut self, now: Now) {
        self.stopped = true;
        let links: Vec<LinkId> = self.attachments.keys().copied().collect();
        for link in links {
            self.drop_link(now, link, true);
        }
        self.fallbacks.clear();
    }

    /// Whether this link belongs to a home or an attempt at one.
    pub fn owns(&self, link: LinkId) -> bool {
        self.attachments.contains_key(&link)
    }

    /// The warm homes; the one that carries signalling first.
    pub fn warm(&self) -> Vec<Home> {
        let mut warm: Vec<&Attachment> =
            self.attachments.values().filter(|a| matches!(a.stage, Stage::Warm)).collect();
        warm.retain(|a| !self.extras.contains(&a.node));
        warm.sort_by_key(|a| a.seniority);
        warm.iter().filter_map(|a| self.describe(a)).collect()
    }

    /// Whether the clock is off by more than records allow, by the word of every warm home: one home may lie.
    pub fn clock_is_off(&self, now: Now) -> bool {
        let mut clocks = self.attachments.values().filter_map(|a| a.clock).peekable();
        clocks.peek().is_some()
            && clocks.all(|(told, at)| {
                let home = told + now.mono.since(at);
                now.unix.since(home).max(home.since(now.unix)) > CLOCK_TOLERANCE
            })
    }

    /// A warm home or relay.
    pub fn attached(&self, node: NodeId) -> Option<Home> {
        let found = self.attachments.values().find(|a| a.node == node && matches!(a.stage, Stage::Warm))?;
        self.describe(found)
    }

    fn describe(&self, attachment: &Attachment) -> Option<Home> {
        let supernode = self.supernodes.get(&attachment.node)?;
        Some(Home {
            node: attachment.node,
            credential: supernode.credential.clone(),
            udp: supernode.udp.first().copied(),
            addr: attachment.target,
            transport: attachment.transport,
            exporter: attachment.exporter,
            rtt: attachment.rtt,
        })
    }

    /// Attaches to this supernode besides the homes, for a relay session; false when the bulletin does not name it or
    /// too many are wanted already.
    pub fn want(&mut self, now: Now, node: NodeId, links: &mut LinkIds) -> bool {
        if self.is_busy(node) {
            return true;
        }
        if !self.supernodes.contains_key(&node) || self.extras.len() >= RELAY_LINKS_MAX {
            return false;
        }
        self.extras.insert(node);
        self.attempt(now, node, links);
        true
    }

    /// The relay session is over. A home stays; what was attached for the session alone is left.
    pub fn unwant(&mut self, now: Now, node: NodeId, links: &mut LinkIds) {
        if self.extras.remove(&node) {
            let open: Vec<LinkId> =
                self.attachments.iter().filter(|(_, a)| a.node == node).map(|(link, _)| *link).collect();
            for link in open {
                self.drop_link(now, link, true);
            }
            self.fallbacks.retain(|f| f.node != node);
            self.fill(now, links);
        }
    }

    /// A supernode that is known but not warm: where to go when both warm homes die.
    pub fn cold(&self) -> Option<(NodeId, SocketAddr)> {
        let mut cold: Vec<(&NodeId, &Supernode)> =
            self.supernodes.iter().filter(|(node, _)| !self.is_busy(**node)).collect();
        cold.sort_by_key(|(_, s)| (s.failures, s.order));
        cold.first().and_then(|(node, s)| s.udp.first().map(|addr| (**node, *addr)))
    }

    /// A supernode's key and addresses, for a link to it as relay.
    pub fn supernode(&self, node: NodeId) -> Option<(&Credential, &[SocketAddr], &[SocketAddr])> {
        self.supernodes.get(&node).map(|s| (&s.credential, s.udp.as_slice(), s.tcp.as_slice()))
    }

    /// Writes a frame to a warm home; false when it is not warm.
    pub fn write(&mut self, node: NodeId, frame: Frame) -> bool {
        let found = self.attachments.iter().find(|(_, a)| a.node == node && matches!(a.stage, Stage::Warm));
        let Some((link, _)) = found else { return false };
        self.outputs.push_back(HomesOutput::Link(*link, LinkAction::Write(frame)));
        true
    }

    /// Something happened on a link that [`owns`](Self::owns) claims.
    pub fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent, links: &mut LinkIds) {
        match event {
            LinkEvent::Opened(peer) => self.opened(now, link, &peer),
            LinkEvent::Frame(frame) => self.frame(now, link, frame),
            LinkEvent::Closed(_) => {
                self.drop_link(now, link, false);
            }
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

    fn frame(&mut self, now: Now, link: LinkId, frame: Frame) {
        let Some(attachment) = self.attachments.get_mut(&link) else { return };
        match (frame.kind, &attachment.stage) {
            (FrameKind::Welcome, Stage::Greeted) => match Welcome::decode(&frame.body) {
                Ok(welcome) => self.welcomed(now, link, &welcome),
                Err(_) => self.drop_link(now, link, true),
            },
            (FrameKind::Refuse, Stage::Greeted | Stage::Warm) => self.refused(now, link, &frame),
            (FrameKind::Goodbye, Stage::Greeted | Stage::Warm) => {
                let node = attachment.node;
                self.drop_link(now, link, true);
                // A home that leaves in order is not asked again at once.
                if let Some(supernode) = self.supernodes.get_mut(&node) {
                    supernode.not_before = Some(now.mono + BACKOFF_MAX);
                }
                if let Ok(Refuse {
                    reason: reason @ (RefuseReason::Credential | RefuseReason::Revoked),
                    ..
                }) = Refuse::decode(&frame.body)
                {
                    self.outputs.push_back(HomesOutput::Refused(reason));
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
            (_, Stage::Warm) => {
                let node = attachment.node;
                self.outputs.push_back(HomesOutput::Frame(node, frame));
            }
            // Nothing counts before the welcome.
            (_, Stage::Opening | Stage::Greeted) => {}
        }
    }

    fn welcomed(&mut self, now: Now, link: LinkId, welcome: &Welcome) {
        self.seniority += 1;
        let idle = self.ping_interval();
        // The second home is pinged half an interval after the first, so that one of them hears soon.
        let stagger = if self.warm().is_empty() { idle } else { idle / 2 };
        let Some(attachment) = self.attachments.get_mut(&link) else { return };
        let (node, transport) = (attachment.node, attachment.transport);
        attachment.stage = Stage::Warm;
        attachment.seniority = self.seniority;
        attachment.clock = Some((welcome.time, now.mono));
        attachment.next_ping = now.mono + stagger;
        if let Some(supernode) = self.supernodes.get_mut(&node) {
            supernode.failures = 0;
            supernode.not_before = None;
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
        self.outputs.push_back(HomesOutput::Up(node));
    }

    fn refused(&mut self, now: Now, link: LinkId, frame: &Frame) {
        let node = self.attachments.get(&link).map(|a| a.node);
        self.drop_link(now, link, true);
        if let (Some(node), Ok(refuse)) = (node, Refuse::decode(&frame.body)) {
            self.fallbacks.retain(|f| f.node != node);
            if let Some(supernode) = self.supernodes.get_mut(&node) {
                let at = now.mono + refuse.come_back.min(BACKOFF_MAX);
                supernode.not_before = Some(supernode.not_before.map_or(at, |t| t.max(at)));
            }
            self.outputs.push_back(HomesOutput::Refused(refuse.reason));
        }
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

    /// What was due by now: fallbacks, pings, pings unanswered, attempts that took too long.
    pub fn handle_timeout(&mut self, now: Now, links: &mut LinkIds) {
        let due: Vec<Fallback> = {
            let (due, later) =
                std::mem::take(&mut self.fallbacks).into_iter().partition(|f| f.at <= now.mono);
            self.fallbacks = later;
            due
        };
        for fallback in due {
            self.fall_back(now, &fallback, links);
        }
        let patience = if self.active { PONG_ACTIVE } else { PONG_IDLE };
        let late: Vec<LinkId> = self
            .attachments
            .iter()
            .filter(|(_, a)| match a.stage {
                Stage::Opening | Stage::Greeted => now.mono.since(a.began) >= ATTACH,
                Stage::Warm => a.ping.is_some_and(|(_, sent)| now.mono.since(sent) >= patience),
            })
            .map(|(link, _)| *link)
            .collect();
        for link in late {
            self.drop_link(now, link, true);
        }
        let interval = self.ping_interval();
        for (link, attachment) in &mut self.attachments {
            if matches!(attachment.stage, Stage::Warm) && attachment.next_ping <= now.mono {
                attachment.next_ping = now.mono + interval;
                if attachment.ping.is_none() {
                    let nonce = self.rng.next_u64();
                    attachment.ping = Some((nonce, now.mono));
                    let ping = Ping { nonce }.encode();
                    self.outputs.push_back(HomesOutput::Link(*link, LinkAction::Write(ping)));
                }
            }
        }
        self.fill(now, links);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let patience = if self.active { PONG_ACTIVE } else { PONG_IDLE };
        let links = self.attachments.values().map(|a| match a.stage {
            Stage::Opening | Stage::Greeted => a.began + ATTACH,
            Stage::Warm => a.ping.map_or(a.next_ping, |(_, sent)| a.next_ping.min(sent + patience)),
        });
        let fallbacks = self.fallbacks.iter().map(|f| f.at);
        let returns = (self.wanted() > 0)
            .then(|| {
                self.supernodes
                    .iter()
                    .filter(|(n, _)| !self.is_busy(**n))
                    .filter_map(|(_, s)| s.not_before)
                    .min()
            })
            .flatten();
        links.chain(fallbacks).chain(returns).min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<HomesOutput> {
        self.outputs.pop_front()
    }

    fn ping_interval(&self) -> Duration {
        if self.active { PING_ACTIVE } else { PING_IDLE }
    }

    fn is_busy(&self, node: NodeId) -> bool {
        self.attachments.values().any(|a| a.node == node) || self.fallbacks.iter().any(|f| f.node == node)
    }

    /// How many more supernodes should be warm or tried.
    fn wanted(&self) -> usize {
        let mut busy: Vec<NodeId> = self.attachments.values().map(|a| a.node).collect();
        busy.extend(self.fallbacks.iter().map(|f| f.node));
        busy.retain(|node| !self.extras.contains(node));
        busy.sort_unstable();
        busy.dedup();
        HOMES_WARM.saturating_sub(busy.len())
    }

    fn fill(&mut self, now: Now, links: &mut LinkIds) {
        while !self.stopped && self.wanted() > 0 {
            // A relay that is warm already makes a home at no cost.
            let ready = self.extras.iter().copied().find(|node| self.attached(*node).is_some());
            if let Some(node) = ready {
                self.extras.remove(&node);
                self.outputs.push_back(HomesOutput::Up(node));
                continue;
            }
            let taken: Vec<OwnerTag> = self
                .attachments
                .values()
                .filter_map(|a| self.supernodes.get(&a.node).and_then(|s| s.owner))
                .collect();
            let choice = self
                .supernodes
                .iter()
                .filter(|(node, s)| !self.is_busy(**node) && s.not_before.is_none_or(|t| t <= now.mono))
                .min_by_key(|(_, s)| (s.owner.is_some_and(|o| taken.contains(&o)), s.failures, s.order))
                .map(|(node, _)| *node);
            let Some(node) = choice else { return };
            self.attempt(now, node, links);
        }
    }

    fn attempt(&mut self, now: Now, node: NodeId, links: &mut LinkIds) {
        let shut = self.udp_seems_shut();
        let Some(supernode) = self.supernodes.get_mut(&node) else { return };
        supernode.not_before = None;
        let (udp, has_tcp) = (supernode.udp.first().copied(), !supernode.tcp.is_empty());
        let at = if udp.is_some() && !shut { now.mono + TLS_AFTER } else { now.mono };
        if has_tcp {
            self.fallbacks.push(Fallback { node, at, tcp: 0 });
        }
        match udp {
            Some(addr) => self.open(now, node, Transport::Quic, addr, links),
            None if has_tcp => {}
            None => self.failed(now, node),
        }
    }

    /// Whether all that is warm came over TLS: then TLS is tried at once, for a call may wait for a relay.
    fn udp_seems_shut(&self) -> bool {
        let mut warm = self.attachments.values().filter(|a| matches!(a.stage, Stage::Warm)).peekable();
        warm.peek().is_some() && warm.all(|a| a.transport == Transport::Tls)
    }

    /// Tries TLS beside a QUIC that did not answer yet; and the next port when this one is shut.
    fn fall_back(&mut self, now: Now, fallback: &Fallback, links: &mut LinkIds) {
        let node = fallback.node;
        if self.attachments.values().any(|a| a.node == node && !matches!(a.stage, Stage::Opening)) {
            return;
        }
        let Some(supernode) = self.supernodes.get(&node) else { return };
        let Some(addr) = supernode.tcp.get(fallback.tcp).copied() else { return };
        let more = fallback.tcp + 1 < supernode.tcp.len();
        self.open(now, node, Transport::Tls, addr, links);
        if more {
            let at = now.mono + TLS_AFTER * 4;
            self.fallbacks.push(Fallback { node, at, tcp: fallback.tcp + 1 });
        }
    }

    fn open(&mut self, now: Now, node: NodeId, transport: Transport, addr: SocketAddr, links: &mut LinkIds) {
        let Some(supernode) = self.supernodes.get(&node) else { return };
        let link = links.draw();
        let target = LinkTarget { addr, transport, key: Some(supernode.credential.fields().key.0) };
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

    fn drop_link(&mut self, now: Now, link: LinkId, close: bool) {
        let Some(attachment) = self.attachments.remove(&link) else { return };
        if close {
            self.outputs.push_back(HomesOutput::Link(link, LinkAction::Close));
        }
        let node = attachment.node;
        if matches!(attachment.stage, Stage::Warm) {
            self.outputs.push_back(HomesOutput::Down(node));
        }
        if !self.is_busy(node) {
            self.extras.remove(&node);
            self.failed(now, node);
        }
    }

    fn failed(&mut self, now: Now, node: NodeId) {
        let draw = self.rng.next_u64();
        let Some(supernode) = self.supernodes.get_mut(&node) else { return };
        let longest = BACKOFF_FIRST.saturating_mul(1 << supernode.failures.min(4)).min(BACKOFF_MAX);
        supernode.failures = supernode.failures.saturating_add(1);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).max(1);
        supernode.not_before = Some(now.mono + Duration::from_micros(draw % micros));
    }
}
