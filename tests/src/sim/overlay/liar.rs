//! What a lying supernode says. It is the real machine; what it says to members is opened on its way out with the keys
//! that sealed it, altered and sealed again, so that whoever gets it opens it like anything else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::keys::{SealingKey, SealingPublic, SigningKey};
use yodel_identity::node::NodeId;
use yodel_identity::seal::{hkdf32, open, seal};
use yodel_overlay::card::{Card, Service};
use yodel_overlay::directory::Slot;
use yodel_overlay::message::{Message, News, Probe, Sight};
use yodel_overlay::record::{Answer, Standing};
use yodel_overlay::sealed::{HEADER_BYTES, KeyId};
use yodel_supernode::node::{Event, Supernode};
use yodel_wire::first_byte::{DATAGRAM_VERSION, OVERLAY};
use yodel_wire::frame::FrameKind;
use yodel_wire::machine::{LinkAction, Output};
use yodel_wire::time::Instant;

/// How late an answer comes that comes late: after most lookups are settled, before a request is given up.
const LATE: Duration = Duration::from_millis(400);

/// How often a liar gossips without being asked, and to how many.
const GOSSIP_EVERY: Duration = Duration::from_millis(500);
const GOSSIP_FANOUT: usize = 4;

/// Sights in a gossip: of each kind of lie.
const DEATHS: usize = 20;
const RAISED: usize = 8;
const INVENTED: usize = 20;

/// What a holder says of a record instead of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// An entry that its device did not sign.
    Forge,
    /// The entries before the newest ones, still valid.
    RollBack,
    /// All devices but one.
    LeaveOut,
    /// That there is none.
    Withhold,
    /// The truth, late.
    Late,
}

/// All of them.
pub(super) const LIES: [Lie; 5] = [Lie::Forge, Lie::RollBack, Lie::LeaveOut, Lie::Withhold, Lie::Late];

/// What liars know, and tell each other.
#[derive(Default)]
pub(super) struct Plot {
    /// Who is at an address.
    pub(super) peers: BTreeMap<SocketAddr, (NodeId, SealingPublic)>,
    /// Whose record this is.
    pub(super) keys: BTreeMap<Vec<u8>, [u8; 16]>,
    /// The entries of an account as they were before the last write of each device.
    pub(super) older: BTreeMap<[u8; 16], Vec<Vec<u8>>>,
    /// Who lies about what.
    pub(super) lies: BTreeMap<([u8; 16], NodeId), Lie>,
}

/// An output after it went through a liar: it leaves at once, or after a while.
pub(super) struct Told {
    pub(super) output: Output<Event>,
    pub(super) delay: Option<Duration>,
}

/// A liar's own keys and what it is up to.
pub(super) struct Liar {
    node: NodeId,
    sealing: SealingKey,
    signing: SigningKey,
    plot: Rc<RefCell<Plot>>,
    /// Keys towards each address.
    pairs: BTreeMap<SocketAddr, [u8; 32]>,
    rng: ChaCha20Rng,
    counter: u64,
    /// When it gossips next, if it lies about members.
    next_gossip: Option<Instant>,
    /// Lies told about records.
    pub(super) about_records: u64,
    /// Node ids told of that nobody has.
    pub(super) invented: u64,
}

impl Liar {
    pub(super) fn new(
        node: NodeId,
        (sealing, signing): (SealingKey, SigningKey),
        plot: Rc<RefCell<Plot>>,
        seed: [u8; 32],
    ) -> Liar {
        Liar {
            node,
            sealing,
            signing,
            plot,
            pairs: BTreeMap::new(),
            rng: ChaCha20Rng::from_seed(seed),
            counter: 0,
            next_gossip: None,
            about_records: 0,
            invented: 0,
        }
    }

    /// It lies about members too, from this moment on.
    pub(super) fn gossiping(self, now: Instant) -> Liar {
        Liar { next_gossip: Some(now), ..self }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_gossip
    }

