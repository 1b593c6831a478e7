//! The link to the login server: kept open, over TLS. It brings every bulletin within a second, tells that we serve, and
//! renews our credential. Without it everything else goes on with the newest bulletin held.

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use yodel_identity::bulletin::BulletinWanted;
use yodel_identity::keys::SealingKey;
use yodel_identity::limits::{CLOCK_TOLERANCE, CREDENTIAL_RENEW_AFTER};
use yodel_identity::login::{
    Body, LoginHello, LoginRefused, Refusal, Renewal, RenewalFields, SupernodeEnrolled, SupernodeState,
};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::LinkId;
use yodel_wire::machine::{LinkAction, LinkTarget, Output, Transport};
use yodel_wire::time::{Instant, Now};

use crate::keys::PendingRenewal;
use crate::limits::{LOGIN_BACKOFF, LOGIN_BACKOFF_MAX, RENEW_RETRY};
use crate::node::{Event, Link, Role, Supernode};

/// State of the link to the login server.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// Where it answers, resolved by the driver.
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) link: Option<LinkId>,
    /// The server said its hello.
    greeted: bool,
    attempts: usize,
    failures: u32,
    next_open: Instant,
    next_renewal: Instant,
    /// The pending renewal is on stable storage and may be sent.
    stored: bool,
}

impl Login {
    /// Whether the server can be asked now.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_some() && self.greeted
    }
}

impl Supernode {
    /// Opens the link when it is time.
    pub(crate) fn open_login(&mut self, now: Now) {
        if self.login.link.is_some() || now.mono < self.login.next_open || self.stopping {
            return;
        }
        let attempt = self.login.attempts;
        let Some((addr, key)) = self.login_target(attempt) else { return };
        self.login.next_open = now.mono + LOGIN_BACKOFF;
        self.login.attempts = attempt.wrapping_add(1);
        let id = self.draw_link();
        self.login.link = Some(id);
        self.login.greeted = false;
        self.links.insert(id, Link::new(now.mono, Role::Login));
        self.act(id, LinkAction::Open(LinkTarget { addr, transport: Transport::Tls, key: Some(key) }));
    }

    /// Where the login server is tried the n-th time, and the key it must have.
    pub(crate) fn login_target(&self, attempt: usize) -> Option<(SocketAddr, [u8; 32])> {
        let statement = self.realm.statement()?;
        let (addrs, keys) = (self.login.addrs.len(), statement.tls_keys.len());
        let addr = self.login.addrs.get(attempt % addrs.max(1))?;
        let key = statement.tls_keys.get(attempt / addrs.max(1) % keys.max(1))?;
        Some((*addr, key.0))
    }

    /// The link ended, or never came to be.
    pub(crate) fn login_closed(&mut self, now: Now) {
        let pause = (LOGIN_BACKOFF * 2_u32.saturating_pow(self.login.failures.min(8))).min(LOGIN_BACKOFF_MAX);
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        self.login.link = None;
        self.login.greeted = false;
        self.login.failures = self.login.failures.saturating_add(1);
        self.login.next_open = now.mono + pause.mul_f64(share).max(Duration::from_millis(100));
    }

    /// When something is due here.
    pub(crate) fn login_deadline(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        match self.login.link {
            None => {
                let possible = !self.login.addrs.is_empty() && self.realm.statement().is_some();
                possible.then_some(self.login.next_open)
            }
            Some(_) => self.login.greeted.then_some(self.login.next_renewal),
        }
    }

