//! Reads and writes at supernodes picked at random, and what came of them.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_overlay::record::{ContactEntry, WriteStatus};
use yodel_overlay::verify::LookupResult;
use yodel_wire::time::Instant;

use super::ask::{Askers, Said, Word};
use super::figures::{Figures, Percentiles, rounded};
use super::ring::{Account, SimRing};
use crate::sim::world::Traffic;

/// A wrong answer that stands longer does harm.
const STANDS: Duration = Duration::from_millis(300);

/// Longer than any read or write may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// How many operations a supernode gets in a second at most, on average: far below what a device may ask of it.
const PER_SUPERNODE_S: u32 = 50;

/// Operations in a second at most. What the ring sends of itself in the meantime is taken off, and comes in rounds of a
/// second: a thousand lookups take several of them.
const IN_ALL_S: u32 = 100;

struct Open {
    begun: Instant,
    account: usize,
    what: What,
    answered: bool,
    /// What was told so far is wrong.
    misled: bool,
}

enum What {
    /// Finds nothing older than this of each device.
    Read { sequences: Vec<u64> },
    /// Writes this.
    Write { device: usize, sequence: u64 },
}

/// What came of operations.
#[derive(Default)]
struct Tally {
    first: Vec<Duration>,
    settled: Vec<Duration>,
    write: Vec<Duration>,
    datagrams: u64,
    bytes: u64,
    reads: usize,
    wrong: usize,
    writes: usize,
}

/// What a member sends of itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Idle {
    /// Datagrams and frames of one member in a second.
    pub(super) each_messages_s: f64,
    /// Their bytes.
    pub(super) each_bytes_s: f64,
}

/// See the module's text.
pub(super) struct Load {
    askers: Askers,
    next_op: u64,
    open: BTreeMap<u64, Open>,
    tally: Tally,
}

impl Load {
    pub(super) fn new(askers: Askers) -> Load {
        Load { askers, next_op: 0, open: BTreeMap::new(), tally: Tally::default() }
    }

    /// Measures what members send when nobody asks.
    pub(super) fn idle(&mut self, ring: &mut SimRing, span: Duration) -> Idle {
        let before = ring.sent();
        ring.run_for(span);
        let each_s = span.as_secs_f64() * ring.alive.len() as f64;
        let sent = ring.sent() - before;
        Idle { each_messages_s: messages(sent) / each_s, each_bytes_s: bytes(sent) / each_s }
    }

    /// Reads and writes.
    pub(super) fn measure(&mut self, ring: &mut SimRing, lookups: u32, idle: Idle) -> Figures {
        self.tally = Tally::default();
        self.reads(ring, lookups);
        self.writes(ring, lookups.div_ceil(4) as usize);
        Figures { idle_bytes_s: rounded(idle.each_bytes_s), ..self.figures() }
    }

    /// A supernode begins anew: whoever was attached to it attaches again.
    pub(super) fn attach_anew(&mut self, supernode: usize) {
        self.askers.forget(supernode);
    }

    /// What came of all reads and writes since the last `measure`.
    pub(super) fn figures(&self) -> Figures {
        let share = |part: usize, all: usize| if all == 0 { 0.0 } else { part as f64 / all as f64 };
        let Tally { first, settled, write, datagrams, bytes, reads, wrong, writes } = &self.tally;
        let each = |all: u64| rounded(all as f64 / reads.max(&1).to_owned() as f64);
        Figures {
            first_ms: Percentiles::of(first),
            settled_ms: Percentiles::of(settled),
            write_ms: Percentiles::of(write),
            datagrams: each(*datagrams),
            bytes: each(*bytes),
            success: rounded(share(settled.len(), *reads)),
            wrong: *wrong as u64,
            written: rounded(share(write.len(), *writes)),
            idle_bytes_s: 0.0,
        }
    }

    /// Forgets what came of earlier reads and writes.
    pub(super) fn forget(&mut self) {
        self.tally = Tally::default();
    }

    /// Reads of random accounts at random supernodes, until all are answered.
    pub(super) fn reads(&mut self, ring: &mut SimRing, count: u32) {
        for _ in 0..count {
            let account = ring.pick_account();
            let supernode = ring.pick_honest(account);
            self.read(ring, supernode, account);
            self.pause(ring, gap(ring));
        }
        self.finish(ring);
    }

    /// Writes of one account after another at random supernodes, until all are answered.
    pub(super) fn writes(&mut self, ring: &mut SimRing, count: usize) {
        let accounts = ring.accounts.len();
        // A device writes its next entry when it knows what became of the last one.
        let pause = gap(ring).max(Duration::from_secs(1) / u32::try_from(accounts).unwrap_or(u32::MAX));
        for account in (0..accounts).cycle().take(count) {
            let supernode = ring.pick();
            self.write(ring, supernode, account);
            self.pause(ring, pause);
        }
        self.finish(ring);
    }

    /// Every device writes its next entry.
    pub(super) fn publish_all(&mut self, ring: &mut SimRing) {
        let devices = ring.accounts.iter().map(|account| account.devices.len()).sum();
        self.writes(ring, devices);
    }

