//! Where state is kept: the [`Store`] trait, [`SledStore`] on disk, [`MemoryStore`] for tests and the simulator, and
//! [`GroupCommit`], which turns many commits into one flush. sled is named in `sled_store.rs` and `recover.rs` alone.
//!
//! Order of use: open a store ([`recover::open`] decides what to do about a folder that was left in disorder), load
//! what the machine needs with [`Store::scan`], hand the store to [`GroupCommit::start`], and submit the machine's
//! commits there. Nothing is acknowledged before it came back as stored.
#![forbid(unsafe_code)]

mod error;
pub mod file;
mod group_commit;
mod journal;
pub mod limits;
mod memory;
pub mod recover;
mod sled_store;
mod store;

pub use error::StoreError;
pub use group_commit::{Done, GroupCommit, GroupCounters};
pub use journal::{Journal, JournalKey, Replay};
pub use memory::MemoryStore;
pub use recover::Finding;
pub use sled_store::{SledStore, StoreOptions};
pub use store::{Entry, Store};
