//! Links to the other members, for what does not fit a datagram: SIP, long records, bulletins, lists of cards.
//!
//! A link is opened when there is something to write, QUIC first and TLS when that failed the last time, and closed when
//! nothing was written for a while. What waits is written as soon as the handshake proved the member's key, without
//! waiting for its welcome. Both members may open one at the same time; both are then used.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::credential::Credential;
use yodel_identity::node::NodeId;
use yodel_overlay::attach::{Hello, LinkRole, RefuseReason, VERSION, Welcome};
use yodel_overlay::card::Card;
use yodel_overlay::membership::Health;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkId, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now};

use crate::limits::{
    LINKS_PER_MEMBER, MEMBER_ACTIVE, MEMBER_IDLE, MEMBER_LINKS_MAX, MEMBER_PING, MEMBER_PING_IDLE,
    MEMBER_WAITING_MAX, SECOND_DIAL_AFTER,
};
use crate::node::{Link, Role, Supernode};

/// A member that we have a link with, or want one.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Links that can be written to, the one heard on last at the end.
    pub(crate) links: Vec<LinkId>,
    /// Links that are being opened.
    pub(crate) dialing: Vec<LinkId>,
    /// The other transport, and when it is tried too.
    second: Option<(Instant, SocketAddr, Transport)>,
    /// Whether it shall send its table once it welcomed us.
    pub(crate) wants_table: bool,
    /// What waits for it; dropped when it fails.
    waiting: VecDeque<Frame>,
    failures: u32,
    used: Instant,
}

impl Peer {
    fn is_over(&self) -> bool {
        self.links.is_empty() && self.dialing.is_empty() && self.waiting.is_empty()
    }
}

impl Supernode {
    /// Writes to a member, over a link that is opened for it if need be; false when there is no way.
    pub(crate) fn write_member(&mut self, node: NodeId, frame: Frame) -> bool {
        let now = self.now.mono;
        if let Some(peer) = self.peers.get_mut(&node)
            && let Some(id) = peer.links.last().copied()
        {
            peer.used = now;
            if let Some(link) = self.links.get_mut(&id) {
                // A dead link shows by its ping, and the sooner the better now.
                link.next_ping = link.next_ping.min(now + MEMBER_PING);
            }
            self.write(id, frame);
            return true;
        }
        if self.peers.get(&node).is_none_or(|peer| peer.dialing.is_empty()) && !self.dial(node) {
            return false;
        }
        match self.peers.get_mut(&node) {
            Some(peer) if peer.waiting.len() < MEMBER_WAITING_MAX => {
                peer.used = now;
                peer.waiting.push_back(frame);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Has a link with a member ready for what will follow.
    pub(crate) fn warm_member(&mut self, node: NodeId) {
        if self.peers.get(&node).is_none_or(|peer| peer.links.is_empty() && peer.dialing.is_empty()) {
            self.dial(node);
        }
    }

    /// Opens a link to a member that the table or the bulletin tells how to reach.
    pub(crate) fn dial(&mut self, node: NodeId) -> bool {
        let Some((key, udp, tcp)) = self.reach(node) else { return false };
        if self.stopping || node == self.me || self.peers.len() >= MEMBER_LINKS_MAX {
            return false;
        }
        let now = self.now.mono;
        let peer = self.peers.entry(node).or_default();
        let (one, other) = if peer.failures.is_multiple_of(2) {
            (udp.map(|addr| (addr, Transport::Quic)), tcp.map(|addr| (addr, Transport::Tls)))
        } else {
            (tcp.map(|addr| (addr, Transport::Tls)), udp.map(|addr| (addr, Transport::Quic)))
        };
        let Some((addr, transport)) = one.or(other) else { return false };
        peer.used = now;
        peer.second = one.and(other).map(|(addr, transport)| (now + SECOND_DIAL_AFTER, addr, transport));
        self.open_member(node, LinkTarget { addr, transport, key: Some(key) });
        true
    }

    fn open_member(&mut self, node: NodeId, target: LinkTarget) {
        let id = self.draw_link();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialing.push(id);
        }
        self.links.insert(id, Link::new(self.now.mono, Role::Dialing(node)));
        self.act(id, LinkAction::Open(target));
    }

    /// Tries the other transport beside the one that has not brought a link yet: a first packet that is lost would
    /// otherwise cost QUIC's whole initial time-out, a second (RFC 9002 §6.2.2).
    pub(crate) fn dial_second(&mut self, now: Now) {
        let mut due = Vec::new();
        for (node, peer) in &mut self.peers {
            if peer.second.is_some_and(|(at, ..)| now.mono >= at)
                && let Some((_, addr, transport)) = peer.second.take()
                && peer.links.is_empty()
                && !peer.dialing.is_empty()
            {
                due.push((*node, addr, transport));
            }
        }
        for (node, addr, transport) in due {
            if let Some((key, ..)) = self.reach(node) {
                self.open_member(node, LinkTarget { addr, transport, key: Some(key) });
            }
        }
    }

    /// When the other transport of some member is to be tried.
    pub(crate) fn dial_deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.second.map(|(at, ..)| at)).min()
    }

