//! The figures of a run, as JSON has them. Times are virtual, so that the same arguments give the same bytes.

use std::time::Duration;

use serde::Serialize;

/// Rounds to three digits after the point: below that there is nothing to see.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A time in milliseconds.
pub(super) fn millis(span: Duration) -> f64 {
    rounded(span.as_secs_f64() * 1e3)
}

/// The time that half of the samples, or all but one in a hundred, do not exceed. 0 without samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half.
    pub p50: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
}

impl Percentiles {
    /// Of these times, by nearest rank.
    pub(super) fn of(times: &[Duration]) -> Percentiles {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let rank = |share: usize| {
            let at = (sorted.len() * share).div_ceil(100).max(1) - 1;
            sorted.get(at).copied().map_or(0.0, millis)
        };
        Percentiles { p50: rank(50), p99: rank(99) }
    }
}

/// What it takes to ask a ring, timed at the supernode that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// From the question to the first valid record.
    pub first_ms: Percentiles,
    /// From the question to the settled answer.
    pub settled_ms: Percentiles,
    /// From a write to its acknowledgement.
    pub write_ms: Percentiles,
    /// Datagrams of a lookup, mean, both directions, as the supernode that was asked counts them.
    pub datagrams: f64,
    /// Their payload.
    pub bytes: f64,
    /// Lookups that found the account with its newest acknowledged entry, of all.
    pub success: f64,
    /// Lookups whose settled answer was another one, or whose first was and stood for more than 300 ms.
    pub wrong: u64,
    /// Writes acknowledged, of all.
    pub written: f64,
    /// What a supernode sends in a second when nobody asks.
    pub idle_bytes_s: f64,
}

/// The ring with a share of its members gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Killed {
    /// How many were stopped.
    pub killed: usize,
    /// From then until every other knew; nothing when that took longer than two minutes.
    pub known_ms: Option<f64>,
    /// Asked from the moment they were stopped on.
    #[serde(flatten)]
    pub figures: Figures,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
}

/// The ring while its members are replaced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Churned {
    /// Members that were stopped, and as many that came.
    pub replaced: usize,
    /// What a supernode sent in a second, lookups included.
    pub bytes_s: f64,
    /// Asked meanwhile.
    #[serde(flatten)]
    pub figures: Figures,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
}

/// The ring while members come and go every second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turned {
    /// From a newcomer's start until it was in everybody's table; nothing when that took longer than two minutes.
    pub join_known_ms: Option<f64>,
    /// From a silent death until nobody counted on it; nothing when that took longer than two minutes.
    pub death_known_ms: Option<f64>,
    /// Joins, and as many deaths.
    pub events: usize,
    /// What a member sent in datagrams in a second meanwhile.
    pub datagram_bytes_s: f64,
    /// What it sent over links: bulletins and cards mostly.
    pub link_bytes_s: f64,
    /// Datagrams and frames that a member sent in a second meanwhile.
    pub messages_s: f64,
    /// Asked at the end of it.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The ring with holders that lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deceived {
    /// Lies told to whoever asked.
    pub lies: u64,
    /// Asked of members that do not lie about the account.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The ring with members that lie about members.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slandered {
    /// Members that lie.
    pub liars: usize,
    /// Members they told of that nobody is.
    pub invented: u64,
    /// Longest time that an honest member did not count on another honest one, seconds; looked at every quarter of one.
    pub dropped_s: f64,
    /// Times that an honest member stopped to count on another honest one, as far as it showed.
    pub drops: u64,
    /// The most members that an honest member's table held beyond those that exist.
    pub grown: usize,
    /// What an honest member sent in a second before there were liars.
    pub honest_bytes_s_before: f64,
    /// What it sent in a second with them.
    pub honest_bytes_s: f64,
    /// Records handed over by honest members, though nobody came or went.
    pub handed_over: u64,
    /// Asked meanwhile.
    #[serde(flatten)]
    pub figures: Figures,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
}

/// The ring with members that begin again at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Restarted {
    /// How many.
    pub restarted: usize,
    /// From the last start until everybody counts on everybody and nobody is on standby; nothing when that took longer
    /// than two minutes.
    pub steady_ms: Option<f64>,
    /// Datagrams and frames that a member sent in a second before.
    pub messages_s_before: f64,
    /// The most that it sent in any second in the two minutes after the last start, mean of all members.
    pub messages_s_peak: f64,
    /// What it sent in a second from two minutes after the last start on.
    pub messages_s_after: f64,
    /// Asked from the last start on.
    #[serde(flatten)]
    pub figures: Figures,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
}

/// The ring after it was in two halves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Healed {
    /// Writes that were acknowledged in either half.
    pub acknowledged: usize,
    /// Writes that were not.
    pub unacknowledged: usize,
    /// From the healing until every member knew all others and every account read back as last acknowledged; nothing
    /// when that took longer than five minutes.
    pub converged_ms: Option<f64>,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
}

/// The ring after a time without login server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Orphaned {
    /// Asked just before the login server came back.
    #[serde(flatten)]
    pub figures: Figures,
    /// Accounts whose newest acknowledged entry nobody could be asked for in the end.
    pub lost: usize,
    /// From the moment that one member heard of a revocation until all had; nothing when that took longer than two
    /// minutes.
    pub revoked_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Percentiles::of(&times), Percentiles { p50: 100.0, p99: 198.0 });
        assert_eq!(Percentiles::of(&times[..1]), Percentiles { p50: 200.0, p99: 200.0 });
        assert_eq!(Percentiles::of(&[]), Percentiles { p50: 0.0, p99: 0.0 });
        assert_eq!(millis(Duration::from_nanos(1_234_567)), 1.235);
    }
}
