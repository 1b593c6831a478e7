//! What dies during, before or between calls: homes, relays, the login server, one direction of a path.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use yodel::command::{CallId, Cause, PathKind};
use yodel_tests::sim::checks::{heard_share, over_seeds, seeds, settled, stories};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where, pair};

const SECOND: Duration = Duration::from_secs(1);
const CONE: Where = Where::Home(NatKind::PORT_RESTRICTED);
const SYMMETRIC: Where = Where::Home(NatKind::SYMMETRIC);

fn talk(realm: &mut SimRealm, alice: PhoneIndex, bob: PhoneIndex) -> CallId {
    realm[bob].manners = Manners::Answer(SECOND / 2);
    let callee = realm[bob].aor.clone();
    let call = realm.dial(alice, &callee);
    for phone in [alice, bob] {
        assert!(realm.reaches(phone, call, "media", 10 * SECOND), "{}", stories(realm, &[alice, bob]));
    }
    call
}

/// Frames of 20 ms that this phone played without having received them, so far.
fn missing(realm: &SimRealm, phone: PhoneIndex) -> u64 {
    realm[phone].ears.last().map_or(0, |ear| ear.sound().missing)
}

/// Any supernode is killed; within 100 ms somebody dials: it rings within a second of the dialling.
fn killed_then_dialled(seed: u64) -> Result<(), String> {
    let (mut realm, alice, bob) = pair(seed, CONE, CONE);
    realm.world.weather.delay = Duration::from_millis(1 + realm.world.below(40));
    let victim = realm.world.below(3) as usize;
    let later = Duration::from_micros(realm.world.below(100_000));
    realm.kill_supernode(victim);
    realm.run_for(later);
    let began = realm.world.now().mono;
    let callee = realm[bob].aor.clone();
    let call = realm.dial(alice, &callee);
    realm.reaches(alice, call, "alerted", 10 * SECOND);
    let took = realm[alice].when(call, "alerted").map(|at| at.since(began));
    if took.is_none_or(|took| took > SECOND) {
        let story = stories(&mut realm, &[alice, bob]);
        return Err(format!("{took:?} with {:?} a way\n{story}", realm.world.weather.delay));
    }
    realm.hangup(alice, Some(call));
    realm.run_for(6 * SECOND);
    settled(&mut realm, &[alice, bob]).map(|_| ())
}

#[test]
fn a_call_dialled_right_after_the_death_of_a_home_rings_within_a_second() {
    over_seeds(seeds(), killed_then_dialled);
}

#[test]
fn the_relay_dies_in_the_call_and_another_carries_it_on() {
    for victim in 0..3 {
        let (mut realm, alice, bob) = pair(20 + victim as u64, SYMMETRIC, SYMMETRIC);
        let call = talk(&mut realm, alice, bob);
        realm.run_for(3 * SECOND);
        let used = realm.supernodes[victim].id.to_string();
        let is_relay = realm.timeline_says(alice, call, &format!("relay session asked for at {used}"));
        let before = [alice, bob].map(|phone| missing(&realm, phone));
        realm.kill_supernode(victim);
        realm.run_for(12 * SECOND);
        let gaps =
            [(alice, before[0]), (bob, before[1])].map(|(phone, before)| missing(&realm, phone) - before);
        println!("victim {victim}, relay of the call: {is_relay}; frames not heard: {gaps:?}");
        let story = stories(&mut realm, &[alice, bob]);
        // Two seconds at most: a dead home is noticed by its pings, once a second during a call.
        assert!(gaps.iter().all(|gap| *gap <= if is_relay { 100 } else { 0 }), "{gaps:?}\n{story}");
        for phone in [alice, bob] {
            assert_eq!(realm[phone].paths(call).last(), Some(&PathKind::RelayUdp), "{story}");
        }
        // It goes on as before.
        let before = [alice, bob].map(|phone| missing(&realm, phone));
        realm.run_for(5 * SECOND);
        assert_eq!(before, [alice, bob].map(|phone| missing(&realm, phone)));
        realm.hangup(alice, Some(call));
        assert_eq!(realm.cause(bob, call, 5 * SECOND), Cause::RemoteHangup, "{story}");
        realm.run_for(SECOND);
        settled(&mut realm, &[alice, bob]).unwrap();
    }
}

#[test]
fn phones_start_again_and_call_without_any_login_server() {
    // The simulated realm has none that runs: keys and records are as it left them.
    let (mut realm, alice, bob) = pair(30, CONE, SYMMETRIC);
    for phone in [alice, bob] {
        realm.kill_phone(phone);
        realm.run_for(SECOND);
        realm.restart_phone(phone);
        realm.all_online();
    }
    let call = talk(&mut realm, bob, alice);
    realm.run_for(3 * SECOND);
    assert!(heard_share(&realm, alice, bob) > 0.95);
    realm.hangup(bob, Some(call));
    realm.run_for(SECOND);
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn after_two_days_without_a_login_server_calls_go_on() {
    let (mut realm, alice, bob) = pair(31, CONE, CONE);
    realm.run_for(48 * 3_600 * SECOND);
    assert!(realm[alice].online && realm[bob].online);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(3 * SECOND);
    assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
    realm.hangup(alice, Some(call));
    realm.run_for(SECOND);
    // And a phone that starts only then.
    realm.kill_phone(bob);
    realm.restart_phone(bob);
    realm.all_online();
    let call = talk(&mut realm, alice, bob);
    realm.hangup(alice, Some(call));
    realm.run_for(SECOND);
    settled(&mut realm, &[alice, bob]).unwrap();
}

fn home_of(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(30, 0, n, 7))
}

#[test]
fn one_direction_of_the_direct_path_dies_and_both_go_on_hearing() {
    for (seed, from, to) in [(40, 1, 2), (41, 2, 1)] {
        let (mut realm, alice, bob) = pair(seed, CONE, CONE);
        let call = talk(&mut realm, alice, bob);
        realm.run_for(4 * SECOND);
        assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
        let before = [alice, bob].map(|phone| missing(&realm, phone));
        realm.world.one_way.push((home_of(from), home_of(to)));
        realm.run_for(8 * SECOND);
        let gaps =
            [(alice, before[0]), (bob, before[1])].map(|(phone, before)| missing(&realm, phone) - before);
        println!("{from} to {to} cut; frames not heard: {gaps:?}");
        let story = stories(&mut realm, &[alice, bob]);
        assert!(gaps.iter().all(|gap| *gap <= 50), "{gaps:?}\n{story}");
        let before = [alice, bob].map(|phone| missing(&realm, phone));
        realm.run_for(5 * SECOND);
        let after = [alice, bob].map(|phone| missing(&realm, phone));
        assert_eq!(before, after, "{story}");
        realm.hangup(alice, Some(call));
        realm.run_for(2 * SECOND);
        settled(&mut realm, &[alice, bob]).unwrap();
    }
}

#[test]
fn the_callers_phone_is_killed_in_the_call_and_the_callee_is_told() {
    let (mut realm, alice, bob) = pair(50, CONE, CONE);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(3 * SECOND);
    realm.kill_phone(alice);
    let end = realm.ended(bob, call, 60 * SECOND);
    assert_eq!(end.cause, Cause::PathLost);
    // The restarted phone knows of no call, and can be called.
    realm.restart_phone(alice);
    realm.all_online();
    let call = talk(&mut realm, bob, alice);
    realm.hangup(bob, Some(call));
    assert_eq!(realm.cause(alice, call, 5 * SECOND), Cause::RemoteHangup);
}
