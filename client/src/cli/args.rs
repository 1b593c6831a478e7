//! The command line, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use yodel::audio::Spec;
use yodel::span;

/// Call people across any network, encrypted end to end.
#[derive(Debug, Parser)]
#[command(name = "yodel", version, disable_help_subcommand = true, propagate_version = true)]
#[command(after_long_help = "Examples:\n  \
    yodel sign-in alice@example.net --invite yodel1…\n  \
    yodel contacts add bob\n  \
    yodel call bob --audio file:hello.wav,heard.wav\n  \
    yodel answer --auto --audio tone:440\n\n\
    `yodel help exit-codes` and `yodel help causes` list what scripts may rely on.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) rules: Rules,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command, before or after it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Rules {
    /// Keep all state of this installation below DIR (default: XDG folders)
    #[arg(long, global = true, value_name = "DIR", env = "YODEL_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Say only errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; -vv and -vvv still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Give up after this time (500ms, 1.5s, 2m; plain numbers are seconds)
    #[arg(long, global = true, value_name = "T", value_parser = span::parse, env = "YODEL_TIMEOUT")]
    pub(crate) timeout: Option<Duration>,
    /// Do not start the daemon when it is not running: exit 3
    #[arg(long, global = true)]
    pub(crate) no_autostart: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign this device in: opens the account, or links a further device to it
    #[command(after_long_help = "Examples:\n  \
        yodel sign-in alice@example.net --invite yodel1…\n  \
        pass show yodel | yodel sign-in alice@example.net --invite yodel1… --password-stdin")]
    SignIn(SignIn),
    /// Account, homes and NAT of this device
    Status,
    /// The process that stays and takes calls; other commands start it when it does not run
    #[command(
        subcommand,
        after_long_help = "Examples:\n  \
        yodel daemon start\n  \
        yodel daemon run --json      # stays; prints one line when it serves\n  \
        yodel daemon stop"
    )]
    Daemon(Daemon),
    /// People you know
    #[command(
        subcommand,
        after_long_help = "Examples:\n  \
        yodel contacts add bob\n  \
        yodel contacts requests\n  \
        yodel contacts accept carol"
    )]
    Contacts(Contacts),
    /// Call somebody
    Call(Call),
    /// Answer a call, or every call
    Answer(Answer),
    /// Decline a call that rings here
    Decline(WhichCall),
    /// End a call
    Hangup(WhichCall),
    /// Send silence instead of the microphone
    Mute(WhichCall),
    /// Send the microphone again
    Unmute(WhichCall),
    /// Calls under way
    Calls,
    /// What happened to a call, step by step, with one cause and one next step
    #[command(after_long_help = "Examples:\n  \
        yodel why\n  \
        yodel why last --json")]
    Why {
        /// A call's id, or `last`
        #[arg(default_value = "last")]
        call: String,
    },
    /// What may keep calls from working: identity, clock, login server, supernodes, NAT, fallback, audio
    #[command(
        after_long_help = "Exit code 0 when nothing is wrong; what is only worth knowing is marked `note`.\n\n\
        Examples:\n  \
        yodel doctor\n  \
        yodel doctor --save report.json"
    )]
    Doctor {
        /// Write the report to this file too, as JSON; it names the account, addresses and homes
        #[arg(long, value_name = "FILE")]
        save: Option<std::path::PathBuf>,
    },
    /// What happens from now on
    #[command(after_long_help = "Examples:\n  \
        yodel events\n  \
        yodel events --only call,contact --json")]
    Events {
        /// Only these kinds, separated by commas: call, contact, online
        #[arg(long, value_name = "KINDS", value_delimiter = ',')]
        only: Vec<String>,
    },
    /// JSON-RPC 2.0 with the daemon on stdin and stdout, one object a line
    #[command(
        after_long_help = "Methods are called as the commands are: status, contacts.add, call, answer, events …\n\n\
        Example:\n  \
        echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}' | yodel rpc"
    )]
    Rpc,
    /// Settings
    #[command(subcommand)]
    Config(Config),
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The manual page, in roff
    Man,
    /// Help on a command, on `exit-codes` or on `causes`
    Help {
        /// What about
        topic: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SignIn {
    /// The account: USER@REALM
    pub(crate) account: String,
    /// The invitation
    #[arg(long, value_name = "CODE")]
    pub(crate) invite: String,
    /// Read the password from stdin (its first line)
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Put this device in the place of the one that is signed in here
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Daemon {
    /// Run it here, until SIGTERM
    Run {
        /// Leave the terminal's session
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Start it in the background
    Start,
    /// End it
    Stop,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contacts {
    /// All contacts
    List,
    /// Who asked, or called as a stranger
    Requests,
    /// Ask somebody to be a contact; done when the request is stored here
    Add(User),
    /// Accept who asked
    Accept(User),
    /// Drop a request
    Reject(User),
    /// Forget a contact
    Remove(User),
    /// Let nothing of somebody's get here; they are answered as strangers are
    Block(User),
    /// Take a block back
    Unblock(User),
}

#[derive(Debug, Args)]
pub(crate) struct User {
    /// USER, or USER@REALM
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct WhichCall {
    /// A call's id (default: the only one)
    pub(crate) call: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    yodel call echo --audio tone:440 --max 5s\n  \
    yodel call bob --json --audio file:hello.wav,heard.wav\n  \
    yodel call bob --audio file:hello.wav --record both.wav")]
pub(crate) struct Call {
    /// USER, USER@REALM, or `echo`
    pub(crate) user: String,
    /// Sound: default, device:ID, file:IN.wav[,OUT.wav], pipe:FD, tone:HZ, null
    #[arg(long, value_name = "SPEC")]
    pub(crate) audio: Option<Spec>,
    /// Hang up this long after the answer
    #[arg(long, value_name = "T", value_parser = span::parse)]
    pub(crate) max: Option<Duration>,
    /// Use relays only, so that the other side learns no address
    #[arg(long)]
    pub(crate) relay_only: bool,
    /// Only look up whom the call would reach, and ring nobody
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Record both voices: 48 kHz mono WAV
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    yodel answer --audio file:hello.wav,heard.wav\n  \
    yodel answer --auto --from bob,carol --audio tone:440")]
pub(crate) struct Answer {
    /// A call's id (default: the only one that rings)
    #[arg(conflicts_with = "auto")]
    pub(crate) call: Option<String>,
    /// Stay, and answer every call, also one that rings already, until interrupted
    #[arg(long)]
    pub(crate) auto: bool,
    /// With --auto: only calls of these, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "auto")]
    pub(crate) from: Vec<String>,
    /// Sound: default, device:ID, file:IN.wav[,OUT.wav], pipe:FD, tone:HZ, null
    #[arg(long, value_name = "SPEC")]
    pub(crate) audio: Option<Spec>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// The settings in effect
    Show,
    /// Whether the file is in order
    Check,
    /// A file with every key and its default
    Example,
}

/// What the contract names and a later version brings.
pub(crate) const LATER: [&str; 19] = [
    "hold",
    "resume",
    "dtmf",
    "ping",
    "presence",
    "verify",
    "search",
    "chat",
    "messages",
    "send",
    "receive",
    "history",
    "devices",
    "audio",
    "gateway",
    "supernode",
    "tui",
    "link",
    "lines",
];

/// clap's own description, for completions, manual page and help.
pub(crate) fn description() -> clap::Command {
    Cli::command()
}
