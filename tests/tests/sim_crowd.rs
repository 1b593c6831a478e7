//! A small crowd loses half of its supernodes.

use clap::Parser;
use yodel_tests::sim::crowd::{Arguments, Report, run};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    arguments: Arguments,
}

fn report(line: &str) -> (Report, String) {
    let words = std::iter::once("yodel-sim").chain(line.split_whitespace());
    let report = run(&Options::parse_from(words).arguments);
    let text = serde_json::to_string(&report).unwrap();
    (report, text)
}

#[test]
fn half_of_the_supernodes_die_and_a_thousand_phones_stay_reachable() {
    let (report, text) = report("--supernodes 10 --clients 1000 --calls 100 --clients-max 405");
    assert_eq!(report.before.two_homes, 1_000, "{text}");
    assert!(report.lost_all > 100 && report.lost_one > 300, "{text}");
    assert_eq!((report.one_home.never, report.two_homes.never), (0, 0), "{text}");
    assert!(report.two_homes.max_s <= 60.0, "{text}");
    assert!(report.refusals > 0, "there was little room: {text}");
    assert_eq!((report.refusals_without_redirect, report.ended), (0, 0), "{text}");
    assert!(report.calls.begun >= 90 && report.calls.share >= 0.99, "{text}");
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let line = "--supernodes 4 --clients 60 --calls 10";
    let (_, one) = report(line);
    assert_eq!(one, report(line).1);
    assert_ne!(one, report(&format!("{line} --seed 2")).1);
}
