//! What the kernel says of processes and packets, and percentiles.

use std::time::Duration;

use serde_json::{Value, json};

/// Median, 99th percentile, the worst, in milliseconds, and how many there were.
pub fn percentiles(times: &[Duration]) -> Value {
    let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).map(|ms| round(*ms))
    };
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "n": sorted.len() })
}

/// Three digits behind the point.
pub fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// What a process took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds of processor, user and system, since its start.
    pub cpu_s: f64,
    /// Resident memory, MiB.
    pub rss_mib: f64,
}

/// What a process took so far; zeros when it is gone.
pub fn usage(pid: u32) -> Usage {
    Usage { cpu_s: cpu_s(pid).unwrap_or(0.0), rss_mib: rss_mib(pid).unwrap_or(0.0) }
}

/// Fields 14 and 15 of its stat line, in hundredths of a second on every Linux there is.
fn cpu_s(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
    Some((fields.next()? + fields.next()?) / 100.0)
}

fn rss_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1_024.0)
}

/// What the loopback interface carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets; with segmentation offload a burst to one receiver counts as one.
    pub packets: u64,
    /// Bytes with IP and UDP headers.
    pub bytes: u64,
    /// UDP datagrams taken in by sockets.
    pub datagrams: u64,
}

impl Carried {
    /// What the loopback of this thread's namespace has carried.
    pub fn now() -> Carried {
        let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let loopback = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
        let mut numbers = loopback.split_whitespace().map_while(|field| field.parse().ok());
        let (bytes, packets) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let protocols = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
        let datagrams = protocols.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1);
        let datagrams = datagrams.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Carried { packets, bytes, datagrams: datagrams.unwrap_or(0) }
    }

    /// Bytes without the headers, if all was UDP.
    pub fn payload(self) -> u64 {
        self.bytes.saturating_sub(28 * self.packets)
    }

    /// What came since.
    pub fn since(self, earlier: Carried) -> Carried {
        Carried {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            datagrams: self.datagrams.saturating_sub(earlier.datagrams),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentiles(&times), json!({ "p50": 100.0, "p99": 198.0, "max": 200.0, "n": 200 }));
        assert_eq!(percentiles(&[])["p50"], Value::Null);
    }

    #[test]
    fn this_process_takes_something() {
        assert!(usage(std::process::id()).rss_mib > 1.0);
        assert_eq!(usage(u32::MAX), Usage::default());
    }

    #[test]
    fn loopback_counts() {
        let before = Carried::now();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
            socket.recv(&mut [0; 100]).unwrap();
        }
        let carried = Carried::now().since(before);
        assert!(
            carried.packets >= 10 && carried.payload() >= 1_000 && carried.datagrams >= 10,
            "{carried:?}"
        );
    }
}
