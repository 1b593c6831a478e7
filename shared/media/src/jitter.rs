//! The adaptive jitter buffer: decides when each frame is played.
//!
//! Every frame has a *slot*, its RTP timestamp in frames. Its *lateness* is arrival time minus slot time; only
//! differences of it mean anything, so the two clocks need not agree. One slot is played per tick, which fixes an
//! *offset*: tick time minus slot time. A frame is in time when its lateness is at most the offset.
//!
//! Wanted is the smallest offset at which nearly all frames (all but the worst 2 %) of the last four seconds would have
//! come [`JITTER_GUARD_US`] before their tick. While the offset is too small, a missing frame is waited for instead of
//! skipped (the offset grows by one frame); while it is a frame too large, a missing or silent frame is left out, and
//! when none comes for half a second, two frames are merged into one. So the delay follows the jitter both ways, and
//! a drift of the clocks is followed like any other change.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use yodel_wire::time::Instant;

use crate::limits::{
    JITTER_FRAMES_MAX, JITTER_GUARD_US, JITTER_JUMP_FRAMES, JITTER_TARGET_MAX_US, JITTER_WINDOW,
};

const FRAME_US: i64 = 20_000;

/// One frame's worth of surplus must stand this long before sound is merged to shrink it.
const MERGE_AFTER: Duration = Duration::from_millis(500);

/// Beyond needing one frame less, the surplus must be this large, µs: else the offset would swing.
const SHRINK_HYSTERESIS_US: i64 = 3_000;

/// So many frames in a row that come too late mean that the peer's timestamps fell back.
const LATE_RUN_MAX: u32 = 50;

/// What to play in a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Playout {
    /// Nothing came yet.
    Idle,
    /// This frame, in its turn.
    Frame(Vec<u8>),
    /// The frame is lost, but this is the one after it, whose redundancy may restore it.
    Recover(Vec<u8>),
    /// The frame is lost: conceal it.
    Conceal,
    /// The frame may still come: conceal a frame's time and wait for it.
    Wait,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct JitterBuffer {
    frames: BTreeMap<u64, Vec<u8>>,
    next: Option<u64>,
    lateness: VecDeque<i64>,
    offset: i64,
    silent: bool,
    surplus_since: Option<Instant>,
    late_run: u32,
    late: u64,
}

impl JitterBuffer {
    /// An empty buffer; playing starts with the first frame.
    pub fn new() -> JitterBuffer {
        JitterBuffer::default()
    }

    /// A frame of `slot` arrived. Duplicates and frames past their turn are dropped.
    pub fn insert(&mut self, now: Instant, slot: u64, payload: Vec<u8>) {
        if let Some(next) = self.next {
            if slot > next + JITTER_JUMP_FRAMES {
                self.reset();
            } else if slot < next {
                self.late += 1;
                self.late_run += 1;
                if self.late_run > LATE_RUN_MAX || slot + JITTER_JUMP_FRAMES < next {
                    self.reset();
                } else {
                    self.note(now, slot);
                    return;
                }
            } else {
                self.late_run = 0;
            }
        }
        self.note(now, slot);
        self.frames.entry(slot).or_insert(payload);
        while self.frames.len() > JITTER_FRAMES_MAX {
            self.frames.pop_first();
            if let (Some(next), Some((first, _))) = (self.next.as_mut(), self.frames.first_key_value()) {
                *next = (*next).max(*first);
            }
        }
    }

    /// The tick at `at`: takes what is to be played in it.
    pub fn pop(&mut self, at: Instant) -> Playout {
        let next = match self.next {
            Some(next) => next,
            None => match self.frames.first_key_value() {
                Some((first, _)) => *first,
                None => return Playout::Idle,
            },
        };
        self.offset = micros(at) - slot_micros(next);
        let missing_by = self.wanted() - self.offset;
        if self.next.is_none() {
            if missing_by > 0 && missing_by <= JITTER_TARGET_MAX_US {
                return Playout::Idle;
            }
            self.next = Some(next);
        }
        self.watch_surplus(at);
        if self.frames.contains_key(&next) {
            // Sound is at hand: hold it back only in a pause, or when much more delay is needed.
            if missing_by > FRAME_US || (missing_by > 0 && self.silent) {
                return Playout::Wait;
            }
            self.next = Some(next + 1);
            return self.frames.remove(&next).map_or(Playout::Conceal, Playout::Frame);
        }
        if missing_by > 0 {
            return Playout::Wait;
        }
        if self.surplus_since.is_some() && self.frames.contains_key(&(next + 1)) {
            // A hole while there is too much delay: close it by going on to the frame behind it.
            self.next = Some(next + 2);
            self.offset -= FRAME_US;
            return self.frames.remove(&(next + 1)).map_or(Playout::Conceal, Playout::Frame);
        }
        self.next = Some(next + 1);
        match self.frames.get(&(next + 1)) {
            Some(after) => Playout::Recover(after.clone()),
            None => Playout::Conceal,
        }
    }

