//! The login server's root machine.
//!
//! Feed it by the contract of [`yodel_wire::machine`]; it uses links and commits, no datagrams. Every link gets the
//! root statement first. A request is answered when what it changed is stored, and not before; a commit that fails is
//! taken back and answered with `Unavailable`. The machine never sees a password, never holds the realm's root key,
//! and holds no more than `limits.rs` says.
//!
//! `server.rs` routes; `enrol.rs` opens accounts and signs devices in, `renew.rs` renews, `supernodes.rs` lets
//! supernodes in and out, `publish.rs` signs bulletins and hands them to who waits, `operate.rs` serves the operator.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use yodel_identity::keys::PublicKey;
use yodel_identity::login::{Body, LoginHello, LoginRefused, Refusal};
use yodel_identity::name::AccountName;
use yodel_identity::node::NodeId;
use yodel_identity::opaque::LoginPending;
use yodel_identity::realm::Realm;
use yodel_store::Store;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkAction, LinkEvent, LinkId, LinkPeer, Machine, Output, Ticket};
use yodel_wire::time::{Instant, Now};

use crate::admin::{AdminError, AdminReply, AdminRequest};
use crate::keys::ServerKeys;
use crate::limits::{
    ATTEMPT_PER_ACCOUNT_EVERY, ATTEMPT_PER_ADDRESS_EVERY, ATTEMPTS_PER_ACCOUNT, ATTEMPTS_PER_ADDRESS,
    DEFERRED_MAX, LIMITED_MAX, LINK_IDLE, LINKS_MAX, RENEWAL_EVERY, RENEWALS, SWEEP_EVERY,
};
use crate::publish::{Publish, Publisher};
use crate::rate::{Rate, network_of};
use crate::state::{Change, LoadError, State};

/// What an operator asks, with a number that comes back with the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names the request.
    pub id: u64,
    /// The request.
    pub request: AdminRequest,
}

/// What the process learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first bulletin is out: requests are served.
    Ready,
    /// An operator's answer.
    Admin {
        /// Names the request.
        id: u64,
        /// The answer.
        reply: AdminReply,
    },
    /// An account was opened, or a device or supernode let in or put out; for the log, without names.
    Changed(&'static str),
    /// A commit failed: the disk is full or broken.
    NotStored,
}

/// The login server; see the module's text.
pub struct LoginServer {
    pub(crate) keys: ServerKeys,
    pub(crate) realm: Realm,
    pub(crate) state: State,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) publisher: Publisher,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) by_address: Rate<[u8; 16]>,
    pub(crate) by_account: Rate<AccountName>,
    pub(crate) renewals: Rate<NodeId>,
    commits: BTreeMap<Ticket, Pending>,
    /// Requests for what a commit under way holds; done again when a commit ends.
    deferred: VecDeque<(LinkId, Frame)>,
    next_ticket: u64,
    sweep_at: Instant,
    outputs: VecDeque<Output<Event>>,
}

/// One link.
pub(crate) struct Link {
    pub(crate) key: PublicKey,
    pub(crate) exporter: [u8; 32],
    pub(crate) addr: SocketAddr,
    /// Which supernode it is, once it said anything that only that supernode may say.
    pub(crate) supernode: Option<NodeId>,
    pub(crate) exchange: Exchange,
    heard: Instant,
}

/// What a link is in the middle of.
pub(crate) enum Exchange {
    Nothing,
    Registering { invitation: [u8; 16], user: AccountName },
    SigningIn(Box<LoginPending>),
}

/// What to do once a commit is stored.
#[derive(Default)]
pub(crate) struct Then {
    /// Answers.
    pub(crate) frames: Vec<(LinkId, Frame)>,
    /// Who is told when it could not be stored.
    pub(crate) asked: Option<LinkId>,
    /// An operator's answer.
    pub(crate) admin: Option<(u64, serde_json::Value)>,
    /// Whether the bulletin changed.
    pub(crate) publish: Publish,
    /// Links of whom was put out.
    pub(crate) close: Vec<LinkId>,
    /// For the log.
    pub(crate) changed: Option<&'static str>,
    /// Epochs up to here may be published.
    pub(crate) epochs: Option<u64>,
}

struct Pending {
    change: Change,
    then: Then,
}

