//! The STUN server of a supernode (RFC 8489 §6.3.1): stateless, answers Binding requests of the public kind alone.
//!
//! It can be made to send to a forged source, so its answers stay small: 1.6 times a bare request, 2.2 times when the
//! asker has an IPv6 address. Nothing is allocated for what is not answered.

use std::net::SocketAddr;

use crate::candidate::canonical;
use crate::stun::{self, Class};

/// The answer to a datagram from `from`, if it deserves one. Connectivity checks, which carry a user name, are not for a
/// public server and get none, nor does anything with attributes that would have to be understood.
pub fn answer(from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    let peek = stun::peek(datagram)?;
    if peek.class != Class::Request || peek.username.is_some() || peek.unknown_required || from.port() == 0 {
        return None;
    }
    stun::binding_answer(peek.transaction, canonical(from))
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
