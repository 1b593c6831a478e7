//! The phone's homes: two attachments kept warm, found among the supernodes that the bulletin names and those whose cards
//! it got.
//!
//! Contract: [`Homes::load_card`] with what an earlier start kept, [`Homes::set_bulletin`] with every bulletin,
//! [`Homes::handle_link`] with events of links for which [`Homes::owns`] is true, [`Homes::handle_stun`] with answers
//! that nobody else claims, [`Homes::handle_timeout`] at [`Homes::deadline`]; after each drain [`Homes::poll_output`] and
//! store [`Homes::take_writes`]. It opens and closes links by itself and hands every frame that is not about the
//! attachment to the root.
//!
//! Up to eight supernodes are probed, the nearest two of different owners become homes, and the next is known, cold, for
//! when one of them dies (DESIGN §4, Nearness). An attempt opens QUIC, and TLS 300 ms later unless QUIC was quicker; the
//! first that is welcomed wins. A home is dead when a ping stays unanswered, which is noticed long before the transport
//! does. Who is sent elsewhere by a full or leaving home goes there; that is no failure. Attempts that fail wait with
//! full jitter, doubling, so that a thousand phones of one dead supernode do not return in step.
//!
//! `hosts.rs` knows supernodes, `probe.rs` measures them, `choice.rs` chooses, `seek.rs` fills what is missing, `link.rs`
//! attaches.

mod choice;
mod hosts;
mod link;
mod probe;
mod seek;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::bulletin::SupernodeEntry;
use yodel_identity::credential::Credential;
use yodel_identity::limits::CLOCK_TOLERANCE;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::Realm;
use yodel_overlay::attach::{Ping, RefuseReason};
use yodel_overlay::card::CardsWanted;
use yodel_relay::bucket::Bucket;
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkAction, LinkId, Transport, Write};
use yodel_wire::time::{Instant, Now};

pub use self::hosts::HOSTS;
use self::hosts::{Host, Hosts, Probed};
use self::link::{Attachment, Fallback, Stage};
use self::probe::{Answered, Prober};
use crate::limits::{
    ATTACH, CARD_WANTED, CREDENTIAL_RENEWAL, HOMES_WARM, LOOKUP_SECOND_WAY, PING_ACTIVE, PING_IDLE,
    PONG_ACTIVE, PONG_IDLE, PROBE_PATIENCE, PROBE_PAUSE, RELAY_LINKS_MAX,
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
    /// Send this from the one socket.
    Datagram {
        /// A supernode.
        to: SocketAddr,
        /// A probe.
        bytes: Vec<u8>,
    },
    /// Attached: a home, or a relay asked for by [`Homes::want`], is warm.
    Up(NodeId),
    /// A warm home or relay is gone, or a relay asked for could not be attached to.
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
    /// Its credential.
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

/// A relay that nobody here knows: homes are asked for its card.
#[derive(Debug)]
struct Want {
    since: Instant,
    asked: Vec<NodeId>,
}

/// A home that is about to be left for a nearer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Switch {
    to: NodeId,
    from: NodeId,
}

