//! What the daemon asks of the root machine, and what the machine tells: the boundary between [`crate::node`] (pure)
//! and everything that knows JSON, sockets and terminals.
//!
//! Every request carries a number that the daemon chose; exactly one [`Event::Reply`] with that number follows, before
//! or after other events. Sound devices are opened by the daemon and handed over ready.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::account::AccountRecord;
use yodel_identity::credential::Credential;
use yodel_identity::keys::SealingKey;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_media::AudioEnd;
use yodel_net::Exit;
use zeroize::Zeroizing;

pub use yodel_call::cause::Cause;
pub use yodel_call::event::{CallEvent, CallId, CallInfo, Direction, EncryptedTo, Ended, State};
pub use yodel_nat::PathKind;

/// Names a request between daemon and machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the daemon asks.
#[derive(Debug)]
pub enum Command {
    /// A request of a user; a reply follows.
    Request(RequestId, Request),
    /// The host's own addresses, at which the one UDP socket is reached: at the start and at each change. No reply.
    Addresses(Vec<SocketAddr>),
    /// Where the login server answers, resolved from the realm's statement: at the start and at each change. No reply.
    LoginServers(Vec<SocketAddr>),
    /// The ring of this incoming call reached a user interface or an auto-answer. No reply.
    RingShown(CallId),
    /// What [`KeysChange::Pending`] asked for is on stable storage. No reply.
    RenewalKept,
    /// End: say goodbye to homes and peers, then emit [`Event::Stopped`]. No reply.
    Stop,
}

/// A request of a user.
pub enum Request {
    /// [`Reply::Status`].
    Status,
    /// [`Reply::Checkup`].
    Checkup,
    /// [`Reply::Contacts`].
    Contacts,
    /// Requests of strangers, and their calls: [`Reply::Requests`].
    ContactRequests,
    /// Asks somebody to be a contact, or accepts who asked already. [`Reply::Done`] when it is stored here.
    ContactAdd(Aor),
    /// Accepts a request. [`Reply::Done`] when it is stored here.
    ContactAccept(Aor),
    /// Drops a request. [`Reply::Done`].
    ContactReject(Aor),
    /// Forgets a contact and withdraws its tag. [`Reply::Done`].
    ContactRemove(Aor),
    /// Blocks an account, or no longer. [`Reply::Done`].
    ContactBlock(Aor, bool),
    /// Calls somebody: [`Reply::Call`] at once, everything else as [`Event::Call`].
    Dial(Dial),
    /// Looks up whom a call would reach, and rings nobody: [`Reply::Reach`].
    Reach(Aor),
    /// Answers an incoming call: [`Reply::Call`].
    Answer {
        /// Which; `None` when only one rings.
        call: Option<CallId>,
        /// Its sound.
        audio: Box<dyn AudioEnd>,
    },
    /// Declines an incoming call: [`Reply::Call`].
    Decline(Option<CallId>),
    /// Ends a call, whatever its state: [`Reply::Call`].
    Hangup(Option<CallId>),
    /// Sends silence instead of the microphone, or no longer: [`Reply::Call`].
    Mute(Option<CallId>, bool),
    /// Calls under way: [`Reply::Calls`].
    Calls,
    /// What happened to a call, from this side: [`Reply::Why`]. `None` is the last that ended, or else the one under
    /// way.
    Why(Option<CallId>),
}

/// How to call.
pub struct Dial {
    /// Whom; `echo@REALM` is answered by the first home.
    pub peer: Aor,
    /// Its sound, used from the answer on.
    pub audio: Box<dyn AudioEnd>,
    /// Use relays only, tell no address.
    pub relay_only: bool,
    /// Hang up this long after the answer.
    pub max: Option<Duration>,
    /// Give up when it rang this long; `None` is the default of `yodel-call`.
    pub ring_timeout: Option<Duration>,
}

/// What the machine tells.
#[derive(Debug)]
pub enum Event {
    /// The answer to a request.
    Reply(RequestId, Result<Reply, Failure>),
    /// News of a call. The first of an incoming call is `State::Contacting`.
    Call(CallEvent),
    /// News of a contact or of a stranger's request.
    Contact(ContactEvent),
    /// The device got online, or is not any more.
    Online(Online),
    /// The keys on disk change.
    Keys(KeysChange),
    /// After [`Command::Stop`]: nothing follows.
    Stopped,
}

/// What changes among the keys on disk. They are written whole, into their own file.
#[derive(Debug)]
pub enum KeysChange {
    /// The login server issued the next credential: keep it and its sealing key; nothing is pending any more.
    Renewed(Box<KeptKeys>),
    /// Keep this request with the secret in it; when it is written, [`Command::RenewalKept`]. Empty: forget it.
    Pending(Zeroizing<Vec<u8>>),
    /// The time of a sealing key is over.
    Wipe,
}

/// What a renewal changes.
pub struct KeptKeys {
    /// The newest credential.
    pub credential: Credential,
    /// The account record that lists it.
    pub record: AccountRecord,
    /// The sealing key in the credential; older ones stay for ten days.
    pub sealing: SealingKey,
}

impl fmt::Debug for KeptKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptKeys(..)")
    }
}

