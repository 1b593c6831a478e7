//! The part a supernode embeds: it keeps records as a holder, walks to the holders for devices, and hands records over
//! when members come and go.
//!
//! Contract: [`Ring::set_members`] with each bulletin, [`Ring::link_up`] and [`Ring::link_down`] with the fate of links to
//! members, [`Ring::handle_frame`] with frames 16 to 19 of attached devices and linked members, [`Ring::handle_committed`]
//! when a commit is done, [`Ring::handle_timeout`] at [`Ring::deadline`]. Drain [`Ring::poll_output`] after each. It opens
//! no link and believes no sender: records are verified before they are kept, and again by whoever asked for them.

mod repair;
mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::{Instant, Now};

use crate::holder::{Holder, Key};
use crate::limits::{STANDBY, STANDBY_MEMBERS, SWEEP};
use crate::lookup::Lookup;
use crate::members::Members;
use crate::placement::{Member, holders};
use crate::publish::Publish;
use crate::record::{Answer, ReadRequest, Scope, Standing, WriteRequest, WriteStatus, Written};
use crate::verify::{LookupResult, Verified};

/// Jobs of handing over that wait; the oldest goes first, and the records' next refresh makes up for it.
const REPAIR_JOBS_MAX: usize = 16;

/// Round trips are smoothed like TCP's (RFC 6298 §2): a new one counts an eighth.
const RTT_WEIGHT: u32 = 8;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A device attached here.
    Device(NodeId),
    /// A member linked with this one.
    Member(NodeId),
}

/// What a ring wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingOutput {
    /// Write this frame to the link with this member or device.
    Send {
        /// Whom to.
        to: From,
        /// What.
        frame: Frame,
    },
    /// Bring this to stable storage, then call [`Ring::handle_committed`] with the number.
    Commit {
        /// Names the commit.
        number: u64,
        /// Key of the record.
        key: Key,
        /// Its value; `None` removes it.
        value: Option<Vec<u8>>,
    },
    /// What a lookup of our own found. Follows once more when not settled.
    Looked {
        /// As given to [`Ring::lookup`].
        id: u64,
        /// What was found.
        result: LookupResult,
    },
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Walks for reads.
    pub lookups: u64,
    /// Reads answered from the cache.
    pub cached: u64,
    /// Walks for writes.
    pub publishes: u64,
    /// Requests answered as a holder.
    pub served: u64,
    /// Records handed over to other members.
    pub handed_over: u64,
    /// Answers of holders that did not verify.
    pub disbelieved: u64,
}

/// Who waits for a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Device { node: NodeId, id: u64 },
    Own { id: u64 },
}

#[derive(Debug)]
struct LookupOp {
    key: Key,
    lookup: Lookup,
    askers: Vec<Asker>,
}

#[derive(Debug)]
struct PublishOp {
    key: Key,
    publish: Publish,
    device: NodeId,
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Lookup(u64),
    Publish(u64),
    Repair,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    to: NodeId,
    purpose: Purpose,
    sent: Instant,
}

/// Who waits for a commit.
#[derive(Clone, Debug)]
enum CommitWaiter {
    Member { node: NodeId, written: Written },
    Publish { op: u64, written: Written },
    Nobody,
}

#[derive(Clone, Debug)]
struct RepairJob {
    before: Vec<Member>,
    after: Vec<Member>,
    cursor: Option<Key>,
    next: Instant,
}

#[derive(Clone, Debug)]
struct Cached {
    verified: Verified,
    until: Instant,
}

/// The ring as one member sees it; see the module's text.
#[derive(Debug)]
pub struct Ring {
    me: NodeId,
    members: Members,
    live: Vec<Member>,
    holder: Holder,
    standby_until: Option<Instant>,
    lookups: BTreeMap<u64, LookupOp>,
    publishes: BTreeMap<u64, PublishOp>,
    pending: BTreeMap<u64, Pending>,
    commits: BTreeMap<u64, CommitWaiter>,
    repairs: VecDeque<RepairJob>,
    rtts: BTreeMap<NodeId, Duration>,
    cache: BTreeMap<Key, Cached>,
    next_id: u64,
    swept: Instant,
    outputs: VecDeque<RingOutput>,
    counters: Counters,
}

