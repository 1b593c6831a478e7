//! Where phones attach in a whole realm: a supernode drains under them, or dies under many at once.

use std::time::Duration;

use yodel::command::{Cause, PathKind};
use yodel_supernode::node::{Command, Status, Supernode};
use yodel_tests::sim::checks::{heard_share, settled, stories};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, SimRealm, Where};
use yodel_wire::machine::Machine;

const SECOND: Duration = Duration::from_secs(1);
const SYMMETRIC: Where = Where::Home(NatKind::SYMMETRIC);

fn status(realm: &mut SimRealm, supernode: usize) -> Status {
    let node = realm.supernodes[supernode].node;
    realm.world.look::<Supernode, _>(node, |machine| machine.status())
}

fn command(realm: &mut SimRealm, supernode: usize, command: Command) {
    let node = realm.supernodes[supernode].node;
    realm.world.with::<Supernode, _>(node, |machine, now| machine.handle_command(now, command));
}

fn clients(realm: &mut SimRealm) -> Vec<usize> {
    (0..realm.supernodes.len()).map(|n| status(realm, n).clients).collect()
}

fn online(realm: &SimRealm) -> usize {
    realm.phones.iter().filter(|phone| phone.online).count()
}

#[test]
fn a_relay_drains_in_the_call_and_nobody_hears_it() {
    for seed in 0..4 {
        let mut realm = SimRealm::new(seed, 5);
        let [alice, bob] = ["alice", "bob"].map(|name| realm.phone(name, SYMMETRIC));
        for n in 0..18 {
            realm.phone(&format!("other{n}"), Where::Public);
        }
        realm.all_online();
        realm.befriend(alice, bob);
        realm[bob].manners = Manners::Answer(SECOND / 2);
        let callee = realm[bob].aor.clone();
        let call = realm.dial(alice, &callee);
        assert!(realm.reaches(alice, call, "media", 10 * SECOND));
        realm.run_for(3 * SECOND);
        let used = realm.why(alice, call).steps.iter().find_map(|step| {
            let (_, relay) = step.text.split_once("relay session asked for at ")?;
            realm.supernodes.iter().position(|supernode| supernode.id.to_string() == relay)
        });
        let relay = used.unwrap();
        assert!(status(&mut realm, relay).relays > 0);

        command(&mut realm, relay, Command::Drain { within: 60 * SECOND });
        let missing = [alice, bob].map(|phone| realm[phone].ears.last().unwrap().sound().missing);
        let mut most_at_once = 0;
        let mut before = status(&mut realm, relay).clients;
        for _ in 0..60 {
            realm.run_for(SECOND);
            let now = status(&mut realm, relay).clients;
            most_at_once = most_at_once.max(before.saturating_sub(now));
            before = now;
            assert_eq!(online(&realm), 20, "everybody has another home meanwhile");
        }
        realm.run_for(2 * SECOND);
        let story = stories(&mut realm, &[alice, bob]);
        let after = [alice, bob].map(|phone| realm[phone].ears.last().unwrap().sound().missing);
        assert_eq!(missing, after, "seed {seed}: a gap\n{story}");
        assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::RelayUdp), "{story}");
        let left = status(&mut realm, relay);
        assert_eq!((left.clients, left.relays, left.draining), (0, 0, true), "seed {seed}\n{story}");
        assert!(most_at_once <= 3, "one after the other: {most_at_once} in one second");
        let attached = clients(&mut realm).iter().sum::<usize>();
        assert!((40..=42).contains(&attached), "two homes each, and a relay: {attached}");

        assert!(heard_share(&realm, alice, bob) > 0.99);
        realm.hangup(alice, Some(call));
        assert_eq!(realm.cause(bob, call, SECOND), Cause::RemoteHangup);
        realm.run_for(SECOND);
        settled(&mut realm, &[alice, bob]).unwrap();

        // A start during the drain finds other homes; afterwards this one serves again.
        realm.kill_phone(alice);
        realm.restart_phone(alice);
        realm.all_online();
        assert!(!realm.homes(alice).contains(&relay));
        command(&mut realm, relay, Command::Undrain);
        for other in (0..5).filter(|other| *other != relay) {
            command(&mut realm, other, Command::Drain { within: SECOND });
        }
        realm.run_for(120 * SECOND);
        assert_eq!(status(&mut realm, relay).clients, 20, "the only one left");
        realm.all_online();
    }
}

