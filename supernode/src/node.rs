//! The supernode's root machine.
//!
//! Driven by the contract of [`yodel_wire::machine`]. Besides the network it is fed with [`Command`]s: where the login
//! server answers ([`Command::LoginServers`], from the driver, which resolves names), that the key file was written
//! ([`Command::KeysStored`]), and what an operator asks. It tells [`Event::Ready`] once, when it holds a bulletin that
//! names it. It never routes a message onward for another home, never sends a datagram to an address that a peer named,
//! and acknowledges no record before its commit came back.
//!
//! `home.rs` attaches devices, `elsewhere.rs` sends them away, `drain.rs` all of them, `peers.rs` links members, `login.rs` keeps the login server's link,
//! `errand.rs` carries what devices ask of it, `route.rs` carries
//! SIP, `echo.rs` answers `echo`; records are the ring's (`yodel-overlay`), sessions the relay's (`yodel-relay`).

mod links;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::bulletin::RevokedPage;
use yodel_identity::limits::BULLETIN_SUPERNODES_MAX;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::attach::RefuseReason;
use yodel_overlay::ring::{From as RingPeer, Ring, RingOutput};
use yodel_relay::server::{RelayOutput, Server as Relay, ServerConfig};
use yodel_wire::first_byte::DatagramKind;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkAction, LinkEvent, LinkId, Machine, Output, Ticket, Write};
use yodel_wire::time::{Instant, Now};
use zeroize::Zeroizing;

pub(crate) use self::links::{Link, Role};
use crate::drain::Drain;
use crate::echo::{Echo, LOCAL};
use crate::errand::Errands;
use crate::home::{Device, Pages};
use crate::keys::NodeKeys;
use crate::limits::CLIENTS_MAX;
use crate::login::Login;
use crate::peers::Peer;
use crate::route::Router;

/// Tree of the store that holds records, by key.
pub const RECORDS: &str = "records";
/// Tree of the store that holds the newest bulletin, under [`BULLETIN_KEY`].
pub const REALM: &str = "realm";
/// Key of the newest bulletin in [`REALM`].
pub const BULLETIN_KEY: &[u8] = b"bulletin";

/// How often links and routes are looked through for what is overdue.
const SWEEP: Duration = Duration::from_millis(500);

/// Settings that do not change while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where others reach this supernode over UDP, as the bulletin shall say.
    pub advertise_udp: Vec<SocketAddr>,
    /// Where others reach it over TCP.
    pub advertise_tcp: Vec<SocketAddr>,
    /// Devices attached at once.
    pub clients_max: usize,
    /// What is relayed.
    pub relay: ServerConfig,
    /// Loopback addresses may be candidates: a realm that lives on one machine.
    pub allow_loopback: bool,
}

impl Config {
    /// The defaults of `limits.rs`.
    pub fn new(advertise_udp: Vec<SocketAddr>, advertise_tcp: Vec<SocketAddr>) -> Config {
        let allow_loopback = !advertise_udp.is_empty() && advertise_udp.iter().all(|a| a.ip().is_loopback());
        Config {
            advertise_udp,
            advertise_tcp,
            clients_max: CLIENTS_MAX,
            relay: ServerConfig::default(),
            allow_loopback,
        }
    }
}

/// What an earlier run stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The newest bulletin.
    pub bulletin: Option<Vec<u8>>,
    /// Records by key.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the driver and operators ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Where the login server answers now.
    LoginServers(Vec<SocketAddr>),
    /// What [`Event::StoreKeys`] asked for was done.
    KeysStored,
    /// Tell how things stand; [`Event::Status`] follows with the same number.
    Status {
        /// Comes back with the answer.
        id: u64,
    },
    /// Relay as much as this from now on.
    Relay(ServerConfig),
    /// Send newcomers elsewhere from now on, and those who are attached within this time.
    Drain {
        /// When the last one is told; who has no relayed call is told before.
        within: Duration,
    },
    /// Serve everybody again.
    Undrain,
    /// Leave in order; [`Event::Stopped`] follows at once.
    Stop,
}

