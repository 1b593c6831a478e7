//! `kill -9` of the login server at 50 random moments while supernodes enrol and renew and people sign in as fast as
//! they can: what was acknowledged is there after the next start, every time.
//!
//! `YODEL_SEED` sets the moments; the seed used is printed.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel::sign_in::{SignIn, SignInRequest};
use yodel_identity::credential::Credential;
use yodel_identity::invitation::Invitation;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::login::{Body, Renewal, RenewalFields, SupernodeEnrol, SupernodeEnrolled};
use yodel_identity::name::Aor;
use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, drive};
use yodel_tests::lab::realm::{Realm, Where};
use yodel_wire::frame::FrameKind;
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkEvent, LinkId, LinkTarget, Machine, Output, Ticket, Transport,
};
use yodel_wire::time::{Instant, Now, UnixTime};

const ROUNDS: u32 = 50;
const SUPERNODES: usize = 30;
const PEOPLE: usize = 2;
/// A kill comes within this after the load began; an enrolment takes about 10 ms under it.
const KILL_WITHIN_MS: u64 = 250;

/// What was acknowledged: the newest serial number by node id, and how many credentials in all.
#[derive(Default)]
struct Acknowledged {
    serials: BTreeMap<String, u64>,
    credentials: u64,
}

type Shared = Arc<Mutex<Acknowledged>>;

fn acknowledge(shared: &Shared, node: String, serial: u64) {
    let mut acknowledged = shared.lock().unwrap();
    acknowledged.serials.insert(node, serial);
    acknowledged.credentials += 1;
}

/// A supernode that enrols and then renews for as long as it is answered.
struct Enroller {
    now: Now,
    addr: SocketAddr,
    secret: [u8; 16],
    key: SigningKey,
    renewals: u64,
    outputs: VecDeque<Output<Option<(String, u64)>>>,
}

impl Enroller {
    fn new(now: Now, addr: SocketAddr, secret: [u8; 16], key: SigningKey) -> Enroller {
        let target = LinkTarget { addr, transport: Transport::Tls, key: None };
        let open = Output::Link(LinkId(0), LinkAction::Open(target));
        Enroller { now, addr, secret, key, renewals: 0, outputs: VecDeque::from([open]) }
    }

    fn frame(&mut self, kind: FrameKind, body: &[u8]) {
        let frame = match kind {
            FrameKind::LoginHello => {
                let sealing = SealingKey::from_bytes([1; 32]).public();
                let addrs = vec![self.addr];
                SupernodeEnrol { secret: self.secret, sealing, udp: addrs.clone(), tcp: addrs }.frame()
            }
            FrameKind::SupernodeEnrolled => {
                let enrolled = SupernodeEnrolled::decode(body).unwrap();
                let credential = Credential::decode_unverified(&enrolled.credential).unwrap();
                let told = (credential.node.to_string(), credential.serial);
                self.outputs.push_back(Output::Event(Some(told)));
                self.renewals += 1;
                let sealing = SealingKey::from_bytes([self.renewals as u8; 32]).public();
                // Each request is newer than the last by the node's own clock.
                let at = UnixTime::from_secs(self.now.unix.as_secs() + self.renewals);
                Renewal::issue(&self.key, &RenewalFields { credential, sealing, at }).unwrap().frame()
            }
            // Asked too often: this one is done.
            _ => return self.outputs.push_back(Output::Event(None)),
        };
        self.outputs.push_back(Output::Link(LinkId(0), LinkAction::Write(frame)));
    }
}

impl Machine for Enroller {
    type Command = ();
    type Event = Option<(String, u64)>;

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, _: &[u8]) {}

    fn handle_link(&mut self, _: Now, _: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Opened(_) => {}
            LinkEvent::Frame(frame) => self.frame(frame.kind, &frame.body),
            LinkEvent::Closed(_) => self.outputs.push_back(Output::Event(None)),
        }
    }

    fn handle_command(&mut self, _: Now, (): ()) {}
    fn handle_committed(&mut self, _: Now, _: Ticket, _: CommitResult) {}
    fn handle_timeout(&mut self, _: Now) {}

    fn poll_output(&mut self) -> Output<Self::Event> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: None::<Instant> })
    }
}

fn endpoint(key: &SigningKey) -> Endpoint {
    Endpoint::bind(EndpointConfig {
        identity_seed: key.seed(),
        udp: None,
        tcp: Vec::new(),
        limits: EndpointLimits::PHONE,
    })
    .unwrap()
}

