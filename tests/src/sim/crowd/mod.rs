//! The crowd: tens of thousands of phones, each attached to two homes of its own choice, and half of the supernodes
//! without power from one moment to the next.
//!
//! Supernodes and phones are the very root machines of the programs. What a machine does takes no time here: the
//! figures tell how many come to whom and when, not how busy a processor is with it.

mod arguments;
mod calls;
mod figures;
mod gate;
mod realm;

use std::time::Duration;

use yodel_identity::seen;

pub use self::arguments::Arguments;
use self::calls::Callers;
pub use self::figures::{Before, Calls, Report, Second, Spans};
use self::realm::{Crowd, Found, Storm};

/// Signatures and records remembered, so that what eight holders keep is there and checked once: some of each phone.
const SEEN_MAX: usize = 1_000_000;

/// How long the storm is watched.
const WATCHED: Duration = Duration::from_secs(120);

/// Calls begin within this time.
const CALLING: Duration = Duration::from_secs(60);

/// How often it is looked who has a home.
const LOOK: Duration = Duration::from_millis(100);

/// How often people look at their phones.
const STEP: Duration = Duration::from_millis(10);

/// Runs it.
///
/// # Panics
/// When the phones do not get online, which is another test's business.
pub fn run(arguments: &Arguments) -> Report {
    seen::remember(SEEN_MAX);
    let mut crowd = Crowd::new(arguments);
    crowd.everybody_online();
    let mut callers = Callers::befriended(&mut crowd, arguments.calls as usize);
    let before = crowd.before();
    crowd.strike(arguments.killed());
    let storm = watch(&mut crowd, &mut callers);
    crowd.report(arguments, before, storm, callers.figures())
}

fn watch(crowd: &mut Crowd, callers: &mut Callers) -> Storm {
    let mut lacking = crowd.lacking();
    let lost_all = lacking.iter().filter(|phone| phone.all()).count();
    let lost_one = lacking.len() - lost_all;
    let (mut found, mut seconds) = (Found::default(), Vec::new());
    let steps = |span: Duration| (span.as_millis() / STEP.as_millis()) as u32;
    for step in 1..=steps(WATCHED) {
        let due = f64::from(step) / f64::from(steps(CALLING));
        callers.step(crowd, due.min(1.0));
        crowd.world.run_for(STEP);
        if step.is_multiple_of(steps(LOOK)) {
            let passed = STEP * step;
            lacking.retain_mut(|phone| crowd.still_lacks(phone, passed, &mut found));
        }
        if step.is_multiple_of(steps(Duration::from_secs(1))) {
            let with_none = lacking.iter().filter(|phone| phone.all()).count();
            let with_one = lacking.len() - with_none;
            let second = crowd.second(seconds.len() as u32 + 1);
            seconds.push(Second { with_none, with_one, ..second });
        }
    }
    Storm { lost_one, lost_all, found, seconds }
}