impl LoginServer {
    /// A login server with everything that `store` holds. The seed feeds OPAQUE and invitations.
    ///
    /// # Errors
    /// When the store's content is not a login server's.
    pub fn new(
        now: Now,
        keys: ServerKeys,
        store: &dyn Store,
        seed: [u8; 32],
    ) -> Result<LoginServer, LoadError> {
        let mut realm = Realm::new(keys.realm.clone(), keys.pin);
        // The statement was verified when the keys were read.
        let _ = realm.accept_statement(keys.statement.bytes(), now.unix);
        let mut state = State::load(store)?;
        // After a restart every supernode gets its time to come back.
        state.roster.begin(now.mono);
        let mut server = LoginServer {
            publisher: Publisher::new(now.mono, &state),
            keys,
            realm,
            state,
            rng: ChaCha20Rng::from_seed(seed),
            links: BTreeMap::new(),
            by_address: Rate::new(ATTEMPTS_PER_ADDRESS, ATTEMPT_PER_ADDRESS_EVERY, LIMITED_MAX),
            by_account: Rate::new(ATTEMPTS_PER_ACCOUNT, ATTEMPT_PER_ACCOUNT_EVERY, LIMITED_MAX),
            renewals: Rate::new(RENEWALS, RENEWAL_EVERY, LIMITED_MAX),
            commits: BTreeMap::new(),
            deferred: VecDeque::new(),
            next_ticket: 0,
            sweep_at: now.mono + SWEEP_EVERY,
            outputs: VecDeque::new(),
        };
        server.reserve_epochs();
        Ok(server)
    }

    /// The realm it serves.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Hands a change to the store.
    pub(crate) fn commit(&mut self, mut change: Change, then: Then) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let writes = std::mem::take(&mut change.writes);
        self.commits.insert(ticket, Pending { change, then });
        self.outputs.push_back(Output::Commit(ticket, writes));
    }

    /// Queues a frame, unless the link is gone.
    pub(crate) fn write(&mut self, link: LinkId, frame: Frame) {
        if self.links.contains_key(&link) {
            self.outputs.push_back(Output::Link(link, LinkAction::Write(frame)));
        }
    }

    pub(crate) fn refuse(&mut self, link: LinkId, refusal: Refusal) {
        self.write(link, LoginRefused::because(refusal).frame());
    }

    pub(crate) fn refuse_for(&mut self, link: LinkId, wait: Duration) {
        let secs = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let refused = LoginRefused { refusal: Refusal::TooOften, come_back_s: Some(secs) };
        self.write(link, refused.frame());
    }

    /// Does a request again when the account or supernode it is about is free: its last change is under way.
    pub(crate) fn defer(&mut self, link: LinkId, kind: FrameKind, body: &[u8]) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back((link, Frame::new(kind, body.to_vec())));
        } else {
            self.refuse_held(link);
        }
    }

    /// Refuses for as long as a change is under way.
    pub(crate) fn refuse_held(&mut self, link: LinkId) {
        let refused = LoginRefused { refusal: Refusal::Unavailable, come_back_s: Some(1) };
        self.write(link, refused.frame());
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        if self.forget(link) {
            self.outputs.push_back(Output::Link(link, LinkAction::Close));
        }
    }

    fn opened(&mut self, now: Now, id: LinkId, peer: LinkPeer) {
        if self.links.len() >= LINKS_MAX {
            self.outputs.push_back(Output::Link(id, LinkAction::Close));
            return;
        }
        let link = Link {
            key: PublicKey(peer.key),
            exporter: peer.exporter,
            addr: peer.addr,
            supernode: None,
            exchange: Exchange::Nothing,
            heard: now.mono,
        };
        self.links.insert(id, link);
        let hello = LoginHello { statement: self.keys.statement.bytes().to_vec(), time: now.unix };
        self.write(id, hello.frame());
    }

    /// A link ended. Whether it was there.
    fn forget(&mut self, id: LinkId) -> bool {
        self.publisher.forget(id);
        let Some(link) = self.links.remove(&id) else { return false };
        if let Some(node) = link.supernode {
            self.state.roster.unlinked(node, id);
        }
        true
    }

    fn frame(&mut self, now: Now, id: LinkId, frame: &Frame) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = now.mono;
        let body = frame.body.as_slice();
        let handled = match frame.kind {
            FrameKind::RegisterStart => self.register_start(now, id, body),
            FrameKind::RegisterFinish => self.register_finish(now, id, body),
            FrameKind::LoginStart => self.login_start(now, id, body),
            FrameKind::LoginFinish => self.login_finish(now, id, body),
            FrameKind::AccountRecord => self.account_record(now, id, body),
            FrameKind::Renew => self.renew(now, id, body),
            FrameKind::SupernodeEnrol => self.supernode_enrol(now, id, body),
            FrameKind::SupernodeState => self.supernode_state(now, id, body),
            FrameKind::BulletinWanted => self.bulletin_wanted(id, body),
            FrameKind::Ping => {
                self.write(id, Frame::new(FrameKind::Pong, body.to_vec()));
                Ok(())
            }
            // Not said to a login server; a newer client may try.
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Refuse
            | FrameKind::Pong
            | FrameKind::Goodbye
            | FrameKind::Bulletin
            | FrameKind::RevokedPage
            | FrameKind::Write
            | FrameKind::Written
            | FrameKind::Read
            | FrameKind::Answer
            | FrameKind::CardsWanted
            | FrameKind::Cards
            | FrameKind::SipSend
            | FrameKind::SipForward
            | FrameKind::SipDeliver
            | FrameKind::SipReturn
            | FrameKind::RelayOpen
            | FrameKind::RelayOpened
            | FrameKind::RelayJoin
            | FrameKind::RelayJoined
            | FrameKind::RelayState
            | FrameKind::RelayData
            | FrameKind::RelayClose
            | FrameKind::RelayRefused
            | FrameKind::LoginHello
            | FrameKind::RegisterResponse
            | FrameKind::LoginResponse
            | FrameKind::Enrolled
            | FrameKind::SupernodeEnrolled
            | FrameKind::LoginRefused
            | FrameKind::AccountRecordKept => Err(Refusal::Malformed),
        };
        if let Err(refusal) = handled {
            if let Some(link) = self.links.get_mut(&id) {
                link.exchange = Exchange::Nothing;
            }
            self.refuse(id, refusal);
        }
    }

    /// Counts an attempt to sign in. `false` when it was refused.
    pub(crate) fn allow_attempt(&mut self, now: Now, id: LinkId, user: Option<&AccountName>) -> bool {
        let Some(link) = self.links.get(&id) else { return false };
        let mut allowed = self.by_address.take(now.mono, &network_of(link.addr));
        if let (Ok(()), Some(user)) = (allowed, user) {
            allowed = self.by_account.take(now.mono, user);
        }
        match allowed {
            Ok(()) => true,
            Err(wait) => {
                self.refuse_for(id, wait);
                false
            }
        }
    }

    fn sweep(&mut self, now: Now) {
        self.sweep_at = now.mono + SWEEP_EVERY;
        self.by_address.sweep(now.mono);
        self.by_account.sweep(now.mono);
        self.renewals.sweep(now.mono);
        let idle: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.supernode.is_none() && now.mono.since(link.heard) >= LINK_IDLE)
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.close(id);
        }
        let mut change = Change::default();
        self.state.drop_invitations(&mut change, now.unix - crate::limits::INVITATION_LIFE);
        self.state.drop_revoked(&mut change, now.unix);
        if !change.writes.is_empty() {
            self.commit(change, Then { publish: Publish::Soon, ..Then::default() });
        }
    }
}

