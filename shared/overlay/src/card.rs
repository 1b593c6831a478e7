//! What anybody must know of a member to believe in it and to reach it: the credential that the login server signed, and
//! the member's own announcement of where it is and whether it serves. Both travel as signed; who passes them on cannot
//! change them.
//!
//! An announcement is a signed CBOR map:
//!
//! | key | field | |
//! |---|---|---|
//! | 1 | version | 1 |
//! | 2 | node id | |
//! | 3 | incarnation | below 2^48; a higher one replaces a lower |
//! | 4 | standing | 1 alive, 2 standby, 3 left |
//! | 5 | serial | of the credential it goes with |
//! | 6, 7 | UDP and TCP addresses | at most four each, one of UDP at least |
//!
//! A card is a CBOR map: 1 credential, 2 announcement. Body of a `Cards` frame: 1 cards, 2 whether more can be asked for.
//! Body of `CardsWanted`: 1 node ids; none asks for some that are good for the asker, and a member for all, page by page:
//! 2 the last id it got.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use yodel_identity::credential::Credential;
use yodel_identity::keys::{Context, SigningKey};
use yodel_identity::limits::{CREDENTIAL_BYTES_MAX, SUPERNODE_ADDRESSES_MAX};
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_identity::realm::{CredentialError, Realm};
use yodel_identity::signed::{Record, Signed, SignedError};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::frame::{Frame, FrameKind};

use crate::limits::{ANNOUNCEMENT_BYTES_MAX, CARD_BYTES_MAX, CARDS_PER_FRAME, CARDS_WANTED_MAX};
use crate::placement::Member;

/// Incarnations stay below this: a member that counts one up a thousand times a second does not get there in a lifetime.
const INCARNATION_END: u64 = 1 << 48;

/// What a member says of itself, with its exact signed bytes.
pub type Announcement = Signed<AnnouncementFields>;

/// What an announcement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementFields {
    /// Who.
    pub node: NodeId,
    /// Grows with each announcement, over restarts too.
    pub incarnation: u64,
    /// Whether it serves.
    pub service: Service,
    /// The serial of its credential.
    pub serial: u64,
    /// Where it answers over UDP, one to four.
    pub udp: Vec<SocketAddr>,
    /// Where it answers over TCP, at most four.
    pub tcp: Vec<SocketAddr>,
}

/// Whether a member serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// It does.
    Alive,
    /// It is new and gets records handed over: it is written to, and answers "not yet".
    Standby,
    /// It went away in order.
    Left,
}

impl Service {
    fn number(self) -> u64 {
        match self {
            Service::Alive => 1,
            Service::Standby => 2,
            Service::Left => 3,
        }
    }

    fn from_number(number: u64) -> Result<Service, DecodeError> {
        match number {
            1 => Ok(Service::Alive),
            2 => Ok(Service::Standby),
            3 => Ok(Service::Left),
            _ => Err(DecodeError::OutOfBounds(4)),
        }
    }
}

impl Record for AnnouncementFields {
    const CONTEXT: Context = Context::Announcement;
    const BYTES_MAX: usize = ANNOUNCEMENT_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, 1)
            .bytes(2, &self.node.0)
            .uint(3, self.incarnation)
            .uint(4, self.service.number())
            .uint(5, self.serial)
            .addresses(6, &self.udp)
            .addresses(7, &self.tcp)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<AnnouncementFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let fields = AnnouncementFields {
            node: NodeId(map.array(2)?),
            incarnation: map.uint(3)?,
            service: Service::from_number(map.uint(4)?)?,
            serial: map.uint(5)?,
            udp: map.addresses(6, SUPERNODE_ADDRESSES_MAX)?,
            tcp: map.addresses(7, SUPERNODE_ADDRESSES_MAX)?,
        };
        map.finish()?;
        if fields.incarnation >= INCARNATION_END {
            return Err(DecodeError::OutOfBounds(3));
        }
        if fields.udp.is_empty() || fields.udp.iter().any(|addr| !is_reachable(addr)) {
            return Err(DecodeError::OutOfBounds(6));
        }
        if fields.tcp.iter().any(|addr| !is_reachable(addr)) {
            return Err(DecodeError::OutOfBounds(7));
        }
        Ok(fields)
    }
}

