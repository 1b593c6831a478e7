//! The store on disk: one sled tree that holds all our trees, so that a group of writes is one atomic batch, and
//! beside it the journal.
//!
//! In sled a key is `tree name, 0x00, key` and a value `0 or 1 (journaled), value`. The key `0x00` holds the sequence
//! number of the last journal record the tree contains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use tracing::{info, warn};
use yodel_wire::machine::Write;

use crate::error::StoreError;
use crate::journal::{Journal, JournalKey};
use crate::limits::{
    CACHE_BYTES_CLIENT, CACHE_BYTES_LOGIN_SERVER, CACHE_BYTES_SUPERNODE, FREE_BYTES_TO_COMMIT,
    JOURNAL_COMPACT_BYTES_MIN, JOURNAL_COMPACT_RATIO, TREE_NAME_BYTES_MAX,
};
use crate::recover;
use crate::store::{Entry, Store};

pub(crate) const SEQUENCE_KEY: &[u8] = &[0];

/// How to open a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// sled's page cache, bytes.
    pub cache_bytes: u64,
    /// Whether to keep the fsynced journal.
    pub journal: bool,
}

impl StoreOptions {
    /// A login server: accounts must survive power loss.
    pub const LOGIN_SERVER: StoreOptions =
        StoreOptions { cache_bytes: CACHE_BYTES_LOGIN_SERVER, journal: true };
    /// A supernode: everything can be fetched again.
    pub const SUPERNODE: StoreOptions = StoreOptions { cache_bytes: CACHE_BYTES_SUPERNODE, journal: false };
    /// A client: contacts are few and dear.
    pub const CLIENT: StoreOptions = StoreOptions { cache_bytes: CACHE_BYTES_CLIENT, journal: true };
}

/// The store on disk.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    // Dropped in this order: sled writes a last time before the folder is let go.
    db: sled::Db,
    journal: Option<Journal>,
    _lock: Flock<std::fs::File>,
    /// What the journal held when it was last rewritten, bytes.
    compacted_bytes: u64,
    flushes: u64,
    poisoned: bool,
}

impl SledStore {
    /// Opens the store in `dir`, creating it when there is none, and puts right what a crash left behind
    /// ([`recover::open`]); what was put right is logged.
    ///
    /// # Errors
    /// When another process has it open, the disk is full, or it is damaged beyond what the policy repairs.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<SledStore, StoreError> {
        let (store, findings) = recover::open(dir, options)?;
        for finding in findings {
            warn!(dir = %dir.display(), "{finding}");
        }
        Ok(store)
    }

    pub(crate) fn assemble(
        dir: &Path,
        db: sled::Db,
        journal: Option<Journal>,
        lock: Flock<std::fs::File>,
    ) -> SledStore {
        let compacted_bytes = journal.as_ref().map_or(0, Journal::bytes);
        SledStore {
            dir: dir.to_owned(),
            db,
            journal,
            _lock: lock,
            compacted_bytes,
            flushes: 0,
            poisoned: false,
        }
    }

    fn error(&self, error: sled::Error) -> StoreError {
        sled_error(&self.dir, error)
    }

    fn apply(&mut self, writes: &[Write], sequence: u64) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for write in writes {
            let key = sled_key(write.tree, &write.key);
            match &write.value {
                Some(value) => batch.insert(key, sled_value(write.journaled, value)),
                None => batch.remove(key),
            }
        }
        if self.journal.is_some() {
            batch.insert(SEQUENCE_KEY, &sequence.to_be_bytes());
        }
        self.db.apply_batch(batch).map_err(|e| self.error(e))?;
        self.db.flush().map_err(|e| self.error(e))?;
        self.flushes += 1;
        Ok(())
    }

    /// Rewrites the journal when it holds mostly what was replaced long ago.
    fn compact(&mut self) -> Result<(), StoreError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        if journal.bytes() < JOURNAL_COMPACT_BYTES_MIN
            || journal.bytes() / JOURNAL_COMPACT_RATIO < self.compacted_bytes
        {
            return Ok(());
        }
        let entries = journaled_entries(&self.dir, &self.db)?;
        let journal = Journal::rewrite(&recover::journal_path(&self.dir), &entries, journal.last())?;
        info!(bytes = journal.bytes(), entries = entries.len(), "journal rewritten");
        self.compacted_bytes = journal.bytes();
        self.journal = Some(journal);
        Ok(())
    }
}

impl Store for SledStore {
    fn get(&self, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.db.get(sled_key(tree, key)).map_err(|e| self.error(e))?;
        Ok(value.and_then(|value| value.split_first().map(|(_, value)| value.to_vec())))
    }

    fn scan(&self, tree: &'static str) -> Result<Vec<Entry>, StoreError> {
        let prefix = sled_key(tree, &[]);
        let mut entries = Vec::new();
        for entry in self.db.scan_prefix(&prefix) {
            let (key, value) = entry.map_err(|e| self.error(e))?;
            if let (Some(key), Some((_, value))) = (key.get(prefix.len()..), value.split_first()) {
                entries.push((key.to_vec(), value.to_vec()));
            }
        }
        Ok(entries)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if writes.iter().any(|w| w.tree.len() > TREE_NAME_BYTES_MAX || w.tree.contains('\0')) {
            return Err(StoreError::TooLarge);
        }
        recover::require_free(&self.dir, FREE_BYTES_TO_COMMIT)?;
        let sequence = match &mut self.journal {
            // The journal refuses what is too large before it writes a byte.
            Some(journal) => match journal.append(writes) {
                Err(StoreError::TooLarge) => return Err(StoreError::TooLarge),
                other => other,
            },
            None => Ok(0),
        };
        let result = sequence.and_then(|sequence| self.apply(writes, sequence)).and_then(|()| self.compact());
        self.poisoned = result.is_err();
        result
    }

    fn flushes(&self) -> u64 {
        self.flushes
    }
}

pub(crate) fn sled_key(tree: &str, key: &[u8]) -> Vec<u8> {
    let mut out = tree.as_bytes().to_vec();
    out.push(0);
    out.extend_from_slice(key);
    out
}

pub(crate) fn sled_value(journaled: bool, value: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::from(journaled)];
    out.extend_from_slice(value);
    out
}

pub(crate) fn sled_error(dir: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => StoreError::io(dir, source),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => {
            StoreError::Damaged { path: dir.to_owned(), detail: error.to_string() }
        }
    }
}

/// Everything in the tree that the journal must hold too.
pub(crate) fn journaled_entries(
    dir: &Path,
    db: &sled::Db,
) -> Result<BTreeMap<JournalKey, Vec<u8>>, StoreError> {
    let mut entries = BTreeMap::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|e| sled_error(dir, e))?;
        let Some((1, value)) = value.split_first().map(|(mark, value)| (*mark, value)) else { continue };
        let mut parts = key.splitn(2, |byte| *byte == 0);
        if let (Some(tree), Some(key)) = (parts.next(), parts.next())
            && let Ok(tree) = std::str::from_utf8(tree)
            && !tree.is_empty()
        {
            entries.insert((tree.to_owned(), key.to_vec()), value.to_vec());
        }
    }
    Ok(entries)
}

/// The sequence number of the last journal record the tree contains.
pub(crate) fn tree_sequence(dir: &Path, db: &sled::Db) -> Result<u64, StoreError> {
    let value = db.get(SEQUENCE_KEY).map_err(|e| sled_error(dir, e))?;
    Ok(value.and_then(|v| v.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
}
