//! A phone of a simulated realm as its tests see it: where it is, what it does with calls, what it told.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel::command::{CallEvent, CallId, Ended, Failure, PathKind, Reply, RequestId, State};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::sim::nat::NatKind;
use crate::sim::sound::Ear;
use crate::sim::world::{NatIndex, NodeIndex};

/// A phone of the realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhoneIndex(pub(super) usize);

/// Where a phone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In a home of its own, behind a NAT of this kind.
    Home(NatKind),
    /// In the home of another phone.
    With(PhoneIndex),
    /// On a public address.
    Public,
}

/// What a phone does with calls that come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Show the ring; the test answers.
    Ring,
    /// Show nothing: no user interface is there.
    Mute,
    /// Show the ring and answer after this long.
    Answer(Duration),
    /// Show the ring and decline after this long.
    Decline(Duration),
}

/// A phone as the tests see it.
pub struct Phone {
    /// Its machine in the world.
    pub node: NodeIndex,
    /// Whose it is.
    pub aor: Aor,
    /// The device.
    pub device: NodeId,
    /// The voice it speaks with.
    pub voice: u8,
    /// What it does with calls that come in.
    pub manners: Manners,
    /// All news of calls, with when they came.
    pub log: Vec<(Instant, CallEvent)>,
    /// Whether it is online.
    pub online: bool,
    /// Every audio end it was ever given, by when.
    pub ears: Vec<Ear>,
    pub(super) nat: Option<NatIndex>,
    pub(super) account: usize,
    pub(super) slot: usize,
    pub(super) replies: BTreeMap<RequestId, Result<Reply, Failure>>,
    pub(super) due: Vec<(Instant, CallId, bool)>,
}

impl Phone {
    /// Calls it knows of, in the order they began.
    pub fn calls(&self) -> Vec<CallId> {
        let mut calls = Vec::new();
        for (_, event) in &self.log {
            if !calls.contains(&event.call) {
                calls.push(event.call);
            }
        }
        calls
    }

    /// The states of a call, in order, figures left out.
    pub fn states(&self, call: CallId) -> Vec<&'static str> {
        let states = self.log.iter().filter(|(_, event)| event.call == call);
        states
            .filter(|(_, event)| !matches!(event.state, State::Path { .. } | State::Stats { .. }))
            .map(|(_, event)| event.state.name())
            .collect()
    }

    /// When a call got into this state.
    pub fn when(&self, call: CallId, state: &str) -> Option<Instant> {
        self.log
            .iter()
            .find(|(_, event)| event.call == call && event.state.name() == state)
            .map(|(at, _)| *at)
    }

    /// How a call ended.
    pub fn end(&self, call: CallId) -> Option<Ended> {
        self.log.iter().find_map(|(_, event)| match &event.state {
            State::Ended(ended) if event.call == call => Some(ended.clone()),
            _ => None,
        })
    }

    /// The paths a call took, in order.
    pub fn paths(&self, call: CallId) -> Vec<PathKind> {
        let paths = self.log.iter().filter_map(|(_, event)| match event.state {
            State::Path { path, .. } if event.call == call => Some(path),
            _ => None,
        });
        paths.collect()
    }
}