async fn enrol(addr: SocketAddr, invitation: Arc<Invitation>, seed: [u8; 32], acknowledged: Shared) {
    let key = SigningKey::from_seed(seed);
    let clock = Clock::start();
    let machine = Enroller::new(clock.now(), addr, invitation.secret, key.clone());
    let (_commands, queue) = tokio::sync::mpsc::channel(1);
    let told = |event| match event {
        Some((node, serial)) => {
            acknowledge(&acknowledged, node, serial);
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    };
    let _ = drive(machine, endpoint(&key), clock, None, queue, told).await;
}

/// On a thread of its own: the password's hash takes a tenth of a second and the others must not wait for it.
fn sign_in(addr: SocketAddr, invitation: &Invitation, seed: [u8; 32], acknowledged: &Shared) {
    let clock = Clock::start();
    let name: String = seed.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let request = SignInRequest {
        aor: Aor::parse(&format!("u{name}@example.net")).unwrap(),
        invitation: invitation.clone(),
        password: "correct horse".to_owned().into(),
        servers: vec![addr],
    };
    let machine = SignIn::new(clock.now(), request, seed).unwrap();
    let (_commands, queue) = tokio::sync::mpsc::channel(1);
    let done = |result: Result<yodel::sign_in::SignedIn, _>| {
        if let Ok(signed_in) = result {
            let credential = &signed_in.keys.credential;
            acknowledge(acknowledged, credential.node.to_string(), credential.serial);
        }
        ControlFlow::Break(())
    };
    yodel_net::runtime().unwrap().block_on(async {
        let _ = drive(machine, endpoint(&SignIn::device_key(seed)), clock, None, queue, done).await;
    });
}

#[test]
fn real_kill_of_the_login_server_loses_nothing_acknowledged() {
    let seed = std::env::var("YODEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(3);
    println!("YODEL_SEED={seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = std::env::temp_dir().join(format!("yodel-kill-login-{}", std::process::id()));
    let mut realm = Realm::start(&dir, false, Where::Here, addr).unwrap();
    let invite = |role: &str| {
        let text = realm.invite(&["--role", role, "--uses", "1000000"]).unwrap();
        Arc::new(text.parse::<Invitation>().unwrap())
    };
    let (supernodes, people) = (invite("supernode"), invite("user"));
    let runtime = yodel_net::runtime().unwrap();
    let acknowledged = Shared::default();
    let mut killed_while_busy = 0;

    for round in 0..ROUNDS {
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let kill_at = Duration::from_millis(5 + u64::from(draw()[0]) * KILL_WITHIN_MS / 255);
        let server = realm.login.as_mut().unwrap();
        let signing_in: Vec<_> = (0..PEOPLE)
            .map(|_| {
                let (people, seed, acknowledged) = (people.clone(), draw(), acknowledged.clone());
                std::thread::spawn(move || sign_in(addr, &people, seed, &acknowledged))
            })
            .collect();
        runtime.block_on(async {
            let mut load = tokio::task::JoinSet::new();
            for _ in 0..SUPERNODES {
                load.spawn(enrol(addr, supernodes.clone(), draw(), acknowledged.clone()));
            }
            tokio::time::sleep(kill_at).await;
            server.kill();
            killed_while_busy += u32::from(!load.is_empty());
            load.shutdown().await;
        });
        // Those who were cut off find nobody to connect to, and give up before the next start.
        for person in signing_in {
            person.join().unwrap();
        }
        realm.run_login_server().unwrap();
        let listed = realm.login_server(&["device", "list"]).unwrap();
        let stored: BTreeMap<&str, u64> = listed["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| (device["node"].as_str().unwrap(), device["serial"].as_u64().unwrap()))
            .collect();
        for (node, serial) in &acknowledged.lock().unwrap().serials {
            let found = stored.get(node.as_str());
            assert!(
                found.is_some_and(|stored| stored >= serial),
                "round {round}: {node} was told {serial} and {found:?} is stored"
            );
        }
    }
    let acknowledged = acknowledged.lock().unwrap();
    let (nodes, credentials) = (acknowledged.serials.len(), acknowledged.credentials);
    println!(
        "{nodes} nodes, {credentials} credentials acknowledged, {killed_while_busy} of {ROUNDS} kills under load"
    );
    assert!(credentials > 200, "too little load to mean anything: {credentials}");
    assert!(killed_while_busy > ROUNDS / 2);
}
