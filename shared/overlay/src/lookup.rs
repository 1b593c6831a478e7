//! A read over the holders of one key.
//!
//! Two holders are asked at once. One that stays silent for one and a half of its round trips gets company, and a
//! company that stays silent too gets two; when nobody is left to ask, the silent are asked again, since datagrams get
//! lost. One that fails is replaced at once. The first valid answer is reported, the second (or 300 ms) settles it: the
//! higher version of the account record and the higher sequence of each entry stand. "No such account" needs min(3, K)
//! holders that say so. When two differ, or one forged what it said, four are heard: of any four holders one is honest
//! when three of eight lie.
//!
//! Contract: [`Lookup::new`], then [`Lookup::handle_answer`], [`Lookup::handle_forged`], [`Lookup::handle_moved`],
//! [`Lookup::handle_failed`] and [`Lookup::handle_timeout`] at [`Lookup::deadline`]; drain [`Lookup::poll`] after each. After [`Step::Done`] nothing
//! follows.

use std::collections::VecDeque;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::limits::{HEDGE_MAX, HEDGE_MIN, OPERATION, READ_AT_ONCE, READ_WARY, REPEATS_MAX, REQUEST, SETTLE};
use crate::placement::none_quorum;
use crate::record::Standing;
use crate::verify::Verified;

/// What to do for a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this holder, perhaps once more.
    Ask(NodeId),
    /// This holder has been silent for too long; it may be dead.
    Silent(NodeId),
    /// Something valid was found; more may follow.
    First,
    /// Nothing follows.
    Done(Standing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unasked,
    Asked {
        at: Instant,
        hedge: Instant,
        /// Whether company, or a repetition, is still to come.
        hedged: bool,
        /// 0 when asked at the start, one more than whom it keeps company.
        round: u32,
        repeats: u32,
    },
    Held,
    None,
    /// Silent, unreachable, "not yet", or what it said does not verify.
    Useless,
}

/// What one holder had, to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Brief {
    account: u64,
    entries: Vec<(NodeId, u64)>,
}

impl Brief {
    fn of(verified: &Verified) -> Brief {
        Brief {
            account: verified.account.as_ref().map_or(0, |account| account.version),
            entries: verified.contact.entries().iter().map(|e| (e.device, e.sequence)).collect(),
        }
    }
}

#[derive(Debug)]
struct Asked {
    node: NodeId,
    state: State,
    patience: Duration,
    had: Option<Brief>,
}

/// How long a holder with this round trip may be silent before it gets company.
pub fn patience(rtt: Option<Duration>) -> Duration {
    rtt.map_or(HEDGE_MAX, |rtt| (rtt * 3 / 2).clamp(HEDGE_MIN, HEDGE_MAX))
}

/// One read; see the module's text.
#[derive(Debug)]
pub struct Lookup {
    holders: Vec<Asked>,
    begun: Instant,
    first: Option<Instant>,
    done: bool,
    /// Answers that settle it.
    wanted: usize,
    found: Verified,
    steps: VecDeque<Step>,
}

impl Lookup {
    /// Starts to ask `holders`, in the order given, each with its round trip when known. When `wary`, of four at once.
    pub fn new(
        now: Instant,
        wary: bool,
        holders: impl IntoIterator<Item = (NodeId, Option<Duration>)>,
    ) -> Lookup {
        let holders = holders
            .into_iter()
            .map(|(node, rtt)| Asked { node, state: State::Unasked, patience: patience(rtt), had: None })
            .collect();
        let mut lookup = Lookup {
            holders,
            begun: now,
            first: None,
            done: false,
            wanted: if wary { READ_WARY } else { READ_AT_ONCE },
            found: Verified::default(),
            steps: VecDeque::new(),
        };
        for _ in 0..lookup.wanted {
            lookup.ask_next(now, 0);
        }
        lookup.judge(now);
        lookup
    }

