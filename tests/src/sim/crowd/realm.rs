//! The realm of a crowd, and how it stands.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use yodel::command::Command;
use yodel::homes::HOSTS;
use yodel::keys::KeptSealing;
use yodel::node::{Client, Installation};
use yodel_identity::bulletin::Bulletin;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::directory::Directory;
use yodel_overlay::ring::Config as RingConfig;
use yodel_supernode::node::{Config, Event, KnownMembers, SharedMembers, Stored, Supernode};
use yodel_wire::machine::Machine;

use super::Arguments;
use super::figures::{Before, Calls, Report, Second, Spans};
use super::gate::{Counts, Gate};
use crate::sim::issuer::{Issuer, SupernodeKeys};
use crate::sim::realm::REALM;
use crate::sim::sound::NarrowCodecs;
use crate::sim::world::{NodeIndex, Place, World};

/// All phones are switched on within this time, evenly.
const ARRIVAL: Duration = Duration::from_secs(30);

/// And have two homes and a published entry within this.
const SETTLED: Duration = Duration::from_secs(120);

struct Home {
    node: NodeIndex,
    id: NodeId,
    alive: bool,
}

/// A phone that lacks homes.
pub(super) struct Lacking {
    phone: NodeIndex,
    all: bool,
}

/// See the module's text.
pub(super) struct Crowd {
    pub(super) world: World,
    /// In the order of the accounts.
    pub(super) phones: Vec<NodeIndex>,
    issuer: Issuer,
    homes: Vec<Home>,
    alive: BTreeSet<NodeId>,
    /// The encoded card of each supernode.
    cards: Vec<(NodeId, Vec<u8>)>,
    /// What every phone holds of the realm.
    realm: Realm,
    gate: Gate,
    remembered: u32,
    clients: u32,
    total: Counts,
    refused: u32,
    peaks: (u32, u32),
    probes: u64,
}

impl Crowd {
    /// The supernodes are up, nobody has a phone yet.
    pub(super) fn new(arguments: &Arguments) -> Crowd {
        let mut world = World::new(arguments.seed);
        world.weather.delay = Duration::from_millis(arguments.rtt_ms.into()) / 2;
        world.diskless = true;
        let now = world.now();
        let mut issuer = Issuer::new(REALM, now.unix, || world.seed());
        let keys: Vec<SupernodeKeys> = (0..arguments.supernodes)
            .map(|number| {
                let (udp, tcp) = addrs(number);
                issuer.supernode(now.unix, udp, tcp, || world.seed())
            })
            .collect();
        let bulletin = issuer.bulletin(now.unix);
        let realm = issuer.realm(now.unix, &bulletin);
        let directory = Directory::new();
        let mut homes = Vec::new();
        for (number, keys) in (0..).zip(&keys) {
            let place = place(number, keys);
            let machine =
                supernode(&mut world, &issuer, &bulletin, &directory, keys, (number, arguments.room()));
            homes.push(Home { node: world.add(place, machine), id: keys.credential.node, alive: true });
        }
        let mut crowd = Crowd {
            alive: homes.iter().map(|home| home.id).collect(),
            world,
            phones: Vec::new(),
            issuer,
            homes,
            cards: Vec::new(),
            realm,
            gate: Gate::default(),
            remembered: arguments.remembered,
            clients: arguments.clients,
            total: Counts::default(),
            refused: 0,
            peaks: (0, 0),
            probes: 0,
        };
        crowd.introduce(&directory);
        crowd.world.run_for(Duration::from_millis(500));
        crowd
    }

    /// Every supernode knows every other, as after a restart of all with their stores.
    fn introduce(&mut self, directory: &Directory) {
        let mut slots = Vec::new();
        for home in &self.homes {
            let slot =
                self.world.look::<Supernode, _>(home.node, |supernode| supernode.ring().membership().me());
            slots.push(slot);
            let card = directory.card(slot).expect("its own card");
            self.cards.push((home.id, card.encode()));
        }
        let known = SharedMembers { directory: directory.clone(), slots: Arc::from(slots) };
        for home in &self.homes {
            self.world.with::<Supernode, _>(home.node, |supernode, now| {
                supernode.load_members(now, &known);
            });
        }
    }

