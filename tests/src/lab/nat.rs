//! What a home's router does to packets, in the words of RFC 4787, as nftables rules.

use std::net::Ipv4Addr;

/// A home's NAT. All of them drop what comes in unasked, without a reset or an ICMP message, as routers are sold: an
/// early punch that the router answered would leave an entry that makes the later one fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// Endpoint-independent mapping, address- and port-dependent filtering ("port-restricted cone").
    PortRestricted,
    /// Endpoint-independent mapping and filtering ("full cone").
    FullCone,
    /// Address- and port-dependent mapping and filtering ("symmetric"), with random ports.
    Symmetric,
    /// No UDP at all; TCP is translated.
    UdpBlocked,
}

impl std::str::FromStr for Nat {
    type Err = String;
    fn from_str(word: &str) -> Result<Nat, String> {
        match word {
            "port-restricted" => Ok(Nat::PortRestricted),
            "full-cone" => Ok(Nat::FullCone),
            "symmetric" => Ok(Nat::Symmetric),
            "udp-blocked" => Ok(Nat::UdpBlocked),
            other => Err(format!("{other} is none of port-restricted, full-cone, symmetric, udp-blocked")),
        }
    }
}

impl Nat {
    /// The rules of a router whose `wan0` has this address.
    pub(super) fn ruleset(self, public: Ipv4Addr) -> String {
        match self {
            Nat::PortRestricted => cone(public, ""),
            Nat::FullCone => cone(
                public,
                "chain unasked {
                   type nat hook prerouting priority dstnat; policy accept;
                   iifname wan0 meta l4proto udp dnat ip to udp dport map @inside
                 }",
            ),
            Nat::Symmetric => format!(
                "table ip home {{
                   chain translate {{
                     type nat hook postrouting priority srcnat; policy accept;
                     oifname wan0 masquerade random,fully-random
                   }}
                   {UNASKED}
                 }}"
            ),
            Nat::UdpBlocked => format!(
                "table ip home {{
                   chain translate {{
                     type nat hook postrouting priority srcnat; policy accept;
                     oifname wan0 masquerade
                   }}
                   chain block {{
                     type filter hook forward priority filter; policy accept;
                     meta l4proto udp drop
                   }}
                   {UNASKED}
                 }}"
            ),
        }
    }
}

const UNASKED: &str = "chain input {
                     type filter hook input priority filter; policy accept;
                     iifname wan0 drop
                   }";

/// Plain `masquerade` keeps the port while it can and so only looks like a cone; asked for random ports it is
/// symmetric. Here the first packet from an inside address and port gets a random port; the rule after translation
/// writes it down, and every later flow from the same inside address and port is given the same one.
fn cone(public: Ipv4Addr, more: &str) -> String {
    format!(
        "table ip home {{
           map mapping {{
             type ipv4_addr . inet_service : inet_service
             flags dynamic,timeout
             timeout 5m
             size 65536
           }}
           map inside {{
             type inet_service : ipv4_addr . inet_service
             flags dynamic,timeout
             timeout 5m
             size 65536
           }}
           chain translate {{
             type nat hook postrouting priority srcnat; policy accept;
             oifname wan0 meta l4proto udp snat ip to {public} : ip saddr . udp sport map @mapping
             oifname wan0 meta l4proto udp snat ip to {public}:32768-60999 fully-random
             oifname wan0 masquerade
           }}
           chain write-down {{
             type filter hook postrouting priority srcnat + 10; policy accept;
             oifname wan0 meta l4proto udp ct direction original \
               update @mapping {{ ct original ip saddr . ct original proto-src : udp sport }}
             oifname wan0 meta l4proto udp ct direction original \
               update @inside {{ udp sport : ct original ip saddr . ct original proto-src }}
           }}
           {more}
           {UNASKED}
         }}"
    )
}
