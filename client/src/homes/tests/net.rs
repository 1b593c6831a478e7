//! Supernodes at a distance, as a phone's homes see them: probes answered, links opened, hellos welcomed or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::bulletin::{Bulletin, BulletinFields, RevokedSet, SupernodeEntry, revoked_hash};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::RealmName;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::{IssuerKey, Realm, RootStatement, RootStatementFields};
use yodel_overlay::attach::{Ping, Pong, Refuse, RefuseReason, VERSION, Welcome};
use yodel_overlay::card::{Card, CardsWanted, Service, cards_frames};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkClosed, LinkEvent, LinkId, LinkPeer, Transport};
use yodel_wire::time::{Instant, Now, UnixTime};

use super::super::{Homes, HomesOutput, LinkIds};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const T0: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(super) fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

fn realm_name() -> RealmName {
    RealmName::parse("example.net").unwrap()
}

fn realm() -> Realm {
    let mut realm = Realm::new(realm_name(), key(251).public());
    let issuer = IssuerKey { key: key(252).public(), not_before: T0 - DAY, not_after: T0 + 365 * DAY };
    let fields = RootStatementFields {
        realm: realm_name(),
        issued: T0 - DAY,
        issuers: vec![issuer],
        tls_keys: vec![key(253).public()],
        servers: vec!["198.51.100.9:4433".to_owned()],
    };
    realm.accept_statement(RootStatement::issue(&key(251), &fields).unwrap().bytes(), T0).unwrap();
    realm
}

/// A supernode.
#[derive(Clone)]
pub(super) struct Far {
    pub(super) rtt: Duration,
    pub(super) is_dead: bool,
    /// Full: sends everybody to this one.
    pub(super) sends_to: Option<u8>,
    /// It filled up since it was probed.
    pub(super) is_silent_about_it: bool,
    /// Whose cards it has.
    pub(super) knows: Vec<u8>,
    addr: SocketAddr,
    credential: Credential,
    seed: [u8; 32],
}

enum Happening {
    Stun(SocketAddr, Vec<u8>),
    Link(LinkId, LinkEvent),
    /// A frame reaches a supernode.
    Frame(LinkId, Frame),
}

pub(super) struct Net {
    pub(super) homes: Homes,
    pub(super) now: Now,
    pub(super) udp_shut: bool,
    pub(super) stun_asked: BTreeMap<SocketAddr, usize>,
    pub(super) opened: Vec<(Instant, u8, Transport)>,
    pub(super) ups: Vec<(Instant, NodeId)>,
    pub(super) downs: Vec<(Instant, NodeId)>,
    pub(super) asked_for_cards: Vec<(u8, NodeId)>,
    pub(super) stored: BTreeMap<NodeId, Vec<u8>>,
    realm: Realm,
    links: LinkIds,
    far: BTreeMap<u8, Far>,
    open: BTreeMap<LinkId, (u8, Transport)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    frames: Vec<FrameKind>,
    revoked: RevokedSet,
    epoch: u64,
    counted: u64,
}

fn credential(node: NodeId, own: &SigningKey, owner: u8, serial: u64, issued: UnixTime) -> Credential {
    let fields = CredentialFields {
        realm: realm_name(),
        subject: Subject::Supernode { owner: OwnerTag([owner; 16]) },
        key: own.public(),
        sealing: SealingKey::from_bytes([1; 32]).public(),
        node,
        roles: Roles::SUPERNODE,
        not_before: issued,
        not_after: issued + 7 * DAY,
        serial,
        issuer: IssuerId::default(),
    };
    Credential::issue(&key(252), fields).unwrap()
}

impl Net {
    pub(super) fn new(seed: u8) -> Net {
        Net {
            homes: Homes::new(b"the phone's".to_vec(), [seed; 32]),
            now: Now { mono: Instant::from_micros(1), unix: T0 },
            udp_shut: false,
            stun_asked: BTreeMap::new(),
            opened: Vec::new(),
            ups: Vec::new(),
            downs: Vec::new(),
            asked_for_cards: Vec::new(),
            stored: BTreeMap::new(),
            realm: realm(),
            links: LinkIds::default(),
            far: BTreeMap::new(),
            open: BTreeMap::new(),
            queue: BTreeMap::new(),
            frames: Vec::new(),
            revoked: RevokedSet::new(),
            epoch: 0,
            counted: 0,
        }
    }

