//! Where one record is believed to be kept, and what follows when its holders become others.

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::holder::Key;

/// Where a record is believed to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The members believed to keep it.
    pub(super) nodes: Vec<NodeId>,
    /// Members farther from the key than this change nothing.
    pub(super) reach: u128,
    /// Whether that all of `nodes` keep it was never acknowledged to us.
    pub(super) assumed: bool,
    /// Since when we are not among the holders.
    pub(super) out_since: Option<Instant>,
}

/// What to do about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// All holders keep it.
    Nothing,
    /// We hand it over to these.
    Ours(Vec<NodeId>),
    /// A nearer member is to do it.
    Others,
}

impl Place {
    /// Kept at these.
    pub(super) fn at(nodes: Vec<NodeId>, reach: u128) -> Place {
        Place { nodes, reach, assumed: true, out_since: None }
    }

    /// Whether a change of this member may concern the record.
    pub(super) fn concerns(&self, key: &Key, node: NodeId) -> bool {
        node.distance(key) <= self.reach || self.nodes.contains(&node)
    }

    /// A member died, or came back and may have missed something.
    pub(super) fn doubt(&mut self, node: NodeId) {
        self.nodes.retain(|other| *other != node);
    }

    /// A member acknowledged it.
    pub(super) fn acknowledged(&mut self, node: NodeId) {
        if !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
    }

    /// Who of those that are believed to keep it hands it over to the holders that do not: the nearest holder, or when
    /// no holder keeps it, the nearest of all.
    pub(super) fn duty(&self, key: &Key, me: NodeId, holders: &[NodeId]) -> Duty {
        let keeps = |node: &NodeId| *node == me || self.nodes.contains(node);
        let missing: Vec<NodeId> = holders.iter().filter(|node| !keeps(node)).copied().collect();
        if missing.is_empty() {
            return Duty::Nothing;
        }
        let nearest = holders.iter().copied().find(|node| keeps(node));
        let nearest =
            nearest.or_else(|| self.nodes.iter().copied().chain([me]).min_by_key(|node| node.distance(key)));
        if nearest == Some(me) { Duty::Ours(missing) } else { Duty::Others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u8]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId([*id; 16])).collect()
    }

    fn duty(placed: &[u8], me: u8, holders: &[u8]) -> Duty {
        Place::at(nodes(placed), 0).duty(&[0; 16], NodeId([me; 16]), &nodes(holders))
    }

    #[test]
    fn the_nearest_that_keeps_it_hands_it_over() {
        assert_eq!(duty(&[1, 2, 3], 1, &[1, 2, 3]), Duty::Nothing);
        // 3 died, 4 took its place.
        assert_eq!(duty(&[1, 2], 1, &[1, 2, 4]), Duty::Ours(nodes(&[4])));
        assert_eq!(duty(&[1, 2], 2, &[1, 2, 4]), Duty::Others);
        // A newcomer is the nearest, and pushed 3 out.
        assert_eq!(duty(&[2, 3, 4], 2, &[1, 2, 3]), Duty::Ours(nodes(&[1])));
        assert_eq!(duty(&[2, 3, 4], 4, &[1, 2, 3]), Duty::Others);
        // Two halves of a ring meet, and no holder of the whole keeps it.
        assert_eq!(duty(&[5, 6], 5, &[1, 2]), Duty::Ours(nodes(&[1, 2])));
        assert_eq!(duty(&[5, 6], 6, &[1, 2]), Duty::Others);
        assert_eq!(duty(&[], 6, &[1, 6]), Duty::Ours(nodes(&[1])), "nobody else is believed to keep it");
    }

    #[test]
    fn far_changes_do_not_concern_it() {
        let mut place = Place::at(nodes(&[1, 9]), NodeId([3; 16]).distance(&[0; 16]));
        let concerns = |place: &Place, id| place.concerns(&[0; 16], NodeId([id; 16]));
        assert!(concerns(&place, 2) && concerns(&place, 9) && !concerns(&place, 4));
        place.doubt(NodeId([9; 16]));
        assert!(!concerns(&place, 9));
        place.acknowledged(NodeId([4; 16]));
        assert!(concerns(&place, 4));
    }
}
