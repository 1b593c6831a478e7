//! Links: ordered streams of frames between two nodes, from the handshake to the end.
//!
//! A link is kept as long as one of its ends holds it. What is still under way for one that nobody holds any more
//! finds its number taken by nobody, or by a later generation, and is dropped.

use std::net::SocketAddr;

use rand_core::RngCore;
use yodel_wire::frame::{Frame, FrameDecoder};
use yodel_wire::machine::{LinkClosed, LinkEvent, LinkId, LinkPeer, LinkTarget, Transport};
use yodel_wire::time::Instant;

use super::{Happening, NodeIndex, Traffic, World};

/// Names a link of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkHandle {
    slot: u32,
    generation: u32,
}

/// A link and its two ends.
pub(super) struct SimLink {
    opener: (NodeIndex, LinkId),
    acceptor: Option<(NodeIndex, LinkId)>,
    /// Nothing when its packets do not leave the opener's home.
    opener_addr: Option<SocketAddr>,
    target: LinkTarget,
    exporter: [u8; 32],
    decoders: [FrameDecoder; 2],
}

/// The links that somebody holds.
#[derive(Default)]
pub(super) struct Links {
    slots: Vec<(u32, Option<SimLink>)>,
    free: Vec<u32>,
}

impl Links {
    fn add(&mut self, link: SimLink) -> LinkHandle {
        match self.free.pop() {
            Some(slot) => {
                let held = &mut self.slots[slot as usize];
                held.1 = Some(link);
                LinkHandle { slot, generation: held.0 }
            }
            None => {
                self.slots.push((0, Some(link)));
                LinkHandle { slot: self.slots.len() as u32 - 1, generation: 0 }
            }
        }
    }

    fn get(&self, handle: LinkHandle) -> Option<&SimLink> {
        let (generation, link) = &self.slots[handle.slot as usize];
        link.as_ref().filter(|_| *generation == handle.generation)
    }

    fn get_mut(&mut self, handle: LinkHandle) -> Option<&mut SimLink> {
        let (generation, link) = &mut self.slots[handle.slot as usize];
        link.as_mut().filter(|_| *generation == handle.generation)
    }

