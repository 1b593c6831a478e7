//! What an operator asks of the login server, beside it running or not, and what it answers: JSON both ways, because
//! it goes over the admin socket and to the terminal as it is.

use serde::{Deserialize, Serialize};

/// A request. On the admin socket: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum AdminRequest {
    /// Make an invitation.
    InviteCreate {
        /// For this account only.
        user: Option<String>,
        /// `user`, `supernode` or `gateway`.
        role: String,
        /// How often it can be used.
        uses: u64,
        /// How long, seconds.
        expires_s: u64,
    },
    /// All accounts.
    UserList,
    /// One account.
    UserShow {
        /// Its name, with or without the realm.
        name: String,
    },
    /// Take or give back the right to sign in and to renew.
    UserSuspend {
        /// Its name.
        name: String,
        /// Take or give back.
        suspended: bool,
    },
    /// Remove an account and revoke its devices.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// All devices, or those of one account.
    DeviceList {
        /// The account.
        user: Option<String>,
    },
    /// Take a device's or a supernode's credential back.
    DeviceRevoke {
        /// Its node id, hexadecimal, or enough of its beginning to be unique.
        device: String,
    },
    /// The present bulletin.
    BulletinShow,
    /// Figures for a health check.
    Health,
}

/// Why a request was not done; the number is the exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminError {
    /// Exit code of the command.
    pub exit: u8,
    /// What to tell the operator.
    pub error: String,
}

impl AdminError {
    pub(crate) fn usage(error: impl Into<String>) -> AdminError {
        AdminError { exit: 2, error: error.into() }
    }

    pub(crate) fn no_such(error: impl Into<String>) -> AdminError {
        AdminError { exit: 5, error: error.into() }
    }

    pub(crate) fn failed(error: impl Into<String>) -> AdminError {
        AdminError { exit: 1, error: error.into() }
    }
}

/// The answer: an object with `"v":1`, as the command prints it with `--json`.
pub type AdminReply = Result<serde_json::Value, AdminError>;
