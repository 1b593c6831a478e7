//! How the instrument asks a supernode: the one place that knows by what way.
//!
//! Reads are asked of the supernode itself, which tells what they took; writes by a device that stands beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use yodel_overlay::record::{Scope, WriteRequest, WriteStatus};
use yodel_overlay::ring::Report;
use yodel_overlay::verify::LookupResult;
use yodel_supernode::node::{Command, Event};
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

use super::player::Player;
use super::probe::Probe;
use super::ring::SimRing;
use crate::sim::issuer::DeviceKeys;
use crate::sim::world::{NodeIndex, Place};

/// What a supernode said about an operation.
pub(super) struct Word {
    /// The operation, as given when it was asked for.
    pub(super) op: u64,
    pub(super) at: Instant,
    pub(super) said: Said,
}

/// See [`Word`].
pub(super) enum Said {
    /// To a read; follows once more when it is not settled.
    Looked { result: Box<LookupResult>, report: Report },
    /// To a write.
    Written(WriteStatus),
    /// Nothing: it was killed.
    Died,
}

impl Said {
    fn is_last(&self) -> bool {
        match self {
            Said::Looked { report, .. } => report.settled.is_some(),
            Said::Written(_) | Said::Died => true,
        }
    }
}

/// An account record and a contact entry, as signed, and the key they belong under.
pub(super) struct Publication {
    pub(super) key: [u8; 16],
    pub(super) account: Vec<u8>,
    pub(super) entry: Vec<u8>,
}

/// See the module's text.
pub(super) struct Askers {
    device: DeviceKeys,
    probes: BTreeMap<usize, NodeIndex>,
    /// What supernodes were asked and have not answered for good, by supernode; whether it was to be written.
    waiting: BTreeMap<usize, BTreeSet<(bool, u64)>>,
}

impl Askers {
    /// All that write are this one device, attached in many places.
    pub(super) fn new(device: DeviceKeys) -> Askers {
        Askers { device, probes: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Has a supernode look a key up, past its cache.
    pub(super) fn read(&mut self, ring: &mut SimRing, supernode: usize, op: u64, key: [u8; 16]) {
        self.waiting.entry(supernode).or_default().insert((false, op));
        let lookup = Command::Lookup { id: op, key, past_cache: true };
        ring.world.with::<Player, _>(ring.members[supernode].node, |player, now| {
            player.handle_command(now, lookup);
        });
    }

    /// Has a supernode write a publication to its holders.
    pub(super) fn write(&mut self, ring: &mut SimRing, supernode: usize, op: u64, what: Publication) {
        let Publication { key, account, entry } = what;
        let (account, entry) = (Some(account), Some(entry));
        let request = WriteRequest { id: op, key, scope: Scope::Walk, account, entry };
        let known = self.probes.get(&supernode).copied();
        let probe = known.unwrap_or_else(|| self.place(ring, supernode));
        ring.world.set_group(probe, ring.members[supernode].group);
        self.waiting.entry(supernode).or_default().insert((true, op));
        ring.world.with::<Probe, _>(probe, |probe, now| probe.handle_command(now, request));
    }

    /// Whoever stands beside this supernode is gone.
    pub(super) fn forget(&mut self, supernode: usize) {
        self.probes.remove(&supernode);
    }

    /// What was said since the last call, by ascending time for each operation.
    pub(super) fn words(&mut self, ring: &mut SimRing) -> Vec<Word> {
        let mut words = Vec::new();
        let now = ring.world.now().mono;
        for (supernode, open) in &mut self.waiting {
            let from = words.len();
            let node = ring.members[*supernode].node;
            if !ring.world.is_alive(node) {
                words.extend(open.iter().map(|(_, op)| Word { op: *op, at: now, said: Said::Died }));
                open.clear();
                continue;
            }
            if open.iter().any(|(is_write, _)| !is_write) {
                for (at, event) in ring.world.events::<Player>(node) {
                    if let Event::Looked { id, result, report } = event {
                        words.push(Word { op: id, at, said: Said::Looked { result, report } });
                    }
                }
            }
            if open.iter().any(|(is_write, _)| *is_write)
                && let Some(probe) = self.probes.get(supernode)
            {
                for (at, written) in ring.world.events::<Probe>(*probe) {
                    words.push(Word { op: written.id, at, said: Said::Written(written.status) });
                }
            }
            for word in &words[from..] {
                if word.said.is_last() {
                    open.remove(&(matches!(word.said, Said::Written(_)), word.op));
                }
            }
        }
        self.waiting.retain(|_, open| !open.is_empty());
        words
    }

    fn place(&mut self, ring: &mut SimRing, supernode: usize) -> NodeIndex {
        let member = &ring.members[supernode];
        let credential = self.device.credential.bytes().to_vec();
        let machine = Probe::new(member.addr, member.keys.key.public().0, credential, [1; 16]);
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(60, 0, 0, 0)) + supernode as u32);
        let addr = SocketAddr::new(IpAddr::V4(ip), 5_000);
        let place = Place { addr, ports: Vec::new(), nat: None, key: self.device.key.public().0 };
        let probe = ring.world.add(place, machine);
        ring.world.set_beside(probe, member.node);
        self.probes.insert(supernode, probe);
        probe
    }
}
