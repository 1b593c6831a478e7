//! Every kind of path that two homes can have, heard both ways; and what happens when the path in use is cut.

use std::net::IpAddr;
use std::time::Duration;

use yodel::command::{Cause, PathKind};
use yodel_tests::sim::checks::{heard_share, settled};
use yodel_tests::sim::nat::{Dependence, NatKind};
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where, pair};

const CALL: Duration = Duration::from_secs(10);
const PORT_RESTRICTED: Where = Where::Home(NatKind::PORT_RESTRICTED);
const SYMMETRIC: Where = Where::Home(NatKind::SYMMETRIC);
const UDP_BLOCKED: Where = Where::Home(NatKind::UDP_BLOCKED);

/// Calls, waits for media at both ends; tells the call.
fn talk(realm: &mut SimRealm, alice: PhoneIndex, bob: PhoneIndex) -> yodel::command::CallId {
    realm[bob].manners = Manners::Answer(Duration::from_secs(1));
    let callee = realm[bob].aor.clone();
    let call = realm.dial(alice, &callee);
    for phone in [alice, bob] {
        let there = realm.reaches(phone, call, "media", CALL);
        let why = realm.why(phone, call).steps.into_iter().map(|step| step.text).collect::<Vec<_>>();
        assert!(there, "{:?}: {why:#?}", realm[phone].states(call));
    }
    call
}

/// Both speak for five seconds; tells the last path at either end.
fn speak(seed: u64, one: Where, other: Where) -> [PathKind; 2] {
    let (mut realm, alice, bob) = pair(seed, one, other);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(Duration::from_secs(5));
    let paths = [alice, bob].map(|phone| *realm[phone].paths(call).last().unwrap());
    for (from, to) in [(alice, bob), (bob, alice)] {
        let share = heard_share(&realm, from, to);
        assert!(share >= 0.95, "{one:?} and {other:?}: heard {share}");
    }
    realm.hangup(alice, Some(call));
    assert_eq!(realm.cause(alice, call, CALL), Cause::LocalHangup);
    assert_eq!(realm.cause(bob, call, CALL), Cause::RemoteHangup);
    settled(&mut realm, &[alice, bob]).unwrap();
    paths
}

#[test]
fn two_cones_speak_directly() {
    assert_eq!(speak(1, PORT_RESTRICTED, PORT_RESTRICTED), [PathKind::Direct; 2]);
}

#[test]
fn a_public_host_speaks_directly_with_every_nat_that_lets_udp_out() {
    assert_eq!(speak(2, Where::Public, SYMMETRIC), [PathKind::Direct; 2]);
    assert_eq!(speak(3, PORT_RESTRICTED, Where::Public), [PathKind::Direct; 2]);
}

#[test]
fn two_symmetric_nats_speak_by_a_relay() {
    assert_eq!(speak(4, SYMMETRIC, SYMMETRIC), [PathKind::RelayUdp; 2]);
}

#[test]
fn a_symmetric_nat_and_a_port_restricted_one_speak_by_a_relay() {
    assert_eq!(speak(5, SYMMETRIC, PORT_RESTRICTED), [PathKind::RelayUdp; 2]);
}

#[test]
fn udp_blocked_on_one_side_or_both_is_a_relay_over_tcp() {
    assert_eq!(speak(6, PORT_RESTRICTED, UDP_BLOCKED), [PathKind::RelayTcp; 2]);
    assert_eq!(speak(7, UDP_BLOCKED, PORT_RESTRICTED), [PathKind::RelayTcp; 2]);
    assert_eq!(speak(8, UDP_BLOCKED, UDP_BLOCKED), [PathKind::RelayTcp; 2]);
}

