//! Simulator, network-namespace scenarios, interoperability, vectors, fuzz, benches.

pub mod audio_compare;
pub mod corpus;
pub mod lab;
pub mod sim;
