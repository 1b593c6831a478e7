//! Which supernode a phone turns to next: another owner than the other home's, then the nearest; those as near as each
//! other by a draw of the phone's own, so that the clients of a dead home spread over all that are near. Those few that
//! the bulletin names to everybody come after those whose cards came to this phone.
//!
//! What a probe told long ago is not acted upon: who died together with the home would be tried in vain, and a probe
//! takes one round trip.

use std::time::Duration;

use yodel_identity::node::{NodeId, OwnerTag};
use yodel_wire::time::Instant;

use super::hosts::{Host, Probed};
use crate::limits::{NEAR_ALIKE, PROBE_FRESH, SWITCH_GAIN};

/// What to do about a missing home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Attach to this one.
    Attach(NodeId),
    /// Wait for probes, at most until then.
    Wait(Option<Instant>),
    /// Nobody's distance is known: measure first.
    Measure,
    /// Nobody is left to try now.
    Nobody,
}

/// How things stand when somebody has to be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need<'n> {
    /// Owners of the other homes.
    pub(super) taken: &'n [OwnerTag],
    /// Homes that are missing.
    pub(super) wanted: usize,
    /// Probes are out, and it is too early to say who is silent.
    pub(super) undecided: bool,
    /// A round of probes may begin.
    pub(super) may_measure: bool,
}

/// Chooses among supernodes that may be tried now.
pub(super) fn next(now: Instant, candidates: Vec<(NodeId, &Host)>, need: Need<'_>) -> Next {
    let Need { taken, wanted, undecided, may_measure } = need;
    let choice = candidates.len() > wanted;
    let others: Vec<(NodeId, &Host)> = candidates
        .iter()
        .filter(|(_, host)| !host.owner.is_some_and(|owner| taken.contains(&owner)))
        .copied()
        .collect();
    let pool = if others.is_empty() { candidates } else { others };
    let answered: Vec<Instant> =
        pool.iter().filter_map(|(_, host)| fresh(host, now)).map(|p| p.at + grace(p.rtt)).collect();
    // The first to answer waits a moment for those that are as near.
    let is_ripe = answered.iter().any(|at| *at <= now);
    if undecided && !is_ripe {
        return Next::Wait(answered.into_iter().min());
    }
    let just_answered: Vec<(NodeId, &Host)> =
        pool.iter().filter(|(_, host)| fresh(host, now).is_some()).copied().collect();
    match nearest(&just_answered) {
        Some(node) => Next::Attach(node),
        None if pool.is_empty() => Next::Nobody,
        None if may_measure && choice && pool.iter().any(|(_, host)| is_measurable(host)) => Next::Measure,
        None => nearest(&pool).or_else(|| by_draw(&pool)).map_or(Next::Nobody, Next::Attach),
    }
}

/// What a supernode's last probe told, as long as it is to be acted upon.
fn fresh(host: &Host, now: Instant) -> Option<Probed> {
    host.probed.filter(|probed| now.since(probed.at) < PROBE_FRESH)
}

fn is_measurable(host: &Host) -> bool {
    !host.silent && !host.udp.is_empty()
}

/// The choice when nothing can be measured.
fn by_draw(pool: &[(NodeId, &Host)]) -> Option<NodeId> {
    pool.iter()
        .min_by_key(|(_, host)| (host.silent, host.failures, host.is_everybodys(), host.order))
        .map(|(node, _)| *node)
}

fn nearest(pool: &[(NodeId, &Host)]) -> Option<NodeId> {
    let best = pool.iter().filter_map(|(_, host)| host.probed).map(|probed| probed.rtt).min()?;
    let alike = best + best / 4 + NEAR_ALIKE;
    pool.iter()
        .filter(|(_, host)| host.probed.is_some_and(|probed| probed.rtt <= alike))
        .min_by_key(|(_, host)| (host.failures, host.is_everybodys(), host.order))
        .map(|(node, _)| *node)
}

fn grace(rtt: Duration) -> Duration {
    rtt / 4 + NEAR_ALIKE
}

/// Whether a supernode that is so far is worth leaving a home that is so far.
pub(super) fn is_worth_a_switch(candidate: Duration, home: Duration) -> bool {
    candidate + SWITCH_GAIN <= home && candidate.saturating_mul(10) <= home.saturating_mul(7)
}

/// Whom a phone would turn to if a home died now.
pub(super) fn reserve(candidates: &[(NodeId, &Host)], taken: &[OwnerTag]) -> Option<NodeId> {
    let is_taken = |host: &Host| host.owner.is_some_and(|owner| taken.contains(&owner));
    let others: Vec<(NodeId, &Host)> = candidates.iter().filter(|(_, h)| !is_taken(h)).copied().collect();
    let pool = if others.is_empty() { candidates } else { &others };
    nearest(pool).or_else(|| by_draw(pool))
}
