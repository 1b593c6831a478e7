//! The servers' commands as scripts use them: what needs no network beyond loopback.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use yodel_net::clock::Clock;
use yodel_tests::lab::Process;
use yodel_tests::lab::realm::{Done, finish, program};

const PATIENCE: Duration = Duration::from_secs(20);
const SERVERS: [&str; 2] = ["yodel-login-server", "yodel-supernode"];

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("yodel-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(server: &str, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(server).unwrap());
    command.args(arguments).arg("--dir").arg(dir);
    command
}

fn run(server: &str, dir: &Path, arguments: &[&str]) -> Done {
    finish(&mut Process::start(Clock::start(), command(server, dir, arguments)).unwrap(), PATIENCE).unwrap()
}

#[test]
fn settings_of_all_servers_behave_alike() {
    for server in SERVERS {
        let dir = Folder::new(&format!("settings-{server}"));
        let file = dir.0.join("config.toml");
        assert_eq!(run(server, &dir.0, &["config", "check"]).code, Some(0), "{server}: no file");
        let example = run(server, &dir.0, &["config", "example"]);
        std::fs::write(&file, &example.stdout).unwrap();
        let checked = run(server, &dir.0, &["config", "check", "--json"]);
        assert_eq!((checked.code, &checked.json()["ok"]), (Some(0), &true.into()), "{checked:?}");
        assert_eq!(run(server, &dir.0, &["--json", "config", "example"]).json()["v"], 1);

        std::fs::write(&file, "lisen = \"x\"\n").unwrap();
        let checked = run(server, &dir.0, &["config", "check", "--json"]);
        assert_eq!((checked.code, &checked.json()["ok"]), (Some(1), &false.into()), "{checked:?}");
        assert!(checked.json()["warnings"][0].as_str().unwrap().contains("did you mean \"listen\"?"));

        for text in ["listen = \"x\"\n", "listen = = \n"] {
            std::fs::write(&file, text).unwrap();
            let checked = run(server, &dir.0, &["config", "check", "--json"]);
            assert_eq!((checked.code, checked.stdout.as_str()), (Some(2), ""), "{checked:?}");
            let error: Value = serde_json::from_str(checked.stderr.trim()).unwrap();
            assert_eq!((&error["v"], &error["exit"]), (&1.into(), &2.into()));
        }
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\n").unwrap();
        let mut shown = command(server, &dir.0, &["config", "show", "--json"]);
        shown.env("YODEL_LISTEN", "127.0.0.1:2");
        let shown = finish(&mut Process::start(Clock::start(), shown).unwrap(), PATIENCE).unwrap();
        assert_eq!(shown.json()["listen"], "127.0.0.1:2", "the environment stands over the file");
    }
}

#[test]
fn exit_codes_where_nothing_was_made_yet() {
    for server in SERVERS {
        let dir = Folder::new(&format!("codes-{server}"));
        for (arguments, expected) in [
            (&["--version"][..], 0),
            (&["--help"], 0),
            (&["man"], 0),
            (&["completions", "bash", "--json"], 0),
            (&[], 2),
            (&["frobnicate"], 2),
            (&["init", "--listen", "here"], 2),
            (&["health"], 3),
            (&["check"], 1),
        ] {
            let done = run(server, &dir.0, arguments);
            assert_eq!(done.code, Some(expected), "{server} {arguments:?}: {done:?}");
        }
    }
    let dir = Folder::new("codes");
    assert_eq!(run("yodel-login-server", &dir.0, &["user", "list"]).code, Some(1));
    for arguments in [
        &["status"][..],
        &["drain", "--wait", "--deadline", "1s"],
        &["undrain"],
        &["overlay", "show"],
        &["overlay", "lookup", "bob@example.net"],
        &["overlay", "export", "--format", "dot"],
    ] {
        assert_eq!(run("yodel-supernode", &dir.0, arguments).code, Some(3), "{arguments:?}");
    }
    assert_eq!(run("yodel-supernode", &dir.0, &["run"]).code, Some(4));
    for (server, arguments) in
        [("yodel-login-server", &["backup", "create", "x"][..]), ("yodel-login-server", &["key", "rotate"])]
    {
        let done = run(server, &dir.0, arguments);
        assert_eq!(done.code, Some(2), "{arguments:?}");
        assert!(done.stderr.contains("comes with a later version"), "{done:?}");
    }
}

#[test]
fn real_login_server_serves_both_families_and_hands_invitations_out() {
    let folder = Folder::new("login");
    let dir = folder.0.join("login");
    let server = "yodel-login-server";
    let made = run(server, &dir, &["init", "--json", "--realm", "example.net", "--listen", "[::]:0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(["realm", "url", "pin"].iter().all(|field| made.json()[field].is_string()), "{made:?}");
    assert_eq!(run(server, &dir, &["init", "--realm", "example.net", "--listen", "[::]:0"]).code, Some(1));
    let mut serving = Process::start(Clock::start(), command(server, &dir, &["run", "--json"])).unwrap();
    let ready = serving.wait_for_json(PATIENCE, |line| line["event"] == "ready").unwrap();
    let port: u16 = ready["listen"][0].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(run(server, &dir, &["run"]).code, Some(1), "one server a folder");
    serving.signal(Signal::SIGHUP);

    // The code alone, as `invite=$(…)` takes it.
    let code = run(server, &dir, &["invite", "create", "--user", "alice"]);
    assert!(code.code == Some(0) && code.stdout.lines().count() == 1, "{code:?}");
    assert!(code.stdout.starts_with("yodel1"), "{code:?}");
    assert!(run(server, &dir, &["invite", "create", "--json"]).json()["invite"].is_string());
    for (arguments, expected) in [
        (&["--user", "a b"][..], 2),
        (&["--user", "echo"], 2),
        (&["--uses", "0"], 2),
        (&["--expires", "0"], 2),
        (&["--role", "king"], 2),
    ] {
        let arguments = [&["invite", "create"], arguments].concat();
        assert_eq!(run(server, &dir, &arguments).code, Some(expected), "{arguments:?}");
    }
    assert_eq!(run(server, &dir, &["user", "show", "nobody"]).code, Some(5));
    assert_eq!(run(server, &dir, &["device", "revoke", "00"]).code, Some(5));

    serving.signal(Signal::SIGTERM);
    assert_eq!(finish(&mut serving, PATIENCE).unwrap().code, Some(0));
    assert_eq!(serving.stdout().len(), 1, "one ready line");
}
