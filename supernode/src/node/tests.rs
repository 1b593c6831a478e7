//! One supernode, its links driven by hand: who gets in, what is carried, what ends whom.

mod elsewhere;

use super::*;

use yodel_identity::bulletin::{
    Bulletin, BulletinFields, BulletinWanted, RevokedSet, SupernodeEntry, revoked_hash,
};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::login::{Body, LoginHello, LoginRefused, Refusal, SupernodeEnrolled, SupernodeState};
use yodel_identity::name::{AccountName, RealmName};
use yodel_identity::node::OwnerTag;
use yodel_identity::realm::{IssuerKey, RootStatement, RootStatementFields};
use yodel_overlay::attach::{Hello, LinkRole, Ping, Pong, Refuse, Welcome};
use yodel_overlay::card::{Card, cards_frames};
use yodel_sip::envelope::{Envelope, Return, ReturnReason};
use yodel_wire::machine::{LinkClosed, LinkPeer, Transport};
use yodel_wire::time::UnixTime;

use crate::keys::KeptSealing;
use crate::limits::{
    DEVICE_SILENT, FAREWELL, FIRST_FRAME, INVITES_BURST, LEAVE_WITHIN, MESSAGES_BURST, SECOND_DIAL_AFTER,
};

const T0: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn realm_name() -> RealmName {
    RealmName::parse("example.net").unwrap()
}

fn statement() -> RootStatement {
    let issuer = IssuerKey { key: key(2).public(), not_before: T0 - DAY, not_after: T0 + 365 * DAY };
    let fields = RootStatementFields {
        realm: realm_name(),
        issued: T0 - DAY,
        issuers: vec![issuer],
        tls_keys: vec![key(3).public()],
        servers: vec!["198.51.100.9:4433".to_owned()],
    };
    RootStatement::issue(&key(1), &fields).unwrap()
}

fn credential(number: u8, subject: Subject, issued: UnixTime) -> Credential {
    let roles = if matches!(subject, Subject::Device { .. }) { Roles::USER } else { Roles::SUPERNODE };
    let fields = CredentialFields {
        realm: realm_name(),
        subject,
        key: key(number).public(),
        sealing: SealingKey::from_bytes([number; 32]).public(),
        node: node(number),
        roles,
        not_before: issued,
        not_after: issued + 3 * DAY,
        serial: 1,
        issuer: IssuerId::default(),
    };
    Credential::issue(&key(2), fields).unwrap()
}

fn supernode(number: u8) -> Credential {
    credential(number, Subject::Supernode { owner: OwnerTag([number; 16]) }, T0)
}

fn card(number: u8) -> Card {
    let at = vec![SocketAddr::from(([192, 0, 2, number], 5061))];
    Card::sign(&key(number), supernode(number), 7, Service::Alive, at.clone(), at).unwrap()
}

fn device(number: u8) -> Credential {
    let account = AccountName::parse(&format!("user{number}")).unwrap();
    credential(number, Subject::Device { account, root: key(99).public() }, T0)
}

fn bulletin(epoch: u64, supernodes: &[u8], revoked: &[u8]) -> Vec<u8> {
    let revoked = revoked.iter().map(|n| (node(*n), T0 + 10 * DAY)).collect();
    signed_bulletin(epoch, T0, supernodes, &revoked)
}

fn signed_bulletin(epoch: u64, issued: UnixTime, supernodes: &[u8], revoked: &RevokedSet) -> Vec<u8> {
    let newest = yodel_identity::limits::BULLETIN_REVOKED_MAX;
    let entry = |n: &u8| SupernodeEntry {
        credential: supernode(*n),
        udp: vec![SocketAddr::from(([192, 0, 2, *n], 5061))],
        tcp: vec![SocketAddr::from(([192, 0, 2, *n], 5061))],
    };
    let fields = BulletinFields {
        realm: realm_name(),
        epoch,
        issued,
        supernodes: supernodes.iter().map(entry).collect(),
        oldest_version: 1,
        newest_version: 1,
        revoked_hash: revoked_hash(revoked),
        revoked_pages: u16::from(revoked.len() > newest),
        revoked_newest: revoked.iter().take(newest).map(|(node, until)| (*node, *until)).collect(),
        issuer: IssuerId::default(),
    };
    Bulletin::issue(&key(2), fields).unwrap().bytes().to_vec()
}

