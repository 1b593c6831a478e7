//! Plays what the jitter buffer gives: decodes, conceals, and merges frames where delay is taken back.

use yodel_wire::time::Instant;

use crate::ends::{Codec, FRAME_SAMPLES};
use crate::jitter::{JitterBuffer, Playout};
use crate::limits::CONCEAL_FRAMES_MAX;

/// Peak below which a frame counts as a pause (−46 dBFS).
const SILENT_PEAK: f32 = 0.005;

#[derive(Debug, Default)]
pub(crate) struct Player {
    pub(crate) jitter: JitterBuffer,
    pub(crate) concealed: u64,
    conceal_run: u32,
}

impl Player {
    /// Fills the frame of the tick at `at`; whether it was received.
    pub(crate) fn tick(
        &mut self,
        at: Instant,
        codec: &mut dyn Codec,
        pcm: &mut [f32; FRAME_SAMPLES],
    ) -> bool {
        match self.jitter.pop(at) {
            Playout::Idle => {
                pcm.fill(0.0);
                false
            }
            Playout::Frame(frame) => {
                self.conceal_run = 0;
                let heard = decode(codec, Some(&frame), false, pcm);
                let silent = is_silent(pcm);
                if let Some(more) = self.jitter.pop_surplus(at, silent) {
                    let mut behind = [0.0; FRAME_SAMPLES];
                    decode(codec, Some(&more), false, &mut behind);
                    merge(pcm, &behind);
                }
                heard
            }
            Playout::Recover(after) => {
                self.concealed += 1;
                self.conceal_run = 0;
                decode(codec, Some(&after), true, pcm)
            }
            Playout::Conceal | Playout::Wait => {
                self.concealed += 1;
                self.conceal_run = self.conceal_run.saturating_add(1);
                if self.conceal_run > CONCEAL_FRAMES_MAX {
                    pcm.fill(0.0);
                } else {
                    decode(codec, None, false, pcm);
                }
                false
            }
        }
    }
}

fn decode(codec: &mut dyn Codec, packet: Option<&[u8]>, fec: bool, pcm: &mut [f32; FRAME_SAMPLES]) -> bool {
    if codec.decode(packet, fec, pcm).is_err() {
        pcm.fill(0.0);
        return false;
    }
    packet.is_some()
}

fn is_silent(pcm: &[f32; FRAME_SAMPLES]) -> bool {
    pcm.iter().all(|sample| sample.abs() < SILENT_PEAK)
}

/// Two frames in the time of one: fades from the first into the second.
fn merge(first: &mut [f32; FRAME_SAMPLES], second: &[f32; FRAME_SAMPLES]) {
    for (at, (a, b)) in first.iter_mut().zip(second).enumerate() {
        let share = at as f32 / FRAME_SAMPLES as f32;
        *a = *a * (1.0 - share) + b * share;
    }
}
