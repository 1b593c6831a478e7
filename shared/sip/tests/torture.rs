//! RFC 4475 and RFC 5118: what we do with each of their messages, and what we read in the ones that are valid.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which may fail loudly"
)]

use std::path::{Path, PathBuf};

use yodel_sip::headers::Headers;
use yodel_sip::message::{Message, ParseError, Request, Response};
use yodel_sip::method::{Method, Status};
use yodel_sip::uri::param;

/// The table of RFC 4475, by its section: what `parse` says, `None` when the message may be acted on.
const RFC4475: [(&str, &str, Option<ParseError>); 49] = [
    ("3.1.1.1", "wsinv", None),
    ("3.1.1.2", "intmeth", None),
    ("3.1.1.3", "esc01", None),
    ("3.1.1.4", "escnull", None),
    ("3.1.1.5", "esc02", None),
    ("3.1.1.6", "lwsdisp", None),
    ("3.1.1.7", "longreq", None),
    ("3.1.1.8", "dblreq", None),
    ("3.1.1.9", "semiuri", None),
    ("3.1.1.10", "transports", None),
    ("3.1.1.11", "mpart01", None),
    ("3.1.1.12", "unreason", None),
    ("3.1.1.13", "noreason", None),
    ("3.1.2.1", "badinv01", Some(ParseError::Malformed("Via"))),
    ("3.1.2.2", "clerr", Some(ParseError::Framing)),
    ("3.1.2.3", "ncl", Some(ParseError::Framing)),
    ("3.1.2.4", "scalar02", Some(ParseError::Malformed("CSeq"))),
    ("3.1.2.5", "scalarlg", Some(ParseError::Malformed("CSeq"))),
    ("3.1.2.6", "quotbal", Some(ParseError::Malformed("To"))),
    ("3.1.2.7", "ltgtruri", Some(ParseError::StartLine)),
    ("3.1.2.8", "lwsruri", Some(ParseError::StartLine)),
    ("3.1.2.9", "lwsstart", Some(ParseError::StartLine)),
    ("3.1.2.10", "trws", Some(ParseError::StartLine)),
    ("3.1.2.11", "escruri", Some(ParseError::StartLine)),
    // Only its Date is wrong, which nothing of ours reads (§3.1.2.12: to be ignored by who does not need it).
    ("3.1.2.12", "baddate", None),
    // Only its Contact is wrong: the registrar that reads it refuses it.
    ("3.1.2.13", "regbadct", None),
    ("3.1.2.14", "badaspec", Some(ParseError::Malformed("To"))),
    // The archive's file has no end of headers; see below for the display name.
    ("3.1.2.15", "baddn", Some(ParseError::Framing)),
    ("3.1.2.16", "badvers", Some(ParseError::Version)),
    ("3.1.2.17", "mismatch01", Some(ParseError::MethodMismatch)),
    ("3.1.2.18", "mismatch02", Some(ParseError::MethodMismatch)),
    ("3.1.2.19", "bigcode", Some(ParseError::StartLine)),
    // Transactions are named by Call-ID and CSeq with us, so an empty branch does no harm.
    ("3.2.1", "badbranch", None),
    ("3.3.1", "insuf", Some(ParseError::Missing("Call-ID"))),
    ("3.3.2", "unkscm", None),
    ("3.3.3", "novelsc", None),
    ("3.3.4", "unksm2", None),
    ("3.3.5", "bext01", None),
    ("3.3.6", "invut", None),
    ("3.3.7", "regaut01", None),
    ("3.3.8", "multi01", Some(ParseError::Repeated("Call-ID"))),
    ("3.3.9", "mcl01", Some(ParseError::Framing)),
    ("3.3.10", "bcast", None),
    ("3.3.11", "zeromf", None),
    ("3.3.12", "cparam01", None),
    ("3.3.13", "cparam02", None),
    ("3.3.14", "regescrt", None),
    ("3.3.15", "sdp01", None),
    ("3.4.1", "inv2543", None),
];

fn vectors(rfc: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(rfc)
}

fn torture(name: &str) -> Vec<u8> {
    std::fs::read(vectors("rfc4475").join(format!("{name}.dat"))).unwrap()
}

/// RFC 5118's files end lines with LF, two have no empty line, and Content-Length fits none of their bodies.
fn ipv6(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(vectors("rfc5118").join(name)).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
    let body = body.replace('\n', "\r\n");
    let head: Vec<String> = head
        .lines()
        .map(|line| match line.strip_prefix("Content-Length:") {
            Some(_) => format!("Content-Length: {}", body.len()),
            None => line.to_owned(),
        })
        .collect();
    format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes()
}

fn request(bytes: &[u8]) -> Request {
    match Message::parse(bytes).unwrap() {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a request"),
    }
}

fn response(bytes: &[u8]) -> Response {
    match Message::parse(bytes).unwrap() {
        Message::Response(response) => response,
        Message::Request(_) => panic!("a response"),
    }
}

fn text(headers: &Headers, name: &str) -> String {
    headers.text(name).unwrap().into_owned()
}

#[test]
fn every_message_of_rfc_4475_is_taken_or_refused_as_it_should() {
    for (section, name, refusal) in RFC4475 {
        assert_eq!(Message::parse(&torture(name)).err(), refusal, "{section} {name}");
    }
    let files = std::fs::read_dir(vectors("rfc4475")).unwrap().count();
    assert_eq!(files, RFC4475.len(), "every file is in the table");
}

#[test]
fn what_frames_is_forwarded_untouched() {
    for (section, name, _) in RFC4475 {
        let bytes = torture(name);
        let Ok(message) = Message::frame(&bytes) else { continue };
        let written = message.encode();
        if name == "dblreq" {
            // §3.1.1.8: what follows the body is not part of the message.
            assert!(bytes.starts_with(&written) && written.len() < bytes.len());
        } else {
            assert_eq!(written, bytes, "{section} {name}");
        }
    }
}

