//! The process around the machine: files, sockets, signals, the admin socket.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use yodel_identity::invitation::Invitation;
use yodel_identity::keys::{SealingKey, SigningKey};
use yodel_identity::realm::RootStatement;
use yodel_net::admin::{AdminCall, AdminSocket};
use yodel_net::console::Failure;
use yodel_net::{
    Clock, Endpoint, EndpointConfig, EndpointLimits, Exit, Signal, Signals, drive, interfaces, ready,
};
use yodel_overlay::card::CardError;
use yodel_store::{GroupCommit, SledStore, Store, StoreError, StoreOptions, file};
use zeroize::Zeroizing;

use crate::admin::{self, AdminRequest};
use crate::config::Settings;
use crate::enrol::{Enrol, EnrolError, EnrolRequest};
use crate::keys::NodeKeys;
use crate::node::{
    BULLETIN_KEY, Command, Config, Event, INCARNATION_KEY, KnownMembers, MEMBERS, REALM, RECORDS, Stored,
    Supernode,
};

/// How long the login server's names are believed, and how soon asking again makes sense when they did not resolve.
const RESOLVE_AGAIN: Duration = Duration::from_secs(60);
const RESOLVE_RETRY: Duration = Duration::from_secs(5);

/// Commands that wait for the machine; whoever sends more waits.
const COMMANDS_MAX: usize = 64;

