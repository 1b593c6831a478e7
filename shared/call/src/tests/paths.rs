//! What carries the sound, and what is said when nothing does.

use super::world::{World, ms};
use crate::cause::Cause;
use yodel_relay::server::ServerConfig;

fn no_relay(world: &mut World) {
    for home in world.supers.values_mut() {
        home.relay.set_config(ServerConfig { sessions_max: 0, ..ServerConfig::default() });
    }
}

#[test]
fn the_relay_carries_what_cannot_go_directly() {
    let mut world = World::pair(1);
    world.direct = false;
    let call = world.dial(0, "bob");
    world.run(ms(3_000));
    assert_eq!(world.paths(0), ["relay-udp"], "{}\n{}", world.story(0), world.story(1));
    assert!(world.states(0).contains(&"media") && world.states(1).contains(&"media"));
    world.hangup(0, call);
    world.run(ms(2_000));
    assert!(world.supers.values().all(|home| home.relay.sessions() == 0), "sessions are closed");
}

#[test]
fn relay_only_tells_and_uses_no_address() {
    let mut world = World::pair(2);
    let mut options = world.options(0);
    options.relay_only = true;
    world.dial_with(0, "bob", options);
    world.run(ms(3_000));
    assert_eq!(world.paths(0), ["relay-udp"], "{}", world.story(0));
    let (alice, bob) = (world.phones[0].addr, world.phones[1].addr);
    assert!(!world.phones[0].sent_to.contains_key(&bob));
    assert!(!world.phones[1].sent_to.contains_key(&alice));
}

#[test]
fn nothing_carries_anything() {
    let mut world = World::pair(3);
    world.direct = false;
    no_relay(&mut world);
    world.dial(0, "bob");
    world.run(ms(20_000));
    assert_eq!(world.causes(0), [Cause::PathAllFailed], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::PathAllFailed], "{}", world.story(1));
    assert_eq!(world.causes(0)[0].exit_code() as u8, 8);

    let mut world = World::pair(4);
    no_relay(&mut world);
    let mut options = world.options(0);
    options.relay_only = true;
    world.dial_with(0, "bob", options);
    world.run(ms(20_000));
    assert_eq!(world.causes(0), [Cause::PathRelayRefused], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::PathRelayRefused], "{}", world.story(1));
}

#[test]
fn one_way_sound_is_named_on_both_sides() {
    let mut world = World::pair(5);
    world.mute_media_from = Some(0);
    let call = world.dial(0, "bob");
    world.run(ms(6_000));
    world.hangup(0, call);
    world.run(ms(500));
    assert_eq!(world.causes(0), [Cause::MediaOneWayOut], "{}", world.story(0));
    assert_eq!(world.causes(1), [Cause::MediaOneWayIn], "{}", world.story(1));
}

#[test]
fn the_other_relay_takes_over_when_a_supernode_dies() {
    let mut world = World::pair(6);
    world.direct = false;
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.paths(0), ["relay-udp"]);
    let heard = world.phones[1].sound.lock().unwrap().heard;
    world.supers.get_mut(&1).unwrap().alive = false;
    world.later(ms(1_500), |world| world.set_homes(0, &[2]));
    world.run(ms(14_000));
    let now = world.phones[1].sound.lock().unwrap().heard;
    assert!(world.causes(0).is_empty(), "{}", world.story(0));
    assert!(now > heard + 100, "{} {}\n{}", heard, now, world.story(0));
}

#[test]
fn a_call_that_falls_silent_says_so_on_both_sides() {
    for (from, caller, callee) in
        [(0, Cause::MediaOneWayOut, Cause::MediaOneWayIn), (1, Cause::MediaOneWayIn, Cause::MediaOneWayOut)]
    {
        let mut world = World::pair(7);
        let call = world.dial(0, "bob");
        world.run(ms(3_000));
        world.mute_media_from = Some(from);
        world.run(ms(4_000));
        world.hangup(0, call);
        world.run(ms(500));
        assert_eq!(world.causes(0), [caller], "{}", world.story(0));
        assert_eq!(world.causes(1), [callee], "{}", world.story(1));
    }
}

#[test]
fn a_device_that_lost_its_call_may_call_again_at_once() {
    let mut world = World::pair(8);
    world.dial(0, "bob");
    world.run(ms(2_000));
    // Its daemon is killed: the peer hears nothing more, and nobody says goodbye.
    world.restart(0);
    world.run(ms(600));
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.causes(1), [Cause::PathLost], "{}", world.story(1));
    assert!(world.causes(0).is_empty(), "{}", world.story(0));
}
