//! `yodel-lab bench`: what a call costs, measured on the programs themselves in namespaces, beside what the network
//! alone takes for the same legs.
//!
//! * `dial_alerted_ms`: from the command until the callee's device proved that it rings (`t_ms` of `alerted`).
//! * `answer_media_ms`: from the callee's answer until the caller opened the first sealed voice packet, on one clock:
//!   both programs' lines are stamped as they are read. The callee answers by itself when it rings.
//! * `dial_direct_ms`: from the command until voice took the path `direct`.
//! * `mouth_ear_ms`: from one recording the delay between both ends' `answered` cannot be told from the voice's; in
//!   the mean of both directions it cancels out, so that is what is given, per call. Recordings advance in frames, so
//!   it moves in steps of 20 ms for one direction, 10 ms in the mean.
//! * `bare`: UDP echo through the same namespaces: phone to supernode and back, supernode to supernode, phone to phone
//!   being both homes' legs.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use yodel_net::clock::Clock;

use crate::lab::realm::{Phone, Where, befriend, finish};
use crate::lab::scene::{Scene, Told, Voices, converse, folder};
use crate::lab::{LabError, Nat, Space};

/// Calls of which both ends record and compare speech; the rest are short.
const SPOKEN: usize = 3;

/// Measures everything.
///
/// # Errors
/// There are no namespaces here, or a program failed.
pub fn run(runs: usize, phones: usize, rtts_ms: &[u64]) -> Result<Value, LabError> {
    let mut calls = Vec::new();
    for rtt in rtts_ms {
        calls.push(calls_at(runs, Duration::from_millis(*rtt))?);
    }
    let crowd = if phones == 0 { Value::Null } else { crowd(phones)? };
    Ok(json!({ "v": 1, "runs": runs, "calls": calls, "supernode": crowd }))
}

/// Calls between two phones behind port-restricted NATs.
fn calls_at(runs: usize, rtt: Duration) -> Result<Value, LabError> {
    let dir = folder(&format!("bench{}", rtt.as_millis()));
    let mut scene = Scene::in_namespaces(&dir, false, rtt, &[])?;
    let homes = [scene.home(Nat::PortRestricted)?, scene.home(Nat::PortRestricted)?];
    let (alice, bob) = (scene.phone(homes[0], "alice")?, scene.phone(homes[1], "bob")?);
    befriend(&alice, &bob)?;
    for phone in [&alice, &bob] {
        phone.wait_homes(2, Duration::from_secs(20))?;
    }
    let bare = bare(&scene, &alice)?;
    let idle = [usage(&alice)?, usage(&bob)?];
    let mut series = Series::default();
    for number in 0..runs {
        eprintln!("yodel-lab: RTT {} ms, call {} of {runs}", rtt.as_millis(), number + 1);
        short_call(&alice, &bob, &mut series)?;
    }
    let voices = Voices::speak(&dir.join("voices"))?;
    let mut spoken = Vec::new();
    let mut cpu = Vec::new();
    for _ in 0..SPOKEN.min(runs) {
        let before = [usage(&alice)?, usage(&bob)?];
        let placed = converse(&alice, &bob, &voices, &[], |_, _| Ok(()))?;
        let after = [usage(&alice)?, usage(&bob)?];
        let lasted = placed.out.first("ended").and_then(|ended| ended["duration_ms"].as_f64()).unwrap_or(0.0);
        for end in 0..2 {
            cpu.push((after[end].cpu_ms - before[end].cpu_ms) / lasted.max(1.0));
        }
        let [there, back] = &placed.heard;
        spoken.push((there.delay_ms + back.delay_ms) / 2.0);
    }
    let after = [usage(&alice)?, usage(&bob)?];
    let supernodes: Vec<f64> = (0..scene.hosts.len())
        .filter_map(|number| rss_mib(scene.realm.supernodes[number].process.as_ref()?.id()))
        .collect();
    Ok(json!({
        "rtt_ms": rtt.as_millis() as u64,
        "dial_alerted_ms": figures(&series.dial_alerted),
        "answer_media_ms": figures(&series.answer_media),
        "dial_direct_ms": figures(&series.dial_direct),
        "bare": bare,
        "mouth_ear_ms": figures(&spoken),
        "cpu_share_per_call": figures(&cpu),
        "daemon_rss_mib": {
            "before_calls": idle.each_ref().map(|usage| usage.rss_mib),
            "after_calls": after.each_ref().map(|usage| usage.rss_mib),
            "peak": after.each_ref().map(|usage| usage.peak_mib),
        },
        "supernode_rss_mib": supernodes,
    }))
}

/// Milliseconds, one value a call.
#[derive(Default)]
struct Series {
    dial_alerted: Vec<f64>,
    answer_media: Vec<f64>,
    dial_direct: Vec<f64>,
}

