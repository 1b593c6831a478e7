//! The command line: what is asked, and how it is answered on a terminal.

mod args;
mod check;
mod config;
mod init;
mod run;
mod socket;

use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use serde_json::{Value, json};
use yodel_login_server::admin::AdminRequest;
use yodel_login_server::keys::{Layout, ServerKeys};
use yodel_net::Exit;
use yodel_net::console::{Console, Failure, color_wanted, later};
use yodel_net::logging::{self, LogFormat};

use args::{
    Args, BulletinCommand, Command, ConfigCommand, DeviceCommand, InviteCommand, KeyCommand, LATER,
    UserCommand,
};
use config::Config;

const PROGRAM: &str = "yodel-login-server";

/// Reads the arguments, does what they say, and tells how it ended.
pub(crate) fn main() -> Exit {
    let command = Args::command().color(args::color(color_wanted(std::env::args())));
    let parsed = command.try_get_matches().and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            if let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
                && let Some(failure) = later(command, &LATER)
            {
                Console::default().complain(PROGRAM, failure.exit, &failure.to_string());
                return failure.exit;
            }
            // Help and version are no errors; clap knows which stream they go to.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let out = Console { json: args.json, quiet: args.quiet };
    match dispatch(&args, out) {
        Ok(exit) => exit,
        Err(failure) => {
            out.complain(PROGRAM, failure.exit, &failure.to_string());
            failure.exit
        }
    }
}

fn dispatch(args: &Args, out: Console) -> Result<Exit, Failure> {
    let layout = Layout::new(&std::path::absolute(&args.dir).map_err(Failure::system)?);
    let (config, warnings) = Config::load(&layout.config())?;
    for warning in &warnings {
        out.note(format!("{PROGRAM}: warning: {}: {warning}", layout.config().display()));
    }
    let format = if config.log_json { LogFormat::Json } else { LogFormat::Text };
    let verbosity = i8::try_from(args.verbose).unwrap_or(i8::MAX) - i8::from(args.quiet);
    // A server tells what a user would notice; the short commands only what goes wrong.
    logging::init(verbosity + i8::from(matches!(args.command, Command::Run { .. })), format);

    let patience = args.timeout.unwrap_or(Duration::from_secs(15));
    let ask = |request| socket::ask(&layout, request, patience).and_then(|reply| out.value(&reply));
    match &args.command {
        Command::Init { realm, listen, advertise } => init::init(&layout, realm, *listen, advertise, out),
        Command::Run { listen, database } => {
            if database.is_some() {
                return Err(Failure::usage(
                    "--database: PostgreSQL comes later; without it, state is in --dir",
                ));
            }
            run::run(&layout, &config, *listen, out)
        }
        Command::Invite(InviteCommand::Create { user, role, uses, expires }) => {
            let request = AdminRequest::InviteCreate {
                user: user.clone(),
                role: role.clone(),
                uses: *uses,
                expires_s: expires.as_secs(),
            };
            let made = socket::ask(&layout, request, patience)?;
            match made.get("invite").and_then(Value::as_str) {
                // The code alone, for `invite=$(…)`.
                Some(code) if !out.json => out.text(&format!("{code}\n")),
                Some(_) | None => out.value(&made),
            }
        }
        Command::User(UserCommand::List) => ask(AdminRequest::UserList),
        Command::User(UserCommand::Show { name }) => ask(AdminRequest::UserShow { name: name.clone() }),
        Command::User(UserCommand::Suspend { name }) => {
            ask(AdminRequest::UserSuspend { name: name.clone(), suspended: true })
        }
        Command::User(UserCommand::Resume { name }) => {
            ask(AdminRequest::UserSuspend { name: name.clone(), suspended: false })
        }
        Command::User(UserCommand::Delete { name }) => ask(AdminRequest::UserDelete { name: name.clone() }),
        Command::Device(DeviceCommand::List { user }) => ask(AdminRequest::DeviceList { user: user.clone() }),
        Command::Device(DeviceCommand::Revoke { device }) => {
            ask(AdminRequest::DeviceRevoke { device: device.clone() })
        }
        Command::Bulletin(BulletinCommand::Show) => ask(AdminRequest::BulletinShow),
        Command::Key(KeyCommand::List) => {
            let keys = ServerKeys::load(&layout).map_err(Failure::failed)?;
            out.value(&init::keys_json(&keys))
        }
        Command::Check => check::check(&layout, out),
        Command::Health => {
            let timeout = args.timeout.unwrap_or(Duration::from_secs(5));
            socket::ask_running(&layout, &AdminRequest::Health, timeout)?
                .ok_or_else(Failure::not_running)
                .and_then(|reply| out.value(&reply))
        }
        Command::Config(ConfigCommand::Show) => out.value(&config.to_json()),
        Command::Config(ConfigCommand::Check) => {
            let ok = warnings.is_empty();
            out.value(&json!({"v": 1, "ok": ok, "file": layout.config(), "warnings": warnings}))?;
            Ok(if ok { Exit::Done } else { Exit::Failed })
        }
        Command::Config(ConfigCommand::Example) => out.document("config", config::EXAMPLE),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), PROGRAM, &mut text);
            out.document("script", &String::from_utf8_lossy(&text))
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut text).map_err(Failure::system)?;
            out.document("roff", &String::from_utf8_lossy(&text))
        }
    }
}