    /// Turns what the machine wants to say into what is said.
    pub(super) fn tell(&mut self, output: Output<Event>, supernode: &Supernode) -> Told {
        match output {
            Output::Datagram { to, bytes } if bytes.first() == Some(&OVERLAY) => {
                let Some(message) = self.read(to, &bytes) else {
                    return Told { output: Output::Datagram { to, bytes }, delay: None };
                };
                let (altered, delay) = self.alter(message, supernode);
                let sealed = altered.and_then(|message| self.seal(to, &bytes, &message));
                let output = Output::Datagram { to, bytes: sealed.unwrap_or(bytes) };
                Told { output, delay }
            }
            Output::Link(link, LinkAction::Write(frame)) if frame.kind == FrameKind::Answer => {
                let answer = Answer::decode(&frame.body).unwrap();
                let (altered, delay) = self.alter_answer(answer);
                let output = Output::Link(link, LinkAction::Write(altered.encode()));
                Told { output, delay }
            }
            output => Told { output, delay: None },
        }
    }

    /// Gossip of its own.
    pub(super) fn spread(&mut self, now: Instant, supernode: &Supernode) -> Vec<Output<Event>> {
        if self.next_gossip.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.next_gossip = Some(now + GOSSIP_EVERY);
        let to: Vec<SocketAddr> = (0..GOSSIP_FANOUT)
            .filter_map(|_| {
                let slot = self.somebody(supernode)?;
                supernode.ring().membership().addr_of(slot)
            })
            .collect();
        let mut outputs = Vec::new();
        for to in to {
            let message = Message::Gossip(self.slander(supernode));
            let header = self.header(to);
            if let Some(bytes) = header.and_then(|header| self.seal(to, &header, &message)) {
                outputs.push(Output::Datagram { to, bytes });
            }
        }
        outputs
    }

    fn alter(&mut self, message: Message, supernode: &Supernode) -> (Option<Message>, Option<Duration>) {
        match message {
            Message::Answer { id, standing, account, entries } => {
                let answer = Answer { account, entries, ..Answer::empty(0, standing) };
                let (Answer { standing, account, entries, .. }, delay) = self.alter_answer(answer);
                (Some(Message::Answer { id, standing, account, entries }), delay)
            }
            Message::Ack(probe) if self.next_gossip.is_some() => {
                let news = self.slander(supernode);
                (Some(Message::Ack(Probe { news, ..probe })), None)
            }
            _ => (None, None),
        }
    }

    fn alter_answer(&mut self, answer: Answer) -> (Answer, Option<Duration>) {
        let plot = self.plot.borrow();
        let key = answer.account.as_ref().and_then(|account| plot.keys.get(account));
        let lie = key.and_then(|key| Some((key, *plot.lies.get(&(*key, self.node))?)));
        let Some((key, lie)) = lie else { return (answer, None) };
        self.about_records += 1;
        let mut entries = answer.entries.clone();
        match lie {
            Lie::Forge => {
                for entry in &mut entries {
                    *entry.last_mut().unwrap() ^= 1;
                }
                (Answer { entries, ..answer }, None)
            }
            Lie::RollBack => {
                let entries = plot.older.get(key).cloned().unwrap_or_default();
                (Answer { entries, ..answer }, None)
            }
            Lie::LeaveOut => {
                entries.pop();
                (Answer { entries, ..answer }, None)
            }
            Lie::Withhold => {
                (Answer { settled: answer.settled, ..Answer::empty(answer.id, Standing::None) }, None)
            }
            Lie::Late => (answer, Some(LATE)),
        }
    }

    /// Honest members declared dead, their incarnations raised, members that nobody is, and an announcement that its
    /// member did not sign.
    fn slander(&mut self, supernode: &Supernode) -> News {
        let mut news = News::default();
        for number in 0..DEATHS + RAISED {
            let Some(mut sight) = self.somebody(supernode).and_then(|slot| sight(supernode, slot)) else {
                continue;
            };
            if number >= DEATHS {
                sight.incarnation += 1_000;
            }
            if number % 2 == 0 { news.deaths.push(sight) } else { news.suspicions.push(sight) }
        }
        for _ in 0..INVENTED / 2 {
            self.invented += 2;
            news.deaths.push(Sight { node: self.invent(), incarnation: 1 });
            news.suspicions.push(Sight { node: self.invent(), incarnation: 1 });
        }
        // Room is left for one.
        news.deaths.truncate(18);
        news.suspicions.truncate(18);
        news.announcements.extend(self.forged_announcement(supernode));
        news
    }