    /// A supernode; the phone knows nothing of it yet.
    pub(super) fn add(&mut self, n: u8, rtt: Duration) {
        let far = Far {
            rtt,
            is_dead: false,
            sends_to: None,
            is_silent_about_it: false,
            knows: Vec::new(),
            addr: SocketAddr::from(([192, 0, 2, n], 5061)),
            credential: credential(node(n), &key(n), n, 1, T0),
            seed: [n; 32],
        };
        self.far.insert(n, far);
    }

    /// One of many that exist on their cards alone.
    pub(super) fn add_numbered(&mut self, n: u8, round: u8) {
        let mut id = [n; 16];
        id[15] = round;
        let credential = credential(NodeId(id), &key(n), n, 1, T0);
        let addr = vec![SocketAddr::from(([20, round, n, 1], 5061))];
        let card = Card::sign(&key(n), credential, 1, Service::Alive, addr, vec![]).unwrap();
        self.hand(&card.encode());
    }

    pub(super) fn get(&mut self, n: u8) -> &mut Far {
        self.far.get_mut(&n).unwrap()
    }

    /// Gives a supernode to another's owner.
    pub(super) fn own(&mut self, n: u8, owner: u8) {
        let now = self.now.unix;
        self.get(n).credential = credential(node(n), &key(n), owner, 2, now);
        self.bulletin();
    }

    pub(super) fn renew(&mut self, n: u8) {
        let now = self.now.unix;
        self.get(n).credential = credential(node(n), &key(n), n, 3, now);
    }

    pub(super) fn move_to(&mut self, n: u8, addr: &str) -> SocketAddr {
        self.now_at(n, addr);
        self.far[&n].addr
    }

    pub(super) fn now_at(&mut self, n: u8, addr: &str) {
        self.get(n).addr = addr.parse().unwrap();
    }

    /// The next bulletin; it names all, as they are when it is made.
    pub(super) fn bulletin(&mut self) {
        self.epoch += 1;
        let named = self.far.iter().filter(|(n, _)| !self.revoked.contains_key(&node(**n)));
        let supernodes: Vec<SupernodeEntry> = named
            .map(|(_, far)| SupernodeEntry {
                credential: far.credential.clone(),
                udp: vec![far.addr],
                tcp: vec![far.addr],
            })
            .collect();
        let fields = BulletinFields {
            realm: realm_name(),
            epoch: self.epoch,
            issued: self.now.unix,
            supernodes: supernodes.clone(),
            oldest_version: 1,
            newest_version: 1,
            revoked_hash: revoked_hash(&self.revoked),
            revoked_pages: 0,
            revoked_newest: self.revoked.clone(),
            issuer: IssuerId::default(),
        };
        let bulletin = Bulletin::issue(&key(252), fields).unwrap();
        self.realm.accept_bulletin(bulletin.bytes(), self.now.unix).unwrap();
        self.homes.set_bulletin(self.now, &self.realm, &supernodes, &mut self.links);
        self.drain();
    }

    pub(super) fn revoke(&mut self, n: u8) {
        self.revoked.insert(node(n), self.now.unix + 10 * DAY);
        self.bulletin();
    }

    fn card(&self, n: u8, incarnation: u64, service: Service) -> Vec<u8> {
        let far = &self.far[&n];
        let key = SigningKey::from_seed(far.seed);
        let addrs = vec![far.addr];
        Card::sign(&key, far.credential.clone(), incarnation, service, addrs.clone(), addrs).unwrap().encode()
    }

    /// The phone kept a card from an earlier run.
    pub(super) fn remember(&mut self, n: u8) {
        let card = self.card(n, 1, Service::Alive);
        self.homes.load_card(self.now, &self.realm, &node(n).0, &card);
    }

    /// A home hands over a card.
    pub(super) fn hand_card(&mut self, n: u8, incarnation: u64, service: Service) {
        let card = self.card(n, incarnation, service);
        self.hand(&card);
    }

