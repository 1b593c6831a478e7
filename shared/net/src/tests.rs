//! Two tiny machines over the real sockets of this host.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use yodel_store::{GroupCommit, MemoryStore};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::limits::FRAME_BODY_BYTES_MAX;
use yodel_wire::machine::{
    CommitResult, LinkAction, LinkClosed, LinkEvent, LinkId, LinkTarget, Machine, Output, Ticket, Transport,
    Write,
};
use yodel_wire::time::{Instant, Now};

use crate::rpk::TlsIdentity;
use crate::{Clock, Endpoint, EndpointConfig, EndpointLimits, drive, public_key};

/// Answers every frame with itself and every datagram with itself; does to links what it is told and tells what it
/// sees.
#[derive(Default)]
struct Echo {
    silent: bool,
    outputs: VecDeque<Output<Seen>>,
    deadline: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Link(LinkId, LinkEvent),
    Datagram(SocketAddr, Vec<u8>),
    Committed(Ticket, CommitResult),
    Timeout,
}

enum Do {
    Link(LinkId, LinkAction),
    Datagram(SocketAddr, Vec<u8>),
    Commit(Ticket, Vec<Write>),
    Wake(Duration),
}

impl Machine for Echo {
    type Command = Do;
    type Event = Seen;

    fn handle_datagram(&mut self, _now: Now, from: SocketAddr, datagram: &[u8]) {
        if !self.silent {
            self.outputs.push_back(Output::Datagram { to: from, bytes: datagram.to_vec() });
        }
        self.outputs.push_back(Output::Event(Seen::Datagram(from, datagram.to_vec())));
    }

    fn handle_link(&mut self, _now: Now, link: LinkId, event: LinkEvent) {
        if let LinkEvent::Frame(frame) = &event
            && !self.silent
        {
            self.outputs.push_back(Output::Link(link, LinkAction::Write(frame.clone())));
        }
        self.outputs.push_back(Output::Event(Seen::Link(link, event)));
    }

    fn handle_command(&mut self, now: Now, command: Do) {
        match command {
            Do::Link(link, action) => self.outputs.push_back(Output::Link(link, action)),
            Do::Datagram(to, bytes) => self.outputs.push_back(Output::Datagram { to, bytes }),
            Do::Commit(ticket, writes) => self.outputs.push_back(Output::Commit(ticket, writes)),
            Do::Wake(after) => self.deadline = Some(now.mono + after),
        }
    }

    fn handle_committed(&mut self, _now: Now, ticket: Ticket, result: CommitResult) {
        self.outputs.push_back(Output::Event(Seen::Committed(ticket, result)));
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_some_and(|deadline| deadline <= now.mono) {
            self.deadline = None;
            self.outputs.push_back(Output::Event(Seen::Timeout));
        }
    }

    fn poll_output(&mut self) -> Output<Seen> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: self.deadline })
    }
}

struct Node {
    udp: SocketAddr,
    tcp: Option<SocketAddr>,
    key: [u8; 32],
    commands: mpsc::Sender<Do>,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<std::io::Result<Echo>>,
}

impl Node {
    fn start(seed: u8, server: bool, silent: bool) -> Node {
        let localhost: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let limits = if server { EndpointLimits::SERVER } else { EndpointLimits::PHONE };
        let endpoint = Endpoint::bind(EndpointConfig {
            identity_seed: [seed; 32].into(),
            udp: Some(localhost),
            tcp: if server { vec![localhost] } else { vec![] },
            limits,
        })
        .unwrap();
        let (udp, tcp) = (endpoint.udp_addr().unwrap(), endpoint.tcp_addrs().first().copied());
        let (commands, receiver) = mpsc::channel(16);
        let (events, seen) = mpsc::unbounded_channel();
        let store = GroupCommit::start(Box::new(MemoryStore::new())).unwrap();
        let machine = Echo { silent, ..Echo::default() };
        let task =
            tokio::spawn(drive(machine, endpoint, Clock::start(), Some(store), receiver, move |event| {
                events.send(event).map_or(ControlFlow::Break(()), ControlFlow::Continue)
            }));
        Node { udp, tcp, key: public_key(&[seed; 32]).unwrap(), commands, seen, task }
    }

