//! What relay and legs say to each other.
//!
//! Over links, frames 48 to 55. All but `RelayData` are CBOR maps:
//!
//! | frame | 1 token | 2 | 3 | 4 |
//! |---|---|---|---|---|
//! | `RelayOpen` | bytes 16 | allow: node id, bytes 16 | | |
//! | `RelayJoin` | bytes 16 | | | |
//! | `RelayOpened`, `RelayJoined` | bytes 16 | channel, uint | | |
//! | `RelayState` | bytes 16 | near: 1 udp, 2 tcp | far: absent, or as near | draining: bool |
//! | `RelayClose`, `RelayRefused` | bytes 16 | reason, uint | | |
//!
//! From relay to leg, `RelayState` says how the two legs stand. From leg to relay it says which way the leg wants its
//! packets from now on, the link's: it takes back the binding of the UDP address, and `far` is absent.
//!
//! Over UDP, data:
//!
//! ```text
//!   0      1                                               8
//!   +------+------+------+------+------+------+------+------+------- - -
//!   | 21   | channel of the leg that sends or receives (BE) | packet, 1..=1,192 bytes
//!   +------+------+------+------+------+------+------+------+------- - -
//! ```
//! The body of a `RelayData` frame is that very datagram. A channel is 56 random bits, known to one leg and the relay.
//!
//! Over UDP, control; all four kinds have one layout and one size, so no answer is longer than what asked for it:
//!
//! ```text
//!   0      1      2      3             10             18             34             50
//!   +------+------+------+-------------+--------------+--------------+--------------+
//!   | 22   | 1    | kind | channel, 7  | sequence, 8  | cookie, 16   | mac, 16      |
//!   +------+------+------+-------------+--------------+--------------+--------------+
//! ```
//! 1 *Bind* (leg → relay, cookie zero) · 2 *Challenge* (relay → the address seen) · 3 *Confirm* (leg → relay, cookie
//! echoed) · 4 *Bound* (relay → leg). `mac` is HMAC-SHA-256 (RFC 2104) over everything before it, cut to 16 bytes, under
//! a key that only the two ends of the leg's link can derive. Sequences of a leg rise; an old one changes nothing.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::first_byte;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::Transport;

/// Bytes in front of every relayed packet.
pub const DATA_HEADER_BYTES: usize = 8;

/// Bytes of every control datagram.
pub const BINDING_BYTES: usize = 50;

const MAC_BYTES: usize = 16;
const BIND_KEY_CONTEXT: &[u8] = b"yodel/relay-bind/v1\0";

/// Names a session to its two ends; random, chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub [u8; 16]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "Token({a:02x}{b:02x}…)")
    }
}

/// Names a leg in front of its packets: 56 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u64);

impl Channel {
    /// The low 56 bits of `bits`.
    pub fn new(bits: u64) -> Channel {
        Channel(bits & 0x00ff_ffff_ffff_ffff)
    }

    /// As a number below 2^56.
    pub fn get(self) -> u64 {
        self.0
    }

    fn to_bytes(self) -> [u8; 7] {
        let [_, rest @ ..] = self.0.to_be_bytes();
        rest
    }

    fn from_bytes(bytes: [u8; 7]) -> Channel {
        let [a, b, c, d, e, f, g] = bytes;
        Channel(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
    }
}

/// What carries a leg's packets. QUIC counts as UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegKind {
    /// Datagrams, or frames on a QUIC link.
    Udp,
    /// Frames on a TLS link.
    Tcp,
}

impl LegKind {
    /// The kind of a leg that uses its link.
    pub fn of_link(transport: Transport) -> LegKind {
        match transport {
            Transport::Quic => LegKind::Udp,
            Transport::Tls => LegKind::Tcp,
        }
    }

    fn number(self) -> u64 {
        match self {
            LegKind::Udp => 1,
            LegKind::Tcp => 2,
        }
    }

