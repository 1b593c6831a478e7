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

#[test]
fn three_of_eight_holders_lie_and_nobody_is_misled() {
    let (Report { liars, .. }, text) = report("--supernodes 32 --clients 100 --lookups 600 --liars 3");
    let liars = liars.unwrap();
    assert!(liars.lies > 600, "{text}");
    assert_eq!((liars.figures.success, liars.figures.wrong), (1.0, 0), "{text}");
}

#[test]
fn members_that_lie_about_members_drop_nobody() {
    let line = "--supernodes 40 --clients 40 --lookups 100 --gossip-liars 5%";
    let (Report { gossip_liars, .. }, text) = report(line);
    let liars = gossip_liars.unwrap();
    assert_eq!((liars.liars, liars.grown, liars.handed_over, liars.lost), (2, 0, 0, 0), "{text}");
    assert!(liars.invented > 10_000 && liars.dropped_s <= 10.0, "{text}");
    assert_eq!((liars.figures.success, liars.figures.wrong), (1.0, 0), "{text}");
}

#[test]
fn a_fifth_restarts_at_once_and_the_ring_is_steady_soon() {
    let line = "--supernodes 40 --clients 40 --lookups 100 --restart 8";
    let (Report { restart, .. }, text) = report(line);
    let restart = restart.unwrap();
    assert!(restart.steady_ms.is_some_and(|steady| steady <= 120_000.0), "{text}");
    assert!(restart.messages_s_after <= 2.0 * restart.messages_s_before, "{text}");
    assert_eq!((restart.figures.success, restart.figures.written, restart.lost), (1.0, 1.0, 0), "{text}");
}

#[test]
fn halves_that_were_apart_agree_and_lose_nothing() {
    let (Report { partition, .. }, text) = report("--supernodes 24 --clients 40 --lookups 40 --partition 3m");
    let healed = partition.unwrap();
    assert!(healed.converged_ms.is_some_and(|took| took <= 60_000.0) && healed.lost == 0, "{text}");
}

#[test]
fn small_realms_stand_the_death_of_one() {
    for supernodes in [2, 3, 4, 7] {
        let line = format!("--supernodes {supernodes} --clients 30 --lookups 100 --kill 1%");
        let (Report { after, .. }, text) = report(&line);
        let after = after.unwrap();
        assert_eq!((after.killed, after.figures.success, after.figures.wrong), (1, 1.0, 0), "{text}");
        assert_eq!(after.lost, 0, "{text}");
    }
}

#[test]
fn a_join_and_a_death_are_known_to_all() {
    let (Report { turnover, .. }, text) = report("--supernodes 24 --clients 30 --lookups 100 --turnover 8s");
    let turnover = turnover.unwrap();
    assert!(turnover.join_known_ms.is_some_and(|took| took <= 20_000.0), "{text}");
    assert!(turnover.death_known_ms.is_some_and(|took| took <= 20_000.0), "{text}");
}

#[test]
fn without_a_login_server_a_revocation_still_spreads() {
    let (Report { login_down, .. }, text) =
        report("--supernodes 6 --clients 20 --lookups 50 --login-down 3h");
    let orphaned = login_down.unwrap();
    assert!(orphaned.revoked_ms.is_some_and(|took| took <= 60_000.0), "{text}");
    assert_eq!((orphaned.figures.success, orphaned.lost), (1.0, 0), "{text}");
}
