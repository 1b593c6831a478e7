//! A realm of three supernodes and twenty phones, with the very machines the programs run.

use std::time::Duration;

use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{PhoneIndex, SimRealm, Where};

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
fn a_seed_reproduces_twenty_phones_bit_for_bit() {
    let run = |seed| {
        let (mut realm, _) = twenty(seed);
        realm.run_for(Duration::from_secs(2));
        realm.world.digest()
    };
    let digest = run(7);
    assert_eq!(digest, run(7));
    assert_ne!(digest, run(8));
}
