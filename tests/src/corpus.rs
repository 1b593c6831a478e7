//! What every decoder must survive, whatever the bytes. One function per fuzz target; `tests/fuzz` feeds them from
//! libFuzzer, `tests/tests/corpus.rs` replays the kept inputs on stable.
//!
//! Nothing here may panic. Besides, what was read is written again and must read the same: a decoder and an encoder
//! that disagree are two formats. This file knows the pure crates alone, so that fuzz targets build quickly.

use std::fmt::Debug;
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use yodel_identity::account::{AccountCertificateFields, AccountRecordFields};
use yodel_identity::bulletin::{BulletinFields, BulletinWanted, RevokedPageFields};
use yodel_identity::credential::CredentialFields;
use yodel_identity::invitation::Invitation;
use yodel_identity::keys::{PublicKey, SealingKey, SigningKey};
use yodel_identity::login::{self, Body, RenewalFields};
use yodel_identity::name::{AccountName, Aor, RealmName};
use yodel_identity::opaque::OpaqueServer;
use yodel_identity::realm::{Realm, RootStatementFields};
use yodel_identity::signed::{Record, Signed};
use yodel_wire::frame::{Frame, FrameDecoder, FrameKind};
use yodel_wire::time::{Instant, Now, UnixTime};

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// As in `tests/fuzz/fuzz_targets` and `tests/fuzz/seeds`.
    pub name: &'static str,
    /// What is fed.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame },
    Target { name: "name", run: name },
    Target { name: "credential", run: credential },
    Target { name: "account_record", run: account_record },
    Target { name: "bulletin", run: bulletin },
    Target { name: "login", run: login },
    Target { name: "contact_record", run: contact_record },
    Target { name: "attach", run: attach },
    Target { name: "overlay_message", run: overlay_message },
    Target { name: "sealed", run: sealed },
    Target { name: "sip", run: sip },
    Target { name: "envelope", run: envelope },
    Target { name: "sdp", run: sdp },
    Target { name: "stun", run: stun },
    Target { name: "relay_frame", run: relay_frame },
    Target { name: "media_packet", run: media_packet },
    Target { name: "handshake", run: handshake },
    Target { name: "call_box", run: call_box },
];

const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)), 5060);

