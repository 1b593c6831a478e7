//! The ring on real sockets: a login server and N supernodes, the release programs, on one machine's loopback, each with
//! an address of its own (127.0.K.1, so that no two share a /24); and in this process a crowd of bare devices that
//! attach to them over QUIC, write records and read them.
//!
//! A bare device ([`device`]) speaks the frames between device and home and nothing else; credentials come from the
//! realm's own keys ([`crate::sim::issuer::Issuer::opened`]), because two hundred sign-ins would be minutes of Argon2.
//! What is behind the homes is not looked into: these measurements outlive any ring.
//!
//! As root everything runs in a network namespace without a name, which ends with the thread that made it: nobody else's
//! packets are counted, and no address is taken. Children die with that thread, whatever kills it ([`place`]).
//!
//! | module | `yodel-lab ring …` | |
//! |---|---|---|
//! | [`mod@bench`] | `bench` | what a write and a lookup take, and what they cost |
//! | [`kill`] | `kill` | some are killed under writes: what was acknowledged stays readable |
//! | [`flood`] | `flood` | junk and forged datagrams at one of them |
//! | [`restart`] | `restart` | many restart at once: how long until the packets are as few as before |

pub mod bench;
pub mod crowd;
pub mod device;
pub mod figures;
pub mod flood;
pub mod kill;
pub mod place;
pub mod restart;
pub mod world;

pub use world::World;