/// What the driver and operators learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bulletin that names this supernode is held: it serves.
    Ready {
        /// This supernode.
        node: NodeId,
    },
    /// Write the key file, then answer with [`Command::KeysStored`].
    StoreKeys(Zeroizing<Vec<u8>>),
    /// How things stand.
    Status {
        /// As asked.
        id: u64,
        /// The answer.
        status: Status,
    },
    /// The login server's clock and ours differ by more than records allow.
    ClockOff {
        /// By how much.
        by: Duration,
    },
    /// This supernode's credential was revoked: nobody links with it any more.
    Revoked,
    /// A link to the login server came up, or ended.
    LoginServer {
        /// Which of the two.
        up: bool,
    },
    /// Records cannot be stored: the disk is full or broken.
    NotStored,
    /// Everything is said; the driver may end.
    Stopped,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This supernode.
    pub node: NodeId,
    /// Members that count now, this one among them.
    pub members: usize,
    /// Attached devices.
    pub clients: usize,
    /// Accounts whose records are kept here.
    pub records: usize,
    /// Relay sessions with both ends.
    pub relays: usize,
    /// Whether newcomers are sent elsewhere.
    pub draining: bool,
    /// Epoch of the newest bulletin.
    pub epoch: u64,
    /// Whether the link to the login server is up.
    pub login_server: bool,
    /// Counters since the start.
    pub counters: Counters,
}

/// Plain counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Devices attached.
    pub attached: u64,
    /// Links refused: credential, revoked.
    pub refused: u64,
    /// Links sent elsewhere: full, draining, too many at once.
    pub sent_away: u64,
    /// Links closed because a peer broke the protocol.
    pub protocol_errors: u64,
    /// Frames dropped because a device sent too many.
    pub frames_dropped: u64,
    /// SIP messages handed to devices here.
    pub sip_delivered: u64,
    /// SIP messages handed to other homes.
    pub sip_forwarded: u64,
    /// SIP messages sent back.
    pub sip_returned: u64,
    /// INVITEs refused because their sender sent too many.
    pub sip_limited: u64,
    /// Binding requests answered.
    pub stun_answers: u64,
    /// Datagrams that were nobody's.
    pub datagrams_stray: u64,
    /// Own credentials renewed.
    pub renewals: u64,
    /// Bulletins taken in.
    pub bulletins: u64,
}

/// See the module's text.
pub struct Supernode {
    pub(crate) me: NodeId,
    pub(crate) keys: NodeKeys,
    pub(crate) realm: Realm,
    pub(crate) config: Config,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) boot: [u8; 16],
    /// The `now` of the last input.
    pub(crate) now: Now,
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// Links that have not said who they are, the oldest first.
    pub(crate) waiting: BTreeSet<LinkId>,
    next_link: u64,
    pub(crate) devices: BTreeMap<NodeId, Device>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) login: Login,
    pub(crate) errands: Errands,
    /// Errands begun, so that they try the login server's addresses in turn.
    pub(crate) errands_run: usize,
    pub(crate) ring: Ring,
    pub(crate) relay: Relay,
    pub(crate) router: Router,
    pub(crate) echo: Echo,
    pub(crate) pages: Pages,
    pub(crate) counters: Counters,
    pub(crate) outputs: VecDeque<Output<Event>>,
    pub(crate) stopping: bool,
    pub(crate) drain: Option<Drain>,
    ready: bool,
    swept: Instant,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, u64>,
}

