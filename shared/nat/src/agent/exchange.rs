//! What arrives: the peer's checks and the answers to ours.

use std::net::{Ipv4Addr, SocketAddr};

use yodel_wire::time::Instant;

use super::{Agent, AgentOutput, Role};
use crate::candidate::{Candidate, CandidateKind, CandidateRefused, admissible};
use crate::check::{Checks, Far};
use crate::choice::Route;
use crate::stun::{self, Peek, Transaction};

/// What an answer over a relay says of the asker's address: nothing, since a session has none.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Agent {
    /// A check of the peer (RFC 8445 §7.3). Answered when authentic, and a reason to check the same way back.
    pub(super) fn request(&mut self, now: Instant, route: Route, bytes: &[u8], peek: &Peek<'_>) -> bool {
        let Some((to, from)) = peek.username.and_then(|name| name.split_once(':')) else { return false };
        let expected = self.remote.as_ref().is_none_or(|remote| remote.ufrag == from);
        if to != self.local.ufrag || !expected {
            return false;
        }
        let Some(content) = stun::open(bytes, peek, &self.local.password) else { return false };
        let ours_is_controlling = self.role == Role::Controlling;
        if peek.unknown_required || content.controlling == ours_is_controlling {
            return true;
        }
        let seen = match route {
            Route::Direct(addr) if self.config.relay_only || self.admissible(addr).is_err() => return true,
            Route::Direct(addr) => addr,
            Route::Relay(_) if !self.routes.contains_key(&route) => return true,
            Route::Relay(_) => NO_ADDRESS,
        };
        self.heard_at = now;
        if let Some(bytes) = stun::check_answer(peek.transaction, seen, &self.local.password) {
            self.outputs.push_back(AgentOutput::Send { route, bytes });
        }
        if let Route::Direct(addr) = route {
            self.learn(now, addr, content.priority.unwrap_or(0));
            self.config.budget.earn(addr);
        }
        if let Some(checks) = self.routes.get_mut(&route) {
            checks.asked(now);
        }
        if content.use_candidate && self.role == Role::Controlled {
            self.follow(route, number(peek.transaction));
        }
        true
    }

    /// The answer to a check of ours (RFC 8445 §7.2.5). It must come back the way the check went.
    pub(super) fn success(&mut self, now: Instant, route: Route, bytes: &[u8], peek: &Peek<'_>) -> bool {
        let Some(pending) = self.pending.get(&peek.transaction) else { return false };
        let sent = pending.sent;
        let Some(remote) = self.remote.as_ref().filter(|_| pending.route == route) else { return true };
        let Some(content) = stun::open(bytes, peek, &remote.password) else { return true };
        self.pending.remove(&peek.transaction);
        self.heard_at = now;
        let mapped = match route {
            Route::Direct(addr) => {
                self.config.budget.answered(addr);
                content.mapped
            }
            Route::Relay(_) => None,
        };
        let spread = self.spread();
        if let Some(checks) = self.routes.get_mut(&route) {
            checks.answered(now, sent, mapped, spread);
        }
        if self.selected.is_some_and(|selected| selected.route == route) {
            self.silent = false;
        }
        true
    }

    /// Whether the peer may have us send there.
    pub(super) fn admissible(&self, addr: SocketAddr) -> Result<(), CandidateRefused> {
        let have_loopback =
            self.own.iter().any(|own| own.kind == CandidateKind::Host && own.addr.ip().is_loopback());
        admissible(addr, self.config.allow_loopback && have_loopback)
    }

    /// An authentic packet came from an address that may be new (RFC 8445 §7.3.1.3).
    pub(super) fn learn(&mut self, now: Instant, addr: SocketAddr, priority: u32) {
        let route = Route::Direct(addr);
        if self.routes.contains_key(&route)
            || self.config.relay_only
            || self.admissible(addr).is_err()
            || !self.config.budget.admit(addr)
        {
            return;
        }
        let far = Far::Peer(Candidate::peer_reflexive(addr, priority));
        self.routes.insert(route, Checks::new(far, now));
        self.news_at = now;
    }

    /// The peer marked a route. Marks are numbered by the count in their transactions, since they overtake each other.
    fn follow(&mut self, route: Route, number: u32) {
        if self.nominated.is_none_or(|(_, newest)| number > newest) {
            self.nominated = Some((route, number));
        }
    }
}

fn number(transaction: Transaction) -> u32 {
    let [.., a, b, c, d] = transaction;
    u32::from_be_bytes([a, b, c, d])
}
