//! The machine contract: how every root machine of this project is driven.
//!
//! A machine is a struct without socket, clock, thread or randomness of its own. A driver (`shared/net` with tokio, or
//! the simulator under a virtual clock) does, for ever:
//!
//! 1. Feed **one** thing: a datagram, a link event, a command, a finished commit, or the passing of the deadline, each
//!    with the [`Now`] at which it happened. `Now` never goes back.
//! 2. Drain: call [`Machine::poll_output`] until it returns [`Output::Idle`], carrying out each output in order.
//! 3. Sleep until the deadline that `Idle` named, or until there is something to feed. When the deadline has passed,
//!    feed [`Machine::handle_timeout`].
//!
//! A machine never blocks, never panics on what a peer sent, never holds an unbounded queue, and produces the same
//! outputs for the same seed and the same inputs. One task owns one root machine; parts (transactions, checks, sessions)
//! sit inside the root and follow the same contract in smaller form, and the root alone sees foreign packets.

use std::fmt;
use std::net::SocketAddr;

use crate::frame::Frame;
use crate::time::{Instant, Now};

/// A root machine; see the module's text for how to drive it.
pub trait Machine {
    /// What a user of the process asks for.
    type Command;
    /// What a user of the process learns.
    type Event;

    /// A datagram that is not QUIC arrived from `from` on the one UDP socket.
    fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]);

    /// Something happened on a link.
    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent);

    /// A user asks for something.
    fn handle_command(&mut self, now: Now, command: Self::Command);

    /// The writes of this ticket are on stable storage, or could not be brought there.
    fn handle_committed(&mut self, now: Now, ticket: Ticket, result: CommitResult);

    /// The deadline named by the last [`Output::Idle`] has passed. Early calls do no harm.
    fn handle_timeout(&mut self, now: Now);

    /// The next thing to carry out; [`Output::Idle`] when there is nothing left.
    fn poll_output(&mut self) -> Output<Self::Event>;
}

/// What a root machine wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<E> {
    /// Send a datagram of at most [`crate::limits::DATAGRAM_BYTES_MAX`] bytes from the one UDP socket.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Open, write to or close a link.
    Link(LinkId, LinkAction),
    /// Bring these writes to stable storage together, then call [`Machine::handle_committed`] with the ticket.
    /// Nothing that depends on them may leave the machine before.
    Commit(Ticket, Vec<Write>),
    /// Tell the user.
    Event(E),
    /// Nothing more now: sleep until the deadline (for ever, when there is none) or the next input.
    Idle {
        /// When to call [`Machine::handle_timeout`].
        deadline: Option<Instant>,
    },
}

/// Names a link between driver and machine. Those a machine opens count up from 0; those a driver accepts have
/// [`LinkId::ACCEPTED`] set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl LinkId {
    /// The bit set in the number of every link that the driver accepted.
    pub const ACCEPTED: u64 = 1 << 63;

    /// Whether the peer opened this link.
    pub fn is_accepted(self) -> bool {
        self.0 & LinkId::ACCEPTED != 0
    }
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// QUIC (RFC 9000), one bidirectional stream of frames.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
}

/// Whom to open a link to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    /// Address to connect to.
    pub addr: SocketAddr,
    /// What to connect with.
    pub transport: Transport,
    /// The Ed25519 key the peer must prove (RFC 7250). `None` accepts any and tells it in [`LinkPeer::key`]: only for
    /// the first contact with a login server, whose key its root statement names.
    pub key: Option<[u8; 32]>,
}

/// Who is at the other end, proved by the TLS handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkPeer {
    /// The peer's Ed25519 public key.
    pub key: [u8; 32],
    /// Keying material known to both ends of this link alone (RFC 5705, RFC 9266's use): label
    /// `EXPORTER-yodel-link`, empty context.
    pub exporter: [u8; 32],
    /// The peer's address as seen here.
    pub addr: SocketAddr,
    /// What carries the link.
    pub transport: Transport,
}

impl fmt::Debug for LinkPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkPeer")
            .field("addr", &self.addr)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// What happened on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The handshake is done, whichever side began it.
    Opened(LinkPeer),
    /// A whole frame arrived.
    Frame(Frame),
    /// It is over, or never came to be. Nothing follows, and the id is not used again.
    Closed(LinkClosed),
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkClosed {
    /// One side closed it in order.
    Finished,
    /// Nobody answered, or the network said no.
    Unreachable,
    /// It worked and then stopped.
    Lost,
    /// The peer proved another key than the one asked for.
    WrongKey,
    /// What came was no frame, or the handshake no handshake.
    Protocol,
    /// Our own bound: too many links, or a queue that the peer did not drain.
    Overload,
}

/// What to do with a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Open it; `Opened` or `Closed` follows.
    Open(LinkTarget),
    /// Send a frame. A link whose queue is full is closed with [`LinkClosed::Overload`].
    Write(Frame),
    /// Send what is queued, then close. No `Closed` follows; the id is dead at once.
    Close,
}

/// Names a commit between driver and machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitResult {
    /// On stable storage.
    Stored,
    /// Not stored (disk full, input/output error): the machine must not acknowledge it.
    Failed,
}

/// One change to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The tree (table) it belongs to.
    pub tree: &'static str,
    /// The key in it.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
    /// Whether it must survive power loss and so also goes to the fsynced journal.
    pub journaled: bool,
}
