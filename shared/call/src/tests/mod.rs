//! Calls end to end, between machines joined by queues.

mod basics;
mod consent;
mod forks;
mod lies;
mod paths;
mod realm;
mod ways;
mod world;
