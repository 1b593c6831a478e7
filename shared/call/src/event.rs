//! What goes into and comes out of [`Calls`](crate::call::Calls), apart from foreign packets.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use yodel_identity::credential::Credential;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_media::{AudioEnd, Codec, Stats};
use yodel_nat::PathKind;
use yodel_sip::envelope::Envelope;
use yodel_wire::frame::Frame;
use yodel_wire::machine::Transport;

use crate::cause::Cause;
use crate::contacts::Incoming;

pub use yodel_overlay::verify::LookupResult;

/// Names a call, the same at both ends: the first half of its Call-ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names a lookup that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// Names a message that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageId(pub u64);

/// What this device is to others.
pub struct Identity {
    /// Its credential.
    pub credential: Credential,
    /// The key in it.
    pub signing: SigningKey,
    /// Its sealing keys, the present credential's first, each with the SHA-256 of the credential it stands in. Older
    /// ones stay until they are wiped (10 days), since peers may still hold the older credential.
    pub sealing: Vec<(SealingKey, [u8; 32])>,
    /// The account's signed record; empty for a supernode.
    pub record: Vec<u8>,
    /// The nonce of this device's contact entry; new at each start of the daemon. A supernode has none: its echo takes
    /// [`echo_nonce`].
    pub nonce: [u8; 16],
    /// This device's newest signed contact entry, shown to callers that hold an older one; empty before the first.
    pub entry: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.credential.node)
    }
}

/// The nonce in place of a contact entry's for a call to a supernode's echo: the first half of its credential's hash.
pub fn echo_nonce(credential: &Credential) -> [u8; 16] {
    let mut nonce = [0; 16];
    for (to, from) in nonce.iter_mut().zip(credential.hash()) {
        *to = from;
    }
    nonce
}

/// What these calls are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A person's: rings, waits for an answer.
    Phone,
    /// A supernode's `echo`: answers at once whom the realm vouches for, and sends back what it hears.
    Echo,
}

/// Settings that do not change while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the calls are for.
    pub role: Role,
    /// Loopback addresses may be candidates: a realm that lives on one machine.
    pub allow_loopback: bool,
}

/// Makes one codec per answered call.
pub trait CodecFactory: Send {
    /// A fresh codec; `None` when there is none to be had (the call ends with `audio.no-device`).
    fn codec(&mut self) -> Option<Box<dyn Codec>>;
}

/// A home this device is attached to, the one that carries signalling first.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its supernode credential, verified.
    pub credential: Credential,
    /// The link to it.
    pub link: RelayLink,
}

/// A link that relay sessions can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLink {
    /// The supernode's UDP address, from the bulletin; `None` keeps packets on the link.
    pub udp: Option<SocketAddr>,
    /// The link's keying material.
    pub exporter: [u8; 32],
    /// What carries the link.
    pub transport: Transport,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An account; `echo@REALM` is [`Target::Echo`].
    Account(Aor),
    /// This device's own first home.
    Echo,
}

/// How to call.
pub struct DialOptions {
    /// Where sound comes from and goes to; used once the call is answered.
    pub audio: Box<dyn AudioEnd>,
    /// Only relays: no address of this device is told or used.
    pub relay_only: bool,
    /// Hang up this long after the answer.
    pub max: Option<Duration>,
    /// Give up after ringing this long; `None`: [`crate::limits::RING_TIMEOUT`].
    pub ring_timeout: Option<Duration>,
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Dialled here.
    Out,
    /// Dialled there.
    In,
}

/// News of a call, with the fields that `call --json` prints.
#[derive(Clone, Debug, PartialEq)]
pub struct CallEvent {
    /// Which.
    pub call: CallId,
    /// Which way it goes.
    pub direction: Direction,
    /// The other side.
    pub peer: Aor,
    /// The other side's device, once there is one.
    pub device: Option<NodeId>,
    /// Since the command (outgoing) or the INVITE's arrival (incoming).
    pub t: Duration,
    /// What is new.
    pub state: State,
}

