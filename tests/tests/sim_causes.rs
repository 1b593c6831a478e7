//! Every way a call can fail ends in its cause and exit code, on both sides.

use std::time::Duration;

use yodel::command::{CallId, Cause, Command, Reply, Request};
use yodel_relay::server::ServerConfig;
use yodel_tests::sim::checks::settled;
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where, pair};
use yodel_tests::sim::sound::dead_microphone;

const LONG: Duration = Duration::from_secs(60);
const CONE: Where = Where::Home(NatKind::PORT_RESTRICTED);

fn exit(cause: Cause) -> u8 {
    cause.exit_code() as u8
}

fn dial(realm: &mut SimRealm, from: PhoneIndex, to: PhoneIndex) -> CallId {
    let callee = realm[to].aor.clone();
    realm.dial(from, &callee)
}

/// Dials, and tells the caller's cause once everything has settled.
fn caused(realm: &mut SimRealm, from: PhoneIndex, to: PhoneIndex) -> Cause {
    let call = dial(realm, from, to);
    let cause = realm.cause(from, call, LONG);
    realm.run_for(Duration::from_secs(2));
    settled(realm, &[from, to]).unwrap();
    cause
}

#[test]
fn nobody_has_this_name() {
    let (mut realm, alice, _) = pair(1, CONE, CONE);
    let nobody = realm.issuer.aor("nobody");
    let call = realm.dial(alice, &nobody);
    let cause = realm.cause(alice, call, Duration::from_secs(2));
    assert_eq!((cause, exit(cause)), (Cause::LookupNoUser, 5));
    let other = yodel_identity::name::Aor::parse("bob@example.org").unwrap();
    let audio = realm.mouth_of(alice);
    let dial = yodel::command::Dial { peer: other, audio, relay_only: false, max: None, ring_timeout: None };
    let refused = realm.ask(alice, Request::Dial(dial)).unwrap_err();
    assert_eq!(refused.cause, Some(Cause::LookupNoUser));
}

#[test]
fn an_account_without_a_live_device_is_offline() {
    let (mut realm, alice, bob) = pair(2, CONE, CONE);
    realm.command(bob, Command::Stop);
    realm.run_for(Duration::from_secs(2));
    let cause = caused(&mut realm, alice, bob);
    assert_eq!((cause, exit(cause)), (Cause::PeerOffline, 6));
}

#[test]
fn a_device_that_just_died_is_offline() {
    let (mut realm, alice, bob) = pair(3, CONE, CONE);
    realm.kill_phone(bob);
    let call = dial(&mut realm, alice, bob);
    let began = realm.world.now().mono;
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PeerOffline, 6));
    assert!(realm.world.now().mono.since(began) < Duration::from_secs(8));
}

#[test]
fn a_caller_without_any_home_reaches_nobody() {
    let (mut realm, alice, bob) = pair(4, CONE, CONE);
    for supernode in 0..3 {
        realm.kill_supernode(supernode);
    }
    realm.run_for(Duration::from_secs(40));
    let cause = caused(&mut realm, alice, bob);
    assert_eq!((cause, exit(cause)), (Cause::LookupOverlayUnreachable, 6));
}

#[test]
fn a_decline_is_a_decline() {
    let (mut realm, alice, bob) = pair(5, CONE, CONE);
    realm[bob].manners = Manners::Decline(Duration::from_millis(500));
    let call = dial(&mut realm, alice, bob);
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PeerDeclined, 7));
    assert_eq!(realm.cause(bob, call, LONG), Cause::PeerDeclined);
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_phone_in_a_call_is_busy() {
    let (mut realm, alice, bob) = pair(6, CONE, CONE);
    let carol = realm.phone("carol", CONE);
    realm.all_online();
    realm.befriend(carol, bob);
    realm[bob].manners = Manners::Answer(Duration::from_millis(200));
    let first = dial(&mut realm, alice, bob);
    assert!(realm.reaches(alice, first, "media", LONG));
    let second = dial(&mut realm, carol, bob);
    let cause = realm.cause(carol, second, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PeerBusy, 7));
    assert!(realm[alice].end(first).is_none(), "the call that was there goes on");
    realm.hangup(bob, Some(first));
    realm.run_for(Duration::from_secs(2));
    settled(&mut realm, &[alice, bob, carol]).unwrap();
}

