//! Simulator, network-namespace scenarios, interoperability, vectors, fuzz, benches.

pub mod audio_compare;
pub mod bench;
pub mod corpus;
pub mod demo;
pub mod lab;
pub mod ring;
pub mod sim;
