//! Frames: what links carry, the same over QUIC and over TLS.
//!
//! ```text
//!   0        1        2                 4
//!   +--------+--------+--------+--------+----------- - -
//!   | kind   | version| length (BE)     | body, 0..=16,384 bytes
//!   +--------+--------+--------+--------+----------- - -
//! ```
//! A kind below 128 that a reader does not know ends the link; from 128 on it is skipped. The body is decoded by the
//! room whose subject it is.

use crate::limits::FRAME_BODY_BYTES_MAX;

/// Bytes in front of every body.
pub const FRAME_HEADER_BYTES: usize = 4;

/// The version this program writes.
pub const FRAME_VERSION: u8 = 1;

/// One message on a link.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Content, at most [`FRAME_BODY_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({:?}, {} bytes)", self.kind, self.body.len())
    }
}

/// Why bytes are not a frame. The link they came on is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field claims more than any frame has.
    #[error("frame of {0} bytes is longer than any frame may be")]
    TooLong(usize),
    /// A version this program does not speak.
    #[error("frame version {0} is not spoken here")]
    Version(u8),
    /// A kind below 128 that is not in the table.
    #[error("frame kind {0} is unknown and may not be skipped")]
    Kind(u8),
}

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// The table of frame kinds. Numbers are final.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FrameKind { $($(#[$doc])* $name = $value,)* }

        impl FrameKind {
            /// All kinds, in order of their numbers.
            pub const ALL: &'static [FrameKind] = &[$(FrameKind::$name,)*];

            /// The kind with this number.
            pub fn from_u8(value: u8) -> Option<FrameKind> {
                match value { $($value => Some(FrameKind::$name),)* _ => None }
            }
        }
    };
}

frame_kinds! {
    // Links: `overlay/src/attach.rs`.
    /// First frame of a link, from who opened it: its credential.
    Hello = 1,
    /// The answer: attached.
    Welcome = 2,
    /// The answer: not now, or not here.
    Refuse = 3,
    /// Are you there?
    Ping = 4,
    /// I am, and this is where I see you.
    Pong = 5,
    /// This link is about to end, with where to go.
    Goodbye = 6,
    // The bulletin: `identity/src/bulletin.rs`.
    /// Send the bulletin once it is newer than the epoch named here.
    BulletinWanted = 8,
    /// A signed bulletin.
    Bulletin = 9,
    /// A signed page of the revoked set.
    RevokedPage = 10,
    // Records: `overlay/src/record.rs`.
    /// Keep this record.
    Write = 16,
    /// Kept, or why not.
    Written = 17,
    /// Send what you hold under this key.
    Read = 18,
    /// What is held.
    Answer = 19,
    // Members: `overlay/src/card.rs`.
    /// Send the cards of these members, or of some.
    CardsWanted = 20,
    /// Cards of members.
    Cards = 21,
    // Signalling: `sip/src/envelope.rs`.
    /// A device asks its home to carry a SIP message.
    SipSend = 32,
    /// A home hands it to the peer's home.
    SipForward = 33,
    /// A home hands it to a device attached to it.
    SipDeliver = 34,
    /// It could not be delivered, with why.
    SipReturn = 35,
    // Relay: `relay/src/control.rs`.
    /// Open a session.
    RelayOpen = 48,
    /// It is open.
    RelayOpened = 49,
    /// Join the session with this token.
    RelayJoin = 50,
    /// Joined.
    RelayJoined = 51,
    /// How the two legs stand.
    RelayState = 52,
    /// A packet for the other end, over the link.
    RelayData = 53,
    /// End the session.
    RelayClose = 54,
    /// Not granted, with why.
    RelayRefused = 55,
    // The login server: `identity/src/login.rs`.
    /// The realm's statement under its root key, and the server's time.
    LoginHello = 64,
    /// OPAQUE registration, first message (RFC 9807 §5).
    RegisterStart = 65,
    /// OPAQUE registration, answer.
    RegisterResponse = 66,
    /// OPAQUE registration, record, with the keys of the first device.
    RegisterFinish = 67,
    /// OPAQUE login, KE1 (RFC 9807 §6).
    LoginStart = 68,
    /// OPAQUE login, KE2.
    LoginResponse = 69,
    /// OPAQUE login, KE3, with the keys of the further device.
    LoginFinish = 70,
    /// A credential was issued to a device.
    Enrolled = 71,
    /// A device asks for its next credential.
    Renew = 72,
    /// A supernode asks for its credential.
    SupernodeEnrol = 73,
    /// A credential was issued to a supernode.
    SupernodeEnrolled = 74,
    /// A supernode serves, or leaves.
    SupernodeState = 75,
    /// The request was refused, with why.
    LoginRefused = 76,
    /// A further device's account record, for the devices' list.
    AccountRecord = 77,
    /// The account record is kept.
    AccountRecordKept = 78,
}

