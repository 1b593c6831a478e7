//! What happened in one attempt, step by step, as this side saw it: what `why` prints. Bounded; when full, the middle
//! is dropped, because the first steps and the last ones explain an end.

use std::fmt;
use std::time::Duration;

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::cause::Cause;
use crate::limits::TIMELINE_ENTRIES_MAX;

/// One attempt's record.
#[derive(Clone, Debug)]
pub struct Timeline {
    started: Instant,
    entries: Vec<Entry>,
    dropped: usize,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Since the command (outgoing) or the INVITE's arrival (incoming).
    pub at: Duration,
    /// The peer's device it concerns, where it concerns one.
    pub device: Option<NodeId>,
    /// What happened.
    pub step: Step,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asked for the peer's records; `true`: past every cache.
    LookupAsked(bool),
    /// Records came: so many devices with a live contact entry.
    LookupAnswered(usize),
    /// A request went out by the first way.
    Sent(Method),
    /// The same request went out by the other way too: no sign of life for 300 ms, or the first way died.
    SecondWay(Method),
    /// A home says it cannot deliver.
    Returned(&'static str),
    /// An authenticated request arrived.
    Received(Method),
    /// An authenticated answer arrived: SIP status.
    Answered(Method, u16),
    /// A home's own answer arrived; it moves little.
    HomeAnswered(u16),
    /// Something came that is not the peer's: it moved no state.
    Refused(Refusal),
    /// The user interface shows the ring.
    RingShown,
    /// The user accepted.
    Accepted,
    /// The peer's devices are in `alerted`.
    Alerted,
    /// The call is answered, on both sides.
    CallAnswered,
    /// Both dialled each other; `true`: our attempt lives.
    Glare(bool),
    /// A relay session was asked for at this supernode.
    RelayAsked(NodeId),
    /// The relay session carries packets.
    RelayUp,
    /// No relay session, with why.
    RelayDown(&'static str),
    /// Media flows over this path.
    Path(&'static str),
    /// No path carries anything.
    PathsFailed,
    /// Candidates: so many sent.
    CandidatesSent(usize),
    /// Candidates: so many taken from the peer.
    CandidatesTaken(usize),
    /// The first sealed packet of the peer opened.
    FirstPacket,
    /// Who hears whom: the peer hears us, we hear the peer.
    Hearing(bool, bool),
    /// Whose microphone gives anything but silence, told at each change.
    Microphones {
        /// Ours does.
        ours: bool,
        /// The peer's does, as it reports.
        peers: bool,
    },
    /// The end.
    Ended(Cause),
}

/// A SIP method, as far as calls have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    /// Begins a leg.
    Invite = 1,
    /// Confirms a final answer to INVITE.
    Ack = 2,
    /// Ends an answered leg.
    Bye = 3,
    /// Ends an unanswered leg.
    Cancel = 4,
    /// Candidates (RFC 8840).
    Info = 5,
    /// A short message outside a call (RFC 3428).
    Message = 6,
}

/// Why something that came was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It has no box.
    Unboxed,
    /// Its box does not open: forged or altered.
    Forged,
    /// This number was used already: replayed.
    Replayed,
    /// The box is for another method or status than the message around it says.
    Swapped,
    /// From or To differ from what is sealed.
    WrongName,
    /// It names a contact entry of an earlier start of this device.
    StaleNonce,
    /// This Call-ID was seen before.
    CallIdSeen,
    /// The credential inside is not valid, or revoked.
    Credential,
    /// The device is not on its account's signed list.
    NotListed,
    /// A signature does not hold, or what it covers is not this call.
    Signature,
    /// It does not parse.
    Malformed,
    /// It is older than what is known already.
    OldEntry,
    /// Above a bound.
    TooMany,
    /// The account's key is not the one pinned.
    KeyChanged,
    /// Versions or suites are less than promised.
    Downgrade,
    /// It names an address before consent, or one no candidate may have.
    Address,
    /// It is sealed under the leg's key, though the call has its own by now.
    OldKey,
}

impl Timeline {
    /// Empty, counting from `started`.
    pub fn new(started: Instant) -> Timeline {
        Timeline { started, entries: Vec::new(), dropped: 0 }
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Adds a step.
    pub fn add(&mut self, now: Instant, device: Option<NodeId>, step: Step) {
        if self.entries.len() >= TIMELINE_ENTRIES_MAX {
            self.entries.remove(TIMELINE_ENTRIES_MAX / 2);
            self.dropped += 1;
        }
        self.entries.push(Entry { at: now.since(self.started), device, step });
    }

    /// All steps, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many were left out of the middle.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Whether something of this kind was refused.
    pub fn refused(&self, refusal: Refusal) -> bool {
        self.entries.iter().any(|entry| entry.step == Step::Refused(refusal))
    }
}

impl Method {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Info => "INFO",
            Method::Message => "MESSAGE",
        }
    }

