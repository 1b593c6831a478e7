//! One UDP socket for everything. Received buffers are cut stride by stride (GRO joins datagrams of one sender, and
//! ours may be among QUIC's), each datagram goes by its first byte: QUIC's into a bounded inbox that quinn reads
//! through [`AsyncUdpSocket`], all others to the machine at once.
//!
//! Addresses are IPv4 or IPv6 to everybody above; that a dual-stack socket writes IPv4 as `::ffff:a.b.c.d` stays here
//! (and in quinn, which does the same).

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use yodel_wire::first_byte::DatagramKind;

use crate::limits::{QUIC_INBOX_MAX, UDP_BUFFER_BYTES, UDP_RECEIVE_BUFFERS, UDP_SEND_QUEUE_MAX};

/// What GRO may join into one buffer.
const RECEIVE_BUFFER_BYTES: usize = 65_535;

/// The socket, shared by the driver and by quinn.
pub(crate) struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    inbox: Mutex<QuicInbox>,
}

#[derive(Default)]
struct QuicInbox {
    datagrams: VecDeque<(RecvMeta, Vec<u8>)>,
    waker: Option<Waker>,
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl UdpSocket {
    /// Binds; `[::]` serves IPv4 too, and becomes `0.0.0.0` on a host without IPv6.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let fd = bind_dual_stack(addr, SockType::Datagram)?;
        enlarge_buffers(&fd);
        let std = std::net::UdpSocket::from(fd);
        std.set_nonblocking(true)?;
        let state = UdpSocketState::new((&std).into())?;
        let io = tokio::net::UdpSocket::from_std(std)?;
        let local = io.local_addr()?;
        Ok(Arc::new(UdpSocket { io, state, local, inbox: Mutex::default() }))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits until there may be something to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Waits until there may be room to send.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Receives one batch. Datagrams that are not QUIC's are handed to `foreign`. Returns how many datagrams came, of
    /// either kind; 0 when there are none now.
    pub(crate) fn receive(
        &self,
        buffers: &mut ReceiveBuffers,
        mut foreign: impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<usize> {
        let mut metas = [RecvMeta::default(); UDP_RECEIVE_BUFFERS];
        let received = self.io.try_io(Interest::READABLE, || {
            let mut slices = buffers.slices();
            self.state.recv((&self.io).into(), &mut slices, &mut metas)
        });
        let filled = match received {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            // An ICMP error queued by an earlier send says nothing about this socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut datagrams = 0;
        let mut wake = None;
        for (meta, buffer) in metas.iter().take(filled).zip(buffers.chunks()) {
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            let from = normalised(meta.addr);
            for datagram in bytes.chunks(meta.stride.max(1)) {
                datagrams += 1;
                match DatagramKind::of(datagram) {
                    DatagramKind::Quic => wake = self.to_quic(meta, datagram).or(wake),
                    DatagramKind::Reserved => {}
                    DatagramKind::Stun
                    | DatagramKind::Overlay
                    | DatagramKind::RelayData
                    | DatagramKind::RelayControl
                    | DatagramKind::PathProbe
                    | DatagramKind::Media => foreign(from, datagram),
                }
            }
        }
        if let Some(waker) = wake {
            waker.wake();
        }
        Ok(datagrams)
    }

    fn to_quic(&self, meta: &RecvMeta, datagram: &[u8]) -> Option<Waker> {
        let mut inbox = self.inbox();
        if inbox.datagrams.len() < QUIC_INBOX_MAX {
            let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..*meta };
            inbox.datagrams.push_back((meta, datagram.to_vec()));
        }
        inbox.waker.take()
    }

    fn inbox(&self) -> MutexGuard<'_, QuicInbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one datagram now.
    ///
    /// # Errors
    /// `WouldBlock` only; what the network refuses is a lost datagram.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let Some(destination) = self.for_this_socket(to) else { return Ok(()) };
        self.transmit(&Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip: None })
    }

    fn transmit(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit));
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                tracing::debug!(to = %transmit.destination, %error, "datagram not sent");
                Ok(())
            }
            other => other,
        }
    }

    fn for_this_socket(&self, to: SocketAddr) -> Option<SocketAddr> {
        match (self.local, to) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                Some(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into())
            }
            (SocketAddr::V4(_), SocketAddr::V6(_)) => None,
            (SocketAddr::V6(_), SocketAddr::V6(_)) | (SocketAddr::V4(_), SocketAddr::V4(_)) => Some(to),
        }
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.transmit(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox();
        let mut filled = 0;
        for (buf, slot) in bufs.iter_mut().zip(meta.iter_mut()) {
            let Some((received, bytes)) = inbox.datagrams.pop_front() else { break };
            // A datagram longer than quinn's buffer cannot be QUIC of ours; what is cut off fails its check there.
            let length = bytes.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..length), bytes.get(..length)) {
                to.copy_from_slice(from);
            }
            *slot = RecvMeta { len: length, stride: length, ..received };
            filled += 1;
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type WritableFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

