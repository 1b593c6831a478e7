//! The part a supernode embeds: who is a member, who holds what, reads and writes over the holders for devices, and
//! records handed over when members come and go.
//!
//! Contract. In: [`Ring::handle_datagram`] with what begins with byte 20, whatever its source; [`Ring::handle_frame`]
//! with frames 16 to 21 of attached devices and of members' links, and [`Ring::link_failed`] when a member's link could
//! not be opened or broke; [`Ring::learn`] with cards from bulletins and elsewhere; [`Ring::handle_committed`] when a
//! commit is done; [`Ring::handle_timeout`] at [`Ring::deadline`]. Drain [`Ring::poll_output`] after each.
//!
//! A request to a member is one sealed datagram under a random id, and so is the answer, which goes to the address that
//! the member itself announced. What does not fit goes over a link, which the driver opens for it. Requests are
//! idempotent and repeated. No sender is believed: records are verified before they are kept, and again by whoever asked
//! for them; members are believed what they signed.

mod asked;
mod cards;
mod delivery;
mod figures;
mod leave;
mod place;
mod read;
mod repair;
mod serve;
mod standby;
mod timers;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::credential::Credential;
use yodel_identity::keys::SealingKey;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::codec::DecodeError;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::{Instant, Now};

use crate::card::{CardError, CardsWanted, Service};
use crate::directory::{Directory, Slot};
use crate::holder::{Holder, Key};
use crate::limits::{DERIVE_PAUSE, PAIRS_MAX, STANDBY, SWEEP};
use crate::membership::{Health, Membership, MembershipOutput, Own};
use crate::message::Message;
use crate::record::{Answer, ReadRequest, WriteRequest, Written};
use crate::sealed::{Exchange, NotOpened};
use crate::verify::LookupResult;

use self::asked::{Pendings, Purpose};
pub use self::figures::{Counters, Dropped, Latencies, Report};
use self::leave::Leaving;
use self::read::{Cached, LookupOp};
use self::repair::Repair;
use self::serve::Commits;
use self::standby::Standby;
use self::timers::{Timer, Timers};
use self::write::{DeliveryOp, PublishOp};

/// Who sent a frame, or is to get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A device attached here.
    Device(NodeId),
    /// A member; when no link with it is up, open one.
    Member(NodeId),
}

/// What a ring wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingOutput {
    /// Send this from the socket that members know.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
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
        /// What it took.
        report: Report,
    },
    /// This member holds a newer bulletin: fetch it over a link.
    Behind(NodeId),
    /// Something for this member will follow soon: open a link now.
    Expected(NodeId),
    /// Store this for the next run's [`Own::incarnation`].
    Incarnation(u64),
    /// What is thought of a member has changed.
    Changed {
        /// Whom.
        node: NodeId,
        /// What was thought.
        from: Health,
        /// What is thought now.
        to: Health,
    },
    /// After [`Ring::leave`]: whatever could be handed over was, and the others are being told.
    Left,
}

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Keys agreed on ahead of need, per second, so that forged datagrams find none to agree on. 64 unless set: a
    /// thousand members take 16 s and half a percent of a core.
    pub derive_ahead: u32,
    /// Agreed keys kept; [`PAIRS_MAX`] unless set.
    pub pairs_max: usize,
    /// Whether we begin on standby, as a newcomer does. Set unless a whole ring begins at once, as simulated ones do.
    pub standby: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { derive_ahead: 64, pairs_max: PAIRS_MAX, standby: true }
    }
}

/// The ring as one member sees it; see the module's text.
#[derive(Debug)]
pub struct Ring {
    me: NodeId,
    config: Config,
    membership: Membership,
    exchange: Exchange,
    rng: ChaCha20Rng,
    holder: Holder,
    standby: Standby,
    lookups: BTreeMap<u64, LookupOp>,
    fetches: BTreeMap<Key, u64>,
    publishes: BTreeMap<u64, PublishOp>,
    deliveries: BTreeMap<u64, DeliveryOp>,
    pendings: Pendings,
    timers: Timers,
    commits: Commits,
    repair: Repair,
    leaving: Option<Leaving>,
    cache: BTreeMap<Key, Cached>,
    underived: VecDeque<NodeId>,
    derived_at: Instant,
    /// Members that asked for all cards, since when, and for how many more pages they may.
    listed: BTreeMap<NodeId, (Instant, usize)>,
    next_id: u64,
    begun: Instant,
    swept: Instant,
    wary_until: Instant,
    outputs: VecDeque<RingOutput>,
    counters: Counters,
    latencies: Latencies,
}

