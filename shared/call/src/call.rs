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
//! [`Cause`]; nothing follows it.
//!
//! # Contract
//!
//! Feed one of: [`dial`](Calls::dial), [`ring_shown`](Calls::ring_shown), [`answer`](Calls::answer),
//! [`decline`](Calls::decline), [`hangup`](Calls::hangup), [`send_message`](Calls::send_message) (the user);
//! [`set_homes`](Calls::set_homes), [`set_local_addrs`](Calls::set_local_addrs), [`set_contacts`](Calls::set_contacts),
//! [`set_identity`](Calls::set_identity), [`relay_link`](Calls::relay_link) (the root machine, at each change, before
//! what depends on it); [`handle_lookup`](Calls::handle_lookup), [`handle_sip`](Calls::handle_sip),
//! [`handle_sip_return`](Calls::handle_sip_return), [`handle_datagram`](Calls::handle_datagram),
//! [`handle_relay_frame`](Calls::handle_relay_frame) (the network);
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
//! `life` holds a call's state and its legs, one per device of the peer. `leg` is signalling with one device: boxes, the
//! INVITE and its dialog. Its `plane` is what carries sound: candidates, relay sessions, media. `caller` and `callee`
//! hold what only one side does, `message` what is said outside calls, `inbound` what becomes of a SIP message that
//! came, `device` what all of them share.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_media::AudioEnd;
use yodel_nat::Route;
use yodel_sip::envelope::{Envelope, Return};
use yodel_sip::ids::Ids;
use yodel_sip::transaction::{Key, Transactions, TransactionsOutput};
use yodel_wire::first_byte::DatagramKind;
use yodel_wire::frame::Frame;
use yodel_wire::time::{Instant, Now};

use crate::cause::Cause;
use crate::contacts::{Contact, ContactMessage};
use crate::device::{Device, Seen};
use crate::event::{
    CallId, CallInfo, CallsOutput, CodecFactory, Config, DialOptions, Direction, Home, Identity, LookupId,
    LookupResult, MessageId, RelayLink, Target,
};
use crate::inbound::Answering;
use crate::life::Call;
use crate::limits::{CALLS_KEPT_MAX, REPORTS_MAX, STRAY_AROUND};
use crate::message::Messages;
use crate::timeline::{Entry, Step, Timeline};

/// See the module's text.
pub struct Calls {
    pub(crate) device: Device,
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) messages: Messages,
    /// MESSAGEs that came and were answered.
    pub(crate) answering: BTreeMap<Key, Answering>,
    /// What came and belongs to no call.
    pub(crate) stray: Timeline,
    ended: VecDeque<(CallId, Timeline)>,
    last: Option<CallId>,
    links_wanted: Vec<NodeId>,
}

impl Calls {
    /// No calls yet. `codecs` makes a codec for each answered call (never asked with [`Role::Echo`](crate::event::Role)).
    pub fn new(identity: Identity, config: Config, codecs: Box<dyn CodecFactory>, seed: [u8; 32]) -> Calls {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut ids = [0; 32];
        rng.fill_bytes(&mut ids);
        let device = Device {
            identity,
            config,
            codecs,
            homes: Vec::new(),
            links: BTreeMap::new(),
            hosts: Vec::new(),
            reflexive: Vec::new(),
            contacts: Vec::new(),
            rng,
            ids: Ids::new(ids),
            tx: Transactions::new(),
            out: VecDeque::new(),
            sent: BTreeMap::new(),
            seen: Seen::default(),
            envelopes: 0,
            lookups: 0,
        };
        Calls {
            device,
            calls: BTreeMap::new(),
            messages: Messages::default(),
            answering: BTreeMap::new(),
            stray: Timeline::new(Instant::ORIGIN),
            ended: VecDeque::new(),
            last: None,
            links_wanted: Vec::new(),
        }
    }

