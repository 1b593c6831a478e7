//! The phone's root machine: routes commands, links and datagrams to its parts, and holds nothing else.
//!
//! | part | subject |
//! |---|---|
//! | [`Homes`] | two attachments kept warm; relays attached to for a session |
//! | [`Publisher`] | the own contact entry and account record |
//! | [`Lookups`] | other people's records |
//! | [`Book`] | contacts, requests, tags |
//! | [`Gatherer`] | where the one UDP socket is seen |
//! | [`Renewal`] | the next credential, before this one ends |
//! | [`Refetch`] | the bulletin from the login server, while no supernode answers |
//! | [`Calls`] | every call, from the dialling to its cause |
//!
//! Contract: `yodel_wire::machine`. Commands and events are in [`crate::command`]. A command's reply follows when what it
//! stored is on stable storage.

mod requests;
mod said;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_call::call::Calls;
use yodel_call::event::{self as call_event, CodecFactory, Config, Identity, MessageId, Role};
use yodel_identity::account::AccountRecord;
use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::credential::Credential;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_nat::gather::{GatherOutput, Gatherer};
use yodel_net::Exit;
use yodel_overlay::attach::RefuseReason;
use yodel_wire::first_byte::DatagramKind;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkEvent, LinkId, Machine, Output, Ticket, Write};
use yodel_wire::time::{Instant, Now};
use zeroize::Zeroizing;

use self::said::relay_link;
use crate::book::{Book, BookNews};
use crate::command::{
    Command, ContactChange, ContactEvent, Event, Failure, KeptKeys, KeysChange, Online, Reply, RequestId,
};
use crate::history::History;
use crate::homes::{HOSTS, Homes, LinkIds};
use crate::keys::KeptSealing;
use crate::limits::FAREWELL;
use crate::lookups::Lookups;
use crate::publish::Publisher;
use crate::refetch::Refetch;
use crate::renew::{Renewal, RenewalOutput, Renewed};

/// Store tree of what the phone remembers of itself.
pub const SELF: &str = "self";
/// Key of the contact entry's sequence number, 8 bytes, big-endian.
pub const SEQUENCE: &[u8] = b"sequence";
/// Key of the newest bulletin: the host cache.
pub const BULLETIN: &[u8] = b"bulletin";

/// What sign-in left: who this device is.
pub struct Installation {
    /// The realm's verifier, with the newest statement and bulletin that are kept here.
    pub realm: Realm,
    /// Whose device this is.
    pub aor: Aor,
    /// The device's key, proved by every TLS handshake.
    pub device: SigningKey,
    /// The account's root key; signs the record when a credential is renewed.
    pub root: SigningKey,
    /// Sealing keys, newest first.
    pub sealing: Vec<KeptSealing>,
    /// The newest credential.
    pub credential: Credential,
    /// The newest account record.
    pub record: AccountRecord,
    /// A request for the next credential that an earlier start got no answer to.
    pub renewal: Option<Zeroizing<Vec<u8>>>,
}

/// See the module's text.
pub struct Client {
    realm: Realm,
    aor: Aor,
    device_seed: zeroize::Zeroizing<[u8; 32]>,
    sealing: Vec<KeptSealing>,
    /// When the oldest sealing key has to be wiped.
    wipe_at: Option<Instant>,
    credential: Credential,
    record: AccountRecord,
    nonce: [u8; 16],
    entry: Vec<u8>,
    links: LinkIds,
    homes: Homes,
    publisher: Publisher,
    lookups: Lookups,
    book: Book,
    gatherer: Gatherer,
    renewal: Renewal,
    refetch: Refetch,
    calls: Calls,
    history: History,
    hosts: Vec<SocketAddr>,
    refused: Option<RefuseReason>,
    online: Online,
    deliveries: BTreeMap<MessageId, Aor>,
    tickets: u64,
    replies: BTreeMap<Ticket, (RequestId, Reply)>,
    stopping: Option<Instant>,
    epoch: u64,
    outputs: VecDeque<Output<Event>>,
}

