//! One thread, one virtual clock, any number of root machines: the simulator.
//!
//! The world does what a driver does (see `yodel_wire::machine`): it feeds one thing, drains, and advances to the next
//! event. Datagrams cross NATs with delay, jitter and loss; links are ordered byte streams of frames with a handshake's
//! delay, encoded and decoded by the same code as on a real wire. Everything random comes from one seed, and a digest
//! over every delivery shows that two runs were the same.
//!
//! It holds ten thousand supernodes and a hundred thousand phones: whatever happens costs the logarithm of their
//! number, and what is over is forgotten.

mod actor;
mod links;
mod network;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkAction, LinkClosed, LinkId, Machine, Output, Ticket, Write};
use yodel_wire::time::{Instant, Now, UnixTime};

use self::actor::{Actor, Held};
use self::links::{LinkHandle, Links};
use self::network::{Network, Route, pair_delay};
pub use self::network::{Traffic, Weather};
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
    LinkArrives { link: LinkHandle },
    LinkReady { link: LinkHandle },
    LinkBytes { link: LinkHandle, toward_opener: bool, bytes: Vec<u8> },
    LinkEnds { link: LinkHandle, toward_opener: bool, why: LinkClosed },
    Committed { to: NodeIndex, life: u32, ticket: Ticket, writes: Vec<Write> },
    Deadline { to: NodeIndex },
}

struct Node {
    actor: Option<Box<dyn Actor>>,
    place: Place,
    life: u32,
    links: BTreeMap<LinkId, LinkHandle>,
    /// What it asked to be woken at, and where that stands on the agenda.
    deadline: Option<(Instant, (Instant, u64))>,
    /// Timeouts in the second that began then.
    timeouts: (Instant, u32),
    disk: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    clock_skew_ms: i64,
    sent: Traffic,
    group: u8,
    /// The node in whose machine room it stands.
    beside: Option<NodeIndex>,
}

/// The world. Place nodes, then let time pass.
pub struct World {
    mono: Instant,
    rng: ChaCha20Rng,
    /// How the network behaves; may be changed at any time.
    pub weather: Weather,
    nodes: Vec<Node>,
    network: Network,
    links: Links,
    agenda: BTreeMap<(Instant, u64), Happening>,
    counter: u64,
    digest: u64,
    tamper: Option<Tamper>,
    /// What all nodes have sent.
    pub sent: Traffic,
    /// Pairs of addresses that cannot reach each other by datagram; a QUIC link that would need it is lost.
    pub cut: Vec<(IpAddr, IpAddr)>,
    /// Sources whose datagrams to a destination vanish, while the other direction works.
    pub one_way: Vec<(IpAddr, IpAddr)>,
    /// Nothing is ever read back from a disk: what is written takes time, and is forgotten.
    pub diskless: bool,
    /// While set, nothing passes between nodes of different groups; see [`World::set_group`].
    pub partitioned: bool,
}

impl World {
    /// An empty world; everything random in it follows from `seed`.
    pub fn new(seed: u64) -> World {
        World {
            mono: Instant::ORIGIN,
            rng: ChaCha20Rng::seed_from_u64(seed),
            weather: Weather::default(),
            nodes: Vec::new(),
            network: Network::default(),
            links: Links::default(),
            agenda: BTreeMap::new(),
            counter: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            tamper: None,
            sent: Traffic::default(),
            cut: Vec::new(),
            one_way: Vec::new(),
            diskless: false,
            partitioned: false,
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
        self.network.add_nat(kind, public)
    }

    /// The NAT itself, to reboot it.
    pub fn nat_mut(&mut self, nat: NatIndex) -> &mut Nat {
        self.network.nat_mut(nat)
    }

    /// Places a machine.
    pub fn add<M: Machine + 'static>(&mut self, place: Place, machine: M) -> NodeIndex {
        let index = NodeIndex(self.nodes.len());
        self.network.add(index, &place);
        self.nodes.push(Node {
            actor: Some(Box::new(Held::new(machine))),
            place,
            life: 0,
            links: BTreeMap::new(),
            deadline: None,
            timeouts: (self.mono, 0),
            disk: BTreeMap::new(),
            clock_skew_ms: 0,
            sent: Traffic::default(),
            group: 0,
            beside: None,
        });
        self.drain(index);
        index
    }