/// Supernode 20 among members 10 and 30.
struct Rig {
    now: Now,
    node: Supernode,
    next: u64,
    written: Vec<(LinkId, Frame)>,
    opened: Vec<(LinkId, SocketAddr)>,
    closed: Vec<LinkId>,
    events: Vec<Event>,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Config)) -> Rig {
        let now = Now { mono: Instant::from_micros(1), unix: T0 };
        let own = supernode(20);
        let keys = NodeKeys {
            signing: key(20),
            realm: realm_name(),
            pin: key(1).public(),
            statement: statement().bytes().to_vec(),
            sealing: vec![KeptSealing {
                key: SealingKey::from_bytes([20; 32]),
                credential: own.hash(),
                retired: UnixTime::default(),
            }],
            credential: own,
            pending: None,
        };
        let own_addr = vec![SocketAddr::from(([192, 0, 2, 20], 5061))];
        let mut config = Config::new(own_addr.clone(), own_addr);
        change(&mut config);
        let stored = Stored {
            bulletin: Some(bulletin(5, &[10, 20, 30], &[])),
            members: KnownMembers::Cards(vec![card(10).encode(), card(30).encode()]),
            ..Stored::default()
        };
        Rig::with(now, keys, config, &stored)
    }

    fn with(now: Now, keys: NodeKeys, config: Config, stored: &Stored) -> Rig {
        let node = Supernode::new(now, keys, config, stored, [7; 32]).unwrap();
        let mut rig =
            Rig { now, node, next: 0, written: vec![], opened: vec![], closed: vec![], events: vec![] };
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        loop {
            match self.node.poll_output() {
                Output::Link(id, LinkAction::Write(frame)) => self.written.push((id, frame)),
                Output::Link(id, LinkAction::Open(target)) => self.opened.push((id, target.addr)),
                Output::Link(id, LinkAction::Close) => self.closed.push(id),
                Output::Commit(ticket, _) => {
                    self.node.handle_committed(self.now, ticket, CommitResult::Stored);
                }
                Output::Event(event) => self.events.push(event),
                Output::Datagram { .. } => {}
                Output::Idle { .. } => return,
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        loop {
            let deadline = match self.node.poll_output() {
                Output::Idle { deadline } => deadline.filter(|at| *at <= until),
                other => panic!("not drained: {other:?}"),
            };
            let Some(at) = deadline else { break };
            let at = at.max(self.now.mono);
            self.now.unix = self.now.unix + at.since(self.now.mono);
            self.now.mono = at;
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now.unix = self.now.unix + until.since(self.now.mono);
        self.now.mono = until;
    }

    /// As if the machine had slept: nothing was done meanwhile.
    fn leap(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, unix: self.now.unix + time };
        self.pass(Duration::ZERO);
    }

    fn link(&mut self, id: LinkId, number: u8) {
        let peer = LinkPeer {
            key: key(number).public().0,
            exporter: [number; 32],
            addr: SocketAddr::from(([198, 51, 100, number], 999)),
            transport: Transport::Quic,
        };
        self.node.handle_link(self.now, id, LinkEvent::Opened(peer));
        self.drain();
    }

    /// Somebody with this key opens a link.
    fn accept(&mut self, number: u8) -> LinkId {
        self.next += 1;
        let id = LinkId(LinkId::ACCEPTED | self.next);
        self.link(id, number);
        id
    }

    fn frame(&mut self, id: LinkId, frame: Frame) {
        self.node.handle_link(self.now, id, LinkEvent::Frame(frame));
        self.drain();
    }

    fn hello(&mut self, id: LinkId, credential: &Credential, role: LinkRole, boot: u8) {
        let hello = Hello {
            credential: credential.bytes().to_vec(),
            role,
            versions: (1, 1),
            epoch: 5,
            boot: [boot; 16],
            announcement: None,
        };
        self.frame(id, hello.encode());
    }

    fn attach(&mut self, number: u8) -> LinkId {
        let id = self.accept(number);
        self.hello(id, &device(number), LinkRole::Device, 1);
        assert_eq!(self.said(id, FrameKind::Welcome).len(), 1);
        id
    }

    fn join(&mut self, number: u8) -> LinkId {
        let id = self.accept(number);
        self.hello(id, &supernode(number), LinkRole::Member, 1);
        assert_eq!(self.said(id, FrameKind::Welcome).len(), 1);
        id
    }

    /// Takes what was said on a link, of one kind.
    fn said(&mut self, id: LinkId, kind: FrameKind) -> Vec<Vec<u8>> {
        let of = |(link, frame): &(LinkId, Frame)| *link == id && frame.kind == kind;
        let found = self.written.iter().filter(|w| of(w)).map(|(_, frame)| frame.body.clone()).collect();
        self.written.retain(|w| !of(w));
        found
    }

    fn refused(&mut self, id: LinkId) -> Refuse {
        let said = self.said(id, FrameKind::Refuse);
        assert!(self.closed.contains(&id) && said.len() == 1);
        Refuse::decode(&said[0]).unwrap()
    }

    fn parting(&mut self, id: LinkId) -> RefuseReason {
        let said = self.said(id, FrameKind::Goodbye);
        assert!(self.closed.contains(&id) && said.len() == 1, "{said:?}");
        Refuse::decode(&said[0]).unwrap().reason
    }

    fn send(&mut self, id: LinkId, to: u8, to_home: Option<u8>, message: &str, number: u64) {
        let envelope = Envelope {
            to: node(to),
            to_home: to_home.map(node),
            // Lies about the sender are overwritten.
            from: node(77),
            from_home: node(78),
            message: message.as_bytes().to_vec(),
            id: number,
            by_home: true,
        };
        self.frame(id, Frame::new(FrameKind::SipSend, envelope.encode()));
    }

    fn returned(&mut self, id: LinkId) -> Vec<(u64, ReturnReason)> {
        let said = self.said(id, FrameKind::SipReturn);
        said.iter().map(|body| Return::decode(body).unwrap()).map(|r| (r.id, r.reason)).collect()
    }
}

#[test]
fn ready_with_a_stored_bulletin() {
    let rig = Rig::new(|_| {});
    assert_eq!(rig.events, [Event::Ready { node: node(20) }]);
    assert_eq!(rig.opened, [], "whom the table has needs no link");
    let elsewhere = Rig::new(|config| config.advertise_udp = vec![SocketAddr::from(([192, 0, 2, 20], 5062))]);
    assert_eq!(elsewhere.events, [], "the stored bulletin names where an earlier run was");
}

#[test]
fn links_with_whom_the_bulletin_names_and_the_table_lacks() {
    let mut rig = Rig::new(|_| {});
    let next = bulletin(6, &[10, 20, 30, 40], &[]);
    let member = rig.join(10);
    rig.frame(member, Frame::new(FrameKind::Bulletin, next));
    rig.pass(Duration::from_secs(1));
    let (link, addr) = rig.opened.pop().expect("a link is opened");
    assert_eq!(addr.to_string(), "192.0.2.40:5061");
    rig.link(link, 40);
    let hello = Hello::decode(&rig.said(link, FrameKind::Hello)[0]).unwrap();
    let own = Card::announced(supernode(20), &hello.announcement.unwrap()).unwrap();
    assert_eq!(own.node(), node(20), "it introduces itself");
    let welcome = Welcome {
        time: T0,
        observed: SocketAddr::from(([192, 0, 2, 20], 5061)),
        credential: supernode(40).bytes().to_vec(),
        version: 1,
        clients: 0,
        boot: [4; 16],
        announcement: Some(card(40).announcement().bytes().to_vec()),
    };
    rig.frame(link, welcome.encode());
    assert_eq!(rig.said(link, FrameKind::CardsWanted).len(), 1, "and asks who else is there");
    let mut forged = card(60).encode();
    *forged.last_mut().unwrap() ^= 1;
    for frame in cards_frames(&[card(50).encode(), forged]) {
        rig.frame(link, frame);
    }
    let membership = rig.node.ring().membership();
    assert!(membership.slot_of(node(40)).is_some() && membership.slot_of(node(50)).is_some());
    assert!(membership.slot_of(node(60)).is_none());
}

#[test]
fn a_member_is_dialled_over_the_other_transport_too_when_the_first_is_slow() {
    let mut rig = Rig::new(|_| {});
    let alice = rig.attach(50);
    rig.send(alice, 60, Some(30), "OPTIONS far", 1);
    assert_eq!(rig.opened.len(), 1);
    rig.pass(SECOND_DIAL_AFTER - Duration::from_millis(1));
    assert_eq!(rig.opened.len(), 1);
    rig.pass(Duration::from_millis(1));
    let [(slow, _), (quick, _)] = rig.opened[..] else { panic!("{:?}", rig.opened) };
    rig.link(quick, 30);
    assert_eq!(rig.said(quick, FrameKind::SipForward).len(), 1, "what waited goes over the one that came");
    rig.link(slow, 30);
    assert!(rig.closed.contains(&slow) && !rig.closed.contains(&quick));
    assert_eq!((rig.said(slow, FrameKind::Hello).len(), rig.returned(alice)), (0, vec![]));
}

#[test]
fn a_stranger_among_members_must_introduce_itself() {
    let mut rig = Rig::new(|_| {});
    let id = rig.accept(40);
    rig.hello(id, &supernode(40), LinkRole::Member, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::NotMember);
    let id = rig.accept(40);
    let hello = Hello {
        credential: supernode(40).bytes().to_vec(),
        role: LinkRole::Member,
        versions: (1, 1),
        epoch: 5,
        boot: [1; 16],
        announcement: Some(card(40).announcement().bytes().to_vec()),
    };
    rig.frame(id, hello.encode());
    assert_eq!(rig.said(id, FrameKind::Welcome).len(), 1);
    assert!(rig.node.ring().membership().slot_of(node(40)).is_some());
}

#[test]
fn the_credential_must_be_the_links_and_alive() {
    let mut rig = Rig::new(|_| {});
    let id = rig.accept(51);
    rig.hello(id, &device(50), LinkRole::Device, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::Credential, "another's credential");
    let id = rig.accept(50);
    let account = AccountName::parse("user50").unwrap();
    let subject = Subject::Device { account, root: key(99).public() };
    rig.hello(id, &credential(50, subject, T0 - 9 * DAY), LinkRole::Device, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::Credential, "expired");
    let id = rig.accept(50);
    rig.hello(id, &device(50), LinkRole::Member, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::Credential, "a device is no member");
    let id = rig.accept(15);
    rig.hello(id, &supernode(15), LinkRole::Member, 1);
    assert_eq!(rig.refused(id).reason, RefuseReason::NotMember, "not in the bulletin");
    let id = rig.accept(50);
    rig.frame(id, Ping { nonce: 1 }.encode());
    assert_eq!(rig.refused(id).reason, RefuseReason::Protocol, "the first frame is a hello");
    let id = rig.accept(50);
    rig.pass(FIRST_FRAME + SWEEP);
    assert!(rig.closed.contains(&id), "silence is no first frame");
    assert_eq!(rig.node.status().clients, 0);
}

#[test]
fn attaches_answers_pings_and_lets_the_silent_go() {
    let mut rig = Rig::new(|_| {});
    let id = rig.accept(50);
    rig.hello(id, &device(50), LinkRole::Device, 1);
    let welcome = Welcome::decode(&rig.said(id, FrameKind::Welcome)[0]).unwrap();
    assert_eq!(welcome.observed, SocketAddr::from(([198, 51, 100, 50], 999)));
    assert_eq!(welcome.time, T0);
    rig.frame(id, Ping { nonce: 9 }.encode());
    let pong = Pong::decode(&rig.said(id, FrameKind::Pong)[0]).unwrap();
    assert_eq!((pong.nonce, pong.observed), (9, welcome.observed));
    rig.pass(DEVICE_SILENT - SWEEP);
    assert_eq!(rig.node.status().clients, 1);
    rig.pass(2 * SWEEP);
    assert_eq!(rig.node.status().clients, 0);
}

#[test]
fn a_restart_displaces_and_a_second_try_does_not() {
    let mut rig = Rig::new(|_| {});
    let quic = rig.attach(50);
    let tls = rig.attach(50);
    assert!(!rig.closed.contains(&quic), "tries over QUIC and TLS run side by side");
    rig.node.handle_link(rig.now, tls, LinkEvent::Closed(yodel_wire::machine::LinkClosed::Finished));
    rig.drain();
    let other = rig.attach(51);
    rig.send(other, 50, None, "OPTIONS x", 1);
    assert_eq!(rig.said(quic, FrameKind::SipDeliver).len(), 1, "the other try lives");
    let again = rig.accept(50);
    rig.hello(again, &device(50), LinkRole::Device, 2);
    assert_eq!(rig.parting(quic), RefuseReason::Displaced);
    assert_eq!(rig.node.status().clients, 2);
}

#[test]
fn a_full_home_names_another() {
    let mut rig = Rig::new(|config| config.clients_max = 1);
    rig.attach(50);
    rig.attach(50);
    let id = rig.accept(51);
    rig.hello(id, &device(51), LinkRole::Device, 1);
    let refuse = rig.refused(id);
    assert_eq!(refuse.reason, RefuseReason::Full);
    assert!(refuse.come_back > Duration::ZERO && refuse.redirect.is_some_and(|to| to != node(20)));
}

#[test]
fn carries_sip_here_there_and_back() {
    let mut rig = Rig::new(|_| {});
    let (alice, bob, member) = (rig.attach(50), rig.attach(51), rig.join(10));
    rig.send(alice, 51, None, "OPTIONS here", 1);
    let delivered = Envelope::decode(&rig.said(bob, FrameKind::SipDeliver)[0]).unwrap();
    assert_eq!((delivered.from, delivered.from_home, delivered.by_home), (node(50), node(20), false));
    assert_eq!(delivered.message, b"OPTIONS here");

    rig.send(alice, 60, Some(10), "OPTIONS there", 2);
    let forwarded = Envelope::decode(&rig.said(member, FrameKind::SipForward)[0]).unwrap();
    assert_eq!((forwarded.from, forwarded.to_home), (node(50), Some(node(10))));
    let answer =
        Return { id: forwarded.id, reason: ReturnReason::NotAttached, newest_entry: None, home: node(99) };
    rig.frame(member, Frame::new(FrameKind::SipReturn, answer.encode()));
    assert_eq!(rig.returned(alice), [(2, ReturnReason::NotAttached)]);

    rig.send(alice, 60, None, "OPTIONS nobody", 3);
    rig.send(alice, 60, Some(30), "OPTIONS no link", 4);
    assert_eq!(rig.returned(alice), [(3, ReturnReason::NotAttached)], "the other waits for a link");
    let (link, addr) = rig.opened.pop().unwrap();
    assert_eq!(addr.to_string(), "192.0.2.30:5061");
    rig.node.handle_link(rig.now, link, LinkEvent::Closed(LinkClosed::Unreachable));
    rig.drain();
    assert_eq!(rig.returned(alice), [(4, ReturnReason::NoRoute)]);

    // What a member hands over is delivered here or returned, whatever home it names.
    let mut envelope = Envelope { to: node(51), to_home: Some(node(10)), id: 9, ..forwarded };
    rig.frame(member, Frame::new(FrameKind::SipForward, envelope.encode()));
    let delivered = Envelope::decode(&rig.said(bob, FrameKind::SipDeliver)[0]).unwrap();
    assert_eq!(delivered.from_home, node(10));
    envelope.to = node(60);
    rig.frame(member, Frame::new(FrameKind::SipForward, envelope.encode()));
    assert_eq!(rig.returned(member), [(9, ReturnReason::NotAttached)]);
    assert_eq!(rig.said(member, FrameKind::SipForward).len(), 0, "never forwarded on");
}

#[test]
fn an_unanswered_invite_goes_back_after_a_second_to_the_millisecond() {
    for (answers, returned) in [(false, 1), (true, 0)] {
        let mut rig = Rig::new(|_| {});
        let (alice, bob) = (rig.attach(50), rig.attach(51));
        rig.send(alice, 51, None, "INVITE sip:bob SIP/2.0", 7);
        rig.pass(Duration::from_millis(999));
        if answers {
            rig.send(bob, 50, None, "SIP/2.0 100 Trying", 1);
        }
        assert_eq!(rig.returned(alice), []);
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.returned(alice).len(), returned);
    }
}

