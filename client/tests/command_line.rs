//! The program itself, where nobody is signed in: exit codes and outputs that need no realm.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("yodel-cli-{}-{name}", std::process::id()));
    let _absent = std::fs::remove_dir_all(&path);
    path
}

fn yodel(dir: &PathBuf, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_yodel"))
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .env_remove("YODEL_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(dir: &PathBuf, arguments: &[&str]) -> Option<i32> {
    yodel(dir, arguments).status.code()
}

#[test]
fn exit_codes_without_a_realm() {
    let dir = folder("codes");
    for (arguments, expected) in [
        (&["--version"][..], 0),
        (&["help"], 0),
        (&["help", "call"], 0),
        (&["help", "frobnicate"], 2),
        (&["frobnicate"], 2),
        (&["call"], 2),
        (&["call", "bob", "--audio", "loud"], 2),
        (&["call", "bob", "--max", "soon"], 2),
        (&["sign-in", "alice@example.net", "--invite", "rubbish", "--password-stdin"], 2),
        (&["config", "check"], 0),
        (&["config", "example"], 0),
        (&["man"], 0),
        (&["completions", "fish"], 0),
        (&["status", "--no-autostart"], 3),
        (&["call", "bob", "--no-autostart", "--audio", "null"], 3),
        (&["daemon", "stop"], 3),
        (&["daemon", "run"], 4),
        (&["status"], 4),
        (&["contacts", "list", "--json"], 4),
    ] {
        assert_eq!(code(&dir, arguments), Some(expected), "{arguments:?}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn failures_are_objects_on_stderr_and_nothing_on_stdout() {
    let dir = folder("json");
    let output = yodel(&dir, &["status", "--json", "--no-autostart"]);
    assert!(output.stdout.is_empty());
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["v"], &error["exit"]), (&1.into(), &3.into()));
}

#[test]
fn every_object_carries_its_version() {
    let dir = folder("version");
    for arguments in [
        &["help", "causes", "--json"][..],
        &["help", "exit-codes", "--json"],
        &["config", "show", "--json"],
        &["config", "example", "--json"],
        &["man", "--json"],
        &["--json", "completions", "zsh"],
        &["help", "call", "--json"],
    ] {
        let output = yodel(&dir, arguments);
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["v"], 1, "{line}");
        }
    }
}

#[test]
fn a_wrong_setting_is_wrong_usage_and_an_unknown_one_warns() {
    let dir = folder("config");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "autostrat = false\n").unwrap();
    let output = yodel(&dir, &["config", "check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("did you mean \"autostart\"?"));
    std::fs::write(dir.join("config.toml"), "listen = 5\n").unwrap();
    assert_eq!(code(&dir, &["config", "check"]), Some(2));
    std::fs::write(dir.join("config.toml"), "autostart = false\n").unwrap();
    assert_eq!(code(&dir, &["status"]), Some(3));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn settings_that_cannot_be_read_failed_and_the_environment_is_named() {
    let dir = folder("unreadable");
    std::fs::create_dir_all(dir.join("config.toml")).unwrap();
    assert_eq!(code(&dir, &["status", "--no-autostart"]), Some(1));
    std::fs::remove_dir_all(&dir).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_yodel"))
        .args(["config", "show", "--dir"])
        .arg(&dir)
        .env("YODEL_AUDIO", "loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("yodel: YODEL_AUDIO: "));
}

#[test]
fn what_comes_later_says_so_and_is_not_offered() {
    let dir = folder("later");
    for arguments in [
        &["chat", "bob", "hi"][..],
        &["presence"],
        &["hold"],
        &["gateway", "run"],
        &["contacts", "verify", "bob"],
        &["help", "presence"],
    ] {
        let output = yodel(&dir, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("comes with a later version"), "{arguments:?}: {said}");
    }
    let help = String::from_utf8(yodel(&dir, &["--help"]).stdout).unwrap();
    assert!(!help.contains("chat") && !help.contains("gateway"), "{help}");
}

#[test]
fn asking_makes_no_folder_and_a_call_that_never_was_ends_in_its_cause() {
    let dir = folder("typo");
    assert_eq!(code(&dir, &["status"]), Some(4));
    let output = yodel(&dir, &["call", "bob", "--json", "--audio", "null"]);
    assert_eq!(output.status.code(), Some(4));
    let ended: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&ended["v"], &ended["state"]), (&1.into(), &"ended".into()));
    assert_eq!((&ended["cause"], &ended["exit"]), (&"signin.expired".into(), &4.into()));
    assert!(!dir.exists());
}
