//! Probes: the round over all members, the closer look at one that does not answer, and the dead.
//!
//! A look goes through these stages, and ends at any of them with a fresh answer:
//!
//! ```text
//!   Asked ──▶ AskedAgain (and three others ask for us, unless somebody told us) ──▶ Suspected ──▶ dead
//! ```
//! A suspicion lasts the shorter, the more others tell the same (Lifeguard). In a realm of fewer than four members it is
//! three probes a second apart instead.

use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_wire::time::{Instant, Now};

use super::{Health, Membership, Round, below, spread, stamp};
use crate::directory::Slot;
use crate::limits::{
    ANSWER_MAX, ANSWER_MIN, CHECKS_MAX, DEAD_BURST, DEAD_EVERY, ERRANDS_MAX, HEARD_LATELY, HELPERS,
    PING_EVERY, PING_FORGET, SMALL_PROBES, SUSPICION, TELLERS_MAX, WRONG_MAX,
};
use crate::message::{Message, News, Probe, Sight};

/// A ping under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinged {
    slot: Slot,
    at: Instant,
}

/// A ping sent for another member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    asker: Slot,
    number: u32,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    AskedAgain,
    Suspected {
        since: Instant,
    },
    /// In a small realm: probes that went unanswered.
    Counting(u32),
}

/// A closer look at one member.
#[derive(Debug)]
pub(super) struct Check {
    stage: Stage,
    next: Instant,
    /// Who told that it does not answer.
    tellers: Vec<NodeId>,
}

impl Membership {
    /// The next member of the round is asked. One whose credential has ended leaves the table, also when it left before:
    /// what it announced is of no more use.
    pub(super) fn probe_next(&mut self, now: Now, realm: &Realm) {
        for _ in 0..self.views.len().min(64) {
            let slot = self.next_of_round();
            let health = self.health(slot);
            if slot == self.me || !(health.counts() || health == Health::Left) {
                continue;
            }
            let card = self.directory.card(slot);
            if card.is_none_or(|card| realm.check_alive(card.credential(), now.unix).is_err()) {
                self.remove(slot);
                continue;
            }
            if health == Health::Left {
                continue;
            }
            self.look_at(now, slot, None);
            return;
        }
    }

    fn next_of_round(&mut self) -> Slot {
        let all = self.views.len().max(1);
        if self.round.left == 0 {
            let mut stride = 1 + below(&mut self.rng, all);
            while gcd(stride, all) != 1 {
                stride += 1;
            }
            self.round = Round { at: below(&mut self.rng, all), stride, left: all };
        }
        self.round.left -= 1;
        self.round.at = (self.round.at + self.round.stride) % all;
        Slot(self.round.at as u32)
    }

    /// Starts a closer look, or tells one under way that somebody says the same.
    pub(super) fn look_at(&mut self, now: Now, slot: Slot, teller: Option<NodeId>) {
        if let Some(check) = self.checks.get_mut(&slot) {
            if let Some(teller) = teller
                && !check.tellers.contains(&teller)
                && check.tellers.len() < TELLERS_MAX
            {
                check.tellers.push(teller);
                if let Stage::Suspected { since } = check.stage {
                    let sooner = (since + suspicion(check.tellers.len())).min(check.next);
                    self.plan(slot, sooner);
                }
            }
            return;
        }
        if self.checks.len() >= CHECKS_MAX {
            return;
        }
        let (stage, next) = if self.is_small() {
            (Stage::Counting(0), now.mono + PING_EVERY)
        } else {
            (Stage::Asked, now.mono + self.patience(slot))
        };
        // What is told to somebody who does not answer is told in vain.
        let doubted = teller.is_some() || !self.health(slot).counts();
        let news = if doubted { News::default() } else { self.ride_along() };
        self.ping_with(now, slot, news);
        self.checks.insert(slot, Check { stage, next, tellers: teller.into_iter().collect() });
        self.agenda.insert((next, slot));
    }

