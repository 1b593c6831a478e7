//! What the root does when one of its parts says something, and who gets a home's frames.

use yodel_call::event::{CallsOutput, RelayLink, State};
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_overlay::attach::RefuseReason;
use yodel_overlay::record::{Answer, Written};
use yodel_overlay::verify::LookupResult;
use yodel_relay::control::is_relay;
use yodel_sip::envelope::{Envelope, Return};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::Output;
use yodel_wire::time::Now;

use super::{BULLETIN, Client, SELF, SEQUENCE};
use crate::command::Event;
use crate::homes::{Home, HomesOutput};
use crate::limits::PENDING_MAX;
use crate::lookups::{Asker, LookupsOutput};
use crate::publish::PublisherOutput;

impl Client {
    fn home_frame(&mut self, now: Now, home: NodeId, frame: &Frame) {
        if is_relay(frame.kind) {
            self.calls.handle_relay_frame(now, home, frame);
            return;
        }
        match frame.kind {
            FrameKind::Answer => {
                if let Ok(answer) = Answer::decode(&frame.body) {
                    self.lookups.handle_answer(now, &self.realm, home, &answer);
                }
            }
            FrameKind::Written => {
                if let Ok(written) = Written::decode(&frame.body) {
                    self.publisher.handle_written(now, home, &written);
                }
            }
            FrameKind::SipDeliver => {
                if let Ok(envelope) = Envelope::decode(&frame.body) {
                    self.calls.handle_sip(now, &self.realm, home, envelope);
                }
            }
            FrameKind::SipReturn => {
                if let Ok(returned) = Return::decode(&frame.body) {
                    self.calls.handle_sip_return(now, &self.realm, &returned);
                }
            }
            FrameKind::Bulletin => {
                if let Ok(true) = self.realm.accept_bulletin(&frame.body, now.unix) {
                    self.store(SELF, BULLETIN, frame.body.clone());
                    self.news(now);
                }
                self.ask_for_news(home);
            }
            FrameKind::RevokedPage => {
                let believed = self.realm.accept_revoked_page(&frame.body, now.unix).is_ok();
                if believed && self.realm.is_revoked(self.credential.node) {
                    self.homes.stop(now);
                }
            }
            FrameKind::Enrolled | FrameKind::LoginRefused => {
                self.renewal.handle_home_frame(now, frame, &mut self.realm);
            }
            // Everything else has no place on a phone's link to its home; a home that sends it gains nothing.
            _ => {}
        }
    }

    /// Tells others that they are contacts here, as soon as this phone is online itself.
    pub(super) fn deliver(&mut self, now: Now) {
        if !self.publisher.is_online() {
            return;
        }
        for aor in self.book.due(now) {
            self.lookups.start(now, Asker::Contact(aor.clone()), &aor, false);
        }
    }

    pub(super) fn homes_said(&mut self, now: Now, output: HomesOutput) {
        match output {
            HomesOutput::Link(link, action) => self.outputs.push_back(Output::Link(link, action)),
            HomesOutput::Datagram { to, bytes } => self.outputs.push_back(Output::Datagram { to, bytes }),
            HomesOutput::Up(node) => {
                self.refused = None;
                let link = self.homes.attached(node).as_ref().map(relay_link);
                self.calls.relay_link(now, node, link);
                self.homes_changed(now);
            }
            HomesOutput::Down(node) => {
                self.calls.relay_link(now, node, None);
                self.homes_changed(now);
            }
            HomesOutput::Observed(_) => {
                self.gatherer.refresh(now);
                self.addresses_changed(now);
            }
            HomesOutput::Frame(home, frame) => self.home_frame(now, home, &frame),
            HomesOutput::Refused(reason) => {
                self.refused = Some(reason);
                if self.is_out() {
                    self.calls.signed_out(now);
                }
                if reason == RefuseReason::Credential {
                    self.renewal.hurry(now);
                }
            }
        }
    }

