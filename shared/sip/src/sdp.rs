//! Session descriptions (RFC 8866) for our offer and answer: one audio section with Opus (RFC 7587), ICE credentials
//! and candidates (RFC 8839), our relay lines; and the fragments that trickle further candidates (RFC 8840).
//!
//! ```text
//! v=0
//! o=- 4711 1 IN IP4 0.0.0.0
//! s=-
//! t=0 0
//! a=ice-options:trickle
//! m=audio 9 UDP/YODEL 111
//! c=IN IP4 0.0.0.0
//! a=rtpmap:111 opus/48000/2
//! a=fmtp:111 useinbandfec=1
//! a=ptime:20
//! a=sendrecv
//! a=ice-ufrag:8hhY
//! a=ice-pwd:asd88fgpdd777uzjYhagZg
//! a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host
//! a=yodel-relay:0123…(node id) 4567…(token) udp/203.0.113.1:4000 tcp/203.0.113.1:443
//! ```
//! No address stands outside candidate and relay lines, so an offer to a stranger shows none. Unknown attributes and
//! further media sections are skipped. What is read is bounded before it is stored.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use yodel_identity::node::NodeId;

use crate::limits::{
    CANDIDATES_MAX, RELAY_ADDRS_MAX, RELAYS_MAX, SDP_BYTES_MAX, SDP_LINES_MAX, SDP_MEDIA_MAX,
};

/// The content type of a description.
pub const CONTENT_TYPE: &str = "application/sdp";

/// The content type of a fragment with trickled candidates (RFC 8840 §9).
pub const FRAGMENT_CONTENT_TYPE: &str = "application/trickle-ice-sdpfrag";

/// The transport of our media section: sealed as `media/src/seal.rs` says, with keys from the call's handshake.
pub const PROTOCOL: &str = "UDP/YODEL";

/// Why a text is not a description we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// More bytes or lines than allowed.
    #[error("description is too large")]
    TooLarge,
    /// Not a description: a line without `x=`, not UTF-8, or no `v=0` in front.
    #[error("malformed description")]
    Malformed,
    /// No audio section with Opus that is open.
    #[error("no audio we can speak")]
    NoAudio,
    /// No ICE credentials, or ones outside RFC 8839 §5.4's bounds.
    #[error("no usable ICE credentials")]
    NoCredentials,
}

/// Who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    #[default]
    SendReceive,
    /// The writer of the description only: it holds the call.
    SendOnly,
    /// The reader only.
    ReceiveOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Direction::SendReceive => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::ReceiveOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    fn parse(text: &str) -> Option<Direction> {
        match text {
            "sendrecv" => Some(Direction::SendReceive),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::ReceiveOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }

    /// What answers it (RFC 3264 §6.1).
    #[must_use]
    pub fn answered(self) -> Direction {
        match self {
            Direction::SendReceive => Direction::SendReceive,
            Direction::SendOnly => Direction::ReceiveOnly,
            Direction::ReceiveOnly => Direction::SendOnly,
            Direction::Inactive => Direction::Inactive,
        }
    }
}

/// What carries packets to a candidate or a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }

    fn parse(text: &str) -> Option<Transport> {
        if text.eq_ignore_ascii_case("udp") {
            Some(Transport::Udp)
        } else if text.eq_ignore_ascii_case("tcp") {
            Some(Transport::Tcp)
        } else {
            None
        }
    }
}

/// What kind of address a candidate is (RFC 8445 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// Of an interface.
    Host,
    /// As a STUN server saw it.
    ServerReflexive,
    /// As the peer saw it.
    PeerReflexive,
    /// Of a relay (RFC 8656); we write relays as lines of their own.
    Relayed,
}

impl CandidateKind {
    fn as_str(self) -> &'static str {
        match self {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relayed => "relay",
        }
    }

    fn parse(text: &str) -> Option<CandidateKind> {
        match text {
            "host" => Some(CandidateKind::Host),
            "srflx" => Some(CandidateKind::ServerReflexive),
            "prflx" => Some(CandidateKind::PeerReflexive),
            "relay" => Some(CandidateKind::Relayed),
            _ => None,
        }
    }
}

