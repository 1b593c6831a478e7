//! `doctor`: looks at everything that calls need, and says what is wrong in a line each.
//!
//! What the daemon knows comes from it; what only shows from outside, whether somebody answers over TCP, is tried here.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use yodel::command::Failure;
use yodel_net::Exit;

use super::{Context, show, talk};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Bulletins are signed every ten minutes; one this old says that the login server has been away for long.
const BULLETIN_OLD_S: u64 = 60 * 60;

/// A credential that ends sooner should have been renewed by now.
const CREDENTIAL_SHORT_S: u64 = 24 * 60 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Worth knowing; calls work.
    Note,
    Fail,
}

#[derive(Debug)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Check {
    fn new(what: &'static str, verdict: Verdict, detail: impl Into<String>) -> Check {
        Check { what, verdict, detail: detail.into() }
    }

    fn json(&self) -> Value {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Fail => "fail",
        };
        json!({"check": self.what, "ok": self.verdict != Verdict::Fail, "verdict": verdict, "detail": self.detail})
    }
}

/// Looks, prints, and saves when asked to.
pub(crate) async fn run(context: &Context, save: Option<&Path>) -> Result<Exit, Failure> {
    let known = talk::Talk::open(context).await?.ask("doctor", json!({}), context.rules.timeout).await?;
    let mut checks = from_daemon(&known);
    checks
        .push(reach("login-server", "login server", &strings(&known, "login_servers"), Verdict::Note).await);
    checks.push(reach("fallback", "TCP to the homes", &strings(&known, "fallbacks"), Verdict::Note).await);
    checks.push(match context.config.audio.check() {
        Ok(()) => Check::new("audio", Verdict::Ok, format!("{} can be used", context.config.audio)),
        Err(error) => Check::new("audio", Verdict::Note, format!("{}: {error}", context.config.audio)),
    });
    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let checks: Vec<Value> = checks.iter().map(Check::json).collect();
    let report = json!({"v": 1, "ok": ok, "checks": checks, "known": known});
    if let Some(file) = save {
        std::fs::write(file, format!("{report:#}\n"))
            .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", file.display())))?;
    }
    context.print(&report, show::checks)?;
    Ok(if ok { Exit::Done } else { Exit::Failed })
}

/// What follows from what the daemon knows.
fn from_daemon(known: &Value) -> Vec<Check> {
    let now = known["now"].as_u64().unwrap_or(0);
    let status = &known["status"];
    let left = status["credential_ends"].as_u64().unwrap_or(0).saturating_sub(now);
    let (hours, account) = (left / 3_600, status["account"].as_str().unwrap_or_default());
    let identity = match left {
        0 => (
            Verdict::Fail,
            format!("{account}: the credential has ended; no login server could be reached to renew it"),
        ),
        left if left < CREDENTIAL_SHORT_S => {
            (Verdict::Note, format!("{account}: the credential ends in {hours} h"))
        }
        _ => (Verdict::Ok, format!("{account}: the credential ends in {hours} h")),
    };
    let clock = match known["clock_is_off"].as_bool() {
        Some(true) => (Verdict::Fail, "off by more than five minutes, by the word of every home"),
        Some(false) => (Verdict::Ok, "agrees with the homes"),
        None => (Verdict::Note, "no home to compare with"),
    };
    let bulletin = match known["bulletin"]["issued"].as_u64().map(|issued| now.saturating_sub(issued)) {
        None => (Verdict::Fail, "none was ever seen".to_owned()),
        Some(age) if age > BULLETIN_OLD_S => {
            (Verdict::Note, format!("{} min old: the login server is away; calls go on without it", age / 60))
        }
        Some(age) => (Verdict::Ok, format!("{} min old", age / 60)),
    };
    let warm =
        status["homes"].as_array().into_iter().flatten().filter(|home| home["state"] == "warm").count();
    let (supernodes, owners) = (known["supernodes"].as_u64(), known["owners"].as_u64());
    let attached = format!("attached to {warm} of {} known supernodes", supernodes.unwrap_or(0));
    let overlay = match (warm, supernodes, owners) {
        (0, ..) => (Verdict::Fail, format!("{attached}: nobody can be called")),
        (_, Some(1), _) => (Verdict::Note, format!("{attached}: nothing survives its death")),
        (1, ..) => (Verdict::Note, format!("{attached}: calls wait when it dies")),
        (_, _, Some(1)) => (Verdict::Note, format!("{attached}, all of one owner")),
        _ => (Verdict::Ok, attached),
    };
    let mapping = status["nat"]["mapping"].as_str().unwrap_or("unknown");
    let nat = match mapping {
        "unknown" => (Verdict::Note, "mapping unknown: it takes two homes to tell".to_owned()),
        known => (Verdict::Ok, format!("mapping {known}")),
    };
    vec![
        Check::new("identity", identity.0, identity.1),
        Check::new("clock", clock.0, clock.1),
        Check::new("bulletin", bulletin.0, bulletin.1),
        Check::new("overlay", overlay.0, overlay.1),
        Check::new("nat", nat.0, nat.1),
    ]
}