/// Whether one node may listen there.
fn is_reachable(addr: &SocketAddr) -> bool {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    ip && addr.port() != 0
}

/// Why bytes are not the card of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The credential is not to be believed.
    #[error("credential: {0}")]
    Credential(#[from] CredentialError),
    /// The announcement is none, or not the member's own.
    #[error("announcement: {0}")]
    Announcement(#[from] SignedError),
    /// The credential is not a supernode's, or the announcement goes with another.
    #[error("credential and announcement do not belong together")]
    Mismatch,
}

impl From<DecodeError> for CardError {
    fn from(error: DecodeError) -> CardError {
        CardError::Announcement(error.into())
    }
}

/// A member as far as it is known; see the module's text. Whoever holds one has verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    credential: Credential,
    announcement: Announcement,
    owner: OwnerTag,
}

impl Card {
    /// One's own card: signs the announcement. `serial` and `node` are the credential's.
    ///
    /// # Errors
    /// `Mismatch` when the credential is not a supernode's, `Announcement` when a field breaks its bounds.
    pub fn sign(
        key: &SigningKey,
        credential: Credential,
        incarnation: u64,
        service: Service,
        udp: Vec<SocketAddr>,
        tcp: Vec<SocketAddr>,
    ) -> Result<Card, CardError> {
        let owner = credential.owner().ok_or(CardError::Mismatch)?;
        let (node, serial) = (credential.node, credential.serial);
        let fields = AnnouncementFields { node, incarnation, service, serial, udp, tcp };
        let announcement = Signed::sign(key, &fields)?;
        Ok(Card { credential, announcement, owner })
    }

    /// Believes a card, or not: an issuer signed the credential and the member the announcement. Whether the credential
    /// is alive now is asked with [`Realm::check_alive`].
    ///
    /// # Errors
    /// See [`CardError`].
    pub fn verify(realm: &Realm, credential: &[u8], announcement: &[u8]) -> Result<Card, CardError> {
        let credential = realm.verify_credential_ignoring_dates(credential)?;
        Card::announced(credential, announcement)
    }

    /// The card of a member whose credential is verified already.
    ///
    /// # Errors
    /// `Announcement`, `Mismatch`.
    pub fn announced(credential: Credential, announcement: &[u8]) -> Result<Card, CardError> {
        let announcement = Announcement::decode_unverified(announcement)?;
        let owner = credential.owner().ok_or(CardError::Mismatch)?;
        if announcement.node != credential.node || announcement.serial != credential.serial {
            return Err(CardError::Mismatch);
        }
        announcement.verify_with(&credential.key)?;
        Ok(Card { credential, announcement, owner })
    }

    /// Reads an encoded card and believes it, or not.
    ///
    /// # Errors
    /// See [`CardError`].
    pub fn decode(realm: &Realm, bytes: &[u8]) -> Result<Card, CardError> {
        let (credential, announcement) = Card::split(bytes)?;
        Card::verify(realm, credential, announcement)
    }

