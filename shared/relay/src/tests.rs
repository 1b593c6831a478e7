//! Two legs and a server, driven by hand.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::machine::{LinkId, Transport};
use yodel_wire::time::Now;

use crate::control::{BINDING_BYTES, Binding, BindingKind, Control, LegKind, Reason, Token, data};
use crate::leg::{Leg, LegConfig, LegOutput};
use crate::limits::{HALF_OPEN, HALF_OPEN_PER_NODE, IDLE, LINK_LOST};
use crate::server::{LinkFacts, RelayOutput, Server, ServerConfig};

const TOKEN: Token = Token([7; 16]);
const ALICE: NodeId = NodeId([0xa; 16]);
const BOB: NodeId = NodeId([0xb; 16]);
const MALLORY: NodeId = NodeId([0xf; 16]);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn relay_addr() -> SocketAddr {
    addr("203.0.113.1:5060")
}

struct End {
    leg: Leg,
    facts: LinkFacts,
    addr: SocketAddr,
    udp: bool,
    link: bool,
    got: Vec<Vec<u8>>,
    events: Vec<LegOutput>,
}

struct Rig {
    now: Now,
    server: Server,
    ends: Vec<End>,
    /// Bytes of datagrams toward the server and back.
    received: usize,
    sent: usize,
    /// Every datagram the server sent.
    answers: Vec<(SocketAddr, Vec<u8>)>,
}

fn facts(link: u64, node: NodeId, transport: Transport) -> LinkFacts {
    LinkFacts { link: LinkId(link), node, exporter: [link as u8; 32], transport }
}

fn config(facts: &LinkFacts) -> LegConfig {
    LegConfig { relay: Some(relay_addr()), exporter: facts.exporter, transport: facts.transport }
}

impl Rig {
    fn new(config: ServerConfig) -> Rig {
        Rig {
            now: Now::default(),
            server: Server::new(config, [1; 32]),
            ends: Vec::new(),
            received: 0,
            sent: 0,
            answers: Vec::new(),
        }
    }

    fn add(&mut self, leg: Leg, facts: LinkFacts, at: &str) {
        self.ends.push(End {
            leg,
            facts,
            addr: addr(at),
            udp: true,
            link: true,
            got: vec![],
            events: vec![],
        });
    }

    /// Alice opens for Bob and Bob joins.
    fn pair(transports: [Transport; 2], udp: [bool; 2]) -> Rig {
        let mut rig = Rig::new(ServerConfig::default());
        let [a, b] = transports;
        let alice = facts(1, ALICE, a);
        let bob = facts(2, BOB, b);
        rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
        rig.ends[0].udp = udp[0];
        rig.run(Duration::ZERO);
        rig.add(Leg::join(rig.now, config(&bob), TOKEN), bob, "198.51.100.2:2000");
        rig.ends[1].udp = udp[1];
        rig.run(Duration::from_millis(400));
        rig
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for end in &mut self.ends {
                while let Some(output) = end.leg.poll_output() {
                    quiet = false;
                    match output {
                        LegOutput::Frame(frame) if end.link => {
                            self.server.handle_frame(self.now, &end.facts, &frame).unwrap();
                        }
                        LegOutput::Datagram { to, bytes } if end.udp => {
                            assert_eq!(to, relay_addr());
                            self.received += bytes.len();
                            self.server.handle_datagram(self.now, end.addr, &bytes);
                        }
                        LegOutput::Frame(_) | LegOutput::Datagram { .. } => {}
                        event => end.events.push(event),
                    }
                }
            }
            while let Some(output) = self.server.poll_output() {
                quiet = false;
                for end in &mut self.ends {
                    match &output {
                        RelayOutput::Frame(link, frame) if *link == end.facts.link && end.link => {
                            end.got.extend(end.leg.handle_frame(self.now, frame));
                        }
                        RelayOutput::Datagram { to, bytes } if *to == end.addr && end.udp => {
                            end.got.extend(
                                end.leg.handle_datagram(self.now, relay_addr(), bytes).map(<[u8]>::to_vec),
                            );
                        }
                        _ => {}
                    }
                }
                if let RelayOutput::Datagram { to, bytes } = output {
                    self.sent += bytes.len();
                    self.answers.push((to, bytes));
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets `time` pass.
    fn run(&mut self, time: Duration) {
        let until = self.now.mono + time;
        self.settle();
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "a deadline does not move on");
            let deadline = self
                .ends
                .iter()
                .filter_map(|end| end.leg.deadline())
                .chain(self.server.deadline())
                .min()
                .filter(|at| *at <= until);
            let Some(deadline) = deadline else { break };
            self.now.mono = self.now.mono.max(deadline);
            for end in &mut self.ends {
                end.leg.handle_timeout(self.now);
            }
            self.server.handle_timeout(self.now);
            self.settle();
        }
        self.now.mono = until;
    }

    fn speak(&mut self, from: usize, packet: &[u8]) {
        self.ends[from].leg.send(packet);
        self.settle();
    }

    fn kinds(&self) -> [Option<LegKind>; 2] {
        [self.ends[0].leg.kind(), self.ends[1].leg.kind()]
    }
}

#[test]
fn two_ends_meet_over_udp() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2]);
    assert_eq!(rig.server.sessions(), 1);
    rig.speak(0, b"hello");
    rig.speak(1, b"hi");
    assert_eq!(rig.ends[1].got, [b"hello".to_vec()]);
    assert_eq!(rig.ends[0].got, [b"hi".to_vec()]);
    assert!(rig.sent <= rig.received, "amplification {} / {}", rig.sent, rig.received);
    rig.run(Duration::from_secs(30));
    assert!(rig.sent <= rig.received);
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2]);
}

