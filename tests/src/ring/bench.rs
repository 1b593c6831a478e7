//! `yodel-lab ring bench`: what writes and lookups take on real sockets at a round trip of nothing, timed at the device,
//! and what they cost the supernodes.

use std::time::Duration;

use serde_json::{Value, json};

use super::crowd::Crowd;
use super::figures::{Carried, round};
use super::place::within;
use super::world::{World, block_on};
use crate::lab::LabError;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Supernodes.
    pub supernodes: usize,
    /// Accounts, each with a device that is attached.
    pub accounts: usize,
    /// Lookups.
    pub lookups: usize,
    /// Writes and lookups under way at once.
    pub at_once: usize,
    /// How long the realm is left alone before it is watched doing nothing: links by which members came in are closed
    /// after two minutes.
    pub settle: Duration,
    /// For whatever is left to chance.
    pub seed: u64,
}

/// How long the realm is watched doing nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Every device writes so often, after the first time, which brings the account's record.
const WRITES_EACH: usize = 5;

/// Measures.
///
/// # Errors
/// A program is missing or fails.
pub fn run(bench: Bench) -> Result<Value, LabError> {
    within(|place| {
        eprintln!("yodel-lab: starting {} supernodes", bench.supernodes);
        let mut world = World::start(place, bench.supernodes, bench.seed)?;
        let alone = place.alone;
        std::thread::sleep(bench.settle);
        let (before, began, used) = (Carried::now(), world.now(), world.usages());
        std::thread::sleep(IDLE);
        let idle = Carried::now().since(before);
        let idle_use = world.usage_report(&used, world.now().since(began));
        let seconds = world.now().since(began).as_secs_f64();
        let per_node = |count: u64| alone.then(|| round(count as f64 / seconds / bench.supernodes as f64));
        let idle = json!({
            "seconds": round(seconds),
            "datagrams_s": per_node(idle.datagrams),
            "bytes_s": per_node(idle.payload()),
            "cpu_s": idle_use["cpu_s"],
        });
        block_on(async {
            let homes: Vec<usize> = (0..bench.supernodes).collect();
            let crowd = Crowd::attach(&mut world, bench.accounts, &homes).await?;
            eprintln!("yodel-lab: {} devices attached, writing", bench.accounts);
            crowd.write_first().await?;
            let (used, began) = (world.usages(), world.now());
            let writes = crowd.write_all(WRITES_EACH, bench.at_once).await;
            let write_use = world.usage_report(&used, world.now().since(began));
            let pairs = crowd.pairs(&mut world, bench.lookups);
            eprintln!("yodel-lab: looking up");
            let (used, began, before) = (world.usages(), world.now(), Carried::now());
            let lookups = crowd.look_up(&world, &pairs, bench.at_once).await;
            let carried = Carried::now().since(before);
            let per_lookup = |count: u64| alone.then(|| round(count as f64 / lookups.begun.max(1) as f64));
            Ok(json!({
                "v": 1,
                "bench": "ring",
                "supernodes": bench.supernodes,
                "accounts": bench.accounts,
                "rtt_ms": 0,
                "at_once": bench.at_once,
                "record_bytes": crowd.devices.iter().map(|device| device.record_bytes()).max(),
                "first_ms": lookups.report()["first_ms"],
                "settled_ms": lookups.report()["settled_ms"],
                "write_ms": writes.report()["ms"],
                "success": lookups.success(),
                "lookups": lookups.begun,
                "old": lookups.old,
                "writes": writes.report(),
                // Between device and home as well as between supernodes, and whatever goes on besides.
                "all_datagrams_per_lookup": per_lookup(carried.datagrams),
                "all_bytes_per_lookup": per_lookup(carried.payload()),
                "idle": idle,
                "while_writing": write_use,
                "while_looking_up": world.usage_report(&used, world.now().since(began)),
            }))
        })?
    })
}
