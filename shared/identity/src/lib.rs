//! Who is who: names ([`name`]), keys and what each signature is for ([`keys`]), node ids ([`node`]), the envelope of
//! everything signed ([`signed`]), and on them the realm's root statement and verifier ([`realm`]), credentials
//! ([`credential`]), accounts and their device lists ([`account`]), the bulletin ([`bulletin`]), invitations
//! ([`invitation`]) and the frames of the login server ([`login`], [`opaque`]).
//!
//! Everything here is bytes, keys and an explicit time; nothing holds a socket, a clock or randomness.
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod account;
pub mod bulletin;
pub mod credential;
pub mod invitation;
pub mod keys;
pub mod limits;
pub mod login;
pub mod name;
pub mod node;
pub mod opaque;
pub mod realm;
#[cfg(test)]
mod sample;
pub mod seal;
pub mod seen;
pub mod signed;
pub mod statement;