    /// Credential and announcement of an encoded card, neither of them verified.
    ///
    /// # Errors
    /// It is no card.
    pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
        if bytes.len() > CARD_BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let mut map = MapReader::parse(bytes)?;
        let parts = (map.bytes(1, CREDENTIAL_BYTES_MAX)?, map.bytes(2, ANNOUNCEMENT_BYTES_MAX)?);
        map.finish()?;
        Ok(parts)
    }

    /// To pass on or to store.
    pub fn encode(&self) -> Vec<u8> {
        Card::join(self.credential.bytes(), self.announcement.bytes())
    }

    /// What [`split`](Self::split) takes apart.
    pub fn join(credential: &[u8], announcement: &[u8]) -> Vec<u8> {
        MapWriter::new().bytes(1, credential).bytes(2, announcement).finish()
    }

    /// Who.
    pub fn node(&self) -> NodeId {
        self.credential.node
    }

    /// What the login server signed.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What the member itself signed.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// What placement looks at.
    pub fn member(&self) -> Member {
        Member { node: self.node(), owner: self.owner, ip: self.ipv4() }
    }

    /// Where its datagrams go.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.announcement.udp.first().copied()
    }

    /// Of two cards of one member this one is the newer.
    pub fn outranks(&self, other: &Card) -> bool {
        let rank = |card: &Card| (card.announcement.incarnation, card.credential.serial);
        rank(self) > rank(other)
    }

    fn ipv4(&self) -> Option<Ipv4Addr> {
        self.announcement.udp.iter().find_map(|addr| match addr.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }
}

/// Frames with these encoded cards, as many as it takes.
pub fn cards_frames(cards: &[Vec<u8>]) -> Vec<Frame> {
    let body = |cards: &[Vec<u8>]| MapWriter::new().byte_items(1, cards).finish();
    cards.chunks(CARDS_PER_FRAME).map(|cards| Frame::new(FrameKind::Cards, body(cards))).collect()
}

/// As [`cards_frames`], of a page that others follow: the last frame says so.
pub fn page_frames(cards: &[Vec<u8>], more: bool) -> Vec<Frame> {
    let mut frames = cards_frames(cards);
    if more
        && let Some(last) = frames.last_mut()
        && let Some(cards) = cards.chunks(CARDS_PER_FRAME).next_back()
    {
        last.body = MapWriter::new().byte_items(1, cards).bool(2, true).finish();
    }
    frames
}

/// The encoded cards in the body of a `Cards` frame, none of them verified.
///
/// # Errors
/// It is no such body.
pub fn decode_cards(body: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    decode_page(body).map(|(cards, _)| cards)
}

/// As [`decode_cards`], and whether there are more to be asked for.
///
/// # Errors
/// It is no such body.
pub fn decode_page(body: &[u8]) -> Result<(Vec<&[u8]>, bool), DecodeError> {
    let mut map = MapReader::parse(body)?;
    let cards = map.items(1, CARDS_PER_FRAME)?.into_iter().map(item_bytes).collect::<Result<_, _>>()?;
    let more = map.opt_bool(2)?.unwrap_or(false);
    map.finish()?;
    Ok((cards, more))
}

/// Asks for the cards of these members; of some that are good for the asker when none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardsWanted {
    /// Which members, at most [`CARDS_WANTED_MAX`].
    pub nodes: Vec<NodeId>,
    /// When none is named, by a member that wants them all: those after this one.
    pub after: Option<NodeId>,
}

impl CardsWanted {
    /// The frame.
    pub fn encode(&self) -> Frame {
        let body = MapWriter::new()
            .byte_items(1, self.nodes.iter().map(|node| node.0))
            .opt_bytes(2, self.after.as_ref().map(|node| node.0.as_slice()))
            .finish();
        Frame::new(FrameKind::CardsWanted, body)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<CardsWanted, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let mut nodes = Vec::new();
        for item in map.items(1, CARDS_WANTED_MAX)? {
            nodes.push(NodeId(item_bytes(item)?.try_into().map_err(|_| DecodeError::OutOfBounds(1))?));
        }
        let after = map.opt_array(2)?.map(NodeId);
        map.finish()?;
        Ok(CardsWanted { nodes, after })
    }
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::hex;
    use yodel_identity::signed::{envelope, open};

    use super::*;
    use crate::testing::RealmFixture;