/// The stream of a link: cut anywhere, it gives the same frames, and what they are written as is what was read.
pub fn frame(data: &[u8]) {
    let read = |chunk: usize| {
        let mut decoder = FrameDecoder::new();
        let mut frames = Vec::new();
        for bytes in data.chunks(chunk) {
            decoder.push(bytes);
            loop {
                match decoder.poll() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    };
    let whole = read(data.len().max(1));
    assert_eq!(whole, read(7));
    let mut written = Vec::new();
    for frame in &whole.0 {
        assert!(frame.encode(&mut written).is_ok());
    }
    // Frames of later kinds are skipped, so what was written may be shorter; it is never anything else.
    let mut rest = data.iter();
    assert!(written.iter().all(|byte| rest.any(|other| other == byte)));
}

/// Names as people type them: mapping twice is mapping once, and the result is the wire's form.
pub fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = AccountName::parse(text) {
        assert_eq!(AccountName::exact(name.as_str()).as_ref(), Ok(&name));
    }
    if let Ok(name) = RealmName::parse(text) {
        assert_eq!(RealmName::exact(name.as_str()).as_ref(), Ok(&name));
    }
    if let Ok(aor) = Aor::parse(text) {
        assert_eq!(Aor::exact(&aor.to_string()).as_ref(), Ok(&aor));
    }
    if let Ok(invitation) = text.parse::<Invitation>() {
        assert_eq!(invitation.to_string().parse(), Ok(invitation));
    }
}

/// Credentials, requests for their renewal, and the verifier's look at them.
pub fn credential(data: &[u8]) {
    record::<CredentialFields>(data);
    record::<RenewalFields>(data);
    assert!(realm().verify_credential(data, UnixTime::from_secs(1)).is_err());
}

/// Account records and the certificate in them.
pub fn account_record(data: &[u8]) {
    record::<AccountRecordFields>(data);
    record::<AccountCertificateFields>(data);
    assert!(realm().verify_account_record(data, UnixTime::from_secs(1)).is_err());
}

/// Bulletins, pages of the revoked set, root statements.
pub fn bulletin(data: &[u8]) {
    record::<BulletinFields>(data);
    record::<RevokedPageFields>(data);
    record::<RootStatementFields>(data);
    let mut realm = realm();
    assert!(realm.accept_statement(data, UnixTime::from_secs(1)).is_err());
    assert!(realm.accept_bulletin(data, UnixTime::from_secs(1)).is_err());
    assert!(realm.accept_revoked_page(data, UnixTime::from_secs(1)).is_err());
    again(BulletinWanted::decode(data), BulletinWanted::encode, BulletinWanted::decode);
}

/// The bodies of the login server's frames, and the messages of OPAQUE in them.
pub fn login(data: &[u8]) {
    fn body<B: Body + PartialEq + Debug>(data: &[u8]) {
        again(B::decode(data), B::encode, B::decode);
    }
    body::<login::LoginHello>(data);
    body::<login::LoginRefused>(data);
    body::<login::RegisterStart>(data);
    body::<login::RegisterResponse>(data);
    body::<login::RegisterFinish>(data);
    body::<login::LoginStart>(data);
    body::<login::LoginResponse>(data);
    body::<login::LoginFinish>(data);
    body::<login::Enrolled>(data);
    body::<login::AccountRecordOffer>(data);
    body::<login::AccountRecordKept>(data);
    body::<login::SupernodeEnrol>(data);
    body::<login::SupernodeEnrolled>(data);
    body::<login::SupernodeState>(data);
    opaque(data);
}

fn opaque(data: &[u8]) {
    use std::sync::LazyLock;

    static SERVER: LazyLock<(OpaqueServer, Aor)> = LazyLock::new(|| {
        let server = OpaqueServer::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        (server, Aor::parse("alice@example.net").expect("a name"))
    });
    let (server, aor) = &*SERVER;
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let _ = server.register(aor, data);
    if let Ok(record) = server.record(data) {
        assert_eq!(record, data);
    }
    if let Ok((pending, _)) = server.login(&mut rng, aor, &[3; 32], None, data) {
        assert!(pending.finish(data).is_err());
    }
}

/// Contact entries and the frames that write and read records.
pub fn contact_record(data: &[u8]) {
    use yodel_overlay::record::{Answer, ContactEntryFields, ReadRequest, WriteRequest, Written};

    record::<ContactEntryFields>(data);
    again(WriteRequest::decode(data), |r| r.encode().body, WriteRequest::decode);
    again(Written::decode(data), |r| r.encode().body, Written::decode);
    again(ReadRequest::decode(data), |r| r.encode().body, ReadRequest::decode);
    again(Answer::decode(data), |r| r.encode().body, Answer::decode);
}

/// The first frames of a link, and those that keep it.
pub fn attach(data: &[u8]) {
    use yodel_overlay::attach::{Hello, Ping, Pong, Refuse, Welcome};

    again(Hello::decode(data), |r| r.encode().body, Hello::decode);
    again(Welcome::decode(data), |r| r.encode().body, Welcome::decode);
    again(Refuse::decode(data), |r| r.encode_refuse().body, Refuse::decode);
    again(Ping::decode(data), |r| r.encode().body, Ping::decode);
    again(Pong::decode(data), |r| r.encode().body, Pong::decode);
}

/// What members say to each other in datagrams, and the cards by which they know each other.
pub fn overlay_message(data: &[u8]) {
    use yodel_overlay::card::{AnnouncementFields, Card, CardsWanted, decode_cards};
    use yodel_overlay::message::Message;

    if let Ok(message) = Message::decode(data) {
        let written = message.encode();
        assert_eq!(written.as_deref().map(Message::decode), Some(Ok(message)));
    }
    record::<AnnouncementFields>(data);
    again(CardsWanted::decode(data), |r| r.encode().body, CardsWanted::decode);
    let _ = decode_cards(data);
    assert!(Card::decode(&realm(), data).is_err());
}

/// Sealed datagrams: only the one that was sealed opens.
pub fn sealed(data: &[u8]) {
    use yodel_identity::node::NodeId;
    use yodel_overlay::sealed::{Exchange, NotOpened, SEALED_OVERHEAD_BYTES, peek};

    let sender = (NodeId([1; 16]), SealingKey::from_bytes([3; 32]).public());
    let mut exchange = Exchange::new(NodeId([2; 16]), [8; 8], 4);
    exchange.set_own(Instant::ORIGIN, &[SealingKey::from_bytes([4; 32])]);
    let key_of = |node| (node == sender.0).then_some(sender.1);
    let looked = peek(data);
    match exchange.open(Instant::ORIGIN, data, key_of) {
        Ok((node, text)) => {
            assert_eq!((node, text.len() + SEALED_OVERHEAD_BYTES), (sender.0, data.len()));
            assert_eq!(looked, Ok((node, text.len())));
        }
        Err(error @ (NotOpened::Malformed | NotOpened::Version(_))) => assert_eq!(looked, Err(error)),
        Err(NotOpened::Forged(_)) => assert_eq!(exchange.agreements(), 1),
        Err(
            NotOpened::Stranger(_) | NotOpened::SenderKey(_) | NotOpened::ReceiverKey(_) | NotOpened::Busy(_),
        ) => assert_eq!(exchange.agreements(), 0),
    }
}

/// SIP messages (RFC 3261), which survive forwarding as they came.
pub fn sip(data: &[u8]) {
    use yodel_sip::message::Message;

    // Writing puts Content-Length right; from then on nothing changes any more.
    if let Ok(message) = Message::frame(data) {
        let written = message.encode();
        match Message::frame(&written) {
            Ok(twice) => assert_eq!(twice.encode(), written),
            Err(error) => panic!("{error:?} after writing {:?}", String::from_utf8_lossy(&written)),
        }
    }
    if let Ok(message) = Message::parse(data) {
        assert!(Message::frame(data).is_ok());
        let _ = message.headers();
        match &message {
            Message::Request(request) => {
                let _ = (request.call_id(), request.cseq(), request.from(), request.to_address());
                let _ = (request.vias(), request.branch(), request.contact(), request.content_type());
                let _ = (request.max_forwards(), request.in_dialog());
                if request.method == yodel_sip::method::Method::Invite {
                    assert!(Message::parse(&request.cancel().encode()).is_ok());
                }
            }
            Message::Response(response) => {
                let _ = (response.call_id(), response.cseq(), response.from(), response.to_address());
                let _ = (response.vias(), response.branch(), response.contact(), response.content_type());
            }
        }
    }
}

/// The frames that carry SIP messages.
pub fn envelope(data: &[u8]) {
    use yodel_sip::envelope::{Envelope, Return};

    again(Envelope::decode(data), Envelope::encode, Envelope::decode);
    again(Return::decode(data), Return::encode, Return::decode);
}

/// Session descriptions and their fragments (RFC 8866, 8839, 8840).
pub fn sdp(data: &[u8]) {
    use yodel_sip::sdp::{Candidate, Description, Fragment, Relay};

    again(Description::parse(data), Description::encode, Description::parse);
    again(Fragment::parse(data), Fragment::encode, Fragment::parse);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (Candidate::parse(text), Relay::parse(text));
    }
}

