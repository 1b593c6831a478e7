//! Simulator, network-namespace scenarios, interoperability, vectors, fuzz, benches.

pub mod sim;
