//! One phone's homes among supernodes that are near or far, full, dead or unknown.

mod net;

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_overlay::card::Service;
use yodel_wire::frame::FrameKind;

use self::net::{Net, node};
use super::*;
use crate::limits::{HOSTS_MAX, PROBE_DECIDE};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Supernodes 1, 2, … at these distances, each with an owner of its own, all in the bulletin.
fn net(millis: &[u64]) -> Net {
    let mut net = unknown_net(millis);
    net.bulletin();
    net
}

/// The same, before any bulletin.
fn unknown_net(millis: &[u64]) -> Net {
    let mut net = Net::new(7);
    for (n, millis) in (1..).zip(millis) {
        net.add(n, Duration::from_millis(*millis));
    }
    net
}

#[test]
fn the_nearest_two_of_different_owners_are_homes_and_the_next_is_known() {
    let mut net = net(&[150, 10, 25, 60, 90, 130, 140, 200]);
    net.own(3, 2);
    net.run(2 * SECOND);
    assert_eq!(net.warm(), [node(2), node(4)]);
    assert_eq!(net.homes.cold().unwrap().0, node(5), "the next one of a third owner");
    assert_eq!(net.stun_asked.values().sum::<usize>(), 8, "eight datagrams, none twice");
    assert!(net.took(node(2)) < Duration::from_millis(60), "{:?}", net.took(node(2)));
}

#[test]
fn those_as_near_as_each_other_are_taken_by_draw_and_eight_are_asked_of_many() {
    let mut first = BTreeMap::new();
    let mut cold = BTreeMap::new();
    for seed in 0..200 {
        let mut net = Net::new(seed);
        for n in 1..=20 {
            net.add(n, Duration::from_millis(20 + u64::from(n % 3)));
        }
        net.bulletin();
        net.run(2 * SECOND);
        assert_eq!((net.warm().len(), net.stun_asked.len()), (2, 8));
        *first.entry(net.warm()[0]).or_insert(0) += 1;
        *cold.entry(net.homes.cold().unwrap().0).or_insert(0) += 1;
    }
    for choice in [first, cold] {
        let (most, who) = (choice.values().max().unwrap(), choice.len());
        assert!(who >= 18 && *most <= 25, "two hundred phones over twenty: {choice:?}");
    }
}

#[test]
fn of_those_as_near_the_ones_that_not_everybody_is_told_of_come_first() {
    for seed in 0..20 {
        let mut net = Net::new(seed);
        for n in 1..=8 {
            net.add(n, 20 * MILLI);
        }
        net.bulletin();
        for n in [3, 5, 7] {
            net.remember(n);
        }
        net.run(2 * SECOND);
        assert!(net.warm().iter().all(|home| [3, 5, 7].map(node).contains(home)), "{:?}", net.warm());
    }
}

#[test]
fn the_cold_one_replaces_a_dead_home_at_once() {
    let mut net = net(&[10, 60, 90, 120, 150]);
    net.run(2 * SECOND);
    net.get(1).is_dead = true;
    net.homes.set_active(net.now, true);
    net.run(4 * SECOND);
    let (down, up) = (net.down_at(node(1)), net.up_at(node(3)));
    assert_eq!(net.warm(), [node(2), node(3)]);
    assert!(up.since(down) <= 4 * 90 * MILLI, "a handshake and a hello: {:?}", up.since(down));
}

#[test]
fn a_cold_one_that_died_as_well_is_not_waited_for() {
    let mut net = net(&[10, 60, 90, 120, 150]);
    net.run(10 * SECOND);
    for dead in [1, 3, 4] {
        net.get(dead).is_dead = true;
    }
    net.homes.set_active(net.now, true);
    net.run(6 * SECOND);
    let waited = net.up_at(node(5)).since(net.down_at(node(1)));
    assert_eq!(net.warm(), [node(2), node(5)]);
    assert!(waited <= PROBE_DECIDE + 4 * 150 * MILLI, "probes, and one attempt: {waited:?}");
}

#[test]
fn whom_to_turn_to_is_asked_anew_when_a_home_dies() {
    let mut net = net(&[10, 60, 90, 120, 150]);
    net.run(MINUTE);
    for dead in [1, 3, 4] {
        net.get(dead).is_dead = true;
    }
    net.opened.clear();
    net.homes.set_active(net.now, true);
    net.run(6 * SECOND);
    assert_eq!(net.warm(), [node(2), node(5)]);
    assert!(net.opened.iter().all(|(_, to, _)| *to == 5), "nobody who died is tried: {:?}", net.opened);
}

#[test]
fn a_home_is_left_for_a_much_nearer_one_only_and_never_in_a_call() {
    let mut net = net(&[100, 110, 120]);
    net.run(2 * SECOND);
    assert_eq!(net.warm().len(), 2);
    let settled = net.warm();
    net.get(3).rtt = 75 * MILLI;
    net.run(30 * MINUTE);
    assert_eq!(net.warm(), settled, "a few milliseconds are no reason");
    let near = (1..=3).map(node).find(|node| !settled.contains(node)).unwrap();
    net.get(near.0[0]).rtt = 10 * MILLI;
    net.homes.set_active(net.now, true);
    net.run(30 * MINUTE);
    assert_eq!(net.warm(), settled, "not while a call is up");
    net.homes.set_active(net.now, false);
    net.downs.clear();
    net.run(15 * MINUTE);
    assert!(net.warm().contains(&near) && net.warm().len() == 2, "{:?}", net.warm());
    let (down, up) = (net.downs[0].0, net.up_at(near));
    assert!(down == up, "the old one is left when the new one is warm");
}

