//! One record on its way to one member: in one datagram when it fits, else in several, and over a link what fits none.
//!
//! All parts leave at once. A holder that has the account record takes an entry whatever else is under way; one that
//! lacks it says so, and gets the entry again after the record. A datagram that is not acknowledged is repeated.

use std::collections::VecDeque;
use std::time::Duration;

use yodel_wire::time::Instant;

use crate::limits::{COMMIT_SLACK, REPEATS_MAX, REQUEST};
use crate::message::MESSAGE_BYTES_MAX;
use crate::record::{WriteStatus, Written};

/// Bytes of a `Write` message beside account record and entry, and some.
const WRITE_OVERHEAD_BYTES: usize = 56;

/// What to do for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Send this part, perhaps again.
    Send(usize),
    /// Nothing was heard for a while; the member may be dead.
    Silent,
    /// It is over; the status is of the worst part. Request id 0.
    Done(Written),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sent {
        again: Instant,
        repeats: u32,
        after_account: bool,
    },
    /// The account record has to come first.
    Waiting,
    Done(WriteStatus),
}

/// What one request carries.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// An account record.
    pub(super) account: Option<Vec<u8>>,
    /// A contact entry.
    pub(super) entry: Option<Vec<u8>>,
    /// Whether it goes over a link.
    pub(super) linked: bool,
    state: State,
}

/// One record on its way; see the module's text.
#[derive(Debug)]
pub(super) struct Delivery {
    parts: Vec<Part>,
    patience: Duration,
    newest_entry: Option<Vec<u8>>,
    newest_account: Option<u64>,
    done: bool,
    acts: VecDeque<Act>,
}

impl Delivery {
    /// Sends all parts. `patience` is how long an answer may take.
    pub(super) fn new(
        now: Instant,
        account: Option<&[u8]>,
        entries: &[&[u8]],
        patience: Duration,
    ) -> Delivery {
        let patience = patience + COMMIT_SLACK;
        let (mut parts, mut rest) = (Vec::new(), entries);
        let state = State::Sent { again: now + patience, repeats: 0, after_account: account.is_none() };
        if let Some(account) = account {
            let size = |entry: usize| account.len() + entry + WRITE_OVERHEAD_BYTES;
            let linked = size(0) > MESSAGE_BYTES_MAX;
            let mut entry = None;
            if let Some((first, others)) = entries.split_first()
                && (linked || size(first.len()) <= MESSAGE_BYTES_MAX)
            {
                entry = Some(first.to_vec());
                rest = others;
            }
            parts.push(Part { account: Some(account.to_vec()), entry, linked, state });
        }
        let entry = |entry: &&[u8]| Part { account: None, entry: Some(entry.to_vec()), linked: false, state };
        parts.extend(rest.iter().map(entry));
        for part in &mut parts {
            if part.linked {
                part.state = State::Sent { again: now + REQUEST, repeats: REPEATS_MAX, after_account: false };
            }
        }
        let acts = (0..parts.len()).map(Act::Send).collect();
        let mut delivery =
            Delivery { parts, patience, newest_entry: None, newest_account: None, done: false, acts };
        delivery.judge();
        delivery
    }

    /// What a request carries.
    pub(super) fn part(&self, index: usize) -> Option<&Part> {
        self.parts.get(index)
    }

    /// The holder answered a part.
    pub(super) fn handle_written(&mut self, now: Instant, index: usize, written: &Written) {
        let (account, again) = (self.account_status(), self.again(now));
        let Some(part) = self.parts.get_mut(index) else { return };
        if self.done || matches!(part.state, State::Done(_)) {
            return;
        }
        if written.newest_entry.is_some() {
            self.newest_entry.clone_from(&written.newest_entry);
        }
        self.newest_account = self.newest_account.max(written.newest_account);
        let is_early = matches!(part.state, State::Sent { after_account: false, .. });
        part.state = match written.status {
            WriteStatus::NeedAccount if part.account.is_none() && is_early => match account {
                Some(_) => again,
                None => State::Waiting,
            },
            status => State::Done(status),
        };
        if let Some(Part { state: State::Sent { .. }, .. }) = self.parts.get(index) {
            self.acts.push_back(Act::Send(index));
        }
        self.release(now);
        self.judge();
    }

