//! Reads and writes at supernodes picked at random, and what came of them.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_overlay::record::{ContactEntry, Standing, WriteStatus};
use yodel_wire::time::Instant;

use super::ask::{Askers, Said, Word};
use super::figures::{Figures, Percentiles, rounded};
use super::ring::SimRing;
use crate::sim::world::Traffic;

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
}

#[derive(Clone, Copy)]
enum What {
    /// Finds nothing older than this.
    Read { sequence: u64 },
    /// Writes this.
    Write { sequence: u64 },
}

/// What came of operations.
#[derive(Default)]
struct Tally {
    first: Vec<Duration>,
    settled: Vec<Duration>,
    write: Vec<Duration>,
    reads: usize,
    wrong: usize,
    writes: usize,
}

/// What the ring sends of itself, all members together.
#[derive(Clone, Copy, Default)]
pub(super) struct Idle {
    messages_s: f64,
    bytes_s: f64,
    /// Of one member.
    pub(super) each_bytes_s: f64,
}

impl Idle {
    /// What is left of it when `gone` of `members` are gone.
    pub(super) fn without(self, gone: usize, members: usize) -> Idle {
        let left = (members - gone) as f64 / members as f64;
        Idle { messages_s: self.messages_s * left, bytes_s: self.bytes_s * left, ..self }
    }
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

    /// Measures what the ring sends when nobody asks.
    pub(super) fn idle(&mut self, ring: &mut SimRing, span: Duration) -> Idle {
        let before = ring.sent();
        ring.run_for(span);
        let sent = ring.sent() - before;
        let bytes_s = bytes(sent) / span.as_secs_f64();
        let each_bytes_s = bytes_s / ring.alive.len() as f64;
        Idle { messages_s: messages(sent) / span.as_secs_f64(), bytes_s, each_bytes_s }
    }

    /// Reads and writes; `before` is what the ring sends of itself and does not count.
    pub(super) fn measure(&mut self, ring: &mut SimRing, lookups: u32, before: Idle) -> Figures {
        self.tally = Tally::default();
        let (sent, begun) = (ring.sent(), ring.world.now().mono);
        self.reads(ring, lookups);
        // Whole seconds: what the ring sends of itself comes in rounds.
        let over = ring.world.now().mono.since(begun).subsec_nanos();
        ring.run_for(Duration::from_secs(1) - Duration::from_nanos(over.into()));
        let took = ring.world.now().mono.since(begun).as_secs_f64();
        let sent = ring.sent() - sent;
        let each = |all: f64, idle_s: f64| rounded((all - idle_s * took).max(0.0) / f64::from(lookups));
        let (datagrams, bytes) = (each(messages(sent), before.messages_s), each(bytes(sent), before.bytes_s));
        self.writes(ring, lookups.div_ceil(4) as usize);
        Figures { datagrams, bytes, idle_bytes_s: rounded(before.each_bytes_s), ..self.figures() }
    }

    /// What came of all reads and writes since the last `measure`.
    pub(super) fn figures(&self) -> Figures {
        let share = |part: usize, all: usize| if all == 0 { 0.0 } else { part as f64 / all as f64 };
        let Tally { first, settled, write, reads, wrong, writes } = &self.tally;
        Figures {
            first_ms: Percentiles::of(first),
            settled_ms: Percentiles::of(settled),
            write_ms: Percentiles::of(write),
            datagrams: 0.0,
            bytes: 0.0,
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
            let (supernode, account) = (ring.pick(), ring.pick_account());
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

    /// Every account writes its next entry.
    pub(super) fn publish_all(&mut self, ring: &mut SimRing) {
        self.writes(ring, ring.accounts.len());
    }

    /// Reads every account; tells how many did not read back as last acknowledged.
    pub(super) fn check_all(&mut self, ring: &mut SimRing) -> usize {
        let kept = std::mem::take(&mut self.tally);
        for account in 0..ring.accounts.len() {
            let supernode = ring.pick();
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
        let sequence = ring.accounts[account].acknowledged;
        let op = self.begin(ring, account, What::Read { sequence });
        self.tally.reads += 1;
        let key = ring.accounts[account].key();
        self.askers.read(ring, supernode, op, key);
    }

    /// Asks for a write of the account's next entry.
    pub(super) fn write(&mut self, ring: &mut SimRing, supernode: usize, account: usize) {
        let (sequence, publication) = ring.publication(account);
        let op = self.begin(ring, account, What::Write { sequence });
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
        self.open.clear();
    }

    fn begin(&mut self, ring: &SimRing, account: usize, what: What) -> u64 {
        self.next_op += 1;
        let open = Open { begun: ring.world.now().mono, account, what, answered: false };
        self.open.insert(self.next_op, open);
        self.next_op
    }

    fn take(&mut self, ring: &mut SimRing, word: Word) {
        let Some(open) = self.open.get_mut(&word.op) else { return };
        let took = word.at.since(open.begun);
        let account = &mut ring.accounts[open.account];
        match (word.said, open.what) {
            (Said::Found { standing, account: record, entries, settled }, What::Read { sequence }) => {
                let held = standing == Standing::Held && record.as_deref() == Some(account.record());
                let newest = entries
                    .iter()
                    .filter_map(|entry| ContactEntry::decode_unverified(entry).ok())
                    .map(|entry| entry.sequence)
                    .max();
                if held && newest.is_some() && !std::mem::replace(&mut open.answered, true) {
                    self.tally.first.push(took);
                }
                if settled {
                    self.open.remove(&word.op);
                    match held && newest >= Some(sequence) {
                        true => self.tally.settled.push(took),
                        false if standing == Standing::Unreachable => {}
                        false => self.tally.wrong += 1,
                    }
                }
            }
            (Said::Written(status), What::Write { sequence }) => {
                self.open.remove(&word.op);
                if status == WriteStatus::Stored {
                    account.acknowledged = account.acknowledged.max(sequence);
                    self.tally.write.push(took);
                }
            }
            (Said::Found { .. }, What::Write { .. }) | (Said::Written(_), What::Read { .. }) => {}
        }
    }
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
