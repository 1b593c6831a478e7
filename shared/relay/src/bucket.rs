//! A token bucket: so many bytes per second, saved up to a burst.

use yodel_wire::time::Instant;

/// Microseconds in a second; tokens are counted in byte-microseconds so that nothing is lost to rounding.
const MICROS: u64 = 1_000_000;

/// A token bucket. Starts full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    rate_per_s: u64,
    burst: u64,
    level_micro: u64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of `burst` units that refills at `rate_per_s`.
    pub fn new(now: Instant, rate_per_s: u64, burst: u64) -> Bucket {
        Bucket { rate_per_s, burst, level_micro: burst.saturating_mul(MICROS), filled: now }
    }

    /// Takes `amount` units if they are there.
    pub fn take(&mut self, now: Instant, amount: u64) -> bool {
        let micros = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        self.filled = self.filled.max(now);
        self.level_micro = self
            .level_micro
            .saturating_add(micros.saturating_mul(self.rate_per_s))
            .min(self.burst.saturating_mul(MICROS));
        match self.level_micro.checked_sub(amount.saturating_mul(MICROS)) {
            Some(left) => {
                self.level_micro = left;
                true
            }
            None => false,
        }
    }

    /// Whether it would be full at `now`, so that forgetting it changes nothing.
    pub fn is_full(&self, now: Instant) -> bool {
        let micros = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        self.level_micro.saturating_add(micros.saturating_mul(self.rate_per_s))
            >= self.burst.saturating_mul(MICROS)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn gives_the_burst_then_the_rate() {
        let start = Instant::from_micros(5);
        let mut bucket = Bucket::new(start, 1_000, 2_000);
        assert!(bucket.take(start, 2_000));
        assert!(!bucket.take(start, 1));
        assert!(!bucket.take(start + Duration::from_micros(999), 1));
        assert!(bucket.take(start + Duration::from_millis(1), 1));
        assert!(!bucket.take(start + Duration::from_millis(1), 1));
        assert!(bucket.is_full(start + Duration::from_secs(3)));
        assert!(bucket.take(start + Duration::from_secs(60), 2_000));
        assert!(!bucket.take(start + Duration::from_secs(60), 1), "never more than the burst is saved");
    }

    #[test]
    fn an_empty_rate_gives_nothing() {
        let mut bucket = Bucket::new(Instant::ORIGIN, 0, 0);
        assert!(!bucket.take(Instant::ORIGIN + Duration::from_secs(1_000), 1));
    }
}