    fn remove(&mut self, handle: LinkHandle) {
        let held = &mut self.slots[handle.slot as usize];
        if held.0 == handle.generation && held.1.take().is_some() {
            held.0 += 1;
            self.free.push(handle.slot);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl World {
    pub(super) fn open(&mut self, opener: NodeIndex, id: LinkId, target: LinkTarget) {
        let place = &self.nodes[opener.0].place;
        let opener_addr = match (place.nat, target.transport) {
            (Some(nat), Transport::Tls) => Some(SocketAddr::new(self.network.nat_mut(nat).public(), 50_000)),
            (None, _) | (Some(_), Transport::Quic) => self.network.source(self.mono, place, target.addr),
        };
        let mut exporter = [0; 32];
        self.rng.fill_bytes(&mut exporter);
        let round_trips = match target.transport {
            Transport::Quic => 1,
            Transport::Tls => 3,
        };
        let delay = match self.network.listener(&target) {
            Some(listener) => self.delay(opener, listener),
            None => self.weather.delay,
        };
        let link = self.links.add(SimLink {
            opener: (opener, id),
            acceptor: None,
            opener_addr,
            target,
            exporter,
            decoders: [FrameDecoder::new(), FrameDecoder::new()],
        });
        self.nodes[opener.0].links.insert(id, link);
        if opener_addr.is_some() {
            self.at(self.mono + delay * round_trips, Happening::LinkArrives { link });
        } else {
            self.fails(link, self.mono + self.weather.link_idle, LinkClosed::Unreachable);
        }
    }

    /// The opener learns that nothing came of it.
    fn fails(&mut self, link: LinkHandle, at: Instant, why: LinkClosed) {
        self.at(at, Happening::LinkEnds { link, toward_opener: true, why });
    }

    pub(super) fn link_arrives(&mut self, link: LinkHandle) {
        let Some(held) = self.links.get(link) else { return };
        let (opener, target) = (held.opener.0, held.target.clone());
        let cut = self.link_is_cut(held);
        let listening = self.network.listener(&target);
        let apart = listening.is_some_and(|listener| self.are_apart(opener, listener));
        let Some(acceptor) = listening.filter(|node| self.is_alive(*node) && !cut && !apart) else {
            // TCP to a host without the process is refused at once; QUIC only times out.
            let refused =
                self.network.is_host(target.addr.ip()) && target.transport == Transport::Tls && !apart;
            let wait = if refused { self.weather.delay } else { self.weather.link_idle };
            self.fails(link, self.mono + wait, LinkClosed::Unreachable);
            return;
        };
        let back = self.mono + self.delay(opener, acceptor);
        if target.key.is_some_and(|key| key != self.nodes[acceptor.0].place.key) {
            self.fails(link, back, LinkClosed::WrongKey);
            return;
        }
        self.counter += 1;
        let id = LinkId(LinkId::ACCEPTED | self.counter);
        let opener_key = self.nodes[opener.0].place.key;
        let Some(held) = self.links.get_mut(link) else { return };
        held.acceptor = Some((acceptor, id));
        let peer = LinkPeer {
            key: opener_key,
            exporter: held.exporter,
            addr: held.opener_addr.unwrap_or(target.addr),
            transport: target.transport,
        };
        self.nodes[acceptor.0].links.insert(id, link);
        self.at(back, Happening::LinkReady { link });
        self.tell(acceptor, id, LinkEvent::Opened(peer));
    }

    pub(super) fn link_ready(&mut self, link: LinkHandle) {
        let Some((opener, id)) = self.end_of(link, true) else { return };
        let Some(held) = self.links.get(link) else { return };
        let Some((acceptor, _)) = held.acceptor else { return };
        let peer = LinkPeer {
            key: self.nodes[acceptor.0].place.key,
            exporter: held.exporter,
            addr: held.target.addr,
            transport: held.target.transport,
        };
        self.tell(opener, id, LinkEvent::Opened(peer));
    }

    pub(super) fn write(&mut self, from: NodeIndex, id: LinkId, frame: Frame) {
        let Some(link) = self.nodes[from.0].links.get(&id).copied() else { return };
        let Some(held) = self.links.get(link) else { return };
        let toward_opener = held.opener != (from, id);
        let other = if toward_opener { Some(held.opener) } else { held.acceptor };
        let lost = self.link_is_cut(held);
        let Some((to, _)) = other else { return };
        let lost = lost || self.are_apart(from, to);
        let frames = match self.tamper.as_mut() {
            Some(tamper) => tamper(from, to, frame),
            None => vec![frame],
        };
        let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.body.len() + 4).sum());
        let mut sent = Traffic { frames: frames.len() as u64, ..Traffic::default() };
        for frame in frames {
            let encoded = frame.encode(&mut bytes);
            assert!(encoded.is_ok(), "a machine wrote a frame that cannot be encoded");
        }
        sent.frame_bytes = bytes.len() as u64;
        self.count(from, sent);
        if lost {
            self.lose(link);
            return;
        }
        let at = self.mono + self.delay(from, to);
        self.at(at, Happening::LinkBytes { link, toward_opener, bytes });
    }

    /// Both ends notice after the idle time that nothing comes any more.
    pub(super) fn lose(&mut self, link: LinkHandle) {
        let at = self.mono + self.weather.link_idle;
        for toward_opener in [true, false] {
            self.at(at, Happening::LinkEnds { link, toward_opener, why: LinkClosed::Lost });
        }
    }

    pub(super) fn link_bytes(&mut self, link: LinkHandle, toward_opener: bool, bytes: &[u8]) {
        let side = usize::from(!toward_opener);
        if let Some(held) = self.links.get_mut(link) {
            held.decoders[side].push(bytes);
        }
        loop {
            let Some((to, id)) = self.end_of(link, toward_opener) else { return };
            let Some(held) = self.links.get_mut(link) else { return };
            match held.decoders[side].poll() {
                Ok(Some(frame)) => {
                    self.witness(3, to, &frame.body);
                    self.tell(to, id, LinkEvent::Frame(frame));
                }
                Ok(None) => return,
                Err(_) => {
                    self.link_ends(link, toward_opener, LinkClosed::Protocol);
                    self.link_ends(link, !toward_opener, LinkClosed::Protocol);
                    return;
                }
            }
        }
    }

    pub(super) fn close(&mut self, from: NodeIndex, id: LinkId) {
        let Some(link) = self.nodes[from.0].links.remove(&id) else { return };
        let Some(held) = self.links.get(link) else { return };
        let toward_opener = held.opener != (from, id);
        let other = if toward_opener { Some(held.opener) } else { held.acceptor };
        if let Some((other, _)) = other {
            let at = self.mono + self.delay(from, other);
            self.at(at, Happening::LinkEnds { link, toward_opener, why: LinkClosed::Finished });
        }
        self.let_go(link);
    }

    pub(super) fn link_ends(&mut self, link: LinkHandle, toward_opener: bool, why: LinkClosed) {
        let Some((to, id)) = self.end_of(link, toward_opener) else { return };
        self.nodes[to.0].links.remove(&id);
        self.let_go(link);
        self.tell(to, id, LinkEvent::Closed(why));
    }

    /// Forgets a link that neither end holds.
    pub(super) fn let_go(&mut self, link: LinkHandle) {
        if self.end_of(link, true).is_none() && self.end_of(link, false).is_none() {
            self.links.remove(link);
        }
    }

    /// The end of a link, if that node still holds it.
    fn end_of(&self, link: LinkHandle, opener: bool) -> Option<(NodeIndex, LinkId)> {
        let held = self.links.get(link)?;
        let (node, id) = if opener { held.opener } else { held.acceptor? };
        (self.nodes[node.0].links.get(&id) == Some(&link)).then_some((node, id))
    }

    /// Whether a link's packets cannot get through: those of QUIC are datagrams.
    fn link_is_cut(&self, link: &SimLink) -> bool {
        let SimLink { opener_addr, target, .. } = link;
        target.transport == Transport::Quic
            && opener_addr.is_some_and(|opener| self.is_cut(opener.ip(), target.addr.ip()))
    }

    fn tell(&mut self, to: NodeIndex, id: LinkId, event: LinkEvent) {
        let now = self.now_of(to);
        if let Some(actor) = self.nodes[to.0].actor.as_mut() {
            actor.link(now, id, event);
            self.drain(to);
        }
    }
}
