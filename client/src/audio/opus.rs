//! Opus (RFC 6716) by libopus: the one place that names it. Float calls only; opusic-c types integer samples as `u16`.

use opusic_c::{Application, Bitrate, Channels, Decoder, Encoder, ErrorCode, InbandFec, SampleRate, Signal};
use yodel_call::event::CodecFactory;
use yodel_media::{Codec, CodecError, FRAME_SAMPLES};

use super::AudioError;

/// Bits per second: wide-band speech without audible loss. Constant, because packet sizes that follow the speech tell
/// words through any encryption (RFC 6562 §3); so a frame is always 80 bytes.
const BITRATE: u32 = 32_000;

/// Half of libopus' search effort: no difference to the ear in speech at this rate, and a phone's battery.
const COMPLEXITY: u8 = 5;

/// Encoder and decoder of one call: 48 kHz mono, 20 ms, in-band redundancy as told, no discontinuous transmission (the
/// other end takes a missing packet for loss).
pub struct OpusCodec {
    encoder: Encoder,
    decoder: Decoder,
}

impl OpusCodec {
    /// A fresh codec.
    ///
    /// # Errors
    /// `Codec` when libopus refuses, which means it is out of memory.
    pub fn new() -> Result<OpusCodec, AudioError> {
        OpusCodec::open().map_err(|error| AudioError::Codec(error.message()))
    }

    fn open() -> Result<OpusCodec, ErrorCode> {
        let mut encoder = Encoder::new(Channels::Mono, SampleRate::Hz48000, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Value(BITRATE))?;
        encoder.set_vbr(false)?;
        encoder.set_complexity(COMPLEXITY)?;
        encoder.set_signal(Signal::Voice)?;
        encoder.set_inband_fec(InbandFec::Mode1)?;
        encoder.set_packet_loss(0)?;
        encoder.set_dtx(false)?;
        let decoder = Decoder::new(Channels::Mono, SampleRate::Hz48000)?;
        Ok(OpusCodec { encoder, decoder })
    }
}

/// Gives every call its own [`OpusCodec`].
#[derive(Clone, Copy, Debug, Default)]
pub struct OpusCodecs;

impl CodecFactory for OpusCodecs {
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        OpusCodec::new().ok().map(|codec| Box::new(codec) as Box<dyn Codec>)
    }
}

impl std::fmt::Debug for OpusCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpusCodec")
    }
}

impl Codec for OpusCodec {
    fn encode(&mut self, pcm: &[f32; FRAME_SAMPLES], out: &mut [u8]) -> Result<usize, CodecError> {
        self.encoder.encode_float_to_slice(pcm, out).map_err(|_| CodecError::Failed)
    }

    fn decode(
        &mut self,
        packet: Option<&[u8]>,
        fec: bool,
        pcm: &mut [f32; FRAME_SAMPLES],
    ) -> Result<(), CodecError> {
        if let Some(packet) = packet {
            let samples = self.decoder.get_nb_samples(packet).map_err(|_| CodecError::Malformed)?;
            if packet.is_empty() || samples != FRAME_SAMPLES {
                return Err(CodecError::Malformed);
            }
        }
        // An empty packet asks for concealment.
        let decoded = self.decoder.decode_float_to_slice(packet.unwrap_or_default(), pcm, fec);
        match decoded {
            Ok(FRAME_SAMPLES) => Ok(()),
            Ok(_) => Err(CodecError::Malformed),
            Err(ErrorCode::InvalidPacket | ErrorCode::BufferTooSmall) => Err(CodecError::Malformed),
            Err(_) => Err(CodecError::Failed),
        }
    }

    fn set_loss(&mut self, percent: u8) {
        // Refused only outside 0..=100; the redundancy then stays as it was.
        let _ = self.encoder.set_packet_loss(percent.min(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that sounds like a vowel: a 120 Hz voice with three formants.
    fn vowel(frame: usize) -> [f32; FRAME_SAMPLES] {
        std::array::from_fn(|i| {
            let t = (frame * FRAME_SAMPLES + i) as f32 / 48_000.0;
            (1..30)
                .map(|h| {
                    let f = 120.0 * h as f32;
                    let gain = [700.0f32, 1_200.0, 2_600.0]
                        .iter()
                        .map(|formant| 1.0 / (1.0 + ((f - formant) / 150.0).powi(2)))
                        .sum::<f32>();
                    0.05 * gain * (std::f32::consts::TAU * f * t).sin()
                })
                .sum()
        })
    }

    fn energy(pcm: &[f32]) -> f32 {
        pcm.iter().map(|s| s * s).sum::<f32>() / pcm.len() as f32
    }

    #[test]
    fn every_frame_is_eighty_bytes_and_comes_back_as_loud() {
        let mut codec = OpusCodec::new().unwrap();
        let mut out = [0; 1_100];
        let mut pcm = [0.0; FRAME_SAMPLES];
        for frame in 0..50 {
            let voice = if frame % 10 == 0 { [0.0; FRAME_SAMPLES] } else { vowel(frame) };
            let length = codec.encode(&voice, &mut out).unwrap();
            assert_eq!(length, 80);
            codec.decode(Some(&out[..length]), false, &mut pcm).unwrap();
            if frame % 10 > 3 {
                let ratio = energy(&pcm) / energy(&voice);
                assert!((0.7..1.4).contains(&ratio), "{ratio}");
            }
        }
    }

    #[test]
    fn a_lost_frame_is_restored_from_the_next_when_loss_was_told() {
        // Loss right where the sound begins: concealment knows nothing of it, redundancy does.
        let restored = |told: u8| {
            let mut codec = OpusCodec::new().unwrap();
            codec.set_loss(told);
            let mut packets = Vec::new();
            for frame in 0..40 {
                let voice = if frame < 30 { [0.0; FRAME_SAMPLES] } else { vowel(frame) };
                let mut out = [0; 1_100];
                let length = codec.encode(&voice, &mut out).unwrap();
                packets.push(out[..length].to_vec());
            }
            let mut pcm = [0.0; FRAME_SAMPLES];
            for packet in &packets[..32] {
                codec.decode(Some(packet), false, &mut pcm).unwrap();
            }
            codec.decode(Some(&packets[33]), true, &mut pcm).unwrap();
            energy(&pcm)
        };
        assert!(restored(20) > 0.3 * energy(&vowel(32)), "{} of {}", restored(20), energy(&vowel(32)));
    }

    #[test]
    fn concealment_fades_and_rubbish_is_refused() {
        let mut codec = OpusCodec::new().unwrap();
        let mut out = [0; 1_100];
        let mut pcm = [0.0; FRAME_SAMPLES];
        for frame in 0..20 {
            let length = codec.encode(&vowel(frame), &mut out).unwrap();
            codec.decode(Some(&out[..length]), false, &mut pcm).unwrap();
        }
        let loud = energy(&pcm);
        for _ in 0..12 {
            codec.decode(None, false, &mut pcm).unwrap();
        }
        assert!(energy(&pcm) < loud / 10.0);
        assert_eq!(codec.decode(Some(&[]), false, &mut pcm), Err(CodecError::Malformed));
        for toc in 0..=255u8 {
            for length in [1usize, 2, 3, 40, 300] {
                let packet: Vec<u8> = (0..length).map(|i| toc ^ (i * 37) as u8).collect();
                // Refused or decoded as noise, never more than a frame.
                let _ = codec.decode(Some(&packet), false, &mut pcm);
                let _ = codec.decode(Some(&packet), true, &mut pcm);
            }
        }
    }
}
