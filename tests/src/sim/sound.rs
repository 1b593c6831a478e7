//! Audio ends in memory: each phone speaks one constant level, so that what is heard names who spoke.

use std::sync::{Arc, Mutex, MutexGuard};

use yodel_call::event::CodecFactory;
use yodel_media::{AudioEnd, Codec, FRAME_SAMPLES, NarrowCodec};

/// What happened at one audio end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sound {
    /// Frames taken from the microphone: above zero, it was opened.
    pub captured: u64,
    /// Frames played that had been received, by the voice that spoke; 0 is silence.
    pub heard: Vec<u8>,
    /// Frames played that had not been received.
    pub missing: u64,
    /// The call let go of the end: microphone and loudspeaker are shut.
    pub closed: bool,
    /// The microphone gives nothing at all.
    pub broken: bool,
}

impl Sound {
    /// How many frames of this voice were heard.
    pub fn heard_of(&self, voice: u8) -> usize {
        self.heard.iter().filter(|heard| **heard == voice).count()
    }
}

/// A view of an audio end that was handed to a phone.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Mutex<Sound>>);

impl Ear {
    /// What happened so far.
    pub fn sound(&self) -> Sound {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Sound> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An end that speaks `voice` (1..=127) and writes down what it hears.
pub fn mouth(voice: u8) -> (Box<dyn AudioEnd>, Ear) {
    let ear = Ear::default();
    (Box::new(Mouth { voice, ear: ear.clone() }), ear)
}

/// An end whose microphone gives digital silence and says so.
pub fn dead_microphone() -> (Box<dyn AudioEnd>, Ear) {
    let ear = Ear::default();
    ear.lock().broken = true;
    (Box::new(Mouth { voice: 0, ear: ear.clone() }), ear)
}

struct Mouth {
    voice: u8,
    ear: Ear,
}

impl AudioEnd for Mouth {
    fn capture(&mut self, pcm: &mut [f32; FRAME_SAMPLES]) {
        self.ear.lock().captured += 1;
        pcm.fill(f32::from(self.voice) / 127.0);
    }

    fn play(&mut self, pcm: &[f32; FRAME_SAMPLES], heard: bool) {
        let mut sound = self.ear.lock();
        if heard {
            let level = (pcm[FRAME_SAMPLES / 2] * 127.0).round();
            sound.heard.push(level.clamp(0.0, 127.0) as u8);
        } else {
            sound.missing += 1;
        }
    }

    fn mic_silent(&self) -> bool {
        let sound = self.ear.lock();
        sound.broken && sound.captured > 0
    }
}

impl Drop for Mouth {
    fn drop(&mut self) {
        self.ear.lock().closed = true;
    }
}

/// Hands out the codec of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NarrowCodecs;

impl CodecFactory for NarrowCodecs {
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        Some(Box::new(NarrowCodec::new()))
    }
}
