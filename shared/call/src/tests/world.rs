//! Phones and supernodes joined by queues: each message takes a while, homes forward as the real ones do, relays are
//! real. No NAT: an address is reached or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_media::{AudioEnd, Codec, FRAME_SAMPLES, NarrowCodec};
use yodel_overlay::record::ContactEntry;
use yodel_relay::server::{LinkFacts, RelayOutput, Server, ServerConfig};
use yodel_sip::envelope::{Envelope, Return, ReturnReason};
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkId, Transport};
use yodel_wire::time::{Instant, Now};

use super::realm::{self, Keys};
use crate::call::Calls;
use crate::cause::Cause;
use crate::contacts::{Contact, Incoming, Tag};
use crate::event::{
    CallEvent, CallId, CallsOutput, CodecFactory, Config, DialOptions, Direction, Home, LookupId,
    LookupResult, MessageId, RelayLink, Role, State, Target,
};

const STEP: Duration = Duration::from_micros(100);

/// What a sound end saw.
#[derive(Default, Debug)]
pub(super) struct Sound {
    pub(super) captured: u32,
    pub(super) heard: u32,
}

struct TestEnd(Arc<Mutex<Sound>>);

impl AudioEnd for TestEnd {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        pcm.fill(0.5);
        self.0.lock().unwrap().captured += 1;
    }
    fn play(&mut self, _pcm: &[f32; FRAME_SAMPLES], heard: bool) {
        self.0.lock().unwrap().heard += u32::from(heard);
    }
}

struct Narrow;

impl CodecFactory for Narrow {
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        Some(Box::new(NarrowCodec::new()))
    }
}

/// What a phone does when it rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Shows the ring and answers after this time.
    Answer(Duration),
    Decline(Duration),
    /// Shows the ring, and no more.
    Ring,
    /// Does not even show it.
    Nothing,
}

pub(super) struct Phone {
    pub(super) calls: Calls,
    pub(super) keys: Keys,
    pub(super) addr: SocketAddr,
    pub(super) homes: Vec<u8>,
    pub(super) habit: Habit,
    pub(super) events: Vec<(Duration, CallEvent)>,
    pub(super) incoming: Vec<Incoming>,
    pub(super) done: Vec<(MessageId, Result<(), Cause>)>,
    pub(super) sound: Arc<Mutex<Sound>>,
    pub(super) contacts: Vec<Contact>,
    pub(super) sent_to: BTreeMap<SocketAddr, usize>,
}

pub(super) struct Super {
    pub(super) relay: Server,
    pub(super) echo: Calls,
    pub(super) alive: bool,
}

enum Pending {
    ToHome { from: usize, via: u8, envelope: Envelope },
    Forward { from: usize, at: u8, envelope: Envelope },
    Deliver { to: usize, via: u8, envelope: Envelope },
    Returned { to: usize, returned: Return },
    ToEcho { at: u8, envelope: Envelope },
    FromEcho { at: u8, envelope: Envelope },
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    RelayFrame { phone: usize, relay: u8, up: bool, frame: Frame },
    Looked { phone: usize, id: LookupId, aor: Aor },
    Answer { phone: usize, call: CallId },
    Decline { phone: usize, call: CallId },
    Do(Box<dyn FnOnce(&mut World)>),
}

/// What a lying home does with an envelope on its way.
pub(super) type Liar = Box<dyn FnMut(&mut Vec<Envelope>, u8)>;

