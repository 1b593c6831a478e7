//! Who is a member, as one member sees it: everyone knows everyone.
//!
//! SWIM's probes and gossip (Das, Gupta and Motivala, 2002) with Lifeguard's suspicion (Dadgar, Phillips and Currey, 2017), and two rules of our own, because members may lie:
//!
//! * *Hearsay starts a look, nothing else.* That a member does not answer is believed only of one's own probes, and
//!   passed on only after these went unanswered. So a lie dies where it was told, and nobody honest is dropped by it.
//!   A teller whose hearsay proves wrong too often is no longer listened to.
//! * *What a member says of itself is signed.* An unknown id enters the table only with a card that verifies.
//!
//! A member is in one of these states ([`Health`]):
//!
//! ```text
//!                 card verified                        own probes unanswered
//!   Unknown ──────────────────────▶ Standby ─▶ Alive ─────────────────────────▶ Suspect
//!                                      ▲         ▲       a fresh answer            │
//!                                      │         └──────────────────────────────── ┤
//!                                      │  a fresh answer                           │ nothing heard in time
//!                                      └──────────────────────── Dead ◀────────────┘
//!   any ── own announcement ──▶ Left
//! ```
//! Standby, Alive and Suspect count. The dead are probed for ever; one that answers makes the others be probed at once,
//! because a partition has healed perhaps. Every ping carries the print of the table: where prints differ and no news are
//! under way, tables are compared bucket by bucket, and what differs is looked at.
//!
//! Contract: [`Membership::learn`] with cards from bulletins and links, [`Membership::handle`] with messages of members
//! whose seal was good, [`Membership::answered`] when a member answered something else, [`Membership::check`] when it did
//! not, [`Membership::handle_timeout`] at [`Membership::deadline`]. Drain [`Membership::poll_output`] after each. It seals
//! nothing, sends nothing, and counts as life only answers to its own fresh questions: a recorded datagram revives nobody.

mod check;
mod news;
mod sync;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::credential::Credential;
use yodel_identity::keys::SigningKey;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use self::check::{Check, Errand, Pinged};
use self::news::Rumours;
use self::sync::Want;
use crate::card::{Card, CardError, Service};
use crate::directory::{Directory, Slot};
use crate::limits::{PING_EVERY, SMALL_REALM};
use crate::message::{Message, Probe, Sight};

/// Who this member is.
#[derive(Debug)]
pub struct Own {
    /// Its key.
    pub key: SigningKey,
    /// Its credential.
    pub credential: Credential,
    /// Where it answers over UDP.
    pub udp: Vec<SocketAddr>,
    /// Where it answers over TCP.
    pub tcp: Vec<SocketAddr>,
    /// Above every incarnation of earlier runs, as far as it is known.
    pub incarnation: u64,
    /// As what it begins.
    pub service: Service,
}

/// What is thought of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It is not in the table.
    #[default]
    Unknown,
    /// It is new: written to, not read from.
    Standby,
    /// It serves.
    Alive,
    /// Own probes go unanswered. It still counts.
    Suspect,
    /// It did not answer for too long.
    Dead,
    /// It said goodbye.
    Left,
}

impl Health {
    /// Whether it counts: is a holder, is written to.
    pub fn counts(self) -> bool {
        match self {
            Health::Standby | Health::Alive | Health::Suspect => true,
            Health::Unknown | Health::Dead | Health::Left => false,
        }
    }
}

impl Health {
    /// In a word, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Standby => "standby",
            Health::Alive => "alive",
            Health::Suspect => "suspect",
            Health::Dead => "dead",
            Health::Left => "left",
        }
    }
}

impl From<Service> for Health {
    fn from(service: Service) -> Health {
        match service {
            Service::Alive => Health::Alive,
            Service::Standby => Health::Standby,
            Service::Left => Health::Left,
        }
    }
}