/// STUN messages (RFC 8489), at the public server and at an agent. The server's answer is small.
pub fn stun(data: &[u8]) {
    use yodel_nat::{server, stun};

    if let Some(answer) = server::answer(FROM, data) {
        assert!(answer.len() * 10 <= data.len() * 16, "{} for {}", answer.len(), data.len());
    }
    if let Some(peek) = stun::peek(data) {
        assert!(stun::open(data, &peek, "another password of 22 characters").is_none());
        let _ = stun::open(data, &peek, "pass");
    }
    let _ = stun::open_unverified(data);
}

/// Everything a relay or its client reads: frames (by kind in the first byte) and datagrams.
pub fn relay_frame(data: &[u8]) {
    use yodel_relay::control::{
        BindKey, Binding, Control, Token, data as data_datagram, parse_data, token_of,
    };

    if let Some((kind, body)) = data.split_first()
        && let Some(kind) = FrameKind::from_u8(*kind)
    {
        let frame = Frame::new(kind, body.to_vec());
        let _ = token_of(&frame);
        if let Ok(Some(control)) = Control::decode(&frame) {
            let written = control.encode();
            assert_eq!(written.kind, kind);
            assert_eq!(Control::decode(&written), Ok(Some(control)));
        }
    }
    if let Some((channel, packet)) = parse_data(data) {
        assert_eq!(data_datagram(channel, packet), data);
    }
    let key = BindKey::derive(&[1; 32], Token([2; 16]));
    assert!(!Binding::check(data, &key) || data.len() == Binding::parse(data).map_or(0, |_| data.len()));
    if let Some(binding) = Binding::parse(data) {
        let written = binding.encode(&key);
        assert_eq!(Binding::parse(&written), Some(binding));
        assert!(Binding::check(&written, &key));
    }
}