#[test]
fn too_many_invites_go_back_and_others_pass() {
    let mut rig = Rig::new(|_| {});
    let (alice, carol, _bob) = (rig.attach(50), rig.attach(52), rig.attach(51));
    for number in 0..=INVITES_BURST {
        rig.send(alice, 51, None, "INVITE sip:bob SIP/2.0", number);
    }
    assert_eq!(rig.returned(alice), [(INVITES_BURST, ReturnReason::RateLimited)]);
    rig.send(carol, 51, None, "INVITE sip:bob SIP/2.0", 1);
    assert_eq!(rig.returned(carol), []);
}

#[test]
fn empty_lines_and_messages_are_counted_too() {
    let mut rig = Rig::new(|_| {});
    let (alice, _bob) = (rig.attach(50), rig.attach(51));
    for number in 0..=INVITES_BURST {
        rig.send(alice, 51, None, "\r\n\r\nINVITE sip:bob SIP/2.0", number);
    }
    assert_eq!(rig.returned(alice), [(INVITES_BURST, ReturnReason::RateLimited)]);
    for number in 0..=MESSAGES_BURST {
        rig.send(alice, 51, None, "MESSAGE sip:bob SIP/2.0", number);
    }
    assert_eq!(rig.returned(alice), [(MESSAGES_BURST, ReturnReason::RateLimited)]);
    rig.send(alice, 51, None, "BYE sip:bob SIP/2.0", 1);
    assert_eq!(rig.returned(alice), []);
}