/// See the module's text.
pub struct Homes {
    credential: Vec<u8>,
    hosts: Hosts,
    attachments: BTreeMap<LinkId, Attachment>,
    fallbacks: Vec<Fallback>,
    /// Supernodes attached to for a relay session only: not told to callers as homes.
    extras: BTreeSet<NodeId>,
    wants: BTreeMap<NodeId, Want>,
    switch: Option<Switch>,
    prober: Prober,
    /// When the next round of probes is due.
    next_round: Option<Instant>,
    last_round: Option<Instant>,
    /// When one that answered a probe has waited for those as near.
    ripe: Option<Instant>,
    /// A home died: who else did?
    alarmed: bool,
    redirects: u32,
    cards: Option<Bucket>,
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
    /// Without supernodes: nothing happens before some are known.
    pub fn new(credential: Vec<u8>, seed: [u8; 32]) -> Homes {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut boot = [0; 16];
        rng.fill_bytes(&mut boot);
        Homes {
            credential,
            hosts: Hosts::default(),
            attachments: BTreeMap::new(),
            fallbacks: Vec::new(),
            extras: BTreeSet::new(),
            wants: BTreeMap::new(),
            switch: None,
            prober: Prober::default(),
            next_round: None,
            last_round: None,
            ripe: None,
            alarmed: false,
            redirects: 0,
            cards: None,
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

    /// A card that an earlier start kept under this key of [`HOSTS`]. It is verified again.
    pub fn load_card(&mut self, now: Now, realm: &Realm, key: &[u8], card: &[u8]) {
        self.hosts.load(now, realm, key, card, &mut self.rng);
    }

    /// What has to be stored: cards that came, and those that are worth nothing any more.
    pub fn take_writes(&mut self) -> Vec<Write> {
        self.hosts.take_writes()
    }

    /// The newest bulletin: whom it names, and whom it revokes. Those who are revoked are left.
    pub fn set_bulletin(&mut self, now: Now, realm: &Realm, entries: &[SupernodeEntry], links: &mut LinkIds) {
        self.epoch = realm.epoch();
        self.hosts.set_bulletin(entries, &self.in_use(), &mut self.rng);
        let gone: Vec<LinkId> = self
            .attachments
            .iter()
            .filter(|(_, attachment)| realm.is_revoked(attachment.node))
            .map(|(link, _)| *link)
            .collect();
        for link in gone {
            self.drop_link(now, link, true);
        }
        self.hosts.sweep(now.unix, realm, &self.in_use());
        self.renew_credentials(now);
        self.fill(now, links);
    }

    /// Homes whose credential, as known here, ends soon are asked for their card.
    fn renew_credentials(&mut self, now: Now) {
        let soon = now.unix + CREDENTIAL_RENEWAL;
        let nodes: Vec<NodeId> = self
            .attachments
            .values()
            .filter(|attachment| matches!(attachment.stage, Stage::Warm))
            .map(|attachment| attachment.node)
            .filter(|node| self.hosts.get(*node).is_some_and(|host| host.credential.not_after < soon))
            .collect();
        for node in nodes {
            self.write(node, CardsWanted { nodes: vec![node], after: None }.encode());
        }
    }

    fn in_use(&self) -> BTreeSet<NodeId> {
        let attached = self.attachments.values().map(|attachment| attachment.node);
        attached.chain(self.fallbacks.iter().map(|fallback| fallback.node)).collect()
    }

    /// The network changed: what was measured may be wrong.
    pub fn network_changed(&mut self, now: Now) {
        if self.last_round.is_some_and(|at| now.mono >= at + PROBE_PATIENCE) {
            self.next_round = Some(now.mono);
        }
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
        self.wants.clear();
    }

    /// Whether this link belongs to a home or an attempt at one.
    pub fn owns(&self, link: LinkId) -> bool {
        self.attachments.contains_key(&link)
    }

    /// The warm homes; the one that carries signalling first.
    pub fn warm(&self) -> Vec<Home> {
        let mut warm: Vec<&Attachment> = self.homes().filter(|a| matches!(a.stage, Stage::Warm)).collect();
        warm.sort_by_key(|a| a.seniority);
        warm.iter().filter_map(|a| self.describe(a)).collect()
    }

    /// Which the warm homes are, in no order.
    pub fn warm_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.homes().filter(|a| matches!(a.stage, Stage::Warm)).map(|a| a.node)
    }

    /// Attachments, warm or not, that are no relay's alone.
    fn homes(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values().filter(|attachment| !self.extras.contains(&attachment.node))
    }

    /// Supernodes known, and how many owners they have.
    pub fn known(&self) -> (usize, usize) {
        let owners: BTreeSet<_> = self.hosts.iter().filter_map(|(_, host)| host.owner).collect();
        (self.hosts.iter().count(), owners.len())
    }

    /// Where the homes answer over TCP.
    pub fn fallbacks(&self) -> Vec<SocketAddr> {
        let warm = self.warm();
        warm.iter().filter_map(|home| self.hosts.get(home.node)?.tcp.first().copied()).collect()
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
        let host = self.hosts.get(attachment.node)?;
        let udp = match attachment.transport {
            Transport::Quic => Some(attachment.target),
            Transport::Tls => host.udp_addr(),
        };
        Some(Home {
            node: attachment.node,
            credential: host.credential.clone(),
            udp,
            addr: attachment.target,
            transport: attachment.transport,
            exporter: attachment.exporter,
            rtt: attachment.rtt,
        })
    }

    /// Attaches to this supernode besides the homes, for a relay session; [`HomesOutput::Up`] or `Down` follows. When
    /// it is not known here, a home is asked for its card first. False when too many are wanted already.
    pub fn want(&mut self, now: Now, node: NodeId, links: &mut LinkIds) -> bool {
        if self.is_busy(node) || self.wants.contains_key(&node) {
            return true;
        }
        if self.extras.len() + self.wants.len() >= RELAY_LINKS_MAX {
            return false;
        }
        if self.hosts.get(node).is_some() {
            self.extras.insert(node);
            self.attempt(now, node, links);
        } else {
            self.wants.insert(node, Want { since: now.mono, asked: Vec::new() });
            self.ask_for_card(node);
        }
        true
    }

    /// Asks the next warm home for a relay's card.
    fn ask_for_card(&mut self, node: NodeId) {
        let homes = self.warm();
        let Some(want) = self.wants.get_mut(&node) else { return };
        let Some(home) = homes.iter().find(|home| !want.asked.contains(&home.node)) else { return };
        want.asked.push(home.node);
        self.write(home.node, CardsWanted { nodes: vec![node], after: None }.encode());
    }

    /// The relay session is over. A home stays; what was attached for the session alone is left.
    pub fn unwant(&mut self, now: Now, node: NodeId, links: &mut LinkIds) {
        self.wants.remove(&node);
        if self.extras.remove(&node) {
            self.leave(now, node);
            self.fill(now, links);
        }
    }

    /// A supernode that is known but not warm: where to go when a home dies.
    pub fn cold(&self) -> Option<(NodeId, SocketAddr)> {
        let free: Vec<(NodeId, &Host)> =
            self.hosts.iter().filter(|(node, host)| !self.is_busy(*node) && !host.has_left()).collect();
        let node = choice::reserve(&free, &self.owners())?;
        Some((node, self.hosts.get(node)?.udp_addr()?))
    }

    fn owners(&self) -> Vec<OwnerTag> {
        self.homes().filter_map(|a| self.hosts.get(a.node).and_then(|host| host.owner)).collect()
    }

    /// Writes a frame to a warm home; false when it is not warm.
    pub fn write(&mut self, node: NodeId, frame: Frame) -> bool {
        let found = self.attachments.iter().find(|(_, a)| a.node == node && matches!(a.stage, Stage::Warm));
        let Some((link, _)) = found else { return false };
        self.outputs.push_back(HomesOutput::Link(*link, LinkAction::Write(frame)));
        true
    }

    /// A STUN datagram that is no answer to anybody else. True when it was the answer to a probe.
    pub fn handle_stun(&mut self, now: Now, from: SocketAddr, bytes: &[u8], links: &mut LinkIds) -> bool {
        let Some(answered) = self.prober.handle_stun(now.mono, from, bytes) else { return false };
        let Answered { node, addr, rtt, stay_away } = answered;
        // Who is attached there already has room.
        let is_full = !stay_away.is_zero() && !self.is_busy(node);
        if let Some(host) = self.hosts.get_mut(node) {
            let shorter = |old: &Probed| old.rtt <= rtt && now.mono.since(old.at) < PROBE_PAUSE;
            if !host.probed.as_ref().is_some_and(shorter) {
                host.probed = Some(Probed { rtt, addr, at: now.mono });
            }
            host.silent = false;
            host.is_full = is_full;
        }
        if is_full {
            self.hosts.wait(now.mono, node, stay_away, &mut self.rng);
        }
        self.decided(now, links);
        self.fill(now, links);
        true
    }

    /// What was due by now: probes, fallbacks, pings, pings unanswered, attempts that took too long.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm, links: &mut LinkIds) {
        if self.stopped {
            return;
        }
        self.prober.handle_timeout(now.mono, &mut self.rng);
        self.decided(now, links);
        if self.next_round.is_some_and(|at| at <= now.mono) {
            self.hosts.sweep(now.unix, realm, &self.in_use());
            self.renew_credentials(now);
            self.begin_round(now);
        }
        self.overdue_wants(now);
        self.overdue_links(now, links);
        self.ping_homes(now);
        self.fill(now, links);
    }

