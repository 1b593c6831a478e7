//! What breaks in the middle of a call: the path, UDP as a whole, the relay's supernode, everything, a daemon. Either
//! the sound goes on another way, or both ends say why it ended.

use std::process::ExitCode;
use std::time::Duration;

use yodel_tests::lab::harness::{self, Test};
use yodel_tests::lab::pair::{Pair, assert_heard, event};
use yodel_tests::lab::realm::finish;
use yodel_tests::lab::scene::{Placed, SUPERNODES, Told, Voices, converse};
use yodel_tests::lab::{LabError, Nat, Process};

const TESTS: &[Test] = &[
    ("real_cut_path", cut_path),
    ("real_udp_shut", udp_shut),
    ("real_killed_relay", killed_relay),
    ("real_all_cut", all_cut),
    ("real_killed_daemon", killed_daemon),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until both ends are on this path, and speak.
fn on_path(ends: [&Process; 2], path: &str) -> Result<(), LabError> {
    for end in ends {
        event(end, PATIENCE, |event| event["state"] == "path" && event["path"] == path)?;
    }
    std::thread::sleep(Duration::from_millis(1_500));
    Ok(())
}

/// Nobody was unheard for longer than this, and both ends are on this path at the end.
fn assert_moved(what: &str, placed: &Placed, path: &str, gap: Duration) {
    for (said, comparison) in ["caller", "callee"].into_iter().zip(&placed.heard) {
        println!(
            "{what}: {:.1} % of what the {said} said was heard, longest gap {} ms",
            comparison.share * 100.0,
            comparison.longest_gap_ms
        );
    }
    let story = format!("caller: {}\ncallee: {}", placed.out.summary(), placed.inward.summary());
    println!("{story}");
    for told in [&placed.out, &placed.inward] {
        assert_eq!(told.last_path(), Some(path), "{story}");
    }
    for comparison in &placed.heard {
        assert!(u128::from(comparison.longest_gap_ms) <= gap.as_millis(), "{comparison:?}\n{story}");
    }
}

/// Nothing passes between the two homes any more: the relay carries the sound.
fn cut_path() {
    let pair = Pair::new("cut", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let placed = converse(&pair.alice, &pair.bob, &pair.voices, &[], |calling, answering| {
        on_path([calling, answering], "direct")?;
        let homes = &pair.scene.homes;
        pair.scene.lab.as_ref().unwrap().cut(homes[0].addr, homes[1].addr, true)
    })
    .unwrap();
    assert_moved("the direct path cut", &placed, "relay-udp", Duration::from_millis(700));
}

/// A firewall drops all UDP of one home: a relay over TCP carries the sound.
fn udp_shut() {
    let mut pair = Pair::new("shut", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    pair.voices = Voices::speak(&pair.scene.realm.dir).unwrap();
    let placed = converse(&pair.alice, &pair.bob, &pair.voices, &[], |calling, answering| {
        on_path([calling, answering], "direct")?;
        pair.scene.homes[1].shut_udp()
    })
    .unwrap();
    assert_moved("UDP shut at one home", &placed, "relay-tcp", Duration::from_secs(4));
}

/// The supernode that relays is killed: another one relays.
fn killed_relay() {
    let mut pair = Pair::new("relay", Nat::Symmetric, Some(Nat::Symmetric), &[]).unwrap();
    pair.voices = Voices::speak(&pair.scene.realm.dir).unwrap();
    let realm = &mut pair.scene.realm;
    let placed = converse(&pair.alice, &pair.bob, &pair.voices, &[], |calling, answering| {
        on_path([calling, answering], "relay-udp")?;
        let relaying = |number: &usize| realm.supernode_status(*number).unwrap()["relays"] != 0;
        let relay: Vec<usize> = (0..SUPERNODES.len()).filter(relaying).collect();
        assert_eq!(relay.len(), 1, "one supernode relays, not {relay:?}");
        realm.kill_supernode(relay[0]);
        Ok(())
    })
    .unwrap();
    assert_moved("the relay killed", &placed, "relay-udp", Duration::from_secs(4));
}

/// Nothing passes from one home to anywhere: both ends say so, and soon.
fn all_cut() {
    let pair = Pair::new("all", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let mut answering = pair.bob.auto_answer("tone:440").unwrap();
    let mut calling = pair.alice.spawn(&["call", "bob", "--json", "--audio", "tone:660"]).unwrap();
    on_path([&calling, &answering], "direct").unwrap();
    let at = pair.scene.realm.clock.now().mono;
    pair.scene.homes[1].drop_forwarded("meta l4proto { tcp, udp }").unwrap();
    let done = finish(&mut calling, Duration::from_secs(30)).unwrap();
    event(&answering, PATIENCE, |event| event["state"] == "ended").unwrap();
    let (out, inward) = (Told::by(&calling), Told::by(&answering));
    answering.stop(PATIENCE);
    for (who, told) in [("caller", &out), ("callee", &inward)] {
        let ended = told.read_at("ended").unwrap().since(at);
        println!("all cut: the {who} ends with {} after {ended:?}", told.cause().unwrap());
        assert_eq!(told.cause(), Some("path.lost"), "{}", told.summary());
        assert!(ended < Duration::from_secs(20));
    }
    assert_eq!(done.code, Some(8), "{}", done.stderr);
    for phone in [&pair.alice, &pair.bob] {
        assert_eq!(phone.run(&["why", "last", "--json"]).unwrap().json()["cause"], "path.lost");
    }
}

/// `kill -9` of the caller's daemon in a call: what it leaves behind blocks nothing, and calling again works at once.
fn killed_daemon() {
    let mut pair = Pair::new("daemon", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let mut answering = pair.bob.auto_answer(&pair.voices.audio(1)).unwrap();
    let mut calling = pair.alice.spawn(&["call", "bob", "--json", "--audio", "tone:660"]).unwrap();
    on_path([&calling, &answering], "direct").unwrap();
    let at = pair.scene.realm.clock.now().mono;
    pair.alice.kill();
    let done = finish(&mut calling, Duration::from_secs(5)).unwrap();
    println!("the command whose daemon was killed: exit {:?}, {}", done.code, done.stderr);
    assert_eq!(done.code, Some(3));
    pair.alice.start().unwrap();
    println!("online again {:?} after the kill", pair.scene.realm.clock.now().mono.since(at));
    let why = pair.alice.run(&["why", "last", "--json"]).unwrap();
    println!("why after the restart: {:?} {} {}", why.code, why.stdout, why.stderr);
    std::thread::sleep(Duration::from_millis(500));
    // Calling again at once: the callee's phone does not take it for a second call.
    let mut calling =
        pair.alice.spawn(&["call", "bob", "--json", "--audio", "tone:660", "--max", "2s"]).unwrap();
    let done = finish(&mut calling, PATIENCE).unwrap();
    let (out, inward) = (Told::by(&calling), Told::by(&answering));
    println!("again: {}\ncallee: {}", out.summary(), inward.summary());
    let ended = event(&answering, Duration::from_secs(20), |event| event["state"] == "ended").unwrap();
    println!("the callee's first call: {} after {} ms", ended["cause"], ended["t_ms"]);
    assert_eq!(ended["cause"], "path.lost");
    assert_eq!(done.code, Some(0), "{}", out.summary());
    answering.stop(PATIENCE);
    let placed = pair.converse(&[]).unwrap();
    assert_heard("after the restart", &placed);
}
