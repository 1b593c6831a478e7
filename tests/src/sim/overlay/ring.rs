//! A realm of any number of supernodes, each in a /24 and of an owner of its own, with accounts to look up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use yodel_identity::bulletin::Bulletin;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::node::NodeId;
use yodel_overlay::directory::{Directory, Slot};
use yodel_overlay::limits::CONTACT_ENTRY_LIFE;
use yodel_overlay::membership::Health;
use yodel_overlay::record::{ContactEntry, ContactEntryFields};
use yodel_overlay::ring::Config as RingConfig;
use yodel_supernode::node::{
    BULLETIN_KEY, Command, Config, INCARNATION_KEY, KnownMembers, REALM as REALM_TREE, RECORDS,
    SharedMembers, Stored, Supernode,
};
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

use super::ask::Publication;
use super::desk::{Desk, Issued};
use super::liar::{LIES, Liar, Plot};
use super::player::Player;
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

/// An account and what its devices wrote.
pub(super) struct Account {
    keys: AccountKeys,
    pub(super) devices: Vec<Device>,
}

/// What one device wrote.
#[derive(Clone, Default)]
pub(super) struct Device {
    /// Of the newest entry signed.
    sequence: u64,
    /// The newest sequence that a supernode acknowledged.
    pub(super) acknowledged: u64,
    /// The newest entry signed, and the one before.
    newest: Option<Vec<u8>>,
    older: Option<Vec<u8>>,
}

impl Account {
    pub(super) fn key(&self) -> [u8; 16] {
        self.keys.aor.key()
    }

    pub(super) fn record(&self) -> &[u8] {
        self.keys.record.bytes()
    }

    /// Whose entry this is, as a number of its devices.
    pub(super) fn device(&self, node: NodeId) -> Option<usize> {
        self.keys.devices.iter().position(|device| device.credential.node == node)
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
    /// What liars know, once there are any.
    plot: Rc<RefCell<Plot>>,
}

impl SimRing {
    /// A realm with a login server, all supernodes up, nothing published. Every account has so many devices.
    pub(super) fn new(seed: u64, rtt: Duration, supernodes: u32, accounts: u32, devices: u32) -> SimRing {
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
                // Short, so that the record of an account with two devices fits one datagram.
                let name = format!("u{number}");
                let keys = issuer.account(now.unix, &name, devices, || world.seed());
                Account { keys, devices: vec![Device::default(); devices as usize] }
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
            plot: Rc::default(),
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
        let newest =
            Issued { epoch: self.bulletin.epoch, bytes: self.bulletin.bytes().to_vec(), urgent: false };
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
        let index = self.members.len();
        let (udp, _) = addrs(index);
        let members =
            KnownMembers::Shared(SharedMembers { directory: self.directory.clone(), slots: Arc::from([]) });
        let bulletin = Some(self.bulletin.bytes().to_vec());
        let stored = Stored { bulletin, members, ..Stored::default() };
        let machine = self.machine(index, &keys, newcomer, &stored);
        let place = Place { addr: udp[0], ports: vec![443], nat: None, key: keys.key.public().0 };
        let node = self.world.add(place, machine);
        let known = (keys.credential.node, keys.sealing.public());
        self.plot.borrow_mut().peers.insert(udp[0], known);
        self.members.push(Member { node, addr: udp[0], keys, group: 0 });
        self.alive.push(index);
        self.tell_desk(index);
        index
    }

    fn machine(&mut self, index: usize, keys: &SupernodeKeys, standby: bool, stored: &Stored) -> Player {
        let now = self.world.now();
        let (udp, tcp) = addrs(index);
        let mut config = Config::new(udp, tcp);
        config.allow_loopback = false;
        // What was agreed on ahead of need would be agreed on by everybody with everybody.
        config.ring = RingConfig { derive_ahead: 0, standby, ..RingConfig::default() };
        let seed = self.world.seed();
        let machine = Supernode::new(now, self.issuer.key_file(keys), config, stored, seed).unwrap();
        Player::new(now, machine)
    }

    fn tell_desk(&mut self, index: usize) {
        self.world.with::<Player, _>(self.members[index].node, |player, now| {
            player.handle_command(now, Command::LoginServers(vec![desk_addr()]));
        });
    }

