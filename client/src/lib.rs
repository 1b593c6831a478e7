//! The softphone as a library: `main` is thin, and the tests drive the same root machine.

pub mod audio;
pub mod book;
pub mod command;
pub mod config;
pub mod daemon;
pub mod dirs;
pub mod history;
pub mod homes;
pub mod keys;
pub mod limits;
pub mod lookups;
pub mod node;
pub mod publish;
pub mod refetch;
pub mod renew;
pub mod rpc;
pub mod sign_in;
pub mod start;
pub use yodel_net::span;
