//! Replays the kept inputs of every fuzz target on stable, and everything one slip away from them.
//!
//! `tests/fuzz/seeds/TARGET/` holds one golden input per format (`golden-…`, written by this test when
//! `YODEL_WRITE_SEEDS` is set, and final) and every input that ever was a finding (`finding-…`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use yodel_tests::corpus::TARGETS;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

fn kept(target: &str) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(seeds().join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn every_target_has_a_fuzz_target_and_seeds() {
    for target in TARGETS {
        let source = seeds().join("../fuzz_targets").join(format!("{}.rs", target.name));
        assert!(source.exists(), "{}", target.name);
        assert!(!kept(target.name).is_empty(), "{}", target.name);
    }
}

#[test]
fn golden_seeds_are_as_they_were() {
    for (target, name, bytes) in golden::all() {
        let path = seeds().join(target).join(format!("golden-{name}"));
        if std::env::var_os("YODEL_WRITE_SEEDS").is_some() && !path.exists() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{target}/{name}");
    }
}

#[test]
fn kept_inputs_pass() {
    for target in TARGETS {
        for input in kept(target.name).values() {
            (target.run)(input);
        }
    }
}

/// Every seed, cut at every place and with every byte changed in four ways.
#[test]
fn one_slip_away_from_a_seed_passes() {
    for target in TARGETS {
        // An OPAQUE message costs a scalar multiplication, a media packet a session, a box a handshake.
        let step = if matches!(target.name, "login" | "media_packet" | "call_box") { 7 } else { 1 };
        for input in kept(target.name).values().filter(|input| input.len() < 4_096) {
            for at in (0..input.len()).step_by(step) {
                (target.run)(&input[..at]);
                for change in [0x01, 0x20, 0x80, 0xff] {
                    let mut slipped = input.clone();
                    slipped[at] ^= change;
                    (target.run)(&slipped);
                }
            }
        }
    }
}

/// The empty input, and every input of one and two bytes.
#[test]
fn the_shortest_inputs_pass() {
    for target in TARGETS {
        (target.run)(&[]);
        let seconds = if matches!(target.name, "media_packet" | "call_box") { 1 } else { 256 };
        for first in 0..=255 {
            (target.run)(&[first]);
            for second in 0..seconds {
                (target.run)(&[first, second as u8]);
            }
        }
    }
}

/// One input per format, made through the crates' own encoders.
mod golden {
    use std::net::SocketAddr;
    use std::time::Duration;

    use yodel_identity::keys::SigningKey;
    use yodel_identity::node::NodeId;
    use yodel_identity::signed::Signed;
    use yodel_wire::frame::{Frame, FrameKind};
    use yodel_wire::time::UnixTime;

    const T0: UnixTime = UnixTime::from_secs(1_767_225_600);

    type Seed = (&'static str, String, Vec<u8>);

    pub(super) fn all() -> Vec<Seed> {
        [
            frames(),
            identity(),
            names(),
            records(),
            members(),
            links(),
            sip(),
            sdp(),
            stun(),
            relay(),
            media(),
            calls(),
        ]
        .concat()
    }

    fn seed(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
        (target, name.to_owned(), bytes.into())
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn frames() -> Vec<Seed> {
        let mut one_of_each = Vec::new();
        for kind in FrameKind::ALL {
            Frame::new(*kind, vec![*kind as u8; 3]).encode(&mut one_of_each).unwrap();
        }
        vec![
            seed("frame", "one-of-each", one_of_each),
            seed("frame", "later-kind", [200, 1, 0, 1, 9, 4, 1, 0, 0]),
        ]
    }

    /// The vectors of `shared/identity`, whose own tests hold them fixed.
    fn identity() -> Vec<Seed> {
        let vectors = super::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/identity/vectors");
        let mut seeds = Vec::new();
        for entry in super::fs::read_dir(vectors).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let hex = super::fs::read_to_string(&path).unwrap();
            let bytes: Vec<u8> = hex
                .trim()
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let target = match name.as_str() {
                "credential-device" | "credential-supernode" | "frame-renew" => "credential",
                "account-certificate" | "account-record" => "account_record",
                "bulletin" | "revoked-page" | "root-statement" => "bulletin",
                _ => "login",
            };
            // Also the body alone, where the fuzzer need not find its way around a signature.
            if target != "login"
                && let Ok((body, _)) = yodel_identity::signed::open(&bytes)
            {
                seeds.push(seed(target, &format!("{name}-body"), body));
            }
            seeds.push((target, name, bytes));
        }
        seeds
    }

    fn names() -> Vec<Seed> {
        let texts = [
            ("ascii", "Alice@Example.NET"),
            ("composed", "ju\u{308}rgen@example.net"),
            ("cyrillic", "Борис@home"),
            ("japanese", "山田たろう@example.net"),
            ("arabic", "علي@example.net"),
            ("wide", "ＡＬＩＣＥ@example.net"),
        ];
        let mut seeds: Vec<Seed> = texts.into_iter().map(|(name, text)| seed("name", name, text)).collect();
        let invitation = yodel_identity::invitation::Invitation {
            realm: "example.net".parse().unwrap(),
            servers: vec!["198.51.100.1:4433".to_owned()],
            pin: SigningKey::from_seed([1; 32]).public(),
            secret: [9; 16],
            user: Some("alice".parse().unwrap()),
            role: yodel_identity::invitation::InvitationRole::User,
        };
        seeds.push(seed("name", "invitation", invitation.to_string()));
        seeds
    }

    fn records() -> Vec<Seed> {
        use yodel_overlay::record::{
            Answer, ContactEntryFields, ReadRequest, Scope, Standing, WriteRequest, WriteStatus, Written,
        };
        let fields = ContactEntryFields {
            device: NodeId([1; 16]),
            sequence: 7,
            issued: T0,
            expires: T0 + Duration::from_secs(7_200),
            homes: vec![NodeId([2; 16]), NodeId([3; 16])],
            capabilities: 1,
            nonce: [4; 16],
            credential: [5; 32],
            withdrawn: false,
        };
        let key = SigningKey::from_seed([0x20; 32]);
        let entry = Signed::sign(&key, &fields).unwrap();
        let gone = ContactEntryFields { homes: vec![], withdrawn: true, sequence: 8, ..fields };
        let gone = Signed::sign(&key, &gone).unwrap();
        let body = |signed: &[u8]| yodel_identity::signed::open(signed).unwrap().0.to_vec();
        let write = WriteRequest {
            id: 1,
            key: [6; 16],
            scope: Scope::Walk,
            account: Some(vec![1; 8]),
            entry: Some(entry.bytes().to_vec()),
        };
        let written =
            Written { newest_entry: Some(entry.bytes().to_vec()), ..Written::new(1, WriteStatus::Stale) };
        let answer = Answer {
            account: Some(vec![1; 8]),
            entries: vec![entry.bytes().to_vec(), gone.bytes().to_vec()],
            ..Answer::empty(1, Standing::Held)
        };
        let read = ReadRequest { id: 1, key: [6; 16], scope: Scope::Holder, past_cache: true };
        vec![
            seed("contact_record", "entry", entry.bytes()),
            seed("contact_record", "entry-body", body(entry.bytes())),
            seed("contact_record", "withdrawn", gone.bytes()),
            seed("contact_record", "withdrawn-body", body(gone.bytes())),
            seed("contact_record", "write", write.encode().body),
            seed("contact_record", "written", written.encode().body),
            seed("contact_record", "read", read.encode().body),
            seed("contact_record", "answer", answer.encode().body),
        ]
    }

    fn members() -> Vec<Seed> {
        use yodel_identity::keys::SealingKey;
        use yodel_overlay::card::{AnnouncementFields, CardsWanted, Service};
        use yodel_overlay::message::{Message, News, Probe, Sight};
        use yodel_overlay::record::{Standing, WriteStatus};
        use yodel_overlay::sealed::Exchange;
        let fields = AnnouncementFields {
            node: NodeId([5; 16]),
            incarnation: 500,
            service: Service::Standby,
            serial: 7,
            udp: vec![addr("203.0.113.7:5061")],
            tcp: vec![addr("[2001:db8::1]:443")],
        };
        let announcement = Signed::sign(&SigningKey::from_seed([0x20; 32]), &fields).unwrap();
        let sight = Sight { node: NodeId([1; 16]), incarnation: 7 };
        let news = News {
            announcements: vec![announcement.bytes().to_vec()],
            suspicions: vec![sight],
            deaths: vec![sight],
        };
        let probe = Probe { number: 9, epoch: 500, news: news.clone(), ..Probe::default() };
        let (id, key) = ([1; 16], [2; 16]);
        let messages = [
            ("ping", Message::Ping(Probe { number: 1, ..Probe::default() })),
            ("ack", Message::Ack(Probe { target: Some(NodeId([4; 16])), ..probe })),
            ("ping-request", Message::PingRequest { number: 5, target: NodeId([6; 16]) }),
            ("gossip", Message::Gossip(news)),
            ("digest", Message::Digest(vec![1, 2])),
            ("bucket", Message::Bucket { index: 1, buckets: 2, entries: vec![sight] }),
            ("cards-wanted", Message::CardsWanted(vec![NodeId([7; 16])])),
            ("cards", Message::Cards(vec![vec![5; 8]])),
            ("read", Message::Read { id, key }),
            (
                "answer",
                Message::Answer {
                    id,
                    standing: Standing::Held,
                    account: Some(vec![1; 8]),
                    entries: vec![vec![2; 8]],
                },
            ),
            ("write", Message::Write { id, key, account: Some(vec![1; 8]), entry: Some(vec![3; 8]) }),
            (
                "written",
                Message::Written {
                    id,
                    status: WriteStatus::Stale,
                    newest_entry: Some(vec![1; 8]),
                    newest_account: Some(4),
                },
            ),
        ];
        let mut seeds: Vec<Seed> = messages
            .into_iter()
            .map(|(name, message)| seed("overlay_message", name, message.encode().unwrap()))
            .collect();
        seeds.push(seed("overlay_message", "announcement", announcement.bytes()));
        seeds.push(seed(
            "overlay_message",
            "announcement-body",
            yodel_identity::signed::Record::encode(&fields),
        ));
        let wanted = CardsWanted { nodes: vec![NodeId([1; 16])], after: None };
        seeds.push(seed("overlay_message", "frame-cards-wanted", wanted.encode().body));
        let mut exchange = Exchange::new(NodeId([1; 16]), [7; 8], 4);
        exchange.set_own(yodel_wire::time::Instant::ORIGIN, &[SealingKey::from_bytes([3; 32])]);
        let to = || Some(SealingKey::from_bytes([4; 32]).public());
        let read = Message::Read { id, key }.encode().unwrap();
        seeds.push(seed("sealed", "read", exchange.seal(NodeId([2; 16]), to, &read).unwrap()));
        seeds
    }

    fn links() -> Vec<Seed> {
        use yodel_overlay::attach::{Hello, LinkRole, Ping, Pong, Refuse, RefuseReason, Welcome};
        let hello = Hello {
            credential: vec![1; 8],
            role: LinkRole::Device,
            versions: (1, 1),
            epoch: 7,
            boot: [2; 16],
            announcement: None,
        };
        let welcome = Welcome {
            time: T0,
            observed: addr("203.0.113.7:5060"),
            credential: vec![1; 8],
            version: 1,
            clients: 3,
            boot: [2; 16],
            announcement: None,
        };
        let refuse = Refuse {
            reason: RefuseReason::Full,
            come_back: Duration::from_secs(30),
            redirect: Some(NodeId([3; 16])),
            card: None,
        };
        let with_card = Refuse { card: Some(vec![4; 8]), ..refuse.clone() };
        vec![
            seed("attach", "hello", hello.encode().body),
            seed("attach", "welcome", welcome.encode().body),
            seed("attach", "refuse", refuse.encode_refuse().body),
            seed("attach", "refuse-with-card", with_card.encode_refuse().body),
            seed("attach", "ping", Ping { nonce: 9 }.encode().body),
            seed("attach", "pong", Pong { nonce: 9, observed: addr("[2001:db8::1]:5060") }.encode().body),
        ]
    }

    const INVITE: &str = "INVITE sip:bob@example.net SIP/2.0\r\n\
        Via: SIP/2.0/TCP yodel.invalid;branch=z9hG4bKabc\r\n\
        Max-Forwards: 70\r\n\
        From: \"Alice\" <sip:alice@example.net>;tag=1\r\n\
        To: <sip:bob@example.net>\r\n\
        Call-ID: call-1\r\n\
        CSeq: 1 INVITE\r\n\
        Contact: <sip:alice@yodel.invalid>;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-000000000000>\"\r\n\
        Content-Type: application/sdp\r\n\
        Content-Length: 4\r\n\r\nv=0\n";
    const RINGING: &str = "SIP/2.0 180 Ringing\r\n\
        v: SIP/2.0/TCP [2001:db8::1]:5060;received=2001:db8::2;branch=z9hG4bKabc\r\n\
        f: sip:alice@example.net;tag=1\r\nt: sip:bob@example.net;tag=2\r\ni: call-1\r\nCSeq: 1 INVITE\r\n\
        Subject: folded\r\n header\r\nl: 0\r\n\r\n";
    const UNKNOWN: &str = "YODEL urn:service:test SIP/2.0\r\nVia: SIP/2.0/X yodel.invalid;branch=z9hG4bK1\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1@2\r\nCSeq: 4294967295 YODEL\r\nX-Other: 1\r\n\r\n";

    fn sip() -> Vec<Seed> {
        use yodel_sip::envelope::{Envelope, Return, ReturnReason};
        let envelope = Envelope {
            to: NodeId([1; 16]),
            to_home: Some(NodeId([2; 16])),
            from: NodeId([3; 16]),
            from_home: NodeId([4; 16]),
            message: INVITE.as_bytes().to_vec(),
            id: 5,
            by_home: false,
        };
        let returned = Return {
            id: 5,
            reason: ReturnReason::NotAttached,
            newest_entry: Some(vec![1; 8]),
            home: NodeId([2; 16]),
        };
        vec![
            seed("sip", "invite", INVITE),
            seed("sip", "ringing", RINGING),
            seed("sip", "unknown-method", UNKNOWN),
            seed("envelope", "envelope", envelope.encode()),
            seed("envelope", "return", returned.encode()),
        ]
    }

    fn sdp() -> Vec<Seed> {
        use yodel_sip::sdp::{
            Candidate, CandidateKind, Description, Fragment, IceCredentials, Relay, Transport,
        };
        let ice = IceCredentials { ufrag: "abcd".to_owned(), pwd: "0123456789abcdefghijkl".to_owned() };
        let candidates = vec![
            Candidate {
                foundation: "1".to_owned(),
                transport: Transport::Udp,
                priority: 2_130_706_431,
                addr: addr("192.0.2.1:5060"),
                kind: CandidateKind::Host,
            },
            Candidate {
                foundation: "2".to_owned(),
                transport: Transport::Udp,
                priority: 1_694_498_815,
                addr: addr("[2001:db8::1]:5060"),
                kind: CandidateKind::ServerReflexive,
            },
        ];
        let relays = vec![Relay {
            node: NodeId([1; 16]),
            token: [2; 16],
            addrs: vec![(Transport::Udp, addr("203.0.113.1:5060")), (Transport::Tcp, addr("203.0.113.1:80"))],
        }];
        let offer = Description {
            candidates: candidates.clone(),
            relays: relays.clone(),
            end_of_candidates: true,
            ..Description::new(1, ice.clone())
        };
        let fragment = Fragment {
            ice,
            candidates: candidates.clone(),
            end_of_candidates: false,
            relays: relays.clone(),
        };
        vec![
            seed("sdp", "offer", offer.encode()),
            seed("sdp", "fragment", fragment.encode()),
            seed("sdp", "candidate", candidates[1].encode()),
            seed("sdp", "relay", relays[0].encode()),
        ]
    }

    fn stun() -> Vec<Seed> {
        use yodel_nat::stun::{Check, binding_answer, binding_request, check_answer};
        let transaction = *b"transaction!";
        let check = Check {
            transaction,
            username: "abcd:efgh",
            priority: 1_845_501_695,
            controlling: true,
            tie_breaker: 1,
            use_candidate: true,
        };
        vec![
            seed("stun", "request", binding_request(transaction).unwrap()),
            seed("stun", "probe", yodel_nat::stun::probe_request(transaction).unwrap()),
            seed("stun", "answer", binding_answer(transaction, addr("203.0.113.7:5060")).unwrap()),
            seed("stun", "answer-v6", binding_answer(transaction, addr("[2001:db8::1]:5060")).unwrap()),
            seed("stun", "check", check.encode("pass").unwrap()),
            seed(
                "stun",
                "check-answer",
                check_answer(transaction, addr("203.0.113.7:5060"), "pass").unwrap(),
            ),
        ]
    }

    fn relay() -> Vec<Seed> {
        use yodel_relay::control::{
            BindKey, Binding, BindingKind, Channel, Control, LegKind, Reason, Token, data,
        };
        let token = Token([2; 16]);
        let channel = Channel::new(0x0102_0304);
        let key = BindKey::derive(&[1; 32], token);
        let bind = Binding { kind: BindingKind::Bind, channel, sequence: 1, cookie: [0; 16] };
        let frames = [
            ("open", Control::Open { token, allow: NodeId([3; 16]) }),
            ("opened", Control::Opened { token, channel }),
            ("join", Control::Join { token }),
            ("joined", Control::Joined { token, channel }),
            ("state", Control::State { token, near: LegKind::Udp, far: Some(LegKind::Tcp), draining: true }),
            ("data", Control::Data { channel, packet: vec![7; 20] }),
            ("close", Control::Close { token, reason: Reason::Finished }),
            ("refused", Control::Refused { token, reason: Reason::Quota }),
        ];
        let mut seeds: Vec<Seed> = frames
            .into_iter()
            .map(|(name, control)| {
                let frame = control.encode();
                seed("relay_frame", name, [vec![frame.kind as u8], frame.body].concat())
            })
            .collect();
        seeds.push(seed("relay_frame", "datagram-data", data(channel, &[7; 20])));
        seeds.push(seed("relay_frame", "datagram-bind", bind.encode(&key)));
        seeds
    }

    fn media() -> Vec<Seed> {
        use yodel_media::report::{Bye, Report};
        use yodel_media::rtp::Header;
        let report = Report {
            hears: true,
            mic_silent: false,
            loss: 12,
            buffer_ms: 40,
            heard: 1_000,
            next: 1_001,
            jitter: 480,
            echo: Some((3, 250_000)),
            sent: 1_001,
            concealed: 2,
        };
        let header = Header { sequence: 1, timestamp: 960, ssrc: 5 };
        vec![
            seed("media_packet", "audio", [header.encode().as_slice(), &[7; 96]].concat()),
            seed("media_packet", "report", report.encode()),
            seed("media_packet", "bye", Bye { reason: 1 }.encode()),
            seed("media_packet", "frame", [[0u8; 6].as_slice(), &[7; 80]].concat()),
            seed("media_packet", "frame-with-redundancy", [[1u8; 6].as_slice(), &[7; 160]].concat()),
        ]
    }

    fn calls() -> Vec<Seed> {
        use yodel_call::contacts::ContactMessage;
        use yodel_call::statement::{AnswerStatement, Kind, OfferStatement, Parties, Party, SUITE, VERSION};
        let party = |name: &str, seed: u8| Party {
            account: name.parse().unwrap(),
            root: Some(SigningKey::from_seed([seed; 32]).public()),
            device: SigningKey::from_seed([seed + 1; 32]).public(),
        };
        let parties = Parties { caller: party("alice@example.net", 1), callee: party("bob@example.net", 3) };
        let offer = OfferStatement {
            kind: Kind::Invite,
            versions: vec![VERSION],
            suites: vec![SUITE],
            parties: parties.clone(),
            call_id: "call-1".to_owned(),
            ephemeral: [5; 32],
            kem: vec![6; 1_184],
            offer_hash: [7; 32],
            nonce: [8; 16],
        };
        let answer = AnswerStatement {
            version: VERSION,
            suite: SUITE,
            offer_hash: [7; 32],
            parties,
            call_id: "call-1".to_owned(),
            ephemeral: [5; 32],
            kem: vec![6; 1_088],
            answer_hash: [9; 32],
        };
        vec![
            seed("handshake", "offer-statement", offer.encode()),
            seed("handshake", "answer-statement", answer.encode()),
            seed("call_box", "first-bytes-of-a-box", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7]),
            seed("handshake", "text", ContactMessage::Text("hello".to_owned()).encode()),
        ]
    }
}
