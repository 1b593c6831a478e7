//! The first frames of every link between nodes, pings and farewells. All are CBOR maps:
//!
//! | frame | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
//! |---|---|---|---|---|---|---|---|
//! | `Hello` | credential, bytes | role: 1 device, 2 member | oldest version | newest version | epoch held | boot, bytes 16 | announcement |
//! | `Welcome` | time, s since 1970 | observed address | credential, bytes | version | clients now | boot, bytes 16 | announcement |
//! | `Refuse`, `Goodbye` | reason | come back, s | redirect, node id | its card, bytes | | |
//! | `Ping` | nonce | | | | | |
//! | `Pong` | nonce | observed address | | | | |
//!
//! `Hello` comes from whoever opened the link, `Welcome` or `Refuse` is the answer. The key in a credential must be the
//! key that the TLS handshake proved; that, and not a further signature, shows possession. `boot` is drawn at each start
//! of a process: a node that comes back with another one has forgotten what it kept in memory. A redirect comes with the
//! [`Card`](crate::card::Card) of where to go, so that it is believed and reached without asking anybody.

use std::net::SocketAddr;
use std::time::Duration;

use yodel_identity::credential::seconds;
use yodel_identity::limits::CREDENTIAL_BYTES_MAX;
use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::UnixTime;

use crate::limits::{ANNOUNCEMENT_BYTES_MAX, CARD_BYTES_MAX};

/// The version of the protocol between nodes that this program speaks.
pub const VERSION: u64 = 1;

/// In what capacity a node opens a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkRole {
    /// A device attaches to a home.
    Device,
    /// A member links to a member.
    Member,
}

impl LinkRole {
    fn number(self) -> u64 {
        match self {
            LinkRole::Device => 1,
            LinkRole::Member => 2,
        }
    }
}

/// First frame of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's credential as signed; verify it before anything else.
    pub credential: Vec<u8>,
    /// In what capacity.
    pub role: LinkRole,
    /// Oldest and newest protocol version it speaks.
    pub versions: (u64, u64),
    /// Epoch of the bulletin it holds; 0 for none.
    pub epoch: u64,
    /// New at each start of the process.
    pub boot: [u8; 16],
    /// A member's announcement as signed (`card.rs`): it may be unknown to the receiver.
    pub announcement: Option<Vec<u8>>,
}

impl Hello {
    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new()
            .bytes(1, &self.credential)
            .uint(2, self.role.number())
            .uint(3, self.versions.0)
            .uint(4, self.versions.1)
            .uint(5, self.epoch)
            .bytes(6, &self.boot)
            .opt_bytes(7, self.announcement.as_deref())
            .finish();
        Frame::new(FrameKind::Hello, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Hello, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let hello = Hello {
            credential: map.bytes(1, CREDENTIAL_BYTES_MAX)?.to_vec(),
            role: match map.uint(2)? {
                1 => LinkRole::Device,
                2 => LinkRole::Member,
                _ => return Err(DecodeError::OutOfBounds(2)),
            },
            versions: (map.uint(3)?, map.uint(4)?),
            epoch: map.uint(5)?,
            boot: map.array(6)?,
            announcement: map.opt_bytes(7, ANNOUNCEMENT_BYTES_MAX)?.map(<[u8]>::to_vec),
        };
        map.finish()?;
        if hello.versions.0 > hello.versions.1 {
            return Err(DecodeError::OutOfBounds(4));
        }
        Ok(hello)
    }

    /// The version both speak, if there is one.
    pub fn common_version(&self) -> Option<u64> {
        (self.versions.0 <= VERSION && VERSION <= self.versions.1).then_some(VERSION)
    }
}

/// The answer: attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The sender's clock, whole seconds.
    pub time: UnixTime,
    /// Where the receiver's packets come from.
    pub observed: SocketAddr,
    /// The sender's credential as signed.
    pub credential: Vec<u8>,
    /// The protocol version of this link.
    pub version: u64,
    /// Devices attached to the sender.
    pub clients: u64,
    /// New at each start of the sender's process.
    pub boot: [u8; 16],
    /// The sender's announcement as signed, for members.
    pub announcement: Option<Vec<u8>>,
}

