//! Draining: newcomers are sent elsewhere, relayed calls move, attached devices are told to go, one after the other.
//! Records stay; the member serves the ring as before. It lasts until it is taken back or the process ends.

use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::time::{Instant, Now};

use crate::limits::{DRAIN_SPREAD, DRAIN_STEP};
use crate::node::Supernode;

/// How far draining has come.
#[derive(Debug)]
pub(crate) struct Drain {
    /// Who has no relayed call is told by then.
    quiet_until: Instant,
    /// Everybody is told by then.
    until: Instant,
    next: Instant,
}

impl Supernode {
    /// Whether newcomers are sent elsewhere because this supernode goes away.
    pub(crate) fn is_leaving(&self) -> bool {
        self.stopping || self.drain.is_some()
    }

    /// Begins, or sets another deadline. Devices whose calls are relayed here may stay until it.
    pub(crate) fn drain(&mut self, now: Now, within: Duration) {
        self.drain = Some(Drain {
            quiet_until: now.mono + within.min(DRAIN_SPREAD),
            until: now.mono + within,
            next: now.mono,
        });
        self.relay.set_draining(true);
        self.drain_some(now);
    }

    /// Serves everybody again.
    pub(crate) fn undrain(&mut self) {
        self.drain = None;
        self.relay.set_draining(self.stopping);
    }

    /// Tells the next devices: as many as are due when all shall be told in time.
    pub(crate) fn drain_some(&mut self, now: Now) {
        let Some(drain) = self.drain.as_ref().filter(|drain| drain.next <= now.mono) else { return };
        let is_late = drain.until <= now.mono;
        let left = drain.quiet_until.since(now.mono).max(DRAIN_STEP);
        let talking = self.relay.nodes();
        let may_go = |node: &NodeId| is_late || !talking.contains(node);
        let leaving: Vec<NodeId> = self.devices.keys().copied().filter(may_go).collect();
        // One at a time while that is quick enough, several in a step otherwise.
        let each = left / u32::try_from(leaving.len()).unwrap_or(u32::MAX).max(1);
        let pause = each.clamp(DRAIN_STEP, Duration::from_secs(1));
        let steps = usize::try_from(left.as_millis() / pause.as_millis()).unwrap_or(usize::MAX).max(1);
        let due = if is_late { leaving.len() } else { leaving.len().div_ceil(steps) };
        for node in leaving.into_iter().take(due) {
            self.send_off(now, node);
        }
        if let Some(drain) = &mut self.drain {
            let next = now.mono + pause;
            drain.next = if is_late { next } else { next.min(drain.until) };
        }
    }

    /// When the next devices are told.
    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        self.drain.as_ref().filter(|_| !self.devices.is_empty()).map(|drain| drain.next)
    }
}
