//! The box around every end-to-end message of a leg: method, status, cause and body, sealed and numbered.
//!
//! ```text
//!   0      1      2                          10
//!   +------+------+--------------------------+------------------------- - -
//!   | 1    | phase| number (BE)              | XChaCha20-Poly1305 of the map
//!   +------+------+--------------------------+------------------------- - -
//! ```
//! Phase 0 is sealed under the leg key (from the INVITE on), phase 1 under the call's own (from the answer on); each
//! direction has a key of its own and counts from 0 in each phase. The nonce is 16 zero bytes and the number; the
//! associated data is `yodel/box/v1`, a zero byte, the ten bytes above and the Call-ID. The map: 1 method, 2 status (0
//! in a request), 3 cause, 4 body, 5 CSeq. What stands in the SIP message around it counts for nothing.
//!
//! Who stole the callee's sealing key can compute the leg's key, not the call's. So once the call has its own, the leg's
//! opens no ACK and no BYE any more, and no INFO after the first box of phase 1: what ends or moves an answered call is
//! the peer's.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cause::Cause;
use crate::limits::BOX_WINDOW;
use crate::timeline::{Method, Refusal};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;
const BODY_BYTES_MAX: usize = 12_288;

/// Which key a box is sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The leg's, known since the INVITE.
    Leg = 0,
    /// The call's, known since the answer.
    Call = 1,
}

/// What a box says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Of the request, also in a response.
    pub method: Method,
    /// SIP status; 0 in a request.
    pub status: u16,
    /// Why, in a final answer, CANCEL or BYE.
    pub cause: Option<Cause>,
    /// Sequence number of the request within the leg.
    pub cseq: u32,
    /// Content; empty when there is none.
    pub body: Vec<u8>,
}

impl Sealed {
    /// A request.
    pub fn request(method: Method, cseq: u32) -> Sealed {
        Sealed { method, status: 0, cause: None, cseq, body: Vec::new() }
    }

    /// An answer to a request.
    pub fn answer(method: Method, cseq: u32, status: u16) -> Sealed {
        Sealed { method, status, cause: None, cseq, body: Vec::new() }
    }

    /// With this cause.
    pub fn because(self, cause: Cause) -> Sealed {
        Sealed { cause: Some(cause), ..self }
    }

    /// With this content.
    pub fn with(self, body: Vec<u8>) -> Sealed {
        Sealed { body, ..self }
    }

    fn encode(&self) -> Vec<u8> {
        let mut map = MapWriter::new()
            .uint(1, self.method as u64)
            .uint(2, u64::from(self.status))
            .uint(5, u64::from(self.cseq));
        if let Some(cause) = self.cause {
            map = map.uint(3, cause as u64);
        }
        map.opt_bytes(4, (!self.body.is_empty()).then_some(&self.body)).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Sealed, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let sealed = Sealed {
            method: Method::from_u8(map.uint_as(1)?).ok_or(DecodeError::OutOfBounds(1))?,
            status: map.uint_as(2)?,
            // A cause of a later version reads as none: the status says what to do.
            cause: map.opt_uint(3)?.and_then(|n| u8::try_from(n).ok()).and_then(Cause::from_u8),
            cseq: map.uint_as(5)?,
            body: map.opt_bytes(4, BODY_BYTES_MAX)?.unwrap_or_default().to_vec(),
        };
        map.finish()?;
        Ok(sealed)
    }
}

/// The keys of both directions of one phase.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PhaseKeys {
    pub(crate) send: [u8; 32],
    pub(crate) receive: [u8; 32],
}

/// Seals and opens the boxes of one leg, at one of its ends.
pub struct Boxes {
    call_id: String,
    leg: Direction,
    call: Option<Direction>,
}

struct Direction {
    keys: PhaseKeys,
    sent: u64,
    window: Window,
}

/// Which numbers were opened: the highest, and the 64 below it as bits.
#[derive(Default)]
struct Window {
    next: u64,
    below: u64,
}

/// What came of a box.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is the peer's.
    Fresh(Sealed),
    /// The key it needs is not there yet: keep it and try again when it is.
    TooEarly,
    /// It is not, or was used before.
    Refused(Refusal),
}

impl Boxes {
    pub(crate) fn new(call_id: &str, keys: PhaseKeys) -> Boxes {
        Boxes { call_id: call_id.to_owned(), leg: Direction::new(keys), call: None }
    }

    /// From now on seals under the call's own key.
    pub fn rekey(&mut self, keys: PhaseKeys) {
        self.call = Some(Direction::new(keys));
    }

    /// Seals under the leg's key, also when there is a newer: finals of INVITE, CANCEL.
    pub fn seal_leg(&mut self, sealed: &Sealed) -> Vec<u8> {
        let call_id = &self.call_id;
        self.leg.seal(Phase::Leg, call_id, sealed)
    }

