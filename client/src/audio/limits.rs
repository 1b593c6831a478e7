//! Every bound of the audio ends, with its reason.

use std::time::Duration;

/// Frames read ahead of a sound file: 2 s, longer than a disk takes to wake up. The reader waits when it is full.
pub const READ_AHEAD_FRAMES: usize = 100;

/// Frames that may wait for a slow disk: 10 s, 1 MB. Later ones are written as silence of the same length.
pub const WRITE_BEHIND_FRAMES: usize = 500;

/// Frames between two updates of a recording's header: the file on disk is never more than a second behind.
pub const HEADER_EVERY_FRAMES: u32 = 25;

/// How long the end of a call waits for the last frames of its recording to be written.
pub const FINISH_WAIT: Duration = Duration::from_millis(500);

/// Lowest sampling rate of a sound file, Hz. Nothing lower is speech.
pub const RATE_MIN: u32 = 4_000;

/// Highest sampling rate of a sound file, Hz; bounds the resampler's work per sample.
pub const RATE_MAX: u32 = 384_000;

/// Most channels of a sound file; they are averaged.
pub const CHANNELS_MAX: u16 = 8;
