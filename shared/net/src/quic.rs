//! Links over QUIC (RFC 9000): one connection with one bidirectional stream of frames. Who opens the link opens the
//! stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, Incoming, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use yodel_wire::limits::DATAGRAM_BYTES_MAX;
use yodel_wire::machine::{LinkClosed, LinkEvent, LinkPeer, LinkTarget, Transport};

use crate::endpoint::EndpointLimits;
use crate::limits::{
    CLOSE_WITHIN, FIRST_FRAME_WITHIN, HANDSHAKE_WITHIN, QUIC_IDLE, QUIC_KEEP_ALIVE, QUIC_WINDOW_BYTES,
};
use crate::link::{Alive, LinkTask, Report, carry};
use crate::rpk::{EXPORTER_LABEL, TlsIdentity, peer_key};
use crate::udp::{UdpSocket, normalised};

const CODE_FINISHED: VarInt = VarInt::from_u32(0);
const CODE_PROTOCOL: VarInt = VarInt::from_u32(1);
const CODE_OVERLOAD: VarInt = VarInt::from_u32(2);

/// A QUIC endpoint on our own socket.
pub(crate) fn endpoint(
    socket: Arc<UdpSocket>,
    identity: &TlsIdentity,
    identity_seed: &[u8; 32],
    limits: &EndpointLimits,
) -> io::Result<quinn::Endpoint> {
    let mut server = None;
    if limits.links_accepted_max > 0 {
        let crypto = QuicServerConfig::try_from(identity.server()?).map_err(io::Error::other)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport(true)?)
            .max_incoming(1_024)
            .incoming_buffer_size(16 * 1_024)
            .incoming_buffer_size_total(1_024 * 1_024);
        config.validation_token.sent(0);
        server = Some(config);
    }
    quinn::Endpoint::new_with_abstract_socket(
        endpoint_config(identity_seed)?,
        server,
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

/// Keys come from the identity, so that a restarted process can tell the peers of its former life at once that their
/// connections are gone (RFC 9000 §10.3), instead of leaving them to their idle time-out.
fn endpoint_config(identity_seed: &[u8; 32]) -> io::Result<quinn::EndpointConfig> {
    let master = hmac::Key::new(hmac::HMAC_SHA256, identity_seed);
    let reset = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"yodel/quic-reset/v1").as_ref());
    let ids = hmac::sign(&master, b"yodel/quic-connection-id/v1");
    let id_key = ids.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut config = quinn::EndpointConfig::new(Arc::new(reset));
    config
        .grease_quic_bit(false)
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)))
        .max_udp_payload_size(u16::try_from(DATAGRAM_BYTES_MAX).map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    Ok(config)
}

fn transport(server: bool) -> io::Result<Arc<quinn::TransportConfig>> {
    let mut config = quinn::TransportConfig::default();
    let streams = if server { VarInt::from_u32(1) } else { VarInt::from_u32(0) };
    config
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(QUIC_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(QUIC_WINDOW_BYTES))
        .send_window(u64::from(QUIC_WINDOW_BYTES))
        .max_idle_timeout(Some(QUIC_IDLE.try_into().map_err(io::Error::other)?))
        .keep_alive_interval(Some(QUIC_KEEP_ALIVE))
        .initial_mtu(1_200)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    Ok(Arc::new(config))
}

/// Opens a link and carries it to its end.
pub(crate) async fn open(
    task: LinkTask,
    endpoint: quinn::Endpoint,
    identity: TlsIdentity,
    target: LinkTarget,
) {
    let closed = match connect(&endpoint, &identity, &target, &task).await {
        Ok((connection, peer)) => {
            task.report(LinkEvent::Opened(peer)).await;
            match timeout(HANDSHAKE_WITHIN, connection.open_bi()).await {
                Ok(Ok(streams)) => run(&task, &connection, streams, false).await,
                Ok(Err(error)) => Err(lost(&error)),
                Err(_) => Err(LinkClosed::Protocol),
            }
        }
        Err(closed) => Err(closed),
    };
    if let Err(closed) = closed {
        task.report(LinkEvent::Closed(closed)).await;
    }
}

