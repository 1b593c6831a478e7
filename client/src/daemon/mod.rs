//! The process that stays: drives the phone's root machine and serves JSON-RPC on a unix socket that only its user can
//! reach.
//!
//! [`claim`] first, then make the machine, then [`run`]. One lock per installation, however a daemon before ended.

mod hub;
mod json;
pub mod limits;
mod methods;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use yodel_identity::name::RealmName;
use yodel_net::{Clock, Endpoint, Signal, Signals, interfaces};
use yodel_store::GroupCommit;
use yodel_wire::machine::Machine;

pub use server::connect;

use crate::command::{Command, Event, KeysChange};
use crate::config::Config;
use crate::dirs::Dirs;
use hub::Hub;
use limits::{ADDRESSES_EVERY, COMMANDS_WAITING_MAX, RESOLVE_AGAIN, RESOLVE_RETRY, STOP_WITHIN};
use methods::Methods;

/// The right to be the daemon of an installation, with its socket listening already.
#[derive(Debug)]
pub struct Claimed {
    claim: server::Claim,
    listener: UnixListener,
}

/// Becomes the daemon of this installation; `None` when there is one already. Call inside the runtime.
///
/// # Errors
/// The folder, the lock or the socket cannot be made.
pub fn claim(dirs: &Dirs) -> io::Result<Option<Claimed>> {
    Ok(server::claim(dirs)?.map(|(claim, listener)| Claimed { claim, listener }))
}

/// What a daemon runs on.
pub struct Setup<M> {
    /// The phone's root machine.
    pub machine: M,
    /// The clock the machine was made with.
    pub clock: Clock,
    /// Its sockets.
    pub endpoint: Endpoint,
    /// Where its commits go.
    pub store: Option<GroupCommit>,
    /// For names without a realm.
    pub realm: RealmName,
    /// Its settings.
    pub config: Config,
    /// Whether loopback addresses are told to the machine.
    pub allow_loopback: bool,
    /// Where the login server answers, `HOST:PORT` each.
    pub login_servers: Vec<String>,
    /// Keeps changed keys; whether they are on stable storage.
    pub keep: Box<dyn FnMut(KeysChange) -> bool + Send>,
}

impl<M> fmt::Debug for Setup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Runs until SIGTERM, SIGINT or `daemon.stop`. `serving` is called once, when requests are taken.
///
/// # Errors
/// A socket broke, or signals cannot be caught.
pub async fn run<M>(claimed: Claimed, setup: Setup<M>, serving: impl FnOnce()) -> io::Result<()>
where
    M: Machine<Command = Command, Event = Event>,
{
    let Claimed { claim, listener } = claimed;
    let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
    let hub = Arc::new(Hub::new(commands.clone()));
    let kept = commands.clone();
    let methods = Arc::new(Methods { realm: setup.realm, config: setup.config });
    let bound = setup.endpoint.udp_addr();
    let signals = Signals::new()?;

    let server = tokio::spawn(server::serve(listener, hub.clone(), methods));
    let watcher = tokio::spawn(watch_addresses(commands.clone(), bound, setup.allow_loopback));
    let resolver = tokio::spawn(resolve_login_servers(commands.clone(), setup.login_servers));
    let stopper = tokio::spawn(stop_on_signal(signals, hub.clone()));
    serving();

    let (events, mut keep) = (hub.clone(), setup.keep);
    let on_event = move |event| match event {
        Event::Keys(change) => {
            let pending = matches!(change, KeysChange::Pending(_));
            // A word that is lost in a full queue, like a file that cannot be written, is asked for again later.
            if keep(change) && pending && kept.try_send(Command::RenewalKept).is_err() {
                tracing::warn!("the machine is too busy to hear that its request was kept");
            }
            ControlFlow::Continue(())
        }
        event => events.handle_event(event),
    };
    let driven =
        yodel_net::drive(setup.machine, setup.endpoint, setup.clock, setup.store, receiver, on_event);
    let overdue = async {
        hub.stopping().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    let result = tokio::select! {
        driven = driven => driven.map(drop),
        () = overdue => {
            tracing::warn!("the machine did not say goodbye in time");
            Ok(())
        }
    };
    for task in [server, watcher, resolver, stopper] {
        task.abort();
    }
    drop(claim);
    result
}

async fn stop_on_signal(mut signals: Signals, hub: Arc<Hub>) {
    loop {
        match signals.next().await {
            Signal::Terminate | Signal::Interrupt => hub.stop().await,
            Signal::Reload => tracing::info!("the configuration is read at the start only"),
        }
    }
}

/// Tells the machine the host's addresses now and whenever they change.
async fn watch_addresses(commands: mpsc::Sender<Command>, bound: Option<SocketAddr>, loopback: bool) {
    let Some(bound) = bound else { return };
    let mut known = None;
    loop {
        match interfaces::reachable_at(bound, loopback) {
            Ok(addresses) if known.as_ref() != Some(&addresses) => {
                known = Some(addresses.clone());
                if commands.send(Command::Addresses(addresses)).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the host's addresses are not known"),
        }
        tokio::time::sleep(ADDRESSES_EVERY).await;
    }
}

/// Tells the machine where the login server answers, now and whenever that changes.
async fn resolve_login_servers(commands: mpsc::Sender<Command>, servers: Vec<String>) {
    let mut known = Vec::new();
    loop {
        let mut found = Vec::new();
        for server in &servers {
            match tokio::net::lookup_host(server).await {
                Ok(addrs) => found.extend(addrs),
                Err(error) => tracing::debug!(%error, "the login server's name does not resolve"),
            }
        }
        let again = if found.is_empty() { RESOLVE_RETRY } else { RESOLVE_AGAIN };
        if !found.is_empty() && found != known {
            known.clone_from(&found);
            if commands.send(Command::LoginServers(found)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(again).await;
    }
}
