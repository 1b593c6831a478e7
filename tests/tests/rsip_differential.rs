//! rsip reads fewer messages than we do; what both read must mean the same. Field by field: where rsip refuses a
//! field, or the whole message, there is nothing to compare. The messages are RFC 4475's, and 4,000
//! composed from pieces by a seed, so that every piece meets every other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which may fail loudly"
)]

use std::collections::BTreeMap;
use std::path::Path;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use rsip::message::HasHeaders;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use yodel_sip::message::Message;
use yodel_sip::uri::{Host, Uri};

/// What a message says, by field.
type Reading = BTreeMap<&'static str, String>;

fn ours(bytes: &[u8]) -> Option<Reading> {
    let message = Message::parse(bytes).ok()?;
    let mut out = Reading::new();
    let (call_id, cseq, from, to, via, body) = match &message {
        Message::Request(request) => {
            out.insert("method", request.method.to_string());
            uri(&mut out, ["uri.user", "uri.host", "uri.port"], &request.uri);
            (
                request.call_id(),
                request.cseq(),
                request.from(),
                request.to_address(),
                request.vias(),
                &request.body,
            )
        }
        Message::Response(response) => {
            out.insert("status", response.status.to_string());
            let vias = response.vias();
            (
                response.call_id(),
                response.cseq(),
                response.from(),
                response.to_address(),
                vias,
                &response.body,
            )
        }
    };
    let (cseq, from, to) = (cseq.unwrap(), from.unwrap(), to.unwrap());
    out.insert("call-id", call_id);
    out.insert("cseq.number", cseq.number.to_string());
    out.insert("cseq.method", cseq.method.to_string());
    uri(&mut out, ["from.user", "from.host", "from.port"], &from.uri);
    out.insert("from.tag", from.tag().unwrap_or("").to_owned());
    out.insert("from.display", from.display.clone().unwrap_or_default());
    uri(&mut out, ["to.user", "to.host", "to.port"], &to.uri);
    out.insert("to.tag", to.tag().unwrap_or("").to_owned());
    out.insert("via.branch", via[0].branch().unwrap_or("").to_owned());
    out.insert("via.transport", via[0].transport.clone());
    out.insert("via.host", host(&via[0].host));
    out.insert("body", String::from_utf8_lossy(body).into_owned());
    out.insert("headers", message.headers().len().to_string());
    if let Some(subject) = message.headers().text("Subject") {
        out.insert("subject", subject.into_owned());
    }
    Some(out)
}