    fn addr(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Quic => self.udp,
            Transport::Tls => self.tcp.unwrap(),
        }
    }

    async fn act(&self, link: LinkId, action: LinkAction) {
        self.tell(Do::Link(link, action)).await;
    }

    async fn tell(&self, what: Do) {
        assert!(self.commands.send(what).await.is_ok());
    }

    async fn next(&mut self) -> Seen {
        timeout(Duration::from_secs(8), self.seen.recv()).await.expect("nothing happened").unwrap()
    }

    async fn open(&mut self, to: &Node, transport: Transport, key: [u8; 32]) -> Seen {
        let target = LinkTarget { addr: to.addr(transport), transport, key: Some(key) };
        self.act(LinkId(0), LinkAction::Open(target)).await;
        self.next().await
    }
}

const BOTH: [Transport; 2] = [Transport::Quic, Transport::Tls];
const L0: LinkId = LinkId(0);

fn ping(body: Vec<u8>) -> Frame {
    Frame::new(FrameKind::Ping, body)
}

#[tokio::test]
async fn frames_echo_over_both_transports_and_close_in_order() {
    for transport in BOTH {
        let mut server = Node::start(1, true, false);
        let mut client = Node::start(2, false, true);
        let Seen::Link(L0, LinkEvent::Opened(peer)) = client.open(&server, transport, server.key).await
        else {
            panic!("not opened");
        };
        assert_eq!((peer.key, peer.transport, peer.addr), (server.key, transport, server.addr(transport)));
        let sizes = [0, 1, 1_200, FRAME_BODY_BYTES_MAX, FRAME_BODY_BYTES_MAX, 7];
        for size in sizes {
            client.act(L0, LinkAction::Write(ping(vec![9; size]))).await;
        }
        let Seen::Link(id, LinkEvent::Opened(here)) = server.next().await else { panic!("not accepted") };
        assert!(id.is_accepted());
        assert_eq!(here.key, client.key);
        assert_eq!(here.exporter, peer.exporter, "both ends share the link's keying material");
        assert_ne!(here.exporter, [0; 32]);
        for size in sizes {
            assert_eq!(server.next().await, Seen::Link(id, LinkEvent::Frame(ping(vec![9; size]))));
            assert_eq!(client.next().await, Seen::Link(L0, LinkEvent::Frame(ping(vec![9; size]))));
        }
        client.act(L0, LinkAction::Write(ping(vec![1, 2, 3]))).await;
        client.act(L0, LinkAction::Close).await;
        assert_eq!(server.next().await, Seen::Link(id, LinkEvent::Frame(ping(vec![1, 2, 3]))));
        assert_eq!(server.next().await, Seen::Link(id, LinkEvent::Closed(LinkClosed::Finished)));
    }
}

