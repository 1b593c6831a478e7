//! A write over the holders of one key: to all K at once, acknowledged when W = min(3, ⌊K/2⌋ + 1) keep it.
//!
//! A holder that has something newer decides at once: the writer must go above it, whoever else took the old one.

use std::collections::BTreeSet;

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::limits::REQUEST;
use crate::placement::write_quorum;
use crate::record::{WriteStatus, Written};

/// One write; see the module's text.
#[derive(Debug)]
pub struct Publish {
    waiting: BTreeSet<NodeId>,
    begun: Instant,
    kept: usize,
    wanted: usize,
    /// The first reason why a holder did not keep it.
    refused: Option<Written>,
    done: bool,
}

impl Publish {
    /// Written to these holders now.
    pub fn new(now: Instant, holders: &[NodeId]) -> Publish {
        Publish {
            waiting: holders.iter().copied().collect(),
            begun: now,
            kept: 0,
            wanted: write_quorum(holders.len()),
            refused: None,
            done: false,
        }
    }

    /// A holder answered. Returns the outcome (with request id 0) when this decides it.
    pub fn handle_written(&mut self, from: NodeId, written: &Written) -> Option<Written> {
        if self.done || !self.waiting.remove(&from) {
            return None;
        }
        match written.status {
            WriteStatus::Stored => self.kept += 1,
            WriteStatus::Stale => {
                self.done = true;
                return Some(self.outcome(written.clone()));
            }
            WriteStatus::NeedAccount
            | WriteStatus::Refused
            | WriteStatus::Full
            | WriteStatus::Unreachable
            | WriteStatus::Other => {
                self.refused.get_or_insert_with(|| written.clone());
            }
        }
        self.judge()
    }

    /// A holder cannot be reached.
    pub fn handle_failed(&mut self, from: NodeId) -> Option<Written> {
        if self.done {
            return None;
        }
        self.waiting.remove(&from);
        self.judge()
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Written> {
        if self.done || now < self.begun + REQUEST {
            return None;
        }
        self.waiting.clear();
        self.judge()
    }

    /// When to call [`Publish::handle_timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        (!self.done).then_some(self.begun + REQUEST)
    }

    /// The outcome, when no holder is left to wait for from the start.
    pub fn judge(&mut self) -> Option<Written> {
        let stored = self.kept >= self.wanted;
        if self.done || !(stored || self.waiting.is_empty()) {
            return None;
        }
        self.done = true;
        let written = match (stored, self.refused.take()) {
            (true, _) => Written::new(0, WriteStatus::Stored),
            (false, Some(refused)) => refused,
            (false, None) => Written::new(0, WriteStatus::Unreachable),
        };
        Some(self.outcome(written))
    }

    fn outcome(&self, written: Written) -> Written {
        Written { id: 0, kept: self.kept as u64, wanted: self.wanted as u64, ..written }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> Vec<NodeId> {
        (1..=count).map(|n| NodeId([n; 16])).collect()
    }

    fn answer(status: WriteStatus) -> Written {
        Written::new(0, status)
    }

    #[test]
    fn acknowledged_at_the_quorum_and_not_before() {
        for (count, wanted) in [(1, 1), (2, 2), (3, 2), (8, 3)] {
            let nodes = nodes(count);
            let mut publish = Publish::new(Instant::ORIGIN, &nodes);
            for (index, node) in nodes.iter().take(wanted).enumerate() {
                let outcome = publish.handle_written(*node, &answer(WriteStatus::Stored));
                assert_eq!(outcome.is_some(), index + 1 == wanted, "{index} of {count}");
                if let Some(outcome) = outcome {
                    assert_eq!((outcome.status, outcome.kept), (WriteStatus::Stored, wanted as u64));
                }
            }
        }
    }

    #[test]
    fn stale_decides_and_too_few_fail() {
        let three = nodes(3);
        let mut publish = Publish::new(Instant::ORIGIN, &three);
        assert_eq!(publish.handle_written(three[0], &answer(WriteStatus::Stored)), None);
        assert_eq!(publish.handle_written(three[0], &answer(WriteStatus::Stored)), None, "counts once");
        let newer = Written { newest_entry: Some(vec![1]), ..answer(WriteStatus::Stale) };
        let outcome = publish.handle_written(three[1], &newer).unwrap();
        assert_eq!((outcome.status, outcome.newest_entry), (WriteStatus::Stale, Some(vec![1])));
        assert_eq!(publish.handle_written(three[2], &answer(WriteStatus::Stored)), None);

        let mut publish = Publish::new(Instant::ORIGIN, &three);
        publish.handle_failed(three[0]);
        publish.handle_written(three[1], &answer(WriteStatus::Stored));
        assert_eq!(publish.handle_timeout(Instant::ORIGIN), None);
        let outcome = publish.handle_timeout(Instant::ORIGIN + REQUEST).unwrap();
        assert_eq!((outcome.status, outcome.kept, outcome.wanted), (WriteStatus::Unreachable, 1, 2));

        let mut publish = Publish::new(Instant::ORIGIN, &three);
        for node in &three[..2] {
            assert_eq!(publish.handle_written(*node, &answer(WriteStatus::Refused)), None);
        }
        let outcome = publish.handle_written(three[2], &answer(WriteStatus::Stored)).unwrap();
        assert_eq!(outcome.status, WriteStatus::Refused);
        assert_eq!(Publish::new(Instant::ORIGIN, &[]).judge().unwrap().status, WriteStatus::Unreachable);
    }
}
