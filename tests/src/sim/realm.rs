//! A whole realm in the world: supernodes and phones, the very root machines of the programs.
//!
//! The realm does for each phone what its daemon does: it tells the host's address, shows every ring at once unless
//! told otherwise, and hands over audio ends. Everything else goes through the same commands as a user's.

mod phone;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use yodel::command::{
    CallId, Cause, Command, Dial, Direction, Ended, Event, Failure, KeysChange, Online, Reply, Request,
    RequestId, State, Status, Why,
};
use yodel::node::{Client, Installation};
use yodel_identity::bulletin::Bulletin;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_media::AudioEnd;
use yodel_relay::server::ServerConfig;
use yodel_supernode::node::{Config, RECORDS, Stored};
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

pub use self::phone::{Manners, Phone, PhoneIndex, Where};
use super::issuer::{AccountKeys, Issuer, SupernodeKeys};
use super::sound::{NarrowCodecs, mouth};
use super::world::{NodeIndex, Place, World};

/// A supernode of the realm.
pub struct Supernode {
    /// Its machine in the world.
    pub node: NodeIndex,
    /// Its id.
    pub id: NodeId,
    keys: SupernodeKeys,
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
}

/// See the module's text.
pub struct SimRealm {
    /// The world, to change its weather, cut it, or let a home lie.
    pub world: World,
    /// The realm's keys.
    pub issuer: Issuer,
    /// Its supernodes.
    pub supernodes: Vec<Supernode>,
    /// Its phones.
    pub phones: Vec<Phone>,
    bulletin: Bulletin,
    relay: ServerConfig,
    accounts: Vec<AccountKeys>,
    next_request: u64,
    nats: u8,
    inner: Option<IpAddr>,
}

/// Name of every simulated realm.
pub const REALM: &str = "example.net";

impl SimRealm {
    /// A realm with this many supernodes, each in a /24 and of an owner of its own, all up and linked.
    pub fn new(seed: u64, supernodes: u8) -> SimRealm {
        SimRealm::with_relays(seed, supernodes, ServerConfig::default())
    }

