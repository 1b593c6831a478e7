//! The recovery policy: what happens when a store is opened that a crash, a full disk or an accident left in disorder.
//!
//! | found | done |
//! |---|---|
//! | lock held | wait up to two seconds (a killed process lets go late), then `Locked`. The lock is the kernel's, so a lock file that is just lying there means nothing |
//! | too little space | `DiskFull`, before sled touches anything: sled cannot open on a full disk |
//! | `snap.*` of length zero, `conf` of length zero | set aside: sled reads its whole log instead |
//! | sled refuses or panics | all `snap.*` set aside, once more |
//! | still refuses, journal kept | the tree set aside and rebuilt from the journal; what was not journaled is lost and said to be |
//! | still refuses, no journal | `Damaged`: a person must decide |
//! | journal cut at the end | the cut record was never acknowledged: removed |
//! | journal newer than the tree, or the tree differs (cut log) | the tree is made equal to the journal |
//! | tree newer than the journal, or journal damaged in the middle | the journal is set aside and rewritten from the tree |
//!
//! Whatever is set aside is moved to the folder `set-aside`, never deleted at once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::error::StoreError;
use crate::file::create_private_dir;
use crate::journal::{Journal, JournalKey, Replay};
use crate::limits::{FREE_BYTES_TO_OPEN, LOCK_WAIT, SET_ASIDE_MAX};
use crate::sled_store::{
    SEQUENCE_KEY, SledStore, StoreOptions, journaled_entries, sled_error, sled_key, sled_value, tree_sequence,
};

/// Something that was put right at open. Its text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A file of length zero was set aside.
    EmptyFile(String),
    /// sled's snapshots were set aside because it did not open with them.
    Snapshots(String),
    /// sled's log could not be read and was set aside; the tree was rebuilt from the journal.
    TreeRebuilt(String),
    /// Bytes at the end of the journal were not a whole record.
    JournalCut(u64),
    /// This many keys of the tree were made equal to the journal.
    TreeRepaired(u64),
    /// The journal was missing, old or damaged and was written anew from the tree.
    JournalRewritten(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::EmptyFile(name) => write!(f, "{name} was empty and was set aside"),
            Finding::Snapshots(why) => write!(f, "snapshots were set aside: {why}"),
            Finding::TreeRebuilt(why) => {
                write!(f, "the tree was set aside and rebuilt from the journal: {why}")
            }
            Finding::JournalCut(bytes) => {
                write!(f, "{bytes} bytes of an unfinished record were cut off the journal")
            }
            Finding::TreeRepaired(keys) => write!(f, "{keys} keys were put right from the journal"),
            Finding::JournalRewritten(why) => write!(f, "the journal was rewritten from the tree: {why}"),
        }
    }
}

pub(crate) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

fn tree_path(dir: &Path) -> PathBuf {
    dir.join("tree")
}

/// Opens the store in `dir` by the policy above.
///
/// # Errors
/// `Locked`, `DiskFull`, `Damaged` or `Io`.
pub fn open(dir: &Path, options: StoreOptions) -> Result<(SledStore, Vec<Finding>), StoreError> {
    create_private_dir(dir)?;
    let lock = lock(dir)?;
    require_free(dir, FREE_BYTES_TO_OPEN)?;
    let mut findings = Vec::new();
    set_empty_files_aside(dir, &mut findings)?;

    let opened = match open_tree(dir, options) {
        Err(StoreError::Damaged { detail, .. }) => {
            if set_aside_where(dir, |name| name.starts_with("snap."))? > 0 {
                findings.push(Finding::Snapshots(detail));
            }
            open_tree(dir, options)
        }
        other => other,
    };
    let db = match opened {
        Err(StoreError::Damaged { detail, .. }) if options.journal && journal_path(dir).exists() => {
            set_aside(dir, &tree_path(dir))?;
            findings.push(Finding::TreeRebuilt(detail));
            open_tree(dir, options)?
        }
        other => other?,
    };
    let journal = match options.journal {
        true => Some(reconcile(dir, &db, &mut findings)?),
        false => None,
    };
    Ok((SledStore::assemble(dir, db, journal, lock), findings))
}

