//! The relay: joins two authenticated sessions so that packets pass where no direct path opens.
//!
//! * [`control`]: frames and datagrams, drawn byte by byte.
//! * [`server`]: the supernode's side, [`server::Server`].
//! * [`leg`]: one end's side, [`leg::Leg`].
//! * [`bucket`]: the token bucket behind every quota.
//!
//! No request ever names an address, so a relay cannot be turned into a proxy: whoever wants packets binds its own
//! address, authenticated by the key of its own link, and proves that it receives there.
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod bucket;
pub mod control;
pub mod leg;
pub mod limits;
pub mod server;

#[cfg(test)]
mod tests;
