//! Getting through NATs (D§6): STUN, candidates, connectivity checks, what kind of NAT this is, and which path a call's
//! packets take. Everything here is sans-IO; the one UDP socket belongs to `shared/net`.
//!
//! - [`server`] answers Binding requests on supernodes, statelessly.
//! - [`gather`] asks two homes where they see us and tells the NAT's mapping kind by comparing.
//! - [`agent`] checks every way to one peer, and [`choice`] explains and decides which of them carries the media.
//! - [`stun`] is the only file that names the STUN library.
#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod agent;
pub mod budget;
pub mod candidate;
pub mod check;
pub mod choice;
pub mod gather;
pub mod limits;
pub mod server;
pub mod stun;

pub use agent::{Agent, AgentConfig, AgentOutput, Credentials, PathChange, Role};
pub use budget::Budget;
pub use candidate::{Candidate, CandidateKind, CandidateRefused, canonical};
pub use choice::{PathKind, RelayKind, RelayRef, Route};
pub use gather::{GatherOutput, Gatherer, Mapping};