#[test]
fn two_homes_of_one_owner_are_only_a_beginning() {
    let mut net = net(&[10, 12]);
    net.own(2, 1);
    net.run(SECOND);
    assert_eq!(net.warm().len(), 2, "better than one");
    net.add(3, 40 * MILLI);
    net.hand_card(3, 5, Service::Alive);
    net.run(2 * MINUTE);
    assert_eq!(net.warm(), [node(1), node(3)]);
}

#[test]
fn a_redirect_is_followed_by_its_card_and_is_no_failure() {
    let mut net = net(&[10, 20]);
    net.add(9, 50 * MILLI);
    net.get(1).sends_to = Some(9);
    net.get(1).is_silent_about_it = true;
    net.run(2 * SECOND);
    assert_eq!(net.warm(), [node(2), node(9)]);
    assert_eq!(net.homes.hosts.get(node(1)).unwrap().failures, 0);
    assert!(net.took(node(9)) < Duration::from_millis(400), "at once: {:?}", net.took(node(9)));
    net.get(2).is_dead = true;
    net.get(1).sends_to = None;
    net.run(2 * MINUTE);
    assert_eq!(net.warm(), [node(9), node(1)], "back when the time has come");
}

#[test]
fn full_ones_that_say_so_to_a_probe_are_spared_the_handshake() {
    let mut net = unknown_net(&[10, 20, 30, 60, 90]);
    for full in 1..=3 {
        net.get(full).sends_to = Some(9);
    }
    net.bulletin();
    net.add(9, 50 * MILLI);
    net.run(2 * SECOND);
    assert_eq!(net.warm(), [node(4), node(5)]);
    assert_eq!(net.opened.len(), 2, "nobody else was troubled: {:?}", net.opened);
    // The homes themselves fill up: that is no reason to leave them.
    net.get(4).sends_to = Some(9);
    net.run(30 * MINUTE);
    assert_eq!(net.warm(), [node(4), node(5)]);
    assert_eq!(net.downs, []);
}

#[test]
fn a_phone_that_knows_only_full_ones_asks_one_where_to_go() {
    let mut net = unknown_net(&[10, 20, 60]);
    for full in 1..=3 {
        net.get(full).sends_to = Some(9);
    }
    net.bulletin();
    net.add(9, 50 * MILLI);
    net.run(2 * SECOND);
    assert_eq!(net.warm(), [node(9)]);
    assert!(net.opened.len() <= 4, "two homes were missing, two were asked: {:?}", net.opened);
    assert!(net.homes.hosts.iter().all(|(_, host)| host.failures == 0));
}

#[test]
fn a_leaving_home_names_where_to_go() {
    let mut net = net(&[10, 20, 60]);
    net.run(SECOND);
    net.add(9, 50 * MILLI);
    net.farewell(1, 9);
    net.run(SECOND);
    assert_eq!(net.warm(), [node(2), node(9)]);
    net.run(20 * SECOND);
    assert_eq!(net.opened_to(1), 1, "it asked for 30 s");
}

#[test]
fn homes_that_send_each_other_their_phones_get_a_bounded_number_of_attempts() {
    let mut net = net(&[10, 20, 30, 40]);
    for n in 1..=4 {
        net.get(n).sends_to = Some(n % 4 + 1);
    }
    net.run(5 * MINUTE);
    assert_eq!(net.warm(), []);
    let attempts: usize = (1..=4).map(|n| net.opened_to(n)).sum();
    assert!((8..=4 * 11).contains(&attempts), "each every 30 s: {attempts}");
}

#[test]
fn attempts_that_fail_wait_longer_and_longer_with_full_jitter() {
    let mut firsts = Vec::new();
    for seed in 0..40 {
        let mut net = Net::new(seed);
        net.add(1, 10 * MILLI);
        net.get(1).is_dead = true;
        net.bulletin();
        net.run(10 * MINUTE);
        let opened: Vec<Instant> = net.opened.iter().map(|(at, ..)| *at).collect();
        let attempts: Vec<Duration> = opened.windows(2).map(|two| two[1].since(two[0])).collect();
        assert!(attempts.iter().all(|pause| *pause <= ATTACH + MINUTE), "{attempts:?}");
        assert!((12..=60).contains(&opened.len()), "{}", opened.len());
        firsts.push(attempts.into_iter().find(|pause| *pause > SECOND).unwrap());
    }
    let short = firsts.iter().filter(|pause| **pause < ATTACH + 2 * SECOND).count();
    assert!((8..=32).contains(&short), "spread over four seconds: {firsts:?}");
}

