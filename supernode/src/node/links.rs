//! Links: whose each one is, and which part of the supernode its frames are for.

use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::node::NodeId;
use yodel_overlay::attach::{Ping, Pong, RefuseReason};
use yodel_overlay::ring::From as RingPeer;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkId, LinkPeer, Output};
use yodel_wire::time::{Instant, Now};

use super::{Event, Supernode};
use crate::limits::LOGIN_PING;

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Option<LinkPeer>,
    pub(crate) role: Role,
    pub(crate) opened: Instant,
    pub(crate) heard: Instant,
    pub(crate) ping: Option<(u64, Instant)>,
    pub(crate) next_ping: Instant,
}

/// Whose link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Somebody opened it and has not said who it is.
    Waiting,
    /// An attached device's.
    Device(NodeId),
    /// We opened it to a member, who has not welcomed us yet.
    Dialing(NodeId),
    /// A member's.
    Member(NodeId),
    /// The login server's.
    Login,
    /// To the login server, for a device.
    Errand,
}

impl Link {
    pub(crate) fn new(now: Instant, role: Role) -> Link {
        Link { peer: None, role, opened: now, heard: now, ping: None, next_ping: now }
    }
}
impl Supernode {
    pub(super) fn opened(&mut self, now: Now, id: LinkId, peer: LinkPeer) {
        if !self.links.contains_key(&id) {
            if !self.has_room(now, id) {
                return;
            }
            self.links.insert(id, Link::new(now.mono, Role::Waiting));
            self.waiting.insert(id);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = now.mono;
        link.next_ping = now.mono + LOGIN_PING;
        let (key, role) = (peer.key, link.role);
        link.peer = Some(peer);
        match role {
            Role::Waiting | Role::Device(_) | Role::Member(_) => {}
            Role::Errand if self.realm.is_login_server(&key) => {}
            Role::Errand => self.close(now, id),
            Role::Dialing(node) => self.dialled(id, node),
            Role::Login if self.realm.is_login_server(&key) => {
                self.outputs.push_back(Output::Event(Event::LoginServer { up: true }));
            }
            Role::Login => self.close(now, id),
        }
    }

    pub(super) fn closed(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        if link.role == Role::Login && link.peer.is_some() {
            self.outputs.push_back(Output::Event(Event::LoginServer { up: false }));
        }
        self.forgotten(now, id, &link);
    }

    pub(super) fn frame(&mut self, now: Now, id: LinkId, frame: &Frame) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = now.mono;
        let handled = match (link.role, &link.peer) {
            (Role::Waiting, Some(peer)) => {
                let peer = peer.clone();
                self.waiting.remove(&id);
                self.hello(now, id, &peer, frame);
                Ok(())
            }
            (Role::Device(node), Some(_)) => self.device_frame(now, id, node, frame),
            (Role::Dialing(node), Some(_)) => {
                self.member_answered(now, id, node, frame);
                Ok(())
            }
            (Role::Member(node), Some(_)) => self.member_frame(now, id, node, frame),
            (Role::Login, Some(_)) => {
                self.login_frame(now, id, frame);
                Ok(())
            }
            (Role::Errand, Some(_)) => {
                self.errand_frame(now, id, frame);
                Ok(())
            }
            // No frame comes before `Opened`.
            (_, None) => Ok(()),
        };
        if handled.is_err() {
            self.counters.protocol_errors += 1;
            self.goodbye(now, id, RefuseReason::Protocol, Duration::ZERO);
        }
    }

