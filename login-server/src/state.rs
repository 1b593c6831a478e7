//! Everything the login server knows, in memory, and the writes that keep the store equal to it.
//!
//! A change is made here at once and acknowledged only when its commit is stored. While it is under way its account or
//! supernode is *held*: another request for it is told to come back, so that a commit that fails can be taken back by
//! putting the old record in its place. Counters only grow and are not taken back; a gap in them is nothing.

use std::collections::{BTreeMap, BTreeSet};

use yodel_identity::bulletin::RevokedSet;
use yodel_identity::keys::PublicKey;
use yodel_identity::name::AccountName;
use yodel_identity::node::{NodeId, OwnerTag, hex};
use yodel_store::{Store, StoreError};
use yodel_wire::machine::Write;
use yodel_wire::time::UnixTime;

use crate::roster::Roster;
use crate::tables::{
    ACCOUNTS, Account, COUNTERS, INVITATIONS, InvitationEntry, REVOKED, SUPERNODES, Supernode,
};

/// Why the store's content is not that of a login server.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what it should be.
    #[error("record {key} of {tree} is malformed")]
    Record {
        /// The tree.
        tree: &'static str,
        /// The key, in hexadecimal.
        key: String,
    },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) accounts: BTreeMap<AccountName, Account>,
    pub(crate) invitations: BTreeMap<[u8; 16], InvitationEntry>,
    pub(crate) supernodes: BTreeMap<NodeId, Supernode>,
    supernodes_by_key: BTreeMap<PublicKey, NodeId>,
    pub(crate) roster: Roster,
    pub(crate) revoked: RevokedSet,
    counters: BTreeMap<Vec<u8>, u64>,
    held: BTreeSet<Held>,
}

/// What a commit under way holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    Account(AccountName),
    Supernode(NodeId),
}

/// The writes of one commit, and how to take them back.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) writes: Vec<Write>,
    undo: Vec<Undo>,
    held: Vec<Held>,
}

#[derive(Debug)]
enum Undo {
    Account(AccountName, Option<Box<Account>>),
    Supernode(NodeId, Option<Box<Supernode>>),
    InvitationUse([u8; 16]),
    Invitation([u8; 16]),
    Revoked(NodeId),
}

impl State {
    pub(crate) fn load(store: &dyn Store) -> Result<State, LoadError> {
        fn record(tree: &'static str, key: &[u8]) -> LoadError {
            LoadError::Record { tree, key: hex(key) }
        }
        fn node(tree: &'static str, key: &[u8]) -> Result<NodeId, LoadError> {
            key.try_into().map(NodeId).map_err(|_| record(tree, key))
        }
        fn number(tree: &'static str, key: &[u8], value: &[u8]) -> Result<u64, LoadError> {
            value.try_into().map(u64::from_be_bytes).map_err(|_| record(tree, key))
        }
        let mut state = State::default();
        for (key, value) in store.scan(ACCOUNTS)? {
            let name = std::str::from_utf8(&key).ok().and_then(|name| AccountName::exact(name).ok());
            let (Some(name), Ok(account)) = (name, Account::decode(&value)) else {
                return Err(record(ACCOUNTS, &key));
            };
            state.accounts.insert(name, account);
        }
        for (key, value) in store.scan(INVITATIONS)? {
            let (Ok(id), Ok(entry)) = (key.as_slice().try_into(), InvitationEntry::decode(&value)) else {
                return Err(record(INVITATIONS, &key));
            };
            state.invitations.insert(id, entry);
        }
        for (key, value) in store.scan(SUPERNODES)? {
            let supernode = Supernode::decode(&value).map_err(|_| record(SUPERNODES, &key))?;
            state.supernodes_by_key.insert(supernode.issued.credential.key, node(SUPERNODES, &key)?);
            state.supernodes.insert(node(SUPERNODES, &key)?, supernode);
        }
        // Who came last is not kept; the newest credentials are as good a beginning as any.
        let mut serving: Vec<_> = state.supernodes.iter().filter(|(_, s)| s.serving).collect();
        serving.sort_by_key(|(_, supernode)| supernode.issued.credential.serial);
        serving.iter().for_each(|(node, _)| state.roster.serves(**node));
        for (key, value) in store.scan(REVOKED)? {
            let until = UnixTime::from_secs(number(REVOKED, &key, &value)?);
            state.revoked.insert(node(REVOKED, &key)?, until);
        }
        for (key, value) in store.scan(COUNTERS)? {
            let value = number(COUNTERS, &key, &value)?;
            state.counters.insert(key, value);
        }
        Ok(state)
    }

    /// The supernode with this key.
    pub(crate) fn supernode_with(&self, key: &PublicKey) -> Option<(NodeId, &Supernode)> {
        let node = self.supernodes_by_key.get(key)?;
        self.supernodes.get(node).map(|supernode| (*node, supernode))
    }

    /// Whether a commit that touches this is under way.
    pub(crate) fn is_held(&self, held: &Held) -> bool {
        self.held.contains(held)
    }

    /// The value of a counter.
    pub(crate) fn counter(&self, name: &[u8]) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Adds to a counter and returns its new value.
    pub(crate) fn count(&mut self, change: &mut Change, name: &[u8], add: u64) -> u64 {
        let value = self.counters.entry(name.to_vec()).or_insert(0);
        *value = value.saturating_add(add);
        change.write(COUNTERS, name, Some(value.to_be_bytes().to_vec()));
        *value
    }

