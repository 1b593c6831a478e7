//! Says nothing and hears nothing.

use yodel_media::{AudioEnd, FRAME_SAMPLES};

/// Sends silence, drops what it hears. Not a microphone, so never a silent one.
#[derive(Debug, Default)]
pub struct Null;

impl AudioEnd for Null {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        pcm.fill(0.0);
    }

    fn play(&mut self, _pcm: &[f32; FRAME_SAMPLES], _heard: bool) {}
}