    /// Puts a machine back in the place of a killed one, with the disk as it was.
    pub fn restart<M: Machine + 'static>(&mut self, index: NodeIndex, machine: M) {
        self.nodes[index.0].actor = Some(Box::new(Held::new(machine)));
        self.drain(index);
    }

    /// `kill -9`: what was not committed is lost, peers are not told.
    pub fn kill(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index.0];
        node.actor = None;
        node.life += 1;
        let deadline = node.deadline.take();
        let links = std::mem::take(&mut node.links);
        if let Some((_, key)) = deadline {
            self.agenda.remove(&key);
        }
        for (_, link) in links {
            self.lose(link);
            self.let_go(link);
        }
    }

    /// The power of its machine fails: as [`World::kill`], and nobody is there who would refuse TCP.
    pub fn unplug(&mut self, index: NodeIndex) {
        self.kill(index);
        self.network.unplug(&self.nodes[index.0].place);
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

    /// Puts a node into a group, which tells whom it reaches while the world is `partitioned`. All begin in group 0.
    pub fn set_group(&mut self, index: NodeIndex, group: u8) {
        self.nodes[index.0].group = group;
    }

    /// Puts a node beside another: nothing that passes between these two takes time.
    pub fn set_beside(&mut self, index: NodeIndex, other: NodeIndex) {
        self.nodes[index.0].beside = Some(other);
    }

    /// What a node has sent so far; the difference of two is what it sent between.
    pub fn sent_by(&self, index: NodeIndex) -> Traffic {
        self.nodes[index.0].sent
    }

    /// Links that at least one end holds.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Happenings on the agenda.
    pub fn agenda(&self) -> usize {
        self.agenda.len()
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

    /// Looks at a machine without moving it. Panics as [`World::with`] does.
    pub fn look<M: Machine + 'static, R>(&mut self, index: NodeIndex, see: impl FnOnce(&M) -> R) -> R {
        see(&self.held::<M>(index).machine)
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

    fn at(&mut self, at: Instant, happening: Happening) -> (Instant, u64) {
        self.counter += 1;
        self.agenda.insert((at, self.counter), happening);
        (at, self.counter)
    }

    fn now_of(&self, index: NodeIndex) -> Now {
        let now = self.now();
        let millis = now.unix.as_millis().saturating_add_signed(self.nodes[index.0].clock_skew_ms);
        Now { mono: now.mono, unix: UnixTime::from_millis(millis) }
    }

    fn witness(&mut self, what: u8, node: NodeIndex, bytes: &[u8]) {
        // FNV-1a over words, turned so that high bits reach low ones.
        let mut digest = self.digest;
        let mut mix =
            |word: u64| digest = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        mix(u64::from(what) | (node.0 as u64) << 8);
        mix(self.mono.as_micros());
        mix(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| mix(u64::from(*byte)));
        self.digest = digest;
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
                for write in writes.into_iter().filter(|_| !self.diskless) {
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
            Happening::Deadline { to } => {
                let node = &mut self.nodes[to.0];
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
                Output::Idle { deadline } => return self.wake_at(index, deadline),
            }
        }
    }

    /// A machine's deadline: the last one counts.
    fn wake_at(&mut self, index: NodeIndex, deadline: Option<Instant>) {
        let held = self.nodes[index.0].deadline;
        if held.map(|(at, _)| at) == deadline {
            return;
        }
        if let Some((_, key)) = held {
            self.agenda.remove(&key);
        }
        // A machine whose deadline is always past would stop time; a microsecond moves it on.
        let soonest = self.mono + Duration::from_micros(1);
        let deadline = deadline.map(|at| (at, self.at(at.max(soonest), Happening::Deadline { to: index })));
        self.nodes[index.0].deadline = deadline;
    }

    fn send(&mut self, from: NodeIndex, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= yodel_wire::limits::DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        let datagram_bytes = bytes.len() as u64;
        self.count(from, Traffic { datagrams: 1, datagram_bytes, ..Traffic::default() });
        if self.below(1_000) < u64::from(self.weather.loss_permille) {
            return;
        }
        let jitter_us = self.below(self.weather.jitter.as_micros() as u64 + 1);
        let Some(Route { to, source, local }) = self.route(from, to) else { return };
        let delay = if local { Duration::from_micros(200) } else { self.delay(from, to) };
        let at = self.mono + delay + Duration::from_micros(jitter_us);
        self.at(at, Happening::Datagram { to, from: source, bytes });
    }

    fn count(&mut self, from: NodeIndex, sent: Traffic) {
        self.sent += sent;
        self.nodes[from.0].sent += sent;
    }

    fn route(&mut self, from: NodeIndex, to: SocketAddr) -> Option<Route> {
        let place = &self.nodes[from.0].place;
        if let Some(beside) = self.network.beside(place, to) {
            return Some(Route { to: beside, source: place.addr, local: true });
        }
        let source = self.network.source(self.mono, place, to)?;
        if self.is_cut(source.ip(), to.ip()) || self.one_way.contains(&(source.ip(), to.ip())) {
            return None;
        }
        let to = self.network.deliver(self.mono, to, source)?;
        (!self.are_apart(from, to)).then_some(Route { to, source, local: false })
    }

    fn is_cut(&self, one: IpAddr, other: IpAddr) -> bool {
        self.cut.contains(&(one, other)) || self.cut.contains(&(other, one))
    }

    fn are_apart(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.partitioned && self.nodes[one.0].group != self.nodes[other.0].group
    }

    /// One way between two nodes, without jitter.
    fn delay(&self, one: NodeIndex, other: NodeIndex) -> Duration {
        if self.nodes[one.0].beside == Some(other) || self.nodes[other.0].beside == Some(one) {
            return Duration::ZERO;
        }
        self.weather.delay + pair_delay(self.weather.spread, one, other)
    }
}
