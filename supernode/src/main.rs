//! `yodel-supernode`: arguments in, exit code out.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};
use yodel_net::console::color_wanted;
use yodel_net::logging::{self, LogFormat};
use yodel_net::{Exit, span};
use yodel_supernode::admin;
use yodel_supernode::config::{Advertise, EXAMPLE, Settings};
use yodel_supernode::run::{self, Folder, RunError};

/// Keeps records, carries signalling and relays media for a Yodel realm.
#[derive(Parser)]
#[command(name = "yodel-supernode", version, after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    rules: Rules,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  yodel-supernode init --dir /srv/yodel --invite yodel1… --listen [::]:5061 --tcp 443,80 --advertise 203.0.113.7
  yodel-supernode run --dir /srv/yodel
  yodel-supernode status --dir /srv/yodel --json";

#[derive(Args)]
struct Rules {
    /// Folder of this supernode.
    #[arg(long, global = true, env = "YODEL_DIR", default_value = "/var/lib/yodel-supernode")]
    dir: PathBuf,
    /// Print objects, one a line.
    #[arg(long, global = true)]
    json: bool,
    /// Say less.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more; twice for decisions, thrice for packets.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Colours in help and errors.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    color: String,
    /// Give up after this, such as 500ms or 1.5s.
    #[arg(long, global = true, value_name = "TIME", value_parser = span::parse)]
    timeout: Option<Duration>,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a supernode by invitation: keys and credential.
    Init {
        /// The invitation, as `invite create --role supernode` printed it.
        #[arg(long)]
        invite: String,
        /// Where UDP and TCP are bound; [::] serves IPv4 too, port 0 means any.
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Further TCP ports.
        #[arg(long, value_name = "PORT,PORT", value_delimiter = ',')]
        tcp: Vec<u16>,
        /// Where others reach it, IP or IP:PORT; may be given several times.
        #[arg(long, value_name = "ADDR")]
        advertise: Vec<Advertise>,
    },
    /// Serves until it is told to stop; prints one line when it does.
    Run {
        /// Bind here instead of where the file says.
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Tells how a running supernode stands.
    Status,
    /// Looks for what would keep it from serving.
    Check,
    /// Whether it serves: exit 0 when it does and sees the realm.
    Health,
    /// The configuration.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Prints a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page.
    Man,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Prints the settings in force.
    Show,
    /// Says what is wrong with the file.
    Check,
    /// Prints a file with every key and its default.
    Example,
}

fn main() -> ExitCode {
    let color = match color_wanted(std::env::args()) {
        "always" => ColorChoice::Always,
        "never" => ColorChoice::Never,
        _ => ColorChoice::Auto,
    };
    let matches = Cli::command().color(color).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let verbosity = if cli.rules.quiet { -1 } else { i8::try_from(cli.rules.verbose).unwrap_or(3) };
    // A server tells what a user would notice; the short commands only what goes wrong.
    logging::init(
        verbosity.saturating_add(i8::from(matches!(cli.command, Command::Run { .. }))),
        LogFormat::Text,
    );
    match execute(&cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit();
            if cli.rules.json {
                print(&json!({ "v": 1, "error": error.to_string(), "exit": exit.code() }));
            }
            complain(&error.to_string());
            exit.into()
        }
    }
}

