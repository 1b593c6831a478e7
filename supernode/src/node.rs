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

mod interface;
mod links;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::bulletin::RevokedPage;
use yodel_identity::keys::SigningKey;
use yodel_identity::limits::BULLETIN_SUPERNODES_MAX;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::attach::RefuseReason;
use yodel_overlay::card::CardError;
use yodel_overlay::card::Service;
use yodel_overlay::directory::Directory;
use yodel_overlay::membership::Own;
use yodel_overlay::ring::{From as RingPeer, Ring, RingOutput};
use yodel_relay::server::{RelayOutput, Server as Relay};
use yodel_wire::first_byte::DatagramKind;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkAction, LinkEvent, LinkId, Machine, Output, Ticket, Write};
use yodel_wire::time::{Instant, Now};

pub use self::interface::{
    BULLETIN_KEY, Command, Config, Counters, Event, INCARNATION_KEY, KnownMembers, MEMBERS, MemberSeen,
    REALM, RECORDS, SharedMembers, Status, Stored,
};
pub(crate) use self::links::{Link, Role};
use crate::drain::Drain;
use crate::echo::{Echo, LOCAL};
use crate::errand::Errands;
use crate::home::{Device, Pages};
use crate::join::Join;
use crate::keys::NodeKeys;
use crate::limits::{FAREWELL, LEAVE_WITHIN};
use crate::login::Login;
use crate::peers::Peer;
use crate::route::Router;

/// How often links and routes are looked through for what is overdue.
const SWEEP: Duration = Duration::from_millis(500);

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
    pub(crate) join: Join,
    pub(crate) relay: Relay,
    pub(crate) router: Router,
    pub(crate) echo: Echo,
    pub(crate) pages: Pages,
    pub(crate) counters: Counters,
    pub(crate) outputs: VecDeque<Output<Event>>,
    pub(crate) stopping: bool,
    /// When everything is said.
    gone_at: Option<Instant>,
    pub(crate) drain: Option<Drain>,
    ready: bool,
    swept: Instant,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, u64>,
}

impl Supernode {
    /// A supernode that begins with what an earlier run stored.
    ///
    /// # Errors
    /// The credential is not a supernode's, or the addresses cannot be told to others.
    pub fn new(
        now: Now,
        keys: NodeKeys,
        config: Config,
        stored: &Stored,
        seed: [u8; 32],
    ) -> Result<Supernode, CardError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let (relay_seed, echo_seed, boot_seed, ring_seed) = (draw(), draw(), draw(), draw());
        let me = keys.credential.node;
        let mut realm = Realm::new(keys.realm.clone(), keys.pin);
        // The file's statement is the pin's or is useless; a newer one comes with the first link.
        let _known = realm.accept_statement(&keys.statement, now.unix);
        let boot = boot_seed.first_chunk().copied().unwrap_or_default();
        let mut node = Supernode {
            me,
            echo: Echo::new(now, &keys, &config.advertise_udp, config.allow_loopback, echo_seed),
            relay: Relay::new(config.relay, relay_seed),
            ring: new_ring(now, &keys, &config, stored, ring_seed)?,
            join: Join::new(now.mono),
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
            gone_at: None,
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
        match &stored.members {
            KnownMembers::Cards(cards) => {
                for card in cards {
                    node.ring.learn(now, &node.realm, card);
                }
            }
            KnownMembers::Shared(shared) => node.load_members(now, shared),
        }
        for (key, value) in &stored.records {
            if let Ok(key) = <[u8; 16]>::try_from(key.as_slice()) {
                node.ring.load(&node.realm, key, value, now);
            }
        }
        node.pump(now);
        Ok(node)
    }

    /// These are members that another node of this process knows.
    pub fn load_members(&mut self, now: Now, members: &SharedMembers) {
        members.directory.hold_all(&members.slots);
        self.ring.load_members(now, &members.slots);
        self.pump(now);
    }

    /// The ring, for whoever watches it.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// This supernode's id.
    pub fn node(&self) -> NodeId {
        self.me
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        Status {
            node: self.me,
            members: self.ring.membership().count(),
            dead: self.ring.membership().dead(),
            agreements: self.ring.agreements(),
            clients: self.devices.len(),
            records: self.ring.records(),
            relays: self.relay.sessions(),
            draining: self.is_leaving(),
            epoch: self.realm.epoch(),
            login_server: self.login.is_up(),
            counters: self.counters,
        }
    }

