//! What `yodel-sim overlay` is asked for, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use yodel_net::span;

/// A ring under the virtual clock, and what it costs to ask it.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Arguments {
    /// Supernodes of the realm.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub supernodes: u32,
    /// Accounts, all published before anything is measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,
    /// Devices of each account; with `--liars` two unless set, else one.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub devices: Option<u32>,
    /// Round trip between any two, milliseconds.
    #[arg(long, default_value_t = 50)]
    pub rtt_ms: u32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Reads in each round of measuring; there are a quarter as many writes.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub lookups: u32,
    /// Stop this share of the supernodes at once, telling nobody, and measure again.
    #[arg(long, value_name = "SHARE")]
    pub kill: Option<Share>,
    /// Replace this share of the supernodes by new ones, steadily, and measure meanwhile.
    #[arg(long, value_name = "SHARE/h")]
    pub churn: Option<Rate>,
    /// How many times as fast the hour of `--churn` passes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub speed: u32,
    /// Time one join and one death, then let one of each happen every second for so long.
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    #[serde(serialize_with = "seconds")]
    pub turnover: Option<Duration>,
    /// So many holders of each account lie about it: forge, roll back, leave out a device, withhold, answer late.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub liars: Option<u32>,
    /// This share of the members lies about members: declares others dead, raises their incarnations, invents some.
    #[arg(long, value_name = "SHARE")]
    pub gossip_liars: Option<Share>,
    /// So many members are killed and started again within one second.
    #[arg(long, value_name = "MEMBERS", value_parser = clap::value_parser!(u32).range(1..))]
    pub restart: Option<u32>,
    /// Cut the ring in two halves for so long, write to both, heal it, and wait until they agree.
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    #[serde(serialize_with = "seconds")]
    pub partition: Option<Duration>,
    /// Let everything go on without the login server for so long, then revoke a device.
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    #[serde(serialize_with = "seconds")]
    pub login_down: Option<Duration>,
    /// One JSON object instead of lines for people.
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
}

impl Arguments {
    /// Devices of each account.
    pub(super) fn devices_of_each(&self) -> u32 {
        // One that leaves out a device needs one to show.
        self.devices.unwrap_or(if self.liars.is_some() { 2 } else { 1 })
    }
}

/// A share such as `25%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// So many of `count`, at least one.
    pub fn of(self, count: usize) -> usize {
        ((count as f64 * self.0).round() as usize).clamp(1, count)
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Share, String> {
        let number = text.strip_suffix('%').ok_or("wants a share such as 25%")?;
        let number: f64 = number.parse().map_err(|_| "wants a share such as 25%".to_owned())?;
        if number > 0.0 && number <= 100.0 {
            Ok(Share(number / 100.0))
        } else {
            Err("is not between 0 and 100%".to_owned())
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.0 * 1e5).round() / 1e3)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A share in an hour, such as `25%/h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub Share);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Rate, String> {
        let share = text.strip_suffix("/h").ok_or("wants a share in an hour, such as 25%/h")?;
        share.parse().map(Rate)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/h", self.0))
    }
}

fn seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_read_as_they_are_written() {
        for text in ["25%", "0.5%", "100%", "33.3%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        assert_eq!("25%".parse::<Share>().unwrap().of(50), 13);
        assert_eq!("1%".parse::<Share>().unwrap().of(3), 1);
        assert_eq!("25%/h".parse::<Rate>(), Ok(Rate(Share(0.25))));
        for text in ["25", "0%", "101%", "x%", "25%/d", "-1%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
