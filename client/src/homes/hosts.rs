//! The supernodes a phone knows: those that the bulletin names, and those whose cards it got, which it remembers over
//! restarts (the host cache).
//!
//! Of two sources that disagree about an address, the one that spoke last comes first; the other stays as a second try.
//! Nothing is believed that an issuer and the supernode itself did not sign.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::bulletin::SupernodeEntry;
use yodel_identity::credential::Credential;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::Realm;
use yodel_overlay::card::{Announcement, Card, Service};
use yodel_wire::machine::Write;
use yodel_wire::time::{Instant, Now, UnixTime};

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, HOST_ADDRESSES_MAX, HOSTS_MAX};

/// Store tree of remembered cards, by node id.
pub const HOSTS: &str = "hosts";

/// A supernode, as far as it is known.
#[derive(Debug)]
pub(super) struct Host {
    /// The newest credential seen of it.
    pub(super) credential: Credential,
    pub(super) owner: Option<OwnerTag>,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
    /// As the newest bulletin that names it says.
    entry: Option<SupernodeEntry>,
    card: Option<Card>,
    /// Attempts that failed since the last that did not.
    pub(super) failures: u32,
    /// Left in peace until then.
    pub(super) not_before: Option<Instant>,
    /// A draw that differs from phone to phone: who is as near as another is taken by it.
    pub(super) order: u64,
    /// The last answered probe: round trip, from where, and when.
    pub(super) probed: Option<Probed>,
    /// It did not answer the last probe.
    pub(super) silent: bool,
    /// It answered a probe that it has no room, and was not asked whereto instead.
    pub(super) is_full: bool,
}

/// An answered probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    pub(super) rtt: Duration,
    pub(super) addr: SocketAddr,
    pub(super) at: Instant,
}

impl Host {
    fn new(credential: Credential, order: u64) -> Host {
        Host {
            owner: credential.owner(),
            credential,
            udp: Vec::new(),
            tcp: Vec::new(),
            entry: None,
            card: None,
            failures: 0,
            not_before: None,
            order,
            probed: None,
            silent: false,
            is_full: false,
        }
    }

    /// Where to reach it over UDP: where it answered last, or the next of its addresses.
    pub(super) fn udp_addr(&self) -> Option<SocketAddr> {
        let next = || self.udp.get(self.failures as usize % self.udp.len().max(1)).copied();
        self.probed.map(|probed| probed.addr).filter(|addr| self.udp.contains(addr)).or_else(next)
    }

    pub(super) fn may_be_tried(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now) && !self.has_left()
    }

    /// Known by the bulletin alone, which names the same few to everybody.
    pub(super) fn is_everybodys(&self) -> bool {
        self.card.is_none()
    }

    /// Said that it serves no longer.
    pub(super) fn has_left(&self) -> bool {
        self.card.as_ref().is_some_and(|card| card.announcement().service == Service::Left)
    }

    fn take_credential(&mut self, credential: &Credential) {
        if credential.serial >= self.credential.serial {
            self.credential = credential.clone();
            self.owner = credential.owner();
        }
    }

    fn set_addresses(&mut self, card_first: bool) {
        let (mut udp, mut tcp): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        let card = self.card.as_ref().map(|card| card.announcement());
        let card = card.map(|said| (said.udp.as_slice(), said.tcp.as_slice()));
        let entry = self.entry.as_ref().map(|entry| (entry.udp.as_slice(), entry.tcp.as_slice()));
        let sources = if card_first { [card, entry] } else { [entry, card] };
        for (more_udp, more_tcp) in sources.into_iter().flatten() {
            add_new(&mut udp, more_udp);
            add_new(&mut tcp, more_tcp);
        }
        udp.shrink_to_fit();
        tcp.shrink_to_fit();
        (self.udp, self.tcp) = (udp, tcp);
    }
}

