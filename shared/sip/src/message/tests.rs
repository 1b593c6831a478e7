use super::*;

const INVITE: &str = "INVITE sip:bob@example.net SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice\" <sip:alice@example.net>;tag=1\r\n\
    To: <sip:bob@example.net>\r\n\
    Call-ID: c1\r\n\
    CSeq: 7 INVITE\r\n\
    Content-Length: 4\r\n\r\nbody";

fn request(text: &str) -> Request {
    match Message::parse(text.as_bytes()).unwrap() {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a request"),
    }
}

fn refusal(from: &str, to: &str) -> ParseError {
    assert!(INVITE.contains(from));
    Message::parse(INVITE.replace(from, to).as_bytes()).unwrap_err()
}

#[test]
fn what_was_read_is_written_back() {
    let invite = request(INVITE);
    assert_eq!(String::from_utf8(invite.encode()).unwrap(), INVITE);
    assert_eq!(
        (invite.method.clone(), invite.call_id(), invite.body.as_slice()),
        (Method::Invite, "c1".into(), &b"body"[..])
    );
    assert_eq!(invite.cseq(), Some(CSeq { number: 7, method: Method::Invite }));
    assert_eq!((invite.from_tag().as_deref(), invite.to_tag()), (Some("1"), None));
    assert_eq!(invite.branch().as_deref(), Some("z9hG4bKa"));
    assert_eq!(invite.from().unwrap().display.as_deref(), Some("Alice"));
}

