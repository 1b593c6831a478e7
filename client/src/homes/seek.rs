//! Filling what is missing: rounds of probes, the next attempt, and now and then a nearer home for a far one.

use rand_core::RngCore;
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_wire::machine::Transport;
use yodel_wire::time::Now;

use super::choice::{self, Need, Next, is_worth_a_switch};
use super::hosts::{Host, jitter};
use super::link::Stage;
use super::{Homes, HomesOutput, LinkIds, Switch};
use crate::limits::{PROBE_ADDRESSES, PROBE_EVERY, PROBE_NEWS, PROBE_PAUSE, PROBES_MAX};

impl Homes {
    /// Attaches where something is missing, as far as it is known whereto.
    pub(super) fn fill(&mut self, now: Now, links: &mut LinkIds) {
        self.attach_missing(now, links);
        // The cold one is tried without delay; should it have died too, the probes tell long before the attempt ends.
        let may_measure = self.last_round.is_none_or(|at| now.mono >= at + PROBE_PAUSE);
        if std::mem::take(&mut self.alarmed) && may_measure && !self.stopped {
            self.begin_round(now);
        }
    }

    fn attach_missing(&mut self, now: Now, links: &mut LinkIds) {
        self.ripe = None;
        while !self.stopped && self.wanted() > 0 {
            // A relay that is warm already makes a home at no cost.
            let ready = self.extras.iter().copied().find(|node| self.attached(*node).is_some());
            if let Some(node) = ready {
                self.extras.remove(&node);
                self.outputs.push_back(HomesOutput::Up(node));
                continue;
            }
            // So does the nearer one that was meant for a home which is gone meanwhile.
            if self.switch.is_some_and(|switch| !self.is_busy(switch.from)) {
                self.switch = None;
                continue;
            }
            let candidates: Vec<(NodeId, &Host)> = self
                .hosts
                .iter()
                .filter(|(node, host)| !self.is_busy(*node) && host.may_be_tried(now.mono))
                .collect();
            let need = Need {
                taken: &self.owners(),
                wanted: self.wanted(),
                undecided: self.prober.is_undecided(),
                may_measure: self.last_round.is_none_or(|at| now.mono >= at + PROBE_PAUSE),
            };
            match choice::next(now.mono, candidates, need) {
                Next::Attach(node) => self.attempt(now, node, links),
                Next::Measure => self.begin_round(now),
                Next::Wait(at) => {
                    self.ripe = at;
                    return;
                }
                Next::Nobody => match self.full_one() {
                    Some(node) => self.attempt(now, node, links),
                    None => return,
                },
            }
        }
    }

    /// A phone that has no home and finds none asks one that is full: it says where to go instead.
    fn full_one(&self) -> Option<NodeId> {
        if self.prober.is_undecided() || self.homes().next().is_some() {
            return None;
        }
        let full = self.hosts.iter().filter(|(node, host)| host.is_full && !self.is_busy(*node));
        full.min_by_key(|(_, host)| host.order).map(|(node, _)| node)
    }

    /// Probes the homes, the nearest that are known and others drawn at random.
    pub(super) fn begin_round(&mut self, now: Now) {
        self.last_round = Some(now.mono);
        self.next_round = Some(now.mono + PROBE_EVERY + jitter(PROBE_EVERY / 4, &mut self.rng));
        let homes: Vec<NodeId> = self.homes().map(|attachment| attachment.node).collect();
        let mut others: Vec<(bool, u32, u64, NodeId)> = Vec::new();
        let mut near: Vec<(std::time::Duration, NodeId)> = Vec::new();
        for (node, host) in self.hosts.iter() {
            if homes.contains(&node) || !host.may_be_tried(now.mono) || host.udp.is_empty() {
                continue;
            }
            match host.probed {
                Some(probed) => near.push((probed.rtt, node)),
                None => others.push((host.silent, host.failures, self.rng.next_u64(), node)),
            }
        }
        near.sort_unstable();
        others.sort_unstable();
        // Half of the room is for those never measured, as long as there are any.
        let kept = near.len().min(PROBES_MAX.saturating_sub(others.len()).max(PROBES_MAX / 2));
        let chosen = near.into_iter().take(kept).map(|(_, node)| node);
        let drawn = others.into_iter().map(|(.., node)| node);
        let chosen: Vec<NodeId> = chosen.chain(drawn).take(PROBES_MAX).collect();
        let targets = homes.into_iter().chain(chosen).filter_map(|node| Some((node, self.hosts.get(node)?)));
        let targets: Vec<_> = targets
            .flat_map(|(node, host)| host.udp.iter().take(PROBE_ADDRESSES).map(move |addr| (node, *addr)))
            .collect();
        self.prober.begin(now.mono, targets, &mut self.rng);
    }

