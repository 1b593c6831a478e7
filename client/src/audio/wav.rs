//! Sound files: any WAV in, frame by frame at 48 kHz mono; 48 kHz mono 16-bit out. Both by a thread of their own behind
//! a bounded queue, so that the audio tick never waits for a disk.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use yodel_media::FRAME_SAMPLES;

use super::AudioError;
use super::limits::{
    CHANNELS_MAX, FINISH_WAIT, HEADER_EVERY_FRAMES, RATE_MAX, RATE_MIN, READ_AHEAD_FRAMES,
    WRITE_BEHIND_FRAMES,
};
use super::resample::Resampler;

type Frame = Box<[f32; FRAME_SAMPLES]>;

/// What a [`Source`] has at this moment.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The next 20 ms.
    Frame(Frame),
    /// The disk is slow.
    Late,
    /// The file is over.
    End,
}

/// A sound file being read.
#[derive(Debug)]
pub struct Source {
    frames: Receiver<Frame>,
    first: Option<Frame>,
}

impl Source {
    /// Opens the file and reads its first frame.
    ///
    /// # Errors
    /// `File` when it cannot be read or is no WAV with 16-bit integer (also 8, 24, 32) or float samples.
    pub fn open(path: &Path) -> Result<Source, AudioError> {
        let reader = WavReader::open(path).map_err(|error| AudioError::file(path, error))?;
        let spec = reader.spec();
        if !(RATE_MIN..=RATE_MAX).contains(&spec.sample_rate)
            || !(1..=CHANNELS_MAX).contains(&spec.channels)
            || !(8..=32).contains(&spec.bits_per_sample)
        {
            return Err(AudioError::file(path, "unsupported rate, channels or sample size"));
        }
        let (queue, frames) = sync_channel(READ_AHEAD_FRAMES);
        thread::Builder::new()
            .name("audio-read".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                // The error of a closed queue means that the call is over.
                let _ = read(reader, spec, &queue);
            })
            .map_err(|error| AudioError::file(path, error))?;
        let first = frames.recv().ok();
        Ok(Source { frames, first })
    }

    /// Takes the next frame, without waiting.
    pub fn next_frame(&mut self) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Frame(first);
        }
        match self.frames.try_recv() {
            Ok(frame) => Next::Frame(frame),
            Err(TryRecvError::Empty) => Next::Late,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }
}

/// Reads to the end or the first bad sample; `None` when nobody listens any more.
fn read(reader: WavReader<BufReader<File>>, spec: WavSpec, queue: &SyncSender<Frame>) -> Option<()> {
    let mut resampler = Resampler::new(spec.sample_rate);
    let channels = usize::from(spec.channels);
    let mut samples: Box<dyn Iterator<Item = f32>> = match spec.sample_format {
        SampleFormat::Float => Box::new(reader.into_samples::<f32>().map_while(Result::ok)),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample - 1)) as f32;
            Box::new(reader.into_samples::<i32>().map_while(Result::ok).map(move |s| s as f32 * scale))
        }
    };
    let mut mono = Vec::with_capacity(FRAME_SAMPLES);
    let mut ready = Vec::new();
    loop {
        mono.clear();
        while mono.len() < FRAME_SAMPLES {
            let mut sum = 0.0;
            let got = (0..channels).filter(|_| samples.next().map(|s| sum += s).is_some()).count();
            if got < channels {
                break;
            }
            let mean = sum / channels as f32;
            mono.push(if mean.is_finite() { mean.clamp(-1.0, 1.0) } else { 0.0 });
        }
        let ended = mono.len() < FRAME_SAMPLES;
        resampler.push(&mono, &mut ready);
        if ended {
            resampler.finish(&mut ready);
            ready.resize(ready.len().next_multiple_of(FRAME_SAMPLES), 0.0);
        }
        let whole = ready.len() - ready.len() % FRAME_SAMPLES;
        for frame in ready.get(..whole).unwrap_or_default().chunks_exact(FRAME_SAMPLES) {
            queue.send(Box::new(<[f32; FRAME_SAMPLES]>::try_from(frame).ok()?)).ok()?;
        }
        ready.drain(..whole);
        if ended {
            return Some(());
        }
    }
}

/// A recording being written: valid on disk at any moment, at most half a second behind.
#[derive(Debug)]
pub struct Recording {
    queue: Option<SyncSender<Written>>,
    done: Receiver<()>,
    missed: u32,
}

struct Written {
    /// Frames of silence in front, for those that found no room.
    silence: u32,
    pcm: Box<[i16]>,
}

impl Recording {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// `File` when it cannot be written.
    pub fn create(path: &Path) -> Result<Recording, AudioError> {
        let spec = WavSpec {
            channels: 1,
            sample_rate: 48_000,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut writer = WavWriter::create(path, spec).map_err(|error| AudioError::file(path, error))?;
        writer.flush().map_err(|error| AudioError::file(path, error))?;
        let (queue, frames) = sync_channel(WRITE_BEHIND_FRAMES);
        let (finished, done) = sync_channel(1);
        thread::Builder::new()
            .name("audio-write".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                // A full disk ends the recording; its header is that of the last flush.
                let _ = write(writer, &frames);
                let _ = finished.try_send(());
            })
            .map_err(|error| AudioError::file(path, error))?;
        Ok(Recording { queue: Some(queue), done, missed: 0 })
    }