    /// Reads every account; tells how many did not read back as last acknowledged.
    pub(super) fn check_all(&mut self, ring: &mut SimRing) -> usize {
        let kept = std::mem::take(&mut self.tally);
        for account in 0..ring.accounts.len() {
            let supernode = ring.pick_honest(account);
            self.read(ring, supernode, account);
            self.pause(ring, gap(ring));
        }
        self.finish(ring);
        let checked = std::mem::replace(&mut self.tally, kept);
        checked.reads - checked.settled.len()
    }

    /// Writes acknowledged and not, since the last `forget`.
    pub(super) fn written(&self) -> (usize, usize) {
        (self.tally.write.len(), self.tally.writes - self.tally.write.len())
    }

    /// Asks for a read.
    pub(super) fn read(&mut self, ring: &mut SimRing, supernode: usize, account: usize) {
        let asked = &ring.accounts[account];
        let sequences = asked.devices.iter().map(|device| device.acknowledged).collect();
        let key = asked.key();
        let op = self.begin(ring, account, What::Read { sequences });
        self.tally.reads += 1;
        self.askers.read(ring, supernode, op, key);
    }

    /// Asks for a write of the next entry of one of the account's devices.
    pub(super) fn write(&mut self, ring: &mut SimRing, supernode: usize, account: usize) {
        let device = ring.next_device(account);
        let (sequence, publication) = ring.publication(account, device);
        let op = self.begin(ring, account, What::Write { device, sequence });
        self.tally.writes += 1;
        self.askers.write(ring, supernode, op, publication);
    }

    /// Lets time pass and takes in what was answered.
    pub(super) fn pause(&mut self, ring: &mut SimRing, span: Duration) {
        ring.run_for(span);
        for word in self.askers.words(ring) {
            self.take(ring, word);
        }
    }

    /// Waits for all answers; what is not answered by then never will be.
    pub(super) fn finish(&mut self, ring: &mut SimRing) {
        let end = ring.world.now().mono + PATIENCE;
        while !self.open.is_empty() && ring.world.now().mono < end {
            self.pause(ring, Duration::from_millis(10));
        }
        let open = std::mem::take(&mut self.open);
        self.tally.wrong += open.values().filter(|open| open.misled).count();
    }

    fn begin(&mut self, ring: &SimRing, account: usize, what: What) -> u64 {
        self.next_op += 1;
        let open = Open { begun: ring.world.now().mono, account, what, answered: false, misled: false };
        self.open.insert(self.next_op, open);
        self.next_op
    }

    fn take(&mut self, ring: &mut SimRing, word: Word) {
        let Some(open) = self.open.get_mut(&word.op) else { return };
        let took = word.at.since(open.begun);
        let account = &mut ring.accounts[open.account];
        match (word.said, &open.what) {
            (Said::Looked { result, report }, What::Read { sequences }) => {
                let right = is_right(account, &result, sequences);
                if let Some(first) = report.first.filter(|_| !std::mem::replace(&mut open.answered, true)) {
                    self.tally.first.push(first);
                }
                let Some(settled) = report.settled else {
                    open.misled = !right;
                    return;
                };
                self.tally.datagrams += u64::from(report.datagrams);
                self.tally.bytes += u64::from(report.bytes);
                let stood = open.misled && settled > STANDS;
                let unreachable = *result == LookupResult::Unreachable;
                self.open.remove(&word.op);
                match right {
                    true => self.tally.settled.push(settled),
                    false => self.tally.wrong += usize::from(!unreachable),
                }
                self.tally.wrong += usize::from(right && stood);
            }
            (Said::Written(status), What::Write { device, sequence }) => {
                if status == WriteStatus::Stored {
                    let device = &mut account.devices[*device];
                    device.acknowledged = device.acknowledged.max(*sequence);
                    self.tally.write.push(took);
                }
                self.open.remove(&word.op);
            }
            // Nobody is there who could be told: that is no failure of the ring.
            (Said::Died, what) => {
                match what {
                    What::Read { .. } => self.tally.reads -= 1,
                    What::Write { .. } => self.tally.writes -= 1,
                }
                self.open.remove(&word.op);
            }
            (Said::Looked { .. }, What::Write { .. }) | (Said::Written(_), What::Read { .. }) => {}
        }
    }
}

/// Whether an answer shows the account with every device, none older than was acknowledged.
fn is_right(account: &Account, result: &LookupResult, sequences: &[u64]) -> bool {
    let LookupResult::Found { account: record, entries, .. } = result else { return false };
    let shown = |device: usize| {
        let of = |entry: &&ContactEntry| account.device(entry.device) == Some(device);
        entries.iter().find(of).map_or(0, |entry| entry.sequence)
    };
    record.bytes() == account.record()
        && sequences.iter().enumerate().all(|(device, sequence)| shown(device) >= *sequence)
}

/// Pause between two operations, so that neither a supernode nor the ring gets more than it is measured with.
pub(super) fn gap(ring: &SimRing) -> Duration {
    let alive = u32::try_from(ring.alive.len()).unwrap_or(u32::MAX);
    let per_s = alive.saturating_mul(PER_SUPERNODE_S).min(IN_ALL_S);
    Duration::from_secs(1) / per_s.max(1)
}

fn messages(sent: Traffic) -> f64 {
    (sent.datagrams + sent.frames) as f64
}

fn bytes(sent: Traffic) -> f64 {
    (sent.datagram_bytes + sent.frame_bytes) as f64
}