#[tokio::test]
async fn another_key_is_refused_before_anything_is_said() {
    for transport in BOTH {
        let mut server = Node::start(1, true, false);
        let mut client = Node::start(2, false, true);
        let seen = client.open(&server, transport, [3; 32]).await;
        assert_eq!(seen, Seen::Link(L0, LinkEvent::Closed(LinkClosed::WrongKey)));
        assert!(server.seen.try_recv().is_err(), "the server's machine never heard of it");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = Node::start(2, false, true);
    let target = LinkTarget { addr: gone, transport: Transport::Tls, key: None };
    client.act(L0, LinkAction::Open(target)).await;
    assert_eq!(client.next().await, Seen::Link(L0, LinkEvent::Closed(LinkClosed::Unreachable)));
}

#[tokio::test]
async fn a_phone_accepts_no_links() {
    let mut phone = Node::start(1, false, true);
    let mut client = Node::start(2, false, true);
    let seen = client.open(&phone, Transport::Quic, phone.key).await;
    assert_eq!(seen, Seen::Link(L0, LinkEvent::Closed(LinkClosed::Unreachable)));
    assert!(phone.seen.try_recv().is_err());
}

#[tokio::test]
async fn garbage_on_tcp_and_udp_harms_nobody() {
    let mut server = Node::start(1, true, false);
    let mut tcp = tokio::net::TcpStream::connect(server.tcp.unwrap()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _closed = timeout(Duration::from_secs(2), tcp.read_to_end(&mut answer)).await.unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for first in [40u8, 64, 127, 192, 255] {
        udp.send_to(&[first; 1_200], server.udp).unwrap();
    }
    udp.send_to(&[], server.udp).unwrap();
    let mut client = Node::start(2, false, true);
    let seen = client.open(&server, Transport::Quic, server.key).await;
    assert!(matches!(seen, Seen::Link(_, LinkEvent::Opened(_))), "{seen:?}");
    client.act(L0, LinkAction::Write(ping(vec![]))).await;
    assert!(matches!(server.next().await, Seen::Link(_, LinkEvent::Opened(_))));
}

/// A peer with a valid key that sends a frame longer than any may be.
#[tokio::test]
async fn an_oversized_frame_ends_the_link() {
    let mut server = Node::start(1, true, false);
    let mut stream = raw_tls(&server).await;
    stream.write_all(&[4, 1, 0x40, 0x01]).await.unwrap();
    let Seen::Link(id, LinkEvent::Opened(_)) = server.next().await else { panic!("not accepted") };
    assert_eq!(server.next().await, Seen::Link(id, LinkEvent::Closed(LinkClosed::Protocol)));
    let mut rest = Vec::new();
    let _closed = timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await.unwrap();
}

/// A peer that sends requests and never reads the answers.
#[tokio::test]
async fn who_does_not_drain_is_closed_with_overload() {
    let mut server = Node::start(1, true, false);
    let mut stream = raw_tls(&server).await;
    let mut frame = vec![4, 1, 0x40, 0x00];
    frame.resize(4 + FRAME_BODY_BYTES_MAX, 0);
    let flood = async {
        while stream.write_all(&frame).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let closed = async {
        loop {
            if let Seen::Link(_, LinkEvent::Closed(closed)) = server.next().await {
                return closed;
            }
        }
    };
    let closed = tokio::select! {
        () = flood => return,
        closed = closed => closed,
    };
    assert_eq!(closed, LinkClosed::Overload);
}

#[tokio::test]
async fn a_thousand_datagrams_back_to_back_arrive() {
    let mut server = Node::start(1, true, true);
    let to = server.udp;
    let sender = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..1_000u16 {
            let mut datagram = vec![128; 172];
            datagram[1..3].copy_from_slice(&n.to_be_bytes());
            socket.send_to(&datagram, to).unwrap();
        }
    });
    for n in 0..1_000u16 {
        let Seen::Datagram(_, bytes) = server.next().await else { panic!("not a datagram") };
        assert_eq!(bytes[1..3], n.to_be_bytes());
    }
    sender.join().unwrap();
}

#[tokio::test]
async fn datagrams_deadlines_and_commits_reach_the_machine() {
    let mut server = Node::start(1, true, false);
    let mut client = Node::start(2, false, true);
    client.tell(Do::Datagram(server.udp, vec![0, 5])).await;
    assert_eq!(server.next().await, Seen::Datagram(client.udp, vec![0, 5]));
    assert_eq!(client.next().await, Seen::Datagram(server.udp, vec![0, 5]));
    client.tell(Do::Wake(Duration::from_millis(20))).await;
    assert_eq!(client.next().await, Seen::Timeout);
    client.tell(Do::Commit(Ticket(7), vec![])).await;
    assert_eq!(client.next().await, Seen::Committed(Ticket(7), CommitResult::Stored));
}

#[tokio::test]
async fn the_driver_writes_what_is_queued_before_it_ends() {
    for transport in BOTH {
        let mut server = Node::start(1, true, true);
        let mut client = Node::start(2, false, true);
        client.open(&server, transport, server.key).await;
        for _ in 0..10 {
            client.act(L0, LinkAction::Write(ping(vec![1; 9_000]))).await;
        }
        drop(client.commands);
        timeout(Duration::from_secs(2), client.task).await.unwrap().unwrap().unwrap();
        let mut frames = 0;
        loop {
            match server.next().await {
                Seen::Link(_, LinkEvent::Closed(closed)) => break assert_eq!(closed, LinkClosed::Finished),
                Seen::Link(_, LinkEvent::Frame(_)) => frames += 1,
                _ => {}
            }
        }
        assert_eq!(frames, 10);
    }
}

/// A client of our handshake with nothing of ours above it.
async fn raw_tls(server: &Node) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let (config, _) = TlsIdentity::new(&[9; 32]).unwrap().client(None).unwrap();
    let tcp = tokio::net::TcpStream::connect(server.tcp.unwrap()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap()
}
