//! A steady tone, for listening to a path.

use std::f32::consts::TAU;

use yodel_media::{AudioEnd, FRAME_SAMPLES};

/// Loud enough to hear, far from clipping (−14 dBFS peak).
const AMPLITUDE: f32 = 0.2;

/// Sends a sine wave, drops what it hears.
#[derive(Debug)]
pub struct Tone {
    step: f32,
    phase: f32,
}

impl Tone {
    /// A tone of `hertz`, which must lie below 24,000.
    pub fn new(hertz: f32) -> Tone {
        Tone { step: hertz / 48_000.0, phase: 0.0 }
    }
}

impl AudioEnd for Tone {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        for sample in pcm {
            *sample = AMPLITUDE * (TAU * self.phase).sin();
            self.phase = (self.phase + self.step).fract();
        }
    }

    fn play(&mut self, _pcm: &[f32; FRAME_SAMPLES], _heard: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_its_frequency_and_no_seam_between_frames() {
        let mut tone = Tone::new(440.0);
        let mut pcm = [0.0; FRAME_SAMPLES];
        let mut samples = Vec::new();
        for _ in 0..50 {
            tone.capture(&mut pcm);
            samples.extend_from_slice(&pcm);
        }
        let crossings = samples.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
        assert!((439..=441).contains(&crossings), "{crossings}");
        let steepest = samples.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(steepest < AMPLITUDE * TAU * 440.0 / 48_000.0 * 1.01);
    }
}
