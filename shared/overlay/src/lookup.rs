//! A read over the holders of one key.
//!
//! Two holders are asked at once. One that stays silent for one and a half of its round trips gets company, one that
//! fails is replaced at once. The first valid answer is reported, the second (or 300 ms) settles it: the higher version of
//! the account record and the higher sequence of each entry stand. "No such account" needs min(3, K) holders that say so.
//!
//! Contract: [`Lookup::new`], then [`Lookup::handle_answer`], [`Lookup::handle_failed`] and [`Lookup::handle_timeout`]
//! at [`Lookup::deadline`]; drain [`Lookup::poll`] after each. After [`Step::Done`] nothing follows.

use std::collections::VecDeque;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::limits::{HEDGE_MAX, HEDGE_MIN, OPERATION, READ_AT_ONCE, REQUEST, SETTLE};
use crate::placement::none_quorum;
use crate::record::Standing;
use crate::verify::Verified;

/// What to do for a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this holder.
    Ask(NodeId),
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
        hedged: bool,
    },
    Held,
    None,
    /// Silent, unreachable, "not yet", or what it said does not verify.
    Useless,
}

/// One read; see the module's text.
#[derive(Debug)]
pub struct Lookup {
    holders: Vec<(NodeId, State, Duration)>,
    begun: Instant,
    first: Option<Instant>,
    done: bool,
    found: Verified,
    steps: VecDeque<Step>,
}

impl Lookup {
    /// Starts to ask `holders`, in the order given, each with its round trip when known.
    pub fn new(now: Instant, holders: impl IntoIterator<Item = (NodeId, Option<Duration>)>) -> Lookup {
        let holders = holders
            .into_iter()
            .map(|(node, rtt)| {
                let hedge = rtt.map_or(HEDGE_MAX, |rtt| (rtt * 3 / 2).clamp(HEDGE_MIN, HEDGE_MAX));
                (node, State::Unasked, hedge)
            })
            .collect();
        let mut lookup = Lookup {
            holders,
            begun: now,
            first: None,
            done: false,
            found: Verified::default(),
            steps: VecDeque::new(),
        };
        for _ in 0..READ_AT_ONCE {
            lookup.ask_next(now);
        }
        lookup.judge(now);
        lookup
    }

    /// What was found so far.
    pub fn found(&self) -> &Verified {
        &self.found
    }

    /// Whether a valid answer was reported.
    pub fn has_first(&self) -> bool {
        self.first.is_some()
    }

    /// Holders that answered.
    pub fn answered(&self) -> usize {
        self.count(|state| matches!(state, State::Held | State::None))
    }

    /// A holder answered. `verified` is what the asker believes of it.
    pub fn handle_answer(&mut self, now: Instant, from: NodeId, standing: Standing, verified: Verified) {
        let state = match standing {
            Standing::Held if verified.account.is_some() => State::Held,
            Standing::None => State::None,
            Standing::Held | Standing::NotYet | Standing::Unreachable => State::Useless,
        };
        if !self.set(from, state) {
            return;
        }
        match state {
            State::Held => {
                self.found.merge(verified);
            }
            State::None => self.ask_for_quorum(now),
            State::Useless => self.ask_next(now),
            State::Unasked | State::Asked { .. } => {}
        }
        self.judge(now);
    }

