//! Bulletins: signed every ten minutes and at once when a supernode gets ready, leaves or is revoked; handed to
//! whoever keeps a request open. Changes within [`COALESCE`] of the last bulletin go into one.
//!
//! **Who is named**: supernodes that said they serve, until they say that they leave, are revoked, their credential
//! ends, or their link has been down for [`SUPERNODE_GONE_AFTER`]. A link that breaks says nothing about the supernode:
//! it is as often our own network or our own restart, and a bulletin without supernodes would take the realm down. Who
//! is dead is found out by the members and devices themselves, within seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::error;
use yodel_identity::bulletin::{
    Bulletin, BulletinFields, BulletinWanted, RevokedPage, RevokedSet, SupernodeEntry, revoked_hash,
};
use yodel_identity::credential::IssuerId;
use yodel_identity::limits::{BULLETIN_REVOKED_MAX, BULLETIN_SUPERNODES_MAX};
use yodel_identity::login::Refusal;
use yodel_identity::node::NodeId;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::LinkId;
use yodel_wire::time::{Instant, Now};

use crate::limits::{BULLETIN_EVERY, EPOCHS_RESERVED, SUPERNODE_GONE_AFTER};
use crate::server::{Event, LoginServer, Then};
use crate::state::{Change, State};

/// The protocol version there is.
const VERSION: u64 = 1;

/// The shortest time between two bulletins: all who must know still do within a second, and a realm whose hundred
/// supernodes restart at once does not get a hundred bulletins.
const COALESCE: Duration = Duration::from_millis(200);

const EPOCHS: &[u8] = b"epochs";

/// When the next bulletin is due, and who waits for it.
#[derive(Debug)]
pub(crate) struct Publisher {
    epoch: u64,
    /// Epochs up to here are ours to use; 0 until the first reservation is stored.
    reserved: u64,
    reserving: bool,
    retry_at: Option<Instant>,
    /// When the next bulletin is signed.
    due: Instant,
    published: Option<Instant>,
    bulletin: Option<Bulletin>,
    pages: Vec<RevokedPage>,
    waiting: BTreeSet<LinkId>,
    /// Supernodes without a link, and since when.
    away: BTreeMap<NodeId, Instant>,
}

impl Publisher {
    pub(crate) fn new(now: Instant, state: &State) -> Publisher {
        Publisher {
            epoch: state.counter(EPOCHS),
            reserved: 0,
            reserving: false,
            retry_at: None,
            due: now,
            published: None,
            bulletin: None,
            pages: Vec::new(),
            waiting: BTreeSet::new(),
            // After a restart every supernode gets its time to come back.
            away: state.supernodes.keys().map(|node| (*node, now)).collect(),
        }
    }

    /// The newest bulletin's bytes.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        self.bulletin.as_ref().map(|bulletin| bulletin.bytes().to_vec())
    }

    pub(crate) fn bulletin(&self) -> Option<&Bulletin> {
        self.bulletin.as_ref()
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self.retry_at {
            Some(at) => at,
            // Until epochs are reserved there is nothing to do at `due`.
            None if self.reserving => self.due + BULLETIN_EVERY,
            None => self.due,
        }
    }

    /// Something that stands in the bulletin changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        let soonest = self.published.map_or(now, |at| (at + COALESCE).max(now));
        self.due = self.due.min(soonest);
    }

    /// A supernode has a link, or lost its last one.
    pub(crate) fn supernode_link(&mut self, now: Instant, node: NodeId, up: bool) {
        if up {
            self.away.remove(&node);
        } else {
            self.away.insert(node, now);
        }
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        !self.away.contains_key(&node)
    }

    pub(crate) fn forget(&mut self, link: LinkId) {
        self.waiting.remove(&link);
    }

    pub(crate) fn may_publish_to(&mut self, epochs: u64) {
        self.reserved = epochs;
        self.reserving = false;
        self.retry_at = None;
    }

    pub(crate) fn reservation_failed(&mut self, now: Instant) {
        self.retry_at = Some(now + Duration::from_secs(1));
    }

    /// The next time at which a supernode falls out of the bulletin by itself.
    fn next_gone(&self, state: &State) -> Option<Instant> {
        self.away
            .iter()
            .filter(|(node, _)| state.supernodes.get(*node).is_some_and(|s| s.serving))
            .map(|(_, since)| *since + SUPERNODE_GONE_AFTER)
            .min()
    }
}

impl LoginServer {
    pub(crate) fn reserve_epochs(&mut self) {
        let mut change = Change::default();
        let epochs = self.state.count(&mut change, EPOCHS, EPOCHS_RESERVED);
        self.publisher.reserving = true;
        self.publisher.retry_at = None;
        self.commit(change, Then { epochs: Some(epochs), ..Then::default() });
    }

    pub(crate) fn publish_if_due(&mut self, now: Now) {
        if self.publisher.retry_at.is_some_and(|at| now.mono >= at) {
            self.reserve_epochs();
        }
        if now.mono < self.publisher.due || self.publisher.reserved == 0 {
            return;
        }
        if self.publisher.epoch >= self.publisher.reserved {
            if !self.publisher.reserving {
                self.reserve_epochs();
            }
            return;
        }
        self.publish(now);
    }