/// Makes tree and journal say the same.
fn reconcile(dir: &Path, db: &sled::Db, findings: &mut Vec<Finding>) -> Result<Journal, StoreError> {
    let path = journal_path(dir);
    let in_tree = journaled_entries(dir, db)?;
    let tree_last = tree_sequence(dir, db)?;
    let (journal, replay) = match Journal::open(&path) {
        Ok(opened) => opened,
        Err(StoreError::Damaged { path: damaged, detail }) => {
            if tree_last == 0 {
                // Neither can vouch for the other.
                return Err(StoreError::Damaged { path: damaged, detail });
            }
            set_aside(dir, &path)?;
            findings.push(Finding::JournalRewritten(detail));
            return Journal::rewrite(&path, &in_tree, tree_last);
        }
        Err(other) => return Err(other),
    };
    if replay.cut > 0 {
        findings.push(Finding::JournalCut(replay.cut));
    }
    if replay.last < tree_last {
        findings.push(Finding::JournalRewritten(format!(
            "it ends at {} and the tree at {tree_last}",
            replay.last
        )));
        drop(journal);
        set_aside(dir, &path)?;
        return Journal::rewrite(&path, &in_tree, tree_last);
    }
    let repaired = repair_tree(dir, db, &in_tree, &replay)?;
    if repaired > 0 {
        findings.push(Finding::TreeRepaired(repaired));
    }
    Ok(journal)
}

fn repair_tree(
    dir: &Path,
    db: &sled::Db,
    in_tree: &BTreeMap<JournalKey, Vec<u8>>,
    replay: &Replay,
) -> Result<u64, StoreError> {
    let mut batch = sled::Batch::default();
    let mut repaired = 0;
    for ((tree, key), value) in &replay.entries {
        if in_tree.get(&(tree.clone(), key.clone())) != Some(value) {
            batch.insert(sled_key(tree, key), sled_value(true, value));
            repaired += 1;
        }
    }
    for (tree, key) in in_tree.keys().filter(|key| !replay.entries.contains_key(*key)) {
        batch.remove(sled_key(tree, key));
        repaired += 1;
    }
    batch.insert(SEQUENCE_KEY, &replay.last.to_be_bytes());
    db.apply_batch(batch).map_err(|e| sled_error(dir, e))?;
    db.flush().map_err(|e| sled_error(dir, e))?;
    Ok(repaired)
}

/// sled panics on some damage where it should return an error; both become `Damaged`.
fn open_tree(dir: &Path, options: StoreOptions) -> Result<sled::Db, StoreError> {
    let path = tree_path(dir);
    let config = sled::Config::new()
        .path(&path)
        .cache_capacity(options.cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = config.open()?;
        // A log cut in the middle shows only when it is read.
        for entry in db.iter() {
            entry?;
        }
        Ok(db)
    }));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(source))) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(StoreError::Damaged { path, detail: source.to_string() })
        }
        Ok(Err(error)) => Err(sled_error(&path, error)),
        Err(_) => Err(StoreError::Damaged { path, detail: "its log cannot be read".into() }),
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = dir.join("lock");
    let at = |source| StoreError::io(&path, source);
    const STEP: Duration = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // Only for whoever reads the message of `Locked`; a full disk is told later, and better.
                let _ =
                    lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
                return Ok(lock);
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                if waited >= LOCK_WAIT {
                    let mut pid = String::new();
                    let _ = file.read_to_string(&mut pid);
                    return Err(StoreError::Locked { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
                }
                std::thread::sleep(STEP);
                waited += STEP;
            }
            Err((_, errno)) => return Err(at(errno.into())),
        }
    }
}

/// Says `DiskFull` when fewer than `needed` bytes are free where `dir` is.
pub(crate) fn require_free(dir: &Path, needed: u64) -> Result<(), StoreError> {
    let space =
        nix::sys::statvfs::statvfs(dir).map_err(|errno| StoreError::io(dir, std::io::Error::from(errno)))?;
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    if free < needed { Err(StoreError::DiskFull { free, needed }) } else { Ok(()) }
}

fn set_empty_files_aside(dir: &Path, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let tree = tree_path(dir);
    for name in file_names(&tree)? {
        let path = tree.join(&name);
        let empty = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        if empty && (name.starts_with("snap.") || name == "conf") {
            set_aside(dir, &path)?;
            findings.push(Finding::EmptyFile(name));
        }
    }
    Ok(())
}

