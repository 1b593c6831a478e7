//! A realm of real processes: the release programs, started in namespaces or, without root, on loopback.
//!
//! Every process is a child of the test and dies with it. State lies below one temporary folder, removed at the end
//! unless the realm was told to keep it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use yodel_net::clock::Clock;

use super::{LabError, Process, Space};

/// Patience with a program that should start, end or answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a program runs.
#[derive(Clone, Debug)]
pub enum Where {
    /// In this namespace.
    Space(Space),
    /// Here, on loopback.
    Here,
    /// Here, and killed when the thread that started it ends, whatever ends it.
    Tied,
}

impl Where {
    fn command(&self, program: &str) -> Command {
        match self {
            Where::Space(space) => space.command(program),
            Where::Here => Command::new(program),
            Where::Tied => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--", program]);
                command
            }
        }
    }
}

/// The path of one of the programs, built beside this one.
///
/// # Errors
/// It is not there: `cargo build --bins` in the same profile makes it.
pub fn program(name: &str) -> Result<String, LabError> {
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.map(|path| path.display().to_string()).ok_or_else(|| LabError::Command {
        command: name.into(),
        said: "not built: run `cargo build --bins` in this profile first".into(),
    })
}

/// A supernode of the realm.
#[derive(Debug)]
pub struct Supernode {
    /// Where it runs.
    pub place: Where,
    /// The address it listens on and advertises.
    pub addr: SocketAddr,
    /// Its folder.
    pub dir: PathBuf,
    /// The process, while it runs.
    pub process: Option<Process>,
    /// Its node id, as its status prints it.
    pub node: String,
}

/// A phone: an installation of `yodel` and its daemon.
#[derive(Debug)]
pub struct Phone {
    /// Where it runs.
    pub place: Where,
    /// Its account's name, without the realm.
    pub user: String,
    /// Its folder.
    pub dir: PathBuf,
    /// The daemon, while it runs.
    pub daemon: Option<Process>,
    clock: Clock,
}

/// A login server, supernodes, and the folder of all.
#[derive(Debug)]
pub struct Realm {
    /// The folder of all state and recordings.
    pub dir: PathBuf,
    /// Where the login server runs.
    pub login_place: Where,
    /// The login server, while it runs.
    pub login: Option<Process>,
    /// The supernodes.
    pub supernodes: Vec<Supernode>,
    /// What every line is stamped with.
    pub clock: Clock,
    keep: bool,
}

/// The realm's name.
pub const REALM: &str = "example.net";

impl Realm {
    /// Starts a login server that listens on `addr`.
    ///
    /// # Errors
    /// A program is missing or did not get ready.
    pub fn start(dir: &Path, keep: bool, place: Where, addr: SocketAddr) -> Result<Realm, LabError> {
        std::fs::create_dir_all(dir)?;
        let clock = Clock::start();
        let mut realm = Realm {
            dir: dir.to_owned(),
            login_place: place,
            login: None,
            supernodes: Vec::new(),
            clock,
            keep,
        };
        let listen = addr.to_string();
        realm.login_server(&["init", "--realm", REALM, "--listen", &listen, "--advertise", &listen])?;
        realm.run_login_server()?;
        Ok(realm)
    }

    /// Starts the login server again.
    ///
    /// # Errors
    /// It did not get ready.
    pub fn run_login_server(&mut self) -> Result<(), LabError> {
        let mut command = self.login_place.command(&program("yodel-login-server")?);
        command.args(["run", "--json", "--dir"]).arg(self.dir.join("login"));
        let mut process = Process::start(self.clock, command)?;
        ready(&mut process, "yodel-login-server")?;
        self.login = Some(process);
        Ok(())
    }