    fn publish(&mut self, now: Now) {
        let gone: Vec<NodeId> = self
            .publisher
            .away
            .iter()
            .filter(|(_, since)| now.mono.since(**since) >= SUPERNODE_GONE_AFTER)
            .map(|(node, _)| *node)
            .collect();
        let epoch = self.publisher.epoch + 1;
        let fields = self.bulletin_fields(now, epoch, &gone);
        let bulletin = match Bulletin::issue(&self.keys.issuer, fields) {
            Ok(bulletin) => bulletin,
            Err(error) => {
                // Only more than a frame's worth of supernodes could do this, and their number is bounded below that.
                error!(%error, "the bulletin cannot be signed");
                self.publisher.due = now.mono + BULLETIN_EVERY;
                return;
            }
        };
        let first = self.publisher.bulletin.is_none();
        self.publisher.epoch = epoch;
        self.publisher.published = Some(now.mono);
        self.publisher.due = now.mono + BULLETIN_EVERY;
        if let Some(at) = self.publisher.next_gone(&self.state).filter(|at| *at > now.mono) {
            self.publisher.due = self.publisher.due.min(at);
        }
        if let Err(error) = self.realm.accept_bulletin(bulletin.bytes(), now.unix) {
            error!(%error, "the own bulletin is not believed: are the issuer's dates over?");
        }
        let frame = Frame::new(FrameKind::Bulletin, bulletin.bytes().to_vec());
        self.publisher.bulletin = Some(bulletin);
        for link in std::mem::take(&mut self.publisher.waiting) {
            self.write(link, frame.clone());
        }
        if first {
            self.event(Event::Ready);
        }
    }

    fn bulletin_fields(&mut self, now: Now, epoch: u64, gone: &[NodeId]) -> BulletinFields {
        let revoked: RevokedSet = self
            .state
            .revoked
            .iter()
            .filter(|(_, until)| **until > now.unix)
            .map(|(n, u)| (*n, *u))
            .collect();
        let mut serving: Vec<_> = self
            .state
            .supernodes
            .iter()
            .filter(|(node, supernode)| {
                supernode.serving
                    && !gone.contains(node)
                    && !revoked.contains_key(node)
                    && supernode.issued.credential.not_after > now.unix
            })
            .collect();
        // Those whose link is up first, should there be more than fit.
        serving.sort_by_key(|(node, _)| (!self.publisher.is_up(**node), **node));
        let supernodes = serving
            .into_iter()
            .take(BULLETIN_SUPERNODES_MAX)
            .map(|(_, supernode)| SupernodeEntry {
                credential: supernode.issued.credential.clone(),
                udp: supernode.udp.clone(),
                tcp: supernode.tcp.clone(),
            })
            .collect();
        let hash = revoked_hash(&revoked);
        let pages_stale = self.publisher.pages.first().is_none_or(|page| page.set != hash);
        if revoked.len() <= BULLETIN_REVOKED_MAX {
            self.publisher.pages = Vec::new();
        } else if pages_stale {
            self.publisher.pages =
                RevokedPage::split(&self.keys.issuer, &self.keys.realm, &revoked).unwrap_or_default();
        }
        let mut newest: Vec<_> = revoked.into_iter().collect();
        newest.sort_by_key(|(_, until)| std::cmp::Reverse(*until));
        newest.truncate(BULLETIN_REVOKED_MAX);
        BulletinFields {
            realm: self.keys.realm.clone(),
            epoch,
            issued: now.unix,
            supernodes,
            oldest_version: VERSION,
            newest_version: VERSION,
            revoked_hash: hash,
            revoked_pages: u16::try_from(self.publisher.pages.len()).unwrap_or(u16::MAX),
            revoked_newest: newest.into_iter().collect(),
            issuer: IssuerId::default(),
        }
    }

    /// Answers at once when there is something newer, else when there will be.
    pub(crate) fn bulletin_wanted(&mut self, link: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let wanted = BulletinWanted::decode(body).map_err(|_| Refusal::Malformed)?;
        if let Some(set) = wanted.pages_of {
            let pages: Vec<Frame> = self
                .publisher
                .pages
                .iter()
                .filter(|page| page.set == set)
                .map(|page| Frame::new(FrameKind::RevokedPage, page.bytes().to_vec()))
                .collect();
            for page in pages {
                self.write(link, page);
            }
        }
        match self.publisher.bulletin.as_ref().filter(|bulletin| bulletin.epoch > wanted.have_epoch) {
            Some(bulletin) => {
                let frame = Frame::new(FrameKind::Bulletin, bulletin.bytes().to_vec());
                self.write(link, frame);
            }
            None => {
                self.publisher.waiting.insert(link);
            }
        }
        // A supernode's request stays open for ever; anybody else's ends with the link's idle time.
        self.name_supernode(link);
        Ok(())
    }
}
