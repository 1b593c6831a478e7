//! The calls that ended lately, for `why` and `calls`; the oldest goes first.

use std::collections::VecDeque;

use yodel_call::event::{CallEvent, CallId, CallInfo, Ended, State};

use crate::limits::HISTORY_MAX;

/// See the module's text.
#[derive(Debug, Default)]
pub struct History {
    calls: VecDeque<(CallInfo, Option<Ended>)>,
}

impl History {
    /// Takes in news of a call.
    pub fn take(&mut self, event: &CallEvent) {
        let place = self.calls.iter().position(|(info, _)| info.call == event.call).unwrap_or_else(|| {
            if self.calls.len() >= HISTORY_MAX {
                self.calls.pop_front();
            }
            let info = CallInfo {
                call: event.call,
                direction: event.direction,
                peer: event.peer.clone(),
                state: event.state.name(),
                path: None,
            };
            self.calls.push_back((info, None));
            self.calls.len() - 1
        });
        let Some((info, ended)) = self.calls.get_mut(place) else { return };
        match &event.state {
            State::Path { path, .. } => info.path = Some(*path),
            State::Stats { .. } => {}
            State::Ended(end) => {
                info.state = "ended";
                *ended = Some(end.clone());
            }
            State::Resolving | State::Contacting | State::Alerted | State::Answered | State::Media => {
                info.state = event.state.name();
            }
        }
    }

    /// A call by its name, or the last one that ended, or else the newest.
    pub fn find(&self, call: Option<CallId>) -> Option<(&CallInfo, Option<&Ended>)> {
        let found = match call {
            Some(call) => self.calls.iter().find(|(info, _)| info.call == call),
            None => self.calls.iter().rev().find(|(_, ended)| ended.is_some()).or(self.calls.back()),
        };
        found.map(|(info, ended)| (info, ended.as_ref()))
    }
}
