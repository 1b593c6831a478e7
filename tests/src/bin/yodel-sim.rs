//! `yodel-sim`: the ring (`overlay`) and a crowd of phones (`crowd`) under the virtual clock. One JSON object on stdout,
//! the same for the same arguments; wall time and memory on stderr.

use clap::{Parser, Subcommand};
use yodel_net::clock::Clock;
use yodel_tests::sim::{crowd, overlay};

/// The very machines of the programs, under a virtual clock.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A ring of supernodes, and what it costs to ask it.
    Overlay(overlay::Arguments),
    /// Phones whose homes die, half of them at once, and what the others bear.
    Crowd(crowd::Arguments),
}

fn main() {
    let Options { what } = Options::parse();
    let clock = Clock::start();
    let text = match what {
        What::Overlay(arguments) => text(&overlay::run(&arguments), arguments.json),
        What::Crowd(arguments) => text(&crowd::run(&arguments), arguments.json),
    };
    println!("{text}");
    let took = clock.now().mono.since(yodel_wire::time::Instant::ORIGIN);
    eprintln!("wall {:.1} s, memory at most {} MiB", took.as_secs_f64(), peak_kib() / 1_024);
}

fn text<R: serde::Serialize>(report: &R, json: bool) -> String {
    let text = match json {
        true => serde_json::to_string(report),
        false => serde_json::to_string_pretty(report),
    };
    text.expect("figures are plain")
}

/// The most memory this process ever had, as Linux counts it; 0 elsewhere.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