impl Welcome {
    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new()
            .uint(1, self.time.as_secs())
            .opt_address(2, Some(self.observed))
            .bytes(3, &self.credential)
            .uint(4, self.version)
            .uint(5, self.clients)
            .bytes(6, &self.boot)
            .opt_bytes(7, self.announcement.as_deref())
            .finish();
        Frame::new(FrameKind::Welcome, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Welcome, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let welcome = Welcome {
            time: seconds(&mut map, 1)?,
            observed: map.opt_address(2)?.ok_or(DecodeError::Missing(2))?,
            credential: map.bytes(3, CREDENTIAL_BYTES_MAX)?.to_vec(),
            version: map.uint(4)?,
            clients: map.uint(5)?,
            boot: map.array(6)?,
            announcement: map.opt_bytes(7, ANNOUNCEMENT_BYTES_MAX)?.map(<[u8]>::to_vec),
        };
        map.finish()?;
        Ok(welcome)
    }
}

/// Why a link is refused or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefuseReason {
    /// Too many are attached.
    Full,
    /// About to stop serving.
    Draining,
    /// The credential, or the node's, is revoked.
    Revoked,
    /// The credential is not valid: expired, of another realm, of an unknown issuer, not the link's key.
    Credential,
    /// The node attached again elsewhere on this supernode.
    Displaced,
    /// No common protocol version.
    Version,
    /// The link did what the protocol does not allow.
    Protocol,
    /// Not (yet) a member by the bulletin held here.
    NotMember,
    /// A reason this program does not know.
    Other,
}

impl RefuseReason {
    const TABLE: &[(u64, RefuseReason)] = &[
        (1, RefuseReason::Full),
        (2, RefuseReason::Draining),
        (3, RefuseReason::Revoked),
        (4, RefuseReason::Credential),
        (5, RefuseReason::Displaced),
        (6, RefuseReason::Version),
        (7, RefuseReason::Protocol),
        (8, RefuseReason::NotMember),
    ];

    fn number(self) -> u64 {
        Self::TABLE.iter().find(|(_, reason)| *reason == self).map_or(0, |(number, _)| *number)
    }

    fn from_number(number: u64) -> RefuseReason {
        Self::TABLE.iter().find(|(n, _)| *n == number).map_or(RefuseReason::Other, |(_, reason)| *reason)
    }
}

/// "Not now, or not here": body of `Refuse` and of `Goodbye`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Why.
    pub reason: RefuseReason,
    /// When to try here again, whole seconds; zero leaves it to the receiver's back-off.
    pub come_back: Duration,
    /// Where to go meanwhile.
    pub redirect: Option<NodeId>,
    /// The card of that supernode, not verified.
    pub card: Option<Vec<u8>>,
}

impl Refuse {
    /// A refusal that names no other supernode.
    pub fn plain(reason: RefuseReason, come_back: Duration) -> Refuse {
        Refuse { reason, come_back, redirect: None, card: None }
    }

    /// The frame that refuses a link.
    pub fn encode_refuse(&self) -> Frame {
        Frame::new(FrameKind::Refuse, self.body())
    }

    /// The frame that ends a link that was granted.
    pub fn encode_goodbye(&self) -> Frame {
        Frame::new(FrameKind::Goodbye, self.body())
    }

    fn body(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, self.reason.number())
            .uint(2, self.come_back.as_secs())
            .opt_bytes(3, self.redirect.as_ref().map(|node| node.0.as_slice()))
            .opt_bytes(4, self.card.as_deref())
            .finish()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Refuse, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let refuse = Refuse {
            reason: RefuseReason::from_number(map.uint(1)?),
            come_back: Duration::from_secs(u64::from(map.uint_as::<u32>(2)?)),
            redirect: map.opt_array(3)?.map(NodeId),
            card: map.opt_bytes(4, CARD_BYTES_MAX)?.map(<[u8]>::to_vec),
        };
        map.finish()?;
        Ok(refuse)
    }
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Returned in the answer.
    pub nonce: u64,
}

impl Ping {
    /// The frame.
    pub fn encode(&self) -> Frame {
        Frame::new(FrameKind::Ping, MapWriter::new().uint(1, self.nonce).finish())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Ping, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let ping = Ping { nonce: map.uint(1)? };
        map.finish()?;
        Ok(ping)
    }
}

