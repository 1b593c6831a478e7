//! Where the world sees us: Binding requests to the homes from the one socket (RFC 8489), and what kind of mapping the
//! NAT keeps, told by comparing what two homes saw (the idea of RFC 5780 without a server of two addresses).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_wire::time::{Instant, Now};

use crate::candidate::canonical;
use crate::limits::{GATHER_REFRESH, GATHER_RETRY, GATHER_TRIES_MAX, SERVERS_MAX};
use crate::stun::{self, Class, Transaction};

/// How the NAT chooses the outside port (RFC 4787 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// Fewer than two homes have answered over one IP version.
    #[default]
    Unknown,
    /// The same for every destination: a path can be punched. No NAT at all looks the same.
    EndpointIndependent,
    /// Another one for every destination ("symmetric"): what a home sees is of no use to a peer.
    AddressDependent,
}

impl Mapping {
    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mapping::Unknown => "unknown",
            Mapping::EndpointIndependent => "endpoint-independent",
            Mapping::AddressDependent => "address-dependent",
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a gatherer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatherOutput {
    /// Send this from the one socket.
    Send {
        /// A server.
        to: SocketAddr,
        /// A Binding request.
        bytes: Vec<u8>,
    },
    /// A server sees us here, for the first time or otherwise than before.
    Reflexive {
        /// Which.
        server: SocketAddr,
        /// Our address there.
        addr: SocketAddr,
    },
    /// The mapping kind became known or changed.
    Mapping(Mapping),
}

#[derive(Debug)]
struct Server {
    seen: Option<SocketAddr>,
    transaction: Transaction,
    sent: Option<Instant>,
    rtt: Option<Duration>,
    tries: u32,
    next: Instant,
}

/// Asks servers. Feed it the homes' addresses, STUN answers and time; drain [`poll_output`](Self::poll_output); sleep
/// until [`deadline`](Self::deadline). It asks again every 25 s, which also keeps the mapping, and at once after
/// [`refresh`](Self::refresh).
#[derive(Debug)]
pub struct Gatherer {
    rng: ChaCha20Rng,
    servers: BTreeMap<SocketAddr, Server>,
    mapping: Mapping,
    outputs: VecDeque<GatherOutput>,
}

impl Gatherer {
    /// A gatherer without servers.
    pub fn new(seed: [u8; 32]) -> Gatherer {
        Gatherer {
            rng: ChaCha20Rng::from_seed(seed),
            servers: BTreeMap::new(),
            mapping: Mapping::Unknown,
            outputs: VecDeque::new(),
        }
    }

    /// Whom to ask from now on: the first [`SERVERS_MAX`] of `addrs`. What the others said is forgotten.
    pub fn set_servers(&mut self, now: Now, addrs: impl IntoIterator<Item = SocketAddr>) {
        let wanted: Vec<SocketAddr> = addrs.into_iter().map(canonical).take(SERVERS_MAX).collect();
        self.servers.retain(|addr, _| wanted.contains(addr));
        for addr in wanted {
            self.servers.entry(addr).or_insert(Server {
                seen: None,
                transaction: [0; 12],
                sent: None,
                rtt: None,
                tries: 0,
                next: now.mono,
            });
        }
        self.classify();
        self.handle_timeout(now);
    }

    /// Asks all anew: the network changed.
    pub fn refresh(&mut self, now: Now) {
        for server in self.servers.values_mut() {
            server.tries = 0;
            server.next = now.mono;
        }
        self.handle_timeout(now);
    }

    /// A STUN datagram arrived. True when it was the answer to a request of ours.
    pub fn handle_stun(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) -> bool {
        let from = canonical(from);
        let Some(peek) = stun::peek(bytes).filter(|peek| peek.class == Class::Success) else { return false };
        let Some(server) = self.servers.get_mut(&from) else { return false };
        let Some(sent) = server.sent.filter(|_| server.transaction == peek.transaction) else { return false };
        let Some(addr) = stun::open_unverified(bytes).and_then(|content| content.mapped) else {
            return false;
        };
        server.sent = None;
        server.tries = 0;
        server.rtt = Some(now.mono.since(sent));
        server.next = now.mono + GATHER_REFRESH;
        if server.seen != Some(addr) {
            server.seen = Some(addr);
            self.outputs.push_back(GatherOutput::Reflexive { server: from, addr });
        }
        self.classify();
        true
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        for (addr, server) in &mut self.servers {
            if server.next > now.mono {
                continue;
            }
            if server.tries >= GATHER_TRIES_MAX {
                // Silent: what it said before is stale.
                server.tries = 0;
                server.sent = None;
                server.seen = None;
                server.next = now.mono + GATHER_REFRESH;
                continue;
            }
            self.rng.fill_bytes(&mut server.transaction);
            server.sent = Some(now.mono);
            server.next = now.mono + GATHER_RETRY * (1 << server.tries);
            server.tries += 1;
            if let Some(bytes) = stun::binding_request(server.transaction) {
                self.outputs.push_back(GatherOutput::Send { to: *addr, bytes });
            }
        }
        self.classify();
    }