/// How long the machine gets to say goodbye.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// The files of one supernode.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// All below `dir`.
    ///
    /// # Errors
    /// `dir` is relative and there is no current folder.
    pub fn new(dir: &Path) -> io::Result<Folder> {
        std::path::absolute(dir).map(Folder)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    fn keys(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// Keys made and not certified yet.
    fn unborn(&self) -> PathBuf {
        self.0.join("node.key.enrol")
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The keys; `None` before `init`.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn load_keys(&self) -> Result<Option<NodeKeys>, RunError> {
        let Some(bytes) = file::read_file(&self.keys())?.map(Zeroizing::new) else { return Ok(None) };
        NodeKeys::decode(&bytes).map(Some).map_err(|_| RunError::KeysDamaged(self.keys()))
    }
}

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `init` was done already.
    #[error("there is a supernode in {0} already")]
    Exists(PathBuf),
    /// `init` was not done yet.
    #[error("there is no supernode in {0} yet; init makes one")]
    NotInitialised(PathBuf),
    /// The key file is no key file.
    #[error("{0} is damaged")]
    KeysDamaged(PathBuf),
    /// The invitation is none.
    #[error("{0}")]
    Invitation(String),
    /// The configuration cannot be read or makes no sense.
    #[error("{0}")]
    Config(Failure),
    /// Enrolment failed.
    #[error("{0}")]
    Enrol(#[from] EnrolError),
    /// The login server took the credential back.
    #[error("this supernode was revoked")]
    Revoked,
    /// Nothing to tell others where this supernode is.
    #[error("no address to advertise; use --advertise")]
    NoAddress,
    /// The addresses are none that others can reach.
    #[error("the advertised addresses: {0}")]
    Announce(CardError),
    /// Nobody serves this folder.
    #[error("the supernode is not running")]
    NotRunning,
    /// What was asked for cannot be printed.
    #[error("{0}")]
    Output(Failure),
    /// Files.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The operating system.
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
}

impl RunError {
    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self {
            RunError::Enrol(EnrolError::Offline) => Exit::NoAnswer,
            RunError::Enrol(EnrolError::NotTheRealm | EnrolError::Answer) => Exit::Trust,
            RunError::Enrol(EnrolError::Clock(_)) | RunError::NotInitialised(_) | RunError::Revoked => {
                Exit::NotSignedIn
            }
            RunError::Enrol(EnrolError::Refused(_)) => Exit::Refused,
            RunError::Config(failure) | RunError::Output(failure) => failure.exit,
            RunError::NotRunning => Exit::NotRunning,
            RunError::Invitation(_) | RunError::Enrol(EnrolError::Invitation) => Exit::Usage,
            RunError::Exists(_)
            | RunError::KeysDamaged(_)
            | RunError::NoAddress
            | RunError::Announce(_)
            | RunError::Store(_)
            | RunError::System(..) => Exit::Failed,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::System(what, error)
}

/// Makes a supernode: keys, credential, configuration. Asked again after a crash it goes on with the same keys.
///
/// # Errors
/// See [`RunError`].
pub async fn init(folder: &Folder, invitation: &str, settings: &Settings) -> Result<NodeKeys, RunError> {
    if folder.load_keys()?.is_some() {
        return Err(RunError::Exists(folder.path().to_owned()));
    }
    let invitation: Invitation = invitation
        .trim()
        .parse()
        .map_err(|error| RunError::Invitation(format!("the invitation: {error}")))?;
    let own = interfaces::host_addresses(true).map_err(system("interfaces"))?;
    let (mut udp, mut tcp) = settings.advertised(settings.listen.port(), &own);
    if udp.is_empty() {
        return Err(RunError::NoAddress);
    }
    // Port 0 is only known once bound; every start tells the addresses anew.
    udp.retain(|addr| addr.port() != 0);
    tcp.retain(|addr| addr.port() != 0);
    file::create_private_dir(folder.path())?;
    let (signing, sealing) = unborn_keys(folder)?;
    let servers = resolve(&invitation.servers).await;
    let clock = Clock::start();
    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: signing.seed(),
        udp: None,
        tcp: Vec::new(),
        limits: EndpointLimits::PHONE,
    })
    .map_err(system("network"))?;
    let request = EnrolRequest { invitation, servers, signing, sealing, udp, tcp };
    let machine = Enrol::new(clock.now(), request);
    // Nothing is commanded, but the driver ends when nobody could any more.
    let (_commands, no_commands) = mpsc::channel(1);
    let mut result = Err(EnrolError::Offline);
    drive(machine, endpoint, clock, None, no_commands, |event| {
        result = event;
        ControlFlow::Break(())
    })
    .await
    .map_err(system("network"))?;
    let keys = result?;
    file::write_file(&folder.config(), settings.to_toml().as_bytes())?;
    file::write_file(&folder.keys(), &keys.encode())?;
    // Certified and kept: the unborn copy has done its work.
    let _gone = std::fs::remove_file(folder.unborn());
    Ok(*keys)
}

fn unborn_keys(folder: &Folder) -> Result<(SigningKey, SealingKey), RunError> {
    let known = file::read_file(&folder.unborn())?.map(Zeroizing::new);
    let seeds: Zeroizing<[u8; 64]> = match known.as_deref().and_then(|bytes| bytes.as_slice().try_into().ok())
    {
        Some(seeds) => Zeroizing::new(seeds),
        None => {
            let mut seeds = Zeroizing::new([0; 64]);
            let (first, second) = seeds.split_at_mut(32);
            first.copy_from_slice(&yodel_net::seed().map_err(system("randomness"))?);
            second.copy_from_slice(&yodel_net::seed().map_err(system("randomness"))?);
            file::write_file(&folder.unborn(), seeds.as_slice())?;
            seeds
        }
    };
    let (first, second) = seeds.split_at(32);
    let half = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap_or_default();
    Ok((SigningKey::from_seed(half(first)), SealingKey::from_bytes(half(second))))
}

/// Serves until it is told to stop. With `json` the ready line is an object: `listen` is what is bound, `udp` and `tcp`
/// what others are told.
///
/// # Errors
/// See [`RunError`].
pub async fn run(folder: &Folder, mut settings: Settings, json: bool) -> Result<Exit, RunError> {
    let mut signals = Signals::new().map_err(system("signals"))?;
    let keys = folder.load_keys()?.ok_or_else(|| RunError::NotInitialised(folder.path().to_owned()))?;
    let store = SledStore::open(&folder.store(), StoreOptions::SUPERNODE)?;
    // The store's lock is held: a socket that is there is stale.
    let admin = AdminSocket::bind(folder.path()).map_err(system("admin socket"))?;
    let incarnation = store.get(REALM, INCARNATION_KEY)?;
    let stored = Stored {
        bulletin: store.get(REALM, BULLETIN_KEY)?,
        records: store.scan(RECORDS)?,
        members: KnownMembers::Cards(store.scan(MEMBERS)?.into_iter().map(|(_, card)| card).collect()),
        incarnation: incarnation.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes),
    };
    let group = GroupCommit::start(Box::new(store)).map_err(system("store"))?;

    let (endpoint, port) = bind(&keys, &settings)?;
    let listen = texts(endpoint.tcp_addrs());
    settings.tcp = endpoint.tcp_addrs().iter().skip(1).map(SocketAddr::port).collect();
    let own = interfaces::host_addresses(settings.listen.ip().is_loopback()).map_err(system("interfaces"))?;
    let (udp, tcp) = settings.advertised(port, &own);
    if udp.is_empty() {
        return Err(RunError::NoAddress);
    }
    let clock = Clock::start();
    let servers = servers_of(&keys);
    let config = Config {
        clients_max: settings.clients_max,
        relay: settings.relay(),
        ..Config::new(udp.clone(), tcp.clone())
    };
    let seed = yodel_net::seed().map_err(system("randomness"))?;
    let machine = Supernode::new(clock.now(), keys, config, &stored, seed).map_err(RunError::Announce)?;
    drop(stored);

    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let addrs = Addresses { udp: texts(&udp), tcp: texts(&tcp) };
    let waiting = RefCell::new(BTreeMap::new());
    let exit = Cell::new(Exit::Done);
    let stopping = Notify::new();
    let revoked = Cell::new(false);
    let on_event = |event| match event {
        Event::Ready { node } => {
            let line = json!({
                "v": 1,
                "event": "ready",
                "node": node.to_string(),
                "listen": listen,
                "udp": addrs.udp,
                "tcp": addrs.tcp,
            });
            // A closed stdout is nobody's reason to stop serving.
            if let Err(error) = ready::ready(json.then(|| line.to_string()).as_deref()) {
                tracing::warn!(%error, "the ready line could not be printed");
            }
            ControlFlow::Continue(())
        }
        Event::StoreKeys(bytes) => {
            match file::write_file(&folder.keys(), &bytes) {
                Ok(()) => {
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        // A machine that is gone needs no keys.
                        let _heard = commands.send(Command::KeysStored).await;
                    });
                }
                Err(error) => tracing::error!(%error, "the key file could not be written"),
            }
            ControlFlow::Continue(())
        }
        Event::Status { id, status } => {
            let call: Option<AdminCall> = waiting.borrow_mut().remove(&id);
            if let Some(call) = call {
                call.answer(admin::status_json(&status, &addrs.udp, &addrs.tcp).to_string());
            }
            ControlFlow::Continue(())
        }
        Event::Members { id, members } => {
            if let Some(call) = waiting.borrow_mut().remove(&id) {
                call.answer(admin::members_json(&members).to_string());
            }
            ControlFlow::Continue(())
        }
        // The first answer starts a call; an operator wants the settled one.
        Event::Looked { id, result, report } => {
            let settled = report.settled.is_some();
            let call = settled.then(|| waiting.borrow_mut().remove(&id)).flatten();
            if let Some(call) = call {
                call.answer(admin::lookup_json(&result, &report).to_string());
            }
            ControlFlow::Continue(())
        }
        Event::ClockOff { by } => {
            tracing::warn!(seconds = by.as_secs(), "this machine's clock and the login server's differ");
            ControlFlow::Continue(())
        }
        Event::Revoked => {
            revoked.set(true);
            ControlFlow::Break(())
        }
        Event::LoginServer { up } => {
            tracing::info!(up, "link to the login server");
            ControlFlow::Continue(())
        }
        Event::NotStored => {
            tracing::error!("records cannot be stored; is the disk full?");
            ControlFlow::Continue(())
        }
        Event::Stopped => ControlFlow::Break(()),
    };
    let overdue = async {
        stopping.notified().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    let obey = async {
        loop {
            let signal = signals.next().await;
            match signal {
                Signal::Terminate | Signal::Interrupt => {
                    ready::notify("STOPPING=1");
                    if signal == Signal::Interrupt {
                        exit.set(Exit::Interrupted);
                    }
                    stopping.notify_one();
                    // A machine that is gone has stopped.
                    let _heard = commands.send(Command::Stop).await;
                }
                Signal::Reload => reload(folder, &commands).await,
            }
        }
    };
    let (asked, mut calls) = mpsc::channel::<AdminCall>(COMMANDS_MAX);
    let answer = async {
        let mut next = 0;
        while let Some(call) = calls.recv().await {
            let Some(request) = AdminRequest::parse(&call.line) else {
                call.answer(json!({ "v": 1, "error": "no such request" }).to_string());
                continue;
            };
            next += 1;
            waiting.borrow_mut().insert(next, call);
            for command in request.commands(next) {
                tracing::debug!(?command, "an operator asks");
                let _heard = commands.send(command).await;
            }
        }
    };
    // None of them ends before the machine does.
    let beside =
        async { tokio::join!(obey, answer, admin.serve(asked), tell_login_servers(servers, &commands)) };
    let driven = tokio::select! {
        driven = drive(machine, endpoint, clock, Some(group), receiver, on_event) => driven.map(drop),
        () = overdue => Ok(()),
        _ = beside => Ok(()),
    };
    driven.map_err(system("network"))?;
    if revoked.get() { Err(RunError::Revoked) } else { Ok(exit.get()) }
}