/// One candidate line (RFC 8839 §5.1). Related addresses are read over and never written: they say more about the
/// writer's network than the reader needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 to 32 ice-chars.
    pub foundation: String,
    /// Always [`Transport::Udp`] in this version; kept for TCP candidates (RFC 6544).
    pub transport: Transport,
    /// 1 to 2^31 − 1.
    pub priority: u32,
    /// Where.
    pub addr: SocketAddr,
    /// What it is.
    pub kind: CandidateKind,
}

impl Candidate {
    /// The attribute without `a=`.
    pub fn encode(&self) -> String {
        format!(
            "candidate:{} 1 {} {} {} {} typ {}",
            self.foundation,
            self.transport.as_str(),
            self.priority,
            self.addr.ip(),
            self.addr.port(),
            self.kind.as_str()
        )
    }

    /// Reads the attribute without `a=`. `None` for what we do not use: other components than 1, names instead of
    /// addresses, unknown transports and kinds, and what is malformed (RFC 8839 §5.1: to be ignored).
    pub fn parse(attribute: &str) -> Option<Candidate> {
        let mut words = attribute.strip_prefix("candidate:")?.split(' ').filter(|word| !word.is_empty());
        let foundation = words.next().filter(|text| is_ice_chars(text, 1, 32))?.to_owned();
        if words.next()? != "1" {
            return None;
        }
        let transport = Transport::parse(words.next()?)?;
        let priority = words.next()?.parse().ok().filter(|priority| (1..1 << 31).contains(priority))?;
        let ip: IpAddr = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
        if words.next()? != "typ" {
            return None;
        }
        let kind = CandidateKind::parse(words.next()?)?;
        Some(Candidate { foundation, transport, priority, addr: SocketAddr::new(ip, port), kind })
    }
}

/// A relay session that the writer opened and the reader may join.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// The supernode.
    pub node: NodeId,
    /// The session's token.
    pub token: [u8; 16],
    /// Where it is reached, at most [`RELAY_ADDRS_MAX`].
    pub addrs: Vec<(Transport, SocketAddr)>,
}

/// Without the token, which admits to the session.
impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({} addresses)", self.addrs.len())
    }
}

impl Relay {
    /// The attribute without `a=`.
    pub fn encode(&self) -> String {
        let mut out = format!("yodel-relay:{} {}", hex(&self.node.0), hex(&self.token));
        for (transport, addr) in self.addrs.iter().take(RELAY_ADDRS_MAX) {
            // Writing to a String cannot fail.
            let _ = write!(out, " {}/{addr}", transport.as_str());
        }
        out
    }

    /// Reads the attribute without `a=`; addresses of unknown transports are skipped.
    pub fn parse(attribute: &str) -> Option<Relay> {
        let mut words = attribute.strip_prefix("yodel-relay:")?.split(' ');
        let node = NodeId(unhex(words.next()?)?);
        let token = unhex(words.next()?)?;
        let mut addrs = Vec::new();
        for word in words.take(RELAY_ADDRS_MAX) {
            let (transport, addr) = word.split_once('/')?;
            if let Some(transport) = Transport::parse(transport) {
                addrs.push((transport, addr.parse().ok()?));
            }
        }
        Some(Relay { node, token, addrs })
    }
}

/// ICE user fragment and password (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 ice-chars.
    pub ufrag: String,
    /// 22 to 256 ice-chars.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceCredentials")
    }
}