#[test]
fn with_udp_shut_the_link_carries_packets_from_the_first_moment() {
    let mut rig = Rig::new(ServerConfig::default());
    let alice = facts(1, ALICE, Transport::Tls);
    let bob = facts(2, BOB, Transport::Quic);
    rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
    rig.ends[0].udp = false;
    rig.run(Duration::ZERO);
    rig.add(Leg::join(rig.now, config(&bob), TOKEN), bob, "198.51.100.2:2000");
    rig.run(Duration::ZERO);
    assert_eq!(rig.kinds(), [Some(LegKind::Tcp); 2]);
    rig.speak(0, b"one");
    rig.speak(1, b"two");
    assert_eq!(rig.ends[1].got, [b"one".to_vec()]);
    assert_eq!(rig.ends[0].got, [b"two".to_vec()]);

    rig.ends[0].udp = true;
    rig.run(Duration::from_secs(3));
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2], "it keeps trying");
}

#[test]
fn udp_that_goes_silent_moves_to_the_link_and_back() {
    let mut rig = Rig::pair([Transport::Tls; 2], [true; 2]);
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2]);
    rig.ends[0].udp = false;
    rig.run(Duration::from_secs(7));
    assert_eq!(rig.kinds(), [Some(LegKind::Tcp); 2]);
    rig.speak(1, b"still here");
    assert_eq!(rig.ends[0].got, [b"still here".to_vec()]);
    rig.ends[0].udp = true;
    rig.run(Duration::from_secs(3));
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2]);
}

#[test]
fn a_new_address_counts_after_its_challenge_and_data_never_moves_one() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.speak(1, b"before");
    assert_eq!(rig.ends[0].got.len(), 1);

    let moved = addr("192.0.2.99:9");
    let old = std::mem::replace(&mut rig.ends[0].addr, moved);
    rig.speak(0, b"from elsewhere");
    assert!(rig.ends[1].got.is_empty(), "data from an address not bound is dropped");
    rig.speak(1, b"lost");
    assert_eq!(rig.answers.last().unwrap().0, old, "and moves nothing");

    rig.run(Duration::from_secs(6));
    rig.speak(1, b"after");
    assert_eq!(rig.ends[0].got.last().unwrap(), b"after");
    rig.speak(0, b"heard again");
    assert_eq!(rig.ends[1].got, [b"heard again".to_vec()]);
}