/// What a request got.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done, with nothing to tell.
    Done,
    /// How this device stands.
    Status(Status),
    /// What `doctor` looks at.
    Checkup(Box<Checkup>),
    /// All contacts, by name.
    Contacts(Vec<Contact>),
    /// All open requests, by name.
    Requests(Vec<ContactRequest>),
    /// Whom a call would reach.
    Reach(Reach),
    /// The call it was about.
    Call(CallId),
    /// Calls under way, oldest first.
    Calls(Vec<CallInfo>),
    /// A call's timeline.
    Why(Why),
}

/// Whom a call would reach now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The account.
    pub peer: Aor,
    /// Its devices that are online, each of which would be invited; for `echo`, the home that answers.
    pub devices: Vec<NodeId>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the command that asked.
    pub exit: Exit,
    /// One sentence for people, without names or addresses of others than the user named.
    pub message: String,
    /// The cause, where one of the list applies.
    pub cause: Option<Cause>,
}

impl Failure {
    /// A failure without a cause of the list.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), cause: None }
    }
}

/// Whether others can reach this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Online {
    /// Attached to a home, and the own contact entry is acknowledged.
    Online,
    /// Trying.
    Connecting,
    /// Not trying: not signed in, expired or revoked.
    Offline,
}

impl Online {
    /// The word `status` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Online::Online => "online",
            Online::Connecting => "connecting",
            Online::Offline => "offline",
        }
    }
}

/// What `status` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whose device this is.
    pub account: Aor,
    /// This device.
    pub device: NodeId,
    /// Whether it can be reached.
    pub state: Online,
    /// Its homes, the one that carries signalling first.
    pub homes: Vec<HomeStatus>,
    /// How the NAT maps: a word of `yodel-nat`, `unknown` when it cannot be known.
    pub mapping: String,
    /// How the NAT filters: likewise.
    pub filtering: String,
    /// When the credential ends, Unix seconds.
    pub credential_ends: u64,
}

/// What this device knows of itself and of the realm, for `doctor` to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkup {
    /// How it stands.
    pub status: Status,
    /// This device's clock, Unix seconds.
    pub now: u64,
    /// What the homes say of that clock: off by more than records allow, or not; `None` while none said.
    pub clock_is_off: Option<bool>,
    /// Epoch of the newest bulletin, and when it was signed, Unix seconds.
    pub bulletin: Option<(u64, u64)>,
    /// Supernodes known, and their owners.
    pub supernodes: (usize, usize),
    /// Where the login server answers, `host:port`.
    pub login_servers: Vec<String>,
    /// Where homes answer over TCP, when UDP is shut.
    pub fallbacks: Vec<SocketAddr>,
}

/// One home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeStatus {
    /// The supernode.
    pub node: NodeId,
    /// Where it is attached.
    pub addr: SocketAddr,
    /// Attached now; otherwise known only.
    pub warm: bool,
}

/// One contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub aor: Aor,
    /// How far it got.
    pub state: ContactState,
}

/// How far two accounts are with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactState {
    /// We asked; the request may still wait to be delivered.
    Asked,
    /// Both accepted.
    Accepted,
    /// Nothing of theirs gets here.
    Blocked,
}

impl ContactState {
    /// The word `contacts list` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            ContactState::Asked => "asked",
            ContactState::Accepted => "accepted",
            ContactState::Blocked => "blocked",
        }
    }
}

/// A stranger who asked, or called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactRequest {
    /// Who, as the credential proves.
    pub aor: Aor,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Whether it was a call; otherwise a request.
    pub called: bool,
    /// The note that came with it; may be empty.
    pub note: String,
}

/// News of a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactEvent {
    /// Who.
    pub aor: Aor,
    /// What.
    pub change: ContactChange,
}

/// What is new about a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactChange {
    /// A stranger asks.
    Requested,
    /// A stranger called; it did not ring.
    StrangerCalled,
    /// Both accepted now.
    Accepted,
    /// Forgotten.
    Removed,
    /// Nothing of theirs gets here any more.
    Blocked,
    /// Not blocked any more.
    Unblocked,
}

impl ContactChange {
    /// The word `events` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            ContactChange::Requested => "requested",
            ContactChange::StrangerCalled => "stranger-called",
            ContactChange::Accepted => "accepted",
            ContactChange::Removed => "removed",
            ContactChange::Blocked => "blocked",
            ContactChange::Unblocked => "unblocked",
        }
    }
}

/// One call's timeline, from this side.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// The call as it stands.
    pub info: CallInfo,
    /// Its end, when it ended.
    pub ended: Option<Ended>,
    /// Steps, oldest first.
    pub steps: Vec<WhyStep>,
}

/// One step of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyStep {
    /// Since the call began.
    pub t: Duration,
    /// The peer's device it concerns, when one.
    pub device: Option<NodeId>,
    /// What happened.
    pub text: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Status => "Status",
            Request::Checkup => "Checkup",
            Request::Contacts => "Contacts",
            Request::ContactRequests => "ContactRequests",
            Request::ContactAdd(_) => "ContactAdd",
            Request::ContactAccept(_) => "ContactAccept",
            Request::ContactReject(_) => "ContactReject",
            Request::ContactRemove(_) => "ContactRemove",
            Request::ContactBlock(_, _) => "ContactBlock",
            Request::Dial(_) => "Dial",
            Request::Reach(_) => "Reach",
            Request::Answer { .. } => "Answer",
            Request::Decline(_) => "Decline",
            Request::Hangup(_) => "Hangup",
            Request::Mute(_, _) => "Mute",
            Request::Calls => "Calls",
            Request::Why(_) => "Why",
        })
    }
}