async fn reload(folder: &Folder, commands: &mpsc::Sender<Command>) {
    match Settings::load(&folder.config()) {
        Ok((settings, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!("relay limits are read anew; the rest takes effect at the next start");
            // A machine that is gone relays nothing.
            let _heard = commands.send(Command::Relay(settings.relay())).await;
        }
        Err(error) => tracing::error!("{error}; the old settings stay"),
    }
}

/// Binds UDP and TCP to one port, and the further TCP ports.
fn bind(keys: &NodeKeys, settings: &Settings) -> Result<(Endpoint, u16), RunError> {
    let mut listen = settings.listen;
    if listen.port() != 0 {
        return bind_at(keys, settings, listen).map_err(system("network"));
    }
    // UDP and TCP must share a port: TCP chooses one, which may be taken for UDP.
    for tries_left in (0..16).rev() {
        let chosen = TcpListener::bind(settings.listen).and_then(|tcp| tcp.local_addr());
        let v4 = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0);
        let chosen = chosen.or_else(|_| TcpListener::bind(v4).and_then(|tcp| tcp.local_addr()));
        listen.set_port(chosen.map_err(system("TCP"))?.port());
        match bind_at(keys, settings, listen) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries_left > 0 => {}
            bound => return bound.map_err(system("network")),
        }
    }
    Err(RunError::System("network", io::ErrorKind::AddrInUse.into()))
}

