//! The ring: supernodes that keep records, and how records are written and read.
//!
//! * [`attach`]: the first frames of every link, pings, farewells.
//! * [`card`]: what anybody must know of a member to believe in it and to reach it.
//! * [`directory`]: all cards, each verified and kept once.
//! * [`membership`]: who is a member, by probes, gossip and comparing.
//! * [`message`]: what members say to each other in sealed datagrams.
//! * [`record`]: contact entries, and the frames that write and read records.
//! * [`verify`]: what a reader believes of an answer.
//! * [`placement`]: which members hold a key; everybody computes the same.
//! * [`sealed`]: one sealed datagram between two members.
//! * [`membership`]: who counts as a member right now.
//! * [`holder`]: the records one member keeps.
//! * [`lookup`], [`publish`]: a read and a write over the holders.
//! * [`histogram`]: how long they took.
//! * [`ring`]: [`ring::Ring`], the part a supernode embeds.
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod attach;
pub mod card;
pub mod directory;
pub mod histogram;
pub mod holder;
pub mod limits;
pub mod lookup;
pub mod membership;
pub mod message;
pub mod placement;
pub mod publish;
pub mod record;
pub mod ring;
pub mod sealed;
pub mod verify;

#[cfg(test)]
mod testing;
