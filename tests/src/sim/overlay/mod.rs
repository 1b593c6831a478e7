//! The instrument: a ring of supernodes under the virtual clock, and what it costs to ask it while things happen to it.
//!
//! The supernodes are the very root machines of the program. Reads go past their caches. `ask.rs` alone knows how a
//! supernode is asked, `scenario.rs` what may happen to a ring, `liar.rs` what lies are.

mod arguments;
mod ask;
mod desk;
mod figures;
mod liar;
mod load;
mod player;
mod probe;
mod ring;
mod scenario;

use std::time::Duration;

use serde::Serialize;

pub use self::arguments::{Arguments, Rate, Share};
use self::ask::Askers;
pub use self::figures::{
    Churned, Deceived, Figures, Healed, Killed, Orphaned, Percentiles, Restarted, Slandered, Turned,
};
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
    /// `--turnover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turnover: Option<Turned>,
    /// `--restart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restarted>,
    /// `--partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Healed>,
    /// `--login-down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_down: Option<Orphaned>,
    /// `--gossip-liars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gossip_liars: Option<Slandered>,
    /// `--liars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liars: Option<Deceived>,
}

/// Runs it. What was asked for happens to one ring, in the order of the report's fields.
pub fn run(arguments: &Arguments) -> Report {
    let rtt = Duration::from_millis(arguments.rtt_ms.into());
    let (supernodes, clients) = (arguments.supernodes, arguments.clients);
    let mut ring = SimRing::new(arguments.seed, rtt, supernodes, clients, arguments.devices_of_each());
    let asker = ring.asker();
    let mut load = Load::new(Askers::new(asker));
    let (ring, load, lookups) = (&mut ring, &mut load, arguments.lookups);
    let idle = scenario::settle(ring, load);
    Report {
        v: 1,
        arguments: arguments.clone(),
        figures: scenario::calm(ring, load, idle, arguments),
        after: arguments.kill.map(|share| scenario::kill(ring, load, share, lookups)),
        churn: arguments.churn.map(|Rate(share)| scenario::churn(ring, load, arguments, share)),
        turnover: arguments.turnover.map(|span| scenario::turnover(ring, load, lookups, span)),
        restart: arguments.restart.map(|count| scenario::restart(ring, load, lookups, count as usize)),
        partition: arguments.partition.map(|span| scenario::partition(ring, load, span)),
        login_down: arguments.login_down.map(|span| scenario::login_down(ring, load, arguments, span)),
        gossip_liars: arguments.gossip_liars.map(|share| scenario::slander(ring, load, lookups, share)),
        liars: arguments.liars.map(|count| scenario::deceive(ring, load, lookups, count as usize)),
    }
}