    /// Everybody knows everybody, as after a restart of all with their stores.
    fn introduce(&mut self) {
        let mut slots = Vec::new();
        for member in &self.members {
            self.world.look::<Player, _>(member.node, |player| {
                slots.push(player.supernode.ring().membership().me());
            });
        }
        let known = SharedMembers { directory: self.directory.clone(), slots: slots.into() };
        for member in &self.members {
            self.world.with::<Player, _>(member.node, |player, now| {
                player.supernode.load_members(now, &known);
            });
        }
    }

    /// A supernode that was killed begins again with what it had on its disk.
    pub(super) fn restart(&mut self, index: usize) {
        // The cards are kept in one directory for all: what one member has now stands for what this one had stored.
        let other = self.members[self.alive[0]].node;
        let own = self.members[index].keys.credential.node;
        let slots: Vec<Slot> = self.world.look::<Player, _>(other, |player| {
            let membership = player.supernode.ring().membership();
            let known = membership.known().map(|(slot, _)| slot);
            known.filter(|slot| membership.node_of(*slot) != Some(own)).collect()
        });
        let shared = SharedMembers { directory: self.directory.clone(), slots: slots.into() };
        let node = self.members[index].node;
        let disk = self.world.disk(node);
        let value = |key: &[u8]| disk.get(&(REALM_TREE, key.to_vec())).cloned();
        let records = disk.iter().filter(|((tree, _), _)| *tree == RECORDS);
        let incarnation = value(INCARNATION_KEY)
            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes were stored")));
        let stored = Stored {
            // The one it began with was never written.
            bulletin: value(BULLETIN_KEY).or_else(|| Some(self.bulletin.bytes().to_vec())),
            records: records.map(|((_, key), value)| (key.clone(), value.clone())).collect(),
            members: KnownMembers::Shared(shared),
            incarnation,
        };
        let keys = SupernodeKeys {
            key: SigningKey::from_seed(*self.members[index].keys.key.seed()),
            sealing: SealingKey::from_bytes(*self.members[index].keys.sealing.to_bytes()),
            credential: self.members[index].keys.credential.clone(),
        };
        let machine = self.machine(index, &keys, true, &stored);
        self.world.restart(node, machine);
        self.alive.push(index);
        self.tell_desk(index);
    }

    /// `kill -9` of some supernode that runs.
    pub(super) fn kill_one(&mut self) -> usize {
        let at = self.world.below(self.alive.len() as u64) as usize;
        let index = self.alive.swap_remove(at);
        self.world.kill(self.members[index].node);
        index
    }

    /// A supernode comes into being; the next bulletin, which comes at once, names it.
    pub(super) fn join(&mut self) -> usize {
        let keys = enrol(&mut self.issuer, &mut self.world, self.members.len());
        self.sign_bulletin(false);
        self.place(keys, true)
    }

    /// What some member thinks of this one.
    pub(super) fn health(&mut self, of: usize, at: usize) -> Health {
        let node = self.members[of].keys.credential.node;
        self.world.look::<Player, _>(self.members[at].node, |player| {
            let membership = player.supernode.ring().membership();
            membership.slot_of(node).map_or(Health::Unknown, |slot| membership.health(slot))
        })
    }

    /// Tells liars who is who and what was written.
    fn brief(&self) {
        let mut plot = self.plot.borrow_mut();
        for account in &self.accounts {
            plot.keys.insert(account.record().to_vec(), account.key());
            let older = account.devices.iter().filter_map(|device| device.older.clone());
            plot.older.insert(account.key(), older.collect());
        }
    }

    /// So many holders of each account lie about it from now on, each in a way of its own.
    pub(super) fn corrupt_holders(&mut self, of_each: usize) {
        self.brief();
        let mut liars: BTreeMap<NodeId, usize> = BTreeMap::new();
        let at = self.members[self.alive[0]].node;
        let mut begin = 0;
        for account in 0..self.accounts.len() {
            let key = self.accounts[account].key();
            let mut holders =
                self.world.look::<Player, _>(at, |player| player.supernode.ring().holders_of(&key));
            for lie in LIES.into_iter().cycle().skip(begin).take(of_each.min(holders.len())) {
                let picked = self.world.below(holders.len() as u64) as usize;
                let node = holders.swap_remove(picked);
                self.plot.borrow_mut().lies.insert((key, node), lie);
                liars.insert(node, 0);
            }
            begin = (begin + 1) % LIES.len();
        }
        let members: Vec<usize> = (0..self.members.len())
            .filter(|index| liars.contains_key(&self.members[*index].keys.credential.node))
            .collect();
        for index in members {
            let liar = self.liar(index);
            self.world.with::<Player, _>(self.members[index].node, |player, _| player.corrupt(liar));
        }
    }