    fn hand(&mut self, card: &[u8]) {
        let home = self.homes.warm()[0].node;
        let link = *self.open.iter().find(|(_, (n, _))| node(*n) == home).unwrap().0;
        for frame in cards_frames(&[card.to_vec()]) {
            self.homes.handle_link(self.now, &self.realm, link, LinkEvent::Frame(frame), &mut self.links);
        }
        self.drain();
    }

    /// A home tells the phone to go to another.
    pub(super) fn farewell(&mut self, n: u8, to: u8) {
        let link = *self.open.iter().find(|(_, (open, _))| *open == n).unwrap().0;
        let frame = self.elsewhere(to, RefuseReason::Draining).encode_goodbye();
        self.homes.handle_link(self.now, &self.realm, link, LinkEvent::Frame(frame), &mut self.links);
        self.drain();
    }

    fn elsewhere(&self, to: u8, reason: RefuseReason) -> Refuse {
        Refuse {
            reason,
            come_back: Duration::from_secs(30),
            redirect: Some(node(to)),
            card: Some(self.card(to, 1, Service::Alive)),
        }
    }

    pub(super) fn want(&mut self, n: u8) -> bool {
        let granted = self.homes.want(self.now, node(n), &mut self.links);
        self.drain();
        granted
    }

    pub(super) fn unwant(&mut self, n: u8) {
        self.homes.unwant(self.now, node(n), &mut self.links);
        self.drain();
    }

    /// The phone starts again, with what was stored and no bulletin.
    pub(super) fn restart(&self) -> Net {
        let mut again = Net::new(8);
        again.now = self.now;
        again.far.clone_from(&self.far);
        again.stored.clone_from(&self.stored);
        for (key, card) in &self.stored {
            again.homes.load_card(again.now, &again.realm, &key.0, card);
        }
        again.homes.handle_timeout(again.now, &again.realm, &mut again.links);
        again.drain();
        again
    }

    pub(super) fn warm(&self) -> Vec<NodeId> {
        self.homes.warm().iter().map(|home| home.node).collect()
    }

    pub(super) fn up_at(&self, node: NodeId) -> Instant {
        self.ups.iter().rfind(|(_, up)| *up == node).unwrap().0
    }

    pub(super) fn down_at(&self, node: NodeId) -> Instant {
        self.downs.iter().rfind(|(_, down)| *down == node).unwrap().0
    }

    pub(super) fn took(&self, node: NodeId) -> Duration {
        self.up_at(node).since(Instant::from_micros(1))
    }

    pub(super) fn opened_to(&self, n: u8) -> usize {
        self.opened.iter().filter(|(_, to, transport)| *to == n && *transport == Transport::Quic).count()
    }

