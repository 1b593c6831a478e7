//! How often somebody may ask: token buckets by key, bounded in number.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use yodel_wire::time::Instant;

/// A bucket per key: `burst` at once, then one every `every`.
#[derive(Debug)]
pub(crate) struct Rate<K> {
    burst: u32,
    every: Duration,
    max: usize,
    /// When the bucket is full again. A key without an entry has a full one.
    full_at: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Rate<K> {
    pub(crate) fn new(burst: u32, every: Duration, max: usize) -> Rate<K> {
        Rate { burst, every, max, full_at: BTreeMap::new() }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// When there is none: how long until there is.
    pub(crate) fn take(&mut self, now: Instant, key: &K) -> Result<(), Duration> {
        let full_at = self.full_at.get(key).copied().unwrap_or(now).max(now);
        let after = full_at + self.every;
        let capacity = self.every * self.burst;
        let debt = after.since(now);
        if debt > capacity {
            return Err(debt.saturating_sub(capacity));
        }
        if !self.full_at.contains_key(key) && self.full_at.len() >= self.max {
            self.sweep(now);
            if self.full_at.len() >= self.max {
                // All of them wait: the one that waits least knows best that it may be forgotten.
                let soonest = self.full_at.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
                soonest.map(|key| self.full_at.remove(&key));
            }
        }
        self.full_at.insert(key.clone(), after);
        Ok(())
    }

    /// Forgets whose bucket is full.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.full_at.retain(|_, at| *at > now);
    }
}

/// What an address counts as: IPv4 by itself, IPv6 by its /64, which is one customer's.
pub(crate) fn network_of(addr: SocketAddr) -> [u8; 16] {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets.iter_mut().skip(8).for_each(|octet| *octet = 0);
            octets
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_by_one() {
        let at = |ms: u64| Instant::from_micros(ms * 1_000);
        let mut rate = Rate::new(3, Duration::from_secs(1), 2);
        for _ in 0..3 {
            assert_eq!(rate.take(at(0), &1), Ok(()));
        }
        assert_eq!(rate.take(at(0), &1), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(at(999), &1), Err(Duration::from_millis(1)));
        assert_eq!(rate.take(at(1_000), &1), Ok(()));
        assert_eq!(rate.take(at(1_000), &2), Ok(()));
        assert_eq!(rate.take(at(1_000), &3), Ok(()), "the least guilty is forgotten");
        assert!(rate.take(at(1_000), &1).is_err());
        rate.sweep(at(10_000));
        assert!(rate.full_at.is_empty());
    }

    #[test]
    fn ipv6_counts_by_64() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:1]:2"));
        assert_ne!(of("[2001:db8:0:1::1]:1"), of("[2001:db8::1]:1"));
        assert_eq!(of("192.0.2.1:1"), of("[::ffff:192.0.2.1]:9"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }
}
