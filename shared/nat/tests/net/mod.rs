//! A tiny network for two agents: one virtual clock, delay, NATs as types from RFC 4787, one relay, sound every 20 ms.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use yodel_nat::{
    Agent, AgentConfig, AgentOutput, Candidate, PathChange, PathKind, RelayKind, RelayRef, Role, Route,
};
use yodel_wire::time::{Instant, Now, UnixTime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// RFC 4787 §4.1.
    EndpointIndependent,
    AddressAndPortDependent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// RFC 4787 §5.
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

#[derive(Debug)]
pub struct Nat {
    public: IpAddr,
    map: Map,
    filter: Filter,
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    /// Outside port, who was sent to from it.
    holes: BTreeSet<(u16, SocketAddr)>,
}

impl Nat {
    pub fn port_restricted(public: &str) -> Nat {
        Nat::new(public, Map::EndpointIndependent, Filter::AddressAndPortDependent)
    }

    pub fn symmetric(public: &str) -> Nat {
        Nat::new(public, Map::AddressAndPortDependent, Filter::AddressAndPortDependent)
    }

    pub fn full_cone(public: &str) -> Nat {
        Nat::new(public, Map::EndpointIndependent, Filter::EndpointIndependent)
    }

    pub fn address_restricted(public: &str) -> Nat {
        Nat::new(public, Map::EndpointIndependent, Filter::AddressDependent)
    }

    fn new(public: &str, map: Map, filter: Filter) -> Nat {
        Nat { public: public.parse().unwrap(), map, filter, ports: BTreeMap::new(), holes: BTreeSet::new() }
    }

    fn out(&mut self, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = (inside, (self.map == Map::AddressAndPortDependent).then_some(to));
        let fresh = 40_000 + 7 * self.ports.len() as u16;
        let port = *self.ports.entry(key).or_insert(fresh);
        self.holes.insert((port, to));
        SocketAddr::new(self.public, port)
    }

    fn back(&self, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        let passes = self.holes.iter().any(|(hole, to)| {
            *hole == port
                && match self.filter {
                    Filter::EndpointIndependent => true,
                    Filter::AddressDependent => to.ip() == from.ip(),
                    Filter::AddressAndPortDependent => *to == from,
                }
        });
        let known = self.ports.iter().find(|((_, to), p)| **p == port && to.is_none_or(|to| to == from));
        passes.then_some(known?.0.0)
    }
}

/// One device.
pub struct Phone {
    pub agent: Agent,
    pub addr: SocketAddr,
    nat: Option<usize>,
    /// Path changes with their time in milliseconds.
    pub paths: Vec<(u64, PathChange)>,
    pub failed_at: Option<u64>,
    pub lost_at: Option<u64>,
    /// When sound arrived, milliseconds.
    pub heard: Vec<u64>,
    /// Datagrams sent straight to an address, by address.
    pub sent_to: BTreeMap<SocketAddr, u32>,
    pub talking: bool,
}

impl Phone {
    pub fn kind(&self) -> Option<PathKind> {
        self.agent.path().map(|path| path.kind)
    }

    /// Longest time without sound between `from` and the last packet.
    pub fn longest_gap(&self, from: u64) -> u64 {
        let times: Vec<u64> = self.heard.iter().copied().filter(|at| *at >= from).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX)
    }
}

const SOUND: &[u8] = &[0x80];

struct Packet {
    to: usize,
    route: Route,
    bytes: Vec<u8>,
}

pub struct Net {
    pub now: u64,
    pub phones: Vec<Phone>,
    nats: Vec<Nat>,
    flying: BTreeMap<(u64, u64), Packet>,
    count: u64,
    /// One way, milliseconds.
    pub direct_delay: u64,
    pub relay_delay: u64,
    /// Phones of whom direct packets to the other are lost.
    pub direct_cut: BTreeSet<usize>,
    pub relay_cut: bool,
    /// Every n-th packet is lost; 0 none.
    pub lose_every: u64,
    next_sound: u64,
}

pub const RELAY: RelayRef = RelayRef(7);
const SERVERS: [&str; 2] = ["203.0.113.1:5060", "198.51.100.1:5060"];

impl Net {
    pub fn new() -> Net {
        Net {
            now: 1_000_000,
            phones: Vec::new(),
            nats: Vec::new(),
            flying: BTreeMap::new(),
            count: 0,
            direct_delay: 10,
            relay_delay: 15,
            direct_cut: BTreeSet::new(),
            relay_cut: false,
            lose_every: 0,
            next_sound: 1_000_000,
        }
    }

    pub fn nat(&mut self, nat: Nat) -> usize {
        self.nats.push(nat);
        self.nats.len() - 1
    }

    pub fn phone(&mut self, addr: &str, nat: Option<usize>) -> usize {
        self.phone_with(addr, nat, AgentConfig::default())
    }

    pub fn phone_with(&mut self, addr: &str, nat: Option<usize>, config: AgentConfig) -> usize {
        let at = self.phones.len();
        let role = if at == 0 { Role::Controlling } else { Role::Controlled };
        self.phones.push(Phone {
            agent: Agent::new(role, config, [at as u8 + 1; 32]),
            addr: addr.parse().unwrap(),
            nat,
            paths: Vec::new(),
            failed_at: None,
            lost_at: None,
            heard: Vec::new(),
            sent_to: BTreeMap::new(),
            talking: false,
        });
        at
    }

    pub fn clock(&self) -> Now {
        Now { mono: Instant::from_micros(self.now), unix: UnixTime::from_millis(self.now / 1_000) }
    }

    pub fn millis(&self) -> u64 {
        self.now / 1_000
    }