    pub(super) fn lookups_said(&mut self, now: Now, output: LookupsOutput) {
        match output {
            LookupsOutput::Frame(home, frame) => {
                self.homes.write(home, frame);
            }
            LookupsOutput::Result(Asker::Own, result) => self.publisher.handle_read_back(now, &result),
            LookupsOutput::Result(Asker::ReadBack(home), result) => {
                self.publisher.handle_checked(now, home, &result);
            }
            LookupsOutput::Result(Asker::Call(id), result) => {
                self.calls.handle_lookup(now, &self.realm, id, result);
            }
            LookupsOutput::Result(Asker::Contact(aor), result) => self.deliver_to(now, aor, result),
            LookupsOutput::Result(Asker::Reach(id, peer), result) => self.reached(id, peer, result),
        }
    }

    fn deliver_to(&mut self, now: Now, aor: Aor, result: LookupResult) {
        let reachable = match result {
            LookupResult::Found { settled: false, .. } => return,
            LookupResult::Found { account, entries, .. } => {
                self.book.pin(&aor, account.root) && !entries.is_empty()
            }
            LookupResult::NoSuchAccount | LookupResult::Unreachable => false,
        };
        self.book_changed(None);
        match self.book.message_for(&aor) {
            Some(message) if reachable && self.deliveries.len() < PENDING_MAX => {
                let id = self.calls.send_message(now, &self.realm, aor.clone(), &message);
                self.deliveries.insert(id, aor);
            }
            Some(_) | None => self.book.delivered(now, &aor, false),
        }
    }

    pub(super) fn publisher_said(&mut self, now: Now, output: PublisherOutput) {
        match output {
            PublisherOutput::Frame(home, frame) => {
                self.homes.write(home, frame);
            }
            PublisherOutput::ReadBack => self.lookups.start(now, Asker::Own, &self.aor, true),
            PublisherOutput::Check(home) => self.lookups.start_through(now, &self.aor, home),
            PublisherOutput::Sequence(sequence) => {
                self.store(SELF, SEQUENCE, sequence.to_be_bytes().to_vec())
            }
            PublisherOutput::Entry(entry) => {
                self.entry = entry;
                self.identify();
            }
            PublisherOutput::Online(_) => {}
            PublisherOutput::NewerRecord(record) => {
                self.renewal.set_record((*record).clone());
                self.record = *record;
                self.identify();
            }
        }
    }

    pub(super) fn calls_said(&mut self, now: Now, output: CallsOutput) {
        match output {
            CallsOutput::Sip { via_home, envelope } => {
                self.homes.write(via_home, Frame::new(FrameKind::SipSend, envelope.encode()));
            }
            CallsOutput::Datagram { to, bytes } => self.outputs.push_back(Output::Datagram { to, bytes }),
            CallsOutput::RelayLinkWanted(relay) => {
                match self.homes.attached(relay) {
                    Some(home) => self.calls.relay_link(now, relay, Some(relay_link(&home))),
                    None => {
                        if !self.homes.want(now, relay, &mut self.links) {
                            self.calls.relay_link(now, relay, None);
                        }
                    }
                };
            }
            CallsOutput::RelayLinkDone(relay) => self.homes.unwant(now, relay, &mut self.links),
            CallsOutput::RelayFrame { relay, frame } => {
                self.homes.write(relay, frame);
            }
            CallsOutput::Lookup { id, aor, past_cache } => {
                self.lookups.start(now, Asker::Call(id), &aor, past_cache);
            }
            CallsOutput::Event(event) => {
                self.history.take(&event);
                if let State::Ended(ended) = &event.state
                    && ended.answered
                {
                    // Somebody who answered is worth telling again soon, should a tag still wait.
                    self.deliver(now);
                }
                self.outputs.push_back(Output::Event(Event::Call(event)));
            }
            CallsOutput::Incoming(incoming) => {
                let news = self.book.handle_incoming(now, &incoming);
                self.tell_contact(incoming.from, news);
                self.book_changed(None);
            }
            CallsOutput::MessageDone { id, result } => {
                if let Some(aor) = self.deliveries.remove(&id) {
                    self.book.delivered(now, &aor, result.is_ok());
                    self.book_changed(None);
                }
            }
        }
    }
}

pub(super) fn relay_link(home: &Home) -> RelayLink {
    RelayLink { udp: home.udp, exporter: home.exporter, transport: home.transport }
}
