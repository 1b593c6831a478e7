//! What header values are made of: URIs (RFC 3261 §19.1), addresses with parameters (§20.10), Via (§20.42) and CSeq
//! (§20.16).

use std::fmt;
use std::net::IpAddr;

use yodel_identity::node::NodeId;

use crate::message::{self, ParseError};
use crate::method::Method;

/// Parameters in order, names in lower case, quotes gone.
pub type Params = Vec<(String, Option<String>)>;

/// A URI. Kept exactly as written; the parts of `sip:` and `sips:` can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    pub(crate) text: String,
    pub(crate) scheme: String,
    pub(crate) sip: Option<SipUri>,
}

/// The parts of a `sip:` or `sips:` URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SipUri {
    pub(crate) user: Option<String>,
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
    pub(crate) params: Params,
    pub(crate) has_headers: bool,
}

/// A host: a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A domain name, as written.
    Name(String),
    /// A literal address.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl Uri {
    /// Parses any URI with a scheme.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Uri, ParseError> {
        message::parse_uri(text)
    }

    /// `sip:NODE@REALM`: how a request names one device of a realm.
    pub fn node(node: NodeId, realm: &str) -> Uri {
        let hex: String = node.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let host = Host::Name(realm.to_owned());
        Uri {
            text: format!("sip:{hex}@{realm}"),
            scheme: "sip".into(),
            sip: Some(SipUri { user: Some(hex), host, port: None, params: Vec::new(), has_headers: false }),
        }
    }

    /// The device that this URI names, if it is of the form [`Uri::node`] makes.
    pub fn node_id(&self) -> Option<NodeId> {
        let user = self.user()?;
        if user.len() != 32 || user.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u128::from_str_radix(user, 16).ok().map(|id| NodeId(id.to_be_bytes()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user part as written, without a password; `None` for other schemes than `sip` and `sips`.
    pub fn user(&self) -> Option<&str> {
        self.sip.as_ref()?.user.as_deref()
    }

    /// The host; `None` for other schemes than `sip` and `sips`.
    pub fn host(&self) -> Option<&Host> {
        Some(&self.sip.as_ref()?.host)
    }

    /// The port, if written.
    pub fn port(&self) -> Option<u16> {
        self.sip.as_ref()?.port
    }

    /// The value of a URI parameter: `Some("")` when it has none.
    pub fn param(&self, name: &str) -> Option<&str> {
        param(&self.sip.as_ref()?.params, name)
    }

    /// Whether `?name=value` parts follow, which a request line may not have (RFC 3261 §19.1.1).
    pub fn has_headers(&self) -> bool {
        self.sip.as_ref().is_some_and(|sip| sip.has_headers)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The value of the parameter `name`: `Some("")` when it has none.
pub fn param<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_deref().unwrap_or(""))
}

/// A name, a URI and parameters: `"Alice" <sip:alice@example.net>;tag=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name, without quotes.
    pub display: Option<String>,
    /// The address.
    pub uri: Uri,
    /// The parameters behind the URI.
    pub params: Params,
}

impl NameAddr {
    /// Only a URI.
    pub fn new(uri: Uri) -> NameAddr {
        NameAddr { display: None, uri, params: Vec::new() }
    }

    /// The same with this tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> NameAddr {
        self.params.retain(|(name, _)| name != "tag");
        self.params.push(("tag".into(), Some(tag.to_owned())));
        self
    }

    /// Parses one address.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(value: &str) -> Result<NameAddr, ParseError> {
        message::parse_address(value.as_bytes(), "address")
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        param(&self.params, "tag").filter(|tag| !tag.is_empty())
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", quoted(display))?;
        }
        write!(f, "<{}>", self.uri)?;
        write_params(f, &self.params)
    }
}

fn write_params(f: &mut fmt::Formatter<'_>, params: &Params) -> fmt::Result {
    for (name, value) in params {
        match value {
            None => write!(f, ";{name}")?,
            Some(value) if plain_value(value) => write!(f, ";{name}={value}")?,
            Some(value) => write!(f, ";{name}={}", quoted(value))?,
        }
    }
    Ok(())
}

/// gen-value without quotes: a token or a host (RFC 3261 §25.1).
fn plain_value(value: &str) -> bool {
    crate::method::is_token(value)
        || (!value.is_empty() && value.bytes().all(|b| b.is_ascii_hexdigit() || b":.[]".contains(&b)))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_ascii_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// One hop of a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`, `TLS`, or anything else.
    pub transport: String,
    /// Where responses go.
    pub host: Host,
    /// Its port, if written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params,
}

impl Via {
    /// The transaction's name at this hop.
    pub fn branch(&self) -> Option<&str> {
        param(&self.params, "branch").filter(|branch| !branch.is_empty())
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write_params(f, &self.params)
    }
}

/// A number and the method it counts; the number is below 2^31 (RFC 3261 §8.1.1.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CSeq {
    /// Ascends within a dialog.
    pub number: u32,
    /// The request's method.
    pub method: Method,
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_node_id() {
        let node = NodeId([0xab; 16]);
        let uri = Uri::node(node, "example.net");
        assert_eq!(uri.as_str(), "sip:abababababababababababababababab@example.net");
        assert_eq!(Uri::parse(uri.as_str()), Ok(uri.clone()));
        assert_eq!(uri.node_id(), Some(node));
        for other in ["sip:bob@example.net", "sip:ABABABABABABABABABABABABABABABAB@example.net", "tel:+491"] {
            assert_eq!(Uri::parse(other).unwrap().node_id(), None);
        }
    }

    #[test]
    fn parts_of_a_uri() {
        let uri =
            Uri::parse("sips:alice;day=1:secret@[2001:db8::1]:5061;transport=tls;lr?subject=x").unwrap();
        assert_eq!(uri.scheme(), "sips");
        assert_eq!(uri.host().unwrap().to_string(), "[2001:db8::1]");
        assert_eq!(uri.port(), Some(5061));
        assert_eq!(uri.param("transport"), Some("tls"));
        assert_eq!(uri.param("lr"), Some(""));
        assert_eq!(uri.param("ttl"), None);
        assert!(uri.has_headers());
        let odd = Uri::parse("nobodyKnowsThisScheme:totallyopaquecontent").unwrap();
        assert_eq!((odd.user(), odd.host(), odd.scheme()), (None, None, "nobodyknowsthisscheme"));
        assert!(Uri::parse("no colon").is_err());
        assert!(Uri::parse("sip:").is_err());
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        let text =
            "\"A \\\"quoted\\\" name\" <sip:alice@example.net>;tag=1f;+sip.instance=\"<urn:uuid:f81d4fae>\"";
        let address = NameAddr::parse(text).unwrap();
        assert_eq!(address.display.as_deref(), Some("A \"quoted\" name"));
        assert_eq!(address.tag(), Some("1f"));
        assert_eq!(param(&address.params, "+sip.instance"), Some("<urn:uuid:f81d4fae>"));
        assert_eq!(address.to_string(), text);
        assert_eq!(NameAddr::parse(&address.to_string()), Ok(address));
    }

    #[test]
    fn parameters_without_brackets_belong_to_the_header() {
        let address = NameAddr::parse("sip:alice@example.net;tag=7").unwrap();
        assert_eq!(address.tag(), Some("7"));
        assert_eq!(address.uri.param("tag"), None);
    }
}
