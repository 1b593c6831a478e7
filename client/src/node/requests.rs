//! What users ask of the phone, and its answers.

use yodel_call::event::{self as call_event, CallId, DialOptions, Target};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_net::Exit;
use yodel_overlay::verify::LookupResult;
use yodel_wire::machine::Output;
use yodel_wire::time::Now;

use super::Client;
use crate::book::{Book, BookError, BookNews};
use crate::command::{
    Cause, Checkup, Contact, ContactChange, ContactEvent, ContactRequest, ContactState, Dial, Event, Failure,
    HomeStatus, Online, Reach, Reply, Request, RequestId, Status, Why, WhyStep,
};
use crate::lookups::Asker;

impl Client {
    pub(super) fn request(&mut self, now: Now, id: RequestId, request: Request) {
        let result = match request {
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Checkup => Ok(Reply::Checkup(Box::new(self.checkup(now)))),
            Request::Contacts => Ok(Reply::Contacts(self.contacts())),
            Request::ContactRequests => Ok(Reply::Requests(self.requests())),
            Request::ContactAdd(aor) => return self.book_request(id, &aor, |book, aor| book.add(aor)),
            Request::ContactAccept(aor) => return self.book_request(id, &aor, |book, aor| book.accept(aor)),
            Request::ContactReject(aor) => {
                return self.book_request(id, &aor, |book, aor| book.reject(aor).map(|()| BookNews::Nothing));
            }
            Request::ContactRemove(aor) => {
                let known = self.book.contacts().iter().any(|contact| contact.aor == aor);
                if known {
                    let event = ContactEvent { aor: aor.clone(), change: ContactChange::Removed };
                    self.outputs.push_back(Output::Event(Event::Contact(event)));
                }
                return self.book_request(id, &aor, |book, aor| book.remove(aor).map(|()| BookNews::Nothing));
            }
            Request::ContactBlock(aor, blocked) => {
                return self.book_request(id, &aor, |book, aor| {
                    if blocked {
                        book.block(aor).map(|()| BookNews::Blocked)
                    } else {
                        book.unblock(aor).map(|()| BookNews::Unblocked)
                    }
                });
            }
            Request::Dial(dial) => self.dial(now, dial),
            Request::Reach(peer) => return self.reach(now, id, peer),
            Request::Answer { call, audio } => self.ringing(call).and_then(|call| {
                self.calls.answer(now, call, audio).then_some(Reply::Call(call)).ok_or_else(no_call)
            }),
            Request::Decline(call) => self.ringing(call).and_then(|call| {
                self.calls.decline(now, call).then_some(Reply::Call(call)).ok_or_else(no_call)
            }),
            Request::Hangup(call) => self.running(call).and_then(|call| {
                self.calls.hangup(now, call).then_some(Reply::Call(call)).ok_or_else(no_call)
            }),
            Request::Mute(call, muted) => self.running(call).map(|call| {
                self.calls.mute(call, muted);
                Reply::Call(call)
            }),
            Request::Calls => Ok(Reply::Calls(self.calls.list())),
            Request::Why(call) => self.why(call),
        };
        self.reply(id, result);
    }

    fn book_request(
        &mut self,
        id: RequestId,
        aor: &Aor,
        change: impl FnOnce(&mut Book, &Aor) -> Result<BookNews, BookError>,
    ) {
        if aor.realm != self.aor.realm {
            return self.reply(id, Err(other_realm()));
        }
        match change(&mut self.book, aor) {
            Ok(news) => {
                self.tell_contact(aor.clone(), news);
                self.book_changed(Some((id, Reply::Done)));
            }
            Err(error) => {
                let exit = match error {
                    BookError::Full => Exit::Refused,
                    BookError::NoRequest | BookError::NoContact | BookError::NotBlocked => Exit::NoSuchUser,
                    BookError::Own => Exit::Usage,
                };
                self.reply(id, Err(Failure::new(exit, error.to_string())));
            }
        }
    }

    fn dial(&mut self, now: Now, dial: Dial) -> Result<Reply, Failure> {
        if dial.peer.realm != self.aor.realm {
            return Err(other_realm());
        }
        let target = if dial.peer.is_echo() { Target::Echo } else { Target::Account(dial.peer) };
        if let Some((cause, detail)) = self.hindrance(now) {
            return Ok(Reply::Call(self.calls.dial_refused(now, &self.realm, &target, cause, detail)));
        }
        let options = DialOptions {
            audio: dial.audio,
            relay_only: dial.relay_only,
            max: dial.max,
            ring_timeout: dial.ring_timeout,
        };
        Ok(Reply::Call(self.calls.dial(now, &self.realm, target, options)))
    }

    /// Why this device cannot call anybody.
    fn hindrance(&self, now: Now) -> Option<(Cause, &'static str)> {
        if self.is_out() {
            Some((Cause::SigninExpired, "this device's credential has ended or was revoked; sign in again"))
        } else if self.homes.clock_is_off(now) {
            Some((Cause::SigninClock, "this device's clock is off by more than five minutes"))
        } else {
            None
        }
    }

    fn reach(&mut self, now: Now, id: RequestId, peer: Aor) {
        if peer.realm != self.aor.realm {
            return self.reply(id, Err(other_realm()));
        }
        if let Some((cause, detail)) = self.hindrance(now) {
            return self.reply(id, Err(caused(cause, detail)));
        }
        if !peer.is_echo() {
            return self.lookups.start(now, Asker::Reach(id, peer.clone()), &peer, false);
        }
        let home = self.homes.warm().first().map(|home| home.node);
        let reach = home.map(|home| Reply::Reach(Reach { peer, devices: vec![home] }));
        self.reply(id, reach.ok_or_else(|| caused(Cause::LookupOverlayUnreachable, "no supernode answers")));
    }

