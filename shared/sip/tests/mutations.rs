//! Damaged messages: whatever comes, nothing panics, and what is taken is taken the same after it was written back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which may fail loudly"
)]

use std::path::Path;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_sip::message::{Message, Response};
use yodel_sip::method::Status;
use yodel_sip::sdp::{Description, Fragment};

fn seeds() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for rfc in ["rfc4475", "rfc5118"] {
        let mut paths: Vec<_> =
            std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(rfc))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
        paths.sort();
        out.extend(paths.into_iter().map(|path| std::fs::read(path).unwrap()));
    }
    out
}

/// One to eight changes: a byte flipped, cut, repeated, or replaced by one that means something.
fn damaged(rng: &mut ChaCha20Rng, seed: &[u8]) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n \t:;,<>\"@?=[]\\%\0/\xff";
    let mut bytes = seed.to_vec();
    for _ in 0..=rng.next_u32() % 8 {
        if bytes.is_empty() {
            break;
        }
        let at = rng.next_u32() as usize % bytes.len();
        let length = (rng.next_u32() as usize % 40).min(bytes.len() - at);
        match rng.next_u32() % 5 {
            0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
            1 => bytes[at] = TELLING[rng.next_u32() as usize % TELLING.len()],
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes.insert(at, TELLING[rng.next_u32() as usize % TELLING.len()]),
        }
    }
    bytes
}

#[test]
fn damaged_messages_never_panic_and_read_back_the_same() {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let mut taken = 0;
    for seed in seeds() {
        for _ in 0..300 {
            let bytes = damaged(&mut rng, &seed);
            let Ok(message) = Message::frame(&bytes) else { continue };
            let again = Message::frame(&message.encode()).unwrap_or_else(|error| {
                panic!(
                    "{error}:\n{}\n--\n{}",
                    String::from_utf8_lossy(&bytes),
                    String::from_utf8_lossy(&message.encode())
                )
            });
            assert_eq!(again, message, "{}", String::from_utf8_lossy(&bytes));
            if message.check().is_ok() {
                taken += 1;
                touch(&message);
            }
        }
    }
    assert!(taken > 500, "only {taken} were taken");
}

/// Everything the user asks of a message, and what is made of it.
fn touch(message: &Message) {
    match message {
        Message::Request(request) => {
            let _ = (request.contact(), request.content_type(), request.branch(), request.in_dialog());
            assert!(request.cseq().is_some() && request.from().is_some() && !request.call_id().is_empty());
            for status in [Status::TRYING, Status::OK] {
                let answer = Response::to(request, status, Some("t"));
                assert!(
                    Message::parse(&answer.encode()).is_ok(),
                    "{}",
                    String::from_utf8_lossy(&answer.encode())
                );
            }
            let cancel = request.cancel();
            assert!(
                Message::parse(&cancel.encode()).is_ok(),
                "{}",
                String::from_utf8_lossy(&cancel.encode())
            );
        }
        Message::Response(response) => {
            let _ = (response.contact(), response.content_type(), response.branch(), response.to_tag());
        }
    }
}

#[test]
fn damaged_descriptions_never_panic_and_read_back_the_same() {
    const SEED: &[u8] = b"v=0\r\no=- 4711 3 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/YODEL 111\r\n\
        a=rtpmap:111 opus/48000/2\r\na=sendonly\r\na=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
        a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host\r\n\
        a=candidate:2 1 udp 1694498815 2001:db8::9 4001 typ srflx\r\na=end-of-candidates\r\n\
        a=yodel-relay:abababababababababababababababab 01010101010101010101010101010101 \
        udp/203.0.113.1:4000 tcp/[2001:db8::1]:443\r\n";
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let mut taken = 0;
    for _ in 0..20_000 {
        let bytes = damaged(&mut rng, SEED);
        if let Ok(description) = Description::parse(&bytes) {
            assert_eq!(Description::parse(&description.encode()), Ok(description));
            taken += 1;
        }
        if let Ok(fragment) = Fragment::parse(&bytes) {
            assert_eq!(Fragment::parse(&fragment.encode()), Ok(fragment));
        }
    }
    assert!(taken > 1_000, "only {taken} were taken");
}