    /// A look is due to go on: no fresh answer came.
    pub(super) fn go_on(&mut self, now: Now, slot: Slot) {
        let patience = self.patience(slot);
        let Some(check) = self.checks.get_mut(&slot) else { return };
        let health = self.views.get(slot.index()).map_or(Health::Unknown, |view| view.health);
        let told = check.tellers.len();
        if !health.counts() {
            // One of the dead that did not answer is as dead as before.
            self.checks.remove(&slot);
            return;
        }
        match check.stage {
            Stage::Asked => {
                check.stage = Stage::AskedAgain;
                self.plan(slot, now.mono + patience * 2);
                self.ping(now, slot);
                if told == 0 {
                    self.ask_others(slot);
                }
            }
            Stage::AskedAgain => {
                check.stage = Stage::Suspected { since: now.mono };
                self.plan(slot, now.mono + suspicion(told).min(PING_EVERY));
                self.counters.suspected += 1;
                self.set_health(slot, Health::Suspect);
                self.rumours.suspect(slot);
            }
            Stage::Suspected { since } if now.mono >= since + suspicion(told) => self.bury(now, slot),
            Stage::Suspected { since } => {
                let next = (now.mono + PING_EVERY).min(since + suspicion(told));
                self.plan(slot, next);
                self.ping(now, slot);
            }
            Stage::Counting(unanswered) if unanswered + 1 >= SMALL_PROBES => {
                self.counters.suspected += 1;
                self.bury(now, slot);
            }
            Stage::Counting(unanswered) => {
                check.stage = Stage::Counting(unanswered + 1);
                self.plan(slot, now.mono + PING_EVERY);
                self.ping(now, slot);
            }
        }
    }

    fn plan(&mut self, slot: Slot, next: Instant) {
        if let Some(check) = self.checks.get_mut(&slot) {
            self.agenda.remove(&(check.next, slot));
            check.next = next;
            self.agenda.insert((next, slot));
        }
    }

    pub(super) fn end_check(&mut self, slot: Slot) -> Option<Check> {
        let check = self.checks.remove(&slot)?;
        self.agenda.remove(&(check.next, slot));
        Some(check)
    }

    fn bury(&mut self, now: Now, slot: Slot) {
        self.end_check(slot);
        self.counters.died += 1;
        if self.dead.is_empty() {
            self.next_dead = now.mono + DEAD_EVERY;
        }
        self.dead.insert(slot);
        self.set_health(slot, Health::Dead);
        self.rumours.die(slot);
    }

    /// It answered a fresh question.
    pub(super) fn is_there(&mut self, now: Now, slot: Slot) {
        if let Some(check) = self.end_check(slot) {
            for teller in check.tellers {
                self.counters.hearsay_wrong += 1;
                *self.wrong.entry(teller).or_default() += 1;
            }
        }
        let health = self.health(slot);
        if !matches!(health, Health::Suspect | Health::Dead) {
            return;
        }
        let service = self.directory.card(slot).map(|card| card.announcement().service);
        self.counters.revived += 1;
        self.dead.remove(&slot);
        self.rumours.forget(slot);
        self.set_health(slot, service.map_or(Health::Alive, Health::from));
        if health == Health::Dead {
            // A partition healed, perhaps: the others that died are asked at once.
            self.burst = self.dead.len();
            self.next_dead = now.mono;
            self.rumours.announce(slot);
        }
    }

    /// An answer to a ping.
    pub(super) fn acked(&mut self, now: Now, from: Slot, probe: &Probe) {
        match probe.target {
            None => {
                if let Some(pinged) = self.pings.get(&probe.number)
                    && pinged.slot == from
                {
                    let rtt = now.mono.since(pinged.at);
                    self.pings.remove(&probe.number);
                    self.answered(now, from, rtt);
                }
                if let Some(errand) = self.errands.remove(&probe.number)
                    && let Some(target) = self.node_of(from)
                {
                    let answer = Probe { number: errand.number, target: Some(target), ..self.probe() };
                    self.send(errand.asker, Message::Ack(answer));
                }
            }
            // Another member reached it for us. That it is there for others keeps it from being suspected now; it
            // keeps nobody from looking again.
            Some(target) => {
                let Some(slot) = self.slot_of(target) else { return };
                let ours = self.pings.get(&probe.number).is_some_and(|pinged| pinged.slot == slot);
                let early = self.checks.get(&slot).is_some_and(|check| check.stage == Stage::AskedAgain);
                if ours && early {
                    self.end_check(slot);
                }
            }
        }
    }

    /// Another member asks whether a third is there.
    pub(super) fn run_errand(&mut self, now: Now, asker: Slot, number: u32, target: NodeId) {
        let Some(slot) = self.slot_of(target) else { return };
        if slot == self.me || slot == asker || self.errands.len() >= ERRANDS_MAX {
            return;
        }
        let own = self.ping(now, slot);
        self.errands.insert(own, Errand { asker, number, at: now.mono });
    }