    /// Seals under the newest key.
    pub fn seal(&mut self, sealed: &Sealed) -> Vec<u8> {
        let call_id = &self.call_id;
        match &mut self.call {
            Some(call) => call.seal(Phase::Call, call_id, sealed),
            None => self.leg.seal(Phase::Leg, call_id, sealed),
        }
    }

    /// Opens what came; `method` and `status` (0 for a request) are what the message around it claims to be.
    pub fn open(&mut self, method: Method, status: u16, bytes: &[u8]) -> Opened {
        let Some((header, sealed)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Opened::Refused(Refusal::Unboxed);
        };
        let [version, phase, number @ ..] = *header;
        if version != VERSION {
            return Opened::Refused(Refusal::Malformed);
        }
        let direction = match (phase, &self.call) {
            (0, _) => &self.leg,
            (1, Some(call)) => call,
            (1, None) => return Opened::TooEarly,
            (_, _) => return Opened::Refused(Refusal::Malformed),
        };
        let number = u64::from_be_bytes(number);
        let nonce = nonce(number);
        let aad = associated(header, &self.call_id);
        let cipher = XChaCha20Poly1305::new((&direction.keys.receive).into());
        let Ok(plain) = cipher.decrypt(&nonce, Payload { msg: sealed, aad: &aad }) else {
            return Opened::Refused(Refusal::Forged);
        };
        let Ok(opened) = Sealed::decode(&plain) else { return Opened::Refused(Refusal::Malformed) };
        if opened.method != method || opened.status != status {
            return Opened::Refused(Refusal::Swapped);
        }
        if phase == Phase::Leg as u8 && self.call.as_ref().is_some_and(|call| call.outdates(method, status)) {
            return Opened::Refused(Refusal::OldKey);
        }
        let window = match &mut self.call {
            Some(call) if phase == Phase::Call as u8 => &mut call.window,
            Some(_) | None => &mut self.leg.window,
        };
        if !window.take(number) {
            return Opened::Refused(Refusal::Replayed);
        }
        Opened::Fresh(opened)
    }
}

impl std::fmt::Debug for Boxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Boxes({}, {} sent)", self.call_id, self.leg.sent)
    }
}

impl Direction {
    fn new(keys: PhaseKeys) -> Direction {
        Direction { keys, sent: 0, window: Window::default() }
    }

    /// Whether this phase has taken the place of the one before for such a message. Answers to INVITE and CANCEL cross
    /// the change of keys, and so does an INFO of a peer that does not know of the answer yet.
    fn outdates(&self, method: Method, status: u16) -> bool {
        match method {
            Method::Ack | Method::Bye => true,
            Method::Info => status == 0 && self.window.next > 0,
            Method::Invite | Method::Cancel | Method::Message => false,
        }
    }

    fn seal(&mut self, phase: Phase, call_id: &str, sealed: &Sealed) -> Vec<u8> {
        let mut out = vec![VERSION, phase as u8];
        out.extend_from_slice(&self.sent.to_be_bytes());
        let aad = associated(&out, call_id);
        let cipher = XChaCha20Poly1305::new((&self.keys.send).into());
        let plain = sealed.encode();
        // Sealing fails only above 256 GiB; an empty box opens nowhere and so moves no state.
        let bytes = cipher.encrypt(&nonce(self.sent), Payload { msg: &plain, aad: &aad }).unwrap_or_default();
        self.sent += 1;
        out.extend_from_slice(&bytes);
        out
    }
}

impl Window {
    fn take(&mut self, number: u64) -> bool {
        if number == u64::MAX {
            return false;
        }
        if number >= self.next {
            let ahead = number - self.next + 1;
            // Bit 0 of `below` is `next - 1`.
            self.below = if ahead >= 64 { 0 } else { self.below << ahead };
            self.below |= 1;
            self.next = number + 1;
            return true;
        }
        let back = self.next - 1 - number;
        if back >= BOX_WINDOW || self.below & (1 << back) != 0 {
            return false;
        }
        self.below |= 1 << back;
        true
    }
}

fn nonce(number: u64) -> XNonce {
    let mut nonce = XNonce::default();
    if let Some(tail) = nonce.last_chunk_mut::<8>() {
        *tail = number.to_be_bytes();
    }
    nonce
}

