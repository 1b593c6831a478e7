//! The commands as scripts use them, on loopback with the release programs: exit codes, streams, files and what stays
//! when input ends. `cli_servers.rs` holds what concerns the servers' commands alone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use yodel_net::clock::Clock;
use yodel_tests::lab::Process;
use yodel_tests::lab::realm::{Done, Phone, Realm, Where, befriend, finish, loopback, program};

const PATIENCE: Duration = Duration::from_secs(20);
const ALICE: &str = "alice@example.net";

fn realm(name: &str) -> Realm {
    let dir = std::env::temp_dir().join(format!("yodel-cli-{name}-{}", std::process::id()));
    let mut realm = Realm::start(&dir, false, Where::Here, loopback().unwrap()).unwrap();
    for _ in 0..2 {
        realm.add_supernode(Where::Here, loopback().unwrap(), &[], &[]).unwrap();
    }
    realm
}

fn phone(realm: &Realm, user: &str) -> Phone {
    let mut phone = realm.sign_in(Where::Here, user).unwrap();
    phone.start().unwrap();
    phone
}

/// Runs `yodel` to its end with this text on stdin.
fn with_stdin(dir: &Path, arguments: &[&str], stdin: &str) -> Done {
    let file = dir.with_extension("stdin");
    std::fs::write(&file, stdin).unwrap();
    // The lab gives its processes no input of their own.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" <\"$INPUT\""]).env("INPUT", &file);
    command.arg(program("yodel").unwrap()).arg("--dir").arg(dir).args(arguments);
    finish(&mut Process::start(Clock::start(), command).unwrap(), PATIENCE).unwrap()
}

fn sign_in(realm: &Realm, folder: &str, account: &str, invite: &str, password: &str) -> Done {
    let arguments = ["sign-in", account, "--invite", invite, "--password-stdin", "--json"];
    with_stdin(&realm.dir.join(folder), &arguments, &format!("{password}\n"))
}

/// The exit code and the cause in the last object of the stream.
fn end(done: &Done) -> (Option<i32>, String) {
    let last = done.json();
    assert_eq!((&last["v"], &last["state"]), (&1.into(), &"ended".into()), "{done:?}");
    assert_eq!(last["exit"].as_i64().map(|exit| exit as i32), done.code, "{done:?}");
    (done.code, last["cause"].as_str().unwrap().to_owned())
}

fn call(phone: &Phone, more: &[&str]) -> Done {
    phone.run(&[&["call", "--json"], more].concat()).unwrap()
}

fn wav_seconds(path: &Path) -> f64 {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (bytes.len() - 44) as f64 / 96_000.0
}

