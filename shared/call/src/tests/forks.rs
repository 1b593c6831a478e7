//! Several devices, and both calling at once.

use std::net::SocketAddr;

use super::world::{Habit, World, ms};
use crate::cause::Cause;

/// The simulator runs a thousand; these find what is plainly wrong.
const SEEDS: u64 = 8;

fn family(seed: u64) -> World {
    let mut world = World::pair(seed);
    world.add("bob", 2, 3, &[3, 1]);
    let contacts = world.phones[1].contacts.clone();
    world.phones[2].contacts = contacts.clone();
    world.phones[2].calls.set_contacts(contacts);
    world
}

fn microphones(world: &mut World) -> Vec<bool> {
    let captured = |world: &World| -> Vec<u32> {
        world.phones.iter().map(|phone| phone.sound.lock().unwrap().captured).collect()
    };
    let before = captured(world);
    world.run(ms(500));
    captured(world).iter().zip(before).map(|(now, before)| *now > before).collect()
}

#[test]
fn all_devices_ring_and_one_answers() {
    let mut world = family(1);
    world.phones[2].habit = Habit::Ring;
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert!(world.states(1).contains(&"media"));
    assert_eq!(world.causes(2), [Cause::PeerAnsweredElsewhere], "{}", world.story(2));
    let detail = world.phones[2].events.iter().find_map(|(_, event)| match &event.state {
        crate::event::State::Ended(ended) => Some(ended.detail.clone()),
        _ => None,
    });
    assert_eq!(detail, Some(format!("answered by {}", world.phones[1].keys.node())));
    assert_eq!(microphones(&mut world), [true, true, false]);
}

#[test]
fn decline_ends_all_and_busy_only_its_own() {
    let mut world = family(2);
    world.phones[1].habit = Habit::Decline(ms(100));
    world.phones[2].habit = Habit::Ring;
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.causes(0), [Cause::PeerDeclined]);
    assert_eq!(world.causes(1), [Cause::PeerDeclined]);
    assert_eq!(world.causes(2), [Cause::PeerDeclined], "ended with the others");

    let mut world = family(3);
    world.add("carol", 3, 4, &[1, 2]);
    world.befriend(3, 1);
    world.dial(1, "carol");
    world.run(ms(1_000));
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert!(world.states(0).contains(&"media"), "{}", world.story(0));
    assert!(world.states(2).contains(&"media"));
    assert!(world.causes(1).contains(&Cause::PeerBusy));
}

#[test]
fn two_devices_answer_in_the_same_millisecond() {
    for seed in 0..SEEDS {
        let mut world = family(100 + seed);
        world.jitter = true;
        world.phones[2].habit = Habit::Answer(ms(200));
        world.dial(0, "bob");
        world.run(ms(3_000));
        let winners = [1, 2].map(|phone| world.causes(phone).is_empty());
        assert_ne!(winners[0], winners[1], "seed {seed}\n{}\n{}", world.story(1), world.story(2));
        let loser = if winners[0] { 2 } else { 1 };
        assert_eq!(world.causes(loser), [Cause::PeerAnsweredElsewhere], "seed {seed}");
        assert!(!world.states(loser).contains(&"answered"), "seed {seed}");
        assert_eq!(microphones(&mut world), [true, winners[0], winners[1]], "seed {seed}");
    }
}

#[test]
fn cancel_crosses_an_answer() {
    for seed in 0..SEEDS {
        let mut world = World::pair(200 + seed);
        world.jitter = true;
        let call = world.dial(0, "bob");
        world.later(ms(198 + seed % 16), move |world| world.hangup(0, call));
        world.run(ms(3_000));
        assert_eq!(world.causes(0), [Cause::LocalHangup], "seed {seed}");
        assert_eq!(world.causes(1), [Cause::RemoteHangup], "seed {seed}\n{}", world.story(1));
        assert_eq!(microphones(&mut world), [false, false], "seed {seed}");
    }
}

#[test]
fn both_call_each_other_at_once() {
    let mut one = 0;
    for seed in 0..SEEDS {
        let mut world = World::pair(300 + seed);
        world.jitter = true;
        world.phones[0].habit = Habit::Ring;
        world.phones[1].habit = Habit::Ring;
        world.dial(0, "bob");
        world.later(ms(seed % 12), |world| {
            world.dial(1, "alice");
        });
        world.run(ms(3_000));
        let lists = [0, 1].map(|phone| world.phones[phone].calls.list().len());
        let story = || format!("seed {seed}\n{}\n--\n{}", world.story(0), world.story(1));
        assert_eq!(lists[0], lists[1], "{}", story());
        assert_eq!(lists[0], 1, "{}", story());
        let states = [0, 1].map(|phone| world.phones[phone].calls.list()[0].state);
        assert_eq!(states, ["media", "media"], "{}", story());
        one += 1;
        let open = microphones(&mut world);
        assert_eq!(open, [true, true], "seed {seed}");
        let call = world.phones[0].calls.list()[0].call;
        world.hangup(0, call);
        world.run(ms(500));
        assert!(world.phones[1].calls.list().is_empty(), "seed {seed}");
        assert_eq!(microphones(&mut world), [false, false], "seed {seed}");
    }
    assert_eq!(one, SEEDS);
}

#[test]
fn two_attempts_that_meet_knock_on_a_strangers_door_five_times_in_all() {
    let stranger = SocketAddr::from(([203, 0, 113, 77], 9));
    let mut worst = 0;
    for seed in 0..48 {
        let mut world = family(900 + seed);
        world.jitter = true;
        for phone in &mut world.phones {
            phone.habit = Habit::Ring;
        }
        let now = world.now();
        for bob in world.phones.iter_mut().skip(1) {
            bob.calls.set_local_addrs(now, vec![bob.addr, stranger], vec![]);
        }
        // One of Bob's devices rings and tells its addresses while the other, which knows nothing of it, dials.
        world.dial(0, "bob");
        world.later(ms(seed % 16), |world| {
            world.dial(2, "alice");
        });
        world.run(ms(3_000));
        worst = worst.max(world.phones[0].sent_to.get(&stranger).copied().unwrap_or(0));
    }
    assert_eq!(worst, 5);
}
