//! `run`: the machine with network, store, admin socket and signals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};
use yodel_identity::node::hex;
use yodel_login_server::admin::{AdminError, AdminReply};
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_login_server::limits::{ADMIN_LINE_BYTES_MAX, ADMIN_QUEUE_MAX};
use yodel_login_server::{Command, Event, LoginServer};
use yodel_net::{Clock, Endpoint, EndpointConfig, EndpointLimits, Exit, Signal, Signals, drive};
use yodel_store::{GroupCommit, SledStore, StoreOptions};

use super::config::Config;
use super::out::{Failure, Out};
use super::{init, socket};

/// How long an operator's connection may stay silent.
const ADMIN_IDLE: Duration = Duration::from_secs(60);

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<AdminReply>>>>;

pub(crate) fn run(
    layout: &Layout,
    config: &Config,
    listen: Option<SocketAddr>,
    out: Out,
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
    out: Out,
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
    let waiting = Waiting::default();
    // The store's lock is ours, so a socket that lies there is a dead server's.
    let (path, _dir) = socket::path(layout).map_err(Failure::system)?;
    let _ = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    restrict(&path).map_err(Failure::system)?;
    let admin = tokio::spawn(accept(listener, commands.downgrade(), waiting.clone()));

    let driven = drive(machine, endpoint, clock, Some(group), queue, |event| {
        match event {
            Event::Ready => {
                if yodel_net::ready::ready(out.json.then_some(ready.as_str())).is_err() {
                    warn!("nobody reads stdout");
                }
            }
            Event::Admin { id, reply } => {
                let asked = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                // Who went away does not want to know.
                let _ = asked.map(|asked| asked.send(reply));
            }
            Event::Changed(what) => info!("{what}"),
            Event::NotStored => error!("a change was refused because it could not be stored"),
        }
        ControlFlow::Continue(())
    });
    tokio::pin!(driven);
    let mut commands = Some(commands);
    let mut exit = Exit::Done;
    let result = loop {
        tokio::select! {
            result = &mut driven => break result,
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
    admin.abort();
    let _ = std::fs::remove_file(&path);
    drop(result.map_err(Failure::system)?);
    info!(commits = counters.commits(), flushes = counters.flushes(), "ended");
    Ok(exit)
}

fn restrict(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

async fn accept(listener: UnixListener, commands: mpsc::WeakSender<Command>, waiting: Waiting) {
    let mut next = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                next += 1;
                // Requests of one connection are numbered within its own range.
                tokio::spawn(converse(stream, commands.clone(), waiting.clone(), next << 32));
            }
            Err(error) => {
                warn!(%error, "an operator could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, commands: mpsc::WeakSender<Command>, waiting: Waiting, first: u64) {
    // The mode of the socket keeps others out; this also does on systems that ignore it.
    let ours = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == ours || peer.uid() == 0 => {}
        Ok(_) | Err(_) => return debug!("not our operator"),
    }
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    for id in first.. {
        let mut line = Vec::new();
        let bounded = &mut (&mut lines).take(ADMIN_LINE_BYTES_MAX as u64 + 1);
        match tokio::time::timeout(ADMIN_IDLE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return,
        }
        let reply = match socket::parse_line(&line) {
            Err(error) => Err(error),
            Ok(request) => {
                let (sender, reply) = oneshot::channel();
                waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
                let Some(commands) = commands.upgrade() else { return };
                if commands.send(Command { id, request }).await.is_err() {
                    return;
                }
                drop(commands);
                reply.await.unwrap_or_else(|_| Err(ending()))
            }
        };
        if write.write_all(&socket::answer_line(&reply)).await.is_err() {
            return;
        }
    }
}

fn ending() -> AdminError {
    AdminError { exit: 3, error: "the server is ending".into() }
}
