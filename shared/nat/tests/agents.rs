//! Two agents against each other through NATs as RFC 4787 names them.

mod net;

use std::net::SocketAddr;

use net::{Nat, Net, RELAY};
use yodel_nat::stun::Check;
use yodel_nat::{
    Agent, AgentConfig, AgentOutput, Budget, Candidate, CandidateRefused, Credentials, PathKind, RelayKind,
    Role, Route,
};

/// A caller and a callee, each behind its own NAT, told of each other 80 ms apart.
fn call(caller: Nat, callee: Nat) -> Net {
    let mut net = Net::new();
    let (a, b) = (net.nat(caller), net.nat(callee));
    net.phone("192.168.1.10:5000", Some(a));
    net.phone("192.168.1.10:5000", Some(b));
    net
}

fn signal(net: &mut Net) {
    net.tell(0, 1);
    net.run_for(80);
    net.tell(1, 0);
}

fn kinds(net: &Net) -> [Option<PathKind>; 2] {
    [net.phones[0].kind(), net.phones[1].kind()]
}

#[test]
fn public_hosts_go_direct() {
    let mut net = Net::new();
    net.phone("203.0.113.10:5000", None);
    net.phone("198.51.100.10:5000", None);
    signal(&mut net);
    net.run_for(200);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
    assert_eq!(net.phones[0].agent.rtt().unwrap().as_millis(), 20);
}

#[test]
fn two_phones_on_one_lan() {
    let mut net = Net::new();
    let nat = net.nat(Nat::port_restricted("203.0.113.7"));
    net.phone("192.168.1.10:5000", Some(nat));
    net.phone("192.168.1.11:5000", Some(nat));
    signal(&mut net);
    net.relay(RelayKind::Udp);
    net.run_for(500);
    assert_eq!(kinds(&net), [Some(PathKind::DirectLan); 2]);
}

#[test]
fn what_can_be_punched_is_and_the_rest_is_relayed() {
    use PathKind::{Direct, RelayUdp};
    let nats: [fn(&str) -> Nat; 4] =
        [Nat::full_cone, Nat::address_restricted, Nat::port_restricted, Nat::symmetric];
    // Rows: the caller's NAT; columns: the callee's. Only port-restricted and symmetric cannot meet symmetric.
    let table = [
        [Direct, Direct, Direct, Direct],
        [Direct, Direct, Direct, Direct],
        [Direct, Direct, Direct, RelayUdp],
        [Direct, Direct, RelayUdp, RelayUdp],
    ];
    for (row, caller) in nats.iter().enumerate() {
        for (column, callee) in nats.iter().enumerate() {
            let mut net = call(caller("203.0.113.7"), callee("198.51.100.7"));
            net.relay(RelayKind::Udp);
            signal(&mut net);
            net.talk();
            net.run_for(4_000);
            assert_eq!(kinds(&net), [Some(table[row][column]); 2], "{row} × {column}");
            assert!(net.phones.iter().all(|phone| phone.longest_gap(0) <= 40), "{row} × {column}");
        }
    }
}

#[test]
fn media_starts_on_the_relay_and_moves_without_a_gap() {
    let mut net = call(Nat::port_restricted("203.0.113.7"), Nat::port_restricted("198.51.100.7"));
    net.relay(RelayKind::Udp);
    // Signalling is slow; credentials alone come first, as before consent.
    for (from, to) in [(0, 1), (1, 0)] {
        let credentials = net.phones[from].agent.local_credentials().clone();
        let now = net.clock();
        net.phones[to].agent.set_remote_credentials(now, credentials);
        net.drain(to);
    }
    net.talk();
    net.run_for(1_000);
    assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2]);
    let told = net.millis();
    signal(&mut net);
    net.run_for(1_000);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
    for phone in &net.phones {
        let (at, change) = phone.paths.last().copied().unwrap();
        assert_eq!(change.kind, PathKind::Direct);
        assert!(at - told < 600, "direct {} ms after both were told", at - told);
        assert!(phone.longest_gap(told) <= 40, "a gap of {} ms", phone.longest_gap(told));
        assert_eq!(phone.paths.len(), 2, "{:?}", phone.paths);
    }
}

