//! A store in memory, for tests and the simulator.

use std::collections::BTreeMap;

use yodel_wire::machine::Write;

use crate::error::StoreError;
use crate::limits::FREE_BYTES_TO_COMMIT;
use crate::store::{Entry, Store};

/// A store in memory. Clones are snapshots: what a machine would find after `kill -9` at that moment.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    trees: BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>,
    flushes: u64,
    full: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Makes the disk full, or gives it room again.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }
}

impl Store for MemoryStore {
    fn get(&self, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.trees.get(tree).and_then(|tree| tree.get(key)).cloned())
    }

    fn scan(&self, tree: &'static str) -> Result<Vec<Entry>, StoreError> {
        let entries = self.trees.get(tree).into_iter().flatten();
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if self.full {
            return Err(StoreError::DiskFull { free: 0, needed: FREE_BYTES_TO_COMMIT });
        }
        for write in writes {
            let tree = self.trees.entry(write.tree).or_default();
            match &write.value {
                Some(value) => tree.insert(write.key.clone(), value.clone()),
                None => tree.remove(&write.key),
            };
        }
        self.flushes += 1;
        Ok(())
    }

    fn flushes(&self) -> u64 {
        self.flushes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_changes_nothing() {
        let mut store = MemoryStore::new();
        let write =
            |value: &[u8]| [Write { tree: "t", key: vec![1], value: Some(value.to_vec()), journaled: false }];
        store.commit(&write(b"a")).unwrap();
        store.set_full(true);
        assert!(matches!(store.commit(&write(b"b")), Err(StoreError::DiskFull { .. })));
        assert_eq!(store.get("t", &[1]).unwrap().as_deref(), Some(&b"a"[..]));
        store.set_full(false);
        store.commit(&write(b"b")).unwrap();
        assert_eq!(store.scan("t").unwrap(), vec![(vec![1], b"b".to_vec())]);
        assert_eq!(store.flushes(), 2);
    }
}
