//! Samples: the Opus codec ([`opus`]), audio ends that need no sound card (files, [`tone`], [`null`]), the recording of
//! a call ([`record`]) and the text that names an end ([`spec`]).

pub mod file;
pub mod limits;
pub mod null;
pub mod opus;
pub mod record;
pub mod resample;
pub mod spec;
pub mod tone;
pub mod wav;

pub use opus::OpusCodec;
pub use spec::Spec;

/// Why there is no audio. Its cause code is always `audio.no-device`.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The text is no SPEC.
    #[error("not an audio SPEC: {0}")]
    Spec(&'static str),
    /// This kind of end is not in this version.
    #[error("{0} comes later; use file:, tone: or null")]
    Later(&'static str),
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// libopus refused its settings.
    #[error("codec: {0}")]
    Codec(&'static str),
}

impl AudioError {
    pub(crate) fn file(path: &std::path::Path, reason: impl std::fmt::Display) -> AudioError {
        AudioError::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}