    fn device_frame(&mut self, now: Now, id: LinkId, node: NodeId, frame: &Frame) -> Result<(), DecodeError> {
        self.heard_device(node, id);
        let relayed = frame.kind == FrameKind::RelayData;
        if let Some(device) = self.devices.get_mut(&node)
            && !relayed
            && !device.bucket.take(now.mono, 1)
        {
            self.counters.frames_dropped += 1;
            return Ok(());
        }
        match frame.kind {
            FrameKind::Ping => self.pong(id, &frame.body)?,
            FrameKind::Pong => {}
            FrameKind::Goodbye => self.close(now, id),
            FrameKind::BulletinWanted => {
                let wanted = BulletinWanted::decode(&frame.body)?;
                self.send_pages(id, node, wanted.pages_of);
                if wanted.have_epoch < self.realm.epoch() {
                    self.send_bulletin(id);
                } else if let Some(device) = self.devices.get_mut(&node) {
                    device.wants_bulletin = true;
                }
            }
            FrameKind::Write | FrameKind::Read => {
                self.ring.handle_frame(now, RingPeer::Device(node), frame, &self.realm)?;
            }
            FrameKind::CardsWanted => self.cards_wanted(now, id, node, &frame.body)?,
            FrameKind::Hello => self.renewed_device(now, id, node, &frame.body)?,
            FrameKind::SipSend => self.sip_send(now, node, &frame.body)?,
            FrameKind::RelayOpen
            | FrameKind::RelayJoin
            | FrameKind::RelayState
            | FrameKind::RelayData
            | FrameKind::RelayClose => {
                if let Some(facts) = self.relay_facts(id, node) {
                    self.relay.handle_frame(now, &facts, frame)?;
                }
            }
            FrameKind::Renew | FrameKind::AccountRecord => self.run_errand(now, node, id, frame),
            _ => return Err(DecodeError::Malformed),
        }
        Ok(())
    }

    fn member_frame(&mut self, now: Now, id: LinkId, node: NodeId, frame: &Frame) -> Result<(), DecodeError> {
        self.heard_member(now, node, id, frame.kind);
        match frame.kind {
            FrameKind::Ping => self.pong(id, &frame.body)?,
            FrameKind::Pong => {
                let pong = Pong::decode(&frame.body)?;
                if let Some(link) = self.links.get_mut(&id)
                    && link.ping.is_some_and(|(nonce, _)| nonce == pong.nonce)
                {
                    link.ping = None;
                }
            }
            FrameKind::Goodbye => self.close(now, id),
            FrameKind::BulletinWanted => {
                let wanted = BulletinWanted::decode(&frame.body)?;
                self.send_pages_to_member(id, wanted.pages_of);
                if wanted.have_epoch < self.realm.epoch() {
                    self.send_bulletin(id);
                }
            }
            FrameKind::Bulletin => self.take_bulletin(now, &frame.body),
            FrameKind::RevokedPage => self.take_page(now, &frame.body),
            FrameKind::Write
            | FrameKind::Written
            | FrameKind::Read
            | FrameKind::Answer
            | FrameKind::CardsWanted
            | FrameKind::Cards => {
                self.ring.handle_frame(now, RingPeer::Member(node), frame, &self.realm)?;
            }
            FrameKind::SipForward => self.sip_forward(now, node, &frame.body)?,
            FrameKind::SipReturn => self.sip_return(node, &frame.body)?,
            _ => return Err(DecodeError::Malformed),
        }
        Ok(())
    }

    fn pong(&mut self, id: LinkId, body: &[u8]) -> Result<(), DecodeError> {
        let ping = Ping::decode(body)?;
        let observed = self.links.get(&id).and_then(|link| link.peer.as_ref()).map(|peer| peer.addr);
        if let Some(observed) = observed {
            self.write(id, Pong { nonce: ping.nonce, observed }.encode());
        }
        Ok(())
    }

    /// Pings members and the login server.
    pub(super) fn ping_links(&mut self, now: Now) {
        let due: Vec<(LinkId, Duration)> = self
            .pinged_links()
            .filter(|(_, link)| link.peer.is_some() && link.ping.is_none() && now.mono >= link.next_ping)
            .map(|(id, link)| match link.role {
                Role::Member(node) | Role::Dialing(node) => (id, self.member_ping_every(now.mono, node)),
                Role::Login | Role::Errand | Role::Waiting | Role::Device(_) => (id, LOGIN_PING),
            })
            .collect();
        let mut pings = Vec::new();
        for (id, every) in due {
            let nonce = self.rng.next_u64();
            if let Some(link) = self.links.get_mut(&id) {
                link.ping = Some((nonce, now.mono));
                link.next_ping = now.mono + every;
                pings.push((id, nonce));
            }
        }
        for (id, nonce) in pings {
            self.write(id, Ping { nonce }.encode());
        }
    }
}