#[test]
fn without_udp_tls_takes_over_as_soon_as_the_probes_are_out() {
    let mut net = net(&[10, 20, 30]);
    net.udp_shut = true;
    net.run(SECOND);
    assert_eq!(net.warm().len(), 2);
    assert!(net.homes.warm().iter().all(|home| home.transport == Transport::Tls));
    net.run(30 * MINUTE);
    assert_eq!(net.downs, [], "and stays");
}

#[test]
fn remembered_cards_are_enough_for_a_start_and_the_newest_wins() {
    let mut net = net(&[10, 20]);
    net.run(SECOND);
    net.add(8, 30 * MILLI);
    net.add(9, 40 * MILLI);
    net.hand_card(8, 5, Service::Alive);
    net.hand_card(9, 5, Service::Alive);
    let moved = net.move_to(9, "192.0.2.99:5061");
    net.hand_card(9, 6, Service::Alive);
    net.now_at(9, "192.0.2.9:5061");
    net.hand_card(9, 5, Service::Alive);
    net.run(SECOND);
    assert_eq!(net.stored.len(), 2);
    assert_eq!(net.homes.hosts.get(node(9)).unwrap().udp, [moved], "an older card changes nothing");
    net.now_at(9, "192.0.2.99:5061");
    let mut forged = net.stored.get(&node(8)).unwrap().clone();
    *forged.last_mut().unwrap() ^= 1;
    net.stored.insert(node(7), net.stored[&node(8)].clone());
    net.stored.insert(node(6), forged);

    let mut again = net.restart();
    assert!(again.stored.keys().eq([&node(8), &node(9)]), "what is not to be believed is forgotten");
    again.run(SECOND);
    assert_eq!(again.warm(), [node(8), node(9)], "without any bulletin");
    again.now.unix = again.now.unix + Duration::from_secs(30 * 24 * 60 * 60);
    let late = again.restart();
    assert!(late.stored.is_empty(), "credentials end");
}

#[test]
fn who_left_and_who_is_revoked_is_no_candidate_and_the_table_is_bounded() {
    let mut net = net(&[10, 20]);
    net.run(SECOND);
    net.add(9, 5 * MILLI);
    net.hand_card(9, 5, Service::Alive);
    net.run(SECOND);
    assert_eq!(net.homes.cold().unwrap().0, node(9));
    net.hand_card(9, 6, Service::Left);
    net.run(SECOND);
    assert_eq!((net.homes.cold(), net.stored.len()), (None, 0));

    for round in 0..5 {
        for n in 30..80 {
            net.add_numbered(n, round);
        }
        net.run(2 * MINUTE);
    }
    assert!(net.stored.len() == HOSTS_MAX && net.homes.hosts.iter().count() <= HOSTS_MAX + 2);
    net.revoke(1);
    assert!(!net.warm().contains(&node(1)), "at once");
    assert!(net.homes.hosts.get(node(1)).is_none());
}

#[test]
fn a_flood_of_cards_costs_no_more_than_its_share() {
    let mut net = net(&[10, 20]);
    net.run(SECOND);
    for round in 0..8 {
        for n in 30..80 {
            net.add_numbered(n, round);
        }
    }
    let learnt = net.homes.hosts.iter().count() - 2;
    assert!((100..=110).contains(&learnt), "{learnt}");
}

#[test]
fn an_unknown_relay_is_asked_for_and_attached_to_when_its_card_comes() {
    let mut net = net(&[10, 20]);
    net.run(SECOND);
    net.add(9, 30 * MILLI);
    net.get(1).knows = vec![];
    net.get(2).knows = vec![9];
    assert!(net.want(9));
    assert!(net.want(9), "asked once");
    net.run(SECOND);
    assert_eq!(net.asked_for_cards, [(1, node(9)), (2, node(9))]);
    assert!(net.homes.attached(node(9)).is_some() && net.warm().len() == 2);
    net.unwant(9);
    assert!(net.homes.attached(node(9)).is_none());
    assert_eq!(net.homes.hosts.get(node(9)).unwrap().failures, 0);

    net.downs.clear();
    let began = net.now.mono;
    assert!(net.want(77));
    net.run(5 * SECOND);
    assert_eq!(net.downs, [(began + CARD_WANTED, node(77))]);
    for n in 100..200 {
        let granted = net.want(n);
        assert_eq!(granted, usize::from(n) < 100 + RELAY_LINKS_MAX);
    }
}

#[test]
fn a_home_whose_credential_ends_soon_is_asked_for_its_card() {
    let mut net = net(&[10, 20]);
    net.run(SECOND);
    net.now.unix = net.now.unix + Duration::from_secs(6 * 24 * 60 * 60 + 60);
    net.get(1).knows = vec![1];
    net.bulletin();
    net.renew(1);
    net.run(SECOND);
    assert_eq!(net.asked_for_cards, [(1, node(1)), (2, node(2))]);
    let ends = |net: &Net, n| net.homes.hosts.get(node(n)).unwrap().credential.not_after;
    assert!(ends(&net, 1) > ends(&net, 2));
    assert!(net.said(FrameKind::Hello) >= 2);
}
