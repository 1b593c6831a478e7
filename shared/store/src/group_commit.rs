//! Group commit: one thread owns the store; whoever waits while it flushes goes to disk together in the next flush.
//!
//! The boundary to the driver: [`Submitter::submit`] takes a machine's `Output::Commit` and never blocks; the `done`
//! callback given to [`GroupCommit::start`] gets every ticket back exactly once, from the commit thread, in the order
//! they were submitted. The driver passes it on as `Machine::handle_committed`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tracing::error;
use yodel_wire::machine::{CommitResult, Ticket, Write};

use crate::limits::{GROUP_COMMITS_MAX, GROUP_QUEUE_MAX};
use crate::store::Store;

type Job = (Ticket, Vec<Write>);

/// The commit queue is full or its thread is gone: treat the ticket as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot keep up")]
pub struct Overloaded;

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

/// Hands commits to the commit thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Submitter {
    jobs: SyncSender<Job>,
}

impl Submitter {
    /// Queues the writes of one ticket, all or none of which will be stored.
    ///
    /// # Errors
    /// `Overloaded`; `done` is not called then.
    pub fn submit(&self, ticket: Ticket, writes: Vec<Write>) -> Result<(), Overloaded> {
        self.jobs.try_send((ticket, writes)).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Overloaded,
        })
    }
}

/// The commit thread.
#[derive(Debug)]
pub struct GroupCommit {
    submitter: Submitter,
    thread: JoinHandle<Box<dyn Store>>,
    counters: Arc<GroupCounters>,
}

impl GroupCommit {
    /// Starts the thread that owns `store` from now on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        store: Box<dyn Store>,
        done: impl FnMut(Ticket, CommitResult) + Send + 'static,
    ) -> io::Result<GroupCommit> {
        let (jobs, waiting) = sync_channel(GROUP_QUEUE_MAX);
        let counters = Arc::new(GroupCounters::default());
        let counted = Arc::clone(&counters);
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .spawn(move || run(store, &waiting, &counted, done))?;
        Ok(GroupCommit { submitter: Submitter { jobs }, thread, counters })
    }

    /// A handle to submit with.
    pub fn submitter(&self) -> Submitter {
        self.submitter.clone()
    }

    /// Queues the writes of one ticket; see [`Submitter::submit`].
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn submit(&self, ticket: Ticket, writes: Vec<Write>) -> Result<(), Overloaded> {
        self.submitter.submit(ticket, writes)
    }

    /// What it did so far.
    pub fn counters(&self) -> Arc<GroupCounters> {
        Arc::clone(&self.counters)
    }

    /// Waits until everything submitted is done and every [`Submitter`] dropped, and gives the store back. `None` when
    /// the thread died.
    pub fn finish(self) -> Option<Box<dyn Store>> {
        drop(self.submitter);
        self.thread.join().ok()
    }
}

fn run(
    mut store: Box<dyn Store>,
    waiting: &Receiver<Job>,
    counters: &GroupCounters,
    mut done: impl FnMut(Ticket, CommitResult),
) -> Box<dyn Store> {
    let mut was_failing = false;
    while let Ok((ticket, mut writes)) = waiting.recv() {
        let mut tickets = vec![ticket];
        while tickets.len() < GROUP_COMMITS_MAX
            && let Ok((ticket, more)) = waiting.try_recv()
        {
            tickets.push(ticket);
            writes.extend(more);
        }
        let result = match store.commit(&writes) {
            Ok(()) => {
                counters.commits.fetch_add(tickets.len() as u64, Ordering::Relaxed);
                was_failing = false;
                CommitResult::Stored
            }
            Err(why) => {
                counters.failed.fetch_add(tickets.len() as u64, Ordering::Relaxed);
                // Once per outage, not once per request.
                if !std::mem::replace(&mut was_failing, true) {
                    error!("cannot store: {why}");
                }
                CommitResult::Failed
            }
        };
        counters.flushes.store(store.flushes(), Ordering::Relaxed);
        for ticket in tickets {
            done(ticket, result);
        }
    }
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use std::sync::mpsc::channel;

    fn write(key: u64) -> Write {
        Write { tree: "t", key: key.to_be_bytes().to_vec(), value: Some(vec![1]), journaled: false }
    }

    #[test]
    fn every_ticket_comes_back_once_in_order_and_the_store_has_all() {
        let (tx, rx) = channel();
        let group =
            GroupCommit::start(Box::new(MemoryStore::new()), move |t, r| tx.send((t, r)).unwrap()).unwrap();
        for n in 0..1_000 {
            group.submit(Ticket(n), vec![write(n)]).unwrap();
        }
        let counters = group.counters();
        let store = group.finish().unwrap();
        let done: Vec<_> = rx.iter().collect();
        assert_eq!(done, (0..1_000).map(|n| (Ticket(n), CommitResult::Stored)).collect::<Vec<_>>());
        assert_eq!(store.scan("t").unwrap().len(), 1_000);
        assert_eq!(counters.commits(), 1_000);
        assert_eq!(counters.flushes(), store.flushes());
    }

    #[test]
    fn those_who_wait_during_a_flush_share_the_next() {
        // The first commit's callback holds the thread until all others are queued: then one flush takes them all.
        let (hold_tx, hold_rx) = channel::<()>();
        let (tx, rx) = channel();
        let mut first = true;
        let group = GroupCommit::start(Box::new(MemoryStore::new()), move |t, r| {
            if std::mem::take(&mut first) {
                hold_rx.recv().unwrap();
            }
            tx.send((t, r)).unwrap();
        })
        .unwrap();
        group.submit(Ticket(0), vec![write(0)]).unwrap();
        while group.counters().flushes() == 0 {
            std::thread::yield_now();
        }
        for n in 1..=500 {
            group.submit(Ticket(n), vec![write(n)]).unwrap();
        }
        hold_tx.send(()).unwrap();
        let counters = group.counters();
        group.finish().unwrap();
        assert_eq!(rx.iter().count(), 501);
        assert_eq!(counters.flushes(), 2);
    }

    #[test]
    fn a_full_disk_fails_the_tickets_and_a_full_queue_refuses_them() {
        let mut store = MemoryStore::new();
        store.set_full(true);
        let (tx, rx) = channel();
        let (hold_tx, hold_rx) = channel::<()>();
        let group = GroupCommit::start(Box::new(store), move |_, r| {
            let _ = hold_rx.recv();
            tx.send(r).unwrap();
        })
        .unwrap();
        let mut accepted = 0;
        while group.submit(Ticket(accepted), vec![write(1)]).is_ok() {
            accepted += 1;
            assert!(accepted <= (GROUP_QUEUE_MAX + GROUP_COMMITS_MAX) as u64);
        }
        drop(hold_tx);
        group.finish().unwrap();
        let results: Vec<_> = rx.iter().collect();
        assert_eq!(results.len() as u64, accepted);
        assert!(results.iter().all(|r| *r == CommitResult::Failed));
    }
}
