//! Many bare devices at once: they attach, write their records and look each other up, and know what must be there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand_core::RngCore;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_net::clock::Clock;
use yodel_overlay::record::WriteStatus;
use yodel_overlay::verify::Verified;

use super::device::{Device, Looked, Wrote};
use super::figures::{percentiles, round};
use super::world::{ACCOUNTS_MAX, World, failed};
use crate::lab::LabError;

/// How long a record that does not come at once is asked for again.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Unreadable records that a report tells of.
const TOLD: usize = 3;

/// Devices, one to an account.
pub struct Crowd {
    /// All of them.
    pub devices: Vec<Rc<Device>>,
    clock: Clock,
}

/// Writes and how they went.
#[derive(Debug, Default)]
pub struct Writes {
    /// How long those took that were acknowledged.
    pub times: Vec<Duration>,
    /// How many were begun.
    pub begun: usize,
    /// Those answered with anything but "stored", by what was answered.
    pub refused: BTreeMap<String, usize>,
    /// Those not answered.
    pub unanswered: usize,
}

impl Writes {
    fn count(&mut self, wrote: &Wrote) {
        match wrote.status {
            Some(WriteStatus::Stored) => self.times.push(wrote.took),
            Some(status) => *self.refused.entry(format!("{status:?}")).or_default() += 1,
            None => self.unanswered += 1,
        }
    }

    /// For a report.
    pub fn report(&self) -> Value {
        json!({
            "begun": self.begun,
            "acknowledged": self.times.len(),
            "refused": self.refused,
            "unanswered": self.unanswered,
            "ms": percentiles(&self.times),
        })
    }
}

/// Lookups and how they went.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Until the first record.
    pub firsts: Vec<Duration>,
    /// Until the answer was settled.
    pub settled: Vec<Duration>,
    /// How many were begun.
    pub begun: usize,
    /// Those that brought what was acknowledged, or something newer.
    pub good: usize,
    /// Those that brought an older entry than was acknowledged when they began.
    pub old: usize,
}

impl Lookups {
    /// The share that succeeded.
    pub fn success(&self) -> f64 {
        if self.begun == 0 {
            0.0
        } else {
            round(self.good as f64 / self.begun as f64 * 100_000.0) / 100_000.0
        }
    }

    /// For a report.
    pub fn report(&self) -> Value {
        json!({
            "begun": self.begun,
            "success": self.success(),
            "old": self.old,
            "first_ms": percentiles(&self.firsts),
            "settled_ms": percentiles(&self.settled),
        })
    }
}

/// What became of the records that were acknowledged.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// Those that cannot be had, or only as they were before an acknowledged write.
    pub unreadable: usize,
    /// Those that came, but not the first time they were asked for.
    pub again: usize,
    /// Some of the first.
    pub worst: Vec<Value>,
}

impl ReadBack {
    /// For a report.
    pub fn report(&self) -> Value {
        json!({ "unreadable": self.unreadable, "read_again": self.again, "worst": self.worst })
    }
}

impl Crowd {
    /// So many devices, attached to these supernodes in turn. Call in a `LocalSet`.
    ///
    /// # Errors
    /// One was not taken in.
    pub async fn attach(world: &mut World, accounts: usize, homes: &[usize]) -> Result<Crowd, LabError> {
        if !(2..=ACCOUNTS_MAX).contains(&accounts) {
            return Err(failed("accounts", format!("2 to {ACCOUNTS_MAX} can be had")));
        }
        let mut devices = Vec::new();
        for number in 0..accounts {
            let keys = world.account();
            let mut seed = [0; 32];
            world.rng.fill_bytes(&mut seed);
            let device = Device::start(world.clock(), keys, seed)?;
            let home = homes[number % homes.len()];
            if !device.attach(world.address(home)).await {
                return Err(failed("attaching", format!("supernode {home} did not take a device in")));
            }
            if device.home() != world.node(home) {
                return Err(failed("attaching", format!("supernode {home} is another")));
            }
            devices.push(Rc::new(device));
        }
        Ok(Crowd { devices, clock: world.clock() })
    }

