//! Simulator, network-namespace scenarios, interoperability, vectors, fuzz, benches.

pub mod audio_compare;
pub mod lab;
pub mod corpus;
pub mod sim;
