//! The next credential: asked of the login server from 24 h on, with a new sealing key, over a link of its own, or
//! through a home where the login server cannot be reached.
//!
//! Contract: [`Renewal::set_servers`] with resolved addresses, [`Renewal::handle_link`] with the events of every link
//! that is no home's, [`Renewal::handle_home_frame`] with a home's answers, [`Renewal::kept`] when what
//! [`RenewalOutput::Keep`] asked for is on stable storage,
//! [`Renewal::handle_timeout`] at [`Renewal::deadline`]; drain [`Renewal::poll_output`].
//!
//! The request is kept, with the other keys since a secret is in it, before it is sent, and repeated byte for byte until
//! it is answered: the login server gives the same answer to the same bytes, so an answer that was lost costs nothing. A
//! login server that is away costs nothing either for 48 hours more; after that the realm's grace begins (DESIGN §3).
//!
//! Nothing is said to a server before it proved a key that the realm's root names.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::account::{AccountCertificate, AccountRecord};
use yodel_identity::credential::Credential;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::limits::{CREDENTIAL_RENEW_AFTER, RENEWAL_BYTES_MAX};
use yodel_identity::login::{
    AccountRecordOffer, Body, Enrolled, LoginHello, LoginRefused, Refusal, Renewal as Request, RenewalFields,
};
use yodel_identity::realm::Realm;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkEvent, LinkId, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now};
use zeroize::Zeroizing;

use crate::homes::LinkIds;
use crate::limits::{RENEWAL_PATIENCE, RENEWAL_RETRY};

/// A new credential and what changes with it.
pub struct Renewed {
    /// The credential.
    pub credential: Credential,
    /// The sealing key in it.
    pub sealing: SealingKey,
    /// The account's record that lists it.
    pub record: AccountRecord,
}

/// What the renewal wants done.
pub enum RenewalOutput {
    /// Open, write to or close a link.
    Link(LinkId, LinkAction),
    /// Have a home carry this; when there is none, call [`Renewal::no_home`].
    ThroughHome(Frame),
    /// Keep this with the keys, then call [`Renewal::kept`]. Empty: forget what was kept.
    Keep(Zeroizing<Vec<u8>>),
    /// Done.
    Renewed(Box<Renewed>),
}

/// Longest of what [`RenewalOutput::Keep`] holds, bytes: a request, a secret, and what is around them.
pub const PENDING_BYTES_MAX: usize = RENEWAL_BYTES_MAX + 64;

struct Pending {
    request: Vec<u8>,
    sealing: SealingKey,
    kept: bool,
}

/// How the present try goes, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Link(LinkId),
    Home,
}

/// See the module's text.
pub struct Renewal {
    root: SigningKey,
    device: SigningKey,
    servers: Vec<SocketAddr>,
    next_server: usize,
    credential: Credential,
    record: AccountRecord,
    pending: Option<Pending>,
    way: Option<(Way, Instant)>,
    /// The key that whoever is at the other end of the link proved.
    server: Option<[u8; 32]>,
    next_try: Option<Instant>,
    rng: ChaCha20Rng,
    outputs: VecDeque<RenewalOutput>,
}

impl Renewal {
    /// With the account's root key and the device's key; due by the credential's dates.
    pub fn new(
        now: Now,
        root: SigningKey,
        device: SigningKey,
        credential: Credential,
        record: AccountRecord,
        seed: [u8; 32],
    ) -> Renewal {
        let mut renewal = Renewal {
            root,
            device,
            servers: Vec::new(),
            next_server: 0,
            credential,
            record,
            pending: None,
            way: None,
            server: None,
            next_try: None,
            rng: ChaCha20Rng::from_seed(seed),
            outputs: VecDeque::new(),
        };
        renewal.schedule(now);
        renewal
    }

    /// Takes in a request that an earlier start kept and got no answer to.
    pub fn load(&mut self, kept: &[u8]) {
        if let Ok(pending) = decode_pending(kept) {
            self.pending = Some(pending);
        }
    }

    /// Where the login server answers, resolved.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// A newer account record than the one known here.
    pub fn set_record(&mut self, record: AccountRecord) {
        self.record = record;
    }

    /// A home says that the credential is not valid: do not wait for its date.
    pub fn hurry(&mut self, now: Now) {
        if self.way.is_none() {
            let pause = self.next_try.map_or(now.mono, |at| at.min(now.mono + RENEWAL_RETRY));
            self.next_try = Some(pause);
        }
    }

