//! Every bound of this crate, with its reason.

use std::time::Duration;

/// sled's page cache on a login server, bytes. sled's own default of 1 GB is more than such a machine has.
pub const CACHE_BYTES_LOGIN_SERVER: u64 = 64 << 20;

/// sled's page cache on a supernode, bytes: all its state is re-fetchable and mostly in memory.
pub const CACHE_BYTES_SUPERNODE: u64 = 16 << 20;

/// sled's page cache on a client, bytes: contacts and history, read once at start.
pub const CACHE_BYTES_CLIENT: u64 = 1 << 20;

/// Space that must be free before a store is opened, bytes. sled writes whole segments of 512 KiB at open and cannot
/// open on a full disk; below this we say so in words instead.
pub const FREE_BYTES_TO_OPEN: u64 = 4 << 20;

/// Space that must be free before a commit, bytes. sled never recovers from a write that failed in the middle, so a
/// commit is refused while there is still room for what is already in flight.
pub const FREE_BYTES_TO_COMMIT: u64 = 2 << 20;

/// How long to wait for another process to let go of the folder: a process just killed keeps its lock until the kernel
/// has torn it down.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Commits that may wait for the commit thread. A machine has far fewer in flight; what does not fit is refused at
/// once, newest first.
pub const GROUP_QUEUE_MAX: usize = 4_096;

/// Commits brought to disk with one flush. Bounds the record in the journal and how long the first one waits.
pub const GROUP_COMMITS_MAX: usize = 1_024;

/// Longest name of a tree, bytes.
pub const TREE_NAME_BYTES_MAX: usize = 255;

/// Longest record in the journal, bytes: [`GROUP_COMMITS_MAX`] commits of 16 KiB with room to spare. A longer claim is
/// damage, and is not allocated.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 64 << 20;

/// Below this size a journal is never rewritten, bytes: it is read in well under a second.
pub const JOURNAL_COMPACT_BYTES_MIN: u64 = 16 << 20;

/// A journal this many times as large as what it holds is rewritten.
pub const JOURNAL_COMPACT_RATIO: u64 = 4;

/// Damaged files kept aside for whoever wants to look; older ones go first.
pub const SET_ASIDE_MAX: usize = 8;

/// Largest file that `file.rs` reads, bytes: the largest of ours, a bulletin, is 16 KiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
