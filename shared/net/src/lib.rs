//! Where the machines meet the operating system: the clock ([`clock`]), one UDP socket with the demultiplexer in front
//! of QUIC ([`endpoint`]), links over QUIC and over TLS with raw public keys, and the loop that drives a root machine
//! ([`drive()`]). What the three programs show of themselves in the same way is here too: exit codes, the ready line, the
//! servers' admin socket ([`admin`]). Nothing here knows what a frame means.
#![deny(clippy::indexing_slicing)]

pub mod admin;
pub mod clock;
pub mod console;
pub mod drive;
pub mod endpoint;
pub mod exit;
pub mod interfaces;
pub mod limits;
mod link;
pub mod logging;
mod quic;
pub mod ready;
mod rpk;
pub mod settings;
pub mod signals;
pub mod span;
#[cfg(test)]
mod tests;
mod tls;
mod udp;

pub use clock::{Clock, seed};
pub use drive::drive;
pub use endpoint::{Endpoint, EndpointConfig, EndpointLimits};
pub use exit::Exit;
pub use rpk::public_key;
pub use signals::{Signal, Signals};

/// The runtime of a driver: one thread, because one task owns the machine and the others only carry bytes.
///
/// # Errors
/// Whatever the operating system says.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