    /// The next thing to do; `None` when drained.
    pub fn poll_output(&mut self) -> Option<GatherOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        self.servers.values().map(|server| server.next).min()
    }

    /// Our addresses as the servers see them, each once.
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen: Vec<SocketAddr> = self.servers.values().filter_map(|server| server.seen).collect();
        seen.sort();
        seen.dedup();
        seen
    }

    /// The round trip to a server, when it answered.
    pub fn rtt(&self, server: SocketAddr) -> Option<Duration> {
        self.servers.get(&canonical(server)).and_then(|server| server.rtt)
    }

    /// What kind of mapping the NAT keeps.
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    fn classify(&mut self) {
        let of = |v4: bool| {
            let mut seen = self
                .servers
                .iter()
                .filter(|(addr, _)| addr.is_ipv4() == v4)
                .filter_map(|(addr, server)| Some((addr.ip(), server.seen?)));
            let Some((first_ip, first)) = seen.next() else { return Mapping::Unknown };
            let mut verdict = Mapping::Unknown;
            for (ip, addr) in seen {
                if addr != first {
                    return Mapping::AddressDependent;
                }
                // Two ports of one host prove nothing about other hosts.
                if ip != first_ip {
                    verdict = Mapping::EndpointIndependent;
                }
            }
            verdict
        };
        let mapping = match (of(true), of(false)) {
            (Mapping::Unknown, v6) => v6,
            (v4, _) => v4,
        };
        if mapping != self.mapping {
            self.mapping = mapping;
            self.outputs.push_back(GatherOutput::Mapping(mapping));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yodel_wire::time::UnixTime;

    fn at(millis: u64) -> Now {
        Now { mono: Instant::from_micros(millis * 1_000), unix: UnixTime::from_millis(millis) }
    }

    fn sends(gatherer: &mut Gatherer) -> Vec<(SocketAddr, Vec<u8>)> {
        std::iter::from_fn(|| gatherer.poll_output())
            .filter_map(|output| match output {
                GatherOutput::Send { to, bytes } => Some((to, bytes)),
                GatherOutput::Reflexive { .. } | GatherOutput::Mapping(_) => None,
            })
            .collect()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ask(seen: [&str; 2]) -> Gatherer {
        let mut gatherer = Gatherer::new([1; 32]);
        gatherer.set_servers(at(0), [addr("203.0.113.1:5060"), addr("198.51.100.1:5060")]);
        for (to, bytes) in sends(&mut gatherer) {
            let seen = if to == addr("203.0.113.1:5060") { seen[0] } else { seen[1] };
            let answer = crate::server::answer(addr(seen), &bytes).unwrap();
            assert!(gatherer.handle_stun(at(20), to, &answer));
            assert!(!gatherer.handle_stun(at(20), to, &answer), "an answer counts once");
        }
        gatherer
    }

    #[test]
    fn two_homes_tell_the_mapping() {
        let gatherer = ask(["192.0.2.9:4000", "192.0.2.9:4000"]);
        assert_eq!(gatherer.mapping(), Mapping::EndpointIndependent);
        assert_eq!(gatherer.reflexive(), [addr("192.0.2.9:4000")]);
        assert_eq!(gatherer.rtt(addr("203.0.113.1:5060")), Some(Duration::from_millis(20)));
        let gatherer = ask(["192.0.2.9:4000", "192.0.2.9:4001"]);
        assert_eq!(gatherer.mapping(), Mapping::AddressDependent);
        assert_eq!(gatherer.reflexive().len(), 2);
    }

    #[test]
    fn one_home_tells_nothing() {
        let mut gatherer = Gatherer::new([1; 32]);
        gatherer.set_servers(at(0), [addr("203.0.113.1:5060")]);
        let (to, bytes) = sends(&mut gatherer).remove(0);
        let answer = crate::server::answer(addr("192.0.2.9:4000"), &bytes).unwrap();
        assert!(!gatherer.handle_stun(at(5), addr("203.0.113.2:5060"), &answer), "from somebody else");
        assert!(gatherer.handle_stun(at(5), to, &answer));
        assert_eq!(gatherer.mapping(), Mapping::Unknown);
        assert_eq!(gatherer.reflexive(), [addr("192.0.2.9:4000")]);
    }

    #[test]
    fn a_silent_server_is_asked_four_times_and_then_left_in_peace() {
        let mut gatherer = Gatherer::new([1; 32]);
        gatherer.set_servers(at(0), [addr("203.0.113.1:5060")]);
        let mut times = vec![(0, sends(&mut gatherer).len())];
        while let Some(deadline) = gatherer.deadline().filter(|at| at.as_micros() < 20_000_000) {
            let millis = deadline.as_micros() / 1_000;
            gatherer.handle_timeout(at(millis));
            times.push((millis, sends(&mut gatherer).len()));
        }
        assert_eq!(times, [(0, 1), (250, 1), (750, 1), (1_750, 1), (3_750, 0)]);
    }
}
