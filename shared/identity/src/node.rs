//! Node ids and owner tags: given by the login server, never chosen, so that nobody can place himself next to a key
//! of his choice (RFC 6940 §13.4).

use std::fmt;
use std::str::FromStr;

use crate::name::AccountName;
use crate::seal::hmac32;

/// Where a node stands in the ring, and what SIP requests are routed by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The id of an owner's node: HMAC-SHA-256 under the realm's secret of `yodel/node/v1`, a zero byte, the tag and
    /// the slot (big-endian), first 16 bytes. A slot is never given twice, so a revoked id never comes back.
    pub fn derive(realm_secret: &[u8; 32], owner: OwnerTag, slot: u32) -> NodeId {
        NodeId(tag(realm_secret, &[b"yodel/node/v1\0", &owner.0, &slot.to_be_bytes()]))
    }

    /// Kademlia's metric: the exclusive or, compared as a number.
    pub fn distance(&self, key: &[u8; 16]) -> u128 {
        u128::from_be_bytes(self.0) ^ u128::from_be_bytes(*key)
    }
}

/// Names the owner of a supernode without naming the account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerTag(pub [u8; 16]);

impl OwnerTag {
    /// The tag of an account: HMAC-SHA-256 under the realm's secret of `yodel/owner/v1`, a zero byte and the name,
    /// first 16 bytes.
    pub fn of_account(realm_secret: &[u8; 32], account: &AccountName) -> OwnerTag {
        OwnerTag(tag(realm_secret, &[b"yodel/owner/v1\0", account.as_str().as_bytes()]))
    }

    /// The tag of an owner without an account, numbered by the login server.
    pub fn of_number(realm_secret: &[u8; 32], number: u64) -> OwnerTag {
        OwnerTag(tag(realm_secret, &[b"yodel/owner-number/v1\0", &number.to_be_bytes()]))
    }
}

fn tag(secret: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    first_16(&hmac32(secret, parts))
}

/// The first half of a digest.
pub(crate) fn first_16(digest: &[u8; 32]) -> [u8; 16] {
    digest.first_chunk().copied().unwrap_or_default()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes of hexadecimal.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    Some(out)
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 32 hexadecimal digits")]
pub struct NotHex;

impl FromStr for NodeId {
    type Err = NotHex;
    fn from_str(text: &str) -> Result<NodeId, NotHex> {
        parse_hex(text).map(NodeId).ok_or(NotHex)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl fmt::Display for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerTag({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let node = NodeId([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(node.to_string(), "0f0102030405060708090a0b0c0d0eff");
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(node.to_string().to_uppercase().parse(), Ok(node));
        for bad in ["", "0f", "0f0102030405060708090a0b0c0d0eff0", "+f0102030405060708090a0b0c0d0eff"] {
            assert_eq!(bad.parse::<NodeId>(), Err(NotHex));
        }
    }

    #[test]
    fn distance_is_exclusive_or() {
        assert_eq!(NodeId([0; 16]).distance(&[0; 16]), 0);
        let mut key = [0; 16];
        key[0] = 0x80;
        assert_eq!(NodeId([0; 16]).distance(&key), 1 << 127);
    }

    #[test]
    fn ids_differ_by_owner_slot_and_realm() {
        let alice = OwnerTag::of_account(&[1; 32], &AccountName::parse("alice").unwrap());
        let bob = OwnerTag::of_account(&[1; 32], &AccountName::parse("bob").unwrap());
        let ids = [
            NodeId::derive(&[1; 32], alice, 0),
            NodeId::derive(&[1; 32], alice, 1),
            NodeId::derive(&[1; 32], bob, 0),
            NodeId::derive(&[2; 32], alice, 0),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