    /// Something happened on a link that may be this one's.
    pub fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent, realm: &mut Realm) {
        if self.way.is_none_or(|(way, _)| way != Way::Link(link)) {
            return;
        }
        match event {
            // Whether it is the login server is asked when its hello came, which may bring a newer statement.
            LinkEvent::Opened(peer) => self.server = Some(peer.key),
            LinkEvent::Frame(frame) if frame.kind == FrameKind::LoginHello => {
                let believed = LoginHello::decode(&frame.body)
                    .is_ok_and(|hello| realm.accept_statement(&hello.statement, now.unix).is_ok())
                    && self.server.is_some_and(|key| realm.is_login_server(&key));
                match self.request().filter(|_| believed) {
                    Some(request) => {
                        self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Write(request)));
                    }
                    None => {
                        self.way = None;
                        self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Close));
                        self.through_home(now);
                    }
                }
            }
            LinkEvent::Frame(frame) => self.answer(now, &frame, realm),
            LinkEvent::Closed(_) => {
                self.way = None;
                self.through_home(now);
            }
        }
    }

    /// A home handed over what the login server says. Ignored unless something was asked through one.
    pub fn handle_home_frame(&mut self, now: Now, frame: &Frame, realm: &mut Realm) {
        if self.way.is_some_and(|(way, _)| way == Way::Home) {
            self.answer(now, frame, realm);
        }
    }

    /// There was no home to carry [`RenewalOutput::ThroughHome`].
    pub fn no_home(&mut self, now: Now) {
        if self.way.is_some_and(|(way, _)| way == Way::Home) {
            self.failed(now);
        }
    }

    fn request(&self) -> Option<Frame> {
        let pending = self.pending.as_ref().filter(|pending| pending.kept)?;
        Some(Frame::new(FrameKind::Renew, pending.request.clone()))
    }

    fn answer(&mut self, now: Now, frame: &Frame, realm: &mut Realm) {
        match frame.kind {
            FrameKind::Enrolled => {
                let Some(renewed) = self.enrolled(now, frame, realm) else { return self.failed(now) };
                self.credential = renewed.credential.clone();
                self.record = renewed.record.clone();
                self.pending = None;
                // A further device gets the account's record from the login server and signs the next version.
                let offer = AccountRecordOffer { record: renewed.record.bytes().to_vec() }.frame();
                match self.way.take() {
                    Some((Way::Link(link), _)) => {
                        self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Write(offer)));
                        self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Close));
                    }
                    Some((Way::Home, _)) => self.outputs.push_back(RenewalOutput::ThroughHome(offer)),
                    None => {}
                }
                self.outputs.push_back(RenewalOutput::Renewed(Box::new(renewed)));
                self.schedule(now);
            }
            FrameKind::LoginRefused => {
                let refused = LoginRefused::decode(&frame.body).map(|refused| refused.refusal);
                if matches!(refused, Ok(Refusal::Stale | Refusal::Malformed)) {
                    // The same bytes will never be taken; the next request is made anew.
                    self.pending = None;
                    self.outputs.push_back(RenewalOutput::Keep(Zeroizing::default()));
                }
                self.failed(now);
            }
            // What has no place here.
            _ => self.failed(now),
        }
    }

    fn enrolled(&mut self, now: Now, frame: &Frame, realm: &mut Realm) -> Option<Renewed> {
        let enrolled = Enrolled::decode(&frame.body).ok()?;
        if let Some(bulletin) = &enrolled.bulletin {
            // An older bulletin than the one held is no error.
            let _ = realm.accept_bulletin(bulletin, now.unix);
        }
        let credential = realm.verify_credential(&enrolled.credential, now.unix).ok()?;
        let pending = self.pending.as_ref()?;
        let ours = credential.key == self.device.public()
            && credential.sealing == pending.sealing.public()
            && credential.node == self.credential.node;
        let certificate = AccountCertificate::decode_unverified(&enrolled.certificate).ok()?;
        if !ours || certificate.root != self.root.public() {
            return None;
        }
        // Another device may have signed a newer list; the login server got it too.
        let handed_in = enrolled.account_record.and_then(|record| {
            AccountRecord::verify(&record, &self.root.public()).ok().filter(|record| {
                record.account == self.record.account && record.version > self.record.version
            })
        });
        let known = handed_in.as_ref().unwrap_or(&self.record);
        let mut devices = known.devices.clone();
        devices.retain(|device| device.node != credential.node && !realm.is_revoked(device.node));
        devices.push(credential.clone());
        let version = known.version + 1;
        let record = AccountRecord::issue(&self.root, certificate, version, now.unix, devices).ok()?;
        let sealing = SealingKey::from_bytes(*pending.sealing.to_bytes());
        Some(Renewed { credential, sealing, record })
    }

    /// What [`RenewalOutput::Keep`] asked for is on stable storage.
    pub fn kept(&mut self, now: Now) {
        if let Some(pending) = &mut self.pending
            && !pending.kept
        {
            pending.kept = true;
            self.next_try = Some(now.mono);
        }
    }

    /// The credential's time has come, or a try took too long.
    pub fn handle_timeout(&mut self, now: Now, links: &mut LinkIds) {
        if let Some((way, since)) = self.way
            && now.mono.since(since) >= RENEWAL_PATIENCE
        {
            match way {
                Way::Link(link) => {
                    self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Close));
                    self.way = None;
                    self.through_home(now);
                }
                Way::Home => self.failed(now),
            }
        }
        if self.next_try.is_none_or(|at| at > now.mono) || self.way.is_some() {
            return;
        }
        self.next_try = None;
        if self.pending.is_none() && !self.prepare(now) {
            return self.again(now);
        }
        if let Some(pending) = self.pending.as_ref().filter(|pending| !pending.kept) {
            self.outputs.push_back(RenewalOutput::Keep(encode_pending(pending)));
            // Asked for again should it not be kept; `kept` comes much sooner.
            return self.again(now);
        }
        let Some(addr) = self.servers.get(self.next_server % self.servers.len().max(1)).copied() else {
            // Its name does not resolve here; at a home it may.
            return self.through_home(now);
        };
        self.next_server += 1;
        let link = links.draw();
        self.way = Some((Way::Link(link), now.mono));
        let target = LinkTarget { addr, transport: Transport::Tls, key: None };
        self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Open(target)));
    }

    /// The login server did not answer from here.
    fn through_home(&mut self, now: Now) {
        match self.request() {
            Some(request) => {
                self.way = Some((Way::Home, now.mono));
                self.outputs.push_back(RenewalOutput::ThroughHome(request));
            }
            None => self.again(now),
        }
    }

    fn prepare(&mut self, now: Now) -> bool {
        let sealing = SealingKey::generate(&mut self.rng);
        let fields =
            RenewalFields { credential: self.credential.clone(), sealing: sealing.public(), at: now.unix };
        let Ok(request) = Request::issue(&self.device, &fields) else { return false };
        self.pending = Some(Pending { request: request.bytes().to_vec(), sealing, kept: false });
        true
    }

    /// This try has ended without a credential.
    fn failed(&mut self, now: Now) {
        if let Some((Way::Link(link), _)) = self.way.take() {
            self.outputs.push_back(RenewalOutput::Link(link, LinkAction::Close));
        }
        self.again(now);
    }

    fn again(&mut self, now: Now) {
        let jitter = Duration::from_millis(self.rng.next_u64() % 60_000);
        self.next_try = Some(now.mono + RENEWAL_RETRY + jitter);
    }

    /// At 24 h of the credential's life, spread over an hour, so that a realm does not renew in step.
    fn schedule(&mut self, now: Now) {
        let jitter = Duration::from_millis(self.rng.next_u64() % 3_600_000);
        let due = self.credential.not_before + CREDENTIAL_RENEW_AFTER + jitter;
        self.next_try = Some(now.mono + due.since(now.unix));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.way {
            Some((_, since)) => Some(since + RENEWAL_PATIENCE),
            None => self.next_try,
        }
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<RenewalOutput> {
        self.outputs.pop_front()
    }
}

