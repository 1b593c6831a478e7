//! Yodel's supernode: keeps records, carries signalling, relays media, answers `echo`. A client whose owner agreed to
//! serve runs the same machine.
//!
//! * [`node`]: the root machine [`node::Supernode`], which routes to its parts.
//! * `home`: devices attached here, and every link's first frames.
//! * `elsewhere`: what devices learn of other members, and who is sent there. `drain`: everybody is.
//! * `join`: how it comes into the ring.
//! * `peers`: links to the other members.
//! * `login`: the link to the login server: bulletins, readiness, renewal.
//! * `errand`: what devices ask of the login server through here.
//! * `route`: SIP between devices and homes.
//! * `echo`: the account that sends back what it hears.
//! * [`keys`]: what must be kept secret, and its file.
//! * [`enrol`]: how one comes into being. [`config`], [`run`] and [`admin`] are the process around the machine.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
mod drain;
mod echo;
mod elsewhere;
pub mod enrol;
mod errand;
mod home;
mod join;
pub mod keys;
pub mod limits;
mod login;
pub mod node;
mod peers;
mod route;
pub mod run;
