//! `yodel-lab ring restart`: many supernodes are killed and started again within a second. How long until the realm
//! sends no more than it did before, whether all of them are members again, and whether all records are still there.

use std::time::Duration;

use serde_json::{Value, json};

use super::crowd::Crowd;
use super::figures::{Carried, round};
use super::kill::bring_home;
use super::place::within;
use super::world::{World, block_on};
use crate::lab::LabError;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Supernodes; all of them restart.
    pub supernodes: usize,
    /// Accounts.
    pub accounts: usize,
    /// How long is counted before the restart.
    pub before: Duration,
    /// For whatever is left to chance.
    pub seed: u64,
}

/// By then the realm must be steady.
const STEADY_WITHIN: Duration = Duration::from_secs(120);

/// Steady is what stays so for this many seconds.
const STEADY_FOR: usize = 15;

/// Packets afterwards, as a multiple of those before.
const AT_MOST: f64 = 2.0;

/// Does it. `ok` in the result says whether it was steady in time and nothing was lost.
///
/// # Errors
/// A program is missing or fails.
pub fn run(work: Restart) -> Result<Value, LabError> {
    within(|place| {
        let mut world = World::start(place, work.supernodes, work.seed)?;
        let alone = place.alone;
        block_on(async {
            let homes: Vec<usize> = (0..work.supernodes).collect();
            let crowd = Crowd::attach(&mut world, work.accounts, &homes).await?;
            crowd.write_first().await?;
            // What came by starting is not the daily bread.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let before = rate_over(&world, work.before).await;

            let began = world.now();
            for number in &homes {
                world.realm.kill_supernode(*number);
            }
            for number in &homes {
                world.realm.begin_supernode(*number)?;
            }
            let restarted = world.now().since(began);
            for number in &homes {
                world.realm.supernode_ready(*number)?;
            }
            let ready = world.now().since(began);
            let all: Vec<usize> = (0..crowd.devices.len()).collect();
            for task in bring_home(&mut world, &crowd, &all, &homes) {
                let _ = task.await;
            }
            let mut rates = Vec::new();
            let mut whole = None;
            while world.now().since(began) < STEADY_WITHIN + Duration::from_secs(STEADY_FOR as u64) {
                rates.push((round(world.now().since(began).as_secs_f64()), rate_over(&world, SECOND).await));
                if whole.is_none() && all_whole(&world)? {
                    whole = Some(world.now().since(began));
                }
                let calm = rates.iter().rev().take_while(|(_, rate)| *rate <= before * AT_MOST).count();
                if calm >= STEADY_FOR && whole.is_some() {
                    break;
                }
            }
            let calm = rates.iter().rev().take_while(|(_, rate)| *rate <= before * AT_MOST).count();
            let steady = (calm >= STEADY_FOR).then(|| rates[rates.len() - calm].0);
            let after = rate_over(&world, work.before).await;
            let read_back = crowd.read_back(&world, &all).await;
            let in_time = steady.is_some_and(|at| at <= STEADY_WITHIN.as_secs_f64());
            let quiet = !alone || (in_time && after <= before * AT_MOST);
            Ok(json!({
                "v": 1,
                "bench": "ring-restart",
                "ok": quiet && whole.is_some() && read_back.unreadable == 0,
                "supernodes": work.supernodes,
                "restarted_within_s": round(restarted.as_secs_f64()),
                "ready_s": round(ready.as_secs_f64()),
                "members_whole_s": whole.map(|at| round(at.as_secs_f64())),
                "datagrams_s": {
                    "before": alone.then(|| round(before)),
                    "most": alone.then(|| round(rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max))),
                    "after": alone.then(|| round(after)),
                },
                "steady_s": steady.filter(|_| alone),
                "records": crowd.devices.len(),
                "read_back": read_back.report(),
            }))
        })?
    })
}

const SECOND: Duration = Duration::from_secs(1);

/// Datagrams a second on this loopback.
async fn rate_over(world: &World, time: Duration) -> f64 {
    let (before, began) = (Carried::now(), world.now());
    tokio::time::sleep(time).await;
    Carried::now().since(before).datagrams as f64 / world.now().since(began).as_secs_f64()
}

fn all_whole(world: &World) -> Result<bool, LabError> {
    for number in world.running() {
        if !world.counts_all(number)? {
            return Ok(false);
        }
    }
    Ok(true)
}
