//! `yodel-lab`: network namespaces by hand. `yodel-lab up --home a=port-restricted --host s=198.51.100.10` builds a
//! small internet, prints how to get into it, and takes it down when interrupted.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::json;
use yodel_tests::lab::{Lab, LabError, Nat, available, sweep};

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