    fn from_number(key: i64, number: u64) -> Result<LegKind, DecodeError> {
        match number {
            1 => Ok(LegKind::Udp),
            2 => Ok(LegKind::Tcp),
            _ => Err(DecodeError::OutOfBounds(key)),
        }
    }
}

/// Why a session was not granted, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An end closed it.
    Finished,
    /// The credential's quota, or the server's, is used up, or is 0.
    Quota,
    /// No session with this token that this node may join.
    NoSession,
    /// The second end did not come in time, or nothing passed for long.
    Expired,
    /// The server drains; other relays are to be used.
    Draining,
    /// A credential of one end was revoked or has ended.
    Revoked,
    /// The token is in use by somebody else.
    TokenInUse,
    /// The link to the relay ended, or the relay did not answer.
    LinkLost,
}

impl Reason {
    fn number(self) -> u64 {
        match self {
            Reason::Finished => 0,
            Reason::Quota => 1,
            Reason::NoSession => 2,
            Reason::Expired => 3,
            Reason::Draining => 4,
            Reason::Revoked => 5,
            Reason::TokenInUse => 6,
            Reason::LinkLost => 7,
        }
    }

    fn from_number(key: i64, number: u64) -> Result<Reason, DecodeError> {
        match number {
            0 => Ok(Reason::Finished),
            1 => Ok(Reason::Quota),
            2 => Ok(Reason::NoSession),
            3 => Ok(Reason::Expired),
            4 => Ok(Reason::Draining),
            5 => Ok(Reason::Revoked),
            6 => Ok(Reason::TokenInUse),
            7 => Ok(Reason::LinkLost),
            _ => Err(DecodeError::OutOfBounds(key)),
        }
    }
}

/// A decoded relay frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Open a session that `allow` may join.
    Open {
        /// Names the session.
        token: Token,
        /// Who may join.
        allow: NodeId,
    },
    /// It is open.
    Opened {
        /// Names the session.
        token: Token,
        /// The opener's leg.
        channel: Channel,
    },
    /// Join a session.
    Join {
        /// Names the session.
        token: Token,
    },
    /// Joined.
    Joined {
        /// Names the session.
        token: Token,
        /// The joiner's leg.
        channel: Channel,
    },
    /// How the legs stand, or how one wants to stand.
    State {
        /// Names the session.
        token: Token,
        /// The receiver's leg (or the sender's, toward the relay).
        near: LegKind,
        /// The other leg; `None` until it joined.
        far: Option<LegKind>,
        /// Whether both should move to another relay.
        draining: bool,
    },
    /// A packet.
    Data {
        /// The leg.
        channel: Channel,
        /// The packet, not empty.
        packet: Vec<u8>,
    },
    /// The end of a session.
    Close {
        /// Names the session.
        token: Token,
        /// Why.
        reason: Reason,
    },
    /// Not granted.
    Refused {
        /// Names the session.
        token: Token,
        /// Why.
        reason: Reason,
    },
}

impl Control {
    /// Reads a frame. `Ok(None)` when its kind is none of the relay's.
    ///
    /// # Errors
    /// Any [`DecodeError`]: the link must be closed.
    pub fn decode(frame: &Frame) -> Result<Option<Control>, DecodeError> {
        if frame.kind == FrameKind::RelayData {
            let (channel, packet) = parse_data(&frame.body).ok_or(DecodeError::Malformed)?;
            return Ok(Some(Control::Data { channel, packet: packet.to_vec() }));
        }
        if !is_relay(frame.kind) {
            return Ok(None);
        }
        let mut map = MapReader::parse(&frame.body)?;
        let token = Token(map.array(1)?);
        let control = match frame.kind {
            FrameKind::RelayOpen => Control::Open { token, allow: NodeId(map.array(2)?) },
            FrameKind::RelayOpened => Control::Opened { token, channel: channel(&mut map)? },
            FrameKind::RelayJoin => Control::Join { token },
            FrameKind::RelayJoined => Control::Joined { token, channel: channel(&mut map)? },
            FrameKind::RelayState => Control::State {
                token,
                near: LegKind::from_number(2, map.uint(2)?)?,
                far: map.opt_uint(3)?.map(|number| LegKind::from_number(3, number)).transpose()?,
                draining: map.opt_bool(4)?.unwrap_or(false),
            },
            FrameKind::RelayClose => Control::Close { token, reason: Reason::from_number(2, map.uint(2)?)? },
            FrameKind::RelayRefused => {
                Control::Refused { token, reason: Reason::from_number(2, map.uint(2)?)? }
            }
            _ => return Ok(None),
        };
        map.finish()?;
        Ok(Some(control))
    }

