use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use yodel::audio::OpusCodec;
use yodel_media::{Codec, FRAME_SAMPLES};

/// Through Opus, losing the packets that `lost` names, behind `delay` samples of silence.
fn through_opus(sent: &[f32], delay: usize, fec: bool, lost: impl Fn(usize) -> bool) -> Vec<f32> {
    let mut codec = OpusCodec::new().unwrap();
    codec.set_loss(if fec { 10 } else { 0 });
    let mut out = vec![0.0; delay];
    let mut packets = Vec::new();
    for frame in sent.chunks_exact(FRAME_SAMPLES) {
        let mut packet = [0; 1_000];
        let length = codec.encode(frame.try_into().unwrap(), &mut packet).unwrap();
        packets.push(packet[..length].to_vec());
    }
    let mut pcm = [0.0; FRAME_SAMPLES];
    for (n, packet) in packets.iter().enumerate() {
        match packets.get(n + 1).filter(|_| fec && !lost(n + 1)) {
            _ if !lost(n) => codec.decode(Some(packet), false, &mut pcm).unwrap(),
            Some(after) => codec.decode(Some(after), true, &mut pcm).unwrap(),
            None => codec.decode(None, false, &mut pcm).unwrap(),
        }
        out.extend_from_slice(&pcm);
    }
    out
}

/// What espeak-ng says, or nothing where it is not installed.
fn espeak(text: &str) -> Option<Vec<f32>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("yodel-say-{}-{number}.wav", std::process::id()));
    let status = Command::new("espeak-ng").arg("-w").arg(&path).arg(text).status().ok()?;
    let samples = status.success().then(|| load(&path).unwrap());
    let _ = std::fs::remove_file(&path);
    samples
}

const GREETING: &str =
    "Hello Bob, this is Alice. The weather on the lake is fine today, and the ferry leaves at seven.";
const OTHER: &str =
    "Please call the harbour office, they said nobody had signed for six boxes of fresh fish.";

fn voices() -> Vec<(&'static str, Vec<f32>, Vec<f32>)> {
    let mut all = vec![("synthetic", synthetic_speech(1, 4), synthetic_speech(99, 4))];
    if let (Some(a), Some(b)) = (espeak(GREETING), espeak(OTHER)) {
        all.push(("espeak", a, b));
    }
    all
}

#[test]
fn opus_is_heard_wholly_and_its_delay_is_told() {
    for (name, said, _) in voices() {
        for delay in [0usize, 33_333] {
            let result = compare(&said, &through_opus(&said, delay, false, |_| false));
            assert!(result.share >= 0.99, "{name}: {result:?}");
            assert!(result.frames > 80, "{name}: {result:?}");
            // Opus itself looks 6.5 ms ahead.
            let want = delay as f64 / 48.0 + 6.5;
            assert!((result.delay_ms - want).abs() < 2.0, "{name}: {result:?}, wanted {want}");
            assert!(result.level_db.abs() < 2.0, "{name}: {result:?}");
        }
    }
}

#[test]
fn silence_noise_and_other_words_are_not_heard() {
    for (name, said, other) in voices() {
        let mut state = 5;
        let noise: Vec<f32> = said.iter().map(|_| 0.2 * random(&mut state)).collect();
        let tone: Vec<f32> = (0..said.len()).map(|n| 0.3 * (n as f32 * 0.0576).sin()).collect();
        let mut backwards = said.clone();
        backwards.reverse();
        let cases = [
            ("silence", vec![0.0; said.len()], 0.0),
            ("nothing", Vec::new(), 0.0),
            ("noise", noise, 0.02),
            ("a tone", tone, 0.1),
            ("the same backwards", backwards, 0.25),
            ("other words", through_opus(&other, 0, false, |_| false), 0.25),
        ];
        for (what, recording, most) in cases {
            let result = compare(&said, &recording);
            assert!(result.share <= most, "{name}, {what}: {result:?}");
        }
    }
}

#[test]
fn drop_outs_are_counted() {
    for (name, said, _) in voices() {
        let whole = through_opus(&said, 960, false, |_| false);
        let mut holed = whole.clone();
        for (n, sample) in holed.iter_mut().enumerate() {
            // 200 ms of every second.
            if n % 48_000 >= 38_400 {
                *sample = 0.0;
            }
        }
        let result = compare(&said, &holed);
        assert!((0.65..0.93).contains(&result.share), "{name}: {result:?}");
        assert!((100..=260).contains(&result.longest_gap_ms), "{name}: {result:?}");

        let half = &whole[..whole.len() / 2];
        let result = compare(&said, half);
        assert!((0.3..0.7).contains(&result.share), "{name}: {result:?}");
    }
}

#[test]
fn loss_that_was_repaired_is_heard() {
    for (name, said, _) in voices() {
        let repaired = compare(&said, &through_opus(&said, 4_800, true, |n| n % 20 == 13));
        assert!(repaired.share >= 0.97, "{name}: {repaired:?}");
    }
}

#[test]
fn a_delay_that_moves_is_followed() {
    for (name, said, _) in voices() {
        let whole = through_opus(&said, 2_400, false, |_| false);
        // A frame more of delay after a second and a half, two less after three.
        let mut moved = whole[..72_000].to_vec();
        moved.extend_from_slice(&[0.0; 960]);
        moved.extend_from_slice(&whole[72_000..144_000]);
        moved.extend_from_slice(&whole[144_000 + 1_920..]);
        let result = compare(&said, &moved);
        assert!(result.share >= 0.96, "{name}: {result:?}");
        let [least, most] = result.delay_range_ms;
        assert!((35.0..=45.0).contains(&(most - least)), "{name}: {result:?}");
    }
}

#[test]
fn speech_that_began_before_the_recording_is_aligned() {
    for (name, said, _) in voices() {
        let whole = through_opus(&said, 0, false, |_| false);
        let result = compare(&said, &whole[24_000..]);
        assert!((result.delay_ms + 493.5).abs() < 2.0, "{name}: {result:?}");
        assert!(result.share > 0.8, "{name}: {result:?}");
    }
}
