//! Members that die, come, come back and leave: what they kept is elsewhere soon.

use super::*;

/// All accounts are kept by exactly the holders that count, at their newest.
fn assert_whole(net: &Net, devices: &[DeviceFixture], sequence: u64) {
    let up = (0..net.rings.len()).find(|index| !net.down.contains(index)).unwrap();
    for device in devices {
        let keepers = net.keepers(device, sequence);
        let missing: Vec<usize> =
            net.holders(up, device.key()).into_iter().filter(|holder| !keepers.contains(holder)).collect();
        assert!(missing.is_empty(), "{} lack {:?}", missing.len(), device.key());
    }
}

#[test]
fn the_nearest_hands_over_when_one_dies() {
    let mut net = Net::new(12);
    let devices = net.devices(12);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    net.down.insert(3);
    let held = net.rings[3].records() as u64;
    assert!(held > 0);
    net.run(20 * SECOND);
    assert_whole(&net, &devices, 1);
    let handed = net.total(|counters| counters.handed_over);
    assert_eq!(handed, held, "one member hands each record over, not all");
    net.run(60 * SECOND);
    assert_eq!(net.total(|counters| counters.handed_over), handed, "and nothing follows");
}

#[test]
fn batches_of_deaths_lose_nothing() {
    let mut net = Net::new(20);
    let devices = net.devices(15);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    net.down.extend([2, 5, 8, 11, 14]);
    // At once, nobody knows of it yet.
    let mut slowest = Duration::ZERO;
    for device in &devices {
        let reader = net.outsider(device.key());
        let (results, report) = net.lookup(reader, device.key());
        assert!(matches!(results.last(), Some(LookupResult::Found { .. })));
        slowest = slowest.max(report.settled.unwrap());
    }
    assert!(slowest <= 350 * MS, "{slowest:?}");
    net.run(20 * SECOND);
    assert_whole(&net, &devices, 1);
    net.down.extend([3, 6, 9]);
    net.run(20 * SECOND);
    assert_whole(&net, &devices, 1);
    for device in &devices {
        assert_eq!(net.sequences(0, device), [1]);
    }
}

#[test]
fn a_newcomer_gets_its_share_and_others_forget_theirs() {
    let mut net = Net::new(12);
    let devices = net.devices(12);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    let newcomer = net.add();
    net.introduce(newcomer);
    assert!(net.rings[newcomer].is_standby());
    net.run(4 * SECOND);
    assert!(net.rings[newcomer].is_standby());
    assert_whole(&net, &devices, 1);
    assert!(net.rings[newcomer].records() > 0, "before its standby is over");
    net.run(crate::limits::REPAIR_GRACE + 30 * SECOND);
    for device in &devices {
        assert_eq!(net.keepers(device, 1), net.holders(0, device.key()));
        let stored: Vec<usize> =
            (0..net.rings.len()).filter(|at| net.stores[*at].contains_key(&device.key())).collect();
        assert_eq!(stored, net.holders(0, device.key()), "gone from the store as well");
    }
}

#[test]
fn who_comes_back_empty_is_filled() {
    for count in [2, 3, 8] {
        let mut net = Net::new(count);
        let devices = net.devices(6);
        for device in &devices {
            net.write(0, device, 1);
        }
        net.run(SECOND);
        net.restart(1, false);
        assert_eq!(net.rings[1].records(), 0);
        net.run(3 * SECOND);
        assert_whole(&net, &devices, 1);
        assert_eq!(net.rings[1].records(), 6, "{count} members");
    }
}

#[test]
fn who_comes_back_with_its_store_gets_what_it_missed() {
    for count in [3, 8] {
        let mut net = Net::new(count);
        let devices = net.devices(6);
        for device in &devices {
            net.write(0, device, 1);
        }
        net.run(SECOND);
        net.down.insert(1);
        for device in &devices {
            assert_eq!(net.write(0, device, 2).status, WriteStatus::Stored);
        }
        net.down.remove(&1);
        net.restart(1, true);
        net.run(SECOND / 2);
        assert_eq!(net.rings[1].records(), 6);
        net.run(5 * SECOND);
        assert_whole(&net, &devices, 2);
    }
}

#[test]
fn two_of_three_go_on_and_the_third_is_missed_after_seconds() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.down.insert(2);
    assert_eq!(net.sequences(0, &alice), [1]);
    assert_eq!(net.standing(0, [9; 16]), Standing::Unreachable, "two of three cannot say that there is none");
    assert_eq!(net.write(0, &alice, 2).status, WriteStatus::Stored);
    net.run(6 * SECOND);
    assert_eq!(net.rings[0].membership().count(), 2);
    assert_eq!(net.standing(0, [9; 16]), Standing::None);
    net.down.remove(&2);
    net.run(12 * SECOND);
    assert_eq!(net.rings[0].membership().count(), 3);
    assert_whole(&net, &[alice], 2);
}

#[test]
fn leaving_hands_over_before_it_is_told() {
    let mut net = Net::new(12);
    let devices = net.devices(12);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    let held = net.rings[4].records();
    assert!(held > 0);
    net.rings[4].leave(net.now, 10 * SECOND);
    net.run(SECOND);
    assert_eq!(net.left, [4]);
    // Whoever takes its place has everything, now.
    net.down.insert(4);
    net.run(SECOND);
    assert_eq!(net.rings[0].membership().count(), 11);
    assert_whole(&net, &devices, 1);
    for device in &devices {
        assert_eq!(net.sequences(0, device), [1]);
    }
    // The last one has nobody to hand over to.
    let mut alone = Net::new(1);
    alone.write(0, &devices[0], 1);
    alone.rings[0].leave(alone.now, 10 * SECOND);
    alone.run(SECOND);
    assert_eq!(alone.left, [0]);
}

#[test]
fn a_leave_ends_in_time_when_nobody_answers() {
    let mut net = Net::new(12);
    let devices = net.devices(12);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    net.cut = Some(1);
    net.rings[0].leave(net.now, 2 * SECOND);
    net.run(2 * SECOND - MS);
    assert_eq!(net.left, [] as [usize; 0]);
    net.run(MS);
    assert_eq!(net.left, [0]);
}

#[test]
fn both_halves_of_a_cut_ring_keep_what_either_wrote() {
    let mut net = Net::new(16);
    let devices = net.devices(12);
    for device in &devices {
        net.write(0, device, 1);
    }
    net.run(SECOND);
    net.cut = Some(8);
    net.run(60 * SECOND);
    assert_eq!((net.rings[0].membership().count(), net.rings[8].membership().count()), (8, 8));
    let (west, east) = devices.split_at(6);
    for (device, home) in west.iter().map(|d| (d, 0)).chain(east.iter().map(|d| (d, 8))) {
        assert_eq!(net.write(home, device, 2).status, WriteStatus::Stored);
    }
    net.cut = None;
    net.run(60 * SECOND);
    assert_eq!(net.rings[0].membership().count(), 16);
    assert_whole(&net, &devices, 2);
}
