//! NATs as types from RFC 4787: how a source is mapped (§4.1) and who may answer (§5). A table entry lives as long as
//! packets leave through it; inbound traffic does not refresh it (§4.3, REQ-6's stricter reading).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use yodel_wire::time::Instant;

/// How far a mapping or a filter looks at the remote endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Not at all.
    EndpointIndependent,
    /// At its address.
    AddressDependent,
    /// At its address and port.
    AddressAndPortDependent,
}

/// What kind of NAT stands in front of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatKind {
    /// Which packets share a public port.
    pub mapping: Dependence,
    /// Which packets are let in.
    pub filtering: Dependence,
    /// Whether UDP leaves at all.
    pub blocks_udp: bool,
    /// How long an idle mapping lives; RFC 4787 REQ-5 asks for two minutes.
    pub lifetime: Duration,
}

impl NatKind {
    /// Port-restricted cone: one mapping for all, only known endpoints may answer.
    pub const PORT_RESTRICTED: NatKind = NatKind {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressAndPortDependent,
        blocks_udp: false,
        lifetime: Duration::from_secs(120),
    };

    /// Symmetric: a mapping for each remote endpoint.
    pub const SYMMETRIC: NatKind =
        NatKind { mapping: Dependence::AddressAndPortDependent, ..NatKind::PORT_RESTRICTED };

    /// A firewall that lets TCP out and nothing else.
    pub const UDP_BLOCKED: NatKind = NatKind { blocks_udp: true, ..NatKind::PORT_RESTRICTED };
}

/// What part of a remote endpoint a mapping is keyed by.
type Scope = (Option<IpAddr>, Option<u16>);

fn scope(dependence: Dependence, remote: SocketAddr) -> Scope {
    match dependence {
        Dependence::EndpointIndependent => (None, None),
        Dependence::AddressDependent => (Some(remote.ip()), None),
        Dependence::AddressAndPortDependent => (Some(remote.ip()), Some(remote.port())),
    }
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    allowed: BTreeMap<Scope, Instant>,
    used: Instant,
    scope: Scope,
}

/// One NAT with its table.
#[derive(Debug)]
pub struct Nat {
    kind: NatKind,
    public: IpAddr,
    next_port: u16,
    by_port: BTreeMap<u16, Mapping>,
}

impl Nat {
    /// An empty table in front of `public`.
    pub fn new(kind: NatKind, public: IpAddr) -> Nat {
        Nat { kind, public, next_port: 40_000, by_port: BTreeMap::new() }
    }

    /// The address the world sees.
    pub fn public(&self) -> IpAddr {
        self.public
    }

    /// What kind it is.
    pub fn kind(&self) -> NatKind {
        self.kind
    }

    /// Forgets every mapping, as a rebooted router does.
    pub fn reboot(&mut self) {
        self.by_port.clear();
        self.next_port = self.next_port.wrapping_add(1_000).max(40_000);
    }

    /// A packet leaves: the source the world sees, or nothing when it is dropped.
    pub fn outbound(&mut self, now: Instant, inside: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        if self.kind.blocks_udp {
            return None;
        }
        let lifetime = self.kind.lifetime;
        self.by_port.retain(|_, mapping| now.since(mapping.used) < lifetime);
        let wanted = scope(self.kind.mapping, remote);
        let found =
            self.by_port.iter().find(|(_, m)| m.inside == inside && m.scope == wanted).map(|(port, _)| *port);
        let port = found.unwrap_or_else(|| {
            let port = self.next_port;
            // Seven apart: a symmetric NAT whose ports cannot be guessed by adding one.
            self.next_port = self.next_port.checked_add(7).unwrap_or(40_000);
            port
        });
        let mapping = self.by_port.entry(port).or_insert_with(|| Mapping {
            inside,
            allowed: BTreeMap::new(),
            used: now,
            scope: wanted,
        });
        mapping.used = now;
        mapping.allowed.insert(scope(self.kind.filtering, remote), now);
        Some(SocketAddr::new(self.public, port))
    }

    /// A packet arrives at `port`: where it goes inside, or nothing when it is filtered.
    pub fn inbound(&mut self, now: Instant, port: u16, remote: SocketAddr) -> Option<SocketAddr> {
        let mapping = self.by_port.get(&port)?;
        if self.kind.blocks_udp || now.since(mapping.used) >= self.kind.lifetime {
            return None;
        }
        let opened = mapping.allowed.get(&scope(self.kind.filtering, remote))?;
        (now.since(*opened) < self.kind.lifetime || now.since(mapping.used) < self.kind.lifetime)
            .then_some(mapping.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_cone_keeps_its_port_and_filters_by_endpoint() {
        let mut nat = Nat::new(NatKind::PORT_RESTRICTED, addr("203.0.113.9:0").ip());
        let now = Instant::ORIGIN;
        let seen_by_one = nat.outbound(now, addr("10.0.0.2:5000"), addr("198.51.100.1:1")).unwrap();
        let seen_by_other = nat.outbound(now, addr("10.0.0.2:5000"), addr("198.51.100.2:1")).unwrap();
        assert_eq!(seen_by_one, seen_by_other);
        assert_eq!(nat.inbound(now, seen_by_one.port(), addr("198.51.100.1:1")), Some(addr("10.0.0.2:5000")));
        assert_eq!(nat.inbound(now, seen_by_one.port(), addr("198.51.100.1:2")), None);
    }

    #[test]
    fn a_symmetric_nat_has_a_port_for_each_endpoint() {
        let mut nat = Nat::new(NatKind::SYMMETRIC, addr("203.0.113.9:0").ip());
        let now = Instant::ORIGIN;
        let one = nat.outbound(now, addr("10.0.0.2:5000"), addr("198.51.100.1:1")).unwrap();
        let other = nat.outbound(now, addr("10.0.0.2:5000"), addr("198.51.100.1:2")).unwrap();
        assert_ne!(one, other);
        assert_eq!(nat.inbound(now, other.port(), addr("198.51.100.1:1")), None);
    }

    #[test]
    fn a_mapping_ends_one_microsecond_after_its_lifetime() {
        let mut nat = Nat::new(NatKind::PORT_RESTRICTED, addr("203.0.113.9:0").ip());
        let remote = addr("198.51.100.1:1");
        let seen = nat.outbound(Instant::ORIGIN, addr("10.0.0.2:5000"), remote).unwrap();
        let end = Instant::ORIGIN + NatKind::PORT_RESTRICTED.lifetime;
        assert!(nat.inbound(end - Duration::from_micros(1), seen.port(), remote).is_some());
        assert_eq!(nat.inbound(end, seen.port(), remote), None);
    }
}
