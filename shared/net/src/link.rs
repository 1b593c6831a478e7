//! What links over QUIC and over TLS have in common: a bounded queue of frames to write, a task that cuts frames out
//! of what arrives, and the reports of both to the driver.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use yodel_wire::frame::{FRAME_HEADER_BYTES, Frame, FrameDecoder, FrameKind};
use yodel_wire::machine::{LinkClosed, LinkEvent, LinkId, LinkPeer};

use crate::limits::{
    CLOSE_WITHIN, FIRST_FRAME_WITHIN, LINK_BUFFER_BYTES, LINK_QUEUE_BYTES_MAX, LINK_QUEUE_FRAMES_MAX,
    LINK_QUEUE_RELAY_MAX,
};

/// What link tasks tell the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// A peer opened a link; its queue comes with it.
    Accepted(LinkId, LinkPeer, Arc<LinkQueue>),
    /// Something happened on a link that is known already.
    Event(LinkId, LinkEvent),
}

/// Everything a link task needs beside its transport.
#[derive(Clone, Debug)]
pub(crate) struct LinkTask {
    pub(crate) id: LinkId,
    pub(crate) queue: Arc<LinkQueue>,
    pub(crate) reports: mpsc::Sender<Report>,
    /// Held for as long as the task lives, so that the driver can wait for all.
    pub(crate) _alive: Alive,
}

impl LinkTask {
    pub(crate) async fn report(&self, event: LinkEvent) {
        // Nobody listens only when the driver has ended.
        let _ended = self.reports.send(Report::Event(self.id, event)).await;
    }
}

/// Counts tasks or handshakes; the count falls when a copy is dropped.
#[derive(Debug)]
pub(crate) struct Alive(Arc<(AtomicUsize, Notify)>);

impl Alive {
    pub(crate) fn new() -> Alive {
        Alive(Arc::new((AtomicUsize::new(1), Notify::new())))
    }

    /// Copies beside this one.
    pub(crate) fn others(&self) -> usize {
        self.0.0.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Waits until a copy was dropped.
    pub(crate) async fn fell(&self) {
        self.0.1.notified().await;
    }
}

impl Clone for Alive {
    fn clone(&self) -> Alive {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Alive(self.0.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        self.0.1.notify_one();
    }
}

/// Frames on their way to a link's writer.
#[derive(Debug, Default)]
pub(crate) struct LinkQueue {
    state: Mutex<QueueState>,
    written: Notify,
    killed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    frames: VecDeque<Frame>,
    bytes: usize,
    relayed: usize,
    closing: bool,
}

/// The peer does not drain its link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl LinkQueue {
    /// Adds a frame. Of relayed packets only the newest are kept; any other frame above the bounds is an overflow.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Overflow> {
        let mut state = self.state();
        if frame.kind == FrameKind::RelayData {
            if state.relayed >= LINK_QUEUE_RELAY_MAX {
                state.drop_oldest_relayed();
            }
            state.relayed += 1;
        }
        if state.frames.len() >= LINK_QUEUE_FRAMES_MAX || state.bytes + cost(&frame) > LINK_QUEUE_BYTES_MAX {
            return Err(Overflow);
        }
        state.bytes += cost(&frame);
        state.frames.push_back(frame);
        drop(state);
        self.written.notify_one();
        Ok(())
    }

