//! The STUN server of a supernode (RFC 8489 §6.3.1): stateless, answers Binding requests of the public kind alone.
//!
//! It can be made to send to a forged source, so its answers stay small: 1.6 times a bare request, 2.2 times when the
//! asker has an IPv6 address. Nothing is allocated for what is not answered.
//!
//! A probe asks besides whether there is room to attach. Who hears that there is none goes elsewhere before any
//! handshake: the cheapest refusal there is.

use std::net::SocketAddr;
use std::time::Duration;

use crate::candidate::canonical;
use crate::stun::{self, Class};

/// The answer to a datagram from `from`, if it deserves one. Connectivity checks, which carry a user name, are not for a
/// public server and get none, nor does anything with attributes that would have to be understood.
pub fn answer(from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    answer_probe(from, datagram, || Duration::ZERO)
}

/// The same from a supernode that may have no room: a probe is told for how long to stay away, to the second.
pub fn answer_probe(
    from: SocketAddr,
    datagram: &[u8],
    stay_away: impl FnOnce() -> Duration,
) -> Option<Vec<u8>> {
    let peek = stun::peek(datagram)?;
    if peek.class != Class::Request || peek.username.is_some() || peek.unknown_required || from.port() == 0 {
        return None;
    }
    let bytes = stun::binding_answer(peek.transaction, canonical(from))?;
    match peek.room {
        Some(_) => stun::with_room(bytes, u32::try_from(stay_away().as_secs()).unwrap_or(u32::MAX)),
        None => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: [u8; 12] = *b"transaction!";

    #[test]
    fn golden_answer() {
        let request = stun::binding_request(TRANSACTION).unwrap();
        let mut wanted = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        wanted.extend_from_slice(&TRANSACTION);
        assert_eq!(request, wanted);
        let mut wanted = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        wanted.extend_from_slice(&TRANSACTION);
        // 203.0.113.7:5060 under the cookie (RFC 8489 §14.2).
        wanted.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 0x13 ^ 0x21, 0xc4 ^ 0x12]);
        wanted.extend_from_slice(&[203 ^ 0x21, 0x12, 113 ^ 0xa4, 7 ^ 0x42]);
        assert_eq!(answer("203.0.113.7:5060".parse().unwrap(), &request), Some(wanted.clone()));
        assert_eq!(answer("[::ffff:203.0.113.7]:5060".parse().unwrap(), &request), Some(wanted));
    }

    #[test]
    fn golden_probe_and_how_long_to_stay_away() {
        let probe = stun::probe_request(TRANSACTION).unwrap();
        let mut wanted = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
        wanted.extend_from_slice(&TRANSACTION);
        wanted.extend_from_slice(&[0xc5, 0xd0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(probe, wanted);
        for (addr, most) in [("203.0.113.7:5060", 16), ("[2001:db8::7]:5060", 22)] {
            let from = addr.parse().unwrap();
            let answer = answer_probe(from, &probe, || Duration::from_secs(45)).unwrap();
            assert_eq!(stun::peek(&answer).unwrap().room, Some(45));
            assert_eq!(stun::open_unverified(&answer).unwrap().mapped, Some(from), "others skip it");
            assert!(answer.len() * 10 <= probe.len() * most, "{} bytes", answer.len());
        }
        let bare = stun::binding_request(TRANSACTION).unwrap();
        let answer = answer_probe("203.0.113.7:5060".parse().unwrap(), &bare, || Duration::MAX).unwrap();
        assert_eq!((answer.len(), stun::peek(&answer).unwrap().room), (32, None), "who did not ask");
    }

    #[test]
    fn amplification_is_bounded() {
        let request = stun::binding_request(TRANSACTION).unwrap();
        let v4 = answer("203.0.113.7:5060".parse().unwrap(), &request).unwrap();
        let v6 = answer("[2001:db8::7]:5060".parse().unwrap(), &request).unwrap();
        assert!(v4.len() * 10 <= request.len() * 16, "{} bytes", v4.len());
        assert!(v6.len() * 10 <= request.len() * 22, "{} bytes", v6.len());
    }

    #[test]
    fn checks_answers_and_garbage_get_nothing() {
        let from = "203.0.113.7:5060".parse().unwrap();
        let check = stun::Check {
            transaction: TRANSACTION,
            username: "abcd:efgh",
            priority: 1,
            controlling: true,
            tie_breaker: 2,
            use_candidate: true,
        };
        assert_eq!(answer(from, &check.encode("password").unwrap()), None);
        let request = stun::binding_request(TRANSACTION).unwrap();
        assert_eq!(answer(from, &answer(from, &request).unwrap()), None, "an answer is not answered");
        assert_eq!(answer("203.0.113.7:0".parse().unwrap(), &request), None);
        for cut in 0..request.len() {
            assert_eq!(answer(from, &request[..cut]), None, "cut at {cut}");
        }
        // CHANGE-REQUEST (RFC 5780) would have to be understood; we send from where we were asked.
        let mut change = request.clone();
        change[3] = 8;
        change.extend_from_slice(&[0, 3, 0, 4, 0, 0, 0, 6]);
        assert_eq!(answer(from, &change), None);
    }
}
