//! The admin socket: one JSON object a line, `{"command":…}` in and the answer or `{"exit":…,"error":…}` out. It is
//! there while the server runs; otherwise the command opens the store itself and drives the same machine.

use std::time::Duration;

use serde_json::Value;
use yodel_login_server::admin::{AdminError, AdminReply, AdminRequest};
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_login_server::{Command, Event, LoginServer};
use yodel_net::console::Failure;
use yodel_net::{Clock, Exit, admin};
use yodel_store::{SledStore, Store, StoreError, StoreOptions};
use yodel_wire::machine::{CommitResult, Machine, Output};

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
    let line = serde_json::to_string(request).map_err(Failure::failed)?;
    let asked = admin::ask(layout.dir(), &line, timeout).map_err(|error| Failure::asking(&error))?;
    let Some(answer) = asked else { return Ok(None) };
    let reply: Value = serde_json::from_str(&answer).map_err(Failure::failed)?;
    match serde_json::from_value::<AdminError>(reply.clone()) {
        Ok(error) => Err(failure(error)),
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
            Output::Event(Event::Admin { reply, .. }) => return reply.map_err(failure),
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

fn failure(error: AdminError) -> Failure {
    Failure::new(Exit::from_code(error.exit), error.error)
}

/// The answer's line.
pub(crate) fn answer_line(reply: &AdminReply) -> String {
    let line = match reply {
        Ok(value) => serde_json::to_string(value),
        Err(error) => serde_json::to_string(error),
    };
    line.unwrap_or_default()
}

/// Reads one request.
pub(crate) fn parse_line(line: &[u8]) -> Result<AdminRequest, AdminError> {
    serde_json::from_slice(line)
        .map_err(|error| AdminError { exit: 2, error: format!("no request: {error}") })
}