    /// A renewed credential, another nonce or contact entry.
    pub fn set_identity(&mut self, identity: Identity) {
        if identity.nonce != self.device.identity.nonce {
            self.device.seen.clear();
        }
        self.device.identity = identity;
    }

    /// The homes this device is attached to now, the one that carries signalling first.
    pub fn set_homes(&mut self, now: Now, homes: Vec<Home>) {
        let before = self.device.home_ids();
        let gone: Vec<NodeId> = self
            .device
            .homes
            .iter()
            .map(|home| home.credential.node)
            .filter(|node| !homes.iter().any(|home| home.credential.node == *node))
            .collect();
        let fresh: Vec<(NodeId, RelayLink)> = homes
            .iter()
            .filter(|home| self.device.relay_link(home.credential.node) != Some(home.link))
            .map(|home| (home.credential.node, home.link))
            .collect();
        self.device.homes = homes;
        for call in self.calls.values_mut() {
            for leg in &mut call.legs {
                for node in &gone {
                    if leg.plane.relay_link(now, *node, None) {
                        self.device.out.push_back(CallsOutput::RelayLinkWanted(*node));
                    }
                    leg.plane.home_gone(now, &mut self.device, *node);
                }
                for (node, link) in &fresh {
                    leg.plane.relay_link(now, *node, Some(*link));
                }
            }
        }
        if self.device.home_ids() != before {
            self.device.tx.retry(now.mono);
            for call in self.calls.values_mut().filter(|call| !call.is_over()) {
                call.tell_homes(now, &mut self.device);
            }
        }
        self.pump(now, None);
    }

    /// This device's addresses: of its interfaces with the socket's port, and as homes see it.
    pub fn set_local_addrs(&mut self, now: Now, host: Vec<SocketAddr>, reflexive: Vec<SocketAddr>) {
        if self.device.hosts == host && self.device.reflexive == reflexive {
            return;
        }
        self.device.hosts = host;
        self.device.reflexive = reflexive;
        let candidates = self.device.candidates();
        for call in self.calls.values_mut().filter(|call| !call.is_over()) {
            for at in 0..call.legs.len() {
                if let Some(leg) = call.legs.get_mut(at) {
                    leg.plane.set_candidates(now, &candidates);
                }
                call.tell_news(now, &mut self.device, at);
            }
        }
        self.pump(now, None);
    }

    /// Whom this account knows.
    pub fn set_contacts(&mut self, contacts: Vec<Contact>) {
        self.device.contacts = contacts;
    }

    /// A link asked for with [`CallsOutput::RelayLinkWanted`] is up (or up again), or down (`None`). Links to homes
    /// are told with [`set_homes`](Self::set_homes) alone. An echo is told once of a link to its own supernode, without
    /// a UDP address: relay frames to it are the relay's of the same process.
    pub fn relay_link(&mut self, now: Now, relay: NodeId, link: Option<RelayLink>) {
        match link {
            Some(link) => {
                self.device.links.insert(relay, link);
            }
            None => {
                self.device.links.remove(&relay);
            }
        }
        for call in self.calls.values_mut() {
            for leg in &mut call.legs {
                // A home that is lost for signalling may be reached another way, and carry on.
                if leg.plane.relay_link(now, relay, link) {
                    self.device.out.push_back(CallsOutput::RelayLinkWanted(relay));
                }
            }
        }
        self.pump(now, None);
    }

    /// Calls somebody. News follow as events, the end among them, also when nothing could even begin. Dialling an
    /// account whose call rings here answers it.
    pub fn dial(&mut self, now: Now, realm: &Realm, target: Target, options: DialOptions) -> CallId {
        if let Target::Account(aor) = &target
            && let Some(call) = self.calls.values_mut().find(|call| call.peer == *aor && call.rings_here())
        {
            let id = call.id;
            call.max = options.max;
            call.accept(now, &mut self.device, Some(options.audio));
            self.pump(now, Some(realm));
            return id;
        }
        let call = Call::dial(now, &mut self.device, realm, &target, options);
        let id = call.id;
        self.keep(call);
        self.pump(now, Some(realm));
        id
    }