/// An offer or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The same for all descriptions of one side of a call.
    pub session_id: u64,
    /// Ascends with each new description of this side.
    pub version: u64,
    /// Who sends.
    pub direction: Direction,
    /// The payload type that stands for Opus, 96 to 127.
    pub opus_payload_type: u8,
    /// For the checks.
    pub ice: IceCredentials,
    /// At most [`CANDIDATES_MAX`], best first.
    pub candidates: Vec<Candidate>,
    /// Whether no further candidates follow.
    pub end_of_candidates: bool,
    /// At most [`RELAYS_MAX`], best first.
    pub relays: Vec<Relay>,
}

impl Description {
    /// A description with these credentials and nothing else.
    pub fn new(session_id: u64, ice: IceCredentials) -> Description {
        Description {
            session_id,
            version: 1,
            direction: Direction::SendReceive,
            opus_payload_type: 111,
            ice,
            candidates: Vec::new(),
            end_of_candidates: false,
            relays: Vec::new(),
        }
    }

    /// Writes it out.
    pub fn encode(&self) -> Vec<u8> {
        let pt = self.opus_payload_type;
        let mut out = format!(
            "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-options:trickle\r\n\
             m=audio 9 {PROTOCOL} {pt}\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:{pt} opus/48000/2\r\n\
             a=fmtp:{pt} useinbandfec=1\r\na=ptime:20\r\na={}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
            self.session_id,
            self.version,
            self.direction.as_str(),
            self.ice.ufrag,
            self.ice.pwd,
        );
        write_candidates(&mut out, &self.candidates, self.end_of_candidates);
        write_relays(&mut out, &self.relays);
        out.into_bytes()
    }

    /// Reads a description: the first open audio section with Opus, credentials there or at session level.
    ///
    /// # Errors
    /// Any [`SdpError`].
    pub fn parse(bytes: &[u8]) -> Result<Description, SdpError> {
        let lines = lines(bytes)?;
        let mut lines = lines.into_iter();
        if lines.next() != Some(('v', "0")) {
            return Err(SdpError::Malformed);
        }
        let mut session = Section::default();
        let mut media: Vec<Section<'_>> = Vec::new();
        let mut origin = None;
        for (kind, value) in lines {
            match kind {
                'o' if origin.is_none() && media.is_empty() => origin = Some(parse_origin(value)?),
                'm' => {
                    if media.len() == SDP_MEDIA_MAX {
                        return Err(SdpError::TooLarge);
                    }
                    media.push(Section { media: value, attributes: Vec::new() });
                }
                'a' => media.last_mut().unwrap_or(&mut session).attributes.push(value),
                _ => {}
            }
        }
        let (session_id, version) = origin.ok_or(SdpError::Malformed)?;
        let (section, opus_payload_type) =
            media.iter().find_map(|section| Some((section, section.opus()?))).ok_or(SdpError::NoAudio)?;
        let either = |name| section.value(name).or(session.value(name));
        let direction = section.direction().or(session.direction()).unwrap_or_default();
        Ok(Description {
            session_id,
            version,
            direction,
            opus_payload_type,
            ice: credentials(either("ice-ufrag:"), either("ice-pwd:"))?,
            candidates: section.candidates(),
            end_of_candidates: section.has("end-of-candidates"),
            relays: section.relays(),
        })
    }
}

/// Candidates that follow an offer or an answer (RFC 8840 §9), and relays that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Of the generation that they belong to.
    pub ice: IceCredentials,
    /// At most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// Whether no further candidates follow.
    pub end_of_candidates: bool,
    /// At most [`RELAYS_MAX`].
    pub relays: Vec<Relay>,
}

impl Fragment {
    /// Writes it out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ice.ufrag, self.ice.pwd);
        // RFC 8840 §9.2: a pseudo m-line so that a media-level attribute has a section.
        out.push_str("m=audio 9 RTP/AVP 0\r\n");
        write_candidates(&mut out, &self.candidates, self.end_of_candidates);
        write_relays(&mut out, &self.relays);
        out.into_bytes()
    }

    /// Reads a fragment.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`, `NoCredentials`.
    pub fn parse(bytes: &[u8]) -> Result<Fragment, SdpError> {
        let mut all = Section::default();
        for (kind, value) in lines(bytes)? {
            if kind == 'a' {
                all.attributes.push(value);
            }
        }
        Ok(Fragment {
            ice: credentials(all.value("ice-ufrag:"), all.value("ice-pwd:"))?,
            candidates: all.candidates(),
            end_of_candidates: all.has("end-of-candidates"),
            relays: all.relays(),
        })
    }
}