fn associated(header: &[u8], call_id: &str) -> Vec<u8> {
    [b"yodel/box/v1\0", header, call_id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Boxes, Boxes) {
        let keys = |send: u8, receive: u8| PhaseKeys { send: [send; 32], receive: [receive; 32] };
        (Boxes::new("a@b", keys(1, 2)), Boxes::new("a@b", keys(2, 1)))
    }

    #[test]
    fn what_is_sealed_opens_once_and_as_itself() {
        let (mut caller, mut callee) = pair();
        let ring = Sealed::answer(Method::Invite, 1, 180).with(vec![1, 2]);
        let bytes = callee.seal(&ring);
        assert_eq!(caller.open(Method::Invite, 200, &bytes), Opened::Refused(Refusal::Swapped));
        assert_eq!(caller.open(Method::Bye, 180, &bytes), Opened::Refused(Refusal::Swapped));
        assert_eq!(callee.open(Method::Invite, 180, &bytes), Opened::Refused(Refusal::Forged), "reflected");
        assert_eq!(caller.open(Method::Invite, 180, &bytes), Opened::Fresh(ring));
        assert_eq!(caller.open(Method::Invite, 180, &bytes), Opened::Refused(Refusal::Replayed));
    }

    #[test]
    fn golden_box() {
        let (mut caller, _) = pair();
        let bytes = caller.seal(&Sealed::request(Method::Cancel, 1).because(Cause::PeerNoAnswer));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "01000000000000000000b15093d7406252fb7891ab0e4d749a17359018c072bf935c02");
    }

    #[test]
    fn a_changed_bit_or_another_call_opens_nothing() {
        let (mut caller, mut callee) = pair();
        let bytes = caller.seal(&Sealed::request(Method::Bye, 2).because(Cause::LocalHangup));
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(callee.open(Method::Bye, 0, &forged), Opened::Fresh(_)), "bit {bit}");
        }
        let keys = PhaseKeys { send: [2; 32], receive: [1; 32] };
        let mut other = Boxes::new("a@c", keys);
        assert_eq!(other.open(Method::Bye, 0, &bytes), Opened::Refused(Refusal::Forged));
        assert_eq!(callee.open(Method::Bye, 0, &[]), Opened::Refused(Refusal::Unboxed));
    }

    #[test]
    fn the_call_key_is_waited_for() {
        let (mut caller, mut callee) = pair();
        caller.rekey(PhaseKeys { send: [3; 32], receive: [4; 32] });
        let ack = caller.seal(&Sealed::request(Method::Ack, 1));
        assert_eq!(callee.open(Method::Ack, 0, &ack), Opened::TooEarly);
        callee.rekey(PhaseKeys { send: [4; 32], receive: [3; 32] });
        assert!(matches!(callee.open(Method::Ack, 0, &ack), Opened::Fresh(_)));
        let cancel = caller.seal_leg(&Sealed::request(Method::Cancel, 1));
        assert!(matches!(callee.open(Method::Cancel, 0, &cancel), Opened::Fresh(_)));
    }

    #[test]
    fn the_legs_key_ends_no_call_that_has_its_own() {
        let (mut caller, mut callee) = pair();
        let late: Vec<_> = [Method::Ack, Method::Bye, Method::Info, Method::Info, Method::Cancel]
            .map(|method| (method, caller.seal_leg(&Sealed::request(method, 2))))
            .into();
        caller.rekey(PhaseKeys { send: [3; 32], receive: [4; 32] });
        callee.rekey(PhaseKeys { send: [4; 32], receive: [3; 32] });
        let ack = caller.seal(&Sealed::request(Method::Ack, 1));
        let mut opened = late.iter().map(|(method, bytes)| callee.open(*method, 0, bytes));
        assert_eq!(opened.next(), Some(Opened::Refused(Refusal::OldKey)), "ACK");
        assert_eq!(opened.next(), Some(Opened::Refused(Refusal::OldKey)), "BYE");
        assert!(matches!(opened.next(), Some(Opened::Fresh(_))), "an INFO that crossed the answer");
        drop(opened);
        assert!(matches!(callee.open(Method::Ack, 0, &ack), Opened::Fresh(_)));
        let mut opened = late.iter().skip(3).map(|(method, bytes)| callee.open(*method, 0, bytes));
        assert_eq!(opened.next(), Some(Opened::Refused(Refusal::OldKey)), "INFO after ACK");
        assert!(matches!(opened.next(), Some(Opened::Fresh(_))), "CANCEL");
        drop(opened);
        let final_answer = callee.seal_leg(&Sealed::answer(Method::Invite, 1, 200));
        assert!(matches!(caller.open(Method::Invite, 200, &final_answer), Opened::Fresh(_)), "200");
    }

    #[test]
    fn numbers_count_once_in_any_order_within_the_window() {
        let mut window = Window::default();
        for number in [5, 3, 4, 0, 68, 7, 67, 6] {
            assert!(window.take(number), "{number}");
            assert!(!window.take(number), "{number} again");
        }
        let mut window = Window::default();
        assert!(window.take(100) && window.take(99) && window.take(37));
        assert!(!window.take(36), "below the window");
        assert!(!window.take(100) && !window.take(99) && !window.take(37));
        assert!(window.take(1_000) && !window.take(100) && window.take(999));
        assert!(!window.take(u64::MAX), "would never end");
    }
}
