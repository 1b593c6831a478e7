//! SIP (RFC 3261) as Yodel speaks it: messages ([`message`]), transactions over reliable links with two ways
//! ([`transaction`]), dialogs ([`dialog`]), session descriptions ([`sdp`]), the frames that carry all of it between
//! devices and their homes ([`envelope`]), and what a home watches on the way ([`delivery`]).
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod delivery;
pub mod dialog;
pub mod envelope;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod message;
pub mod method;
pub mod sdp;
pub mod transaction;

pub mod uri;