impl Client {
    /// A phone with what sign-in left and what the store held (`(tree, key, value)` of [`SELF`] and the book's trees).
    pub fn new(
        now: Now,
        installation: Installation,
        stored: &[(String, Vec<u8>, Vec<u8>)],
        codecs: Box<dyn CodecFactory>,
        seed: [u8; 32],
    ) -> Client {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let mut nonce = [0; 16];
        nonce.copy_from_slice(draw().first_chunk::<16>().unwrap_or(&[0; 16]));
        let Installation { mut realm, aor, device, root, sealing, credential, record, renewal: pending } =
            installation;
        let mut book = Book::new(aor.clone(), draw());
        let mut sequence = 0;
        let mut cards = Vec::new();
        for (tree, key, value) in stored {
            if tree == SELF && key == SEQUENCE {
                sequence = value.as_slice().try_into().map_or(0, u64::from_be_bytes);
            } else if tree == SELF && key == BULLETIN {
                // A cached bulletin that no longer verifies is as good as none.
                let _ = realm.accept_bulletin(value, now.unix);
            } else if tree == HOSTS {
                cards.push((key, value));
            } else {
                book.load(tree, key, value);
            }
        }
        let allow_loopback = realm.bulletin().is_some_and(|bulletin| {
            bulletin.supernodes.iter().any(|entry| entry.udp.iter().any(|addr| addr.ip().is_loopback()))
        });
        let device_seed = device.seed();
        let signing = || SigningKey::from_seed(*device_seed);
        let mut renewal = Renewal::new(now, root, signing(), credential.clone(), record.clone(), draw());
        if let Some(pending) = pending {
            renewal.load(&pending);
        }
        let publisher =
            Publisher::new(aor.key(), credential.clone(), signing(), record.clone(), nonce, sequence);
        let identity = identity(&credential, &device_seed, &sealing, &record, nonce, Vec::new());
        let config = Config { role: Role::Phone, allow_loopback };
        let mut homes = Homes::new(credential.bytes().to_vec(), draw());
        for (key, card) in cards {
            homes.load_card(now, &realm, key, card);
        }
        let mut client = Client {
            homes,
            renewal,
            refetch: Refetch::new(draw()),
            gatherer: Gatherer::new(draw()),
            calls: Calls::new(identity, config, codecs, draw()),
            publisher,
            lookups: Lookups::new(),
            book,
            realm,
            aor,
            device_seed,
            sealing,
            wipe_at: None,
            credential,
            record,
            nonce,
            entry: Vec::new(),
            links: LinkIds::default(),
            history: History::default(),
            hosts: Vec::new(),
            refused: None,
            online: Online::Connecting,
            deliveries: BTreeMap::new(),
            tickets: 0,
            replies: BTreeMap::new(),
            stopping: None,
            epoch: 0,
            outputs: VecDeque::new(),
        };
        client.calls.set_contacts(client.book.contacts());
        client.wipe_old_keys(now);
        client.news(now);
        client.homeless(now);
        client.settle(now);
        client
    }

    /// The homes, for whoever watches them.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Whether the newest contact entry is acknowledged by enough holders.
    pub fn is_published(&self) -> bool {
        self.publisher.is_online()
    }

    /// Whether this phone is revoked by the bulletin it holds, or was refused as such.
    pub(super) fn is_out(&self) -> bool {
        self.realm.is_revoked(self.credential.node)
            || matches!(self.refused, Some(RefuseReason::Revoked | RefuseReason::Credential))
    }

    /// A bulletin may have come: supernodes and revocations.
    fn news(&mut self, now: Now) {
        let Some(bulletin) = self.realm.bulletin() else { return };
        if bulletin.epoch == self.epoch {
            return;
        }
        self.epoch = bulletin.epoch;
        if self.realm.is_revoked(self.credential.node) {
            self.homes.stop(now);
            self.calls.signed_out(now);
            return;
        }
        let entries = bulletin.supernodes.clone();
        self.homes.set_bulletin(now, &self.realm, &entries, &mut self.links);
    }

