//! Who may ring, who learns an address, and how two accounts come to know each other.

use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;

use super::world::{Habit, World, ms};
use crate::cause::Cause;
use crate::contacts::{ContactMessage, Tag, Word};

fn strangers(seed: u64) -> World {
    let mut world = World::new(seed);
    world.add("alice", 1, 1, &[1, 2]);
    world.add("bob", 2, 2, &[2, 3]);
    world
}

fn met(world: &World) -> bool {
    let (alice, bob) = (world.phones[0].addr, world.phones[1].addr);
    world.phones[0].sent_to.contains_key(&bob) || world.phones[1].sent_to.contains_key(&alice)
}

#[test]
fn a_strangers_call_does_not_ring_and_learns_no_address() {
    let mut world = strangers(1);
    world.dial(0, "bob");
    world.run(ms(3_000));
    assert_eq!(world.causes(0), [Cause::PolicyUnknownCaller], "{}", world.story(0));
    assert_eq!(world.causes(0)[0].exit_code() as u8, 11);
    assert_eq!(world.states(1), ["ended"], "nothing rings");
    assert_eq!(world.causes(1), [Cause::PolicyUnknownCaller]);
    let asked: Vec<&Word> = world.phones[1].incoming.iter().map(|incoming| &incoming.what).collect();
    assert_eq!(asked, [&Word::Called]);
    assert_eq!(world.phones[1].incoming[0].root, world.root_of(0));
    assert!(!met(&world));
    assert!(world.phones[1].sent_to.is_empty(), "not even a relay");
}

#[test]
fn the_blocked_see_a_strangers_answer() {
    let mut world = World::pair(2);
    world.change_contact(1, |contact| contact.blocked = true);
    world.dial(0, "bob");
    world.run(ms(3_000));
    assert_eq!(world.causes(0), [Cause::PolicyUnknownCaller]);
    assert_eq!(world.causes(1), [Cause::PolicyBlocked]);
    assert!(world.phones[1].incoming.is_empty());
    assert!(!met(&world));
}

#[test]
fn no_address_before_the_answer_unless_both_accepted() {
    for (alice_holds, bob_holds) in [(false, false), (true, false), (false, true)] {
        let mut world = strangers(3);
        world.accept(0, 1, alice_holds);
        world.accept(1, 0, bob_holds);
        world.phones[1].habit = Habit::Answer(ms(2_000));
        world.dial(0, "bob");
        world.run(ms(1_900));
        assert!(world.states(0).contains(&"alerted"), "{}", world.story(0));
        let silent = !met(&world);
        assert!(silent, "{alice_holds} {bob_holds}: an address was used before the answer");
        world.run(ms(2_000));
        assert_eq!(world.paths(0).last(), Some(&"direct"), "{}", world.story(0));
    }
    let mut world = World::pair(4);
    world.phones[1].habit = Habit::Ring;
    world.dial(0, "bob");
    world.run(ms(500));
    assert!(met(&world), "between contacts the path is ready before the answer");
}

#[test]
fn another_key_than_the_pinned_one() {
    let mut world = World::pair(5);
    world.change_contact(0, |contact| contact.root = Some(PublicKey([5; 32])));
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::TrustKeyChanged]);
    assert!(world.states(1).is_empty());

    let mut world = World::pair(6);
    world.change_contact(1, |contact| contact.root = Some(PublicKey([5; 32])));
    world.dial(0, "bob");
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::PolicyUnknownCaller]);
    assert_eq!(world.causes(1), [Cause::TrustKeyChanged]);
}

#[test]
fn requests_and_tags_travel_as_messages() {
    let mut world = strangers(7);
    let bob = Aor::parse("bob@example.net").unwrap();
    let send = |world: &mut World, message: &ContactMessage| {
        let now = world.now();
        let id = world.phones[0].calls.send_message(now, &world.realm, bob.clone(), message);
        world.run(ms(12_000));
        let done = world.phones[0].done.iter().find(|(done, _)| *done == id);
        done.unwrap_or_else(|| panic!("never told")).1
    };
    let request = ContactMessage::Request { tag: Tag([3; 16]), note: "hello".into() };
    assert_eq!(send(&mut world, &request), Ok(()));
    assert_eq!(world.phones[1].incoming.len(), 1);
    assert_eq!(world.phones[1].incoming[0].what, Word::Message(request.clone()));
    assert_eq!(world.phones[1].incoming[0].from.to_string(), "alice@example.net");

    // A stranger may ask, and no more.
    let text = ContactMessage::Text("psst".into());
    assert_eq!(send(&mut world, &text), Err(Cause::PolicyUnknownCaller));
    world.accept(1, 0, true);
    assert_eq!(send(&mut world, &text), Ok(()));
    assert_eq!(world.phones[1].incoming.len(), 2);

    // Not lost with one home, and not delivered twice.
    world.supers.get_mut(&2).unwrap().alive = false;
    assert_eq!(send(&mut world, &text), Ok(()));
    assert_eq!(world.phones[1].incoming.len(), 3);

    world.set_homes(1, &[]);
    assert_eq!(send(&mut world, &text), Err(Cause::PeerOffline));
}

#[test]
fn a_call_brings_the_tag_that_a_message_could_not() {
    let mut world = strangers(8);
    world.accept(0, 1, false);
    world.accept(1, 0, false);
    world.dial(0, "bob");
    world.run(ms(1_000));
    let given =
        |phone: usize| world.phones[phone].incoming.iter().map(|incoming| &incoming.what).collect::<Vec<_>>();
    assert_eq!(given(1), [&Word::TagGiven(Tag([1; 16]))]);
    assert!(given(0).contains(&&Word::TagGiven(Tag([16; 16]))), "{:?}", given(0));
}
