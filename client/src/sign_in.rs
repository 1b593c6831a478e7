//! Sign-in: a device comes into an account, over one link to the login server.
//!
//! [`SignIn`] is a machine by the contract of [`yodel_wire::machine`]: it takes no commands and no commits, opens links
//! itself, and ends with exactly one event. [`run`] drives it with `yodel-net` and writes the keys. The password's hash
//! is computed inside the machine and takes a tenth of a second.
//!
//! Whether the account exists is found out by asking for it to be opened: a taken name means that this is a further
//! device, which proves the password, gets the account's root key sealed under it, and signs itself into the
//! account's record.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use yodel_identity::account::{AccountCertificate, AccountRecord};
use yodel_identity::credential::Credential;
use yodel_identity::invitation::{Invitation, InvitationRole};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::limits::{CLOCK_TOLERANCE, DEVICES_MAX};
use yodel_identity::login::{
    AccountRecordKept, AccountRecordOffer, Body, Enrolled, LoginFinish, LoginHello, LoginRefused,
    LoginResponse, LoginStart, Refusal, RegisterFinish, RegisterResponse, RegisterStart,
};
use yodel_identity::name::Aor;
use yodel_identity::opaque::{OpaqueError, Registering, SigningIn};
use yodel_identity::realm::Realm;
use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, Exit, drive};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkClosed, LinkEvent, LinkId, LinkPeer, LinkTarget, Machine, Output, Ticket,
    Transport,
};
use yodel_wire::time::{Instant, Now, UnixTime};
use zeroize::Zeroizing;

use crate::keys::{KeptSealing, Keys, KeysError};

/// How long one address of the login server gets for one step. Its slowest is a flush to disk.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// How often a step is done again when another device of the account was faster.
const RECORD_TRIES: u32 = 3;

/// Who wants to sign in where.
pub struct SignInRequest {
    /// The account.
    pub aor: Aor,
    /// The invitation: the realm's pin, and where its login server is.
    pub invitation: Invitation,
    /// The password.
    pub password: Zeroizing<String>,
    /// The login server's addresses, resolved, in the order to try.
    pub servers: Vec<SocketAddr>,
}

/// Done: this device is in the account.
pub struct SignedIn {
    /// What to keep.
    pub keys: Keys,
    /// Whether the account was opened just now.
    pub new_account: bool,
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The invitation does not fit the account asked for.
    #[error("{0}")]
    Usage(&'static str),
    /// Somebody is signed in here already.
    #[error("{0} is signed in here already; --replace puts another device in its place")]
    SignedIn(Aor),
    /// No address of the login server answered.
    #[error("the login server does not answer")]
    Offline,
    /// Who answered is not the login server that the invitation vouches for.
    #[error("who answers is not the login server of this realm")]
    NotTheRealm,
    /// The clocks are too far apart.
    #[error("this device's clock is off by {0} s; set it and try again")]
    Clock(u64),
    /// Wrong password, or unknown account.
    #[error("wrong password")]
    Password,
    /// The login server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Something that the login server sent does not verify.
    #[error("the login server's answer is not in order")]
    Answer,
    /// The password cannot be used.
    #[error("{0}")]
    Opaque(OpaqueError),
    /// The keys cannot be kept.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The network or the clock could not be used.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl SignInError {
    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self {
            SignInError::Usage(_) => Exit::Usage,
            SignInError::Offline => Exit::NoAnswer,
            SignInError::NotTheRealm | SignInError::Answer => Exit::Trust,
            SignInError::Clock(_) | SignInError::Password => Exit::NotSignedIn,
            SignInError::Refused(refusal) => match refusal {
                Refusal::Password | Refusal::Suspended | Refusal::Revoked | Refusal::Stale => {
                    Exit::NotSignedIn
                }
                Refusal::Invitation
                | Refusal::UserTaken
                | Refusal::UserReserved
                | Refusal::TooManyDevices
                | Refusal::TooOften => Exit::Refused,
                Refusal::Malformed
                | Refusal::Unavailable
                | Refusal::Record
                | Refusal::Proof
                | Refusal::Other(_) => Exit::Failed,
            },
            SignInError::SignedIn(_)
            | SignInError::Opaque(_)
            | SignInError::Keys(_)
            | SignInError::System(_) => Exit::Failed,
        }
    }

