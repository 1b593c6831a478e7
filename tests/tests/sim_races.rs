//! What happens at the same moment at two places: always one call or none, both sides agree, no microphone stays open.
//! Many seeds each; a seed that ever failed has a test of its own.

use std::time::Duration;

use yodel::command::{Cause, Request};
use yodel_tests::sim::checks::{Outcome, over_seeds, seeds, settled, stories};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{self, Manners, PhoneIndex, SimRealm, Where};

const CONE: Where = Where::Home(NatKind::PORT_RESTRICTED);

/// Two phones who are contacts, behind NATs that the seed picks.
fn pair(seed: u64) -> (SimRealm, PhoneIndex, PhoneIndex) {
    realm::pair(seed, home(seed), home(seed / HOMES.len() as u64))
}

/// Kinds of homes; most are what most people have.
const HOMES: [Where; 5] =
    [CONE, CONE, Where::Home(NatKind::SYMMETRIC), Where::Home(NatKind::UDP_BLOCKED), Where::Public];

fn home(seed: u64) -> Where {
    HOMES[(seed % HOMES.len() as u64) as usize]
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Weather of this seed: every delay and some jitter and loss.
fn weather(realm: &mut SimRealm) {
    realm.world.weather.delay = ms(1 + realm.world.below(80));
    realm.world.weather.jitter = ms(realm.world.below(20));
    realm.world.weather.loss_permille = realm.world.below(30) as u32;
}

/// Ends whatever still runs, and checks what became of it.
fn finish(realm: &mut SimRealm, phones: &[PhoneIndex]) -> Result<Outcome, String> {
    for phone in phones {
        let running = realm[*phone].calls().into_iter().filter(|call| realm[*phone].end(*call).is_none());
        for call in running.collect::<Vec<_>>() {
            realm.hangup(*phone, Some(call));
        }
    }
    realm.run_for(Duration::from_secs(12));
    settled(realm, phones).map_err(|why| format!("{why}\n{}", stories(realm, phones)))
}

/// Two devices of an account answer within the same millisecond.
fn two_devices_answer(seed: u64) -> Result<(), String> {
    let mut realm = SimRealm::new(seed, 3);
    let alice = realm.phone("alice", home(seed));
    let bobs = realm.account("bob", &[home(seed / 5), home(seed / 25)]);
    let (one, two) = (bobs[0], bobs[1]);
    realm.all_online();
    realm.befriend(alice, one);
    weather(&mut realm);
    let callee = realm[one].aor.clone();
    let call = realm.dial(alice, &callee);
    let rings = |realm: &SimRealm| bobs.iter().all(|bob| realm[*bob].when(call, "alerted").is_some());
    if !realm.run_until(Duration::from_secs(8), |realm| rings(realm)) {
        return Err("it does not ring at both".to_owned());
    }
    let wait = ms(realm.world.below(200));
    realm.run_for(wait);
    let order = if realm.world.below(2) == 0 { [one, two] } else { [two, one] };
    realm.answer(order[0], Some(call));
    let apart = Duration::from_micros(realm.world.below(1_000));
    realm.run_for(apart);
    realm.answer(order[1], Some(call));
    realm.run_for(Duration::from_secs(3));
    let talking = [alice, one, two].map(|phone| realm[phone].end(call).is_none());
    if !talking[0] || talking[1] == talking[2] {
        return Err(format!("after both answered these talk: {talking:?}"));
    }
    let (winner, loser) = if talking[1] { (one, two) } else { (two, one) };
    let lost = realm[loser].end(call).map(|end| end.cause);
    if lost != Some(Cause::PeerAnsweredElsewhere) {
        return Err(format!("the other device ended with {lost:?}"));
    }
    let voices = [(alice, winner), (winner, alice)];
    if voices.iter().any(|(from, to)| {
        realm[*to].ears.last().is_none_or(|ear| ear.sound().heard_of(realm[*from].voice) == 0)
    }) {
        return Err("the winner is not heard".to_owned());
    }
    let opened = realm[loser].ears.iter().map(|ear| ear.sound().captured).sum::<u64>();
    if opened > 0 {
        return Err(format!("the loser's microphone was open for {opened} frames"));
    }
    let outcome = finish(&mut realm, &[alice, one, two])?;
    (outcome.answered == [alice, winner] || outcome.answered == [winner, alice])
        .then_some(())
        .ok_or(format!("answered: {:?}", outcome.answered))
}

#[test]
fn two_devices_that_answer_in_the_same_millisecond_are_one_call() {
    over_seeds(seeds(), two_devices_answer);
}

/// The caller gives up while the callee answers.
fn cancel_crosses_200(seed: u64) -> Result<(), String> {
    let (mut realm, alice, bob) = pair(seed);
    weather(&mut realm);
    let callee = realm[bob].aor.clone();
    let call = realm.dial(alice, &callee);
    if !realm.reaches(alice, call, "alerted", Duration::from_secs(8)) {
        return Err("it does not ring".to_owned());
    }
    // Two hops each way: anything from well before the answer arrives to just after.
    let span = realm.world.weather.delay * 8;
    let apart = Duration::from_micros(realm.world.below(span.as_micros() as u64));
    if realm.world.below(2) == 0 {
        realm.answer(bob, Some(call));
        realm.run_for(apart);
        realm.hangup(alice, Some(call));
    } else {
        realm.hangup(alice, Some(call));
        realm.run_for(apart);
        realm.answer(bob, Some(call));
    }
    realm.run_for(Duration::from_secs(1));
    for phone in [alice, bob] {
        if realm[phone].end(call).is_none() {
            return Err(format!("{} goes on: {:?}", realm[phone].aor, realm[phone].states(call)));
        }
    }
    let outcome = finish(&mut realm, &[alice, bob])?;
    match outcome.answered.len() {
        0 | 2 => Ok(()),
        n => Err(format!("{n} sides were in a call")),
    }
}

#[test]
fn a_cancel_that_crosses_a_200_leaves_one_call_or_none() {
    over_seeds(seeds(), cancel_crosses_200);
}

/// Both dial each other, apart by less than it takes to notice.
fn both_call_each_other(seed: u64) -> Result<(), String> {
    let (mut realm, alice, bob) = pair(seed);
    weather(&mut realm);
    let (to_alice, to_bob) = (realm[alice].aor.clone(), realm[bob].aor.clone());
    let span = realm.world.weather.delay * 6;
    let apart = Duration::from_micros(realm.world.below(span.as_micros() as u64));
    let one = realm.dial(alice, &to_bob);
    realm.run_for(apart);
    let other = realm.dial(bob, &to_alice);
    realm.run_for(Duration::from_secs(4));
    let running = [(alice, one), (bob, other)].map(|(phone, call)| realm[phone].end(call).is_none());
    if running != [true, true] {
        let ends = [realm[alice].end(one), realm[bob].end(other)].map(|end| end.map(|end| end.cause));
        return Err(format!("they do not talk: {ends:?}, dialled {apart:?} apart"));
    }
    for (from, to) in [(alice, bob), (bob, alice)] {
        let heard = realm[to].ears.iter().map(|ear| ear.sound().heard_of(realm[from].voice)).sum::<usize>();
        if heard == 0 {
            return Err(format!("{} is not heard, dialled {apart:?} apart", realm[from].aor));
        }
    }
    for phone in [alice, bob] {
        let shown: Vec<_> = realm[phone].calls();
        let live = shown.iter().filter(|call| realm[phone].end(**call).is_none()).count();
        if live != 1 {
            return Err(format!("{} shows {live} calls", realm[phone].aor));
        }
    }
    let by = if realm.world.below(2) == 0 { alice } else { bob };
    realm.ask(by, Request::Hangup(None)).map_err(|failure| failure.message)?;
    let outcome = finish(&mut realm, &[alice, bob])?;
    (outcome.answered.len() == 2).then_some(()).ok_or(format!("answered: {:?}", outcome.answered))
}

#[test]
fn two_that_call_each_other_at_once_are_in_one_call() {
    over_seeds(seeds(), both_call_each_other);
}

/// Both dial each other at once, and one of them gives up at any moment.
fn glare_and_a_change_of_mind(
    (mut realm, alice, bob): (SimRealm, PhoneIndex, PhoneIndex),
) -> Result<(), String> {
    weather(&mut realm);
    let (to_alice, to_bob) = (realm[alice].aor.clone(), realm[bob].aor.clone());
    let span = (realm.world.weather.delay * 6).as_micros() as u64;
    let (apart, later) = (realm.world.below(span), realm.world.below(2 * span));
    let one = realm.dial(alice, &to_bob);
    realm.run_for(Duration::from_micros(apart));
    realm.dial(bob, &to_alice);
    realm.run_for(Duration::from_micros(later));
    realm.hangup(alice, Some(one));
    realm.run_for(Duration::from_secs(4));
    finish(&mut realm, &[alice, bob]).map(|_| ())
}

#[test]
fn two_that_call_each_other_and_one_that_gives_up_agree() {
    over_seeds(seeds(), |seed| glare_and_a_change_of_mind(pair(seed)));
}

/// The callee answers and hangs up before the caller can know.
fn an_answer_and_a_change_of_mind(seed: u64) -> Result<(), String> {
    let (mut realm, alice, bob) = pair(seed);
    weather(&mut realm);
    let callee = realm[bob].aor.clone();
    let call = realm.dial(alice, &callee);
    if !realm.reaches(bob, call, "alerted", Duration::from_secs(8)) {
        return Err("it does not ring".to_owned());
    }
    realm.answer(bob, Some(call));
    let span = (realm.world.weather.delay * 5).as_micros() as u64;
    let later = Duration::from_micros(realm.world.below(span));
    realm.run_for(later);
    realm.hangup(bob, Some(call));
    realm.run_for(Duration::from_secs(3));
    let outcome = finish(&mut realm, &[alice, bob])?;
    let ends = [alice, bob].map(|phone| realm[phone].end(call).map(|end| end.cause));
    if ends != [Some(Cause::RemoteHangup), Some(Cause::LocalHangup)] || outcome.answered.len() != 2 {
        return Err(format!(
            "{ends:?}, answered {:?}\n{}",
            outcome.answered,
            stories(&mut realm, &[alice, bob])
        ));
    }
    Ok(())
}

#[test]
fn a_callee_that_answers_and_hangs_up_at_once_was_in_a_call() {
    over_seeds(seeds(), an_answer_and_a_change_of_mind);
}

/// A hang-up between the answer and its ACK: one side said answered, the other did not.
#[test]
fn seeds_6_and_33_of_glare_agree_that_there_was_a_call() {
    for seed in [6, 33] {
        glare_and_a_change_of_mind(realm::pair(seed, CONE, CONE)).unwrap();
    }
}

/// The callee answers, declines or does nothing, the caller hangs up or not, a home dies at any moment.
fn a_home_dies_at_any_moment(seed: u64) -> Result<(), String> {
    let (mut realm, alice, bob) = pair(seed);
    weather(&mut realm);
    realm[bob].manners = Manners::Answer(ms(realm.world.below(1_500)));
    let callee = realm[bob].aor.clone();
    let victim = realm.world.below(3) as usize;
    let call = realm.dial(alice, &callee);
    let moment = Duration::from_micros(realm.world.below(2_500_000));
    realm.run_for(moment);
    realm.kill_supernode(victim);
    realm.run_for(Duration::from_secs(8));
    if realm[alice].end(call).is_some() || realm[bob].end(call).is_some() {
        let ends = [alice, bob].map(|phone| realm[phone].end(call).map(|end| end.cause));
        return Err(format!("ended by the death of home {victim} after {moment:?}: {ends:?}"));
    }
    let states = [alice, bob].map(|phone| realm[phone].states(call));
    if states.iter().any(|states| !states.contains(&"media")) {
        return Err(format!("no media after the death of home {victim} after {moment:?}: {states:?}"));
    }
    finish(&mut realm, &[alice, bob]).map(|_| ())
}

#[test]
fn a_home_that_dies_at_any_moment_of_the_call_ends_nothing() {
    over_seeds(seeds(), a_home_dies_at_any_moment);
}
