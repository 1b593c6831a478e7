use super::*;

fn ice() -> IceCredentials {
    IceCredentials { ufrag: "8hhY".into(), pwd: "asd88fgpdd777uzjYhagZg".into() }
}

fn full() -> Description {
    Description {
        version: 3,
        direction: Direction::SendOnly,
        candidates: vec![
            Candidate::parse("candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host").unwrap(),
            Candidate::parse("candidate:2 1 udp 1694498815 2001:db8::9 4001 typ srflx").unwrap(),
        ],
        end_of_candidates: true,
        relays: vec![Relay {
            node: NodeId([0xab; 16]),
            token: [1; 16],
            addrs: vec![
                (Transport::Udp, "203.0.113.1:4000".parse().unwrap()),
                (Transport::Tcp, "[2001:db8::1]:443".parse().unwrap()),
            ],
        }],
        ..Description::new(4711, ice())
    }
}

const GOLDEN: &str = "v=0\r\no=- 4711 3 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-options:trickle\r\n\
    m=audio 9 UDP/YODEL 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\n\
    a=ptime:20\r\na=sendonly\r\na=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
    a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host\r\n\
    a=candidate:2 1 udp 1694498815 2001:db8::9 4001 typ srflx\r\na=end-of-candidates\r\n\
    a=yodel-relay:abababababababababababababababab 01010101010101010101010101010101 \
    udp/203.0.113.1:4000 tcp/[2001:db8::1]:443\r\n";

#[test]
fn golden_description() {
    assert_eq!(String::from_utf8(full().encode()).unwrap(), GOLDEN);
    assert_eq!(Description::parse(GOLDEN.as_bytes()), Ok(full()));
    assert_eq!(Description::parse(GOLDEN.replace("\r\n", "\n").as_bytes()), Ok(full()));
}

#[test]
fn golden_fragment() {
    let all = full();
    let fragment =
        Fragment { ice: ice(), candidates: all.candidates, end_of_candidates: false, relays: all.relays };
    let bytes = fragment.encode();
    assert!(
        bytes.starts_with(b"a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n")
    );
    assert_eq!(Fragment::parse(&bytes), Ok(fragment));
}

#[test]
fn candidates_we_do_not_use_are_skipped() {
    for bad in [
        "candidate:1 2 udp 2130706431 192.0.2.1 4000 typ host",
        "candidate:1 1 sctp 2130706431 192.0.2.1 4000 typ host",
        "candidate:1 1 udp 0 192.0.2.1 4000 typ host",
        "candidate:1 1 udp 2147483648 192.0.2.1 4000 typ host",
        "candidate:1 1 udp 5 f81d4fae.local 4000 typ host",
        "candidate:1 1 udp 5 192.0.2.1 0 typ host",
        "candidate:1 1 udp 5 192.0.2.1 65536 typ host",
        "candidate:1 1 udp 5 192.0.2.1 4000 typ other",
        "candidate:1 1 udp 5 192.0.2.1 4000",
        "candidate:! 1 udp 5 192.0.2.1 4000 typ host",
        "candidate:",
    ] {
        assert_eq!(Candidate::parse(bad), None, "{bad}");
    }
    let with_related = "candidate:x 1 UDP 5 192.0.2.1 4000 typ srflx raddr 10.0.0.1 rport 9 generation 0";
    assert_eq!(
        Candidate::parse(with_related).unwrap().encode(),
        "candidate:x 1 udp 5 192.0.2.1 4000 typ srflx"
    );
}

#[test]
fn bounds_hold() {
    let mut many = full();
    many.candidates = vec![many.candidates[0].clone(); CANDIDATES_MAX + 5];
    many.relays = vec![many.relays[0].clone(); RELAYS_MAX + 1];
    let read = Description::parse(&many.encode()).unwrap();
    assert_eq!((read.candidates.len(), read.relays.len()), (CANDIDATES_MAX, RELAYS_MAX));
    let mut lines = GOLDEN.to_owned();
    lines.push_str(&"a=x\r\n".repeat(SDP_LINES_MAX));
    assert_eq!(Description::parse(lines.as_bytes()), Err(SdpError::TooLarge));
    let mut media = GOLDEN.to_owned();
    media.push_str(&"m=video 9 RTP/AVP 31\r\n".repeat(SDP_MEDIA_MAX));
    assert_eq!(Description::parse(media.as_bytes()), Err(SdpError::TooLarge));
    assert_eq!(Description::parse(&vec![b'a'; SDP_BYTES_MAX + 1]), Err(SdpError::TooLarge));
}

#[test]
fn what_is_missing_is_named() {
    let without = |text: &str| Description::parse(GOLDEN.replace(text, "").as_bytes());
    assert_eq!(without("v=0\r\n"), Err(SdpError::Malformed));
    assert_eq!(without("o=- 4711 3 IN IP4 0.0.0.0\r\n"), Err(SdpError::Malformed));
    assert_eq!(without("a=ice-ufrag:8hhY\r\n"), Err(SdpError::NoCredentials));
    assert_eq!(without("a=rtpmap:111 opus/48000/2\r\n"), Err(SdpError::NoAudio));
    let closed = GOLDEN.replace("m=audio 9", "m=audio 0");
    assert_eq!(Description::parse(closed.as_bytes()), Err(SdpError::NoAudio));
    let plain = GOLDEN.replace(PROTOCOL, "RTP/AVP");
    assert_eq!(Description::parse(plain.as_bytes()), Err(SdpError::NoAudio), "never unsealed");
    for bad in ["", "\r\n", "v=0", "v=0\r\nxx=1\r\n", "v=0\r\n\r\n", "v=0\r\no=- a b IN IP4 1\r\n"] {
        assert!(Description::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
}

#[test]
fn credentials_may_stand_at_session_level() {
    let ice = "a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n";
    let moved = GOLDEN.replace(ice, "").replace("m=audio", &format!("{ice}m=audio"));
    assert_eq!(Description::parse(moved.as_bytes()), Ok(full()));
}
