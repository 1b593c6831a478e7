//! What is due: noticing silence, choosing, sending checks, telling the owner. Runs after every input.

use rand_core::RngCore;
use yodel_wire::time::{Instant, Now};

use super::{Agent, AgentOutput, PathChange, Pending, Role};
use crate::check::Checks;
use crate::choice::{Route, Standing, View, choose};
use crate::limits::{
    FAILED_AFTER, LOST_AFTER, PACE, PENDING_LIFE, PENDING_MAX, SHUN, SILENCE, SILENCE_PEER_MOVED,
};
use crate::stun::{Check, Transaction};

/// What our own address would be worth to a peer that only now learns of it (RFC 8445 §7.1.1).
const PEER_REFLEXIVE_PRIORITY: u32 = (110 << 24) + (65_535 << 8) + 255;

impl Agent {
    /// Does everything due at `now`.
    pub(super) fn step(&mut self, now: Instant) {
        self.stepped_at = self.stepped_at.max(now);
        self.pending.retain(|_, pending| now.since(pending.sent) < PENDING_LIFE);
        for (route, checks) in &mut self.routes {
            checks.shunned_until = checks.shunned_until.filter(|until| *until > now);
            if let Route::Direct(addr) = route
                && checks.consent_expired(now)
            {
                checks.expire();
                self.config.budget.expired(*addr);
            }
        }
        self.notice_silence(now);
        self.select(now);
        self.send_checks(now);
        self.report(now);
    }

    /// Something changed that could make a path.
    pub(super) fn news(&mut self, now: Now) {
        self.news_at = now.mono;
        self.failed = false;
    }

    /// Asks every route that ever worked, and every relay, whether it works now.
    pub(super) fn probe_all(&mut self, now: Instant) {
        for checks in self.routes.values_mut() {
            if checks.works() || checks.is_relay() {
                checks.probe(now);
            }
        }
    }

    /// -1.0..=1.0 from the seed.
    pub(super) fn spread(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0
    }

    /// Whether a route waits its turn.
    pub(super) fn is_paced(&self, checks: &Checks) -> bool {
        !checks.works() && !checks.is_relay() && !checks.urgent
    }

    fn notice_silence(&mut self, now: Instant) {
        let Some(route) = self.selected.map(|selected| selected.route).filter(|_| self.sounding) else {
            return;
        };
        let Some(last) = self.routes.get(&route).and_then(Checks::last_media) else { return };
        let moved = self
            .routes
            .iter()
            .any(|(other, checks)| *other != route && checks.last_media().is_some_and(|at| at > last));
        let bound = if moved { SILENCE_PEER_MOVED } else { SILENCE };
        if now.since(last) >= bound {
            self.sounding = false;
            self.silent = true;
            self.probe_all(now);
        }
    }

    fn select(&mut self, now: Instant) {
        let current = self.selected.map(|selected| selected.route);
        let standing =
            |route: &Route, checks: &Checks| checks.standing(now, self.silent && Some(*route) == current);
        let here = current.and_then(|route| Some((route, self.routes.get(&route)?)));
        let in_doubt = here.is_some_and(|(route, checks)| standing(&route, checks) != Standing::Working);
        let doubt_began = here.and_then(|(_, checks)| checks.doubt_began());
        let views: Vec<View> = self
            .routes
            .iter()
            .map(|(route, checks)| View {
                route: *route,
                kind: checks.kind(&self.own),
                priority: checks.priority(),
                standing: standing(route, checks),
                nominated: self.nominated.is_some_and(|(marked, _)| marked == *route),
                shunned: checks.shunned_until.is_some(),
                fresh: doubt_began.is_none_or(|since| checks.heard_since(since)),
            })
            .collect();
        if in_doubt {
            self.probe_all(now);
        }
        let chosen = choose(current, &views)
            .and_then(|route| views.iter().find(|view| view.route == route))
            .map(|view| (view.route, view.kind));
        let Some((route, kind)) = chosen else {
            self.selected = None;
            return;
        };
        if self.selected.is_some_and(|selected| (selected.route, selected.kind) == (route, kind)) {
            return;
        }
        if current != Some(route) {
            self.sounding = false;
            self.silent = false;
            if let Some(left) = current.filter(|_| in_doubt).and_then(|left| self.routes.get_mut(&left)) {
                left.shunned_until = left.shunned_until.max(Some(now + SHUN));
            }
            if self.role == Role::Controlling
                && let Some(checks) = self.routes.get_mut(&route)
            {
                // The mark travels on a check.
                checks.check_now(now);
            }
        }
        let rtt = self.routes.get(&route).and_then(|checks| checks.rtt);
        let change = PathChange { route, kind, rtt };
        self.selected = Some(change);
        self.had_path = true;
        self.lost = false;
        self.outputs.push_back(AgentOutput::Path(change));
    }

    fn send_checks(&mut self, now: Instant) {
        if self.remote.is_none() {
            return;
        }
        let due = |checks: &Checks| checks.next.is_some_and(|next| next <= now);
        let mut routes: Vec<Route> = self
            .routes
            .iter()
            .filter(|(_, checks)| due(checks) && !self.is_paced(checks))
            .map(|(route, _)| *route)
            .collect();
        if now >= self.paced_until {
            let best = self
                .routes
                .iter()
                .filter(|(_, checks)| due(checks) && self.is_paced(checks))
                .max_by_key(|(_, checks)| checks.priority());
            if let Some((route, _)) = best {
                routes.push(*route);
                self.paced_until = now + PACE;
            }
        }
        for route in routes {
            self.send_check(now, route);
        }
    }

    fn send_check(&mut self, now: Instant, route: Route) {
        let Some(remote) = self.remote.as_ref() else { return };
        let Some(checks) = self.routes.get_mut(&route) else { return };
        if let Route::Direct(addr) = route
            && !self.config.budget.spend(addr)
        {
            checks.give_up();
            return;
        }
        self.count = self.count.saturating_add(1);
        let mut transaction: Transaction = [0; 12];
        if let Some((random, counted)) = transaction.split_first_chunk_mut::<8>() {
            self.rng.fill_bytes(random);
            counted.copy_from_slice(&self.count.to_be_bytes());
        }
        let controlling = self.role == Role::Controlling;
        let check = Check {
            transaction,
            username: &format!("{}:{}", remote.ufrag, self.local.ufrag),
            priority: PEER_REFLEXIVE_PRIORITY,
            controlling,
            tie_breaker: self.tie_breaker,
            use_candidate: controlling && self.selected.is_some_and(|selected| selected.route == route),
        };
        let Some(bytes) = check.encode(&remote.password) else {
            checks.give_up();
            return;
        };
        checks.sent(now);
        if self.pending.len() >= PENDING_MAX
            && let Some(oldest) = self.pending.iter().min_by_key(|(_, p)| p.sent).map(|(key, _)| *key)
        {
            self.pending.remove(&oldest);
        }
        self.pending.insert(transaction, Pending { route, sent: now });
        self.outputs.push_back(AgentOutput::Send { route, bytes });
    }

    fn report(&mut self, now: Instant) {
        if self.lost && self.heard_at + LOST_AFTER > now {
            self.lost = false;
            self.outputs.extend(self.selected.map(AgentOutput::Path));
        }
        if !self.wanted {
            return;
        }
        if self.had_path && !self.lost && self.heard_at + LOST_AFTER <= now {
            self.lost = true;
            self.outputs.push_back(AgentOutput::Lost);
        }
        if !self.had_path && !self.failed && self.news_at + FAILED_AFTER <= now {
            self.failed = true;
            self.outputs.push_back(AgentOutput::Failed);
        }
    }
}