impl Supernode {
    /// A supernode that begins with what an earlier run stored.
    pub fn new(now: Now, keys: NodeKeys, config: Config, stored: &Stored, seed: [u8; 32]) -> Supernode {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let (relay_seed, echo_seed, boot_seed) = (draw(), draw(), draw());
        let me = keys.credential.node;
        let mut realm = Realm::new(keys.realm.clone(), keys.pin);
        // The file's statement is the pin's or is useless; a newer one comes with the first link.
        let _known = realm.accept_statement(&keys.statement, now.unix);
        let boot = boot_seed.first_chunk().copied().unwrap_or_default();
        let mut node = Supernode {
            me,
            echo: Echo::new(now, &keys, &config.advertise_udp, config.allow_loopback, echo_seed),
            relay: Relay::new(config.relay, relay_seed),
            ring: Ring::new(now, me),
            keys,
            realm,
            config,
            rng,
            boot,
            now,
            links: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next_link: 0,
            devices: BTreeMap::new(),
            peers: BTreeMap::new(),
            login: Login::default(),
            errands: Errands::default(),
            errands_run: 0,
            router: Router::default(),
            pages: Pages::default(),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            stopping: false,
            drain: None,
            ready: false,
            swept: now.mono,
            next_ticket: 0,
            tickets: BTreeMap::new(),
        };
        if let Some(bulletin) = &stored.bulletin
            && node.realm.accept_bulletin(bulletin, now.unix) == Ok(true)
        {
            node.apply_bulletin(now, &BTreeSet::new());
        }
        for (key, value) in &stored.records {
            if let Ok(key) = <[u8; 16]>::try_from(key.as_slice()) {
                node.ring.load(&node.realm, key, value, now);
            }
        }
        node.pump(now);
        node
    }

    /// This supernode's id.
    pub fn node(&self) -> NodeId {
        self.me
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        Status {
            node: self.me,
            members: self.ring.live().len(),
            clients: self.devices.len(),
            records: self.ring.records(),
            relays: self.relay.sessions(),
            draining: self.is_leaving(),
            epoch: self.realm.epoch(),
            login_server: self.login.is_up(),
            counters: self.counters,
        }
    }

    pub(crate) fn draw_link(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        id
    }

    pub(crate) fn act(&mut self, id: LinkId, action: LinkAction) {
        self.outputs.push_back(Output::Link(id, action));
    }

    pub(crate) fn write(&mut self, id: LinkId, frame: Frame) {
        if self.links.contains_key(&id) {
            self.act(id, LinkAction::Write(frame));
        }
    }

    /// A bulletin came from the login server or from a member.
    pub(crate) fn take_bulletin(&mut self, now: Now, bytes: &[u8]) {
        let before: BTreeSet<NodeId> = self.realm.revoked().keys().copied().collect();
        if self.realm.accept_bulletin(bytes, now.unix) != Ok(true) {
            return;
        }
        self.counters.bulletins += 1;
        self.commit(0, REALM, BULLETIN_KEY.to_vec(), Some(bytes.to_vec()));
        self.apply_bulletin(now, &before);
        self.pass_on(FrameKind::Bulletin, bytes);
    }

    /// A page of the revoked set came.
    pub(crate) fn take_page(&mut self, now: Now, bytes: &[u8]) {
        let before: BTreeSet<NodeId> = self.realm.revoked().keys().copied().collect();
        if self.realm.accept_revoked_page(bytes, now.unix).is_ok() {
            if let Ok(page) = RevokedPage::decode_unverified(bytes) {
                self.pages.keep(&page);
            }
            self.end_revoked(now, &before);
        }
    }

    /// Members pass a bulletin on, and devices that asked for the next get it.
    fn pass_on(&mut self, kind: FrameKind, bytes: &[u8]) {
        let frame = Frame::new(kind, bytes.to_vec());
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in peers {
            self.write_member(node, frame.clone());
        }
        let mut waiting = Vec::new();
        for (node, device) in &mut self.devices {
            if std::mem::take(&mut device.wants_bulletin) {
                waiting.push(*node);
            }
        }
        for node in waiting {
            self.write_device(node, frame.clone());
        }
    }