    fn overdue_wants(&mut self, now: Now) {
        let mut lost = Vec::new();
        let mut unanswered = Vec::new();
        for (node, want) in &self.wants {
            let waited = now.mono.since(want.since);
            if waited >= CARD_WANTED {
                lost.push(*node);
            } else if waited >= LOOKUP_SECOND_WAY && want.asked.len() < 2 {
                unanswered.push(*node);
            }
        }
        for node in unanswered {
            self.ask_for_card(node);
        }
        for node in lost {
            self.wants.remove(&node);
            self.outputs.push_back(HomesOutput::Down(node));
        }
    }

    fn overdue_links(&mut self, now: Now, links: &mut LinkIds) {
        let (due, later): (Vec<Fallback>, Vec<Fallback>) =
            std::mem::take(&mut self.fallbacks).into_iter().partition(|f| f.at <= now.mono);
        self.fallbacks = later;
        for fallback in due {
            self.fall_back(now, &fallback, links);
        }
        let patience = self.patience();
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
    }

    fn ping_homes(&mut self, now: Now) {
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
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let patience = self.patience();
        let links = self.attachments.values().map(|a| match a.stage {
            Stage::Opening | Stage::Greeted => a.began + ATTACH,
            Stage::Warm => a.ping.map_or(a.next_ping, |(_, sent)| a.next_ping.min(sent + patience)),
        });
        let fallbacks = self.fallbacks.iter().map(|f| f.at);
        let wants = self
            .wants
            .values()
            .map(|want| want.since + if want.asked.len() < 2 { LOOKUP_SECOND_WAY } else { CARD_WANTED });
        let fixed = [self.prober.deadline(), self.next_round, self.fill_deadline()];
        links.chain(fallbacks).chain(wants).chain(fixed.into_iter().flatten()).min()
    }