/// The state a call is in now, or a figure.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The peer's records are read.
    Resolving,
    /// The INVITE is on its way; at the callee: it arrived, show the ring now and call
    /// [`ring_shown`](crate::call::Calls::ring_shown).
    Contacting,
    /// A device of the callee says, authenticated, that it rings.
    Alerted,
    /// Both sides know it is answered.
    Answered,
    /// The first sealed audio packet of the peer was opened.
    Media,
    /// Media takes this path from now on.
    Path {
        /// Its kind.
        path: PathKind,
        /// Its round trip, when known.
        rtt: Option<Duration>,
    },
    /// Quality, once a second.
    Stats {
        /// The figures.
        stats: Stats,
        /// The path in use.
        path: Option<PathKind>,
    },
    /// Over. Nothing follows.
    Ended(Ended),
}

impl State {
    /// The word `call --json` prints.
    pub fn name(&self) -> &'static str {
        match self {
            State::Resolving => "resolving",
            State::Contacting => "contacting",
            State::Alerted => "alerted",
            State::Answered => "answered",
            State::Media => "media",
            State::Path { .. } => "path",
            State::Stats { .. } => "stats",
            State::Ended(_) => "ended",
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The one cause.
    pub cause: Cause,
    /// More, for people; may be empty.
    pub detail: String,
    /// From answer to end; zero when never answered.
    pub duration: Duration,
    /// Whether it was ever answered.
    pub answered: bool,
    /// Whether the peer's account key is one that was pinned before.
    pub verified: bool,
    /// Whom it was encrypted to.
    pub encrypted_to: EncryptedTo,
}

/// Whom a call was encrypted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptedTo {
    /// The peer's own device.
    Peer,
    /// A gateway on the peer's behalf.
    Gateway,
}

impl EncryptedTo {
    /// The word `call --json` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            EncryptedTo::Peer => "peer",
            EncryptedTo::Gateway => "gateway",
        }
    }
}

/// What is known of a call now, for lists.
#[derive(Clone, Debug, PartialEq)]
pub struct CallInfo {
    /// Which.
    pub call: CallId,
    /// Which way it goes.
    pub direction: Direction,
    /// The other side.
    pub peer: Aor,
    /// `resolving`, `contacting`, `alerted`, `answered`, `media` or `ended`.
    pub state: &'static str,
    /// The path in use.
    pub path: Option<PathKind>,
}

/// What [`Calls`](crate::call::Calls) wants done.
#[derive(Debug)]
pub enum CallsOutput {
    /// Hand this to that home, in a `SipSend` frame.
    Sip {
        /// Which home.
        via_home: NodeId,
        /// What.
        envelope: Envelope,
    },
    /// Send a datagram from the one UDP socket.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// A link to this supernode is wanted for relaying: answer with [`relay_link`](crate::call::Calls::relay_link).
    RelayLinkWanted(NodeId),
    /// That link is not needed any more.
    RelayLinkDone(NodeId),
    /// Write a relay frame to the link with this supernode.
    RelayFrame {
        /// Which.
        relay: NodeId,
        /// What.
        frame: Frame,
    },
    /// Read an account's records; answer with [`handle_lookup`](crate::call::Calls::handle_lookup).
    Lookup {
        /// Names it.
        id: LookupId,
        /// Whose.
        aor: Aor,
        /// Ask the holders anew, past every cache.
        past_cache: bool,
    },
    /// News of a call.
    Event(CallEvent),
    /// An authenticated message, request or tag arrived.
    Incoming(Incoming),
    /// A message was delivered to at least one device, or could not be.
    MessageDone {
        /// Which.
        id: MessageId,
        /// How it went.
        result: Result<(), Cause>,
    },
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

impl FromStr for CallId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<CallId, Self::Err> {
        u64::from_str_radix(text, 16).map(CallId)
    }
}

impl fmt::Debug for DialOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialOptions")
            .field("relay_only", &self.relay_only)
            .field("max", &self.max)
            .field("ring_timeout", &self.ring_timeout)
            .finish_non_exhaustive()
    }
}
