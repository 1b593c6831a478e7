//! Rings of a few members over a network that delays and loses datagrams.

mod deaths;
mod lies;
mod reads;
mod renewal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::record::{Scope, Standing, WriteStatus};
use crate::sealed::Exchange;
use crate::testing::{DeviceFixture, MemberFixture, RealmFixture};
use yodel_identity::keys::SigningKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(25);
/// Opening a link and a round trip on it.
const LINK_DELAY: Duration = Duration::from_millis(75);

enum Event {
    Datagram(Vec<u8>),
    Frame(NodeId, Frame),
    Committed(u64),
}

/// What a liar makes of what it says: nothing, or this, so much later.
type Lie = fn(&mut ChaCha20Rng, Message) -> Option<(Message, Duration)>;

struct Net {
    realm: RealmFixture,
    directory: Directory,
    now: Now,
    rings: Vec<Ring>,
    fixtures: Vec<MemberFixture>,
    stores: Vec<BTreeMap<Key, Vec<u8>>>,
    /// Silent: neither sends nor receives.
    down: BTreeSet<usize>,
    /// Members below this number do not reach the others.
    cut: Option<usize>,
    lies: BTreeMap<usize, Lie>,
    loss_percent: u32,
    rng: ChaCha20Rng,
    wire: BTreeMap<(Instant, u64), (usize, Event)>,
    counter: u64,
    frames: u64,
    answers: Vec<Frame>,
    looked: Vec<(Instant, LookupResult, Report)>,
    left: Vec<usize>,
    expected: Vec<NodeId>,
}

impl Net {
    /// So many members who know each other and are past their standby.
    fn new(members: u16) -> Net {
        let mut net = Net::strangers(members);
        for index in 0..usize::from(members) {
            net.introduce(index);
        }
        net.run(STANDBY + 20 * SECOND);
        let served = |ring: &Ring| {
            let health = |slot| ring.membership().health(slot);
            !ring.is_standby() && ring.membership().counted().all(|slot| health(slot) == Health::Alive)
        };
        assert!(net.rings.iter().all(served));
        net
    }

    fn strangers(members: u16) -> Net {
        let realm = RealmFixture::new();
        let now = Now { mono: Instant::from_micros(1_000_000), unix: realm.now };
        let mut net = Net {
            realm,
            directory: Directory::new(),
            now,
            rings: vec![],
            fixtures: vec![],
            stores: vec![],
            down: BTreeSet::new(),
            cut: None,
            lies: BTreeMap::new(),
            loss_percent: 0,
            rng: ChaCha20Rng::from_seed([5; 32]),
            wire: BTreeMap::new(),
            counter: 0,
            frames: 0,
            answers: vec![],
            looked: vec![],
            left: vec![],
            expected: vec![],
        };
        for _ in 0..members {
            net.add();
        }
        net
    }

    /// A member that knows nobody.
    fn add(&mut self) -> usize {
        let index = self.rings.len();
        let fixture = self.realm.member(index as u16);
        let ring = self.ring(&fixture, 1);
        self.fixtures.push(fixture);
        self.rings.push(ring);
        self.stores.push(BTreeMap::new());
        index
    }

    fn ring(&mut self, fixture: &MemberFixture, incarnation: u64) -> Ring {
        let own = Own {
            key: SigningKey::from_seed(*fixture.key.seed()),
            credential: fixture.credential.clone(),
            udp: vec![fixture.addr],
            tcp: vec![],
            incarnation,
            service: Service::Alive,
        };
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let config = Config { derive_ahead: 0, ..Config::default() };
        let keys = std::slice::from_ref(&fixture.sealing);
        Ring::new(self.now, self.directory.clone(), own, keys, seed, config).unwrap()
    }

    /// It learns all cards, and the others learn its own.
    fn introduce(&mut self, index: usize) {
        let card = self.rings[index].own_card().unwrap();
        for other in (0..self.rings.len()).filter(|other| *other != index) {
            if self.down.contains(&other) {
                continue;
            }
            let theirs = self.rings[other].own_card().unwrap();
            self.rings[index].learn(self.now, &self.realm.realm, &theirs);
            self.rings[other].learn(self.now, &self.realm.realm, &card);
            self.drain(other);
        }
        self.drain(index);
    }