    /// When somebody may be chosen that could not be at the last input.
    fn fill_deadline(&self) -> Option<Instant> {
        if self.wanted() == 0 {
            return None;
        }
        if self.prober.is_undecided() {
            return self.ripe;
        }
        let free = self.hosts.iter().filter(|(node, host)| !self.is_busy(*node) && !host.has_left());
        free.filter_map(|(_, host)| host.not_before).min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<HomesOutput> {
        if let Some((to, bytes)) = self.prober.poll_output() {
            return Some(HomesOutput::Datagram { to, bytes });
        }
        self.outputs.pop_front()
    }

    fn ping_interval(&self) -> Duration {
        if self.active { PING_ACTIVE } else { PING_IDLE }
    }

    fn patience(&self) -> Duration {
        if self.active { PONG_ACTIVE } else { PONG_IDLE }
    }

    fn is_busy(&self, node: NodeId) -> bool {
        self.attachments.values().any(|a| a.node == node) || self.fallbacks.iter().any(|f| f.node == node)
    }

    /// How many more supernodes should be warm or tried.
    fn wanted(&self) -> usize {
        let mut busy = self.in_use();
        let nearer = self.switch.map(|switch| switch.to);
        busy.retain(|node| !self.extras.contains(node) && nearer != Some(*node));
        HOMES_WARM.saturating_sub(busy.len())
    }
}

#[cfg(test)]
mod tests;
