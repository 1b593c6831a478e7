//! The checks of one route: when the next is due, what answers say, how the route stands (RFC 8445 §6.2.4, RFC 7675).
//!
//! A route goes through three phases. *Unproven*: checks with doubling pauses, at most five to a silent address.
//! *Working*: consent checks at [`CONSENT_INTERVAL`], so that the second route stays
//! warm and the round trip known. *Unanswered*: after a check went without answer for longer than its round trip they
//! follow quickly; the route is in doubt from the second one on (from the first, when sound is missing too), down after
//! five seconds, and a direct address is left alone after thirty.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_wire::time::Instant;

use crate::candidate::{Candidate, CandidateKind, same_lan};
use crate::choice::{PathKind, RelayKind, Standing};
use crate::limits::{CONSENT_EXPIRY, CONSENT_INTERVAL, FIRST_RETRY, GRACE_MIN, RELAY_RETRY_MAX};

/// Without an answer for this long a working route counts as down: about six checks.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// What is at the far end of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Far {
    Peer(Candidate),
    Relay(RelayKind),
}

/// One route's checks.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) far: Far,
    /// Checks since the last answer.
    unanswered: u32,
    /// When the first of them was sent.
    unanswered_since: Option<Instant>,
    /// When the last check was sent.
    sent_at: Option<Instant>,
    pub(crate) next: Option<Instant>,
    /// Asked for by something that just happened: not paced.
    pub(crate) urgent: bool,
    answered_at: Option<Instant>,
    /// The peer's check came over a relay: it works, though its round trip is unknown.
    joined: bool,
    /// Sound or anything else authentic that is no check.
    media_at: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    /// Where the peer saw our check come from.
    mapped: Option<SocketAddr>,
    pub(crate) shunned_until: Option<Instant>,
}

impl Checks {
    pub(crate) fn new(far: Far, now: Instant) -> Checks {
        Checks {
            far,
            unanswered: 0,
            unanswered_since: None,
            sent_at: None,
            next: Some(now),
            urgent: false,
            answered_at: None,
            joined: false,
            media_at: None,
            rtt: None,
            mapped: None,
            shunned_until: None,
        }
    }

    /// Whether it ever worked and has not stopped.
    pub(crate) fn works(&self) -> bool {
        self.answered_at.is_some() || self.joined
    }

    pub(crate) fn is_relay(&self) -> bool {
        matches!(self.far, Far::Relay(_))
    }

    /// What kind of path this route is, given the device's own interface addresses.
    pub(crate) fn kind(&self, own: &[Candidate]) -> PathKind {
        match self.far {
            Far::Relay(kind) => kind.into(),
            Far::Peer(candidate) => {
                let untranslated = self.mapped.filter(|mapped| {
                    own.iter().any(|c| c.kind == CandidateKind::Host && c.addr == *mapped)
                        && candidate.kind == CandidateKind::Host
                });
                match untranslated {
                    Some(mapped) if same_lan(mapped.ip(), candidate.addr.ip()) => PathKind::DirectLan,
                    Some(_) | None => PathKind::Direct,
                }
            }
        }
    }

    pub(crate) fn priority(&self) -> u32 {
        match self.far {
            Far::Peer(candidate) => candidate.priority,
            Far::Relay(_) => 0,
        }
    }

    /// How it stands. `silent` says that sound is expected here and does not come.
    pub(crate) fn standing(&self, now: Instant, silent: bool) -> Standing {
        if !self.works() {
            return Standing::Down;
        }
        let Some(since) = self.unanswered_since.filter(|since| self.media_at.is_none_or(|at| at < *since))
        else {
            return Standing::Working;
        };
        let overdue = now.since(since);
        if overdue >= DOWN_AFTER {
            Standing::Down
        } else if overdue >= self.grace() && (silent || self.unanswered >= 2) {
            Standing::Doubtful
        } else {
            Standing::Working
        }
    }

