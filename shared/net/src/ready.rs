//! Telling the outside that a server serves: one line on stdout, and systemd's notification.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

/// Prints the one ready line and tells systemd (`Type=notify`). With `json`, the line is the object given, which must
/// carry `"event":"ready"`; without, it is `ready`.
///
/// # Errors
/// Stdout is closed.
pub fn ready(json: Option<&str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", json.unwrap_or("ready"))?;
    out.flush()?;
    notify("READY=1");
    Ok(())
}

/// Sends one state to systemd, when it is listening. Failing is no reason to stop serving.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = if let Some(name) = path.to_str().and_then(|path| path.strip_prefix('@')) {
        send_abstract(name, state)
    } else {
        UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), &path).map(drop))
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(target_os = "linux")]
fn send_abstract(name: &str, state: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send_abstract(_name: &str, _state: &str) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
