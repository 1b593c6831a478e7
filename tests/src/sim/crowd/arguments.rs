//! What `yodel-sim crowd` is asked for.

use serde::Serialize;

use crate::sim::overlay::Share;

/// Phones that are all online, and supernodes that die at once.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Arguments {
    /// Supernodes of the realm.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub supernodes: u32,
    /// Accounts with one phone each, all attached and published before anything happens.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=200_000))]
    pub clients: u32,
    /// This share of the supernodes loses its power at once.
    #[arg(long, default_value = "50%", value_name = "SHARE")]
    pub kill: Share,
    /// Phones that a supernode takes; without it, a tenth more than the survivors need to carry all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients_max: Option<u32>,
    /// Cards of supernodes that each phone remembers from an earlier run.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=200))]
    pub remembered: u32,
    /// Calls begun in the minute after, steadily, each between two phones of which both have a warm home that lives.
    #[arg(long, default_value_t = 300)]
    pub calls: u32,
    /// Round trip between any two, milliseconds.
    #[arg(long, default_value_t = 50)]
    pub rtt_ms: u32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One JSON object on one line.
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
}

impl Arguments {
    /// How many supernodes die; one stays.
    pub fn killed(&self) -> u32 {
        let killed = self.kill.of(self.supernodes as usize) as u32;
        killed.min(self.supernodes - 1)
    }

    /// Phones that a supernode takes: each phone has two homes.
    pub fn room(&self) -> u32 {
        let survivors = self.supernodes - self.killed();
        self.clients_max.unwrap_or_else(|| (self.clients * 2).div_ceil(survivors) * 11 / 10 + 1)
    }
}