impl Machine for LoginServer {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _datagram: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        self.state.roster.at(now.mono);
        match event {
            LinkEvent::Opened(peer) => self.opened(now, link, peer),
            LinkEvent::Frame(frame) => self.frame(now, link, &frame),
            LinkEvent::Closed(_) => {
                self.forget(link);
            }
        }
    }

    fn handle_command(&mut self, now: Now, command: Command) {
        self.state.roster.at(now.mono);
        if let Err(error) = self.operate(now, command.id, command.request) {
            self.event(Event::Admin { id: command.id, reply: Err(error) });
        }
    }

    fn handle_committed(&mut self, now: Now, ticket: Ticket, result: CommitResult) {
        self.state.roster.at(now.mono);
        let Some(Pending { change, then }) = self.commits.remove(&ticket) else { return };
        match result {
            CommitResult::Stored => {
                self.state.stored(change);
                for (link, frame) in then.frames {
                    self.write(link, frame);
                }
                if let Some((id, reply)) = then.admin {
                    self.event(Event::Admin { id, reply: Ok(reply) });
                }
                for link in then.close {
                    self.close(link);
                }
                if let Some(what) = then.changed {
                    self.event(Event::Changed(what));
                }
                if let Some(epochs) = then.epochs {
                    self.publisher.may_publish_to(epochs);
                }
                self.publisher.changed(now.mono, then.publish);
                self.publish_if_due(now);
            }
            CommitResult::Failed => {
                self.state.failed(change);
                if let Some(link) = then.asked {
                    self.refuse(link, Refusal::Unavailable);
                }
                if let Some((id, _)) = then.admin {
                    let error = AdminError::failed("the change could not be stored");
                    self.event(Event::Admin { id, reply: Err(error) });
                }
                if then.epochs.is_some() {
                    self.publisher.reservation_failed(now.mono);
                }
                self.event(Event::NotStored);
            }
        }
        for (link, frame) in std::mem::take(&mut self.deferred) {
            self.frame(now, link, &frame);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.state.roster.at(now.mono);
        if now.mono >= self.sweep_at {
            self.sweep(now);
        }
        self.publish_if_due(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        let due = [Some(self.sweep_at), Some(self.publisher.deadline()), self.state.roster.next_gone()];
        let deadline = due.into_iter().flatten().min();
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline })
    }
}