/// Media packets: as they come from the network, and what an authentic peer may have sealed into them.
pub fn media_packet(data: &[u8]) {
    use yodel_media::limits::PAYLOAD_BYTES_MAX;
    use yodel_media::report::{Bye, Report};
    use yodel_media::rtp::Header;
    use yodel_media::seal::{Sealer, Stream, ssrc};
    use yodel_media::{Ends, MediaKeys, NarrowCodec, Session, SessionConfig};

    let _ = Session::ssrc_of(data);
    if let Some((header, bytes, _)) = Header::parse(data) {
        assert_eq!(header.encode(), *bytes);
    }
    if let Some(report) = Report::decode(data) {
        assert_eq!(Report::decode(&report.encode()), Some(report));
    }
    if let Some(bye) = Bye::decode(data) {
        assert_eq!(Bye::decode(&bye.encode()), Some(bye));
    }

    let keys = MediaKeys { send: [1; 32], receive: [2; 32] };
    let at = |millis: u64| Now {
        mono: Instant::from_micros(1_000 * millis),
        unix: UnixTime::from_millis(1_767_225_600_000 + millis),
    };
    let audio = Ends::Audio { codec: Box::new(NarrowCodec::new()), end: Box::new(Silence) };
    let mut session = Session::new(at(0), SessionConfig { keys: keys.clone(), audio }, [0; 32]);
    assert!(!session.handle_packet(at(1), data).authentic());

    // Two bytes of sequence, four of timestamp, the payload: the peer seals what it likes.
    if let Some(([s0, s1, t0, t1, t2, t3], payload)) = data.split_first_chunk::<6>()
        && payload.len() <= PAYLOAD_BYTES_MAX
    {
        let mut sealer = Sealer::new(&keys.receive, Stream::Audio);
        let skip = u64::from(u16::from_be_bytes([*s0, *s1])) % 64;
        for _ in 0..skip {
            let _ = sealer.seal(&mut Vec::new(), 0);
        }
        let header = Header {
            sequence: u16::try_from(sealer.next_index()).unwrap_or_default(),
            timestamp: u32::from_be_bytes([*t0, *t1, *t2, *t3]),
            ssrc: ssrc(&keys.receive),
        };
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(payload);
        assert!(sealer.seal(&mut packet, 12).is_ok());
        assert!(session.handle_packet(at(2), &packet).authentic());
        assert!(!session.handle_packet(at(3), &packet).authentic(), "a replay");
    }
    if !data.is_empty() && data.len() <= PAYLOAD_BYTES_MAX {
        for kind in [yodel_media::report::Kind::Report, yodel_media::report::Kind::Bye] {
            let mut sealer = Sealer::new(&keys.receive, Stream::Control);
            let index = u32::try_from(sealer.next_index()).unwrap_or_default();
            let header = yodel_media::report::Header { kind, ssrc: ssrc(&keys.receive), index };
            let mut packet = header.encode().to_vec();
            packet.extend_from_slice(data);
            assert!(sealer.seal(&mut packet, 12).is_ok());
            let _ = session.handle_packet(at(4), &packet);
        }
    }
    for tick in 1..8 {
        session.handle_timeout(at(20 * tick));
        while session.poll_output().is_some() {}
    }
}

struct Silence;

impl yodel_media::AudioEnd for Silence {
    fn capture(&mut self, pcm: &mut [f32; yodel_media::FRAME_SAMPLES]) {
        pcm.fill(0.0);
    }

    fn play(&mut self, pcm: &[f32; yodel_media::FRAME_SAMPLES], _heard: bool) {
        assert!(pcm.iter().all(|sample| sample.is_finite()));
    }
}

