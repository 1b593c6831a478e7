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
pub mod timeline;
