//! What dies is not missed: the login server, a daemon, a home just before a call.

use std::process::ExitCode;
use std::time::Duration;

use yodel_tests::lab::harness::{self, Test};
use yodel_tests::lab::pair::{Pair, assert_heard};
use yodel_tests::lab::realm::finish;
use yodel_tests::lab::scene::Told;
use yodel_tests::lab::{LabError, Nat};

const TESTS: &[Test] =
    &[("real_calls_without_login_server", calls_without_login_server), ("real_killed_home", killed_home)];

fn main() -> ExitCode {
    harness::main(TESTS)
}

const PATIENCE: Duration = Duration::from_secs(15);

/// The login server is killed once both are signed in, and one phone's daemon is killed and started again.
fn calls_without_login_server() {
    let mut pair = Pair::new("no-login", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    pair.scene.realm.login.take().unwrap().kill();
    pair.bob.kill();
    pair.bob.start().unwrap();
    let placed = pair.converse(&[]).unwrap();
    assert_heard("without a login server, the callee started again", &placed);
    assert_eq!(placed.out.last_path(), Some("direct"));
}

/// The homes of both phones, by the supernodes' numbers, the one that carries signalling first.
fn homes(pair: &Pair) -> Result<[Vec<usize>; 2], LabError> {
    let of = |phone: &yodel_tests::lab::realm::Phone| {
        let nodes = phone.wait_homes(2, PATIENCE)?;
        Ok::<_, LabError>(nodes.iter().filter_map(|node| pair.scene.realm.supernode_named(node)).collect())
    };
    Ok([of(&pair.alice)?, of(&pair.bob)?])
}

/// Starts the daemons again until the caller has the homes X, Y and the callee those of `callee`, in these words.
fn arrange(pair: &mut Pair, callee: &str) -> Result<Vec<usize>, LabError> {
    for _ in 0..100 {
        let [a, b] = homes(pair)?;
        let names: String = b
            .iter()
            .map(|home| a.iter().position(|other| other == home).map_or('Z', |at| ['X', 'Y'][at]))
            .collect();
        if names == callee {
            let z = (0..3).find(|number| !a.contains(number)).unwrap();
            return Ok(vec![a[0], a[1], z]);
        }
        pair.bob.stop();
        pair.bob.start()?;
    }
    panic!("the callee never had the homes {callee}");
}

/// One of three supernodes is killed with the very next thing a call: whichever home of whom it was, the call goes
/// through the other.
fn killed_home() {
    let mut pair = Pair::new("home", Nat::PortRestricted, Some(Nat::PortRestricted), &[]).unwrap();
    let mut worst: f64 = 0.0;
    let mut failed = Vec::new();
    for (callee, killed) in [
        ("YZ", 'X'),
        ("ZY", 'X'),
        ("XY", 'X'),
        ("YX", 'X'),
        ("XZ", 'X'),
        ("ZX", 'X'),
        ("YX", 'Y'),
        ("YZ", 'Y'),
        ("ZX", 'Z'),
        ("ZY", 'Z'),
    ] {
        let numbers = arrange(&mut pair, callee).unwrap();
        let victim = numbers[usize::from(killed as u8 - b'X')];
        let mut answering = pair.bob.auto_answer("tone:440").unwrap();
        pair.scene.realm.kill_supernode(victim);
        let at = pair.scene.realm.clock.now().mono;
        let mut call =
            pair.alice.spawn(&["call", "bob", "--json", "--audio", "tone:660", "--max", "2s"]).unwrap();
        let done = finish(&mut call, PATIENCE).unwrap();
        let told = Told::by(&call);
        let inward = Told::by(&answering);
        answering.stop(PATIENCE);
        let alerted = told.t_ms("alerted").unwrap_or(f64::INFINITY);
        let since_kill = told.read_at("alerted").map(|read| read.since(at));
        println!(
            "homes XY calls {callee}, {killed} killed: alerted after {alerted} ms, {since_kill:?} after the kill; {}",
            told.summary()
        );
        worst = worst.max(alerted);
        if alerted > 1_000.0 || done.code != Some(0) {
            let [alice, bob] = [&pair.alice, &pair.bob].map(|phone| phone.run(&["why"]).unwrap().stdout);
            failed.push(format!("{callee} {killed} {:?}\n{}\n{alice}\n{bob}", done.code, inward.summary()));
        }
        pair.scene.realm.run_supernode(victim).unwrap();
    }
    println!("slowest: {worst} ms");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
