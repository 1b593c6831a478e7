//! A clock, and holders that answer, lie or are silent.

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
    let lookup = Lookup::new(now, false, (1..=holders).map(|n| (node(n), Some(100 * MS))));
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
    assert_eq!(rig.steps(), [Step::Ask(node(3))], "they differ, so more are heard");
    assert_eq!(rig.sequences(), [4], "a rolled-back answer is outranked");
    rig.held(3, new.bytes());
    assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
}

#[test]
fn three_hundred_milliseconds_settle_to_the_millisecond() {
    let mut rig = rig(2);
    rig.steps();
    let entry = rig.alice.entry(3, rig.realm.now);
    rig.held(1, entry.bytes());
    assert_eq!(rig.steps(), [Step::First]);
    rig.pass(SETTLE - MS);
    assert_eq!(rig.steps(), [Step::Silent(node(2)), Step::Ask(node(2))], "nobody else is left");
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
    rig.held(3, entry.bytes());
    assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Held)));
}

#[test]
fn once_wary_four_are_heard() {
    let mut rig = rig(8);
    rig.lookup = Lookup::new(rig.now, true, (1..=8).map(|n| (node(n), None)));
    assert_eq!(rig.steps().len(), 4);
    for from in 1..=3 {
        rig.says(from, Standing::None);
        assert_eq!(rig.steps(), [], "three of eight may lie");
    }
    let entry = rig.alice.entry(3, rig.realm.now);
    rig.held(4, entry.bytes());
    assert_eq!(rig.steps(), [Step::Done(Standing::Held)]);
    assert_eq!(rig.lookup.lagging(), [node(1), node(2), node(3)]);
    // A forgery makes wary at once.
    let mut rig = self::rig(8);
    rig.steps();
    rig.lookup.handle_forged(rig.now, node(1));
    let more = [3, 4, 5].map(|n| Step::Ask(node(n)));
    assert_eq!(rig.steps(), more);
}

#[test]
fn company_that_is_silent_gets_two_and_the_last_are_asked_again() {
    let asked = |rig: &mut Rig| -> Vec<u8> {
        let steps = rig.steps().into_iter();
        steps.filter_map(|step| if let Step::Ask(node) = step { Some(node.0[0]) } else { None }).collect()
    };
    let mut rig = rig(8);
    assert_eq!(asked(&mut rig), [1, 2]);
    let entry = rig.alice.entry(3, rig.realm.now);
    rig.held(1, entry.bytes());
    rig.pass(150 * MS);
    assert_eq!(asked(&mut rig), [3], "also when only the second answer is missing");
    rig.pass(150 * MS);
    assert_eq!(rig.steps().last(), Some(&Step::Done(Standing::Held)), "300 ms after the first");
    let mut rig = self::rig(8);
    asked(&mut rig);
    rig.pass(150 * MS);
    assert_eq!(asked(&mut rig), [3, 4]);
    rig.pass(150 * MS);
    assert_eq!(asked(&mut rig), [5, 6, 7, 8]);
    let mut rig = self::rig(1);
    let mut times = asked(&mut rig).len();
    for _ in 0..20 {
        rig.pass(50 * MS);
        times += asked(&mut rig).len();
    }
    assert_eq!(times, 3, "twice more, each time twice as late");
}

#[test]
fn who_lags_is_known() {
    let mut rig = rig(4);
    let (old, new) = (rig.alice.entry(3, rig.realm.now), rig.alice.entry(4, rig.realm.now));
    rig.held(1, old.bytes());
    rig.held(2, new.bytes());
    assert_eq!(rig.lookup.lagging(), [node(1)]);
    let mut rig = self::rig(4);
    rig.says(1, Standing::None);
    rig.held(2, new.bytes());
    assert_eq!(rig.lookup.lagging(), [node(1)]);
    let mut rig = self::rig(4);
    rig.says(1, Standing::NotYet);
    rig.held(2, new.bytes());
    rig.held(3, new.bytes());
    assert_eq!(rig.lookup.lagging(), []);
}

#[test]
fn an_answer_that_moves_to_a_link_gets_time() {
    let mut rig = rig(3);
    rig.steps();
    rig.lookup.handle_moved(rig.now, node(1));
    rig.lookup.handle_moved(rig.now, node(2));
    rig.pass(299 * MS);
    assert_eq!(rig.steps(), []);
    rig.pass(MS);
    assert_eq!(rig.steps().len(), 4, "three round trips");
}

/// `yodel-sim overlay --supernodes 32 --clients 60 --lookups 500 --liars 3 --seed 1`, lookup 1038: one rolled back, the
/// other had the truth over a link and was late with it.
#[test]
fn who_is_late_over_a_link_leaves_no_liar_alone() {
    let mut rig = rig(8);
    rig.steps();
    rig.pass(100 * MS);
    for from in [1, 2] {
        rig.lookup.handle_moved(rig.now, node(from));
    }
    rig.pass(100 * MS);
    let older = rig.alice.entry(4, rig.realm.now).bytes().to_vec();
    rig.held(1, &older);
    assert_eq!((rig.steps(), rig.sequences()), (vec![Step::First], vec![4]));
    rig.pass(200 * MS);
    assert_eq!(rig.steps(), [Step::Silent(node(2)), Step::Ask(node(3))]);
    rig.pass(90 * MS);
    let newest = rig.alice.entry(5, rig.realm.now).bytes().to_vec();
    rig.held(3, &newest);
    assert_eq!(rig.sequences(), [5]);
}

#[test]
fn silence_is_hedged_and_failure_replaced() {
    let mut rig = rig(4);
    assert_eq!(rig.steps().len(), 2);
    rig.pass(149 * MS);
    assert_eq!(rig.steps(), []);
    rig.pass(MS);
    let company = [Step::Silent(node(1)), Step::Ask(node(3)), Step::Silent(node(2)), Step::Ask(node(4))];
    assert_eq!(rig.steps(), company, "1.5 round trips");
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