    /// Notes an attempt that could not begin, and why: it ends at once, and `why` knows of it like of any other.
    pub fn dial_refused(
        &mut self,
        now: Now,
        realm: &Realm,
        target: &Target,
        cause: Cause,
        detail: &str,
    ) -> CallId {
        let mut call = Call::begin(now, &mut self.device, realm, target);
        call.end(now, &mut self.device, cause, detail);
        let id = call.id;
        self.keep(call);
        self.pump(now, Some(realm));
        id
    }

    /// This device's credential was revoked or refused: attempts under way end with that cause, before their lookups
    /// and requests go unanswered and blame the network.
    pub fn signed_out(&mut self, now: Now) {
        let outgoing = |call: &&mut Call| {
            call.direction == Direction::Out && call.answered_at.is_none() && !call.is_over()
        };
        for call in self.calls.values_mut().filter(outgoing) {
            call.end(now, &mut self.device, Cause::SigninExpired, "this device's credential was refused");
        }
        self.pump(now, None);
    }

    /// The user interface, or auto-answer, shows the ring of this incoming call: only now the caller is told.
    pub fn ring_shown(&mut self, now: Now, call: CallId) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.ring_shown(now, &mut self.device);
        }
        self.pump(now, None);
    }

    /// Accepts an incoming call. False when there is no such call ringing.
    pub fn answer(&mut self, now: Now, call: CallId, audio: Box<dyn AudioEnd>) -> bool {
        let call = self.calls.get_mut(&call);
        let done = call.is_some_and(|call| call.accept(now, &mut self.device, Some(audio)));
        self.pump(now, None);
        done
    }

    /// Declines an incoming call. False when there is no such call ringing.
    pub fn decline(&mut self, now: Now, call: CallId) -> bool {
        let Some(call) = self.calls.get_mut(&call).filter(|call| call.rings_here()) else { return false };
        call.end(now, &mut self.device, Cause::PeerDeclined, "declined here");
        self.pump(now, None);
        true
    }

    /// Ends a call in any state. False when there is no such call. One that was just accepted here ends when the caller
    /// knows of the answer, within two seconds; a second call of this ends it at once.
    pub fn hangup(&mut self, now: Now, call: CallId) -> bool {
        let Some(call) = self.calls.get_mut(&call).filter(|call| !call.is_over()) else { return false };
        if call.leave(now) {
            return true;
        }
        let cause = if call.rings_here() { Cause::PeerDeclined } else { Cause::LocalHangup };
        call.end(now, &mut self.device, cause, "");
        self.pump(now, None);
        true
    }

    /// Gives silence instead of the microphone, or the microphone again.
    pub fn mute(&mut self, call: CallId, muted: bool) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.legs.iter_mut().for_each(|leg| leg.plane.mute(muted));
        }
    }

    /// Sends a message to all devices of an account; [`CallsOutput::MessageDone`] follows.
    pub fn send_message(&mut self, now: Now, realm: &Realm, to: Aor, message: &ContactMessage) -> MessageId {
        let id = self.messages.send(now, &mut self.device, to, message.encode());
        self.pump(now, Some(realm));
        id
    }

    /// What a lookup asked for with [`CallsOutput::Lookup`] found.
    pub fn handle_lookup(&mut self, now: Now, realm: &Realm, id: LookupId, result: LookupResult) {
        if !self.messages.handle_lookup(now, &mut self.device, id, &result)
            && let Some(call) =
                self.calls.values_mut().find(|call| call.asked.is_some_and(|asked| asked.id == id))
        {
            call.handle_lookup(now, &mut self.device, result);
        }
        self.pump(now, Some(realm));
    }

    /// A `SipDeliver` frame arrived from the home `via`.
    pub fn handle_sip(&mut self, now: Now, realm: &Realm, via: NodeId, envelope: Envelope) {
        self.inbound(now, realm, via, &envelope);
        self.pump(now, Some(realm));
    }

    /// A `SipReturn` frame arrived.
    pub fn handle_sip_return(&mut self, now: Now, realm: &Realm, returned: &Return) {
        if let Some((key, way)) = self.device.sent.remove(&returned.id) {
            self.device.tx.handle_return(now.mono, &key, way, returned.reason);
        }
        self.pump(now, Some(realm));
    }

    /// A datagram of first byte 0–3, 21, 22 or 128–191 arrived. False when it is no call's.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> bool {
        let from = yodel_nat::canonical(from);
        let mut planes =
            self.calls.values_mut().flat_map(|call| call.legs.iter_mut().map(|leg| &mut leg.plane));
        let mine = match DatagramKind::of(datagram) {
            DatagramKind::Stun | DatagramKind::Media => {
                planes.any(|plane| plane.handle_packet(now, Route::Direct(from), datagram))
            }
            DatagramKind::RelayData | DatagramKind::RelayControl => {
                planes.fold(false, |mine, plane| plane.handle_relay_datagram(now, from, datagram) | mine)
            }
            DatagramKind::Overlay | DatagramKind::PathProbe | DatagramKind::Quic | DatagramKind::Reserved => {
                false
            }
        };
        self.pump(now, None);
        mine
    }

    /// A relay frame (48–55) arrived on the link with this supernode.
    pub fn handle_relay_frame(&mut self, now: Now, relay: NodeId, frame: &Frame) {
        for call in self.calls.values_mut() {
            for leg in &mut call.legs {
                leg.plane.handle_relay_frame(now, relay, frame);
            }
        }
        self.pump(now, None);
    }

    /// The deadline has passed. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Now, realm: &Realm) {
        self.device.tx.handle_timeout(now.mono);
        self.messages.handle_timeout(now, &mut self.device);
        for call in self.calls.values_mut() {
            call.handle_timeout(now, &mut self.device);
        }
        self.pump(now, Some(realm));
        let gone = |call: &Call| call.gone_at.is_some_and(|at| at <= now.mono);
        let gone: Vec<CallId> = self.calls.values().filter(|call| gone(call)).map(|call| call.id).collect();
        for id in gone {
            self.drop_call(id);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        let calls = self.calls.values().filter_map(Call::deadline);
        calls.chain(self.messages.deadline()).chain(self.device.tx.deadline()).min()
    }

    /// The next thing to carry out; `None` when drained.
    pub fn poll_output(&mut self) -> Option<CallsOutput> {
        self.device.out.pop_front()
    }

    /// All calls that have not ended.
    pub fn list(&self) -> Vec<CallInfo> {
        self.calls.values().filter(|call| !call.is_over() && !call.silent).map(Call::info).collect()
    }

    /// What happened in a call, also for the last ended ones.
    pub fn timeline(&self, call: CallId) -> Option<&Timeline> {
        let running = self.calls.get(&call).map(|call| &call.timeline);
        running.or_else(|| self.ended.iter().find(|(id, _)| *id == call).map(|(_, timeline)| timeline))
    }

    /// What came around the time of a call and belongs to none, with why it was refused: a forged message often names
    /// no call, or one whose INVITE is still on its way.
    pub fn meanwhile(&self, call: CallId) -> Vec<Entry> {
        let Some(timeline) = self.timeline(call) else { return Vec::new() };
        let ended = timeline.entries().last().filter(|entry| matches!(entry.step, Step::Ended(_)));
        let from = timeline.started();
        let until = ended.map(|entry| from + entry.at + STRAY_AROUND);
        let strays = self.stray.entries().iter().map(|entry| (self.stray.started() + entry.at, entry));
        strays
            .filter(|(at, _)| *at + STRAY_AROUND >= from && until.is_none_or(|until| *at <= until))
            .map(|(at, entry)| Entry { at: at.since(from), ..entry.clone() })
            .collect()
    }

    /// What came and belongs to no call, with why it was refused.
    pub fn stray(&self) -> &Timeline {
        &self.stray
    }

    /// The newest call, running or ended.
    pub fn last(&self) -> Option<CallId> {
        self.last
    }

    /// Plain counters.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let running = self.calls.values().filter(|call| !call.is_over()).count();
        let answered =
            self.calls.values().filter(|call| !call.is_over() && call.answered_at.is_some()).count();
        BTreeMap::from([
            ("calls", running as u64),
            ("calls_answered", answered as u64),
            ("calls_kept", self.calls.len() as u64),
            ("sip_refused", (self.stray.entries().len() + self.stray.dropped()) as u64),
        ])
    }

    pub(crate) fn keep(&mut self, call: Call) {
        if self.calls.len() >= CALLS_KEPT_MAX {
            let oldest = self.calls.values().filter(|call| call.is_over()).min_by_key(|call| call.gone_at);
            if let Some(id) = oldest.map(|call| call.id) {
                self.drop_call(id);
            }
        }
        if !call.silent {
            self.last = Some(call.id);
        }
        self.calls.insert(call.id, call);
    }

    pub(crate) fn drop_call(&mut self, id: CallId) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        for leg in &mut call.legs {
            self.device.tx.forget(leg.peer.node, &leg.call_id);
        }
        self.ended.push_back((id, call.timeline));
        if self.ended.len() > REPORTS_MAX {
            self.ended.pop_front();
        }
    }

    /// Carries out what the parts want until none wants anything. Without a realm nothing of the peer's is believed:
    /// only what the user did can have moved.
    pub(crate) fn pump(&mut self, now: Now, realm: Option<&Realm>) {
        loop {
            let mut moved = false;
            while let Some(output) = self.device.tx.poll_output() {
                moved = true;
                match output {
                    TransactionsOutput::Client(key, output) => self.client_output(now, realm, &key, output),
                    TransactionsOutput::Server(key, output) => self.server_output(now, &key, output),
                }
            }
            for call in self.calls.values_mut() {
                for at in 0..call.legs.len() {
                    while let Some(event) =
                        call.legs.get_mut(at).and_then(|leg| leg.plane.poll(now, &mut self.device))
                    {
                        moved = true;
                        call.plane_event(now, &mut self.device, at, event);
                    }
                }
            }
            if !moved {
                break;
            }
        }
        self.release_links();
    }

    /// Links opened for relays that no call uses any more.
    fn release_links(&mut self) {
        for output in &self.device.out {
            if let CallsOutput::RelayLinkWanted(node) = output
                && !self.links_wanted.contains(node)
            {
                self.links_wanted.push(*node);
            }
        }
        let calls = &self.calls;
        let used =
            |node: NodeId| calls.values().any(|call| call.legs.iter().any(|leg| leg.plane.uses_relay(node)));
        let (kept, done): (Vec<NodeId>, Vec<NodeId>) =
            self.links_wanted.iter().partition(|node| used(**node));
        self.links_wanted = kept;
        for node in done {
            self.device.links.remove(&node);
            self.device.out.push_back(CallsOutput::RelayLinkDone(node));
        }
    }

    /// The leg with this Call-ID.
    pub(crate) fn leg_of(&self, call_id: &str) -> Option<(CallId, usize)> {
        self.calls.values().find_map(|call| Some((call.id, call.leg_of(call_id)?)))
    }

    /// An outgoing call to this account that nobody has answered yet.
    pub(crate) fn dialling(&mut self, aor: &Aor) -> Option<&mut Call> {
        self.calls.values_mut().find(|call| {
            call.direction == Direction::Out
                && call.peer == *aor
                && !call.is_over()
                && call.phase < crate::life::Phase::Answered
                && call.legs.iter().all(|leg| leg.caller)
        })
    }
}