    /// The cause code, where there is one.
    pub fn cause(&self) -> Option<&'static str> {
        matches!(self, SignInError::Clock(_)).then_some("signin.clock")
    }
}

/// The machine; see the module's text.
pub struct SignIn {
    request: SignInRequest,
    realm: Realm,
    device: SigningKey,
    sealing: SealingKey,
    rng: ChaCha20Rng,
    next_server: usize,
    link: LinkId,
    peer: Option<LinkPeer>,
    step: Step,
    /// Why the account could not be opened, when it could not.
    not_opened: Option<Refusal>,
    record_tries: u32,
    deadline: Option<Instant>,
    outputs: VecDeque<Output<Result<SignedIn, SignInError>>>,
}

enum Step {
    Connecting,
    Registering(Box<Registering>),
    /// The root key was made here and waits for its account.
    Registered(Box<SigningKey>),
    SigningIn(Box<SigningIn>),
    /// The export key that opens the sealed root key.
    SignedIn(Box<yodel_identity::opaque::ExportKey>),
    RecordOffered(Box<Keys>),
    Over,
}

impl SignIn {
    /// Begins. The device's key, to be proved on the link, is made from the same seed by [`SignIn::device_key`].
    ///
    /// # Errors
    /// `Usage` when the invitation is not for this account.
    pub fn new(now: Now, request: SignInRequest, seed: [u8; 32]) -> Result<SignIn, SignInError> {
        if request.aor.realm != request.invitation.realm {
            return Err(SignInError::Usage("the invitation is for another realm"));
        }
        if request.invitation.role == InvitationRole::Supernode {
            return Err(SignInError::Usage("the invitation is for a supernode, not for a person"));
        }
        if request.invitation.user.as_ref().is_some_and(|user| *user != request.aor.user) {
            return Err(SignInError::Usage("the invitation is for another account"));
        }
        let (device, mut rng) = SignIn::device(seed);
        let sealing = SealingKey::generate(&mut rng);
        let mut sign_in = SignIn {
            realm: Realm::new(request.aor.realm.clone(), request.invitation.pin),
            request,
            device,
            sealing,
            rng,
            next_server: 0,
            link: LinkId(0),
            peer: None,
            step: Step::Connecting,
            not_opened: None,
            record_tries: 0,
            deadline: None,
            outputs: VecDeque::new(),
        };
        sign_in.connect(now);
        Ok(sign_in)
    }

    /// The key that the link must prove.
    pub fn device_key(seed: [u8; 32]) -> SigningKey {
        SignIn::device(seed).0
    }

    fn device(seed: [u8; 32]) -> (SigningKey, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::from_seed(seed);
        (SigningKey::generate(&mut rng), rng)
    }

    fn connect(&mut self, now: Now) {
        let Some(addr) = self.request.servers.get(self.next_server).copied() else {
            return self.end(Err(SignInError::Offline));
        };
        self.link = LinkId(self.next_server as u64);
        self.next_server += 1;
        self.step = Step::Connecting;
        self.peer = None;
        self.deadline = Some(now.mono + STEP_WITHIN);
        let target = LinkTarget { addr, transport: Transport::Tls, key: None };
        self.outputs.push_back(Output::Link(self.link, LinkAction::Open(target)));
    }

    fn end(&mut self, result: Result<SignedIn, SignInError>) {
        if !matches!(self.step, Step::Over) {
            self.step = Step::Over;
            self.deadline = None;
            self.outputs.push_back(Output::Event(result));
        }
    }

    fn write(&mut self, now: Now, frame: Frame) {
        self.deadline = Some(now.mono + STEP_WITHIN);
        self.outputs.push_back(Output::Link(self.link, LinkAction::Write(frame)));
    }