/// What an INVITE or MESSAGE carries, before it opens, and what may be signed or boxed in it.
pub fn handshake(data: &[u8]) {
    use yodel_call::contacts::ContactMessage;
    use yodel_call::handshake::Hello;
    use yodel_call::statement::{AnswerStatement, OfferStatement};

    again(OfferStatement::decode(data), OfferStatement::encode, OfferStatement::decode);
    again(AnswerStatement::decode(data), AnswerStatement::encode, AnswerStatement::decode);
    again(ContactMessage::decode(data), ContactMessage::encode, ContactMessage::decode);

    if let Ok(hello) = Hello::parse(data) {
        let sealing = SealingKey::from_bytes([7; 32]);
        let _ = hello.open(&sealing, &PublicKey([8; 32]), "call-id");
    }
}

/// What a peer seals: an INVITE's parts and a box may hold anything, and come out as they went in; bytes that nobody
/// sealed open nowhere.
pub fn call_box(data: &[u8]) {
    use yodel_call::boxes::{Opened, Sealed};
    use yodel_call::handshake::{Callee, CallerProof, Hello, Initiator};
    use yodel_call::limits::SEALED_SDP_BYTES_MAX;
    use yodel_call::statement::{Kind, Parties, Party};
    use yodel_call::timeline::Method;

    let (alice, bob) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
    let sealing = SealingKey::from_bytes([7; 32]);
    let party = |name: &str, key: &SigningKey| Party {
        account: Aor::parse(name).expect("a name"),
        root: Some(key.public()),
        device: key.public(),
    };
    let parties =
        Parties { caller: party("alice@example.net", &alice), callee: party("bob@example.net", &bob) };
    let part = data.len().min(300);
    let proof = CallerProof {
        credential: data.get(..part).unwrap_or_default().to_vec(),
        record: data.get(part / 2..part).unwrap_or_default().to_vec(),
    };
    let offer = data.get(..data.len().min(SEALED_SDP_BYTES_MAX)).unwrap_or_default();
    let callee = Callee { sealing: sealing.public(), credential_hash: [3; 32], nonce: [4; 16] };
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let (_, body, mut caller) =
        Initiator::start(&mut rng, Kind::Message, &alice, &proof, parties.clone(), &callee, "call-1", offer)
            .expect("our own keys");
    let hello = Hello::parse(&body).expect("our own hello");
    let (responder, mut boxes) = hello.open(&sealing, &bob.public(), "call-1").expect("sealed for this key");
    assert!(responder.check(Kind::Message, &parties, "call-1").is_ok());
    assert_eq!((&responder.proof, responder.offer.as_slice()), (&proof, offer));

    for (method, status) in [(Method::Invite, 180), (Method::Bye, 0)] {
        assert!(!matches!(boxes.open(method, status, data), Opened::Fresh(_)));
    }
    let sealed = Sealed::request(Method::Info, 2).with(offer.to_vec());
    let bytes = caller.seal(&sealed);
    assert_eq!(boxes.open(Method::Info, 0, &bytes), Opened::Fresh(sealed));
    assert!(!matches!(boxes.open(Method::Info, 0, &bytes), Opened::Fresh(_)), "a replay");
}

/// A signed record as it came, and a body as somebody with the key could have signed it.
fn record<T: Record + PartialEq + Debug>(data: &[u8]) {
    if let Ok(signed) = Signed::<T>::decode_unverified(data) {
        assert_eq!(signed.bytes(), data);
        assert!(signed.verify_with(&PublicKey([0; 32])).is_err());
        again(T::decode(&signed.fields().encode()), T::encode, T::decode);
    }
    again(T::decode(data), T::encode, T::decode);
}

/// What was read is written and read again.
fn again<T: PartialEq + Debug, E: Debug>(
    read: Result<T, E>,
    write: impl Fn(&T) -> Vec<u8>,
    decode: impl for<'b> Fn(&'b [u8]) -> Result<T, E>,
) {
    if let Ok(value) = read {
        let written = write(&value);
        match decode(&written) {
            Ok(twice) => assert_eq!(twice, value),
            Err(error) => panic!("{value:?} reads as {error:?} when written again"),
        }
    }
}

fn realm() -> Realm {
    Realm::new(RealmName::parse("example.net").expect("a name"), PublicKey([9; 32]))
}
