//! The ordinary call, and every ordinary way it can fail.

use super::world::{Habit, World, ms};
use crate::cause::Cause;

#[test]
fn a_call_goes_through_all_states_on_both_sides() {
    let mut world = World::pair(1);
    let call = world.dial(0, "bob");
    world.run(ms(3_000));
    assert_eq!(
        world.states(0),
        ["resolving", "contacting", "alerted", "answered", "media"],
        "{}\n--\n{}",
        world.story(0),
        world.story(1)
    );
    assert_eq!(world.states(1), ["contacting", "alerted", "answered", "media"], "{}", world.story(1));
    assert_eq!(world.paths(0).last(), Some(&"direct"), "{}", world.story(0));
    world.hangup(0, call);
    world.run(ms(500));
    assert_eq!(world.causes(0), [Cause::LocalHangup], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::RemoteHangup], "{}", world.story(1));
    assert!(world.phones[0].sound.lock().unwrap().heard > 100);
    assert!(world.phones[1].sound.lock().unwrap().heard > 100);
    world.run(ms(60_000));
    assert_eq!(world.phones[0].calls.counters()["calls_kept"], 0);
    assert_eq!(world.phones[0].calls.deadline(), None, "nothing is left running");
    assert_eq!(world.phones[1].calls.deadline(), None);
}

#[test]
fn declined_busy_and_no_answer() {
    let mut world = World::pair(2);
    world.phones[1].habit = Habit::Decline(ms(100));
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::PeerDeclined], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::PeerDeclined]);

    let mut world = World::pair(3);
    world.add("carol", 3, 3, &[1, 3]);
    world.befriend(2, 1);
    world.dial(0, "bob");
    world.run(ms(1_000));
    world.dial(2, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(2), [Cause::PeerBusy], "{}", world.story(2));
    assert_eq!(world.causes(1), [Cause::PeerBusy]);

    let mut world = World::pair(4);
    world.phones[1].habit = Habit::Ring;
    let mut options = world.options(0);
    options.ring_timeout = Some(ms(2_000));
    world.dial_with(0, "bob", options);
    world.run(ms(4_000));
    assert_eq!(world.causes(0), [Cause::PeerNoAnswer], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::PeerNoAnswer], "both sides agree");
}

#[test]
fn patience_that_ends_before_the_ring_ends_the_call() {
    let mut world = World::pair(14);
    world.phones[1].habit = Habit::Nothing;
    let mut options = world.options(0);
    options.ring_timeout = Some(ms(2_000));
    world.dial_with(0, "bob", options);
    world.run(ms(2_500));
    assert_eq!(world.causes(0), [Cause::PeerNoAlert], "{}", world.story(0));
}

#[test]
fn nobody_there() {
    let mut world = World::pair(5);
    world.dial(0, "nobody");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::LookupNoUser]);

    let mut world = World::pair(6);
    world.unreachable = true;
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::LookupOverlayUnreachable]);

    // A record without live entries, read twice: the second time past the cache.
    let mut world = World::pair(7);
    world.entries.remove(&world.phones[1].keys.node());
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!((world.causes(0), world.lookups), (vec![Cause::PeerOffline], 2));

    // Attached nowhere any more: both ways come back.
    let mut world = World::pair(8);
    world.set_homes(1, &[]);
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::PeerOffline], "{}", world.story(0));
    assert!(world.states(1).is_empty());

    // Attached, and dead: nothing ever comes back.
    let mut world = World::pair(9);
    world.liar = Some(Box::new(|all, _| all.clear()));
    world.dial(0, "bob");
    world.run(ms(5_000));
    assert_eq!(world.causes(0), [Cause::PeerOffline], "{}", world.story(0));
}

#[test]
fn no_alert_without_a_ring_that_is_shown() {
    let mut world = World::pair(10);
    world.phones[1].habit = Habit::Nothing;
    world.dial(0, "bob");
    world.run(ms(12_000));
    assert_eq!(world.states(0), ["resolving", "contacting", "ended"], "{}", world.story(0));
    assert_eq!(world.causes(0), [Cause::PeerNoAlert]);
    assert_eq!(world.states(1), ["contacting", "ended"]);
}