#[test]
fn nobody_answers() {
    let (mut realm, alice, bob) = pair(7, CONE, CONE);
    let callee = realm[bob].aor.clone();
    let call = realm.dial_with(alice, &callee, |dial| dial.ring_timeout = Some(Duration::from_secs(5)));
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PeerNoAnswer, 6));
    realm.ended(bob, call, Duration::from_secs(2));
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_phone_that_shows_no_ring_never_alerts() {
    let (mut realm, alice, bob) = pair(8, CONE, CONE);
    realm[bob].manners = Manners::Mute;
    let call = dial(&mut realm, alice, bob);
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PeerNoAlert, 6));
    assert!(!realm[alice].states(call).contains(&"alerted"));
    realm.run_for(Duration::from_secs(2));
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_revoked_device_neither_calls_nor_is_called() {
    let (mut realm, alice, bob) = pair(10, CONE, CONE);
    realm.revoke(bob);
    for supernode in 0..3 {
        realm.kill_supernode(supernode);
        realm.restart_supernode(supernode);
    }
    realm.run_for(Duration::from_secs(60));
    let refused = caused(&mut realm, bob, alice);
    assert_eq!((refused, exit(refused)), (Cause::SigninExpired, 4));
    let cause = caused(&mut realm, alice, bob);
    assert_eq!((cause, exit(cause)), (Cause::PeerOffline, 6));
}

#[test]
fn a_clock_that_runs_ahead_is_named_and_one_that_runs_behind_is_led() {
    let (mut realm, alice, bob) = pair(31, CONE, CONE);
    let node = realm[alice].node;
    realm.world.skew_clock(node, 3_600_000);
    let refused = caused(&mut realm, alice, bob);
    assert_eq!((refused, exit(refused)), (Cause::SigninClock, 4));
    // Behind: the newest time that the realm signed leads it.
    realm.world.skew_clock(node, -3_600_000);
    realm[bob].manners = Manners::Decline(Duration::from_millis(500));
    assert_eq!(caused(&mut realm, alice, bob), Cause::PeerDeclined);
}

#[test]
fn a_stranger_does_not_ring_and_learns_no_address() {
    let mut realm = SimRealm::new(11, 3);
    let (eve, bob) = (realm.phone("eve", CONE), realm.phone("bob", CONE));
    realm.all_online();
    let cause = caused(&mut realm, eve, bob);
    assert_eq!((cause, exit(cause)), (Cause::PolicyUnknownCaller, 11));
    let rang = realm[bob].log.iter().any(|(_, event)| matches!(event.state.name(), "contacting" | "alerted"));
    assert!(!rang, "{:?}", realm[bob].log);
    let Ok(Reply::Requests(requests)) = realm.ask(bob, Request::ContactRequests) else { panic!() };
    assert_eq!(requests.len(), 1);
    assert!(requests[0].called && requests[0].aor == realm[eve].aor);
}

#[test]
fn a_dead_microphone_is_named() {
    let (mut realm, alice, bob) = pair(12, CONE, CONE);
    realm[bob].manners = Manners::Answer(Duration::from_millis(200));
    let callee = realm[bob].aor.clone();
    let (audio, ear) = dead_microphone();
    let call = realm.dial_with(alice, &callee, |dial| dial.audio = audio);
    assert!(realm.reaches(bob, call, "media", LONG));
    realm.run_for(Duration::from_secs(5));
    realm.hangup(alice, Some(call));
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::MediaMicSilent, 10));
    let end = realm.ended(bob, call, LONG);
    assert_eq!(
        (end.cause, end.detail.as_str()),
        (Cause::MediaMicSilent, "the peer's microphone gives nothing")
    );
    settled(&mut realm, &[alice, bob]).unwrap();
    assert!(ear.sound().closed);
}

