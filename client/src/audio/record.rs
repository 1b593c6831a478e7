//! `--record FILE`: both voices of a call in one file.

use std::path::Path;

use yodel_media::{AudioEnd, FRAME_SAMPLES};

use super::AudioError;
use super::wav::Recording;

/// An audio end, and a recording of what it says and hears, mixed: 48 kHz mono 16-bit, from answer to end.
pub struct Recorded {
    end: Box<dyn AudioEnd>,
    recording: Recording,
    said: [f32; FRAME_SAMPLES],
}

impl Recorded {
    /// Records what `end` does into `file`.
    ///
    /// # Errors
    /// `File` when it cannot be written.
    pub fn new(end: Box<dyn AudioEnd>, file: &Path) -> Result<Recorded, AudioError> {
        Ok(Recorded { end, recording: Recording::create(file)?, said: [0.0; FRAME_SAMPLES] })
    }
}

impl AudioEnd for Recorded {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        self.end.capture(pcm);
        self.said = *pcm;
    }

    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], heard: bool) {
        for (said, heard) in self.said.iter_mut().zip(pcm) {
            *said += heard;
        }
        self.recording.frame(&self.said);
        self.said = [0.0; FRAME_SAMPLES];
        self.end.play(pcm, heard);
    }

    fn mic_silent(&self) -> bool {
        self.end.mic_silent()
    }

    fn finish(&mut self) {
        self.end.finish();
        self.recording.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::null::Null;
    use crate::audio::tone::Tone;

    #[test]
    fn both_voices_are_in_it() {
        let path = std::env::temp_dir().join(format!("yodel-both-{}.wav", std::process::id()));
        for (end, least) in [(Box::new(Tone::new(440.0)) as Box<dyn AudioEnd>, 0.4), (Box::new(Null), 0.24)] {
            let mut recorded = Recorded::new(end, &path).unwrap();
            let mut pcm = [0.0; FRAME_SAMPLES];
            for _ in 0..10 {
                recorded.capture(&mut pcm);
                recorded.play(&[0.25; FRAME_SAMPLES], true);
            }
            recorded.finish();
            let samples: Vec<i16> =
                hound::WavReader::open(&path).unwrap().into_samples().map(Result::unwrap).collect();
            assert_eq!(samples.len(), 10 * FRAME_SAMPLES);
            assert!(f32::from(*samples.iter().max().unwrap()) / 32_767.0 > least);
        }
        let _ = std::fs::remove_file(&path);
    }
}