#[test]
fn revocation_ends_links_and_sessions_with_the_bulletin() {
    let mut rig = Rig::new(|_| {});
    let (alice, bob, member) = (rig.attach(50), rig.attach(51), rig.join(10));
    let token = yodel_relay::control::Token([1; 16]);
    let control = |c: yodel_relay::control::Control| c.encode();
    rig.frame(alice, control(yodel_relay::control::Control::Open { token, allow: node(51) }));
    rig.frame(bob, control(yodel_relay::control::Control::Join { token }));
    assert_eq!(rig.node.status().relays, 1);
    rig.frame(
        alice,
        Frame::new(FrameKind::BulletinWanted, BulletinWanted { have_epoch: 5, pages_of: None }.encode()),
    );
    assert_eq!(rig.said(alice, FrameKind::Bulletin).len(), 0, "nothing newer yet");
    rig.frame(member, Frame::new(FrameKind::Bulletin, bulletin(6, &[10, 20, 30], &[51])));
    assert_eq!(rig.parting(bob), RefuseReason::Revoked);
    assert_eq!(rig.node.status().relays, 0);
    assert_eq!(rig.said(alice, FrameKind::RelayClose).len(), 1);
    assert_eq!(rig.said(alice, FrameKind::Bulletin).len(), 1, "who asked for the next gets it");
    let id = rig.accept(51);
    rig.hello(id, &device(51), LinkRole::Device, 3);
    assert_eq!(rig.refused(id).reason, RefuseReason::Revoked);
}

