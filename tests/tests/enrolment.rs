//! The login server's machine and those who speak to it, in one thread under a hand-moved clock: sign-in of first and
//! further devices, refusals, renewal, supernodes, the bulletin, revocation, and a disk that fills up.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use yodel::homes::LinkIds;
use yodel::renew::{Renewal as PhoneRenewal, RenewalOutput};
use yodel::sign_in::{SignIn, SignInError, SignInRequest, SignedIn};
use yodel_identity::account::AccountRecord;
use yodel_identity::bulletin::{Bulletin, BulletinWanted};
use yodel_identity::credential::Credential;
use yodel_identity::invitation::Invitation;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::login::{
    AccountRecordOffer, Body, Enrolled, LoginRefused, LoginResponse, LoginStart, Refusal, Renewal,
    RenewalFields, SupernodeEnrol, SupernodeEnrolled, SupernodeState,
};
use yodel_identity::name::{Aor, RealmName};
use yodel_identity::realm::{CredentialError, Realm};
use yodel_login_server::admin::{AdminReply, AdminRequest};
use yodel_login_server::keys::ServerKeys;
use yodel_login_server::{Command, Event, LoginServer};
use yodel_store::{MemoryStore, Store};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkClosed, LinkEvent, LinkId, LinkPeer, Machine, Output, Ticket, Transport,
    Write,
};
use yodel_wire::time::{Instant, Now, UnixTime};

const START: u64 = 1_800_000_000;

fn server_keys(now: Now) -> ServerKeys {
    let realm = RealmName::parse("example.net").unwrap();
    ServerKeys::generate(realm, vec!["198.51.100.1:4433".into()], now.unix, [1; 32]).unwrap().1
}

/// A realm of one login server. Its links are queues of frames.
struct World {
    now: Now,
    store: MemoryStore,
    server: LoginServer,
    /// Commits that wait, when `hold` is set.
    held: VecDeque<(Ticket, Vec<Write>)>,
    hold: bool,
    inboxes: BTreeMap<LinkId, VecDeque<Frame>>,
    closed: Vec<LinkId>,
    next_link: u64,
    next_admin: u64,
    admin: BTreeMap<u64, AdminReply>,
    ready: bool,
}

impl World {
    fn new() -> World {
        let now = Now { mono: Instant::from_micros(1), unix: UnixTime::from_secs(START) };
        let store = MemoryStore::new();
        let server = LoginServer::new(now, server_keys(now), &store, [2; 32]).unwrap();
        let mut world = World {
            now,
            store,
            server,
            held: VecDeque::new(),
            hold: false,
            inboxes: BTreeMap::new(),
            closed: Vec::new(),
            next_link: 0,
            next_admin: 0,
            admin: BTreeMap::new(),
            ready: false,
        };
        world.drain();
        assert!(world.ready);
        world
    }

