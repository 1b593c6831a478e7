//! The only place that reads a clock or draws randomness.
#![allow(clippy::disallowed_methods, reason = "this is the file the lint sends everybody to")]

use std::io;
use std::time::{Instant as StdInstant, SystemTime};

use yodel_wire::time::{Instant, Now, UnixTime};

/// The process's clocks. Copies share the origin, so instants of all copies compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::start()
    }
}

impl Clock {
    /// A clock whose monotonic origin is now.
    pub fn start() -> Clock {
        Clock { origin: StdInstant::now() }
    }

    /// Both clocks, read now.
    pub fn now(&self) -> Now {
        let mono = Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX));
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Now { mono, unix: UnixTime::from_millis(unix) }
    }

    /// The timer's instant for a machine's deadline.
    pub(crate) fn timer(&self, deadline: Instant) -> tokio::time::Instant {
        (self.origin + deadline.since(Instant::ORIGIN)).into()
    }
}

/// 32 bytes from the operating system, for a machine's `new`.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::getrandom(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_goes_forward_and_seeds_differ() {
        let clock = Clock::start();
        let a = clock.now();
        let b = clock.now();
        assert!(b.mono >= a.mono);
        assert!(a.unix.as_secs() > 1_700_000_000);
        assert_ne!(seed().unwrap(), seed().unwrap());
    }
}
