//! The simulator: the very root machines of the programs, under one virtual clock.

pub mod checks;
pub mod crowd;
pub mod issuer;
pub mod nat;
pub mod overlay;
pub mod realm;
pub mod sound;
pub mod world;
