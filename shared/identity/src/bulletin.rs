//! The bulletin: what the whole realm must know soon. Signed by an issuer key every ten minutes, and at once when a
//! supernode gets ready, leaves or is revoked. A higher epoch replaces a lower.
//!
//! The revoked set is a map of node ids to the time until which the entry matters (its credential's end and 7 days).
//! The newest entries ride in the bulletin itself; a reader whose set then has the bulletin's hash is done, any other
//! asks for the signed pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::time::UnixTime;

use crate::account::realm_name;
use crate::credential::{Credential, IssuerId, seconds};
use crate::keys::{Context, SigningKey};
use crate::limits::{
    BULLETIN_BYTES_MAX, BULLETIN_REVOKED_MAX, BULLETIN_SUPERNODES_MAX, CREDENTIAL_BYTES_MAX,
    REVOKED_PAGE_BYTES_MAX, REVOKED_PAGE_ENTRIES_MAX, REVOKED_PAGES_MAX, SUPERNODE_ADDRESSES_MAX,
};
use crate::name::RealmName;
use crate::node::NodeId;
use crate::signed::{Record, Signed};

/// A signed bulletin with its exact bytes.
pub type Bulletin = Signed<BulletinFields>;

/// What a bulletin says. Keys: 1 version, 2 realm, 3 epoch, 4 issued, 5 supernodes (maps of 1 credential, 2 UDP and
/// 3 TCP addresses), 6 oldest and 7 newest protocol version, 8 hash of the revoked set, 9 number of its pages, 10 its
/// newest entries, 11 issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulletinFields {
    /// The realm.
    pub realm: RealmName,
    /// Grows with each bulletin.
    pub epoch: u64,
    /// When it was signed, whole seconds.
    pub issued: UnixTime,
    /// Supernodes to start from, at most [`BULLETIN_SUPERNODES_MAX`], by ascending node id.
    pub supernodes: Vec<SupernodeEntry>,
    /// Oldest protocol version still accepted.
    pub oldest_version: u64,
    /// Newest protocol version there is.
    pub newest_version: u64,
    /// [`revoked_hash`] of the whole set.
    pub revoked_hash: [u8; 32],
    /// Number of signed pages the set is split into; 0 when the bulletin's own entries are all.
    pub revoked_pages: u16,
    /// The newest entries, at most [`BULLETIN_REVOKED_MAX`].
    pub revoked_newest: RevokedSet,
    /// Which issuer key signed it. [`Bulletin::issue`] fills it in.
    pub issuer: IssuerId,
}

/// A supernode to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupernodeEntry {
    /// Its credential.
    pub credential: Credential,
    /// Where it answers over UDP (QUIC, STUN, relay), at most [`SUPERNODE_ADDRESSES_MAX`].
    pub udp: Vec<SocketAddr>,
    /// Where it answers over TCP (TLS), at most [`SUPERNODE_ADDRESSES_MAX`].
    pub tcp: Vec<SocketAddr>,
}

/// Revoked nodes, with the time until which the entry matters.
pub type RevokedSet = BTreeMap<NodeId, UnixTime>;

/// The hash of a revoked set: SHA-256 of `yodel/revoked-set/v1`, a zero byte and its entries in order, each node id
/// and seconds (8 bytes, big-endian).
pub fn revoked_hash(set: &RevokedSet) -> [u8; 32] {
    Sha256::new().chain_update(b"yodel/revoked-set/v1\0").chain_update(entries_bytes(set)).finalize().into()
}

impl Bulletin {
    /// Signs a bulletin with an issuer's key. Supernodes are put in order.
    ///
    /// # Errors
    /// When a field breaks its bounds.
    pub fn issue(issuer: &SigningKey, mut fields: BulletinFields) -> Result<Bulletin, DecodeError> {
        fields.issuer = IssuerId::of(&issuer.public());
        fields.supernodes.sort_by_key(|entry| entry.credential.node);
        Signed::sign(issuer, &fields)
    }
}

impl BulletinFields {
    /// The entry of the supernode with this id.
    pub fn supernode(&self, node: NodeId) -> Option<&SupernodeEntry> {
        self.supernodes.iter().find(|entry| entry.credential.node == node)
    }
}