    /// When its standing changes if nothing is heard.
    pub(crate) fn standing_deadline(&self) -> Option<Instant> {
        self.unanswered_since.filter(|_| self.works()).map(|since| since + self.grace())
    }

    /// When the present doubt began.
    pub(crate) fn doubt_began(&self) -> Option<Instant> {
        self.unanswered_since
    }

    /// Whether an answer or sound came at or after `since`.
    pub(crate) fn heard_since(&self, since: Instant) -> bool {
        self.answered_at.is_some_and(|at| at >= since) || self.media_at.is_some_and(|at| at >= since)
    }

    pub(crate) fn last_media(&self) -> Option<Instant> {
        self.media_at
    }

    /// Time an answer gets before it is overdue.
    pub(crate) fn grace(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(FIRST_RETRY);
        GRACE_MIN.max(rtt + rtt / 2 + Duration::from_millis(20))
    }

    /// Asks for a check now, unless one is under way.
    pub(crate) fn probe(&mut self, now: Instant) {
        let under_way = self.unanswered_since.is_some()
            && self.sent_at.is_some_and(|sent| now.since(sent) < self.grace());
        if !under_way {
            self.check_now(now);
        }
    }

    /// Asks for a check now.
    pub(crate) fn check_now(&mut self, now: Instant) {
        self.next = Some(now);
        self.urgent = true;
    }

    /// Starts over: the pauses are short again.
    pub(crate) fn renew(&mut self, now: Instant) {
        if !self.works() {
            self.unanswered = 0;
            self.unanswered_since = None;
        }
        self.check_now(now);
    }

    /// A check leaves.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.urgent = false;
        self.sent_at = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
        let since = *self.unanswered_since.get_or_insert(now);
        let doublings = self.unanswered.saturating_sub(1).min(8);
        let pause = if self.works() {
            (self.grace() * (1 << doublings.min(4))).min(RELAY_RETRY_MAX)
        } else if self.is_relay() {
            (FIRST_RETRY * (1 << doublings)).min(RELAY_RETRY_MAX)
        } else {
            FIRST_RETRY * (1 << doublings)
        };
        let given_up = !self.is_relay() && now.since(since) >= CONSENT_EXPIRY;
        self.next = (!given_up).then_some(now + pause);
    }

    /// Nothing more is to be sent to it unprompted.
    pub(crate) fn give_up(&mut self) {
        self.next = None;
        self.urgent = false;
    }

    /// Whether a direct address has been silent for as long as consent lasts.
    pub(crate) fn consent_expired(&self, now: Instant) -> bool {
        let silent = |since: Instant| now.since(since) >= CONSENT_EXPIRY;
        !self.is_relay()
            && self.works()
            && self.unanswered_since.is_some_and(silent)
            && self.media_at.is_none_or(silent)
    }

    /// Consent has ended: the address counts as one that never answered.
    pub(crate) fn expire(&mut self) {
        self.answered_at = None;
        self.joined = false;
        self.give_up();
    }

    /// The answer to a check sent at `sent` came. `spread` in -1.0..1.0 keeps consent checks of many from beating in
    /// time.
    pub(crate) fn answered(&mut self, now: Instant, sent: Instant, mapped: Option<SocketAddr>, spread: f64) {
        let sample = now.since(sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.mapped = mapped.or(self.mapped);
        self.answered_at = Some(now);
        self.unanswered = 0;
        self.unanswered_since = None;
        self.next = Some(now + CONSENT_INTERVAL.mul_f64(1.0 + 0.2 * spread.clamp(-1.0, 1.0)));
        self.urgent = false;
    }

    /// The peer's check came over it.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.is_relay() && !self.joined {
            self.joined = true;
            self.unanswered = 0;
            self.unanswered_since = None;
            self.check_now(now);
        } else if !self.works() {
            self.check_now(now);
        }
    }

    /// Something authentic that is no check came over it.
    pub(crate) fn media(&mut self, now: Instant) {
        self.media_at = Some(now);
        if !self.works() {
            self.asked(now);
        }
    }
}
