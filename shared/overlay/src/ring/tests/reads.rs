//! Reads and writes while all is well, and with loss.

use super::*;

#[test]
fn rings_of_all_sizes_keep_and_find() {
    for count in [1, 2, 3, 4, 7, 8, 20] {
        let mut net = Net::new(count);
        let alice = net.realm.device("alice", 1);
        let last = usize::from(count) - 1;
        assert_eq!(net.standing(0, alice.key()), Standing::None, "{count} members");
        let written = net.write(0, &alice, 1);
        let holders = usize::from(count.min(8));
        assert_eq!(written.status, WriteStatus::Stored, "{count} members");
        net.run(SECOND);
        assert_eq!(net.keepers(&alice, 1), net.holders(0, alice.key()));
        assert_eq!(net.keepers(&alice, 1).len(), holders);
        for home in [0, last] {
            assert_eq!(net.sequences(home, &alice), [1], "{count} members");
        }
        assert_eq!(net.write(last, &alice, 1).status, WriteStatus::Stored, "idempotent");
        assert_eq!(net.write(0, &alice, 5).status, WriteStatus::Stored);
        let stale = net.write(0, &alice, 4);
        assert_eq!(stale.status, WriteStatus::Stale);
        assert!(stale.newest_entry.is_some());
        assert_eq!(net.frames, 0, "everything fits datagrams");
        let dropped = net.rings.iter().fold(0, |sum, ring| sum + ring.counters().dropped.forged);
        assert_eq!(dropped, 0);
    }
}

#[test]
fn one_round_trip_for_a_lookup_and_for_a_write() {
    let mut net = Net::new(20);
    net.run(30 * SECOND);
    for device in net.devices(10) {
        let key = device.key();
        let outsider = net.outsider(key);
        net.write(outsider, &device, 1);
        let (_, report) = net.lookup(outsider, key);
        assert_eq!((report.first, report.settled), (Some(50 * MS), Some(50 * MS)));
        assert!(report.datagrams <= 4 && report.bytes <= 4_000, "{report:?}");
        let holder = net.holders(0, key)[0];
        let (_, report) = net.lookup(holder, key);
        assert_eq!((report.first, report.asked), (Some(Duration::ZERO), 2), "ourselves first");
    }
    let longest = net.rings.iter().filter_map(|ring| ring.latencies().written.percentile(100.0)).max();
    assert!(longest.unwrap() <= 52 * MS, "a round trip and a commit: {longest:?}");
}

#[test]
fn a_write_is_not_acknowledged_before_its_commit() {
    let mut net = Net::strangers(1);
    let alice = net.realm.device("alice", 1);
    let ring = &mut net.rings[0];
    while ring.poll_output().is_some() {}
    let request = WriteRequest {
        id: 7,
        key: alice.key(),
        scope: Scope::Walk,
        account: Some(alice.account.bytes().to_vec()),
        entry: None,
    };
    let device = From::Device(alice.credential.node);
    ring.handle_frame(net.now, device, &request.encode(), &net.realm.realm).unwrap();
    let Some(RingOutput::Commit { number, key, value }) = ring.poll_output() else { panic!() };
    // The same once more waits for the same commit.
    ring.handle_frame(net.now, device, &request.encode(), &net.realm.realm).unwrap();
    assert_eq!((key, ring.poll_output()), (alice.key(), None));
    ring.handle_committed(net.now, number, false);
    for _ in 0..2 {
        let Some(RingOutput::Send { frame, .. }) = ring.poll_output() else { panic!() };
        assert_eq!(Written::decode(&frame.body).unwrap().status, WriteStatus::Full);
    }
    // What failed to be stored is stored with the next attempt, though it is nothing new.
    ring.handle_frame(net.now, device, &request.encode(), &net.realm.realm).unwrap();
    let Some(RingOutput::Commit { number, .. }) = ring.poll_output() else { panic!() };
    ring.handle_committed(net.now, number, true);
    let Some(RingOutput::Send { frame, .. }) = ring.poll_output() else { panic!() };
    assert_eq!(Written::decode(&frame.body).unwrap().status, WriteStatus::Stored);
    let mut later = Holder::new();
    assert!(later.load(&net.realm.realm, key, &value.unwrap(), net.now.unix));
}

