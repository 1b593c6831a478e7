use super::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 5769 §2.1.
fn sample_request() -> Vec<u8> {
    bytes(
        "00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74
         00240004 6e0001ff 80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020 00080014
         9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf",
    )
}

/// RFC 5769 §2.2.
fn sample_ipv4_response() -> Vec<u8> {
    bytes(
        "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200008
         0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96",
    )
}

/// RFC 5769 §2.3.
fn sample_ipv6_response() -> Vec<u8> {
    bytes(
        "01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200014
         0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c 8292c275
         bfe3ed41 80280004 c8fb0b4c",
    )
}

#[test]
fn rfc_5769_request() {
    let request = sample_request();
    let seen = peek(&request).unwrap();
    assert_eq!(seen.class, Class::Request);
    assert_eq!(seen.transaction, bytes("b7e7a701bc34d686fa87dfae")[..]);
    assert_eq!(seen.username, Some("evtj:h6vY"));
    assert!(!seen.unknown_required && seen.fingerprint);
    let content = open(&request, &seen, PASSWORD).unwrap();
    assert_eq!(content.priority, Some(0x6e00_01ff));
    assert!(!content.use_candidate && !content.controlling);
    assert_eq!(open(&request, &seen, "another password"), None);
}

#[test]
fn rfc_5769_responses() {
    let response = sample_ipv4_response();
    let seen = peek(&response).unwrap();
    assert_eq!(seen.class, Class::Success);
    assert_eq!(open(&response, &seen, PASSWORD).unwrap().mapped, Some("192.0.2.1:32853".parse().unwrap()));
    let response = sample_ipv6_response();
    let seen = peek(&response).unwrap();
    assert_eq!(
        open(&response, &seen, PASSWORD).unwrap().mapped,
        Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap())
    );
}

/// RFC 5769 §2.4: long-term credentials, MD5 key, no FINGERPRINT. We never use them; walking it must still work, and it
/// must not verify under a short-term password.
#[test]
fn rfc_5769_long_term_request_is_walked_and_refused() {
    let request = bytes(
        "00010060 2112a442 78ad3433 c6ad72c0 29da412e 00060012 e3839ee3 8388e383 aae38383 e382afe3
         82b90000 0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 3634734100140000b
         6578616d 706c652e 6f726700 00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"
            .replace("00140000b", "0014000b")
            .as_str(),
    );
    let seen = peek(&request).unwrap();
    assert!(seen.unknown_required, "REALM and NONCE mean nothing here");
    assert_eq!(seen.username, Some("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}"));
    assert!(!integrity_holds(&request, &seen, "TheMatrIX"));
}

#[test]
fn any_flipped_bit_is_noticed() {
    let request = sample_request();
    for at in 0..request.len() {
        // A bit flipped in the type of FINGERPRINT leaves an authentic message with an attribute that does not count.
        if (100..102).contains(&at) {
            continue;
        }
        for bit in 0..8 {
            let mut flipped = request.clone();
            flipped[at] ^= 1 << bit;
            let accepted = peek(&flipped).is_some_and(|seen| integrity_holds(&flipped, &seen, PASSWORD));
            assert!(!accepted, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn without_fingerprint_integrity_alone_notices() {
    // The FINGERPRINT cut off and the length corrected: what is left stands under MESSAGE-INTEGRITY alone.
    let mut request = sample_request();
    request.truncate(request.len() - 8);
    request[3] -= 8;
    let seen = peek(&request).unwrap();
    assert!(integrity_holds(&request, &seen, PASSWORD));
    for at in 20..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 1;
        let accepted = peek(&changed).is_some_and(|seen| integrity_holds(&changed, &seen, PASSWORD));
        assert!(!accepted, "byte {at}");
    }
}

#[test]
fn cut_or_stretched_is_nothing() {
    let request = sample_request();
    for cut in 0..request.len() {
        assert_eq!(peek(&request[..cut]), None, "cut at {cut}");
    }
    let mut longer = request;
    longer.extend_from_slice(&[0; 4]);
    assert_eq!(peek(&longer), None);
    assert_eq!(peek(&vec![0; STUN_BYTES_MAX + 4]), None);
}

#[test]
fn what_follows_integrity_does_not_count() {
    let mut check = Check {
        transaction: [7; 12],
        username: "abcd:efgh",
        priority: 5,
        controlling: false,
        tie_breaker: 9,
        use_candidate: false,
    }
    .encode("secret password")
    .unwrap();
    // Replace FINGERPRINT by USE-CANDIDATE: still authentic, but it says nothing more.
    check.truncate(check.len() - 8);
    check.extend_from_slice(&[0, 0x25, 0, 0]);
    check[3] -= 4;
    let seen = peek(&check).unwrap();
    let content = open(&check, &seen, "secret password").unwrap();
    assert!(!content.use_candidate);
}

#[test]
fn golden_check() {
    let check = Check {
        transaction: *b"transaction!",
        username: "peer:self",
        priority: 0x6e00_01ff,
        controlling: true,
        tie_breaker: 0x0102_0304_0506_0708,
        use_candidate: true,
    };
    let encoded = check.encode("passwordpassword").unwrap();
    let golden = bytes(
        "00010050 2112a442 7472616e73616374696f6e21 00060009 706565723a73656c66000000 00240004 6e0001ff
         802a0008 0102030405060708 00250000 00080014",
    );
    assert_eq!(encoded[4..golden.len()], golden[4..]);
    let seen = peek(&encoded).unwrap();
    assert_eq!(
        open(&encoded, &seen, "passwordpassword"),
        Some(Content { mapped: None, priority: Some(0x6e00_01ff), use_candidate: true, controlling: true })
    );
}

#[test]
fn answers_round_trip() {
    for addr in ["203.0.113.7:40000", "[2001:db8::9]:1", "0.0.0.0:0"] {
        let encoded = check_answer([3; 12], addr.parse().unwrap(), "passwordpassword").unwrap();
        let seen = peek(&encoded).unwrap();
        assert_eq!((seen.class, seen.transaction), (Class::Success, [3; 12]));
        let content = open(&encoded, &seen, "passwordpassword").unwrap();
        assert_eq!(content.mapped, Some(addr.parse().unwrap()));
    }
}

/// What an attacker can send before he knows a password, and what a peer can that has it: no bytes panic.
#[test]
fn mutated_messages_panic_nothing() {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore, SeedableRng};
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let seeds = [sample_request(), sample_ipv4_response(), sample_ipv6_response()];
    for round in 0..30_000 {
        let mut message = seeds[round % seeds.len()].clone();
        for _ in 0..1 + rng.next_u32() % 4 {
            let at = rng.next_u32() as usize % message.len();
            message[at] = rng.next_u32() as u8;
        }
        message.truncate(20 + rng.next_u32() as usize % (message.len() - 19));
        if let Some(seen) = peek(&message) {
            let _ = open(&message, &seen, PASSWORD);
        }
        let _ = open_unverified(&message);
    }
}
