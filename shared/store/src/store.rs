//! What every store can do.

use yodel_wire::machine::Write;

use crate::error::StoreError;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Trees of keys and values. One owner; reads see every commit that returned.
pub trait Store: Send {
    /// The value under `key`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn get(&self, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All of a tree, in order of keys.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn scan(&self, tree: &'static str) -> Result<Vec<Entry>, StoreError>;

    /// Brings all writes to stable storage, together or not at all; a later write to the same key wins. When it
    /// returns `Ok`, they survive `kill -9`; those marked `journaled` survive power loss too. All writes of one key
    /// must carry the same mark.
    ///
    /// # Errors
    /// Nothing of the writes may be acknowledged then. After `DiskFull` and `TooLarge` the store is as before; after
    /// anything else it answers `Poisoned` until it is opened anew, and may then hold the writes or not.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// How often the store was flushed since it was opened.
    fn flushes(&self) -> u64;
}
