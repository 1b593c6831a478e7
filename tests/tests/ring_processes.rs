//! The ring as programs on loopback, in short: `yodel-lab ring` does the same for longer. See `yodel_tests::ring`.

use std::time::Duration;

use yodel_tests::ring::bench::{self, Bench};
use yodel_tests::ring::flood::{self, Flood};
use yodel_tests::ring::kill::{self, Kill};

#[test]
fn real_records_are_written_and_found() {
    let settle = Duration::from_secs(1);
    let bench = Bench { supernodes: 5, accounts: 20, lookups: 200, at_once: 2, settle, seed: 3 };
    let measured = bench::run(bench).unwrap();
    assert_eq!(measured["success"], 1.0, "{measured}");
    assert_eq!(measured["writes"]["acknowledged"], 100, "{measured}");
    assert_eq!(measured["old"], 0, "{measured}");
}

#[test]
fn real_nothing_acknowledged_is_lost_when_supernodes_are_killed() {
    let kill = Kill {
        supernodes: 12,
        killed: 3,
        rounds: 2,
        writes_per_s: 200,
        accounts: 60,
        writing: (Duration::from_millis(1_000), Duration::from_millis(3_000)),
        seed: 4,
    };
    let done = kill::run(kill).unwrap();
    assert!(done["acknowledged"].as_u64() >= Some(1_000), "{done}");
    assert_eq!(done["unreadable"], 0, "{done}");
    assert_eq!(done["unreadable_when_back"], 0, "{done}");
}

#[test]
fn real_junk_and_forgeries_cost_no_memory_and_no_lookup() {
    let flood = Flood {
        supernodes: 5,
        accounts: 20,
        lasts: Duration::from_secs(5),
        rate: 50_000,
        lookups_per_s: 50,
        seed: 5,
    };
    let done = flood::run(flood).unwrap();
    assert!(done["sent"].as_u64() >= Some(100_000), "{done}");
    assert_eq!(done["ok"], true, "{done}");
}
