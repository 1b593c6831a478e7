//! SIP messages: our own types, and the one place that names a parser.
//!
//! [`Message::parse`] takes what may be acted on: framed, bounded, and with the fields that RFC 3261 §8.1.1 demands,
//! each once. [`Message::frame`] takes whatever frames, for who must answer or forward a message that is wrong. A
//! message that was read is written back byte for byte, unknown methods, schemes, fields and their order included.

use sipx_sip::TypedHeader;
use sipx_sip::headers as sipx_headers;

use crate::headers::{Header, Headers};
use crate::limits::{FOLDS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, MESSAGE_BYTES_MAX, TOKEN_BYTES_MAX, VIAS_MAX};
use crate::method::{Method, Status};
use crate::uri::{CSeq, Host, NameAddr, Params, SipUri, Uri, Via};

/// Why bytes are not a message that may be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`MESSAGE_BYTES_MAX`], or a field longer or folded more often than allowed.
    #[error("message is too large")]
    TooLarge,
    /// More than [`HEADERS_MAX`] fields.
    #[error("message has too many header fields")]
    TooManyHeaders,
    /// The first line is neither a request line nor a status line.
    #[error("malformed start line")]
    StartLine,
    /// A line that is no header field.
    #[error("malformed header field")]
    HeaderSyntax,
    /// No end of headers, or a body that is not as long as Content-Length says.
    #[error("message cannot be framed")]
    Framing,
    /// Not SIP/2.0.
    #[error("not SIP/2.0")]
    Version,
    /// A required field is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that may be there once is there more often.
    #[error("{0} is repeated")]
    Repeated(&'static str),
    /// A field's value is not what it should be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// CSeq names another method than the request line.
    #[error("CSeq names another method")]
    MethodMismatch,
}

impl ParseError {
    /// What to answer (RFC 3261 §21).
    pub fn status(self) -> Status {
        match self {
            ParseError::TooLarge | ParseError::TooManyHeaders => Status::MESSAGE_TOO_LARGE,
            ParseError::Version => Status::VERSION_NOT_SUPPORTED,
            ParseError::StartLine
            | ParseError::HeaderSyntax
            | ParseError::Framing
            | ParseError::Missing(_)
            | ParseError::Repeated(_)
            | ParseError::Malformed(_)
            | ParseError::MethodMismatch => Status::BAD_REQUEST,
        }
    }
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of whom.
    pub uri: Uri,
    /// The header fields. [`Request::encode`] sets Content-Length right, and adds it to messages of our own.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    wire: Wire,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: Status,
    /// The reason phrase, for people only. Bytes, because phones send what they like.
    pub reason: Vec<u8>,
    /// The header fields. [`Response::encode`] sets Content-Length right, and adds it to messages of our own.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    wire: Wire,
}

/// What has to be remembered of a message that was read, so that it can be written back as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wire {
    /// The version, when it is not `SIP/2.0` in capitals.
    version: Option<String>,
    /// It said no Content-Length: the body runs to the end (RFC 3261 §20.14).
    no_length: bool,
}

impl Wire {
    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("SIP/2.0")
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({}, {} bytes)", self.method, self.body.len())
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

/// What every request of ours needs (RFC 3261 §8.1.1).
#[derive(Clone, Debug)]
pub struct RequestParts<'a> {
    /// What is asked.
    pub method: Method,
    /// Of whom; also decides nothing else: routing is the envelope's.
    pub uri: Uri,
    /// Who asks, with its tag.
    pub from: &'a NameAddr,
    /// Who is asked, with its tag inside a dialog.
    pub to: &'a NameAddr,
    /// The call.
    pub call_id: &'a str,
    /// The number of the request in this direction.
    pub cseq: u32,
    /// The transaction's name; see [`crate::ids::Ids::branch`].
    pub branch: &'a str,
}

impl Request {
    /// A request of our own. Via names no address: `yodel.invalid`, since answers go by envelope.
    pub fn new(parts: &RequestParts<'_>) -> Request {
        let mut headers = Headers::new();
        headers.add("Via", &format!("SIP/2.0/YODEL yodel.invalid;branch={}", parts.branch));
        headers.add("Max-Forwards", "70");
        headers.add("From", &parts.from.to_string());
        headers.add("To", &parts.to.to_string());
        headers.add("Call-ID", parts.call_id);
        headers.add("CSeq", &CSeq { number: parts.cseq, method: parts.method.clone() }.to_string());
        Request {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers,
            body: Vec::new(),
            wire: Wire::default(),
        }
    }

