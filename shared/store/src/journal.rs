//! The fsynced append-only journal: what must survive power loss, and what the tree is rebuilt from.
//!
//! ```text
//!   file    "yodel-journal 1\n" record*
//!   record  "YJR1" | length of payload, u32 BE | sequence, u64 BE | first 8 bytes of SHA-256 | payload
//!           (the hash runs over length, sequence and payload)
//!   payload (op u8: 0 remove, 1 put | tree length u8 | tree | key length u32 BE | key | value length u32 BE | value)*
//! ```
//! One record is one group of commits, so a group is there wholly or not at all. A record that is cut or torn at the
//! end of the file is what a crash leaves behind: it was never acknowledged, and is cut off. A bad record with a good
//! one behind it is damage, and is said to be.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use yodel_wire::machine::Write;

use crate::error::StoreError;
use crate::limits::{JOURNAL_RECORD_BYTES_MAX, TREE_NAME_BYTES_MAX};

const FILE_MAGIC: &[u8; 16] = b"yodel-journal 1\n";
const RECORD_MAGIC: &[u8; 4] = b"YJR1";
const RECORD_HEADER_BYTES: usize = 24;

/// Tree and key, as the journal names them.
pub type JournalKey = (String, Vec<u8>);

/// What a journal held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Everything that stands after all records.
    pub entries: BTreeMap<JournalKey, Vec<u8>>,
    /// Sequence number of the last record; 0 when there is none.
    pub last: u64,
    /// Bytes cut off at the end because their record was not whole.
    pub cut: u64,
}

/// An open journal, ready to be appended to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    last: u64,
    poisoned: bool,
}

impl Journal {
    /// Opens the journal at `path`, creating it when there is none, and reads all of it. A record cut at the end is
    /// removed from the file.
    ///
    /// # Errors
    /// `Damaged` when it is not a journal or a record in the middle is bad; the file is untouched then.
    pub fn open(path: &Path) -> Result<(Journal, Replay), StoreError> {
        let at = |source| StoreError::io(path, source);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(at)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(at)?;
        let damaged = |detail: String| StoreError::Damaged { path: path.to_owned(), detail };

        let mut replay = Replay::default();
        let mut whole = match content.split_at_checked(FILE_MAGIC.len()) {
            Some((magic, _)) if magic == FILE_MAGIC => FILE_MAGIC.len(),
            Some(_) => return Err(damaged("it does not begin like a journal".into())),
            None if FILE_MAGIC.starts_with(&content) => 0,
            None => return Err(damaged("it does not begin like a journal".into())),
        };
        if whole > 0 {
            while let Some(rest) = content.get(whole..).filter(|rest| !rest.is_empty()) {
                match parse_record(rest, replay.last) {
                    Some((sequence, payload, length)) => {
                        apply(&mut replay.entries, payload)
                            .ok_or_else(|| damaged(format!("record {sequence} is not a list of writes")))?;
                        replay.last = sequence;
                        whole += length;
                    }
                    None if good_record_behind(rest, replay.last) => {
                        return Err(damaged(format!("the record at byte {whole} is bad")));
                    }
                    None => break,
                }
            }
        }
        replay.cut = (content.len() - whole) as u64;
        let mut journal =
            Journal { path: path.to_owned(), file, bytes: whole as u64, last: replay.last, poisoned: false };
        if whole == 0 {
            journal.file.set_len(0).map_err(at)?;
            journal.write_at_end(FILE_MAGIC).map_err(at)?;
            sync_parent(path)?;
        } else if replay.cut > 0 {
            journal.file.set_len(whole as u64).map_err(at)?;
            journal.file.sync_data().map_err(at)?;
        }
        Ok((journal, replay))
    }

