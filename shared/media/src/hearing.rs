//! The one-way detector: does each end hear the other? What we hear we know; what the peer hears its reports say.

use yodel_wire::time::Instant;

use crate::limits::{HEARING_FIRST, HEARING_REPORT_AGE, HEARING_SILENCE};

/// What is known at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) we_hear: bool,
    pub(crate) hears_us: bool,
    /// Whether a fresh report of the peer says so; else nothing of it arrives.
    pub(crate) reported: bool,
}

#[derive(Debug)]
pub(crate) struct Hearing {
    started: Instant,
    audio: Option<Instant>,
    report: Option<(Instant, bool)>,
    told: Option<Heard>,
}

impl Hearing {
    pub(crate) fn new(started: Instant) -> Hearing {
        Hearing { started, audio: None, report: None, told: None }
    }

    pub(crate) fn audio(&mut self, now: Instant) {
        self.audio = Some(now);
    }

    pub(crate) fn report(&mut self, now: Instant, hears: bool) {
        self.report = Some((now, hears));
    }

    pub(crate) fn we_hear(&self, now: Instant) -> bool {
        self.audio.is_some_and(|at| now.since(at) < HEARING_SILENCE)
    }

    pub(crate) fn state(&self, now: Instant) -> Heard {
        let report = self.report.filter(|(at, _)| now.since(*at) < HEARING_REPORT_AGE);
        Heard {
            we_hear: self.we_hear(now),
            hears_us: report.is_some_and(|(_, hears)| hears),
            reported: report.is_some(),
        }
    }

    /// What to tell, when it is new: good news at once, bad news once there was time to hear.
    pub(crate) fn assess(&mut self, now: Instant) -> Option<Heard> {
        let state = self.state(now);
        let good = state.we_hear && state.hears_us;
        if self.told == Some(state) || (!good && now.since(self.started) < HEARING_FIRST) {
            return None;
        }
        self.told = Some(state);
        Some(state)
    }
}