#[test]
fn a_silent_member_is_found_out_and_a_broken_peer_is_dropped() {
    let mut rig = Rig::new(|_| {});
    let member = rig.join(10);
    assert_eq!(rig.node.status().members, 3);
    rig.pass(crate::limits::MEMBER_PING_IDLE + crate::limits::MEMBER_SILENT + SWEEP);
    assert!(rig.closed.contains(&member));
    assert_eq!(
        (rig.node.status().members, rig.node.status().dead),
        (1, 2),
        "no datagram was answered either"
    );
    let alice = rig.attach(50);
    rig.frame(alice, Frame::new(FrameKind::Write, vec![0xff]));
    assert_eq!(rig.parting(alice), RefuseReason::Protocol);
    let alice = rig.attach(50);
    rig.frame(alice, Frame::new(FrameKind::SipForward, vec![]));
    assert_eq!(rig.parting(alice), RefuseReason::Protocol, "devices forward nothing");
}

#[test]
fn keeps_the_login_server_told_and_renews_once_the_key_is_safe() {
    let mut rig = Rig::new(|_| {});
    let server = SocketAddr::from(([198, 51, 100, 9], 4433));
    rig.leap(2 * DAY);
    rig.node.handle_command(rig.now, Command::LoginServers(vec![server]));
    rig.drain();
    let (login, _) = *rig.opened.iter().rfind(|(_, addr)| *addr == server).unwrap();
    rig.link(login, 3);
    let hello = LoginHello { statement: statement().bytes().to_vec(), time: rig.now.unix };
    rig.frame(login, hello.frame());
    let state = SupernodeState::decode(&rig.said(login, FrameKind::SupernodeState)[0]).unwrap();
    assert!(state.ready && state.udp.len() == 1);
    let wanted = BulletinWanted::decode(&rig.said(login, FrameKind::BulletinWanted)[0]).unwrap();
    assert_eq!(wanted.have_epoch, 5);
    rig.frame(login, Frame::new(FrameKind::Bulletin, bulletin(6, &[10, 20, 30], &[])));
    assert_eq!(rig.said(login, FrameKind::BulletinWanted).len(), 1, "the next one is asked for at once");

    assert_eq!(rig.said(login, FrameKind::Renew).len(), 0, "not before the new secret is safe");
    let Some(Event::StoreKeys(file)) = rig.events.pop() else { panic!() };
    let pending = NodeKeys::decode(&file).unwrap().pending.unwrap();
    rig.node.handle_command(rig.now, Command::KeysStored);
    rig.drain();
    assert_eq!(rig.said(login, FrameKind::Renew), [pending.request]);
    let mut fields = supernode(20).fields().clone();
    fields.sealing = pending.sealing.public();
    fields.not_before = rig.now.unix;
    fields.not_after = rig.now.unix + 7 * DAY;
    let renewed = Credential::issue(&key(2), fields).unwrap();
    let answer = SupernodeEnrolled {
        credential: renewed.bytes().to_vec(),
        statement: statement().bytes().to_vec(),
        bulletin: None,
    };
    rig.frame(login, answer.frame());
    let Some(Event::StoreKeys(file)) = rig.events.pop() else { panic!() };
    let keys = NodeKeys::decode(&file).unwrap();
    assert_eq!((keys.credential, keys.sealing.len(), keys.pending.is_none()), (renewed, 2, true));

    rig.node.handle_command(rig.now, Command::Stop);
    rig.drain();
    let state = SupernodeState::decode(&rig.said(login, FrameKind::SupernodeState)[0]).unwrap();
    assert!(!state.ready);
    rig.pass(LEAVE_WITHIN + FAREWELL);
    assert_eq!(rig.events.last(), Some(&Event::Stopped));
}

