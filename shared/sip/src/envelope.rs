//! What carries a SIP message between devices and their homes: the bodies of frames `SipSend`, `SipForward`,
//! `SipDeliver` (an [`Envelope`]) and `SipReturn` (a [`Return`]).
//!
//! ```text
//! device --SipSend--> its home --SipForward--> the peer's home --SipDeliver--> device
//!        <-SipReturn-          <-SipReturn----
//! ```
//! Each is a canonical CBOR map. The message travels as bytes that no home rewrites. Which home carried a message is
//! said by who sends the frame: a home fills in `from` and `from_home` itself and believes nobody else about them.
//!
//! | key | Envelope | Return |
//! |---|---|---|
//! | 1 | to: node id, 16 bytes | id of the envelope |
//! | 2 | to_home: node id, left out when `to` is reached at the sender's own home | reason |
//! | 3 | from: node id | newest contact entry of the device, left out when there is none |
//! | 4 | from_home: node id | node id of the home that answers |
//! | 5 | message, 1..=12,288 bytes | |
//! | 6 | id, the sender's number for it | |
//! | 7 | true when the home made the message itself | |

use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};

use crate::limits::{CONTACT_ENTRY_BYTES_MAX, MESSAGE_BYTES_MAX};

/// A SIP message on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The device it is for.
    pub to: NodeId,
    /// The home of that device that shall deliver it; `None`: the home this is sent to.
    pub to_home: Option<NodeId>,
    /// The device it is from.
    pub from: NodeId,
    /// The home it went out by, where answers can come back.
    pub from_home: NodeId,
    /// The message, not parsed.
    pub message: Vec<u8>,
    /// Names it in a [`Return`]; unique per link and sender.
    pub id: u64,
    /// Made by a home, not by the peer: a 100, 408, 480 or 503 of its own. Moves no end-to-end state.
    pub by_home: bool,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("bytes", &self.message.len())
            .field("by_home", &self.by_home)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// The body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new()
            .bytes(1, &self.to.0)
            .opt_bytes(2, self.to_home.as_ref().map(|node| node.0.as_slice()))
            .bytes(3, &self.from.0)
            .bytes(4, &self.from_home.0)
            .bytes(5, &self.message)
            .uint(6, self.id);
        if self.by_home {
            map = map.bool(7, true);
        }
        map.finish()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// Any [`DecodeError`]; an empty message is out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Envelope, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let envelope = Envelope {
            to: NodeId(map.array(1)?),
            to_home: map.opt_array(2)?.map(NodeId),
            from: NodeId(map.array(3)?),
            from_home: NodeId(map.array(4)?),
            message: map.bytes(5, MESSAGE_BYTES_MAX)?.to_vec(),
            id: map.uint(6)?,
            by_home: map.opt_bool(7)?.unwrap_or(false),
        };
        map.finish()?;
        if envelope.message.is_empty() {
            return Err(DecodeError::OutOfBounds(5));
        }
        Ok(envelope)
    }
}

/// Why an envelope could not be delivered. Numbers are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReturnReason {
    /// The device is not attached to the home that was named.
    NotAttached,
    /// It was handed to the device, which did not acknowledge it for [`crate::limits::UNDELIVERED`].
    Undelivered,
    /// The home that was named is not linked with this one.
    NoRoute,
    /// Too many, for now.
    RateLimited,
}

impl ReturnReason {
    fn number(self) -> u64 {
        match self {
            ReturnReason::NotAttached => 1,
            ReturnReason::Undelivered => 2,
            ReturnReason::NoRoute => 3,
            ReturnReason::RateLimited => 4,
        }
    }

    fn from_number(number: u64) -> Option<ReturnReason> {
        match number {
            1 => Some(ReturnReason::NotAttached),
            2 => Some(ReturnReason::Undelivered),
            3 => Some(ReturnReason::NoRoute),
            4 => Some(ReturnReason::RateLimited),
            _ => None,
        }
    }
}