    /// A frame of the login server.
    pub(crate) fn login_frame(&mut self, now: Now, id: LinkId, frame: &Frame) {
        match frame.kind {
            FrameKind::LoginHello => {
                let Ok(hello) = LoginHello::decode(&frame.body) else { return self.close(now, id) };
                if self.realm.accept_statement(&hello.statement, now.unix) == Ok(true) {
                    self.keys.statement = hello.statement;
                    self.store_keys();
                }
                let off = now.unix.since(hello.time).max(hello.time.since(now.unix));
                if off > CLOCK_TOLERANCE {
                    self.outputs.push_back(Output::Event(Event::ClockOff { by: off }));
                }
                self.login.greeted = true;
                self.login.failures = 0;
                self.say_state(true);
                self.want_bulletin(id);
                self.renew_if_due(now);
            }
            FrameKind::Bulletin => {
                self.take_bulletin(now, &frame.body);
                self.want_bulletin(id);
            }
            FrameKind::RevokedPage => self.take_page(now, &frame.body),
            FrameKind::SupernodeEnrolled => {
                if let Ok(enrolled) = SupernodeEnrolled::decode(&frame.body) {
                    self.renewed(now, &enrolled);
                }
            }
            FrameKind::LoginRefused => self.login_refused(now, &frame.body),
            FrameKind::Pong => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.ping = None;
                }
            }
            // Whatever a newer server says besides.
            _ => {}
        }
    }

    /// Asks for the next bulletin, and for the pages of the revoked set that are missing.
    fn want_bulletin(&mut self, id: LinkId) {
        let wanted =
            BulletinWanted { have_epoch: self.realm.epoch(), pages_of: self.realm.revoked_pages_wanted() };
        self.write(id, Frame::new(FrameKind::BulletinWanted, wanted.encode()));
    }

    /// Tells that we serve, or leave.
    pub(crate) fn say_state(&mut self, ready: bool) {
        if let Some(id) = self.login.link.filter(|_| self.login.greeted) {
            let state = SupernodeState {
                ready,
                udp: self.config.advertise_udp.clone(),
                tcp: self.config.advertise_tcp.clone(),
                named: ready && self.was_named(),
            };
            self.write(id, state.frame());
        }
    }

    /// Asks for the next credential from a day after the present one was issued.
    pub(crate) fn renew_if_due(&mut self, now: Now) {
        let due = self.keys.pending.is_some()
            || now.unix >= self.keys.credential.not_before + CREDENTIAL_RENEW_AFTER;
        if now.mono < self.login.next_renewal || !self.login.greeted {
            return;
        }
        if !due {
            // Looked at again now and then: the wall clock may be set meanwhile.
            self.login.next_renewal = now.mono + RENEW_RETRY;
            return;
        }
        self.login.next_renewal = now.mono + RENEW_RETRY;
        if self.keys.pending.is_none() {
            let mut secret = [0; 32];
            self.rng.fill_bytes(&mut secret);
            let sealing = SealingKey::from_bytes(secret);
            let fields = RenewalFields {
                credential: self.keys.credential.clone(),
                sealing: sealing.public(),
                at: now.unix,
            };
            let Ok(request) = Renewal::issue(&self.keys.signing, &fields) else { return };
            self.keys.pending = Some(PendingRenewal { request: request.bytes().to_vec(), sealing });
            self.login.stored = false;
            self.store_keys();
        } else {
            // It came from the file, or was stored since.
            self.login.stored = true;
            self.send_renewal();
        }
    }

    /// The key file was written: a request whose secret is safe may leave.
    pub(crate) fn keys_stored(&mut self) {
        if self.keys.pending.is_some() && !std::mem::replace(&mut self.login.stored, true) {
            self.send_renewal();
        }
    }

    fn send_renewal(&mut self) {
        if let (Some(id), Some(pending)) = (self.login.link, &self.keys.pending) {
            let frame = Frame::new(FrameKind::Renew, pending.request.clone());
            self.write(id, frame);
        }
    }

    fn renewed(&mut self, now: Now, enrolled: &SupernodeEnrolled) {
        let Ok(credential) = self.realm.verify_credential(&enrolled.credential, now.unix) else { return };
        let ours = self.keys.pending.as_ref().is_some_and(|pending| {
            credential.node == self.me
                && credential.key == self.keys.credential.key
                && credential.sealing == pending.sealing.public()
        });
        if !ours {
            return;
        }
        self.keys.renewed(credential.clone(), now.unix);
        self.ring.renew(now, credential, &self.keys.sealing_keys());
        self.store_keys();
        self.echo_identity();
        self.counters.renewals += 1;
    }

    fn login_refused(&mut self, now: Now, body: &[u8]) {
        let Ok(refused) = LoginRefused::decode(body) else { return };
        match refused.refusal {
            Refusal::Revoked => self.outputs.push_back(Output::Event(Event::Revoked)),
            Refusal::Stale | Refusal::Malformed => {
                // The request is no longer worth repeating; the next one is made anew.
                self.keys.pending = None;
                self.store_keys();
            }
            _ => {
                let wait = Duration::from_secs(u64::from(refused.come_back_s.unwrap_or(60)));
                self.login.next_renewal = self.login.next_renewal.min(now.mono + wait);
            }
        }
    }

    /// Sealing keys whose time is over go, here and on disk, whether or not there is a login server to renew with.
    pub(crate) fn wipe_old_keys(&mut self, now: Now) {
        if self.keys.wipe_old(now.unix) {
            self.store_keys();
            self.echo_identity();
        }
    }

    fn store_keys(&mut self) {
        self.outputs.push_back(Output::Event(Event::StoreKeys(self.keys.encode())));
    }
}
