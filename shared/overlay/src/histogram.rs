//! Durations counted in buckets: fixed memory, and percentiles within 2 %.
//!
//! Each octave of microseconds has 64 buckets, so that a bucket is at most 1/64 of its value wide. Values below 64 µs are
//! exact; what took longer than two minutes counts as two minutes.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const VALUE_BITS: u32 = 27;
const VALUE_MAX: u64 = (1 << VALUE_BITS) - 1;
const BUCKETS: usize = ((VALUE_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// Counts durations; see the module's text. Costs nothing before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
    micros: u64,
}

impl Histogram {
    /// Nothing is counted yet.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(VALUE_MAX);
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        if let Some(bucket) = self.buckets.get_mut(bucket_of(micros)) {
            *bucket = bucket.saturating_add(1);
        }
        self.count += 1;
        self.micros = self.micros.saturating_add(micros);
    }

    /// Counts all that another counted.
    pub fn merge(&mut self, other: &Histogram) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
                *bucket = bucket.saturating_add(*more);
            }
        }
        self.count += other.count;
        self.micros = self.micros.saturating_add(other.micros);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// The duration that `percent` of those counted do not exceed, or `None` when none was counted.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(index, count)| {
            seen += u64::from(*count);
            (seen >= wanted).then(|| Duration::from_micros(middle_of(index as u64)))
        })
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < SUB {
        return micros as usize;
    }
    let octave = micros.ilog2() - SUB_BITS;
    ((u64::from(octave) << SUB_BITS) + (micros >> octave)) as usize
}

fn middle_of(bucket: u64) -> u64 {
    if bucket < 2 * SUB {
        return bucket;
    }
    let octave = (bucket >> SUB_BITS) - 1;
    let low = (bucket - (octave << SUB_BITS)) << octave;
    low + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_two_percent_everywhere() {
        for micros in (0..2_000).chain([50_000, 123_456, 5_000_000, VALUE_MAX]) {
            let mut histogram = Histogram::new();
            histogram.record(Duration::from_micros(micros));
            let said = histogram.percentile(50.0).unwrap().as_micros() as f64;
            assert!((said - micros as f64).abs() <= micros as f64 * 0.02, "{said} for {micros}");
        }
        let mut long = Histogram::new();
        long.record(Duration::from_secs(3_600));
        assert!(long.percentile(99.0).unwrap() > Duration::from_secs(120));
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50.0), None);
        for micros in 1..=50 {
            histogram.record(Duration::from_micros(micros));
        }
        let mut other = Histogram::new();
        for micros in 51..=100 {
            other.record(Duration::from_micros(micros));
        }
        histogram.merge(&other);
        let at = |percent| histogram.percentile(percent).unwrap().as_micros();
        assert_eq!((at(0.0), at(50.0), at(99.0), at(100.0)), (1, 50, 99, 100));
        assert_eq!((histogram.count(), histogram.sum()), (100, Duration::from_micros(5_050)));
    }
}