    /// A holder cannot be reached.
    pub fn handle_failed(&mut self, now: Instant, from: NodeId) {
        if self.set(from, State::Useless) {
            self.ask_next(now);
            self.judge(now);
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.done {
            return;
        }
        let mut more = 0;
        for (_, state, _) in &mut self.holders {
            if let State::Asked { at, hedge, hedged } = state {
                if now >= *hedge && !*hedged {
                    *hedged = true;
                    more += 1;
                }
                if now >= *at + REQUEST {
                    *state = State::Useless;
                }
            }
        }
        for _ in 0..more {
            self.ask_next(now);
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
            .filter_map(|(_, state, _)| match state {
                State::Asked { hedge, hedged: false, .. } => Some(*hedge),
                State::Asked { at, hedged: true, .. } => Some(*at + REQUEST),
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
    fn set(&mut self, node: NodeId, to: State) -> bool {
        if self.done {
            return false;
        }
        match self.holders.iter_mut().find(|(holder, _, _)| *holder == node) {
            Some((_, state @ State::Asked { .. }, _)) => {
                *state = to;
                true
            }
            Some(_) | None => false,
        }
    }

    fn ask_next(&mut self, now: Instant) {
        // Once something is found, only the second answer is waited for, and that was asked already.
        if self.first.is_some() && self.count(|state| matches!(state, State::Asked { .. })) > 0 {
            return;
        }
        if let Some((node, state, hedge)) =
            self.holders.iter_mut().find(|(_, state, _)| *state == State::Unasked)
        {
            *state = State::Asked { at: now, hedge: now + *hedge, hedged: false };
            self.steps.push_back(Step::Ask(*node));
        }
    }

    /// Somebody said "none": enough must be asked that all of them saying so would decide.
    fn ask_for_quorum(&mut self, now: Instant) {
        let quorum = none_quorum(self.holders.len());
        while self.first.is_none()
            && self.count(|state| matches!(state, State::Asked { .. } | State::None)) < quorum
            && self.count(|state| matches!(state, State::Unasked)) > 0
        {
            self.ask_next(now);
        }
    }

    fn count(&self, which: impl Fn(State) -> bool) -> usize {
        self.holders.iter().filter(|(_, state, _)| which(*state)).count()
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
            let first = *self.first.get_or_insert(now);
            let settled =
                held + none >= READ_AT_ONCE || (open == 0 && unasked == 0) || now >= first + SETTLE || over;
            if settled {
                self.finish(Standing::Held);
            } else if first == now && held == 1 && !self.steps.contains(&Step::First) {
                self.steps.push_back(Step::First);
                if open == 0 {
                    self.ask_next(now);
                }
            }
        } else if !self.holders.is_empty() && none >= none_quorum(self.holders.len()) {
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
mod tests {
    use super::*;
    use crate::record::Answer;
    use crate::testing::{DeviceFixture, RealmFixture};

    const MS: Duration = Duration::from_millis(1);

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    struct Rig {
        realm: RealmFixture,
        alice: DeviceFixture,
        now: Instant,
        lookup: Lookup,
    }

    fn rig(holders: u8) -> Rig {
        let realm = RealmFixture::new();
        let alice = realm.device("alice", 1);
        let now = Instant::from_micros(1);
        let lookup = Lookup::new(now, (1..=holders).map(|n| (node(n), Some(100 * MS))));
        Rig { realm, alice, now, lookup }
    }

    impl Rig {
        fn steps(&mut self) -> Vec<Step> {
            std::iter::from_fn(|| self.lookup.poll()).collect()
        }

        /// Holder `from` answers with this entry of alice, which may be wrong.
        fn held(&mut self, from: u8, entry: &[u8]) {
            let answer = Answer {
                id: 0,
                standing: Standing::Held,
                account: Some(self.alice.account.bytes().to_vec()),
                entries: vec![entry.to_vec()],
                settled: true,
                holders: 1,
            };
            let verified = Verified::of(&self.realm.realm, &self.alice.key(), &answer, self.realm.now);
            self.lookup.handle_answer(self.now, node(from), Standing::Held, verified);
        }

        fn says(&mut self, from: u8, standing: Standing) {
            self.lookup.handle_answer(self.now, node(from), standing, Verified::default());
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.lookup.handle_timeout(self.now);
        }

        fn sequences(&self) -> Vec<u64> {
            self.lookup.found().live(self.realm.now).iter().map(|entry| entry.sequence).collect()
        }
    }

    #[test]
    fn one_holder_settles_alone() {
        let mut rig = rig(1);
        assert_eq!(rig.steps(), [Step::Ask(node(1))]);
        let entry = rig.alice.entry(3, rig.realm.now);
        rig.held(1, entry.bytes());
        assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
        assert_eq!((rig.sequences(), rig.lookup.deadline()), (vec![3], None));
    }

    #[test]
    fn the_first_starts_and_the_second_replaces() {
        let mut rig = rig(3);
        assert_eq!(rig.steps(), [Step::Ask(node(1)), Step::Ask(node(2))]);
        let (old, new) = (rig.alice.entry(3, rig.realm.now), rig.alice.entry(4, rig.realm.now));
        rig.held(1, old.bytes());
        assert_eq!(rig.steps(), [Step::First]);
        assert_eq!(rig.sequences(), [3]);
        rig.held(2, new.bytes());
        assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
        assert_eq!(rig.sequences(), [4], "a rolled-back answer is outranked");
    }

    #[test]
    fn three_hundred_milliseconds_settle_to_the_millisecond() {
        let mut rig = rig(2);
        rig.steps();
        let entry = rig.alice.entry(3, rig.realm.now);
        rig.held(1, entry.bytes());
        assert_eq!(rig.steps(), [Step::First]);
        rig.pass(SETTLE - MS);
        assert_eq!(rig.steps(), []);
        rig.pass(MS);
        assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
    }

    #[test]
    fn a_withdrawal_outranks_what_another_holder_still_has() {
        let mut rig = rig(2);
        let (entry, gone) = (rig.alice.entry(3, rig.realm.now), rig.alice.withdrawal(4, rig.realm.now));
        rig.held(1, entry.bytes());
        rig.held(2, gone.bytes());
        assert_eq!(rig.sequences(), Vec::<u64>::new());
    }

    #[test]
    fn forged_answers_count_for_nothing() {
        let mut rig = rig(3);
        rig.steps();
        let entry = rig.alice.entry(3, rig.realm.now);
        // A liar invents an account: nothing verifies, the next holder is asked at once.
        rig.says(1, Standing::Held);
        assert_eq!(rig.steps(), [Step::Ask(node(3))]);
        // Another forges the entry below a true account record: found, but without entry.
        let mut forged = rig.alice.entry(9, rig.realm.now).bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        rig.held(2, &forged);
        assert_eq!(rig.steps(), [Step::First]);
        assert_eq!(rig.sequences(), Vec::<u64>::new());
        rig.held(3, entry.bytes());
        assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
        assert_eq!(rig.sequences(), [3]);
        rig.held(1, entry.bytes());
        assert_eq!(rig.steps(), [], "a second answer of one holder changes nothing");
    }

    #[test]
    fn none_needs_three_or_all() {
        for holders in 1..=4_u8 {
            let mut rig = rig(holders);
            let quorum = holders.min(3);
            for from in 1..=quorum {
                assert!(!rig.steps().contains(&Step::Done(Standing::None)), "{from} of {holders}");
                rig.says(from, Standing::None);
            }
            assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::None)));
        }
        // "Not yet" is not "none".
        let mut rig = rig(3);
        for from in 1..=2 {
            rig.says(from, Standing::None);
        }
        rig.says(3, Standing::NotYet);
        assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Unreachable)));
        // One liar that says "none" hides nobody.
        let mut rig = self::rig(3);
        rig.says(1, Standing::None);
        let entry = rig.alice.entry(3, rig.realm.now);
        rig.held(2, entry.bytes());
        assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Held)));
    }

    #[test]
    fn silence_is_hedged_and_failure_replaced() {
        let mut rig = rig(4);
        assert_eq!(rig.steps().len(), 2);
        rig.pass(149 * MS);
        assert_eq!(rig.steps(), []);
        rig.pass(MS);
        assert_eq!(rig.steps(), [Step::Ask(node(3)), Step::Ask(node(4))], "1.5 round trips");
        let mut rig = self::rig(4);
        rig.steps();
        rig.lookup.handle_failed(rig.now, node(2));
        assert_eq!(rig.steps(), [Step::Ask(node(3))]);
        for from in [1, 3, 4] {
            rig.lookup.handle_failed(rig.now, node(from));
        }
        assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Unreachable)));
        let mut rig = self::rig(2);
        rig.pass(REQUEST);
        rig.pass(REQUEST);
        assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Unreachable)));
        let mut rig = self::rig(0);
        assert_eq!(rig.steps(), [Step::Done(Standing::Unreachable)]);
    }
}