#[test]
fn replayed_and_forged_bindings_move_nothing() {
    let mut rig = Rig::new(ServerConfig::default());
    let alice = facts(1, ALICE, Transport::Quic);
    rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
    // Take Alice's datagrams apart instead of delivering them.
    let mut binds = Vec::new();
    for _ in 0..3 {
        while let Some(output) = rig.ends[0].leg.poll_output() {
            match output {
                LegOutput::Frame(frame) => rig.server.handle_frame(rig.now, &alice, &frame).unwrap(),
                LegOutput::Datagram { bytes, .. } => {
                    binds.push(bytes.clone());
                    rig.server.handle_datagram(rig.now, rig.ends[0].addr, &bytes);
                }
                _ => {}
            }
        }
        while let Some(output) = rig.server.poll_output() {
            match output {
                RelayOutput::Frame(_, frame) => {
                    rig.ends[0].leg.handle_frame(rig.now, &frame);
                }
                RelayOutput::Datagram { bytes, .. } => {
                    rig.ends[0].leg.handle_datagram(rig.now, relay_addr(), &bytes);
                }
            }
        }
    }
    let [bind, confirm] = &binds[..] else { panic!("{} datagrams", binds.len()) };
    assert_eq!(Binding::parse(bind).unwrap().kind, BindingKind::Bind);
    assert_eq!(Binding::parse(confirm).unwrap().kind, BindingKind::Confirm);

    let attacker = addr("192.0.2.66:6");
    for datagram in [bind, confirm] {
        rig.server.handle_datagram(rig.now, attacker, datagram);
        assert_eq!(rig.server.poll_output(), None, "an old sequence, or a cookie for another address");
    }
    let mut forged = bind.clone();
    forged[20] ^= 0x40;
    rig.server.handle_datagram(rig.now, attacker, &forged);
    assert_eq!(rig.server.poll_output(), None);
    assert_eq!(rig.server.counters().stray, 3);
    // A fresh Bind seen on the way and sent first by the attacker gets a challenge no longer than itself, and no more.
    let fresh = Binding { sequence: 99, ..Binding::parse(bind).unwrap() };
    let key = crate::control::BindKey::derive(&alice.exporter, TOKEN);
    rig.server.handle_datagram(rig.now, attacker, &fresh.encode(&key));
    let Some(RelayOutput::Datagram { to, bytes }) = rig.server.poll_output() else { panic!() };
    assert_eq!((to, bytes.len()), (attacker, BINDING_BYTES));
    assert_eq!(Binding::parse(&bytes).unwrap().kind, BindingKind::Challenge);
    rig.server.handle_datagram(rig.now, attacker, &bytes);
    assert_eq!(rig.server.poll_output(), None, "a challenge sent back is no confirmation");
}

#[test]
fn only_the_allowed_node_joins_and_only_the_ends_speak() {
    let mut rig = Rig::new(ServerConfig::default());
    let alice = facts(1, ALICE, Transport::Quic);
    let mallory = facts(3, MALLORY, Transport::Quic);
    rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
    rig.run(Duration::ZERO);
    rig.add(Leg::join(rig.now, config(&mallory), TOKEN), mallory, "198.51.100.9:9");
    rig.run(Duration::ZERO);
    assert_eq!(rig.ends[1].events, [LegOutput::Down(Reason::NoSession)]);
    assert_eq!(rig.server.sessions(), 0);

    let channel = rig.ends[0].leg.channel().unwrap();
    let frame = Control::Data { channel, packet: vec![1] }.encode();
    rig.server.handle_frame(rig.now, &mallory, &frame).unwrap();
    rig.server.handle_datagram(rig.now, addr("198.51.100.9:9"), &data(channel, &[1]));
    for close in [
        Control::Close { token: TOKEN, reason: Reason::Finished },
        Control::State { token: TOKEN, near: LegKind::Tcp, far: None, draining: false },
    ] {
        rig.server.handle_frame(rig.now, &mallory, &close.encode()).unwrap();
    }
    rig.settle();
    assert_eq!(rig.server.half_open(), 1);
    assert!(rig.ends[0].got.is_empty());
    // Nor does a second opener take the token over.
    rig.server.handle_frame(rig.now, &mallory, &Control::Open { token: TOKEN, allow: BOB }.encode()).unwrap();
    let refused = Control::Refused { token: TOKEN, reason: Reason::TokenInUse }.encode();
    assert_eq!(rig.server.poll_output(), Some(RelayOutput::Frame(mallory.link, refused)));
}

#[test]
fn half_open_ends_after_a_minute_to_the_millisecond() {
    for (wait, joined) in [(HALF_OPEN - Duration::from_millis(1), 1), (HALF_OPEN, 0)] {
        let mut rig = Rig::new(ServerConfig::default());
        let alice = facts(1, ALICE, Transport::Quic);
        let bob = facts(2, BOB, Transport::Quic);
        rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
        rig.settle();
        rig.now.mono += wait;
        rig.add(Leg::join(rig.now, config(&bob), TOKEN), bob, "198.51.100.2:2000");
        rig.settle();
        assert_eq!(rig.server.sessions(), joined);
        rig.run(Duration::from_secs(1));
        assert_eq!(rig.server.half_open(), 0);
    }
}