    /// What was found so far.
    pub fn found(&self) -> &Verified {
        &self.found
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// When the first valid answer came.
    pub fn first_at(&self) -> Option<Instant> {
        self.first
    }

    /// Holders that answered.
    pub fn answered(&self) -> usize {
        self.count(|state| matches!(state, State::Held | State::None))
    }

    /// Holders that were asked.
    pub fn asked(&self) -> usize {
        self.count(|state| state != State::Unasked)
    }

    /// Holders that answered and had none, or something older than what was found.
    pub fn lagging(&self) -> Vec<NodeId> {
        let found = Brief::of(&self.found);
        let older = |had: &Brief| {
            had.account < found.account || found.entries.iter().any(|entry| !had.entries.contains(entry))
        };
        let behind = |holder: &&Asked| match holder.state {
            State::None => true,
            State::Held => holder.had.as_ref().is_some_and(older),
            State::Unasked | State::Asked { .. } | State::Useless => false,
        };
        self.holders.iter().filter(behind).map(|holder| holder.node).collect()
    }

    /// A holder answered. `verified` is what the asker believes of it.
    pub fn handle_answer(&mut self, now: Instant, from: NodeId, standing: Standing, verified: Verified) {
        let state = match standing {
            Standing::Held if verified.account.is_some() => State::Held,
            Standing::None => State::None,
            Standing::Held | Standing::NotYet | Standing::Unreachable => State::Useless,
        };
        let Some(holder) = self.open_mut(from) else { return };
        holder.state = state;
        match state {
            State::Held => {
                holder.had = Some(Brief::of(&verified));
                self.found.merge(verified);
            }
            State::None => self.ask_for_quorum(now),
            State::Useless => self.replace(now),
            State::Unasked | State::Asked { .. } => {}
        }
        if self.count(|state| state == State::Held) > 0 && !self.lagging().is_empty() {
            self.beware(now);
        }
        self.judge(now);
    }

    /// A holder forged what it said. Nothing of it counts, and others may lie too.
    pub fn handle_forged(&mut self, now: Instant, from: NodeId) {
        let Some(holder) = self.open_mut(from) else { return };
        holder.state = State::Useless;
        self.beware(now);
        self.judge(now);
    }

    /// A holder has the record, but it is asked over a link, because the answer is too long: it gets time for that, a
    /// handshake's and an answer's.
    pub fn handle_moved(&mut self, now: Instant, from: NodeId) {
        if let Some(Asked { state: State::Asked { at, hedge, hedged, .. }, patience, .. }) =
            self.open_mut(from)
        {
            (*at, *hedge, *hedged) = (now, now + (*patience * 2).min(HEDGE_MAX), false);
        }
    }

    /// A holder cannot be reached.
    pub fn handle_failed(&mut self, now: Instant, from: NodeId) {
        let Some(holder) = self.open_mut(from) else { return };
        holder.state = State::Useless;
        self.replace(now);
        self.judge(now);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.done {
            return;
        }
        let mut silent = Vec::new();
        for (index, holder) in self.holders.iter_mut().enumerate() {
            if let State::Asked { at, hedge, hedged, round, .. } = &mut holder.state {
                if now >= *hedge && !*hedged {
                    *hedged = true;
                    silent.push((index, *round));
                }
                if now >= *at + REQUEST {
                    holder.state = State::Useless;
                }
            }
        }
        for (index, round) in silent {
            if let Some(holder) = self.holders.get(index) {
                self.steps.push_back(Step::Silent(holder.node));
            }
            let mut company = self.ask_next(now, round + 1);
            if round > 0 {
                company |= self.ask_next(now, round + 1);
            }
            if !company {
                self.repeat(now, index);
            }
        }
        self.judge(now);
    }

    /// When to call [`Lookup::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.done {
            return None;
        }
        self.holders
            .iter()
            .filter_map(|holder| match holder.state {
                State::Asked { hedge, hedged: false, .. } => Some(hedge),
                State::Asked { at, hedged: true, .. } => Some(at + REQUEST),
                State::Unasked | State::Held | State::None | State::Useless => None,
            })
            .chain(self.first.map(|at| at + SETTLE))
            .chain([self.begun + OPERATION])
            .min()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Only who was asked and has not answered can change its state.
    fn open_mut(&mut self, node: NodeId) -> Option<&mut Asked> {
        if self.done {
            return None;
        }
        self.holders.iter_mut().find(|h| h.node == node && matches!(h.state, State::Asked { .. }))
    }