    /// `kill -9` and a new start: links are gone, what was committed stays.
    fn restart(&mut self) {
        self.now.mono = Instant::from_micros(self.now.mono.as_micros() + 1);
        self.server = LoginServer::new(
            self.now,
            server_keys(Now { unix: UnixTime::from_secs(START), ..self.now }),
            &self.store,
            [3; 32],
        )
        .unwrap();
        self.inboxes.clear();
        self.held.clear();
        self.ready = false;
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        loop {
            let Output::Idle { deadline: Some(deadline) } = self.server.poll_output() else {
                panic!("a login server always has a deadline")
            };
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
        loop {
            match self.server.poll_output() {
                Output::Commit(ticket, writes) => self.held.push_back((ticket, writes)),
                Output::Link(link, LinkAction::Write(frame)) => {
                    assert!(frame.encode(&mut Vec::new()).is_ok());
                    if let Some(inbox) = self.inboxes.get_mut(&link) {
                        inbox.push_back(frame);
                    }
                }
                Output::Link(link, LinkAction::Close) => {
                    self.closed.push(link);
                    self.inboxes.remove(&link);
                }
                Output::Link(_, LinkAction::Open(_)) | Output::Datagram { .. } => {
                    panic!("a login server calls nobody")
                }
                Output::Event(Event::Ready) => self.ready = true,
                Output::Event(Event::Admin { id, reply }) => drop(self.admin.insert(id, reply)),
                Output::Event(Event::Changed(_) | Event::NotStored) => {}
                Output::Idle { .. } => {
                    if self.hold {
                        return;
                    }
                    let Some((ticket, writes)) = self.held.pop_front() else { return };
                    let result = match self.store.commit(&writes) {
                        Ok(()) => CommitResult::Stored,
                        Err(_) => CommitResult::Failed,
                    };
                    self.server.handle_committed(self.now, ticket, result);
                }
            }
        }
    }

    fn open_from(&mut self, key: &SigningKey, addr: &str) -> LinkId {
        let link = LinkId(LinkId::ACCEPTED | self.next_link);
        self.next_link += 1;
        self.inboxes.insert(link, VecDeque::new());
        let peer = LinkPeer {
            key: key.public().0,
            exporter: exporter(link),
            addr: addr.parse().unwrap(),
            transport: Transport::Tls,
        };
        self.server.handle_link(self.now, link, LinkEvent::Opened(peer));
        self.drain();
        link
    }

    fn open(&mut self, key: &SigningKey) -> LinkId {
        let link = self.open_from(key, "203.0.113.5:40000");
        assert_eq!(self.frame(link).unwrap().kind, FrameKind::LoginHello);
        link
    }

    fn close(&mut self, link: LinkId) {
        self.inboxes.remove(&link);
        self.server.handle_link(self.now, link, LinkEvent::Closed(LinkClosed::Lost));
        self.drain();
    }

    fn frame(&mut self, link: LinkId) -> Option<Frame> {
        self.inboxes.get_mut(&link).and_then(VecDeque::pop_front)
    }

    fn say(&mut self, link: LinkId, frame: Frame) {
        self.server.handle_link(self.now, link, LinkEvent::Frame(frame));
        self.drain();
    }

    /// Says something and returns what it is answered.
    fn ask(&mut self, link: LinkId, frame: Frame) -> Frame {
        self.say(link, frame);
        self.frame(link).unwrap()
    }

    fn operate(&mut self, request: AdminRequest) -> AdminReply {
        self.next_admin += 1;
        let id = self.next_admin;
        self.server.handle_command(self.now, Command { id, request });
        self.drain();
        self.admin.remove(&id).unwrap()
    }

    fn invite(&mut self, user: Option<&str>, role: &str, uses: u64) -> Invitation {
        let request = AdminRequest::InviteCreate {
            user: user.map(str::to_owned),
            role: role.into(),
            uses,
            expires_s: 86_400,
        };
        self.operate(request).unwrap()["invite"].as_str().unwrap().parse().unwrap()
    }

    /// Runs a sign-in to its end.
    fn sign_in(
        &mut self,
        user: &str,
        invitation: &Invitation,
        password: &str,
        seed: u8,
    ) -> Result<SignedIn, SignInError> {
        self.sign_in_with(user, invitation, password, seed, server_keys(self.now).tls.public().0)
    }

    fn sign_in_with(
        &mut self,
        user: &str,
        invitation: &Invitation,
        password: &str,
        seed: u8,
        server_key: [u8; 32],
    ) -> Result<SignedIn, SignInError> {
        let request = SignInRequest {
            aor: Aor::parse(user).unwrap(),
            invitation: invitation.clone(),
            password: password.to_owned().into(),
            servers: vec!["198.51.100.1:4433".parse().unwrap()],
        };
        let mut client = SignIn::new(self.now, request, [seed; 32])?;
        let mut link = None;
        loop {
            match client.poll_output() {
                Output::Link(id, LinkAction::Open(target)) => {
                    let ours = self.open_from(&SignIn::device_key([seed; 32]), "203.0.113.5:40000");
                    link = Some((id, ours));
                    let peer = LinkPeer {
                        key: server_key,
                        exporter: exporter(ours),
                        addr: target.addr,
                        transport: Transport::Tls,
                    };
                    client.handle_link(self.now, id, LinkEvent::Opened(peer));
                }
                Output::Link(_, LinkAction::Write(frame)) => self.say(link.unwrap().1, frame),
                Output::Link(_, LinkAction::Close) => {
                    if let Some((_, ours)) = link.take() {
                        self.close(ours);
                    }
                }
                Output::Event(result) => return result,
                Output::Idle { .. } => {
                    let (theirs, ours) = link.unwrap();
                    let frame = self.frame(ours).expect("nobody has anything to say");
                    client.handle_link(self.now, theirs, LinkEvent::Frame(frame));
                }
                Output::Commit(..) | Output::Datagram { .. } => panic!("sign-in has neither"),
            }
        }
    }

    fn bulletin(&mut self) -> Value {
        self.operate(AdminRequest::BulletinShow).unwrap()
    }

    /// A supernode that serves at this address.
    fn supernode(&mut self, seed: u8, addr: &str) -> (SigningKey, LinkId, Credential) {
        let invitation = self.invite(None, "supernode", 1);
        let key = SigningKey::from_seed([seed; 32]);
        let link = self.open(&key);
        let sealing = SealingKey::from_bytes([seed; 32]).public();
        let udp: Vec<SocketAddr> = vec![addr.parse().unwrap()];
        let enrol = SupernodeEnrol { secret: invitation.secret, sealing, udp: udp.clone(), tcp: udp.clone() };
        let answer = self.ask(link, enrol.frame());
        let enrolled = SupernodeEnrolled::decode(&answer.body).unwrap();
        let credential = Credential::decode_unverified(&enrolled.credential).unwrap();
        self.say(link, SupernodeState { ready: true, udp: udp.clone(), tcp: udp, named: false }.frame());
        self.pass(Duration::from_millis(300));
        (key, link, credential)
    }
}

fn exporter(link: LinkId) -> [u8; 32] {
    [link.0 as u8; 32]
}

fn refusal(frame: &Frame) -> Refusal {
    assert_eq!(frame.kind, FrameKind::LoginRefused);
    LoginRefused::decode(&frame.body).unwrap().refusal
}

#[test]
fn first_and_further_devices_come_into_one_account() {
    let mut world = World::new();
    let invitation = world.invite(Some("alice"), "user", 1);
    let first = world.sign_in("alice@example.net", &invitation, "correct horse", 10).unwrap();
    assert!(first.new_account);
    assert_eq!(first.keys.record.version, 1);

    // The invitation is used up, but it still says where and whom to trust.
    let second = world.sign_in("alice@example.net", &invitation, "correct horse", 11).unwrap();
    assert!(!second.new_account);
    assert_eq!(second.keys.root.public(), first.keys.root.public());
    assert_ne!(second.keys.credential.node, first.keys.credential.node);
    let record = &second.keys.record;
    assert_eq!((record.version, record.devices.len()), (2, 2));
    assert!(record.lists(&first.keys.credential) && record.lists(&second.keys.credential));
    let mut realm = second.keys.realm(world.now.unix).unwrap();
    realm.accept_statement(&second.keys.statement, world.now.unix).unwrap();
    assert!(realm.verify_account_record(record.bytes(), world.now.unix).is_ok());

    let users = world.operate(AdminRequest::UserList).unwrap();
    assert_eq!(users["users"][0]["user"], json!("alice@example.net"));
    assert_eq!(users["users"][0]["devices"], json!(2));

    // All of it survives a restart, and so does the password.
    world.restart();
    let third = world.sign_in("alice@example.net", &invitation, "correct horse", 12).unwrap();
    assert_eq!((third.keys.record.version, third.keys.record.devices.len()), (3, 3));
    let nodes = [first.keys.credential.node, second.keys.credential.node];
    assert!(!nodes.contains(&third.keys.credential.node), "no slot is given twice");
}

#[test]
fn refusals_have_their_reasons() {
    let mut world = World::new();
    let alices = world.invite(Some("alice"), "user", 1);
    let anybodys = world.invite(None, "user", 5);
    let error = |result: Result<SignedIn, SignInError>| result.map(|_| ()).unwrap_err();

    let wrong = error(world.sign_in("bob@example.net", &alices, "x", 10));
    assert!(matches!(wrong, SignInError::Usage(_)), "{wrong}");
    let reserved = error(world.sign_in("echo@example.net", &anybodys, "x", 10));
    assert!(matches!(reserved, SignInError::Refused(Refusal::UserReserved)), "{reserved}");

    world.sign_in("alice@example.net", &alices, "right", 11).unwrap();
    let password = error(world.sign_in("alice@example.net", &alices, "wrong", 12));
    assert!(matches!(password, SignInError::Password), "{password}");
    assert_eq!(password.exit().code(), 4);

    let unknown = Invitation { secret: [99; 16], ..anybodys.clone() };
    let invitation = error(world.sign_in("carol@example.net", &unknown, "x", 13));
    assert!(matches!(invitation, SignInError::Refused(Refusal::Invitation)), "{invitation}");

    // Somebody in the middle with a key of his own.
    let other = error(world.sign_in_with("carol@example.net", &anybodys, "x", 14, [5; 32]));
    assert!(matches!(other, SignInError::NotTheRealm), "{other}");
    assert_eq!(other.exit().code(), 9);
    // A pin that is not the realm's.
    let pin = Invitation { pin: SigningKey::from_seed([8; 32]).public(), ..anybodys.clone() };
    let other = error(world.sign_in("carol@example.net", &pin, "x", 15));
    assert!(matches!(other, SignInError::NotTheRealm), "{other}");

    for seed in 20..27 {
        world.sign_in("alice@example.net", &alices, "right", seed).unwrap();
    }
    let full = error(world.sign_in("alice@example.net", &alices, "right", 28));
    assert!(matches!(full, SignInError::Refused(Refusal::TooManyDevices)), "{full}");

    world.operate(AdminRequest::UserSuspend { name: "alice".into(), suspended: true }).unwrap();
    let suspended = error(world.sign_in("alice@example.net", &alices, "right", 29));
    assert!(matches!(suspended, SignInError::Refused(Refusal::Suspended)), "{suspended}");
}

#[test]
fn unknown_accounts_are_answered_like_known_ones_and_guessing_is_slow() {
    let mut world = World::new();
    let invitation = world.invite(Some("alice"), "user", 1);
    world.sign_in("alice@example.net", &invitation, "right", 10).unwrap();
    let key = SigningKey::from_seed([50; 32]);
    let mut sizes = Vec::new();
    for user in ["alice", "nobody"] {
        let link = world.open(&key);
        let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([9; 32]);
        let (_, opaque) = yodel_identity::opaque::SigningIn::start(&mut rng, "guess").unwrap();
        let start = LoginStart { user: yodel_identity::name::AccountName::parse(user).unwrap(), opaque };
        let mut allowed = 0;
        loop {
            let answer = world.ask(link, start.frame());
            if answer.kind == FrameKind::LoginRefused {
                assert_eq!(refusal(&answer), Refusal::TooOften);
                break;
            }
            sizes.push(LoginResponse::decode(&answer.body).unwrap().opaque.len());
            allowed += 1;
        }
        assert_eq!(allowed, 20, "{user}");
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]));
    world.pass(Duration::from_secs(61));
    assert!(
        world.sign_in("alice@example.net", &invitation, "right", 11).is_ok(),
        "one attempt a minute is left"
    );
}