    /// New supernodes are known: measure them soon, but not all phones at once.
    pub(super) fn measure_soon(&mut self, now: Now) {
        let soon = now.mono + PROBE_NEWS + jitter(PROBE_NEWS, &mut self.rng);
        self.next_round = Some(self.next_round.map_or(soon, |at| at.min(soon)));
    }

    /// When a round of probes came to its end: who was silent, and whether a home is worth leaving.
    pub(super) fn decided(&mut self, now: Now, links: &mut LinkIds) {
        let Some(silent) = self.prober.take_decided() else { return };
        let began = self.last_round;
        let somebody = self.hosts.iter().any(|(_, h)| h.probed.is_some_and(|p| Some(p.at) >= began));
        for node in silent {
            if let Some(host) = self.hosts.get_mut(node) {
                host.silent = true;
                host.probed = None;
            }
            // Others answer and this one does not, to neither probe nor handshake: no use to wait for it.
            if somebody && self.is_only_opening(node) {
                self.give_up(now, node);
            }
        }
        let nearer = self.nearer(now);
        if let Some(switch) = nearer {
            self.switch = Some(switch);
            self.attempt(now, switch.to, links);
        }
    }

    fn is_only_opening(&self, node: NodeId) -> bool {
        let mut attempts = self.attachments.values().filter(|attachment| attachment.node == node).peekable();
        attempts.peek().is_some() && attempts.all(|attachment| matches!(attachment.stage, Stage::Opening))
    }

    /// A supernode so much nearer than one of the two homes that it is worth the change; never during a call.
    fn nearer(&self, now: Now) -> Option<Switch> {
        if self.active || self.stopped || self.switch.is_some() || self.wanted() > 0 {
            return None;
        }
        let mut homes = Vec::new();
        for attachment in self.homes() {
            if !matches!(attachment.stage, Stage::Warm) || attachment.transport != Transport::Quic {
                return None;
            }
            let host = self.hosts.get(attachment.node)?;
            homes.push((host.probed?.rtt, attachment.node, host.owner));
        }
        homes.sort_unstable_by_key(|(rtt, node, _)| (*rtt, *node));
        let [(_, _, staying), (far, from, leaving)] = homes.as_slice() else { return None };
        let taken: Vec<OwnerTag> = staying.iter().copied().collect();
        let candidates: Vec<(NodeId, &Host)> = self
            .hosts
            .iter()
            .filter(|(node, host)| !self.is_busy(*node) && host.may_be_tried(now.mono))
            .filter(|(_, host)| host.probed.is_some())
            .collect();
        let to = choice::reserve(&candidates, &taken)?;
        let host = self.hosts.get(to)?;
        let other_owner = staying == leaving && host.owner != *staying;
        let is_nearer = host.probed.is_some_and(|probed| is_worth_a_switch(probed.rtt, *far));
        let keeps_owners_apart = host.owner != *staying || staying == leaving;
        ((is_nearer && keeps_owners_apart) || other_owner).then_some(Switch { to, from: *from })
    }
}
