//! What must hold at the end of every run, whatever happened in it.

use std::fmt::Write;
use std::time::Duration;

use yodel::command::{CallId, Direction, State};

use super::realm::{PhoneIndex, SimRealm};

/// What became of the calls of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Phones that had a call which was answered.
    pub answered: Vec<PhoneIndex>,
    /// Ends of all calls, by phone.
    pub ends: Vec<(PhoneIndex, CallId, &'static str)>,
}

/// Checks that every call of these phones has ended, that nobody thinks it was answered without somebody else, and
/// that no microphone is open; tells what became of them.
///
/// # Errors
/// A sentence that says what does not hold.
pub fn settled(realm: &mut SimRealm, phones: &[PhoneIndex]) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut sides: Vec<(CallId, Direction, PhoneIndex, bool)> = Vec::new();
    for phone in phones {
        for call in realm[*phone].calls() {
            let events = || realm[*phone].log.iter().filter(|(_, event)| event.call == call);
            let states = realm[*phone].states(call);
            let ends = events().filter(|(_, event)| matches!(event.state, State::Ended(_))).count();
            if ends != 1 || states.last() != Some(&"ended") {
                return Err(format!("{}: {ends} ends in {states:?}", realm[*phone].aor));
            }
            let answered = states.contains(&"answered");
            let end = realm[*phone].end(call).map(|end| (end.cause, end.answered));
            if end.is_none_or(|(_, said)| said != answered) {
                return Err(format!("{}: {end:?} after {states:?}", realm[*phone].aor));
            }
            let direction = events().next().map_or(Direction::Out, |(_, event)| event.direction);
            sides.push((call, direction, *phone, answered));
            outcome.ends.push((*phone, call, end.map_or("", |(cause, _)| cause.code())));
            if answered {
                outcome.answered.push(*phone);
            }
        }
    }
    // Half of those who were in a call talked with the other half.
    if !outcome.answered.len().is_multiple_of(2) {
        return Err(format!("{} phones say they were in a call: {:?}", outcome.answered.len(), outcome.ends));
    }
    for (call, _, phone, answered) in &sides {
        let mut same = sides.iter().filter(|(other, _, at, _)| other == call && at != phone);
        let alone = sides.iter().filter(|(other, ..)| other == call).count() == 1;
        // A call that lost against the other's at once goes on under the other's name there.
        if *answered && !alone && !same.any(|side| side.3) {
            return Err(format!("{} was in call {call} alone: {:?}", realm[*phone].aor, outcome.ends));
        }
    }
    microphones_shut(realm, phones)?;
    Ok(outcome)
}

/// Checks that no microphone of these phones is open, now and a second later.
///
/// # Errors
/// Whose is.
pub fn microphones_shut(realm: &mut SimRealm, phones: &[PhoneIndex]) -> Result<(), String> {
    let captured = |realm: &SimRealm| -> Vec<u64> {
        phones.iter().flat_map(|phone| &realm[*phone].ears).map(|ear| ear.sound().captured).collect()
    };
    let before = captured(realm);
    realm.run_for(Duration::from_secs(1));
    if before != captured(realm) {
        return Err("a microphone goes on after the end".to_owned());
    }
    for phone in phones {
        if let Some(open) = realm[*phone].ears.iter().find(|ear| !ear.sound().closed) {
            return Err(format!(
                "a microphone of {} is open: {:?}",
                realm[*phone].aor,
                open.sound().captured
            ));
        }
    }
    Ok(())
}

/// The share of frames spoken by `from` in its newest audio end that `to` heard in its newest.
pub fn heard_share(realm: &SimRealm, from: PhoneIndex, to: PhoneIndex) -> f64 {
    let voice = realm[from].voice;
    let spoken = realm[from].ears.last().map_or(0, |ear| ear.sound().captured);
    let heard = realm[to].ears.last().map_or(0, |ear| ear.sound().heard_of(voice));
    if spoken == 0 { 0.0 } else { heard as f64 / spoken as f64 }
}

/// The timelines of all calls of these phones, to say why a run failed.
pub fn stories(realm: &mut SimRealm, phones: &[PhoneIndex]) -> String {
    let mut told = String::new();
    for phone in phones {
        for call in realm[*phone].calls() {
            let _ = writeln!(told, "{} {call}: {:?}", realm[*phone].aor, realm[*phone].states(call));
            for step in realm.why(*phone, call).steps {
                let _ = writeln!(told, "  {:>8.1} ms  {}", step.t.as_secs_f64() * 1e3, step.text);
            }
        }
    }
    told
}

/// How many seeds a test of races runs: `YODEL_SEEDS`, or many when optimised, some otherwise.
pub fn seeds() -> u64 {
    let asked = std::env::var("YODEL_SEEDS").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 24 } else { 1_000 })
}

/// Runs a check over this many seeds, from 1; panics with all seeds that fail, the first ones with why.
pub fn over_seeds(count: u64, mut check: impl FnMut(u64) -> Result<(), String>) {
    let failed: Vec<_> =
        (1..=count).filter_map(|seed| check(seed).err().map(|why| format!("seed {seed}: {why}"))).collect();
    let shown: Vec<_> = failed.iter().take(10).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} of {count} seeds fail:\n{}", failed.len(), shown.join("\n"));
}