#[test]
fn renewal_is_proved_by_the_key_alone_and_repeats_gain_nothing() {
    let mut world = World::new();
    let invitation = world.invite(None, "user", 1);
    let keys = world.sign_in("alice@example.net", &invitation, "right", 10).unwrap().keys;
    // Long expired, and through a link that is somebody else's: a home's.
    world.pass(Duration::from_secs(80 * 3_600));
    let home = SigningKey::from_seed([77; 32]);
    let link = world.open(&home);
    let mut realm = keys.realm(world.now.unix).unwrap();
    let renew = |key: &SigningKey, credential: &Credential, sealing: u8, at: UnixTime| {
        let sealing = SealingKey::from_bytes([sealing; 32]).public();
        let at = UnixTime::from_secs(at.as_secs());
        Renewal::issue(key, &RenewalFields { credential: credential.clone(), sealing, at }).unwrap()
    };
    let request = renew(&keys.device, &keys.credential, 1, world.now.unix);
    let answer = world.ask(link, request.frame());
    let enrolled = Enrolled::decode(&answer.body).unwrap();
    assert!(enrolled.sealed_root.is_none(), "only the password brings the root key");
    realm.accept_bulletin(enrolled.bulletin.as_ref().unwrap(), world.now.unix).unwrap();
    assert_eq!(
        realm.verify_credential(keys.credential.bytes(), world.now.unix).unwrap_err(),
        CredentialError::Expired
    );
    let renewed = realm.verify_credential(&enrolled.credential, world.now.unix).unwrap();
    assert_eq!(renewed.node, keys.credential.node);
    assert!(renewed.serial > keys.credential.serial);
    assert_eq!(renewed.sealing, SealingKey::from_bytes([1; 32]).public());
    assert_eq!(renewed.not_after.since(world.now.unix), Duration::from_secs(72 * 3_600));

    // The same bytes get the same credential; an older request, nothing.
    let again = Enrolled::decode(&world.ask(link, request.frame()).body).unwrap();
    assert_eq!(again.credential, enrolled.credential);
    let older = renew(&keys.device, &keys.credential, 2, UnixTime::from_secs(world.now.unix.as_secs() - 1));
    assert_eq!(refusal(&world.ask(link, older.frame())), Refusal::Stale);
    let future = renew(&keys.device, &renewed, 2, world.now.unix + Duration::from_secs(3_600));
    assert_eq!(refusal(&world.ask(link, future.frame())), Refusal::Stale);
    // Somebody else's key.
    let forged = renew(&home, &keys.credential, 3, world.now.unix + Duration::from_secs(9));
    assert_eq!(refusal(&world.ask(link, forged.frame())), Refusal::Proof);

    let node = keys.credential.node.to_string();
    world.operate(AdminRequest::DeviceRevoke { device: node }).unwrap();
    world.pass(Duration::from_secs(1));
    let late = renew(&keys.device, &renewed, 4, world.now.unix);
    assert_eq!(refusal(&world.ask(link, late.frame())), Refusal::Revoked);
}