impl Record for BulletinFields {
    const CONTEXT: Context = Context::Bulletin;
    const BYTES_MAX: usize = BULLETIN_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let supernodes: Vec<Vec<u8>> = self
            .supernodes
            .iter()
            .map(|entry| {
                MapWriter::new()
                    .bytes(1, entry.credential.bytes())
                    .addresses(2, &entry.udp)
                    .addresses(3, &entry.tcp)
                    .finish()
            })
            .collect();
        MapWriter::new()
            .uint(1, 1)
            .text(2, self.realm.as_str())
            .uint(3, self.epoch)
            .uint(4, self.issued.as_secs())
            .raw_items(5, &supernodes)
            .uint(6, self.oldest_version)
            .uint(7, self.newest_version)
            .bytes(8, &self.revoked_hash)
            .uint(9, self.revoked_pages.into())
            .bytes(10, &entries_bytes(&self.revoked_newest))
            .bytes(11, &self.issuer.0)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<BulletinFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let realm = realm_name(&mut map, 2)?;
        let epoch = map.uint(3)?;
        let issued = seconds(&mut map, 4)?;
        let mut supernodes: Vec<SupernodeEntry> = Vec::new();
        for raw in map.items(5, BULLETIN_SUPERNODES_MAX)? {
            let entry = supernode_entry(raw)?;
            let follows = supernodes.last().is_none_or(|l| l.credential.node < entry.credential.node);
            if !follows || !entry.credential.is_supernode() || entry.credential.realm != realm {
                return Err(DecodeError::OutOfBounds(5));
            }
            supernodes.push(entry);
        }
        let oldest_version = map.uint(6)?;
        let newest_version = map.uint(7)?;
        if newest_version < oldest_version {
            return Err(DecodeError::OutOfBounds(7));
        }
        let revoked_hash = map.array(8)?;
        let revoked_pages = map.uint_as(9)?;
        if usize::from(revoked_pages) > REVOKED_PAGES_MAX {
            return Err(DecodeError::OutOfBounds(9));
        }
        let revoked_newest = entries(map.bytes(10, BULLETIN_REVOKED_MAX * ENTRY_BYTES)?, 10)?;
        let issuer = IssuerId(map.array(11)?);
        map.finish()?;
        Ok(BulletinFields {
            realm,
            epoch,
            issued,
            supernodes,
            oldest_version,
            newest_version,
            revoked_hash,
            revoked_pages,
            revoked_newest,
            issuer,
        })
    }
}

fn supernode_entry(raw: &[u8]) -> Result<SupernodeEntry, DecodeError> {
    let mut map = MapReader::parse(raw)?;
    let credential = Credential::decode_unverified(map.bytes(1, CREDENTIAL_BYTES_MAX)?)?;
    let udp = map.addresses(2, SUPERNODE_ADDRESSES_MAX)?;
    let tcp = map.addresses(3, SUPERNODE_ADDRESSES_MAX)?;
    map.finish()?;
    Ok(SupernodeEntry { credential, udp, tcp })
}

/// A signed page of the revoked set with its exact bytes.
pub type RevokedPage = Signed<RevokedPageFields>;

/// What a page of the revoked set says. Keys: 1 version, 2 realm, 3 hash of the whole set, 4 index, 5 number of pages,
/// 6 entries, 7 issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedPageFields {
    /// The realm.
    pub realm: RealmName,
    /// [`revoked_hash`] of the set it is a page of.
    pub set: [u8; 32],
    /// Which page, from 0.
    pub index: u16,
    /// How many there are.
    pub pages: u16,
    /// Its entries, at most [`REVOKED_PAGE_ENTRIES_MAX`].
    pub entries: RevokedSet,
    /// Which issuer key signed it. [`RevokedPage::split`] fills it in.
    pub issuer: IssuerId,
}

impl RevokedPage {
    /// Splits a set into signed pages.
    ///
    /// # Errors
    /// When it does not fit [`REVOKED_PAGES_MAX`] pages.
    pub fn split(
        issuer: &SigningKey,
        realm: &RealmName,
        set: &RevokedSet,
    ) -> Result<Vec<RevokedPage>, DecodeError> {
        let entries: Vec<(NodeId, UnixTime)> = set.iter().map(|(node, until)| (*node, *until)).collect();
        let chunks: Vec<&[(NodeId, UnixTime)]> = entries.chunks(REVOKED_PAGE_ENTRIES_MAX).collect();
        let pages = u16::try_from(chunks.len()).map_err(|_| DecodeError::TooLarge)?;
        let hash = revoked_hash(set);
        (0..pages)
            .zip(chunks)
            .map(|(index, chunk)| {
                Signed::sign(
                    issuer,
                    &RevokedPageFields {
                        realm: realm.clone(),
                        set: hash,
                        index,
                        pages,
                        entries: chunk.iter().copied().collect(),
                        issuer: IssuerId::of(&issuer.public()),
                    },
                )
            })
            .collect()
    }
}

