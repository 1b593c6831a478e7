//! `./demo`: a realm, two phones, one call in which both sides speak, told step by step on stderr; one JSON line with
//! what was heard on stdout.
//!
//! With root the phones sit in namespaces behind port-restricted NATs; without it all is on loopback, which shows the
//! programs, not the path.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_net::clock::Clock;

use crate::lab::process::kill_all;
use crate::lab::realm::{Phone, befriend};
use crate::lab::scene::{Placed, Scene, Voices, converse, folder};
use crate::lab::sweep::remove_own;
use crate::lab::{LabError, Nat, Process, UDP, available};

/// Both sides count as heard from this share of the other's recording on.
const HEARD: f64 = 0.9;

/// Runs the demo. Recordings go to `out`, where they stay. Prints the JSON line; returns whether both were heard.
///
/// # Errors
/// Something did not work; what it was.
pub fn run(out: &Path) -> Result<bool, LabError> {
    clean_up_on_interrupt()?;
    let show = Show { clock: Clock::start() };
    std::fs::create_dir_all(out)?;
    let out = out.canonicalize()?;
    let voices = Voices::speak(&out)?;
    show.say(&format!(
        "two voices made by {}, {:.1} s",
        if voices.espeak { "espeak-ng" } else { "this program, because espeak-ng is missing" },
        voices.length.as_secs_f64()
    ));
    let mut scene = realm(&show)?;
    let (alice, bob) = phones(&show, &mut scene)?;
    befriend(&alice, &bob)?;
    show.say("alice and bob added each other: both are accepted contacts now");
    show.say("bob answers by himself; alice runs `yodel call bob`");
    let placed = converse(&alice, &bob, &voices, &[], |calling, answering| {
        show.follow(calling, answering, voices.length + Duration::from_secs(40));
        Ok(())
    })?;
    report(&show, &scene, &placed)?;
    let heard = placed.heard.each_ref().map(|comparison| (comparison.share * 1_000.0).floor() / 1_000.0);
    let line = json!({
        "v": 1,
        "path": placed.out.last_path(),
        "heard": heard,
        "recordings": voices.heard,
    });
    println!("{line}");
    Ok(heard.iter().all(|share| *share >= HEARD))
}

fn realm(show: &Show) -> Result<Scene, LabError> {
    let dir = folder("demo");
    let scene = match available() {
        Ok(()) => Scene::in_namespaces(&dir, false, Duration::ZERO, &[])?,
        Err(why) => {
            show.say(&format!(
                "no namespaces ({why}): everything runs on loopback, without NATs to get through"
            ));
            Scene::on_loopback(&dir, false)?
        }
    };
    show.say("the login server of example.net is ready");
    for (number, supernode) in scene.realm.supernodes.iter().enumerate() {
        show.say(&format!("supernode {number} is ready at {} ({})", supernode.addr, short(&supernode.node)));
    }
    Ok(scene)
}

