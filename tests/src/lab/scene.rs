//! A realm set up for calls: a login server and three supernodes in different /24s, homes behind NATs with phones in
//! them, speech to say, and what a call told about itself. In namespaces, or on loopback without root.
//!
//! Nothing here fakes anything: every phone signs in, runs its daemon and is driven by its command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use yodel_wire::time::Instant;

use super::realm::{Done, Phone, Realm, Where, finish, loopback};
use super::{Home, Host, Lab, LabError, Nat, Process};
use crate::audio_compare::{Comparison, compare_files, synthetic_speech};

/// Where the login server lives.
pub const LOGIN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// Where the supernodes live: three /24s, so that placement keeps them apart.
pub const SUPERNODES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(192, 0, 2, 20)];
/// Port of every server.
const PORT: u16 = 4433;
/// The first home's public address; the next ones count up.
const HOMES: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);

/// A realm ready for phones.
#[derive(Debug)]
pub struct Scene {
    /// The programs.
    pub realm: Realm,
    /// The namespaces; `None` on loopback.
    pub lab: Option<Lab>,
    /// The supernodes' hosts, in the order of the realm's.
    pub hosts: Vec<Host>,
    /// The homes, in the order they were built.
    pub homes: Vec<Home>,
}

impl Scene {
    /// Namespaces: the login server, three supernodes that also serve TLS on port 80. `options` go to each supernode's
    /// `init`; any two hosts are `rtt` apart.
    ///
    /// # Errors
    /// No lab here, or a program did not get ready.
    pub fn in_namespaces(dir: &Path, keep: bool, rtt: Duration, options: &[&str]) -> Result<Scene, LabError> {
        let mut lab = Lab::new()?;
        lab.set_line_delay(rtt / 4);
        let login = lab.host("login", LOGIN)?;
        let realm = Realm::start(dir, keep, Where::Space(login.space), SocketAddr::from((LOGIN, PORT)))?;
        let mut scene = Scene { realm, lab: Some(lab), hosts: Vec::new(), homes: Vec::new() };
        for (number, addr) in SUPERNODES.into_iter().enumerate() {
            let Some(lab) = scene.lab.as_mut() else { break };
            let host = lab.host(&format!("super{number}"), addr)?;
            let place = Where::Space(host.space.clone());
            scene.hosts.push(host);
            scene.realm.add_supernode(place, SocketAddr::from((addr, PORT)), &[80], options)?;
        }
        Ok(scene)
    }

    /// The same realm on this machine's loopback, where there is no NAT to get through.
    ///
    /// # Errors
    /// A program did not get ready.
    pub fn on_loopback(dir: &Path, keep: bool) -> Result<Scene, LabError> {
        let realm = Realm::start(dir, keep, Where::Here, loopback()?)?;
        let mut scene = Scene { realm, lab: None, hosts: Vec::new(), homes: Vec::new() };
        for _ in SUPERNODES {
            scene.realm.add_supernode(Where::Here, loopback()?, &[], &[])?;
        }
        Ok(scene)
    }

    /// One supernode on loopback, for many phones at one place.
    ///
    /// # Errors
    /// A program did not get ready.
    pub fn alone(dir: &Path) -> Result<Scene, LabError> {
        let realm = Realm::start(dir, false, Where::Here, loopback()?)?;
        let mut scene = Scene { realm, lab: None, hosts: Vec::new(), homes: Vec::new() };
        scene.realm.add_supernode(Where::Here, loopback()?, &[], &[])?;
        Ok(scene)
    }

    /// Builds a home behind a NAT and returns its number.
    ///
    /// # Errors
    /// There are no namespaces, or they failed.
    pub fn home(&mut self, nat: Nat) -> Result<usize, LabError> {
        let number = self.homes.len();
        let lab = self.lab.as_mut().ok_or(LabError::NotRoot)?;
        let addr = Ipv4Addr::from_bits(HOMES.to_bits() + u32::try_from(number).unwrap_or(0));
        self.homes.push(lab.home(&format!("home{number}"), addr, nat)?);
        Ok(number)
    }

    /// Puts a host for a phone into a home; on loopback it is this machine.
    ///
    /// # Errors
    /// The namespaces failed.
    pub fn place(&mut self, home: usize, label: &str) -> Result<Where, LabError> {
        match self.lab.as_mut() {
            Some(lab) => Ok(Where::Space(lab.phone(&mut self.homes[home], label)?.space)),
            None => Ok(Where::Here),
        }
    }

    /// A signed-in phone in this home, its daemon online.
    ///
    /// # Errors
    /// Something of that failed.
    pub fn phone(&mut self, home: usize, user: &str) -> Result<Phone, LabError> {
        let place = self.place(home, user)?;
        let mut phone = self.realm.sign_in(place, user)?;
        phone.start()?;
        Ok(phone)
    }