    /// Switches the phones on, one after the other, and waits until all have two homes and are published.
    pub(super) fn everybody_online(&mut self) {
        let pause = ARRIVAL / self.clients;
        for number in 0..self.clients {
            let phone = self.phone(number);
            if number == 0 {
                let tamper = self.gate.tamper(phone);
                self.world.set_tamper(Some(tamper));
            }
            self.phones.push(phone);
            self.world.run_for(pause);
        }
        let end = self.world.now().mono + SETTLED;
        let mut waiting: Vec<NodeIndex> = self.phones.clone();
        while !waiting.is_empty() {
            let now = self.world.now().mono;
            assert!(now < end, "{} phones have no two homes", waiting.len());
            self.world.run_for(Duration::from_secs(1));
            let world = &mut self.world;
            waiting.retain(|phone| {
                world.look::<Client, _>(*phone, |client| {
                    client.homes().warm_nodes().count() < 2 || !client.is_published()
                })
            });
        }
        for phone in &self.phones {
            self.world.events::<Client>(*phone);
        }
    }

    /// The name of the n-th account.
    pub(super) fn name(&self, number: usize) -> Aor {
        self.issuer.aor(&format!("user{number}"))
    }

    fn phone(&mut self, number: u32) -> NodeIndex {
        let now = self.world.now();
        let Crowd { world, issuer, .. } = self;
        let mut keys = issuer.account(now.unix, &format!("user{number}"), 1, || world.seed());
        let device = keys.devices.remove(0);
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(40, 0, 0, 1)) + number);
        let addr = SocketAddr::new(IpAddr::V4(ip), 5_000);
        let place = Place { addr, ports: Vec::new(), nat: None, key: device.key.public().0 };
        let credential = device.credential;
        let sealing = KeptSealing { key: device.sealing, credential: credential.hash(), replaced: None };
        let installation = Installation {
            realm: self.realm.clone(),
            aor: keys.aor,
            device: device.key,
            root: keys.root,
            sealing: vec![sealing],
            credential,
            record: keys.record,
            renewal: None,
        };
        let stored = self.some_cards();
        let machine = Client::new(now, installation, &stored, Box::new(NarrowCodecs), self.world.seed());
        let phone = self.world.add(place, machine);
        self.world.with::<Client, _>(phone, |client, now| {
            client.handle_command(now, Command::Addresses(vec![addr]));
        });
        phone
    }

    /// What a phone's store holds: cards that it got in an earlier run.
    fn some_cards(&mut self) -> Vec<(String, Vec<u8>, Vec<u8>)> {
        let count = self.cards.len();
        let mut drawn = BTreeSet::new();
        while drawn.len() < count.min(self.remembered as usize) {
            drawn.insert(self.world.below(count as u64) as usize);
        }
        let row = |at: usize| {
            let (node, card) = &self.cards[at];
            (HOSTS.to_owned(), node.0.to_vec(), card.clone())
        };
        drawn.into_iter().map(row).collect()
    }

    /// How the supernodes are used, before anything happens.
    pub(super) fn before(&mut self) -> Before {
        let counts = self.gate.take();
        self.second(0);
        let two_homes = self.phones.clone().into_iter().filter(|phone| self.warm(*phone) == 2).count();
        let (fewest, most) = self.used();
        Before { two_homes, fewest, most, sent_away: counts.refused.values().sum() }
    }

    /// Fewest and most phones at a supernode that lives.
    fn used(&mut self) -> (usize, usize) {
        let mut held = Vec::new();
        for home in self.homes.iter().filter(|home| home.alive) {
            held.push(self.world.look::<Supernode, _>(home.node, |supernode| supernode.status().clients));
        }
        (held.iter().copied().min().unwrap_or(0), held.iter().copied().max().unwrap_or(0))
    }

    /// So many supernodes lose their power, all at once.
    pub(super) fn strike(&mut self, count: u32) {
        let mut dead = BTreeSet::new();
        for _ in 0..count {
            let living: Vec<usize> = (0..self.homes.len()).filter(|at| self.homes[*at].alive).collect();
            let at = living[self.world.below(living.len() as u64) as usize];
            self.homes[at].alive = false;
            self.world.unplug(self.homes[at].node);
            dead.insert(self.homes[at].id);
        }
        self.alive.retain(|node| !dead.contains(node));
        self.gate.bury(dead);
        (self.total, self.refused, self.peaks) = (Counts::default(), 0, (0, 0));
        self.second(0);
    }

    /// A phone's warm homes that live.
    pub(super) fn warm(&mut self, phone: NodeIndex) -> usize {
        let Crowd { world, alive, .. } = self;
        world.look::<Client, _>(phone, |client| {
            client.homes().warm_nodes().filter(|home| alive.contains(home)).count()
        })
    }

    /// Phones that lack a home.
    pub(super) fn lacking(&mut self) -> Vec<Lacking> {
        let mut lacking = Vec::new();
        for at in 0..self.phones.len() {
            let phone = self.phones[at];
            let warm = self.warm(phone);
            if warm < 2 {
                lacking.push(Lacking { phone, all: warm == 0 });
            }
        }
        lacking
    }

    /// Whether a phone lacks homes still; who does not is noted.
    pub(super) fn still_lacks(&mut self, lacking: &mut Lacking, passed: Duration, found: &mut Found) -> bool {
        let warm = self.warm(lacking.phone);
        if warm > 0 && lacking.all {
            lacking.all = false;
            found.one.push(passed);
        }
        if warm > 1 {
            found.two.push(passed);
        }
        warm < 2
    }

    /// What happened at the survivors since this was last asked.
    pub(super) fn second(&mut self, second: u32) -> Second {
        let Counts { came, frames, attached, refused, without_redirect, to_the_dead } = self.gate.take();
        let (mut probes, mut held, mut held_most) = (0, 0, 0);
        for home in self.homes.iter().filter(|home| home.alive) {
            let status = self.world.look::<Supernode, _>(home.node, Supernode::status);
            probes += status.counters.stun_answers;
            held += status.clients;
            held_most = held_most.max(status.clients);
        }
        let most =
            |counts: &std::collections::BTreeMap<NodeIndex, u32>| counts.values().copied().max().unwrap_or(0);
        let before = std::mem::replace(&mut self.probes, probes);
        let second = Second {
            second,
            came,
            attached: attached.values().sum(),
            attached_most: most(&attached),
            refused: refused.values().sum(),
            refused_most: most(&refused),
            frames,
            probes: probes.saturating_sub(before),
            with_none: 0,
            with_one: 0,
            held,
            held_most,
        };
        self.total.without_redirect += without_redirect;
        self.total.to_the_dead += to_the_dead;
        self.refused += second.refused;
        self.peaks.0 = self.peaks.0.max(second.attached_most);
        self.peaks.1 = self.peaks.1.max(second.refused_most);
        second
    }

    /// All that was seen.
    pub(super) fn report(
        &mut self,
        arguments: &Arguments,
        before: Before,
        storm: Storm,
        calls: Calls,
    ) -> Report {
        let Storm { lost_one, lost_all, found, seconds } = storm;
        let (fewest, most) = self.used();
        let mut ended = 0;
        for home in self.homes.iter().filter(|home| home.alive) {
            let events = self.world.events::<Supernode>(home.node);
            let over = |event: &Event| matches!(event, Event::Stopped | Event::Revoked);
            ended += usize::from(events.iter().any(|(_, event)| over(event)));
        }
        Report {
            v: 1,
            arguments: arguments.clone(),
            clients_max: arguments.room(),
            before,
            killed: arguments.killed(),
            lost_one,
            lost_all,
            one_home: Spans::of(&found.one, lost_all),
            two_homes: Spans::of(&found.two, lost_one + lost_all),
            fewest,
            most,
            refusals: self.refused,
            refusals_without_redirect: self.total.without_redirect,
            refusals_to_the_dead: self.total.to_the_dead,
            peak_attached: self.peaks.0,
            peak_refused: self.peaks.1,
            ended,
            calls,
            seconds,
        }
    }
}