    fn forged_announcement(&mut self, supernode: &Supernode) -> Option<Vec<u8>> {
        let slot = self.somebody(supernode)?;
        let card = supernode.ring().membership().directory().card(slot)?;
        let announced = card.announcement();
        let (credential, incarnation) = (card.credential().clone(), announced.incarnation + 1_000);
        let (udp, tcp) = (announced.udp.clone(), announced.tcp.clone());
        let forged = Card::sign(&self.signing, credential, incarnation, Service::Left, udp, tcp).ok()?;
        Some(forged.announcement().bytes().to_vec())
    }

    fn invent(&mut self) -> NodeId {
        let mut node = NodeId([0; 16]);
        self.rng.fill_bytes(&mut node.0);
        node
    }

    fn somebody(&mut self, supernode: &Supernode) -> Option<Slot> {
        let membership = supernode.ring().membership();
        let all: Vec<Slot> = membership.known().map(|(slot, _)| slot).collect();
        let at = self.rng.next_u64().checked_rem(all.len() as u64)?;
        all.get(at as usize).copied().filter(|slot| *slot != membership.me())
    }

    /// What the machine sealed.
    fn read(&mut self, to: SocketAddr, bytes: &[u8]) -> Option<Message> {
        let key = self.pair(to)?;
        let (header, sealed) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let plain = open(&key, &nonce(header), header, sealed).ok()?;
        Message::decode(&plain).ok()
    }

    /// Seals under the header given, with a counter that the machine does not reach.
    fn seal(&mut self, to: SocketAddr, header: &[u8], message: &Message) -> Option<Vec<u8>> {
        let key = self.pair(to)?;
        let mut header = *header.first_chunk::<HEADER_BYTES>()?;
        self.counter += 1;
        header[30..38].copy_from_slice(&(1 << 63 | self.counter).to_be_bytes());
        let sealed = seal(&key, &nonce(&header), &header, &message.encode()?);
        Some([&header[..], &sealed].concat())
    }

    fn header(&self, to: SocketAddr) -> Option<Vec<u8>> {
        let (_, peer) = *self.plot.borrow().peers.get(&to)?;
        let (own, peer) = (KeyId::of(&self.sealing.public()), KeyId::of(&peer));
        let mut header = vec![OVERLAY, DATAGRAM_VERSION];
        header.extend_from_slice(&self.node.0);
        header.extend_from_slice(&own.0);
        header.extend_from_slice(&peer.0);
        header.extend_from_slice(&[0xa5; 16]);
        Some(header)
    }

    /// The key of what goes there; see `yodel_overlay::sealed`.
    fn pair(&mut self, to: SocketAddr) -> Option<[u8; 32]> {
        if let Some(key) = self.pairs.get(&to) {
            return Some(*key);
        }
        let (node, public) = *self.plot.borrow().peers.get(&to)?;
        let shared = self.sealing.agree(&public).ok()?;
        let own = self.sealing.public();
        let info = [&own.0[..], &public.0[..], &self.node.0[..], &node.0[..]].concat();
        let key = *hkdf32(b"yodel/overlay/v1", shared.as_bytes(), &info);
        self.pairs.insert(to, key);
        Some(key)
    }
}

fn sight(supernode: &Supernode, slot: Slot) -> Option<Sight> {
    let card = supernode.ring().membership().directory().card(slot)?;
    Some(Sight { node: card.node(), incarnation: card.announcement().incarnation })
}

/// The boot prefix and the counter of a header.
fn nonce(header: &[u8; HEADER_BYTES]) -> [u8; 24] {
    let mut nonce = [0; 24];
    nonce[..16].copy_from_slice(&header[22..38]);
    nonce
}
