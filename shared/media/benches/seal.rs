//! What sealing and opening a voice packet costs: `cargo bench -p yodel-media`. Prints one JSON line.
//!
//! Not a timed test: figures go into notes, never into assertions.

use std::hint::black_box;
use std::time::Duration;

use yodel_media::seal::{Opener, Sealer, Stream};

/// An Opus frame at 32 kbit/s, behind the RTP header.
const PAYLOAD: usize = 80;
const HEADER: usize = 12;
const PACKETS: u32 = 60_000;
const ROUNDS: usize = 9;

fn main() {
    let mut sealing = Vec::new();
    let mut opening = Vec::new();
    for _ in 0..ROUNDS {
        let mut sealer = Sealer::new(&[7; 32], Stream::Audio);
        let mut opener = Opener::new(&[7; 32], Stream::Audio);
        let mut packets: Vec<Vec<u8>> = (0..PACKETS)
            .map(|_| {
                let mut packet = Vec::with_capacity(HEADER + PAYLOAD + 16);
                packet.resize(HEADER + PAYLOAD, 0x55);
                packet
            })
            .collect();
        sealing.push(timed(|| {
            for packet in &mut packets {
                black_box(sealer.seal(packet, HEADER)).ok();
            }
        }));
        opening.push(timed(|| {
            for (index, packet) in packets.iter_mut().enumerate() {
                let (header, sealed) = packet.split_at_mut(HEADER);
                black_box(opener.open(index as u64, header, sealed)).ok();
            }
        }));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(ROUNDS / 2).map_or(0.0, |time| time.as_nanos() as f64 / f64::from(PACKETS))
    };
    let (seal, open) = (median(sealing), median(opening));
    println!(
        "{{\"v\":1,\"bench\":\"seal\",\"payload_bytes\":{PAYLOAD},\"seal_ns\":{seal:.0},\"open_ns\":{open:.0},\
         \"seal_open_ns\":{:.0}}}",
        seal + open
    );
}

#[allow(clippy::disallowed_methods)] // A bench is the one other place that must read a clock.
fn timed(work: impl FnOnce()) -> Duration {
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}
