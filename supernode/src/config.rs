//! The supernode's configuration: TOML, every key optional. `init` writes it; the environment (`YODEL_LISTEN`, …)
//! stands over it, flags over both.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};
use yodel_identity::limits::SUPERNODE_ADDRESSES_MAX;
use yodel_net::console::Failure;
use yodel_net::settings::unknown_key;
use yodel_relay::limits::{BURST_BYTES, RATE_BYTES_PER_S, SESSIONS_MAX};
use yodel_relay::server::ServerConfig;

use crate::limits::CLIENTS_MAX;

/// All settings, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where UDP and TCP are bound: `listen = "[::]:5061"`.
    pub listen: SocketAddr,
    /// Further TCP ports: `tcp = [443, 80]`.
    pub tcp: Vec<u16>,
    /// Addresses others reach it at, `IP` or `IP:PORT`: `advertise = ["203.0.113.7"]`. Without any, the address of
    /// `listen`, or this machine's own.
    pub advertise: Vec<Advertise>,
    /// Devices attached at once: `clients_max = 8000`.
    pub clients_max: usize,
    /// Bytes per second relayed for one credential: `relay_bytes_per_s = 128000`; 0 relays nothing.
    pub relay_bytes_per_s: u64,
    /// Relay sessions in all: `relay_sessions_max = 4096`.
    pub relay_sessions_max: usize,
}

/// An address to tell others; without a port, that of `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// An address alone.
    Ip(IpAddr),
    /// An address with its port.
    Addr(SocketAddr),
}

impl std::str::FromStr for Advertise {
    type Err = String;
    fn from_str(text: &str) -> Result<Advertise, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let read = text.parse().map(Advertise::Addr).or_else(|_| bare.parse().map(Advertise::Ip));
        let read = read.map_err(|_| format!("{text:?} is neither IP nor IP:PORT"))?;
        let (ip, port) = match read {
            Advertise::Ip(ip) => (ip, None),
            Advertise::Addr(addr) => (addr.ip(), Some(addr.port())),
        };
        if ip.is_unspecified() || ip.is_multicast() || port == Some(0) {
            return Err(format!("nobody can reach {text}"));
        }
        Ok(read)
    }
}

impl std::fmt::Display for Advertise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Advertise::Ip(ip) => ip.fmt(f),
            Advertise::Addr(addr) => addr.fmt(f),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from(([0u16; 8], 5061)),
            tcp: Vec::new(),
            advertise: Vec::new(),
            clients_max: CLIENTS_MAX,
            relay_bytes_per_s: RATE_BYTES_PER_S,
            relay_sessions_max: SESSIONS_MAX,
        }
    }
}

/// What `config example` prints.
pub const EXAMPLE: &str = r#"# Yodel's supernode. Every key is optional; these are the defaults.

# Where UDP and TCP are bound; [::] serves IPv4 too, port 0 means any.
listen = "[::]:5061"

# Further TCP ports, for clients whose networks let nothing else out.
tcp = []

# Addresses others reach it at, IP or IP:PORT. Without any: that of listen, or this machine's own.
advertise = []

# Devices attached at once.
clients_max = 8000

# Bytes per second relayed for one credential; 0 relays nothing.
relay_bytes_per_s = 128000

# Relay sessions in all.
relay_sessions_max = 4096
"#;

const KEYS: [&str; 6] =
    ["listen", "tcp", "advertise", "clients_max", "relay_bytes_per_s", "relay_sessions_max"];

