//! What the operating system asks of a running program.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end cleanly.
    Terminate,
    /// SIGINT: end cleanly, and say so with exit code 130 where a person waited.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The three signals, from now on caught instead of deadly.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    reload: Stream,
}

impl Signals {
    /// Starts catching. Call inside the runtime.
    ///
    /// # Errors
    /// The operating system refused a handler.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.reload.recv() => Signal::Reload,
        }
    }
}
