//! Which members hold a key. Everybody computes the same set from the same members.
//!
//! Members are walked by the distance of their node ids from the key (Kademlia's exclusive or). A member is skipped when
//! a nearer one was taken that has the same owner, or an IPv4 address in the same /24: one owner or one network shall not
//! hold all copies. When the walk ends before K were taken, the skipped fill up, nearest first. The nearer a member, the
//! earlier it stands in the result. The walk ends after [`WALK_MAX`] members, for everybody alike.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;

use yodel_identity::node::{NodeId, OwnerTag};

use crate::limits::{HOLDERS_MAX, WALK_MAX};

/// What placement looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its certified id.
    pub node: NodeId,
    /// Its owner, unnamed.
    pub owner: OwnerTag,
    /// Its first IPv4 address in the bulletin, if it has one.
    pub ip: Option<Ipv4Addr>,
}

/// Takes members, the nearest to a key first, and says which hold it.
#[derive(Debug)]
pub struct Placement<T> {
    taken: Vec<T>,
    skipped: Vec<T>,
    owners: Vec<OwnerTag>,
    networks: Vec<[u8; 3]>,
    seen: usize,
}

impl<T> Default for Placement<T> {
    fn default() -> Placement<T> {
        Placement {
            taken: Vec::new(),
            skipped: Vec::new(),
            owners: Vec::new(),
            networks: Vec::new(),
            seen: 0,
        }
    }
}

impl<T> Placement<T> {
    /// The next nearest; whether further ones are wanted.
    pub fn offer(&mut self, name: T, member: &Member) -> ControlFlow<()> {
        self.seen += 1;
        let network = member.ip.map(|ip| {
            let [a, b, c, _] = ip.octets();
            [a, b, c]
        });
        if self.owners.contains(&member.owner) || network.is_some_and(|net| self.networks.contains(&net)) {
            if self.skipped.len() < HOLDERS_MAX {
                self.skipped.push(name);
            }
        } else {
            self.owners.push(member.owner);
            self.networks.extend(network);
            self.taken.push(name);
        }
        let done = self.taken.len() == HOLDERS_MAX || self.seen == WALK_MAX;
        if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The holders, nearest first, then those that fill up: min(8, members).
    pub fn holders(mut self) -> Vec<T> {
        self.taken.append(&mut self.skipped);
        self.taken.truncate(HOLDERS_MAX);
        self.taken
    }
}

/// Holders that must keep a write before it is acknowledged: min(3, ⌊K/2⌋ + 1).
pub fn write_quorum(holders: usize) -> usize {
    3.min(holders / 2 + 1)
}

/// Holders that must say "none" before an account does not exist: min(3, K).
pub fn none_quorum(holders: usize) -> usize {
    crate::limits::NONE_QUORUM.min(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The holders of `key` among `members`, in any order, each once.
    fn holders(members: &[Member], key: &[u8; 16]) -> Vec<NodeId> {
        let mut near: Vec<&Member> = members.iter().collect();
        near.sort_by_key(|member| (member.node.distance(key), member.node));
        let mut placement = Placement::default();
        for member in near {
            if placement.offer(member.node, member).is_break() {
                break;
            }
        }
        placement.holders()
    }

    fn member(node: u8, owner: u8, ip: [u8; 4]) -> Member {
        Member {
            node: NodeId([node; 16]),
            owner: OwnerTag([owner; 16]),
            ip: (ip != [0; 4]).then(|| Ipv4Addr::from(ip)),
        }
    }

    fn first_bytes(nodes: &[NodeId]) -> Vec<u8> {
        nodes.iter().map(|node| node.0[0]).collect()
    }

    /// Ten members; owner 1 has two, and two share a /24.
    fn ten() -> Vec<Member> {
        vec![
            member(0x01, 1, [203, 0, 113, 1]),
            member(0x13, 1, [198, 51, 100, 1]),
            member(0x22, 2, [192, 0, 2, 1]),
            member(0x35, 3, [192, 0, 2, 2]),
            member(0x48, 4, [10, 0, 1, 1]),
            member(0x5a, 5, [10, 0, 2, 1]),
            member(0x6c, 6, [0, 0, 0, 0]),
            member(0x7f, 7, [0, 0, 0, 0]),
            member(0x90, 8, [10, 0, 3, 1]),
            member(0xee, 9, [10, 0, 4, 1]),
        ]
    }

    #[test]
    fn golden_walk_skips_and_fills() {
        // By distance from 00…: 01 13 22 35 48 5a 6c 7f 90 ee; 13 repeats an owner, 35 a /24.
        assert_eq!(first_bytes(&holders(&ten(), &[0; 16])), [0x01, 0x22, 0x48, 0x5a, 0x6c, 0x7f, 0x90, 0xee]);
        // By distance from 30…: 35(05) 22(12) 13(23) 01(31) 7f(4f) 6c(5c) 5a(6a) 48(78) 90(a0) ee(de).
        assert_eq!(
            first_bytes(&holders(&ten(), &[0x30; 16])),
            [0x35, 0x13, 0x7f, 0x6c, 0x5a, 0x48, 0x90, 0xee]
        );
        // Without the last two, the skipped fill up in order of distance.
        assert_eq!(
            first_bytes(&holders(&ten()[..8], &[0x30; 16])),
            [0x35, 0x13, 0x7f, 0x6c, 0x5a, 0x48, 0x22, 0x01]
        );
        let mut reversed = ten();
        reversed.reverse();
        assert_eq!(holders(&reversed, &[0x30; 16]), holders(&ten(), &[0x30; 16]), "order does not matter");
    }

    #[test]
    fn few_members_hold_everything() {
        let one_owner = [1, 2, 3].map(|n| member(n, 9, [192, 0, 2, n]));
        for count in 0..=3 {
            assert_eq!(holders(&one_owner[..count], &[0; 16]).len(), count);
        }
        assert_eq!([0, 1, 2, 3, 4, 5, 8].map(write_quorum), [1, 1, 2, 2, 3, 3, 3]);
        assert_eq!([1, 2, 3, 8].map(none_quorum), [1, 2, 3, 3]);
    }
}