    /// What the signalling would carry: credentials and candidates of `from` to `to`.
    pub fn tell(&mut self, from: usize, to: usize) {
        let now = self.clock();
        let credentials = self.phones[from].agent.local_credentials().clone();
        let addr = self.phones[from].addr;
        let mut candidates = vec![Candidate::host(addr, 0)];
        if let Some(nat) = self.phones[from].nat {
            for server in SERVERS {
                let seen = self.nats[nat].out(addr, server.parse().unwrap());
                candidates.push(Candidate::reflexive(seen, 0));
            }
        }
        for candidate in &candidates {
            self.phones[from].agent.add_local(*candidate);
        }
        self.phones[to].agent.set_remote_credentials(now, credentials);
        for candidate in candidates {
            self.phones[to].agent.add_remote(now, candidate).unwrap();
        }
        self.drain(to);
    }

    pub fn relay(&mut self, kind: RelayKind) {
        let now = self.clock();
        for at in 0..self.phones.len() {
            self.phones[at].agent.add_relay(now, RELAY, kind);
            self.drain(at);
        }
    }

    pub fn talk(&mut self) {
        let now = self.clock();
        for at in 0..self.phones.len() {
            self.phones[at].talking = true;
            self.phones[at].agent.want_path(now);
            self.drain(at);
        }
    }

    /// A datagram out of nowhere.
    pub fn inject(&mut self, to: usize, route: Route, bytes: &[u8]) -> bool {
        let now = self.clock();
        let mine = self.phones[to].agent.handle_stun(now, route, bytes);
        self.drain(to);
        mine
    }

    pub fn run_for(&mut self, millis: u64) {
        let end = self.now + millis * 1_000;
        loop {
            let packet = self.flying.keys().next().map(|(at, _)| *at);
            let deadlines = self.phones.iter().filter_map(|phone| phone.agent.deadline());
            let deadline = deadlines.min().map(Instant::as_micros);
            let next = [packet, deadline, Some(self.next_sound)].into_iter().flatten().min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            assert!(next >= self.now || deadline == Some(next), "time goes forward");
            self.now = self.now.max(next);
            if packet.is_some_and(|at| at <= self.now) {
                let (_, packet) = self.flying.pop_first().unwrap();
                self.arrive(packet);
                continue;
            }
            if self.next_sound <= self.now {
                self.next_sound += 20_000;
                for at in 0..self.phones.len() {
                    if self.phones[at].talking
                        && let Some(path) = self.phones[at].agent.path()
                    {
                        self.send(at, path.route, SOUND.to_vec());
                    }
                }
            }
            let now = self.clock();
            for at in 0..self.phones.len() {
                if self.phones[at].agent.deadline().is_some_and(|deadline| deadline <= now.mono) {
                    self.phones[at].agent.handle_timeout(now);
                    self.drain(at);
                    let again = self.phones[at].agent.deadline();
                    assert!(
                        again.is_none_or(|again| again > now.mono),
                        "a deadline that does not move spins"
                    );
                }
            }
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let now = self.clock();
        let millis = self.millis();
        let phone = &mut self.phones[packet.to];
        if packet.bytes == SOUND {
            phone.heard.push(millis);
            phone.agent.heard(now, packet.route);
        } else {
            phone.agent.handle_stun(now, packet.route, &packet.bytes);
        }
        self.drain(packet.to);
    }

    pub fn drain(&mut self, at: usize) {
        let mut sends = VecDeque::new();
        let millis = self.millis();
        let phone = &mut self.phones[at];
        while let Some(output) = phone.agent.poll_output() {
            match output {
                AgentOutput::Send { route, bytes } => sends.push_back((route, bytes)),
                AgentOutput::Path(change) => phone.paths.push((millis, change)),
                AgentOutput::Failed => phone.failed_at = Some(millis),
                AgentOutput::Lost => phone.lost_at = Some(millis),
            }
        }
        for (route, bytes) in sends {
            self.send(at, route, bytes);
        }
    }

    fn send(&mut self, at: usize, route: Route, bytes: Vec<u8>) {
        self.count += 1;
        if let Route::Direct(to) = route {
            *self.phones[at].sent_to.entry(to).or_default() += 1;
        }
        let lost = self.lose_every > 0 && self.count.is_multiple_of(self.lose_every);
        let arrival = match route {
            Route::Relay(_) if self.relay_cut || lost => None,
            Route::Relay(relay) => Some((1 - at, Route::Relay(relay), self.relay_delay)),
            Route::Direct(to) => self.carry(at, to).filter(|_| !lost && !self.direct_cut.contains(&at)),
        };
        if let Some((to, route, delay)) = arrival {
            self.flying.insert((self.now + delay * 1_000, self.count), Packet { to, route, bytes });
        }
    }

    /// Where a direct packet ends, and from where it seems to come.
    fn carry(&mut self, at: usize, to: SocketAddr) -> Option<(usize, Route, u64)> {
        let (from, nat) = (self.phones[at].addr, self.phones[at].nat);
        let near = self.phones.iter().position(|phone| phone.addr == to && phone.nat == nat);
        if let Some(near) = near.filter(|_| nat.is_some()) {
            return Some((near, Route::Direct(from), 0));
        }
        let seen = match nat {
            Some(nat) => self.nats[nat].out(from, to),
            None => from,
        };
        if let Some(public) = self.phones.iter().position(|phone| phone.nat.is_none() && phone.addr == to) {
            return Some((public, Route::Direct(seen), self.direct_delay));
        }
        let far = self.nats.iter().position(|nat| nat.public == to.ip())?;
        let inside = self.nats[far].back(seen, to.port())?;
        let phone = self.phones.iter().position(|phone| phone.nat == Some(far) && phone.addr == inside)?;
        Some((phone, Route::Direct(seen), self.direct_delay))
    }
}