fn execute(cli: &Cli) -> Result<Exit, RunError> {
    let rules = &cli.rules;
    let folder = Folder::new(&rules.dir).map_err(|error| RunError::System("folder", error))?;
    let timeout = rules.timeout.unwrap_or(Duration::from_secs(10));
    match &cli.command {
        Command::Init { invite, listen, tcp, advertise } => {
            let settings = Settings {
                listen: *listen,
                tcp: tcp.clone(),
                advertise: advertise.clone(),
                ..Settings::default()
            };
            let limit = rules.timeout.unwrap_or(Duration::from_secs(60));
            let keys = block_on(async {
                tokio::time::timeout(limit, run::init(&folder, invite, &settings))
                    .await
                    .unwrap_or(Err(yodel_supernode::enrol::EnrolError::Offline.into()))
            })?;
            let node = keys.credential.node.to_string();
            let realm = keys.realm.to_string();
            report(rules, &json!({ "v": 1, "node": node, "realm": realm }), |out| {
                writeln!(out, "node   {node}\nrealm  {realm}")
            });
            Ok(Exit::Done)
        }
        Command::Run { listen } => {
            let mut settings = settings(&folder)?;
            settings.listen = listen.unwrap_or(settings.listen);
            block_on(run::run(&folder, settings, rules.json))
        }
        Command::Status => match ask(&folder, timeout)? {
            Some(status) => {
                report(rules, &status, |out| {
                    for key in ["node", "members", "clients", "records", "relays", "draining", "login_server"]
                    {
                        writeln!(out, "{key:<13}{}", text(&status[key]))?;
                    }
                    Ok(())
                });
                Ok(Exit::Done)
            }
            None => Ok(not_running(rules)),
        },
        Command::Health => match ask(&folder, timeout)? {
            Some(status) => {
                let well = status["members"].as_u64().is_some_and(|members| members > 0);
                report(rules, &json!({ "v": 1, "ok": well }), |out| {
                    writeln!(out, "{}", if well { "serves" } else { "sees no member" })
                });
                Ok(if well { Exit::Done } else { Exit::Failed })
            }
            None => Ok(not_running(rules)),
        },
        Command::Check => {
            let (ok, found) = run::check(&folder, timeout)?;
            report(rules, &found, |out| {
                for check in found["checks"].as_array().into_iter().flatten() {
                    let mark = if check["ok"] == true { "ok  " } else { "FAIL" };
                    writeln!(out, "{mark} {:<10} {}", text(&check["check"]), text(&check["detail"]))?;
                }
                Ok(())
            });
            Ok(if ok { Exit::Done } else { Exit::Failed })
        }
        Command::Config { what } => config(rules, &folder, what),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "yodel-supernode", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command())
                .render(&mut std::io::stdout())
                .map_err(|error| RunError::System("stdout", error))?;
            Ok(Exit::Done)
        }
    }
}

fn config(rules: &Rules, folder: &Folder, what: &ConfigCommand) -> Result<Exit, RunError> {
    match what {
        ConfigCommand::Example => {
            report(rules, &json!({ "v": 1, "config": EXAMPLE }), |out| out.write_all(EXAMPLE.as_bytes()));
            Ok(Exit::Done)
        }
        ConfigCommand::Show => {
            let shown = settings(folder)?.to_toml();
            report(rules, &json!({ "v": 1, "config": shown }), |out| out.write_all(shown.as_bytes()));
            Ok(Exit::Done)
        }
        ConfigCommand::Check => {
            let (_, warnings) = Settings::load(&folder.config()).map_err(RunError::Config)?;
            report(rules, &json!({ "v": 1, "ok": warnings.is_empty(), "warnings": warnings }), |out| {
                warnings.iter().try_for_each(|warning| writeln!(out, "{warning}"))
            });
            Ok(if warnings.is_empty() { Exit::Done } else { Exit::Failed })
        }
    }
}

fn settings(folder: &Folder) -> Result<Settings, RunError> {
    let (settings, warnings) = Settings::load(&folder.config()).map_err(RunError::Config)?;
    for warning in warnings {
        complain(&warning);
    }
    Ok(settings)
}

fn ask(folder: &Folder, timeout: Duration) -> Result<Option<Value>, RunError> {
    admin::ask(folder.path(), "status", timeout).map_err(|error| RunError::System("admin socket", error))
}

fn not_running(rules: &Rules) -> Exit {
    if rules.json {
        print(&json!({ "v": 1, "error": "not running", "exit": Exit::NotRunning.code() }));
    }
    complain("the supernode is not running");
    Exit::NotRunning
}

fn block_on<T>(future: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    yodel_net::runtime().map_err(|error| RunError::System("runtime", error))?.block_on(future)
}

fn report(
    rules: &Rules,
    value: &Value,
    text: impl FnOnce(&mut std::io::StdoutLock<'static>) -> std::io::Result<()>,
) {
    if rules.json {
        print(value);
    } else {
        // A reader that went away wants nothing more.
        let _read = text(&mut std::io::stdout().lock());
    }
}

fn print(value: &Value) {
    let _read = writeln!(std::io::stdout().lock(), "{value}");
}

fn complain(text: &str) {
    let _read = writeln!(std::io::stderr().lock(), "yodel-supernode: {text}");
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
