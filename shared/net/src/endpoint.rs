//! Everything of one process that touches the network: the UDP socket, QUIC on it, TCP listeners, and the table of
//! links.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkAction, LinkClosed, LinkEvent, LinkId, LinkTarget, Transport};
use zeroize::Zeroizing;

use crate::limits::{HALF_OPEN_BEFORE_RETRY, HALF_OPEN_MAX, LINK_EVENTS_MAX};
use crate::link::{Alive, LinkQueue, LinkTask, Report};
use crate::rpk::TlsIdentity;
use crate::udp::{SendQueue, UdpSocket, tcp_listener};
use crate::{quic, tls};

/// What an endpoint is made of.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Seed of the Ed25519 key this process proves on links.
    pub identity_seed: Zeroizing<[u8; 32]>,
    /// Where to bind the one UDP socket; `[::]:0` is a phone's choice. Without it, links are TLS only.
    pub udp: Option<SocketAddr>,
    /// Where to listen for TLS.
    pub tcp: Vec<SocketAddr>,
    /// How much is accepted.
    pub limits: EndpointLimits,
}

/// How much an endpoint accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Links that others may have open here. 0 accepts none, over neither transport.
    pub links_accepted_max: usize,
}

impl EndpointLimits {
    /// A phone: it opens links and accepts none.
    pub const PHONE: EndpointLimits = EndpointLimits { links_accepted_max: 0 };

    /// A server: 10,000 links, about 300 MB when all are busy.
    pub const SERVER: EndpointLimits = EndpointLimits { links_accepted_max: 10_000 };
}

/// See the module's text. Made by [`Endpoint::bind`], consumed by [`crate::drive()`].
#[derive(Debug)]
pub struct Endpoint {
    identity: TlsIdentity,
    pub(crate) udp: Option<Arc<UdpSocket>>,
    quic: Option<quinn::Endpoint>,
    tcp: Vec<SocketAddr>,
    acceptors: Vec<JoinHandle<()>>,
    links: BTreeMap<LinkId, Arc<LinkQueue>>,
    own_reports: VecDeque<(LinkId, LinkClosed)>,
    reports: mpsc::Receiver<Report>,
    reports_sender: mpsc::Sender<Report>,
    alive: Alive,
}

impl Endpoint {
    /// Binds all sockets and starts accepting. Call inside the runtime.
    ///
    /// # Errors
    /// An address is taken or not ours, or the operating system refused.
    pub fn bind(config: EndpointConfig) -> io::Result<Endpoint> {
        let identity = TlsIdentity::new(&config.identity_seed)?;
        let (reports_sender, reports) = mpsc::channel(LINK_EVENTS_MAX);
        let alive = Alive::new();
        let door = Arc::new(Door {
            reports: reports_sender.clone(),
            alive: alive.clone(),
            half_open: Alive::new(),
            accepted: Alive::new(),
            accepted_max: config.limits.links_accepted_max,
            next: AtomicU64::new(LinkId::ACCEPTED),
        });
        let mut acceptors = Vec::new();

        let udp = config.udp.map(UdpSocket::bind).transpose()?;
        let mut quic = None;
        if let Some(socket) = &udp {
            let endpoint = quic::endpoint(socket.clone(), &identity, &config.identity_seed, &config.limits)?;
            if config.limits.links_accepted_max > 0 {
                acceptors.push(tokio::spawn(accept_quic(endpoint.clone(), door.clone())));
            }
            quic = Some(endpoint);
        }
        let mut tcp = Vec::new();
        if config.limits.links_accepted_max > 0 {
            let acceptor = TlsAcceptor::from(Arc::new(identity.server()?));
            for addr in config.tcp {
                let listener = tcp_listener(addr)?;
                tcp.push(listener.local_addr()?);
                acceptors.push(tokio::spawn(accept_tls(listener, acceptor.clone(), door.clone())));
            }
        }
        Ok(Endpoint {
            identity,
            udp,
            quic,
            tcp,
            acceptors,
            links: BTreeMap::new(),
            own_reports: VecDeque::new(),
            reports,
            reports_sender,
            alive,
        })
    }

    /// The UDP socket's address, with the port that it really has.
    pub fn udp_addr(&self) -> Option<SocketAddr> {
        self.udp.as_ref().map(|udp| udp.local_addr())
    }