/// How long phones lacked a home.
#[derive(Default)]
pub(super) struct Found {
    one: Vec<Duration>,
    two: Vec<Duration>,
}

/// The storm, as it was watched.
pub(super) struct Storm {
    pub(super) lost_one: usize,
    pub(super) lost_all: usize,
    pub(super) found: Found,
    pub(super) seconds: Vec<Second>,
}

impl Lacking {
    /// Whether it lost all homes.
    pub(super) fn all(&self) -> bool {
        self.all
    }
}

fn supernode(
    world: &mut World,
    issuer: &Issuer,
    bulletin: &Bulletin,
    directory: &Directory,
    keys: &SupernodeKeys,
    (number, room): (u32, u32),
) -> Supernode {
    let (udp, tcp) = addrs(number);
    let mut config = Config::new(udp, tcp);
    config.clients_max = room as usize;
    config.ring = RingConfig { derive_ahead: 0, ..RingConfig::default() };
    let members = KnownMembers::Shared(SharedMembers { directory: directory.clone(), slots: Arc::from([]) });
    let stored = Stored { bulletin: Some(bulletin.bytes().to_vec()), members, ..Stored::default() };
    let (now, seed) = (world.now(), world.seed());
    Supernode::new(now, issuer.key_file(keys), config, &stored, seed).expect("a supernode's keys")
}

fn place(number: u32, keys: &SupernodeKeys) -> Place {
    let (udp, _) = addrs(number);
    Place { addr: udp[0], ports: vec![443], nat: None, key: keys.key.public().0 }
}

/// Where the n-th supernode is reached over UDP and TCP: a /24 for each.
fn addrs(number: u32) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 1, 0, 1)) + 256 * number);
    let at = |port| SocketAddr::new(IpAddr::V4(ip), port);
    (vec![at(4433)], vec![at(4433), at(443)])
}