#[test]
fn in_a_large_realm_who_was_named_once_says_no_more() {
    let mut rig = Rig::new(|config| config.advertise_udp[0].set_port(5099));
    let server = SocketAddr::from(([198, 51, 100, 9], 4433));
    rig.node.handle_command(rig.now, Command::LoginServers(vec![server]));
    rig.drain();
    let (login, _) = *rig.opened.iter().rfind(|(_, addr)| *addr == server).unwrap();
    rig.link(login, 3);
    let hello = LoginHello { statement: statement().bytes().to_vec(), time: rig.now.unix };
    rig.frame(login, hello.frame());
    let states = |rig: &mut Rig| -> Vec<SupernodeState> {
        let said = rig.said(login, FrameKind::SupernodeState);
        said.iter().map(|body| SupernodeState::decode(body).unwrap()).collect()
    };
    assert!(!states(&mut rig)[0].named);
    // A full bulletin without us, before we were ever named at this port: we ask again.
    let others: Vec<u8> = (100..132).collect();
    rig.frame(login, Frame::new(FrameKind::Bulletin, bulletin(6, &others, &[])));
    assert_eq!(states(&mut rig).len(), 1);

    let mut rig = Rig::new(|_| {});
    rig.node.handle_command(rig.now, Command::LoginServers(vec![server]));
    rig.drain();
    let (login, _) = *rig.opened.iter().rfind(|(_, addr)| *addr == server).unwrap();
    rig.link(login, 3);
    let hello = LoginHello { statement: statement().bytes().to_vec(), time: rig.now.unix };
    rig.frame(login, hello.frame());
    assert!(SupernodeState::decode(&rig.said(login, FrameKind::SupernodeState)[0]).unwrap().named);
    rig.frame(login, Frame::new(FrameKind::Bulletin, bulletin(6, &others, &[])));
    assert_eq!(rig.said(login, FrameKind::SupernodeState).len(), 0, "others are named in turn");
    // One with room to spare has forgotten us.
    rig.frame(login, Frame::new(FrameKind::Bulletin, bulletin(7, &[10, 30], &[])));
    assert_eq!(rig.said(login, FrameKind::SupernodeState).len(), 1);
}