#[test]
fn late_signalling_still_punches() {
    // Three seconds after the caller's last check the callee begins: its own check opens the way.
    let mut net = call(Nat::port_restricted("203.0.113.7"), Nat::port_restricted("198.51.100.7"));
    net.tell(1, 0);
    net.run_for(5_000);
    net.tell(0, 1);
    net.run_for(500);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
}

#[test]
fn loss_does_not_keep_it_from_working() {
    for lose_every in 3..8 {
        let mut net = call(Nat::port_restricted("203.0.113.7"), Nat::port_restricted("198.51.100.7"));
        net.lose_every = lose_every;
        net.relay(RelayKind::Udp);
        signal(&mut net);
        net.talk();
        net.run_for(5_000);
        assert_eq!(kinds(&net), [Some(PathKind::Direct); 2], "every {lose_every}th lost");
    }
}

fn talking_direct() -> Net {
    let mut net = call(Nat::port_restricted("203.0.113.7"), Nat::port_restricted("198.51.100.7"));
    net.relay(RelayKind::Udp);
    signal(&mut net);
    net.talk();
    net.run_for(5_000);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
    net
}

#[test]
fn the_path_dies_and_the_other_carries_on() {
    let mut net = talking_direct();
    let cut = net.millis();
    net.direct_cut = [0, 1].into();
    net.run_for(2_000);
    assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2]);
    for phone in &net.phones {
        assert!(phone.longest_gap(cut - 100) < 400, "a gap of {} ms", phone.longest_gap(cut - 100));
    }
    // It comes back, and after a while so do they.
    net.direct_cut.clear();
    net.run_for(8_000);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
}

#[test]
fn a_path_that_carries_checks_and_no_sound_is_left() {
    let mut net = talking_direct();
    let now = net.clock();
    net.phones[0].agent.unheard(now);
    net.run_for(30_000);
    assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2]);
    // With nowhere to go it stays.
    let mut net = talking_direct();
    net.relay_cut = true;
    net.run_for(10_000);
    let now = net.clock();
    net.phones[0].agent.unheard(now);
    net.run_for(1_000);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
}

#[test]
fn one_direction_dies_and_both_move() {
    for cut in [0, 1] {
        let mut net = talking_direct();
        let at = net.millis();
        net.direct_cut = [cut].into();
        net.run_for(3_000);
        assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2], "from {cut}");
        for phone in &net.phones {
            assert!(phone.longest_gap(at - 100) < 600, "a gap of {} ms", phone.longest_gap(at - 100));
        }
    }
}

#[test]
fn the_relay_dies_unnoticed() {
    let mut net = talking_direct();
    let at = net.millis();
    net.relay_cut = true;
    net.run_for(5_000);
    let now = net.clock();
    for at in 0..2 {
        net.phones[at].agent.remove_relay(now, RELAY);
        net.drain(at);
    }
    net.run_for(3_000);
    assert_eq!(kinds(&net), [Some(PathKind::Direct); 2]);
    for phone in &net.phones {
        assert!(phone.longest_gap(at - 100) <= 40);
        assert_eq!(phone.paths.last().unwrap().1.kind, PathKind::Direct);
    }
}

#[test]
fn a_pause_in_the_sound_moves_nothing() {
    let mut net = talking_direct();
    let changes: Vec<usize> = net.phones.iter().map(|phone| phone.paths.len()).collect();
    net.phones[0].talking = false;
    net.run_for(60_000);
    net.phones[1].talking = false;
    net.run_for(60_000);
    net.phones[0].talking = true;
    net.run_for(10_000);
    for (phone, before) in net.phones.iter().zip(changes) {
        assert_eq!(phone.paths.len(), before);
        assert_eq!(phone.lost_at, None);
    }
}

