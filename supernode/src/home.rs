//! Devices attached here, and the first frames of every link that others open.
//!
//! A device may have several links at once: it tries QUIC and TLS side by side, and comes back from another network
//! before its old link is known to be dead. What is for it goes over the link it was heard on last. A `Hello` of another
//! process start displaces all older links.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_identity::bulletin::RevokedPage;
use yodel_identity::credential::{Credential, Subject};
use yodel_identity::node::NodeId;
use yodel_identity::realm::CredentialError;
use yodel_overlay::attach::{Hello, LinkRole, Refuse, RefuseReason, Welcome};
use yodel_relay::bucket::Bucket;
use yodel_relay::server::LinkFacts;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkId, LinkPeer};
use yodel_wire::time::{Instant, Now};

use crate::limits::{DEVICE_FRAMES_BURST, DEVICE_FRAMES_PER_S, LINKS_PER_DEVICE, PAGES_AT_ONCE};
use crate::node::{Link, Role, Supernode};

/// An attached device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its links, the one it was heard on last at the end.
    pub(crate) links: Vec<LinkId>,
    boot: [u8; 16],
    pub(crate) bucket: Bucket,
    /// It has a request for the next bulletin open.
    pub(crate) wants_bulletin: bool,
    /// The revoked set whose pages it got: once is enough.
    pages_of: Option<[u8; 32]>,
    pub(crate) credential: Credential,
}

/// The signed pages of the revoked set, for devices: only a set too long for the bulletin has any.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    set: [u8; 32],
    pages: BTreeMap<u16, Vec<u8>>,
}

impl Pages {
    /// Takes in a page that was believed. The pages of another set go.
    pub(crate) fn keep(&mut self, page: &RevokedPage) {
        if page.set != self.set {
            *self = Pages { set: page.set, pages: BTreeMap::new() };
        }
        self.pages.insert(page.index, page.bytes().to_vec());
    }
}

impl Supernode {
    /// The first frame of a link that somebody opened.
    pub(crate) fn hello(&mut self, now: Now, id: LinkId, peer: &LinkPeer, frame: &Frame) {
        let hello = match Hello::decode(&frame.body) {
            Ok(hello) if frame.kind == FrameKind::Hello => hello,
            Ok(_) | Err(_) => return self.refuse(id, RefuseReason::Protocol, Duration::ZERO),
        };
        let Some(version) = hello.common_version() else {
            return self.refuse(id, RefuseReason::Version, Duration::ZERO);
        };
        if let Some(reason) = self.sends_away(&hello, peer) {
            return self.send_away(id, reason);
        }
        let credential = match self.realm.verify_credential(&hello.credential, now.unix) {
            Ok(credential) if credential.key.0 == peer.key => credential,
            Err(CredentialError::Revoked) => {
                self.counters.refused += 1;
                return self.refuse(id, RefuseReason::Revoked, Duration::ZERO);
            }
            Ok(_) | Err(_) => {
                self.counters.refused += 1;
                return self.refuse(id, RefuseReason::Credential, Duration::ZERO);
            }
        };
        let welcome = Welcome {
            time: now.unix,
            observed: peer.addr,
            credential: self.keys.credential.bytes().to_vec(),
            version,
            clients: self.devices.len() as u64,
            boot: self.boot,
            announcement: None,
        };
        match (hello.role, &credential.subject) {
            (LinkRole::Device, Subject::Device { .. }) => {
                self.attach(now, id, &hello, credential, &welcome);
            }
            (LinkRole::Member, Subject::Supernode { .. }) => {
                self.member_hello(now, id, &hello, &credential, &welcome);
            }
            (LinkRole::Device, Subject::Supernode { .. }) | (LinkRole::Member, Subject::Device { .. }) => {
                self.refuse(id, RefuseReason::Credential, Duration::ZERO);
            }
        }
    }

    fn attach(&mut self, now: Now, id: LinkId, hello: &Hello, credential: Credential, welcome: &Welcome) {
        let node = credential.node;
        let is_new = !self.devices.contains_key(&node);
        let device = self.devices.entry(node).or_insert_with(|| Device {
            links: Vec::new(),
            boot: hello.boot,
            bucket: Bucket::new(now.mono, DEVICE_FRAMES_PER_S, DEVICE_FRAMES_BURST),
            wants_bulletin: false,
            pages_of: None,
            credential: credential.clone(),
        });
        device.credential = credential;
        let restarted = device.boot != hello.boot;
        device.boot = hello.boot;
        let older = if restarted {
            std::mem::take(&mut device.links)
        } else {
            let surplus = (device.links.len() + 1).saturating_sub(LINKS_PER_DEVICE);
            device.links.drain(..surplus).collect()
        };
        device.links.push(id);
        for link in older {
            self.goodbye(now, link, RefuseReason::Displaced, Duration::ZERO);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.role = Role::Device(node);
        }
        self.counters.attached += 1;
        self.write(id, welcome.encode());
        if hello.epoch < self.realm.epoch() {
            self.send_bulletin(id);
        }
        if is_new || restarted {
            self.send_cards(id);
        }
    }

    /// An attached device shows its next credential, before the one it came with ends.
    pub(crate) fn renewed_device(
        &mut self,
        now: Now,
        id: LinkId,
        node: NodeId,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let hello = Hello::decode(body)?;
        let key = self.links.get(&id).and_then(|link| link.peer.as_ref()).map(|peer| peer.key);
        let credential = self.realm.verify_credential(&hello.credential, now.unix).ok();
        let credential = credential
            .filter(|credential| credential.node == node && Some(credential.key.0) == key)
            .ok_or(DecodeError::Malformed)?;
        if let Some(device) = self.devices.get_mut(&node)
            && device.credential.serial < credential.serial
        {
            device.credential = credential;
        }
        Ok(())
    }

