//! A bare device: one link to one home, `Hello`, and then whatever frames it is told to send. A machine like any other,
//! so that `yodel-net` drives it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use yodel_identity::credential::Credential;
use yodel_identity::node::NodeId;
use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, drive};
use yodel_overlay::attach::{Hello, LinkRole, Ping, VERSION, Welcome};
use yodel_overlay::record::{
    Answer, ContactEntry, ContactEntryFields, ReadRequest, Scope, Standing, WriteRequest, WriteStatus,
    Written,
};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkEvent, LinkId, LinkTarget, Machine, Output, Ticket, Transport,
};
use yodel_wire::time::{Instant, Now};

use crate::lab::LabError;
use crate::sim::issuer::AccountKeys;

/// How long an answer is awaited: a home gives up after five seconds itself.
const PATIENCE: Duration = Duration::from_secs(7);

/// A home forgets a device that is silent for a hundred seconds.
const PING: Duration = Duration::from_secs(30);

/// Life of the entries written here.
const ENTRY_LIFE: Duration = Duration::from_secs(3_600);

/// The machine.
struct Bare {
    credential: Vec<u8>,
    boot: [u8; 16],
    link: Option<LinkId>,
    next_link: u64,
    ping_at: Instant,
    outputs: VecDeque<Output<Event>>,
}

enum Command {
    /// Leave the present home and go to this one.
    Attach(SocketAddr),
    Say(Frame),
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Attached(Welcome),
    Heard(Frame),
    Lost,
}

impl Machine for Bare {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _datagram: &[u8]) {}

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        if Some(link) != self.link {
            return;
        }
        match event {
            LinkEvent::Opened(_) => {
                let hello = Hello {
                    credential: self.credential.clone(),
                    role: LinkRole::Device,
                    versions: (VERSION, VERSION),
                    epoch: 0,
                    boot: self.boot,
                    announcement: None,
                };
                self.ping_at = now.mono + PING;
                self.say(hello.encode());
            }
            LinkEvent::Frame(frame) => match (frame.kind, Welcome::decode(&frame.body)) {
                (FrameKind::Welcome, Ok(welcome)) => self.tell(Event::Attached(welcome)),
                (FrameKind::Refuse | FrameKind::Goodbye, _) => self.lose(true),
                _ => self.tell(Event::Heard(frame)),
            },
            LinkEvent::Closed(_) => self.lose(false),
        }
    }

    fn handle_command(&mut self, _now: Now, command: Command) {
        match command {
            Command::Attach(addr) => {
                if let Some(link) = self.link.take() {
                    self.outputs.push_back(Output::Link(link, LinkAction::Close));
                }
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.link = Some(link);
                // `Welcome` shows who it is; the addresses are this program's own choice.
                let target = LinkTarget { addr, transport: Transport::Quic, key: None };
                self.outputs.push_back(Output::Link(link, LinkAction::Open(target)));
            }
            Command::Say(frame) => self.say(frame),
        }
    }

    fn handle_committed(&mut self, _now: Now, _ticket: Ticket, _result: CommitResult) {}

    fn handle_timeout(&mut self, now: Now) {
        if now.mono >= self.ping_at {
            self.ping_at = now.mono + PING;
            self.say(Ping { nonce: now.mono.as_micros() }.encode());
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: Some(self.ping_at) })
    }
}