    fn homes_changed(&mut self, now: Now) {
        let warm = self.homes.warm();
        let nodes: Vec<NodeId> = warm.iter().map(|home| home.node).collect();
        self.lookups.set_homes(nodes.clone());
        self.publisher.set_homes(now, nodes);
        let cold = self.homes.cold().map(|(_, addr)| addr);
        self.gatherer.set_servers(now, warm.iter().filter_map(|home| home.udp).chain(cold).take(2));
        let homes = warm
            .iter()
            .map(|home| call_event::Home { credential: home.credential.clone(), link: relay_link(home) })
            .collect();
        self.calls.set_homes(now, homes);
        for home in &warm {
            self.ask_for_news(home.node);
        }
        self.homeless(now);
    }

    /// Whether the login server has to be asked for the bulletin.
    fn homeless(&mut self, now: Now) {
        let named = self.realm.bulletin().is_some_and(|bulletin| !bulletin.supernodes.is_empty());
        let content = !self.homes.warm().is_empty() || self.is_out() || self.stopping.is_some();
        self.refetch.set_homes(now, content, named);
    }

    /// A home answers as soon as it has a newer bulletin; one request is always open.
    fn ask_for_news(&mut self, home: NodeId) {
        let wanted =
            BulletinWanted { have_epoch: self.realm.epoch(), pages_of: self.realm.revoked_pages_wanted() };
        self.homes.write(home, Frame::new(FrameKind::BulletinWanted, wanted.encode()));
    }

    fn store(&mut self, tree: &'static str, key: &[u8], value: Vec<u8>) {
        let write = Write { tree, key: key.to_vec(), value: Some(value), journaled: false };
        self.commit(vec![write], None);
    }

    fn commit(&mut self, writes: Vec<Write>, reply: Option<(RequestId, Reply)>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(reply) = reply {
            self.replies.insert(ticket, reply);
        }
        self.outputs.push_back(Output::Commit(ticket, writes));
    }

    fn book_changed(&mut self, reply: Option<(RequestId, Reply)>) {
        self.calls.set_contacts(self.book.contacts());
        let writes = self.book.take_writes();
        match (writes.is_empty(), reply) {
            (true, Some((id, reply))) => self.reply(id, Ok(reply)),
            (true, None) => {}
            (false, reply) => self.commit(writes, reply),
        }
    }

    fn reply(&mut self, id: RequestId, result: Result<Reply, Failure>) {
        self.outputs.push_back(Output::Event(Event::Reply(id, result)));
    }

    fn tell_contact(&mut self, aor: Aor, news: BookNews) {
        let change = match news {
            BookNews::Requested => ContactChange::Requested,
            BookNews::StrangerCalled => ContactChange::StrangerCalled,
            BookNews::Accepted => ContactChange::Accepted,
            BookNews::Blocked => ContactChange::Blocked,
            BookNews::Unblocked => ContactChange::Unblocked,
            BookNews::Nothing => return,
        };
        self.outputs.push_back(Output::Event(Event::Contact(ContactEvent { aor, change })));
    }

    fn renewed(&mut self, now: Now, renewed: Renewed) {
        let Renewed { credential, sealing, record } = renewed;
        let kept = KeptKeys {
            credential: credential.clone(),
            record: record.clone(),
            sealing: SealingKey::from_bytes(*sealing.to_bytes()),
        };
        self.outputs.push_back(Output::Event(Event::Keys(KeysChange::Renewed(Box::new(kept)))));
        for kept in &mut self.sealing {
            kept.replaced.get_or_insert(now.unix);
        }
        self.sealing.insert(0, KeptSealing { key: sealing, credential: credential.hash(), replaced: None });
        self.credential = credential.clone();
        self.record = record.clone();
        self.refused = None;
        self.homes.set_credential(credential.bytes().to_vec());
        self.publisher.set_credential(now, credential, record);
        self.identify();
        self.wipe_old_keys(now);
    }