fn uri(out: &mut Reading, [user, host_key, port]: [&'static str; 3], uri: &Uri) {
    if let Some(value) = uri.host() {
        out.insert(user, uri.user().unwrap_or("").to_owned());
        out.insert(host_key, host(value));
        out.insert(port, uri.port().map(|port| port.to_string()).unwrap_or_default());
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Name(name) => name.clone(),
        Host::Ip(ip) => ip.to_string(),
    }
}

fn theirs(bytes: &[u8]) -> Option<Reading> {
    let message = rsip::SipMessage::try_from(bytes).ok()?;
    let mut out = Reading::new();
    match &message {
        rsip::SipMessage::Request(request) => {
            out.insert("method", request.method.to_string());
            their_uri(&mut out, ["uri.user", "uri.host", "uri.port"], &request.uri);
        }
        rsip::SipMessage::Response(response) => {
            out.insert("status", response.status_code.code().to_string());
        }
    }
    if let Ok(call_id) = message.call_id_header() {
        out.insert("call-id", call_id.value().to_owned());
    }
    if let Ok(cseq) = message.cseq_header().and_then(|header| header.typed()) {
        out.insert("cseq.number", cseq.seq.to_string());
        out.insert("cseq.method", cseq.method.to_string());
    }
    if let Ok(from) = message.from_header().and_then(|header| header.typed()) {
        their_uri(&mut out, ["from.user", "from.host", "from.port"], &from.uri);
        out.insert("from.tag", from.tag().map(|tag| tag.value().to_owned()).unwrap_or_default());
        out.insert("from.display", from.display_name.clone().unwrap_or_default());
    }
    if let Ok(to) = message.to_header().and_then(|header| header.typed()) {
        their_uri(&mut out, ["to.user", "to.host", "to.port"], &to.uri);
        out.insert("to.tag", to.tag().map(|tag| tag.value().to_owned()).unwrap_or_default());
    }
    if let Ok(via) = message.via_header().and_then(|header| header.typed()) {
        out.insert("via.branch", via.branch().map(|branch| branch.value().to_owned()).unwrap_or_default());
        out.insert("via.transport", via.transport.to_string());
        out.insert("via.host", via.uri.host().to_string());
    }
    out.insert("body", String::from_utf8_lossy(message.body()).into_owned());
    out.insert("headers", message.headers().iter().count().to_string());
    let subject = message.headers().iter().find_map(|header| match header {
        rsip::Header::Subject(subject) => Some(subject),
        _ => None,
    });
    if let Some(subject) = subject {
        out.insert("subject", subject.value().to_owned());
    }
    Some(out)
}

fn their_uri(out: &mut Reading, [user, host, port]: [&'static str; 3], uri: &rsip::Uri) {
    out.insert(user, uri.user().unwrap_or("").to_owned());
    out.insert(host, uri.host().to_string());
    out.insert(port, uri.port().map(|port| port.value().to_string()).unwrap_or_default());
}

/// A field in which two readings differ: its name, ours, theirs.
type Difference = (&'static str, String, String);

/// How many fields both read, and those in which they differ, what rsip is known to read wrong left out.
fn compare(bytes: &[u8]) -> Option<(usize, Vec<Difference>)> {
    let (ours, theirs) = (ours(bytes)?, theirs(bytes)?);
    let both: Vec<Difference> = ours
        .iter()
        .filter_map(|(field, our)| Some((*field, our.clone(), theirs.get(field)?.clone())))
        .filter(|(field, our, their)| our == their || !rsip_is_wrong(field, our, their, &ours))
        .collect();
    Some((both.len(), both.into_iter().filter(|(_, our, their)| our != their).collect()))
}

/// What RFC 3261 decides against rsip 0.4.
fn rsip_is_wrong(field: &str, our: &str, their: &str, ours: &Reading) -> bool {
    match field {
        // §20.14, §18.3: the body is as long as Content-Length says; rsip takes all that follows.
        "body" => their.starts_with(our),
        // §25.1, quoted-string: the quotes are not part of the name.
        "from.display" => their.trim_matches('"') == our,
        // §20: without brackets, `sip:alice@example.net` has a user; rsip takes both for the host.
        "from.user" | "to.user" => their.is_empty(),
        "from.host" => their == format!("{}@{our}", ours["from.user"]),
        "to.host" => their == format!("{}@{our}", ours["to.user"]),
        _ => false,
    }
}

fn composed(rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut pick = |choices: &[&str]| choices[rng.next_u32() as usize % choices.len()].to_owned();
    let method = pick(&[
        "INVITE",
        "ACK",
        "BYE",
        "CANCEL",
        "REGISTER",
        "OPTIONS",
        "MESSAGE",
        "INFO",
        "NOTIFY",
        "SUBSCRIBE",
        "REFER",
        "UPDATE",
        "PRACK",
        "PUBLISH",
        "KNOCK",
    ]);
    let uris = [
        "sip:bob@example.net",
        "sips:bob@example.net:5061",
        "sip:192.0.2.1",
        "sip:bob:secret@192.0.2.1:5080",
        "sip:0123456789abcdef0123456789abcdef@example.net",
        "sip:%62ob@EXAMPLE.net",
        "sip:bob@[2001:db8::1]:5060",
        "tel:+4930123456",
    ];
    let addresses = [
        "<sip:alice@example.net>;tag=a1",
        "\"Alice\" <sip:alice@example.net>;tag=a1",
        "Alice <sip:alice@example.net:5070;transport=tcp>;tag=a1",
        "sip:alice@example.net;tag=a1",
        "\"A, B\" <sip:alice@192.0.2.7>;tag=a1",
        "<sips:alice@example.net>;x=y;tag=a1",
        "<sip:alice@example.net>",
    ];
    let start = if pick(&["q", "q", "r"]) == "q" {
        format!("{method} {} SIP/2.0", pick(&uris))
    } else {
        format!(
            "SIP/2.0 {}",
            pick(&["100 Trying", "180 Ringing", "200 OK", "486 Busy Here", "603 Decline", "299 "])
        )
    };
    let mut headers = vec![
        format!(
            "{}: SIP/2.0/{} {};branch=z9hG4bK{}{}",
            pick(&["Via", "v", "VIA"]),
            pick(&["UDP", "TCP", "TLS", "WS", "WSS", "SCTP"]),
            pick(&["192.0.2.1:5060", "pc.example.net", "[2001:db8::9]:5060"]),
            pick(&["1", "abc", "776asdhds"]),
            pick(&[
                "",
                ";rport",
                ";received=192.0.2.3;rport=9",
                ", SIP/2.0/UDP b.example.net;branch=z9hG4bKb"
            ]),
        ),
        format!("{}: {}", pick(&["From", "f"]), pick(&addresses)),
        format!("{}: {}", pick(&["To", "t", "to"]), pick(&addresses)),
        format!(
            "{}: {}",
            pick(&["Call-ID", "i", "Call-Id"]),
            pick(&["a84b4c76e66710@pc33.example.net", "x"])
        ),
        format!("CSeq: {} {method}", pick(&["1", "314159", "2147483647", "0009"])),
    ];
    if pick(&["y", "n"]) == "y" {
        headers.push(format!("Max-Forwards: {}", pick(&["70", "0", "255"])));
    }
    if pick(&["y", "n"]) == "y" {
        headers.push(format!(
            "{}: {}",
            pick(&["Subject", "s"]),
            pick(&["", "lunch", "a: b; c", "one\r\n two"])
        ));
    }
    if pick(&["y", "n"]) == "y" {
        let contact = "<sip:alice@192.0.2.1:5060>";
        headers.push(format!(
            "{}: {contact}{}",
            pick(&["Contact", "m"]),
            pick(&["", ";expires=60", ";+sip.instance=\"<urn:uuid:1>\""])
        ));
    }
    let body = pick(&["", "hello", "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"]);
    headers.push(format!("{}: {}", pick(&["Content-Length", "l"]), body.len()));
    format!("{start}\r\n{}\r\n\r\n{body}", headers.join("\r\n")).into_bytes()
}

#[test]
fn what_both_read_means_the_same() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let (mut messages, mut fields) = (0, 0);
    for round in 0..4_000 {
        let bytes = composed(&mut rng);
        assert!(
            Message::parse(&bytes).is_ok(),
            "round {round}: we read all:\n{}",
            String::from_utf8_lossy(&bytes)
        );
        let Some((both, different)) = compare(&bytes) else { continue };
        assert_eq!(different, [], "round {round}:\n{}", String::from_utf8_lossy(&bytes));
        messages += 1;
        fields += both;
    }
    println!("{messages} of 4,000 messages were read by both, {fields} fields alike");
    assert!(messages > 500, "only {messages} messages were read by both");
    assert!(fields > messages * 12, "only {fields} fields of {messages} messages");
}

#[test]
fn torture_messages_too() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/sip/vectors/rfc4475");
    for entry in std::fs::read_dir(vectors).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if let Some((_, different)) = compare(&std::fs::read(&path).unwrap()) {
            assert_eq!(different, [], "{name}");
        }
    }
}