#[test]
fn the_cache_answers_for_a_minute_and_not_past_it() {
    let mut net = Net::new(12);
    let alice = net.realm.device("alice", 1);
    let reader = net.outsider(alice.key());
    let other = net.holders(0, alice.key())[0];
    net.write(other, &alice, 1);
    net.read(reader, alice.key(), false);
    net.read(reader, alice.key(), false);
    assert_eq!(net.rings[reader].counters().cached, 1);
    net.write(other, &alice, 2);
    let sequence = |net: &mut Net, past_cache| {
        let answer = net.read(reader, alice.key(), past_cache).pop().unwrap();
        match LookupResult::from_answer(&net.realm.realm, &alice.key(), &answer, net.now.unix) {
            LookupResult::Found { entries, .. } => entries[0].sequence,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sequence(&mut net, false), 1, "cached");
    assert_eq!(sequence(&mut net, true), 2, "past the cache");
    net.write(other, &alice, 3);
    assert_eq!(sequence(&mut net, false), 2);
    net.run(crate::limits::CACHE);
    assert_eq!(sequence(&mut net, false), 3);
    let lookups = net.rings[reader].counters().lookups;
    net.rings[reader].lookup(net.now, &net.realm.realm, 1, alice.key(), true);
    net.rings[reader].lookup(net.now, &net.realm.realm, 2, alice.key(), true);
    net.run(SECOND);
    assert_eq!(net.rings[reader].counters().lookups, lookups + 1, "one fetch in flight");
    assert_eq!(net.looked.iter().filter(|(_, _, report)| report.settled.is_some()).count(), 2);
}

#[test]
fn a_newcomer_among_four_says_not_yet() {
    let mut net = Net::strangers(4);
    for index in 0..4 {
        net.introduce(index);
    }
    let alice = net.realm.device("alice", 1);
    assert_eq!(net.standing(0, alice.key()), Standing::Unreachable);
    assert_eq!(net.write(0, &alice, 1).status, WriteStatus::Stored, "but it is written to");
    assert_eq!(net.sequences(1, &alice), [1]);
    net.run(STANDBY);
    assert_eq!(net.standing(0, net.realm.device("bob", 2).key()), Standing::None);
    // In a smaller realm nobody waits for long.
    let mut net = Net::strangers(3);
    for index in 0..3 {
        net.introduce(index);
    }
    net.run(400 * MS);
    assert_eq!(net.standing(0, alice.key()), Standing::None);
}

#[test]
fn what_fits_no_datagram_goes_over_links() {
    let mut net = Net::new(5);
    let alice = net.realm.device_beside("alice", 1, 3);
    assert!(alice.account.bytes().len() > crate::message::MESSAGE_BYTES_MAX);
    assert_eq!(net.write(0, &alice, 1).status, WriteStatus::Stored);
    assert_eq!(net.frames, 8, "a request and an answer with each of the four others");
    assert_eq!(net.sequences(1, &alice), [1]);
    net.frames = 0;
    let newcomer = net.add();
    net.introduce(newcomer);
    net.run(10 * SECOND);
    assert_eq!(net.keepers(&alice, 1).len(), 6);
    assert_eq!(net.frames, 2, "handed over once");
    // A link that cannot be opened fails the request at once.
    net.down.insert(2);
    assert_eq!(net.write(0, &alice, 2).status, WriteStatus::Stored);
}

#[test]
fn five_percent_of_loss_cost_no_operation() {
    let mut net = Net::new(20);
    net.loss_percent = 5;
    for (round, device) in net.devices(15).into_iter().enumerate() {
        let home = round % 20;
        assert_eq!(net.write(home, &device, 1).status, WriteStatus::Stored);
        let (results, report) = net.lookup((home + 7) % 20, device.key());
        assert!(matches!(results.last(), Some(LookupResult::Found { entries, .. }) if entries.len() == 1));
        assert!(report.settled.unwrap() <= 350 * MS, "{report:?}");
        assert_eq!(net.standing(home, [round as u8; 16]), Standing::None);
    }
    net.run(10 * SECOND);
    let dead = net.rings.iter().filter(|ring| ring.membership().count() != 20).count();
    assert_eq!(dead, 0);
}

#[test]
fn revocation_ends_entries_and_only_who_was_asked_may_answer() {
    let mut net = Net::new(2);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.realm.revoke(alice.credential.node);
    let now = net.now;
    for ring in &mut net.rings {
        ring.sweep_now(now, &net.realm.realm);
    }
    assert_eq!(net.sequences(0, &alice), Vec::<u64>::new());
    net.looked.clear();
    net.rings[0].lookup(now, &net.realm.realm, 3, [9; 16], true);
    for id in 0..64 {
        let forged = Answer::empty(id, Standing::None).encode();
        for from in [From::Device(net.node(1)), From::Member(NodeId([3; 16]))] {
            net.rings[0].handle_frame(now, from, &forged, &net.realm.realm).unwrap();
        }
    }
    net.drain(0);
    assert!(net.looked.is_empty());
}

#[test]
fn junk_and_strangers_cost_nothing() {
    let mut net = Net::new(3);
    let agreements = net.rings[0].agreements();
    let stranger = net.realm.member(77);
    let mut exchange = Exchange::new(stranger.credential.node, [1; 8], 4);
    exchange.set_own(Instant::ORIGIN, &[stranger.sealing]);
    let key = net.fixtures[0].sealing.public();
    let message = Message::Read { id: [1; 16], key: [2; 16] }.encode().unwrap();
    let sealed = exchange.seal(net.node(0), || Some(key), &message).unwrap();
    let mut posing = sealed.clone();
    posing[2..18].copy_from_slice(&net.node(1).0);
    for junk in [&sealed, &posing, &sealed[..30].to_vec(), &vec![20; 400]] {
        net.rings[0].handle_datagram(net.now, &net.realm.realm, junk);
        assert_eq!(net.rings[0].poll_output(), None);
    }
    let dropped = net.rings[0].counters().dropped;
    let expected = Dropped { malformed: 2, stranger: 1, key: 1, ..Dropped::default() };
    assert_eq!((dropped, net.rings[0].agreements()), (expected, agreements));
}

#[test]
fn links_to_the_homes_of_who_is_looked_up_are_opened_ahead() {
    let mut net = Net::new(6);
    let alice = net.realm.device("alice", 1);
    net.write(1, &alice, 1);
    let homes = alice.entry(1, net.realm.now).homes.clone();
    net.expected.clear();
    net.read(0, alice.key(), true);
    assert!(homes.iter().all(|home| net.expected.contains(home)), "{:?}", net.expected);
    net.expected.clear();
    let request = ReadRequest { id: 9, key: alice.key(), scope: Scope::Walk, past_cache: true };
    let own = From::Device(alice.credential.node);
    net.rings[0].handle_frame(net.now, own, &request.encode(), &net.realm.realm).unwrap();
    net.run(SECOND);
    assert_eq!(net.expected, [], "nobody calls itself");
}

#[test]
fn a_long_table_is_handed_over_page_by_page() {
    let mut net = Net::strangers(2);
    net.introduce(0);
    let members = crate::limits::CARDS_PER_PAGE as u16 + 50;
    for number in 2..members {
        let card = net.realm.member(number).card(1, Service::Alive).encode();
        assert!(net.rings[0].learn(net.now, &net.realm.realm, &card).is_some());
    }
    let (asker, wanted) = (From::Member(net.node(1)), CardsWanted::default().encode());
    let mut frames = VecDeque::from([wanted]);
    let mut pages = 0;
    // The two talk over a link that the test is.
    while let Some(frame) = frames.pop_front() {
        let (to, from) = match frame.kind {
            FrameKind::CardsWanted => (0, asker),
            _ => (1, From::Member(net.node(0))),
        };
        pages += usize::from(frame.kind == FrameKind::CardsWanted);
        net.rings[to].handle_frame(net.now, from, &frame, &net.realm.realm).unwrap();
        while let Some(output) = net.rings[to].poll_output() {
            if let RingOutput::Send { frame, .. } = output {
                frames.push_back(frame);
            }
        }
    }
    assert_eq!((net.rings[1].membership().count(), pages), (members.into(), 2));
}