#[test]
fn a_caller_may_give_up_at_any_moment() {
    for after in [0, 1, 3, 5, 7, 9, 100, 203, 205, 206, 207, 208, 209, 210, 212, 300] {
        let mut world = World::pair(11);
        let call = world.dial(0, "bob");
        world.run(ms(after));
        world.hangup(0, call);
        world.run(ms(2_000));
        assert_eq!(world.causes(0), [Cause::LocalHangup], "after {after} ms");
        let theirs = world.causes(1);
        assert!(
            theirs == [Cause::RemoteHangup] || theirs.is_empty() && after < 9,
            "after {after} ms: {theirs:?}"
        );
        let sound = world.phones[1].sound.lock().unwrap().captured;
        world.run(ms(1_000));
        assert_eq!(world.phones[1].sound.lock().unwrap().captured, sound, "a microphone stayed open");
        world.run(ms(60_000));
        assert_eq!(world.phones[1].calls.counters()["calls_kept"], 0);
    }
}

#[test]
fn the_microphone_opens_only_when_both_know() {
    let mut world = World::pair(12);
    world.phones[1].habit = Habit::Ring;
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.phones[0].sound.lock().unwrap().captured, 0);
    assert_eq!(world.phones[1].sound.lock().unwrap().captured, 0);
}

#[test]
fn the_time_set_for_a_call_ends_it() {
    let mut world = World::pair(13);
    let mut options = world.options(0);
    options.max = Some(ms(2_000));
    world.dial_with(0, "bob", options);
    world.run(ms(4_000));
    assert_eq!(world.causes(0), [Cause::LocalHangup]);
    assert_eq!(world.causes(1), [Cause::RemoteHangup]);
    let length = world.when(0, "ended") - world.when(0, "answered");
    assert_eq!(length, ms(2_000));
}

#[test]
fn echo_answers_under_its_own_credential() {
    let mut world = World::pair(14);
    let call = world.dial(0, "echo");
    world.run(ms(3_000));
    assert_eq!(
        world.states(0),
        ["resolving", "contacting", "alerted", "answered", "media"],
        "{}",
        world.story(0)
    );
    assert!(world.phones[0].sound.lock().unwrap().heard > 100);
    assert_eq!(world.lookups, 0);
    world.hangup(0, call);
    world.run(ms(60_000));
    assert_eq!(world.causes(0), [Cause::LocalHangup], "{}", world.story(0));
    assert_eq!(world.supers[&1].echo.counters()["calls_kept"], 0);
    assert_eq!(world.supers[&1].relay.sessions(), 0);
    // The first home is dead: the other one answers.
    world.supers.get_mut(&1).unwrap().alive = false;
    world.phones[0].events.clear();
    world.dial(0, "echo");
    world.run(ms(4_000));
    assert!(world.states(0).contains(&"media"), "{}", world.story(0));
}

#[test]
fn a_call_ends_when_the_peer_only_tells_it_by_media() {
    let mut world = World::pair(15);
    let call = world.dial(0, "bob");
    world.run(ms(1_500));
    world.liar = Some(Box::new(|all, _| all.clear()));
    world.hangup(0, call);
    world.run(ms(500));
    assert_eq!(world.causes(1), [Cause::RemoteHangup], "{}", world.story(1));
}

#[test]
fn revoked_cannot_call() {
    let mut world = World::pair(16);
    world.realm = super::realm::realm(3, &[world.phones[0].keys.node()]);
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::SigninExpired]);
}

#[test]
fn revoked_while_dialling_is_told_apart_from_a_dead_network() {
    let mut world = World::pair(17);
    world.dial(0, "bob");
    let now = world.now();
    world.phones[0].calls.signed_out(now);
    world.run(ms(10_000));
    assert_eq!(world.causes(0), [Cause::SigninExpired], "{}", world.story(0));
    assert!(!world.states(1).contains(&"answered"), "{}", world.story(1));
}