    /// Runs a command of the login server's and returns the JSON it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn login_server(&self, arguments: &[&str]) -> Result<Value, LabError> {
        let mut command = self.login_place.command(&program("yodel-login-server")?);
        command.args(arguments).arg("--json").arg("--dir").arg(self.dir.join("login"));
        let done = run(self.clock, command, PATIENCE)?;
        done.success("yodel-login-server")
    }

    /// An invitation.
    ///
    /// # Errors
    /// It failed.
    pub fn invite(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut all = vec!["invite", "create"];
        all.extend(arguments);
        let printed = self.login_server(&all)?;
        printed["invite"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| LabError::Command { command: "invite create".into(), said: printed.to_string() })
    }

    /// Enrols a supernode and runs it. `tcp` are further TCP ports; `options` go to `init`.
    ///
    /// # Errors
    /// It did not get ready.
    pub fn add_supernode(
        &mut self,
        place: Where,
        addr: SocketAddr,
        tcp: &[u16],
        options: &[&str],
    ) -> Result<usize, LabError> {
        let number = self.supernodes.len();
        let dir = self.dir.join(format!("supernode-{number}"));
        let invite = self.invite(&["--role", "supernode"])?;
        let mut command = place.command(&program("yodel-supernode")?);
        command.args(["init", "--json", "--invite", &invite, "--listen", &addr.to_string()]);
        command.args(["--advertise", &addr.ip().to_string()]).arg("--dir").arg(&dir);
        if !tcp.is_empty() {
            let ports: Vec<String> = tcp.iter().map(u16::to_string).collect();
            command.args(["--tcp", &ports.join(",")]);
        }
        command.args(options);
        run(self.clock, command, PATIENCE)?.success("yodel-supernode init")?;
        let supernode = Supernode { place, addr, dir, process: None, node: String::new() };
        self.supernodes.push(supernode);
        self.run_supernode(number)?;
        Ok(number)
    }

    /// Runs a supernode again.
    ///
    /// # Errors
    /// It did not get ready.
    pub fn run_supernode(&mut self, number: usize) -> Result<(), LabError> {
        self.begin_supernode(number)?;
        self.supernode_ready(number)
    }

    /// Starts a supernode, and does not wait for it.
    ///
    /// # Errors
    /// It could not be started.
    pub fn begin_supernode(&mut self, number: usize) -> Result<(), LabError> {
        let supernode = &mut self.supernodes[number];
        let mut command = supernode.place.command(&program("yodel-supernode")?);
        // The same address as `init` was told, unless it has moved.
        command.args(["run", "--json", "--listen", &supernode.addr.to_string(), "--dir"]).arg(&supernode.dir);
        supernode.process = Some(Process::start(self.clock, command)?);
        Ok(())
    }

    /// Waits until a supernode that was started is ready.
    ///
    /// # Errors
    /// It did not get ready.
    pub fn supernode_ready(&mut self, number: usize) -> Result<(), LabError> {
        if let Some(process) = &mut self.supernodes[number].process {
            ready(process, "yodel-supernode")?;
        }
        let status = self.supernode_status(number)?;
        self.supernodes[number].node = status["node"].as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    /// What `yodel-supernode status` says.
    ///
    /// # Errors
    /// It failed.
    pub fn supernode_status(&self, number: usize) -> Result<Value, LabError> {
        self.ask_supernode(number, &["status"])?.success("yodel-supernode status")
    }

    /// Runs a command of `yodel-supernode` for this supernode to its end.
    ///
    /// # Errors
    /// It could not be run, or took too long.
    pub fn ask_supernode(&self, number: usize, arguments: &[&str]) -> Result<Done, LabError> {
        let supernode = &self.supernodes[number];
        let mut command = supernode.place.command(&program("yodel-supernode")?);
        command.args(arguments).args(["--json", "--dir"]).arg(&supernode.dir);
        run(self.clock, command, PATIENCE)
    }

    /// The supernode with this node id.
    pub fn supernode_named(&self, node: &str) -> Option<usize> {
        self.supernodes.iter().position(|supernode| supernode.node == node)
    }

    /// `kill -9` of a supernode.
    pub fn kill_supernode(&mut self, number: usize) {
        if let Some(mut process) = self.supernodes[number].process.take() {
            process.kill();
        }
    }

    /// Signs a new account's first device in, without starting its daemon.
    ///
    /// # Errors
    /// It failed.
    pub fn sign_in(&self, place: Where, user: &str) -> Result<Phone, LabError> {
        let invite = self.invite(&["--user", user])?;
        let phone =
            Phone { place, user: user.to_owned(), dir: self.dir.join(user), daemon: None, clock: self.clock };
        let password = self.dir.join("password");
        std::fs::write(&password, "correct horse battery staple\n")?;
        let account = format!("{user}@{REALM}");
        let mut command =
            phone.command(&["sign-in", &account, "--invite", &invite, "--password-stdin", "--json"])?;
        command.stdin(std::fs::File::open(&password)?);
        let output = command.output()?;
        if !output.status.success() {
            return Err(LabError::Command {
                command: "yodel sign-in".into(),
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        Ok(phone)
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        for supernode in &mut self.supernodes {
            drop(supernode.process.take());
        }
        drop(self.login.take());
        if !self.keep && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

impl Phone {
    /// A command of `yodel` for this installation. It never starts a daemon: the lab's daemons are its children.
    ///
    /// # Errors
    /// The program is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command, LabError> {
        let mut command = self.place.command(&program("yodel")?);
        command.arg("--dir").arg(&self.dir).args(arguments);
        if arguments.first() != Some(&"daemon") && arguments.first() != Some(&"sign-in") {
            command.arg("--no-autostart");
        }
        Ok(command)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It could not be run, or took too long.
    pub fn run(&self, arguments: &[&str]) -> Result<Done, LabError> {
        run(self.clock, self.command(arguments)?, PATIENCE)
    }

    /// Starts a command and leaves it running.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Process, LabError> {
        Process::start(self.clock, self.command(arguments)?)
    }

    /// Starts the daemon and waits until it is online.
    ///
    /// # Errors
    /// It did not get online.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.daemon = Some(self.spawn(&["daemon", "run"])?);
        self.wait_online(PATIENCE)
    }

    /// Waits until `status` says `online`, and with two homes where the realm has two.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait_online(&self, patience: Duration) -> Result<(), LabError> {
        let began = self.clock.now().mono;
        let mut last = String::new();
        while self.clock.now().mono.since(began) < patience {
            let done = self.run(&["status", "--json"])?;
            if done.json()["state"] == "online" {
                return Ok(());
            }
            last = format!("{} {}", done.stdout.trim(), done.stderr.trim());
            std::thread::sleep(Duration::from_millis(50));
        }
        let daemon = self.daemon.as_ref().map(Process::stderr).unwrap_or_default();
        let said = format!("{} is not online: {last}\n{daemon}", self.user);
        Err(LabError::Command { command: "yodel status".into(), said })
    }

    /// Waits until this phone has so many warm homes.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait_homes(&self, homes: usize, patience: Duration) -> Result<Vec<String>, LabError> {
        let began = self.clock.now().mono;
        loop {
            let status = self.run(&["status", "--json"])?.json();
            let warm: Vec<String> = status["homes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|home| home["state"] == "warm")
                .filter_map(|home| home["node"].as_str().map(str::to_owned))
                .collect();
            if warm.len() >= homes && status["state"] == "online" {
                return Ok(warm);
            }
            if self.clock.now().mono.since(began) >= patience {
                return Err(LabError::Command { command: "yodel status".into(), said: status.to_string() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9` of the daemon.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Ends the daemon in order.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(Duration::from_secs(5));
        }
    }

    /// Starts `answer --auto` and waits until it is ready.
    ///
    /// # Errors
    /// It did not get ready.
    pub fn auto_answer(&self, audio: &str) -> Result<Process, LabError> {
        let mut process = self.spawn(&["answer", "--auto", "--json", "--audio", audio])?;
        ready(&mut process, "yodel answer --auto")?;
        Ok(process)
    }
}

/// Makes two phones contacts of each other, and waits until both know.
///
/// # Errors
/// A command failed, or it took too long.
pub fn befriend(a: &Phone, b: &Phone) -> Result<(), LabError> {
    a.run(&["contacts", "add", &b.user, "--json"])?.success("contacts add")?;
    b.run(&["contacts", "add", &a.user, "--json"])?.success("contacts add")?;
    for (phone, other) in [(a, b), (b, a)] {
        let began = phone.clock.now().mono;
        loop {
            let listed = phone.run(&["contacts", "list", "--json"])?.stdout;
            if listed.contains("accepted") && listed.contains(&other.user) {
                break;
            }
            if phone.clock.now().mono.since(began) >= PATIENCE {
                return Err(LabError::Command { command: "contacts list".into(), said: listed });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Done {
    /// The last JSON object it printed; null when there is none.
    pub fn json(&self) -> Value {
        self.stdout.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    /// All JSON objects it printed.
    pub fn all_json(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it printed, when it exited with 0.
    ///
    /// # Errors
    /// It did not.
    pub fn success(&self, what: &str) -> Result<Value, LabError> {
        if self.code == Some(0) {
            return Ok(self.json());
        }
        let said = format!("exit {:?}: {} {}", self.code, self.stdout.trim(), self.stderr.trim());
        Err(LabError::Command { command: what.into(), said })
    }
}

/// Waits for the end of a process that was left running.
///
/// # Errors
/// It took too long.
pub fn finish(process: &mut Process, patience: Duration) -> Result<Done, LabError> {
    let Some(status) = process.wait(patience) else {
        let said = format!("still runs after {patience:?}; it said: {}", process.stderr());
        process.signal(Signal::SIGKILL);
        return Err(LabError::Command { command: "yodel".into(), said });
    };
    let stdout: Vec<String> = process.stdout().into_iter().map(|line| line.text).collect();
    Ok(Done { code: status.code(), stdout: stdout.join("\n"), stderr: process.stderr() })
}

fn run(clock: Clock, command: Command, patience: Duration) -> Result<Done, LabError> {
    finish(&mut Process::start(clock, command)?, patience)
}

fn ready(process: &mut Process, what: &str) -> Result<(), LabError> {
    let seen = process.wait_for_json(PATIENCE, |line| line["event"] == "ready");
    if seen.is_some() {
        return Ok(());
    }
    let said = format!("did not get ready: {}", process.stderr());
    Err(LabError::Command { command: what.into(), said })
}

/// An address for a program on loopback: a port that was free a moment ago.
///
/// # Errors
/// The operating system has none.
pub fn loopback() -> Result<SocketAddr, LabError> {
    let probe = std::net::TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0))?;
    Ok(probe.local_addr()?)
}