// A pending request as kept. Keys: 1 request, 2 sealing key's secret.

fn encode_pending(pending: &Pending) -> Zeroizing<Vec<u8>> {
    let secret = pending.sealing.to_bytes();
    Zeroizing::new(MapWriter::new().bytes(1, &pending.request).bytes(2, secret.as_slice()).finish())
}

fn decode_pending(kept: &[u8]) -> Result<Pending, DecodeError> {
    let mut map = MapReader::parse(kept)?;
    let request = map.bytes(1, RENEWAL_BYTES_MAX)?.to_vec();
    let sealing = SealingKey::from_bytes(map.array(2)?);
    map.finish()?;
    Ok(Pending { request, sealing, kept: true })
}

#[cfg(test)]
mod tests {
    use yodel_identity::account::AccountCertificateFields;
    use yodel_identity::credential::{CredentialFields, IssuerId, Roles, Subject};
    use yodel_identity::name::Aor;
    use yodel_identity::node::NodeId;
    use yodel_identity::realm::{IssuerKey, RootStatement, RootStatementFields};
    use yodel_wire::machine::LinkPeer;
    use yodel_wire::time::UnixTime;

    use super::*;

    const T0: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn key(number: u8) -> SigningKey {
        SigningKey::from_seed([number; 32])
    }

    fn aor() -> Aor {
        Aor::parse("alice@example.net").unwrap()
    }

