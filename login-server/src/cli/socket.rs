//! The admin socket: one JSON object a line, `{"command":…}` in and the answer or `{"exit":…,"error":…}` out. It is
//! there while the server runs; otherwise the command opens the store itself and drives the same machine.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use yodel_login_server::admin::{AdminError, AdminReply, AdminRequest};
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_login_server::limits::ADMIN_LINE_BYTES_MAX;
use yodel_login_server::{Command, Event, LoginServer};
use yodel_net::Clock;
use yodel_store::{SledStore, Store, StoreError, StoreOptions};
use yodel_wire::machine::{CommitResult, Machine, Output};

use super::out::Failure;

/// Longest answer, bytes: a list of a million accounts.
const ANSWER_BYTES_MAX: u64 = 1 << 28;

/// Where the socket is. A folder whose path is too long for a socket address (108 bytes) is reached through the
/// descriptor of the folder; keep it open as long as the path is used.
pub(crate) fn path(layout: &Layout) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;
    let plain = layout.dir().join("admin.sock");
    if plain.as_os_str().len() < 108 {
        return Ok((plain, None));
    }
    let dir = std::fs::File::open(layout.dir())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd())), Some(dir)))
}

/// Asks the running server, or does it without one.
pub(crate) fn ask(layout: &Layout, request: AdminRequest, timeout: Duration) -> Result<Value, Failure> {
    // A server that is just starting or ending holds the store without a socket: try again for as long.
    const STEP: Duration = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(reply) = ask_running(layout, &request, timeout)? {
            return Ok(reply);
        }
        let keys = ServerKeys::load(layout).map_err(Failure::failed)?;
        match SledStore::open(&layout.store(), StoreOptions::LOGIN_SERVER) {
            Ok(store) => return offline(keys, store, request),
            Err(StoreError::Locked { .. }) if waited < timeout => {
                std::thread::sleep(STEP);
                // Opening waited for the lock too.
                waited += STEP + yodel_store::limits::LOCK_WAIT;
            }
            Err(error) => return Err(Failure::failed(error)),
        }
    }
}

/// Asks the running server; `None` when there is none.
pub(crate) fn ask_running(
    layout: &Layout,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<Option<Value>, Failure> {
    let Ok((path, _dir)) = path(layout) else { return Ok(None) };
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        // Nobody listens: the file of a killed server, or none.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
    };
    let mut exchange = || -> std::io::Result<String> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new((&stream).take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::timed_out(),
        _ => Failure::failed(error),
    })?;
    if answer.is_empty() {
        return Err(Failure::failed("the server closed the connection"));
    }
    let reply: Value = serde_json::from_str(&answer).map_err(Failure::failed)?;
    match serde_json::from_value::<AdminError>(reply.clone()) {
        Ok(error) => Err(Failure::admin(error)),
        Err(_) => Ok(Some(reply)),
    }
}

/// Drives the machine without network until the request is answered.
fn offline(keys: ServerKeys, mut store: SledStore, request: AdminRequest) -> Result<Value, Failure> {
    let clock = Clock::start();
    let seed = yodel_net::seed().map_err(Failure::system)?;
    let mut machine = LoginServer::new(clock.now(), keys, &store, seed).map_err(Failure::failed)?;
    let mut request = Some(request);
    loop {
        match machine.poll_output() {
            Output::Commit(ticket, writes) => {
                let result = match store.commit(&writes) {
                    Ok(()) => CommitResult::Stored,
                    Err(error) => {
                        eprintln!("yodel-login-server: {error}");
                        CommitResult::Failed
                    }
                };
                machine.handle_committed(clock.now(), ticket, result);
            }
            Output::Event(Event::Admin { reply, .. }) => return reply.map_err(Failure::admin),
            Output::Event(Event::Ready | Event::Changed(_) | Event::NotStored)
            | Output::Link(..)
            | Output::Datagram { .. } => {}
            Output::Idle { .. } => match request.take() {
                Some(request) => machine.handle_command(clock.now(), Command { id: 0, request }),
                None => return Err(Failure::failed("the request was not answered")),
            },
        }
    }
}

/// One line of the answer.
pub(crate) fn answer_line(reply: &AdminReply) -> Vec<u8> {
    let mut line = match reply {
        Ok(value) => serde_json::to_vec(value),
        Err(error) => serde_json::to_vec(error),
    }
    .unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads one request.
pub(crate) fn parse_line(line: &[u8]) -> Result<AdminRequest, AdminError> {
    let malformed =
        |error: &dyn std::fmt::Display| AdminError { exit: 2, error: format!("no request: {error}") };
    if line.len() > ADMIN_LINE_BYTES_MAX {
        return Err(malformed(&"too long"));
    }
    serde_json::from_slice(line).map_err(|error| malformed(&error))
}