#[test]
fn the_clients_of_dead_homes_spread_over_the_others() {
    let mut realm = SimRealm::new(1, 12);
    for n in 0..90 {
        realm.phone(&format!("user{n}"), Where::Public);
    }
    realm.all_online();
    let before = clients(&mut realm);
    assert!(
        before.iter().all(|count| (5..=28).contains(count)),
        "a hundred and eighty over twelve: {before:?}"
    );
    for victim in 0..6 {
        realm.kill_supernode(victim);
    }
    let began = realm.world.now().mono;
    let two_homes = |realm: &mut SimRealm| (6..12).map(|n| status(realm, n).clients).sum::<usize>() == 180;
    assert!(realm.run_until(25 * SECOND, two_homes), "{:?}", clients(&mut realm));
    println!("all have two homes again after {:?}", realm.world.now().mono.since(began));
    let after: Vec<usize> = (6..12).map(|n| status(&mut realm, n).clients).collect();
    assert!(after.iter().all(|count| (15..=48).contains(count)), "over six: {after:?}");
    realm.run_for(10 * SECOND);
    assert_eq!(online(&realm), 90);
}

/// The caller's homes have the entry of an earlier start in their caches: the call that fails by it reads past them.
#[test]
fn an_entry_in_a_cache_holds_up_a_call_and_does_not_lose_it() {
    let mut read_again = 0;
    for seed in 0..8 {
        let mut realm = SimRealm::new(seed, 16);
        let [alice, bob] = ["alice", "bob"].map(|name| realm.phone(name, Where::Public));
        realm.all_online();
        realm.befriend(alice, bob);
        realm[bob].manners = Manners::Answer(SECOND / 2);
        let callee = realm[bob].aor.clone();
        for _ in 0..3 {
            let call = realm.dial(alice, &callee);
            assert!(
                realm.reaches(alice, call, "media", 3 * SECOND),
                "{}",
                stories(&mut realm, &[alice, bob])
            );
            read_again += u32::from(realm.timeline_says(alice, call, "past every cache"));
            realm.hangup(alice, Some(call));
            realm.run_for(SECOND);
            for home in realm.homes(bob) {
                command(&mut realm, home, Command::Drain { within: Duration::ZERO });
            }
            realm.kill_phone(bob);
            realm.restart_phone(bob);
            realm.all_online();
            for home in 0..16 {
                command(&mut realm, home, Command::Undrain);
            }
        }
        settled(&mut realm, &[alice, bob]).unwrap();
    }
    assert!(read_again > 0, "no cache was ever in the way");
}

/// Forty supernodes, of which the bulletin names thirty-two; these all drain. Phones know the others by cards alone.
#[test]
fn who_is_not_in_the_bulletin_serves_as_home_and_relay() {
    for seed in 0..3 {
        let mut realm = SimRealm::new(seed, 40);
        realm.run_for(10 * SECOND);
        let [alice, bob] = ["alice", "bob"].map(|name| realm.phone(name, SYMMETRIC));
        realm.all_online();
        realm.befriend(alice, bob);
        for named in 8..40 {
            command(&mut realm, named, Command::Drain { within: 10 * SECOND });
        }
        let unnamed = |realm: &mut SimRealm| {
            [alice, bob].iter().all(|phone| {
                let homes = realm.homes(*phone);
                homes.len() == 2 && homes.iter().all(|home| *home < 8)
            })
        };
        assert!(realm.run_until(90 * SECOND, unnamed), "{:?}", [alice, bob].map(|phone| realm.homes(phone)));
        realm.all_online();

        realm[bob].manners = Manners::Answer(SECOND / 2);
        let callee = realm[bob].aor.clone();
        let call = realm.dial(alice, &callee);
        assert!(realm.reaches(alice, call, "media", 5 * SECOND), "{}", stories(&mut realm, &[alice, bob]));
        realm.run_for(3 * SECOND);
        let story = stories(&mut realm, &[alice, bob]);
        assert_eq!(realm[bob].paths(call).last(), Some(&PathKind::RelayUdp), "{story}");
        realm.hangup(alice, Some(call));
        realm.run_for(SECOND);
        settled(&mut realm, &[alice, bob]).unwrap();

        // A start with the bulletin of old and what was remembered.
        realm.kill_phone(bob);
        realm.restart_phone(bob);
        let began = realm.world.now().mono;
        realm.all_online();
        let took = realm.world.now().mono.since(began);
        println!("seed {seed}: online {took:?} after a start");
        assert!(took < 3 * SECOND, "{took:?}");
    }
}
