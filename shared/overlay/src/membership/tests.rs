//! Whole tables talking to each other over a network of delays: no seals, no sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use yodel_wire::time::{Instant, Now};

use super::*;
use crate::message::News;
use crate::testing::{MemberFixture, RealmFixture};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(25);

struct Net {
    realm: RealmFixture,
    directory: Directory,
    now: Instant,
    nodes: Vec<Membership>,
    fixtures: Vec<MemberFixture>,
    down: BTreeSet<usize>,
    cut: Option<usize>,
    by_node: BTreeMap<NodeId, usize>,
    wire: BTreeMap<(Instant, u64), (usize, NodeId, Message)>,
    deadlines: BTreeSet<(Instant, usize)>,
    planned: Vec<Option<Instant>>,
    counter: u64,
    bytes: u64,
    dropped: Vec<(Instant, usize, NodeId)>,
}

impl Net {
    /// So many members who know each other.
    fn new(members: u16) -> Net {
        let realm = RealmFixture::new();
        let mut net = Net {
            realm,
            directory: Directory::new(),
            now: Instant::from_micros(1_000_000),
            nodes: Vec::new(),
            fixtures: Vec::new(),
            down: BTreeSet::new(),
            cut: None,
            by_node: BTreeMap::new(),
            wire: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            planned: Vec::new(),
            counter: 0,
            bytes: 0,
            dropped: Vec::new(),
        };
        for number in 0..members {
            net.add(number);
        }
        let slots: Vec<Slot> = net.nodes.iter().map(Membership::me).collect();
        for node in &mut net.nodes {
            net.directory.hold_all(&slots);
            node.load(&slots);
            node.rumours = Rumours::default();
        }
        for index in 0..net.nodes.len() {
            net.drain(index);
        }
        net
    }

    fn at(&self) -> Now {
        Now { mono: self.now, unix: self.realm.now }
    }

    fn add(&mut self, number: u16) -> usize {
        let fixture = self.realm.member(number);
        let own = Own {
            key: SigningKey::from_seed(*fixture.key.seed()),
            credential: fixture.credential.clone(),
            udp: vec![fixture.addr],
            tcp: vec![],
            incarnation: 1,
            service: Service::Alive,
        };
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let node = Membership::new(self.at(), self.directory.clone(), own, seed).unwrap();
        self.by_node.insert(fixture.credential.node, self.nodes.len());
        self.fixtures.push(fixture);
        self.nodes.push(node);
        self.planned.push(None);
        self.nodes.len() - 1
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let Some(target) = self.by_node.get(&to).copied() else { return };
        self.bytes += message.encode().expect("it fits").len() as u64 + 54;
        let apart = self.cut.is_some_and(|at| (from < at) != (target < at));
        if self.down.contains(&target) || self.down.contains(&from) || apart {
            return;
        }
        self.counter += 1;
        let sender = self.fixtures[from].credential.node;
        self.wire.insert((self.now + DELAY, self.counter), (target, sender, message));
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].poll_output() {
            match output {
                MembershipOutput::Send { to, message } => {
                    // A slot may be gone by the time its turn comes.
                    if let Some(to) = self.nodes[index].node_of(to) {
                        self.send(index, to, message);
                    }
                }
                MembershipOutput::Changed { node, to: Health::Dead, .. } => {
                    self.dropped.push((self.now, index, node));
                }
                MembershipOutput::Changed { .. }
                | MembershipOutput::Replaced { .. }
                | MembershipOutput::Behind(_)
                | MembershipOutput::Incarnation(_) => {}
            }
        }
        let deadline = self.nodes[index].deadline();
        if self.planned[index] != deadline {
            if let Some(old) = self.planned[index] {
                self.deadlines.remove(&(old, index));
            }
            self.planned[index] = deadline;
            self.deadlines.extend(deadline.map(|at| (at, index)));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.deadlines.first().map(|(at, _)| *at);
            let Some(next) = wire.into_iter().chain(deadline).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if wire == Some(next) {
                let (_, (to, from, message)) = self.wire.pop_first().unwrap();
                if self.down.contains(&to) {
                    continue;
                }
                let now = self.at();
                if let Some(from) = self.nodes[to].slot_of(from) {
                    self.nodes[to].handle(now, &self.realm.realm, from, message);
                }
                self.drain(to);
            } else {
                let (at, index) = self.deadlines.pop_first().unwrap();
                assert_eq!(self.planned[index].take(), Some(at));
                if self.down.contains(&index) {
                    continue;
                }
                let now = self.at();
                self.nodes[index].handle_timeout(now, &self.realm.realm);
                self.drain(index);
            }
        }
        self.now = end;
    }

    /// Lets time pass until `done`; how long it took.
    fn until(&mut self, limit: Duration, done: impl Fn(&Net) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < limit, "not within {limit:?}");
            self.run(100 * MS);
        }
        self.now.since(start)
    }

    fn kill(&mut self, index: usize) {
        self.down.insert(index);
    }

    fn health(&self, at: usize, of: usize) -> Health {
        let node = &self.nodes[at];
        node.slot_of(self.fixtures[of].credential.node).map_or(Health::Unknown, |slot| node.health(slot))
    }

    fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| !self.down.contains(index)).collect()
    }

    /// Everybody who runs holds exactly those who run.
    fn agree(&self) -> bool {
        let up = self.up();
        up.iter().all(|at| self.nodes[*at].count() == up.len())
            && up.iter().all(|at| self.nodes[*at].print() == self.nodes[up[0]].print())
    }

    fn join(&mut self, number: u16, through: usize) -> usize {
        let index = self.add(number);
        let card = self.directory.card(self.nodes[index].me()).unwrap().encode();
        let slots: Vec<Slot> = self.nodes[through].counted().collect();
        self.directory.hold_all(&slots);
        self.nodes[index].load(&slots);
        let now = self.at();
        self.nodes[through].learn(now, &self.realm.realm, &card).unwrap();
        self.drain(through);
        self.drain(index);
        index
    }
}