    fn frame(&mut self, now: Now, frame: &Frame) -> Result<(), SignInError> {
        let body = frame.body.as_slice();
        let step = std::mem::replace(&mut self.step, Step::Connecting);
        match (frame.kind, step) {
            (FrameKind::LoginHello, Step::Connecting) => self.hello(now, body),
            (FrameKind::RegisterResponse, Step::Registering(client)) => self.register(now, *client, body),
            (FrameKind::Enrolled, Step::Registered(root)) => self.enrolled(now, *root, body),
            (FrameKind::LoginResponse, Step::SigningIn(client)) => self.login(now, *client, body),
            (FrameKind::Enrolled, Step::SignedIn(export)) => {
                let enrolled = Enrolled::decode(body).map_err(|_| SignInError::Answer)?;
                let sealed = enrolled.sealed_root.as_deref().ok_or(SignInError::Answer)?;
                let root = export.open_root(&self.request.aor, sealed).map_err(|_| SignInError::Answer)?;
                self.enrolled(now, root, body)
            }
            (FrameKind::AccountRecordKept, Step::RecordOffered(keys)) => {
                let kept = AccountRecordKept::decode(body).map_err(|_| SignInError::Answer)?;
                if kept.version != keys.record.version {
                    return Err(SignInError::Answer);
                }
                self.outputs.push_back(Output::Link(self.link, LinkAction::Close));
                let new_account = self.not_opened.is_none();
                self.end(Ok(SignedIn { keys: *keys, new_account }));
                Ok(())
            }
            (FrameKind::LoginRefused, step) => self.refused(now, step, body),
            // Anything else that a later server may say in between changes nothing.
            (_, step) => {
                self.step = step;
                Ok(())
            }
        }
    }

    fn hello(&mut self, now: Now, body: &[u8]) -> Result<(), SignInError> {
        let hello = LoginHello::decode(body).map_err(|_| SignInError::NotTheRealm)?;
        self.realm.accept_statement(&hello.statement, now.unix).map_err(|_| SignInError::NotTheRealm)?;
        let peer = self.peer.as_ref().ok_or(SignInError::NotTheRealm)?;
        if !self.realm.is_login_server(&peer.key) {
            return Err(SignInError::NotTheRealm);
        }
        let off = now.unix.since(hello.time).max(hello.time.since(now.unix));
        if off > CLOCK_TOLERANCE {
            return Err(SignInError::Clock(off.as_secs()));
        }
        let (client, opaque) =
            Registering::start(&mut self.rng, &self.request.password).map_err(SignInError::Opaque)?;
        self.step = Step::Registering(Box::new(client));
        let secret = self.request.invitation.secret;
        let start = RegisterStart { secret, user: self.request.aor.user.clone(), opaque };
        self.write(now, start.frame());
        Ok(())
    }

    fn register(&mut self, now: Now, client: Registering, body: &[u8]) -> Result<(), SignInError> {
        let response = RegisterResponse::decode(body).map_err(|_| SignInError::Answer)?;
        let aor = self.request.aor.clone();
        let (opaque, export) =
            client.finish(&mut self.rng, &aor, &response.opaque).map_err(SignInError::Opaque)?;
        let root = SigningKey::generate(&mut self.rng);
        let sealing = self.sealing.public();
        let finish = RegisterFinish {
            opaque,
            root: root.public(),
            sealed_root: export.seal_root(&mut self.rng, &aor, &root),
            sealing,
            proof: RegisterFinish::prove(&root, &aor, &self.device.public(), &sealing),
        };
        self.step = Step::Registered(Box::new(root));
        self.write(now, finish.frame());
        Ok(())
    }

    fn start_login(&mut self, now: Now) -> Result<(), SignInError> {
        let (client, opaque) =
            SigningIn::start(&mut self.rng, &self.request.password).map_err(SignInError::Opaque)?;
        self.step = Step::SigningIn(Box::new(client));
        self.write(now, LoginStart { user: self.request.aor.user.clone(), opaque }.frame());
        Ok(())
    }

