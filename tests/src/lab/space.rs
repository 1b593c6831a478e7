//! One network namespace: commands in it, sockets in it, its counters.

use std::ops::Sub;
use std::process::{Command, Stdio};

use super::LabError;

/// A network namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Space {
    name: String,
}

/// What an interface has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl Counters {
    /// Both directions.
    pub fn packets(&self) -> u64 {
        self.rx_packets + self.tx_packets
    }
}

impl Sub for Counters {
    type Output = Counters;
    fn sub(self, earlier: Counters) -> Counters {
        Counters {
            rx_packets: self.rx_packets.saturating_sub(earlier.rx_packets),
            rx_bytes: self.rx_bytes.saturating_sub(earlier.rx_bytes),
            tx_packets: self.tx_packets.saturating_sub(earlier.tx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(earlier.tx_bytes),
        }
    }
}

impl Space {
    pub(super) fn create(name: &str) -> Result<Space, LabError> {
        execute(Command::new("ip").args(["netns", "add", name]))?;
        let space = Space { name: name.to_owned() };
        space.ip("link set lo up")?;
        Ok(space)
    }

    pub(super) fn named(name: &str) -> Space {
        Space { name: name.to_owned() }
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip -n SPACE …`, the words separated by spaces.
    ///
    /// # Errors
    /// It failed.
    pub fn ip(&self, words: &str) -> Result<(), LabError> {
        execute(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace())).map(drop)
    }

    /// Feeds a script to `nft` in this namespace.
    ///
    /// # Errors
    /// It failed.
    pub fn nft(&self, script: &str) -> Result<(), LabError> {
        self.run("nft", &[script]).map(drop)
    }

    /// Runs a program to its end and returns what it printed.
    ///
    /// # Errors
    /// It failed, with what it said on stderr.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        execute(self.command(program).args(arguments))
    }

    /// A command that will run in this namespace. The process replaces `ip`, so its id is the child's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` on a thread of this namespace: the sockets it opens live there, also when handed out.
    ///
    /// # Panics
    /// When the namespace cannot be entered, and when `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let file =
                    std::fs::File::open(format!("/run/netns/{}", self.name)).expect("namespace exists");
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                    .expect("may enter the namespace");
                work()
            });
            match entered.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// What an interface has carried.
    ///
    /// # Errors
    /// `ip` failed, or there is no such interface.
    pub fn counters(&self, interface: &str) -> Result<Counters, LabError> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-j", "-s", "link", "show", "dev", interface]);
        let listed: serde_json::Value = serde_json::from_str(&execute(&mut command)?).unwrap_or_default();
        let stats = &listed[0]["stats64"];
        let read = |direction: &str, unit: &str| {
            stats[direction][unit].as_u64().ok_or_else(|| LabError::Command {
                command: format!("{command:?}"),
                said: format!("no counter {direction} {unit}"),
            })
        };
        Ok(Counters {
            rx_packets: read("rx", "packets")?,
            rx_bytes: read("rx", "bytes")?,
            tx_packets: read("tx", "packets")?,
            tx_bytes: read("tx", "bytes")?,
        })
    }

    pub(super) fn forward(&self) -> Result<(), LabError> {
        self.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        Ok(())
    }

    /// Ends what runs in it and removes it. What cannot be removed is left for the next sweep.
    pub(super) fn remove(&self) {
        let pids = execute(Command::new("ip").args(["netns", "pids", &self.name])).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            if pid != nix::unistd::getpid() {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let _ = execute(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

pub(super) fn execute(command: &mut Command) -> Result<String, LabError> {
    let named = |command: &Command| {
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| LabError::Command { command: named(command), said: error.to_string() })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(LabError::Command {
            command: named(command),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