#[test]
fn real_invitations_passwords_and_further_devices() {
    let realm = realm("accounts");
    let once = realm.invite(&["--uses", "1"]).unwrap();
    let first = sign_in(&realm, "alice", ALICE, &once, "right");
    assert_eq!((first.code, &first.json()["new_account"]), (Some(0), &true.into()), "{first:?}");
    assert_eq!(sign_in(&realm, "alice", ALICE, &once, "right").code, Some(1), "signed in already");
    assert_eq!(sign_in(&realm, "second", ALICE, &once, "wrong").code, Some(4));
    let second = sign_in(&realm, "second", ALICE, &once, "right");
    assert_eq!((second.code, &second.json()["new_account"]), (Some(0), &false.into()), "{second:?}");
    assert_ne!(second.json()["device"], first.json()["device"]);
    // Used up, expired, for somebody else, of another realm, and no password at all.
    assert_eq!(sign_in(&realm, "bob", "bob@example.net", &once, "right").code, Some(11));
    let brief = realm.invite(&["--user", "bob", "--expires", "1s"]).unwrap();
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(sign_in(&realm, "bob", "bob@example.net", &brief, "right").code, Some(11));
    let named = realm.invite(&["--user", "bob"]).unwrap();
    assert_eq!(sign_in(&realm, "carol", "carol@example.net", &named, "right").code, Some(2));
    assert_eq!(sign_in(&realm, "bob", "bob@example.org", &named, "right").code, Some(2));
    assert_eq!(sign_in(&realm, "bob", "bob@example.net", &named, "").code, Some(2));

    let shown = realm.login_server(&["user", "show", "alice"]).unwrap();
    assert_eq!(shown["devices"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(realm.login_server(&["user", "list"]).unwrap()["users"].as_array().map(Vec::len), Some(1));
}

#[test]
fn real_revoked_devices_are_told_so_also_after_a_restart() {
    let realm = realm("revoked");
    let mut alice = phone(&realm, "alice");
    let device = alice.run(&["status", "--json"]).unwrap().json()["device"].as_str().unwrap().to_owned();
    realm.login_server(&["device", "revoke", &device]).unwrap();
    alice.stop();
    // A dial at the very moment in which the first home refuses us.
    alice.daemon = Some(alice.spawn(&["daemon", "run", "--json"]).unwrap());
    let ready = alice.daemon.as_mut().unwrap().wait_for_json(PATIENCE, |line| line["event"] == "ready");
    assert!(ready.is_some());
    let done = call(&alice, &["bob", "--audio", "null"]);
    assert_eq!(end(&done), (Some(4), "signin.expired".to_owned()), "{done:?}");
    assert_eq!(alice.run(&["status", "--json"]).unwrap().json()["state"], "offline");
}

#[test]
fn real_homes_are_named_as_they_name_themselves() {
    let realm = realm("homes");
    let alice = phone(&realm, "alice");
    let homes = alice.wait_homes(2, PATIENCE).unwrap();
    let nodes = [0, 1].map(|n| realm.supernode_status(n).unwrap()["node"].as_str().unwrap().to_owned());
    assert!(homes.iter().all(|home| nodes.contains(home)), "{homes:?} {nodes:?}");
    let status = alice.run(&["--json", "status"]).unwrap().json();
    assert_eq!((&status["account"], &status["state"]), (&ALICE.into(), &"online".into()));
    assert!(status["nat"]["mapping"].is_string() && status["nat"]["filtering"].is_string(), "{status}");
    assert!(status["homes"][0]["addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{status}");
}

#[test]
fn real_doctor_says_what_a_realm_of_one_supernode_is_worth() {
    let dir = std::env::temp_dir().join(format!("yodel-cli-doctor-{}", std::process::id()));
    let mut realm = Realm::start(&dir, false, Where::Here, loopback().unwrap()).unwrap();
    realm.add_supernode(Where::Here, loopback().unwrap(), &[], &[]).unwrap();
    let alice = phone(&realm, "alice");
    alice.wait_homes(1, PATIENCE).unwrap();
    let saved = realm.dir.join("report.json");
    let done = alice.run(&["doctor", "--json", "--save", saved.to_str().unwrap()]).unwrap();
    let report = done.json();
    assert_eq!((done.code, &report["ok"]), (Some(0), &true.into()), "{report}");
    let of = |what: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["check"] == what)
            .unwrap_or_else(|| panic!("{what}: {report}"))
            .clone()
    };
    assert!(of("overlay")["detail"].as_str().unwrap().contains("nothing survives its death"), "{report}");
    for what in ["identity", "clock", "bulletin", "login-server", "fallback"] {
        assert_eq!(of(what)["verdict"], "ok", "{what}: {report}");
    }
    assert!(std::fs::read_to_string(&saved).unwrap().contains("alice@example.net"));
    realm.kill_supernode(0);
    let told = |alice: &Phone| alice.run(&["doctor"]).unwrap().code;
    let began = Clock::start();
    while told(&alice) != Some(1) {
        assert!(began.now().mono.as_micros() < 30_000_000, "a dead home is noticed");
    }
}

#[test]
fn real_calls_end_with_the_code_of_their_cause() {
    let realm = realm("calls");
    let (alice, bob, eve) = (phone(&realm, "alice"), phone(&realm, "bob"), phone(&realm, "eve"));
    befriend(&alice, &bob).unwrap();
    let cause = |phone: &Phone, more: &[&str]| end(&call(phone, more));
    let is = |code: i32, cause: &str| (Some(code), cause.to_owned());
    assert_eq!(cause(&alice, &["nosuch", "--audio", "null"]), is(5, "lookup.no-user"));
    assert_eq!(cause(&alice, &["bob@example.org", "--audio", "null"]), is(5, "lookup.no-user"));
    assert_eq!(cause(&eve, &["bob", "--audio", "null"]), is(11, "policy.unknown-caller"));
    assert_eq!(cause(&alice, &["bob", "--audio", "file:absent.wav"]), is(10, "audio.no-device"));
    assert_eq!(cause(&alice, &["bob", "--audio", "null", "--timeout", "500ms"]), is(6, "peer.no-alert"));
    assert_eq!(call(&alice, &["b b"]).code, Some(2));

    // A blocked contact hears what a stranger hears; only the blocker's history knows.
    bob.run(&["contacts", "block", "alice"]).unwrap().success("block").unwrap();
    assert_eq!(cause(&alice, &["bob", "--audio", "null"]), is(11, "policy.unknown-caller"));
    assert_eq!(bob.run(&["why", "last", "--json"]).unwrap().json()["cause"], "policy.blocked");
    bob.run(&["contacts", "unblock", "alice"]).unwrap().success("unblock").unwrap();

    let mut watching = bob.spawn(&["events", "--only", "call", "--json"]).unwrap();
    let mut ringing = alice.spawn(&["call", "bob", "--json", "--audio", "null"]).unwrap();
    assert!(watching.wait_for_json(PATIENCE, |line| line["state"] == "alerted").is_some());
    assert_eq!(bob.run(&["calls", "--json"]).unwrap().json()["calls"][0]["peer"], ALICE);
    assert_eq!(bob.run(&["decline"]).unwrap().code, Some(0));
    assert_eq!(end(&finish(&mut ringing, PATIENCE).unwrap()), is(7, "peer.declined"));

    let mut ringing = alice.spawn(&["call", "bob", "--json", "--audio", "null"]).unwrap();
    assert!(ringing.wait_for_json(PATIENCE, |line| line["state"] == "alerted").is_some());
    let answered = bob.run(&["answer", "--json", "--audio", "tone:440"]).unwrap();
    assert_eq!((answered.code, &answered.json()["state"]), (Some(0), &"answered".into()), "{answered:?}");
    assert!(ringing.wait_for_json(PATIENCE, |line| line["state"] == "media").is_some());
    ringing.signal(Signal::SIGINT);
    let interrupted = finish(&mut ringing, PATIENCE).unwrap();
    assert_eq!((interrupted.code, &interrupted.json()["cause"]), (Some(130), &"local.hangup".into()));
    let left = watching.wait_for_json(PATIENCE, |line| line["cause"] == "remote.hangup");
    assert!(left.is_some(), "the other side is told");
    watching.signal(Signal::SIGTERM);
    assert_eq!(finish(&mut watching, PATIENCE).unwrap().code, Some(0));
    for idle in ["decline", "hangup"] {
        let done = alice.run(&[idle, "--json"]).unwrap();
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{idle}");
    }
}

#[test]
fn real_auto_answer_stays_and_numbers_its_files() {
    let realm = realm("auto");
    let (alice, bob) = (phone(&realm, "alice"), phone(&realm, "bob"));
    befriend(&alice, &bob).unwrap();
    // What cannot work is said at once, not when somebody calls.
    for audio in ["default", "file:absent.wav", "file:,/absent/out.wav"] {
        assert_eq!(bob.run(&["answer", "--auto", "--audio", audio]).unwrap().code, Some(10), "{audio}");
    }
    // It rings already, and nobody sees it yet.
    let mut early = alice.spawn(&["call", "bob", "--json", "--audio", "tone:440", "--max", "1s"]).unwrap();
    assert!(early.wait_for_json(PATIENCE, |line| line["state"] == "contacting").is_some());
    let mut command =
        bob.command(&["answer", "--auto", "--from", "alice", "--audio", "file:,heard.wav"]).unwrap();
    command.current_dir(&realm.dir).stdin(Stdio::null());
    let mut auto = Process::start(realm.clock, command).unwrap();
    assert!(auto.wait_for_json(PATIENCE, |line| line["event"] == "ready" && line["v"] == 1).is_some());
    assert_eq!(end(&finish(&mut early, PATIENCE).unwrap()).0, Some(0));
    let mut command = alice.command(&["call", "bob", "--json", "--max", "1", "--relay-only"]).unwrap();
    command.args(["--audio", "tone:440", "--record", "both.wav"]).current_dir(&realm.dir);
    let done = finish(&mut Process::start(realm.clock, command).unwrap(), PATIENCE).unwrap();
    assert_eq!(end(&done), (Some(0), "local.hangup".to_owned()), "{done:?}");
    let paths: Vec<Value> = done.all_json().into_iter().filter(|line| line["state"] == "path").collect();
    assert!(!paths.is_empty() && paths.iter().all(|line| line["path"] == "relay-udp"), "{paths:?}");
    assert!(!auto.ended(), "end of its input does not end it");
    auto.signal(Signal::SIGINT);
    assert_eq!(finish(&mut auto, PATIENCE).unwrap().code, Some(130));
    for file in ["heard.wav", "heard-2.wav", "both.wav"] {
        let seconds = wav_seconds(&realm.dir.join(file));
        assert!((0.8..=1.2).contains(&seconds), "{file}: {seconds} s");
    }
    // A dry run rings nobody and ends as the call would that cannot begin.
    let reach = call(&alice, &["bob", "--dry-run"]);
    let said = reach.json();
    assert_eq!((reach.code, &said["v"], &said["peer"]), (Some(0), &1.into(), &"bob@example.net".into()));
    assert_eq!(said["devices"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(end(&call(&alice, &["nobody", "--dry-run"])), (Some(5), "lookup.no-user".to_owned()));
    assert_eq!(call(&alice, &["echo", "--dry-run"]).code, Some(0));
    assert!(bob.run(&["calls", "--json"]).unwrap().json()["calls"].as_array().unwrap().is_empty());
    // `echo` answers in every realm, also on a phone that knows nobody.
    let done = call(&bob, &["echo", "--audio", "tone:440", "--max", "600ms"]);
    assert_eq!(end(&done), (Some(0), "local.hangup".to_owned()), "{done:?}");
}

#[test]
fn real_rpc_ends_when_nothing_is_owed_and_events_stay() {
    let realm = realm("rpc");
    let alice = phone(&realm, "alice");
    let lines = concat!(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n",
        "garbage\n",
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"no.such\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"call\",\"params\":{\"user\":5}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"call\",\"params\":{\"user\":\"echo\",\"audio\":\"null\",\"max\":\"200ms\"}}\n",
    );
    let done = with_stdin(&alice.dir, &["rpc"], lines);
    assert_eq!(done.code, Some(0), "{done:?}");
    let answers = done.all_json();
    let of = |id: Value| answers.iter().find(|line| line.get("id") == Some(&id)).cloned().unwrap_or_default();
    assert_eq!(of(1.into())["result"]["account"], ALICE);
    assert_eq!(
        (&of(Value::Null)["error"]["code"], &of(2.into())["error"]["code"]),
        (&(-32700).into(), &(-32601).into())
    );
    assert_eq!(of(3.into())["error"]["code"], -32602);
    let last = answers.last().unwrap();
    assert_eq!(
        (&last["params"]["call"], &last["params"]["state"]),
        (&of(4.into())["result"]["call"], &"ended".into())
    );

    let mut command = alice.command(&["events", "--json"]).unwrap();
    command.stdin(Stdio::null());
    let mut events = Process::start(realm.clock, command).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!events.ended());
    events.signal(Signal::SIGINT);
    assert_eq!(finish(&mut events, PATIENCE).unwrap().code, Some(130));
    assert_eq!(alice.run(&["events", "--only", "weather"]).unwrap().code, Some(2));
}

#[test]
fn real_daemons_one_a_folder_stale_sockets_and_long_paths() {
    let realm = realm("daemons");
    let mut alice = realm.sign_in(Where::Here, "alice").unwrap();
    let long = realm.dir.join("long/".repeat(30));
    std::fs::create_dir_all(long.parent().unwrap()).unwrap();
    std::fs::rename(&alice.dir, &long).unwrap();
    alice.dir = long;
    assert_eq!(alice.run(&["status"]).unwrap().code, Some(3));
    let start = with_stdin(&alice.dir, &["daemon", "start", "--json"], "");
    assert_eq!((start.code, &start.json()["running"]), (Some(0), &true.into()), "{start:?}");
    assert_eq!(alice.run(&["daemon", "run"]).unwrap().code, Some(1), "a second one");
    assert_eq!(alice.run(&["daemon", "stop"]).unwrap().code, Some(0));
    assert_eq!(alice.run(&["daemon", "stop"]).unwrap().code, Some(3));
    alice.start().unwrap();
    alice.kill();
    assert_eq!(alice.run(&["status"]).unwrap().code, Some(3), "the socket that a kill leaves is nobody");
    alice.start().unwrap();
    let mut daemon = alice.daemon.take().unwrap();
    daemon.signal(Signal::SIGTERM);
    let done = finish(&mut daemon, PATIENCE).unwrap();
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "ready"), "{done:?}");
    // A daemon that cannot start says why, in one line.
    std::fs::write(alice.dir.join("device.keys"), "rubbish").unwrap();
    let done = with_stdin(&alice.dir, &["status"], "");
    assert_eq!((done.code, done.stderr.trim().lines().count()), (Some(1), 1), "{done:?}");
    assert!(done.stderr.contains("malformed"), "{done:?}");
}