    /// The process ends and another begins, with or without its store.
    fn restart(&mut self, index: usize, with_store: bool) {
        let fixture = self.realm.member(index as u16);
        let incarnation =
            self.rings[index].membership().directory().card(self.rings[index].membership().me());
        let mut ring = self.ring(&fixture, incarnation.unwrap().announcement().incarnation + 1);
        if with_store {
            for (key, value) in &self.stores[index] {
                assert!(ring.load(&self.realm.realm, *key, value, self.now));
            }
        } else {
            self.stores[index].clear();
        }
        self.rings[index] = ring;
        self.introduce(index);
    }

    fn node(&self, index: usize) -> NodeId {
        self.fixtures[index].credential.node
    }

    fn index_of(&self, node: NodeId) -> usize {
        self.fixtures.iter().position(|fixture| fixture.credential.node == node).unwrap()
    }

    fn put(&mut self, after: Duration, to: usize, event: Event) {
        self.counter += 1;
        self.wire.insert((self.now.mono + after, self.counter), (to, event));
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let apart = self.cut.is_some_and(|at| (from < at) != (to < at));
        !apart && !self.down.contains(&from) && !self.down.contains(&to)
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.rings[index].poll_output() {
            match output {
                RingOutput::Datagram { to, bytes } => {
                    let to = self.fixtures.iter().position(|fixture| fixture.addr == to).unwrap();
                    assert!(bytes.len() <= yodel_wire::limits::DATAGRAM_BYTES_MAX);
                    if self.reaches(index, to) && self.rng.next_u32() % 100 >= self.loss_percent {
                        self.datagram(index, to, bytes);
                    }
                }
                RingOutput::Send { to: From::Device(_), frame } => self.answers.push(frame),
                RingOutput::Send { to: From::Member(node), frame } => {
                    let to = self.index_of(node);
                    self.frames += 1;
                    if self.reaches(index, to) {
                        self.put(LINK_DELAY, to, Event::Frame(self.node(index), frame));
                    } else {
                        let now = self.now;
                        self.rings[index].link_failed(now, &self.realm.realm, node);
                    }
                }
                RingOutput::Commit { number, key, value } => {
                    match value {
                        Some(value) => self.stores[index].insert(key, value),
                        None => self.stores[index].remove(&key),
                    };
                    self.put(MS, index, Event::Committed(number));
                }
                RingOutput::Looked { id: _, result, report } => {
                    self.looked.push((self.now.mono, result, report));
                }
                RingOutput::Left => self.left.push(index),
                RingOutput::Expected(node) => self.expected.push(node),
                RingOutput::Behind(_) | RingOutput::Incarnation(_) | RingOutput::Changed { .. } => {}
            }
        }
    }

    fn datagram(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let Some(lie) = self.lies.get(&from) else { return self.put(DELAY, to, Event::Datagram(bytes)) };
        // A liar seals what it likes; so it is opened here and sealed anew with its key.
        let exchange = |index: usize, boot: u64| {
            let mut exchange = Exchange::new(self.node(index), boot.to_be_bytes(), 4);
            exchange.set_own(Instant::ORIGIN, std::slice::from_ref(&self.fixtures[index].sealing));
            exchange
        };
        let key = |index: usize| self.fixtures[index].sealing.public();
        let plain = exchange(to, 0).open(self.now.mono, &bytes, |_| Some(key(from))).unwrap().1;
        let said = Message::decode(&plain).unwrap();
        let mut liar = exchange(from, self.counter);
        if let Some((message, late)) = lie(&mut self.rng, said) {
            let plain = message.encode().unwrap();
            let public = self.fixtures[to].sealing.public();
            let bytes = liar.seal(self.node(to), || Some(public), &plain).unwrap();
            self.put(DELAY + late, to, Event::Datagram(bytes));
        }
    }

    /// Time passes.
    fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        for index in 0..self.rings.len() {
            self.drain(index);
        }
        loop {
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let up = (0..self.rings.len()).filter(|index| !self.down.contains(index));
            let deadline =
                up.filter_map(|index| Some((self.rings[index].deadline()?, index))).min_by_key(|d| *d);
            let next = wire.into_iter().chain(deadline.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.pass_to(next);
            let now = self.now;
            if wire.is_some_and(|at| at <= next) {
                let (_, (to, event)) = self.wire.pop_first().unwrap();
                if self.down.contains(&to) {
                    continue;
                }
                let ring = &mut self.rings[to];
                match event {
                    Event::Datagram(bytes) => ring.handle_datagram(now, &self.realm.realm, &bytes),
                    Event::Frame(from, frame) => {
                        ring.handle_frame(now, From::Member(from), &frame, &self.realm.realm).unwrap();
                    }
                    Event::Committed(number) => ring.handle_committed(now, number, true),
                }
                self.drain(to);
            } else if let Some((_, index)) = deadline {
                self.rings[index].handle_timeout(now, &self.realm.realm);
                self.drain(index);
            }
        }
        self.pass_to(end);
    }

