//! A call's life: forking, leg keys, signed offer and answer, states, causes, timeline. Start with [`call`].
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod boxes;
pub mod call;
pub mod cause;
pub mod contacts;
pub mod event;
pub mod handshake;
pub mod limits;
pub mod statement;
pub mod terms;
pub mod timeline;

mod callee;
mod caller;
mod device;
mod inbound;
mod leg;
mod life;
mod message;
mod plane;
#[cfg(test)]
mod tests;
