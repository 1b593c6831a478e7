//! All calls of one device.
//!
//! # A call's life
//!
//! ```text
//! resolving → contacting → alerted → answered → media → ended(cause)
//! ```
//! *resolving*: the peer's records are read. *contacting*: an INVITE is on its way to each of its devices; at the
//! callee: one arrived and was believed. *alerted*: a device says, in its box, that its user sees the ring. *answered*:
//! at the caller, a device's signed answer was checked; at the callee, the caller's ACK or first media opened, so that
//! both know. *media*: the first sealed packet of the peer opened. Every call reaches *ended* once, with one
//! [`Cause`](crate::cause::Cause); nothing follows it.
//!
//! # Contract
//!
//! Feed one of: [`dial`](Calls::dial), [`ring_shown`](Calls::ring_shown), [`answer`](Calls::answer),
//! [`decline`](Calls::decline), [`hangup`](Calls::hangup), [`send_message`](Calls::send_message) (the user);
//! [`set_homes`](Calls::set_homes), [`set_local_addrs`](Calls::set_local_addrs), [`set_contacts`](Calls::set_contacts),
//! [`set_identity`](Calls::set_identity), [`relay_link`](Calls::relay_link) (the root machine, at each change, before
//! what depends on it); [`handle_lookup`](Calls::handle_lookup), [`handle_sip`](Calls::handle_sip),
//! [`handle_sip_return`](Calls::handle_sip_return), [`handle_datagram`](Calls::handle_datagram),
//! [`handle_relay_frame`](Calls::handle_relay_frame), [`handle_relay_local`](Calls::handle_relay_local) (the network);
//! [`handle_timeout`](Calls::handle_timeout) at [`deadline`](Calls::deadline). Then drain
//! [`poll_output`](Calls::poll_output) until `None`.
//!
//! It never lets a message move a call's state unless its box opened and it was new; such messages are named in the
//! call's timeline. It never says `alerted` before [`ring_shown`](Calls::ring_shown), never opens the microphone before
//! the local user accepted (dialling accepts), never names an address of this device to an account that is not a
//! mutual contact before the answer, nor sends a packet to an address that such an account named.
//!
//! # Parts
//!
//! [`Call`] holds the state and the legs, one per device of the peer. A [`leg::Leg`](crate::leg) is signalling with one
//! device: boxes, requests under way, the two ways. Its [`plane`](crate::plane) is what carries sound: candidates,
//! relay sessions, media. `caller` and `callee` hold what only one side does; `message` what is said outside calls.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_media::AudioEnd;
use yodel_relay::control::Token;
use yodel_sip::envelope::{Envelope, Return};
use yodel_wire::frame::Frame;
use yodel_wire::time::{Instant, Now};

use crate::contacts::{Contact, ContactMessage};
use crate::event::{
    CallId, CallInfo, CallsOutput, CodecFactory, Config, DialOptions, Home, Identity, LocalEvent, LookupId,
    LookupResult, MessageId, RelayLink, Target,
};
use crate::timeline::Timeline;

/// See the module's text.
pub struct Calls {
    out: VecDeque<CallsOutput>,
}

impl Calls {
    /// No calls yet. `codecs` makes a codec for each answered call (never asked with [`Role::Echo`](crate::event::Role)).
    pub fn new(identity: Identity, config: Config, codecs: Box<dyn CodecFactory>, seed: [u8; 32]) -> Calls {
        let _ = (identity, config, codecs, seed);
        Calls { out: VecDeque::new() }
    }

    /// A renewed credential, another nonce or contact entry.
    pub fn set_identity(&mut self, identity: Identity) {
        let _ = identity;
    }

    /// The homes this device is attached to now, the one that carries signalling first.
    pub fn set_homes(&mut self, now: Now, homes: Vec<Home>) {
        let _ = (now, homes);
    }

    /// This device's addresses: of its interfaces with the socket's port, and as homes see it.
    pub fn set_local_addrs(&mut self, now: Now, host: Vec<SocketAddr>, reflexive: Vec<SocketAddr>) {
        let _ = (now, host, reflexive);
    }