    /// What was just played was `silent`. Gives the frame behind it when the delay is larger than needed and this is
    /// a moment to shrink it: play that one instead (silent), or both merged into one.
    pub fn pop_surplus(&mut self, at: Instant, silent: bool) -> Option<Vec<u8>> {
        self.silent = silent;
        let since = self.surplus_since?;
        let next = self.next?;
        if !silent && at.since(since) < MERGE_AFTER {
            return None;
        }
        let frame = self.frames.remove(&next)?;
        self.next = Some(next + 1);
        self.offset -= FRAME_US;
        self.surplus_since = None;
        Some(frame)
    }

    /// A tick passed in which nothing was played.
    pub fn skip(&mut self) {
        if let Some(next) = self.next.as_mut() {
            self.frames.remove(next);
            *next += 1;
        }
    }

    /// The path changed: what was learned about the old one's delay is forgotten.
    pub fn path_changed(&mut self) {
        let keep = self.lateness.len().saturating_sub(4);
        self.lateness.drain(..keep);
    }

    /// Starts anew with the next frame.
    pub fn reset(&mut self) {
        *self = JitterBuffer { late: self.late, ..JitterBuffer::default() };
    }

    /// Mean time between the arrival of a frame and its playing.
    pub fn delay(&self) -> Duration {
        let count = i64::try_from(self.lateness.len()).unwrap_or(i64::MAX);
        if count == 0 || self.next.is_none() {
            return Duration::ZERO;
        }
        let mean = self.lateness.iter().sum::<i64>() / count;
        Duration::from_micros(u64::try_from(self.offset - mean).unwrap_or(0))
    }

    /// Frames that came after their turn.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn note(&mut self, now: Instant, slot: u64) {
        if self.lateness.len() >= JITTER_WINDOW {
            self.lateness.pop_front();
        }
        self.lateness.push_back(micros(now) - slot_micros(slot));
    }

    /// The smallest offset at which nearly all remembered frames would have been in time.
    fn wanted(&self) -> i64 {
        let mut sorted: Vec<i64> = self.lateness.iter().copied().collect();
        sorted.sort_unstable();
        let spare = sorted.len() / 50;
        let worst = sorted.iter().rev().nth(spare).copied().unwrap_or(self.offset);
        let best = sorted.first().copied().unwrap_or(worst);
        worst.min(best + JITTER_TARGET_MAX_US) + JITTER_GUARD_US
    }

    fn watch_surplus(&mut self, at: Instant) {
        let surplus = self.offset - self.wanted();
        if surplus < FRAME_US + SHRINK_HYSTERESIS_US {
            self.surplus_since = None;
        } else if self.surplus_since.is_none() {
            self.surplus_since = Some(at);
        }
    }
}

fn micros(at: Instant) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX / 2)
}