#[test]
fn everything_dies_and_returns() {
    let mut net = talking_direct();
    let at = net.millis();
    net.direct_cut = [0, 1].into();
    net.relay_cut = true;
    net.run_for(20_000);
    for phone in &net.phones {
        let lost = phone.lost_at.unwrap() - at;
        assert!((14_900..15_200).contains(&lost), "lost after {lost} ms");
    }
    net.relay_cut = false;
    net.run_for(2_000);
    assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2]);
}

#[test]
fn no_path_fails_in_time() {
    let mut net = call(Nat::symmetric("203.0.113.7"), Nat::symmetric("198.51.100.7"));
    signal(&mut net);
    let now = net.clock();
    net.run_for(20_000);
    assert!(net.phones.iter().all(|phone| phone.failed_at.is_none()), "nobody wanted one yet");
    net.talk();
    net.run_for(7_900);
    assert!(net.phones.iter().all(|phone| phone.failed_at.is_none()));
    net.run_for(200);
    assert!(net.phones.iter().all(|phone| phone.failed_at.is_some()));
    assert!(now.mono < net.clock().mono);
    // A relay after all.
    net.relay(RelayKind::Tcp);
    net.run_for(500);
    assert_eq!(kinds(&net), [Some(PathKind::RelayTcp); 2]);
}

#[test]
fn the_relays_kind_is_told_when_it_changes() {
    let mut net = call(Nat::symmetric("203.0.113.7"), Nat::symmetric("198.51.100.7"));
    net.relay(RelayKind::Tcp);
    signal(&mut net);
    net.run_for(1_000);
    net.relay(RelayKind::Udp);
    net.run_for(1_000);
    for phone in &net.phones {
        let kinds: Vec<PathKind> = phone.paths.iter().map(|(_, change)| change.kind).collect();
        assert_eq!(kinds, [PathKind::RelayTcp, PathKind::RelayUdp]);
    }
}

#[test]
fn relay_only_never_touches_an_address() {
    let mut net = Net::new();
    net.phone_with("203.0.113.10:5000", None, AgentConfig { relay_only: true, ..AgentConfig::default() });
    net.phone("198.51.100.10:5000", None);
    net.relay(RelayKind::Udp);
    signal(&mut net);
    net.talk();
    net.run_for(5_000);
    assert_eq!(kinds(&net), [Some(PathKind::RelayUdp); 2]);
    assert!(net.phones[0].sent_to.is_empty());
}

#[test]
fn silent_addresses_get_five_checks_and_a_call_a_hundred() {
    let budget = Budget::new();
    let mut net = Net::new();
    let config = AgentConfig { budget: budget.clone(), ..AgentConfig::default() };
    net.phone_with("203.0.113.10:5000", None, config.clone());
    net.phone_with("203.0.113.11:5000", None, config);
    let now = net.clock();
    let peer = Agent::new(Role::Controlled, AgentConfig::default(), [9; 32]);
    for leg in 0..2 {
        net.phones[leg].agent.set_remote_credentials(now, peer.local_credentials().clone());
        for host in 0..40u8 {
            let victim = SocketAddr::from(([192, 0, 2, host], 53));
            net.phones[leg].agent.add_remote(now, Candidate::host(victim, 0)).unwrap();
        }
        net.drain(leg);
    }
    net.run_for(120_000);
    let mut sent = std::collections::BTreeMap::new();
    for phone in &net.phones {
        for (to, count) in &phone.sent_to {
            *sent.entry(*to).or_insert(0) += count;
        }
    }
    assert!(sent.len() <= 32, "{} addresses", sent.len());
    assert!(sent.values().all(|count| *count <= 5), "{sent:?}");
    assert_eq!(sent.values().sum::<u32>(), 100);
}

