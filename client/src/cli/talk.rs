//! A command's side of the daemon's socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use yodel::command::{Cause, Failure};
use yodel::{daemon, rpc};
use yodel_net::Exit;

use super::{Context, background, failed};

/// How long a response may take when `--timeout` does not say.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Talk {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    asked: u64,
    early: Vec<Value>,
}

impl Talk {
    /// Connects, and starts the daemon when it does not run and may be started.
    pub(crate) async fn open(context: &Context) -> Result<Talk, Failure> {
        Ok(Talk::over(connect(context).await?))
    }

    pub(crate) fn over(stream: UnixStream) -> Talk {
        let (reader, writer) = stream.into_split();
        Talk { lines: BufReader::new(reader).lines(), writer, asked: 0, early: Vec::new() }
    }

    /// One request and its result. Events that come before it are kept for [`Talk::event`].
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        params: Value,
        within: Option<Duration>,
    ) -> Result<Value, Failure> {
        self.asked += 1;
        let request = rpc::request(self.asked, method, &params);
        self.writer.write_all(request.as_bytes()).await.map_err(failed)?;
        let response = async {
            loop {
                let line = self.line().await?;
                if line.get("method").is_some() {
                    self.early.push(line);
                } else if line.get("id").and_then(Value::as_u64) == Some(self.asked) {
                    return Ok(line);
                }
            }
        };
        let late = || Failure::new(Exit::NoAnswer, "the daemon does not answer in time");
        let mut response = timeout(within.unwrap_or(PATIENCE), response).await.map_err(|_| late())??;
        match response.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(failure_of(response.get("error").unwrap_or(&Value::Null))),
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Value, Failure> {
        if !self.early.is_empty() {
            return Ok(params_of(self.early.remove(0)));
        }
        loop {
            let line = self.line().await?;
            if line.get("method").and_then(Value::as_str) == Some(rpc::EVENT) {
                return Ok(params_of(line));
            }
        }
    }

    async fn line(&mut self) -> Result<Value, Failure> {
        match self.lines.next_line().await.map_err(failed)? {
            Some(line) => serde_json::from_str(&line).map_err(failed),
            None => Err(Failure::new(Exit::NotRunning, "the daemon ended")),
        }
    }
}

fn params_of(mut line: Value) -> Value {
    line.get_mut("params").map(Value::take).unwrap_or_default()
}

fn failure_of(error: &Value) -> Failure {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("failed").to_owned();
    let code = error.get("code").and_then(Value::as_i64).unwrap_or(1);
    let exit = match code {
        rpc::INVALID_PARAMS | rpc::NO_METHOD => Exit::Usage,
        _ => exit_of(u64::try_from(code).unwrap_or(1)),
    };
    let cause =
        error.pointer("/data/cause").and_then(Value::as_str).and_then(|code| code.parse::<Cause>().ok());
    Failure { exit, message, cause }
}

/// The exit code with this number.
pub(crate) fn exit_of(number: u64) -> Exit {
    u8::try_from(number).map_or(Exit::Failed, Exit::from_code)
}

async fn connect(context: &Context) -> Result<UnixStream, Failure> {
    match daemon::connect(&context.dirs.socket()).await {
        Ok(stream) => Ok(stream),
        Err(error) if !is_absent(&error) => Err(failed(error)),
        Err(_) if context.rules.no_autostart || !context.config.autostart => Err(not_running()),
        Err(_) => {
            background::start(context).await?;
            daemon::connect(&context.dirs.socket()).await.map_err(failed)
        }
    }
}

/// Whether connecting failed because nobody listens.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

pub(crate) fn not_running() -> Failure {
    Failure::new(Exit::NotRunning, "the daemon is not running; use `yodel daemon start`")
}

/// `yodel rpc`: lines of stdin to the daemon, its lines to stdout. After the end of stdin it goes on as long as
/// responses are due, calls it asked for run, or something was subscribed to.
pub(crate) async fn pipe(context: &Context) -> Result<Exit, Failure> {
    let (reader, mut writer) = connect(context).await?.into_split();
    let mut from_daemon = BufReader::new(reader).lines();
    let mut from_user = BufReader::new(tokio::io::stdin()).lines();
    let mut owed = Owed::default();
    let mut ended = false;
    while !(ended && owed.nothing()) {
        tokio::select! {
            line = from_user.next_line(), if !ended => match line.map_err(failed)? {
                Some(line) => {
                    owed.asked(&line);
                    writer.write_all(format!("{line}\n").as_bytes()).await.map_err(failed)?;
                }
                None => ended = true,
            },
            line = from_daemon.next_line() => match line.map_err(failed)? {
                Some(line) => {
                    owed.said(&line);
                    super::print(&format!("{line}\n"))?;
                }
                None => return Err(Failure::new(Exit::NotRunning, "the daemon ended")),
            },
        }
    }
    Ok(Exit::Done)
}

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Nothing,
    /// A call's events, until it ended; and with the connection it would end.
    Call,
    /// Events for ever.
    Events,
}

/// What the daemon still owes whoever asked through `rpc`.
#[derive(Debug, Default)]
struct Owed {
    /// Responses, by the text of their ids.
    responses: BTreeMap<String, Follows>,
    /// Calls that were asked for and run.
    calls: BTreeSet<String>,
    /// A subscription was taken.
    subscribed: bool,
}

impl Owed {
    fn nothing(&self) -> bool {
        self.responses.is_empty() && self.calls.is_empty() && !self.subscribed
    }

    fn asked(&mut self, line: &str) {
        match rpc::parse(line.as_bytes()) {
            Ok(request) => {
                let auto = request.params.get("auto").and_then(Value::as_bool) == Some(true);
                let follows = match request.method.as_str() {
                    "events" => Follows::Events,
                    "answer" if auto => Follows::Events,
                    "call" | "answer" => Follows::Call,
                    _ => Follows::Nothing,
                };
                match request.id {
                    Some(id) => drop(self.responses.insert(id.to_string(), follows)),
                    None => self.subscribed |= follows == Follows::Events,
                }
            }
            // It is answered with an error, under an id that may be null.
            Err(_) if !line.trim().is_empty() => drop(self.responses.insert(id_in(line), Follows::Nothing)),
            Err(_) => {}
        }
    }

    fn said(&mut self, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(event) = line.get("params") {
            if event.get("state").and_then(Value::as_str) == Some("ended")
                && let Some(call) = event.get("call").and_then(Value::as_str)
            {
                self.calls.remove(call);
            }
            return;
        }
        let follows = self.responses.remove(&line.get("id").cloned().unwrap_or_default().to_string());
        let Some(result) = line.get("result") else { return };
        match (follows, result.get("call").and_then(Value::as_str)) {
            (Some(Follows::Events), _) => self.subscribed = true,
            (Some(Follows::Call), Some(call)) => drop(self.calls.insert(call.to_owned())),
            _ => {}
        }
    }
}

fn id_in(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    value.get("id").cloned().unwrap_or_default().to_string()
}
