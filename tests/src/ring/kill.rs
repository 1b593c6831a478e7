//! `yodel-lab ring kill`: `kill -9` of some supernodes under writes, over and over. What was acknowledged must be
//! readable while they are dead, and still when they are back.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_identity::node::NodeId;

use super::crowd::{Crowd, ReadBack, Writing};
use super::figures::round;
use super::place::within;
use super::world::{SETTLED_WITHIN, World, block_on};
use crate::lab::LabError;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Supernodes.
    pub supernodes: usize,
    /// How many of them are killed in each round.
    pub killed: usize,
    /// Rounds.
    pub rounds: usize,
    /// Writes begun a second, before the killing and after.
    pub writes_per_s: u32,
    /// Accounts, each with a device that writes.
    pub accounts: usize,
    /// How long is written before the killing, and after it.
    pub writing: (Duration, Duration),
    /// For whatever is left to chance.
    pub seed: u64,
}

/// Orphaned devices come back at random within this.
const RETURN: Duration = Duration::from_millis(500);

/// How often an orphan tries.
const TRIES: usize = 5;

/// Does it. `ok` in the result says whether nothing was lost.
///
/// # Errors
/// A program is missing or fails, or does not come back.
pub fn run(work: Kill) -> Result<Value, LabError> {
    within(|place| {
        let mut world = World::start(place, work.supernodes, work.seed)?;
        block_on(async {
            let homes: Vec<usize> = (0..work.supernodes).collect();
            let crowd = Crowd::attach(&mut world, work.accounts, &homes).await?;
            crowd.write_first().await?;
            let mut rounds = Vec::new();
            let (mut lost, mut lost_later, mut acknowledged) = (0, 0, 0);
            for number in 0..work.rounds {
                let round = round_of(&mut world, &crowd, &work).await?;
                lost += round.dead.unreadable;
                lost_later += round.back.unreadable;
                acknowledged += round.acknowledged;
                eprintln!("yodel-lab: round {} of {}: {}", number + 1, work.rounds, round.report);
                rounds.push(round.report);
            }
            Ok(json!({
                "v": 1,
                "bench": "ring-kill",
                "ok": lost + lost_later == 0,
                "supernodes": work.supernodes,
                "killed": work.killed,
                "writes_per_s": work.writes_per_s,
                "acknowledged": acknowledged,
                "unreadable": lost,
                "unreadable_when_back": lost_later,
                "rounds": rounds,
            }))
        })?
    })
}

struct Round {
    acknowledged: usize,
    /// Asked of the survivors while some are dead, and of these when they are back.
    dead: ReadBack,
    back: ReadBack,
    report: Value,
}

async fn round_of(world: &mut World, crowd: &Crowd, work: &Kill) -> Result<Round, LabError> {
    let writing = Writing::start(crowd, work.writes_per_s);
    tokio::time::sleep(work.writing.0).await;
    let victims = draw_some(world, work.supernodes, work.killed);
    let nodes: Vec<NodeId> = victims.iter().filter_map(|victim| world.node(*victim)).collect();
    let orphans: Vec<usize> = nodes.iter().flat_map(|node| crowd.attached_to(*node)).collect();
    for victim in &victims {
        world.realm.kill_supernode(*victim);
    }
    let killed = world.now();
    let survivors = world.running();
    let returning = bring_home(world, crowd, &orphans, &survivors);
    tokio::time::sleep(work.writing.1).await;
    for task in returning {
        let _ = task.await;
    }
    let writes = writing.stop().await;
    let asked = world.now();
    let dead = crowd.read_back(world, &at_each(world, crowd, &survivors)).await;
    let read = world.now();

    for victim in &victims {
        world.realm.run_supernode(*victim)?;
    }
    let whole = world.wait_members(SETTLED_WITHIN).await?;
    // Those that were killed are homes again, and asked for what was written while they were dead.
    for task in bring_home(world, crowd, &orphans, &victims) {
        let _ = task.await;
    }
    let back = crowd.read_back(world, &at_each(world, crowd, &victims)).await;
    let acknowledged = writes.times.len();
    let report = json!({
        "killed": victims,
        "writes": writes.report(),
        "orphans": orphans.len(),
        "asked_after_s": round(asked.since(killed).as_secs_f64()),
        "read_s": round(read.since(asked).as_secs_f64()),
        "while_dead": dead.report(),
        "whole_s": round(whole.as_secs_f64()),
        "when_back": back.report(),
    });
    Ok(Round { acknowledged, dead, back, report })
}

/// Attaches these devices to some of these supernodes, each a little later than at once.
pub(super) fn bring_home(
    world: &mut World,
    crowd: &Crowd,
    orphans: &[usize],
    homes: &[usize],
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for orphan in orphans {
        let device = Rc::clone(&crowd.devices[*orphan]);
        let wait = RETURN.mul_f64(world.draw(1_000) as f64 / 1_000.0);
        let drawn: Vec<usize> = (0..TRIES).map(|_| homes[world.draw(homes.len())]).collect();
        let tries: Vec<_> = drawn.into_iter().map(|home| world.address(home)).collect();
        tasks.push(tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            for home in tries {
                if device.attach(home).await {
                    return;
                }
            }
        }));
    }
    tasks
}

/// For each of these supernodes a device that is attached to it, where there is one.
fn at_each(world: &World, crowd: &Crowd, supernodes: &[usize]) -> Vec<usize> {
    let at = |number: &usize| crowd.attached_to(world.node(*number)?).first().copied();
    let found: Vec<usize> = supernodes.iter().filter_map(at).collect();
    if found.is_empty() { vec![0] } else { found }
}

/// So many different numbers below `below`.
fn draw_some(world: &mut World, below: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..below).collect();
    for place in 0..count.min(below) {
        let other = place + world.draw(below - place);
        all.swap(place, other);
    }
    all.truncate(count);
    all
}