    /// Sealing keys whose successor came ten days ago are forgotten, here and on disk.
    fn wipe_old_keys(&mut self, now: Now) {
        let before = self.sealing.len();
        self.sealing.retain(|kept| kept.is_kept(now.unix));
        if self.sealing.len() != before {
            self.outputs.push_back(Output::Event(Event::Keys(KeysChange::Wipe)));
            self.identify();
        }
        let next = self.sealing.iter().filter_map(KeptSealing::ends).min();
        self.wipe_at = next.map(|ends| now.mono + ends.since(now.unix));
    }

    fn identify(&mut self) {
        let identity = identity(
            &self.credential,
            &self.device_seed,
            &self.sealing,
            &self.record,
            self.nonce,
            self.entry.clone(),
        );
        self.calls.set_identity(identity);
    }

    /// Drains every part until none has anything left; what one says may move another.
    fn settle(&mut self, now: Now) {
        loop {
            self.deliver(now);
            let mut moved = false;
            while let Some(output) = self.homes.poll_output() {
                moved = true;
                self.homes_said(now, output);
            }
            while let Some(output) = self.lookups.poll_output() {
                moved = true;
                self.lookups_said(now, output);
            }
            while let Some(output) = self.publisher.poll_output() {
                moved = true;
                self.publisher_said(now, output);
            }
            while let Some(output) = self.gatherer.poll_output() {
                moved = true;
                match output {
                    GatherOutput::Send { to, bytes } => {
                        self.outputs.push_back(Output::Datagram { to, bytes })
                    }
                    GatherOutput::Reflexive { .. } => self.addresses_changed(now),
                    GatherOutput::Mapping(_) => {}
                }
            }
            while let Some(output) = self.renewal.poll_output() {
                moved = true;
                match output {
                    RenewalOutput::Link(link, action) => self.outputs.push_back(Output::Link(link, action)),
                    RenewalOutput::ThroughHome(frame) => {
                        let home = self.homes.warm().first().map(|home| home.node);
                        if !home.is_some_and(|home| self.homes.write(home, frame)) {
                            self.renewal.no_home(now);
                        }
                    }
                    RenewalOutput::Renewed(renewed) => self.renewed(now, *renewed),
                    RenewalOutput::Keep(pending) => {
                        let event = Event::Keys(KeysChange::Pending(pending));
                        self.outputs.push_back(Output::Event(event));
                    }
                }
            }
            while let Some((link, action)) = self.refetch.poll_output() {
                moved = true;
                self.outputs.push_back(Output::Link(link, action));
            }
            while let Some(output) = self.calls.poll_output() {
                moved = true;
                self.calls_said(now, output);
            }
            if !moved {
                break;
            }
        }
        self.homes.set_active(now, !self.calls.list().is_empty());
        let cards = self.homes.take_writes();
        if !cards.is_empty() {
            self.commit(cards, None);
        }
        let online = self.state();
        if online != self.online {
            self.online = online;
            self.outputs.push_back(Output::Event(Event::Online(online)));
        }
    }

    /// The time to go by: this device's, but never before the newest that the realm signed (DESIGN §3, Clock).
    fn trusted(&self, now: Now) -> Now {
        Now { unix: self.realm.trusted_now(now.unix), ..now }
    }

    fn addresses_changed(&mut self, now: Now) {
        self.calls.set_local_addrs(now, self.hosts.clone(), self.gatherer.reflexive());
    }
}