#[test]
fn idle_members_agree_and_cost_little() {
    let mut net = Net::new(50);
    net.run(10 * SECOND);
    net.bytes = 0;
    net.run(60 * SECOND);
    assert!(net.agree());
    let each = net.bytes / 60 / 50;
    assert!(each <= 180, "{each} bytes a second");
    assert_eq!(net.dropped, []);
}

#[test]
fn a_newcomer_is_known_to_all_and_a_death_too() {
    let mut net = Net::new(200);
    net.run(5 * SECOND);
    let newcomer = net.join(200, 7);
    let took = net.until(20 * SECOND, Net::agree);
    assert!(took < 10 * SECOND, "{took:?}");
    net.kill(newcomer);
    let took = net.until(20 * SECOND, Net::agree);
    assert!(took < 15 * SECOND, "{took:?}");
    net.run(10 * SECOND);
    net.down.clear();
    net.drain(newcomer);
    let took = net.until(30 * SECOND, Net::agree);
    assert!(took < 20 * SECOND, "who comes back counts again: {took:?}");
}

#[test]
fn a_quarter_dies_at_once() {
    let mut net = Net::new(200);
    net.run(5 * SECOND);
    for index in 0..50 {
        net.kill(index * 4);
    }
    net.until(30 * SECOND, Net::agree);
    assert!(net.dropped.iter().all(|(_, _, node)| net.down.contains(&net.by_node[node])), "only the dead");
}

#[test]
fn who_leaves_is_gone_at_once_and_may_come_back() {
    let mut net = Net::new(20);
    net.run(3 * SECOND);
    let now = net.at();
    net.nodes[3].set_service(now, Service::Left);
    net.drain(3);
    net.run(2 * SECOND);
    net.kill(3);
    assert!(net.up().iter().all(|at| net.health(*at, 3) == Health::Left));
    net.down.clear();
    let now = net.at();
    net.nodes[3].set_service(now, Service::Alive);
    net.drain(3);
    net.run(10 * SECOND);
    assert!((0..20).all(|at| net.health(at, 3) == Health::Alive));
}