    fn statement() -> Vec<u8> {
        let issuer = IssuerKey { key: key(2).public(), not_before: T0 - DAY, not_after: T0 + 365 * DAY };
        let fields = RootStatementFields {
            realm: aor().realm,
            issued: T0 - DAY,
            issuers: vec![issuer],
            tls_keys: vec![key(5).public()],
            servers: vec!["198.51.100.9:4433".to_owned()],
        };
        RootStatement::issue(&key(1), &fields).unwrap().bytes().to_vec()
    }

    struct Rig {
        now: Now,
        realm: Realm,
        renewal: Renewal,
        links: LinkIds,
    }

    impl Rig {
        /// A day after the credential was issued, with a request that is kept.
        fn new() -> Rig {
            let subject = Subject::Device { account: aor().user, root: key(4).public() };
            let fields = CredentialFields {
                realm: aor().realm,
                subject,
                key: key(3).public(),
                sealing: SealingKey::from_bytes([3; 32]).public(),
                node: NodeId([3; 16]),
                roles: Roles::USER,
                not_before: T0,
                not_after: T0 + 3 * DAY,
                serial: 1,
                issuer: IssuerId::default(),
            };
            let credential = Credential::issue(&key(2), fields).unwrap();
            let fields = AccountCertificateFields {
                account: aor(),
                root: key(4).public(),
                not_before: T0,
                not_after: T0 + 60 * DAY,
                issuer: IssuerId::default(),
            };
            let certificate = AccountCertificate::issue(&key(2), fields).unwrap();
            let record = AccountRecord::issue(&key(4), certificate, 1, T0, vec![credential.clone()]).unwrap();
            let now = Now { mono: Instant::from_micros(1_000), unix: T0 + 2 * DAY };
            let mut realm = Realm::new(aor().realm, key(1).public());
            realm.accept_statement(&statement(), now.unix).unwrap();
            let renewal = Renewal::new(now, key(4), key(3), credential, record, [9; 32]);
            let mut rig = Rig { now, realm, renewal, links: LinkIds::default() };
            rig.renewal.set_servers(vec![SocketAddr::from(([198, 51, 100, 9], 4433))]);
            rig
        }

        fn wait(&mut self) -> Vec<RenewalOutput> {
            if let Some(at) = self.renewal.deadline() {
                self.now.mono = self.now.mono.max(at);
            }
            self.renewal.handle_timeout(self.now, &mut self.links);
            self.drain()
        }

        fn drain(&mut self) -> Vec<RenewalOutput> {
            std::iter::from_fn(|| self.renewal.poll_output()).collect()
        }

        /// The kinds of frames that are written when whoever proved `server` says the realm's hello.
        fn greeted_by(&mut self, server: u8) -> Vec<Option<FrameKind>> {
            let said = self.wait();
            let Some(RenewalOutput::Link(link, LinkAction::Open(_))) = said.first() else {
                panic!("no link is opened");
            };
            let peer = LinkPeer {
                key: key(server).public().0,
                exporter: [0; 32],
                addr: SocketAddr::from(([198, 51, 100, 9], 4433)),
                transport: Transport::Tls,
            };
            let hello = LoginHello { statement: statement(), time: self.now.unix }.frame();
            self.renewal.handle_link(self.now, *link, LinkEvent::Opened(peer), &mut self.realm);
            self.renewal.handle_link(self.now, *link, LinkEvent::Frame(hello), &mut self.realm);
            let written = self.drain().into_iter().map(|output| match output {
                RenewalOutput::Link(_, LinkAction::Write(frame)) => Some(frame.kind),
                RenewalOutput::Link(..)
                | RenewalOutput::ThroughHome(_)
                | RenewalOutput::Keep(_)
                | RenewalOutput::Renewed(_) => None,
            });
            written.collect()
        }
    }

    #[test]
    fn nothing_is_said_to_who_only_repeats_the_login_servers_hello() {
        let mut rig = Rig::new();
        assert!(matches!(rig.wait().as_slice(), [RenewalOutput::Keep(_)]));
        rig.renewal.kept(rig.now);
        assert_eq!(rig.greeted_by(66), [None, None], "it is closed, and a home asked instead");
        rig.renewal.no_home(rig.now);
        assert_eq!(rig.greeted_by(5), [Some(FrameKind::Renew)]);
    }

    #[test]
    fn nothing_is_sent_before_its_secret_is_kept_and_an_earlier_start_goes_on() {
        let mut rig = Rig::new();
        let kept = match rig.wait().pop() {
            Some(RenewalOutput::Keep(kept)) => kept,
            _ => panic!("nothing to keep"),
        };
        assert!(kept.len() <= PENDING_BYTES_MAX);
        assert!(matches!(rig.wait().as_slice(), [RenewalOutput::Keep(again)] if *again == kept), "again");
        let mut next = Rig::new();
        next.renewal.load(&kept);
        assert_eq!(next.greeted_by(5), [Some(FrameKind::Renew)]);
    }
}
