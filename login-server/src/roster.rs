//! Which supernodes serve, whose link is up, and which of them a bulletin names to start from.
//!
//! A realm may have thousands of supernodes and a bulletin names 32, so each says: first those that wait to be named
//! (a supernode serves once it saw itself named), in the order in which they came; then those whose state changed last;
//! the rest spread evenly over the ids, at other places in each epoch, so that newcomers do not all begin with the same
//! few. Whose link is down is named only where there is room. Nothing here looks at all supernodes at once: a change
//! and a choice cost a few steps down ordered trees, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use yodel_identity::limits::BULLETIN_SUPERNODES_MAX;
use yodel_identity::node::NodeId;
use yodel_wire::machine::LinkId;
use yodel_wire::time::Instant;

use crate::limits::{NAMED_NEWEST, NAMED_WAITING_MAX, PASSED_OVER_MAX, SUPERNODE_GONE_AFTER};

/// See the module's text. [`Roster::at`] tells the time before anything else of an input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    now: Instant,
    /// Who serves, with the number of its last change.
    serving: BTreeMap<NodeId, u64>,
    /// The same, those that changed last at the end.
    by_change: BTreeMap<u64, NodeId>,
    /// Those of them that no bulletin named since they came.
    waiting: BTreeMap<u64, NodeId>,
    changes: u64,
    /// Links by supernode, also of those that do not serve.
    links: BTreeMap<NodeId, BTreeSet<LinkId>>,
    /// Who serves and has a link.
    up: BTreeSet<NodeId>,
    /// Who serves and has none, for less than [`SUPERNODE_GONE_AFTER`], and since when.
    down: BTreeMap<NodeId, Instant>,
    down_since: BTreeSet<(Instant, NodeId)>,
}

impl Roster {
    /// It is this late.
    pub(crate) fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// This server begins, with none of their links.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.now = now;
        self.down_since = self.serving.keys().map(|node| (now, *node)).collect();
        self.down = self.serving.keys().map(|node| (*node, now)).collect();
    }

    /// How many serve.
    pub(crate) fn serving(&self) -> usize {
        self.serving.len()
    }

    /// Whether a supernode has a link.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.links.contains_key(&node)
    }

    /// A supernode's links.
    pub(crate) fn links_of(&self, node: NodeId) -> impl Iterator<Item = LinkId> {
        self.links.get(&node).into_iter().flatten().copied()
    }

    /// Whether somebody waits to be named.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A supernode serves from now on, or serves elsewhere: the next bulletin that has room names it.
    pub(crate) fn came(&mut self, node: NodeId) {
        self.serves(node);
        if let Some(change) = self.serving.get(&node).copied() {
            // Who asks again while it waits keeps its place.
            if !self.waiting.contains_key(&change) {
                self.by_change.remove(&change);
                let change = self.changed_now(node);
                self.waiting.insert(change, node);
            }
        }
    }

    /// A supernode serves, as it did before this server knew of it.
    pub(crate) fn serves(&mut self, node: NodeId) {
        if self.serving.contains_key(&node) {
            return;
        }
        self.changed_now(node);
        if self.links.contains_key(&node) {
            self.up.insert(node);
        } else {
            self.goes_down(node);
        }
    }

    /// A supernode does not serve any more.
    pub(crate) fn left(&mut self, node: NodeId) {
        if let Some(change) = self.serving.remove(&node) {
            self.by_change.remove(&change);
            self.waiting.remove(&change);
        }
        self.up.remove(&node);
        self.comes_up(node);
    }

    /// A link turned out to be a supernode's.
    pub(crate) fn linked(&mut self, node: NodeId, link: LinkId) {
        self.links.entry(node).or_default().insert(link);
        if self.serving.contains_key(&node) {
            self.comes_up(node);
            self.up.insert(node);
        }
    }

    /// A supernode's link ended.
    pub(crate) fn unlinked(&mut self, node: NodeId, link: LinkId) {
        let Some(links) = self.links.get_mut(&node) else { return };
        links.remove(&link);
        if links.is_empty() {
            self.links.remove(&node);
            if self.up.remove(&node) {
                self.goes_down(node);
            }
        }
    }

    /// When the next one that has no link is named no longer.
    pub(crate) fn next_gone(&self) -> Option<Instant> {
        self.down_since.first().map(|(since, _)| *since + SUPERNODE_GONE_AFTER)
    }

    /// Takes out who had no link for too long, until it has one again.
    pub(crate) fn take_gone(&mut self) -> Vec<NodeId> {
        let mut gone = Vec::new();
        while let Some((since, node)) = self.down_since.first().copied() {
            if self.now.since(since) < SUPERNODE_GONE_AFTER {
                break;
            }
            self.comes_up(node);
            if let Some(change) = self.serving.get(&node) {
                self.waiting.remove(change);
            }
            gone.push(node);
        }
        gone
    }

    /// Whom the bulletin of this epoch names; who is not `usable` is passed over.
    pub(crate) fn choose(&self, epoch: u64, usable: impl Fn(NodeId) -> bool) -> BTreeSet<NodeId> {
        let mut named = BTreeSet::new();
        let waiting = self.waiting.values().filter(|node| usable(**node));
        named.extend(waiting.take(NAMED_WAITING_MAX).copied());
        let newest = self.by_change.values().rev().take(PASSED_OVER_MAX);
        for node in newest.filter(|node| self.up.contains(*node) && usable(**node)) {
            if named.len() >= NAMED_NEWEST {
                break;
            }
            named.insert(*node);
        }
        spread(epoch, &mut named, &usable, |from| {
            self.up.range(from..).chain(self.up.range(..from)).copied().take(PASSED_OVER_MAX).collect()
        });
        spread(epoch, &mut named, &usable, |from| {
            let down = self.down.range(from..).chain(self.down.range(..from));
            down.map(|(node, _)| *node).take(PASSED_OVER_MAX).collect()
        });
        named
    }

    /// A bulletin named these; and who waits without being `usable` waits for nothing.
    pub(crate) fn named(&mut self, nodes: &BTreeSet<NodeId>, usable: impl Fn(NodeId) -> bool) {
        self.waiting.retain(|_, node| !nodes.contains(node) && usable(*node));
    }

    fn changed_now(&mut self, node: NodeId) -> u64 {
        let change = self.changes;
        self.changes += 1;
        self.serving.insert(node, change);
        self.by_change.insert(change, node);
        change
    }

    fn goes_down(&mut self, node: NodeId) {
        self.down.insert(node, self.now);
        self.down_since.insert((self.now, node));
    }

    fn comes_up(&mut self, node: NodeId) {
        if let Some(since) = self.down.remove(&node) {
            self.down_since.remove(&(since, node));
        }
    }
}