    /// A part cannot reach the holder.
    pub(super) fn handle_failed(&mut self, now: Instant, index: usize) {
        if let Some(part) = self.parts.get_mut(index)
            && !self.done
            && matches!(part.state, State::Sent { .. })
        {
            part.state = State::Done(WriteStatus::Unreachable);
            self.release(now);
            self.judge();
        }
    }

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.done {
            return;
        }
        for (index, part) in self.parts.iter_mut().enumerate() {
            let State::Sent { again, repeats, .. } = &mut part.state else { continue };
            if now < *again {
                continue;
            }
            if *repeats == 0 {
                self.acts.push_back(Act::Silent);
            }
            if *repeats < REPEATS_MAX {
                *repeats += 1;
                *again = now + self.patience * (1 << *repeats);
                self.acts.push_back(Act::Send(index));
            } else {
                part.state = State::Done(WriteStatus::Unreachable);
            }
        }
        self.release(now);
        self.judge();
    }

    /// When to call [`Delivery::handle_timeout`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = |part: &Part| match part.state {
            State::Sent { again, .. } => Some(again),
            State::Waiting | State::Done(_) => None,
        };
        if self.done { None } else { self.parts.iter().filter_map(again).min() }
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    fn again(&self, now: Instant) -> State {
        State::Sent { again: now + self.patience, repeats: 0, after_account: true }
    }

    /// How the part with the account record went, once that is known.
    fn account_status(&self) -> Option<WriteStatus> {
        let mut parts = self.parts.iter().filter(|part| part.account.is_some());
        match parts.next()?.state {
            State::Done(status) => Some(status),
            State::Sent { .. } | State::Waiting => None,
        }
    }

    /// Entries that waited for the account record go again, or fail with it.
    fn release(&mut self, now: Instant) {
        let Some(account) = self.account_status() else { return };
        let kept = matches!(account, WriteStatus::Stored | WriteStatus::Stale);
        let again = if kept { self.again(now) } else { State::Done(account) };
        for (index, part) in self.parts.iter_mut().enumerate() {
            if part.state == State::Waiting {
                part.state = again;
                if kept {
                    self.acts.push_back(Act::Send(index));
                }
            }
        }
    }

    fn judge(&mut self) {
        let mut statuses = Vec::new();
        for part in &self.parts {
            match part.state {
                State::Done(status) => statuses.push((part.entry.is_some(), status)),
                State::Sent { .. } | State::Waiting => return,
            }
        }
        self.done = true;
        // As with one request: that the account record was stale does not hinder an entry.
        let has_entry = statuses.iter().any(|(is_entry, _)| *is_entry);
        let counts = |(is_entry, status): &&(bool, WriteStatus)| {
            *is_entry || !has_entry || *status != WriteStatus::Stale
        };
        let worst =
            statuses.iter().filter(counts).map(|(_, status)| *status).max_by_key(|status| match status {
                WriteStatus::Stored => 0,
                WriteStatus::Stale => 1,
                WriteStatus::Unreachable => 2,
                WriteStatus::NeedAccount => 3,
                WriteStatus::Refused | WriteStatus::Full | WriteStatus::Other => 4,
            });
        let written = Written {
            newest_entry: self.newest_entry.take(),
            newest_account: self.newest_account,
            ..Written::new(0, worst.unwrap_or(WriteStatus::Stored))
        };
        self.acts.push_back(Act::Done(written));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Instant = Instant::from_micros(1);

    fn acts(delivery: &mut Delivery) -> Vec<Act> {
        std::iter::from_fn(|| delivery.poll()).collect()
    }

    fn say(delivery: &mut Delivery, part: usize, status: WriteStatus) -> Vec<Act> {
        delivery.handle_written(NOW, part, &Written::new(0, status));
        acts(delivery)
    }

    fn done(status: WriteStatus) -> Vec<Act> {
        vec![Act::Done(Written::new(0, status))]
    }

    #[test]
    fn one_datagram_when_it_fits() {
        let mut delivery = Delivery::new(NOW, Some(&[1; 700]), &[&[2; 300]], 75 * MS);
        assert_eq!(acts(&mut delivery), [Act::Send(0)]);
        assert!(delivery.part(0).is_some_and(|part| part.entry.is_some() && !part.linked));
        assert_eq!(say(&mut delivery, 0, WriteStatus::Stored), done(WriteStatus::Stored));
        assert_eq!((say(&mut delivery, 0, WriteStatus::Full), delivery.deadline()), (vec![], None));
    }

    #[test]
    fn an_entry_that_came_before_its_account_goes_again() {
        let mut delivery = Delivery::new(NOW, Some(&[1; 1_000]), &[&[2; 300], &[3; 300]], 75 * MS);
        assert_eq!(acts(&mut delivery), [Act::Send(0), Act::Send(1), Act::Send(2)]);
        assert_eq!(say(&mut delivery, 1, WriteStatus::NeedAccount), []);
        assert_eq!(say(&mut delivery, 0, WriteStatus::Stored), [Act::Send(1)]);
        assert_eq!(say(&mut delivery, 2, WriteStatus::NeedAccount), [Act::Send(2)], "it overtook the answer");
        assert_eq!(say(&mut delivery, 2, WriteStatus::Stored), []);
        assert_eq!(say(&mut delivery, 1, WriteStatus::NeedAccount), done(WriteStatus::NeedAccount));
    }

    #[test]
    fn what_fits_no_datagram_goes_over_a_link() {
        let mut delivery = Delivery::new(NOW, Some(&[1; 2_000]), &[&[2; 300], &[3; 300]], 75 * MS);
        assert_eq!(acts(&mut delivery), [Act::Send(0), Act::Send(1)]);
        assert!(delivery.part(0).is_some_and(|part| part.linked && part.entry.is_some()));
        assert!(delivery.part(1).is_some_and(|part| !part.linked));
        say(&mut delivery, 1, WriteStatus::NeedAccount);
        delivery.handle_failed(NOW, 0);
        assert_eq!(acts(&mut delivery), done(WriteStatus::Unreachable));
    }

    #[test]
    fn repeated_twice_then_given_up() {
        let mut delivery = Delivery::new(NOW, None, &[&[2; 300]], 75 * MS);
        assert_eq!(acts(&mut delivery), [Act::Send(0)]);
        let patience = 75 * MS + COMMIT_SLACK;
        delivery.handle_timeout(NOW + patience - MS);
        assert_eq!(acts(&mut delivery), []);
        let mut at = NOW + patience;
        delivery.handle_timeout(at);
        assert_eq!(acts(&mut delivery), [Act::Silent, Act::Send(0)]);
        at += patience * 2;
        delivery.handle_timeout(at);
        assert_eq!(acts(&mut delivery), [Act::Send(0)]);
        at += patience * 4;
        assert_eq!(delivery.deadline(), Some(at));
        delivery.handle_timeout(at);
        assert_eq!(acts(&mut delivery), done(WriteStatus::Unreachable));
    }

    #[test]
    fn a_stale_account_does_not_hinder_an_entry() {
        let mut delivery = Delivery::new(NOW, Some(&[1; 1_000]), &[&[2; 300]], 75 * MS);
        acts(&mut delivery);
        let stale = Written { newest_account: Some(7), ..Written::new(0, WriteStatus::Stale) };
        delivery.handle_written(NOW, 0, &stale);
        let stored = Written { newest_account: Some(7), ..Written::new(0, WriteStatus::Stored) };
        delivery.handle_written(NOW, 1, &Written::new(0, WriteStatus::Stored));
        assert_eq!(acts(&mut delivery), [Act::Done(stored)]);
        let mut nothing = Delivery::new(NOW, None, &[], 75 * MS);
        assert_eq!(acts(&mut nothing), done(WriteStatus::Stored));
    }
}
