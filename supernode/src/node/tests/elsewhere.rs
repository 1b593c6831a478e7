//! Who is sent elsewhere, what that costs, and how everybody leaves a supernode that drains.

use yodel_overlay::card::CardsWanted;
use yodel_relay::control::{Control, Token};

use super::*;
use crate::limits::{COME_BACK, DRAIN_SPREAD, DRAIN_STEP, HALF_OPEN_MAX, HALF_OPEN_YOUNG};

const MINUTE: Duration = Duration::from_secs(60);

fn session(rig: &mut Rig, one: LinkId, (other, number): (LinkId, u8)) {
    let token = Token([1; 16]);
    rig.frame(one, Control::Open { token, allow: node(number) }.encode());
    rig.frame(other, Control::Join { token }.encode());
    assert_eq!(rig.node.status().relays, 1);
}

#[test]
fn the_refused_are_spread_over_the_others_and_over_time() {
    let mut rig = Rig::new(|config| config.clients_max = 1);
    let attached = rig.attach(50);
    let (mut to, mut when) = (BTreeMap::new(), BTreeSet::new());
    for number in 60..160 {
        let id = rig.accept(number);
        rig.hello(id, &device(number), LinkRole::Device, 1);
        let refuse = rig.refused(id);
        assert_eq!(refuse.reason, RefuseReason::Full);
        assert!(refuse.come_back >= COME_BACK && refuse.come_back < 2 * COME_BACK);
        when.insert(refuse.come_back);
        *to.entry(refuse.redirect.unwrap()).or_insert(0) += 1;
    }
    assert!(to.len() == 2 && to.values().all(|count| *count > 25), "{to:?}");
    assert!(!to.contains_key(&node(20)) && when.len() > 10);
    assert_eq!(rig.node.status().counters.sent_away, 100);

    let second_way = rig.attach(50);
    assert!(!rig.closed.contains(&attached), "who is attached may come by another way: {second_way:?}");
    let id = rig.accept(51);
    rig.hello(id, &device(50), LinkRole::Device, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::Full, "but not with another's credential");
    let member = rig.join(10);
    assert!(!rig.closed.contains(&member), "a member is no client");
}

#[test]
fn a_probe_hears_whether_there_is_room() {
    let mut rig = Rig::new(|config| config.clients_max = 2);
    let probe = |rig: &mut Rig| {
        let request = yodel_nat::stun::probe_request([7; 12]).unwrap();
        rig.node.handle_datagram(rig.now, SocketAddr::from(([198, 51, 100, 50], 999)), &request);
        let Output::Datagram { bytes, .. } = rig.node.poll_output() else { panic!() };
        Duration::from_secs(yodel_nat::stun::peek(&bytes).unwrap().room.unwrap().into())
    };
    rig.attach(50);
    assert_eq!(probe(&mut rig), Duration::ZERO);
    rig.attach(51);
    assert!((COME_BACK..2 * COME_BACK).contains(&probe(&mut rig)), "full");
    rig.node.config.clients_max = 3;
    assert_eq!(probe(&mut rig), Duration::ZERO);
    rig.node.handle_command(rig.now, Command::Drain { within: MINUTE });
    rig.drain();
    assert!((COME_BACK..2 * COME_BACK).contains(&probe(&mut rig)), "draining");
}

#[test]
fn the_oldest_of_too_many_silent_links_gives_way() {
    let mut rig = Rig::new(|_| {});
    let silent: Vec<LinkId> = (0..HALF_OPEN_MAX).map(|_| rig.accept(50)).collect();
    let newcomer = rig.accept(51);
    assert_eq!(rig.refused(newcomer).reason, RefuseReason::Full, "the others may still speak");
    rig.pass(HALF_OPEN_YOUNG);
    let attached = rig.attach(51);
    assert!(rig.refused(silent[0]).redirect.is_some());
    assert!(!rig.closed.contains(&silent[1]) && !rig.closed.contains(&attached));
    // Who spoke waits no longer.
    rig.hello(silent[1], &device(50), LinkRole::Device, 1);
    rig.accept(52);
    assert!(!rig.closed.contains(&silent[2]));
}

#[test]
fn draining_tells_one_after_the_other_and_lets_calls_go_on_until_the_deadline() {
    let mut rig = Rig::new(|_| {});
    let phones: Vec<LinkId> = (50..110).map(|number| rig.attach(number)).collect();
    session(&mut rig, phones[0], (phones[1], 51));
    rig.said(phones[0], FrameKind::RelayState);
    rig.node.handle_command(rig.now, Command::Drain { within: MINUTE });
    rig.drain();
    assert!(rig.node.status().draining);
    let state = rig.said(phones[0], FrameKind::RelayState);
    assert_eq!(state.len(), 1, "the call is asked to move");
    let newcomer = rig.accept(200);
    rig.hello(newcomer, &device(200), LinkRole::Device, 1);
    let refuse = rig.refused(newcomer);
    assert!(refuse.reason == RefuseReason::Draining && refuse.redirect.is_some());

    let mut left = vec![rig.node.status().clients];
    while left.len() <= 300 {
        rig.pass(DRAIN_STEP);
        left.push(rig.node.status().clients);
    }
    assert!(left.windows(2).all(|step| step[0] - step[1] <= 1), "one at a time: {left:?}");
    assert!((25..=35).contains(&left[150]), "{left:?}");
    assert_eq!(left[300], 2, "only the call is left after {DRAIN_SPREAD:?}");
    let farewell = rig.said(phones[3], FrameKind::Goodbye);
    let farewell = Refuse::decode(&farewell[0]).unwrap();
    assert!(farewell.reason == RefuseReason::Draining && farewell.redirect.is_some());
    rig.pass(MINUTE - DRAIN_SPREAD - SWEEP);
    assert_eq!(rig.node.status().clients, 2);
    rig.pass(2 * SWEEP);
    assert_eq!(rig.node.status().clients, 0);

    rig.node.handle_command(rig.now, Command::Undrain);
    rig.drain();
    rig.attach(200);
    assert!(!rig.node.status().draining);
}

#[test]
fn cards_cost_as_many_frames() {
    let mut rig = Rig::new(|_| {});
    let alice = rig.attach(50);
    let wanted = CardsWanted { nodes: vec![node(10); 32], after: None }.encode();
    for _ in 0..20 {
        rig.frame(alice, wanted.clone());
    }
    let dropped = rig.node.status().counters.frames_dropped;
    assert!((8..=9).contains(&dropped), "400 frames are a burst, and each is 33: {dropped}");
    assert!(!rig.closed.contains(&alice));
}