    /// Writes a journal that holds just `entries` and goes on after sequence number `last`, in the place of the one at
    /// `path`: temporary file, fsync, rename.
    ///
    /// # Errors
    /// When it cannot be written; the old one stands then.
    pub fn rewrite(
        path: &Path,
        entries: &BTreeMap<JournalKey, Vec<u8>>,
        last: u64,
    ) -> Result<Journal, StoreError> {
        let temporary = path.with_extension("new");
        let at = |source| StoreError::io(&temporary, source);
        let mut file = File::create(&temporary).map_err(at)?;
        let mut content = FILE_MAGIC.to_vec();
        if last > 0 {
            let mut payload = Vec::new();
            // Records are bounded, so a large state takes several; only the last one may carry the last sequence
            // number, the ones before count up to it.
            let mut payloads = Vec::new();
            for ((tree, key), value) in entries {
                put(&mut payload, tree, key, Some(value))?;
                if payload.len() > JOURNAL_RECORD_BYTES_MAX / 4 {
                    payloads.push(std::mem::take(&mut payload));
                }
            }
            payloads.push(payload);
            let first = last.saturating_sub(payloads.len() as u64 - 1).max(1);
            let last = first + payloads.len() as u64 - 1;
            for (sequence, payload) in (first..=last).zip(payloads) {
                content.extend_from_slice(&record(sequence, &payload)?);
            }
        }
        file.write_all(&content).map_err(at)?;
        file.sync_all().map_err(at)?;
        fs::rename(&temporary, path).map_err(at)?;
        sync_parent(path)?;
        Journal::open(path).map(|(journal, _)| journal)
    }

    /// Appends the writes marked `journaled` as one record and brings it to the disk itself (fdatasync). Returns its
    /// sequence number; without such writes nothing is done and the last one is returned.
    ///
    /// # Errors
    /// When it cannot be written. A journal that may hold half a record, or whose fsync failed, is poisoned.
    pub fn append(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let mut payload = Vec::new();
        for write in writes.iter().filter(|write| write.journaled) {
            put(&mut payload, write.tree, &write.key, write.value.as_deref())?;
        }
        if payload.is_empty() {
            return Ok(self.last);
        }
        let sequence = self.last + 1;
        let record = record(sequence, &payload)?;
        if let Err(source) = self.write_at_end(&record) {
            // Half a record in front of later ones would read as damage: take it back, or write no more.
            self.poisoned = self.file.set_len(self.bytes).and_then(|()| self.file.sync_data()).is_err();
            return Err(StoreError::io(&self.path, source));
        }
        self.last = sequence;
        Ok(sequence)
    }

    /// Length of the file, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sequence number of the last record; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    fn write_at_end(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(bytes)?;
        self.file.sync_data().inspect_err(|_| self.poisoned = true)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Makes a new or renamed file itself durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|source| StoreError::io(parent, source))
}

fn checksum(length: [u8; 4], sequence: [u8; 8], payload: &[u8]) -> [u8; 8] {
    let hash = Sha256::new().chain_update(length).chain_update(sequence).chain_update(payload).finalize();
    let mut out = [0; 8];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = from;
    }
    out
}

fn record(sequence: u64, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
    if payload.len() > JOURNAL_RECORD_BYTES_MAX {
        return Err(StoreError::TooLarge);
    }
    let length = u32::try_from(payload.len()).map_err(|_| StoreError::TooLarge)?.to_be_bytes();
    let sequence = sequence.to_be_bytes();
    let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&length);
    out.extend_from_slice(&sequence);
    out.extend_from_slice(&checksum(length, sequence, payload));
    out.extend_from_slice(payload);
    Ok(out)
}

/// The record at the start of `bytes` when it is whole, good and later than `last`: sequence, payload, length.
fn parse_record(bytes: &[u8], last: u64) -> Option<(u64, &[u8], usize)> {
    let rest = bytes.strip_prefix(RECORD_MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let payload_bytes = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if payload_bytes > JOURNAL_RECORD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..payload_bytes)?;
    if checksum(*length, *sequence, payload) != *sum {
        return None;
    }
    let number = u64::from_be_bytes(*sequence);
    (number > last).then_some((number, payload, RECORD_HEADER_BYTES + payload_bytes))
}

fn good_record_behind(bytes: &[u8], last: u64) -> bool {
    let mut rest = bytes;
    while let Some((_, behind)) = rest.split_first() {
        if behind.starts_with(RECORD_MAGIC) && parse_record(behind, last).is_some() {
            return true;
        }
        rest = behind;
    }
    false
}

