//! Contact entries, and the frames that write and read records.
//!
//! A contact entry is an envelope (`identity::signed`) signed by the device, of a CBOR map: 1 version, 2 device, 3
//! sequence, 4 issued, 5 expires (seconds since 1970), 6 homes, 7 capabilities, 8 nonce, 9 SHA-256 of the credential, 10
//! withdrawn. It names no address of the device.
//!
//! Account record and contact entries of an account live under one key, `Aor::key`, with the same holders, and are read
//! together:
//!
//! | frame | 1 | 2 | 3 | 4 | 5 | 6 |
//! |---|---|---|---|---|---|---|
//! | `Write` | request id | key, bytes 16 | scope | account record | contact entry | |
//! | `Written` | request id | status | newest entry held | newest account version held | holders that keep it | holders wanted |
//! | `Read` | request id | key, bytes 16 | scope | past the cache | | |
//! | `Answer` | request id | standing | account record | contact entries | settled | holders that answered |
//!
//! Scope 1 asks the receiver as a holder, scope 2 asks it to walk to the holders. Key 7 of `Answer` is kept for the
//! closer nodes that large rings will answer with.

use std::time::Duration;

use yodel_identity::credential::seconds;
use yodel_identity::keys::Context;
use yodel_identity::limits::ACCOUNT_RECORD_BYTES_MAX;
use yodel_identity::node::NodeId;
use yodel_identity::signed::{Record, Signed};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::UnixTime;

use crate::limits::{CONTACT_ENTRIES_MAX, CONTACT_ENTRY_BYTES_MAX, CONTACT_ENTRY_LIFE, ENTRY_HOMES_MAX};

/// A signed contact entry with its exact bytes. Only [`crate::verify`] says whether to believe it.
pub type ContactEntry = Signed<ContactEntryFields>;

/// Where one device is reached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactEntryFields {
    /// The device.
    pub device: NodeId,
    /// Grows with every entry of this device: max(stored, read back from the holders) + 1, never the clock.
    pub sequence: u64,
    /// When it was signed, whole seconds.
    pub issued: UnixTime,
    /// End of its life, at most two hours after `issued`.
    pub expires: UnixTime,
    /// The homes it is attached to, the one that carries signalling first; none when withdrawn.
    pub homes: Vec<NodeId>,
    /// What the device can do, as bits; unknown ones mean nothing here.
    pub capabilities: u32,
    /// New at each start of the daemon; calls name it, so that a replayed call is known.
    pub nonce: [u8; 16],
    /// [`Signed::hash`] of the device's credential.
    pub credential: [u8; 32],
    /// The device went away; the entry only outranks its older ones.
    pub withdrawn: bool,
}

impl Record for ContactEntryFields {
    const CONTEXT: Context = Context::ContactEntry;
    const BYTES_MAX: usize = CONTACT_ENTRY_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .uint(1, 1)
            .bytes(2, &self.device.0)
            .uint(3, self.sequence)
            .uint(4, self.issued.as_secs())
            .uint(5, self.expires.as_secs())
            .byte_items(6, self.homes.iter().map(|home| home.0))
            .uint(7, u64::from(self.capabilities))
            .bytes(8, &self.nonce)
            .bytes(9, &self.credential);
        if self.withdrawn { map.bool(10, true).finish() } else { map.finish() }
    }

    fn decode(body: &[u8]) -> Result<ContactEntryFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let mut homes = Vec::new();
        let device = NodeId(map.array(2)?);
        let sequence = map.uint(3)?;
        let issued = seconds(&mut map, 4)?;
        let expires = seconds(&mut map, 5)?;
        if expires <= issued || expires.since(issued) > CONTACT_ENTRY_LIFE {
            return Err(DecodeError::OutOfBounds(5));
        }
        for item in map.items(6, ENTRY_HOMES_MAX)? {
            let home = NodeId(item_bytes(item)?.try_into().map_err(|_| DecodeError::OutOfBounds(6))?);
            if homes.contains(&home) {
                return Err(DecodeError::OutOfBounds(6));
            }
            homes.push(home);
        }
        let capabilities = map.uint_as(7)?;
        let nonce = map.array(8)?;
        let credential = map.array(9)?;
        let withdrawn = map.opt_bool(10)?.unwrap_or(false);
        map.finish()?;
        if withdrawn != homes.is_empty() {
            return Err(DecodeError::OutOfBounds(10));
        }
        Ok(ContactEntryFields {
            device,
            sequence,
            issued,
            expires,
            homes,
            capabilities,
            nonce,
            credential,
            withdrawn,
        })
    }
}

impl ContactEntryFields {
    /// Whether it is within its dates at `now`, with `tolerance` for clocks.
    pub fn is_current(&self, now: UnixTime, tolerance: Duration) -> bool {
        self.issued <= now + tolerance && now < self.expires + tolerance
    }
}