    pub(super) fn said(&self, kind: FrameKind) -> usize {
        self.frames.iter().filter(|said| **said == kind).count()
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now.mono + time;
        loop {
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let deadline = self.homes.deadline();
            let Some(at) = next.into_iter().chain(deadline).min().filter(|at| *at <= until) else { break };
            let at = at.max(self.now.mono);
            self.now = Now { mono: at, unix: self.now.unix + at.since(self.now.mono) };
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= at
            {
                let happening = entry.remove();
                self.happen(happening);
            }
            if self.homes.deadline().is_some_and(|due| due <= at) {
                self.homes.handle_timeout(self.now, &self.realm, &mut self.links);
                self.drain();
                let due = self.homes.deadline();
                assert!(due.is_none_or(|due| due > at), "it would spin at {at}");
            }
        }
        self.now = Now { mono: until, unix: self.now.unix + until.since(self.now.mono) };
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Stun(from, bytes) => {
                assert!(self.homes.handle_stun(self.now, from, &bytes, &mut self.links));
                assert!(!self.homes.handle_stun(self.now, from, &bytes, &mut self.links), "counts once");
            }
            Happening::Link(link, event) => {
                if self.homes.owns(link) {
                    self.homes.handle_link(self.now, &self.realm, link, event, &mut self.links);
                }
            }
            Happening::Frame(link, frame) => self.arrives(link, &frame),
        }
        self.drain();
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.counted += 1;
        self.queue.insert((self.now.mono + after, self.counted), happening);
    }

    /// A frame is at a supernode.
    fn arrives(&mut self, link: LinkId, frame: &Frame) {
        let Some((n, _)) = self.open.get(&link).copied() else { return };
        let far = self.far[&n].clone();
        if far.is_dead {
            return;
        }
        self.frames.push(frame.kind);
        let observed = SocketAddr::from(([203, 0, 113, 9], 5000));
        let answers = match (frame.kind, far.sends_to) {
            (FrameKind::Hello, Some(to)) => vec![self.elsewhere(to, RefuseReason::Full).encode_refuse()],
            (FrameKind::Hello, None) => {
                let welcome = Welcome {
                    time: self.now.unix,
                    observed,
                    credential: far.credential.bytes().to_vec(),
                    version: VERSION,
                    clients: 1,
                    boot: [n; 16],
                    announcement: None,
                };
                vec![welcome.encode()]
            }
            (FrameKind::Ping, _) => {
                let nonce = Ping::decode(&frame.body).unwrap().nonce;
                vec![Pong { nonce, observed }.encode()]
            }
            (FrameKind::CardsWanted, _) => {
                let wanted = CardsWanted::decode(&frame.body).unwrap().nodes;
                self.asked_for_cards.extend(wanted.iter().map(|node| (n, *node)));
                let known = far.knows.iter().filter(|known| wanted.contains(&node(**known)));
                let cards: Vec<Vec<u8>> = known.map(|known| self.card(*known, 9, Service::Alive)).collect();
                cards_frames(&cards)
            }
            (other, _) => panic!("a home is not told {other:?}"),
        };
        for answer in answers {
            self.later(far.rtt / 2, Happening::Link(link, LinkEvent::Frame(answer)));
        }
    }

    fn at(&self, addr: SocketAddr) -> Option<(u8, Far)> {
        self.far.iter().find(|(_, far)| far.addr == addr).map(|(n, far)| (*n, far.clone()))
    }

    fn drain(&mut self) {
        while let Some(output) = self.homes.poll_output() {
            match output {
                HomesOutput::Datagram { to, bytes } => {
                    *self.stun_asked.entry(to).or_insert(0) += 1;
                    let seen = SocketAddr::from(([203, 0, 113, 9], 5000));
                    if let Some((_, far)) = self.at(to).filter(|(_, far)| !far.is_dead && !self.udp_shut) {
                        let is_full = far.sends_to.is_some() && !far.is_silent_about_it;
                        let stay_away = Duration::from_secs(if is_full { 30 } else { 0 });
                        let answer = yodel_nat::server::answer_probe(seen, &bytes, || stay_away).unwrap();
                        self.later(far.rtt, Happening::Stun(to, answer));
                    }
                }
                HomesOutput::Link(link, LinkAction::Open(target)) => {
                    let Some((n, far)) = self.at(target.addr) else { continue };
                    self.opened.push((self.now.mono, n, target.transport));
                    self.open.insert(link, (n, target.transport));
                    let is_shut = self.udp_shut && target.transport == Transport::Quic;
                    let peer = LinkPeer {
                        key: far.credential.key.0,
                        exporter: [n; 32],
                        addr: target.addr,
                        transport: target.transport,
                    };
                    match (far.is_dead, target.transport) {
                        (true, Transport::Tls) => {
                            let closed = LinkEvent::Closed(LinkClosed::Unreachable);
                            self.later(far.rtt, Happening::Link(link, closed));
                        }
                        (false, _) if !is_shut => {
                            self.later(far.rtt, Happening::Link(link, LinkEvent::Opened(peer)));
                        }
                        (true | false, _) => {}
                    }
                }
                HomesOutput::Link(link, LinkAction::Write(frame)) => {
                    let Some((n, _)) = self.open.get(&link) else { continue };
                    let half = self.far[n].rtt / 2;
                    self.later(half, Happening::Frame(link, frame));
                }
                HomesOutput::Link(link, LinkAction::Close) => {
                    self.open.remove(&link);
                }
                HomesOutput::Up(node) => self.ups.push((self.now.mono, node)),
                HomesOutput::Down(node) => self.downs.push((self.now.mono, node)),
                HomesOutput::Observed(_) | HomesOutput::Frame(..) | HomesOutput::Refused(_) => {}
            }
        }
        for write in self.homes.take_writes() {
            let node = NodeId(write.key.as_slice().try_into().unwrap());
            match write.value {
                Some(card) => self.stored.insert(node, card),
                None => self.stored.remove(&node),
            };
        }
    }
}