/// What membership wants done or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipOutput {
    /// Seal this and send it to the member's listed address.
    Send {
        /// Whom to.
        to: Slot,
        /// What.
        message: Message,
    },
    /// Another opinion of a member. `Unknown` frees the slot: it may name another card from then on.
    Changed {
        /// Its card.
        slot: Slot,
        /// Who.
        node: NodeId,
        /// What was thought.
        from: Health,
        /// What is thought now.
        to: Health,
    },
    /// A newer card took the place of an older one of the same member; the old slot is free.
    Replaced {
        /// The slot it had.
        old: Slot,
        /// The slot it has.
        new: Slot,
    },
    /// This member says that it holds a newer bulletin.
    Behind(Slot),
    /// The own announcement has this incarnation now: store it.
    Incarnation(u64),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pings sent.
    pub pings: u64,
    /// Members that became suspect.
    pub suspected: u64,
    /// Members held dead.
    pub died: u64,
    /// Members that answered after all.
    pub revived: u64,
    /// Hearsay that one's own probes showed to be wrong.
    pub hearsay_wrong: u64,
    /// Hearsay not looked at, because its teller was wrong too often.
    pub hearsay_ignored: u64,
    /// Cards and announcements that did not verify.
    pub disbelieved: u64,
    /// Tables compared.
    pub digests: u64,
}

/// One's own view of a member: 8 bytes, whatever the card weighs.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    health: Health,
    /// Round trip in tenths of a millisecond, smoothed; 0 when none was measured.
    rtt: u16,
    /// When it last answered, in milliseconds since the origin, wrapping; 0 for never.
    answered: u32,
}

/// The table; see the module's text.
#[derive(Debug)]
pub struct Membership {
    own: Own,
    me: Slot,
    directory: Directory,
    views: Vec<View>,
    count: usize,
    print: u32,
    generation: u64,
    epoch: u64,
    behind: Option<Instant>,
    usual_rtt: Option<Duration>,
    rng: ChaCha20Rng,
    next_probe: Instant,
    /// Where the round of probes is, and how it steps: once round meets everybody once, in an order nobody can guess.
    round: Round,
    next_number: u32,
    pings: BTreeMap<u32, Pinged>,
    checks: BTreeMap<Slot, Check>,
    /// Checks by when they go on.
    agenda: BTreeSet<(Instant, Slot)>,
    errands: BTreeMap<u32, Errand>,
    dead: BTreeSet<Slot>,
    dead_cursor: Option<Slot>,
    next_dead: Instant,
    /// The dead that are still to be asked at once.
    burst: usize,
    /// How often each teller was wrong lately.
    wrong: BTreeMap<NodeId, u32>,
    rumours: Rumours,
    wants: BTreeMap<NodeId, Want>,
    next_digest: Instant,
    outputs: VecDeque<MembershipOutput>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Round {
    at: usize,
    stride: usize,
    left: usize,
}

impl Membership {
    /// A table with oneself in it, who announces itself.
    ///
    /// # Errors
    /// The credential is not a supernode's, or the addresses cannot be announced.
    pub fn new(now: Now, directory: Directory, own: Own, seed: [u8; 32]) -> Result<Membership, CardError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let card = sign(&own)?;
        let me = directory.insert(card);
        let first = now.mono + spread(&mut rng, PING_EVERY);
        let mut membership = Membership {
            me,
            directory,
            views: Vec::new(),
            count: 0,
            print: 0,
            generation: 0,
            epoch: 0,
            behind: None,
            usual_rtt: None,
            next_number: rng.next_u32(),
            rng,
            next_probe: first,
            round: Round::default(),
            pings: BTreeMap::new(),
            checks: BTreeMap::new(),
            agenda: BTreeSet::new(),
            errands: BTreeMap::new(),
            dead: BTreeSet::new(),
            dead_cursor: None,
            next_dead: first,
            burst: 0,
            wrong: BTreeMap::new(),
            rumours: Rumours::default(),
            wants: BTreeMap::new(),
            next_digest: first,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            own,
        };
        membership.outputs.push_back(MembershipOutput::Incarnation(membership.own.incarnation));
        let service = membership.own.service;
        membership.set_health(me, service.into());
        membership.rumours.announce(me);
        Ok(membership)
    }