impl Machine for Client {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let now = self.trusted(now);
        match DatagramKind::of(datagram) {
            DatagramKind::Stun => {
                if !self.gatherer.handle_stun(now, from, datagram)
                    && !self.homes.handle_stun(now, from, datagram, &mut self.links)
                {
                    self.calls.handle_datagram(now, from, datagram);
                }
            }
            DatagramKind::RelayData
            | DatagramKind::RelayControl
            | DatagramKind::Media
            | DatagramKind::PathProbe => {
                self.calls.handle_datagram(now, from, datagram);
            }
            // Sealed overlay datagrams are for supernodes; QUIC never comes here.
            DatagramKind::Overlay | DatagramKind::Quic | DatagramKind::Reserved => {}
        }
        self.settle(now);
    }

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        let now = self.trusted(now);
        if self.homes.owns(link) {
            self.homes.handle_link(now, &self.realm, link, event, &mut self.links);
        } else {
            if self.refetch.handle_link(now, link, &event, &mut self.realm)
                && let Some(bytes) = self.realm.bulletin_bytes().map(<[u8]>::to_vec)
            {
                self.store(SELF, BULLETIN, bytes);
            }
            self.renewal.handle_link(now, link, event, &mut self.realm);
            self.news(now);
            self.homeless(now);
        }
        self.settle(now);
    }

    fn handle_command(&mut self, now: Now, command: Command) {
        let now = self.trusted(now);
        match command {
            Command::Request(id, request) => self.request(now, id, request),
            Command::Addresses(addrs) => {
                self.hosts = addrs;
                self.gatherer.refresh(now);
                self.homes.network_changed(now);
                self.addresses_changed(now);
            }
            Command::LoginServers(addrs) => {
                self.renewal.set_servers(addrs.clone());
                self.refetch.set_servers(addrs);
            }
            Command::RingShown(call) => self.calls.ring_shown(now, call),
            Command::RenewalKept => self.renewal.kept(now),
            Command::Stop => {
                for info in self.calls.list() {
                    // Also one that would wait for its ACK.
                    while self.calls.hangup(now, info.call) {}
                }
                self.publisher.withdraw(now);
                self.stopping = Some(now.mono + FAREWELL);
            }
        }
        self.settle(now);
    }

    fn handle_committed(&mut self, now: Now, ticket: Ticket, result: CommitResult) {
        let now = self.trusted(now);
        if let Some((id, reply)) = self.replies.remove(&ticket) {
            let result = match result {
                CommitResult::Stored => Ok(reply),
                CommitResult::Failed => Err(Failure::new(Exit::Failed, "it could not be stored")),
            };
            self.reply(id, result);
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        let now = self.trusted(now);
        self.homes.handle_timeout(now, &self.realm, &mut self.links);
        self.lookups.handle_timeout(now);
        self.publisher.handle_timeout(now);
        self.gatherer.handle_timeout(now);
        self.renewal.handle_timeout(now, &mut self.links);
        self.refetch.handle_timeout(now, &mut self.links);
        self.calls.handle_timeout(now, &self.realm);
        if self.wipe_at.is_some_and(|at| at <= now.mono) {
            self.wipe_old_keys(now);
        }
        self.settle(now);
        if self.stopping.is_some_and(|at| at <= now.mono) {
            self.homeless(now);
            self.stopping = None;
            self.homes.stop(now);
            self.settle(now);
            self.outputs.push_back(Output::Event(Event::Stopped));
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let book = if self.publisher.is_online() { self.book.deadline() } else { None };
        let deadline = [
            self.homes.deadline(),
            self.lookups.deadline(),
            self.publisher.deadline(),
            self.gatherer.deadline(),
            self.renewal.deadline(),
            self.refetch.deadline(),
            self.calls.deadline(),
            self.stopping,
            self.wipe_at,
            book,
        ]
        .into_iter()
        .flatten()
        .min();
        Output::Idle { deadline }
    }
}

fn identity(
    credential: &Credential,
    device_seed: &[u8; 32],
    sealing: &[KeptSealing],
    record: &AccountRecord,
    nonce: [u8; 16],
    entry: Vec<u8>,
) -> Identity {
    Identity {
        credential: credential.clone(),
        signing: SigningKey::from_seed(*device_seed),
        sealing: sealing.iter().cloned().map(|kept| (kept.key, kept.credential)).collect(),
        record: record.bytes().to_vec(),
        nonce,
        entry,
    }
}
