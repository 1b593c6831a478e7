//! Counts what passes between phones and supernodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use yodel_identity::node::NodeId;
use yodel_overlay::attach::Refuse;
use yodel_wire::frame::{Frame, FrameKind};

use crate::sim::world::{NodeIndex, Tamper};

/// What was counted since the counts were last taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) came: u32,
    pub(super) frames: u32,
    pub(super) attached: BTreeMap<NodeIndex, u32>,
    pub(super) refused: BTreeMap<NodeIndex, u32>,
    pub(super) without_redirect: u32,
    pub(super) to_the_dead: u32,
}

/// See the module's text.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<(Counts, BTreeSet<NodeId>)>>);

impl Gate {
    /// What was counted, to be counted anew.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut self.lock().0)
    }

    /// These are dead from now on.
    pub(super) fn bury(&self, dead: BTreeSet<NodeId>) {
        self.lock().1 = dead;
    }

    /// Lets everything pass. Who stands before `first_phone` is a supernode.
    pub(super) fn tamper(&self, first_phone: NodeIndex) -> Tamper {
        let gate = self.clone();
        Box::new(move |from, to, frame| {
            match (from < first_phone, to < first_phone) {
                (true, false) => gate.a_phone_gets(from, &frame),
                (false, true) => gate.a_phone_sent(&frame),
                (true, true) | (false, false) => {}
            }
            vec![frame]
        })
    }

    fn a_phone_gets(&self, from: NodeIndex, frame: &Frame) {
        if frame.kind == FrameKind::Welcome {
            *self.lock().0.attached.entry(from).or_default() += 1;
        } else if frame.kind == FrameKind::Refuse {
            let mut held = self.lock();
            let (counts, dead) = &mut *held;
            *counts.refused.entry(from).or_default() += 1;
            let refuse = Refuse::decode(&frame.body).expect("a supernode's refusal can be read");
            match refuse.redirect {
                Some(to) => counts.to_the_dead += u32::from(dead.contains(&to)),
                None => counts.without_redirect += 1,
            }
        }
    }

    fn a_phone_sent(&self, frame: &Frame) {
        let counts = &mut self.lock().0;
        counts.frames += 1;
        counts.came += u32::from(frame.kind == FrameKind::Hello);
    }

    fn lock(&self) -> MutexGuard<'_, (Counts, BTreeSet<NodeId>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