    /// The own card.
    pub fn me(&self) -> Slot {
        self.me
    }

    /// As what this member announces itself.
    pub fn service(&self) -> Service {
        self.own.service
    }

    /// The cards.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// These were in the table of an earlier run; they are held already, and believed until they do not answer.
    pub fn load(&mut self, slots: &[Slot]) {
        let mut news = Vec::with_capacity(slots.len());
        let (mut count, mut print) = (0, 0);
        let room = slots.iter().map(|slot| slot.index() + 1).max().unwrap_or(0);
        self.views.resize(self.views.len().max(room), View::default());
        let (views, me) = (&mut self.views, self.me);
        self.directory.each(slots.iter().copied(), |slot, member, part| {
            if let Some(view) = views.get_mut(slot.index())
                && view.health == Health::Unknown
                && slot != me
            {
                view.health = Health::Alive;
                count += 1;
                print ^= part;
                news.push((slot, member.node));
            }
        });
        self.count += count;
        self.print ^= print;
        self.generation += 1;
    }

    /// A card that somebody passed on. The slot that its member has in the table, if it is in it.
    pub fn learn(&mut self, now: Now, realm: &Realm, card: &[u8]) -> Option<Slot> {
        let Ok((credential, announcement)) = Card::split(card) else {
            self.counters.disbelieved += 1;
            return None;
        };
        match self.directory.intern(realm, credential, announcement) {
            Ok(slot) => self.accept(now, realm, slot),
            Err(_) => {
                self.counters.disbelieved += 1;
                None
            }
        }
    }

    /// A message of kinds 1 to 8 of a member whose seal was good.
    pub fn handle(&mut self, now: Now, realm: &Realm, from: Slot, message: Message) {
        if from == self.me || self.health(from) == Health::Unknown {
            return;
        }
        match message {
            Message::Ping(probe) => {
                self.hear_probe(now, realm, from, &probe);
                let news = self.ride_along();
                let answer = Probe { number: probe.number, news, ..self.probe() };
                self.send(from, Message::Ack(answer));
                if matches!(self.health(from), Health::Suspect | Health::Dead) {
                    self.look_at(now, from, None);
                }
            }
            Message::Ack(probe) => {
                self.acked(now, from, &probe);
                self.hear_probe(now, realm, from, &probe);
            }
            Message::PingRequest { number, target } => self.run_errand(now, from, number, target),
            Message::Gossip(news) => self.hear(now, realm, from, news),
            Message::Digest(prints) => self.compare(from, &prints),
            Message::Bucket { index, buckets, entries } => {
                self.compare_bucket(now, from, index, buckets, &entries);
            }
            Message::CardsWanted(nodes) => self.hand_out(from, &nodes),
            Message::Cards(cards) => self.take_cards(now, realm, from, &cards),
            Message::Read { .. }
            | Message::Answer { .. }
            | Message::Write { .. }
            | Message::Written { .. } => {}
        }
    }

    /// What a ping and an answer to one say beside their purpose.
    fn hear_probe(&mut self, now: Now, realm: &Realm, from: Slot, probe: &Probe) {
        if probe.epoch > self.epoch && self.behind.is_none_or(|next| now.mono >= next) {
            self.behind = Some(now.mono + PING_EVERY);
            self.outputs.push_back(MembershipOutput::Behind(from));
        }
        if let Some(card) = self.directory.card(from) {
            let known = card.announcement().incarnation;
            if probe.incarnation > known {
                self.want(now.mono, from, card.node());
            } else if probe.incarnation < known {
                // It lost its memory: its own announcement shows how far it was.
                self.rumours.announce(from);
            }
        }
        let news = probe.news.clone();
        let quiet = news.is_empty();
        self.hear(now, realm, from, news);
        if quiet && probe.print != self.print {
            self.print_differs(now.mono, from);
        }
    }

