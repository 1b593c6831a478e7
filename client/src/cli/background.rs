//! `daemon run|start|stop`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use yodel::command::Failure;
use yodel::dirs::private_folder;
use yodel::{daemon, start};
use yodel_net::{Exit, ready};

use super::args::Daemon;
use super::talk::{Talk, exit_of, is_absent, not_running};
use super::{Context, failed, say, show};

/// How long a daemon may take until it serves.
const START_WITHIN: Duration = Duration::from_secs(15);

/// How long a daemon may take to end: its own bound and the closing of its links.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A log longer than this is set aside when a daemon starts, in the place of the one before.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

const POLL: Duration = Duration::from_millis(20);

pub(crate) async fn run(context: Context, what: Daemon) -> Result<Exit, Failure> {
    match what {
        Daemon::Run { detached } => serve(context, detached).await,
        Daemon::Start => {
            match daemon::connect(&context.dirs.socket()).await {
                Ok(_) => {}
                Err(error) if is_absent(&error) => start(&context).await?,
                Err(error) => return Err(failed(error)),
            }
            context.print(&json!({"v": 1, "running": true}), |_| "the daemon is running\n".to_owned())?;
            Ok(Exit::Done)
        }
        Daemon::Stop => stop(&context).await,
    }
}

async fn serve(context: Context, detached: bool) -> Result<Exit, Failure> {
    if detached && let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "stays in the session of its terminal");
    }
    // Whatever is made from here on is for this user alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let Some(claimed) = daemon::claim(&context.dirs).map_err(failed)? else {
        return Err(Failure::new(Exit::Failed, "the daemon is running already"));
    };
    let setup = start::phone(&context.dirs, context.config)?;
    let json = context.rules.json.then(|| json!({"v": 1, "event": "ready"}).to_string());
    let serving = move || {
        if let Err(error) = ready::ready(json.as_deref()) {
            tracing::warn!(%error, "nobody reads that the daemon is ready");
        }
    };
    daemon::run(claimed, setup, serving).await.map_err(failed)?;
    Ok(Exit::Done)
}

/// Starts a daemon in the background and waits until it takes connections.
pub(crate) async fn start(context: &Context) -> Result<(), Failure> {
    if yodel::keys::Keys::are_absent(context.dirs.data()) {
        // A daemon would say the same, and a folder would be made for nothing.
        return Err(yodel::start::not_signed_in());
    }
    private_folder(context.dirs.data()).map_err(failed)?;
    let path = context.dirs.log();
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.old")).map_err(failed)?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(dir) = &context.rules.dir {
        command.arg("--dir").arg(std::path::absolute(dir).map_err(failed)?);
    }
    command.args(std::iter::repeat_n("-v", usize::from(context.rules.verbose.max(1))));
    let mut child = command
        .args(["daemon", "run", "--detached"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let socket = context.dirs.socket();
    let served = async {
        loop {
            if daemon::connect(&socket).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = child.try_wait().map_err(failed)? {
                // Another command may have started one at the same moment; then that one serves.
                if daemon::connect(&socket).await.is_ok() {
                    return Ok(());
                }
                let exit = exit_of(status.code().and_then(|code| u64::try_from(code).ok()).unwrap_or(1));
                if exit == Exit::NotSignedIn {
                    return Err(yodel::start::not_signed_in());
                }
                return Err(Failure::new(exit, format!("the daemon did not start: {}", last_line(&path))));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(context.rules.timeout.unwrap_or(START_WITHIN), served).await {
        Ok(served) => served,
        Err(_) => Err(Failure::new(Exit::NotRunning, "the daemon did not start in time")),
    }
}

/// What a daemon that ended said last.
fn last_line(log: &Path) -> String {
    let said = std::fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    match said.lines().last() {
        Some(line) => line.strip_prefix("yodel: ").unwrap_or(line).to_owned(),
        None => format!("see {}", log.display()),
    }
}

async fn stop(context: &Context) -> Result<Exit, Failure> {
    let socket = context.dirs.socket();
    let stream = match daemon::connect(&socket).await {
        Ok(stream) => stream,
        Err(error) if is_absent(&error) => return Err(not_running()),
        Err(error) => return Err(failed(error)),
    };
    let mut talk = Talk::over(stream);
    let result = talk.ask("daemon.stop", json!({}), context.rules.timeout).await?;
    let gone = async {
        while daemon::connect(&socket).await.is_ok() {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(context.rules.timeout.unwrap_or(STOP_WITHIN), gone).await.is_err() {
        say("the daemon has not ended yet");
        return Ok(Exit::Failed);
    }
    context.print(&result, show::nothing)?;
    Ok(Exit::Done)
}