#[test]
fn a_phone_that_cannot_reach_the_login_server_renews_through_its_home() {
    let mut world = World::new();
    let invitation = world.invite(None, "user", 1);
    let keys = world.sign_in("alice@example.net", &invitation, "right", 10).unwrap().keys;
    let (home, _, _) = world.supernode(61, "198.51.100.7:5000");
    world.pass(Duration::from_secs(26 * 3_600));
    let errand = world.open(&home);
    let mut realm = keys.realm(world.now.unix).unwrap();
    let key = |key: &SigningKey| SigningKey::from_seed(*key.seed());
    let (root, device) = (key(&keys.root), key(&keys.device));
    let mut renewal =
        PhoneRenewal::new(world.now, root, device, keys.credential.clone(), keys.record.clone(), [5; 32]);
    renewal.set_servers(vec!["198.51.100.1:4433".parse().unwrap()]);
    let mut links = LinkIds::default();
    let mut renewed = None;
    renewal.handle_timeout(world.now, &mut links);
    while let Some(output) = renewal.poll_output() {
        match output {
            RenewalOutput::Keep(_) => {
                renewal.kept(world.now);
                renewal.handle_timeout(world.now, &mut links);
            }
            // Its own way is shut.
            RenewalOutput::Link(link, LinkAction::Open(_)) => {
                let closed = LinkEvent::Closed(LinkClosed::Unreachable);
                renewal.handle_link(world.now, link, closed, &mut realm);
            }
            RenewalOutput::Link(..) => panic!("no link is open"),
            RenewalOutput::ThroughHome(frame) => {
                let answer = world.ask(errand, frame);
                renewal.handle_home_frame(world.now, &answer, &mut realm);
            }
            RenewalOutput::Renewed(done) => renewed = Some(done),
        }
    }
    let renewed = renewed.unwrap();
    assert_eq!(renewed.credential.sealing, renewed.sealing.public());
    assert!(renewed.credential.not_after > keys.credential.not_after);
    assert!(renewed.record.version > keys.record.version);
    // The login server keeps the new device list too: the same again is no news to it, an older one is.
    let offer = |record: &AccountRecord| AccountRecordOffer { record: record.bytes().to_vec() }.frame();
    assert_eq!(world.ask(errand, offer(&renewed.record)).kind, FrameKind::AccountRecordKept);
    assert_eq!(refusal(&world.ask(errand, offer(&keys.record))), Refusal::Record);
    let passer_by = world.open(&SigningKey::from_seed([78; 32]));
    assert_eq!(refusal(&world.ask(passer_by, offer(&renewed.record))), Refusal::Proof);
}