impl Ring {
    /// A ring of one. `sealing` are our X25519 keys, the newest first. The incarnation given is rounded up so that others
    /// see a new run of this program begin.
    ///
    /// # Errors
    /// The credential is not a supernode's, or the addresses cannot be announced.
    pub fn new(
        now: Now,
        directory: Directory,
        own: Own,
        sealing: &[SealingKey],
        seed: [u8; 32],
        config: Config,
    ) -> Result<Ring, CardError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut boot = [0; 8];
        rng.fill_bytes(&mut boot);
        let mut membership_seed = [0; 32];
        rng.fill_bytes(&mut membership_seed);
        let me = own.credential.node;
        let service = if config.standby { Service::Standby } else { own.service };
        let own = Own { incarnation: repair::first_of_run(own.incarnation), service, ..own };
        let mut exchange = Exchange::new(me, boot, config.pairs_max);
        exchange.set_own(now.mono, sealing);
        let mut ring = Ring {
            me,
            config,
            membership: Membership::new(now, directory, own, membership_seed)?,
            exchange,
            rng,
            holder: Holder::new(),
            standby: if config.standby { Standby::Undecided(None) } else { Standby::Over },
            lookups: BTreeMap::new(),
            fetches: BTreeMap::new(),
            publishes: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            pendings: Pendings::default(),
            timers: Timers::default(),
            commits: Commits::default(),
            repair: Repair::default(),
            leaving: None,
            cache: BTreeMap::new(),
            underived: VecDeque::new(),
            derived_at: now.mono,
            listed: BTreeMap::new(),
            next_id: 0,
            begun: now.mono,
            swept: now.mono,
            wary_until: Instant::ORIGIN,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            latencies: Latencies::default(),
        };
        ring.pump(now);
        Ok(ring)
    }

    /// Takes in a record that an earlier run stored. The realm must hold a root statement by now.
    pub fn load(&mut self, realm: &Realm, key: Key, value: &[u8], now: Now) -> bool {
        let kept = self.holder.load(realm, key, value, now.unix);
        if kept {
            self.repair.later(now.mono + STANDBY, key);
        }
        kept
    }

    /// Members that an earlier run knew, in the directory and held there already.
    pub fn load_members(&mut self, now: Now, slots: &[Slot]) {
        self.membership.load(slots);
        for slot in slots {
            self.derive_later(self.membership.node_of(*slot));
        }
        self.pump(now);
    }

    /// A card from a bulletin, a link or the store. `None` when it is not believed.
    pub fn learn(&mut self, now: Now, realm: &Realm, card: &[u8]) -> Option<Slot> {
        let slot = self.membership.learn(now, realm, card)?;
        self.derive_later(self.membership.node_of(slot));
        self.pump(now);
        Some(slot)
    }

    /// Our credential, and with it the newest sealing key, was renewed.
    pub fn renew(&mut self, now: Now, credential: Credential, sealing: &[SealingKey]) {
        self.exchange.set_own(now.mono, sealing);
        self.membership.renew(now, credential);
        self.pump(now);
    }

    /// This member was revoked.
    pub fn revoked(&mut self, now: Now, node: NodeId) {
        self.membership.revoked(node);
        self.pump(now);
    }

    /// The epoch of the bulletin held here.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.membership.set_epoch(epoch);
    }

    /// Who is a member.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Another member that counts, at random.
    pub fn random_member(&mut self) -> Option<NodeId> {
        let slot = self.membership.random()?;
        self.membership.node_of(slot)
    }

    /// Accounts kept here.
    pub fn records(&self) -> usize {
        self.holder.len()
    }

    /// The records kept here.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How long things took since the start.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Key agreements computed since the start.
    pub fn agreements(&self) -> u64 {
        self.exchange.agreements()
    }

    /// The holders of a key, nearest first.
    pub fn holders_of(&self, key: &Key) -> Vec<NodeId> {
        let slots = self.membership.holders(key);
        slots.into_iter().filter_map(|slot| self.membership.node_of(slot)).collect()
    }

    /// The newest entry known here of a device: kept as a holder, or cached.
    pub fn newest_entry(&self, device: NodeId) -> Option<Vec<u8>> {
        let kept = self.holder.entry_of(device);
        let cached = self.cache.values().filter_map(|cached| cached.verified.contact.device(device));
        kept.into_iter().chain(cached).max_by_key(|entry| entry.sequence).map(|entry| entry.bytes().to_vec())
    }

    /// Somebody was revoked: what is kept and cached of it goes.
    pub fn sweep_now(&mut self, now: Now, realm: &Realm) {
        self.cache.clear();
        self.sweep(now, realm);
    }

    /// A device's link ended: nobody waits for its walks.
    pub fn device_gone(&mut self, node: NodeId) {
        for op in self.lookups.values_mut() {
            op.forget_device(node);
        }
    }

    /// A datagram that begins with byte 20 arrived; where from does not matter.
    pub fn handle_datagram(&mut self, now: Now, realm: &Realm, bytes: &[u8]) {
        let membership = &self.membership;
        let key_of = |node| {
            let card = membership.directory().card(membership.slot_of(node)?)?;
            Some(card.credential().sealing)
        };
        let (node, plaintext) = match self.exchange.open(now.mono, bytes, key_of) {
            Ok(opened) => opened,
            Err(error) => return self.counters.dropped.count(error),
        };
        let Some(slot) = self.membership.slot_of(node) else {
            return self.counters.dropped.count(NotOpened::Stranger(node));
        };
        self.counters.datagrams_opened += 1;
        self.counters.bytes_opened += bytes.len() as u64;
        match Message::decode(&plaintext) {
            Ok(Message::Read { id, key }) => self.serve_read(node, slot, id, &key),
            Ok(Message::Write { id, key, account, entry }) => {
                let request = WriteRequest::of_holder(key, account, entry);
                self.serve_write(now, node, id, &request, realm);
            }
            Ok(Message::Answer { id, standing, account, entries }) => {
                let answer = Answer { account, entries, ..Answer::empty(0, standing) };
                self.datagram_answered(now, node, id, &answer, bytes.len(), realm);
            }
            Ok(Message::Written { id, status, newest_entry, newest_account }) => {
                let written = Written { newest_entry, newest_account, ..Written::new(0, status) };
                self.datagram_written(now, node, id, &written, realm);
            }
            Ok(
                message @ (Message::Ping(_)
                | Message::Ack(_)
                | Message::PingRequest { .. }
                | Message::Gossip(_)
                | Message::Digest(_)
                | Message::Bucket { .. }
                | Message::CardsWanted(_)
                | Message::Cards(_)),
            ) => self.membership.handle(now, realm, slot, message),
            Err(_) => self.counters.dropped.unreadable += 1,
        }
        self.pump(now);
    }

    /// A frame of kinds 16 to 21 arrived.
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
            FrameKind::Write => self.frame_write(now, from, WriteRequest::decode(&frame.body)?, realm),
            FrameKind::Read => self.frame_read(now, realm, from, ReadRequest::decode(&frame.body)?),
            FrameKind::Written => {
                let written = Written::decode(&frame.body)?;
                if let From::Member(node) = from {
                    self.frame_written(now, node, &written, realm);
                }
            }
            FrameKind::Answer => {
                let answer = Answer::decode(&frame.body)?;
                if let From::Member(node) = from {
                    self.frame_answered(now, node, &answer, realm);
                }
            }
            FrameKind::CardsWanted => self.cards_wanted(now, from, &CardsWanted::decode(&frame.body)?),
            FrameKind::Cards => self.take_cards(now, from, &frame.body, realm)?,
            _ => {}
        }
        self.pump(now);
        Ok(())
    }

    /// A link with this member could not be opened, or broke: what it was asked over it fails at once.
    pub fn link_failed(&mut self, now: Now, realm: &Realm, node: NodeId) {
        for purpose in self.pendings.take_linked(node) {
            match purpose {
                Purpose::Lookup(op) => self.lookup_failed(now, op, node, realm),
                Purpose::Delivery { op, part } => self.delivery_failed(now, op, part, realm),
            }
        }
        self.pump(now);
    }

    /// Looks a key up for ourselves; [`RingOutput::Looked`] follows once or twice.
    pub fn lookup(&mut self, now: Now, realm: &Realm, id: u64, key: Key, past_cache: bool) {
        self.walk_read(now, realm, Some(read::Asker::Own { id }), key, past_cache);
        self.pump(now);
    }

    /// A commit is done, or failed.
    pub fn handle_committed(&mut self, now: Now, number: u64, stored: bool) {
        self.committed(now, number, stored);
        self.pump(now);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm) {
        self.membership.handle_timeout(now, realm);
        while let Some(timer) = self.timers.due(now.mono) {
            match timer {
                Timer::Lookup(op) => self.lookup_timeout(now, op, realm),
                Timer::Publish(op) => self.publish_timeout(now, op),
                Timer::Delivery(op) => self.delivery_timeout(now, op, realm),
            }
        }
        self.pendings.expire(now.mono);
        self.end_standby(now);
        self.pump(now);
        self.repair_go(now, realm);
        self.leave_go(now, realm);
        self.derive_go(now.mono);
        if now.mono >= self.swept + SWEEP {
            self.sweep(now, realm);
        }
        self.pump(now);
    }

    /// When to call [`Ring::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        let sweep = (!self.holder.is_empty() || !self.cache.is_empty() || !self.listed.is_empty())
            .then_some(self.swept + SWEEP);
        let derive = (!self.underived.is_empty()).then_some(self.derived_at + DERIVE_PAUSE);
        let times = [
            self.membership.deadline(),
            self.timers.next(),
            self.repair.deadline(),
            self.leaving.as_ref().and_then(Leaving::deadline),
            sweep,
            self.standby_deadline(),
            derive,
        ];
        times.into_iter().flatten().min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<RingOutput> {
        self.outputs.pop_front()
    }

    /// Carries out what the membership wants.
    fn pump(&mut self, now: Now) {
        loop {
            while let Some(output) = self.membership.poll_output() {
                match output {
                    MembershipOutput::Send { to, message } => {
                        self.transmit(to, &message);
                    }
                    MembershipOutput::Changed { slot: _, node, from, to } => {
                        self.member_changed(now, node, from, to);
                        self.outputs.push_back(RingOutput::Changed { node, from, to });
                    }
                    MembershipOutput::Replaced { old: _, new } => self.member_replaced(now, new),
                    MembershipOutput::Behind(slot) => {
                        let node = self.membership.node_of(slot);
                        self.outputs.extend(node.map(RingOutput::Behind));
                    }
                    MembershipOutput::Incarnation(number) => {
                        self.outputs.push_back(RingOutput::Incarnation(number));
                    }
                }
            }
            if !self.decide_standby(now) {
                return;
            }
        }
    }

    /// Seals and sends a message. Returns the length of the datagram, or `None` when it cannot be sent.
    fn transmit(&mut self, slot: Slot, message: &Message) -> Option<usize> {
        let plaintext = message.encode()?;
        let (node, to) = (self.membership.node_of(slot)?, self.membership.addr_of(slot)?);
        let directory = self.membership.directory();
        let key_of = || directory.card(slot).map(|card| card.credential().sealing);
        let bytes = self.exchange.seal(node, key_of, &plaintext)?;
        let length = bytes.len();
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += length as u64;
        self.outputs.push_back(RingOutput::Datagram { to, bytes });
        Some(length)
    }

    fn send(&mut self, to: From, frame: Frame) {
        self.outputs.push_back(RingOutput::Send { to, frame });
    }

    fn derive_later(&mut self, node: Option<NodeId>) {
        if self.config.derive_ahead > 0 && self.underived.len() < self.config.pairs_max {
            self.underived.extend(node.filter(|node| *node != self.me));
        }
    }

    fn derive_go(&mut self, now: Instant) {
        if self.underived.is_empty() || now < self.derived_at + DERIVE_PAUSE {
            return;
        }
        self.derived_at = now;
        let mut left = (self.config.derive_ahead / (1_000 / DERIVE_PAUSE.as_millis() as u32)).max(1);
        while left > 0
            && let Some(node) = self.underived.pop_front()
        {
            let card = self.membership.slot_of(node).and_then(|slot| self.membership.directory().card(slot));
            if let Some(card) = card
                && self.exchange.derive(node, &card.credential().sealing)
            {
                left -= 1;
            }
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests;