impl Record for RevokedPageFields {
    const CONTEXT: Context = Context::RevokedPage;
    const BYTES_MAX: usize = REVOKED_PAGE_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, 1)
            .text(2, self.realm.as_str())
            .bytes(3, &self.set)
            .uint(4, self.index.into())
            .uint(5, self.pages.into())
            .bytes(6, &entries_bytes(&self.entries))
            .bytes(7, &self.issuer.0)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<RevokedPageFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let realm = realm_name(&mut map, 2)?;
        let set = map.array(3)?;
        let index: u16 = map.uint_as(4)?;
        let pages: u16 = map.uint_as(5)?;
        if usize::from(pages) > REVOKED_PAGES_MAX || index >= pages {
            return Err(DecodeError::OutOfBounds(5));
        }
        let entries = entries(map.bytes(6, REVOKED_PAGE_ENTRIES_MAX * ENTRY_BYTES)?, 6)?;
        let issuer = IssuerId(map.array(7)?);
        map.finish()?;
        Ok(RevokedPageFields { realm, set, index, pages, entries, issuer })
    }
}

const ENTRY_BYTES: usize = 24;

fn entries_bytes(set: &RevokedSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(set.len() * ENTRY_BYTES);
    for (node, until) in set {
        out.extend_from_slice(&node.0);
        out.extend_from_slice(&until.as_secs().to_be_bytes());
    }
    out
}

fn entries(bytes: &[u8], key: i64) -> Result<RevokedSet, DecodeError> {
    let mut set = RevokedSet::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (node, after) = rest.split_first_chunk::<16>().ok_or(DecodeError::OutOfBounds(key))?;
        let (until, after) = after.split_first_chunk::<8>().ok_or(DecodeError::OutOfBounds(key))?;
        let until = u64::from_be_bytes(*until);
        if until >= 1 << 40 || set.last_key_value().is_some_and(|(last, _)| last.0 >= *node) {
            return Err(DecodeError::OutOfBounds(key));
        }
        set.insert(NodeId(*node), UnixTime::from_secs(until));
        rest = after;
    }
    Ok(set)
}

/// Body of a `BulletinWanted` frame: send the bulletin once it is newer than this. Keys: 1 epoch, 2 revoked set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulletinWanted {
    /// The newest epoch the asker has; 0 when none.
    pub have_epoch: u64,
    /// The hash of the set whose pages the asker wants besides.
    pub pages_of: Option<[u8; 32]>,
}