    fn ask_next(&mut self, now: Instant, round: u32) -> bool {
        let Some(holder) = self.holders.iter_mut().find(|h| h.state == State::Unasked) else { return false };
        let hedge = now + holder.patience;
        holder.state = State::Asked { at: now, hedge, hedged: false, round, repeats: 0 };
        self.steps.push_back(Step::Ask(holder.node));
        true
    }

    /// Nobody else is left: the request, or its answer, may have been lost.
    fn repeat(&mut self, now: Instant, index: usize) {
        let Some(holder) = self.holders.get_mut(index) else { return };
        if let State::Asked { hedge, hedged, repeats, .. } = &mut holder.state
            && *repeats < REPEATS_MAX
        {
            *repeats += 1;
            *hedged = false;
            *hedge = now + holder.patience * (1 << *repeats);
            self.steps.push_back(Step::Ask(holder.node));
        }
    }

    /// Once something is found, only one more answer is waited for, and nobody is asked while it may still come.
    fn replace(&mut self, now: Instant) {
        let fresh = |state: State| matches!(state, State::Asked { hedged: false, .. });
        if self.first.is_none() || self.count(fresh) == 0 {
            self.ask_next(now, 0);
        }
    }

    /// Somebody said "none": enough must be asked that all of them saying so would decide.
    fn ask_for_quorum(&mut self, now: Instant) {
        let quorum = self.quorum();
        while self.first.is_none()
            && self.count(|state| matches!(state, State::Asked { .. } | State::None)) < quorum
            && self.ask_next(now, 0)
        {}
    }

    /// Holders differ: more are heard.
    fn beware(&mut self, now: Instant) {
        self.wanted = READ_WARY;
        let of_use = |state: State| match state {
            State::Asked { hedged, .. } => !hedged,
            State::Held | State::None => true,
            State::Unasked | State::Useless => false,
        };
        while self.count(of_use) < self.wanted && self.ask_next(now, 0) {}
    }

    /// Holders that must say "none".
    fn quorum(&self) -> usize {
        let wary = if self.wanted > READ_AT_ONCE { self.wanted } else { 0 };
        none_quorum(self.holders.len()).max(wary).min(self.holders.len())
    }

    fn count(&self, which: impl Fn(State) -> bool) -> usize {
        self.holders.iter().filter(|holder| which(holder.state)).count()
    }

    fn judge(&mut self, now: Instant) {
        if self.done {
            return;
        }
        let held = self.count(|state| state == State::Held);
        let none = self.count(|state| state == State::None);
        let open = self.count(|state| matches!(state, State::Asked { .. }));
        let unasked = self.count(|state| state == State::Unasked);
        let over = now >= self.begun + OPERATION;
        if held > 0 {
            let is_first = self.first.is_none();
            let first = *self.first.get_or_insert(now);
            let settled =
                held + none >= self.wanted || (open == 0 && unasked == 0) || now >= first + SETTLE || over;
            if settled {
                self.finish(Standing::Held);
            } else if is_first {
                self.steps.push_back(Step::First);
                if open == 0 {
                    self.ask_next(now, 0);
                }
            }
        } else if !self.holders.is_empty() && none >= self.quorum() {
            self.finish(Standing::None);
        } else if (open == 0 && unasked == 0) || over {
            self.finish(Standing::Unreachable);
        }
    }

    fn finish(&mut self, standing: Standing) {
        self.done = true;
        self.steps.push_back(Step::Done(standing));
    }
}

#[cfg(test)]
mod tests;