    /// The same with a body of this type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: Vec<u8>) -> Request {
        self.headers.set("Content-Type", content_type);
        self.body = body;
        self
    }

    /// Writes it out.
    pub fn encode(&self) -> Vec<u8> {
        let line = format!("{} {} {}", self.method, self.uri, self.wire.version());
        encode(line.as_bytes(), &self.headers, &self.body, &self.wire)
    }

    /// The CANCEL for this INVITE (RFC 3261 §9.1): same Request-URI, Call-ID, To, From, number and branch.
    pub fn cancel(&self) -> Request {
        self.sibling(Method::Cancel, None)
    }

    /// The ACK for a final answer to this INVITE that is no 2xx (RFC 3261 §17.1.1.3).
    pub fn ack_for(&self, response: &Response) -> Request {
        self.sibling(Method::Ack, response.headers.first("To"))
    }

    fn sibling(&self, method: Method, to: Option<&Header>) -> Request {
        let mut headers = Headers::new();
        let own = |name| self.headers.first(name);
        let fields = [own("Via"), own("From"), to.or(own("To")), own("Call-ID")];
        for header in fields.into_iter().flatten() {
            headers.push(header.clone());
        }
        for header in self.headers.all("Route") {
            headers.push(header.clone());
        }
        headers.add("Max-Forwards", "70");
        let number = own("CSeq").and_then(parse_cseq).map_or(0, |cseq| cseq.number);
        headers.add("CSeq", &CSeq { number, method: method.clone() }.to_string());
        Request { method, uri: self.uri.clone(), headers, body: Vec::new(), wire: Wire::default() }
    }
}

impl Response {
    /// An answer to `request` (RFC 3261 §8.2.6): its Via, From, To, Call-ID and CSeq; `to_tag` is added to To when it
    /// has none, except in a 100.
    pub fn to(request: &Request, status: Status, to_tag: Option<&str>) -> Response {
        let mut headers = Headers::new();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for header in request.headers.all(name) {
                headers.push(header.clone());
            }
        }
        if let (Some(tag), Some(to)) = (to_tag, headers.first("To").and_then(address_of))
            && status != Status::TRYING
            && to.tag().is_none()
        {
            headers.set("To", &to.with_tag(tag).to_string());
        }
        Response { status, reason: status.reason().into(), headers, body: Vec::new(), wire: Wire::default() }
    }

    /// The same with a body of this type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: Vec<u8>) -> Response {
        self.headers.set("Content-Type", content_type);
        self.body = body;
        self
    }

    /// Writes it out.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = format!("{} {} ", self.wire.version(), self.status).into_bytes();
        line.extend(self.reason.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
        encode(&line, &self.headers, &self.body, &self.wire)
    }
}