impl BulletinWanted {
    /// The frame's body.
    pub fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, self.have_epoch)
            .opt_bytes(2, self.pages_of.as_ref().map(<[u8; 32]>::as_slice))
            .finish()
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(body: &[u8]) -> Result<BulletinWanted, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let wanted = BulletinWanted { have_epoch: map.uint(1)?, pages_of: map.opt_array(2)? };
        map.finish()?;
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::CredentialFields;
    use crate::keys::{BadSignature, SigningKey};
    use crate::realm::RealmError;
    use crate::sample::*;
    use crate::signed::SignedError;

    const SIGNATURE: RealmError = RealmError::Signed(SignedError::Signature(BadSignature));

    fn set() -> RevokedSet {
        revoked(&[device(0).node, supernode(2).node])
    }

    #[test]
    fn golden_bulletin_and_page() {
        let bulletin = bulletin(7, T0, &set());
        golden("bulletin", bulletin.bytes());
        assert_eq!(Bulletin::decode_unverified(bulletin.bytes()).unwrap().fields(), bulletin.fields());
        let pages = RevokedPage::split(&issuer(), &example_net(), &set()).unwrap();
        assert_eq!(pages.len(), 1);
        golden("revoked-page", pages[0].bytes());
        let wanted = BulletinWanted { have_epoch: 7, pages_of: Some([1; 32]) };
        assert_eq!(BulletinWanted::decode(&wanted.encode()), Ok(wanted));
        assert_eq!(BulletinWanted::default().encode(), [0xa1, 1, 0]);
    }

    #[test]
    fn every_field_stands_under_the_signature() {
        let good = bulletin(7, T0, &set());
        let fields = good.fields().clone();
        let entry = |change: fn(&mut SupernodeEntry)| {
            let mut fields = fields.clone();
            change(&mut fields.supernodes[0]);
            fields
        };
        let forgeries = [
            BulletinFields { epoch: 8, ..fields.clone() },
            BulletinFields { issued: T0 + secs(1), ..fields.clone() },
            BulletinFields { supernodes: vec![], ..fields.clone() },
            entry(|entry| entry.credential = supernode(2)),
            entry(|entry| entry.udp[0] = "203.0.113.66:5060".parse().unwrap()),
            entry(|entry| entry.tcp[0] = "203.0.113.66:80".parse().unwrap()),
            BulletinFields { oldest_version: 0, ..fields.clone() },
            BulletinFields { newest_version: 2, ..fields.clone() },
            BulletinFields { revoked_hash: [0; 32], ..fields.clone() },
            BulletinFields { revoked_pages: 1, ..fields.clone() },
            BulletinFields { revoked_newest: RevokedSet::new(), ..fields.clone() },
        ];
        for forgery in forgeries {
            let refused = realm().accept_bulletin(&forge(&good, &forgery), T0);
            assert_eq!(refused, Err(SIGNATURE), "{forgery:?}");
        }
        let moved = BulletinFields { realm: RealmName::parse("example.org").unwrap(), ..fields.clone() };
        assert!(
            Bulletin::verify(
                &forge(&good, &BulletinFields { supernodes: vec![], ..moved }),
                &issuer().public()
            )
            .is_err()
        );
        let disowned = BulletinFields { issuer: IssuerId([0; 8]), ..fields };
        let refused = realm().accept_bulletin(&forge(&good, &disowned), T0);
        assert_eq!(refused, Err(RealmError::UnknownIssuer));
    }

    #[test]
    fn every_field_of_a_page_stands_under_the_signature() {
        let mut realm = realm();
        let fields = BulletinFields { revoked_pages: 1, ..bulletin_fields(1, T0, &set()) };
        let bulletin = Bulletin::issue(&issuer(), fields).unwrap();
        assert_eq!(realm.accept_bulletin(bulletin.bytes(), T0), Ok(true));
        let page = RevokedPage::split(&issuer(), &example_net(), &set()).unwrap().remove(0);
        let fields = page.fields().clone();
        let entries = revoked(&[supernode(1).node]);
        let forged = forge(&page, &RevokedPageFields { entries, ..fields.clone() });
        assert_eq!(realm.accept_revoked_page(&forged, T0), Err(SIGNATURE));
        let forgeries = [
            RevokedPageFields { realm: RealmName::parse("example.org").unwrap(), ..fields.clone() },
            RevokedPageFields { set: [0; 32], ..fields.clone() },
            RevokedPageFields { pages: 2, ..fields.clone() },
            RevokedPageFields { pages: 2, index: 1, ..fields.clone() },
            RevokedPageFields { issuer: IssuerId([0; 8]), ..fields },
        ];
        for forgery in forgeries {
            let forged = forge(&page, &forgery);
            assert!(realm.accept_revoked_page(&forged, T0).is_err(), "{forgery:?}");
            assert!(RevokedPage::verify(&forged, &issuer().public()).is_err(), "{forgery:?}");
        }
        assert_eq!(realm.accept_revoked_page(page.bytes(), T0), Ok(true));
    }

    /// Every bound at its edge: the fullest bulletin still is one frame's body.
    #[test]
    fn the_fullest_bulletin_fits() {
        let label = "b".repeat(47);
        let realm = RealmName::parse(&format!("{label}.{label}b")).unwrap();
        let addrs: Vec<SocketAddr> =
            (0..2).map(|port| SocketAddr::new([0x2001; 8].into(), 5060 + port)).collect();
        let supernodes = (0..32)
            .map(|number| SupernodeEntry {
                credential: Credential::issue(
                    &issuer(),
                    CredentialFields { realm: realm.clone(), ..supernode_fields(number) },
                )
                .unwrap(),
                udp: addrs.clone(),
                tcp: addrs.clone(),
            })
            .collect();
        let nodes: Vec<NodeId> = (0..64).map(|n| NodeId([n; 16])).collect();
        let fields = BulletinFields { realm, supernodes, ..bulletin_fields(u64::MAX, T0, &revoked(&nodes)) };
        let bulletin = Bulletin::issue(&issuer(), fields).unwrap();
        assert!(bulletin.bytes().len() <= BULLETIN_BYTES_MAX, "{}", bulletin.bytes().len());
    }

    #[test]
    fn what_no_issuer_signs() {
        let issue = |fields| Bulletin::issue(&issuer(), fields).map(|_| ());
        let fields = bulletin_fields(1, T0, &set());
        let entry = fields.supernodes[0].clone();
        let person = SupernodeEntry { credential: device(0), ..entry.clone() };
        assert_eq!(
            issue(BulletinFields { supernodes: vec![person], ..fields.clone() }),
            Err(DecodeError::OutOfBounds(5))
        );
        assert_eq!(
            issue(BulletinFields { supernodes: vec![entry.clone(), entry], ..fields.clone() }),
            Err(DecodeError::OutOfBounds(5))
        );
        assert_eq!(issue(BulletinFields { newest_version: 0, ..fields }), Err(DecodeError::OutOfBounds(7)));
        let crowd: RevokedSet = (0..40_000u32)
            .map(|n| (NodeId([[0; 12].as_slice(), &n.to_be_bytes()].concat().try_into().unwrap()), T0))
            .collect();
        assert!(RevokedPage::split(&SigningKey::from_seed([2; 32]), &example_net(), &crowd).is_err());
    }
}
