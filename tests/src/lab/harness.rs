//! `main` of a test binary whose tests need a lab: one without libtest, because libtest can only pass or fail. Where
//! there is no lab the tests are listed as ignored, so that no report counts them as having run, and stderr says why.
//!
//! Speaks what `cargo test` and nextest ask of a test binary: `--list`, `--ignored`, `--exact`, names.

use std::panic::catch_unwind;
use std::process::ExitCode;

use super::available;

/// A test: its name, which begins with `real_` so that the runner gives it the machine alone, and what it does.
pub type Test = (&'static str, fn());

/// Lists or runs the tests as the arguments say.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let missing = available().err();
    if let Some(why) = &missing {
        eprintln!("\n*** THE TESTS OF THIS BINARY DO NOT RUN: {why} ***");
        eprintln!(
            "*** They need root (or CAP_SYS_ADMIN), iproute2 and nftables. Nothing was tested here. ***\n"
        );
    }
    if has("--list") {
        let shown = missing.is_some() || !has("--ignored");
        for (name, _) in tests.iter().filter(|_| shown) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let names = names(&arguments);
    let wanted = |name: &str| {
        names.is_empty()
            || names.iter().any(|asked| if has("--exact") { name == *asked } else { name.contains(*asked) })
    };
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        let verdict = if missing.is_some() {
            ignored += 1;
            "ignored"
        } else if catch_unwind(test).is_ok() {
            passed += 1;
            "ok"
        } else {
            failed += 1;
            "FAILED"
        };
        println!("test {name} ... {verdict}");
    }
    println!("\ntest result: {passed} passed; {failed} failed; {ignored} ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// The arguments that are no flags, nor the values of flags.
fn names(arguments: &[String]) -> Vec<&str> {
    let takes_value = ["--format", "--test-threads", "--skip", "--color", "--logfile", "-Z"];
    let mut names = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if takes_value.contains(&argument.as_str()) {
            rest.next();
        } else if !argument.starts_with('-') {
            names.push(argument.as_str());
        }
    }
    names
}
