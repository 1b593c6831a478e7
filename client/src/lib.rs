//! The softphone as a library: `main` is thin, and the tests drive the same root machine.

pub mod audio;
pub mod command;