    /// Packets from one home's public address to another's so far, by protocol.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn between_homes(&self, from: usize, to: usize, protocol: u8) -> Result<u64, LabError> {
        let lab = self.lab.as_ref().ok_or(LabError::NotRoot)?;
        lab.packets(self.homes[from].addr, self.homes[to].addr, protocol)
    }

    /// Packets from a home to the supernodes so far, by protocol.
    ///
    /// # Errors
    /// `nft` failed.
    pub fn to_supernodes(&self, from: usize, protocol: u8) -> Result<u64, LabError> {
        let lab = self.lab.as_ref().ok_or(LabError::NotRoot)?;
        let from = self.homes[from].addr;
        let wanted = |flow: &&super::Flow| {
            flow.from == from && SUPERNODES.contains(&flow.to) && flow.protocol == protocol
        };
        Ok(lab.flows()?.iter().filter(wanted).map(|flow| flow.packets).sum())
    }
}

/// A folder for one scene, short enough for unix sockets below it.
pub fn folder(label: &str) -> PathBuf {
    std::env::temp_dir().join(format!("yodel-{label}-{}", std::process::id()))
}

/// Speaks a text into a WAV file with espeak-ng; without it, syllables that stand for speech. Returns whether it was
/// espeak-ng.
///
/// # Errors
/// The file cannot be written.
pub fn speak(file: &Path, voice: &str, text: &str, seed: u64) -> Result<bool, LabError> {
    let mut command = Command::new("espeak-ng");
    command.args(["-v", voice, "-s", "150", "-w"]).arg(file).arg(text);
    if command.output().is_ok_and(|output| output.status.success()) {
        return Ok(true);
    }
    let failed = |error: hound::Error| LabError::Io(std::io::Error::other(error));
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 48_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(file, spec).map_err(failed)?;
    for sample in synthetic_speech(seed, 9) {
        writer.write_sample((sample * 32_767.0).clamp(-32_768.0, 32_767.0) as i16).map_err(failed)?;
    }
    writer.finalize().map_err(failed)?;
    Ok(false)
}

/// How long a sound file lasts.
///
/// # Errors
/// It cannot be read.
pub fn lasts(file: &Path) -> Result<Duration, LabError> {
    let reader = hound::WavReader::open(file).map_err(|error| LabError::Io(std::io::Error::other(error)))?;
    Ok(Duration::from_secs_f64(f64::from(reader.duration()) / f64::from(reader.spec().sample_rate)))
}

/// What two people say in a scene, and where each one's phone records what it hears.
#[derive(Clone, Debug)]
pub struct Voices {
    /// What the caller says, and what the callee says.
    pub said: [PathBuf; 2],
    /// What the callee heard of the caller, and what the caller heard of the callee.
    pub heard: [PathBuf; 2],
    /// Whether espeak-ng spoke.
    pub espeak: bool,
    /// The longer one's length.
    pub length: Duration,
}

const CALLER_SAYS: &str = "Hello Bob, this is Alice speaking. Can you hear me across both of our networks? Every word \
    of this sentence travels sealed, from my phone straight to yours, and nobody in between can listen.";
const CALLEE_SAYS: &str = "Good morning Alice, your voice is loud and clear over here. I am sitting behind a router of \
    my own, far away, and yet seven quick brown foxes jump over our lazy firewalls together.";

const CALLER_SAYS_BRIEFLY: &str = "Hello Bob, this is Alice. Can you hear me across both of our networks?";
const CALLEE_SAYS_BRIEFLY: &str = "Good morning Alice, your voice is loud and clear over here.";

impl Voices {
    /// Speaks both texts into files of this folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn speak(dir: &Path) -> Result<Voices, LabError> {
        Voices::say(dir, [CALLER_SAYS, CALLEE_SAYS])
    }

    /// The same with a sentence each, of about four seconds.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn brief(dir: &Path) -> Result<Voices, LabError> {
        Voices::say(dir, [CALLER_SAYS_BRIEFLY, CALLEE_SAYS_BRIEFLY])
    }

    fn say(dir: &Path, [caller, callee]: [&str; 2]) -> Result<Voices, LabError> {
        std::fs::create_dir_all(dir)?;
        let said = [dir.join("alice-said.wav"), dir.join("bob-said.wav")];
        let heard = [dir.join("bob-heard.wav"), dir.join("alice-heard.wav")];
        let espeak = speak(&said[0], "en-gb", caller, 11)?;
        let espeak = speak(&said[1], "en-us", callee, 12)? && espeak;
        let length = lasts(&said[0])?.max(lasts(&said[1])?);
        Ok(Voices { said, heard, espeak, length })
    }

    /// The `--audio` of the caller (0) or the callee (1).
    pub fn audio(&self, who: usize) -> String {
        format!("file:{},{}", self.said[who].display(), self.heard[1 - who].display())
    }

    /// Compares both recordings with what was said: the caller's speech first.
    ///
    /// # Errors
    /// A recording is missing.
    pub fn compare(&self) -> Result<[Comparison; 2], LabError> {
        let compare = |who: usize| {
            compare_files(&self.said[who], &self.heard[who])
                .map_err(|error| LabError::Io(std::io::Error::other(error)))
        };
        Ok([compare(0)?, compare(1)?])
    }
}

