//! What the scenarios have in common: two phones that know each other, each in a home of its own or both in one, and a
//! short text each has to say.

use std::time::Duration;

use serde_json::Value;

use super::realm::{Phone, befriend};
use super::scene::{Placed, Scene, Told, Voices, converse, folder};
use super::{LabError, Nat, Process};

/// Share of the speech that must be heard.
pub const HEARD: f64 = 0.98;

/// Alice, who calls, and Bob.
#[derive(Debug)]
pub struct Pair {
    /// The caller; named first, so that its daemon ends before the realm does.
    pub alice: Phone,
    /// The callee.
    pub bob: Phone,
    /// What they say.
    pub voices: Voices,
    /// Where they live.
    pub scene: Scene,
}

impl Pair {
    /// Alice in home 0 behind `first`, Bob in home 1 behind `second`, or in home 0 too where there is no second.
    /// `options` go to each supernode's `init`.
    ///
    /// # Errors
    /// Something of that failed.
    pub fn new(label: &str, first: Nat, second: Option<Nat>, options: &[&str]) -> Result<Pair, LabError> {
        let scene = Scene::in_namespaces(&folder(label), false, Duration::ZERO, options)?;
        Pair::in_scene(scene, first, second)
    }

    /// The same in a realm that runs already.
    ///
    /// # Errors
    /// Something of that failed.
    pub fn in_scene(mut scene: Scene, first: Nat, second: Option<Nat>) -> Result<Pair, LabError> {
        let one = scene.home(first)?;
        let two = second.map_or(Ok(one), |nat| scene.home(nat))?;
        let alice = scene.phone(one, "alice")?;
        let bob = scene.phone(two, "bob")?;
        alice.wait_homes(2, Duration::from_secs(10))?;
        bob.wait_homes(2, Duration::from_secs(10))?;
        befriend(&alice, &bob)?;
        let voices = Voices::brief(&scene.realm.dir)?;
        Ok(Pair { alice, bob, voices, scene })
    }

    /// Alice calls Bob and both say what they have to say.
    ///
    /// # Errors
    /// It did not come to an end in order.
    pub fn converse(&self, options: &[&str]) -> Result<Placed, LabError> {
        converse(&self.alice, &self.bob, &self.voices, options, |_, _| Ok(()))
    }
}

/// Waits until a process has printed an event of a call that `wanted` likes, also an earlier one.
///
/// # Errors
/// It did not in this time; what it printed.
pub fn event(
    process: &Process,
    patience: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value, LabError> {
    const STEP: Duration = Duration::from_millis(5);
    for _ in 0..=patience.as_millis() / STEP.as_millis() {
        let told = Told::by(process);
        if let Some((_, event)) = told.events.iter().find(|(_, event)| wanted(event)) {
            return Ok(event.clone());
        }
        if process.ended() {
            break;
        }
        std::thread::sleep(STEP);
    }
    let said = format!("{} {}", Told::by(process).summary(), process.stderr());
    Err(LabError::Command { command: "a call's event".into(), said })
}

/// Both sides were heard, or the test fails with what both ends told.
///
/// # Panics
/// When one was not.
pub fn assert_heard(what: &str, placed: &Placed) {
    for (said, comparison) in ["caller", "callee"].into_iter().zip(&placed.heard) {
        println!(
            "{what}: {:.1} % of what the {said} said was heard, longest gap {} ms, delay {:.0} ms",
            comparison.share * 100.0,
            comparison.longest_gap_ms,
            comparison.delay_ms
        );
        assert!(
            comparison.share >= HEARD,
            "{what}: the {said} was not heard: {comparison:?}\ncaller: {}\ncallee: {}",
            placed.out.summary(),
            placed.inward.summary()
        );
    }
}