/// All entries under one key, by device; at most one of each and eight in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContactRecord {
    entries: Vec<ContactEntry>,
}

/// What became of an entry offered to a [`ContactRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is there now.
    Taken,
    /// It was there already, byte for byte.
    Known,
    /// One with a higher sequence is there, or another with the same.
    Older,
    /// Eight other devices are there.
    Full,
}

impl ContactRecord {
    /// No entries.
    pub fn new() -> ContactRecord {
        ContactRecord::default()
    }

    /// The entries, by ascending device id, withdrawals among them.
    pub fn entries(&self) -> &[ContactEntry] {
        &self.entries
    }

    /// This device's entry.
    pub fn device(&self, device: NodeId) -> Option<&ContactEntry> {
        self.entries.iter().find(|entry| entry.device == device)
    }

    /// Takes an entry in if it is the device's newest. The caller has verified it.
    pub fn merge(&mut self, entry: ContactEntry) -> Merged {
        match self.entries.binary_search_by_key(&entry.device, |known| known.device) {
            Ok(index) => match self.entries.get_mut(index) {
                Some(known) if known.bytes() == entry.bytes() => Merged::Known,
                Some(known) if known.sequence < entry.sequence => {
                    *known = entry;
                    Merged::Taken
                }
                Some(_) | None => Merged::Older,
            },
            Err(_) if self.entries.len() >= CONTACT_ENTRIES_MAX => Merged::Full,
            Err(index) => {
                self.entries.insert(index, entry);
                Merged::Taken
            }
        }
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&ContactEntry) -> bool) {
        self.entries.retain(keep);
    }
}

/// Who is to act on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The receiver, as a holder.
    Holder,
    /// The receiver walks to the holders.
    Walk,
}

impl Scope {
    fn number(self) -> u64 {
        match self {
            Scope::Holder => 1,
            Scope::Walk => 2,
        }
    }

    fn from_number(number: u64) -> Result<Scope, DecodeError> {
        match number {
            1 => Ok(Scope::Holder),
            2 => Ok(Scope::Walk),
            _ => Err(DecodeError::OutOfBounds(3)),
        }
    }
}

/// Keep this. An account record goes before the entry, so that one request publishes a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    /// Echoed in the answer; writing twice does no harm.
    pub id: u64,
    /// `Aor::key`.
    pub key: [u8; 16],
    /// Who is to act.
    pub scope: Scope,
    /// An account record as signed.
    pub account: Option<Vec<u8>>,
    /// A contact entry as signed.
    pub entry: Option<Vec<u8>>,
}

impl WriteRequest {
    /// One that asks a holder. Request id 0.
    pub fn of_holder(key: [u8; 16], account: Option<Vec<u8>>, entry: Option<Vec<u8>>) -> WriteRequest {
        WriteRequest { id: 0, key, scope: Scope::Holder, account, entry }
    }

    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new()
            .uint(1, self.id)
            .bytes(2, &self.key)
            .uint(3, self.scope.number())
            .opt_bytes(4, self.account.as_deref())
            .opt_bytes(5, self.entry.as_deref())
            .finish();
        Frame::new(FrameKind::Write, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<WriteRequest, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let request = WriteRequest {
            id: map.uint(1)?,
            key: map.array(2)?,
            scope: Scope::from_number(map.uint(3)?)?,
            account: map.opt_bytes(4, ACCOUNT_RECORD_BYTES_MAX)?.map(<[u8]>::to_vec),
            entry: map.opt_bytes(5, CONTACT_ENTRY_BYTES_MAX)?.map(<[u8]>::to_vec),
        };
        map.finish()?;
        Ok(request)
    }
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteStatus {
    /// Kept; for a walk, at enough holders.
    Stored,
    /// Something newer is there.
    Stale,
    /// The holder knows no account record that lists the device: send it along.
    NeedAccount,
    /// Signature, dates or key are wrong, or the device is revoked.
    Refused,
    /// No room.
    Full,
    /// Too few holders could be reached.
    Unreachable,
    /// A status this program does not know.
    Other,
}

impl WriteStatus {
    const TABLE: &[(u64, WriteStatus)] = &[
        (1, WriteStatus::Stored),
        (2, WriteStatus::Stale),
        (3, WriteStatus::NeedAccount),
        (4, WriteStatus::Refused),
        (5, WriteStatus::Full),
        (6, WriteStatus::Unreachable),
    ];

    pub(crate) fn number(self) -> u64 {
        Self::TABLE.iter().find(|(_, status)| *status == self).map_or(0, |(number, _)| *number)
    }

    pub(crate) fn from_number(number: u64) -> WriteStatus {
        Self::TABLE.iter().find(|(n, _)| *n == number).map_or(WriteStatus::Other, |(_, status)| *status)
    }
}

/// Kept, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The request's.
    pub id: u64,
    /// How it went.
    pub status: WriteStatus,
    /// The device's newest entry, as signed, when the one offered was stale.
    pub newest_entry: Option<Vec<u8>>,
    /// Version of the newest account record, when the one offered was stale.
    pub newest_account: Option<u64>,
    /// Holders that keep it so far.
    pub kept: u64,
    /// Holders that must keep it for [`WriteStatus::Stored`].
    pub wanted: u64,
}

