//! The instrument: a ring of supernodes under the virtual clock, and what it costs to ask it while things happen to it.
//!
//! The supernodes are the very root machines of the program. Reads go past their caches. `ask.rs` alone knows how a
//! supernode is asked, `scenario.rs` what may happen to a ring.

mod arguments;
mod ask;
mod desk;
mod figures;
mod load;
mod probe;
mod ring;
mod scenario;

use std::time::Duration;

use serde::Serialize;

pub use self::arguments::{Arguments, Rate, Share};
use self::ask::Askers;
pub use self::figures::{Churned, Figures, Healed, Killed, Orphaned, Percentiles};
use self::load::Load;
use self::ring::SimRing;

/// What a run shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The format.
    pub v: u8,
    /// What was asked for.
    pub arguments: Arguments,
    /// The ring as it is when nothing happens to it.
    #[serde(flatten)]
    pub figures: Figures,
    /// `--kill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Killed>,
    /// `--churn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churned>,
    /// `--partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Healed>,
    /// `--login-down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_down: Option<Orphaned>,
}

/// Runs it. What was asked for happens to one ring, in the order of the report's fields.
pub fn run(arguments: &Arguments) -> Report {
    let rtt = Duration::from_millis(arguments.rtt_ms.into());
    let mut ring = SimRing::new(arguments.seed, rtt, arguments.supernodes, arguments.clients);
    let asker = ring.asker();
    let mut load = Load::new(Askers::new(asker));
    let (ring, load) = (&mut ring, &mut load);
    let idle = scenario::settle(ring, load);
    let figures = scenario::calm(ring, load, idle, arguments);
    let after = arguments.kill.map(|share| scenario::kill(ring, load, idle, share, arguments.lookups));
    let churn = arguments.churn.map(|Rate(share)| scenario::churn(ring, load, arguments, share));
    let partition = arguments.partition.map(|span| scenario::partition(ring, load, span));
    let login_down = arguments.login_down.map(|span| scenario::login_down(ring, load, arguments, span));
    Report { v: 1, arguments: arguments.clone(), figures, after, churn, partition, login_down }
}
