//! Calls in the storm: pairs of phones that are contacts of each other, and what a user does with a phone that rings.

use std::collections::VecDeque;
use std::time::Duration;

use yodel::command::{
    CallId, Command, ContactChange, Dial, Direction, Event, Reply, Request, RequestId, State,
};
use yodel::node::Client;
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

use super::figures::{Calls, rounded};
use super::realm::Crowd;
use crate::sim::sound::mouth;

/// A call is set up when the callee's ring is known to the caller within this.
const SET_UP: Duration = Duration::from_secs(3);

/// A call that did not end is hung up after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two accounts become contacts within this; a request that was lost is sent again every 20 s.
const BEFRIEND: Duration = Duration::from_secs(120);

struct Pair {
    caller: usize,
    callee: usize,
    call: Option<CallId>,
    began: Instant,
    rang: Option<Duration>,
    over: bool,
}

/// See the module's text.
pub(super) struct Callers {
    pairs: Vec<Pair>,
    /// Pairs that have not called yet.
    waiting: VecDeque<usize>,
    /// Pairs whose call is under way.
    calling: Vec<usize>,
    begun: usize,
    requests: u64,
}

impl Callers {
    /// So many pairs who are contacts of each other.
    pub(super) fn befriended(crowd: &mut Crowd, calls: usize) -> Callers {
        let count = calls.min(crowd.phones.len() / 2);
        let mut accounts: Vec<usize> = (0..crowd.phones.len()).collect();
        for at in 0..count * 2 {
            let other = at + crowd.world.below((accounts.len() - at) as u64) as usize;
            accounts.swap(at, other);
        }
        let began = crowd.world.now().mono;
        let pairs: Vec<Pair> = accounts[..count * 2]
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[caller, callee]| Pair {
                caller: *caller,
                callee: *callee,
                call: None,
                began,
                rang: None,
                over: false,
            })
            .collect();
        let mut callers =
            Callers { waiting: (0..count).collect(), calling: Vec::new(), begun: 0, requests: 0, pairs };
        callers.befriend(crowd);
        callers
    }

    fn befriend(&mut self, crowd: &mut Crowd) {
        let ends: Vec<(usize, usize)> = self.pairs.iter().map(|pair| (pair.caller, pair.callee)).collect();
        for (caller, callee) in &ends {
            for (one, other) in [(*caller, *callee), (*callee, *caller)] {
                let request = Request::ContactAdd(crowd.name(other));
                self.ask(crowd, one, request);
            }
        }
        let mut strangers: Vec<usize> = ends.iter().flat_map(|(one, other)| [*one, *other]).collect();
        let end = crowd.world.now().mono + BEFRIEND;
        while !strangers.is_empty() {
            assert!(crowd.world.now().mono < end, "{} are no contacts", strangers.len());
            crowd.world.run_for(Duration::from_millis(500));
            strangers.retain(|at| {
                let events = crowd.world.events::<Client>(crowd.phones[*at]);
                let accepted = |event: &Event| {
                    matches!(event, Event::Contact(contact) if contact.change == ContactChange::Accepted)
                };
                !events.iter().any(|(_, event)| accepted(event))
            });
        }
        // Both have said so, and the tags are on their way.
        crowd.world.run_for(Duration::from_secs(2));
        for (one, other) in ends {
            crowd.world.events::<Client>(crowd.phones[one]);
            crowd.world.events::<Client>(crowd.phones[other]);
        }
    }

    fn ask(&mut self, crowd: &mut Crowd, phone: usize, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        crowd.world.with::<Client, _>(crowd.phones[phone], |client, now| {
            client.handle_command(now, Command::Request(id, request));
        });
        id
    }

    /// People begin calls, up to this share of all, and look at their phones.
    pub(super) fn step(&mut self, crowd: &mut Crowd, due: f64) {
        let due = (self.pairs.len() as f64 * due) as usize;
        let mut tries = self.waiting.len();
        while self.begun < due && tries > 0 {
            tries -= 1;
            let Some(at) = self.waiting.pop_front() else { break };
            let (caller, callee) = (self.pairs[at].caller, self.pairs[at].callee);
            if crowd.warm(crowd.phones[caller]) > 0 && crowd.warm(crowd.phones[callee]) > 0 {
                self.dial(crowd, at);
            } else {
                self.waiting.push_back(at);
            }
        }
        for at in std::mem::take(&mut self.calling) {
            self.look(crowd, at);
            if !self.pairs[at].over {
                self.calling.push(at);
            }
        }
    }

    fn dial(&mut self, crowd: &mut Crowd, at: usize) {
        let Pair { caller, callee, .. } = self.pairs[at];
        // What they heard of each other before does not matter.
        crowd.world.events::<Client>(crowd.phones[caller]);
        let peer = crowd.name(callee);
        let (audio, _) = mouth(1);
        let dial = Dial { peer, audio, relay_only: false, max: None, ring_timeout: None };
        self.pairs[at].began = crowd.world.now().mono;
        self.ask(crowd, caller, Request::Dial(dial));
        self.begun += 1;
        self.calling.push(at);
    }

    /// Both look at their phones.
    fn look(&mut self, crowd: &mut Crowd, at: usize) {
        let now = crowd.world.now().mono;
        let Pair { caller, callee, began, .. } = self.pairs[at];
        for (_, event) in crowd.world.events::<Client>(crowd.phones[callee]) {
            if let Event::Call(news) = event
                && news.direction == Direction::In
                && matches!(news.state, State::Contacting)
            {
                crowd.world.with::<Client, _>(crowd.phones[callee], |client, now| {
                    client.handle_command(now, Command::RingShown(news.call));
                });
            }
        }
        for (heard_at, event) in crowd.world.events::<Client>(crowd.phones[caller]) {
            let pair = &mut self.pairs[at];
            if let Event::Reply(_, Ok(Reply::Call(call))) = &event {
                pair.call = Some(*call);
            }
            if let Event::Call(news) = event
                && news.direction == Direction::Out
            {
                if matches!(news.state, State::Alerted) {
                    pair.rang.get_or_insert(heard_at.since(began));
                }
                pair.over |= matches!(news.state, State::Ended(_));
            }
        }
        let pair = &self.pairs[at];
        let heard = pair.rang.is_some_and(|rang| now.since(began) >= rang + Duration::from_millis(500));
        if !pair.over && (heard || now.since(began) >= PATIENCE) {
            let hangup = Request::Hangup(pair.call);
            self.ask(crowd, caller, hangup);
            self.pairs[at].over = true;
        }
    }

    /// How it went.
    pub(super) fn figures(&self) -> Calls {
        let mut times: Vec<Duration> = self.pairs.iter().filter_map(|pair| pair.rang).collect();
        times.sort_unstable();
        let rank = |share: usize| {
            let at = (times.len() * share).div_ceil(100).max(1) - 1;
            times.get(at).map_or(0.0, |span| rounded(span.as_secs_f64() * 1e3))
        };
        let rang = times.iter().filter(|rang| **rang <= SET_UP).count() as u32;
        let begun = self.begun as u32;
        Calls {
            begun,
            rang,
            share: rounded(f64::from(rang) / f64::from(begun.max(1))),
            p50_ms: rank(50),
            p99_ms: rank(99),
            not_begun: self.waiting.len() as u32,
        }
    }
}
