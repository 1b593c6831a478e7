//! Candidates (RFC 8445 §5.1): addresses where a device may be reached, and which of a peer's we refuse to try.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// How an address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An interface of the device.
    Host,
    /// Where a home sees the device.
    ServerReflexive,
    /// Where the peer sees the device, learned from a check.
    PeerReflexive,
    /// A relay's. Ours are sessions, not addresses, so this appears only in what others might write.
    Relayed,
}

impl CandidateKind {
    /// The word RFC 8839 §5.1 uses.
    pub fn as_str(self) -> &'static str {
        match self {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relayed => "relay",
        }
    }

    /// Type preference (RFC 8445 §5.1.2.2).
    fn preference(self) -> u32 {
        match self {
            CandidateKind::Host => 126,
            CandidateKind::PeerReflexive => 110,
            CandidateKind::ServerReflexive => 100,
            CandidateKind::Relayed => 0,
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no kind of candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of candidate")]
pub struct UnknownKind;

impl FromStr for CandidateKind {
    type Err = UnknownKind;
    fn from_str(word: &str) -> Result<CandidateKind, UnknownKind> {
        match word {
            "host" => Ok(CandidateKind::Host),
            "srflx" => Ok(CandidateKind::ServerReflexive),
            "prflx" => Ok(CandidateKind::PeerReflexive),
            "relay" => Ok(CandidateKind::Relayed),
            _ => Err(UnknownKind),
        }
    }
}

/// One candidate. All of a device share one component and one socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// How it became known.
    pub kind: CandidateKind,
    /// The address, IPv4 never written as IPv6.
    pub addr: SocketAddr,
    /// RFC 8445 §5.1.2.1; higher is tried first.
    pub priority: u32,
    /// RFC 8445 §5.1.1.3; equal for candidates that share their fate. Written as a decimal number.
    pub foundation: u32,
}

/// Addresses are kept out of logs above DEBUG, so `Debug` tells the kind and family alone.
impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.addr.is_ipv4() { "IPv4" } else { "IPv6" };
        write!(f, "Candidate({} {family}, priority {})", self.kind, self.priority)
    }
}

impl Candidate {
    /// An interface's address with the socket's port. `preference` orders a device's own interfaces, 0 best.
    pub fn host(addr: SocketAddr, preference: u16) -> Candidate {
        Candidate::new(CandidateKind::Host, addr, preference)
    }

    /// An address a home reported.
    pub fn reflexive(addr: SocketAddr, preference: u16) -> Candidate {
        Candidate::new(CandidateKind::ServerReflexive, addr, preference)
    }

    pub(crate) fn peer_reflexive(addr: SocketAddr, priority: u32) -> Candidate {
        Candidate { priority, ..Candidate::new(CandidateKind::PeerReflexive, addr, 0) }
    }

    fn new(kind: CandidateKind, addr: SocketAddr, preference: u16) -> Candidate {
        let addr = canonical(addr);
        // IPv6 first (RFC 8421), then the order given.
        let local = if addr.is_ipv6() { 65_535 } else { 65_535 - 4_096 } - u32::from(preference.min(4_095));
        let priority = (kind.preference() << 24) + (local << 8) + 255;
        let family = if addr.is_ipv6() { 2 } else { 1 };
        Candidate { kind, addr, priority, foundation: kind.preference() * 10 + family }
    }
}

/// Writes IPv4-mapped IPv6 addresses as IPv4 and drops flow label and scope, so that one peer has one address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Why nothing is ever sent to an address that a peer named (D§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum CandidateRefused {
    /// This host itself.
    #[error("a loopback address")]
    Loopback,
    /// One network segment (RFC 3927, RFC 4291 §2.5.6), where metadata services listen too.
    #[error("a link-local or metadata address")]
    LinkLocal,
    /// Many hosts.
    #[error("a multicast or broadcast address")]
    Group,
    /// No host.
    #[error("an unspecified or reserved address, or port 0")]
    Reserved,
    /// Another way to write an IPv4 address, which would evade the rules above (RFC 6052, RFC 3056, RFC 4380).
    #[error("a transition address that hides another one")]
    Transition,
}

/// Whether a peer may have us send to this address. Private addresses may be: that is how two phones on one LAN find
/// each other. So may documentation prefixes (203.0.113.0/24, 2001:db8::/32): test networks are built of them.
/// Loopback only with `allow_loopback`, for a realm that lives on one machine.
///
/// # Errors
/// Which rule forbids it.
pub fn admissible(addr: SocketAddr, allow_loopback: bool) -> Result<(), CandidateRefused> {
    if addr.port() == 0 {
        return Err(CandidateRefused::Reserved);
    }
    match canonical(addr).ip() {
        IpAddr::V4(ip) => admissible_v4(ip, allow_loopback),
        IpAddr::V6(ip) => admissible_v6(ip, allow_loopback),
    }
}