    /// Takes the next frame, without waiting. When there is no room it becomes silence of the same length.
    pub fn frame(&mut self, pcm: &[f32; FRAME_SAMPLES]) {
        let Some(queue) = &self.queue else { return };
        let pcm = pcm.iter().map(|s| (s.clamp(-1.0, 1.0) * 32_767.0).round() as i16).collect();
        match queue.try_send(Written { silence: self.missed, pcm }) {
            Ok(()) => self.missed = 0,
            Err(TrySendError::Full(_)) => self.missed = self.missed.saturating_add(1),
            Err(TrySendError::Disconnected(_)) => self.queue = None,
        }
    }

    /// Completes the file; waits for a slow disk no longer than [`FINISH_WAIT`].
    pub fn finish(&mut self) {
        if self.queue.take().is_some() {
            match self.done.recv_timeout(FINISH_WAIT) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish();
    }
}

fn write(mut writer: WavWriter<BufWriter<File>>, frames: &Receiver<Written>) -> hound::Result<()> {
    let mut since_header = 0;
    while let Ok(Written { silence, pcm }) = frames.recv() {
        for _ in 0..u64::from(silence) * FRAME_SAMPLES as u64 {
            writer.write_sample(0i16)?;
        }
        for sample in pcm {
            writer.write_sample(sample)?;
        }
        since_header += 1;
        if since_header >= HEADER_EVERY_FRAMES {
            since_header = 0;
            writer.flush()?;
        }
    }
    writer.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("yodel-wav-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("sound.wav")
    }

    fn all(path: &Path) -> Vec<f32> {
        let mut source = Source::open(path).unwrap();
        let mut samples = Vec::new();
        loop {
            match source.next_frame() {
                Next::Frame(frame) => samples.extend_from_slice(&frame[..]),
                Next::Late => thread::yield_now(),
                Next::End => return samples,
            }
        }
    }

    fn sine(n: usize, rate: u32) -> f32 {
        0.5 * (n as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin()
    }

    #[test]
    fn reads_every_common_kind_alike() {
        let kinds = [
            (48_000, 1, 16, SampleFormat::Int),
            (48_000, 2, 16, SampleFormat::Int),
            (44_100, 1, 24, SampleFormat::Int),
            (22_050, 1, 16, SampleFormat::Int),
            (16_000, 2, 32, SampleFormat::Float),
            (8_000, 1, 8, SampleFormat::Int),
            (48_000, 1, 32, SampleFormat::Int),
        ];
        for (sample_rate, channels, bits_per_sample, sample_format) in kinds {
            let path = scratch(&format!("{sample_rate}-{channels}-{bits_per_sample}"));
            let spec = WavSpec { channels, sample_rate, bits_per_sample, sample_format };
            let mut writer = WavWriter::create(&path, spec).unwrap();
            for n in 0..sample_rate as usize {
                for _ in 0..channels {
                    let sample = sine(n, sample_rate);
                    match sample_format {
                        SampleFormat::Float => writer.write_sample(sample).unwrap(),
                        SampleFormat::Int => {
                            let full = (1i64 << (bits_per_sample - 1)) as f32 - 1.0;
                            writer.write_sample((sample * full) as i32).unwrap();
                        }
                    }
                }
            }
            writer.finalize().unwrap();
            let samples = all(&path);
            assert_eq!(samples.len(), 48_000, "{spec:?}");
            let worst = (1_000..47_000).map(|n| (samples[n] - sine(n, 48_000)).abs()).fold(0.0, f32::max);
            assert!(worst < 0.02, "{spec:?}: {worst}");
        }
    }

    #[test]
    fn what_is_no_sound_is_an_error() {
        let path = scratch("broken");
        assert!(Source::open(&path.with_file_name("absent.wav")).is_err());
        std::fs::write(&path, b"RIFF nothing").unwrap();
        assert!(Source::open(&path).is_err());
        assert!(Recording::create(Path::new("/nonexistent/folder/out.wav")).is_err());
    }

    #[test]
    fn an_empty_file_ends_at_once() {
        let path = scratch("empty");
        drop(Recording::create(&path).unwrap());
        assert_eq!(all(&path).len(), 0);
    }

    #[test]
    fn a_recording_is_valid_while_it_runs_and_complete_when_it_ends() {
        let path = scratch("recording");
        let mut recording = Recording::create(&path).unwrap();
        assert_eq!(WavReader::open(&path).unwrap().duration(), 0);
        for n in 0..100 {
            recording.frame(&[n as f32 / 200.0; FRAME_SAMPLES]);
        }
        // The thread writes them in its own time.
        let mut seen = 0;
        while seen < 75 * FRAME_SAMPLES as u32 {
            seen = WavReader::open(&path).unwrap().duration();
            thread::yield_now();
        }
        recording.finish();
        let samples = all(&path);
        assert_eq!(samples.len(), 100 * FRAME_SAMPLES);
        assert!((samples[99 * FRAME_SAMPLES] - 0.495).abs() < 0.001);
    }
}