fn encode(start_line: &[u8], headers: &Headers, body: &[u8], wire: &Wire) -> Vec<u8> {
    let mut out = start_line.to_vec();
    out.extend_from_slice(b"\r\n");
    let length = body.len().to_string();
    let mut stated = headers.all("Content-Length");
    let as_is = match (stated.next(), stated.next()) {
        (Some(header), None) => header.text().is_some_and(|text| text.parse() == Ok(body.len())),
        (None, _) => wire.no_length,
        (Some(_), Some(_)) => false,
    };
    if as_is {
        headers.write(&mut out);
    } else {
        let mut headers = headers.clone();
        headers.set("Content-Length", &length);
        headers.write(&mut out);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

macro_rules! fields {
    () => {
        /// The Call-ID; empty only in a message that was framed but not checked.
        pub fn call_id(&self) -> String {
            self.headers.text("Call-ID").map(|text| text.into_owned()).unwrap_or_default()
        }

        /// The CSeq; `None` only in a message that was framed but not checked, as with the accessors below.
        pub fn cseq(&self) -> Option<CSeq> {
            self.headers.first("CSeq").and_then(parse_cseq)
        }

        /// From.
        pub fn from(&self) -> Option<NameAddr> {
            self.headers.first("From").and_then(address_of)
        }

        /// To.
        pub fn to_address(&self) -> Option<NameAddr> {
            self.headers.first("To").and_then(address_of)
        }

        /// The caller's tag.
        pub fn from_tag(&self) -> Option<String> {
            Some(self.from()?.tag()?.to_owned())
        }

        /// The callee's tag; none in a request outside a dialog.
        pub fn to_tag(&self) -> Option<String> {
            Some(self.to_address()?.tag()?.to_owned())
        }

        /// All hops, newest first, at most as many as this crate's `limits` allow.
        pub fn vias(&self) -> Vec<Via> {
            vias(&self.headers).unwrap_or_default()
        }

        /// The branch of the newest hop.
        pub fn branch(&self) -> Option<String> {
            Some(self.vias().first()?.branch()?.to_owned())
        }

        /// The first Contact's address; none for `*`.
        pub fn contact(&self) -> Option<NameAddr> {
            let value = self.headers.first("Contact")?.value().into_owned();
            let parsed = sipx_headers::Address::parse_list(&value, "Contact").ok()?;
            parsed.into_iter().next().and_then(|address| address_from(address).ok())
        }

        /// `type/subtype` of the body in lower case, without parameters.
        pub fn content_type(&self) -> Option<String> {
            let value = self.headers.first("Content-Type")?.value().into_owned();
            let text = String::from_utf8(value).ok()?;
            Some(text.split(';').next()?.trim().to_ascii_lowercase()).filter(|kind| kind.contains('/'))
        }
    };
}

impl Request {
    fields!();

    /// How many more hops the request may take; `None` when it does not say, which is passed.
    pub fn max_forwards(&self) -> Option<u8> {
        self.headers.text("Max-Forwards")?.parse().ok()
    }

    /// Whether this is a request inside a dialog: it has a To tag.
    pub fn in_dialog(&self) -> bool {
        self.to_tag().is_some()
    }
}

impl Response {
    fields!();
}

impl Message {
    /// Reads a message that may be acted on. What follows a body of the stated length is not part of the message
    /// (RFC 3261 §18.3).
    ///
    /// # Errors
    /// Any [`ParseError`].
    pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
        let message = Message::frame(bytes)?;
        message.check()?;
        Ok(message)
    }

    /// Reads whatever can be framed.
    ///
    /// # Errors
    /// `TooLarge`, `TooManyHeaders`, `StartLine`, `HeaderSyntax`, `Framing`.
    pub fn frame(bytes: &[u8]) -> Result<Message, ParseError> {
        let mut bytes = bytes;
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ParseError::TooLarge);
        }
        // RFC 3261 §7.1, §7.2: no line folding in start lines. The parser would fold one into the reason phrase.
        let line = first_line(bytes).ok_or(ParseError::StartLine)?;
        if matches!(bytes.get(line.len()..), Some([b'\r', b'\n', b' ' | b'\t', ..])) {
            return Err(ParseError::StartLine);
        }
        let limits = sipx_sip::Limits {
            max_message_bytes: MESSAGE_BYTES_MAX,
            max_body_bytes: MESSAGE_BYTES_MAX,
            max_headers: HEADERS_MAX,
            max_header_bytes: HEADER_BYTES_MAX,
            max_folding_lines: FOLDS_MAX,
        };
        let parsed = sipx_sip::parse_datagram(bytes.to_vec().into(), &limits).map_err(parse_error)?;
        let mut headers = Headers::new();
        for header in parsed.headers().iter() {
            let mut line = Vec::new();
            header.write_to(&mut line);
            headers.push(Header::from_line(line).ok_or(ParseError::HeaderSyntax)?);
        }
        let body = parsed.body().to_vec();
        let no_length = headers.first("Content-Length").is_none();
        Ok(match parsed {
            sipx_sip::Message::Request(request) => Message::Request(Request {
                method: text(request.method.as_bytes())
                    .and_then(Method::parse)
                    .ok_or(ParseError::StartLine)?,
                uri: request_uri(bytes)?,
                wire: Wire { version: version_of(&request.version, bytes)?, no_length },
                headers,
                body,
            }),
            sipx_sip::Message::Response(response) => Message::Response(Response {
                status: Status::new(response.status.code()).ok_or(ParseError::StartLine)?,
                reason: response.reason.to_vec(),
                wire: Wire { version: version_of(&response.version, bytes)?, no_length },
                headers,
                body,
            }),
        })
    }

    /// Whether the message may be acted on: the fields RFC 3261 §8.1.1 demands are there, once, and can be read. A
    /// missing Max-Forwards passes (§16.3: to be treated as 70).
    ///
    /// # Errors
    /// `Version`, `Missing`, `Repeated`, `Malformed`, `MethodMismatch`.
    pub fn check(&self) -> Result<(), ParseError> {
        let (wire, headers) = match self {
            Message::Request(request) => (&request.wire, &request.headers),
            Message::Response(response) => (&response.wire, &response.headers),
        };
        // RFC 3261 §7.1: in whatever capitals.
        if !wire.version().eq_ignore_ascii_case("SIP/2.0") {
            return Err(ParseError::Version);
        }
        for name in
            ["Call-ID", "CSeq", "From", "To", "Max-Forwards", "Content-Type", "Expires", "Content-Length"]
        {
            if headers.count(name) > 1 {
                return Err(ParseError::Repeated(name));
            }
        }
        check_call_id(headers)?;
        let cseq = headers.first("CSeq").ok_or(ParseError::Missing("CSeq"))?;
        let cseq = parse_cseq(cseq).ok_or(ParseError::Malformed("CSeq"))?;
        for name in ["From", "To"] {
            let header = headers.first(name).ok_or(ParseError::Missing(name))?;
            let address = parse_address(&header.value(), name)?;
            if address.tag().is_some_and(|tag| tag.len() > TOKEN_BYTES_MAX) {
                return Err(ParseError::Malformed(name));
            }
        }
        let vias = vias(headers)?;
        let via = vias.first().ok_or(ParseError::Missing("Via"))?;
        if via.branch().is_some_and(|branch| branch.len() > TOKEN_BYTES_MAX) {
            return Err(ParseError::Malformed("Via"));
        }
        if let Message::Request(request) = self {
            if cseq.method != request.method {
                return Err(ParseError::MethodMismatch);
            }
            if request.uri.has_headers() {
                return Err(ParseError::StartLine);
            }
            if headers.first("Max-Forwards").is_some() && request.max_forwards().is_none() {
                return Err(ParseError::Malformed("Max-Forwards"));
            }
        }
        Ok(())
    }

    /// Writes it out.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Message::Request(request) => request.encode(),
            Message::Response(response) => response.encode(),
        }
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        match self {
            Message::Request(request) => &request.headers,
            Message::Response(response) => &response.headers,
        }
    }
}

