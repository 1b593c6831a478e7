//! What all calls of a device share: who it is, its homes and addresses, transactions, and the way out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_nat::Candidate;
use yodel_sip::envelope::Envelope;
use yodel_sip::ids::Ids;
use yodel_sip::message::{Request, RequestParts, Response};
use yodel_sip::method::Method;
use yodel_sip::transaction::{Key, Transactions, Way};
use yodel_sip::uri::{NameAddr, Uri};

use crate::contacts::{Admission, Contact, Tag};
use crate::event::{CallsOutput, CodecFactory, Config, Home, Identity, LookupId, RelayLink, Role};
use crate::handshake::CallerProof;
use crate::limits::{CALL_IDS_SEEN_MAX, ENVELOPES_MAX, HOMES_MAX};
use crate::terms::Terms;

/// Content type of the handshake of an INVITE or MESSAGE.
pub(crate) const HELLO_TYPE: &str = "application/yodel-hello";

/// Content type of a box.
pub(crate) const BOX_TYPE: &str = "application/yodel-box";

pub(crate) struct Device {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) codecs: Box<dyn CodecFactory>,
    pub(crate) homes: Vec<Home>,
    pub(crate) links: BTreeMap<NodeId, RelayLink>,
    pub(crate) hosts: Vec<SocketAddr>,
    pub(crate) reflexive: Vec<SocketAddr>,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) ids: Ids,
    pub(crate) tx: Transactions,
    pub(crate) out: VecDeque<CallsOutput>,
    /// Requests by the number of the envelope they went out in.
    pub(crate) sent: BTreeMap<u64, (Key, Way)>,
    pub(crate) seen: Seen,
    pub(crate) envelopes: u64,
    pub(crate) lookups: u64,
}

/// Call-IDs that came under this start's nonce.
#[derive(Default)]
pub(crate) struct Seen {
    set: BTreeSet<String>,
    of_contacts: VecDeque<String>,
    of_strangers: VecDeque<String>,
}

impl Seen {
    /// Whether it is new; remembers it. Strangers push out strangers' only.
    pub(crate) fn take(&mut self, call_id: &str, admission: Admission) -> bool {
        if !self.set.insert(call_id.to_owned()) {
            return false;
        }
        let order = match admission {
            Admission::Mutual | Admission::Accepted => &mut self.of_contacts,
            Admission::Stranger | Admission::Blocked | Admission::KeyChanged => &mut self.of_strangers,
        };
        order.push_back(call_id.to_owned());
        if order.len() > CALL_IDS_SEEN_MAX
            && let Some(oldest) = order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }

    pub(crate) fn contains(&self, call_id: &str) -> bool {
        self.set.contains(call_id)
    }

    pub(crate) fn clear(&mut self) {
        *self = Seen::default();
    }
}

/// A device of the peer and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) homes: Vec<NodeId>,
}

impl Device {
    pub(crate) fn node(&self) -> NodeId {
        self.identity.credential.node
    }

    pub(crate) fn realm(&self) -> &str {
        self.identity.credential.realm.as_str()
    }

    /// This device's homes; an echo is its own.
    pub(crate) fn home_ids(&self) -> Vec<NodeId> {
        match self.config.role {
            Role::Phone => self.homes.iter().take(HOMES_MAX).map(|home| home.credential.node).collect(),
            Role::Echo => vec![self.node()],
        }
    }

    pub(crate) fn relay_link(&self, relay: NodeId) -> Option<RelayLink> {
        let home = self.homes.iter().find(|home| home.credential.node == relay);
        home.map(|home| home.link).or_else(|| self.links.get(&relay).copied())
    }

    pub(crate) fn contact(&self, aor: &Aor) -> Option<&Contact> {
        self.contacts.iter().find(|contact| contact.aor == *aor)
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let ranked = |addrs: &[SocketAddr], make: fn(SocketAddr, u16) -> Candidate| -> Vec<Candidate> {
            addrs.iter().zip(0u16..).map(|(addr, rank)| make(*addr, rank)).collect()
        };
        let mut all = ranked(&self.hosts, Candidate::host);
        all.extend(ranked(&self.reflexive, Candidate::reflexive));
        all
    }

    pub(crate) fn proof(&self) -> CallerProof {
        CallerProof {
            credential: self.identity.credential.bytes().to_vec(),
            record: self.identity.record.clone(),
        }
    }

