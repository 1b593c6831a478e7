//! What a ring needs of a login server while it runs: the next bulletin, handed to whoever waits for it, and to a crowd
//! as rarely as the real one does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::login::{Body, LoginHello};
use yodel_login_server::limits::HAND_OUT;
use yodel_overlay::attach::{Ping, Pong};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkAction, LinkEvent, LinkId, Machine, Output, Ticket};
use yodel_wire::time::{Instant, Now};

/// See the module's text.
pub(super) struct Desk {
    statement: Vec<u8>,
    newest: Issued,
    peers: BTreeMap<LinkId, SocketAddr>,
    waiting: BTreeSet<LinkId>,
    /// When all who wait were last given one, and when they are next.
    handed_out: Instant,
    next: Option<Instant>,
    outputs: VecDeque<Output<()>>,
}

/// A bulletin as signed.
pub(super) struct Issued {
    pub(super) epoch: u64,
    pub(super) bytes: Vec<u8>,
    /// Whether all shall have it at once: it takes a credential back.
    pub(super) urgent: bool,
}

impl Desk {
    pub(super) fn new(statement: Vec<u8>, newest: Issued) -> Desk {
        let (peers, waiting) = (BTreeMap::new(), BTreeSet::new());
        let (handed_out, outputs) = (Instant::ORIGIN, VecDeque::new());
        Desk { statement, newest, peers, waiting, handed_out, next: None, outputs }
    }

    fn write(&mut self, link: LinkId, frame: Frame) {
        self.outputs.push_back(Output::Link(link, LinkAction::Write(frame)));
    }

    fn hand_out(&mut self, link: LinkId) {
        let frame = Frame::new(FrameKind::Bulletin, self.newest.bytes.clone());
        self.write(link, frame);
    }
}

impl Machine for Desk {
    /// The next bulletin was signed.
    type Command = Issued;
    type Event = ();

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, _: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Opened(peer) => {
                self.peers.insert(link, peer.addr);
                let hello = LoginHello { statement: self.statement.clone(), time: now.unix };
                self.write(link, hello.frame());
            }
            LinkEvent::Frame(frame) if frame.kind == FrameKind::BulletinWanted => {
                let wanted = BulletinWanted::decode(&frame.body).unwrap();
                match wanted.have_epoch < self.newest.epoch {
                    true => self.hand_out(link),
                    false => drop(self.waiting.insert(link)),
                }
            }
            LinkEvent::Frame(frame) if frame.kind == FrameKind::Ping => {
                let nonce = Ping::decode(&frame.body).unwrap().nonce;
                let observed = self.peers[&link];
                self.write(link, Pong { nonce, observed }.encode());
            }
            // Who serves is known here without being told.
            LinkEvent::Frame(_) => {}
            LinkEvent::Closed(_) => {
                self.peers.remove(&link);
                self.waiting.remove(&link);
            }
        }
    }

    fn handle_command(&mut self, now: Now, newest: Issued) {
        let urgent = newest.urgent;
        self.newest = newest;
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let next = if urgent { now.mono } else { now.mono.max(self.handed_out + HAND_OUT * waiting) };
        self.next = Some(self.next.map_or(next, |due| due.min(next)));
        self.handle_timeout(now);
    }

    fn handle_committed(&mut self, _: Now, _: Ticket, _: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if self.next.is_none_or(|next| now.mono < next) {
            return;
        }
        (self.next, self.handed_out) = (None, now.mono);
        for link in std::mem::take(&mut self.waiting) {
            self.hand_out(link);
        }
    }

    fn poll_output(&mut self) -> Output<()> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.next })
    }
}
