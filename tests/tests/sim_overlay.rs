//! The instrument: that it tells the same of the same ring twice, and that it tells of what happened.

use clap::Parser;
use yodel_tests::sim::overlay::{Arguments, Report, run};

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
fn the_same_arguments_give_the_same_bytes() {
    let line = "--supernodes 12 --clients 40 --lookups 100 --kill 25% --churn 25%/h --speed 360";
    let (_, one) = report(line);
    assert_eq!(one, report(line).1);
    assert_ne!(one, report(&format!("{line} --seed 2")).1);
}

#[test]
fn a_ring_of_any_size_finds_everybody_in_one_round_trip() {
    for (supernodes, first_ms) in [(1, 0.0), (2, 0.0), (7, 0.0), (32, 50.0)] {
        let line = format!("--supernodes {supernodes} --clients 40 --lookups 100");
        let (Report { figures, .. }, text) = report(&line);
        assert_eq!((figures.success, figures.wrong, figures.written), (1.0, 0, 1.0), "{text}");
        assert_eq!(figures.first_ms.p50, first_ms, "{text}");
        assert!(figures.settled_ms.p99 <= 51.0 && figures.write_ms.p99 <= 52.0, "{text}");
    }
}

#[test]
fn a_quarter_is_stopped_and_everybody_is_found() {
    let (Report { after, .. }, text) = report("--supernodes 24 --clients 60 --lookups 200 --kill 25%");
    let after = after.unwrap();
    assert_eq!((after.killed, after.figures.success, after.lost), (6, 1.0, 0), "{text}");
    assert!(after.known_ms.is_some(), "{text}");
}
