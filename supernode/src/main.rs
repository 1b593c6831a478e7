//! `yodel-supernode`: arguments in, exit code out.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};
use yodel_identity::name::Aor;
use yodel_net::console::{Console, color_wanted};
use yodel_net::logging::{self, LogFormat};
use yodel_net::{Exit, span};
use yodel_supernode::admin::{self, AdminRequest};
use yodel_supernode::config::{Advertise, EXAMPLE, Settings};
use yodel_supernode::limits::DRAIN_DEADLINE;
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
  yodel-supernode status --dir /srv/yodel --json

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 4 not made yet, expired or revoked, 6 no answer,
9 not the realm of the invitation, 11 refused.";

const PROGRAM: &str = "yodel-supernode";

/// How often a waiting `drain` looks.
const LOOK: Duration = Duration::from_millis(200);

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
    #[command(after_long_help = "Examples:\n  \
        yodel-supernode init --dir D --invite yodel1… --listen 0.0.0.0:7001 --advertise 198.51.100.7\n  \
        yodel-supernode init --dir D --invite yodel1… --listen [::]:7001 --tcp 443,80\n  \
        yodel-supernode init --dir D --invite yodel1… --listen 127.0.0.1:0")]
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
    /// Sends devices elsewhere, before a restart or for good; records stay.
    #[command(
        after_long_help = "Newcomers are told at once where to go, attached devices within half a minute, those \
        whose call is relayed here by the deadline. It lasts until `undrain` or the end of the process.\n\n\
        Examples:\n  \
        yodel-supernode drain --dir D\n  \
        yodel-supernode drain --dir D --wait --deadline 10m && systemctl restart yodel-supernode"
    )]
    Drain {
        /// Return when nobody is attached any more, or the deadline has passed.
        #[arg(long)]
        wait: bool,
        /// How long relayed calls may go on; 60s without it.
        #[arg(long, value_name = "TIME", value_parser = span::parse)]
        deadline: Option<Duration>,
    },
    /// Takes `drain` back.
    Undrain,
    /// Looks for what would keep it from serving.
    Check,
    /// Whether it serves: exit 0 when it does and sees the realm.
    Health,
    /// The ring as this supernode sees it.
    #[command(after_long_help = "Examples:\n  \
        yodel-supernode overlay show --dir D\n  \
        yodel-supernode overlay lookup bob@example.net --dir D --json\n  \
        yodel-supernode overlay export --format dot --dir D | dot -Tsvg > ring.svg")]
    Overlay {
        #[command(subcommand)]
        what: OverlayCommand,
    },
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
enum OverlayCommand {
    /// Lists the members.
    Show,
    /// Looks an account up as a device's home does, past the cache, and tells what it took.
    Lookup {
        /// Such as bob@example.net.
        aor: Aor,
    },
    /// Prints the members for other programs.
    Export {
        /// dot for Graphviz, or json.
        #[arg(long, value_parser = ["dot", "json"])]
        format: String,
    },
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
    let parsed = Cli::command().color(color).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let verbosity = if cli.rules.quiet { -1 } else { i8::try_from(cli.rules.verbose).unwrap_or(3) };
    // A server tells what a user would notice; the short commands only what goes wrong.
    logging::init(
        verbosity.saturating_add(i8::from(matches!(cli.command, Command::Run { .. }))),
        LogFormat::Text,
    );
    match execute(&cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            console(&cli.rules).complain(PROGRAM, error.exit(), &error.to_string());
            error.exit().into()
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
            })?;
            Ok(Exit::Done)
        }
        Command::Run { listen } => {
            let mut settings = settings(rules, &folder)?;
            settings.listen = listen.unwrap_or(settings.listen);
            block_on(run::run(&folder, settings, rules.json))
        }
        Command::Status => {
            let status = ask(&folder, AdminRequest::Status, timeout)?;
            let keys = ["node", "members", "clients", "records", "relays", "draining", "login_server"];
            report_fields(rules, &status, &keys)
        }
        Command::Drain { wait, deadline } => {
            let within = deadline.unwrap_or(DRAIN_DEADLINE);
            let mut status = ask(&folder, AdminRequest::Drain(within), timeout)?;
            if *wait {
                // The last ones are told at the deadline itself.
                let looks = within.as_millis() / LOOK.as_millis() + 5;
                for _ in 0..looks {
                    if status["clients"] == 0 || status["draining"] != true {
                        break;
                    }
                    std::thread::sleep(LOOK);
                    status = ask(&folder, AdminRequest::Status, timeout)?;
                }
            }
            report_fields(rules, &status, &["draining", "clients", "relays"])
        }
        Command::Undrain => {
            let status = ask(&folder, AdminRequest::Undrain, timeout)?;
            report_fields(rules, &status, &["draining", "clients", "relays"])
        }
        Command::Health => {
            let status = ask(&folder, AdminRequest::Status, timeout)?;
            let well = status["members"].as_u64().is_some_and(|members| members > 0);
            report(rules, &json!({ "v": 1, "ok": well }), |out| {
                writeln!(out, "{}", if well { "serves" } else { "sees no member" })
            })?;
            Ok(if well { Exit::Done } else { Exit::Failed })
        }
        Command::Check => {
            let (ok, found) = run::check(&folder, timeout)?;
            report(rules, &found, |out| {
                for check in found["checks"].as_array().into_iter().flatten() {
                    let mark = if check["ok"] == true { "ok  " } else { "FAIL" };
                    writeln!(out, "{mark} {:<10} {}", text(&check["check"]), text(&check["detail"]))?;
                }
                Ok(())
            })?;
            Ok(if ok { Exit::Done } else { Exit::Failed })
        }
        Command::Overlay { what } => overlay(rules, &folder, what, timeout),
        Command::Config { what } => config(rules, &folder, what),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), PROGRAM, &mut script);
            document(rules, "script", &String::from_utf8_lossy(&script))
        }
        Command::Man => {
            let mut roff = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut roff)
                .map_err(|error| RunError::System("manual page", error))?;
            document(rules, "roff", &String::from_utf8_lossy(&roff))
        }
    }
}

