//! A call that was answered and in which somebody heard nothing never ends without saying so, on either side.

use std::time::Duration;

use yodel::command::Cause;
use yodel_tests::sim::checks::{over_seeds, seeds, settled, stories};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{PhoneIndex, SimRealm, Where, pair};
use yodel_tests::sim::sound::dead_microphone;

const LONG: Duration = Duration::from_secs(60);
const CONE: Where = Where::Home(NatKind::PORT_RESTRICTED);
const HOMES: [Where; 4] =
    [CONE, Where::Home(NatKind::SYMMETRIC), Where::Home(NatKind::UDP_BLOCKED), Where::Public];

/// From now on nothing that can carry sound leaves these phones.
fn silence(realm: &mut SimRealm, phones: &[PhoneIndex]) {
    let nodes: Vec<_> = phones.iter().map(|phone| realm[*phone].node).collect();
    let everybody: Vec<_> = realm.phones_all().into_iter().map(|phone| realm.seen_at(phone)).collect();
    let homes = realm.supernodes.iter().map(|supernode| realm.world.addr(supernode.node).ip());
    let others: Vec<_> = homes.chain(everybody).collect();
    for phone in phones {
        let here = realm.seen_at(*phone);
        realm.world.one_way.extend(others.iter().map(|other| (here, *other)));
    }
    realm.world.set_tamper(Some(Box::new(move |from, _, frame| {
        let sound = nodes.contains(&from) && yodel_relay::control::is_relay(frame.kind);
        if sound { Vec::new() } else { vec![frame] }
    })));
}

#[test]
fn a_call_heard_in_one_direction_only_says_which() {
    for (seed, callers) in [(17, true), (18, false)] {
        let (mut realm, alice, bob) = pair(seed, CONE, CONE);
        let callee = realm[bob].aor.clone();
        let call = realm.dial(alice, &callee);
        assert!(realm.reaches(alice, call, "alerted", LONG));
        realm.run_for(Duration::from_secs(2));
        silence(&mut realm, &[if callers { alice } else { bob }]);
        assert!(realm.answer(bob, Some(call)));
        assert!(realm.reaches(alice, call, "answered", LONG));
        realm.run_for(Duration::from_secs(4));
        realm.hangup(alice, Some(call));
        let causes = [alice, bob].map(|phone| realm.cause(phone, call, LONG));
        let wanted = match callers {
            true => [Cause::MediaOneWayOut, Cause::MediaOneWayIn],
            false => [Cause::MediaOneWayIn, Cause::MediaOneWayOut],
        };
        assert_eq!(causes, wanted, "{}", stories(&mut realm, &[alice, bob]));
        assert_eq!(causes.map(|cause| cause.exit_code() as u8), [8, 8]);
        realm.run_for(Duration::from_secs(2));
        settled(&mut realm, &[alice, bob]).unwrap();
    }
}

/// Sound of one side, of both or of none is lost, from before the answer or from later on; a microphone may be dead;
/// then somebody hangs up, or nobody does.
fn silent_somewhere(seed: u64) -> Result<(), String> {
    let kinds = [HOMES[(seed % 4) as usize], HOMES[(seed / 4 % 4) as usize]];
    let (mut realm, alice, bob) = pair(seed, kinds[0], kinds[1]);
    realm.world.weather.delay = Duration::from_millis(1 + realm.world.below(60));
    realm.world.weather.loss_permille = realm.world.below(30) as u32;
    let callee = realm[bob].aor.clone();
    let dead = realm.world.below(8) == 0;
    let (audio, broken) = dead_microphone();
    let call = realm.dial_with(alice, &callee, |dial| {
        if dead {
            dial.audio = audio;
        }
    });
    if dead {
        *realm[alice].ears.last_mut().unwrap() = broken;
    }
    if !realm.reaches(alice, call, "alerted", LONG) {
        return Err("it does not ring".to_owned());
    }
    let mute = match realm.world.below(4) {
        0 => vec![alice],
        1 => vec![bob],
        2 => vec![alice, bob],
        _ => vec![],
    };
    let early = realm.world.below(3) > 0;
    let wait = Duration::from_millis(realm.world.below(1_000));
    realm.run_for(wait);
    if early {
        silence(&mut realm, &mute);
    }
    realm.answer(bob, Some(call));
    let later = Duration::from_millis(1_700 + realm.world.below(5_000));
    realm.reaches(alice, call, "answered", LONG);
    realm.run_for(later / 2);
    if !early {
        silence(&mut realm, &mute);
    }
    realm.run_for(later / 2);
    match realm.world.below(3) {
        0 => drop(realm.hangup(alice, Some(call))),
        1 => drop(realm.hangup(bob, Some(call))),
        _ if mute.is_empty() => drop(realm.hangup(alice, Some(call))),
        _ => {}
    }
    realm.run_until(LONG, |realm| [alice, bob].iter().all(|phone| realm[*phone].end(call).is_some()));
    let [Some(at_alice), Some(at_bob)] = [alice, bob].map(|phone| realm[phone].end(call)) else {
        return Err(format!("it goes on in silence\n{}", stories(&mut realm, &[alice, bob])));
    };
    let heard = |from: PhoneIndex, to: PhoneIndex| {
        let voice = if dead && from == alice { 0 } else { realm[from].voice };
        realm[to].ears.last().map_or(0, |ear| ear.sound().heard_of(voice))
    };
    let long = [&at_alice, &at_bob].iter().all(|end| end.duration >= Duration::from_millis(1_500));
    let somebody_deaf = dead || heard(alice, bob) == 0 || heard(bob, alice) == 0;
    let says = |cause: Cause| cause.code().starts_with("media.") || cause.code().starts_with("path.");
    for end in [&at_alice, &at_bob] {
        if long && somebody_deaf && !says(end.cause) {
            let mute: Vec<_> = mute.iter().map(|phone| realm[*phone].aor.to_string()).collect();
            let story = stories(&mut realm, &[alice, bob]);
            return Err(format!("{} though {mute:?} were mute, microphone dead: {dead}\n{story}", end.cause));
        }
    }
    realm.run_for(Duration::from_secs(2));
    settled(&mut realm, &[alice, bob]).map(|_| ())
}

#[test]
fn an_answered_call_that_somebody_did_not_hear_never_ends_as_if_all_were_well() {
    over_seeds(seeds(), silent_somewhere);
}
