//! One thread, one virtual clock, any number of root machines: the simulator.
//!
//! The world does what a driver does (see `yodel_wire::machine`): it feeds one thing, drains, and advances to the next
//! event. Datagrams cross NATs with delay, jitter and loss; links are ordered byte streams of frames with a handshake's
//! delay, encoded and decoded by the same code as on a real wire. Everything random comes from one seed, and a digest
//! over every delivery shows that two runs were the same.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_wire::frame::{Frame, FrameDecoder};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkClosed, LinkEvent, LinkId, LinkPeer, LinkTarget, Machine, Output, Ticket,
    Transport, Write,
};
use yodel_wire::time::{Instant, Now, UnixTime};

use super::nat::{Nat, NatKind};

/// Wall-clock time at the origin of every run: 2026-01-01T00:00:00Z.
pub const START: UnixTime = UnixTime::from_secs(1_767_225_600);

/// Timeouts of one machine within a second; above, its deadline does not move on and a real one would eat a core.
const TIMEOUTS_MAX: u32 = 5_000;

/// A node of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIndex(usize);

/// A NAT of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatIndex(usize);

/// How the network behaves between any two nodes.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, without jitter.
    pub delay: Duration,
    /// Added to a datagram's delay, uniformly from zero.
    pub jitter: Duration,
    /// Datagrams lost, per thousand. Links lose nothing, as QUIC and TCP repair.
    pub loss_permille: u32,
    /// How long a link to a dead node stays silent before it is called lost.
    pub link_idle: Duration,
    /// How long a commit takes.
    pub commit: Duration,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather {
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
            loss_permille: 0,
            link_idle: Duration::from_secs(10),
            commit: Duration::from_millis(1),
        }
    }
}

/// What a node is placed in the world with.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address and port of its one UDP socket; links are accepted there and on `ports`.
    pub addr: SocketAddr,
    /// Further TCP ports.
    pub ports: Vec<u16>,
    /// The NAT it sits behind.
    pub nat: Option<NatIndex>,
    /// The Ed25519 key its TLS handshakes prove.
    pub key: [u8; 32],
}

/// Decides what becomes of a frame between two nodes: returns the frames that arrive instead.
pub type Tamper = Box<dyn FnMut(NodeIndex, NodeIndex, Frame) -> Vec<Frame>>;

enum Happening {
    Datagram { to: NodeIndex, from: SocketAddr, bytes: Vec<u8> },
    LinkArrives { link: usize },
    LinkReady { link: usize },
    LinkBytes { link: usize, toward_opener: bool, bytes: Vec<u8> },
    LinkEnds { link: usize, toward_opener: bool, why: LinkClosed },
    Committed { to: NodeIndex, life: u32, ticket: Ticket, writes: Vec<Write> },
    Deadline { to: NodeIndex, life: u32, at: Instant },
}

struct SimLink {
    opener: (NodeIndex, LinkId),
    acceptor: Option<(NodeIndex, LinkId)>,
    lives: (u32, u32),
    opener_addr: SocketAddr,
    target: LinkTarget,
    exporter: [u8; 32],
    decoders: [FrameDecoder; 2],
    open: [bool; 2],
}

/// What the world needs of a machine, whatever its commands and events are.
trait Actor {
    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]);
    fn link(&mut self, now: Now, link: LinkId, event: LinkEvent);
    fn committed(&mut self, now: Now, ticket: Ticket);
    fn timeout(&mut self, now: Now);
    fn poll(&mut self, now: Now) -> Output<()>;
    fn as_any(&mut self) -> &mut dyn Any;
}

struct Held<M: Machine> {
    machine: M,
    events: VecDeque<(Instant, M::Event)>,
}