    /// Writes the frame.
    pub fn encode(&self) -> Frame {
        let map = |token: &Token| MapWriter::new().bytes(1, &token.0);
        let (kind, body) = match self {
            Control::Open { token, allow } => (FrameKind::RelayOpen, map(token).bytes(2, &allow.0).finish()),
            Control::Opened { token, channel } => {
                (FrameKind::RelayOpened, map(token).uint(2, channel.0).finish())
            }
            Control::Join { token } => (FrameKind::RelayJoin, map(token).finish()),
            Control::Joined { token, channel } => {
                (FrameKind::RelayJoined, map(token).uint(2, channel.0).finish())
            }
            Control::State { token, near, far, draining } => {
                let mut map = map(token).uint(2, near.number());
                if let Some(far) = far {
                    map = map.uint(3, far.number());
                }
                if *draining {
                    map = map.bool(4, true);
                }
                (FrameKind::RelayState, map.finish())
            }
            Control::Data { channel, packet } => (FrameKind::RelayData, data(*channel, packet)),
            Control::Close { token, reason } => {
                (FrameKind::RelayClose, map(token).uint(2, reason.number()).finish())
            }
            Control::Refused { token, reason } => {
                (FrameKind::RelayRefused, map(token).uint(2, reason.number()).finish())
            }
        };
        Frame::new(kind, body)
    }
}

/// Whether frames of this kind are the relay's.
pub fn is_relay(kind: FrameKind) -> bool {
    (FrameKind::RelayOpen as u8..=FrameKind::RelayRefused as u8).contains(&(kind as u8))
}

/// The session a frame names, if it is a relay frame that names one. Cheap: for routing to the right leg.
pub fn token_of(frame: &Frame) -> Option<Token> {
    if !is_relay(frame.kind) || frame.kind == FrameKind::RelayData {
        return None;
    }
    MapReader::parse(&frame.body).ok()?.array(1).ok().map(Token)
}

fn channel(map: &mut MapReader<'_>) -> Result<Channel, DecodeError> {
    let number = map.uint(2)?;
    let channel = Channel::new(number);
    if channel.0 == number { Ok(channel) } else { Err(DecodeError::OutOfBounds(2)) }
}

/// A data datagram (or the body of a `RelayData` frame).
pub fn data(channel: Channel, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(DATA_HEADER_BYTES + packet.len());
    out.push(first_byte::RELAY_DATA);
    out.extend_from_slice(&channel.to_bytes());
    out.extend_from_slice(packet);
    out
}

/// Splits a data datagram into its channel and its packet, which is not empty and not longer than
/// [`crate::limits::PACKET_BYTES_MAX`].
pub fn parse_data(datagram: &[u8]) -> Option<(Channel, &[u8])> {
    let (header, packet) = datagram.split_first_chunk::<DATA_HEADER_BYTES>()?;
    let [first, channel @ ..] = *header;
    (first == first_byte::RELAY_DATA && !packet.is_empty() && packet.len() <= crate::limits::PACKET_BYTES_MAX)
        .then(|| (Channel::from_bytes(channel), packet))
}