    /// Whom this account knows.
    pub fn set_contacts(&mut self, contacts: Vec<Contact>) {
        let _ = contacts;
    }

    /// A link asked for with [`CallsOutput::RelayLinkWanted`] is up (or up again), or down (`None`). Links to homes
    /// are told with [`set_homes`](Self::set_homes) alone.
    pub fn relay_link(&mut self, now: Now, relay: NodeId, link: Option<RelayLink>) {
        let _ = (now, relay, link);
    }

    /// Calls somebody. News follow as events, the end among them, also when nothing could even begin.
    pub fn dial(&mut self, now: Now, realm: &Realm, target: Target, options: DialOptions) -> CallId {
        let _ = (now, realm, target, options);
        CallId(0)
    }

    /// The user interface, or auto-answer, shows the ring of this incoming call: only now the caller is told.
    pub fn ring_shown(&mut self, now: Now, call: CallId) {
        let _ = (now, call);
    }

    /// Accepts an incoming call. False when there is no such call ringing.
    pub fn answer(&mut self, now: Now, call: CallId, audio: Box<dyn AudioEnd>) -> bool {
        let _ = (now, call, audio);
        false
    }

    /// Declines an incoming call. False when there is no such call ringing.
    pub fn decline(&mut self, now: Now, call: CallId) -> bool {
        let _ = (now, call);
        false
    }

    /// Ends a call in any state. False when there is no such call.
    pub fn hangup(&mut self, now: Now, call: CallId) -> bool {
        let _ = (now, call);
        false
    }

    /// Gives silence instead of the microphone, or the microphone again.
    pub fn mute(&mut self, call: CallId, muted: bool) {
        let _ = (call, muted);
    }

    /// Sends a message to all devices of an account; [`CallsOutput::MessageDone`] follows.
    pub fn send_message(&mut self, now: Now, realm: &Realm, to: Aor, message: &ContactMessage) -> MessageId {
        let _ = (now, realm, to, message);
        MessageId(0)
    }

    /// What a lookup asked for with [`CallsOutput::Lookup`] found.
    pub fn handle_lookup(&mut self, now: Now, realm: &Realm, id: LookupId, result: LookupResult) {
        let _ = (now, realm, id, result);
    }

    /// A `SipDeliver` frame arrived from the home `via`.
    pub fn handle_sip(&mut self, now: Now, realm: &Realm, via: NodeId, envelope: Envelope) {
        let _ = (now, realm, via, envelope);
    }

    /// A `SipReturn` frame arrived.
    pub fn handle_sip_return(&mut self, now: Now, realm: &Realm, returned: &Return) {
        let _ = (now, realm, returned);
    }

    /// A datagram of first byte 0–3, 21, 22 or 128–191 arrived. False when it is no call's.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> bool {
        let _ = (now, from, datagram);
        false
    }

    /// A relay frame (48–55) arrived on the link with this supernode.
    pub fn handle_relay_frame(&mut self, now: Now, relay: NodeId, frame: &Frame) {
        let _ = (now, relay, frame);
    }

    /// Only with [`Role::Echo`](crate::event::Role): the relay of this very supernode has news of a session.
    pub fn handle_relay_local(&mut self, now: Now, token: Token, event: LocalEvent) {
        let _ = (now, token, event);
    }

    /// The deadline has passed. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm) {
        let _ = (now, realm);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The next thing to carry out; `None` when drained.
    pub fn poll_output(&mut self) -> Option<CallsOutput> {
        self.out.pop_front()
    }

    /// All calls that have not ended.
    pub fn list(&self) -> Vec<CallInfo> {
        Vec::new()
    }

    /// What happened in a call, also for the last ended ones.
    pub fn timeline(&self, call: CallId) -> Option<&Timeline> {
        let _ = call;
        None
    }

    /// The newest call, running or ended.
    pub fn last(&self) -> Option<CallId> {
        None
    }

    /// Plain counters.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }
}
