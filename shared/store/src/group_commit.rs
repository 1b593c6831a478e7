//! Group commit: one thread owns the store; whoever waits while it flushes goes to disk together in the next flush.
//!
//! The boundary to the driver: [`GroupCommit::commit`] takes a machine's `Output::Commit` and never blocks; the `done`
//! given with it is called exactly once, in the order of the commits. The driver passes the result on as
//! `Machine::handle_committed`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tracing::error;
use yodel_wire::machine::{CommitResult, Write};

use crate::limits::{GROUP_COMMITS_MAX, GROUP_QUEUE_MAX};
use crate::store::Store;

/// Called once, from the commit thread or, when the queue is full, from the caller's.
pub type Done = Box<dyn FnOnce(CommitResult) + Send>;

type Job = (Vec<Write>, Done);

/// What the commit thread did so far.
#[derive(Debug, Default)]
pub struct GroupCounters {
    commits: AtomicU64,
    flushes: AtomicU64,
    failed: AtomicU64,
}

impl GroupCounters {
    /// Commits brought to stable storage.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Flushes that took.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Commits that could not be brought to stable storage.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The commit thread. Dropping it waits until everything handed over is done.
pub struct GroupCommit {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<Box<dyn Store>>>,
    counters: Arc<GroupCounters>,
}

impl GroupCommit {
    /// Starts the thread that owns `store` from now on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(store: Box<dyn Store>) -> io::Result<GroupCommit> {
        let (jobs, waiting) = sync_channel(GROUP_QUEUE_MAX);
        let counters = Arc::new(GroupCounters::default());
        let counted = Arc::clone(&counters);
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .spawn(move || run(store, &waiting, &counted))?;
        Ok(GroupCommit { jobs: Some(jobs), thread: Some(thread), counters })
    }

    /// Queues writes, all or none of which will be stored, and returns at once. When the queue is full, `done` is told
    /// `Failed` before this returns.
    pub fn commit(&self, writes: Vec<Write>, done: Done) {
        let Some(jobs) = &self.jobs else { return done(CommitResult::Failed) };
        match jobs.try_send((writes, done)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, done)) | TrySendError::Disconnected((_, done))) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                done(CommitResult::Failed);
            }
        }
    }

    /// What it did so far.
    pub fn counters(&self) -> Arc<GroupCounters> {
        Arc::clone(&self.counters)
    }

    /// Waits until everything handed over is done and gives the store back. `None` when the thread died.
    pub fn finish(mut self) -> Option<Box<dyn Store>> {
        self.jobs = None;
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the commit thread had panicked");
        }
    }
}

impl fmt::Debug for GroupCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("counters", &self.counters).finish_non_exhaustive()
    }
}

fn run(mut store: Box<dyn Store>, waiting: &Receiver<Job>, counters: &GroupCounters) -> Box<dyn Store> {
    let mut was_failing = false;
    while let Ok((mut writes, done)) = waiting.recv() {
        let mut group = vec![done];
        while group.len() < GROUP_COMMITS_MAX
            && let Ok((more, done)) = waiting.try_recv()
        {
            writes.extend(more);
            group.push(done);
        }
        let result = match store.commit(&writes) {
            Ok(()) => {
                counters.commits.fetch_add(group.len() as u64, Ordering::Relaxed);
                was_failing = false;
                CommitResult::Stored
            }
            Err(why) => {
                counters.failed.fetch_add(group.len() as u64, Ordering::Relaxed);
                // Once per outage, not once per request.
                if !std::mem::replace(&mut was_failing, true) {
                    error!("cannot store: {why}");
                }
                CommitResult::Failed
            }
        };
        counters.flushes.store(store.flushes(), Ordering::Relaxed);
        for done in group {
            done(result);
        }
    }
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use std::sync::mpsc::channel;

    fn write(key: u64) -> Vec<Write> {
        vec![Write { tree: "t", key: key.to_be_bytes().to_vec(), value: Some(vec![1]), journaled: false }]
    }

    #[test]
    fn every_commit_is_told_once_in_order_and_the_store_has_all() {
        let (tx, rx) = channel();
        let group = GroupCommit::start(Box::new(MemoryStore::new())).unwrap();
        for n in 0..1_000 {
            let tx = tx.clone();
            group.commit(write(n), Box::new(move |r| tx.send((n, r)).unwrap()));
        }
        drop(tx);
        let counters = group.counters();
        let store = group.finish().unwrap();
        let done: Vec<_> = rx.iter().collect();
        assert_eq!(done, (0..1_000).map(|n| (n, CommitResult::Stored)).collect::<Vec<_>>());
        assert_eq!(store.scan("t").unwrap().len(), 1_000);
        assert_eq!(counters.commits(), 1_000);
        assert_eq!(counters.flushes(), store.flushes());
    }

    #[test]
    fn those_who_wait_during_a_flush_share_the_next() {
        // The first one's answer holds the thread until all others are queued: then one flush takes them all.
        let (hold_tx, hold_rx) = channel::<()>();
        let (tx, rx) = channel();
        let group = GroupCommit::start(Box::new(MemoryStore::new())).unwrap();
        group.commit(write(0), Box::new(move |_| hold_rx.recv().unwrap()));
        while group.counters().flushes() == 0 {
            std::thread::yield_now();
        }
        for n in 1..=500 {
            let tx = tx.clone();
            group.commit(write(n), Box::new(move |r| tx.send(r).unwrap()));
        }
        drop(tx);
        hold_tx.send(()).unwrap();
        let counters = group.counters();
        drop(group);
        assert_eq!(rx.iter().count(), 500);
        assert_eq!(counters.flushes(), 2);
    }

    #[test]
    fn a_full_disk_fails_them_and_a_full_queue_refuses_them_at_once() {
        let mut store = MemoryStore::new();
        store.set_full(true);
        let (tx, rx) = channel();
        let (hold_tx, hold_rx) = channel::<()>();
        let group = GroupCommit::start(Box::new(store)).unwrap();
        group.commit(
            write(0),
            Box::new(move |_| {
                let _ = hold_rx.recv();
            }),
        );
        // The thread may have taken a group of them before it was held.
        let total = GROUP_QUEUE_MAX + GROUP_COMMITS_MAX + 100;
        for n in 0..total {
            let tx = tx.clone();
            group.commit(write(n as u64), Box::new(move |r| tx.send(r).unwrap()));
        }
        drop(tx);
        let refused_at_once = rx.try_iter().count();
        drop(hold_tx);
        assert!(refused_at_once >= 100, "{refused_at_once}");
        let counters = group.counters();
        drop(group);
        assert!(rx.iter().all(|r| r == CommitResult::Failed));
        assert_eq!(counters.failed(), total as u64 + 1);
        assert_eq!(counters.commits(), 0);
    }
}
