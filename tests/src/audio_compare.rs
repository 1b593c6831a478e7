//! Was it heard? Compares what one side said with what the other recorded, by content.
//!
//! 1. Both are brought to 8 kHz, the band where speech lives and where a speech codec keeps the waveform.
//! 2. Their loudness curves (10 ms) are slid over each other: the best fit is the delay to within a frame or so.
//! 3. Around it, each 320 ms of sound looks for the shift at which the waveforms correlate best; a jitter buffer that
//!    grew or shrank meanwhile only moves it.
//! 4. A 20 ms frame that lies wholly inside sound was heard when, at a shift found for it or a neighbour, the recording
//!    has its loudness and its waveform, or its spectrum within a stretch whose waveform fits.
//!
//! Silence lacks loudness, noise lacks both, and another recording lacks the waveform at any one shift, even when the
//! same voice speaks; the tests show it.

use std::path::Path;

use hound::{SampleFormat, WavReader};
use yodel::audio::resample::Resampler;

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Share of the frames wholly inside sound that were heard, 0–1; 0 when there are none.
    pub share: f64,
    /// Frames of 20 ms wholly inside sound that were sent.
    pub frames: usize,
    /// How many of them were heard.
    pub heard: usize,
    /// From the beginning of what was sent to its beginning in the recording: the median over what was heard, ms.
    /// Negative when the recording began later than the speech.
    pub delay_ms: f64,
    /// Smallest and largest shift among what was heard, ms: how much the delay moved.
    pub delay_range_ms: [f64; 2],
    /// Longest stretch of sound in a row that was not heard, ms.
    pub longest_gap_ms: u64,
    /// Loudness of what was heard relative to what was sent, dB.
    pub level_db: f64,
}

/// Samples per second on which everything is compared.
const RATE: usize = 8_000;
/// Samples in 20 ms.
const FRAME: usize = RATE / 50;
/// Samples in 5 ms, in each of which a frame wholly inside sound sounds.
const BLOCK: usize = RATE / 200;
/// Samples in 10 ms, a step of the loudness curve.
const STEP: usize = RATE / 100;
/// Samples over which a shift is looked for (320 ms).
const STRETCH: usize = 16 * FRAME;
/// How far from the overall shift one is looked for (500 ms): more than a jitter buffer moves.
const SEARCH: i64 = (RATE / 2) as i64;
/// Below the loud parts by this factor (−34 dB in amplitude) is no sound.
const QUIET: f32 = 0.02;
/// A waveform that correlates this well is the same one.
const SAME_WAVE: f32 = 0.6;
/// A stretch that correlates this well is the same recording.
const SAME_STRETCH: f32 = 0.5;
/// A spectrum this similar is the same sound, in a stretch that is the same recording.
const SAME_SPECTRUM: f32 = 0.8;
/// Quieter than sent by more than this factor (−14 dB) is not heard.
const AUDIBLE: f32 = 0.2;

/// Compares two sound files, of any rate.
///
/// # Errors
/// Text for people, when one cannot be read.
pub fn compare_files(sent: &Path, received: &Path) -> Result<Comparison, String> {
    Ok(compare(&load(sent)?, &load(received)?))
}

/// A sound file as 48 kHz mono.
///
/// # Errors
/// Text for people.
pub fn load(path: &Path) -> Result<Vec<f32>, String> {
    let fail = |error: hound::Error| format!("{}: {error}", path.display());
    let mut reader = WavReader::open(path).map_err(fail)?;
    let spec = reader.spec();
    let samples: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>().map_err(fail)?,
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample - 1)) as f32;
            let integers: Vec<i32> = reader.samples().collect::<Result<_, _>>().map_err(fail)?;
            integers.into_iter().map(|s| s as f32 * scale).collect()
        }
    };
    let channels = usize::from(spec.channels.max(1));
    let mono: Vec<f32> =
        samples.chunks_exact(channels).map(|c| c.iter().sum::<f32>() / channels as f32).collect();
    let mut resampler = Resampler::new(spec.sample_rate);
    let mut output = Vec::new();
    resampler.push(&mono, &mut output);
    resampler.finish(&mut output);
    Ok(output)
}

