//! Who is reached at which address, and what between two addresses is cut.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use yodel_wire::machine::{LinkTarget, Transport};
use yodel_wire::time::Instant;

use super::{NatIndex, NodeIndex, Place};
use crate::sim::nat::{Nat, NatKind};

/// How the network behaves between any two nodes.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, without jitter.
    pub delay: Duration,
    /// Added to the delay of all that passes between two nodes, the same in both directions and for the whole run:
    /// drawn for each pair, uniformly from zero.
    pub spread: Duration,
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
            spread: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_permille: 0,
            link_idle: Duration::from_secs(10),
            commit: Duration::from_millis(1),
        }
    }
}

/// What a node has sent since it was placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Their payload.
    pub datagram_bytes: u64,
    /// Frames over links.
    pub frames: u64,
    /// Their bytes, headers of frames included, those of packets not.
    pub frame_bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.datagrams += other.datagrams;
        self.datagram_bytes += other.datagram_bytes;
        self.frames += other.frames;
        self.frame_bytes += other.frame_bytes;
    }
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;
    /// What was sent since `earlier`.
    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            datagrams: self.datagrams - earlier.datagrams,
            datagram_bytes: self.datagram_bytes - earlier.datagram_bytes,
            frames: self.frames - earlier.frames,
            frame_bytes: self.frame_bytes - earlier.frame_bytes,
        }
    }
}

/// Whom a datagram reaches.
pub(super) struct Route {
    pub(super) to: NodeIndex,
    /// The source it shows.
    pub(super) source: SocketAddr,
    /// Whether it stayed in one home.
    pub(super) local: bool,
}

/// Addresses of nodes and NATs. Of two at one address the first has it.
#[derive(Default)]
pub(super) struct Network {
    nats: Vec<Nat>,
    nat_by_ip: BTreeMap<IpAddr, NatIndex>,
    public: BTreeMap<SocketAddr, NodeIndex>,
    /// Where nodes on public addresses accept TCP.
    listening: BTreeMap<SocketAddr, NodeIndex>,
    inside: BTreeMap<(NatIndex, SocketAddr), NodeIndex>,
    /// How many nodes have this address, inner ones too.
    hosts: BTreeMap<IpAddr, u32>,
}

impl Network {
    pub(super) fn add_nat(&mut self, kind: NatKind, public: IpAddr) -> NatIndex {
        let index = NatIndex(self.nats.len());
        self.nats.push(Nat::new(kind, public));
        self.nat_by_ip.entry(public).or_insert(index);
        index
    }

    pub(super) fn nat_mut(&mut self, nat: NatIndex) -> &mut Nat {
        &mut self.nats[nat.0]
    }

    pub(super) fn add(&mut self, index: NodeIndex, place: &Place) {
        *self.hosts.entry(place.addr.ip()).or_default() += 1;
        match place.nat {
            Some(nat) => {
                self.inside.entry((nat, place.addr)).or_insert(index);
            }
            None => {
                self.public.entry(place.addr).or_insert(index);
                for port in std::iter::once(&place.addr.port()).chain(&place.ports) {
                    let at = SocketAddr::new(place.addr.ip(), *port);
                    self.listening.entry(at).or_insert(index);
                }
            }
        }
    }

    /// The host of this node is gone, with all that runs on it.
    pub(super) fn unplug(&mut self, place: &Place) {
        self.hosts.remove(&place.addr.ip());
    }

    /// Whether a host is there, whatever runs on it.
    pub(super) fn is_host(&self, ip: IpAddr) -> bool {
        self.hosts.contains_key(&ip)
    }

    /// Who accepts this link.
    pub(super) fn listener(&self, target: &LinkTarget) -> Option<NodeIndex> {
        match target.transport {
            Transport::Quic => self.public.get(&target.addr).copied(),
            Transport::Tls => self.listening.get(&target.addr).copied(),
        }
    }

    /// Another node of the same home at this address.
    pub(super) fn beside(&self, place: &Place, to: SocketAddr) -> Option<NodeIndex> {
        self.inside.get(&(place.nat?, to)).copied()
    }

    /// The source that what `place` sends to `to` shows; nothing when its NAT lets it not out.
    pub(super) fn source(&mut self, now: Instant, place: &Place, to: SocketAddr) -> Option<SocketAddr> {
        match place.nat {
            Some(nat) => self.nats[nat.0].outbound(now, place.addr, to),
            None => Some(place.addr),
        }
    }

    /// Whom a datagram from the world reaches at `to`.
    pub(super) fn deliver(&mut self, now: Instant, to: SocketAddr, source: SocketAddr) -> Option<NodeIndex> {
        if let Some(public) = self.public.get(&to) {
            return Some(*public);
        }
        let nat = *self.nat_by_ip.get(&to.ip())?;
        let inner = self.nats[nat.0].inbound(now, to.port(), source)?;
        self.inside.get(&(nat, inner)).copied()
    }
}

/// A share of `spread` that is the same for this pair in both directions.
pub(super) fn pair_delay(spread: Duration, one: NodeIndex, other: NodeIndex) -> Duration {
    if spread.is_zero() {
        return Duration::ZERO;
    }
    let (low, high) = (one.0.min(other.0) as u64, one.0.max(other.0) as u64);
    // SplitMix64's finaliser: neighbours in number are none in distance.
    let mut mixed = (low << 32 | high).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    Duration::from_micros(mixed % (spread.as_micros() as u64 + 1))
}