#[test]
fn the_bulletin_names_who_serves_and_reaches_who_waits_within_a_second() {
    let mut world = World::new();
    let watcher = SigningKey::from_seed([60; 32]);
    let link = world.open(&watcher);
    let epoch = |frame: &Frame| Bulletin::decode_unverified(&frame.body).unwrap().epoch;
    let wanted = |have_epoch| {
        Frame::new(FrameKind::BulletinWanted, BulletinWanted { have_epoch, pages_of: None }.encode())
    };
    let first = epoch(&world.ask(link, wanted(0)));
    world.say(link, wanted(first));
    assert!(world.frame(link).is_none(), "the request stays open");

    let (key, supernode, credential) = world.supernode(61, "198.51.100.7:5000");
    let named = world.frame(link).expect("pushed");
    let bulletin = Bulletin::decode_unverified(&named.body).unwrap();
    assert!(bulletin.supernode(credential.node).is_some());
    assert!(bulletin.epoch > first);

    // A lost link, and a restart of the login server, change nothing for a quarter of an hour.
    world.close(supernode);
    world.pass(Duration::from_secs(14 * 60));
    assert_eq!(world.bulletin()["supernodes"].as_array().unwrap().len(), 1);
    let before = world.bulletin()["epoch"].as_u64().unwrap();
    world.restart();
    assert!(world.bulletin()["epoch"].as_u64().unwrap() > before, "no epoch comes twice");
    world.pass(Duration::from_secs(14 * 60));
    assert_eq!(world.bulletin()["supernodes"].as_array().unwrap().len(), 1);
    world.pass(Duration::from_secs(62));
    assert_eq!(world.bulletin()["supernodes"].as_array().unwrap().len(), 0);

    // It comes back, and is named again; says that it leaves, and is not.
    let back = world.open(&key);
    let udp = vec!["198.51.100.7:5000".parse().unwrap()];
    world.say(back, SupernodeState { ready: true, udp, tcp: vec![], named: false }.frame());
    world.pass(Duration::from_millis(999));
    assert_eq!(world.bulletin()["supernodes"].as_array().unwrap().len(), 1);
    world.say(back, SupernodeState { ready: false, udp: vec![], tcp: vec![], named: false }.frame());
    world.pass(Duration::from_millis(999));
    assert_eq!(world.bulletin()["supernodes"].as_array().unwrap().len(), 0);

    // Nothing happens for ten minutes: a fresh one all the same.
    let before = world.bulletin()["epoch"].as_u64().unwrap();
    world.pass(Duration::from_secs(601));
    assert!(world.bulletin()["epoch"].as_u64().unwrap() > before);
}

