//! Links to the other members. Of two members the one with the lower node id dials; QUIC first, TLS when that failed.

use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::credential::Credential;
use yodel_identity::node::NodeId;
use yodel_overlay::attach::{Hello, LinkRole, RefuseReason, VERSION, Welcome};
use yodel_overlay::placement::Member;
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkAction, LinkId, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now};

use crate::limits::{MEMBER_BACKOFF, MEMBER_BACKOFF_MAX};
use crate::node::{Link, Role, Supernode};

/// A member that the bulletin names.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The link that is up.
    pub(crate) link: Option<LinkId>,
    /// The link that is being opened.
    dialing: Option<LinkId>,
    failures: u32,
    next_dial: Instant,
}

impl Supernode {
    /// The bulletin changed: who is a member, and whom to dial.
    pub(crate) fn set_members(&mut self, now: Now) {
        let Some(bulletin) = self.realm.bulletin() else { return };
        let mut members = Vec::new();
        for entry in &bulletin.supernodes {
            let Some(owner) = entry.credential.owner() else { continue };
            let ip = entry.udp.iter().find_map(|addr| match addr.ip() {
                std::net::IpAddr::V4(ip) => Some(ip),
                std::net::IpAddr::V6(_) => None,
            });
            members.push(Member { node: entry.credential.node, owner, ip });
        }
        let named: Vec<NodeId> = members.iter().map(|m| m.node).filter(|node| *node != self.me).collect();
        for node in &named {
            self.peers.entry(*node).or_insert(Peer {
                link: None,
                dialing: None,
                failures: 0,
                next_dial: now.mono,
            });
        }
        self.ring.set_members(now, members, &self.realm);
        let gone: Vec<NodeId> = self.peers.keys().copied().filter(|node| !named.contains(node)).collect();
        for node in gone {
            let links = self.peers.remove(&node).map(|peer| [peer.link, peer.dialing]);
            for link in links.into_iter().flatten().flatten() {
                self.goodbye(now, link, RefuseReason::NotMember, Duration::ZERO);
            }
        }
        self.dial_members(now);
    }

    /// Dials whom it is our turn to dial.
    pub(crate) fn dial_members(&mut self, now: Now) {
        if self.stopping {
            return;
        }
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, peer)| {
                **node > self.me
                    && peer.link.is_none()
                    && peer.dialing.is_none()
                    && now.mono >= peer.next_dial
            })
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.next_dial = now.mono + MEMBER_BACKOFF_MAX;
            }
            self.dial(now, node);
        }
    }

    fn dial(&mut self, now: Now, node: NodeId) {
        let Some(entry) = self.realm.bulletin().and_then(|b| b.supernode(node)) else { return };
        let failures = self.peers.get(&node).map_or(0, |peer| peer.failures);
        let udp = entry.udp.first().map(|addr| (*addr, Transport::Quic));
        let tcp = entry.tcp.first().map(|addr| (*addr, Transport::Tls));
        let (addr, transport) = match (udp, tcp) {
            (Some(udp), Some(tcp)) => {
                if failures.is_multiple_of(2) {
                    udp
                } else {
                    tcp
                }
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return,
        };
        let target = LinkTarget { addr, transport, key: Some(entry.credential.key.0) };
        let id = self.draw_link();
        self.links.insert(id, Link::new(now.mono, Role::Dialing(node)));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialing = Some(id);
        }
        self.act(id, LinkAction::Open(target));
    }

    /// A link that we dialled is open: say who we are.
    pub(crate) fn dialled(&mut self, id: LinkId) {
        let hello = Hello {
            credential: self.keys.credential.bytes().to_vec(),
            role: LinkRole::Member,
            versions: (VERSION, VERSION),
            epoch: self.realm.epoch(),
            boot: self.boot,
        };
        self.write(id, hello.encode());
    }

    /// The first answer on a link that we dialled.
    pub(crate) fn member_answered(&mut self, now: Now, id: LinkId, node: NodeId, frame: &Frame) {
        let key = self.links.get(&id).and_then(|link| link.peer.as_ref()).map(|peer| peer.key);
        let welcome = Welcome::decode(&frame.body)
            .ok()
            .filter(|_| frame.kind == yodel_wire::frame::FrameKind::Welcome)
            .and_then(|welcome| self.realm.verify_credential(&welcome.credential, now.unix).ok())
            .filter(|credential| credential.node == node && Some(credential.key.0) == key);
        match welcome {
            Some(_) => self.member_up(now, id, node),
            None => self.close(now, id),
        }
    }

    /// A member opened a link to us.
    pub(crate) fn member_hello(
        &mut self,
        now: Now,
        id: LinkId,
        hello: &Hello,
        credential: &Credential,
        welcome: &Welcome,
    ) {
        let node = credential.node;
        if self.stopping || !self.peers.contains_key(&node) {
            let reason = if self.stopping { RefuseReason::Draining } else { RefuseReason::NotMember };
            return self.refuse(id, reason, Duration::from_secs(1));
        }
        if node > self.me {
            return self.refuse(id, RefuseReason::Protocol, Duration::ZERO);
        }
        self.write(id, welcome.encode());
        self.member_up(now, id, node);
        if hello.epoch < self.realm.epoch() {
            self.send_bulletin(id);
        }
    }

    fn member_up(&mut self, now: Now, id: LinkId, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return self.close(now, id) };
        peer.failures = 0;
        peer.dialing = None;
        let older = peer.link.replace(id).filter(|older| *older != id);
        if let Some(link) = self.links.get_mut(&id) {
            link.role = Role::Member(node);
            link.heard = now.mono;
            link.next_ping = now.mono;
        }
        if let Some(older) = older {
            // The member dialled anew: it knows better than we that the old link is dead.
            self.links.remove(&older);
            self.act(older, LinkAction::Close);
        }
        self.ring.link_up(now, node);
    }

    /// A link with a member ended, or never came to be.
    pub(crate) fn member_link_closed(&mut self, now: Now, node: NodeId, id: LinkId) {
        let jitter = self.rng.next_u32();
        let Some(peer) = self.peers.get_mut(&node) else {
            self.ring.link_down(now, node);
            return;
        };
        if peer.link == Some(id) {
            peer.link = None;
            peer.next_dial = now.mono;
            self.ring.link_down(now, node);
        } else if peer.dialing == Some(id) {
            peer.dialing = None;
            let pause = (MEMBER_BACKOFF * 2_u32.saturating_pow(peer.failures.min(8))).min(MEMBER_BACKOFF_MAX);
            peer.failures = peer.failures.saturating_add(1);
            peer.next_dial =
                now.mono + pause / 2 + (pause / 2).mul_f64(f64::from(jitter) / f64::from(u32::MAX));
        }
    }

    /// When the next member is to be dialled.
    pub(crate) fn dial_deadline(&self) -> Option<Instant> {
        self.peers
            .iter()
            .filter(|(node, peer)| **node > self.me && peer.link.is_none() && peer.dialing.is_none())
            .map(|(_, peer)| peer.next_dial)
            .min()
            .filter(|_| !self.stopping)
    }

    /// Writes to a member; false when there is no link.
    pub(crate) fn write_member(&mut self, node: NodeId, frame: Frame) -> bool {
        let link = self.peers.get(&node).and_then(|peer| peer.link);
        if let Some(link) = link {
            self.write(link, frame);
        }
        link.is_some()
    }
}
