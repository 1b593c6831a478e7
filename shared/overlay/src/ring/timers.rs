//! One deadline per operation, and the next of all.

use std::collections::{BTreeMap, BTreeSet};

use yodel_wire::time::Instant;

/// Whose deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A read.
    Lookup(u64),
    /// A write.
    Publish(u64),
    /// A record on its way to one member.
    Delivery(u64),
}

/// The deadlines of all operations.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets, moves or, with `None`, removes a deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.at.insert(timer, at),
            None => self.at.remove(&timer),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.order.insert((at, timer));
        }
    }

    /// The first.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one that has passed.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        let (_, timer) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.set(timer, None);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_moves_and_removes() {
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        timers.set(Timer::Lookup(1), Some(at(5)));
        timers.set(Timer::Publish(1), Some(at(4)));
        timers.set(Timer::Lookup(1), Some(at(3)));
        timers.set(Timer::Lookup(1), Some(at(3)));
        assert_eq!((timers.next(), timers.due(at(2))), (Some(at(3)), None));
        assert_eq!(timers.due(at(3)), Some(Timer::Lookup(1)));
        timers.set(Timer::Publish(1), None);
        assert_eq!((timers.due(at(9)), timers.next()), (None, None));
    }
}