    fn ask_others(&mut self, slot: Slot) {
        let Some(target) = self.node_of(slot) else { return };
        let Some(number) = self.pings.iter().find(|(_, pinged)| pinged.slot == slot).map(|(n, _)| *n) else {
            return;
        };
        let mut asked = Vec::new();
        for _ in 0..HELPERS {
            let helper = self.random_where(|helper, health| {
                health == Health::Alive && helper != slot && !asked.contains(&helper)
            });
            let Some(helper) = helper else { break };
            asked.push(helper);
        }
        for helper in asked {
            self.send(helper, Message::PingRequest { number, target });
        }
    }

    fn ping(&mut self, now: Now, slot: Slot) -> u32 {
        self.ping_with(now, slot, News::default())
    }

    fn ping_with(&mut self, now: Now, slot: Slot, news: News) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        let number = self.next_number;
        self.pings.insert(number, Pinged { slot, at: now.mono });
        self.counters.pings += 1;
        let probe = Probe { number, news, ..self.probe() };
        self.send(slot, Message::Ping(probe));
        number
    }

    /// One of the dead is asked, or many when one came back.
    pub(super) fn probe_dead(&mut self, now: Now, realm: &Realm) {
        let at_once = if self.burst > 0 {
            DEAD_BURST
        } else if self.is_small() {
            self.dead.len()
        } else {
            1
        };
        for _ in 0..at_once.min(self.dead.len()) {
            let after = self.dead_cursor.and_then(|at| self.dead.range(Slot(at.0 + 1)..).next().copied());
            let Some(slot) = after.or_else(|| self.dead.first().copied()) else { break };
            self.dead_cursor = Some(slot);
            let card = self.directory.card(slot);
            if card.is_none_or(|card| realm.check_alive(card.credential(), now.unix).is_err()) {
                self.remove(slot);
            } else {
                self.ping(now, slot);
            }
        }
        self.burst = self.burst.saturating_sub(at_once);
        let pause = if self.burst > 0 { PING_EVERY / 10 } else { DEAD_EVERY };
        self.next_dead = now.mono + pause / 2 + spread(&mut self.rng, pause / 2);
    }

    /// Hearsay: this member does not answer the teller, or is held dead by it.
    pub(super) fn told(&mut self, now: Now, teller: Slot, sight: Sight) {
        let Some(slot) = self.slot_of(sight.node) else { return };
        let Some(card) = self.directory.card(slot) else { return };
        if sight.incarnation > card.announcement().incarnation {
            return self.want(now.mono, teller, sight.node);
        }
        if slot == self.me || sight.incarnation < card.announcement().incarnation {
            return;
        }
        if !self.health(slot).counts() {
            return;
        }
        let Some(name) = self.node_of(teller) else { return };
        if self.wrong.get(&name).is_some_and(|times| *times > WRONG_MAX) {
            self.counters.hearsay_ignored += 1;
            return;
        }
        let answered = self.views.get(slot.index()).map_or(0, |view| view.answered);
        let lately = answered != 0
            && stamp(now.mono).wrapping_sub(answered) < HEARD_LATELY.as_millis() as u32
            && !self.checks.contains_key(&slot);
        if !lately {
            self.look_at(now, slot, Some(name));
        }
    }

    /// What is under way too long is forgotten, and old wrongs slowly are.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.pings.retain(|_, pinged| now < pinged.at + PING_FORGET);
        self.errands.retain(|_, errand| now < errand.at + PING_FORGET);
        self.wants.retain(|_, want| now < want.at + PING_FORGET);
        if below(&mut self.rng, 32) == 0 {
            self.wrong.retain(|_, times| {
                *times /= 2;
                *times > 0
            });
        }
    }

    /// How long an answer of this member may take.
    fn patience(&self, slot: Slot) -> Duration {
        let rtt = self.rtt(slot).or(self.usual_rtt).unwrap_or(ANSWER_MAX);
        (rtt * 3).clamp(ANSWER_MIN, ANSWER_MAX)
    }
}

/// How long a suspicion lasts that so many others share (Lifeguard §IV.B: it falls quickly with the first).
fn suspicion(tellers: usize) -> Duration {
    SUSPICION.get(tellers).or(SUSPICION.last()).copied().unwrap_or(PING_EVERY)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