pub(super) struct World {
    pub(super) realm: Realm,
    pub(super) now: Instant,
    pub(super) phones: Vec<Phone>,
    pub(super) supers: BTreeMap<u8, Super>,
    pub(super) entries: BTreeMap<NodeId, ContactEntry>,
    pub(super) lookups: u32,
    /// Answers to lookups that are not what is kept: first come, first served.
    pub(super) stale: Vec<Vec<ContactEntry>>,
    pub(super) unreachable: bool,
    /// Direct datagrams between phones pass.
    pub(super) direct: bool,
    /// Media packets from this phone are lost.
    pub(super) mute_media_from: Option<usize>,
    pub(super) liar: Option<Liar>,
    pub(super) jitter: bool,
    rng: ChaCha20Rng,
    queue: BTreeMap<(Instant, u64), Pending>,
    count: u64,
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let supers = (1..=3u8).map(|number| {
            let config = Config { role: Role::Echo, allow_loopback: false };
            let mut echo =
                Calls::new(realm::supernode_identity(number), config, Box::new(Narrow), [number; 32]);
            let now = Now { mono: Instant::ORIGIN, unix: realm::start() };
            echo.set_local_addrs(now, vec![realm::supernode_addr(number)], vec![]);
            let link = RelayLink { udp: None, exporter: [0xee; 32], transport: Transport::Quic };
            echo.relay_link(now, NodeId([number; 16]), Some(link));
            let relay = Server::new(ServerConfig::default(), [number; 32]);
            (number, Super { relay, echo, alive: true })
        });
        World {
            realm: realm::realm(3, &[]),
            now: Instant::ORIGIN,
            phones: Vec::new(),
            supers: supers.collect(),
            entries: BTreeMap::new(),
            lookups: 0,
            stale: Vec::new(),
            unreachable: false,
            direct: true,
            mute_media_from: None,
            liar: None,
            jitter: false,
            rng: ChaCha20Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            count: 0,
        }
    }

    /// Alice (phone 0) and Bob (phone 1), who know each other.
    pub(super) fn pair(seed: u64) -> World {
        let mut world = World::new(seed);
        world.add("alice", 1, 1, &[1, 2]);
        world.add("bob", 2, 2, &[2, 3]);
        world.befriend(0, 1);
        world
    }

    pub(super) fn add(&mut self, user: &str, root: u8, number: u8, homes: &[u8]) -> usize {
        let keys = Keys::new(user, root, number);
        let index = self.phones.len();
        let config = Config { role: Role::Phone, allow_loopback: false };
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let record = keys.record(&[&keys]);
        let calls = Calls::new(keys.identity(&record), config, Box::new(Narrow), seed);
        let addr = SocketAddr::from(([198, 51, 100 + number, 7], 4000));
        self.entries
            .insert(keys.node(), keys.entry(1, homes.iter().map(|home| NodeId([*home; 16])).collect()));
        self.phones.push(Phone {
            calls,
            keys,
            addr,
            homes: Vec::new(),
            habit: Habit::Answer(ms(200)),
            events: Vec::new(),
            incoming: Vec::new(),
            done: Vec::new(),
            sound: Arc::default(),
            contacts: Vec::new(),
            sent_to: BTreeMap::new(),
        });
        let now = self.now();
        self.phones[index].calls.set_local_addrs(now, vec![addr], vec![]);
        self.set_homes(index, homes);
        self.records();
        index
    }

    /// The daemon of this phone is killed and started again: it knows nothing of its calls.
    pub(super) fn restart(&mut self, phone: usize) {
        let config = Config { role: Role::Phone, allow_loopback: false };
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let record = self.record(&self.phones[phone].keys.aor.clone());
        let now = self.now();
        let at = &mut self.phones[phone];
        at.calls = Calls::new(at.keys.identity(&record), config, Box::new(Narrow), seed);
        at.calls.set_contacts(at.contacts.clone());
        at.calls.set_local_addrs(now, vec![at.addr], vec![]);
        let homes = at.homes.clone();
        self.set_homes(phone, &homes);
    }

    /// Accounts list all their devices.
    fn records(&mut self) {
        for at in 0..self.phones.len() {
            let keys = self.phones[at].keys.clone();
            let record = self.record(&keys.aor);
            self.phones[at].calls.set_identity(keys.identity(&record));
        }
    }

    pub(super) fn record(&self, aor: &Aor) -> yodel_identity::account::AccountRecord {
        let devices: Vec<&Keys> =
            self.phones.iter().map(|phone| &phone.keys).filter(|keys| keys.aor == *aor).collect();
        devices[0].record(&devices)
    }

    pub(super) fn set_homes(&mut self, phone: usize, homes: &[u8]) {
        let now = self.now();
        let list = homes.iter().map(|home| Home {
            credential: realm::supernode(*home),
            link: RelayLink {
                udp: Some(realm::supernode_addr(*home)),
                exporter: exporter(phone, *home),
                transport: Transport::Quic,
            },
        });
        self.phones[phone].homes = homes.to_vec();
        self.phones[phone].calls.set_homes(now, list.collect());
    }

    /// Both accepted each other and hold each other's tags.
    pub(super) fn befriend(&mut self, a: usize, b: usize) {
        self.accept(a, b, true);
        self.accept(b, a, true);
    }

    /// `a` accepted `b`; `b`'s tag was delivered to `a` when `held`.
    pub(super) fn accept(&mut self, a: usize, b: usize, held: bool) {
        let tag = |from: usize, to: usize| Tag([(from * 16 + to) as u8; 16]);
        let contact = Contact {
            aor: self.phones[b].keys.aor.clone(),
            root: self.phones[b].keys.credential.root().copied(),
            accepted: true,
            blocked: false,
            tag_given: Some(tag(a, b)),
            tag_held: held.then(|| tag(b, a)),
        };
        self.phones[a].contacts.retain(|known| known.aor != contact.aor);
        self.phones[a].contacts.push(contact);
        let contacts = self.phones[a].contacts.clone();
        self.phones[a].calls.set_contacts(contacts);
    }

    pub(super) fn change_contact(&mut self, phone: usize, change: impl FnOnce(&mut Contact)) {
        change(&mut self.phones[phone].contacts[0]);
        let contacts = self.phones[phone].contacts.clone();
        self.phones[phone].calls.set_contacts(contacts);
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.now, unix: realm::start() + Duration::from_micros(self.now.as_micros()) }
    }

    pub(super) fn root_of(&self, phone: usize) -> PublicKey {
        *self.phones[phone].keys.credential.root().unwrap()
    }

    // Doing.

    pub(super) fn options(&self, phone: usize) -> DialOptions {
        let audio = Box::new(TestEnd(self.phones[phone].sound.clone()));
        DialOptions { audio, relay_only: false, max: None, ring_timeout: None }
    }

    pub(super) fn dial(&mut self, from: usize, user: &str) -> CallId {
        let options = self.options(from);
        self.dial_with(from, user, options)
    }

    pub(super) fn dial_with(&mut self, from: usize, user: &str, options: DialOptions) -> CallId {
        let target = Target::Account(Aor::parse(&format!("{user}@example.net")).unwrap());
        let now = self.now();
        let id = self.phones[from].calls.dial(now, &self.realm, target, options);
        self.drain();
        id
    }

    pub(super) fn hangup(&mut self, phone: usize, call: CallId) {
        let now = self.now();
        self.phones[phone].calls.hangup(now, call);
        self.drain();
    }

    pub(super) fn later(&mut self, after: Duration, what: impl FnOnce(&mut World) + 'static) {
        self.push(after, Pending::Do(Box::new(what)));
    }

    pub(super) fn deliver(&mut self, to: usize, via: u8, envelope: Envelope) {
        self.push(ms(1), Pending::Deliver { to, via, envelope });
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.drain();
        loop {
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.phones.iter().map(|phone| phone.calls.deadline());
            let supers = self
                .supers
                .values()
                .filter(|home| home.alive)
                .flat_map(|home| [home.relay.deadline(), home.echo.deadline()]);
            let next = timers.chain(supers).flatten().chain(queued).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now();
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let pending = entry.remove();
                self.happen(pending);
                self.drain();
            }
            for at in 0..self.phones.len() {
                if self.phones[at].calls.deadline().is_some_and(|at| at <= now.mono) {
                    self.phones[at].calls.handle_timeout(now, &self.realm);
                }
            }
            for home in self.supers.values_mut() {
                if home.relay.deadline().is_some_and(|at| at <= now.mono) {
                    home.relay.handle_timeout(now);
                }
                if home.echo.deadline().is_some_and(|at| at <= now.mono) {
                    home.echo.handle_timeout(now, &self.realm);
                }
            }
            self.drain();
            self.now += STEP;
        }
        self.now = end;
    }

    fn push(&mut self, after: Duration, pending: Pending) {
        let spread = if self.jitter { u64::from(self.rng.next_u32() % 3_000) } else { 0 };
        self.count += 1;
        self.queue.insert((self.now + after + Duration::from_micros(spread), self.count), pending);
    }

    // Happening.

    fn happen(&mut self, pending: Pending) {
        let now = self.now();
        match pending {
            Pending::ToHome { from, via, envelope } => self.at_home(from, via, envelope),
            Pending::Forward { from, at, envelope } => self.at_far_home(from, at, envelope),
            Pending::Deliver { to, via, envelope } => {
                self.phones[to].calls.handle_sip(now, &self.realm, NodeId([via; 16]), envelope);
            }
            Pending::Returned { to, returned } => {
                self.phones[to].calls.handle_sip_return(now, &self.realm, &returned);
            }
            Pending::ToEcho { at, envelope } => {
                let home = self.supers.get_mut(&at).unwrap();
                if home.alive {
                    home.echo.handle_sip(now, &self.realm, NodeId([at; 16]), envelope);
                }
            }
            Pending::FromEcho { at, envelope } => {
                let to = self.phones.iter().position(|phone| phone.keys.node() == envelope.to);
                if let Some(to) = to.filter(|_| self.supers[&at].alive) {
                    self.push(ms(1), Pending::Deliver { to, via: at, envelope });
                }
            }
            Pending::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Pending::RelayFrame { phone, relay, up, frame } => self.relay_frame(phone, relay, up, frame),
            Pending::Looked { phone, id, aor } => self.looked(phone, id, &aor),
            Pending::Answer { phone, call } => {
                let end = Box::new(TestEnd(self.phones[phone].sound.clone()));
                self.phones[phone].calls.answer(now, call, end);
            }
            Pending::Decline { phone, call } => {
                self.phones[phone].calls.decline(now, call);
            }
            Pending::Do(what) => what(self),
        }
    }

    fn at_home(&mut self, from: usize, via: u8, envelope: Envelope) {
        if !self.supers.get(&via).is_some_and(|home| home.alive) || !self.phones[from].homes.contains(&via) {
            return;
        }
        let mut all = vec![envelope];
        if let Some(liar) = &mut self.liar {
            liar(&mut all, via);
        }
        for envelope in all {
            if envelope.to == NodeId([via; 16]) {
                self.push(ms(1), Pending::ToEcho { at: via, envelope });
                continue;
            }
            let at = envelope.to_home.map_or(via, |home| home.0[0]);
            self.push(ms(1), Pending::Forward { from, at, envelope });
        }
    }

    fn at_far_home(&mut self, from: usize, at: u8, envelope: Envelope) {
        if !self.supers.get(&at).is_some_and(|home| home.alive) {
            return;
        }
        let to = self.phones.iter().position(|phone| phone.keys.node() == envelope.to);
        match to.filter(|to| self.phones[*to].homes.contains(&at)) {
            Some(to) => self.push(ms(1), Pending::Deliver { to, via: at, envelope }),
            None => {
                let returned = Return {
                    id: envelope.id,
                    reason: ReturnReason::NotAttached,
                    newest_entry: None,
                    home: NodeId([at; 16]),
                };
                self.push(ms(2), Pending::Returned { to: from, returned });
            }
        }
    }

    fn looked(&mut self, phone: usize, id: LookupId, aor: &Aor) {
        let now = self.now();
        let known = self.phones.iter().any(|phone| phone.keys.aor == *aor);
        let result = if self.unreachable {
            LookupResult::Unreachable
        } else if known {
            let account = Box::new(self.record(aor));
            let entries = if self.stale.is_empty() {
                let listed = |entry: &&ContactEntry| account.device(entry.device).is_some();
                self.entries.values().filter(listed).cloned().collect()
            } else {
                self.stale.remove(0)
            };
            LookupResult::Found { account, entries, settled: true }
        } else {
            LookupResult::NoSuchAccount
        };
        self.phones[phone].calls.handle_lookup(now, &self.realm, id, result);
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let now = self.now();
        if let Some(home) = (1..=3).find(|number| realm::supernode_addr(*number) == to) {
            let home = self.supers.get_mut(&home).unwrap();
            if home.alive && matches!(bytes[0], 21 | 22) {
                home.relay.handle_datagram(now, from, &bytes);
            } else if home.alive {
                home.echo.handle_datagram(now, from, &bytes);
            }
        } else if let Some(phone) = self.phones.iter_mut().find(|phone| phone.addr == to) {
            phone.calls.handle_datagram(now, from, &bytes);
        }
    }

    fn relay_frame(&mut self, phone: usize, relay: u8, up: bool, frame: Frame) {
        let now = self.now();
        let home = self.supers.get_mut(&relay).unwrap();
        if !home.alive {
            return;
        }
        if up {
            let facts = facts(phone, relay, self.phones[phone].keys.node());
            home.relay.handle_frame(now, &facts, &frame).unwrap();
        } else {
            self.phones[phone].calls.handle_relay_frame(now, NodeId([relay; 16]), &frame);
        }
    }

    fn drain(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..self.phones.len() {
                while let Some(output) = self.phones[at].calls.poll_output() {
                    moved = true;
                    self.said(at, output);
                }
            }
            for number in 1..=3u8 {
                moved |= self.drain_super(number);
            }
            if !moved {
                break;
            }
        }
    }

    fn drain_super(&mut self, number: u8) -> bool {
        let mut moved = false;
        let now = self.now();
        let addr = realm::supernode_addr(number);
        while let Some(output) = self.supers.get_mut(&number).unwrap().relay.poll_output() {
            moved = true;
            match output {
                RelayOutput::Frame(LinkId(phone), frame) if phone == ECHO_LINK => {
                    let echo = &mut self.supers.get_mut(&number).unwrap().echo;
                    echo.handle_relay_frame(now, NodeId([number; 16]), &frame);
                }
                RelayOutput::Frame(LinkId(phone), frame) => {
                    let phone = phone as usize;
                    self.push(ms(1), Pending::RelayFrame { phone, relay: number, up: false, frame });
                }
                RelayOutput::Datagram { to, bytes } => {
                    self.push(ms(1), Pending::Datagram { from: addr, to, bytes });
                }
            }
        }
        while let Some(output) = self.supers.get_mut(&number).unwrap().echo.poll_output() {
            moved = true;
            match output {
                CallsOutput::Sip { envelope, .. } => {
                    self.push(ms(1), Pending::FromEcho { at: number, envelope });
                }
                CallsOutput::Datagram { to, bytes } => {
                    self.push(ms(1), Pending::Datagram { from: addr, to, bytes });
                }
                CallsOutput::RelayFrame { frame, .. } => {
                    let facts = LinkFacts {
                        link: LinkId(ECHO_LINK),
                        node: NodeId([number; 16]),
                        exporter: [0xee; 32],
                        transport: Transport::Quic,
                    };
                    let relay = &mut self.supers.get_mut(&number).unwrap().relay;
                    relay.handle_frame(now, &facts, &frame).unwrap();
                }
                CallsOutput::RelayLinkWanted(_)
                | CallsOutput::RelayLinkDone(_)
                | CallsOutput::Lookup { .. }
                | CallsOutput::Event(_)
                | CallsOutput::Incoming(_)
                | CallsOutput::MessageDone { .. } => {}
            }
        }
        moved
    }

    fn said(&mut self, at: usize, output: CallsOutput) {
        match output {
            CallsOutput::Sip { via_home, envelope } => {
                self.push(ms(1), Pending::ToHome { from: at, via: via_home.0[0], envelope });
            }
            CallsOutput::Datagram { to, bytes } => {
                let from = self.phones[at].addr;
                *self.phones[at].sent_to.entry(to).or_default() += 1;
                let to_phone = self.phones.iter().any(|phone| phone.addr == to);
                let media = (128..192).contains(&bytes[0]) || bytes[0] == 21;
                let lost = to_phone && !self.direct || media && self.mute_media_from == Some(at);
                if !lost {
                    self.push(ms(2), Pending::Datagram { from, to, bytes });
                }
            }
            CallsOutput::RelayLinkWanted(relay) => {
                let number = relay.0[0];
                let link = RelayLink {
                    udp: Some(realm::supernode_addr(number)),
                    exporter: exporter(at, number),
                    transport: Transport::Quic,
                };
                let wanted = Box::new(move |world: &mut World| {
                    let now = world.now();
                    world.phones[at].calls.relay_link(now, relay, Some(link));
                });
                self.push(ms(3), Pending::Do(wanted));
            }
            CallsOutput::RelayLinkDone(_) => {}
            CallsOutput::RelayFrame { relay, frame } => {
                let relay = relay.0[0];
                self.push(ms(1), Pending::RelayFrame { phone: at, relay, up: true, frame });
            }
            CallsOutput::Lookup { id, aor, .. } => {
                self.lookups += 1;
                self.push(ms(2), Pending::Looked { phone: at, id, aor });
            }
            CallsOutput::Event(event) => self.event(at, event),
            CallsOutput::Incoming(incoming) => self.phones[at].incoming.push(incoming),
            CallsOutput::MessageDone { id, result } => self.phones[at].done.push((id, result)),
        }
    }

    fn event(&mut self, at: usize, event: CallEvent) {
        let call = event.call;
        if event.direction == Direction::In && event.state == State::Contacting {
            let now = self.now();
            let habit = self.phones[at].habit;
            if habit != Habit::Nothing {
                self.phones[at].calls.ring_shown(now, call);
            }
            match habit {
                Habit::Answer(after) => self.push(after, Pending::Answer { phone: at, call }),
                Habit::Decline(after) => self.push(after, Pending::Decline { phone: at, call }),
                Habit::Ring | Habit::Nothing => {}
            }
        }
        let since = Duration::from_micros(self.now.as_micros());
        self.phones[at].events.push((since, event));
    }

    // Seeing.

    /// The states a phone showed, without figures.
    pub(super) fn states(&self, phone: usize) -> Vec<&'static str> {
        let shown = self.phones[phone].events.iter().map(|(_, event)| event.state.name());
        shown.filter(|name| !matches!(*name, "stats" | "path")).collect()
    }

    /// The causes a phone's calls ended with.
    pub(super) fn causes(&self, phone: usize) -> Vec<Cause> {
        let ended = self.phones[phone].events.iter().filter_map(|(_, event)| match &event.state {
            State::Ended(ended) => Some(ended.cause),
            _ => None,
        });
        ended.collect()
    }

    pub(super) fn paths(&self, phone: usize) -> Vec<&'static str> {
        let paths = self.phones[phone].events.iter().filter_map(|(_, event)| match &event.state {
            State::Path { path, .. } => Some(path.as_str()),
            _ => None,
        });
        paths.collect()
    }

    pub(super) fn when(&self, phone: usize, state: &str) -> Duration {
        let found = self.phones[phone].events.iter().find(|(_, event)| event.state.name() == state);
        found.unwrap_or_else(|| panic!("phone {phone} never was {state}: {:?}", self.states(phone))).0
    }

    pub(super) fn story(&self, phone: usize) -> String {
        let calls = &self.phones[phone].calls;
        let Some(timeline) = calls.last().and_then(|call| calls.timeline(call)) else { return String::new() };
        timeline.entries().iter().map(|entry| format!("{:?} {}\n", entry.at, entry.step)).collect()
    }
}

const ECHO_LINK: u64 = 1_000;

fn exporter(phone: usize, home: u8) -> [u8; 32] {
    let mut key = [home; 32];
    key[0] = phone as u8;
    key
}

fn facts(phone: usize, relay: u8, node: NodeId) -> LinkFacts {
    LinkFacts {
        link: LinkId(phone as u64),
        node,
        exporter: exporter(phone, relay),
        transport: Transport::Quic,
    }
}