fn put(out: &mut Vec<u8>, tree: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
    if tree.len() > TREE_NAME_BYTES_MAX {
        return Err(StoreError::TooLarge);
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| StoreError::TooLarge);
    out.push(u8::from(value.is_some()));
    out.push(u8::try_from(tree.len()).map_err(|_| StoreError::TooLarge)?);
    out.extend_from_slice(tree.as_bytes());
    out.extend_from_slice(&length(key)?.to_be_bytes());
    out.extend_from_slice(key);
    let value = value.unwrap_or_default();
    out.extend_from_slice(&length(value)?.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

fn apply(entries: &mut BTreeMap<JournalKey, Vec<u8>>, mut payload: &[u8]) -> Option<()> {
    while let Some((op, rest)) = payload.split_first() {
        let (tree_bytes, rest) = rest.split_first()?;
        let (tree, rest) = rest.split_at_checked(usize::from(*tree_bytes))?;
        let (key, rest) = take(rest)?;
        let (value, rest) = take(rest)?;
        let at = (String::from_utf8(tree.to_vec()).ok()?, key.to_vec());
        match op {
            0 => entries.remove(&at),
            1 => entries.insert(at, value.to_vec()),
            _ => return None,
        };
        payload = rest;
    }
    Some(())
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::TestDir;

    fn write(key: u8, value: &str) -> Write {
        Write { tree: "accounts", key: vec![key], value: Some(value.into()), journaled: true }
    }

    fn replay_of(path: &Path) -> Result<Replay, StoreError> {
        Journal::open(path).map(|(_, replay)| replay)
    }

    #[test]
    fn golden_record() {
        let mut payload = Vec::new();
        put(&mut payload, "t", b"k", Some(b"v")).unwrap();
        let bytes = record(1, &payload).unwrap();
        assert_eq!(bytes[..16], *b"YJR1\0\0\0\x0d\0\0\0\0\0\0\0\x01");
        assert_eq!(bytes[16..24], [0x9f, 0x92, 0x12, 0x31, 0x13, 0xbb, 0x04, 0x00]);
        assert_eq!(bytes[24..], *b"\x01\x01t\0\0\0\x01k\0\0\0\x01v");
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let dir = TestDir::new("journal-roundtrip");
        let path = dir.path().join("journal");
        let (mut journal, replay) = Journal::open(&path).unwrap();
        assert_eq!(replay, Replay::default());
        assert_eq!(journal.append(&[write(1, "a"), write(2, "b")]).unwrap(), 1);
        let unmarked = Write { journaled: false, ..write(3, "x") };
        assert_eq!(journal.append(&[unmarked]).unwrap(), 1);
        assert_eq!(journal.append(&[Write { value: None, ..write(1, "") }]).unwrap(), 2);
        let replay = replay_of(&path).unwrap();
        assert_eq!(replay.entries, BTreeMap::from([(("accounts".into(), vec![2]), b"b".to_vec())]));
        assert_eq!((replay.last, replay.cut), (2, 0));
    }

    #[test]
    fn cut_at_every_byte_keeps_every_whole_record_and_goes_on() {
        let dir = TestDir::new("journal-cut");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let mut ends = vec![journal.bytes()];
        for n in 1..=5 {
            journal.append(&[write(n, "some value"), write(n + 100, "another")]).unwrap();
            ends.push(journal.bytes());
        }
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, replay) = Journal::open(&path).unwrap();
            let records = ends.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
            assert_eq!(replay.last, records as u64, "cut at {cut}");
            assert_eq!(replay.entries.len(), records * 2, "cut at {cut}");
            journal.append(&[write(200, "goes on")]).unwrap();
            drop(journal);
            let replay = replay_of(&path).unwrap();
            assert_eq!((replay.entries.len(), replay.cut), (records * 2 + 1, 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_is_never_read_as_content() {
        let dir = TestDir::new("journal-flip");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for n in 1..=3 {
            journal.append(&[write(n, "v")]).unwrap();
        }
        let last_start = FILE_MAGIC.len() + (journal.bytes() as usize - FILE_MAGIC.len()) / 3 * 2;
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            fs::write(&path, &bytes).unwrap();
            match replay_of(&path) {
                Err(StoreError::Damaged { .. }) => assert!(at < last_start, "byte {at}"),
                Ok(replay) => {
                    assert!(at >= last_start, "byte {at}");
                    assert_eq!(replay.last, 2, "the torn last record is cut off");
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }

    #[test]
    fn a_rewritten_journal_goes_on_with_its_numbers() {
        let dir = TestDir::new("journal-rewrite");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for n in 0..50 {
            journal.append(&[write(n % 3, "value")]).unwrap();
        }
        let before = replay_of(&path).unwrap();
        let mut journal = Journal::rewrite(&path, &before.entries, before.last).unwrap();
        assert_eq!(replay_of(&path).unwrap(), before);
        assert_eq!(journal.append(&[write(9, "new")]).unwrap(), 51);
        assert_eq!(replay_of(&path).unwrap().entries.len(), 4);
    }
}