#[test]
fn stun_is_answered_small_and_strays_are_counted() {
    let mut rig = Rig::new(|_| {});
    let from = SocketAddr::from(([198, 51, 100, 50], 999));
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend_from_slice(&[7; 12]);
    rig.node.handle_datagram(rig.now, from, &request);
    let Output::Datagram { to, bytes } = rig.node.poll_output() else { panic!() };
    assert!(to == from && bytes.len() * 10 <= request.len() * 16);
    for stray in [&[20, 1][..], &[24], &[], &[21; 20], &[0x80; 40]] {
        rig.node.handle_datagram(rig.now, from, stray);
        assert!(matches!(rig.node.poll_output(), Output::Idle { .. }));
    }
}

#[test]
fn carries_to_the_login_server_what_a_device_asks_of_it_and_ends() {
    let mut rig = Rig::new(|_| {});
    let server = SocketAddr::from(([198, 51, 100, 9], 4433));
    let alice = rig.attach(50);
    let renew = || Frame::new(FrameKind::Renew, b"signed by the device".to_vec());
    let refused = |rig: &mut Rig| LoginRefused::decode(&rig.said(alice, FrameKind::LoginRefused)[0]).unwrap();
    rig.frame(alice, renew());
    assert_eq!(refused(&mut rig).refusal, Refusal::Unavailable, "nobody knows where the login server is");

    rig.node.handle_command(rig.now, Command::LoginServers(vec![server]));
    rig.drain();
    rig.opened.clear();
    rig.frame(alice, renew());
    rig.frame(alice, renew());
    let [(errand, addr)] = rig.opened[..] else { panic!("one link for one errand: {:?}", rig.opened) };
    assert_eq!(addr, server);
    rig.link(errand, 3);
    assert_eq!(rig.said(errand, FrameKind::Renew).len(), 0, "the server speaks first");
    let hello = LoginHello { statement: statement().bytes().to_vec(), time: rig.now.unix };
    rig.frame(errand, hello.frame());
    assert_eq!(rig.said(errand, FrameKind::Renew), [b"signed by the device"]);
    rig.frame(errand, Frame::new(FrameKind::Enrolled, b"signed by the issuer".to_vec()));
    assert_eq!(rig.said(alice, FrameKind::Enrolled), [b"signed by the issuer"]);
    rig.frame(alice, Frame::new(FrameKind::AccountRecord, b"signed by the account".to_vec()));
    assert_eq!(rig.said(errand, FrameKind::AccountRecord), [b"signed by the account"]);
    rig.frame(errand, Frame::new(FrameKind::AccountRecordKept, vec![]));
    assert!(rig.closed.contains(&errand) && rig.said(alice, FrameKind::AccountRecordKept).len() == 1);

    // A login server that never answers, and one that is somebody else.
    rig.frame(alice, renew());
    let (silent, _) = *rig.opened.last().unwrap();
    rig.link(silent, 3);
    rig.pass(crate::limits::ERRAND + SWEEP);
    assert!(rig.closed.contains(&silent));
    rig.frame(alice, renew());
    let (false_one, _) = *rig.opened.last().unwrap();
    rig.link(false_one, 99);
    assert!(rig.closed.contains(&false_one) && false_one != silent);
}