fn overlay(
    rules: &Rules,
    folder: &Folder,
    what: &OverlayCommand,
    timeout: Duration,
) -> Result<Exit, RunError> {
    match what {
        OverlayCommand::Show => {
            let shown = ask(folder, AdminRequest::Members, timeout)?;
            report(rules, &shown, |out| {
                for member in shown["members"].as_array().into_iter().flatten() {
                    let (node, state) = (text(&member["node"]), text(&member["state"]));
                    let rtt = member["rtt_ms"].as_f64().map_or(String::new(), |rtt| format!("{rtt:.1} ms"));
                    writeln!(out, "{node}  {state:<8} {:<24} {rtt}", text(&member["udp"][0]))?;
                }
                Ok(())
            })?;
            Ok(Exit::Done)
        }
        OverlayCommand::Lookup { aor } => {
            let found = ask(folder, AdminRequest::Lookup(aor.key()), timeout)?;
            let keys = [
                "found",
                "version",
                "devices",
                "first_ms",
                "settled_ms",
                "holders_asked",
                "datagrams",
                "bytes",
            ];
            report_fields(rules, &found, &keys)?;
            Ok(match found["found"].as_str() {
                Some("account") => Exit::Done,
                Some("none") => Exit::NoSuchUser,
                _ => Exit::NoAnswer,
            })
        }
        OverlayCommand::Export { format } => {
            let shown = ask(folder, AdminRequest::Members, timeout)?;
            let text = if format == "dot" { dot(&shown) } else { format!("{shown}\n") };
            document(rules, format, &text)
        }
    }
}

/// The members as a graph: one ring by node id, coloured by state.
fn dot(shown: &Value) -> String {
    let members: Vec<&Value> = shown["members"].as_array().into_iter().flatten().collect();
    let mut out =
        String::from("graph ring {\n  layout=circo;\n  node [shape=circle, style=filled, fontsize=9];\n");
    for member in &members {
        let color = match member["state"].as_str() {
            Some("alive") => "palegreen",
            Some("standby") => "lightblue",
            Some("suspect") => "gold",
            _ => "lightgray",
        };
        let node = text(&member["node"]);
        let short: String = node.chars().take(8).collect();
        out.push_str(&format!("  \"{node}\" [label=\"{short}\", fillcolor={color}];\n"));
    }
    for (one, next) in members.iter().zip(members.iter().cycle().skip(1)) {
        out.push_str(&format!("  \"{}\" -- \"{}\";\n", text(&one["node"]), text(&next["node"])));
    }
    out.push_str("}\n");
    out
}

fn config(rules: &Rules, folder: &Folder, what: &ConfigCommand) -> Result<Exit, RunError> {
    match what {
        ConfigCommand::Example => document(rules, "config", EXAMPLE),
        ConfigCommand::Show => {
            let shown = settings(rules, folder)?;
            report(rules, &shown.to_json(), |out| out.write_all(shown.to_toml().as_bytes()))?;
            Ok(Exit::Done)
        }
        ConfigCommand::Check => {
            let (_, warnings) = Settings::load(&folder.config()).map_err(RunError::Config)?;
            report(rules, &json!({ "v": 1, "ok": warnings.is_empty(), "warnings": warnings }), |out| {
                warnings.iter().try_for_each(|warning| writeln!(out, "{warning}"))
            })?;
            Ok(if warnings.is_empty() { Exit::Done } else { Exit::Failed })
        }
    }
}

fn settings(rules: &Rules, folder: &Folder) -> Result<Settings, RunError> {
    let (settings, warnings) = Settings::load(&folder.config()).map_err(RunError::Config)?;
    for warning in warnings {
        console(rules).note(format!("{PROGRAM}: warning: {}: {warning}", folder.config().display()));
    }
    Ok(settings)
}

fn console(rules: &Rules) -> Console {
    Console { json: rules.json, quiet: rules.quiet }
}

fn document(rules: &Rules, field: &str, text: &str) -> Result<Exit, RunError> {
    console(rules).document(field, text).map_err(RunError::Output)
}

fn ask(folder: &Folder, request: AdminRequest, timeout: Duration) -> Result<Value, RunError> {
    admin::ask(folder.path(), request, timeout)
        .map_err(|error| RunError::System("admin socket", error))?
        .ok_or(RunError::NotRunning)
}

/// Prints a status: as text only these fields.
fn report_fields(rules: &Rules, status: &Value, keys: &[&str]) -> Result<Exit, RunError> {
    report(rules, status, |out| {
        keys.iter().try_for_each(|key| writeln!(out, "{key:<13}{}", text(&status[*key])))
    })?;
    Ok(Exit::Done)
}

fn block_on<T>(future: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    yodel_net::runtime().map_err(|error| RunError::System("runtime", error))?.block_on(future)
}

fn report(
    rules: &Rules,
    value: &Value,
    text: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
) -> Result<(), RunError> {
    let mut out = Vec::new();
    let written = if rules.json { writeln!(out, "{value}") } else { text(&mut out) };
    written.map_err(|error| RunError::System("output", error))?;
    console(rules).text(&String::from_utf8_lossy(&out)).map(drop).map_err(RunError::Output)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
