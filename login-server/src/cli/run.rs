//! `run`: the machine with network, store, admin socket and signals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::pin;

use serde_json::json;
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use yodel_identity::node::hex;
use yodel_login_server::admin::AdminError;
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_login_server::limits::ADMIN_QUEUE_MAX;
use yodel_login_server::{Command, Event, LoginServer};
use yodel_net::admin::{AdminCall, AdminSocket};
use yodel_net::console::{Console, Failure};
use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, Exit, Signal, Signals, drive};
use yodel_store::{GroupCommit, SledStore, StoreOptions};

use super::config::Config;
use super::{init, socket};

pub(crate) fn run(
    layout: &Layout,
    config: &Config,
    listen: Option<SocketAddr>,
    out: Console,
) -> Result<Exit, Failure> {
    let keys = ServerKeys::load(layout).map_err(Failure::failed)?;
    let listen = listen
        .or(config.listen)
        .ok_or_else(|| Failure::usage("where to listen? --listen, or `listen` in config.toml"))?;
    let store = SledStore::open(&layout.store(), StoreOptions::LOGIN_SERVER).map_err(Failure::failed)?;
    let runtime = yodel_net::runtime().map_err(Failure::system)?;
    runtime.block_on(serve(layout, keys, store, listen, out))
}

async fn serve(
    layout: &Layout,
    keys: ServerKeys,
    store: SledStore,
    listen: SocketAddr,
    out: Console,
) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(Failure::system)?;
    let clock = Clock::start();
    let seed = yodel_net::seed().map_err(Failure::system)?;
    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: keys.tls.seed(),
        udp: None,
        tcp: vec![listen],
        limits: EndpointLimits::SERVER,
    })
    .map_err(|error| Failure::failed(format!("{listen}: {error}")))?;
    let ready = json!({
        "v": 1,
        "event": "ready",
        "realm": keys.realm.to_string(),
        "url": init::url(&keys),
        "pin": hex(&keys.pin.0),
        "listen": endpoint.tcp_addrs().iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
    })
    .to_string();
    let machine = LoginServer::new(clock.now(), keys, &store, seed).map_err(Failure::failed)?;
    let group = GroupCommit::start(Box::new(store)).map_err(Failure::system)?;
    let counters = group.counters();

    let (commands, queue) = mpsc::channel(ADMIN_QUEUE_MAX);
    let waiting = RefCell::new(BTreeMap::new());
    // The store's lock is ours, so a socket that lies there is a dead server's.
    let admin = AdminSocket::bind(layout.dir()).map_err(Failure::system)?;
    let (asked, mut calls) = mpsc::channel::<AdminCall>(ADMIN_QUEUE_MAX);
    let mut serve_admin = pin!(admin.serve(asked));

    let driven = drive(machine, endpoint, clock, Some(group), queue, |event| {
        match event {
            Event::Ready => {
                if yodel_net::ready::ready(out.json.then_some(ready.as_str())).is_err() {
                    warn!("nobody reads stdout");
                }
            }
            Event::Admin { id, reply } => {
                let call: Option<AdminCall> = waiting.borrow_mut().remove(&id);
                call.into_iter().for_each(|call| call.answer(socket::answer_line(&reply)));
            }
            Event::Changed(what) => info!("{what}"),
            Event::NotStored => error!("a change was refused because it could not be stored"),
        }
        ControlFlow::Continue(())
    });
    let mut driven = pin!(driven);
    let mut commands = Some(commands);
    let mut exit = Exit::Done;
    let mut next = 0;
    let result = loop {
        tokio::select! {
            result = &mut driven => break result,
            never = &mut serve_admin => match never {},
            Some(call) = calls.recv() => {
                next += 1;
                match (socket::parse_line(&call.line), &commands) {
                    (Err(error), _) => call.answer(socket::answer_line(&Err(error))),
                    (Ok(request), Some(commands)) => {
                        waiting.borrow_mut().insert(next, call);
                        if commands.try_send(Command { id: next, request }).is_err() {
                            let call = waiting.borrow_mut().remove(&next);
                            call.into_iter().for_each(|call| call.answer(socket::answer_line(&Err(busy()))));
                        }
                    }
                    // The server is ending, and the connection with it.
                    (Ok(_), None) => drop(call),
                }
            }
            signal = signals.next() => match signal {
                Signal::Reload => info!("nothing to read again: settings take effect at the next start"),
                Signal::Terminate => commands = None,
                Signal::Interrupt => {
                    exit = Exit::Interrupted;
                    commands = None;
                }
            },
        }
        if commands.is_none() {
            yodel_net::ready::notify("STOPPING=1");
        }
    };
    drop(result.map_err(Failure::system)?);
    info!(commits = counters.commits(), flushes = counters.flushes(), "ended");
    Ok(exit)
}

fn busy() -> AdminError {
    AdminError { exit: 11, error: "too many requests at once; ask again".into() }
}
