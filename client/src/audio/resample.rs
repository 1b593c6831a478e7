//! Brings any sampling rate to 48 kHz: windowed-sinc interpolation, streaming.

use std::f64::consts::PI;

const RATE: f64 = 48_000.0;

/// Zero crossings on each side of the kernel: −80 dB beyond the transition band.
const CROSSINGS: usize = 24;

/// Kernel values per crossing; between them it is interpolated.
const STEPS: usize = 256;

/// A resampler for one stream.
#[derive(Debug)]
pub struct Resampler {
    /// Input samples per output sample.
    ratio: f64,
    /// Below 1 when the input has frequencies that 48 kHz cannot hold.
    cutoff: f64,
    kernel: Vec<f32>,
    input: Vec<f32>,
    /// Input sample number of `input[0]`.
    start: u64,
    /// Number of the next output sample.
    next: u64,
    through: bool,
}

impl Resampler {
    /// From `rate` Hz, which is not 0.
    pub fn new(rate: u32) -> Resampler {
        let ratio = f64::from(rate) / RATE;
        let kernel = (0..=CROSSINGS * STEPS + 1)
            .map(|step| {
                let x = step as f64 / STEPS as f64;
                let at = (x / CROSSINGS as f64).min(1.0);
                // Blackman window.
                let window = 0.42 + 0.5 * (PI * at).cos() + 0.08 * (2.0 * PI * at).cos();
                let sinc = if step == 0 { 1.0 } else { (PI * x).sin() / (PI * x) };
                (sinc * window) as f32
            })
            .collect();
        Resampler {
            ratio,
            cutoff: (1.0 / ratio).min(1.0) * if rate == 48_000 { 1.0 } else { 0.96 },
            kernel,
            input: Vec::new(),
            start: 0,
            next: 0,
            through: rate == 48_000,
        }
    }

    /// Takes input and appends what it makes to `output`.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        if self.through {
            output.extend_from_slice(input);
            return;
        }
        self.input.extend_from_slice(input);
        let half = CROSSINGS as f64 / self.cutoff;
        let end = (self.start + self.input.len() as u64) as f64;
        loop {
            let centre = self.next as f64 * self.ratio;
            if centre + half >= end {
                break;
            }
            output.push(self.at(centre, half));
            self.next += 1;
        }
        let needed = (self.next as f64 * self.ratio - half).max(0.0) as u64;
        let done = usize::try_from(needed.saturating_sub(self.start)).unwrap_or(0).min(self.input.len());
        self.input.drain(..done);
        self.start += done as u64;
    }

    /// Appends the rest: the input ended.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        if self.through {
            return;
        }
        let end = (self.start + self.input.len() as u64) as f64;
        let half = CROSSINGS as f64 / self.cutoff;
        while (self.next as f64) * self.ratio < end {
            output.push(self.at(self.next as f64 * self.ratio, half));
            self.next += 1;
        }
        self.input.clear();
    }

    fn at(&self, centre: f64, half: f64) -> f32 {
        let first = ((centre - half).ceil().max(self.start as f64)) as u64;
        let skip = usize::try_from(first - self.start).unwrap_or(0);
        let mut sum = 0.0f64;
        for (number, sample) in (first..).zip(self.input.iter().skip(skip)) {
            let x = (number as f64 - centre).abs() * self.cutoff * STEPS as f64;
            if number as f64 > centre + half {
                break;
            }
            let step = x as usize;
            let (Some(a), Some(b)) = (self.kernel.get(step), self.kernel.get(step + 1)) else { continue };
            let weight = a + (b - a) * (x - step as f64) as f32;
            sum += f64::from(sample * weight);
        }
        (sum * self.cutoff) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<f32> {
        (0..(f64::from(rate) * seconds) as usize)
            .map(|n| (2.0 * PI * hertz * n as f64 / f64::from(rate)).sin() as f32)
            .collect()
    }

    fn convert(rate: u32, input: &[f32]) -> Vec<f32> {
        let mut resampler = Resampler::new(rate);
        let mut output = Vec::new();
        for chunk in input.chunks(777) {
            resampler.push(chunk, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    #[test]
    fn every_rate_keeps_time_and_tone() {
        for rate in [8_000, 11_025, 12_345, 16_000, 22_050, 44_100, 47_999, 48_000, 96_000, 192_000] {
            let output = convert(rate, &tone(rate, 1_000.0, 0.5));
            assert!(output.len().abs_diff(24_000) <= 4, "{rate}: {}", output.len());
            let want = tone(48_000, 1_000.0, 0.5);
            let worst = output[2_000..22_000]
                .iter()
                .zip(&want[2_000..])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 0.01, "{rate}: off by {worst}");
        }
    }

    #[test]
    fn what_48_khz_cannot_hold_does_not_fold_back() {
        let output = convert(96_000, &tone(96_000, 30_000.0, 0.2));
        let peak = output[1_000..8_000].iter().fold(0.0f32, |p, s| p.max(s.abs()));
        assert!(peak < 0.01, "{peak}");
    }

    #[test]
    fn chunks_do_not_matter() {
        let input = tone(22_050, 700.0, 0.3);
        let whole = convert(22_050, &input);
        let mut resampler = Resampler::new(22_050);
        let mut single = Vec::new();
        for sample in &input {
            resampler.push(std::slice::from_ref(sample), &mut single);
        }
        resampler.finish(&mut single);
        assert_eq!(whole, single);
    }
}