fn bind_at(keys: &NodeKeys, settings: &Settings, listen: SocketAddr) -> io::Result<(Endpoint, u16)> {
    let mut tcp = vec![listen];
    tcp.extend(settings.tcp.iter().map(|port| SocketAddr::new(listen.ip(), *port)));
    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: keys.signing.seed(),
        udp: Some(listen),
        tcp,
        limits: EndpointLimits::SERVER,
    })?;
    let port = endpoint.udp_addr().map_or(listen.port(), |addr| addr.port());
    Ok((endpoint, port))
}

fn texts(addrs: &[SocketAddr]) -> Vec<String> {
    addrs.iter().map(ToString::to_string).collect()
}

fn servers_of(keys: &NodeKeys) -> Vec<String> {
    RootStatement::verify(&keys.statement, &keys.pin)
        .map(|statement| statement.servers.clone())
        .unwrap_or_default()
}

async fn resolve(servers: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for server in servers {
        match tokio::net::lookup_host(server).await {
            Ok(addrs) => found.extend(addrs),
            Err(error) => tracing::warn!(%error, "the login server's name does not resolve"),
        }
    }
    found
}

async fn tell_login_servers(servers: Vec<String>, commands: &mpsc::Sender<Command>) -> Infallible {
    let mut known = Vec::new();
    loop {
        let found = resolve(&servers).await;
        let again = if found.is_empty() { RESOLVE_RETRY } else { RESOLVE_AGAIN };
        if !found.is_empty() && found != known {
            known.clone_from(&found);
            // A machine that is gone asks nobody.
            let _heard = commands.send(Command::LoginServers(found)).await;
        }
        tokio::time::sleep(again).await;
    }
}

#[derive(Clone, Debug)]
struct Addresses {
    udp: Vec<String>,
    tcp: Vec<String>,
}

/// What `check` found: whether all is well, and a line for each thing looked at.
///
/// # Errors
/// The key file is damaged.
pub fn check(folder: &Folder, timeout: Duration) -> Result<(bool, Value), RunError> {
    let mut checks = Vec::new();
    let mut look = |name: &str, ok: bool, detail: String| {
        checks.push(json!({ "check": name, "ok": ok, "detail": detail }));
    };
    let now = Clock::start().now();
    let keys = folder.load_keys()?;
    match &keys {
        None => look("keys", false, "init was not done".to_owned()),
        Some(keys) => {
            let left = keys.credential.not_after.since(now.unix);
            let detail =
                format!("credential of {} has {} h left", keys.credential.node, left.as_secs() / 3_600);
            look("keys", !left.is_zero(), detail);
            let servers = servers_of(keys);
            look("statement", !servers.is_empty(), format!("login server: {}", servers.join(", ")));
        }
    }
    let settings = Settings::load(&folder.config());
    match &settings {
        Ok((_, warnings)) => look("config", warnings.is_empty(), warnings.join("; ")),
        Err(error) => look("config", false, error.to_string()),
    }
    let running = admin::ask(folder.path(), AdminRequest::Status, timeout).ok().flatten();
    match (&running, &settings) {
        (Some(status), _) => look("running", true, format!("{} members", status["members"])),
        (None, Ok((settings, _))) => {
            let udp = std::net::UdpSocket::bind(settings.listen);
            look("port", udp.is_ok(), udp.err().map_or("free".to_owned(), |error| error.to_string()));
        }
        (None, Err(_)) => {}
    }
    let ok = checks.iter().all(|check| check["ok"] == true);
    Ok((ok, json!({ "v": 1, "ok": ok, "running": running.is_some(), "checks": checks })))
}