impl Bare {
    fn say(&mut self, frame: Frame) {
        if let Some(link) = self.link {
            self.outputs.push_back(Output::Link(link, LinkAction::Write(frame)));
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn lose(&mut self, close: bool) {
        if let Some(link) = self.link.take() {
            if close {
                self.outputs.push_back(Output::Link(link, LinkAction::Close));
            }
            self.tell(Event::Lost);
        }
    }
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// The sequence number written.
    pub sequence: u64,
    /// How it went; `None` when no answer came.
    pub status: Option<WriteStatus>,
    /// From the frame's leaving until its answer.
    pub took: Duration,
}

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Until the first answer with a record.
    pub first: Option<Duration>,
    /// Until the last answer.
    pub settled: Duration,
    /// The last answer; `None` when none came.
    pub answer: Option<Answer>,
}

#[derive(Debug)]
enum Waiting {
    Write(oneshot::Sender<(Instant, Written)>),
    Read { first: Option<Instant>, done: oneshot::Sender<(Option<Instant>, Instant, Answer)> },
}

/// What the task that drives the machine and the device's user share.
#[derive(Debug, Default)]
struct Shared {
    home: Cell<Option<NodeId>>,
    attached: Notify,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    bulletin: RefCell<Option<Vec<u8>>>,
}

/// An account with its one device.
pub struct Device {
    /// Its keys.
    pub keys: AccountKeys,
    /// The highest sequence number that was acknowledged; 0 when none was.
    pub acknowledged: Cell<u64>,
    sequence: Cell<u64>,
    account_known: Cell<bool>,
    entry_bytes: Cell<usize>,
    nonce: [u8; 16],
    next_id: Cell<u64>,
    clock: Clock,
    commands: mpsc::Sender<Command>,
    shared: Rc<Shared>,
}

impl Device {
    /// Starts a device; call in a `LocalSet`. It is attached to nobody yet.
    ///
    /// # Errors
    /// No socket could be had.
    pub fn start(clock: Clock, keys: AccountKeys, seed: [u8; 32]) -> Result<Device, LabError> {
        let own = &keys.devices[0];
        let endpoint = Endpoint::bind(EndpointConfig {
            identity_seed: own.key.seed(),
            udp: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            tcp: Vec::new(),
            limits: EndpointLimits::PHONE,
        })?;
        let nonce = *seed.first_chunk().expect("sixteen of thirty-two");
        let machine = Bare {
            credential: own.credential.bytes().to_vec(),
            boot: nonce,
            link: None,
            next_link: 0,
            ping_at: clock.now().mono + PING,
            outputs: VecDeque::new(),
        };
        let (commands, queue) = mpsc::channel(1_024);
        let shared = Rc::new(Shared::default());
        let hears = shared.clone();
        tokio::task::spawn_local(async move {
            let hear = |event| {
                hears.hear(clock.now().mono, event);
                ControlFlow::Continue(())
            };
            drive(machine, endpoint, clock, None, queue, hear).await
        });
        Ok(Device {
            keys,
            acknowledged: Cell::new(0),
            sequence: Cell::new(0),
            account_known: Cell::new(false),
            entry_bytes: Cell::new(0),
            nonce,
            next_id: Cell::new(1),
            clock,
            commands,
            shared,
        })
    }

    /// The key its record lies under.
    pub fn key(&self) -> [u8; 16] {
        self.keys.aor.key()
    }

    /// The home it is attached to.
    pub fn home(&self) -> Option<NodeId> {
        self.shared.home.get()
    }

    /// The newest bulletin its homes sent.
    pub fn bulletin(&self) -> Option<Vec<u8>> {
        self.shared.bulletin.borrow().clone()
    }