#[test]
fn a_device_whose_credential_ends_is_let_go_unless_it_shows_the_next() {
    let mut rig = Rig::new(|_| {});
    let (alice, bob) = (rig.attach(50), rig.attach(51));
    let mut fields = credential(50, device(50).subject.clone(), T0 + DAY).fields().clone();
    fields.serial = 2;
    let next = Credential::issue(&key(2), fields).unwrap();
    let hello = |credential: &Credential| Hello {
        credential: credential.bytes().to_vec(),
        role: LinkRole::Device,
        versions: (1, 1),
        epoch: 5,
        boot: [1; 16],
        announcement: None,
    };
    rig.now.unix = T0 + 2 * DAY;
    rig.frame(alice, hello(&next).encode());
    // Fresh bulletins: no grace beyond the tolerance of clocks.
    rig.now.unix = T0 + 3 * DAY + Duration::from_secs(301);
    let ended = signed_bulletin(6, rig.now.unix, &[10, 20, 30], &RevokedSet::new());
    rig.node.take_bulletin(rig.now, &ended);
    rig.drain();
    rig.pass(SWEEP + SWEEP);
    assert_eq!(rig.parting(bob), RefuseReason::Credential);
    assert!(!rig.closed.contains(&alice));
    // Somebody else's credential is no next one.
    rig.frame(alice, hello(&credential(51, device(51).subject.clone(), T0 + 2 * DAY)).encode());
    assert_eq!(rig.parting(alice), RefuseReason::Protocol);
}

#[test]
fn devices_get_the_pages_of_a_long_revoked_set_once() {
    let mut rig = Rig::new(|_| {});
    let (alice, member) = (rig.attach(50), rig.join(10));
    let set: RevokedSet = (100..=180).map(|n| (node(n), T0 + 10 * DAY)).collect();
    let pages = RevokedPage::split(&key(2), &realm_name(), &set).unwrap();
    let long = signed_bulletin(6, T0, &[10, 20, 30], &set);
    rig.frame(member, Frame::new(FrameKind::Bulletin, long));
    let wanted = BulletinWanted { have_epoch: 6, pages_of: Some(revoked_hash(&set)) }.encode();
    rig.frame(alice, Frame::new(FrameKind::BulletinWanted, wanted.clone()));
    assert_eq!(rig.said(alice, FrameKind::RevokedPage).len(), 0, "it has none itself yet");
    rig.frame(member, Frame::new(FrameKind::RevokedPage, pages[0].bytes().to_vec()));
    rig.frame(alice, Frame::new(FrameKind::BulletinWanted, wanted.clone()));
    assert_eq!(rig.said(alice, FrameKind::RevokedPage), [pages[0].bytes()]);
    rig.frame(alice, Frame::new(FrameKind::BulletinWanted, wanted));
    assert_eq!(rig.said(alice, FrameKind::RevokedPage).len(), 0);
}

#[test]
fn a_retired_sealing_key_is_wiped_after_ten_days_without_any_renewal() {
    let mut rig = Rig::new(|_| {});
    let _alice = rig.attach(50);
    let retired = KeptSealing { key: SealingKey::from_bytes([21; 32]), credential: [1; 32], retired: T0 };
    rig.node.keys.sealing.push(retired);
    rig.now.unix = T0 + 10 * DAY - Duration::from_secs(2);
    rig.pass(SWEEP);
    assert_eq!(rig.node.keys.sealing.len(), 2);
    rig.events.clear();
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.node.keys.sealing.len(), 1, "the one in use stays, however old");
    assert!(matches!(rig.events.as_slice(), [Event::StoreKeys(_)]), "{:?}", rig.events);
}