fn slot_micros(slot: u64) -> i64 {
    i64::try_from(slot).unwrap_or(i64::MAX).saturating_mul(FRAME_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// Plays `frames` frames sent every 20 ms with `transit(n)` µs of network, ticks at 7 ms of phase. Calls `tick` with
    /// the frame's number, whether it was played from a received one, and the buffer's delay.
    fn run(
        buffer: &mut JitterBuffer,
        frames: u64,
        transit: impl Fn(u64) -> Option<u64>,
        silent: impl Fn(u64) -> bool,
        mut tick: impl FnMut(u64, bool, Duration),
    ) {
        let mut arrivals: Vec<(u64, u64)> =
            (0..frames).filter_map(|n| Some((n * 20 * MS + transit(n)?, n))).collect();
        arrivals.sort_unstable();
        let mut arrivals = arrivals.into_iter().peekable();
        for n in 0..frames {
            let at = n * 20 * MS + 7 * MS;
            while let Some((arrival, slot)) = arrivals.next_if(|(arrival, _)| *arrival <= at) {
                buffer.insert(Instant::from_micros(arrival), slot, vec![slot as u8]);
            }
            let at = Instant::from_micros(at);
            let played = matches!(buffer.pop(at), Playout::Frame(_));
            if played {
                buffer.pop_surplus(at, silent(n));
            }
            tick(n, played, buffer.delay());
        }
    }

    /// Uniform in 0..bound, the same each run.
    fn noise(n: u64, bound: u64) -> u64 {
        let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 31;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x >> 33) % bound.max(1)
    }

    #[test]
    fn a_clean_network_costs_less_than_one_frame_and_a_half() {
        for transit in [0, 3 * MS, 6 * MS, 13 * MS, 50 * MS] {
            let mut buffer = JitterBuffer::new();
            let mut missed = 0;
            run(
                &mut buffer,
                500,
                |n| Some(transit + noise(n, 1_000)),
                |_| false,
                |n, played, delay| {
                    assert!(delay <= Duration::from_millis(25), "{delay:?} at transit {transit}");
                    missed += u32::from(n > 10 && !played);
                },
            );
            assert_eq!(missed, 0);
            assert_eq!(buffer.late(), 0);
        }
    }

    #[test]
    fn grows_with_jitter_and_shrinks_when_it_is_gone() {
        for pauses in [true, false] {
            let mut buffer = JitterBuffer::new();
            let jitter = |n: u64| if (500..1_500).contains(&n) { 60 * MS } else { 1 };
            let mut seen = Vec::new();
            let mut missed_late = 0;
            run(
                &mut buffer,
                2_500,
                |n| Some(10 * MS + noise(n, jitter(n))),
                |n| pauses && n % 50 < 10,
                |n, played, delay| {
                    seen.push(delay);
                    missed_late += u32::from((700..1_500).contains(&n) && !played);
                },
            );
            let (before, during, after) = (seen[490], seen[1_400], seen[2_400]);
            assert!(before <= Duration::from_millis(25), "{before:?}");
            // Half of the jitter is the mean transit above the least, so the buffer adds about the other half.
            assert!((30..=70).contains(&during.as_millis()), "{during:?}");
            assert!(after <= Duration::from_millis(25), "{after:?}");
            assert!(missed_late <= 24, "{missed_late} of 800 concealed at 60 ms of jitter");
            // Back within 4 s to forget and 2.5 s to merge.
            assert!(seen[1_500 + 325] <= Duration::from_millis(30), "{:?}", seen[1_825]);
        }
    }

    #[test]
    fn a_lost_frame_is_recovered_from_the_next_or_concealed_in_its_turn() {
        let mut buffer = JitterBuffer::new();
        let at = |ms: u64| Instant::from_micros(ms * MS);
        for (slot, ms) in [(0, 0), (1, 20), (2, 40), (4, 80)] {
            buffer.insert(at(ms), slot, vec![slot as u8]);
            if slot == 2 {
                assert_eq!(buffer.pop(at(10 + 60)), Playout::Frame(vec![0]));
            }
        }
        assert_eq!(buffer.pop(at(90)), Playout::Frame(vec![1]));
        assert_eq!(buffer.pop(at(110)), Playout::Frame(vec![2]));
        let next = buffer.pop(at(130));
        // Two frames of delay are surplus here, so the hole may be closed instead.
        assert!(next == Playout::Recover(vec![4]) || next == Playout::Frame(vec![4]), "{next:?}");
    }

    #[test]
    fn nothing_is_played_twice_and_late_frames_are_dropped() {
        let mut buffer = JitterBuffer::new();
        let mut played = Vec::new();
        for n in 0..100u64 {
            let at = Instant::from_micros(n * 20 * MS);
            buffer.insert(at, n, vec![n as u8]);
            buffer.insert(at, n, vec![n as u8]);
            buffer.insert(at, n.saturating_sub(3), vec![99]);
            if let Playout::Frame(frame) = buffer.pop(at + Duration::from_millis(10)) {
                played.extend(frame);
            }
        }
        assert!(played.windows(2).all(|pair| pair[0] < pair[1]), "{played:?}");
        assert!(played.len() >= 90, "{}", played.len());
    }

    #[test]
    fn bounded_under_a_flood_and_found_again_after_a_jump() {
        let mut buffer = JitterBuffer::new();
        let now = Instant::from_micros(5 * MS);
        for slot in 0..10_000 {
            buffer.insert(now, slot % 3_000, vec![0; 10]);
            assert!(buffer.frames.len() <= JITTER_FRAMES_MAX);
            assert!(buffer.lateness.len() <= JITTER_WINDOW);
        }
        for jump in [1u64 << 40, 7, 1 << 60] {
            let mut heard = 0;
            for n in 0..200u64 {
                let at = Instant::from_micros((1_000 + n * 20) * MS);
                buffer.insert(at, jump + n, vec![1]);
                heard += u32::from(matches!(buffer.pop(at + Duration::from_millis(9)), Playout::Frame(_)));
            }
            assert!(heard > 100, "{heard} after a jump to {jump}");
        }
    }

    #[test]
    fn a_drifting_clock_is_followed() {
        // The sender's clock is 0.1 % slow: 30 s of its frames take 30.03 s.
        let mut buffer = JitterBuffer::new();
        let mut missed = 0;
        run(
            &mut buffer,
            1_500,
            |n| Some(5 * MS + n * 20),
            |n| n % 60 < 10,
            |n, played, delay| {
                assert!(delay <= Duration::from_millis(30), "{delay:?}");
                missed += u32::from(n > 5 && !played);
            },
        );
        assert!(missed <= 3, "{missed}");
    }
}