fn add_new(list: &mut Vec<SocketAddr>, more: &[SocketAddr]) {
    for addr in more {
        if !list.contains(addr) && list.len() < HOST_ADDRESSES_MAX {
            list.push(*addr);
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<NodeId, Host>,
    writes: Vec<Write>,
}

impl Hosts {
    pub(super) fn get(&self, node: NodeId) -> Option<&Host> {
        self.hosts.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Host> {
        self.hosts.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Host)> {
        self.hosts.iter().map(|(node, host)| (*node, host))
    }

    /// Who the newest bulletin names. Whom it names no longer is forgotten unless a card or a link speaks for them.
    pub(super) fn set_bulletin(
        &mut self,
        entries: &[SupernodeEntry],
        in_use: &BTreeSet<NodeId>,
        rng: &mut impl RngCore,
    ) {
        let mut unnamed: BTreeSet<NodeId> = self.hosts.keys().copied().collect();
        for entry in entries {
            let node = entry.credential.node;
            unnamed.remove(&node);
            let host =
                self.hosts.entry(node).or_insert_with(|| Host::new(entry.credential.clone(), rng.next_u64()));
            host.take_credential(&entry.credential);
            let same = |old: &SupernodeEntry| old.udp == entry.udp && old.tcp == entry.tcp;
            if !host.entry.as_ref().is_some_and(same) {
                host.entry = Some(entry.clone());
                host.set_addresses(false);
            }
        }
        for node in unnamed {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            host.entry = None;
            if host.card.is_some() {
                host.set_addresses(true);
            } else if !in_use.contains(&node) {
                self.hosts.remove(&node);
            }
        }
    }

    /// A card came. `afford` is asked before a signature is checked. Whose it is, when that supernode is known now.
    pub(super) fn learn(
        &mut self,
        now: Now,
        realm: &Realm,
        bytes: &[u8],
        afford: impl FnOnce() -> bool,
        rng: &mut impl RngCore,
    ) -> Option<NodeId> {
        let (credential, announcement) = Card::split(bytes).ok()?;
        let said = Announcement::decode_unverified(announcement).ok()?;
        let held = self.hosts.get(&said.node).and_then(|host| host.card.as_ref());
        let rank = |card: &Card| (card.announcement().incarnation, card.credential().serial);
        if held.is_some_and(|held| (said.incarnation, said.serial) <= rank(held)) {
            return Some(said.node);
        }
        if !afford() {
            return None;
        }
        let card = Card::verify(realm, credential, announcement).ok()?;
        realm.check_alive(card.credential(), now.unix).ok()?;
        let node = card.node();
        let host = self.hosts.entry(node);
        let host = host.or_insert_with(|| Host::new(card.credential().clone(), rng.next_u64()));
        host.take_credential(card.credential());
        host.card = Some(card);
        host.set_addresses(true);
        self.writes.push(Write {
            tree: HOSTS,
            key: node.0.to_vec(),
            value: Some(bytes.to_vec()),
            journaled: false,
        });
        Some(node)
    }

    /// A card that an earlier start kept: verified again, and forgotten for good when it is not to be believed.
    pub(super) fn load(&mut self, now: Now, realm: &Realm, key: &[u8], bytes: &[u8], rng: &mut impl RngCore) {
        let full = self.hosts.len() >= HOSTS_MAX;
        let written = self.writes.len();
        let known = if full { None } else { self.learn(now, realm, bytes, || true, rng) };
        self.writes.truncate(written);
        if known.is_none_or(|node| node.0 != key) {
            self.writes.push(Write { tree: HOSTS, key: key.to_vec(), value: None, journaled: false });
        }
    }

    /// Forgets whose credential is over or revoked, who left, and the worst of those that are too many.
    pub(super) fn sweep(&mut self, now: UnixTime, realm: &Realm, in_use: &BTreeSet<NodeId>) {
        let is_over = |host: &Host| {
            host.has_left() && host.entry.is_none() || realm.check_alive(&host.credential, now).is_err()
        };
        let mut gone: Vec<NodeId> = self
            .hosts
            .iter()
            .filter(|(node, host)| is_over(host) && !in_use.contains(node))
            .map(|(node, _)| *node)
            .collect();
        let mut rest: Vec<(u32, u64, NodeId)> = self
            .hosts
            .iter()
            .filter(|(node, host)| host.card.is_some() && !gone.contains(node))
            .map(|(node, host)| (host.failures, host.order, *node))
            .collect();
        let surplus = rest.len().saturating_sub(HOSTS_MAX);
        rest.retain(|(.., node)| !in_use.contains(node));
        rest.sort_unstable_by(|a, b| b.cmp(a));
        gone.extend(rest.into_iter().take(surplus).map(|(.., node)| node));
        for node in gone {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            if host.card.is_some() {
                let key = node.0.to_vec();
                self.writes.push(Write { tree: HOSTS, key, value: None, journaled: false });
            }
            if host.entry.is_some() && realm.check_alive(&host.credential, now).is_ok() {
                host.card = None;
                host.set_addresses(false);
            } else {
                self.hosts.remove(&node);
            }
        }
    }

    /// What shall be stored.
    pub(super) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// An attempt failed: a pause with full jitter, longer each time (DESIGN §4, Attachment).
    pub(super) fn failed(&mut self, now: Instant, node: NodeId, rng: &mut impl RngCore) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let longest = BACKOFF_FIRST.saturating_mul(1 << host.failures.min(4)).min(BACKOFF_MAX);
        host.failures = host.failures.saturating_add(1);
        host.not_before = Some(now + jitter(longest, rng));
        host.probed = None;
    }

    /// It asked to be left in peace for a while; that is no failure.
    pub(super) fn wait(&mut self, now: Instant, node: NodeId, pause: Duration, rng: &mut impl RngCore) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let pause = if pause.is_zero() { jitter(BACKOFF_FIRST, rng) } else { pause.min(BACKOFF_MAX) };
        let at = now + pause;
        host.not_before = Some(host.not_before.map_or(at, |before| before.max(at)));
    }
}

/// A random part of a span.
pub(super) fn jitter(longest: Duration, rng: &mut impl RngCore) -> Duration {
    let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(rng.next_u64() % micros)
}
