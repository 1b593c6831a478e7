//! What everything else stands on: who owns a datagram ([`first_byte`]), what links carry ([`frame`]), how records are
//! encoded ([`codec`]), time as an argument ([`time`]) and how machines are driven ([`machine`]).
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod codec;
pub mod first_byte;
pub mod frame;
pub mod limits;
pub mod machine;
pub mod time;