#[test]
fn one_credential_waits_with_sixteen_sessions() {
    let mut server = Server::new(ServerConfig::default(), [0; 32]);
    let alice = facts(1, ALICE, Transport::Quic);
    let mut refused = 0;
    for number in 0..=HALF_OPEN_PER_NODE {
        let open = Control::Open { token: Token([number as u8; 16]), allow: BOB };
        server.handle_frame(Now::default(), &alice, &open.encode()).unwrap();
        while let Some(output) = server.poll_output() {
            let RelayOutput::Frame(_, frame) = output else { panic!() };
            if let Ok(Some(Control::Refused { reason, .. })) = Control::decode(&frame) {
                assert_eq!(reason, Reason::Quota);
                refused += 1;
            }
        }
    }
    assert_eq!((server.half_open(), refused), (HALF_OPEN_PER_NODE, 1));
    let bob = facts(2, BOB, Transport::Quic);
    let open = Control::Open { token: Token([99; 16]), allow: ALICE };
    server.handle_frame(Now::default(), &bob, &open.encode()).unwrap();
    assert_eq!(server.half_open(), HALF_OPEN_PER_NODE + 1, "another credential is not touched");
}

#[test]
fn a_quota_of_zero_refuses() {
    let none = ServerConfig { rate_bytes_per_s: 0, ..ServerConfig::default() };
    let mut rig = Rig::new(none);
    let alice = facts(1, ALICE, Transport::Quic);
    rig.add(Leg::open(rig.now, config(&alice), TOKEN, BOB), alice, "198.51.100.1:1000");
    rig.run(Duration::ZERO);
    assert_eq!(rig.ends[0].events, [LegOutput::Down(Reason::Quota)]);
    assert_eq!(rig.server.half_open(), 0);
}

#[test]
fn a_credential_that_sends_too_much_is_slowed_and_no_other() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    for _ in 0..1_000 {
        rig.speak(0, &[0x80; 1_000]);
    }
    assert_eq!(rig.ends[1].got.len(), 256, "the burst");
    rig.speak(1, b"unhindered");
    assert_eq!(rig.ends[0].got.len(), 1);
    rig.run(Duration::from_secs(1));
    for _ in 0..1_000 {
        rig.speak(0, &[0x80; 1_000]);
    }
    assert_eq!(rig.ends[1].got.len(), 256 + 128, "the rate");
}

#[test]
fn a_leg_outlives_its_link_and_comes_back() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.ends[0].link = false;
    rig.ends[0].leg.link_down(rig.now);
    rig.server.link_closed(rig.now, rig.ends[0].facts.link);
    rig.speak(0, b"over udp");
    assert_eq!(rig.ends[1].got, [b"over udp".to_vec()]);

    rig.run(Duration::from_secs(20));
    let again = facts(5, ALICE, Transport::Tls);
    rig.ends[0].facts = again;
    rig.ends[0].link = true;
    let now = rig.now;
    rig.ends[0].leg.link_up(now, &again.exporter, again.transport);
    rig.run(Duration::from_secs(1));
    rig.speak(1, b"back");
    assert_eq!(rig.ends[0].got, [b"back".to_vec()]);
    assert_eq!(rig.kinds(), [Some(LegKind::Udp); 2]);

    rig.ends[0].link = false;
    rig.ends[0].leg.link_down(rig.now);
    rig.server.link_closed(rig.now, again.link);
    rig.run(LINK_LOST + Duration::from_secs(2));
    assert_eq!(rig.server.sessions(), 0);
    assert!(rig.ends.iter().all(|end| end.leg.is_down()));
}

/// Found by seed 1 of `a_home_that_dies_at_any_moment_of_the_call_ends_nothing`: the leg asked to be woken for a
/// fall-back that it could not take, for ever.
#[test]
fn a_leg_whose_supernode_is_dead_sleeps_until_it_gives_up() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.ends[0].link = false;
    rig.ends[0].udp = false;
    rig.ends[0].leg.link_down(rig.now);
    rig.run(LINK_LOST + Duration::from_secs(1));
    assert!(rig.ends[0].leg.is_down());
}

#[test]
fn close_idle_revoke_and_drain_end_or_move_both_ends() {
    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.ends[0].leg.close(rig.now);
    rig.settle();
    assert_eq!(rig.ends[1].events.last(), Some(&LegOutput::Down(Reason::Finished)));
    assert_eq!(rig.server.sessions(), 0);

    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.server.revoke(BOB);
    rig.settle();
    for end in &rig.ends {
        assert_eq!(end.events.last(), Some(&LegOutput::Down(Reason::Revoked)));
    }

    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    rig.server.set_draining(true);
    rig.settle();
    for end in &rig.ends {
        assert_eq!(end.events.last(), Some(&LegOutput::Draining));
    }
    rig.speak(0, b"still carried");
    assert_eq!(rig.ends[1].got.len(), 1);

    let mut rig = Rig::pair([Transport::Quic; 2], [true; 2]);
    for end in &mut rig.ends {
        end.udp = false;
        end.link = false;
    }
    rig.run(IDLE + Duration::from_secs(2));
    assert_eq!(rig.server.sessions(), 0);
}
