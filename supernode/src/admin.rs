//! What an operator may ask of a running supernode on its admin socket ([`yodel_net::admin`]), as JSON both ways.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_net::admin;

use crate::limits::DRAIN_MAX;
use crate::node::{Command, Status};

/// What can be asked. The answer to each is the status, when it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// How things stand.
    Status,
    /// Send devices elsewhere, all within this time.
    Drain(Duration),
    /// Serve everybody again.
    Undrain,
}

impl AdminRequest {
    fn line(self) -> String {
        match self {
            AdminRequest::Status => json!({ "v": 1, "request": "status" }),
            AdminRequest::Drain(within) => {
                let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                json!({ "v": 1, "request": "drain", "within_ms": within_ms })
            }
            AdminRequest::Undrain => json!({ "v": 1, "request": "undrain" }),
        }
        .to_string()
    }

    /// Reads what an operator wrote.
    pub(crate) fn parse(line: &[u8]) -> Option<AdminRequest> {
        let request: Value = serde_json::from_slice(line).ok()?;
        match request.get("request")?.as_str()? {
            "status" => Some(AdminRequest::Status),
            "drain" => {
                let within_ms = request.get("within_ms")?.as_u64()?;
                Some(AdminRequest::Drain(Duration::from_millis(within_ms).min(DRAIN_MAX)))
            }
            "undrain" => Some(AdminRequest::Undrain),
            _ => None,
        }
    }

    /// What has to be done before the status is told.
    pub(crate) fn command(self) -> Option<Command> {
        match self {
            AdminRequest::Status => None,
            AdminRequest::Drain(within) => Some(Command::Drain { within }),
            AdminRequest::Undrain => Some(Command::Undrain),
        }
    }
}

/// Asks a running supernode. `Ok(None)` when none is running.
///
/// # Errors
/// See [`yodel_net::admin::ask`]; `InvalidData` when the answer is no JSON.
pub fn ask(dir: &Path, request: AdminRequest, timeout: Duration) -> io::Result<Option<Value>> {
    let answer = admin::ask(dir, &request.line(), timeout)?;
    answer.map(|answer| serde_json::from_str(&answer).map_err(io::Error::from)).transpose()
}

/// What `status --json` prints.
pub fn status_json(status: &Status, udp: &[String], tcp: &[String]) -> Value {
    let c = &status.counters;
    json!({
        "v": 1,
        "node": status.node.to_string(),
        "members": status.members,
        "clients": status.clients,
        "records": status.records,
        "relays": status.relays,
        "draining": status.draining,
        "epoch": status.epoch,
        "login_server": status.login_server,
        "udp": udp,
        "tcp": tcp,
        "counters": {
            "attached": c.attached,
            "refused": c.refused,
            "sent_away": c.sent_away,
            "protocol_errors": c.protocol_errors,
            "frames_dropped": c.frames_dropped,
            "sip_delivered": c.sip_delivered,
            "sip_forwarded": c.sip_forwarded,
            "sip_returned": c.sip_returned,
            "sip_limited": c.sip_limited,
            "stun_answers": c.stun_answers,
            "datagrams_stray": c.datagrams_stray,
            "renewals": c.renewals,
            "bulletins": c.bulletins,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let requests =
            [AdminRequest::Status, AdminRequest::Drain(Duration::from_millis(1_500)), AdminRequest::Undrain];
        for request in requests {
            assert_eq!(AdminRequest::parse(request.line().as_bytes()), Some(request));
        }
        assert_eq!(
            AdminRequest::parse(AdminRequest::Drain(Duration::MAX).line().as_bytes()),
            Some(AdminRequest::Drain(DRAIN_MAX)),
            "a deadline beyond all clocks"
        );
        for bad in ["", "{}", r#"{"request":"drain"}"#, r#"{"request":"fly"}"#] {
            assert_eq!(AdminRequest::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
