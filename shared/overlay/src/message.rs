//! What members say to each other in sealed datagrams (`sealed.rs`). All are CBOR maps whose key 1 is the kind:
//!
//! | kind | 2 | 3 | 4 | 5 | 6 |
//! |---|---|---|---|---|---|
//! | 1 `Ping`, 2 `Ack` | number | bulletin's epoch | table's print | target, node id | own incarnation |
//! | 3 `PingRequest` | number | | | target, node id | |
//! | 4 `Gossip` | | | | | |
//! | 5 `Digest` | prints, 4 bytes each | | | | |
//! | 6 `Bucket` | which | of how many | entries, 22 bytes each | | |
//! | 7 `CardsWanted` | node ids, 16 bytes each | | | | |
//! | 8 `Cards` | cards | | | | |
//! | 16 `Read` | request id, bytes 16 | key | | | |
//! | 17 `Answer` | request id | standing | account record | contact entries | |
//! | 18 `Write` | request id | key | account record | contact entry | |
//! | 19 `Written` | request id | status | newest entry | newest account version | |
//!
//! News ride on `Ping`, `Ack` and `Gossip`: 10 announcements, as signed; 11 suspicions and 12 deaths, 22 bytes each: node
//! id and incarnation, 6 bytes, big-endian. Announcements prove themselves. Suspicions and deaths are hearsay: whoever
//! hears one looks for itself.
//!
//! A print is the exclusive or, over members that count, of the first 4 bytes of SHA-256 of node id and incarnation: equal tables
//! have equal prints, whatever the order. A digest has one print per bucket; a bucket is the members whose ids begin
//! alike, in 1, 2, 4 … 256 buckets by number of members.

use yodel_identity::limits::ACCOUNT_RECORD_BYTES_MAX;
use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::limits::DATAGRAM_BYTES_MAX;

use crate::limits::{ANNOUNCEMENT_BYTES_MAX, CARD_BYTES_MAX, CONTACT_ENTRIES_MAX, CONTACT_ENTRY_BYTES_MAX};
use crate::record::{Standing, WriteStatus};
use crate::sealed::SEALED_OVERHEAD_BYTES;

/// Longest message, bytes: what one sealed datagram holds.
pub const MESSAGE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - SEALED_OVERHEAD_BYTES;

/// Most buckets of a digest: 1,024 bytes of prints.
pub const BUCKETS_MAX: usize = 256;

/// Node ids in one `CardsWanted`.
pub const WANTED_MAX: usize = 64;

/// Entries in one `Bucket`: what one message holds. A longer bucket is cut; the rest shows in the next digest.
pub const BUCKET_ENTRIES_MAX: usize = 50;

/// Announcements in one message.
const ANNOUNCEMENTS_MAX: usize = 8;

/// Suspicions, and deaths, in one message.
const HEARSAY_MAX: usize = 50;

/// Bytes of one piece of hearsay.
const SIGHT_BYTES: usize = 22;

/// A 16-byte number that an answer echoes.
pub type RequestId = [u8; 16];

/// A member at one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight {
    /// Who.
    pub node: NodeId,
    /// As of when.
    pub incarnation: u64,
}

/// What travels besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Announcements as signed; who reads them checks them.
    pub announcements: Vec<Vec<u8>>,
    /// Members that did not answer the sender.
    pub suspicions: Vec<Sight>,
    /// Members that the sender holds dead.
    pub deaths: Vec<Sight>,
}

impl News {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.announcements.is_empty() && self.suspicions.is_empty() && self.deaths.is_empty()
    }
}

/// Fields of `Ping` and `Ack`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Returned in the answer.
    pub number: u32,
    /// The epoch of the bulletin that the sender holds.
    pub epoch: u64,
    /// The print of the sender's table.
    pub print: u32,
    /// In an `Ack` that was asked for by `PingRequest`: whom it is about.
    pub target: Option<NodeId>,
    /// The sender's own incarnation.
    pub incarnation: u64,
    /// What is new.
    pub news: News,
}