#[test]
fn consent_ends_what_does_not_answer() {
    let mut net = talking_direct();
    net.phones[0].talking = false;
    net.phones[1].talking = false;
    net.direct_cut = [1].into();
    net.run_for(40_000);
    let to = SocketAddr::from(([198, 51, 100, 7], 40_000));
    let before = net.phones[0].sent_to[&to];
    net.direct_cut = [0, 1].into();
    net.run_for(60_000);
    assert_eq!(net.phones[0].sent_to[&to], before, "RFC 7675: nothing after 30 s without an answer");
}

#[test]
fn foreign_and_garbled_messages_move_nothing() {
    let mut net = talking_direct();
    let paths: Vec<_> = net.phones.iter().map(|phone| phone.paths.clone()).collect();
    let attacker = Route::Direct("192.0.2.66:6666".parse().unwrap());
    let ours = net.phones[1].agent.local_credentials().clone();
    let theirs = net.phones[0].agent.local_credentials().clone();
    let name = format!("{}:{}", ours.ufrag(), theirs.ufrag());
    let check = |username: &str, controlling| Check {
        transaction: [0xff; 12],
        username: Box::leak(username.to_owned().into_boxed_str()),
        priority: u32::MAX,
        controlling,
        tie_breaker: 1,
        use_candidate: true,
    };
    let wrong = "a password nobody gave us";
    let mut forged = vec![
        check(&name, true).encode(wrong).unwrap(),
        check("somebody:else", true).encode(ours.password()).unwrap(),
        check(&format!("{}:stranger", ours.ufrag()), true).encode(ours.password()).unwrap(),
        check(&format!("{}:{}", theirs.ufrag(), ours.ufrag()), true).encode(ours.password()).unwrap(),
        yodel_nat::stun::check_answer([0xff; 12], "192.0.2.66:1".parse().unwrap(), ours.password()).unwrap(),
        yodel_nat::stun::binding_request([1; 12]).unwrap(),
        Vec::new(),
        vec![0; 20],
        vec![0xff; 200],
    ];
    let authentic = check(&name, true).encode(ours.password()).unwrap();
    for at in (0..authentic.len()).step_by(3) {
        let mut garbled = authentic.clone();
        garbled[at] ^= 0x10;
        forged.push(garbled);
        forged.push(authentic[..at].to_vec());
    }
    for bytes in &forged {
        assert!(!net.inject(1, attacker, bytes), "{} bytes", bytes.len());
    }
    // Our own role in the peer's mouth: authentic, but nobody's.
    net.inject(1, attacker, &check(&name, false).encode(ours.password()).unwrap());
    net.run_for(5_000);
    assert_eq!(net.phones.iter().map(|phone| phone.paths.clone()).collect::<Vec<_>>(), paths);
    assert!(!net.phones[1].sent_to.contains_key(&"192.0.2.66:6666".parse().unwrap()));
}

#[test]
fn an_answer_from_elsewhere_does_not_count() {
    let mut net = Net::new();
    let a = net.phone("203.0.113.10:5000", None);
    let peer = Agent::new(Role::Controlled, AgentConfig::default(), [9; 32]);
    let now = net.clock();
    net.phones[a].agent.set_remote_credentials(now, peer.local_credentials().clone());
    let named = "198.51.100.9:53".parse().unwrap();
    net.phones[a].agent.add_remote(now, Candidate::host(named, 0)).unwrap();
    let Some(AgentOutput::Send { bytes, .. }) = net.phones[a].agent.poll_output() else { panic!("a check") };
    let transaction = yodel_nat::stun::peek(&bytes).unwrap().transaction;
    let answer =
        yodel_nat::stun::check_answer(transaction, net.phones[a].addr, peer.local_credentials().password())
            .unwrap();
    net.inject(a, Route::Direct("198.51.100.10:53".parse().unwrap()), &answer);
    assert_eq!(net.phones[a].kind(), None);
    net.inject(a, Route::Direct(named), &answer);
    assert_eq!(net.phones[a].kind(), Some(PathKind::Direct));
}