/// The four steps of binding an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindingKind {
    /// A leg asks, from the address it wants bound.
    Bind,
    /// The relay asks that address to prove that it receives.
    Challenge,
    /// The leg echoes.
    Confirm,
    /// The address counts.
    Bound,
}

impl BindingKind {
    fn number(self) -> u8 {
        match self {
            BindingKind::Bind => 1,
            BindingKind::Challenge => 2,
            BindingKind::Confirm => 3,
            BindingKind::Bound => 4,
        }
    }

    fn from_number(number: u8) -> Option<BindingKind> {
        match number {
            1 => Some(BindingKind::Bind),
            2 => Some(BindingKind::Challenge),
            3 => Some(BindingKind::Confirm),
            4 => Some(BindingKind::Bound),
            _ => None,
        }
    }
}

/// The key that authenticates a leg's control datagrams.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BindKey([u8; 32]);

impl std::fmt::Debug for BindKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BindKey(…)")
    }
}

impl BindKey {
    /// HMAC-SHA-256(exporter, "yodel/relay-bind/v1\0" ‖ token), `exporter` being the link's keying material.
    pub fn derive(exporter: &[u8; 32], token: Token) -> BindKey {
        BindKey(hmac_sha256(exporter, &[BIND_KEY_CONTEXT, &token.0]))
    }
}

/// A control datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which step.
    pub kind: BindingKind,
    /// Which leg.
    pub channel: Channel,
    /// Rises with each new Bind of a leg; the other three steps repeat it.
    pub sequence: u64,
    /// The relay's challenge; zero in a Bind.
    pub cookie: [u8; 16],
}

impl Binding {
    /// The datagram.
    pub fn encode(&self, key: &BindKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(BINDING_BYTES);
        out.extend_from_slice(&[first_byte::RELAY_CONTROL, first_byte::DATAGRAM_VERSION, self.kind.number()]);
        out.extend_from_slice(&self.channel.to_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.cookie);
        let mac = hmac_sha256(&key.0, &[&out]);
        out.extend_from_slice(mac.first_chunk::<MAC_BYTES>().unwrap_or(&[0; MAC_BYTES]));
        out
    }

    /// Reads a datagram without looking at its mac: the channel tells which key to [`check`](Self::check) with.
    pub fn parse(datagram: &[u8]) -> Option<Binding> {
        let datagram: &[u8; BINDING_BYTES] = datagram.try_into().ok()?;
        let (head, rest) = datagram.split_first_chunk::<3>()?;
        let [first, version, kind] = *head;
        if first != first_byte::RELAY_CONTROL || version != first_byte::DATAGRAM_VERSION {
            return None;
        }
        let (channel, rest) = rest.split_first_chunk::<7>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (cookie, _mac) = rest.split_first_chunk::<16>()?;
        Some(Binding {
            kind: BindingKind::from_number(kind)?,
            channel: Channel::from_bytes(*channel),
            sequence: u64::from_be_bytes(*sequence),
            cookie: *cookie,
        })
    }

    /// Whether the datagram's mac is right under `key`; constant time.
    pub fn check(datagram: &[u8], key: &BindKey) -> bool {
        let Some((signed, mac)) = datagram.split_last_chunk::<MAC_BYTES>() else { return false };
        let expected = hmac_sha256(&key.0, &[signed]);
        let Some(expected) = expected.first_chunk::<MAC_BYTES>() else { return false };
        expected.ct_eq(mac).into()
    }
}