    /// The method with this number.
    pub fn from_u8(number: u8) -> Option<Method> {
        match number {
            1 => Some(Method::Invite),
            2 => Some(Method::Ack),
            3 => Some(Method::Bye),
            4 => Some(Method::Cancel),
            5 => Some(Method::Info),
            6 => Some(Method::Message),
            _ => None,
        }
    }
}

impl Refusal {
    /// What to call it in `why`.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Unboxed => "a message without box was ignored",
            Refusal::Forged => "a forged or altered message was ignored",
            Refusal::Replayed => "a replayed message was ignored",
            Refusal::OldKey => "a message under the key from before the answer was ignored",
            Refusal::Swapped => "a message posing as another was ignored",
            Refusal::WrongName => "a message with another name outside than inside was ignored",
            Refusal::StaleNonce => "the invitation was for an earlier start of this device",
            Refusal::CallIdSeen => "an invitation seen before was ignored",
            Refusal::Credential => "an invalid credential was refused",
            Refusal::NotListed => "a device that its account does not list was refused",
            Refusal::Signature => "a wrong signature was refused",
            Refusal::Malformed => "a malformed message was ignored",
            Refusal::OldEntry => "an old contact entry was ignored",
            Refusal::TooMany => "more than the bound came and was dropped",
            Refusal::KeyChanged => "the account's key is not the one pinned",
            Refusal::Downgrade => "less was offered than the record promises",
            Refusal::Address => "an address that no candidate may have was ignored",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::LookupAsked(false) => f.write_str("asked for the records"),
            Step::LookupAsked(true) => f.write_str("asked for the records past every cache"),
            Step::LookupAnswered(devices) => write!(f, "records say {devices} device(s) are online"),
            Step::Sent(method) => write!(f, "{} sent", method.name()),
            Step::SecondWay(method) => write!(f, "{} sent by the other home too", method.name()),
            Step::Returned(why) => write!(f, "came back undelivered: {why}"),
            Step::Received(method) => write!(f, "{} received", method.name()),
            Step::Answered(method, status) => write!(f, "{status} to {}", method.name()),
            Step::HomeAnswered(status) => write!(f, "{status} of a home itself"),
            Step::Refused(refusal) => f.write_str(refusal.text()),
            Step::RingShown => f.write_str("the ring is shown"),
            Step::Accepted => f.write_str("accepted here"),
            Step::Alerted => f.write_str("ringing"),
            Step::CallAnswered => f.write_str("answered"),
            Step::Glare(true) => f.write_str("both called at once; this call lives"),
            Step::Glare(false) => f.write_str("both called at once; the other call lives"),
            Step::RelayAsked(relay) => write!(f, "relay session asked for at {relay}"),
            Step::RelayUp => f.write_str("relay session up"),
            Step::RelayDown(why) => write!(f, "no relay session: {why}"),
            Step::Path(path) => write!(f, "media over {path}"),
            Step::PathsFailed => f.write_str("no path carries anything"),
            Step::CandidatesSent(count) => write!(f, "{count} candidate(s) sent"),
            Step::CandidatesTaken(count) => write!(f, "{count} candidate(s) of the peer taken"),
            Step::FirstPacket => f.write_str("first sound of the peer"),
            Step::Hearing(they, we) => {
                write!(f, "they hear us: {}, we hear them: {}", yes(*they), yes(*we))
            }
            Step::Microphones { ours, peers } => {
                write!(f, "our microphone gives sound: {}, theirs: {}", yes(*ours), yes(*peers))
            }
            Step::Ended(cause) => write!(f, "ended: {cause}"),
        }
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_beginning_and_end_when_full() {
        let mut timeline = Timeline::new(Instant::ORIGIN);
        timeline.add(Instant::ORIGIN, None, Step::LookupAsked(false));
        for micros in 0..2 * TIMELINE_ENTRIES_MAX {
            timeline.add(Instant::from_micros(micros as u64), None, Step::Refused(Refusal::Forged));
        }
        timeline.add(Instant::from_micros(9), None, Step::Ended(Cause::LocalHangup));
        assert_eq!(timeline.entries().len(), TIMELINE_ENTRIES_MAX);
        assert_eq!(timeline.entries()[0].step, Step::LookupAsked(false));
        assert_eq!(timeline.entries().last().unwrap().step, Step::Ended(Cause::LocalHangup));
        assert_eq!(timeline.dropped(), TIMELINE_ENTRIES_MAX + 2);
    }
}