#[test]
fn an_answered_call_in_which_nothing_gets_through_says_so() {
    let (mut realm, alice, bob) = pair(13, CONE, CONE);
    let call = dial(&mut realm, alice, bob);
    assert!(realm.reaches(alice, call, "alerted", LONG));
    // From now on no datagram and no relayed frame arrives anywhere.
    realm.world.weather.loss_permille = 1_000;
    realm.world.set_tamper(Some(Box::new(|_, _, frame| {
        if yodel_relay::control::is_relay(frame.kind) { Vec::new() } else { vec![frame] }
    })));
    assert!(realm.answer(bob, Some(call)));
    assert!(realm.reaches(alice, call, "answered", LONG));
    realm.run_for(Duration::from_secs(4));
    realm.hangup(alice, Some(call));
    for phone in [alice, bob] {
        let end = realm.ended(phone, call, LONG);
        assert_eq!(exit(end.cause), 8, "{}", end.cause);
    }
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_call_that_goes_silent_both_ways_is_lost_by_itself() {
    let (mut realm, alice, bob) = pair(14, CONE, CONE);
    realm[bob].manners = Manners::Answer(Duration::from_millis(200));
    let call = dial(&mut realm, alice, bob);
    assert!(realm.reaches(alice, call, "media", LONG));
    realm.run_for(Duration::from_secs(3));
    realm.world.weather.loss_permille = 1_000;
    realm.world.set_tamper(Some(Box::new(|_, _, frame| {
        if yodel_relay::control::is_relay(frame.kind) { Vec::new() } else { vec![frame] }
    })));
    for phone in [alice, bob] {
        let end = realm.ended(phone, call, LONG);
        assert_eq!(exit(end.cause), 8, "{}", end.cause);
    }
    settled(&mut realm, &[alice, bob]).unwrap();
}

fn no_relay() -> ServerConfig {
    ServerConfig { rate_bytes_per_s: 0, ..ServerConfig::default() }
}

/// Two symmetric NATs in a realm whose relays refuse.
fn unreachable_pair(seed: u64) -> (SimRealm, PhoneIndex, PhoneIndex) {
    let mut realm = SimRealm::with_relays(seed, 3, no_relay());
    let symmetric = Where::Home(NatKind::SYMMETRIC);
    let (alice, bob) = (realm.phone("alice", symmetric), realm.phone("bob", symmetric));
    realm.all_online();
    realm.befriend(alice, bob);
    realm[bob].manners = Manners::Answer(Duration::from_millis(200));
    (realm, alice, bob)
}

#[test]
fn no_path_at_all_is_named_on_both_sides() {
    let (mut realm, alice, bob) = unreachable_pair(15);
    let call = dial(&mut realm, alice, bob);
    for phone in [alice, bob] {
        let cause = realm.cause(phone, call, LONG);
        assert_eq!((cause, exit(cause)), (Cause::PathAllFailed, 8));
    }
    realm.run_for(Duration::from_secs(2));
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_relay_that_refuses_is_named_when_only_a_relay_will_do() {
    let (mut realm, alice, bob) = unreachable_pair(16);
    let callee = realm[bob].aor.clone();
    let call = realm.dial_with(alice, &callee, |dial| dial.relay_only = true);
    let cause = realm.cause(alice, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::PathRelayRefused, 11));
    let cause = realm.cause(bob, call, LONG);
    assert!(matches!(exit(cause), 8 | 11), "{cause}");
    realm.run_for(Duration::from_secs(2));
    settled(&mut realm, &[alice, bob]).unwrap();
}

#[test]
fn a_call_ends_by_itself_after_the_time_set() {
    let (mut realm, alice, bob) = pair(19, CONE, CONE);
    realm[bob].manners = Manners::Answer(Duration::from_millis(200));
    let callee = realm[bob].aor.clone();
    let call = realm.dial_with(alice, &callee, |dial| dial.max = Some(Duration::from_secs(3)));
    let end = realm.ended(alice, call, LONG);
    assert_eq!((end.cause, exit(end.cause)), (Cause::LocalHangup, 0));
    assert!(end.duration.abs_diff(Duration::from_secs(3)) < Duration::from_millis(50), "{:?}", end.duration);
    let cause = realm.cause(bob, call, LONG);
    assert_eq!((cause, exit(cause)), (Cause::RemoteHangup, 0));
}