    /// A member answered a fresh question of ours after `rtt`.
    pub fn answered(&mut self, now: Now, slot: Slot, rtt: Duration) {
        if let Some(view) = self.views.get_mut(slot.index()) {
            let tenths = u16::try_from(rtt.as_micros() / 100).unwrap_or(u16::MAX).max(1);
            view.rtt = match view.rtt {
                0 => tenths,
                // RFC 6298 §2: a new one counts an eighth.
                known => ((u32::from(known) * 7 + u32::from(tenths)) / 8) as u16,
            };
            view.answered = stamp(now.mono);
        }
        self.usual_rtt = Some(self.usual_rtt.map_or(rtt, |usual| (usual * 15 + rtt) / 16));
        self.is_there(now, slot);
    }

    /// A request to this member went unanswered: look whether it is there.
    pub fn check(&mut self, now: Now, slot: Slot) {
        if self.health(slot).counts() && slot != self.me {
            self.look_at(now, slot, None);
        }
    }

    /// The epoch of the bulletin that is held.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Announces that this member serves now, or leaves.
    pub fn set_service(&mut self, now: Now, service: Service) {
        if self.own.service != service {
            self.own.service = service;
            self.announce_anew();
            self.plan_push(now.mono);
        }
    }

    /// Announces that this member has its next credential.
    pub fn renew(&mut self, now: Now, credential: Credential) {
        self.own.credential = credential;
        self.announce_anew();
        self.plan_push(now.mono);
    }

    /// This member was revoked: out of the table.
    pub fn revoked(&mut self, node: NodeId) {
        if let Some(slot) = self.slot_of(node)
            && slot != self.me
        {
            self.remove(slot);
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm) {
        while let Some((at, slot)) = self.agenda.first().copied()
            && now.mono >= at
        {
            self.agenda.remove(&(at, slot));
            self.go_on(now, slot);
        }
        if now.mono >= self.next_dead {
            self.probe_dead(now, realm);
        }
        if self.rumours.push_due(now.mono) {
            self.push_news();
        }
        if now.mono >= self.next_probe {
            self.next_probe = now.mono + PING_EVERY;
            self.tidy(now.mono);
            self.probe_next(now, realm);
        }
        self.plan_push(now.mono);
    }

    /// When to call [`Membership::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        let dead = (!self.dead.is_empty()).then_some(self.next_dead);
        [Some(self.next_probe), self.agenda.first().map(|(at, _)| *at), dead, self.rumours.next_push()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<MembershipOutput> {
        self.outputs.pop_front()
    }

    /// Whether the realm is so small that every death is looked at three times by everybody.
    fn is_small(&self) -> bool {
        self.count + self.dead.len() < SMALL_REALM
    }

    fn probe(&self) -> Probe {
        Probe { epoch: self.epoch, print: self.print, incarnation: self.own.incarnation, ..Probe::default() }
    }

    fn sight(&self, slot: Slot) -> Option<Sight> {
        let card = self.directory.card(slot)?;
        Some(Sight { node: card.node(), incarnation: card.announcement().incarnation })
    }

    fn send(&mut self, to: Slot, message: Message) {
        self.outputs.push_back(MembershipOutput::Send { to, message });
    }
}

fn sign(own: &Own) -> Result<Card, CardError> {
    let (udp, tcp) = (own.udp.clone(), own.tcp.clone());
    Card::sign(&own.key, own.credential.clone(), own.incarnation, own.service, udp, tcp)
}

/// Milliseconds since the origin, never the 0 that says "never".
fn stamp(at: Instant) -> u32 {
    ((at.as_micros() / 1_000) as u32).max(1)
}

/// Uniform below `bound`; 0 when there is nothing below.
fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    if bound == 0 { 0 } else { (rng.next_u64() % bound as u64) as usize }
}

/// Uniform below `bound`.
fn spread(rng: &mut ChaCha20Rng, bound: Duration) -> Duration {
    bound.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX))
}
