//! Bulletins: signed every ten minutes and at once when a supernode gets ready, leaves or is revoked; handed to
//! whoever keeps a request open. Changes within [`COALESCE`] of the last bulletin go into one.
//!
//! **Who is named**: supernodes that said they serve, until they say that they leave, are revoked, their credential
//! ends, or their link has been down for [`crate::limits::SUPERNODE_GONE_AFTER`]. A link that breaks says nothing about
//! the supernode: it is as often our own network or our own restart, and a bulletin without supernodes would take the
//! realm down. Who is dead is found out by the members and devices themselves, within seconds. When more serve than a
//! bulletin has room for, [`crate::roster`] chooses.
//!
//! **Who gets it when**: at once whom it names anew, and all who wait when it takes a credential back. Other bulletins
//! of a large realm reach those who wait a little later, several in one (`HAND_OUT`).

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

use crate::limits::{BULLETIN_EVERY, EPOCHS_RESERVED, HAND_OUT};
use crate::server::{Event, LoginServer, Then};
use crate::state::{Change, State};
use crate::tables::Supernode;

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
    /// Who wants the next one, with the epoch they have.
    waiting: BTreeMap<LinkId, u64>,
    /// The newest epoch that all who waited got, and when.
    handed: Option<(u64, Instant)>,
    /// The next bulletin takes a credential back.
    urgent: bool,
}

/// What a change means for the bulletin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Publish {
    /// It is not in it.
    #[default]
    Nothing,
    /// There is to be a new one.
    Soon,
    /// And all who wait must have it at once.
    Urgently,
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
            waiting: BTreeMap::new(),
            handed: None,
            urgent: false,
        }
    }

    /// The newest bulletin's bytes.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        self.bulletin.as_ref().map(|bulletin| bulletin.bytes().to_vec())
    }

    pub(crate) fn bulletin(&self) -> Option<&Bulletin> {
        self.bulletin.as_ref()
    }

    /// Whether the newest bulletin names a supernode.
    pub(crate) fn names(&self, node: NodeId) -> bool {
        self.bulletin.as_ref().is_some_and(|bulletin| bulletin.supernode(node).is_some())
    }

    /// Whether the newest bulletin has no room for more supernodes, so that who is not named may serve all the same.
    pub(crate) fn is_full(&self) -> bool {
        self.bulletin.as_ref().is_some_and(|bulletin| bulletin.supernodes.len() >= BULLETIN_SUPERNODES_MAX)
    }

    pub(crate) fn deadline(&self) -> Instant {
        let publish = match self.retry_at {
            Some(at) => at,
            // Until epochs are reserved there is nothing to do at `due`.
            None if self.reserving => self.due + BULLETIN_EVERY,
            None => self.due,
        };
        self.hand_out_at().map_or(publish, |at| publish.min(at))
    }

    /// Something that stands in the bulletin changed.
    pub(crate) fn changed(&mut self, now: Instant, publish: Publish) {
        match publish {
            Publish::Nothing => return,
            Publish::Soon => {}
            Publish::Urgently => self.urgent = true,
        }
        let soonest = self.published.map_or(now, |at| (at + COALESCE).max(now));
        self.due = self.due.min(soonest);
    }

    /// When all who wait get the newest bulletin; `None` when all who waited for it have it.
    fn hand_out_at(&self) -> Option<Instant> {
        let epoch = self.bulletin.as_ref()?.epoch;
        match self.handed {
            Some((handed, _)) if handed == epoch => None,
            Some((_, at)) => Some(at + HAND_OUT * u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)),
            None => self.published,
        }
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
}

impl LoginServer {
    pub(crate) fn reserve_epochs(&mut self) {
        let mut change = Change::default();
        let epochs = self.state.count(&mut change, EPOCHS, EPOCHS_RESERVED);
        self.publisher.reserving = true;
        self.publisher.retry_at = None;
        self.commit(change, Then { epochs: Some(epochs), ..Then::default() });
    }

    /// Publishes, and hands out what is published, when it is time.
    pub(crate) fn publish_if_due(&mut self, now: Now) {
        if self.publisher.retry_at.is_some_and(|at| now.mono >= at) {
            self.reserve_epochs();
        }
        if self.state.roster.take_gone().into_iter().any(|node| self.publisher.names(node)) {
            self.publisher.changed(now.mono, Publish::Soon);
        }
        if now.mono >= self.publisher.due && self.publisher.reserved > 0 {
            if self.publisher.epoch < self.publisher.reserved {
                self.publish(now);
            } else if !self.publisher.reserving {
                self.reserve_epochs();
            }
        }
        if self.publisher.hand_out_at().is_some_and(|at| now.mono >= at) {
            self.hand_out(now);
        }
    }

