//! STUN messages (RFC 8489) for Binding and connectivity checks: the only file that names the library.
//!
//! A message that anybody could have sent passes three gates, cheapest first: [`peek`] walks header and attributes
//! without allocating; [`open`] compares MESSAGE-INTEGRITY over the raw bytes in constant time (the library compares
//! with `==`); only then does the library parse it.

use std::net::SocketAddr;

use ring::hmac;
use stun_rs::attributes::ice::{IceControlled, IceControlling, Priority, UseCandidate};
use stun_rs::attributes::stun::{Fingerprint, MessageIntegrity, UserName, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{
    HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage, StunMessageBuilder,
    TransactionId,
};
use subtle::ConstantTimeEq;

use crate::candidate::canonical;
use crate::limits::{STUN_BYTES_MAX, USERNAME_BYTES_MAX};

const HEADER_BYTES: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const FINGERPRINT: u16 = 0x8028;
/// Our own, of the range whose unknown ones are skipped (RFC 8489 §18.3): four bytes, seconds to stay away.
const ROOM: u16 = 0xc5d0;
/// XOR-MAPPED-ADDRESS, PRIORITY, USE-CANDIDATE: with the two above, the comprehension-required attributes we know.
const UNDERSTOOD: [u16; 5] = [USERNAME, MESSAGE_INTEGRITY, 0x0020, 0x0024, 0x0025];

/// Names one request and its answer.
pub type Transaction = [u8; 12];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Wants none.
    Indication,
    /// The answer.
    Success,
    /// Refusal.
    Error,
}

/// What can be said of a message before anything is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek<'b> {
    /// What it is. Methods other than Binding do not pass.
    pub class: Class,
    /// Which request it is or answers.
    pub transaction: Transaction,
    /// Whom it claims to be for and from.
    pub username: Option<&'b str>,
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: Option<usize>,
    /// Whether it holds comprehension-required attributes (RFC 8489 §14) nobody here understands.
    pub unknown_required: bool,
    /// What its ROOM says: in a probe nothing, in the answer for how many seconds there is none.
    pub room: Option<u32>,
    /// Whether it ends with a correct FINGERPRINT, as every check and its answer must (RFC 8445 §7).
    pub fingerprint: bool,
}

/// Looks at a datagram without allocating. `None` unless it is one whole, well-formed Binding message with a correct
/// FINGERPRINT, if it has one.
pub fn peek(bytes: &[u8]) -> Option<Peek<'_>> {
    if bytes.len() > STUN_BYTES_MAX {
        return None;
    }
    let (header, attributes) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if [c0, c1, c2, c3] != MAGIC_COOKIE || length != attributes.len() || length % 4 != 0 {
        return None;
    }
    let class = match u16::from_be_bytes([t0, t1]) {
        0x0001 => Class::Request,
        0x0011 => Class::Indication,
        0x0101 => Class::Success,
        0x0111 => Class::Error,
        _ => return None,
    };
    let mut peek = Peek {
        class,
        transaction,
        username: None,
        integrity_at: None,
        unknown_required: false,
        room: None,
        fingerprint: false,
    };
    let mut rest = attributes;
    while let Some((&[k0, k1, n0, n1], after)) = rest.split_first_chunk::<4>() {
        let at = bytes.len() - rest.len();
        let kind = u16::from_be_bytes([k0, k1]);
        let size = usize::from(u16::from_be_bytes([n0, n1]));
        let value = after.get(..size)?;
        rest = after.get(size.next_multiple_of(4)..)?;
        match kind {
            FINGERPRINT => {
                let crc: [u8; 4] = value.try_into().ok()?;
                // Always the last attribute (RFC 8489 §14.7), so that it covers everything.
                if !rest.is_empty() || u32::from_be_bytes(crc) != fingerprint(bytes.get(..at)?) {
                    return None;
                }
                peek.fingerprint = true;
            }
            // Nothing but FINGERPRINT counts after MESSAGE-INTEGRITY (RFC 8489 §14.5).
            _ if peek.integrity_at.is_some() => {}
            MESSAGE_INTEGRITY if size == 20 => peek.integrity_at = Some(at),
            MESSAGE_INTEGRITY => return None,
            USERNAME if peek.username.is_none() && size <= USERNAME_BYTES_MAX => {
                peek.username = Some(std::str::from_utf8(value).ok()?);
            }
            USERNAME => return None,
            ROOM => peek.room = value.try_into().ok().map(u32::from_be_bytes),
            _ => peek.unknown_required |= kind < 0x8000 && !UNDERSTOOD.contains(&kind),
        }
    }
    // A tail of one to three bytes cannot be: the length is a multiple of four, and so is every step.
    rest.is_empty().then_some(peek)
}

/// Whether MESSAGE-INTEGRITY was made with this password; false when there is none.
pub fn integrity_holds(bytes: &[u8], peek: &Peek<'_>, password: &str) -> bool {
    let verified = || {
        let at = peek.integrity_at?;
        let covered = bytes.get(..at)?;
        let claimed = bytes.get(at + 4..at + 24)?;
        let (start, rest) = covered.split_first_chunk::<4>()?;
        let [t0, t1, _, _] = *start;
        // The length as it was when the tag was computed: up to the end of the tag (RFC 8489 §14.5).
        let length = u16::try_from(at + 24 - HEADER_BYTES).ok()?.to_be_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(&[t0, t1]);
        context.update(&length);
        context.update(rest);
        Some(bool::from(context.sign().as_ref().ct_eq(claimed)))
    };
    verified().unwrap_or(false)
}