    fn pass_to(&mut self, at: Instant) {
        let at = at.max(self.now.mono);
        self.now.unix = self.now.unix + at.since(self.now.mono);
        self.now.mono = at;
    }

    fn start_write(&mut self, home: usize, device: &DeviceFixture, sequence: u64) {
        let request = WriteRequest {
            id: 7,
            key: device.key(),
            scope: Scope::Walk,
            account: Some(device.account.bytes().to_vec()),
            entry: Some(device.entry(sequence, self.realm.now).bytes().to_vec()),
        };
        let from = From::Device(device.credential.node);
        self.rings[home].handle_frame(self.now, from, &request.encode(), &self.realm.realm).unwrap();
        self.drain(home);
    }

    /// Writes and waits for the answer.
    fn write(&mut self, home: usize, device: &DeviceFixture, sequence: u64) -> Written {
        self.answers.clear();
        self.start_write(home, device, sequence);
        for _ in 0..500 {
            if let Some(frame) = self.answers.pop() {
                return Written::decode(&frame.body).unwrap();
            }
            self.run(10 * MS);
        }
        panic!("no answer");
    }

    /// Reads as a device would; all answers until settled.
    fn read(&mut self, home: usize, key: Key, past_cache: bool) -> Vec<Answer> {
        self.answers.clear();
        let request = ReadRequest { id: 9, key, scope: Scope::Walk, past_cache };
        let from = From::Device(NodeId([0xee; 16]));
        self.rings[home].handle_frame(self.now, from, &request.encode(), &self.realm.realm).unwrap();
        self.drain(home);
        for _ in 0..600 {
            let answers: Vec<Answer> =
                self.answers.iter().map(|frame| Answer::decode(&frame.body).unwrap()).collect();
            if answers.last().is_some_and(|answer| answer.settled) {
                return answers;
            }
            self.run(10 * MS);
        }
        panic!("no answer");
    }

    fn standing(&mut self, home: usize, key: Key) -> Standing {
        self.read(home, key, true).last().unwrap().standing
    }

    /// Looks up past the cache: the results, the settled one last, and what it took.
    fn lookup(&mut self, home: usize, key: Key) -> (Vec<LookupResult>, Report) {
        self.looked.clear();
        self.rings[home].lookup(self.now, &self.realm.realm, 1, key, true);
        self.drain(home);
        for _ in 0..600 {
            if let Some((_, _, report)) = self.looked.last().filter(|(_, _, r)| r.settled.is_some()) {
                let report = *report;
                return (self.looked.drain(..).map(|(_, result, _)| result).collect(), report);
            }
            self.run(10 * MS);
        }
        panic!("no answer");
    }

    /// The sequence numbers that a lookup settles on.
    fn sequences(&mut self, home: usize, device: &DeviceFixture) -> Vec<u64> {
        match self.lookup(home, device.key()).0.pop() {
            Some(LookupResult::Found { entries, .. }) => entries.iter().map(|e| e.sequence).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Who keeps an account's newest entry.
    fn keepers(&self, device: &DeviceFixture, sequence: u64) -> Vec<usize> {
        let keeps = |ring: &Ring| {
            ring.holder.entry_of(device.credential.node).is_some_and(|entry| entry.sequence == sequence)
        };
        (0..self.rings.len())
            .filter(|index| !self.down.contains(index) && keeps(&self.rings[*index]))
            .collect()
    }

    /// The holders as one of them sees it.
    fn holders(&self, at: usize, key: Key) -> Vec<usize> {
        let mut holders: Vec<usize> =
            self.rings[at].holders_of(&key).into_iter().map(|node| self.index_of(node)).collect();
        holders.sort_unstable();
        holders
    }

    /// Somebody who holds nothing of this key.
    fn outsider(&self, key: Key) -> usize {
        let holders = self.holders(0, key);
        (0..self.rings.len()).find(|index| !holders.contains(index) && !self.down.contains(index)).unwrap()
    }

    fn devices(&self, count: u8) -> Vec<DeviceFixture> {
        (1..=count).map(|number| self.realm.device(&format!("user{number}"), number)).collect()
    }

    fn total(&self, count: impl Fn(Counters) -> u64) -> u64 {
        self.rings.iter().map(|ring| count(ring.counters())).sum()
    }
}
