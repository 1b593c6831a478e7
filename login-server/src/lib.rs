//! The login server: vouches for who is who in a realm, and is not needed for anything else. The root machine is
//! [`LoginServer`]; `main.rs` drives it with `yodel-net` and keeps its state with `yodel-store`, the simulator with a
//! virtual clock and memory.
#![forbid(unsafe_code)]

pub mod admin;
mod enrol;
pub mod keys;
pub mod limits;
mod operate;
mod publish;
mod rate;
mod renew;
mod roster;
mod server;
mod state;
mod supernodes;
mod tables;

pub use server::{Command, Event, LoginServer};
pub use state::LoadError;