/// Whether one of these answers over TCP.
async fn reach(what: &'static str, whom: &str, addrs: &[String], otherwise: Verdict) -> Check {
    for addr in addrs {
        if let Ok(Ok(_)) = timeout(CONNECT, TcpStream::connect(addr)).await {
            return Check::new(what, Verdict::Ok, format!("{whom} answers at {addr}"));
        }
    }
    let tried = if addrs.is_empty() { "no address is known".to_owned() } else { addrs.join(", ") };
    Check::new(what, otherwise, format!("{whom}: no answer ({tried})"))
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    let items = value[key].as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Value {
        json!({
            "now": 1_000_000,
            "clock_is_off": false,
            "bulletin": {"epoch": 7, "issued": 999_700},
            "supernodes": 5,
            "owners": 4,
            "status": {
                "account": "alice@example.net",
                "credential_ends": 1_200_000,
                "homes": [{"state": "warm"}, {"state": "warm"}, {"state": "cold"}],
                "nat": {"mapping": "endpoint-independent"},
            },
        })
    }

    fn verdict(change: impl FnOnce(&mut Value), what: &str) -> (Verdict, String) {
        let mut value = known();
        change(&mut value);
        let check = from_daemon(&value).into_iter().find(|check| check.what == what).unwrap();
        (check.verdict, check.detail)
    }

    #[test]
    fn all_is_well() {
        assert!(from_daemon(&known()).iter().all(|check| check.verdict == Verdict::Ok));
    }

    #[test]
    fn one_supernode_is_nothing_to_rely_on() {
        let (verdict, detail) = verdict(
            |value| {
                value["supernodes"] = json!(1);
                value["status"]["homes"] = json!([{"state": "warm"}]);
            },
            "overlay",
        );
        assert_eq!(verdict, Verdict::Note);
        assert!(detail.contains("nothing survives its death"), "{detail}");
    }

    #[test]
    fn what_keeps_calls_from_working_fails() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change, Verdict); 6] = [
            ("identity", |value| value["now"] = json!(1_300_000), Verdict::Fail),
            ("clock", |value| value["clock_is_off"] = json!(true), Verdict::Fail),
            ("bulletin", |value| value["bulletin"] = Value::Null, Verdict::Fail),
            ("bulletin", |value| value["bulletin"]["issued"] = json!(900_000), Verdict::Note),
            ("overlay", |value| value["status"]["homes"] = json!([]), Verdict::Fail),
            ("overlay", |value| value["owners"] = json!(1), Verdict::Note),
        ];
        for (what, change, wanted) in changes {
            assert_eq!(verdict(change, what).0, wanted, "{what}");
        }
    }
}
