//! The simulator: the very root machines of the programs, under one virtual clock.

pub mod nat;
pub mod world;
