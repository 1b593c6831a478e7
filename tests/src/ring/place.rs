//! Where a ring runs, and that nothing of it is left behind.
//!
//! A thread of its own, in a network namespace of its own when this is root: both end with the work. The programs are
//! told to die with the thread ([`crate::lab::realm::Where::Tied`]); should that have failed, the next ring finds their
//! folder by the name, which carries its maker's process id and start time, and ends what still runs from it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::sweep::started;

static PLACES: AtomicU32 = AtomicU32::new(0);

const PREFIX: &str = "yodel-ring-";

/// A place for one ring.
#[derive(Debug)]
pub struct Place {
    /// The folder of all state; it goes with the place.
    pub dir: PathBuf,
    /// Whether the loopback is this ring's alone, so that its packets can be counted.
    pub alone: bool,
}

/// Does some work in a place of its own. A panic in it goes on here.
pub fn within<T: Send>(work: impl FnOnce(&Place) -> T + Send) -> T {
    sweep();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let alone = unshare(CloneFlags::CLONE_NEWNET).is_ok() && loopback_up();
            if !alone {
                eprintln!("yodel-lab: not root: on everybody's loopback, packets are not counted");
            }
            work(&Place { dir: folder(), alone })
        });
        match working.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn loopback_up() -> bool {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    up.is_ok_and(|status| status.success())
}

fn folder() -> PathBuf {
    let pid = std::process::id();
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("{PREFIX}{pid}-{}-{number}", started(pid).unwrap_or(0)))
}

/// Ends what runs from folders whose maker is gone, and removes them.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(PREFIX).is_some_and(is_stale) {
            end_all_of(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_stale(name: &str) -> bool {
    let mut numbers = name.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { return false };
    u32::try_from(pid).is_ok_and(|pid| started(pid) != Some(start))
}

/// Kills the processes that were started with something below this folder.
fn end_all_of(dir: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    let below = format!("{}/", dir.display());
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|word| word.starts_with(below.as_bytes())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_swept() {
        let own = folder();
        let name = own.file_name().unwrap().to_str().unwrap().strip_prefix(PREFIX).unwrap();
        assert!(!is_stale(name));
        assert!(is_stale(&format!("{}-1-0", std::process::id())));
        assert!(!is_stale("of-somebody"));
        let stale = std::env::temp_dir().join(format!("{PREFIX}{}-1-77", std::process::id()));
        std::fs::create_dir_all(&stale).unwrap();
        let log = stale.join("log");
        std::fs::write(&log, "").unwrap();
        let mut left = Command::new("tail").arg("-f").arg(&log).spawn().unwrap();
        // The command line is its own once it was executed.
        let line = format!("/proc/{}/cmdline", left.id());
        while !std::fs::read(&line).unwrap().starts_with(b"tail") {
            std::thread::yield_now();
        }
        sweep();
        assert!(!stale.exists());
        assert!(!left.wait().unwrap().success());
    }
}
