//! Links over TLS 1.3 on TCP: the same frames as over QUIC, for networks where UDP is shut.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use yodel_wire::machine::{LinkClosed, LinkEvent, LinkPeer, LinkTarget, Transport};

use crate::limits::{CLOSE_WITHIN, FIRST_FRAME_WITHIN, HANDSHAKE_WITHIN};
use crate::link::{Alive, LinkTask, Report, carry};
use crate::rpk::{ALPN, EXPORTER_LABEL, TlsIdentity, peer_key};
use crate::udp::normalised;

/// Opens a link and carries it to its end.
pub(crate) async fn open(task: LinkTask, identity: TlsIdentity, target: LinkTarget) {
    let connected = tokio::select! {
        connected = timeout(HANDSHAKE_WITHIN, connect(&identity, &target)) => {
            connected.unwrap_or(Err(LinkClosed::Unreachable))
        }
        () = task.queue.killed() => return,
    };
    let closed = match connected {
        Ok((stream, peer)) => {
            task.report(LinkEvent::Opened(peer)).await;
            run(&task, stream, false).await
        }
        Err(closed) => Err(closed),
    };
    if let Err(closed) = closed {
        task.report(LinkEvent::Closed(closed)).await;
    }
}

async fn connect(
    identity: &TlsIdentity,
    target: &LinkTarget,
) -> Result<(TlsStream<TcpStream>, LinkPeer), LinkClosed> {
    let tcp = TcpStream::connect(target.addr).await.map_err(|_| LinkClosed::Unreachable)?;
    let (config, wrong_key) = identity.client(target.key).map_err(|_| LinkClosed::Protocol)?;
    let addr = prepare(&tcp).map_err(|_| LinkClosed::Unreachable)?;
    // An address as server name means no SNI (RFC 6066 §3).
    let name = ServerName::IpAddress(target.addr.ip().into());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
        tracing::debug!(%error, "handshake failed");
        if wrong_key.seen() { LinkClosed::WrongKey } else { LinkClosed::Protocol }
    })?;
    let stream = TlsStream::Client(stream);
    let peer = peer_of(&stream, addr).ok_or(LinkClosed::Protocol)?;
    Ok((stream, peer))
}

/// Shakes hands with a newcomer and carries the link to its end.
pub(crate) async fn accept(task: LinkTask, acceptor: TlsAcceptor, tcp: TcpStream, half_open: Alive) {
    let Ok(addr) = prepare(&tcp) else { return };
    let stream = match timeout(FIRST_FRAME_WITHIN, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => TlsStream::Server(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "handshake failed");
            return;
        }
        Err(_) => return,
    };
    let Some(peer) = peer_of(&stream, addr) else { return };
    drop(half_open);
    if task.reports.send(Report::Accepted(task.id, peer, task.queue.clone())).await.is_err() {
        return;
    }
    if let Err(closed) = run(&task, stream, true).await {
        task.report(LinkEvent::Closed(closed)).await;
    }
}

async fn run(task: &LinkTask, stream: TlsStream<TcpStream>, accepted: bool) -> Result<(), LinkClosed> {
    let (reader, mut writer) = tokio::io::split(stream);
    let carried = carry(task, reader, &mut writer, accepted).await;
    if carried != Err(LinkClosed::Lost) && carried != Err(LinkClosed::Overload) {
        // Says close_notify; a peer that is gone already loses nothing.
        let _said = timeout(CLOSE_WITHIN, writer.shutdown()).await;
    }
    carried
}

fn prepare(tcp: &TcpStream) -> io::Result<SocketAddr> {
    tcp.set_nodelay(true)?;
    Ok(normalised(tcp.peer_addr()?))
}

fn peer_of(stream: &TlsStream<TcpStream>, addr: SocketAddr) -> Option<LinkPeer> {
    let exporter = [0; 32];
    let (chain, alpn, exporter) = match stream {
        TlsStream::Client(stream) => {
            let (_, tls) = stream.get_ref();
            let exporter = tls.export_keying_material(exporter, EXPORTER_LABEL, Some(b"")).ok()?;
            (tls.peer_certificates()?, tls.alpn_protocol(), exporter)
        }
        TlsStream::Server(stream) => {
            let (_, tls) = stream.get_ref();
            let exporter = tls.export_keying_material(exporter, EXPORTER_LABEL, Some(b"")).ok()?;
            (tls.peer_certificates()?, tls.alpn_protocol(), exporter)
        }
    };
    if alpn != Some(ALPN) {
        return None;
    }
    Some(LinkPeer { key: peer_key(chain)?, exporter, addr, transport: Transport::Tls })
}