/// Fills the rest of `named` with those next to evenly spaced ids. The golden ratio moves the spacing from epoch to
/// epoch so that it never falls on the same places and leaves no gap for long (Weyl's sequence).
fn spread(
    epoch: u64,
    named: &mut BTreeSet<NodeId>,
    usable: &impl Fn(NodeId) -> bool,
    from: impl Fn(NodeId) -> Vec<NodeId>,
) {
    let room = u64::try_from(BULLETIN_SUPERNODES_MAX.saturating_sub(named.len())).unwrap_or(0);
    let Some(step) = u64::MAX.checked_div(room) else { return };
    let offset = epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for place in 0..room {
        let point = offset.wrapping_add(step.wrapping_mul(place));
        let id = NodeId((u128::from(point) << 64).to_be_bytes());
        match from(id).into_iter().find(|node| !named.contains(node) && usable(*node)) {
            Some(node) => named.insert(node),
            // Nobody else is there at all, or a long row of them is of no use.
            None => continue,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    /// Ids as scattered as real ones.
    fn node(number: u64) -> NodeId {
        let bits = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        NodeId(bits.to_be_bytes())
    }

    fn come(roster: &mut Roster, number: u64) {
        roster.linked(node(number), LinkId(number));
        roster.came(node(number));
    }

    fn choose(roster: &Roster, epoch: u64) -> BTreeSet<NodeId> {
        roster.choose(epoch, |_| true)
    }

    fn publish(roster: &mut Roster, epoch: u64) -> BTreeSet<NodeId> {
        let named = choose(roster, epoch);
        roster.named(&named, |_| true);
        named
    }

    /// A realm of this many that were all named.
    fn realm(supernodes: u64) -> Roster {
        let mut roster = Roster::default();
        (0..supernodes).for_each(|number| come(&mut roster, number));
        let mut epoch = 0;
        while roster.anybody_waits() {
            epoch += 1;
            publish(&mut roster, epoch);
        }
        roster
    }

    #[test]
    fn a_small_realm_is_named_whole() {
        for supernodes in [0, 1, 2, 7, 31, 32] {
            let roster = realm(supernodes);
            let all: BTreeSet<NodeId> = (0..supernodes).map(node).collect();
            for epoch in 1..50 {
                assert_eq!(choose(&roster, epoch), all, "{supernodes} supernodes, epoch {epoch}");
            }
        }
        let mut roster = realm(32);
        (0..32).for_each(|number| roster.unlinked(node(number), LinkId(number)));
        assert_eq!(choose(&roster, 1).len(), 32, "without a link there is still room");
    }

    #[test]
    fn the_newest_are_named_and_the_rest_in_turn() {
        let mut roster = realm(10_000);
        let mut ever = BTreeSet::new();
        let newest: Vec<NodeId> = (10_000 - 16..10_000).map(node).collect();
        let mut last = BTreeSet::new();
        for epoch in 0..4_000 {
            let named = publish(&mut roster, epoch);
            assert_eq!(named.len(), 32);
            assert!(newest.iter().all(|node| named.contains(node)), "epoch {epoch}");
            assert_ne!(named, last);
            assert_eq!(named, choose(&roster, epoch), "the same epoch names the same");
            ever.extend(named.iter().copied());
            last = named;
        }
        assert!(ever.len() >= 9_900, "{} of 10,000 were named within 4,000 epochs", ever.len());
        come(&mut roster, 77);
        assert!(choose(&roster, 9).contains(&node(77)), "moved elsewhere, thus among the newest");
    }

    #[test]
    fn a_crowd_of_newcomers_is_named_in_order_and_nobody_twice() {
        let mut roster = realm(100);
        (100..1_100).for_each(|number| come(&mut roster, number));
        // All ask again, over and over: nobody loses or gains a place.
        (100..1_100).for_each(|number| roster.came(node(number)));
        let mut ever = BTreeSet::new();
        for epoch in 0..42 {
            ever.extend(publish(&mut roster, epoch));
            let upto = (100 + (epoch + 1) * NAMED_WAITING_MAX as u64).min(1_100);
            assert!((100..upto).all(|number| ever.contains(&node(number))), "epoch {epoch}");
        }
        assert!(!roster.anybody_waits());
    }

    #[test]
    fn who_has_no_link_gives_way_and_is_gone_after_a_while() {
        let mut roster = realm(100);
        roster.at(at(0));
        (0..90).for_each(|number| roster.unlinked(node(number), LinkId(number)));
        let named = choose(&roster, 1);
        assert!((90..100).all(|number| named.contains(&node(number))));
        assert_eq!(named.len(), 32, "the others fill up");
        assert_eq!(roster.next_gone(), Some(at(0) + SUPERNODE_GONE_AFTER));
        roster.at(at(0) + SUPERNODE_GONE_AFTER);
        assert_eq!(roster.take_gone().len(), 90);
        assert_eq!(choose(&roster, 2).len(), 10);
        roster.linked(node(5), LinkId(5));
        assert!(choose(&roster, 3).contains(&node(5)), "back with its link");
        assert_eq!(roster.serving(), 100);
    }

    #[test]
    fn who_leaves_or_is_of_no_use_is_not_named() {
        let mut roster = realm(40);
        roster.left(node(39));
        come(&mut roster, 40);
        roster.left(node(40));
        assert!(!roster.anybody_waits());
        come(&mut roster, 38);
        let named = roster.choose(5, |other| other != node(38));
        roster.named(&named, |other| other != node(38));
        assert!(!roster.anybody_waits(), "no bulletin after the other for one that cannot be named");
        assert_eq!(named.len(), 32);
        assert!([38, 39, 40].iter().all(|number| !named.contains(&node(*number))));
        let mut roster = realm(3);
        (0..3).for_each(|number| roster.left(node(number)));
        assert!(choose(&roster, 1).is_empty());
    }

    #[test]
    fn the_last_of_two_links_counts() {
        let mut roster = realm(1);
        roster.linked(node(0), LinkId(7));
        roster.unlinked(node(0), LinkId(0));
        assert!(roster.is_up(node(0)));
        assert_eq!(roster.links_of(node(0)).collect::<Vec<_>>(), [LinkId(7)]);
        roster.unlinked(node(0), LinkId(7));
        assert!(!roster.is_up(node(0)));
        assert!(roster.next_gone().is_some());
    }
}
