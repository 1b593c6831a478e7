//! A newcomer among many answers "not yet" while the others hand records over, and serves after that.

use yodel_wire::time::{Instant, Now};

use super::Ring;
use crate::card::Service;
use crate::limits::{FIRST_LOOK, STANDBY, STANDBY_MEMBERS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standby {
    /// Since when others are known: whether they are many shows soon.
    Undecided(Option<Instant>),
    /// Among many, and new.
    Until(Instant),
    /// Never again in this run.
    Over,
}

impl Ring {
    /// Whether we still say "not yet" of what we lack.
    pub fn is_standby(&self) -> bool {
        matches!(self.standby, Standby::Until(_) | Standby::Undecided(Some(_)))
    }

    /// A newcomer among many answers "not yet" first. Whether there are many shows soon after the first. Who is alone for
    /// a while serves until then.
    pub(super) fn decide_standby(&mut self, now: Now) -> bool {
        let Standby::Undecided(since) = self.standby else { return false };
        let count = self.membership.count();
        let (standby, service) = if count >= STANDBY_MEMBERS {
            (Standby::Until(now.mono + STANDBY), Some(Service::Standby))
        } else if count > 1 {
            match since {
                Some(since) if now.mono >= since + FIRST_LOOK => (Standby::Over, Some(Service::Alive)),
                since => (Standby::Undecided(Some(since.unwrap_or(now.mono))), None),
            }
        } else {
            let alone = now.mono >= self.begun + STANDBY;
            (Standby::Undecided(None), alone.then_some(Service::Alive))
        };
        if self.leaving.is_some() {
            return false;
        }
        self.standby = standby;
        if let Some(service) = service.filter(|service| *service != self.membership.service()) {
            self.membership.set_service(now, service);
            return true;
        }
        false
    }

    pub(super) fn end_standby(&mut self, now: Now) {
        if let Standby::Until(until) = self.standby
            && now.mono >= until
            && self.leaving.is_none()
        {
            self.standby = Standby::Over;
            self.membership.set_service(now, Service::Alive);
        }
    }

    pub(super) fn standby_deadline(&self) -> Option<Instant> {
        if self.leaving.is_some() {
            return None;
        }
        match self.standby {
            Standby::Until(at) => Some(at),
            Standby::Undecided(Some(since)) => Some(since + FIRST_LOOK),
            Standby::Undecided(None) if self.membership.service() == Service::Standby => {
                Some(self.begun + STANDBY)
            }
            Standby::Undecided(None) | Standby::Over => None,
        }
    }
}
