//! A realm of any number of supernodes, each in a /24 and of an owner of its own, with accounts to look up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use yodel_identity::bulletin::Bulletin;
use yodel_identity::node::NodeId;
use yodel_overlay::directory::Directory;
use yodel_overlay::limits::CONTACT_ENTRY_LIFE;
use yodel_overlay::record::{ContactEntry, ContactEntryFields};
use yodel_overlay::ring::Config as RingConfig;
use yodel_supernode::node::{Command, Config, KnownMembers, SharedMembers, Stored, Supernode};
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

use super::ask::Publication;
use super::desk::{Desk, Issued};
use crate::sim::issuer::{AccountKeys, DeviceKeys, Issuer, SupernodeKeys};
use crate::sim::realm::REALM;
use crate::sim::world::{NodeIndex, Place, Traffic, World};

/// How often the login server signs a bulletin.
const BULLETIN_EVERY: Duration = Duration::from_secs(600);

/// A supernode.
pub(super) struct Member {
    pub(super) node: NodeIndex,
    pub(super) addr: SocketAddr,
    pub(super) keys: SupernodeKeys,
    pub(super) group: u8,
}

/// An account with one device.
pub(super) struct Account {
    keys: AccountKeys,
    /// Of the newest entry signed.
    sequence: u64,
    /// The newest sequence that a supernode acknowledged.
    pub(super) acknowledged: u64,
}

impl Account {
    pub(super) fn key(&self) -> [u8; 16] {
        self.keys.aor.key()
    }

    pub(super) fn record(&self) -> &[u8] {
        self.keys.record.bytes()
    }
}

/// See the module's text.
pub(super) struct SimRing {
    pub(super) world: World,
    pub(super) issuer: Issuer,
    pub(super) members: Vec<Member>,
    /// Indices of members that run.
    pub(super) alive: Vec<usize>,
    pub(super) accounts: Vec<Account>,
    bulletin: Bulletin,
    /// The cards, kept once for all members.
    directory: Directory,
    /// Where the login server stands, while there is one.
    desk: Option<NodeIndex>,
    next_bulletin: Instant,
}

impl SimRing {
    /// A realm with a login server, all supernodes up, nothing published.
    pub(super) fn new(seed: u64, rtt: Duration, supernodes: u32, accounts: u32) -> SimRing {
        let mut world = World::new(seed);
        world.weather.delay = rtt / 2;
        let now = world.now();
        let mut issuer = Issuer::new(REALM, now.unix, || world.seed());
        let keys: Vec<_> =
            (0..supernodes).map(|number| enrol(&mut issuer, &mut world, number as usize)).collect();
        let bulletin = issuer.bulletin(now.unix);
        let next_bulletin = now.mono + BULLETIN_EVERY;
        let (members, alive) = (Vec::new(), Vec::new());
        let accounts = (0..accounts)
            .map(|number| {
                let name = format!("user{number}");
                let keys = issuer.account(now.unix, &name, 1, || world.seed());
                Account { keys, sequence: 0, acknowledged: 0 }
            })
            .collect();
        let mut ring = SimRing {
            world,
            issuer,
            members,
            alive,
            accounts,
            bulletin,
            directory: Directory::new(),
            desk: None,
            next_bulletin,
        };
        ring.place_desk(desk_addr());
        for keys in keys {
            ring.place(keys, false);
        }
        ring.introduce();
        ring
    }

    /// Starts a login server at this address.
    fn place_desk(&mut self, addr: SocketAddr) {
        let newest = Issued { epoch: self.bulletin.epoch, bytes: self.bulletin.bytes().to_vec() };
        let machine = Desk::new(self.issuer.statement().to_vec(), newest);
        let place = Place { addr, ports: Vec::new(), nat: None, key: self.issuer.tls_key().0 };
        self.desk = Some(self.world.add(place, machine));
    }

    /// `kill -9` of the login server.
    pub(super) fn kill_desk(&mut self) {
        if let Some(desk) = self.desk {
            self.world.kill(desk);
        }
    }

    fn place(&mut self, keys: SupernodeKeys, newcomer: bool) -> usize {
        let now = self.world.now();
        let index = self.members.len();
        let (udp, tcp) = addrs(index);
        let mut config = Config::new(udp.clone(), tcp);
        config.allow_loopback = false;
        // What was agreed on ahead of need would be agreed on by everybody with everybody.
        config.ring = RingConfig { derive_ahead: 0, standby: newcomer, ..RingConfig::default() };
        let members =
            KnownMembers::Shared(SharedMembers { directory: self.directory.clone(), slots: Arc::from([]) });
        let bulletin = Some(self.bulletin.bytes().to_vec());
        let stored = Stored { bulletin, members, ..Stored::default() };
        let seed = self.world.seed();
        let machine = Supernode::new(now, self.issuer.key_file(&keys), config, &stored, seed).unwrap();
        let place = Place { addr: udp[0], ports: vec![443], nat: None, key: keys.key.public().0 };
        let node = self.world.add(place, machine);
        self.world.with::<Supernode, _>(node, |supernode, now| {
            supernode.handle_command(now, Command::LoginServers(vec![desk_addr()]));
        });
        self.members.push(Member { node, addr: udp[0], keys, group: 0 });
        self.alive.push(index);
        index
    }

    /// Everybody knows everybody, as after a restart of all with their stores.
    fn introduce(&mut self) {
        let mut slots = Vec::new();
        for member in &self.members {
            self.world.look::<Supernode, _>(member.node, |supernode| {
                slots.push(supernode.ring().membership().me());
            });
        }
        let known = SharedMembers { directory: self.directory.clone(), slots: slots.into() };
        for member in &self.members {
            self.world.with::<Supernode, _>(member.node, |supernode, now| {
                supernode.load_members(now, &known);
            });
        }
    }

