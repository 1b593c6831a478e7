//! Rings of one, two and three members with a device or two, on links without delay.

use super::*;
use crate::testing::{DeviceFixture, RealmFixture};
use yodel_identity::node::OwnerTag;

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

struct Net {
    realm: RealmFixture,
    now: Now,
    rings: Vec<Ring>,
    dead: Vec<bool>,
    /// What holders answer is passed through this first.
    lie: fn(NodeId, Frame) -> Frame,
    /// Frames for devices: home, frame.
    devices: Vec<(usize, Frame)>,
    looked: Vec<LookupResult>,
    commits: usize,
}

impl Net {
    fn new(count: u8) -> Net {
        let realm = RealmFixture::new();
        let now = Now { mono: Instant::from_micros(1), unix: realm.now };
        let members: Vec<Member> =
            (1..=count).map(|n| Member { node: node(n), owner: OwnerTag([n; 16]), ip: None }).collect();
        let rings = (1..=count)
            .map(|n| {
                let mut ring = Ring::new(now, node(n));
                ring.set_members(now, members.clone(), &realm.realm);
                for other in (1..=count).filter(|other| *other != n) {
                    ring.link_up(now, node(other));
                }
                ring
            })
            .collect();
        let dead = vec![false; usize::from(count)];
        Net { realm, now, rings, dead, lie: |_, f| f, devices: vec![], looked: vec![], commits: 0 }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for index in 0..self.rings.len() {
                let me = self.rings[index].me;
                while let Some(output) = self.rings[index].poll_output() {
                    quiet = false;
                    match output {
                        RingOutput::Commit { number, .. } => {
                            self.commits += 1;
                            self.rings[index].handle_committed(number, true);
                        }
                        RingOutput::Looked { result, .. } => self.looked.push(result),
                        RingOutput::Send { to: From::Device(_), frame } => self.devices.push((index, frame)),
                        RingOutput::Send { to: From::Member(to), frame } => {
                            let to = usize::from(to.0[0]) - 1;
                            if self.dead[index] || self.dead[to] {
                                continue;
                            }
                            let frame =
                                if frame.kind == FrameKind::Answer { (self.lie)(me, frame) } else { frame };
                            self.rings[to]
                                .handle_frame(self.now, From::Member(me), &frame, &self.realm.realm)
                                .unwrap();
                        }
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        self.settle();
        while let Some(at) =
            self.rings.iter().filter_map(|ring| ring.deadline(self.now)).min().filter(|at| *at <= until)
        {
            let at = at.max(self.now.mono);
            self.now.unix = self.now.unix + at.since(self.now.mono);
            self.now.mono = at;
            for ring in &mut self.rings {
                ring.handle_timeout(self.now, &self.realm.realm);
            }
            self.settle();
        }
        self.now.unix = self.now.unix + until.since(self.now.mono);
        self.now.mono = until;
    }

    fn write(&mut self, home: usize, device: &DeviceFixture, sequence: u64) -> Written {
        let request = WriteRequest {
            id: 7,
            key: device.key(),
            scope: Scope::Walk,
            account: Some(device.account.bytes().to_vec()),
            entry: Some(device.entry(sequence, self.now.unix).bytes().to_vec()),
        };
        self.devices.clear();
        let from = From::Device(device.credential.node);
        self.rings[home].handle_frame(self.now, from, &request.encode(), &self.realm.realm).unwrap();
        self.settle();
        let (_, frame) = self.devices.pop().unwrap();
        let written = Written::decode(&frame.body).unwrap();
        assert_eq!(written.id, 7);
        written
    }

    fn read(&mut self, home: usize, device: &DeviceFixture, past_cache: bool) -> Vec<Answer> {
        let request = ReadRequest { id: 9, key: device.key(), scope: Scope::Walk, past_cache };
        self.devices.clear();
        let from = From::Device(node(0xee));
        self.rings[home].handle_frame(self.now, from, &request.encode(), &self.realm.realm).unwrap();
        self.settle();
        self.devices.drain(..).map(|(_, frame)| Answer::decode(&frame.body).unwrap()).collect()
    }

    fn sequences(&self, device: &DeviceFixture, answer: &Answer) -> Vec<u64> {
        match LookupResult::from_answer(&self.realm.realm, &device.key(), answer, self.now.unix) {
            LookupResult::Found { entries, .. } => entries.iter().map(|entry| entry.sequence).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_two_and_three_members_keep_and_find() {
    for count in 1..=3 {
        let mut net = Net::new(count);
        let alice = net.realm.device("alice", 1);
        let nothing = net.read(0, &alice, false);
        assert_eq!(nothing.last().unwrap().standing, Standing::None, "{count} members");
        let written = net.write(0, &alice, 1);
        assert_eq!(written.status, WriteStatus::Stored);
        assert_eq!(net.commits, usize::from(count), "each holder commits before it says so");
        for home in 0..usize::from(count) {
            assert_eq!(net.rings[home].records(), 1);
            let answers = net.read(home, &alice, false);
            let last = answers.last().unwrap();
            assert!(last.settled);
            assert_eq!(net.sequences(&alice, last), [1]);
        }
        assert_eq!(net.write(usize::from(count) - 1, &alice, 1).status, WriteStatus::Stored, "idempotent");
        let newer = net.write(0, &alice, 5);
        assert_eq!(newer.status, WriteStatus::Stored);
        let stale = net.write(0, &alice, 4);
        assert_eq!(stale.status, WriteStatus::Stale);
        assert!(stale.newest_entry.is_some());
    }
}

#[test]
fn a_write_is_not_acknowledged_before_its_commit() {
    let mut net = Net::new(1);
    let alice = net.realm.device("alice", 1);
    let request = WriteRequest {
        id: 7,
        key: alice.key(),
        scope: Scope::Walk,
        account: Some(alice.account.bytes().to_vec()),
        entry: None,
    };
    let device = From::Device(alice.credential.node);
    net.rings[0].handle_frame(net.now, device, &request.encode(), &net.realm.realm).unwrap();
    let Some(RingOutput::Commit { number, key, value }) = net.rings[0].poll_output() else { panic!() };
    assert_eq!((key, net.rings[0].poll_output()), (alice.key(), None));
    net.rings[0].handle_committed(number, false);
    let Some(RingOutput::Send { frame, .. }) = net.rings[0].poll_output() else { panic!() };
    assert_eq!(Written::decode(&frame.body).unwrap().status, WriteStatus::Full);

    let mut later = Ring::new(net.now, node(1));
    assert!(later.load(&net.realm.realm, key, &value.unwrap(), net.now));
    assert_eq!(later.records(), 1);
}

#[test]
fn a_lying_holder_moves_nothing() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.write(0, &alice, 2);
    // All but member 1 lie; it asks itself and the nearest of them. First they forge a byte of the entry.
    net.lie = |from, frame| {
        if from == node(1) {
            return frame;
        }
        let mut answer = Answer::decode(&frame.body).unwrap();
        for entry in &mut answer.entries {
            *entry.last_mut().unwrap() ^= 1;
        }
        answer.encode()
    };
    let answers = net.read(0, &alice, true);
    assert_eq!(net.sequences(&alice, answers.last().unwrap()), [2]);
    // They hide the account, then invent one.
    net.lie = |from, frame| {
        if from == node(1) {
            return frame;
        }
        let answer = Answer::decode(&frame.body).unwrap();
        Answer::empty(answer.id, Standing::None).encode()
    };
    let answers = net.read(0, &alice, true);
    assert_eq!(net.sequences(&alice, answers.last().unwrap()), [2]);
    net.lie = |from, frame| {
        if from == node(1) {
            return frame;
        }
        let mut answer = Answer::decode(&frame.body).unwrap();
        answer.account = Some(vec![0x82, 0x41, 0, 0x41, 0]);
        answer.encode()
    };
    let answers = net.read(0, &alice, true);
    assert_eq!(net.sequences(&alice, answers.last().unwrap()), [2]);
    assert_eq!(net.rings[0].counters().disbelieved, 3);
}

#[test]
fn a_rolled_back_answer_is_replaced_by_the_second() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    // Member 3 misses the second write.
    net.dead[2] = true;
    net.rings[0].link_down(net.now, node(3));
    net.rings[1].link_down(net.now, node(3));
    assert_eq!(net.write(0, &alice, 2).status, WriteStatus::Stored, "two of three are enough");
    net.dead[2] = false;
    // It asks itself first and is told better by the second holder.
    let answers = net.read(2, &alice, true);
    assert_eq!(answers.len(), 2);
    assert!(!answers[0].settled && answers[1].settled);
    assert_eq!(net.sequences(&alice, &answers[0]), [1]);
    assert_eq!(net.sequences(&alice, &answers[1]), [2]);
}

#[test]
fn who_comes_back_empty_is_filled() {
    let mut net = Net::new(3);
    net.pass(Duration::from_secs(1));
    let (alice, bob) = (net.realm.device("alice", 1), net.realm.device("bob", 2));
    net.write(0, &alice, 1);
    net.write(1, &bob, 1);
    let written_at = net.now.unix;
    let members: Vec<Member> = net.rings[0].live().to_vec();
    // Member 3 restarts within a second and has forgotten all.
    for index in 0..2 {
        net.rings[index].link_down(net.now, node(3));
    }
    net.rings[2] = Ring::new(net.now, node(3));
    net.rings[2].set_members(net.now, members, &net.realm.realm);
    for index in 0..2 {
        net.rings[index].link_up(net.now, node(3));
        net.rings[2].link_up(net.now, node(index as u8 + 1));
    }
    net.pass(Duration::from_secs(1));
    assert_eq!(net.rings[2].records(), 2);
    let entry = net.rings[2].newest_entry(bob.credential.node);
    assert_eq!(entry.as_deref(), Some(bob.entry(1, written_at).bytes()));
    let handed: u64 = net.rings.iter().map(|ring| ring.counters().handed_over).sum();
    assert_eq!(handed, 2, "one member hands each record over, not all");
}

#[test]
fn a_dead_member_does_not_count_after_five_seconds() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.dead[2] = true;
    for index in 0..2 {
        net.rings[index].link_down(net.now, node(3));
    }
    assert_eq!(net.rings[0].live().len(), 3);
    assert_eq!(net.read(0, &alice, false).last().unwrap().standing, Standing::Unreachable);
    net.pass(Duration::from_secs(5));
    assert_eq!(net.rings[0].live().len(), 2);
    assert_eq!(net.read(0, &alice, false).last().unwrap().standing, Standing::None);
    assert_eq!(net.write(0, &alice, 1).status, WriteStatus::Stored);
}

#[test]
fn the_cache_answers_for_a_minute_and_not_past_it() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.read(1, &alice, false);
    net.read(1, &alice, false);
    assert_eq!(net.rings[1].counters().cached, 1);
    net.dead[1] = true;
    net.write(0, &alice, 2);
    net.dead[1] = false;
    let stale = net.read(1, &alice, false);
    assert_eq!(net.sequences(&alice, &stale[0]), [1], "cached");
    let fresh = net.read(1, &alice, true);
    assert_eq!(net.sequences(&alice, fresh.last().unwrap()), [2], "past the cache");
    net.dead[1] = true;
    net.write(0, &alice, 3);
    net.dead[1] = false;
    net.pass(crate::limits::CACHE);
    let fresh = net.read(1, &alice, false);
    assert_eq!(net.sequences(&alice, fresh.last().unwrap()), [3]);
}

#[test]
fn a_holder_that_hears_of_a_newer_entry_drops_what_it_cached() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.read(1, &alice, false);
    net.write(0, &alice, 2);
    let fresh = net.read(1, &alice, false);
    assert_eq!(net.sequences(&alice, fresh.last().unwrap()), [2]);
}

#[test]
fn own_lookups_and_one_fetch_in_flight() {
    let mut net = Net::new(3);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    let now = net.now;
    net.rings[0].lookup(now, 1, alice.key(), true);
    net.rings[0].lookup(now, 2, alice.key(), true);
    net.settle();
    assert_eq!(net.rings[0].counters().lookups, 1);
    let settled = net.looked.iter().filter(|r| matches!(r, LookupResult::Found { settled: true, .. }));
    assert_eq!(settled.count(), 2);
}

#[test]
fn a_newcomer_among_four_says_not_yet() {
    let mut net = Net::new(4);
    let alice = net.realm.device("alice", 1);
    assert_eq!(net.read(0, &alice, false).last().unwrap().standing, Standing::Unreachable);
    net.pass(STANDBY);
    assert_eq!(net.read(0, &alice, false).last().unwrap().standing, Standing::None);
}

#[test]
fn revocation_ends_entries_and_only_who_was_asked_may_answer() {
    let mut net = Net::new(2);
    let alice = net.realm.device("alice", 1);
    net.write(0, &alice, 1);
    net.realm.revoke(alice.credential.node);
    let members = net.rings[0].live().to_vec();
    for ring in &mut net.rings {
        ring.set_members(net.now, members.clone(), &net.realm.realm);
    }
    net.settle();
    let answers = net.read(0, &alice, false);
    assert_eq!(answers.last().unwrap().entries.len(), 0);

    let now = net.now;
    net.rings[0].lookup(now, 3, [9; 16], true);
    for id in 0..64 {
        let forged = Answer::empty(id, Standing::None).encode();
        for from in [From::Device(node(2)), From::Member(node(3))] {
            net.rings[0].handle_frame(now, from, &forged, &net.realm.realm).unwrap();
        }
    }
    assert!(!net.rings[0].outputs.iter().any(|output| matches!(output, RingOutput::Looked { .. })));
}
