//! Login server and supernodes as programs, on loopback: into the realm, ready, killed, ended, revoked.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use yodel_net::clock::Clock;
use yodel_tests::lab::realm::{Realm, Where, finish, loopback, program};
use yodel_tests::lab::{LabError, Process};

const PATIENCE: Duration = Duration::from_secs(20);

fn realm(name: &str) -> Realm {
    let dir = std::env::temp_dir().join(format!("yodel-servers-{name}-{}", std::process::id()));
    Realm::start(&dir, false, Where::Here, loopback().unwrap()).unwrap()
}

fn supernode(realm: &mut Realm, options: &[&str]) -> usize {
    realm.add_supernode(Where::Here, loopback().unwrap(), &[], options).unwrap()
}

/// Runs `yodel-supernode` to its end.
fn command(arguments: &[&str], dir: &PathBuf) -> (Option<i32>, Value, String) {
    let mut command = Command::new(program("yodel-supernode").unwrap());
    command.args(arguments).arg("--json").arg("--dir").arg(dir);
    let done = finish(&mut Process::start(Clock::start(), command).unwrap(), PATIENCE).unwrap();
    (done.code, done.json(), done.stderr)
}

/// Waits until the status of a supernode says what is wanted.
fn until(realm: &Realm, number: usize, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = realm.clock.now().mono;
    loop {
        let status = realm.supernode_status(number).unwrap();
        if wanted(&status) {
            return status;
        }
        assert!(realm.clock.now().mono.since(began) < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_end(process: &mut Process) -> Result<Option<i32>, LabError> {
    finish(process, PATIENCE).map(|done| done.code)
}

#[test]
fn real_supernodes_come_die_return_and_leave() {
    let mut realm = realm("life");
    let first = supernode(&mut realm, &[]);
    let alone = realm.supernode_status(first).unwrap();
    assert_eq!((&alone["v"], &alone["members"], &alone["draining"]), (&1.into(), &1.into(), &false.into()));
    for field in ["clients", "records", "relays"] {
        assert_eq!(alone[field], 0, "{field}");
    }
    let second = supernode(&mut realm, &[]);
    for number in [first, second] {
        until(&realm, number, |status| status["members"] == 2);
    }
    let dir = realm.supernodes[first].dir.clone();
    let (code, checked, _) = command(&["check"], &dir);
    assert_eq!((code, &checked["running"]), (Some(0), &true.into()), "{checked}");

    // A second `init` and a second `run` harm nothing.
    let invite = realm.invite(&["--role", "supernode"]).unwrap();
    let (code, ..) = command(&["init", "--invite", &invite, "--listen", "127.0.0.1:0"], &dir);
    assert_eq!(code, Some(1));
    let (code, _, said) = command(&["run"], &dir);
    assert_eq!(code, Some(1), "{said}");

    // Killed: the socket stays behind, and nobody answers on it.
    realm.kill_supernode(first);
    assert!(dir.join("admin.sock").exists());
    assert_eq!(command(&["status"], &dir).0, Some(3));
    until(&realm, second, |status| status["members"] == 1);
    realm.run_supernode(first).unwrap();
    for number in [first, second] {
        until(&realm, number, |status| status["members"] == 2);
    }

    // Without the login server a killed one comes back by the bulletin that it keeps.
    realm.login.take().unwrap().kill();
    realm.kill_supernode(first);
    realm.run_supernode(first).unwrap();
    until(&realm, first, |status| status["members"] == 2 && status["login_server"] == false);
    realm.run_login_server().unwrap();
    until(&realm, first, |status| status["login_server"] == true);

    // Draining is told, waited for and taken back; nobody is attached, so there is nothing to wait for.
    let (code, drained, said) = command(&["drain", "--wait", "--deadline", "5s"], &dir);
    assert_eq!(
        (code, &drained["draining"], &drained["clients"]),
        (Some(0), &true.into(), &0.into()),
        "{said}"
    );
    assert_eq!(realm.supernode_status(first).unwrap()["draining"], true);
    until(&realm, second, |status| status["members"] == 2);
    let (code, drained, _) = command(&["undrain"], &dir);
    assert_eq!((code, &drained["draining"]), (Some(0), &false.into()));

    // SIGHUP is survived; SIGTERM ends it cleanly, and it leaves the realm.
    let mut process = realm.supernodes[first].process.take().unwrap();
    process.signal(Signal::SIGHUP);
    realm.supernode_status(first).unwrap();
    assert_eq!(process.stdout().len(), 1, "one ready line");
    process.signal(Signal::SIGTERM);
    assert_eq!(wait_end(&mut process).unwrap(), Some(0), "{}", process.stderr());
    assert!(!dir.join("admin.sock").exists());
    until(&realm, second, |status| status["members"] == 1);
    let bulletin = realm.login_server(&["bulletin", "show"]).unwrap().to_string();
    assert!(!bulletin.contains(&realm.supernodes[first].node), "{bulletin}");
}

#[test]
fn real_revoked_supernodes_end_with_4() {
    let mut realm = realm("revoked");
    let number = supernode(&mut realm, &[]);
    let node = realm.supernodes[number].node.clone();
    realm.login_server(&["device", "revoke", &node]).unwrap();
    let mut process = realm.supernodes[number].process.take().unwrap();
    assert_eq!(wait_end(&mut process).unwrap(), Some(4), "{}", process.stderr());
    let (code, _, said) = command(&["run"], &realm.supernodes[number].dir);
    assert_eq!(code, Some(4), "{said}");
}

#[test]
fn real_init_says_why_not() {
    let realm = realm("init");
    let dir = realm.dir.join("supernode");
    let init = |invite: &str| command(&["init", "--invite", invite, "--listen", "127.0.0.1:0"], &dir);
    assert_eq!(init("yodel1abc").0, Some(2));
    let user = realm.invite(&["--user", "alice"]).unwrap();
    assert_eq!(init(&user).0, Some(2), "a person's invitation");
    let (code, _, said) = command(&["run"], &dir);
    assert_eq!(code, Some(4), "{said}");
    let invite = realm.invite(&["--role", "supernode"]).unwrap();
    let (code, made, _) = init(&invite);
    assert_eq!(code, Some(0));
    assert_eq!(
        (made["realm"].as_str(), made["node"].as_str().map(str::len)),
        (Some("example.net"), Some(32))
    );
    let other = realm.dir.join("other");
    let (code, ..) = command(&["init", "--invite", &invite, "--listen", "127.0.0.1:0"], &other);
    assert_eq!(code, Some(11), "the invitation is used up");
    let unused = realm.invite(&["--role", "supernode"]).unwrap();
    drop(realm);
    let (code, ..) = command(&["init", "--invite", &unused, "--listen", "127.0.0.1:0"], &other);
    assert_eq!(code, Some(6), "nobody answers");
    let _ = std::fs::remove_dir_all(other.parent().unwrap());
}

/// Port 0 and a folder whose path is too long for a socket.
#[test]
fn real_any_port_below_a_long_path() {
    let realm = realm("port");
    let dir = realm.dir.join("long/".repeat(30));
    let invite = realm.invite(&["--role", "supernode"]).unwrap();
    let (code, _, said) =
        command(&["init", "--invite", &invite, "--listen", "127.0.0.1:0", "--tcp", "0"], &dir);
    assert_eq!(code, Some(0), "{said}");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut run = Command::new(program("yodel-supernode").unwrap());
        run.args(["run", "--json", "--dir"]).arg(&dir);
        let mut process = Process::start(Clock::start(), run).unwrap();
        let ready = process.wait_for_json(PATIENCE, |line| line["event"] == "ready");
        let ready = ready.unwrap_or_else(|| panic!("{}", process.stderr()));
        assert_eq!((&ready["v"], &ready["udp"][0]), (&1.into(), &ready["listen"][0]));
        assert_eq!(ready["tcp"], ready["listen"]);
        let (code, status, _) = command(&["status"], &dir);
        assert_eq!((code, &status["node"]), (Some(0), &ready["node"]));
        seen.push(ready["node"].clone());
        // Killed, so that the second run starts with a bulletin that names the first run's port.
        process.kill();
    }
    assert_eq!(seen[0], seen[1]);
}