    /// `kill -9` of some supernode that runs.
    pub(super) fn kill_one(&mut self) {
        let at = self.world.below(self.alive.len() as u64) as usize;
        let index = self.alive.swap_remove(at);
        self.world.kill(self.members[index].node);
    }

    /// A supernode comes into being; the next bulletin, which comes at once, names it.
    pub(super) fn join(&mut self) {
        let keys = enrol(&mut self.issuer, &mut self.world, self.members.len());
        self.sign_bulletin();
        self.place(keys, true);
    }

    /// Signs a bulletin and hands it to whoever waits for it.
    pub(super) fn sign_bulletin(&mut self) {
        let now = self.world.now();
        self.bulletin = self.issuer.bulletin(now.unix);
        self.next_bulletin = now.mono + BULLETIN_EVERY;
        if let Some(desk) = self.desk.filter(|desk| self.world.is_alive(*desk)) {
            let newest = Issued { epoch: self.bulletin.epoch, bytes: self.bulletin.bytes().to_vec() };
            self.world.with::<Desk, _>(desk, |machine, now| machine.handle_command(now, newest));
        }
    }

    /// Lets time pass. The login server, when it runs, signs a bulletin every ten minutes.
    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.world.now().mono + span;
        while self.next_bulletin <= end {
            let wait = self.next_bulletin.since(self.world.now().mono);
            self.world.run_for(wait);
            match self.desk.is_some_and(|desk| self.world.is_alive(desk)) {
                true => self.sign_bulletin(),
                false => self.next_bulletin += BULLETIN_EVERY,
            }
        }
        let rest = end.since(self.world.now().mono);
        self.world.run_for(rest);
    }

    /// A device that asks supernodes, of an account that nobody looks up.
    pub(super) fn asker(&mut self) -> DeviceKeys {
        let now = self.world.now().unix;
        let SimRing { issuer, world, .. } = self;
        issuer.account(now, "asker", 1, || world.seed()).devices.remove(0)
    }

    /// Puts a supernode into a half.
    pub(super) fn set_group(&mut self, index: usize, group: u8) {
        self.members[index].group = group;
        self.world.set_group(self.members[index].node, group);
    }

    /// Epoch of the newest bulletin.
    pub(super) fn epoch(&self) -> u64 {
        self.bulletin.epoch
    }

    /// Revokes a device that plays no part, by a bulletin that a new login server tells one member alone.
    pub(super) fn revoke_one(&mut self) {
        let revoked = self.asker();
        self.issuer.revoke(&revoked.credential);
        self.sign_bulletin();
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(20, 0, 0, 2)), 4433);
        self.place_desk(addr);
        let told = self.pick();
        self.world.with::<Supernode, _>(self.members[told].node, |supernode, now| {
            supernode.handle_command(now, Command::LoginServers(vec![addr]));
        });
    }

    /// Some supernode that runs.
    pub(super) fn pick(&mut self) -> usize {
        let at = self.world.below(self.alive.len() as u64) as usize;
        self.alive[at]
    }

    /// Some supernode of a group that runs.
    pub(super) fn pick_of(&mut self, group: u8) -> usize {
        loop {
            let picked = self.pick();
            if self.members[picked].group == group {
                return picked;
            }
        }
    }

    /// Some account.
    pub(super) fn pick_account(&mut self) -> usize {
        self.world.below(self.accounts.len() as u64) as usize
    }

    /// What all supernodes have sent so far, and the ones that are gone.
    pub(super) fn sent(&self) -> Traffic {
        let mut sent = Traffic::default();
        for member in &self.members {
            sent += self.world.sent_by(member.node);
        }
        sent
    }

    /// Looks at every supernode that runs.
    pub(super) fn all(&mut self, mut holds: impl FnMut(&Supernode) -> bool) -> bool {
        let SimRing { world, members, alive, .. } = self;
        alive.iter().all(|index| world.look::<Supernode, _>(members[*index].node, &mut holds))
    }

    /// Signs an account's next entry, which names two homes that run.
    pub(super) fn publication(&mut self, account: usize) -> (u64, Publication) {
        let picked = [self.pick(), self.pick()];
        let mut homes: Vec<NodeId> =
            picked.iter().map(|home| self.members[*home].keys.credential.node).collect();
        homes.dedup();
        let issued = self.world.now().unix;
        let account = &mut self.accounts[account];
        account.sequence += 1;
        let device = &account.keys.devices[0];
        let fields = ContactEntryFields {
            device: device.credential.node,
            sequence: account.sequence,
            issued,
            expires: issued + CONTACT_ENTRY_LIFE,
            homes,
            capabilities: 1,
            nonce: [7; 16],
            credential: device.credential.hash(),
            withdrawn: false,
        };
        let entry = ContactEntry::sign(&device.key, &fields).unwrap();
        let (key, record) = (account.key(), account.record().to_vec());
        (account.sequence, Publication { key, account: record, entry: entry.bytes().to_vec() })
    }
}

fn desk_addr() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(20, 0, 0, 1)), 4433)
}

/// Where the n-th supernode is reached over UDP and TCP: a /24 for each.
fn addrs(number: usize) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 1, 0, 1)) + 256 * number as u32);
    let at = |port| SocketAddr::new(IpAddr::V4(ip), port);
    (vec![at(4433)], vec![at(4433), at(443)])
}

fn enrol(issuer: &mut Issuer, world: &mut World, number: usize) -> SupernodeKeys {
    let (udp, tcp) = addrs(number);
    let now = world.now().unix;
    issuer.supernode(now, udp, tcp, || world.seed())
}