fn short_call(alice: &Phone, bob: &Phone, series: &mut Series) -> Result<(), LabError> {
    let mut answering = bob.auto_answer("tone:440")?;
    let mut calling = alice.spawn(&["call", &bob.user, "--json", "--audio", "tone:330", "--max", "1.5s"])?;
    let done = finish(&mut calling, Duration::from_secs(30))?;
    answering.wait_for_json(Duration::from_secs(5), |line| line["state"] == "ended");
    let (out, inward) = (Told::by(&calling), Told::by(&answering));
    answering.stop(Duration::from_secs(5));
    if done.code != Some(0) {
        let said = format!("exit {:?}: {} {}", done.code, out.summary(), done.stderr);
        return Err(LabError::Command { command: "yodel call".into(), said });
    }
    series.dial_alerted.extend(out.t_ms("alerted"));
    series.dial_direct.extend(out.path_t_ms("direct"));
    if let (Some(answer), Some(media)) = (inward.read_at("alerted"), out.read_at("media")) {
        series.answer_media.push(media.as_micros() as f64 / 1e3 - answer.as_micros() as f64 / 1e3);
    }
    Ok(())
}

/// Median, 95th percentile, extremes and count of milliseconds or shares.
fn figures(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).map(|value| (value * 1_000.0).round() / 1_000.0)
    };
    json!({ "median": at(0.5), "p95": at(0.95), "min": at(0.0), "max": at(1.0), "n": sorted.len() })
}

/// Round trips of a bare UDP echo, median of 50 each, ms, and what the measured legs are made of.
fn bare(scene: &Scene, phone: &Phone) -> Result<Value, LabError> {
    let Where::Space(space) = &phone.place else { return Ok(Value::Null) };
    let (near, far) = (&scene.hosts[0], &scene.hosts[1]);
    let up = echo(space, &near.space, SocketAddr::from((near.addr, 7_007)))?;
    let across = echo(&far.space, &near.space, SocketAddr::from((near.addr, 7_008)))?;
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let span =
        |shortest: f64, longest: f64| json!({ "shortest": round(shortest), "longest": round(longest) });
    Ok(json!({
        "phone_supernode_ms": round(up),
        "supernode_supernode_ms": round(across),
        // Lookup: phone–home and, unless the home is a holder, home–holder. INVITE and 180: through one home where both
        // phones share it, otherwise home–home too. In a realm of three every supernode holds every record.
        "dial_alerted_ms": span(up + up + up, up + across + up + across + up),
        // The 200 on its way: before it arrives the caller has no keys to open anything with.
        "answer_media_ms": span(up, up + across / 2.0),
        // Checks begin when the 180 has brought the callee's candidates: one round trip between the phones, which are
        // as far apart as supernodes.
        "dial_direct_ms": span(up + up + up + across, up + across + up + across + up + across),
    }))
}

fn echo(from: &Space, to: &Space, addr: SocketAddr) -> Result<f64, LabError> {
    let server = to.enter(|| UdpSocket::bind(addr))?;
    server.set_read_timeout(Some(Duration::from_secs(2)))?;
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((size, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..size], from);
        }
    });
    let client = from.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let clock = Clock::start();
    let mut trips = Vec::new();
    for _ in 0..50 {
        let start = clock.now().mono;
        client.send_to(b"echo", addr)?;
        let mut bytes = [0; 64];
        if client.recv_from(&mut bytes).is_ok() {
            trips.push(clock.now().mono.since(start).as_secs_f64() * 1e3);
        }
    }
    trips.sort_by(f64::total_cmp);
    let _ = thread.join();
    Ok(trips.get(trips.len() / 2).copied().unwrap_or(f64::NAN))
}

/// What a daemon has used so far.
#[derive(Clone, Copy, Debug)]
struct Usage {
    cpu_ms: f64,
    rss_mib: f64,
    peak_mib: f64,
}

fn usage(phone: &Phone) -> Result<Usage, LabError> {
    let pid = phone.daemon.as_ref().map(crate::lab::Process::id).unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15 (user and system time) in ticks of 10 ms, counted behind the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(Usage {
        cpu_ms: (ticks(11) + ticks(12)) * 10.0,
        rss_mib: rss_mib(pid).unwrap_or(f64::NAN),
        peak_mib: status_mib(pid, "VmHWM:").unwrap_or(f64::NAN),
    })
}

fn rss_mib(pid: u32) -> Option<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, key: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

/// One supernode with many phones attached: each a real daemon that signed in.
fn crowd(phones: usize) -> Result<Value, LabError> {
    let dir = folder("crowd");
    let mut scene = Scene::alone(&dir)?;
    let rss = |scene: &Scene| {
        let process = scene.realm.supernodes[0].process.as_ref();
        process.and_then(|process| rss_mib(process.id())).unwrap_or(f64::NAN)
    };
    let before = rss(&scene);
    let mut attached: Vec<Phone> = Vec::new();
    for number in 0..phones {
        if number % 10 == 0 {
            eprintln!("yodel-lab: phone {number} of {phones}");
        }
        attached.push(scene.phone(0, &format!("user{number}"))?);
    }
    let status = scene.realm.supernode_status(0)?;
    let after = rss(&scene);
    let daemons: Vec<f64> =
        attached.iter().filter_map(|phone| usage(phone).ok()).map(|usage| usage.rss_mib).collect();
    Ok(json!({
        "phones": phones,
        "clients": status["clients"],
        "rss_mib_without": before,
        "rss_mib": after,
        "daemon_rss_mib": figures(&daemons),
    }))
}
