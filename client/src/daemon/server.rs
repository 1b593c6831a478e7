//! The daemon's unix socket: who may connect, lines in, lines out.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};

use super::hub::{Hub, Line};
use super::limits::{CONNECTIONS_MAX, DRAIN_WITHIN, LINE_BYTES_MAX, LINES_WAITING_MAX};
use super::methods::Methods;
use crate::dirs::{Dirs, private_folder};
use crate::rpc;

/// The one daemon of an installation: holds the lock, and the socket below it. The lock ends with the process, however
/// that ends; the socket file may stay, and is replaced by the next daemon, which holds the lock then.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: Flock<std::fs::File>,
    socket: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the socket file stays");
        }
    }
}

/// Becomes the daemon of this installation. `None` when there is one already.
pub(crate) fn claim(dirs: &Dirs) -> io::Result<Option<(Claim, UnixListener)>> {
    private_folder(dirs.data())?;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(dirs.lock())?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error.into()),
    };
    let socket = dirs.socket();
    if let Some(folder) = socket.parent()
        && folder != dirs.data()
    {
        private_folder(folder)?;
    }
    match std::fs::remove_file(&socket) {
        Ok(()) => tracing::debug!("replaced the socket of a daemon that was killed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody else can enter the folder between these two lines.
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(Some((Claim { _lock: lock, socket }, listener)))
}

/// Connects to the daemon of an installation.
///
/// # Errors
/// It does not run, or is not ours.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket).await?;
    check_peer(&stream)?;
    Ok(stream)
}

fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid == nix::unistd::geteuid().as_raw() || uid == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other side is another user"))
}

/// Accepts connections until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, hub: Arc<Hub>, methods: Arc<Methods>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = check_peer(&stream) {
            tracing::warn!(%error, "refused a connection");
            continue;
        }
        if hub.connections() >= CONNECTIONS_MAX {
            tracing::warn!("too many connections; refused one");
            continue;
        }
        let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
        let kill = Arc::new(Notify::new());
        let id = hub.connect(lines, kill.clone());
        let (hub, methods) = (hub.clone(), methods.clone());
        tokio::spawn(async move {
            let (reader, writer) = stream.into_split();
            let mut writing = std::pin::pin!(write(writer, waiting, &hub));
            let drain = tokio::select! {
                result = read(reader, &hub, &methods, id) => {
                    if let Err(error) = &result {
                        tracing::debug!(connection = id, %error, "connection ended");
                    }
                    result.is_ok()
                }
                _ended = &mut writing => false,
                () = kill.notified() => false,
            };
            // Takes the queue's sender away, so that the writer ends when it has written what is there.
            hub.disconnect(id);
            if drain && tokio::time::timeout(DRAIN_WITHIN, writing).await.is_err() {
                tracing::debug!(connection = id, "does not read");
            }
        });
    }
}

async fn read(reader: OwnedReadHalf, hub: &Hub, methods: &Methods, id: u64) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line).await? {
        match rpc::parse(&line) {
            Ok(request) => methods.handle(hub, id, request).await,
            Err((request, error)) => hub.respond(id, Some(&request), &Err(error)),
        }
        line.clear();
    }
    Ok(())
}

/// `false` at the end.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let (taken, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at, true),
            None => (bytes.len(), false),
        };
        line.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        reader.consume(taken + usize::from(ended));
        if line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
        }
        if ended && !line.is_empty() {
            return Ok(true);
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<Line>, hub: &Hub) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        writer.write_all(line.text.as_bytes()).await?;
        for call in line.rings {
            hub.ring_shown(call).await;
        }
    }
    Ok(())
}