    /// The addresses that serve TLS, in the order of the configuration.
    pub fn tcp_addrs(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Links open, opening or just accepted.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Carries out what the machine wants of a link.
    pub(crate) fn act(&mut self, id: LinkId, action: LinkAction) {
        match action {
            LinkAction::Open(target) => self.open(id, target),
            LinkAction::Write(frame) => self.write(id, frame),
            LinkAction::Close => {
                if let Some(queue) = self.links.remove(&id) {
                    queue.close();
                }
            }
        }
    }

    fn open(&mut self, id: LinkId, target: LinkTarget) {
        let queue = Arc::new(LinkQueue::default());
        let task = LinkTask {
            id,
            queue: queue.clone(),
            reports: self.reports_sender.clone(),
            _alive: self.alive.clone(),
        };
        self.links.insert(id, queue);
        match (target.transport, &self.quic) {
            (Transport::Quic, Some(endpoint)) => {
                tokio::spawn(quic::open(task, endpoint.clone(), self.identity.clone(), target));
            }
            (Transport::Quic, None) => self.own_reports.push_back((id, LinkClosed::Unreachable)),
            (Transport::Tls, _) => {
                tokio::spawn(tls::open(task, self.identity.clone(), target));
            }
        }
    }

    fn write(&mut self, id: LinkId, frame: Frame) {
        let Some(queue) = self.links.get(&id) else { return };
        if queue.push(frame).is_err() {
            tracing::debug!(link = id.0, "the peer does not drain its link");
            queue.kill();
            // The id stays in the table until the machine was told.
            self.own_reports.push_back((id, LinkClosed::Overload));
        }
    }

    /// The next thing that happened on a link the machine knows. Cancelling loses nothing.
    pub(crate) async fn next_report(&mut self) -> Option<(LinkId, LinkEvent)> {
        loop {
            if let Some((id, closed)) = self.own_reports.pop_front() {
                if self.links.remove(&id).is_some() {
                    return Some((id, LinkEvent::Closed(closed)));
                }
                continue;
            }
            match self.reports.recv().await? {
                Report::Accepted(id, peer, queue) => {
                    self.links.insert(id, queue);
                    return Some((id, LinkEvent::Opened(peer)));
                }
                Report::Event(id, event) => {
                    if !self.links.contains_key(&id) {
                        continue;
                    }
                    if matches!(event, LinkEvent::Closed(_)) {
                        self.links.remove(&id);
                    }
                    return Some((id, event));
                }
            }
        }
    }

    /// Stops accepting and closes every link; what is queued is still written.
    pub(crate) fn start_closing(&mut self) {
        for acceptor in self.acceptors.drain(..) {
            acceptor.abort();
        }
        for queue in self.links.values() {
            queue.close();
        }
        self.links.clear();
    }

    /// Link tasks that still run.
    pub(crate) fn tasks(&self) -> usize {
        self.alive.others()
    }

    /// Waits until a link task ended; drops what the tasks still report.
    pub(crate) async fn task_ended(&mut self) {
        tokio::select! {
            () = self.alive.fell() => {}
            _dropped = self.reports.recv() => {}
        }
    }

    /// Tells QUIC peers that all is over.
    pub(crate) async fn finish(&mut self) {
        if let Some(quic) = &self.quic {
            quic.close(0u8.into(), b"");
            // quinn's tasks write their CONNECTION_CLOSE when they run next; nothing answers it.
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends one datagram of the machine's.
    pub(crate) fn send(&self, queue: &mut SendQueue, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(udp) = &self.udp {
            queue.send(udp, to, bytes);
        }
    }
}

/// What both acceptors share: numbers for new links, and the counts that bound them.
#[derive(Debug)]
struct Door {
    reports: mpsc::Sender<Report>,
    alive: Alive,
    half_open: Alive,
    accepted: Alive,
    accepted_max: usize,
    next: AtomicU64,
}

impl Door {
    fn is_full(&self) -> bool {
        self.half_open.others() >= HALF_OPEN_MAX || self.accepted.others() >= self.accepted_max
    }

    fn task(&self) -> LinkTask {
        LinkTask {
            id: LinkId(self.next.fetch_add(1, Ordering::Relaxed)),
            queue: Arc::new(LinkQueue::default()),
            reports: self.reports.clone(),
            _alive: self.alive.clone(),
        }
    }
}

async fn accept_quic(endpoint: quinn::Endpoint, door: Arc<Door>) {
    while let Some(incoming) = endpoint.accept().await {
        if door.is_full() {
            incoming.refuse();
            continue;
        }
        if door.half_open.others() >= HALF_OPEN_BEFORE_RETRY && incoming.may_retry() {
            if incoming.retry().is_err() {
                tracing::debug!("Retry not sent");
            }
            continue;
        }
        let (task, half_open, accepted) = (door.task(), door.half_open.clone(), door.accepted.clone());
        tokio::spawn(async move {
            quic::accept(task, incoming, half_open).await;
            drop(accepted);
        });
    }
}

async fn accept_tls(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, door: Arc<Door>) {
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, most likely: a moment later some are free again.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if door.is_full() {
            continue;
        }
        let (task, half_open, accepted) = (door.task(), door.half_open.clone(), door.accepted.clone());
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            tls::accept(task, acceptor, tcp, half_open).await;
            drop(accepted);
        });
    }
}
