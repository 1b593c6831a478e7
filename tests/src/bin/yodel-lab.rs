//! `yodel-lab`: network namespaces by hand. `yodel-lab up --home a=port-restricted --host s=198.51.100.10` builds a
//! small internet, prints how to get into it, and takes it down when interrupted.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::json;
use yodel_tests::lab::{Lab, LabError, Nat, available, sweep};
use yodel_tests::ring::{bench, flood, kill, restart};

/// Network namespaces with real kernel NATs, for trying things out.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Tell whether this machine can have a lab.
    Check,
    /// Remove what killed labs left behind.
    Sweep,
    /// One call between two phones behind NATs, shown step by step; ends with one JSON line. Exit 1 unless both were
    /// heard.
    Demo {
        /// Where the recordings go.
        #[arg(long, default_value = "out")]
        out: PathBuf,
    },
    /// Measure calls between real programs; prints one JSON object.
    Bench {
        /// Calls per round-trip time.
        #[arg(long, default_value_t = 30)]
        runs: usize,
        /// Phones attached to one supernode; 0 leaves that part out.
        #[arg(long, default_value_t = 100)]
        phones: usize,
        /// Round trips between any two hosts, milliseconds.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 50])]
        rtt_ms: Vec<u64>,
    },
    /// The ring on real sockets: supernodes as processes on this machine's loopback. Each prints one JSON object; exit 1
    /// when its `ok` is false.
    Ring {
        #[command(subcommand)]
        what: RingWhat,
    },
    /// Build one and keep it until interrupted.
    Up {
        /// A public host: NAME=ADDRESS.
        #[arg(long, value_name = "NAME=ADDRESS", value_parser = pair::<Ipv4Addr>)]
        host: Vec<(String, Ipv4Addr)>,
        /// A home, with a NAT: NAME=port-restricted|full-cone|symmetric|udp-blocked. The first one's public address
        /// is 203.0.113.101.
        #[arg(long, value_name = "NAME=NAT", value_parser = pair::<Nat>)]
        home: Vec<(String, Nat)>,
        /// Phones in each home.
        #[arg(long, default_value_t = 1)]
        phones: u8,
        /// Round trip between any two hosts, milliseconds.
        #[arg(long, default_value_t = 0)]
        rtt_ms: u64,
    },
}

#[derive(Subcommand)]
enum RingWhat {
    /// What writes and lookups take, and what they cost.
    Bench {
        /// Supernodes.
        #[arg(long, default_value_t = 50)]
        supernodes: usize,
        /// Accounts, each with an attached device.
        #[arg(long, default_value_t = 200)]
        accounts: usize,
        /// Lookups.
        #[arg(long, default_value_t = 2_000)]
        lookups: usize,
        /// Writes and lookups under way at once.
        #[arg(long, default_value_t = 1)]
        at_once: usize,
        /// Seconds until it is watched doing nothing; links by which members came in are closed after two minutes.
        #[arg(long, default_value_t = 150)]
        settle_s: u64,
        #[command(flatten)]
        rules: RingRules,
    },
    /// Kill some under writes: what was acknowledged stays readable.
    Kill {
        /// Supernodes.
        #[arg(long, default_value_t = 12)]
        supernodes: usize,
        /// Killed in each round.
        #[arg(long, default_value_t = 3)]
        kill: usize,
        /// Rounds.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
        /// Writes a second.
        #[arg(long, default_value_t = 200)]
        writes_per_s: u32,
        /// Accounts that write.
        #[arg(long, default_value_t = 200)]
        accounts: usize,
        #[command(flatten)]
        rules: RingRules,
    },
    /// Junk and forged datagrams at one of them while the others are asked for records.
    Flood {
        /// Supernodes.
        #[arg(long, default_value_t = 5)]
        supernodes: usize,
        /// How long.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
        /// Datagrams a second.
        #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
        rate: u32,
        /// Lookups a second meanwhile.
        #[arg(long, default_value_t = 50)]
        lookups_per_s: u32,
        #[command(flatten)]
        rules: RingRules,
    },
    /// All restart within a second: how long until they send as little as before.
    Restart {
        /// Supernodes.
        #[arg(long, default_value_t = 20)]
        supernodes: usize,
        /// Accounts.
        #[arg(long, default_value_t = 40)]
        accounts: usize,
        #[command(flatten)]
        rules: RingRules,
    },
}

