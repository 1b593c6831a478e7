//! `check`: whether everything an operator can get wrong is right.

use serde_json::{Value, json};
use yodel_login_server::admin::AdminRequest;
use yodel_login_server::keys::{KeysError, Layout, ServerKeys};
use yodel_net::console::{Console, Failure};
use yodel_net::{Clock, Exit};

use super::socket;

const ISSUER_ENDS_SOON_S: u64 = 30 * 24 * 3_600;

pub(crate) fn check(layout: &Layout, out: Console) -> Result<Exit, Failure> {
    let now = Clock::start().now().unix;
    let mut checks: Vec<Value> = Vec::new();
    let mut add = |name: &str, state: &str, detail: String| {
        checks.push(json!({"name": name, "state": state, "detail": detail}));
    };
    match ServerKeys::load(layout) {
        Ok(keys) => {
            add("keys", "ok", format!("realm {}", keys.realm));
            let issuer = keys.statement.issuers.iter().find(|issuer| issuer.key == keys.issuer.public());
            match issuer {
                Some(issuer) if issuer.not_after <= now => {
                    add("issuer", "failed", "the issuer key has ended; credentials are not believed".into());
                }
                Some(issuer) => {
                    let left = issuer.not_after.since(now).as_secs();
                    let state = if left < ISSUER_ENDS_SOON_S { "warning" } else { "ok" };
                    add("issuer", state, format!("ends in {} days", left / 86_400));
                }
                None => add("issuer", "failed", "the root statement does not name the issuer key".into()),
            }
            let tls = keys.statement.tls_keys.contains(&keys.tls.public());
            let detail = keys.statement.servers.join(" ");
            add("tls", if tls { "ok" } else { "failed" }, detail);
        }
        Err(error @ KeysError::Missing(_)) => add("keys", "failed", error.to_string()),
        Err(error) => add("keys", "failed", error.to_string()),
    }
    if layout.root_key().exists() {
        let detail = format!("{} should be kept offline", layout.root_key().display());
        add("root-key", "warning", detail);
    } else {
        add("root-key", "ok", "not on this machine".into());
    }
    let timeout = std::time::Duration::from_secs(5);
    match socket::ask_running(layout, &AdminRequest::Health, timeout) {
        Ok(Some(health)) => {
            let (accounts, supernodes) = (&health["accounts"], &health["supernodes"]);
            add("server", "ok", format!("running; {accounts} accounts, {supernodes} supernodes that serve"));
        }
        Ok(None) => match socket::ask(layout, AdminRequest::Health, timeout) {
            Ok(health) => add("store", "ok", format!("not running; {} accounts", health["accounts"])),
            Err(error) => add("store", "failed", error.to_string()),
        },
        Err(error) => add("server", "failed", error.to_string()),
    }
    let ok = checks.iter().all(|check| check["state"] != "failed");
    out.value(&json!({"v": 1, "ok": ok, "checks": checks}))?;
    Ok(if ok { Exit::Done } else { Exit::Failed })
}