#[test]
fn loopback_only_for_a_realm_on_one_machine() {
    let candidate = Candidate::host("127.0.0.1:5001".parse().unwrap(), 0);
    let mut net = Net::new();
    net.phone("127.0.0.1:5000", None);
    let config = AgentConfig { allow_loopback: true, ..AgentConfig::default() };
    net.phone_with("127.0.0.1:5000", None, config.clone());
    net.phone_with("203.0.113.4:5000", None, config);
    let now = net.clock();
    for at in 0..3 {
        let own = Candidate::host(net.phones[at].addr, 0);
        net.phones[at].agent.add_local(own);
    }
    assert_eq!(net.phones[0].agent.add_remote(now, candidate), Err(CandidateRefused::Loopback));
    assert_eq!(net.phones[1].agent.add_remote(now, candidate), Ok(()));
    assert_eq!(net.phones[2].agent.add_remote(now, candidate), Err(CandidateRefused::Loopback));
}

#[test]
fn two_phones_on_one_machine() {
    let mut net = Net::new();
    let config = || AgentConfig { allow_loopback: true, ..AgentConfig::default() };
    net.phone_with("127.0.0.1:5000", None, config());
    net.phone_with("127.0.0.1:5001", None, config());
    let now = net.clock();
    for at in 0..2 {
        let own = Candidate::host(net.phones[at].addr, 0);
        net.phones[at].agent.add_local(own);
        let _ = now;
    }
    signal(&mut net);
    net.run_for(300);
    assert_eq!(kinds(&net), [Some(PathKind::DirectLan); 2]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = talking_direct();
        net.direct_cut = [0].into();
        net.run_for(5_000);
        net.phones.iter().map(|phone| (phone.paths.clone(), phone.heard.clone())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn credentials_of_a_wrong_form_are_refused() {
    assert!(Credentials::new("abcd", "0123456789abcdefghijkl").is_some());
    assert!(Credentials::new("abc", "0123456789abcdefghijkl").is_none());
    assert!(Credentials::new("abcd", "0123456789abcdefghijk").is_none());
    assert!(Credentials::new("ab:d", "0123456789abcdefghijkl").is_none());
    assert!(Credentials::new(&"a".repeat(257), "0123456789abcdefghijkl").is_none());
}

/// Whatever happens meanwhile, once the network is whole again both ends are on the best path it allows.
#[test]
fn both_ends_converge_after_any_trouble() {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore, SeedableRng};
    for seed in 0..100u8 {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let mut below = |bound: u32| rng.next_u32() % bound;
        let punchable = below(2) == 0;
        let nat: fn(&str) -> Nat = if punchable { Nat::port_restricted } else { Nat::symmetric };
        let mut net = call(nat("203.0.113.7"), nat("198.51.100.7"));
        net.direct_delay = u64::from(1 + below(150));
        net.relay_delay = u64::from(1 + below(150));
        net.relay(RelayKind::Udp);
        signal(&mut net);
        net.talk();
        net.run_for(3_000);
        for _ in 0..20 {
            match below(7) {
                0 => net.direct_cut = [0, 1].into(),
                1 => net.direct_cut = [below(2) as usize].into(),
                2 | 3 => net.direct_cut.clear(),
                4 => net.relay_cut = !net.relay_cut,
                5 => net.lose_every = u64::from(below(10)),
                _ => {
                    let quiet = below(2) as usize;
                    net.phones[quiet].talking = !net.phones[quiet].talking;
                }
            }
            net.run_for(u64::from(below(1_500)));
        }
        net.direct_cut.clear();
        net.relay_cut = false;
        net.lose_every = 0;
        for phone in &mut net.phones {
            phone.talking = true;
        }
        net.run_for(8_000);
        let wanted = if punchable { PathKind::Direct } else { PathKind::RelayUdp };
        assert_eq!(kinds(&net), [Some(wanted); 2], "seed {seed}");
        let end = net.millis();
        net.run_for(1_000);
        assert!(net.phones.iter().all(|phone| phone.longest_gap(end) <= 40), "seed {seed}");
    }
}