#[test]
fn two_phones_in_one_home_speak_over_its_lan() {
    let mut realm = SimRealm::new(9, 3);
    let alice = realm.phone("alice", SYMMETRIC);
    let bob = realm.phone("bob", Where::With(alice));
    realm.all_online();
    realm.befriend(alice, bob);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(Duration::from_secs(3));
    for phone in [alice, bob] {
        assert_eq!(realm[phone].paths(call).last(), Some(&PathKind::DirectLan));
    }
    assert!(heard_share(&realm, alice, bob) > 0.95);
    assert!(heard_share(&realm, bob, alice) > 0.95);
}

#[test]
fn two_homes_with_the_same_inner_addresses_are_not_taken_for_one() {
    // Both phones are 10.0.x.2:5000 in homes of their own; here even x is the same.
    let mut realm = SimRealm::new(10, 3);
    let alice = realm.phone("alice", PORT_RESTRICTED);
    let bob = realm.twin("bob", PORT_RESTRICTED, alice);
    realm.all_online();
    realm.befriend(alice, bob);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(Duration::from_secs(3));
    assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
    assert!(heard_share(&realm, alice, bob) > 0.95);
}

/// Frames that this phone played without having received them, so far.
fn missing(realm: &SimRealm, phone: PhoneIndex) -> u64 {
    realm[phone].ears.last().unwrap().sound().missing
}

fn public(n: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(30, 0, n, 7))
}

#[test]
fn the_direct_path_is_cut_and_the_relay_carries_the_sound() {
    let (mut realm, alice, bob) = pair(11, PORT_RESTRICTED, PORT_RESTRICTED);
    let call = talk(&mut realm, alice, bob);
    realm.run_for(Duration::from_secs(5));
    assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
    let before = [alice, bob].map(|phone| missing(&realm, phone));
    realm.world.cut.push((public(1), public(2)));
    realm.run_for(Duration::from_secs(5));
    for (phone, before) in [(alice, before[0]), (bob, before[1])] {
        assert_eq!(realm[phone].paths(call).last(), Some(&PathKind::RelayUdp));
        let gap = missing(&realm, phone) - before;
        assert!(gap <= 50, "{gap} frames were not heard");
    }
    // The cut heals: the better path is found again.
    realm.world.cut.clear();
    realm.run_for(Duration::from_secs(60));
    assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
    realm.hangup(bob, Some(call));
    assert_eq!(realm.cause(alice, call, CALL), Cause::RemoteHangup);
}

/// What two kinds of homes can have at best (RFC 4787, RFC 5128 §3.3): whose mapping depends on the endpoint shows a
/// port that the other did not open its filter for, unless that filter looks at addresses alone.
fn best(one: Where, other: Where) -> PathKind {
    use Dependence::{AddressAndPortDependent, EndpointIndependent};
    let (Where::Home(one), Where::Home(other)) = (one, other) else {
        let blocked = |place: Where| matches!(place, Where::Home(kind) if kind.blocks_udp);
        return if blocked(one) || blocked(other) { PathKind::RelayTcp } else { PathKind::Direct };
    };
    let shut = |a: NatKind, b: NatKind| {
        a.mapping != EndpointIndependent
            && (b.mapping != EndpointIndependent || b.filtering == AddressAndPortDependent)
    };
    if one.blocks_udp || other.blocks_udp {
        PathKind::RelayTcp
    } else if shut(one, other) || shut(other, one) {
        PathKind::RelayUdp
    } else {
        PathKind::Direct
    }
}

#[test]
fn every_pair_of_homes_has_the_best_path_it_can_have() {
    let filtering = |filtering| Where::Home(NatKind { filtering, ..NatKind::PORT_RESTRICTED });
    let homes = [
        Where::Public,
        filtering(Dependence::EndpointIndependent),
        filtering(Dependence::AddressDependent),
        PORT_RESTRICTED,
        SYMMETRIC,
        UDP_BLOCKED,
    ];
    for (row, one) in homes.into_iter().enumerate() {
        for (column, other) in homes.into_iter().enumerate() {
            let seed = 100 + 10 * row as u64 + column as u64;
            assert_eq!(speak(seed, one, other), [best(one, other); 2], "{one:?} calls {other:?}");
        }
    }
}
