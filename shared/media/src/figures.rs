//! Quality figures: what was received, how regularly, and what of it is told.

use std::time::Duration;

use yodel_wire::time::Instant;

/// Quality of the last second. Every number is of this end: `loss` is of what the peer sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Share of the peer's packets that did not arrive in the last second, 0–1.
    pub loss: f32,
    /// Share of our packets that the peer missed, 0–1, as it last reported.
    pub peer_loss: f32,
    /// Interarrival jitter, ms (RFC 3550 §6.4.1).
    pub jitter_ms: f32,
    /// Round trip, ms, once measured.
    pub rtt_ms: Option<f32>,
    /// Network and jitter buffer together, as heard here, ms.
    pub delay_ms: f32,
    /// What the jitter buffer adds, ms.
    pub buffer_ms: f32,
    /// Audio packets sent in all.
    pub tx_packets: u64,
    /// Audio packets opened in all.
    pub rx_packets: u64,
    /// Frames played that had not been received, in all.
    pub concealed: u64,
}

/// Counts one direction's packets.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    highest: Option<u64>,
    transit: Option<i64>,
    jitter: f64,
}

/// Where an interval of loss counting began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    packets: u64,
    expected: u64,
}

impl Received {
    pub(crate) fn packet(&mut self, now: Instant, index: u64, timestamp: u64) {
        self.packets += 1;
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        // In samples at 48 kHz: 6 per 125 µs.
        let arrival = i64::try_from(u128::from(now.as_micros()) * 6 / 125).unwrap_or(i64::MAX / 2);
        let transit = arrival - i64::try_from(timestamp).unwrap_or(i64::MAX / 2);
        if let Some(before) = self.transit.replace(transit) {
            let change = transit.abs_diff(before) as f64;
            self.jitter += (change - self.jitter) / 16.0;
        }
    }

    /// Interarrival jitter in samples.
    pub(crate) fn jitter(&self) -> u32 {
        self.jitter as u32
    }

    pub(crate) fn jitter_ms(&self) -> f32 {
        (self.jitter / 48.0) as f32
    }

    /// The share lost since `mark`, which moves to now. All, when nothing came: the peer never pauses.
    pub(crate) fn loss_since(&self, mark: &mut Mark) -> f32 {
        let now = Mark { packets: self.packets, expected: self.highest.map_or(0, |h| h + 1) };
        let expected = now.expected.saturating_sub(mark.expected);
        let received = now.packets.saturating_sub(mark.packets);
        *mark = now;
        if received == 0 {
            return 1.0;
        }
        expected.saturating_sub(received) as f32 / expected.max(1) as f32
    }
}

/// Smoothed round trip (RFC 6298 §2).
#[derive(Debug, Default)]
pub(crate) struct RoundTrip(Option<Duration>);

impl RoundTrip {
    pub(crate) fn sample(&mut self, rtt: Duration) {
        self.0 = Some(self.0.map_or(rtt, |before| before * 7 / 8 + rtt / 8));
    }

    pub(crate) fn restart(&mut self, rtt: Option<Duration>) {
        self.0 = rtt;
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_of_the_interval() {
        let mut received = Received::default();
        let mut mark = Mark::default();
        assert_eq!(received.loss_since(&mut mark), 1.0);
        for index in [0, 1, 2, 3, 5, 6, 7, 9] {
            received.packet(Instant::from_micros(index * 20_000), index, index * 960);
        }
        assert_eq!(received.loss_since(&mut mark), 0.2);
        for index in [8, 10, 11] {
            received.packet(Instant::from_micros(index * 20_000), index, index * 960);
        }
        assert_eq!(received.loss_since(&mut mark), 0.0, "a late one makes up for itself");
        assert_eq!(received.jitter(), 0);
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut received = Received::default();
        for index in 0..2_000u64 {
            let late = if index % 2 == 0 { 0 } else { 10_000 };
            received.packet(Instant::from_micros(index * 20_000 + late), index, index * 960);
        }
        assert!((received.jitter_ms() - 10.0).abs() < 0.1);
    }
}