fn check_call_id(headers: &Headers) -> Result<(), ParseError> {
    let header = headers.first("Call-ID").ok_or(ParseError::Missing("Call-ID"))?;
    let text = header.text().ok_or(ParseError::Malformed("Call-ID"))?;
    // RFC 3261 §25.1: a word, or two words around an `@`; none of them holds a blank.
    let bounded = (1..=TOKEN_BYTES_MAX).contains(&text.len());
    if bounded && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(ParseError::Malformed("Call-ID"))
    }
}

// Below: the only lines that know the parser.

fn parse_error(error: sipx_sip::error::ParseError) -> ParseError {
    use sipx_sip::error::{LimitKind, ParseError as Sipx};
    match error {
        Sipx::StartLine(_) => ParseError::StartLine,
        Sipx::HeaderSyntax { .. } => ParseError::HeaderSyntax,
        Sipx::Limit { limit: LimitKind::Headers, .. } => ParseError::TooManyHeaders,
        Sipx::Limit { .. } => ParseError::TooLarge,
        // The parser's own error may grow; whatever else it says, there is no message.
        _ => ParseError::Framing,
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The version as written, when it is not `SIP/2.0` in capitals: the parser knows one version and keeps the others.
fn version_of(version: &sipx_sip::Version, bytes: &[u8]) -> Result<Option<String>, ParseError> {
    let first = first_line(bytes).ok_or(ParseError::StartLine)?;
    let written = match version {
        sipx_sip::Version::Sip20 => {
            first.split(|b| *b == b' ').find(|word| word.eq_ignore_ascii_case(b"SIP/2.0"))
        }
        sipx_sip::Version::Other(other) => Some(other.as_ref()),
    };
    let written = written.and_then(text).ok_or(ParseError::StartLine)?;
    Ok((written != "SIP/2.0").then(|| written.to_owned()))
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|b| *b == b'\r').next()
}

/// The Request-URI exactly as written; the parser has seen that the line has two spaces.
fn request_uri(bytes: &[u8]) -> Result<Uri, ParseError> {
    let line = first_line(bytes).and_then(text).ok_or(ParseError::StartLine)?;
    let uri = line.split(' ').nth(1).ok_or(ParseError::StartLine)?;
    parse_uri(uri).map_err(|_| ParseError::StartLine)
}

pub(crate) fn parse_uri(uri: &str) -> Result<Uri, ParseError> {
    let malformed = ParseError::Malformed("URI");
    if uri.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(malformed);
    }
    let parsed = sipx_sip::Uri::parse(uri.as_bytes().to_vec().into()).map_err(|_| malformed)?;
    uri_from(&parsed, uri.to_owned())
}