    /// Everybody in the table, by ascending node id.
    fn members(&self) -> Vec<MemberSeen> {
        let membership = self.ring.membership();
        let mut members: Vec<MemberSeen> = membership
            .known()
            .filter_map(|(slot, health)| {
                let card = membership.directory().card(slot)?;
                Some(MemberSeen {
                    node: card.node(),
                    health,
                    incarnation: card.announcement().incarnation,
                    udp: card.announcement().udp.clone(),
                    rtt: membership.rtt(slot),
                })
            })
            .collect();
        members.sort_by_key(|member| member.node);
        members
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
        let hash = |realm: &Realm| realm.bulletin().map(|bulletin| bulletin.revoked_hash);
        let hash_before = hash(&self.realm);
        if self.realm.accept_bulletin(bytes, now.unix) != Ok(true) {
            return;
        }
        self.counters.bulletins += 1;
        self.commit(0, REALM, BULLETIN_KEY.to_vec(), Some(bytes.to_vec()));
        self.apply_bulletin(now, &before);
        let urgent = hash(&self.realm) != hash_before;
        self.pass_on(FrameKind::Bulletin, bytes, urgent);
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

    /// Members pass a bulletin on at once when it takes somebody's credential back, and devices that asked for the next
    /// get it.
    fn pass_on(&mut self, kind: FrameKind, bytes: &[u8], urgent: bool) {
        let frame = Frame::new(kind, bytes.to_vec());
        // The others see by our pings that there is a newer one, and fetch it, once each: while members come and go every
        // second, everybody would be told the same 10 KiB by everybody.
        let linked = self.peers.iter().filter(|(_, peer)| urgent && !peer.links.is_empty());
        let linked: Vec<NodeId> = linked.map(|(node, _)| *node).collect();
        for node in linked {
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
        self.ring.set_epoch(self.realm.epoch());
        self.join_soon(now);
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
            self.ring.revoked(now, *node);
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
        self.commit_all(ring, vec![Write { tree, key, value, journaled: false }]);
    }

    /// As [`commit`](Self::commit), of several writes together.
    pub(crate) fn commit_all(&mut self, ring: u64, writes: Vec<Write>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, ring);
        self.outputs.push_back(Output::Commit(ticket, writes));
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
                        if !self.write_member(node, frame) {
                            self.ring.link_failed(now, &self.realm, node);
                        }
                    }
                    RingOutput::Datagram { to, bytes } => {
                        self.outputs.push_back(Output::Datagram { to, bytes });
                    }
                    RingOutput::Commit { number, key, value } => {
                        self.commit(number, RECORDS, key.to_vec(), value);
                    }
                    RingOutput::Looked { id, result, report } => {
                        let result = Box::new(result);
                        self.outputs.push_back(Output::Event(Event::Looked { id, result, report }));
                    }
                    RingOutput::Behind(node) => self.fetch_bulletin(now, node),
                    RingOutput::Expected(node) => self.warm_member(node),
                    RingOutput::Incarnation(number) => {
                        let value = Some(number.to_be_bytes().to_vec());
                        self.commit(0, REALM, INCARNATION_KEY.to_vec(), value);
                    }
                    RingOutput::Changed { node, from: _, to } => self.member_changed(now, node, to),
                    RingOutput::Left => self.left(now),
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
        let devices: Vec<NodeId> = self.devices.keys().copied().collect();
        for node in devices {
            self.send_off(now, node);
        }
        self.ring.leave(now, LEAVE_WITHIN);
        self.pump(now);
    }

    /// Records are handed over and the others are being told: the rest is farewells.
    fn left(&mut self, now: Now) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            match self.links.get(&id).map(|link| link.role) {
                Some(Role::Device(_) | Role::Member(_)) => {
                    self.goodbye(now, id, RefuseReason::Draining, crate::limits::COME_BACK);
                }
                Some(Role::Waiting | Role::Dialing(_) | Role::Login | Role::Errand) => self.close(now, id),
                None => {}
            }
        }
        self.gone_at = Some(now.mono + FAREWELL);
    }

    fn deadline(&self) -> Option<Instant> {
        let pings = self
            .pinged_links()
            .filter(|(_, link)| link.peer.is_some() && link.ping.is_none())
            .map(|(_, link)| link.next_ping);
        let sweep = (!self.links.is_empty() || !self.peers.is_empty()).then_some(self.swept + SWEEP);
        [
            self.ring.deadline(),
            self.relay.deadline(),
            self.router.deadline(),
            self.echo.calls.deadline(),
            self.login_deadline(),
            self.join_deadline(),
            self.dial_deadline(),
            self.gone_at,
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
            DatagramKind::Stun => {
                match yodel_nat::server::answer_probe(from, datagram, || self.stay_away()) {
                    Some(bytes) => {
                        self.counters.stun_answers += 1;
                        self.outputs.push_back(Output::Datagram { to: from, bytes });
                        true
                    }
                    None => self.echo.calls.handle_datagram(now, from, datagram),
                }
            }
            DatagramKind::RelayData | DatagramKind::RelayControl => {
                self.relay.handle_datagram(now, from, datagram);
                true
            }
            DatagramKind::Media => self.echo.calls.handle_datagram(now, from, datagram),
            DatagramKind::Overlay => {
                self.ring.handle_datagram(now, &self.realm, datagram);
                true
            }
            DatagramKind::PathProbe | DatagramKind::Quic | DatagramKind::Reserved => false,
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
            Command::Lookup { id, key, past_cache } => {
                self.ring.lookup(now, &self.realm, id, key, past_cache);
            }
            Command::Members { id } => {
                let members = self.members();
                self.outputs.push_back(Output::Event(Event::Members { id, members }));
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
            self.ring.handle_committed(now, ring, stored);
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        if now.mono >= self.swept + SWEEP {
            self.swept = now.mono;
            self.sweep_links(now);
            self.tidy_peers(now);
            self.wipe_old_keys(now);
        }
        self.drain_some(now);
        self.sweep_routes(now);
        self.ping_links(now);
        if self.gone_at.is_some_and(|at| now.mono >= at) {
            self.gone_at = None;
            self.outputs.push_back(Output::Event(Event::Stopped));
        }
        self.dial_second(now);
        self.join_if_due(now);
        self.store_members(now);
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

/// The ring that this supernode takes part in, with itself as the only member so far.
fn new_ring(
    now: Now,
    keys: &NodeKeys,
    config: &Config,
    stored: &Stored,
    seed: [u8; 32],
) -> Result<Ring, CardError> {
    let directory = match &stored.members {
        KnownMembers::Cards(_) => Directory::new(),
        KnownMembers::Shared(shared) => shared.directory.clone(),
    };
    let own = Own {
        key: SigningKey::from_seed(*keys.signing.seed()),
        credential: keys.credential.clone(),
        udp: config.advertise_udp.clone(),
        tcp: config.advertise_tcp.clone(),
        incarnation: stored.incarnation + 1,
        service: Service::Alive,
    };
    Ring::new(now, directory, own, &keys.sealing_keys(), seed, config.ring)
}

#[cfg(test)]
mod tests;