impl Frame {
    /// A frame of this kind. Bodies above the limit cannot be encoded; `encode` refuses them.
    pub fn new(kind: FrameKind, body: Vec<u8>) -> Frame {
        Frame { kind, body }
    }

    /// Appends header and body to `out`.
    ///
    /// # Errors
    /// `TooLong` when the body exceeds [`FRAME_BODY_BYTES_MAX`]; `out` is untouched then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let too_long = FrameError::TooLong(self.body.len());
        if self.body.len() > FRAME_BODY_BYTES_MAX {
            return Err(too_long);
        }
        let length = u16::try_from(self.body.len()).map_err(|_| too_long)?;
        out.extend_from_slice(&[self.kind as u8, FRAME_VERSION]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

/// Cuts frames out of a byte stream. Feed bytes with [`push`](Self::push), then call [`poll`](Self::poll) until it
/// returns `Ok(None)`. Holds at most one frame and what the last `push` brought. After an error it stays in error.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    consumed: usize,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// Any [`FrameError`]: the link must be closed.
    pub fn poll(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.poll_inner();
        if let Err(error) = result {
            self.failed = Some(error);
            self.buffer = Vec::new();
            self.consumed = 0;
        }
        result
    }

    fn poll_inner(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let unread = self.buffer.get(self.consumed..).unwrap_or_default();
            if unread.is_empty() {
                // A supernode has thousands of links, and most of them are silent.
                self.buffer = Vec::new();
                self.consumed = 0;
                return Ok(None);
            }
            let Some((&[kind, version, hi, lo], rest)) = unread.split_first_chunk::<FRAME_HEADER_BYTES>()
            else {
                return Ok(None);
            };
            let length = usize::from(u16::from_be_bytes([hi, lo]));
            if version != FRAME_VERSION {
                return Err(FrameError::Version(version));
            }
            if length > FRAME_BODY_BYTES_MAX {
                return Err(FrameError::TooLong(length));
            }
            let known = FrameKind::from_u8(kind);
            if known.is_none() && kind < 128 {
                return Err(FrameError::Kind(kind));
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let frame = known.map(|kind| Frame::new(kind, body.to_vec()));
            self.consumed += FRAME_HEADER_BYTES + length;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn golden_ping() {
        assert_eq!(bytes_of(&Frame::new(FrameKind::Ping, vec![0xa1, 1, 2])), [4, 1, 0, 3, 0xa1, 1, 2]);
    }

    #[test]
    fn byte_by_byte_equals_at_once() {
        let frames: Vec<Frame> =
            FrameKind::ALL.iter().map(|kind| Frame::new(*kind, vec![*kind as u8; *kind as usize])).collect();
        let stream: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        let mut decoder = FrameDecoder::new();
        let mut seen = Vec::new();
        for byte in stream {
            decoder.push(&[byte]);
            while let Some(frame) = decoder.poll().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn longest_body_passes_and_one_more_is_refused() {
        let mut out = Vec::new();
        assert!(Frame::new(FrameKind::Write, vec![0; FRAME_BODY_BYTES_MAX]).encode(&mut out).is_ok());
        let mut decoder = FrameDecoder::new();
        decoder.push(&out);
        assert_eq!(decoder.poll().unwrap().unwrap().body.len(), FRAME_BODY_BYTES_MAX);

        let longer = FRAME_BODY_BYTES_MAX + 1;
        assert_eq!(
            Frame::new(FrameKind::Write, vec![0; longer]).encode(&mut Vec::new()),
            Err(FrameError::TooLong(longer))
        );
        let mut decoder = FrameDecoder::new();
        decoder.push(&[16, 1, 0x40, 0x01]);
        assert_eq!(decoder.poll(), Err(FrameError::TooLong(longer)));
        decoder.push(&[4, 1, 0, 0]);
        assert_eq!(decoder.poll(), Err(FrameError::TooLong(longer)), "an error is final");
    }

    #[test]
    fn unknown_kinds_are_refused_below_128_and_skipped_above() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[200, 1, 0, 2, 9, 9, 4, 1, 0, 0]);
        assert_eq!(decoder.poll().unwrap(), Some(Frame::new(FrameKind::Ping, vec![])));
        decoder.push(&[127, 1, 0, 0]);
        assert_eq!(decoder.poll(), Err(FrameError::Kind(127)));
    }
}