/// Compares two sounds at 48 kHz.
pub fn compare(sent: &[f32], received: &[f32]) -> Comparison {
    let sent = narrow(sent);
    let received = narrow(received);
    let frames = sounding(&sent);
    let overall = overall_shift(&sent, &received);
    let shifts = stretch_shifts(&sent, &received, &frames, overall);

    let mut heard = Vec::new();
    let mut gap = (0u64, 0u64);
    let mut levels = (0.0f64, 0.0f64);
    let spectrum = Spectrum::new();
    for &frame in &frames {
        let found = candidates(&shifts, frame)
            .find(|(shift, stretch)| frame_matches(&sent, &received, frame, *shift, *stretch, &spectrum));
        match found {
            Some((shift, _)) => {
                gap.0 = 0;
                heard.push(shift);
                let start = (frame * FRAME) as i64;
                levels.0 += energy(&slice(&sent, start, FRAME));
                levels.1 += energy(&slice(&received, start + shift, FRAME));
            }
            None => {
                gap.0 += 20;
                gap.1 = gap.1.max(gap.0);
            }
        }
    }
    heard.sort_unstable();
    let ms = |shift: Option<&i64>| shift.map_or(0.0, |s| *s as f64 * 1_000.0 / RATE as f64);
    Comparison {
        share: if frames.is_empty() { 0.0 } else { heard.len() as f64 / frames.len() as f64 },
        frames: frames.len(),
        heard: heard.len(),
        delay_ms: ms(heard.get(heard.len() / 2)),
        delay_range_ms: [ms(heard.first()), ms(heard.last())],
        longest_gap_ms: gap.1,
        level_db: if levels.0 > 0.0 && levels.1 > 0.0 { 10.0 * (levels.1 / levels.0).log10() } else { 0.0 },
    }
}

/// 48 kHz to 8 kHz, keeping what is below 3.6 kHz.
fn narrow(samples: &[f32]) -> Vec<f32> {
    const HALF: i64 = 72;
    let taps: Vec<f32> = (-HALF..=HALF)
        .map(|n| {
            let x = n as f32 * 3_600.0 / 24_000.0;
            let sinc =
                if n == 0 { 1.0 } else { (x * std::f32::consts::PI).sin() / (x * std::f32::consts::PI) };
            let window = 0.5 + 0.5 * (std::f32::consts::PI * n as f32 / HALF as f32).cos();
            sinc * window * 0.15
        })
        .collect();
    (0..samples.len() / 6)
        .map(|n| {
            let centre = (n * 6) as i64;
            let first = (centre - HALF).max(0);
            let skip = (first - (centre - HALF)) as usize;
            samples[first as usize..].iter().zip(&taps[skip..]).map(|(s, t)| s * t).sum()
        })
        .collect()
}

fn energy(samples: &[f32]) -> f64 {
    samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum()
}

fn rms(samples: &[f32]) -> f32 {
    (energy(samples) / samples.len().max(1) as f64).sqrt() as f32
}

/// `length` samples from `start` on; outside there is silence.
fn slice(samples: &[f32], start: i64, length: usize) -> Vec<f32> {
    let mut out = vec![0.0; length];
    let skip = (-start).clamp(0, length as i64) as usize;
    let from = (start.max(0) as usize).min(samples.len());
    let to = ((start + length as i64).max(0) as usize).min(samples.len());
    if to > from {
        out[skip..skip + (to - from)].copy_from_slice(&samples[from..to]);
    }
    out
}

/// The frames of which every 5 ms sound.
fn sounding(sent: &[f32]) -> Vec<usize> {
    let mut loudness: Vec<f32> = sent.chunks_exact(FRAME).map(rms).collect();
    loudness.sort_by(f32::total_cmp);
    let loud = loudness.get(loudness.len() * 95 / 100).copied().unwrap_or(0.0);
    let floor = (loud * QUIET).max(0.0005);
    sent.chunks_exact(FRAME)
        .enumerate()
        .filter(|(_, frame)| frame.chunks_exact(BLOCK).all(|block| rms(block) > floor))
        .map(|(number, _)| number)
        .collect()
}