impl Written {
    /// A bare answer.
    pub fn new(id: u64, status: WriteStatus) -> Written {
        Written { id, status, newest_entry: None, newest_account: None, kept: 0, wanted: 0 }
    }

    /// The frame.
    pub fn encode(&self) -> Frame {
        let mut map = MapWriter::new()
            .uint(1, self.id)
            .uint(2, self.status.number())
            .opt_bytes(3, self.newest_entry.as_deref());
        if let Some(version) = self.newest_account {
            map = map.uint(4, version);
        }
        Frame::new(FrameKind::Written, map.uint(5, self.kept).uint(6, self.wanted).finish())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Written, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let written = Written {
            id: map.uint(1)?,
            status: WriteStatus::from_number(map.uint(2)?),
            newest_entry: map.opt_bytes(3, CONTACT_ENTRY_BYTES_MAX)?.map(<[u8]>::to_vec),
            newest_account: map.opt_uint(4)?,
            kept: map.uint(5)?,
            wanted: map.uint(6)?,
        };
        map.finish()?;
        Ok(written)
    }
}

/// Send what you hold, or find, under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Echoed in the answer.
    pub id: u64,
    /// `Aor::key`.
    pub key: [u8; 16],
    /// Who is to act.
    pub scope: Scope,
    /// Ask the holders even when an answer is cached.
    pub past_cache: bool,
}

impl ReadRequest {
    /// The frame.
    pub fn encode(&self) -> Frame {
        let map = MapWriter::new().uint(1, self.id).bytes(2, &self.key).uint(3, self.scope.number());
        let map = if self.past_cache { map.bool(4, true) } else { map };
        Frame::new(FrameKind::Read, map.finish())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<ReadRequest, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let request = ReadRequest {
            id: map.uint(1)?,
            key: map.array(2)?,
            scope: Scope::from_number(map.uint(3)?)?,
            past_cache: map.opt_bool(4)?.unwrap_or(false),
        };
        map.finish()?;
        Ok(request)
    }
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// An account record is held (or found), with the entries that came with it.
    Held,
    /// There is none.
    None,
    /// The holder is new and does not know yet. Never taken for "none".
    NotYet,
    /// Too few holders answered the walk.
    Unreachable,
}

impl Standing {
    pub(crate) fn number(self) -> u64 {
        match self {
            Standing::Held => 1,
            Standing::None => 2,
            Standing::NotYet => 3,
            Standing::Unreachable => 4,
        }
    }

    pub(crate) fn from_number(number: u64) -> Result<Standing, DecodeError> {
        match number {
            1 => Ok(Standing::Held),
            2 => Ok(Standing::None),
            3 => Ok(Standing::NotYet),
            4 => Ok(Standing::Unreachable),
            _ => Err(DecodeError::OutOfBounds(2)),
        }
    }
}

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// What the answer is worth.
    pub standing: Standing,
    /// The account record as signed.
    pub account: Option<Vec<u8>>,
    /// Contact entries as signed, at most eight.
    pub entries: Vec<Vec<u8>>,
    /// Whether this is the last answer to the request. A walk answers at once with the first it got, and again with
    /// what the second adds.
    pub settled: bool,
    /// Holders that answered the walk so far.
    pub holders: u64,
}

impl Answer {
    /// An answer without records.
    pub fn empty(id: u64, standing: Standing) -> Answer {
        Answer { id, standing, account: None, entries: Vec::new(), settled: true, holders: 0 }
    }

    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new()
            .uint(1, self.id)
            .uint(2, self.standing.number())
            .opt_bytes(3, self.account.as_deref())
            .byte_items(4, &self.entries)
            .bool(5, self.settled)
            .uint(6, self.holders)
            .finish();
        Frame::new(FrameKind::Answer, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Answer, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let id = map.uint(1)?;
        let standing = Standing::from_number(map.uint(2)?)?;
        let account = map.opt_bytes(3, ACCOUNT_RECORD_BYTES_MAX)?.map(<[u8]>::to_vec);
        let mut entries = Vec::new();
        for item in map.items(4, CONTACT_ENTRIES_MAX)? {
            let entry = item_bytes(item)?;
            if entry.len() > CONTACT_ENTRY_BYTES_MAX {
                return Err(DecodeError::OutOfBounds(4));
            }
            entries.push(entry.to_vec());
        }
        let settled = map.opt_bool(5)?.unwrap_or(true);
        let holders = map.opt_uint(6)?.unwrap_or(0);
        map.finish()?;
        Ok(Answer { id, standing, account, entries, settled, holders })
    }
}