    fn login(&mut self, now: Now, client: SigningIn, body: &[u8]) -> Result<(), SignInError> {
        let response = LoginResponse::decode(body).map_err(|_| SignInError::Answer)?;
        let exporter = self.peer.as_ref().ok_or(SignInError::Answer)?.exporter;
        let finished = client.finish(&mut self.rng, &self.request.aor, &exporter, &response.opaque);
        let (opaque, export) = finished.map_err(|error| match error {
            OpaqueError::Refused => self.wrong_password(),
            OpaqueError::Malformed | OpaqueError::Stretch => SignInError::Opaque(error),
        })?;
        self.step = Step::SignedIn(Box::new(export));
        self.write(now, LoginFinish { opaque, sealing: self.sealing.public() }.frame());
        Ok(())
    }

    /// An account that cannot be opened because of the invitation, and cannot be signed in to either, most likely is
    /// not there: then the invitation is what the user wants to know about.
    fn wrong_password(&self) -> SignInError {
        match self.not_opened {
            Some(refusal @ Refusal::Invitation) => SignInError::Refused(refusal),
            _ => SignInError::Password,
        }
    }

    fn refused(&mut self, now: Now, step: Step, body: &[u8]) -> Result<(), SignInError> {
        let refused = LoginRefused::decode(body).map_err(|_| SignInError::Answer)?;
        match (refused.refusal, step) {
            (
                refusal @ (Refusal::UserTaken | Refusal::Invitation),
                Step::Registering(_) | Step::Registered(_),
            ) => {
                self.not_opened = Some(refusal);
                self.start_login(now)
            }
            (Refusal::Record, Step::RecordOffered(_)) if self.record_tries < RECORD_TRIES => {
                self.record_tries += 1;
                self.not_opened.get_or_insert(Refusal::UserTaken);
                self.start_login(now)
            }
            // Another device of this account is being signed in at this very moment.
            (Refusal::Unavailable, Step::SignedIn(_))
                if refused.come_back_s.is_some() && self.record_tries < RECORD_TRIES =>
            {
                self.record_tries += 1;
                self.start_login(now)
            }
            (Refusal::Password, _) => Err(self.wrong_password()),
            (refusal, _) => Err(SignInError::Refused(refusal)),
        }
    }

    /// Checks everything that the server signed, and signs this device into the account's record.
    fn enrolled(&mut self, now: Now, root: SigningKey, body: &[u8]) -> Result<(), SignInError> {
        let answer = |_| SignInError::Answer;
        let enrolled = Enrolled::decode(body).map_err(answer)?;
        self.realm.accept_statement(&enrolled.statement, now.unix).map_err(|_| SignInError::Answer)?;
        if let Some(bulletin) = &enrolled.bulletin {
            self.realm.accept_bulletin(bulletin, now.unix).map_err(|_| SignInError::Answer)?;
        }
        let credential =
            self.realm.verify_credential(&enrolled.credential, now.unix).map_err(|_| SignInError::Answer)?;
        let ours = credential.aor().as_ref() == Some(&self.request.aor)
            && credential.root() == Some(&root.public())
            && credential.key == self.device.public()
            && credential.sealing == self.sealing.public();
        if !ours {
            return Err(SignInError::Answer);
        }
        let certificate = self
            .realm
            .verify_account_certificate(&enrolled.certificate, now.unix)
            .map_err(|_| SignInError::Answer)?;
        let record =
            self.sign_record(now, &root, certificate, &credential, enrolled.account_record.as_deref())?;
        let keys = Keys {
            aor: self.request.aor.clone(),
            pin: self.request.invitation.pin,
            servers: self.request.invitation.servers.clone(),
            statement: self.realm.statement_bytes().unwrap_or_default().to_vec(),
            bulletin: self.realm.bulletin_bytes().map(<[u8]>::to_vec),
            device: SigningKey::from_seed(*self.device.seed()),
            root,
            sealing: vec![KeptSealing {
                key: SealingKey::from_bytes(*self.sealing.to_bytes()),
                credential: credential.hash(),
                replaced: None,
            }],
            credential,
            record,
            pending: None,
        };
        let offer = AccountRecordOffer { record: keys.record.bytes().to_vec() };
        self.step = Step::RecordOffered(Box::new(keys));
        self.write(now, offer.frame());
        Ok(())
    }

