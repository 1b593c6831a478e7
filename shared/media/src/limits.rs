//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest encoded frame, bytes: Opus at 20 ms never exceeds 1,275 (RFC 6716 §3.2.1) and at our bit rates stays below
/// 200; together with header and tag it must fit a datagram of 1,200 bytes behind a relay's channel of 8.
pub const PAYLOAD_BYTES_MAX: usize = 1_100;

/// Packets per key epoch (two minutes of 20 ms frames): what a leaked key opens.
pub const EPOCH_PACKETS: u64 = 6_000;

/// How many epochs ahead of the newest opened packet a packet may lie: half the sequence space (32,768 packets) is
/// below 6, a reset of a long pause by a report below 16. Bounds what a forged header costs (two HMAC an epoch).
pub const EPOCHS_AHEAD_MAX: u64 = 16;

/// Width of the replay window, packets: 40 s of audio, more than any path delays. Smaller than an epoch, so that one
/// older key is enough. Older packets are dropped.
pub const REPLAY_WINDOW: u64 = 2_048;

/// Frames the jitter buffer holds: the largest target (20 frames) and a burst behind it. The oldest is dropped.
pub const JITTER_FRAMES_MAX: usize = 40;

/// Largest delay the jitter buffer adds on purpose, µs. Beyond it people talk over each other; late frames are
/// concealed instead.
pub const JITTER_TARGET_MAX_US: i64 = 400_000;

/// Arrivals the jitter buffer remembers: 4 s, so that a spike is forgotten within it.
pub const JITTER_WINDOW: usize = 200;

/// Time a frame should lie in the buffer before it is played, µs: covers the scheduling of a busy machine.
pub const JITTER_GUARD_US: i64 = 4_000;

/// Frames further ahead or behind than this (2 s) start the buffer anew: the peer's clock jumped.
pub const JITTER_JUMP_FRAMES: u64 = 100;

/// Frames concealed in a row before silence is played: Opus' concealment has faded by then.
pub const CONCEAL_FRAMES_MAX: u32 = 10;

/// Ticks caught up one by one after the process slept (500 ms). Of older ones nothing is sent: nobody could play it.
pub const CATCH_UP_TICKS: u64 = 25;

/// Ticks for which a recording is filled with silence after the process slept (10 min); past them its clock restarts.
pub const FILL_TICKS_MAX: u64 = 30_000;

/// Outputs waiting to be drained. A drained session holds a handful; the oldest are dropped.
pub const OUTPUTS_MAX: usize = 256;

/// Our own reports whose sending times are remembered for the round trip: 32 s of them.
pub const REPORT_TIMES_MAX: usize = 32;

/// Time between two reports while each side still learns whether the other hears it.
pub const REPORT_INTERVAL_EARLY: Duration = Duration::from_millis(250);

/// Time between two reports later: 60 bytes a second.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// For how long after the start reports are frequent.
pub const REPORT_EARLY_FOR: Duration = Duration::from_secs(5);

/// After the answer, the time until a direction without sound is called deaf: both sides must know within 2 s, and a
/// report every 250 ms needs three tries.
pub const HEARING_FIRST: Duration = Duration::from_millis(1_250);

/// Time without an audio packet after which we no longer hear the peer.
pub const HEARING_SILENCE: Duration = Duration::from_millis(1_000);

/// Time without a report after which what the peer last said about hearing us is void.
pub const HEARING_REPORT_AGE: Duration = Duration::from_millis(3_000);

/// Time between two events with quality figures.
pub const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// When a BYE is repeated after its first copy: three copies survive 50 % loss seven times of eight.
pub const BYE_REPEATS: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];
