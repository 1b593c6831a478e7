//! `yodel-lab ring flood`: junk and forgeries at one supernode, from one sender on loopback, while the others are asked
//! for records. What is sent:
//!
//! | share | |
//! |---|---|
//! | 3 of 10 | the overlay's first byte and noise behind it |
//! | 3 of 10 | real members' ids with both key ids right, the box noise: all that a stranger can know |
//! | 1 of 10 | the same with a sender's key id that is nobody's |
//! | 1 of 10 | the same with a key id of the target's that it does not have |
//! | 1 of 10 | ids that nobody has |
//! | 1 of 10 | what members sent to the target a moment ago, byte by byte; root alone can record it, else more forgeries |

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};
use yodel_identity::bulletin::Bulletin;
use yodel_identity::keys::SealingPublic;
use yodel_identity::node::NodeId;
use yodel_net::clock::Clock;
use yodel_overlay::sealed::{HEADER_BYTES, KeyId};
use yodel_wire::first_byte::{DATAGRAM_VERSION, OVERLAY};

use super::crowd::Crowd;
use super::figures::{Carried, round, usage};
use super::place::within;
use super::world::{World, block_on, failed};
use crate::lab::LabError;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Supernodes; the first is the target.
    pub supernodes: usize,
    /// Accounts.
    pub accounts: usize,
    /// How long it is flooded.
    pub lasts: Duration,
    /// Datagrams a second.
    pub rate: u32,
    /// Lookups a second meanwhile, by devices of other supernodes.
    pub lookups_per_s: u32,
    /// For whatever is left to chance.
    pub seed: u64,
}

/// How long is looked up before the flood, to compare.
const BEFORE: Duration = Duration::from_secs(5);

/// Different datagrams; each is sent again with another counter, but for those that were recorded.
const KINDS: usize = 4_096;

/// How long the members' pairs are waited for: they are derived 64 a second, ahead of need.
const DERIVED_WITHIN: Duration = Duration::from_secs(30);

/// What memory may grow by.
const GROWTH_MIB: f64 = 64.0;

/// Does it. `ok` in the result says whether memory stayed bounded and lookups went on.
///
/// # Errors
/// A program is missing or fails.
pub fn run(work: Flood) -> Result<Value, LabError> {
    within(|place| {
        if work.supernodes < 2 {
            return Err(failed("flood", "there must be another supernode than the target"));
        }
        let mut world = World::start(place, work.supernodes, work.seed)?;
        block_on(async {
            let homes: Vec<usize> = (1..work.supernodes).collect();
            let crowd = Crowd::attach(&mut world, work.accounts, &homes).await?;
            crowd.write_first().await?;
            let pairs = crowd.pairs(&mut world, 1_000);
            let target = world.address(0);
            let recorder = Recorder::start(&world, target);
            let before = crowd.look_up_steadily(&world, &pairs, work.lookups_per_s, BEFORE).await;
            let recorded = recorder.map(Recorder::stop).unwrap_or_default();
            if recorded.is_empty() {
                eprintln!("yodel-lab: nothing could be recorded, so nothing is replayed");
            }
            let kinds = datagrams(&mut world, &crowd, &recorded)?;
            all_derived(&world).await?;
            let pid = world.realm.supernodes[0].process.as_ref().map_or(0, |process| process.id());
            let (used, status) = (usage(pid), world.realm.supernode_status(0)?);
            let watching = Watching::start(pid);
            let sender = Sender::start(world.clock(), target, kinds, work.rate)?;
            let (began, carried) = (world.now(), Carried::now());
            let during = crowd.look_up_steadily(&world, &pairs, work.lookups_per_s, work.lasts).await;
            let took = world.now().since(began);
            let sent = sender.stop();
            let taken_in = Carried::now().since(carried).datagrams;
            let most = watching.stop().await;
            let after_use = usage(pid);
            let after = crowd.look_up_steadily(&world, &pairs, work.lookups_per_s, BEFORE).await;
            let status_after = world.realm.supernode_status(0)?;
            let growth = round(most - used.rss_mib);
            let members = status_after["members"].as_u64();
            let agreed = (status["agreements"].as_u64(), status_after["agreements"].as_u64());
            let ok = growth <= GROWTH_MIB
                && agreed.0 == agreed.1
                && during.success() >= 0.999
                && members == u64::try_from(work.supernodes).ok();
            Ok(json!({
                "v": 1,
                "bench": "ring-flood",
                "ok": ok,
                "supernodes": work.supernodes,
                "sent": sent,
                "sent_per_s": round(sent as f64 / took.as_secs_f64()),
                // What sockets took in, little else than these; the rest the kernel dropped from a full queue.
                "taken_in": world.alone.then_some(taken_in),
                "seconds": round(took.as_secs_f64()),
                "rss_mib": { "before": round(used.rss_mib), "most": round(most), "growth": growth },
                "target_cpu_s": round(after_use.cpu_s - used.cpu_s),
                "recorded": recorded.len(),
                "agreements": { "before": agreed.0, "after": agreed.1 },
                "counters": { "before": status["counters"], "after": status_after["counters"] },
                "members_seen": members,
                "lookups_before": before.report(),
                "lookups_during": during.report(),
                "lookups_after": after.report(),
            }))
        })?
    })
}

