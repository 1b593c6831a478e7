//! Calls between real programs behind real NATs: which path they take, by the internet's own counters, and whether both
//! sides were heard, by content.

use std::process::ExitCode;
use std::time::Duration;

use yodel_tests::audio_compare::compare_files;
use yodel_tests::lab::harness::{self, Test};
use yodel_tests::lab::pair::{HEARD, Pair, assert_heard};
use yodel_tests::lab::realm::finish;
use yodel_tests::lab::scene::{Placed, Told};
use yodel_tests::lab::{Nat, TCP, UDP};

const TESTS: &[Test] = &[
    ("real_direct", direct),
    ("real_relay_udp", relay_udp),
    ("real_relay_tcp", relay_tcp),
    ("real_direct_lan", direct_lan),
    ("real_echo", echo),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Packets of one direction of this pair's speech: 50 a second.
fn packets(pair: &Pair) -> u64 {
    pair.voices.length.as_secs() * 50
}

/// Checks of two phones that try every way, both directions: budgets end them (D§6).
const CHECKS: u64 = 120;

fn assert_path(placed: &Placed, path: &str) {
    let story = || format!("caller: {}\ncallee: {}", placed.out.summary(), placed.inward.summary());
    assert_eq!(placed.out.last_path(), Some(path), "{}", story());
    assert_eq!(placed.inward.last_path(), Some(path), "{}", story());
}

fn direct() {
    let pair = Pair::new("direct", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let placed = pair.converse(&[]).unwrap();
    assert_heard("port-restricted × port-restricted", &placed);
    assert_path(&placed, "direct");
    for told in [&placed.out, &placed.inward] {
        let (media, direct) = (told.t_ms("media").unwrap(), told.path_t_ms("direct").unwrap());
        println!("direct {:.0} ms after the command or the INVITE, media {media:.0} ms", direct);
        assert!(direct - media <= 1_000.0, "{}", told.summary());
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let straight = pair.scene.between_homes(from, to, UDP).unwrap();
        assert!(straight >= packets(&pair), "{straight} packets went straight");
    }
}

fn relay_udp() {
    let pair = Pair::new("relay-udp", Nat::Symmetric, Some(Nat::Symmetric), &[]).unwrap();
    let placed = pair.converse(&[]).unwrap();
    assert_heard("symmetric × symmetric", &placed);
    assert_path(&placed, "relay-udp");
    for (from, to) in [(0, 1), (1, 0)] {
        let straight = pair.scene.between_homes(from, to, UDP).unwrap();
        assert!(straight <= CHECKS, "{straight} packets went straight");
        let relayed = pair.scene.to_supernodes(from, UDP).unwrap();
        assert!(relayed >= packets(&pair), "{relayed} packets went to supernodes");
    }
}

fn relay_tcp() {
    let mut pair = Pair::new("relay-tcp", Nat::PortRestricted, Some(Nat::UdpBlocked), &[]).unwrap();
    // The hardest case: the relay is the caller's home and not the callee's, who has to open a link to it first.
    let relay = pair.alice.wait_homes(2, PATIENCE).unwrap().swap_remove(0);
    while pair.bob.wait_homes(2, PATIENCE).unwrap().contains(&relay) {
        pair.bob.stop();
        pair.bob.start().unwrap();
    }
    let placed = pair.converse(&[]).unwrap();
    assert_heard("UDP blocked at the callee", &placed);
    assert_path(&placed, "relay-tcp");
    assert_eq!(pair.scene.to_supernodes(1, UDP).unwrap(), 0);
    assert_eq!(pair.scene.between_homes(1, 0, UDP).unwrap(), 0);
    let tcp = pair.scene.to_supernodes(1, TCP).unwrap();
    // A segment may carry several packets, but those of speech come one by one.
    assert!(tcp >= packets(&pair) / 2, "{tcp} segments from the blocked home");
    let udp = pair.scene.to_supernodes(0, UDP).unwrap();
    assert!(udp >= packets(&pair), "{udp} packets from the home that has UDP");
}

fn direct_lan() {
    let pair = Pair::new("direct-lan", Nat::PortRestricted, None, &[]).unwrap();
    let before = pair.scene.homes[0].counters().unwrap();
    let placed = pair.converse(&[]).unwrap();
    assert_heard("one LAN", &placed);
    assert_path(&placed, "direct-lan");
    let outside = pair.scene.homes[0].counters().unwrap() - before;
    // Signalling, checks and the pings of both phones to their homes; relayed speech would be four times its packets.
    assert!(outside.packets() <= 2 * packets(&pair), "{} packets crossed the door", outside.packets());
}

/// The caller's own home sends back what it hears.
fn echo() {
    let pair = Pair::new("echo", Nat::Symmetric, Some(Nat::UdpBlocked), &[]).unwrap();
    let max = format!("{}ms", (pair.voices.length + Duration::from_millis(1_500)).as_millis());
    let calls = [&pair.alice, &pair.bob].into_iter().enumerate().map(|(who, phone)| {
        let (said, heard) = (&pair.voices.said[who], &pair.voices.heard[who]);
        let audio = format!("file:{},{}", said.display(), heard.display());
        (phone.spawn(&["call", "echo", "--json", "--audio", &audio, "--max", &max]).unwrap(), said, heard)
    });
    let calls: Vec<_> = calls.collect();
    for (mut call, said, heard) in calls {
        let done = finish(&mut call, pair.voices.length + Duration::from_secs(20)).unwrap();
        let told = Told::by(&call);
        assert_eq!(done.code, Some(0), "{} {}", told.summary(), done.stderr);
        let comparison = compare_files(said, heard).unwrap();
        println!(
            "echo over {}: {:.1} % heard, {:.0} ms there and back",
            told.last_path().unwrap_or("?"),
            comparison.share * 100.0,
            comparison.delay_ms
        );
        assert!(comparison.share >= HEARD, "{comparison:?} {}", told.summary());
    }
}