impl<M: Machine + 'static> Actor for Held<M> {
    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        self.machine.handle_datagram(now, from, bytes);
    }
    fn link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        self.machine.handle_link(now, link, event);
    }
    fn committed(&mut self, now: Now, ticket: Ticket) {
        self.machine.handle_committed(now, ticket, CommitResult::Stored);
    }
    fn timeout(&mut self, now: Now) {
        self.machine.handle_timeout(now);
    }
    fn poll(&mut self, now: Now) -> Output<()> {
        loop {
            match self.machine.poll_output() {
                Output::Event(event) => self.events.push_back((now.mono, event)),
                Output::Datagram { to, bytes } => return Output::Datagram { to, bytes },
                Output::Link(link, action) => return Output::Link(link, action),
                Output::Commit(ticket, writes) => return Output::Commit(ticket, writes),
                Output::Idle { deadline } => return Output::Idle { deadline },
            }
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

struct Node {
    actor: Option<Box<dyn Actor>>,
    place: Place,
    life: u32,
    links: BTreeMap<LinkId, usize>,
    deadline: Option<Instant>,
    /// Timeouts in the second that began then.
    timeouts: (Instant, u32),
    disk: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    clock_skew_ms: i64,
}

/// The world. Place nodes, then let time pass.
pub struct World {
    mono: Instant,
    rng: ChaCha20Rng,
    /// How the network behaves; may be changed at any time.
    pub weather: Weather,
    nodes: Vec<Node>,
    nats: Vec<Nat>,
    links: Vec<SimLink>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    counter: u64,
    digest: u64,
    tamper: Option<Tamper>,
    /// Datagrams and bytes sent by nodes, links not counted.
    pub sent: (u64, u64),
    /// Pairs of addresses that cannot reach each other by datagram; a QUIC link that would need it is lost.
    pub cut: Vec<(IpAddr, IpAddr)>,
    /// Sources whose datagrams to a destination vanish, while the other direction works.
    pub one_way: Vec<(IpAddr, IpAddr)>,
}

impl World {
    /// An empty world; everything random in it follows from `seed`.
    pub fn new(seed: u64) -> World {
        World {
            mono: Instant::ORIGIN,
            rng: ChaCha20Rng::seed_from_u64(seed),
            weather: Weather::default(),
            nodes: Vec::new(),
            nats: Vec::new(),
            links: Vec::new(),
            agenda: BTreeMap::new(),
            counter: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            tamper: None,
            sent: (0, 0),
            cut: Vec::new(),
            one_way: Vec::new(),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now { mono: self.mono, unix: START + self.mono.since(Instant::ORIGIN) }
    }

    /// A seed for a machine, drawn from the world's.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    /// A number below `bound`, drawn from the world's seed.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.next_u64() % bound }
    }

    /// Over every delivery so far: equal digests mean equal runs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// A NAT of this kind with this public address.
    pub fn add_nat(&mut self, kind: NatKind, public: IpAddr) -> NatIndex {
        self.nats.push(Nat::new(kind, public));
        NatIndex(self.nats.len() - 1)
    }

    /// The NAT itself, to reboot it.
    pub fn nat_mut(&mut self, nat: NatIndex) -> &mut Nat {
        &mut self.nats[nat.0]
    }

    /// Places a machine.
    pub fn add<M: Machine + 'static>(&mut self, place: Place, machine: M) -> NodeIndex {
        let index = NodeIndex(self.nodes.len());
        self.nodes.push(Node {
            actor: Some(Box::new(Held { machine, events: VecDeque::new() })),
            place,
            life: 0,
            links: BTreeMap::new(),
            deadline: None,
            timeouts: (self.mono, 0),
            disk: BTreeMap::new(),
            clock_skew_ms: 0,
        });
        self.drain(index);
        index
    }

    /// Puts a machine back in the place of a killed one, with the disk as it was.
    pub fn restart<M: Machine + 'static>(&mut self, index: NodeIndex, machine: M) {
        self.nodes[index.0].actor = Some(Box::new(Held { machine, events: VecDeque::new() }));
        self.drain(index);
    }

    /// `kill -9`: what was not committed is lost, peers are not told.
    pub fn kill(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index.0];
        node.actor = None;
        node.life += 1;
        node.deadline = None;
        let links = std::mem::take(&mut node.links);
        let at = self.mono + self.weather.link_idle;
        for (_, link) in links {
            for toward_opener in [true, false] {
                self.at(at, Happening::LinkEnds { link, toward_opener, why: LinkClosed::Lost });
            }
        }
    }

    /// Whether it runs.
    pub fn is_alive(&self, index: NodeIndex) -> bool {
        self.nodes[index.0].actor.is_some()
    }

    /// What it has on stable storage.
    pub fn disk(&self, index: NodeIndex) -> &BTreeMap<(&'static str, Vec<u8>), Vec<u8>> {
        &self.nodes[index.0].disk
    }

    /// The address it was placed at.
    pub fn addr(&self, index: NodeIndex) -> SocketAddr {
        self.nodes[index.0].place.addr
    }

    /// Sets a node's wall clock off by this much.
    pub fn skew_clock(&mut self, index: NodeIndex, millis: i64) {
        self.nodes[index.0].clock_skew_ms = millis;
    }

    /// From now on every frame on every link goes through `tamper`.
    pub fn set_tamper(&mut self, tamper: Option<Tamper>) {
        self.tamper = tamper;
    }

    /// Acts on a machine and carries out what it then wants. Panics when it is dead or of another type: a test's error.
    pub fn with<M: Machine + 'static, R>(
        &mut self,
        index: NodeIndex,
        act: impl FnOnce(&mut M, Now) -> R,
    ) -> R {
        let now = self.now_of(index);
        let result = act(&mut self.held::<M>(index).machine, now);
        self.drain(index);
        result
    }

    /// The events of a machine since the last call, with when each happened.
    pub fn events<M: Machine + 'static>(&mut self, index: NodeIndex) -> Vec<(Instant, M::Event)> {
        self.held::<M>(index).events.drain(..).collect()
    }

    #[allow(clippy::expect_used)]
    fn held<M: Machine + 'static>(&mut self, index: NodeIndex) -> &mut Held<M> {
        let actor = self.nodes[index.0].actor.as_mut().expect("the node is alive");
        actor.as_any().downcast_mut().expect("the node holds this machine")
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.mono + duration;
        while self.step(end) {}
        self.mono = end;
    }

    /// Lets time pass until `done` or the limit; tells whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.mono + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.mono = end;
                return done(self);
            }
        }
    }

    /// One happening not after `end`; false when there is none.
    fn step(&mut self, end: Instant) -> bool {
        let Some(entry) = self.agenda.first_entry() else { return false };
        if entry.key().0 > end {
            return false;
        }
        let ((at, _), happening) = entry.remove_entry();
        self.mono = self.mono.max(at);
        self.happen(happening);
        true
    }

    fn at(&mut self, at: Instant, happening: Happening) {
        self.counter += 1;
        self.agenda.insert((at, self.counter), happening);
    }

    fn now_of(&self, index: NodeIndex) -> Now {
        let now = self.now();
        let millis = now.unix.as_millis().saturating_add_signed(self.nodes[index.0].clock_skew_ms);
        Now { mono: now.mono, unix: UnixTime::from_millis(millis) }
    }

    fn witness(&mut self, what: u8, node: NodeIndex, bytes: &[u8]) {
        let stamp = self.mono.as_micros().to_le_bytes();
        for byte in [what, node.0 as u8].iter().chain(&stamp).chain(bytes) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { to, from, bytes } => {
                let now = self.now_of(to);
                if let Some(actor) = self.nodes[to.0].actor.as_mut() {
                    actor.datagram(now, from, &bytes);
                    self.witness(1, to, &bytes);
                    self.drain(to);
                }
            }
            Happening::LinkArrives { link } => self.link_arrives(link),
            Happening::LinkReady { link } => self.link_ready(link),
            Happening::LinkBytes { link, toward_opener, bytes } => {
                self.link_bytes(link, toward_opener, &bytes)
            }
            Happening::LinkEnds { link, toward_opener, why } => self.link_ends(link, toward_opener, why),
            Happening::Committed { to, life, ticket, writes } => {
                let node = &mut self.nodes[to.0];
                if node.life != life {
                    return;
                }
                for write in writes {
                    match write.value {
                        Some(value) => node.disk.insert((write.tree, write.key), value),
                        None => node.disk.remove(&(write.tree, write.key)),
                    };
                }
                let now = self.now_of(to);
                if let Some(actor) = self.nodes[to.0].actor.as_mut() {
                    actor.committed(now, ticket);
                    self.drain(to);
                }
            }
            Happening::Deadline { to, life, at } => {
                let node = &mut self.nodes[to.0];
                if node.life != life || node.deadline != Some(at) {
                    return;
                }
                node.deadline = None;
                if self.mono.since(node.timeouts.0) >= Duration::from_secs(1) {
                    node.timeouts = (self.mono, 0);
                }
                node.timeouts.1 += 1;
                assert!(
                    node.timeouts.1 < TIMEOUTS_MAX,
                    "{to:?} at {} does nothing but time out",
                    node.place.addr
                );
                let now = self.now_of(to);
                if let Some(actor) = self.nodes[to.0].actor.as_mut() {
                    actor.timeout(now);
                    self.witness(2, to, &[]);
                    self.drain(to);
                }
            }
        }
    }

    fn drain(&mut self, index: NodeIndex) {
        let now = self.now_of(index);
        loop {
            let Some(actor) = self.nodes[index.0].actor.as_mut() else { return };
            match actor.poll(now) {
                Output::Datagram { to, bytes } => self.send(index, to, bytes),
                Output::Link(link, LinkAction::Open(target)) => self.open(index, link, target),
                Output::Link(link, LinkAction::Write(frame)) => self.write(index, link, frame),
                Output::Link(link, LinkAction::Close) => self.close(index, link),
                Output::Commit(ticket, writes) => {
                    let life = self.nodes[index.0].life;
                    let at = self.mono + self.weather.commit;
                    self.at(at, Happening::Committed { to: index, life, ticket, writes });
                }
                Output::Event(()) => {}
                Output::Idle { deadline } => {
                    let node = &mut self.nodes[index.0];
                    if node.deadline != deadline {
                        node.deadline = deadline;
                        let life = node.life;
                        if let Some(at) = deadline {
                            // A machine whose deadline is always past would stop time; a microsecond moves it on.
                            let when = at.max(self.mono + Duration::from_micros(1));
                            self.at(when, Happening::Deadline { to: index, life, at });
                        }
                    }
                    return;
                }
            }
        }
    }

    // --- datagrams

    fn send(&mut self, from: NodeIndex, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= yodel_wire::limits::DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        self.sent.0 += 1;
        self.sent.1 += bytes.len() as u64;
        if self.below(1_000) < u64::from(self.weather.loss_permille) {
            return;
        }
        let jitter_us = self.below(self.weather.jitter.as_micros() as u64 + 1);
        let Some((target, source, local)) = self.route(from, to) else { return };
        let delay = if local { Duration::from_micros(200) } else { self.weather.delay };
        let at = self.mono + delay + Duration::from_micros(jitter_us);
        self.at(at, Happening::Datagram { to: target, from: source, bytes });
    }

    /// Whom a datagram reaches, the source it shows, and whether it stayed in one home.
    fn route(&mut self, from: NodeIndex, to: SocketAddr) -> Option<(NodeIndex, SocketAddr, bool)> {
        let inside = self.nodes[from.0].place.addr;
        let nat = self.nodes[from.0].place.nat;
        if let Some(lan) =
            self.nodes.iter().position(|n| n.place.addr == to && n.place.nat == nat && nat.is_some())
        {
            return Some((NodeIndex(lan), inside, true));
        }
        let source = match nat {
            Some(NatIndex(nat)) => self.nats[nat].outbound(self.mono, inside, to)?,
            None => inside,
        };
        if self.is_cut(source.ip(), to.ip()) || self.one_way.contains(&(source.ip(), to.ip())) {
            return None;
        }
        if let Some(public) = self.nodes.iter().position(|n| n.place.addr == to && n.place.nat.is_none()) {
            return Some((NodeIndex(public), source, false));
        }
        let behind = self.nats.iter().position(|n| n.public() == to.ip())?;
        let inner = self.nats[behind].inbound(self.mono, to.port(), source)?;
        let found =
            self.nodes.iter().position(|n| n.place.addr == inner && n.place.nat == Some(NatIndex(behind)))?;
        Some((NodeIndex(found), source, false))
    }

    fn is_cut(&self, one: IpAddr, other: IpAddr) -> bool {
        self.cut.contains(&(one, other)) || self.cut.contains(&(other, one))
    }

    /// Whether a link's packets cannot get through: those of QUIC are datagrams.
    fn link_is_cut(&self, link: usize) -> bool {
        let SimLink { opener_addr, target, .. } = &self.links[link];
        target.transport == Transport::Quic && self.is_cut(opener_addr.ip(), target.addr.ip())
    }

    // --- links

    fn open(&mut self, opener: NodeIndex, id: LinkId, target: LinkTarget) {
        let place = &self.nodes[opener.0].place;
        let inside = place.addr;
        let opener_addr = match (place.nat, target.transport) {
            (Some(NatIndex(nat)), Transport::Quic) => self.nats[nat].outbound(self.mono, inside, target.addr),
            (Some(NatIndex(nat)), Transport::Tls) => Some(SocketAddr::new(self.nats[nat].public(), 50_000)),
            (None, _) => Some(inside),
        };
        let mut exporter = [0; 32];
        self.rng.fill_bytes(&mut exporter);
        let link = self.links.len();
        let reachable = opener_addr.is_some();
        let round_trips = match target.transport {
            Transport::Quic => 1,
            Transport::Tls => 3,
        };
        self.links.push(SimLink {
            opener: (opener, id),
            acceptor: None,
            lives: (self.nodes[opener.0].life, 0),
            opener_addr: opener_addr.unwrap_or(inside),
            target,
            exporter,
            decoders: [FrameDecoder::new(), FrameDecoder::new()],
            open: [false, false],
        });
        self.nodes[opener.0].links.insert(id, link);
        if reachable {
            let at = self.mono + self.weather.delay * round_trips;
            self.at(at, Happening::LinkArrives { link });
        } else {
            let at = self.mono + self.weather.link_idle;
            self.at(at, Happening::LinkEnds { link, toward_opener: true, why: LinkClosed::Unreachable });
        }
    }

    fn link_arrives(&mut self, link: usize) {
        let target = self.links[link].target.clone();
        let opener = self.links[link].opener.0;
        let cut = self.link_is_cut(link);
        let listening = self.nodes.iter().position(|node| {
            let port = target.addr.port();
            let tls = target.transport == Transport::Tls && node.place.ports.contains(&port);
            node.place.addr.ip() == target.addr.ip()
                && (node.place.addr.port() == port || tls)
                && node.place.nat.is_none()
                && node.actor.is_some()
                && !cut
        });
        let back = self.mono + self.weather.delay;
        let Some(acceptor) = listening else {
            let dead = self.nodes.iter().any(|n| n.place.addr.ip() == target.addr.ip());
            // TCP to a host without the process is refused at once; QUIC only times out.
            let at = if dead && target.transport == Transport::Tls {
                back
            } else {
                self.mono + self.weather.link_idle
            };
            self.at(at, Happening::LinkEnds { link, toward_opener: true, why: LinkClosed::Unreachable });
            return;
        };
        if target.key.is_some_and(|key| key != self.nodes[acceptor].place.key) {
            self.at(back, Happening::LinkEnds { link, toward_opener: true, why: LinkClosed::WrongKey });
            return;
        }
        self.counter += 1;
        let id = LinkId(LinkId::ACCEPTED | self.counter);
        let acceptor = NodeIndex(acceptor);
        self.links[link].acceptor = Some((acceptor, id));
        self.links[link].lives.1 = self.nodes[acceptor.0].life;
        self.links[link].open[1] = true;
        self.nodes[acceptor.0].links.insert(id, link);
        self.at(back, Happening::LinkReady { link });
        let peer = LinkPeer {
            key: self.nodes[opener.0].place.key,
            exporter: self.links[link].exporter,
            addr: self.links[link].opener_addr,
            transport: target.transport,
        };
        self.tell(acceptor, id, LinkEvent::Opened(peer));
    }

    fn link_ready(&mut self, link: usize) {
        let (opener, id) = self.links[link].opener;
        let Some((acceptor, _)) = self.links[link].acceptor else { return };
        if !self.nodes[opener.0].links.contains_key(&id)
            || self.nodes[opener.0].life != self.links[link].lives.0
        {
            return;
        }
        self.links[link].open[0] = true;
        let peer = LinkPeer {
            key: self.nodes[acceptor.0].place.key,
            exporter: self.links[link].exporter,
            addr: self.links[link].target.addr,
            transport: self.links[link].target.transport,
        };
        self.tell(opener, id, LinkEvent::Opened(peer));
    }

    fn write(&mut self, from: NodeIndex, id: LinkId, frame: Frame) {
        let Some(link) = self.nodes[from.0].links.get(&id).copied() else { return };
        let toward_opener = self.links[link].opener != (from, id);
        let other = if toward_opener { Some(self.links[link].opener) } else { self.links[link].acceptor };
        let Some((to, _)) = other else { return };
        let frames = match self.tamper.as_mut() {
            Some(tamper) => tamper(from, to, frame),
            None => vec![frame],
        };
        let mut bytes = Vec::new();
        for frame in frames {
            let encoded = frame.encode(&mut bytes);
            assert!(encoded.is_ok(), "a machine wrote a frame that cannot be encoded");
        }
        if self.link_is_cut(link) {
            let at = self.mono + self.weather.link_idle;
            for toward_opener in [true, false] {
                self.at(at, Happening::LinkEnds { link, toward_opener, why: LinkClosed::Lost });
            }
            return;
        }
        let at = self.mono + self.weather.delay;
        self.at(at, Happening::LinkBytes { link, toward_opener, bytes });
    }

    fn link_bytes(&mut self, link: usize, toward_opener: bool, bytes: &[u8]) {
        let side = usize::from(!toward_opener);
        self.links[link].decoders[side].push(bytes);
        loop {
            let Some((to, id)) = self.end_of(link, toward_opener) else { return };
            match self.links[link].decoders[side].poll() {
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

    fn close(&mut self, from: NodeIndex, id: LinkId) {
        let Some(link) = self.nodes[from.0].links.remove(&id) else { return };
        let toward_opener = self.links[link].opener != (from, id);
        let at = self.mono + self.weather.delay;
        self.at(at, Happening::LinkEnds { link, toward_opener, why: LinkClosed::Finished });
    }

    fn link_ends(&mut self, link: usize, toward_opener: bool, why: LinkClosed) {
        let Some((to, id)) = self.end_of(link, toward_opener) else { return };
        self.nodes[to.0].links.remove(&id);
        self.tell(to, id, LinkEvent::Closed(why));
    }

    /// The end of a link that still holds it, in the life in which it was opened.
    fn end_of(&self, link: usize, opener: bool) -> Option<(NodeIndex, LinkId)> {
        let held = &self.links[link];
        let (end, life) =
            if opener { (Some(held.opener), held.lives.0) } else { (held.acceptor, held.lives.1) };
        let (node, id) = end?;
        let node_state = &self.nodes[node.0];
        (node_state.life == life && node_state.links.get(&id) == Some(&link)).then_some((node, id))
    }

    fn tell(&mut self, to: NodeIndex, id: LinkId, event: LinkEvent) {
        let now = self.now_of(to);
        if let Some(actor) = self.nodes[to.0].actor.as_mut() {
            actor.link(now, id, event);
            self.drain(to);
        }
    }
}