    /// Key and addresses of a member: by its card, or by the bulletin when it is not in the table.
    fn reach(&self, node: NodeId) -> Option<([u8; 32], Option<SocketAddr>, Option<SocketAddr>)> {
        let membership = self.ring.membership();
        match membership.slot_of(node) {
            Some(slot) => {
                let gone = matches!(membership.health(slot), Health::Dead | Health::Left);
                let card = membership.directory().card(slot).filter(|_| !gone)?;
                let (udp, tcp) = (card.announcement().udp.first(), card.announcement().tcp.first());
                Some((card.credential().key.0, udp.copied(), tcp.copied()))
            }
            None => {
                let entry = self.realm.bulletin()?.supernode(node)?;
                Some((entry.credential.key.0, entry.udp.first().copied(), entry.tcp.first().copied()))
            }
        }
    }

    /// A link that we dialled is open: say who we are, and what waited.
    pub(crate) fn dialled(&mut self, id: LinkId, node: NodeId) {
        let hello = Hello {
            credential: self.keys.credential.bytes().to_vec(),
            role: LinkRole::Member,
            versions: (VERSION, VERSION),
            epoch: self.realm.epoch(),
            boot: self.boot,
            announcement: self.own_announcement(),
        };
        if self.peers.get(&node).is_some_and(|peer| !peer.links.is_empty()) {
            // The other transport, or the member itself, was quicker.
            return self.close(self.now, id);
        }
        self.write(id, hello.encode());
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.dialing.retain(|link| *link != id);
        peer.second = None;
        peer.failures = 0;
        peer.links.push(id);
        for frame in std::mem::take(&mut peer.waiting) {
            self.write(id, frame);
        }
    }

    pub(crate) fn own_announcement(&self) -> Option<Vec<u8>> {
        let membership = self.ring.membership();
        membership.directory().card(membership.me()).map(|card| card.announcement().bytes().to_vec())
    }

    /// The first answer on a link that we dialled.
    pub(crate) fn member_answered(&mut self, now: Now, id: LinkId, node: NodeId, frame: &Frame) {
        let key = self.links.get(&id).and_then(|link| link.peer.as_ref()).map(|peer| peer.key);
        let welcome = Welcome::decode(&frame.body).ok().filter(|_| frame.kind == FrameKind::Welcome);
        let believed = welcome.and_then(|welcome| {
            let credential = self.realm.verify_credential(&welcome.credential, now.unix).ok()?;
            (credential.node == node && Some(credential.key.0) == key).then_some((credential, welcome))
        });
        let Some((credential, welcome)) = believed else { return self.close(now, id) };
        if let Some(announcement) = welcome.announcement {
            self.ring.learn(now, &self.realm, &Card::join(credential.bytes(), &announcement));
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.role = Role::Member(node);
            link.next_ping = now.mono + MEMBER_PING;
        }
        let wants_table = self.peers.get_mut(&node).map(|peer| std::mem::take(&mut peer.wants_table));
        if wants_table == Some(true) {
            self.ask_for_table(id);
        }
    }

