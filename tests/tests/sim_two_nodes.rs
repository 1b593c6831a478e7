//! The contract itself: two small machines over a link and datagrams, before any socket.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::world::{NodeIndex, Place, World};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkEvent, LinkId, LinkTarget, Machine, Output, Ticket, Transport,
};
use yodel_wire::time::{Instant, Now};

/// Pings over a link once a second and tells every answer; answers the pings of others.
#[derive(Default)]
struct Pinger {
    peer: Option<SocketAddr>,
    outputs: Vec<Output<Heard>>,
    link: Option<LinkId>,
    next: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Pong,
    Datagram(SocketAddr),
    Closed,
}

impl Machine for Pinger {
    type Command = ();
    type Event = Heard;

    fn handle_datagram(&mut self, _: Now, from: SocketAddr, datagram: &[u8]) {
        if datagram == [23, 1, 0] {
            self.outputs.push(Output::Datagram { to: from, bytes: vec![23, 1, 1] });
        }
        self.outputs.push(Output::Event(Heard::Datagram(from)));
    }

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Opened(_) if !link.is_accepted() => {
                self.link = Some(link);
                self.next = Some(now.mono);
            }
            LinkEvent::Opened(_) => {}
            LinkEvent::Frame(frame) if frame.kind == FrameKind::Ping => {
                self.outputs
                    .push(Output::Link(link, LinkAction::Write(Frame::new(FrameKind::Pong, frame.body))));
            }
            LinkEvent::Frame(_) => self.outputs.push(Output::Event(Heard::Pong)),
            LinkEvent::Closed(_) => {
                self.next = None;
                self.outputs.push(Output::Event(Heard::Closed));
            }
        }
    }

    fn handle_command(&mut self, _: Now, (): ()) {
        let Some(addr) = self.peer else { return };
        let target = LinkTarget { addr, transport: Transport::Quic, key: Some([2; 32]) };
        self.outputs.push(Output::Link(LinkId(0), LinkAction::Open(target)));
        self.outputs.push(Output::Datagram { to: addr, bytes: vec![23, 1, 0] });
    }

    fn handle_committed(&mut self, _: Now, _: Ticket, _: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if let (Some(link), Some(next)) = (self.link, self.next)
            && now.mono >= next
        {
            self.next = Some(next + Duration::from_secs(1));
            self.outputs.push(Output::Link(link, LinkAction::Write(Frame::new(FrameKind::Ping, vec![0xa0]))));
        }
    }

    fn poll_output(&mut self) -> Output<Heard> {
        if self.outputs.is_empty() { Output::Idle { deadline: self.next } } else { self.outputs.remove(0) }
    }
}

fn place(addr: &str, key: u8) -> Place {
    Place { addr: addr.parse().unwrap(), ports: vec![], nat: None, key: [key; 32] }
}

fn two(seed: u64) -> (World, NodeIndex, NodeIndex) {
    let mut world = World::new(seed);
    let nat = world.add_nat(NatKind::PORT_RESTRICTED, "198.51.100.7".parse().unwrap());
    let server = world.add(place("203.0.113.1:4242", 2), Pinger::default());
    let home = Place { nat: Some(nat), ..place("10.0.0.2:5000", 1) };
    let peer = Some(world.addr(server));
    let client = world.add(home, Pinger { peer, ..Pinger::default() });
    (world, client, server)
}

#[test]
fn a_link_carries_pings_and_a_datagram_comes_back_through_the_nat() {
    let (mut world, client, server) = two(1);
    world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
    world.run_for(Duration::from_millis(3_200));
    let heard: Vec<Heard> = world.events::<Pinger>(client).into_iter().map(|(_, event)| event).collect();
    assert_eq!(heard.iter().filter(|e| **e == Heard::Pong).count(), 4);
    let seen = world.events::<Pinger>(server).into_iter().find_map(|(_, event)| match event {
        Heard::Datagram(from) => Some(from),
        Heard::Pong | Heard::Closed => None,
    });
    assert_eq!(seen.map(|a| a.ip()), Some("198.51.100.7".parse().unwrap()));
    assert!(heard.contains(&Heard::Datagram("203.0.113.1:4242".parse().unwrap())));
}

#[test]
fn a_killed_node_is_noticed_only_after_the_idle_time() {
    let (mut world, client, server) = two(2);
    world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
    world.run_for(Duration::from_secs(1));
    world.kill(server);
    world.run_for(world.weather.link_idle - Duration::from_millis(1));
    assert!(!world.events::<Pinger>(client).iter().any(|(_, event)| *event == Heard::Closed));
    world.run_for(Duration::from_millis(1));
    assert!(world.events::<Pinger>(client).iter().any(|(_, event)| *event == Heard::Closed));
}

#[test]
fn a_seed_reproduces_a_run_bit_for_bit() {
    let run = |seed| {
        let (mut world, client, _) = two(seed);
        world.weather.jitter = Duration::from_millis(20);
        world.weather.loss_permille = 200;
        world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
        for _ in 0..20 {
            world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
            world.run_for(Duration::from_millis(100));
        }
        world.digest()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_passes_between_groups_while_the_world_is_partitioned() {
    let (mut world, client, server) = two(3);
    world.set_group(server, 1);
    world.partitioned = true;
    world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
    world.run_for(Duration::from_secs(9));
    assert_eq!(world.events::<Pinger>(server).len(), 0);
    assert_eq!(world.events::<Pinger>(client).len(), 0);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.events::<Pinger>(client).pop().unwrap().1, Heard::Closed);

    world.partitioned = false;
    world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
    world.run_for(Duration::from_secs(2));
    assert!(world.events::<Pinger>(client).iter().any(|(_, event)| *event == Heard::Pong));
}

#[test]
fn a_link_is_forgotten_when_neither_end_holds_it() {
    let (mut world, client, server) = two(4);
    for life in 1..=3 {
        world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.links(), 1, "life {life}");
        world.kill(client);
        world.run_for(world.weather.link_idle);
        assert_eq!((world.links(), world.agenda()), (0, 0), "life {life}");
        assert_eq!(world.events::<Pinger>(server).pop().unwrap().1, Heard::Closed);
        let peer = Some(world.addr(server));
        world.restart(client, Pinger { peer, ..Pinger::default() });
    }
}

#[test]
fn what_stands_beside_is_reached_at_once_and_counted() {
    let (mut world, client, server) = two(5);
    world.set_beside(client, server);
    world.with::<Pinger, _>(client, |m, now| m.handle_command(now, ()));
    world.run_for(Duration::from_micros(1));
    let heard: Vec<Heard> = world.events::<Pinger>(client).into_iter().map(|(_, event)| event).collect();
    assert_eq!(heard.len(), 2, "{heard:?}");
    let sent = world.sent_by(client);
    assert_eq!((sent.datagrams, sent.datagram_bytes, sent.frames, sent.frame_bytes), (1, 3, 1, 5));
}