#[test]
fn three_members_look_three_times_a_second_apart() {
    let mut net = Net::new(3);
    net.run(5 * SECOND);
    net.kill(2);
    net.until(10 * SECOND, Net::agree);
    assert!(net.dropped.len() == 2);
    net.run(60 * SECOND);
    net.down.clear();
    net.drain(2);
    let took = net.until(10 * SECOND, Net::agree);
    assert!(took <= 6 * SECOND, "{took:?}");
    // Alone, and back.
    net.kill(1);
    net.kill(2);
    net.until(10 * SECOND, Net::agree);
    assert_eq!(net.nodes[0].count(), 1);
    net.down.clear();
    for index in 1..3 {
        net.drain(index);
    }
    net.until(20 * SECOND, Net::agree);
}

#[test]
fn halves_that_were_apart_find_each_other() {
    let mut net = Net::new(40);
    net.run(5 * SECOND);
    net.cut = Some(20);
    net.run(20 * 60 * SECOND);
    assert!(net.nodes.iter().all(|node| node.count() == 20));
    net.cut = None;
    let took = net.until(60 * SECOND, Net::agree);
    assert!(took < 30 * SECOND, "{took:?}");
}

#[test]
fn lies_drop_nobody_and_invented_ids_enter_no_table() {
    let mut net = Net::new(40);
    net.run(5 * SECOND);
    for second in 0..60_u64 {
        for liar in [0, 1] {
            for victim in 2..40 {
                let honest = net.fixtures[(victim + second as usize) % 38 + 2].credential.node;
                let mut invented = [second as u8; 16];
                invented[0] = victim as u8;
                let sight = |node: NodeId, incarnation| Sight { node, incarnation };
                let news = News {
                    announcements: vec![],
                    suspicions: vec![sight(honest, 1), sight(NodeId(invented), 1)],
                    deaths: vec![sight(honest, 1), sight(honest, 9)],
                };
                let to = net.fixtures[victim].credential.node;
                net.send(liar, to, Message::Gossip(news));
            }
        }
        net.run(SECOND);
    }
    assert_eq!(net.dropped, []);
    assert!(net.nodes.iter().all(|node| node.count() == 40 && node.views.len() <= 41));
    assert!(net.nodes[2].counters().hearsay_ignored > 0, "who is always wrong is not listened to");
}

#[test]
fn what_was_missed_is_found_by_comparing() {
    let mut net = Net::new(100);
    net.run(5 * SECOND);
    let newcomer = net.join(100, 7);
    for node in &mut net.nodes {
        node.rumours = Rumours::default();
    }
    net.wire.clear();
    assert_eq!(net.health(50, newcomer), Health::Unknown);
    let took = net.until(90 * SECOND, Net::agree);
    assert!(took < 60 * SECOND, "{took:?}");
}

#[test]
fn a_lost_memory_is_told_how_far_it_was() {
    let mut net = Net::new(5);
    for _ in 0..3 {
        net.nodes[0].announce_anew();
        net.drain(0);
        net.run(SECOND);
    }
    net.kill(0);
    net.run(20 * SECOND);
    // It comes back with a first incarnation that everybody knows to be old.
    let number = 0;
    let again = net.add(number);
    let slots: Vec<Slot> = net.nodes[1].counted().collect();
    net.directory.hold_all(&slots);
    net.nodes[again].load(&slots);
    net.drain(again);
    net.run(20 * SECOND);
    assert!((1..5).all(|at| net.nodes[at].count() == 5), "it is back");
    let incarnation = net.directory.card(net.nodes[again].me()).unwrap().announcement().incarnation;
    assert!(incarnation > 4);
}

#[test]
fn who_left_is_forgotten_when_its_credential_ends() {
    let mut net = Net::new(6);
    net.run(3 * SECOND);
    let now = net.at();
    net.nodes[3].set_service(now, Service::Left);
    net.drain(3);
    net.run(5 * SECOND);
    net.kill(3);
    assert!(net.up().iter().all(|at| net.health(*at, 3) == Health::Left));
    // All credentials of this realm end together; only what left goes unnoticed otherwise.
    net.realm.now = net.realm.now + Duration::from_secs(20 * 86_400);
    net.run(60 * SECOND);
    assert!(net.up().iter().all(|at| net.health(*at, 3) == Health::Unknown));
}