/// One message; see the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there?
    Ping(Probe),
    /// I am.
    Ack(Probe),
    /// Ask this member for me whether it is there.
    PingRequest {
        /// Returned in the answer.
        number: u32,
        /// Whom.
        target: NodeId,
    },
    /// What is new, at once.
    Gossip(News),
    /// Compare this with your table.
    Digest(Vec<u32>),
    /// What I have in a bucket that differs.
    Bucket {
        /// Which, from 0.
        index: u16,
        /// Of how many: a power of two up to [`BUCKETS_MAX`].
        buckets: u16,
        /// The members in it that count.
        entries: Vec<Sight>,
    },
    /// Send the cards of these.
    CardsWanted(Vec<NodeId>),
    /// Cards, none of them verified.
    Cards(Vec<Vec<u8>>),
    /// Send what you hold under this key.
    Read {
        /// Echoed in the answer.
        id: RequestId,
        /// `Aor::key`.
        key: [u8; 16],
    },
    /// What is held.
    Answer {
        /// The request's.
        id: RequestId,
        /// What is held; [`Standing::Held`] without an account record when it does not fit: ask over a link.
        standing: Standing,
        /// The account record as signed.
        account: Option<Vec<u8>>,
        /// Contact entries as signed.
        entries: Vec<Vec<u8>>,
    },
    /// Keep this.
    Write {
        /// Echoed in the answer.
        id: RequestId,
        /// `Aor::key`.
        key: [u8; 16],
        /// An account record as signed.
        account: Option<Vec<u8>>,
        /// A contact entry as signed.
        entry: Option<Vec<u8>>,
    },
    /// Kept, or why not.
    Written {
        /// The request's.
        id: RequestId,
        /// How it went.
        status: WriteStatus,
        /// The device's newest entry, as signed, when the one offered was stale.
        newest_entry: Option<Vec<u8>>,
        /// Version of the newest account record, when the one offered was stale.
        newest_account: Option<u64>,
    },
}

