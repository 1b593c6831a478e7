//! A supernode comes into being, serves and leaves. Its key is the link's; afterwards it renews like a device.

use std::net::SocketAddr;

use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::FrameKind;
use yodel_wire::limits::FRAME_BODY_BYTES_MAX;

use super::{Body, blob, credential_blob, opt_blob};
use crate::keys::SealingPublic;
use crate::limits::{BULLETIN_BYTES_MAX, STATEMENT_BYTES_MAX, SUPERNODE_ADDRESSES_MAX};

/// Asks to be let in. Keys: 1 invitation's secret, 2 sealing key, 3 UDP and 4 TCP addresses.
#[derive(Clone, PartialEq, Eq)]
pub struct SupernodeEnrol {
    /// The invitation's secret.
    pub secret: [u8; 16],
    /// The supernode's X25519 key.
    pub sealing: SealingPublic,
    /// Where it will answer over UDP, at most [`SUPERNODE_ADDRESSES_MAX`].
    pub udp: Vec<SocketAddr>,
    /// Where it will answer over TCP, at most [`SUPERNODE_ADDRESSES_MAX`].
    pub tcp: Vec<SocketAddr>,
}

impl Body for SupernodeEnrol {
    const KIND: FrameKind = FrameKind::SupernodeEnrol;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .bytes(1, &self.secret)
            .bytes(2, &self.sealing.0)
            .addresses(3, &self.udp)
            .addresses(4, &self.tcp)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<SupernodeEnrol, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let secret = map.array(1)?;
        let sealing = SealingPublic(map.array(2)?);
        let udp = map.addresses(3, SUPERNODE_ADDRESSES_MAX)?;
        let tcp = map.addresses(4, SUPERNODE_ADDRESSES_MAX)?;
        map.finish()?;
        Ok(SupernodeEnrol { secret, sealing, udp, tcp })
    }
}

/// What a supernode gets, at enrolment and at each renewal. Keys: 1 credential, 2 statement, 3 bulletin.
#[derive(Clone, PartialEq, Eq)]
pub struct SupernodeEnrolled {
    /// Its credential.
    pub credential: Vec<u8>,
    /// The root statement.
    pub statement: Vec<u8>,
    /// The newest bulletin. Encoding leaves it out when the frame would get too long; `BulletinWanted` brings it.
    pub bulletin: Option<Vec<u8>>,
}

impl Body for SupernodeEnrolled {
    const KIND: FrameKind = FrameKind::SupernodeEnrolled;

    fn encode(&self) -> Vec<u8> {
        let map = |bulletin: Option<&[u8]>| {
            MapWriter::new()
                .bytes(1, &self.credential)
                .bytes(2, &self.statement)
                .opt_bytes(3, bulletin)
                .finish()
        };
        let whole = map(self.bulletin.as_deref());
        if whole.len() <= FRAME_BODY_BYTES_MAX { whole } else { map(None) }
    }

    fn decode(body: &[u8]) -> Result<SupernodeEnrolled, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let credential = credential_blob(&mut map, 1)?;
        let statement = blob(&mut map, 2, STATEMENT_BYTES_MAX)?;
        let bulletin = opt_blob(&mut map, 3, BULLETIN_BYTES_MAX)?;
        map.finish()?;
        Ok(SupernodeEnrolled { credential, statement, bulletin })
    }
}

/// A supernode serves, or leaves; the server signs a bulletin at once. Keys: 1 serving, 2 UDP and 3 TCP addresses,
/// 4 named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupernodeState {
    /// Whether it serves; otherwise it leaves.
    pub ready: bool,
    /// Where it answers over UDP, at most [`SUPERNODE_ADDRESSES_MAX`].
    pub udp: Vec<SocketAddr>,
    /// Where it answers over TCP, at most [`SUPERNODE_ADDRESSES_MAX`].
    pub tcp: Vec<SocketAddr>,
    /// Whether a bulletin named it at these addresses since its start: it does not wait to be named. False when not
    /// said.
    pub named: bool,
}

impl Body for SupernodeState {
    const KIND: FrameKind = FrameKind::SupernodeState;

    fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new().bool(1, self.ready).addresses(2, &self.udp).addresses(3, &self.tcp);
        if self.named { map.bool(4, true) } else { map }.finish()
    }

    fn decode(body: &[u8]) -> Result<SupernodeState, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let ready = map.opt_bool(1)?.ok_or(DecodeError::Missing(1))?;
        let udp = map.addresses(2, SUPERNODE_ADDRESSES_MAX)?;
        let tcp = map.addresses(3, SUPERNODE_ADDRESSES_MAX)?;
        let named = map.opt_bool(4)?.unwrap_or(false);
        map.finish()?;
        Ok(SupernodeState { ready, udp, tcp, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::*;

    fn addrs() -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        (vec!["203.0.113.1:5060".parse().unwrap()], vec!["[2001:db8::1]:80".parse().unwrap()])
    }

    fn round_trip<B: Body + PartialEq + std::fmt::Debug>(name: &str, body: &B) {
        golden(&format!("frame-{name}"), &body.encode());
        assert_eq!(B::decode(&body.encode()).as_ref(), Ok(body), "{name}");
    }

    #[test]
    fn golden_bodies() {
        let (udp, tcp) = addrs();
        let state = SupernodeState { ready: true, udp: udp.clone(), tcp: tcp.clone(), named: false };
        round_trip("supernode-state", &state);
        round_trip("supernode-state-named", &SupernodeState { named: true, ..state });
        let enrol = SupernodeEnrol { secret: [9; 16], sealing: SealingPublic([6; 32]), udp, tcp };
        round_trip("supernode-enrol", &enrol);
        let enrolled = SupernodeEnrolled {
            credential: supernode(1).bytes().to_vec(),
            statement: statement().bytes().to_vec(),
            bulletin: Some(bulletin(1, T0, &revoked(&[])).bytes().to_vec()),
        };
        round_trip("supernode-enrolled", &enrolled);
    }

    #[test]
    fn addresses_are_bounded() {
        let state = |n: u16| {
            let udp = (1..=n).map(|port| SocketAddr::from(([203, 0, 113, 1], port))).collect();
            SupernodeState::decode(&SupernodeState { ready: true, udp, tcp: vec![], named: false }.encode())
        };
        assert!(state(4).is_ok());
        assert_eq!(state(5), Err(DecodeError::OutOfBounds(2)));
    }
}
