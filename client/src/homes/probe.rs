//! How near supernodes are: a STUN Binding request to each from the phone's one socket, which costs them next to
//! nothing and needs no handshake.
//!
//! Contract: [`Prober::begin`] a round; [`Prober::handle_stun`] with every STUN datagram nobody else claims,
//! [`Prober::handle_timeout`] at [`Prober::deadline`]; drain [`Prober::poll_output`]. A round is decided when all have
//! answered, or after [`PROBE_DECIDE`]; [`Prober::take_decided`] tells so once. Later answers still count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::node::NodeId;
use yodel_nat::candidate::canonical;
use yodel_nat::stun::{self, Class, Transaction};
use yodel_wire::time::Instant;

use crate::limits::{PROBE_AGAIN, PROBE_DECIDE, PROBE_PATIENCE};

#[derive(Debug)]
struct Probe {
    node: NodeId,
    to: SocketAddr,
    sent: Instant,
}

/// An answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) node: NodeId,
    /// Which of its addresses.
    pub(super) addr: SocketAddr,
    pub(super) rtt: Duration,
    /// It has no room, for so long; zero when it has.
    pub(super) stay_away: Duration,
}

#[derive(Debug)]
struct Round {
    targets: Vec<(NodeId, SocketAddr)>,
    silent: BTreeSet<NodeId>,
    began: Instant,
    sent_again: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Prober {
    probes: BTreeMap<Transaction, Probe>,
    round: Option<Round>,
    decided: Option<BTreeSet<NodeId>>,
    outputs: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Prober {
    /// Asks these, at each of these addresses.
    pub(super) fn begin(&mut self, now: Instant, targets: Vec<(NodeId, SocketAddr)>, rng: &mut impl RngCore) {
        if targets.is_empty() {
            return;
        }
        let silent = targets.iter().map(|(node, _)| *node).collect();
        self.round = Some(Round { targets: targets.clone(), silent, began: now, sent_again: false });
        self.send(now, &targets, rng);
    }

    /// Whether it is too early to choose somebody who has not answered.
    pub(super) fn is_undecided(&self) -> bool {
        self.round.is_some()
    }

    /// Who was silent in the round that was decided since this was asked last.
    pub(super) fn take_decided(&mut self) -> Option<BTreeSet<NodeId>> {
        self.decided.take()
    }

    /// A datagram that is the answer to a probe.
    pub(super) fn handle_stun(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Option<Answered> {
        let peek = stun::peek(bytes).filter(|peek| peek.class == Class::Success)?;
        let probe = self.probes.get(&peek.transaction)?;
        if canonical(probe.to) != canonical(from) {
            return None;
        }
        let answer = Answered {
            node: probe.node,
            addr: probe.to,
            rtt: now.since(probe.sent),
            stay_away: Duration::from_secs(peek.room.unwrap_or(0).into()),
        };
        self.probes.remove(&peek.transaction);
        if let Some(round) = &mut self.round {
            round.silent.remove(&answer.node);
            if round.silent.is_empty() {
                self.decide();
            }
        }
        Some(answer)
    }

    fn decide(&mut self) {
        self.decided = self.round.take().map(|round| round.silent);
    }

    /// Asks the silent once more, and ends the round.
    pub(super) fn handle_timeout(&mut self, now: Instant, rng: &mut impl RngCore) {
        self.probes.retain(|_, probe| now < probe.sent + PROBE_PATIENCE);
        let Some(round) = &mut self.round else { return };
        if now >= round.began + PROBE_DECIDE {
            self.decide();
        } else if now >= round.began + PROBE_AGAIN && !std::mem::replace(&mut round.sent_again, true) {
            let targets: Vec<(NodeId, SocketAddr)> =
                round.targets.iter().filter(|(node, _)| round.silent.contains(node)).copied().collect();
            self.send(now, &targets, rng);
        }
    }

    fn send(&mut self, now: Instant, targets: &[(NodeId, SocketAddr)], rng: &mut impl RngCore) {
        for (node, to) in targets {
            let mut transaction = Transaction::default();
            rng.fill_bytes(&mut transaction);
            if let Some(bytes) = stun::probe_request(transaction) {
                self.probes.insert(transaction, Probe { node: *node, to: *to, sent: now });
                self.outputs.push_back((*to, bytes));
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let forget = self.probes.values().map(|probe| probe.sent + PROBE_PATIENCE).min();
        let round = self
            .round
            .as_ref()
            .map(|round| round.began + if round.sent_again { PROBE_DECIDE } else { PROBE_AGAIN });
        forget.into_iter().chain(round).min()
    }

    /// The next datagram to send.
    pub(super) fn poll_output(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outputs.pop_front()
    }
}
