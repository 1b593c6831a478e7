//! Two ways to everybody: a home dies, records are old, devices start anew.

use yodel_identity::node::NodeId;

use super::world::{World, ms};
use crate::cause::Cause;
use crate::timeline::{Refusal, Step};

#[test]
fn a_dead_home_costs_less_than_a_second() {
    for dead in [1, 2, 3] {
        let mut world = World::pair(1);
        world.supers.get_mut(&dead).unwrap().alive = false;
        let began = world.now;
        world.dial(0, "bob");
        world.run(ms(3_000));
        let began = std::time::Duration::from_micros(began.as_micros());
        let took = world.when(0, "alerted") - began;
        assert!(took < ms(1_000), "home {dead}: {took:?}\n{}", world.story(0));
        assert!(world.states(0).contains(&"media"), "home {dead}\n{}", world.story(0));
        assert!(world.states(1).contains(&"media"), "home {dead}\n{}", world.story(1));
    }
}

#[test]
fn a_home_may_die_at_any_moment_of_a_call() {
    for dead in [1, 2, 3] {
        for after in [1, 3, 5, 7, 206, 208, 210, 212, 600] {
            let mut world = World::pair(2);
            let call = world.dial(0, "bob");
            world.run(ms(after));
            world.supers.get_mut(&dead).unwrap().alive = false;
            world.run(ms(3_000));
            let story = || format!("home {dead} after {after} ms\n{}\n{}", world.story(0), world.story(1));
            assert!(world.states(0).contains(&"media"), "{}", story());
            assert!(world.states(1).contains(&"media"), "{}", story());
            world.hangup(0, call);
            world.run(ms(1_500));
            assert_eq!(world.causes(0), [Cause::LocalHangup]);
            assert_eq!(world.causes(1), [Cause::RemoteHangup]);
        }
    }
}

#[test]
fn an_old_entry_is_read_again_past_the_cache() {
    // Bob moved from homes 2 and 3 to home 1; the first reading still says the old ones.
    let mut world = World::pair(3);
    let bob = world.phones[1].keys.clone();
    let old = bob.entry(1, vec![NodeId([2; 16]), NodeId([3; 16])]);
    let new = bob.entry(2, vec![NodeId([1; 16])]);
    world.set_homes(1, &[1]);
    world.stale = vec![vec![old]];
    world.entries.insert(bob.node(), new);
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.lookups, 2);
    assert!(world.states(0).contains(&"media"), "{}", world.story(0));
}

#[test]
fn a_device_that_started_anew_refuses_its_old_nonce() {
    let mut world = World::pair(4);
    let old = world.entries[&world.phones[1].keys.node()].clone();
    world.phones[1].keys.nonce = [0x99; 16];
    let bob = world.phones[1].keys.clone();
    world.entries.insert(bob.node(), bob.entry(2, vec![NodeId([2; 16]), NodeId([3; 16])]));
    let record = world.record(&bob.aor);
    world.phones[1].calls.set_identity(bob.identity(&record));
    world.stale = vec![vec![old]];
    world.dial(0, "bob");
    world.run(ms(2_000));
    assert_eq!(world.lookups, 2, "{}", world.story(0));
    assert!(world.states(0).contains(&"media"), "{}", world.story(0));
    assert!(world.phones[1].calls.stray().refused(Refusal::StaleNonce));
}

#[test]
fn an_older_entry_than_the_one_dialled_is_named_and_ignored() {
    let mut world = World::pair(5);
    let bob = world.phones[1].keys.clone();
    let old = bob.entry(1, vec![NodeId([1; 16])]);
    world.entries.insert(bob.node(), bob.entry(5, vec![NodeId([3; 16])]));
    world.set_homes(1, &[2]);
    world.later(ms(5), move |world| world.stale = vec![vec![old]]);
    let call = world.dial(0, "bob");
    world.run(ms(4_000));
    let timeline = world.phones[0].calls.timeline(call).unwrap();
    assert!(timeline.entries().iter().any(|entry| entry.step == Step::Refused(Refusal::OldEntry)));
    assert_eq!(world.causes(0), [Cause::PeerOffline], "{}", world.story(0));
}