impl Message {
    /// The encoding; `None` when it is longer than [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = self.map().finish();
        (bytes.len() <= MESSAGE_BYTES_MAX).then_some(bytes)
    }

    fn map(&self) -> MapWriter {
        let map = |kind| MapWriter::new().uint(1, kind);
        match self {
            Message::Ping(probe) => probe.write(map(1)),
            Message::Ack(probe) => probe.write(map(2)),
            Message::PingRequest { number, target } => map(3).uint(2, (*number).into()).bytes(5, &target.0),
            Message::Gossip(news) => news.write(map(4)),
            Message::Digest(prints) => {
                let bytes: Vec<u8> = prints.iter().flat_map(|print| print.to_be_bytes()).collect();
                map(5).bytes(2, &bytes)
            }
            Message::Bucket { index, buckets, entries } => {
                map(6).uint(2, (*index).into()).uint(3, (*buckets).into()).bytes(4, &sights_bytes(entries))
            }
            Message::CardsWanted(nodes) => {
                let bytes: Vec<u8> = nodes.iter().flat_map(|node| node.0).collect();
                map(7).bytes(2, &bytes)
            }
            Message::Cards(cards) => map(8).byte_items(2, cards),
            Message::Read { id, key } => map(16).bytes(2, id).bytes(3, key),
            Message::Answer { id, standing, account, entries } => map(17)
                .bytes(2, id)
                .uint(3, standing.number())
                .opt_bytes(4, account.as_deref())
                .byte_items(5, entries),
            Message::Write { id, key, account, entry } => map(18)
                .bytes(2, id)
                .bytes(3, key)
                .opt_bytes(4, account.as_deref())
                .opt_bytes(5, entry.as_deref()),
            Message::Written { id, status, newest_entry, newest_account } => {
                let map = map(19).bytes(2, id).uint(3, status.number()).opt_bytes(4, newest_entry.as_deref());
                match newest_account {
                    Some(version) => map.uint(5, *version),
                    None => map,
                }
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let mut map = MapReader::parse(bytes)?;
        let message = match map.uint(1)? {
            1 => Message::Ping(Probe::read(&mut map)?),
            2 => Message::Ack(Probe::read(&mut map)?),
            3 => Message::PingRequest { number: map.uint_as(2)?, target: NodeId(map.array(5)?) },
            4 => Message::Gossip(News::read(&mut map)?),
            5 => Message::Digest(prints(map.bytes(2, BUCKETS_MAX * 4)?)?),
            6 => bucket(&mut map)?,
            7 => {
                let (nodes, rest) = map.bytes(2, WANTED_MAX * 16)?.as_chunks::<16>();
                if !rest.is_empty() {
                    return Err(DecodeError::OutOfBounds(2));
                }
                Message::CardsWanted(nodes.iter().map(|node| NodeId(*node)).collect())
            }
            8 => Message::Cards(byte_items(&mut map, 2, ANNOUNCEMENTS_MAX, CARD_BYTES_MAX)?),
            16 => Message::Read { id: map.array(2)?, key: map.array(3)? },
            17 => Message::Answer {
                id: map.array(2)?,
                standing: Standing::from_number(map.uint(3)?)?,
                account: map.opt_bytes(4, ACCOUNT_RECORD_BYTES_MAX)?.map(<[u8]>::to_vec),
                entries: byte_items(&mut map, 5, CONTACT_ENTRIES_MAX, CONTACT_ENTRY_BYTES_MAX)?,
            },
            18 => Message::Write {
                id: map.array(2)?,
                key: map.array(3)?,
                account: map.opt_bytes(4, ACCOUNT_RECORD_BYTES_MAX)?.map(<[u8]>::to_vec),
                entry: map.opt_bytes(5, CONTACT_ENTRY_BYTES_MAX)?.map(<[u8]>::to_vec),
            },
            19 => Message::Written {
                id: map.array(2)?,
                status: WriteStatus::from_number(map.uint(3)?),
                newest_entry: map.opt_bytes(4, CONTACT_ENTRY_BYTES_MAX)?.map(<[u8]>::to_vec),
                newest_account: map.opt_uint(5)?,
            },
            _ => return Err(DecodeError::OutOfBounds(1)),
        };
        map.finish()?;
        Ok(message)
    }
}

impl Probe {
    fn write(&self, map: MapWriter) -> MapWriter {
        let mut map = map.uint(2, self.number.into()).uint(3, self.epoch).bytes(4, &self.print.to_be_bytes());
        if let Some(target) = &self.target {
            map = map.bytes(5, &target.0);
        }
        self.news.write(map.uint(6, self.incarnation))
    }

    fn read(map: &mut MapReader<'_>) -> Result<Probe, DecodeError> {
        Ok(Probe {
            number: map.uint_as(2)?,
            epoch: map.uint(3)?,
            print: u32::from_be_bytes(map.array(4)?),
            target: map.opt_array(5)?.map(NodeId),
            incarnation: map.uint(6)?,
            news: News::read(map)?,
        })
    }
}

impl News {
    fn write(&self, mut map: MapWriter) -> MapWriter {
        if !self.announcements.is_empty() {
            map = map.byte_items(10, &self.announcements);
        }
        if !self.suspicions.is_empty() {
            map = map.bytes(11, &sights_bytes(&self.suspicions));
        }
        if !self.deaths.is_empty() {
            map = map.bytes(12, &sights_bytes(&self.deaths));
        }
        map
    }

    fn read(map: &mut MapReader<'_>) -> Result<News, DecodeError> {
        let announcements = byte_items(map, 10, ANNOUNCEMENTS_MAX, ANNOUNCEMENT_BYTES_MAX)?;
        let mut hearsay = |key| match map.opt_bytes(key, HEARSAY_MAX * SIGHT_BYTES)? {
            Some(bytes) => sights(bytes, key),
            None => Ok(Vec::new()),
        };
        Ok(News { announcements, suspicions: hearsay(11)?, deaths: hearsay(12)? })
    }
}

fn bucket(map: &mut MapReader<'_>) -> Result<Message, DecodeError> {
    let (index, buckets): (u16, u16) = (map.uint_as(2)?, map.uint_as(3)?);
    if !buckets.is_power_of_two() || usize::from(buckets) > BUCKETS_MAX || index >= buckets {
        return Err(DecodeError::OutOfBounds(3));
    }
    let entries = sights(map.bytes(4, BUCKET_ENTRIES_MAX * SIGHT_BYTES)?, 4)?;
    Ok(Message::Bucket { index, buckets, entries })
}

fn prints(bytes: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let (prints, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || !prints.len().is_power_of_two() {
        return Err(DecodeError::OutOfBounds(2));
    }
    Ok(prints.iter().map(|print| u32::from_be_bytes(*print)).collect())
}

fn sights_bytes(sights: &[Sight]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sights.len() * SIGHT_BYTES);
    for sight in sights {
        bytes.extend_from_slice(&sight.node.0);
        bytes.extend(sight.incarnation.to_be_bytes().iter().skip(2));
    }
    bytes
}

fn sights(bytes: &[u8], key: i64) -> Result<Vec<Sight>, DecodeError> {
    let (chunks, rest) = bytes.as_chunks::<SIGHT_BYTES>();
    if !rest.is_empty() {
        return Err(DecodeError::OutOfBounds(key));
    }
    let sight = |chunk: &[u8; SIGHT_BYTES]| {
        let (node, incarnation) = chunk.split_first_chunk::<16>()?;
        let mut wide = [0; 8];
        wide.last_chunk_mut::<6>()?.copy_from_slice(incarnation);
        Some(Sight { node: NodeId(*node), incarnation: u64::from_be_bytes(wide) })
    };
    chunks.iter().map(|chunk| sight(chunk).ok_or(DecodeError::OutOfBounds(key))).collect()
}

fn byte_items(
    map: &mut MapReader<'_>,
    key: i64,
    items_max: usize,
    bytes_max: usize,
) -> Result<Vec<Vec<u8>>, DecodeError> {
    map.items(key, items_max)?
        .into_iter()
        .map(|item| {
            let bytes = item_bytes(item)?;
            if bytes.len() > bytes_max { Err(DecodeError::OutOfBounds(key)) } else { Ok(bytes.to_vec()) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use yodel_identity::node::hex;

    use super::*;

    fn sight(node: u8, incarnation: u64) -> Sight {
        Sight { node: NodeId([node; 16]), incarnation }
    }

    fn every_kind() -> Vec<Message> {
        let news = News {
            announcements: vec![vec![1, 2, 3]],
            suspicions: vec![sight(1, 7)],
            deaths: vec![sight(2, 0x0102_0304_0506)],
        };
        let probe = Probe {
            number: 9,
            epoch: 500,
            print: 0xdead_beef,
            target: Some(NodeId([4; 16])),
            incarnation: 3,
            news: news.clone(),
        };
        vec![
            Message::Ping(Probe { number: 1, epoch: 2, print: 3, ..Probe::default() }),
            Message::Ack(probe),
            Message::PingRequest { number: 5, target: NodeId([6; 16]) },
            Message::Gossip(news),
            Message::Digest(vec![1, 2]),
            Message::Bucket { index: 1, buckets: 2, entries: vec![sight(8, 1)] },
            Message::CardsWanted(vec![NodeId([7; 16])]),
            Message::Cards(vec![vec![5]]),
            Message::Read { id: [1; 16], key: [2; 16] },
            Message::Answer {
                id: [1; 16],
                standing: Standing::Held,
                account: Some(vec![1]),
                entries: vec![vec![2]],
            },
            Message::Write { id: [1; 16], key: [2; 16], account: None, entry: Some(vec![3]) },
            Message::Written {
                id: [1; 16],
                status: WriteStatus::Stale,
                newest_entry: Some(vec![1]),
                newest_account: Some(4),
            },
        ]
    }

    #[test]
    fn golden() {
        let lines: Vec<String> = every_kind().iter().map(|message| hex(&message.encode().unwrap())).collect();
        assert_eq!(lines.join("\n"), include_str!("message/golden.txt").trim_end());
        for message in every_kind() {
            assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
        }
    }

    #[test]
    fn an_idle_ping_is_small() {
        let bytes = every_kind()[0].encode().unwrap();
        assert!(bytes.len() <= 16, "{} bytes", bytes.len());
    }

    #[test]
    fn the_longest_of_each_list_fit() {
        let entries = vec![sight(1, 1); BUCKET_ENTRIES_MAX];
        assert!(Message::Bucket { index: 255, buckets: 256, entries }.encode().is_some());
        assert!(Message::Digest(vec![0; BUCKETS_MAX]).encode().is_some());
        assert!(Message::CardsWanted(vec![NodeId([0; 16]); WANTED_MAX]).encode().is_some());
        let large = vec![0; MESSAGE_BYTES_MAX];
        assert!(Message::Cards(vec![large]).encode().is_none());
    }

    #[test]
    fn wrong_lengths_and_numbers_are_refused() {
        let bad = [
            MapWriter::new().uint(1, 99),
            MapWriter::new().uint(1, 5).bytes(2, &[0; 12]),
            MapWriter::new().uint(1, 5).bytes(2, &[0; 5]),
            MapWriter::new().uint(1, 6).uint(2, 2).uint(3, 2).bytes(4, &[]),
            MapWriter::new().uint(1, 6).uint(2, 0).uint(3, 3).bytes(4, &[]),
            MapWriter::new().uint(1, 7).bytes(2, &[0; 17]),
            MapWriter::new().uint(1, 4).bytes(11, &[0; 21]),
        ];
        for map in bad {
            assert!(Message::decode(&map.finish()).is_err());
        }
        for message in every_kind() {
            let bytes = message.encode().unwrap();
            for length in 0..bytes.len() {
                assert!(Message::decode(&bytes[..length]).is_err());
            }
        }
    }
}