/// Loudness as the ear has it, every 10 ms, around its mean.
fn curve(samples: &[f32]) -> Vec<f32> {
    let loudness: Vec<f32> = samples.chunks_exact(STEP).map(|step| rms(step).powf(0.6)).collect();
    let mean = loudness.iter().sum::<f32>() / loudness.len().max(1) as f32;
    loudness.into_iter().map(|l| l - mean).collect()
}

/// Where the loudness curves fit best, in samples. At least a third of what was sent must lie in the recording.
fn overall_shift(sent: &[f32], received: &[f32]) -> i64 {
    let (sent, received) = (curve(sent), curve(received));
    let least = -(sent.len() as i64 * 2 / 3);
    let most = received.len() as i64 - sent.len() as i64 / 3;
    (least..=most.max(0))
        .map(|shift| {
            let skip = (-shift).max(0) as usize;
            let from = shift.max(0) as usize;
            let pairs = sent.iter().skip(skip).zip(received.iter().skip(from));
            (shift, pairs.map(|(a, b)| a * b).sum::<f32>())
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(shift, _)| shift * STEP as i64)
}

/// Normalised correlation of two waveforms, −1 to 1.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let (mut ab, mut aa, mut bb) = (0.0f32, 1e-9f32, 1e-9f32);
    for (a, b) in a.iter().zip(b) {
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / (aa.sqrt() * bb.sqrt())
}

/// A stretch of sound, by its first frame, the shift at which it fits best, and how well.
struct Stretch {
    first: usize,
    shift: i64,
    fit: f32,
}

/// Looks for the shift of each stretch that holds sound: first where the one before fitted, else everywhere.
fn stretch_shifts(sent: &[f32], received: &[f32], frames: &[usize], overall: i64) -> Vec<Stretch> {
    let mut shifts: Vec<Stretch> = Vec::new();
    let step = STRETCH / FRAME / 2;
    let mut firsts: Vec<usize> = frames.iter().map(|frame| frame / step * step).collect();
    firsts.dedup();
    for first in firsts {
        let start = (first * FRAME) as i64;
        let said = slice(sent, start, STRETCH);
        let fit = |shift: i64| correlation(&said, &slice(received, start + shift, STRETCH));
        let best = |range: &mut dyn Iterator<Item = i64>| {
            range.map(|shift| (shift, fit(shift))).max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let near = shifts.last().filter(|before| before.fit > 0.7).map(|before| before.shift);
        let mut found = near.and_then(|near| best(&mut (near - 8..=near + 8))).filter(|(_, fit)| *fit > 0.7);
        if found.is_none() {
            let heard = slice(received, start + overall - SEARCH, STRETCH + 2 * SEARCH as usize);
            let coarse = coarse_search(&said, &heard).map(|at| overall - SEARCH + at as i64);
            found = coarse.and_then(|at| best(&mut (at - 6..=at + 6)));
        }
        if let Some((shift, fit)) = found {
            shifts.push(Stretch { first, shift, fit });
        }
    }
    shifts
}

/// Where `said` fits best into `heard`, to within four samples: on every fourth sample of what is below 1 kHz.
fn coarse_search(said: &[f32], heard: &[f32]) -> Option<usize> {
    let thin = |samples: &[f32]| -> Vec<f32> {
        samples.chunks_exact(4).map(|four| four.iter().sum::<f32>() / 4.0).collect()
    };
    let (said, heard) = (thin(said), thin(heard));
    let mut loudness = energy(heard.get(..said.len())?);
    let mut best = None;
    for (at, window) in heard.windows(said.len()).enumerate() {
        let product: f32 = said.iter().zip(window).map(|(a, b)| a * b).sum();
        let fit = f64::from(product) / (loudness + 1e-6).sqrt();
        if best.is_none_or(|(_, before)| fit > before) {
            best = Some((at * 4, fit));
        }
        let next = heard.get(at + said.len()).copied().unwrap_or(0.0);
        loudness += f64::from(next * next - window[0] * window[0]);
    }
    best.map(|(at, _)| at)
}

/// The shifts worth trying for a frame: those of the stretches around it, the best fit first.
fn candidates(shifts: &[Stretch], frame: usize) -> impl Iterator<Item = (i64, f32)> {
    let reach = STRETCH / FRAME;
    let mut near: Vec<(i64, f32)> = shifts
        .iter()
        .filter(|s| s.first <= frame + reach && frame < s.first + 2 * reach && s.fit >= SAME_STRETCH)
        .map(|s| (s.shift, s.fit))
        .collect();
    near.sort_by(|a, b| b.1.total_cmp(&a.1));
    near.into_iter()
}

fn frame_matches(
    sent: &[f32],
    received: &[f32],
    frame: usize,
    shift: i64,
    stretch: f32,
    spectrum: &Spectrum,
) -> bool {
    let start = (frame * FRAME) as i64;
    let said = slice(sent, start, FRAME);
    let heard = slice(received, start + shift, FRAME);
    if rms(&heard) < rms(&said) * AUDIBLE {
        return false;
    }
    // Within a millisecond of the stretch's shift, over the frame and half of its neighbours.
    let wide = slice(sent, start - FRAME as i64 / 2, 2 * FRAME);
    let wave = (shift - 8..=shift + 8)
        .map(|at| correlation(&wide, &slice(received, start - FRAME as i64 / 2 + at, 2 * FRAME)))
        .fold(-1.0, f32::max);
    wave >= SAME_WAVE
        || (stretch >= SAME_STRETCH
            && correlation(&spectrum.bands(&said), &spectrum.bands(&heard)) >= SAME_SPECTRUM)
}

/// Loudness of a frame in bands of 250 Hz.
struct Spectrum {
    window: Vec<f32>,
}

impl Spectrum {
    const BANDS: usize = 14;

    fn new() -> Spectrum {
        let turn = std::f32::consts::TAU / FRAME as f32;
        Spectrum { window: (0..FRAME).map(|n| 0.5 - 0.5 * (turn * n as f32).cos()).collect() }
    }

    fn bands(&self, frame: &[f32]) -> [f32; Spectrum::BANDS] {
        let windowed: Vec<f32> = frame.iter().zip(&self.window).map(|(s, w)| s * w).collect();
        std::array::from_fn(|band| {
            // Five bins of 50 Hz each, by their definition: a frame has 160 samples.
            (0..5)
                .map(|bin| {
                    let turn = std::f32::consts::TAU * (band * 5 + bin + 2) as f32 / FRAME as f32;
                    let (mut re, mut im) = (0.0f32, 0.0f32);
                    for (n, sample) in windowed.iter().enumerate() {
                        let (sin, cos) = (turn * n as f32).sin_cos();
                        re += sample * cos;
                        im += sample * sin;
                    }
                    re * re + im * im
                })
                .sum::<f32>()
                .powf(0.3)
        })
    }
}

fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Something like speech: syllables of voiced harmonics under moving formants, hissing between, pauses. 48 kHz, the same for the same seed.
pub fn synthetic_speech(seed: u64, seconds: usize) -> Vec<f32> {
    let mut state = seed;
    let mut out = Vec::new();
    let mut phase = 0.0f32;
    while out.len() < seconds * 48_000 {
        let length = (7_000.0 + 4_000.0 * random(&mut state)) as usize;
        let kind = random(&mut state);
        let formants = [500.0 + 300.0 * random(&mut state), 1_600.0 + 700.0 * random(&mut state), 2_700.0];
        let pitch = 120.0 + 30.0 * random(&mut state);
        let mut before = 0.0;
        for n in 0..length {
            let shape = (std::f32::consts::PI * n as f32 / length as f32).sin();
            let sample = if kind < -0.6 {
                0.0
            } else if kind < -0.3 {
                let noise = random(&mut state);
                let hiss = noise - before;
                before = noise;
                0.04 * hiss
            } else {
                phase = (phase + pitch * (1.0 + 0.1 * shape) / 48_000.0).fract();
                (1..28)
                    .map(|h| {
                        let gain: f32 = formants
                            .iter()
                            .map(|f| 1.0 / (1.0 + ((pitch * h as f32 - f) / 120.0).powi(2)))
                            .sum();
                        0.12 * gain * (std::f32::consts::TAU * phase * h as f32).sin()
                    })
                    .sum()
            };
            out.push(shape * sample);
        }
    }
    out.truncate(seconds * 48_000);
    out
}

#[cfg(test)]
mod tests;
