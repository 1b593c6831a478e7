//! A realm of hundreds of supernodes: who is named, who gets the bulletin when, and what a change costs.

use std::collections::VecDeque;
use std::net::SocketAddr;

use yodel_identity::credential::Credential;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::limits::BULLETIN_SUPERNODES_MAX;
use yodel_identity::login::{Body, SupernodeEnrol, SupernodeEnrolled, SupernodeState};
use yodel_identity::name::RealmName;
use yodel_store::{MemoryStore, Store};
use yodel_wire::machine::{CommitResult, LinkClosed, LinkEvent, LinkPeer, Machine, Output, Transport};
use yodel_wire::time::UnixTime;

use super::*;
use crate::admin::AdminRequest;
use crate::keys::ServerKeys;
use crate::server::Command;

/// What a supernode in the test remembers.
struct Member {
    key: SigningKey,
    link: LinkId,
    node: NodeId,
    udp: SocketAddr,
    /// The epoch of the last bulletin it got, and of the first that named it.
    epoch: u64,
    named: Option<u64>,
    bulletins: usize,
}

struct World {
    now: Now,
    store: MemoryStore,
    server: LoginServer,
    members: Vec<Member>,
    replies: Vec<serde_json::Value>,
}

fn start() -> Now {
    Now { mono: Instant::from_micros(1), unix: UnixTime::from_secs(1_800_000_000) }
}

fn keys() -> ServerKeys {
    let realm = RealmName::parse("example.net").unwrap();
    ServerKeys::generate(realm, vec!["198.51.100.1:4433".into()], start().unix, [1; 32]).unwrap().1
}

impl World {
    fn new(supernodes: u32) -> World {
        let store = MemoryStore::new();
        let server = LoginServer::new(start(), keys(), &store, [2; 32]).unwrap();
        let mut world = World { now: start(), store, server, members: Vec::new(), replies: Vec::new() };
        world.drain();
        let request = AdminRequest::InviteCreate {
            user: None,
            role: "supernode".into(),
            uses: supernodes.into(),
            expires_s: 86_400,
        };
        world.operate(request);
        let invite = world.replies.pop().unwrap()["invite"].as_str().unwrap().to_owned();
        let secret = invite.parse::<yodel_identity::invitation::Invitation>().unwrap().secret;
        for number in 0..supernodes {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let [_, _, high, low] = number.to_be_bytes();
            let udp = SocketAddr::from(([10, 1, high, low], 5060));
            let member = Member {
                key: SigningKey::from_seed(seed),
                link: LinkId(number.into()),
                node: NodeId([0; 16]),
                udp,
                epoch: 0,
                named: None,
                bulletins: 0,
            };
            world.members.push(member);
            world.open(number as usize);
            let sealing = SealingKey::from_bytes(seed).public();
            let enrol = SupernodeEnrol { secret, sealing, udp: vec![udp], tcp: vec![] };
            world.say(number as usize, enrol.frame());
        }
        world
    }

    fn open(&mut self, number: usize) {
        let member = &self.members[number];
        let peer = LinkPeer {
            key: member.key.public().0,
            exporter: [0; 32],
            addr: member.udp,
            transport: Transport::Tls,
        };
        let link = member.link;
        self.server.handle_link(self.now, link, LinkEvent::Opened(peer));
        self.drain();
    }

    fn close(&mut self, number: usize) {
        let link = self.members[number].link;
        self.server.handle_link(self.now, link, LinkEvent::Closed(LinkClosed::Lost));
        self.drain();
    }

    fn say(&mut self, number: usize, frame: Frame) {
        let link = self.members[number].link;
        self.server.handle_link(self.now, link, LinkEvent::Frame(frame));
        self.drain();
    }

    /// As a supernode does on a new link: its state, and a request for the next bulletin.
    fn serve(&mut self, number: usize) {
        let (udp, named) = (self.members[number].udp, self.members[number].named.is_some());
        self.say(number, SupernodeState { ready: true, udp: vec![udp], tcp: vec![], named }.frame());
        self.want(number);
    }

    fn want(&mut self, number: usize) {
        let wanted = BulletinWanted { have_epoch: self.members[number].epoch, pages_of: None };
        self.say(number, Frame::new(FrameKind::BulletinWanted, wanted.encode()));
    }