    /// Hands a device the pages of the revoked set, once.
    pub(crate) fn send_pages(&mut self, id: LinkId, node: NodeId, set: Option<[u8; 32]>) {
        let Some(device) = self.devices.get_mut(&node) else { return };
        if set != Some(self.pages.set) || device.pages_of == set || self.pages.pages.is_empty() {
            return;
        }
        device.pages_of = set;
        let pages: Vec<Vec<u8>> = self.pages.pages.values().take(PAGES_AT_ONCE).cloned().collect();
        for page in pages {
            self.write(id, Frame::new(FrameKind::RevokedPage, page));
        }
    }

    /// Hands a member the pages that it lacks: it has no link to the login server, or would ask there.
    pub(crate) fn send_pages_to_member(&mut self, id: LinkId, set: Option<[u8; 32]>) {
        if set != Some(self.pages.set) {
            return;
        }
        let pages: Vec<Vec<u8>> = self.pages.pages.values().take(PAGES_AT_ONCE).cloned().collect();
        for page in pages {
            self.write(id, Frame::new(FrameKind::RevokedPage, page));
        }
    }

    /// A device was heard on this link.
    pub(crate) fn heard_device(&mut self, node: NodeId, id: LinkId) {
        if let Some(device) = self.devices.get_mut(&node)
            && device.links.last() != Some(&id)
            && let Some(at) = device.links.iter().position(|link| *link == id)
        {
            let link = device.links.remove(at);
            device.links.push(link);
        }
    }

    /// A link of a device ended; the device is gone with its last one.
    pub(crate) fn device_link_closed(&mut self, now: Now, node: NodeId, id: LinkId) {
        self.relay.link_closed(now, id);
        let Some(device) = self.devices.get_mut(&node) else { return };
        device.links.retain(|link| *link != id);
        if device.links.is_empty() {
            self.devices.remove(&node);
            self.ring.device_gone(node);
        }
    }

    /// Writes to a device, if it is attached.
    pub(crate) fn write_device(&mut self, node: NodeId, frame: Frame) -> bool {
        let link = self.devices.get(&node).and_then(|device| device.links.last().copied());
        if let Some(link) = link {
            self.write(link, frame);
        }
        link.is_some()
    }

    /// What the relay must know of a device's link.
    pub(crate) fn relay_facts(&self, id: LinkId, node: NodeId) -> Option<LinkFacts> {
        let peer = self.links.get(&id)?.peer.as_ref()?;
        Some(LinkFacts { link: id, node, exporter: peer.exporter, transport: peer.transport })
    }

    /// Refuses a link that was not granted yet, and closes it.
    pub(crate) fn refuse(&mut self, id: LinkId, reason: RefuseReason, come_back: Duration) {
        self.write(id, Refuse::plain(reason, come_back).encode_refuse());
        self.links.remove(&id);
        self.act(id, LinkAction::Close);
    }

    /// Ends a link that was granted.
    pub(crate) fn goodbye(&mut self, now: Now, id: LinkId, reason: RefuseReason, come_back: Duration) {
        self.write(id, Refuse::plain(reason, come_back).encode_goodbye());
        self.close(now, id);
    }

    /// Closes a link and forgets it.
    pub(crate) fn close(&mut self, now: Now, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.act(id, LinkAction::Close);
            self.forgotten(now, id, &link);
        }
    }

    /// What must happen when a link is gone, whoever ended it.
    pub(crate) fn forgotten(&mut self, now: Now, id: LinkId, link: &Link) {
        match link.role {
            Role::Waiting => {
                self.waiting.remove(&id);
            }
            Role::Device(node) => self.device_link_closed(now, node, id),
            Role::Dialing(node) | Role::Member(node) => self.member_link_closed(now, node, id),
            Role::Login => self.login_closed(now),
            Role::Errand => self.errand_closed(id),
        }
    }

    /// Hands the newest bulletin over.
    pub(crate) fn send_bulletin(&mut self, id: LinkId) {
        if let Some(bytes) = self.realm.bulletin_bytes().map(<[u8]>::to_vec) {
            self.write(id, Frame::new(FrameKind::Bulletin, bytes));
        }
    }

    /// Devices that were silent for too long are gone, and those whose credential has ended.
    pub(crate) fn sweep_links(&mut self, now: Now) {
        let stale = |since: Instant, limit: Duration| now.mono.since(since) >= limit;
        let late: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| match link.role {
                Role::Waiting => stale(link.opened, crate::limits::FIRST_FRAME),
                Role::Device(_) => stale(link.heard, crate::limits::DEVICE_SILENT),
                Role::Dialing(_) => stale(link.opened, crate::limits::MEMBER_DIAL),
                Role::Errand => stale(link.opened, crate::limits::ERRAND),
                Role::Member(_) => {
                    link.ping.is_some_and(|(_, sent)| stale(sent, crate::limits::MEMBER_SILENT))
                }
                Role::Login => link.ping.is_some_and(|(_, sent)| stale(sent, crate::limits::LOGIN_SILENT)),
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.close(now, id);
        }
        let ended: Vec<LinkId> = self
            .devices
            .values()
            .filter(|device| self.realm.check_alive(&device.credential, now.unix).is_err())
            .flat_map(|device| device.links.iter().copied())
            .collect();
        for id in ended {
            self.goodbye(now, id, RefuseReason::Credential, Duration::ZERO);
        }
    }
}
