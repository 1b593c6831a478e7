//! Which route carries the media.
//!
//! # The algorithm
//!
//! A *route* is a way to the peer: one of its addresses, or a relay session. Our one socket is the near end of all of
//! them, so there are no pairs to enumerate: a route is its far end. [`crate::check`] keeps, per route, whether checks
//! are answered. This file decides, from those standings alone, where the next packet goes. It keeps no state, so the
//! decision can be read off a table (the tests below are that table).
//!
//! 1. **What works first carries the call.** A route works once a check on it was answered (over a relay already when
//!    one arrived: the session joins exactly two ends). Usually that is the relay; media starts there at once and
//!    nobody waits for RFC 8445's timers.
//! 2. **Better kinds win**, in the order of [`PathKind`]: the LAN, direct, mapped, direct TCP, relay over UDP, relay
//!    over TCP. Within a kind the route in use stays; else the peer's priority decides. Receiving is never tied to a
//!    route, so moving is a change of destination between two packets and leaves no gap.
//! 3. **Both ends converge** by nomination (RFC 8445 §8): the controlling end, the caller, marks its checks on the route
//!    it uses; the controlled end follows the newest mark as long as that route works for it as well, and by rule 2
//!    alone before the first. Marks are numbered, since the one that was sent first over a slow relay often arrives
//!    last.
//! 4. **A route in doubt** (silent although sound is expected, and a probe unanswered for longer than its round trip)
//!    loses to any route that has answered *since the doubt began*: one that merely worked a second ago may have died
//!    of the same cause. Until one answers, the packets stay where they are.
//! 5. **A route left in doubt is shunned** for some seconds after it answers again, unless nothing else works: a path
//!    that works every other second is worse than a relay. So is a relay that said it goes away.
//! 6. All other working routes are kept warm by consent checks, so that rule 4 has somewhere to go.

use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;

/// Names a relay session between an agent and its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayRef(pub u32);

/// What carries the legs of a relay session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayKind {
    /// Both legs run over UDP.
    Udp,
    /// At least one leg runs over TCP.
    Tcp,
}

/// A way to the peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Straight to this address from the one socket.
    Direct(SocketAddr),
    /// Through this relay session.
    Relay(RelayRef),
}

/// Addresses stay out of logs above DEBUG.
impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Direct(addr) if addr.is_ipv4() => f.write_str("Direct(IPv4)"),
            Route::Direct(_) => f.write_str("Direct(IPv6)"),
            Route::Relay(relay) => write!(f, "Relay({})", relay.0),
        }
    }
}

/// The kinds of path, best first. [`as_str`](PathKind::as_str) gives the words of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// Both ends in one local network.
    DirectLan,
    /// Through NATs or none, by their own doing.
    Direct,
    /// To a port that a router was asked to open.
    Mapped,
    /// TCP without relay.
    DirectTcp,
    /// Relayed, both legs over UDP.
    RelayUdp,
    /// Relayed, at least one leg over TCP.
    RelayTcp,
}

impl PathKind {
    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            PathKind::DirectLan => "direct-lan",
            PathKind::Direct => "direct",
            PathKind::Mapped => "mapped",
            PathKind::DirectTcp => "direct-tcp",
            PathKind::RelayUdp => "relay-udp",
            PathKind::RelayTcp => "relay-tcp",
        }
    }

    /// Whether a supernode passes the packets on.
    pub fn is_relay(self) -> bool {
        match self {
            PathKind::RelayUdp | PathKind::RelayTcp => true,
            PathKind::DirectLan | PathKind::Direct | PathKind::Mapped | PathKind::DirectTcp => false,
        }
    }
}