    /// Every device writes its record `times` over, `at_once` at a time.
    pub async fn write_all(&self, times: usize, at_once: usize) -> Writes {
        let writes = Rc::new(RefCell::new(Writes::default()));
        let total = self.devices.len() * times;
        self.at_once(total, at_once, |crowd, number| {
            let (device, writes) = (crowd.devices[number % crowd.devices.len()].clone(), writes.clone());
            async move {
                writes.borrow_mut().begun += 1;
                let wrote = device.write().await;
                writes.borrow_mut().count(&wrote);
            }
        })
        .await;
        Rc::try_unwrap(writes).map(RefCell::into_inner).unwrap_or_default()
    }

    /// So many lookups, each by one random device of another, `at_once` at a time. `pairs` draws them.
    pub async fn look_up(&self, world: &World, pairs: &[(usize, usize)], at_once: usize) -> Lookups {
        let lookups = Rc::new(RefCell::new(Lookups::default()));
        self.at_once(pairs.len(), at_once, |crowd, number| {
            let (by, of) = pairs[number];
            let (by, of, lookups) = (crowd.devices[by].clone(), crowd.devices[of].clone(), lookups.clone());
            async move { judge(&world.verifier, world.clock(), &by, &of, &lookups).await }
        })
        .await;
        Rc::try_unwrap(lookups).map(RefCell::into_inner).unwrap_or_default()
    }

