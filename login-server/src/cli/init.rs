//! `init`: a new realm.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};
use yodel_identity::limits::INVITATION_SERVERS_MAX;
use yodel_identity::name::RealmName;
use yodel_identity::node::hex;
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_net::console::{Console, Failure};
use yodel_net::{Clock, Exit};
use yodel_store::file::write_file;

use super::config::Config;

pub(crate) fn init(
    layout: &Layout,
    realm: &str,
    listen: SocketAddr,
    advertise: &[String],
    out: Console,
) -> Result<Exit, Failure> {
    let realm =
        RealmName::parse(realm).map_err(|error| Failure::usage(format!("--realm {realm}: {error}")))?;
    let listen = with_port(listen)?;
    let servers = servers(listen, advertise)?;
    let now = Clock::start().now().unix;
    let seed = yodel_net::seed().map_err(Failure::system)?;
    let (root, keys) = ServerKeys::generate(realm, servers, now, seed).map_err(Failure::usage)?;
    keys.save_new(layout, &root).map_err(Failure::failed)?;
    write_file(&layout.config(), Config::file(listen).as_bytes()).map_err(Failure::failed)?;
    out.value(&json!({
        "v": 1,
        "realm": keys.realm.to_string(),
        "url": url(&keys),
        "pin": hex(&keys.pin.0),
        "listen": listen.to_string(),
        "root_key": layout.root_key(),
    }))?;
    out.note(format!(
        "Keep {} offline: who has it is the realm. The server runs without it.",
        layout.root_key().display()
    ));
    Ok(Exit::Done)
}

/// The realm's keys, for `key list`.
pub(crate) fn keys_json(keys: &ServerKeys) -> Value {
    let issuers: Vec<Value> = keys
        .statement
        .issuers
        .iter()
        .map(|issuer| {
            json!({
                "key": hex(&issuer.key.0),
                "not_before": issuer.not_before.as_secs(),
                "not_after": issuer.not_after.as_secs(),
                "in_use": issuer.key == keys.issuer.public(),
            })
        })
        .collect();
    json!({
        "v": 1,
        "realm": keys.realm.to_string(),
        "pin": hex(&keys.pin.0),
        "issuers": issuers,
        "tls": keys.statement.tls_keys.iter().map(|key| hex(&key.0)).collect::<Vec<_>>(),
        "servers": keys.statement.servers,
    })
}

pub(crate) fn url(keys: &ServerKeys) -> String {
    format!("yodel-login://{}", keys.statement.servers.first().map_or("", String::as_str))
}

/// Port 0 picks one for good: invitations name it.
fn with_port(listen: SocketAddr) -> Result<SocketAddr, Failure> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let listener =
        TcpListener::bind(listen).map_err(|error| Failure::failed(format!("{listen}: {error}")))?;
    listener.local_addr().map_err(Failure::system)
}

fn servers(listen: SocketAddr, advertise: &[String]) -> Result<Vec<String>, Failure> {
    if advertise.len() > INVITATION_SERVERS_MAX {
        return Err(Failure::usage(format!("--advertise can be given {INVITATION_SERVERS_MAX} times")));
    }
    if !advertise.is_empty() {
        return Ok(advertise.iter().map(|server| host_port(server, listen.port())).collect());
    }
    let mut reachable =
        yodel_net::interfaces::reachable_at(listen, listen.ip().is_loopback()).map_err(Failure::system)?;
    if reachable.is_empty() {
        reachable = yodel_net::interfaces::reachable_at(listen, true).map_err(Failure::system)?;
    }
    Ok(reachable.iter().take(INVITATION_SERVERS_MAX).map(SocketAddr::to_string).collect())
}

/// A host without a port gets the one that is listened on.
fn host_port(text: &str, port: u16) -> String {
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    match text {
        _ if has_port => text.to_owned(),
        _ if text.contains(':') && !text.starts_with('[') => format!("[{text}]:{port}"),
        _ => format!("{text}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_a_port() {
        for (text, full) in [
            ("login.example.net", "login.example.net:7"),
            ("login.example.net:443", "login.example.net:443"),
            ("2001:db8::1", "[2001:db8::1]:7"),
            ("[2001:db8::1]", "[2001:db8::1]:7"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("192.0.2.1", "192.0.2.1:7"),
        ] {
            assert_eq!(host_port(text, 7), full);
        }
    }
}