async fn connect(
    endpoint: &quinn::Endpoint,
    identity: &TlsIdentity,
    target: &LinkTarget,
    task: &LinkTask,
) -> Result<(quinn::Connection, LinkPeer), LinkClosed> {
    let (crypto, wrong_key) = identity.client(target.key).map_err(|_| LinkClosed::Protocol)?;
    let crypto = QuicClientConfig::try_from(crypto).map_err(|_| LinkClosed::Protocol)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(false).map_err(|_| LinkClosed::Protocol)?);
    // An address as server name means no SNI (RFC 6066 §3).
    let name = target.addr.ip().to_string();
    let connecting = endpoint.connect_with(config, target.addr, &name).map_err(|error| {
        tracing::debug!(%error, "cannot connect");
        LinkClosed::Unreachable
    })?;
    let connection = tokio::select! {
        result = timeout(HANDSHAKE_WITHIN, connecting) => match result {
            Ok(Ok(connection)) => connection,
            Ok(Err(_)) if wrong_key.seen() => return Err(LinkClosed::WrongKey),
            Ok(Err(error)) => return Err(refused(&error)),
            Err(_) => return Err(LinkClosed::Unreachable),
        },
        () = task.queue.killed() => return Err(LinkClosed::Finished),
    };
    let peer = peer_of(&connection).ok_or(LinkClosed::Protocol)?;
    Ok((connection, peer))
}

/// Shakes hands with a newcomer and carries the link to its end.
pub(crate) async fn accept(task: LinkTask, incoming: Incoming, half_open: Alive) {
    let Ok(connecting) = incoming.accept() else { return };
    let connection = match timeout(FIRST_FRAME_WITHIN, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "handshake failed");
            return;
        }
        Err(_) => return,
    };
    let Some(peer) = peer_of(&connection) else {
        connection.close(CODE_PROTOCOL, b"");
        return;
    };
    // The stream counts as half open too: it only shows with its first bytes.
    let streams = match timeout(FIRST_FRAME_WITHIN, connection.accept_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(_)) => return,
        Err(_) => {
            connection.close(CODE_PROTOCOL, b"");
            return;
        }
    };
    drop(half_open);
    if task.reports.send(Report::Accepted(task.id, peer, task.queue.clone())).await.is_err() {
        return;
    }
    let (send, receive) = streams;
    if let Err(closed) = run(&task, &connection, (send, receive), true).await {
        task.report(LinkEvent::Closed(closed)).await;
    }
}

async fn run(
    task: &LinkTask,
    connection: &quinn::Connection,
    (mut send, receive): (quinn::SendStream, quinn::RecvStream),
    accepted: bool,
) -> Result<(), LinkClosed> {
    let carried = carry(task, receive, &mut send, accepted).await;
    let result = match (carried, connection.close_reason()) {
        (Ok(()), _) => {
            // Resolves once the peer has everything; how it ends is of no interest any more.
            let _finished = send.finish();
            let _acknowledged = timeout(CLOSE_WITHIN, send.stopped()).await;
            Ok(())
        }
        (Err(LinkClosed::Lost), Some(error)) => Err(lost(&error)),
        (Err(closed), _) => Err(closed),
    };
    let code = match result {
        Ok(()) | Err(LinkClosed::Finished | LinkClosed::Unreachable | LinkClosed::Lost) => CODE_FINISHED,
        Err(LinkClosed::WrongKey | LinkClosed::Protocol) => CODE_PROTOCOL,
        Err(LinkClosed::Overload) => CODE_OVERLOAD,
    };
    connection.close(code, b"");
    result
}

fn peer_of(connection: &quinn::Connection) -> Option<LinkPeer> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").ok()?;
    Some(LinkPeer { key: peer_key(&chain)?, exporter, addr: addr_of(connection), transport: Transport::Quic })
}

fn addr_of(connection: &quinn::Connection) -> SocketAddr {
    normalised(connection.remote_address())
}

/// Why a handshake that we began failed.
fn refused(error: &ConnectionError) -> LinkClosed {
    tracing::debug!(%error, "handshake failed");
    match error {
        ConnectionError::TimedOut
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => LinkClosed::Unreachable,
        // A server with too much to do says CONNECTION_REFUSED (RFC 9000 §20.1).
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            LinkClosed::Unreachable
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_) => LinkClosed::Protocol,
    }
}

/// Why a link that worked ended.
fn lost(error: &ConnectionError) -> LinkClosed {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == CODE_FINISHED => {
            LinkClosed::Finished
        }
        ConnectionError::ApplicationClosed(close) if close.error_code == CODE_PROTOCOL => {
            LinkClosed::Protocol
        }
        ConnectionError::VersionMismatch | ConnectionError::TransportError(_) => LinkClosed::Protocol,
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => LinkClosed::Lost,
    }
}