    /// A member opened a link to us. One that nobody here has heard of introduces itself by its announcement.
    pub(crate) fn member_hello(
        &mut self,
        now: Now,
        id: LinkId,
        hello: &Hello,
        credential: &Credential,
        welcome: &Welcome,
    ) {
        let node = credential.node;
        if self.stopping {
            return self.refuse(id, RefuseReason::Draining, Duration::from_secs(1));
        }
        if let Some(announcement) = &hello.announcement {
            self.ring.learn(now, &self.realm, &Card::join(credential.bytes(), announcement));
        }
        if self.ring.membership().slot_of(node).is_none() {
            return self.refuse(id, RefuseReason::NotMember, Duration::from_secs(1));
        }
        let welcome = Welcome { announcement: self.own_announcement(), ..welcome.clone() };
        self.write(id, welcome.encode());
        if let Some(link) = self.links.get_mut(&id) {
            link.role = Role::Member(node);
            link.heard = now.mono;
            link.next_ping = now.mono + MEMBER_PING_IDLE;
        }
        let peer = self.peers.entry(node).or_default();
        peer.used = now.mono;
        peer.links.push(id);
        let surplus = peer.links.len().saturating_sub(LINKS_PER_MEMBER);
        let older: Vec<LinkId> = peer.links.drain(..surplus).collect();
        let waiting = std::mem::take(&mut peer.waiting);
        for frame in waiting {
            self.write(id, frame);
        }
        for link in older {
            self.links.remove(&link);
            self.act(link, LinkAction::Close);
        }
        if hello.epoch < self.realm.epoch() {
            self.send_bulletin(id);
        }
    }

    /// A member was heard on this link; what is for it goes there.
    pub(crate) fn heard_member(&mut self, now: Now, node: NodeId, id: LinkId, kind: FrameKind) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !matches!(kind, FrameKind::Ping | FrameKind::Pong) {
            peer.used = now.mono;
        }
        if peer.links.last() != Some(&id)
            && let Some(at) = peer.links.iter().position(|link| *link == id)
        {
            let link = peer.links.remove(at);
            peer.links.push(link);
        }
    }

    /// A link with a member ended, or never came to be.
    pub(crate) fn member_link_closed(&mut self, now: Now, node: NodeId, id: LinkId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.links.retain(|link| *link != id);
        let dialled = peer.dialing.len();
        peer.dialing.retain(|link| *link != id);
        if !peer.links.is_empty() || !peer.dialing.is_empty() {
            return;
        }
        peer.second = None;
        if dialled > 0 {
            peer.failures = peer.failures.saturating_add(1);
        }
        let waiting = std::mem::take(&mut peer.waiting);
        for frame in waiting {
            self.not_forwarded(node, &frame);
        }
        self.ring.link_failed(now, &self.realm, node);
    }

    /// Links that nobody used for a while are closed, and members without any forgotten.
    pub(crate) fn tidy_peers(&mut self, now: Now) {
        let idle: Vec<LinkId> = self
            .peers
            .values()
            .filter(|peer| now.mono.since(peer.used) >= MEMBER_IDLE)
            .flat_map(|peer| peer.links.iter().copied())
            .collect();
        for id in idle {
            self.close(now, id);
        }
        self.peers.retain(|_, peer| !peer.is_over() || now.mono.since(peer.used) < MEMBER_IDLE);
    }

    /// How often this member's links are pinged: often while they are used.
    pub(crate) fn member_ping_every(&self, now: Instant, node: NodeId) -> Duration {
        let active = self.peers.get(&node).is_some_and(|peer| now.since(peer.used) < MEMBER_ACTIVE);
        if active { MEMBER_PING } else { MEMBER_PING_IDLE }
    }

    /// Links to members and to the login server that have had their handshake.
    pub(crate) fn pinged_links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        let members = self.peers.values().flat_map(|peer| peer.links.iter().copied());
        members.chain(self.login.link).filter_map(|id| Some((id, self.links.get(&id)?)))
    }
}
