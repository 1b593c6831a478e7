//! Speech through two real sessions with Opus and a network of numbers: what is heard, and how late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use yodel::audio::OpusCodec;
use yodel_media::{
    AudioEnd, Ends, FRAME_SAMPLES, MediaEvent, MediaKeys, Session, SessionConfig, SessionOutput, Stats,
};
use yodel_tests::audio_compare::{Comparison, compare, synthetic_speech};
use yodel_wire::time::{Instant, Now, UnixTime};

/// Says `said` once; keeps what it hears.
#[derive(Clone, Default)]
struct Memory {
    said: Arc<Vec<f32>>,
    at: usize,
    heard: Arc<Mutex<Vec<f32>>>,
}

impl AudioEnd for Memory {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        for sample in pcm {
            *sample = self.said.get(self.at).copied().unwrap_or(0.0);
            self.at += 1;
        }
    }

    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], _heard: bool) {
        self.heard.lock().unwrap().extend_from_slice(pcm);
    }
}

fn now(us: u64) -> Now {
    Now { mono: Instant::from_micros(us), unix: UnixTime::from_secs(1_700_000_000) }
}

/// One side speaks for `seconds`; `network(ms, packet number)` is the transit in µs, `None` loses it. The listener's
/// clock starts 7 ms later.
fn call(seconds: usize, mut network: impl FnMut(u64, u64) -> Option<u64>) -> (Comparison, Vec<(u64, Stats)>) {
    let said = Arc::new(synthetic_speech(7, seconds - 1));
    let ends = [Memory { said: said.clone(), ..Memory::default() }, Memory::default()];
    let keys = MediaKeys { send: [1; 32], receive: [2; 32] };
    let mut sessions: Vec<Session> = ends
        .iter()
        .zip([keys.clone(), keys.swapped()])
        .enumerate()
        .map(|(side, (end, keys))| {
            let audio =
                Ends::Audio { codec: Box::new(OpusCodec::new().unwrap()), end: Box::new(end.clone()) };
            Session::new(now(side as u64 * 7_000), SessionConfig { keys, audio }, [side as u8; 32])
        })
        .collect();
    let mut wire: BTreeMap<(u64, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut stats = Vec::new();
    let (mut serial, mut number) = (0, [0u64; 2]);
    for us in (0..seconds as u64 * 1_000_000).step_by(500) {
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= us) {
            let (to, packet) = entry.remove();
            assert!(sessions[to].handle_packet(now(us), &packet).authentic());
        }
        for side in 0..2 {
            if us >= side as u64 * 7_000 {
                sessions[side].handle_timeout(now(us));
            }
            while let Some(output) = sessions[side].poll_output() {
                match output {
                    SessionOutput::Packet(packet) => {
                        if let Some(transit) = network(us / 1_000, number[side]) {
                            wire.insert((us + transit, serial), (1 - side, packet));
                        }
                        number[side] += 1;
                        serial += 1;
                    }
                    SessionOutput::Event(MediaEvent::Stats(figures)) if side == 1 => {
                        stats.push((us / 1_000_000, figures));
                    }
                    SessionOutput::Event(_) => {}
                }
            }
        }
    }
    let heard = ends[1].heard.lock().unwrap().clone();
    (compare(&said, &heard), stats)
}

fn noise(n: u64, bound: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 33) % bound.max(1)
}

#[test]
fn a_clean_network_adds_less_than_60_ms_between_mouth_and_ear() {
    for network_ms in [0, 50] {
        let (heard, stats) = call(6, |_, n| Some(network_ms * 1_000 + noise(n, 300)));
        assert!(heard.share >= 0.99, "{heard:?}");
        // The listener's recording began 7 ms after the speaker's mouth opened.
        let delay = heard.delay_ms + 7.0;
        assert!(delay <= network_ms as f64 + 40.0, "{delay} ms at {network_ms} ms of network");
        let told = stats.last().unwrap().1;
        assert!((f64::from(told.delay_ms) + 6.5 - delay).abs() < 6.0, "told {told:?}, measured {delay}");
    }
}

#[test]
fn jitter_grows_the_buffer_and_its_end_shrinks_it() {
    let jitter = |ms: u64| if (4_000..12_000).contains(&ms) { 60_000 } else { 1 };
    let (heard, stats) = call(22, |ms, n| Some(20_000 + noise(n, jitter(ms))));
    assert!(heard.share >= 0.97, "{heard:?}");
    let buffer = |from: u64, to: u64| {
        stats.iter().filter(|(s, _)| (from..to).contains(s)).map(|(_, f)| f.buffer_ms).fold(0.0, f32::max)
    };
    let (before, during, after) = (buffer(2, 4), buffer(8, 12), buffer(19, 22));
    assert!(before <= 26.0 && during >= 30.0 && after <= 28.0, "{before} {during} {after}");
}

#[test]
fn loss_is_repaired_by_what_the_codec_adds() {
    let (heard, _) = call(10, |_, n| (noise(n, 100) >= 5).then_some(20_000));
    assert!(heard.share >= 0.97, "{heard:?}");
}