fn uri_from(parsed: &sipx_sip::Uri, written: String) -> Result<Uri, ParseError> {
    let malformed = ParseError::Malformed("URI");
    let scheme = text(parsed.scheme().as_bytes()).ok_or(malformed)?.to_ascii_lowercase();
    let sip = match parsed.host() {
        None => None,
        Some(host) => Some(SipUri {
            user: parsed.user().map(|user| text(user).map(str::to_owned).ok_or(malformed)).transpose()?,
            host: host_from(host),
            port: parsed.port(),
            params: parsed
                .params()
                .map(|params| {
                    params
                        .iter()
                        .map(|param| (lower(param.name()), param.value().map(lossy)))
                        .collect::<Params>()
                })
                .unwrap_or_default(),
            has_headers: parsed.has_headers(),
        }),
    };
    Ok(Uri { text: written, scheme, sip })
}

fn host_from(host: &sipx_sip::Host) -> Host {
    match host {
        sipx_sip::Host::Name(name) => Host::Name(lossy(name.as_bytes())),
        sipx_sip::Host::Ip(ip) => Host::Ip(*ip),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lower(bytes: &[u8]) -> String {
    lossy(bytes).to_ascii_lowercase()
}

fn address_of(header: &Header) -> Option<NameAddr> {
    parse_address(&header.value(), "address").ok()
}

pub(crate) fn parse_address(value: &[u8], name: &'static str) -> Result<NameAddr, ParseError> {
    let parsed = sipx_headers::Address::parse(value, name).map_err(|_| ParseError::Malformed(name))?;
    address_from(parsed)
}

fn address_from(parsed: sipx_headers::Address) -> Result<NameAddr, ParseError> {
    let written = text(&parsed.uri.to_bytes()).ok_or(ParseError::Malformed("URI"))?.to_owned();
    Ok(NameAddr {
        display: parsed.display_name.as_deref().map(lossy),
        uri: uri_from(&parsed.uri, written)?,
        params: parsed
            .params
            .iter()
            .map(|param| (lower(&param.name), param.value.as_deref().map(lossy)))
            .collect(),
    })
}

fn parse_cseq(header: &Header) -> Option<CSeq> {
    let parsed = sipx_headers::CSeq::decode(&header.value()).ok()?;
    Some(CSeq { number: parsed.sequence, method: Method::parse(text(parsed.method.as_bytes())?)? })
}

fn vias(headers: &Headers) -> Result<Vec<Via>, ParseError> {
    let malformed = ParseError::Malformed("Via");
    let mut out = Vec::new();
    for header in headers.all("Via") {
        for via in sipx_headers::Via::parse_list(&header.value()).map_err(|_| malformed)? {
            if out.len() == VIAS_MAX {
                return Err(malformed);
            }
            out.push(Via {
                transport: lossy(&via.transport),
                host: host_from(&via.host),
                port: via.port,
                params: via.params.iter().map(|p| (lower(&p.name), p.value.as_deref().map(lossy))).collect(),
            });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
