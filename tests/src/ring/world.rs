//! A realm of real programs on loopback, and the keys that open accounts in it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm as Verifier;
use yodel_net::clock::Clock;
use yodel_wire::time::Instant;

use super::figures::{Usage, round, usage};
use super::place::Place;
use crate::lab::LabError;
use crate::lab::realm::{Realm, Where};
use crate::sim::issuer::{AccountKeys, Issuer};

/// Patience with a realm that should come to see all its members.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Supernodes there can be: 12 MiB each at least, and all of them on this machine's cores.
pub const SUPERNODES_MAX: usize = 200;

/// Accounts there can be: each has a socket and a link of its own.
pub const ACCOUNTS_MAX: usize = 2_000;

/// A login server and its supernodes.
pub struct World {
    /// The programs.
    pub realm: Realm,
    /// What believes records.
    pub verifier: Verifier,
    /// For whatever is left to chance.
    pub rng: ChaCha20Rng,
    /// Whether the loopback is this realm's alone.
    pub alone: bool,
    issuer: Issuer,
    port: u16,
    accounts: usize,
}

impl World {
    /// Starts a realm and waits until every supernode counts every other.
    ///
    /// # Errors
    /// A program is missing, or the realm does not settle.
    pub fn start(place: &Place, supernodes: usize, seed: u64) -> Result<World, LabError> {
        if supernodes == 0 || supernodes > SUPERNODES_MAX {
            return Err(failed("supernodes", format!("1 to {SUPERNODES_MAX} can be had")));
        }
        // Where others use the same loopback, two rings at once should not meet.
        let port = if place.alone {
            5_061
        } else {
            20_000 + u16::try_from(std::process::id() % 20_000).unwrap_or(0)
        };
        let login = SocketAddr::from(([127, 0, 0, 1], port + 1));
        let realm = Realm::start(&place.dir, false, Where::Tied, login)?;
        let issuer = Issuer::opened(&place.dir.join("login"));
        let mut verifier = Verifier::new(issuer.name().clone(), issuer.pin());
        let now = realm.clock.now().unix;
        verifier
            .accept_statement(issuer.statement(), now)
            .map_err(|error| failed("the root statement", format!("{error:?}")))?;
        let rng = ChaCha20Rng::seed_from_u64(seed);
        let mut world = World { realm, verifier, rng, alone: place.alone, issuer, port, accounts: 0 };
        for number in 0..supernodes {
            let addr = world.address(number);
            world.realm.add_supernode(Where::Tied, addr, &[], &[])?;
        }
        block_on(world.wait_members(SETTLED_WITHIN))??;
        Ok(world)
    }

    /// Where a supernode serves.
    pub fn address(&self, number: usize) -> SocketAddr {
        let [high, low] = u16::try_from(number + 1).unwrap_or(u16::MAX).to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, high, low, 1), self.port))
    }

    /// The supernode's node id.
    pub fn node(&self, number: usize) -> Option<NodeId> {
        self.realm.supernodes.get(number)?.node.parse().ok()
    }

    /// The clock of everything here.
    pub fn clock(&self) -> Clock {
        self.realm.clock
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        self.realm.clock.now().mono
    }

    /// Waits until every supernode that runs counts all that run; returns how long that took.
    ///
    /// # Errors
    /// It took too long.
    pub async fn wait_members(&self, patience: Duration) -> Result<Duration, LabError> {
        let running = self.running();
        let began = self.now();
        for number in &running {
            while !self.counts_all(*number)? {
                if self.now().since(began) >= patience {
                    let status = self.realm.supernode_status(*number)?;
                    let said = format!("{} run; supernode {number}: {status}", running.len());
                    return Err(failed("the members", said));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(self.now().since(began))
    }

    /// Whether a supernode counts all that run.
    ///
    /// # Errors
    /// Its status cannot be had.
    pub fn counts_all(&self, number: usize) -> Result<bool, LabError> {
        let members = self.realm.supernode_status(number)?["members"].as_u64();
        Ok(members == u64::try_from(self.running().len()).ok())
    }

    /// The numbers of the supernodes that run.
    pub fn running(&self) -> Vec<usize> {
        let supernodes = self.realm.supernodes.iter().enumerate();
        supernodes.filter(|(_, supernode)| supernode.process.is_some()).map(|(number, _)| number).collect()
    }

    /// The keys of a new account of one device.
    pub fn account(&mut self) -> AccountKeys {
        self.accounts += 1;
        let user = format!("user{}", self.accounts);
        let rng = &mut self.rng;
        let seed = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        self.issuer.account(self.realm.clock.now().unix, &user, 1, seed)
    }

    /// One of `0..below`.
    pub fn draw(&mut self, below: usize) -> usize {
        let drawn = self.rng.next_u64() % u64::try_from(below.max(1)).unwrap_or(1);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// What each supernode took so far.
    pub fn usages(&self) -> Vec<Usage> {
        let pid = |number: &usize| self.realm.supernodes[*number].process.as_ref().map(|p| p.id());
        self.running().iter().filter_map(pid).map(usage).collect()
    }

    /// What each supernode took since `earlier`, for a report.
    pub fn usage_report(&self, earlier: &[Usage], over: Duration) -> Value {
        let now = self.usages();
        let cpu = |(now, before): (&Usage, &Usage)| round(now.cpu_s - before.cpu_s);
        let cpu_s: Vec<f64> = now.iter().zip(earlier).map(cpu).collect();
        let rss_mib: Vec<f64> = now.iter().map(|usage| round(usage.rss_mib)).collect();
        json!({
            "seconds": round(over.as_secs_f64()),
            "cpu_s": { "total": round(cpu_s.iter().sum()), "max": cpu_s.iter().copied().fold(0.0, f64::max) },
            "rss_mib": { "total": round(rss_mib.iter().sum()), "max": rss_mib.iter().copied().fold(0.0, f64::max) },
            "processes": cpu_s.iter().zip(&rss_mib).map(|(cpu, rss)| json!({ "cpu_s": cpu, "rss_mib": rss })).collect::<Vec<_>>(),
        })
    }
}

/// What did not come to be.
pub(super) fn failed(what: &str, said: impl Into<String>) -> LabError {
    LabError::Command { command: what.into(), said: said.into() }
}

/// Runs bare devices: one thread, as all drivers here.
///
/// # Errors
/// There is no runtime to be had.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, LabError> {
    let runtime = yodel_net::runtime()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, work))
}