fn phones(show: &Show, scene: &mut Scene) -> Result<(Phone, Phone), LabError> {
    let mut phone = |user: &str| -> Result<Phone, LabError> {
        let mut behind = String::new();
        let home = if scene.lab.is_some() {
            let home = scene.home(Nat::PortRestricted)?;
            behind = format!(" behind the port-restricted NAT {}", scene.homes[home].addr);
            home
        } else {
            0
        };
        let phone = scene.phone(home, user)?;
        let status = phone.run(&["status", "--json"])?.json();
        let homes: Vec<&str> = status["homes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|home| home["node"].as_str())
            .collect();
        let homes = homes.into_iter().map(short).collect::<Vec<_>>().join(", ");
        show.say(&format!("{user} signed in{behind} and is online; homes: {homes}"));
        Ok(phone)
    };
    Ok((phone("alice")?, phone("bob")?))
}

fn report(show: &Show, scene: &Scene, placed: &Placed) -> Result<(), LabError> {
    if scene.lab.is_some() {
        let straight = scene.between_homes(0, 1, UDP)? + scene.between_homes(1, 0, UDP)?;
        let relayed = scene.to_supernodes(0, UDP)? + scene.to_supernodes(1, UDP)?;
        show.say(&format!(
            "the internet's own counters: {straight} packets straight between the homes, {relayed} from the homes to \
             supernodes"
        ));
    }
    for ((said, by), comparison) in [("alice", "bob"), ("bob", "alice")].into_iter().zip(&placed.heard) {
        show.say(&format!(
            "{by} heard {:.1} % of what {said} said ({} of {} frames of 20 ms; longest gap {} ms)",
            comparison.share * 100.0,
            comparison.heard,
            comparison.frames,
            comparison.longest_gap_ms
        ));
    }
    Ok(())
}

fn short(node: &str) -> &str {
    node.get(..8).unwrap_or(node)
}

/// An interrupt must leave neither children nor namespaces nor the folder.
fn clean_up_on_interrupt() -> Result<(), LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(interrupted());
        kill_all();
        let _ = remove_own();
        let _ = std::fs::remove_dir_all(folder("demo"));
        std::process::exit(130);
    });
    Ok(())
}

/// Not by a signal mask: children would inherit it.
async fn interrupted() {
    let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// Tells people what happens, with the time since the demo began.
struct Show {
    clock: Clock,
}

impl Show {
    fn say(&self, text: &str) {
        eprintln!("{:7.3} s  {text}", self.clock.now().mono.as_micros() as f64 / 1e6);
    }

    /// Shows both ends' events while the call lasts.
    fn follow(&self, calling: &Process, answering: &Process, patience: Duration) {
        let began = self.clock.now().mono;
        let mut shown = [0, 0];
        let mut ended = [false, false];
        while !(ended[0] && ended[1]) && self.clock.now().mono.since(began) < patience {
            if calling.ended() {
                // It says all there is to say before it ends.
                ended = [true, true];
            }
            for (end, (name, process)) in [("alice", calling), ("bob", answering)].into_iter().enumerate() {
                for line in process.stdout().iter().skip(shown[end]) {
                    shown[end] += 1;
                    let Ok(event) = serde_json::from_str::<Value>(&line.text) else { continue };
                    ended[end] |= event["state"] == "ended";
                    if let Some(text) = describe(&event) {
                        self.say(&format!("{name:>5}: {text}"));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One event of a call in words.
fn describe(event: &Value) -> Option<String> {
    let number = |key: &str| event[key].as_f64().unwrap_or(0.0);
    let word = |key: &str| event[key].as_str().unwrap_or("?").to_owned();
    let at = number("t_ms");
    let text = match event["state"].as_str()? {
        "resolving" => format!("looks up the records of {}", word("peer")),
        "contacting" if event["dir"] == "in" => format!("an invitation from {} arrived", word("peer")),
        "contacting" => "invites the devices found".to_owned(),
        "alerted" if event["dir"] == "in" => "it rings".to_owned(),
        "alerted" => "it rings at the other end, proved by its device".to_owned(),
        "answered" => "answered".to_owned(),
        "media" => "the first sealed voice packet of the other end was opened".to_owned(),
        "path" => format!("voice takes the path {} (round trip {:.1} ms)", word("path"), number("rtt_ms")),
        "stats" => format!(
            "{}: loss {:.1} %, jitter {:.1} ms, delay {:.0} ms, {} packets sent, {} received, {} concealed",
            word("path"),
            number("loss") * 100.0,
            number("jitter_ms"),
            number("delay_ms"),
            number("tx_packets"),
            number("rx_packets"),
            number("concealed"),
        ),
        "ended" => format!("ended: {} after {:.1} s", word("cause"), number("duration_ms") / 1_000.0),
        _ => return None,
    };
    Some(format!("[{at:6.0} ms] {text}"))
}