#[test]
fn a_revoked_device_is_in_the_next_bulletin_and_its_links_end() {
    let mut world = World::new();
    let invitation = world.invite(None, "user", 1);
    let keys = world.sign_in("alice@example.net", &invitation, "right", 10).unwrap().keys;
    let own = world.open(&keys.device);
    let watcher = world.open(&SigningKey::from_seed([60; 32]));
    let have_epoch = world.bulletin()["epoch"].as_u64().unwrap();
    world.say(
        watcher,
        Frame::new(FrameKind::BulletinWanted, BulletinWanted { have_epoch, pages_of: None }.encode()),
    );
    let node = keys.credential.node.to_string();
    let reply = world.operate(AdminRequest::DeviceRevoke { device: node[..8].into() }).unwrap();
    assert_eq!(reply["device"], json!(node));
    world.pass(Duration::from_millis(999));
    assert!(world.closed.contains(&own));
    let pushed = world.frame(watcher).unwrap();
    let mut realm: Realm = keys.realm(world.now.unix).unwrap();
    realm.accept_bulletin(&pushed.body, world.now.unix).unwrap();
    assert_eq!(
        realm.verify_credential(keys.credential.bytes(), world.now.unix).unwrap_err(),
        CredentialError::Revoked
    );
    assert_eq!(world.operate(AdminRequest::DeviceRevoke { device: node }).unwrap_err().exit, 5);
    // Revoked for ever after as well: the account goes on with another device.
    world.restart();
    assert!(world.sign_in("alice@example.net", &invitation, "right", 11).is_ok());
}