impl Ring {
    /// A ring without members and records. Whoever runs it is `me`.
    pub fn new(now: Now, me: NodeId) -> Ring {
        Ring {
            me,
            members: Members::new(me),
            live: Vec::new(),
            holder: Holder::new(),
            standby_until: None,
            lookups: BTreeMap::new(),
            publishes: BTreeMap::new(),
            pending: BTreeMap::new(),
            commits: BTreeMap::new(),
            repairs: VecDeque::new(),
            rtts: BTreeMap::new(),
            cache: BTreeMap::new(),
            next_id: 0,
            swept: now.mono,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in a record that an earlier run stored. The realm must hold a root statement by now.
    pub fn load(&mut self, realm: &Realm, key: Key, value: &[u8], now: Now) -> bool {
        self.holder.load(realm, key, value, now.unix)
    }

    /// Accounts kept here.
    pub fn records(&self) -> usize {
        self.holder.len()
    }

    /// Members that count now, oneself included when named.
    pub fn live(&self) -> &[Member] {
        &self.live
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The records kept here.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The holders of a key among the members that count.
    pub fn holders_of(&self, key: &Key) -> Vec<NodeId> {
        holders(&self.live, key)
    }

    /// The newest entry known here of a device: kept as a holder, or cached.
    pub fn newest_entry(&self, device: NodeId) -> Option<Vec<u8>> {
        let kept = self.holder.entry_of(device);
        let cached = self.cache.values().filter_map(|cached| cached.verified.contact.device(device));
        kept.into_iter().chain(cached).max_by_key(|entry| entry.sequence).map(|entry| entry.bytes().to_vec())
    }

    /// A bulletin names these members. Entries of whom it revoked go.
    pub fn set_members(&mut self, now: Now, members: Vec<Member>, realm: &Realm) {
        let first = self.members.named().is_empty();
        if first && members.len() >= STANDBY_MEMBERS {
            self.standby_until = Some(now.mono + STANDBY);
        }
        self.rtts.retain(|node, _| members.iter().any(|member| member.node == *node));
        self.members.set(now.mono, members);
        self.cache.clear();
        self.sweep(now, realm);
        self.recount(now.mono);
    }

    /// Somebody was revoked: what is kept and cached of it goes.
    pub fn sweep_now(&mut self, now: Now, realm: &Realm) {
        self.cache.clear();
        self.sweep(now, realm);
    }

    /// The link to a member is up.
    pub fn link_up(&mut self, now: Now, node: NodeId) {
        let counted = self.live.iter().any(|member| member.node == node);
        self.members.link_up(node);
        self.recount(now.mono);
        if counted && !self.holder.is_empty() {
            // It missed what was written meanwhile, or is a new process and has forgotten all.
            let without: Vec<Member> =
                self.live.iter().copied().filter(|member| member.node != node).collect();
            self.push_repair(now.mono, without, self.live.clone());
        }
    }

    /// The link to a member ended: what it was asked fails at once.
    pub fn link_down(&mut self, now: Now, node: NodeId) {
        self.members.link_down(now.mono, node);
        let lost: Vec<(u64, Purpose)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.to == node)
            .map(|(id, pending)| (*id, pending.purpose))
            .collect();
        for (id, purpose) in lost {
            self.pending.remove(&id);
            self.failed(now, node, purpose);
        }
        self.recount(now.mono);
    }

    /// A device's link ended: nobody waits for its walks.
    pub fn device_gone(&mut self, node: NodeId) {
        for op in self.lookups.values_mut() {
            op.askers.retain(|asker| !matches!(asker, Asker::Device { node: asker, .. } if *asker == node));
        }
    }

    /// A frame of kinds 16 to 19 arrived.
    ///
    /// # Errors
    /// It cannot be read: close the link.
    pub fn handle_frame(
        &mut self,
        now: Now,
        from: From,
        frame: &Frame,
        realm: &Realm,
    ) -> Result<(), DecodeError> {
        match frame.kind {
            FrameKind::Write => self.handle_write(now, from, WriteRequest::decode(&frame.body)?, realm),
            FrameKind::Read => self.handle_read(now, from, ReadRequest::decode(&frame.body)?),
            FrameKind::Written => {
                let written = Written::decode(&frame.body)?;
                if let Some((node, Purpose::Publish(op))) = self.answered(now.mono, from, written.id) {
                    self.publish_written(op, node, &written);
                }
            }
            FrameKind::Answer => {
                let answer = Answer::decode(&frame.body)?;
                if let Some((node, Purpose::Lookup(op))) = self.answered(now.mono, from, answer.id) {
                    self.lookup_answered(now, op, node, &answer, realm);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks a key up for ourselves; [`RingOutput::Looked`] follows once or twice.
    pub fn lookup(&mut self, now: Now, id: u64, key: Key, past_cache: bool) {
        self.walk_read(now, Asker::Own { id }, key, past_cache);
    }

    /// A commit is done, or failed.
    pub fn handle_committed(&mut self, number: u64, stored: bool) {
        let settle = |written: Written| {
            if stored { written } else { Written::new(written.id, WriteStatus::Full) }
        };
        match self.commits.remove(&number) {
            Some(CommitWaiter::Member { node, written }) => {
                self.send(From::Member(node), settle(written).encode());
            }
            Some(CommitWaiter::Publish { op, written }) => {
                let me = self.me;
                self.publish_written(op, me, &settle(written));
            }
            Some(CommitWaiter::Nobody) | None => {}
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm) {
        self.recount(now.mono);
        let ops: Vec<u64> = self.lookups.keys().copied().collect();
        for op in ops {
            if let Some(lookup) = self.lookups.get_mut(&op)
                && lookup.lookup.deadline().is_some_and(|at| now.mono >= at)
            {
                lookup.lookup.handle_timeout(now.mono);
                self.drive_lookup(now, op);
            }
        }
        let ops: Vec<u64> = self.publishes.keys().copied().collect();
        for op in ops {
            let outcome = self.publishes.get_mut(&op).and_then(|p| p.publish.handle_timeout(now.mono));
            if let Some(outcome) = outcome {
                self.publish_done(op, outcome);
            }
        }
        self.pending.retain(|_, pending| now.mono < pending.sent + crate::limits::OPERATION);
        self.repair(now.mono);
        if now.mono >= self.swept + SWEEP {
            self.sweep(now, realm);
        }
    }

    /// When to call [`Ring::handle_timeout`].
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let lookups = self.lookups.values().filter_map(|op| op.lookup.deadline());
        let publishes = self.publishes.values().filter_map(|op| op.publish.deadline());
        let sweep = (!self.holder.is_empty() || !self.cache.is_empty() || !self.pending.is_empty())
            .then_some(self.swept + SWEEP);
        lookups
            .chain(publishes)
            .chain(self.members.deadline(now.mono))
            .chain(self.repairs.front().map(|job| job.next))
            .chain(sweep)
            .min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<RingOutput> {
        self.outputs.pop_front()
    }

    fn handle_write(&mut self, now: Now, from: From, request: WriteRequest, realm: &Realm) {
        match (from, request.scope) {
            (From::Member(node), Scope::Holder) => {
                self.counters.served += 1;
                let (written, value) = self.keep(now, &request, realm);
                let written = Written { id: request.id, ..written };
                self.after_commit(request.key, value, CommitWaiter::Member { node, written });
            }
            (From::Device(node), Scope::Holder | Scope::Walk) => self.walk_write(now, node, request, realm),
            (From::Member(_), Scope::Walk) => {
                self.send(from, Written::new(request.id, WriteStatus::Refused).encode());
            }
        }
    }

    fn handle_read(&mut self, now: Now, from: From, request: ReadRequest) {
        match (from, request.scope) {
            (From::Member(_), Scope::Holder) => {
                self.counters.served += 1;
                let answer = self.own_answer(now.mono, &request.key);
                self.send(from, Answer { id: request.id, ..answer }.encode());
            }
            (From::Device(node), Scope::Holder | Scope::Walk) => {
                let asker = Asker::Device { node, id: request.id };
                self.walk_read(now, asker, request.key, request.past_cache);
            }
            (From::Member(_), Scope::Walk) => {
                self.send(from, Answer::empty(request.id, Standing::Unreachable).encode());
            }
        }
    }

    fn own_answer(&self, now: Instant, key: &Key) -> Answer {
        let standby = self.standby_until.is_some_and(|until| now < until);
        self.holder.answer(key, standby)
    }

    /// Writes as a holder; the second value is what must be committed first.
    fn keep(&mut self, now: Now, request: &WriteRequest, realm: &Realm) -> (Written, Option<Vec<u8>>) {
        let (written, changed) = self.holder.write(
            realm,
            request.key,
            request.account.as_deref(),
            request.entry.as_deref(),
            now.unix,
        );
        if changed {
            // A holder that hears of something newer must not go on telling what it once fetched.
            self.cache.remove(&request.key);
        }
        let value = changed.then(|| self.holder.get(&request.key).map(crate::holder::Held::encode));
        (written, value.flatten())
    }

    fn after_commit(&mut self, key: Key, value: Option<Vec<u8>>, waiter: CommitWaiter) {
        let number = self.take_id();
        self.commits.insert(number, waiter);
        match value {
            Some(value) => self.outputs.push_back(RingOutput::Commit { number, key, value: Some(value) }),
            None => self.handle_committed(number, true),
        }
    }

    /// Sends a request to a member, or fails it at once when its link is down.
    fn ask(&mut self, now: Now, node: NodeId, purpose: Purpose, request: impl FnOnce(u64) -> Frame) {
        if !self.members.is_up(node) {
            self.failed(now, node, purpose);
            return;
        }
        let id = self.take_id();
        self.pending.insert(id, Pending { to: node, purpose, sent: now.mono });
        self.send(From::Member(node), request(id));
    }

    fn failed(&mut self, now: Now, node: NodeId, purpose: Purpose) {
        match purpose {
            Purpose::Lookup(op) => {
                if let Some(lookup) = self.lookups.get_mut(&op) {
                    lookup.lookup.handle_failed(now.mono, node);
                    self.drive_lookup(now, op);
                }
            }
            Purpose::Publish(op) => {
                let outcome = self.publishes.get_mut(&op).and_then(|op| op.publish.handle_failed(node));
                if let Some(outcome) = outcome {
                    self.publish_done(op, outcome);
                }
            }
            Purpose::Repair => {}
        }
    }

    /// Matches an answer with its request: only the member that was asked may answer.
    fn answered(&mut self, now: Instant, from: From, id: u64) -> Option<(NodeId, Purpose)> {
        let From::Member(node) = from else { return None };
        if self.pending.get(&id)?.to != node {
            return None;
        }
        let pending = self.pending.remove(&id)?;
        let rtt = now.since(pending.sent);
        self.rtts
            .entry(node)
            .and_modify(|known| *known = (*known * (RTT_WEIGHT - 1) + rtt) / RTT_WEIGHT)
            .or_insert(rtt);
        Some((node, pending.purpose))
    }

    /// Who counts has perhaps changed.
    fn recount(&mut self, now: Instant) {
        let live = self.members.live(now);
        if live != self.live {
            let before = std::mem::replace(&mut self.live, live.clone());
            if !before.is_empty() {
                self.push_repair(now, before, live);
            }
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn send(&mut self, to: From, frame: Frame) {
        self.outputs.push_back(RingOutput::Send { to, frame });
    }
}

#[cfg(test)]
mod tests;