    /// So many members lie about members from now on; tells which.
    pub(super) fn corrupt_members(&mut self, count: usize) -> Vec<usize> {
        let mut members = self.alive.clone();
        let mut liars = Vec::new();
        for _ in 0..count.min(members.len()) {
            let picked = self.world.below(members.len() as u64) as usize;
            liars.push(members.swap_remove(picked));
        }
        let begin = self.world.now().mono;
        for index in &liars {
            let liar = self.liar(*index).gossiping(begin);
            self.world.with::<Player, _>(self.members[*index].node, |player, now| {
                player.corrupt(liar);
                player.handle_timeout(now);
            });
        }
        liars
    }

    fn liar(&mut self, index: usize) -> Liar {
        let keys = &self.members[index].keys;
        let sealing = SealingKey::from_bytes(*keys.sealing.to_bytes());
        let signing = SigningKey::from_seed(*keys.key.seed());
        let seed = self.world.seed();
        Liar::new(keys.credential.node, (sealing, signing), self.plot.clone(), seed)
    }

    /// Some supernode that runs and tells the truth of this account.
    pub(super) fn pick_honest(&mut self, account: usize) -> usize {
        let key = self.accounts[account].key();
        loop {
            let picked = self.pick();
            let node = self.members[picked].keys.credential.node;
            if !self.plot.borrow().lies.contains_key(&(key, node)) {
                return picked;
            }
        }
    }

    /// Looks at one supernode that runs.
    pub(super) fn look<R>(&mut self, index: usize, see: impl FnOnce(&Player) -> R) -> R {
        self.world.look::<Player, _>(self.members[index].node, see)
    }

    /// Signs a bulletin and hands it to whoever waits for it.
    pub(super) fn sign_bulletin(&mut self, urgent: bool) {
        let now = self.world.now();
        self.bulletin = self.issuer.bulletin(now.unix);
        self.next_bulletin = now.mono + BULLETIN_EVERY;
        if let Some(desk) = self.desk.filter(|desk| self.world.is_alive(*desk)) {
            let newest = Issued { epoch: self.bulletin.epoch, bytes: self.bulletin.bytes().to_vec(), urgent };
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
                true => self.sign_bulletin(false),
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
        self.sign_bulletin(true);
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(20, 0, 0, 2)), 4433);
        self.place_desk(addr);
        let told = self.pick();
        self.world.with::<Player, _>(self.members[told].node, |player, now| {
            player.handle_command(now, Command::LoginServers(vec![addr]));
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
        alive
            .iter()
            .all(|index| world.look::<Player, _>(members[*index].node, |player| holds(&player.supernode)))
    }

    /// Signs the next entry of a device of an account, which names two homes that run.
    pub(super) fn publication(&mut self, account: usize, device: usize) -> (u64, Publication) {
        let picked = [self.pick(), self.pick()];
        let mut homes: Vec<NodeId> =
            picked.iter().map(|home| self.members[*home].keys.credential.node).collect();
        homes.dedup();
        let issued = self.world.now().unix;
        let account = &mut self.accounts[account];
        let keys = &account.keys.devices[device];
        let written = &mut account.devices[device];
        written.sequence += 1;
        let fields = ContactEntryFields {
            device: keys.credential.node,
            sequence: written.sequence,
            issued,
            expires: issued + CONTACT_ENTRY_LIFE,
            homes,
            capabilities: 1,
            nonce: [7; 16],
            credential: keys.credential.hash(),
            withdrawn: false,
        };
        let entry = ContactEntry::sign(&keys.key, &fields).unwrap().bytes().to_vec();
        written.older = written.newest.replace(entry.clone());
        let sequence = written.sequence;
        (sequence, Publication { key: account.key(), account: account.record().to_vec(), entry })
    }

    /// The device of an account that wrote least.
    pub(super) fn next_device(&self, account: usize) -> usize {
        let devices = self.accounts[account].devices.iter().enumerate();
        devices.min_by_key(|(_, device)| device.sequence).map_or(0, |(index, _)| index)
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
