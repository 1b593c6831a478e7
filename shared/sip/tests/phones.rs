//! Messages as real phones send them, in the shapes that other parsers refuse: instance ids, GRUUs, IPv6, compact and
//! folded fields, transports and methods nobody listed. Names and addresses are of the documentation ranges.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which may fail loudly"
)]

use yodel_sip::message::{Message, ParseError, Request};
use yodel_sip::method::Method;
use yodel_sip::uri::param;

fn request(text: &str) -> Request {
    let bytes = text.replace('\n', "\r\n").into_bytes();
    match Message::parse(&bytes).unwrap() {
        Message::Request(request) => {
            assert_eq!(request.encode(), bytes, "written back as it came");
            request
        }
        Message::Response(_) => panic!("a request"),
    }
}

const BARESIP_REGISTER: &str = "REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:40960;branch=z9hG4bK2b9d1d9ea6ad7ea5;rport
Contact: <sip:alice-0x55d0c8a4@192.0.2.10:40960>;expires=3600;+sip.instance=\"<urn:uuid:7c1b3a6e-3c1e-1a54-0bd1-8bb1b36e9b4e>\"
Max-Forwards: 70
To: <sip:alice@example.net>
From: <sip:alice@example.net>;tag=6db1ab4a6f3ea0a8
Call-ID: 1d4b9e2d2cf8a5a6
CSeq: 6021 REGISTER
User-Agent: baresip v3.10.0 (x86_64/linux)
Supported: gruu
Content-Length: 0

";

#[test]
fn a_registration_with_an_instance_id() {
    let register = request(BARESIP_REGISTER);
    let contact = register.contact().unwrap();
    assert_eq!(
        param(&contact.params, "+sip.instance"),
        Some("<urn:uuid:7c1b3a6e-3c1e-1a54-0bd1-8bb1b36e9b4e>")
    );
    assert_eq!(param(&contact.params, "expires"), Some("3600"));
    assert_eq!(contact.uri.port(), Some(40960));
    assert_eq!(param(&register.vias()[0].params, "rport"), Some(""));
}

#[test]
fn a_linphone_invite_to_a_gruu_over_ipv6() {
    let invite = request(
        "INVITE sip:bob@example.net;gr=urn:uuid:3c84ea1c-62c8-003a-b2b4-0e6b7a1a1f27 SIP/2.0
Via: SIP/2.0/TLS [2001:db8::5]:46001;branch=z9hG4bK.Wn4mCLs5K;rport
From: \"Alice Ä.\" <sip:alice@example.net>;tag=3sNGLqHhU
To: <sip:bob@example.net>
CSeq: 20 INVITE
Call-ID: fHzW2nYs8b
Max-Forwards: 70
Supported: replaces, outbound, gruu, path, record-aware
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, PRACK, UPDATE
Contact: <sip:alice@[2001:db8::5]:46001;transport=tls>;+sip.instance=\"<urn:uuid:0e4c2f1c-58b7-0061-9f5e-1b2f2a6e5c11>\";+org.linphone.specs=\"conference/2.0,ephemeral/1.1,groupchat/1.2,lime\"
User-Agent: LinphoneDesktop/5.2.6 (host) Linux LinphoneSDK/5.3.74
Content-Length: 0

",
    );
    assert_eq!(invite.uri.param("gr"), Some("urn:uuid:3c84ea1c-62c8-003a-b2b4-0e6b7a1a1f27"));
    assert_eq!(invite.vias()[0].host.to_string(), "[2001:db8::5]");
    assert_eq!(invite.from().unwrap().display.as_deref(), Some("Alice Ä."));
    let contact = invite.contact().unwrap();
    assert_eq!(contact.uri.host().unwrap().to_string(), "[2001:db8::5]");
    assert_eq!(
        param(&contact.params, "+org.linphone.specs"),
        Some("conference/2.0,ephemeral/1.1,groupchat/1.2,lime")
    );
}

#[test]
fn compact_and_folded_fields_in_one_message() {
    let message = request(
        "MESSAGE sip:bob@192.0.2.4 SIP/2.0
v: SIP/2.0/TCP 192.0.2.9
 ;branch=z9hG4bKx , SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKy
f: Alice
 <sip:alice@example.net>
\t;tag=1
t: <sip:bob@192.0.2.4>
i: abc@192.0.2.9
CSeq:
 1
 MESSAGE
c: text/plain ; charset=utf-8
s: one
\ttwo
l: 5

hello",
    );
    let branches: Vec<String> =
        message.vias().iter().filter_map(|via| via.branch().map(str::to_owned)).collect();
    assert_eq!(branches, ["z9hG4bKx", "z9hG4bKy"]);
    assert_eq!((message.from_tag().as_deref(), message.call_id().as_str()), (Some("1"), "abc@192.0.2.9"));
    assert_eq!(message.cseq().unwrap().to_string(), "1 MESSAGE");
    assert_eq!(message.content_type().as_deref(), Some("text/plain"));
    assert_eq!(message.headers.text("Subject").unwrap(), "one two");
    assert_eq!(message.max_forwards(), None, "missing, and passes");
    assert_eq!(message.body, b"hello");
}

#[test]
fn methods_transports_and_schemes_nobody_listed() {
    let odd = request(
        "KNOCK urn:service:sos SIP/2.0
Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bKz
X-Second: 2
From: <tel:+4930123456>;tag=1
To: <urn:service:sos>
Call-ID: k
X-First: 1
CSeq: 1 KNOCK
Content-Length: 0

",
    );
    assert_eq!(odd.method, Method::Other("KNOCK".into()));
    assert_eq!(odd.vias()[0].transport, "WSS");
    assert_eq!((odd.uri.scheme(), odd.from().unwrap().uri.scheme().to_owned()), ("urn", "tel".into()));
}

#[test]
fn a_call_id_twice_is_refused_however_it_is_written() {
    for second in ["Call-ID: other", "i: 1d4b9e2d2cf8a5a6", "call-id : x"] {
        let text = BARESIP_REGISTER.replace("CSeq:", &format!("{second}\nCSeq:")).replace('\n', "\r\n");
        assert_eq!(Message::parse(text.as_bytes()), Err(ParseError::Repeated("Call-ID")));
        assert!(Message::frame(text.as_bytes()).is_ok(), "and can be answered with 400");
    }
}

#[test]
fn keep_alives_and_line_ends_in_front_are_skipped_but_bare_ones_are_refused() {
    let text = BARESIP_REGISTER.replace('\n', "\r\n");
    assert!(Message::parse(format!("\r\n\r\n{text}").as_bytes()).is_ok());
    assert_eq!(Message::parse(BARESIP_REGISTER.as_bytes()), Err(ParseError::Framing));
    let smuggled = text.replace("Supported: gruu", "Supported: gruu\nRoute: <sip:evil.example>");
    assert_eq!(Message::parse(smuggled.as_bytes()), Err(ParseError::HeaderSyntax));
}