struct Writable {
    socket: Arc<UdpSocket>,
    waiting: Option<WritableFuture>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let result = waiting.as_mut().poll(cx);
        if result.is_ready() {
            self.waiting = None;
        }
        result
    }
}

/// Room for one receive call. The pages are touched only as far as datagrams reach.
pub(crate) struct ReceiveBuffers(Vec<u8>);

impl ReceiveBuffers {
    pub(crate) fn new() -> ReceiveBuffers {
        ReceiveBuffers(vec![0; RECEIVE_BUFFER_BYTES * UDP_RECEIVE_BUFFERS])
    }

    fn slices(&mut self) -> Vec<IoSliceMut<'_>> {
        self.0.chunks_mut(RECEIVE_BUFFER_BYTES).map(IoSliceMut::new).collect()
    }

    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.0.chunks(RECEIVE_BUFFER_BYTES)
    }
}

/// Datagrams that found the socket full.
#[derive(Default)]
pub(crate) struct SendQueue {
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    dropped: u64,
}

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Datagrams dropped since the start because the socket stayed full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends, behind what is waiting already.
    pub(crate) fn send(&mut self, socket: &UdpSocket, to: SocketAddr, bytes: Vec<u8>) {
        if self.waiting.is_empty() && socket.send(to, &bytes).is_ok() {
            return;
        }
        if self.waiting.len() >= UDP_SEND_QUEUE_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back((to, bytes));
    }

    /// Sends what waits, until the socket is full again.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) {
        while let Some((to, bytes)) = self.waiting.front() {
            if socket.send(*to, bytes).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

/// IPv4 written as IPv6 is IPv4.
pub(crate) fn normalised(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// A TCP listener with the same rules for addresses as the UDP socket.
pub(crate) fn tcp_listener(addr: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let fd = bind_dual_stack(addr, SockType::Stream)?;
    listen(&fd, Backlog::new(1_024)?)?;
    let std = std::net::TcpListener::from(fd);
    std.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(std)
}

fn bind_dual_stack(addr: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    match bind_exactly(addr, kind) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if addr.is_ipv6() && addr.ip().is_unspecified() => {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port());
            Ok(bind_exactly(v4, kind)?)
        }
        other => Ok(other?),
    }
}

fn bind_exactly(addr: SocketAddr, kind: SockType) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!addr.ip().is_unspecified())?;
    }
    if kind == SockType::Stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(addr))?;
    Ok(fd)
}

/// As much as we may: a privileged process gets what it asks for, others what the host's limit allows.
fn enlarge_buffers(fd: &OwnedFd) {
    let bytes = UDP_BUFFER_BYTES;
    #[cfg(target_os = "linux")]
    let (receive, send) =
        (setsockopt(fd, sockopt::RcvBufForce, &bytes), setsockopt(fd, sockopt::SndBufForce, &bytes));
    #[cfg(not(target_os = "linux"))]
    let (receive, send) = (Err(Errno::EPERM), Err(Errno::EPERM));
    let receive = receive.or_else(|_| setsockopt(fd, sockopt::RcvBuf, &bytes));
    let send = send.or_else(|_| setsockopt(fd, sockopt::SndBuf, &bytes));
    if let Err(error) = receive.and(send) {
        tracing::debug!(%error, "UDP buffers keep their default size");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dual_stack_shows_ipv4_as_ipv4() {
        let server = UdpSocket::bind("[::]:0".parse().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.local_addr().port());
        client.writable().await.unwrap();
        server.writable().await.unwrap();
        client.send(to, &[0, 1, 2]).unwrap();
        let mut buffers = ReceiveBuffers::new();
        let mut seen = Vec::new();
        while seen.is_empty() {
            server.readable().await.unwrap();
            server.receive(&mut buffers, |from, bytes| seen.push((from, bytes.to_vec()))).unwrap();
        }
        assert_eq!(seen, [(client.local_addr(), vec![0, 1, 2])]);
        server.send(client.local_addr(), &[1]).unwrap();
        while seen.len() < 2 {
            client.readable().await.unwrap();
            client.receive(&mut buffers, |from, bytes| seen.push((from, bytes.to_vec()))).unwrap();
        }
        assert_eq!(seen[1], (to, vec![1]));
        client.send("[2001:db8::1]:9".parse().unwrap(), &[1]).unwrap();
    }

    #[tokio::test]
    async fn each_datagram_goes_by_its_first_byte() {
        let server = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for first in [0u8, 20, 40, 64, 128, 200] {
            client.send_to(&[first; 10], server.local_addr()).unwrap();
        }
        let mut buffers = ReceiveBuffers::new();
        let mut seen = Vec::new();
        let mut datagrams = 0;
        while datagrams < 6 {
            server.readable().await.unwrap();
            datagrams += server.receive(&mut buffers, |_, bytes| seen.push(bytes[0])).unwrap();
        }
        assert_eq!(seen, [0, 20, 128]);
        let kept: Vec<u8> = server.inbox().datagrams.iter().map(|(_, bytes)| bytes[0]).collect();
        assert_eq!(kept, [64, 200]);
    }
}
