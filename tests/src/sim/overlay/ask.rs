//! How the instrument asks a supernode: the one place that knows by what way.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use yodel_overlay::record::{ReadRequest, Scope, Standing, WriteRequest, WriteStatus};
use yodel_wire::machine::Machine;
use yodel_wire::time::Instant;

use super::probe::{Ask, Heard, Probe};
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
    Found { standing: Standing, account: Option<Vec<u8>>, entries: Vec<Vec<u8>>, settled: bool },
    /// To a write.
    Written(WriteStatus),
}

impl Said {
    fn is_last(&self) -> bool {
        match self {
            Said::Found { settled, .. } => *settled,
            Said::Written(_) => true,
        }
    }
}

/// An account record and a contact entry, as signed, and the key they belong under.
pub(super) struct Publication {
    pub(super) key: [u8; 16],
    pub(super) account: Vec<u8>,
    pub(super) entry: Vec<u8>,
}

/// Asks supernodes, by a device that stands beside each of them.
pub(super) struct Askers {
    device: DeviceKeys,
    probes: BTreeMap<usize, NodeIndex>,
    /// Probes that wait for answers, and for how many.
    waiting: BTreeMap<NodeIndex, usize>,
}

impl Askers {
    /// All askers are this one device, attached in many places.
    pub(super) fn new(device: DeviceKeys) -> Askers {
        Askers { device, probes: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Has a supernode look a key up, past its cache.
    pub(super) fn read(&mut self, ring: &mut SimRing, supernode: usize, op: u64, key: [u8; 16]) {
        let request = ReadRequest { id: op, key, scope: Scope::Walk, past_cache: true };
        self.ask(ring, supernode, Ask::Read(request));
    }

    /// Has a supernode write a publication to its holders.
    pub(super) fn write(&mut self, ring: &mut SimRing, supernode: usize, op: u64, what: Publication) {
        let Publication { key, account, entry } = what;
        let (account, entry) = (Some(account), Some(entry));
        self.ask(
            ring,
            supernode,
            Ask::Write(WriteRequest { id: op, key, scope: Scope::Walk, account, entry }),
        );
    }

    /// What was said since the last call, by ascending time for each operation.
    pub(super) fn words(&mut self, ring: &mut SimRing) -> Vec<Word> {
        let mut words = Vec::new();
        self.waiting.retain(|probe, waiting| {
            for (at, heard) in ring.world.events::<Probe>(*probe) {
                let (op, said) = match heard {
                    Heard::Answer(answer) => {
                        let (standing, account, settled) = (answer.standing, answer.account, answer.settled);
                        (answer.id, Said::Found { standing, account, entries: answer.entries, settled })
                    }
                    Heard::Written(written) => (written.id, Said::Written(written.status)),
                };
                *waiting = waiting.saturating_sub(usize::from(said.is_last()));
                words.push(Word { op, at, said });
            }
            *waiting > 0
        });
        words
    }

    fn ask(&mut self, ring: &mut SimRing, supernode: usize, ask: Ask) {
        let known = self.probes.get(&supernode).copied();
        let probe = known.unwrap_or_else(|| self.place(ring, supernode));
        ring.world.set_group(probe, ring.members[supernode].group);
        *self.waiting.entry(probe).or_default() += 1;
        ring.world.with::<Probe, _>(probe, |probe, now| probe.handle_command(now, ask));
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
