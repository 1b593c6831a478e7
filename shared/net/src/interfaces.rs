//! The addresses of this host, as candidates for others to reach it.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The host's own unicast addresses, sorted, IPv4 first: of interfaces that are up, without link-local and without
/// loopback. Loopback addresses are included when `loopback` says so (a realm on one machine).
///
/// # Errors
/// The operating system does not tell.
pub fn host_addresses(loopback: bool) -> std::io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = getifaddrs()?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|ip| is_candidate(*ip, loopback))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The addresses at which a socket bound to `bound` is reached on this host: `bound` itself, or when it is
/// unspecified, every host address of a family the socket serves.
///
/// # Errors
/// The operating system does not tell.
pub fn reachable_at(bound: SocketAddr, loopback: bool) -> std::io::Result<Vec<SocketAddr>> {
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound]);
    }
    Ok(host_addresses(loopback)?
        .into_iter()
        .filter(|ip| bound.is_ipv6() || ip.is_ipv4())
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect())
}

fn is_candidate(ip: IpAddr, loopback: bool) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || (ip.is_loopback() && !loopback) {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_only_on_request() {
        assert!(host_addresses(false).unwrap().iter().all(|ip| !ip.is_loopback()));
        assert!(host_addresses(true).unwrap().contains(&"127.0.0.1".parse().unwrap()));
        let bound: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert_eq!(reachable_at(bound, false).unwrap(), [bound]);
        let any: SocketAddr = "0.0.0.0:9".parse().unwrap();
        assert!(reachable_at(any, true).unwrap().iter().all(SocketAddr::is_ipv4));
    }
}