/// An envelope that comes back. Always a home's word, never the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// [`Envelope::id`] of what was not delivered.
    pub id: u64,
    /// Why.
    pub reason: ReturnReason,
    /// The newest contact entry this home knows of the device, as signed, at most 300 bytes.
    pub newest_entry: Option<Vec<u8>>,
    /// The home that says so.
    pub home: NodeId,
}

impl Return {
    /// The body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, self.id)
            .uint(2, self.reason.number())
            .opt_bytes(3, self.newest_entry.as_deref())
            .bytes(4, &self.home.0)
            .finish()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Return, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let returned = Return {
            id: map.uint(1)?,
            reason: ReturnReason::from_number(map.uint(2)?).ok_or(DecodeError::OutOfBounds(2))?,
            newest_entry: map.opt_bytes(3, CONTACT_ENTRY_BYTES_MAX)?.map(<[u8]>::to_vec),
            home: NodeId(map.array(4)?),
        };
        map.finish()?;
        Ok(returned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            to: NodeId([1; 16]),
            to_home: Some(NodeId([2; 16])),
            from: NodeId([3; 16]),
            from_home: NodeId([4; 16]),
            message: b"SIP".to_vec(),
            id: 500,
            by_home: false,
        }
    }

    #[test]
    fn golden_envelope() {
        let mut expected = vec![0xa6];
        for (key, byte) in [(1u8, 1u8), (2, 2), (3, 3), (4, 4)] {
            expected.extend([key, 0x50]);
            expected.extend([byte; 16]);
        }
        expected.extend([5, 0x43, b'S', b'I', b'P', 6, 0x19, 1, 0xf4]);
        assert_eq!(envelope().encode(), expected);
        assert_eq!(Envelope::decode(&expected), Ok(envelope()));
    }

    #[test]
    fn a_homes_own_message_is_marked() {
        let own = Envelope { by_home: true, to_home: None, ..envelope() };
        let bytes = own.encode();
        assert_eq!(&bytes[bytes.len() - 2..], [7, 0xf5]);
        assert_eq!(Envelope::decode(&bytes), Ok(own));
    }

    #[test]
    fn golden_return() {
        let returned = Return {
            id: 7,
            reason: ReturnReason::Undelivered,
            newest_entry: Some(vec![9, 9]),
            home: NodeId([4; 16]),
        };
        let mut expected = vec![0xa4, 1, 7, 2, 2, 3, 0x42, 9, 9, 4, 0x50];
        expected.extend([4; 16]);
        assert_eq!(returned.encode(), expected);
        assert_eq!(Return::decode(&expected), Ok(returned));
        expected[4] = 5;
        assert_eq!(Return::decode(&expected), Err(DecodeError::OutOfBounds(2)));
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let longest = Envelope { message: vec![0; MESSAGE_BYTES_MAX], ..envelope() };
        assert_eq!(Envelope::decode(&longest.encode()), Ok(longest));
        let longer = Envelope { message: vec![0; MESSAGE_BYTES_MAX + 1], ..envelope() };
        assert_eq!(Envelope::decode(&longer.encode()), Err(DecodeError::OutOfBounds(5)));
        let empty = Envelope { message: Vec::new(), ..envelope() };
        assert_eq!(Envelope::decode(&empty.encode()), Err(DecodeError::OutOfBounds(5)));
        let entry = |n| Return {
            id: 1,
            reason: ReturnReason::NoRoute,
            newest_entry: Some(vec![0; n]),
            home: NodeId([0; 16]),
        };
        assert!(Return::decode(&entry(CONTACT_ENTRY_BYTES_MAX).encode()).is_ok());
        assert!(Return::decode(&entry(CONTACT_ENTRY_BYTES_MAX + 1).encode()).is_err());
    }

    #[test]
    fn cut_anywhere_is_an_error() {
        let bytes = envelope().encode();
        for cut in 0..bytes.len() {
            assert!(Envelope::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
