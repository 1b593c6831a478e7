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
