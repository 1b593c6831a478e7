//! What the driver and operators tell the machine, what they hear of it, and what it begins with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_overlay::directory::{Directory, Slot};
use yodel_overlay::membership::Health;
use yodel_overlay::ring::{Config as RingConfig, Report};
use yodel_overlay::verify::LookupResult;
use yodel_relay::server::ServerConfig;
use zeroize::Zeroizing;

use crate::limits::CLIENTS_MAX;

/// Tree of the store that holds records, by key.
pub const RECORDS: &str = "records";
/// Tree of the store that holds the newest bulletin, under [`BULLETIN_KEY`].
pub const REALM: &str = "realm";
/// Key of the newest bulletin in [`REALM`].
pub const BULLETIN_KEY: &[u8] = b"bulletin";
/// Key of the newest own incarnation in [`REALM`], 8 bytes, big-endian.
pub const INCARNATION_KEY: &[u8] = b"incarnation";
/// Tree of the store that holds the members' cards, by node id.
pub const MEMBERS: &str = "members";

/// Settings that do not change while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where others reach this supernode over UDP, as the bulletin shall say.
    pub advertise_udp: Vec<SocketAddr>,
    /// Where others reach it over TCP.
    pub advertise_tcp: Vec<SocketAddr>,
    /// Devices attached at once.
    pub clients_max: usize,
    /// What is relayed.
    pub relay: ServerConfig,
    /// Loopback addresses may be candidates: a realm that lives on one machine.
    pub allow_loopback: bool,
    /// Of the ring.
    pub ring: RingConfig,
}

impl Config {
    /// The defaults of `limits.rs`.
    pub fn new(advertise_udp: Vec<SocketAddr>, advertise_tcp: Vec<SocketAddr>) -> Config {
        let allow_loopback = !advertise_udp.is_empty() && advertise_udp.iter().all(|a| a.ip().is_loopback());
        Config {
            advertise_udp,
            advertise_tcp,
            clients_max: CLIENTS_MAX,
            relay: ServerConfig::default(),
            allow_loopback,
            ring: RingConfig::default(),
        }
    }
}

/// What an earlier run stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The newest bulletin.
    pub bulletin: Option<Vec<u8>>,
    /// Records by key.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// The members.
    pub members: KnownMembers,
    /// The newest own incarnation; 0 when none is known.
    pub incarnation: u64,
}

/// The members that an earlier run knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownMembers {
    /// As stored.
    Cards(Vec<Vec<u8>>),
    /// As another node of this process has verified them; see [`Directory`].
    Shared(SharedMembers),
}

/// Cards in a directory that several nodes of one process share.
#[derive(Clone, Debug)]
pub struct SharedMembers {
    /// The directory.
    pub directory: Directory,
    /// Who is in the table, if anybody is.
    pub slots: Arc<[Slot]>,
}

impl PartialEq for SharedMembers {
    fn eq(&self, other: &SharedMembers) -> bool {
        self.slots == other.slots
    }
}

impl Eq for SharedMembers {}

impl Default for KnownMembers {
    fn default() -> KnownMembers {
        KnownMembers::Cards(Vec::new())
    }
}

/// What the driver and operators ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Where the login server answers now.
    LoginServers(Vec<SocketAddr>),
    /// What [`Event::StoreKeys`] asked for was done.
    KeysStored,
    /// Tell how things stand; [`Event::Status`] follows with the same number.
    Status {
        /// Comes back with the answer.
        id: u64,
    },
    /// Look an account up as a device's home does; [`Event::Looked`] follows once or twice.
    Lookup {
        /// Comes back with the answer.
        id: u64,
        /// `Aor::key`.
        key: [u8; 16],
        /// Ask the holders even when an answer is cached.
        past_cache: bool,
    },
    /// Tell who is in the ring; [`Event::Members`] follows with the same number.
    Members {
        /// Comes back with the answer.
        id: u64,
    },
    /// Relay as much as this from now on.
    Relay(ServerConfig),
    /// Send newcomers elsewhere from now on, and those who are attached within this time.
    Drain {
        /// When the last one is told; who has no relayed call is told before.
        within: Duration,
    },
    /// Serve everybody again.
    Undrain,
    /// Leave in order; [`Event::Stopped`] follows at once.
    Stop,
}

/// What the driver and operators learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bulletin that names this supernode is held: it serves.
    Ready {
        /// This supernode.
        node: NodeId,
    },
    /// Write the key file, then answer with [`Command::KeysStored`].
    StoreKeys(Zeroizing<Vec<u8>>),
    /// How things stand.
    Status {
        /// As asked.
        id: u64,
        /// The answer.
        status: Status,
    },
    /// What a lookup found so far.
    Looked {
        /// As asked.
        id: u64,
        /// What was found.
        result: Box<LookupResult>,
        /// What it took.
        report: Report,
    },
    /// Who is in the ring, by ascending node id.
    Members {
        /// As asked.
        id: u64,
        /// The answer, this supernode included.
        members: Vec<MemberSeen>,
    },
    /// The login server's clock and ours differ by more than records allow.
    ClockOff {
        /// By how much.
        by: Duration,
    },
    /// This supernode's credential was revoked: nobody links with it any more.
    Revoked,
    /// A link to the login server came up, or ended.
    LoginServer {
        /// Which of the two.
        up: bool,
    },
    /// Records cannot be stored: the disk is full or broken.
    NotStored,
    /// Everything is said; the driver may end.
    Stopped,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This supernode.
    pub node: NodeId,
    /// Members that count now, this one among them.
    pub members: usize,
    /// Members held dead, which are still asked now and then.
    pub dead: usize,
    /// Key agreements with members since the start.
    pub agreements: u64,
    /// Attached devices.
    pub clients: usize,
    /// Accounts whose records are kept here.
    pub records: usize,
    /// Relay sessions with both ends.
    pub relays: usize,
    /// Whether newcomers are sent elsewhere.
    pub draining: bool,
    /// Epoch of the newest bulletin.
    pub epoch: u64,
    /// Whether the link to the login server is up.
    pub login_server: bool,
    /// Counters since the start.
    pub counters: Counters,
}

/// A member as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSeen {
    /// Who.
    pub node: NodeId,
    /// What is thought of it.
    pub health: Health,
    /// Its incarnation.
    pub incarnation: u64,
    /// Where it says it is.
    pub udp: Vec<SocketAddr>,
    /// The round trip to it, once measured.
    pub rtt: Option<Duration>,
}

/// Plain counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Devices attached.
    pub attached: u64,
    /// Links refused: credential, revoked.
    pub refused: u64,
    /// Links sent elsewhere: full, draining, too many at once.
    pub sent_away: u64,
    /// Links closed because a peer broke the protocol.
    pub protocol_errors: u64,
    /// Frames dropped because a device sent too many.
    pub frames_dropped: u64,
    /// SIP messages handed to devices here.
    pub sip_delivered: u64,
    /// SIP messages handed to other homes.
    pub sip_forwarded: u64,
    /// SIP messages sent back.
    pub sip_returned: u64,
    /// INVITEs refused because their sender sent too many.
    pub sip_limited: u64,
    /// Binding requests answered.
    pub stun_answers: u64,
    /// Datagrams that were nobody's.
    pub datagrams_stray: u64,
    /// Own credentials renewed.
    pub renewals: u64,
    /// Bulletins taken in.
    pub bulletins: u64,
}
