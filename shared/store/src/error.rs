//! Why a store cannot be opened, read or written.

use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder open.
    #[error("another process{} uses {}", .pid.map(|p| format!(" ({p})")).unwrap_or_default(), .dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// Who wrote itself into the lock file last.
        pid: Option<u32>,
    },
    /// Too little space is left on the disk.
    #[error("disk full: {free} bytes are free and {needed} are needed; make room and try again")]
    DiskFull {
        /// Bytes free now.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// What is on disk cannot be read, and there is no journal to rebuild it from.
    #[error("{} is damaged: {detail}; restore a backup or move it away to start empty", .path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// An earlier write failed in the middle. Open the store anew.
    #[error("an earlier write failed; the store must be opened anew")]
    Poisoned,
    /// A write that breaks a bound of `limits.rs`.
    #[error("a write is larger than the store takes")]
    TooLarge,
    /// The operating system said no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Wraps an input/output error at `path`; a full disk or an exhausted quota becomes [`StoreError::DiskFull`].
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { free: 0, needed: crate::limits::FREE_BYTES_TO_COMMIT }
            }
            _ => StoreError::Io { path: path.into(), source },
        }
    }
}
