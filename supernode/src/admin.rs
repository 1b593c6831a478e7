//! What an operator may ask of a running supernode on its admin socket ([`yodel_net::admin`]), as JSON both ways.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_identity::node::NodeId;
use yodel_net::admin;
use yodel_overlay::ring::Report;
use yodel_overlay::verify::LookupResult;

use crate::limits::DRAIN_MAX;
use crate::node::{Command, MemberSeen, Status};

/// What can be asked. The answer is the status, when it was done, unless something else was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// How things stand.
    Status,
    /// Send devices elsewhere, all within this time.
    Drain(Duration),
    /// Serve everybody again.
    Undrain,
    /// Who is in the ring.
    Members,
    /// Look this key up as a device's home does, past the cache.
    Lookup([u8; 16]),
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
            AdminRequest::Members => json!({ "v": 1, "request": "members" }),
            AdminRequest::Lookup(key) => {
                json!({ "v": 1, "request": "lookup", "key": NodeId(key).to_string() })
            }
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
            "members" => Some(AdminRequest::Members),
            "lookup" => {
                // A key is written like a node id: 32 hexadecimal digits.
                let key: NodeId = request.get("key")?.as_str()?.parse().ok()?;
                Some(AdminRequest::Lookup(key.0))
            }
            _ => None,
        }
    }

    /// What the machine is told, the last of which brings the answer with this number.
    pub(crate) fn commands(self, id: u64) -> Vec<Command> {
        match self {
            AdminRequest::Status => vec![Command::Status { id }],
            AdminRequest::Drain(within) => vec![Command::Drain { within }, Command::Status { id }],
            AdminRequest::Undrain => vec![Command::Undrain, Command::Status { id }],
            AdminRequest::Members => vec![Command::Members { id }],
            AdminRequest::Lookup(key) => vec![Command::Lookup { id, key, past_cache: true }],
        }
    }
}

/// What `overlay show --json` prints.
pub fn members_json(members: &[MemberSeen]) -> Value {
    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            json!({
                "node": member.node.to_string(),
                "state": member.health.name(),
                "incarnation": member.incarnation,
                "udp": member.udp.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "rtt_ms": member.rtt.map(millis),
            })
        })
        .collect();
    json!({ "v": 1, "members": members })
}

/// What `overlay lookup --json` prints.
pub fn lookup_json(result: &LookupResult, report: &Report) -> Value {
    let mut answer = json!({
        "v": 1,
        "first_ms": report.first.map(millis),
        "settled_ms": report.settled.map(millis),
        "holders_asked": report.asked,
        "datagrams": report.datagrams,
        "bytes": report.bytes,
    });
    match result {
        LookupResult::Found { account, entries, settled: _ } => {
            answer["found"] = json!("account");
            answer["version"] = json!(account.version);
            answer["devices"] = json!(account.devices.len());
            answer["live"] = entries
                .iter()
                .map(|entry| {
                    json!({
                        "device": entry.device.to_string(),
                        "sequence": entry.sequence,
                        "expires": entry.expires.as_secs(),
                        "homes": entry.homes.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    })
                })
                .collect();
        }
        LookupResult::NoSuchAccount => answer["found"] = json!("none"),
        LookupResult::Unreachable => answer["found"] = json!("unreachable"),
    }
    answer
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
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
        "dead": status.dead,
        "agreements": status.agreements,
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
        let requests = [
            AdminRequest::Status,
            AdminRequest::Drain(Duration::from_millis(1_500)),
            AdminRequest::Undrain,
            AdminRequest::Members,
            AdminRequest::Lookup([7; 16]),
        ];
        for request in requests {
            assert_eq!(AdminRequest::parse(request.line().as_bytes()), Some(request));
        }
        assert_eq!(
            AdminRequest::parse(AdminRequest::Drain(Duration::MAX).line().as_bytes()),
            Some(AdminRequest::Drain(DRAIN_MAX)),
            "a deadline beyond all clocks"
        );
        for bad in
            ["", "{}", r#"{"request":"drain"}"#, r#"{"request":"fly"}"#, r#"{"request":"lookup","key":"x"}"#]
        {
            assert_eq!(AdminRequest::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
