//! Keeping this device's own records alive: the contact entry that says which homes reach it, and its account's record.
//!
//! Contract: [`Publisher::set_homes`] at every change, [`Publisher::handle_read_back`] with what a lookup of the own
//! account found, [`Publisher::handle_written`] with every `Written` frame, [`Publisher::handle_timeout`] at
//! [`Publisher::deadline`]; drain [`Publisher::poll_output`].
//!
//! Before the first entry of a start, the records are read back: the sequence is the highest ever seen plus one, never
//! the clock. A write that is not acknowledged goes again through the other home. *Online* means that the newest entry
//! is acknowledged by enough holders. What one home acknowledged is read back through the other: a home that only says
//! so would make this device unreachable without a word.

use std::collections::VecDeque;

use yodel_identity::account::AccountRecord;
use yodel_identity::credential::Credential;
use yodel_identity::keys::SigningKey;
use yodel_identity::node::NodeId;
use yodel_overlay::record::{ContactEntry, ContactEntryFields, Scope, WriteRequest, WriteStatus, Written};
use yodel_overlay::verify::LookupResult;
use yodel_wire::frame::Frame;
use yodel_wire::time::{Instant, Now};

use crate::limits::{
    ACCOUNT_REFRESH, CHECK_AFTER, DOUBTS_MAX, ENTRY_LIFE, ENTRY_REFRESH, WRITE_REFUSED, WRITE_RETRY,
};

/// What the publisher wants done or tells.
#[derive(Debug)]
pub enum PublisherOutput {
    /// Write this frame to this home.
    Frame(NodeId, Frame),
    /// Look up the own account, past every cache.
    ReadBack,
    /// The same through this home alone; [`Publisher::handle_checked`] gets the result.
    Check(NodeId),
    /// Keep this sequence number.
    Sequence(u64),
    /// A new entry was signed: calls answer with it.
    Entry(Vec<u8>),
    /// The newest entry is acknowledged, or no longer is.
    Online(bool),
    /// The holders keep a newer account record, signed by the same root key.
    NewerRecord(Box<AccountRecord>),
}

/// Where the publisher stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No home: nothing to say.
    Homeless,
    /// Waiting for the holders to tell the highest sequence.
    ReadingBack { since: Instant },
    /// An entry is on its way.
    Writing { id: u64, since: Instant, via: usize },
    /// Acknowledged.
    Settled { since: Instant },
    /// Refused; again after a pause.
    Refused { since: Instant },
    /// Gone for good.
    Withdrawn,
}

/// See the module's text.
pub struct Publisher {
    key: [u8; 16],
    credential: Credential,
    signing: SigningKey,
    record: AccountRecord,
    nonce: [u8; 16],
    sequence: u64,
    read_back: bool,
    stage: Stage,
    homes: Vec<NodeId>,
    entry: Option<ContactEntry>,
    account_sent: Option<Instant>,
    need_account: bool,
    next_id: u64,
    online: bool,
    /// When the newest entry is read back, and through which home.
    check: Option<(Instant, NodeId)>,
    /// Checks in a row that did not find it.
    doubts: u32,
    outputs: VecDeque<PublisherOutput>,
}

