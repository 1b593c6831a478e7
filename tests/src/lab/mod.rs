//! Network namespaces: an internet with public hosts, homes behind real kernel NATs, and the programs run in them.
//!
//! ```text
//!   phone 192.168.1.10 ─┐ br0            wan0
//!                       ├─[ home, 192.168.1.1 │ 203.0.113.7 ]──┐
//!   phone 192.168.1.11 ─┘        NAT by nftables               ├─[ internet ]── host 198.51.100.10
//!   phone 192.168.1.10 ───[ home              │ 192.0.2.7   ]──┘      └───────── host 203.0.113.10
//! ```
//! Every home uses the same private network, as homes do. The internet routes single addresses, so hosts may share a
//! /24 or not. Each line into it can be given a delay ([`delay`]), and it counts packets by source, destination and
//! protocol ([`Lab::flows`]): that, and not what a program says of itself, proves which way media went.
//!
//! Needs root, `ip` and `nft`. Everything is gone when the [`Lab`] is dropped; what a killed process left behind goes
//! when the next lab begins ([`sweep`]).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

pub mod delay;
pub mod harness;
pub mod nat;
pub mod pair;
pub mod process;
pub mod realm;
pub mod scene;
pub mod space;
pub mod sweep;

pub use nat::Nat;
pub use process::Process;
pub use space::{Counters, Space};

/// Why there is no lab.
#[derive(Debug)]
pub enum LabError {
    /// Namespaces need root here.
    NotRoot,
    /// A program is missing, or failed.
    Command {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// Anything else the operating system refused.
    Io(io::Error),
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabError::NotRoot => f.write_str("network namespaces need root"),
            LabError::Command { command, said } => write!(f, "`{command}` failed: {}", said.trim()),
            LabError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LabError {}

impl From<io::Error> for LabError {
    fn from(error: io::Error) -> LabError {
        LabError::Io(error)
    }
}

/// Whether this machine can have a lab, tried out.
///
/// # Errors
/// What is missing.
pub fn available() -> Result<(), LabError> {
    Lab::new().map(drop)
}

/// A host with one interface, `eth0`.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its namespace.
    pub space: Space,
    /// Its address.
    pub addr: Ipv4Addr,
}

impl Host {
    /// What its interface has carried.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn counters(&self) -> Result<Counters, LabError> {
        self.space.counters("eth0")
    }
}

/// A router with a private network behind it.
#[derive(Clone, Debug)]
pub struct Home {
    /// The router's namespace: `wan0` outside, bridge `br0` inside.
    pub space: Space,
    /// Its public address.
    pub addr: Ipv4Addr,
    /// What it does to packets.
    pub nat: Nat,
    phones: u8,
}

impl Home {
    /// What its line to the internet has carried.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn counters(&self) -> Result<Counters, LabError> {
        self.space.counters("wan0")
    }

    /// Drops all UDP between the home and the internet from now on, as a firewall that somebody just set up.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn shut_udp(&self) -> Result<(), LabError> {
        self.drop_forwarded("meta l4proto udp")
    }

    /// Drops what a rule of nftables matches among the packets that this router passes on, both ways.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn drop_forwarded(&self, matched: &str) -> Result<(), LabError> {
        self.space.nft(&format!(
            "table ip firewall {{
               chain forward {{ type filter hook forward priority filter - 5; policy accept; {matched} drop; }}
             }}"
        ))
    }
}

/// What crossed the internet from one address to another under one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source, outside of any NAT.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Ipv4Addr,
    /// Protocol number: 17 UDP, 6 TCP.
    pub protocol: u8,
    /// Packets.
    pub packets: u64,
    /// Bytes with IP headers.
    pub bytes: u64,
}

/// Protocol number of UDP in a [`Flow`].
pub const UDP: u8 = 17;
/// Protocol number of TCP in a [`Flow`].
pub const TCP: u8 = 6;

/// A world of namespaces; see the module's text.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    internet: Space,
    spaces: Vec<Space>,
    /// One way, of every line into the internet that is laid from now on.
    delay: Duration,
    lines: u32,
    delayed: Vec<(Space, String)>,
}

/// The internet's end of every line; hosts only ask ARP for it.
const GATEWAY: &str = "100.127.255.254";