    /// The next serial number of a credential.
    pub(crate) fn next_serial(&mut self, change: &mut Change) -> u64 {
        self.count(change, b"serial", 1)
    }

    /// The next slot of an owner; none is ever given twice.
    pub(crate) fn next_slot(&mut self, change: &mut Change, owner: OwnerTag) -> u32 {
        let name = [b"slot/".as_slice(), &owner.0].concat();
        u32::try_from(self.count(change, &name, 1)).unwrap_or(u32::MAX)
    }

    /// Puts an account in the place of what was there; `None` removes it.
    pub(crate) fn put_account(&mut self, change: &mut Change, name: &AccountName, account: Option<Account>) {
        self.hold(change, Held::Account(name.clone()));
        change.write(ACCOUNTS, name.as_str().as_bytes(), account.as_ref().map(Account::encode));
        let old = match account {
            Some(account) => self.accounts.insert(name.clone(), account),
            None => self.accounts.remove(name),
        };
        change.undo.push(Undo::Account(name.clone(), old.map(Box::new)));
    }

    /// Puts a supernode in the place of what was there; `None` removes it.
    pub(crate) fn put_supernode(&mut self, change: &mut Change, node: NodeId, supernode: Option<Supernode>) {
        self.hold(change, Held::Supernode(node));
        change.write(SUPERNODES, &node.0, supernode.as_ref().map(Supernode::encode));
        let old = self.replace_supernode(node, supernode);
        change.undo.push(Undo::Supernode(node, old.map(Box::new)));
    }

    fn replace_supernode(&mut self, node: NodeId, supernode: Option<Supernode>) -> Option<Supernode> {
        if supernode.as_ref().is_some_and(|supernode| supernode.serving) {
            self.roster.serves(node);
        } else {
            self.roster.left(node);
        }
        let key = supernode.as_ref().map(|supernode| supernode.issued.credential.key);
        let old = match supernode {
            Some(supernode) => self.supernodes.insert(node, supernode),
            None => self.supernodes.remove(&node),
        };
        if let Some(old) = &old {
            self.supernodes_by_key.remove(&old.issued.credential.key);
        }
        if let Some(key) = key {
            self.supernodes_by_key.insert(key, node);
        }
        old
    }

    /// Adds an invitation.
    pub(crate) fn add_invitation(&mut self, change: &mut Change, key: [u8; 16], entry: InvitationEntry) {
        change.write(INVITATIONS, &key, Some(entry.encode()));
        self.invitations.insert(key, entry);
        change.undo.push(Undo::Invitation(key));
    }

    /// Takes one use of an invitation. Many may be under way at once: what is written is what is left now.
    pub(crate) fn use_invitation(&mut self, change: &mut Change, key: [u8; 16]) {
        let Some(entry) = self.invitations.get_mut(&key) else { return };
        entry.uses_left = entry.uses_left.saturating_sub(1);
        change.write(INVITATIONS, &key, Some(entry.encode()));
        change.undo.push(Undo::InvitationUse(key));
    }

    /// Drops invitations that ended before `before`.
    pub(crate) fn drop_invitations(&mut self, change: &mut Change, before: UnixTime) {
        let ended: Vec<[u8; 16]> = self
            .invitations
            .iter()
            .filter(|(_, entry)| entry.expires < before)
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            self.invitations.remove(&key);
            change.write(INVITATIONS, &key, None);
        }
    }

    /// Takes a node's credential back until `until`.
    pub(crate) fn revoke(&mut self, change: &mut Change, node: NodeId, until: UnixTime) {
        change.write(REVOKED, &node.0, Some(until.as_secs().to_be_bytes().to_vec()));
        if self.revoked.insert(node, until).is_none() {
            change.undo.push(Undo::Revoked(node));
        }
    }

    /// Drops entries of the revoked set that ended before `now`.
    pub(crate) fn drop_revoked(&mut self, change: &mut Change, now: UnixTime) {
        let ended: Vec<NodeId> =
            self.revoked.iter().filter(|(_, until)| **until < now).map(|(node, _)| *node).collect();
        for node in ended {
            self.revoked.remove(&node);
            change.write(REVOKED, &node.0, None);
        }
    }

    /// The change is stored.
    pub(crate) fn stored(&mut self, change: Change) {
        self.release(&change);
    }

    /// The change could not be stored: takes it back.
    pub(crate) fn failed(&mut self, mut change: Change) {
        while let Some(undo) = change.undo.pop() {
            match undo {
                Undo::Account(name, Some(old)) => drop(self.accounts.insert(name, *old)),
                Undo::Account(name, None) => drop(self.accounts.remove(&name)),
                Undo::Supernode(node, old) => drop(self.replace_supernode(node, old.map(|old| *old))),
                Undo::InvitationUse(key) => {
                    if let Some(entry) = self.invitations.get_mut(&key) {
                        entry.uses_left += 1;
                    }
                }
                Undo::Invitation(key) => drop(self.invitations.remove(&key)),
                Undo::Revoked(node) => {
                    self.revoked.remove(&node);
                }
            }
        }
        self.release(&change);
    }

    fn hold(&mut self, change: &mut Change, held: Held) {
        if self.held.insert(held.clone()) {
            change.held.push(held);
        }
    }

    fn release(&mut self, change: &Change) {
        for held in &change.held {
            self.held.remove(held);
        }
    }
}

impl Change {
    fn write(&mut self, tree: &'static str, key: &[u8], value: Option<Vec<u8>>) {
        self.writes.push(Write { tree, key: key.to_vec(), value, journaled: true });
    }
}
