//! Holders that lie. Nothing wrong may stand once a lookup is settled.

use super::*;

fn forge(_: &mut ChaCha20Rng, said: Message) -> Option<(Message, Duration)> {
    let lie = match said {
        Message::Answer { id, standing, account, mut entries } => {
            for entry in &mut entries {
                if let Some(byte) = entry.last_mut() {
                    *byte ^= 1;
                }
            }
            Message::Answer { id, standing, account, entries }
        }
        honest => honest,
    };
    Some((lie, Duration::ZERO))
}

fn deny(_: &mut ChaCha20Rng, said: Message) -> Option<(Message, Duration)> {
    let lie = match said {
        Message::Answer { id, .. } => {
            Message::Answer { id, standing: Standing::None, account: None, entries: vec![] }
        }
        honest => honest,
    };
    Some((lie, Duration::ZERO))
}

fn leave_out(_: &mut ChaCha20Rng, said: Message) -> Option<(Message, Duration)> {
    let lie = match said {
        Message::Answer { id, standing, account, .. } => {
            Message::Answer { id, standing, account, entries: vec![] }
        }
        honest => honest,
    };
    Some((lie, Duration::ZERO))
}

fn withhold(_: &mut ChaCha20Rng, said: Message) -> Option<(Message, Duration)> {
    match said {
        Message::Answer { .. } | Message::Written { .. } => None,
        honest => Some((honest, Duration::ZERO)),
    }
}

fn late(rng: &mut ChaCha20Rng, said: Message) -> Option<(Message, Duration)> {
    let late = Duration::from_millis(u64::from(rng.next_u32() % 2_000));
    match said {
        Message::Answer { .. } => Some((said, late)),
        honest => Some((honest, Duration::ZERO)),
    }
}

/// The three holders that are asked first lie; a reader that holds nothing asks.
#[test]
fn three_liars_of_eight_move_nothing() {
    for (name, lie) in [
        ("forge", forge as Lie),
        ("deny", deny),
        ("leave out", leave_out),
        ("withhold", withhold),
        ("late", late),
    ] {
        let mut net = Net::new(12);
        let alice = net.realm.device("alice", 1);
        let reader = net.outsider(alice.key());
        net.write(reader, &alice, 1);
        net.write(reader, &alice, 2);
        net.run(SECOND);
        let holders = net.rings[reader].holders_of(&alice.key());
        for liars in 1..=3 {
            let liar = net.index_of(holders[liars * 2 - 2]);
            net.lies.insert(liar, lie);
            let (results, report) = net.lookup(reader, alice.key());
            let Some(LookupResult::Found { entries, .. }) = results.last() else {
                panic!("{name}: {results:?}")
            };
            let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
            assert_eq!(sequences, [2], "{name}, {liars} liars");
            assert!(report.settled.unwrap() <= 400 * MS, "{name}: {report:?}");
        }
        // The same when all three are asked before anybody honest.
        net.lies.clear();
        for holder in &holders[..3] {
            net.lies.insert(net.index_of(*holder), lie);
        }
        let (results, _) = net.lookup(reader, alice.key());
        assert!(!results.contains(&LookupResult::Unreachable), "{name}: {results:?}");
    }
}

#[test]
fn who_was_rolled_back_is_outranked_and_brought_up_to_date() {
    let mut net = Net::new(12);
    let alice = net.realm.device("alice", 1);
    let reader = net.outsider(alice.key());
    net.write(reader, &alice, 1);
    net.run(SECOND);
    let holders = net.rings[reader].holders_of(&alice.key());
    let behind = net.index_of(holders[0]);
    let old = net.stores[behind].clone();
    net.write(reader, &alice, 2);
    net.run(SECOND);
    let mut rolled_back = Holder::new();
    for (key, value) in &old {
        rolled_back.load(&net.realm.realm, *key, value, net.now.unix);
    }
    net.rings[behind].holder = rolled_back;
    // Sooner or later it is among the two that are asked.
    for _ in 0..40 {
        assert_eq!(net.sequences(reader, &alice), [2]);
        net.run(SECOND);
    }
    assert!(net.keepers(&alice, 2).contains(&behind), "read repair");
    assert_eq!(net.total(|counters| counters.read_repairs), 1);
    net.rings[behind].holder = Holder::new();
    assert_eq!(net.sequences(behind, &alice), [2], "also when it asks itself first");
    assert!(net.keepers(&alice, 2).contains(&behind));
}
