//! What an operator may ask of a running supernode on its admin socket ([`yodel_net::admin`]), as JSON both ways.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_net::admin;

use crate::node::Status;

/// Asks a running supernode. `Ok(None)` when none is running.
///
/// # Errors
/// See [`yodel_net::admin::ask`]; `InvalidData` when the answer is no JSON.
pub fn ask(dir: &Path, request: &str, timeout: Duration) -> io::Result<Option<Value>> {
    let line = json!({ "v": 1, "request": request }).to_string();
    let answer = admin::ask(dir, &line, timeout)?;
    answer.map(|answer| serde_json::from_str(&answer).map_err(io::Error::from)).transpose()
}

/// Whether a line asks for the status, the one thing that can be asked.
pub(crate) fn asks_status(line: &[u8]) -> bool {
    let request: Value = serde_json::from_slice(line).unwrap_or_default();
    request.get("request").and_then(Value::as_str) == Some("status")
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
        "draining": false,
        "epoch": status.epoch,
        "login_server": status.login_server,
        "udp": udp,
        "tcp": tcp,
        "counters": {
            "attached": c.attached,
            "refused": c.refused,
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