/// What one end of a call printed, in order.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its events, with the time at which each line was read.
    pub events: Vec<(Instant, Value)>,
}

impl Told {
    /// The call events that a process has printed so far.
    pub fn by(process: &Process) -> Told {
        let parsed = |line: super::process::Line| {
            let value: Value = serde_json::from_str(&line.text).ok()?;
            (value["kind"] == "call").then_some((line.at, value))
        };
        Told { events: process.stdout().into_iter().filter_map(parsed).collect() }
    }

    /// The first event of this state.
    pub fn first(&self, state: &str) -> Option<&Value> {
        self.events.iter().map(|(_, event)| event).find(|event| event["state"] == state)
    }

    /// When the first event of this state was read.
    pub fn read_at(&self, state: &str) -> Option<Instant> {
        self.events.iter().find(|(_, event)| event["state"] == state).map(|(at, _)| *at)
    }

    /// `t_ms` of the first event of this state.
    pub fn t_ms(&self, state: &str) -> Option<f64> {
        self.first(state)?["t_ms"].as_f64()
    }

    /// `t_ms` of the first event that named this path.
    pub fn path_t_ms(&self, path: &str) -> Option<f64> {
        let named = |event: &&Value| event["state"] == "path" && event["path"] == path;
        self.events.iter().map(|(_, event)| event).find(named)?["t_ms"].as_f64()
    }

    /// The path it ended on.
    pub fn last_path(&self) -> Option<&str> {
        self.events.iter().rev().find(|(_, event)| event["state"] == "path")?.1["path"].as_str()
    }

    /// The end's cause.
    pub fn cause(&self) -> Option<&str> {
        self.first("ended")?["cause"].as_str()
    }

    /// States and paths in a line, for people.
    pub fn summary(&self) -> String {
        let word = |event: &Value| {
            let what = ["path", "cause"].iter().find_map(|key| event[*key].as_str());
            let state = event["state"].as_str().unwrap_or("?");
            let at = event["t_ms"].as_f64().unwrap_or(0.0);
            match what {
                Some(what) if state != "stats" => format!("{state} {what} @{at}"),
                Some(_) | None => format!("{state} @{at}"),
            }
        };
        let shown = self.events.iter().filter(|(_, event)| event["state"] != "stats");
        shown.map(|(_, event)| word(event)).collect::<Vec<_>>().join(", ")
    }
}

/// A call that took place, told by both ends.
#[derive(Debug)]
pub struct Placed {
    /// The caller's command.
    pub caller: Done,
    /// What the caller's command told.
    pub out: Told,
    /// What the callee's `answer --auto` told.
    pub inward: Told,
    /// What each heard of the other: the caller's speech first.
    pub heard: [Comparison; 2],
}

/// Lets `alice` call `bob`, who answers by himself; both speak until the longer text ends.
///
/// # Errors
/// A command failed to run, or a recording is missing.
pub fn converse(
    alice: &Phone,
    bob: &Phone,
    voices: &Voices,
    options: &[&str],
    mut meanwhile: impl FnMut(&Process, &Process) -> Result<(), LabError>,
) -> Result<Placed, LabError> {
    let mut answering = bob.auto_answer(&voices.audio(1))?;
    let max = format!("{}ms", (voices.length + Duration::from_millis(1_500)).as_millis());
    let audio = voices.audio(0);
    let mut arguments = vec!["call", bob.user.as_str(), "--json", "--audio", &audio, "--max", &max];
    arguments.extend(options);
    let mut calling = alice.spawn(&arguments)?;
    meanwhile(&calling, &answering)?;
    let caller = finish(&mut calling, voices.length + Duration::from_secs(40))?;
    let out = Told::by(&calling);
    let ended = answering.wait_for_json(Duration::from_secs(5), |line| line["state"] == "ended");
    let inward = Told::by(&answering);
    answering.stop(Duration::from_secs(5));
    if caller.code != Some(0) || ended.is_none() {
        let said = format!(
            "exit {:?}; caller: {}; {}; callee: {}; {}",
            caller.code,
            out.summary(),
            caller.stderr.trim(),
            inward.summary(),
            answering.stderr().trim()
        );
        return Err(LabError::Command { command: "yodel call".into(), said });
    }
    Ok(Placed { caller, out, inward, heard: voices.compare()? })
}