impl From<RelayKind> for PathKind {
    fn from(kind: RelayKind) -> PathKind {
        match kind {
            RelayKind::Udp => PathKind::RelayUdp,
            RelayKind::Tcp => PathKind::RelayTcp,
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a route stands at the moment of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Works.
    Working,
    /// Worked, and a probe is overdue.
    Doubtful,
    /// Never worked, or has stopped.
    Down,
}

/// One route as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub route: Route,
    pub kind: PathKind,
    /// The peer's priority for it; larger is better.
    pub priority: u32,
    pub standing: Standing,
    /// Rule 3: the peer marked it, and we follow.
    pub nominated: bool,
    /// Rule 5.
    pub shunned: bool,
    /// Rule 4: something came over it since the current route fell into doubt.
    pub fresh: bool,
}

/// The route to send on, or none when none ever worked.
pub(crate) fn choose(current: Option<Route>, views: &[View]) -> Option<Route> {
    let here = views.iter().find(|view| Some(view.route) == current);
    let in_doubt = here.is_some_and(|view| view.standing != Standing::Working);
    let best = views
        .iter()
        .filter(|view| view.standing == Standing::Working && (!in_doubt || view.fresh))
        .min_by_key(|view| {
            let elsewhere = Some(view.route) != current;
            (view.shunned, !view.nominated, view.kind, elsewhere, Reverse(view.priority), view.route)
        });
    match (best, here) {
        (Some(best), _) => Some(best.route),
        (None, Some(here)) => Some(here.route),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(n: u32) -> View {
        View {
            route: Route::Relay(RelayRef(n)),
            kind: PathKind::RelayUdp,
            priority: 0,
            standing: Standing::Working,
            nominated: false,
            shunned: false,
            fresh: false,
        }
    }

    fn direct(n: u8) -> View {
        View {
            route: Route::Direct(SocketAddr::from(([203, 0, 113, n], 5000))),
            kind: PathKind::Direct,
            priority: u32::from(n),
            ..relay(0)
        }
    }

    fn down(view: View) -> View {
        View { standing: Standing::Down, ..view }
    }

    fn doubtful(view: View) -> View {
        View { standing: Standing::Doubtful, ..view }
    }

    #[test]
    fn rule_1_what_works_first() {
        assert_eq!(choose(None, &[down(direct(1)), down(relay(0))]), None);
        assert_eq!(choose(None, &[down(direct(1)), relay(0)]), Some(relay(0).route));
    }

    #[test]
    fn rule_2_better_kinds_win_and_equal_ones_stay() {
        assert_eq!(choose(Some(relay(0).route), &[direct(1), relay(0)]), Some(direct(1).route));
        let lan = View { kind: PathKind::DirectLan, ..direct(9) };
        assert_eq!(choose(Some(direct(1).route), &[direct(1), lan]), Some(lan.route));
        assert_eq!(choose(None, &[direct(1), direct(2)]), Some(direct(2).route));
        assert_eq!(choose(Some(direct(1).route), &[direct(1), direct(2)]), Some(direct(1).route));
        let tcp = View { kind: PathKind::RelayTcp, ..relay(1) };
        assert_eq!(choose(Some(tcp.route), &[tcp, relay(0)]), Some(relay(0).route));
    }

    #[test]
    fn rule_3_the_mark_decides_while_its_route_works() {
        let marked = View { nominated: true, ..relay(0) };
        assert_eq!(choose(Some(direct(1).route), &[direct(1), marked]), Some(marked.route));
        assert_eq!(choose(Some(direct(1).route), &[direct(1), down(marked)]), Some(direct(1).route));
    }

    #[test]
    fn rule_4_doubt_moves_only_to_what_answered_since() {
        let here = Some(direct(1).route);
        assert_eq!(choose(here, &[doubtful(direct(1)), relay(0)]), here);
        let fresh = View { fresh: true, ..relay(0) };
        assert_eq!(choose(here, &[doubtful(direct(1)), fresh]), Some(fresh.route));
        assert_eq!(choose(here, &[down(direct(1)), relay(0)]), here);
        assert_eq!(choose(here, &[relay(0)]), Some(relay(0).route), "the route itself is gone");
    }

    #[test]
    fn rule_5_a_shunned_route_waits_unless_it_is_the_last() {
        let shunned = View { shunned: true, ..direct(1) };
        assert_eq!(choose(Some(relay(0).route), &[shunned, relay(0)]), Some(relay(0).route));
        assert_eq!(choose(Some(relay(0).route), &[shunned, down(relay(0))]), Some(relay(0).route));
        let fresh = View { fresh: true, ..shunned };
        assert_eq!(choose(Some(relay(0).route), &[fresh, down(relay(0))]), Some(shunned.route));
    }
}