impl Publisher {
    /// `sequence` is the highest this device remembers; `nonce` is new at each start.
    pub fn new(
        key: [u8; 16],
        credential: Credential,
        signing: SigningKey,
        record: AccountRecord,
        nonce: [u8; 16],
        sequence: u64,
    ) -> Publisher {
        Publisher {
            key,
            credential,
            signing,
            record,
            nonce,
            sequence,
            read_back: false,
            stage: Stage::Homeless,
            homes: Vec::new(),
            entry: None,
            account_sent: None,
            need_account: true,
            next_id: 0,
            online: false,
            check: None,
            doubts: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether the newest entry is acknowledged.
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// Whether a withdrawal is on its way, or was acknowledged.
    pub fn is_withdrawn(&self) -> bool {
        matches!(self.stage, Stage::Withdrawn)
    }

    /// A renewed credential and the record that lists it.
    pub fn set_credential(&mut self, now: Now, credential: Credential, record: AccountRecord) {
        self.credential = credential;
        self.record = record;
        self.need_account = true;
        self.rewrite(now);
    }

    /// The warm homes, the one that carries signalling first.
    pub fn set_homes(&mut self, now: Now, homes: Vec<NodeId>) {
        if homes == self.homes || matches!(self.stage, Stage::Withdrawn) {
            return;
        }
        self.homes = homes;
        if self.homes.is_empty() {
            self.stage = Stage::Homeless;
            self.set_online(false);
        } else if self.read_back {
            self.rewrite(now);
        } else if !matches!(self.stage, Stage::ReadingBack { .. }) {
            self.stage = Stage::ReadingBack { since: now.mono };
            self.outputs.push_back(PublisherOutput::ReadBack);
        }
    }

    /// What the holders keep of the own account.
    pub fn handle_read_back(&mut self, now: Now, result: &LookupResult) {
        match result {
            LookupResult::Found { account, entries, settled } => {
                let own = entries.iter().find(|entry| entry.device == self.credential.node);
                self.sequence = self.sequence.max(own.map_or(0, |entry| entry.sequence));
                if account.version > self.record.version && account.root == self.record.root {
                    self.record = (**account).clone();
                    self.outputs.push_back(PublisherOutput::NewerRecord(account.clone()));
                } else if account.version == self.record.version {
                    self.need_account = false;
                    self.account_sent = Some(now.mono);
                }
                if !settled {
                    return;
                }
            }
            LookupResult::NoSuchAccount => {}
            // Nobody could say: the write will be told if it is stale.
            LookupResult::Unreachable => {}
        }
        self.read_back = true;
        if matches!(self.stage, Stage::ReadingBack { .. }) {
            self.rewrite(now);
        }
    }

    /// A home reports on a write.
    pub fn handle_written(&mut self, now: Now, home: NodeId, written: &Written) {
        let Stage::Writing { id, .. } = self.stage else { return };
        if written.id != id {
            return;
        }
        match written.status {
            WriteStatus::Stored => {
                if self.need_account {
                    self.need_account = false;
                    self.account_sent = Some(now.mono);
                }
                self.stage = Stage::Settled { since: now.mono };
                self.set_online(true);
                let other = self.homes.iter().find(|other| **other != home);
                self.check = other.filter(|_| self.doubts < DOUBTS_MAX).map(|o| (now.mono + CHECK_AFTER, *o));
            }
            WriteStatus::Stale => {
                let newest = written.newest_entry.as_deref().and_then(|bytes| {
                    let entry = ContactEntry::decode_unverified(bytes).ok()?;
                    // A holder cannot push the sequence up by an entry this device did not sign.
                    entry.verify_with(&self.credential.key).ok()?;
                    (entry.device == self.credential.node).then_some(entry.sequence)
                });
                match newest {
                    Some(newest) => {
                        self.sequence = self.sequence.max(newest);
                        self.rewrite(now);
                    }
                    None => self.stage = Stage::Refused { since: now.mono },
                }
            }
            WriteStatus::NeedAccount => {
                self.need_account = true;
                self.rewrite(now);
            }
            WriteStatus::Refused | WriteStatus::Full | WriteStatus::Unreachable | WriteStatus::Other => {
                self.stage = Stage::Refused { since: now.mono };
            }
        }
    }

    /// What the other home finds of this device's own entry.
    pub fn handle_checked(&mut self, now: Now, home: NodeId, result: &LookupResult) {
        let Stage::Settled { .. } = self.stage else { return };
        let found = match result {
            LookupResult::Found { entries, settled, .. } => {
                let own = entries.iter().find(|entry| entry.device == self.credential.node);
                let found = own.map_or(0, |entry| entry.sequence);
                if found < self.sequence && !settled {
                    return;
                }
                found
            }
            LookupResult::NoSuchAccount => {
                self.need_account = true;
                0
            }
            // It cannot tell.
            LookupResult::Unreachable => return,
        };
        if found == self.sequence {
            self.doubts = 0;
            return;
        }
        self.doubts += 1;
        if found > self.sequence {
            self.sequence = found;
            self.rewrite(now);
        } else if let Some(via) = self.homes.iter().position(|other| *other == home) {
            // The same again, through who did not find it.
            self.next_id += 1;
            self.send(now, self.next_id, via);
        }
    }

    /// Says farewell: the holders keep a tombstone, so that callers learn at once that nobody is there.
    pub fn withdraw(&mut self, now: Now) {
        if !self.homes.is_empty() && self.online {
            self.sequence += 1;
            let fields = self.fields(now, Vec::new());
            if let Ok(entry) = ContactEntry::sign(&self.signing, &fields) {
                self.next_id += 1;
                let request = WriteRequest {
                    id: self.next_id,
                    key: self.key,
                    scope: Scope::Walk,
                    account: None,
                    entry: Some(entry.bytes().to_vec()),
                };
                for home in &self.homes {
                    self.outputs.push_back(PublisherOutput::Frame(*home, request.encode()));
                }
                self.outputs.push_back(PublisherOutput::Sequence(self.sequence));
            }
        }
        self.stage = Stage::Withdrawn;
        self.check = None;
        self.set_online(false);
    }

    /// Retries, refreshes.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some((_, home)) = self.check.take_if(|(at, _)| *at <= now.mono)
            && matches!(self.stage, Stage::Settled { .. })
        {
            self.outputs.push_back(PublisherOutput::Check(home));
        }
        if self.stage_deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match self.stage {
            Stage::Homeless | Stage::Withdrawn => {}
            Stage::ReadingBack { .. } => {
                self.read_back = true;
                self.rewrite(now);
            }
            Stage::Writing { id, via, .. } => self.send(now, id, via + 1),
            Stage::Settled { .. } => {
                if self.account_sent.is_none_or(|sent| now.mono.since(sent) >= ACCOUNT_REFRESH) {
                    self.need_account = true;
                }
                self.doubts = 0;
                self.rewrite(now);
            }
            Stage::Refused { .. } => self.rewrite(now),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.stage_deadline().into_iter().chain(self.check.map(|(at, _)| at)).min()
    }

    fn stage_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Homeless | Stage::Withdrawn => None,
            Stage::ReadingBack { since } => Some(since + crate::limits::LOOKUP + WRITE_RETRY),
            Stage::Writing { since, .. } => Some(since + WRITE_RETRY),
            Stage::Settled { since } => Some(since + ENTRY_REFRESH),
            Stage::Refused { since } => Some(since + WRITE_REFUSED),
        }
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<PublisherOutput> {
        self.outputs.pop_front()
    }

    fn fields(&self, now: Now, homes: Vec<NodeId>) -> ContactEntryFields {
        ContactEntryFields {
            device: self.credential.node,
            sequence: self.sequence,
            issued: now.unix,
            expires: now.unix + ENTRY_LIFE,
            withdrawn: homes.is_empty(),
            homes,
            capabilities: 0,
            nonce: self.nonce,
            credential: self.credential.hash(),
        }
    }

    fn rewrite(&mut self, now: Now) {
        if self.homes.is_empty() || matches!(self.stage, Stage::Withdrawn) {
            return;
        }
        self.sequence += 1;
        let Ok(entry) = ContactEntry::sign(&self.signing, &self.fields(now, self.homes.clone())) else {
            return;
        };
        self.outputs.push_back(PublisherOutput::Sequence(self.sequence));
        self.outputs.push_back(PublisherOutput::Entry(entry.bytes().to_vec()));
        self.entry = Some(entry);
        self.next_id += 1;
        self.send(now, self.next_id, 0);
    }

    fn send(&mut self, now: Now, id: u64, via: usize) {
        let (Some(entry), false) = (&self.entry, self.homes.is_empty()) else { return };
        let Some(home) = self.homes.get(via % self.homes.len()) else { return };
        let request = WriteRequest {
            id,
            key: self.key,
            scope: Scope::Walk,
            account: self.need_account.then(|| self.record.bytes().to_vec()),
            entry: Some(entry.bytes().to_vec()),
        };
        self.stage = Stage::Writing { id, since: now.mono, via };
        self.outputs.push_back(PublisherOutput::Frame(*home, request.encode()));
    }

    fn set_online(&mut self, online: bool) {
        if self.online != online {
            self.online = online;
            self.outputs.push_back(PublisherOutput::Online(online));
        }
    }
}
