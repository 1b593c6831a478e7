//! A call's news in the words of `yodel-call`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_media::Stats;
pub use yodel_nat::PathKind;

/// Names a call, the same at both ends: the first half of its Call-ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

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

impl EncryptedTo {
    /// The word `call --json` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            EncryptedTo::Peer => "peer",
            EncryptedTo::Gateway => "gateway",
        }
    }
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

/// Exit code of a program by what went wrong; the numbers are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Not signed in, expired or revoked.
    NotSignedIn = 4,
    /// No such user.
    NoSuchUser = 5,
    /// Offline or no answer.
    Offline = 6,
    /// Declined or busy.
    Declined = 7,
    /// No network path.
    NoPath = 8,
    /// Identity changed or not verified.
    Identity = 9,
    /// Audio device.
    Audio = 10,
    /// Refused by quota or policy.
    Refused = 11,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal, $exit:ident, $next:literal;)*) => {
        /// Why an attempt ended. The number is what boxes carry (`handshake`), the code is what users and scripts see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Cause { $($(#[$doc])* $name = $number,)* }

        impl Cause {
            /// All causes, in order of their numbers.
            pub const ALL: &'static [Cause] = &[$(Cause::$name,)*];

            /// The cause with this number.
            pub fn from_u8(number: u8) -> Option<Cause> {
                match number { $($number => Some(Cause::$name),)* _ => None }
            }

            /// The code scripts rely on, such as `peer.busy`.
            pub fn code(self) -> &'static str {
                match self { $(Cause::$name => $code,)* }
            }

            /// The exit code of a program whose attempt ended so.
            pub fn exit_code(self) -> ExitCode {
                match self { $(Cause::$name => ExitCode::$exit,)* }
            }

            /// One thing the user can do about it.
            pub fn next_step(self) -> &'static str {
                match self { $(Cause::$name => $next,)* }
            }
        }
    };
}

causes! {
    /// This device's credential ran out or was revoked.
    SigninExpired = 1, "signin.expired", NotSignedIn, "sign in again on this device";
    /// This device's clock is further off than signatures allow.
    SigninClock = 2, "signin.clock", NotSignedIn, "set this device's clock";
    /// No account record: nobody has this name.
    LookupNoUser = 3, "lookup.no-user", NoSuchUser, "check the spelling of the name";
    /// No home, or no holder of the record answered.
    LookupOverlayUnreachable = 4, "lookup.overlay-unreachable", Offline, "check this device's network; run doctor";
    /// The account exists; none of its devices can be reached now.
    PeerOffline = 5, "peer.offline", Offline, "try again when they are online";
    /// A device was reached and did not say that it rings.
    PeerNoAlert = 6, "peer.no-alert", Offline, "ask them to open Yodel on one of their devices";
    /// It rang and nobody answered.
    PeerNoAnswer = 7, "peer.no-answer", Offline, "try again later";
    /// The callee said no.
    PeerDeclined = 8, "peer.declined", Declined, "try again later";
    /// The callee is in another call.
    PeerBusy = 9, "peer.busy", Declined, "try again later";
    /// Another device of the same account has this call.
    PeerAnsweredElsewhere = 10, "peer.answered-elsewhere", Declined, "go on at the device that answered";
    /// Nothing came through over UDP, and no relay over TCP was to be had.
    PathUdpBlocked = 11, "path.udp-blocked", NoPath, "use another network, or let UDP out";
    /// Every way of carrying media was tried and failed.
    PathAllFailed = 12, "path.all-failed", NoPath, "use another network; ask for a relay with quota";
    /// Only a relay was allowed or possible, and none granted a session.
    PathRelayRefused = 13, "path.relay-refused", Refused, "wait, or ask the supernode's operator for quota";
    /// The path died during the call and no other took over.
    PathLost = 14, "path.lost", NoPath, "call again";
    /// Answered, but this side heard nothing from the peer.
    MediaOneWayIn = 15, "media.one-way-in", NoPath, "call again with --relay-only";
    /// Answered, but the peer heard nothing from this side.
    MediaOneWayOut = 16, "media.one-way-out", NoPath, "call again with --relay-only";
    /// Packets flowed, but the microphone gave nothing but silence.
    MediaMicSilent = 17, "media.mic-silent", Audio, "check the microphone's mute switch";
    /// Answered, and nobody heard anything.
    MediaTimeout = 18, "media.timeout", NoPath, "call again with --relay-only";
    /// There is no such audio device.
    AudioNoDevice = 19, "audio.no-device", Audio, "choose another with --audio";
    /// The audio device went away during the call.
    AudioDeviceLost = 20, "audio.device-lost", Audio, "plug it in again, or choose another with --audio";
    /// The peer's account key is not the one pinned for this contact.
    TrustKeyChanged = 21, "trust.key-changed", Identity, "compare safety words with them over another channel";
    /// Less was offered or chosen than the signed record promises.
    TrustDowngrade = 22, "trust.downgrade", Identity, "update Yodel on both sides; report it if it stays";
    /// The callee does not know this caller; the request is in their list.
    PolicyUnknownCaller = 23, "policy.unknown-caller", Refused, "wait until they accept you as a contact";
    /// The callee blocked this caller. Stands in the blocker's own history alone.
    PolicyBlocked = 24, "policy.blocked", Refused, "unblock the contact to hear from them";
    /// This side hung up.
    LocalHangup = 25, "local.hangup", Done, "nothing to do";
    /// The other side hung up.
    RemoteHangup = 26, "remote.hangup", Done, "nothing to do";
}

impl Cause {
    /// What a peer may say about an end, as the receiving side names it. A peer's word can never make this side
    /// believe something about this side's own sign-in, lookup or audio, so everything else reads as a hang-up.
    pub fn from_peer(self) -> Cause {
        match self {
            Cause::PeerDeclined
            | Cause::PeerBusy
            | Cause::PeerNoAnswer
            | Cause::PeerAnsweredElsewhere
            | Cause::PathAllFailed
            | Cause::PathRelayRefused
            | Cause::PathUdpBlocked
            | Cause::PathLost
            | Cause::MediaTimeout
            | Cause::PolicyUnknownCaller
            | Cause::TrustDowngrade => self,
            Cause::MediaOneWayIn => Cause::MediaOneWayOut,
            Cause::MediaOneWayOut => Cause::MediaOneWayIn,
            // The blocked see a stranger's answer.
            Cause::PolicyBlocked => Cause::PolicyUnknownCaller,
            Cause::SigninExpired
            | Cause::SigninClock
            | Cause::LookupNoUser
            | Cause::LookupOverlayUnreachable
            | Cause::PeerOffline
            | Cause::PeerNoAlert
            | Cause::MediaMicSilent
            | Cause::AudioNoDevice
            | Cause::AudioDeviceLost
            | Cause::TrustKeyChanged
            | Cause::LocalHangup
            | Cause::RemoteHangup => Cause::RemoteHangup,
        }
    }

    /// Whether this is one side hanging up in order.
    pub fn is_hangup(self) -> bool {
        matches!(self, Cause::LocalHangup | Cause::RemoteHangup)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The text is no cause's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such cause")]
pub struct UnknownCause;

impl FromStr for Cause {
    type Err = UnknownCause;
    fn from_str(code: &str) -> Result<Cause, UnknownCause> {
        Cause::ALL.iter().copied().find(|cause| cause.code() == code).ok_or(UnknownCause)
    }
}