    fn apply_bulletin(&mut self, now: Now, revoked_before: &BTreeSet<NodeId>) {
        self.end_revoked(now, revoked_before);
        self.set_members(now);
        let Some(bulletin) = self.realm.bulletin() else { return };
        let entry = bulletin.supernode(self.me);
        // Named where it is now, not where an earlier run was.
        let named = entry.is_some_and(|entry| {
            entry.udp == self.config.advertise_udp && entry.tcp == self.config.advertise_tcp
        });
        // In a large realm bulletins name others in turn; who was named once is content.
        let in_turn = entry.is_none() && bulletin.supernodes.len() >= BULLETIN_SUPERNODES_MAX;
        let content = named || (in_turn && self.ready);
        if named && !std::mem::replace(&mut self.ready, true) {
            self.outputs.push_back(Output::Event(Event::Ready { node: self.me }));
        }
        if !content && self.login.is_up() && !self.stopping {
            // The server forgot us, or dropped us while we were away.
            self.say_state(true);
        }
    }

    /// Whether a bulletin named this supernode, as it is reached now, since it started.
    pub(crate) fn was_named(&self) -> bool {
        self.ready
    }

    /// Ends links, record entries and relay sessions of whom was revoked since.
    fn end_revoked(&mut self, now: Now, before: &BTreeSet<NodeId>) {
        let revoked: Vec<NodeId> =
            self.realm.revoked().keys().copied().filter(|node| !before.contains(node)).collect();
        for node in &revoked {
            self.relay.revoke(*node);
            if *node == self.me {
                self.outputs.push_back(Output::Event(Event::Revoked));
            }
        }
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| match link.role {
                Role::Device(node) | Role::Dialing(node) | Role::Member(node) => revoked.contains(&node),
                Role::Waiting | Role::Login | Role::Errand => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.goodbye(now, link, RefuseReason::Revoked, Duration::ZERO);
        }
        if !revoked.is_empty() {
            self.ring.sweep_now(now, &self.realm);
        }
    }

    /// Asks for a commit; `ring` is the ring's number for it, 0 when nobody waits.
    fn commit(&mut self, ring: u64, tree: &'static str, key: Vec<u8>, value: Option<Vec<u8>>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, ring);
        let write = Write { tree, key, value, journaled: false };
        self.outputs.push_back(Output::Commit(ticket, vec![write]));
    }

    /// Carries out what the parts want, until none wants anything.
    fn pump(&mut self, now: Now) {
        self.now = now;
        let mut more = true;
        while more {
            more = self.drain_echo(now);
            while let Some(output) = self.ring.poll_output() {
                more = true;
                match output {
                    RingOutput::Send { to: RingPeer::Device(node), frame } => {
                        self.write_device(node, frame);
                    }
                    RingOutput::Send { to: RingPeer::Member(node), frame } => {
                        self.write_member(node, frame);
                    }
                    RingOutput::Commit { number, key, value } => {
                        self.commit(number, RECORDS, key.to_vec(), value);
                    }
                    // The supernode looks nothing up for itself.
                    RingOutput::Looked { .. } => {}
                }
            }
            while let Some(output) = self.relay.poll_output() {
                more = true;
                match output {
                    RelayOutput::Frame(LOCAL, frame) => self.relay_to_echo(now, &frame),
                    RelayOutput::Frame(link, frame) => self.write(link, frame),
                    RelayOutput::Datagram { to, bytes } => {
                        self.outputs.push_back(Output::Datagram { to, bytes });
                    }
                }
            }
        }
    }

