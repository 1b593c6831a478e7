//! How a supernode comes into being: one link to the login server, one invitation, one credential.
//!
//! [`Enrol`] is a machine by the contract of [`yodel_wire::machine`]: no commands, no commits, exactly one event. Its
//! keys are made, and kept, before it asks: who did not get the answer asks again with the same.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::credential::Subject;
use yodel_identity::invitation::{Invitation, InvitationRole};
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::limits::CLOCK_TOLERANCE;
use yodel_identity::login::{Body, LoginHello, LoginRefused, Refusal, SupernodeEnrol, SupernodeEnrolled};
use yodel_identity::realm::Realm;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkEvent, LinkId, LinkPeer, LinkTarget, Machine, Output, Ticket, Transport,
};
use yodel_wire::time::{Instant, Now, UnixTime};

use crate::keys::{KeptSealing, NodeKeys};

/// How long one address of the login server gets for one step. Its slowest is a flush to disk.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// What to enrol with.
pub struct EnrolRequest {
    /// The invitation.
    pub invitation: Invitation,
    /// The login server's addresses, resolved, in the order to try.
    pub servers: Vec<SocketAddr>,
    /// The node's key; the link must prove it.
    pub signing: SigningKey,
    /// Its first sealing key.
    pub sealing: SealingKey,
    /// Where it will answer over UDP.
    pub udp: Vec<SocketAddr>,
    /// Where it will answer over TCP.
    pub tcp: Vec<SocketAddr>,
}

/// Why there is no supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The invitation is for a person or a gateway.
    #[error("the invitation is not for a supernode")]
    Invitation,
    /// No address of the login server answered.
    #[error("the login server does not answer")]
    Offline,
    /// Who answered is not the login server that the invitation vouches for.
    #[error("who answers is not the login server of this realm")]
    NotTheRealm,
    /// The clocks are too far apart.
    #[error("this machine's clock is off by {0} s; set it and try again")]
    Clock(u64),
    /// The login server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Something that the login server sent does not verify.
    #[error("the login server's answer is not in order")]
    Answer,
}

/// What came of it.
pub type Enrolled = Result<Box<NodeKeys>, EnrolError>;

/// See the module's text.
pub struct Enrol {
    request: EnrolRequest,
    realm: Realm,
    next_server: usize,
    link: LinkId,
    peer: Option<LinkPeer>,
    deadline: Option<Instant>,
    over: bool,
    outputs: VecDeque<Output<Enrolled>>,
}

impl Enrol {
    /// Begins with the first address.
    pub fn new(now: Now, request: EnrolRequest) -> Enrol {
        let mut enrol = Enrol {
            realm: Realm::new(request.invitation.realm.clone(), request.invitation.pin),
            request,
            next_server: 0,
            link: LinkId(0),
            peer: None,
            deadline: None,
            over: false,
            outputs: VecDeque::new(),
        };
        if enrol.request.invitation.role == InvitationRole::Supernode {
            enrol.connect(now);
        } else {
            enrol.end(Err(EnrolError::Invitation));
        }
        enrol
    }

    fn connect(&mut self, now: Now) {
        let Some(addr) = self.request.servers.get(self.next_server).copied() else {
            return self.end(Err(EnrolError::Offline));
        };
        self.link = LinkId(self.next_server as u64);
        self.next_server += 1;
        self.peer = None;
        self.deadline = Some(now.mono + STEP_WITHIN);
        let target = LinkTarget { addr, transport: Transport::Tls, key: None };
        self.outputs.push_back(Output::Link(self.link, LinkAction::Open(target)));
    }

    fn end(&mut self, result: Enrolled) {
        if !std::mem::replace(&mut self.over, true) {
            self.deadline = None;
            self.outputs.push_back(Output::Event(result));
        }
    }

    fn frame(&mut self, now: Now, frame: &Frame) -> Result<(), EnrolError> {
        match frame.kind {
            FrameKind::LoginHello => {
                let hello = LoginHello::decode(&frame.body).map_err(|_| EnrolError::NotTheRealm)?;
                self.realm
                    .accept_statement(&hello.statement, now.unix)
                    .map_err(|_| EnrolError::NotTheRealm)?;
                if !self.peer.as_ref().is_some_and(|peer| self.realm.is_login_server(&peer.key)) {
                    return Err(EnrolError::NotTheRealm);
                }
                let off = now.unix.since(hello.time).max(hello.time.since(now.unix));
                if off > CLOCK_TOLERANCE {
                    return Err(EnrolError::Clock(off.as_secs()));
                }
                let ask = SupernodeEnrol {
                    secret: self.request.invitation.secret,
                    sealing: self.request.sealing.public(),
                    udp: self.request.udp.clone(),
                    tcp: self.request.tcp.clone(),
                };
                self.deadline = Some(now.mono + STEP_WITHIN);
                self.outputs.push_back(Output::Link(self.link, LinkAction::Write(ask.frame())));
                Ok(())
            }
            FrameKind::SupernodeEnrolled => {
                let enrolled = SupernodeEnrolled::decode(&frame.body).map_err(|_| EnrolError::Answer)?;
                let keys = self.keys(now, &enrolled)?;
                self.outputs.push_back(Output::Link(self.link, LinkAction::Close));
                self.end(Ok(Box::new(keys)));
                Ok(())
            }
            FrameKind::LoginRefused => {
                let refused = LoginRefused::decode(&frame.body).map_err(|_| EnrolError::Answer)?;
                Err(EnrolError::Refused(refused.refusal))
            }
            // Anything else that a later server may say in between changes nothing.
            _ => Ok(()),
        }
    }

    fn keys(&self, now: Now, enrolled: &SupernodeEnrolled) -> Result<NodeKeys, EnrolError> {
        let credential =
            self.realm.verify_credential(&enrolled.credential, now.unix).map_err(|_| EnrolError::Answer)?;
        let ours = matches!(credential.subject, Subject::Supernode { .. })
            && credential.key == self.request.signing.public()
            && credential.sealing == self.request.sealing.public();
        if !ours {
            return Err(EnrolError::Answer);
        }
        let statement = self.realm.statement_bytes().ok_or(EnrolError::Answer)?.to_vec();
        Ok(NodeKeys {
            signing: self.request.signing.clone(),
            realm: self.request.invitation.realm.clone(),
            pin: self.request.invitation.pin,
            statement,
            sealing: vec![KeptSealing {
                key: self.request.sealing.clone(),
                credential: credential.hash(),
                retired: UnixTime::default(),
            }],
            credential,
            pending: None,
        })
    }
}

impl Machine for Enrol {
    type Command = std::convert::Infallible;
    type Event = Enrolled;

    fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _datagram: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        if link != self.link || self.over {
            return;
        }
        match event {
            LinkEvent::Opened(peer) => self.peer = Some(peer),
            LinkEvent::Frame(frame) => {
                if let Err(error) = self.frame(now, &frame) {
                    self.end(Err(error));
                }
            }
            LinkEvent::Closed(_) => self.connect(now),
        }
    }

    fn handle_command(&mut self, _now: Now, command: Self::Command) {
        match command {}
    }

    fn handle_committed(&mut self, _now: Now, _ticket: Ticket, _result: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_some_and(|at| now.mono >= at) {
            self.outputs.push_back(Output::Link(self.link, LinkAction::Close));
            self.connect(now);
        }
    }

    fn poll_output(&mut self) -> Output<Enrolled> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.deadline })
    }
}