#[test]
fn nothing_is_answered_before_it_is_stored() {
    let mut world = World::new();
    let invitation = world.invite(None, "supernode", 1);
    world.hold = true;
    let key = SigningKey::from_seed([61; 32]);
    let link = world.open(&key);
    let sealing = SealingKey::from_bytes([1; 32]).public();
    let enrol = SupernodeEnrol { secret: invitation.secret, sealing, udp: vec![], tcp: vec![] };
    world.say(link, enrol.frame());
    assert!(world.frame(link).is_none());
    world.hold = false;
    world.drain();
    let first = SupernodeEnrolled::decode(&world.frame(link).unwrap().body).unwrap();
    // Who missed the answer asks again and gets the same; nobody else gets in with a used invitation.
    let again = SupernodeEnrolled::decode(&world.ask(link, enrol.frame()).body).unwrap();
    assert_eq!(first.credential, again.credential);
    let other = world.open(&SigningKey::from_seed([62; 32]));
    assert_eq!(refusal(&world.ask(other, enrol.frame())), Refusal::Invitation);
}

#[test]
fn what_comes_while_a_change_is_under_way_is_done_afterwards() {
    let mut world = World::new();
    let (key, link, credential) = world.supernode(61, "198.51.100.7:5000");
    world.hold = true;
    let sealing = SealingKey::from_bytes([2; 32]).public();
    let at = UnixTime::from_secs(world.now.unix.as_secs());
    let renewal =
        Renewal::issue(&key, &RenewalFields { credential: credential.clone(), sealing, at }).unwrap();
    world.say(link, renewal.frame());
    let udp = vec!["198.51.100.8:5000".parse().unwrap()];
    world.say(link, SupernodeState { ready: true, udp, tcp: vec![], named: false }.frame());
    assert!(world.frame(link).is_none());
    world.hold = false;
    world.drain();
    assert_eq!(world.frame(link).unwrap().kind, FrameKind::SupernodeEnrolled);
    world.pass(Duration::from_millis(300));
    let bulletin = world.bulletin();
    assert_eq!(bulletin["supernodes"][0]["udp"][0], json!("198.51.100.8:5000"));
    assert_eq!(bulletin["supernodes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_full_disk_refuses_and_takes_back_and_goes_on_later() {
    let mut world = World::new();
    let invitation = world.invite(None, "user", 2);
    let keys = world.sign_in("alice@example.net", &invitation, "right", 10).unwrap().keys;
    world.store.set_full(true);
    let failed = world.sign_in("bob@example.net", &invitation, "x", 11).map(|_| ()).unwrap_err();
    assert!(matches!(failed, SignInError::Refused(Refusal::Unavailable)), "{failed}");
    let node = keys.credential.node.to_string();
    assert_eq!(world.operate(AdminRequest::DeviceRevoke { device: node.clone() }).unwrap_err().exit, 1);
    assert_eq!(world.operate(AdminRequest::UserList).unwrap()["users"].as_array().unwrap().len(), 1);
    let devices = world.operate(AdminRequest::DeviceList { user: None }).unwrap();
    assert_eq!(devices["devices"][0]["state"], json!("active"), "taken back");
    world.store.set_full(false);
    assert!(world.sign_in("bob@example.net", &invitation, "x", 12).is_ok(), "the use of the invitation too");
    world.operate(AdminRequest::DeviceRevoke { device: node }).unwrap();
}

#[test]
fn a_taken_name_is_signed_in_to_and_not_opened_again() {
    let mut world = World::new();
    let invitation = world.invite(None, "user", 5);
    world.sign_in("alice@example.net", &invitation, "right", 10).unwrap();
    let second = world.sign_in("alice@example.net", &invitation, "other", 11).map(|_| ()).unwrap_err();
    assert!(matches!(second, SignInError::Password), "{second}");
    assert_eq!(
        world.operate(AdminRequest::UserShow { name: "alice".into() }).unwrap()["devices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