#[derive(clap::Args)]
struct RingRules {
    /// For whatever is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nothing but JSON is printed anyway.
    #[arg(long)]
    json: bool,
}

fn ring(what: RingWhat) -> Result<serde_json::Value, LabError> {
    match what {
        RingWhat::Bench { supernodes, accounts, lookups, at_once, settle_s, rules } => {
            let (settle, seed) = (Duration::from_secs(settle_s), rules.seed);
            bench::run(bench::Bench { supernodes, accounts, lookups, at_once, settle, seed })
        }
        RingWhat::Kill { supernodes, kill, rounds, writes_per_s, accounts, rules } => {
            let writing = (Duration::from_millis(1_500), Duration::from_secs(4));
            let (killed, rounds) = (kill, usize::from(rounds));
            let seed = rules.seed;
            kill::run(kill::Kill { supernodes, killed, rounds, writes_per_s, accounts, writing, seed })
        }
        RingWhat::Flood { supernodes, seconds, rate, lookups_per_s, rules } => {
            let lasts = Duration::from_secs(seconds);
            let seed = rules.seed;
            flood::run(flood::Flood { supernodes, accounts: 40, lasts, rate, lookups_per_s, seed })
        }
        RingWhat::Restart { supernodes, accounts, rules } => {
            let before = Duration::from_secs(10);
            restart::run(restart::Restart { supernodes, accounts, before, seed: rules.seed })
        }
    }
}

fn pair<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.parse().map_err(|error: T::Err| error.to_string())?))
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        What::Check => available().map(|()| println!("{}", json!({ "v": 1, "lab": true }))),
        What::Sweep => sweep::sweep().map(|removed| println!("{}", json!({ "v": 1, "removed": removed }))),
        What::Demo { out } => match yodel_tests::demo::run(&out) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        What::Bench { runs, phones, rtt_ms } => {
            yodel_tests::bench::run(runs, phones, &rtt_ms).map(|measured| println!("{measured}"))
        }
        What::Ring { what } => match ring(what) {
            Ok(measured) => {
                println!("{measured}");
                if measured["ok"] == false {
                    return ExitCode::FAILURE;
                }
                Ok(())
            }
            Err(error) => Err(error),
        },
        What::Up { host, home, phones, rtt_ms } => up(host, home, phones, Duration::from_millis(rtt_ms)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("yodel-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn up(
    hosts: Vec<(String, Ipv4Addr)>,
    homes: Vec<(String, Nat)>,
    phones: u8,
    rtt: Duration,
) -> Result<(), LabError> {
    // Before anything is built, so that no interrupt can come in between; the thread takes what all others block.
    let mut interrupts = nix::sys::signal::SigSet::empty();
    interrupts.add(nix::sys::signal::Signal::SIGINT);
    interrupts.add(nix::sys::signal::Signal::SIGTERM);
    interrupts.thread_block().map_err(std::io::Error::from)?;
    let mut lab = Lab::new()?;
    lab.set_line_delay(rtt / 4);
    let mut spaces = serde_json::Map::new();
    for (label, addr) in hosts {
        let host = lab.host(&label, addr)?;
        spaces.insert(label, json!({ "space": host.space.name(), "addr": addr }));
    }
    for (number, (label, nat)) in (101u8..).zip(homes) {
        let mut home = lab.home(&label, Ipv4Addr::new(203, 0, 113, number), nat)?;
        for phone in 0..phones {
            let label = format!("{label}{phone}");
            let host = lab.phone(&mut home, &label)?;
            spaces.insert(label, json!({ "space": host.space.name(), "addr": host.addr }));
        }
        spaces.insert(label, json!({ "space": home.space.name(), "addr": home.addr }));
    }
    println!("{}", json!({ "v": 1, "event": "ready", "spaces": spaces }));
    eprintln!("yodel-lab: run programs with `ip netns exec SPACE PROGRAM`; interrupt to end");
    interrupts.wait().map_err(std::io::Error::from)?;
    for flow in lab.flows()? {
        eprintln!("{:>15} → {:<15} {:>3} {:>8} packets", flow.from, flow.to, flow.protocol, flow.packets);
    }
    Ok(())
}
