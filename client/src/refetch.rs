//! The bulletin from the login server itself: for a phone that no supernode it knows of answers, because it signed in
//! before there were any, or was away for so long that all have moved.
//!
//! Contract: [`Refetch::set_servers`] with resolved addresses, [`Refetch::set_homes`] after every change of the homes,
//! [`Refetch::handle_link`] with the events of every link that is no home's, [`Refetch::handle_timeout`] at
//! [`Refetch::deadline`]; drain [`Refetch::poll_output`]. While there is no home, one request stays open, so that the
//! phone knows of a new supernode as soon as anybody; with a home, nothing is asked of the login server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::login::{Body, LoginHello};
use yodel_identity::realm::Realm;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkEvent, LinkId, LinkTarget, Transport};
use yodel_wire::time::{Instant, Now};

use crate::homes::LinkIds;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, REFETCH_AFTER, REFETCH_ANSWER};

/// See the module's text.
pub struct Refetch {
    servers: Vec<SocketAddr>,
    next_server: usize,
    /// The link, and when it is given up unless the server says its hello.
    link: Option<(LinkId, Option<Instant>)>,
    /// When to ask; none while there is a home.
    next_try: Option<Instant>,
    failures: u32,
    rng: ChaCha20Rng,
    outputs: VecDeque<(LinkId, LinkAction)>,
}

impl Refetch {
    /// Quiet until it is told that there is no home.
    pub fn new(seed: [u8; 32]) -> Refetch {
        Refetch {
            servers: Vec::new(),
            next_server: 0,
            link: None,
            next_try: None,
            failures: 0,
            rng: ChaCha20Rng::from_seed(seed),
            outputs: VecDeque::new(),
        }
    }

    /// Where the login server answers, resolved.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// Whether there is a home, and whether the bulletin names a supernode that could become one.
    pub fn set_homes(&mut self, now: Now, warm: bool, named: bool) {
        if warm {
            self.next_try = None;
            self.failures = 0;
            if let Some((link, _)) = self.link.take() {
                self.outputs.push_back((link, LinkAction::Close));
            }
        } else if self.link.is_none() && self.next_try.is_none() {
            let patience = if named { REFETCH_AFTER } else { Duration::ZERO };
            self.next_try = Some(now.mono + patience);
        }
    }

    /// Something happened on a link that may be this one's. `true` when the realm has a newer bulletin now.
    pub fn handle_link(&mut self, now: Now, link: LinkId, event: &LinkEvent, realm: &mut Realm) -> bool {
        if self.link.is_none_or(|(own, _)| own != link) {
            return false;
        }
        match event {
            LinkEvent::Opened(_) => false,
            LinkEvent::Frame(frame) => self.frame(now, link, frame, realm),
            LinkEvent::Closed(_) => {
                self.again(now);
                false
            }
        }
    }

    fn frame(&mut self, now: Now, link: LinkId, frame: &Frame, realm: &mut Realm) -> bool {
        match frame.kind {
            FrameKind::LoginHello => {
                // Whoever it is: what follows is believed by its signature alone.
                if let Ok(hello) = LoginHello::decode(&frame.body) {
                    let _ = realm.accept_statement(&hello.statement, now.unix);
                }
                self.link = Some((link, None));
                self.ask(link, realm);
                false
            }
            FrameKind::Bulletin => {
                let newer = realm.accept_bulletin(&frame.body, now.unix).unwrap_or(false);
                if newer {
                    self.failures = 0;
                    self.ask(link, realm);
                }
                newer
            }
            FrameKind::RevokedPage => {
                let _ = realm.accept_revoked_page(&frame.body, now.unix);
                false
            }
            // Nothing else was asked for.
            _ => false,
        }
    }

    fn ask(&mut self, link: LinkId, realm: &Realm) {
        let wanted = BulletinWanted { have_epoch: realm.epoch(), pages_of: realm.revoked_pages_wanted() };
        let frame = Frame::new(FrameKind::BulletinWanted, wanted.encode());
        self.outputs.push_back((link, LinkAction::Write(frame)));
    }

    /// It is time to ask, or the server takes too long.
    pub fn handle_timeout(&mut self, now: Now, links: &mut LinkIds) {
        if let Some((link, Some(until))) = self.link
            && now.mono >= until
        {
            self.outputs.push_back((link, LinkAction::Close));
            self.again(now);
        }
        if self.next_try.is_none_or(|at| at > now.mono) || self.link.is_some() {
            return;
        }
        self.next_try = None;
        let Some(addr) = self.servers.get(self.next_server % self.servers.len().max(1)).copied() else {
            return self.again(now);
        };
        self.next_server = self.next_server.wrapping_add(1);
        let link = links.draw();
        self.link = Some((link, Some(now.mono + REFETCH_ANSWER)));
        let target = LinkTarget { addr, transport: Transport::Tls, key: None };
        self.outputs.push_back((link, LinkAction::Open(target)));
    }

    /// After a pause with full jitter, so that a realm that lost its supernodes does not ask in step.
    fn again(&mut self, now: Now) {
        self.link = None;
        let longest = (BACKOFF_FIRST * 2u32.saturating_pow(self.failures)).min(BACKOFF_MAX);
        self.failures = (self.failures + 1).min(8);
        let pause = longest.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX));
        self.next_try = Some(now.mono + pause);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.link {
            Some((_, until)) => until,
            None => self.next_try,
        }
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<(LinkId, LinkAction)> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yodel_identity::keys::SigningKey;
    use yodel_identity::name::RealmName;
    use yodel_wire::time::UnixTime;

    #[test]
    fn it_asks_while_there_is_no_home_and_then_is_quiet() {
        let mut links = LinkIds::default();
        let name = RealmName::parse("example.net").unwrap();
        let mut realm = Realm::new(name, SigningKey::from_seed([1; 32]).public());
        let at = |ms: u64| Now { mono: Instant::from_micros(ms * 1_000), unix: UnixTime::from_secs(1) };
        let mut refetch = Refetch::new([1; 32]);
        refetch.set_servers(vec!["198.51.100.1:1".parse().unwrap()]);
        assert_eq!(refetch.deadline(), None);
        refetch.set_homes(at(0), false, true);
        assert_eq!(refetch.deadline(), Some(at(0).mono + REFETCH_AFTER));
        refetch.handle_timeout(at(60_000), &mut links);
        let Some((link, LinkAction::Open(_))) = refetch.poll_output() else { panic!() };
        let hello = LoginHello { statement: vec![1], time: UnixTime::from_secs(1) }.frame();
        assert!(!refetch.handle_link(at(60_001), link, &LinkEvent::Frame(hello), &mut realm));
        let Some((_, LinkAction::Write(asked))) = refetch.poll_output() else { panic!() };
        assert_eq!(asked.kind, FrameKind::BulletinWanted);
        assert_eq!(refetch.deadline(), None, "the request stays open");
        refetch.set_homes(at(60_002), true, true);
        assert_eq!(refetch.poll_output(), Some((link, LinkAction::Close)));
        assert_eq!(refetch.deadline(), None);
    }
}