    #[test]
    fn golden_announcement() {
        let fields = AnnouncementFields {
            node: NodeId([5; 16]),
            incarnation: 500,
            service: Service::Standby,
            serial: 7,
            udp: vec!["203.0.113.7:5061".parse().unwrap()],
            tcp: vec!["203.0.113.7:443".parse().unwrap()],
        };
        let wanted = "a701010250".to_owned()
            + &"05".repeat(16)
            + "031901f404020507068146cb00710713c5078146cb00710701bb";
        assert_eq!(hex(&fields.encode()), wanted);
        assert_eq!(AnnouncementFields::decode(&fields.encode()), Ok(fields.clone()));
        let bad = [
            AnnouncementFields { udp: vec![], ..fields.clone() },
            AnnouncementFields { udp: vec!["0.0.0.0:1".parse().unwrap()], ..fields.clone() },
            AnnouncementFields { tcp: vec!["203.0.113.7:0".parse().unwrap()], ..fields.clone() },
            AnnouncementFields { incarnation: INCARNATION_END, ..fields },
        ];
        for bad in bad {
            assert!(AnnouncementFields::decode(&bad.encode()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_field_stands_under_the_members_signature() {
        let net = RealmFixture::new();
        let member = net.member(1);
        let card = member.card(5, Service::Alive);
        assert_eq!(Card::decode(&net.realm, &card.encode()), Ok(card.clone()));
        assert!(card.encode().len() <= CARD_BYTES_MAX);
        let fields = card.announcement().fields();
        let other: Vec<SocketAddr> = vec!["198.51.100.66:1".parse().unwrap()];
        let forgeries = [
            AnnouncementFields { incarnation: 6, ..fields.clone() },
            AnnouncementFields { service: Service::Left, ..fields.clone() },
            AnnouncementFields { udp: other.clone(), ..fields.clone() },
            AnnouncementFields { tcp: other, ..fields.clone() },
        ];
        let (_, signature) = open(card.announcement().bytes()).unwrap();
        for forgery in forgeries {
            let forged = envelope(&forgery.encode(), &signature);
            let refused = Card::announced(card.credential().clone(), &forged);
            assert!(
                matches!(refused, Err(CardError::Announcement(SignedError::Signature(_)))),
                "{forgery:?}"
            );
        }
        let elsewhere = net.member(2).card(5, Service::Alive);
        let mixed = Card::verify(&net.realm, card.credential().bytes(), elsewhere.announcement().bytes());
        assert_eq!(mixed, Err(CardError::Mismatch));
        let device = net.device("alice", 1);
        let posing = Card::verify(&net.realm, device.credential.bytes(), card.announcement().bytes());
        assert_eq!(posing, Err(CardError::Mismatch));
    }

    #[test]
    fn newer_outranks() {
        let net = RealmFixture::new();
        let member = net.member(1);
        let (old, new) = (member.card(5, Service::Alive), member.card(6, Service::Left));
        assert!(new.outranks(&old) && !old.outranks(&new) && !old.outranks(&old));
    }

    #[test]
    fn lists_of_cards_are_split_over_frames() {
        let card = RealmFixture::new().member(1).card(5, Service::Alive).encode();
        let frames = cards_frames(&vec![card.clone(); CARDS_PER_FRAME + 1]);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.body.len() <= yodel_wire::limits::FRAME_BODY_BYTES_MAX));
        assert_eq!(decode_cards(&frames[1].body).unwrap(), [card.as_slice()]);
        let page = page_frames(&vec![card.clone(); CARDS_PER_FRAME + 1], true);
        let more: Vec<bool> = page.iter().map(|frame| decode_page(&frame.body).unwrap().1).collect();
        assert_eq!(more, [false, true]);
        let wanted = CardsWanted { nodes: vec![NodeId([1; 16])], after: Some(NodeId([2; 16])) };
        assert_eq!(CardsWanted::decode(&wanted.encode().body), Ok(wanted));
        assert_eq!(CardsWanted::decode(&CardsWanted::default().encode().body), Ok(CardsWanted::default()));
    }
}
