//! The figures of a run, as JSON has them. Times are virtual, so that the same arguments give the same bytes.

use std::time::Duration;

use serde::Serialize;

use super::Arguments;

/// What a run shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The format.
    pub v: u8,
    /// What was asked for.
    pub arguments: Arguments,
    /// Phones that a supernode takes.
    pub clients_max: u32,
    /// How things stood before.
    pub before: Before,
    /// Supernodes that died.
    pub killed: u32,
    /// Phones that lost one of two homes.
    pub lost_one: usize,
    /// Phones that lost all.
    pub lost_all: usize,
    /// From then until a phone that lost all had a warm home again.
    pub one_home: Spans,
    /// From then until a phone that lost one or all had two warm homes again.
    pub two_homes: Spans,
    /// Phones at the survivor with the fewest in the end.
    pub fewest: usize,
    /// Phones at the survivor with the most in the end.
    pub most: usize,
    /// Phones that were sent elsewhere, each time counted.
    pub refusals: u32,
    /// Of these, without being told where to.
    pub refusals_without_redirect: u32,
    /// Of these, sent to a supernode that was dead.
    pub refusals_to_the_dead: u32,
    /// Most phones that a survivor let in within one second.
    pub peak_attached: u32,
    /// Most phones that a survivor sent elsewhere within one second.
    pub peak_refused: u32,
    /// Survivors that ended by themselves.
    pub ended: usize,
    /// Calls begun in the minute after.
    pub calls: Calls,
    /// Second by second.
    pub seconds: Vec<Second>,
}

/// Before anything happens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Before {
    /// Phones with two warm homes.
    pub two_homes: usize,
    /// Phones at the supernode with the fewest.
    pub fewest: usize,
    /// Phones at the supernode with the most.
    pub most: usize,
    /// Phones that were sent elsewhere while all came, each time counted.
    pub sent_away: u32,
}

/// How long it took, in seconds; 0 when nobody had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spans {
    /// Half needed no longer.
    pub p50_s: f64,
    /// Ninety-nine of a hundred.
    pub p99_s: f64,
    /// All who got there.
    pub max_s: f64,
    /// Who did not while it was watched.
    pub never: usize,
}

impl Spans {
    /// Of these times, by nearest rank.
    pub(super) fn of(times: &[Duration], waiting: usize) -> Spans {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let rank = |share: usize| {
            let at = (sorted.len() * share).div_ceil(100).max(1) - 1;
            sorted.get(at).map_or(0.0, |span| rounded(span.as_secs_f64()))
        };
        Spans { p50_s: rank(50), p99_s: rank(99), max_s: rank(100), never: waiting - times.len() }
    }
}

/// Calls begun in the minute after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calls {
    /// Between two phones of which both had a warm home that lived.
    pub begun: u32,
    /// Of these, the callee rang, and the caller knew it, within 3 s.
    pub rang: u32,
    /// The share of them.
    pub share: f64,
    /// How long half of them took.
    pub p50_ms: f64,
    /// How long ninety-nine of a hundred took.
    pub p99_ms: f64,
    /// Pairs that had no warm home that lived, up to the end of the minute.
    pub not_begun: u32,
}

/// What happened at the survivors in one second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Since the strike, at its end.
    pub second: u32,
    /// Phones that came, refused or not.
    pub came: u32,
    /// Phones let in.
    pub attached: u32,
    /// The same at the survivor that let most in.
    pub attached_most: u32,
    /// Phones sent elsewhere.
    pub refused: u32,
    /// The same at the survivor that sent most away.
    pub refused_most: u32,
    /// Frames that survivors got from phones, of all kinds.
    pub frames: u32,
    /// Probes that survivors answered.
    pub probes: u64,
    /// Phones without a warm home that lives.
    pub with_none: usize,
    /// Phones with one.
    pub with_one: usize,
    /// Phones at all survivors, each counted for each of its homes.
    pub held: usize,
    /// Phones at the survivor with the most.
    pub held_most: usize,
}

/// Three digits after the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
