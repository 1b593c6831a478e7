//! Request methods (RFC 3261 §7.1) and status codes (RFC 3261 §21).

use std::fmt;

/// A request method. Case-sensitive; one we do not know is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// RFC 3261.
    Invite,
    /// RFC 3261.
    Ack,
    /// RFC 3261.
    Bye,
    /// RFC 3261.
    Cancel,
    /// RFC 3261.
    Register,
    /// RFC 3261.
    Options,
    /// RFC 6086; carries trickled candidates (RFC 8840).
    Info,
    /// RFC 3262.
    Prack,
    /// RFC 3311.
    Update,
    /// RFC 3428; carries contact requests and tags.
    Message,
    /// RFC 6665.
    Subscribe,
    /// RFC 6665.
    Notify,
    /// RFC 3515.
    Refer,
    /// RFC 3903.
    Publish,
    /// Any other token.
    Other(String),
}

impl Method {
    /// The method with this name, which must be a token (RFC 3261 §25.1).
    pub fn parse(name: &str) -> Option<Method> {
        Some(match name {
            "INVITE" => Method::Invite,
            "ACK" => Method::Ack,
            "BYE" => Method::Bye,
            "CANCEL" => Method::Cancel,
            "REGISTER" => Method::Register,
            "OPTIONS" => Method::Options,
            "INFO" => Method::Info,
            "PRACK" => Method::Prack,
            "UPDATE" => Method::Update,
            "MESSAGE" => Method::Message,
            "SUBSCRIBE" => Method::Subscribe,
            "NOTIFY" => Method::Notify,
            "REFER" => Method::Refer,
            "PUBLISH" => Method::Publish,
            other if is_token(other) => Method::Other(other.to_owned()),
            _ => return None,
        })
    }

    /// The name as written on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Info => "INFO",
            Method::Prack => "PRACK",
            Method::Update => "UPDATE",
            Method::Message => "MESSAGE",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Refer => "REFER",
            Method::Publish => "PUBLISH",
            Method::Other(name) => name,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `text` is a token (RFC 3261 §25.1).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// A status code, 100 to 699.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    /// Received, being worked on; only tells that the request arrived.
    pub const TRYING: Status = Status(100);
    /// The device rings: `alerted`.
    pub const RINGING: Status = Status(180);
    /// Done.
    pub const OK: Status = Status(200);
    /// The request makes no sense.
    pub const BAD_REQUEST: Status = Status(400);
    /// Not allowed to do this.
    pub const FORBIDDEN: Status = Status(403);
    /// The method is not served here.
    pub const METHOD_NOT_ALLOWED: Status = Status(405);
    /// Nobody answered in time.
    pub const REQUEST_TIMEOUT: Status = Status(408);
    /// The body's type is not understood.
    pub const UNSUPPORTED_MEDIA_TYPE: Status = Status(415);
    /// An extension demanded is not understood.
    pub const BAD_EXTENSION: Status = Status(420);
    /// The device is not reachable now.
    pub const TEMPORARILY_UNAVAILABLE: Status = Status(480);
    /// No such call or transaction.
    pub const NO_SUCH_CALL: Status = Status(481);
    /// Busy on this device.
    pub const BUSY_HERE: Status = Status(486);
    /// Cancelled by the caller.
    pub const REQUEST_TERMINATED: Status = Status(487);
    /// The offer cannot be accepted.
    pub const NOT_ACCEPTABLE_HERE: Status = Status(488);
    /// Two requests crossed (glare).
    pub const REQUEST_PENDING: Status = Status(491);
    /// Something went wrong on this side; also the answer to a CSeq out of order (RFC 3261 §12.2.2).
    pub const SERVER_ERROR: Status = Status(500);
    /// Too busy to serve this now.
    pub const SERVICE_UNAVAILABLE: Status = Status(503);
    /// Not our version of SIP.
    pub const VERSION_NOT_SUPPORTED: Status = Status(505);
    /// Larger than we take.
    pub const MESSAGE_TOO_LARGE: Status = Status(513);
    /// Declined, everywhere.
    pub const DECLINE: Status = Status(603);

    /// The status with this code, 100 to 699.
    pub fn new(code: u16) -> Option<Status> {
        (100..700).contains(&code).then_some(Status(code))
    }

    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// 1xx.
    pub fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx.
    pub fn is_success(self) -> bool {
        self.0 / 100 == 2
    }

    /// 2xx to 6xx.
    pub fn is_final(self) -> bool {
        !self.is_provisional()
    }

    /// The usual reason phrase (RFC 3261 §21), or a bland one.
    pub fn reason(self) -> &'static str {
        match self.0 {
            100 => "Trying",
            180 => "Ringing",
            181 => "Call Is Being Forwarded",
            183 => "Session Progress",
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            407 => "Proxy Authentication Required",
            408 => "Request Timeout",
            415 => "Unsupported Media Type",
            420 => "Bad Extension",
            480 => "Temporarily Unavailable",
            481 => "Call/Transaction Does Not Exist",
            486 => "Busy Here",
            487 => "Request Terminated",
            488 => "Not Acceptable Here",
            491 => "Request Pending",
            500 => "Server Internal Error",
            503 => "Service Unavailable",
            505 => "Version Not Supported",
            513 => "Message Too Large",
            600 => "Busy Everywhere",
            603 => "Decline",
            code if code < 200 => "Progress",
            code if code < 300 => "Done",
            code if code < 400 => "Redirect",
            code if code < 500 => "Request Failure",
            code if code < 600 => "Server Failure",
            _ => "Global Failure",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_and_unknown_ones_are_kept() {
        assert_eq!(Method::parse("INVITE"), Some(Method::Invite));
        assert_eq!(Method::parse("Invite"), Some(Method::Other("Invite".into())));
        let odd = "!interesting-Method0123456789_*+`.%indeed'~";
        assert_eq!(Method::parse(odd).unwrap().as_str(), odd);
        assert_eq!(Method::parse(""), None);
        assert_eq!(Method::parse("IN VITE"), None);
        assert_eq!(Method::parse("INVITE\r\n"), None);
    }

    #[test]
    fn status_codes_are_bounded() {
        assert_eq!(Status::new(99), None);
        assert_eq!(Status::new(700), None);
        assert!(Status::new(199).unwrap().is_provisional());
        assert!(Status::new(200).unwrap().is_success());
        assert!(Status::new(300).unwrap().is_final());
    }
}