impl Lab {
    /// An internet without hosts.
    ///
    /// # Errors
    /// What is missing.
    pub fn new() -> Result<Lab, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        sweep::sweep()?;
        let prefix = sweep::fresh_prefix()?;
        let internet = Space::create(&format!("{prefix}-internet"))?;
        let lab = Lab {
            prefix,
            internet: internet.clone(),
            spaces: vec![internet.clone()],
            delay: Duration::ZERO,
            lines: 0,
            delayed: Vec::new(),
        };
        internet.forward()?;
        internet.nft(FLOWS)?;
        Ok(lab)
    }

    /// Gives every line laid from now on this delay each way: a quarter of the round trip between two hosts.
    pub fn set_line_delay(&mut self, one_way: Duration) {
        self.delay = one_way;
    }

    /// A host with a public address.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn host(&mut self, label: &str, addr: Ipv4Addr) -> Result<Host, LabError> {
        let space = self.space(label)?;
        self.line(&space, "eth0", addr)?;
        Ok(Host { space, addr })
    }

    /// A home behind a NAT, without phones.
    ///
    /// # Errors
    /// `ip` or `nft` failed.
    pub fn home(&mut self, label: &str, addr: Ipv4Addr, nat: Nat) -> Result<Home, LabError> {
        let space = self.space(label)?;
        self.line(&space, "wan0", addr)?;
        space.forward()?;
        space.ip("link add br0 type bridge")?;
        space.ip("addr add 192.168.1.1/24 dev br0")?;
        space.ip("link set br0 up")?;
        space.nft(&nat.ruleset(addr))?;
        Ok(Home { space, addr, nat, phones: 0 })
    }

    /// A host in a home: 192.168.1.10, then .11 and so on.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn phone(&mut self, home: &mut Home, label: &str) -> Result<Host, LabError> {
        let space = self.space(label)?;
        let number = home.phones;
        home.phones += 1;
        let addr = Ipv4Addr::new(192, 168, 1, 10 + number);
        home.space.ip(&format!("link add lan{number} type veth peer name eth0 netns {}", space.name()))?;
        home.space.ip(&format!("link set lan{number} master br0 up"))?;
        space.ip(&format!("addr add {addr}/24 dev eth0"))?;
        space.ip("link set eth0 up")?;
        space.ip("route add default via 192.168.1.1")?;
        Ok(Host { space, addr })
    }

    /// What has crossed the internet so far.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn flows(&self) -> Result<Vec<Flow>, LabError> {
        let listed = self.internet.run("nft", &["-j", "list", "set", "ip", "internet", "flows"])?;
        Ok(parse_flows(&listed))
    }

    /// Packets from one address to another under one protocol so far.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn packets(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8) -> Result<u64, LabError> {
        let flows = self.flows()?;
        let wanted = flows.iter().find(|flow| (flow.from, flow.to, flow.protocol) == (from, to, protocol));
        Ok(wanted.map_or(0, |flow| flow.packets))
    }

    /// Drops everything between two public addresses from now on, both ways; again with `false` lets it pass.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn cut(&self, a: Ipv4Addr, b: Ipv4Addr, cut: bool) -> Result<(), LabError> {
        let verb = if cut { "add" } else { "delete" };
        self.internet.nft(&format!("{verb} element ip internet cut {{ {a} . {b}, {b} . {a} }}"))
    }

    fn space(&mut self, label: &str) -> Result<Space, LabError> {
        let space = Space::create(&format!("{}-{label}", self.prefix))?;
        self.spaces.push(space.clone());
        Ok(space)
    }

    /// A line from a namespace into the internet.
    fn line(&mut self, space: &Space, interface: &str, addr: Ipv4Addr) -> Result<(), LabError> {
        let far = format!("line{}", self.lines);
        self.lines += 1;
        if self.delay.is_zero() {
            let peer = format!("link add {far} type veth peer name {interface} netns {}", space.name());
            self.internet.ip(&peer)?;
        } else {
            delay::lay((space, interface), (&self.internet, &far), self.delay)?;
            self.delayed.push((space.clone(), interface.to_owned()));
            self.delayed.push((self.internet.clone(), far.clone()));
        }
        self.internet.ip(&format!("addr add {GATEWAY}/32 dev {far}"))?;
        self.internet.ip(&format!("link set {far} up"))?;
        self.internet.ip(&format!("route add {addr}/32 dev {far}"))?;
        space.ip(&format!("addr add {addr}/32 dev {interface}"))?;
        space.ip(&format!("link set {interface} up"))?;
        space.ip(&format!("route add {GATEWAY}/32 dev {interface}"))?;
        space.ip(&format!("route add default via {GATEWAY} dev {interface} src {addr}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The delay threads hold their namespace until their device goes.
        for (space, interface) in &self.delayed {
            let _ = space.ip(&format!("link del {interface}"));
        }
        for space in &self.spaces {
            space.remove();
        }
    }
}

/// Counts what crosses, and drops between pairs that were cut.
const FLOWS: &str = "
table ip internet {
  set flows {
    type ipv4_addr . ipv4_addr . inet_proto
    flags dynamic
    size 65535
    counter
  }
  set cut {
    type ipv4_addr . ipv4_addr
  }
  chain cross {
    type filter hook forward priority filter; policy accept;
    ip saddr . ip daddr @cut drop
    update @flows { ip saddr . ip daddr . ip protocol }
  }
}
";

fn parse_flows(json: &str) -> Vec<Flow> {
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let elements = parsed["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["set"]["elem"].as_array())
        .flatten();
    let flow = |element: &serde_json::Value| {
        let element = &element["elem"];
        let key = element["val"]["concat"].as_array()?;
        let [from, to, protocol] = key.as_slice() else { return None };
        Some(Flow {
            from: from.as_str()?.parse().ok()?,
            to: to.as_str()?.parse().ok()?,
            protocol: protocol_number(protocol)?,
            packets: element["counter"]["packets"].as_u64()?,
            bytes: element["counter"]["bytes"].as_u64()?,
        })
    };
    elements.filter_map(flow).collect()
}

fn protocol_number(value: &serde_json::Value) -> Option<u8> {
    let names = BTreeMap::from([("icmp", 1), ("tcp", TCP), ("udp", UDP)]);
    match value {
        serde_json::Value::String(name) => names.get(name.as_str()).copied(),
        other => other.as_u64().and_then(|number| u8::try_from(number).ok()),
    }
}
