//! A realm of three supernodes and twenty phones, with the very machines the programs run.

use std::time::Duration;

use yodel::command::{Cause, PathKind};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where};

const CALL: Duration = Duration::from_secs(10);

/// Twenty phones behind NATs of all kinds.
fn twenty(seed: u64) -> (SimRealm, Vec<PhoneIndex>) {
    let mut realm = SimRealm::new(seed, 3);
    let kinds = [NatKind::PORT_RESTRICTED, NatKind::SYMMETRIC, NatKind::UDP_BLOCKED];
    let phones = (0..20).map(|n| realm.phone(&format!("user{n}"), Where::Home(kinds[n % 3]))).collect();
    realm.all_online();
    (realm, phones)
}

#[test]
fn twenty_phones_get_online_with_two_homes_each() {
    let (mut realm, phones) = twenty(1);
    realm.run_for(Duration::from_secs(3));
    for phone in phones {
        assert_eq!(realm.homes(phone).len(), 2);
    }
}

#[test]
fn a_seed_reproduces_twenty_phones_and_a_call_bit_for_bit() {
    let run = |seed| {
        let (mut realm, phones) = twenty(seed);
        let (alice, bob) = (phones[0], phones[3]);
        realm.befriend(alice, bob);
        realm[bob].manners = Manners::Answer(Duration::from_secs(1));
        let callee = realm[bob].aor.clone();
        let call = realm.dial(alice, &callee);
        assert!(realm.reaches(alice, call, "media", CALL), "{:?}", realm[alice].states(call));
        realm.run_for(Duration::from_secs(2));
        realm.hangup(alice, Some(call));
        assert_eq!(realm.cause(alice, call, CALL), Cause::LocalHangup);
        assert_eq!(realm.cause(bob, call, CALL), Cause::RemoteHangup);
        assert_eq!(realm[alice].paths(call).last(), Some(&PathKind::Direct));
        realm.world.digest()
    };
    let digest = run(7);
    assert_eq!(digest, run(7));
    assert_ne!(digest, run(8));
}
