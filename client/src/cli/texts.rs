//! Commands that need neither installation nor daemon: help, completions, the manual page, settings.

use serde_json::json;
use yodel::command::{Cause, Failure};
use yodel::config::{Config, EXAMPLE};
use yodel_net::Exit;

use super::args::{self, Command, Rules};
use super::{failed, print, say};

/// Runs the command when it is one of these.
pub(crate) fn alone(rules: &Rules, command: &Command) -> Option<Result<Exit, Failure>> {
    match command {
        Command::Completions { shell } => Some(completions(rules, *shell)),
        Command::Man => Some(man(rules)),
        Command::Help { topic } => Some(help(rules, topic)),
        Command::SignIn(_)
        | Command::Status
        | Command::Doctor { .. }
        | Command::Daemon(_)
        | Command::Contacts(_)
        | Command::Call(_)
        | Command::Answer(_)
        | Command::Decline(_)
        | Command::Hangup(_)
        | Command::Mute(_)
        | Command::Unmute(_)
        | Command::Calls
        | Command::Why { .. }
        | Command::Events { .. }
        | Command::Rpc
        | Command::Config(_) => None,
    }
}

pub(crate) fn config(
    rules: &Rules,
    what: &args::Config,
    config: &Config,
    warnings: &[String],
) -> Result<Exit, Failure> {
    match what {
        args::Config::Example => document(rules, "config", EXAMPLE)?,
        args::Config::Show if rules.json => {
            let table: toml::Table = config.to_toml().parse().map_err(failed)?;
            let mut value = json!({"v": 1});
            if let Some(object) = value.as_object_mut() {
                for (key, setting) in table {
                    object.insert(key, serde_json::to_value(setting).map_err(failed)?);
                }
            }
            print(&format!("{value}\n"))?;
        }
        args::Config::Show => print(&config.to_toml())?,
        args::Config::Check => {
            // Whatever makes no sense ended the command before; warnings were said.
            if rules.json {
                print(&format!("{}\n", json!({"v": 1, "ok": warnings.is_empty(), "warnings": warnings})))?;
            } else if warnings.is_empty() && !rules.quiet {
                say("the configuration is in order");
            }
            return Ok(if warnings.is_empty() { Exit::Done } else { Exit::Failed });
        }
    }
    Ok(Exit::Done)
}

fn completions(rules: &Rules, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut args::description(), "yodel", &mut out);
    document(rules, "script", &String::from_utf8_lossy(&out))?;
    Ok(Exit::Done)
}

fn man(rules: &Rules) -> Result<Exit, Failure> {
    let mut out = Vec::new();
    clap_mangen::Man::new(args::description()).render(&mut out).map_err(failed)?;
    document(rules, "roff", &String::from_utf8_lossy(&out))?;
    Ok(Exit::Done)
}

/// Data that is a text: with `--json` one object with it.
fn document(rules: &Rules, field: &str, text: &str) -> Result<(), Failure> {
    if rules.json { print(&format!("{}\n", json!({"v": 1, field: text}))) } else { print(text) }
}

fn help(rules: &Rules, topic: &[String]) -> Result<Exit, Failure> {
    match topic {
        [topic] if topic == "exit-codes" => exit_codes(rules),
        [topic] if topic == "causes" => causes(rules),
        path => {
            let mut command = args::description();
            command.build();
            for name in path {
                command = command.find_subcommand(name).cloned().ok_or_else(|| {
                    let why = if args::LATER.contains(&name.as_str()) {
                        format!("`{name}` comes with a later version")
                    } else {
                        format!("there is no command {name:?}")
                    };
                    Failure::new(Exit::Usage, why)
                })?;
            }
            document(rules, "help", &command.render_long_help().to_string())?;
            Ok(Exit::Done)
        }
    }
}

fn exit_codes(rules: &Rules) -> Result<Exit, Failure> {
    for (exit, meaning) in Exit::ALL {
        let line = if rules.json {
            json!({"v": 1, "exit": exit.code(), "meaning": meaning}).to_string()
        } else {
            format!("{:>3}  {meaning}", exit.code())
        };
        print(&format!("{line}\n"))?;
    }
    Ok(Exit::Done)
}

fn causes(rules: &Rules) -> Result<Exit, Failure> {
    for cause in Cause::ALL {
        let exit = cause.exit_code() as u8;
        let line = if rules.json {
            json!({"v": 1, "cause": cause.code(), "exit": exit, "next_step": cause.next_step()}).to_string()
        } else {
            format!("{:<28} exit {exit:>2}  {}", cause.code(), cause.next_step())
        };
        print(&format!("{line}\n"))?;
    }
    Ok(Exit::Done)
}