#[test]
fn what_may_not_be_acted_on_says_why() {
    assert_eq!(refusal("Call-ID: c1", "Call-ID: c1\r\ni: c1"), ParseError::Repeated("Call-ID"));
    assert_eq!(refusal("Call-ID: c1\r\n", ""), ParseError::Missing("Call-ID"));
    assert_eq!(refusal("Call-ID: c1", "Call-ID: c 1"), ParseError::Malformed("Call-ID"));
    assert_eq!(refusal("CSeq: 7 INVITE", "CSeq: 7 BYE"), ParseError::MethodMismatch);
    assert_eq!(refusal("CSeq: 7 INVITE", "CSeq: 2147483648 INVITE"), ParseError::Malformed("CSeq"));
    assert_eq!(refusal("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), ParseError::Version);
    assert_eq!(refusal("Content-Length: 4", "Content-Length: 5"), ParseError::Framing);
    assert_eq!(refusal("Content-Length: 4", "Content-Length: -4"), ParseError::Framing);
    assert_eq!(refusal("Content-Length: 4", "Content-Length: 4\r\nl: 4"), ParseError::Framing);
    assert_eq!(refusal("Max-Forwards: 70", "Max-Forwards: 256"), ParseError::Malformed("Max-Forwards"));
    assert_eq!(refusal("SIP/2.0\r\n", " SIP/2.0\r\n"), ParseError::StartLine);
    assert_eq!(ParseError::Version.status(), Status::VERSION_NOT_SUPPORTED);
    assert_eq!(ParseError::TooLarge.status(), Status::MESSAGE_TOO_LARGE);
}

#[test]
fn a_start_line_has_no_second_line() {
    for folded in [
        "SIP/2.0 200 OK\r\n Via: x\r\n\r\n",
        "SIP/2.0 200 OK\r\n\tVia: x\r\n\r\n",
        "A sip:a SIP/2.0\r\n x\r\n\r\n",
    ] {
        assert_eq!(Message::frame(folded.as_bytes()), Err(ParseError::StartLine));
    }
}

#[test]
fn a_missing_max_forwards_passes() {
    assert_eq!(request(&INVITE.replace("Max-Forwards: 70\r\n", "")).max_forwards(), None);
}

#[test]
fn the_body_is_as_long_as_it_says() {
    assert_eq!(request(&INVITE.replace("Content-Length: 4", "Content-Length: 2")).body, b"bo");
    assert_eq!(request(&INVITE.replace("Content-Length: 4\r\n", "")).body, b"body");
}

#[test]
fn bounds_hold() {
    let headers = |n: usize| INVITE.replace("Via:", &format!("{}Via:", "X: y\r\n".repeat(n - 7)));
    assert!(Message::parse(headers(HEADERS_MAX).as_bytes()).is_ok());
    assert_eq!(Message::parse(headers(HEADERS_MAX + 1).as_bytes()), Err(ParseError::TooManyHeaders));
    let long = |n| INVITE.replace("Via:", &format!("X: {}\r\nVia:", "y".repeat(n - 3)));
    assert!(Message::parse(long(HEADER_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(Message::parse(long(HEADER_BYTES_MAX + 1).as_bytes()), Err(ParseError::TooLarge));
    let body =
        |n: usize| format!("{INVITE}{}", "y".repeat(n - INVITE.len())).replace("Content-Length: 4\r\n", "");
    assert!(Message::parse(body(MESSAGE_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(Message::parse(&vec![b'y'; MESSAGE_BYTES_MAX + 1]), Err(ParseError::TooLarge));
    let ids = |n| INVITE.replace("c1", &"c".repeat(n));
    assert!(Message::parse(ids(TOKEN_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(Message::parse(ids(TOKEN_BYTES_MAX + 1).as_bytes()), Err(ParseError::Malformed("Call-ID")));
}

#[test]
fn our_own_requests_read_back() {
    let alice = NameAddr::parse("<sip:alice@example.net>").unwrap().with_tag("t1");
    let bob = NameAddr::parse("<sip:bob@example.net>").unwrap();
    let own = Request::new(&RequestParts {
        method: Method::Message,
        uri: bob.uri.clone(),
        from: &alice,
        to: &bob,
        call_id: "c9",
        cseq: 1,
        branch: "z9hG4bKb",
    })
    .with_body("application/x-test", vec![0, 13, 10, 255]);
    let read = request_bytes(&own.encode());
    assert_eq!(read.body, own.body);
    assert_eq!(read.content_type().as_deref(), Some("application/x-test"));
    assert_eq!(read.branch().as_deref(), Some("z9hG4bKb"));
    assert_eq!(read.max_forwards(), Some(70));
}

fn request_bytes(bytes: &[u8]) -> Request {
    match Message::parse(bytes).unwrap() {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a request"),
    }
}

#[test]
fn answers_carry_what_the_request_said() {
    let invite = request(INVITE);
    let ringing = Response::to(&invite, Status::RINGING, Some("t2"));
    assert_eq!(
        String::from_utf8(ringing.encode()).unwrap(),
        "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\n\
         From: \"Alice\" <sip:alice@example.net>;tag=1\r\nTo: <sip:bob@example.net>;tag=t2\r\n\
         Call-ID: c1\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(Response::to(&invite, Status::TRYING, Some("t2")).to_tag(), None);
    assert!(matches!(Message::parse(&ringing.encode()), Ok(Message::Response(_))));
}

#[test]
fn cancel_and_ack_are_of_the_same_transaction() {
    let invite = request(INVITE);
    let cancel = request_bytes(&invite.cancel().encode());
    assert_eq!((cancel.branch(), cancel.call_id(), cancel.to_tag()), (invite.branch(), "c1".into(), None));
    assert_eq!(cancel.cseq(), Some(CSeq { number: 7, method: Method::Cancel }));
    let busy = Response::to(&invite, Status::BUSY_HERE, Some("t2"));
    let ack = request_bytes(&invite.ack_for(&busy).encode());
    assert_eq!((ack.branch(), ack.to_tag().as_deref()), (invite.branch(), Some("t2")));
    assert_eq!(ack.cseq(), Some(CSeq { number: 7, method: Method::Ack }));
}

#[test]
fn cut_anywhere_never_reads_as_another_message() {
    for cut in 0..INVITE.len() {
        assert!(Message::parse(&INVITE.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}