    fn operate(&mut self, request: AdminRequest) {
        self.server.handle_command(self.now, Command { id: 1, request });
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        loop {
            let Output::Idle { deadline: Some(deadline) } = self.server.poll_output() else { panic!() };
            let next = deadline.max(self.now.mono).min(until);
            self.now.unix = self.now.unix + next.since(self.now.mono);
            self.now.mono = next;
            if deadline > until {
                return;
            }
            self.server.handle_timeout(self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut again = VecDeque::new();
        loop {
            match self.server.poll_output() {
                Output::Commit(ticket, writes) => {
                    self.store.commit(&writes).unwrap();
                    self.server.handle_committed(self.now, ticket, CommitResult::Stored);
                }
                Output::Link(link, yodel_wire::machine::LinkAction::Write(frame)) => {
                    let number = usize::try_from(link.0).unwrap();
                    let member = &mut self.members[number];
                    match frame.kind {
                        FrameKind::SupernodeEnrolled => {
                            let enrolled = SupernodeEnrolled::decode(&frame.body).unwrap();
                            member.node = Credential::decode_unverified(&enrolled.credential).unwrap().node;
                        }
                        FrameKind::Bulletin => {
                            let bulletin = Bulletin::decode_unverified(&frame.body).unwrap();
                            assert!(bulletin.epoch > member.epoch);
                            member.epoch = bulletin.epoch;
                            member.bulletins += 1;
                            if bulletin.supernode(member.node).is_some() {
                                member.named.get_or_insert(bulletin.epoch);
                            }
                            again.push_back(number);
                        }
                        other => assert_eq!(other, FrameKind::LoginHello),
                    }
                }
                Output::Link(_, yodel_wire::machine::LinkAction::Close) => {}
                Output::Event(crate::server::Event::Admin { reply, .. }) => {
                    self.replies.push(reply.unwrap());
                }
                Output::Event(_) => {}
                Output::Idle { .. } => match again.pop_front() {
                    // The next one is asked for at once.
                    Some(number) => {
                        let wanted =
                            BulletinWanted { have_epoch: self.members[number].epoch, pages_of: None };
                        let frame = Frame::new(FrameKind::BulletinWanted, wanted.encode());
                        let link = self.members[number].link;
                        self.server.handle_link(self.now, link, LinkEvent::Frame(frame));
                    }
                    None => return,
                },
                other => panic!("{other:?}"),
            }
        }
    }

    fn epoch(&self) -> u64 {
        self.server.publisher.bulletin().unwrap().epoch
    }

    fn received(&self) -> usize {
        self.members.iter().map(|member| member.bulletins).sum()
    }
}

const SUPERNODES: u32 = 600;

#[test]
fn a_realm_that_starts_at_once_is_named_within_seconds_and_then_content() {
    let mut world = World::new(SUPERNODES);
    let before = world.epoch();
    (0..SUPERNODES as usize).for_each(|number| world.serve(number));
    world.pass(Duration::from_secs(6));
    assert!(world.members.iter().all(|member| member.named.is_some()));
    let epochs = world.epoch() - before;
    assert!((600 / 32..=600 / 24 + 1).contains(&epochs), "{epochs} bulletins");
    // All but the newly named wait 600 ms between two.
    let received = world.received();
    assert!(received <= 600 * 14 + 32 * 30, "{received} bulletins handed out");

    // The login server restarts: all come back and say where they are, and none of them waits for anything.
    let (epoch, received) = (world.epoch(), world.received());
    world.server = LoginServer::new(world.now, keys(), &world.store, [3; 32]).unwrap();
    world.drain();
    (0..SUPERNODES as usize).for_each(|number| world.open(number));
    (0..SUPERNODES as usize).for_each(|number| world.serve(number));
    world.pass(Duration::from_secs(60));
    assert!(world.epoch() > epoch, "no epoch comes twice");
    assert!(world.received() - received <= 600 * 2, "{}", world.received() - received);
    assert_eq!(world.server.publisher.bulletin().unwrap().supernodes.len(), BULLETIN_SUPERNODES_MAX);
}

#[test]
fn a_newcomer_is_named_at_once_and_the_others_learn_a_little_later() {
    let mut world = World::new(SUPERNODES);
    (0..SUPERNODES as usize - 1).for_each(|number| world.serve(number));
    world.pass(Duration::from_secs(30));
    let (epoch, received) = (world.epoch(), world.received());
    world.serve(SUPERNODES as usize - 1);
    assert_eq!(world.members[SUPERNODES as usize - 1].named, Some(epoch + 1), "without any delay");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.epoch(), epoch + 1);
    assert!(world.members.iter().all(|member| member.epoch == epoch + 1), "all know within a second");
    assert!(world.received() - received <= SUPERNODES as usize);

    // One that is not named loses its link, comes back and is content; nobody else hears of it.
    let quiet = |world: &World, node| !world.server.publisher.names(node);
    let number = (0..500).find(|number| quiet(&world, world.members[*number].node)).unwrap();
    world.close(number);
    world.pass(Duration::from_secs(20 * 60));
    let named = |world: &World| {
        (0..100).any(|epoch| {
            world.server.state.roster.choose(epoch, |_| true).contains(&world.members[number].node)
        })
    };
    assert!(!named(&world), "gone");
    let epoch = world.epoch();
    world.open(number);
    world.serve(number);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.epoch(), epoch);
    assert!((0..4_000).any(|epoch| {
        world.server.state.roster.choose(epoch, |_| true).contains(&world.members[number].node)
    }));

    // A revoked one: all have it at once, named or not.
    let node = world.members[3].node;
    world.operate(AdminRequest::DeviceRevoke { device: node.to_string() });
    world.pass(Duration::from_millis(250));
    let newest = world.epoch();
    assert!(newest > epoch);
    assert!(world.server.realm().revoked().contains_key(&node));
    let late = world.members.iter().filter(|member| member.node != node && member.epoch < newest).count();
    assert_eq!(late, 0);
    world.operate(AdminRequest::Health);
    let health = world.replies.pop().unwrap();
    assert_eq!((&health["supernodes"], &health["named"]), (&(SUPERNODES - 1).into(), &32.into()));
}
