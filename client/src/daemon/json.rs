//! The machine's replies and events as JSON. Field names are a contract with scripts; fields are only ever added.

use serde_json::{Map, Value, json};

use crate::command::{
    CallEvent, CallId, CallInfo, Checkup, Contact, ContactEvent, ContactRequest, Direction, Ended, Failure,
    Online, Reply, State, Status, Why,
};
use crate::span::millis;

/// A reply's result.
pub(super) fn reply(reply: &Reply) -> Value {
    match reply {
        Reply::Done => json!({"v": 1}),
        Reply::Status(status) => status_of(status),
        Reply::Checkup(checkup) => checkup_of(checkup),
        Reply::Contacts(contacts) => {
            json!({"v": 1, "contacts": contacts.iter().map(contact_of).collect::<Vec<_>>()})
        }
        Reply::Requests(requests) => {
            json!({"v": 1, "requests": requests.iter().map(request_of).collect::<Vec<_>>()})
        }
        Reply::Reach(reach) => json!({
            "v": 1,
            "dry_run": true,
            "peer": reach.peer.to_string(),
            "devices": reach.devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Reply::Call(call) => json!({"v": 1, "call": call.to_string()}),
        Reply::Calls(calls) => json!({"v": 1, "calls": calls.iter().map(info_of).collect::<Vec<_>>()}),
        Reply::Why(why) => why_of(why),
    }
}

/// A failure as the `data` of a JSON-RPC error.
pub(super) fn failure(failure: &Failure) -> Value {
    json!({
        "v": 1,
        "exit": failure.exit.code(),
        "cause": failure.cause.map(|cause| cause.code()),
    })
}

/// News of a call.
pub(super) fn call(event: &CallEvent) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("v", json!(1));
    put("kind", json!("call"));
    put("call", json!(event.call.to_string()));
    put("dir", json!(direction(event.direction)));
    put("peer", json!(event.peer.to_string()));
    put("device", json!(event.device.map(|device| device.to_string())));
    put("state", json!(event.state.name()));
    put("t_ms", json!(millis(event.t)));
    match &event.state {
        State::Resolving | State::Contacting | State::Alerted | State::Answered | State::Media => {}
        State::Path { path, rtt } => {
            put("path", json!(path.as_str()));
            put("rtt_ms", json!(rtt.map(|rtt| tenths(rtt.as_secs_f64() * 1_000.0))));
        }
        State::Stats { stats, path } => {
            put("loss", json!((f64::from(stats.loss) * 10_000.0).round() / 10_000.0));
            put("jitter_ms", json!(tenths(f64::from(stats.jitter_ms))));
            put("rtt_ms", json!(stats.rtt_ms.map(|rtt| tenths(f64::from(rtt)))));
            put("delay_ms", json!(tenths(f64::from(stats.delay_ms))));
            put("buffer_ms", json!(tenths(f64::from(stats.buffer_ms))));
            put("path", json!(path.map(|path| path.as_str())));
            put("tx_packets", json!(stats.tx_packets));
            put("rx_packets", json!(stats.rx_packets));
            put("concealed", json!(stats.concealed));
        }
        State::Ended(ended) => put_end(&mut put, ended),
    }
    Value::Object(object)
}

fn put_end(put: &mut impl FnMut(&str, Value), ended: &Ended) {
    put("cause", json!(ended.cause.code()));
    put("detail", json!(ended.detail));
    put("duration_ms", json!(millis(ended.duration)));
    put("answered", json!(ended.answered));
    put("verified", json!(ended.verified));
    put("encrypted_to", json!(ended.encrypted_to.as_str()));
    put("exit", json!(ended.cause.exit_code() as u8));
    put("next_step", json!(ended.cause.next_step()));
}

/// News of a contact.
pub(super) fn contact(event: &ContactEvent) -> Value {
    json!({"v": 1, "kind": "contact", "user": event.aor.to_string(), "change": event.change.as_str()})
}

/// The device got online, or not any more.
pub(super) fn online(online: Online) -> Value {
    json!({"v": 1, "kind": "online", "state": online.as_str()})
}

/// The id of a call, as written everywhere.
pub(super) fn call_id(text: &str) -> Option<CallId> {
    text.parse().ok()
}

fn checkup_of(checkup: &Checkup) -> Value {
    json!({
        "v": 1,
        "status": status_of(&checkup.status),
        "now": checkup.now,
        "clock_is_off": checkup.clock_is_off,
        "bulletin": checkup.bulletin.map(|(epoch, issued)| json!({"epoch": epoch, "issued": issued})),
        "supernodes": checkup.supernodes.0,
        "owners": checkup.supernodes.1,
        "login_servers": checkup.login_servers,
        "fallbacks": checkup.fallbacks.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn status_of(status: &Status) -> Value {
    let homes: Vec<Value> = status
        .homes
        .iter()
        .map(|home| {
            json!({
                "node": home.node.to_string(),
                "addr": home.addr.to_string(),
                "state": if home.warm { "warm" } else { "cold" },
            })
        })
        .collect();
    json!({
        "v": 1,
        "account": status.account.to_string(),
        "device": status.device.to_string(),
        "state": status.state.as_str(),
        "homes": homes,
        "nat": {"mapping": status.mapping, "filtering": status.filtering},
        "credential_ends": status.credential_ends,
    })
}

fn contact_of(contact: &Contact) -> Value {
    json!({"user": contact.aor.to_string(), "state": contact.state.as_str()})
}

fn request_of(request: &ContactRequest) -> Value {
    json!({
        "user": request.aor.to_string(),
        "at_ms": request.at_ms,
        "kind": if request.called { "call" } else { "contact" },
        "note": request.note,
    })
}

fn info_of(info: &CallInfo) -> Value {
    json!({
        "call": info.call.to_string(),
        "dir": direction(info.direction),
        "peer": info.peer.to_string(),
        "state": info.state,
        "path": info.path.map(|path| path.as_str()),
    })
}

fn why_of(why: &Why) -> Value {
    let mut object = Map::new();
    object.insert("v".to_owned(), json!(1));
    if let Value::Object(info) = info_of(&why.info) {
        object.extend(info);
    }
    if let Some(ended) = &why.ended {
        put_end(
            &mut |key, value| {
                object.insert(key.to_owned(), value);
            },
            ended,
        );
    }
    let steps: Vec<Value> = why
        .steps
        .iter()
        .map(|step| {
            json!({
                "t_ms": millis(step.t),
                "device": step.device.map(|device| device.to_string()),
                "text": step.text,
            })
        })
        .collect();
    object.insert("steps".to_owned(), json!(steps));
    Value::Object(object)
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "out",
        Direction::In => "in",
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{Cause, EncryptedTo, PathKind};

    fn event(state: State) -> CallEvent {
        CallEvent {
            call: CallId(0xab),
            direction: Direction::Out,
            peer: "bob@example.net".parse().unwrap(),
            device: None,
            t: Duration::from_micros(1_500_400),
            state,
        }
    }

    #[test]
    fn a_call_prints_its_contract() {
        let path = State::Path { path: PathKind::RelayTcp, rtt: Some(Duration::from_micros(12_340)) };
        assert_eq!(
            call(&event(path)),
            json!({"v": 1, "kind": "call", "call": "00000000000000ab", "dir": "out", "peer": "bob@example.net",
                "device": null, "state": "path", "t_ms": 1_500, "path": "relay-tcp", "rtt_ms": 12.3})
        );
        let ended = State::Ended(Ended {
            cause: Cause::PeerBusy,
            detail: String::new(),
            duration: Duration::ZERO,
            answered: false,
            verified: true,
            encrypted_to: EncryptedTo::Peer,
        });
        let value = call(&event(ended));
        assert_eq!(value["cause"], "peer.busy");
        assert_eq!(value["exit"], 7);
        assert_eq!(value["encrypted_to"], "peer");
        assert_eq!(value["duration_ms"], 0);
    }
}