    fn sign_record(
        &self,
        now: Now,
        root: &SigningKey,
        certificate: AccountCertificate,
        own: &Credential,
        known: Option<&[u8]>,
    ) -> Result<AccountRecord, SignInError> {
        // A record that the account's own root key did not sign lists nobody we know; its version still counts.
        let known = known.and_then(|bytes| AccountRecord::decode_unverified(bytes).ok());
        let version = known.as_ref().map_or(0, |record| record.version);
        let mut devices: Vec<Credential> = known
            .filter(|record| record.root == root.public() && record.verify_with(&root.public()).is_ok())
            .map(|record| record.devices.clone())
            .unwrap_or_default();
        devices.retain(|device| {
            device.node != own.node && device.key != own.key && !self.realm.is_revoked(device.node)
        });
        devices.sort_by_key(|device| std::cmp::Reverse(device.not_after));
        devices.truncate(DEVICES_MAX - 1);
        devices.push(own.clone());
        let version = version.checked_add(1).ok_or(SignInError::Answer)?;
        // Whole seconds are what it carries.
        let issued = UnixTime::from_secs(now.unix.as_secs());
        AccountRecord::issue(root, certificate, version, issued, devices).map_err(|_| SignInError::Answer)
    }
}

impl Machine for SignIn {
    type Command = ();
    type Event = Result<SignedIn, SignInError>;

    fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _datagram: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        if link != self.link || matches!(self.step, Step::Over) {
            return;
        }
        match event {
            LinkEvent::Opened(peer) => self.peer = Some(peer),
            LinkEvent::Frame(frame) => {
                if let Err(error) = self.frame(now, &frame) {
                    self.outputs.push_back(Output::Link(self.link, LinkAction::Close));
                    self.end(Err(error));
                }
            }
            LinkEvent::Closed(LinkClosed::WrongKey) => self.end(Err(SignInError::NotTheRealm)),
            LinkEvent::Closed(_) => self.connect(now),
        }
    }

    fn handle_command(&mut self, _now: Now, (): ()) {}

    fn handle_committed(&mut self, _now: Now, _ticket: Ticket, _result: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_some_and(|deadline| now.mono >= deadline) {
            self.outputs.push_back(Output::Link(self.link, LinkAction::Close));
            self.connect(now);
        }
    }

    fn poll_output(&mut self) -> Output<Self::Event> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.deadline })
    }
}

/// Signs in and writes the keys below `data`. `replace` puts the new device in the place of one that is there.
///
/// # Errors
/// See [`SignInError`].
pub async fn run(
    data: &Path,
    aor: Aor,
    invitation: Invitation,
    password: Zeroizing<String>,
    replace: bool,
) -> Result<SignedIn, SignInError> {
    let clock = Clock::start();
    let now = clock.now();
    if let Some(keys) = Keys::load(data)? {
        let alive = keys.credential.not_after > now.unix;
        if !replace && alive {
            return Err(SignInError::SignedIn(keys.aor));
        }
    }
    let mut servers = Vec::new();
    for server in &invitation.servers {
        if let Ok(addrs) = tokio::net::lookup_host(server).await {
            servers.extend(addrs);
        }
    }
    let seed = yodel_net::seed()?;
    let machine = SignIn::new(now, SignInRequest { aor, invitation, password, servers }, seed)?;
    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: SignIn::device_key(seed).seed(),
        udp: None,
        tcp: Vec::new(),
        limits: EndpointLimits::PHONE,
    })?;
    // Nothing is commanded, but the driver ends when nobody could any more.
    let (_commands, no_commands) = tokio::sync::mpsc::channel(1);
    let mut result = Err(SignInError::Offline);
    drive(machine, endpoint, clock, None, no_commands, |event| {
        result = event;
        ControlFlow::Break(())
    })
    .await?;
    let signed_in = result?;
    signed_in.keys.save(data)?;
    Ok(signed_in)
}

impl std::fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedIn").field("new_account", &self.new_account).finish_non_exhaustive()
    }
}
