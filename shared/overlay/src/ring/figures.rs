//! What a ring counts and measures.

use std::time::Duration;

use crate::histogram::Histogram;
use crate::sealed::NotOpened;

/// What a lookup took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Until the first valid answer; `None` when there was none.
    pub first: Option<Duration>,
    /// Until nothing more was to follow; `None` when something may.
    pub settled: Option<Duration>,
    /// Datagrams sent and received for it.
    pub datagrams: u32,
    /// Their UDP payload.
    pub bytes: u32,
    /// Holders asked, oneself included.
    pub asked: u32,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Walks for reads.
    pub lookups: u64,
    /// Reads answered from the cache.
    pub cached: u64,
    /// Walks for writes.
    pub publishes: u64,
    /// Requests answered as a holder.
    pub served: u64,
    /// Requests sent once more because nothing was heard.
    pub repeated: u64,
    /// Records handed over to other members, and kept by them.
    pub handed_over: u64,
    /// Records written to holders that lagged behind what a read found.
    pub read_repairs: u64,
    /// Records dropped because others hold them now.
    pub dropped_records: u64,
    /// Answers of holders that did not verify.
    pub disbelieved: u64,
    /// Answers that were too long for a datagram.
    pub moved_to_link: u64,
    /// Datagrams sent, and their bytes.
    pub datagrams_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Datagrams that were opened.
    pub datagrams_opened: u64,
    /// Bytes of them.
    pub bytes_opened: u64,
    /// Datagrams that were not.
    pub dropped: Dropped,
}

/// Datagrams dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Not a sealed datagram, or of a version that is not spoken.
    pub malformed: u64,
    /// From nobody in the table.
    pub stranger: u64,
    /// Under a key of either side that is not known.
    pub key: u64,
    /// Too many key agreements at once.
    pub busy: u64,
    /// The box did not open.
    pub forged: u64,
    /// A member sealed what cannot be read.
    pub unreadable: u64,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Lookups: until the first valid answer.
    pub first: Histogram,
    /// Lookups: until settled.
    pub settled: Histogram,
    /// Writes: until enough holders kept it.
    pub written: Histogram,
}

impl Dropped {
    pub(super) fn count(&mut self, error: NotOpened) {
        let counter = match error {
            NotOpened::Malformed | NotOpened::Version(_) => &mut self.malformed,
            NotOpened::Stranger(_) => &mut self.stranger,
            NotOpened::SenderKey(_) | NotOpened::ReceiverKey(_) => &mut self.key,
            NotOpened::Busy(_) => &mut self.busy,
            NotOpened::Forged(_) => &mut self.forged,
        };
        *counter += 1;
    }
}
