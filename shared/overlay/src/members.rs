//! Who counts as a member right now: whom the bulletin names and whose link is up, or has been down for less than five
//! seconds. Whoever runs this counts itself when it is named.

use std::collections::{BTreeMap, BTreeSet};

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

use crate::limits::{LINK_DOWN, MEMBERS_MAX};
use crate::placement::Member;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Own,
    Up,
    Down(Instant),
}

/// The members that the bulletin names, and how their links stand.
#[derive(Debug)]
pub struct Members {
    me: NodeId,
    named: BTreeMap<NodeId, (Member, Link)>,
}

impl Members {
    /// Nobody is named yet.
    pub fn new(me: NodeId) -> Members {
        Members { me, named: BTreeMap::new() }
    }

    /// A bulletin names these. Links of whom it names still stand; a newcomer has five seconds to get one.
    pub fn set(&mut self, now: Instant, members: impl IntoIterator<Item = Member>) {
        let mut named = BTreeMap::new();
        for member in members.into_iter().take(MEMBERS_MAX) {
            let link = match self.named.get(&member.node) {
                _ if member.node == self.me => Link::Own,
                Some((_, link)) => *link,
                None => Link::Down(now),
            };
            named.insert(member.node, (member, link));
        }
        self.named = named;
    }

    /// The link to this member is up.
    pub fn link_up(&mut self, node: NodeId) {
        if let Some((_, link)) = self.named.get_mut(&node)
            && *link != Link::Own
        {
            *link = Link::Up;
        }
    }

    /// The link to this member ended.
    pub fn link_down(&mut self, now: Instant, node: NodeId) {
        if let Some((_, link)) = self.named.get_mut(&node)
            && *link == Link::Up
        {
            *link = Link::Down(now);
        }
    }

    /// Whether this node is named by the bulletin.
    pub fn is_named(&self, node: NodeId) -> bool {
        self.named.contains_key(&node)
    }

    /// Whether frames to this member leave now. Oneself is always up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.named.get(&node).is_some_and(|(_, link)| matches!(link, Link::Own | Link::Up))
    }

    /// Who counts now, by ascending id.
    pub fn live(&self, now: Instant) -> Vec<Member> {
        self.named.values().filter(|(_, link)| counts(*link, now)).map(|(member, _)| *member).collect()
    }

    /// All that the bulletin names.
    pub fn named(&self) -> BTreeSet<NodeId> {
        self.named.keys().copied().collect()
    }

    /// When somebody stops to count.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.named
            .values()
            .filter_map(|(_, link)| match link {
                Link::Down(since) if counts(*link, now) => Some(*since + LINK_DOWN),
                Link::Own | Link::Up | Link::Down(_) => None,
            })
            .min()
    }
}

fn counts(link: Link, now: Instant) -> bool {
    match link {
        Link::Own | Link::Up => true,
        Link::Down(since) => now < since + LINK_DOWN,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use yodel_identity::node::OwnerTag;

    use super::*;

    fn member(node: u8) -> Member {
        Member { node: NodeId([node; 16]), owner: OwnerTag([node; 16]), ip: None }
    }

    #[test]
    fn five_seconds_to_the_millisecond() {
        let mut members = Members::new(NodeId([1; 16]));
        let start = Instant::from_micros(7);
        members.set(start, [1, 2, 3].map(member));
        members.link_up(NodeId([2; 16]));
        let late = start + LINK_DOWN;
        assert_eq!(members.live(late - Duration::from_millis(1)).len(), 3);
        assert_eq!(members.deadline(start), Some(late));
        assert_eq!(members.live(late), [member(1), member(2)]);
        assert_eq!(members.deadline(late), None);
        members.link_down(late, NodeId([2; 16]));
        members.link_down(late + LINK_DOWN / 2, NodeId([2; 16]));
        assert_eq!(members.live(late + LINK_DOWN), [member(1)], "only the first end counts");
        members.link_up(NodeId([2; 16]));
        members.set(late, [2, 3].map(member));
        assert_eq!(
            members.live(late + LINK_DOWN),
            [member(2)],
            "who is not named does not count, nor oneself"
        );
        assert!(!members.is_up(NodeId([1; 16])));
    }
}
