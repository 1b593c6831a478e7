//! Every way a call can fail, with real programs: its cause in the last event and in `why`, and the exit code.

use std::process::ExitCode;
use std::time::Duration;

use yodel_tests::lab::harness::{self, Test};
use yodel_tests::lab::pair::{Pair, event};
use yodel_tests::lab::realm::{Done, Phone, finish};
use yodel_tests::lab::scene::{Scene, Told, folder};
use yodel_tests::lab::{Nat, Process};

const TESTS: &[Test] = &[
    ("real_exit_codes", exit_codes),
    ("real_no_path", no_path),
    ("real_silent_calls", silent_calls),
    ("real_media_shut_on_direct_path", media_shut_on_direct_path),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

const PATIENCE: Duration = Duration::from_secs(30);

/// What a call that failed told.
struct Failed {
    done: Done,
    told: Told,
}

fn call(phone: &Phone, user: &str, options: &[&str]) -> Process {
    let mut arguments = vec!["call", user, "--json", "--audio", "tone:440"];
    arguments.extend(options);
    phone.spawn(&arguments).unwrap()
}

fn end(mut call: Process) -> Failed {
    let done = finish(&mut call, PATIENCE).unwrap();
    Failed { done, told: Told::by(&call) }
}

fn assert_cause(what: &str, phone: &Phone, failed: &Failed, cause: &str, exit: i32) {
    let Failed { done, told } = failed;
    println!("{what}: {:?} after {:?} ms, exit {:?}", told.cause(), told.t_ms("ended"), done.code);
    assert_eq!(told.cause(), Some(cause), "{what}: {} {}", told.summary(), done.stderr);
    assert_eq!(done.code, Some(exit), "{what}: {}", done.stderr);
    assert_eq!(told.events.iter().filter(|(_, event)| event["state"] == "ended").count(), 1, "{what}");
    let why = phone.run(&["why", "last", "--json"]).unwrap();
    assert_eq!(why.code, Some(0), "{what}: {}", why.stderr);
    assert_eq!(why.json()["cause"], cause, "{what}: {}", why.stdout);
    assert!(why.json()["next_step"].is_string(), "{what}: {}", why.stdout);
}

fn exit_codes() {
    let mut pair = Pair::new("exits", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let mut carol = pair.scene.phone(1, "carol").unwrap();

    assert_cause("no such user", &pair.alice, &end(call(&pair.alice, "nobody", &[])), "lookup.no-user", 5);

    // A stranger: Bob's phone does not ring, and has her on its list.
    let mut listening = pair.bob.spawn(&["events", "--only", "call", "--json"]).unwrap();
    let stranger = end(call(&carol, "bob", &[]));
    assert_cause("a stranger", &carol, &stranger, "policy.unknown-caller", 11);
    assert_eq!(Told::by(&listening).first("alerted"), None, "it rang");
    let requests = pair.bob.run(&["contacts", "requests", "--json"]).unwrap().stdout;
    assert!(requests.contains("carol"), "{requests}");

    // Declined by hand, where a user interface shows the ring.
    let calling = call(&pair.alice, "bob", &[]);
    event(&listening, PATIENCE, |event| event["state"] == "alerted").unwrap();
    assert_eq!(pair.bob.run(&["decline", "--json"]).unwrap().code, Some(0));
    assert_cause("declined", &pair.alice, &end(calling), "peer.declined", 7);
    event(&listening, PATIENCE, |event| event["cause"] == "peer.declined").unwrap();
    listening.stop(PATIENCE);

    // Busy: Bob talks with Carol.
    yodel_tests::lab::realm::befriend(&carol, &pair.bob).unwrap();
    let mut answering = pair.bob.auto_answer("tone:660").unwrap();
    let mut talking = call(&carol, "bob", &[]);
    event(&talking, PATIENCE, |event| event["state"] == "media").unwrap();
    assert_cause("busy", &pair.alice, &end(call(&pair.alice, "bob", &[])), "peer.busy", 7);
    assert_eq!(carol.run(&["hangup", "--json"]).unwrap().code, Some(0));
    assert_eq!(finish(&mut talking, PATIENCE).unwrap().code, Some(0));
    answering.stop(PATIENCE);

    // Offline: gone in order, and killed.
    carol.stop();
    let offline = end(call(&pair.bob, "carol", &[]));
    assert_cause("gone in order", &pair.bob, &offline, "peer.offline", 6);
    carol.start().unwrap();
    carol.kill();
    let offline = end(call(&pair.bob, "carol", &[]));
    assert_cause("killed", &pair.bob, &offline, "peer.offline", 6);
    assert!(offline.told.t_ms("ended").unwrap() < 10_000.0);

    // Revoked: known everywhere within a minute.
    let device = pair.alice.run(&["status", "--json"]).unwrap().json()["device"].as_str().unwrap().to_owned();
    let clock = pair.scene.realm.clock;
    let at = clock.now().mono;
    pair.scene.realm.login_server(&["device", "revoke", &device]).unwrap();
    let revoked = loop {
        let failed = end(call(&pair.alice, "bob", &["--timeout", "1s"]));
        if failed.done.code == Some(4) {
            break failed;
        }
        println!("{:?} after revoking: {:?}", clock.now().mono.since(at), failed.told.cause());
        assert_ne!(failed.told.cause(), Some("lookup.overlay-unreachable"), "the network is blamed");
        assert!(clock.now().mono.since(at) < Duration::from_secs(60), "{:?}", failed.told.cause());
        std::thread::sleep(Duration::from_millis(500));
    };
    println!(
        "revoked: noticed {:?} after; {:?} {}",
        clock.now().mono.since(at),
        revoked.told.cause(),
        revoked.done.stderr
    );
    assert_cause("revoked", &pair.alice, &revoked, "signin.expired", 4);
}

/// Two symmetric NATs, and supernodes that relay nothing.
fn no_path() {
    let mut scene = Scene::in_namespaces(&folder("no-path"), false, Duration::ZERO, &[]).unwrap();
    refuse_relaying(&mut scene);
    let pair = Pair::in_scene(scene, Nat::Symmetric, Some(Nat::Symmetric)).unwrap();
    let mut answering = pair.bob.auto_answer("tone:660").unwrap();
    let failed = end(call(&pair.alice, "bob", &[]));
    assert_cause("no path", &pair.alice, &failed, "path.all-failed", 8);
    let ended = event(&answering, PATIENCE, |event| event["state"] == "ended").unwrap();
    println!("no path: the callee is told {}", ended["cause"]);
    assert_eq!(ended["cause"], "path.all-failed");
    answering.stop(PATIENCE);
}

/// Quota 0, by the configuration that `init` wrote.
fn refuse_relaying(scene: &mut Scene) {
    for number in 0..scene.realm.supernodes.len() {
        let file = scene.realm.supernodes[number].dir.join("config.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let quota = text
            .lines()
            .map(|line| if line.starts_with("relay_bytes_per_s") { "relay_bytes_per_s = 0" } else { line });
        let text: Vec<&str> = quota.collect();
        std::fs::write(&file, text.join("\n")).unwrap();
        scene.realm.kill_supernode(number);
        scene.realm.run_supernode(number).unwrap();
    }
}

/// nftables: sealed media that goes straight, by its first byte.
const MEDIA: &str = "meta l4proto udp @th,64,8 >= 128 meta l4proto udp @th,64,8 <= 191";

/// Checks pass and no media: first from one side, then from both. There is no relay to go to.
fn silent_calls() {
    for (from, caller_says, callee_says) in [
        (vec![0], "media.one-way-out", "media.one-way-in"),
        (vec![1], "media.one-way-in", "media.one-way-out"),
        (vec![0, 1], "media.timeout", "media.timeout"),
    ] {
        let mut scene = Scene::in_namespaces(&folder("silent"), false, Duration::ZERO, &[]).unwrap();
        refuse_relaying(&mut scene);
        let pair = Pair::in_scene(scene, Nat::PortRestricted, Some(Nat::PortRestricted)).unwrap();
        for home in from {
            pair.scene.homes[home].drop_forwarded(&format!("iifname br0 {MEDIA}")).unwrap();
        }
        let mut answering = pair.bob.auto_answer("tone:660").unwrap();
        let failed = end(call(&pair.alice, "bob", &["--max", "4s"]));
        assert_cause("silent", &pair.alice, &failed, caller_says, 8);
        event(&answering, PATIENCE, |event| event["state"] == "ended").unwrap();
        assert_eq!(Told::by(&answering).cause(), Some(callee_says));
        assert_eq!(pair.bob.run(&["why", "last", "--json"]).unwrap().json()["cause"], callee_says);
        answering.stop(PATIENCE);
    }
}

/// A firewall that lets checks through and no media: the relay carries the sound.
fn media_shut_on_direct_path() {
    let pair = Pair::new("media-shut", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    pair.scene.homes[0].drop_forwarded(&format!("iifname br0 {MEDIA}")).unwrap();
    let placed = pair.converse(&[]).unwrap();
    println!("media shut on the direct path: {:?}", placed.heard);
    // A second of silence is the evidence; a report tells it, and the next packet goes by the relay.
    assert!(placed.heard.iter().all(|heard| heard.longest_gap_ms <= 1_500), "{:?}", placed.heard);
    assert_eq!(placed.out.last_path(), Some("relay-udp"), "{}", placed.out.summary());
}