    fn publish(&mut self, now: Now) {
        let epoch = self.publisher.epoch + 1;
        let fields = self.bulletin_fields(now, epoch);
        let bulletin = match Bulletin::issue(&self.keys.issuer, fields) {
            Ok(bulletin) => bulletin,
            Err(error) => {
                // Only more than a frame's worth of supernodes could do this, and their number is bounded below that.
                error!(%error, "the bulletin cannot be signed");
                self.publisher.due = now.mono + BULLETIN_EVERY;
                return;
            }
        };
        if let Err(error) = self.realm.accept_bulletin(bulletin.bytes(), now.unix) {
            error!(%error, "the own bulletin is not believed: are the issuer's dates over?");
        }
        let named: BTreeSet<NodeId> = bulletin.supernodes.iter().map(|entry| entry.credential.node).collect();
        let first = self.publisher.bulletin.replace(bulletin).is_none();
        self.publisher.epoch = epoch;
        self.publisher.published = Some(now.mono);
        let State { roster, supernodes, revoked, .. } = &mut self.state;
        roster.named(&named, |node| is_usable(supernodes, revoked, now, node));
        // The next of a crowd that waits to be named, or whoever comes.
        let next = if self.state.roster.anybody_waits() { COALESCE } else { BULLETIN_EVERY };
        self.publisher.due = now.mono + next;
        if std::mem::take(&mut self.publisher.urgent) {
            self.hand_out(now);
        }
        let links: Vec<LinkId> = named.iter().flat_map(|node| self.state.roster.links_of(*node)).collect();
        for link in links {
            if self.publisher.waiting.remove(&link).is_some() {
                self.write_bulletin(link);
            }
        }
        if first {
            self.event(Event::Ready);
        }
    }

    /// All who wait get the newest bulletin.
    fn hand_out(&mut self, now: Now) {
        let Some(epoch) = self.publisher.bulletin().map(|bulletin| bulletin.epoch) else { return };
        self.publisher.handed = Some((epoch, now.mono));
        for (link, have) in std::mem::take(&mut self.publisher.waiting) {
            if have < epoch {
                self.write_bulletin(link);
            } else {
                self.publisher.waiting.insert(link, have);
            }
        }
    }

    fn write_bulletin(&mut self, link: LinkId) {
        if let Some(bytes) = self.publisher.bytes() {
            self.write(link, Frame::new(FrameKind::Bulletin, bytes));
        }
    }

    fn bulletin_fields(&mut self, now: Now, epoch: u64) -> BulletinFields {
        let revoked: RevokedSet = self
            .state
            .revoked
            .iter()
            .filter(|(_, until)| **until > now.unix)
            .map(|(n, u)| (*n, *u))
            .collect();
        let known = &self.state.supernodes;
        let usable = |node| is_usable(known, &revoked, now, node);
        let named: BTreeSet<NodeId> = self.state.roster.choose(epoch, usable);
        let supernodes = named
            .iter()
            .filter_map(|node| known.get(node))
            .map(|supernode| SupernodeEntry {
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
        // A supernode's request stays open for ever; anybody else's ends with the link's idle time.
        let supernode = self.name_supernode(link);
        let have = wanted.have_epoch;
        let newest = self.publisher.bulletin().map_or(0, |bulletin| bulletin.epoch);
        let handed = self.publisher.handed.map_or(0, |(epoch, _)| epoch);
        // Who is not named waits for those that all wait for.
        let at_once = have < handed || supernode.is_none_or(|node| self.publisher.names(node));
        if newest > have && at_once {
            self.write_bulletin(link);
        } else {
            self.publisher.waiting.insert(link, have);
        }
        Ok(())
    }
}

/// Whether a bulletin may name this supernode: its credential counts.
fn is_usable(supernodes: &BTreeMap<NodeId, Supernode>, revoked: &RevokedSet, now: Now, node: NodeId) -> bool {
    let lasts = supernodes.get(&node).is_some_and(|s| s.issued.credential.not_after > now.unix);
    lasts && !revoked.contains_key(&node)
}

#[cfg(test)]
mod tests;
