//! A device without distance to its supernode that has it write, as a phone would.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use yodel_overlay::attach::{Hello, LinkRole, VERSION};
use yodel_overlay::record::{WriteRequest, Written};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkEvent, LinkId, LinkTarget, Machine, Output, Ticket, Transport,
};
use yodel_wire::time::{Instant, Now};

/// A home takes a device that says nothing for 100 s for gone.
const PING: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Probe {
    target: LinkTarget,
    credential: Vec<u8>,
    boot: [u8; 16],
    next_link: u64,
    link: Option<LinkId>,
    welcome: bool,
    waiting: Vec<Frame>,
    next_ping: Option<Instant>,
    outputs: VecDeque<Output<Written>>,
}

impl Probe {
    /// A device with this credential that attaches to one supernode when it is first asked for something.
    pub(super) fn new(supernode: SocketAddr, key: [u8; 32], credential: Vec<u8>, boot: [u8; 16]) -> Probe {
        Probe {
            target: LinkTarget { addr: supernode, transport: Transport::Quic, key: Some(key) },
            credential,
            boot,
            next_link: 0,
            link: None,
            welcome: false,
            waiting: Vec::new(),
            next_ping: None,
            outputs: VecDeque::new(),
        }
    }

    fn write(&mut self, link: LinkId, frame: Frame) {
        self.outputs.push_back(Output::Link(link, LinkAction::Write(frame)));
    }

    fn frame(&mut self, now: Now, link: LinkId, frame: &Frame) {
        match frame.kind {
            FrameKind::Welcome => {
                self.welcome = true;
                self.next_ping = Some(now.mono + PING);
                for frame in std::mem::take(&mut self.waiting) {
                    self.write(link, frame);
                }
            }
            FrameKind::Written => {
                let written = Written::decode(&frame.body).unwrap();
                self.outputs.push_back(Output::Event(written));
            }
            // Bulletins, pongs: nothing that a probe asked for.
            _ => {}
        }
    }
}

impl Machine for Probe {
    type Command = WriteRequest;
    type Event = Written;

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, _: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        if self.link != Some(link) {
            return;
        }
        match event {
            LinkEvent::Opened(_) => {
                let credential = self.credential.clone();
                let (role, versions) = (LinkRole::Device, (VERSION, VERSION));
                let boot = self.boot;
                let hello = Hello { credential, role, versions, epoch: u64::MAX, boot, announcement: None };
                self.write(link, hello.encode());
            }
            LinkEvent::Frame(frame) => self.frame(now, link, &frame),
            LinkEvent::Closed(_) => {
                self.link = None;
                self.welcome = false;
                self.next_ping = None;
            }
        }
    }

    fn handle_command(&mut self, _: Now, request: WriteRequest) {
        let frame = request.encode();
        match self.link {
            Some(link) if self.welcome => self.write(link, frame),
            Some(_) => self.waiting.push(frame),
            None => {
                self.waiting.push(frame);
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.link = Some(link);
                self.outputs.push_back(Output::Link(link, LinkAction::Open(self.target.clone())));
            }
        }
    }

    fn handle_committed(&mut self, _: Now, _: Ticket, _: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if let (Some(link), Some(next)) = (self.link, self.next_ping)
            && now.mono >= next
        {
            self.next_ping = Some(now.mono + PING);
            self.write(link, yodel_overlay::attach::Ping { nonce: 1 }.encode());
        }
    }

    fn poll_output(&mut self) -> Output<Written> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.next_ping })
    }
}