/// What an authentic message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// XOR-MAPPED-ADDRESS: where the answerer saw us.
    pub mapped: Option<SocketAddr>,
    /// PRIORITY: what the sender's candidate would be worth if we only now learn of it.
    pub priority: Option<u32>,
    /// USE-CANDIDATE: the sender uses this route.
    pub use_candidate: bool,
    /// ICE-CONTROLLING was present.
    pub controlling: bool,
}

/// Verifies with `password`, then parses. `None` when either fails.
pub fn open(bytes: &[u8], peek: &Peek<'_>, password: &str) -> Option<Content> {
    integrity_holds(bytes, peek, password).then(|| parse(bytes)).flatten()
}

/// Parses a message that proves nothing but its transaction: the answer of a public STUN server.
pub fn open_unverified(bytes: &[u8]) -> Option<Content> {
    parse(bytes)
}

fn parse(bytes: &[u8]) -> Option<Content> {
    let (message, _) = MessageDecoderBuilder::default().build().decode(bytes).ok()?;
    let mapped = match message.get::<XorMappedAddress>() {
        Some(attribute) => Some(canonical(*attribute.as_xor_mapped_address().ok()?.socket_address())),
        None => None,
    };
    let priority = match message.get::<Priority>() {
        Some(attribute) => Some(*attribute.as_priority().ok()?.as_ref()),
        None => None,
    };
    Some(Content {
        mapped,
        priority,
        use_candidate: message.get::<UseCandidate>().is_some(),
        controlling: message.get::<IceControlling>().is_some(),
    })
}

/// A connectivity check (RFC 8445 §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check<'a> {
    /// Its name.
    pub transaction: Transaction,
    /// `peer's fragment:own fragment`.
    pub username: &'a str,
    /// What our candidate would be worth to a peer that only now learns of it.
    pub priority: u32,
    /// Whether we are the controlling end.
    pub controlling: bool,
    /// Written, never looked at: roles are fixed by who called, under the signatures of offer and answer.
    pub tie_breaker: u64,
    /// We use this route.
    pub use_candidate: bool,
}

impl Check<'_> {
    /// The bytes, under the peer's password. `None` when user name or password cannot be written (RFC 8265).
    pub fn encode(&self, password: &str) -> Option<Vec<u8>> {
        let mut builder = StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(TransactionId::from(self.transaction))
            .with_attribute(UserName::new(self.username).ok()?)
            .with_attribute(Priority::from(self.priority));
        builder = if self.controlling {
            builder.with_attribute(IceControlling::from(self.tie_breaker))
        } else {
            builder.with_attribute(IceControlled::from(self.tie_breaker))
        };
        if self.use_candidate {
            builder = builder.with_attribute(UseCandidate::default());
        }
        seal(builder, password)
    }
}

/// The answer to a check, saying where it came from, under our own password.
pub fn check_answer(transaction: Transaction, from: SocketAddr, password: &str) -> Option<Vec<u8>> {
    let builder = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
        .with_transaction_id(TransactionId::from(transaction))
        .with_attribute(XorMappedAddress::from(canonical(from)));
    seal(builder, password)
}

/// A bare Binding request: 20 bytes.
pub fn binding_request(transaction: Transaction) -> Option<Vec<u8>> {
    write(
        &StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(TransactionId::from(transaction))
            .build(),
    )
}

/// A Binding request that also asks whether there is room to attach: 28 bytes. Who does not know ROOM skips it.
pub fn probe_request(transaction: Transaction) -> Option<Vec<u8>> {
    binding_request(transaction).and_then(|bytes| with_room(bytes, 0))
}

/// Adds how many seconds to stay away, 0 when there is room, to a message that ends without MESSAGE-INTEGRITY.
pub(crate) fn with_room(mut bytes: Vec<u8>, seconds: u32) -> Option<Vec<u8>> {
    let length = bytes.len().checked_sub(HEADER_BYTES)?.checked_add(8)?;
    let length = u16::try_from(length).ok()?.to_be_bytes();
    bytes.get_mut(2..4)?.copy_from_slice(&length);
    bytes.extend_from_slice(&ROOM.to_be_bytes());
    bytes.extend_from_slice(&4_u16.to_be_bytes());
    bytes.extend_from_slice(&seconds.to_be_bytes());
    Some(bytes)
}

/// The bare answer: 32 bytes, 44 for an IPv6 address.
pub fn binding_answer(transaction: Transaction, from: SocketAddr) -> Option<Vec<u8>> {
    write(
        &StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(TransactionId::from(transaction))
            .with_attribute(XorMappedAddress::from(canonical(from)))
            .build(),
    )
}

fn seal(builder: StunMessageBuilder, password: &str) -> Option<Vec<u8>> {
    let key = HMACKey::new_short_term(password).ok()?;
    write(&builder.with_attribute(MessageIntegrity::new(key)).with_attribute(Fingerprint::default()).build())
}

fn write(message: &StunMessage) -> Option<Vec<u8>> {
    let mut bytes = vec![0; STUN_BYTES_MAX];
    let size = MessageEncoderBuilder::default().build().encode(&mut bytes, message).ok()?;
    bytes.truncate(size);
    Some(bytes)
}

/// RFC 8489 §14.7 over the message up to the attribute, whose length field already counts the attribute.
fn fingerprint(covered: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in covered {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc ^ 0x5354_554e
}

#[cfg(test)]
mod tests;
