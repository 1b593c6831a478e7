//! A conversation in files: says one, writes the other.

use std::path::Path;

use yodel_media::{AudioEnd, FRAME_SAMPLES};

use super::AudioError;
use super::wav::{Next, Recording, Source};

/// Peak below which a file is digital silence: one step of 16 bits.
const SILENT_PEAK: f32 = 1.0 / 32_768.0;

/// A file that was silent from its start for this long stands for a dead microphone, frames (3 s: speech may begin
/// with a pause).
const SILENT_FRAMES: u32 = 150;

/// Says `IN` once, then nothing; writes `OUT` from the first tick to the end in real time.
#[derive(Debug)]
pub struct FileEnd {
    source: Option<Source>,
    recording: Option<Recording>,
    silent_frames: u32,
    sounded: bool,
}

impl FileEnd {
    /// Opens both files. Without `input` nothing is said, without `output` nothing is written.
    ///
    /// # Errors
    /// `File`.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<FileEnd, AudioError> {
        Ok(FileEnd {
            source: input.map(Source::open).transpose()?,
            recording: output.map(Recording::create).transpose()?,
            silent_frames: 0,
            sounded: false,
        })
    }
}

impl AudioEnd for FileEnd {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        pcm.fill(0.0);
        match self.source.as_mut().map(Source::next_frame) {
            Some(Next::Frame(frame)) => {
                *pcm = *frame;
                if frame.iter().any(|sample| sample.abs() > SILENT_PEAK) {
                    self.sounded = true;
                } else {
                    self.silent_frames = self.silent_frames.saturating_add(1);
                }
            }
            Some(Next::End) => self.source = None,
            Some(Next::Late) | None => {}
        }
    }

    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], _heard: bool) {
        if let Some(recording) = &mut self.recording {
            recording.frame(pcm);
        }
    }

    /// A file in which nothing sounded for three seconds, or to its end, plays the part of a dead microphone.
    fn mic_silent(&self) -> bool {
        let needed = if self.source.is_some() { SILENT_FRAMES } else { 1 };
        !self.sounded && self.silent_frames >= needed
    }

    fn finish(&mut self) {
        self.source = None;
        if let Some(recording) = &mut self.recording {
            recording.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yodel_media::Codec as _;
    use yodel_media::NarrowCodec;

    #[test]
    fn says_its_file_once_and_records_in_real_time() {
        let dir = std::env::temp_dir().join(format!("yodel-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (loud, silent, out) = (dir.join("loud.wav"), dir.join("silent.wav"), dir.join("out.wav"));
        for (path, level) in [(&loud, 0.25f32), (&silent, 0.0)] {
            let mut recording = Recording::create(path).unwrap();
            for _ in 0..10 {
                recording.frame(&[level; FRAME_SAMPLES]);
            }
        }
        let mut end = FileEnd::open(Some(&loud), Some(&out)).unwrap();
        let mut codec = NarrowCodec::new();
        let (mut pcm, mut packet, mut said) = ([0.0; FRAME_SAMPLES], [0; 200], 0);
        let mut late = 0;
        while said < 10 {
            end.capture(&mut pcm);
            let length = codec.encode(&pcm, &mut packet).unwrap();
            assert_eq!(length, 80);
            if pcm.iter().all(|s| (s - 0.25).abs() < 0.001) {
                said += 1
            } else {
                late += 1
            }
            end.play(&pcm, true);
        }
        end.capture(&mut pcm);
        assert_eq!(pcm, [0.0; FRAME_SAMPLES]);
        assert!(!end.mic_silent());
        end.finish();
        assert_eq!(hound::WavReader::open(&out).unwrap().duration(), (10 + late) * 960);

        let mut end = FileEnd::open(Some(&silent), None).unwrap();
        for _ in 0..100_000 {
            end.capture(&mut pcm);
            std::thread::yield_now();
            if end.mic_silent() {
                return;
            }
        }
        panic!("a file of silence has a silent microphone");
    }
}
