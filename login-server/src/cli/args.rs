//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ColorChoice, Parser, Subcommand};
use clap_complete::Shell;
use yodel_net::span;

/// The login server of a Yodel realm: it vouches for who is who, and calls go on without it.
#[derive(Debug, Parser)]
#[command(
    name = "yodel-login-server",
    version,
    propagate_version = true,
    after_long_help = "Examples:\n  \
        yodel-login-server init --dir D --realm example.net --listen 198.51.100.1:4433\n  \
        yodel-login-server run --dir D\n  \
        yodel-login-server invite create --dir D --user alice\n  \
        yodel-login-server invite create --dir D --role supernode --json\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server not running, 5 no such user or device, 11 refused."
)]
pub(crate) struct Args {
    /// All state of this installation
    #[arg(
        long,
        global = true,
        env = "YODEL_DIR",
        default_value = "/var/lib/yodel-login-server",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// Print JSON: one object, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log more; twice for decisions, three times for packets
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colours in help and errors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    color: String,
    /// Give up after this long
    #[arg(long, global = true, value_name = "TIME", value_parser = span::parse)]
    pub(crate) timeout: Option<Duration>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a realm: its keys and its store
    #[command(after_long_help = "Examples:\n  \
        yodel-login-server init --dir D --realm example.net --listen 198.51.100.1:4433\n  \
        yodel-login-server init --dir D --realm example.net --listen [::]:4433 --advertise login.example.net:4433")]
    Init {
        /// Name of the realm, like a domain
        #[arg(long, value_name = "NAME")]
        realm: String,
        /// Where to listen: IP:PORT or [IPv6]:PORT; port 0 picks one for good
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Where others reach it, when that is not where it listens; may be given several times
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Vec<String>,
    },
    /// Serve until SIGTERM; prints one line `ready` when it does
    #[command(after_long_help = "Examples:\n  \
        yodel-login-server run --dir D\n  \
        yodel-login-server run --dir D --json --listen [::]:4433")]
    Run {
        /// Listen here instead of where `init` said
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// Keep state in PostgreSQL (comes later)
        #[arg(long, value_name = "URL")]
        database: Option<String>,
    },
    /// Invitations
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Accounts
    #[command(subcommand)]
    User(UserCommand),
    /// Devices and supernodes
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Keys of the realm
    #[command(subcommand)]
    Key(KeyCommand),
    /// The bulletin
    #[command(subcommand)]
    Bulletin(BulletinCommand),
    /// Look whether everything is in order
    Check,
    /// Ask the running server how it is
    Health,
    /// Settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The manual page
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invitation and print it; works while the server runs
    #[command(after_long_help = "Examples:\n  \
        yodel-login-server invite create --user alice --expires 48h\n  \
        yodel-login-server invite create --uses 20\n  \
        yodel-login-server invite create --role supernode --json")]
    Create {
        /// For this account; with --role supernode, its owner
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// What it lets in
        #[arg(long, default_value = "user", value_parser = ["user", "supernode", "gateway"])]
        role: String,
        /// How often it can be used
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u64,
        /// How long it can be used
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = span::parse)]
        expires: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// All accounts
    List,
    /// One account and its devices
    Show {
        /// The account
        name: String,
    },
    /// Take the right to sign in and to renew
    Suspend {
        /// The account
        name: String,
    },
    /// Give it back
    Resume {
        /// The account
        name: String,
    },
    /// Remove an account and revoke its devices
    Delete {
        /// The account
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// All devices and supernodes, or those of one account
    List {
        /// The account
        user: Option<String>,
    },
    /// Take the credential of a device or supernode back; the realm knows within seconds
    #[command(after_long_help = "Examples:\n  \
        yodel-login-server device list alice\n  \
        yodel-login-server device revoke 9f4cac7e")]
    Revoke {
        /// Node id, or its unique beginning
        device: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// The realm's keys and their dates
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BulletinCommand {
    /// The present bulletin
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The settings in force
    Show,
    /// Look whether the file is in order
    Check,
    /// A file with every setting
    Example,
}

/// What the contract names and a later version brings.
pub(crate) const LATER: [&str; 3] = ["rotate", "backup", "restore"];

/// The choice of colours as clap names it. `NO_COLOR` it knows itself.
pub(crate) fn color(wanted: &str) -> ColorChoice {
    match wanted {
        "always" => ColorChoice::Always,
        "never" => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_before_and_after_the_command() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        for line in [
            "yodel-login-server --dir D --json invite create --user alice",
            "yodel-login-server invite create --user alice --json --dir D",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert!(args.json && args.dir.as_os_str() == "D", "{line}");
        }
    }
}