/// A media section, or the lines before the first.
#[derive(Default)]
struct Section<'a> {
    media: &'a str,
    attributes: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn value(&self, prefix: &str) -> Option<&'a str> {
        self.attributes.iter().find_map(|attribute| attribute.strip_prefix(prefix))
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.contains(&name)
    }

    fn direction(&self) -> Option<Direction> {
        self.attributes.iter().find_map(|attribute| Direction::parse(attribute))
    }

    /// The payload type of Opus, when this is an open audio section of ours that lists it.
    fn opus(&self) -> Option<u8> {
        let mut words = self.media.split(' ');
        if words.next()? != "audio" || words.next()? == "0" || words.next()? != PROTOCOL {
            return None;
        }
        let listed: Vec<&str> = words.collect();
        self.attributes.iter().find_map(|attribute| {
            let (pt, codec) = attribute.strip_prefix("rtpmap:")?.split_once(' ')?;
            let number = pt.parse().ok().filter(|number| (96..128).contains(number))?;
            (listed.contains(&pt) && codec.eq_ignore_ascii_case("opus/48000/2")).then_some(number)
        })
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.attributes
            .iter()
            .filter_map(|attribute| Candidate::parse(attribute))
            .take(CANDIDATES_MAX)
            .collect()
    }

    fn relays(&self) -> Vec<Relay> {
        self.attributes.iter().filter_map(|attribute| Relay::parse(attribute)).take(RELAYS_MAX).collect()
    }
}

/// Splits into `x=value` lines. Line ends are CRLF, or LF alone as RFC 8866 §5 asks a reader to take.
fn lines(bytes: &[u8]) -> Result<Vec<(char, &str)>, SdpError> {
    if bytes.len() > SDP_BYTES_MAX {
        return Err(SdpError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| SdpError::Malformed)?;
    if text.contains('\0') {
        return Err(SdpError::Malformed);
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut out = Vec::new();
    for line in text.split('\n') {
        if out.len() == SDP_LINES_MAX {
            return Err(SdpError::TooLarge);
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (kind, value) = line.split_once('=').ok_or(SdpError::Malformed)?;
        match kind.as_bytes() {
            [letter] if letter.is_ascii_lowercase() => out.push((char::from(*letter), value)),
            _ => return Err(SdpError::Malformed),
        }
    }
    Ok(out)
}

/// `- session-id version IN IP4 address`; numbers above 64 bits are refused.
fn parse_origin(value: &str) -> Result<(u64, u64), SdpError> {
    let mut words = value.split(' ').skip(1).map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(session_id)), Some(Ok(version))) => Ok((session_id, version)),
        _ => Err(SdpError::Malformed),
    }
}

fn credentials(ufrag: Option<&str>, pwd: Option<&str>) -> Result<IceCredentials, SdpError> {
    match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) if is_ice_chars(ufrag, 4, 256) && is_ice_chars(pwd, 22, 256) => {
            Ok(IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
        }
        _ => Err(SdpError::NoCredentials),
    }
}

fn is_ice_chars(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn write_candidates(out: &mut String, candidates: &[Candidate], end: bool) {
    for candidate in candidates.iter().take(CANDIDATES_MAX) {
        let _ = write!(out, "a={}\r\n", candidate.encode());
    }
    if end {
        out.push_str("a=end-of-candidates\r\n");
    }
}

fn write_relays(out: &mut String, relays: &[Relay]) {
    for relay in relays.iter().take(RELAYS_MAX) {
        let _ = write!(out, "a={}\r\n", relay.encode());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Exactly 32 lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests;
