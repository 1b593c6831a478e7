//! A server's admin socket: `admin.sock` in its folder, mode 0600, one request and one answer a line. Both servers
//! speak JSON on it; what the lines mean is theirs.
//!
//! Whoever binds must hold a lock of its own on the folder (the store's): then a socket that lies there is a dead
//! server's. A folder whose path is too long for a socket address is reached through its descriptor.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::limits::{
    ADMIN_ANSWER_BYTES_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_IDLE, ADMIN_LINE_BYTES_MAX, SOCKET_PATH_BYTES_MAX,
};

/// The bound socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` in `path` true.
    _dir: Option<File>,
    listener: UnixListener,
}

/// One request that waits for its answer.
#[derive(Debug)]
pub struct AdminCall {
    /// The request, without its end of line.
    pub line: Vec<u8>,
    answer: oneshot::Sender<String>,
}

impl AdminCall {
    /// Answers with one line, given without its end.
    pub fn answer(self, line: String) {
        // Who went away does not want to know.
        let _gone = self.answer.send(line);
    }
}

impl AdminSocket {
    /// Binds in `dir`, in the place of what a killed server left there. Call inside the runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn bind(dir: &Path) -> io::Result<AdminSocket> {
        let (path, opened) = path(dir)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(AdminSocket { path, _dir: opened, listener })
    }

    /// Passes requests on for ever. A request whose [`AdminCall`] is dropped ends its connection.
    pub async fn serve(&self, calls: mpsc::Sender<AdminCall>) -> Infallible {
        let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        loop {
            // Nobody closes the semaphore, so this is a place.
            let place = room.clone().acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &calls).await {
                            tracing::debug!(%error, "an operator's connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an operator could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket's file stays");
        }
    }
}

/// Asks the server that runs on `dir`; `None` when none does.
///
/// # Errors
/// `WouldBlock` or `TimedOut` when it does not answer within `timeout`, `UnexpectedEof` when it ends meanwhile, and
/// whatever the operating system says.
pub fn ask(dir: &Path, request: &str, timeout: Duration) -> io::Result<Option<String>> {
    let connected = path(dir).and_then(|(path, _dir)| BlockingStream::connect(path));
    let mut stream = match connected {
        Ok(stream) => stream,
        // Nobody listens: there is no file, or it is a killed server's.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    io::BufReader::new((&stream).take(ADMIN_ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    match answer.pop() {
        Some('\n') => Ok(Some(answer)),
        Some(_) | None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn path(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let plain = dir.join("admin.sock");
    if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((plain, None));
    }
    let dir = File::open(dir)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd())), Some(dir)))
}

async fn converse(stream: UnixStream, calls: &mpsc::Sender<AdminCall>) -> io::Result<()> {
    // The mode of the socket keeps others out; this also does where a folder was opened to them.
    let (ours, theirs) = (nix::unistd::geteuid().as_raw(), stream.peer_cred()?.uid());
    if theirs != ours && theirs != 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let bounded = &mut (&mut reader).take(ADMIN_LINE_BYTES_MAX as u64 + 1);
        let read = tokio::time::timeout(ADMIN_IDLE, bounded.read_until(b'\n', &mut line)).await;
        match read.unwrap_or(Ok(0))? {
            0 => return Ok(()),
            _ if line.pop() != Some(b'\n') => return Err(ErrorKind::InvalidData.into()),
            _ => {}
        }
        let (answer, answered) = oneshot::channel();
        if calls.send(AdminCall { line, answer }).await.is_err() {
            return Ok(());
        }
        let Ok(mut answer) = answered.await else { return Ok(()) };
        answer.push('\n');
        writer.write_all(answer.as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `dir` with a server that says everything twice, and lets `test` ask it from another thread.
    async fn with_server(dir: PathBuf, test: impl FnOnce(&Path) + Send + 'static) {
        let socket = AdminSocket::bind(&dir).unwrap();
        let (sender, mut calls) = mpsc::channel::<AdminCall>(4);
        let asked = tokio::task::spawn_blocking(move || test(&dir));
        let serve = async {
            while let Some(call) = calls.recv().await {
                let text = String::from_utf8_lossy(&call.line).into_owned();
                if text != "drop me" {
                    call.answer(format!("{text}{text}"));
                }
            }
        };
        tokio::select! {
            never = socket.serve(sender) => match never {},
            () = serve => {}
            asked = asked => asked.unwrap(),
        }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("yodel-admin-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn asks_and_is_answered_also_below_a_long_path() {
        for name in ["short".to_owned(), format!("long{}", "/long".repeat(40))] {
            let dir = folder(&name);
            assert_eq!(ask(&dir, "a", SECOND).unwrap(), None, "nobody runs");
            with_server(dir.clone(), |dir| {
                assert_eq!(ask(dir, "ab", SECOND).unwrap().as_deref(), Some("abab"));
                let mode = std::fs::metadata(dir.join("admin.sock")).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                assert_eq!(ask(dir, "drop me", SECOND).unwrap_err().kind(), ErrorKind::UnexpectedEof);
                let long = "x".repeat(ADMIN_LINE_BYTES_MAX + 1);
                assert!(ask(dir, &long, SECOND).is_err());
            })
            .await;
            assert_eq!(ask(&dir, "a", SECOND).unwrap(), None, "ended");
            assert!(!dir.join("admin.sock").exists());
        }
        std::fs::remove_dir_all(folder("long")).unwrap();
        std::fs::remove_dir_all(folder("short")).unwrap();
    }

    #[tokio::test]
    async fn a_killed_servers_socket_is_replaced() {
        let dir = folder("stale");
        drop(std::os::unix::net::UnixListener::bind(dir.join("admin.sock")).unwrap());
        assert!(dir.join("admin.sock").exists());
        assert_eq!(ask(&dir, "a", SECOND).unwrap(), None);
        with_server(dir.clone(), |dir| assert_eq!(ask(dir, "1", SECOND).unwrap().as_deref(), Some("11")))
            .await;
        std::fs::remove_dir_all(dir).unwrap();
    }
}
