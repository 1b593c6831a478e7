//! Calls end to end, between machines joined by queues.

mod basics;
mod realm;
mod world;