pub(crate) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is accepted; the error cannot happen, and an all-zero tag would never verify on both sides.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token([0xaa; 16]);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_frames() {
        let t = "0150aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let cases = [
            (
                Control::Open { token: TOKEN, allow: NodeId([0xbb; 16]) },
                48,
                format!("a2{t}0250bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
            ),
            (Control::Opened { token: TOKEN, channel: Channel::new(0x1234) }, 49, format!("a2{t}02191234")),
            (Control::Join { token: TOKEN }, 50, format!("a1{t}")),
            (Control::Joined { token: TOKEN, channel: Channel::new(7) }, 51, format!("a2{t}0207")),
            (
                Control::State { token: TOKEN, near: LegKind::Udp, far: Some(LegKind::Tcp), draining: true },
                52,
                format!("a4{t}0201030204f5"),
            ),
            (
                Control::State { token: TOKEN, near: LegKind::Tcp, far: None, draining: false },
                52,
                format!("a2{t}0202"),
            ),
            (
                Control::Data { channel: Channel::new(0x01_0203_0405_0607), packet: vec![0x80, 9] },
                53,
                "15010203040506078009".to_owned(),
            ),
            (Control::Close { token: TOKEN, reason: Reason::Finished }, 54, format!("a2{t}0200")),
            (Control::Refused { token: TOKEN, reason: Reason::Quota }, 55, format!("a2{t}0201")),
        ];
        for (control, kind, body) in cases {
            let frame = control.encode();
            assert_eq!((frame.kind as u8, hex(&frame.body)), (kind, body), "{control:?}");
            assert_eq!(Control::decode(&frame), Ok(Some(control)));
        }
    }

    #[test]
    fn golden_binding() {
        let key = BindKey::derive(&[1; 32], TOKEN);
        let binding = Binding {
            kind: BindingKind::Challenge,
            channel: Channel::new(0x01_0203_0405_0607),
            sequence: 9,
            cookie: [0xcc; 16],
        };
        let datagram = binding.encode(&key);
        assert_eq!(
            hex(&datagram),
            "160102010203040506070000000000000009cccccccccccccccccccccccccccccccc3cd0d46a8bfb1f5401dc586961336044"
        );
        assert_eq!(datagram.len(), BINDING_BYTES);
        assert_eq!(Binding::parse(&datagram), Some(binding));
        assert!(Binding::check(&datagram, &key));
        for index in 0..datagram.len() {
            let mut forged = datagram.clone();
            forged[index] ^= 1;
            assert!(!Binding::check(&forged, &key), "byte {index}");
        }
        assert!(!Binding::check(&datagram, &BindKey::derive(&[2; 32], TOKEN)));
        assert!(!Binding::check(&datagram, &BindKey::derive(&[1; 32], Token([0; 16]))));
    }

    #[test]
    fn odd_datagrams_are_none() {
        assert_eq!(Binding::parse(&[22, 1, 1]), None);
        assert_eq!(Binding::parse(&[22; BINDING_BYTES]), None, "another version");
        let mut odd = [0; BINDING_BYTES];
        odd[..3].copy_from_slice(&[22, 1, 5]);
        assert_eq!(Binding::parse(&odd), None, "no such kind");
        assert_eq!(parse_data(&[21, 0, 0, 0, 0, 0, 0, 0]), None, "no packet");
        assert_eq!(parse_data(&[20, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert!(parse_data(&data(Channel::new(1), &[0; crate::limits::PACKET_BYTES_MAX])).is_some());
        assert!(parse_data(&data(Channel::new(1), &[0; crate::limits::PACKET_BYTES_MAX + 1])).is_none());
    }

    #[test]
    fn odd_frames_are_errors() {
        let frame = |kind, body: &[u8]| Control::decode(&Frame::new(kind, body.to_vec()));
        assert_eq!(frame(FrameKind::Ping, &[]), Ok(None));
        assert!(frame(FrameKind::RelayOpen, &[]).is_err());
        assert!(frame(FrameKind::RelayData, &[21, 1]).is_err());
        let body = MapWriter::new().bytes(1, &[0; 16]).uint(2, 1 << 56).finish();
        assert_eq!(frame(FrameKind::RelayOpened, &body), Err(DecodeError::OutOfBounds(2)));
        let body = MapWriter::new().bytes(1, &[0; 16]).uint(2, 99).finish();
        assert_eq!(frame(FrameKind::RelayClose, &body), Err(DecodeError::OutOfBounds(2)));
    }
}