    fn stop(&mut self, now: Now) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        self.say_state(false);
        self.relay.set_draining(true);
        self.pump(now);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            match self.links.get(&id).map(|link| link.role) {
                Some(Role::Device(node)) => self.send_off(now, node),
                Some(Role::Member(_)) => {
                    self.goodbye(now, id, RefuseReason::Draining, crate::limits::COME_BACK);
                }
                Some(Role::Waiting | Role::Dialing(_) | Role::Login | Role::Errand) => self.close(now, id),
                None => {}
            }
        }
        self.outputs.push_back(Output::Event(Event::Stopped));
    }

    fn deadline(&self) -> Option<Instant> {
        let pings = self.links.values().filter_map(|link| match link.role {
            Role::Member(_) | Role::Login if link.peer.is_some() && link.ping.is_none() => {
                Some(link.next_ping)
            }
            Role::Member(_)
            | Role::Login
            | Role::Errand
            | Role::Waiting
            | Role::Device(_)
            | Role::Dialing(_) => None,
        });
        let sweep = (!self.links.is_empty()).then_some(self.swept + SWEEP);
        [
            self.ring.deadline(self.now),
            self.relay.deadline(),
            self.router.deadline(),
            self.echo.calls.deadline(),
            self.login_deadline(),
            self.dial_deadline(),
            self.drain_deadline(),
            pings.min(),
            sweep,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Machine for Supernode {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let known = match DatagramKind::of(datagram) {
            DatagramKind::Stun => match yodel_nat::server::answer(from, datagram) {
                Some(bytes) => {
                    self.counters.stun_answers += 1;
                    self.outputs.push_back(Output::Datagram { to: from, bytes });
                    true
                }
                None => self.echo.calls.handle_datagram(now, from, datagram),
            },
            DatagramKind::RelayData | DatagramKind::RelayControl => {
                self.relay.handle_datagram(now, from, datagram);
                true
            }
            DatagramKind::Media => self.echo.calls.handle_datagram(now, from, datagram),
            DatagramKind::Overlay | DatagramKind::PathProbe | DatagramKind::Quic | DatagramKind::Reserved => {
                false
            }
        };
        if !known {
            self.counters.datagrams_stray += 1;
        }
        self.pump(now);
    }

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        self.now = now;
        match event {
            LinkEvent::Opened(peer) => self.opened(now, link, peer),
            LinkEvent::Frame(frame) => self.frame(now, link, &frame),
            LinkEvent::Closed(_) => self.closed(now, link),
        }
        self.pump(now);
    }

    fn handle_command(&mut self, now: Now, command: Command) {
        self.now = now;
        match command {
            Command::LoginServers(addrs) => {
                self.login.addrs = addrs;
                self.open_login(now);
            }
            Command::KeysStored => self.keys_stored(),
            Command::Status { id } => {
                let status = self.status();
                self.outputs.push_back(Output::Event(Event::Status { id, status }));
            }
            Command::Relay(config) => self.relay.set_config(config),
            Command::Drain { within } => self.drain(now, within),
            Command::Undrain => self.undrain(),
            Command::Stop => self.stop(now),
        }
        self.pump(now);
    }

    fn handle_committed(&mut self, now: Now, ticket: Ticket, result: CommitResult) {
        let Some(ring) = self.tickets.remove(&ticket) else { return };
        let stored = result == CommitResult::Stored;
        if !stored {
            self.outputs.push_back(Output::Event(Event::NotStored));
        }
        if ring != 0 {
            self.ring.handle_committed(ring, stored);
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        if now.mono >= self.swept + SWEEP {
            self.swept = now.mono;
            self.sweep_links(now);
            self.wipe_old_keys(now);
        }
        self.drain_some(now);
        self.sweep_routes(now);
        self.ping_links(now);
        self.dial_members(now);
        self.open_login(now);
        self.renew_if_due(now);
        self.ring.handle_timeout(now, &self.realm);
        self.relay.handle_timeout(now);
        self.echo.calls.handle_timeout(now, &self.realm);
        self.pump(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.outputs.pop_front().unwrap_or_else(|| Output::Idle { deadline: self.deadline() })
    }
}

#[cfg(test)]
mod tests;
