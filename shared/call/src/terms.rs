//! What both ends tell each other inside a leg, besides that it rings or is answered: the content of offer, 180, answer,
//! ACK and INFO.
//!
//! | key | |
//! |---|---|
//! | 1 | description (offer, 180, answer) or fragment (ACK, INFO), RFC 8866 and RFC 8840 |
//! | 2 | tag shown: what the receiver gave the sender |
//! | 3 | tag given: what admits the receiver at the sender's |
//! | 4 | the sender's homes, 16 bytes each, the one that carries signalling first |
//! | 5 | a sealed media report, when the media path is deaf in one direction |
//! | 6 | of a MESSAGE: its content |

use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};

use crate::contacts::Tag;
use crate::limits::{HOMES_MAX, MESSAGE_BODY_BYTES_MAX, REPORT_BYTES_MAX, SEALED_SDP_BYTES_MAX};

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// A description or fragment; empty when there is none.
    pub sdp: Vec<u8>,
    /// What the receiver gave the sender.
    pub shown: Option<Tag>,
    /// What admits the receiver at the sender's.
    pub given: Option<Tag>,
    /// Where the sender is reached.
    pub homes: Vec<NodeId>,
    /// A sealed media report; empty when there is none.
    pub report: Vec<u8>,
    /// What a MESSAGE says; empty in a call.
    pub message: Vec<u8>,
}

impl Terms {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let some = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
        MapWriter::new()
            .opt_bytes(1, some(&self.sdp).as_deref())
            .opt_bytes(2, self.shown.as_ref().map(|tag| &tag.0[..]))
            .opt_bytes(3, self.given.as_ref().map(|tag| &tag.0[..]))
            .byte_items(4, self.homes.iter().take(HOMES_MAX).map(|home| home.0))
            .opt_bytes(5, some(&self.report).as_deref())
            .opt_bytes(6, some(&self.message).as_deref())
            .finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Terms, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let homes = map
            .items(4, HOMES_MAX)?
            .into_iter()
            .map(|item| item_bytes(item)?.try_into().map(NodeId).map_err(|_| DecodeError::OutOfBounds(4)))
            .collect::<Result<_, _>>()?;
        let terms = Terms {
            sdp: map.opt_bytes(1, SEALED_SDP_BYTES_MAX)?.unwrap_or_default().to_vec(),
            shown: map.opt_array(2)?.map(Tag),
            given: map.opt_array(3)?.map(Tag),
            homes,
            report: map.opt_bytes(5, REPORT_BYTES_MAX)?.unwrap_or_default().to_vec(),
            message: map.opt_bytes(6, MESSAGE_BODY_BYTES_MAX)?.unwrap_or_default().to_vec(),
        };
        map.finish()?;
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_terms() {
        let terms = Terms {
            sdp: b"v=0".to_vec(),
            given: Some(Tag([9; 16])),
            homes: vec![NodeId([1; 16])],
            ..Terms::default()
        };
        let mut bytes = vec![0xa3, 1, 0x43, b'v', b'=', b'0', 3, 0x50];
        bytes.extend([9; 16]);
        bytes.extend([4, 0x81, 0x50]);
        bytes.extend([1; 16]);
        assert_eq!(terms.encode(), bytes);
        assert_eq!(Terms::decode(&bytes), Ok(terms));
        for cut in 0..bytes.len() {
            assert!(Terms::decode(&bytes[..cut]).is_err());
        }
    }
}