    /// Terms with what every one of ours says.
    pub(crate) fn terms(&self, sdp: Vec<u8>, peer: &Aor) -> Terms {
        let contact = self.contact(peer).filter(|contact| contact.accepted && !contact.blocked);
        Terms {
            sdp,
            shown: contact.and_then(|contact| contact.tag_held),
            given: contact.and_then(|contact| contact.tag_given),
            homes: self.home_ids(),
            ..Terms::default()
        }
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    pub(crate) fn tag(&mut self) -> Tag {
        let mut tag = [0; 16];
        self.rng.fill_bytes(&mut tag);
        Tag(tag)
    }

    pub(crate) fn lookup_id(&mut self) -> LookupId {
        self.lookups += 1;
        LookupId(self.lookups)
    }

    /// A request outside any dialog. Names in it are node ids: homes learn nothing from them that the envelope does
    /// not say.
    pub(crate) fn first_request(&mut self, method: Method, to: NodeId, call_id: &str) -> Request {
        let from = NameAddr::new(Uri::node(self.node(), self.realm())).with_tag(&self.ids.tag());
        let uri = Uri::node(to, self.realm());
        let branch = self.ids.branch();
        let mut request = Request::new(&RequestParts {
            method,
            uri: uri.clone(),
            from: &from,
            to: &NameAddr::new(uri),
            call_id,
            cseq: 1,
            branch: &branch,
        });
        request.headers.add("Contact", &NameAddr::new(Uri::node(self.node(), self.realm())).to_string());
        request
    }

    /// Sends a request by one of the two ways.
    pub(crate) fn send_request(&mut self, way: Way, peer: &Peer, request: &Request) {
        let Some((via, to)) = pick(&self.home_ids(), &peer.homes, way) else { return };
        let id = self.send(via, to, peer.node, request.encode());
        if let Some(key) = Key::of(peer.node, request) {
            self.sent.insert(id, (key, way));
            if self.sent.len() > ENVELOPES_MAX {
                self.sent.pop_first();
            }
        }
    }

    /// Sends an answer: the first way is the one its request came by, as (our home, the peer's home).
    pub(crate) fn send_response(
        &mut self,
        way: Way,
        peer: &Peer,
        came_by: Option<(NodeId, NodeId)>,
        response: &Response,
    ) {
        let homes = self.home_ids();
        let chosen = match (way, came_by) {
            (Way::First, Some((via, to))) if homes.contains(&via) => Some((via, to)),
            (Way::Second, Some((via, to))) => {
                let other =
                    |all: &[NodeId], one| all.iter().copied().find(|id| *id != one).or(all.first().copied());
                other(&homes, via).zip(other(&peer.homes, to))
            }
            (Way::First, _) | (Way::Second, None) => pick(&homes, &peer.homes, way),
        };
        if let Some((via, to)) = chosen {
            self.send(via, to, peer.node, response.encode());
        }
    }

    fn send(&mut self, via: NodeId, to_home: NodeId, to: NodeId, message: Vec<u8>) -> u64 {
        self.envelopes += 1;
        let envelope = Envelope {
            to,
            to_home: (to_home != via).then_some(to_home),
            from: self.node(),
            from_home: via,
            message,
            id: self.envelopes,
            by_home: false,
        };
        self.out.push_back(CallsOutput::Sip { via_home: via, envelope });
        self.envelopes
    }
}

/// The two ways between two devices' homes. They have no supernode in common where that is possible, so that one death
/// never closes both: through a home of both first, else the first homes, then the seconds.
fn pick(ours: &[NodeId], theirs: &[NodeId], way: Way) -> Option<(NodeId, NodeId)> {
    let common = ours.iter().copied().find(|home| theirs.contains(home));
    let first = common.map(|home| (home, home)).or(ours.first().copied().zip(theirs.first().copied()))?;
    let other = |all: &[NodeId], one: NodeId| all.iter().copied().find(|home| *home != one).unwrap_or(one);
    match way {
        Way::First => Some(first),
        Way::Second => Some((other(ours, first.0), other(theirs, first.1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_share_no_supernode_where_there_are_others() {
        let nodes = |all: &[u8]| all.iter().map(|n| NodeId([*n; 16])).collect::<Vec<_>>();
        for (ours, theirs) in
            [([1, 2], [3, 4]), ([1, 2], [2, 3]), ([1, 2], [2, 1]), ([1, 2], [1, 2]), ([1, 2], [3, 1])]
        {
            let (ours, theirs) = (nodes(&ours), nodes(&theirs));
            let first = pick(&ours, &theirs, Way::First).unwrap();
            let second = pick(&ours, &theirs, Way::Second).unwrap();
            for node in [second.0, second.1] {
                assert!(node != first.0 && node != first.1, "{ours:?} {theirs:?}");
            }
        }
        let (one, none) = (nodes(&[1]), nodes(&[]));
        assert_eq!(pick(&one, &one, Way::Second), Some((one[0], one[0])));
        assert_eq!(pick(&one, &none, Way::First), None);
    }

    #[test]
    fn strangers_do_not_make_a_contacts_call_id_forgotten() {
        let mut seen = Seen::default();
        assert!(seen.take("alice", Admission::Accepted));
        for number in 0..=CALL_IDS_SEEN_MAX {
            assert!(seen.take(&number.to_string(), Admission::Stranger));
        }
        assert!(!seen.take("alice", Admission::Accepted) && !seen.take("alice", Admission::Stranger));
        assert!(!seen.contains("0") && seen.contains("1"), "the oldest of strangers went");
        assert!(seen.set.len() <= 2 * CALL_IDS_SEEN_MAX);
    }
}