    /// Every device writes its first record, again when that fails: members that count each other may still be on their
    /// way to each other.
    ///
    /// # Errors
    /// One was not acknowledged for ten seconds.
    pub async fn write_first(&self) -> Result<(), LabError> {
        let began = self.clock.now().mono;
        let mut writes = self.write_all(1, 8).await;
        while self.devices.iter().any(|device| device.acknowledged.get() == 0) {
            if self.clock.now().mono.since(began) >= READ_AGAIN {
                return Err(failed("the first writes", writes.report().to_string()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            writes = self.write_all(1, 8).await;
        }
        Ok(())
    }

    /// Random pairs of a device that asks and another that is asked for.
    pub fn pairs(&self, world: &mut World, count: usize) -> Vec<(usize, usize)> {
        let devices = self.devices.len();
        let mut pair = || {
            let by = world.draw(devices);
            (by, (by + 1 + world.draw(devices.saturating_sub(1))) % devices)
        };
        (0..count).map(|_| pair()).collect()
    }

    /// Lookups at a steady rate for so long.
    pub async fn look_up_steadily(
        &self,
        world: &World,
        pairs: &[(usize, usize)],
        per_s: u32,
        ends: Duration,
    ) -> Lookups {
        let lookups = Rc::new(RefCell::new(Lookups::default()));
        let began = self.clock.now().mono;
        let verifier = Rc::new(world.verifier.clone());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_s.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut asked = Vec::new();
        for (by, of) in pairs.iter().cycle() {
            ticks.tick().await;
            if self.clock.now().mono.since(began) >= ends {
                break;
            }
            let (by, of, lookups) = (self.devices[*by].clone(), self.devices[*of].clone(), lookups.clone());
            let (verifier, clock) = (verifier.clone(), self.clock);
            asked.push(tokio::task::spawn_local(async move {
                judge(&verifier, clock, &by, &of, &lookups).await;
            }));
        }
        for task in asked {
            let _ = task.await;
        }
        Rc::try_unwrap(lookups).map(RefCell::into_inner).unwrap_or_default()
    }

    /// Reads every record that was acknowledged. `by` are the devices that ask, in turn.
    pub async fn read_back(&self, world: &World, by: &[usize]) -> ReadBack {
        let result = Rc::new(RefCell::new(ReadBack::default()));
        self.at_once(self.devices.len(), 16, |crowd, number| {
            let of = crowd.devices[number].clone();
            let askers: Vec<Rc<Device>> =
                (0..by.len()).map(|next| crowd.devices[by[(number + next) % by.len()]].clone()).collect();
            let result = result.clone();
            async move {
                let wanted = of.acknowledged.get();
                let began = world.now();
                for (attempt, asker) in askers.iter().cycle().enumerate() {
                    let looked = asker.read(of.key()).await;
                    let found = found(&world.verifier, world.clock(), &of, &looked);
                    if wanted == 0 || found >= Some(wanted) {
                        result.borrow_mut().again += usize::from(attempt > 0);
                        return;
                    }
                    if world.now().since(began) >= READ_AGAIN {
                        let standing = looked.answer.map(|answer| answer.standing);
                        let mut result = result.borrow_mut();
                        result.unreadable += 1;
                        result.worst.push(json!({
                            "acknowledged": wanted,
                            "found": found,
                            "standing": standing.map(|standing| format!("{standing:?}")),
                        }));
                        result.worst.truncate(TOLD);
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        })
        .await;
        Rc::try_unwrap(result).map(RefCell::into_inner).unwrap_or_default()
    }

    /// Devices by the home they are attached to.
    pub fn attached_to(&self, home: NodeId) -> Vec<usize> {
        let of = |number: &usize| self.devices[*number].home() == Some(home);
        (0..self.devices.len()).filter(of).collect()
    }

    /// Does something `total` times, `at_once` at a time.
    async fn at_once<'a, F: Future<Output = ()> + 'a>(
        &'a self,
        total: usize,
        at_once: usize,
        mut work: impl FnMut(&'a Crowd, usize) -> F,
    ) {
        let mut running = Vec::new();
        let mut next = 0;
        std::future::poll_fn(|context| {
            loop {
                while running.len() < at_once && next < total {
                    running.push(Box::pin(work(self, next)));
                    next += 1;
                }
                let before = running.len();
                running.retain_mut(|future| future.as_mut().poll(context).is_pending());
                if running.is_empty() && next >= total {
                    return std::task::Poll::Ready(());
                }
                if running.len() == before {
                    return std::task::Poll::Pending;
                }
            }
        })
        .await;
    }
}

/// Writes of a crowd at a steady rate, in the background until told to stop: each device in turn, passing over those
/// whose last write is still under way.
pub struct Writing {
    stop: Rc<Cell<bool>>,
    task: tokio::task::JoinHandle<Writes>,
}

impl Writing {
    /// Begins.
    pub fn start(crowd: &Crowd, per_s: u32) -> Writing {
        let stop = Rc::new(Cell::new(false));
        let (stopped, devices) = (stop.clone(), crowd.devices.clone());
        let task = tokio::task::spawn_local(async move {
            let writes = Rc::new(RefCell::new(Writes::default()));
            let busy: Rc<Vec<Cell<bool>>> = Rc::new(devices.iter().map(|_| Cell::new(false)).collect());
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_s.max(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut next, mut under_way) = (0, Vec::new());
            while !stopped.get() {
                ticks.tick().await;
                let free = (0..devices.len())
                    .map(|step| (next + step) % devices.len())
                    .find(|number| !busy[*number].get() && devices[*number].home().is_some());
                let Some(number) = free else { continue };
                next = number + 1;
                busy[number].set(true);
                writes.borrow_mut().begun += 1;
                let (device, writes, busy) = (devices[number].clone(), writes.clone(), busy.clone());
                under_way.push(tokio::task::spawn_local(async move {
                    let wrote = device.write().await;
                    writes.borrow_mut().count(&wrote);
                    busy[number].set(false);
                }));
            }
            for task in under_way {
                let _ = task.await;
            }
            Rc::try_unwrap(writes).map(RefCell::into_inner).unwrap_or_default()
        });
        Writing { stop, task }
    }

    /// Begins no more, and waits for those under way.
    pub async fn stop(self) -> Writes {
        self.stop.set(true);
        self.task.await.unwrap_or_default()
    }
}

async fn judge(verifier: &Realm, clock: Clock, by: &Device, of: &Device, lookups: &RefCell<Lookups>) {
    let wanted = of.acknowledged.get();
    lookups.borrow_mut().begun += 1;
    let looked = by.read(of.key()).await;
    let found = found(verifier, clock, of, &looked);
    let mut lookups = lookups.borrow_mut();
    lookups.firsts.extend(looked.first);
    if looked.answer.is_some() {
        lookups.settled.push(looked.settled);
    }
    match found {
        Some(sequence) if sequence >= wanted => lookups.good += 1,
        Some(_) => lookups.old += 1,
        None => {}
    }
}

/// The sequence number of a device's entry in an answer, as far as that can be believed.
fn found(verifier: &Realm, clock: Clock, of: &Device, looked: &Looked) -> Option<u64> {
    let answer = looked.answer.as_ref()?;
    let verified = Verified::of(verifier, &of.key(), answer, clock.now().unix);
    verified.contact.device(of.keys.devices[0].credential.node).map(|entry| entry.sequence)
}