fn admissible_v4(ip: Ipv4Addr, allow_loopback: bool) -> Result<(), CandidateRefused> {
    let [first, ..] = ip.octets();
    if ip.is_loopback() {
        return if allow_loopback { Ok(()) } else { Err(CandidateRefused::Loopback) };
    }
    // Metadata services: 169.254.169.254 is link-local; these two are not (RFC 6598 space and a public address).
    let metadata = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    if ip.is_link_local() || metadata.contains(&ip) {
        return Err(CandidateRefused::LinkLocal);
    }
    if ip.is_multicast() || ip.is_broadcast() {
        return Err(CandidateRefused::Group);
    }
    if first == 0 || first >= 240 {
        return Err(CandidateRefused::Reserved);
    }
    Ok(())
}

fn admissible_v6(ip: Ipv6Addr, allow_loopback: bool) -> Result<(), CandidateRefused> {
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() {
        return if allow_loopback { Ok(()) } else { Err(CandidateRefused::Loopback) };
    }
    // fd00:ec2::254 is a metadata service.
    if ip.is_unicast_link_local() || ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return Err(CandidateRefused::LinkLocal);
    }
    if ip.is_multicast() {
        return Err(CandidateRefused::Group);
    }
    // NAT64 (well-known and local-use), 6to4, Teredo: D§6 wants synthesised addresses never to be candidates.
    if first == 0x64 && second == 0xff9b || first == 0x2002 || first == 0x2001 && second == 0 {
        return Err(CandidateRefused::Transition);
    }
    // ::/16 holds the unspecified, the IPv4-compatible and other addresses nobody has; fec0::/10 is long abolished.
    if first == 0 || first & 0xffc0 == 0xfec0 {
        return Err(CandidateRefused::Reserved);
    }
    Ok(())
}

/// Whether two interface addresses are in one network without a router of the provider between: private, loopback or
/// unique-local, or the same IPv4 /24 or IPv6 /64.
pub(crate) fn same_lan(local: IpAddr, remote: IpAddr) -> bool {
    match (local, remote) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            b.is_private() || b.is_loopback() || b.is_link_local() || a.to_bits() >> 8 == b.to_bits() >> 8
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            b.is_unique_local()
                || b.is_loopback()
                || b.is_unicast_link_local()
                || a.to_bits() >> 64 == b.to_bits() >> 64
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(addr: &str) -> Result<(), CandidateRefused> {
        admissible(addr.parse().unwrap(), false)
    }

    #[test]
    fn addresses_nobody_may_send_us_to() {
        use CandidateRefused::*;
        for (addr, why) in [
            ("127.0.0.1:5060", Loopback),
            ("127.9.9.9:5060", Loopback),
            ("[::1]:5060", Loopback),
            ("[::ffff:127.0.0.1]:5060", Loopback),
            ("169.254.169.254:80", LinkLocal),
            ("100.100.100.200:80", LinkLocal),
            ("168.63.129.16:80", LinkLocal),
            ("[fe80::1]:5060", LinkLocal),
            ("[fd00:ec2::254]:80", LinkLocal),
            ("[::ffff:169.254.169.254]:80", LinkLocal),
            ("224.0.0.1:5060", Group),
            ("239.255.255.250:1900", Group),
            ("255.255.255.255:9", Group),
            ("[ff02::1]:5060", Group),
            ("0.0.0.0:5060", Reserved),
            ("0.1.2.3:5060", Reserved),
            ("240.0.0.1:5060", Reserved),
            ("203.0.113.7:0", Reserved),
            ("[::]:5060", Reserved),
            ("[::7f00:1]:5060", Reserved),
            ("[fec0::1]:5060", Reserved),
            ("[64:ff9b::7f00:1]:5060", Transition),
            ("[2002:7f00:1::]:5060", Transition),
            ("[2001:0:1::]:5060", Transition),
        ] {
            assert_eq!(verdict(addr), Err(why), "{addr}");
        }
    }

    #[test]
    fn addresses_a_peer_may_have() {
        for addr in [
            "203.0.113.7:5060",
            "198.51.100.1:1",
            "192.0.2.1:65535",
            "192.168.1.2:40000",
            "10.0.0.1:40000",
            "100.64.0.9:40000",
            "[2001:db8::1]:5060",
            "[fd12:3456::1]:5060",
        ] {
            assert_eq!(verdict(addr), Ok(()), "{addr}");
        }
        assert_eq!(admissible("127.0.0.1:5060".parse().unwrap(), true), Ok(()));
        assert_eq!(admissible("[::1]:5060".parse().unwrap(), true), Ok(()));
    }

    #[test]
    fn priorities_follow_rfc_8445() {
        let v4: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        assert_eq!(Candidate::host(v6, 0).priority, (126 << 24) + (65_535 << 8) + 255);
        assert!(Candidate::host(v6, 0).priority > Candidate::host(v4, 0).priority);
        assert!(Candidate::host(v4, 0).priority > Candidate::host(v4, 1).priority);
        assert!(Candidate::host(v4, u16::MAX).priority > Candidate::reflexive(v6, 0).priority);
    }

    #[test]
    fn mapped_ipv4_is_ipv4() {
        assert_eq!(
            canonical("[::ffff:203.0.113.7]:9".parse().unwrap()),
            "203.0.113.7:9".parse::<SocketAddr>().unwrap()
        );
    }
}
