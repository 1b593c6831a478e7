//! Why an attempt ended: exactly one [`Cause`] per attempt and side, with its text code, the exit code a program ends
//! with, and one next step for the user. The list is closed; the codes are a contract with scripts.

use std::fmt;
use std::str::FromStr;

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
    /// Packets flowed, but a microphone, here or there, gave nothing but silence; the detail says whose.
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
            | Cause::MediaMicSilent
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_numbers_round_trip() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_u8(*cause as u8), Some(*cause));
            assert_eq!(cause.code().parse(), Ok(*cause));
        }
        assert_eq!(Cause::from_u8(0), None);
        assert_eq!(Cause::ALL.len(), 26);
    }

    #[test]
    fn exit_codes_follow_the_contract() {
        for cause in Cause::ALL {
            let wanted = match cause.code() {
                "lookup.no-user" => 5,
                "lookup.overlay-unreachable" | "peer.offline" | "peer.no-alert" | "peer.no-answer" => 6,
                "peer.declined" | "peer.busy" | "peer.answered-elsewhere" => 7,
                "media.mic-silent" => 10,
                "path.relay-refused" => 11,
                "local.hangup" | "remote.hangup" => 0,
                code => match code.split('.').next() {
                    Some("signin") => 4,
                    Some("path" | "media") => 8,
                    Some("trust") => 9,
                    Some("audio") => 10,
                    Some("policy") => 11,
                    other => panic!("no family {other:?}"),
                },
            };
            assert_eq!(cause.exit_code() as u8, wanted, "{cause}");
        }
    }

    #[test]
    fn a_peer_cannot_talk_about_our_own_side() {
        assert_eq!(Cause::SigninExpired.from_peer(), Cause::RemoteHangup);
        assert_eq!(Cause::LocalHangup.from_peer(), Cause::RemoteHangup);
        assert_eq!(Cause::MediaOneWayIn.from_peer(), Cause::MediaOneWayOut);
        assert_eq!(Cause::PolicyBlocked.from_peer(), Cause::PolicyUnknownCaller);
    }
}