impl Settings {
    /// Reads the file; one that is not there has nothing to say. The second value holds a warning for each key that
    /// means nothing.
    ///
    /// # Errors
    /// The file cannot be read (exit 1), is no TOML, or a value makes no sense (exit 2).
    pub fn load(path: &Path) -> Result<(Settings, Vec<String>), Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        let (mut settings, warnings) =
            Settings::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        for key in KEYS {
            let variable = format!("YODEL_{}", key.to_uppercase());
            if let Ok(text) = std::env::var(&variable) {
                settings
                    .set(key, &value_of(key, &text))
                    .map_err(|error| Failure::usage(format!("{variable}: {error}")))?;
            }
        }
        Ok((settings, warnings))
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// It is no TOML, or a value makes no sense; a text for people.
    pub fn parse(text: &str) -> Result<(Settings, Vec<String>), String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut settings = Settings::default();
        let mut warnings = Vec::new();
        for (key, value) in &table {
            if !settings.set(key, value)? {
                warnings.push(unknown_key(key, &KEYS));
            }
        }
        Ok((settings, warnings))
    }

    /// `false` when there is no such key.
    fn set(&mut self, key: &str, value: &toml::Value) -> Result<bool, String> {
        let wrong = |what: &str| format!("{key}: wants {what}");
        match key {
            "listen" => {
                self.listen =
                    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| wrong("IP:PORT"))?;
            }
            "tcp" => {
                let ports = value.as_array().ok_or_else(|| wrong("a list of ports"))?;
                self.tcp = ports
                    .iter()
                    .map(|port| port.as_integer().and_then(|port| u16::try_from(port).ok()))
                    .collect::<Option<_>>()
                    .ok_or_else(|| wrong("a list of ports"))?;
            }
            "advertise" => {
                let addrs = value.as_array().ok_or_else(|| wrong("a list of addresses"))?;
                self.advertise = addrs
                    .iter()
                    .map(|addr| addr.as_str().ok_or_else(|| wrong("a list of addresses"))?.parse())
                    .collect::<Result<_, String>>()?;
            }
            "clients_max" => self.clients_max = whole(value).ok_or_else(|| wrong("a number"))?,
            "relay_bytes_per_s" => {
                self.relay_bytes_per_s = whole(value).ok_or_else(|| wrong("a number"))?;
            }
            "relay_sessions_max" => {
                self.relay_sessions_max = whole(value).ok_or_else(|| wrong("a number"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The settings as an object.
    pub fn to_json(&self) -> Value {
        let advertise: Vec<String> = self.advertise.iter().map(Advertise::to_string).collect();
        json!({
            "v": 1,
            "listen": self.listen.to_string(),
            "tcp": self.tcp,
            "advertise": advertise,
            "clients_max": self.clients_max,
            "relay_bytes_per_s": self.relay_bytes_per_s,
            "relay_sessions_max": self.relay_sessions_max,
        })
    }

    /// The file's content.
    pub fn to_toml(&self) -> String {
        let advertise: Vec<String> = self.advertise.iter().map(|addr| format!("\"{addr}\"")).collect();
        let tcp: Vec<String> = self.tcp.iter().map(u16::to_string).collect();
        format!(
            "listen = \"{}\"\ntcp = [{}]\nadvertise = [{}]\nclients_max = {}\nrelay_bytes_per_s = {}\n\
             relay_sessions_max = {}\n",
            self.listen,
            tcp.join(", "),
            advertise.join(", "),
            self.clients_max,
            self.relay_bytes_per_s,
            self.relay_sessions_max
        )
    }

    /// What the relay grants.
    pub fn relay(&self) -> ServerConfig {
        ServerConfig {
            rate_bytes_per_s: self.relay_bytes_per_s,
            burst_bytes: self.relay_bytes_per_s.saturating_mul(BURST_BYTES / RATE_BYTES_PER_S),
            sessions_max: self.relay_sessions_max,
        }
    }

    /// The UDP and TCP addresses to tell others, when bound at `port` on a machine with the addresses `own`. The own
    /// port stands first.
    pub fn advertised(&self, port: u16, own: &[IpAddr]) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let mut chosen: Vec<Advertise> = self.advertise.clone();
        if chosen.is_empty() && !self.listen.ip().is_unspecified() {
            chosen.push(Advertise::Ip(self.listen.ip()));
        }
        if chosen.is_empty() {
            let v4_only = self.listen.is_ipv4();
            let usable = own.iter().filter(|ip| !ip.is_loopback() && (ip.is_ipv4() || !v4_only));
            // IPv4 first: every supernode has such an address.
            let mut usable: Vec<IpAddr> = usable.copied().collect();
            usable.sort_by_key(|ip| (ip.is_ipv6(), is_private(*ip)));
            chosen.extend(usable.into_iter().map(Advertise::Ip));
        }
        let mut udp: Vec<SocketAddr> = Vec::new();
        for addr in &chosen {
            let addr = match addr {
                Advertise::Ip(ip) => SocketAddr::new(*ip, port),
                Advertise::Addr(addr) => *addr,
            };
            if !udp.contains(&addr) {
                udp.push(addr);
            }
        }
        let mut tcp = udp.clone();
        for further in &self.tcp {
            for addr in &udp {
                let addr = SocketAddr::new(addr.ip(), *further);
                if !tcp.contains(&addr) {
                    tcp.push(addr);
                }
            }
        }
        udp.truncate(SUPERNODE_ADDRESSES_MAX);
        // The further ports are worth more than a second address with the same port.
        if tcp.len() > SUPERNODE_ADDRESSES_MAX {
            let first = tcp.first().map(SocketAddr::ip);
            tcp.sort_by_key(|addr| Some(addr.ip()) != first);
            tcp.truncate(SUPERNODE_ADDRESSES_MAX);
        }
        (udp, tcp)
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// What the environment says, as the file would: lists are separated by commas.
fn value_of(key: &str, text: &str) -> toml::Value {
    let item = |text: &str| match text.trim().parse() {
        Ok(number) => toml::Value::Integer(number),
        Err(_) => toml::Value::String(text.trim().to_owned()),
    };
    match key {
        "tcp" | "advertise" => {
            toml::Value::Array(text.split(',').filter(|part| !part.trim().is_empty()).map(item).collect())
        }
        _ => item(text),
    }
}

fn whole<T: TryFrom<i64>>(value: &toml::Value) -> Option<T> {
    value.as_integer().and_then(|number| T::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_holds_the_defaults_and_what_is_written_is_read() {
        assert_eq!(Settings::parse(EXAMPLE), Ok((Settings::default(), vec![])));
        let settings = Settings {
            tcp: vec![443, 80],
            advertise: vec!["203.0.113.7".parse().unwrap(), "[2001:db8::1]:99".parse().unwrap()],
            relay_bytes_per_s: 0,
            ..Settings::default()
        };
        assert_eq!(Settings::parse(&settings.to_toml()), Ok((settings, vec![])));
        let (_, warnings) = Settings::parse("relay_bytes = 1").unwrap();
        assert_eq!(warnings, ["unknown key \"relay_bytes\"; did you mean \"relay_bytes_per_s\"?"]);
        assert!(Settings::parse("listen = 5").is_err());
        for text in ["203.0.113", "0.0.0.0", "[::]:80", "203.0.113.1:0", "example.net"] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_environment_writes_lists_with_commas() {
        let mut settings = Settings::default();
        for (key, text) in [("tcp", "443, 80"), ("advertise", "203.0.113.7,"), ("relay_bytes_per_s", "0")] {
            assert_eq!(settings.set(key, &value_of(key, text)), Ok(true), "{key}");
        }
        assert_eq!((settings.tcp, settings.relay_bytes_per_s), (vec![443, 80], 0));
        assert_eq!(settings.advertise, ["203.0.113.7".parse().unwrap()]);
        assert!(Settings::default().set("tcp", &value_of("tcp", "http")).is_err());
    }

    #[test]
    fn advertises_what_was_asked_or_what_there_is() {
        let own: Vec<IpAddr> =
            ["127.0.0.1", "2001:db8::5", "10.0.0.5", "203.0.113.5"].map(|ip| ip.parse().unwrap()).to_vec();
        let text = |addrs: &[SocketAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut settings = Settings::default();
        let (udp, _) = settings.advertised(7, &own);
        assert_eq!(text(&udp), ["203.0.113.5:7", "10.0.0.5:7", "[2001:db8::5]:7"]);
        settings.listen = "127.0.0.1:0".parse().unwrap();
        settings.tcp = vec![80];
        let (udp, tcp) = settings.advertised(7, &own);
        assert_eq!(
            (text(&udp), text(&tcp)),
            (vec!["127.0.0.1:7".into()], vec!["127.0.0.1:7".into(), "127.0.0.1:80".into()])
        );
        settings.advertise = vec!["198.51.100.1".parse().unwrap(), "[2001:db8::9]:99".parse().unwrap()];
        settings.tcp = vec![443, 80];
        let (udp, tcp) = settings.advertised(7, &own);
        assert_eq!(text(&udp), ["198.51.100.1:7", "[2001:db8::9]:99"]);
        assert_eq!(text(&tcp), ["198.51.100.1:7", "198.51.100.1:443", "198.51.100.1:80", "[2001:db8::9]:99"]);
    }
}
