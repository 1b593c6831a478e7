//! A program running in a namespace, its lines kept.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use yodel_net::clock::Clock;
use yodel_wire::time::Instant;

use super::{LabError, Space};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Without its end.
    pub text: String,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<Line>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Stream {
    kept: Mutex<Kept>,
    more: Condvar,
}

/// Process ids of all children that were not waited for yet.
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// `kill -9` of every child: for a program that is about to end without dropping them.
pub fn kill_all() {
    for child in CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Ok(pid) = i32::try_from(*child) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn forget(child: u32) {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).remove(&child);
}

/// A child process whose stdout and stderr are kept line by line. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    clock: Clock,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    /// Lines of stdout that `wait_for` has passed.
    seen: usize,
}

impl Space {
    /// Starts a program here. `clock` is what its lines are stamped with.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, clock: Clock, program: &str, arguments: &[&str]) -> Result<Process, LabError> {
        let mut command = self.command(program);
        command.args(arguments);
        Process::start(clock, command)
    }
}

impl Process {
    /// Starts a command made by [`Space::command`], or any other.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(clock: Clock, mut command: Command) -> Result<Process, LabError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id());
        let stdout = keep(clock, child.stdout.take());
        let stderr = keep(clock, child.stderr.take());
        Ok(Process { child, clock, stdout, stderr, seen: 0 })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a further line on stdout that `wanted` likes; lines before it are passed over. `None` when the time is
    /// up or the output ended.
    pub fn wait_for(&mut self, timeout: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<Line> {
        let until = self.clock.now().mono + timeout;
        let mut kept = self.stdout.kept.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(line) = kept.lines.get(self.seen) {
                self.seen += 1;
                if wanted(&line.text) {
                    return Some(line.clone());
                }
            }
            let left = until.since(self.clock.now().mono);
            if kept.ended || left.is_zero() {
                return None;
            }
            let waited = self.stdout.more.wait_timeout(kept, left);
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a further JSON object on stdout that `wanted` likes.
    pub fn wait_for_json(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&serde_json::Value) -> bool,
    ) -> Option<serde_json::Value> {
        let mut found = None;
        self.wait_for(timeout, |line| {
            found = serde_json::from_str(line).ok().filter(|value| wanted(value));
            found.is_some()
        })?;
        found
    }

    /// All of stdout so far.
    pub fn stdout(&self) -> Vec<Line> {
        self.stdout.kept.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// All of stderr so far, for the message of a failing test.
    pub fn stderr(&self) -> String {
        let kept = self.stderr.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        forget(self.child.id());
    }

    /// Whether its stdout has ended: nothing follows.
    pub fn ended(&self) -> bool {
        self.stdout.kept.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Waits for the end and for the last line. `None` when it still runs.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let until = self.clock.now().mono + timeout;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                forget(self.child.id());
                self.await_end(until);
                return Some(status);
            }
            if until.since(self.clock.now().mono).is_zero() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, then the end; SIGKILL when it does not come in time.
    pub fn stop(&mut self, timeout: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        let status = self.wait(timeout);
        if status.is_none() {
            self.kill();
        }
        status
    }

    /// The last lines may still be in the pipe. A grandchild may hold the pipe open for ever, so this is bounded.
    fn await_end(&self, until: Instant) {
        for stream in [&self.stdout, &self.stderr] {
            let mut kept = stream.kept.lock().unwrap_or_else(PoisonError::into_inner);
            while !kept.ended {
                let left = until.since(self.clock.now().mono).min(Duration::from_millis(500));
                let (guard, waited) =
                    stream.more.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner);
                kept = guard;
                if waited.timed_out() {
                    break;
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(clock: Clock, pipe: Option<impl Read + Send + 'static>) -> Arc<Stream> {
    let stream = Arc::new(Stream::default());
    let writer = stream.clone();
    std::thread::spawn(move || {
        for text in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok)) {
            let line = Line { at: clock.now().mono, text };
            writer.kept.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
            writer.more.notify_all();
        }
        writer.kept.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        writer.more.notify_all();
    });
    stream
}