    /// A realm whose supernodes relay as much as this.
    pub fn with_relays(seed: u64, supernodes: u8, relay: ServerConfig) -> SimRealm {
        let mut world = World::new(seed);
        let now = world.now();
        let mut issuer = Issuer::new(REALM, now.unix, || world.seed());
        let mut planned = Vec::new();
        for n in 1..=supernodes {
            let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(20, 0, n, 1)), 4433);
            let (udp, tcp) = (vec![addr], vec![addr, SocketAddr::new(addr.ip(), 443)]);
            let keys = issuer.supernode(now.unix, udp.clone(), tcp.clone(), || world.seed());
            planned.push((addr, udp, tcp, keys));
        }
        let bulletin = issuer.bulletin(now.unix);
        let mut realm = SimRealm {
            world,
            issuer,
            supernodes: Vec::new(),
            phones: Vec::new(),
            bulletin,
            relay,
            accounts: Vec::new(),
            next_request: 0,
            nats: 0,
            inner: None,
        };
        for (addr, udp, tcp, keys) in planned {
            let place = Place { addr, ports: vec![443], nat: None, key: keys.key.public().0 };
            let machine = realm.supernode_machine(&keys, (&udp, &tcp), Vec::new());
            let node = realm.world.add(place, machine);
            realm.supernodes.push(Supernode { node, id: keys.credential.node, keys, udp, tcp });
        }
        realm.world.run_for(Duration::from_millis(500));
        realm
    }

    /// An account with one phone.
    pub fn phone(&mut self, user: &str, place: Where) -> PhoneIndex {
        self.account(user, &[place])[0]
    }

    /// An account with a phone at each of these places.
    pub fn account(&mut self, user: &str, places: &[Where]) -> Vec<PhoneIndex> {
        let now = self.world.now();
        let devices = u32::try_from(places.len()).unwrap();
        let world = &mut self.world;
        let keys = self.issuer.account(now.unix, user, devices, || world.seed());
        self.accounts.push(keys);
        let account = self.accounts.len() - 1;
        places.iter().enumerate().map(|(slot, place)| self.place(account, slot, *place)).collect()
    }

    /// The machine that `yodel-supernode` runs, with keys and bulletin as its files would hold them.
    fn supernode_machine(
        &mut self,
        keys: &SupernodeKeys,
        (udp, tcp): (&[SocketAddr], &[SocketAddr]),
        records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> yodel_supernode::node::Supernode {
        let now = self.world.now();
        let kept = self.issuer.key_file(keys);
        let mut config = Config::new(udp.to_vec(), tcp.to_vec());
        config.relay = self.relay;
        let stored = Stored { bulletin: Some(self.bulletin.bytes().to_vec()), records, ..Stored::default() };
        yodel_supernode::node::Supernode::new(now, kept, config, &stored, self.world.seed()).unwrap()
    }

    /// An account with one phone in a home of its own, at the same inner address as another's phone in its home.
    pub fn twin(&mut self, user: &str, place: Where, of: PhoneIndex) -> PhoneIndex {
        let addr = self.world.addr(self.phones[of.0].node);
        self.inner = Some(addr.ip());
        let phone = self.phone(user, place);
        self.inner = None;
        phone
    }

    fn place(&mut self, account: usize, slot: usize, place: Where) -> PhoneIndex {
        let index = PhoneIndex(self.phones.len());
        let (addr, nat) = match place {
            Where::Home(kind) => {
                self.nats += 1;
                let public = IpAddr::V4(Ipv4Addr::new(30, 0, self.nats, 7));
                let nat = self.world.add_nat(kind, public);
                (Ipv4Addr::new(10, 0, self.nats, 2), Some(nat))
            }
            Where::With(other) => {
                let other = &self.phones[other.0];
                let IpAddr::V4(beside) = self.world.addr(other.node).ip() else { unreachable!("IPv4 only") };
                let [a, b, c, _] = beside.octets();
                let host = 2 + self.phones.iter().filter(|phone| phone.nat == other.nat).count() as u8;
                (Ipv4Addr::new(a, b, c, host), other.nat)
            }
            Where::Public => (Ipv4Addr::new(40, 0, index.0 as u8, 9), None),
        };
        let keys = &self.accounts[account];
        let device = &keys.devices[slot];
        let place = Place {
            addr: SocketAddr::new(self.inner.unwrap_or(IpAddr::V4(addr)), 5_000),
            ports: Vec::new(),
            nat,
            key: device.key.public().0,
        };
        let (aor, id) = (keys.aor.clone(), device.credential.node);
        let machine = self.client_machine(account, slot, &[]);
        let node = self.world.add(place, machine);
        self.phones.push(Phone {
            node,
            aor,
            device: id,
            voice: index.0 as u8 % 120 + 1,
            manners: Manners::Ring,
            log: Vec::new(),
            online: false,
            ears: Vec::new(),
            nat,
            account,
            slot,
            replies: BTreeMap::new(),
            due: Vec::new(),
        });
        self.introduce(index);
        index
    }

    fn client_machine(
        &mut self,
        account: usize,
        slot: usize,
        stored: &[(String, Vec<u8>, Vec<u8>)],
    ) -> Client {
        let now = self.world.now();
        let seed = self.world.seed();
        let keys = &self.accounts[account];
        let device = &keys.devices[slot];
        let copy = SealingKey::from_bytes(*device.sealing.to_bytes());
        let installation = Installation {
            realm: self.issuer.realm(now.unix, &self.bulletin),
            aor: keys.aor.clone(),
            device: SigningKey::from_seed(*device.key.seed()),
            root: SigningKey::from_seed(*keys.root.seed()),
            sealing: vec![yodel::keys::KeptSealing {
                key: copy,
                credential: device.credential.hash(),
                replaced: None,
            }],
            credential: device.credential.clone(),
            record: keys.record.clone(),
            renewal: None,
        };
        Client::new(now, installation, stored, Box::new(NarrowCodecs), seed)
    }

    fn introduce(&mut self, phone: PhoneIndex) {
        let addr = self.world.addr(self.phones[phone.0].node);
        self.command(phone, Command::Addresses(vec![addr]));
    }

    /// The address under which the world sees a phone.
    pub fn seen_at(&mut self, phone: PhoneIndex) -> IpAddr {
        let Phone { nat, node, .. } = self.phones[phone.0];
        match nat {
            Some(nat) => self.world.nat_mut(nat).public(),
            None => self.world.addr(node).ip(),
        }
    }

    /// `kill -9` of a phone.
    pub fn kill_phone(&mut self, phone: PhoneIndex) {
        self.pump();
        self.world.kill(self.phones[phone.0].node);
        self.phones[phone.0].online = false;
        self.phones[phone.0].due.clear();
    }

    /// Starts a killed phone again, with what it had stored.
    pub fn restart_phone(&mut self, phone: PhoneIndex) {
        let Phone { node, account, slot, .. } = self.phones[phone.0];
        let stored: Vec<_> = self
            .world
            .disk(node)
            .iter()
            .map(|((tree, key), value)| ((*tree).to_owned(), key.clone(), value.clone()))
            .collect();
        let machine = self.client_machine(account, slot, &stored);
        self.world.restart(node, machine);
        self.introduce(phone);
    }

    /// Starts a killed supernode again, with what it had stored and the newest bulletin.
    pub fn restart_supernode(&mut self, supernode: usize) {
        let Supernode { node, .. } = self.supernodes[supernode];
        let records = self.world.disk(node).iter().filter(|((tree, _), _)| *tree == RECORDS);
        let records = records.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let old = self.supernodes.remove(supernode);
        let machine = self.supernode_machine(&old.keys, (&old.udp, &old.tcp), records);
        self.supernodes.insert(supernode, old);
        self.world.restart(node, machine);
    }

    /// Revokes a phone's credential: the next bulletin says so, and reaches this supernode first.
    pub fn revoke(&mut self, phone: PhoneIndex) {
        let Phone { account, slot, .. } = self.phones[phone.0];
        let credential = self.accounts[account].devices[slot].credential.clone();
        self.issuer.revoke(&credential);
        let now = self.world.now();
        self.bulletin = self.issuer.bulletin(now.unix);
    }

    /// `kill -9` of a supernode.
    pub fn kill_supernode(&mut self, supernode: usize) {
        self.world.kill(self.supernodes[supernode].node);
    }

    /// The supernode with this id.
    pub fn supernode(&self, id: NodeId) -> usize {
        self.supernodes.iter().position(|supernode| supernode.id == id).unwrap()
    }

    /// Gives a phone a command.
    pub fn command(&mut self, phone: PhoneIndex, command: Command) {
        let node = self.phones[phone.0].node;
        self.world.with::<Client, _>(node, |client, now| client.handle_command(now, command));
        self.pump();
    }

    /// Asks a phone for something, and waits for the answer.
    pub fn ask(&mut self, phone: PhoneIndex, request: Request) -> Result<Reply, Failure> {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.command(phone, Command::Request(id, request));
        if !self.phones[phone.0].replies.contains_key(&id) {
            self.run_until(Duration::from_secs(1), |realm| realm.phones[phone.0].replies.contains_key(&id));
        }
        self.phones[phone.0].replies.remove(&id).expect("every request is answered")
    }

    /// How a phone stands.
    pub fn status(&mut self, phone: PhoneIndex) -> Status {
        match self.ask(phone, Request::Status) {
            Ok(Reply::Status(status)) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// The supernodes a phone is attached to, the one that carries signalling first.
    pub fn homes(&mut self, phone: PhoneIndex) -> Vec<usize> {
        let homes = self.status(phone).homes;
        homes.iter().filter(|home| home.warm).map(|home| self.supernode(home.node)).collect()
    }

    /// Waits until all phones are online; panics when they do not get there.
    pub fn all_online(&mut self) {
        let alive = |realm: &SimRealm| {
            let mut phones = realm.phones.iter().filter(|phone| realm.world.is_alive(phone.node));
            phones.all(|phone| phone.online)
        };
        let online = self.run_until(Duration::from_secs(30), |realm| alive(realm));
        let missing: Vec<String> =
            self.phones.iter().filter(|phone| !phone.online).map(|phone| phone.aor.to_string()).collect();
        assert!(online, "not online: {missing:?}");
    }

    /// Makes two accounts contacts of each other, as their users would: each adds the other.
    pub fn befriend(&mut self, one: PhoneIndex, other: PhoneIndex) {
        let names = [self.phones[one.0].aor.clone(), self.phones[other.0].aor.clone()];
        for (user, friend) in [(&names[0], &names[1]), (&names[1], &names[0])] {
            // Devices of an account do not share an address book yet.
            for phone in self.phones_of(user) {
                self.ask(phone, Request::ContactAdd(friend.clone())).unwrap();
            }
        }
        let done = self.run_until(Duration::from_secs(90), |realm| {
            realm.are_friends(&names[0], &names[1]) && realm.are_friends(&names[1], &names[0])
        });
        assert!(done, "{} and {} did not become contacts", names[0], names[1]);
    }

    /// Every phone.
    pub fn phones_all(&self) -> Vec<PhoneIndex> {
        (0..self.phones.len()).map(PhoneIndex).collect()
    }

    fn phones_of(&self, aor: &Aor) -> Vec<PhoneIndex> {
        let of = |index: &PhoneIndex| self.phones[index.0].aor == *aor;
        (0..self.phones.len()).map(PhoneIndex).filter(of).collect()
    }

    fn are_friends(&mut self, user: &Aor, friend: &Aor) -> bool {
        self.phones_of(user).into_iter().all(|phone| match self.ask(phone, Request::Contacts) {
            Ok(Reply::Contacts(contacts)) => {
                contacts.iter().any(|c| c.aor == *friend && c.state == yodel::command::ContactState::Accepted)
            }
            other => panic!("no contacts: {other:?}"),
        })
    }

    /// Dials an account.
    pub fn dial(&mut self, from: PhoneIndex, to: &Aor) -> CallId {
        self.dial_with(from, to, |_| {})
    }

    /// Dials an account, with settings.
    pub fn dial_with(&mut self, from: PhoneIndex, to: &Aor, set: impl FnOnce(&mut Dial)) -> CallId {
        let audio = self.mouth_of(from);
        let mut dial = Dial { peer: to.clone(), audio, relay_only: false, max: None, ring_timeout: None };
        set(&mut dial);
        match self.ask(from, Request::Dial(dial)) {
            Ok(Reply::Call(call)) => call,
            other => panic!("not dialled: {other:?}"),
        }
    }

    /// An audio end with the phone's voice; remembered among its ears.
    pub fn mouth_of(&mut self, phone: PhoneIndex) -> Box<dyn AudioEnd> {
        let phone = &mut self.phones[phone.0];
        let (audio, ear) = mouth(phone.voice);
        phone.ears.push(ear);
        audio
    }

    /// Answers the call that rings; false when none does.
    pub fn answer(&mut self, phone: PhoneIndex, call: Option<CallId>) -> bool {
        let audio = self.mouth_of(phone);
        self.ask(phone, Request::Answer { call, audio }).is_ok()
    }

    /// Hangs up; false when there is no call.
    pub fn hangup(&mut self, phone: PhoneIndex, call: Option<CallId>) -> bool {
        self.ask(phone, Request::Hangup(call)).is_ok()
    }

    /// A call's timeline on this side.
    pub fn why(&mut self, phone: PhoneIndex, call: CallId) -> Why {
        match self.ask(phone, Request::Why(Some(call))) {
            Ok(Reply::Why(why)) => why,
            other => panic!("no timeline: {other:?}"),
        }
    }

    /// Whether a line of a call's timeline says this.
    pub fn timeline_says(&mut self, phone: PhoneIndex, call: CallId, text: &str) -> bool {
        self.why(phone, call).steps.iter().any(|step| step.text.contains(text))
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until `done` or the limit; tells whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut SimRealm) -> bool) -> bool {
        let end = self.world.now().mono + limit;
        loop {
            self.pump();
            if done(self) {
                return true;
            }
            let now = self.world.now().mono;
            if now >= end {
                return false;
            }
            // To the next happening, or to what a user does next.
            let next = self.phones.iter().flat_map(|phone| &phone.due).map(|due| due.0).min();
            let until = next.map_or(end, |due| due.min(end));
            let mut stepped = false;
            self.world.run_until(until.since(now), |_| std::mem::replace(&mut stepped, true));
        }
    }

    /// Waits until this phone's call got into this state.
    pub fn reaches(&mut self, phone: PhoneIndex, call: CallId, state: &str, limit: Duration) -> bool {
        self.run_until(limit, |realm| realm[phone].when(call, state).is_some())
    }

    /// Waits for the end of a call on this side; panics when it does not come.
    pub fn ended(&mut self, phone: PhoneIndex, call: CallId, limit: Duration) -> Ended {
        self.reaches(phone, call, "ended", limit);
        self[phone].end(call).unwrap_or_else(|| panic!("not ended: {:?}", self[phone].states(call)))
    }

    /// The cause of a call's end on this side.
    pub fn cause(&mut self, phone: PhoneIndex, call: CallId, limit: Duration) -> Cause {
        self.ended(phone, call, limit).cause
    }

    /// Takes in what the phones tell, and does what their daemons and users do.
    fn pump(&mut self) {
        for index in 0..self.phones.len() {
            let node = self.phones[index].node;
            if !self.world.is_alive(node) {
                continue;
            }
            for (at, event) in self.world.events::<Client>(node) {
                self.take(index, at, event);
            }
            let now = self.world.now().mono;
            let (due, later) = std::mem::take(&mut self.phones[index].due)
                .into_iter()
                .partition::<Vec<_>, _>(|(at, ..)| *at <= now);
            self.phones[index].due = later;
            for (_, call, answer) in due {
                let phone = PhoneIndex(index);
                let audio = self.mouth_of(phone);
                self.next_request += 1;
                let request = match answer {
                    true => Request::Answer { call: Some(call), audio },
                    false => Request::Decline(Some(call)),
                };
                self.command(phone, Command::Request(RequestId(self.next_request), request));
            }
        }
    }

    fn take(&mut self, index: usize, at: Instant, event: Event) {
        let phone = &mut self.phones[index];
        match event {
            Event::Reply(id, result) => {
                phone.replies.insert(id, result);
            }
            Event::Call(event) => {
                let rings = event.direction == Direction::In && event.state == State::Contacting;
                let call = event.call;
                phone.log.push((at, event));
                if rings && phone.manners != Manners::Mute {
                    match phone.manners {
                        Manners::Answer(after) => phone.due.push((at + after, call, true)),
                        Manners::Decline(after) => phone.due.push((at + after, call, false)),
                        Manners::Ring | Manners::Mute => {}
                    }
                    let node = phone.node;
                    self.world.with::<Client, _>(node, |client, now| {
                        client.handle_command(now, Command::RingShown(call))
                    });
                }
            }
            Event::Online(online) => phone.online = online == Online::Online,
            Event::Keys(KeysChange::Pending(_)) => {
                let node = phone.node;
                self.world
                    .with::<Client, _>(node, |client, now| client.handle_command(now, Command::RenewalKept));
            }
            Event::Contact(_) | Event::Keys(KeysChange::Renewed(_) | KeysChange::Wipe) | Event::Stopped => {}
        }
    }
}

impl std::ops::Index<PhoneIndex> for SimRealm {
    type Output = Phone;
    fn index(&self, phone: PhoneIndex) -> &Phone {
        &self.phones[phone.0]
    }
}

impl std::ops::IndexMut<PhoneIndex> for SimRealm {
    fn index_mut(&mut self, phone: PhoneIndex) -> &mut Phone {
        &mut self.phones[phone.0]
    }
}

/// A realm of three supernodes with two phones who are contacts of each other, both online.
pub fn pair(seed: u64, one: Where, other: Where) -> (SimRealm, PhoneIndex, PhoneIndex) {
    let mut realm = SimRealm::new(seed, 3);
    let alice = realm.phone("alice", one);
    let bob = realm.phone("bob", other);
    realm.all_online();
    realm.befriend(alice, bob);
    (realm, alice, bob)
}
