//! From an installation on disk to a phone that can be driven.

use std::path::Path;

use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, Exit};
use yodel_store::{GroupCommit, Store, StoreOptions, recover};

use crate::audio::opus::OpusCodecs;
use crate::book::{CONTACTS, REQUESTS};
use crate::command::{Cause, Failure, KeysChange};
use crate::config::Config;
use crate::daemon::Setup;
use crate::dirs::Dirs;
use crate::homes::HOSTS;
use crate::keys::Keys;
use crate::node::{Client, SELF};

/// Loads keys and store, binds the sockets and makes the root machine. Call inside the runtime.
///
/// # Errors
/// Nobody signed in here, or something on disk or in the network is not in order.
pub fn phone(dirs: &Dirs, config: Config) -> Result<Setup<Client>, Failure> {
    let clock = Clock::start();
    let now = clock.now();
    let mut keys = Keys::load(dirs.data()).map_err(failed)?.ok_or_else(not_signed_in)?;
    if keys.wipe_old(now.unix) {
        keys.save(dirs.data()).map_err(failed)?;
    }
    let installation = keys.installation(now.unix).map_err(failed)?;

    let (store, findings) =
        recover::open(&dirs.data().join("store"), StoreOptions::CLIENT).map_err(failed)?;
    for finding in findings {
        tracing::warn!("the store was repaired: {finding}");
    }
    let mut stored = Vec::new();
    for tree in [SELF, HOSTS, CONTACTS, REQUESTS] {
        let entries = store.scan(tree).map_err(failed)?;
        stored.extend(entries.into_iter().map(|(key, value)| (tree.to_owned(), key, value)));
    }

    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: keys.device.seed(),
        udp: Some(config.listen),
        tcp: Vec::new(),
        limits: EndpointLimits::PHONE,
    })
    .map_err(failed)?;
    let seed = yodel_net::seed().map_err(failed)?;
    let machine = Client::new(now, installation, &stored, Box::new(OpusCodecs), seed);
    Ok(Setup {
        machine,
        clock,
        endpoint,
        store: Some(GroupCommit::start(Box::new(store)).map_err(failed)?),
        realm: keys.aor.realm.clone(),
        allow_loopback: config.allow_loopback || is_on_one_machine(&keys.servers),
        config,
        login_servers: keys.servers.clone(),
        keep: keep(keys, dirs.data(), clock),
    })
}

/// The failure of everything that needs a signed-in device.
pub fn not_signed_in() -> Failure {
    Failure {
        exit: Exit::NotSignedIn,
        message: "nobody is signed in here; use `yodel sign-in USER@REALM --invite CODE`".to_owned(),
        cause: Some(Cause::SigninExpired),
    }
}

fn keep(mut keys: Keys, data: &Path, clock: Clock) -> Box<dyn FnMut(KeysChange) -> bool + Send> {
    let data = data.to_owned();
    Box::new(move |change| {
        keys.change(clock.now().unix, change);
        let saved = keys.save(&data);
        if let Err(error) = &saved {
            tracing::error!(%error, "the changed keys could not be kept");
        }
        saved.is_ok()
    })
}

/// A login server on loopback serves a realm that lives on this machine.
fn is_on_one_machine(servers: &[String]) -> bool {
    let on_loopback = |server: &String| {
        server.parse::<std::net::SocketAddr>().is_ok_and(|addr| addr.ip().is_loopback())
            || server.starts_with("localhost:")
    };
    !servers.is_empty() && servers.iter().all(on_loopback)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}
