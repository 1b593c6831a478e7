//! The two ends of a session as traits: a codec and an audio end.

use std::time::Duration;

/// Length of a frame.
pub const FRAME: Duration = Duration::from_millis(20);

/// Samples in a frame: 20 ms at 48 kHz, mono.
pub const FRAME_SAMPLES: usize = 960;

/// The codec could not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The packet is none of this codec's.
    #[error("not a frame of this codec")]
    Malformed,
    /// The codec itself failed.
    #[error("codec failed")]
    Failed,
}

/// Turns frames into bytes and back. One per session: it has state for both directions.
pub trait Codec: Send {
    /// Encodes one frame into `out`, whose length bounds the result; returns the bytes written.
    ///
    /// # Errors
    /// `Failed`; the frame is then not sent.
    fn encode(&mut self, pcm: &[f32; FRAME_SAMPLES], out: &mut [u8]) -> Result<usize, CodecError>;

    /// Decodes one frame. `None` conceals a lost one. With `fec` the packet is the one *after* the lost frame, and the
    /// redundancy in it is decoded (RFC 6716 §2.1.7); a packet without any is concealed.
    ///
    /// # Errors
    /// `Malformed` when the peer sent something else; `Failed`. The frame is then played as silence.
    fn decode(
        &mut self,
        packet: Option<&[u8]>,
        fec: bool,
        pcm: &mut [f32; FRAME_SAMPLES],
    ) -> Result<(), CodecError>;

    /// Tells the share of packets the peer loses, percent 0–100, so that redundancy can follow it.
    fn set_loss(&mut self, percent: u8);
}

/// Where sound comes from and goes to. Called once per 20 ms and never allowed to block.
pub trait AudioEnd: Send {
    /// Fills the next frame to send, samples in −1..=1.
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]);

    /// Takes the next frame received. `heard` is false when nothing arrived for it and `pcm` is silence or concealment.
    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], heard: bool);

    /// Whether a microphone that should give sound gives none at all.
    fn mic_silent(&self) -> bool {
        false
    }

    /// The call is over: finish what is written. Called once at most; dropping does the same.
    fn finish(&mut self) {}
}

/// What a session does with sound.
pub enum Ends {
    /// A person, a file, a tone.
    Audio {
        /// Encodes and decodes.
        codec: Box<dyn Codec>,
        /// Gives and takes frames.
        end: Box<dyn AudioEnd>,
    },
    /// Sends every frame back as it came, undecoded: what `echo` does.
    Echo,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ends::Audio { .. } => "Audio",
            Ends::Echo => "Echo",
        })
    }
}

/// A codec of bytes for the simulator and for tests: 4 kHz, 8 bits, 80 bytes a frame, with the frame before in front as
/// redundancy while there is loss. Not for ears.
#[derive(Debug, Default)]
pub struct NarrowCodec {
    before: Option<[u8; NARROW_BYTES]>,
    loss: u8,
}

const NARROW_BYTES: usize = 80;
const NARROW_STEP: usize = FRAME_SAMPLES / NARROW_BYTES;

impl NarrowCodec {
    /// A codec that has seen no loss.
    pub fn new() -> NarrowCodec {
        NarrowCodec::default()
    }
}

impl Codec for NarrowCodec {
    fn encode(&mut self, pcm: &[f32; FRAME_SAMPLES], out: &mut [u8]) -> Result<usize, CodecError> {
        let mut frame = [0u8; NARROW_BYTES];
        for (byte, samples) in frame.iter_mut().zip(pcm.chunks(NARROW_STEP)) {
            let mean = samples.iter().sum::<f32>() / NARROW_STEP as f32;
            *byte = (mean.clamp(-1.0, 1.0) * 127.0).round() as i8 as u8;
        }
        let mut bytes = frame.to_vec();
        if let (Some(before), true) = (self.before, self.loss > 0) {
            bytes.extend_from_slice(&before);
        }
        self.before = Some(frame);
        out.get_mut(..bytes.len()).ok_or(CodecError::Failed)?.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn decode(
        &mut self,
        packet: Option<&[u8]>,
        fec: bool,
        pcm: &mut [f32; FRAME_SAMPLES],
    ) -> Result<(), CodecError> {
        pcm.fill(0.0);
        let Some(packet) = packet else { return Ok(()) };
        if packet.len() != NARROW_BYTES && packet.len() != 2 * NARROW_BYTES {
            return Err(CodecError::Malformed);
        }
        let mut frames = packet.chunks_exact(NARROW_BYTES);
        let frame = if fec { frames.nth(1) } else { frames.next() };
        for (samples, byte) in pcm.chunks_mut(NARROW_STEP).zip(frame.unwrap_or_default()) {
            samples.fill(f32::from(*byte as i8) / 127.0);
        }
        Ok(())
    }

    fn set_loss(&mut self, percent: u8) {
        self.loss = percent;
    }
}
