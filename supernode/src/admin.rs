//! The admin socket of a running supernode: one JSON object a line, asked and answered, on a unix socket in its folder
//! that its owner alone can open.
//!
//! A path longer than a socket address holds (108 bytes, unix(7)) is reached through the folder's descriptor.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::Status;

const NAME: &str = "admin.sock";
const PATH_BYTES_MAX: usize = 107;

/// A path short enough to bind or connect to, and what keeps it valid.
fn short_path(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let plain = dir.join(NAME);
    if plain.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
        return Ok((plain, None));
    }
    let folder = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()));
    Ok((path, Some(folder)))
}

/// Binds the socket. A stale one is replaced: call this only while holding the store's lock, which shows that no other
/// process serves this folder.
///
/// # Errors
/// Whatever the operating system says.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    let (path, _folder) = short_path(dir)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket at the end.
pub fn unbind(dir: &Path) {
    if let Ok((path, _folder)) = short_path(dir) {
        // Whether it was there does not matter any more.
        let _gone = std::fs::remove_file(path);
    }
}

/// Asks a running supernode. `Ok(None)` when none is running.
///
/// # Errors
/// It does not answer in time, or not with JSON.
pub fn ask(dir: &Path, request: &str, timeout: Duration) -> io::Result<Option<Value>> {
    let (path, _folder) = match short_path(dir) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    writeln!(stream, "{}", json!({ "v": 1, "request": request }))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(io::Error::other)
}

/// What `status --json` prints.
pub fn status_json(status: &Status, udp: &[String], tcp: &[String]) -> Value {
    let c = &status.counters;
    json!({
        "v": 1,
        "node": status.node.to_string(),
        "members": status.members,
        "clients": status.clients,
        "records": status.records,
        "relays": status.relays,
        "draining": false,
        "epoch": status.epoch,
        "login_server": status.login_server,
        "udp": udp,
        "tcp": tcp,
        "counters": {
            "attached": c.attached,
            "refused": c.refused,
            "protocol_errors": c.protocol_errors,
            "frames_dropped": c.frames_dropped,
            "sip_delivered": c.sip_delivered,
            "sip_forwarded": c.sip_forwarded,
            "sip_returned": c.sip_returned,
            "sip_limited": c.sip_limited,
            "stun_answers": c.stun_answers,
            "datagrams_stray": c.datagrams_stray,
            "renewals": c.renewals,
            "bulletins": c.bulletins,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn long_paths_and_stale_sockets() {
        let base = std::env::temp_dir().join(format!("yodel-admin-{}", std::process::id()));
        let dir = base.join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(ask(&dir, "status", Duration::from_secs(1)).unwrap().is_none());
        drop(bind(&dir).unwrap());
        assert!(ask(&dir, "status", Duration::from_secs(1)).unwrap().is_none(), "stale");
        let listener = bind(&dir).unwrap();
        listener.set_nonblocking(false).unwrap();
        let mode = std::fs::metadata(dir.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte).unwrap();
            }
            stream.write_all(b"{\"v\":1}\n").unwrap();
        });
        assert_eq!(ask(&dir, "status", Duration::from_secs(5)).unwrap(), Some(json!({ "v": 1 })));
        server.join().unwrap();
        unbind(&dir);
        std::fs::remove_dir_all(base).unwrap();
    }
}
