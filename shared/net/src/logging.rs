//! Logs go to stderr: TRACE per packet, DEBUG per decision, INFO per change a user would notice.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Starts logging. `verbosity` counts `-v` (0 = warnings, 1 = info, 2 = debug, 3 = trace; below 0 = errors only);
/// `YODEL_LOG` overrides it with a filter such as `info,yodel_net=trace`. A second call does nothing.
pub fn init(verbosity: i8, format: LogFormat) {
    let level = match verbosity {
        ..=-1 => "error",
        0 => "warn",
        1 => "info,quinn=warn,quinn_proto=warn,rustls=warn,sled=warn",
        2 => "debug,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,sled=warn",
        3.. => "trace,quinn=info,quinn_proto=info,quinn_udp=info,rustls=info,sled=info",
    };
    let filter = EnvFilter::try_from_env("YODEL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second call fails, and the first one's choice stands.
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    drop(started);
}