#[test]
fn a_short_tortuous_invite_says_what_it_says() {
    let invite = request(&torture("wsinv"));
    assert_eq!(invite.uri.as_str(), "sip:vivekg@chair-dnrc.example.com;unknownparam");
    assert_eq!(invite.uri.param("unknownparam"), Some(""));
    assert_eq!(invite.to_tag().unwrap(), "1918181833n");
    assert_eq!(invite.from_tag().unwrap(), "98asjd8");
    assert_eq!(invite.from().unwrap().display.unwrap(), "J Rosenberg \\\"");
    assert_eq!(invite.cseq().unwrap().to_string(), "9 INVITE");
    assert_eq!(invite.max_forwards(), Some(68));
    assert_eq!(invite.call_id(), "wsinv.ndaksdj@192.0.2.1");
    assert_eq!(text(&invite.headers, "Subject"), "");
    assert_eq!(text(&invite.headers, "NewFangledHeader"), "newfangled value continued newfangled value");
    let vias: Vec<_> = invite
        .vias()
        .into_iter()
        .map(|via| (via.transport.clone(), via.branch().map(str::to_owned)))
        .collect();
    assert_eq!(
        vias,
        [
            ("UDP".into(), Some("390skdjuw".into())),
            ("TCP".into(), Some("z9hG4bK9ikj8".into())),
            ("UDP".into(), Some("z9hG4bK30239".into()))
        ]
    );
    assert_eq!(invite.body.len(), 150);
    assert_eq!(invite.content_type().unwrap(), "application/sdp");
}

#[test]
fn names_of_all_kinds_are_kept() {
    let odd = request(&torture("intmeth"));
    assert_eq!(odd.method, Method::Other("!interesting-Method0123456789_*+`.%indeed'~".into()));
    assert_eq!(odd.cseq().unwrap().method, odd.method);
    let from = odd.from().unwrap();
    assert_eq!(from.display.as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(param(&from.params, "fromparam''~+*_!.-%"), Some("работающий"));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    let escaped = request(&torture("esc02"));
    assert_eq!(escaped.method, Method::Other("RE%47IST%45R".into()), "not REGISTER");
    let transports: Vec<String> =
        request(&torture("transports")).vias().into_iter().map(|via| via.transport).collect();
    assert_eq!(transports, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
    assert_eq!(request(&torture("unkscm")).uri.scheme(), "nobodyknowsthisscheme");
    assert_eq!(request(&torture("semiuri")).uri.user(), Some("user;par=u%40example.net"));
    assert_eq!(request(&torture("lwsdisp")).from().unwrap().display.as_deref(), Some("caller"));
    assert_eq!(request(&torture("longreq")).vias().len(), 34);
}

#[test]
fn responses_say_what_they_say() {
    let odd = response(&torture("unreason"));
    assert_eq!(odd.status, Status::OK);
    assert_eq!(odd.reason, "= 2**3 * 5**2 но сто девяносто девять - простое".as_bytes());
    assert_eq!(response(&torture("noreason")).reason, b"");
    assert_eq!(request(&torture("mpart01")).body.len(), 553, "with NUL bytes in it");
}

#[test]
fn a_contact_without_brackets_keeps_its_parameters_to_itself() {
    let outside = request(&torture("cparam01")).contact().unwrap();
    assert_eq!((outside.uri.param("unknownparam"), param(&outside.params, "unknownparam")), (None, Some("")));
    let inside = request(&torture("cparam02")).contact().unwrap();
    assert_eq!((inside.uri.param("unknownparam"), param(&inside.params, "unknownparam")), (Some(""), None));
    assert!(request(&torture("regbadct")).contact().is_none());
}

#[test]
fn a_display_name_with_a_comma_and_no_quotes_is_refused() {
    let mut whole = torture("baddn");
    whole.extend_from_slice(b"\r\n");
    assert_eq!(Message::parse(&whole), Err(ParseError::Malformed("From")));
}

#[test]
fn every_message_of_rfc_5118_but_the_bad_one_is_taken() {
    let mut seen = 0;
    for entry in std::fs::read_dir(vectors("rfc5118")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let bytes = ipv6(&name);
        match name.as_str() {
            // §4.2: an address without brackets.
            "ipv6-bad" => assert_eq!(Message::parse(&bytes), Err(ParseError::StartLine)),
            _ => assert_eq!(Message::parse(&bytes).expect(&name).encode(), bytes, "{name}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn ports_and_addresses_are_told_apart() {
    let ambiguous = request(&ipv6("port-ambiguous")).uri;
    assert_eq!(
        (ambiguous.host().unwrap().to_string().as_str(), ambiguous.port()),
        ("[2001:db8::10:5070]", None)
    );
    let clear = request(&ipv6("port-unambiguous")).uri;
    assert_eq!((clear.host().unwrap().to_string().as_str(), clear.port()), ("[2001:db8::10]", Some(5070)));
    for name in ["via-received-param-no-delim", "via-received-param-with-delim"] {
        let received = request(&ipv6(name)).vias().remove(0);
        let received = param(&received.params, "received").unwrap().trim_matches(['[', ']']).to_owned();
        assert_eq!(received, "2001:db8::9:255", "{name}");
    }
    let hosts: Vec<String> =
        request(&ipv6("mult-ip-in-header")).vias().iter().map(|via| via.host.to_string()).collect();
    assert_eq!(hosts, ["[2001:db8::9:1]", "192.0.2.1", "[2001:db8::9:255]"]);
}