fn set_aside_where(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<usize, StoreError> {
    let tree = tree_path(dir);
    let names: Vec<String> = file_names(&tree)?.into_iter().filter(|name| wanted(name)).collect();
    for name in &names {
        set_aside(dir, &tree.join(name))?;
    }
    Ok(names.len())
}

fn file_names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::io(dir, source)),
    };
    let mut names: Vec<String> =
        entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Moves `path` into `set-aside` under a number of its own, and drops the oldest when there are too many.
fn set_aside(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let aside = dir.join("set-aside");
    fs::create_dir_all(&aside).map_err(|source| StoreError::io(&aside, source))?;
    let names = file_names(&aside)?;
    let number = |name: &String| name.split('-').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let next = names.iter().map(number).max().unwrap_or(0) + 1;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = aside.join(format!("{next:06}-{name}"));
    fs::rename(path, &to).map_err(|source| StoreError::io(path, source))?;
    for old in names.iter().take((names.len() + 1).saturating_sub(SET_ASIDE_MAX)) {
        let old = aside.join(old);
        let _ = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::Store;
    use yodel_wire::machine::Write;

    /// A folder of its own below the target folder's temporary one, removed at the end.
    pub(crate) struct TestDir(PathBuf);

    impl TestDir {
        pub(crate) fn new(name: &str) -> TestDir {
            let path = std::env::temp_dir().join(format!("yodel-store-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            TestDir(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 1 << 20, journal: true };
    const NO_JOURNAL: StoreOptions = StoreOptions { cache_bytes: 1 << 20, journal: false };

    fn write(key: u32, value: &str, journaled: bool) -> Write {
        let tree = if journaled { "accounts" } else { "cache" };
        Write { tree, key: key.to_be_bytes().to_vec(), value: Some(value.into()), journaled }
    }

    fn filled(dir: &Path, options: StoreOptions, count: u32) {
        let (mut store, findings) = open(dir, options).unwrap();
        assert_eq!(findings, []);
        for n in 0..count {
            store.commit(&[write(n, "kept", true), write(n, "cached", false)]).unwrap();
        }
        assert_eq!(store.flushes(), u64::from(count));
        drop(store);
        // sled writes its snapshot when it opens a log that has grown.
        assert_eq!(open(dir, options).unwrap().1, []);
        assert!(!snapshots(dir).is_empty());
    }

    fn kept(store: &SledStore) -> usize {
        let entries = store.scan("accounts").unwrap();
        assert!(entries.iter().all(|(_, value)| value == b"kept"));
        entries.len()
    }

    fn snapshots(dir: &Path) -> Vec<PathBuf> {
        let tree = tree_path(dir);
        let names = file_names(&tree).unwrap();
        names.iter().filter(|n| n.starts_with("snap.")).map(|n| tree.join(n)).collect()
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = TestDir::new("reopen");
        filled(dir.path(), OPTIONS, 20);
        let (mut store, findings) = open(dir.path(), OPTIONS).unwrap();
        assert_eq!(findings, []);
        assert_eq!(kept(&store), 20);
        assert_eq!(store.get("accounts", &3u32.to_be_bytes()).unwrap().as_deref(), Some(&b"kept"[..]));
        assert_eq!(store.get("account", &3u32.to_be_bytes()).unwrap(), None);
        store.commit(&[Write { value: None, ..write(3, "", true) }]).unwrap();
        drop(store);
        let (store, findings) = open(dir.path(), OPTIONS).unwrap();
        assert_eq!((findings, kept(&store)), (vec![], 19));
    }

    #[test]
    fn a_lock_file_lying_about_is_nothing_and_a_held_one_names_its_holder() {
        let dir = TestDir::new("lock");
        fs::write(dir.path().join("lock"), "99999").unwrap();
        let (store, _) = open(dir.path(), OPTIONS).unwrap();
        match open(dir.path(), OPTIONS) {
            Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(store);
        open(dir.path(), OPTIONS).unwrap();
    }

    #[test]
    fn an_empty_snapshot_is_set_aside() {
        for options in [OPTIONS, NO_JOURNAL] {
            let dir = TestDir::new(&format!("snap-{}", options.journal));
            filled(dir.path(), options, 20);
            for path in snapshots(dir.path()) {
                fs::write(path, b"").unwrap();
            }
            let (store, findings) = open(dir.path(), options).unwrap();
            assert!(matches!(findings[..], [Finding::EmptyFile(_)]), "{findings:?}");
            assert_eq!(kept(&store), 20);
            assert_eq!(store.scan("cache").unwrap().len(), 20);
        }
    }

    #[test]
    fn a_broken_snapshot_is_set_aside() {
        let dir = TestDir::new("snap-broken");
        filled(dir.path(), OPTIONS, 20);
        for path in snapshots(dir.path()) {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(&path, bytes).unwrap();
        }
        let (store, _) = open(dir.path(), OPTIONS).unwrap();
        assert_eq!(kept(&store), 20);
    }

    #[test]
    fn a_log_cut_anywhere_loses_nothing_that_was_journaled() {
        let whole = TestDir::new("cut-whole");
        filled(whole.path(), OPTIONS, 40);
        let log = fs::read(tree_path(whole.path()).join("db")).unwrap();
        let journal = fs::read(journal_path(whole.path())).unwrap();
        let used = log.len() - log.iter().rev().take_while(|b| **b == 0).count();
        for step in 0..12 {
            for with_snapshot in [true, false] {
                let dir = TestDir::new("cut");
                let tree = tree_path(dir.path());
                fs::create_dir_all(&tree).unwrap();
                fs::copy(tree_path(whole.path()).join("conf"), tree.join("conf")).unwrap();
                if with_snapshot {
                    for path in snapshots(whole.path()) {
                        fs::copy(&path, tree.join(path.file_name().unwrap())).unwrap();
                    }
                }
                fs::write(tree.join("db"), &log[..used * step / 12]).unwrap();
                fs::write(journal_path(dir.path()), &journal).unwrap();
                let (mut store, findings) = open(dir.path(), OPTIONS).unwrap();
                assert_eq!(kept(&store), 40, "{step}/12 {findings:?}");
                assert_ne!(findings, [], "{step}/12: a cut log is told");
                store.commit(&[write(1_000, "kept", true)]).unwrap();
                drop(store);
                let (store, findings) = open(dir.path(), OPTIONS).unwrap();
                assert_eq!((kept(&store), findings), (41, vec![]), "{step}/12");
            }
        }
    }

    #[test]
    fn a_journal_cut_anywhere_loses_nothing_that_the_tree_has() {
        let whole = TestDir::new("jcut-whole");
        filled(whole.path(), OPTIONS, 6);
        let journal = fs::read(journal_path(whole.path())).unwrap();
        for cut in (0..journal.len()).step_by(7) {
            fs::write(journal_path(whole.path()), &journal[..cut]).unwrap();
            let (store, findings) = open(whole.path(), OPTIONS).unwrap();
            assert_eq!(kept(&store), 6, "cut at {cut}");
            assert!(matches!(findings.last(), Some(Finding::JournalRewritten(_))), "{cut}: {findings:?}");
            drop(store);
            // Rewritten, it carries everything alone.
            fs::remove_dir_all(tree_path(whole.path())).unwrap();
            let (store, _) = open(whole.path(), OPTIONS).unwrap();
            assert_eq!(kept(&store), 6, "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_journal_is_rewritten_from_the_tree() {
        let dir = TestDir::new("jdamage");
        filled(dir.path(), OPTIONS, 6);
        let mut journal = fs::read(journal_path(dir.path())).unwrap();
        journal[40] ^= 1;
        fs::write(journal_path(dir.path()), &journal).unwrap();
        let (store, findings) = open(dir.path(), OPTIONS).unwrap();
        assert!(matches!(findings[..], [Finding::JournalRewritten(_)]), "{findings:?}");
        assert_eq!(kept(&store), 6);
        drop(store);
        assert_eq!(open(dir.path(), OPTIONS).unwrap().1, []);
        // With the tree gone as well, nothing is guessed.
        fs::write(journal_path(dir.path()), &journal).unwrap();
        fs::remove_dir_all(tree_path(dir.path())).unwrap();
        assert!(matches!(open(dir.path(), OPTIONS), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn without_a_journal_damage_is_for_a_person_to_decide() {
        let dir = TestDir::new("nojournal");
        filled(dir.path(), NO_JOURNAL, 6);
        fs::write(tree_path(dir.path()).join("conf"), "not a configuration").unwrap();
        assert!(matches!(open(dir.path(), NO_JOURNAL), Err(StoreError::Damaged { .. })));
        assert!(tree_path(dir.path()).join("db").exists(), "nothing was removed");
    }
}