    pub(super) fn reached(&mut self, id: RequestId, peer: Aor, result: LookupResult) {
        let result = match result {
            LookupResult::Found { settled: false, .. } => return,
            LookupResult::Found { account, entries, .. } => {
                let listed = |node: &NodeId| account.device(*node).is_some();
                let devices: Vec<NodeId> = entries.iter().map(|entry| entry.device).filter(listed).collect();
                if devices.is_empty() {
                    Err(caused(Cause::PeerOffline, "none of their devices is online"))
                } else {
                    Ok(Reply::Reach(Reach { peer, devices }))
                }
            }
            LookupResult::NoSuchAccount => Err(caused(Cause::LookupNoUser, "there is no such account")),
            LookupResult::Unreachable => Err(caused(Cause::LookupOverlayUnreachable, "no supernode answers")),
        };
        self.reply(id, result);
    }

    /// The one incoming call that is meant.
    fn ringing(&self, call: Option<CallId>) -> Result<CallId, Failure> {
        let ringing = |info: &&call_event::CallInfo| {
            info.direction == call_event::Direction::In && matches!(info.state, "contacting" | "alerted")
        };
        self.one(call, ringing, "no call rings")
    }

    fn running(&self, call: Option<CallId>) -> Result<CallId, Failure> {
        self.one(call, |_| true, "there is no call")
    }

    fn one(
        &self,
        call: Option<CallId>,
        fits: impl Fn(&&call_event::CallInfo) -> bool,
        none: &str,
    ) -> Result<CallId, Failure> {
        let list = self.calls.list();
        let mut fitting = list.iter().filter(|info| call.is_none_or(|call| info.call == call)).filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(Failure::new(Exit::Failed, none)),
            (Some(one), None) => Ok(one.call),
            (Some(_), Some(_)) => {
                Err(Failure::new(Exit::Usage, "there are several calls: name one (see `calls`)"))
            }
        }
    }

    fn why(&self, call: Option<CallId>) -> Result<Reply, Failure> {
        let none = if call.is_some() { "no such call is remembered" } else { "no call is remembered" };
        let (info, ended) = self.history.find(call).ok_or_else(|| Failure::new(Exit::Failed, none))?;
        let entries = self.calls.timeline(info.call).map(|timeline| timeline.entries()).unwrap_or_default();
        let own = entries.iter().map(|entry| WhyStep {
            t: entry.at,
            device: entry.device,
            text: entry.step.to_string(),
        });
        let strays = self.calls.meanwhile(info.call).into_iter().map(|entry| WhyStep {
            t: entry.at,
            device: entry.device,
            text: format!("{} (of no call)", entry.step),
        });
        let mut steps: Vec<WhyStep> = own.chain(strays).collect();
        steps.sort_by_key(|step| step.t);
        Ok(Reply::Why(Why { info: info.clone(), ended: ended.cloned(), steps }))
    }

    fn status(&self) -> Status {
        let mut homes: Vec<HomeStatus> = self
            .homes
            .warm()
            .iter()
            .map(|home| HomeStatus { node: home.node, addr: home.addr, warm: true })
            .collect();
        if let Some((node, addr)) = self.homes.cold() {
            homes.push(HomeStatus { node, addr, warm: false });
        }
        Status {
            account: self.aor.clone(),
            device: self.credential.node,
            state: self.state(),
            homes,
            mapping: self.gatherer.mapping().to_string(),
            // Without a server at a second address of the same host filtering cannot be told (RFC 5780 §4.4).
            filtering: "unknown".into(),
            credential_ends: self.credential.not_after.as_secs(),
        }
    }

    fn checkup(&self, now: Now) -> Checkup {
        let bulletin = self.realm.bulletin();
        let servers = self.realm.statement().map(|statement| statement.servers.clone());
        Checkup {
            status: self.status(),
            now: now.unix.as_secs(),
            clock_is_off: (!self.homes.warm().is_empty()).then(|| self.homes.clock_is_off(now)),
            bulletin: bulletin.map(|bulletin| (bulletin.epoch, bulletin.issued.as_secs())),
            supernodes: self.homes.known(),
            login_servers: servers.unwrap_or_default(),
            fallbacks: self.homes.fallbacks(),
        }
    }

    pub(super) fn state(&self) -> Online {
        if self.is_out() || self.stopping.is_some() {
            Online::Offline
        } else if self.publisher.is_online() && !self.homes.warm().is_empty() {
            Online::Online
        } else {
            Online::Connecting
        }
    }

    fn contacts(&self) -> Vec<Contact> {
        let state = |contact: &yodel_call::contacts::Contact| match contact {
            contact if contact.blocked => ContactState::Blocked,
            contact if contact.is_mutual() => ContactState::Accepted,
            _ => ContactState::Asked,
        };
        self.book
            .contacts()
            .into_iter()
            .map(|contact| Contact { state: state(&contact), aor: contact.aor })
            .collect()
    }

    fn requests(&self) -> Vec<ContactRequest> {
        self.book
            .requests()
            .map(|(aor, request)| ContactRequest {
                aor: aor.clone(),
                at_ms: request.at.as_millis(),
                called: request.called,
                note: request.note.clone(),
            })
            .collect()
    }
}

fn no_call() -> Failure {
    Failure::new(Exit::Failed, "no such call rings or runs")
}

fn other_realm() -> Failure {
    caused(Cause::LookupNoUser, "that account is of another realm")
}

/// A failure with a cause of the list, which tells the exit code.
fn caused(cause: Cause, message: &str) -> Failure {
    Failure { exit: Exit::from_code(cause.exit_code() as u8), message: message.into(), cause: Some(cause) }
}