/// I am, and this is where I see you.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's.
    pub nonce: u64,
    /// Where the receiver's packets come from.
    pub observed: SocketAddr,
}

impl Pong {
    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new().uint(1, self.nonce).opt_address(2, Some(self.observed)).finish();
        Frame::new(FrameKind::Pong, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Pong, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let pong =
            Pong { nonce: map.uint(1)?, observed: map.opt_address(2)?.ok_or(DecodeError::Missing(2))? };
        map.finish()?;
        Ok(pong)
    }
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::hex;

    use super::*;

    fn addr() -> SocketAddr {
        "203.0.113.7:5061".parse().unwrap()
    }

    #[test]
    fn golden_hello_and_welcome() {
        let hello = Hello {
            credential: vec![1, 2, 3],
            role: LinkRole::Member,
            versions: (1, 3),
            epoch: 500,
            boot: [9; 16],
            announcement: None,
        };
        let frame = hello.encode();
        assert_eq!(frame.kind, FrameKind::Hello);
        assert_eq!(
            hex(&frame.body),
            "a601430102030202030104030519 01f40650".replace(' ', "") + &"09".repeat(16)
        );
        assert_eq!(Hello::decode(&frame.body), Ok(hello.clone()));
        assert_eq!(hello.common_version(), Some(1));
        assert_eq!(Hello { versions: (2, 3), ..hello.clone() }.common_version(), None);
        let reversed = Hello { versions: (3, 1), ..hello }.encode();
        assert_eq!(Hello::decode(&reversed.body), Err(DecodeError::OutOfBounds(4)));

        let welcome = Welcome {
            time: UnixTime::from_secs(1_800_000_000),
            observed: addr(),
            credential: vec![7],
            version: 1,
            clients: 2,
            boot: [8; 16],
            announcement: None,
        };
        let frame = welcome.encode();
        assert_eq!(frame.kind, FrameKind::Welcome);
        assert_eq!(
            hex(&frame.body),
            "a6011a6b49d2000246cb00710713c503410704010502 0650".replace(' ', "") + &"08".repeat(16)
        );
        assert_eq!(Welcome::decode(&frame.body), Ok(welcome));
    }

    #[test]
    fn golden_refuse_ping_and_pong() {
        let refuse = Refuse {
            reason: RefuseReason::Draining,
            come_back: Duration::from_secs(30),
            redirect: Some(NodeId([5; 16])),
            card: None,
        };
        let frame = refuse.encode_goodbye();
        assert_eq!(frame.kind, FrameKind::Goodbye);
        assert_eq!(hex(&frame.body), "a3010202181e0350".to_owned() + &"05".repeat(16));
        assert_eq!(Refuse::decode(&frame.body), Ok(refuse.clone()));
        let with_card = Refuse { card: Some(vec![1, 2, 3]), ..refuse };
        let frame = with_card.encode_refuse();
        assert_eq!(frame.kind, FrameKind::Refuse);
        assert_eq!(hex(&frame.body), "a4010202181e0350".to_owned() + &"05".repeat(16) + "0443010203");
        assert_eq!(Refuse::decode(&frame.body), Ok(with_card.clone()));
        let long = Refuse { card: Some(vec![0; CARD_BYTES_MAX + 1]), ..with_card }.encode_refuse();
        assert_eq!(Refuse::decode(&long.body), Err(DecodeError::OutOfBounds(4)));
        assert_eq!(
            Refuse::decode(&[0xa2, 1, 0x18, 99, 2, 0]).unwrap().reason,
            RefuseReason::Other,
            "a later reason is still a refusal"
        );
        assert_eq!(hex(&Ping { nonce: 7 }.encode().body), "a10107");
        let pong = Pong { nonce: 7, observed: addr() };
        assert_eq!(hex(&pong.encode().body), "a201070246cb00710713c5");
        assert_eq!(Pong::decode(&pong.encode().body), Ok(pong));
        assert_eq!(Ping::decode(&Ping { nonce: 7 }.encode().body), Ok(Ping { nonce: 7 }));
    }
}
