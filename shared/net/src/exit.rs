//! Exit codes that scripts may rely on, the same for all three programs.

/// How a command ended, as the number the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed for a reason without a number of its own.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The daemon or server is not running.
    NotRunning = 3,
    /// Not signed in, expired or revoked.
    NotSignedIn = 4,
    /// There is no such user.
    NoSuchUser = 5,
    /// Offline, or nobody answered.
    NoAnswer = 6,
    /// Declined or busy.
    Declined = 7,
    /// No network path.
    NoPath = 8,
    /// The peer's identity changed or is not verified.
    Trust = 9,
    /// The audio device.
    Audio = 10,
    /// Refused by quota or policy.
    Refused = 11,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in order, with the line that `help exit-codes` prints.
    pub const ALL: &'static [(Exit, &'static str)] = &[
        (Exit::Done, "done"),
        (Exit::Failed, "failed"),
        (Exit::Usage, "wrong usage"),
        (Exit::NotRunning, "daemon or server not running"),
        (Exit::NotSignedIn, "not signed in, expired or revoked"),
        (Exit::NoSuchUser, "no such user"),
        (Exit::NoAnswer, "offline or no answer"),
        (Exit::Declined, "declined or busy"),
        (Exit::NoPath, "no network path"),
        (Exit::Trust, "identity changed or not verified"),
        (Exit::Audio, "audio device"),
        (Exit::Refused, "refused by quota or policy"),
        (Exit::Interrupted, "interrupted"),
    ];

    /// The exit of this number; `Failed` for a number that means nothing here.
    pub fn from_code(code: u8) -> Exit {
        let known = Exit::ALL.iter().map(|(exit, _)| *exit).find(|exit| exit.code() == code);
        known.unwrap_or(Exit::Failed)
    }

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}