    /// Leaves its home, and whatever it waits for there, for the one at this address. Whether that took it in.
    pub async fn attach(&self, home: SocketAddr) -> bool {
        self.shared.lose();
        if self.commands.send(Command::Attach(home)).await.is_err() {
            return false;
        }
        let attached = async {
            while self.home().is_none() {
                self.shared.attached.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, attached).await.is_ok()
    }

    /// Writes the next entry, with the account record until that is known to be there.
    pub async fn write(&self) -> Wrote {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let began = self.clock.now().mono;
        let mut written = self.write_once(sequence, !self.account_known.get()).await;
        if matches!(&written, Some((_, written)) if written.status == WriteStatus::NeedAccount) {
            written = self.write_once(sequence, true).await;
        }
        let status = written.as_ref().map(|(_, written)| written.status);
        if status == Some(WriteStatus::Stored) {
            self.account_known.set(true);
            self.acknowledged.set(self.acknowledged.get().max(sequence));
        }
        let at = written.map_or_else(|| self.clock.now().mono, |(at, _)| at);
        Wrote { sequence, status, took: at.since(began) }
    }

    async fn write_once(&self, sequence: u64, with_account: bool) -> Option<(Instant, Written)> {
        let home = self.home()?;
        let issued = yodel_wire::time::UnixTime::from_secs(self.clock.now().unix.as_secs());
        let own = &self.keys.devices[0];
        let fields = ContactEntryFields {
            device: own.credential.node,
            sequence,
            issued,
            expires: issued + ENTRY_LIFE,
            homes: vec![home],
            capabilities: 0,
            nonce: self.nonce,
            credential: own.credential.hash(),
            withdrawn: false,
        };
        let entry = ContactEntry::sign(&own.key, &fields).ok()?;
        self.entry_bytes.set(entry.bytes().len());
        let request = WriteRequest {
            id: self.draw_id(),
            key: self.key(),
            scope: Scope::Walk,
            account: with_account.then(|| self.keys.record.bytes().to_vec()),
            entry: Some(entry.bytes().to_vec()),
        };
        let (sender, answer) = oneshot::channel();
        self.ask(request.id, Waiting::Write(sender), request.encode(), answer).await
    }

    /// Bytes of what is stored for it: account record and entry.
    pub fn record_bytes(&self) -> usize {
        self.keys.record.bytes().len() + self.entry_bytes.get()
    }

    /// Looks a key up through its home, past the cache.
    pub async fn read(&self, key: [u8; 16]) -> Looked {
        let request = ReadRequest { id: self.draw_id(), key, scope: Scope::Walk, past_cache: true };
        let (done, answer) = oneshot::channel();
        let began = self.clock.now().mono;
        let heard = self.ask(request.id, Waiting::Read { first: None, done }, request.encode(), answer).await;
        match heard {
            Some((first, settled, answer)) => Looked {
                first: first.map(|at| at.since(began)),
                settled: settled.since(began),
                answer: Some(answer),
            },
            None => Looked { first: None, settled: self.clock.now().mono.since(began), answer: None },
        }
    }

    async fn ask<T>(
        &self,
        id: u64,
        waiting: Waiting,
        frame: Frame,
        answer: oneshot::Receiver<T>,
    ) -> Option<T> {
        self.shared.waiting.borrow_mut().insert(id, waiting);
        // A full queue is a home that takes nothing in: as good as no answer.
        let sent = self.home().is_some() && self.commands.try_send(Command::Say(frame)).is_ok();
        let heard = if sent { tokio::time::timeout(PATIENCE, answer).await.ok() } else { None };
        self.shared.waiting.borrow_mut().remove(&id);
        heard?.ok()
    }

    fn draw_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }
}

impl Shared {
    fn hear(&self, now: Instant, event: Event) {
        match event {
            Event::Attached(welcome) => {
                let home = Credential::decode_unverified(&welcome.credential).map(|home| home.node).ok();
                self.home.set(home);
                self.attached.notify_one();
            }
            Event::Lost => self.lose(),
            Event::Heard(frame) => match frame.kind {
                FrameKind::Written => {
                    if let Ok(written) = Written::decode(&frame.body)
                        && let Some(Waiting::Write(sender)) = self.waiting.borrow_mut().remove(&written.id)
                    {
                        let _ = sender.send((now, written));
                    }
                }
                FrameKind::Answer => {
                    if let Ok(answer) = Answer::decode(&frame.body) {
                        self.answered(now, answer);
                    }
                }
                FrameKind::Bulletin => *self.bulletin.borrow_mut() = Some(frame.body),
                // Homes say more than a bare device asks for.
                _ => {}
            },
        }
    }

    fn answered(&self, now: Instant, answer: Answer) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(Waiting::Read { first, .. }) = waiting.get_mut(&answer.id) else { return };
        if answer.standing == Standing::Held {
            first.get_or_insert(now);
        }
        if answer.settled
            && let Some(Waiting::Read { first, done }) = waiting.remove(&answer.id)
        {
            let _ = done.send((first, now, answer));
        }
    }

    /// Nothing that was asked will be answered.
    fn lose(&self) {
        self.home.set(None);
        self.waiting.borrow_mut().clear();
    }
}
