//! The commands: each asks the daemon, or does its work alone, and ends with one exit code. Data goes to stdout,
//! everything else to stderr.

mod args;
mod background;
mod call;
mod doctor;
mod show;
mod sign_in;
mod talk;
mod texts;

use std::io::{self, Write};

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use serde_json::{Value, json};
use yodel::command::Failure;
use yodel::config::Config;
use yodel::dirs::Dirs;
use yodel_net::Exit;
use yodel_net::logging::{self, LogFormat};

use args::{Cli, Command, Contacts, Rules};

/// What every command has.
pub(crate) struct Context {
    pub(crate) rules: Rules,
    pub(crate) dirs: Dirs,
    pub(crate) config: Config,
}

/// Reads the arguments and runs the command.
pub(crate) fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(failure) = comes_later(&error) {
                complain(false, &failure);
                return failure.exit;
            }
            // Help and version are answers and go to stdout, the rest to stderr.
            let wrong = error.use_stderr();
            let _closed = error.print();
            return if wrong { Exit::Usage } else { Exit::Done };
        }
    };
    let json = cli.rules.json;
    match run(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            if failure.exit != Exit::Done {
                complain(json, &failure);
            }
            failure.exit
        }
    }
}

/// Whether the command that clap does not know is one of the contract's that is still to come.
fn comes_later(error: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    args::LATER.contains(&name.as_str()).then_some(())?;
    Some(Failure::new(Exit::Usage, format!("`{name}` comes with a later version")))
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { rules, command } = cli;
    let verbosity = if rules.quiet { -1 } else { i8::try_from(rules.verbose).unwrap_or(3) };
    let format = if rules.json { LogFormat::Json } else { LogFormat::Text };
    logging::init(verbosity, format);
    if let Some(exit) = texts::alone(&rules, &command) {
        return exit;
    }
    let dirs = Dirs::new(rules.dir.as_deref()).map_err(failed)?;
    let (config, warnings) = Config::load(dirs.config())?;
    if !rules.quiet {
        for warning in &warnings {
            say(&format!("warning: {}: {warning}", dirs.config().display()));
        }
    }
    if let Command::Config(what) = &command {
        return texts::config(&rules, what, &config, &warnings);
    }
    let context = Context { rules, dirs, config };
    let runtime = yodel_net::runtime().map_err(failed)?;
    let result = runtime.block_on(with_daemon(context, command));
    // A read of stdin, or a name that does not resolve, must not keep the process.
    runtime.shutdown_background();
    result
}

async fn with_daemon(context: Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::SignIn(args) => sign_in::run(&context, args).await,
        Command::Daemon(what) => background::run(context, what).await,
        Command::Status => context.ask("status", json!({}), show::status).await,
        Command::Doctor { save } => doctor::run(&context, save.as_deref()).await,
        Command::Contacts(what) => contacts(&context, what).await,
        Command::Call(args) => call::call(&context, args).await,
        Command::Answer(args) => call::answer(&context, args).await,
        Command::Decline(which) => context.ask("decline", json!({"call": which.call}), show::nothing).await,
        Command::Hangup(which) => context.ask("hangup", json!({"call": which.call}), show::nothing).await,
        Command::Mute(which) => context.ask("mute", json!({"call": which.call}), show::nothing).await,
        Command::Unmute(which) => context.ask("unmute", json!({"call": which.call}), show::nothing).await,
        Command::Calls => context.ask("calls", json!({}), show::calls).await,
        Command::Why { call } => context.ask("why", json!({"call": call}), show::why).await,
        Command::Events { only } => call::events(&context, only).await,
        Command::Rpc => talk::pipe(&context).await,
        Command::Config(_) | Command::Completions { .. } | Command::Man | Command::Help { .. } => {
            Ok(Exit::Done)
        }
    }
}

async fn contacts(context: &Context, what: Contacts) -> Result<Exit, Failure> {
    match what {
        Contacts::List => context.ask("contacts.list", json!({}), show::contacts).await,
        Contacts::Requests => context.ask("contacts.requests", json!({}), show::requests).await,
        Contacts::Add(who) => context.ask("contacts.add", json!({"user": who.user}), show::nothing).await,
        Contacts::Accept(who) => {
            context.ask("contacts.accept", json!({"user": who.user}), show::nothing).await
        }
        Contacts::Reject(who) => {
            context.ask("contacts.reject", json!({"user": who.user}), show::nothing).await
        }
        Contacts::Remove(who) => {
            context.ask("contacts.remove", json!({"user": who.user}), show::nothing).await
        }
        Contacts::Block(who) => context.ask("contacts.block", json!({"user": who.user}), show::nothing).await,
        Contacts::Unblock(who) => {
            context.ask("contacts.unblock", json!({"user": who.user}), show::nothing).await
        }
    }
}

impl Context {
    /// One request, one response, printed.
    async fn ask(&self, method: &str, params: Value, show: fn(&Value) -> String) -> Result<Exit, Failure> {
        let mut talk = talk::Talk::open(self).await?;
        let result = talk.ask(method, params, self.rules.timeout).await?;
        self.print(&result, show)?;
        Ok(Exit::Done)
    }

    /// Prints data: as JSON, or as `show` puts it.
    pub(crate) fn print(&self, value: &Value, show: fn(&Value) -> String) -> Result<(), Failure> {
        let text = if self.rules.json { format!("{value}\n") } else { show(value) };
        print(&text)
    }
}

/// Writes to stdout, at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Who reads only the first lines has what it wants; a command that stays notices by its own end.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Done, "")),
        other => other.map_err(failed),
    }
}

/// Writes a line to stderr.
pub(crate) fn say(text: &str) {
    // Who closed stderr does not want to know.
    let _closed = writeln!(io::stderr(), "{text}");
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

/// A failure, on stderr; with `--json` as an object.
fn complain(json: bool, failure: &Failure) {
    if json {
        let cause = failure.cause.map(|cause| cause.code());
        let error = json!({"v": 1, "error": failure.message, "exit": failure.exit.code(), "cause": cause});
        say(&error.to_string());
    } else {
        let cause = failure.cause.map(|cause| format!(" ({})", cause.code())).unwrap_or_default();
        say(&format!("yodel: {}{cause}", failure.message));
    }
}
