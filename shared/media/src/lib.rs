//! Sound as packets: sealed RTP ([`seal`], [`rtp`]), what each end hears ([`report`]), the buffer that evens out the
//! network ([`jitter`]) and the one struct that a call drives ([`session`]). The codec and the audio end are traits
//! ([`ends`]): nothing here knows Opus or a sound card.
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod ends;
pub mod jitter;
pub mod limits;
pub mod replay;
pub mod report;
pub mod rtp;
pub mod seal;
pub mod session;

mod figures;
mod hearing;
mod playout;

pub use ends::{AudioEnd, Codec, CodecError, Ends, FRAME, FRAME_SAMPLES, NarrowCodec};
pub use figures::Stats;
pub use seal::MediaKeys;
pub use session::{MediaEvent, Opened, Session, SessionConfig, SessionOutput};