    /// Lets the writer finish what is queued and then close the link.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.written.notify_one();
    }

    /// Ends the link's task at once.
    pub(crate) fn kill(&self) {
        self.close();
        self.killed.notify_one();
    }

    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Moves frames into `out`, as many as one write takes. `false` when the link is closing and nothing is left.
    async fn take(&self, out: &mut Vec<u8>) -> bool {
        loop {
            {
                let mut state = self.state();
                while out.len() < LINK_BUFFER_BYTES {
                    let Some(frame) = state.frames.pop_front() else { break };
                    state.bytes = state.bytes.saturating_sub(cost(&frame));
                    if frame.kind == FrameKind::RelayData {
                        state.relayed = state.relayed.saturating_sub(1);
                    }
                    if let Err(error) = frame.encode(out) {
                        tracing::error!(kind = ?frame.kind, %error, "frame not sent");
                    }
                }
                if !out.is_empty() {
                    return true;
                }
                if state.closing {
                    return false;
                }
            }
            self.written.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn drop_oldest_relayed(&mut self) {
        let oldest = self.frames.iter().position(|frame| frame.kind == FrameKind::RelayData);
        if let Some(frame) = oldest.and_then(|at| self.frames.remove(at)) {
            self.bytes = self.bytes.saturating_sub(cost(&frame));
            self.relayed = self.relayed.saturating_sub(1);
        }
    }
}

fn cost(frame: &Frame) -> usize {
    frame.body.len() + FRAME_HEADER_BYTES
}

/// Carries frames both ways until one side ends it. `Ok` when our own side closed and all is written; the writer is
/// returned so that the transport can say goodbye in its own way.
pub(crate) async fn carry<R, W>(
    task: &LinkTask,
    mut reader: R,
    writer: &mut W,
    accepted: bool,
) -> Result<(), LinkClosed>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let read = async {
        let first = if accepted { Some(FIRST_FRAME_WITHIN) } else { None };
        read_frames(task, &mut reader, first).await
    };
    tokio::select! {
        closed = read => Err(closed),
        written = write_frames(&task.queue, writer) => written.map_err(|_| LinkClosed::Lost),
        () = task.queue.killed() => Err(LinkClosed::Overload),
    }
}

async fn read_frames<R: AsyncRead + Unpin>(
    task: &LinkTask,
    reader: &mut R,
    first_within: Option<Duration>,
) -> LinkClosed {
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; LINK_BUFFER_BYTES];
    let mut first_within = first_within;
    loop {
        let read = match first_within {
            // A peer that trickles bytes gets this much for every piece of its first frame, and there are few pieces.
            Some(within) => match timeout(within, reader.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => return LinkClosed::Protocol,
            },
            None => reader.read(&mut buffer).await,
        };
        let bytes = match read {
            Ok(0) => return LinkClosed::Finished,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) => return closed_by(&error),
        };
        decoder.push(bytes);
        loop {
            match decoder.poll() {
                Ok(Some(frame)) => {
                    first_within = None;
                    task.report(LinkEvent::Frame(frame)).await;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(link = task.id.0, %error, "not a frame");
                    return LinkClosed::Protocol;
                }
            }
        }
    }
}

fn closed_by(error: &std::io::Error) -> LinkClosed {
    match error.kind() {
        std::io::ErrorKind::InvalidData => LinkClosed::Protocol,
        // TLS without close_notify: the peer's process ended.
        std::io::ErrorKind::UnexpectedEof => LinkClosed::Lost,
        _ => LinkClosed::Lost,
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(queue: &LinkQueue, writer: &mut W) -> std::io::Result<()> {
    let mut out = Vec::new();
    while queue.take(&mut out).await {
        let write = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        if queue.is_closing() {
            timeout(CLOSE_WITHIN, write).await??;
        } else {
            write.await?;
        }
        out.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_by_frames_and_by_bytes() {
        let queue = LinkQueue::default();
        for _ in 0..LINK_QUEUE_FRAMES_MAX {
            queue.push(Frame::new(FrameKind::Ping, vec![])).unwrap();
        }
        assert_eq!(queue.push(Frame::new(FrameKind::Ping, vec![])), Err(Overflow));
        let queue = LinkQueue::default();
        let mut pushed = 0;
        while queue.push(Frame::new(FrameKind::Write, vec![0; 16_384])).is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, LINK_QUEUE_BYTES_MAX / 16_388);
    }

    #[tokio::test]
    async fn the_oldest_relayed_packet_goes_first() {
        let queue = LinkQueue::default();
        queue.push(Frame::new(FrameKind::Ping, vec![99])).unwrap();
        for n in 0..=u8::try_from(LINK_QUEUE_RELAY_MAX).unwrap() {
            queue.push(Frame::new(FrameKind::RelayData, vec![n])).unwrap();
        }
        queue.close();
        let mut out = Vec::new();
        while queue.take(&mut out).await && out.len() < 5 * (LINK_QUEUE_RELAY_MAX + 1) {}
        assert_eq!(out.len(), 5 * (LINK_QUEUE_RELAY_MAX + 1));
        assert_eq!(out[..10], [4, 1, 0, 1, 99, 53, 1, 0, 1, 1]);
    }
}