/// Waits until the target agreed on a key with every other member.
async fn all_derived(world: &World) -> Result<(), LabError> {
    let others = u64::try_from(world.running().len()).unwrap_or(0).saturating_sub(1);
    let began = world.now();
    loop {
        let status = world.realm.supernode_status(0)?;
        if status["agreements"].as_u64() >= Some(others) {
            return Ok(());
        }
        if world.now().since(began) >= DERIVED_WITHIN {
            return Err(failed("the members' keys", status.to_string()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One datagram of the flood.
struct Kind {
    bytes: Vec<u8>,
    /// Sent as it was recorded.
    recorded: bool,
}

/// The datagrams, for the first supernode.
fn datagrams(world: &mut World, crowd: &Crowd, recorded: &[Vec<u8>]) -> Result<Vec<Kind>, LabError> {
    let bulletin = crowd.devices.iter().find_map(|device| device.bulletin());
    let bulletin = bulletin.and_then(|bytes| Bulletin::decode_unverified(&bytes).ok());
    let bulletin = bulletin.ok_or_else(|| failed("the bulletin", "no home sent one"))?;
    let members: Vec<(NodeId, SealingPublic)> =
        bulletin.supernodes.iter().map(|entry| (entry.credential.node, entry.credential.sealing)).collect();
    let own = world.node(0).and_then(|node| members.iter().find(|(member, _)| *member == node));
    let own = KeyId::of(&own.ok_or_else(|| failed("the bulletin", "the target is not named"))?.1);
    let mut rng = ChaCha20Rng::seed_from_u64(world.rng.next_u64());
    let mut noise = |bytes: &mut [u8]| rng.fill_bytes(bytes);
    let made = (0..KINDS).map(|number| {
        let mut size = [0; 2];
        noise(&mut size);
        // As short as a header alone and as long as any datagram.
        let size = HEADER_BYTES + usize::from(u16::from_be_bytes(size)) % (1_200 - HEADER_BYTES);
        let mut datagram = vec![0; size];
        noise(&mut datagram);
        datagram[0] = OVERLAY;
        let (member, sealing) = members[number % members.len()];
        let key = KeyId::of(&sealing);
        let kind = number % 10;
        if kind == 9 && !recorded.is_empty() {
            let bytes = recorded[number / 10 % recorded.len()].clone();
            return Kind { bytes, recorded: true };
        }
        if kind >= 3 {
            datagram[1] = DATAGRAM_VERSION;
        }
        if kind >= 4 {
            datagram[2..18].copy_from_slice(&member.0);
        }
        if kind >= 5 {
            datagram[18..20].copy_from_slice(&key.0);
        }
        // The fifth alone names no key of the target's.
        if kind >= 3 && kind != 5 {
            datagram[20..22].copy_from_slice(&own.0);
        }
        Kind { bytes: datagram, recorded: false }
    });
    Ok(made.collect())
}

/// Keeps what members send to the target. Ends with [`Recorder::stop`].
struct Recorder {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Vec<u8>>>,
}

/// Datagrams that are kept.
const RECORDED_MAX: usize = 256;

impl Recorder {
    /// Begins, if the loopback is this realm's alone and packets on it may be seen.
    fn start(world: &World, target: SocketAddr) -> Option<Recorder> {
        if !world.alone {
            return None;
        }
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .ok()?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100)).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let mut packet = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) && kept.len() < RECORDED_MAX {
                // An error is mostly that nothing came for a while.
                let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).unwrap_or(0);
                let sealed = packet.get(..length).and_then(|packet| payload_for(packet, target));
                let sealed = sealed.filter(|bytes| bytes.first() == Some(&OVERLAY));
                // The loopback shows each packet twice.
                if let Some(bytes) = sealed.filter(|bytes| !kept.iter().any(|other| other == bytes)) {
                    kept.push(bytes.to_vec());
                }
            }
            kept
        });
        Some(Recorder { stop, thread })
    }

    /// What was kept.
    fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// What an Ethernet frame carries to this address over IPv4 and UDP.
fn payload_for(frame: &[u8], target: SocketAddr) -> Option<&[u8]> {
    const ETHERNET: usize = 14;
    const UDP: usize = 8;
    let packet = frame.get(ETHERNET..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_udp = packet.first()? >> 4 == 4 && *packet.get(9)? == 17;
    let to = std::net::Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?);
    let port = u16::from_be_bytes(*packet.get(header + 2..header + 4)?.first_chunk()?);
    let is_for = is_udp && SocketAddr::from((to, port)) == target;
    packet.get(header + UDP..).filter(|_| is_for)
}

/// Sends on a thread of its own.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Sender {
    /// Begins. The thread is born in the namespace of this one.
    fn start(clock: Clock, target: SocketAddr, mut kinds: Vec<Kind>, rate: u32) -> Result<Sender, LabError> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(target)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let began = clock.now().mono;
            let mut next: u64 = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = (clock.now().mono.since(began).as_micros() * u128::from(rate) / 1_000_000) as u64;
                // Never more than a twentieth of a second's worth at once, should this thread have had to wait.
                next = next.max(due.saturating_sub(u64::from(rate / 20)));
                while next < due {
                    let length = kinds.len();
                    let Kind { bytes, recorded } = &mut kinds[(next % length as u64) as usize];
                    if !*recorded && bytes.len() >= HEADER_BYTES {
                        bytes[30..38].copy_from_slice(&next.to_be_bytes());
                    }
                    // A full queue at the receiver is the receiver's affair; an error means that nobody is there.
                    if socket.send(bytes).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    next += 1;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        Ok(Sender { stop, sent, thread })
    }

    /// Ends; returns how many were sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Looks at a process's memory four times a second.
struct Watching {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<f64>,
}

impl Watching {
    fn start(pid: u32) -> Watching {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::task::spawn_local(async move {
            let mut most: f64 = 0.0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(usage(pid).rss_mib);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            most.max(usage(pid).rss_mib)
        });
        Watching { stop, task }
    }

    /// The most there was, MiB.
    async fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or(f64::MAX)
    }
}
